//! The database: one type with a method for each operation, each a transaction.
//!
//! An operation is in the file of its topic: its method, its result, and the function over `Tx` that
//! runs it, with one SQL text for both databases. The drivers know connections, commits and locks, and
//! no operations. Nothing here knows HTML, sockets or subscribers.

mod accounts;
pub mod backup;
pub mod checking;
mod files;
mod filling;
mod mentions;
mod messages;
mod moderation;
pub mod moving;
mod notifications;
mod pages;
mod people;
mod postgres;
mod rooms;
mod search;
mod sqlite;
mod tx;
mod users;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::log::{Chain, Dependency};
use crate::metrics::METRICS;
use crate::model::{ClientRef, Message, NodeId, Page, UserId, Version};
use crate::unchanged::Unchanged;

pub use accounts::{NewSession, Session, SignedIn};
pub use files::StoredFile;
pub use filling::{Member, NewRoom, OldMessage};
pub use mentions::Mentions;
pub use messages::{CatchUp, OwnReaction, Post, Posted};
pub use pages::{Own, Shown, Wanted};
pub use people::{Arrival, Arrived, Left, Renamed, Resume};
pub use rooms::Moved;
pub use search::Unindexed;
use tx::{Locks, Operation, Sql, Tx, Waiting};

/// The prefix of the names of restricted groups.
pub const RESTRICTED: &str = "!";
/// How long an unused user stays reserved for the resume token of the last person.
pub const FREE_AFTER: Duration = Duration::from_secs(10 * 60);
/// How long a resume token is valid after its socket closed, or was last turned away as banned.
pub const TOKEN_GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a session is valid after its last use.
pub const SESSION_GOOD_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a link that makes a moderator is valid.
pub const ADMIN_LINK_GOOD_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a link to choose a new password is valid.
pub const PASSWORD_LINK_GOOD_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a node's clients stay connected without a renewal of its lease.
pub const LEASE: Duration = Duration::from_secs(15);

/// How many committed changes may wait for the node's delivery. Above that, the writer waits.
const CHANGES_WAITING: usize = 4096;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another server has this store open, or a program that changes all of it, which is not allowed.
    #[error("another server is running on {0}, or a program that needs it to itself")]
    InUse(String),
    /// The address is not the address of a store.
    #[error("{0}")]
    Address(String),
    /// The file belongs to another program.
    #[error("{0} is not a database of Overwire; use --database to name another file")]
    Foreign(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// The client of the operation has left or was taken over, so nothing was done. It is an error and
    /// not a result of each operation, since every caller does the same: it closes the socket.
    #[error("this client has left")]
    Gone,
    /// The person may not do that, so nothing was done. It is an error for the same reason: every caller
    /// shows them why.
    #[error("refused: {0:?}")]
    Refused(Refused),
    /// The file that was opened was moved, replaced or deleted.
    #[error("{0} was deleted or replaced; new data will be lost")]
    Missing(PathBuf),
    /// The store was created by a newer version of this program.
    #[error(
        "the database has schema version {found}, but this build supports versions up to {known}"
    )]
    TooNew {
        /// The schema version of the store.
        found: i64,
        /// The newest schema version that this program knows.
        known: i64,
    },
    /// The store was created by an older version of this program, and this operation migrates nothing.
    #[error(
        "the database has schema version {found}, but this build needs version {known}; start this \
         build's server on it once to migrate it"
    )]
    TooOld {
        /// The schema version of the store.
        found: i64,
        /// The schema version that this program knows.
        known: i64,
    },
    /// The database cannot be reached, or cannot do anything at the moment, whatever it is asked.
    #[error("the database is not available")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The database reported an error.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    fn failed(reason: &'static str) -> Self {
        Self::Database(reason.into())
    }

    fn unavailable(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(reason.into().into())
    }
}

