//! A node in the test's process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overwire::chat::{Chat, Limits, Welcome};
use overwire::fake::FakeUsers;
use overwire::relay::redis::RedisRelay;
use overwire::socket;
use overwire::store::{self, Store, Synchronous};
use overwire::views::Views;
use overwire::web::{self, Access, Web};

use crate::support::Door;

/// A node that is reached directly. It ends with its test.
pub(crate) struct Node {
    pub(crate) door: Door,
    pub(crate) store: Arc<Store>,
}

impl Node {
    /// On a database, which is given people if it has none, with a Redis at an address.
    pub(crate) async fn start(database: &str, redis: &str) -> Self {
        let opening = store::open(database, Synchronous::Full, store::Access::Server);
        let store = opening.await.unwrap();
        if store.census().await.unwrap().users == 0 {
            let users = FakeUsers::from_seed(7).take(30).collect();
            store.add_users(users).await.unwrap();
        }
        let identity = store.identity().await.unwrap();
        let relay = Arc::new(RedisRelay::new(redis, &identity).unwrap());
        let limits = Limits {
            pace_per_second: None,
            ..Limits::default()
        };
        let views = Arc::new(Views::new().unwrap());
        let welcome = Welcome::default();
        let chat = Chat::start(Arc::clone(&store), relay, views, limits, welcome).await;
        let web = Web::new(chat.unwrap(), Access::default(), socket::Limits::default());
        let listener = web::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let door = Door(listener.local_addr().unwrap());
        tokio::spawn(async move {
            web::serve(listener, &web, std::future::pending(), Duration::ZERO).await;
        });
        Self { door, store }
    }

    /// Two nodes on one database, which each of them reaches at an address of its own.
    pub(crate) async fn two(databases: [String; 2], redis: &str) -> [Self; 2] {
        let [here, there] = databases;
        [
            Self::start(&here, redis).await,
            Self::start(&there, redis).await,
        ]
    }
}
