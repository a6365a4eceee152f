//! The PostgreSQL driver: one writer and a pool of readers per process. Several nodes may share the
//! database.
//!
//! Rules that hold across nodes are enforced by the database: unique keys, row locks and its clock. A
//! batch first locks its rooms, in the order of their ids, so that batches of several nodes never
//! deadlock. Then it locks the clients it writes for, which stay connected until the commit. Each write
//! has a savepoint. If it collides with another node's write, it alone is undone, and repeated after
//! the batch. If the database aborts the batch, each of its writes is repeated separately.
//!
//! Each transaction stores its number in the writer's row. If the answer to a commit is lost, that row
//! tells whether it happened, before anything is returned, shown or written again. The driver knows no
//! operations.

mod address;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use deadpool_postgres::{
    GenericClient, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError,
    RecyclingMethod, Runtime,
};
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, IsolationLevel, SimpleQueryMessage};

use address::Server;

use super::rooms::{KEYED_GROUPS, SET_KEY, folded_keys};
use super::tx::{Failure, Locks, Operation, Sql, Tx};
use super::{
    Access, Changes, Extent, Listeners, Opening, Result, StoreError, Synchronous, Writes, fail_all,
};
use crate::log::Chain;
use crate::metrics::METRICS;
use crate::model::{ClientRef, History, Millis, UserId};

const MIGRATIONS: [&str; 15] = [
    concat!(
        include_str!("migrations/postgres/0001_chat.sql"),
        include_str!("migrations/postgres/default_groups.sql"),
    ),
    include_str!("migrations/postgres/0002_audit_log.sql"),
    include_str!("migrations/postgres/0003_group_keys.sql"),
    include_str!("migrations/postgres/0004_password_links.sql"),
    include_str!("migrations/postgres/0005_unread.sql"),
    include_str!("migrations/postgres/0006_search.sql"),
    include_str!("migrations/postgres/0007_notifications.sql"),
    include_str!("migrations/postgres/0008_mentions.sql"),
    include_str!("migrations/postgres/0009_push.sql"),
    include_str!("migrations/postgres/0010_browsers.sql"),
    include_str!("migrations/postgres/0011_replies.sql"),
    include_str!("migrations/postgres/0012_files.sql"),
    include_str!("migrations/postgres/0013_search_files.sql"),
    include_str!("migrations/postgres/0014_search_form.sql"),
    include_str!("migrations/postgres/0015_search_phrases.sql"),
];
/// The schema version of this program.
pub(super) const NEWEST: i64 = MIGRATIONS.len() as i64;
/// The schema version since which all forms of a group's name have one key.
const FOLDED_KEYS: i64 = 3;

/// The oldest supported PostgreSQL, as it numbers itself.
const OLDEST: i32 = 140_000;
/// How many readers there are, and so how many reads run at a time.
const READERS: usize = 8;
/// How many writes share one transaction at most.
const GROUP_COMMIT: usize = 512;
/// How long a read may take, a batch before its commit, and a commit.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a write that collides with other nodes' writes is repeated.
const ATTEMPTS: usize = 5;
/// How long connecting to the database may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an operation waits for a free connection.
const WAIT: Duration = Duration::from_secs(10);
/// How long bytes may stay unacknowledged on the network.
const UNANSWERED: Duration = Duration::from_secs(10);
/// The key of the advisory lock for migrations.
pub(super) const MIGRATING: i64 = 0x6f76_6572_7769_7265;

/// The classes of error codes that have nothing to do with the statement: connections, read-only
/// transactions, sign-in, a missing database, resources, locks, an operator's intervention, the system,
/// internal errors.
const OUTAGE: [&str; 9] = ["08", "25", "28", "3D", "53", "55", "57", "58", "XX"];

type Batch = Vec<Box<dyn Operation>>;

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            // Without the details, which quote what people wrote.
            Some(refused) => {
                let code = refused.code().code();
                let words = format!("{} ({code})", refused.message());
                match OUTAGE.iter().any(|class| code.starts_with(class)) {
                    true => Self::unavailable(words),
                    false => Self::Database(words.into()),
                }
            }
            None => Self::unavailable(error),
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Closed => Self::Closed,
            PoolError::Backend(error) => error.into(),
            other => Self::unavailable(other),
        }
    }
}

