//! The fragments, with one typed function each that returns a [`Push`], and the page.
//!
//! Nothing here knows sockets, the store, or when a fragment is shown.

mod assets;
mod moderation;

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use parking_lot::RwLock;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rust_embed::RustEmbed;
use serde_json::json;
use uuid::Uuid;

use crate::log::Chain;
use crate::model::{
    Author, Busy, Emoji, File, GroupName, Listed, Message, MessageId, Millis, Notifications,
    Original, Page, Person, Reaction, ResumeToken, Room, RoomId, RoomKind, Target, User, UserId,
    Version,
};
use crate::protocol::{
    self, Dialect, Frame, LOBBY_PATH, MENTIONS, PAGE_BYTES, Push, Refusal, SOCKET_PATH, Selector,
    Swap, Tone,
};
use crate::search::{Found, Query, Unknown};
use crate::text;
use crate::unchanged::Unchanged;

pub use assets::Static;

#[derive(RustEmbed)]
#[folder = "templates/"]
struct Templates;

#[derive(RustEmbed)]
#[folder = "components/"]
struct Components;

/// A fragment or page could not be rendered.
#[derive(Debug, thiserror::Error)]
#[error("could not render a template")]
pub struct ViewError(#[from] minijinja::Error);

/// The result of rendering.
pub type Result<T> = std::result::Result<T, ViewError>;

/// A place in a room that a page of its messages is shown around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This message, which is marked.
    At(MessageId),
    /// What comes after this message.
    After(MessageId),
}

/// What completes a word, best match first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completions {
    /// The names of people, and whether `@here` is one of the completions.
    People(Vec<Person>, bool),
    /// The names of groups.
    Groups(Vec<Room>),
    /// Emojis and their short codes.
    Emojis(Vec<(Emoji, &'static str)>),
}

/// The data of the page.
pub struct ChatPage<'a> {
    /// Host and port as the browser sees them.
    pub host: &'a str,
    /// `http` or `https`, as the browser sees it.
    pub scheme: &'a str,
    /// The default groups.
    pub groups: &'a [Listed],
    /// The group shown and a page of it; a private room is rendered empty.
    pub room: Option<(&'a Room, &'a Page)>,
    /// Whether that is the newest page of the room.
    pub newest: bool,
    /// The message that the address names, if it names one.
    pub at: Option<MessageId>,
    /// What the group is about.
    pub topic: Option<&'a str>,
    /// The longest message, in characters.
    pub limit: usize,
    /// The largest file, in bytes, if people can send files.
    pub file_limit: Option<u64>,
    /// The busiest groups, if the page is the lobby.
    pub lobby: Option<&'a [Busy]>,
    /// What was typed, if the page shows the results of a search. They follow when it has connected.
    pub search: Option<&'a str>,
    /// The notice shown at first.
    pub notice: Option<&'a Refusal>,
    /// Who reads it, if that is known.
    pub reader: Option<&'a Reader>,
    /// The people they talk with.
    pub people: &'a [Person],
    /// The address of the room that messages are sent to.
    pub to: Option<&'a str>,
    /// The user name in the address of a private room. Whether there is such a person is not told.
    pub addressee: Option<&'a str>,
    /// The answer to a form, as a fragment, and the text that was not sent.
    pub refused: Option<(&'a str, &'a str)>,
}

/// Somebody for whom a page is rendered before it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The user.
    pub user: User,
    /// Whether they are the guest of the browser's forms.
    pub guest: bool,
}

/// The account forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Register: a password, for a guest.
    Keep,
    /// Sign in: a name and a password.
    SignIn,
    /// Change the password: the old one and the new one.
    Password,
}

/// The data of the page of a form.
#[derive(Clone, Copy)]
pub struct AccountPage<'a> {
    /// Which form.
    pub form: Form,
    /// The user name in the form.
    pub user: Option<&'a str>,
    /// The resume token of a guest.
    pub resume: Option<&'a str>,
    /// The address to return to.
    pub at: &'a str,
    /// Why the form was refused.
    pub reason: Option<&'a str>,
}

impl<'a> AccountPage<'a> {
    /// A form that nobody has filled in.
    pub fn empty(form: Form, at: &'a str) -> Self {
        Self {
            form,
            user: None,
            resume: None,
            at,
            reason: None,
        }
    }
}

/// The templates, all parsed when the program starts.
pub struct Views {
    templates: RwLock<Arc<Parsed>>,
}

/// The templates, and the messages that were rendered with them.
struct Parsed {
    environment: Environment<'static>,
    fragments: Cache<Fragment, Value, FragmentBytes>,
    hasher: RandomState,
    /// The lists of the newest pages: as a part of the whole page, as pushes, and for plain clients.
    lists: Unchanged<Value>,
    pushes: Unchanged<Frame>,
    plain_pushes: Unchanged<Frame>,
}

/// The most bytes that the rendered lists of each kind take in memory.
const LISTS_BYTES: u64 = 4 * 1024 * 1024;

/// The most bytes that rendered messages take in memory.
const FRAGMENTS_BYTES: u64 = 8 * 1024 * 1024;

/// How many messages of common length have room in it.
const FRAGMENTS: usize = FRAGMENTS_BYTES as usize / 512;

/// A message as a client of that kind is shown it. The hash is of all that is known of the message, so what
/// has changed is never found under it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Fragment {
    plain: bool,
    id: MessageId,
    hash: u64,
}

#[derive(Clone)]
struct FragmentBytes;

impl Weighter<Fragment, Value> for FragmentBytes {
    fn weight(&self, key: &Fragment, html: &Value) -> u64 {
        (size_of_val(key) + size_of_val(html) + html.as_str().map_or(0, str::len)) as u64
    }
}

impl Parsed {
    fn new() -> Result<Self> {
        Ok(Self {
            environment: environment()?,
            fragments: Cache::with_weighter(FRAGMENTS, FRAGMENTS_BYTES, FragmentBytes),
            hasher: RandomState::new(),
            lists: Unchanged::new(LISTS_BYTES),
            pushes: Unchanged::new(LISTS_BYTES),
            plain_pushes: Unchanged::new(LISTS_BYTES),
        })
    }

    fn render(&self, name: &str, context: Value) -> Result<String> {
        Ok(self.environment.get_template(name)?.render(context)?)
    }

    /// One message. If it cannot be rendered, it becomes a placeholder and the rest of the list stays.
    fn message(&self, dialect: Dialect, message: &Message) -> Value {
        let fragment = Fragment {
            plain: dialect == Dialect::Plain,
            id: message.id,
            hash: self.hasher.hash_one(message),
        };
        if let Some(html) = self.fragments.get(&fragment) {
            return html;
        }
        let prefix = prefix(dialect);
        let name = match (dialect, message.deleted) {
            (Dialect::Plain, _) | (_, false) => "message",
            (_, true) => "message_deleted",
        };
        let context = message_context(dialect, message);
        match self.render(&format!("{prefix}{name}.html"), context) {
            Ok(html) => {
                let html = Value::from_safe_string(html);
                self.fragments.insert(fragment, html.clone());
                html
            }
            Err(error) => {
                let id = message.id.0;
                tracing::error!("could not render message {id}: {}", Chain(&error));
                let context = context! { message => context! { id } };
                let html = self.render(&format!("{prefix}message_broken.html"), context);
                Value::from_safe_string(html.unwrap_or_default())
            }
        }
    }
}

impl Views {
    /// Parses all templates, so that a broken one is found at the start and not by a person.
    pub fn new() -> Result<Self> {
        Ok(Self {
            templates: RwLock::new(Arc::new(Parsed::new()?)),
        })
    }

    /// Parses all templates again. Where they are on disk, changes are shown without a rebuild. If a
    /// template is broken, the previous ones stay.
    pub fn reload(&self) -> Result<()> {
        let templates = Arc::new(Parsed::new()?);
        *self.templates.write() = templates;
        Ok(())
    }

