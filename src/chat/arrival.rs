//! How a client connects: which user it becomes, and what it is shown first.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::{Chat, Client, Failure, MUTED, RECONNECT, Result, actions};
use crate::model::{
    BrowserToken, ClientId, ClientRef, GroupName, NodeId, ResumeToken, RoomId, SessionId,
    SessionToken, Target, User, Version,
};
use crate::protocol::{self, Dialect, FIRST_GROUP, Feed, Hello, LOBBY_PATH, Refusal, Selector};
use crate::relay::{News, To};
use crate::store::{Arrival, Arrived, Refused, StoreError};

/// How long a socket may take to show that it is alive before another socket takes over its client.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// The same for a socket on another node, whose answer takes longer.
const FAR_PROBE_DEADLINE: Duration = Duration::from_millis(2_500);

/// How many clients are admitted at once, so that what people do does not wait behind thousands who arrive
/// together. As many writes fit into one commit.
pub(super) const ARRIVING_AT_ONCE: usize = 32;
/// How long a client may wait for its turn. After that, its tab retries by itself.
const TURN_DEADLINE: Duration = Duration::from_secs(15);

/// The right to be admitted now.
pub(super) struct Turn<'a> {
    turns: &'a Semaphore,
    held: Option<SemaphorePermit<'a>>,
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
        let arrived = self.arrive(&hello, &mut turn).await?;
        let (client_ref, user, session, token) = arrived;
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
            origin: hello.origin,
            queued: AtomicUsize::new(0),
            wish: Mutex::default(),
            sought: Mutex::default(),
        };
        self.people.note_name(&client.user);
        let Hello {
            room, after, at, ..
        } = hello;
        let greeted = match hello.group {
            // It shows nothing, and enters a room with a form.
            _ if hello.dialect == Dialect::Forms => Ok(()),
            Some(group) => self.greet_program(&client, group).await,
            None => self.greet(&client, &token, room, after, at).await,
        };
        match greeted {
            Ok(()) => {}
            // The session has expired meanwhile, or another socket has taken over the client.
            Err(Failure::Store(StoreError::Gone)) => self.hang_up(&client).await,
            Err(failure) => {
                self.tell(&client, failure);
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

    pub(super) async fn arrive(
        &self,
        hello: &Hello,
        turn: &mut Turn<'_>,
    ) -> std::result::Result<(ClientRef, User, Option<SessionId>, ResumeToken), NotLetIn> {
        let (node, mut resume) = (self.node, hello.resume.clone());
        // Its form was sent before its script had loaded.
        let sent_form = resume.is_none() && hello.forms.is_some();
        resume = resume.or_else(|| hello.forms.clone());
        let session = hello.session.as_ref().map(SessionToken::hash);
        let browser = hello.browser.as_ref().map(BrowserToken::hash);
        // A browser is known by its cookie, a tab only by what it is given now.
        let fresh = match &resume {
            Some(token) if hello.dialect == Dialect::Forms => token.clone(),
            _ => ResumeToken::random(),
        };
        let arrival = |resume, token: &ResumeToken, spare| Arrival {
            node,
            session,
            resume,
            token: token.hash(),
            browser,
            spare,
        };
        if let Some(token) = resume {
            // Another socket may reconnect at the same moment; then that one is probed next.
            while let Some((client_ref, at)) =
                self.store.client_by_token(token.hash(), session).await?
            {
                if sent_form && at.is_none() {
                    break;
                }
                let elsewhere = at.is_some_and(|at| at != self.node);
                let must_ask = elsewhere && self.relay.has_others(self.node)
                    || self.hub.of_client(client_ref.client).is_some();
                if must_ask && turn.pause(self.is_alive(client_ref.client, at)).await? {
                    break;
                }
                let arrival = arrival(Some(client_ref), &token, None);
                match self.store.arrive(arrival).await? {
                    Arrived::As {
                        client,
                        user,
                        session,
                    } if sent_form => {
                        // The next form of the browser is somebody else's.
                        self.store.change_token(client, fresh.hash()).await?;
                        return Ok((client, user, session, fresh));
                    }
                    Arrived::As {
                        client,
                        user,
                        session,
                    } => return Ok((client, user, session, token)),
                    Arrived::Banned => return Err(NotLetIn::Banned),
                    Arrived::Overtaken | Arrived::NobodyFree => {}
                }
            }
        }
        let mut spare = None;
        loop {
            let arrival = arrival(None, &fresh, spare);
            if let Arrived::As {
                client,
                user,
                session,
            } = self.store.arrive(arrival).await?
            {
                return Ok((client, user, session, fresh));
            }
            spare = self.spares.lock().next();
        }
    }

    /// Whether the client has a responsive socket, on whichever node it is.
    pub(super) async fn is_alive(&self, client: ClientId, at: Option<NodeId>) -> bool {
        match at {
            Some(at) if at != self.node && self.relay.has_others(self.node) => {
                self.is_alive_at(client, at).await
            }
            _ => self.is_alive_here(client).await,
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
    pub(super) async fn greet(
        &self,
        client: &Client,
        token: &ResumeToken,
        room: Option<RoomId>,
        after: Option<Version>,
        at: Option<String>,
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
        let to_lobby = room.is_none() && at.as_deref() == Some(LOBBY_PATH);
        if to_lobby && dialect.has(&Selector::LOBBY) {
            return self.show_lobby(client).await;
        }
        let at = at.as_deref().unwrap_or_default();
        let (path, query) = at.split_once('?').unwrap_or((at, ""));
        let typed = protocol::read_search(path, Some(query)).filter(|_| room.is_none());
        if let (Some(typed), true) = (typed, dialect.has(&Selector::SEARCH_PAGE)) {
            return self.search(client, &typed, None).await;
        }
        let address = protocol::read_address(path);
        let mut refused = None;
        for target in [room.map(Target::Room), address].into_iter().flatten() {
            if self.visit(client, &target, after).await? {
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
    pub(super) async fn greet_program(&self, client: &Client, group: GroupName) -> Result<()> {
        let target = Target::Group(group.as_str().to_owned());
        if self.visit(client, &target, None).await? {
            return Ok(());
        }
        match self.store.make_group(self.actor(client), group).await {
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
