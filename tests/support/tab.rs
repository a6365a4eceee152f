//! A browser tab without a window: it speaks the wire and keeps a small page.
//!
//! Every push is checked against the contract: its shape, the places it may go to, versions that
//! only grow, messages in the order of their ids, and no id twice.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::page::{Element, Page, Shown};
use super::wire::{Event, Handshake, Wire};
use super::{Answer, Door, soon};

/// The places that pushes may go to, apart from `#message-<id>`, `#form-<id>` and
/// `#my-reaction-<id>-<code>`.
const PLACES: [&str; 39] = [
    "logged-user",
    "group-name",
    "messages-list",
    "messages-older",
    "notice",
    "connection",
    "room-count",
    "room-people",
    "room-welcome",
    "room-moves",
    "room-typing",
    "message-form",
    "my-reactions",
    "completions",
    "lobby",
    "lobby-rooms",
    "lobby-found",
    "rooms-found",
    "search-page",
    "search-results",
    "search-older",
    "groups-list",
    "name-form",
    "account",
    "new-group",
    "notification",
    "notifications",
    "users-mine",
    "room-menu",
    "messages-newer",
    "room-topic",
    "my-read",
    "users-online",
    "users-found",
    "moderation-groups",
    "moderation-people",
    "moderation-messages",
    "moderation-found",
    "moderation-log",
];
/// The same for a client of the original design.
const PLAIN_PLACES: [&str; 4] = ["logged-user", "group-name", "messages-list", "notice"];

/// A push.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    /// Without the `#`; `quotes-<id>` for the quotes of a message.
    pub(crate) place: String,
    pub(crate) html: String,
    pub(crate) swap: Option<String>,
    pub(crate) version: Option<String>,
    /// As it arrived.
    pub(crate) frame: String,
}

/// A browser tab without a window.
pub(crate) struct Tab {
    door: Door,
    plain: bool,
    pub(crate) page: Page,
    /// The address in the address bar.
    pub(crate) location: String,
    /// The token by which it is recognized.
    pub(crate) resume: Option<String>,
    /// The cookie of the session, if somebody has signed in with its browser.
    pub(crate) cookie: Option<String>,
    /// The cookie of its browser, from the first page.
    pub(crate) browser: Option<String>,
    wire: Option<Wire>,
    /// Everything that was pushed to it, over all sockets.
    pub(crate) pushes: Vec<Push>,
    /// Where the pushes of this socket, or of the current room, begin.
    versions_from: usize,
    closed: Option<Option<u16>>,
    pub(crate) receive_buffer: Option<u32>,
}

impl Tab {
    /// Loads the page; [`Tab::connects`] opens the socket.
    pub(crate) async fn load(door: Door, path: &str) -> Self {
        let answer = door.get(path).await;
        let mut tab = Self::new(door, false, Page::parse(&answer.body), path);
        tab.browser = answer.cookie("overwire-browser").map(str::to_owned);
        tab
    }

    pub(crate) fn plain(door: Door) -> Self {
        Self::new(door, true, Page::bare(), "")
    }

    fn new(door: Door, plain: bool, page: Page, path: &str) -> Self {
        Self {
            door,
            plain,
            page,
            location: path.to_owned(),
            resume: None,
            cookie: None,
            browser: None,
            wire: None,
            pushes: Vec::new(),
            versions_from: 0,
            closed: None,
            receive_buffer: None,
        }
    }

    // ---- the socket ----

    /// The cookies that its browser sends.
    pub(crate) fn cookies(&self) -> Option<String> {
        let cookies: Vec<_> = self.cookie.iter().chain(&self.browser).collect();
        let cookies = cookies.into_iter().map(String::as_str).collect::<Vec<_>>();
        (!cookies.is_empty()).then(|| cookies.join("; "))
    }

