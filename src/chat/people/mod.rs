//! Soft state: who is online, what is unread. It has no version. It is rendered again whenever it
//! changes, several changes at once, and is right again after any reconnect.

mod lease;
mod moves;
mod notifications;
mod presence;
mod typing;
mod unread;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::{Chat, Result, log_failure};
use crate::hub::{Hub, Region};
use crate::model::{ClientRef, Millis, Room, RoomId, RoomKind, User, UserId};
use crate::relay::{Envelope, News};
use crate::store::{Left, Moved};

pub(super) use lease::keep as keep_lease;
use moves::{GRACE, Moves};
pub(super) use notifications::{NOTABLES_WAITING, Notable, run as notify};
use typing::Typing;
use unread::Unread;

/// How many people a list shows at most.
pub(super) const LISTED: usize = 25;

/// How many people in a room are listed at most.
pub(super) const LISTED_IN_ROOM: usize = 50;
/// The same for programs.
const LISTED_TO_PROGRAMS: usize = 100;

/// How often due work is looked for.
const TICK: Duration = Duration::from_millis(250);
/// The shortest time between two lists of people online.
const ONLINE_EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two lists of one person.
const MINE_EVERY: Duration = Duration::from_millis(700);
/// The shortest time between two lists of the people in one room.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// How long somebody in a room may take to see a message before it counts as unread.
const SEEING: Duration = Duration::from_millis(600);
/// The same for several messages, from the first one on.
const SEEING_SEVERAL: Duration = Duration::from_millis(800);
/// The shortest time between two full updates after news may have been lost.
const MAKE_UP_EVERY: Duration = Duration::from_secs(10);
const EXPIRE_EVERY: Duration = Duration::from_secs(10);

/// What has to be rendered and written, when its time has come.
#[derive(Default)]
pub(super) struct People {
    due: Mutex<Due>,
    wake: Notify,
    /// Nothing more is due; the store may close.
    finished: AtomicBool,
}

#[derive(Default)]
struct Due {
    /// Who came online or left: their own list is out of date, and so are those of their partners.
    moved: HashSet<UserId>,
    /// Whose own list is out of date.
    mine: HashSet<UserId>,
    /// Whose own list is rendered at that time.
    later: HashMap<UserId, Instant>,
    /// Who is about to see messages: since when, and when their own list is rendered, whether they have or not.
    seeing: HashMap<UserId, (Instant, Instant)>,
    /// When own lists were last rendered, if less than [`MINE_EVERY`] ago.
    rendered: HashMap<UserId, Instant>,
    online_changed: bool,
    /// News of other nodes may have been lost, so that everything may be out of date.
    missed: bool,
    /// Users whose clients may have ended.
    ended: HashSet<UserId>,
    leaving: VecDeque<(Instant, ClientRef, UserId, Option<RoomId>)>,
    /// The rooms that people have joined or left.
    rooms: HashSet<RoomId>,
    /// When rooms were last rendered, if less than [`ROOM_EVERY`] ago.
    rooms_rendered: HashMap<RoomId, Instant>,
    moves: Moves,
    typing: Typing,
    /// The display names of people online, where they have one.
    names: HashMap<UserId, String>,
    /// The rooms where somebody started or stopped typing.
    typing_changed: HashSet<RoomId>,
    unread: Unread,
    /// Whose tabs show settings for notifications that are out of date.
    notifications: HashSet<UserId>,
    /// When “do not disturb” ends for people.
    quiet: HashMap<UserId, Millis>,
    /// The clients whose person began or ended to look at the tab.
    looks: HashMap<ClientRef, (UserId, bool)>,
}

impl Due {
    /// The same user, with their current display name.
    fn with_current_name(&self, user: &User) -> User {
        User {
            display_name: self.names.get(&user.id).cloned(),
            ..user.clone()
        }
    }
}

