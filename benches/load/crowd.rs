//! Tabs in one room, and the check that each of them gets every message once and in order.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::table::milliseconds;
use crate::wire::{self, Wire};

/// A run fails if nothing happens for this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// The compression that browsers offer.
pub(crate) const DEFLATE: &str =
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// The tabs.
pub(crate) struct Crowd {
    /// Their connections.
    pub(crate) wire: Wire,
    watch: Watch,
    posted: Vec<Instant>,
}

/// What the tabs have shown.
#[derive(Default)]
struct Watch {
    /// For each tab, how many messages it has.
    has: Vec<usize>,
    shown: Vec<Shown>,
    /// Messages that have reached everyone since the last check.
    complete: Vec<usize>,
    ready: usize,
    room: String,
    bytes: u64,
    others: u64,
    /// Messages that reached a tab in a different frame than others: the tab had fallen behind.
    caught_up: u64,
}

/// One message, in the order in which tabs are shown them.
struct Shown {
    frame: Vec<u8>,
    id: i64,
    number: usize,
    reached: usize,
    first: Instant,
    last: Instant,
}

/// The result of a time under load.
#[derive(Default)]
pub(crate) struct Load {
    /// Messages that reached everyone.
    pub(crate) messages: usize,
    /// From the first post to the last delivery.
    pub(crate) elapsed: Duration,
    /// Bytes of all deliveries.
    pub(crate) bytes: u64,
    /// The milliseconds from posting each message to the first tab.
    pub(crate) first: Vec<f64>,
    /// The milliseconds from posting each message to the last tab.
    pub(crate) last: Vec<f64>,
    /// Deliveries that were catch-ups.
    pub(crate) caught_up: u64,
    /// How often a tab read something. What arrives in one piece was usually sent in one.
    pub(crate) reads: u64,
}

impl Crowd {
    /// A crowd without tabs.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            wire: Wire::new()?,
            watch: Watch::default(),
            posted: Vec::new(),
        })
    }

    /// Opens tabs at an address of the page, and waits until each shows its room.
    pub(crate) fn arrive(
        &mut self,
        server: SocketAddr,
        tabs: usize,
        at: &str,
        headers: &str,
    ) -> anyhow::Result<()> {
        let path = format!("/ws/chat/?at={at}");
        for tab in 0..tabs {
            self.wire.upgrade(server, &path, headers)?;
            self.watch.has.push(self.watch.shown.len());
            if tab % 100 == 99 {
                self.read(Duration::ZERO)?;
            }
        }
        let began = Instant::now();
        while self.watch.ready < self.wire.len() {
            self.read(Duration::from_millis(100))?;
            ensure!(
                began.elapsed() < PATIENCE,
                "{} of {} tabs show their room",
                self.watch.ready,
                self.wire.len()
            );
        }
        Ok(())
    }

    /// Opens connections to the bare loop.
    pub(crate) fn connect(&mut self, address: SocketAddr, tabs: usize) -> anyhow::Result<()> {
        for _ in 0..tabs {
            self.wire.open(address)?;
            self.watch.has.push(0);
        }
        Ok(())
    }

    /// Waits until nothing has arrived for a while.
    pub(crate) fn settle(&mut self, silence: Duration) -> anyhow::Result<()> {
        let (began, mut heard) = (Instant::now(), Instant::now());
        while heard.elapsed() < silence && began.elapsed() < PATIENCE {
            if self.read(silence / 4)? {
                heard = Instant::now();
            }
        }
        Ok(())
    }

    fn read(&mut self, wait: Duration) -> anyhow::Result<bool> {
        let Self { wire, watch, .. } = self;
        wire.read(wait, |tab, frame| watch.take(tab, frame))
    }

    /// Keeps `under_way` messages under way, each until it has reached everyone. As soon as one has,
    /// the next follows; with `together`, as soon as all have.
    pub(crate) fn load(
        &mut self,
        under_way: usize,
        each: Duration,
        together: bool,
        mut post: impl FnMut(&mut Wire, &str, &[usize]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Load> {
        let tabs = self.wire.len();
        let before = (self.watch.bytes, self.watch.caught_up, self.wire.reads);
        let began = Instant::now();
        let (mut waiting, mut due) = (0, under_way);
        let mut load = Load::default();
        let mut moved = began;
        loop {
            if due > 0 && (!together || waiting == 0) {
                let numbers: Vec<_> = (self.posted.len()..).take(due).collect();
                self.posted.extend(numbers.iter().map(|_| Instant::now()));
                post(&mut self.wire, &self.watch.room, &numbers)?;
                waiting += due;
                due = 0;
            }
            if waiting == 0 {
                break;
            }
            if self.read(Duration::from_millis(100))? {
                moved = Instant::now();
            }
            if moved.elapsed() > PATIENCE {
                bail!("a message has not reached everyone: {}", self.watch.lost());
            }
            let more = began.elapsed() < each || load.messages < 3 * under_way;
            for place in std::mem::take(&mut self.watch.complete) {
                let shown = &self.watch.shown[place];
                let posted = *self
                    .posted
                    .get(shown.number)
                    .context("a message that nobody posted")?;
                load.first.push(milliseconds(shown.first - posted));
                load.last.push(milliseconds(shown.last - posted));
                load.messages += 1;
                waiting -= 1;
                due += usize::from(more);
            }
        }
        load.elapsed = began.elapsed();
        load.bytes = self.watch.bytes - before.0;
        load.caught_up = self.watch.caught_up - before.1;
        load.reads = self.wire.reads - before.2;
        ensure!(
            self.watch.has.iter().all(|has| *has == self.posted.len()),
            "a tab has a different number of messages than were posted"
        );
        ensure!(tabs == self.watch.has.len());
        Ok(load)
    }

    /// The ids of all messages shown, in order.
    pub(crate) fn ids(&self) -> Vec<i64> {
        self.watch.shown.iter().map(|shown| shown.id).collect()
    }

    /// The size of a message's frame, in bytes.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.watch.shown.last().map_or(0, |shown| shown.frame.len())
    }
}