    fn templates(&self) -> Arc<Parsed> {
        Arc::clone(&self.templates.read())
    }

    fn render(&self, name: &str, context: Value) -> Result<String> {
        self.templates().render(name, context)
    }

    /// Renders a template that replaces an element.
    fn outer(&self, place: Selector, name: &str, context: Value) -> Result<Push> {
        let html = self.render(name, context)?;
        Ok(Push::inner(place, html).swapped(Swap::Outer))
    }

    /// Renders the fragment for the place it is named after: `#group-name` is `_group_name.html`.
    fn fragment(&self, place: Selector, context: Value) -> Result<Push> {
        self.fragment_in(Dialect::V1, place, context)
    }

    /// The same in a dialect. A plain client gets a fragment of its own, `_plain_group_name.html`,
    /// without controls that it could not work.
    fn fragment_in(&self, dialect: Dialect, place: Selector, context: Value) -> Result<Push> {
        let name = place.as_str().trim_start_matches('#').replace('-', "_");
        let html = self.render(&format!("{}{name}.html", prefix(dialect)), context)?;
        Ok(Push::inner(place, html))
    }

    /// The whole page.
    pub fn chat_page(&self, page: &ChatPage<'_>) -> Result<String> {
        let (room, title) = match page.room {
            Some((room, _)) => (
                Some(room_context(room)),
                format!("{} · Overwire", title(room)),
            ),
            None if page.lobby.is_some() => {
                (Some(lobby_context()), format!("{LOBBY_TITLE} · Overwire"))
            }
            None if page.search.is_some() => (
                page.search.map(search_context),
                format!(
                    "{} · Overwire",
                    search_title(page.search.unwrap_or_default())
                ),
            ),
            None => (None, "Overwire".to_owned()),
        };
        let lobby = page.lobby.map(busy_context);
        let templates = self.templates();
        let known = page.room.filter(|_| page.newest);
        let known = known.and_then(|(_, messages)| templates.lists.get(messages.version));
        let rendered = |list| -> Result<Value> {
            let list = templates.render("_messages_list.html", context! { page => list })?;
            Ok(Value::from_safe_string(list))
        };
        let messages_list = match (known, page.room) {
            (Some(list), _) => list,
            (None, Some((_, messages))) => {
                let at = page.at.map(Place::At);
                let list = rendered(self.list_context(messages, at, in_blocks))?;
                match page.newest {
                    true => templates.lists.keep(messages.version, list),
                    false => list,
                }
            }
            (None, None) => rendered(no_messages())?,
        };
        let ends = page.room.and_then(|(_, page)| {
            let ends = page.messages.first().zip(page.messages.last())?;
            let (older, newer) = (page.older, page.newer);
            Some(context! { first => ends.0.id.0, last => ends.1.id.0, older, newer })
        });
        let reader = page.reader;
        let answer = page
            .refused
            .map(|(html, _)| Value::from_safe_string(html.to_owned()));
        let notice = page.notice;
        let notice = notice.map(|refusal| notice_context(refusal, Tone::Refusal));
        let context = context! {
            title, room, lobby, notice, nonce => 0, quick => QUICK,
            user => None::<Value>, resume => None::<&str>, at => None::<&str>,
            limit => page.limit, file_limit => page.file_limit, messages_list, host => page.host, scheme => page.scheme,
            socket => SOCKET_PATH,
            groups => page.groups.iter().map(listed_context).collect::<Vec<_>>(),
            mentions => protocol::search_address(MENTIONS),
            topic => page.topic, search => page.search, seeks_mentions => page.search == Some(MENTIONS), found => None::<Value>,
            to => page.to, addressee => page.addressee, key => Uuid::new_v4().to_string(), ends, answer,
            draft => page.refused.map_or("", |(_, text)| text),
            me => reader.map(|reader| user_context(&reader.user)),
            guest => reader.is_none_or(|reader| reader.guest),
            joined => page.room.is_some_and(|(room, _)| {
                page.groups.iter().any(|listed| listed.joined && listed.group.id == room.id)
            }),
            mine => people_context(page.people),
            ..settings_context(None, None),
        };
        templates.render("chat.html", context)
    }

    /// My user name, with the resume token where the dialect knows tokens.
    pub fn logged_user(
        &self,
        dialect: Dialect,
        user: &User,
        resume: Option<&ResumeToken>,
    ) -> Result<Push> {
        let context = context! {
            user => user_context(user), resume => resume.map(ToString::to_string),
        };
        self.fragment_in(dialect, Selector::LOGGED_USER, context)
    }

    /// My display name, and the form to change it.
    pub fn name_form(&self, user: &User) -> Result<Push> {
        let context = context! { user => user_context(user) };
        self.fragment(Selector::NAME_FORM, context)
    }

    /// The form to sign out and, for a moderator, a link to their page. For a guest, with their resume
    /// token, the forms to register and sign in.
    pub fn account(
        &self,
        user: &User,
        guest: Option<&ResumeToken>,
        moderator: bool,
    ) -> Result<Push> {
        let context = context! {
            user => user_context(user), resume => guest.map(ToString::to_string), at => None::<&str>,
            moderator,
        };
        self.fragment(Selector::ACCOUNT, context)
    }

    /// How I am notified, if I am, and the controls to change that. With the key of the server, browsers
    /// can subscribe.
    pub fn notifications(
        &self,
        settings: Option<Notifications>,
        key: Option<&str>,
    ) -> Result<Push> {
        self.fragment(Selector::NOTIFICATIONS, settings_context(settings, key))
    }

    /// A message that somebody is notified of, with the title of the group.
    pub fn notification(
        &self,
        message: &Message,
        group: Option<&str>,
        address: &str,
    ) -> Result<Push> {
        let (title, text) = notification_of(message, group);
        let context = context! { id => message.id.0, title, text, address };
        self.fragment(Selector::NOTIFICATION, context)
    }

    /// A page with one of the forms of [`Self::account`], to be filled in again.
    pub fn account_page(&self, page: &AccountPage<'_>) -> Result<String> {
        let (form, title) = match page.form {
            Form::Keep => ("_keep_form.html", "Register"),
            Form::SignIn => ("_sign_in_form.html", "Sign in"),
            Form::Password => ("_password_form.html", "Change my password"),
        };
        let user = page.user.map(|name| context! { name });
        let context = context! {
            form, title, user, at => page.at, resume => page.resume, reason => page.reason,
        };
        self.render("account.html", context)
    }

    /// The room I am in.
    pub fn group_name(&self, dialect: Dialect, room: &Room) -> Result<Push> {
        let context = context! { room => room_context(room) };
        self.fragment_in(dialect, Selector::GROUP_NAME, context)
    }

    /// The list of messages with the page around a message.
    pub fn messages_list(&self, page: &Page, at: Place) -> Result<Push> {
        self.list_of(page, Some(at))
    }

    /// The list of messages with the newest page of a room. Rendered once for each version of the room.
    pub fn newest(&self, page: &Page) -> Result<Frame> {
        let templates = self.templates();
        match templates.pushes.get(page.version) {
            Some(list) => Ok(list),
            None => {
                let list = self.list_of(page, None)?.encode();
                Ok(templates.pushes.keep(page.version, list))
            }
        }
    }

    /// The same for a plain client, which has no older pages.
    pub fn plain_newest(&self, page: &Page) -> Result<Frame> {
        let templates = self.templates();
        match templates.plain_pushes.get(page.version) {
            Some(list) => Ok(list),
            None => {
                let list = self.plain_list_of(page)?.encode();
                Ok(templates.plain_pushes.keep(page.version, list))
            }
        }
    }

    fn plain_list_of(&self, page: &Page) -> Result<Push> {
        let last = page.messages.len().saturating_sub(1);
        let (messages, _) = self.page_messages(Dialect::Plain, page, last);
        let context = context! { messages };
        self.fragment_in(Dialect::Plain, Selector::MESSAGES_LIST, context)
    }

