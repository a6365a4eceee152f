//! A PostgreSQL for the tests: started once, with a database for each test, and gone when the tests
//! end.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use overwire::store::{self, Access, Synchronous};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// Starts it, prints `ready`, and waits for the end of its input, which comes however the tests
/// end.
const SCRIPT: &str = r#"
    bin=$1 folder=$2 fsync=$3
    trap '' HUP INT TERM
    "$bin/initdb" --no-sync -A trust -U postgres -E UTF8 --locale=C -D "$folder/data" >"$folder/log" 2>&1 &&
    echo "listen_addresses = ''" >>"$folder/data/postgresql.conf" &&
    "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/log" -o "-c fsync=$fsync \
        -c unix_socket_directories=$folder -c max_connections=400 -c log_line_prefix=%d:" start >>"$folder/log" 2>&1 &&
    echo ready || cat "$folder/log"
    exec >/dev/null
    cat
    "$bin/pg_ctl" -D "$folder/data" -m immediate stop
    rm -rf "$folder"
"#;

/// Whether commits wait for the disk, which tests do not need.
static DURABLE: AtomicBool = AtomicBool::new(false);

/// Makes commits wait for the disk. To be called before the first database.
pub(crate) fn is_durable() {
    DURABLE.store(true, Ordering::SeqCst);
}

struct Server {
    folder: PathBuf,
    /// It ends when its input does, which this holds open.
    _running: Child,
}

/// The server runs as the owner of its folder, who also removes it.
fn start() -> Server {
    let folder = tempfile::Builder::new()
        .prefix("overwire-postgres")
        .tempdir()
        .unwrap()
        .keep();
    let mut command = as_its_owner("sh");
    if command.get_program() != "sh" {
        let owned = Command::new("chown").arg("postgres").arg(&folder).status();
        assert!(owned.unwrap().success());
    }
    let mut child = command
        .args(["-c", SCRIPT, "sh"])
        .args([programs(), folder.clone()])
        .arg(if DURABLE.load(Ordering::SeqCst) {
            "on"
        } else {
            "off"
        })
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    if first != "ready" {
        let rest: Vec<String> = said.map_while(Result::ok).collect();
        panic!("PostgreSQL does not start: {first}\n{}", rest.join("\n"));
    }
    Server {
        folder,
        _running: child,
    }
}

/// The folder in POSTGRESQL, which selects another version; or where Debian keeps the programs; or
/// where the path finds them.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("POSTGRESQL") {
        return folder.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let debian = versions.flatten().map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_all =
        |folder: &PathBuf| folder.join("initdb").exists() && folder.join("pg_ctl").exists();
    debian
        .chain(std::env::split_paths(&path))
        .find(has_all)
        .expect("PostgreSQL (apt-get install postgresql)")
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

/// Runs a program as the owner of the server, which cannot be root.
pub(crate) fn as_its_owner(program: impl AsRef<OsStr>) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
        .arg(program);
    command
}

/// A database of one test.
pub(crate) struct Database {
    server: &'static Server,
    name: String,
    looker: OnceLock<std::sync::mpsc::Sender<Look>>,
}

impl Database {
    /// With the tables of the chat.
    pub(crate) async fn fresh() -> Self {
        static MIGRATED: OnceCell<Database> = OnceCell::const_new();
        let migrated = MIGRATED.get_or_init(|| async {
            let database = Self::empty().await;
            let address = database.address();
            let store = store::open(&address, Synchronous::Full, Access::Beside).await;
            store.unwrap().close().await;
            database
        });
        migrated.await.copy().await
    }

    pub(crate) async fn empty() -> Self {
        Self::made_from(server(), "template0").await
    }

    /// An empty one, on a server that no other test uses.
    pub(crate) async fn on_a_server_of_its_own() -> Self {
        let server = tokio::task::spawn_blocking(|| Box::leak(Box::new(start())));
        Self::made_from(server.await.unwrap(), "template0").await
    }

    /// Stops its server, which must be its own, in one of the modes of `pg_ctl`.
    pub(crate) async fn stops(&self, mode: &str) {
        self.controls(&["-m", mode, "stop"]).await;
    }

    /// Starts its server, after stopping it in one of the modes of `pg_ctl` if it runs.
    pub(crate) async fn restarts(&self, mode: &str) {
        self.controls(&["-m", mode, "restart"]).await;
    }

