//! Where a tab is: it enters a room or the lobby, is shown it, and is brought up to date.

use std::time::Duration;

use super::{Chat, Client, Failure, Result, actions, most_typed, people};
use crate::hub::Region;
use crate::json;
use crate::model::{
    Emoji, History, MessageId, Page, Room, RoomId, RoomKind, SessionToken, Target, UserId, Version,
};
use crate::protocol::{self, Dialect, Frame, LOBBY_PATH, Refusal, Selector, Swap};
use crate::relay::To;
use crate::store::{Entered, Moved, RESTRICTED};
use crate::views::ChatPage;

/// For so long after a start those who come back were here before, and nobody is told.
const ALL_BACK: Duration = Duration::from_secs(60);

/// How many of my reactions a tab is told of at once.
const REACTIONS_AT_ONCE: usize = 500;

/// How many groups the aside lists at most.
const GROUPS_LISTED: usize = 50;

/// A page for somebody who has not connected yet.
pub struct FirstPage {
    /// The HTML.
    pub html: String,
    /// Whether the address leads to a room.
    pub found: bool,
}

impl Chat {
    /// The client enters a room, if it may.
    pub(super) async fn enter(&self, client: &Client, target: Target) -> Result<(Entered, Moved)> {
        let (returning, user) = (client.returning, client.user.id);
        Ok(self.store.enter(returning, user, target).await?)
    }

    /// The client is in no room and sees what there are.
    pub(super) async fn show_lobby(&self, client: &Client) -> Result<()> {
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
    pub(super) async fn show_room(
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
    pub(super) async fn own_reactions(&self, user: UserId, room: RoomId) -> Result<Frame> {
        let (first, last) = (MessageId(0), MessageId(i64::MAX));
        let mine = self.reactions_among(user, room, first, last).await?;
        let push = self.views.my_reactions(&mine)?;
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
        let limit = REACTIONS_AT_ONCE;
        Ok(self
            .store
            .reactions_of(user, room, first, last, limit)
            .await?)
    }

    /// What whoever enters a room is told there; a page has to forget what it was told elsewhere.
    pub(super) fn welcoming(&self, dialect: Dialect, room: &Room) -> Result<Option<Frame>> {
        let words = self.welcome.to(room);
        if dialect.has(&Selector::ROOM_WELCOME) {
            return Ok(Some(self.views.room_welcome(words.as_deref())?.encode()));
        }
        // The other programs are told only what people say.
        let words = words.filter(|_| dialect == Dialect::Objects);
        Ok(words.and_then(|words| json::notice(dialect, &words, true)))
    }

    /// The groups of the aside for somebody who is in that room, which is listed in any case.
    pub(super) async fn groups(
        &self,
        client: &Client,
        room: Option<&Room>,
    ) -> Result<Option<Frame>> {
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

    pub(super) async fn bring_rest(&self, client: &Client) -> bool {
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
}
