//! Plain data of the chat: ids, checked values, users, rooms, messages, versions.
//!
//! Nothing here knows JSON, SQL or HTML, or does I/O.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// A user: a permanent fake person.
    UserId,
    /// A client: a user who is online now. It outlives its sockets while its resume token is valid.
    ClientId,
    /// A session of a registered person who has signed in.
    SessionId,
    /// A message. A room's messages are ordered by their ids.
    MessageId,
    /// One server process; the id is random for each start.
    NodeId,
}

impl UserId {
    /// The id of no user: somebody who has not connected yet.
    pub const NOBODY: Self = Self(0);
}

impl NodeId {
    /// A new node's id.
    pub fn random() -> Self {
        Self(random_positive())
    }
}

/// A client as seen by one socket. An older visit means that the socket has been taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientRef {
    /// The client's id.
    pub client: ClientId,
    /// How often the client has been taken over.
    pub visit: i64,
}

/// A room. The id is random and has no meaning, so it can appear in the page (`data-room`), and two
/// stores never give the same id to different rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RoomId(pub i64);

impl RoomId {
    /// The place of people who are in no room: no room has this id.
    pub const LOBBY: Self = Self(0);
    /// The same for people who look at the results of a search.
    pub const SEARCH: Self = Self(-1);

    /// A new room's id.
    pub fn random() -> Self {
        Self(random_positive())
    }

    /// The id in 32 bits.
    fn folded(self) -> u32 {
        let [a, b, c, d, rest @ ..] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d]) ^ u32::from_be_bytes(rest)
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.to_be_bytes()))
    }
}

/// The text was not written by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unreadable")]
pub struct Unreadable;

impl FromStr for RoomId {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        Ok(Self(i64::from_be_bytes(decoded(text)?)))
    }
}

fn decoded<const N: usize>(text: &str) -> Result<[u8; N], Unreadable> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unreadable)?;
    bytes.try_into().map_err(|_| Unreadable)
}

/// A file. The id is random, so that nobody can guess or count files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId(pub i64);

impl FileId {
    /// A new file's id.
    pub fn random() -> Self {
        Self(random_positive())
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RoomId(self.0).fmt(f)
    }
}

impl FromStr for FileId {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        text.parse().map(|RoomId(id)| Self(id))
    }
}

/// The start of the store under which a change was made. A room remembers which starts changed it and
/// from which version on, so a version from a restored or different store is recognized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct History(pub u32);

impl History {
    /// The history of a new start of a store.
    pub fn random() -> Self {
        Self(u32::from_be_bytes(random_bytes()).max(1))
    }
}

/// The state of a room that a tab has: the room, the history and the number of the change. The number
/// grows by one with each stored change of the room and is 0 before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The room this is a version of.
    pub room: RoomId,
    /// The history the change belongs to.
    pub history: History,
    /// How many changes the room has had.
    pub number: u64,
}

// Every change of a room carries its version. So the room and the history are one hexadecimal number, which takes 14
// bytes less of a compressed message than both in base64: the key of the message has the same characters.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_room = self.history.0 ^ self.room.folded();
        write!(f, "{of_room:08x}.{}", self.number)
    }
}

impl Version {
    /// What a tab that shows `room` says it has. A version of another room is read as one of a history that the room
    /// does not have, except for one in four billion.
    pub fn read(room: RoomId, text: &str) -> Result<Self, Unreadable> {
        let (of_room, number) = text.split_once('.').ok_or(Unreadable)?;
        let of_room = u32::from_str_radix(of_room, 16).map_err(|_| Unreadable)?;
        // The store counts in 64-bit signed integers.
        let number: i64 = number.parse().map_err(|_| Unreadable)?;
        Ok(Self {
            room,
            history: History(of_room ^ room.folded()),
            number: number.try_into().map_err(|_| Unreadable)?,
        })
    }
}

/// A moment, in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Millis(pub i64);

impl Millis {
    /// A moment that never comes.
    pub const MAX: Self = Self(i64::MAX);

    /// The current moment, by the machine's clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(in_millis(since.unwrap_or_default()))
    }

    /// The moment `by` later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(in_millis(by)))
    }

    /// The moment `by` earlier.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(in_millis(by)))
    }

    /// The start of a day in UTC, such as `2026-11-21`.
    pub fn of_day(day: &str) -> Option<Self> {
        let moment = humantime::parse_rfc3339(&format!("{day}T00:00:00Z")).ok()?;
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Self(in_millis(since)))
    }

    /// `2026-11-21T07:30:00Z`; moments before 1970 are shown as 1970.
    pub fn to_rfc3339(self) -> String {
        let since = Duration::from_millis(u64::try_from(self.0).unwrap_or(0));
        humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
    }
}

fn in_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A user as others see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// The unique user name that never changes, `brenda82`.
    pub name: String,
    /// The display name, if they chose one.
    pub display_name: Option<String>,
}

impl User {
    /// The name to show: the display name, or else the user name.
    pub fn shown_name(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.name)
    }
}

/// A user that does not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// The user name: lower-case ASCII letters and digits, beginning with a letter.
    pub name: String,
    /// The e-mail address.
    pub email: String,
}

