//! The real program in a process of its own, which can be killed and restarted in place.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use crate::support::program;
use crate::support::server::names_in;

/// A server, with a database that outlives it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// As the program's argument.
    database: String,
    arguments: Vec<String>,
    child: Child,
    log: Arc<Mutex<String>>,
    _folder: Option<TempDir>,
}

impl Server {
    /// On a file of its own.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("chat.db");
        Self::starts(file.to_str().unwrap(), arguments, Some(folder))
    }

    /// On a database that it may share.
    pub(crate) fn on(database: &str, arguments: &[&str]) -> Self {
        Self::starts(database, arguments, None)
    }

    fn starts(database: &str, arguments: &[&str], folder: Option<TempDir>) -> Self {
        let database = database.to_owned();
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let log = Arc::default();
        let (child, address) = spawn("127.0.0.1:0", &database, &arguments, &log);
        Self {
            address,
            database,
            arguments,
            child,
            log,
            _folder: folder,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The file of its database.
    pub(crate) fn database(&self) -> PathBuf {
        self.database.clone().into()
    }

    /// Everything that all of its processes have logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// `kill -9`.
    pub(crate) fn dies(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has stopped by itself.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Restarts with the same port, database and arguments.
    pub(crate) fn starts_again(&mut self) {
        let listen = self.address.to_string();
        (self.child, _) = spawn(&listen, &self.database, &self.arguments, &self.log);
    }

    /// Sends it a signal by name, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        program::signal(self.child.id(), name);
    }

    /// A moderator link, as the command line prints it.
    pub(crate) fn admin_link(&self) -> String {
        self.admin(&["link"])
    }

    /// Runs `overwire admin`. Returns what it prints.
    pub(crate) fn admin(&self, arguments: &[&str]) -> String {
        let mut command = program::command();
        let listen = self.address.to_string();
        command.arg("admin").args(arguments);
        command.args(["--listen", &listen, "--database"]);
        let said = command.arg(&self.database).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    /// The names of the objects of its files, and of the parts that it receives.
    pub(crate) fn files(&self) -> Vec<String> {
        let folder = PathBuf::from(format!("{}.files", self.database));
        names_in(&folder)
    }

    /// Changes what is stored.
    pub(crate) fn change(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.database()).unwrap();
        database.execute_batch(sql).unwrap();
    }

    /// How often a text is stored.
    pub(crate) fn stored(&self, text: &str) -> u64 {
        let database = rusqlite::Connection::open(self.database()).unwrap();
        let count = "select count(*) from messages where text = ?1";
        database.query_row(count, [text], |row| row.get(0)).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(
    listen: &str,
    database: &str,
    arguments: &[String],
    log: &Arc<Mutex<String>>,
) -> (Child, SocketAddr) {
    let mut child = program::command()
        .args(["--log", "debug", "--listen", listen, "--database"])
        .arg(database)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let log = Arc::clone(log);
    let reading = thread::spawn({
        let log = Arc::clone(&log);
        move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut bytes) {
                let words = String::from_utf8_lossy(&bytes[..length]);
                log.lock().unwrap().push_str(&words);
            }
        }
    });
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let address = line.trim().rsplit("http://").next().unwrap().parse();
    let Ok(address) = address else {
        reading.join().unwrap();
        panic!("the program said {line:?} and {}", log.lock().unwrap());
    };
    (child, address)
}
