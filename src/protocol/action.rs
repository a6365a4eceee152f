//! What a tab says: an action and its data, as JSON.
//!
//! An action stands here once: its name on the wire, its variant, and where in the data each of its
//! fields is found.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::model::{GroupName, MessageId, RoomId, Target};

/// What is said of a room that does not exist, and of one that one may not know of.
pub const NO_SUCH_ROOM: &str = "There is no such room.";

/// Declares a kind of actions, and the kind that any other name is looked for in. `data` is what
/// an action's fields are read from.
macro_rules! actions {
    ($data:ident, $(#[$doc:meta])* $kind:ident {
        $($(#[$about:meta])* $name:literal $action:ident {
            $($(#[$what:meta])* $field:ident: $type:ty = $read:expr,)*
        })*
    } $($(#[$others_doc:meta])* else $others:ident($other:ident))?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $kind {
            $($(#[$about])* $action { $($(#[$what])* $field: $type,)* },)*
            $($(#[$others_doc])* $others($other),)?
        }

        impl $kind {
            /// The names of these actions on the wire.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The action's name on the wire.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$action { .. } => $name,)*
                    $(Self::$others(other) => $other::name(other),)?
                }
            }

            /// Reads an action of that name, if it is one.
            fn read(name: &str, $data: &Data) -> Result<Option<Self>, Refusal> {
                Ok(Some(match name {
                    $($name => Self::$action { $($field: $read,)* },)*
                    _ => return Ok(None $(.or($other::read(name, $data)?.map(Self::$others)))?),
                }))
            }
        }
    };
}

actions! {
    data,
    /// What a person did.
    Action {
        /// `Change group`: enter that room.
        "Change group" ChangeGroup {
            /// Which.
            target: Target = data.target()?,
        }
        /// `New group`: make the group of that name, if there is none, and enter it.
        "New group" NewGroup {
            /// Its name.
            name: String = data.get("groupName")?,
            /// The display name that the person chooses with it.
            display_name: Option<String> = data.get("displayName")?,
        }
        /// `Change name`: choose a display name.
        "Change name" ChangeName {
            /// Which; empty for the user name.
            name: String = data.get("name")?,
        }
        /// `New message`.
        "New message" NewMessage {
            /// What was typed.
            text: String = data.get("message")?,
            /// Where; the room the tab is in where it is missing.
            room: Option<RoomId> = data.get("room")?,
            /// Made by the browser; the same key is stored once.
            key: Option<Uuid> = data.get("key")?,
            /// The display name that a program asks for.
            sender: Option<String> = None,
        }
        /// `Open message`: to see who reacted and to react; one's own, to be edited or deleted.
        "Open message" OpenMessage {
            /// Which.
            message: MessageId = data.get("message")?,
            /// Of which room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Edit message`: one's own gets another text.
        "Edit message" EditMessage {
            /// Which.
            message: MessageId = data.get("message")?,
            /// Its new text.
            text: String = data.get("text")?,
            /// Of which room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Delete message`: one's own, or as a moderator anybody's.
        "Delete message" DeleteMessage {
            /// Which.
            message: MessageId = data.get("message")?,
            /// Of which room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `React`: answer a message with an emoji, or take that back.
        "React" React {
            /// Which message.
            message: MessageId = data.get("message")?,
            /// With what, as it was typed.
            emoji: String = data.get("emoji")?,
            /// Whether it is to be there.
            on: bool = data.get("on")?,
            /// Of which room.
            room: Option<RoomId> = data.get("room")?,
            /// Whether it comes from the form, which is then closed.
            form: bool = data.or_default("form")?,
        }
        /// `Older messages`: the page before a message.
        "Older messages" OlderMessages {
            /// The oldest message shown.
            before: MessageId = data.get("before")?,
            /// Of which room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Read`: the list has been seen up to a message.
        "Read" Read {
            /// The newest message seen.
            message: MessageId = data.get("message")?,
            /// Of which room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Typing`: something is being written.
        "Typing" Typing {
            /// In which room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Find people` whose names begin with a text.
        "Find people" FindPeople {
            /// The beginning of a name; empty clears the results.
            text: String = data.get("text")?,
        }
        /// `Find groups` whose names begin with a text.
        "Find groups" FindGroups {
            /// The beginning of a group's name; empty clears the results.
            text: String = data.get("text")?,
        }
        /// `Complete` the name that somebody began to write in a message.
        "Complete" Complete {
            /// The beginning of a name; empty clears what was found.
            text: String = data.get("text")?,
        }
        /// `Ping`: is anybody there?
        "Ping" Ping {}
    }
    /// What a moderator looks through or does.
    else Moderate(Moderate)
}

actions! {
    data,
    /// What a moderator looks through or does, at [`MODERATION_PATH`](super::MODERATION_PATH).
    Moderate {
        /// `Look for groups` whose names begin with a text.
        "Look for groups" LookForGroups {
            /// The beginning of a name.
            text: String = data.or_default("text")?,
            /// The key of the last one shown.
            after: String = data.or_default("after")?,
        }
        /// `Look for people` whose user names begin with a text.
        "Look for people" LookForPeople {
            /// The beginning of a user name.
            text: String = data.or_default("text")?,
            /// The last one shown.
            after: String = data.or_default("after")?,
        }
        /// `Open group`: look through its messages.
        "Open group" OpenGroup {
            /// Which.
            room: RoomId = data.get("room")?,
        }
        /// `Look for messages` of a group.
        "Look for messages" LookForMessages {
            /// Which group.
            room: RoomId = data.get("room")?,
            /// The user name of their author; empty for anybody.
            author: String = data.or_default("author")?,
            /// Words that are in them.
            words: String = data.or_default("words")?,
            /// The first day, such as `2026-11-21`, in UTC; empty for any.
            from: String = data.or_default("from")?,
            /// The last day; empty for any.
            until: String = data.or_default("until")?,
            /// The oldest one looked at.
            before: Option<MessageId> = data.get("before")?,
        }
        /// `Show audit log`: what moderators did.
        "Show audit log" ShowAuditLog {
            /// The oldest one shown.
            before: Option<i64> = data.get("before")?,
        }
    }
    /// What changes something.
    else Do(ModeratorAction)
}

actions! {
    data,
    /// What a moderator does. It is recorded in the audit log.
    ModeratorAction {
        /// `Rename group`.
        "Rename group" RenameGroup {
            /// Which.
            room: RoomId = data.get("room")?,
            /// Its new name.
            name: GroupName = data.get("groupName")?,
        }
        /// `Remove group`: nobody finds it any more, and another may have its name.
        "Remove group" RemoveGroup {
            /// Which.
            room: RoomId = data.get("room")?,
        }
        /// `Restrict group` to moderators, or open it to everybody.
        "Restrict group" RestrictGroup {
            /// Which.
            room: RoomId = data.get("room")?,
            /// Whether it is for moderators alone.
            on: bool = data.get("on")?,
        }
        /// `Restore message` that a moderator deleted.
        "Restore message" RestoreMessage {
            /// Which.
            message: MessageId = data.get("message")?,
            /// The group it is in.
            room: RoomId = data.get("room")?,
        }
        /// `Mute` somebody: they may only read. Or unmute them.
        "Mute" Mute {
            /// Their user name.
            name: String = data.get("userName")?,
            /// Whether they are muted.
            on: bool = data.get("on")?,
        }
        /// `Ban` somebody: they may not be here. Or unban them.
        "Ban" Ban {
            /// Their user name.
            name: String = data.get("userName")?,
            /// Whether they are banned.
            on: bool = data.get("on")?,
        }
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
    /// Reads a text frame. Names and keys are exact; unknown keys are passed over.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        Self::parse_envelope(text).map_err(|refusal| refusal.of(key_of(text)))
    }

    fn parse_envelope(text: &str) -> Result<Self, Refusal> {
        let bad = || Refusal::new("Invalid message. Send {\"action\": \"…\", \"data\": {…}}.");
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
                let words = format!("“{name}” needs its data as an object.");
                return Err(Refusal::new(words));
            }
        };
        Self::read(&name, &data)?
            .ok_or_else(|| Refusal::new(format!("There is no action “{}”.", shortened(&name))))
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

/// The data of an action.
struct Data(Map<String, Value>);

impl Data {
    /// The value of a key, or what is wrong with it.
    fn get<T: Field>(&self, key: &str) -> Result<T, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) if T::IS_OPTIONAL => T::read(&Value::Null),
            None => Err(format!("“{key}” is missing.")),
            Some(value) => T::read(value),
        }
        .map_err(|words| Refusal::new(words.replace("{}", key)))
    }

    /// The value of a key that may be missing.
    fn or_default<T: Field + Default>(&self, key: &str) -> Result<T, Refusal> {
        Ok(self.get::<Option<T>>(key)?.unwrap_or_default())
    }

    fn target(&self) -> Result<Target, Refusal> {
        let name = self.get("groupName")?;
        Ok(match self.get("isGroup")? {
            true => Target::Group(name),
            false => Target::Private(name),
        })
    }
}

/// What a key of the data may hold.
trait Field: Sized {
    /// Whether the key may be missing, which is the same as null.
    const IS_OPTIONAL: bool = false;

    /// Reads it, or says what it must be; `{}` is the key.
    fn read(value: &Value) -> Result<Self, String>;
}

macro_rules! fields {
    ($($type:ty: $value:ident => $read:expr, else $words:expr;)*) => {
        $(impl Field for $type {
            fn read($value: &Value) -> Result<Self, String> {
                $read.ok_or_else(|| $words.to_owned())
            }
        })*
    };
}

fields! {
    String: value => value.as_str().map(str::to_owned), else "“{}” must be a text.";
    bool: value => value.as_bool(), else "“{}” must be true or false.";
    i64: value => value.as_i64(), else "“{}” must be a number.";
    MessageId: value => value.as_i64().map(Self), else "“{}” must be a message's number.";
    Uuid: value => value.as_str().and_then(|key| Self::try_parse(key).ok()), else "“{}” must be a UUID.";
}

/// One that cannot be read is one that does not exist.
impl Field for RoomId {
    fn read(value: &Value) -> Result<Self, String> {
        let text = String::read(value)?;
        text.parse().map_err(|_| NO_SUCH_ROOM.to_owned())
    }
}

impl Field for GroupName {
    fn read(value: &Value) -> Result<Self, String> {
        Self::new(&String::read(value)?).map_err(|bad| bad.to_string())
    }
}

impl<T: Field> Field for Option<T> {
    const IS_OPTIONAL: bool = true;

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(None),
            value => T::read(value).map(Some),
        }
    }
}
