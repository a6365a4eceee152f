//! The stream of changes, which updates rooms, and the catch-up of readers.
//!
//! Changes stay in order because a node has one stream of them. This module does not know why a change
//! was made.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use super::{Chat, Result, log_failure};
use crate::hub::Step;
use crate::json;
use crate::metrics::METRICS;
use crate::model::{Message, Page, RoomId, UserId, Version};
use crate::protocol::{Dialect, Feed, Frame, Push};
use crate::relay::{Envelope, Heard, News, Own, To};
use crate::store::{self, CatchUp, Change, OwnReaction};

/// How many changes are handled at once at most.
const CHANGES_TOGETHER: usize = 64;
/// The size, in bytes, from which no more changes are joined into one step: an outbox takes a joined
/// step whole or not at all.
const BYTES_TOGETHER: usize = 16 * 1024;
/// How often the shown versions are compared with the store while there are other nodes.
const COMPARE_EVERY: Duration = Duration::from_secs(2);
/// How long a change from another node waits for missing earlier ones before they are read from the
/// store. The earlier ones may come from a third node.
const WAIT_FOR_STEPS: Duration = Duration::from_millis(20);

pub(super) struct Delivery {
    chat: Weak<Chat>,
    early: Early,
    comparing: Comparing,
}

/// The versions of rooms, read from the store in the background.
type Comparing = JoinSet<store::Result<Vec<Version>>>;

/// Changes that arrived out of order.
#[derive(Default)]
struct Early {
    /// For each room, its early steps by the number they follow, and until when they wait.
    rooms: HashMap<RoomId, (Instant, BTreeMap<u64, Step>)>,
}

impl Early {
    fn wait(&mut self, step: Step) {
        let until = Instant::now() + WAIT_FOR_STEPS;
        let room = self.rooms.entry(step.version.room);
        let (_, steps) = room.or_insert_with(|| (until, BTreeMap::new()));
        steps.insert(step.follows, step);
    }

    /// Takes the step of a room that follows this number. Drops the steps before it, which are of no
    /// use.
    fn next(&mut self, room: RoomId, follows: u64) -> Option<Step> {
        let (_, steps) = self.rooms.get_mut(&room)?;
        *steps = steps.split_off(&follows);
        let step = steps.remove(&follows);
        if steps.is_empty() {
            self.rooms.remove(&room);
        }
        step
    }

    /// Waits for the next room whose steps have waited long enough.
    async fn overdue(&self) -> RoomId {
        let first = self.rooms.iter().min_by_key(|(_, (until, _))| *until);
        let Some((room, (until, _))) = first else {
            return std::future::pending().await;
        };
        sleep_until(*until).await;
        *room
    }
}

impl Delivery {
    pub(super) fn new(chat: &Arc<Chat>) -> Self {
        Self {
            chat: Arc::downgrade(chat),
            early: Early::default(),
            comparing: JoinSet::new(),
        }
    }

    /// Handles the changes of this node and the news of others as long as the chat runs.
    pub(super) async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut heard: mpsc::Receiver<Heard>,
    ) {
        let mut compare = tokio::time::interval(COMPARE_EVERY);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Some(outdated) = self.chat.upgrade().map(|chat| Arc::clone(&chat.outdated)) else {
            return;
        };
        let mut made = Vec::new();
        loop {
            tokio::select! {
                count = changes.recv_many(&mut made, CHANGES_TOGETHER) => {
                    let (1.., Some(chat)) = (count, self.chat.upgrade()) else { return };
                    chat.deliver(&mut made, &mut self.early).await;
                }
                heard = heard.recv() => {
                    let (Some(heard), Some(chat)) = (heard, self.chat.upgrade()) else { return };
                    chat.hear(heard, &mut self.early, &mut self.comparing).await;
                }
                room = self.early.overdue() => {
                    let Some(chat) = self.chat.upgrade() else { return };
                    chat.give_up_waiting(room, &mut self.early).await;
                }
                () = outdated.notified() => {
                    let Some(chat) = self.chat.upgrade() else { return };
                    chat.look_up(chat.hub.active_rooms(), &mut self.comparing);
                }
                _ = compare.tick(), if self.comparing.is_empty() => {
                    let Some(chat) = self.chat.upgrade() else { return };
                    if chat.relay.has_others(chat.node) {
                        chat.look_up(chat.hub.active_rooms(), &mut self.comparing);
                    }
                }
                Some(found) = self.comparing.join_next() => {
                    let Some(chat) = self.chat.upgrade() else { return };
                    match found {
                        Ok(Ok(versions)) => chat.compare(versions).await,
                        Ok(Err(error)) => {
                            log_failure("compare the versions of rooms", &error);
                        }
                        Err(error) => {
                            log_failure("compare the versions of rooms", &error);
                        }
                    }
                }
            }
        }
    }
}

