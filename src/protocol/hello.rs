//! What a socket says of itself at the handshake, and in which dialect it speaks from then on.

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::{SUBPROTOCOL, Selector};
use crate::model::{GroupName, ResumeToken, RoomId, SessionToken, Version};

/// What stands before a resume token that is offered as a subprotocol.
const RESUME_PREFIX: &str = "resume.";

/// Which words of the wire a connection understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// `overwire.v1`: swaps, versions, presence.
    V1,
    /// The original design: inner HTML only.
    Plain,
    /// Of a JSON door: objects with a type.
    Objects,
    /// Of the other JSON door: texts with their senders.
    Lines,
    /// Of the page at [`MODERATION_PATH`], which is in no room.
    Moderation,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::V1,
        Self::Plain,
        Self::Objects,
        Self::Lines,
        Self::Moderation,
    ];

    /// How it is told what happens in its room.
    #[must_use]
    pub fn feed(self) -> Feed {
        match self {
            Self::V1 => Feed::Changes,
            Self::Plain => Feed::Pages,
            Self::Objects | Self::Lines => Feed::Json,
            Self::Moderation => Feed::Nothing,
        }
    }

    /// Whether it is a page's, which has this place and is sent what it becomes.
    #[must_use]
    pub fn has(self, place: &Selector) -> bool {
        const PLAIN: [Selector; 4] = [
            Selector::LOGGED_USER,
            Selector::GROUP_NAME,
            Selector::MESSAGES_LIST,
            Selector::NOTICE,
        ];
        match self {
            Self::V1 => !place.is_of_moderators(),
            Self::Plain => PLAIN.contains(place),
            Self::Moderation => {
                let shared = [
                    Selector::LOGGED_USER,
                    Selector::NOTICE,
                    Selector::CONNECTION,
                ];
                place.is_of_moderators() || shared.contains(place)
            }
            Self::Objects | Self::Lines => false,
        }
    }

    /// The subprotocol that its socket agrees on.
    #[must_use]
    pub fn subprotocol(self) -> Option<&'static str> {
        matches!(self, Self::V1 | Self::Moderation).then_some(SUBPROTOCOL)
    }
}

/// How a client is told what happens in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// By each change in turn, as pushes with the version they lead to.
    Changes,
    /// By the newest page, each time something has changed.
    Pages,
    /// By what was said, as JSON.
    Json,
    /// It is in no room.
    Nothing,
}

/// What a socket says of itself at the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which words it understands.
    pub dialect: Dialect,
    /// By which whoever has signed in is known; it goes before the resume token.
    pub session: Option<SessionToken>,
    /// By which it is known again.
    pub resume: Option<ResumeToken>,
    /// The room it shows.
    pub room: Option<RoomId>,
    /// What it has of that room.
    pub after: Option<Version>,
    /// The address of its page.
    pub at: Option<String>,
    /// The group that its door leads to, which is made if there is none.
    pub group: Option<GroupName>,
}

impl Hello {
    /// Reads the offered subprotocols (the header's values, commas and all) and the URL's query.
    /// Whatever is unreadable is as if absent.
    pub fn read<'a>(offered: impl Iterator<Item = &'a str>, query: &str) -> Self {
        let mut hello = Self {
            dialect: Dialect::Plain,
            session: None,
            resume: None,
            room: None,
            after: None,
            at: None,
            group: None,
        };
        for offer in offered.flat_map(|value| value.split(',')).map(str::trim) {
            if offer == SUBPROTOCOL {
                hello.dialect = Dialect::V1;
            } else if let Some(token) = offer.strip_prefix(RESUME_PREFIX) {
                hello.resume = token.parse().ok();
            }
        }
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let Ok(value) = percent_decode_str(value).decode_utf8() else {
                continue;
            };
            match name {
                "room" => hello.room = value.parse().ok(),
                "after" => hello.after = value.parse().ok(),
                "at" => hello.at = Some(value.into_owned()),
                _ => {}
            }
        }
        hello
    }

    /// Somebody comes from the page at [`MODERATION_PATH`].
    #[must_use]
    pub fn of_moderator() -> Self {
        Self {
            dialect: Dialect::Moderation,
            ..Self::read(std::iter::empty(), "")
        }
    }

    /// Somebody comes by a JSON door.
    #[must_use]
    pub fn by_door(dialect: Dialect, group: GroupName) -> Self {
        Self {
            dialect,
            session: None,
            resume: None,
            room: None,
            after: None,
            at: None,
            group: Some(group),
        }
    }
}
