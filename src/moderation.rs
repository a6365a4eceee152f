//! What moderators do and what they look through: the words of it.

use crate::model::{ClientRef, Message, MessageId, Millis, NodeId, RoomId, User, UserId};
pub use crate::protocol::ModeratorAction;

/// What somebody may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Everything that a moderator may.
    pub moderator: bool,
    /// Read, and nothing else.
    pub muted: bool,
    /// Nothing: nobody can be this user any more.
    pub banned: bool,
}

/// An action, and by whom.
#[derive(Clone, Debug)]
pub struct Moderation {
    /// The node that is told of a change of a room.
    pub node: NodeId,
    /// By which client.
    pub client: ClientRef,
    /// Who does it.
    pub by: UserId,
    /// What.
    pub action: ModeratorAction,
}

/// How an action went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moderated {
    /// It is done and recorded.
    Done {
        /// What was done, in words.
        words: String,
        /// Whom it was about.
        user: Option<UserId>,
    },
    /// It was so before.
    Already,
    /// Whoever did it is no moderator.
    NotAllowed,
    /// There is no such group, message or person.
    Nothing,
    /// Another group has that name.
    NameTaken,
    /// That can be done to neither a moderator nor the group in which everybody begins.
    Protected,
}

/// A group, as moderators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its id.
    pub id: RoomId,
    /// Its name.
    pub name: String,
    /// By which the groups are ordered.
    pub key: String,
    /// How many people look at it right now.
    pub people: u64,
    /// How many changes it has seen.
    pub changes: u64,
    /// When it was made.
    pub created_at: Millis,
    /// Whether it is for moderators alone.
    pub restricted: bool,
}

/// A person, as moderators see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonRecord {
    /// Who.
    pub user: User,
    /// When somebody was this user first.
    pub arrived_at: Millis,
    /// Whether they are here now.
    pub online: bool,
    /// What they may do.
    pub standing: Standing,
}

/// What messages of a group are looked for.
#[derive(Clone, Debug)]
pub struct Search {
    /// The group.
    pub room: RoomId,
    /// Only those of whoever has this user name.
    pub author: Option<String>,
    /// Only those that have all of these words in them, without regard to case.
    pub words: String,
    /// Only those written at that moment or later.
    pub from: Option<Millis>,
    /// Only those written before that moment.
    pub until: Option<Millis>,
    /// Only those before this one.
    pub before: MessageId,
}

/// A message, as moderators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRecord {
    /// The message, with its text even if it has been deleted.
    pub message: Message,
    /// Whether a moderator deleted it, and may restore it.
    pub restorable: bool,
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMessages {
    /// The newest that were found, newest first.
    pub messages: Vec<MessageRecord>,
    /// Those before this one have not been looked at yet; `None` at the beginning of the group.
    pub before: Option<MessageId>,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The order of the log.
    pub id: i64,
    /// When.
    pub at: Millis,
    /// What the moderator was called then.
    pub moderator: String,
    /// What, in words.
    pub words: String,
}
