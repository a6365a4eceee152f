//! A server in this process, with its own port and database: one node on a file, or another form
//! that OVERWIRE_TEST_FORM names.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use overwire::chat::{self, Chat, Files, Kinds};
use overwire::model::{Millis, NodeId};
use overwire::objects::{Objects, Place};
use overwire::push;
use overwire::relay::redis::RedisRelay;
use overwire::relay::{InProcess, Relay};
use overwire::socket;
use overwire::store::{self, Store, Synchronous};
use overwire::views::Views;
use overwire::web::{self, Access, Web};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::balancer::{Balancer, Choice};
use super::bucket::Bucket;
use super::parts::populate;
use super::postgres::Database;
use super::redis::Redis;
use super::rows::Rows as _;
use super::{Door, until};

/// What a server consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One node on an SQLite file.
    File,
    /// One node on PostgreSQL.
    Postgres,
    /// Two nodes on PostgreSQL with Redis between them; people stay on their node.
    TwoNodes,
    /// The same, but each connection goes to a different node than the previous one.
    Scattered,
}

impl Form {
    fn chosen() -> Self {
        match std::env::var("OVERWIRE_TEST_FORM").as_deref() {
            Err(_) | Ok("file") => Self::File,
            Ok("postgres") => Self::Postgres,
            Ok("two-nodes") => Self::TwoNodes,
            Ok("scattered") => Self::Scattered,
            Ok(other) => panic!("OVERWIRE_TEST_FORM={other}"),
        }
    }
}

/// The settings of a server.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// How many fake users a new database gets.
    pub(crate) users: usize,
    pub(crate) chat: chat::Limits,
    pub(crate) welcome: chat::Welcome,
    pub(crate) socket: socket::Limits,
    pub(crate) access: Access,
    pub(crate) push: push::Settings,
    /// Which files people may send, and the most bytes of one.
    pub(crate) files: (Kinds, u64),
}

impl Setup {
    /// Removes the rate limits, like `--unlimited`.
    pub(crate) fn unlimited(&mut self) {
        self.chat.pace_per_second = None;
    }

    /// Trusts this machine as a proxy, which names the browser's address.
    pub(crate) fn trusts_its_proxy(&mut self) {
        self.access.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    }
}

/// A server in this process.
pub(crate) struct Server {
    pub(crate) door: Door,
    setup: Setup,
    kept: Kept,
    files: KeptFiles,
    /// Where each node listens.
    nodes: Vec<SocketAddr>,
    balancer: Option<Balancer>,
    running: Vec<Running>,
}

/// Where the database is.
enum Kept {
    InFile(TempDir),
    InDatabase(Database),
}

/// Where the files are.
enum KeptFiles {
    InFolder(TempDir),
    InBucket(Bucket),
}

impl KeptFiles {
    fn open(&self) -> Objects {
        match self {
            Self::InFolder(folder) => {
                let place = Place::Folder(folder.path().to_owned());
                Objects::open(&place, [], None).unwrap()
            }
            Self::InBucket(bucket) => {
                Objects::open(&bucket.place(), bucket.variables(), None).unwrap()
            }
        }
    }

    fn folder(&self) -> PathBuf {
        match self {
            Self::InFolder(folder) => folder.path().to_owned(),
            Self::InBucket(bucket) => bucket.folder(),
        }
    }
}

