//! A server in this process, on a port and a database of its own.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use overwire::chat::{self, Chat};
use overwire::fake::FakeUsers;
use overwire::model::{Millis, NodeId};
use overwire::relay::InProcess;
use overwire::socket;
use overwire::store::{self, Store, Synchronous};
use overwire::views::Views;
use overwire::web::{self, Access, Web};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Door, until};

/// How a server is to be.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// How many fake users a new database is given.
    pub(crate) users: usize,
    pub(crate) chat: chat::Limits,
    pub(crate) welcome: chat::Welcome,
    pub(crate) socket: socket::Limits,
    pub(crate) access: Access,
}

impl Setup {
    /// Nobody is slowed down, as with `--unlimited`.
    pub(crate) fn unlimited(&mut self) {
        self.chat.pace_per_second = None;
    }
}

/// A server in this process.
pub(crate) struct Server {
    pub(crate) door: Door,
    setup: Setup,
    folder: TempDir,
    running: Option<Running>,
}

struct Running {
    chat: Arc<Chat>,
    store: Arc<dyn Store>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    /// A server as it comes, with 30 fake users.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server that differs in something.
    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup {
            users: 30,
            chat: chat::Limits::default(),
            welcome: chat::Welcome::default(),
            socket: socket::Limits::default(),
            access: Access {
                connections_per_address: Some(500),
                ..Access::default()
            },
        };
        change(&mut setup);
        let folder = tempfile::tempdir().unwrap();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, running) = run(&folder.path().join("overwire.db"), &setup, anywhere).await;
        Self {
            door: Door(address),
            setup,
            folder,
            running: Some(running),
        }
    }

    /// Where the database is.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("overwire.db")
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.running.as_ref().expect("it runs").store
    }

    /// Stops as on SIGTERM: what was sent is stored, every socket is closed.
    pub(crate) async fn stop(&mut self) {
        let Running {
            chat,
            store,
            stop,
            serving,
        } = self.running.take().expect("it runs");
        let _ = stop.send(());
        let (served, ()) = tokio::join!(serving, chat.stop(Duration::from_secs(3)));
        served.unwrap();
        store.close().await;
        drop(chat);
        // The lock beside the database is let go with the last hold on the store.
        until("the store to be let go", async || {
            Arc::strong_count(&store) == 1
        })
        .await;
    }

    /// Starts again on the same database and the same port.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let (_, running) = run(&self.file(), &self.setup, self.door.0).await;
        self.running = Some(running);
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// The database, to look at.
    pub(crate) fn database(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        Connection::open_with_flags(self.file(), flags).unwrap()
    }

    /// How many a query counts.
    #[track_caller]
    pub(crate) fn count(&self, query: &str) -> u64 {
        let count: i64 = self
            .database()
            .query_row(&format!("select count(*) from {query}"), [], |row| {
                row.get(0)
            })
            .unwrap();
        count.unsigned_abs()
    }

    /// What is stored of a text.
    #[track_caller]
    pub(crate) fn stored(&self, text: &str) -> u64 {
        let count: i64 = self
            .database()
            .query_row(
                "select count(*) from messages where text = ?",
                [text],
                |row| row.get(0),
            )
            .unwrap();
        count.unsigned_abs()
    }

    /// Clears up as if it were so much later.
    pub(crate) async fn later(&self, by: Duration) {
        let node: i64 = self
            .database()
            .query_row("select id from nodes", [], |row| row.get(0))
            .unwrap();
        let now = Millis::now().after(by);
        self.store().expire(NodeId(node), now).await.unwrap();
    }

    /// Waits until the server has noticed that these people's sockets have gone.
    pub(crate) async fn has_noticed_leaving(&self, names: &[String]) {
        until("the server to notice who left", async || {
            let here = self.people_here();
            !names.iter().any(|name| here.contains(name))
        })
        .await;
    }

    /// The names of those who are here, by the database.
    pub(crate) fn people_here(&self) -> Vec<String> {
        let database = self.database();
        let mut query = database
            .prepare(
                "select u.name from clients c join users u on u.id = c.user_id
                 where c.left_at is null",
            )
            .unwrap();
        let names = query.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    }
}

impl Deref for Server {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

async fn run(file: &Path, setup: &Setup, address: SocketAddr) -> (SocketAddr, Running) {
    let file = file.to_str().unwrap();
    let store = store::open(file, Synchronous::Normal, store::Access::Server)
        .await
        .unwrap();
    if store.census().await.unwrap().users == 0 {
        let users = FakeUsers::from_seed(7).take(setup.users).collect();
        store.add_users(users).await.unwrap();
    }
    let views = Arc::new(Views::new().unwrap());
    let relay = Arc::new(InProcess::default());
    let chat = Chat::start(
        Arc::clone(&store),
        relay,
        views,
        setup.chat,
        setup.welcome.clone(),
    )
    .await
    .unwrap();
    let web = Web::new(Arc::clone(&chat), setup.access.clone(), setup.socket);
    let listener = web::listen(address).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(async move {
        // Without its server object nobody needs the server either.
        let stopped = async {
            let _ = stopped.await;
        };
        web::serve(listener, &web, stopped, Duration::from_secs(1)).await;
    });
    let running = Running {
        chat,
        store,
        stop,
        serving,
    };
    (address, running)
}
