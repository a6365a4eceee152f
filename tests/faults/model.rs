//! Random schedules of what people do, compared with a model of the chat: at rest, what is stored is
//! what the model expects, and every tab shows what is stored.
//!
//! The seed is printed, and OVERWIRE_TEST_SEED sets it. It decides what people do, but not who is
//! faster. A schedule that fails is shrunk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use overwire::model::Emoji;
use overwire::protocol::Dialect;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::list::List;
use crate::support::rows::{Rows as _, columns};
use crate::support::wire::{Event, Wire};
use crate::support::{Door, Program, long};

const PEOPLE: usize = 5;
const STEPS: usize = 60;
const GROUPS: [&str; 2] = ["hi", "python"];
const EMOJIS: [&str; 2] = ["👍", "🎉"];
/// How long anything expected may take. Shrinking may have to wait for it often.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a failing schedule is shrunk at most, in milliseconds.
const SHRINKING: u32 = 5 * 60 * 1000;

#[derive(Clone, Debug)]
enum Step {
    Post,
    Edit {
        which: usize,
    },
    Delete {
        which: usize,
    },
    React {
        which: usize,
        emoji: usize,
        on: bool,
    },
    Move {
        group: usize,
    },
    Cut,
    Resume,
    Restart {
        kill: bool,
    },
}

/// A step, and who takes it. A restart concerns everybody.
type Schedule = Vec<(usize, Step)>;

fn step() -> impl Strategy<Value = Step> {
    let which = 0..100_usize;
    prop_oneof![
        12 => Just(Step::Post),
        4 => which.clone().prop_map(|which| Step::Edit { which }),
        2 => which.clone().prop_map(|which| Step::Delete { which }),
        6 => (which, 0..EMOJIS.len(), any::<bool>())
            .prop_map(|(which, emoji, on)| Step::React { which, emoji, on }),
        3 => (0..GROUPS.len()).prop_map(|group| Step::Move { group }),
        3 => Just(Step::Cut),
        4 => Just(Step::Resume),
        1 => any::<bool>().prop_map(|kill| Step::Restart { kill }),
    ]
}

/// What one person changes. The last change sent on a socket that has answered is done. Those sent on
/// a socket that was cut may or may not be.
#[derive(Debug)]
struct Changed<T> {
    possible: Vec<T>,
    sent: Vec<T>,
}

impl<T> Changed<T> {
    fn from(value: T) -> Self {
        let (possible, sent) = (vec![value], Vec::new());
        Self { possible, sent }
    }

    fn is_answered(&mut self) {
        if let Some(last) = self.sent.pop() {
            *self = Self::from(last);
        }
    }

    fn is_cut(&mut self) {
        self.possible.append(&mut self.sent);
    }
}