impl People {
    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock()
    }

    /// Notes what has to be rendered soon.
    fn note<T>(&self, note: impl FnOnce(&mut Due) -> T) -> T {
        let noted = note(&mut self.due());
        self.wake.notify_one();
        noted
    }

    /// Somebody came online or left, which their partners may see.
    fn moved(&self, user: UserId) {
        self.note(|due| due.moved.insert(user));
    }

    /// The list of people online is out of date.
    pub(super) fn online_changed(&self) {
        self.note(|due| due.online_changed = true);
    }

    /// Remembers the display name of somebody online.
    pub(super) fn note_name(&self, user: &User) {
        let mut due = self.due();
        match &user.display_name {
            Some(name) => due.names.insert(user.id, name.clone()),
            None => due.names.remove(&user.id),
        };
    }

    /// The list of people in a room is out of date; for the lobby, the list of groups.
    pub(super) fn room_changed(&self, room: RoomId) {
        self.note(|due| due.rooms.insert(room));
    }

    fn joined(&self, room: RoomId, user: &User, returns: bool) {
        self.note(|due| {
            due.moves.joined(room, user, returns, Instant::now());
            due.rooms.insert(room);
        });
    }

    fn left_room(&self, room: RoomId, user: &User, may_return: bool) {
        self.note(|due| {
            due.moves.left(room, user, may_return, Instant::now());
            due.rooms.insert(room);
        });
    }

    /// Somebody started or stopped typing in a room. Returns whether that is new.
    pub(super) fn types(&self, room: RoomId, user: &User, on: bool) -> bool {
        let mut due = self.due();
        let is_new = match on {
            true => due.typing.begin(room, user, Instant::now()),
            false => due.typing.end(room, user.id),
        };
        if is_new {
            due.typing_changed.insert(room);
            drop(due);
            self.wake.notify_one();
        }
        is_new
    }

    /// Somebody has entered a room. They may be the first here to show it, after people on other nodes
    /// started typing there.
    pub(super) fn shows_typing(&self, room: RoomId) {
        let mut due = self.due();
        if !due.typing.of(room).is_empty() {
            due.typing_changed.insert(room);
            drop(due);
            self.wake.notify_one();
        }
    }

    /// Somebody's socket has closed.
    fn disconnected(&self, client: ClientRef, user: UserId, room: Option<RoomId>) {
        let at = Instant::now() + GRACE;
        self.due().leaving.push_back((at, client, user, room));
    }

    /// Somebody's own list is out of date.
    pub(super) fn refresh(&self, user: UserId) {
        self.note(|due| due.mine.insert(user));
    }

    /// Somebody got a message in the room that their tab shows. They are about to see it.
    pub(super) fn refresh_unless_seen(&self, user: UserId) {
        let now = Instant::now();
        let seeing = &mut self.due().seeing;
        let (since, at) = seeing.entry(user).or_insert((now, now));
        *at = (now + SEEING).min(*since + SEEING_SEVERAL);
    }

    /// Some of this person's clients may have ended.
    pub(super) fn ended(&self, user: UserId) {
        self.note(|due| due.ended.insert(user));
    }

    /// News of other nodes may have been lost.
    pub(super) fn missed(&self) {
        self.note(|due| due.missed = true);
    }

    /// Somebody's tabs show settings for notifications that are, or may be, out of date.
    pub(super) fn outdate_notifications(&self, user: UserId) {
        self.note(|due| due.notifications.insert(user));
    }

    /// Settings with the end of “do not disturb” are out of date once it has come.
    fn end_quiet(&self) {
        let (due, now) = (&mut *self.due(), Millis::now());
        let ended = due.quiet.extract_if(|_, until| *until <= now);
        due.notifications.extend(ended.map(|(user, _)| user));
    }

    /// Renders everything again that lost news may have changed.
    fn make_up(&self, hub: &Hub) {
        let mut due = self.due();
        due.missed = false;
        due.online_changed = true;
        due.mine.extend(hub.users());
        due.notifications.extend(hub.users());
        due.rooms.extend(hub.active_rooms());
    }

    /// Soft state is right again after the next round, so a failure is only logged. It is not even
    /// logged if the store has closed during the round.
    async fn attempt(&self, what: &str, act: impl Future<Output = Result<()>>) {
        if let Err(error) = act.await
            && !self.finished.load(Ordering::Relaxed)
        {
            log_failure(what, &error);
        }
    }
}

