//! What a tab is told: a [`Push`] puts a fragment in a place of the page.

use std::borrow::Cow;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::Frame;
use crate::model::{Emoji, MessageId, RoomId, UserId, Version};

/// A place of the page that pushes go to. Selectors are made from fixed names and integers, never
/// from what people typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Cow<'static, str>);

macro_rules! selectors {
    ($($(#[$about:meta])* $name:ident = $text:literal,)*) => {
        impl Selector {
            $($(#[$about])* pub const $name: Self = Self::fixed($text);)*

            /// Every fixed selector a push may go to.
            pub const FIXED: &[Self] = &[$(Self::$name),*];
        }
    };
}

selectors! {
    /// Who I am.
    LOGGED_USER = "#logged-user",
    /// The room I am in.
    GROUP_NAME = "#group-name",
    /// The room's messages.
    MESSAGES_LIST = "#messages-list",
    /// The way to the older messages, first in the list.
    MESSAGES_OLDER = "#messages-older",
    /// A refusal, in words a person understands.
    NOTICE = "#notice",
    /// The answer to `Ping`.
    CONNECTION = "#connection",
    /// How many people are in the room.
    ROOM_COUNT = "#room-count",
    /// Who they are.
    ROOM_PEOPLE = "#room-people",
    /// What those are told who enter the room.
    ROOM_WELCOME = "#room-welcome",
    /// Who came to the room and who went.
    ROOM_MOVES = "#room-moves",
    /// Who is typing in the room.
    ROOM_TYPING = "#room-typing",
    /// A message that I look at closely, to react to it or, where it is mine, to change it.
    MESSAGE_FORM = "#message-form",
    /// Which reactions on show are mine: an element for each.
    MY_REACTIONS = "#my-reactions",
    /// The names that begin as I began to write one.
    COMPLETIONS = "#completions",
    /// All groups, where one is who is in none.
    LOBBY = "#lobby",
    /// The busiest groups, and how many people are in each.
    LOBBY_ROOMS = "#lobby-rooms",
    /// What a search for groups found.
    LOBBY_FOUND = "#lobby-found",
    /// The groups: the default ones, and mine.
    GROUPS_LIST = "#groups-list",
    /// What I am called, if not by my user name, and the way to another name.
    NAME_FORM = "#name-form",
    /// The way to keep my name or to sign in, or out.
    ACCOUNT = "#account",
    /// The way to a group of one's own.
    NEW_GROUP = "#new-group",
    /// The people who concern me.
    USERS_MINE = "#users-mine",
    /// The people who are here, the same for everyone.
    USERS_ONLINE = "#users-online",
    /// What a search for people found.
    USERS_FOUND = "#users-found",
    /// The groups that a moderator looks through.
    MODERATION_GROUPS = "#moderation-groups",
    /// The people that a moderator looks through.
    MODERATION_PEOPLE = "#moderation-people",
    /// The group whose messages a moderator looks through.
    MODERATION_MESSAGES = "#moderation-messages",
    /// What was found among them.
    MODERATION_FOUND = "#moderation-found",
    /// What moderators did.
    MODERATION_LOG = "#moderation-log",
}

impl Selector {
    const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// One message of the list.
    #[must_use]
    pub fn message(id: MessageId) -> Self {
        Self(Cow::Owned(format!("#message-{id}")))
    }

    /// A message that I look at closely.
    #[must_use]
    pub fn open_message(id: MessageId) -> Self {
        Self(Cow::Owned(format!("#form-{id}")))
    }

    /// One of the groups that a moderator looks through.
    #[must_use]
    pub fn moderation_group(id: RoomId) -> Self {
        Self(Cow::Owned(format!("#moderation-group-{id}")))
    }

    /// One of the people that a moderator looks through.
    #[must_use]
    pub fn moderation_person(id: UserId) -> Self {
        Self(Cow::Owned(format!("#moderation-person-{id}")))
    }

    /// One of the messages that a moderator looks through.
    #[must_use]
    pub fn moderation_message(id: MessageId) -> Self {
        Self(Cow::Owned(format!("#moderation-message-{id}")))
    }

    /// What says that a reaction to a message is mine. An emoji is one of a fixed set, and goes by
    /// its code points.
    #[must_use]
    pub fn my_reaction(id: MessageId, emoji: Emoji) -> Self {
        Self(Cow::Owned(format!("#my-reaction-{id}-{}", emoji.code())))
    }

    /// Whether it is a place of the page for moderators.
    #[must_use]
    pub fn is_of_moderators(&self) -> bool {
        self.0.starts_with("#moderation-")
    }

    /// The selector as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a fragment is put in place, where it does not just replace the inner HTML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Swap {
    /// Goes in after the last child.
    Append,
    /// Goes in before the first child.
    Prepend,
    /// Takes the element's own place.
    Outer,
    /// The element goes.
    Remove,
}

/// What a place of the page becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Where.
    pub selector: Selector,
    /// The fragment.
    pub html: String,
    /// How; `None` replaces the inner HTML.
    pub swap: Option<Swap>,
    /// What the tab has of its room once this is shown.
    pub version: Option<Version>,
}

impl Push {
    /// A push that replaces the inner HTML of `selector`.
    #[must_use]
    pub fn inner(selector: Selector, html: String) -> Self {
        Self {
            selector,
            html,
            swap: None,
            version: None,
        }
    }

    /// The same push, put in place by `swap`.
    #[must_use]
    pub fn swapped(self, swap: Swap) -> Self {
        Self {
            swap: Some(swap),
            ..self
        }
    }

    /// The same push, bringing the tab to `version`.
    #[must_use]
    pub fn at(self, version: Version) -> Self {
        Self {
            version: Some(version),
            ..self
        }
    }

    /// Encodes the push, once for however many sockets it goes to.
    #[must_use]
    pub fn encode(&self) -> Frame {
        // A struct of strings has no key that is not a string and no number that is not finite.
        Frame::text(&serde_json::to_vec(self).expect("a push is always valid JSON"))
    }
}

impl Serialize for Push {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut push = serializer.serialize_struct("Push", 4)?;
        push.serialize_field("selector", self.selector.as_str())?;
        push.serialize_field("html", &self.html)?;
        match self.swap {
            Some(swap) => push.serialize_field("swap", &swap)?,
            None => push.skip_field("swap")?,
        }
        match self.version {
            Some(version) => push.serialize_field("version", &version.to_string())?,
            None => push.skip_field("version")?,
        }
        push.end()
    }
}
