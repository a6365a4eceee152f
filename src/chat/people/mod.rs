//! Soft state: who is here, what is unread. It has no version; it is redrawn, coalesced, and right
//! again after any reconnect.

mod lease;
mod moves;
mod presence;
mod typing;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::{Chat, Result};
use crate::hub::{Hub, Region};
use crate::model::{ClientRef, MessageId, Room, RoomId, RoomKind, User, UserId};
use crate::relay::{Envelope, News};
use crate::store::{Left, Moved};

pub(super) use lease::keep as keep_lease;
use moves::{GRACE, Moves};
use typing::Typing;

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
/// Somebody who looks at the room has this long to say that they have seen a message before it
/// is marked as unread.
const SEEING: Duration = Duration::from_secs(3);
/// Of how many rooms one person can have seen something between two ticks.
const ROOMS_READ: usize = 8;
/// How many marks are written in one transaction at most.
const READS_AT_ONCE: usize = 100;
/// How often everything is drawn at most because news may have been lost.
const MAKE_UP_EVERY: Duration = Duration::from_secs(10);
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
    /// News of other nodes may have been lost, so that everything may be out of date.
    missed: bool,
    /// Whose clients may stand no more.
    ended: HashSet<UserId>,
    leaving: VecDeque<(Instant, ClientRef, UserId, Option<RoomId>)>,
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
    /// What people have seen, of at most [`ROOMS_READ`] rooms each.
    reads: HashMap<UserId, Vec<Read>>,
}

/// Up to which message of a room somebody has seen it, by the client that said so last.
type Read = (ClientRef, RoomId, MessageId);