    /// Uploads a file for the room on show.
    pub(crate) async fn uploads(&self, name: &str, file: &[u8]) -> Answer {
        let room = self.room().expect("a room");
        self.uploads_to(&room, name, file).await
    }

    pub(crate) async fn uploads_to(&self, room: &str, name: &str, file: &[u8]) -> Answer {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let path = format!("/files/?room={}&name={}", encode(room), encode(name));
        let bearer = self.resume.as_ref().map(|token| format!("Bearer {token}"));
        let cookies = self.cookies();
        let headers = [("Authorization", bearer), ("Cookie", cookies)];
        let headers: Vec<_> = headers
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
            .collect();
        self.door.send_file(&path, &headers, file).await
    }

    /// Uploads a file that is taken, and returns its id.
    pub(crate) async fn attaches(&self, name: &str, file: &[u8]) -> String {
        let answer = self.uploads(name, file).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Requests an address with the cookies of its browser.
    pub(crate) async fn fetches(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let cookies = self.cookies().unwrap_or_default();
        let headers = [headers, &[("Cookie", &*cookies)]].concat();
        self.door.get_with(path, &headers).await
    }

    /// How this tab asks for a socket.
    pub(crate) fn handshake(&self) -> Handshake {
        let mut handshake = Handshake {
            receive_buffer: self.receive_buffer,
            ..Handshake::default()
        };
        if let Some(cookies) = self.cookies() {
            handshake.headers.push(("Cookie".to_owned(), cookies));
        }
        if self.plain {
            return handshake;
        }
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        handshake.query = format!("?at={}", encode(&self.location));
        if let Some(room) = self.room() {
            let after = self.version().unwrap_or_default();
            handshake.query += &format!("&room={}&after={}", encode(&room), encode(&after));
        }
        let mut offers = "overwire.v1".to_owned();
        if let Some(token) = &self.resume {
            offers += &format!(", resume.{token}");
        }
        handshake
            .headers
            .push(("Sec-WebSocket-Protocol".to_owned(), offers));
        let origin = format!("http://{}", self.door.0);
        handshake.headers.push(("Origin".to_owned(), origin));
        handshake
    }

    /// Opens the socket and waits until it knows its person and its room.
    pub(crate) async fn connects(&mut self) {
        let before = self.pushes.len();
        self.opens_socket().await;
        self.until("who and where I am", |tab| {
            let fresh = &tab.pushes[before..];
            let pushed = |place: &str| fresh.iter().any(|push| push.place == place);
            let shown = match tab.plain {
                true => pushed("messages-list"),
                false => {
                    let is_elsewhere =
                        tab.location == "/chat/" || tab.location.starts_with("/search/");
                    tab.room().is_some() || is_elsewhere
                }
            };
            pushed("logged-user") && pushed("group-name") && shown
        })
        .await;
    }

    /// Opens the socket without waiting.
    pub(crate) async fn opens_socket(&mut self) {
        self.opens_socket_with(&self.handshake()).await;
    }

    /// Opens the socket with another handshake.
    pub(crate) async fn opens_socket_with(&mut self, handshake: &Handshake) {
        let wire = self.door.socket(handshake).await;
        let wire = wire.unwrap_or_else(|status| panic!("the upgrade was answered {status}"));
        let expected = (!self.plain).then_some("overwire.v1");
        assert_eq!(wire.protocol.as_deref(), expected, "never the token");
        self.versions_from = self.pushes.len();
        self.closed = None;
        self.wire = Some(wire);
    }

    /// The connection is cut without a word.
    pub(crate) fn loses_the_network(&mut self) {
        self.wire = None;
    }

    /// The connection is cut, and it comes back with what it has.
    pub(crate) async fn reconnects(&mut self) {
        self.loses_the_network();
        self.connects().await;
    }

    /// The connection is cut, and it comes back to another node.
    pub(crate) async fn moves_to(&mut self, door: Door) {
        self.door = door;
        self.reconnects().await;
    }

    /// It leaves its socket, which stays open without the server's noticing.
    pub(crate) fn leaves_its_socket(&mut self) -> Wire {
        self.wire.take().expect("a socket")
    }

    /// Loads the page again, at its current address.
    pub(crate) async fn reloads(&mut self) {
        self.loses_the_network();
        let answer = self.door.get(&self.location).await;
        self.page = Page::parse(&answer.body);
        self.connects().await;
    }

    /// Closes the tab.
    pub(crate) async fn closes(mut self) {
        self.wire().close();
        self.is_closed().await;
    }

    /// It stops reading, and so answers no pings, until it starts again.
    pub(crate) fn goes_deaf(&self, deaf: bool) {
        self.wire.as_ref().expect("a socket").deaf(deaf);
    }

    /// Reconnects with a small receive buffer and stops reading, so that the server soon cannot
    /// send.
    pub(crate) async fn stops_reading(&mut self) {
        self.loses_the_network();
        self.receive_buffer = Some(4_096);
        self.connects().await;
        self.goes_deaf(true);
    }

    /// Waits until the server has closed the socket. Returns the close code.
    pub(crate) async fn is_closed(&mut self) -> Option<u16> {
        self.until("the end of the socket", |tab| tab.closed.is_some())
            .await;
        self.closed.flatten()
    }

    /// Whether the server has closed the socket.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.closed.is_some()
    }

