//! The pace of each person: a bucket of actions that refills over time.
//!
//! The bucket belongs to the user, not to a socket, so neither reconnecting nor another tab refills it.
//! This module does not know what an action is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::UserId;

/// The buckets of all users online, and of those who left without a full one.
#[derive(Default)]
pub(super) struct Paces(Mutex<HashMap<UserId, Arc<Pace>>>);

/// One person's bucket: when it is full again.
pub(super) struct Pace(Mutex<Instant>);

impl Paces {
    /// The user's bucket as it was left, otherwise a full one.
    pub(super) fn of(&self, user: UserId) -> Arc<Pace> {
        let mut paces = self.0.lock();
        let full = || Arc::new(Pace(Mutex::new(Instant::now())));
        Arc::clone(paces.entry(user).or_insert_with(full))
    }

    /// Forgets the buckets that nobody holds and that are full again.
    pub(super) fn forget(&self) {
        let (mut paces, now) = (self.0.lock(), Instant::now());
        paces.retain(|_, pace| Arc::strong_count(pace) > 1 || now < *pace.0.lock());
    }
}

impl Pace {
    /// Takes one action from a bucket that holds `burst` and gains `per_second`, if there is one.
    pub(super) fn take(&self, burst: u32, per_second: u32) -> bool {
        let (mut full_at, now) = (self.0.lock(), Instant::now());
        let every = Duration::from_secs(1) / per_second;
        let without_it = now.max(*full_at) + every;
        let is_left = without_it <= now + every * burst;
        if is_left {
            *full_at = without_it;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserId = UserId(1);

    #[test]
    fn reconnecting_fills_no_bucket() {
        let paces = Paces::default();
        let pace = paces.of(USER);
        assert!(pace.take(2, 1) && pace.take(2, 1) && !pace.take(2, 1));
        drop(pace);
        paces.forget();
        assert!(!paces.of(USER).take(2, 1));
        assert!(paces.of(UserId(2)).take(2, 1));
    }

    #[test]
    fn a_full_bucket_is_forgotten_unless_somebody_holds_it() {
        let paces = Paces::default();
        let held = paces.of(USER);
        assert!(held.take(1, 1));
        drop(paces.of(UserId(2)));
        paces.forget();
        assert_eq!(Vec::from_iter(paces.0.lock().keys()), [&USER]);
        assert!(!paces.of(USER).take(1, 1));
    }
}
