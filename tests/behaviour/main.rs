//! How the chat behaves for the people in it: real sockets, and browser tabs without a window.
//! A test belongs here if it holds in every form of server; what needs a broken part is in
//! `tests/faults` or `tests/cluster`, and what needs a real browser in `tests/browser`.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

mod accounts;
mod arriving;
mod changing;
mod coming_back;
mod commands;
mod files;
mod formatting;
mod groups;
mod json_sockets;
mod lobby;
mod mentions;
mod metrics;
mod moderation;
mod names;
mod notifications;
mod pages;
mod people;
mod places;
mod plain_wire;
mod presence;
mod private_rooms;
mod program;
mod reactions;
mod refusals;
mod replies;
mod scriptless;
mod search;
mod talking;
mod typing;
mod unread;
mod web_push;
mod welcome;

#[path = "../support/mod.rs"]
mod support;