    async fn controls(&self, arguments: &[&str]) {
        let mut control = as_its_owner(programs().join("pg_ctl"));
        let folder = &self.server.folder;
        control
            .arg("-D")
            .arg(folder.join("data"))
            .args(["-w", "-l"])
            .arg(folder.join("log"))
            .args(arguments)
            .current_dir("/");
        succeeds(control).await;
    }

    /// Writes a dump of it, with all that is needed to restore it in its place.
    pub(crate) async fn dumps(&self, file: &Path) {
        let mut dump = self.client("pg_dump");
        dump.args(["--clean", "--if-exists", "--file"]).arg(file);
        succeeds(dump).await;
    }

    /// Restores a dump, in one transaction.
    pub(crate) async fn restores(&self, file: &Path) {
        let mut restore = self.client("psql");
        restore
            .args([
                "--quiet",
                "--single-transaction",
                "-v",
                "ON_ERROR_STOP=1",
                "--file",
            ])
            .arg(file);
        succeeds(restore).await;
    }

    /// A program of PostgreSQL, to be run on this database.
    fn client(&self, program: &str) -> Command {
        let mut client = Command::new(programs().join(program));
        client.args(["-U", "postgres", "-d", &self.name, "-h"]);
        client.arg(&self.server.folder);
        client
    }

    /// From now on its server, which must be its own, is reached at a port of this machine and only by
    /// TLS, with this certificate and key in PEM files' words. Returns the port.
    pub(crate) async fn takes_only_tls(&self, certificate: &str, key: &str) -> u16 {
        let folder = self.server.folder.join("data");
        let file = folder.join("server.key");
        for (file, words) in [
            (folder.join("server.crt"), certificate),
            (file.clone(), key),
            (
                folder.join("pg_hba.conf"),
                "local all all trust\nhostssl all all 127.0.0.1/32 trust\n",
            ),
        ] {
            std::fs::write(file, words).unwrap();
        }
        // The server reads a key only if it is its owner's alone.
        let data = std::fs::metadata(&folder).unwrap();
        std::os::unix::fs::chown(&file, Some(data.uid()), Some(data.gid())).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let port = free_port();
        let db = self.look().await;
        for setting in [
            "ssl = on",
            "listen_addresses = '127.0.0.1'",
            &format!("port = {port}"),
        ] {
            let setting = format!("alter system set {setting}");
            db.batch_execute(&setting).await.unwrap();
        }
        drop(db);
        self.restarts("fast").await;
        port
    }

    /// A copy of this database, while nobody has it open.
    pub(crate) async fn copy(&self) -> Self {
        Self::made_from(self.server, &self.name).await
    }

    async fn made_from(server: &'static Server, template: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let making = format!("create database {name} template {template}");
        let db = look(server, "postgres").await;
        db.batch_execute(&making).await.unwrap();
        Self {
            server,
            name,
            looker: OnceLock::new(),
        }
    }

    /// From now on the plans of all queries are logged, and a whole table is scanned only where
    /// there is no other way.
    pub(crate) async fn explain(&self) {
        for setting in [
            "session_preload_libraries = 'auto_explain'",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_nested_statements = on",
            "enable_seqscan = off",
            // It makes plans look costly enough to be compiled.
            "jit = off",
        ] {
            let setting = format!("alter database {} set {setting}", self.name);
            look(self.server, "postgres")
                .await
                .batch_execute(&setting)
                .await
                .unwrap();
        }
    }

    /// Ends all connections to it.
    pub(crate) async fn is_closed(&self) {
        let db = look(self.server, "postgres").await;
        let ending = "select pg_terminate_backend(pid, 10000) from pg_stat_activity
            where datname = $1";
        db.query(ending, &[&self.name]).await.unwrap();
    }

    /// The plans that scan a whole table, after ending all connections.
    pub(crate) async fn whole_tables_read(&self) -> Vec<String> {
        self.is_closed().await;
        let log = std::fs::read_to_string(self.server.folder.join("log")).unwrap();
        let of_this = format!("{}:LOG:", self.name);
        let mut plans: Vec<String> = Vec::new();
        let mut is_of_this = false;
        for line in log.lines() {
            if !line.starts_with('\t') {
                is_of_this = line.starts_with(&of_this);
                if is_of_this {
                    plans.push(String::new());
                }
            }
            if let (true, Some(plan)) = (is_of_this, plans.last_mut()) {
                *plan += &format!("{line}\n");
            }
        }
        plans.retain(|plan| plan.contains("Seq Scan on"));
        plans
    }