/// Does due work until the chat has finished.
pub(super) async fn run(people: Arc<People>, chat: Weak<Chat>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut rendered, mut expired, mut made_up) = (None, None, None);
    let is_due = |last: Option<Instant>, every| last.is_none_or(|last| last.elapsed() >= every);
    loop {
        let ticked = tokio::select! {
            _ = ticks.tick() => true,
            () = people.wake.notified() => false,
        };
        let Some(chat) = chat.upgrade() else { return };
        if people.finished.load(Ordering::Relaxed) {
            return;
        }
        if ticked {
            let now = Instant::now();
            // Read marks come first: who leaves the chat has read its messages before.
            let (reads, leaving) = (chat.write_reads(), chat.write_leaving(now));
            people.attempt("write read marks", reads).await;
            let looks = chat.write_in_view();
            people.attempt("write who looks at the chat", looks).await;
            people.end_quiet();
            people.attempt("write departures", leaving).await;
            if is_due(expired, EXPIRE_EVERY) {
                expired = Some(now);
                people.attempt("end expired leases", chat.expire()).await;
                chat.forget();
            }
        }
        let ended = std::mem::take(&mut people.due().ended);
        for user in ended {
            let ending = chat.close_stale(chat.hub.of_user(user));
            people
                .attempt("close sockets of ended clients", ending)
                .await;
        }
        if people.due().missed && is_due(made_up, MAKE_UP_EVERY) {
            made_up = Some(Instant::now());
            people.make_up(&chat.hub);
            let (people, chat) = (Arc::clone(&people), Arc::clone(&chat));
            tokio::spawn(async move {
                let making_up = chat.make_up_for_groups();
                let what = "check for changed groups";
                people.attempt(what, making_up).await;
            });
        }
        let rendering = chat.render_moved();
        people
            .attempt("render joins and departures", rendering)
            .await;
        let rendering = chat.render_mine();
        people.attempt("render people's own lists", rendering).await;
        let rendering = chat.render_notifications();
        people
            .attempt("render settings for notifications", rendering)
            .await;
        let rendering = chat.render_rooms();
        people
            .attempt("render the people in a room", rendering)
            .await;
        let rendering = async { chat.render_news() };
        people.attempt("rendering news of groups", rendering).await;
        let rendering = async { chat.render_typing() };
        people.attempt("render who is typing", rendering).await;
        if people.due().online_changed && is_due(rendered, ONLINE_EVERY) {
            rendered = Some(Instant::now());
            let rendering = chat.render_online();
            people
                .attempt("render the list of people online", rendering)
                .await;
        }
    }
}

/// Writes what has not been written yet. Nothing is rendered after that.
pub(super) async fn finish(chat: &Chat) {
    let people = &chat.people;
    let writing = chat.write_reads();
    people.attempt("write read marks", writing).await;
    // From here on the lease is not renewed: a renewal would bring the node back.
    people.finished.store(true, Ordering::Relaxed);
    if let Err(error) = chat.end().await {
        log_failure(
            "mark the clients as left, which another node will do",
            &error,
        );
    }
}

impl Chat {
    /// Applies news on this node and sends it to the others.
    pub(super) fn spread(&self, news: News) {
        self.take(&news);
        self.tell_others(news);
    }

    pub(super) fn tell_others(&self, news: News) {
        let node = self.node;
        self.relay.announce(Envelope { node, news });
    }

    /// Applies soft news, from this node or another.
    pub(super) fn take(&self, news: &News) {
        let people = &self.people;
        match news {
            News::Presence(room) => people.room_changed(*room),
            News::Joined {
                room,
                user,
                returns,
            } => people.joined(*room, user, *returns),
            News::Left {
                room,
                user,
                may_return,
            } => people.left_room(*room, user, *may_return),
            News::Typing { room, user, on } => {
                people.types(*room, user, *on);
            }
            News::Online => people.online_changed(),
            News::Mine(user) => people.refresh(*user),
            News::Groups(user) => self.take_groups(*user),
            News::Notifications(user) => people.outdate_notifications(*user),
            News::Notify { user, frame } => self.take_notification(*user, frame),
            News::Posted {
                room,
                message,
                author,
                here,
                gone,
            } => self.take_posted(*room, (*message, author.clone()), here, gone),
            News::Mentioned { user, room } => self.take_mention(*user, *room),
            News::MarkedUnread { user, room, read } => {
                self.take_marked_unread(*user, *room, *read);
            }
            News::Renamed { user, rooms } => self.take_name(user, rooms),
            News::Missed => {
                people.missed();
                self.outdated.notify_one();
            }
            _ => {}
        }
    }

    /// Somebody changed their display name. It is shown in the lists they are on and in the rooms where
    /// they appear.
    fn take_name(&self, user: &User, rooms: &[RoomId]) {
        let tabs = self.hub.of_user(user.id);
        if !tabs.is_empty() {
            self.people.note_name(user);
            match self.views.name_form(user) {
                Ok(form) => {
                    let frame = form.encode();
                    for tab in tabs.iter().filter(|tab| tab.dialect.has(&form.selector)) {
                        tab.show(Region::Name, frame.clone());
                    }
                }
                Err(error) => log_failure("render a fragment", &error),
            }
        }
        self.people.note(|due| {
            due.rooms.extend(rooms);
            due.typing_changed.extend(due.typing.rename(user));
            due.online_changed = true;
            due.moved.insert(user.id);
        });
        for place in tabs.iter().filter_map(|tab| tab.place()) {
            self.spread(News::Presence(place.room));
        }
    }

