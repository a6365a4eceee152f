//! People who write all the time, whatever happens, and the audit at the end: every message that was
//! written or shown is stored exactly once, no version is missing, and every tab shows what is stored.
//!
//! Their tabs keep only what order needs. Whoever loses their socket reconnects, to another node if
//! their own does not answer, like a browser behind a balancer, and sends unsettled messages again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use overwire::protocol::Dialect;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use super::list::List;
use super::rows::{Rows, columns};
use super::wire::{Event, Wire};
use super::{Door, Tab};

/// How often somebody writes, and retries to connect.
const BEAT: Duration = Duration::from_millis(30);
/// The same for people in a hurry: as fast as the server answers.
const HURRY: Duration = Duration::from_millis(2);
/// How often somebody sends unsettled messages again; browsers wait for longer.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a node may take to answer a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How many messages of a person are pending at a time.
const UNDER_WAY: usize = 3;
/// The longest time until everything is settled and shown: longer than the server's deadlines one
/// after another.
const DEADLINE: Duration = Duration::from_secs(45);

/// A message as it is stored.
struct Stored {
    id: i64,
    text: String,
    key: Option<Uuid>,
    made: i64,
}

/// What is stored in each group, oldest first.
pub(crate) struct Record(HashMap<String, Vec<Stored>>);

impl Record {
    pub(crate) fn of(database: &impl Rows) -> Self {
        let all = "select r.name || '\t' || m.id || '\t' || m.made || '\t'
            || coalesce(cast(m.key as text), '') || '\t' || m.text
            from messages m join rooms r on r.id = m.room_id where r.kind = 'group'";
        let mut rooms: HashMap<String, Vec<Stored>> = HashMap::new();
        for row in database.rows(all) {
            let [name, id, made, key, text] = columns(&row);
            let room = rooms.entry(format!("/chat/{name}/"));
            room.or_default().push(Stored {
                id: id.parse().unwrap(),
                text: text.to_owned(),
                key: key.parse().ok(),
                made: made.parse().unwrap(),
            });
        }
        for stored in rooms.values_mut() {
            stored.sort_by_key(|message| message.id);
        }
        let versions = "select name || '\t' || version from rooms where kind = 'group'";
        for row in database.rows(versions) {
            let [name, version] = columns(&row);
            let stored = rooms.entry(format!("/chat/{name}/")).or_default();
            // These tests never change a message.
            let made = stored.iter().map(|message| message.made);
            assert!(made.eq(1..=version.parse().unwrap()), "a gap in #{name}");
        }
        Self(rooms)
    }

    fn room(&self, address: &str) -> &[Stored] {
        self.0.get(address).map_or(&[], Vec::as_slice)
    }

    /// How many times that text is stored.
    pub(crate) fn times(&self, text: &str) -> usize {
        let all = self.0.values().flatten();
        all.filter(|message| message.text == text).count()
    }

    /// Whether a tab shows its group as it is stored.
    pub(crate) fn is_shown_by(&self, list: &List) -> bool {
        let stored = self.room(&list.title);
        let ids: Vec<i64> = stored.iter().map(|message| message.id).collect();
        let mut shown = stored.iter().filter(|one| list.ids.contains(&one.id));
        list.is_end_of(&ids) && shown.all(|one| list.shows(one.id, Some(&one.text)))
    }

    /// Waits until a tab shows its group as it is stored. Everything it ever showed must be stored.
    pub(crate) async fn is_shown_to(&self, tab: &mut Tab) {
        let stored = self.room(&tab.location);
        let texts: Vec<&str> = stored.iter().map(|one| one.text.as_str()).collect();
        tab.until_within(DEADLINE, "what is stored", |tab| {
            texts.ends_with(&tab.texts().iter().map(String::as_str).collect::<Vec<_>>())
        })
        .await;
        let all: Vec<i64> = self.0.values().flatten().map(|one| one.id).collect();
        let appended = tab.pushes_to("messages-list", 0);
        let appended = appended.iter().filter_map(|push| {
            let (_, id) = push.html.split_once("id=\"message-")?;
            id.split('"').next()?.parse::<i64>().ok()
        });
        for id in appended {
            assert!(all.contains(&id), "{id} was shown");
        }
    }
}

/// What the crowd does now.
#[derive(Clone)]
enum Phase {
    Write,
    Settle,
    EndAs(Arc<Record>),
}