/// A person in the side pane: a user, and the reader's unread count for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The user.
    pub user: User,
    /// How many of their messages the reader has not seen, counted up to 100.
    pub unread: u32,
    /// Whether they are online.
    pub online: bool,
}

/// A room as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The room's id.
    pub id: RoomId,
    /// A group, or a private room and its other person.
    pub kind: RoomKind,
}

/// The kind of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomKind {
    /// Open to everyone, found by its name (without `#`).
    Group(String),
    /// For two people, one per pair. Seen from one of them, `with` is the other.
    Private {
        /// The other person.
        with: User,
    },
}

/// Which room a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The group of that name.
    Group(String),
    /// The private room with the person of that user name.
    Private(String),
    /// The room with that id, if it may be entered.
    Room(RoomId),
}

/// A group in somebody's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The group.
    pub group: Room,
    /// Whether they belong to it.
    pub joined: bool,
    /// Whether they have turned its news off.
    pub muted: bool,
    /// Whether somebody else has written there since they last read it.
    pub unread: bool,
    /// Those of these messages that mention them by name, at most 100.
    pub named: Vec<MessageId>,
    /// Those that mention everybody, at most 100, unless they have turned the news off.
    pub here: Vec<MessageId>,
    /// Up to where they have read it.
    pub read: MessageId,
}

/// A group in the lobby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The group.
    pub group: Room,
    /// How many people are in it now.
    pub people: u64,
    /// What it is about, in one line.
    pub topic: Option<String>,
    /// When the last message was written.
    pub active_at: Option<Millis>,
}

/// How somebody is notified of messages for them while they look elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    /// Do not disturb: they are not notified before this time.
    pub quiet_until: Option<Millis>,
    /// Whether they hear a sound as well.
    pub sounds: bool,
}

impl Notifications {
    /// Do not disturb until that is turned off.
    pub const FOR_GOOD: Duration = Duration::MAX;
}

/// Where and how a browser takes notifications while it shows no page of the chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSubscription {
    /// The address at the browser's push service.
    pub endpoint: String,
    /// The browser's public key, as an uncompressed point of the curve P-256.
    pub p256dh: Vec<u8>,
    /// The secret that it shares with the chat.
    pub auth: Vec<u8>,
}

impl PushSubscription {
    /// The longest address, in bytes.
    pub const ENDPOINT_BYTES: usize = 1024;

    /// Reads what a browser has sent, if it is a subscription.
    pub fn read(endpoint: String, p256dh: &str, auth: &str) -> Option<Self> {
        let [p256dh, auth] = [p256dh, auth].map(|text| URL_SAFE_NO_PAD.decode(text));
        let (p256dh, auth) = (p256dh.ok()?, auth.ok()?);
        let is_address = endpoint.starts_with("https://") || endpoint.starts_with("http://");
        let is_valid = is_address
            && endpoint.len() <= Self::ENDPOINT_BYTES
            && endpoint.bytes().all(|byte| byte.is_ascii_graphic())
            && (p256dh.len(), p256dh.first(), auth.len()) == (65, Some(&4), 16);
        is_valid.then_some(Self {
            endpoint,
            p256dh,
            auth,
        })
    }
}

/// A change of how somebody is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationsChange {
    /// Whether they are notified at all.
    On(bool),
    /// Do not disturb for so long from now on, or no longer.
    Quiet(Option<Duration>),
    /// Whether they hear a sound as well.
    Sounds(bool),
}

/// What a group is about, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic(String);

impl Topic {
    /// The longest topic, in characters.
    pub const CHARACTERS: usize = 200;

    /// Checks a topic; white space is joined, and `None` is no topic. Fails with the number of its
    /// characters if it is too long.
    pub fn new(text: &str) -> Result<Option<Self>, usize> {
        let words = text.split(|c: char| c.is_whitespace() || c.is_control());
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        let topic = words.join(" ");
        match topic.chars().count() {
            0 => Ok(None),
            1..=Self::CHARACTERS => Ok(Some(Self(topic))),
            characters => Err(characters),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who wrote a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Author {
    /// The user's id.
    pub id: UserId,
    /// The user name.
    pub user_name: String,
    /// The name shown with the message when it was written.
    pub name: String,
}

/// One stored message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Its id, which orders the room.
    pub id: MessageId,
    /// The room it was written in.
    pub room: RoomId,
    /// Who wrote it.
    pub author: Author,
    /// The text as written.
    pub text: String,
    /// The author's key for it, which makes sending it again harmless.
    pub key: Option<Uuid>,
    /// The version that created it.
    pub made: u64,
    /// The version of its last change.
    pub changed: u64,
    /// When it was stored.
    pub created_at: Millis,
    /// Whether its text was changed.
    pub edited: bool,
    /// Whether it is deleted. The store keeps the text.
    pub deleted: bool,
    /// The version of the last change of its text: when it was created, edited or deleted.
    pub worded: u64,
    /// The reactions to it, in the order of their first use.
    pub reactions: Vec<Reaction>,
    /// Whether a moderator deleted it.
    pub by_moderator: bool,
    /// The text as it is shown, if it has been stored.
    pub html: Option<String>,
    /// The message that it replies to.
    pub reply_to: Option<Original>,
    /// Its files, in the order of the author.
    pub files: Vec<File>,
}

/// A message that another one replies to, as far as the reply shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Original {
    /// Its id.
    pub id: MessageId,
    /// Who wrote it.
    pub author: Author,
    /// The text as written; none if it is deleted.
    pub text: Option<String>,
}

impl From<&Message> for Original {
    fn from(message: &Message) -> Self {
        Self {
            id: message.id,
            author: message.author.clone(),
            text: (!message.deleted).then(|| message.text.clone()),
        }
    }
}

impl Message {
    /// The most files of one message.
    pub const FILES: usize = 10;

