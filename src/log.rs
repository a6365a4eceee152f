//! What the log says about failures: an error with its causes, and that a dependency fails or works.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// An error and its causes, in one line.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = self.0.to_string();
        f.write_str(&before)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let words = error.to_string();
            // Some errors already name their cause.
            if !before.ends_with(&words) {
                write!(f, ": {words}")?;
                before = words;
            }
            cause = error.source();
        }
        Ok(())
    }
}

/// Whether something that the server depends on works. The log gets one line when it fails, and one
/// when it works again, however many operations fail in between.
pub struct Dependency {
    name: &'static str,
    /// The parts that do not work, or have not worked yet: a bit for each.
    failing: AtomicU8,
    outage: Mutex<Option<Outage>>,
}

struct Outage {
    since: Instant,
    failures: u64,
    /// Before this, a success does not end the outage.
    settled: Instant,
}

impl Dependency {
    /// A dependency with that name in the log. These parts, a bit for each, have not worked yet.
    pub fn new(name: &'static str, not_yet: u8) -> Self {
        Self {
            name,
            failing: AtomicU8::new(not_yet),
            outage: Mutex::default(),
        }
    }

    /// These parts have failed. A success after less than `settles` says nothing, for example because
    /// some of many connections are still broken.
    pub fn failed(&self, parts: u8, settles: Duration, error: &(dyn Error + 'static)) {
        let now = Instant::now();
        let mut outage = self.outage.lock();
        self.failing.fetch_or(parts, Ordering::Relaxed);
        let known = outage.get_or_insert(Outage {
            since: now,
            failures: 0,
            settled: now,
        });
        known.failures += 1;
        known.settled = known.settled.max(now + settles);
        let is_first = known.failures == 1;
        drop(outage);
        if is_first {
            tracing::error!("{} is not available: {}", self.name, Chain(error));
        }
    }

    /// These parts work.
    pub fn works(&self, parts: u8) {
        if self.failing.load(Ordering::Relaxed) & parts == 0 {
            return;
        }
        let mut outage = self.outage.lock();
        if outage
            .as_ref()
            .is_some_and(|outage| Instant::now() < outage.settled)
        {
            return;
        }
        let before = self.failing.fetch_and(!parts, Ordering::Relaxed);
        if before & !parts != 0 {
            return;
        }
        let Some(over) = outage.take() else { return };
        drop(outage);
        tracing::warn!(
            "{} is available again after {:.1} s (failed operations: {})",
            self.name,
            over.since.elapsed().as_secs_f64(),
            over.failures
        );
    }

    /// Whether all of its parts work.
    pub fn is_available(&self) -> bool {
        self.failing.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("could not be read")]
        Read(#[source] std::io::Error),
        #[error("could not be opened: {0}")]
        Open(#[source] std::io::Error),
    }

    #[test]
    fn an_error_is_shown_with_its_causes_each_once() {
        let why = || std::io::Error::other("the disk is gone");
        #[track_caller]
        fn check(error: &Failure, expected: &str) {
            assert_eq!(Chain(error).to_string(), expected);
        }
        check(&Failure::Read(why()), "could not be read: the disk is gone");
        check(
            &Failure::Open(why()),
            "could not be opened: the disk is gone",
        );
    }

    #[test]
    fn a_dependency_works_again_when_all_of_its_parts_do() {
        const ONE: u8 = 1;
        const OTHER: u8 = 2;
        let error = std::io::Error::other("gone");
        let redis = Dependency::new("Redis", ONE | OTHER);
        assert!(!redis.is_available());
        redis.works(ONE);
        redis.works(OTHER);
        assert!(redis.is_available());
        redis.failed(ONE, Duration::ZERO, &error);
        redis.failed(OTHER, Duration::ZERO, &error);
        redis.works(ONE);
        assert!(!redis.is_available());
        redis.works(OTHER);
        assert!(redis.is_available() && redis.outage.lock().is_none());
        // Right after a failure, a success may be a matter of chance.
        redis.failed(ONE, Duration::from_secs(3600), &error);
        redis.works(ONE);
        assert!(!redis.is_available());
    }
}
