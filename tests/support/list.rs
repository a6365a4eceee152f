//! What a tab shows of its room and what it has sent: only as much of a page as order needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use overwire::protocol::{Dialect, Hello, SUBPROTOCOL};
use serde_json::{Value, json};
use uuid::Uuid;

use super::wire::Handshake;

/// A message that is not settled yet: its room, and its text.
type Sent = (Option<String>, String);

/// A tab's list of messages, its room and its memory.
pub(crate) struct List {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) room: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) resume: Option<String>,
    pub(crate) ids: Vec<i64>,
    pub(crate) notices: Vec<String>,
    /// Every message it was ever shown, with its last fragment.
    pub(crate) saw: HashMap<i64, String>,
    pub(crate) unsettled: BTreeMap<Uuid, Sent>,
    /// What has arrived of a catch-up whose last push has not. Only this may arrive again.
    unfinished: BTreeSet<i64>,
    plain: bool,
}

/// The values of an attribute, each up to its quotation mark of either kind.
fn values<'a>(html: &'a str, attribute: &'a str) -> impl Iterator<Item = &'a str> {
    let values = html.split(attribute).skip(1);
    values.filter_map(|rest| rest.strip_prefix('=')?[1..].split(['"', '\'']).next())
}

/// The ids of messages.
fn ids(html: &str) -> impl Iterator<Item = i64> {
    let ids = values(html, " id").filter_map(|id| id.strip_prefix("message-"));
    ids.map(|id| id.parse().unwrap())
}

fn number(version: &str) -> u64 {
    version.rsplit('.').next().unwrap().parse().unwrap()
}

fn text_of(article: &str) -> &str {
    let (_, text) = article
        .split_once("<p>")
        // In the plain dialect.
        .or_else(|| article.split_once("<p class=\"message__text\">"))
        .unwrap();
    text.split_once("</p>").unwrap().0
}

