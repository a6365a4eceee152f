//! Overwire: an HTML-over-the-wire chat.
//!
//! The browser sends actions over one socket; the server stores what happened, draws fragments,
//! and pushes them to every tab that looks at that room. In reading order:

pub mod json;
pub mod model;
pub mod moderation;
pub mod protocol;
pub mod websocket;

pub mod fake;
pub mod hub;
pub mod relay;
pub mod store;
pub mod views;

pub mod chat;

mod forms;
pub mod socket;
pub mod web;

pub mod config;
