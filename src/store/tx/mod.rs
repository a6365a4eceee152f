//! What operations are made of: statements, their values and rows, the same for both databases; and the
//! complete list of their differences (from [`Tx::is_shared`] to [`Tx::found`]).
//!
//! A statement numbers its parameters `$1`, `$2`… in the order of their first appearance, which is how
//! SQLite numbers them; a debug build checks it. `millis()` is the database's clock. No table is known
//! here.

mod postgres;
mod sqlite;

use std::borrow::Cow;
use std::pin::Pin;
use std::time::Duration;

use deadpool_postgres::{Object, Transaction};
use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use tokio::sync::oneshot;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Actor, Change, Refused, Result, StoreError};
use crate::model::{
    ClientId, ClientRef, FileId, History, MessageId, Millis, NodeId, PasswordHash, RoomId,
    SessionId, TokenHash, UserId,
};
use crate::search::{Indexed, Sought};

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// A statement that always returns a row returned none.
    #[error("a row that must exist does not")]
    NoRow,
    /// An error of the store, not of the database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of a statement, or of an operation.
pub(super) type Sql<T> = std::result::Result<T, Failure>;

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Store(StoreError::Refused(refused))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sqlite(error) => error.into(),
            Failure::Postgres(error) => error.into(),
            no_row @ Failure::NoRow => Self::Database(no_row.into()),
            Failure::Store(error) => error,
        }
    }
}

/// A value in a form for either database.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Param<'a> {
    Null,
    Int(i64),
    Bool(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Text with hyphens in SQLite, a `uuid` in PostgreSQL.
    Uuid(Uuid),
    /// For [`Tx::among`]: JSON in SQLite, an array in PostgreSQL.
    Ints(&'a [i64]),
    Texts(&'a [String]),
}

/// A type that can be a value of a statement.
pub(super) trait Value: Sync {
    fn param(&self) -> Param<'_>;
}

pub(super) type Values<'a> = &'a [&'a dyn Value];

macro_rules! value {
    ($($type:ty: $self:ident => $param:expr;)*) => {
        $(impl Value for $type {
            fn param(&$self) -> Param<'_> {
                $param
            }
        })*
    };
}

value! {
    i64: self => Param::Int(*self);
    // The database counts in 64-bit signed integers.
    u64: self => Param::Int(i64::try_from(*self).unwrap_or(i64::MAX));
    usize: self => Param::Int(i64::try_from(*self).unwrap_or(i64::MAX));
    bool: self => Param::Bool(*self);
    &str: self => Param::Text(self);
    String: self => Param::Text(self);
    Vec<i64>: self => Param::Ints(self);
    Vec<String>: self => Param::Texts(self);
    Uuid: self => Param::Uuid(*self);
    Millis: self => Param::Int(self.0);
    UserId: self => Param::Int(self.0);
    ClientId: self => Param::Int(self.0);
    SessionId: self => Param::Int(self.0);
    RoomId: self => Param::Int(self.0);
    FileId: self => Param::Int(self.0);
    MessageId: self => Param::Int(self.0);
    NodeId: self => Param::Int(self.0);
    History: self => Param::Int(self.0.into());
    TokenHash: self => Param::Bytes(&self.0);
    PasswordHash: self => Param::Text(&self.0);
    Param<'_>: self => self.clone();
}

impl<T: Value> Value for Option<T> {
    fn param(&self) -> Param<'_> {
        self.as_ref().map_or(Param::Null, Value::param)
    }
}

/// One row of a result, read column by column.
pub(super) struct Row<'a> {
    answer: Answer<'a>,
    /// The next column to read.
    next: usize,
}

enum Answer<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

impl<'a> Row<'a> {
    pub(super) fn sqlite(row: &'a rusqlite::Row<'a>) -> Self {
        let answer = Answer::Sqlite(row);
        Self { answer, next: 0 }
    }

    pub(super) fn postgres(row: &'a tokio_postgres::Row) -> Self {
        let answer = Answer::Postgres(row);
        Self { answer, next: 0 }
    }

