//! The words of the wire: what a tab says ([`Action`], [`Hello`]) and what it is told ([`Push`],
//! [`Frame`]). `docs/PROTOCOL.md` is the same in prose; a test holds the two together.
//!
//! Nothing here knows sockets, the store, or what an action does.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::de::Error as _;
use serde::ser::{Error as _, SerializeStruct as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::model::{
    Emoji, GroupName, MessageId, ResumeToken, RoomId, SessionToken, Target, UserId, Version,
};
use crate::websocket;

/// Where the page's socket is opened.
pub const SOCKET_PATH: &str = "/ws/chat/";
/// The subprotocol of a tab that knows swaps and versions.
pub const SUBPROTOCOL: &str = "overwire.v1";
/// What stands before a resume token that is offered as a subprotocol.
const RESUME_PREFIX: &str = "resume.";
/// Where the lobby is.
pub const LOBBY_PATH: &str = "/chat/";
/// Where moderators look after the chat, and where that page's socket is opened.
pub const ADMIN_PATH: &str = "/admin/";
/// Where a visitor becomes a moderator; the link's token is the query, which no log has.
pub const ADMIN_LINK_PATH: &str = "/admin/link/";
/// See [`ADMIN_PATH`].
pub const ADMIN_SOCKET_PATH: &str = "/admin/ws/";
/// The group a person starts in.
pub const FIRST_GROUP: &str = "hi";

/// The actions a tab may send, as they are spelled on the wire.
pub const ACTIONS: [&str; 15] = [
    "Change group",
    "New group",
    "Change name",
    "New message",
    "Open message",
    "Edit message",
    "Delete message",
    "React",
    "Older messages",
    "Read",
    "Typing",
    "Find people",
    "Find groups",
    "Complete",
    "Ping",
];

/// What the page at [`ADMIN_PATH`] may send beside `Delete message` and `Ping`.
pub const ADMIN_ACTIONS: [&str; 11] = [
    "Look for groups",
    "Look for people",
    "Open group",
    "Look for messages",
    "Look at deeds",
    "Rename group",
    "Remove group",
    "Restrict group",
    "Restore message",
    "Mute",
    "Ban",
];

/// The limits of a page of messages or a catch-up: whichever is reached first, but at least one
/// message.
pub const PAGE_MESSAGES: usize = 50;
/// See [`PAGE_MESSAGES`]; counted in bytes of the messages' HTML.
pub const PAGE_BYTES: usize = 64 * 1024;

/// A place of the page that pushes go to. Selectors are made from fixed names and integers, never
/// from what people typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Cow<'static, str>);

impl Selector {
    /// Who I am.
    pub const LOGGED_USER: Self = Self::fixed("#logged-user");
    /// The room I am in.
    pub const GROUP_NAME: Self = Self::fixed("#group-name");
    /// The room's messages.
    pub const MESSAGES_LIST: Self = Self::fixed("#messages-list");
    /// The way to the older messages, first in the list.
    pub const MESSAGES_OLDER: Self = Self::fixed("#messages-older");
    /// A refusal, in words a person understands.
    pub const NOTICE: Self = Self::fixed("#notice");
    /// The answer to `Ping`.
    pub const CONNECTION: Self = Self::fixed("#connection");
    /// How many people are in the room.
    pub const ROOM_COUNT: Self = Self::fixed("#room-count");
    /// Who they are.
    pub const ROOM_PEOPLE: Self = Self::fixed("#room-people");
    /// What those are told who enter the room.
    pub const ROOM_WELCOME: Self = Self::fixed("#room-welcome");
    /// Who came to the room and who went.
    pub const ROOM_MOVES: Self = Self::fixed("#room-moves");
    /// Who is typing in the room.
    pub const ROOM_TYPING: Self = Self::fixed("#room-typing");
    /// A message that I look at closely, to react to it or, where it is mine, to change it.
    pub const MESSAGE_FORM: Self = Self::fixed("#message-form");
    /// Which reactions on show are mine: an element for each.
    pub const MY_REACTIONS: Self = Self::fixed("#my-reactions");
    /// The names that begin as I began to write one.
    pub const COMPLETIONS: Self = Self::fixed("#completions");
    /// All groups, where one is who is in none.
    pub const LOBBY: Self = Self::fixed("#lobby");
    /// The busiest groups, and how many people are in each.
    pub const LOBBY_ROOMS: Self = Self::fixed("#lobby-rooms");
    /// What a search for groups found.
    pub const LOBBY_FOUND: Self = Self::fixed("#lobby-found");
    /// The groups: the default ones, and mine.
    pub const GROUPS_LIST: Self = Self::fixed("#groups-list");
    /// What I am called, if not by my user name, and the way to another name.
    pub const NAME_FORM: Self = Self::fixed("#name-form");
    /// The way to keep my name or to sign in, or out.
    pub const ACCOUNT: Self = Self::fixed("#account");
    /// The way to a group of one's own.
    pub const NEW_GROUP: Self = Self::fixed("#new-group");
    /// The people who concern me.
    pub const USERS_MINE: Self = Self::fixed("#users-mine");
    /// The people who are here, the same for everyone.
    pub const USERS_ONLINE: Self = Self::fixed("#users-online");
    /// What a search for people found.
    pub const USERS_FOUND: Self = Self::fixed("#users-found");

    /// The groups that a moderator looks through.
    pub const ADMIN_GROUPS: Self = Self::fixed("#admin-groups");
    /// The people that a moderator looks through.
    pub const ADMIN_PEOPLE: Self = Self::fixed("#admin-people");
    /// The group whose messages a moderator looks through.
    pub const ADMIN_MESSAGES: Self = Self::fixed("#admin-messages");
    /// What was found among them.
    pub const ADMIN_FOUND: Self = Self::fixed("#admin-found");
    /// What moderators did.
    pub const ADMIN_DEEDS: Self = Self::fixed("#admin-deeds");

    /// Every fixed selector a push may go to.
    pub const FIXED: [Self; 29] = [
        Self::LOGGED_USER,
        Self::GROUP_NAME,
        Self::MESSAGES_LIST,
        Self::MESSAGES_OLDER,
        Self::NOTICE,
        Self::CONNECTION,
        Self::ROOM_COUNT,
        Self::ROOM_PEOPLE,
        Self::ROOM_WELCOME,
        Self::ROOM_MOVES,
        Self::ROOM_TYPING,
        Self::MESSAGE_FORM,
        Self::MY_REACTIONS,
        Self::COMPLETIONS,
        Self::LOBBY,
        Self::LOBBY_ROOMS,
        Self::LOBBY_FOUND,
        Self::GROUPS_LIST,
        Self::NAME_FORM,
        Self::ACCOUNT,
        Self::NEW_GROUP,
        Self::USERS_MINE,
        Self::USERS_ONLINE,
        Self::USERS_FOUND,
        Self::ADMIN_GROUPS,
        Self::ADMIN_PEOPLE,
        Self::ADMIN_MESSAGES,
        Self::ADMIN_FOUND,
        Self::ADMIN_DEEDS,
    ];

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
    pub fn admin_group(id: RoomId) -> Self {
        Self(Cow::Owned(format!("#admin-group-{id}")))
    }

    /// One of the people that a moderator looks through.
    #[must_use]
    pub fn admin_person(id: UserId) -> Self {
        Self(Cow::Owned(format!("#admin-person-{id}")))
    }

    /// One of the messages that a moderator looks through.
    #[must_use]
    pub fn admin_message(id: MessageId) -> Self {
        Self(Cow::Owned(format!("#admin-message-{id}")))
    }

    /// What says that a reaction to a message is mine. An emoji is one of a fixed set, and goes by
    /// its code points.
    #[must_use]
    pub fn my_reaction(id: MessageId, emoji: Emoji) -> Self {
        Self(Cow::Owned(format!("#my-reaction-{id}-{}", emoji.code())))
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

/// An encoded push: a whole WebSocket frame whose bytes are shared by every socket it goes to, in
/// plain and, made when the first socket wants it, deflated.
#[derive(Clone, Debug)]
pub struct Frame(Arc<Encoded>);

#[derive(Debug)]
struct Encoded {
    plain: Bytes,
    payload: usize,
    deflated: OnceLock<Bytes>,
    /// What was joined to this, if anything was.
    parts: Vec<Frame>,
}

/// Payloads shorter than this are not worth deflating: they fit a packet either way.
const DEFLATE_FROM: usize = 200;

impl Frame {
    fn text(payload: &[u8]) -> Self {
        let plain = websocket::text(payload);
        let payload = plain.len() - payload.len();
        Self(Arc::new(Encoded {
            plain,
            payload,
            deflated: OnceLock::new(),
            parts: Vec::new(),
        }))
    }

    /// A whole frame of JSON.
    #[must_use]
    pub fn json(value: &Value) -> Self {
        Self::text(value.to_string().as_bytes())
    }

    /// Frames that are shown together, in one piece: each outbox keeps and each socket writes one
    /// thing instead of many.
    #[must_use]
    pub fn joined(parts: Vec<Self>) -> Self {
        let single = |frame: Self| match frame.0.parts.is_empty() {
            true => vec![frame],
            false => frame.0.parts.clone(),
        };
        let parts: Vec<_> = parts.into_iter().flat_map(single).collect();
        let plain = concatenated(&parts, false);
        Self(Arc::new(Encoded {
            payload: plain.len(),
            plain,
            deflated: OnceLock::new(),
            parts,
        }))
    }

    /// A whole frame of JSON that another node has encoded.
    fn encoded(json: &RawValue) -> Self {
        Self::text(json.get().as_bytes())
    }

    /// A ping, pong or close, which has no JSON and is never deflated.
    #[must_use]
    pub fn control(plain: Bytes) -> Self {
        Self(Arc::new(Encoded {
            payload: plain.len(),
            plain,
            deflated: OnceLock::new(),
            parts: Vec::new(),
        }))
    }

    /// The frame's bytes for a socket that agreed on deflate, or not.
    #[must_use]
    pub fn bytes(&self, deflate: bool) -> &Bytes {
        let Encoded {
            plain,
            payload,
            deflated,
            parts,
        } = &*self.0;
        if deflate && !parts.is_empty() {
            return deflated.get_or_init(|| concatenated(parts, true));
        }
        if !deflate || plain.len() - payload < DEFLATE_FROM {
            return plain;
        }
        deflated.get_or_init(|| websocket::deflated_text(&plain[*payload..]))
    }

    /// The JSON inside, of each of the frames that were joined.
    pub fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let whole = match self.0.parts.is_empty() {
            true => std::slice::from_ref(self),
            false => &self.0.parts,
        };
        whole.iter().map(|frame| &frame.0.plain[frame.0.payload..])
    }

    /// How much room the frame takes in an outbox, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.plain.len()
    }
}

/// As the JSON inside, of frames that were joined in an array. Control frames have none.
impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json: Result<Vec<&RawValue>, _> = self.payloads().map(serde_json::from_slice).collect();
        match json.map_err(S::Error::custom)?.as_slice() {
            [json] => json.serialize(serializer),
            parts => parts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?;
        if !json.get().starts_with('[') {
            return Ok(Self::encoded(json));
        }
        let parts: Vec<&RawValue> = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        Ok(Self::joined(parts.into_iter().map(Self::encoded).collect()))
    }
}

