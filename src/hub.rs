//! Who is active in which room on this node, and what waits for each of them.
//!
//! The hub hands frames into outboxes and keeps their order; it knows no SQL, HTML or sockets. An
//! outbox neither waits nor drops silently: one that is full turns to "behind", and its socket
//! asks for the rest when it has drained.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use crate::model::{ClientId, Message, RoomId, UserId, Version};
use crate::protocol::{Dialect, Frame};

/// From this many bytes on, an outbox takes no more of its room until it has drained.
pub const OUTBOX_BYTES: usize = 128 * 1024;
/// The same, counted in frames.
pub const OUTBOX_FRAMES: usize = 512;

/// A part of the page that is state: what waits for it is replaced by what comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// A refusal without a key, or a trouble of ours.
    Notice,
    /// The people who concern this person.
    Mine,
    /// The people who are here.
    Online,
    /// The room's newest page, of a tab that knows no changes.
    Page,
}

/// Why a socket is closed by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The WebSocket close code.
    pub code: u16,
    /// In a few words.
    pub reason: &'static str,
    /// Whether what waits is sent first.
    pub drain: bool,
}

/// All outboxes of this node.
#[derive(Default)]
pub struct Hub {
    clients: Mutex<Clients>,
    users: Mutex<HashMap<UserId, Vec<Arc<Outbox>>>>,
    rooms: Mutex<HashMap<RoomId, Arc<Mutex<ActiveRoom>>>>,
    serial: AtomicU64,
    emptied: Notify,
}

#[derive(Default)]
struct Clients {
    connected: HashMap<ClientId, Arc<Outbox>>,
    /// What every tab shows of those who are here.
    online: Option<Frame>,
    /// The server stops: whoever comes now is closed too.
    closing: Option<Close>,
}

/// The clients that look at a room from this node.
#[derive(Default)]
struct ActiveRoom {
    /// The version this node has shown last.
    shown: Option<Version>,
    active: HashMap<u64, Arc<Outbox>>,
    plain: usize,
    /// A newest page is to be drawn for the plain tabs, and whether somebody is at it.
    page_wanted: bool,
    page_drawing: bool,
}

/// What waits for one socket.
pub struct Outbox {
    /// Whose it is.
    pub client: ClientId,
    /// Who that is.
    pub user: UserId,
    /// Which words they understand.
    pub dialect: Dialect,
    serial: u64,
    state: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    room: Option<RoomId>,
    /// What of its room the tab has been given.
    seen: Option<Version>,
    /// The highest number known of while nothing can be given.
    noted: u64,
    behind: bool,
    queue: VecDeque<Frame>,
    bytes: usize,
    soft: Vec<(Region, Frame)>,
    /// The own list of people that was given last, as a hash.
    mine: Option<u64>,
    /// Own messages of this room whose ordered push has not come by yet.
    unsettled: Vec<Message>,
    probes: Vec<oneshot::Sender<()>>,
    full_since: Option<Instant>,
    closing: Option<Close>,
}

