//! The one stream of changes: it brings rooms forward, and readers up to date.
//!
//! Order follows from there being one stream on a node. It does not know why a change was made.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use super::{Chat, Result};
use crate::json;
use crate::model::{RoomId, UserId, Version};
use crate::protocol::{Dialect, Feed, Frame, Push, Selector};
use crate::relay::{Envelope, Heard, News, Own, To};
use crate::store::{self, CatchUp, Change, OwnReaction};

/// How many changes are taken up at one time at most.
const CHANGES_TOGETHER: usize = 64;
/// From this many bytes on, steps of a room are not joined any further: an outbox takes a joined
/// step whole or not at all.
const BYTES_TOGETHER: usize = 16 * 1024;
/// How often what is shown is compared with the store while there are other nodes.
const COMPARE_EVERY: Duration = Duration::from_secs(2);
/// For so long a step that another node made waits for those before it, which may come from a third,
/// until the store is asked for them.
const WAIT_FOR_STEPS: Duration = Duration::from_millis(20);

pub(super) struct Delivery {
    chat: Weak<Chat>,
    early: Early,
    comparing: Comparing,
}

/// What the store says of rooms, which nothing waits for.
type Comparing = JoinSet<store::Result<Vec<Version>>>;

/// Steps that have come before those that they follow.
#[derive(Default)]
struct Early {
    /// Of each room, by the number they follow, and until when they wait.
    rooms: HashMap<RoomId, (Instant, BTreeMap<u64, Step>)>,
}

/// What brings a room forward.
struct Step {
    follows: u64,
    version: Version,
    frame: Frame,
    told: Told,
    own: Vec<Own>,
}

/// What programs are told, in each of their dialects.
type Told = Vec<(Dialect, Option<Frame>)>;

impl Early {
    fn wait(&mut self, step: Step) {
        let until = Instant::now() + WAIT_FOR_STEPS;
        let room = self.rooms.entry(step.version.room);
        let (_, steps) = room.or_insert_with(|| (until, BTreeMap::new()));
        steps.insert(step.follows, step);
    }

    /// The step of a room that follows a number; those before it are of no use any more.
    fn next(&mut self, room: RoomId, follows: u64) -> Option<Step> {
        let (_, steps) = self.rooms.get_mut(&room)?;
        *steps = steps.split_off(&follows);
        let step = steps.remove(&follows);
        if steps.is_empty() {
            self.rooms.remove(&room);
        }
        step
    }

    /// The next room whose steps have waited long enough.
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

    /// Follows the changes of this node and the news of others for as long as there is a chat.
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
                        Ok(Err(error)) => tracing::warn!(?error, "the rooms could not be compared"),
                        Err(error) => tracing::error!(?error, "comparing the rooms failed"),
                    }
                }
            }
        }
    }
}

impl Chat {
    /// Shows changes of this node to everyone in their rooms and announces them to the others.
    async fn deliver(self: &Arc<Self>, changes: &mut Vec<Change>, early: &mut Early) {
        // Of each room the order stays.
        changes.sort_by_key(|change| change.version.room);
        let follow = |one: &Change, next: &Change| {
            one.version.room == next.version.room && one.version.number + 1 == next.version.number
        };
        for run in changes.chunk_by(follow) {
            self.show_run(run).await;
            if let Some(last) = run.last() {
                self.show_early(last.version.room, early);
            }
            run.iter().for_each(|change| self.tell_partners(change));
        }
        changes.clear();
    }

    /// Shows changes that follow each other, together as far as they are small.
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

