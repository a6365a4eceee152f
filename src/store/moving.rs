//! Moves a whole chat from one store to another, of either kind.
//!
//! It works past [`Store`](super::Store) on purpose. Its acts are those of people: each makes an id, a
//! version and a moment of its own, and none tells a password, a token or the text of a deleted
//! message. What is moved has to keep all of these. So the rows themselves are read and written, by
//! the one description of them in `tables.rs`; a database whose columns are not those is refused, so
//! that none is ever forgotten.
//!
//! What comes is read in one snapshot and written in one transaction, which also reads it back and
//! compares, so that at any moment the other store holds the whole chat or nothing.

mod postgres;
mod sqlite;
mod tables;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use self::tables::{Ids, TABLES, Table};
use super::{Address, StoreError, is_postgres};
use crate::model::Millis;

/// How many rows are on their way at one time: few enough that they fit the memory though each is the
/// longest message there can be.
const AT_ONCE: usize = 2_000;

/// Why a chat was not moved. The store it was to come from is as it was, and where nothing else is
/// said the other one holds nothing. No password is told.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// Both addresses are those of one store.
    #[error("{0} is the same database as the one to move from")]
    Same(String),
    /// There is nothing to be moved.
    #[error("there is no chat in {0}")]
    NoChat(String),
    /// The chat was written by an older program.
    #[error(
        "{place} is at schema version {found} and this program works with {known}; start this \
         program's server on it once, which brings it up to date, and stop it again"
    )]
    TooOld {
        /// Where it is.
        place: String,
        /// The version it is at.
        found: i64,
        /// The version known here.
        known: i64,
    },
    /// The chat was written by a newer program.
    #[error(
        "{place} is at schema version {found}, this program knows up to {known}; use the newer \
         program"
    )]
    TooNew {
        /// Where it is.
        place: String,
        /// The version it is at.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// Somebody else works on one of the stores.
    #[error(
        "a server, or another program, is at work on {0}; stop it first (one on PostgreSQL that was \
         killed still counts for a few seconds)"
    )]
    InUse(String),
    /// Where the chat was to go there is one already.
    #[error(
        "{place} already holds {count} {what}; give the name of a new database, or delete this one \
         first"
    )]
    NotEmpty {
        /// Where.
        place: String,
        /// How many.
        count: u64,
        /// Of what.
        what: String,
    },
    /// Somebody has changed the tables of a store.
    #[error(
        "the table {table} of {place} has other columns than this program knows: {}", columns.join(", ")
    )]
    Columns {
        /// Where.
        place: String,
        /// Which table.
        table: &'static str,
        /// Those that one has and the other has not.
        columns: Vec<String>,
    },
    /// Something of the chat cannot be moved.
    #[error("{place} cannot be moved: {words}")]
    Row {
        /// Where it is.
        place: String,
        /// Which row, and what is wrong with it.
        words: String,
    },
    /// What was read back is not what was written.
    #[error("what was written to {table} of {place} is not what was read")]
    Different {
        /// Where.
        place: String,
        /// Which table.
        table: &'static str,
    },
    /// The last word of the other store did not come.
    #[error("{place} did not say whether the move is done: it holds the whole chat, or nothing")]
    Unknown {
        /// Where.
        place: String,
        /// Why it did not come.
        #[source]
        source: StoreError,
    },
    /// A store refused or failed.
    #[error("{place} cannot be used")]
    Failed {
        /// Which.
        place: String,
        /// Why.
        #[source]
        source: StoreError,
    },
}

type Result<T> = std::result::Result<T, MoveError>;

/// How much was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The name of each table and how many rows it has, in the order in which they were written.
    pub rows: Vec<(&'static str, u64)>,
}

