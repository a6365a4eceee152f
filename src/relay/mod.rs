//! News between nodes that share a store.
//!
//! A relay may lose, double and delay: versions show what is missing, and the store has it. It
//! does not know what a frame contains.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::model::{NodeId, UserId, Version};
use crate::protocol::Frame;

/// How many envelopes may wait for a node before further ones are lost.
const WAITING: usize = 4096;

/// What another node is told.
#[derive(Clone, Debug)]
pub enum News {
    /// A room has been changed: the frame leads from the version numbered `follows` to `version`.
    Change {
        /// The number of the version before.
        follows: u64,
        /// What the room comes to.
        version: Version,
        /// What those who look at the room are shown.
        frame: Frame,
    },
    /// The list of the people who concern this person is out of date.
    Mine(UserId),
}

/// News, and the node that sends it.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Who sent it.
    pub node: NodeId,
    /// What it says.
    pub news: News,
}

/// Takes news to the other nodes.
#[async_trait]
pub trait Relay: Send + Sync + 'static {
    /// Sends an envelope to the other nodes, without waiting and without a promise.
    fn announce(&self, envelope: Envelope);

    /// Whether there may be other nodes than this one.
    fn has_others(&self, node: NodeId) -> bool;

    /// The envelopes that other nodes send to this one.
    async fn listen(&self, node: NodeId) -> mpsc::Receiver<Envelope>;
}

/// The relay between nodes inside one process: of one node with nobody, which is the default.
#[derive(Clone, Default)]
pub struct InProcess {
    nodes: Arc<Mutex<Vec<Listener>>>,
}

type Listener = (NodeId, mpsc::Sender<Envelope>);

#[async_trait]
impl Relay for InProcess {
    fn announce(&self, envelope: Envelope) {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, sender) in nodes.iter().filter(|(node, _)| *node != envelope.node) {
            // A node that is behind or gone finds what it missed in the store.
            let _ = sender.try_send(envelope.clone());
        }
    }

    fn has_others(&self, node: NodeId) -> bool {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes
            .iter()
            .any(|(other, sender)| *other != node && !sender.is_closed())
    }

    async fn listen(&self, node: NodeId) -> mpsc::Receiver<Envelope> {
        let (sender, envelopes) = mpsc::channel(WAITING);
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|(_, sender)| !sender.is_closed());
        nodes.push((node, sender));
        envelopes
    }
}