    /// Reads the next columns.
    pub(super) fn get<T: FromRow>(&mut self) -> Sql<T> {
        T::read(self)
    }
}

/// A type read from a row, from one column or several consecutive ones.
pub(super) trait FromRow: Sized {
    fn read(row: &mut Row<'_>) -> Sql<Self>;
}

/// A type read from a single column.
pub(super) trait Column: Sized {
    /// The type that both databases return.
    type Raw: rusqlite::types::FromSql + for<'a> tokio_postgres::types::FromSql<'a>;
    fn of(raw: Self::Raw) -> Self;
}

impl<T: Column> FromRow for T {
    fn read(row: &mut Row<'_>) -> Sql<Self> {
        let column = row.next;
        row.next += 1;
        Ok(Self::of(match row.answer {
            Answer::Sqlite(row) => row.get(column)?,
            Answer::Postgres(row) => row.try_get(column)?,
        }))
    }
}

impl<T: Column> Column for Option<T> {
    type Raw = Option<T::Raw>;

    fn of(raw: Self::Raw) -> Self {
        raw.map(T::of)
    }
}

impl FromRow for () {
    fn read(_: &mut Row<'_>) -> Sql<Self> {
        Ok(())
    }
}

/// A type whose fields are the columns, in that order.
macro_rules! from_row {
    ($($type:ident { $($field:ident),+ $(,)? })+) => {
        $(impl $crate::store::tx::FromRow for $type {
            fn read(row: &mut $crate::store::tx::Row<'_>) -> $crate::store::tx::Sql<Self> {
                Ok(Self { $($field: row.get()?),+ })
            }
        })+
    };
}
pub(super) use from_row;

macro_rules! tuples {
    ($(($($part:ident),+))+) => {
        $(impl<$($part: FromRow),+> FromRow for ($($part,)+) {
            fn read(row: &mut Row<'_>) -> Sql<Self> {
                Ok(($($part::read(row)?,)+))
            }
        })+
    };
}

tuples! { (A, B) (A, B, C) (A, B, C, D) }

macro_rules! columns {
    ($($type:ty: $raw:ty => $of:expr;)*) => {
        $(impl Column for $type {
            type Raw = $raw;

            fn of(raw: Self::Raw) -> Self {
                $of(raw)
            }
        })*
    };
}

columns! {
    i64: i64 => std::convert::identity;
    // Only ids and moments can be negative in the tables.
    u64: i64 => i64::unsigned_abs;
    u32: i64 => |number| u32::try_from(number).unwrap_or(u32::MAX);
    bool: bool => std::convert::identity;
    String: String => std::convert::identity;
    Vec<u8>: Vec<u8> => std::convert::identity;
    Uuid: Hyphenated => |uuid: Hyphenated| uuid.0;
    Millis: i64 => Millis;
    UserId: i64 => UserId;
    ClientId: i64 => ClientId;
    SessionId: i64 => SessionId;
    RoomId: i64 => RoomId;
    FileId: i64 => FileId;
    MessageId: i64 => MessageId;
    NodeId: i64 => NodeId;
    History: i64 => |history| History(u32::try_from(history).unwrap_or(u32::MAX));
    PasswordHash: String => PasswordHash;
}

/// A UUID, which SQLite stores as text with hyphens.
pub(super) struct Hyphenated(Uuid);

impl rusqlite::types::FromSql for Hyphenated {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let uuid = Uuid::try_parse(value.as_str()?);
        uuid.map(Self).map_err(FromSqlError::other)
    }
}

impl<'a> tokio_postgres::types::FromSql<'a> for Hyphenated {
    fn from_sql(
        kind: &Type,
        raw: &'a [u8],
    ) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        <Uuid as tokio_postgres::types::FromSql>::from_sql(kind, raw).map(Self)
    }

    fn accepts(kind: &Type) -> bool {
        <Uuid as tokio_postgres::types::FromSql>::accepts(kind)
    }
}

/// How a selected row is locked until the commit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hold {
    /// Nobody else changes it.
    Share,
    /// Nobody else changes or locks it.
    Change,
    /// The same, skipping rows that others have locked.
    ChangeFree,
    /// Nobody else even refers to it, so it may be deleted.
    Delete,
}

