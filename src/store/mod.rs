//! Where what happened is kept: one short list of acts, each one transaction.
//!
//! What a person may run into (no such room, a key already known) is a value; a [`StoreError`] is
//! a failure of ours. Nothing here knows HTML, sockets or who is listening.

pub mod moving;
pub mod postgres;
pub mod sqlite;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::model::{
    Busy, ClientId, DisplayName, Emoji, GroupName, Message, MessageId, MessageText, Millis,
    NewUser, NodeId, Page, PasswordHash, Person, Room, RoomId, SessionId, Target, TokenHash, User,
    UserId, Version,
};
use crate::moderation::{
    DeedRecord, FoundMessages, GroupRecord, Moderated, Moderation, PersonRecord, Search, Standing,
};

/// What the name of a group that is for moderators alone begins with, and no other's.
pub const RESTRICTED: &str = "!";
/// How long an untouched user stays with the token of whoever was them last.
pub const FREE_AFTER: Duration = Duration::from_secs(10 * 60);
/// How long a resume token is good after its socket was last here, or last turned away as banned.
pub const TOKEN_GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a session is good after it was last seen.
pub const SESSION_GOOD_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long an address that makes a moderator is good.
pub const ADMIN_LINK_GOOD_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a node's clients stand without it renewing its lease.
pub const LEASE: Duration = Duration::from_secs(15);

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
    /// The client that something was to be done for stands no more, so nothing is done. It is no
    /// answer of each act, since every caller does the same: it hangs up.
    #[error("this client stands no more")]
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

/// What a store act comes to.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Someone arrives: a socket has opened.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The node the socket is on.
    pub node: NodeId,
    /// The session they have signed in by, which goes before everything else while it is good.
    pub session: Option<TokenHash>,
    /// The client that is taken over, as [`Store::returning`] showed it.
    pub resume: Option<Returning>,
    /// By which they are known again: shown by whoever comes back, new for a newcomer.
    pub token: TokenHash,
    /// Who a newcomer becomes if no user is free.
    pub spare: Option<NewUser>,
}

/// A client that somebody comes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returning {
    /// Which.
    pub client: ClientId,
    /// How often it had been taken over.
    pub visit: i64,
}

/// How an arrival went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// As this client.
    As {
        /// The client.
        client: Returning,
        /// Its user.
        user: User,
        /// The session it came by; a guest has none.
        session: Option<SessionId>,
    },
    /// Somebody else came back to that client first, or its token is no longer good.
    Overtaken,
    /// Nobody can be the user of that client any more.
    Banned,
    /// Nobody is free, and there is no spare user or their name or e-mail address is taken.
    NobodyFree,
}

/// How entering a room went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Into this room.
    Room(Room),
    /// There is none of that name or id, or one may not know of it.
    NoSuchRoom,
    /// With oneself.
    Oneself,
}

/// What going from one room to another comes to for those who look at them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// No tab of theirs looked at the room before.
    pub came: bool,
    /// The room that no tab of theirs looks at any more.
    pub left: Option<RoomId>,
}

/// A client has gone. Of several of one person each goes after the one told before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Whose it was.
    pub user: User,
    /// The room it looked at, if no other client of theirs does.
    pub room: Option<RoomId>,
    /// It was their last: they are not here any more.
    pub last: bool,
}

/// How choosing a name went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renamed {
    /// They are called so.
    As {
        /// Who, by the new name.
        user: User,
        /// Who was called so and is not here: they are called by their user name again.
        former: Vec<UserId>,
        /// The private rooms of all of them that somebody looks at.
        rooms: Vec<RoomId>,
    },
    /// Somebody else has that name, or one that looks like it.
    Taken,
    /// Nothing that they write is taken.
    Muted,
}

/// Somebody has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Which session.
    pub id: SessionId,
    /// Who.
    pub user: User,
}

/// A session that begins.
#[derive(Clone, Copy, Debug)]
pub struct NewSession {
    /// By which it is known.
    pub token: TokenHash,
    /// The one it takes the place of, which ends.
    pub former: Option<TokenHash>,
}

/// A session has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// It, and whose it is.
    pub session: Session,
    /// The one that has ended for it.
    pub former: Option<Session>,
}