    pub(crate) fn wire(&mut self) -> &mut Wire {
        self.wire.as_mut().expect("a socket")
    }

    // ---- what it does ----

    /// Sends an action.
    pub(crate) fn sends(&mut self, action: &str, data: Value) {
        let text = json!({ "action": action, "data": data }).to_string();
        self.wire().text(text);
    }

    /// Writes a message and waits until it is settled.
    pub(crate) async fn says(&mut self, text: &str) {
        if self.plain {
            self.sends("New message", json!({ "message": text }));
            return self.sees(text).await;
        }
        let (key, room) = (self.writes(text), self.room());
        self.is_settled(&key).await;
        // The key may be settled before the list shows the message.
        if !text.starts_with('/') {
            self.until("one's own message in the list", |tab| {
                let list = tab.page.get("messages-list").into_iter();
                let mut shown = list.flat_map(Element::all);
                tab.room() != room || shown.any(|one| one.attribute("data-key") == Some(&key))
            })
            .await;
        }
    }

    /// Writes a message in the current room, without waiting. Returns its key.
    pub(crate) fn writes(&mut self, text: &str) -> String {
        let key = Uuid::new_v4().to_string();
        let room = self.room();
        let data = json!({ "message": text, "room": room, "key": key });
        self.sends("New message", data);
        key
    }

    /// Waits until a push settles that key.
    pub(crate) async fn is_settled(&mut self, key: &str) {
        let marks = ['"', '\''].map(|quote| format!("data-key={quote}{key}{quote}"));
        let settles = |html: &str| marks.iter().any(|mark| html.contains(mark));
        self.until(&format!("the fate of {key}"), |tab| {
            tab.pushes.iter().any(|push| settles(&push.html))
        })
        .await;
    }

    /// Clicks on a group.
    pub(crate) async fn enters_group(&mut self, name: &str) {
        let data = json!({ "groupName": name, "isGroup": true });
        self.changes_group(data).await;
        assert_eq!(self.title(), format!("#{name}"));
    }

    /// The names of the groups in a list.
    pub(crate) fn groups_in(&self, place: &str) -> Vec<String> {
        let links = self.page.the(place).with("data-group-name");
        let names = links.filter_map(|link| link.attribute("data-group-name"));
        names.map(str::to_owned).collect()
    }

    /// Clicks on a person.
    pub(crate) async fn opens_private(&mut self, name: &str) {
        let data = json!({ "groupName": name, "isGroup": false });
        self.changes_group(data).await;
        assert_eq!(self.title(), name);
    }

