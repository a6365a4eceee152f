//! The one stream of changes: it brings rooms forward, and readers up to date.
//!
//! Order follows from there being one stream on a node. It does not know why a change was made.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::{Chat, Result};
use crate::model::{RoomId, Version};
use crate::protocol::{Dialect, Frame, Push};
use crate::relay::{Envelope, News};
use crate::store::{CatchUp, Change};

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
        loop {
            tokio::select! {
                change = changes.recv() => {
                    let (Some(change), Some(chat)) = (change, self.chat.upgrade()) else { return };
                    chat.deliver(change).await;
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
    /// Shows a change of this node to everyone in its room and announces it to the others.
    async fn deliver(self: &Arc<Self>, change: Change) {
        let Change {
            version,
            message,
            between,
        } = change;
        let follows = Version {
            number: version.number - 1,
            ..version
        };
        let pushes = self
            .views
            .changes(follows, version, std::slice::from_ref(&message));
        // One message always is a page.
        let frame = pushes.unwrap_or_default().pop().map(|push| push.encode());
        if let Some(frame) = frame {
            self.bring_forward(follows.number, version, &frame).await;
            let news = News::Change {
                follows: follows.number,
                version,
                frame,
            };
            self.relay.announce(Envelope {
                node: self.node,
                news,
            });
        }
        for user in between.into_iter().flatten() {
            let tabs = self.hub.of_user(user);
            let looks = tabs
                .iter()
                .any(|tab| tab.place().is_some_and(|at| at.room == version.room));
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
                self.bring_forward(follows, version, &frame).await;
            }
            News::Mine(user) => self.people.redraw(user),
        }
    }

    /// Brings a room forward by one step, or by as many as are missing.
    async fn bring_forward(self: &Arc<Self>, follows: u64, version: Version, frame: &Frame) {
        let room = version.room;
        match self.hub.shown(room) {
            // Nobody here looks at it.
            None => return,
            Some(Some(shown)) if version.number <= shown.number => return,
            Some(Some(shown)) if shown.number < follows => self.fill(room, shown).await,
            Some(_) => {
                self.hub
                    .show(room, follows, version, std::slice::from_ref(frame));
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
                    self.hub.show(room, after.number, version, &frames);
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
