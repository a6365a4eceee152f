//! The story: what each action does, in which order.
//!
//! [`Chat::connect`], [`Client`] with [`Chat::handle`], [`Chat::disconnect`]: a door needs no
//! more. Nothing here knows sockets, SQL or which backend runs.

mod accounts;
mod actions;
mod arrival;
mod commands;
mod delivery;
mod moderation;
mod pace;
mod people;
mod rooms;
mod welcome;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::Instrument as _;

use crate::fake::FakeUsers;
use crate::hub::{Close, Hub, Outbox, Region};
use crate::json;
use crate::model::{ClientId, ClientRef, NodeId, User, UserId};
use crate::protocol::{Action, Dialect, Feed, Frame, Push, Refusal, Selector};
use crate::relay::Relay;
use crate::store::{Store, StoreError};
use crate::views::{Tone, ViewError, Views};

use accounts::Accounts;
pub use accounts::{Denied, Visitor};
pub use arrival::NotLetIn;
use delivery::Delivery;
use pace::{Pace, Paces};
use people::People;
pub use rooms::FirstPage;
pub use welcome::Welcome;

/// The tab comes back, as whoever it is by then, and is let in where it still may be.
const COME_AGAIN: Close = Close {
    code: 1000,
    reason: "come again",
    drain: false,
};

/// The message box takes this many UTF-16 code units at least: well over any message, so that a
/// long one is refused with the reason rather than cut, and under the largest frame even if JSON
/// needs six bytes for each of them.
const MOST_TYPED: usize = 10_000;
/// How much a box takes, where a message may have so many characters; see [`MOST_TYPED`].
fn most_typed(message_characters: usize) -> usize {
    MOST_TYPED.max(2 * message_characters)
}

const MUTED: &str = "A moderator has muted you: nothing that you write is taken.";
/// What is said when something of ours failed.
const TROUBLE: &str = "That did not work on our side. Please try again.";
const NOT_SAVED: &str = "Your message is not saved yet. It is tried again.";

/// How much one person may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Characters of a message.
    pub message_characters: usize,
    /// Actions that a person may do at once.
    pub pace_burst: u32,
    /// Actions per second after that; `None` for as many as come.
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

