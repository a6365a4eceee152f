//! What the store and the relay promise, one test for each promise, run against every driver.
//! A test belongs here if it calls `Store` or `Relay` directly; moving a chat between databases is
//! one of these.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

mod moving;
mod postgres;
mod relay;
mod store;

#[allow(
    dead_code,
    unused_imports,
    reason = "the other test binaries use the rest"
)]
#[path = "../support/mod.rs"]
mod support;
