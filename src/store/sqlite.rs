//! The store in one SQLite file: one writer thread, a pool of readers, a thread for checkpoints.
//!
//! The writer takes whatever is waiting and commits it in one transaction, so that many writes
//! share one wait for the disk; each write has a savepoint of its own, so that one's failure
//! undoes no other's. Answers and changes go out after the commit.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, named_params, params};
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

use super::{
    Access, Amend, Amended, Arrival, Arrived, Begun, CatchUp, Census, Change, Entered, FREE_AFTER,
    LEASE, Left, Moved, NewSession, OwnReaction, Post, Posted, React, Reacted, Renamed, Result,
    Returning, SESSION_GOOD_FOR, Session, Store, StoreError, Synchronous, TOKEN_GOOD_FOR,
};
use crate::model::{
    Author, Busy, ClientId, DisplayName, Emoji, GroupName, History, Message, MessageId,
    MessageText, Millis, NewUser, NodeId, Page, PasswordHash, Person, Reaction, Room, RoomId,
    RoomKind, SessionId, Target, TokenHash, User, UserId, Version,
};
use crate::moderation::{
    DeedRecord, FoundMessages, GroupRecord, Moderated, Moderation, PersonRecord, Search, Standing,
};
use crate::protocol::PAGE_MESSAGES;

mod moderation;

use moderation::{may_moderate, may_write};

const MIGRATIONS: [&str; 8] = [
    concat!(
        include_str!("migrations/sqlite/0001_chat.sql"),
        include_str!("migrations/sqlite/default_groups.sql"),
    ),
    include_str!("migrations/sqlite/0002_rooms.sql"),
    include_str!("migrations/sqlite/0003_amend.sql"),
    include_str!("migrations/sqlite/0004_lobby.sql"),
    include_str!("migrations/sqlite/0005_names.sql"),
    include_str!("migrations/sqlite/0006_reactions.sql"),
    include_str!("migrations/sqlite/0007_accounts.sql"),
    include_str!("migrations/sqlite/0008_moderation.sql"),
];
/// The version that the tables come to.
pub(super) const NEWEST: i64 = MIGRATIONS.len() as i64;
const DEFAULT_GROUPS: &str = include_str!("migrations/sqlite/default_groups.sql");

/// How many writes share one transaction at most.
const GROUP_COMMIT: usize = 512;
/// How many committed changes may wait for the node's delivery before the writer waits for it.
const CHANGES_WAITING: usize = 4096;
/// How many readers, and so reads at one time.
const READERS: u32 = 4;
/// How long SQLite waits for another process's lock.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the write-ahead log is looked at.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// From this size on, in bytes, the write-ahead log is copied into the database.
const WAL_WORTH_COPYING: u64 = 4 * 1024 * 1024;
/// From this size on, in bytes, writers wait until the write-ahead log begins anew.
const WAL_BOUND: u64 = 64 * 1024 * 1024;
/// For so long after a start those who left at most so long before keep what they are called.
const COMING_BACK: Duration = Duration::from_secs(60);
/// How many rows one round of clearing up takes at most, of each kind.
const EXPIRE_AT_ONCE: u32 = 500;
/// Unread messages are counted up to this many.
const UNREAD_AT_MOST: u32 = 100;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<r2d2::Error> for StoreError {
    fn from(error: r2d2::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The store in one SQLite file.
pub struct SqliteStore {
    identity: Uuid,
    opened: Arc<Opened>,
    writer: Mutex<Option<mpsc::UnboundedSender<Write>>>,
    /// The writer and the checkpoints; each gives its connection back when it ends.
    threads: Mutex<Vec<std::thread::JoinHandle<Connection>>>,
    /// Until the store is closed.
    readers: Mutex<Option<Readers>>,
    reading: Arc<Semaphore>,
    listeners: Listeners,
    /// Held as long as the store is open, where it is a server's.
    lock: Mutex<Option<File>>,
}

/// Where the file is, and which one it is: its device and its number there.
struct Opened {
    path: PathBuf,
    file: (u64, u64),
}

type Readers = r2d2::Pool<SqliteConnectionManager>;
type Listeners = Arc<Mutex<HashMap<NodeId, mpsc::Sender<Change>>>>;

/// A write that waits for the writer: what it does inside the transaction gives what is to be
/// said once the fate of the transaction is known.
type Write = Box<dyn FnOnce(&mut Writing<'_>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Option<StoreError>) + Send>;

/// What a write works on.
struct Writing<'a> {
    db: &'a Connection,
    changes: &'a mut Vec<(NodeId, Change)>,
    history: History,
    /// When the store was opened.
    began: Millis,
}

impl SqliteStore {
    /// Opens the file, making and migrating it where needed. A server's store is locked by a file
    /// beside the database (`overwire.db.lock`), and everybody a former server held is gone. A path
    /// through links is as good as the file's own.
    pub async fn open(path: &Path, synchronous: Synchronous, access: Access) -> Result<Self> {
        let path = path.to_owned();
        let opening = tokio::task::spawn_blocking(move || open(&path, synchronous, access));
        opening.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs a write in the writer's next transaction and answers after its commit.
    async fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Writing<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        let write: Write = Box::new(move |writing| {
            let done = savepoint(writing, act);
            Box::new(move |failure| {
                let done = match failure {
                    None => done.map_err(StoreError::from),
                    Some(failure) => Err(failure),
                };
                // Whoever asked may have gone; what is committed stays.
                let _ = sender.send(done);
            })
        });
        self.send(write)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// The same for a client, if it stands, and for its user.
    async fn write_for<T: Send + 'static>(
        &self,
        client: Returning,
        user: UserId,
        act: impl FnOnce(&mut Writing<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = self.write(move |writing| match whose(writing.db, client)? {
            Some(owner) if owner == user => act(writing).map(Some),
            _ => Ok(None),
        });
        done.await?.ok_or(StoreError::Gone)
    }

    fn send(&self, write: Write) -> Result<()> {
        let writer = self.writer.lock();
        let writer = writer.as_ref().ok_or(StoreError::Closed)?;
        writer.send(write).map_err(|_| StoreError::Closed)
    }

    /// Runs reads in one snapshot.
    async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        // No more blocking threads than readers: the rest wait here, which costs nothing.
        let reading = Arc::clone(&self.reading);
        let permit = reading
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)?;
        let readers = self.readers.lock().clone().ok_or(StoreError::Closed)?;
        let reading = tokio::task::spawn_blocking(move || {
            // Given back after the connection and the hold on the pool, for `close` waits for it.
            let _permit = permit;
            let readers = readers;
            let mut db = readers.get()?;
            let snapshot = db.transaction()?;
            let found = act(&snapshot)?;
            snapshot.commit()?;
            Ok(found)
        });
        reading.await.map_err(|_| StoreError::Closed)?
    }
}

fn open(path: &Path, synchronous: Synchronous, access: Access) -> Result<SqliteStore> {
    let path = &real_path(path)?;
    let Access::Server = access else {
        return open_file(path, synchronous, access);
    };
    let (lock, is_new) = lock(path)?;
    match open_file(path, synchronous, access) {
        Ok(store) => Ok(SqliteStore {
            lock: Mutex::new(Some(lock)),
            ..store
        }),
        Err(error) => {
            if is_new {
                // While it is held, so that a lock somebody else has taken never goes.
                let _ = std::fs::remove_file(lock_of(path));
            }
            Err(error)
        }
    }
}

fn open_file(path: &Path, synchronous: Synchronous, access: Access) -> Result<SqliteStore> {
    let mut db = Connection::open(path)?;
    #[cfg(test)]
    tests::note_statements(&db);
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(
        None,
        "synchronous",
        match synchronous {
            Synchronous::Full => "full",
            Synchronous::Normal => "normal",
        },
    )?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.set_prepared_statement_cache_capacity(64);
    migrate(&mut db)?;
    let began = Millis::now();
    if access == Access::Server {
        begin(&mut db, began)?;
        // Checkpoints are the other thread's, so that no commit waits for one.
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
    }

    let opened = Opened {
        path: path.to_owned(),
        file: file_at(path)?,
    };

    let manager = SqliteConnectionManager::file(path)
        .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(|db| {
            #[cfg(test)]
            tests::note_statements(db);
            db.busy_timeout(BUSY_TIMEOUT)?;
            db.set_prepared_statement_cache_capacity(64);
            Ok(())
        });
    let readers = r2d2::Pool::builder()
        .max_size(READERS)
        .test_on_check_out(false)
        .build(manager)?;

    let history = History::random();
    let listeners = Listeners::default();
    let (writer, writes) = mpsc::unbounded_channel();
    let mut threads = Vec::new();
    threads.push(
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn({
                let listeners = Arc::clone(&listeners);
                move || {
                    write_all(&db, writes, &listeners, (history, began));
                    db
                }
            })?,
    );
    if access == Access::Server {
        let (path, writer) = (path.to_owned(), writer.downgrade());
        let checkpoints = Connection::open(&path)?;
        checkpoints.busy_timeout(BUSY_TIMEOUT)?;
        threads.push(
            std::thread::Builder::new()
                .name("checkpoints".to_owned())
                .spawn(move || {
                    while writer.strong_count() > 0 {
                        let wal = wal_of(&path);
                        let done = checkpoint(&checkpoints, &wal, WAL_WORTH_COPYING, WAL_BOUND);
                        if let Err(error) = done {
                            tracing::warn!(%error, "could not copy the write-ahead log");
                        }
                        std::thread::park_timeout(CHECKPOINT_EVERY);
                    }
                    checkpoints
                })?,
        );
    }
    Ok(SqliteStore {
        identity: Uuid::new_v4(),
        opened: Arc::new(opened),
        writer: Mutex::new(Some(writer)),
        threads: Mutex::new(threads),
        readers: Mutex::new(Some(readers)),
        reading: Arc::new(Semaphore::new(READERS as usize)),
        listeners,
        lock: Mutex::default(),
    })
}

/// Which file is at a path.
pub(super) fn file_at(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Opened {
    /// Whether the file that was opened is there still.
    fn is_kept(&self) -> bool {
        file_at(&self.path).is_ok_and(|file| file == self.file)
    }
}

/// The file that a path leads to, through whatever links; it need not be there yet. SQLite follows
/// links as well, so the lock and the write-ahead log are to be found there and nowhere else.
pub(super) fn real_path(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    loop {
        match path.canonicalize() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.canonicalize()?,
            _ => Path::new(".").canonicalize()?,
        };
        let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
        let to_be_made = folder.join(name);
        match std::fs::read_link(&to_be_made) {
            Ok(target) => path = folder.join(target),
            Err(_) => return Ok(to_be_made),
        }
    }
}

/// The path with something after its name.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn wal_of(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

pub(super) fn lock_of(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

/// Takes the advisory lock of a server, and says whether its file is new. The system lets go of it
/// when the process ends, however it ends.
pub(super) fn lock(path: &Path) -> Result<(File, bool)> {
    let place = lock_of(path);
    loop {
        let (file, is_new) = match File::create_new(&place) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let there = OpenOptions::new()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(&place)?;
                (there, false)
            }
            Err(error) => return Err(error.into()),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse(path.display().to_string()));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // A start that failed may have taken it away meanwhile, which leaves a lock of nothing.
        let locked = file.metadata()?;
        if file_at(&place).is_ok_and(|there| there == (locked.dev(), locked.ino())) {
            return Ok((file, is_new));
        }
    }
}

pub(super) fn migrate(db: &mut Connection) -> Result<()> {
    let known = NEWEST;
    // Two programs may open a new file at the same moment: the lock comes before the look.
    let migration = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = migration.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for sql in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        migration.execute_batch(sql)?;
    }
    migration.pragma_update(None, "user_version", known)?;
    migration.commit()?;
    Ok(())
}

/// A server starts: whoever a former one held is gone.
fn begin(db: &mut Connection, now: Millis) -> Result<()> {
    let beginning = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    beginning.execute(
        "update clients set left_at = ? where left_at is null",
        [now.0],
    )?;
    beginning.execute("delete from clients_active", [])?;
    beginning.execute("delete from nodes", [])?;
    beginning.execute(
        "update users set gone_at = ? where free = 0 and traced_at is null and gone_at is null",
        [now.0],
    )?;
    beginning.commit()?;
    Ok(())
}

/// The writer's life: whatever waits becomes one transaction.
fn write_all(
    db: &Connection,
    mut writes: mpsc::UnboundedReceiver<Write>,
    listeners: &Listeners,
    since: (History, Millis),
) {
    let mut batch = Vec::new();
    while writes.blocking_recv_many(&mut batch, GROUP_COMMIT) > 0 {
        let mut changes = Vec::new();
        let mut answers = Vec::new();
        let committed = commit(db, batch.drain(..), &mut answers, &mut changes, since);
        match committed {
            Ok(()) => {
                for (node, change) in changes {
                    let listener = listeners.lock().get(&node).cloned();
                    if let Some(listener) = listener {
                        // A node that has stopped listening has nobody to show it to.
                        let _ = listener.blocking_send(change);
                    }
                }
                answers.into_iter().for_each(|answer| answer(None));
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    answer(Some(StoreError::Database(Arc::clone(&error).into())));
                }
            }
        }
    }
    if let Err(error) = db.execute_batch("pragma wal_checkpoint(truncate)") {
        tracing::warn!(%error, "could not copy the write-ahead log");
    }
}

fn commit(
    db: &Connection,
    batch: impl Iterator<Item = Write>,
    answers: &mut Vec<Answer>,
    changes: &mut Vec<(NodeId, Change)>,
    (history, began): (History, Millis),
) -> rusqlite::Result<()> {
    // When beginning fails, the writes still run into "no transaction" below, so that each of
    // them gets its answer; none of them can leave anything behind.
    let begun = db.execute_batch("begin immediate");
    for write in batch {
        answers.push(write(&mut Writing {
            db,
            changes,
            history,
            began,
        }));
    }
    begun?;
    let committed = db.execute_batch("commit");
    if committed.is_err() && !db.is_autocommit() {
        db.execute_batch("rollback")?;
    }
    committed
}

