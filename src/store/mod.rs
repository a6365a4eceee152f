//! Where everything is kept: one type with a method for each act, each act one transaction.
//!
//! An act stands once, in the file of its topic: its method, its answer, and the function over `Tx`
//! that does it with one SQL text for both databases. The drivers know connections, commits and
//! locks, and no act. What a person may run into (no such room, a key already known) is a value; a
//! [`StoreError`] is a failure of ours. Nothing here knows HTML, sockets or who listens.

mod accounts;
mod messages;
mod moderation;
pub mod moving;
mod people;
mod postgres;
mod rooms;
mod sqlite;
mod tx;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::model::{ClientRef, Message, NodeId, UserId, Version};

pub use accounts::{NewSession, Session, SignedIn};
pub use messages::{Amend, Amended, CatchUp, OwnReaction, Post, Posted, React, Reacted};
pub use people::{Arrival, Arrived, Left, Renamed};
pub use rooms::{Entered, Moved};
use tx::{Locks, Sql, Tx, Waiting, Write};

/// What the name of a group that is for moderators alone begins with, and no other's.
pub const RESTRICTED: &str = "!";
/// How long an untouched user keeps the token of the person who was them last.
pub const FREE_AFTER: Duration = Duration::from_secs(10 * 60);
/// How long a resume token is good after its socket was last here, or last turned away as banned.
pub const TOKEN_GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a session is good after it was last seen.
pub const SESSION_GOOD_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a link that makes a moderator is good.
pub const ADMIN_LINK_GOOD_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a node's clients stay connected without it renewing its lease.
pub const LEASE: Duration = Duration::from_secs(15);

/// How many committed changes may wait for the node's delivery before the writer waits for it.
const CHANGES_WAITING: usize = 4096;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another server has this store open, which may not be.
    #[error("another server is running on {0}")]
    InUse(String),
    /// The address is not one of a store.
    #[error("{0}")]
    Address(String),
    /// The store has shut down.
    #[error("the store is closed")]
    Closed,
    /// The client that an act was for has left or was taken over, so nothing is done. It is no
    /// answer of each act, since every caller does the same: it hangs up.
    #[error("this client has left")]
    Gone,
    /// The file that was opened is no longer where it was.
    #[error("{0} was deleted or replaced; what is stored now will be lost")]
    Missing(PathBuf),
    /// The store was made by a newer program than this.
    #[error("the store is at schema version {found}, this program knows up to {known}")]
    TooNew {
        /// The version it is at.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The database refused or failed.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    fn failed(words: &'static str) -> Self {
        Self::Database(words.into())
    }
}

/// The result of an act.
pub type Result<T> = std::result::Result<T, StoreError>;

/// One stored step of a room: a message was made or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The version it brought the room to.
    pub version: Version,
    /// The message as it is at that version.
    pub message: Message,
    /// The two people of a private room.
    pub between: Option<[UserId; 2]>,
    /// The reaction that was added or removed, if the change is one.
    pub reaction: Option<OwnReaction>,
}

type Changes = Vec<(NodeId, Change)>;
type Listeners = Arc<Mutex<HashMap<NodeId, mpsc::Sender<Change>>>>;

/// How much a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Users, used or not.
    pub users: u64,
    /// Private rooms.
    pub private_rooms: u64,
    /// Messages.
    pub messages: u64,
}

/// The store of one process. Each act is done and durable when it returns, or not done at all. An act
/// for a client is done if the client is connected at that moment, and else fails as
/// [`StoreError::Gone`].
pub struct Store {
    driver: Driver,
    writer: Mutex<Option<mpsc::UnboundedSender<Box<dyn Write>>>>,
    listeners: Listeners,
    /// The nodes that work by this store.
    nodes: Mutex<HashSet<NodeId>>,
    faults: Option<Arc<dyn Faults>>,
}

enum Driver {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// What interferes with the acts, in tests of how the chat bears it. An act is named like its method.
#[async_trait]
pub trait Faults: Send + Sync {
    /// Before the act begins, which it does not after an error.
    async fn before(&self, act: &'static str) -> Result<()>;
    /// After the act, whose answer is lost in an error.
    async fn after(&self, act: &'static str) -> Result<()>;
}

/// How much a commit must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Synchronous {
    /// A power cut: each commit waits for the disk.
    Full,
    /// A crash of the program; a power cut may take the last commits back.
    Normal,
}

/// Who else may have the store open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No other server, if the store is a file: a second one is refused. A PostgreSQL database is
    /// shared by as many as there are.
    Server,
    /// Beside a server that may be running.
    Beside,
}

/// Where a store is. A password in it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl From<&str> for Address {
    fn from(address: &str) -> Self {
        Self(address.to_owned())
    }
}