    fn list_of(&self, page: &Page, at: Option<Place>) -> Result<Push> {
        let context = context! { page => self.list_context(page, at, |_, html| html) };
        let push = self.fragment(Selector::MESSAGES_LIST, context)?;
        Ok(push.swapped(Swap::Outer).at(page.version))
    }

    /// An older page. It replaces the control that loaded it, and has a new one if there are more.
    pub fn older_messages(&self, page: &Page) -> Result<[Push; 2]> {
        let context = context! { page => self.list_context(page, None, |_, html| html) };
        let html = self.render("_messages.html", context)?;
        let older = Push::inner(Selector::MESSAGES_LIST, html).swapped(Swap::Prepend);
        Ok([Push::removal(Selector::MESSAGES_OLDER), older])
    }

    /// A newer page, which goes before the gap. If there are no more, the gap is closed.
    pub fn newer_messages(&self, page: &Page) -> Result<Vec<Push>> {
        let (messages, shown) = self.page_messages(Dialect::V1, page, 0);
        let newer = page.newer || shown.end < page.messages.len();
        let html = messages.iter().filter_map(Value::as_str).collect();
        let mut pushes = vec![Push::inner(Selector::MESSAGES_NEWER, html).swapped(Swap::Before)];
        if !newer {
            pushes.push(Push::removal(Selector::MESSAGES_NEWER));
        }
        Ok(pushes)
    }

    /// A list of messages, after `arrange` has been given them and their HTML.
    fn list_context(
        &self,
        page: &Page,
        at: Option<Place>,
        arrange: impl FnOnce(&[Message], Vec<Value>) -> Vec<Value>,
    ) -> Value {
        let place = match at {
            Some(Place::At(at) | Place::After(at)) => {
                page.messages.partition_point(|message| message.id <= at)
            }
            None => page.messages.len(),
        };
        let place = place.saturating_sub(1);
        let (messages, shown) = self.page_messages(Dialect::V1, page, place);
        context! {
            room => page.version.room.to_string(),
            version => page.version.to_string(),
            at => match at { Some(Place::At(at)) => Some(at.0), _ => None },
            after => match at { Some(Place::After(at)) => Some(at.0), _ => None },
            older => page.older || shown.start > 0,
            newer => page.newer || shown.end < page.messages.len(),
            messages => arrange(&page.messages[shown], messages),
        }
    }

    /// The messages of the page around a place in it that fit [`PAGE_BYTES`], and which these are.
    fn page_messages(
        &self,
        dialect: Dialect,
        page: &Page,
        place: usize,
    ) -> (Vec<Value>, Range<usize>) {
        let templates = self.templates();
        let mut space = PAGE_BYTES;
        let mut messages = VecDeque::new();
        let (mut first, mut end) = (place, place);
        let fits = |html: &Value, space: &mut usize| {
            let bytes = html.as_str().map_or(0, str::len);
            let fits = bytes <= *space || *space == PAGE_BYTES;
            *space = if fits { space.saturating_sub(bytes) } else { 0 };
            fits
        };
        while space > 0 && (first > 0 || end < page.messages.len()) {
            if let Some(message) = page.messages.get(end) {
                let html = templates.message(dialect, message);
                if !fits(&html, &mut space) {
                    break;
                }
                messages.push_back(html);
                end += 1;
            }
            if first > 0 {
                let html = templates.message(dialect, &page.messages[first - 1]);
                if !fits(&html, &mut space) {
                    break;
                }
                messages.push_front(html);
                first -= 1;
            }
        }
        (messages.into(), first..end)
    }

    /// A new message, which is added at the end.
    pub fn new_message(&self, message: &Message) -> Push {
        let html = self.templates().message(Dialect::V1, message).to_string();
        Push::inner(Selector::MESSAGES_LIST, html).swapped(Swap::Append)
    }

    /// The current state of a message, which replaces it if the tab shows it.
    pub fn changed_message(&self, message: &Message) -> Push {
        let html = self.templates().message(Dialect::V1, message).to_string();
        Push::inner(Selector::message(message.id), html).swapped(Swap::Outer)
    }

    /// The change of a room to `version`, which created the message or changed it.
    pub fn change(&self, message: &Message, version: Version) -> Vec<Push> {
        let mut pushes = self.current(message, version.number - 1);
        if let Some(last) = pushes.last_mut() {
            last.version = Some(version);
        }
        pushes
    }

    /// A message that has changed after a version, at the end if it is new, otherwise in its place. With a
    /// new text, its quotes change too. If it is deleted, its form is closed, so that its text does not
    /// stay visible to somebody who has it open.
    pub fn current(&self, message: &Message, after: u64) -> Vec<Push> {
        let mut pushes = Vec::new();
        if message.deleted {
            pushes.push(Push::removal(Selector::open_message(message.id)));
        }
        if message.made > after {
            pushes.push(self.new_message(message));
            return pushes;
        }
        if message.worded > after {
            pushes.extend(self.quotes(message));
        }
        pushes.push(self.changed_message(message));
        pushes
    }

    /// What the replies to a message show of it.
    fn quotes(&self, message: &Message) -> Option<Push> {
        let context = context! { quote => quote_context(&Original::from(message)) };
        match self.render("_quote.html", context) {
            Ok(html) => Some(Push::inner(Selector::quotes(message.id), html)),
            Err(error) => {
                let id = message.id.0;
                tracing::error!(
                    "could not render the quotes of message {id}: {}",
                    Chain(&error)
                );
                None
            }
        }
    }

    /// The pushes that lead a tab from `after` to `version`. New messages are added at the end, older
    /// ones are replaced, and the last push has the version. `None` if that is more than a page: then
    /// the newest page is shown instead.
    pub fn changes(
        &self,
        after: Version,
        version: Version,
        messages: &[Message],
    ) -> Option<Vec<Push>> {
        let messages = messages.iter();
        let pushes = messages.flat_map(|message| self.current(message, after.number));
        let mut pushes: Vec<Push> = pushes.collect();
        let bytes: usize = pushes.iter().map(|push| push.html.len()).sum();
        if bytes > PAGE_BYTES && pushes.len() > 1 {
            return None;
        }
        pushes.last_mut()?.version = Some(version);
        Some(pushes)
    }

    /// The form of a message: who reacted to it, and the controls to react and, if allowed, to delete
    /// it. For one's own message, `limit` is the longest text, in characters.
    pub fn message_form(
        &self,
        message: &Message,
        reactors: &[(Emoji, String)],
        limit: Option<usize>,
        may_delete: bool,
    ) -> Result<Push> {
        let (id, room) = (message.id.0, message.room.to_string());
        let payload = json!({ "message": id, "room": room }).to_string();
        let react = |emoji| {
            let on = true;
            json!({ "message": id, "room": room, "emoji": emoji, "on": on, "form": true })
                .to_string()
        };
        let quick = QUICK.map(|emoji| context! { emoji, payload => react(emoji) });
        let reaction = |reaction: &Reaction| {
            let emoji = reaction.emoji;
            let names = reactors.iter().filter(|(other, _)| *other == emoji);
            let names: Vec<_> = names.map(|(_, name)| Value::from(name.as_str())).collect();
            let more = reaction.count.saturating_sub(names.len() as u64);
            context! { emoji => emoji.as_str(), names, more }
        };
        let reactions: Vec<_> = message.reactions.iter().map(reaction).collect();
        let context = context! {
            id, text => &message.text, name => &message.author.name, line => first_line(message),
            limit, quick, reactions, payload, may_delete, react => react(""),
        };
        self.fragment(Selector::MESSAGE_FORM, context)
    }

    /// My reactions to the messages shown.
    pub fn my_reactions(&self, mine: &[(MessageId, Emoji)]) -> Result<Push> {
        let reaction =
            |(id, emoji): &(MessageId, Emoji)| context! { id => id.0, code => emoji.code() };
        let reactions: Vec<_> = mine.iter().map(reaction).collect();
        self.fragment(Selector::MY_REACTIONS, context! { reactions })
    }