/// How far the crowd has come.
#[derive(Default)]
struct Progress {
    settled: AtomicUsize,
    /// People who have stopped writing, and whose messages are all settled.
    quiet: AtomicUsize,
    /// Sockets that were opened.
    arrivals: AtomicUsize,
    /// When the last message was settled, and the longest time without one.
    pause: Mutex<(Option<Instant>, Duration)>,
}

impl Progress {
    fn settle(&self, messages: usize) {
        if messages == 0 {
            return;
        }
        self.settled.fetch_add(messages, Ordering::SeqCst);
        let mut pause = self.pause.lock().unwrap();
        let now = Instant::now();
        let lasted = pause.0.map_or(Duration::ZERO, |last| now - last);
        *pause = (Some(now), pause.1.max(lasted));
    }
}

struct Writer {
    number: usize,
    doors: Vec<Door>,
    at: usize,
    /// Where they write, in turn; in their current room if empty.
    rooms: Vec<String>,
    list: List,
    written: Vec<(Uuid, String)>,
    beat: Duration,
    progress: Arc<Progress>,
    name: Option<String>,
}

impl Writer {
    /// Connects to the last node, or to the next one that answers.
    async fn arrives(&mut self) -> Wire {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let handshake = self.list.socket_handshake();
            let attempt = Wire::attempt(self.doors[self.at].0, &handshake);
            match timeout(HANDSHAKE, attempt).await {
                Ok(Ok(wire)) => {
                    self.progress.arrivals.fetch_add(1, Ordering::SeqCst);
                    return wire;
                }
                _ => self.at = (self.at + 1) % self.doors.len(),
            }
        }
    }

    fn writes(&mut self, wire: &Wire) {
        let text = format!("{}-{}", self.number, self.written.len() + 1);
        let turn = (self.written.len() + self.number) % self.rooms.len().max(1);
        let room = self.rooms.get(turn).or(self.list.room.as_ref()).cloned();
        let before: Vec<Uuid> = self.list.unsettled.keys().copied().collect();
        wire.text(self.list.write_in(room, text.clone()));
        let mut keys = self.list.unsettled.keys();
        let key = keys.find(|key| !before.contains(key)).unwrap();
        self.written.push((*key, text));
    }

    fn takes(&mut self, push: &str) {
        let before = self.list.unsettled.len();
        self.list.take(push);
        self.progress.settle(before - self.list.unsettled.len());
        if !self.list.name.is_empty() {
            let name = self.name.get_or_insert_with(|| self.list.name.clone());
            assert_eq!(*name, self.list.name, "everybody stays who they are");
        }
    }

    async fn lives(mut self, mut phase: watch::Receiver<Phase>) -> Self {
        let (mut beats, mut again) = (interval(self.beat), interval(AGAIN));
        for clock in [&mut beats, &mut again] {
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut is_quiet = false;
        loop {
            let mut wire = self.arrives().await;
            again.reset_immediately();
            let mut is_in = false;
            loop {
                tokio::select! {
                    event = wire.next() => match event {
                        Event::Text(push) => {
                            self.takes(&push);
                            // The push before it says who they are.
                            is_in = is_in || push.contains("#group-name");
                        }
                        Event::Closed(_) => break,
                        Event::Other(other) => panic!("{other}"),
                    },
                    _ = beats.tick() => {
                        let writes = matches!(*phase.borrow(), Phase::Write);
                        if writes && is_in && self.list.unsettled.len() < UNDER_WAY {
                            self.writes(&wire);
                        }
                    }
                    _ = again.tick(), if is_in => {
                        self.list.again().into_iter().for_each(|action| wire.text(action));
                    }
                    changed = phase.changed() => changed.unwrap(),
                }
                let is_settled = self.list.unsettled.is_empty();
                match &*phase.borrow() {
                    Phase::Write => {}
                    Phase::Settle if is_settled && !is_quiet => {
                        is_quiet = true;
                        self.progress.quiet.fetch_add(1, Ordering::SeqCst);
                    }
                    Phase::EndAs(record)
                        if is_in && is_settled && record.is_shown_by(&self.list) =>
                    {
                        return self;
                    }
                    Phase::Settle | Phase::EndAs(_) => {}
                }
            }
        }
    }
}

/// People who write all the time.
pub(crate) struct Crowd {
    writers: JoinSet<Writer>,
    count: usize,
    phase: watch::Sender<Phase>,
    progress: Arc<Progress>,
    began: Instant,
}