fn concatenated(frames: &[Frame], deflate: bool) -> Bytes {
    let bytes: Vec<&[u8]> = frames
        .iter()
        .map(|frame| &frame.bytes(deflate)[..])
        .collect();
    bytes.concat().into()
}

/// What a person did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `Change group`: enter that room.
    ChangeGroup(Target),
    /// `New group`: make the group of that name, if there is none, and enter it.
    NewGroup {
        /// How it is to be called.
        name: String,
        /// What the person is to be called there and everywhere, if anything else than now.
        display_name: Option<String>,
    },
    /// `Change name`: be called so.
    ChangeName {
        /// How; empty for the user name.
        name: String,
    },
    /// `New message`.
    NewMessage {
        /// What was typed.
        text: String,
        /// Where; the room the tab is in where it is missing.
        room: Option<RoomId>,
        /// Made by the browser; the same key is stored once.
        key: Option<Uuid>,
        /// What a program wishes to be called.
        sender: Option<String>,
    },
    /// `Open message`: to see who reacted and to react; one's own, to be edited or deleted.
    OpenMessage {
        /// Which.
        message: MessageId,
        /// Of which room.
        room: Option<RoomId>,
    },
    /// `Edit message`: one's own gets another text.
    EditMessage {
        /// Which.
        message: MessageId,
        /// Its new text.
        text: String,
        /// Of which room.
        room: Option<RoomId>,
    },
    /// `Delete message`: one's own is to be seen no more.
    DeleteMessage {
        /// Which.
        message: MessageId,
        /// Of which room.
        room: Option<RoomId>,
    },
    /// `React`: answer a message with an emoji, or take that back.
    React {
        /// Which message.
        message: MessageId,
        /// With what, as it was typed.
        emoji: String,
        /// Whether it is to be there.
        on: bool,
        /// Of which room.
        room: Option<RoomId>,
        /// Whether it comes from the form, which is then done with.
        form: bool,
    },
    /// `Older messages`: the page before a message.
    OlderMessages {
        /// The oldest message shown.
        before: MessageId,
        /// Of which room.
        room: Option<RoomId>,
    },
    /// `Read`: the list has been seen up to a message.
    Read {
        /// The newest message seen.
        message: MessageId,
        /// Of which room.
        room: Option<RoomId>,
    },
    /// `Typing`: something is being written.
    Typing {
        /// In which room.
        room: Option<RoomId>,
    },
    /// `Find people` whose names begin so.
    FindPeople {
        /// The beginning of a user name; empty clears the results.
        text: String,
    },
    /// `Find groups` whose names begin so.
    FindGroups {
        /// The beginning of a group's name; empty clears the results.
        text: String,
    },
    /// `Complete` the name that somebody began to write in a message.
    Complete {
        /// The beginning of a name; empty clears what was found.
        text: String,
    },
    /// What a moderator does.
    Moderate(Moderate),
    /// `Ping`: is anybody there?
    Ping,
}

