//! Soft state: who is here, what is unread. It has no version; it is redrawn, coalesced, and right
//! again after any reconnect.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::moves::Moves;
use super::typing::Typing;
use super::{Chat, Failure, Result};
use crate::hub::Region;
use crate::json;
use crate::model::{ClientId, MessageId, Millis, Person, Room, RoomId, RoomKind, User, UserId};
use crate::protocol::Dialect;
use crate::relay::{Envelope, News};
use crate::store::Returning;

/// How many people a list shows at most.
pub(super) const LISTED: usize = 25;

/// How many of those who are in a room are listed at most.
pub(super) const LISTED_IN_ROOM: usize = 50;
/// The same for programs.
const LISTED_TO_PROGRAMS: usize = 100;

/// How often whatever is due is looked at.
const TICK: Duration = Duration::from_millis(500);
/// The list of those who are here is drawn at most this often.
const ONLINE_EVERY: Duration = Duration::from_secs(1);
/// A person's own list is drawn at most this often.
const MINE_EVERY: Duration = Duration::from_secs(1);
/// Who is in a room is drawn at most this often.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// For so long a person whose socket has gone still counts as here: a reload is no leaving.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// Somebody who looks at the room has this long to say that they have seen a message before it
/// is marked as unread.
const SEEING: Duration = Duration::from_secs(3);
/// Of how many rooms one person can have seen something between two ticks.
const ROOMS_READ: usize = 8;
/// How many marks are written in one transaction at most.
const READS_AT_ONCE: usize = 100;
/// A third of a lease, so that one renewal may fail.
const RENEW_LEASE_EVERY: Duration = Duration::from_secs(5);
const EXPIRE_EVERY: Duration = Duration::from_secs(10);

/// What is to be redrawn and written, when its time comes.
#[derive(Default)]
pub(super) struct People {
    due: Mutex<Due>,
    wake: Notify,
    /// Nothing more is due, and the store may close.
    finished: AtomicBool,
}

#[derive(Default)]
struct Due {
    /// Who came or went: their own list is out of date, and so are those of their partners.
    moved: HashSet<UserId>,
    /// Whose own list is out of date.
    mine: HashSet<UserId>,
    /// Whose own list is to be drawn at that moment, unless they see a message before.
    later: HashMap<UserId, Instant>,
    /// When own lists were drawn last, as long as that is less than [`MINE_EVERY`] ago.
    drawn: HashMap<UserId, Instant>,
    online_changed: bool,
    leaving: VecDeque<(Instant, Returning, UserId, Option<RoomId>)>,
    /// The rooms that people came to or went from.
    rooms: HashSet<RoomId>,
    /// When rooms were drawn last, as long as that is less than [`ROOM_EVERY`] ago.
    rooms_drawn: HashMap<RoomId, Instant>,
    moves: Moves,
    typing: Typing,
    /// What those are called who are here and have a display name.
    names: HashMap<UserId, String>,
    /// The rooms where somebody began or stopped typing.
    typing_changed: HashSet<RoomId>,
    /// What people have seen, of at most [`ROOMS_READ`] rooms each, and by which client.
    reads: HashMap<UserId, Vec<(Returning, RoomId, MessageId)>>,
    /// The clients that have a socket here.
    here: HashMap<ClientId, Returning>,
}

impl Due {
    /// The same user, by the name they have now.
    fn as_called(&self, user: &User) -> User {
        User {
            display_name: self.names.get(&user.id).cloned(),
            ..user.clone()
        }
    }

    fn stop_typing(&mut self, room: RoomId, user: UserId) -> bool {
        let ended = self.typing.end(room, user);
        if ended {
            self.typing_changed.insert(room);
        }
        ended
    }
}

impl People {
    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody came or went; those they have talked with may see it.
    pub(super) fn moved(&self, user: UserId) {
        let mut due = self.due();
        due.online_changed = true;
        due.moved.insert(user);
        drop(due);
        self.wake.notify_one();
    }

    /// What somebody who is here is called.
    pub(super) fn calls(&self, user: &User) {
        let mut due = self.due();
        match &user.display_name {
            Some(name) => due.names.insert(user.id, name.clone()),
            None => due.names.remove(&user.id),
        };
    }

