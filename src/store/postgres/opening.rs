//! How the database is reached, made and found again: connections, migrations, histories.

use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};
use tokio_postgres::{Client, Config, NoTls};

use super::sql::{self, Sql};
use crate::model::History;
use crate::store::{Result, StoreError, Synchronous};

const MIGRATIONS: [&str; 1] = [concat!(
    include_str!("../migrations/postgres/0001_chat.sql"),
    include_str!("../migrations/postgres/default_groups.sql"),
)];
/// The version that the tables come to.
pub(in crate::store) const NEWEST: i64 = MIGRATIONS.len() as i64;
pub(super) const DEFAULT_GROUPS: &str = include_str!("../migrations/postgres/default_groups.sql");

/// The oldest PostgreSQL that will do, as it numbers itself.
const OLDEST: i32 = 140_000;
/// How long it may take to reach the database.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an act waits for a connection that others have.
const WAIT: Duration = Duration::from_secs(10);
/// How long bytes may stay unanswered on the way.
const UNANSWERED: Duration = Duration::from_secs(10);
/// What the advisory lock of those who migrate is known by.
pub(in crate::store) const MIGRATING: i64 = 0x6f76_6572_7769_7265;

/// What an address says. It is not repeated, since it may hold a password.
pub(in crate::store) fn configuration(address: &str) -> Result<Config> {
    let mut config: Config = address.parse().map_err(|_| {
        StoreError::Address(
            "the address of the PostgreSQL database cannot be read; it is like \
             postgres://user:password@host:5432/name, with %40 for an @ in the password"
                .to_owned(),
        )
    })?;
    config.tcp_user_timeout(UNANSWERED);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    Ok(config)
}

/// What a connection is for.
#[derive(Clone, Copy)]
pub(in crate::store) enum Purpose {
    Reading,
    /// By this writer.
    Writing(i64, Synchronous),
}

/// So many connections at most.
pub(in crate::store) fn connections(
    config: &Config,
    purpose: Purpose,
    most: usize,
) -> Result<Pool> {
    let mut config = config.clone();
    config.application_name(match purpose {
        Purpose::Reading => "overwire".to_owned(),
        Purpose::Writing(writer, _) => format!("overwire writer {writer}"),
    });
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    Pool::builder(Manager::from_config(config, NoTls, recycling))
        .max_size(most)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT))
        .create_timeout(Some(CONNECT))
        .post_create(Hook::async_fn(move |db, _| {
            Box::pin(async move { begin(db, purpose).await.map_err(HookError::Backend) })
        }))
        .build()
        .map_err(|error| StoreError::Database(error.into()))
}

/// A connection begins. What is left of a writer's former one ends first: it may hold locks, and
/// nobody must still wait for what becomes of it.
async fn begin(db: &Client, purpose: Purpose) -> Sql<()> {
    let synchronous = match purpose {
        Purpose::Writing(_, Synchronous::Normal) => "off",
        Purpose::Reading | Purpose::Writing(_, Synchronous::Full) => "on",
    };
    // A transaction lies idle only if its node is frozen or cannot be reached, and holds rooms that other
    // nodes wait for: it is ended while their own time is not up.
    db.batch_execute(&format!(
        "set synchronous_commit = {synchronous}; set client_min_messages = warning;
         set statement_timeout = '10s';
         set idle_in_transaction_session_timeout = '5s'"
    ))
    .await?;
    if let Purpose::Writing(..) = purpose {
        db.batch_execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = current_setting('application_name')
             and usename = current_user and pid <> pg_backend_pid()",
        )
        .await?;
        continue_history(db, "false").await?;
    }
    Ok(())
}

/// Begins a new history where the last one was of another life of this database, which may have
/// gone on elsewhere; and where this is so.
pub(in crate::store) async fn continue_history(db: &Client, or_where: &str) -> Sql<()> {
    // A server that was started again, be it another machine's, may have been put back to an earlier
    // moment. A dump that was put back has other tables; a copy is another database.
    db.batch_execute(&format!(
        "update life set history = {}, mark = now.mark
         from (select concat_ws(' ', extract(epoch from pg_postmaster_start_time()), d.oid,
                'rooms'::regclass::oid) as mark
            from pg_database d where d.datname = current_database()) now
         where life.mark <> now.mark or {or_where}",
        History::random().0
    ))
    .await
}

/// A server starts. The first one begins a new history; whoever is here on others is left alone.
pub(super) async fn start(db: &Client) -> Sql<()> {
    continue_history(
        db,
        "not exists (select 1 from nodes where lease_until >= millis())",
    )
    .await
}

/// Makes what is missing, while others that want the same wait.
pub(in crate::store) async fn migrate(db: &mut Object) -> Result<()> {
    let known = NEWEST;
    let migration = db.transaction().await?;
    migration
        .batch_execute("set local statement_timeout = 0")
        .await?;
    let lock = "select pg_advisory_xact_lock($1)";
    sql::run(&migration, lock, &[&MIGRATING]).await?;
    migration
        .batch_execute("create table if not exists schema_version (version bigint not null)")
        .await?;
    let found = sql::one(
        &migration,
        "select version from schema_version",
        &[],
        |row| row.try_get(0),
    )
    .await?;
    let found: i64 = found.unwrap_or(0);
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    if found == known {
        return Ok(());
    }
    let (version, encoding): (i32, String) = {
        let row = migration
            .query_one(
                "select current_setting('server_version_num')::int,
                    current_setting('server_encoding')",
                &[],
            )
            .await?;
        (row.try_get(0)?, row.try_get(1)?)
    };
    if version < OLDEST || encoding != "UTF8" {
        return Err(StoreError::Address(format!(
            "the chat needs PostgreSQL 14 or later and a database whose encoding is UTF8; this is \
             {} with {encoding}",
            version / 10_000
        )));
    }
    for sql in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        migration.batch_execute(sql).await?;
    }
    migration
        .batch_execute(&format!(
            "delete from schema_version; insert into schema_version (version) values ({known})"
        ))
        .await?;
    migration.commit().await?;
    Ok(())
}