/// What a moderator looks through or does, at [`ADMIN_PATH`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moderate {
    /// `Look for groups` whose names begin so.
    LookForGroups {
        /// The beginning of a name.
        text: String,
        /// The key of the last one shown.
        after: String,
    },
    /// `Look for people` whose user names begin so.
    LookForPeople {
        /// The beginning of a user name.
        text: String,
        /// The last one shown.
        after: String,
    },
    /// `Open group`: look through its messages.
    OpenGroup {
        /// Which.
        room: RoomId,
    },
    /// `Look for messages` of a group.
    LookForMessages {
        /// Which group.
        room: RoomId,
        /// The user name of their author; empty for anybody.
        author: String,
        /// Words that are in them.
        words: String,
        /// The first day, such as `2026-11-21`, in UTC; empty for any.
        from: String,
        /// The last day; empty for any.
        until: String,
        /// The oldest one looked at.
        before: Option<MessageId>,
    },
    /// `Look at deeds`: what moderators did.
    LookAtDeeds {
        /// The oldest one shown.
        before: Option<i64>,
    },
    /// `Rename group`.
    RenameGroup {
        /// Which.
        room: RoomId,
        /// Its new name, as it was typed.
        name: String,
    },
    /// `Remove group`.
    RemoveGroup {
        /// Which.
        room: RoomId,
    },
    /// `Restrict group` to moderators.
    RestrictGroup {
        /// Which.
        room: RoomId,
        /// Whether it is for moderators alone.
        on: bool,
    },
    /// `Restore message` that a moderator deleted.
    RestoreMessage {
        /// Which.
        message: MessageId,
        /// Of which group.
        room: RoomId,
    },
    /// `Mute` somebody.
    Mute {
        /// Their user name.
        name: String,
        /// Whether they are muted.
        on: bool,
    },
    /// `Ban` somebody.
    Ban {
        /// Their user name.
        name: String,
        /// Whether they are banned.
        on: bool,
    },
}

