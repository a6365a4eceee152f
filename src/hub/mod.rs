//! Which clients of this node are in which room.
//!
//! The hub puts frames into [outboxes](Outbox) and keeps their order. It knows no SQL, HTML or sockets.

mod fan_out;
mod outbox;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::{ClientId, ClientRef, Message, RoomId, UserId, Version};
use crate::protocol::{Dialect, Frame, Selector};

use fan_out::FanOut;
pub use fan_out::Step;
use outbox::Depth;
pub use outbox::{Close, Line, OUTBOX_BYTES, OUTBOX_FRAMES, Outbox, Place, Region, Taken};

/// All outboxes of this node.
// A panic leaves consistent data behind these locks, since each change is a few plain assignments.
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
    /// The list of people online that every tab shows, and how many people it lists.
    online: Option<(usize, Frame)>,
    /// The server is stopping: new sockets are closed as well.
    closing: Option<Close>,
}

/// How many sockets a node has, and what waits for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The sockets that use each dialect, in the order of [`Dialect::ALL`].
    pub sockets: [usize; Dialect::ALL.len()],
    /// The people with a socket.
    pub people: usize,
    /// The rooms that a socket shows.
    pub rooms: usize,
    /// The frames that wait.
    pub frames: usize,
    /// Their bytes.
    pub bytes: usize,
    /// The bytes in the fullest outbox.
    pub fullest: usize,
    /// The sockets that are behind.
    pub behind: usize,
}

/// The clients that are in a room on this node.
#[derive(Default)]
struct ActiveRoom {
    /// The version that this node has last shown.
    shown: Option<Version>,
    /// Shared with a fan-out under way. It is copied when somebody enters or leaves meanwhile.
    tabs: Arc<Vec<Arc<Outbox>>>,
    fan_out: FanOut,
    /// How many clients use each dialect.
    dialects: [usize; Dialect::ALL.len()],
    /// The regions of the room that each dialect is shown, besides the messages.
    soft: Vec<(Dialect, Region, Frame)>,
    /// The regions that single people are shown instead.
    own: Vec<(Region, UserId, Frame)>,
    /// Whether the newest page is wanted for plain tabs, and whether it is being rendered.
    page_wanted: bool,
    page_rendering: bool,
}

impl ActiveRoom {
    /// Returns the tabs to flush.
    fn show(
        &mut self,
        dialect: Dialect,
        region: Region,
        frame: &Frame,
        but: &[(UserId, Frame)],
    ) -> Vec<Arc<Outbox>> {
        let same = |one: &Frame, other: &Frame| one.payloads().eq(other.payloads());
        let is_it = |other: &(Dialect, Region, Frame)| (other.0, other.1) == (dialect, region);
        let at = self.soft.iter().position(is_it);
        let shown = at.map(|at| self.soft.swap_remove(at).2);
        self.soft.push((dialect, region, frame.clone()));
        let shown_own: Vec<_> = self.own.extract_if(.., |own| own.0 == region).collect();
        if but.is_empty()
            && shown_own.is_empty()
            && shown.as_ref().is_some_and(|shown| same(shown, frame))
        {
            return Vec::new();
        }
        let mut tabs = Vec::new();
        for outbox in self.speaking(dialect) {
            let own = but.iter().find(|(user, _)| *user == outbox.user);
            let frame = own.map_or(frame, |(_, own)| own);
            let had = shown_own.iter().find(|own| own.1 == outbox.user);
            let had = had.map(|(.., own)| own).or(shown.as_ref());
            if !had.is_some_and(|had| same(had, frame)) {
                outbox.put(region, frame.clone());
                tabs.push(Arc::clone(outbox));
            }
        }
        let own = but
            .iter()
            .map(|(user, frame)| (region, *user, frame.clone()));
        self.own.extend(own);
        tabs
    }

    fn speaking(&self, dialect: Dialect) -> impl Iterator<Item = &Arc<Outbox>> {
        let outboxes = self.tabs.iter();
        outboxes.filter(move |outbox| outbox.dialect == dialect)
    }
}