/// Moves the chat in `from` to `to`, which is made where it is not there (a PostgreSQL database itself
/// has to be). `to` must hold nobody and nothing said; its default groups make way for those that come.
/// Nobody may work on either meanwhile, which is seen to as far as the databases allow. `progress` is
/// told how many steps of how many are done.
///
/// Whoever was in the chat counts as having left it at this moment. Tabs come back to what was moved
/// as who they were and catch up; what both stores are told after the move are different histories.
pub async fn move_chat(
    from: &Address,
    to: &Address,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Moved> {
    let mut from: Box<dyn Place> = match is_postgres(from.as_str()) {
        true => Box::new(postgres::Postgres::to_read(from).await?),
        false => Box::new(sqlite::Sqlite::to_read(from).await?),
    };
    let moved = async {
        check_columns(&mut *from).await?;
        let mut to: Box<dyn Place> = match is_postgres(to.as_str()) {
            true => Box::new(postgres::Postgres::to_write(to, from.identity()).await?),
            false => Box::new(sqlite::Sqlite::to_write(to, from.identity()).await?),
        };
        let moved = fill(&mut *from, &mut *to, progress).await;
        to.end(moved.is_ok()).await;
        moved
    };
    let moved = moved.await;
    from.end(moved.is_ok()).await;
    moved
}

async fn fill(
    from: &mut dyn Place,
    to: &mut dyn Place,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Moved> {
    check_columns(to).await?;
    to.begin().await?;
    let now = Millis::now().0;
    let mut steps = Steps {
        done: 0,
        of: 0,
        progress,
    };
    let mut counts = Vec::new();
    for table in &TABLES {
        let count = from.count(table).await?;
        counts.push(count);
        // Each row is written and read back.
        steps.of += 2 * count;
    }
    let mut sums = Vec::new();
    for table in &TABLES {
        sums.push(copy(from, to, table, now, &mut steps).await?);
        if table.ids != Ids::Chat {
            let last = from.last_id(table).await?;
            to.continue_after(table, last).await?;
        }
    }
    let mut rows = Vec::new();
    for ((table, sum), count) in TABLES.iter().zip(sums).zip(counts) {
        let read = read_back(to, table, &mut steps).await?;
        rows.push((table.name, count));
        if sum.rows != count || read.end() != sum.end() {
            return Err(MoveError::Different {
                place: to.place().to_owned(),
                table: table.name,
            });
        }
    }
    to.commit().await?;
    Ok(Moved { rows })
}

async fn copy(
    from: &mut dyn Place,
    to: &mut dyn Place,
    table: &'static Table,
    now: i64,
    steps: &mut Steps<'_>,
) -> Result<Sum> {
    let columns = table.expressions(now);
    let mut sum = Sum::default();
    let mut rows = from.part(table, &columns, None).await?;
    while let Some(last) = rows.last() {
        let after = last[..table.key].to_vec();
        sum.add(&rows);
        let count = rows.len();
        let (put, next) =
            tokio::join!(to.put(table, rows), from.part(table, &columns, Some(after)));
        put?;
        steps.take(count);
        rows = next?;
    }
    Ok(sum)
}

async fn read_back(
    to: &mut dyn Place,
    table: &'static Table,
    steps: &mut Steps<'_>,
) -> Result<Sum> {
    let columns = table.names();
    let mut sum = Sum::default();
    let mut rows = to.part(table, &columns, None).await?;
    while let Some(last) = rows.last() {
        let after = last[..table.key].to_vec();
        sum.add(&rows);
        steps.take(rows.len());
        rows = to.part(table, &columns, Some(after)).await?;
    }
    Ok(sum)
}

async fn check_columns(place: &mut dyn Place) -> Result<()> {
    for table in &TABLES {
        let there = place.columns(table).await?;
        let known = place.known_columns(table);
        let mut columns: Vec<_> = there.iter().filter(|name| !known.contains(name)).collect();
        columns.extend(known.iter().filter(|name| !there.contains(name)));
        if !columns.is_empty() {
            return Err(MoveError::Columns {
                place: place.place().to_owned(),
                table: table.name,
                columns: columns.into_iter().cloned().collect(),
            });
        }
    }
    Ok(())
}

/// How far it is.
struct Steps<'a> {
    done: u64,
    of: u64,
    progress: &'a mut (dyn FnMut(u64, u64) + Send),
}

impl Steps<'_> {
    fn take(&mut self, steps: usize) {
        self.done += steps as u64;
        (self.progress)(self.done, self.of);
    }
}

/// What one column of one row holds, the same whichever database it comes from.
#[derive(Clone, Debug)]
enum Value {
    Null,
    Number(i64),
    Flag(bool),
    Text(String),
    Bytes(Vec<u8>),
    Key(Uuid),
}

type Row = Vec<Value>;

/// What tells two tables apart: how many rows, and all that they hold in the order of their keys.
#[derive(Default)]
struct Sum {
    rows: u64,
    hash: Sha256,
}