impl Moderate {
    /// The action's name, one of [`ADMIN_ACTIONS`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::LookForGroups { .. } => "Look for groups",
            Self::LookForPeople { .. } => "Look for people",
            Self::OpenGroup { .. } => "Open group",
            Self::LookForMessages { .. } => "Look for messages",
            Self::LookAtDeeds { .. } => "Look at deeds",
            Self::RenameGroup { .. } => "Rename group",
            Self::RemoveGroup { .. } => "Remove group",
            Self::RestrictGroup { .. } => "Restrict group",
            Self::RestoreMessage { .. } => "Restore message",
            Self::Mute { .. } => "Mute",
            Self::Ban { .. } => "Ban",
        }
    }

    /// Reads an action of that name; `None` if it is no moderator's.
    fn read(name: &str, data: &Data) -> Result<Option<Self>, Refusal> {
        let text = |key| data.optional_string(key).map(Option::unwrap_or_default);
        Ok(Some(match name {
            "Look for groups" => Self::LookForGroups {
                text: text("text")?,
                after: text("after")?,
            },
            "Look for people" => Self::LookForPeople {
                text: text("text")?,
                after: text("after")?,
            },
            "Open group" => Self::OpenGroup {
                room: data.that_room()?,
            },
            "Look for messages" => Self::LookForMessages {
                room: data.that_room()?,
                author: text("author")?,
                words: text("words")?,
                from: text("from")?,
                until: text("until")?,
                before: data.optional_number("before")?.map(MessageId),
            },
            "Look at deeds" => Self::LookAtDeeds {
                before: data.optional_number("before")?,
            },
            "Rename group" => Self::RenameGroup {
                room: data.that_room()?,
                name: data.string("groupName")?,
            },
            "Remove group" => Self::RemoveGroup {
                room: data.that_room()?,
            },
            "Restrict group" => Self::RestrictGroup {
                room: data.that_room()?,
                on: data.bool("on")?,
            },
            "Restore message" => Self::RestoreMessage {
                message: data.message("message")?,
                room: data.that_room()?,
            },
            "Mute" => Self::Mute {
                name: data.string("userName")?,
                on: data.bool("on")?,
            },
            "Ban" => Self::Ban {
                name: data.string("userName")?,
                on: data.bool("on")?,
            },
            _ => return Ok(None),
        }))
    }
}

