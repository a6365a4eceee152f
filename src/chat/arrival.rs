//! How a client connects: which user it becomes, and what it is shown first.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::{Chat, Client, Failure, MUTED, RECONNECT, Result, actions};
use crate::model::{
    BrowserToken, ClientId, ClientRef, GroupName, NodeId, ResumeToken, Room, SessionId,
    SessionToken, Target, TokenHash, User,
};
use crate::protocol::{self, Dialect, FIRST_GROUP, Feed, Hello, LOBBY_PATH, Refusal, Selector};
use crate::relay::{News, To};
use crate::store::{Arrival, Arrived, Moved, Refused, Resume, StoreError};

/// How long a socket may take to show that it is alive before another socket takes over its client.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// The same for a socket on another node, whose answer takes longer.
const FAR_PROBE_DEADLINE: Duration = Duration::from_millis(2_500);

/// How many clients are admitted at once, so that what people do does not wait behind thousands who arrive
/// together. Their writes share a commit, and their reads a snapshot: more of them would cost each hardly less.
pub(super) const ARRIVING_AT_ONCE: usize = 32;
/// How long a client may wait for its turn. After that, its tab retries by itself.
const TURN_DEADLINE: Duration = Duration::from_secs(15);

/// The right to be admitted now.
pub(super) struct Turn<'a> {
    turns: &'a Semaphore,
    held: Option<SemaphorePermit<'a>>,
}

/// A client that has been connected in the store.
struct Came {
    client_ref: ClientRef,
    user: User,
    session: Option<SessionId>,
    token: ResumeToken,
    /// The first of the rooms it asks for, if that is a group and it may enter it.
    entered: Option<(Room, Moved)>,
}

/// Why a client was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum NotLetIn {
    /// Their user is banned.
    #[error("the user is banned")]
    Banned,
    /// The store failed.
    #[error("the client could not be connected")]
    Store(#[from] StoreError),
    /// Too many clients arrive at once.
    #[error("too many clients arrive at once")]
    Busy,
    /// No room could be entered; the log has the cause.
    #[error("the client could not enter a room")]
    NoRoom,
}

impl Turn<'_> {
    /// Lets others have the turn while this takes its time.
    async fn pause<T>(
        &mut self,
        slow: impl Future<Output = T>,
    ) -> std::result::Result<T, NotLetIn> {
        self.held = None;
        let done = slow.await;
        self.held = Some(turn(self.turns).await?);
        Ok(done)
    }
}

async fn turn(turns: &Semaphore) -> std::result::Result<SemaphorePermit<'_>, NotLetIn> {
    match tokio::time::timeout(TURN_DEADLINE, turns.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(NotLetIn::Busy),
    }
}

impl Chat {
    /// A socket connects. Its person is the one of their resume token or session, otherwise a new one.
    /// It enters the room it names, otherwise the first room.
    pub async fn connect(&self, hello: Hello) -> std::result::Result<Client, NotLetIn> {
        let turns = &self.turns;
        let held = Some(turn(turns).await?);
        // Boxed, so that those who wait need little memory.
        Box::pin(self.admit(hello, Turn { turns, held })).await
    }

    async fn admit(
        &self,
        hello: Hello,
        mut turn: Turn<'_>,
    ) -> std::result::Result<Client, NotLetIn> {
        let targets = targets(&hello);
        let came = self.arrive(&hello, targets.first(), &mut turn).await?;
        let Came {
            client_ref,
            user,
            session,
            token,
            entered,
        } = came;
        let room_left = entered.as_ref().and_then(|(_, moved)| moved.left);
        let outbox = self.hub.connect(client_ref, user.id, hello.dialect);
        self.relay.follow(self.node, To::User(user.id));
        if session.is_some() {
            outbox.keep();
        }
        let client = Client {
            outbox,
            pace: self.paces.of(user.id),
            user,
            client_ref,
            origin: hello.origin.clone(),
            queued: AtomicUsize::new(0),
            wish: Mutex::default(),
            sought: Mutex::default(),
        };
        self.people.note_name(&client.user);
        let greeted = match &hello.group {
            // It shows nothing, and enters a room with a form.
            _ if hello.dialect == Dialect::Forms => Ok(()),
            Some(group) => self.greet_program(&client, group).await,
            None => self.greet(&client, &token, &hello, targets, entered).await,
        };
        match greeted {
            Ok(()) => {}
            // The session has expired meanwhile, or another socket has taken over the client.
            Err(Failure::Store(StoreError::Gone)) => self.hang_up(&client).await,
            Err(failure) => {
                self.tell(&client, failure);
                if let Some(room) = room_left {
                    self.spread(News::Presence(room));
                }
                self.disconnect(&client);
                return Err(NotLetIn::NoRoom);
            }
        }
        self.hub.show_online_to(&client.outbox);
        self.moved(client.user.id);
        tracing::info!(
            client.id = client_ref.client.0,
            user.id = client.user.id.0,
            "connected"
        );
        Ok(client)
    }

