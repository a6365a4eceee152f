//! What a tab sends: an action and its data, as JSON.
//!
//! Each action is declared once: its name on the wire, its variant, and where its fields are in the
//! data.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::model::{
    FileId, GroupName, Message, MessageId, Notifications, NotificationsChange, PushSubscription,
    RoomId, Target,
};

/// The refusal for a room that does not exist, or that the person may not know of.
pub const NO_SUCH_ROOM: &str = "There is no such room.";

/// Declares a kind of actions. `else` names the kind in which all other names are looked up. `$data` is
/// what the fields of an action are read from.
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
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$action { .. } => $name,)*
                    $(Self::$others(other) => $other::name(other),)?
                }
            }

            /// Reads an action of this kind, if the name is one.
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
    /// An action of a person.
    Action {
        /// `Change group`: enter a room.
        "Change group" ChangeGroup {
            /// Which room.
            target: Target = data.target()?,
        }
        /// `New group`: enter the group with this name, and create it if it does not exist.
        "New group" NewGroup {
            /// Its name.
            name: String = data.get("groupName")?,
            /// The display name that the person chooses at the same time.
            display_name: Option<String> = data.get("displayName")?,
        }
        /// `Change name`: choose a display name.
        "Change name" ChangeName {
            /// The new name; empty for the user name.
            name: String = data.get("name")?,
        }
        /// `New message`.
        "New message" NewMessage {
            /// The text.
            text: String = data.get("message")?,
            /// The room; if missing, the room of the tab.
            to: Option<Target> = data.meant()?,
            /// Created by the browser. A message with a known key is not stored again.
            key: Option<Uuid> = data.get("key")?,
            /// The message that it replies to.
            reply_to: Option<MessageId> = data.get("reply_to")?,
            /// The files that go with it, which were sent before.
            files: Vec<FileId> = data.or_default("files")?,
            /// The display name that a program asks for.
            sender: Option<String> = None,
        }
        /// `Open message`: see who reacted, and react. One's own message can also be edited or deleted.
        "Open message" OpenMessage {
            /// The message.
            message: MessageId = data.get("message")?,
            /// Its room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Edit message`: change the text of one's own message.
        "Edit message" EditMessage {
            /// The message.
            message: MessageId = data.get("message")?,
            /// Its new text.
            text: String = data.get("text")?,
            /// Its room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Delete message`: one's own, or anybody's as a moderator.
        "Delete message" DeleteMessage {
            /// The message.
            message: MessageId = data.get("message")?,
            /// Its room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `React`: add an emoji to a message, or remove it.
        "React" React {
            /// The message.
            message: MessageId = data.get("message")?,
            /// The emoji, as it was typed.
            emoji: String = data.get("emoji")?,
            /// Whether to add it.
            on: bool = data.get("on")?,
            /// The room of the message.
            room: Option<RoomId> = data.get("room")?,
            /// Whether it was sent from the form, which is then closed.
            form: bool = data.or_default("form")?,
        }
        /// `Older messages`: get the page before a message.
        "Older messages" OlderMessages {
            /// The oldest message shown.
            before: MessageId = data.get("before")?,
            /// Its room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Newer messages`: get the page after a message.
        "Newer messages" NewerMessages {
            /// The newest message shown before the gap.
            after: MessageId = data.get("after")?,
            /// The oldest message after it, if there is one.
            before: Option<MessageId> = data.get("before")?,
            /// Its room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Show messages` around a message or a moment, or the newest.
        "Show messages" ShowMessages {
            /// The message.
            at: Option<MessageId> = data.get("at")?,
            /// The moment, in milliseconds since 1970-01-01 UTC.
            since: Option<i64> = data.get("since")?,
            /// Its room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Read`: the list has been read up to a message.
        "Read" Read {
            /// The newest message seen.
            message: MessageId = data.get("message")?,
            /// Its room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Mark unread`: the room is unread from a message on.
        "Mark unread" MarkUnread {
            /// The first unread message.
            message: MessageId = data.get("message")?,
            /// Its room.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Mark all as read`: every room is read up to its end.
        "Mark all as read" MarkAllAsRead {}
        /// `Leave group`: it is no longer in the person's list.
        "Leave group" LeaveGroup {
            /// The group.
            room: Option<RoomId> = data.get("room")?,
        }
        /// `Mute group`: turn its news off, or on again.
        "Mute group" MuteGroup {
            /// The group.
            room: Option<RoomId> = data.get("room")?,
            /// Whether it is muted.
            on: bool = data.get("on")?,
        }
        /// `Change topic`: say what a group is about.
        "Change topic" ChangeTopic {
            /// The group.
            room: Option<RoomId> = data.get("room")?,
            /// The new topic; empty for none.
            topic: String = data.get("topic")?,
        }
        /// `Set notifications`: change how the person is notified.
        "Set notifications" SetNotifications {
            /// The change.
            change: NotificationsChange = data.notifications()?,
        }
        /// `Subscribe`: the browser takes notifications while it shows no page.
        "Subscribe" Subscribe {
            /// Where and how.
            subscription: PushSubscription = data.subscription()?,
        }
        /// `In view`: whether the person looks at the tab.
        "In view" InView {
            /// Whether they do.
            on: bool = data.get("on")?,
        }
        /// `Typing`: the person is typing.
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
        /// `Find rooms`: groups and people whose names begin with a text, for the switcher.
        "Find rooms" FindRooms {
            /// The beginning of a name; empty finds the rooms in my lists.
            text: String = data.get("text")?,
        }
        /// `Search` for messages in one's groups and private rooms.
        "Search" Search {
            /// What the person typed.
            text: String = data.get("text")?,
            /// The oldest result shown, to get older ones.
            before: Option<MessageId> = data.get("before")?,
        }
        /// `Complete` a word that is being typed in a message.
        "Complete" Complete {
            /// The beginning of a word, such as `@bren`, `#py` or `:tad`; empty clears the results.
            text: String = data.get("text")?,
        }
        /// `Ping`: check the connection.
        "Ping" Ping {}
    }
    /// A search or an action of a moderator.
    else Moderate(Moderate)
}

actions! {
    data,
    /// A search or an action of a moderator, at [`MODERATION_PATH`](super::MODERATION_PATH).
    Moderate {
        /// `Look for groups` whose names begin with a text.
        "Look for groups" LookForGroups {
            /// The beginning of a name.
            text: String = data.or_default("text")?,
            /// The key of the last group shown.
            after: String = data.or_default("after")?,
        }
        /// `Look for people` whose user names begin with a text.
        "Look for people" LookForPeople {
            /// The beginning of a user name.
            text: String = data.or_default("text")?,
            /// The last user name shown.
            after: String = data.or_default("after")?,
        }
        /// `Open group`: show its messages.
        "Open group" OpenGroup {
            /// The group.
            room: RoomId = data.get("room")?,
        }
        /// `Look for messages` in a group.
        "Look for messages" LookForMessages {
            /// The group.
            room: RoomId = data.get("room")?,
            /// The user name of their author; empty for anybody.
            author: String = data.or_default("author")?,
            /// Words in the message.
            words: String = data.or_default("words")?,
            /// The first day, such as `2026-11-21`, in UTC; empty for any.
            from: String = data.or_default("from")?,
            /// The last day; empty for any.
            until: String = data.or_default("until")?,
            /// The oldest message of the results so far.
            before: Option<MessageId> = data.get("before")?,
        }
        /// `Show audit log`: show what moderators did.
        "Show audit log" ShowAuditLog {
            /// The oldest entry shown.
            before: Option<i64> = data.get("before")?,
        }
    }
    /// An action that changes something.
    else Do(ModeratorAction)
}

actions! {
    data,
    /// An action of a moderator. It is recorded in the audit log.
    ModeratorAction {
        /// `Rename group`.
        "Rename group" RenameGroup {
            /// The group.
            room: RoomId = data.get("room")?,
            /// Its new name.
            name: GroupName = data.get("groupName")?,
        }
        /// `Remove group`: it can no longer be found, and its name is free again.
        "Remove group" RemoveGroup {
            /// The group.
            room: RoomId = data.get("room")?,
        }
        /// `Restrict group` to moderators, or open it to everybody.
        "Restrict group" RestrictGroup {
            /// The group.
            room: RoomId = data.get("room")?,
            /// Whether only moderators may enter.
            on: bool = data.get("on")?,
        }
        /// `Restore message`: undo a deletion by a moderator.
        "Restore message" RestoreMessage {
            /// The message.
            message: MessageId = data.get("message")?,
            /// Its group.
            room: RoomId = data.get("room")?,
        }
        /// `Mute` somebody, so that they can only read, or unmute them.
        "Mute" Mute {
            /// Their user name.
            name: String = data.get("userName")?,
            /// Whether they are muted.
            on: bool = data.get("on")?,
        }
        /// `Ban` somebody, so that they cannot connect, or unban them.
        "Ban" Ban {
            /// Their user name.
            name: String = data.get("userName")?,
            /// Whether they are banned.
            on: bool = data.get("on")?,
        }
    }
}

/// The kind of a notice, which decides how it looks, and what becomes of the text that a client keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// An action was refused, with a reason.
    Refusal,
    /// An action came too fast. It was not refused: later it may succeed.
    Wait,
    /// The server failed. The action may have taken effect or not.
    Trouble,
    /// The action succeeded.
    Done,
}

/// Why an action was refused, in words for the person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The words.
    pub text: String,
    /// A missing group that the person may create.
    pub offer: Option<String>,
    /// The key of the refused action, if it had one.
    pub key: Option<Uuid>,
}

impl Refusal {
    /// A refusal without a key.
    pub fn new(text: impl Into<String>) -> Self {
        let (text, offer, key) = (text.into(), None, None);
        Self { text, offer, key }
    }

    /// The same refusal, with the offer to create that group.
    #[must_use]
    pub fn offering(self, group: Option<GroupName>) -> Self {
        let offer = group.map(|group| group.as_str().to_owned());
        Self { offer, ..self }
    }

    /// The same refusal with this key.
    #[must_use]
    pub fn of(self, key: Option<Uuid>) -> Self {
        Self { key, ..self }
    }
}

impl Action {
    /// Parses a text frame. Names and keys are case-sensitive; unknown keys are ignored.
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
                let words = format!("The data of “{name}” must be an object.");
                return Err(Refusal::new(words));
            }
        };
        Self::read(&name, &data)?
            .ok_or_else(|| Refusal::new(format!("There is no action “{}”.", shortened(&name))))
    }
}

/// The key of an action that could not be parsed, so that its refusal still settles it. Only the key is
/// read. The rest may be what is wrong, such as half of a surrogate pair, which is valid JSON but
/// cannot be stored as text.
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

/// Shortens a quoted text to 40 characters.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// The data of an action.
struct Data(Map<String, Value>);

impl Data {
    /// The value of a key, or a refusal that says what is wrong with it.
    fn get<T: Field>(&self, key: &str) -> Result<T, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) if T::IS_OPTIONAL => T::read(&Value::Null),
            None => Err(format!("“{key}” is missing.")),
            Some(value) => T::read(value),
        }
        .map_err(|words| Refusal::new(words.replace("{}", key)))
    }

    /// The value of an optional key.
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

    /// The room that is named by its id or, as in `Change group`, by its name.
    fn meant(&self) -> Result<Option<Target>, Refusal> {
        let room: Option<RoomId> = self.get("room")?;
        match room {
            None if self.0.contains_key("groupName") => self.target().map(Some),
            room => Ok(room.map(Target::Room)),
        }
    }

    fn subscription(&self) -> Result<PushSubscription, Refusal> {
        let (p256dh, auth): (String, String) = (self.get("p256dh")?, self.get("auth")?);
        PushSubscription::read(self.get("endpoint")?, &p256dh, &auth)
            .ok_or_else(|| Refusal::new("This is not a subscription of a browser."))
    }

    fn notifications(&self) -> Result<NotificationsChange, Refusal> {
        if let Some(on) = self.get("on")? {
            return Ok(NotificationsChange::On(on));
        }
        if let Some(on) = self.get("sounds")? {
            return Ok(NotificationsChange::Sounds(on));
        }
        let minutes: i64 = self.get("quiet")?;
        let seconds = minutes.unsigned_abs().saturating_mul(60);
        Ok(NotificationsChange::Quiet(match minutes {
            0 => None,
            1.. => Some(Duration::from_secs(seconds)),
            _ => Some(Notifications::FOR_GOOD),
        }))
    }
}

