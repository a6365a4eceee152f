//! Which room a tab is in: it enters a room or the lobby, is shown it, and is kept up to date.

use std::sync::Arc;
use std::time::Duration;

use super::{Chat, Client, Failure, Result, actions, log_failure, people};
use crate::hub::Region;
use crate::json;
use crate::metrics::METRICS;
use crate::model::{
    BrowserToken, Emoji, History, Listed, MessageId, Page, Room, RoomId, RoomKind, SessionToken,
    Target, UserId, Version,
};
use crate::protocol::{self, Dialect, Frame, LOBBY_PATH, Push, Refusal, Selector, Swap, Tone};
use crate::relay::To;
use crate::store::{Moved, StoreError, Wanted};
use crate::views::{self, ChatPage, Place, Reader};

/// For this long after a start, people who come back are not announced: they were here before.
const QUIET_AFTER_START: Duration = Duration::from_secs(60);

/// How many of a person's own reactions are pushed to a tab at once.
const REACTIONS_AT_ONCE: usize = 500;

/// How many groups the side pane lists at most.
pub(super) const GROUPS_LISTED: usize = 50;

/// What a page shows of a room apart from its messages.
pub(super) const OF_A_ROOM: [Selector; 5] = [
    Selector::ROOM_MENU,
    Selector::ROOM_TOPIC,
    Selector::ROOM_WELCOME,
    Selector::ROOM_COUNT,
    Selector::ROOM_PEOPLE,
];

/// What a browser asks for that has not connected yet.
pub struct Asked<'a> {
    /// The address.
    pub address: &'a str,
    /// `http` or `https`, as the browser sees it.
    pub scheme: &'a str,
    /// Host and port as the browser sees them.
    pub host: &'a str,
    /// The query of the address.
    pub query: Option<&'a str>,
    /// The session, if they have one.
    pub session: Option<&'a SessionToken>,
    /// The browser, if it is known.
    pub browser: Option<&'a BrowserToken>,
    /// The answer to a form, and the text that was not sent.
    pub refused: Option<(&'a str, &'a str)>,
}

/// The page for a browser that has not connected yet.
pub struct FirstPage {
    /// Its HTML.
    pub html: String,
    /// For whom it is: who has signed in, or the guest of the browser's forms.
    pub reader: Option<Reader>,
    /// Whether the address leads to a room.
    pub found: bool,
}

impl Chat {
    /// Moves the client into a room; `None` if there is no such room that it may enter.
    pub(super) async fn enter(
        &self,
        client: &Client,
        target: Target,
    ) -> Result<Option<(Room, Moved)>> {
        match self.store.enter(self.actor(client), target).await {
            Err(StoreError::Refused(_)) => Ok(None),
            entered => Ok(Some(entered?)),
        }
    }

    /// Moves the client into a room and shows it, with the changes since `after` if that is a version of
    /// it. Returns whether the client may enter. It may have `entered` the room when it connected.
    pub(super) async fn visit(
        &self,
        client: &Client,
        target: &Target,
        after: Option<Version>,
        entered: Option<(Room, Moved)>,
    ) -> Result<bool> {
        // Where they left off, and their lists, depend on it.
        self.write_reads_of(client.user.id).await?;
        let entered = match entered {
            Some(entered) => Some(entered),
            None => self.enter(client, target.clone()).await?,
        };
        let Some((room, moved)) = entered else {
            return Ok(false);
        };
        let after = after.filter(|after| after.room == room.id);
        self.show_room(client, &room, moved, after).await?;
        Ok(true)
    }