    /// Shows changes together; `frames` are theirs. Those that a look at the store has brought meanwhile
    /// are parted from the others, who would not follow what is shown if they were one step with them.
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
        let mut told: Vec<(Dialect, Vec<Option<Frame>>)> = Vec::new();
        for dialect in [Dialect::Objects, Dialect::Lines] {
            // Other nodes may have programs there that this one has not.
            if others || self.hub.is_spoken(first.version.room, dialect) {
                let frames = changes.iter().map(|change| {
                    // A reaction is no news to a program.
                    let is_said = change.message.worded == change.version.number;
                    is_said.then(|| json::message(dialect, &change.message))?
                });
                told.push((dialect, frames.collect()));
            }
        }
        let Some(frame) = together(frames.clone()) else {
            return;
        };
        let told_together = told.iter().map(|(dialect, frames)| {
            (
                *dialect,
                together(frames.iter().flatten().cloned().collect()),
            )
        });
        let own: Vec<_> = changes.iter().map(|change| self.own(change)).collect();
        self.bring_forward(Step {
            follows: first.version.number - 1,
            version: last.version,
            frame,
            told: told_together.collect(),
            own: own.iter().flatten().cloned().collect(),
        })
        .await;
        if !others {
            return;
        }
        for (n, ((change, frame), own)) in changes.iter().zip(frames).zip(own).enumerate() {
            let version = change.version;
            self.tell_others(News::Change {
                follows: version.number - 1,
                version,
                frame,
                told: told
                    .iter()
                    .map(|(dialect, frames)| (*dialect, frames[n].clone()))
                    .collect(),
                own,
            });
        }
    }

    /// Whoever reacted sees in their tabs, and nobody else does, whether they have. It comes with the
    /// room's step, so that of two tabs that say different things both end with what is stored.
    fn own(&self, change: &Change) -> Option<Own> {
        let OwnReaction { user, emoji, on } = change.reaction?;
        match self.views.my_reaction(change.message.id, emoji, on) {
            Ok(push) => Some(Own {
                user,
                frame: push.encode(),
            }),
            Err(error) => {
                tracing::error!(?error, "a fragment failed");
                None
            }
        }
    }

    /// Shows something in the tabs that somebody has in a room, and in nobody else's.
    fn show_own(&self, user: UserId, room: RoomId, frame: &Frame) {
        for tab in self.hub.of_user(user) {
            let looks = tab.place().is_some_and(|place| place.room == room);
            if looks && tab.dialect.has(&Selector::MY_REACTIONS) {
                tab.push([frame.clone()]);
            }
        }
    }

    /// Shows somebody's own reactions in a room as they are stored: steps that told of them were passed
    /// over.
    async fn show_own_again(&self, user: UserId, room: RoomId) {
        if !self.hub.has_user(user) {
            return;
        }
        let mut tries = 0..10;
        loop {
            let before = self.hub.shown(room);
            match self.own_reactions(user, room).await {
                // A step that came meanwhile may have told more than was read.
                Ok(_) if self.hub.shown(room) != before && tries.next().is_some() => {}
                Ok(frame) => return self.show_own(user, room, &frame),
                Err(failure) => {
                    return tracing::warn!(?failure, "own reactions are not shown");
                }
            }
        }
    }

    /// The two people of a private room see in their lists that something was said; a program is
    /// told what.
    fn tell_partners(&self, change: &Change) {
        let message = &change.message;
        for user in change.between.into_iter().flatten() {
            let by_other = user != message.author.id;
            let is_new = by_other && message.made == change.version.number;
            let told = is_new.then(|| json::private_message(message));
            let room = change.version.room;
            self.take_written(user, room, by_other, told.as_ref());
            self.tell_others(News::Written {
                user,
                room,
                by_other,
                told,
            });
        }
    }

    fn take_written(&self, user: UserId, room: RoomId, by_other: bool, told: Option<&Frame>) {
        let tabs = self.hub.of_user(user);
        if let Some(told) = told {
            for tab in tabs.iter().filter(|tab| tab.dialect == Dialect::Objects) {
                tab.push([told.clone()]);
            }
        }
        let looks = tabs
            .iter()
            .any(|tab| tab.place().is_some_and(|at| at.room == room));
        match looks && by_other {
            true => self.people.redraw_unless_seen(user),
            false => self.people.redraw(user),
        }
    }

    /// Takes what the relay brings.
    async fn hear(self: &Arc<Self>, heard: Heard, early: &mut Early, comparing: &mut Comparing) {
        let Envelope { node, news } = match heard {
            Heard::News(envelope) => envelope,
            Heard::Following(To::Room(room)) => {
                self.people.room_changed(room);
                self.tell_others(News::WhoTypes(room));
                return self.look_up(vec![room], comparing);
            }
            Heard::Following(To::User(user)) => {
                self.people.ended(user);
                return self.people.redraw(user);
            }
            Heard::Following(_) => return,
            Heard::Missed => return self.take(&News::Missed),
        };
        match news {
            News::Change {
                follows,
                version,
                frame,
                told,
                own,
            } => {
                let step = Step {
                    follows,
                    version,
                    frame,
                    told,
                    own: own.into_iter().collect(),
                };
                self.follow(step, early).await;
            }
            News::Written {
                user,
                room,
                by_other,
                told,
            } => self.take_written(user, room, by_other, told.as_ref()),
            News::WhoTypes(room) => self.tell_typists(room),
            News::Notice { user, frame } => self.show_notice(user, &frame),
            News::Ended(user) => self.people.ended(user),
            News::Banned(user) => self.take_ban(user),
            News::GroupChanged(room) => {
                let chat = Arc::clone(self);
                tokio::spawn(async move { chat.take_group_change(room).await });
            }
            News::Probe { client, .. } => {
                // The answer may take a while, for which nothing else waits.
                tokio::spawn(Arc::clone(self).answer_probe(client, node));
            }
            News::Alive { client, alive, .. } => self.take_answer(client, alive),
            soft => self.take(&soft),
        }
    }

    /// Shows a step that another node made, once those before it have been.
    async fn follow(self: &Arc<Self>, step: Step, early: &mut Early) {
        let room = step.version.room;
        match self.hub.shown(room) {
            Some(Some(shown))
                if shown.history == step.version.history && shown.number < step.follows =>
            {
                early.wait(step);
            }
            _ => {
                self.bring_forward(step).await;
                self.show_early(room, early);
            }
        }
    }

    /// Shows the steps that follow now.
    fn show_early(self: &Arc<Self>, room: RoomId, early: &mut Early) {
        while let Some(Some(shown)) = self.hub.shown(room)
            && let Some(step) = early.next(room, shown.number)
        {
            if step.version.history == shown.history {
                self.show(&step);
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

    /// Brings a room forward by one step, or by as many as are missing.
    async fn bring_forward(self: &Arc<Self>, step: Step) {
        let room = step.version.room;
        match self.hub.shown(room) {
            // Nobody here looks at it.
            None => {}
            // In whichever history, the first there ever was follows on nothing.
            Some(Some(shown)) if (shown.number, step.follows) == (0, 0) => self.show(&step),
            // Numbers of another history may mean something else: the store knows.
            Some(Some(shown)) if step.version.history != shown.history => {
                self.fill(room, shown, Some(step.version)).await;
                self.want_page(room);
                for user in step.own.iter().map(|own| own.user) {
                    self.show_own_again(user, room).await;
                }
            }
            Some(Some(shown)) if step.version.number <= shown.number => {
                for user in step.own.iter().map(|own| own.user) {
                    self.show_own_again(user, room).await;
                }
            }
            Some(Some(shown)) if shown.number < step.follows => {
                self.fill(room, shown, Some(step.version)).await;
                self.want_page(room);
                for user in step.own.iter().map(|own| own.user) {
                    self.show_own_again(user, room).await;
                }
            }
            Some(_) => self.show(&step),
        }
    }

    fn show(self: &Arc<Self>, step: &Step) {
        let room = step.version.room;
        let frames = std::slice::from_ref(&step.frame);
        self.hub
            .show(room, step.follows, step.version, frames, &step.told);
        for own in &step.own {
            self.show_own(own.user, room, &own.frame);
        }
        self.want_page(room);
    }

    fn want_page(self: &Arc<Self>, room: RoomId) {
        if self.hub.want_page(room) {
            tokio::spawn(Arc::clone(self).draw_pages(room));
        }
    }

    /// Asks the store at which versions these rooms are: after the last news of a room was lost there
    /// is no gap to notice.
    fn look_up(self: &Arc<Self>, rooms: Vec<RoomId>, comparing: &mut Comparing) {
        if !rooms.is_empty() {
            let chat = Arc::clone(self);
            comparing.spawn(async move { chat.store.versions(rooms).await });
        }
    }

    /// Compares what is shown here with what the store said. What has been shown since is more.
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
                // Whoever has less than that asks for themselves.
                Some(None) => self.hub.skip_to(room, version),
            }
            self.want_page(room);
        }
    }

    /// Shows what is missing here up to that version, or to the newest: the store has it.
    async fn fill(self: &Arc<Self>, room: RoomId, shown: Version, up_to: Option<Version>) {
        match self.store.catch_up(room, Some(shown)).await {
            Ok(CatchUp::UpToDate) => {}
            Ok(CatchUp::Changes {
                after,
                version,
                messages,
            }) => match self.views.changes(after, version, &messages) {
                Some(pushes) => {
                    let frames: Vec<_> = pushes.iter().map(Push::encode).collect();
                    self.hub.show(room, after.number, version, &frames, &[]);
                    // Who reacted on another node is not known; guests did not, who are on one. Nobody's
                    // messages wait for it.
                    let (chat, users) = (Arc::clone(self), self.hub.kept_in(room));
                    tokio::spawn(async move {
                        for user in users {
                            chat.show_own_again(user, room).await;
                        }
                    });
                }
                None => self.hub.skip_to(room, version),
            },
            Ok(CatchUp::Newest(page)) => self.hub.skip_to(room, page.version),
            Err(error) => {
                tracing::error!(room.id = %room, ?error, "a gap could not be filled");
                // Among several nodes the next comparison finds the same gap; one alone does not compare,
                // so everybody asks for themselves.
                if let (Some(version), false) = (up_to, self.relay.has_others(self.node)) {
                    self.hub.skip_to(room, version);
                }
            }
        }
    }

    /// Draws the newest page for a room's plain tabs, again for as long as it is outdated.
    async fn draw_pages(self: Arc<Self>, room: RoomId) {
        while self.hub.take_wanted_page(room) {
            match self.store.newest(room).await {
                Ok(page) => {
                    let frame = self.views.messages(&page).encode();
                    self.hub.show_page(room, page.version, &frame);
                }
                Err(error) => {
                    tracing::error!(room.id = %room, ?error, "a page could not be read");
                    return self.hub.give_up_page(room);
                }
            }
        }
    }

    /// What brings a reader who has `after` up to date, in their dialect, and the version they
    /// come to.
    pub(super) async fn rest(
        &self,
        dialect: Dialect,
        room: RoomId,
        after: Option<Version>,
    ) -> Result<(Vec<Frame>, Version)> {
        if dialect.feed() == Feed::Json {
            let (messages, version) = match after {
                // From there on nothing is left out, however much it is.
                Some(after) => self.store.worded_since(room, after.number).await?,
                None => {
                    let page = self.store.newest(room).await?;
                    (page.messages, page.version)
                }
            };
            let frames = messages
                .iter()
                .filter_map(|message| json::message(dialect, message));
            return Ok((frames.collect(), version));
        }
        let (pushes, version) = self.rest_of_page(dialect, room, after).await?;
        Ok((pushes.iter().map(Push::encode).collect(), version))
    }

    async fn rest_of_page(
        &self,
        dialect: Dialect,
        room: RoomId,
        after: Option<Version>,
    ) -> Result<(Vec<Push>, Version)> {
        if dialect.feed() == Feed::Pages {
            let page = self.store.newest(room).await?;
            return Ok((vec![self.views.messages(&page)], page.version));
        }
        let page = match (self.store.catch_up(room, after).await?, after) {
            (CatchUp::UpToDate, Some(after)) => return Ok((Vec::new(), after)),
            (
                CatchUp::Changes {
                    after,
                    version,
                    messages,
                },
                _,
            ) => match self.views.changes(after, version, &messages) {
                Some(pushes) => return Ok((pushes, version)),
                None => self.store.newest(room).await?,
            },
            (CatchUp::Newest(page), _) => page,
            (CatchUp::UpToDate, None) => self.store.newest(room).await?,
        };
        Ok((vec![self.views.messages_list(&page)?], page.version))
    }
}

/// Frames as one, if there are any.
fn together(mut frames: Vec<Frame>) -> Option<Frame> {
    match frames.len() {
        0 | 1 => frames.pop(),
        _ => Some(Frame::joined(frames)),
    }
}
