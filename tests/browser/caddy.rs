//! A real Caddy with the `Caddyfile` of this repository, in front of one or more servers.

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

/// A running Caddy, which ends when this is dropped.
pub(crate) struct Caddy {
    /// Where to connect. This machine need not know the name in [`Caddy::host`].
    pub(crate) address: SocketAddr,
    log: watch::Receiver<String>,
    child: Child,
    _home: TempDir,
}

impl Caddy {
    /// Starts a Caddy in front of these servers and waits until it serves.
    pub(crate) async fn in_front_of(upstreams: &[SocketAddr]) -> Self {
        let upstreams: Vec<_> = upstreams.iter().map(SocketAddr::to_string).collect();
        // Somebody else may take the port between our finding it and Caddy's using it.
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
        // Ends with Caddy, and drops `writer`, so that whoever waits learns that no more lines will
        // follow.
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

    /// The `Host` header that Caddy answers to.
    pub(crate) fn host(&self) -> String {
        format!("chat.localhost:{}", self.address.port())
    }

    /// The origin of a page behind this Caddy.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.host())
    }

    /// Everything it has logged so far, one JSON object per line.
    pub(crate) fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits for a line with all these words. A request is logged when it is over, a socket when it
    /// closes.
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
