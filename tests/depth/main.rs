//! What must hold however things fall: the promises of the store and the relay, for every
//! implementation of them; order among many writers, readers and nodes; faults.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

mod cluster;
mod contract;
mod faults;
mod list;
mod moving;
mod ordering;
#[allow(
    dead_code,
    unused_imports,
    reason = "it serves the stories of the other binary too"
)]
#[path = "../it/support/mod.rs"]
mod support;

use support::postgres;
