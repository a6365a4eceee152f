//! The store in a PostgreSQL database, which several nodes may share: one writer and a pool of
//! readers in each.
//!
//! What must hold across nodes holds by the database's own rules: unique keys, locks of rows, and its
//! clock. Here is what each act asks of it; the statements are in the files beside.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool, PoolError, Transaction};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::IsolationLevel;
use uuid::Uuid;

use super::{
    Access, Amend, Amended, Arrival, Arrived, Begun, CatchUp, Census, Change, Entered, Left, Moved,
    NewSession, Post, Posted, React, Reacted, Renamed, Result, Returning, Session, Store,
    StoreError, Synchronous,
};
use crate::model::{
    Busy, ClientId, DisplayName, Emoji, GroupName, Message, MessageId, Millis, NewUser, NodeId,
    Page, PasswordHash, Person, Room, RoomId, Target, TokenHash, User, UserId, Version,
};
use crate::moderation::{
    Deed, DeedRecord, FoundMessages, GroupRecord, Moderated, Moderation, PersonRecord, Search,
    Standing,
};

mod moderation;
pub(super) mod opening;
mod people;
mod rooms;
mod sql;
mod writer;

use opening::Purpose;
use sql::{Sql, count, end_of, sought};
use writer::{Acting, By, Listeners, Rooms, Waiting, Write, Writer, Writing};

/// How many committed changes may wait for the node's delivery before the writer waits for it.
const CHANGES_WAITING: usize = 4096;
/// How many readers, and so reads at one time.
const READERS: usize = 8;
/// How long a read may take.
const DEADLINE: Duration = Duration::from_secs(10);

impl StoreError {
    fn failed(words: &'static str) -> Self {
        Self::Database(words.into())
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            // Without the details, which quote what people wrote.
            Some(refused) => {
                Self::Database(format!("{} ({})", refused.message(), refused.code().code()).into())
            }
            None => Self::Database(error.into()),
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Closed => Self::Closed,
            PoolError::Backend(error) => error.into(),
            other => Self::Database(other.into()),
        }
    }
}

/// The store in a PostgreSQL database.
pub struct PostgresStore {
    readers: Pool,
    writer: Mutex<Option<mpsc::UnboundedSender<Box<dyn Write>>>>,
    writing: Mutex<Option<JoinHandle<()>>>,
    listeners: Listeners,
    /// The nodes that work by this.
    nodes: Mutex<HashSet<NodeId>>,
}

impl PostgresStore {
    /// Opens the database at an address, making and migrating the tables where needed. Whoever other
    /// nodes hold is left alone.
    pub async fn open(address: &str, synchronous: Synchronous, access: Access) -> Result<Self> {
        let config = opening::configuration(address)?;
        let readers = opening::connections(&config, Purpose::Reading, READERS)?;
        let mut db = readers.get().await?;
        opening::migrate(&mut db).await?;
        if access == Access::Server {
            opening::start(&db).await?;
        }
        drop(db);

        let id = rand::random();
        let listeners = Listeners::default();
        let purpose = Purpose::Writing(id, synchronous);
        let writer = Writer::new(
            id,
            opening::connections(&config, purpose, 1)?,
            Arc::clone(&listeners),
        );
        let (sender, writes) = mpsc::unbounded_channel();
        Ok(Self {
            readers,
            writer: Mutex::new(Some(sender)),
            writing: Mutex::new(Some(tokio::spawn(writer.write_all(writes)))),
            listeners,
            nodes: Mutex::default(),
        })
    }

