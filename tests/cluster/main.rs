//! Several nodes on one database and one Redis, whose parts are stopped, paused, cut off and killed
//! while people write. Every message that somebody saw or wrote must be stored exactly once, and at
//! the end every tab must show what is stored.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

mod database;
mod log;
mod node;
mod nodes;
mod ordering;
mod outages;
mod relay;

#[path = "../support/mod.rs"]
mod support;

use node::Node;
use support::Crowd;
