//! What each action does, and in which order.
//!
//! Callers need no more than [`Chat::connect`], [`Client`] with [`Chat::handle`], and
//! [`Chat::disconnect`]. Nothing here knows sockets, SQL or which backend runs.

mod accounts;
mod actions;
mod arrival;
mod commands;
mod delivery;
mod files;
mod indexing;
mod moderation;
mod pace;
mod people;
mod rooms;
mod search;
mod welcome;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::fake::FakeUsers;
use crate::hub::{Close, Hub, Outbox, Region};
use crate::json;
use crate::log::Chain;
use crate::metrics::{METRICS, Metrics};
use crate::model::{
    ClientId, ClientRef, Found, Message, MessageText, NodeId, RoomId, RoomKind, Sought, Target,
    User, UserId, Wording,
};
use crate::protocol::{
    self, Action, Dialect, Feed, Frame, LOBBY_PATH, Push, Refusal, Selector, Tone,
};
use crate::push::Pusher;
use crate::relay::{self, Relay};
use crate::store::{self, Actor, Store, StoreError};
use crate::text::Draft;
use crate::views::{ViewError, Views};

use accounts::Accounts;
pub use accounts::{Denied, Visitor};
pub use arrival::NotLetIn;
use delivery::Delivery;
pub use files::{Files, Kinds, NotTaken, SweepFailed};
pub use indexing::Indexer;
use pace::{Pace, Paces};
use people::People;
pub use rooms::{Asked, FirstPage};
pub use welcome::Welcome;

/// The tab reconnects. The server then finds out who it is, and admits it where it still may be.
const RECONNECT: Close = Close::now(1000, "reconnect");

const MUTED: &str = "A moderator has muted you. You can read, but not write.";
/// The notice for a failure of the server.
const TROUBLE: &str = "Something went wrong on the server. Please try again.";
const NOT_SAVED: &str = "Your message is not saved yet. The page will try again.";

/// Shortens a list that was read with one extra, and returns whether there are more.
fn has_more<T>(found: &mut Vec<T>, most: usize) -> bool {
    let more = found.len() > most;
    found.truncate(most);
    more
}

/// The limits on what one person may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The longest message, in characters.
    pub message_characters: usize,
    /// How many actions a person may take at once.
    pub pace_burst: u32,
    /// Actions per second after that; `None` for no limit.
    pub pace_per_second: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_characters: 4000,
            pace_burst: 150,
            pace_per_second: Some(10),
        }
    }
}

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// For a reason that the person is shown.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The person is too fast; a later attempt may succeed.
    #[error(transparent)]
    Late(Refusal),
    /// The store failed.
    #[error("{0}")]
    Store(#[source] StoreError),
    /// A fragment could not be rendered.
    #[error(transparent)]
    View(#[from] ViewError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(why) => Self::Refused(actions::refusal(why)),
            error => Self::Store(error),
        }
    }
}