    async fn arrive(
        &self,
        hello: &Hello,
        first: Option<&Target>,
        turn: &mut Turn<'_>,
    ) -> std::result::Result<Came, NotLetIn> {
        // Its form was sent before its script had loaded.
        let sent_form = hello.resume.is_none() && hello.forms.is_some();
        let former = hello.resume.as_ref().or(hello.forms.as_ref());
        let former_hash = former.map(ResumeToken::hash);
        let session = hello.session.as_ref().map(SessionToken::hash);
        // A browser is known by its cookie, a tab only by what it is given now.
        let fresh = match former {
            Some(token) if hello.dialect == Dialect::Forms => token.clone(),
            _ => ResumeToken::random(),
        };
        let mut arrival = Arrival {
            node: self.node,
            session,
            resume: None,
            token: fresh.hash(),
            browser: hello.browser.as_ref().map(BrowserToken::hash),
            spare: None,
            // Only pages are checked afterwards: the client may have ended meanwhile.
            group: first.filter(|_| hello.dialect == Dialect::V1).cloned(),
        };
        let mut looks_up = true;
        loop {
            // Another socket may come back to the client at the same moment. Then that one is probed next.
            if let (Some(token), true) = (former_hash, std::mem::take(&mut looks_up)) {
                arrival.resume = match sent_form {
                    false => Some(Resume::Left(token)),
                    // Once the client of its form has left, the socket is somebody else's.
                    true => match self.store.client_by_token(token, session).await? {
                        Some((client, Some(at))) => self.claim(client, at, token, turn).await?,
                        _ => None,
                    },
                };
            }
            match self.store.arrive(arrival.clone()).await? {
                Arrived::As {
                    client,
                    user,
                    session,
                    entered,
                } => {
                    let mut token = fresh.clone();
                    // Only a new client has the new token.
                    if let (Some(former), true) = (former, client.visit > 0) {
                        match sent_form {
                            false => token = former.clone(),
                            // The next form of the browser is somebody else's.
                            true => self.store.change_token(client, fresh.hash()).await?,
                        }
                    }
                    return Ok(Came {
                        client_ref: client,
                        user,
                        session,
                        token,
                        entered,
                    });
                }
                Arrived::Connected(client, at) => {
                    arrival.resume = match former_hash {
                        Some(token) => self.claim(client, at, token, turn).await?,
                        None => None,
                    };
                }
                Arrived::Overtaken => looks_up = true,
                Arrived::NobodyFree => arrival.spare = self.spares.lock().next(),
                Arrived::Banned => return Err(NotLetIn::Banned),
            }
        }
    }

    /// Takes over a connected client, unless its socket is alive.
    async fn claim(
        &self,
        client: ClientRef,
        at: NodeId,
        token: TokenHash,
        turn: &mut Turn<'_>,
    ) -> std::result::Result<Option<Resume>, NotLetIn> {
        let must_ask = at != self.node && self.relay.has_others(self.node)
            || self.hub.of_client(client.client).is_some();
        let is_alive = must_ask && turn.pause(self.is_alive(client.client, at)).await?;
        Ok((!is_alive).then_some(Resume::Client(client, token)))
    }

    /// Whether the client has a responsive socket, on whichever node it is.
    async fn is_alive(&self, client: ClientId, at: NodeId) -> bool {
        match at != self.node && self.relay.has_others(self.node) {
            true => self.is_alive_at(client, at).await,
            false => self.is_alive_here(client).await,
        }
    }

    pub(super) async fn is_alive_here(&self, client: ClientId) -> bool {
        let Some(outbox) = self.hub.of_client(client) else {
            return false;
        };
        // Forms have no socket that anybody could copy.
        outbox.dialect != Dialect::Forms
            && matches!(
                tokio::time::timeout(PROBE_DEADLINE, outbox.probe()).await,
                Ok(Ok(()))
            )
    }

    /// Asks another node. If it does not answer, it has ended or cannot be reached; it closes its stale
    /// sockets as soon as it can.
    pub(super) async fn is_alive_at(&self, client: ClientId, at: NodeId) -> bool {
        let (sender, answer) = oneshot::channel();
        self.probes.lock().entry(client).or_default().push(sender);
        self.tell_others(News::Probe { client, at });
        let answer = tokio::time::timeout(FAR_PROBE_DEADLINE, answer).await;
        if answer.is_err() {
            let mut probes = self.probes.lock();
            if let Some(waiting) = probes.get_mut(&client) {
                waiting.retain(|sender| !sender.is_closed());
                if waiting.is_empty() {
                    probes.remove(&client);
                }
            }
        }
        matches!(answer, Ok(Ok(true)))
    }

