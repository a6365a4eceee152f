//! A balancer in front of several nodes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How it chooses a node for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// By the token or session in the request, so that a person stays on their node while others
    /// are on another.
    ByPerson,
    /// Always the next node, whoever connects.
    InTurn,
}

/// A balancer of TCP connections, at an address of its own.
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    nodes: Arc<Mutex<Vec<SocketAddr>>>,
    accepting: JoinHandle<()>,
}

impl Balancer {
    pub(crate) async fn start(choice: Choice) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let nodes: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let accepting = tokio::spawn({
            let nodes = Arc::clone(&nodes);
            async move {
                let turn = Arc::new(AtomicUsize::new(0));
                while let Ok((visitor, _)) = listener.accept().await {
                    let nodes = nodes.lock().unwrap().clone();
                    tokio::spawn(pass(visitor, nodes, choice, Arc::clone(&turn)));
                }
            }
        });
        Self {
            address,
            nodes,
            accepting,
        }
    }

    /// From now on these nodes are behind it; without any, connections are closed.
    pub(crate) fn leads_to(&self, nodes: Vec<SocketAddr>) {
        *self.nodes.lock().unwrap() = nodes;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(
    mut visitor: TcpStream,
    nodes: Vec<SocketAddr>,
    choice: Choice,
    turn: Arc<AtomicUsize>,
) {
    let mut first = [0; 4096];
    // A client without a request yet may go anywhere.
    let Ok(count) = visitor.peek(&mut first).await else {
        return;
    };
    if nodes.is_empty() {
        return;
    }
    let said = String::from_utf8_lossy(&first[..count]).into_owned();
    let who = match choice {
        Choice::ByPerson => shown(&said),
        Choice::InTurn => None,
    };
    // Pages do not count, or all pages would go to one node and all sockets to the other.
    let number = match who {
        Some(who) => {
            let mut hasher = DefaultHasher::new();
            who.hash(&mut hasher);
            usize::try_from(hasher.finish() >> 1).unwrap()
        }
        None if said.starts_with("GET /ws/") => turn.fetch_add(1, Ordering::Relaxed),
        None => turn.load(Ordering::Relaxed),
    };
    let Ok(mut node) = TcpStream::connect(nodes[number % nodes.len()]).await else {
        return;
    };
    let _ = visitor.set_nodelay(true);
    let _ = node.set_nodelay(true);
    if copy_bidirectional(&mut visitor, &mut node).await.is_err() {
        let _ = node.shutdown().await;
    }
}

/// The resume token or session in a request's headers.
fn shown(request: &str) -> Option<&str> {
    let request = request.get(request.find("resume.").or(request.find("session="))?..)?;
    request.split(['\r', ',', ';']).next()
}