/// Why something was not done, in words for the person who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The words.
    pub text: String,
    /// The group that is missing, where it may be made.
    pub offer: Option<String>,
    /// The key of the refused action, if it had one.
    pub key: Option<Uuid>,
}

impl Refusal {
    /// A refusal of an action without a key.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            offer: None,
            key: None,
        }
    }

    /// The same refusal, with the offer to make that group.
    #[must_use]
    pub fn offering(self, group: Option<GroupName>) -> Self {
        let offer = group.map(|group| group.as_str().to_owned());
        Self { offer, ..self }
    }

    /// The same refusal for the action of that key.
    #[must_use]
    pub fn of(self, key: Option<Uuid>) -> Self {
        Self { key, ..self }
    }
}

impl Action {
    /// The action's name, one of [`ACTIONS`] or [`ADMIN_ACTIONS`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ChangeGroup(_) => "Change group",
            Self::NewGroup { .. } => "New group",
            Self::ChangeName { .. } => "Change name",
            Self::NewMessage { .. } => "New message",
            Self::OpenMessage { .. } => "Open message",
            Self::EditMessage { .. } => "Edit message",
            Self::DeleteMessage { .. } => "Delete message",
            Self::React { .. } => "React",
            Self::OlderMessages { .. } => "Older messages",
            Self::Read { .. } => "Read",
            Self::Typing { .. } => "Typing",
            Self::FindPeople { .. } => "Find people",
            Self::FindGroups { .. } => "Find groups",
            Self::Complete { .. } => "Complete",
            Self::Moderate(deed) => deed.name(),
            Self::Ping => "Ping",
        }
    }

    /// Reads a text frame. Names and keys are exact; unknown keys are passed over.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        Self::read(text).map_err(|refusal| refusal.of(key_of(text)))
    }

    fn read(text: &str) -> Result<Self, Refusal> {
        let bad =
            || Refusal::new("That could not be understood: an action is {\"action\", \"data\"}.");
        let Ok(Value::Object(mut envelope)) = serde_json::from_str(text) else {
            return Err(bad());
        };
        let Some(Value::String(name)) = envelope.remove("action") else {
            return Err(bad());
        };
        let data = match envelope.remove("data") {
            Some(Value::Object(data)) => Data(data),
            None | Some(Value::Null) => Data(Map::new()),
            Some(_) => {
                return Err(Refusal::new(format!(
                    "“{name}” needs its data as an object."
                )));
            }
        };
        match name.as_str() {
            "Change group" => {
                let room = data.string("groupName")?;
                Ok(Self::ChangeGroup(match data.bool("isGroup")? {
                    true => Target::Group(room),
                    false => Target::Private(room),
                }))
            }
            "New group" => Ok(Self::NewGroup {
                name: data.string("groupName")?,
                display_name: data.optional_string("displayName")?,
            }),
            "Change name" => Ok(Self::ChangeName {
                name: data.string("name")?,
            }),
            "New message" => Ok(Self::NewMessage {
                key: data.key()?,
                text: data.string("message")?,
                room: data.room()?,
                sender: None,
            }),
            "Open message" => Ok(Self::OpenMessage {
                message: data.message("message")?,
                room: data.room()?,
            }),
            "Edit message" => Ok(Self::EditMessage {
                message: data.message("message")?,
                text: data.string("text")?,
                room: data.room()?,
            }),
            "Delete message" => Ok(Self::DeleteMessage {
                message: data.message("message")?,
                room: data.room()?,
            }),
            "React" => Ok(Self::React {
                message: data.message("message")?,
                emoji: data.string("emoji")?,
                on: data.bool("on")?,
                room: data.room()?,
                form: data.optional_bool("form")?,
            }),
            "Older messages" => Ok(Self::OlderMessages {
                before: data.message("before")?,
                room: data.room()?,
            }),
            "Read" => Ok(Self::Read {
                message: data.message("message")?,
                room: data.room()?,
            }),
            "Typing" => Ok(Self::Typing { room: data.room()? }),
            "Find people" => Ok(Self::FindPeople {
                text: data.string("text")?,
            }),
            "Find groups" => Ok(Self::FindGroups {
                text: data.string("text")?,
            }),
            "Complete" => Ok(Self::Complete {
                text: data.string("text")?,
            }),
            "Ping" => Ok(Self::Ping),
            name => match Moderate::read(name, &data)? {
                Some(deed) => Ok(Self::Moderate(deed)),
                None => Err(Refusal::new(format!(
                    "There is no action “{}”.",
                    shortened(name)
                ))),
            },
        }
    }
}