impl Chat {
    /// Shows this node's changes to everyone in their rooms and sends them to the other nodes.
    async fn deliver(self: &Arc<Self>, changes: &mut Vec<Change>, early: &mut Early) {
        let is_new = |change: &&Change| change.message.made == change.version.number;
        METRICS.changes.inc_by(changes.len() as u64);
        METRICS
            .messages
            .inc_by(changes.iter().filter(is_new).count() as u64);
        // The sort is stable: the order within each room stays.
        changes.sort_by_key(|change| change.version.room);
        let follow = |one: &Change, next: &Change| {
            one.version.room == next.version.room && one.version.number + 1 == next.version.number
        };
        for run in changes.chunk_by(follow) {
            self.show_run(run).await;
            if let Some(last) = run.last() {
                self.show_early(last.version.room, early);
            }
            for change in run {
                self.notify_partners(change);
                self.note_news(change);
                self.note_notable(change);
                self.indexer.note(change);
            }
        }
        changes.clear();
    }

    /// Shows successive changes, joined as long as they are small.
    async fn show_run(self: &Arc<Self>, run: &[Change]) {
        let (mut begun, mut frames, mut bytes) = (0, Vec::new(), 0);
        for (n, change) in run.iter().enumerate() {
            let pushes = self.views.change(&change.message, change.version);
            let frame = together(pushes.iter().map(Push::encode).collect());
            bytes += frame.iter().map(Frame::size).sum::<usize>();
            frames.extend(frame);
            if bytes >= BYTES_TOGETHER {
                self.show_together(&run[begun..=n], std::mem::take(&mut frames))
                    .await;
                (begun, bytes) = (n + 1, 0);
            }
        }
        self.show_together(&run[begun..], frames).await;
    }

    /// Shows changes together; `frames` belong to them. The tabs may have some of them already, from a
    /// read of the store. These become a step of their own: a joined step would not follow the shown
    /// version.
    async fn show_together(self: &Arc<Self>, changes: &[Change], mut frames: Vec<Frame>) {
        let room = changes.first().map(|change| change.version.room);
        let shown = room.and_then(|room| self.hub.shown(room)).flatten();
        let brought = changes.partition_point(|change| {
            shown.is_some_and(|shown| {
                shown.history == change.version.history && change.version.number <= shown.number
            })
        });
        let rest = frames.split_off(brought);
        self.show_as_one(&changes[..brought], frames).await;
        self.show_as_one(&changes[brought..], rest).await;
    }

    async fn show_as_one(self: &Arc<Self>, changes: &[Change], frames: Vec<Frame>) {
        let (Some(first), Some(last)) = (changes.first(), changes.last()) else {
            return;
        };
        let others = self.relay.has_others(self.node);
        let mut for_programs: Vec<(Dialect, Vec<Option<Frame>>)> = Vec::new();
        for dialect in [Dialect::Objects, Dialect::Lines] {
            // Other nodes may have programs there, even if this one has none.
            if others || self.hub.has_dialect(first.version.room, dialect) {
                let frames = changes.iter().map(|change| {
                    // Programs get no reactions.
                    let is_said = change.message.worded == change.version.number;
                    is_said.then(|| json::message(dialect, &change.message))?
                });
                for_programs.push((dialect, frames.collect()));
            }
        }
        let Some(frame) = together(frames.clone()) else {
            return;
        };
        let joined = for_programs.iter().map(|(dialect, frames)| {
            let frames = frames.iter().flatten().cloned().collect();
            (*dialect, together(frames))
        });
        let own: Vec<_> = changes.iter().map(|change| self.own(change)).collect();
        let mut step = Step::new(first.version.number - 1, last.version, vec![frame]);
        step.for_programs = joined.collect();
        step.own = own.iter().flatten().map(shown_to).collect();
        self.show_step(step).await;
        if !others {
            return;
        }
        for (n, ((change, frame), own)) in changes.iter().zip(frames).zip(own).enumerate() {
            let version = change.version;
            let for_programs = for_programs.iter();
            let for_programs = for_programs.map(|(dialect, frames)| (*dialect, frames[n].clone()));
            self.tell_others(News::Change {
                follows: version.number - 1,
                version,
                frame,
                for_programs: for_programs.collect(),
                own,
            });
        }
    }

