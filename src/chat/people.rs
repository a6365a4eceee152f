//! Soft state: who is here, what is unread. It has no version; it is redrawn, coalesced, and right
//! again after any reconnect.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::{Chat, Result};
use crate::hub::Region;
use crate::model::{MessageId, Millis, Person, RoomId, UserId};
use crate::protocol::{Dialect, Frame};
use crate::relay::{Envelope, News};
use crate::store::Returning;

/// How many people a list shows at most.
pub(super) const LISTED: usize = 25;

/// How often whatever is due is looked at.
const TICK: Duration = Duration::from_millis(500);
/// The list of those who are here is drawn at most this often.
const ONLINE_EVERY: Duration = Duration::from_secs(1);
/// For so long a person whose socket has gone still counts as here: a reload is no leaving.
const GRACE: Duration = Duration::from_secs(3);
/// Somebody who looks at the room has this long to say that they have seen a message before it
/// is marked as unread.
const SEEING: Duration = Duration::from_secs(3);
/// A third of a lease, so that one renewal may fail.
const RENEW_LEASE_EVERY: Duration = Duration::from_secs(5);
const EXPIRE_EVERY: Duration = Duration::from_secs(10);

/// What is to be redrawn and written, when its time comes.
#[derive(Default)]
pub(super) struct People {
    due: Mutex<Due>,
    wake: Notify,
}

#[derive(Default)]
struct Due {
    /// Whose own list is out of date.
    mine: HashSet<UserId>,
    /// Whose own list is out of date unless they see a message before then.
    later: HashMap<UserId, Instant>,
    online_changed: bool,
    online: Option<Frame>,
    leaving: VecDeque<(Instant, Returning, UserId)>,
    reads: HashMap<(UserId, RoomId), MessageId>,
}

impl People {
    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody is here; those they have talked with may see it.
    pub(super) fn arrived(&self, partners: &[Person]) {
        let mut due = self.due();
        due.online_changed = true;
        due.mine
            .extend(partners.iter().map(|partner| partner.user.id));
        drop(due);
        self.wake.notify_one();
    }

    /// Somebody's socket has gone.
    pub(super) fn left(&self, client: Returning, user: UserId) {
        self.due()
            .leaving
            .push_back((Instant::now() + GRACE, client, user));
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
    pub(super) fn read(&self, user: UserId, room: RoomId, message: MessageId) {
        let mut due = self.due();
        let read = due.reads.entry((user, room)).or_insert(message);
        *read = (*read).max(message);
    }

    /// The list of those who are here, as it was drawn last.
    pub(super) fn online(&self) -> Option<Frame> {
        self.due().online.clone()
    }
}

/// Does what is due for as long as there is a chat.
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
        if ticked {
            let now = Instant::now();
            attempt("leaving", chat.write_leaving(|at| at <= now)).await;
            attempt("reading", chat.write_reads()).await;
            if is_due(Some(renewed), RENEW_LEASE_EVERY) {
                renewed = now;
                attempt("renewing the lease", chat.renew_lease()).await;
            }
            if is_due(expired, EXPIRE_EVERY) {
                expired = Some(now);
                attempt("clearing up", chat.expire()).await;
            }
        }
        attempt("drawing who is concerned", chat.draw_mine()).await;
        if people.due().online_changed && is_due(drawn, ONLINE_EVERY) {
            drawn = Some(Instant::now());
            attempt("drawing who is here", chat.draw_online()).await;
        }
    }
}

/// Soft state is right again after the next round: a failure is only worth a line in the log.
async fn attempt(what: &str, act: impl Future<Output = Result<()>>) {
    if let Err(error) = act.await {
        tracing::warn!(what, ?error, "failed, and is tried again");
    }
}

/// Writes what has not been written yet.
pub(super) async fn finish(chat: &Chat) {
    attempt("leaving", chat.write_leaving(|_| true)).await;
    attempt("reading", chat.write_reads()).await;
}

impl Chat {
    async fn write_leaving(&self, is_due: impl Fn(Instant) -> bool) -> Result<()> {
        let mut gone = Vec::new();
        {
            let mut due = self.people.due();
            while let Some((_, client, user)) = due.leaving.pop_front_if(|next| is_due(next.0)) {
                gone.push((client, user));
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let left = self
            .store
            .leave(gone.iter().map(|(client, _)| *client).collect())
            .await;
        if left.is_err() {
            let again = gone
                .iter()
                .map(|(client, user)| (Instant::now(), *client, *user));
            self.people.due().leaving.extend(again);
        }
        left?;
        self.people.due().online_changed = true;
        for (_, user) in gone {
            let partners = self.store.people_of(user, LISTED).await?;
            self.people
                .due()
                .mine
                .extend(partners.iter().map(|partner| partner.user.id));
        }
        Ok(())
    }

    async fn write_reads(&self) -> Result<()> {
        let reads = std::mem::take(&mut self.people.due().reads);
        if reads.is_empty() {
            return Ok(());
        }
        let rows = reads
            .iter()
            .map(|((user, room), message)| (*user, *room, *message));
        let written = self.store.mark_read(rows.collect()).await;
        for ((user, room), message) in reads {
            match written {
                Ok(()) => self.concern(user),
                Err(_) => self.people.read(user, room, message),
            }
        }
        Ok(written?)
    }

    async fn renew_lease(&self) -> Result<()> {
        if self.hub.people() == 0 {
            // Nobody stands by the lease; the next to arrive renews it.
            return Ok(());
        }
        Ok(self.store.renew_lease(self.node).await?)
    }

    async fn expire(&self) -> Result<()> {
        Ok(self.store.expire(self.node, Millis::now()).await?)
    }

    /// Somebody's own list is out of date, wherever their tabs are.
    pub(super) fn concern(&self, user: UserId) {
        self.people.redraw(user);
        self.relay.announce(Envelope {
            node: self.node,
            news: News::Mine(user),
        });
    }

    async fn draw_mine(&self) -> Result<()> {
        let mut mine = {
            let mut due = self.people.due();
            let now = Instant::now();
            let seen_by_now = due
                .later
                .extract_if(|_, at| *at <= now)
                .map(|(user, _)| user);
            let mut mine: HashSet<_> = seen_by_now.collect();
            mine.extend(std::mem::take(&mut due.mine));
            mine
        };
        mine.retain(|user| !self.hub.of_user(*user).is_empty());
        for user in mine {
            let people = self.store.people_of(user, LISTED).await?;
            let frame = self.views.users_mine(&people)?.encode();
            for outbox in self.hub.of_user(user) {
                if outbox.dialect == Dialect::V1 {
                    outbox.show(Region::Mine, frame.clone());
                }
            }
        }
        Ok(())
    }

    /// Draws those who are here, and shows them to everyone if that differs from what was shown.
    async fn draw_online(&self) -> Result<()> {
        self.people.due().online_changed = false;
        let people = self.store.people_online(LISTED).await;
        if people.is_err() {
            self.people.due().online_changed = true;
        }
        let people = people?;
        let more = match people.len() < LISTED {
            true => 0,
            false => self.hub.people().saturating_sub(people.len()),
        };
        let frame = self.views.users_online(&people, more)?.encode();
        let before = self.people.due().online.replace(frame.clone());
        if before.is_none_or(|before| before.payload() != frame.payload()) {
            self.hub.show_everyone(Region::Online, &frame);
        }
        Ok(())
    }
}
