//! A Redis for the tests: started once, and gone when the tests end.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Starts it, prints `ready` once it answers, and waits for the end of its input, which comes
/// however the tests end.
const SCRIPT: &str = r#"
    folder=$1
    trap '' HUP INT TERM
    redis-server --port 0 --unixsocket "$folder/socket" --dir "$folder" --save '' --appendonly no >"$folder/log" 2>&1 &
    server=$!
    until redis-cli -s "$folder/socket" ping 2>/dev/null | grep -q PONG; do
        kill -0 $server 2>/dev/null || { cat "$folder/log"; exit 1; }
    done
    echo ready
    exec >/dev/null
    cat
    kill -9 $server
    rm -rf "$folder"
"#;

/// A running Redis.
pub(crate) struct Redis {
    folder: PathBuf,
    /// It ends when its input does, which this holds open.
    running: Mutex<Option<Child>>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("overwire-redis")
            .tempdir()
            .unwrap()
            .keep();
        let running = Mutex::new(Some(Self::run(&folder)));
        Self { folder, running }
    }

    fn run(folder: &Path) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = said.next().and_then(Result::ok).unwrap_or_default();
        if first != "ready" {
            let rest: Vec<String> = said.map_while(Result::ok).collect();
            panic!(
                "Redis (apt-get install redis-server) does not start: {first}\n{}",
                rest.join("\n")
            );
        }
        child
    }

    /// Kills it.
    pub(crate) fn dies(&self) {
        let running = self.running.lock().unwrap().take();
        let mut running = running.expect("it runs");
        drop(running.stdin.take());
        running.wait().unwrap();
    }

    /// Starts it again, at the same address.
    pub(crate) fn starts_again(&self) {
        std::fs::create_dir(&self.folder).unwrap();
        *self.running.lock().unwrap() = Some(Self::run(&self.folder));
    }

    /// The id of its process.
    pub(crate) fn process(&self) -> u32 {
        let about = self.does(&["info", "server"]);
        let mut lines = about.lines();
        let number = lines.find_map(|line| line.strip_prefix("process_id:"));
        number.expect("a number").trim().parse().unwrap()
    }

    /// Shared by all tests that do not harm it. Different stores do not interfere there.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Runs a command with its own client program.
    pub(crate) fn does(&self, words: &[&str]) -> String {
        does(&self.socket(), words)
    }
}

fn does(socket: &Path, words: &[&str]) -> String {
    let mut client = Command::new("redis-cli");
    let done = client.arg("-s").arg(socket).args(words).output().unwrap();
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}