/// Whether an error is a sign of an outage of the database, which the store has logged.
pub fn is_outage(error: &(dyn std::error::Error + 'static)) -> bool {
    match error.downcast_ref() {
        Some(StoreError::Unavailable(_) | StoreError::Missing(_)) => true,
        _ => error.source().is_some_and(is_outage),
    }
}

/// Why an operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such room, or they cannot see it.
    NoSuchRoom,
    /// A private room with oneself.
    Oneself,
    /// There is no such message in that room, or they cannot see it.
    NoSuchMessage,
    /// Somebody else wrote the message, and they are not a moderator or want to change its text.
    NotYours,
    /// The message is deleted.
    Deleted,
    /// The message would have neither text nor files.
    Empty,
    /// There is no such file of theirs that waits for a message of that room.
    NoSuchFile,
    /// The message already has [`Reaction::EMOJIS`](crate::model::Reaction::EMOJIS) other emojis.
    TooManyEmojis,
    /// Only the creator of a group and moderators may do that.
    NotMaker,
    /// Somebody else has that name, or one that looks like it.
    NameTaken,
    /// They are muted.
    Muted,
}

/// Somebody who does something, by a client of theirs.
#[derive(Clone, Copy, Debug)]
pub struct Actor {
    /// The node that delivers the changes.
    pub node: NodeId,
    /// The client.
    pub client: ClientRef,
    /// The person.
    pub user: UserId,
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// One stored change of a room: a message was created or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The room's version after the change.
    pub version: Version,
    /// The message at that version.
    pub message: Message,
    /// The two people of a private room.
    pub between: Option<[UserId; 2]>,
    /// The reaction that was added or removed, if the change is one.
    pub reaction: Option<OwnReaction>,
    /// Whom the message mentions since this change, and not before.
    pub mentions: Mentions,
}

type Changes = Vec<(NodeId, Change)>;
type Writes = mpsc::UnboundedReceiver<Box<dyn Operation>>;
type Listeners = Arc<Mutex<HashMap<NodeId, mpsc::Sender<Change>>>>;

/// How much a store contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Users, including unused ones.
    pub users: u64,
    /// Private rooms.
    pub private_rooms: u64,
    /// Messages.
    pub messages: u64,
}

/// The store of one process. When an operation returns, it is either done and durable, or not done at
/// all. An operation for a client succeeds only if the client is connected at that moment, and
/// otherwise fails with [`StoreError::Gone`].
pub struct Store {
    driver: Driver,
    writer: Mutex<Option<mpsc::UnboundedSender<Box<dyn Operation>>>>,
    listeners: Listeners,
    /// The nodes that have joined through this store.
    nodes: Mutex<HashSet<NodeId>>,
    faults: Option<Arc<dyn Faults>>,
    /// Whether the database works.
    database: Arc<Dependency>,
    searches: Semaphore,
    /// The newest pages of rooms.
    newest: Arc<Newest>,
}

/// The newest pages of rooms, as they were last read.
type Newest = Unchanged<Arc<Page>>;

/// How much memory they take at most, in bytes.
const NEWEST_BYTES: u64 = 4 * 1024 * 1024;

/// The parts of a database that work or fail on their own: a full disk can be read, and a deleted file
/// even written.
const READING: u8 = 1;
const WRITING: u8 = 2;
const FILE: u8 = 4;
/// After a failure, it takes this long until a success means that the database works again: some
/// connections of a pool may still be broken, or some tables locked.
const SETTLES: Duration = Duration::from_secs(1);

enum Driver {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// How much a read does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// One short statement.
    Statement,
    /// Several short statements in one snapshot.
    Short,
    /// Statements in one snapshot that may take so long that no other read should wait for them.
    Long,
}

/// What a driver is opened with.
struct Opening {
    synchronous: Synchronous,
    access: Access,
    writes: Writes,
    listeners: Listeners,
}