    /// Somebody is called otherwise from now on, which those see whose lists they are on and who
    /// look at one of these rooms.
    pub(super) fn renamed(&self, user: &User, rooms: impl IntoIterator<Item = RoomId>) {
        self.calls(user);
        let mut due = self.due();
        for room in rooms {
            due.moves.rename(room, user);
            due.rooms.insert(room);
            due.typing_changed.insert(room);
        }
        drop(due);
        self.moved(user.id);
    }

    /// A tab of somebody has entered a room from another or from nowhere, which those who are there
    /// are told unless it happens in `silence`. What goes on in private rooms is nobody's business.
    pub(super) fn entered(&self, user: &User, room: &Room, from: Option<RoomId>, silence: bool) {
        if from == Some(room.id) {
            return;
        }
        let now = Instant::now();
        let mut due = self.due();
        if let RoomKind::Group(_) = room.kind {
            let user = due.as_called(user);
            due.moves.enter(room.id, &user, silence, now);
        }
        due.rooms.insert(room.id);
        if let Some(from) = from {
            due.moves.leave(from, user.id, now);
            due.rooms.insert(from);
            due.stop_typing(from, user.id);
        }
        due.rooms.insert(RoomId::LOBBY);
        drop(due);
        self.wake.notify_one();
    }

    /// Somebody is typing in the room they look at.
    pub(super) fn types(&self, user: &User, room: RoomId) {
        let mut due = self.due();
        if due.typing.begin(room, user, Instant::now()) {
            due.typing_changed.insert(room);
            drop(due);
            self.wake.notify_one();
        }
    }

    /// What somebody was typing in a room has been sent.
    pub(super) fn sent(&self, user: UserId, room: RoomId) {
        let mut due = self.due();
        if due.stop_typing(room, user) {
            drop(due);
            self.wake.notify_one();
        }
    }

    /// There is another group, or somebody came who has not seen what there is.
    pub(super) fn lobby_changed(&self) {
        self.due().rooms.insert(RoomId::LOBBY);
        self.wake.notify_one();
    }

    /// Somebody's socket has come.
    pub(super) fn came(&self, client: Returning) {
        self.due().here.insert(client.client, client);
    }

    /// Those whose sockets are here.
    pub(super) fn here(&self) -> Vec<Returning> {
        self.due().here.values().copied().collect()
    }

    /// Whether the socket of a client is that of one of these.
    pub(super) fn is_here(&self, of: &[Returning], client: ClientId) -> bool {
        let here = self.due().here.get(&client).copied();
        here.is_some_and(|here| of.contains(&here))
    }

    /// Somebody's socket has gone, which looked at that room.
    pub(super) fn left(&self, client: Returning, user: UserId, room: Option<RoomId>) {
        let now = Instant::now();
        let mut due = self.due();
        if let Some(room) = room {
            due.moves.leave(room, user, now);
            due.stop_typing(room, user);
        }
        if due.here.get(&client.client) == Some(&client) {
            due.here.remove(&client.client);
        }
        due.leaving.push_back((now + GRACE, client, user, room));
    }

    /// Somebody's own list is out of date.
    pub(super) fn redraw(&self, user: UserId) {
        self.due().mine.insert(user);
        self.wake.notify_one();
    }

    /// Somebody looks at a room where they were written to, and is about to see it.
    pub(super) fn redraw_unless_seen(&self, user: UserId) {
        self.due()
            .later
            .entry(user)
            .or_insert_with(|| Instant::now() + SEEING);
    }

    /// Somebody has seen a room up to a message.
    pub(super) fn read(&self, client: Returning, user: UserId, room: RoomId, message: MessageId) {
        let mut due = self.due();
        let reads = due.reads.entry(user).or_default();
        let full = reads.len() == ROOMS_READ;
        match reads.iter_mut().find(|(_, other, _)| *other == room) {
            Some((by, _, read)) => (*by, *read) = (client, (*read).max(message)),
            // `Read` has no pace of its own: whoever names more rooms than anybody can have looked
            // at fills neither the memory nor the writer's time.
            None if full => {}
            None => reads.push((client, room, message)),
        }
    }