    /// Moves the client into the lobby and shows it the groups.
    pub(super) async fn show_lobby(&self, client: &Client) -> Result<()> {
        let moved = self.store.leave_room(client.client_ref).await?;
        self.write_reads_of(client.user.id).await?;
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

    /// Moves the client into the lobby from a room, whose content it no longer shows.
    pub(super) async fn show_lobby_instead(&self, client: &Client) -> Result<()> {
        let groups = self.store.busiest_groups(people::LISTED_IN_ROOM).await?;
        self.push(client, OF_A_ROOM.map(Push::empty));
        self.push(
            client,
            [self.views.no_messages()?, self.views.lobby(&groups)?],
        );
        self.show_lobby(client).await
    }

    /// Shows the client the room that it has just entered: the changes since `after`, or the newest
    /// page. On a failure it stays where it was.
    pub(super) async fn show_room(
        &self,
        client: &Client,
        room: &Room,
        moved: Moved,
        after: Option<Version>,
    ) -> Result<()> {
        let outbox = &client.outbox;
        let dialect = outbox.dialect;
        let rendered = |place, push: &dyn Fn() -> views::Result<Push>| match dialect.has(&place) {
            true => push().map(|push| Some(push.encode())),
            false => Ok(None),
        };
        let heading = rendered(Selector::GROUP_NAME, &|| {
            self.views.group_name(dialect, room)
        })?;
        let welcome = self.welcoming(dialect, room, moved.is_first)?;
        // Clears the list of people typing, which may be that of another room or out of date. The
        // people typing here are pushed later.
        let nobody_types = rendered(Selector::ROOM_TYPING, &|| self.views.room_typing(&[]))?;
        // Enter the room before reading the page, so that nothing is missed in between.
        let (former, unsettled) = self.hub.enter(outbox, room.id, None);
        self.relay.follow(self.node, To::Room(room.id));
        let read = async {
            self.look_again_at(client, room).await?;
            if dialect == Dialect::V1 {
                return self.own_in(client, room, after).await;
            }
            let (rest, version) = self.rest(dialect, room.id, after).await?;
            Ok((None, rest, version))
        };
        match read.await {
            Ok((own, rest, version)) => {
                let (groups, own) = match own {
                    Some((groups, own)) => (Some(groups), own),
                    None => (None, Vec::new()),
                };
                let settled = unsettled.iter();
                let settled = settled.map(|message| self.views.changed_message(message));
                if let Some(heading) = &heading {
                    outbox.is_new(Region::Heading, heading);
                }
                let left_page = match former.map(|place| place.room) {
                    Some(RoomId::LOBBY) => Some(Selector::LOBBY),
                    Some(RoomId::SEARCH) => Some(Selector::SEARCH_PAGE),
                    _ => None,
                };
                let no_page = left_page.map(|page| Push::empty(page).encode());
                let groups = groups.filter(|groups| outbox.is_new(Region::Groups, groups));
                let frames = groups
                    .into_iter()
                    .chain(settled.map(|push| push.encode()))
                    .chain(no_page)
                    .chain(own)
                    .chain(heading)
                    .chain(rest)
                    .chain(welcome)
                    .chain(nobody_types);
                outbox.bring(room.id, version, frames);
                self.hub.begins(version);
                self.people.shows_typing(room.id);
                let returns = former.is_none()
                    && client.client_ref.visit > 0
                    && self.started.elapsed() < QUIET_AFTER_START;
                let from = former.map(|place| place.room);
                self.entered(&client.user, Some(room), from, moved, returns);
                Ok(())
            }
            Err(failure) => {
                let has_ended = matches!(failure, Failure::Store(StoreError::Gone));
                if let Some(former) = former.filter(|_| !has_ended) {
                    self.hub.enter(outbox, former.room, former.seen);
                    let back = async {
                        match former.room {
                            RoomId::LOBBY | RoomId::SEARCH => {
                                self.store.leave_room(client.client_ref).await?;
                            }
                            room => drop(self.enter(client, Target::Room(room)).await?),
                        }
                        Ok::<_, Failure>(())
                    };
                    if let Err(failure) = back.await {
                        log_failure("bring a client back to its room", &failure);
                    }
                }
                Err(failure)
            }
        }
    }

    /// Shows the client another part of its room: the messages around a place, or the newest.
    pub(super) async fn show_part(
        &self,
        client: &Client,
        room: RoomId,
        place: Option<Place>,
    ) -> Result<Arc<Page>> {
        let outbox = &client.outbox;
        // As on entering: nothing is missed while the page is read.
        let (former, unsettled) = self.hub.enter(outbox, room, None);
        let read = async {
            Ok::<_, Failure>(match place {
                Some(place) => {
                    let (Place::At(at) | Place::After(at)) = place;
                    let page = self.store.around(room, at).await?;
                    let list = self.views.messages_list(&page, place)?.encode();
                    (Arc::new(page), list)
                }
                None => {
                    let page = self.store.newest(room).await?;
                    let list = self.views.newest(&page)?;
                    (page, list)
                }
            })
        };
        match read.await {
            Ok((page, list)) => {
                let settled = unsettled.iter();
                let settled = settled.map(|message| self.views.changed_message(message).encode());
                outbox.bring(room, page.version, settled.chain([list]));
                Ok(page)
            }
            Err(failure) => {
                self.hub
                    .enter(outbox, room, former.and_then(|former| former.seen));
                Err(failure)
            }
        }
    }

    /// What a tab shows in a room that is its user's own: their groups; their reactions, what they can do with the room and
    /// how far they have read it; and the changes since `after`, or the newest page.
    async fn own_in(
        &self,
        client: &Client,
        room: &Room,
        after: Option<Version>,
    ) -> Result<(Option<(Frame, Vec<Frame>)>, Vec<Frame>, Version)> {
        client.outbox.begin_list();
        let (user, place) = (client.user.id, (room.id, after));
        let own = self.store.own(
            client.client_ref,
            user,
            place,
            GROUPS_LISTED,
            REACTIONS_AT_ONCE,
        );
        let (own, caught_up) = own.await?;
        let groups = self.list_groups(client, Some(room), own.groups)?;
        let menu = self.menu(room, own.topic, own.muted)?;
        let read = self.views.my_read(room.id, own.read, false)?.encode();
        let own = vec![self.mine(&own.reactions)?, menu, read];
        let (rest, version) = self.rest_of(room.id, after, caught_up).await?;
        Ok((Some((groups, own)), rest, version))
    }

    /// A person's own reactions in a room.
    pub(super) async fn own_reactions(&self, user: UserId, room: RoomId) -> Result<Frame> {
        let (first, last) = (MessageId(0), MessageId(i64::MAX));
        let mine = self.reactions_among(user, room, first, last).await?;
        self.mine(&mine)
    }

    /// If there are very many reactions, only the newest are pushed, and the tab keeps the others that it knows.
    fn mine(&self, mine: &[(MessageId, Emoji)]) -> Result<Frame> {
        let push = self.views.my_reactions(mine)?;
        let push = match mine.len() < REACTIONS_AT_ONCE {
            true => push,
            false => push.swapped(Swap::Append),
        };
        Ok(push.encode())
    }

    pub(super) async fn reactions_among(
        &self,
        user: UserId,
        room: RoomId,
        first: MessageId,
        last: MessageId,
    ) -> Result<Vec<(MessageId, Emoji)>> {
        let reactions = self
            .store
            .reactions_of(user, room, first, last, REACTIONS_AT_ONCE);
        Ok(reactions.await?)
    }

    /// The welcome message of a room, on somebody's first visit. A page gets an empty one too, which
    /// replaces that of another room.
    fn welcoming(&self, dialect: Dialect, room: &Room, is_first: bool) -> Result<Option<Frame>> {
        let words = self.welcome.to(room).filter(|_| is_first);
        if dialect.has(&Selector::ROOM_WELCOME) {
            return Ok(Some(self.views.room_welcome(words.as_deref())?.encode()));
        }
        // Programs of the other dialect get only people's messages.
        let words = words.filter(|_| dialect == Dialect::Objects);
        Ok(words.and_then(|words| json::notice(dialect, &words, Tone::Done)))
    }

    /// The groups in the side pane of a person in this room, which is always listed.
    pub(super) async fn groups(
        &self,
        client: &Client,
        room: Option<&Room>,
    ) -> Result<Option<Frame>> {
        if !client.outbox.dialect.has(&Selector::GROUPS_LIST) {
            return Ok(None);
        }
        client.outbox.begin_list();
        let groups = self.store.groups(Some(client.user.id), GROUPS_LISTED);
        self.list_groups(client, room, groups.await?).map(Some)
    }

    fn list_groups(
        &self,
        client: &Client,
        room: Option<&Room>,
        mut groups: Vec<Listed>,
    ) -> Result<Frame> {
        if let Some(room) = room
            && matches!(room.kind, RoomKind::Group(_))
            && !groups.iter().any(|listed| listed.group.id == room.id)
        {
            groups.truncate(GROUPS_LISTED - 1);
            groups.push(Listed {
                group: room.clone(),
                joined: true,
                muted: false,
                unread: false,
                named: Vec::new(),
                here: Vec::new(),
                read: MessageId(0),
            });
        }
        let with_news = groups
            .iter()
            .filter(|listed| listed.joined && !listed.muted);
        let with_news: Arc<[RoomId]> = with_news.map(|listed| listed.group.id).collect();
        for room in with_news.iter() {
            self.relay.follow(self.node, To::Listing(*room));
        }
        client.outbox.list(with_news);
        Ok(self.views.groups_list(&groups)?.encode())
    }

    /// What a person can do with the room they are in.
    pub(super) async fn room_menu(&self, client: &Client, room: &Room) -> Result<Frame> {
        let user = client.user.id;
        let topic = self.store.topic(user, room.id).await?;
        self.menu(room, topic, self.store.is_muted(user, room.id).await?)
    }

    fn menu(
        &self,
        room: &Room,
        (topic, may_change): (Option<String>, bool),
        muted: bool,
    ) -> Result<Frame> {
        let topic = may_change.then(|| topic.unwrap_or_default());
        let menu = self.views.room_menu(room, muted, topic.as_deref())?;
        Ok(menu.encode())
    }

    /// A group was renamed, or its access changed.
    pub(super) async fn show_groups(&self, client: &Client) -> Result<()> {
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

    /// Brings a tab up to date: the outbox fell behind or the groups have changed, and everything that
    /// waited has been sent.
    pub async fn catch_up(&self, client: &Client) -> bool {
        // Messages come first; they never wait for the list of groups.
        if client.outbox.is_behind() && !self.bring_rest(client).await {
            return false;
        }
        if client.outbox.take_groups_changed()
            && let Err(failure) = self.show_groups(client).await
        {
            log_failure(
                "update a list of groups, which will be tried again",
                &failure,
            );
            client.outbox.outdate_groups();
            return false;
        }
        true
    }

    pub(super) async fn bring_rest(&self, client: &Client) -> bool {
        let Some(place) = client.outbox.place() else {
            return true;
        };
        let dialect = client.outbox.dialect;
        match self.rest(dialect, place.room, place.seen).await {
            Ok((rest, version)) => {
                // The catch-up may be a newest page that no longer contains the tab's own message.
                let unsettled = client.outbox.take_unsettled();
                let settled = unsettled.iter();
                let settled = settled.map(|message| self.views.changed_message(message));
                let frames = settled.map(|push| push.encode()).chain(rest);
                client.outbox.bring(place.room, version, frames);
                METRICS.caught_up(true);
                true
            }
            Err(failure) => {
                METRICS.caught_up(false);
                self.tell(client, failure);
                false
            }
        }
    }

    /// The page at an address, for a browser that has not connected yet. Writes nothing and claims no
    /// user.
    pub async fn first_page(&self, asked: &Asked<'_>) -> anyhow::Result<FirstPage> {
        let Asked { address, query, .. } = *asked;
        let id = |name| protocol::read_id(query, name);
        let (at, search) = (id("at"), protocol::read_search(address, query));
        let target = protocol::read_address(address);
        let wanted = Wanted {
            session: asked.session.map(SessionToken::hash),
            guest: asked.browser.map(|browser| browser.of_forms(None).hash()),
            target: target.clone(),
            lobby: address == LOBBY_PATH,
            at,
            before: id("before"),
            after: id("after"),
            groups: GROUPS_LISTED,
            people: people::LISTED,
            busiest: people::LISTED_IN_ROOM,
        };
        let shown = self.store.first_page(wanted).await?;
        let (room, reader) = (shown.room, shown.reader);
        let reader = reader.map(|(user, guest)| Reader { user, guest });
        let notice = match &target {
            Some(Target::Group(name)) if room.is_none() => Some(actions::no_such_group(name)),
            None if shown.lobby.is_none() && search.is_none() => {
                Some(Refusal::new("This address does not exist."))
            }
            _ => None,
        };
        let found = notice.is_none();
        let is_missing = |(_, page): &(Room, Arc<Page>)| at.is_some_and(|at| !page.has(at));
        let is_missing = room.as_ref().is_some_and(is_missing);
        let notice = notice.or(is_missing.then(actions::no_such_message));
        let addressee = match &target {
            Some(Target::Private(name)) => Some(name.as_str()),
            _ => None,
        };
        let to = target
            .as_ref()
            .filter(|_| room.is_some() || addressee.is_some());
        let to = to.and_then(protocol::address);
        let html = self.views.chat_page(&ChatPage {
            host: asked.host,
            scheme: asked.scheme,
            groups: &shown.groups,
            room: room.as_ref().map(|(room, page)| (room, &**page)),
            newest: shown.newest,
            at,
            topic: shown.topic.as_deref(),
            lobby: shown.lobby.as_deref(),
            limit: self.limits.message_characters,
            file_limit: self.file_limit(),
            search: search.as_deref(),
            notice: notice.as_ref(),
            reader: reader.as_ref(),
            people: &shown.people,
            to: to.as_deref(),
            addressee,
            refused: asked.refused,
        })?;
        Ok(FirstPage {
            html,
            reader,
            found,
        })
    }
}