/// A transaction, or a snapshot, of one database.
pub(super) struct Tx<'a> {
    db: Db<'a>,
    /// The time of the writer's batch, by the database's clock after all locks were taken. Reads use
    /// `millis()` instead.
    pub(super) now: Millis,
    /// The history that changes of this batch belong to.
    pub(super) history: History,
    /// The changes to deliver after the commit, in the order they were made.
    changes: Mutex<Vec<(NodeId, Change)>>,
}

enum Db<'a> {
    Sqlite(Mutex<&'a mut Connection>),
    Postgres(&'a Object),
    Snapshot(&'a Transaction<'a>),
}

/// Runs a generic function of the PostgreSQL driver on the object that has the connection.
macro_rules! on {
    ($tx:expr, $sqlite:ident => $here:expr, $postgres:ident => $there:expr) => {
        match &$tx.db {
            Db::Sqlite(db) => {
                let $sqlite = &**db.lock();
                $here
            }
            Db::Postgres(db) => {
                let $postgres = *db;
                $there
            }
            Db::Snapshot(db) => {
                let $postgres = *db;
                $there
            }
        }
    };
}

impl<'a> Tx<'a> {
    fn new(db: Db<'a>, now: Millis, history: History) -> Self {
        Self {
            db,
            now,
            history,
            changes: Mutex::default(),
        }
    }

    pub(super) fn sqlite(db: &'a mut Connection, now: Millis, history: History) -> Self {
        Self::new(Db::Sqlite(Mutex::new(db)), now, history)
    }

    pub(super) fn postgres(db: &'a Object, now: Millis, history: History) -> Self {
        Self::new(Db::Postgres(db), now, history)
    }

    pub(super) fn snapshot(db: &'a Transaction<'a>) -> Self {
        Self::new(Db::Snapshot(db), Millis(0), History(0))
    }

    /// All rows.
    pub(super) async fn all<T: FromRow>(&self, sql: &str, values: Values<'_>) -> Sql<Vec<T>> {
        self.rows(sql, values, T::read).await
    }

    /// The one row, if there is one.
    pub(super) async fn one<T: FromRow>(&self, sql: &str, values: Values<'_>) -> Sql<Option<T>> {
        Ok(self.all(sql, values).await?.into_iter().next())
    }

    /// The row of a statement that always has one.
    pub(super) async fn the<T: FromRow>(&self, sql: &str, values: Values<'_>) -> Sql<T> {
        self.one(sql, values).await?.ok_or(Failure::NoRow)
    }

    /// All rows, each read by `read`.
    pub(super) async fn rows<T>(
        &self,
        sql: &str,
        values: Values<'_>,
        read: impl Fn(&mut Row<'_>) -> Sql<T>,
    ) -> Sql<Vec<T>> {
        on!(self, db => sqlite::rows(db, sql, values, read),
            db => postgres::rows(db, sql, values, read).await)
    }

    /// Runs a statement.
    pub(super) async fn run(&self, sql: &str, values: Values<'_>) -> Sql<()> {
        self.changed(sql, values).await.map(|_| ())
    }

    /// Runs a statement. Returns how many rows it changed.
    pub(super) async fn changed(&self, sql: &str, values: Values<'_>) -> Sql<u64> {
        on!(self, db => sqlite::run(db, sql, values),
            db => postgres::run(db, sql, values).await)
    }

    /// Whether the transaction is still open. SQLite ends it by itself when the disk is full.
    pub(super) fn is_open(&self) -> bool {
        match &self.db {
            Db::Sqlite(db) => !db.lock().is_autocommit(),
            Db::Postgres(_) | Db::Snapshot(_) => true,
        }
    }

    /// Whether other nodes may use the database at the same time.
    pub(super) fn is_shared(&self) -> bool {
        !matches!(self.db, Db::Sqlite(_))
    }

    /// A select that locks its rows. SQLite's one writer has the whole database to itself.
    pub(super) fn hold<'s>(&self, select: &'s str, hold: Hold) -> Cow<'s, str> {
        if !self.is_shared() {
            return Cow::Borrowed(select);
        }
        let words = match hold {
            Hold::Share => "for share",
            Hold::Change => "for no key update",
            Hold::ChangeFree => "for no key update skip locked",
            Hold::Delete => "for update",
        };
        Cow::Owned(format!("{select} {words}"))
    }

    /// A condition: one of the values in this parameter. SQLite has no arrays.
    pub(super) fn among(&self, parameter: usize) -> String {
        match self.is_shared() {
            true => format!("= any(${parameter})"),
            false => format!("in (select value from json_each(${parameter}))"),
        }
    }

    /// Until the commit nobody else changes names: an index cannot ensure that no display name is like
    /// a user name. SQLite has one writer.
    pub(super) async fn lock_names(&self) -> Sql<()> {
        match self.is_shared() {
            true => postgres::lock_names(self).await,
            false => Ok(()),
        }
    }

    /// Until the commit no other node starts or ends. SQLite has one.
    pub(super) async fn lock_nodes(&self) -> Sql<()> {
        if self.is_shared() {
            self.run("lock table nodes in exclusive mode", &[]).await?;
        }
        Ok(())
    }

    /// The statement that creates the default groups. Each database makes random ids its own way.
    pub(super) fn default_groups(&self) -> &'static str {
        match self.is_shared() {
            true => postgres::DEFAULT_GROUPS,
            false => sqlite::DEFAULT_GROUPS,
        }
    }

    /// Deletes all rows of these tables and of the tables that refer to them. PostgreSQL truncates,
    /// since deleting millions of rows takes it minutes.
    pub(super) async fn empty(&self, tables: &[&str]) -> Sql<()> {
        if self.is_shared() {
            let truncate = format!("truncate {} cascade", tables.join(", "));
            return self.run(&truncate, &[]).await;
        }
        for table in tables {
            self.run(&format!("delete from {table}"), &[]).await?;
        }
        Ok(())
    }

    /// Sets the words by which a message is found; without any, it no longer is.
    pub(super) async fn index(&self, id: MessageId, words: Option<&Indexed>) -> Sql<()> {
        match (self.is_shared(), words) {
            (true, words) => postgres::index(self, id, words).await,
            (false, Some(words)) => {
                let sql = "insert or replace into message_words (rowid, words) values ($1, $2)";
                self.run(sql, &[&id, &words.spaced()]).await
            }
            (false, None) => {
                let sql = "delete from message_words where rowid = $1";
                self.run(sql, &[&id]).await
            }
        }
    }

    /// The newest indexed messages from `since` to before another that have the words, newest first.
    pub(super) async fn found(
        &self,
        sought: &Sought,
        since: MessageId,
        before: MessageId,
        limit: usize,
    ) -> Sql<Vec<MessageId>> {
        if sought.is_empty() {
            let sql =
                "select id from messages where id >= $1 and id < $2 order by id desc limit $3";
            return self.all(sql, &[&since, &before, &limit]).await;
        }
        if self.is_shared() {
            return postgres::found(self, sought, since, before, limit).await;
        }
        let sql = "select rowid from message_words
            where message_words match $1 and rowid >= $2 and rowid < $3
            order by rowid desc limit $4";
        let values = [&sought.fts5() as _, &since as _, &before as _, &limit as _];
        self.all(sql, &values).await
    }

    /// Adds a change to deliver after the commit.
    pub(super) fn push_change(&self, node: NodeId, change: Change) {
        self.changes.lock().push((node, change));
    }

    pub(super) fn changes(&self) -> usize {
        self.changes.lock().len()
    }

    /// Drops the changes of an undone operation.
    pub(super) fn undo_changes(&self, kept: usize) {
        self.changes.lock().truncate(kept);
    }

    pub(super) fn into_changes(self) -> Vec<(NodeId, Change)> {
        self.changes.into_inner()
    }
}