    /// Its text or, if it has none, what was sent.
    pub fn said(&self) -> Cow<'_, str> {
        match &self.files[..] {
            [] => Cow::Borrowed(&self.text),
            _ if !self.text.is_empty() => Cow::Borrowed(&self.text),
            [file] if file.picture.is_some() => Cow::Borrowed("sent a picture"),
            [file] => Cow::Owned(format!("sent {}", file.name)),
            files if files.iter().all(|file| file.picture.is_some()) => {
                Cow::Owned(format!("sent {} pictures", files.len()))
            }
            files => Cow::Owned(format!("sent {} files", files.len())),
        }
    }
}

/// A file that somebody uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct File {
    /// Its id.
    pub id: FileId,
    /// Its name, as it is shown and downloaded.
    pub name: String,
    /// What it is, by its bytes: the type of a picture, or any bytes.
    pub media_type: String,
    /// How large it is.
    pub bytes: u64,
    /// Its size on the screen, if it is a picture.
    pub picture: Option<Picture>,
}

/// What a page needs of a picture before it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Picture {
    /// Its width as it is shown, in pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// Whether there is a smaller one.
    pub thumbnail: bool,
}

impl File {
    /// The type of a file that is no picture.
    pub const ANY_BYTES: &str = "application/octet-stream";
    /// The longest name, in characters.
    pub const NAME_CHARACTERS: usize = 100;

    /// A name that leads to no other folder and shows what it is: without folders, characters that cannot
    /// be seen, or dots around it. If it is too long, its end is kept, which says what kind of file it is.
    pub fn name_of(text: &str) -> String {
        let last = text.rsplit(['/', '\\']).next().unwrap_or_default();
        let seen = last.chars().filter(|c| *c == ' ' || can_be_seen(*c));
        let seen: String = seen.collect();
        let name = seen.trim_matches(|c: char| c == '.' || c.is_whitespace());
        let more = name.chars().count().saturating_sub(Self::NAME_CHARACTERS);
        match name {
            "" => "file".to_owned(),
            _ if more == 0 => name.to_owned(),
            _ => {
                let kept = name.chars().skip(more + 1).collect::<String>();
                format!("…{kept}")
            }
        }
    }
}

/// An emoji that people reacted to a message with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reaction {
    /// The emoji.
    pub emoji: Emoji,
    /// How many people did, at least one.
    pub count: u64,
    /// The names, as they were then, of the first people who did; at most [`Reaction::NAMES`].
    pub names: Vec<String>,
}

impl Reaction {
    /// How many names are shown.
    pub const NAMES: usize = 10;
    /// How many different emojis one message can have.
    pub const EMOJIS: usize = 20;
}

/// One of the emojis that Unicode recommends for interchange, with the recommended variation selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Emoji(&'static str);

impl Emoji {
    /// The emoji for a typed text: the emoji itself or its short code, `🎉`, `:tada:`.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let code = text
            .strip_prefix(':')
            .and_then(|code| code.strip_suffix(':'));
        let emoji = emojis::get(text).or_else(|| emojis::get_by_shortcode(code?))?;
        Some(Self(emoji.as_str()))
    }

    /// At most `limit` emojis for the beginning of a short code, with their short codes, best match first:
    /// the code itself, those that begin so, then those with a later word that does.
    pub fn with_code(beginning: &str, limit: usize) -> Vec<(Self, &'static str)> {
        let beginning = beginning.to_lowercase();
        if beginning.is_empty() {
            return Vec::new();
        }
        let codes =
            emojis::iter().flat_map(|emoji| emoji.shortcodes().map(move |code| (emoji, code)));
        let mut found: Vec<_> = codes
            .filter_map(|(emoji, code)| {
                let mut words = code.match_indices(&*beginning).map(|(at, _)| at);
                let is_word = |at: usize| at == 0 || code.as_bytes()[at - 1] == b'_';
                let at = words.find(|at| is_word(*at))?;
                Some(((at > 0, code.len()), Self(emoji.as_str()), code))
            })
            .collect();
        found.sort_by_key(|(rank, ..)| *rank);
        let mut seen = HashSet::new();
        found.retain(|(_, emoji, _)| seen.insert(emoji.0));
        let found = found.into_iter().map(|(_, emoji, code)| (emoji, code));
        found.take(limit).collect()
    }

    /// The emoji itself.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Its code points in hexadecimal, such as `1f44d-1f3fd`.
    pub fn code(self) -> String {
        let points = self.0.chars().map(|c| format!("{:x}", u32::from(c)));
        points.collect::<Vec<_>>().join("-")
    }
}