    /// Adds one of my reactions or removes it.
    pub fn my_reaction(&self, id: MessageId, emoji: Emoji, on: bool) -> Result<Push> {
        Ok(match on {
            true => self.my_reactions(&[(id, emoji)])?.swapped(Swap::Append),
            false => Push::removal(Selector::my_reaction(id, emoji)),
        })
    }

    /// Completions of the word that is being typed.
    pub fn completions(&self, text: &str, found: &Completions) -> Result<Push> {
        let (none, mut here) = (Vec::new(), false);
        let (mut people, mut groups, mut emojis) = (none.clone(), none.clone(), none);
        match found {
            Completions::People(found, with_here) => {
                people = people_context(found);
                here = *with_here;
            }
            Completions::Groups(found) => groups = found.iter().map(room_context).collect(),
            Completions::Emojis(found) => {
                let emoji = |(emoji, code): &(Emoji, _)| context! { emoji => emoji.as_str(), code => *code };
                emojis = found.iter().map(emoji).collect();
            }
        }
        let context = context! { text, people, here, groups, emojis };
        self.fragment(Selector::COMPLETIONS, context)
    }

    /// Settles the key of a message. The push goes to the place of a message that never exists.
    pub fn settled(&self, key: Uuid) -> Result<Push> {
        let context = context! { key => key.to_string() };
        self.outer(Selector::message(MessageId(0)), "_settled.html", context)
    }

    /// A notice for one person, with the key of the refused action.
    pub fn notice(&self, dialect: Dialect, refusal: &Refusal, tone: Tone) -> Result<Push> {
        let context = context! { notice => notice_context(refusal, tone) };
        self.fragment_in(dialect, Selector::NOTICE, context)
    }

    /// The answer to `Ping`.
    pub fn connection(&self) -> Result<Push> {
        let context = context! { state => "online" };
        self.fragment(Selector::CONNECTION, context)
    }

    /// The default groups and those of one person.
    pub fn groups_list(&self, groups: &[Listed]) -> Result<Push> {
        let groups = groups.iter().map(listed_context).collect::<Vec<_>>();
        self.fragment(Selector::GROUPS_LIST, context! { groups })
    }

    /// The news of a group: its newest message, the user name of the author, the messages that mention
    /// everybody, with theirs, and those that no longer do.
    pub fn group_news(
        &self,
        room: RoomId,
        (message, author): &(MessageId, String),
        here: &[(MessageId, String)],
        gone: &[MessageId],
    ) -> Result<Push> {
        let here: Vec<_> = here.iter().map(|(id, by)| format!("{id}:{by}")).collect();
        let (here, gone) = (here.join(" "), spaced(gone));
        let context =
            context! { room => room.to_string(), message => message.0, author, here, gone };
        self.outer(Selector::group_news(room), "_group_news.html", context)
    }

    /// Up to where I have read a room, and whether I have marked it as unread from there.
    pub fn my_read(&self, room: RoomId, read: MessageId, marked: bool) -> Result<Push> {
        let (room, read) = (room.to_string(), read.0);
        self.fragment(Selector::MY_READ, context! { room, read, marked })
    }

    /// What a room is about.
    pub fn room_topic(&self, topic: Option<&str>) -> Result<Push> {
        self.fragment(Selector::ROOM_TOPIC, context! { topic })
    }

    /// What I can do with a group. With the topic of a group whose topic I may change.
    pub fn room_menu(&self, room: &Room, muted: bool, topic: Option<&str>) -> Result<Push> {
        let context = context! { room => room_context(room), muted, topic };
        self.fragment(Selector::ROOM_MENU, context)
    }

    /// The heading of the lobby.
    pub fn lobby_name(&self) -> Result<Push> {
        let context = context! { room => lobby_context() };
        self.fragment(Selector::GROUP_NAME, context)
    }

    /// The lobby, for a tab that comes from a room.
    pub fn lobby(&self, groups: &[Busy]) -> Result<Push> {
        self.fragment(Selector::LOBBY, context! { groups => busy_context(groups) })
    }

    /// The list of messages of a tab that is in no room.
    pub fn no_messages(&self) -> Result<Push> {
        let context = context! { page => no_messages() };
        self.outer(Selector::MESSAGES_LIST, "_messages_list.html", context)
    }

    /// The heading of the results of a search.
    pub fn search_name(&self, typed: &str) -> Result<Push> {
        let context = context! { room => search_context(typed) };
        self.fragment(Selector::GROUP_NAME, context)
    }

    /// What a search for messages found, for a tab that comes from a room or another search.
    pub fn search_page(&self, typed: &str, query: &Query, found: &Found) -> Result<Push> {
        let seeks_mentions = typed == MENTIONS;
        let found = found_context(typed, query, found);
        let context = context! { search => typed, seeks_mentions, found };
        self.fragment(Selector::SEARCH_PAGE, context)
    }

    /// Older results, which replace the control that loaded them.
    pub fn older_results(&self, typed: &str, query: &Query, found: &Found) -> Result<[Push; 2]> {
        let context = context! { found => found_context(typed, query, found) };
        let older = self.fragment(Selector::SEARCH_RESULTS, context)?;
        Ok([
            Push::removal(Selector::SEARCH_OLDER),
            older.swapped(Swap::Append),
        ])
    }

    /// The busiest groups, in the lobby.
    pub fn lobby_rooms(&self, groups: &[Busy]) -> Result<Push> {
        let context = context! { groups => busy_context(groups) };
        self.fragment(Selector::LOBBY_ROOMS, context)
    }

    /// The groups that a search found, and whether there are `more`.
    pub fn lobby_found(
        &self,
        query: &str,
        groups: &[Busy],
        more: bool,
        offer: Option<&GroupName>,
    ) -> Result<Push> {
        let offer = offer.map(GroupName::as_str);
        let payload = offer.map(|group| json!({ "groupName": group }).to_string());
        let context = context! { query, groups => busy_context(groups), more, offer, payload };
        self.fragment(Selector::LOBBY_FOUND, context)
    }

    /// The rooms that the switcher offers.
    pub fn rooms_found(&self, query: &str, groups: &[Room], people: &[Person]) -> Result<Push> {
        let groups: Vec<_> = groups.iter().map(room_context).collect();
        let context = context! { query, groups, people => people_context(people) };
        self.fragment(Selector::ROOMS_FOUND, context)
    }

    /// The form to create a group, empty: its field has a new id, so that typed text is not kept.
    pub fn new_group(&self) -> Result<Push> {
        self.fragment(Selector::NEW_GROUP, context! { nonce => Millis::now().0 })
    }

    /// The people that one person talks with.
    pub fn users_mine(&self, people: &[Person]) -> Result<Push> {
        let context = context! { people => people_context(people) };
        self.fragment(Selector::USERS_MINE, context)
    }

    /// The people online, as far as they are listed. `here` is their number if that is more.
    pub fn users_online(&self, people: &[Person], here: Option<usize>) -> Result<Push> {
        let alone = people.len() < 2;
        let context = context! { people => people_context(people), alone, here };
        self.fragment(Selector::USERS_ONLINE, context)
    }

    /// The number of people in a room, and those who have been there longest.
    pub fn room_people(&self, room: RoomId, people: &[Person], count: u64) -> Result<[Push; 2]> {
        let room = room.to_string();
        let people = people_context(people);
        Ok([
            self.fragment(Selector::ROOM_COUNT, context! { room => &room, count })?,
            self.fragment(Selector::ROOM_PEOPLE, context! { room, people })?,
        ])
    }

    /// The welcome message of a room.
    pub fn room_welcome(&self, words: Option<&str>) -> Result<Push> {
        self.fragment(Selector::ROOM_WELCOME, context! { words })
    }

    /// Who joined and who left a room, as text.
    pub fn room_moves(&self, joined: &str, left: &str) -> Result<Push> {
        let context = context! { joined, left };
        self.fragment(Selector::ROOM_MOVES, context)
    }

