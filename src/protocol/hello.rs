//! What a client says about itself in the handshake, and its dialect.

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::{SUBPROTOCOL, Selector};
use crate::model::{BrowserToken, GroupName, ResumeToken, RoomId, SessionToken, Version};

/// The prefix of a resume token that is offered as a subprotocol.
const RESUME_PREFIX: &str = "resume.";

/// Which part of the protocol a connection uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// `overwire.v1`: swaps, versions, presence.
    V1,
    /// The original design: inner HTML only.
    #[default]
    Plain,
    /// The first JSON socket: objects with a type.
    Objects,
    /// The second JSON socket: texts with their senders.
    Lines,
    /// The socket of the page at [`MODERATION_PATH`](super::MODERATION_PATH), which is in no room.
    Moderation,
    /// No socket: the forms of a browser that runs no script. It gets notices only.
    Forms,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Self; 6] = [
        Self::V1,
        Self::Plain,
        Self::Objects,
        Self::Lines,
        Self::Moderation,
        Self::Forms,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Plain => "plain",
            Self::Objects => "objects",
            Self::Lines => "lines",
            Self::Moderation => "moderation",
            Self::Forms => "forms",
        }
    }

    /// How it receives what happens in its room.
    pub fn feed(self) -> Feed {
        match self {
            Self::V1 => Feed::Changes,
            Self::Plain => Feed::Pages,
            Self::Objects | Self::Lines => Feed::Json,
            Self::Moderation | Self::Forms => Feed::Nothing,
        }
    }

    /// Whether its page has this place, and so gets pushes for it.
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
            Self::Forms => *place == Selector::NOTICE,
            Self::Objects | Self::Lines => false,
        }
    }

    /// The subprotocol that the server selects in the handshake.
    pub fn subprotocol(self) -> Option<&'static str> {
        matches!(self, Self::V1 | Self::Moderation).then_some(SUBPROTOCOL)
    }
}

/// How a client receives what happens in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Each change in order, as pushes with their version.
    Changes,
    /// The newest page, after every change.
    Pages,
    /// The messages, as JSON.
    Json,
    /// Nothing of it.
    Nothing,
}

/// What a client says about itself in the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Its dialect.
    pub dialect: Dialect,
    /// The session, which takes precedence over the resume token.
    pub session: Option<SessionToken>,
    /// The browser.
    pub browser: Option<BrowserToken>,
    /// The token of the client that it resumes.
    pub resume: Option<ResumeToken>,
    /// The token of the forms of its browser. A tab that resumes nobody is whoever has just sent one.
    pub forms: Option<ResumeToken>,
    /// The room it shows.
    pub room: Option<RoomId>,
    /// The version it has of that room.
    pub after: Option<Version>,
    /// The address of its page.
    pub at: Option<String>,
    /// The group in its address, which is created if it does not exist.
    pub group: Option<GroupName>,
    /// Scheme and host of the chat as the client sees them, such as `https://chat.example`.
    pub origin: String,
}

impl Hello {
    /// Reads the offered subprotocols (the header's values, which may contain commas) and the query of
    /// the URL. Values that cannot be parsed are ignored.
    pub fn read<'a>(offered: impl Iterator<Item = &'a str>, query: &str) -> Self {
        let mut hello = Self::default();
        for offer in offered.flat_map(|value| value.split(',')).map(str::trim) {
            if offer == SUBPROTOCOL {
                hello.dialect = Dialect::V1;
            } else if let Some(token) = offer.strip_prefix(RESUME_PREFIX) {
                hello.resume = token.parse().ok();
            }
        }
        let mut after = None;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let Ok(value) = percent_decode_str(value).decode_utf8() else {
                continue;
            };
            match name {
                "room" => hello.room = value.parse().ok(),
                "after" => after = Some(value),
                "at" => hello.at = Some(value.into_owned()),
                _ => {}
            }
        }
        hello.after = hello
            .room
            .zip(after)
            .and_then(|(room, after)| Version::read(room, &after).ok());
        hello
    }

    /// The handshake of the page at [`MODERATION_PATH`](super::MODERATION_PATH).
    pub fn of_moderator() -> Self {
        Self {
            dialect: Dialect::Moderation,
            ..Self::default()
        }
    }

    /// The forms of a browser, with the session that it has.
    pub fn of_forms(browser: BrowserToken, session: Option<SessionToken>, origin: String) -> Self {
        Self {
            dialect: Dialect::Forms,
            resume: Some(browser.of_forms(session.as_ref())),
            browser: Some(browser),
            session,
            origin,
            ..Self::default()
        }
    }

    /// The handshake of a JSON socket.
    pub fn by_door(dialect: Dialect, group: GroupName) -> Self {
        Self {
            dialect,
            group: Some(group),
            ..Self::default()
        }
    }
}