    /// Somebody came online or left, which their partners may see.
    pub(super) fn moved(&self, user: UserId) {
        self.people.moved(user);
        self.spread(News::Online);
    }

    /// A tab has entered a room or the lobby. If this brings the person there, the people there see
    /// that they joined, unless they have just come back. Private rooms announce nothing.
    pub(super) fn entered(
        &self,
        user: &User,
        room: Option<&Room>,
        from: Option<RoomId>,
        moved: Moved,
        returns: bool,
    ) {
        if from.is_some() && from == room.map(|room| room.id) {
            return;
        }
        let user = self.people.due().with_current_name(user);
        if let Some(room) = room {
            if moved.joined && matches!(room.kind, RoomKind::Group(_)) {
                let (room, user) = (room.id, user.clone());
                self.spread(News::Joined {
                    room,
                    user,
                    returns,
                });
            }
            self.spread(News::Presence(room.id));
        }
        if let Some(from) = from {
            self.stops_typing(from, &user);
        }
        if let Some(room) = moved.left {
            let may_return = true;
            self.spread(News::Presence(room));
            self.spread(News::Left {
                room,
                user,
                may_return,
            });
        }
        self.spread(News::Presence(RoomId::LOBBY));
    }

    /// Somebody is typing in the room that their tab shows.
    pub(super) fn starts_typing(&self, room: RoomId, user: &User) {
        let user = self.people.due().with_current_name(user);
        // Every `Typing` is sent on: without it the person counts as having stopped, on other nodes
        // too.
        self.spread(News::Typing {
            room,
            user,
            on: true,
        });
    }

    /// Another node has its first person in a room, who needs to see who is typing there.
    pub(super) fn tell_typists(&self, room: RoomId) {
        let mut typists = self.people.due().typing.of(room);
        typists.retain(|user| self.hub.has_user(user.id));
        for user in typists {
            let on = true;
            self.tell_others(News::Typing { room, user, on });
        }
    }

    /// Somebody has sent what they were typing, or has left.
    pub(super) fn stops_typing(&self, room: RoomId, user: &User) {
        if self.people.types(room, user, false) {
            let (user, on) = (user.clone(), false);
            self.tell_others(News::Typing { room, user, on });
        }
    }

    /// Somebody's socket has closed, which showed that room.
    pub(super) fn leaves(&self, client: ClientRef, user: &User, room: Option<RoomId>) {
        self.people.disconnected(client, user.id, room);
        if let Some(room) = room {
            self.stops_typing(room, user);
        }
    }

    async fn write_leaving(&self, now: Instant) -> Result<()> {
        let pop = || {
            let leaving = &mut self.people.due().leaving;
            leaving.pop_front_if(|next| next.0 <= now)
        };
        let gone: Vec<_> = std::iter::from_fn(pop).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let clients = gone.iter().map(|(_, client, ..)| *client).collect();
        let left = self.store.leave(clients).await;
        let left = left.inspect_err(|_| self.people.due().leaving.extend(gone.clone()))?;
        let told: HashSet<_> = left.iter().map(|left| left.user.id).collect();
        for (.., user, room) in &gone {
            if !self.hub.has_user(*user) {
                self.people.due().names.remove(user);
            }
            // If the client had ended before, for example by a ban, the store did not report the user
            // now.
            if !told.contains(user) {
                self.moved(*user);
                room.iter()
                    .for_each(|room| self.spread(News::Presence(*room)));
            }
        }
        self.have_left(left, false);
        self.spread(News::Presence(RoomId::LOBBY));
        Ok(())
    }

    /// Spreads who has left according to the store.
    fn have_left(&self, left: Vec<Left>, may_return: bool) {
        if left.is_empty() {
            return;
        }
        for Left { user, room, last } in left {
            if last {
                self.moved(user.id);
            }
            if let Some(room) = room {
                self.spread(News::Presence(room));
                self.spread(News::Left {
                    room,
                    user,
                    may_return,
                });
            }
        }
        self.spread(News::Presence(RoomId::LOBBY));
    }
}
