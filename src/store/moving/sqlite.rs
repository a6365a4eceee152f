//! An SQLite file that a chat is moved from or to.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::types::{Null, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, ToSql, params};
use uuid::Uuid;

use super::tables::{Column, Ids, Kind, TABLES, Table};
use super::{
    MoveError, Place, Result, Row, Trouble, Value, not_empty, occupied, part_statement, row_words,
};
use crate::store::{Address, StoreError, sqlite, sqlite_path};

/// How much of the file is held in memory while it is written, in KiB.
const CACHE: i64 = 65_536;

type Tried<T> = std::result::Result<T, Trouble>;

pub(super) struct Sqlite {
    place: String,
    identity: String,
    path: PathBuf,
    db: Arc<Mutex<Connection>>,
    /// Held as by a server.
    _lock: File,
    /// The files that go again if nothing comes of it.
    made: Vec<PathBuf>,
    /// Those that go in any case.
    lent: Option<PathBuf>,
    /// The statements that make the indexes anew.
    indexes: Vec<String>,
}

impl Sqlite {
    /// In a snapshot; whoever wants to write waits.
    pub(super) async fn to_read(address: &Address) -> Result<Self> {
        let place = address.to_string();
        Self::opened(address, move |path| {
            if !path.exists() {
                return Err(MoveError::NoChat(place));
            }
            let (lock, is_new) = sqlite::lock(path).map_err(|error| at(error, &place))?;
            let lent = is_new.then(|| sqlite::lock_of(path));
            let opened = open_to_read(path).map_err(|trouble| trouble.at(&place));
            let (db, found) = opened.inspect_err(|_| remove(lent.as_slice()))?;
            let known = sqlite::NEWEST;
            let refused = match found {
                0 => Some(MoveError::NoChat(place.clone())),
                found if found < known => Some(MoveError::TooOld {
                    place: place.clone(),
                    found,
                    known,
                }),
                found if found > known => Some(MoveError::TooNew {
                    place: place.clone(),
                    found,
                    known,
                }),
                _ => None,
            };
            if let Some(refused) = refused {
                drop(db);
                remove(lent.as_slice());
                return Err(refused);
            }
            Ok(Self {
                identity: identity(path),
                path: path.to_owned(),
                db: Arc::new(Mutex::new(db)),
                _lock: lock,
                made: Vec::new(),
                lent,
                indexes: Vec::new(),
                place,
            })
        })
        .await
    }

    /// Made and migrated where needed.
    pub(super) async fn to_write(address: &Address, from: &str) -> Result<Self> {
        let place = address.to_string();
        let from = from.to_owned();
        Self::opened(address, move |path| {
            let is_new = !path.exists();
            if !is_new && identity(path) == from {
                return Err(MoveError::Same(place));
            }
            let (lock, lock_is_new) = sqlite::lock(path).map_err(|error| at(error, &place))?;
            let mut made = Vec::new();
            if is_new {
                made.extend([path.to_owned(), sqlite::beside(path, "-journal")]);
            }
            if lock_is_new {
                made.push(sqlite::lock_of(path));
            }
            let opened = open_to_write(path).map_err(|trouble| trouble.at(&place));
            let db = opened.inspect_err(|_| remove(&made))?;
            Ok(Self {
                identity: identity(path),
                path: path.to_owned(),
                db: Arc::new(Mutex::new(db)),
                _lock: lock,
                made,
                lent: None,
                indexes: Vec::new(),
                place,
            })
        })
        .await
    }

    async fn opened(
        address: &Address,
        open: impl FnOnce(&Path) -> Result<Self> + Send + 'static,
    ) -> Result<Self> {
        let place = address.to_string();
        let path = sqlite_path(address.as_str()).map_err(|error| at(error, &place))?;
        let opening = tokio::task::spawn_blocking(move || {
            let path = sqlite::real_path(&path).map_err(|error| at(error, &place))?;
            open(&path)
        });
        opening.await.expect("nothing panics there")
    }