struct Running {
    chat: Arc<Chat>,
    store: Arc<Store>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    /// A server with the default settings and 30 fake users.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        Self::of(Form::chosen(), change).await
    }

    /// A server of one node that is reached directly, whatever OVERWIRE_TEST_FORM names. For what
    /// each node does on its own.
    pub(crate) async fn alone(change: impl FnOnce(&mut Setup)) -> Self {
        let form = match Form::chosen() {
            Form::File => Form::File,
            Form::Postgres | Form::TwoNodes | Form::Scattered => Form::Postgres,
        };
        Self::of(form, change).await
    }

    /// A server of one node on a file, whatever OVERWIRE_TEST_FORM names.
    pub(crate) async fn on_a_file() -> Self {
        Self::of(Form::File, |_| {}).await
    }

    async fn of(form: Form, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup {
            users: 30,
            chat: chat::Limits::default(),
            welcome: chat::Welcome::default(),
            socket: socket::Limits::default(),
            access: Access {
                connections_per_address: Some(500),
                ..Access::default()
            },
            push: push::Settings {
                contact: Some("mailto:admin@example.org".to_owned()),
                networks: vec!["127.0.0.0/8".parse().unwrap()],
            },
            files: (Kinds::Any, 1 << 20),
        };
        change(&mut setup);
        let kept = match form {
            Form::File => Kept::InFile(tempfile::tempdir().unwrap()),
            _ => Kept::InDatabase(Database::fresh().await),
        };
        let files = match form {
            Form::File | Form::Postgres => KeptFiles::InFolder(tempfile::tempdir().unwrap()),
            Form::TwoNodes | Form::Scattered => KeptFiles::InBucket(Bucket::start().await),
        };
        let balancer = match form {
            Form::File | Form::Postgres => None,
            Form::TwoNodes => Some(Balancer::start(Choice::ByPerson).await),
            Form::Scattered => Some(Balancer::start(Choice::InTurn).await),
        };
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            door: Door(anywhere),
            setup,
            kept,
            files,
            nodes: vec![anywhere; if balancer.is_some() { 2 } else { 1 }],
            balancer,
            running: Vec::new(),
        };
        server.start_again().await;
        server.door = Door(match &server.balancer {
            Some(balancer) => balancer.address,
            None => server.nodes[0],
        });
        server
    }

    /// The database of a server [on a file](Self::on_a_file).
    #[track_caller]
    pub(crate) fn file(&self) -> PathBuf {
        match &self.kept {
            Kept::InFile(folder) => folder.path().join("overwire.db"),
            Kept::InDatabase(_) => panic!("it is in no file"),
        }
    }

    /// Whether nodes have to tell each other what they know.
    pub(crate) fn has_several_nodes(&self) -> bool {
        self.balancer.is_some()
    }

    fn address(&self) -> String {
        match &self.kept {
            Kept::InFile(_) => self.file().to_str().unwrap().to_owned(),
            Kept::InDatabase(database) => database.address(),
        }
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.running.first().expect("it runs").store
    }

    /// Stops like on SIGTERM: everything sent is stored, and every socket is closed.
    pub(crate) async fn stop(&mut self) {
        assert!(!self.running.is_empty(), "it runs");
        if let Some(balancer) = &self.balancer {
            balancer.leads_to(Vec::new());
        }
        for running in self.running.drain(..) {
            running.stop().await;
        }
    }

    /// Starts again on the same database and the same port.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.running.is_empty(), "it runs already");
        let address = self.address();
        let relayed = self.balancer.is_some();
        for node in &mut self.nodes {
            let (listens, running) = run(&address, relayed, &self.setup, &self.files, *node).await;
            *node = listens;
            self.running.push(running);
        }
        if let Some(balancer) = &self.balancer {
            balancer.leads_to(self.nodes.clone());
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// The first column of each row of a query, as text. The query has to work in every kind of
    /// database.
    #[track_caller]
    pub(crate) fn look(&self, query: &str) -> Vec<String> {
        match &self.kept {
            Kept::InFile(_) => self.file().rows(query),
            Kept::InDatabase(database) => database.rows(query),
        }
    }

    /// Changes the database directly, without the server.
    pub(crate) fn change(&self, sql: &str) {
        match &self.kept {
            Kept::InFile(_) => {
                let database = Connection::open(self.file()).unwrap();
                database.execute_batch(sql).unwrap();
            }
            Kept::InDatabase(database) => {
                // A statement is a query without rows.
                database.look_at_once(sql.to_owned());
            }
        }
    }

    /// The number of rows that a query finds.
    #[track_caller]
    pub(crate) fn count(&self, query: &str) -> u64 {
        let count = self.look(&format!("select count(*) from {query}"));
        count[0].parse().unwrap()
    }

    /// How many times a text is stored.
    #[track_caller]
    pub(crate) fn stored(&self, text: &str) -> u64 {
        let text = text.replace('\'', "''");
        self.count(&format!("messages where text = '{text}'"))
    }

    /// Handles what expires, as if this much time had passed.
    pub(crate) async fn later(&self, by: Duration) {
        // The nodes are still alive at that time.
        self.change(&format!(
            "update nodes set lease_until = lease_until + {}",
            by.as_millis()
        ));
        let now = Millis::now().after(by);
        let node: i64 = self.look("select id from nodes")[0].parse().unwrap();
        self.store().expire(NodeId(node), now).await.unwrap();
    }

    /// The names of the objects with the bytes of files, and of what is left of uploads.
    pub(crate) fn objects(&self) -> Vec<String> {
        names_in(&self.files.folder())
    }

    /// Deletes unused files, as if this much time had passed.
    pub(crate) async fn sweeps_files(&self, by: Duration) {
        let chat = &self.running.first().expect("it runs").chat;
        chat.sweep_files(Millis::now().after(by)).await.unwrap();
    }

    /// Waits until the server has noticed that these people are disconnected.
    pub(crate) async fn has_noticed_leaving(&self, names: &[impl AsRef<str>]) {
        until("the server to notice who left", async || {
            let here = self.people_here();
            !names
                .iter()
                .any(|name| here.iter().any(|other| other == name.as_ref()))
        })
        .await;
    }

    /// The names of the people online, according to the database.
    pub(crate) fn people_here(&self) -> Vec<String> {
        self.look(
            "select u.name from clients c join users u on u.id = c.user_id
             where c.left_at is null",
        )
    }
}

impl Running {
    async fn stop(self) {
        let Self {
            chat,
            store,
            stop,
            serving,
        } = self;
        let _ = stop.send(());
        let (served, ()) = tokio::join!(serving, chat.stop(Duration::from_secs(3)));
        served.unwrap();
        store.close().await;
        drop(chat);
        // The lock beside the database is released with the last reference to the store.
        until("the store to be let go", async || {
            Arc::strong_count(&store) == 1
        })
        .await;
    }
}

impl Deref for Server {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

/// The names of the objects in a folder, and of what is left of uploads.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let (mut names, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                // What a bucket's server notes about its objects.
                false if name.starts_with('.') => {}
                false => names.push(name),
            }
        }
    }
    names.sort();
    names
}

async fn run(
    database: &str,
    relayed: bool,
    setup: &Setup,
    files: &KeptFiles,
    address: SocketAddr,
) -> (SocketAddr, Running) {
    let store = store::open(database, Synchronous::Normal, store::Access::Server)
        .await
        .unwrap();
    populate(&store, setup.users).await;
    let views = Arc::new(Views::new().unwrap());
    let relay: Arc<dyn Relay> = match relayed {
        true => {
            let identity = store.identity().await.unwrap();
            Arc::new(RedisRelay::new(&Redis::shared().address(), None, &identity).unwrap())
        }
        false => Arc::new(InProcess::default()),
    };
    let chat = Chat::start(
        Arc::clone(&store),
        relay,
        views,
        setup.chat,
        setup.welcome.clone(),
    )
    .await
    .unwrap();
    let (kinds, most_bytes) = setup.files;
    chat.start_files(Files::new(files.open(), kinds, most_bytes));
    chat.start_push(setup.push.clone()).await.unwrap();
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