    /// The folder with the socket of its server.
    pub(crate) fn socket_folder(&self) -> &Path {
        &self.server.folder
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn address(&self) -> String {
        let folder = self.server.folder.to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{folder}/{}", self.name)
    }

    /// The address of the same database, at a port of this machine.
    pub(crate) fn address_at(&self, port: u16) -> String {
        format!("postgres://postgres:secret@127.0.0.1:{port}/{}", self.name)
    }

    /// The first column of each row of a query, for synchronous code.
    pub(crate) fn look_at_once(&self, query: String) -> Vec<String> {
        let looker = self
            .looker
            .get_or_init(|| looker(self.server, self.name.clone()));
        let (sender, answer) = std::sync::mpsc::channel();
        looker.send((query, sender)).unwrap();
        answer.recv().expect("a query that can be answered")
    }

    /// A connection that bypasses the store.
    pub(crate) async fn look(&self) -> Client {
        look(self.server, &self.name).await
    }
}

type Look = (String, std::sync::mpsc::Sender<Vec<String>>);

/// Queries on a thread of its own, over one connection.
fn looker(server: &'static Server, database: String) -> std::sync::mpsc::Sender<Look> {
    let (sender, looks) = std::sync::mpsc::channel::<Look>();
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let client = look(server, &database).await;
            for (query, answer) in looks {
                let rows = client.query(&query, &[]).await.unwrap();
                let rows = rows.iter().map(|row| row.get::<_, Option<String>>(0));
                let _ = answer.send(rows.map(Option::unwrap_or_default).collect());
            }
        });
    });
    sender
}

/// Runs a program to its successful end.
async fn succeeds(mut command: Command) {
    let done = tokio::task::spawn_blocking(move || command.output().unwrap());
    let done = done.await.unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// The id of the server's first process, whose children do its work.
pub(crate) fn process() -> u32 {
    let file = server().folder.join("data/postmaster.pid");
    let words = std::fs::read_to_string(file).unwrap();
    words.lines().next().unwrap().parse().unwrap()
}

/// The folder with the socket of the shared server.
pub(crate) fn socket_folder() -> &'static Path {
    &server().folder
}

async fn look(server: &Server, database: &str) -> Client {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(&server.folder)
        .user("postgres")
        .dbname(database);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A port that nobody uses at this moment.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// When a proxy cuts a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server does not get the commit.
    BeforeCommit,
    /// The server has committed, but its answer is lost.
    AfterCommit,
    /// The server receives nothing any more, not even the end of the connection.
    InSilence,
}

/// A proxy between a store and the server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: Mutex<Option<Cut>>,
    /// New connections are refused.
    closed: AtomicBool,
    /// Nothing is passed on any more.
    stalled: AtomicBool,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    if !state.closed.load(Ordering::SeqCst) {
                        tokio::spawn(pass(client, Arc::clone(&state)));
                    }
                }
            }
        });
        Self { port, state }
    }

    /// Cuts the connection that commits next.
    pub(crate) fn cut(&self, cut: Cut) {
        *self.state.cut.lock().unwrap() = Some(cut);
    }

    /// Whether the cut has happened.
    pub(crate) fn has_cut(&self) -> bool {
        self.state.cut.lock().unwrap().is_none()
    }

    /// Cuts the connection that commits next, and lets no new one through.
    pub(crate) fn close_with_the_cut(&self, cut: Cut) {
        self.cut(cut);
        self.state.closed.store(true, Ordering::SeqCst);
    }

    /// From now on everything that is sent is swallowed.
    pub(crate) fn stall(&self) {
        self.state.stalled.store(true, Ordering::SeqCst);
    }

    /// New connections get through again.
    pub(crate) fn open(&self) {
        self.state.stalled.store(false, Ordering::SeqCst);
        self.state.closed.store(false, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, state: Arc<State>) {
    let socket = socket_folder().join(".s.PGSQL.5432");
    let mut server = UnixStream::connect(socket).await.unwrap();
    let (mut said, mut answered) = ([0; 65_536], [0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut said) => {
                let Ok(read @ 1..) = read else { return };
                if state.stalled.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                let is_commit = said[..read].windows(7).any(|bytes| bytes == b"commit\0");
                let cut = match is_commit {
                    true => state.cut.lock().unwrap().take(),
                    false => None,
                };
                match cut {
                    Some(Cut::BeforeCommit) => return,
                    Some(Cut::InSilence) => std::future::pending().await,
                    Some(Cut::AfterCommit) | None => {}
                }
                server.write_all(&said[..read]).await.unwrap();
                if cut == Some(Cut::AfterCommit) {
                    let _ = server.read(&mut answered).await;
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