/// With more marks of which a message must have one, an index takes long: both compare each message that has one of
/// them with all.
const BROAD: usize = 16;

/// Whether an index takes long to find this.
pub(super) fn is_broad(sought: &Sought) -> bool {
    sought.breadth() > BROAD
}

/// A search text for PostgreSQL, which does not accept NUL. No name contains control characters.
pub(super) fn sought(text: &str) -> String {
    text.replace('\0', "\u{1}")
}

/// The end of the range of texts that begin with this one.
pub(super) fn end_of(beginning: &str) -> String {
    format!("{beginning}\u{10ffff}")
}

/// A duration in milliseconds.
pub(super) fn span(duration: Duration) -> i64 {
    Millis(0).after(duration).0
}

/// What a write locks before it begins: PostgreSQL locks the rooms of a whole batch in the order of
/// their ids, then its clients. Further locks of an operation are [held](Tx::hold).
#[derive(Clone, Default)]
pub(super) struct Locks {
    /// This client must be connected, and be this user's if one is given.
    pub(super) client: Option<(ClientRef, Option<UserId>)>,
    pub(super) rooms: Vec<RoomId>,
    /// The groups with these keys.
    pub(super) groups: Vec<String>,
    /// The rooms that these clients show.
    pub(super) rooms_of: Vec<ClientId>,
    /// The rooms shown by clients of these sessions' users.
    pub(super) rooms_of_sessions: Vec<TokenHash>,
    /// The rooms shown by clients of the users with these names.
    pub(super) rooms_of_users: Vec<String>,
}