/// Consecutive messages of a room, oldest first, and the version at which they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The room's version in the same snapshot.
    pub version: Version,
    /// Whether the room has newer messages, which the page does not reach.
    pub newer: bool,
    /// The messages, at most a page.
    pub messages: Vec<Message>,
    /// Whether there are older ones.
    pub older: bool,
}

impl Page {
    /// Whether it shows the message.
    pub fn has(&self, message: MessageId) -> bool {
        self.messages.iter().any(|shown| shown.id == message)
    }
}

/// A group's name, without `#`: 1 to 64 letters, digits, `-`, `_`, `.` and inner spaces of any script,
/// at least one of them a letter or a digit. Composed (Unicode NFC) and trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName(String);

/// Why a name is not valid for a group, as a text for the person who typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It has no letter or digit.
    #[error("A group name must contain a letter or a digit.")]
    Empty,
    /// More than 64 characters.
    #[error("A group name can have at most {} characters.", GroupName::CHARACTERS)]
    TooLong,
    /// A character that is not allowed in a name.
    #[error(
        "A group name can contain letters, digits, “-”, “_”, “.” and spaces, but not “{}”.",
        shown(*.0)
    )]
    Character(char),
}

/// The character itself, or its number if it is invisible.
fn shown(c: char) -> String {
    match can_be_seen(c) {
        true => c.to_string(),
        false => format!("U+{:04X}", u32::from(c)),
    }
}

impl GroupName {
    /// The longest name, in characters (Unicode scalar values).
    pub const CHARACTERS: usize = 64;

    /// Checks a name as it was typed.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let name: String = text.trim().trim_start_matches('#').nfc().collect();
        let words: Vec<_> = name.split(' ').filter(|word| !word.is_empty()).collect();
        let name = words.join(" ");
        let odd = name.chars().find(|c| {
            // In scripts with marks, a mark belongs to the letter before it.
            let is_letter = c.is_alphanumeric() || is_combining_mark(*c);
            let is_seen = is_letter && !is_invisible(*c);
            !is_seen && !matches!(c, '-' | '_' | '.' | ' ')
        });
        if let Some(odd) = odd {
            return Err(BadName::Character(odd));
        }
        if !name.chars().any(char::is_alphanumeric) {
            return Err(BadName::Empty);
        }
        if name.chars().count() > Self::CHARACTERS {
            return Err(BadName::TooLong);
        }
        Ok(Self(name))
    }

    /// The name as it is shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Equal for all names that differ only in case or in the form of their letters: `Full` and
    /// `ｆｕｌｌ`, `fi` and `ﬁ`, `ss` and `ß`.
    pub fn key(&self) -> String {
        Self::key_of(&self.0)
    }

    /// The key of any text, even if it is not a valid name.
    pub fn key_of(text: &str) -> String {
        // It follows from the former key, so that no two names that were one are two now.
        let composed: String = Self::former_key_of(text).nfkc().collect();
        // A sigma has another form at the end of a word, even if the word continues in a longer name.
        let folded = without_case(&composed).replace('ς', "σ");
        folded.nfkc().collect()
    }

    /// The key that earlier versions made, for which only case made no difference. A group still has
    /// it if another one got the present key.
    pub fn former_key_of(text: &str) -> String {
        without_case(text)
    }
}

/// A text as it is compared without regard to case.
fn without_case(text: &str) -> String {
    // Back and forth, so that letters with two forms in either case become the same.
    text.nfc()
        .collect::<String>()
        .to_lowercase()
        .to_uppercase()
        .to_lowercase()
        .nfc()
        .collect()
}

/// A display name: 1 to 32 visible characters of any script. Composed (Unicode NFC) and trimmed, with
/// single spaces between words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayName(String);

/// Why a name is not valid for a person, as a text for the person who typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDisplayName {
    /// It has no visible characters.
    #[error("The name is empty.")]
    Empty,
    /// More than 32 characters.
    #[error("A name can have at most {} characters.", DisplayName::CHARACTERS)]
    TooLong,
    /// A character is invisible.
    #[error("A name cannot contain invisible characters such as “{}”.", shown(*.0))]
    Invisible(char),
    /// One letter has so many marks that they cover the text around it.
    #[error("The name has too many accents on one letter.")]
    Marks,
}

impl DisplayName {
    /// The longest name, in characters (Unicode scalar values).
    pub const CHARACTERS: usize = 32;
    /// How many marks one letter may have, from Unicode Technical Standard 39, section 5.4.
    const MARKS: usize = 4;