/// A type that a key of the data may have.
trait Field: Sized {
    /// Whether the key may be missing, which means the same as null.
    const IS_OPTIONAL: bool = false;

    /// Reads the value, or says what it must be; `{}` stands for the key.
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
    String: value => value.as_str().map(str::to_owned), else "“{}” must be a string.";
    bool: value => value.as_bool(), else "“{}” must be true or false.";
    i64: value => value.as_i64(), else "“{}” must be a number.";
    MessageId: value => value.as_i64().map(Self), else "“{}” must be the id of a message.";
    Uuid: value => value.as_str().and_then(|key| Self::try_parse(key).ok()), else "“{}” must be a UUID.";
}

/// An invalid id is treated like a room that does not exist.
impl Field for RoomId {
    fn read(value: &Value) -> Result<Self, String> {
        let text = String::read(value)?;
        text.parse().map_err(|_| NO_SUCH_ROOM.to_owned())
    }
}

impl Field for Vec<FileId> {
    fn read(value: &Value) -> Result<Self, String> {
        let ids = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let read = |id: &Value| id.as_str().and_then(|id| id.parse().ok());
        let read: Option<Self> = ids.iter().map(read).collect();
        let read = read.filter(|read| value.is_array() && read.len() <= Message::FILES);
        let words = || format!("“{{}}” must be at most {} ids of files.", Message::FILES);
        read.ok_or_else(words)
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
