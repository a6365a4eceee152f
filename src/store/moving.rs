//! Copies a whole chat from one store to another, of either kind.
//!
//! It bypasses the store's operations on purpose. They are what people do: each creates a new id,
//! version and moment, and none returns a password, a token or the text of a deleted message. A copy
//! has to keep all of these. So this module reads and writes the rows themselves, by the list of tables
//! in `tables.rs`. It refuses a database with other columns, so that no column is ever forgotten.
//!
//! The rows are read in one snapshot and written in one transaction. At its end both sides are read and
//! compared. So at any moment the target holds the whole chat or nothing.

mod tables;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use deadpool_postgres::Object;
use futures_util::future::try_join_all;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use self::tables::{Column, Ids, Kind, TABLES, Table};
use super::tx::{Failure, FromRow, Param, Row, Sql, Tx, Value};
use super::{Address, StoreError, is_postgres, postgres, sqlite, sqlite_path};
use crate::log::Chain;
use crate::model::{History, Millis};

/// How many rows are copied or compared at a time: few enough to fit into memory even if each is the
/// longest possible message.
const AT_ONCE: usize = 2_000;
/// How many rows one statement inserts.
const INSERTED_AT_ONCE: usize = 100;
/// How much of an SQLite file is cached in memory while it is written, in KiB.
const CACHE: i64 = 65_536;