/// Why an action came to nothing.
#[derive(Debug)]
enum Failure {
    /// For a reason that the person is told.
    Refused(Refusal),
    /// For now: it was too much at once.
    Late(Refusal),
    /// For a fault of ours.
    Store(StoreError),
    /// For a fault of ours.
    View(ViewError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ViewError> for Failure {
    fn from(error: ViewError) -> Self {
        Self::View(error)
    }
}

type Result<T> = std::result::Result<T, Failure>;

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
    /// When the lease was renewed last.
    renewed: Mutex<Instant>,
    /// Since when it has been without running out.
    held_since: Mutex<Instant>,
    /// Held by whoever renews it; the others wait for what comes of that.
    renewing: tokio::sync::Mutex<()>,
    /// Those who wait for another node to say whether a client has a socket there that answers.
    probes: Mutex<HashMap<ClientId, Vec<oneshot::Sender<bool>>>>,
    /// What is shown may be less than what there is.
    outdated: Arc<Notify>,
    /// Some group has changed.
    groups_changed: mpsc::Sender<()>,
}

/// Somebody who is connected.
pub struct Client {
    /// What waits for their socket.
    pub outbox: Arc<Outbox>,
    /// Who they are.
    pub user: User,
    returning: ClientRef,
    pace: Arc<Pace>,
    /// What a program wished to be called last.
    wish: Mutex<Option<String>>,
    /// The search for groups that a page in the lobby has open, and what it was shown to find.
    sought: Mutex<Option<Box<(String, Frame)>>>,
}

impl Chat {
    /// Begins to work on a store: from here on changes are shown as they are stored.
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
            probes: Mutex::default(),
            outdated: Arc::default(),
            groups_changed,
        });
        tokio::spawn(Delivery::new(&chat).run(changes, heard));
        let (people, weak) = (Arc::clone(&chat.people), Arc::downgrade(&chat));
        tokio::spawn(people::run(Arc::clone(&people), Weak::clone(&weak)));
        tokio::spawn(people::keep_lease(people, Weak::clone(&weak)));
        tokio::spawn(moderation::outdate_groups(weak, groups_have_changed));
        Ok(chat)
    }

    /// Says something in all tabs that somebody has here.
    fn show_notice(&self, user: UserId, frame: &Frame) {
        for tab in self.hub.of_user(user) {
            if tab.dialect.has(&Selector::NOTICE) {
                tab.show(Region::Notice, frame.clone());
            }
        }
    }

    /// What a person did.
    pub async fn handle(&self, client: &Client, text: &str) {
        let dialect = client.outbox.dialect;
        let action = match dialect.feed() {
            Feed::Json => json::read(dialect, text),
            _ => Action::parse(text),
        };
        let name = action.as_ref().map_or("unreadable", Action::name);
        // A span per action rather than per connection: an idle tab costs the log nothing.
        let span = tracing::debug_span!(
            "action",
            action = name,
            client.id = client.returning.client.0,
            user.id = client.user.id.0,
            node = self.node.0,
        );
        async {
            if let Err(failure) = self.stand().await {
                // What is done for somebody who stands no more is refused by the store in any case.
                tracing::warn!(?failure, "the lease has run out and could not be renewed");
            }
            if client.outbox.closing().is_some() {
                return;
            }
            let done = match action {
                Ok(action) => actions::act(self, client, action).await,
                Err(refusal) => match self.spend(client) {
                    Ok(()) => Err(refusal.into()),
                    Err(late) => Err(Failure::Late(late.of(refusal.key))),
                },
            };
            tracing::debug!(done = done.is_ok(), "handled");
            match done {
                Ok(()) => {}
                Err(Failure::Store(StoreError::Gone)) => self.hang_up(client).await,
                Err(failure) => self.tell(client, failure),
            }
        }
        .instrument(span)
        .await;
    }

    /// The client stands no more. The tab finds out who it is now, and sends again what has not been
    /// settled; whoever is banned is told so.
    async fn hang_up(&self, client: &Client) {
        if self.send_away(&[Arc::clone(&client.outbox)]).await.is_err() {
            client.outbox.close(COME_AGAIN);
        }
    }

    /// A frame that cannot be an action.
    pub fn refuse(&self, client: &Client, words: &str) {
        let failure = match self.spend(client) {
            Ok(()) => Refusal::new(words).into(),
            Err(late) => Failure::Late(late),
        };
        self.tell(client, failure);
    }

    /// Takes one action from the person's bucket.
    fn spend(&self, client: &Client) -> std::result::Result<(), Refusal> {
        let Some(per_second) = self.limits.pace_per_second else {
            return Ok(());
        };
        match client.pace.take(self.limits.pace_burst, per_second) {
            true => Ok(()),
            false => Err(Refusal::new(
                "That was too much at once. Please wait a moment.",
            )),
        }
    }

    /// Pushes to a tab what it has a place for.
    fn push(&self, client: &Client, pushes: impl IntoIterator<Item = Push>) {
        let dialect = client.outbox.dialect;
        let pushes = pushes.into_iter();
        let pushes = pushes.filter(|push| dialect.has(&push.selector));
        client.outbox.push(pushes.map(|push| push.encode()));
    }

    /// Says to the person, and to nobody else, why something came to nothing.
    fn tell(&self, client: &Client, failure: Failure) {
        let (refusal, tone) = match failure {
            // As a rule whoever calls this has hung up before.
            Failure::Store(StoreError::Gone) => return client.outbox.close(COME_AGAIN),
            Failure::Refused(refusal) => (refusal, Tone::Refusal),
            Failure::Late(refusal) => (refusal, Tone::Wait),
            Failure::Store(error) => {
                tracing::error!(user.id = client.user.id.0, ?error, "the store failed");
                (Refusal::new(TROUBLE), Tone::Trouble)
            }
            Failure::View(error) => {
                tracing::error!(user.id = client.user.id.0, ?error, "a fragment failed");
                (Refusal::new(TROUBLE), Tone::Trouble)
            }
        };
        if let Err(error) = self.say(client, &refusal, tone) {
            tracing::error!(?error, "a notice failed");
        }
    }

    /// Says something to the person, and to nobody else.
    fn say(&self, client: &Client, refusal: &Refusal, tone: Tone) -> Result<()> {
        let outbox = &client.outbox;
        let done = matches!(tone, Tone::Done);
        match json::notice(outbox.dialect, &refusal.text, done) {
            Some(notice) => outbox.push([notice]),
            // Each key has to be settled; of other notices the newest will do.
            None => match (self.views.notice(refusal, tone)?.encode(), refusal.key) {
                (notice, Some(_)) => outbox.push([notice]),
                (notice, None) => outbox.show(Region::Notice, notice),
            },
        }
        Ok(())
    }

    /// The socket has gone; the person may be back in a moment.
    pub fn disconnect(&self, client: &Client) {
        // First into the list of those who leave: when the hub is empty, a stopping server writes
        // that list for the last time.
        let room = client.outbox.place().map(|place| place.room);
        self.leaves(client.returning, &client.user, room);
        self.hub.disconnect(&client.outbox);
        tracing::info!(
            client.id = client.returning.client.0,
            user.id = client.user.id.0,
            "disconnected"
        );
    }

    /// The last words to a tab that is cut loose or turned away.
    pub fn farewell(&self, dialect: Dialect, words: &str) -> Option<Frame> {
        if let Some(notice) = json::notice(dialect, words, false) {
            return Some(notice);
        }
        let notice = self.views.notice(&Refusal::new(words), Tone::Refusal);
        notice
            .inspect_err(|error| tracing::error!(?error, "a notice failed"))
            .ok()
            .map(|push| push.encode())
    }

    /// The templates, which a door may have read anew.
    #[must_use]
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Answers if the store does.
    pub async fn check(&self) -> std::result::Result<(), StoreError> {
        self.store.check().await
    }

    /// Ends every socket and waits for them, at most for `deadline`; what people have seen and
    /// who has gone is stored.
    pub async fn stop(&self, deadline: Duration) {
        self.hub.close_all(Close {
            code: 1012,
            reason: "the server restarts",
            drain: true,
        });
        if tokio::time::timeout(deadline, self.hub.empty())
            .await
            .is_err()
        {
            tracing::warn!(people = self.hub.people(), "some sockets did not finish");
        }
        people::finish(self).await;
        self.relay.close().await;
    }
}
