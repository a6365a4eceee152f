//! News between nodes that share a store.
//!
//! A relay may lose, double and delay: versions show what is missing, and the store has it. What
//! goes by it beside is soft, and right again after the next look at the store. It does not know
//! what a frame contains.

pub mod redis;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::model::{ClientId, NodeId, RoomId, User, UserId, Version};
use crate::protocol::{Dialect, Frame};

/// How much may wait for a node before further news is lost.
const WAITING: usize = 4096;

/// What another node is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum News {
    /// A room has been changed: the frames lead from the version numbered `follows` to `version`.
    Change {
        /// The number of the version before.
        follows: u64,
        /// What the room comes to.
        version: Version,
        /// What the pages that look at the room are shown.
        frame: Frame,
        /// What programs are told there, in each of their dialects, if it is anything to them.
        told: Vec<(Dialect, Option<Frame>)>,
        /// What whoever did it is shown beside, and nobody else.
        own: Option<Own>,
    },
    /// Who is in a room is out of date; of the lobby, how many are in the groups.
    Presence(RoomId),
    /// Somebody has come to a room.
    Joined {
        /// Where.
        room: RoomId,
        /// Who.
        user: User,
        /// Whether they were here before, so that it is no news unless they were said to have gone.
        returns: bool,
    },
    /// Somebody has gone from a room.
    Left {
        /// Whence.
        room: RoomId,
        /// Who.
        user: User,
        /// Whether they may be back in a moment, as after a reload.
        may_return: bool,
    },
    /// Somebody types in a room, or does no more.
    Typing {
        /// Where.
        room: RoomId,
        /// Who.
        user: User,
        /// Whether they do.
        on: bool,
    },
    /// Who is here is out of date.
    Online,
    /// The list of the people who concern this person is out of date.
    Mine(UserId),
    /// Something has been said or changed in a private room of this person.
    Written {
        /// Of whom.
        user: UserId,
        /// Where.
        room: RoomId,
        /// Whether the other person did it.
        by_other: bool,
        /// What this person's programs are told, if it is a new message to them.
        told: Option<Frame>,
    },
    /// A node has somebody in a room from now on: who types there?
    WhoTypes(RoomId),
    /// What all pages of somebody are to say.
    Notice {
        /// Whose.
        user: UserId,
        /// What.
        frame: Frame,
    },
    /// Some of this person's clients may stand no more.
    Ended(UserId),
    /// Nobody can be this person any more.
    Banned(UserId),
    /// Somebody is called otherwise from now on.
    Renamed {
        /// Who, by the new name.
        user: User,
        /// The rooms where that shows, beside those that they look at.
        rooms: Vec<RoomId>,
    },
    /// A group has become another, or nobody's: those who are in it are to come again.
    GroupChanged(RoomId),
    /// Has this client a socket that answers?
    Probe {
        /// Which.
        client: ClientId,
        /// The node it is on.
        at: NodeId,
    },
    /// The answer to that.
    Alive {
        /// Which.
        client: ClientId,
        /// Who asked.
        asker: NodeId,
        /// Whether it has.
        alive: bool,
    },
    /// What the node that says so had to tell may have been lost.
    Missed,
}

/// What a reaction comes to for whoever reacted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Own {
    /// Who.
    pub user: UserId,
    /// What their tabs that look at the room are shown.
    pub frame: Frame,
}

/// Who is to hear of something: the nodes on which somebody needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// All nodes.
    Everyone,
    /// That one.
    Node(NodeId),
    /// Those that have somebody in that room.
    Room(RoomId),
    /// Those that have a tab of that person.
    User(UserId),
}

impl News {
    /// Who is to hear of it.
    #[must_use]
    pub fn to(&self) -> To {
        match self {
            Self::Change { version, .. } => To::Room(version.room),
            Self::Presence(room)
            | Self::Joined { room, .. }
            | Self::Left { room, .. }
            | Self::Typing { room, .. }
            | Self::WhoTypes(room) => To::Room(*room),
            Self::Mine(user)
            | Self::Written { user, .. }
            | Self::Notice { user, .. }
            | Self::Ended(user)
            | Self::Banned(user) => To::User(*user),
            Self::Probe { at: node, .. } | Self::Alive { asker: node, .. } => To::Node(*node),
            Self::Online | Self::Renamed { .. } | Self::GroupChanged(_) | Self::Missed => {
                To::Everyone
            }
        }
    }
}

/// News, and the node that sends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Who sent it.
    pub node: NodeId,
    /// What it says.
    pub news: News,
}

/// What a node hears.
#[derive(Clone, Debug)]
pub enum Heard {
    /// From another node.
    News(Envelope),
    /// What is said there is heard from now on; what was said before may have been missed.
    Following(To),
    /// Anything may have been missed.
    Missed,
}

/// Takes news to the other nodes.
#[async_trait]
pub trait Relay: Send + Sync + 'static {
    /// Sends an envelope to the nodes that need it, without waiting and without a promise.
    fn announce(&self, envelope: Envelope);

    /// Whether there may be other nodes than this one.
    fn has_others(&self, node: NodeId) -> bool;

    /// What this node hears from now on: what goes to everyone and to it, and what it follows.
    async fn listen(&self, node: NodeId) -> mpsc::Receiver<Heard>;

    /// The node needs what is said there. Saying so again changes nothing.
    fn follow(&self, node: NodeId, to: To);

    /// The node needs nothing any more of what it follows but where `is_needed`.
    fn keep(&self, node: NodeId, is_needed: &dyn Fn(To) -> bool);

    /// Waits until what was announced is on its way, for a moment at most. Nothing is announced
    /// after.
    async fn close(&self);
}

/// The relay between nodes inside one process: of one node with nobody, which is the default.
#[derive(Clone, Default)]
pub struct InProcess {
    nodes: Arc<Mutex<Vec<Listener>>>,
}

struct Listener {
    node: NodeId,
    heard: mpsc::Sender<Heard>,
    follows: HashSet<To>,
}

impl InProcess {
    fn nodes(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.nodes.lock()
    }
}

#[async_trait]
impl Relay for InProcess {
    fn announce(&self, envelope: Envelope) {
        let to = envelope.news.to();
        for listener in self.nodes().iter() {
            let needs_it = match to {
                To::Everyone => true,
                To::Node(node) => node == listener.node,
                To::Room(_) | To::User(_) => listener.follows.contains(&to),
            };
            if needs_it && listener.node != envelope.node {
                // A node that is behind or gone finds what it missed in the store.
                let _ = listener.heard.try_send(Heard::News(envelope.clone()));
            }
        }
    }

    fn has_others(&self, node: NodeId) -> bool {
        let nodes = self.nodes();
        nodes
            .iter()
            .any(|other| other.node != node && !other.heard.is_closed())
    }

    async fn listen(&self, node: NodeId) -> mpsc::Receiver<Heard> {
        let (sender, heard) = mpsc::channel(WAITING);
        let mut nodes = self.nodes();
        nodes.retain(|other| !other.heard.is_closed());
        nodes.push(Listener {
            node,
            heard: sender,
            follows: HashSet::new(),
        });
        heard
    }

    fn follow(&self, node: NodeId, to: To) {
        // Nothing is missed between this and the first look at the store, which comes after.
        for listener in self.nodes().iter_mut().filter(|one| one.node == node) {
            listener.follows.insert(to);
        }
    }

    fn keep(&self, node: NodeId, is_needed: &dyn Fn(To) -> bool) {
        for listener in self.nodes().iter_mut().filter(|one| one.node == node) {
            listener.follows.retain(|to| is_needed(*to));
        }
    }

    async fn close(&self) {}
}