    /// Another node asks whether a client has a responsive socket here. If not, the socket here is
    /// closed: somebody is about to reconnect to the client on the other node.
    pub(super) async fn answer_probe(self: Arc<Self>, client: ClientId, asker: NodeId) {
        let alive = self.is_alive_here(client).await;
        if !alive && let Some(outbox) = self.hub.of_client(client) {
            outbox.close(RECONNECT);
        }
        self.tell_others(News::Alive {
            client,
            asker,
            alive,
        });
    }

    pub(super) fn take_answer(&self, client: ClientId, alive: bool) {
        for waiting in self.probes.lock().remove(&client).unwrap_or_default() {
            // The task that asked may have given up.
            let _ = waiting.send(alive);
        }
    }

    /// The first pushes to a new tab: its user, its room, its people.
    async fn greet(
        &self,
        client: &Client,
        token: &ResumeToken,
        hello: &Hello,
        targets: Vec<Target>,
        mut entered: Option<(Room, Moved)>,
    ) -> Result<()> {
        let dialect = client.outbox.dialect;
        let resume = (dialect.feed() == Feed::Changes).then_some(token);
        let me = self.views.logged_user(dialect, &client.user, resume)?;
        self.push(client, [me]);
        // Somebody who reconnects may have lost a name that their page still shows.
        if client.user.display_name.is_some() || client.client_ref.visit > 0 {
            self.push(client, [self.views.name_form(&client.user)?]);
        }
        if dialect.has(&Selector::ACCOUNT) {
            let guest = (!client.outbox.is_kept()).then_some(token);
            let moderator =
                client.outbox.is_kept() && self.store.standing(client.user.id).await?.moderator;
            let account = self.views.account(&client.user, guest, moderator)?;
            self.push(client, [account]);
        }
        // A new guest has the settings of the page.
        if dialect.has(&Selector::NOTIFICATIONS)
            && (client.outbox.is_kept() || client.client_ref.visit > 0)
        {
            self.people.outdate_notifications(client.user.id);
        }
        if dialect == Dialect::Moderation {
            return self.show_moderation(client).await;
        }
        if is_for_lobby(hello) {
            return self.show_lobby(client).await;
        }
        if let Some(typed) = search_of(hello) {
            return self.search(client, &typed, None).await;
        }
        let mut refused = None;
        for target in targets {
            let has_entered = entered.take();
            if self
                .visit(client, &target, hello.after, has_entered)
                .await?
            {
                return Ok(());
            }
            if !matches!(target, Target::Room(_)) {
                refused = Some(actions::no_such_room(&target, client));
            }
        }
        // Whoever has followed a wrong link chooses where to go.
        if refused.is_some() && dialect.has(&Selector::LOBBY) {
            self.show_lobby_instead(client).await?;
        } else {
            let first = Target::Group(FIRST_GROUP.to_owned());
            actions::change_group(self, client, &first).await?;
        }
        if let Some(refusal) = refused {
            self.tell(client, refusal.into());
        }
        Ok(())
    }

    /// A program enters the group in its address and gets the latest messages.
    async fn greet_program(&self, client: &Client, group: &GroupName) -> Result<()> {
        let target = Target::Group(group.as_str().to_owned());
        if self.visit(client, &target, None, None).await? {
            return Ok(());
        }
        match self
            .store
            .make_group(self.actor(client), group.clone())
            .await
        {
            // They may listen to other groups, but this one does not exist.
            Err(StoreError::Refused(Refused::Muted)) => {
                self.tell(client, Refusal::new(MUTED).into());
                return Ok(());
            }
            made => made?,
        }
        actions::change_group(self, client, &target).await
    }
}

/// The rooms that a page asks for, in the order in which they are tried.
fn targets(hello: &Hello) -> Vec<Target> {
    if is_for_lobby(hello) || search_of(hello).is_some() {
        return Vec::new();
    }
    let (path, _) = address_of(hello);
    let room = hello.room.map(Target::Room);
    let named: Vec<_> = room
        .into_iter()
        .chain(protocol::read_address(path))
        .collect();
    match named.is_empty() {
        true => vec![Target::Group(FIRST_GROUP.to_owned())],
        false => named,
    }
}

/// The path and the query of the page's address.
fn address_of(hello: &Hello) -> (&str, &str) {
    let at = hello.at.as_deref().unwrap_or_default();
    at.split_once('?').unwrap_or((at, ""))
}

fn is_for_lobby(hello: &Hello) -> bool {
    hello.room.is_none()
        && hello.at.as_deref() == Some(LOBBY_PATH)
        && hello.dialect.has(&Selector::LOBBY)
}

/// What the page searches for.
fn search_of(hello: &Hello) -> Option<String> {
    let (path, query) = address_of(hello);
    let typed = protocol::read_search(path, Some(query))?;
    (hello.room.is_none() && hello.dialect.has(&Selector::SEARCH_PAGE)).then_some(typed)
}