impl Crowd {
    /// This many people in the first group, spread over these nodes, who write in these rooms.
    pub(crate) fn of(count: usize, doors: &[Door], rooms: &[String]) -> Self {
        Self::at_a_beat(BEAT, count, doors, rooms)
    }

    /// The same in the first group, where everybody writes as fast as the server answers.
    pub(crate) fn in_a_hurry(count: usize, doors: &[Door]) -> Self {
        Self::at_a_beat(HURRY, count, doors, &[])
    }

    fn at_a_beat(beat: Duration, count: usize, doors: &[Door], rooms: &[String]) -> Self {
        let (phase, orders) = watch::channel(Phase::Write);
        let progress = Arc::<Progress>::default();
        let mut writers = JoinSet::new();
        for number in 0..count {
            let writer = Writer {
                number,
                doors: doors.to_vec(),
                at: number % doors.len(),
                rooms: rooms.to_vec(),
                list: List::new(Dialect::V1),
                written: Vec::new(),
                beat,
                progress: Arc::clone(&progress),
                name: None,
            };
            writers.spawn(writer.lives(orders.clone()));
        }
        Self {
            writers,
            count,
            phase,
            progress,
            began: Instant::now(),
        }
    }

    /// Waits until this many more messages are settled.
    pub(crate) async fn goes_on(&mut self, messages: usize) {
        let enough = self.progress.settled.load(Ordering::SeqCst) + messages;
        let going = timeout(DEADLINE, async {
            let mut looks = interval(BEAT);
            while self.progress.settled.load(Ordering::SeqCst) < enough {
                looks.tick().await;
            }
        });
        tokio::select! {
            done = going => done.expect("what is written is stored"),
            Some(ended) = self.writers.join_next() => panic!("{:?}", ended.err()),
        }
    }

    /// Stops writing and waits until everything is settled.
    pub(crate) async fn falls_silent(mut self) -> Self {
        self.phase.send_replace(Phase::Settle);
        let settling = timeout(DEADLINE, async {
            let mut looks = interval(BEAT);
            while self.progress.quiet.load(Ordering::SeqCst) < self.count {
                looks.tick().await;
            }
        });
        tokio::select! {
            done = settling => done.expect("everything is settled"),
            Some(ended) = self.writers.join_next() => panic!("{:?}", ended.err()),
        }
        self
    }

    /// The audit. Stops writing, waits until everything is settled and every tab shows what is stored,
    /// compares what they wrote and saw with it, and prints the figures.
    pub(crate) async fn ends_as_stored_in(self, database: &impl Rows) -> Arc<Record> {
        let wrote_for = self.began.elapsed();
        let mut crowd = self.falls_silent().await;
        let record = Arc::new(Record::of(database));
        let (phase, writers) = (&crowd.phase, &mut crowd.writers);
        phase.send_replace(Phase::EndAs(Arc::clone(&record)));
        let all = timeout(DEADLINE, std::mem::take(writers).join_all()).await;
        let all = all.expect("everybody shows what is stored");

        let mut by_key: HashMap<Uuid, Vec<&Stored>> = HashMap::new();
        let stored: HashMap<i64, &Stored> = record
            .0
            .values()
            .flatten()
            .map(|message| (message.id, message))
            .collect();
        for message in stored.values() {
            if let Some(key) = message.key {
                by_key.entry(key).or_default().push(message);
            }
        }
        for (key, text) in all.iter().flat_map(|writer| &writer.written) {
            let found = by_key.get(key).map_or(&[][..], Vec::as_slice);
            assert!(
                matches!(found, [once] if once.text == *text),
                "{text} is stored {} times",
                found.len()
            );
        }
        for (id, article) in all.iter().flat_map(|writer| &writer.list.saw) {
            let message = stored.get(id);
            let message = message.unwrap_or_else(|| panic!("{article} was seen"));
            let text = format!(">{}</p>", message.text);
            assert!(article.contains(&text), "{article} is {text}");
        }
        let written: usize = all.iter().map(|writer| writer.written.len()).sum();
        let shown: usize = all.iter().map(|writer| writer.list.saw.len()).sum();
        println!(
            "{} people wrote {written} messages in {:.1} s: each is stored once and shown to all, and \
             so is everything else of the {shown} that they saw. Sockets opened: {}. Longest time in \
             which nothing was stored: {:.2} s",
            crowd.count,
            wrote_for.as_secs_f64(),
            crowd.progress.arrivals.load(Ordering::SeqCst),
            crowd.progress.pause.lock().unwrap().1.as_secs_f64(),
        );
        record
    }
}
