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

/// One person's bucket.
pub(super) struct Pace(Mutex<Bucket>);

struct Bucket {
    left: f64,
    at: Instant,
}

impl Paces {
    /// The user's bucket as it was left, otherwise a full one of `burst` actions.
    pub(super) fn of(&self, user: UserId, burst: u32) -> Arc<Pace> {
        let mut paces = self.0.lock();
        let pace = paces.entry(user).or_insert_with(|| {
            Arc::new(Pace(Mutex::new(Bucket {
                left: f64::from(burst),
                at: Instant::now(),
            })))
        });
        Arc::clone(pace)
    }

    /// Forgets the buckets that nobody holds and that have been left long enough (`refilled`) to be
    /// full again.
    pub(super) fn forget(&self, refilled: Duration) {
        let full = |pace: &Pace| pace.0.lock().at.elapsed() >= refilled;
        self.0
            .lock()
            .retain(|_, pace| Arc::strong_count(pace) > 1 || !full(pace));
    }
}

impl Pace {
    /// Takes one action from a bucket that holds `burst` and gains `per_second`, if there is one.
    pub(super) fn take(&self, burst: u32, per_second: u32) -> bool {
        let mut bucket = self.0.lock();
        let now = Instant::now();
        let gained = now.duration_since(bucket.at).as_secs_f64() * f64::from(per_second);
        bucket.left = (bucket.left + gained).min(f64::from(burst));
        bucket.at = now;
        let some = bucket.left >= 1.0;
        if some {
            bucket.left -= 1.0;
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserId = UserId(1);

    #[test]
    fn reconnecting_fills_no_bucket() {
        let paces = Paces::default();
        let pace = paces.of(USER, 2);
        assert!(pace.take(2, 1) && pace.take(2, 1) && !pace.take(2, 1));
        drop(pace);
        paces.forget(Duration::from_secs(60));
        assert!(!paces.of(USER, 2).take(2, 1));
        assert!(paces.of(UserId(2), 2).take(2, 1));
    }

    #[test]
    fn a_full_bucket_is_forgotten_unless_somebody_holds_it() {
        let paces = Paces::default();
        let held = paces.of(USER, 1);
        assert!(held.take(1, 1));
        drop(paces.of(UserId(2), 1));
        paces.forget(Duration::ZERO);
        assert_eq!(Vec::from_iter(paces.0.lock().keys()), [&USER]);
        assert!(!paces.of(USER, 1).take(1, 1));
    }
}
