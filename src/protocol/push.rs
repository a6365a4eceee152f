//! What a tab receives: a [`Push`] puts a fragment into the page.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::Frame;
use crate::model::{Emoji, MessageId, RoomId, UserId, Version};

/// A place in the page that pushes go to. Selectors consist of fixed names and integers, never of what
/// people typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Selector(Cow<'static, str>);

macro_rules! selectors {
    ($($(#[$about:meta])* $name:ident = $text:literal,)*) => {
        impl Selector {
            $($(#[$about])* pub const $name: Self = Self::fixed($text);)*

            /// Every fixed selector that a push may have.
            pub const FIXED: &[Self] = &[$(Self::$name),*];
        }
    };
}

selectors! {
    /// My user name.
    LOGGED_USER = "#logged-user",
    /// The room I am in.
    GROUP_NAME = "#group-name",
    /// The room's messages.
    MESSAGES_LIST = "#messages-list",
    /// The control that loads older messages, first in the list.
    MESSAGES_OLDER = "#messages-older",
    /// The gap between the messages shown and those that have arrived since.
    MESSAGES_NEWER = "#messages-newer",
    /// A notice in words for a person.
    NOTICE = "#notice",
    /// The answer to `Ping`.
    CONNECTION = "#connection",
    /// How many people are in the room.
    ROOM_COUNT = "#room-count",
    /// The people in the room.
    ROOM_PEOPLE = "#room-people",
    /// The welcome message of the room.
    ROOM_WELCOME = "#room-welcome",
    /// Who joined and who left the room.
    ROOM_MOVES = "#room-moves",
    /// Who is typing in the room.
    ROOM_TYPING = "#room-typing",
    /// The message that I have opened, to react to it or, if it is mine, to change it.
    MESSAGE_FORM = "#message-form",
    /// My reactions to the messages shown: an element for each.
    MY_REACTIONS = "#my-reactions",
    /// Up to where I had read the room when I entered it.
    MY_READ = "#my-read",
    /// What I can do with the room: its topic, its news, leaving it.
    ROOM_MENU = "#room-menu",
    /// What the room is about.
    ROOM_TOPIC = "#room-topic",
    /// Completions of the word that I am typing.
    COMPLETIONS = "#completions",
    /// The lobby, which lists groups.
    LOBBY = "#lobby",
    /// The busiest groups, and how many people are in each.
    LOBBY_ROOMS = "#lobby-rooms",
    /// What a search for groups found.
    LOBBY_FOUND = "#lobby-found",
    /// The rooms that the switcher offers.
    ROOMS_FOUND = "#rooms-found",
    /// What a search for messages found.
    SEARCH_PAGE = "#search-page",
    /// The messages found.
    SEARCH_RESULTS = "#search-results",
    /// The control that loads older results.
    SEARCH_OLDER = "#search-older",
    /// The groups: the default ones, and mine.
    GROUPS_LIST = "#groups-list",
    /// My display name, and the form to change it.
    NAME_FORM = "#name-form",
    /// The forms to register, sign in or sign out.
    ACCOUNT = "#account",
    /// How I am notified of messages for me.
    NOTIFICATIONS = "#notifications",
    /// A message that I am notified of.
    NOTIFICATION = "#notification",
    /// The form to create a group.
    NEW_GROUP = "#new-group",
    /// The people I talk with.
    USERS_MINE = "#users-mine",
    /// The people online, the same for everyone.
    USERS_ONLINE = "#users-online",
    /// What a search for people found.
    USERS_FOUND = "#users-found",
    /// The groups that a moderator has searched for.
    MODERATION_GROUPS = "#moderation-groups",
    /// The people that a moderator has searched for.
    MODERATION_PEOPLE = "#moderation-people",
    /// The group whose messages a moderator has opened.
    MODERATION_MESSAGES = "#moderation-messages",
    /// The messages found in it.
    MODERATION_FOUND = "#moderation-found",
    /// The audit log.
    MODERATION_LOG = "#moderation-log",
}

impl Selector {
    const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// One message of the list.
    pub fn message(id: MessageId) -> Self {
        Self(Cow::Owned(format!("#message-{id}")))
    }

    /// The quotes of a message in the messages that reply to it: several elements, or none.
    pub fn quotes(id: MessageId) -> Self {
        Self(Cow::Owned(format!("[data-quotes=\"{id}\"]")))
    }

    /// The news of a group in my list.
    pub fn group_news(id: RoomId) -> Self {
        Self(Cow::Owned(format!("#news-{id}")))
    }

    /// The form of a message that I have opened.
    pub fn open_message(id: MessageId) -> Self {
        Self(Cow::Owned(format!("#form-{id}")))
    }

    /// One of the groups in [`Selector::MODERATION_GROUPS`].
    pub fn moderation_group(id: RoomId) -> Self {
        Self(Cow::Owned(format!("#moderation-group-{id}")))
    }

    /// One of the people in [`Selector::MODERATION_PEOPLE`].
    pub fn moderation_person(id: UserId) -> Self {
        Self(Cow::Owned(format!("#moderation-person-{id}")))
    }

    /// One of the messages that a moderator is shown.
    pub fn moderation_message(id: MessageId) -> Self {
        Self(Cow::Owned(format!("#moderation-message-{id}")))
    }

    /// The element that marks a reaction to a message as mine. It contains the code points of the
    /// emoji, which is one of a fixed set.
    pub fn my_reaction(id: MessageId, emoji: Emoji) -> Self {
        Self(Cow::Owned(format!("#my-reaction-{id}-{}", emoji.code())))
    }

    /// Whether the place is in the moderators' page.
    pub fn is_of_moderators(&self) -> bool {
        self.0.starts_with("#moderation-")
    }

    /// The selector as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a fragment is put into the page, if it does not just replace the inner HTML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Swap {
    /// Insert after the last child.
    Append,
    /// Insert before the first child.
    Prepend,
    /// Insert before the element itself.
    Before,
    /// Replace the element itself.
    Outer,
    /// Remove the element.
    Remove,
}

/// A change to the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Push {
    /// The place.
    pub selector: Selector,
    /// The fragment.
    pub html: String,
    /// How it is inserted; `None` replaces the inner HTML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
    /// The version of its room that the tab has once this is shown.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub version: Option<Version>,
}

impl Push {
    /// A push that replaces the inner HTML of `selector`.
    pub fn inner(selector: Selector, html: String) -> Self {
        Self {
            selector,
            html,
            swap: None,
            version: None,
        }
    }

    /// A push that clears `selector`.
    pub fn empty(selector: Selector) -> Self {
        Self::inner(selector, String::new())
    }

    /// A push that removes `selector` from the page.
    pub fn removal(selector: Selector) -> Self {
        Self::empty(selector).swapped(Swap::Remove)
    }

    /// The same push with this swap.
    #[must_use]
    pub fn swapped(mut self, swap: Swap) -> Self {
        self.swap = Some(swap);
        self
    }

    /// The same push, which leads the tab to `version`.
    #[must_use]
    pub fn at(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }

    /// Encodes the push, once for any number of sockets.
    pub fn encode(&self) -> Frame {
        // JSON fails only for keys that are not strings and for numbers that are not finite. A push has
        // neither.
        Frame::text(&serde_json::to_vec(self).expect("a push is always valid JSON"))
    }
}

fn as_text<S: Serializer>(version: &Option<Version>, serializer: S) -> Result<S::Ok, S::Error> {
    version
        .map(|version| version.to_string())
        .serialize(serializer)
}