impl Hub {
    /// A client has connected a socket. If a client has two sockets, the one of the later visit stays
    /// and the other is closed, whichever connects first.
    pub fn connect(&self, client: ClientRef, user: UserId, dialect: Dialect) -> Arc<Outbox> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::new(Outbox::new(client, user, dialect, serial));
        let mut users = self.users.lock();
        // Most people have one socket.
        let of_user = users.entry(user).or_insert_with(|| Vec::with_capacity(1));
        of_user.push(Arc::clone(&outbox));
        drop(users);
        let mut clients = self.clients.lock();
        if let Some(close) = clients.closing {
            outbox.close(close);
        }
        let overtaken = match clients.connected.entry(client.client) {
            Entry::Occupied(later) if later.get().client.visit > client.visit => {
                Some(Arc::clone(&outbox))
            }
            Entry::Occupied(mut former) => Some(former.insert(Arc::clone(&outbox))),
            Entry::Vacant(place) => {
                place.insert(Arc::clone(&outbox));
                None
            }
        };
        drop(clients);
        if let Some(overtaken) = overtaken {
            overtaken.close(Close::now(1000, "taken over"));
        }
        outbox
    }

    /// The socket has closed.
    pub fn disconnect(&self, outbox: &Outbox) {
        self.leave_room(outbox);
        {
            let mut users = self.users.lock();
            if let Some(of_user) = users.get_mut(&outbox.user) {
                of_user.retain(|other| other.serial != outbox.serial);
                if of_user.is_empty() {
                    users.remove(&outbox.user);
                }
            }
        }
        let mut clients = self.clients.lock();
        let now = clients.connected.get(&outbox.client.client);
        if now.is_some_and(|now| now.serial == outbox.serial) {
            clients.connected.remove(&outbox.client.client);
        }
        drop(clients);
        outbox.end();
        if self.users.lock().is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// The socket of a client, if it has one on this node.
    pub fn of_client(&self, client: ClientId) -> Option<Arc<Outbox>> {
        self.clients.lock().connected.get(&client).cloned()
    }

    /// The sockets of a user on this node.
    pub fn of_user(&self, user: UserId) -> Vec<Arc<Outbox>> {
        self.users.lock().get(&user).cloned().unwrap_or_default()
    }

    /// All sockets on this node.
    pub fn all(&self) -> Vec<Arc<Outbox>> {
        self.users.lock().values().flatten().cloned().collect()
    }

    /// The users who have a socket on this node.
    pub fn users(&self) -> Vec<UserId> {
        self.users.lock().keys().copied().collect()
    }

    /// Whether a user has a socket on this node.
    pub fn has_user(&self, user: UserId) -> bool {
        self.users.lock().contains_key(&user)
    }

    /// Whether any client on this node is in a room.
    pub fn has_room(&self, room: RoomId) -> bool {
        self.rooms.lock().contains_key(&room)
    }

    /// How many sockets there are, and what waits for them.
    pub fn load(&self) -> Load {
        let mut load = Load {
            people: self.people(),
            rooms: self.rooms.lock().len(),
            ..Load::default()
        };
        for room in self.rooms.lock().values() {
            let (frames, bytes) = room.lock().fan_out.depth();
            load.frames += frames;
            load.bytes += bytes;
        }
        for outbox in self.all() {
            let Depth {
                frames,
                bytes,
                behind,
            } = outbox.depth();
            load.sockets[outbox.dialect as usize] += 1;
            load.frames += frames;
            load.bytes += bytes;
            load.fullest = load.fullest.max(bytes);
            load.behind += usize::from(behind);
        }
        load
    }

    /// The sockets on this node that are in a room.
    pub fn in_room(&self, room: RoomId) -> Vec<Arc<Outbox>> {
        self.with(room, |active| active.tabs.to_vec())
            .unwrap_or_default()
    }

    /// The registered users who are in a room on this node.
    pub fn registered_in(&self, room: RoomId) -> Vec<UserId> {
        let tabs = self.in_room(room);
        let kept = tabs.iter().filter(|tab| tab.is_kept());
        let mut users: Vec<_> = kept.map(|tab| tab.user).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// How many people are connected to this node.
    pub fn people(&self) -> usize {
        self.users.lock().len()
    }

    /// Moves the tab from its room to another, of which it already has `seen`. Returns the place it
    /// left, and its own messages there that it has not been shown.
    pub fn enter(
        &self,
        outbox: &Arc<Outbox>,
        room: RoomId,
        seen: Option<Version>,
    ) -> (Option<Place>, Vec<Message>) {
        self.leave_room(outbox);
        // The lock on all rooms is held until the tab is in the room. Otherwise a room that becomes
        // empty at this moment could be removed with the tab in it.
        let mut rooms = self.rooms.lock();
        let active = Arc::clone(rooms.entry(room).or_default());
        let mut active = active.lock();
        Arc::make_mut(&mut active.tabs).push(Arc::clone(outbox));
        active.dialects[outbox.dialect as usize] += 1;
        drop(rooms);
        let soft: Vec<_> = active
            .soft
            .iter()
            .filter(|(dialect, ..)| *dialect == outbox.dialect)
            .map(|(_, region, frame)| (*region, frame.clone()))
            .collect();
        outbox.enter(room, seen, soft)
    }

    fn leave_room(&self, outbox: &Outbox) {
        let Some(Place { room, .. }) = outbox.place() else {
            return;
        };
        let mut rooms = self.rooms.lock();
        let Some(active) = rooms.get(&room).cloned() else {
            return;
        };
        let mut active = active.lock();
        let mut tabs = active.tabs.iter();
        if let Some(at) = tabs.position(|tab| std::ptr::eq(&**tab, outbox)) {
            Arc::make_mut(&mut active.tabs).swap_remove(at);
            active.dialects[outbox.dialect as usize] -= 1;
        }
        if active.tabs.is_empty() {
            rooms.remove(&room);
        }
    }

    /// Locks a room and acts on it, if any client on this node is in it.
    fn with<T>(&self, room: RoomId, act: impl FnOnce(&mut ActiveRoom) -> T) -> Option<T> {
        let active = self.rooms.lock().get(&room).cloned()?;
        let done = act(&mut active.lock());
        Some(done)
    }

    /// The rooms that have a client on this node.
    pub fn active_rooms(&self) -> Vec<RoomId> {
        self.rooms.lock().keys().copied().collect()
    }

    /// The version of a room that this node has shown. `None` if no client here is in the room.
    pub fn shown(&self, room: RoomId) -> Option<Option<Version>> {
        self.with(room, |active| active.shown)
    }

    /// A tab has been given this version of its room. If nothing was shown here yet, the next step must
    /// follow this version.
    pub fn begins(&self, version: Version) {
        self.with(version.room, |active| {
            active.shown.get_or_insert(version);
        });
    }

    /// Whether any client here is in a room with that dialect.
    pub fn has_dialect(&self, room: RoomId, dialect: Dialect) -> bool {
        self.with(room, |active| active.dialects[dialect as usize] > 0)
            .unwrap_or_default()
    }

    /// Shows a room's next step to everyone in it, after those before it. Callers make sure that it follows
    /// what was shown here before. In a larger room it goes on in the background.
    pub fn show(&self, step: Step) {
        self.fan_out(step.version.room, |room| {
            let continues = room.shown.replace(step.version).is_some() && step.follows != u64::MAX;
            Step { continues, ..step }
        });
    }

    /// Shows a step again that counts as shown, because a tab was brought beyond it. Others may lack it.
    pub fn show_again(&self, step: Step) {
        self.fan_out(step.version.room, |_| step);
    }

    /// Shows a frame in the tabs that a user has in a room, and in no others.
    pub fn show_own(&self, user: UserId, room: RoomId, frame: Frame) {
        self.fan_out(room, |_| Step::of_own(room, vec![(user, frame)]));
    }

    fn fan_out(&self, room: RoomId, step: impl FnOnce(&mut ActiveRoom) -> Step) {
        let Some(active) = self.rooms.lock().get(&room).cloned() else {
            return;
        };
        let mut room = active.lock();
        let step = step(&mut room);
        room.fan_out.add(step);
        let begins = room.fan_out.begin();
        drop(room);
        if begins {
            fan_out::run(active);
        }
    }

    /// Sends a frame that is not part of a room's history to everyone there with that dialect. Slow
    /// clients do not get it.
    pub fn tell(&self, room: RoomId, dialect: Dialect, frame: &Frame) {
        self.with(room, |active| {
            let outboxes = active.speaking(dialect);
            outboxes.for_each(|outbox| outbox.tell(frame));
        });
    }

    /// A room changed too much for step-by-step updates: each tab catches up on its own.
    pub fn skip_to(&self, version: Version) {
        self.show(Step::leap(version));
    }

    /// The room's plain tabs need its newest page. Returns whether the caller has to render it.
    pub fn want_page(&self, room: RoomId) -> bool {
        let wanted = self.with(room, |active| {
            active.page_wanted = active.dialects[Dialect::Plain as usize] > 0;
            active.page_wanted && !std::mem::replace(&mut active.page_rendering, true)
        });
        wanted.unwrap_or_default()
    }

    /// Whether a page is still wanted. If so, the caller renders it.
    pub fn take_wanted_page(&self, room: RoomId) -> bool {
        let wanted = self.with(room, |active| {
            active.page_rendering = std::mem::take(&mut active.page_wanted);
            active.page_rendering
        });
        wanted.unwrap_or_default()
    }

    /// The page could not be rendered, though it was wanted.
    pub fn give_up_page(&self, room: RoomId) {
        self.with(room, |active| active.page_rendering = false);
    }

    /// Gives the room's plain tabs its newest page. It replaces a page that is still waiting.
    pub fn show_page(&self, room: RoomId, version: Version, frame: &Frame) {
        self.with(room, |active| {
            let outboxes = active.speaking(Dialect::Plain);
            outboxes.for_each(|outbox| outbox.show_page(room, version, frame));
        });
    }

    /// Gives every tab in a room that uses this dialect a region that is the same for all of them, if
    /// it differs from what they have. Tabs that enter later get it too. The people in `but` get
    /// something else instead.
    pub fn show_in(
        &self,
        room: RoomId,
        dialect: Dialect,
        region: Region,
        frame: &Frame,
        but: &[(UserId, Frame)],
    ) {
        let tabs = self.with(room, |active| active.show(dialect, region, frame, but));
        fan_out::flush(tabs.unwrap_or_default());
    }

    /// Gives the tabs of these people that use this dialect the name of a room as they see it, if it
    /// differs from what they have.
    pub fn show_heading(&self, room: RoomId, dialect: Dialect, headings: &[(UserId, Frame)]) {
        self.with(room, |active| {
            for outbox in active.speaking(dialect) {
                if let Some((_, heading)) = headings.iter().find(|(user, _)| *user == outbox.user) {
                    outbox.show_new(Region::Heading, heading);
                }
            }
        });
    }

    /// Gives every tab the list of people online, if it differs from what they have. `listed` is the
    /// number of people in it.
    pub fn show_online(&self, listed: usize, frame: &Frame) {
        let mut clients = self.clients.lock();
        if clients
            .online
            .as_ref()
            .is_some_and(|(_, online)| online.payloads().eq(frame.payloads()))
        {
            return;
        }
        clients.online = Some((listed, frame.clone()));
        let tabs = clients.connected.values();
        let tabs = tabs.filter(|tab| tab.dialect.has(&Selector::USERS_ONLINE));
        let tabs: Vec<_> = tabs.cloned().collect();
        tabs.iter()
            .for_each(|tab| tab.put(Region::Online, frame.clone()));
        drop(clients);
        fan_out::flush(tabs);
    }

    /// Gives a new tab the latest list of people online. A list that says “nobody else is online” is
    /// skipped if that is no longer true.
    pub fn show_online_to(&self, outbox: &Outbox) {
        let people = self.people();
        let clients = self.clients.lock();
        match &clients.online {
            Some((listed, online))
                if outbox.dialect.has(&Selector::USERS_ONLINE) && (*listed > 1 || people == 1) =>
            {
                outbox.show(Region::Online, online.clone());
            }
            _ => {}
        }
    }

    /// The groups that any tab on this node lists.
    pub fn listed(&self) -> HashSet<RoomId> {
        let tabs = self.all();
        let lists = tabs.iter().map(|tab| tab.listed());
        lists.flat_map(|list| list.to_vec()).collect()
    }

    /// Shows nobody news of that group until their list has been rendered again.
    pub fn unlist(&self, group: RoomId) {
        self.all().iter().for_each(|tab| tab.unlist(group));
    }

    /// Shows every tab the news of the groups that it lists, in one frame.
    pub fn show_news(&self, news: &HashMap<RoomId, Frame>) {
        // Most tabs list the same groups.
        let mut joined: HashMap<Vec<RoomId>, Frame> = HashMap::new();
        let tabs = self.all();
        for outbox in &tabs {
            outbox.show_news(|mut listed| {
                listed.retain(|room| news.contains_key(room));
                if listed.is_empty() {
                    return None;
                }
                let frame = joined.entry(listed).or_insert_with_key(|rooms| {
                    Frame::joined(rooms.iter().map(|room| news[room].clone()).collect())
                });
                Some(frame.clone())
            });
        }
        fan_out::flush(tabs);
    }

    /// Closes every socket, and every new one.
    pub fn close_all(&self, close: Close) {
        self.clients.lock().closing = Some(close);
        for outbox in self.users.lock().values().flatten() {
            outbox.close(close);
        }
    }

    /// Waits until no socket is left.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.users.lock().is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Waker};

    use super::fan_out::LONGEST_PAUSE;
    use super::*;
    use crate::model::{Author, History, MessageId, Millis};
    use crate::protocol::Push;

    const ROOM: RoomId = RoomId(1);
    const OTHER: RoomId = RoomId(2);
    const MUCH: usize = usize::MAX;

    fn version(room: RoomId, number: u64) -> Version {
        Version {
            room,
            history: History(1),
            number,
        }
    }

    fn frame(text: &str) -> Frame {
        Push::inner(Selector::NOTICE, text.to_owned()).encode()
    }

    /// A frame of at least this many bytes.
    fn large(bytes: usize) -> Frame {
        frame(&"x".repeat(bytes))
    }

    fn message(room: RoomId, made: u64) -> Message {
        Message {
            id: MessageId(made.cast_signed()),
            room,
            author: Author {
                id: UserId(1),
                user_name: "anna".to_owned(),
                name: "anna".to_owned(),
            },
            text: "hello".to_owned(),
            key: None,
            made,
            changed: made,
            created_at: Millis(0),
            edited: false,
            deleted: false,
            worded: made,
            reactions: Vec::new(),
            by_moderator: false,
            html: None,
            reply_to: None,
            files: Vec::new(),
        }
    }

    fn visit(client: i64, visit: i64) -> ClientRef {
        let client = ClientId(client);
        ClientRef { client, visit }
    }

    /// A tab that is in a room and has its version `seen`.
    fn tab(hub: &Hub, client: i64, dialect: Dialect, seen: u64) -> Arc<Outbox> {
        let outbox = hub.connect(visit(client, 0), UserId(client), dialect);
        hub.enter(&outbox, ROOM, None);
        outbox.bring(ROOM, version(ROOM, seen), []);
        outbox
    }

    fn show(hub: &Hub, follows: u64, version: Version, frames: &[Frame]) {
        hub.show(Step::new(follows, version, frames.to_vec()));
    }

    /// Shows a step of one frame, whose text is its number.
    fn step(hub: &Hub, room: RoomId, number: u64) {
        let text = frame(&number.to_string());
        show(hub, number - 1, version(room, number), &[text]);
    }

    /// The texts of the frames that the socket takes.
    fn taken(outbox: &Outbox) -> Vec<String> {
        let frames = outbox.take(MUCH).frames;
        let text = |payload: &[u8]| {
            let push: serde_json::Value = serde_json::from_slice(payload).expect("a push is JSON");
            push["html"].as_str().unwrap_or_default().to_owned()
        };
        frames.iter().flat_map(Frame::payloads).map(text).collect()
    }

    fn seen(outbox: &Outbox) -> Option<u64> {
        outbox
            .place()
            .and_then(|place| place.seen)
            .map(|seen| seen.number)
    }

    #[test]
    fn steps_reach_everyone_in_the_room_in_their_order_and_nobody_else() {
        let hub = Hub::default();
        let here = [tab(&hub, 1, Dialect::V1, 4), tab(&hub, 2, Dialect::V1, 4)];
        let elsewhere = hub.connect(visit(3, 0), UserId(3), Dialect::V1);
        hub.enter(&elsewhere, OTHER, None);
        elsewhere.bring(OTHER, version(OTHER, 4), []);
        (5..=7).for_each(|number| step(&hub, ROOM, number));
        for outbox in &here {
            assert_eq!(taken(outbox), ["5", "6", "7"]);
            assert_eq!(seen(outbox), Some(7));
        }
        assert_eq!(taken(&elsewhere), [""; 0]);
        assert!(!elsewhere.wants_rest());
        assert_eq!(hub.shown(ROOM).flatten(), Some(version(ROOM, 7)));
        assert_eq!(hub.shown(RoomId(9)), None);
    }

    #[test]
    fn the_socket_of_the_later_visit_stays_in_any_order() {
        #[track_caller]
        fn check(visits: [i64; 2]) {
            let hub = Hub::default();
            let sockets =
                visits.map(|number| hub.connect(visit(1, number), UserId(1), Dialect::V1));
            let stays = hub.of_client(ClientId(1)).map(|outbox| outbox.client.visit);
            assert_eq!(stays, Some(1));
            for outbox in sockets {
                assert_eq!(outbox.closing().is_none(), outbox.client.visit == 1);
                hub.disconnect(&outbox);
            }
            assert!(hub.of_client(ClientId(1)).is_none());
        }
        check([0, 1]);
        check([1, 0]);
    }

    #[test]
    fn a_group_that_has_changed_has_no_news_until_it_is_listed_again() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 4);
        let list = || outbox.list(vec![OTHER, RoomId(3)].into());
        list();
        let news = [OTHER, RoomId(3)].map(|room| (room, frame(&room.0.to_string())));
        let news = HashMap::from(news);
        hub.show_news(&news);
        assert_eq!(taken(&outbox), ["2", "3"]);
        hub.unlist(OTHER);
        hub.show_news(&news);
        assert_eq!(taken(&outbox), ["3"]);
        list();
        hub.show_news(&news);
        assert_eq!(taken(&outbox), ["2", "3"]);
    }

    #[test]
    fn a_step_is_never_given_twice() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 4);
        for number in [3, 4, 5, 5, 4] {
            step(&hub, ROOM, number);
        }
        assert_eq!(taken(&outbox), ["5"]);
        assert!(!outbox.wants_rest());
    }

    #[test]
    fn after_a_gap_a_tab_is_behind_until_it_has_caught_up() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 4);
        step(&hub, ROOM, 6);
        step(&hub, ROOM, 7);
        assert_eq!(taken(&outbox), [""; 0]);
        assert!(outbox.wants_rest());
        assert_eq!(seen(&outbox), Some(4));
        outbox.bring(ROOM, version(ROOM, 7), [frame("5 to 7")]);
        assert!(!outbox.wants_rest());
        step(&hub, ROOM, 8);
        assert_eq!(taken(&outbox), ["5 to 7", "8"]);
    }

    #[test]
    fn a_full_outbox_takes_nothing_and_catches_up_once_it_has_drained() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 0);
        let bystander = tab(&hub, 2, Dialect::V1, 0);
        let half = large(OUTBOX_BYTES / 2);
        let mut shown = 0;
        for number in 1..=4 {
            let version = version(ROOM, number);
            show(&hub, number - 1, version, std::slice::from_ref(&half));
            shown += bystander.take(MUCH).frames.len();
        }
        assert_eq!(shown, 4, "nobody else notices");
        assert!(outbox.is_full() && outbox.full_since().is_some());
        assert!(!outbox.wants_rest(), "not before it has drained");
        assert_eq!(outbox.take(1).frames.len(), 1);
        assert!(!outbox.wants_rest());
        // Even with space again, nothing may be left out.
        step(&hub, ROOM, 5);
        assert_eq!(outbox.take(MUCH).frames.len(), 1);
        assert!(outbox.wants_rest());
        assert_eq!(seen(&outbox), Some(2));
        // More happens while the rest is read.
        step(&hub, ROOM, 6);
        outbox.bring(ROOM, version(ROOM, 5), [frame("3 to 5")]);
        assert_eq!(taken(&outbox), ["3 to 5"]);
        assert!(outbox.wants_rest());
        outbox.bring(ROOM, version(ROOM, 6), [frame("6")]);
        assert_eq!(taken(&outbox), ["6"]);
        assert!(!outbox.wants_rest());
    }

    #[test]
    fn many_small_frames_fill_an_outbox_too() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 0);
        (1..=OUTBOX_FRAMES as u64 + 5).for_each(|number| step(&hub, ROOM, number));
        assert!(outbox.is_full());
        assert_eq!(outbox.take(MUCH).frames.len(), OUTBOX_FRAMES);
        assert!(!outbox.is_full() && outbox.wants_rest());
    }

    #[test]
    fn an_outbox_is_full_until_its_frames_have_been_sent() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 0);
        outbox.push([large(OUTBOX_BYTES)]);
        let since = outbox.full_since();
        assert!(since.is_some());
        assert_eq!(outbox.take(MUCH).frames.len(), 1);
        assert_eq!(outbox.full_since(), since, "the socket is still writing");
        assert_eq!(outbox.take(MUCH).frames.len(), 0);
        assert_eq!(outbox.full_since(), None);
    }

    #[test]
    fn what_happens_while_a_tab_enters_is_neither_missed_nor_doubled() {
        let hub = Hub::default();
        let outbox = hub.connect(visit(1, 0), UserId(1), Dialect::V1);
        hub.enter(&outbox, ROOM, None);
        // It is not known here whether the page being read includes 5.
        for number in [5, 6] {
            step(&hub, ROOM, number);
        }
        assert_eq!(taken(&outbox), [""; 0]);
        assert!(!outbox.wants_rest(), "there is no page yet");
        outbox.bring(ROOM, version(ROOM, 5), [frame("page at 5")]);
        assert_eq!(taken(&outbox), ["page at 5"]);
        assert!(outbox.wants_rest());
        outbox.bring(ROOM, version(ROOM, 6), [frame("6")]);
        step(&hub, ROOM, 7);
        assert_eq!(taken(&outbox), ["6", "7"]);

        hub.enter(&outbox, ROOM, None);
        step(&hub, ROOM, 8);
        outbox.bring(ROOM, version(ROOM, 8), [frame("page at 8")]);
        step(&hub, ROOM, 8);
        assert_eq!(taken(&outbox), ["page at 8"]);
        assert!(!outbox.wants_rest());
    }

    #[test]
    fn frames_of_the_former_room_do_not_reach_the_new_one() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 4);
        hub.enter(&outbox, OTHER, None);
        step(&hub, ROOM, 5);
        outbox.bring(ROOM, version(ROOM, 5), [frame("late")]);
        assert_eq!(taken(&outbox), [""; 0]);
        outbox.bring(OTHER, version(OTHER, 9), [frame("page")]);
        step(&hub, ROOM, 10);
        step(&hub, OTHER, 10);
        assert_eq!(taken(&outbox), ["page", "10"]);
        assert_eq!(hub.shown(ROOM), None, "nobody is in it any longer");
    }

    #[test]
    fn after_too_many_changes_every_tab_catches_up() {
        let hub = Hub::default();
        let late = tab(&hub, 1, Dialect::V1, 4);
        let up_to_date = tab(&hub, 2, Dialect::V1, 90);
        hub.skip_to(version(ROOM, 90));
        assert!(late.wants_rest() && !up_to_date.wants_rest());
        assert_eq!(hub.shown(ROOM).flatten(), Some(version(ROOM, 90)));
    }

    #[test]
    fn a_tab_that_could_not_enter_catches_up_in_its_former_room() {
        for dialect in [Dialect::V1, Dialect::Plain] {
            let hub = Hub::default();
            let outbox = tab(&hub, 1, dialect, 4);
            let (former, _) = hub.enter(&outbox, OTHER, None);
            step(&hub, ROOM, 5);
            let former = former.expect("it was in a room");
            hub.enter(&outbox, former.room, former.seen);
            assert!(outbox.wants_rest(), "{dialect:?}");
            assert_eq!(seen(&outbox), Some(4));
        }
    }

    #[test]
    fn only_the_newest_of_a_region_waits_and_follows_ordered_frames() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 4);
        outbox.show(Region::Mine, frame("mine 1"));
        outbox.show(Region::Notice, frame("notice"));
        step(&hub, ROOM, 5);
        outbox.show(Region::Mine, frame("mine 2"));
        hub.show_online(2, &frame("online"));
        assert_eq!(taken(&outbox), ["5", "notice", "mine 2", "online"]);
        assert_eq!(taken(&outbox), [""; 0]);
    }

    #[test]
    fn a_list_of_people_is_pushed_only_when_it_differs() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 4);
        for words in ["anna", "anna", "anna and bob"] {
            hub.show_online(words.split(" and ").count(), &frame(words));
            outbox.show_new(Region::Mine, &frame(words));
            let expected: &[&str] = match (words, seen(&outbox)) {
                ("anna", Some(5)) => &[],
                _ => &[words, words],
            };
            assert_eq!(taken(&outbox), expected);
            outbox.bring(ROOM, version(ROOM, 5), []);
        }
        let newcomer = tab(&hub, 2, Dialect::V1, 4);
        hub.show_online_to(&newcomer);
        assert_eq!(taken(&newcomer), ["anna and bob"]);
        hub.show_online(1, &frame("anna, who is alone"));
        let third = tab(&hub, 3, Dialect::V1, 4);
        hub.show_online_to(&third);
        assert_eq!(taken(&third), [""; 0]);
    }

    #[test]
    fn an_overflow_loses_no_region() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 0);
        outbox.push([large(OUTBOX_BYTES)]);
        step(&hub, ROOM, 1);
        outbox.show(Region::Mine, frame("mine"));
        assert_eq!(outbox.take(MUCH).frames.len(), 2);
    }

    #[test]
    fn an_own_message_is_unsettled_until_its_step_is_shown() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 4);
        let leave = |room| hub.enter(&outbox, room, None).1;
        // Stored, but not yet pushed: a tab that leaves now must be settled in another way.
        assert!(outbox.expect(&message(ROOM, 5)));
        assert_eq!(leave(OTHER), [message(ROOM, 5)]);
        assert!(!outbox.expect(&message(ROOM, 6)), "it is elsewhere now");
        outbox.bring(OTHER, version(OTHER, 1), []);

        assert!(outbox.expect(&message(OTHER, 2)));
        step(&hub, OTHER, 2);
        assert_eq!(leave(ROOM), []);
        outbox.bring(ROOM, version(ROOM, 7), []);
        // The step arrived before the answer.
        assert!(outbox.expect(&message(ROOM, 7)));
        assert_eq!(leave(OTHER), []);
        // The catch-up includes it.
        outbox.bring(OTHER, version(OTHER, 3), []);
        assert!(outbox.expect(&message(OTHER, 5)));
        step(&hub, OTHER, 5);
        // The catch-up may omit that message, so it is settled separately.
        assert_eq!(outbox.take_unsettled(), [message(OTHER, 5)]);
        outbox.bring(OTHER, version(OTHER, 5), []);
        assert_eq!(leave(ROOM), []);
    }

    #[test]
    fn a_plain_tab_gets_pages_and_only_the_newest_that_waits() {
        let hub = Hub::default();
        let plain = tab(&hub, 1, Dialect::Plain, 4);
        let other = tab(&hub, 2, Dialect::V1, 4);
        step(&hub, ROOM, 5);
        assert_eq!(taken(&plain), [""; 0]);
        assert!(hub.want_page(ROOM), "the first caller renders it");
        assert!(!hub.want_page(ROOM), "one at a time");
        assert!(hub.take_wanted_page(ROOM));
        assert!(!hub.want_page(ROOM), "the renderer checks again");
        hub.show_page(ROOM, version(ROOM, 5), &frame("page at 5"));
        assert!(hub.take_wanted_page(ROOM));
        hub.show_page(ROOM, version(ROOM, 7), &frame("page at 7"));
        hub.show_page(ROOM, version(ROOM, 6), &frame("page at 6"));
        assert!(!hub.take_wanted_page(ROOM));
        assert_eq!(taken(&plain), ["page at 7"]);
        assert_eq!(taken(&other), ["5"]);
        hub.show_online(2, &frame("online"));
        assert_eq!(taken(&plain), [""; 0], "it has no place for that");
        assert!(hub.want_page(ROOM));
        hub.give_up_page(ROOM);
        assert!(
            hub.want_page(ROOM),
            "after a failure somebody renders it again"
        );
        assert!(!hub.want_page(OTHER), "no plain tab is there");
    }

    #[test]
    fn a_plain_tab_that_enters_while_a_page_is_shown_asks_for_it() {
        let hub = Hub::default();
        let outbox = hub.connect(visit(1, 0), UserId(1), Dialect::Plain);
        hub.enter(&outbox, ROOM, None);
        hub.show_page(ROOM, version(ROOM, 6), &frame("page at 6"));
        outbox.bring(ROOM, version(ROOM, 5), [frame("page at 5")]);
        assert_eq!(taken(&outbox), ["page at 5"]);
        assert!(outbox.wants_rest());
        // A newer page arrives before the requested one, which is then too old.
        hub.show_page(ROOM, version(ROOM, 7), &frame("page at 7"));
        outbox.bring(ROOM, version(ROOM, 6), [frame("page at 6")]);
        assert_eq!(taken(&outbox), ["page at 7"]);
        assert!(!outbox.wants_rest());
        // The reverse: a waiting page does not replace a newer requested one.
        hub.show_page(ROOM, version(ROOM, 8), &frame("page at 8"));
        outbox.bring(ROOM, version(ROOM, 9), [frame("page at 9")]);
        assert_eq!(taken(&outbox), ["page at 9"]);
    }

    #[test]
    fn a_page_of_the_former_room_does_not_reach_the_new_one() {
        let hub = Hub::default();
        let plain = tab(&hub, 1, Dialect::Plain, 4);
        hub.show_page(ROOM, version(ROOM, 5), &frame("page"));
        hub.enter(&plain, OTHER, None);
        assert_eq!(taken(&plain), [""; 0]);
    }

    #[tokio::test]
    async fn a_closing_outbox_takes_nothing_and_the_hub_empties() {
        let hub = Hub::default();
        let (one, two) = (tab(&hub, 1, Dialect::V1, 4), tab(&hub, 2, Dialect::V1, 4));
        step(&hub, ROOM, 5);
        let close = Close::drained(1012, "the server restarts");
        hub.close_all(close);
        step(&hub, ROOM, 6);
        one.push([frame("late")]);
        one.show(Region::Mine, frame("late"));
        one.bring(ROOM, version(ROOM, 7), [frame("late")]);
        let last = one.take(MUCH);
        assert_eq!((last.frames.len(), one.closing()), (1, Some(close)));
        assert!(one.probe().await.is_err(), "nobody answers");

        let emptied = hub.empty();
        tokio::pin!(emptied);
        hub.disconnect(&one);
        assert!(futures_util::poll!(emptied.as_mut()).is_pending());
        hub.disconnect(&two);
        emptied.await;
        assert_eq!((hub.people(), hub.shown(ROOM)), (0, None));
    }

    #[tokio::test]
    async fn a_new_socket_of_a_client_closes_the_old_one() {
        let hub = Hub::default();
        let old = tab(&hub, 1, Dialect::V1, 4);
        let asked = old.probe();
        let new = tab(&hub, 1, Dialect::V1, 4);
        assert!(old.closing().is_some_and(|close| !close.drain));
        drop(old.take(MUCH));
        assert!(asked.await.is_err(), "it closed first");
        hub.disconnect(&old);
        let of_client = hub.of_client(ClientId(1));
        assert!(of_client.is_some_and(|now| Arc::ptr_eq(&now, &new)));
        assert_eq!(hub.of_user(UserId(1)).len(), 1);
        step(&hub, ROOM, 5);
        assert_eq!(taken(&new), ["5"]);
        hub.disconnect(&new);
        assert!(hub.of_client(ClientId(1)).is_none());
    }

    #[tokio::test]
    async fn a_probe_is_answered_or_fails_when_the_socket_closes() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 4);
        let (alive, gone) = (outbox.probe(), outbox.probe());
        outbox.woken().await;
        let mut probes = outbox.take(MUCH).probes.into_iter();
        assert!(probes.next().is_some_and(|probe| probe.send(()).is_ok()));
        drop(probes);
        assert!(alive.await.is_ok() && gone.await.is_err());
        let unanswered = outbox.probe();
        hub.disconnect(&outbox);
        assert!(unanswered.await.is_err());
    }

    #[test]
    fn a_tab_catches_up_with_another_history() {
        let other = |number| Version {
            history: History(2),
            ..version(ROOM, number)
        };
        let hub = Hub::default();
        let tab = hub.connect(visit(1, 0), UserId(1), Dialect::V1);
        hub.enter(&tab, ROOM, None);
        tab.bring(ROOM, version(ROOM, 5), []);
        hub.begins(version(ROOM, 5));
        show(&hub, 5, version(ROOM, 6), &[frame("6")]);
        assert_eq!(tab.take(MUCH).frames.len(), 1);
        assert!(!tab.wants_rest());
        // The store was reset to an earlier moment and has continued from there.
        hub.skip_to(other(4));
        assert!(tab.wants_rest());
        tab.bring(ROOM, other(4), [frame("a page")]);
        assert_eq!(tab.take(MUCH).frames.len(), 1);
        assert!(!tab.wants_rest());
        assert_eq!(tab.place().unwrap().seen, Some(other(4)));
        show(&hub, 4, other(5), &[frame("5")]);
        assert_eq!(tab.take(MUCH).frames.len(), 1);
        // A different history that continues from the shown version needs no catch-up.
        let third = Version {
            history: History(3),
            ..version(ROOM, 6)
        };
        show(&hub, 5, third, &[frame("6 again")]);
        assert_eq!(tab.take(MUCH).frames.len(), 1);
        assert!(!tab.wants_rest());
    }

    /// A connection that takes so many bytes.
    struct Pipe {
        space: Arc<AtomicUsize>,
        sent: Arc<Mutex<Vec<u8>>>,
    }

    impl Line for Pipe {
        fn send(&self, frames: &VecDeque<Frame>) -> (usize, usize) {
            let mut space = self.space.load(Ordering::Relaxed);
            let mut sent = self.sent.lock();
            for (whole, frame) in frames.iter().enumerate() {
                let bytes = frame.bytes(false);
                let part = space.min(bytes.len());
                sent.extend_from_slice(&bytes[..part]);
                space -= part;
                if part < bytes.len() {
                    self.space.store(0, Ordering::Relaxed);
                    return (whole, part);
                }
            }
            self.space.store(space, Ordering::Relaxed);
            (frames.len(), 0)
        }
    }

    /// Connects a socket that takes so many bytes, and has nothing to send. Returns what is sent on it.
    fn connected(outbox: &Outbox, space: usize) -> Arc<Mutex<Vec<u8>>> {
        let (space, sent) = (Arc::new(AtomicUsize::new(space)), Arc::default());
        outbox.connect(Pipe {
            space,
            sent: Arc::clone(&sent),
        });
        drop(outbox.take(MUCH));
        outbox.rest();
        sent
    }

    fn is_woken(outbox: &Outbox) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        outbox.poll_woken(&mut context).is_ready()
    }

    /// What a socket gets if steps with these numbers are shown one by one.
    fn bytes(numbers: std::ops::RangeInclusive<u64>) -> Vec<u8> {
        let frames = numbers.map(|number| frame(&number.to_string()));
        frames
            .flat_map(|frame| frame.bytes(false).to_vec())
            .collect()
    }

    #[test]
    fn steps_go_to_an_idle_connection_at_once_and_wake_nobody() {
        let hub = Hub::default();
        let outbox = tab(&hub, 1, Dialect::V1, 0);
        let sent = connected(&outbox, MUCH);
        is_woken(&outbox);
        step(&hub, ROOM, 1);
        step(&hub, ROOM, 2);
        assert_eq!(*sent.lock(), bytes(1..=2));
        assert_eq!(seen(&outbox), Some(2));
        assert!(!is_woken(&outbox));
        // While the socket sends something, they wait for it.
        outbox.tell(&frame("somebody came"));
        assert!(is_woken(&outbox));
        assert_eq!(taken(&outbox), ["somebody came"]);
        step(&hub, ROOM, 3);
        assert!(is_woken(&outbox));
        assert_eq!(taken(&outbox), ["3"]);
        outbox.rest();
        step(&hub, ROOM, 4);
        assert_eq!(*sent.lock(), [bytes(1..=2), bytes(4..=4)].concat());
    }

    #[test]
    fn a_frame_that_is_partly_sent_is_continued_before_everything_else() {
        let hub = Hub::default();
        let [one, other] = [1, 2].map(|client| tab(&hub, client, Dialect::V1, 0));
        let (space, first) = (bytes(1..=1).len() + 7, frame("2"));
        let sent = [&one, &other].map(|outbox| connected(outbox, space));
        for number in 1..=3 {
            step(&hub, ROOM, number);
        }
        for sent in sent {
            assert_eq!(*sent.lock(), bytes(1..=2)[..space]);
        }
        assert!(is_woken(&one));
        let rest = one.take(MUCH);
        assert_eq!((rest.begun, rest.frames.len()), (7, 2));
        assert_eq!(rest.frames[0].bytes(false), first.bytes(false));
        let (partly, begun) = other.hang_up().expect("a frame is partly sent");
        assert_eq!((partly.bytes(false), begun), (first.bytes(false), 7));
        assert_eq!(taken(&other), ["3"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_large_room_gets_every_step_once_and_in_order() {
        const STEPS: u64 = 300;
        let hub = Hub::default();
        let tabs: Vec<_> = (0..1_000)
            .map(|client| tab(&hub, client, Dialect::V1, 0))
            .collect();
        let sent: Vec<_> = tabs.iter().map(|outbox| connected(outbox, MUCH)).collect();
        for number in 1..=STEPS {
            step(&hub, ROOM, number);
            if number == STEPS / 2 {
                // Somebody leaves and somebody comes meanwhile.
                hub.enter(&tabs[0], OTHER, None);
                let late = tab(&hub, 2_000, Dialect::V1, number);
                assert_eq!(late.place().map(|place| place.room), Some(ROOM));
            }
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let all = bytes(1..=STEPS);
        for (outbox, sent) in tabs.iter().zip(&sent).skip(1) {
            while seen(outbox) != Some(STEPS) {
                tokio::task::yield_now().await;
            }
            assert!(*sent.lock() == all);
        }
        assert!(all.starts_with(&sent[0].lock()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_several_steps_at_once_a_large_room_waits_for_the_next() {
        let hub = Hub::default();
        let tabs: Vec<_> = (0..100)
            .map(|client| tab(&hub, client, Dialect::V1, 0))
            .collect();
        let sent: Vec<_> = tabs.iter().map(|outbox| connected(outbox, MUCH)).collect();
        // While the test has something to do, no time passes.
        let others_run = async || {
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
        };
        let are_shown = |number| sent.iter().all(|sent| *sent.lock() == bytes(1..=number));
        // One at a time is shown at once.
        for number in 1..=2 {
            step(&hub, ROOM, number);
            others_run().await;
            assert!(are_shown(number));
        }
        // The first of these is under way when the others come, so they are shown together.
        (3..=5).for_each(|number| step(&hub, ROOM, number));
        others_run().await;
        assert!(are_shown(5));
        step(&hub, ROOM, 6);
        others_run().await;
        assert!(are_shown(5));
        tokio::time::sleep(LONGEST_PAUSE).await;
        assert!(are_shown(6));
        step(&hub, ROOM, 7);
        others_run().await;
        assert!(are_shown(7), "the last round had one step");
    }

    #[tokio::test]
    async fn what_one_person_is_shown_follows_the_steps_that_wait() {
        let hub = Hub::default();
        let tabs: Vec<_> = (0..100)
            .map(|client| tab(&hub, client, Dialect::V1, 0))
            .collect();
        let sent: Vec<_> = tabs.iter().map(|outbox| connected(outbox, MUCH)).collect();
        let own = |text: &str| (UserId(99), frame(text));
        for number in 1..=2 {
            let version = version(ROOM, number);
            let step = Step::new(number - 1, version, vec![frame(&number.to_string())]);
            hub.show(Step {
                own: vec![own("on")],
                ..step
            });
        }
        hub.show_own(UserId(99), ROOM, frame("off"));
        let texts = ["1", "on", "2", "on", "off"].map(frame);
        let all: Vec<u8> = texts
            .iter()
            .flat_map(|frame| frame.bytes(false).to_vec())
            .collect();
        while sent[99].lock().len() < all.len() {
            tokio::task::yield_now().await;
        }
        assert!(*sent[99].lock() == all);
        assert!(*sent[98].lock() == bytes(1..=2));

        // So much waits that the tabs catch up on their own; what is for one person is kept.
        let much = large(300 * 1024);
        for number in 3..=6 {
            let step = Step::new(number - 1, version(ROOM, number), vec![much.clone()]);
            hub.show(Step {
                own: vec![own("on")],
                ..step
            });
        }
        while !tabs[99].is_behind() {
            tokio::task::yield_now().await;
        }
        let sent = sent[99].lock();
        let ons = 4 * frame("on").size();
        assert!(sent.ends_with(frame("on").bytes(false)) && sent.len() == all.len() + ons);
    }
}
