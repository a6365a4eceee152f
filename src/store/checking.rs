//! Examines a whole chat for damage. It reads one snapshot and changes nothing, so a server may be
//! running on the database.
//!
//! Like `moving`, it bypasses the store's operations, since these rely on what is examined here.

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient as _;
use futures_util::FutureExt as _;
use rusqlite::{Connection, OpenFlags};
use tokio_postgres::IsolationLevel;

use super::tx::{Sql, Tx};
use super::{Address, Result, StoreError, is_postgres, postgres, sqlite, sqlite_path};
use crate::model::{History, Millis};

/// How many problems of one kind are listed.
const LISTED: usize = 20;

/// What was examined, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// One sentence for each problem.
    pub problems: Vec<String>,
    /// How many rooms were examined.
    pub rooms: u64,
    /// How many messages.
    pub messages: u64,
    /// The objects that files have or had, and whether a message needs them.
    pub objects: BTreeMap<String, bool>,
}

/// The rows that must exist: a table and its key, the column that refers to a row, and its table. Each
/// foreign key is one of them; the creator of a group and the original of a reply are not declared as
/// one. PostgreSQL does not check these again after a restore.
const REFERENCES: [(&str, &str, &str, &str); 32] = [
    ("sessions", "id", "user_id", "users"),
    ("clients", "id", "user_id", "users"),
    ("clients", "id", "session_id", "sessions"),
    ("clients_active", "client_id", "client_id", "clients"),
    ("clients_active", "client_id", "room_id", "rooms"),
    ("clients_active", "client_id", "user_id", "users"),
    ("clients_in_view", "client_id", "client_id", "clients"),
    ("notifications", "user_id", "user_id", "users"),
    ("push_subscriptions", "session_id", "session_id", "sessions"),
    ("push_subscriptions", "session_id", "user_id", "users"),
    ("rooms", "id", "user_low", "users"),
    ("rooms", "id", "user_high", "users"),
    ("rooms", "id", "made_by", "users"),
    ("room_histories", "room_id", "room_id", "rooms"),
    ("messages", "id", "room_id", "rooms"),
    ("messages", "id", "user_id", "users"),
    ("messages", "id", "deleted_by", "users"),
    ("messages", "id", "reply_to", "messages"),
    ("files", "id", "room_id", "rooms"),
    ("files", "id", "user_id", "users"),
    ("files", "id", "message_id", "messages"),
    ("reactions", "id", "message_id", "messages"),
    ("reactions", "id", "room_id", "rooms"),
    ("reactions", "id", "user_id", "users"),
    ("mentions", "message_id", "user_id", "users"),
    ("mentions", "message_id", "message_id", "messages"),
    ("mentions", "message_id", "room_id", "rooms"),
    ("users_subscribed", "user_id", "user_id", "users"),
    ("users_subscribed", "user_id", "room_id", "rooms"),
    ("users_subscribed", "user_id", "with_id", "users"),
    ("password_links", "user_id", "user_id", "users"),
    ("searchable", "room_id", "room_id", "rooms"),
];

/// Statements that return a sentence for each problem.
const RULES: [&str; 16] = [
    // A message keeps the versions of its creation and of its last change. A version between the two may
    // have been another change of it. Any other missing version is a lost change.
    "select 'room ' || room_id || ' has no change with the version ' || (reached + 1)
     from (
        select room_id, made, coalesce(max(changed) over (
            partition by room_id order by made rows between unbounded preceding and 1 preceding
        ), 0) as reached
        from messages
     ) seen where made > reached + 1",
    "select 'room ' || r.id || ' has the version ' || r.version || ', but its last change has '
        || coalesce(newest.version, 0)
     from rooms r
     left join (select room_id, max(changed) as version from messages group by room_id) newest
        on newest.room_id = r.id
     where r.version <> coalesce(newest.version, 0)",
    "select 'room ' || room_id || ' has several changes with the version ' || version
     from (
        select room_id, made as version from messages
        union all select room_id, changed from messages where changed <> made
     ) changes group by room_id, version having count(*) > 1",
    "select 'message ' || id || ' of room ' || room_id || ' has the versions ' || made || ', '
        || worded || ' and ' || changed || ', which are not in order'
     from messages where made < 1 or worded < made or changed < worded",
    "select 'message ' || id || ' of room ' || room_id || ' has a lower version than the message before'
     from (
        select id, room_id, made, lag(made) over (partition by room_id order by id) as previous
        from messages
     ) ordered where made < previous",
    "select 'room ' || r.id || ' does not know the history of its last change' from rooms r
     where r.version > 0 and not exists (select 1 from room_histories h
        where h.room_id = r.id and h.history = r.history and h.first_version <= r.version)",
    "select 'room ' || r.id || ' has the version ' || r.version || ', but a history from '
        || h.first_version
     from room_histories h join rooms r on r.id = h.room_id where h.first_version > r.version",
    "select 'reaction ' || r.id || ' has another room than its message ' || m.id
     from reactions r join messages m on m.id = r.message_id where m.room_id <> r.room_id",
    "select 'message ' || m.id || ' mentions user ' || n.user_id || ' in another room'
     from mentions n join messages m on m.id = n.message_id where m.room_id <> n.room_id",
    "select 'message ' || m.id || ' replies to message ' || o.id || ' in another room'
     from messages m join messages o on o.id = m.reply_to where m.room_id <> o.room_id",
    "select 'message ' || m.id || ' does not show the reactions that are stored' from messages m
     where (m.reactions is null) = exists (select 1 from reactions r where r.message_id = m.id)",
    "select 'message ' || m.id || ' does not show the files that are stored' from messages m
     where (m.files is null) = exists (select 1 from files f where f.message_id = m.id)",
    "select 'client ' || c.id || ' belongs to another user than its session' from clients c
     join sessions s on s.id = c.session_id where s.user_id <> c.user_id",
    "select 'client ' || c.id || ' shows a room as another user, or after it has left'
     from clients_active a join clients c on c.id = a.client_id
     where a.user_id <> c.user_id or c.left_at is not null",
    "select 'room ' || r.id || ' counts ' || r.people || ' people, but shows ' || coalesce(here.people, 0)
     from rooms r
     left join (
        select room_id, count(distinct user_id) as people from clients_active group by room_id
     ) here on here.room_id = r.id
     where r.people <> coalesce(here.people, 0)",
    "select 'user ' || u.id || ' may be given to a newcomer, but is somebody' from users u
     where u.free and (u.traced_at is not null or u.kept_at is not null
        or u.id in (select user_id from messages))",
];

