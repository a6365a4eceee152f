//! The chat in a real browser, as the people who use it see it: clicks, keys, focus, history, colours.
//! A test belongs here if it needs scripts, layout or a proxy; everything else is in `tests/behaviour`.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

mod browser;
mod caddy;
mod server;
mod wire;

mod access;
mod accounts;
mod arriving;
mod changing;
mod cluster;
mod coming_back;
mod completions;
mod composing;
mod days;
mod files;
mod formatting;
mod hands;
mod keyboard;
mod lobby;
mod mentions;
mod moderation;
mod names;
mod notifications;
mod people;
mod pictures;
mod plain;
mod private_rooms;
mod proxy;
mod reactions;
mod replies;
mod rooms;
mod scriptless;
mod search;
mod talking;
mod unread;

#[path = "../support/mod.rs"]
mod support;
