//! What all tests are written with: a server, the real program, and browser tabs without a window.
//!
//! Tests wait for a condition, never for time to pass; [`DEADLINE`] only ends a test that has
//! failed.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]

pub(crate) mod balancer;
pub(crate) mod bucket;
pub(crate) mod crowd;
pub(crate) mod device;
pub(crate) mod door;
pub(crate) mod list;
pub(crate) mod page;
pub(crate) mod parts;
pub(crate) mod pooler;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod push;
pub(crate) mod redis;
pub(crate) mod rows;
pub(crate) mod server;
pub(crate) mod tab;
pub(crate) mod wire;

use std::time::Duration;

use tokio::time::MissedTickBehavior;

pub(crate) use crowd::Crowd;
pub(crate) use device::Device;
pub(crate) use door::{Answer, Door};
pub(crate) use program::Program;
pub(crate) use server::Server;
pub(crate) use tab::Tab;

/// How long anything expected may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How long a fault lasts, or how often it happens: the second value if OVERWIRE_TEST_LONG is set, as
/// `scripts/test --long` does.
pub(crate) fn long<T>(usually: T, long: T) -> T {
    match std::env::var_os("OVERWIRE_TEST_LONG") {
        Some(_) => long,
        None => usually,
    }
}

/// Waits for something expected, at most until the deadline.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, happens).await {
        Ok(done) => done,
        Err(_) => panic!("in vain: waited for {what}"),
    }
}

/// Waits for a condition that has to be polled.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    soon(what, async {
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        // Checking takes time too, and the server needs its turn.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !is_so().await {
            looks.tick().await;
        }
    })
    .await;
}
