//! The fragments: one typed function per fragment, each giving a [`Push`], and the page.
//!
//! Nothing here knows sockets, the store, or when a fragment is shown.

use std::sync::{Arc, PoisonError, RwLock};

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use rust_embed::RustEmbed;
use serde::Serialize;
use uuid::Uuid;

use crate::model::{Message, Person, ResumeToken, Room, RoomKind, Target, User, UserId, Version};
use crate::protocol::{self, PAGE_BYTES, Push, SOCKET_PATH, Selector, Swap};
use crate::store::Page;

#[derive(RustEmbed)]
#[folder = "templates/"]
struct Templates;

#[derive(RustEmbed)]
#[folder = "components/"]
struct Components;

/// The files that the page fetches: in a release build embedded in the program, in a debug build
/// read from the disk.
#[derive(RustEmbed)]
#[folder = "static/"]
pub struct Static;

impl Static {
    /// The address of a file, which changes with what is in it.
    #[must_use]
    pub fn address(path: &str) -> Option<String> {
        Some(format!("/static/{path}?v={}", Self::tag(path)?))
    }

    /// What tells one content of a file from another: 16 hexadecimal digits of its SHA-256.
    #[must_use]
    pub fn tag(path: &str) -> Option<String> {
        let hash = Self::get(path)?.metadata.sha256_hash();
        Some(
            hash.iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }
}

/// A fragment or page could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("a template failed")]
pub struct ViewError(#[from] minijinja::Error);

/// What a drawing comes to.
pub type Result<T> = std::result::Result<T, ViewError>;

/// What a notice is about, which decides how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// Something was not done, for a reason.
    Refusal,
    /// A failure of ours.
    Trouble,
}

/// What the page is drawn from.
pub struct ChatPage<'a> {
    /// Host and port as the browser sees them.
    pub host: &'a str,
    /// `http` or `https`, as the browser sees it.
    pub scheme: &'a str,
    /// The default groups.
    pub groups: &'a [Room],
    /// The group on show and its newest page; a private room is drawn empty.
    pub room: Option<(&'a Room, &'a Page)>,
    /// What is said at once.
    pub notice: Option<&'a str>,
}

/// The templates, all parsed when the program starts.
pub struct Views {
    environment: RwLock<Arc<Environment<'static>>>,
}

impl Views {
    /// Reads all templates; a broken one is an error here rather than in front of a person.
    pub fn new() -> Result<Self> {
        Ok(Self {
            environment: RwLock::new(Arc::new(environment()?)),
        })
    }

    /// Reads all templates again, which shows a change without a rebuild where they are on disk.
    /// The former ones stay if one is broken.
    pub fn reload(&self) -> Result<()> {
        let environment = Arc::new(environment()?);
        *self
            .environment
            .write()
            .unwrap_or_else(PoisonError::into_inner) = environment;
        Ok(())
    }

    fn draw(&self, name: &str, context: Value) -> Result<String> {
        let environment = Arc::clone(
            &self
                .environment
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        );
        Ok(environment.get_template(name)?.render(context)?)
    }

    /// The whole page.
    pub fn chat_page(&self, page: &ChatPage<'_>) -> Result<String> {
        let room = page.room.map(|(room, _)| room_context(room));
        let title = page.room.map_or("Overwire".to_owned(), |(room, _)| {
            format!("{} · Overwire", title(room))
        });
        let list = match page.room {
            Some((_, messages)) => self.list_context(messages),
            None => context! {
                room => "", version => "", reads => false, older => false,
                messages => Vec::<Value>::new(),
            },
        };
        let notice = page
            .notice
            .map(|text| notice_context(text, Tone::Refusal, None));
        self.draw(
            "chat.html",
            context! {
                title, room, notice,
                page => list,
                host => page.host,
                scheme => page.scheme,
                socket => SOCKET_PATH,
                groups => page.groups.iter().map(room_context).collect::<Vec<_>>(),
            },
        )
    }

