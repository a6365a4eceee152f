//! Overwire: an HTML-over-the-wire chat.
//!
//! The browser sends actions over one socket. The server stores them, renders HTML fragments, and
//! pushes the fragments to every tab that shows the room. The modules, in reading order:

pub mod code;
pub mod json;
pub mod log;
pub mod metrics;
pub mod model;
pub mod moderation;
pub mod protocol;
pub mod search;
pub mod text;
mod tls;
mod unchanged;

pub mod websocket;

pub mod fake;
pub mod hub;
pub mod objects;
pub mod pictures;
pub mod push;
pub mod relay;
pub mod store;
pub mod views;

pub mod chat;

pub mod files;
pub mod forms;
pub mod scrape;
pub mod socket;
mod visits;
pub mod web;

pub mod config;