    /// Who is typing in a room.
    pub fn room_typing(&self, typists: &[&User]) -> Result<Push> {
        let words = match typists {
            [] => String::new(),
            [one] => format!("{} is typing", one.shown_name()),
            [one, other] => format!("{} and {} are typing", one.shown_name(), other.shown_name()),
            _ => "several people are typing".to_owned(),
        };
        self.fragment(Selector::ROOM_TYPING, context! { words })
    }

    /// The people that a search found, and whether there are `more`.
    pub fn users_found(&self, query: &str, people: &[Person], more: bool) -> Result<Push> {
        let context = context! { query, people => people_context(people), more };
        self.fragment(Selector::USERS_FOUND, context)
    }
}

/// The same as [`Views::notification`], for the service worker of a browser that shows no page.
pub fn pushed_notification(message: &Message, group: Option<&str>, address: &str) -> String {
    let (title, body) = notification_of(message, group);
    let tag = message.id.to_string();
    json!({ "tag": tag, "title": title, "body": body, "address": address }).to_string()
}

/// The title of a notification, and the beginning of the message's first line.
fn notification_of(message: &Message, group: Option<&str>) -> (String, String) {
    let name = &message.author.name;
    let title = group.map_or(name.clone(), |group| format!("{name} in {group}"));
    (title, first_line(message))
}

/// The beginning of what a message says, without its marks.
fn first_line(message: &Message) -> String {
    let text = text::plain(&message.said());
    let line = text.trim_start().lines().next().unwrap_or_default();
    line.chars().take(LINE_CHARACTERS).collect()
}

fn settings_context(settings: Option<Notifications>, key: Option<&str>) -> Value {
    let quiet_until = settings.and_then(|settings| settings.quiet_until);
    let until = quiet_until.filter(|until| *until < Millis::MAX);
    context! {
        notified => settings.is_some(),
        key,
        sounds => settings.is_some_and(|settings| settings.sounds),
        quiet => quiet_until.is_some(),
        quiet_until => until.map(Millis::to_rfc3339),
    }
}

fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Read once: a debug build hashes every file for it.
    let build = Static::build();
    environment.add_function("asset", move |path: &str| {
        // It consists of our own file names and hexadecimal digits, so it needs no escaping.
        let address = Static::address(&build, path).map(Value::from_safe_string);
        address.ok_or_else(|| {
            let words = format!("there is no static file {path}");
            minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, words)
        })
    });
    for name in Templates::iter() {
        let text = text_of(Templates::get(&name));
        // Their indentation is for those who read them.
        let lines: Vec<_> = text.lines().map(str::trim_start).collect();
        environment.add_template_owned(name, lines.join("\n"))?;
    }
    for name in Components::iter() {
        let text = unwrapped(&text_of(Components::get(&name)));
        environment.add_template_owned(name, text)?;
    }
    Ok(environment)
}

fn text_of(file: Option<rust_embed::EmbeddedFile>) -> String {
    file.map(|file| String::from_utf8_lossy(&file.data).into_owned())
        .unwrap_or_default()
}

/// A fragment without its line breaks and indentation, which make it readable and would only cost bytes
/// on the wire. A line break between tags is removed, elsewhere it becomes a space. A comment keeps it in
/// the template, so that errors name the right line.
fn unwrapped(text: &str) -> String {
    let mut unwrapped = String::new();
    for line in text.lines() {
        let line = line.trim_start();
        let is_between_tags = unwrapped.ends_with(['>', '}']) || line.starts_with(['<', '{']);
        if !unwrapped.is_empty() {
            unwrapped += if is_between_tags { "{#\n#}" } else { " {#\n#}" };
        }
        unwrapped += line;
    }
    unwrapped
}

/// How the names of a dialect's fragments begin.
fn prefix(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Plain => "_plain_",
        Dialect::V1 | Dialect::Moderation | Dialect::Objects | Dialect::Lines | Dialect::Forms => {
            "_"
        }
    }
}

/// The title of a room: `#python`, or the other person's display name with the user name, or only the
/// user name.
pub fn title(room: &Room) -> String {
    match &room.kind {
        RoomKind::Group(name) => format!("#{name}"),
        RoomKind::Private { with } => match &with.display_name {
            Some(name) => format!("{name} ({})", with.name),
            None => with.name.clone(),
        },
    }
}

fn room_context(room: &Room) -> Value {
    let (kind, name, target, user) = match &room.kind {
        RoomKind::Group(name) => ("group", name, Target::Group(name.clone()), None),
        RoomKind::Private { with } => {
            let target = Target::Private(with.name.clone());
            ("private", &with.name, target, Some(user_context(with)))
        }
    };
    context! {
        id => room.id.to_string(), kind, name, user, title => title(room),
        address => protocol::address(&target),
    }
}

/// How much a notification or a form shows of a message's first line, in characters.
const LINE_CHARACTERS: usize = 160;
/// The emojis that are one click away.
const QUICK: [&str; 5] = ["👍", "❤️", "😂", "🎉", "👀"];

/// The title of the lobby.
const LOBBY_TITLE: &str = "All groups";

fn lobby_context() -> Value {
    context! { id => "", kind => "lobby", title => LOBBY_TITLE, address => LOBBY_PATH, user => None::<Value> }
}

/// The title of the results of a search.
fn search_title(typed: &str) -> &'static str {
    if typed == MENTIONS {
        "Mentions"
    } else {
        "Search"
    }
}

fn search_context(typed: &str) -> Value {
    let address = protocol::search_address(typed);
    let title = search_title(typed);
    context! { id => "", kind => "search", title, address, user => None::<Value> }
}

fn found_context(typed: &str, query: &Query, found: &Found) -> Value {
    let message = |(message, room): &(Message, Room)| {
        let parts = query.excerpt(&text::plain(&message.said())).into_iter();
        let parts = parts.map(|(text, matches)| context! { text, matches });
        let room = room_context(room);
        context! {
            room, parts => parts.collect::<Vec<_>>(), ..message_context(Dialect::V1, message)
        }
    };
    let payload = |before: MessageId| json!({ "text": typed, "before": before.0 }).to_string();
    let (mut nobody, mut unknown) = (None, None);
    match &found.unknown {
        Some(Unknown::Person(name)) => nobody = Some(name),
        Some(Unknown::Room(name)) => unknown = Some(name),
        None => {}
    }
    context! {
        messages => found.messages.iter().map(message).collect::<Vec<_>>(),
        older => found.before.map(payload), nobody, unknown, incomplete => found.incomplete,
        empty => typed.is_empty(), wordless => query.is_empty(),
    }
}

fn no_messages() -> Value {
    context! {
        room => "", version => "", at => None::<i64>, after => None::<i64>, older => false, newer => false,
        messages => Vec::<Value>::new(),
    }
}

fn listed_context(listed: &Listed) -> Value {
    context! {
        joined => listed.joined, muted => listed.muted, unread => listed.unread && !listed.muted,
        named => spaced(&listed.named), here => spaced(&listed.here), read => listed.read.0,
        mentions => listed.named.iter().chain(&listed.here).collect::<HashSet<_>>().len(),
        ..room_context(&listed.group)
    }
}

fn spaced(messages: &[MessageId]) -> String {
    let messages: Vec<_> = messages.iter().map(MessageId::to_string).collect();
    messages.join(" ")
}

fn busy_context(groups: &[Busy]) -> Vec<Value> {
    let busy = |busy: &Busy| {
        let active_at = busy.active_at.map(Millis::to_rfc3339);
        context! {
            people => busy.people, topic => &busy.topic, active_at, ..room_context(&busy.group)
        }
    };
    groups.iter().map(busy).collect()
}

/// One of the twelve colours of avatars.
fn hue(user: UserId) -> i64 {
    user.0.rem_euclid(12)
}