    /// Checks a name as it was typed.
    pub fn new(text: &str) -> Result<Self, BadDisplayName> {
        let words: Vec<_> = text.split_whitespace().collect();
        let name: String = words.join(" ").nfc().collect();
        if name.is_empty() {
            return Err(BadDisplayName::Empty);
        }
        if name.chars().count() > Self::CHARACTERS {
            return Err(BadDisplayName::TooLong);
        }
        if let Some(odd) = name.chars().find(|c| *c != ' ' && !can_be_seen(*c)) {
            return Err(BadDisplayName::Invisible(odd));
        }
        let mut marks = 0;
        for c in name.chars() {
            marks = if is_combining_mark(c) { marks + 1 } else { 0 };
            if marks > Self::MARKS {
                return Err(BadDisplayName::Marks);
            }
        }
        // Leading marks would appear over the text before the name.
        match name.chars().next().is_some_and(is_combining_mark) {
            true => Err(BadDisplayName::Marks),
            false => Ok(Self(name)),
        }
    }

    /// The name as it is shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a reader may take for a name in it: each run of its words, separated by spaces and
    /// punctuation. A hyphen, dot or underscore is part of a word.
    pub fn runs(&self) -> Vec<&str> {
        let mut words = Vec::new();
        let mut begun = None;
        for (at, c) in self.0.char_indices().chain([(self.0.len(), ' ')]) {
            let is_within = matches!(c, '-' | '.' | '_');
            let is_between = c.is_whitespace() || (is_punctuation(c) && !is_within);
            match (begun, is_between) {
                (None, false) => begun = Some(at),
                (Some(begin), true) => {
                    words.push((begin, at));
                    begun = None;
                }
                _ => {}
            }
        }
        let runs = words.iter().enumerate().flat_map(|(first, (begin, _))| {
            let ends = words[first..].iter();
            ends.map(move |(_, end)| &self.0[*begin..*end])
        });
        runs.collect()
    }

    /// The same name with a number appended, cut to fit, with the same number of words.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        let ending = format!("-{number}");
        let room = Self::CHARACTERS.saturating_sub(ending.len());
        let name: String = self.0.chars().take(room).collect();
        Self(format!("{}{ending}", name.trim_end()))
    }

    /// Equal for all names that differ only in case.
    pub fn key(&self) -> String {
        Self::key_of(&self.0)
    }

    /// The key of any text, even if it is not a valid name.
    pub fn key_of(text: &str) -> String {
        without_case(text)
    }

    /// Equal for all names that look alike, in small letters and in capitals: a name that shares either
    /// with another one is refused. This is the skeleton of Unicode Technical Standard 39 without
    /// regard to case, spaces and punctuation, with `i`, `l` and `1` as one letter, and `o` and `0`.
    pub fn looks(&self) -> [String; 2] {
        Self::looks_of(&self.0)
    }

    /// The looks of a part of a name. Works for user names too.
    pub fn looks_of(name: &str) -> [String; 2] {
        let composed: String = name.nfkc().collect();
        // Without punctuation, since people also write anna as @anna, anna: and “anna,”.
        let bare: String = composed.chars().filter(|c| !is_punctuation(*c)).collect();
        let name = if bare.trim().is_empty() {
            composed
        } else {
            bare
        };
        let lower = Self::key_of(&name);
        // In Cyrillic, for example, only the capital of \u{432} looks like a Latin letter.
        [lower.clone(), lower.to_uppercase()].map(|seen| {
            let seen: String = unicode_security::skeleton(&seen).collect();
            let seen = seen.to_lowercase();
            let seen: String = unicode_security::skeleton(&seen).collect();
            seen.to_lowercase()
                .chars()
                .filter(|c| !c.is_whitespace())
                .map(|c| match c {
                    'i' | '1' | '|' => 'l',
                    '0' => 'o',
                    c => c,
                })
                .collect()
        })
    }
}

fn is_punctuation(c: char) -> bool {
    c.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// Whether a character is visible: not a control or format character, a separator, for private use or
/// unknown to Unicode.
fn can_be_seen(c: char) -> bool {
    let group = c.general_category_group();
    let has_ink = group != GeneralCategoryGroup::Other && group != GeneralCategoryGroup::Separator;
    has_ink && !is_invisible(c)
}

/// A text that may be stored: not blank, and not longer than allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageText(String);

/// Why a text may not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadText {
    /// It has no visible characters.
    Empty,
    /// It is too long.
    TooLong {
        /// How many characters it has.
        characters: usize,
    },
}

impl MessageText {
    /// Checks a text of at most `limit` characters (Unicode scalar values). Line breaks become `\n`;
    /// control characters other than line break and tab are removed, since nobody can see them.
    pub fn new(text: &str, limit: usize) -> Result<Self, BadText> {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let text: String = text
            .chars()
            .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
            .collect();
        if text.chars().all(is_invisible) {
            return Err(BadText::Empty);
        }
        let characters = text.chars().count();
        if characters > limit {
            return Err(BadText::TooLong { characters });
        }
        Ok(Self(text))
    }

    /// No text, for a message that consists of files.
    pub fn none() -> Self {
        Self(String::new())
    }

    /// The checked text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a text may refer to: what follows its signs, read in every way, and the addresses of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sought {
    /// The [keys](DisplayName::key_of) of names of people.
    pub people: Vec<String>,
    /// The [keys](GroupName::key_of) of names of groups.
    pub groups: Vec<String>,
    /// Messages.
    pub messages: Vec<MessageId>,
}