/// Examines the chat at an address.
pub async fn check(address: &Address) -> Result<Checked> {
    let nothing = || StoreError::Address(format!("there is no chat in {address}"));
    if is_postgres(address.as_str()) {
        let server = postgres::server(address.as_str())?;
        let mut db = postgres::connections(&server, postgres::Purpose::Reading, 1)?
            .get()
            .await?;
        let snapshot = db
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        snapshot
            .batch_execute("set local statement_timeout = 0")
            .await?;
        let tx = Tx::snapshot(&snapshot);
        let is_there = "select to_regclass('schema_version') is not null";
        if !tx.the::<bool>(is_there, &[]).await? {
            return Err(nothing());
        }
        let version = "select coalesce(max(version), 0) from schema_version";
        is_current(tx.the(version, &[]).await?, postgres::NEWEST)?;
        return Ok(examine(&tx).await?);
    }
    let path = sqlite::real_path(&sqlite_path(address.as_str())?)?;
    if !path.exists() {
        return Err(nothing());
    }
    let checked = tokio::task::spawn_blocking(move || check_file(&path));
    checked.await.map_err(|_| StoreError::Closed)?
}

fn check_file(path: &std::path::Path) -> Result<Checked> {
    sqlite::recognize(path)?;
    // A connection that may not write would leave a log behind.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(sqlite::BUSY_TIMEOUT)?;
    db.pragma_update(None, "query_only", true)?;
    db.execute_batch("begin")?;
    let version = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    is_current(version, sqlite::NEWEST)?;
    let tx = Tx::sqlite(&mut db, Millis(0), History(0));
    let examined = async {
        let mut damage: Vec<String> = tx.all("pragma integrity_check(20)", &[]).await?;
        damage.retain(|line| line != "ok");
        if !damage.is_empty() {
            // What a damaged file says about its rows is worth nothing.
            return Ok(Checked {
                problems: damage,
                rooms: 0,
                messages: 0,
                objects: BTreeMap::new(),
            });
        }
        examine(&tx).await
    };
    let examined = examined.now_or_never();
    Ok(examined.expect("a statement on SQLite waits for nothing")?)
}

fn is_current(found: i64, known: i64) -> Result<()> {
    match found {
        _ if found > known => Err(StoreError::TooNew { found, known }),
        _ if found < known => Err(StoreError::TooOld { found, known }),
        _ => Ok(()),
    }
}

async fn examine(tx: &Tx<'_>) -> Sql<Checked> {
    let mut problems = Vec::new();
    let references = REFERENCES.map(|(table, key, column, parent)| {
        format!(
            "select '{table} {key} ' || t.{key} || ' has the {column} ' || t.{column}
                || ', which is not in {parent}'
             from {table} t left join {parent} p on p.id = t.{column}
             where t.{column} is not null and p.id is null"
        )
    });
    let rules = RULES.map(str::to_owned);
    for rule in references.into_iter().chain(rules) {
        let limited = format!("{rule} limit {}", LISTED + 1);
        let mut found: Vec<String> = tx.all(&limited, &[]).await?;
        if found.len() > LISTED {
            found[LISTED] = "… and more of this kind".to_owned();
        }
        problems.append(&mut found);
    }
    let counts = "select (select count(*) from rooms), (select count(*) from messages)";
    let (rooms, messages) = tx.the(counts, &[]).await?;
    // Needed ones come last, and so decide.
    let objects = "select hash, false from unused_objects
        union select hash, message_id is not null from files
        union select thumbnail, message_id is not null from files where thumbnail is not null
        order by 2";
    let objects: Vec<(String, bool)> = tx.all(objects, &[]).await?;
    Ok(Checked {
        problems,
        rooms,
        messages,
        objects: objects.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_foreign_key_is_examined() {
        let mut db = Connection::open_in_memory().unwrap();
        sqlite::migrate(&mut db).unwrap();
        let keys = "select t.name, k.\"from\", k.\"table\" from sqlite_schema t,
            pragma_foreign_key_list(t.name) k where t.type = 'table'";
        let mut keys = db.prepare(keys).unwrap();
        let keys = keys.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let keys: Vec<(String, String, String)> =
            keys.unwrap().map(std::result::Result::unwrap).collect();
        assert!(keys.len() > 10);
        for (table, column, parent) in keys {
            let is_known = REFERENCES
                .iter()
                .any(|(known, _, by, to)| (*known, *by, *to) == (&*table, &*column, &*parent));
            assert!(is_known, "{table}.{column} refers to {parent}");
        }
    }
}