/// Interferes with operations, to test how the chat handles failures. An operation is named like its
/// method.
#[async_trait]
pub trait Faults: Send + Sync {
    /// Runs before the operation. After an error, the operation does not run.
    async fn before(&self, operation: &'static str) -> Result<()>;
    /// Runs after the operation. An error replaces its result.
    async fn after(&self, operation: &'static str) -> Result<()>;
}

/// How much a commit must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Synchronous {
    /// A power failure: each commit waits for the disk.
    Full,
    /// A crash of the program. A power failure may lose the last commits.
    Normal,
}

/// Who else may have the store open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No other server, if the store is a file: a second one is refused. Any number of servers may
    /// share a PostgreSQL database.
    Server,
    /// A server may be running too.
    Beside,
}

/// The address of a store. A password in it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl From<&str> for Address {
    fn from(address: &str) -> Self {
        Self(address.to_owned())
    }
}

impl Address {
    /// The whole address, for [`open`].
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) if is_postgres(&self.0) => (scheme, rest),
            _ => return f.write_str(&self.0),
        };
        // Up to the last @: if the password contains an unencoded @, it is hidden too.
        let (user, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        let user = user.split_once(':').map_or(user, |(user, _)| user);
        let at = if user.is_empty() { "" } else { "@" };
        let place = place.split_once('?').map_or(place, |(place, _)| place);
        write!(f, "{scheme}://{user}{at}{place}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Whether there is a store at a file address. For a PostgreSQL database, opening it tells.
pub fn is_there(address: &str) -> Result<bool> {
    Ok(is_postgres(address) || sqlite_path(address)?.exists())
}

/// Opens the store at an address (`overwire.db`, `sqlite:/var/lib/overwire.db`,
/// `postgres://user@host/overwire`), and creates and migrates it if needed.
pub async fn open(address: &str, synchronous: Synchronous, access: Access) -> Result<Arc<Store>> {
    Store::open(address, synchronous, access)
        .await
        .map(Arc::new)
}

impl Store {
    async fn open(address: &str, synchronous: Synchronous, access: Access) -> Result<Self> {
        let (writer, writes) = mpsc::unbounded_channel();
        let listeners = Listeners::default();
        let opening = Opening {
            synchronous,
            access,
            writes,
            listeners: Arc::clone(&listeners),
        };
        let driver = match is_postgres(address) {
            true => Driver::Postgres(postgres::Postgres::open(address, opening).await?),
            false => Driver::Sqlite(sqlite::Sqlite::open(sqlite_path(address)?, opening).await?),
        };
        Ok(Self {
            driver,
            writer: Mutex::new(Some(writer)),
            listeners,
            nodes: Mutex::default(),
            faults: None,
            database: Arc::new(Dependency::new("the database", 0)),
            searches: Semaphore::new(search::SEARCHES),
            newest: Arc::new(Newest::new(NEWEST_BYTES)),
        })
    }

    /// The same store, with interference.
    #[must_use]
    pub fn with_faults(self: Arc<Self>, faults: Arc<dyn Faults>) -> Option<Arc<Self>> {
        let store = Arc::into_inner(self)?;
        Some(Arc::new(Self {
            faults: Some(faults),
            ..store
        }))
    }

    /// The identity of this store. For a database it is the same on all nodes for as long as it exists.
    /// A file has no other nodes, so it gets a new identity each time it is opened.
    pub async fn identity(&self) -> Result<String> {
        match &self.driver {
            Driver::Sqlite(sqlite) => Ok(sqlite.identity()),
            Driver::Postgres(postgres) => postgres.identity().await,
        }
    }

    /// Adds a node to the store. Returns the stream of the changes that its own operations make, in the
    /// order of their commits.
    pub async fn join(&self, node: NodeId) -> Result<mpsc::Receiver<Change>> {
        self.renew_lease(node).await?;
        let (sender, changes) = mpsc::channel(CHANGES_WAITING);
        self.listeners.lock().insert(node, sender);
        Ok(changes)
    }

    /// How much the store contains.
    pub async fn census(&self) -> Result<Census> {
        let count = async |tx: &Tx<'_>| {
            let counts = "select (select count(*) from users),
                (select count(*) from rooms where kind = 'private'),
                (select count(*) from messages)";
            let (users, private_rooms, messages) = tx.the(counts, &[]).await?;
            Ok(Census {
                users,
                private_rooms,
                messages,
            })
        };
        self.interfered("census", async {
            match &self.driver {
                Driver::Sqlite(sqlite) => sqlite.read(Extent::Long, count).await,
                Driver::Postgres(postgres) => postgres.at_length(count).await,
            }
        })
        .await
    }

    /// Deletes all people and messages and creates the default groups again. Refused as [in
    /// use](StoreError::InUse) while another server's node holds a lease.
    pub async fn reset(&self) -> Result<()> {
        let nodes = self.own_nodes();
        let reset = async move |tx: &Tx<'_>| {
            tx.lock_nodes().await?;
            let others = format!(
                "select exists (select 1 from nodes where lease_until >= millis() and not id {})",
                tx.among(1)
            );
            if tx.the(&others, &[&nodes]).await? {
                return Err(StoreError::InUse("this database".to_owned()).into());
            }
            files::delete_all(tx).await?;
            let tables = [
                "message_words",
                "messages",
                "rooms",
                "clients",
                "sessions",
                "users",
            ];
            tx.empty(&tables).await?;
            tx.run(tx.default_groups(), &[]).await
        };
        match &self.driver {
            Driver::Sqlite(_) => self.write("reset", Locks::none(), reset).await,
            Driver::Postgres(postgres) => self.interfered("reset", postgres.at_length(reset)).await,
        }
    }

    /// Succeeds if the store can read and write, and the file is still the one that was opened.
    pub async fn check(&self) -> Result<()> {
        let checked = match &self.driver {
            Driver::Sqlite(sqlite) => sqlite.check().await,
            Driver::Postgres(postgres) => postgres.check().await,
        };
        self.note(READING | FILE, checked)?;
        self.write("check", Locks::none(), async |tx| match tx.is_shared() {
            // Each transaction writes the writer's row.
            true => Ok(()),
            // A full disk refuses this, although nothing changes.
            false => {
                tx.run("update rooms set version = version where position = 1", &[])
                    .await
            }
        })
        .await
    }

    /// Finishes operations under way and closes. Later operations return [`StoreError::Closed`].
    pub async fn close(&self) {
        let nodes = self.own_nodes();
        if !nodes.is_empty() {
            // Otherwise their leases expire by themselves.
            let end = async move |tx: &Tx<'_>| people::end_nodes(tx, &nodes).await;
            match self.write("close", Locks::none(), end).await {
                Ok(_) | Err(StoreError::Closed) => {}
                Err(error) => {
                    tracing::warn!("could not end the nodes' leases: {}", Chain(&error));
                }
            }
        }
        self.writer.lock().take();
        match &self.driver {
            Driver::Sqlite(sqlite) => sqlite.close().await,
            Driver::Postgres(postgres) => postgres.close().await,
        }
        self.listeners.lock().clear();
    }

    /// Runs an operation in the writer's next transaction and returns after its commit.
    async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        locks: Locks,
        operation: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        let writing = self.interfered(name, async {
            let (sender, answer) = oneshot::channel();
            let waiting: Box<dyn Operation> = Box::new(Waiting::new(locks, operation, sender));
            {
                let writer = self.writer.lock();
                let writer = writer.as_ref().ok_or(StoreError::Closed)?;
                writer.send(waiting).map_err(|_| StoreError::Closed)?;
            }
            answer.await.map_err(|_| StoreError::Closed)?
        });
        // What can be written can be read.
        self.note(READING | WRITING, writing.await)
    }

    /// Runs one statement, which takes little time.
    async fn ask<T: Send + 'static>(
        &self,
        name: &'static str,
        operation: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        self.read_in(Extent::Statement, name, operation).await
    }

    /// Runs several statements in one snapshot. They take little time.
    async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        operation: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        self.read_in(Extent::Short, name, operation).await
    }

    /// Runs several statements in one snapshot. They may take long, and no other read waits for them.
    async fn read_at_length<T: Send + 'static>(
        &self,
        name: &'static str,
        operation: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        self.read_in(Extent::Long, name, operation).await
    }

    async fn read_in<T: Send + 'static>(
        &self,
        extent: Extent,
        name: &'static str,
        operation: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        let began = Instant::now();
        let reading = self.interfered(name, async {
            match &self.driver {
                Driver::Sqlite(sqlite) => sqlite.read(extent, operation).await,
                Driver::Postgres(postgres) => postgres.read(extent, operation).await,
            }
        });
        let read = reading.await;
        METRICS.read_seconds.observe(began.elapsed().as_secs_f64());
        self.note(READING, read)
    }

    async fn interfered<T>(
        &self,
        name: &'static str,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(faults) = &self.faults else {
            return operation.await;
        };
        faults.before(name).await?;
        let done = operation.await;
        faults.after(name).await.and(done)
    }

    /// Takes note of the result of an operation that needs these parts of the database.
    fn note<T>(&self, parts: u8, done: Result<T>) -> Result<T> {
        let failed = match &done {
            Ok(_) | Err(StoreError::Gone | StoreError::Refused(_)) => {
                self.database.works(parts);
                return done;
            }
            Err(StoreError::Unavailable(error)) => {
                // The last of the parts is what the operation was for.
                let part = if parts & WRITING == 0 {
                    READING
                } else {
                    WRITING
                };
                self.database.failed(part, SETTLES, &**error);
                true
            }
            Err(error @ StoreError::Missing(_)) => {
                self.database.failed(FILE, Duration::ZERO, error);
                true
            }
            Err(error) => matches!(error, StoreError::Database(_)),
        };
        if failed {
            let operation = if parts & WRITING == 0 {
                "read"
            } else {
                "write"
            };
            METRICS.store_failures.with_label_values(&[operation]).inc();
        }
        done
    }

    fn works_by_this(&self, node: NodeId) {
        self.nodes.lock().insert(node);
    }

    fn own_nodes(&self) -> Vec<i64> {
        self.nodes.lock().iter().map(|node| node.0).collect()
    }
}