    /// Soft state is right again after the next round: a failure is only worth a line in the log,
    /// and not even that when the store has closed on a round that was under way.
    async fn attempt(&self, what: &str, act: impl Future<Output = Result<()>>) {
        if let Err(error) = act.await
            && !self.finished.load(Ordering::Relaxed)
        {
            tracing::warn!(what, ?error, "failed, and is tried again");
        }
    }
}

/// Does what is due until the chat has finished.
pub(super) async fn run(people: Arc<People>, chat: Weak<Chat>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut drawn, mut renewed, mut expired) = (None, Instant::now(), None);
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
            // What somebody saw before they left is theirs while they are here.
            people.attempt("reading", chat.write_reads()).await;
            people
                .attempt("leaving", chat.write_leaving(|at| at <= now))
                .await;
            if is_due(Some(renewed), RENEW_LEASE_EVERY) {
                renewed = now;
                people
                    .attempt("renewing the lease", chat.renew_lease())
                    .await;
                people
                    .attempt("looking for strays", chat.end_strays())
                    .await;
            }
            if is_due(expired, EXPIRE_EVERY) {
                expired = Some(now);
                people.attempt("clearing up", chat.expire()).await;
                chat.forget_paces();
            }
        }
        people
            .attempt("drawing who came or went", chat.draw_moved())
            .await;
        people
            .attempt("drawing who is concerned", chat.draw_mine())
            .await;
        people
            .attempt("drawing who is in a room", chat.draw_rooms())
            .await;
        people
            .attempt("drawing who is typing", async { chat.draw_typing() })
            .await;
        if people.due().online_changed && is_due(drawn, ONLINE_EVERY) {
            drawn = Some(Instant::now());
            people
                .attempt("drawing who is here", chat.draw_online())
                .await;
        }
    }
}

/// Writes what has not been written yet. After that nothing is drawn any more.
pub(super) async fn finish(chat: &Chat) {
    let people = &chat.people;
    people.attempt("reading", chat.write_reads()).await;
    people
        .attempt("leaving", chat.write_leaving(|_| true))
        .await;
    people.finished.store(true, Ordering::Relaxed);
}

