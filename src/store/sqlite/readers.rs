//! The readers of a file: threads with a pool of connections, and the reads that wait for one of them.
//!
//! A reader takes the short reads that wait and runs them in one snapshot. Whatever was committed before a read was asked for is in
//! it, since the snapshot begins later. Reads that come together then share the pages that SQLite would otherwise read again for
//! each of them. A long read has a snapshot of its own, and one reader is always left for the short ones.

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
use crate::store::{Extent, Result, StoreError, fail_all};

/// How many readers there are, and so how many snapshots are read at a time.
const READERS: u32 = 4;
/// How many of them read at length at a time.
const AT_LENGTH: usize = 3;
/// How many reads share a snapshot at most.
const TOGETHER: usize = 32;

/// Threads that read, until they are closed or dropped. Then they finish what waits.
pub(super) struct Readers {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Queue {
    state: Mutex<State>,
    /// There is something to read, or nothing more.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    short: VecDeque<Read>,
    long: VecDeque<Read>,
    /// How many readers have nothing to do.
    idle: usize,
    /// One of them has been woken and has not taken anything yet.
    is_waking: bool,
    /// How many read at length.
    at_length: usize,
    is_closed: bool,
}

struct Read {
    extent: Extent,
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
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let readers = Self {
            queue,
            threads: Mutex::default(),
        };
        for _ in 0..READERS {
            let (queue, connections) = (Arc::clone(&readers.queue), connections.clone());
            // Not one of the runtime's: waking those takes more switches between threads.
            let thread = std::thread::Builder::new()
                .name("reader".to_owned())
                .spawn(move || queue.read_all(&connections))?;
            readers.threads.lock().push(thread);
        }
        Ok(readers)
    }