    async fn changes_group(&mut self, data: Value) {
        let before = self.pushes.len();
        self.sends("Change group", data);
        self.until("the room", |tab| {
            let mut fresh = tab.pushes[before..].iter();
            let entered = fresh.any(|push| push.place == "group-name");
            entered && fresh.any(|push| push.place == "messages-list")
        })
        .await;
    }

    /// Scrolls up to the first message. Returns the number of messages loaded.
    pub(crate) async fn asks_for_older(&mut self) -> usize {
        let before = self.messages();
        let mark = self.pushes.len();
        let data = json!({ "before": before[0].id, "room": self.room() });
        self.sends("Older messages", data);
        self.until("older messages", |tab| {
            tab.pushes[mark..]
                .iter()
                .any(|push| push.swap.as_deref() == Some("prepend"))
        })
        .await;
        self.messages().len() - before.len()
    }

    /// Does something and is refused. Returns the reason.
    pub(crate) async fn is_refused(&mut self, action: &str, data: Value) -> String {
        self.is_refused_frame(&json!({ "action": action, "data": data }).to_string())
            .await
    }

    /// Sends a frame and is refused. Returns the reason.
    pub(crate) async fn is_refused_frame(&mut self, frame: &str) -> String {
        let before = self.pushes.len();
        self.wire().text(frame);
        self.gets_notice_since(before).await
    }

    /// Waits for a notice among the pushes from that one on.
    pub(crate) async fn gets_notice_since(&mut self, before: usize) -> String {
        self.until("a notice", |tab| {
            let fresh = &tab.pushes[before..];
            fresh.iter().any(|push| push.place == "notice")
        })
        .await;
        self.notice()
    }

    /// Waits until everything that was on its way has arrived.
    pub(crate) async fn hears_all(&mut self) {
        let before = self.pushes.len();
        // A plain tab gets no answer to `Ping`, but it gets refusals.
        let (action, place) = match self.plain {
            true => ("Is anybody there?", "notice"),
            false => ("Ping", "connection"),
        };
        self.sends(action, json!({}));
        self.until("an answer", |tab| {
            tab.pushes[before..].iter().any(|push| push.place == place)
        })
        .await;
    }

    // ---- what it sees ----

    /// Waits until a message with that text is on show.
    pub(crate) async fn sees(&mut self, text: &str) {
        self.until(&format!("“{text}”"), |tab| {
            tab.messages().iter().any(|message| message.text == text)
        })
        .await;
    }

    /// Waits until exactly these texts are on show.
    pub(crate) async fn sees_exactly(&mut self, texts: &[&str]) {
        self.until(&format!("{texts:?} and nothing else"), |tab| {
            tab.texts() == texts
        })
        .await;
    }

