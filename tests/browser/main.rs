//! The chat in a real browser, in the words of the people who use it.
#![allow(clippy::unwrap_used)]

mod browser;
mod caddy;
#[allow(dead_code, reason = "it serves the stories of the other binaries too")]
#[path = "../it/support/postgres.rs"]
mod postgres;
#[allow(dead_code, reason = "it serves the stories of the other binaries too")]
#[path = "../it/support/redis.rs"]
mod redis;
mod server;
mod wire;

mod accounts;
mod arriving;
mod changing;
mod cluster;
mod coming_back;
mod hands;
mod lobby;
mod moderation;
mod names;
mod people;
mod pictures;
mod plain;
mod private_rooms;
mod proxy;
mod reactions;
mod rooms;
mod talking;
