//! The SQLite driver: one file with one writer thread, threads that read, and a thread for checkpoints.
//!
//! The writer commits all waiting writes in one transaction, so that they share one wait for the disk.
//! Each of several has a savepoint, so a failing write is undone alone. Results and changes are sent after
//! the commit. The driver knows no operations.

mod readers;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

use readers::Readers;

use super::rooms::{KEYED_GROUPS, SET_KEY, folded_keys};
use super::tx::{Operation, Sql, Tx};
use super::{Access, Extent, Listeners, Opening, Result, StoreError, Synchronous, Writes};
use crate::log::Chain;
use crate::metrics::METRICS;
use crate::model::{History, Millis};

const MIGRATIONS: [&str; 22] = [
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
    include_str!("migrations/sqlite/0009_one_store.sql"),
    include_str!("migrations/sqlite/0010_group_keys.sql"),
    include_str!("migrations/sqlite/0011_password_links.sql"),
    include_str!("migrations/sqlite/0012_unread.sql"),
    include_str!("migrations/sqlite/0013_search.sql"),
    include_str!("migrations/sqlite/0014_notifications.sql"),
    include_str!("migrations/sqlite/0015_mentions.sql"),
    include_str!("migrations/sqlite/0016_push.sql"),
    include_str!("migrations/sqlite/0017_browsers.sql"),
    include_str!("migrations/sqlite/0018_replies.sql"),
    include_str!("migrations/sqlite/0019_files.sql"),
    include_str!("migrations/sqlite/0020_search_files.sql"),
    include_str!("migrations/sqlite/0021_search_form.sql"),
    include_str!("migrations/sqlite/0022_search_heads.sql"),
];
/// The schema version of this program.
pub(super) const NEWEST: i64 = MIGRATIONS.len() as i64;
/// The schema version since which all forms of a group's name have one key.
const FOLDED_KEYS: i64 = 10;

/// Marks a file as one of ours, in its header: `OvWr`.
const APPLICATION: u32 = 0x4f76_5772;
/// What a file of SQLite begins with, and where its header has the application's mark.
const MAGIC: &[u8] = b"SQLite format 3\0";
const APPLICATION_AT: usize = 68;

/// How many writes share one transaction at most.
const GROUP_COMMIT: usize = 512;
/// How long SQLite waits for another process's lock.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many prepared statements a connection keeps: more than all operations need.
const STATEMENTS: usize = 160;
/// How often the length of the write-ahead log is checked.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(250);
/// How many pages make the write-ahead log worth copying into the database: 4 MiB.
const WAL_WORTH_COPYING: i64 = 1024;
/// The number of pages from which writers wait until the write-ahead log starts over: 64 MiB.
const WAL_BOUND: i64 = 16 * 1024;
/// How long they wait for readers each time. A long reader, such as a backup, then delays them little.
const WAL_PATIENCE: Duration = Duration::from_millis(50);
/// With so few pages left, the writer copies the rest itself, to make the log start over: 1 MiB, which takes one or two milliseconds.
const LAST_PAGES: i64 = 256;
/// How long the writer waits for readers then.
const LAST_PATIENCE: Duration = Duration::from_millis(5);
/// How often the log is copied in a row until so few pages remain.
const COPIES: usize = 8;
/// How often a log that cannot be copied is reported at most: on a full disk, each attempt fails.
const REPORT_EVERY: Duration = Duration::from_secs(60);

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure,
            ) => Self::unavailable(error),
            _ => Self::Database(error.into()),
        }
    }
}

impl From<r2d2::Error> for StoreError {
    fn from(error: r2d2::Error) -> Self {
        Self::unavailable(error)
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::unavailable(error)
    }
}

/// An open file.
pub(super) struct Sqlite {
    /// New each time the file is opened, since a file has no other nodes.
    identity: Uuid,
    opened: Arc<Opened>,
    /// The writer and the checkpoints. Each thread returns its connection when it ends.
    threads: Mutex<Vec<std::thread::JoinHandle<Connection>>>,
    readers: Arc<Readers>,
    /// A server's lock, held while the store is open.
    lock: Mutex<Option<Lock>>,
}

/// The path of the file, and its identity: its device and its number there.
struct Opened {
    path: PathBuf,
    file: (u64, u64),
}

impl Sqlite {
    /// Opens the file, and creates and migrates it if needed. A server locks its store with a file
    /// beside the database (`overwire.db.lock`), and marks the clients of the former server as left.
    /// The path may contain links.
    pub(super) async fn open(path: PathBuf, opening: Opening) -> Result<Self> {
        let opened = tokio::task::spawn_blocking(move || open(&path, opening));
        opened.await.map_err(|_| StoreError::Closed)?
    }

    pub(super) fn identity(&self) -> String {
        self.identity.to_string()
    }