    /// Waits until a condition holds.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl FnMut(&Self) -> bool) {
        self.until_within(super::DEADLINE, what, is_so).await;
    }

    /// The same with a deadline of its own.
    pub(crate) async fn until_within(
        &mut self,
        deadline: Duration,
        what: &str,
        mut is_so: impl FnMut(&Self) -> bool,
    ) {
        let waiting = async {
            self.catches_up();
            while !is_so(self) {
                let Some(wire) = &mut self.wire else {
                    panic!("no socket is left to wait for {what} on");
                };
                let event = wire.next().await;
                self.take(event);
                // A long page takes long to change, and the server runs on this thread too: without a turn for
                // five seconds, PostgreSQL ends its transactions.
                tokio::task::yield_now().await;
            }
        };
        let done = tokio::time::timeout(deadline, waiting).await;
        if done.is_err() {
            panic!(
                "{} waited in vain for {what}: {}",
                self.name(),
                self.sight()
            );
        }
    }

    /// Takes what has already arrived.
    pub(crate) fn catches_up(&mut self) {
        while let Some(event) = self.wire.as_mut().and_then(Wire::already) {
            self.take(event);
        }
    }

    /// My user name.
    pub(crate) fn name(&self) -> String {
        let place = self.page.the("logged-user");
        if self.plain {
            return place.text();
        }
        let name = place.with("data-user").next();
        name.and_then(|me| me.attribute("data-user"))
            .unwrap_or("nobody")
            .to_owned()
    }

    /// The heading of the room.
    pub(crate) fn title(&self) -> String {
        self.page.the("group-name").text().trim().to_owned()
    }

    /// The text of the notice, if there is one.
    pub(crate) fn notice(&self) -> String {
        let place = self.page.the("notice");
        let mut texts = place.all().filter(|part| part.has_class("notice__text"));
        texts.next().map(Element::text).unwrap_or_default()
    }

    /// The id of the room on show.
    pub(crate) fn room(&self) -> Option<String> {
        self.of_list("data-room")
    }

    /// The version on show.
    pub(crate) fn version(&self) -> Option<String> {
        self.of_list("data-version")
    }

    fn of_list(&self, attribute: &str) -> Option<String> {
        let value = self.page.the("messages-list").attribute(attribute)?;
        (!value.is_empty()).then(|| value.to_owned())
    }

    pub(crate) fn messages(&self) -> Vec<Shown> {
        self.page.messages()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        let messages = self.messages().into_iter();
        messages.map(|message| message.text).collect()
    }

    /// The people in a list (`users-mine`, `users-online`, `users-found`), from the top.
    pub(crate) fn people(&self, list: &str) -> Vec<String> {
        self.persons(list)
            .filter_map(|person| person.attribute("data-user"))
            .map(str::to_owned)
            .collect()
    }

    fn persons<'a>(&'a self, list: &str) -> impl Iterator<Item = &'a Element> {
        let list = self.page.get(list).into_iter();
        list.flat_map(Element::all)
            .filter(|element| element.name == "li")
    }

    /// How many messages of that person are unread, according to the sidebar.
    pub(crate) fn unread_from(&self, name: &str) -> u32 {
        let mut mine = self.persons("users-mine");
        mine.find(|person| person.attribute("data-user") == Some(name))
            .and_then(|person| person.attribute("data-unread"))
            .map_or(0, |unread| unread.parse().unwrap())
    }

    /// Whether the sidebar shows that person as online.
    pub(crate) fn is_here(&self, name: &str) -> bool {
        let mut mine = self.persons("users-mine");
        mine.find(|person| person.attribute("data-user") == Some(name))
            .is_some_and(|person| person.all().any(|part| part.has_class("here")))
    }

    /// The pushes to a place, from that one on.
    pub(crate) fn pushes_to(&self, place: &str, from: usize) -> Vec<&Push> {
        let pushes = self.pushes[from..].iter();
        pushes.filter(|push| push.place == place).collect()
    }

    fn sight(&self) -> String {
        format!(
            "in {} at {:?}, notice {:?}, closed {:?}, it sees {:#?}; last pushes {:#?}",
            self.title(),
            self.version(),
            self.notice(),
            self.closed,
            self.texts(),
            self.pushes.iter().rev().take(5).collect::<Vec<_>>(),
        )
    }

    // ---- what comes ----

    fn take(&mut self, event: Event) {
        match event {
            Event::Text(frame) => {
                let push = self.read(&frame);
                self.place(push);
            }
            Event::Other(frame) => panic!("only text frames pass, not {frame}"),
            Event::Closed(code) => {
                assert!(self.closed.is_none(), "the socket ended: {}", self.sight());
                self.closed = Some(code);
            }
        }
    }

    fn read(&self, frame: &str) -> Push {
        let known: &[&str] = match self.plain {
            true => &["selector", "html"],
            false => &["selector", "html", "swap", "version"],
        };
        let push: Value = serde_json::from_str(frame).expect("JSON");
        let push = push.as_object().expect("an object");
        for (key, value) in push {
            assert!(known.contains(&key.as_str()), "no such key: {frame}");
            assert!(value.is_string(), "only texts: {frame}");
        }
        let text = |key: &str| push.get(key).and_then(Value::as_str).map(str::to_owned);
        let selector = text("selector").expect("a selector");
        let place = match selector.strip_prefix("[data-quotes=\"") {
            Some(rest) => format!("quotes-{}", rest.strip_suffix("\"]").expect("an id")),
            None => selector.strip_prefix('#').expect("an id").to_owned(),
        };
        let place = place.as_str();
        let is_message = place
            .strip_prefix("message-")
            .is_some_and(|id| id.parse::<i64>().is_ok());
        let single = ["my-reaction-", "form-", "news-", "quotes-"];
        let is_single = single.iter().any(|one| place.starts_with(one));
        let promised = match self.plain {
            true => PLAIN_PLACES.contains(&place),
            false => PLACES.contains(&place) || is_message || is_single,
        };
        assert!(promised, "nothing is pushed there: {frame}");
        let html = text("html").expect("html");
        let has_controls = ["<button", "<form", "data-action"]
            .iter()
            .any(|part| html.contains(part));
        assert!(
            !(self.plain && has_controls),
            "a plain page cannot work that: {frame}"
        );
        Push {
            place: place.to_owned(),
            html,
            swap: text("swap"),
            version: text("version"),
            frame: frame.to_owned(),
        }
    }

    fn place(&mut self, push: Push) {
        let there = match push.place.strip_prefix("quotes-") {
            Some(id) => self.page.put_into_all("data-quotes", id, &push.html),
            None => self.page.put(&push.place, push.swap.as_deref(), &push.html),
        };
        let may_be_missing = ["message-", "form-", "my-reaction-", "news-", "quotes-"];
        let may_be_missing = may_be_missing.iter().any(|one| push.place.starts_with(one));
        assert!(there || may_be_missing, "{push:?}");
        if push.swap.as_deref() == Some("remove") {
            assert_eq!(push.html, "", "{push:?}");
        }
        if push.place == "group-name" {
            self.versions_from = self.pushes.len();
            let mut titles = self.page.the("group-name").with("data-address");
            let address = titles.next().and_then(|it| it.attribute("data-address"));
            self.location = address.expect("an address").to_owned();
        }
        if let Some(version) = &push.version {
            self.goes_on(version, push.swap.as_deref() == Some("outer"));
            self.page.set("messages-list", "data-version", version);
        }
        if push.place == "logged-user" && !self.plain {
            let mut tokens = self.page.the("logged-user").with("data-resume");
            let token = tokens.next().and_then(|me| me.attribute("data-resume"));
            self.resume = Some(token.expect("a resume token").to_owned());
        }
        self.pushes.push(push);
        let messages = self.messages();
        assert!(
            messages.windows(2).all(|pair| pair[0].id < pair[1].id),
            "each once and in the order of the ids: {messages:#?}"
        );
        assert_eq!(self.page.doubled_ids(), [""; 0], "{}", self.sight());
    }

    /// The versions of a room only grow, unless a whole page has another history.
    fn goes_on(&self, version: &str, is_whole: bool) {
        let split = |version: &str| {
            let (of_room, number) = version.split_once('.').expect("two parts");
            (of_room.to_owned(), number.parse::<u64>().expect("a number"))
        };
        let (of_room, number) = split(version);
        let mut before = self.pushes[self.versions_from..].iter().rev();
        if let Some(last) = before.find_map(|push| push.version.as_deref()) {
            let (of_last, last) = split(last);
            let is_other = of_room != of_last;
            let grows = number > last || (is_whole && (number == last || is_other));
            assert!(grows, "{last} and then {number}: {}", self.sight());
        }
    }
}

/// Waits until all of these are done, in any order.
pub(crate) async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    soon("all of them", futures_util::future::join_all(futures)).await
}
