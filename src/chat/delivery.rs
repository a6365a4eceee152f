//! The one stream of changes: it brings rooms forward, and readers up to date.
//!
//! Order follows from there being one stream on a node. It does not know why a change was made.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::{Chat, Result};
use crate::json;
use crate::model::{MessageId, RoomId, Version};
use crate::protocol::{Dialect, Frame, Push};
use crate::relay::{Envelope, News};
use crate::store::{CatchUp, Change, OwnReaction};

/// How many changes are taken up at one time at most.
const CHANGES_TOGETHER: usize = 64;
/// From this many bytes on, steps of a room are not joined any further: an outbox takes a joined
/// step whole or not at all.
const BYTES_TOGETHER: usize = 16 * 1024;
/// How often what is shown is compared with the store while there are other nodes.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

pub(super) struct Delivery {
    chat: Weak<Chat>,
}

impl Delivery {
    pub(super) fn new(chat: &Arc<Chat>) -> Self {
        Self {
            chat: Arc::downgrade(chat),
        }
    }

    /// Follows the changes of this node and the news of others for as long as there is a chat.
    pub(super) async fn run(
        self,
        mut changes: mpsc::Receiver<Change>,
        mut envelopes: mpsc::Receiver<Envelope>,
    ) {
        let mut compare = tokio::time::interval(COMPARE_EVERY);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut made = Vec::new();
        loop {
            tokio::select! {
                count = changes.recv_many(&mut made, CHANGES_TOGETHER) => {
                    let (1.., Some(chat)) = (count, self.chat.upgrade()) else { return };
                    chat.deliver(&mut made).await;
                }
                envelope = envelopes.recv() => {
                    let (Some(envelope), Some(chat)) = (envelope, self.chat.upgrade()) else {
                        return;
                    };
                    chat.follow(envelope).await;
                }
                _ = compare.tick() => {
                    let Some(chat) = self.chat.upgrade() else { return };
                    chat.compare().await;
                }
            }
        }
    }
}

impl Chat {
    /// Shows changes of this node to everyone in their rooms and announces them to the others.
    async fn deliver(self: &Arc<Self>, changes: &mut Vec<Change>) {
        // Of each room the order stays.
        changes.sort_by_key(|change| change.version.room);
        let follow = |one: &Change, next: &Change| {
            one.version.room == next.version.room && one.version.number + 1 == next.version.number
        };
        for run in changes.chunk_by(follow) {
            self.show_run(run).await;
            for change in run {
                self.tell_partners(change);
                if let Some(own) = &change.reaction
                    && let Err(error) =
                        self.tell_reactor(change.version.room, change.message.id, own)
                {
                    tracing::error!(?error, "a fragment failed");
                }
            }
        }
        changes.clear();
    }

    /// Shows changes that follow each other, together as far as they are small.
    async fn show_run(self: &Arc<Self>, run: &[Change]) {
        let (mut begun, mut frames, mut bytes) = (0, Vec::new(), 0);
        for (n, change) in run.iter().enumerate() {
            let frame = self.views.change(&change.message, change.version).encode();
            bytes += frame.size();
            frames.push(frame);
            if bytes >= BYTES_TOGETHER {
                self.show_together(&run[begun..=n], std::mem::take(&mut frames))
                    .await;
                (begun, bytes) = (n + 1, 0);
            }
        }
        self.show_together(&run[begun..], frames).await;
    }

    /// Shows changes together; `frames` are theirs.
    async fn show_together(self: &Arc<Self>, changes: &[Change], frames: Vec<Frame>) {
        let (Some(first), Some(last)) = (changes.first(), changes.last()) else {
            return;
        };
        let mut told = Vec::new();
        for dialect in [Dialect::Objects, Dialect::Lines] {
            if self.hub.is_spoken(first.version.room, dialect) {
                let frames = changes
                    .iter()
                    .filter(|change| change.message.worded == change.version.number)
                    .filter_map(|change| json::message(dialect, &change.message));
                // A reaction is no news to a program.
                told.push((dialect, together(frames.collect())));
            }
        }
        let Some(frame) = together(frames.clone()) else {
            return;
        };
        self.bring_forward(first.version.number - 1, last.version, &frame, &told)
            .await;
        for (change, frame) in changes.iter().zip(frames) {
            let version = change.version;
            let news = News::Change {
                follows: version.number - 1,
                version,
                frame,
            };
            self.relay.announce(Envelope {
                node: self.node,
                news,
            });
        }
    }

