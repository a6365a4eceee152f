//! The node's lease: while it holds, its people are online on every node.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::People;
use crate::chat::{Chat, Result};
use crate::model::Millis;
use crate::relay::{News, To};
use crate::store::LEASE;

/// A third of the lease, so that one renewal may fail.
const RENEW_LEASE_EVERY: Duration = Duration::from_secs(5);

/// Renews the node's lease until the chat has finished. This task does nothing else: however much there
/// is to render, the node's lease must not expire meanwhile.
pub(in crate::chat) async fn keep(people: Arc<People>, chat: Weak<Chat>) {
    let mut ticks = tokio::time::interval(RENEW_LEASE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(chat) = chat.upgrade() else { return };
        if people.finished.load(Ordering::Relaxed) {
            return;
        }
        people.attempt("renew the lease", chat.renew_lease()).await;
    }
}

impl Chat {
    /// The people still here are about to reconnect, to another node or to this one after its restart.
    pub(super) async fn end(&self) -> Result<()> {
        let left = self.store.end(self.node).await?;
        self.have_left(left, true);
        Ok(())
    }

    /// Renews the lease, and closes the sockets of clients that ended unnoticed.
    pub(super) async fn renew_lease(&self) -> Result<()> {
        let began = Instant::now();
        self.store.renew_lease(self.node).await?;
        self.close_stale(self.hub.all()).await?;
        let before = std::mem::replace(&mut *self.renewed.lock(), began);
        if began.duration_since(before) >= LEASE {
            *self.held_since.lock() = began;
        }
        Ok(())
    }

    /// After a pause long enough for the lease to expire, first checks which clients have ended.
    pub(in crate::chat) async fn keep_lease_valid(&self) -> Result<()> {
        let holds = || self.renewed.lock().elapsed() < LEASE;
        if holds() {
            return Ok(());
        }
        let _renewing = self.renewing.lock().await;
        match holds() {
            true => Ok(()),
            false => self.renew_lease().await,
        }
    }

    pub(super) async fn expire(&self) -> Result<()> {
        // After a database outage, the other nodes get the time to renew their leases too.
        if self.held_since.lock().elapsed() < LEASE {
            return Ok(());
        }
        let left = self.store.expire(self.node, Millis::now()).await?;
        if !left.is_empty() {
            tracing::warn!(people = left.len(), "lease of another node expired");
            // Its last news may be lost.
            self.spread(News::Missed);
        }
        self.have_left(left, false);
        Ok(())
    }

    /// Forgets what nobody needs any longer.
    pub(super) fn forget(&self) {
        self.paces.forget();
        let listed = self.hub.listed();
        self.relay.keep(self.node, &|to| match to {
            To::Room(room) => self.hub.has_room(room),
            To::Listing(room) => listed.contains(&room),
            To::User(user) => self.hub.has_user(user),
            To::Everyone | To::Node(_) => true,
        });
    }
}