impl Address {
    /// All of it, for [`open`].
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
        // Up to the last @, since whoever forgets to encode one in a password forgets it there.
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

/// Whether there is a store at an address already. A PostgreSQL database tells when it is opened.
pub fn is_there(address: &str) -> Result<bool> {
    Ok(is_postgres(address) || sqlite_path(address)?.exists())
}

/// Opens the store at an address (`overwire.db`, `sqlite:/var/lib/overwire.db`,
/// `postgres://user@host/overwire`), making and migrating it where needed.
pub async fn open(address: &str, synchronous: Synchronous, access: Access) -> Result<Arc<Store>> {
    Store::open(address, synchronous, access)
        .await
        .map(Arc::new)
}

impl Store {
    async fn open(address: &str, synchronous: Synchronous, access: Access) -> Result<Self> {
        let (writer, writes) = mpsc::unbounded_channel();
        let listeners = Listeners::default();
        let hears = Arc::clone(&listeners);
        let driver = match is_postgres(address) {
            true => Driver::Postgres(
                postgres::Postgres::open(address, synchronous, access, writes, hears).await?,
            ),
            false => Driver::Sqlite({
                let path = sqlite_path(address)?;
                sqlite::Sqlite::open(path, synchronous, access, writes, hears).await?
            }),
        };
        Ok(Self {
            driver,
            writer: Mutex::new(Some(writer)),
            listeners,
            nodes: Mutex::default(),
            faults: None,
        })
    }

    /// The same store, with whose acts something interferes.
    #[must_use]
    pub fn with_faults(self: Arc<Self>, faults: Arc<dyn Faults>) -> Option<Arc<Self>> {
        let store = Arc::into_inner(self)?;
        Some(Arc::new(Self {
            faults: Some(faults),
            ..store
        }))
    }

    /// The name by which this store is told from all others, the same for all nodes of a database and
    /// for as long as it exists. A file, which has no other nodes, has another one each time it is opened.
    pub async fn identity(&self) -> Result<String> {
        match &self.driver {
            Driver::Sqlite(sqlite) => Ok(sqlite.identity()),
            Driver::Postgres(postgres) => postgres.identity().await,
        }
    }

    /// A node begins to work on the store. Returns the one stream of the changes that its own acts make,
    /// in the order in which they are committed.
    pub async fn join(&self, node: NodeId) -> Result<mpsc::Receiver<Change>> {
        self.renew_lease(node).await?;
        let (sender, changes) = mpsc::channel(CHANGES_WAITING);
        self.listeners.lock().insert(node, sender);
        Ok(changes)
    }

    /// How much there is.
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
                Driver::Sqlite(sqlite) => sqlite.read(false, count).await,
                Driver::Postgres(postgres) => postgres.at_length(count).await,
            }
        })
        .await
    }

    /// Deletes everybody and everything said; the default groups begin anew. Refused as
    /// [in use](StoreError::InUse) while another server's node holds a lease.
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
            tx.empty(&["messages", "rooms", "clients", "sessions", "users"])
                .await?;
            tx.run(tx.default_groups(), &[]).await.map(|_| ())
        };
        match &self.driver {
            Driver::Sqlite(_) => self.write("reset", Locks::none(), reset).await,
            Driver::Postgres(postgres) => self.interfered("reset", postgres.at_length(reset)).await,
        }
    }

    /// Succeeds if the store can read and write, and is still where it was opened.
    pub async fn check(&self) -> Result<()> {
        match &self.driver {
            Driver::Sqlite(sqlite) => sqlite.check().await?,
            Driver::Postgres(postgres) => postgres.check().await?,
        }
        self.write("check", Locks::none(), async |_| Ok(())).await
    }

    /// Finishes what was begun and closes. Later acts return [`StoreError::Closed`].
    pub async fn close(&self) {
        let nodes = self.own_nodes();
        if !nodes.is_empty() {
            // Otherwise their leases run out.
            let end = async move |tx: &Tx<'_>| people::end_nodes(tx, &nodes).await;
            match self.write("close", Locks::none(), end).await {
                Ok(_) | Err(StoreError::Closed) => {}
                Err(error) => tracing::warn!(%error, "could not end the nodes' leases"),
            }
        }
        self.writer.lock().take();
        match &self.driver {
            Driver::Sqlite(sqlite) => sqlite.close().await,
            Driver::Postgres(postgres) => postgres.close().await,
        }
        self.listeners.lock().clear();
    }

    /// Runs an act in the writer's next transaction and returns after its commit.
    async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        locks: Locks,
        act: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        self.interfered(name, async {
            let (sender, answer) = oneshot::channel();
            let waiting: Box<dyn Write> = Box::new(Waiting::new(locks, act, sender));
            {
                let writer = self.writer.lock();
                let writer = writer.as_ref().ok_or(StoreError::Closed)?;
                writer.send(waiting).map_err(|_| StoreError::Closed)?;
            }
            answer.await.map_err(|_| StoreError::Closed)?
        })
        .await
    }

    /// Runs one statement.
    async fn ask<T: Send + 'static>(
        &self,
        name: &'static str,
        act: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        self.read_in(false, name, act).await
    }

    /// Runs several statements in one snapshot.
    async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        act: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        self.read_in(true, name, act).await
    }

    async fn read_in<T: Send + 'static>(
        &self,
        snapshot: bool,
        name: &'static str,
        act: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        self.interfered(name, async {
            match &self.driver {
                Driver::Sqlite(sqlite) => sqlite.read(snapshot, act).await,
                Driver::Postgres(postgres) => postgres.read(snapshot, act).await,
            }
        })
        .await
    }

    async fn interfered<T>(
        &self,
        name: &'static str,
        act: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(faults) = &self.faults else {
            return act.await;
        };
        faults.before(name).await?;
        let done = act.await;
        faults.after(name).await.and(done)
    }

    fn works_by_this(&self, node: NodeId) {
        self.nodes.lock().insert(node);
    }

    fn own_nodes(&self) -> Vec<i64> {
        self.nodes.lock().iter().map(|node| node.0).collect()
    }
}