/// The initials of the first two words of a name, or else its first two letters, if it has them:
/// `AL` for Anna Lee, `Br` for brenda82.
fn initials(name: &str) -> String {
    let mut words = name.split(' ').filter_map(|word| word.chars().next());
    let first = words.next().map(char::to_uppercase);
    let second = match words.next() {
        Some(second) => second.to_uppercase().to_string(),
        // In other scripts, a second character is not always a letter of its own.
        None => name
            .chars()
            .nth(1)
            .filter(char::is_ascii_alphabetic)
            .map_or(String::new(), String::from),
    };
    first.map_or(String::new(), |first| format!("{first}{second}"))
}

fn user_context(user: &User) -> Value {
    context! {
        name => &user.name, shown_name => user.shown_name(), hue => hue(user.id),
        initials => initials(user.shown_name()),
    }
}

fn people_context(people: &[Person]) -> Vec<Value> {
    let person = |person: &Person| {
        context! {
            address => protocol::address(&Target::Private(person.user.name.clone())),
            unread => person.unread,
            online => person.online,
            ..user_context(&person.user)
        }
    };
    people.iter().map(person).collect()
}

/// Messages of one person with less than this between them form one block, as in the script.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Messages with a line where each day begins (UTC), and with a mark on those that continue the block of the one
/// before. The script does the same with local time, so that next to nothing moves when it has loaded.
fn in_blocks(messages: &[Message], html: Vec<Value>) -> Vec<Value> {
    let mut arranged = Vec::new();
    let mut block: Option<(String, Option<&Author>, Millis)> = None;
    for (message, html) in messages.iter().zip(html) {
        let at = message.created_at;
        let day = at.to_rfc3339()[..10].to_owned();
        let former = block.take().filter(|(former, ..)| *former == day);
        if former.is_none() {
            let line = format!("<p class='day' id='day-{}'>{day}</p>", message.id);
            arranged.push(Value::from_safe_string(line));
        }
        let continues = former.as_ref().is_some_and(|(_, author, last)| {
            *author == Some(&message.author)
                && at < last.after(LONGEST_PAUSE)
                && message.reply_to.is_none()
        });
        let article = html.as_str().and_then(|html| html.strip_prefix("<article"));
        let joined = article.filter(|_| continues && !message.deleted);
        arranged.push(match joined {
            Some(rest) => Value::from_safe_string(format!("<article data-joined{rest}")),
            None => html.clone(),
        });
        block = match (former, message.deleted) {
            // The block goes on after a deleted message.
            (Some(former), true) => Some(former),
            (_, deleted) => Some((day, (!deleted).then_some(&message.author), at)),
        };
    }
    arranged
}

fn message_context(dialect: Dialect, message: &Message) -> Value {
    let time_utc = message.created_at.to_rfc3339();
    let html = match &message.html {
        _ if message.deleted => String::new(),
        Some(html) => html.clone(),
        None => text::render(&message.text),
    };
    let html = match dialect {
        // The page of a plain client may have no style sheet that keeps line breaks, and no script that
        // copies a listing.
        Dialect::Plain => html.replace('\n', "<br>").replace(text::COPY, ""),
        _ => html,
    };
    context! {
        message => context! {
            id => message.id.0,
            user => &message.author.user_name,
            name => &message.author.name,
            initials => initials(&message.author.name),
            hue => hue(message.author.id),
            key => message.key.map(|key| key.to_string()),
            // Hours and minutes, for browsers that do not convert them to local time.
            time => &time_utc[11..16],
            time_utc => &time_utc,
            // A block cannot be in a paragraph.
            tag => if text::has_blocks(&html) { "div" } else { "p" },
            html => Value::from_safe_string(html),
            edited => message.edited,
            deleted => message.deleted,
            by_moderator => message.by_moderator,
            files => message.files.iter().map(file_context).collect::<Vec<_>>(),
            reactions => message.reactions.iter().map(reaction_context).collect::<Vec<_>>(),
        },
        quote => message.reply_to.as_ref().map(quote_context),
    }
}

fn quote_context(original: &Original) -> Value {
    let line = original.text.as_deref().map(|text| match text {
        "" => "sent a file".to_owned(),
        text => text::first_line(text),
    });
    context! {
        id => original.id.0, user => &original.author.user_name, name => &original.author.name, line,
    }
}

/// How the names of pictures end. What is named like one but is none is just a file.
const PICTURES: [&str; 5] = ["png", "jpg", "jpeg", "gif", "webp"];
/// The most that a picture takes on the page, in pixels. It is never enlarged.
const SHOWN: (u32, u32) = (480, 360);

fn file_context(file: &File) -> Value {
    let address = protocol::file_address(file);
    let shown = file.picture.map(|picture| {
        let (width, height) = (f64::from(picture.width), f64::from(picture.height));
        let (most_width, most_height) = SHOWN;
        let scale = (f64::from(most_width) / width)
            .min(f64::from(most_height) / height)
            .min(1.0);
        let scaled = |side: f64| (side * scale).round().max(1.0);
        let source = protocol::picture_address(file);
        context! { width => scaled(width) as u32, height => scaled(height) as u32, source }
    });
    let ending = file.name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let is_short = (1..=5).contains(&ending.chars().count());
    let is_wrong = PICTURES.contains(&&*ending.to_lowercase());
    let kind = match is_short && !is_wrong {
        true => ending.to_uppercase(),
        false => "File".to_owned(),
    };
    context! {
        address, name => &file.name, size => size_in_words(file.bytes), kind, picture => shown,
    }
}

/// `17 KB`, `1.2 MB`.
fn size_in_words(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} KB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}

fn reaction_context(reaction: &Reaction) -> Value {
    let more = reaction.count.saturating_sub(reaction.names.len() as u64);
    context! {
        emoji => reaction.emoji.as_str(), code => reaction.emoji.code(), count => reaction.count,
        names => &reaction.names, more,
    }
}

fn notice_context(refusal: &Refusal, tone: Tone) -> Value {
    let Refusal { text, offer, key } = refusal;
    let payload = offer.as_ref();
    let payload = payload.map(|group| json!({ "groupName": group }).to_string());
    context! { text, offer, payload, tone => Serde(&tone), key => key.map(|key| key.to_string()) }
}

#[cfg(test)]
mod tests {
    use scraper::{Html, Selector as Css};

    use uuid::Uuid;

    use super::*;
    use crate::model::{Author, History, MessageId, RoomId};

    const NASTY: &str = "</p><script>alert(1)</script>\" onload='x' {{ 7*7 }} &amp; \
        https://a.example/'\" onload='x' <b> https://a.example/\" onload='x'";
    const VERSION: Version = Version {
        room: RoomId(5),
        history: History(7),
        number: 9,
    };

    fn user(name: &str) -> User {
        User {
            id: UserId(3),
            name: name.to_owned(),
            display_name: None,
        }
    }

    fn message(id: i64, text: &str) -> Message {
        Message {
            id: MessageId(id),
            room: VERSION.room,
            author: Author {
                id: UserId(3),
                user_name: text.to_owned(),
                name: text.to_owned(),
            },
            text: text.to_owned(),
            key: Some(Uuid::nil()),
            made: id.unsigned_abs(),
            changed: id.unsigned_abs(),
            created_at: Millis(1_795_246_200_000),
            edited: false,
            deleted: false,
            worded: id.unsigned_abs(),
            reactions: vec![Reaction {
                emoji: Emoji::new("👍").unwrap(),
                count: 12,
                names: vec![text.to_owned(), "bob".to_owned()],
            }],
            by_moderator: false,
            html: None,
            reply_to: Some(Original {
                id: MessageId(7),
                author: Author {
                    id: UserId(4),
                    user_name: text.to_owned(),
                    name: text.to_owned(),
                },
                text: Some(text.to_owned()),
            }),
            files: Vec::new(),
        }
    }

    fn page(messages: Vec<Message>) -> Page {
        Page {
            version: VERSION,
            newer: false,
            messages,
            older: false,
        }
    }

    fn group(name: &str) -> Room {
        Room {
            id: VERSION.room,
            kind: RoomKind::Group(name.to_owned()),
        }
    }

