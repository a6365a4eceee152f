//! The readers of a file: a pool of connections, and the reads that wait for one.
//!
//! A reader takes what waits and runs it in one snapshot. Whatever was committed before a read was asked for is in it, since the
//! snapshot begins later. Reads that come together then share the pages that SQLite would otherwise read again for each of them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::at_once;
use crate::model::{History, Millis};
use crate::store::tx::{Locks, Operation, Sql, Tx, Waiting};
use crate::store::{Result, Snapshot, StoreError, fail_all};

/// How many readers there are, and so how many snapshots are read at a time.
const READERS: u32 = 4;
/// How many reads share a snapshot at most.
const SHARED: usize = 32;

/// Threads that read, until they are closed or dropped.
pub(super) struct Readers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    reading: Mutex<Reading>,
    /// There is something to read, or nothing more.
    changed: Condvar,
}

#[derive(Default)]
struct Reading {
    waiting: VecDeque<Read>,
    /// How many readers have nothing to do.
    idle: usize,
    /// One of them has been woken and has not taken anything yet.
    is_waking: bool,
    is_closed: bool,
}

struct Read {
    snapshot: Snapshot,
    operation: Box<dyn Operation>,
}

type Connections = r2d2::Pool<SqliteConnectionManager>;

impl Readers {
    pub(super) fn open(connections: SqliteConnectionManager) -> Result<Self> {
        let connections = r2d2::Pool::builder()
            .max_size(READERS)
            .test_on_check_out(false)
            // A failure is the result of the reads that wait for the connection.
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build(connections)?;
        let shared = Arc::new(Shared {
            reading: Mutex::default(),
            changed: Condvar::new(),
        });
        let readers = Self {
            shared,
            threads: Mutex::default(),
        };
        for _ in 0..READERS {
            let (shared, connections) = (Arc::clone(&readers.shared), connections.clone());
            // Not one of the runtime's: waking those takes more switches between threads.
            let thread = std::thread::Builder::new()
                .name("reader".to_owned())
                .spawn(move || shared.read_all(&connections))?;
            readers.threads.lock().push(thread);
        }
        Ok(readers)
    }

    /// Runs statements in a snapshot that began after this was called.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        snapshot: Snapshot,
        operation: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        let operation: Box<dyn Operation> =
            Box::new(Waiting::new(Locks::none(), operation, sender));
        let wakes = {
            let mut reading = self.shared.reading.lock();
            if reading.is_closed {
                return Err(StoreError::Closed);
            }
            reading.waiting.push_back(Read {
                snapshot,
                operation,
            });
            reading.wakes_another()
        };
        if wakes {
            self.shared.changed.notify_one();
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Finishes the reads that wait, and closes the connections.
    pub(super) fn close(&self) {
        self.end();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            let _ = thread.join();
        }
    }

    fn end(&self) {
        self.shared.reading.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn read_all(&self, connections: &Connections) {
        while let Some((batch, wakes)) = self.wait() {
            if wakes {
                self.changed.notify_one();
            }
            read_batch(connections, batch);
        }
    }

    /// The next batch, and whether another reader is to be woken for what remains; `None` once all is read.
    fn wait(&self) -> Option<(Vec<Read>, bool)> {
        let mut reading = self.reading.lock();
        loop {
            let batch = reading.next();
            if !batch.is_empty() {
                return Some((batch, reading.wakes_another()));
            }
            if reading.is_closed {
                return None;
            }
            reading.idle += 1;
            self.changed.wait(&mut reading);
            reading.idle -= 1;
            reading.is_waking = false;
        }
    }
}

impl Reading {
    /// Whether to wake an idle reader for what waits. One that is waking takes it too.
    fn wakes_another(&mut self) -> bool {
        let wakes = !self.waiting.is_empty() && self.idle > 0 && !self.is_waking;
        self.is_waking |= wakes;
        wakes
    }