/// Runs a write if its client is connected.
async fn run_if_connected(tx: &Tx<'_>, write: &mut dyn Write) -> Sql<()> {
    if let Some((ClientRef { client, visit }, user)) = write.locks().client {
        let owner = "select user_id from clients where id = $1 and visit = $2 and left_at is null";
        let owner: Option<UserId> = tx.one(owner, &[&client, &visit]).await?;
        if owner.is_none() || user.is_some() && owner != user {
            return Err(StoreError::Gone.into());
        }
    }
    write.run(tx).await
}

fn fail_all(batch: Vec<Box<dyn Write>>, error: StoreError) {
    let error = Arc::new(error);
    for write in batch {
        write.answer(Some(StoreError::Database(Arc::clone(&error).into())));
    }
}

/// Whether several servers may work on the store at an address.
#[must_use]
pub fn may_be_shared(address: &str) -> bool {
    is_postgres(address)
}

fn is_postgres(address: &str) -> bool {
    address.starts_with("postgres://") || address.starts_with("postgresql://")
}

/// The file that an address names.
fn sqlite_path(address: &str) -> Result<PathBuf> {
    let path = match address.split_once(':') {
        Some(("sqlite", path)) => path.strip_prefix("//").unwrap_or(path),
        // A single letter before the colon is a drive.
        Some((scheme, _)) if scheme.len() > 1 && !scheme.contains(['/', '.', '\\']) => {
            return Err(StoreError::Address(format!(
                "“{scheme}:” is not a kind of database known here; give a file, such as \
                 overwire.db or sqlite:/var/lib/overwire.db, or a PostgreSQL database, such as \
                 postgres://user@host/overwire"
            )));
        }
        _ => address,
    };
    // As PostgreSQL's own programs take it, with a password in it that is no part of a file's name.
    let keys = [
        "host=",
        "hostaddr=",
        "port=",
        "user=",
        "password=",
        "dbname=",
    ];
    if keys.iter().any(|key| path.trim_start().starts_with(key)) {
        return Err(StoreError::Address(
            "a PostgreSQL database is given as postgres://user:password@host:5432/name".to_owned(),
        ));
    }
    if path.is_empty() {
        return Err(StoreError::Address(
            "the database's file has no name".to_owned(),
        ));
    }
    // SQLite would open it, and give each of our connections a memory of its own.
    if path == ":memory:" {
        return Err(StoreError::Address(
            "the chat needs a file and cannot be kept in memory; give one, such as overwire.db"
                .to_owned(),
        ));
    }
    Ok(PathBuf::from(path))
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
            let mut told = format!("{error:?}");
            while let Some(source) = error.source() {
                told += &format!("; {error}");
                error = source;
            }
            assert!(!told.contains("sec") && !told.contains("ret"), "{told}");
        }
    }
}