    /// The push that shows people their own reaction, in their tabs only. It comes with the room's
    /// change, so two tabs that disagree both end with what is stored.
    fn own(&self, change: &Change) -> Option<Own> {
        let OwnReaction { user, emoji, on } = change.reaction?;
        match self.views.my_reaction(change.message.id, emoji, on) {
            Ok(push) => Some(Own {
                user,
                frame: push.encode(),
            }),
            Err(error) => {
                log_failure("render a fragment", &error);
                None
            }
        }
    }

    /// Shows a user's own reactions in a room again, read from the store, since changes with reactions
    /// were skipped.
    async fn show_own_again(&self, user: UserId, room: RoomId) {
        if !self.hub.has_user(user) {
            return;
        }
        let mut tries = 0..10;
        loop {
            let before = self.hub.shown(room);
            match self.own_reactions(user, room).await {
                // A change that arrived meanwhile may contain more than was read.
                Ok(_) if self.hub.shown(room) != before && tries.next().is_some() => {}
                Ok(frame) => return self.hub.show_own(user, room, frame),
                Err(failure) => {
                    return log_failure("push a person's own reactions", &failure);
                }
            }
        }
    }

    /// The two people of a private room see in their lists that something was said. A program gets the
    /// message.
    fn notify_partners(&self, change: &Change) {
        let message = &change.message;
        for user in change.between.into_iter().flatten() {
            let by_other = user != message.author.id;
            let is_new = by_other && message.made == change.version.number;
            let for_programs = is_new.then(|| json::private_message(message));
            let room = change.version.room;
            self.note_private_message(user, room, by_other, for_programs.as_ref());
            self.tell_others(News::Written {
                user,
                room,
                by_other,
                for_programs,
            });
        }
    }

    fn note_private_message(
        &self,
        user: UserId,
        room: RoomId,
        by_other: bool,
        for_programs: Option<&Frame>,
    ) {
        let tabs = self.hub.of_user(user);
        if let Some(for_programs) = for_programs {
            for tab in tabs.iter().filter(|tab| tab.dialect == Dialect::Objects) {
                tab.push([for_programs.clone()]);
            }
        }
        let looks = tabs
            .iter()
            .any(|tab| tab.place().is_some_and(|at| at.room == room));
        match looks && by_other {
            true => self.people.refresh_unless_seen(user),
            false => self.people.refresh(user),
        }
    }

    /// Handles what the relay brings.
    async fn hear(self: &Arc<Self>, heard: Heard, early: &mut Early, comparing: &mut Comparing) {
        let Envelope { node, news } = match heard {
            Heard::News(envelope) => {
                METRICS.relay_received.inc();
                envelope
            }
            Heard::Following(To::Room(room)) => {
                self.people.room_changed(room);
                self.tell_others(News::WhoTypes(room));
                return self.look_up(vec![room], comparing);
            }
            Heard::Following(To::User(user)) => {
                self.people.ended(user);
                return self.people.refresh(user);
            }
            Heard::Following(_) => return,
            Heard::Missed => {
                METRICS.relay_missed.inc();
                return self.take(&News::Missed);
            }
        };
        match news {
            News::Change {
                follows,
                version,
                frame,
                for_programs,
                own,
            } => {
                let mut step = Step::new(follows, version, vec![frame]);
                step.for_programs = for_programs;
                step.own = own.iter().map(shown_to).collect();
                self.follow(step, early).await;
            }
            News::Written {
                user,
                room,
                by_other,
                for_programs,
            } => self.note_private_message(user, room, by_other, for_programs.as_ref()),
            News::WhoTypes(room) => self.tell_typists(room),
            News::Notice { user, frame, plain } => self.show_notice(user, &frame, plain.as_ref()),
            News::Ended(user) => self.people.ended(user),
            News::Banned(user) => self.take_ban(user),
            News::GroupChanged(room) => {
                let chat = Arc::clone(self);
                tokio::spawn(async move { chat.take_group_change(room).await });
            }
            News::Probe { client, .. } => {
                // The answer may take a while; nothing else waits for it.
                tokio::spawn(Arc::clone(self).answer_probe(client, node));
            }
            News::Alive { client, alive, .. } => self.take_answer(client, alive),
            soft => {
                if let News::Missed = soft {
                    METRICS.relay_missed.inc();
                }
                self.take(&soft);
            }
        }
    }