/// Why a chat was not copied, and which store is affected. The source was not changed. Unless the error
/// says otherwise, the target holds nothing. Passwords are never shown.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The source and the target are the same store.
    #[error("the source and the target are the same database: {0}")]
    Same(String),
    /// There is no chat at the source.
    #[error("there is no chat in {0}")]
    NoChat(String),
    /// The chat was written by an older program: its schema version, and the version known here.
    #[error(
        "{0} has schema version {1}, but this build needs version {2}; start this build's server \
         on it once to migrate it, and stop it again"
    )]
    TooOld(String, i64, i64),
    /// The chat was written by a newer program.
    #[error(
        "{0} has schema version {1}, but this build supports versions up to {2}; use a newer build"
    )]
    TooNew(String, i64, i64),
    /// Another program is using one of the stores.
    #[error(
        "a server or another program is using {0}; stop it first (a killed PostgreSQL server \
         counts as running for a few seconds)"
    )]
    InUse(String),
    /// The target already contains a chat, with this many of these.
    #[error("{0} already contains {1} {2}; use a new database, or delete this one first")]
    NotEmpty(String, u64, String),
    /// Somebody has changed the columns of this table: these exist on one side only.
    #[error("the table {1} of {0} has unexpected columns: {2}")]
    Columns(String, &'static str, String),
    /// A row of the chat cannot be copied: which, and why.
    #[error("{0} cannot be copied: {1}")]
    Row(String, String),
    /// What was read back differs from the source.
    #[error("verification failed: {1} in {0} differs from the source")]
    Different(String, &'static str),
    /// The answer to the target's commit was lost.
    #[error(
        "the connection to {0} was lost during the commit: it contains either the whole chat or nothing"
    )]
    Unknown(String, #[source] StoreError),
    /// A store reported an error.
    #[error("{0} cannot be used")]
    Failed(String, #[source] StoreError),
}

type Result<T> = std::result::Result<T, MoveError>;

/// How much was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Each table's name and how many rows it has, in the order in which they were written.
    pub rows: Vec<(&'static str, u64)>,
}

/// Copies the chat in `from` to `to`, which is created if it does not exist (a PostgreSQL database must
/// exist). `to` must contain no people and no messages; its default groups and unused fake users are replaced. No server may
/// use either store meanwhile, which is checked and prevented as far as the databases allow. `progress`
/// is called with the number of finished steps and of all steps.
///
/// In the copy, everybody who was online has left at this moment. Tabs that connect to it resume their
/// users and catch up. What either store gets after the copy belongs to a different history.
pub async fn move_chat(
    from: &Address,
    to: &Address,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Moved> {
    let mut from = Place::to_read(from).await?;
    let moved = async {
        from.begin_reading().await?;
        let mut to = Place::to_write(to, &from.identity).await?;
        let moved = fill(&mut from, &mut to, progress).await;
        to.end(moved.is_ok()).await;
        moved
    };
    let moved = moved.await;
    from.end(false).await;
    moved
}

async fn fill(
    from: &mut Place,
    to: &mut Place,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Moved> {
    to.begin_writing().await?;
    let now = Millis::now().0;
    let mut moved = Vec::new();
    for table in &TABLES {
        let count = format!("select count(*) from {}", table.name);
        moved.push((table.name, from.value(&count).await?));
    }
    // Each row is written and compared.
    let of = 2 * moved.iter().map(|(_, rows)| rows).sum::<u64>();
    let mut done = 0;
    let mut steps = |rows: usize| {
        done += rows as u64;
        progress(done, of);
    };
    for table in &TABLES {
        let mut after = Cells::new();
        loop {
            let rows = from.part(table, &table.expressions(now), &after).await?;
            let Some(last) = rows.last() else { break };
            after = last[..table.key].to_vec();
            to.put(table, &rows).await?;
            steps(rows.len());
        }
        if table.ids != Ids::Chat {
            let last = from.last_id(table).await?;
            to.continue_after(table, last).await?;
        }
    }
    // After everything was written, since a trigger may change what was written before.
    for table in &TABLES {
        let mut after = Cells::new();
        loop {
            let rows = from.part(table, &table.expressions(now), &after).await?;
            if to.part(table, &table.names(), &after).await? != rows {
                return Err(MoveError::Different(to.name.clone(), table.name));
            }
            let Some(last) = rows.last() else { break };
            after = last[..table.key].to_vec();
            steps(rows.len());
        }
    }
    to.commit().await?;
    Ok(Moved { rows: moved })
}

/// A value of one column, the same for both databases.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Null,
    Number(i64),
    Flag(bool),
    Text(String),
    Bytes(Vec<u8>),
    Key(Uuid),
}

type Cells = Vec<Cell>;

impl Cell {
    fn read(row: &mut Row<'_>, kind: Kind) -> Sql<Self> {
        let cell = match kind {
            Kind::Number => row.get::<Option<_>>()?.map(Self::Number),
            Kind::Flag => row.get::<Option<_>>()?.map(Self::Flag),
            Kind::Text => row.get::<Option<_>>()?.map(Self::Text),
            Kind::Bytes => row.get::<Option<_>>()?.map(Self::Bytes),
            Kind::Key => row.get::<Option<_>>()?.map(Self::Key),
        };
        Ok(cell.unwrap_or(Self::Null))
    }
}

impl Value for Cell {
    fn param(&self) -> Param<'_> {
        match self {
            Self::Null => Param::Null,
            Self::Number(number) => Param::Int(*number),
            Self::Flag(flag) => Param::Bool(*flag),
            Self::Text(text) => Param::Text(text),
            Self::Bytes(bytes) => Param::Bytes(bytes),
            Self::Key(key) => Param::Uuid(*key),
        }
    }
}

/// A description of the row.
fn row_words(table: &Table, key: &[Cell]) -> String {
    let numbers = key.iter().filter_map(|cell| match cell {
        Cell::Number(number) => Some(format!(" {number}")),
        _ => None,
    });
    format!("{}{}", table.name, numbers.collect::<String>())
}

/// The source or the target, used by nobody else.
struct Place {
    name: String,
    /// Equal for two addresses if, and only if, they are the same store.
    identity: String,
    held: Held,
}

enum Held {
    File {
        db: Connection,
        /// Held as a server holds it.
        _lock: sqlite::Lock,
        /// The files that exist for the copy. They are deleted unless the copy remains.
        made: Vec<PathBuf>,
    },
    Database(Object),
}

impl Place {
    /// Opens the source.
    async fn to_read(address: &Address) -> Result<Self> {
        if is_postgres(address.as_str()) {
            let mut place = Self::connected(address).await?;
            let is_there = "select to_regclass('schema_version') is not null";
            if !place.value::<bool>(is_there).await? {
                return Err(MoveError::NoChat(place.name));
            }
            place.hold().await?;
            return Ok(place);
        }
        let path = file_of(address)?;
        match path.exists() {
            true => Self::file(address, &path, Vec::new(), open_to_read),
            false => Err(MoveError::NoChat(address.to_string())),
        }
    }

    /// Opens the target, and creates and migrates it if needed.
    async fn to_write(address: &Address, from: &str) -> Result<Self> {
        if is_postgres(address.as_str()) {
            let mut place = Self::connected(address).await?;
            if place.identity == from {
                return Err(MoveError::Same(place.name));
            }
            place.hold().await?;
            if let Held::Database(db) = &mut place.held {
                let migrated = postgres::migrate(db).await;
                migrated.map_err(|error| at(error, &place.name))?;
            }
            place.is_free().await?;
            return Ok(place);
        }
        let path = file_of(address)?;
        let made = match path.exists() {
            true if identity(&path) == from => return Err(MoveError::Same(address.to_string())),
            true => Vec::new(),
            false => vec![path.clone(), sqlite::beside(&path, "-journal")],
        };
        Self::file(address, &path, made, open_to_write)
    }

    /// Opens a file, locked as a server locks it. `made` are the files that this creates.
    fn file(
        address: &Address,
        path: &Path,
        mut made: Vec<PathBuf>,
        open: fn(&Path) -> Sql<Connection>,
    ) -> Result<Self> {
        let name = address.to_string();
        let mut lock = sqlite::Lock::take(path).map_err(|error| at(error, &name))?;
        if lock.is_new {
            made.push(sqlite::lock_of(path));
        }
        let opened = sqlite::recognize(path).map_err(Failure::from);
        let opened = opened.and_then(|()| {
            let db = open(path)?;
            lock.take_file(path)?;
            Ok(db)
        });
        let db = opened.map_err(|failure| {
            remove(&made);
            at(failure, &name)
        })?;
        Ok(Self {
            identity: identity(path),
            held: Held::File {
                db,
                _lock: lock,
                made,
            },
            name,
        })
    }

    async fn connected(address: &Address) -> Result<Self> {
        let name = address.to_string();
        let connecting = async {
            let server = postgres::server(address.as_str())?;
            let db = postgres::connections(&server, postgres::Purpose::Reading, 1)?
                .get()
                .await?;
            // The copy may take as long as it needs, but a lost connection is noticed soon.
            db.batch_execute(
                "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0;
                 set lock_timeout = '5s'; set tcp_keepalives_idle = 30;
                 set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3",
            )
            .await?;
            Ok::<_, StoreError>(db)
        };
        let mut place = Self {
            held: Held::Database(connecting.await.map_err(|error| at(error, &name))?),
            name,
            identity: String::new(),
        };
        let identity = "select concat_ws(' ', 'postgres',
                extract(epoch from pg_postmaster_start_time()), oid)
            from pg_database where datname = current_database()";
        place.identity = place.value(identity).await?;
        Ok(place)
    }

    fn at<T>(&self, done: Sql<T>) -> Result<T> {
        done.map_err(|failure| at(failure, &self.name))
    }

    fn tx(&mut self) -> Tx<'_> {
        match &mut self.held {
            Held::Database(db) => Tx::postgres(db, Millis(0), History(0)),
            Held::File { db, .. } => Tx::sqlite(db, Millis(0), History(0)),
        }
    }

    async fn value<T: FromRow>(&mut self, sql: &str) -> Result<T> {
        let value = self.tx().the(sql, &[]).await;
        self.at(value)
    }

    /// Runs several statements.
    async fn run(&self, sql: &str) -> Result<()> {
        let done = match &self.held {
            Held::Database(db) => db.batch_execute(sql).await.map_err(Failure::from),
            Held::File { db, .. } => db.execute_batch(sql).map_err(Failure::from),
        };
        self.at(done)
    }

    /// Until the connection ends, no Overwire program can open the database: it waits where it would
    /// check whether the tables exist.
    async fn hold(&self) -> Result<()> {
        self.run(&format!("select pg_advisory_lock({})", postgres::MIGRATING))
            .await
    }

    /// Checks that no server has a lease.
    async fn is_free(&mut self) -> Result<()> {
        let leased = "select exists (select 1 from nodes where lease_until >= millis())";
        match self.value(leased).await? {
            true => Err(MoveError::InUse(self.name.clone())),
            false => Ok(()),
        }
    }

    async fn check_columns(&mut self) -> Result<()> {
        let columns = match &self.held {
            Held::Database(_) => {
                "select attname::text from pg_attribute
                 where attrelid = to_regclass($1) and attnum > 0 and not attisdropped"
            }
            Held::File { .. } => "select name from pragma_table_info($1)",
        };
        for table in &TABLES {
            let there = self.tx().all::<String>(columns, &[&table.name]).await;
            let there: HashSet<_> = self.at(there)?.into_iter().collect();
            let known = table
                .columns()
                .map(|column| column.name.to_owned())
                .collect();
            let odd: Vec<_> = there
                .symmetric_difference(&known)
                .map(String::as_str)
                .collect();
            if !odd.is_empty() {
                let (place, odd) = (self.name.clone(), odd.join(", "));
                return Err(MoveError::Columns(place, table.name, odd));
            }
        }
        Ok(())
    }

    /// The first rows, or those after a key, in the order of the keys; none at the end.
    async fn part(
        &mut self,
        table: &'static Table,
        columns: &str,
        after: &[Cell],
    ) -> Result<Vec<Cells>> {
        let keys = table.key_names();
        let values: Vec<_> = (1..=after.len()).map(|n| format!("${n}")).collect();
        let condition = match after.is_empty() {
            true => String::new(),
            false => format!("where ({keys}) > ({})", values.join(", ")),
        };
        let sql = format!(
            "select {columns} from {} {condition} order by {keys} limit {AT_ONCE}",
            table.name
        );
        let values: Vec<_> = after.iter().map(|cell| cell as &dyn Value).collect();
        let tx = self.tx();
        let rows = tx.rows(&sql, &values, |row| {
            let mut cells = Vec::new();
            for Column { name, kind } in table.columns() {
                match Cell::read(row, kind) {
                    Ok(cell) => cells.push(cell),
                    Err(_) => {
                        let row = row_words(table, cells.get(..table.key).unwrap_or_default());
                        return Ok(Err(format!("{row}: {name} has an invalid value")));
                    }
                }
            }
            Ok(Ok(cells))
        });
        let rows = rows.await;
        drop(tx);
        let rows: std::result::Result<_, String> = self.at(rows)?.into_iter().collect();
        rows.map_err(|words| MoveError::Row(self.name.clone(), words))
    }

    async fn put(&mut self, table: &'static Table, rows: &[Cells]) -> Result<()> {
        let has_nul = |cell: &Cell| matches!(cell, Cell::Text(text) if text.contains('\0'));
        if let Held::Database(_) = self.held
            && let Some(row) = rows.iter().find(|row| row.iter().any(has_nul))
        {
            let row = row_words(table, &row[..table.key]);
            return Err(MoveError::Row(
                self.name.clone(),
                format!("{row} has a text with U+0000 in it, which PostgreSQL cannot store"),
            ));
        }
        let words = match self.held {
            Held::Database(_) => "overriding system value",
            Held::File { .. } => "",
        };
        let tx = self.tx();
        let put = rows.chunks(INSERTED_AT_ONCE).map(async |rows| {
            let values: Vec<_> = rows.iter().flatten().map(|cell| cell as _).collect();
            tx.run(&table.insert(words, rows.len()), &values).await
        });
        let put = try_join_all(put).await;
        drop(tx);
        self.at(put).map(|_| ())
    }

    /// The highest id ever given, as far as the database knows; otherwise 0.
    async fn last_id(&mut self, table: &'static Table) -> Result<i64> {
        if let Held::Database(_) = self.held {
            let sequence = format!("select pg_get_serial_sequence('{}', 'id')", table.name);
            let sequence: String = self.value(&sequence).await?;
            let last = format!(
                "select case when is_called then last_value else last_value - 1 end
                 from {sequence}"
            );
            return self.value(&last).await;
        }
        let last = "select seq from sqlite_sequence where name = $1";
        let last = self.tx().one(last, &[&table.name]).await;
        Ok(self.at(last)?.unwrap_or(0))
    }

    /// Makes the next id higher than this one and all existing ones.
    async fn continue_after(&mut self, table: &'static Table, last: i64) -> Result<()> {
        let highest = format!("select coalesce(max(id), 0) from {}", table.name);
        let last = last.max(self.value(&highest).await?);
        match self.held {
            // Unlike the sequence's own functions, a rollback undoes this.
            Held::Database(_) => {
                let next = last.saturating_add(1);
                let name = table.name;
                let restart = format!("alter table {name} alter column id restart with {next}");
                self.run(&restart).await
            }
            Held::File { .. } if table.ids == Ids::DatabaseOnce => {
                self.run(&format!(
                    "delete from sqlite_sequence where name = '{0}';
                     insert into sqlite_sequence (name, seq) values ('{0}', {last})",
                    table.name
                ))
                .await
            }
            // The next id is one more than the highest existing one.
            Held::File { .. } => Ok(()),
        }
    }

    /// Begins the snapshot, while writers wait. Refused if the chat does not fit this program.
    async fn begin_reading(&mut self) -> Result<()> {
        let (version, known) = match self.held {
            Held::Database(_) => (
                "select coalesce(max(version), 0) from schema_version",
                postgres::NEWEST,
            ),
            Held::File { .. } => (
                "select user_version from pragma_user_version",
                sqlite::NEWEST,
            ),
        };
        let (name, found) = (self.name.clone(), self.value::<i64>(version).await?);
        match found {
            0 => return Err(MoveError::NoChat(name)),
            found if found < known => return Err(MoveError::TooOld(name, found, known)),
            found if found > known => return Err(MoveError::TooNew(name, found, known)),
            _ => {}
        }
        if let Held::Database(_) = self.held {
            let names = TABLES.map(|table| table.name).join(", ");
            self.is_free().await?;
            self.run(&format!(
                "begin isolation level repeatable read; lock table nodes, {names} in share mode"
            ))
            .await?;
            self.is_free().await?;
        }
        self.check_columns().await
    }

    /// Begins the transaction that writes everything. Refused if the target contains anything.
    async fn begin_writing(&mut self) -> Result<()> {
        self.check_columns().await?;
        match self.held {
            Held::Database(_) => {
                let names = TABLES.map(|table| table.name).join(", ");
                self.run(&format!(
                    "begin; lock table nodes, clients_active, {names} in access exclusive mode"
                ))
                .await?;
                self.is_free().await?;
            }
            Held::File { .. } => self.run("begin exclusive").await?,
        }
        for table in &TABLES {
            let count = self.value(&table.occupied()).await?;
            if count > 0 {
                return Err(MoveError::NotEmpty(
                    self.name.clone(),
                    count,
                    table.name.replace('_', " "),
                ));
            }
        }
        let emptied = self.tx().empty(&["rooms", "users", "push_key"]).await;
        self.at(emptied)
    }

    async fn commit(&mut self) -> Result<()> {
        if let Held::Database(db) = &self.held {
            // What is written from now on belongs to another history.
            let begun = postgres::continue_history(db, "true").await;
            self.at(begun.map_err(Failure::from))?;
            return match db.batch_execute("commit").await {
                Err(error) if error.as_db_error().is_none() => {
                    Err(MoveError::Unknown(self.name.clone(), error.into()))
                }
                committed => self.at(committed.map_err(Failure::from)),
            };
        }
        self.run("commit").await
    }

    /// Releases the store. Everything uncommitted is undone.
    async fn end(self, remains: bool) {
        match self.held {
            Held::Database(db) => {
                // A connection that has ended holds nothing.
                let _ = db
                    .batch_execute("rollback; select pg_advisory_unlock_all()")
                    .await;
            }
            Held::File { db, made, .. } => {
                if !db.is_autocommit()
                    && let Err(error) = db.execute_batch("rollback")
                {
                    tracing::warn!("could not roll back {}: {}", self.name, Chain(&error));
                }
                drop(db);
                if !remains {
                    // While the lock is held, so that another server's lock file is never deleted.
                    remove(&made);
                }
            }
        }
    }
}