    /// Runs an operation on what was committed before the call, and perhaps more.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        extent: Extent,
        operation: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        self.readers.read(extent, operation).await
    }

    /// Succeeds if the file can be read and is still the one that was opened. SQLite keeps working on a
    /// deleted file, or fails when a connection reads for the first time, so the file is checked before
    /// any statement.
    pub(super) async fn check(&self) -> Result<()> {
        let opened = Arc::clone(&self.opened);
        let is_kept = self.read(Extent::Statement, async move |tx| match opened.is_kept() {
            true => tx.the::<i64>("select 1", &[]).await.map(|_| true),
            false => Ok(false),
        });
        match is_kept.await? {
            true => Ok(()),
            false => Err(StoreError::Missing(self.opened.path.clone())),
        }
    }

    /// Closes every connection, after the writer has written everything.
    pub(super) async fn close(&self) {
        // The last connection to close removes the write-ahead log and the shared memory, if it may
        // write and no other connection is closing. So the readers close first, then the other
        // connections one by one.
        let readers = Arc::clone(&self.readers);
        let threads = std::mem::take(&mut *self.threads.lock());
        let ending = tokio::task::spawn_blocking(move || {
            readers.close();
            let mut connections = Vec::new();
            // The writer ends first. After that nobody writes to the log.
            for thread in threads {
                thread.thread().unpark();
                connections.extend(thread.join());
            }
            connections.into_iter().for_each(drop);
        });
        let _ = ending.await;
        self.lock.lock().take();
    }
}

/// The result of an operation, none of whose statements waits for anything here.
fn at_once<T>(operation: impl Future<Output = Sql<T>>) -> Sql<T> {
    operation
        .now_or_never()
        .expect("an operation awaits nothing but its statements")
}

fn open(path: &Path, opening: Opening) -> Result<Sqlite> {
    let path = &real_path(path)?;
    let Access::Server = opening.access else {
        return open_file(path, opening);
    };
    let mut lock = Lock::take(path)?;
    let opened = open_file(path, opening).and_then(|store| {
        lock.take_file(path)?;
        Ok(store)
    });
    match opened {
        Ok(store) => Ok(Sqlite {
            lock: Mutex::new(Some(lock)),
            ..store
        }),
        Err(error) => {
            lock.leave_nothing(path);
            Err(error)
        }
    }
}

fn open_file(path: &Path, opening: Opening) -> Result<Sqlite> {
    let Opening {
        synchronous,
        access,
        writes,
        listeners,
    } = opening;
    recognize(path)?;
    let mut db = Connection::open(path)?;
    prepare(&db)?;
    write_ahead(&db)?;
    db.pragma_update(
        None,
        "synchronous",
        match synchronous {
            Synchronous::Full => "full",
            Synchronous::Normal => "normal",
        },
    )?;
    db.pragma_update(None, "foreign_keys", true)?;
    // A savepoint keeps the former pages of its write. Above 16 of them SQLite would create a file for
    // each savepoint, which takes longer than the write.
    db.pragma_update(None, "temp_store", "memory")?;
    migrate(&mut db)?;
    if access == Access::Server {
        begin(&mut db)?;
        // The other thread makes checkpoints, so that no commit waits for one.
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
    }

    let opened = Opened {
        path: path.to_owned(),
        file: file_at(path)?,
    };
    let manager = SqliteConnectionManager::file(path)
        .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(|db| prepare(db));
    let readers = Readers::open(manager)?;

    let starts_over = Arc::new(AtomicBool::new(false));
    let is_writing = Arc::downgrade(&starts_over);
    let mut threads = vec![
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                write_all(&mut db, writes, &listeners, History::random(), &starts_over);
                drop(starts_over);
                db
            })?,
    ];
    if access == Access::Server {
        let checkpoints = Connection::open(path)?;
        checkpoints.busy_timeout(WAL_PATIENCE)?;
        threads.push(
            std::thread::Builder::new()
                .name("checkpoints".to_owned())
                .spawn(move || {
                    let mut reported: Option<Instant> = None;
                    while let Some(starts_over) = is_writing.upgrade() {
                        match checkpoint(&checkpoints, WAL_WORTH_COPYING, WAL_BOUND) {
                            Ok(is_nearly_copied) => {
                                starts_over.store(is_nearly_copied, Ordering::Relaxed);
                            }
                            Err(error) => {
                                if reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
                                    not_copied(&error);
                                    reported = Some(Instant::now());
                                }
                            }
                        }
                        drop(starts_over);
                        std::thread::park_timeout(CHECKPOINT_EVERY);
                    }
                    checkpoints
                })?,
        );
    }
    Ok(Sqlite {
        identity: Uuid::new_v4(),
        opened: Arc::new(opened),
        threads: Mutex::new(threads),
        readers: Arc::new(readers),
        lock: Mutex::default(),
    })
}