/// A message to be stored.
#[derive(Clone, Debug)]
pub struct Post {
    /// The node that is told of the change.
    pub node: NodeId,
    /// By which client.
    pub client: Returning,
    /// Who writes it.
    pub author: UserId,
    /// Where.
    pub room: RoomId,
    /// What.
    pub text: MessageText,
    /// Makes sending it again harmless.
    pub key: Option<Uuid>,
}

/// How posting went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// Stored; it also goes out on the stream of changes.
    New(Message),
    /// The key was known: this is what stands under it.
    Known(Message),
    /// The key was known, and what stands under it is in a room that the author may not know of.
    Settled,
    /// The author may not post there, or there is no such room.
    NoSuchRoom,
    /// Nothing that the author writes is taken.
    Muted,
}

/// What an author does to a message of theirs.
#[derive(Clone, Debug)]
pub struct Amend {
    /// The node that is told of the change.
    pub node: NodeId,
    /// By which client.
    pub client: Returning,
    /// Who changes it.
    pub author: UserId,
    /// The room it is in.
    pub room: RoomId,
    /// Which.
    pub message: MessageId,
    /// Its new text; `None` deletes it.
    pub text: Option<MessageText>,
}

/// How amending a message went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amended {
    /// It has been, which goes out on the stream of changes.
    Done(Message),
    /// It was as it was to be.
    Already(Message),
    /// There is no such message in that room, or one may not know of it.
    NoSuchMessage,
    /// Somebody else wrote it, and they are no moderator or want to change its text.
    NotYours,
    /// It has been deleted, so its text cannot be changed any more.
    Deleted,
    /// Nothing that they write is taken.
    Muted,
}

/// What somebody's answer to a message is to be.
#[derive(Clone, Copy, Debug)]
pub struct React {
    /// The node that is told of the change.
    pub node: NodeId,
    /// By which client.
    pub client: Returning,
    /// Who.
    pub user: UserId,
    /// The room the message is in.
    pub room: RoomId,
    /// Which.
    pub message: MessageId,
    /// With what.
    pub emoji: Emoji,
    /// Whether it is to be there or not.
    pub on: bool,
}

/// How reacting went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reacted {
    /// It is as it was to be, which goes out on the stream of changes.
    Done,
    /// It was so before.
    Already,
    /// There is no such message in that room, or one may not know of it.
    NoSuchMessage,
    /// The message has been deleted.
    Deleted,
    /// The message has [`Reaction::EMOJIS`](crate::model::Reaction::EMOJIS) others.
    TooMany,
    /// Nothing that they write is taken.
    Muted,
}

/// One stored step of a room: a message made or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The version it brought the room to.
    pub version: Version,
    /// The message as it is at that version.
    pub message: Message,
    /// The two people of a private room.
    pub between: Option<[UserId; 2]>,
    /// The reaction that it is, if it is one.
    pub reaction: Option<OwnReaction>,
}

/// What somebody's own reaction to a message has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnReaction {
    /// Whose.
    pub user: UserId,
    /// With what.
    pub emoji: Emoji,
    /// Whether it is there.
    pub on: bool,
}

/// What brings a reader of a room up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// They are.
    UpToDate,
    /// The messages made or changed since, oldest first, in their present state. Those with
    /// `made` up to `after` are older ones that changed.
    Changes {
        /// The version they had.
        after: Version,
        /// The version they come to.
        version: Version,
        /// The messages.
        messages: Vec<Message>,
    },
    /// More than a page has happened, or what they had is of another history.
    Newest(Page),
}

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

