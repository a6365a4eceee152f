//! The story: what each action does, in which order.
//!
//! [`Chat::connect`], [`Client`] with [`Chat::handle`], [`Chat::disconnect`]: a door needs no
//! more. Nothing here knows sockets, SQL or which backend runs.

mod accounts;
mod actions;
mod commands;
mod delivery;
mod moderation;
mod moves;
mod pace;
mod people;
mod typing;
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
use crate::model::{
    ClientId, ClientRef, Emoji, GroupName, History, MessageId, NodeId, Page, ResumeToken, Room,
    RoomId, RoomKind, SessionId, SessionToken, Target, User, UserId, Version,
};
use crate::protocol::{
    self, Action, Dialect, FIRST_GROUP, Feed, Frame, Hello, LOBBY_PATH, Push, Refusal, Selector,
    Swap,
};
use crate::relay::{News, Relay, To};
use crate::store::{Arrival, Arrived, Entered, Moved, RESTRICTED, Store, StoreError};
use crate::views::{ChatPage, Tone, ViewError, Views};

use accounts::Accounts;
pub use accounts::{Denied, Visitor};
use delivery::Delivery;
use pace::{Pace, Paces};
use people::People;
pub use welcome::Welcome;

/// How long a socket may take to show that it is alive before somebody else takes its client
/// over.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// The same where it is on another node, whose answer has a way to go.
const FAR_PROBE_DEADLINE: Duration = Duration::from_millis(2_500);

/// The tab comes back, as whoever it is by then, and is let in where it still may be.
const COME_AGAIN: Close = Close {
    code: 1000,
    reason: "come again",
    drain: false,
};

/// For so long after a start those who come back were here before, and nobody is told.
const ALL_BACK: Duration = Duration::from_secs(60);

/// The message box takes this many UTF-16 code units at least: well over any message, so that a
/// long one is refused with the reason rather than cut, and under the largest frame even if JSON
/// needs six bytes for each of them.
const MOST_TYPED: usize = 10_000;
/// How much a box takes, where a message may have so many characters; see [`MOST_TYPED`].
fn most_typed(message_characters: usize) -> usize {
    MOST_TYPED.max(2 * message_characters)
}

/// How many of my reactions a tab is told of at once.
const REACTIONS_AT_ONCE: usize = 500;

/// How many groups the aside lists at most.
const GROUPS_LISTED: usize = 50;

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

