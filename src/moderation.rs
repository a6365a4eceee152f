//! Plain data about moderation: permissions, results, and records.

use crate::model::{Message, MessageId, Millis, RoomId, User, UserId};

/// The rights of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Is a moderator, and may do everything that moderators may.
    pub moderator: bool,
    /// Is muted: may read, but not write.
    pub muted: bool,
    /// Banned: nobody can connect as this user.
    pub banned: bool,
}

/// The result of a moderator's action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moderated {
    /// The action was taken and added to the audit log.
    Done {
        /// The text of the audit log entry.
        words: String,
        /// The user it was about.
        user: Option<UserId>,
    },
    /// Nothing to change.
    Already,
    /// The person is not a moderator.
    NotAllowed,
    /// There is no such group, message or person.
    Nothing,
    /// Another group has that name.
    NameTaken,
    /// Moderators and the first group cannot be moderated.
    Protected,
}

/// A group, as moderators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its id.
    pub id: RoomId,
    /// Its name.
    pub name: String,
    /// The key that orders groups.
    pub key: String,
    /// How many people are in it now.
    pub people: u64,
    /// How many changes it has had.
    pub changes: u64,
    /// When it was created.
    pub created_at: Millis,
    /// Whether it is restricted to moderators.
    pub restricted: bool,
}

/// A person, as moderators see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonRecord {
    /// The user.
    pub user: User,
    /// When somebody first was this user.
    pub arrived_at: Millis,
    /// Whether they are online.
    pub online: bool,
    /// Their rights.
    pub standing: Standing,
    /// Whether they have an account.
    pub registered: bool,
}

/// A search for messages of a group.
#[derive(Clone, Debug)]
pub struct Search {
    /// The group.
    pub room: RoomId,
    /// Only messages of the author with this user name.
    pub author: Option<String>,
    /// Only messages that contain all of these words, without regard to case.
    pub words: String,
    /// Only messages written at that moment or later.
    pub from: Option<Millis>,
    /// Only messages written before that moment.
    pub until: Option<Millis>,
    /// Only messages before this one.
    pub before: MessageId,
}

/// A message, as moderators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRecord {
    /// The message, with its text even if it was deleted.
    pub message: Message,
    /// Whether a moderator deleted it, and its text can be restored. Its files are gone.
    pub restorable: bool,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMessages {
    /// The newest messages found, newest first.
    pub messages: Vec<MessageRecord>,
    /// Messages before this one have not been searched yet; `None` at the beginning of the group.
    pub before: Option<MessageId>,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its id, which orders the log.
    pub id: i64,
    /// When it was added.
    pub at: Millis,
    /// The moderator's name at that time.
    pub moderator: String,
    /// What they did, as text.
    pub words: String,
}