/// Where an outbox stands in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The room.
    pub room: RoomId,
    /// What the tab has been given of it.
    pub seen: Option<Version>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic leaves behind these locks is whole: each change is a few plain assignments.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// A client has a socket here. One it had before is closed.
    pub fn connect(&self, client: ClientId, user: UserId, dialect: Dialect) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox {
            client,
            user,
            dialect,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            state: Mutex::default(),
            wake: Notify::new(),
        });
        lock(&self.users)
            .entry(user)
            .or_default()
            .push(Arc::clone(&outbox));
        let mut clients = lock(&self.clients);
        if let Some(close) = clients.closing {
            outbox.close(close);
        }
        let former = clients.connected.insert(client, Arc::clone(&outbox));
        drop(clients);
        if let Some(former) = former {
            former.close(Close {
                code: 1000,
                reason: "taken over",
                drain: false,
            });
        }
        outbox
    }

    /// The socket has gone.
    pub fn disconnect(&self, outbox: &Outbox) {
        self.leave_room(outbox);
        {
            let mut users = lock(&self.users);
            if let Some(of_user) = users.get_mut(&outbox.user) {
                of_user.retain(|other| other.serial != outbox.serial);
                if of_user.is_empty() {
                    users.remove(&outbox.user);
                }
            }
        }
        let mut clients = lock(&self.clients);
        let now = clients.connected.get(&outbox.client);
        if now.is_some_and(|now| now.serial == outbox.serial) {
            clients.connected.remove(&outbox.client);
        }
        drop(clients);
        let mut waiting = lock(&outbox.state);
        // Whoever asked whether the socket is alive has their answer.
        waiting.probes.clear();
        waiting.closing.get_or_insert(Close {
            code: 1000,
            reason: "",
            drain: false,
        });
        drop(waiting);
        if lock(&self.users).is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// The socket of a client, if it has one here.
    pub fn of_client(&self, client: ClientId) -> Option<Arc<Outbox>> {
        lock(&self.clients).connected.get(&client).cloned()
    }

    /// The sockets of a user here.
    pub fn of_user(&self, user: UserId) -> Vec<Arc<Outbox>> {
        lock(&self.users).get(&user).cloned().unwrap_or_default()
    }

    /// How many people are here.
    pub fn people(&self) -> usize {
        lock(&self.users).len()
    }

    /// The tab leaves its room and enters another, of which it has been given `seen`. Answers
    /// where it was, and its own messages of that room that it has not been shown.
    pub fn enter(
        &self,
        outbox: &Arc<Outbox>,
        room: RoomId,
        seen: Option<Version>,
    ) -> (Option<Place>, Vec<Message>) {
        self.leave_room(outbox);
        // The room's lock is held until the tab stands in it, so that a room that empties at this
        // moment is not left behind with somebody in it.
        let mut rooms = lock(&self.rooms);
        let active = Arc::clone(rooms.entry(room).or_default());
        let mut active = lock(&active);
        active.active.insert(outbox.serial, Arc::clone(outbox));
        active.plain += usize::from(outbox.dialect == Dialect::Plain);
        drop(rooms);
        let mut waiting = lock(&outbox.state);
        let former = waiting.room.map(|room| Place {
            room,
            seen: waiting.seen,
        });
        waiting.room = Some(room);
        waiting.seen = seen;
        waiting.noted = 0;
        waiting.behind = seen.is_some();
        waiting.soft.retain(|(region, _)| *region != Region::Page);
        let unsettled = std::mem::take(&mut waiting.unsettled);
        drop(waiting);
        outbox.wake.notify_one();
        (former, unsettled)
    }

    fn leave_room(&self, outbox: &Outbox) {
        let Some(room) = lock(&outbox.state).room else {
            return;
        };
        let mut rooms = lock(&self.rooms);
        let Some(active) = rooms.get(&room).cloned() else {
            return;
        };
        let mut active = lock(&active);
        if active.active.remove(&outbox.serial).is_some() {
            active.plain -= usize::from(outbox.dialect == Dialect::Plain);
        }
        if active.active.is_empty() {
            rooms.remove(&room);
        }
    }

    fn room(&self, room: RoomId) -> Option<Arc<Mutex<ActiveRoom>>> {
        lock(&self.rooms).get(&room).cloned()
    }

    /// What this node has shown of a room; nothing at all if nobody here looks at it.
    pub fn shown(&self, room: RoomId) -> Option<Option<Version>> {
        self.room(room).map(|active| lock(&active).shown)
    }

    /// Shows a room's next step to everyone in it: `frames` lead from the version numbered
    /// `follows` to `version`.
    pub fn show(&self, room: RoomId, follows: u64, version: Version, frames: &[Frame]) {
        let Some(active) = self.room(room) else {
            return;
        };
        let mut active = lock(&active);
        active.shown = Some(version);
        for outbox in active
            .active
            .values()
            .filter(|outbox| outbox.dialect == Dialect::V1)
        {
            outbox.offer(room, follows, version, frames);
        }
    }

    /// More has happened in a room than is shown step by step: everyone asks for themselves.
    pub fn skip_to(&self, room: RoomId, version: Version) {
        // A step that follows no version anybody has turns every outbox to "behind".
        self.show(room, u64::MAX, version, &[]);
    }

    /// The room's plain tabs need its newest page. Answers whether the caller is to draw it.
    pub fn want_page(&self, room: RoomId) -> bool {
        let Some(active) = self.room(room) else {
            return false;
        };
        let mut active = lock(&active);
        if active.plain == 0 {
            return false;
        }
        active.page_wanted = true;
        !std::mem::replace(&mut active.page_drawing, true)
    }

    /// Whether a page is still wanted; if so, it is about to be drawn.
    pub fn take_wanted_page(&self, room: RoomId) -> bool {
        let Some(active) = self.room(room) else {
            return false;
        };
        let mut active = lock(&active);
        active.page_drawing = std::mem::take(&mut active.page_wanted);
        active.page_drawing
    }

    /// Nobody draws the room's page any more, though it was wanted.
    pub fn give_up_page(&self, room: RoomId) {
        if let Some(active) = self.room(room) {
            lock(&active).page_drawing = false;
        }
    }

    /// Gives the room's plain tabs its newest page, in place of one that still waits.
    pub fn show_page(&self, room: RoomId, version: Version, frame: &Frame) {
        let Some(active) = self.room(room) else {
            return;
        };
        let active = lock(&active);
        for outbox in active
            .active
            .values()
            .filter(|outbox| outbox.dialect == Dialect::Plain)
        {
            let mut waiting = lock(&outbox.state);
            let newer = waiting
                .seen
                .is_some_and(|seen| seen.number < version.number);
            if waiting.room == Some(room) && newer {
                waiting.seen = Some(version);
                waiting.replace(Region::Page, frame.clone());
                drop(waiting);
                outbox.wake.notify_one();
            }
        }
    }

    /// Gives every tab the list of those who are here, if it differs from what they have.
    pub fn show_online(&self, frame: &Frame) {
        let mut clients = lock(&self.clients);
        if clients
            .online
            .as_ref()
            .is_some_and(|online| online.payload() == frame.payload())
        {
            return;
        }
        clients.online = Some(frame.clone());
        for outbox in clients
            .connected
            .values()
            .filter(|tab| tab.dialect == Dialect::V1)
        {
            outbox.show(Region::Online, frame.clone());
        }
    }

    /// Gives a newcomer the list of those who are here, as it was drawn last.
    pub fn show_online_to(&self, outbox: &Outbox) {
        let clients = lock(&self.clients);
        if let (Dialect::V1, Some(online)) = (outbox.dialect, &clients.online) {
            outbox.show(Region::Online, online.clone());
        }
    }

    /// Closes every socket, and those that come after.
    pub fn close_all(&self, close: Close) {
        lock(&self.clients).closing = Some(close);
        for outbox in lock(&self.users).values().flatten() {
            outbox.close(close);
        }
    }

    /// Waits until no socket is left.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if lock(&self.users).is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

impl Waiting {
    fn push(&mut self, frame: Frame) {
        self.bytes += frame.size();
        self.queue.push_back(frame);
        if self.is_full() && self.full_since.is_none() {
            self.full_since = Some(Instant::now());
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= OUTBOX_BYTES || self.queue.len() >= OUTBOX_FRAMES
    }

    fn replace(&mut self, region: Region, frame: Frame) {
        self.soft.retain(|(other, _)| *other != region);
        self.soft.push((region, frame));
    }

    /// The tab has been given everything up to `version`.
    fn advance(&mut self, version: Version) {
        self.seen = Some(version);
        self.behind = self.noted > version.number;
        self.unsettled
            .retain(|message| message.made > version.number);
    }

    fn fall_behind(&mut self, number: u64) {
        self.noted = self.noted.max(number);
        self.behind = true;
        if self.full_since.is_none() && !self.queue.is_empty() {
            self.full_since = Some(Instant::now());
        }
    }
}

impl Outbox {
    /// Takes a step of the tab's room, if it is the next one and there is room for it.
    fn offer(&self, room: RoomId, follows: u64, version: Version, frames: &[Frame]) {
        let mut waiting = lock(&self.state);
        if waiting.room != Some(room) || waiting.closing.is_some() {
            return;
        }
        match waiting.seen {
            None => waiting.noted = waiting.noted.max(version.number),
            Some(seen) if version.number <= seen.number => return,
            Some(seen) if !waiting.behind && follows == seen.number && !waiting.is_full() => {
                frames.iter().for_each(|frame| waiting.push(frame.clone()));
                waiting.advance(version);
            }
            Some(_) => waiting.fall_behind(version.number),
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Puts frames in, in order, whatever else waits.
    pub fn push(&self, frames: impl IntoIterator<Item = Frame>) {
        let mut waiting = lock(&self.state);
        if waiting.closing.is_none() {
            frames.into_iter().for_each(|frame| waiting.push(frame));
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Puts in what brings the tab to `version` of `room`, unless it has left that room.
    pub fn bring(&self, room: RoomId, version: Version, frames: impl IntoIterator<Item = Frame>) {
        let mut waiting = lock(&self.state);
        if waiting.room == Some(room) && waiting.closing.is_none() {
            frames.into_iter().for_each(|frame| waiting.push(frame));
            waiting.advance(version);
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Shows the person's own list of people, if it differs from what they have.
    pub fn show_mine(&self, frame: &Frame) {
        let hash = Some(BuildHasherDefault::<DefaultHasher>::default().hash_one(frame.payload()));
        let mut waiting = lock(&self.state);
        if waiting.closing.is_none() && waiting.mine != hash {
            waiting.mine = hash;
            waiting.replace(Region::Mine, frame.clone());
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// Shows a region, in place of what waits for it.
    pub fn show(&self, region: Region, frame: Frame) {
        let mut waiting = lock(&self.state);
        if waiting.closing.is_none() {
            waiting.replace(region, frame);
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Where the tab is.
    pub fn place(&self) -> Option<Place> {
        let waiting = lock(&self.state);
        waiting.room.map(|room| Place {
            room,
            seen: waiting.seen,
        })
    }

    /// A message of one's own has been stored. Answers whether its ordered push comes by here; if
    /// not, its key has to be settled otherwise.
    pub fn expect(&self, message: &Message) -> bool {
        let mut waiting = lock(&self.state);
        if waiting.room != Some(message.room) || self.dialect == Dialect::Plain {
            return false;
        }
        if waiting.seen.is_none_or(|seen| seen.number < message.made) {
            waiting.unsettled.push(message.clone());
        }
        true
    }

    /// Ends the socket; nothing more is put in.
    pub fn close(&self, close: Close) {
        lock(&self.state).closing.get_or_insert(close);
        self.wake.notify_one();
    }

    /// Asks the socket for a sign of life; the answer fails when the socket closes first.
    pub fn probe(&self) -> oneshot::Receiver<()> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = lock(&self.state);
        if waiting.closing.is_none() {
            waiting.probes.push(sender);
        }
        drop(waiting);
        self.wake.notify_one();
        answer
    }

    /// Waits until there may be something to do for the socket.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes what the socket is to send next, at most about `bytes`.
    pub fn take(&self, bytes: usize) -> Taken {
        let mut waiting = lock(&self.state);
        let mut taken = Taken {
            frames: Vec::new(),
            probes: std::mem::take(&mut waiting.probes),
        };
        let mut size = 0;
        while size < bytes {
            let Some(frame) = waiting.queue.pop_front() else {
                break;
            };
            size += frame.size();
            taken.frames.push(frame);
        }
        waiting.bytes -= size;
        if waiting.queue.is_empty() {
            // An idle socket keeps no buffer.
            waiting.queue = VecDeque::new();
            waiting.full_since = None;
            let soft = std::mem::take(&mut waiting.soft);
            taken
                .frames
                .extend(soft.into_iter().map(|(_, frame)| frame));
        }
        taken
    }

    /// Whether the tab is to be brought forward: it fell behind, and what waited has been sent.
    pub fn wants_rest(&self) -> bool {
        let waiting = lock(&self.state);
        waiting.behind
            && waiting.queue.is_empty()
            && waiting.closing.is_none()
            && self.dialect == Dialect::V1
    }

    /// Whether the outbox has no room left, so that no more actions are read.
    pub fn is_full(&self) -> bool {
        lock(&self.state).is_full()
    }

    /// How the socket is to end, if it is.
    pub fn closing(&self) -> Option<Close> {
        lock(&self.state).closing
    }

    /// Since when the outbox has been full without draining.
    pub fn full_since(&self) -> Option<Instant> {
        lock(&self.state).full_since
    }
}

/// What a socket takes from its outbox.
pub struct Taken {
    /// To be sent, in this order.
    pub frames: Vec<Frame>,
    /// Those who wait for a sign of life.
    pub probes: Vec<oneshot::Sender<()>>,
}
