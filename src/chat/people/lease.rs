//! The node's lease: as long as it holds, its people are online on every node.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::People;
use crate::chat::{Chat, Result};
use crate::model::Millis;
use crate::relay::{News, To};
use crate::store::LEASE;

/// A third of a lease, so that one renewal may fail.
const RENEW_LEASE_EVERY: Duration = Duration::from_secs(5);

/// Keeps the node's lease until the chat has finished. Nothing else is done here: however much there is
/// to draw, the node's people must not be taken for dead meanwhile.
pub(in crate::chat) async fn keep(people: Arc<People>, chat: Weak<Chat>) {
    let mut ticks = tokio::time::interval(RENEW_LEASE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(chat) = chat.upgrade() else { return };
        if people.finished.load(Ordering::Relaxed) {
            return;
        }
        people
            .attempt("renewing the lease", chat.renew_lease())
            .await;
    }
}

impl Chat {
    /// Whoever is here still is about to come back, to another node or to this one's next start.
    pub(super) async fn end(&self) -> Result<()> {
        let left = self.store.end(self.node).await?;
        self.have_left(left, true);
        Ok(())
    }

    /// The node is alive, and learns what it may have missed: who is not to be here any more.
    pub(super) async fn renew_lease(&self) -> Result<()> {
        let began = Instant::now();
        self.store.renew_lease(self.node).await?;
        self.end_strays(self.hub.all()).await?;
        let before = std::mem::replace(&mut *self.renewed.lock(), began);
        if began.duration_since(before) >= LEASE {
            *self.held_since.lock() = began;
        }
        Ok(())
    }

    /// Whoever comes to themselves after so long that others may take them for dead looks first what
    /// has become of their people.
    pub(in crate::chat) async fn stand(&self) -> Result<()> {
        let stands = || self.renewed.lock().elapsed() < LEASE;
        if stands() {
            return Ok(());
        }
        let _one_for_all = self.renewing.lock().await;
        match stands() {
            true => Ok(()),
            false => self.renew_lease().await,
        }
    }

    pub(super) async fn expire(&self) -> Result<()> {
        // After the database was away the others are given the time to renew their leases too.
        if self.held_since.lock().elapsed() < LEASE {
            return Ok(());
        }
        let left = self.store.expire(self.node, Millis::now()).await?;
        if !left.is_empty() {
            tracing::warn!(people = left.len(), "another server has ended");
            // What it told last may be lost.
            self.spread(News::Missed);
        }
        self.have_left(left, false);
        Ok(())
    }

    /// Forgets what nobody needs any more.
    pub(super) fn forget(&self) {
        if let Some(per_second) = self.limits.pace_per_second {
            let seconds = self.limits.pace_burst.div_ceil(per_second);
            self.paces.forget(Duration::from_secs(seconds.into()));
        }
        self.relay.keep(self.node, &|to| match to {
            To::Room(room) => self.hub.has_room(room),
            To::User(user) => self.hub.has_user(user),
            To::Everyone | To::Node(_) => true,
        });
    }
}