    fn listed(group: Room) -> Listed {
        Listed {
            group,
            joined: true,
            muted: false,
            unread: true,
            named: vec![MessageId(2), MessageId(3)],
            here: vec![MessageId(3), MessageId(4)],
            read: MessageId(1),
        }
    }

    fn private(name: &str) -> Room {
        Room {
            id: VERSION.room,
            kind: RoomKind::Private { with: user(name) },
        }
    }

    fn nasty_refusal() -> Refusal {
        Refusal {
            text: NASTY.to_owned(),
            offer: Some(NASTY.to_owned()),
            key: Some(Uuid::nil()),
        }
    }

    fn nasty_form(views: &Views, form: Form) -> String {
        let page = AccountPage {
            form,
            user: Some(NASTY),
            resume: Some(NASTY),
            at: NASTY,
            reason: Some(NASTY),
        };
        views.account_page(&page).unwrap()
    }

    fn whole_page(name: &str) -> String {
        let room = group(name);
        let messages = page(vec![message(1, name)]);
        let page = ChatPage {
            host: "127.0.0.1:8000",
            scheme: "http",
            groups: &[
                listed(Room {
                    id: RoomId(6),
                    ..group("hi")
                }),
                listed(group(name)),
            ],
            at: None,
            topic: Some(name),
            room: Some((&room, &messages)),
            newest: true,
            file_limit: Some(1 << 20),
            limit: 4000,
            lobby: None,
            search: None,
            notice: Some(&Refusal::new(name)),
            reader: None,
            people: &[],
            addressee: None,
            to: Some("/chat/python/"),
            refused: Some(("", name)),
        };
        Views::new().unwrap().chat_page(&page).unwrap()
    }