/// A lock timeout means that another program is using the store.
fn at(failure: impl Into<Failure>, place: &str) -> MoveError {
    let failure = failure.into();
    let place = place.to_owned();
    let is_locked = match &failure {
        Failure::Sqlite(error) => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        ),
        Failure::Postgres(error) => error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE),
        Failure::Store(StoreError::InUse(_)) => true,
        Failure::NoRow | Failure::Store(_) => false,
    };
    if is_locked {
        return MoveError::InUse(place);
    }
    match StoreError::from(failure) {
        StoreError::TooNew { found, known } => MoveError::TooNew(place, found, known),
        source => MoveError::Failed(place, source),
    }
}

fn file_of(address: &Address) -> Result<PathBuf> {
    let path = sqlite_path(address.as_str()).and_then(|path| Ok(sqlite::real_path(&path)?));
    path.map_err(|error| at(error, &address.to_string()))
}

fn identity(path: &Path) -> String {
    format!("sqlite {:?}", sqlite::file_at(path).ok())
}

fn remove(files: &[PathBuf]) {
    for file in files {
        // It may not exist.
        let _ = std::fs::remove_file(file);
    }
}

fn open_to_read(path: &Path) -> Sql<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(sqlite::BUSY_TIMEOUT)?;
    // Nobody may write until the end: it would be missing in the copy.
    db.execute_batch("begin immediate")?;
    Ok(db)
}

fn open_to_write(path: &Path) -> Sql<Connection> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(sqlite::BUSY_TIMEOUT)?;
    // A write-ahead log would write everything twice. A server switches back to one.
    db.pragma_update(None, "journal_mode", "delete")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "cache_size", -CACHE)?;
    sqlite::migrate(&mut db)?;
    Ok(db)
}