/// Runs a write if its client is connected.
async fn run_if_connected(tx: &Tx<'_>, write: &mut dyn Operation) -> Sql<()> {
    if let Some((ClientRef { client, visit }, user)) = write.locks().client {
        let owner = "select user_id from clients where id = $1 and visit = $2 and left_at is null";
        let owner: Option<UserId> = tx.one(owner, &[&client, &visit]).await?;
        if owner.is_none() || user.is_some() && owner != user {
            return Err(StoreError::Gone.into());
        }
    }
    write.run(tx).await
}

fn fail_all(batch: Vec<Box<dyn Operation>>, error: StoreError) {
    if let StoreError::Unavailable(error) = error {
        for operation in batch {
            operation.answer(Some(StoreError::Unavailable(Arc::clone(&error))));
        }
        return;
    }
    let error = Arc::new(error);
    for operation in batch {
        operation.answer(Some(StoreError::Database(Arc::clone(&error).into())));
    }
}

/// The file of a store, if it is one.
#[must_use]
pub fn file_of(address: &str) -> Option<PathBuf> {
    match is_postgres(address) {
        true => None,
        false => sqlite_path(address).ok(),
    }
}

/// Whether several servers may share the store at an address.
#[must_use]
pub fn may_be_shared(address: &str) -> bool {
    is_postgres(address)
}

