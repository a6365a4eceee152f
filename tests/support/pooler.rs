//! PgBouncer between a store and PostgreSQL.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use tokio::net::TcpStream;

use super::postgres::{Database, as_its_owner, free_port};
use super::until;

/// PgBouncer in front of a database's server.
pub(crate) struct Pooler {
    pub(crate) port: u16,
    running: Child,
    _folder: tempfile::TempDir,
}

impl Pooler {
    pub(crate) async fn start(database: &Database, mode: &str) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("pgbouncer.ini");
        let servers = database.socket_folder().display();
        let words = format!(
            "[databases]\n* = host={servers} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n"
        );
        std::fs::write(&settings, words).unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        // Where Debian keeps it, which is not on everybody's path.
        let program = Path::new("/usr/sbin/pgbouncer");
        let program = if program.exists() {
            program
        } else {
            Path::new("pgbouncer")
        };
        let running = as_its_owner(program)
            .args(["-q"])
            .arg(&settings)
            .stderr(Stdio::null())
            .spawn()
            .expect("PgBouncer (apt-get install pgbouncer)");
        until("PgBouncer listens", async || {
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self {
            port,
            running,
            _folder: folder,
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}