/// What of it exists, for the people of one room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether the room is a group.
    pub is_group: bool,
    /// People by key, and whether they may read the room.
    pub people: HashMap<String, (User, bool)>,
    /// The names of groups that everybody can see, by key.
    pub groups: HashMap<String, String>,
    /// Messages that everybody in the room may read: the group, or none for the private room itself, and
    /// the author's name.
    pub messages: HashMap<MessageId, (Option<String>, String)>,
}

/// The text of a message, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wording {
    /// The text as it was typed.
    pub text: MessageText,
    /// The text as it is shown. Without it, it is rendered whenever it is read.
    pub html: Option<String>,
    /// The people it mentions.
    pub mentions: Vec<UserId>,
    /// Whether it mentions everybody in the group.
    pub here: bool,
}

impl From<MessageText> for Wording {
    fn from(text: MessageText) -> Self {
        Self {
            text,
            html: None,
            mentions: Vec::new(),
            here: false,
        }
    }
}

/// White space, and characters without width or ink: joiners, directional marks, byte-order marks, soft
/// hyphens, the Hangul fillers, the braille blank and the variation selectors (Unicode's
/// Default_Ignorable_Code_Point, as far as they occur in practice).
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

macro_rules! tokens {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name([u8; 32]);

        impl $name {
            /// A new token of 256 random bits.
            pub fn random() -> Self {
                Self(random_bytes())
            }

            /// The hash, which the store keeps.
            pub fn hash(&self) -> TokenHash {
                TokenHash(Sha256::digest(self.0).into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }

        impl FromStr for $name {
            type Err = Unreadable;

            fn from_str(text: &str) -> Result<Self, Unreadable> {
                decoded(text).map(Self)
            }
        }
    )*};
}

tokens! {
    /// An unguessable token that identifies a tab. It is sent to that tab only.
    ResumeToken,
    /// An unguessable token that identifies a signed-in person. It is in their cookie only.
    SessionToken,
    /// An unguessable token that identifies a browser, whoever uses it. It is in its cookie only.
    BrowserToken,
}

impl BrowserToken {
    /// The resume token of the client that stands for the forms of this browser: of its guest, or of the
    /// person who has signed in.
    pub fn of_forms(&self, session: Option<&SessionToken>) -> ResumeToken {
        let mut hash = Sha256::new_with_prefix("forms");
        hash.update(self.0);
        hash.update(session.map_or(&[][..], |session| &session.0));
        ResumeToken(hash.finalize().into())
    }
}

/// The SHA-256 of a token. The token has 256 random bits, so the hash needs no salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// A new password: any 8 to 200 characters. Composed (Unicode NFC), since keyboards differ in how they
/// write the same letter.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a password is not valid, as a text for the person who typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPassword {
    /// Too few characters.
    #[error("A password must have at least {} characters.", Password::AT_LEAST)]
    TooShort,
    /// Too many characters.
    #[error("A password can have at most {} characters.", Password::AT_MOST)]
    TooLong,
}

impl Password {
    /// The shortest password, in characters (Unicode scalar values).
    pub const AT_LEAST: usize = 8;
    /// The longest password, in characters.
    pub const AT_MOST: usize = 200;

    /// Checks a password as it was typed.
    pub fn new(text: &str) -> Result<Self, BadPassword> {
        let password: String = text.nfc().collect();
        match password.chars().count() {
            ..Self::AT_LEAST => Err(BadPassword::TooShort),
            Self::AT_LEAST..=Self::AT_MOST => Ok(Self(password)),
            _ => Err(BadPassword::TooLong),
        }
    }

    /// The bytes to hash.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The stored form of a password: a PHC string, which also names the algorithm.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The system's random source fails only if the system is broken; there is no safe way to continue.
    getrandom::fill(&mut bytes).expect("the system's random source works");
    bytes
}

