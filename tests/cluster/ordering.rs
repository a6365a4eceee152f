//! Many writers, several rooms, and tabs that connect, leave and read slowly, on one node and on
//! two. News between the nodes is lost, duplicated and shuffled; they share a store or have one each
//! on the same database. At the end every tab shows what is stored, in order, and has never been
//! given a version twice.
//!
//! The seed decides what the tabs do, but not who is faster.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use overwire::chat::{Chat, Client};
use overwire::model::{GroupName, Message, NodeId, Version};
use overwire::protocol::{Dialect, Frame, Hello};
use overwire::relay::redis::RedisRelay;
use overwire::relay::{Envelope, Heard, InProcess, News, Relay, State, To};
use overwire::store::{self, Access, Store, Synchronous};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::support::list::List;
use crate::support::parts::{populate, start_chat};
use crate::support::postgres::Database;
use crate::support::redis::Redis;

const GROUPS: [&str; 3] = ["hi", "python", "events"];
const EMOJIS: [&str; 3] = ["👍", "❤️", "🎉"];
const TABS: u64 = 12;
const STEPS: usize = 70;
/// Far longer than the interval at which rooms are compared.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tab_ends_with_what_is_stored_on_one_node() {
    for seed in 1..=4 {
        story(seed, on_a_file(1, Arc::new(InProcess::default())).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tab_ends_with_what_is_stored_on_two_nodes() {
    for seed in 11..=13 {
        story(seed, on_a_file(2, Arc::new(InProcess::default())).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tab_ends_with_what_is_stored_if_news_is_lost_duplicated_and_shuffled() {
    for seed in 21..=24 {
        story(seed, on_a_file(2, Arc::new(Shaky::new(seed))).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tab_ends_with_what_is_stored_if_nodes_receive_no_news() {
    struct Deaf(InProcess);
    #[async_trait]
    impl Relay for Deaf {
        fn announce(&self, _: Envelope) {}
        fn state(&self) -> State {
            self.0.state()
        }
        fn has_others(&self, node: NodeId) -> bool {
            self.0.has_others(node)
        }
        async fn listen(&self, node: NodeId) -> mpsc::Receiver<Heard> {
            self.0.listen(node).await
        }
        fn follow(&self, _: NodeId, _: To) {}
        fn keep(&self, _: NodeId, _: &dyn Fn(To) -> bool) {}
        async fn close(&self) {}
    }
    story(31, on_a_file(2, Arc::new(Deaf(InProcess::default()))).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tab_ends_with_what_is_stored_if_each_node_has_its_own_store() {
    for seed in 41..=42 {
        let shaky: Arc<dyn Relay> = Arc::new(Shaky::new(seed));
        let database = Database::fresh().await;
        story(seed, on_a_database(&database, [shaky.clone(), shaky]).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tab_ends_with_what_is_stored_with_redis_between_two_stores() {
    for seed in 51..=52 {
        let database = Database::fresh().await;
        let relay = || -> Arc<dyn Relay> {
            let address = Redis::shared().address();
            Arc::new(RedisRelay::new(&address, None, database.name()).unwrap())
        };
        story(seed, on_a_database(&database, [relay(), relay()]).await).await;
    }
}

#[tokio::test]
async fn each_change_is_announced_to_the_other_nodes_once_and_in_order() {
    let relay = Arc::new(InProcess::default());
    let mut news = relay.listen(NodeId(1)).await;
    let nodes = on_a_file(1, Arc::clone(&relay) as Arc<dyn Relay>).await;
    let room = nodes.store.group("hi", None).await.unwrap().unwrap().id;
    relay.follow(NodeId(1), To::Room(room));
    let mut tab = Tab::open(nodes.chats.clone(), 1, 1).await;
    tab.reads(usize::MAX).await;
    for number in 1..=60 {
        let action = tab.list.write(format!("{number}"));
        tab.does(&action).await;
    }
    for message in whole(&nodes.store, "hi").await {
        let (follows, version, frame) = next_change(&mut news).await;
        assert_eq!((follows + 1, version.number), (message.made, message.made));
        let push = std::str::from_utf8(frame.payloads().next().unwrap()).unwrap();
        assert!(push.contains(&message.key.unwrap().to_string()));
    }
    while let Ok(heard) = news.try_recv() {
        let again = matches!(&heard, Heard::News(envelope)
            if matches!(envelope.news, News::Change { .. }));
        assert!(!again, "{heard:?}");
    }
}

/// The next change in the news. Other news may come at any time.
async fn next_change(news: &mut mpsc::Receiver<Heard>) -> (u64, Version, Frame) {
    loop {
        let heard = timeout(DEADLINE, news.recv()).await.unwrap().unwrap();
        if let Heard::News(Envelope {
            news:
                News::Change {
                    follows,
                    version,
                    frame,
                    ..
                },
            ..
        }) = heard
        {
            return (follows, version, frame);
        }
    }
}

/// Loses, duplicates, delays and shuffles envelopes.
struct Shaky {
    inner: InProcess,
    state: Mutex<(StdRng, Vec<Envelope>)>,
}

impl Shaky {
    fn new(seed: u64) -> Self {
        Self {
            inner: InProcess::default(),
            state: Mutex::new((StdRng::seed_from_u64(seed), Vec::new())),
        }
    }
}

#[async_trait]
impl Relay for Shaky {
    fn announce(&self, envelope: Envelope) {
        let mut state = self.state.lock().unwrap();
        let (rng, held) = &mut *state;
        match rng.random_range(0..100) {
            0..15 => {}
            15..30 => {
                self.inner.announce(envelope.clone());
                self.inner.announce(envelope);
            }
            30..60 => held.push(envelope),
            _ => self.inner.announce(envelope),
        }
        while !held.is_empty() && rng.random_range(0..3) == 0 {
            let one = rng.random_range(0..held.len());
            self.inner.announce(held.swap_remove(one));
        }
    }

    fn state(&self) -> State {
        self.inner.state()
    }

    fn has_others(&self, node: NodeId) -> bool {
        self.inner.has_others(node)
    }

    async fn listen(&self, node: NodeId) -> mpsc::Receiver<Heard> {
        self.inner.listen(node).await
    }

    fn follow(&self, node: NodeId, to: To) {
        self.inner.follow(node, to);
    }

    fn keep(&self, node: NodeId, is_needed: &dyn Fn(To) -> bool) {
        self.inner.keep(node, is_needed);
    }

    async fn close(&self) {}
}

/// A tab that reads at its own pace.
struct Tab {
    chats: Vec<Arc<Chat>>,
    node: usize,
    client: Client,
    list: List,
    rng: StdRng,
    slow: bool,
    written: Vec<String>,
}

impl Tab {
    async fn open(chats: Vec<Arc<Chat>>, seed: u64, number: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed * 1000 + number);
        let dialect = match number % 6 {
            0 => Dialect::Plain,
            _ => Dialect::V1,
        };
        let list = List::new(dialect);
        let node = rng.random_range(0..chats.len());
        let client = chats[node].connect(list.hello()).await.unwrap();
        let slow = rng.random_range(0..3) == 0;
        Self {
            chats,
            node,
            client,
            list,
            rng,
            slow,
            written: Vec::new(),
        }
    }

    async fn does(&mut self, action: &str) {
        let chat = &self.chats[self.node];
        let request = chat.read(&self.client, action);
        chat.handle(&self.client, request).await;
    }

    /// Reads about this many bytes, and asks for the rest if it fell behind, like a socket.
    async fn reads(&mut self, bytes: usize) {
        for frame in self.client.outbox.take(bytes).frames {
            for push in frame.payloads() {
                self.list.take(std::str::from_utf8(push).unwrap());
            }
        }
        if self.client.outbox.wants_rest() {
            self.chats[self.node].catch_up(&self.client).await;
        }
    }

    async fn reconnects(&mut self) {
        self.chats[self.node].disconnect(&self.client);
        self.node = self.rng.random_range(0..self.chats.len());
        let name = self.list.name.clone();
        let hello = self.list.hello();
        let comes_back = hello.resume.is_some();
        self.client = self.chats[self.node].connect(hello).await.unwrap();
        match comes_back {
            true => assert_eq!(self.client.user.name, name),
            // A new person does not send another's messages again; they are stored all the same.
            false => self.list.unsettled.clear(),
        }
        for action in self.list.again() {
            self.does(&action).await;
        }
    }

    async fn step(&mut self, tab: u64, step: usize) {
        match self.rng.random_range(0..100) {
            0..45 => {
                // Sometimes a long one, which fills the outbox of a slow reader.
                let length = match self.rng.random_range(0..4) {
                    0 => 3000,
                    _ => 10,
                };
                let text = format!("{tab}-{step}-{}", "x".repeat(length));
                self.written.push(text.clone());
                let action = self.list.write(text);
                self.does(&action).await;
            }
            45..53 => {
                let own = self.list.own();
                if !own.is_empty() {
                    let (id, text) = own[self.rng.random_range(0..own.len())];
                    let action = match self.rng.random_range(0..4) {
                        0 => json!({ "action": "Delete message", "data": { "message": id } }),
                        _ => {
                            let data = json!({ "message": id, "text": format!("{text}+") });
                            json!({ "action": "Edit message", "data": data })
                        }
                    };
                    self.does(&action.to_string()).await;
                }
            }
            53..60 if !self.list.ids.is_empty() => {
                let ids = &self.list.ids;
                let id = ids[self.rng.random_range(0..ids.len())];
                let emoji = EMOJIS[self.rng.random_range(0..EMOJIS.len())];
                let data =
                    json!({ "message": id, "emoji": emoji, "on": self.rng.random_bool(0.7) });
                self.does(&json!({ "action": "React", "data": data }).to_string())
                    .await;
            }
            60..63 => {
                let name = GROUPS[self.rng.random_range(0..GROUPS.len())];
                self.does(&List::enter(name)).await;
            }
            63..68 => self.reconnects().await,
            68..73 => tokio::task::yield_now().await,
            _ if self.slow && self.rng.random_range(0..8) != 0 => {}
            _ => {
                let bytes = self.rng.random_range(1..20_000);
                self.reads(bytes).await;
            }
        }
    }

    /// Reads until it shows the end of its room and all its messages are settled.
    async fn settles(&mut self, stored: &HashMap<String, Vec<Message>>) {
        for action in self.list.again() {
            self.does(&action).await;
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.reads(usize::MAX).await;
            let room = &stored[&self.list.title];
            let ids: Vec<_> = room.iter().map(|message| message.id.0).collect();
            let wrong = room.iter().find(|message| {
                let text = (!message.deleted).then_some(message.text.as_str());
                let id = message.id.0;
                let reactions = message.reactions.iter();
                let reactions: Vec<_> =
                    reactions.map(|one| (one.emoji.code(), one.count)).collect();
                self.list.ids.contains(&id)
                    && (!self.list.shows(id, text) || self.list.reactions(id) != reactions)
            });
            if self.list.is_end_of(&ids) && self.list.unsettled.is_empty() && wrong.is_none() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} in {} at {:?} shows {:?}, but {ids:?} is stored; wrong {wrong:?}; unsettled {:?}",
                self.list.name,
                self.list.title,
                self.list.version,
                self.list.ids,
                self.list.unsettled,
            );
            let _ = timeout(Duration::from_millis(100), self.client.outbox.woken()).await;
        }
    }
}

/// A program that reads at its own pace.
struct Program {
    chats: Vec<Arc<Chat>>,
    node: usize,
    client: Client,
    group: &'static str,
    objects: bool,
    heard: Vec<Value>,
    rng: StdRng,
    written: Vec<String>,
}

impl Program {
    async fn open(chats: Vec<Arc<Chat>>, seed: u64, number: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed * 1000 + 500 + number as u64);
        let node = rng.random_range(0..chats.len());
        let group = GROUPS[number / 2];
        let objects = number.is_multiple_of(2);
        let dialect = match objects {
            true => Dialect::Objects,
            false => Dialect::Lines,
        };
        let hello = Hello::by_door(dialect, GroupName::new(group).unwrap());
        let client = chats[node].connect(hello).await.unwrap();
        Self {
            chats,
            node,
            client,
            group,
            objects,
            heard: Vec::new(),
            rng,
            written: Vec::new(),
        }
    }

    async fn reads(&mut self, bytes: usize) {
        for frame in self.client.outbox.take(bytes).frames {
            for object in frame.payloads() {
                self.heard.push(serde_json::from_slice(object).unwrap());
            }
        }
        if self.client.outbox.wants_rest() {
            self.chats[self.node].catch_up(&self.client).await;
        }
    }

    async fn step(&mut self, number: usize, step: usize) {
        match self.rng.random_range(0..100) {
            0..15 => {
                let text = format!("program {number}-{step}");
                self.written.push(text.clone());
                let said = match self.objects {
                    true => json!({ "message": text }),
                    false => json!({ "type": "message", "text": text }),
                };
                let chat = &self.chats[self.node];
                let request = chat.read(&self.client, &said.to_string());
                chat.handle(&self.client, request).await;
            }
            // Rarely, so that it falls behind by more than a page.
            15..25 => {
                let bytes = self.rng.random_range(1..20_000);
                self.reads(bytes).await;
            }
            _ => tokio::task::yield_now().await,
        }
    }

    /// Every state it got of a message: the id and the text.
    fn states(&self) -> Vec<(i64, String)> {
        let shown = self.heard.iter().filter_map(|object| match self.objects {
            true if object["type"] != "chat_message" => None,
            true => Some((
                object["id"].as_i64()?,
                object["message"].as_str()?.to_owned(),
            )),
            false => Some((0, object["text"].as_str()?.to_owned())),
        });
        shown.collect()
    }

    /// Reads until it has the current state of every message since its first.
    async fn settles(&mut self, stored: &[Message]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.reads(usize::MAX).await;
            let states = self.states();
            let as_sent = |message: &Message| {
                let id = if self.objects { message.id.0 } else { 0 };
                let name = &message.author.name;
                match message.deleted {
                    true => (id, format!("{name} deleted a message.")),
                    false => (id, message.text.clone()),
                }
            };
            let missing = stored
                .iter()
                .map(as_sent)
                .find(|state| !states.contains(state));
            let Some(missing) = missing else { break };
            assert!(
                Instant::now() < deadline,
                "a program in {} did not get {missing:?}",
                self.group
            );
            let _ = timeout(Duration::from_millis(100), self.client.outbox.woken()).await;
        }
        let states = self.states();
        if self.objects {
            let once: BTreeSet<_> = states.iter().collect();
            assert_eq!(once.len(), states.len(), "nothing comes twice");
        }
        // Messages that were never changed arrive in order.
        let in_order: Vec<_> = stored
            .iter()
            .filter(|message| message.made == message.worded)
            .map(|message| message.text.as_str())
            .collect();
        let mut texts = states.iter().map(|(_, text)| text.as_str());
        assert!(
            in_order
                .iter()
                .all(|text| texts.any(|other| other == *text))
        );
    }
}

/// All messages of a group, oldest first.
async fn whole(store: &Store, group: &str) -> Vec<Message> {
    let room = store.group(group, None).await.unwrap().unwrap().id;
    let mut page = (*store.newest(room).await.unwrap()).clone();
    let mut all = page.messages;
    while page.older {
        page = store.older(room, all[0].id).await.unwrap();
        all.splice(0..0, page.messages);
    }
    all
}

/// Nodes, and the folder of their store.
struct Nodes {
    store: Arc<Store>,
    chats: Vec<Arc<Chat>>,
    _folder: Option<TempDir>,
}

/// Nodes that share a store and are joined by a relay.
async fn on_a_file(nodes: usize, relay: Arc<dyn Relay>) -> Nodes {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path().join("overwire.db").to_str().unwrap()).await;
    let mut chats = Vec::new();
    for _ in 0..nodes {
        chats.push(start_chat(&store, Arc::clone(&relay)).await);
    }
    Nodes {
        store,
        chats,
        _folder: Some(folder),
    }
}

/// Nodes on one database, each with its own store and its own end of the relay.
async fn on_a_database(database: &Database, relays: [Arc<dyn Relay>; 2]) -> Nodes {
    let mut chats = Vec::new();
    for relay in relays {
        let store = open(&database.address()).await;
        chats.push(start_chat(&store, relay).await);
    }
    Nodes {
        store: open(&database.address()).await,
        chats,
        _folder: None,
    }
}

/// A store in which there are people.
async fn open(database: &str) -> Arc<Store> {
    let store = store::open(database, Synchronous::Normal, Access::Server)
        .await
        .unwrap();
    populate(&store, 20).await;
    store
}

async fn story(seed: u64, nodes: Nodes) {
    println!("seed {seed}, {} nodes", nodes.chats.len());
    let Nodes { store, chats, .. } = &nodes;
    let mut listening = tokio::task::JoinSet::new();
    for number in 0..2 * GROUPS.len() {
        let chats = chats.clone();
        let mut program = Program::open(chats, seed, number).await;
        listening.spawn(async move {
            for step in 0..4 * STEPS {
                program.step(number, step).await;
            }
            program
        });
    }
    let mut living = tokio::task::JoinSet::new();
    for number in 0..TABS {
        let chats = chats.clone();
        living.spawn(async move {
            let mut tab = Tab::open(chats, seed, number).await;
            for step in 0..STEPS {
                tab.step(number, step).await;
            }
            tab
        });
    }
    let mut tabs = living.join_all().await;
    let mut programs = listening.join_all().await;

    let mut stored = HashMap::new();
    let (mut texts, mut count) = (Vec::new(), 0);
    for group in GROUPS {
        let all = whole(store, group).await;
        let made: Vec<u64> = all.iter().map(|message| message.made).collect();
        assert!(made.is_sorted_by(|one, next| one < next));
        // Edits only append, so the beginning identifies the message.
        let texts_there = all.iter().filter(|message| !message.deleted);
        texts.extend(texts_there.map(|message| message.text.trim_end_matches('+').to_owned()));
        count += all.len();
        stored.insert(format!("/chat/{group}/"), all);
    }
    let by_tabs = tabs.iter().flat_map(|tab| tab.written.clone());
    let by_programs = programs.iter().flat_map(|one| one.written.clone());
    let written: Vec<String> = by_tabs.chain(by_programs).collect();
    assert_eq!(count, written.len(), "each once");
    let as_set = |texts: &[String]| texts.iter().cloned().collect::<BTreeSet<_>>();
    assert!(as_set(&texts).is_subset(&as_set(&written)));
    assert_eq!(as_set(&texts).len(), texts.len(), "each once");
    assert!(
        !texts.is_empty() && texts.len() < count,
        "some were deleted"
    );
    let stored_reactions = stored.values().flatten().map(|message| &message.reactions);
    assert!(stored_reactions.flatten().count() > 10);
    for tab in &mut tabs {
        tab.settles(&stored).await;
    }
    for program in &mut programs {
        let stored = &stored[&format!("/chat/{}/", program.group)];
        program.settles(stored).await;
    }
}