impl Due {
    /// The same user, by the name they have now.
    fn as_called(&self, user: &User) -> User {
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

    /// Those whom this person has talked with may see that they came or went.
    fn moved(&self, user: UserId) {
        self.due().moved.insert(user);
        self.wake.notify_one();
    }

    /// Who is here is out of date.
    pub(super) fn online_changed(&self) {
        self.due().online_changed = true;
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

    /// Who is in a room is out of date; of the lobby, how many are in the groups.
    pub(super) fn room_changed(&self, room: RoomId) {
        self.due().rooms.insert(room);
        self.wake.notify_one();
    }

    fn came(&self, room: RoomId, user: &User, returns: bool) {
        let mut due = self.due();
        due.moves.came(room, user, returns, Instant::now());
        due.rooms.insert(room);
        drop(due);
        self.wake.notify_one();
    }

    pub(super) fn went(&self, room: RoomId, user: &User, may_return: bool) {
        let mut due = self.due();
        due.moves.went(room, user, may_return, Instant::now());
        due.rooms.insert(room);
        drop(due);
        self.wake.notify_one();
    }

    /// Somebody is typing in a room, or is no more. Answers whether that is new.
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

    /// Somebody has entered a room, and nobody else here may have looked at it while others, elsewhere,
    /// began typing there.
    pub(super) fn shows_typing(&self, room: RoomId) {
        let mut due = self.due();
        if !due.typing.of(room).is_empty() {
            due.typing_changed.insert(room);
            drop(due);
            self.wake.notify_one();
        }
    }

    /// Somebody's socket has gone.
    fn left(&self, client: ClientRef, user: UserId, room: Option<RoomId>) {
        let at = Instant::now() + GRACE;
        self.due().leaving.push_back((at, client, user, room));
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

    /// Some of this person's clients may stand no more.
    pub(super) fn ended(&self, user: UserId) {
        self.due().ended.insert(user);
        self.wake.notify_one();
    }

    /// News of other nodes may have been lost.
    pub(super) fn missed(&self) {
        self.due().missed = true;
        self.wake.notify_one();
    }

    /// Somebody has seen a room up to a message.
    pub(super) fn read(&self, client: ClientRef, user: UserId, room: RoomId, message: MessageId) {
        let mut due = self.due();
        let reads = due.reads.entry(user).or_default();
        let full = reads.len() == ROOMS_READ;
        match reads.iter_mut().find(|(_, other, _)| *other == room) {
            Some((by, _, read)) => (*by, *read) = (client, message.max(*read)),
            // `Read` has no pace of its own: whoever names more rooms than anybody can have looked
            // at fills neither the memory nor the writer's time.
            None if full => {}
            None => reads.push((client, room, message)),
        }
    }

    /// Everything is drawn anew that another node may have told of in vain.
    fn make_up(&self, hub: &Hub) {
        let mut due = self.due();
        due.missed = false;
        due.online_changed = true;
        due.mine.extend(hub.users());
        due.rooms.extend(hub.active_rooms());
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
    let (mut drawn, mut expired, mut made_up) = (None, None, None);
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
            // What somebody has seen is written for a client that stands.
            people.attempt("reading", chat.write_reads()).await;
            people.attempt("leaving", chat.write_leaving(now)).await;
            if is_due(expired, EXPIRE_EVERY) {
                expired = Some(now);
                people.attempt("clearing up", chat.expire()).await;
                chat.forget();
            }
        }
        let ended = std::mem::take(&mut people.due().ended);
        for user in ended {
            let ending = chat.end_strays(chat.hub.of_user(user));
            people.attempt("looking for strays", ending).await;
        }
        if people.due().missed && is_due(made_up, MAKE_UP_EVERY) {
            made_up = Some(Instant::now());
            people.make_up(&chat.hub);
            let (people, chat) = (Arc::clone(&people), Arc::clone(&chat));
            tokio::spawn(async move {
                let making_up = chat.make_up_for_groups();
                people
                    .attempt("looking for changed groups", making_up)
                    .await;
            });
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
    // For clients that stand still, as above.
    people.attempt("reading", chat.write_reads()).await;
    // From here on the lease is not renewed any more, which would bring the node back.
    people.finished.store(true, Ordering::Relaxed);
    if let Err(error) = chat.end().await {
        tracing::warn!(?error, "who was here is found to be gone later");
    }
}

impl Chat {
    /// Tells everybody whom it concerns, here and on the other nodes.
    pub(super) fn spread(&self, news: News) {
        self.take(&news);
        self.tell_others(news);
    }

    pub(super) fn tell_others(&self, news: News) {
        let node = self.node;
        self.relay.announce(Envelope { node, news });
    }

    /// Takes soft news, of this node or another.
    pub(super) fn take(&self, news: &News) {
        let people = &self.people;
        match news {
            News::Presence(room) => people.room_changed(*room),
            News::Came {
                room,
                user,
                returns,
            } => people.came(*room, user, *returns),
            News::Went {
                room,
                user,
                may_return,
            } => people.went(*room, user, *may_return),
            News::Typing { room, user, on } => {
                people.types(*room, user, *on);
            }
            News::Online => people.online_changed(),
            News::Mine(user) => people.redraw(*user),
            News::Renamed { user, rooms } => self.take_name(user, rooms),
            News::Missed => {
                people.missed();
                self.outdated.notify_one();
            }
            _ => {}
        }
    }

    /// Somebody is called otherwise, which those see whose lists they are on and who look at one of
    /// these rooms or at one where they are.
    fn take_name(&self, user: &User, rooms: &[RoomId]) {
        let tabs = self.hub.of_user(user.id);
        if !tabs.is_empty() {
            self.people.calls(user);
            match self.views.name_form(user) {
                Ok(form) => {
                    let frame = form.encode();
                    for tab in tabs.iter().filter(|tab| tab.dialect.has(&form.selector)) {
                        tab.show(Region::Name, frame.clone());
                    }
                }
                Err(error) => tracing::error!(?error, "a fragment failed"),
            }
        }
        {
            let mut due = self.people.due();
            due.rooms.extend(rooms);
            let typing = due.typing.rename(user);
            due.typing_changed.extend(typing);
            due.online_changed = true;
        }
        self.people.moved(user.id);
        for place in tabs.iter().filter_map(|tab| tab.place()) {
            self.spread(News::Presence(place.room));
        }
    }

    /// Somebody came or went; those they have talked with may see it.
    pub(super) fn moved(&self, user: UserId) {
        self.people.moved(user);
        self.spread(News::Online);
    }

    /// A tab of somebody has entered a room, or the lobby, from another or from nowhere. Those who are
    /// there are told if that brings the person there, unless they return; what goes on in private rooms
    /// is nobody's business.
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
        let user = self.people.due().as_called(user);
        if let Some(room) = room {
            if moved.joined && matches!(room.kind, RoomKind::Group(_)) {
                let (room, user) = (room.id, user.clone());
                self.spread(News::Came {
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
            self.spread(News::Went {
                room,
                user,
                may_return,
            });
        }
        self.spread(News::Presence(RoomId::LOBBY));
    }

    /// Somebody is typing in the room they look at.
    pub(super) fn starts_typing(&self, room: RoomId, user: &User) {
        let user = self.people.due().as_called(user);
        // Each sign is told, since whoever gives none has stopped, on other nodes too.
        self.spread(News::Typing {
            room,
            user,
            on: true,
        });
    }

    /// Another node has somebody in a room from now on, who is to see who types there.
    pub(super) fn tell_typists(&self, room: RoomId) {
        let typists = self.people.due().typing.of(room);
        for user in typists {
            if self.hub.has_user(user.id) {
                self.tell_others(News::Typing {
                    room,
                    user,
                    on: true,
                });
            }
        }
    }

    /// What somebody was typing in a room has been sent, or they have gone.
    pub(super) fn stops_typing(&self, room: RoomId, user: &User) {
        if self.people.types(room, user, false) {
            let (user, on) = (user.clone(), false);
            self.tell_others(News::Typing { room, user, on });
        }
    }

    /// Somebody's socket has gone, which looked at that room.
    pub(super) fn leaves(&self, client: ClientRef, user: &User, room: Option<RoomId>) {
        self.people.left(client, user.id, room);
        if let Some(room) = room {
            self.stops_typing(room, user);
        }
    }

    async fn write_leaving(&self, now: Instant) -> Result<()> {
        let mut gone = Vec::new();
        {
            let mut due = self.people.due();
            while let Some((_, client, user, room)) = due.leaving.pop_front_if(|next| next.0 <= now)
            {
                gone.push((client, user, room));
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let clients = gone.iter().map(|(client, ..)| *client).collect();
        let left = self.store.leave(clients).await;
        if left.is_err() {
            let again = gone
                .iter()
                .map(|(client, user, room)| (Instant::now(), *client, *user, *room));
            self.people.due().leaving.extend(again);
        }
        let left = left?;
        let told: HashSet<_> = left.iter().map(|left| left.user.id).collect();
        for (_, user, room) in &gone {
            if !self.hub.has_user(*user) {
                self.people.due().names.remove(user);
            }
            // Whose client had ended before, as by a ban, has gone without the store telling of it now.
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

    /// These have gone, as the store has it.
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
                self.spread(News::Went {
                    room,
                    user,
                    may_return,
                });
            }
        }
        self.spread(News::Presence(RoomId::LOBBY));
    }

    async fn write_reads(&self) -> Result<()> {
        let reads = std::mem::take(&mut self.people.due().reads);
        if reads.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = reads
            .iter()
            .flat_map(|(user, reads)| {
                let reads = reads.iter();
                reads.map(|(client, room, message)| (*client, *user, *room, *message))
            })
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
        reads
            .into_keys()
            .for_each(|user| self.spread(News::Mine(user)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClientId;

    #[test]
    fn of_countless_rooms_read_only_a_few_are_kept_and_those_never_go_back() {
        let people = People::default();
        let by = |client| ClientRef {
            client: ClientId(client),
            visit: 0,
        };
        for (room, message) in [(1, 5), (1, 9), (1, 7)] {
            people.read(by(1), UserId(1), RoomId(room), MessageId(message));
        }
        for room in 2..10_000 {
            people.read(by(1), UserId(1), RoomId(room), MessageId(1));
        }
        people.read(by(2), UserId(1), RoomId(1), MessageId(11));
        people.read(by(3), UserId(2), RoomId(1), MessageId(3));
        let due = people.due();
        assert_eq!(due.reads[&UserId(1)].len(), ROOMS_READ);
        let newest = (by(2), RoomId(1), MessageId(11));
        assert_eq!(due.reads[&UserId(1)][0], newest);
        let other = (by(3), RoomId(1), MessageId(3));
        assert_eq!(due.reads[&UserId(2)], [other]);
    }
}
