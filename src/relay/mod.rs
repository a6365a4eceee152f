//! News between nodes that share a store.
//!
//! A relay may lose, duplicate and delay news. Versions show what is missing, and the store has it.
//! Other news is soft: it is right again after the next read of the store. A relay does not know what a
//! frame contains.

pub mod redis;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::model::{ClientId, MessageId, NodeId, RoomId, User, UserId, Version};
use crate::protocol::{Dialect, Frame};

/// How much news may wait for a node before more is lost.
const WAITING: usize = 4096;

/// News for another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum News {
    /// A room has changed: the frames lead from the version numbered `follows` to `version`.
    Change {
        /// The number of the previous version.
        follows: u64,
        /// The new version of the room.
        version: Version,
        /// What the pages in the room are shown.
        frame: Frame,
        /// What the programs in the room get, in each of their dialects, if anything.
        #[serde(rename = "told")]
        for_programs: Vec<(Dialect, Option<Frame>)>,
        /// What only the person who made the change is shown as well.
        own: Option<Own>,
    },
    /// The list of people in a room is out of date; for the lobby, the list of groups.
    Presence(RoomId),
    /// Somebody has joined a room.
    Joined {
        /// The room they joined.
        room: RoomId,
        /// The person.
        user: User,
        /// Whether they were here before, so that they are not announced unless others saw them leave.
        returns: bool,
    },
    /// Somebody has left a room.
    Left {
        /// The room they left.
        room: RoomId,
        /// The person.
        user: User,
        /// Whether they may be back in a moment, as after a reload.
        may_return: bool,
    },
    /// Somebody started or stopped typing in a room.
    Typing {
        /// The room.
        room: RoomId,
        /// The person.
        user: User,
        /// Whether they are typing.
        on: bool,
    },
    /// The list of people online is out of date.
    Online,
    /// This person's own list is out of date.
    Mine(UserId),
    /// This person's list of groups is out of date.
    Groups(UserId),
    /// A message was posted in a group, which tabs that list it may mark as unread.
    Posted {
        /// The group.
        room: RoomId,
        /// The message.
        message: MessageId,
        /// The user name of its author.
        author: String,
        /// The messages since the last such news that mention everybody, with their authors; nodes of
        /// earlier versions send none.
        #[serde(default)]
        here: Vec<(MessageId, String)>,
        /// Those that mentioned everybody and no longer do.
        #[serde(default)]
        gone: Vec<MessageId>,
    },
    /// A message in a group mentions this person now, or no longer.
    Mentioned {
        /// The person.
        user: UserId,
        /// The group.
        room: RoomId,
    },
    /// This person has marked a room as unread.
    MarkedUnread {
        /// The person.
        user: UserId,
        /// The room.
        room: RoomId,
        /// Up to which message it now counts as read.
        read: MessageId,
    },
    /// A message was posted or changed in a private room of this person.
    Written {
        /// The person.
        user: UserId,
        /// The private room.
        room: RoomId,
        /// Whether the other person did it.
        by_other: bool,
        /// What this person's programs get, if it is a new message for them.
        #[serde(rename = "told")]
        for_programs: Option<Frame>,
    },
    /// The settings for notifications of this person have changed.
    Notifications(UserId),
    /// This person is notified of a message.
    Notify {
        /// The person.
        user: UserId,
        /// What their tabs are shown.
        frame: Frame,
    },
    /// A node has its first person in a room, and asks who is typing there.
    WhoTypes(RoomId),
    /// A notice for all pages of somebody.
    Notice {
        /// The person.
        user: UserId,
        /// The notice.
        frame: Frame,
        /// The same for plain clients; nodes of earlier versions send none.
        #[serde(default)]
        plain: Option<Frame>,
    },
    /// Some of this person's clients may have ended.
    Ended(UserId),
    /// This user was banned.
    Banned(UserId),
    /// Somebody changed their display name.
    Renamed {
        /// The person, with the new name.
        user: User,
        /// The rooms that show it, besides the rooms they are in.
        rooms: Vec<RoomId>,
    },
    /// A group was changed or removed; the people in it must reconnect.
    GroupChanged(RoomId),
    /// Asks whether this client has a responsive socket.
    Probe {
        /// The client.
        client: ClientId,
        /// The node it is on.
        at: NodeId,
    },
    /// The answer to `Probe`.
    Alive {
        /// The client.
        client: ClientId,
        /// The node that asked.
        asker: NodeId,
        /// Whether the client has a responsive socket.
        alive: bool,
    },
    /// News from this node may have been lost.
    Missed,
}

