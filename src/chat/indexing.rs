//! Keeping the index of the search up to date, in the background.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::log_failure;
use crate::model::RoomId;
use crate::store::{Change, Store, StoreError, Unindexed};

/// What changes within this time is indexed together.
const GATHERS: Duration = Duration::from_secs(1);
/// The index is built for at most a tenth of the time, so that posts are hardly delayed by it.
const PAUSES: u32 = 9;
/// How long until the next attempt after a failure.
const AGAIN: Duration = Duration::from_secs(5);

/// Indexes what is new in a store. It stops when it is dropped or the store is closed.
pub struct Indexer {
    rooms: Arc<Rooms>,
    wake: mpsc::Sender<()>,
}

/// The rooms with changes that are not indexed.
type Rooms = Mutex<HashSet<RoomId>>;

impl Indexer {
    /// Begins with what is not indexed yet. Requires a Tokio runtime.
    pub fn start(store: &Arc<Store>) -> Self {
        let (wake, woken) = mpsc::channel(1);
        let rooms = Arc::default();
        tokio::spawn(run(Arc::downgrade(store), Arc::clone(&rooms), woken));
        Self { rooms, wake }
    }

    /// Indexes this change too, if it has changed a text.
    pub fn note(&self, change: &Change) {
        if change.message.worded == change.version.number {
            self.rooms.lock().insert(change.message.room);
            // If it is full, the task is about to wake.
            let _ = self.wake.try_send(());
        }
    }
}

async fn run(store: Weak<Store>, rooms: Arc<Rooms>, mut woken: mpsc::Receiver<()>) {
    let mut begun = false;
    while let Some(store) = store.upgrade().filter(|_| !woken.is_closed()) {
        let indexed = match begun {
            false => begin(&store, &rooms).await.inspect(|_| begun = true),
            true => index(&store, &rooms).await,
        };
        drop(store);
        let wait = match indexed {
            Ok(true) => continue,
            Ok(false) => match woken.recv().await {
                Some(()) => GATHERS,
                None => return,
            },
            Err(StoreError::Closed) => return,
            Err(error) => {
                log_failure("update the index of the search", &error);
                AGAIN
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn begin(store: &Store, rooms: &Rooms) -> Result<bool, StoreError> {
    let behind = store.begin_indexing().await?;
    rooms.lock().extend(behind);
    Ok(true)
}

/// Indexes the next part. Returns whether there may be more.
async fn index(store: &Store, rooms: &Rooms) -> Result<bool, StoreError> {
    let room = rooms.lock().iter().next().copied();
    let Some(room) = room else {
        let part = store.unindexed_before().await?;
        return index_part(store, part).await;
    };
    // Noted again if it changes from here on.
    rooms.lock().remove(&room);
    let indexed = async {
        let part = store.unindexed(room).await?;
        index_part(store, part).await
    };
    let indexed = indexed.await;
    if !matches!(indexed, Ok(false)) {
        rooms.lock().insert(room);
    }
    indexed.map(|_| true)
}

async fn index_part(store: &Store, part: Option<Unindexed>) -> Result<bool, StoreError> {
    let Some(part) = part else { return Ok(false) };
    let began = Instant::now();
    store.index(part).await?;
    tokio::time::sleep(began.elapsed() * PAUSES).await;
    Ok(true)
}