    /// Shows a step from another node, once the steps before it have been shown.
    async fn follow(self: &Arc<Self>, step: Step, early: &mut Early) {
        let room = step.version.room;
        match self.hub.shown(room) {
            Some(Some(shown))
                if shown.history == step.version.history && shown.number < step.follows =>
            {
                early.wait(step);
            }
            _ => {
                self.show_step(step).await;
                self.show_early(room, early);
            }
        }
    }

    /// Shows the early steps whose turn has come.
    fn show_early(self: &Arc<Self>, room: RoomId, early: &mut Early) {
        while let Some(Some(shown)) = self.hub.shown(room)
            && let Some(step) = early.next(room, shown.number)
        {
            if step.version.history == shown.history {
                self.show(step);
            }
        }
    }

    async fn give_up_waiting(self: &Arc<Self>, room: RoomId, early: &mut Early) {
        if let Some(Some(shown)) = self.hub.shown(room) {
            self.fill(room, shown, None).await;
            self.want_page(room);
            self.show_early(room, early);
        }
        early.rooms.remove(&room);
    }

    /// Shows a step to the tabs in its room, after any missing steps.
    async fn show_step(self: &Arc<Self>, mut step: Step) {
        let room = step.version.room;
        let shown = match self.hub.shown(room) {
            // No tab here shows the room.
            None => return,
            Some(None) => return self.show(step),
            Some(Some(shown)) => shown,
        };
        // The numbers of another history may mean something else.
        let is_same = step.version.history == shown.history;
        let is_known = is_same && step.version.number <= shown.number;
        let continues = is_same && shown.number >= step.follows && !is_known;
        // The first change ever follows nothing, whatever its history.
        if continues || (shown.number, step.follows) == (0, 0) {
            return self.show(step);
        }
        let own = std::mem::take(&mut step.own);
        if is_known {
            self.hub.show_again(step);
        } else {
            self.fill(room, shown, Some(step.version)).await;
            self.want_page(room);
        }
        for (user, _) in own {
            self.show_own_again(user, room).await;
        }
    }

    fn show(self: &Arc<Self>, step: Step) {
        let room = step.version.room;
        self.hub.show(step);
        self.want_page(room);
    }

    fn want_page(self: &Arc<Self>, room: RoomId) {
        if self.hub.want_page(room) {
            tokio::spawn(Arc::clone(self).render_pages(room));
        }
    }

    /// Reads the current versions of these rooms from the store. If the last news of a room was lost,
    /// there is no gap to notice.
    fn look_up(self: &Arc<Self>, rooms: Vec<RoomId>, comparing: &mut Comparing) {
        if !rooms.is_empty() {
            let chat = Arc::clone(self);
            comparing.spawn(async move { chat.store.versions(rooms).await });
        }
    }

    /// Compares the versions shown here with those of the store. Versions shown since then may be
    /// newer.
    async fn compare(self: &Arc<Self>, versions: Vec<Version>) {
        for version in versions {
            let room = version.room;
            match self.hub.shown(room) {
                None => continue,
                Some(Some(shown))
                    if version.history == shown.history && version.number <= shown.number =>
                {
                    continue;
                }
                Some(Some(shown)) => self.fill(room, shown, None).await,
                // Tabs with an older version catch up on their own.
                Some(None) => self.hub.skip_to(version),
            }
            self.want_page(room);
        }
    }