impl Watch {
    fn take(&mut self, tab: usize, frame: &[u8]) -> anyhow::Result<()> {
        let has = self.has[tab];
        // Everybody gets the same bytes, so checking them once is enough.
        if self.shown.get(has).is_none_or(|next| next.frame != frame)
            && !self.look(tab, has, frame)?
        {
            self.others += 1;
            return Ok(());
        }
        let now = Instant::now();
        let shown = &mut self.shown[has];
        if shown.reached == 0 {
            shown.first = now;
        }
        shown.last = now;
        shown.reached += 1;
        if shown.reached == self.has.len() {
            self.complete.push(has);
        }
        self.has[tab] += 1;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Parses a frame. Returns whether it is the tab's next message.
    fn look(&mut self, tab: usize, has: usize, frame: &[u8]) -> anyhow::Result<bool> {
        let payload = String::from_utf8(wire::payload(frame)?)?;
        if !payload.starts_with(r##"{"selector":"#messages-list","##) {
            ensure!(
                !payload.starts_with(r##"{"selector":"#notice","##),
                "tab {tab} got a notice: {payload}"
            );
            return Ok(false);
        }
        if payload.contains(r#""swap":"outer""#) {
            ensure!(
                self.shown.len() == has && self.ready < self.has.len(),
                "tab {tab} got a whole page instead of messages"
            );
            self.ready += 1;
            if self.room.is_empty() {
                let room = between(&payload, r#"data-room=\""#, '\\');
                room.context("a list without its room")?
                    .clone_into(&mut self.room);
            }
            return Ok(false);
        }
        let id = between(&payload, "id='message-", '\'').and_then(|id| id.parse().ok());
        let number = between(&payload, "<p>", ' ').and_then(|n| n.parse().ok());
        let (Some(id), Some(number)) = (id, number) else {
            bail!("not a message of this run: {payload}");
        };
        match self.shown.get(has) {
            Some(next) if next.id == id => {
                self.caught_up += 1;
            }
            Some(next) => bail!("tab {tab} got message {id} instead of {}", next.id),
            None => {
                ensure!(
                    self.shown.last().is_none_or(|last| last.id < id),
                    "tab {tab} got message {id} again or too late"
                );
                let now = Instant::now();
                self.shown.push(Shown {
                    frame: frame.to_vec(),
                    id,
                    number,
                    reached: 0,
                    first: now,
                    last: now,
                });
            }
        }
        Ok(true)
    }

    fn lost(&self) -> String {
        let least = self.has.iter().min().copied().unwrap_or(0);
        let tabs = self.has.iter().filter(|has| **has == least).count();
        format!("{tabs} tabs have {least} of {} messages", self.shown.len())
    }
}

/// The text after `start` and before `end`.
pub(crate) fn between<'a>(text: &'a str, start: &str, end: char) -> Option<&'a str> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(&rest[..rest.find(end)?])
}