    /// Who I am, and by which token I am known again.
    pub fn logged_user(&self, user: &User, resume: Option<&ResumeToken>) -> Result<Push> {
        let context = context! {
            user => user_context(user), resume => resume.map(ToString::to_string),
        };
        Ok(Push::inner(
            Selector::LOGGED_USER,
            self.draw("_logged_user.html", context)?,
        ))
    }

    /// The room I am in.
    pub fn group_name(&self, room: &Room) -> Result<Push> {
        let context = context! { room => room_context(room) };
        Ok(Push::inner(
            Selector::GROUP_NAME,
            self.draw("_group_name.html", context)?,
        ))
    }

    /// The newest page of a room, the list itself.
    pub fn messages_list(&self, page: &Page) -> Result<Push> {
        let context = context! { page => self.list_context(page) };
        let html = self.draw("_messages_list.html", context)?;
        let push = Push::inner(Selector::MESSAGES_LIST, html);
        Ok(push.swapped(Swap::Outer).at(page.version))
    }

    /// The newest page of a room for a tab that only knows inner HTML, and no older pages.
    #[must_use]
    pub fn messages(&self, page: &Page) -> Push {
        let (messages, _) = self.page_messages(page);
        Push::inner(Selector::MESSAGES_LIST, messages.join("\n"))
    }

    /// An older page: the former way to it goes, and the page with the next comes in its place.
    pub fn older_messages(&self, page: &Page) -> Result<[Push; 2]> {
        let html = self.draw(
            "_messages.html",
            context! { page => self.list_context(page) },
        )?;
        let way = Push::inner(Selector::MESSAGES_OLDER, String::new()).swapped(Swap::Remove);
        Ok([
            way,
            Push::inner(Selector::MESSAGES_LIST, html).swapped(Swap::Prepend),
        ])
    }

    fn list_context(&self, page: &Page) -> Value {
        let (messages, older) = self.page_messages(page);
        context! {
            room => page.version.room.to_string(),
            version => page.version.to_string(),
            reads => page.private,
            messages => messages.into_iter().map(Value::from_safe_string).collect::<Vec<_>>(),
            older,
        }
    }

    /// The newest messages of the page that fit [`PAGE_BYTES`], and whether there are older ones.
    fn page_messages(&self, page: &Page) -> (Vec<String>, bool) {
        let mut room = PAGE_BYTES;
        let mut messages: Vec<String> = Vec::new();
        for message in page.messages.iter().rev() {
            let html = self.message(message);
            if html.len() > room && !messages.is_empty() {
                break;
            }
            room = room.saturating_sub(html.len());
            messages.push(html);
        }
        let older = page.older || messages.len() < page.messages.len();
        messages.reverse();
        (messages, older)
    }

    /// One message. One that cannot be drawn becomes a placeholder, so that the list survives.
    fn message(&self, message: &Message) -> String {
        self.draw("_message.html", message_context(message))
            .unwrap_or_else(|error| {
                tracing::error!(
                    message.id = message.id.0,
                    ?error,
                    "a message cannot be shown"
                );
                let context = context! { message => context! { id => message.id.0 } };
                self.draw("_message_broken.html", context)
                    .unwrap_or_default()
            })
    }

    /// A message made after what the tab has: it goes to the end.
    #[must_use]
    pub fn new_message(&self, message: &Message) -> Push {
        Push::inner(Selector::MESSAGES_LIST, self.message(message)).swapped(Swap::Append)
    }

    /// A message in its present state: it takes its own place, if the tab shows it.
    #[must_use]
    pub fn changed_message(&self, message: &Message) -> Push {
        Push::inner(Selector::message(message.id), self.message(message)).swapped(Swap::Outer)
    }

    /// What leads a tab from `after` to `version`: new messages go to the end, older ones are
    /// swapped in place, and the last push bears the version. `None` where that is more than a
    /// page and the newest page has to do.
    #[must_use]
    pub fn changes(
        &self,
        after: Version,
        version: Version,
        messages: &[Message],
    ) -> Option<Vec<Push>> {
        let mut pushes: Vec<Push> = messages
            .iter()
            .map(|message| match message.made > after.number {
                true => self.new_message(message),
                false => self.changed_message(message),
            })
            .collect();
        if pushes.iter().map(|push| push.html.len()).sum::<usize>() > PAGE_BYTES && pushes.len() > 1
        {
            return None;
        }
        let last = pushes.pop()?.at(version);
        pushes.push(last);
        Some(pushes)
    }