    /// Reads the missing changes from the store and shows them, up to that version or the newest.
    async fn fill(self: &Arc<Self>, room: RoomId, shown: Version, up_to: Option<Version>) {
        match self.store.catch_up(room, Some(shown)).await {
            Ok(CatchUp::UpToDate) => {}
            Ok(CatchUp::Changes {
                after,
                version,
                messages,
            }) => match self.views.changes(after, version, &messages) {
                Some(pushes) => {
                    let frames = pushes.iter().map(Push::encode).collect();
                    self.hub.show(Step::new(after.number, version, frames));
                    // It is not known who reacted on other nodes. Guests cannot have, since they are on
                    // one node only. No message waits for this.
                    let (chat, users) = (Arc::clone(self), self.hub.registered_in(room));
                    tokio::spawn(async move {
                        for user in users {
                            chat.show_own_again(user, room).await;
                        }
                    });
                }
                None => self.hub.skip_to(version),
            },
            Ok(CatchUp::Newest(page)) => self.hub.skip_to(page.version),
            Err(error) => {
                log_failure(format_args!("read missing changes of room {room}"), &error);
                // With several nodes, the next comparison finds the same gap. A single node does not
                // compare, so each tab catches up on its own.
                if let (Some(version), false) = (up_to, self.relay.has_others(self.node)) {
                    self.hub.skip_to(version);
                }
            }
        }
    }

    /// Renders the newest page for a room's plain tabs, and again as long as it is out of date.
    async fn render_pages(self: Arc<Self>, room: RoomId) {
        while self.hub.take_wanted_page(room) {
            match self.newest_plain(room).await {
                Ok((frame, version)) => self.hub.show_page(room, version, &frame),
                Err(failure) => {
                    log_failure(
                        format_args!("read the newest page of room {room}"),
                        &failure,
                    );
                    return self.hub.give_up_page(room);
                }
            }
        }
    }

    /// The newest page of a room for plain tabs, and its version.
    async fn newest_plain(&self, room: RoomId) -> Result<(Frame, Version)> {
        let page = self.store.newest(room).await?;
        Ok((self.views.plain_newest(&page)?, page.version))
    }

    /// The catch-up of a reader who has `after`, in their dialect, and the version it leads to.
    pub(super) async fn rest(
        &self,
        dialect: Dialect,
        room: RoomId,
        after: Option<Version>,
    ) -> Result<(Vec<Frame>, Version)> {
        if matches!(dialect.feed(), Feed::Json | Feed::Nothing) {
            let in_json = |messages: &[Message]| {
                let messages = messages.iter();
                let frames = messages.filter_map(|message| json::message(dialect, message));
                frames.collect()
            };
            return Ok(match after {
                // From there on nothing is left out, however much there is.
                Some(after) => {
                    let (messages, version) = self.store.worded_since(room, after.number).await?;
                    (in_json(&messages), version)
                }
                None => {
                    let page = self.store.newest(room).await?;
                    (in_json(&page.messages), page.version)
                }
            });
        }
        if dialect.feed() == Feed::Pages {
            let (page, version) = self.newest_plain(room).await?;
            return Ok((vec![page], version));
        }
        let caught_up = self.store.catch_up(room, after).await?;
        self.rest_of(room, after, caught_up).await
    }

    /// The same for a page, after the catch-up was read.
    pub(super) async fn rest_of(
        &self,
        room: RoomId,
        after: Option<Version>,
        caught_up: CatchUp,
    ) -> Result<(Vec<Frame>, Version)> {
        let list = |page: &Page| Ok((vec![self.views.newest(page)?], page.version));
        match (caught_up, after) {
            (CatchUp::UpToDate, Some(after)) => return Ok((Vec::new(), after)),
            (CatchUp::UpToDate, None) => {}
            (CatchUp::Newest(page), _) => return list(&page),
            (
                CatchUp::Changes {
                    after,
                    version,
                    messages,
                },
                _,
            ) => {
                if let Some(pushes) = self.views.changes(after, version, &messages) {
                    return Ok((pushes.iter().map(Push::encode).collect(), version));
                }
            }
        }
        let newest = self.store.newest(room).await?;
        list(&newest)
    }
}

fn shown_to(own: &Own) -> (UserId, Frame) {
    (own.user, own.frame.clone())
}

/// Joins frames into one, if there are any.
fn together(mut frames: Vec<Frame>) -> Option<Frame> {
    match frames.len() {
        0 | 1 => frames.pop(),
        _ => Some(Frame::joined(frames)),
    }
}