fn is_postgres(address: &str) -> bool {
    address.starts_with("postgres://") || address.starts_with("postgresql://")
}

/// The file of an address.
fn sqlite_path(address: &str) -> Result<PathBuf> {
    let path = match address.split_once(':') {
        Some(("sqlite", path)) => path.strip_prefix("//").unwrap_or(path),
        // A single letter before the colon is a drive.
        Some((scheme, _)) if scheme.len() > 1 && !scheme.contains(['/', '.', '\\']) => {
            return Err(StoreError::Address(format!(
                "“{scheme}:” is not a supported kind of database; name a file, such as \
                 overwire.db or sqlite:/var/lib/overwire.db, or a PostgreSQL database, such as \
                 postgres://user@host/overwire"
            )));
        }
        _ => address,
    };
    // PostgreSQL's own programs accept this form, and it may contain a password, so it must not become
    // a file name.
    let key = path.trim_start().split_once('=').map(|(key, _)| key);
    let wrong = match (key, path) {
        (Some("host" | "hostaddr" | "port" | "user" | "password" | "dbname"), _) => {
            "write the address of a PostgreSQL database as postgres://user:password@host:5432/name"
        }
        (_, "") => "the name of the database file is missing",
        // SQLite would open it, but every connection would get its own empty database.
        (_, ":memory:") => "the database cannot be in memory; name a file, such as overwire.db",
        _ => return Ok(PathBuf::from(path)),
    };
    Err(StoreError::Address(wrong.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_file_or_says_what_is_wrong() {
        #[track_caller]
        fn check(address: &str, expected: Option<&str>) {
            assert_eq!(
                sqlite_path(address).ok(),
                expected.map(PathBuf::from),
                "{address}"
            );
        }
        check("overwire.db", Some("overwire.db"));
        check("/tmp/a:b.db", Some("/tmp/a:b.db"));
        check("sqlite:a.db", Some("a.db"));
        check("sqlite:///tmp/a.db", Some("/tmp/a.db"));
        check("sqlite:", None);
        check("", None);
        check(":memory:", None);
        check("sqlite::memory:", None);
        check("sqlite://:memory:", None);
        check("mysql://localhost/chat", None);
        check("host=localhost password=secret dbname=chat", None);
        check("postgres:localhost/chat", None);
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        #[track_caller]
        fn check(address: &str, expected: &str) {
            let address = Address::from(address);
            assert_eq!(address.to_string(), expected);
            assert_eq!(format!("{address:?}"), format!("Address({expected})"));
        }
        check("overwire.db", "overwire.db");
        check("sqlite:/tmp/a@b.db?c", "sqlite:/tmp/a@b.db?c");
        check("postgres://localhost/chat", "postgres://localhost/chat");
        check(
            "postgres://me@host:5433/chat",
            "postgres://me@host:5433/chat",
        );
        check("postgres://me:secret@host/chat", "postgres://me@host/chat");
        check(
            "postgresql://me:se@cr:e/t@host/chat",
            "postgresql://me@host/chat",
        );
        check(
            "postgres://host/chat?password=secret",
            "postgres://host/chat",
        );
        check("postgres://:secret@host/chat", "postgres://host/chat");
    }

    #[tokio::test]
    async fn no_failure_to_open_tells_the_password() {
        for address in [
            "postgres://me:secret@127.0.0.1:1/chat",
            "postgres://me:sec?ret=secret@127.0.0.1:1/chat",
            "postgres://me:sec/ret@127.0.0.1:1/secret",
            "postgres://me@127.0.0.1:1/chat?password=secret&port=secret",
            "postgresql://secret:secret@secret:secret",
        ] {
            let opened = open(address, Synchronous::Full, Access::Server).await;
            let mut error: &dyn std::error::Error = &opened.err().unwrap();
            let mut shown = format!("{error:?}");
            while let Some(source) = error.source() {
                shown += &format!("; {error}");
                error = source;
            }
            assert!(!shown.contains("sec") && !shown.contains("ret"), "{shown}");
        }
    }
}
