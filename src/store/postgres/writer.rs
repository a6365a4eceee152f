//! The one writer of a process: what waits becomes one transaction, and each write is answered once
//! its fate is known.
//!
//! The rooms of a batch are locked first and in the order of their ids, so that batches of several
//! nodes wait for each other and not in a ring; then the clients that it is written for, of which
//! those are found that stand, and which stand until the commit. Each write has a savepoint of its own. One that runs
//! into what another node does is undone alone and repeated by itself after the batch; a batch that
//! the database breaks off is repeated write by write.
//!
//! With each transaction its number is stored in the writer's row. Where the answer to a commit is
//! lost, that row tells whether it happened: before anything is answered, shown or written anew.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::people::{WHO_STAND, who_stand};
use super::sql::{self, Sql};
use crate::model::{ClientId, Millis, NodeId, RoomId, UserId};
use crate::store::{Change, Result, Returning, StoreError};

/// How many writes share one transaction at most.
const GROUP_COMMIT: usize = 512;
/// How long a batch may take before its commit, and how long that may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often one write is begun anew that runs into what other nodes do.
const ATTEMPTS: usize = 5;

pub(super) type Listeners = Arc<Mutex<HashMap<NodeId, mpsc::Sender<Change>>>>;
pub(super) type Acting<'a, T> = Pin<Box<dyn Future<Output = Sql<T>> + Send + 'a>>;

/// What a write works on.
pub(super) struct Writing<'a> {
    pub(super) db: &'a Object,
    pub(super) changes: Vec<(NodeId, Change)>,
    /// The database's clock when the rooms had been locked.
    pub(super) now: Millis,
}

/// The client that something is done for, and whose it must be if that is said.
pub(super) type By = (Returning, Option<UserId>);

/// The rooms that a write changes, as far as it can be told before.
#[derive(Default)]
pub(super) struct Rooms {
    /// These.
    pub(super) ids: Vec<RoomId>,
    /// Those that these clients look at.
    pub(super) of: Vec<ClientId>,
    /// The groups of these keys.
    pub(super) named: Vec<String>,
}

impl Rooms {
    pub(super) fn none() -> Self {
        Self::default()
    }

    pub(super) fn of(clients: Vec<ClientId>) -> Self {
        Self {
            of: clients,
            ..Self::default()
        }
    }

    fn are_none(&self) -> bool {
        self.ids.is_empty() && self.of.is_empty() && self.named.is_empty()
    }

    pub(super) fn one(room: RoomId) -> Self {
        Self {
            ids: vec![room],
            ..Self::default()
        }
    }
}

impl<'a> FromIterator<&'a Rooms> for Rooms {
    fn from_iter<T: IntoIterator<Item = &'a Rooms>>(all: T) -> Self {
        let mut rooms = Self::none();
        for some in all {
            rooms.ids.extend(&some.ids);
            rooms.of.extend(&some.of);
            rooms.named.extend_from_slice(&some.named);
        }
        rooms
    }
}

/// A write that waits for the writer. It can be run again.
#[async_trait]
pub(super) trait Write: Send {
    /// The client without which nothing is to be done.
    fn by(&self) -> Option<By>;
    /// The rooms to lock before.
    fn rooms(&self) -> &Rooms;
    /// Does it; what comes of it is kept until it is answered.
    async fn run(&mut self, writing: &mut Writing<'_>) -> Sql<()>;
    /// It failed in a way that is its own.
    fn fail(&mut self, error: StoreError);
    /// Says what came of it, or that all of it failed.
    fn answer(self: Box<Self>, failure: Option<StoreError>);
}

/// An act, what it is told, and who waits for what comes of it.
pub(super) struct Waiting<I, F, T> {
    pub(super) by: Option<By>,
    pub(super) rooms: Rooms,
    pub(super) input: I,
    pub(super) act: F,
    pub(super) done: Result<T>,
    pub(super) answer: oneshot::Sender<Result<T>>,
}

#[async_trait]
impl<I, F, T> Write for Waiting<I, F, T>
where
    I: Send + Sync,
    T: Send,
    F: for<'a> Fn(&'a mut Writing<'_>, &'a I) -> Acting<'a, T> + Send,
{
    fn by(&self) -> Option<By> {
        self.by
    }

    fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    async fn run(&mut self, writing: &mut Writing<'_>) -> Sql<()> {
        let acting = (self.act)(writing, &self.input);
        self.done = Ok(acting.await?);
        Ok(())
    }

    fn fail(&mut self, error: StoreError) {
        self.done = Err(error);
    }

    fn answer(self: Box<Self>, failure: Option<StoreError>) {
        // Whoever asked may have gone; what is committed stays.
        let _ = self.answer.send(failure.map_or(self.done, Err));
    }
}