/// A person's own view of their reaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Own {
    /// The person.
    pub user: UserId,
    /// What their tabs in the room are shown.
    pub frame: Frame,
}

/// The nodes that need some news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// All nodes.
    Everyone,
    /// One node.
    Node(NodeId),
    /// The nodes with somebody in this room.
    Room(RoomId),
    /// The nodes with a tab that lists this group.
    Listing(RoomId),
    /// The nodes with a tab of this person.
    User(UserId),
}

impl News {
    /// The nodes that need the news.
    #[must_use]
    pub fn to(&self) -> To {
        match self {
            Self::Change { version, .. } => To::Room(version.room),
            Self::Presence(room)
            | Self::Joined { room, .. }
            | Self::Left { room, .. }
            | Self::Typing { room, .. }
            | Self::WhoTypes(room) => To::Room(*room),
            Self::Posted { room, .. } => To::Listing(*room),
            Self::Mine(user)
            | Self::Groups(user)
            | Self::MarkedUnread { user, .. }
            | Self::Mentioned { user, .. }
            | Self::Notifications(user)
            | Self::Notify { user, .. }
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

/// News and its sender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// The node that sent it.
    pub node: NodeId,
    /// The news.
    pub news: News,
}

/// What a node receives.
#[derive(Clone, Debug)]
pub enum Heard {
    /// News from another node.
    News(Envelope),
    /// News of this kind is received from now on. Earlier news may have been missed.
    Following(To),
    /// Any news may have been missed.
    Missed,
}

/// How a relay is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is nothing to connect to.
    InProcess,
    /// News is sent and received.
    Connected,
    /// News is not sent or not received at the moment. The relay keeps trying.
    Disconnected,
}

/// Carries news to the other nodes.
#[async_trait]
pub trait Relay: Send + Sync + 'static {
    /// Sends an envelope to the nodes that need it. It does not wait, and delivery is not guaranteed.
    fn announce(&self, envelope: Envelope);

    /// How it is doing at the moment.
    fn state(&self) -> State;

    /// Whether there may be other nodes.
    fn has_others(&self, node: NodeId) -> bool;

    /// The news that this node receives from now on: news for everyone, for this node, and for what it
    /// follows.
    async fn listen(&self, node: NodeId) -> mpsc::Receiver<Heard>;

    /// The node needs this news from now on. Repeating the call changes nothing.
    fn follow(&self, node: NodeId, to: To);

    /// Stops following the news for which `is_needed` is false.
    fn keep(&self, node: NodeId, is_needed: &dyn Fn(To) -> bool);

    /// Waits, for a moment at most, until the announced news has been sent. Nothing may be announced
    /// after that.
    async fn close(&self);
}

/// The relay between nodes in one process. A single node, the default, has nobody to send to.
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
                To::Room(_) | To::Listing(_) | To::User(_) => listener.follows.contains(&to),
            };
            if needs_it && listener.node != envelope.node {
                // A node that is slow or gone reads what it missed from the store.
                let _ = listener.heard.try_send(Heard::News(envelope.clone()));
            }
        }
    }

    fn state(&self) -> State {
        State::InProcess
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
        // Nothing is missed: the first read of the store comes after this.
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