impl Sum {
    fn add(&mut self, rows: &[Row]) {
        self.rows += rows.len() as u64;
        for value in rows.iter().flatten() {
            let (kind, bytes): (u8, &[u8]) = match value {
                Value::Null => (0, &[]),
                Value::Number(number) => (1, &number.to_be_bytes()),
                Value::Flag(flag) => (2, &[u8::from(*flag)]),
                Value::Text(text) => (3, text.as_bytes()),
                Value::Bytes(bytes) => (4, bytes),
                Value::Key(key) => (5, key.as_bytes()),
            };
            self.hash.update([kind]);
            self.hash.update((bytes.len() as u64).to_be_bytes());
            self.hash.update(bytes);
        }
    }

    fn end(self) -> (u64, [u8; 32]) {
        (self.rows, self.hash.finalize().into())
    }
}

/// Which row it is, in words.
fn row_words(table: &Table, key: &[Value]) -> String {
    let numbers = key.iter().filter_map(|value| match value {
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    let numbers: Vec<_> = numbers.collect();
    format!("{} {}", table.name, numbers.join(" "))
        .trim()
        .to_owned()
}

/// Why a backend could not do something, before it is said where that is.
enum Trouble {
    Store(StoreError),
    Row(String),
}

impl<E: Into<StoreError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

impl Trouble {
    fn at(self, place: &str) -> MoveError {
        let place = place.to_owned();
        match self {
            Self::Row(words) => MoveError::Row { place, words },
            Self::Store(StoreError::InUse(_)) => MoveError::InUse(place),
            Self::Store(StoreError::TooNew { found, known }) => MoveError::TooNew {
                place,
                found,
                known,
            },
            Self::Store(source) => MoveError::Failed { place, source },
        }
    }
}

/// A store that is moved from or to, which nobody else works on.
#[async_trait]
trait Place: Send {
    /// How it is called.
    fn place(&self) -> &str;

    /// The same for two addresses of one store, and for those alone.
    fn identity(&self) -> &str;

    /// The columns that the description knows here.
    fn known_columns(&self, table: &Table) -> Vec<String>;

    /// The columns that there are.
    async fn columns(&mut self, table: &'static Table) -> Result<Vec<String>>;

    async fn count(&mut self, table: &'static Table) -> Result<u64>;

    /// The next rows after a key, by the order of the keys; none at the end.
    async fn part(
        &mut self,
        table: &'static Table,
        columns: &str,
        after: Option<Row>,
    ) -> Result<Vec<Row>>;

    /// The highest id that was ever given, as far as the database knows; else 0.
    async fn last_id(&mut self, table: &'static Table) -> Result<i64>;

    /// The transaction begins in which everything is written; refused if there is anything already.
    async fn begin(&mut self) -> Result<()>;

    async fn put(&mut self, table: &'static Table, rows: Vec<Row>) -> Result<()>;

    /// The next id that is given is higher than this and than those that are there.
    async fn continue_after(&mut self, table: &'static Table, last: i64) -> Result<()>;

    async fn commit(&mut self) -> Result<()>;

    /// Lets go of the store. What is not committed is undone.
    async fn end(self: Box<Self>, is_done: bool);
}

/// The statement for a part; the values of the key stand where `value` writes them.
fn part_statement(
    table: &Table,
    columns: &str,
    after: Option<&Row>,
    value: fn(usize) -> String,
) -> String {
    let keys = table.key_names();
    let condition = match after {
        None => String::new(),
        Some(after) => {
            let values: Vec<_> = (1..=after.len()).map(value).collect();
            format!("where ({keys}) > ({})", values.join(", "))
        }
    };
    format!(
        "select {columns} from {} {condition} order by {keys} limit {AT_ONCE}",
        table.name
    )
}

/// What must not be there where a chat is to go: anything but default groups in which nothing was said.
fn occupied(table: &Table) -> String {
    let condition = match table.name {
        "rooms" => "where position is null or version > 0",
        _ => "",
    };
    format!("select count(*) from {} {condition}", table.name)
}

fn not_empty(place: &str, table: &Table, count: u64) -> MoveError {
    MoveError::NotEmpty {
        place: place.to_owned(),
        count,
        what: table.name.replace('_', " "),
    }
}
