//! What waits for one socket: ordered frames, and the newest of each region.
//!
//! An outbox neither blocks nor drops frames silently. A full outbox is marked as behind, and its
//! socket catches up once it has drained.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::Step;
use crate::metrics::METRICS;
use crate::model::{ClientRef, Message, RoomId, UserId, Version};
use crate::protocol::{Dialect, Feed, Frame, Selector};

/// From this many bytes on, an outbox takes no more changes of its room until it has drained.
pub const OUTBOX_BYTES: usize = 128 * 1024;
/// The same limit in frames.
pub const OUTBOX_FRAMES: usize = 512;

/// The frame of a message besides its text, in bytes.
const FRAME_BYTES: usize = 512;
/// An idle outbox keeps space for this many frames.
const IDLE_FRAMES: usize = 4;

/// A part of the page that is state: a newer frame replaces a waiting one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// A refusal without a key, or a server failure.
    Notice,
    /// This person's display name.
    Name,
    /// How this person is notified.
    Notifications,
    /// The people in this person's own list.
    Mine,
    /// The default groups and this person's groups.
    Groups,
    /// The people online.
    Online,
    /// The name of the room.
    Heading,
    /// The room's newest page, for a tab that gets no changes.
    Page,
    /// How many people are in the room.
    RoomCount,
    /// The people in the room.
    RoomPeople,
    /// What the room is about.
    RoomTopic,
    /// Who joined and who left the room.
    RoomMoves,
    /// Who is typing in the room.
    RoomTyping,
    /// The busiest groups, in the lobby.
    LobbyRooms,
}

impl Region {
    /// Whether the region belongs to the tab's room, and is useless in another.
    fn is_of_room(self) -> bool {
        !matches!(
            self,
            Self::Notice
                | Self::Name
                | Self::Notifications
                | Self::Mine
                | Self::Groups
                | Self::Online
        )
    }
}

/// Why the server closes a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The WebSocket close code.
    pub code: u16,
    /// In a few words.
    pub reason: &'static str,
    /// Whether waiting frames are sent first.
    pub drain: bool,
}

impl Close {
    /// Closes at once.
    pub const fn now(code: u16, reason: &'static str) -> Self {
        let drain = false;
        Self {
            code,
            reason,
            drain,
        }
    }

    /// Closes after the waiting frames.
    pub const fn drained(code: u16, reason: &'static str) -> Self {
        let drain = true;
        Self {
            code,
            reason,
            drain,
        }
    }
}

/// Everything that waits for one socket.
pub struct Outbox {
    /// Its client.
    pub client: ClientRef,
    /// Its user.
    pub user: UserId,
    /// Its dialect.
    pub dialect: Dialect,
    pub(super) serial: u64,
    state: Mutex<Waiting>,
}

/// The connection of an outbox. While its socket has nothing to send, whoever adds a step sends it, so that
/// the socket's task need not be woken.
pub trait Line: Send + Sync {
    /// Sends frames in their order, as far as the connection takes them at once. Returns how many, and how
    /// many bytes of the next. An error is left to the socket, which finds it too.
    fn send(&self, frames: &VecDeque<Frame>) -> (usize, usize);
}

#[derive(Default)]
struct Waiting {
    /// Whether something has happened since the socket last looked; `waker` wakes it.
    news: bool,
    waker: Option<Waker>,
    /// Its person is registered.
    kept: bool,
    /// Its person looks at the tab.
    in_view: bool,
    room: Option<RoomId>,
    /// The version of its room that the tab has.
    seen: Option<Version>,
    /// The highest known number that could not be given.
    noted: u64,
    behind: bool,
    queue: VecDeque<Frame>,
    bytes: usize,
    line: Option<Box<dyn Line>>,
    /// The socket has sent everything that it has taken.
    idle: bool,
    /// How many bytes of the first frame of the queue are sent.
    begun: usize,
    soft: Vec<(Region, Frame)>,
    /// Hashes of the last frames of lists that are pushed only when they differ.
    mine: Option<NonZeroU64>,
    groups: Option<NonZeroU64>,
    heading: Option<NonZeroU64>,
    notifications: Option<NonZeroU64>,
    /// The groups whose news the tab shows.
    listed: Arc<[RoomId]>,
    /// The list of groups is being rendered. News that arrives meanwhile may be missing in it.
    listing: bool,
    /// The list of groups may be out of date.
    groups_changed: bool,
    /// Own messages of this room whose ordered push has not been shown yet.
    unsettled: Vec<Message>,
    probes: Vec<oneshot::Sender<()>>,
    full_since: Option<Instant>,
    closing: Option<Close>,
}