/// Gives the file a write-ahead log. If another program does so at this moment, SQLite does not wait for it, because each might wait
/// for the other.
fn write_ahead(db: &Connection) -> rusqlite::Result<()> {
    let began = Instant::now();
    loop {
        match db.pragma_update(None, "journal_mode", "wal") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && began.elapsed() < BUSY_TIMEOUT =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

/// The settings of every connection.
fn prepare(db: &Connection) -> rusqlite::Result<()> {
    #[cfg(test)]
    tests::note_statements(db);
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise SQLite plans a statement anew whenever its values change, if they might have mattered to the plan.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.create_scalar_function("millis", 0, FunctionFlags::SQLITE_UTF8, |_| {
        Ok(Millis::now().0)
    })
}

/// The identity of the file at a path.
pub(super) fn file_at(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Opened {
    /// Whether the opened file is still there, with the log that the next server continues from.
    fn is_kept(&self) -> bool {
        file_at(&self.path).is_ok_and(|file| file == self.file) && wal_of(&self.path).exists()
    }
}

/// The file that a path leads to, through any links; it need not exist yet. SQLite follows links too,
/// so the lock and the write-ahead log are found there and nowhere else.
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

/// The path with an ending appended to its name.
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

/// The advisory lock of a server. The system releases it when the process ends for any reason.
pub(super) struct Lock {
    /// A file beside the database, since a new database has no file yet.
    beside: File,
    /// Whether that file is new.
    pub(super) is_new: bool,
    /// The database itself, which hard links have in common.
    file: Option<File>,
}

impl Lock {
    /// Locks the database at a path, whether it exists or not.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let (beside, is_new) = lock_beside(path)?;
        let mut lock = Self {
            beside,
            is_new,
            file: None,
        };
        let taken = match path.exists() {
            true => lock.take_file(path),
            false => Ok(()),
        };
        match taken {
            Ok(()) => Ok(lock),
            Err(error) => {
                lock.leave_nothing(path);
                Err(error)
            }
        }
    }

    /// Deletes the file beside the database if it is new. The lock is still held, so another server's
    /// file is never deleted.
    fn leave_nothing(self, path: &Path) {
        if self.is_new {
            let _ = std::fs::remove_file(lock_of(path));
        }
    }

    /// Locks the database itself, which now exists. Only Linux does that: there `flock` does not concern
    /// SQLite's own locks, which belong to the process.
    pub(super) fn take_file(&mut self, path: &Path) -> Result<()> {
        if cfg!(target_os = "linux") && self.file.is_none() {
            let file = File::open(path)?;
            try_lock(&file, path)?;
            self.file = Some(file);
        }
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that is being started has copies of both files for a moment, and closing these would not end the lock.
        for file in self.file.iter().chain([&self.beside]) {
            let _ = file.unlock();
        }
    }
}

fn lock_beside(path: &Path) -> Result<(File, bool)> {
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
        try_lock(&file, path)?;
        // A failed start may have deleted the file meanwhile. The lock would then protect nothing.
        let locked = file.metadata()?;
        if file_at(&place).is_ok_and(|there| there == (locked.dev(), locked.ino())) {
            return Ok((file, is_new));
        }
    }
}

fn try_lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.display().to_string())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Refuses a file that another program made, and writes nothing to it. A file that does not exist, or
/// is empty, becomes ours.
pub(super) fn recognize(path: &Path) -> Result<()> {
    let foreign = || Err(StoreError::Foreign(path.display().to_string()));
    let mut header = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file?.take(100).read_to_end(&mut header)?,
    };
    if header.is_empty() {
        return Ok(());
    }
    let mark = header.get(APPLICATION_AT..APPLICATION_AT + 4);
    let mark = mark.and_then(|mark| mark.try_into().ok());
    match mark.map(u32::from_be_bytes) {
        Some(APPLICATION) => return Ok(()),
        Some(0) if header.starts_with(MAGIC) => {}
        _ => return foreign(),
    }
    // Earlier builds left no mark, but these tables. Without a log beside it, the file is everything:
    // SQLite then need not create any other file to read it.
    let db = match wal_of(path).exists() {
        true => Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        false => {
            let name = percent_encoding::percent_encode(
                path.as_os_str().as_encoded_bytes(),
                percent_encoding::NON_ALPHANUMERIC,
            );
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("file:{name}?immutable=1"), flags)?
        }
    };
    let tables = "select count(*),
            count(*) filter (where name in ('users', 'clients', 'rooms', 'messages'))
        from sqlite_schema where type = 'table'";
    match db.query_row(tables, [], |row| Ok((row.get(0)?, row.get(1)?)))? {
        (0, _) | (_, 4) => Ok(()),
        (_, _) => foreign(),
    }
}

pub(super) fn migrate(db: &mut Connection) -> Result<()> {
    let known = NEWEST;
    // Two programs may open a new file at the same moment, so lock first, then check.
    let migration = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = migration.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for sql in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        migration.execute_batch(sql)?;
    }
    if found < FOLDED_KEYS {
        let groups = migration
            .prepare(KEYED_GROUPS)?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for change in folded_keys(groups) {
            migration.execute(SET_KEY, change)?;
        }
    }
    migration.pragma_update(None, "user_version", known)?;
    migration.pragma_update(None, "application_id", APPLICATION)?;
    migration.commit()?;
    Ok(())
}

/// Starts a server: the clients of a former server were cut off.
fn begin(db: &mut Connection) -> Result<()> {
    let beginning = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    beginning.execute_batch(
        "update clients set left_at = millis(), cut_off = true where left_at is null;
         delete from clients_active;
         delete from nodes;
         update users set gone_at = millis()
         where not free and traced_at is null and gone_at is null;",
    )?;
    beginning.commit()?;
    Ok(())
}