    async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> Tried<T> + Send + 'static,
    ) -> Result<T> {
        let db = Arc::clone(&self.db);
        let running = tokio::task::spawn_blocking(move || act(&db.lock()));
        let done = running
            .await
            .unwrap_or_else(|_| Err(StoreError::Closed.into()));
        done.map_err(|trouble| trouble.at(&self.place))
    }
}

fn at(error: impl Into<StoreError>, place: &str) -> MoveError {
    Trouble::from(error.into()).at(place)
}

fn identity(path: &Path) -> String {
    format!("sqlite {:?}", sqlite::file_at(path).ok())
}

fn remove(files: &[PathBuf]) {
    for file in files {
        // It may not have come to be.
        let _ = std::fs::remove_file(file);
    }
}

/// Another program that writes is somebody who works on it.
fn if_free<T>(done: rusqlite::Result<T>) -> Tried<T> {
    done.map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::InUse(String::new()).into()
        }
        _ => error.into(),
    })
}

/// Answers at which version it is as well.
fn open_to_read(path: &Path) -> Tried<(Connection, i64)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(sqlite::BUSY_TIMEOUT)?;
    // So that nobody writes until the end what would then be missing.
    if_free(db.execute_batch("begin immediate"))?;
    let found = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok((db, found))
}

fn open_to_write(path: &Path) -> Tried<Connection> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(sqlite::BUSY_TIMEOUT)?;
    // In a write-ahead log everything would be written twice. A server goes back to one.
    if_free(db.pragma_update(None, "journal_mode", "delete"))?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "cache_size", -CACHE)?;
    sqlite::migrate(&mut db)?;
    Ok(db)
}