/// The room of an outbox and the version it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The room.
    pub room: RoomId,
    /// The version of it that the tab has.
    pub seen: Option<Version>,
}

/// Wakes the socket, if it waits. The next one to lock it finds the new frames.
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
        if self.is_full() {
            self.full_since.get_or_insert_with(Instant::now);
        }
    }

    /// Sends the queue, as far as the connection takes it, unless the socket is sending.
    fn flush(&mut self) {
        if !self.idle || self.queue.is_empty() {
            return;
        }
        let Some(line) = &self.line else { return };
        let (sent, begun) = line.send(&self.queue);
        for frame in self.queue.drain(..sent) {
            self.bytes -= frame.size();
            METRICS.pushes.inc_by(frame.count() as u64);
        }
        self.begun = begun;
        // The socket sends the rest, and before anything else.
        self.idle = self.queue.is_empty();
        if self.idle {
            self.full_since = None;
            self.queue.shrink_to(IDLE_FRAMES);
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

    /// The regions that are sent now. Those of a room are sent after the room itself.
    fn take_soft(&mut self) -> Vec<Frame> {
        let entering = self.seen.is_none();
        let now = |(region, _): &mut (Region, _)| !(entering && region.is_of_room());
        let now = self.soft.extract_if(.., now);
        let now = now.map(|(_, frame)| frame).collect();
        // Most regions are shown at the beginning. An idle outbox keeps no space for them.
        self.soft.shrink_to_fit();
        now
    }

    /// Whether the socket has something to send or to ask for.
    fn has_more(&self) -> bool {
        self.behind || self.groups_changed || !self.queue.is_empty()
    }

    /// The hash of the list that the tab was last given.
    fn given(&mut self, region: Region) -> &mut Option<NonZeroU64> {
        match region {
            Region::Groups => &mut self.groups,
            Region::Heading => &mut self.heading,
            Region::Notifications => &mut self.notifications,
            _ => &mut self.mine,
        }
    }

    /// The tab now has everything up to `version`.
    fn advance(&mut self, version: Version) {
        self.seen = Some(version);
        self.behind = self.noted > version.number;
        self.unsettled
            .retain(|message| message.made > version.number);
    }

    fn fall_behind(&mut self, number: u64) {
        self.noted = self.noted.max(number);
        if !std::mem::replace(&mut self.behind, true) {
            METRICS.fell_behind.inc();
        }
        if !self.queue.is_empty() {
            self.full_since.get_or_insert_with(Instant::now);
        }
    }
}

impl Outbox {
    /// An empty outbox; `serial` tells it apart from all others of the hub.
    pub(super) fn new(client: ClientRef, user: UserId, dialect: Dialect, serial: u64) -> Self {
        Self {
            client,
            user,
            dialect,
            serial,
            state: Mutex::default(),
        }
    }

    /// The tab enters a room, of which it already has `seen`, and is shown these regions. Returns the
    /// place it left, and its own messages there that it has not been shown.
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

    /// The socket has closed.
    pub(super) fn end(&self) {
        let mut waiting = self.state.lock();
        // Dropping the probes answers them: the socket is not alive.
        waiting.probes.clear();
        waiting.closing.get_or_insert(Close::now(1000, ""));
    }

    /// Shows the newest page of the tab's room. It replaces a page that is still waiting.
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

    /// Takes the steps of the tab's room, one after the other, that are the next one and for which there is
    /// space.
    pub(super) fn offer(&self, steps: &[Step]) {
        let mut waiting = self.state.lock();
        let unsettled = waiting.unsettled.len();
        for step in steps {
            self.take_step(&mut waiting, step);
        }
        waiting.flush();
        // A socket whose own messages have come back may go on with the next.
        if waiting.has_more() || waiting.unsettled.len() < unsettled {
            wake(waiting);
        }
    }

    fn take_step(&self, waiting: &mut Waiting, step: &Step) {
        let version = step.version;
        if waiting.room != Some(version.room) || waiting.closing.is_some() {
            return;
        }
        let is_ours = |(dialect, _): &&(Dialect, Option<Frame>)| *dialect == self.dialect;
        let (follows, frames) = match self.dialect.feed() {
            Feed::Changes => (step.follows, &step.frames[..]),
            Feed::Pages | Feed::Nothing => return,
            Feed::Json => match step.for_programs.iter().find(is_ours) {
                Some((_, frame)) => (step.follows, frame.as_slice()),
                // No client has the version that this step follows.
                None => (u64::MAX, &[][..]),
            },
        };
        if waiting.is_full() {
            waiting.flush();
        }
        match waiting.seen {
            None => waiting.noted = waiting.noted.max(version.number),
            // The numbers of another history may mean something else, so the tab catches up.
            Some(seen) if seen.history != version.history && !step.continues => {
                waiting.noted = 0;
                waiting.fall_behind(version.number);
            }
            Some(seen) if version.number <= seen.number => {}
            Some(seen) if !waiting.behind && follows == seen.number && !waiting.is_full() => {
                frames.iter().for_each(|frame| waiting.push(frame.clone()));
                waiting.advance(version);
            }
            Some(_) => waiting.fall_behind(version.number),
        }
        if self.dialect.has(&Selector::MY_REACTIONS) {
            let own = step.own.iter().filter(|(user, _)| *user == self.user);
            own.for_each(|(_, frame)| waiting.push(frame.clone()));
        }
    }

    /// Adds an optional frame, unless the outbox is full or the tab is still entering its room.
    pub fn tell(&self, frame: &Frame) {
        let mut waiting = self.state.lock();
        if waiting.closing.is_none() && waiting.seen.is_some() && !waiting.is_full() {
            waiting.push(frame.clone());
        }
        wake(waiting);
    }

    /// Adds frames in order, even if the outbox is full.
    pub fn push(&self, frames: impl IntoIterator<Item = Frame>) {
        let mut waiting = self.state.lock();
        if waiting.closing.is_none() {
            frames.into_iter().for_each(|frame| waiting.push(frame));
        }
        wake(waiting);
    }

    /// Adds the frames that lead the tab to `version` of `room`, unless it has left the room or has a
    /// newer version.
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

    /// Shows a list, if it differs from the one that the tab has.
    pub fn show_new(&self, region: Region, frame: &Frame) {
        if self.is_new(region, frame) {
            self.show(region, frame.clone());
        }
    }

    /// Whether a list differs from the one that the tab was last given. Remembers it as the new one.
    pub fn is_new(&self, region: Region, frame: &Frame) -> bool {
        let payloads: Vec<_> = frame.payloads().collect();
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(payloads);
        let mut waiting = self.state.lock();
        if region == Region::Groups {
            waiting.listing = false;
        }
        // Zero is left for having none, which saves memory.
        let hash = NonZeroU64::MIN.saturating_add(hash);
        waiting.given(region).replace(hash) != Some(hash)
    }

    /// The list of groups may be out of date. The socket updates it.
    pub fn outdate_groups(&self) {
        if self.dialect.has(&Selector::GROUPS_LIST) {
            let mut waiting = self.state.lock();
            waiting.groups_changed = true;
            wake(waiting);
        }
    }

    /// The list of groups is going to be read and rendered for the tab.
    pub fn begin_list(&self) {
        self.state.lock().listing = true;
    }

    /// The tab lists these groups, and is shown their news from now on.
    pub fn list(&self, groups: Arc<[RoomId]>) {
        self.state.lock().listed = groups;
    }

    /// The tab is shown no news of that group until its list has been rendered again.
    pub(super) fn unlist(&self, group: RoomId) {
        let mut waiting = self.state.lock();
        if waiting.listed.contains(&group) {
            let listed = waiting.listed.iter().copied();
            waiting.listed = listed.filter(|room| *room != group).collect();
        }
    }

    /// The groups that the tab lists.
    pub(super) fn listed(&self) -> Arc<[RoomId]> {
        Arc::clone(&self.state.lock().listed)
    }

    /// Shows news of groups, made of the groups that the tab lists but does not show.
    /// It is sent when the outbox is flushed.
    pub(super) fn show_news(&self, frame: impl FnOnce(Vec<RoomId>) -> Option<Frame>) {
        let mut waiting = self.state.lock();
        waiting.groups_changed |= waiting.listing;
        let listed = waiting.listed.iter().copied();
        let elsewhere = listed.filter(|room| waiting.room != Some(*room));
        let Some(frame) = frame(elsewhere.collect()) else {
            return;
        };
        match waiting.is_full() || waiting.closing.is_some() {
            // The list is rendered when there is space.
            true => waiting.groups_changed = true,
            false => waiting.push(frame),
        }
        // The list no longer is what the tab was last given.
        waiting.groups = None;
    }

    /// The tab has changed a list by itself, so that it may need the same one again.
    pub fn forget(&self, region: Region) {
        *self.state.lock().given(region) = None;
    }

    /// Whether the list of groups has to be rendered again, by the caller.
    pub fn take_groups_changed(&self) -> bool {
        std::mem::take(&mut self.state.lock().groups_changed)
    }

    /// Shows a region. It replaces a frame of the region that is still waiting.
    pub fn show(&self, region: Region, frame: Frame) {
        self.put(region, frame);
        wake(self.state.lock());
    }

    /// The same, but it is sent when the outbox is flushed.
    pub(super) fn put(&self, region: Region, frame: Frame) {
        let mut waiting = self.state.lock();
        if waiting.closing.is_none() {
            waiting.replace(region, frame);
        }
    }

    /// Sends what waits. What the connection does not take, the socket sends.
    pub(super) fn flush(&self) {
        let mut waiting = self.state.lock();
        if waiting.idle && waiting.queue.is_empty() && waiting.line.is_some() {
            let soft = waiting.take_soft();
            soft.into_iter().for_each(|frame| waiting.push(frame));
        }
        waiting.flush();
        if waiting.has_more() || !waiting.soft.is_empty() {
            wake(waiting);
        }
    }

    /// Where the tab is.
    pub fn place(&self) -> Option<Place> {
        self.state.lock().place()
    }

    /// One of the client's own messages was stored. Returns whether its ordered push will come through
    /// this outbox; if not, its key must be settled in another way.
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

    /// About how many bytes the frames of the tab's own messages have that it has not been shown yet.
    pub fn unsettled_bytes(&self) -> usize {
        let waiting = self.state.lock();
        let texts = waiting.unsettled.iter().map(|message| message.text.len());
        texts.map(|text| text + FRAME_BYTES).sum()
    }

    /// Takes the tab's own messages of its room whose ordered push has not been shown. The caller
    /// settles them in another way.
    pub fn take_unsettled(&self) -> Vec<Message> {
        std::mem::take(&mut self.state.lock().unsettled)
    }

    /// Its person has registered.
    pub fn keep(&self) {
        self.state.lock().kept = true;
    }

    /// Whether its person is registered, so that all their tabs are one person.
    pub fn is_kept(&self) -> bool {
        self.state.lock().kept
    }

    /// Its person begins or ends to look at the tab. Returns whether that is new.
    pub fn look(&self, on: bool) -> bool {
        std::mem::replace(&mut self.state.lock().in_view, on) != on
    }

    /// Whether its person looks at the tab.
    pub fn is_in_view(&self) -> bool {
        self.state.lock().in_view
    }

    /// Closes the socket; nothing more is added.
    pub fn close(&self, close: Close) {
        let mut waiting = self.state.lock();
        waiting.closing.get_or_insert(close);
        wake(waiting);
    }

    /// Checks whether the socket is alive. The answer fails if the socket closes first.
    pub fn probe(&self) -> oneshot::Receiver<()> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.state.lock();
        if waiting.closing.is_none() {
            waiting.probes.push(sender);
        }
        wake(waiting);
        answer
    }

    /// Waits until there may be something for the socket to do.
    pub async fn woken(&self) {
        std::future::poll_fn(|context| self.poll_woken(context)).await;
    }

    /// The same, polled by hand. Only the last task to poll is woken.
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

    /// The socket is connected.
    pub fn connect(&self, line: impl Line + 'static) {
        self.state.lock().line = Some(Box::new(line));
    }

    /// From now on only the socket sends. Returns the frame that is partly sent, if there is one, and how many
    /// bytes of it are.
    pub fn hang_up(&self) -> Option<(Frame, usize)> {
        let mut waiting = self.state.lock();
        waiting.line = None;
        let begun = std::mem::take(&mut waiting.begun);
        if begun == 0 {
            return None;
        }
        let first = waiting.queue.pop_front()?;
        waiting.bytes -= first.size();
        Some((first, begun))
    }

    /// The socket has sent everything that it has taken, and has nothing of its own to send.
    pub fn rest(&self) {
        self.state.lock().idle = true;
    }

    /// Takes what the socket sends next, about `bytes` at most. To be called once everything taken
    /// before was sent.
    pub fn take(&self, bytes: usize) -> Taken {
        let mut waiting = self.state.lock();
        waiting.idle = false;
        let mut frames = VecDeque::new();
        let probes = std::mem::take(&mut waiting.probes);
        let begun = std::mem::take(&mut waiting.begun);
        if waiting.queue.is_empty() {
            // Everything taken before was sent, or the socket would not ask for more.
            waiting.full_since = None;
        }
        // Usually that is everything, so the whole queue is moved.
        if waiting.bytes <= bytes {
            frames = std::mem::take(&mut waiting.queue);
            waiting.bytes = 0;
        }
        let mut size = 0;
        while size < bytes {
            let Some(frame) = waiting.queue.pop_front() else {
                break;
            };
            size += frame.size();
            frames.push_back(frame);
        }
        waiting.bytes -= size;
        if waiting.queue.is_empty() {
            // An idle socket keeps no large buffer.
            waiting.queue.shrink_to(IDLE_FRAMES);
            frames.extend(waiting.take_soft());
        }
        Taken {
            frames,
            begun,
            probes,
        }
    }

    /// How much waits.
    pub(super) fn depth(&self) -> Depth {
        let waiting = self.state.lock();
        let soft = waiting.soft.iter();
        Depth {
            frames: waiting.queue.len() + waiting.soft.len(),
            bytes: waiting.bytes + soft.map(|(_, frame)| frame.size()).sum::<usize>(),
            behind: waiting.behind,
        }
    }

    /// Whether the tab does not have the latest version of its room.
    pub fn is_behind(&self) -> bool {
        self.state.lock().behind
    }

    /// Whether the tab has to catch up: it fell behind or the groups have changed, and everything that
    /// waited has been sent.
    pub fn wants_rest(&self) -> bool {
        let waiting = self.state.lock();
        (waiting.behind || waiting.groups_changed)
            && waiting.queue.is_empty()
            && waiting.closing.is_none()
    }

    /// Whether the outbox has no space left, so that no more actions are read.
    pub fn is_full(&self) -> bool {
        self.state.lock().is_full()
    }

    /// How the socket must be closed, if it must.
    pub fn closing(&self) -> Option<Close> {
        self.state.lock().closing
    }

    /// Since when the outbox has been full without draining.
    pub fn full_since(&self) -> Option<Instant> {
        self.state.lock().full_since
    }
}

/// How much waits in an outbox, and whether its tab is behind.
pub(super) struct Depth {
    pub(super) frames: usize,
    pub(super) bytes: usize,
    pub(super) behind: bool,
}

/// What a socket takes from its outbox.
pub struct Taken {
    /// Frames to send, in this order.
    pub frames: VecDeque<Frame>,
    /// How many bytes of the first are already sent.
    pub begun: usize,
    /// Probes to answer.
    pub probes: Vec<oneshot::Sender<()>>,
}