/// Runs the writer: all waiting writes become one transaction. When the write-ahead log is nearly copied, it `starts_over`.
fn write_all(
    db: &mut Connection,
    mut writes: Writes,
    listeners: &Listeners,
    history: History,
    starts_over: &AtomicBool,
) {
    let mut batch = Vec::new();
    while writes.blocking_recv_many(&mut batch, GROUP_COMMIT) > 0 {
        let mut batch = std::mem::take(&mut batch);
        match commit(db, &mut batch, history) {
            Ok(changes) => {
                for (node, change) in changes {
                    let listener = listeners.lock().get(&node).cloned();
                    if let Some(listener) = listener {
                        // A node that has stopped receiving has nobody to show it to.
                        let _ = listener.blocking_send(change);
                    }
                }
                batch.into_iter().for_each(|write| write.answer(None));
            }
            Err(error) => super::fail_all(batch, StoreError::from(error)),
        }
        if starts_over.swap(false, Ordering::Relaxed)
            && let Err(error) = start_over(db)
        {
            not_copied(&error);
        }
    }
    if let Err(error) = db.execute_batch("pragma wal_checkpoint(truncate)") {
        not_copied(&error);
    }
}

fn not_copied(error: &rusqlite::Error) {
    tracing::warn!("could not copy the write-ahead log: {}", Chain(error));
}

/// Runs a batch in one transaction. Returns its changes.
fn commit(
    db: &mut Connection,
    batch: &mut [Box<dyn Operation>],
    history: History,
) -> rusqlite::Result<super::Changes> {
    let (writes, began) = (batch.len(), Instant::now());
    db.prepare_cached("begin immediate")?.execute([])?;
    let tx = Tx::sqlite(db, Millis::now(), history);
    if let [write] = batch {
        // The transaction is its savepoint, which saves SQLite a copy of each page that it changes.
        if let Err(failure) = at_once(super::run_if_connected(&tx, &mut **write)) {
            drop(tx);
            write.fail(failure.into());
            if !db.is_autocommit() {
                db.execute_batch("rollback")?;
            }
            return Ok(Vec::new());
        }
    } else {
        for write in batch {
            let kept = tx.changes();
            if let Err(failure) = at_once(savepoint(&tx, &mut **write)) {
                tx.undo_changes(kept);
                write.fail(failure.into());
            }
        }
    }
    let changes = tx.into_changes();
    let committed = db.prepare_cached("commit")?.execute([]);
    if committed.is_err() && !db.is_autocommit() {
        db.execute_batch("rollback")?;
    }
    committed.map(|_| {
        METRICS.committed(writes, began);
        changes
    })
}

/// Runs one write, so that its failure undoes it alone.
async fn savepoint(tx: &Tx<'_>, write: &mut dyn Operation) -> Sql<()> {
    // A full disk ends the transaction. A savepoint would then begin and commit its own.
    if !tx.is_open() {
        return Err(StoreError::unavailable("the transaction has ended").into());
    }
    tx.run("savepoint act", &[]).await?;
    let done = super::run_if_connected(tx, write).await;
    if done.is_err() && tx.is_open() {
        tx.run("rollback to act", &[]).await?;
    }
    if tx.is_open() {
        tx.run("release act", &[]).await?;
    }
    done
}

/// Copies a long write-ahead log into the database while writing continues. If it is longer than its
/// bound, the writer waits until the log starts over. Returns whether so little remains that the writer can
/// make it start over itself.
fn checkpoint(db: &Connection, worth_copying: i64, bound: i64) -> rusqlite::Result<bool> {
    let (mut length, mut copied) = log(db, "noop")?;
    // The next commit begins a log anew that is copied whole.
    if length < worth_copying || length == copied {
        return Ok(false);
    }
    for _ in 0..COPIES {
        let before = copied;
        (length, copied) = log(db, "passive")?;
        // The pages that a reader does not know yet cannot be copied.
        if length - copied <= LAST_PAGES || copied == before {
            break;
        }
    }
    if length >= bound {
        log(db, "truncate")?;
        return Ok(false);
    }
    // While another program makes a checkpoint, nothing is known of the log.
    Ok(length >= 0 && length - copied <= LAST_PAGES)
}

/// Copies the last pages of the write-ahead log, so that the next commit begins it anew: to overwrite a file costs half as much as to
/// let it grow. If somebody reads from it for longer, it goes on.
fn start_over(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(LAST_PATIENCE)?;
    let done = log(db, "restart");
    db.busy_timeout(BUSY_TIMEOUT)?;
    done.map(|_| ())
}

