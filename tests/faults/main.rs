//! One node in trouble: a store that fails, a server that is killed, a client that stops reading,
//! never answers or sends rubbish. Every test starts with a working chat and ends with one.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

mod failing_store;
mod readers;
mod sudden_death;

#[path = "../support/mod.rs"]
mod support;