/// How a transaction went.
enum Fate {
    /// These of its writes ran into what other nodes do and were undone.
    Committed { again: Vec<usize> },
    /// Nothing of it is left; it may be begun anew.
    Undone(StoreError),
    /// The database cannot be reached, or it is not known yet whether it was committed.
    Failed(StoreError),
}

pub(super) struct Writer {
    /// By which the database knows it.
    pub(super) id: i64,
    /// Of one connection.
    pub(super) connections: Pool,
    pub(super) listeners: Listeners,
    /// The number of its last transaction.
    batch: i64,
    /// The changes of a transaction of which it is not known whether it was committed.
    lost: Option<Vec<(NodeId, Change)>>,
}

impl Writer {
    pub(super) fn new(id: i64, connections: Pool, listeners: Listeners) -> Self {
        Self {
            id,
            connections,
            listeners,
            batch: 0,
            lost: None,
        }
    }

    /// The writer's life, until nobody can write any more.
    pub(super) async fn write_all(mut self, mut writes: mpsc::UnboundedReceiver<Box<dyn Write>>) {
        let mut batch = Vec::new();
        while writes.recv_many(&mut batch, GROUP_COMMIT).await > 0 {
            let waiting = std::mem::take(&mut batch);
            for write in self.together(waiting).await {
                self.alone(write).await;
            }
        }
        self.end().await;
    }

    /// Writes a batch. Answers those that are to be repeated by themselves.
    async fn together(&mut self, mut batch: Vec<Box<dyn Write>>) -> Vec<Box<dyn Write>> {
        match self.transact(&mut batch).await {
            Fate::Committed { again } => {
                let mut left = Vec::new();
                for (n, write) in batch.into_iter().enumerate() {
                    match again.contains(&n) {
                        true => left.push(write),
                        false => write.answer(None),
                    }
                }
                left
            }
            Fate::Undone(_) => batch,
            Fate::Failed(error) => {
                fail_all(batch, error);
                Vec::new()
            }
        }
    }

    /// Writes one write, several times if it runs into what other nodes do.
    async fn alone(&mut self, write: Box<dyn Write>) {
        let mut one = vec![write];
        let mut failure = StoreError::failed("other servers were in the way");
        for _ in 0..ATTEMPTS {
            match self.transact(&mut one).await {
                Fate::Committed { again } if again.is_empty() => {
                    one.into_iter().for_each(|write| write.answer(None));
                    return;
                }
                Fate::Committed { .. } => {}
                Fate::Undone(error) => failure = error,
                Fate::Failed(error) => {
                    failure = error;
                    break;
                }
            }
        }
        fail_all(one, failure);
    }

    /// Runs these writes in one transaction, and tells of their changes once it is committed.
    async fn transact(&mut self, batch: &mut [Box<dyn Write>]) -> Fate {
        let db = match self.connection().await {
            Ok(db) => db,
            Err(error) => return Fate::Failed(error),
        };
        self.batch += 1;
        let number = self.batch;
        let prepared = timeout(DEADLINE, prepare(&db, self.id, number, batch)).await;
        let (again, changes) = match prepared {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(error)) => {
                let undone = error.code().is_some() && db.batch_execute("rollback").await.is_ok();
                if !undone {
                    drop(Object::take(db));
                }
                return Fate::Undone(error.into());
            }
            Err(_) => {
                drop(Object::take(db));
                return Fate::Failed(StoreError::failed("the database takes too long"));
            }
        };
        let committed = timeout(DEADLINE, db.batch_execute("commit")).await;
        match committed {
            Ok(Ok(())) => {}
            // Whatever is said instead: the row tells for certain.
            lost => {
                drop(Object::take(db));
                self.lost = Some(changes);
                tracing::warn!("the answer to a commit was lost");
                return match self.settle().await {
                    Ok(true) => Fate::Committed { again },
                    Ok(false) => Fate::Undone(match lost {
                        Ok(Err(error)) => error.into(),
                        _ => StoreError::failed("the database takes too long"),
                    }),
                    Err(error) => Fate::Failed(error),
                };
            }
        }
        self.tell(changes).await;
        Fate::Committed { again }
    }

    /// A connection, once it is known what became of everything before.
    async fn connection(&mut self) -> Result<Object> {
        if self.lost.is_some() {
            self.settle().await?;
        }
        Ok(self.connections.get().await?)
    }

    /// Learns whether the transaction was committed whose answer was lost, and if so, tells of it.
    async fn settle(&mut self) -> Result<bool> {
        let db = self.connections.get().await?;
        // Waits for the one that was cut off, if it is not at its end yet.
        let sql = "select batch from writers where id = $1 for update";
        let stored = timeout(DEADLINE, async {
            sql::one(&db, sql, &[&self.id], |row| row.try_get::<_, i64>(0)).await
        });
        let stored = match stored.await {
            Ok(stored) => stored?,
            Err(_) => {
                drop(Object::take(db));
                return Err(StoreError::failed("the database takes too long"));
            }
        };
        let committed = stored == Some(self.batch);
        if let Some(changes) = self.lost.take()
            && committed
        {
            self.tell(changes).await;
        }
        Ok(committed)
    }

    async fn tell(&self, changes: Vec<(NodeId, Change)>) {
        for (node, change) in changes {
            let listener = self.listeners.lock().get(&node).cloned();
            if let Some(listener) = listener {
                // A node that has stopped listening has nobody to show it to.
                let _ = listener.send(change).await;
            }
        }
    }

    /// Nobody asks for its row any more.
    async fn end(mut self) {
        if self.batch == 0 {
            return;
        }
        let ended = async {
            let db = self.connection().await?;
            sql::run(&db, "delete from writers where id = $1", &[&self.id]).await?;
            Ok::<_, StoreError>(())
        };
        if let Ok(Err(error)) = timeout(DEADLINE, ended).await {
            tracing::warn!(%error, "could not take leave of the database");
        }
    }
}

