//! What the store and the relay promise, one test for each promise, run against every driver.
//! A test belongs here if it calls `Store` or `Relay` directly; moving a chat between databases is
//! one of these.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

/// Writes each promise as a test of the backend.
macro_rules! promises {
    ($backend:expr; $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                super::$promise(&$backend).await;
            }
        )*
    };
}

mod checking;
mod earlier;
mod filling;
mod moving;
mod people;
mod postgres;
mod relay;
mod search;
mod store;
mod tls;

#[path = "../support/mod.rs"]
mod support;