/// A message and an emoji.
type Reaction = (Uuid, &'static str);

/// A person with one tab, and the model of everything they did.
struct Person {
    list: List,
    wire: Option<Wire>,
    answers: usize,
    posted: usize,
    /// The address of the group of each message, and its text, or `None` if it is deleted.
    messages: BTreeMap<Uuid, (String, Changed<Option<String>>)>,
    reactions: BTreeMap<Reaction, Changed<bool>>,
}

impl Person {
    fn new() -> Self {
        Self {
            list: List::new(Dialect::V1),
            wire: None,
            answers: 0,
            posted: 0,
            messages: BTreeMap::new(),
            reactions: BTreeMap::new(),
        }
    }

    // ---- the socket ----

    fn takes(&mut self, event: Event) {
        match event {
            Event::Text(push) => {
                self.answers += usize::from(push.contains("\"#connection\""));
                self.list.take(&push);
            }
            Event::Closed(_) => self.is_cut(),
            Event::Other(other) => panic!("{other}"),
        }
    }

    fn reads(&mut self) {
        while let Some(event) = self.wire.as_mut().and_then(Wire::already) {
            self.takes(event);
        }
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let happens = timeout(PATIENCE, async {
            while !is_so(self) {
                let wire = self.wire.as_mut().expect("a socket");
                let event = wire.next().await;
                self.takes(event);
            }
        });
        assert!(
            happens.await.is_ok(),
            "{} waited for {what}",
            self.list.name
        );
    }

    fn is_cut(&mut self) {
        self.wire = None;
        self.messages
            .values_mut()
            .for_each(|(_, text)| text.is_cut());
        self.reactions.values_mut().for_each(Changed::is_cut);
    }

    async fn resumes(&mut self, door: Door) {
        if self.wire.is_some() {
            return;
        }
        let name = self.list.name.clone();
        let wire = door.socket(&self.list.socket_handshake()).await.unwrap();
        for action in self.list.again() {
            wire.text(action);
        }
        self.wire = Some(wire);
        self.is_answered().await;
        assert!(
            name.is_empty() || name == self.list.name,
            "everybody stays who they are"
        );
    }

    /// Waits until the server has done everything that was sent.
    async fn is_answered(&mut self) {
        let answers = self.answers;
        self.sends("Ping", json!({}));
        self.until("an answer", |person| person.answers > answers)
            .await;
        self.messages
            .values_mut()
            .for_each(|(_, text)| text.is_answered());
        self.reactions.values_mut().for_each(Changed::is_answered);
    }

    // ---- the steps ----

    fn sends(&self, action: &str, data: Value) {
        let wire = self.wire.as_ref().expect("a socket");
        wire.text(json!({ "action": action, "data": data }).to_string());
    }

    /// Without a socket, it is sent when there is one again.
    fn posts(&mut self) {
        if self.list.room.is_none() {
            return;
        }
        self.posted += 1;
        let text = format!("{}-{}", self.list.name, self.posted);
        let before: BTreeSet<Uuid> = self.list.unsettled.keys().copied().collect();
        let action = self.list.write(text.clone());
        let mut keys = self.list.unsettled.keys();
        let key = *keys.find(|key| !before.contains(key)).unwrap();
        let message = (self.list.title.clone(), Changed::from(Some(text)));
        self.messages.insert(key, message);
        if let Some(wire) = &self.wire {
            wire.text(action);
        }
    }

    /// One's own message to change, if there is one that is not being deleted.
    fn own(&self, which: usize) -> Option<(i64, Uuid)> {
        let shown = self.list.own().into_iter();
        let own: Vec<_> = shown.map(|(id, _)| (id, self.list.key(id))).collect();
        let (id, key) = own.get(which % own.len().max(1))?;
        let (_, text) = &self.messages[key];
        let is_kept = text.possible.iter().chain(&text.sent).all(Option::is_some);
        is_kept.then_some((*id, *key))
    }

    fn changes(&mut self, which: usize, deletes: bool) {
        let Some((id, key)) = self.own(which) else {
            return;
        };
        self.posted += 1;
        let text = (!deletes).then(|| format!("{}-{}", self.list.name, self.posted));
        match &text {
            Some(text) => self.sends("Edit message", json!({ "message": id, "text": text })),
            None => self.sends("Delete message", json!({ "message": id })),
        }
        self.messages.get_mut(&key).unwrap().1.sent.push(text);
    }

    fn reacts(&mut self, which: usize, emoji: &'static str, on: bool) {
        let ids = &self.list.ids;
        if let Some(id) = ids.get(which % ids.len().max(1)).copied() {
            self.sends("React", json!({ "message": id, "emoji": emoji, "on": on }));
            let reaction = (self.list.key(id), emoji);
            let reaction = self.reactions.entry(reaction);
            reaction
                .or_insert_with(|| Changed::from(false))
                .sent
                .push(on);
        }
    }

    async fn moves(&mut self, group: &str) {
        let address = format!("/chat/{group}/");
        if self.list.title != address {
            let room = self.list.room.clone();
            self.wire.as_ref().unwrap().text(List::enter(group));
            self.until("the group", |person| {
                person.list.title == address && person.list.room != room
            })
            .await;
        }
    }

    /// Comes back if necessary, and waits until everything is stored.
    async fn settles(&mut self, door: Door) {
        self.resumes(door).await;
        self.is_answered().await;
        self.posts();
        self.until("its messages", |person| person.list.unsettled.is_empty())
            .await;
    }
}

async fn runs(schedule: &Schedule) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let mut program = Program::start(&file, &["--unlimited"]).await;
    let door = program.door;
    let mut people: Vec<Person> = (0..PEOPLE).map(|_| Person::new()).collect();
    for (who, step) in schedule {
        people.iter_mut().for_each(Person::reads);
        let person = &mut people[*who];
        let is_connected = person.wire.is_some();
        match *step {
            Step::Post => person.posts(),
            Step::Edit { which } if is_connected => person.changes(which, false),
            Step::Delete { which } if is_connected => person.changes(which, true),
            Step::React { which, emoji, on } if is_connected => {
                person.reacts(which, EMOJIS[emoji], on);
            }
            Step::Move { group } if is_connected => person.moves(GROUPS[group]).await,
            Step::Cut => person.is_cut(),
            Step::Resume => person.resumes(door).await,
            Step::Restart { kill } => {
                program.signal(if kill { "KILL" } else { "TERM" });
                program.ends().await;
                for person in people.iter_mut().filter(|person| person.wire.is_some()) {
                    person
                        .until("the end", |person| person.wire.is_none())
                        .await;
                }
                let arguments = ["--unlimited", "--listen", &door.0.to_string()];
                program = Program::start(&file, &arguments).await;
            }
            _ => {}
        }
    }
    for person in &mut people {
        person.settles(door).await;
    }
    let groups = stored(&file);
    // Pushes come in order, so with the last message of a group everything before it has come.
    for person in &mut people {
        let last = groups[&person.list.title].last().map(|message| message.id);
        person
            .until("the last message", |person| {
                person.list.ids.last() == last.as_ref()
            })
            .await;
    }
    is_at_rest(&people, &groups)
}