/// A random id from 1 to 2^63 - 1.
fn random_positive() -> i64 {
    (i64::from_be_bytes(random_bytes()) & i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_reads_back_what_it_wrote() {
        let version = Version {
            room: RoomId::random(),
            history: History::random(),
            number: 17,
        };
        let text = version.to_string();
        assert_eq!(Version::read(version.room, &text), Ok(version));
        // In another room it is of another history.
        let other = Version::read(RoomId::random(), &text).unwrap();
        assert_ne!(other.history, version.history);
    }

    #[test]
    fn an_emoji_is_known_by_itself_and_by_its_short_code() {
        #[track_caller]
        fn check(text: &str, expected: Option<(&str, &str)>) {
            let emoji = Emoji::new(text);
            let found = emoji.map(|emoji| (emoji.as_str(), emoji.code()));
            let found = found.as_ref().map(|(emoji, code)| (*emoji, code.as_str()));
            assert_eq!(found, expected, "{text:?}");
        }
        check("👍", Some(("👍", "1f44d")));
        check(" 👍\n", Some(("👍", "1f44d")));
        check("👍🏽", Some(("👍🏽", "1f44d-1f3fd")));
        // With the recommended selector, however it was typed.
        check("❤", Some(("❤️", "2764-fe0f")));
        check("❤️", Some(("❤️", "2764-fe0f")));
        check(":tada:", Some(("🎉", "1f389")));
        check("🏴‍☠️", Some(("🏴‍☠️", "1f3f4-200d-2620-fe0f")));
        for nothing in [
            "", " ", ":", "::", "a", "1", "👍👍", "👍x", "<b>", "\u{200d}", "tada",
        ] {
            check(nothing, None);
        }
    }

    #[test]
    fn an_unreadable_version_is_refused() {
        let read = |text| Version::read(RoomId(1), text);
        for text in [
            "",
            ".",
            "..",
            "x.1",
            "6a1f93c8",
            "6a1f93c8.",
            "6a1f93c8.-1",
            "6a1f93c8.1.1",
            "16a1f93c8.1",
            "6a1f93c8.9223372036854775808",
        ] {
            assert_eq!(read(text), Err(Unreadable), "{text:?}");
        }
        assert!(read("6a1f93c8.9223372036854775807").is_ok());
    }

    #[test]
    fn a_text_is_checked() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, BadText>) {
            assert_eq!(
                MessageText::new(text, 5).as_ref().map(MessageText::as_str),
                expected.as_ref().copied()
            );
        }
        check("héllo", Ok("héllo"));
        check("a\r\nb\rc", Ok("a\nb\nc"));
        check(" a ", Ok(" a "));
        check("a\0\u{7}", Ok("a"));
        check("", Err(BadText::Empty));
        check(" \n\t\u{200b}\u{feff}", Err(BadText::Empty));
        check("abcdef", Err(BadText::TooLong { characters: 6 }));
        check("👩‍👩‍👧", Ok("👩‍👩‍👧"));
    }

    #[test]
    fn a_groups_name_is_checked() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, BadName>) {
            let name = GroupName::new(text);
            assert_eq!(
                name.as_ref().map(GroupName::as_str),
                expected.as_ref().copied()
            );
        }
        check("rust", Ok("rust"));
        check(" #Rust 1.0-beta_2 ", Ok("Rust 1.0-beta_2"));
        check("cafe\u{301}", Ok("caf\u{e9}"));
        check("#  two   words ", Ok("two words"));
        check("日本語", Ok("日本語"));
        check("हिन्दी", Ok("हिन्दी"));
        check("", Err(BadName::Empty));
        check(" -_. ", Err(BadName::Empty));
        check("a/b", Err(BadName::Character('/')));
        check("@anna", Err(BadName::Character('@')));
        for filler in [
            '\u{3164}',
            '\u{115f}',
            '\u{ffa0}',
            '\u{34f}',
            '\u{fe0f}',
            '\u{e0100}',
        ] {
            check(&filler.to_string(), Err(BadName::Character(filler)));
            check(&format!("hi{filler}"), Err(BadName::Character(filler)));
        }
        assert!(BadName::Character('\'').to_string().contains("but not “'”"));
        assert!(
            BadName::Character('\u{fe0f}')
                .to_string()
                .contains("U+FE0F")
        );
        check("a\u{200b}b", Err(BadName::Character('\u{200b}')));
        check("a\nb", Err(BadName::Character('\n')));
        check("👍 yes", Err(BadName::Character('👍')));
        check(&"x".repeat(64), Ok(&"x".repeat(64)));
        check(&"x".repeat(65), Err(BadName::TooLong));
        let key = |text: &str| GroupName::new(text).unwrap().key();
        assert_eq!(key("Größe"), key("GRÖSSE"));
        assert_eq!(key("ΣΊΣΥΦΟΣ"), key("σίσυφος"));
        assert_ne!(key("rust"), key("rust2"));
    }

    #[test]
    fn a_groups_name_has_one_key_in_all_its_forms() {
        let key = |text: &str| GroupName::new(text).unwrap().key();
        for forms in [
            &["full", "Full", "Ｆｕｌｌ", "ＦＵＬＬ", "ⓕⓤⓛⓛ"][..],
            &["fish", "ﬁsh", "FISH", "ﬁSH"],
            &["strasse", "straße", "STRASSE", "STRAẞE", "ſtraſſe"],
            &["caf\u{e9}", "cafe\u{301}", "CAFÉ"],
            &["ガイド", "ｶﾞｲﾄﾞ"],
            &["x2", "x²", "X₂"],
            &["12", "１２", "⑫"],
            &["οδός", "ΟΔΌΣ", "οδόσ"],
            &["ω", "\u{2126}"],
        ] {
            for form in forms {
                assert_eq!(key(form), key(forms[0]), "{form}");
            }
        }
        for (one, other) in [("o", "ö"), ("hi", "hī"), ("а", "a"), ("1", "l")] {
            assert_ne!(key(one), key(other), "{one} {other}");
        }
        // Whatever earlier versions took for one name is still one, such as an iota below other marks.
        assert_eq!(key("\u{1fb2}\u{736}"), key("\u{1f70}\u{3b9}\u{736}"));
        assert_eq!(GroupName::former_key_of("ı"), GroupName::former_key_of("i"));
        for c in (char::MIN..=char::MAX).filter(|c| c.is_alphanumeric()) {
            let (text, key) = (c.to_string(), GroupName::key_of(&c.to_string()));
            assert_eq!(GroupName::key_of(&key), key, "{c}");
            for same in [
                GroupName::former_key_of(&text),
                text.to_lowercase(),
                text.to_uppercase(),
                text.nfd().collect(),
                text.nfkd().collect(),
            ] {
                assert_eq!(GroupName::key_of(&same), key, "{c}");
            }
        }
    }

    #[test]
    fn a_token_is_known_by_its_hash_and_never_printed() {
        let token = ResumeToken::random();
        let again: ResumeToken = token.to_string().parse().unwrap();
        assert_eq!(token.hash(), again.hash());
        assert_eq!(format!("{token:?}"), "ResumeToken(…)");
        assert!("c2hvcnQ".parse::<ResumeToken>().is_err());
    }

    #[test]
    fn a_password_is_checked_and_never_printed() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, BadPassword>) {
            let password = Password::new(text);
            let bytes = password.as_ref().map(Password::as_bytes);
            assert_eq!(bytes, expected.as_ref().map(|text| text.as_bytes()));
        }
        check("7 chars", Err(BadPassword::TooShort));
        check(" 8 chars", Ok(" 8 chars"));
        check("Ko\u{308}nigin", Err(BadPassword::TooShort));
        check("Ko\u{308}niginnen", Ok("K\u{f6}niginnen"));
        check(&"x".repeat(200), Ok(&"x".repeat(200)));
        check(&"x".repeat(201), Err(BadPassword::TooLong));
        let shown = format!("{:?}", Password::new("a secret of mine"));
        assert_eq!(shown, "Ok(Password(…))");
        let hash = PasswordHash("$argon2id$".to_owned());
        assert_eq!(format!("{hash:?}"), "PasswordHash(…)");
    }

    #[test]
    fn a_moment_is_written_in_utc() {
        assert_eq!(
            Millis(1_795_246_200_999).to_rfc3339(),
            "2026-11-21T07:30:00Z"
        );
    }

    #[test]
    fn a_display_name_is_trimmed_and_composed() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, BadDisplayName>) {
            let name = DisplayName::new(text);
            assert_eq!(
                name.as_ref().map(DisplayName::as_str),
                expected.as_ref().map(|name| *name),
                "{text:?}"
            );
        }
        check("  Anna \u{a0} Lee\n", Ok("Anna Lee"));
        check("A\u{308}nna", Ok("Änna"));
        check("🦊", Ok("🦊"));
        check(&"x".repeat(32), Ok(&"x".repeat(32)));
        check(&"x".repeat(33), Err(BadDisplayName::TooLong));
        check(" \u{3000} ", Err(BadDisplayName::Empty));
        for odd in [
            '\u{ad}', '\u{200d}', '\u{2066}', '\u{3164}', '\u{fe0f}', '\u{f8ff}', '\u{378}',
        ] {
            check(&format!("a{odd}b"), Err(BadDisplayName::Invisible(odd)));
        }
        check("\u{301}x", Err(BadDisplayName::Marks));
    }

    #[test]
    fn names_that_look_alike_have_one_look() {
        #[track_caller]
        fn alike(a: &str, b: &str, expected: bool) {
            let (a, b) = (DisplayName::looks_of(a), DisplayName::looks_of(b));
            let alike = a.iter().zip(&b).any(|(a, b)| a == b);
            assert_eq!(alike, expected, "{a:?} {b:?}");
        }
        alike("Anna", "anna", true);
        alike("Anna Lee", "annalee", true);
        alike("Ilse", "llse", true);
        alike("Ilse", "ilse", true);
        alike("b0b", "Bob", true);
        alike("modern", "rnodern", true);
        alike("Αnna", "Anna", true); // Greek
        alike("аnnа", "anna", true); // Cyrillic
        alike("ＡＮＮＡ", "anna", true);
        alike("\u{412}\u{41e}\u{412}", "BOB", true); // Cyrillic capitals
        alike("\u{422}\u{43e}\u{43c}", "Tom", true);
        alike("\u{391}\u{39d}\u{39d}\u{391}", "Anna", true); // Greek capitals
        alike("a\u{3bd}a", "ava", true); // a small nu
        alike("stra\u{1e9e}e", "STRASSE", true);
        alike("@anna", "Anna", true);
        alike("Anna:", "anna", true);
        alike("A.n-n_a,", "anna", true);
        alike("!?", "?!", false);
        alike("Anna", "Hanna", false);
        alike("Ánna", "Anna", false);
        alike("bob1", "bob2", false);
    }

    #[test]
    fn a_number_makes_another_name_that_fits() {
        let name = DisplayName::new(&"x".repeat(32)).unwrap();
        assert_eq!(name.numbered(12).as_str(), format!("{}-12", "x".repeat(29)));
        assert_eq!(
            DisplayName::new("Anna").unwrap().numbered(2).as_str(),
            "Anna-2"
        );
    }
}
