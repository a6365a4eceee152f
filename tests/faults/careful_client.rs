//! A client that keeps what it sends until it is settled, as the rules in docs/PROTOCOL.md say. It is
//! written from those rules alone and shares no code with the other clients of the tests. During an
//! outage of the database it loses no text and sends none twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overwire::chat::{Chat, Limits, Welcome};
use overwire::relay::InProcess;
use overwire::socket;
use overwire::store::{self, Synchronous};
use overwire::views::Views;
use overwire::web::{self, Access, Web};
use rusqlite::Connection;
use scraper::{Html, Selector};
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::failing_store::{BROKEN, FINE, Failing, MUTE, TOGETHER};
use crate::support::parts::populate;
use crate::support::soon;
use crate::support::wire::{Event, Handshake, Wire};

/// Its clock goes a hundred times as fast as the rules say.
const RESEND_AFTER: Duration = Duration::from_millis(50);
const MOST_ON_ARRIVAL: usize = 99;
const MOST: usize = 9;

/// A text that is not settled.
struct Kept {
    text: String,
    room: String,
    user: String,
    sent: Option<Instant>,
}

struct Careful {
    address: SocketAddr,
    wire: Option<Wire>,
    clock: Interval,
    user: String,
    token: Option<String>,
    room: Option<String>,
    version: String,
    /// Whether this socket has pushed who and where it is.
    arrived: [bool; 2],
    kept: BTreeMap<String, Kept>,
    given_back: Vec<(String, String)>,
    /// How many notices of each tone it has been shown.
    tones: BTreeMap<String, usize>,
    /// How many sockets were closed before it had arrived.
    turned_away: usize,
}

/// The value of an attribute of each element that has it, with the element's tone and text.
fn with(html: &str, attribute: &str) -> Vec<(String, Option<String>, String)> {
    let html = Html::parse_fragment(html);
    let elements = Selector::parse(&format!("[{attribute}]")).unwrap();
    let elements = html.select(&elements);
    elements
        .map(|element| {
            let value = element.attr(attribute).unwrap().to_owned();
            let tone = element.attr("data-tone").map(str::to_owned);
            (value, tone, element.text().collect())
        })
        .collect()
}

fn value(html: &str, attribute: &str) -> Option<String> {
    with(html, attribute)
        .into_iter()
        .next()
        .map(|(value, ..)| value)
}

impl Careful {
    fn new(address: SocketAddr) -> Self {
        let mut clock = interval(RESEND_AFTER);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            address,
            wire: None,
            clock,
            user: String::new(),
            token: None,
            room: None,
            version: String::new(),
            arrived: [false; 2],
            kept: BTreeMap::new(),
            given_back: Vec::new(),
            tones: BTreeMap::new(),
            turned_away: 0,
        }
    }

    /// Rule 1.
    fn writes(&mut self, text: &str) {
        let kept = Kept {
            text: text.to_owned(),
            room: self.room.clone().unwrap(),
            user: self.user.clone(),
            sent: None,
        };
        self.kept.insert(Uuid::new_v4().to_string(), kept);
        self.sends(MOST_ON_ARRIVAL, |kept| kept.sent.is_none());
    }

    /// Lives until a condition holds.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        soon(what, async {
            while !is_so(self) {
                let Some(wire) = &mut self.wire else {
                    self.clock.tick().await;
                    self.connects().await;
                    continue;
                };
                tokio::select! {
                    event = wire.next() => self.takes(event),
                    _ = self.clock.tick() => self.sends(MOST, |kept| {
                        kept.sent.is_none_or(|sent| sent.elapsed() >= RESEND_AFTER)
                    }),
                }
            }
        })
        .await;
    }

    async fn connects(&mut self) {
        let mut offers = "overwire.v1".to_owned();
        if let Some(token) = &self.token {
            offers += &format!(", resume.{token}");
        }
        let room = self.room.iter();
        let handshake = Handshake {
            query: room
                .map(|room| format!("?room={room}&after={}", self.version))
                .collect(),
            headers: vec![("Sec-WebSocket-Protocol".to_owned(), offers)],
            ..Handshake::default()
        };
        self.arrived = [false; 2];
        self.wire = Wire::attempt(self.address, &handshake).await.ok();
    }

    fn is_here(&self) -> bool {
        self.arrived == [true; 2]
    }

    /// Rules 3 and 4.
    fn sends(&mut self, most: usize, is_due: impl Fn(&Kept) -> bool) {
        let Some(wire) = self.wire.as_ref().filter(|_| self.is_here()) else {
            return;
        };
        let somebody_else = self.kept.extract_if(.., |_, kept| kept.user != self.user);
        let given_back = somebody_else.map(|(_, kept)| (kept.text, "perhaps sent".to_owned()));
        self.given_back.extend(given_back);
        let due = self.kept.iter_mut().filter(|(_, kept)| is_due(kept));
        for (key, kept) in due.take(most) {
            kept.sent = Some(Instant::now());
            let data = json!({ "message": kept.text, "room": kept.room, "key": key });
            wire.text(json!({ "action": "New message", "data": data }).to_string());
        }
    }

    fn takes(&mut self, event: Event) {
        let push = match event {
            Event::Text(push) => push,
            Event::Closed(_) => {
                self.turned_away += usize::from(!self.is_here());
                self.wire = None;
                return;
            }
            Event::Other(other) => panic!("{other}"),
        };
        let push: Value = serde_json::from_str(&push).unwrap();
        let [selector, html] = ["selector", "html"].map(|key| push[key].as_str().unwrap());
        let was_here = self.is_here();
        match selector {
            "#logged-user" => {
                self.user = value(html, "data-user").unwrap();
                self.token = value(html, "data-resume");
                self.arrived[0] = true;
            }
            // It is not sent again to a tab that has missed nothing, but the heading is.
            "#group-name" => self.arrived[1] = true,
            "#messages-list" => self.room = value(html, "data-room").or(self.room.take()),
            "#notice" => {
                for (tone, ..) in with(html, "data-tone") {
                    *self.tones.entry(tone).or_default() += 1;
                }
            }
            _ => {}
        }
        if let Some(version) = push["version"].as_str() {
            self.version = version.to_owned();
        }
        self.settles(html);
        if self.is_here() && !was_here {
            self.sends(MOST_ON_ARRIVAL, |_| true);
        }
    }

    /// Rule 2.
    fn settles(&mut self, html: &str) {
        for (key, tone, text) in with(html, "data-key") {
            if tone.as_deref() == Some("wait") {
                continue;
            }
            if let Some(kept) = self.kept.remove(&key)
                && tone.is_some()
            {
                self.given_back.push((kept.text, text));
            }
        }
    }

    fn tone(&self, tone: &str) -> usize {
        self.tones.get(tone).copied().unwrap_or_default()
    }
}