/// The key of an action that could not be read, so that its refusal settles it all the same. What
/// stands beside the key is passed over unread: it may be what is wrong, such as half of a
/// surrogate pair, which JSON can say and no text can hold.
fn key_of(text: &str) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Keyed {
        data: Key,
    }
    #[derive(Deserialize)]
    struct Key {
        key: String,
    }
    let keyed: Keyed = serde_json::from_str(text).ok()?;
    Uuid::try_parse(&keyed.data.key).ok()
}

/// At most 40 characters of a text that is quoted back.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// The data of an action, and what is said when a key is not as it should be.
struct Data(Map<String, Value>);

impl Data {
    fn string(&self, key: &str) -> Result<String, Refusal> {
        match self.0.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(Refusal::new(format!("“{key}” must be a text."))),
            None => Err(Refusal::new(format!("“{key}” is missing."))),
        }
    }

    fn optional_string(&self, key: &str) -> Result<Option<String>, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.string(key).map(Some),
        }
    }

    fn bool(&self, key: &str) -> Result<bool, Refusal> {
        match self.0.get(key) {
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(Refusal::new(format!("“{key}” must be true or false."))),
            None => Err(Refusal::new(format!("“{key}” is missing."))),
        }
    }

    /// False where it is missing.
    fn optional_bool(&self, key: &str) -> Result<bool, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(_) => self.bool(key),
        }
    }

    fn message(&self, key: &str) -> Result<MessageId, Refusal> {
        match self.0.get(key).map(Value::as_i64) {
            Some(Some(id)) => Ok(MessageId(id)),
            Some(None) => Err(Refusal::new(format!("“{key}” must be a message's number."))),
            None => Err(Refusal::new(format!("“{key}” is missing."))),
        }
    }

    fn optional_number(&self, key: &str) -> Result<Option<i64>, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(Refusal::new(format!("“{key}” must be a number."))),
            },
        }
    }

    fn that_room(&self) -> Result<RoomId, Refusal> {
        self.room()?
            .ok_or_else(|| Refusal::new("“room” is missing."))
    }

    /// A room that cannot be read is one that does not exist.
    fn room(&self) -> Result<Option<RoomId>, Refusal> {
        match self.0.get("room") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(room)) => match room.parse() {
                Ok(room) => Ok(Some(room)),
                Err(_) => Err(Refusal::new(NO_SUCH_ROOM)),
            },
            Some(_) => Err(Refusal::new("“room” must be a text.")),
        }
    }

    fn key(&self) -> Result<Option<Uuid>, Refusal> {
        match self.0.get("key") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(key)) => match Uuid::try_parse(key) {
                Ok(key) => Ok(Some(key)),
                Err(_) => Err(Refusal::new("“key” must be a UUID.")),
            },
            Some(_) => Err(Refusal::new("“key” must be a UUID.")),
        }
    }
}