impl Locks {
    pub(super) fn none() -> Self {
        Self::default()
    }

    pub(super) fn actor(by: Actor) -> Self {
        Self {
            client: Some((by.client, Some(by.user))),
            ..Self::default()
        }
    }

    pub(super) fn room(mut self, room: RoomId) -> Self {
        self.rooms.push(room);
        self
    }

    pub(super) fn rooms_of(clients: Vec<ClientId>) -> Self {
        Self {
            rooms_of: clients,
            ..Self::default()
        }
    }

    pub(super) fn sessions(sessions: impl IntoIterator<Item = TokenHash>) -> Self {
        Self {
            rooms_of_sessions: sessions.into_iter().collect(),
            ..Self::default()
        }
    }
}

pub(super) type Running<'a> = Pin<Box<dyn Future<Output = Sql<()>> + 'a>>;

/// An operation that waits for the writer, or for a reader of SQLite. It can be run again.
pub(super) trait Operation: Send {
    fn locks(&self) -> &Locks;
    /// Runs the operation and keeps its result for [`answer`](Self::answer).
    fn run<'a>(&'a mut self, tx: &'a Tx<'_>) -> Running<'a>;
    /// Whether somebody waits for its result.
    fn is_awaited(&self) -> bool;
    /// Records an error that concerns this operation alone.
    fn fail(&mut self, error: StoreError);
    /// Sends the result to the caller: what the operation returned, or the failure of the whole batch.
    fn answer(self: Box<Self>, failure: Option<StoreError>);
}

/// An operation, its locks, and the caller who waits for its result.
pub(super) struct Waiting<F, T> {
    locks: Locks,
    operation: F,
    done: Result<T>,
    answer: oneshot::Sender<Result<T>>,
}

impl<F, T> Waiting<F, T> {
    pub(super) fn new(locks: Locks, operation: F, answer: oneshot::Sender<Result<T>>) -> Self {
        Self {
            locks,
            operation,
            done: Err(StoreError::Closed),
            answer,
        }
    }
}

impl<F, T> Operation for Waiting<F, T>
where
    F: AsyncFn(&Tx<'_>) -> Sql<T> + Send,
    T: Send,
{
    fn locks(&self) -> &Locks {
        &self.locks
    }

    fn run<'a>(&'a mut self, tx: &'a Tx<'_>) -> Running<'a> {
        Box::pin(async move {
            self.done = Ok((self.operation)(tx).await?);
            Ok(())
        })
    }

    fn is_awaited(&self) -> bool {
        !self.answer.is_closed()
    }

    fn fail(&mut self, error: StoreError) {
        self.done = Err(error);
    }

    fn answer(self: Box<Self>, failure: Option<StoreError>) {
        // The caller may have gone; what is committed stays.
        let _ = self.answer.send(failure.map_or(self.done, Err));
    }
}