    /// Runs an operation on what was committed before this was called, and perhaps more.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        extent: Extent,
        operation: impl AsyncFn(&Tx<'_>) -> Sql<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        let operation = Box::new(Waiting::new(Locks::none(), operation, sender));
        {
            let mut state = self.queue.state.lock();
            if state.is_closed {
                return Err(StoreError::Closed);
            }
            state.push(Read { extent, operation });
            self.queue.wake_another(&mut state);
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
        self.queue.state.lock().is_closed = true;
        self.queue.changed.notify_all();
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Queue {
    fn read_all(&self, connections: &Connections) {
        while let Some(batch) = self.next() {
            let is_long = is_long(&batch);
            // Whoever waits for a batch that panics is told that it is closed.
            let _ = catch_unwind(AssertUnwindSafe(|| read_batch(connections, batch)));
            if is_long {
                self.state.lock().at_length -= 1;
            }
        }
    }

    /// Waits for the next batch; `None` once all is read.
    fn next(&self) -> Option<Vec<Read>> {
        let mut state = self.state.lock();
        loop {
            let batch = state.take();
            if !batch.is_empty() {
                self.wake_another(&mut state);
                return Some(batch);
            }
            if state.is_closed {
                return None;
            }
            state.idle += 1;
            self.changed.wait(&mut state);
            state.idle -= 1;
            state.is_waking = false;
        }
    }

    /// Wakes an idle reader for what waits. One that is waking takes it too.
    fn wake_another(&self, state: &mut State) {
        if state.has_next() && state.idle > 0 && !state.is_waking {
            state.is_waking = true;
            self.changed.notify_one();
        }
    }
}

impl State {
    fn push(&mut self, read: Read) {
        match read.extent {
            Extent::Long => self.long.push_back(read),
            Extent::Statement | Extent::Short => self.short.push_back(read),
        }
    }

    fn has_next(&self) -> bool {
        !self.short.is_empty() || !self.long.is_empty() && self.at_length < AT_LENGTH
    }

    /// The next short reads, which share a snapshot, or the next long one. While none of these runs it comes first, so that many
    /// short ones do not keep it waiting for ever.
    fn take(&mut self) -> Vec<Read> {
        let awaited = |read: &Read| read.operation.is_awaited();
        self.long.retain(awaited);
        let mut batch = Vec::new();
        while (self.long.is_empty() || self.at_length > 0)
            && batch.len() < TOGETHER
            && let Some(read) = self.short.pop_front()
        {
            batch.extend(Some(read).filter(awaited));
        }
        if batch.is_empty() && self.at_length < AT_LENGTH {
            batch.extend(self.long.pop_front());
        }
        self.at_length += usize::from(is_long(&batch));
        batch
    }
}

fn is_long(batch: &[Read]) -> bool {
    batch.iter().any(|read| read.extent == Extent::Long)
}

fn read_batch(connections: &Connections, batch: Vec<Read>) {
    let in_snapshot = match &*batch {
        [read] => read.extent != Extent::Statement,
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
    end_snapshot(db)?;
    for read in batch {
        // A failure, such as of the disk, can end the snapshot. The next read begins another.
        if in_snapshot && db.is_autocommit() {
            db.prepare_cached("begin")?.execute([])?;
        }
        let tx = Tx::sqlite(db, Millis(0), History(0));
        let done = catch_unwind(AssertUnwindSafe(|| at_once(read.run(&tx))));
        match done {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => read.fail(failure.into()),
            Err(_) => read.fail(StoreError::failed("the read panicked")),
        }
    }
    end_snapshot(db)
}

/// Also that of a former batch that panicked.
fn end_snapshot(db: &Connection) -> rusqlite::Result<()> {
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

    /// Keeps so many readers at work until the sender is dropped.
    async fn busy(readers: &Arc<Readers>, many: usize, extent: Extent) -> mpsc::Sender<()> {
        let (sender, until) = mpsc::channel();
        let until = Arc::new(Mutex::new(until));
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..many {
            let (readers, until, begun) = (Arc::clone(readers), Arc::clone(&until), begun.clone());
            tokio::spawn(async move {
                readers
                    .read(extent, async move |_| {
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
        readers.read(Extent::Short, count).await
    }

    #[test]
    fn short_reads_share_a_snapshot_and_one_long_read_goes_before_them() {
        use Extent::{Long, Short, Statement};
        let mut state = State::default();
        let mut answers = Vec::new();
        let mut ask = |extent, is_awaited: bool| {
            let (sender, answer) = oneshot::channel::<Result<()>>();
            answers.extend(is_awaited.then_some(answer));
            let operation = Box::new(Waiting::new(
                Locks::none(),
                async |_: &Tx<'_>| Ok(()),
                sender,
            ));
            state.push(Read { extent, operation });
        };
        for extent in [Short, Statement, Long, Long, Short] {
            ask(extent, true);
        }
        ask(Long, false);
        ask(Short, false);
        (0..TOGETHER).for_each(|_| ask(Short, true));
        (0..AT_LENGTH).for_each(|_| ask(Long, true));
        let batches: Vec<_> = std::iter::repeat_with(|| state.take().len())
            .take_while(|taken| *taken > 0)
            .collect();
        assert_eq!(batches, [1, TOGETHER, 3, 1, 1]);
        assert!(!state.has_next());
        state.at_length -= 1;
        assert!(state.has_next());
    }

    #[tokio::test]
    async fn reads_that_wait_see_what_was_committed_before_and_fail_alone() {
        let (_folder, db, readers) = open();
        let busy = busy(&readers, READERS as usize, Extent::Short).await;
        db.execute("insert into notes values ('committed')", [])
            .unwrap();
        let late = join_all((0..3).map(|_| notes(&readers)));
        let wrong = readers.read(Extent::Short, async |tx| {
            tx.run("select nothing", &[]).await
        });
        let panics = readers.read(Extent::Short, async |_| -> Sql<()> { panic!("in tests") });
        // Like a failure of the disk.
        let ends = readers.read(Extent::Short, async |tx| tx.run("rollback", &[]).await);
        let last = notes(&readers);
        let free = async { drop(busy) };
        let (late, wrong, panicked, ended, last, ()) =
            tokio::join!(late, wrong, panics, ends, last, free);
        assert!(late.into_iter().all(|notes| notes.unwrap() == 1));
        assert!(matches!(wrong, Err(StoreError::Database(_))));
        assert!(matches!(panicked, Err(StoreError::Database(_))));
        assert_eq!((ended.unwrap(), last.unwrap()), ((), 1));
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
            while !readers.queue.state.lock().short.is_empty() {
                std::thread::yield_now();
            }
            let next = tokio::time::timeout(Duration::from_secs(10), notes(&readers));
            assert_eq!(next.await.expect("an answer").unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn long_reads_delay_no_short_one() {
        let (_folder, _db, readers) = open();
        let busy = busy(&readers, AT_LENGTH, Extent::Long).await;
        let long = readers.read(Extent::Long, async |_| Ok(()));
        let short = async {
            let notes = notes(&readers).await;
            drop(busy);
            notes
        };
        let (long, short) = tokio::join!(long, short);
        assert_eq!((long.unwrap(), short.unwrap()), ((), 0));
    }

    #[tokio::test]
    async fn closing_finishes_what_waits_and_refuses_the_rest() {
        let (_folder, _db, readers) = open();
        let busy = busy(&readers, READERS as usize, Extent::Short).await;
        let closing = {
            let readers = Arc::clone(&readers);
            async move { tokio::task::spawn_blocking(move || readers.close()).await }
        };
        let waiting = notes(&readers);
        let free = async {
            while !readers.queue.state.lock().is_closed {
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