/// Why somebody could not be let in.
#[derive(Debug, thiserror::Error)]
pub enum NotLetIn {
    /// They were here as somebody whom nobody can be any more.
    #[error("they are banned")]
    Banned,
    /// A failure of ours.
    #[error("they could not arrive")]
    Store(#[from] StoreError),
    /// A failure of ours, of which the log has the cause.
    #[error("they could not enter a room")]
    NoRoom,
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

/// A page for somebody who has not connected yet.
pub struct FirstPage {
    /// The HTML.
    pub html: String,
    /// Whether the address leads to a room.
    pub found: bool,
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

    /// Somebody arrives. They are who they were if they can show it and nobody else is, else
    /// somebody new, in the room they say they are in, else in the first one.
    pub async fn connect(&self, hello: Hello) -> std::result::Result<Client, NotLetIn> {
        let arrived = self.arrive(hello.session, hello.resume).await?;
        let (returning, user, session, token) = arrived;
        let outbox = self
            .hub
            .connect(returning.client, returning.visit, user.id, hello.dialect);
        self.relay.follow(self.node, To::User(user.id));
        if session.is_some() {
            outbox.keep();
        }
        let client = Client {
            outbox,
            pace: self.paces.of(user.id, self.limits.pace_burst),
            user,
            returning,
            wish: Mutex::default(),
            sought: Mutex::default(),
        };
        self.people.calls(&client.user);
        let greeted = match hello.group {
            Some(group) => self.greet_program(&client, group).await,
            None => {
                self.greet(&client, &token, hello.room, hello.after, hello.at)
                    .await
            }
        };
        match greeted {
            Ok(()) => {}
            // Their session has ended on the way in, or somebody else came back to it first.
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
            client.id = returning.client.0,
            user.id = client.user.id.0,
            "connected"
        );
        Ok(client)
    }

    async fn arrive(
        &self,
        session: Option<SessionToken>,
        resume: Option<ResumeToken>,
    ) -> std::result::Result<(ClientRef, User, Option<SessionId>, ResumeToken), NotLetIn> {
        let (node, fresh) = (self.node, ResumeToken::random());
        let session = session.map(|session| session.hash());
        if let Some(token) = resume {
            // Somebody else may come back at the same moment: then they are asked in their turn.
            while let Some((returning, at)) =
                self.store.client_by_token(token.hash(), session).await?
            {
                if self.is_alive(returning.client, at).await {
                    break;
                }
                let resume = Some(returning);
                let arrival = Arrival {
                    node,
                    session,
                    resume,
                    token: token.hash(),
                    spare: None,
                };
                match self.store.arrive(arrival).await? {
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
            let arrival = Arrival {
                node,
                session,
                resume: None,
                token: fresh.hash(),
                spare,
            };
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

    /// Whether the client has a socket that answers, on the node that it is at.
    async fn is_alive(&self, client: ClientId, at: Option<NodeId>) -> bool {
        match at {
            Some(at) if at != self.node && self.relay.has_others(self.node) => {
                self.is_alive_at(client, at).await
            }
            _ => self.is_alive_here(client).await,
        }
    }

    async fn is_alive_here(&self, client: ClientId) -> bool {
        let Some(outbox) = self.hub.of_client(client) else {
            return false;
        };
        matches!(
            tokio::time::timeout(PROBE_DEADLINE, outbox.probe()).await,
            Ok(Ok(()))
        )
    }

    /// Asks another node. One that does not answer has ended, or cannot be reached: its clients'
    /// sockets are closed as soon as it can.
    async fn is_alive_at(&self, client: ClientId, at: NodeId) -> bool {
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

    /// Another node asks whether a client has a socket here; if that does not answer, somebody is
    /// about to come back to the client elsewhere.
    async fn answer_probe(self: Arc<Self>, client: ClientId, asker: NodeId) {
        let alive = self.is_alive_here(client).await;
        if !alive && let Some(outbox) = self.hub.of_client(client) {
            outbox.close(COME_AGAIN);
        }
        self.tell_others(News::Alive {
            client,
            asker,
            alive,
        });
    }

    fn take_answer(&self, client: ClientId, alive: bool) {
        for waiting in self.probes.lock().remove(&client).unwrap_or_default() {
            // Who asked may have given up.
            let _ = waiting.send(alive);
        }
    }

    /// The client enters a room, if it may.
    async fn enter(&self, client: &Client, target: Target) -> Result<(Entered, Moved)> {
        let (returning, user) = (client.returning, client.user.id);
        Ok(self.store.enter(returning, user, target).await?)
    }

    /// What a newcomer is shown: who they are, where they are, who concerns them.
    async fn greet(
        &self,
        client: &Client,
        token: &ResumeToken,
        room: Option<RoomId>,
        after: Option<Version>,
        at: Option<String>,
    ) -> Result<()> {
        let dialect = client.outbox.dialect;
        let resume = (dialect.feed() == Feed::Changes).then_some(token);
        self.push(client, [self.views.logged_user(&client.user, resume)?]);
        // Whoever comes back may have lost a name that their page still shows.
        if client.user.display_name.is_some() || client.returning.visit > 0 {
            self.push(client, [self.views.name_form(&client.user)?]);
        }
        if dialect.has(&Selector::ACCOUNT) {
            let guest = (!client.outbox.is_kept()).then_some(token);
            let moderator =
                client.outbox.is_kept() && self.store.standing(client.user.id).await?.moderator;
            let account = self.views.account(&client.user, guest, moderator)?;
            self.push(client, [account]);
        }
        if dialect.feed() == Feed::Nothing {
            return self.show_admin(client).await;
        }
        let to_lobby = room.is_none() && at.as_deref() == Some(LOBBY_PATH);
        if to_lobby && dialect.has(&Selector::LOBBY) {
            return self.show_lobby(client).await;
        }
        let address = at.as_deref().and_then(protocol::read_address);
        let mut refused = None;
        for target in [room.map(Target::Room), address].into_iter().flatten() {
            match self.enter(client, target.clone()).await? {
                (Entered::Room(room), moved) => {
                    let after = after.filter(|after| after.room == room.id);
                    self.show_room(client, &room, moved, after).await?;
                    return Ok(());
                }
                (Entered::Oneself | Entered::NoSuchRoom, _) => {
                    refused = actions::no_such_room(&target, client).or(refused);
                }
            }
        }
        let first = Target::Group(FIRST_GROUP.to_owned());
        match self.enter(client, first).await? {
            (Entered::Room(room), moved) => self.show_room(client, &room, moved, None).await?,
            (Entered::Oneself | Entered::NoSuchRoom, _) => {
                return Err(Refusal::new(protocol::NO_SUCH_ROOM).into());
            }
        }
        if let Some(refusal) = refused {
            self.tell(client, refusal.into());
        }
        Ok(())
    }

    /// A program is in the group that its door leads to, and is told what was said there last.
    async fn greet_program(&self, client: &Client, group: GroupName) -> Result<()> {
        let target = Target::Group(group.as_str().to_owned());
        let (returning, user) = (client.returning, client.user.id);
        let mut entered = self.enter(client, target.clone()).await?;
        if entered.0 == Entered::NoSuchRoom {
            if !self.store.make_group(returning, user, group).await? {
                // They may listen elsewhere; here there is nowhere to be.
                self.tell(client, Refusal::new(actions::MUTED).into());
                return Ok(());
            }
            entered = self.enter(client, target).await?;
        }
        match entered {
            (Entered::Room(room), moved) => self.show_room(client, &room, moved, None).await,
            (Entered::Oneself | Entered::NoSuchRoom, _) => {
                Err(Refusal::new(protocol::NO_SUCH_ROOM).into())
            }
        }
    }

    /// The client is in no room and sees what there are.
    async fn show_lobby(&self, client: &Client) -> Result<()> {
        let moved = self.store.leave_room(client.returning).await?;
        let name = self.views.lobby_name()?.encode();
        let groups = self.groups(client, None).await?;
        let groups = groups.filter(|groups| client.outbox.is_new(Region::Groups, groups));
        client.outbox.push(groups.into_iter().chain([name]));
        let (former, _) = self.hub.enter(&client.outbox, RoomId::LOBBY, None);
        self.relay.follow(self.node, To::Room(RoomId::LOBBY));
        let nothing = Version {
            room: RoomId::LOBBY,
            history: History(0),
            number: 0,
        };
        client.outbox.bring(RoomId::LOBBY, nothing, []);
        let from = former.map(|place| place.room);
        self.entered(&client.user, None, from, moved, false);
        Ok(())
    }

    /// The client is in the room from now on and is shown it: what is new since `after`, or the
    /// newest page. On a failure it stays where it was.
    async fn show_room(
        &self,
        client: &Client,
        room: &Room,
        moved: Moved,
        after: Option<Version>,
    ) -> Result<()> {
        let outbox = &client.outbox;
        let dialect = outbox.dialect;
        let heading = match dialect.has(&Selector::GROUP_NAME) {
            true => Some(self.views.group_name(room)?.encode()),
            false => None,
        };
        let groups = self.groups(client, Some(room)).await?;
        let welcome = self.welcoming(dialect, room)?;
        // Whoever types here is shown after; who typed elsewhere, or before the socket was lost, is not.
        let nobody_types = match dialect.has(&Selector::ROOM_TYPING) {
            true => Some(self.views.room_typing(&[])?.encode()),
            false => None,
        };
        // First into the room, then the page: so nothing falls in between.
        let (former, unsettled) = self.hub.enter(outbox, room.id, None);
        self.relay.follow(self.node, To::Room(room.id));
        let read = async {
            self.look_again_at(client, room).await?;
            let mine = match dialect.has(&Selector::MY_REACTIONS) {
                true => Some(self.own_reactions(client.user.id, room.id).await?),
                false => None,
            };
            let (rest, version) = self.rest(dialect, room.id, after).await?;
            Ok((mine, rest, version))
        };
        match read.await {
            Ok((mine, rest, version)) => {
                let settled = unsettled
                    .iter()
                    .map(|message| self.views.changed_message(message));
                if let Some(heading) = &heading {
                    outbox.is_new(Region::Heading, heading);
                }
                let left_lobby = former.is_some_and(|place| place.room == RoomId::LOBBY);
                let no_lobby = left_lobby.then(|| self.views.no_lobby().encode());
                let groups = groups.filter(|groups| outbox.is_new(Region::Groups, groups));
                let frames = groups
                    .into_iter()
                    .chain(settled.map(|push| push.encode()))
                    .chain(no_lobby)
                    .chain(mine)
                    .chain(heading)
                    .chain(rest)
                    .chain(welcome)
                    .chain(nobody_types);
                outbox.bring(room.id, version, frames);
                self.hub.begins(version);
                self.people.shows_typing(room.id);
                let returns = former.is_none()
                    && client.returning.visit > 0
                    && self.started.elapsed() < ALL_BACK;
                let from = former.map(|place| place.room);
                self.entered(&client.user, Some(room), from, moved, returns);
                Ok(())
            }
            Err(failure) => {
                if let Some(former) = former {
                    self.hub.enter(outbox, former.room, former.seen);
                    let back = match former.room {
                        RoomId::LOBBY => {
                            let left = self.store.leave_room(client.returning).await;
                            left.map(|_| ()).map_err(Failure::from)
                        }
                        room => self.enter(client, Target::Room(room)).await.map(|_| ()),
                    };
                    if let Err(failure) = back {
                        tracing::warn!(?failure, "where somebody looks is not known for sure");
                    }
                }
                Err(failure)
            }
        }
    }

    /// Which of the reactions in a room are somebody's own. Of very many the newest are told, and what
    /// the tab knows of others stays.
    async fn own_reactions(&self, user: UserId, room: RoomId) -> Result<Frame> {
        let (first, last) = (MessageId(0), MessageId(i64::MAX));
        let mine = self.reactions_among(user, room, first, last).await?;
        let push = self.views.my_reactions(&mine)?;
        let push = match mine.len() < REACTIONS_AT_ONCE {
            true => push,
            false => push.swapped(Swap::Append),
        };
        Ok(push.encode())
    }

    async fn reactions_among(
        &self,
        user: UserId,
        room: RoomId,
        first: MessageId,
        last: MessageId,
    ) -> Result<Vec<(MessageId, Emoji)>> {
        let limit = REACTIONS_AT_ONCE;
        Ok(self
            .store
            .reactions_of(user, room, first, last, limit)
            .await?)
    }

    /// What whoever enters a room is told there; a page has to forget what it was told elsewhere.
    fn welcoming(&self, dialect: Dialect, room: &Room) -> Result<Option<Frame>> {
        let words = self.welcome.to(room);
        if dialect.has(&Selector::ROOM_WELCOME) {
            return Ok(Some(self.views.room_welcome(words.as_deref())?.encode()));
        }
        // The other programs are told only what people say.
        let words = words.filter(|_| dialect == Dialect::Objects);
        Ok(words.and_then(|words| json::notice(dialect, &words, true)))
    }

    /// The groups of the aside for somebody who is in that room, which is listed in any case.
    async fn groups(&self, client: &Client, room: Option<&Room>) -> Result<Option<Frame>> {
        if !client.outbox.dialect.has(&Selector::GROUPS_LIST) {
            return Ok(None);
        }
        let mut groups = self
            .store
            .groups(Some(client.user.id), GROUPS_LISTED)
            .await?;
        if let Some(room) = room
            && matches!(room.kind, RoomKind::Group(_))
            && !groups.contains(room)
        {
            groups.truncate(GROUPS_LISTED - 1);
            groups.push(room.clone());
        }
        Ok(Some(self.views.groups_list(&groups)?.encode()))
    }

    /// Some group is called otherwise or is open to others than before.
    async fn show_groups(&self, client: &Client) -> Result<()> {
        let room = match client.outbox.place() {
            Some(place) if place.room == RoomId::LOBBY => {
                actions::find_groups_again(self, client).await?;
                None
            }
            Some(place) => self.group(place.room).await?,
            None => None,
        };
        let groups = self.groups(client, room.as_ref()).await?;
        let groups = groups.filter(|groups| client.outbox.is_new(Region::Groups, groups));
        client.outbox.push(groups);
        Ok(())
    }

    /// The socket's outbox fell behind or its groups have changed, and it has drained: the rest of
    /// its room, and its groups.
    pub async fn catch_up(&self, client: &Client) -> bool {
        // Messages wait for nothing that is soft.
        if client.outbox.is_behind() && !self.bring_rest(client).await {
            return false;
        }
        if client.outbox.take_groups_changed()
            && let Err(failure) = self.show_groups(client).await
        {
            tracing::warn!(?failure, "groups are not drawn, which is tried again");
            client.outbox.outdate_groups();
            return false;
        }
        true
    }

    async fn bring_rest(&self, client: &Client) -> bool {
        let Some(place) = client.outbox.place() else {
            return true;
        };
        match self
            .rest(client.outbox.dialect, place.room, place.seen)
            .await
        {
            Ok((rest, version)) => {
                // The rest may be a newest page that one's own message is not in any more.
                let unsettled = client.outbox.take_unsettled();
                let settled = unsettled
                    .iter()
                    .map(|message| self.views.changed_message(message));
                let frames = settled.map(|push| push.encode()).chain(rest);
                client.outbox.bring(place.room, version, frames);
                true
            }
            Err(failure) => {
                self.tell(client, failure);
                false
            }
        }
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

    /// The page at an address, for somebody who has not connected yet. Nothing is written and
    /// nobody claimed.
    pub async fn first_page(
        &self,
        address: &str,
        scheme: &str,
        host: &str,
        session: Option<&SessionToken>,
    ) -> anyhow::Result<FirstPage> {
        let groups = self.store.groups(None, GROUPS_LISTED).await?;
        let target = protocol::read_address(address);
        let (mut found, mut notice) = (true, None);
        let lobby = match address == LOBBY_PATH {
            true => Some(self.store.busiest_groups(people::LISTED_IN_ROOM).await?),
            false => None,
        };
        let room = match &target {
            Some(Target::Group(name)) => {
                // What only some may know of is looked for as one of them alone.
                let me = match name.starts_with(RESTRICTED) {
                    true => self.signed_in(session).await?.map(|user| user.id),
                    false => None,
                };
                self.store.group(name, me).await?
            }
            // The same whether that person exists or not.
            Some(Target::Private(_)) => None,
            _ if lobby.is_some() => None,
            _ => {
                found = false;
                notice = Some(Refusal::new("There is nothing at this address."));
                None
            }
        };
        if let (Some(Target::Group(name)), None) = (&target, &room) {
            found = false;
            notice = Some(actions::no_such_group(name));
        }
        let page: Option<Page> = match &room {
            Some(room) => Some(self.store.newest(room.id).await?),
            None => None,
        };
        let html = self.views.chat_page(&ChatPage {
            host,
            scheme,
            groups: &groups,
            room: room.as_ref().zip(page.as_ref()),
            lobby: lobby.as_deref(),
            most: most_typed(self.limits.message_characters),
            notice: notice.as_ref(),
        })?;
        Ok(FirstPage { html, found })
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