    /// Whoever reacted sees in their tabs, and nobody else does, whether they have. It comes from the
    /// one stream, so that of two tabs that say different things both end with what is stored.
    fn tell_reactor(&self, room: RoomId, message: MessageId, own: &OwnReaction) -> Result<()> {
        let mine = self.views.my_reaction(message, own.emoji, own.on)?.encode();
        for tab in self.hub.of_user(own.user) {
            let looks = tab.place().is_some_and(|place| place.room == room);
            if looks && tab.dialect == Dialect::V1 {
                tab.push([mine.clone()]);
            }
        }
        Ok(())
    }

    /// The two people of a private room see in their lists that something was said; a program is
    /// told what.
    fn tell_partners(&self, change: &Change) {
        let message = &change.message;
        for user in change.between.into_iter().flatten() {
            let tabs = self.hub.of_user(user);
            if user != message.author.id && message.made == change.version.number {
                for tab in tabs.iter().filter(|tab| tab.dialect == Dialect::Objects) {
                    tab.push([json::private_message(message)]);
                }
            }
            let looks = tabs
                .iter()
                .any(|tab| tab.place().is_some_and(|at| at.room == change.version.room));
            match looks && user != message.author.id {
                true => self.people.redraw_unless_seen(user),
                false => self.concern(user),
            }
        }
    }

    /// Takes news of another node.
    async fn follow(self: &Arc<Self>, envelope: Envelope) {
        match envelope.news {
            News::Change {
                follows,
                version,
                frame,
            } => {
                self.bring_forward(follows, version, &frame, &[]).await;
            }
            News::Mine(user) => self.people.redraw(user),
        }
    }

    /// Brings a room forward by one step, or by as many as are missing.
    async fn bring_forward(
        self: &Arc<Self>,
        follows: u64,
        version: Version,
        frame: &Frame,
        told: &[(Dialect, Option<Frame>)],
    ) {
        let room = version.room;
        match self.hub.shown(room) {
            // Nobody here looks at it.
            None => return,
            Some(Some(shown)) if version.number <= shown.number => return,
            Some(Some(shown)) if shown.number < follows => self.fill(room, shown).await,
            Some(_) => {
                self.hub
                    .show(room, follows, version, std::slice::from_ref(frame), told);
            }
        }
        self.want_page(room);
    }

    fn want_page(self: &Arc<Self>, room: RoomId) {
        if self.hub.want_page(room) {
            tokio::spawn(Arc::clone(self).draw_pages(room));
        }
    }

    /// Compares what is shown here with the store: after the last news of a room was lost there is
    /// no gap to notice.
    async fn compare(self: &Arc<Self>) {
        let rooms = self.hub.active_rooms();
        if rooms.is_empty() || !self.relay.has_others(self.node) {
            return;
        }
        let versions = match self.store.versions(rooms).await {
            Ok(versions) => versions,
            Err(error) => return tracing::warn!(?error, "the rooms could not be compared"),
        };
        for version in versions {
            let room = version.room;
            match self.hub.shown(room) {
                None => continue,
                Some(Some(shown)) if version.number <= shown.number => continue,
                Some(Some(shown)) => self.fill(room, shown).await,
                // Whoever has less than that asks for themselves.
                Some(None) => self.hub.skip_to(room, version),
            }
            self.want_page(room);
        }
    }

    /// Shows what another node left out: the store has it.
    async fn fill(&self, room: RoomId, shown: Version) {
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
                }
                None => self.hub.skip_to(room, version),
            },
            Ok(CatchUp::Newest(page)) => self.hub.skip_to(room, page.version),
            // The next change of the room finds the same gap and fills it.
            Err(error) => tracing::error!(room.id = %room, ?error, "a gap could not be filled"),
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
        if !dialect.is_html() {
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
        if dialect == Dialect::Plain {
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