/// A message as it is stored.
struct Stored {
    id: i64,
    key: Uuid,
    text: Option<String>,
    /// The name and the emoji of each reaction.
    reactions: Vec<(String, String)>,
}

/// The messages of each group, by its address, oldest first.
fn stored(file: &Path) -> HashMap<String, Vec<Stored>> {
    let mut reactions: HashMap<i64, Vec<(String, String)>> = HashMap::new();
    let all = "select r.message_id || '\t' || u.name || '\t' || r.emoji
        from reactions r join users u on u.id = r.user_id";
    for row in file.rows(all) {
        let [message, name, emoji] = columns(&row);
        let message = reactions.entry(message.parse().unwrap()).or_default();
        message.push((name.to_owned(), emoji.to_owned()));
    }
    let all = "select r.name || '\t' || m.id || '\t' || m.key || '\t'
        || (m.deleted_at is null) || '\t' || m.text
        from messages m join rooms r on r.id = m.room_id order by m.id";
    let mut groups: HashMap<String, Vec<Stored>> = HashMap::new();
    for row in file.rows(all) {
        let [group, id, key, is_kept, text] = columns(&row);
        let id = id.parse().unwrap();
        let message = Stored {
            id,
            key: key.parse().unwrap(),
            text: (is_kept == "1").then(|| text.to_owned()),
            reactions: reactions.remove(&id).unwrap_or_default(),
        };
        let group = groups.entry(format!("/chat/{group}/"));
        group.or_default().push(message);
    }
    groups
}

/// What is stored is what the model expects, and every tab shows what is stored.
fn is_at_rest(
    people: &[Person],
    groups: &HashMap<String, Vec<Stored>>,
) -> Result<(), TestCaseError> {
    let by_key: HashMap<Uuid, (&str, &Stored)> = groups
        .iter()
        .flat_map(|(group, all)| all.iter().map(move |one| (one.key, (group.as_str(), one))))
        .collect();
    let all: usize = people.iter().map(|person| person.messages.len()).sum();
    prop_assert_eq!(
        groups.values().map(Vec::len).sum::<usize>(),
        all,
        "each once"
    );
    for person in people {
        for (key, (group, text)) in &person.messages {
            let Some((found, message)) = by_key.get(key) else {
                return Err(TestCaseError::fail(format!("{text:?} is not stored")));
            };
            prop_assert_eq!(*found, group);
            prop_assert!(
                text.possible.contains(&message.text),
                "{:?} is stored, not {:?}",
                message.text,
                text
            );
        }
        for ((key, emoji), on) in &person.reactions {
            let (_, message) = by_key[key];
            let reaction = (person.list.name.clone(), (*emoji).to_owned());
            let is_on = message.reactions.contains(&reaction);
            prop_assert!(
                message.text.is_none() || on.possible.contains(&is_on),
                "{} {} {:?}: {}, not {:?}",
                person.list.name,
                emoji,
                message.text,
                is_on,
                on
            );
        }
    }
    for Person { list, .. } in people {
        let group = &groups[&list.title];
        let ids: Vec<i64> = group.iter().map(|message| message.id).collect();
        prop_assert!(
            list.is_end_of(&ids),
            "{} shows {:?} of {:?}",
            list.name,
            list.ids,
            ids
        );
        for message in group
            .iter()
            .filter(|message| list.ids.contains(&message.id))
        {
            prop_assert!(
                list.shows(message.id, message.text.as_deref()),
                "{} shows {}, but stored is {:?}",
                list.name,
                list.saw[&message.id],
                message.text
            );
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for (_, emoji) in message.reactions.iter().filter(|_| message.text.is_some()) {
                *counts.entry(Emoji::new(emoji).unwrap().code()).or_default() += 1;
            }
            let shown: BTreeMap<_, _> = list.reactions(message.id).into_iter().collect();
            prop_assert_eq!(
                shown,
                counts,
                "{} shows {}",
                &list.name,
                &list.saw[&message.id]
            );
        }
    }
    Ok(())
}

#[test]
fn at_rest_every_tab_equals_the_model() {
    let seed = match std::env::var("OVERWIRE_TEST_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => rand::random(),
    };
    println!("OVERWIRE_TEST_SEED={seed}");
    let config = Config {
        cases: long(8, 300),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 10_000,
        max_shrink_time: SHRINKING,
        ..Config::default()
    };
    let schedules = prop::collection::vec((0..PEOPLE, step()), 1..=STEPS);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let found =
        TestRunner::new(config).run(&schedules, |schedule| runtime.block_on(runs(&schedule)));
    if let Err(error) = found {
        panic!("with OVERWIRE_TEST_SEED={seed}: {error}");
    }
}