/// Makes a checkpoint of this kind. Returns how many pages the write-ahead log has, and how many of them have been copied.
fn log(db: &Connection, kind: &str) -> rusqlite::Result<(i64, i64)> {
    db.query_row(&format!("pragma wal_checkpoint({kind})"), [], |row| {
        Ok((row.get(1)?, row.get(2)?))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;

    use rusqlite::trace::{TraceEvent, TraceEventCodes};
    use tokio::sync::oneshot;

    use super::*;
    use crate::model::{
        ClientRef, DisplayName, Emoji, GroupName, MessageId, MessageText, NewUser, NodeId,
        PasswordHash, ResumeToken, RoomId, SessionToken, Target, TokenHash, User, UserId, Version,
    };
    use crate::moderation::{Moderated, Search};
    use crate::protocol::ModeratorAction;
    use crate::search::Query;
    use crate::store::people::{LOOK, hand_out, newcomer};
    use crate::store::tx::{Locks, Waiting};
    use crate::store::users::user_of;
    use crate::store::{Actor, Arrival, Arrived, Driver, NewSession, Post, Posted, Resume, Store};

    const NODE: NodeId = NodeId(1);
    const MUCH_LATER: Duration = Duration::from_secs(100 * 60 * 60);

    /// Every statement that the stores of these tests have run.
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

    async fn open_at(path: &Path, synchronous: Synchronous, access: Access) -> Result<Store> {
        Store::open(path.to_str().unwrap(), synchronous, access).await
    }

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

        async fn open(&self) -> Store {
            self.try_to_open(Access::Server).await.unwrap()
        }

        async fn try_to_open(&self, access: Access) -> Result<Store> {
            open_at(&self.file(), Synchronous::Full, access).await
        }

        fn look(&self) -> Connection {
            Connection::open(self.file()).unwrap()
        }
    }

    /// A client, its user and its token.
    type Somebody = (ClientRef, User, TokenHash);

    fn new_user(name: &str) -> NewUser {
        NewUser {
            name: name.to_owned(),
            email: format!("{name}@example.com"),
        }
    }

    async fn arrive(store: &Store, name: &str) -> Somebody {
        let token = ResumeToken::random().hash();
        let arrival = Arrival {
            node: NODE,
            session: None,
            resume: None,
            token,
            browser: None,
            spare: Some(new_user(name)),
            group: None,
        };
        match store.arrive(arrival).await.unwrap() {
            Arrived::As { client, user, .. } => (client, user, token),
            other => panic!("{other:?}"),
        }
    }

    fn by(somebody: &Somebody) -> Actor {
        Actor {
            node: NODE,
            client: somebody.0,
            user: somebody.1.id,
        }
    }

    fn hello(author: &Somebody, room: RoomId) -> Post {
        Post {
            by: by(author),
            room,
            text: MessageText::new("hello", 9).unwrap().into(),
            key: Some(Uuid::new_v4()),
            reply_to: None,
            files: Vec::new(),
        }
    }

    async fn hi(store: &Store) -> RoomId {
        store.group("hi", None).await.unwrap().unwrap().id
    }

    async fn entered(store: &Store, who: &Somebody, to: Target) -> RoomId {
        store.enter(by(who), to).await.unwrap().0.id
    }

    /// Runs everything that happens while people talk.
    async fn talk(store: &Store) {
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
        store.make_group(by(&anna), name).await.unwrap();
        store.groups(Some(anna.1.id), 50).await.unwrap();
        store.versions(vec![group, private]).await.unwrap();
        let page = store.newest(group).await.unwrap();
        store.older(group, message.id).await.unwrap();
        for room in store.begin_indexing().await.unwrap() {
            let part = store.unindexed(room).await.unwrap().unwrap();
            for typed in ["hello", "hello in:hi from:me before:2020-01-01", "with:bob"] {
                let query = Query::of(typed);
                store.search(anna.1.id, query, None, 9).await.unwrap();
            }
            store.index(part).await.unwrap();
        }
        assert!(store.unindexed_before().await.unwrap().is_none());
        let (first, last) = (message.id, message.id);
        store.changed_among(group, first, last, 0).await.unwrap();
        for on in [true, false] {
            let emoji = Emoji::new("👍").unwrap();
            let reacted = store.react(by(&bob), group, message.id, emoji, on);
            assert!(reacted.await.unwrap());
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
        let to_mention = store.people_to_mention(anna.1.id, group, "b", 9);
        to_mention.await.unwrap();
        store.client_by_token(anna.2, None).await.unwrap();
        let back = Arrival {
            node: NODE,
            session: None,
            resume: Some(Resume::Client(anna.0, anna.2)),
            token: anna.2,
            browser: None,
            spare: None,
            group: None,
        };
        store.arrive(back).await.unwrap();
        let anna = (
            ClientRef {
                visit: anna.0.visit + 1,
                ..anna.0
            },
            anna.1,
            anna.2,
        );
        moderate(store, &anna, &bob.1, group, message.id).await;
        sign_in_and_out(store, &bob).await;
        store.identity().await.unwrap();
        store.stale_clients(vec![anna.0, bob.0]).await.unwrap();
        store.leave(vec![anna.0, bob.0]).await.unwrap();
        store.renew_lease(NODE).await.unwrap();
        let later = Millis::now().after(MUCH_LATER);
        store.expire(NodeId(2), later).await.unwrap();
    }

    /// Makes somebody a moderator, and runs all searches and actions of moderators.
    async fn moderate(
        store: &Store,
        moderator: &Somebody,
        other: &User,
        group: RoomId,
        message: MessageId,
    ) {
        let link = SessionToken::random().hash();
        store.add_admin_link(link).await.unwrap();
        assert!(store.become_moderator(link, moderator.1.id).await.unwrap());
        let spare = new_user("moderator");
        let (token, password) = (SessionToken::random().hash(), PasswordHash("a".to_owned()));
        let session = NewSession {
            token,
            former: None,
        };
        let arriving = store.arrive_as_moderator(link, spare, password, session);
        assert!(arriving.await.unwrap().is_none());
        let name = GroupName::new("bees").unwrap();
        store.make_group(by(moderator), name).await.unwrap();
        let room = store.group("bees", None).await.unwrap().unwrap().id;
        let (name, on) = (GroupName::new("cats").unwrap(), true);
        for action in [
            ModeratorAction::RenameGroup { room, name },
            ModeratorAction::RestrictGroup { room, on },
            ModeratorAction::RemoveGroup { room },
            ModeratorAction::RestoreMessage {
                room: group,
                message,
            },
            ModeratorAction::Mute {
                name: other.name.clone(),
                on,
            },
            ModeratorAction::Mute {
                name: other.name.clone(),
                on: false,
            },
        ] {
            store.moderate(by(moderator), action).await.unwrap();
        }
        store.groups(Some(moderator.1.id), 50).await.unwrap();
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
        store.audit_log(i64::MAX, 9).await.unwrap();
        assert_eq!(store.moderators().await.unwrap().len(), 1);
        store.end_moderator(&moderator.1.name).await.unwrap();
    }

    /// Registers a guest, and signs them in and out.
    async fn sign_in_and_out(store: &Store, guest: &Somebody) {
        let token = || SessionToken::random().hash();
        let hash = |text: &str| PasswordHash(text.to_owned());
        let new = |token, former| NewSession { token, former };
        let (first, second) = (token(), token());
        let kept = store.register(guest.2, hash("a"), new(first, None)).await;
        let user = kept.unwrap().unwrap().session.user;
        store.rename(by(guest), None, 1).await.unwrap();
        store.account("nobody").await.unwrap();
        let begun = store.sign_in(user.id, hash("a"), new(second, Some(first)));
        begun.await.unwrap().unwrap();
        let arrival = Arrival {
            node: NODE,
            session: Some(second),
            resume: None,
            token: token(),
            browser: None,
            spare: None,
            group: None,
        };
        store.arrive(arrival).await.unwrap();
        store.client_by_token(token(), Some(second)).await.unwrap();
        store.session(second).await.unwrap().unwrap();
        let changed = store.change_password(second, hash("a"), hash("b"));
        changed.await.unwrap().unwrap();
        store.sign_out(second).await.unwrap().unwrap();
        let link = token();
        let added = store.add_password_link(None, &user.name, link);
        assert!(matches!(added.await, Ok(Moderated::Done { .. })));
        let user = store.password_link(link).await.unwrap().unwrap();
        let reset = store.reset_password(link, user, hash("c"), new(token(), None));
        reset.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nothing_that_happens_while_people_talk_reads_a_whole_table() {
        let place = Place::new();
        let store = place.open().await;
        talk(&store).await;
        let db = fresh(&place);
        // Statements that run once, or by hand.
        let seldom = |sql: &str| {
            let sql = sql.trim();
            sql.starts_with("select (select count(*) from users)")
                || sql.starts_with("update clients set left_at = millis(), cut_off = true")
                || sql.starts_with("update users set gone_at = millis()")
                || sql.contains("update rooms set people = (select count(*)")
                || sql.ends_with("update messages set worded = changed;")
                || sql == KEYED_GROUPS
                || sql.starts_with("insert into searchable") && sql.contains("from rooms r")
                || sql.ends_with("where r.version > coalesce(s.version, 0)")
                || sql == "delete from admin_links where made_at < $1"
                || ["delete from clients_active;", "delete from nodes;"].contains(&sql)
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
            // Statements added by a trigger or foreign key, and statements of the tests themselves.
            if sql.contains("in tests") || sql.starts_with("--") {
                continue;
            }
            looked_at += 1;
            let mut explained = db.prepare(&format!("explain query plan {sql}")).unwrap();
            let mut rows = explained.raw_query();
            while let Some(row) = rows.next().unwrap() {
                let step: String = row.get(3).unwrap();
                let is_bounded = match step.strip_prefix("SCAN ") {
                    // A catch-up sorts its result, which is a page at most; a completion sorts the people
                    // nearby.
                    None => {
                        !step.contains("TEMP B-TREE")
                            || sql.ends_with("m.changed > $2 order by m.id")
                            || sql.contains(") nearby cross join users u")
                    }
                    // Values written in the statement, and the few nodes.
                    Some("CONSTANT ROW" | "4-ROW VALUES CLAUSE" | "nodes") => true,
                    // Rows bounded by a limit, and the few ids given to an operation.
                    Some(
                        "changed" | "unread" | "by_name" | "everybody" | "present" | "recent"
                        | "nearby",
                    ) => true,
                    Some(list) if list.starts_with("json_each ") => true,
                    // The scan of a foreign key, if the row had been missed before.
                    Some(scan)
                        if word == "insert"
                            && !sql.contains(&scan[..scan.find(' ').unwrap_or(scan.len())]) =>
                    {
                        true
                    }
                    // By the words, and whether there is anything at all.
                    Some(scan) if scan.starts_with("message_words VIRTUAL TABLE INDEX") => true,
                    Some("searchable USING INDEX searchable_since") => true,
                    // In the order of an index up to a limit, or a handful of default groups or moderators.
                    Some(scan) => {
                        let few = ["rooms_default", "rooms_closed", "users_moderators"];
                        scan.contains(" USING ")
                            && (sql.contains("limit") || few.iter().any(|few| scan.contains(few)))
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

    type Outcome = oneshot::Receiver<Result<()>>;

    fn write(
        operation: impl AsyncFn(&Tx<'_>) -> Sql<()> + Send + 'static,
    ) -> (Box<dyn Operation>, Outcome) {
        let (sender, results) = oneshot::channel();
        (
            Box::new(Waiting::new(Locks::none(), operation, sender)),
            results,
        )
    }

    /// Runs these writes as one batch. Returns how it ended, whether each write succeeded, and how many
    /// changes are delivered.
    fn in_one_batch(
        db: &mut Connection,
        operations: Vec<(Box<dyn Operation>, Outcome)>,
    ) -> (rusqlite::Result<()>, Vec<bool>, usize) {
        let (mut batch, results): (Vec<_>, Vec<_>) = operations.into_iter().unzip();
        let committed = commit(db, &mut batch, History(7));
        for write in batch {
            write.answer(committed.as_ref().err().map(|_| StoreError::Closed));
        }
        let results = results
            .into_iter()
            .map(|mut results| results.try_recv().unwrap().is_ok());
        let changes = committed.as_ref().map_or(0, Vec::len);
        (committed.map(|_| ()), results.collect(), changes)
    }

    fn add(name: &'static str) -> (Box<dyn Operation>, Outcome) {
        write(async move |tx| made(tx, name).await.map(|_| ()))
    }

    /// A user who was just created.
    async fn made(tx: &Tx<'_>, name: &str) -> Sql<UserId> {
        let user = newcomer(tx, Some(&new_user(name))).await?.unwrap();
        hand_out(tx, user).await?;
        Ok(user)
    }

    /// A new user connects and says hello.
    async fn says_hello(tx: &Tx<'_>, name: &str) -> Sql<()> {
        let author = user_of(tx, made(tx, name).await?).await?;
        let hi: i64 = tx
            .the("select id from rooms where name = 'hi' -- in tests", &[])
            .await?;
        let client = ClientRef {
            client: crate::model::ClientId(0),
            visit: 0,
        };
        let somebody = (client, author, TokenHash([0; 32]));
        let posted = crate::store::messages::post(tx, &hello(&somebody, RoomId(hi))).await?;
        assert!(matches!(posted, Posted::New(_)));
        Ok(())
    }

    fn users(db: &Connection) -> Vec<String> {
        let mut query = db
            .prepare("select name from users order by id -- in tests")
            .unwrap();
        let names = query.query_map([], |row| row.get(0)).unwrap();
        names.map(std::result::Result::unwrap).collect()
    }

    fn fresh(place: &Place) -> Connection {
        let mut db = place.look();
        prepare(&db).unwrap();
        migrate(&mut db).unwrap();
        db
    }

    #[test]
    fn a_failing_write_undoes_itself_and_no_other_of_its_batch() {
        let place = Place::new();
        let mut db = fresh(&place);
        let half_done = write(async |tx| {
            says_hello(tx, "half").await?;
            Err(rusqlite::Error::InvalidQuery.into())
        });
        let succeeds = write(async |tx| says_hello(tx, "author").await);
        let (committed, results, changes) =
            in_one_batch(&mut db, vec![add("anna"), half_done, succeeds, add("bob")]);
        committed.unwrap();
        assert_eq!(results, [true, false, true, true]);
        assert_eq!(users(&db), ["anna", "author", "bob"]);
        let version: u64 = db
            .query_one(
                "select version from rooms where name = 'hi' -- in tests",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!((version, changes), (1, 1));
    }

    #[test]
    fn when_the_transaction_is_lost_everybody_is_told_and_nothing_is_left() {
        let place = Place::new();
        let mut db = fresh(&place);
        // As a full disk does.
        let loses = write(async |tx| tx.run("rollback", &[]).await);
        let (committed, results, _) = in_one_batch(&mut db, vec![add("anna"), loses, add("bob")]);
        assert!(committed.is_err());
        assert_eq!(results, [false; 3]);
        assert_eq!(users(&db), [""; 0]);
        let (committed, results, _) = in_one_batch(&mut db, vec![add("carl")]);
        assert!(committed.is_ok() && results == [true]);
        assert_eq!(users(&db), ["carl"]);
    }

    #[tokio::test]
    async fn what_was_not_committed_is_neither_answered_nor_told_to_anybody() {
        let place = Place::new();
        let store = place.open().await;
        let mut changes = store.join(NODE).await.unwrap();
        let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
        let lost = hello(&anna, room);
        let lost = store.write("post", Locks::none(), async move |tx| {
            let posted = crate::store::messages::post(tx, &lost).await;
            tx.run("rollback", &[]).await?;
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
        let (mut db, other) = (fresh(&place), place.look());
        db.busy_timeout(Duration::ZERO).unwrap();
        other.execute_batch("begin immediate").unwrap();
        let (committed, results, _) = in_one_batch(&mut db, vec![add("anna"), add("bob")]);
        assert!(committed.is_err());
        assert_eq!(results, [false; 2]);
        other.execute_batch("rollback").unwrap();
        let (committed, ..) = in_one_batch(&mut db, vec![add("carl")]);
        committed.unwrap();
        assert_eq!(users(&db), ["carl"]);
    }

    #[tokio::test]
    async fn a_commit_waits_for_the_disk_unless_told_otherwise() {
        for (synchronous, expected) in [(Synchronous::Full, 2), (Synchronous::Normal, 1)] {
            let place = Place::new();
            let store = open_at(&place.file(), synchronous, Access::Server)
                .await
                .unwrap();
            let found = store
                .write("pragmas", Locks::none(), async |tx| {
                    let mut found = Vec::new();
                    for name in ["synchronous", "foreign_keys", "wal_autocheckpoint"] {
                        found.push(tx.the::<i64>(&format!("pragma {name}"), &[]).await?);
                    }
                    Ok(found)
                })
                .await
                .unwrap();
            assert_eq!(found, [expected, 1, 0]);
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
        const DELETING: &str = "delete from users where 1 = 1 -- in tests";
        let deleted = store.ask("delete", async |tx| tx.run(DELETING, &[]).await);
        assert!(deleted.await.is_err());
        assert_eq!(store.census().await.unwrap().users, 1);
    }

    #[tokio::test]
    async fn while_nobody_is_here_renewing_the_lease_writes_nothing() {
        let place = Place::new();
        let store = place.open().await;
        store.join(NODE).await.unwrap();
        let log = || std::fs::metadata(wal_of(&place.file())).unwrap().len();
        let anna = arrive(&store, "anna").await.0;
        // Nothing is written either if the lease of the arrival is from the same millisecond.
        let then = Millis::now();
        while Millis::now() == then {
            std::hint::spin_loop();
        }
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
        // A program that is not a server keeps no server out.
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
            // Once before the file exists, once after.
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
        let open =
            |path: PathBuf| async move { open_at(&path, Synchronous::Full, Access::Server).await };
        for (first, second) in [(link.clone(), place.file()), (place.file(), link)] {
            let store = open(first).await.unwrap();
            let Driver::Sqlite(sqlite) = &store.driver else {
                panic!("it is a file");
            };
            assert!(wal_of(&sqlite.opened.path).exists());
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
            assert!(matches!(refused, Err(StoreError::Foreign(_))));
            assert_eq!(lock.exists(), was_there);
        }
        std::fs::remove_file(place.file()).unwrap();
        place.open().await.check().await.unwrap();
    }

    #[test]
    fn a_lock_ends_although_a_process_that_is_being_started_has_copies_of_its_files() {
        let place = Place::new();
        std::fs::write(place.file(), "").unwrap();
        let lock = Lock::take(&place.file()).unwrap();
        let copies =
            [&lock.beside, lock.file.as_ref().unwrap()].map(|file| file.try_clone().unwrap());
        let refused = || matches!(Lock::take(&place.file()), Err(StoreError::InUse(_)));
        assert!(refused());
        drop(lock);
        assert!(!refused());
        drop(copies);
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
        // The files as a crash would leave them. The shared memory is created again.
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
        let (worth_copying, bound) = (64, 256);
        let bytes_of_bound = 1024 * 1024;
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
            checkpoint(&checkpoints, worth_copying, bound).unwrap();
        }
        // A slow reader may delay one round.
        assert!(largest < 2 * bytes_of_bound, "{largest}");
        // Without checkpoints it would have grown.
        (0..60).for_each(|_| write(&db));
        assert!(size() > 4 * bytes_of_bound);
        stop.store(true, Ordering::Relaxed);
        reading.join().unwrap();
    }

    #[test]
    fn the_writer_makes_the_log_start_over_unless_somebody_reads_from_it() {
        let place = Place::new();
        let mut db = place.look();
        db.pragma_update(None, "journal_mode", "wal").unwrap();
        migrate(&mut db).unwrap();
        db.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        let (checkpoints, reader) = (place.look(), place.look());
        db.execute_batch("create table filler (bytes)").unwrap();
        let write = || {
            db.execute("insert into filler values (zeroblob(100000))", [])
                .unwrap();
        };
        let length = || log(&checkpoints, "noop").unwrap().0;
        let is_nearly_copied = || checkpoint(&checkpoints, 1, WAL_BOUND).unwrap();
        let look = "begin; select count(*) from filler; -- in tests";

        reader.execute_batch(look).unwrap();
        (0..20).for_each(|_| write());
        // What was written after the reader began cannot be copied yet.
        assert!(!is_nearly_copied());
        reader.execute_batch("commit").unwrap();
        assert!(is_nearly_copied());

        // All of it was copied, so the next write begins the log anew by itself.
        assert!(!is_nearly_copied());
        write();
        let shortest = length();
        write();
        reader.execute_batch(look).unwrap();
        start_over(&db).unwrap();
        write();
        assert!(length() > 2 * shortest);
        reader.execute_batch("commit").unwrap();
        start_over(&db).unwrap();
        write();
        assert!(length() <= shortest);
        let timeout: i64 = db
            .pragma_query_value(None, "busy_timeout", |row| row.get(0))
            .unwrap();
        assert_eq!(u128::try_from(timeout), Ok(BUSY_TIMEOUT.as_millis()));
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