    /// The next reads that share a snapshot, or the next long one.
    fn next(&mut self) -> Vec<Read> {
        self.waiting.retain(|read| read.operation.is_awaited());
        let first = self.waiting.iter().take(SHARED);
        let short = first
            .take_while(|read| read.snapshot != Snapshot::Own)
            .count();
        let taken = short.max(1).min(self.waiting.len());
        self.waiting.drain(..taken).collect()
    }
}

fn read_batch(connections: &Connections, batch: Vec<Read>) {
    let in_snapshot = match &*batch {
        [read] => read.snapshot != Snapshot::NotNeeded,
        _ => true,
    };
    let mut batch: Vec<_> = batch.into_iter().map(|read| read.operation).collect();
    let read = match connections.get() {
        Ok(mut db) => read_in(&mut db, in_snapshot, &mut batch).map_err(StoreError::from),
        Err(error) => Err(error.into()),
    };
    match read {
        Ok(()) => batch.into_iter().for_each(|read| read.answer(None)),
        Err(error) => fail_all(batch, error),
    }
}

fn read_in(
    db: &mut Connection,
    in_snapshot: bool,
    batch: &mut [Box<dyn Operation>],
) -> rusqlite::Result<()> {
    if in_snapshot {
        db.prepare_cached("begin")?.execute([])?;
    }
    let tx = Tx::sqlite(db, Millis(0), History(0));
    for read in batch {
        // A failure can end the snapshot. Each statement would then see another state.
        if in_snapshot && !tx.is_open() {
            read.fail(StoreError::unavailable("the transaction has ended"));
            continue;
        }
        // A read that panics has no answer, and fails alone.
        let done = catch_unwind(AssertUnwindSafe(|| at_once(read.run(&tx))));
        if let Ok(Err(failure)) = done {
            read.fail(failure.into());
        }
    }
    drop(tx);
    if !db.is_autocommit() {
        db.prepare_cached("commit")?.execute([])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;

    fn open() -> (tempfile::TempDir, Connection, Arc<Readers>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("some.db");
        let db = Connection::open(&file).unwrap();
        let made = "pragma journal_mode = wal; create table notes (note text) -- in tests";
        db.execute_batch(made).unwrap();
        let readers = Readers::open(SqliteConnectionManager::file(&file)).unwrap();
        (folder, db, Arc::new(readers))
    }

    /// Keeps every reader at work until the sender is dropped.
    async fn all_busy(readers: &Arc<Readers>) -> mpsc::Sender<()> {
        let (sender, until) = mpsc::channel();
        let until = Arc::new(Mutex::new(until));
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..READERS {
            let (readers, until, begun) = (Arc::clone(readers), Arc::clone(&until), begun.clone());
            tokio::spawn(async move {
                readers
                    .read(Snapshot::Own, async move |_| {
                        begun.send(()).unwrap();
                        let _ = until.lock().recv();
                        Ok(())
                    })
                    .await
            });
            begins.recv().await.unwrap();
        }
        sender
    }

    async fn notes(readers: &Readers) -> Result<i64> {
        let count = async |tx: &Tx<'_>| tx.the("select count(*) from notes -- in tests", &[]).await;
        readers.read(Snapshot::Shared, count).await
    }

    #[test]
    fn short_reads_share_a_snapshot_and_a_long_one_has_its_own() {
        use Snapshot::{NotNeeded, Own, Shared};
        let mut reading = Reading::default();
        let mut answers = Vec::new();
        let mut ask = |snapshot, is_awaited: bool| {
            let (sender, answer) = oneshot::channel::<Result<()>>();
            answers.extend(is_awaited.then_some(answer));
            let operation = Box::new(Waiting::new(
                Locks::none(),
                async |_: &Tx<'_>| Ok(()),
                sender,
            ));
            reading.waiting.push_back(Read {
                snapshot,
                operation,
            });
        };
        for snapshot in [Shared, NotNeeded, Own, Own, Shared] {
            ask(snapshot, true);
        }
        ask(Own, false);
        (0..SHARED).for_each(|_| ask(Shared, true));
        let batches: Vec<_> = std::iter::repeat_with(|| reading.next().len())
            .take_while(|taken| *taken > 0)
            .collect();
        assert_eq!(batches, [2, 1, 1, SHARED, 1]);
    }

    #[tokio::test]
    async fn reads_that_wait_see_what_was_committed_before_and_fail_alone() {
        let (_folder, db, readers) = open();
        let busy = all_busy(&readers).await;
        db.execute("insert into notes values ('committed')", [])
            .unwrap();
        let late = join_all((0..3).map(|_| notes(&readers)));
        let wrong = readers.read(Snapshot::Shared, async |tx| {
            tx.run("select nothing", &[]).await
        });
        let panics = readers.read(Snapshot::Shared, async |_| -> Sql<()> {
            panic!("in tests")
        });
        let free = async { drop(busy) };
        let (late, wrong, panicked, ()) = tokio::join!(late, wrong, panics, free);
        assert!(late.into_iter().all(|notes| notes.unwrap() == 1));
        assert!(matches!(wrong, Err(StoreError::Database(_))));
        assert!(matches!(panicked, Err(StoreError::Closed)));
        assert_eq!(notes(&readers).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_any_more_holds_up_no_other() {
        let (_folder, _db, readers) = open();
        for _ in 0..100 {
            // A reader has been woken for it, and finds nothing.
            let mut given_up = Box::pin(notes(&readers));
            let _ = futures_util::poll!(&mut given_up);
            drop(given_up);
            while !readers.shared.reading.lock().waiting.is_empty() {
                std::thread::yield_now();
            }
            let next = tokio::time::timeout(Duration::from_secs(10), notes(&readers));
            assert_eq!(next.await.expect("an answer").unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn a_long_read_delays_no_other() {
        let (_folder, _db, readers) = open();
        let (sender, until) = mpsc::channel::<()>();
        let long = readers.read(Snapshot::Own, async move |_| {
            let _ = until.recv();
            Ok(())
        });
        let short = async {
            let notes = notes(&readers).await;
            drop(sender);
            notes
        };
        let (long, short) = tokio::join!(long, short);
        assert_eq!((long.unwrap(), short.unwrap()), ((), 0));
    }

    #[tokio::test]
    async fn closing_finishes_what_waits_and_refuses_the_rest() {
        let (_folder, _db, readers) = open();
        let busy = all_busy(&readers).await;
        let closing = {
            let readers = Arc::clone(&readers);
            async move { tokio::task::spawn_blocking(move || readers.close()).await }
        };
        let waiting = notes(&readers);
        let free = async {
            while !readers.shared.reading.lock().is_closed {
                tokio::task::yield_now().await;
            }
            assert!(matches!(notes(&readers).await, Err(StoreError::Closed)));
            drop(busy);
        };
        let (waited, closed, ()) = tokio::join!(waiting, closing, free);
        assert_eq!(waited.unwrap(), 0);
        closed.unwrap();
    }
}
