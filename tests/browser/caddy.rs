//! A real Caddy with the repository's own `Caddyfile`, in front of a server or of several.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

/// Far more than it ever takes; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running Caddy. It is gone when this is dropped.
pub(crate) struct Caddy {
    /// Where to connect. The name in [`Caddy::host`] need not be known to this machine.
    pub(crate) address: SocketAddr,
    log: watch::Receiver<String>,
    child: Child,
    _home: TempDir,
}

impl Caddy {
    /// Starts a Caddy that passes everything on to one of these, and waits until it serves.
    pub(crate) async fn in_front_of(upstreams: &[SocketAddr]) -> Self {
        let upstreams: Vec<_> = upstreams.iter().map(SocketAddr::to_string).collect();
        // Between our finding a free port and Caddy's taking it, somebody else may.
        for _ in 0..3 {
            let mut caddy = Self::start(&upstreams.join(" "));
            let served = |log: &String| log.contains("serving initial configuration");
            let serves = timeout(DEADLINE, caddy.log.wait_for(served));
            match serves.await.map(|log| log.is_ok()) {
                Ok(true) => return caddy,
                Ok(false) if caddy.log().contains("address already in use") => {}
                Ok(false) => panic!("Caddy ended at its start:\n{}", caddy.log()),
                Err(_) => panic!("Caddy does not serve:\n{}", caddy.log()),
            }
        }
        panic!("no free port for Caddy, three times");
    }

    fn start(upstreams: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let home = tempfile::tempdir().unwrap();
        let program = env::var("CADDY").unwrap_or_else(|_| "caddy".to_owned());
        let mut child = Command::new(&program)
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Caddyfile"))
            .env(
                "OVERWIRE_SITE",
                format!("http://chat.localhost:{}", address.port()),
            )
            .env("OVERWIRE_BIND", address.ip().to_string())
            .env("OVERWIRE_UPSTREAM", upstreams)
            .env("HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path())
            .env("XDG_DATA_HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        let stderr = child.stderr.take().unwrap();
        let (writer, log) = watch::channel(String::new());
        // Ends with Caddy; `writer` with it, which is how a waiter learns that no more will come.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writer.send_modify(|log| {
                    log.push_str(&line);
                    log.push('\n');
                });
            }
        });
        Self {
            address,
            log,
            child,
            _home: home,
        }
    }

    /// What stands in the `Host` header of a request; Caddy answers to no other.
    pub(crate) fn host(&self) -> String {
        format!("chat.localhost:{}", self.address.port())
    }

    /// The origin of a page that came through this Caddy.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.host())
    }

    /// All it has logged so far, a JSON object to a line.
    pub(crate) fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits for a line with all these words. The line about a request comes when it is over; a
    /// socket's when it has closed.
    pub(crate) async fn logged(&self, words: &[&str]) {
        let mut log = self.log.clone();
        let wanted = |line: &str| words.iter().all(|words| line.contains(words));
        let found = log.wait_for(|log| log.lines().any(wanted));
        let found = timeout(DEADLINE, found).await;
        assert!(
            matches!(found, Ok(Ok(_))),
            "Caddy did not log {words:?}:\n{}",
            self.log()
        );
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
