//! What waits for one socket: frames in their order, and the newest of each region.
//!
//! An outbox neither waits nor drops silently: one that is full turns to "behind", and its socket
//! asks for the rest when it has drained.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::model::{ClientId, Message, RoomId, UserId, Version};
use crate::protocol::{Dialect, Feed, Frame, Selector};

/// From this many bytes on, an outbox takes no more of its room until it has drained.
pub const OUTBOX_BYTES: usize = 128 * 1024;
/// The same, counted in frames.
pub const OUTBOX_FRAMES: usize = 512;

/// A part of the page that is state: what waits for it is replaced by what comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// A refusal without a key, or a trouble of ours.
    Notice,
    /// What this person is called.
    Name,
    /// The people who concern this person.
    Mine,
    /// The groups: the default ones, and this person's.
    Groups,
    /// The people who are here.
    Online,
    /// What the room is called.
    Heading,
    /// The room's newest page, of a tab that knows no changes.
    Page,
    /// How many people are in the room.
    RoomCount,
    /// Who they are.
    RoomPeople,
    /// Who came to the room and who went.
    RoomMoves,
    /// Who is typing in the room.
    RoomTyping,
    /// The busiest groups, in the lobby.
    LobbyRooms,
}

impl Region {
    /// Whether it is about the room the tab is in, and means nothing in another.
    fn is_of_room(self) -> bool {
        match self {
            Self::Notice | Self::Name | Self::Mine | Self::Groups | Self::Online => false,
            Self::Heading
            | Self::Page
            | Self::RoomCount
            | Self::RoomPeople
            | Self::RoomMoves
            | Self::RoomTyping
            | Self::LobbyRooms => true,
        }
    }
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

/// What waits for one socket.
pub struct Outbox {
    /// Whose it is.
    pub client: ClientId,
    /// Who that is.
    pub user: UserId,
    /// Which words they understand.
    pub dialect: Dialect,
    /// How often the client has been taken over before.
    pub visit: i64,
    pub(super) serial: u64,
    pub(super) state: Mutex<Waiting>,
}

#[derive(Default)]
pub(super) struct Waiting {
    /// Something has happened since the socket last looked, and how to tell it.
    news: bool,
    waker: Option<Waker>,
    /// Its person keeps their name.
    kept: bool,
    room: Option<RoomId>,
    /// What of its room the tab has been given.
    seen: Option<Version>,
    /// The highest number known of while nothing can be given.
    noted: u64,
    behind: bool,
    queue: VecDeque<Frame>,
    bytes: usize,
    soft: Vec<(Region, Frame)>,
    /// What was given last of the lists that are pushed only when they differ, as hashes.
    mine: Option<u64>,
    groups: Option<u64>,
    heading: Option<u64>,
    /// The groups may be others than were given last.
    groups_changed: bool,
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

/// Wakes the socket, if it waits; whoever takes its lock next finds what has been put in.
fn wake(mut waiting: MutexGuard<'_, Waiting>) {
    waiting.news = true;
    let waker = waiting.waker.take();
    drop(waiting);
    if let Some(waker) = waker {
        waker.wake();
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

    fn place(&self) -> Option<Place> {
        let seen = self.seen;
        self.room.map(|room| Place { room, seen })
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
    /// The tab enters a room, of which it has been given `seen`, and is shown these parts of it. Returns
    /// where it was, and its own messages of that room that it has not been shown.
    pub(super) fn enter(
        &self,
        room: RoomId,
        seen: Option<Version>,
        soft: Vec<(Region, Frame)>,
    ) -> (Option<Place>, Vec<Message>) {
        let mut waiting = self.state.lock();
        let former = waiting.place();
        waiting.room = Some(room);
        waiting.seen = seen;
        waiting.noted = 0;
        waiting.behind = seen.is_some();
        waiting.soft.retain(|(region, _)| !region.is_of_room());
        waiting.soft.extend(soft);
        let unsettled = std::mem::take(&mut waiting.unsettled);
        wake(waiting);
        (former, unsettled)
    }

    /// The socket has gone.
    pub(super) fn end(&self) {
        let mut waiting = self.state.lock();
        // Whoever asked whether the socket is alive has their answer.
        waiting.probes.clear();
        waiting.closing.get_or_insert(Close {
            code: 1000,
            reason: "",
            drain: false,
        });
    }

    /// Shows the newest page of the tab's room, in place of one that still waits.
    pub(super) fn show_page(&self, room: RoomId, version: Version, frame: &Frame) {
        let mut waiting = self.state.lock();
        if waiting.room != Some(room) || waiting.closing.is_some() {
            return;
        }
        match waiting.seen {
            None => waiting.noted = waiting.noted.max(version.number),
            Some(seen) if seen.history == version.history && version.number <= seen.number => {}
            Some(_) => {
                waiting.advance(version);
                waiting.replace(Region::Page, frame.clone());
                wake(waiting);
            }
        }
    }

    /// Takes a step of the tab's room, if it is the next one and there is room for it.
    pub(super) fn offer(
        &self,
        room: RoomId,
        follows: u64,
        version: Version,
        continues: bool,
        frames: &[Frame],
    ) {
        let mut waiting = self.state.lock();
        if waiting.room != Some(room) || waiting.closing.is_some() {
            return;
        }
        match waiting.seen {
            None => waiting.noted = waiting.noted.max(version.number),
            // What numbers of another history mean, the store tells.
            Some(seen) if seen.history != version.history && !continues => {
                waiting.noted = 0;
                waiting.fall_behind(version.number);
            }
            Some(seen) if version.number <= seen.number => return,
            Some(seen) if !waiting.behind && follows == seen.number && !waiting.is_full() => {
                frames.iter().for_each(|frame| waiting.push(frame.clone()));
                waiting.advance(version);
            }
            Some(_) => waiting.fall_behind(version.number),
        }
        wake(waiting);
    }

    /// Puts in what need not come, unless the outbox is full or the tab is still on its way into
    /// its room.
    pub fn tell(&self, frame: &Frame) {
        let mut waiting = self.state.lock();
        if waiting.closing.is_none() && waiting.seen.is_some() && !waiting.is_full() {
            waiting.push(frame.clone());
        }
        wake(waiting);
    }

    /// Puts frames in, in order, whatever else waits.
    pub fn push(&self, frames: impl IntoIterator<Item = Frame>) {
        let mut waiting = self.state.lock();
        if waiting.closing.is_none() {
            frames.into_iter().for_each(|frame| waiting.push(frame));
        }
        wake(waiting);
    }

    /// Puts in what brings the tab to `version` of `room`, unless it has left that room or has
    /// more of it already.
    pub fn bring(&self, room: RoomId, version: Version, frames: impl IntoIterator<Item = Frame>) {
        let mut waiting = self.state.lock();
        let has_more = waiting
            .seen
            .is_some_and(|seen| seen.history == version.history && seen.number > version.number);
        if waiting.room == Some(room) && waiting.closing.is_none() && !has_more {
            waiting.soft.retain(|(region, _)| *region != Region::Page);
            frames.into_iter().for_each(|frame| waiting.push(frame));
            waiting.advance(version);
        }
        wake(waiting);
    }

    /// Shows a list, if it differs from what the tab has.
    pub fn show_new(&self, region: Region, frame: &Frame) {
        if self.is_new(region, frame) {
            self.show(region, frame.clone());
        }
    }

    /// Whether a list differs from what the tab was given last, which it is from now on.
    pub fn is_new(&self, region: Region, frame: &Frame) -> bool {
        let payloads: Vec<_> = frame.payloads().collect();
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(payloads);
        let mut waiting = self.state.lock();
        let given = match region {
            Region::Groups => &mut waiting.groups,
            Region::Heading => &mut waiting.heading,
            _ => &mut waiting.mine,
        };
        given.replace(hash) != Some(hash)
    }

    /// The groups that the tab shows may be others now, which its socket finds out.
    pub fn outdate_groups(&self) {
        if self.dialect.has(&Selector::GROUPS_LIST) {
            let mut waiting = self.state.lock();
            waiting.groups_changed = true;
            wake(waiting);
        }
    }

    /// Whether the tab's groups are to be drawn anew, which whoever asks does.
    pub fn take_groups_changed(&self) -> bool {
        std::mem::take(&mut self.state.lock().groups_changed)
    }

    /// Shows a region, in place of what waits for it.
    pub fn show(&self, region: Region, frame: Frame) {
        let mut waiting = self.state.lock();
        if waiting.closing.is_none() {
            waiting.replace(region, frame);
        }
        wake(waiting);
    }

    /// Where the tab is.
    pub fn place(&self) -> Option<Place> {
        self.state.lock().place()
    }

    /// A message of one's own has been stored. Answers whether its ordered push comes by here; if
    /// not, its key has to be settled otherwise.
    pub fn expect(&self, message: &Message) -> bool {
        let mut waiting = self.state.lock();
        if waiting.room != Some(message.room) || self.dialect.feed() != Feed::Changes {
            return false;
        }
        if waiting.seen.is_none_or(|seen| seen.number < message.made) {
            waiting.unsettled.push(message.clone());
        }
        true
    }

    /// The tab's own messages of its room whose ordered push has not come by; whoever takes them
    /// settles them otherwise.
    pub fn take_unsettled(&self) -> Vec<Message> {
        std::mem::take(&mut self.state.lock().unsettled)
    }

    /// Its person keeps their name from now on.
    pub fn keep(&self) {
        self.state.lock().kept = true;
    }

    /// Whether its person keeps their name, so that all their tabs are one person.
    pub fn is_kept(&self) -> bool {
        self.state.lock().kept
    }

    /// Ends the socket; nothing more is put in.
    pub fn close(&self, close: Close) {
        let mut waiting = self.state.lock();
        waiting.closing.get_or_insert(close);
        wake(waiting);
    }

    /// Asks the socket for a sign of life; the answer fails when the socket closes first.
    pub fn probe(&self) -> oneshot::Receiver<()> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.state.lock();
        if waiting.closing.is_none() {
            waiting.probes.push(sender);
        }
        wake(waiting);
        answer
    }

    /// Waits until there may be something to do for the socket.
    pub async fn woken(&self) {
        std::future::poll_fn(|context| self.poll_woken(context)).await;
    }

    /// The same, polled by hand. The one task that asked last is woken.
    pub fn poll_woken(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.state.lock();
        if std::mem::take(&mut waiting.news) {
            return Poll::Ready(());
        }
        match &mut waiting.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Takes what the socket is to send next, at most about `bytes`, once it has sent what it took
    /// before.
    pub fn take(&self, bytes: usize) -> Taken {
        let mut waiting = self.state.lock();
        let mut taken = Taken {
            frames: VecDeque::new(),
            probes: std::mem::take(&mut waiting.probes),
        };
        if waiting.queue.is_empty() {
            // What was taken before has gone out, or nobody would ask for more.
            waiting.full_since = None;
        }
        // Usually that is everything, which then changes hands as it is.
        if waiting.bytes <= bytes {
            taken.frames = std::mem::take(&mut waiting.queue);
            waiting.bytes = 0;
        }
        let mut size = 0;
        while size < bytes {
            let Some(frame) = waiting.queue.pop_front() else {
                break;
            };
            size += frame.size();
            taken.frames.push_back(frame);
        }
        waiting.bytes -= size;
        if waiting.queue.is_empty() {
            // An idle socket keeps no buffer.
            waiting.queue = VecDeque::new();
            if !waiting.soft.is_empty() {
                // What is of a room comes after the room itself.
                let entering = waiting.seen.is_none();
                let soft = std::mem::take(&mut waiting.soft).into_iter();
                let (later, now): (Vec<_>, Vec<_>) =
                    soft.partition(|(region, _)| entering && region.is_of_room());
                waiting.soft = later;
                taken.frames.extend(now.into_iter().map(|(_, frame)| frame));
            }
        }
        taken
    }

    /// Whether the tab has not been given all of its room.
    pub fn is_behind(&self) -> bool {
        self.state.lock().behind
    }

    /// Whether the tab is to be brought forward: it fell behind or its groups have changed, and what
    /// waited has been sent.
    pub fn wants_rest(&self) -> bool {
        let waiting = self.state.lock();
        (waiting.behind || waiting.groups_changed)
            && waiting.queue.is_empty()
            && waiting.closing.is_none()
    }

    /// Whether the outbox has no room left, so that no more actions are read.
    pub fn is_full(&self) -> bool {
        self.state.lock().is_full()
    }

    /// How the socket is to end, if it is.
    pub fn closing(&self) -> Option<Close> {
        self.state.lock().closing
    }

    /// Since when the outbox has been full without draining.
    pub fn full_since(&self) -> Option<Instant> {
        self.state.lock().full_since
    }
}

/// What a socket takes from its outbox.
pub struct Taken {
    /// To be sent, in this order.
    pub frames: VecDeque<Frame>,
    /// Those who wait for a sign of life.
    pub probes: Vec<oneshot::Sender<()>>,
}