/// What is said of a room that does not exist, and of one that one may not know of.
pub const NO_SUCH_ROOM: &str = "There is no such room.";

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
    /// Of the page at [`ADMIN_PATH`], which is in no room.
    Admin,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::V1,
        Self::Plain,
        Self::Objects,
        Self::Lines,
        Self::Admin,
    ];

    /// Whether it is one of a page, which is pushed HTML.
    #[must_use]
    pub fn is_html(self) -> bool {
        matches!(self, Self::V1 | Self::Plain | Self::Admin)
    }

    /// Whether it is one of a page that knows swaps.
    #[must_use]
    pub fn knows_swaps(self) -> bool {
        matches!(self, Self::V1 | Self::Admin)
    }
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

    /// Somebody comes from the page at [`ADMIN_PATH`].
    #[must_use]
    pub fn of_moderator() -> Self {
        Self {
            dialect: Dialect::Admin,
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

/// Where a room is found, `/chat/python/` or `/chat/@brenda82/`.
#[must_use]
pub fn address(target: &Target) -> Option<String> {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    match target {
        Target::Group(name) => Some(format!("/chat/{}/", utf8_percent_encode(name, SEGMENT))),
        Target::Private(name) => Some(format!("/chat/@{}/", utf8_percent_encode(name, SEGMENT))),
        Target::Room(_) => None,
    }
}

/// Reads an address as it stands in the browser's address bar, still percent-encoded.
#[must_use]
pub fn read_address(address: &str) -> Option<Target> {
    let segment = address.strip_prefix("/chat/")?;
    let segment = segment.strip_suffix('/').unwrap_or(segment);
    if segment.is_empty() || segment.contains('/') {
        return None;
    }
    let name = percent_decode_str(segment).decode_utf8().ok()?;
    Some(match name.strip_prefix('@') {
        Some(name) => Target::Private(name.to_owned()),
        None => Target::Group(name.into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::History;

    #[test]
    fn an_action_is_read() {
        #[track_caller]
        fn check(text: &str, expected: Result<Action, &str>) {
            assert_eq!(
                Action::parse(text).map_err(|refusal| refusal.text),
                expected.map_err(str::to_owned)
            );
        }
        let group = Target::Group("python".into());
        check(
            r#"{"action":"Change group","data":{"groupName":"python","isGroup":true}}"#,
            Ok(Action::ChangeGroup(group)),
        );
        check(
            r#"{"action":"Change group","data":{"groupName":"brenda82","isGroup":false,"more":1}}"#,
            Ok(Action::ChangeGroup(Target::Private("brenda82".into()))),
        );
        check(r#"{"action":"Ping"}"#, Ok(Action::Ping));
        check(r#"{"action":"Ping","data":null}"#, Ok(Action::Ping));
        check(
            r#"{"action":"New message","data":{"message":"a"}}"#,
            Ok(Action::NewMessage {
                sender: None,
                text: "a".into(),
                room: None,
                key: None,
            }),
        );
        check(
            r#"{"action":"Read","data":{"message":7,"room":"AAAAAAAAAAE"}}"#,
            Ok(Action::Read {
                message: MessageId(7),
                room: Some(RoomId(1)),
            }),
        );
        let shape = "That could not be understood: an action is {\"action\", \"data\"}.";
        for text in [
            "",
            "{",
            "[]",
            "null",
            "7",
            r#"{"data":{}}"#,
            r#"{"action":7}"#,
        ] {
            check(text, Err(shape));
        }
        check(r#"{"action":"ping"}"#, Err("There is no action “ping”."));
        check(
            r#"{"action":"Ping","data":7}"#,
            Err("“Ping” needs its data as an object."),
        );
        check(r#"{"action":"New message"}"#, Err("“message” is missing."));
        check(
            r#"{"action":"New message","data":{"message":7}}"#,
            Err("“message” must be a text."),
        );
        check(
            r#"{"action":"New message","data":{"message":"a","key":"x"}}"#,
            Err("“key” must be a UUID."),
        );
        check(
            r#"{"action":"New message","data":{"message":"a","room":"nowhere"}}"#,
            Err(NO_SUCH_ROOM),
        );
        check(
            r#"{"action":"Change group","data":{"groupName":"a","isGroup":"yes"}}"#,
            Err("“isGroup” must be true or false."),
        );
        check(
            r#"{"action":"Older messages","data":{"before":1.5}}"#,
            Err("“before” must be a message's number."),
        );
    }

    #[test]
    fn a_refused_action_names_its_key() {
        let key = "1b4e28ba-2fa1-4d5e-883f-0016d3cca427";
        for action in [
            format!(r#"{{"action":"New message","data":{{"message":7,"key":"{key}"}}}}"#),
            format!(
                r#"{{"action":"New message","data":{{"message":"a","room":"?","key":"{key}"}}}}"#
            ),
            format!(r#"{{"action":"New message","data":{{"message":"\ud83d","key":"{key}"}}}}"#),
            format!(r#"{{"action":"New mesage","data":{{"key":"{key}","message":"a"}}}}"#),
            format!(r#"{{"action":7,"data":{{"message":"a","key":"{key}"}}}}"#),
        ] {
            let refusal = Action::parse(&action).unwrap_err();
            assert_eq!(refusal.key, Some(key.parse().unwrap()), "{action}");
        }
    }

    #[test]
    fn joined_frames_are_the_same_bytes_in_one_piece() {
        let texts = ["short".to_owned(), "long ".repeat(100), "last".to_owned()];
        let frames: Vec<_> = texts
            .iter()
            .map(|text| Push::inner(Selector::NOTICE, text.clone()).encode())
            .collect();
        let joined = Frame::joined(frames.clone());
        for deflate in [false, true] {
            let apart: Vec<_> = frames
                .iter()
                .map(|frame| frame.bytes(deflate).clone())
                .collect();
            assert_eq!(joined.bytes(deflate), &apart.concat());
        }
        assert!(joined.bytes(true).len() < joined.bytes(false).len());
        assert_eq!(joined.size(), joined.bytes(false).len());
        assert!(
            joined
                .payloads()
                .eq(frames.iter().flat_map(Frame::payloads))
        );
        let again = Frame::joined(vec![joined, frames[0].clone()]);
        let all = frames.iter().chain(&frames[..1]);
        assert!(again.payloads().eq(all.flat_map(Frame::payloads)));

        // So they travel to other nodes.
        for frame in [&again, &frames[1]] {
            let json = serde_json::to_string(frame).unwrap();
            let came: Frame = serde_json::from_str(&json).unwrap();
            assert!(came.payloads().eq(frame.payloads()));
            assert_eq!(came.bytes(false), frame.bytes(false));
        }
    }

    #[test]
    fn every_action_of_the_list_is_known() {
        for name in ACTIONS {
            let refusal = Action::parse(&format!(r#"{{"action":"{name}","data":{{}}}}"#));
            if let Err(refusal) = refusal {
                assert!(!refusal.text.contains("no action"), "{name}");
            }
        }
    }

    #[test]
    fn a_push_leaves_out_what_it_has_not() {
        #[track_caller]
        fn check(push: &Push, expected: &str) {
            assert_eq!(
                std::str::from_utf8(push.encode().payloads().next().unwrap()).unwrap(),
                expected
            );
        }
        let push = Push::inner(Selector::NOTICE, "<p>\"</p>".into());
        check(&push, r##"{"selector":"#notice","html":"<p>\"</p>"}"##);
        let version = Version {
            room: RoomId(1),
            history: History(1),
            number: 3,
        };
        check(
            &push.swapped(Swap::Append).at(version),
            r##"{"selector":"#notice","html":"<p>\"</p>","swap":"append","version":"AAAAAAAAAAE.AAAAAQ.3"}"##,
        );
    }

    #[test]
    fn a_hello_is_read_and_nothing_unreadable_stops_it() {
        let token = ResumeToken::random();
        let offers = format!("overwire.v1, resume.{token}");
        let hello = Hello::read(
            [offers.as_str()].into_iter(),
            "room=AAAAAAAAAAE&after=AAAAAAAAAAE.AAAAAQ.3&at=%2Fchat%2F%40a%2F",
        );
        assert_eq!(hello.dialect, Dialect::V1);
        assert_eq!(hello.resume, Some(token));
        assert_eq!(hello.room, Some(RoomId(1)));
        assert_eq!(hello.after.map(|version| version.number), Some(3));
        assert_eq!(hello.at.as_deref(), Some("/chat/@a/"));

        let hello = Hello::read(
            ["resume.%%%", "other"].into_iter(),
            "room=%ff&after=&&=&at=%ff&x",
        );
        let nothing = Hello {
            dialect: Dialect::Plain,
            session: None,
            resume: None,
            room: None,
            after: None,
            at: None,
            group: None,
        };
        assert_eq!(hello, nothing);
    }

    #[test]
    fn an_address_reads_back_what_it_wrote() {
        for target in [
            Target::Group("python".into()),
            Target::Group("off-topic".into()),
            Target::Group("größe / 50%".into()),
            Target::Private("brenda82".into()),
        ] {
            assert_eq!(read_address(&address(&target).unwrap()), Some(target));
        }
        for text in [
            "/",
            "/chat/",
            "/chat//",
            "/chat/a/b/",
            "/chat/%ff/",
            "chat/a/",
        ] {
            assert_eq!(read_address(text), None, "{text}");
        }
    }

    #[test]
    fn the_protocol_document_names_every_action_and_selector() {
        const DOCUMENT: &str = include_str!("../docs/PROTOCOL.md");
        let cell = |name: &str| {
            DOCUMENT
                .lines()
                .any(|line| line.starts_with(&format!("| `{name}` |")))
        };
        for action in ACTIONS.iter().chain(&ADMIN_ACTIONS) {
            assert!(cell(action), "the action {action} is not documented");
        }
        for selector in Selector::FIXED {
            assert!(
                cell(selector.as_str()),
                "the selector {selector:?} is not documented"
            );
        }
        let (_, actions) = DOCUMENT.split_once("## Actions").unwrap();
        let (actions, _) = actions.split_once("###").unwrap();
        for line in actions.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (action, _) = line.split_once('`').unwrap();
            assert!(ACTIONS.contains(&action), "there is no action {action}");
        }
    }
}