/// Runs one write so that its failure undoes it alone.
fn savepoint<T>(
    writing: &mut Writing<'_>,
    act: impl FnOnce(&mut Writing<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let db = writing.db;
    if db.is_autocommit() {
        // The transaction never began, or a full disk has ended it.
        return Err(rusqlite::Error::InvalidQuery);
    }
    let before = writing.changes.len();
    db.prepare_cached("savepoint act")?.execute([])?;
    let done = act(writing);
    if done.is_err() {
        writing.changes.truncate(before);
        if !db.is_autocommit() {
            db.prepare_cached("rollback to act")?.execute([])?;
        }
    }
    if !db.is_autocommit() {
        db.prepare_cached("release act")?.execute([])?;
    }
    done
}

/// Copies a write-ahead log of some size into the database while writing goes on; one that has
/// outgrown its bound makes the writer wait until it begins anew.
fn checkpoint(db: &Connection, wal: &Path, worth_copying: u64, bound: u64) -> rusqlite::Result<()> {
    let size = || std::fs::metadata(wal).map_or(0, |wal| wal.len());
    if size() >= worth_copying {
        db.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(()))?;
    }
    if size() >= bound {
        db.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
    }
    Ok(())
}

const MESSAGE: &str = "
    m.id, m.room_id, m.user_id, u.name, m.author_name,
    case when m.deleted_at is null then m.text else '' end, m.key, m.made, m.changed,
    m.created_at, m.edited_at is not null, m.deleted_at is not null, m.worded,
    case when m.deleted_at is null then m.reactions end, m.deleted_by is not null
    from messages m join users u on u.id = m.user_id";

fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let key: Option<String> = row.get(6)?;
    let reactions: Option<String> = row.get(13)?;
    Ok(Message {
        id: MessageId(row.get(0)?),
        room: RoomId(row.get(1)?),
        author: Author {
            id: UserId(row.get(2)?),
            user_name: row.get(3)?,
            name: row.get(4)?,
        },
        text: row.get(5)?,
        key: key.and_then(|key| Uuid::try_parse(&key).ok()),
        made: row.get(7)?,
        changed: row.get(8)?,
        created_at: Millis(row.get(9)?),
        edited: row.get(10)?,
        deleted: row.get(11)?,
        worded: row.get(12)?,
        reactions: reactions.as_deref().map(reactions_in).unwrap_or_default(),
        by_moderator: row.get(14)?,
    })
}

/// The reactions as a message's row has them. What cannot be read is left out.
fn reactions_in(json: &str) -> Vec<Reaction> {
    let rows: Vec<(String, u64, Vec<String>)> = serde_json::from_str(json).unwrap_or_default();
    let reaction = |(emoji, count, names): (String, u64, Vec<String>)| {
        let emoji = Emoji::new(&emoji)?;
        Some(Reaction {
            emoji,
            count,
            names,
        })
    };
    rows.into_iter().filter_map(reaction).collect()
}

fn reactions_json(reactions: &[Reaction]) -> Option<String> {
    let row = |reaction: &Reaction| {
        serde_json::json!([reaction.emoji.as_str(), reaction.count, reaction.names])
    };
    let rows: Vec<_> = reactions.iter().map(row).collect();
    (!rows.is_empty()).then(|| serde_json::Value::from(rows).to_string())
}

/// The columns that [`user`] reads.
const USER: &str = "u.id, u.name, u.display_name";

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: UserId(row.get(0)?),
        name: row.get(1)?,
        display_name: row.get(2)?,
    })
}

/// Either of the [looks](DisplayName::looks_of) of a user name, as the index has it.
const LOOK: &str =
    "replace(replace(replace(replace(u.name, 'm', 'rn'), '0', 'o'), '1', 'l'), 'i', 'l')";

/// Whose client it is, if it stands.
fn whose(db: &Connection, client: Returning) -> rusqlite::Result<Option<UserId>> {
    db.prepare_cached("select user_id from clients where id = ? and visit = ? and left_at is null")?
        .query_one(params![client.client.0, client.visit], |row| {
            row.get(0).map(UserId)
        })
        .optional()
}

/// The newest messages before `before`, oldest first, and whether there are older ones still.
fn page(db: &Connection, room: RoomId, before: i64) -> rusqlite::Result<Page> {
    let (version, private) = version(db, room)?;
    let mut messages = db
        .prepare_cached(&format!(
            "select {MESSAGE} where m.room_id = ? and m.id < ? order by m.id desc limit ?"
        ))?
        .query_map(params![room.0, before, PAGE_MESSAGES as i64 + 1], message)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let older = messages.len() > PAGE_MESSAGES;
    messages.truncate(PAGE_MESSAGES);
    messages.reverse();
    Ok(Page {
        version,
        private,
        messages,
        older,
    })
}

/// A room's version, and whether it is a private room.
fn version(db: &Connection, room: RoomId) -> rusqlite::Result<(Version, bool)> {
    db.prepare_cached("select history, version, kind = 'private' from rooms where id = ?")?
        .query_one([room.0], |row| {
            Ok((
                Version {
                    room,
                    history: History(row.get(0)?),
                    number: row.get(1)?,
                },
                row.get(2)?,
            ))
        })
}

/// Whether `after` is a version this room has been at: its history is one of the room's, and the
/// number is one that this history reached. Everything begins with no change at all.
fn has_been(db: &Connection, after: Version) -> rusqlite::Result<bool> {
    if after.number == 0 {
        return Ok(true);
    }
    db.prepare_cached(
        "select exists (
            select 1 from room_histories h
            where h.room_id = :room and h.history = :history and h.first_version <= :number
            and :number < coalesce(
                (select min(n.first_version) from room_histories n
                 where n.room_id = h.room_id and n.first_version > h.first_version),
                (select r.version + 1 from rooms r where r.id = h.room_id)))",
    )?
    .query_one(
        named_params! {
            ":room": after.room.0,
            ":history": after.history.0,
            ":number": after.number,
        },
        |row| row.get(0),
    )
}

fn catch_up(db: &Connection, room: RoomId, after: Option<Version>) -> rusqlite::Result<CatchUp> {
    let Some(after) = after.filter(|after| after.room == room) else {
        return Ok(CatchUp::Newest(page(db, room, i64::MAX)?));
    };
    let (version, _) = version(db, room)?;
    if !has_been(db, after)? {
        return Ok(CatchUp::Newest(page(db, room, i64::MAX)?));
    }
    if after.number == version.number {
        return Ok(CatchUp::UpToDate);
    }
    let changed: usize = db
        .prepare_cached(
            "select count(*) from
             (select 1 from messages where room_id = ? and changed > ? limit ?)",
        )?
        .query_one(
            params![room.0, after.number, PAGE_MESSAGES as i64 + 1],
            |row| row.get(0),
        )?;
    if changed > PAGE_MESSAGES {
        return Ok(CatchUp::Newest(page(db, room, i64::MAX)?));
    }
    let messages = db
        .prepare_cached(&format!(
            "select {MESSAGE} where m.room_id = ? and m.changed > ? order by m.id"
        ))?
        .query_map(params![room.0, after.number], message)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(CatchUp::Changes {
        after,
        version,
        messages,
    })
}

/// A room as `me` sees it: nothing where they may not know of it.
fn room(db: &Connection, me: UserId, id: RoomId) -> rusqlite::Result<Option<Room>> {
    db.prepare_cached(&format!(
        "select {USER}, {SHOWN} from rooms r
         left join users u on u.id = case :me when r.user_low then r.user_high else r.user_low end
         where r.id = :id and (r.kind = 'group' and {SEEN} or :me in (r.user_low, r.user_high))"
    ))?
    .query_one(named_params! { ":me": me.0, ":id": id.0 }, |row| {
        let kind = match row.get(3)? {
            Some(name) => RoomKind::Group(name),
            None => RoomKind::Private { with: user(row)? },
        };
        Ok(Room { id, kind })
    })
    .optional()
}

/// Whether `:me` may know of a group `r`.
const SEEN: &str = "r.removed_at is null and (r.restricted_at is null
    or exists (select 1 from users me where me.id = :me and me.moderator_at is not null))";

/// The name of a group `r` as it is shown and found.
const SHOWN: &str = "case when r.restricted_at is null then r.name else '!' || r.name end";

/// The group of that name, if `me` may know of it, or anybody.
fn group(db: &Connection, me: Option<UserId>, name: &str) -> rusqlite::Result<Option<Room>> {
    db.prepare_cached(&format!(
        "select r.id, {SHOWN} from rooms r where r.name_key = :key and {SEEN}"
    ))?
    .query_one(
        named_params! { ":key": GroupName::key_of(name), ":me": me.map(|me| me.0) },
        group_row,
    )
    .optional()
}

fn group_row(row: &Row<'_>) -> rusqlite::Result<Room> {
    Ok(Room {
        id: RoomId(row.get(0)?),
        kind: RoomKind::Group(row.get(1)?),
    })
}

fn busy(row: &Row<'_>) -> rusqlite::Result<Busy> {
    Ok(Busy {
        group: group_row(row)?,
        people: row.get(2)?,
    })
}

/// The private room of two people, made if this is the first time anybody asks for it. While it
/// is open the other is kept from being handed out.
fn private_room(db: &Connection, me: UserId, with: User, now: Millis) -> rusqlite::Result<Room> {
    let (low, high) = (me.0.min(with.id.0), me.0.max(with.id.0));
    db.prepare_cached(
        "insert into rooms (id, kind, user_low, user_high, created_at)
         values (?, 'private', ?, ?, ?) on conflict (user_low, user_high) do nothing",
    )?
    .execute(params![RoomId::random().0, low, high, now.0])?;
    let id = db
        .prepare_cached("select id from rooms where user_low = ? and user_high = ?")?
        .query_one(params![low, high], |row| row.get(0))?;
    Ok(Room {
        id: RoomId(id),
        kind: RoomKind::Private { with },
    })
}

fn make_group(
    db: &Connection,
    maker: UserId,
    name: &GroupName,
    now: Millis,
) -> rusqlite::Result<bool> {
    if !may_write(db, maker)? {
        return Ok(false);
    }
    let made = db
        .prepare_cached(
            "insert into rooms (id, kind, name, name_key, created_at)
             values (?, 'group', ?, ?, ?) on conflict (name_key) do nothing",
        )?
        .execute(params![
            RoomId::random().0,
            name.as_str(),
            name.key(),
            now.0
        ])?;
    if made > 0 {
        trace(db, maker, now)?;
        db.prepare_cached(
            "insert into users_subscribed (user_id, room_id, since)
             select ?, id, ? from rooms where name_key = ?",
        )?
        .execute(params![maker.0, now.0, name.key()])?;
    }
    Ok(true)
}

/// From now on the user is never handed to somebody else.
fn trace(db: &Connection, user: UserId, now: Millis) -> rusqlite::Result<()> {
    db.prepare_cached(
        "update users set traced_at = ?, free = 0, gone_at = null
         where id = ? and traced_at is null",
    )?
    .execute(params![now.0, user.0])?;
    Ok(())
}

fn person(db: &Connection, name: &str) -> rusqlite::Result<Option<User>> {
    db.prepare_cached(&format!(
        "select {USER} from users u where u.name = ? and u.arrived_at is not null"
    ))?
    .query_one([name.to_lowercase()], user)
    .optional()
}

fn called(db: &Connection, name: &str) -> rusqlite::Result<Option<User>> {
    db.prepare_cached(&format!(
        "select {USER} from users u where u.display_key = ?"
    ))?
    .query_one([GroupName::key_of(name)], user)
    .optional()
}

fn user_of(db: &Connection, id: UserId) -> rusqlite::Result<User> {
    db.prepare_cached(&format!("select {USER} from users u where u.id = ?"))?
        .query_one([id.0], user)
}

/// What a user asks to be called, or as near to it as can be had.
fn rename(
    writing: &Writing<'_>,
    me: UserId,
    name: Option<&DisplayName>,
    namesakes: u32,
    now: Millis,
) -> rusqlite::Result<Renamed> {
    let db = writing.db;
    if !may_write(db, me)? {
        return Ok(Renamed::Muted);
    }
    let own = user_of(db, me)?;
    let Some(wish) = name.filter(|name| name.as_str() != own.name) else {
        call(db, me, None)?;
        return renamed(db, me, Vec::new());
    };
    for number in 1..=namesakes.max(1) {
        let name = match number {
            1 => wish.clone(),
            number => wish.numbered(number),
        };
        let Some(former) = free_to_be_called(writing, me, &name, now)? else {
            continue;
        };
        for user in &former {
            call(db, *user, None)?;
        }
        trace(db, me, now)?;
        call(db, me, Some(&name))?;
        return renamed(db, me, former);
    }
    Ok(Renamed::Taken)
}