    /// Words for one person, with the key of what was refused.
    pub fn notice(&self, text: &str, tone: Tone, key: Option<Uuid>) -> Result<Push> {
        let context = context! { notice => notice_context(text, tone, key) };
        Ok(Push::inner(
            Selector::NOTICE,
            self.draw("_notice.html", context)?,
        ))
    }

    /// The answer to `Ping`.
    pub fn connection(&self) -> Result<Push> {
        let context = context! { state => "online" };
        Ok(Push::inner(
            Selector::CONNECTION,
            self.draw("_connection.html", context)?,
        ))
    }

    /// The people who concern one person.
    pub fn users_mine(&self, people: &[Person]) -> Result<Push> {
        let context = context! { people => people_context(people) };
        Ok(Push::inner(
            Selector::USERS_MINE,
            self.draw("_users_mine.html", context)?,
        ))
    }

    /// The people who are here, and how many `more` than these.
    pub fn users_online(&self, people: &[Person], more: usize) -> Result<Push> {
        let alone = people.len() < 2;
        let context = context! { people => people_context(people), alone, more };
        Ok(Push::inner(
            Selector::USERS_ONLINE,
            self.draw("_users_online.html", context)?,
        ))
    }

    /// The people that a search found, and whether there are `more`.
    pub fn users_found(&self, query: &str, people: &[Person], more: bool) -> Result<Push> {
        let context = context! { query, people => people_context(people), more };
        Ok(Push::inner(
            Selector::USERS_FOUND,
            self.draw("_users_found.html", context)?,
        ))
    }
}

fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_function("asset", |path: &str| {
        Static::address(path).ok_or_else(|| {
            let words = format!("there is no static file {path}");
            minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, words)
        })
    });
    let templates = Templates::iter().map(|name| (Templates::get(&name), name));
    let components = Components::iter().map(|name| (Components::get(&name), name));
    for (file, name) in templates.chain(components) {
        let text = file.map(|file| String::from_utf8_lossy(&file.data).into_owned());
        environment.add_template_owned(name.into_owned(), text.unwrap_or_default())?;
    }
    Ok(environment)
}

/// How a room is called: `#python`, or the other person's name.
#[must_use]
pub fn title(room: &Room) -> String {
    match &room.kind {
        RoomKind::Group(name) => format!("#{name}"),
        RoomKind::Private { with } => with.name.clone(),
    }
}

fn room_context(room: &Room) -> Value {
    let (kind, name, target) = match &room.kind {
        RoomKind::Group(name) => ("group", name, Target::Group(name.clone())),
        RoomKind::Private { with } => ("private", &with.name, Target::Private(with.name.clone())),
    };
    context! { kind, name, title => title(room), address => protocol::address(&target) }
}

/// One of the twelve colours of a user's face.
fn hue(user: UserId) -> i64 {
    user.0.rem_euclid(12)
}

fn initial(name: &str) -> String {
    name.chars()
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default()
}

fn user_context(user: &User) -> Value {
    context! { name => &user.name, hue => hue(user.id), initial => initial(&user.name) }
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

fn message_context(message: &Message) -> Value {
    let time_utc = message.created_at.to_rfc3339();
    context! {
        message => context! {
            id => message.id.0,
            user => &message.author.name,
            name => &message.author_name,
            initial => initial(&message.author_name),
            hue => hue(message.author.id),
            key => message.key.map(|key| key.to_string()),
            // Hours and minutes, for readers whose browser does not turn them into local time.
            time => &time_utc[11..16],
            time_utc => &time_utc,
            text => &message.text,
        }
    }
}

fn notice_context(text: &str, tone: Tone, key: Option<Uuid>) -> Value {
    context! { text, tone => Serde(&tone), key => key.map(|key| key.to_string()) }
}