#[async_trait]
impl Place for Sqlite {
    fn place(&self) -> &str {
        &self.place
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn known_columns(&self, table: &Table) -> Vec<String> {
        table.moved().map(|column| column.name.to_owned()).collect()
    }

    async fn columns(&mut self, table: &'static Table) -> Result<Vec<String>> {
        self.run(move |db| {
            let mut asked = db.prepare("select name from pragma_table_info(?)")?;
            let names = asked.query_map([table.name], |row| row.get(0))?;
            Ok(names.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn count(&mut self, table: &'static Table) -> Result<u64> {
        let sql = format!("select count(*) from {}", table.name);
        self.run(move |db| Ok(db.query_one(&sql, [], |row| row.get(0))?))
            .await
    }

    async fn part(
        &mut self,
        table: &'static Table,
        columns: &str,
        after: Option<Row>,
    ) -> Result<Vec<Row>> {
        let sql = part_statement(table, columns, after.as_ref(), |n| format!("?{n}"));
        self.run(move |db| {
            let mut asked = db.prepare_cached(&sql)?;
            let after = after.unwrap_or_default();
            let mut found = asked.query(rusqlite::params_from_iter(after))?;
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                let mut values = Vec::new();
                for (n, column) in table.moved().enumerate() {
                    let Some(value) = value(row.get_ref(n)?, column) else {
                        let key = values.get(..table.key).unwrap_or_default();
                        return Err(Trouble::Row(format!(
                            "{}: {} is not what it has to be",
                            row_words(table, key),
                            column.name
                        )));
                    };
                    values.push(value);
                }
                rows.push(values);
            }
            Ok(rows)
        })
        .await
    }

    async fn last_id(&mut self, table: &'static Table) -> Result<i64> {
        self.run(move |db| {
            let sql = "select seq from sqlite_sequence where name = ?";
            let last = db.query_row(sql, [table.name], |row| row.get(0));
            Ok(last.optional()?.unwrap_or(0))
        })
        .await
    }

    async fn begin(&mut self) -> Result<()> {
        let place = self.place.clone();
        let begun = self.run(move |db| {
            if_free(db.execute_batch("begin exclusive"))?;
            for table in &TABLES {
                let count = db.query_one(&occupied(table), [], |row| row.get(0))?;
                if count > 0 {
                    return Ok(Err(not_empty(&place, table, count)));
                }
            }
            db.execute_batch("delete from rooms")?;
            // Made at once at the end, they cost a part of what each row would.
            let mut asked = db.prepare(
                "select name, sql from sqlite_schema where type = 'index' and sql is not null",
            )?;
            let indexes = asked.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let indexes: Vec<(String, String)> = indexes.collect::<rusqlite::Result<_>>()?;
            for (name, _) in &indexes {
                db.execute_batch(&format!("drop index {name}"))?;
            }
            Ok(Ok(indexes.into_iter().map(|(_, sql)| sql).collect()))
        });
        self.indexes = begun.await??;
        Ok(())
    }

    async fn put(&mut self, table: &'static Table, rows: Vec<Row>) -> Result<()> {
        let places = vec!["?"; table.moved().count()].join(", ");
        let sql = format!(
            "insert into {} ({}) values ({places})",
            table.name,
            table.names()
        );
        self.run(move |db| {
            let mut inserted = db.prepare_cached(&sql)?;
            for row in rows {
                inserted.execute(rusqlite::params_from_iter(row))?;
            }
            Ok(())
        })
        .await
    }

    async fn continue_after(&mut self, table: &'static Table, last: i64) -> Result<()> {
        if table.ids != Ids::DatabaseOnce {
            // The next id is one more than the highest that is there.
            return Ok(());
        }
        self.run(move |db| {
            let highest = format!("select coalesce(max(id), 0) from {}", table.name);
            let highest: i64 = db.query_one(&highest, [], |row| row.get(0))?;
            db.execute("delete from sqlite_sequence where name = ?", [table.name])?;
            db.execute(
                "insert into sqlite_sequence (name, seq) values (?, ?)",
                params![table.name, last.max(highest)],
            )?;
            Ok(())
        })
        .await
    }

    async fn commit(&mut self) -> Result<()> {
        let indexes = std::mem::take(&mut self.indexes);
        self.run(move |db| {
            for index in indexes {
                db.execute_batch(&index)?;
            }
            db.execute_batch("commit")?;
            Ok(())
        })
        .await
    }

    async fn end(self: Box<Self>, is_done: bool) {
        let ending = tokio::task::spawn_blocking(move || {
            let Self {
                db,
                made,
                lent,
                path,
                ..
            } = &*self;
            {
                let db = db.lock();
                if !db.is_autocommit()
                    && let Err(error) = db.execute_batch("rollback")
                {
                    tracing::warn!(%error, path = %path.display(), "could not roll back");
                }
            }
            if !is_done {
                remove(made);
            }
            // While it is held, so that a lock somebody else has taken never goes.
            remove(lent.as_slice());
        });
        // It does not panic.
        let _ = ending.await;
    }
}

/// What a column holds; `None` if it is of another kind.
fn value(found: ValueRef<'_>, column: &Column) -> Option<Value> {
    match (column.kind, found) {
        (_, ValueRef::Null) => Some(Value::Null),
        (Kind::Number, ValueRef::Integer(number)) => Some(Value::Number(number)),
        (Kind::Flag, ValueRef::Integer(flag @ (0 | 1))) => Some(Value::Flag(flag == 1)),
        (Kind::Text, ValueRef::Text(text)) => {
            let text = std::str::from_utf8(text).ok()?;
            Some(Value::Text(text.to_owned()))
        }
        (Kind::Bytes, ValueRef::Blob(bytes)) => Some(Value::Bytes(bytes.to_owned())),
        (Kind::Key, ValueRef::Text(key)) => Uuid::try_parse_ascii(key).ok().map(Value::Key),
        _ => None,
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Null => Ok(ToSqlOutput::from(Null)),
            Self::Number(number) => number.to_sql(),
            Self::Flag(flag) => flag.to_sql(),
            Self::Text(text) => text.to_sql(),
            Self::Bytes(bytes) => bytes.to_sql(),
            Self::Key(key) => Ok(ToSqlOutput::from(key.to_string())),
        }
    }
}