/// Those who were called so, are not here any more and do not keep their name; `None` where the name is taken.
fn free_to_be_called(
    writing: &Writing<'_>,
    me: UserId,
    name: &DisplayName,
    now: Millis,
) -> rusqlite::Result<Option<Vec<UserId>>> {
    let db = writing.db;
    for run in name.runs() {
        for look in DisplayName::looks_of(run) {
            let is_user_name: bool = db
                .prepare_cached(&format!(
                    "select exists (select 1 from users u where {LOOK} = ? and u.id <> ?)"
                ))?
                .query_one(params![look, me.0], |row| row.get(0))?;
            if is_user_name {
                return Ok(None);
            }
        }
    }
    let [look, capitals] = name.looks();
    // Those whom a stop of the server has cut off are about to come back.
    let began = writing.began;
    let cut_off = match now < began.after(COMING_BACK) {
        true => (began.before(COMING_BACK), began),
        false => (now, began),
    };
    let mut former = Vec::new();
    for (column, look) in [("display_look", look), ("display_look_capitals", capitals)] {
        let holder: Option<(i64, bool)> = db
            .prepare_cached(&format!(
                "select u.id, u.kept_at is not null or exists (select 1 from clients c
                    where c.user_id = u.id and (c.left_at is null or c.left_at between ? and ?))
                 from users u where u.{column} = ? and u.id <> ?"
            ))?
            .query_one(params![cut_off.0.0, cut_off.1.0, look, me.0], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        match holder {
            Some((_, true)) => return Ok(None),
            Some((holder, false)) => former.push(UserId(holder)),
            None => {}
        }
    }
    former.dedup();
    Ok(Some(former))
}

/// What has come of it, and the private rooms that show it.
fn renamed(db: &Connection, me: UserId, former: Vec<UserId>) -> rusqlite::Result<Renamed> {
    let mut rooms = Vec::new();
    for user in former.iter().chain([&me]) {
        for end in ["user_low", "user_high"] {
            let open = db
                .prepare_cached(&format!(
                    "select r.id from rooms r where r.{end} = ?
                     and exists (select 1 from clients_active a where a.room_id = r.id)"
                ))?
                .query_map([user.0], |row| row.get(0).map(RoomId))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            rooms.extend(open);
        }
    }
    let user = user_of(db, me)?;
    Ok(Renamed::As {
        user,
        former,
        rooms,
    })
}

/// The user is called so from now on, or by the user name.
fn call(db: &Connection, user: UserId, name: Option<&DisplayName>) -> rusqlite::Result<()> {
    db.prepare_cached(
        "update users set display_name = ?, display_key = ?, display_look = ?,
            display_look_capitals = ?
         where id = ?",
    )?
    .execute(params![
        name.map(DisplayName::as_str),
        name.map(DisplayName::key),
        name.map(|name| name.looks()[0].clone()),
        name.map(|name| name.looks()[1].clone()),
        user.0
    ])?;
    Ok(())
}

/// Makes one user; `None` where the name or the e-mail address is taken, or somebody is called by a
/// name that begins so.
fn add_user(db: &Connection, new: &NewUser) -> rusqlite::Result<Option<UserId>> {
    let [look, _] = DisplayName::looks_of(&new.name);
    db.prepare_cached(
        "insert into users (name, email, shuffle) select ?, ?, random()
         where not exists (select 1 from users where display_look >= ? and display_look < ?)
         on conflict do nothing returning id",
    )?
    .query_one(
        [&new.name, &new.email, &look, &format!("{look}\u{10ffff}")],
        |row| row.get(0).map(UserId),
    )
    .optional()
}

/// A random user who is free: the next one from a random place of the shuffled order.
fn free_user(db: &Connection) -> rusqlite::Result<Option<UserId>> {
    db.prepare_cached(
        "select id from (
            select id from (select id from users
                where free = 1 and shuffle >= ? order by shuffle limit 1)
            union all
            select id from (select id from users where free = 1 order by shuffle limit 1))
         limit 1",
    )?
    .query_one([rand::random::<i64>()], |row| row.get(0).map(UserId))
    .optional()
}

/// The session of that token, if it is good.
fn session(db: &Connection, token: TokenHash, now: Millis) -> rusqlite::Result<Option<Session>> {
    db.prepare_cached(&format!(
        "select {USER}, s.id from sessions s join users u on u.id = s.user_id
         where s.token_hash = ? and s.seen_at > ? and u.banned_at is null"
    ))?
    .query_one(params![token.0, now.before(SESSION_GOOD_FOR).0], |row| {
        Ok(Session {
            id: SessionId(row.get(3)?),
            user: user(row)?,
        })
    })
    .optional()
}

/// Ends the session of that token; its clients go with it.
fn end_session(
    db: &Connection,
    token: TokenHash,
    now: Millis,
) -> rusqlite::Result<Option<Session>> {
    let ended = session(db, token, now)?;
    db.prepare_cached("delete from sessions where token_hash = ?")?
        .execute([token.0])?;
    Ok(ended)
}

fn begin_session(
    db: &Connection,
    user: UserId,
    new: NewSession,
    now: Millis,
) -> rusqlite::Result<Begun> {
    let former = match new.former {
        Some(former) => end_session(db, former, now)?,
        None => None,
    };
    let id = db
        .prepare_cached(
            "insert into sessions (user_id, token_hash, made_at, seen_at)
             values (:user, :token, :now, :now) returning id",
        )?
        .query_one(
            named_params! { ":user": user.0, ":token": new.token.0, ":now": now.0 },
            |row| row.get(0).map(SessionId),
        )?;
    let user = user_of(db, user)?;
    Ok(Begun {
        session: Session { id, user },
        former,
    })
}

fn keep_name(
    db: &Connection,
    token: TokenHash,
    password: &PasswordHash,
    new: NewSession,
    now: Millis,
) -> rusqlite::Result<Option<Begun>> {
    let guest = db
        .prepare_cached(
            "select id, user_id from clients where token_hash = ? and guest = 1
             and (left_at is null or left_at > ?)",
        )?
        .query_one(params![token.0, now.before(TOKEN_GOOD_FOR).0], |row| {
            Ok((row.get::<_, i64>(0)?, UserId(row.get(1)?)))
        })
        .optional()?;
    let Some((client, user)) = guest else {
        return Ok(None);
    };
    if moderation::standing(db, user)?.banned {
        return Ok(None);
    }
    trace(db, user, now)?;
    db.prepare_cached("update users set password_hash = ?, kept_at = ? where id = ?")?
        .execute(params![password.0, now.0, user.0])?;
    let begun = begin_session(db, user, new, now)?;
    // It stays, so that nobody has gone while the page is loaded anew; but no token leads to it.
    db.prepare_cached(
        "update clients set guest = 0, session_id = ?, token_hash = randomblob(32) where id = ?",
    )?
    .execute(params![begun.session.id.0, client])?;
    Ok(Some(begun))
}

/// Somebody who has not been here is from now on a moderator who keeps their name.
fn arrive_as_moderator(
    db: &Connection,
    link: TokenHash,
    spare: &NewUser,
    password: &PasswordHash,
    session: NewSession,
    now: Millis,
) -> rusqlite::Result<Option<Begun>> {
    if !moderation::is_admin_link(db, link, now)? {
        return Ok(None);
    }
    let user = match free_user(db)? {
        Some(user) => user,
        None => match add_user(db, spare)? {
            Some(user) => user,
            None => return Ok(None),
        },
    };
    hand_over(db, user, now)?;
    trace(db, user, now)?;
    db.prepare_cached("update users set password_hash = ?, kept_at = ? where id = ?")?
        .execute(params![password.0, now.0, user.0])?;
    moderation::become_moderator(db, link, user, now)?;
    begin_session(db, user, session, now).map(Some)
}