/// Everything up to the commit: the writes that are to be repeated, and the changes of the others.
async fn prepare(
    db: &Object,
    writer: i64,
    number: i64,
    batch: &mut [Box<dyn Write>],
) -> Sql<(Vec<usize>, Vec<(NodeId, Change)>)> {
    let begin = format!(
        "begin; insert into writers (id, batch, seen_at) values ({writer}, {number}, millis())
         on conflict (id) do update set batch = excluded.batch, seen_at = excluded.seen_at"
    );
    // All is on its way before the first is answered.
    let rooms = batch.iter().map(|write| write.rooms()).collect();
    let by: Vec<_> = batch.iter().map(|write| write.by()).collect();
    let ((), (standing, now)) =
        tokio::try_join!(biased; db.batch_execute(&begin), lock(db, &rooms, &by))?;
    let mut writing = Writing {
        db,
        changes: Vec::new(),
        now,
    };
    let mut again = Vec::new();
    let mut savepoint = "savepoint act";
    for (n, write) in batch.iter_mut().enumerate() {
        if by[n].is_some() && !standing.contains(&n) {
            write.fail(StoreError::Gone);
            continue;
        }
        let before = writing.changes.len();
        let (_, done) = tokio::join!(biased; db.batch_execute(savepoint), write.run(&mut writing));
        savepoint = "release act; savepoint act";
        let Err(error) = done else { continue };
        writing.changes.truncate(before);
        // Fails as well where the connection has come to its end, and with it the batch.
        db.batch_execute("rollback to act").await?;
        match is_of_others(&error) {
            true => again.push(n),
            false => write.fail(error.into()),
        }
    }
    Ok((again, writing.changes))
}

const LOCK_ROOMS: &str = "select 1 from rooms where id in (
        select unnest($1::bigint[])
        union select room_id from clients_active where client_id = any($2)
        union select id from rooms where name_key = any($3))
    order by id for no key update";
const NOW: &str = "select millis()";

/// Locks the rooms of a batch, in one order for all nodes, and then the clients. Answers which of
/// these stand, and when all that was.
async fn lock(db: &Object, rooms: &Rooms, by: &[Option<By>]) -> Sql<(HashSet<usize>, Millis)> {
    // What is prepared goes out at once, and so in this order.
    for sql in [LOCK_ROOMS, WHO_STAND, NOW] {
        db.prepare_cached(sql).await?;
    }
    let ids: Vec<i64> = rooms.ids.iter().map(|room| room.0).collect();
    let of: Vec<i64> = rooms.of.iter().map(|client| client.0).collect();
    let rooms = async {
        match rooms.are_none() {
            true => Ok(0),
            false => sql::run(db, LOCK_ROOMS, &[&ids, &of, &rooms.named]).await,
        }
    };
    let now = sql::value(db, NOW, &[]);
    let (_, standing, now) = tokio::try_join!(biased; rooms, who_stand(db, by), now)?;
    Ok((standing, Millis(now)))
}

/// Whether a write failed for what another node has done meanwhile, which it sees when it is begun
/// anew: a row that it was first to make, one that it took away, or two that waited for each other.
fn is_of_others(error: &tokio_postgres::Error) -> bool {
    [
        SqlState::UNIQUE_VIOLATION,
        SqlState::FOREIGN_KEY_VIOLATION,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
    ]
    .iter()
    .any(|code| error.code() == Some(code))
}

fn fail_all(batch: Vec<Box<dyn Write>>, error: StoreError) {
    let error = Arc::new(error);
    for write in batch {
        write.answer(Some(StoreError::Database(Arc::clone(&error).into())));
    }
}