    /// Runs a write in the writer's next transaction, these rooms being locked, and answers after its
    /// commit.
    async fn write<I, T>(
        &self,
        rooms: Rooms,
        input: I,
        act: impl for<'a> Fn(&'a mut Writing<'_>, &'a I) -> Acting<'a, T> + Send + 'static,
    ) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        self.write_if(None, rooms, input, act).await
    }

    /// The same for a client, if it stands, and for its user.
    async fn write_for<I, T>(
        &self,
        client: Returning,
        user: UserId,
        rooms: Rooms,
        input: I,
        act: impl for<'a> Fn(&'a mut Writing<'_>, &'a I) -> Acting<'a, T> + Send + 'static,
    ) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let by = Some((client, Some(user)));
        self.write_if(by, rooms, input, act).await
    }

    async fn write_if<I, T>(
        &self,
        by: Option<By>,
        rooms: Rooms,
        input: I,
        act: impl for<'a> Fn(&'a mut Writing<'_>, &'a I) -> Acting<'a, T> + Send + 'static,
    ) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting {
            by,
            rooms,
            input,
            act,
            done: Err(StoreError::Closed),
            answer: sender,
        };
        {
            let writer = self.writer.lock();
            let writer = writer.as_ref().ok_or(StoreError::Closed)?;
            let sent = writer.send(Box::new(waiting));
            sent.map_err(|_| StoreError::Closed)?;
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Asks one thing.
    async fn ask<T>(&self, act: impl AsyncFnOnce(&Object) -> Sql<T>) -> Result<T> {
        let reader = self.readers.get().await?;
        let done = timeout(DEADLINE, act(&reader)).await;
        in_time(done, reader)
    }

    /// Reads several things in one snapshot.
    async fn read<T>(&self, act: impl AsyncFnOnce(&Transaction<'_>) -> Sql<T>) -> Result<T> {
        let mut reader = self.readers.get().await?;
        let done = timeout(DEADLINE, async {
            let snapshot = reader
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await?;
            act(&snapshot).await
        });
        let done = done.await;
        in_time(done, reader)
    }

    /// The rooms that those clients look at which may end with a session.
    async fn ended_by(&self, session: Option<TokenHash>) -> Result<Rooms> {
        let Some(session) = session else {
            return Ok(Rooms::none());
        };
        let clients = self.ask(async |db| people::clients_by(db, session).await);
        clients.await.map(Rooms::of)
    }

    fn works_by_this(&self, node: NodeId) {
        let mut nodes = self.nodes.lock();
        nodes.insert(node);
    }

    fn own_nodes(&self) -> Vec<i64> {
        let nodes = self.nodes.lock();
        nodes.iter().map(|node| node.0).collect()
    }
}

/// A connection that does not answer is not used again.
fn in_time<T>(
    done: std::result::Result<Sql<T>, tokio::time::error::Elapsed>,
    reader: Object,
) -> Result<T> {
    match done {
        Ok(done) => Ok(done?),
        Err(_) => {
            drop(Object::take(reader));
            Err(StoreError::failed("the database takes too long"))
        }
    }
}

/// Of a room that whoever asks has made sure of.
fn there<T>(found: Option<T>) -> Result<T> {
    found.ok_or(StoreError::failed("there is no such room"))
}

#[async_trait]
impl Store for PostgresStore {
    async fn identity(&self) -> Result<String> {
        self.ask(async |db| {
            // A copy has another number.
            sql::value(
                db,
                "select concat_ws('-', life.identity, d.oid) from life, pg_database d
                 where d.datname = current_database()",
                &[],
            )
            .await
        })
        .await
    }

    async fn join(&self, node: NodeId) -> Result<mpsc::Receiver<Change>> {
        self.renew_lease(node).await?;
        let (sender, changes) = mpsc::channel(CHANGES_WAITING);
        self.listeners.lock().insert(node, sender);
        Ok(changes)
    }

    async fn renew_lease(&self, node: NodeId) -> Result<()> {
        self.works_by_this(node);
        self.write(Rooms::none(), node, |writing, node| {
            Box::pin(people::renew_lease(writing.db, *node, writing.now))
        })
        .await
    }

    async fn expire(&self, node: NodeId, now: Millis) -> Result<Vec<Left>> {
        // Time goes by the database's clock; of the caller's counts only how far it is ahead.
        let ahead = now.0.saturating_sub(Millis::now().0).max(0);
        let due = self.ask(async |db| people::is_anything_due(db, node, ahead).await);
        if !due.await? {
            return Ok(Vec::new());
        }
        let dead = self.ask(async |db| people::clients_of_dead(db, node, ahead).await);
        let rooms = Rooms::of(dead.await?);
        self.write(rooms, (node, ahead), |writing, (node, ahead)| {
            let now = Millis(writing.now.0.saturating_add(*ahead));
            Box::pin(people::expire(writing.db, *node, now))
        })
        .await
    }

    async fn returning(
        &self,
        token: TokenHash,
        by: Option<TokenHash>,
    ) -> Result<Option<(Returning, Option<NodeId>)>> {
        self.read(async |db| people::returning(db, token, by).await)
            .await
    }

    async fn arrive(&self, arrival: Arrival) -> Result<Arrived> {
        self.works_by_this(arrival.node);
        self.write(Rooms::none(), arrival, |writing, arrival| {
            Box::pin(people::arrive(writing.db, arrival, writing.now))
        })
        .await
    }

    async fn end(&self, node: NodeId) -> Result<Vec<Left>> {
        self.write(Rooms::none(), node, |writing, node| {
            Box::pin(people::end(writing.db, *node, writing.now))
        })
        .await
    }

    async fn leave(&self, clients: Vec<Returning>) -> Result<Vec<Left>> {
        let rooms = Rooms::of(clients.iter().map(|client| client.client).collect());
        self.write(rooms, clients, |writing, clients| {
            Box::pin(people::leave(writing.db, clients, writing.now))
        })
        .await
    }

    async fn enter(
        &self,
        client: Returning,
        user: UserId,
        target: Target,
    ) -> Result<(Entered, Moved)> {
        self.write_for(
            client,
            user,
            rooms::rooms_of(client.client, &target),
            (client.client, user, target),
            |writing, (client, user, target)| {
                Box::pin(rooms::enter(writing, *client, *user, target))
            },
        )
        .await
    }

    async fn leave_room(&self, client: Returning) -> Result<Moved> {
        let (by, rooms) = (Some((client, None)), Rooms::of(vec![client.client]));
        let left = self.write_if(by, rooms, client.client, |writing, client| {
            Box::pin(rooms::go_out(writing.db, *client, None))
        });
        let left = left.await?;
        Ok(Moved { came: false, left })
    }

    async fn keep(
        &self,
        token: TokenHash,
        password: PasswordHash,
        session: NewSession,
    ) -> Result<Option<Begun>> {
        self.write(
            self.ended_by(session.former).await?,
            (token, password, session),
            |writing, (token, password, session)| {
                let (db, now) = (writing.db, writing.now);
                Box::pin(people::keep_name(db, *token, password, *session, now))
            },
        )
        .await
    }

    async fn account(&self, name: &str) -> Result<Option<(User, PasswordHash)>> {
        let name = GroupName::key_of(name);
        self.read(async |db| people::account(db, &name).await).await
    }

    async fn begin_session(
        &self,
        user: UserId,
        password: PasswordHash,
        new: NewSession,
    ) -> Result<Option<Begun>> {
        self.write(
            self.ended_by(new.former).await?,
            (user, password, new),
            |writing, (user, password, new)| {
                let (db, now) = (writing.db, writing.now);
                Box::pin(people::sign_in(db, *user, password, *new, now))
            },
        )
        .await
    }

    async fn session(&self, token: TokenHash) -> Result<Option<Session>> {
        self.ask(async |db| people::session(db, token).await).await
    }

    async fn end_session(&self, token: TokenHash) -> Result<Option<Session>> {
        let rooms = self.ended_by(Some(token)).await?;
        self.write(rooms, token, |writing, token| {
            Box::pin(people::end_session(writing.db, *token))
        })
        .await
    }

    async fn change_password(
        &self,
        session: TokenHash,
        was: PasswordHash,
        password: PasswordHash,
    ) -> Result<Option<Session>> {
        self.write(
            self.ended_by(Some(session)).await?,
            (session, was, password),
            |writing, (session, was, password)| {
                Box::pin(people::change_password(writing.db, *session, was, password))
            },
        )
        .await
    }

    async fn private_room(&self, client: Returning, user: UserId, name: &str) -> Result<Entered> {
        self.write_for(
            client,
            user,
            Rooms::none(),
            (user, name.to_owned()),
            |writing, (user, name)| {
                let (db, now) = (writing.db, writing.now);
                Box::pin(rooms::private_room_with(db, *user, name, now))
            },
        )
        .await
    }

    async fn rename(
        &self,
        client: Returning,
        user: UserId,
        name: Option<DisplayName>,
        namesakes: u32,
    ) -> Result<Renamed> {
        self.write_for(
            client,
            user,
            Rooms::none(),
            (user, name, namesakes),
            |writing, (user, name, namesakes)| {
                Box::pin(people::rename(writing, *user, name.as_ref(), *namesakes))
            },
        )
        .await
    }

    async fn person_called(&self, names: Vec<String>) -> Result<Option<(usize, User)>> {
        self.read(async |db| people::person_called(db, &names).await)
            .await
    }

    async fn pair(&self, room: RoomId) -> Result<Option<[User; 2]>> {
        self.ask(async |db| rooms::pair(db, room).await).await
    }

    async fn make_group(&self, client: Returning, maker: UserId, name: GroupName) -> Result<bool> {
        self.write_for(
            client,
            maker,
            Rooms::none(),
            (maker, name),
            |writing, (maker, name)| {
                Box::pin(rooms::make_group(writing.db, *maker, name, writing.now))
            },
        )
        .await
    }

    async fn post(&self, new: Post) -> Result<Posted> {
        let (client, author, room) = (new.client, new.author, Rooms::one(new.room));
        self.write_for(client, author, room, new, |writing, new| {
            Box::pin(rooms::post(writing, new))
        })
        .await
    }

    async fn known(&self, author: UserId, key: Uuid) -> Result<Option<(Message, Room)>> {
        self.read(async |db| {
            let Some(message) = rooms::known(db, author, key).await? else {
                return Ok(None);
            };
            let room = rooms::room(db, author, message.room).await?;
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
        self.read(async |db| rooms::open_message(db, user, room, message, limit).await)
            .await
    }

    async fn amend(&self, change: Amend) -> Result<Amended> {
        let (client, author, room) = (change.client, change.author, Rooms::one(change.room));
        self.write_for(client, author, room, change, |writing, change| {
            Box::pin(rooms::amend(writing, change))
        })
        .await
    }

    async fn react(&self, reaction: React) -> Result<Reacted> {
        let (client, user, room) = (reaction.client, reaction.user, Rooms::one(reaction.room));
        self.write_for(client, user, room, reaction, |writing, reaction| {
            Box::pin(rooms::react(writing, reaction))
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
        self.ask(async |db| rooms::reactions_of(db, user, room, (first, last), limit).await)
            .await
    }

    async fn standing(&self, user: UserId) -> Result<Standing> {
        self.ask(async |db| moderation::standing(db, user).await)
            .await
    }

    async fn strays(&self, clients: Vec<Returning>) -> Result<Vec<ClientId>> {
        self.ask(async |db| moderation::strays(db, &clients).await)
            .await
    }

    async fn banned(&self, users: Vec<UserId>) -> Result<Vec<UserId>> {
        self.ask(async |db| moderation::banned(db, &users).await)
            .await
    }

    async fn add_admin_link(&self, token: TokenHash) -> Result<()> {
        self.write(Rooms::none(), token, |writing, token| {
            Box::pin(moderation::add_admin_link(writing.db, *token, writing.now))
        })
        .await
    }

    async fn is_admin_link(&self, token: TokenHash) -> Result<bool> {
        self.ask(async |db| moderation::is_admin_link(db, token).await)
            .await
    }

    async fn become_moderator(&self, link: TokenHash, user: UserId) -> Result<bool> {
        self.write(Rooms::none(), (link, user), |writing, (link, user)| {
            let (db, now) = (writing.db, writing.now);
            Box::pin(moderation::become_moderator(db, *link, *user, now))
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
        self.write(
            Rooms::none(),
            (link, spare, password, session),
            |writing, (link, spare, password, session)| {
                let (db, now) = (writing.db, writing.now);
                Box::pin(people::arrive_as_moderator(
                    db, *link, spare, password, *session, now,
                ))
            },
        )
        .await
    }

    async fn end_moderator(&self, name: &str) -> Result<bool> {
        self.write(Rooms::none(), name.to_owned(), |writing, name| {
            Box::pin(moderation::end_moderator(writing.db, name, writing.now))
        })
        .await
    }

    async fn moderate(&self, moderation: Moderation) -> Result<Moderated> {
        let rooms = match &moderation.deed {
            // Those that the clients look at which end with it.
            Deed::Ban { name, .. } => {
                let clients = self.ask(async |db| people::clients_of(db, name).await);
                Rooms::of(clients.await?)
            }
            deed => moderation::room_of(deed).map_or_else(Rooms::none, Rooms::one),
        };
        let (client, by) = (moderation.client, moderation.by);
        self.write_for(client, by, rooms, moderation, |writing, moderation| {
            Box::pin(moderation::moderate(writing, moderation))
        })
        .await
    }

    async fn group_records(
        &self,
        beginning: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<GroupRecord>> {
        self.read(async |db| moderation::group_records(db, beginning, after, limit).await)
            .await
    }

    async fn group_record(&self, room: RoomId) -> Result<Option<GroupRecord>> {
        self.ask(async |db| moderation::group_record(db, room).await)
            .await
    }

    async fn person_records(
        &self,
        beginning: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<PersonRecord>> {
        self.read(async |db| moderation::person_records(db, beginning, after, limit).await)
            .await
    }

    async fn message_records(&self, search: Search) -> Result<FoundMessages> {
        self.read(async |db| moderation::message_records(db, &search).await)
            .await
    }

    async fn deeds(&self, before: i64, limit: usize) -> Result<Vec<DeedRecord>> {
        self.ask(async |db| moderation::deeds(db, before, limit).await)
            .await
    }

    async fn mark_read(&self, reads: Vec<(Returning, UserId, RoomId, MessageId)>) -> Result<()> {
        // Locked, so that what is written meanwhile is counted by one or the other.
        let rooms = Rooms {
            ids: reads.iter().map(|(_, _, room, _)| *room).collect(),
            ..Rooms::none()
        };
        self.write(rooms, reads, |writing, reads| {
            let db = writing.db;
            Box::pin(async move {
                let by = |read: &(Returning, UserId, _, _)| Some((read.0, Some(read.1)));
                let clients: Vec<_> = reads.iter().map(by).collect();
                let standing = people::who_stand(db, &clients).await?;
                for (n, (_, user, room, upto)) in reads.iter().enumerate() {
                    if standing.contains(&n) {
                        rooms::mark_read(db, *user, *room, *upto).await?;
                    }
                }
                Ok(())
            })
        })
        .await
    }

    async fn groups(&self, user: Option<UserId>, limit: usize) -> Result<Vec<Room>> {
        self.read(async |db| rooms::groups(db, user, limit).await)
            .await
    }

    async fn busiest_groups(&self, limit: usize) -> Result<Vec<Busy>> {
        self.ask(async |db| {
            sql::all(
                db,
                "select id, name, people from rooms
                 where kind = 'group' and restricted_at is null and removed_at is null
                 order by people desc, name_key limit $1",
                &[&(limit as i64)],
                rooms::busy,
            )
            .await
        })
        .await
    }

    async fn find_groups(&self, beginning: &str, limit: usize) -> Result<Vec<Busy>> {
        let beginning = sought(&GroupName::key_of(beginning));
        self.ask(async |db| {
            sql::all(
                db,
                "select id, name, people from rooms
                 where name_key >= $1 and name_key < $2
                 and restricted_at is null and removed_at is null
                 order by name_key limit $3",
                &[&beginning, &end_of(&beginning), &(limit as i64)],
                rooms::busy,
            )
            .await
        })
        .await
    }

    async fn group(&self, name: &str, me: Option<UserId>) -> Result<Option<Room>> {
        self.ask(async |db| rooms::group(db, me, name).await).await
    }

    async fn versions(&self, rooms: Vec<RoomId>) -> Result<Vec<Version>> {
        let rooms: Vec<i64> = rooms.into_iter().map(|room| room.0).collect();
        self.ask(async |db| {
            sql::all(
                db,
                "select id, history, version from rooms where id = any($1)",
                &[&rooms],
                rooms::version_in,
            )
            .await
        })
        .await
    }

    async fn newest(&self, room: RoomId) -> Result<Page> {
        let page = self.read(async |db| rooms::page(db, room, i64::MAX).await);
        there(page.await?)
    }

    async fn older(&self, room: RoomId, before: MessageId) -> Result<Page> {
        let page = self.read(async |db| rooms::page(db, room, before.0).await);
        there(page.await?)
    }

    async fn changed_among(
        &self,
        room: RoomId,
        first: MessageId,
        last: MessageId,
        after: u64,
    ) -> Result<Page> {
        let page = self.read(async |db| rooms::changed_among(db, room, (first, last), after).await);
        there(page.await?)
    }

    async fn worded_since(&self, room: RoomId, after: u64) -> Result<(Vec<Message>, Version)> {
        let found = self.read(async |db| rooms::worded_since(db, room, after).await);
        there(found.await?)
    }

    async fn catch_up(&self, room: RoomId, after: Option<Version>) -> Result<CatchUp> {
        let found = self.read(async |db| rooms::catch_up(db, room, after).await);
        there(found.await?)
    }

    async fn people_online(&self, limit: usize) -> Result<(Vec<Person>, u64)> {
        self.read(async |db| people::online(db, limit).await).await
    }

    async fn people_in(&self, room: RoomId, limit: usize) -> Result<(Vec<Person>, u64)> {
        self.read(async |db| people::people_in(db, room, limit).await)
            .await
    }

    async fn people_of(&self, me: UserId, limit: usize) -> Result<Vec<Person>> {
        self.ask(async |db| people::people_of(db, me, limit).await)
            .await
    }

    async fn find_people(&self, beginning: &str, limit: usize) -> Result<Vec<Person>> {
        self.read(async |db| people::find_people(db, beginning, limit).await)
            .await
    }

    async fn add_users(&self, users: Vec<NewUser>) -> Result<u64> {
        self.write(Rooms::none(), users, |writing, users| {
            let db = writing.db;
            Box::pin(async move { Ok(people::add_users(db, users).await?.len() as u64) })
        })
        .await
    }

    async fn census(&self) -> Result<Census> {
        let mut db = self.readers.get().await?;
        let counting = db.transaction().await?;
        // However much there is to count.
        counting
            .batch_execute("set local statement_timeout = 0")
            .await?;
        let counted = sql::one(
            &counting,
            "select (select count(*) from users),
                (select count(*) from rooms where kind = 'private'),
                (select count(*) from messages)",
            &[],
            |row| {
                Ok(Census {
                    users: count(row, 0)?,
                    private_rooms: count(row, 1)?,
                    messages: count(row, 2)?,
                })
            },
        );
        counted
            .await?
            .ok_or(StoreError::failed("it counted nothing"))
    }

    async fn reset(&self) -> Result<()> {
        let mut db = self.readers.get().await?;
        let resetting = db.transaction().await?;
        // However much there is to delete.
        resetting
            .batch_execute("set local statement_timeout = 0; lock table nodes in exclusive mode")
            .await?;
        let others: bool = sql::value(
            &resetting,
            "select exists (select 1 from nodes where lease_until >= millis() and id <> all($1))",
            &[&self.own_nodes()],
        )
        .await?;
        if others {
            return Err(StoreError::InUse("this database".to_owned()));
        }
        resetting
            .batch_execute(
                "truncate messages, reactions, users_subscribed, clients_active, room_histories,
                    rooms, clients, sessions, users",
            )
            .await?;
        resetting.batch_execute(opening::DEFAULT_GROUPS).await?;
        resetting.commit().await?;
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        self.ask(async |db| sql::run(db, "select 1 from life", &[]).await)
            .await?;
        self.write(Rooms::none(), (), |_, ()| Box::pin(async { Ok(()) }))
            .await
    }

    async fn close(&self) {
        let nodes = self.own_nodes();
        if !nodes.is_empty() {
            // Else their leases run out.
            let ended = self.write(Rooms::none(), nodes, |writing, nodes| {
                Box::pin(people::end_nodes(writing.db, nodes, writing.now))
            });
            if let Err(error) = ended.await
                && !matches!(error, StoreError::Closed)
            {
                tracing::warn!(%error, "could not take leave of the database");
            }
        }
        self.writer.lock().take();
        let writing = self.writing.lock().take();
        if let Some(writing) = writing {
            let _ = writing.await;
        }
        self.readers.close();
        self.listeners.lock().clear();
    }
}