struct Place {
    _folder: tempfile::TempDir,
    file: PathBuf,
    faults: Arc<Failing>,
    anna: Careful,
}

/// A server whose store fails on request, and a client.
async fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let store = store::open(
        file.to_str().unwrap(),
        Synchronous::Normal,
        store::Access::Server,
    );
    let store = store.await.unwrap();
    populate(&store, 3).await;
    let faults = Arc::new(Failing::default());
    let store = store.with_faults(Arc::clone(&faults) as _).unwrap();
    // So low that everything sent again after the outage exceeds it.
    let limits = Limits {
        pace_burst: 20,
        pace_per_second: Some(100),
        ..Limits::default()
    };
    let views = Arc::new(Views::new().unwrap());
    let relay = Arc::new(InProcess::default());
    let chat = Chat::start(store, relay, views, limits, Welcome::default());
    let web = Web::new(
        chat.await.unwrap(),
        Access::default(),
        socket::Limits::default(),
    );
    let listener = web::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let anna = Careful::new(listener.local_addr().unwrap());
    tokio::spawn(async move {
        web::serve(listener, &web, std::future::pending(), Duration::ZERO).await;
    });
    Place {
        _folder: folder,
        file,
        faults,
        anna,
    }
}

#[tokio::test]
async fn a_client_that_follows_the_rules_loses_and_doubles_nothing_in_an_outage() {
    let Place {
        _folder,
        file,
        faults,
        mut anna,
    } = place().await;

    let mut written = Vec::new();
    let mut writes = |anna: &mut Careful, count: usize| {
        for _ in 0..count {
            let text = format!("text {}", written.len());
            anna.writes(&text);
            written.push(text);
        }
    };
    anna.until("arriving", Careful::is_here).await;
    anna.until("a room", |anna| anna.room.is_some()).await;
    let user = anna.user.clone();
    writes(&mut anna, 5);
    anna.writes(" ");
    anna.until("all of it", |anna| anna.kept.is_empty()).await;

    faults.is(BROKEN);
    writes(&mut anna, 15);
    anna.until("a failure", |anna| anna.tone("trouble") > 0)
        .await;
    faults.is(MUTE);
    writes(&mut anna, 60);
    anna.until("a stored text", |anna| anna.kept.len() < 75)
        .await;
    // The answers to what is stored now are lost with the socket.
    anna.wire = None;
    faults.is(BROKEN);
    anna.until("being turned away", |anna| anna.turned_away > 1)
        .await;
    faults.is(FINE);
    anna.until("all of it", |anna| anna.kept.is_empty()).await;

    assert_eq!(anna.user, user);
    let empty = ("The message is empty.", " ");
    let [(text, reason)] = &anna.given_back[..] else {
        panic!("{:?}", anna.given_back);
    };
    assert_eq!((reason.contains(empty.0), &**text), (true, empty.1));
    assert!(anna.tone("wait") > 0, "{:?}", anna.tones);
    let db = Connection::open(&file).unwrap();
    let mut query = db.prepare("select text from messages").unwrap();
    let stored = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let mut stored: Vec<_> = stored.map(Result::unwrap).collect();
    stored.sort();
    written.sort();
    assert_eq!(stored, written);
}

#[tokio::test]
async fn messages_of_one_client_do_not_wait_for_each_other() {
    let Place {
        _folder,
        file,
        faults,
        mut anna,
    } = place().await;
    anna.until("a room", |anna| anna.room.is_some()).await;
    faults.is(TOGETHER);
    anna.writes("one");
    anna.writes("two");
    anna.until("both of them", |anna| anna.kept.is_empty())
        .await;
    let db = Connection::open(&file).unwrap();
    let mut query = db
        .prepare("select text from messages order by text")
        .unwrap();
    let stored = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let stored: Vec<_> = stored.map(Result::unwrap).collect();
    assert_eq!(stored, ["one", "two"]);
}