impl Failure {
    /// The same failure, of an action with this key.
    fn of(self, key: Option<Uuid>) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(refusal.of(key)),
            Self::Late(refusal) => Self::Late(refusal.of(key)),
            failed => failed,
        }
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// Logs what the server could not do. During an outage of the database, this says nothing new.
pub fn log_failure(what: impl fmt::Display, error: &(dyn Error + 'static)) {
    match store::is_outage(error) {
        true => tracing::debug!("could not {what}: {}", Chain(error)),
        false => tracing::error!("could not {what}: {}", Chain(error)),
    }
}

/// The chat on one node.
pub struct Chat {
    node: NodeId,
    store: Arc<Store>,
    relay: Arc<dyn Relay>,
    views: Arc<Views>,
    hub: Hub,
    people: Arc<People>,
    paces: Paces,
    accounts: Accounts,
    changed: moderation::Changed,
    limits: Limits,
    welcome: Welcome,
    spares: Mutex<FakeUsers>,
    started: Instant,
    /// When the lease was last renewed.
    renewed: Mutex<Instant>,
    /// Since when the lease has been held without expiring.
    held_since: Mutex<Instant>,
    /// Held while the lease is renewed; other tasks wait for the result.
    renewing: tokio::sync::Mutex<()>,
    /// The turns of arriving clients.
    turns: Semaphore,
    /// Tasks that wait for another node to say whether a client has a responsive socket there.
    probes: Mutex<HashMap<ClientId, Vec<oneshot::Sender<bool>>>>,
    /// What this node shows may be out of date.
    outdated: Arc<Notify>,
    /// Wakes the task that updates the lists of groups.
    groups_changed: mpsc::Sender<()>,
    /// The messages that people may have to be notified of.
    notable: mpsc::Sender<people::Notable>,
    indexer: Indexer,
    /// Notifies browsers that show no page, unless that is turned off.
    pusher: OnceLock<Arc<Pusher>>,
    /// The files that people send, unless that is turned off.
    files: OnceLock<Files>,
}

/// What a client asks for.
pub struct Request(pub std::result::Result<Action, Refusal>);

impl Request {
    /// A binary frame, which is no action.
    pub fn binary() -> Self {
        Self(Err(Refusal::new("Binary frames are not supported.")))
    }

    /// Whether it is a message to be stored. Those of one client may be under way together, in their order.
    pub fn is_message(&self) -> bool {
        matches!(self.0, Ok(Action::NewMessage { .. }))
    }
}

/// A connected client.
pub struct Client {
    /// What waits to be sent to the socket.
    pub outbox: Arc<Outbox>,
    /// Its user.
    pub user: User,
    client_ref: ClientRef,
    /// Scheme and host of the page, with which the addresses of messages begin.
    origin: String,
    pace: Arc<Pace>,
    /// How many of its messages the store has been given and has not answered.
    queued: AtomicUsize,
    /// The display name that a program last asked for.
    wish: Mutex<Option<String>>,
    /// The open search of a page in the lobby, and the results that it shows.
    sought: Mutex<Option<Box<(String, Frame)>>>,
}

impl Client {
    /// How many of its messages the store has been given and has not answered. It stores them in their order.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Waits for a message that is given to the store with the first poll.
    async fn queue<T>(&self, posting: impl Future<Output = T>) -> T {
        let mut posting = pin!(posting);
        let first = poll_fn(|context| Poll::Ready(posting.as_mut().poll(context))).await;
        let _queued = Queued::one_more(&self.queued);
        match first {
            Poll::Ready(posted) => posted,
            Poll::Pending => posting.await,
        }
    }
}

/// A message that is counted until this is dropped, also if nobody waits for its answer any more.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn one_more(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Chat {
    /// Starts the chat on a store. From here on, changes are pushed as they are stored.
    pub async fn start(
        store: Arc<Store>,
        relay: Arc<dyn Relay>,
        views: Arc<Views>,
        limits: Limits,
        welcome: Welcome,
    ) -> std::result::Result<Arc<Self>, StoreError> {
        let (node, began) = (NodeId::random(), Instant::now());
        let changes = store.join(node).await?;
        let heard = relay.listen(node).await;
        let (groups_changed, groups_have_changed) = mpsc::channel(1);
        let (notable, notables) = mpsc::channel(people::NOTABLES_WAITING);
        let indexer = Indexer::start(&store);
        let chat = Arc::new(Self {
            node,
            store,
            relay,
            views,
            hub: Hub::default(),
            people: Arc::default(),
            paces: Paces::default(),
            accounts: Accounts::default(),
            changed: moderation::Changed::default(),
            limits,
            welcome,
            spares: Mutex::new(FakeUsers::random()),
            started: Instant::now(),
            renewed: Mutex::new(began),
            held_since: Mutex::new(began),
            renewing: tokio::sync::Mutex::default(),
            turns: Semaphore::new(arrival::ARRIVING_AT_ONCE),
            probes: Mutex::default(),
            outdated: Arc::default(),
            groups_changed,
            notable,
            indexer,
            pusher: OnceLock::new(),
            files: OnceLock::new(),
        });
        tokio::spawn(Delivery::new(&chat).run(changes, heard));
        let (people, weak) = (Arc::clone(&chat.people), Arc::downgrade(&chat));
        tokio::spawn(people::run(Arc::clone(&people), Weak::clone(&weak)));
        tokio::spawn(people::keep_lease(people, Weak::clone(&weak)));
        tokio::spawn(people::notify(Weak::clone(&weak), notables));
        tokio::spawn(moderation::outdate_groups(weak, groups_have_changed));
        Ok(chat)
    }

    /// Shows a notice in all tabs that a user has on this node; plain ones get their own, if there is
    /// one.
    fn show_notice(&self, user: UserId, frame: &Frame, plain: Option<&Frame>) {
        for tab in self.hub.of_user(user) {
            let plain = plain.filter(|_| tab.dialect == Dialect::Plain);
            if tab.dialect.has(&Selector::NOTICE) {
                tab.show(Region::Notice, plain.unwrap_or(frame).clone());
            }
        }
    }

    /// Reads what a person asks for.
    pub fn read(&self, client: &Client, text: &str) -> Request {
        let dialect = client.outbox.dialect;
        Request(match dialect.feed() {
            Feed::Json => json::read(dialect, text),
            _ => Action::parse(text),
        })
    }

    /// Does what a person asks for.
    pub async fn handle(&self, client: &Client, Request(action): Request) {
        METRICS.actions.inc();
        let name = action.as_ref().map_or("unreadable", Action::name);
        // A span per action rather than per connection: an idle tab costs the log nothing.
        let span = tracing::debug_span!(
            "action",
            action = name,
            client.id = client.client_ref.client.0,
            user.id = client.user.id.0,
            node = self.node.0,
        );
        async {
            if let Err(failure) = self.keep_lease_valid().await {
                // If the client has ended, the store refuses the action anyway.
                log_failure("renew the expired lease", &failure);
            }
            if client.outbox.closing().is_some() {
                return;
            }
            let key = match &action {
                Ok(Action::NewMessage { key, .. }) => *key,
                Ok(_) => None,
                Err(refusal) => refusal.key,
            };
            let done = match action {
                Ok(action) => actions::act(self, client, action).await,
                Err(refusal) => self.spend(client).and(Err(refusal.into())),
            };
            tracing::debug!(done = done.is_ok(), "handled");
            match done {
                Ok(()) => {}
                Err(Failure::Store(StoreError::Gone)) => self.hang_up(client).await,
                Err(failure) => self.tell(client, failure.of(key)),
            }
        }
        .instrument(span)
        .await;
    }

    /// The message that the client has sent with this key, and whether it is in the client's room.
    pub async fn sent(
        &self,
        client: &Client,
        key: Uuid,
    ) -> std::result::Result<Option<(Message, bool)>, StoreError> {
        let found = self.store.message_by_key(client.user.id, key).await?;
        let here = client.outbox.place().map(|place| place.room);
        Ok(found.map(|(message, room)| (message, here == Some(room.id))))
    }

    /// The address of the client's group, or else the lobby's.
    pub async fn address_of(&self, client: &Client) -> String {
        let group = match client.outbox.place() {
            Some(place) => self.group(place.room).await,
            None => Ok(None),
        };
        let group = group.unwrap_or_else(|failure| {
            log_failure("read a group", &failure);
            None
        });
        let name = group.and_then(|group| match group.kind {
            RoomKind::Group(name) => protocol::address(&Target::Group(name)),
            RoomKind::Private { .. } => None,
        });
        name.unwrap_or_else(|| LOBBY_PATH.to_owned())
    }

    /// The client has ended. The tab reconnects and sends unsettled messages again. A banned person
    /// gets a notice.
    async fn hang_up(&self, client: &Client) {
        if self.send_away(&[Arc::clone(&client.outbox)]).await.is_err() {
            client.outbox.close(RECONNECT);
        }
    }

    /// The client as the store knows it.
    fn actor(&self, client: &Client) -> Actor {
        Actor {
            node: self.node,
            client: client.client_ref,
            user: client.user.id,
        }
    }

    /// The text with what it refers to, which is looked up only if there may be anything.
    async fn worded(
        &self,
        client: &Client,
        room: RoomId,
        text: MessageText,
    ) -> std::result::Result<Wording, StoreError> {
        let draft = Draft::new(text.as_str());
        let sought = draft.sought(&client.origin);
        let found = match sought == Sought::default() {
            true => Found::default(),
            false => self.store.referred(client.user.id, room, sought).await?,
        };
        Ok(draft.wording(&text, &client.origin, &found))
    }

    /// Takes one action from the person's bucket.
    fn spend(&self, client: &Client) -> Result<()> {
        let Some(per_second) = self.limits.pace_per_second else {
            return Ok(());
        };
        let words = "You are doing that too fast. Please wait a moment.";
        let is_allowed = client.pace.take(self.limits.pace_burst, per_second);
        let allowed = is_allowed.then_some(());
        allowed.ok_or_else(|| Failure::Late(Refusal::new(words)))
    }

    /// Sends the pushes that the tab has a place for.
    fn push(&self, client: &Client, pushes: impl IntoIterator<Item = Push>) {
        let dialect = client.outbox.dialect;
        let pushes = pushes.into_iter();
        let pushes = pushes.filter(|push| dialect.has(&push.selector));
        client.outbox.push(pushes.map(|push| push.encode()));
    }

    /// Tells only this person why an action failed.
    fn tell(&self, client: &Client, failure: Failure) {
        let (refusal, tone) = match failure {
            // Callers normally close the socket themselves.
            Failure::Store(StoreError::Gone) => return client.outbox.close(RECONNECT),
            Failure::Refused(refusal) => {
                METRICS.refused("action");
                (refusal, Tone::Refusal)
            }
            Failure::Late(refusal) => {
                METRICS.refused("pace");
                (refusal, Tone::Wait)
            }
            failure @ (Failure::Store(_) | Failure::View(_)) => {
                METRICS.refused("unavailable");
                log_failure(
                    format_args!("do what user {} asked", client.user.id.0),
                    &failure,
                );
                (Refusal::new(TROUBLE), Tone::Trouble)
            }
        };
        if let Err(error) = self.say(client, &refusal, tone) {
            log_failure("render a notice", &error);
        }
    }

    /// Shows a notice to this person only.
    fn say(&self, client: &Client, refusal: &Refusal, tone: Tone) -> Result<()> {
        let outbox = &client.outbox;
        match json::notice(outbox.dialect, &refusal.text, tone) {
            Some(notice) => outbox.push([notice]),
            // Every key has to be settled. Of other notices only the newest matters.
            None => {
                let notice = self.views.notice(outbox.dialect, refusal, tone)?.encode();
                match refusal.key {
                    Some(_) => outbox.push([notice]),
                    None => outbox.show(Region::Notice, notice),
                }
            }
        }
        Ok(())
    }

    /// The socket has closed; the person may be back in a moment.
    pub fn disconnect(&self, client: &Client) {
        // This comes first: when the hub is empty, a stopping server writes the list of leaving clients
        // for the last time.
        let room = client.outbox.place().map(|place| place.room);
        self.leaves(client.client_ref, &client.user, room);
        self.hub.disconnect(&client.outbox);
        tracing::info!(
            client.id = client.client_ref.client.0,
            user.id = client.user.id.0,
            "disconnected"
        );
    }

    /// The last notice for a tab that is disconnected or turned away.
    pub fn farewell(&self, dialect: Dialect, words: &str) -> Option<Frame> {
        json::notice(dialect, words, Tone::Refusal).or_else(|| {
            let notice = self
                .views
                .notice(dialect, &Refusal::new(words), Tone::Refusal);
            let notice = notice.inspect_err(|error| log_failure("render a notice", error));
            Some(notice.ok()?.encode())
        })
    }

    /// The templates, so that a caller can reload them.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Checks that the store reads and writes, and says how the relay is doing. A chat works without
    /// its relay, only more slowly between nodes.
    pub async fn check(&self) -> std::result::Result<relay::State, StoreError> {
        self.store.check().await?;
        Ok(self.relay.state())
    }

    /// Sets the metrics that are read rather than counted.
    pub fn gauge(&self) {
        let load = self.hub.load();
        for (dialect, sockets) in Dialect::ALL.into_iter().zip(load.sockets) {
            let gauge = METRICS.sockets.with_label_values(&[dialect.name()]);
            Metrics::set(&gauge, sockets);
        }
        let is_connected = self.relay.state() != relay::State::Disconnected;
        for (gauge, count) in [
            (&METRICS.people, load.people),
            (&METRICS.rooms, load.rooms),
            (&METRICS.waiting, load.frames),
            (&METRICS.waiting_bytes, load.bytes),
            (&METRICS.fullest, load.fullest),
            (&METRICS.behind, load.behind),
            (&METRICS.relay_connected, usize::from(is_connected)),
        ] {
            Metrics::set(gauge, count);
        }
        let version = env!("CARGO_PKG_VERSION");
        METRICS.build.with_label_values(&[version]).set(1);
    }

    /// Closes every socket and waits for them, at most for `deadline`. Then stores what people have
    /// read and who has left.
    pub async fn stop(&self, deadline: Duration) {
        self.hub
            .close_all(Close::drained(1012, "the server restarts"));
        let emptied = tokio::time::timeout(deadline, self.hub.empty());
        if emptied.await.is_err() {
            let people = self.hub.people();
            tracing::warn!(people, "some sockets were still open at shutdown");
        }
        people::finish(self).await;
        self.relay.close().await;
    }
}
