//! Parts of a server, for tests that assemble one in their own way.

use std::sync::Arc;

use overwire::chat::{Chat, Limits, Welcome};
use overwire::fake::FakeUsers;
use overwire::relay::Relay;
use overwire::store::Store;
use overwire::views::Views;

/// Adds this many fake users to a store without users.
pub(crate) async fn populate(store: &Store, users: usize) {
    if store.census().await.unwrap().users == 0 {
        let users = FakeUsers::from_seed(7).take(users).collect();
        store.add_users(users).await.unwrap();
    }
}

/// A chat without rate limits.
pub(crate) async fn start_chat(store: &Arc<Store>, relay: Arc<dyn Relay>) -> Arc<Chat> {
    let limits = Limits {
        pace_per_second: None,
        ..Limits::default()
    };
    let (store, views) = (Arc::clone(store), Arc::new(Views::new().unwrap()));
    let chat = Chat::start(store, relay, views, limits, Welcome::default());
    chat.await.unwrap()
}