fn account(db: &Connection, name: &str) -> rusqlite::Result<Option<(User, PasswordHash)>> {
    for column in ["name", "display_key"] {
        let found = db
            .prepare_cached(&format!(
                "select {USER}, u.password_hash from users u
                 where u.{column} = ? and u.kept_at is not null and u.banned_at is null"
            ))?
            .query_one([name], |row| Ok((user(row)?, PasswordHash(row.get(3)?))))
            .optional()?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn change_password(
    db: &Connection,
    token: TokenHash,
    was: &PasswordHash,
    password: &PasswordHash,
    now: Millis,
) -> rusqlite::Result<Option<Session>> {
    let Some(session) = session(db, token, now)? else {
        return Ok(None);
    };
    let changed = db
        .prepare_cached("update users set password_hash = ? where id = ? and password_hash = ?")?
        .execute(params![password.0, session.user.id.0, was.0])?;
    if changed == 0 {
        return Ok(None);
    }
    db.prepare_cached("delete from sessions where user_id = ? and id <> ?")?
        .execute(params![session.user.id.0, session.id.0])?;
    Ok(Some(session))
}

/// What coming back to a client comes to.
enum Back {
    As(UserId),
    Banned,
    Overtaken,
}

fn come_back(
    db: &Connection,
    node: NodeId,
    returning: Returning,
    token: TokenHash,
    session: Option<SessionId>,
    now: Millis,
) -> rusqlite::Result<Back> {
    let user = db
        .prepare_cached(
            "update clients set visit = visit + 1, node_id = :node, left_at = null,
                arrived_at = case when left_at is null then arrived_at else :now end
             where id = :client and visit = :visit and token_hash = :token
                and session_id is :session and (left_at is null or left_at > :good)
             returning user_id",
        )?
        .query_one(
            named_params! {
                ":node": node.0,
                ":now": now.0,
                ":client": returning.client.0,
                ":visit": returning.visit,
                ":token": token.0,
                ":session": session.map(|session| session.0),
                ":good": now.before(TOKEN_GOOD_FOR).0,
            },
            |row| row.get(0).map(UserId),
        )
        .optional()?;
    let Some(user) = user else {
        return Ok(Back::Overtaken);
    };
    let banned = db
        .prepare_cached(
            "update users set free = 0, gone_at = null where id = ?
             returning banned_at is not null",
        )?
        .query_one([user.0], |row| row.get(0))?;
    if banned {
        // Not here, and known by that token for another while.
        db.prepare_cached("update clients set left_at = ? where id = ?")?
            .execute(params![now.0, returning.client.0])?;
        return Ok(Back::Banned);
    }
    Ok(Back::As(user))
}

fn arrive(db: &Connection, arrival: &Arrival, now: Millis) -> rusqlite::Result<Arrived> {
    renew_lease(db, arrival.node, now)?;
    let session = match arrival.session {
        Some(token) => session(db, token, now)?,
        None => None,
    };
    if let Some(Session { id, .. }) = &session {
        seen(db, *id, now)?;
    }
    let id = session.as_ref().map(|session| session.id);
    if let Some(returning) = arrival.resume {
        let back = come_back(db, arrival.node, returning, arrival.token, id, now)?;
        return Ok(match back {
            Back::As(user) => Arrived::As {
                client: Returning {
                    visit: returning.visit + 1,
                    ..returning
                },
                user: user_of(db, user)?,
                session: id,
            },
            Back::Banned => Arrived::Banned,
            Back::Overtaken => Arrived::Overtaken,
        });
    }
    if let Some(Session { id, user }) = session {
        return Ok(Arrived::As {
            client: new_client(db, arrival, user.id, Some(id), now)?,
            user,
            session: Some(id),
        });
    }
    let user = match free_user(db)? {
        Some(user) => user,
        None => {
            let Some(spare) = &arrival.spare else {
                return Ok(Arrived::NobodyFree);
            };
            match add_user(db, spare)? {
                Some(user) => user,
                None => return Ok(Arrived::NobodyFree),
            }
        }
    };
    hand_over(db, user, now)?;
    Ok(Arrived::As {
        client: new_client(db, arrival, user, None, now)?,
        user: user_of(db, user)?,
        session: None,
    })
}

/// Nothing of whoever was this user before is left: their token ends, and so do private rooms in
/// which nothing was said.
fn hand_over(db: &Connection, user: UserId, now: Millis) -> rusqlite::Result<()> {
    db.prepare_cached("delete from clients where user_id = ?")?
        .execute([user.0])?;
    db.prepare_cached("delete from rooms where version = 0 and user_low = ?")?
        .execute([user.0])?;
    db.prepare_cached("delete from rooms where version = 0 and user_high = ?")?
        .execute([user.0])?;
    db.prepare_cached(
        "update users set free = 0, gone_at = null, arrived_at = coalesce(arrived_at, ?)
         where id = ?",
    )?
    .execute(params![now.0, user.0])?;
    Ok(())
}

fn new_client(
    db: &Connection,
    arrival: &Arrival,
    user: UserId,
    session: Option<SessionId>,
    now: Millis,
) -> rusqlite::Result<Returning> {
    let client = db
        .prepare_cached(
            "insert into clients (user_id, guest, session_id, node_id, token_hash, arrived_at)
             values (:user, :session is null, :session, :node, :token, :now) returning id",
        )?
        .query_one(
            named_params! {
                ":user": user.0,
                ":session": session.map(|session| session.0),
                ":node": arrival.node.0,
                ":token": arrival.token.0,
                ":now": now.0,
            },
            |row| row.get(0),
        )?;
    Ok(Returning {
        client: ClientId(client),
        visit: 0,
    })
}

/// The session is good for another while.
fn seen(db: &Connection, session: SessionId, now: Millis) -> rusqlite::Result<()> {
    db.prepare_cached("update sessions set seen_at = ? where id = ?")?
        .execute(params![now.0, session.0])?;
    Ok(())
}

fn leave(db: &Connection, clients: &[Returning], now: Millis) -> rusqlite::Result<Vec<Left>> {
    let mut all = Vec::new();
    for client in clients {
        let Some(user) = whose(db, *client)? else {
            continue;
        };
        all.push(left(db, client.client, user, now)?);
        db.prepare_cached(
            "update sessions set seen_at = ?
             where id = (select session_id from clients where id = ?)",
        )?
        .execute(params![now.0, client.client.0])?;
    }
    Ok(all)
}

fn end(db: &Connection, node: NodeId, now: Millis) -> rusqlite::Result<Vec<Left>> {
    let clients = db
        .prepare_cached("select id, visit from clients where left_at is null and node_id = ?")?
        .query_map([node.0], |row| {
            Ok(Returning {
                client: ClientId(row.get(0)?),
                visit: row.get(1)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    db.prepare_cached("delete from nodes where id = ?")?
        .execute([node.0])?;
    leave(db, &clients, now)
}

/// The client is here no more.
fn left(db: &Connection, client: ClientId, user: UserId, now: Millis) -> rusqlite::Result<Left> {
    let room = go_out(db, client)?;
    db.prepare_cached("update clients set left_at = ? where id = ?")?
        .execute(params![now.0, client.0])?;
    db.prepare_cached(
        "update users set gone_at = ?
         where id = ? and traced_at is null and free = 0 and gone_at is null",
    )?
    .execute(params![now.0, user.0])?;
    let last = db
        .prepare_cached(
            "select not exists (select 1 from clients where user_id = ? and left_at is null)",
        )?
        .query_one([user.0], |row| row.get(0))?;
    Ok(Left {
        user: user_of(db, user)?,
        room,
        last,
    })
}

/// Whether any client of the user looks at the room.
fn is_looked_at(db: &Connection, room: RoomId, user: UserId) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "select exists (select 1 from clients_active where room_id = ? and user_id = ?)",
    )?
    .query_one(params![room.0, user.0], |row| row.get(0))
}

/// The client looks at no room any more. Answers with the room that it looked at, if no other of its
/// user's does.
fn go_out(db: &Connection, client: ClientId) -> rusqlite::Result<Option<RoomId>> {
    let former = db
        .prepare_cached(
            "delete from clients_active where client_id = ? returning room_id, user_id",
        )?
        .query_one([client.0], |row| {
            Ok((RoomId(row.get(0)?), UserId(row.get(1)?)))
        })
        .optional()?;
    match former {
        Some((room, user)) if !is_looked_at(db, room, user)? => Ok(Some(room)),
        _ => Ok(None),
    }
}

fn enter(
    db: &Connection,
    client: ClientId,
    me: UserId,
    target: &Target,
    now: Millis,
) -> rusqlite::Result<(Entered, Moved)> {
    let found = match target {
        Target::Group(name) => group(db, Some(me), name)?.map(Entered::Room),
        Target::Room(id) => room(db, me, *id)?.map(Entered::Room),
        Target::Private(name) => Some(private_room_with(db, me, name, now)?),
    };
    let room = match found {
        Some(Entered::Room(room)) => room,
        refused => return Ok((refused.unwrap_or(Entered::NoSuchRoom), Moved::default())),
    };
    if let RoomKind::Private { with } = &room.kind {
        keep(db, with.id, now)?;
    }
    let is_in_it: bool = db
        .prepare_cached(
            "select exists (select 1 from clients_active where client_id = ? and room_id = ?)",
        )?
        .query_one(params![client.0, room.id.0], |row| row.get(0))?;
    let mut moved = Moved::default();
    if !is_in_it {
        moved.left = go_out(db, client)?;
        moved.came = !is_looked_at(db, room.id, me)?;
        db.prepare_cached(
            "insert into clients_active (client_id, room_id, entered_at, user_id)
             values (?, ?, ?, ?)",
        )?
        .execute(params![client.0, room.id.0, now.0, me.0])?;
    }
    Ok((Entered::Room(room), moved))
}

/// Whoever somebody has a private room with is not handed to a newcomer.
fn keep(db: &Connection, user: UserId, now: Millis) -> rusqlite::Result<()> {
    db.prepare_cached("update users set free = 0, gone_at = ? where id = ? and free = 1")?
        .execute(params![now.0, user.0])?;
    Ok(())
}

fn private_room_with(
    db: &Connection,
    me: UserId,
    name: &str,
    now: Millis,
) -> rusqlite::Result<Entered> {
    let Some(with) = person(db, name)? else {
        return Ok(Entered::NoSuchRoom);
    };
    if with.id == me {
        return Ok(Entered::Oneself);
    }
    private_room(db, me, with, now).map(Entered::Room)
}

/// What stands under a key of that author.
fn known(db: &Connection, author: UserId, key: &str) -> rusqlite::Result<Option<Message>> {
    db.prepare_cached(&format!(
        "select {MESSAGE} where m.user_id = ? and m.key = ?"
    ))?
    .query_one(params![author.0, key], message)
    .optional()
}

fn post(writing: &mut Writing<'_>, post: &Post, now: Millis) -> rusqlite::Result<Posted> {
    let db = writing.db;
    let key = post.key.map(|key| key.to_string());
    if let Some(key) = &key
        && let Some(known) = known(db, post.author, key)?
    {
        // What has become of it in a room that is closed to its author is not theirs to know.
        return Ok(match room(db, post.author, known.room)? {
            Some(_) => Posted::Known(known),
            None => Posted::Settled,
        });
    }
    if !may_write(db, post.author)? {
        return Ok(Posted::Muted);
    }
    let Some(step) = step(writing, post.room, post.author)? else {
        return Ok(Posted::NoSuchRoom);
    };
    let id: i64 = db
        .prepare_cached(
            "insert into messages
                (room_id, user_id, author_name, text, key, made, changed, worded, created_at)
             select :room, id, coalesce(display_name, name), :text, :key, :made, :made, :made, :now
             from users where id = :author returning id",
        )?
        .query_one(
            named_params! {
                ":room": post.room.0,
                ":author": post.author.0,
                ":text": post.text.as_str(),
                ":key": key,
                ":made": step.version.number,
                ":now": now.0,
            },
            |row| row.get(0),
        )?;
    for user in step
        .between
        .as_ref()
        .map_or(std::slice::from_ref(&post.author), |both| both)
    {
        trace(db, *user, now)?;
        let with = step
            .between
            .and_then(|both| both.into_iter().find(|other| other != user));
        subscribe(db, *user, post, with, MessageId(id), now)?;
    }
    Ok(Posted::New(tell(writing, post.node, step, id, None)?))
}

/// A room's next version, and who is told beside those who look at it.
#[derive(Clone, Copy)]
struct Step {
    version: Version,
    between: Option<[UserId; 2]>,
}

/// Brings a room to its next version, if `by` belongs there.
fn step(writing: &Writing<'_>, room: RoomId, by: UserId) -> rusqlite::Result<Option<Step>> {
    let Writing { db, history, .. } = *writing;
    let stepped = db
        .prepare_cached(
            "update rooms set version = version + 1, history = :history
             where id = :room
             and (kind = 'group' and removed_at is null and (restricted_at is null
                    or exists (select 1 from users where id = :by and moderator_at is not null))
                or :by in (user_low, user_high))
             returning version, user_low, user_high",
        )?
        .query_one(
            named_params! { ":history": history.0, ":room": room.0, ":by": by.0 },
            |row| {
                let between = Option::zip(row.get(1)?, row.get(2)?);
                Ok(Step {
                    version: Version {
                        room,
                        history,
                        number: row.get(0)?,
                    },
                    between: between.map(|(low, high)| [UserId(low), UserId(high)]),
                })
            },
        )
        .optional()?;
    if let Some(step) = &stepped {
        db.prepare_cached(
            "insert into room_histories (room_id, first_version, history) values (?, ?, ?)
             on conflict do nothing",
        )?
        .execute(params![room.0, step.version.number, history.0])?;
    }
    Ok(stepped)
}

/// Puts a step on the stream of changes, with its message as it is now.
fn tell(
    writing: &mut Writing<'_>,
    node: NodeId,
    step: Step,
    id: i64,
    reaction: Option<OwnReaction>,
) -> rusqlite::Result<Message> {
    let message = writing
        .db
        .prepare_cached(&format!("select {MESSAGE} where m.id = ?"))?
        .query_one([id], message)?;
    let Step { version, between } = step;
    let change = Change {
        version,
        message: message.clone(),
        between,
        reaction,
    };
    writing.changes.push((node, change));
    Ok(message)
}

/// A message of that room, if `me` may know of it.
fn message_in(
    db: &Connection,
    me: UserId,
    in_room: RoomId,
    id: MessageId,
) -> rusqlite::Result<Option<Message>> {
    if room(db, me, in_room)?.is_none() {
        return Ok(None);
    }
    db.prepare_cached(&format!(
        "select {MESSAGE} where m.id = ? and m.room_id = ?"
    ))?
    .query_one(params![id.0, in_room.0], message)
    .optional()
}

fn amend(writing: &mut Writing<'_>, amend: &Amend, now: Millis) -> rusqlite::Result<Amended> {
    let db = writing.db;
    let new = amend.text.as_ref().map(MessageText::as_str);
    let Some(found) = message_in(db, amend.author, amend.room, amend.message)? else {
        return Ok(Amended::NoSuchMessage);
    };
    let own = found.author.id == amend.author;
    if !own && (new.is_some() || !may_moderate(db, amend.author, amend.room)?) {
        return Ok(Amended::NotYours);
    }
    match (found.deleted, new) {
        (true, Some(_)) => return Ok(Amended::Deleted),
        (true, None) => return Ok(Amended::Already(found)),
        (false, new) if new == Some(&found.text) => return Ok(Amended::Already(found)),
        (false, _) if !may_write(db, amend.author)? => return Ok(Amended::Muted),
        (false, _) => {}
    }
    let Some(step) = step(writing, amend.room, amend.author)? else {
        return Ok(Amended::NoSuchMessage);
    };
    db.prepare_cached(
        "update messages set changed = :changed, worded = :changed, text = coalesce(:new, text),
            edited_at = case when :new is null then edited_at else :now end,
            deleted_at = case when :new is null then :now end,
            deleted_by = case when user_id <> :by then :by end
         where id = :id",
    )?
    .execute(named_params! {
        ":changed": step.version.number,
        ":new": new,
        ":now": now.0,
        ":by": amend.author.0,
        ":id": found.id.0,
    })?;
    if !own {
        moderation::deleted(db, amend.author, &found, now)?;
    }
    if new.is_none() && step.between.is_some() {
        // What is no more is not to be read any more either.
        db.prepare_cached(
            "update users_subscribed as s set
                unread = (select count(*) from (
                    select 1 from messages m
                    where m.room_id = s.room_id and m.id > s.read_message_id
                    and m.user_id <> s.user_id and m.deleted_at is null limit :most))
             where room_id = :room and user_id <> :author and read_message_id < :id",
        )?
        .execute(named_params! {
            ":room": amend.room.0,
            ":author": amend.author.0,
            ":id": found.id.0,
            ":most": UNREAD_AT_MOST,
        })?;
    }
    let told = tell(writing, amend.node, step, found.id.0, None)?;
    Ok(Amended::Done(told))
}

fn react(writing: &mut Writing<'_>, react: &React, now: Millis) -> rusqlite::Result<Reacted> {
    let db = writing.db;
    let (user, id, emoji) = (react.user.0, react.message.0, react.emoji.as_str());
    let Some(mut found) = message_in(db, react.user, react.room, react.message)? else {
        return Ok(Reacted::NoSuchMessage);
    };
    if found.deleted {
        return Ok(Reacted::Deleted);
    }
    if !may_write(db, react.user)? {
        return Ok(Reacted::Muted);
    }
    let is_on: bool = db
        .prepare_cached(
            "select exists (select 1 from reactions
             where message_id = ? and emoji = ? and user_id = ?)",
        )?
        .query_one(params![id, emoji, user], |row| row.get(0))?;
    if is_on == react.on {
        return Ok(Reacted::Already);
    }
    let reactions = &mut found.reactions;
    let at = reactions.iter().position(|one| one.emoji == react.emoji);
    let at = match at {
        None if reactions.len() >= Reaction::EMOJIS => return Ok(Reacted::TooMany),
        None => {
            reactions.push(Reaction {
                emoji: react.emoji,
                count: 0,
                names: Vec::new(),
            });
            reactions.len() - 1
        }
        Some(at) => at,
    };
    let Some(step) = step(writing, react.room, react.user)? else {
        return Ok(Reacted::NoSuchMessage);
    };
    match react.on {
        true => {
            db.prepare_cached(
                "insert into reactions (message_id, room_id, user_id, emoji, name, created_at)
                 select :message, :room, id, :emoji, coalesce(display_name, name), :now
                 from users where id = :user",
            )?
            .execute(named_params! {
                ":message": id,
                ":room": react.room.0,
                ":emoji": emoji,
                ":now": now.0,
                ":user": user,
            })?;
            trace(db, react.user, now)?;
            reactions[at].count += 1;
        }
        false => {
            db.prepare_cached(
                "delete from reactions where message_id = ? and emoji = ? and user_id = ?",
            )?
            .execute(params![id, emoji, user])?;
            reactions[at].count = reactions[at].count.saturating_sub(1);
        }
    }
    reactions[at].names = db
        .prepare_cached(
            "select name from reactions where message_id = ? and emoji = ? order by id limit ?",
        )?
        .query_map(params![id, emoji, Reaction::NAMES as i64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    reactions.retain(|one| one.count > 0);
    db.prepare_cached("update messages set changed = ?, reactions = ? where id = ?")?
        .execute(params![step.version.number, reactions_json(reactions), id])?;
    let own = OwnReaction {
        user: react.user,
        emoji: react.emoji,
        on: react.on,
    };
    tell(writing, react.node, step, id, Some(own))?;
    Ok(Reacted::Done)
}

/// The user belongs to the room from now on; in a private room the message is unread for the
/// other and has been read by its author.
fn subscribe(
    db: &Connection,
    user: UserId,
    post: &Post,
    with: Option<UserId>,
    message: MessageId,
    now: Millis,
) -> rusqlite::Result<()> {
    if with.is_none() {
        db.prepare_cached(
            "insert into users_subscribed (user_id, room_id, since) values (?, ?, ?)
             on conflict do nothing",
        )?
        .execute(params![user.0, post.room.0, now.0])?;
        return Ok(());
    }
    let own = user == post.author;
    db.prepare_cached(
        "insert into users_subscribed
            (user_id, room_id, since, with_id, last_message_id, unread)
         values (:user, :room, :now, :with, :message, :unread)
         on conflict do update set
            last_message_id = excluded.last_message_id,
            unread = min(unread + excluded.unread, :most)",
    )?
    .execute(named_params! {
        ":user": user.0,
        ":room": post.room.0,
        ":now": now.0,
        ":with": with.map(|with| with.0),
        ":message": message.0,
        ":unread": i64::from(!own),
        ":most": UNREAD_AT_MOST,
    })?;
    Ok(())
}

fn mark_read(db: &Connection, user: UserId, room: RoomId, upto: MessageId) -> rusqlite::Result<()> {
    db.prepare_cached(
        "update users_subscribed as s set
            read_message_id = min(:upto, s.last_message_id),
            unread = (select count(*) from (
                select 1 from messages m where m.room_id = s.room_id and m.id > :upto
                and m.user_id <> s.user_id and m.deleted_at is null limit :most))
         where s.user_id = :user and s.room_id = :room and s.read_message_id < :upto",
    )?
    .execute(named_params! {
        ":upto": upto.0,
        ":user": user.0,
        ":room": room.0,
        ":most": UNREAD_AT_MOST,
    })?;
    Ok(())
}

fn is_anything_due(db: &Connection, node: NodeId, now: Millis) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "select exists (select 1 from nodes where lease_until < :now and id <> :node)
            or exists (select 1 from users where gone_at <= :gone)
            or exists (select 1 from clients where left_at < :left)
            or exists (select 1 from sessions where seen_at < :seen)",
    )?
    .query_one(
        named_params! {
            ":now": now.0,
            ":node": node.0,
            ":gone": now.before(FREE_AFTER).0,
            ":left": now.before(TOKEN_GOOD_FOR).0,
            ":seen": now.before(SESSION_GOOD_FOR).0,
        },
        |row| row.get(0),
    )
}

fn renew_lease(db: &Connection, node: NodeId, now: Millis) -> rusqlite::Result<()> {
    db.prepare_cached(
        "insert into nodes (id, lease_until) values (?, ?)
         on conflict (id) do update set lease_until = excluded.lease_until",
    )?
    .execute(params![node.0, now.after(LEASE).0])?;
    Ok(())
}

fn expire(db: &Connection, node: NodeId, now: Millis) -> rusqlite::Result<Vec<Left>> {
    let of_dead = named_params! { ":now": now.0, ":node": node.0 };
    let cut_off = db
        .prepare_cached(
            "select id, user_id from clients where left_at is null and node_id in
             (select id from nodes where lease_until < :now and id <> :node)",
        )?
        .query_map(of_dead, |row| {
            Ok((ClientId(row.get(0)?), UserId(row.get(1)?)))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut all = Vec::new();
    for (client, user) in cut_off {
        all.push(left(db, client, user, now)?);
    }
    db.execute(
        "delete from nodes where lease_until < :now and id <> :node",
        of_dead,
    )?;

    // Whoever somebody has a private room open with is looked at again later.
    let gone = db
        .prepare_cached("select id from users where gone_at <= ? order by gone_at limit ?")?
        .query_map(params![now.before(FREE_AFTER).0, EXPIRE_AT_ONCE], |row| {
            row.get(0)
        })?
        .collect::<rusqlite::Result<Vec<i64>>>()?;
    for user in gone {
        let wanted: bool = db
            .prepare_cached(
                "select exists (select 1 from rooms r join clients_active a on a.room_id = r.id
                    where r.user_low = :user)
                 or exists (select 1 from rooms r join clients_active a on a.room_id = r.id
                    where r.user_high = :user)",
            )?
            .query_one(named_params! { ":user": user }, |row| row.get(0))?;
        let free = if wanted { (0, Some(now.0)) } else { (1, None) };
        db.prepare_cached("update users set free = ?, gone_at = ? where id = ?")?
            .execute(params![free.0, free.1, user])?;
    }
    db.prepare_cached(
        "delete from clients where id in (select id from clients where left_at < ? limit ?)",
    )?
    .execute(params![now.before(TOKEN_GOOD_FOR).0, EXPIRE_AT_ONCE])?;

    // Who is here by a session shows it, however long ago they came.
    let unseen = named_params! {
        ":now": now.0, ":seen": now.before(SESSION_GOOD_FOR).0, ":most": EXPIRE_AT_ONCE,
    };
    db.prepare_cached(
        "update sessions set seen_at = :now where id in (
            select s.id from sessions s where s.seen_at < :seen and exists (
                select 1 from clients c where c.session_id = s.id and c.left_at is null)
            limit :most)",
    )?
    .execute(unseen)?;
    db.prepare_cached(
        "delete from sessions where id in (
            select s.id from sessions s where s.seen_at < :seen and not exists (
                select 1 from clients c where c.session_id = s.id and c.left_at is null)
            limit :most)",
    )?
    .execute(&unseen[1..])?;
    Ok(all)
}

#[async_trait]
impl Store for SqliteStore {
    async fn identity(&self) -> Result<String> {
        Ok(self.identity.to_string())
    }

    async fn join(&self, node: NodeId) -> Result<mpsc::Receiver<Change>> {
        self.renew_lease(node).await?;
        let (sender, changes) = mpsc::channel(CHANGES_WAITING);
        self.listeners.lock().insert(node, sender);
        Ok(changes)
    }

    async fn renew_lease(&self, node: NodeId) -> Result<()> {
        self.write(move |writing| {
            let is_anybody_here: bool = writing
                .db
                .prepare_cached(
                    "select exists (select 1 from clients where node_id = ? and left_at is null)",
                )?
                .query_one([node.0], |row| row.get(0))?;
            match is_anybody_here {
                true => renew_lease(writing.db, node, Millis::now()),
                false => Ok(()),
            }
        })
        .await
    }

    async fn expire(&self, node: NodeId, now: Millis) -> Result<Vec<Left>> {
        // Mostly there is nothing to do, and looking costs the disk nothing.
        match self.read(move |db| is_anything_due(db, node, now)).await? {
            true => {
                self.write(move |writing| expire(writing.db, node, now))
                    .await
            }
            false => Ok(Vec::new()),
        }
    }

    async fn returning(
        &self,
        token: TokenHash,
        by: Option<TokenHash>,
    ) -> Result<Option<(Returning, Option<NodeId>)>> {
        self.read(move |db| {
            let now = Millis::now();
            let by = match by {
                Some(by) => session(db, by, now)?,
                None => None,
            };
            db.prepare_cached(
                "select id, visit, case when left_at is null then node_id end from clients
                 where token_hash = ? and session_id is ? and (left_at is null or left_at > ?)",
            )?
            .query_one(
                params![
                    token.0,
                    by.map(|session| session.id.0),
                    now.before(TOKEN_GOOD_FOR).0
                ],
                |row| {
                    let returning = Returning {
                        client: ClientId(row.get(0)?),
                        visit: row.get(1)?,
                    };
                    Ok((returning, row.get::<_, Option<i64>>(2)?.map(NodeId)))
                },
            )
            .optional()
        })
        .await
    }

    async fn arrive(&self, arrival: Arrival) -> Result<Arrived> {
        self.write(move |writing| arrive(writing.db, &arrival, Millis::now()))
            .await
    }

    async fn end(&self, node: NodeId) -> Result<Vec<Left>> {
        self.write(move |writing| end(writing.db, node, Millis::now()))
            .await
    }

    async fn leave(&self, clients: Vec<Returning>) -> Result<Vec<Left>> {
        self.write(move |writing| leave(writing.db, &clients, Millis::now()))
            .await
    }

    async fn enter(
        &self,
        client: Returning,
        user: UserId,
        target: Target,
    ) -> Result<(Entered, Moved)> {
        self.write_for(client, user, move |writing| {
            enter(writing.db, client.client, user, &target, Millis::now())
        })
        .await
    }

    async fn leave_room(&self, client: Returning) -> Result<Moved> {
        let left = self.write(move |writing| match whose(writing.db, client)? {
            Some(_) => go_out(writing.db, client.client).map(Some),
            None => Ok(None),
        });
        let left = left.await?.ok_or(StoreError::Gone)?;
        Ok(Moved { came: false, left })
    }

    async fn keep(
        &self,
        token: TokenHash,
        password: PasswordHash,
        session: NewSession,
    ) -> Result<Option<Begun>> {
        self.write(move |writing| keep_name(writing.db, token, &password, session, Millis::now()))
            .await
    }

    async fn account(&self, name: &str) -> Result<Option<(User, PasswordHash)>> {
        let name = GroupName::key_of(name);
        self.read(move |db| account(db, &name)).await
    }

    async fn begin_session(
        &self,
        user: UserId,
        password: PasswordHash,
        new: NewSession,
    ) -> Result<Option<Begun>> {
        self.write(move |writing| {
            let is_theirs: bool = writing
                .db
                .prepare_cached(
                    "select exists (select 1 from users
                     where id = ? and password_hash = ? and banned_at is null)",
                )?
                .query_one(params![user.0, password.0], |row| row.get(0))?;
            match is_theirs {
                true => begin_session(writing.db, user, new, Millis::now()).map(Some),
                false => Ok(None),
            }
        })
        .await
    }

    async fn session(&self, token: TokenHash) -> Result<Option<Session>> {
        self.read(move |db| session(db, token, Millis::now())).await
    }

    async fn end_session(&self, token: TokenHash) -> Result<Option<Session>> {
        self.write(move |writing| end_session(writing.db, token, Millis::now()))
            .await
    }

    async fn change_password(
        &self,
        session: TokenHash,
        was: PasswordHash,
        password: PasswordHash,
    ) -> Result<Option<Session>> {
        self.write(move |writing| {
            change_password(writing.db, session, &was, &password, Millis::now())
        })
        .await
    }

    async fn private_room(&self, client: Returning, user: UserId, name: &str) -> Result<Entered> {
        let name = name.to_owned();
        self.write_for(client, user, move |writing| {
            let (db, now) = (writing.db, Millis::now());
            let found = private_room_with(db, user, &name, now)?;
            if let Entered::Room(Room {
                kind: RoomKind::Private { with },
                ..
            }) = &found
            {
                keep(db, with.id, now)?;
            }
            Ok(found)
        })
        .await
    }

    async fn rename(
        &self,
        client: Returning,
        user: UserId,
        name: Option<DisplayName>,
        namesakes: u32,
    ) -> Result<Renamed> {
        self.write_for(client, user, move |writing| {
            rename(writing, user, name.as_ref(), namesakes, Millis::now())
        })
        .await
    }

    async fn person_called(&self, names: Vec<String>) -> Result<Option<(usize, User)>> {
        self.read(move |db| {
            for (n, name) in names.iter().enumerate() {
                let found = match person(db, name)? {
                    None => called(db, name)?,
                    found => found,
                };
                if let Some(user) = found {
                    return Ok(Some((n, user)));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn pair(&self, room: RoomId) -> Result<Option<[User; 2]>> {
        self.read(move |db| {
            let pair = db
                .prepare_cached(&format!(
                    "select {USER} from rooms r join users u on u.id in (r.user_low, r.user_high)
                     where r.id = ?"
                ))?
                .query_map([room.0], user)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(pair.try_into().ok())
        })
        .await
    }

    async fn make_group(&self, client: Returning, maker: UserId, name: GroupName) -> Result<bool> {
        self.write_for(client, maker, move |writing| {
            make_group(writing.db, maker, &name, Millis::now())
        })
        .await
    }

    async fn post(&self, new: Post) -> Result<Posted> {
        self.write_for(new.client, new.author, move |writing| {
            post(writing, &new, Millis::now())
        })
        .await
    }

    async fn known(&self, author: UserId, key: Uuid) -> Result<Option<(Message, Room)>> {
        self.read(move |db| {
            let Some(message) = known(db, author, &key.to_string())? else {
                return Ok(None);
            };
            let room = room(db, author, message.room)?;
            Ok(room.map(|room| (message, room)))
        })
        .await
    }

    async fn open_message(
        &self,
        user: UserId,
        room: RoomId,
        message: MessageId,
        limit: usize,
    ) -> Result<Option<(Message, Vec<(Emoji, String)>)>> {
        self.read(move |db| {
            let Some(found) = message_in(db, user, room, message)? else {
                return Ok(None);
            };
            let reactors = db
                .prepare_cached(
                    "select emoji, name from reactions where message_id = ? order by id limit ?",
                )?
                .query_map(params![message.0, limit as i64], |row| {
                    Ok((row.get::<_, String>(0)?, row.get(1)?))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let known = |(emoji, name): (String, String)| Some((Emoji::new(&emoji)?, name));
            Ok(Some((
                found,
                reactors.into_iter().filter_map(known).collect(),
            )))
        })
        .await
    }

    async fn amend(&self, change: Amend) -> Result<Amended> {
        self.write_for(change.client, change.author, move |writing| {
            amend(writing, &change, Millis::now())
        })
        .await
    }

    async fn react(&self, reaction: React) -> Result<Reacted> {
        self.write_for(reaction.client, reaction.user, move |writing| {
            react(writing, &reaction, Millis::now())
        })
        .await
    }

    async fn reactions_of(
        &self,
        user: UserId,
        room: RoomId,
        first: MessageId,
        last: MessageId,
        limit: usize,
    ) -> Result<Vec<(MessageId, Emoji)>> {
        self.read(move |db| {
            let rows = db
                .prepare_cached(
                    "select message_id, emoji from reactions
                     where user_id = ? and room_id = ? and message_id between ? and ?
                     order by message_id desc limit ?",
                )?
                .query_map(
                    params![user.0, room.0, first.0, last.0, limit as i64],
                    |row| Ok((MessageId(row.get(0)?), row.get::<_, String>(1)?)),
                )?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let known =
                |(message, emoji): (MessageId, String)| Some((message, Emoji::new(&emoji)?));
            Ok(rows.into_iter().filter_map(known).collect())
        })
        .await
    }

    async fn standing(&self, user: UserId) -> Result<Standing> {
        self.read(move |db| moderation::standing(db, user)).await
    }

    async fn strays(&self, clients: Vec<Returning>) -> Result<Vec<ClientId>> {
        self.read(move |db| moderation::strays(db, &clients)).await
    }

    async fn banned(&self, users: Vec<UserId>) -> Result<Vec<UserId>> {
        self.read(move |db| {
            let mut banned = Vec::new();
            for user in users {
                if moderation::standing(db, user)?.banned {
                    banned.push(user);
                }
            }
            Ok(banned)
        })
        .await
    }

    async fn add_admin_link(&self, token: TokenHash) -> Result<()> {
        self.write(move |writing| moderation::add_admin_link(writing.db, token, Millis::now()))
            .await
    }

    async fn is_admin_link(&self, token: TokenHash) -> Result<bool> {
        self.read(move |db| moderation::is_admin_link(db, token, Millis::now()))
            .await
    }

    async fn become_moderator(&self, link: TokenHash, user: UserId) -> Result<bool> {
        self.write(move |writing| {
            moderation::become_moderator(writing.db, link, user, Millis::now())
        })
        .await
    }

    async fn arrive_as_moderator(
        &self,
        link: TokenHash,
        spare: NewUser,
        password: PasswordHash,
        session: NewSession,
    ) -> Result<Option<Begun>> {
        self.write(move |writing| {
            arrive_as_moderator(writing.db, link, &spare, &password, session, Millis::now())
        })
        .await
    }

    async fn end_moderator(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.write(move |writing| moderation::end_moderator(writing.db, &name, Millis::now()))
            .await
    }

    async fn moderate(&self, moderation: Moderation) -> Result<Moderated> {
        self.write_for(moderation.client, moderation.by, move |writing| {
            moderation::moderate(writing, &moderation, Millis::now())
        })
        .await
    }

    async fn group_records(
        &self,
        beginning: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<GroupRecord>> {
        let (beginning, after) = (beginning.to_owned(), after.to_owned());
        self.read(move |db| moderation::group_records(db, &beginning, &after, limit))
            .await
    }

    async fn group_record(&self, room: RoomId) -> Result<Option<GroupRecord>> {
        self.read(move |db| moderation::group_record(db, room))
            .await
    }

    async fn person_records(
        &self,
        beginning: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<PersonRecord>> {
        let (beginning, after) = (beginning.to_owned(), after.to_owned());
        self.read(move |db| moderation::person_records(db, &beginning, &after, limit))
            .await
    }

    async fn message_records(&self, search: Search) -> Result<FoundMessages> {
        self.read(move |db| moderation::message_records(db, &search))
            .await
    }

    async fn deeds(&self, before: i64, limit: usize) -> Result<Vec<DeedRecord>> {
        self.read(move |db| moderation::deeds(db, before, limit))
            .await
    }

    async fn mark_read(&self, reads: Vec<(Returning, UserId, RoomId, MessageId)>) -> Result<()> {
        self.write(move |writing| {
            for (client, user, room, upto) in reads {
                if whose(writing.db, client)? == Some(user) {
                    mark_read(writing.db, user, room, upto)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn groups(&self, user: Option<UserId>, limit: usize) -> Result<Vec<Room>> {
        self.read(move |db| {
            let mut groups = db
                .prepare_cached(
                    "select id, name from rooms
                     where position is not null and restricted_at is null
                     order by position limit ?",
                )?
                .query_map([limit as i64], group_row)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let Some(user) = user else { return Ok(groups) };
            let mut mine = db
                .prepare_cached(&format!(
                    "select r.id, r.name from users_subscribed s join rooms r on r.id = s.room_id
                     where s.user_id = :me and s.with_id is null and r.restricted_at is null
                     and r.position is null and {SEEN}
                     order by s.since desc limit :limit"
                ))?
                .query_map(
                    named_params! { ":me": user.0, ":limit": (limit - groups.len()) as i64 },
                    group_row,
                )?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            mine.extend(moderation::restricted_groups(
                db,
                user,
                limit - groups.len() - mine.len(),
            )?);
            mine.sort_by_cached_key(|room| match &room.kind {
                RoomKind::Group(name) => GroupName::key_of(name),
                RoomKind::Private { .. } => String::new(),
            });
            groups.extend(mine);
            Ok(groups)
        })
        .await
    }

    async fn busiest_groups(&self, limit: usize) -> Result<Vec<Busy>> {
        self.read(move |db| {
            db.prepare_cached(
                "select id, name, people from rooms
                 where kind = 'group' and restricted_at is null and removed_at is null
                 order by people desc, name_key limit ?",
            )?
            .query_map([limit as i64], busy)?
            .collect()
        })
        .await
    }

    async fn find_groups(&self, beginning: &str, limit: usize) -> Result<Vec<Busy>> {
        let beginning = GroupName::key_of(beginning);
        self.read(move |db| {
            db.prepare_cached(
                "select id, name, people from rooms
                 where name_key >= :from and name_key < :to
                 and restricted_at is null and removed_at is null
                 order by name_key limit :limit",
            )?
            .query_map(
                named_params! {
                    ":from": beginning,
                    ":to": format!("{beginning}\u{10ffff}"),
                    ":limit": limit as i64,
                },
                busy,
            )?
            .collect()
        })
        .await
    }

    async fn group(&self, name: &str, me: Option<UserId>) -> Result<Option<Room>> {
        let name = name.to_owned();
        self.read(move |db| group(db, me, &name)).await
    }

    async fn versions(&self, rooms: Vec<RoomId>) -> Result<Vec<Version>> {
        self.read(move |db| {
            rooms
                .into_iter()
                .filter_map(|room| version(db, room).optional().transpose())
                .map(|found| found.map(|(version, _)| version))
                .collect()
        })
        .await
    }

    async fn newest(&self, room: RoomId) -> Result<Page> {
        self.read(move |db| page(db, room, i64::MAX)).await
    }

    async fn older(&self, room: RoomId, before: MessageId) -> Result<Page> {
        self.read(move |db| page(db, room, before.0)).await
    }

    async fn changed_among(
        &self,
        room: RoomId,
        first: MessageId,
        last: MessageId,
        after: u64,
    ) -> Result<Page> {
        self.read(move |db| {
            let (version, private) = version(db, room)?;
            let messages = db
                .prepare_cached(&format!(
                    "select {MESSAGE} where m.room_id = ? and m.id between ? and ?
                     and m.changed > ? order by m.id"
                ))?
                .query_map(params![room.0, first.0, last.0, after], message)?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Page {
                version,
                private,
                messages,
                older: false,
            })
        })
        .await
    }

    async fn worded_since(&self, room: RoomId, after: u64) -> Result<(Vec<Message>, Version)> {
        self.read(move |db| {
            let (mut version, _) = version(db, room)?;
            let messages = db
                .prepare_cached(&format!(
                    "select {MESSAGE} where m.room_id = ? and m.worded > ?
                     order by m.worded limit ?"
                ))?
                .query_map(params![room.0, after, PAGE_MESSAGES as i64], message)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            if let (PAGE_MESSAGES, Some(last)) = (messages.len(), messages.last()) {
                version.number = last.worded;
            }
            Ok((messages, version))
        })
        .await
    }

    async fn catch_up(&self, room: RoomId, after: Option<Version>) -> Result<CatchUp> {
        self.read(move |db| catch_up(db, room, after)).await
    }

    async fn people_online(&self, limit: usize) -> Result<(Vec<Person>, u64)> {
        self.read(move |db| {
            let people = db
                .prepare_cached(&format!(
                    "select {USER} from clients c join users u on u.id = c.user_id
                 where c.left_at is null and not exists (
                    select 1 from clients o where o.user_id = c.user_id and o.left_at is null
                    and (o.arrived_at, o.id) < (c.arrived_at, c.id))
                 order by c.arrived_at, c.id limit ?"
                ))?
                .query_map([limit as i64], |row| {
                    Ok(Person {
                        user: user(row)?,
                        unread: 0,
                        online: true,
                    })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let count = match people.len() < limit {
                true => people.len() as u64,
                false => db
                    .prepare_cached(
                        "select count(distinct user_id) from clients where left_at is null",
                    )?
                    .query_one([], |row| row.get(0))?,
            };
            Ok((people, count))
        })
        .await
    }

    async fn people_in(&self, room: RoomId, limit: usize) -> Result<(Vec<Person>, u64)> {
        self.read(move |db| {
            let count = db
                .prepare_cached("select people from rooms where id = ? and kind = 'group'")?
                .query_one([room.0], |row| row.get(0))
                .optional()?;
            let Some(count) = count else {
                return Ok((Vec::new(), 0));
            };
            let people = db
                .prepare_cached(&format!(
                    "select {USER} from clients_active a join users u on u.id = a.user_id
                     where a.room_id = ? and not exists (
                        select 1 from clients_active o
                        where o.room_id = a.room_id and o.user_id = a.user_id
                        and (o.entered_at, o.client_id) < (a.entered_at, a.client_id))
                     order by a.entered_at, a.client_id limit ?"
                ))?
                .query_map(params![room.0, limit as i64], |row| {
                    Ok(Person {
                        user: user(row)?,
                        unread: 0,
                        online: false,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok((people, count))
        })
        .await
    }

    async fn people_of(&self, me: UserId, limit: usize) -> Result<Vec<Person>> {
        self.read(move |db| {
            db.prepare_cached(&format!(
                "select {USER}, s.unread, exists (
                    select 1 from clients c where c.user_id = u.id and c.left_at is null)
                 from users_subscribed s join users u on u.id = s.with_id
                 where s.user_id = ? and s.with_id is not null
                 order by (s.unread > 0) desc, s.last_message_id desc limit ?"
            ))?
            .query_map(params![me.0, limit as i64], |row| {
                Ok(Person {
                    user: user(row)?,
                    unread: row.get(3)?,
                    online: row.get(4)?,
                })
            })?
            .collect()
        })
        .await
    }

    async fn find_people(&self, beginning: &str, limit: usize) -> Result<Vec<Person>> {
        let beginning = GroupName::key_of(beginning);
        self.read(move |db| {
            let mut found = Vec::new();
            for name in ["name", "display_key"] {
                let people = db
                    .prepare_cached(&format!(
                        "select {USER}, exists (
                            select 1 from clients c where c.user_id = u.id and c.left_at is null)
                         from users u
                         where u.{name} >= :from and u.{name} < :to and u.arrived_at is not null
                         order by u.{name} limit :limit"
                    ))?
                    .query_map(
                        named_params! {
                            ":from": beginning,
                            ":to": format!("{beginning}\u{10ffff}"),
                            ":limit": limit as i64,
                        },
                        |row| {
                            Ok(Person {
                                user: user(row)?,
                                unread: 0,
                                online: row.get(3)?,
                            })
                        },
                    )?
                    .collect::<rusqlite::Result<Vec<_>>>()?;
                for person in people {
                    if !found.contains(&person) {
                        found.push(person);
                    }
                }
            }
            found.truncate(limit);
            Ok(found)
        })
        .await
    }

    async fn add_users(&self, users: Vec<NewUser>) -> Result<u64> {
        self.write(move |writing| {
            let mut made = 0;
            for new in &users {
                made += u64::from(add_user(writing.db, new)?.is_some());
            }
            Ok(made)
        })
        .await
    }

    async fn census(&self) -> Result<Census> {
        self.read(|db| {
            let count = |sql| db.query_one(sql, [], |row| row.get(0));
            Ok(Census {
                users: count("select count(*) from users")?,
                private_rooms: count("select count(*) from rooms where kind = 'private'")?,
                messages: count("select count(*) from messages")?,
            })
        })
        .await
    }

    async fn reset(&self) -> Result<()> {
        self.write(|writing| {
            for table in ["messages", "rooms", "clients", "sessions", "users"] {
                writing.db.execute(&format!("delete from {table}"), [])?;
            }
            writing.db.execute(DEFAULT_GROUPS, []).map(|_| ())
        })
        .await
    }

    async fn check(&self) -> Result<()> {
        // SQLite goes on with a file that has no name any more, or fails where a connection reads for
        // the first time: so the file is looked at before anything is asked.
        let opened = Arc::clone(&self.opened);
        let is_kept = self.read(move |db| {
            let is_kept = opened.is_kept();
            if is_kept {
                db.query_one("select 1", [], |_| Ok(()))?;
            }
            Ok(is_kept)
        });
        if !is_kept.await? {
            return Err(StoreError::Missing(self.opened.path.clone()));
        }
        self.write(|_| Ok(())).await
    }

    async fn close(&self) {
        // The connection that is closed last takes the write-ahead log and the shared memory with
        // it, if it may write and no other is being closed: so first the readers, then one by one.
        let read = self.reading.acquire_many(READERS).await;
        self.reading.close();
        drop(read);
        let readers = self.readers.lock().take();
        self.writer.lock().take();
        let threads = std::mem::take(&mut *self.threads.lock());
        let ending = tokio::task::spawn_blocking(move || {
            drop(readers);
            let mut connections = Vec::new();
            for thread in threads {
                thread.thread().unpark();
                connections.extend(thread.join());
            }
            connections.into_iter().for_each(drop);
        });
        let _ = ending.await;
        self.listeners.lock().clear();
        self.lock.lock().take();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rusqlite::trace::{TraceEvent, TraceEventCodes};

    use super::*;
    use crate::model::{MessageText, ResumeToken, SessionToken};
    use crate::moderation::Deed;

    const NODE: NodeId = NodeId(1);
    const MUCH_LATER: Duration = Duration::from_secs(100 * 60 * 60);

    /// Everything that the stores of these tests have asked their databases.
    static STATEMENTS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

    pub(super) fn note_statements(db: &Connection) {
        let note = |event: TraceEvent<'_>| {
            if let TraceEvent::Stmt(statement, _) = event {
                let mut statements = STATEMENTS.lock();
                statements.insert(statement.sql().into_owned());
            }
        };
        db.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note));
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self) -> PathBuf {
            self.folder().join("overwire.db")
        }

        fn folder(&self) -> PathBuf {
            self.0.path().canonicalize().unwrap()
        }

        async fn open(&self) -> SqliteStore {
            self.try_to_open(Access::Server).await.unwrap()
        }

        async fn try_to_open(&self, access: Access) -> Result<SqliteStore> {
            SqliteStore::open(&self.file(), Synchronous::Full, access).await
        }

        fn look(&self) -> Connection {
            Connection::open(self.file()).unwrap()
        }
    }

    /// A client, whose it is and its token.
    type Somebody = (Returning, User, TokenHash);

    fn new_user(name: &str) -> NewUser {
        NewUser {
            name: name.to_owned(),
            email: format!("{name}@example.com"),
        }
    }

    async fn arrive(store: &SqliteStore, name: &str) -> Somebody {
        let token = ResumeToken::random().hash();
        let arrival = Arrival {
            node: NODE,
            session: None,
            resume: None,
            token,
            spare: Some(new_user(name)),
        };
        match store.arrive(arrival).await.unwrap() {
            Arrived::As { client, user, .. } => (client, user, token),
            other => panic!("{other:?}"),
        }
    }

    fn hello(author: &Somebody, room: RoomId) -> Post {
        Post {
            node: NODE,
            client: author.0,
            author: author.1.id,
            room,
            text: MessageText::new("hello", 9).unwrap(),
            key: Some(Uuid::new_v4()),
        }
    }

    async fn hi(store: &SqliteStore) -> RoomId {
        store.group("hi", None).await.unwrap().unwrap().id
    }

    async fn entered(store: &SqliteStore, who: &Somebody, to: Target) -> RoomId {
        match store.enter(who.0, who.1.id, to).await.unwrap().0 {
            Entered::Room(room) => room.id,
            other => panic!("{other:?}"),
        }
    }

    /// Does everything that happens while people talk.
    async fn talk(store: &SqliteStore) {
        store.join(NODE).await.unwrap();
        store.add_users(vec![new_user("free")]).await.unwrap();
        let (anna, bob) = (arrive(store, "anna").await, arrive(store, "bob").await);
        let group = entered(store, &anna, Target::Group("hi".to_owned())).await;
        entered(store, &anna, Target::Room(group)).await;
        let private = Target::Private(bob.1.name.clone());
        let private = entered(store, &anna, private).await;
        let post = hello(&anna, group);
        let posted = store.post(post.clone()).await.unwrap();
        let Posted::New(message) = posted else {
            panic!("{posted:?}");
        };
        store.post(post).await.unwrap();
        store.post(hello(&anna, private)).await.unwrap();
        store.post(hello(&bob, private)).await.unwrap();
        let seen = vec![(anna.0, anna.1.id, private, MessageId(3))];
        store.mark_read(seen).await.unwrap();
        store.groups(None, 50).await.unwrap();
        let name = GroupName::new("apes").unwrap();
        store.make_group(anna.0, anna.1.id, name).await.unwrap();
        store.groups(Some(anna.1.id), 50).await.unwrap();
        store.versions(vec![group, private]).await.unwrap();
        let page = store.newest(group).await.unwrap();
        store.older(group, message.id).await.unwrap();
        let (first, last) = (message.id, message.id);
        store.changed_among(group, first, last, 0).await.unwrap();
        for on in [true, false] {
            let react = React {
                node: NODE,
                client: bob.0,
                user: bob.1.id,
                room: group,
                message: message.id,
                emoji: Emoji::new("👍").unwrap(),
                on,
            };
            store.react(react).await.unwrap();
        }
        let mine = store.reactions_of(bob.1.id, group, first, last, 9);
        mine.await.unwrap();
        let opened = store.open_message(bob.1.id, group, message.id, 9);
        opened.await.unwrap();
        store.catch_up(group, Some(page.version)).await.unwrap();
        let empty = Version {
            number: 0,
            ..page.version
        };
        store.catch_up(group, Some(empty)).await.unwrap();
        store.people_online(9).await.unwrap();
        store.people_in(group, 9).await.unwrap();
        store.people_of(anna.1.id, 9).await.unwrap();
        store.find_people("an", 9).await.unwrap();
        store.returning(anna.2, None).await.unwrap();
        let back = Arrival {
            node: NODE,
            session: None,
            resume: Some(anna.0),
            token: anna.2,
            spare: None,
        };
        store.arrive(back).await.unwrap();
        let anna = (
            Returning {
                visit: anna.0.visit + 1,
                ..anna.0
            },
            anna.1,
            anna.2,
        );
        moderate(store, &anna, &bob.1, group, message.id).await;
        sign_in_and_out(store, &bob).await;
        store.identity().await.unwrap();
        store.strays(vec![anna.0, bob.0]).await.unwrap();
        store.leave(vec![anna.0, bob.0]).await.unwrap();
        store.renew_lease(NODE).await.unwrap();
        let later = Millis::now().after(MUCH_LATER);
        store.expire(NodeId(2), later).await.unwrap();
    }

    /// Somebody becomes a moderator, looks through everything and does what one does.
    async fn moderate(
        store: &SqliteStore,
        by: &Somebody,
        other: &User,
        group: RoomId,
        message: MessageId,
    ) {
        let link = SessionToken::random().hash();
        store.add_admin_link(link).await.unwrap();
        assert!(store.become_moderator(link, by.1.id).await.unwrap());
        let spare = new_user("moderator");
        let (token, password) = (SessionToken::random().hash(), PasswordHash("a".to_owned()));
        let session = NewSession {
            token,
            former: None,
        };
        let arriving = store.arrive_as_moderator(link, spare, password, session);
        assert!(arriving.await.unwrap().is_none());
        let name = GroupName::new("bees").unwrap();
        store.make_group(by.0, by.1.id, name).await.unwrap();
        let room = store.group("bees", None).await.unwrap().unwrap().id;
        let (name, on) = (GroupName::new("cats").unwrap(), true);
        for deed in [
            Deed::RenameGroup { room, name },
            Deed::RestrictGroup { room, on },
            Deed::RemoveGroup { room },
            Deed::RestoreMessage {
                room: group,
                message,
            },
            Deed::Mute {
                name: other.name.clone(),
                on,
            },
            Deed::Mute {
                name: other.name.clone(),
                on: false,
            },
        ] {
            let moderation = Moderation {
                node: NODE,
                client: by.0,
                by: by.1.id,
                deed,
            };
            store.moderate(moderation).await.unwrap();
        }
        store.groups(Some(by.1.id), 50).await.unwrap();
        store.group_record(group).await.unwrap();
        store.group_records("a", "", 9).await.unwrap();
        store.person_records("a", "", 9).await.unwrap();
        let search = Search {
            room: group,
            author: None,
            words: "hello".to_owned(),
            from: Some(Millis(0)),
            until: Some(Millis::now()),
            before: MessageId(i64::MAX),
        };
        store.message_records(search).await.unwrap();
        store.deeds(i64::MAX, 9).await.unwrap();
        store.end_moderator(&by.1.name).await.unwrap();
    }

    /// A guest keeps who they are, and comes and goes by sessions.
    async fn sign_in_and_out(store: &SqliteStore, guest: &Somebody) {
        let token = || SessionToken::random().hash();
        let hash = |text: &str| PasswordHash(text.to_owned());
        let new = |token, former| NewSession { token, former };
        let (first, second) = (token(), token());
        let kept = store.keep(guest.2, hash("a"), new(first, None)).await;
        let user = kept.unwrap().unwrap().session.user;
        store.rename(guest.0, user.id, None, 1).await.unwrap();
        store.account("nobody").await.unwrap();
        let begun = store.begin_session(user.id, hash("a"), new(second, Some(first)));
        begun.await.unwrap().unwrap();
        let arrival = Arrival {
            node: NODE,
            session: Some(second),
            resume: None,
            token: token(),
            spare: None,
        };
        store.arrive(arrival).await.unwrap();
        store.returning(token(), Some(second)).await.unwrap();
        store.session(second).await.unwrap().unwrap();
        let changed = store.change_password(second, hash("a"), hash("b"));
        changed.await.unwrap().unwrap();
        store.end_session(second).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nothing_that_happens_while_people_talk_reads_a_whole_table() {
        let place = Place::new();
        let store = place.open().await;
        talk(&store).await;
        let db = place.look();
        // What is done once, or asked for by hand.
        let seldom = |sql: &str| {
            sql.starts_with("select count(*) from users")
                || sql.starts_with("select count(*) from rooms")
                || sql.starts_with("select count(*) from messages")
                || sql == "update clients set left_at = ? where left_at is null"
                || sql.starts_with("update users set gone_at = ? where free = 0 and traced_at")
                || sql.contains("update rooms set people = (select count(*)")
                || sql.ends_with("update messages set worded = changed;")
                || sql == "delete from admin_links where made_at < ?"
                || ["delete from clients_active", "delete from nodes"].contains(&sql)
                || ["messages", "rooms", "clients", "sessions", "users"]
                    .contains(&sql.strip_prefix("delete from ").unwrap_or_default())
        };
        let statements = STATEMENTS.lock().clone();
        let (mut looked_at, mut unbounded) = (0, Vec::new());
        for sql in &statements {
            let word = sql.split_whitespace().next().unwrap_or_default();
            if !["select", "insert", "update", "delete", "with"].contains(&word) || seldom(sql) {
                continue;
            }
            // What a trigger or foreign key adds, and what tests of their own ask.
            if sql.contains("in tests") || sql.starts_with("--") {
                continue;
            }
            looked_at += 1;
            let mut explained = db.prepare(&format!("explain query plan {sql}")).unwrap();
            let mut rows = explained.raw_query();
            while let Some(row) = rows.next().unwrap() {
                let step: String = row.get(3).unwrap();
                let is_bounded = match step.strip_prefix("SCAN ") {
                    // A catch-up sorts what it has, which is a page at most.
                    None => {
                        !step.contains("TEMP B-TREE")
                            || sql.ends_with("m.changed > ? order by m.id")
                    }
                    // Values written in the statement, and the few nodes there are.
                    Some("CONSTANT ROW" | "4-ROW VALUES CLAUSE" | "nodes") => true,
                    Some(subquery) if subquery.starts_with("(subquery-") => true,
                    // What a foreign key would look through if the row had been missed before.
                    Some(scan)
                        if word == "insert"
                            && !sql.contains(&scan[..scan.find(' ').unwrap_or(scan.len())]) =>
                    {
                        true
                    }
                    // In the order of an index up to a limit, or a handful of default groups.
                    Some(scan) => {
                        scan.contains(" USING ")
                            && (sql.contains("limit") || scan.contains("rooms_default"))
                    }
                };
                if !is_bounded {
                    unbounded.push(format!("{step} in {sql}"));
                }
            }
        }
        assert!(looked_at > 40, "{looked_at} of {statements:#?}");
        assert!(unbounded.is_empty(), "{unbounded:#?}");
    }

    #[test]
    fn a_plan_that_reads_a_whole_table_would_be_seen() {
        let place = Place::new();
        let mut db = place.look();
        migrate(&mut db).unwrap();
        let plan: String = db
            .query_one(
                "explain query plan select id from messages where text = '' -- in tests",
                [],
                |row| row.get(3),
            )
            .unwrap();
        assert_eq!(plan, "SCAN messages");
    }

    type Act = Box<dyn FnOnce(&mut Writing<'_>) -> rusqlite::Result<()> + Send>;

    /// Runs these writes as one batch. Answers how it ended, what each was told, and how many
    /// changes there are to tell of.
    fn in_one_batch(
        db: &Connection,
        acts: Vec<Act>,
    ) -> (
        rusqlite::Result<()>,
        Vec<std::result::Result<(), String>>,
        usize,
    ) {
        let (told, told_here) = std::sync::mpsc::channel();
        let batch = acts.into_iter().map(|act| -> Write {
            let told = told.clone();
            Box::new(move |writing| {
                let done = savepoint(writing, act);
                Box::new(move |failure| {
                    let done = match failure {
                        None => done.map_err(|error| error.to_string()),
                        Some(failure) => Err(failure.to_string()),
                    };
                    told.send(done).unwrap();
                })
            })
        });
        let (mut answers, mut changes) = (Vec::new(), Vec::new());
        let committed = commit(
            db,
            batch,
            &mut answers,
            &mut changes,
            (History(7), Millis(0)),
        );
        for answer in answers {
            answer(committed.as_ref().err().map(|_| StoreError::Closed));
        }
        (committed, told_here.try_iter().collect(), changes.len())
    }

    fn add(name: &'static str) -> Act {
        Box::new(move |writing| add_user(writing.db, &new_user(name)).map(|_| ()))
    }

    /// A user who is made at that moment, and writes by no client of theirs.
    fn made(db: &Connection, name: &str) -> rusqlite::Result<Somebody> {
        let user = add_user(db, &new_user(name))?.unwrap();
        let client = Returning {
            client: ClientId(0),
            visit: 0,
        };
        Ok((client, user_of(db, user)?, TokenHash([0; 32])))
    }

    fn users(db: &Connection) -> Vec<String> {
        let mut query = db.prepare("select name from users order by id").unwrap();
        let names = query.query_map([], |row| row.get(0)).unwrap();
        names.map(std::result::Result::unwrap).collect()
    }

    #[test]
    fn a_failing_write_undoes_itself_and_no_other_of_its_batch() {
        let place = Place::new();
        let mut db = place.look();
        migrate(&mut db).unwrap();
        let half_done = Box::new(|writing: &mut Writing<'_>| {
            add_user(writing.db, &new_user("half"))?;
            let author = made(writing.db, "author")?;
            let room = group(writing.db, None, "hi")?.unwrap().id;
            assert!(matches!(
                post(writing, &hello(&author, room), Millis::now())?,
                Posted::New(_)
            ));
            Err(rusqlite::Error::InvalidQuery)
        });
        let good = Box::new(|writing: &mut Writing<'_>| {
            let author = made(writing.db, "author")?;
            let room = group(writing.db, None, "hi")?.unwrap().id;
            post(writing, &hello(&author, room), Millis::now()).map(|_| ())
        });
        let (committed, told, changes) =
            in_one_batch(&db, vec![add("anna"), half_done, good, add("bob")]);
        committed.unwrap();
        let well: Vec<bool> = told.iter().map(std::result::Result::is_ok).collect();
        assert_eq!(well, [true, false, true, true]);
        assert_eq!(users(&db), ["anna", "author", "bob"]);
        let made: Vec<u64> = vec![
            db.query_one("select version from rooms where name = 'hi'", [], |row| {
                row.get(0)
            })
            .unwrap(),
        ];
        assert_eq!((made, changes), (vec![1], 1));
    }

    #[test]
    fn when_the_transaction_is_lost_everybody_is_told_and_nothing_is_left() {
        let place = Place::new();
        let mut db = place.look();
        migrate(&mut db).unwrap();
        // As a full disk does it.
        let loses = Box::new(|writing: &mut Writing<'_>| writing.db.execute_batch("rollback"));
        let (committed, told, _) = in_one_batch(&db, vec![add("anna"), loses, add("bob")]);
        assert!(committed.is_err());
        assert!(told.len() == 3 && told.iter().all(std::result::Result::is_err));
        assert_eq!(users(&db), [""; 0]);
        let (committed, told, _) = in_one_batch(&db, vec![add("carl")]);
        assert!(committed.is_ok() && told == [Ok(())]);
        assert_eq!(users(&db), ["carl"]);
    }

    #[tokio::test]
    async fn what_was_not_committed_is_neither_answered_nor_told_to_anybody() {
        let place = Place::new();
        let store = place.open().await;
        let mut changes = store.join(NODE).await.unwrap();
        let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
        let lost = hello(&anna, room);
        let lost = store.write(move |writing| {
            let posted = post(writing, &lost, Millis::now());
            writing.db.execute_batch("rollback")?;
            posted
        });
        assert!(lost.await.is_err());
        let kept = store.post(hello(&anna, room)).await.unwrap();
        assert!(matches!(kept, Posted::New(message) if message.made == 1));
        assert_eq!(changes.recv().await.unwrap().version.number, 1);
        assert!(changes.try_recv().is_err());
        assert_eq!(store.newest(room).await.unwrap().messages.len(), 1);
    }

    #[test]
    fn while_somebody_else_holds_the_database_everybody_is_told() {
        let place = Place::new();
        let (mut db, other) = (place.look(), place.look());
        migrate(&mut db).unwrap();
        db.busy_timeout(Duration::ZERO).unwrap();
        other.execute_batch("begin immediate").unwrap();
        let (committed, told, _) = in_one_batch(&db, vec![add("anna"), add("bob")]);
        assert!(committed.is_err());
        assert!(told.len() == 2 && told.iter().all(std::result::Result::is_err));
        other.execute_batch("rollback").unwrap();
        let (committed, ..) = in_one_batch(&db, vec![add("carl")]);
        committed.unwrap();
        assert_eq!(users(&db), ["carl"]);
    }

    #[tokio::test]
    async fn a_commit_waits_for_the_disk_unless_told_otherwise() {
        for (synchronous, expected) in [(Synchronous::Full, 2), (Synchronous::Normal, 1)] {
            let place = Place::new();
            let store = SqliteStore::open(&place.file(), synchronous, Access::Server)
                .await
                .unwrap();
            let found = store
                .write(|writing| {
                    let pragma = |name| writing.db.pragma_query_value(None, name, |row| row.get(0));
                    let (synchronous, keys): (i64, i64) =
                        (pragma("synchronous")?, pragma("foreign_keys")?);
                    let checkpoints: i64 = pragma("wal_autocheckpoint")?;
                    Ok((synchronous, keys, checkpoints))
                })
                .await
                .unwrap();
            assert_eq!(found, (expected, 1, 0));
            let mode: String = place
                .look()
                .pragma_query_value(None, "journal_mode", |row| row.get(0))
                .unwrap();
            assert_eq!(mode, "wal");
        }
    }

    #[tokio::test]
    async fn a_reader_cannot_write() {
        let place = Place::new();
        let store = place.open().await;
        store.add_users(vec![new_user("anna")]).await.unwrap();
        let deleting = "delete from users where 1 = 1 -- in tests";
        assert!(store.read(|db| db.execute(deleting, [])).await.is_err());
        assert_eq!(store.census().await.unwrap().users, 1);
    }

    #[tokio::test]
    async fn while_nobody_is_here_renewing_the_lease_writes_nothing() {
        let place = Place::new();
        let store = place.open().await;
        store.join(NODE).await.unwrap();
        let log = || std::fs::metadata(wal_of(&place.file())).unwrap().len();
        let anna = arrive(&store, "anna").await.0;
        for is_here in [true, false] {
            let before = log();
            store.renew_lease(NODE).await.unwrap();
            assert_eq!(log() > before, is_here);
            store.leave(vec![anna]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_second_server_is_refused_and_disturbs_nobody() {
        let place = Place::new();
        let store = place.open().await;
        arrive(&store, "anna").await;
        let second = place.try_to_open(Access::Server).await;
        assert!(
            matches!(second, Err(StoreError::InUse(path)) if path == place.file().to_str().unwrap())
        );
        let beside = place.try_to_open(Access::Beside).await.unwrap();
        assert_eq!(beside.add_users(vec![new_user("bob")]).await.unwrap(), 1);
        beside.close().await;
        assert_eq!(store.people_online(9).await.unwrap().0.len(), 1);
        assert_eq!(store.census().await.unwrap().users, 2);
        store.close().await;
        // What stands beside keeps no server out.
        let beside = place.try_to_open(Access::Beside).await.unwrap();
        let server = place.try_to_open(Access::Server).await.unwrap();
        server.check().await.unwrap();
        beside.close().await;
    }

    #[test]
    fn links_lead_to_the_file_whether_it_is_there_or_not() {
        #[track_caller]
        fn check(path: &Path, expected: &Path) {
            assert_eq!(real_path(path).unwrap(), expected, "{}", path.display());
        }
        let place = Place::new();
        let (folder, file) = (place.folder(), place.file());
        let at = |name: &str| folder.join(name);
        std::fs::create_dir(at("inner")).unwrap();
        symlink("overwire.db", at("relative")).unwrap();
        symlink(&file, at("inner/absolute")).unwrap();
        symlink("inner/absolute", at("twice")).unwrap();
        symlink("inner", at("to-folder")).unwrap();
        symlink("../overwire.db", at("inner/up")).unwrap();
        for _ in 0..2 {
            check(&file, &file);
            for name in ["relative", "inner/absolute", "twice", "to-folder/up"] {
                check(&at(name), &file);
            }
            check(&at("to-folder/new.db"), &at("inner/new.db"));
            // Once before there is a file, once after.
            std::fs::write(&file, "").unwrap();
        }
        let here = Path::new(".").canonicalize().unwrap();
        check(Path::new("no-such.db"), &here.join("no-such.db"));
        symlink("round", at("round")).unwrap();
        assert!(real_path(&at("round")).is_err());
        assert!(real_path(&at("nowhere/new.db")).is_err());
        assert!(real_path(&at("..")).is_ok_and(|path| path.is_dir()));
    }

    #[tokio::test]
    async fn through_a_link_the_lock_and_the_log_are_those_of_the_file() {
        let place = Place::new();
        let link = place.folder().join("link.db");
        symlink(place.file(), &link).unwrap();
        let open = |path: PathBuf| async move {
            SqliteStore::open(&path, Synchronous::Full, Access::Server).await
        };
        for (first, second) in [(link.clone(), place.file()), (place.file(), link)] {
            let store = open(first).await.unwrap();
            assert!(wal_of(&store.opened.path).exists());
            let refused = open(second).await;
            assert!(
                matches!(refused, Err(StoreError::InUse(path)) if path == place.file().to_str().unwrap())
            );
            store.close().await;
        }
    }

    #[tokio::test]
    async fn a_start_that_fails_leaves_no_lock_behind_but_one_that_was_there() {
        let place = Place::new();
        let lock = lock_of(&place.file());
        std::fs::write(place.file(), "no database, but a letter to somebody").unwrap();
        for was_there in [false, true] {
            if was_there {
                std::fs::write(&lock, "").unwrap();
            }
            let refused = place.try_to_open(Access::Server).await;
            assert!(matches!(refused, Err(StoreError::Database(_))));
            assert_eq!(lock.exists(), was_there);
        }
        std::fs::remove_file(place.file()).unwrap();
        place.open().await.check().await.unwrap();
    }

    #[tokio::test]
    async fn a_database_is_migrated_once_and_a_newer_one_refused() {
        let place = Place::new();
        let version = || -> i64 {
            let db = place.look();
            db.pragma_query_value(None, "user_version", |row| row.get(0))
                .unwrap()
        };
        for _ in 0..2 {
            let store = place.open().await;
            assert_eq!(version(), MIGRATIONS.len() as i64);
            assert_eq!(store.groups(None, 50).await.unwrap().len(), 4);
            store.close().await;
        }
        let newer = MIGRATIONS.len() as i64 + 1;
        place
            .look()
            .pragma_update(None, "user_version", newer)
            .unwrap();
        let refused = place.try_to_open(Access::Server).await;
        let Err(StoreError::TooNew { found, known }) = refused else {
            panic!("a newer one was opened");
        };
        assert_eq!((found, known), (newer, newer - 1));
        assert_eq!(version(), newer);
    }

    #[tokio::test]
    async fn two_programs_may_make_the_same_database_at_once() {
        let place = Place::new();
        let (server, beside) = tokio::join!(
            place.try_to_open(Access::Server),
            place.try_to_open(Access::Beside)
        );
        assert_eq!(server.unwrap().groups(None, 50).await.unwrap().len(), 4);
        beside.unwrap().check().await.unwrap();
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_in_the_files_at_that_moment() {
        let (place, crashed) = (Place::new(), Place::new());
        let store = Arc::new(place.open().await);
        let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
        let mut posting = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let (store, new) = (Arc::clone(&store), hello(&anna, room));
            posting.spawn(async move { store.post(new).await.unwrap() });
        }
        posting.join_all().await;
        // The files as a crash would leave them; the shared memory is made anew.
        std::fs::copy(place.file(), crashed.file()).unwrap();
        std::fs::copy(wal_of(&place.file()), wal_of(&crashed.file())).unwrap();
        let before = store.newest(room).await.unwrap();
        let after = crashed.open().await.newest(room).await.unwrap();
        assert_eq!(before.messages.len(), 40);
        assert_eq!(before, after);
    }

    #[test]
    fn the_write_ahead_log_stays_within_its_bound_while_there_always_is_a_reader() {
        let place = Place::new();
        let mut db = place.look();
        db.pragma_update(None, "journal_mode", "wal").unwrap();
        db.pragma_update(None, "synchronous", "off").unwrap();
        migrate(&mut db).unwrap();
        db.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        db.busy_timeout(BUSY_TIMEOUT).unwrap();
        db.execute_batch("create table filler (bytes)").unwrap();
        let checkpoints = place.look();
        checkpoints.busy_timeout(BUSY_TIMEOUT).unwrap();
        let (worth_copying, bound) = (256 * 1024, 1024 * 1024);
        let wal = wal_of(&place.file());
        let size = || std::fs::metadata(&wal).unwrap().len();
        let stop = Arc::new(AtomicBool::new(false));
        let reading = std::thread::spawn({
            let (mut now, mut next, stop) = (place.look(), place.look(), Arc::clone(&stop));
            let look = "begin; select count(*) from users; -- in tests";
            now.execute_batch(look).unwrap();
            move || {
                while !stop.load(Ordering::Relaxed) {
                    next.execute_batch(look).unwrap();
                    now.execute_batch("commit").unwrap();
                    std::mem::swap(&mut now, &mut next);
                }
            }
        });
        let write = |db: &Connection| {
            db.execute("insert into filler values (zeroblob(100000))", [])
                .unwrap();
        };
        let mut largest = 0;
        for _ in 0..60 {
            write(&db);
            largest = largest.max(size());
            checkpoint(&checkpoints, &wal, worth_copying, bound).unwrap();
        }
        // A reader that is slow to go may hold one round up.
        assert!(largest < 2 * bound, "{largest}");
        // Without that it would have grown.
        (0..60).for_each(|_| write(&db));
        assert!(size() > 4 * bound);
        stop.store(true, Ordering::Relaxed);
        reading.join().unwrap();
    }

    #[test]
    fn the_look_of_a_user_name_is_the_same_in_the_index() {
        let db = Connection::open_in_memory().unwrap();
        for name in ["abcdefghijklm", "nopqrstuvwxyz", "0123456789", "mm1i0l"] {
            let look: String = db
                .query_one(
                    &format!("select {LOOK} from (select ? as name) u"),
                    [name],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!([look.clone(), look], DisplayName::looks_of(name));
        }
    }
}
