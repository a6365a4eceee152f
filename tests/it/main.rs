//! How the chat behaves, seen by the people in it: over real sockets, with browser tabs that have
//! no window. One module per behaviour; `support` is what they are told with.

#![allow(missing_docs, clippy::unwrap_used, clippy::needless_pass_by_value)]

mod accounts;
mod arriving;
mod changing;
mod coming_back;
mod commands;
mod groups;
mod json_doors;
mod lobby;
mod moderation;
mod names;
mod pages;
mod people;
mod plain_wire;
mod presence;
mod private_rooms;
mod program;
mod reactions;
mod refusals;
#[allow(dead_code, reason = "it serves the stories of the other binaries too")]
mod support;
mod talking;
mod typing;
mod welcome;