/// The acts. Each is one transaction: done and durable when it answers, or not done at all. What is
/// done for a client is done if it stands at that moment, as somebody's who has not left nor been
/// taken over, and else fails as [`StoreError::Gone`].
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// By what this store is told from all others, the same for all nodes of a database and for as
    /// long as it exists. A file, which has no other nodes, has another one each time it is opened.
    async fn identity(&self) -> Result<String>;

    /// A node begins to work on the store and gets the one stream of the changes that its own
    /// acts make, in the order in which they were committed.
    async fn join(&self, node: NodeId) -> Result<mpsc::Receiver<Change>>;

    /// The node is alive: its clients stand for another [`LEASE`]. Where it has none, a file is not
    /// written to, whose lock tells that a server runs.
    async fn renew_lease(&self, node: NodeId) -> Result<()>;

    /// Clears up after time: clients of nodes whose lease has run out are gone, which is told to one
    /// node alone; untouched users
    /// gone for [`FREE_AFTER`] are free again unless somebody has a private room with them open;
    /// clients gone for [`TOKEN_GOOD_FOR`] are forgotten, and so are sessions that were not seen for
    /// [`SESSION_GOOD_FOR`]. Does a bounded amount at a time.
    async fn expire(&self, node: NodeId, now: Millis) -> Result<Vec<Left>>;

    /// The client that a resume token is good for, which has come by the same session: by none, if
    /// that is not good any more; and the node that it is on, if it has not left.
    /// One of somebody banned has left, and has come by none.
    async fn returning(
        &self,
        token: TokenHash,
        session: Option<TokenHash>,
    ) -> Result<Option<(Returning, Option<NodeId>)>>;

    /// Someone arrives, which renews the node's lease: as the client they come back to, else as
    /// another client of whoever has signed in, else as a random user who is free, else as the
    /// spare one. Handing a user to somebody new ends the tokens they had. Whoever shows the token of
    /// somebody banned is nobody, for as long as they go on showing it.
    async fn arrive(&self, arrival: Arrival) -> Result<Arrived>;

    /// The node works no more: its clients are gone, who may be back in a moment, and its lease ends.
    async fn end(&self, node: NodeId) -> Result<Vec<Left>>;

    /// These clients have gone, unless somebody came back to them meanwhile. Answers which have.
    async fn leave(&self, clients: Vec<Returning>) -> Result<Vec<Left>>;

    /// The client enters a room, which becomes the one it is active in.
    async fn enter(
        &self,
        client: Returning,
        user: UserId,
        target: Target,
    ) -> Result<(Entered, Moved)>;

    /// The client is in no room any more.
    async fn leave_room(&self, client: Returning) -> Result<Moved>;

    /// The guest whom a resume token is good for keeps who they are by a password, and has signed in:
    /// their client is one of the session, and the token is not good any more. From now on the user
    /// is theirs alone, and so is what they are called.
    async fn keep(
        &self,
        token: TokenHash,
        password: PasswordHash,
        session: NewSession,
    ) -> Result<Option<Begun>>;

    /// Whoever keeps that name, a user name or else a display name, without regard to case, and
    /// their password.
    async fn account(&self, name: &str) -> Result<Option<(User, PasswordHash)>>;

    /// The user signs in by that password, if it is theirs still.
    async fn begin_session(
        &self,
        user: UserId,
        password: PasswordHash,
        session: NewSession,
    ) -> Result<Option<Begun>>;

    /// Who has signed in by that session.
    async fn session(&self, token: TokenHash) -> Result<Option<Session>>;

    /// They sign out: the session's clients and their resume tokens end with it.
    async fn end_session(&self, token: TokenHash) -> Result<Option<Session>>;

    /// The password is another from now on, if it `was` that; of the user's sessions only this one
    /// stays. Answers whose it is.
    async fn change_password(
        &self,
        session: TokenHash,
        was: PasswordHash,
        password: PasswordHash,
    ) -> Result<Option<Session>>;

    /// The private room with the person of that user name, made if there is none; nobody enters it.
    async fn private_room(&self, client: Returning, user: UserId, name: &str) -> Result<Entered>;

    /// The user chooses what to be called; `None` for their user name. A name is taken, and so are
    /// those that look like it, where it is anybody else's user name or somebody who is here, or who
    /// keeps their name, is called so. Nor may words of it be, or look like, somebody else's user
    /// name. Of a taken name so many `namesakes` are tried, each with another number.
    async fn rename(
        &self,
        client: Returning,
        user: UserId,
        name: Option<DisplayName>,
        namesakes: u32,
    ) -> Result<Renamed>;

    /// Whoever is called by the first of these names that anybody has, by user name or else by
    /// display name, without regard to case; and which of the names it is.
    async fn person_called(&self, names: Vec<String>) -> Result<Option<(usize, User)>>;

    /// The two people of a private room.
    async fn pair(&self, room: RoomId) -> Result<Option<[User; 2]>>;

    /// Makes the group of that name, if there is none; whoever made it belongs to it. Doing it
    /// again changes nothing. Answers false if nothing that they write is taken.
    async fn make_group(&self, client: Returning, maker: UserId, name: GroupName) -> Result<bool>;

    /// Stores a message in a room its author may post in: durable, and with the room's version
    /// one higher, when it answers. A known key of the same author stores nothing.
    async fn post(&self, post: Post) -> Result<Posted>;

    /// What stands under a key of that author, and the room it is in.
    async fn known(&self, author: UserId, key: Uuid) -> Result<Option<(Message, Room)>>;

    /// A message of that room, if the user may know of it, and the names of those who reacted to
    /// it, the first first, at most `limit`.
    async fn open_message(
        &self,
        user: UserId,
        room: RoomId,
        message: MessageId,
        limit: usize,
    ) -> Result<Option<(Message, Vec<(Emoji, String)>)>>;

    /// Changes the text of a message or deletes it, if they may: the author both, a moderator the
    /// latter in a group; durable, and with the
    /// room's version one higher, when it answers. Doing the same again changes nothing.
    async fn amend(&self, amend: Amend) -> Result<Amended>;

    /// Sets whether somebody reacts to a message with an emoji; durable, and with the room's version
    /// one higher, when it answers. Doing the same again changes nothing.
    async fn react(&self, react: React) -> Result<Reacted>;

    /// The user's reactions to messages of a room from the first to the last id, both included:
    /// those to the newest messages first, at most `limit`.
    async fn reactions_of(
        &self,
        user: UserId,
        room: RoomId,
        first: MessageId,
        last: MessageId,
        limit: usize,
    ) -> Result<Vec<(MessageId, Emoji)>>;

    /// What somebody may do.
    async fn standing(&self, user: UserId) -> Result<Standing>;

    /// Those of these clients that stand no more, or look at a group which they may not be in.
    async fn strays(&self, clients: Vec<Returning>) -> Result<Vec<ClientId>>;

    /// Those of these users that nobody can be any more.
    async fn banned(&self, users: Vec<UserId>) -> Result<Vec<UserId>>;

    /// There is an address that makes one visitor a moderator, for [`ADMIN_LINK_GOOD_FOR`].
    async fn add_admin_link(&self, token: TokenHash) -> Result<()>;

    /// Whether there is such an address.
    async fn is_admin_link(&self, token: TokenHash) -> Result<bool>;

    /// The user is a moderator from now on, by an address that is used up with it. Answers whether
    /// it was good.
    async fn become_moderator(&self, link: TokenHash, user: UserId) -> Result<bool>;

    /// The same for somebody who has not been here: as a user who is free, else as the spare one,
    /// which they keep by that password.
    async fn arrive_as_moderator(
        &self,
        link: TokenHash,
        spare: NewUser,
        password: PasswordHash,
        session: NewSession,
    ) -> Result<Option<Begun>>;

    /// Whoever has that user name is a moderator no more, and their clients have to come again. Answers
    /// whether they were.
    async fn end_moderator(&self, name: &str) -> Result<bool>;

    /// Does and records what a moderator does; durable when it answers. What changes a room goes
    /// out on the stream of changes.
    async fn moderate(&self, moderation: Moderation) -> Result<Moderated>;

    /// The groups whose names begin so, those for moderators alone first, in the order of their keys
    /// and after that key, at most `limit`.
    async fn group_records(
        &self,
        beginning: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<GroupRecord>>;

    /// A group, unless it has been removed.
    async fn group_record(&self, room: RoomId) -> Result<Option<GroupRecord>>;

    /// The people whose user names begin so and come after that name, at most `limit`; without a name
    /// to come after, then those whose display names begin so.
    async fn person_records(
        &self,
        beginning: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<PersonRecord>>;

    /// What a search among a group's messages finds: at most a page, and of very many messages those
    /// that could be looked at.
    async fn message_records(&self, search: Search) -> Result<FoundMessages>;

    /// What moderators did before that, the latest first, at most `limit`.
    async fn deeds(&self, before: i64, limit: usize) -> Result<Vec<DeedRecord>>;

    /// These people have seen these rooms up to these messages. Never goes back. Those whose client
    /// does not stand are passed over.
    async fn mark_read(&self, reads: Vec<(Returning, UserId, RoomId, MessageId)>) -> Result<()>;

    /// The default groups in their order; then, for a user, those they have belonged to for the
    /// shortest time, by name; at most `limit`.
    async fn groups(&self, user: Option<UserId>, limit: usize) -> Result<Vec<Room>>;

    /// The groups with the most people in them first, at most `limit`.
    async fn busiest_groups(&self, limit: usize) -> Result<Vec<Busy>>;

    /// The groups whose names begin so, without regard to case, by name, at most `limit`.
    async fn find_groups(&self, beginning: &str, limit: usize) -> Result<Vec<Busy>>;

    /// The group of that name, if `me` may know of it, or anybody. The name of one that is for
    /// moderators alone begins with [`RESTRICTED`].
    async fn group(&self, name: &str, me: Option<UserId>) -> Result<Option<Room>>;

    /// The versions of those of these rooms that there are, in one snapshot and in any order.
    async fn versions(&self, rooms: Vec<RoomId>) -> Result<Vec<Version>>;

    /// The newest page of a room. Whoever asks has made sure of the right to it.
    async fn newest(&self, room: RoomId) -> Result<Page>;

    /// The page before a message of a room.
    async fn older(&self, room: RoomId, before: MessageId) -> Result<Page>;

    /// What happened to the messages from the first to the last id, both included, after a
    /// version: those that changed since, in their present state.
    async fn changed_among(
        &self,
        room: RoomId,
        first: MessageId,
        last: MessageId,
        after: u64,
    ) -> Result<Page>;

    /// The messages whose words were made or changed after a version, in their present state and in
    /// the order in which that happened last, at most a page of them; and the version they lead to.
    async fn worded_since(&self, room: RoomId, after: u64) -> Result<(Vec<Message>, Version)>;

    /// What brings a reader who has `after` up to date; without it, the newest page.
    async fn catch_up(&self, room: RoomId, after: Option<Version>) -> Result<CatchUp>;

    /// Those who are here, longest first, at most `limit`, each of them once; and how many they are.
    async fn people_online(&self, limit: usize) -> Result<(Vec<Person>, u64)>;

    /// Those who look at a group, longest first, at most `limit`, each of them once; and how many
    /// they are. Of a private room nobody.
    async fn people_in(&self, room: RoomId, limit: usize) -> Result<(Vec<Person>, u64)>;

    /// The people this user has something unread from, then those they have talked with, at
    /// most `limit`.
    async fn people_of(&self, user: UserId, limit: usize) -> Result<Vec<Person>>;

    /// The people whose user names begin so, by name; then those whose display names do; at most
    /// `limit`.
    async fn find_people(&self, beginning: &str, limit: usize) -> Result<Vec<Person>>;

    /// Makes users; those whose name or e-mail address is taken are left out. Answers how many
    /// were made.
    async fn add_users(&self, users: Vec<NewUser>) -> Result<u64>;

    /// How much there is.
    async fn census(&self) -> Result<Census>;

    /// Deletes everybody and everything said; the default groups begin anew. Refused as
    /// [in use](StoreError::InUse) while a node of another server holds a lease.
    async fn reset(&self) -> Result<()>;

    /// Answers if the store can read and write, and is still where it was opened.
    async fn check(&self) -> Result<()>;

    /// Finishes what was begun and closes. Later acts answer [`StoreError::Closed`].
    async fn close(&self);
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
pub async fn open(
    address: &str,
    synchronous: Synchronous,
    access: Access,
) -> Result<Arc<dyn Store>> {
    if is_postgres(address) {
        let store = postgres::PostgresStore::open(address, synchronous, access).await?;
        return Ok(Arc::new(store));
    }
    let path = sqlite_path(address)?;
    let store = sqlite::SqliteStore::open(&path, synchronous, access).await?;
    Ok(Arc::new(store))
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