impl Chat {
    async fn write_leaving(&self, is_due: impl Fn(Instant) -> bool) -> Result<()> {
        let mut gone = Vec::new();
        {
            let mut due = self.people.due();
            while let Some((_, client, user, room)) =
                due.leaving.pop_front_if(|next| is_due(next.0))
            {
                gone.push((client, user, room));
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let left = self
            .store
            .leave(gone.iter().map(|(client, ..)| *client).collect())
            .await;
        if left.is_err() {
            let again = gone
                .iter()
                .map(|(client, user, room)| (Instant::now(), *client, *user, *room));
            self.people.due().leaving.extend(again);
        }
        left?;
        {
            let mut due = self.people.due();
            for (_, user, _) in &gone {
                if self.hub.of_user(*user).is_empty() {
                    due.names.remove(user);
                }
            }
        }
        let rooms = gone.iter().filter_map(|(_, _, room)| *room);
        self.people.due().rooms.extend(rooms.chain([RoomId::LOBBY]));
        gone.iter()
            .for_each(|(_, user, _)| self.people.moved(*user));
        Ok(())
    }

    async fn write_reads(&self) -> Result<()> {
        let reads = std::mem::take(&mut self.people.due().reads);
        if reads.is_empty() {
            return Ok(());
        }
        let of = |user: UserId, reads: &[(Returning, RoomId, MessageId)]| {
            let rows = reads.iter();
            rows.map(move |(client, room, message)| (*client, user, *room, *message))
                .collect::<Vec<_>>()
        };
        let rows: Vec<_> = reads
            .iter()
            .flat_map(|(user, reads)| of(*user, reads))
            .collect();
        // In parts, so that nobody's message waits for all of them.
        for part in rows.chunks(READS_AT_ONCE) {
            let written = self.store.mark_read(part.to_vec()).await;
            if written.is_err() {
                for (client, user, room, message) in rows {
                    self.people.read(client, user, room, message);
                }
                return Ok(written?);
            }
        }
        reads.into_keys().for_each(|user| self.concern(user));
        Ok(())
    }

    async fn renew_lease(&self) -> Result<()> {
        Ok(self.store.renew_lease(self.node).await?)
    }

    async fn expire(&self) -> Result<()> {
        self.store.expire(self.node, Millis::now()).await?;
        Ok(())
    }

    fn forget_paces(&self) {
        if let Some(per_second) = self.limits.pace_per_second {
            let seconds = self.limits.pace_burst.div_ceil(per_second);
            self.paces.forget(Duration::from_secs(seconds.into()));
        }
    }

    /// Somebody's own list is out of date, wherever their tabs are.
    pub(super) fn concern(&self, user: UserId) {
        self.people.redraw(user);
        self.relay.announce(Envelope {
            node: self.node,
            news: News::Mine(user),
        });
    }

    async fn draw_moved(&self) -> Result<()> {
        let moved = std::mem::take(&mut self.people.due().moved);
        let mut done = Ok(());
        for user in moved {
            match self.draw_own(user).await {
                Ok(people) => {
                    let partners = people.iter().map(|partner| partner.user.id);
                    self.people.due().mine.extend(partners);
                }
                failed => done = failed.map(|_| ()),
            }
        }
        done
    }

    async fn draw_mine(&self) -> Result<()> {
        let now = Instant::now();
        let mine = {
            let mut due = self.people.due();
            due.drawn.retain(|_, at| now < *at + MINE_EVERY);
            let in_time = due
                .later
                .extract_if(|_, at| *at <= now)
                .map(|(user, _)| user);
            let mut mine: HashSet<_> = in_time.collect();
            for user in std::mem::take(&mut due.mine) {
                match due.drawn.get(&user).copied() {
                    // The first is drawn at once, those that follow soon after together.
                    Some(at) => {
                        due.later.insert(user, at + MINE_EVERY);
                    }
                    None => {
                        mine.insert(user);
                    }
                }
            }
            mine.retain(|user| !self.hub.of_user(*user).is_empty());
            due.drawn.extend(mine.iter().map(|user| (*user, now)));
            mine
        };
        let mut done = Ok(());
        for user in mine {
            if let Err(failure) = self.draw_own(user).await {
                done = Err(failure);
            }
        }
        done
    }

    /// Draws one person's own list for their tabs here; a failure is made up for later.
    async fn draw_own(&self, user: UserId) -> Result<Vec<Person>> {
        let drawing = async {
            let people = self.store.people_of(user, LISTED).await?;
            let tabs = self.hub.of_user(user);
            if tabs.iter().any(|tab| tab.dialect == Dialect::V1) {
                let frame = self.views.users_mine(&people)?.encode();
                for tab in tabs.iter().filter(|tab| tab.dialect == Dialect::V1) {
                    tab.show_new(Region::Mine, &frame);
                }
            }
            Ok(people)
        };
        let drawn = drawing.await;
        if drawn.is_err() {
            self.people
                .due()
                .later
                .insert(user, Instant::now() + MINE_EVERY);
        }
        drawn
    }

    /// Draws who is in the rooms that somebody came to or went from, and who that was.
    async fn draw_rooms(&self) -> Result<()> {
        let now = Instant::now();
        let rooms: Vec<RoomId> = {
            let mut guard = self.people.due();
            let due = &mut *guard;
            due.rooms.extend(due.moves.pass(now));
            due.rooms_drawn.retain(|_, at| now < *at + ROOM_EVERY);
            let drawn = &due.rooms_drawn;
            let rooms = due.rooms.extract_if(|room| !drawn.contains_key(room));
            let rooms: Vec<_> = rooms.collect();
            due.rooms_drawn
                .extend(rooms.iter().map(|room| (*room, now)));
            rooms
        };
        let mut done = Ok(());
        for room in rooms {
            if let Err(failure) = self.draw_room(room).await {
                self.people.due().rooms.insert(room);
                done = Err(failure);
            }
        }
        done
    }

    async fn draw_room(&self, room: RoomId) -> Result<()> {
        if self.hub.shown(room).is_none() {
            // Nobody here looks at it, nor is to be told later.
            self.people.due().moves.take_news(room);
            return Ok(());
        }
        if room == RoomId::LOBBY {
            let groups = self.store.busiest_groups(LISTED_IN_ROOM).await?;
            let list = self.views.lobby_rooms(&groups)?;
            self.hub.show_in(room, Region::LobbyRooms, &list.encode());
            return Ok(());
        }
        if let Some([low, high]) = self.store.pair(room).await? {
            let heading = |me: &User, with: &User| {
                let kind = RoomKind::Private { with: with.clone() };
                let heading = self.views.group_name(&Room { id: room, kind })?;
                Ok::<_, Failure>((me.id, heading.encode()))
            };
            let headings = [heading(&low, &high)?, heading(&high, &low)?];
            self.hub.show_heading(room, &headings);
        }
        let (lines, news) = {
            let moves = &mut self.people.due().moves;
            (moves.lines(room), moves.take_news(room))
        };
        let programs = self.hub.is_spoken(room, Dialect::Objects);
        let listed = if programs {
            LISTED_TO_PROGRAMS
        } else {
            LISTED_IN_ROOM
        };
        let (mut people, count) = self.store.people_in(room, listed).await?;
        if programs {
            let list = json::user_list(&people, count);
            self.hub
                .show_told(room, Dialect::Objects, Region::RoomPeople, &list);
            for (names, came) in [(&news.came, true), (&news.went, false)] {
                if !names.is_empty() {
                    let moved = json::moved(&names.words(), came);
                    self.hub.tell(room, Dialect::Objects, &moved);
                }
            }
        }
        people.truncate(LISTED_IN_ROOM);
        let [number, list] = self.views.room_people(room, &people, count)?;
        let moves = self
            .views
            .room_moves(&lines.came.words(), &lines.went.words())?;
        self.hub.show_in(room, Region::RoomCount, &number.encode());
        self.hub.show_in(room, Region::RoomPeople, &list.encode());
        self.hub.show_in(room, Region::RoomMoves, &moves.encode());
        Ok(())
    }

    /// Draws who is typing: the same for everybody in the room but those who do.
    fn draw_typing(&self) -> Result<()> {
        let rooms = {
            let mut guard = self.people.due();
            let due = &mut *guard;
            due.typing_changed.extend(due.typing.pass(Instant::now()));
            std::mem::take(&mut due.typing_changed)
        };
        for room in rooms {
            let typists: Vec<_> = {
                let due = self.people.due();
                let typists = due.typing.of(room).into_iter();
                typists.map(|typist| due.as_called(&typist)).collect()
            };
            let others = |me: Option<UserId>| {
                let others: Vec<_> = typists.iter().filter(|one| Some(one.id) != me).collect();
                self.views.room_typing(&others).map(|push| push.encode())
            };
            let mut own = Vec::new();
            for typist in &typists {
                own.push((typist.id, others(Some(typist.id))?));
            }
            self.hub
                .show_in_but(room, Region::RoomTyping, &others(None)?, &own);
        }
        Ok(())
    }

    /// Draws those who are here, for everyone.
    async fn draw_online(&self) -> Result<()> {
        self.people.due().online_changed = false;
        let people = self.store.people_online(LISTED).await;
        if people.is_err() {
            self.people.due().online_changed = true;
        }
        let people = people?;
        let here = Some(self.hub.people());
        let here = here.filter(|here| people.len() == LISTED && *here > LISTED);
        let list = self.views.users_online(&people, here)?.encode();
        self.hub.show_online(people.len(), &list);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_countless_rooms_read_only_a_few_are_kept_and_those_never_go_back() {
        let people = People::default();
        let client = Returning {
            client: ClientId(1),
            visit: 0,
        };
        for (room, message) in [(1, 5), (1, 9), (1, 7)] {
            people.read(client, UserId(1), RoomId(room), MessageId(message));
        }
        for room in 2..10_000 {
            people.read(client, UserId(1), RoomId(room), MessageId(1));
        }
        people.read(client, UserId(1), RoomId(1), MessageId(11));
        people.read(client, UserId(2), RoomId(1), MessageId(3));
        let due = people.due();
        assert_eq!(due.reads[&UserId(1)].len(), ROOMS_READ);
        assert_eq!(due.reads[&UserId(1)][0], (client, RoomId(1), MessageId(11)));
        assert_eq!(due.reads[&UserId(2)], [(client, RoomId(1), MessageId(3))]);
    }
}