impl List {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            name: String::new(),
            title: String::new(),
            room: None,
            version: None,
            resume: None,
            ids: Vec::new(),
            notices: Vec::new(),
            saw: HashMap::new(),
            unsettled: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            plain: dialect == Dialect::Plain,
        }
    }

    /// The query and the subprotocols that say what it has.
    pub(crate) fn handshake(&self) -> (String, String) {
        let query = match (&self.room, &self.version) {
            (Some(room), Some(version)) => format!("room={room}&after={version}"),
            _ => "at=/chat/hi/".to_owned(),
        };
        let offers = match &self.resume {
            Some(token) => format!("{SUBPROTOCOL}, resume.{token}"),
            None => SUBPROTOCOL.to_owned(),
        };
        (query, offers)
    }

    /// The same for a real socket.
    pub(crate) fn socket_handshake(&self) -> Handshake {
        let (query, offers) = self.handshake();
        Handshake {
            query: format!("?{query}"),
            headers: vec![("Sec-WebSocket-Protocol".to_owned(), offers)],
            ..Handshake::default()
        }
    }

    pub(crate) fn hello(&self) -> Hello {
        let (query, offers) = self.handshake();
        match self.plain {
            true => Hello::read(std::iter::empty(), ""),
            false => Hello::read(std::iter::once(offers.as_str()), &query),
        }
    }

    /// A new message for the current room.
    pub(crate) fn write(&mut self, text: String) -> String {
        if self.plain {
            return json!({ "action": "New message", "data": { "message": text } }).to_string();
        }
        self.write_in(self.room.clone(), text)
    }

    /// A new message for some room.
    pub(crate) fn write_in(&mut self, room: Option<String>, text: String) -> String {
        let key = Uuid::new_v4();
        let sent = (room, text);
        let action = Self::send(key, &sent);
        self.unsettled.insert(key, sent);
        action
    }

    /// All unsettled messages once more.
    pub(crate) fn again(&self) -> Vec<String> {
        let unsettled = self.unsettled.iter();
        unsettled
            .map(|(key, sent)| Self::send(*key, sent))
            .collect()
    }

    fn send(key: Uuid, (room, text): &Sent) -> String {
        let data = json!({ "message": text, "room": room, "key": key.to_string() });
        json!({ "action": "New message", "data": data }).to_string()
    }

    pub(crate) fn enter(name: &str) -> String {
        let data = json!({ "groupName": name, "isGroup": true });
        json!({ "action": "Change group", "data": data }).to_string()
    }

    /// Applies a push as far as it concerns the list, and checks it against the contract.
    pub(crate) fn take(&mut self, push: &str) {
        let push: Value = serde_json::from_str(push).unwrap();
        let text = |key: &str| push.get(key).and_then(Value::as_str);
        let (selector, html, swap) = (
            text("selector").unwrap(),
            text("html").unwrap(),
            text("swap"),
        );
        for key in values(html, "data-key") {
            self.unsettled.remove(&key.parse().unwrap());
        }
        match selector {
            "#logged-user" => {
                let name = match self.plain {
                    true => Some(html),
                    false => values(html, "data-user").next(),
                };
                self.name = name.unwrap().to_owned();
                self.resume = values(html, "data-resume").next().map(str::to_owned);
            }
            "#group-name" => {
                let address = values(html, "data-address").next().unwrap();
                self.title = address.replace("&#x2f;", "/");
            }
            "#notice" => self.notices.push(html.to_owned()),
            _ => {}
        }
        let changed = selector.strip_prefix("#message-");
        let changed = changed.and_then(|id| id.parse::<i64>().ok());
        // A push for another room matches nothing.
        if changed.is_some_and(|id| self.ids.contains(&id)) || selector == "#messages-list" {
            for (id, article) in ids(html).zip(html.split("<article").skip(1)) {
                let article = article.split("</article>").next().unwrap();
                self.saw.insert(id, article.to_owned());
            }
        }
        if changed.is_some() {
            assert_eq!(swap, Some("outer"));
            if let Some(version) = text("version") {
                self.advance(version);
            }
            return;
        }
        if selector != "#messages-list" {
            return;
        }
        let listed: Vec<i64> = ids(html).collect();
        match swap {
            // The whole newest page.
            Some("outer") => {
                let room = values(html, "data-room").next().unwrap();
                let version = values(html, "data-version").next().unwrap();
                assert_eq!(text("version"), Some(version));
                if self.room.as_deref() == Some(room)
                    && let Some(had) = &self.version
                {
                    assert!(number(had) <= number(version), "{had} and then {version}");
                }
                self.unfinished.clear();
                self.room = Some(room.to_owned());
                self.version = Some(version.to_owned());
                self.ids = listed;
            }
            None => {
                assert!(
                    self.plain,
                    "only a plain tab's list has its inside replaced"
                );
                self.ids = listed;
            }
            Some("append") => {
                let [id] = listed[..] else {
                    panic!("one message at a time: {listed:?}");
                };
                if !self.unfinished.contains(&id) {
                    let goes_on = self.ids.last().is_none_or(|last| *last < id);
                    assert!(goes_on, "{id} after {:?}", self.ids);
                    self.ids.push(id);
                }
                match text("version") {
                    Some(version) => self.advance(version),
                    None => {
                        self.unfinished.insert(id);
                    }
                }
            }
            Some("prepend") => {
                assert!(listed.last() < self.ids.first() || self.ids.is_empty());
                self.ids.splice(0..0, listed);
            }
            other => panic!("{other:?}"),
        }
    }

    fn advance(&mut self, version: &str) {
        let had = self.version.replace(version.to_owned()).unwrap();
        assert!(number(&had) < number(version), "{had} and then {version}");
        self.unfinished.clear();
    }

    /// One's own messages that are on show and can be changed, with their texts.
    pub(crate) fn own(&self) -> Vec<(i64, &str)> {
        let mine = |article| values(article, "data-user").next() == Some(&self.name);
        let shown = self.ids.iter().map(|id| (*id, self.saw[id].as_str()));
        shown
            .filter(|(_, article)| mine(article))
            .map(|(id, article)| (id, text_of(article)))
            .collect()
    }

    /// The key under which a message was sent that it has shown.
    pub(crate) fn key(&self, id: i64) -> Uuid {
        let key = values(&self.saw[&id], "data-key").next();
        key.unwrap().parse().unwrap()
    }

    /// Whether it shows that text for a message, or that it was deleted if there is none.
    pub(crate) fn shows(&self, id: i64, text: Option<&str>) -> bool {
        let shown = text_of(&self.saw[&id]);
        match text {
            Some(text) => shown == text,
            None => shown.ends_with("deleted a message."),
        }
    }

    /// The reactions it shows for a message: the code points of each emoji, and the count.
    pub(crate) fn reactions(&self, id: i64) -> Vec<(String, u64)> {
        let chips = self.saw[&id].split(" id=").skip(1);
        let chips = chips.filter_map(|chip| {
            let (of, rest) = chip[1..]
                .strip_prefix("reaction-")?
                .split_once(['"', '\''])?;
            let label = rest.split_once('>').unwrap().1.split('<').next().unwrap();
            let count = label.rsplit(' ').next().unwrap();
            let (_, code) = of.split_once('-').unwrap();
            Some((code.to_owned(), count.parse().unwrap()))
        });
        chips.collect()
    }

    /// Whether it shows the end of that room without a gap.
    pub(crate) fn is_end_of(&self, room: &[i64]) -> bool {
        room.ends_with(&self.ids) && self.ids.is_empty() == room.is_empty()
    }
}
