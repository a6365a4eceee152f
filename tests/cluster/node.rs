//! A node, in the process of the test or as a program of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use overwire::relay::redis::RedisRelay;
use overwire::socket;
use overwire::store::{self, Store, Synchronous};
use overwire::web::{self, Access, Web};

use crate::support::parts::{populate, start_chat};
use crate::support::postgres::Database;
use crate::support::redis::Redis;
use crate::support::{Door, Program};

/// A node that is reached directly. It ends with its test.
pub(crate) struct Node {
    pub(crate) door: Door,
    pub(crate) store: Arc<Store>,
}

impl Node {
    /// On a database, which gets people if it has none, with a Redis at an address.
    pub(crate) async fn start(database: &str, redis: &str) -> Self {
        let opening = store::open(database, Synchronous::Full, store::Access::Server);
        let store = opening.await.unwrap();
        populate(&store, 30).await;
        let identity = store.identity().await.unwrap();
        let relay = Arc::new(RedisRelay::new(redis, None, &identity).unwrap());
        let chat = start_chat(&store, relay).await;
        let web = Web::new(chat, Access::default(), socket::Limits::default());
        let listener = web::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let door = Door(listener.local_addr().unwrap());
        tokio::spawn(async move {
            web::serve(listener, &web, std::future::pending(), Duration::ZERO).await;
        });
        Self { door, store }
    }

    /// Two nodes on one database.
    pub(crate) async fn two(database: &Database, redis: &Redis) -> [Self; 2] {
        let address = database.address();
        Self::two_at([&address, &address], &redis.address()).await
    }

    /// The same, where each node has its own address for the database.
    pub(crate) async fn two_at(databases: [&str; 2], redis: &str) -> [Self; 2] {
        [
            Self::start(databases[0], redis).await,
            Self::start(databases[1], redis).await,
        ]
    }
}

/// A node as a program of its own, which is started by a command of the program.
pub(crate) async fn program(
    command: Command,
    database: &Database,
    redis: &Redis,
    listen: &str,
) -> Program {
    let (database, redis) = (database.address(), redis.address());
    let relay = ["--relay", &redis, "--unlimited", "--log", "error"];
    let arguments = [&relay[..], &["--listen", listen]].concat();
    Program::start_with(command, Path::new(&database), &arguments).await
}
