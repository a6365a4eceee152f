//! One node in trouble: a store or a machine that fails, a server that is killed, clients that flood it,
//! stop reading, never answer or send rubbish. Every test starts with a working chat and ends with one.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

mod careful_client;
mod failing_store;
mod floods;
mod machine;
mod model;
mod readers;
mod sudden_death;

#[path = "../support/mod.rs"]
mod support;