    #[test]
    fn a_fragment_is_written_in_lines_and_sent_without_them() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let environment = super::Environment::new();
            let rendered = environment.render_str(&super::unwrapped(text), ());
            assert_eq!(rendered.unwrap(), expected);
        }
        check("<p>\n  <b>a</b>\n</p>\n", "<p><b>a</b></p>");
        check("<p id=\"a\"\n    class=\"b\">", "<p id=\"a\" class=\"b\">");
        check(
            "<p>{% if true %}\n  <b>{% endif %}\n  {{ 1 }}</b> <i>\n",
            "<p><b>1</b> <i>",
        );
        check("<p>two\n  lines</p>", "<p>two lines</p>");
        let broken =
            super::Environment::new().render_str(&super::unwrapped("<p>\n\n{{ 1 / }}"), ());
        assert_eq!(broken.unwrap_err().line(), Some(3));
    }

    #[test]
    fn a_message_is_rendered() {
        let push = Views::new().unwrap().new_message(&message(1, "brenda82"));
        let html = "<article class='message hue-3' id='message-1' data-user='brenda82' \
            data-key='00000000-0000-0000-0000-000000000000'><b data-face='Br'>brenda82</b> <a href='?at=1'>\
            <time datetime='2026-11-21T07:30:00Z'>07:30</time></a><a class='quote' \
            href='?at=7' data-quotes='7' data-user='brenda82'><span class='quote__name'>brenda82\
            </span> brenda82</a><p>brenda82</p>\
            <div class='reactions'><button class='chip' id='reaction-1-1f44d' data-action='React' \
            data-payload='{\"emoji\":\"👍\"}' title='brenda82, bob and 10 more'>👍 12</button></div>\
            </article>";
        assert_eq!(push.html, html);
        assert_eq!(
            (push.selector, push.swap),
            (Selector::MESSAGES_LIST, Some(Swap::Append))
        );
    }

    #[test]
    fn a_message_is_rendered_once_until_it_changes() {
        let views = Views::new().unwrap();
        let fresh = |message: &Message| Views::new().unwrap().new_message(message).html;
        let mut changing = message(1, "brenda82");
        assert_eq!(views.new_message(&changing).html, fresh(&changing));
        assert_eq!(views.changed_message(&changing).html, fresh(&changing));
        assert_eq!(views.templates().fragments.len(), 1);
        let changes: [fn(&mut Message); 6] = [
            |message| message.author.name = "Brenda".to_owned(),
            |message| message.html = Some("<em>brenda82</em>".to_owned()),
            |message| message.reactions[0].count += 1,
            |message| message.reply_to.as_mut().unwrap().text = None,
            |message| message.edited = true,
            |message| message.deleted = true,
        ];
        for change in changes {
            let before = views.new_message(&changing).html;
            change(&mut changing);
            let after = views.new_message(&changing).html;
            assert_eq!(after, fresh(&changing));
            assert_ne!(after, before);
        }
        assert_eq!(views.templates().fragments.len(), 7);
        views.reload().unwrap();
        assert_eq!(views.templates().fragments.len(), 0);
    }

    #[test]
    fn rendered_messages_take_limited_memory() {
        let views = Views::new().unwrap();
        let long = "word ".repeat(1_000);
        for id in 0..3_000 {
            let message = Message {
                html: Some(long.clone()),
                ..message(id, "brenda82")
            };
            views.new_message(&message);
        }
        let kept = views.templates().fragments.weight();
        assert!(kept <= FRAGMENTS_BYTES, "{kept}");
        assert!(kept > FRAGMENTS_BYTES / 2, "{kept}");
    }

    /// What a message costs each tab, and so most of what is sent. Whoever needs more bytes raises the limit here.
    #[test]
    fn a_message_takes_few_bytes() {
        let message = Message {
            text: "Shall we meet at the station at eight, or is that too early?".to_owned(),
            author: message(1, "brenda82").author,
            key: Some(Uuid::from_u128(0x4c3a_91d7_0e6b_4f28_b5d1_7a93_e80c_264f)),
            reactions: Vec::new(),
            reply_to: None,
            ..message(12_345, "")
        };
        let version = Version {
            history: History(0x6a1f_93c8),
            number: 12_345,
            ..VERSION
        };
        let push = Views::new().unwrap().new_message(&message).at(version);
        let frame = push.encode();
        let bytes = [false, true].map(|deflate| frame.bytes(deflate).len());
        assert!(bytes[0] <= 400 && bytes[1] <= 280, "{bytes:?}");
    }

    #[test]
    fn a_plain_client_gets_cards_without_controls() {
        let views = Views::new().unwrap();
        let list = |message| views.plain_list_of(&page(vec![message])).unwrap();
        let push = list(Message {
            edited: true,
            ..message(1, "two\nlines")
        });
        let html = "<article class=\"message__item\" id=\"message-1\" data-user=\"two\nlines\" \
            data-key=\"00000000-0000-0000-0000-000000000000\"><header class=\"message__header\">\
            <h3 class=\"message__title\">two\nlines</h3> <time class=\"message__time\" \
            datetime=\"2026-11-21T07:30:00Z\">21/11/2026 07:30</time> \
            <i class=\"message__edited\">edited</i></header>\
            <p class=\"message__quote\"><span class='quote__name'>two\nlines</span> two</p>\
            <p class=\"message__text\">two<br>lines</p>\
            <p class=\"message__reactions\"><span id=\"reaction-1-1f44d\">👍 12</span></p></article>";
        assert_eq!(push.html, html);
        assert_eq!((push.selector, push.swap), (Selector::MESSAGES_LIST, None));
        let deleted = list(Message {
            deleted: true,
            edited: true,
            ..message(1, "anna")
        });
        let html = deleted.html;
        assert!(html.contains("<p class=\"message__text\">anna deleted a message.</p>"));
        assert!(!html.contains("edited") && !html.contains("👍"), "{html}");

        let name = views.logged_user(Dialect::Plain, &user("anna"), None);
        assert_eq!(name.unwrap().html, "anna");
        let refused = views.notice(Dialect::Plain, &nasty_refusal(), Tone::Wait);
        let refused = refused.unwrap().html;
        assert!(
            refused.contains("data-tone=\"wait\" data-key=\"00000000-"),
            "{refused}"
        );
        assert!(!refused.contains("<button"), "{refused}");
    }

    #[test]
    fn nothing_that_people_typed_becomes_markup() {
        let views = Views::new().unwrap();
        let plain = |push: Result<Push>| push.unwrap().html;
        let people = [Person {
            user: user(NASTY),
            unread: 1,
            online: true,
        }];
        let nasty = page(vec![message(1, NASTY)]);
        let nasty_reactors = [(Emoji::new("👍").unwrap(), NASTY.to_owned())];
        let found = Found {
            messages: vec![
                (message(1, NASTY), group(NASTY)),
                (message(2, NASTY), private(NASTY)),
            ],
            before: Some(MessageId(1)),
            ..Found::default()
        };
        let unknown = Found {
            unknown: Some(Unknown::Person(NASTY.to_owned())),
            ..Found::default()
        };
        let query = Query::of(NASTY);
        let results = |found| plain(views.search_page(NASTY, &query, found));
        assert!(results(&found).contains("<mark>"));
        let rendered = [
            results(&found),
            results(&unknown),
            results(&Found::default()),
            plain(views.search_name(NASTY)),
            whole_page(NASTY),
            views
                .logged_user(Dialect::V1, &user(NASTY), Some(&ResumeToken::random()))
                .unwrap()
                .html,
            plain(views.logged_user(Dialect::Plain, &user(NASTY), None)),
            plain(views.group_name(Dialect::Plain, &group(NASTY))),
            plain(views.group_name(Dialect::Plain, &private(NASTY))),
            plain(views.plain_list_of(&nasty)),
            plain(views.notice(Dialect::Plain, &nasty_refusal(), Tone::Refusal)),
            views.account(&user(NASTY), None, true).unwrap().html,
            views
                .account(&user(NASTY), Some(&ResumeToken::random()), false)
                .unwrap()
                .html,
            nasty_form(&views, Form::Keep),
            nasty_form(&views, Form::SignIn),
            nasty_form(&views, Form::Password),
            views.group_name(Dialect::V1, &group(NASTY)).unwrap().html,
            views.group_name(Dialect::V1, &private(NASTY)).unwrap().html,
            views.list_of(&nasty, None).unwrap().html,
            views.older_messages(&nasty).unwrap()[1].html.clone(),
            views.changed_message(&message(1, NASTY)).html,
            views
                .message_form(&message(1, NASTY), &nasty_reactors, Some(9), true)
                .unwrap()
                .html,
            views
                .message_form(&message(1, NASTY), &nasty_reactors, None, true)
                .unwrap()
                .html,
            views
                .completions(NASTY, &Completions::People(people.to_vec(), true))
                .unwrap()
                .html,
            views
                .completions(NASTY, &Completions::Groups(vec![group(NASTY)]))
                .unwrap()
                .html,
            views
                .notice(Dialect::V1, &nasty_refusal(), Tone::Refusal)
                .unwrap()
                .html,
            views.users_mine(&people).unwrap().html,
            views.users_online(&people, Some(7)).unwrap().html,
            views.users_found(NASTY, &people, true).unwrap().html,
            views.room_people(VERSION.room, &people, 7).unwrap()[1]
                .html
                .clone(),
            views.room_moves(NASTY, "").unwrap().html,
            views.room_topic(Some(NASTY)).unwrap().html,
            views
                .room_menu(&group(NASTY), false, Some(NASTY))
                .unwrap()
                .html,
            views
                .group_news(
                    VERSION.room,
                    &(MessageId(1), NASTY.to_owned()),
                    &[(MessageId(1), NASTY.to_owned())],
                    &[MessageId(2)],
                )
                .unwrap()
                .html,
            views.groups_list(&[listed(group(NASTY))]).unwrap().html,
            views.room_typing(&[&user(NASTY)]).unwrap().html,
            views.users_found(NASTY, &[], false).unwrap().html,
        ];
        for html in rendered {
            assert!(!html.contains("alert(1)</script>"), "{html}");
            let inline = Css::parse("script:not([src]), [onload]").unwrap();
            assert_eq!(
                Html::parse_document(&html).select(&inline).count(),
                0,
                "{html}"
            );
        }
    }

    #[test]
    fn mentions_that_may_not_be_read_do_not_hide_older_ones() {
        let views = Views::new().unwrap();
        let found = Found {
            before: Some(MessageId(5)),
            ..Found::default()
        };
        let page = views.search_page(MENTIONS, &Query::of(MENTIONS), &found);
        let html = page.unwrap().html;
        assert!(html.contains("search-older"), "{html}");
    }

    #[test]
    fn every_promised_place_is_in_the_page_once() {
        let html = Html::parse_document(&whole_page("python"));
        let promised = [
            "#logged-user",
            "#group-name",
            "#messages-list",
            "#aside",
            "#groups-list",
            "#users-list",
            "#notice",
            "#connection",
            "#main",
            "form #message-text",
            "form #send",
            "#aside #groups-list",
            "#aside #users-list",
            "#messages-older",
            "#users-mine",
            "#users-online",
            "#users-found",
            "body[data-host='127.0.0.1:8000'][data-scheme='http']",
            "#messages-list[data-room][data-version][role=log]",
            "a.nav__link[data-group-name=python][data-group-public=true][href='/chat/python/']",
            "#group-name [data-address='/chat/python/']",
        ];
        for css in promised {
            let count = html.select(&Css::parse(css).unwrap()).count();
            assert_eq!(count, 1, "{css}");
        }
        let mut ids: Vec<_> = html
            .select(&Css::parse("[id]").unwrap())
            .filter_map(|e| e.attr("id"))
            .collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "an id is used twice");
    }

    #[test]
    fn a_page_keeps_to_its_size_and_has_the_newest_messages() {
        let views = Views::new().unwrap();
        let shown = |messages: Vec<Message>| {
            let html = views.list_of(&page(messages), None).unwrap().html;
            let shown = html.matches("<article").count();
            assert!(
                html.len() < PAGE_BYTES + 2048 || shown == 1,
                "{}",
                html.len()
            );
            (
                shown,
                html.contains("data-more=\"true\""),
                html.contains("id='message-50'"),
            )
        };
        let many = |text: &str| (1..=50).map(|id| message(id, text)).collect();
        assert_eq!(shown(many("short")), (50, false, true));
        let long = "x".repeat(4000);
        let (some, older, newest) = shown(
            (1..=50)
                .map(|id| Message {
                    text: long.clone(),
                    ..message(id, "anna")
                })
                .collect(),
        );
        assert!((10..50).contains(&some) && older && newest);
        let huge = "x".repeat(2 * PAGE_BYTES);
        let huge = |id| Message {
            text: huge.clone(),
            ..message(id, "anna")
        };
        assert_eq!(shown(vec![huge(49), huge(50)]), (1, true, true));
    }

    #[test]
    fn a_catch_up_appends_the_new_and_swaps_the_old() {
        let views = Views::new().unwrap();
        let after = Version {
            number: 3,
            ..VERSION
        };
        let messages = [
            Message {
                changed: 9,
                worded: 9,
                ..message(2, "old")
            },
            message(4, "new"),
        ];
        let pushes = views.changes(after, VERSION, &messages).unwrap();
        let shape = |push: &Push| (push.selector.clone(), push.swap, push.version);
        assert_eq!(
            pushes.iter().map(shape).collect::<Vec<_>>(),
            [
                (Selector::quotes(MessageId(2)), None, None),
                (Selector::message(MessageId(2)), Some(Swap::Outer), None),
                (Selector::MESSAGES_LIST, Some(Swap::Append), Some(VERSION)),
            ]
        );
        let long = "x".repeat(4000);
        let many: Vec<_> = (4..30)
            .map(|id| Message {
                text: long.clone(),
                ..message(id, "anna")
            })
            .collect();
        assert_eq!(
            views.changes(after, VERSION, &many),
            None,
            "more than a page"
        );
    }
}