fn too_slow() -> StoreError {
    StoreError::unavailable("it took too long")
}

/// An open database.
pub(super) struct Postgres {
    readers: Pool,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Postgres {
    /// Opens the database at an address, and creates and migrates the tables if needed. Does not touch
    /// clients of other nodes.
    pub(super) async fn open(address: &str, opening: Opening) -> Result<Self> {
        let server = server(address)?;
        let readers = connections(&server, Purpose::Reading, READERS)?;
        let mut db = readers.get().await?;
        refuse_a_shared_connection(&db, &readers).await?;
        migrate(&mut db).await?;
        if opening.access == Access::Server {
            // The first server begins a new history.
            continue_history(
                &db,
                "not exists (select 1 from nodes where lease_until >= millis())",
            )
            .await?;
        }
        drop(db);
        let id = rand::random();
        let writer = Writer {
            id,
            connections: connections(&server, Purpose::Writing(id, opening.synchronous), 1)?,
            listeners: opening.listeners,
            batch: 0,
            lost: None,
        };
        // In its own thread, like SQLite's: nothing else delays it, and its connection's answers need
        // not wake another thread.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let writer = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || runtime.block_on(writer.write_all(opening.writes)))?;
        Ok(Self {
            readers,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// The same for all nodes of a database, for as long as it exists. A copy has another oid.
    pub(super) async fn identity(&self) -> Result<String> {
        self.read(Extent::Statement, async |tx| {
            tx.the(
                "select concat_ws('-', life.identity, d.oid) from life, pg_database d
                 where d.datname = current_database()",
                &[],
            )
            .await
        })
        .await
    }

    /// Runs statements; several of them run in one snapshot.
    pub(super) async fn read<T>(
        &self,
        extent: Extent,
        operation: impl AsyncFn(&Tx<'_>) -> Sql<T>,
    ) -> Result<T> {
        let mut reader = self.readers.get().await?;
        let done = timeout(DEADLINE, async {
            if extent == Extent::Statement {
                return operation(&Tx::postgres(&reader, Millis(0), History(0))).await;
            }
            let snapshot = reader
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await?;
            operation(&Tx::snapshot(&snapshot)).await
        });
        match done.await {
            Ok(done) => Ok(done?),
            Err(_) => {
                // A connection that timed out is not used again, and the idle ones may be dead as well.
                drop(Object::take(reader));
                self.readers.retain(|_, _| false);
                Err(too_slow())
            }
        }
    }

    /// Succeeds if the database can be read.
    pub(super) async fn check(&self) -> Result<()> {
        let life = self.read(Extent::Statement, async |tx| {
            tx.run("select 1 from life", &[]).await
        });
        life.await
    }

    /// Closes every connection, after the writer has written everything.
    pub(super) async fn close(&self) {
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(|| writer.join()).await;
        }
        self.readers.close();
    }

    /// Runs an operation that counts or deletes everything in its own transaction, without a deadline.
    pub(super) async fn at_length<T>(
        &self,
        operation: impl AsyncFn(&Tx<'_>) -> Sql<T>,
    ) -> Result<T> {
        let mut reader = self.readers.get().await?;
        let transaction = reader.transaction().await?;
        transaction
            .batch_execute("set local statement_timeout = 0")
            .await?;
        let done = operation(&Tx::snapshot(&transaction)).await?;
        transaction.commit().await?;
        Ok(done)
    }
}

/// The server at an address.
pub(super) fn server(address: &str) -> Result<Server> {
    let mut server = Server::at(address)?;
    server.config.tcp_user_timeout(UNANSWERED);
    if server.config.get_connect_timeout().is_none() {
        server.config.connect_timeout(CONNECT);
    }
    Ok(server)
}

/// What a connection is used for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Reading,
    /// By the writer with this id.
    Writing(i64, Synchronous),
}

/// A pool of at most `most` connections.
pub(super) fn connections(server: &Server, purpose: Purpose, most: usize) -> Result<Pool> {
    let Server { mut config, tls } = server.clone();
    config.application_name(match purpose {
        Purpose::Reading => "overwire".to_owned(),
        Purpose::Writing(writer, _) => format!("overwire writer {writer}"),
    });
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    Pool::builder(Manager::from_config(config, tls, recycling))
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

type Asked<T> = std::result::Result<T, tokio_postgres::Error>;

/// Sets up a connection. Terminates the writer's previous one first: it may hold locks, and the outcome
/// of its last commit must be known.
async fn begin(db: &Client, purpose: Purpose) -> Asked<()> {
    let synchronous = match purpose {
        Purpose::Writing(_, Synchronous::Normal) => "off",
        Purpose::Reading | Purpose::Writing(_, Synchronous::Full) => "on",
    };
    // A transaction is idle only if its node is frozen or unreachable. It holds rooms that other nodes
    // wait for, so it is ended before their own deadline.
    db.batch_execute(&format!(
        "set synchronous_commit = {synchronous}; set client_min_messages = warning;
         set statement_timeout = '10s';
         set idle_in_transaction_session_timeout = '5s'"
    ))
    .await?;
    if let Purpose::Writing(..) = purpose {
        // Rows of killed writers are useless after a day.
        db.batch_execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = current_setting('application_name')
             and usename = current_user and pid <> pg_backend_pid();
             delete from writers where seen_at < millis() - 86400000",
        )
        .await?;
        continue_history(db, "false").await?;
    }
    Ok(())
}

/// Begins a new history if the condition holds, or if the last history belongs to another life of this
/// database, which may have continued elsewhere.
pub(super) async fn continue_history(db: &Client, or_where: &str) -> Asked<()> {
    // A server that was started again, even on another machine, may have been reset to an earlier
    // moment. A restored dump has other tables. A copy is another database.
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

/// Refuses a pooler that gives each transaction any connection: prepared statements, settings and the
/// lock of a migration belong to a connection.
async fn refuse_a_shared_connection(db: &Object, readers: &Pool) -> Result<()> {
    let mut other = readers.get().await?;
    match has_its_own_process(db, &mut other).await {
        Ok(true) => Ok(()),
        Err(error) if error.as_db_error().is_none() => Err(error.into()),
        // In a pool for single statements, a transaction is an error.
        Ok(false) | Err(_) => Err(StoreError::Address(
            "a pooler between this server and PostgreSQL shares connections between transactions \
             (PgBouncer's pool_mode = transaction or statement), which does not work; use \
             pool_mode = session, or connect to PostgreSQL directly"
                .to_owned(),
        )),
    }
}

async fn has_its_own_process(db: &Client, other: &mut Object) -> Asked<bool> {
    let first = process_of(db).await?;
    // While the other connection is in a transaction, nobody else can have its server process.
    let transaction = other.transaction().await?;
    let others = process_of(transaction.client()).await?;
    let second = process_of(db).await?;
    Ok(first == second && first != others)
}

/// The number of the server process that runs the next statement. It is asked without a prepared
/// statement, which a pooler might break.
async fn process_of(db: &Client) -> Asked<Option<String>> {
    let answer = db.simple_query("select pg_backend_pid()").await?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

/// Creates and migrates the tables. Other programs that want to do the same wait.
pub(super) async fn migrate(db: &mut Object) -> Result<()> {
    let known = NEWEST;
    let migration = db.transaction().await?;
    migration
        .batch_execute("set local statement_timeout = 0")
        .await?;
    let lock = "select pg_advisory_xact_lock($1)";
    migration.query_one(lock, &[&MIGRATING]).await?;
    migration
        .batch_execute("create table if not exists schema_version (version bigint not null)")
        .await?;
    let found = migration
        .query_opt("select version from schema_version", &[])
        .await?;
    let found: i64 = found.map_or(Ok(0), |row| row.try_get(0))?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    if found == known {
        return Ok(());
    }
    let row = migration
        .query_one(
            "select current_setting('server_version_num')::int, current_setting('server_encoding')",
            &[],
        )
        .await?;
    let (version, encoding): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
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
    if found < FOLDED_KEYS {
        let groups = migration.query(KEYED_GROUPS, &[]).await?;
        let groups = groups
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
            .collect::<Asked<_>>()?;
        for (key, id) in folded_keys(groups) {
            migration.execute(SET_KEY, &[&key, &id]).await?;
        }
    }
    migration
        .batch_execute(&format!(
            "delete from schema_version; insert into schema_version (version) values ({known})"
        ))
        .await?;
    migration.commit().await?;
    Ok(())
}

/// The outcome of a transaction.
enum Fate {
    /// Committed, except for these writes, which collided with other nodes' writes and were undone.
    Committed { again: Vec<usize> },
    /// Nothing was written; the transaction may be repeated.
    Undone(StoreError),
    /// The database is unreachable, or it is not known yet whether the transaction was committed.
    Failed(StoreError),
}

struct Writer {
    /// The id of its row.
    id: i64,
    /// A pool of one connection.
    connections: Pool,
    listeners: Listeners,
    /// The number of its last transaction.
    batch: i64,
    /// The changes of a transaction that may or may not have been committed.
    lost: Option<Changes>,
}

impl Writer {
    /// Runs the writer until the store is closed.
    async fn write_all(mut self, mut writes: Writes) {
        let mut batch = Vec::new();
        while writes.recv_many(&mut batch, GROUP_COMMIT).await > 0 {
            let (left, _) = self.write(std::mem::take(&mut batch)).await;
            for write in left {
                self.alone(write).await;
            }
        }
        self.end().await;
    }

    /// Writes a batch. Returns the writes to repeat, and why the transaction was undone, if it was.
    async fn write(&mut self, mut batch: Batch) -> (Batch, Option<StoreError>) {
        match self.transact(&mut batch).await {
            Fate::Committed { again } => {
                let mut left = Vec::new();
                for (n, write) in batch.into_iter().enumerate() {
                    match again.contains(&n) {
                        true => left.push(write),
                        false => write.answer(None),
                    }
                }
                (left, None)
            }
            Fate::Undone(error) => (batch, Some(error)),
            Fate::Failed(error) => {
                fail_all(batch, error);
                (Vec::new(), None)
            }
        }
    }

    /// Writes one write, and repeats it if it collides with other nodes' writes.
    async fn alone(&mut self, write: Box<dyn Operation>) {
        let mut left = vec![write];
        let mut failure =
            StoreError::failed("the write kept colliding with those of other servers");
        for _ in 0..ATTEMPTS {
            let undone;
            (left, undone) = self.write(left).await;
            if left.is_empty() {
                return;
            }
            failure = undone.unwrap_or(failure);
        }
        fail_all(left, failure);
    }

    /// Runs these writes in one transaction, and delivers their changes after the commit.
    async fn transact(&mut self, batch: &mut [Box<dyn Operation>]) -> Fate {
        let db = match self.connection().await {
            Ok(db) => db,
            Err(error) => return Fate::Failed(error),
        };
        self.batch += 1;
        let (number, began) = (self.batch, Instant::now());
        let prepared = timeout(DEADLINE, prepare(&db, self.id, number, batch)).await;
        let (again, changes) = match prepared {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(failure)) => {
                let is_refusal =
                    matches!(&failure, Failure::Postgres(error) if error.code().is_some());
                if !(is_refusal && db.batch_execute("rollback").await.is_ok()) {
                    drop(Object::take(db));
                }
                return Fate::Undone(failure.into());
            }
            Err(_) => {
                drop(Object::take(db));
                return Fate::Failed(too_slow());
            }
        };
        let committed = timeout(DEADLINE, db.batch_execute("commit")).await;
        match committed {
            Ok(Ok(())) => {}
            // Whatever the error says, the writer's row tells the outcome.
            lost => {
                drop(Object::take(db));
                self.lost = Some(changes);
                tracing::debug!("lost the connection during a commit; checking its outcome");
                return match self.settle().await {
                    Ok(true) => Fate::Committed { again },
                    Ok(false) => Fate::Undone(match lost {
                        Ok(Err(error)) => error.into(),
                        _ => too_slow(),
                    }),
                    Err(error) => Fate::Failed(error),
                };
            }
        }
        METRICS.committed(batch.len(), began);
        self.send_out(changes).await;
        Fate::Committed { again }
    }

    /// A connection, once the outcome of every earlier transaction is known.
    async fn connection(&mut self) -> Result<Object> {
        if self.lost.is_some() {
            self.settle().await?;
        }
        Ok(self.connections.get().await?)
    }

    /// Finds out whether the transaction whose answer was lost was committed, and if so, delivers its
    /// changes.
    async fn settle(&mut self) -> Result<bool> {
        let db = self.connections.get().await?;
        // Waits for the transaction that was cut off, if it has not ended yet.
        let sql = "select batch from writers where id = $1 for update";
        let stored = match timeout(DEADLINE, db.query_opt(sql, &[&self.id])).await {
            Ok(stored) => stored?,
            Err(_) => {
                drop(Object::take(db));
                return Err(too_slow());
            }
        };
        let stored: Option<i64> = stored.map(|row| row.try_get(0)).transpose()?;
        let committed = stored == Some(self.batch);
        if let Some(changes) = self.lost.take()
            && committed
        {
            self.send_out(changes).await;
        }
        Ok(committed)
    }

    async fn send_out(&self, changes: Changes) {
        for (node, change) in changes {
            let listener = self.listeners.lock().get(&node).cloned();
            if let Some(listener) = listener {
                // A node that has stopped receiving has nobody to show it to.
                let _ = listener.send(change).await;
            }
        }
    }

    /// Deletes the writer's row, which nobody needs any longer.
    async fn end(mut self) {
        if self.batch == 0 {
            return;
        }
        let ended = async {
            let db = self.connection().await?;
            db.execute("delete from writers where id = $1", &[&self.id])
                .await?;
            Ok::<_, StoreError>(())
        };
        if let Ok(Err(error)) = timeout(DEADLINE, ended).await {
            tracing::warn!("could not delete the writer's row: {}", Chain(&error));
        }
    }
}

/// Everything up to the commit. Returns the writes to repeat, and the changes of the others.
async fn prepare(
    db: &Object,
    writer: i64,
    number: i64,
    batch: &mut [Box<dyn Operation>],
) -> Sql<(Vec<usize>, Changes)> {
    let begin = format!(
        "begin; insert into writers (id, batch, seen_at) values ({writer}, {number}, millis())
         on conflict (id) do update set batch = excluded.batch, seen_at = excluded.seen_at"
    );
    // Everything is sent before the first answer arrives.
    let ((), (connected, now, history)) =
        tokio::try_join!(biased; async { Ok(db.batch_execute(&begin).await?) }, lock(db, batch))?;
    let tx = Tx::postgres(db, now, history);
    let mut again = Vec::new();
    let mut savepoint = "savepoint act";
    for (n, write) in batch.iter_mut().enumerate() {
        if write.locks().client.is_some() && !connected.contains(&n) {
            write.fail(StoreError::Gone);
            continue;
        }
        let kept = tx.changes();
        let (_, done) = tokio::join!(biased; db.batch_execute(savepoint), write.run(&tx));
        savepoint = "release act; savepoint act";
        let Err(failure) = done else { continue };
        tx.undo_changes(kept);
        // Also fails if the connection has ended, and with it the batch.
        db.batch_execute("rollback to act").await?;
        match is_collision(&failure) {
            true => again.push(n),
            false => write.fail(failure.into()),
        }
    }
    Ok((again, tx.into_changes()))
}

const LOCK_ROOMS: &str = "select 1 from rooms where id in (
        select unnest($1::bigint[])
        union select room_id from clients_active where client_id = any($2)
        union select id from rooms where name_key = any($3))
    order by id for no key update";
const ROOMS_OF_PEOPLE: &str = "select a.room_id from clients c
    join clients_active a on a.client_id = c.id
    where c.left_at is null and c.user_id in (
        select user_id from sessions where token_hash = any($1)
        union select id from users where name = any($2))";
const LOCK_CLIENTS: &str = "select w.n
    from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
        as w (n, client, visit, user_id)
    join clients c on c.id = w.client
    where c.visit = w.visit and c.left_at is null and c.user_id = coalesce(w.user_id, c.user_id)
    order by c.id for share of c";
/// The last part of the mark is the identity of the tables, which a dump replaces when it is restored.
const NOW: &str = "select millis(), life.history, life.mark like '% ' || 'rooms'::regclass::oid
    from life";

/// Locks the rooms of a batch, in the same order on all nodes, and then its clients. Returns the writes
/// whose clients are connected, the time once everything was locked, and the history.
async fn lock(db: &Object, batch: &[Box<dyn Operation>]) -> Sql<(HashSet<usize>, Millis, History)> {
    // A prepared statement is sent at once, so the statements are sent in this order.
    for sql in [LOCK_ROOMS, LOCK_CLIENTS, NOW] {
        db.prepare_cached(sql).await?;
    }
    let all = || batch.iter().map(|write| write.locks());
    let (mut ids, mut of, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    let (mut sessions, mut users) = (Vec::new(), Vec::new());
    for locks in all() {
        ids.extend(locks.rooms.iter().map(|room| room.0));
        of.extend(locks.rooms_of.iter().map(|client| client.0));
        groups.extend(&locks.groups);
        sessions.extend(locks.rooms_of_sessions.iter().map(|token| &token.0[..]));
        users.extend(&locks.rooms_of_users);
    }
    if !sessions.is_empty() || !users.is_empty() {
        let statement = db.prepare_cached(ROOMS_OF_PEOPLE).await?;
        for row in db.query(&statement, &[&sessions, &users]).await? {
            ids.push(row.try_get(0)?);
        }
    }
    let rooms = async {
        if ids.is_empty() && of.is_empty() && groups.is_empty() {
            return Ok(0);
        }
        let statement = db.prepare_cached(LOCK_ROOMS).await?;
        Ok(db.execute(&statement, &[&ids, &of, &groups]).await?)
    };
    let now = async {
        let row = db.query_one(&db.prepare_cached(NOW).await?, &[]).await?;
        let history = u32::try_from(row.try_get::<_, i64>(1)?).unwrap_or(u32::MAX);
        if !row.try_get::<_, bool>(2)? {
            // A new connection begins another history.
            return Err(StoreError::failed("the tables were replaced").into());
        }
        Ok((Millis(row.try_get(0)?), History(history)))
    };
    let (_, connected, (now, history)) =
        tokio::try_join!(biased; rooms, lock_clients(db, all()), now)?;
    Ok((connected, now, history))
}

/// Which of these writes' clients are connected. They stay so until the commit: whatever ends a client
/// or takes it over waits.
async fn lock_clients<'a>(
    db: &Object,
    all: impl Iterator<Item = &'a Locks>,
) -> Sql<HashSet<usize>> {
    let (mut places, mut ids, mut visits, mut users) = (vec![], vec![], vec![], vec![]);
    for (n, locks) in all.enumerate() {
        if let Some((ClientRef { client, visit }, user)) = locks.client {
            places.push(n as i64);
            ids.push(client.0);
            visits.push(visit);
            users.push(user.map(|UserId(user)| user));
        }
    }
    if places.is_empty() {
        return Ok(HashSet::new());
    }
    let statement = db.prepare_cached(LOCK_CLIENTS).await?;
    let rows = db
        .query(&statement, &[&places, &ids, &visits, &users])
        .await?;
    let mut connected = HashSet::new();
    for row in rows {
        connected.extend(usize::try_from(row.try_get::<_, i64>(0)?));
    }
    Ok(connected)
}

/// Whether a write failed because of another node's concurrent write, which it will see when it is
/// repeated: a row that the other created first or deleted, or a deadlock.
fn is_collision(failure: &Failure) -> bool {
    let Failure::Postgres(error) = failure else {
        return false;
    };
    [
        SqlState::UNIQUE_VIOLATION,
        SqlState::FOREIGN_KEY_VIOLATION,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
    ]
    .iter()
    .any(|code| error.code() == Some(code))
}
