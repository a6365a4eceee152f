//! Renders who is online, who is in a room, and who is typing.

use std::collections::HashSet;
use std::time::Instant;

use super::{LISTED, LISTED_IN_ROOM, LISTED_TO_PROGRAMS, MINE_EVERY, ROOM_EVERY};
use crate::chat::{Chat, Failure, Result};
use crate::hub::Region;
use crate::json;
use crate::model::{Room, RoomId, RoomKind, User, UserId};
use crate::protocol::{Dialect, Selector};
use crate::relay::News;

/// How many people's lists are read together, so that nobody waits long for a list or a reader.
const LISTS_TOGETHER: usize = 50;

impl Chat {
    pub(super) async fn render_moved(&self) -> Result<()> {
        let moved = std::mem::take(&mut self.people.due().moved);
        let (partners, done) = self.render_own(moved.into_iter().collect()).await;
        for partner in partners {
            self.spread(News::Mine(partner));
        }
        done
    }

    pub(super) async fn render_mine(&self) -> Result<()> {
        let now = Instant::now();
        let mine = {
            let mut guard = self.people.due();
            let due = &mut *guard;
            due.rendered.retain(|_, at| now < *at + MINE_EVERY);
            // The first change is rendered at once. Changes that follow soon are rendered together.
            let seen = due.seeing.extract_if(|_, (_, at)| *at <= now);
            due.mine.extend(seen.map(|(user, _)| user));
            for user in std::mem::take(&mut due.mine) {
                // What is about to be seen would count as unread.
                if due.seeing.contains_key(&user) {
                    continue;
                }
                let at = due.rendered.get(&user).map_or(now, |at| *at + MINE_EVERY);
                due.later.insert(user, at);
            }
            let in_time = due.later.extract_if(|_, at| *at <= now);
            let mut mine: HashSet<_> = in_time.map(|(user, _)| user).collect();
            mine.retain(|user| !self.hub.of_user(*user).is_empty());
            due.rendered.extend(mine.iter().map(|user| (*user, now)));
            mine
        };
        self.render_own(mine.into_iter().collect()).await.1
    }

    /// Renders people's own lists for their tabs on this node. Returns who is on them. After a failure, lists are
    /// rendered again later.
    async fn render_own(&self, users: Vec<UserId>) -> (HashSet<UserId>, Result<()>) {
        let (mut listed, mut done) = (HashSet::new(), Ok(()));
        for part in users.chunks(LISTS_TOGETHER) {
            let rendering = async {
                for (user, people) in self.store.people_of_each(part.to_vec(), LISTED).await? {
                    listed.extend(people.iter().map(|person| person.user.id));
                    let mut tabs = self.hub.of_user(user);
                    tabs.retain(|tab| tab.dialect.has(&Selector::USERS_MINE));
                    if !tabs.is_empty() {
                        let frame = self.views.users_mine(&people)?.encode();
                        tabs.iter()
                            .for_each(|tab| tab.show_new(Region::Mine, &frame));
                    }
                }
                Ok(())
            };
            if let Err(failure) = rendering.await {
                let (due, at) = (&mut *self.people.due(), Instant::now() + MINE_EVERY);
                due.later.extend(part.iter().map(|user| (*user, at)));
                done = Err(failure);
            }
        }
        (listed, done)
    }

    /// Renders the people in rooms that somebody has joined or left, and who that was.
    pub(super) async fn render_rooms(&self) -> Result<()> {
        let now = Instant::now();
        let rooms: Vec<RoomId> = {
            let mut guard = self.people.due();
            let due = &mut *guard;
            due.rooms.extend(due.moves.pass(now));
            due.rooms_rendered.retain(|_, at| now < *at + ROOM_EVERY);
            let rendered = &due.rooms_rendered;
            let rooms = due.rooms.extract_if(|room| !rendered.contains_key(room));
            let rooms: Vec<_> = rooms.collect();
            due.rooms_rendered
                .extend(rooms.iter().map(|room| (*room, now)));
            rooms
        };
        let mut done = Ok(());
        for room in rooms {
            if let Err(failure) = self.render_room(room).await {
                self.people.due().rooms.insert(room);
                done = Err(failure);
            }
        }
        done
    }

    pub(super) async fn render_room(&self, room: RoomId) -> Result<()> {
        if self.hub.shown(room).is_none() {
            // No tab here shows the room, and nobody will need these lines later.
            self.people.due().moves.take_news(room);
            return Ok(());
        }
        let show = |dialect, region, frame| self.hub.show_in(room, dialect, region, &frame, &[]);
        if room == RoomId::LOBBY {
            let groups = self.store.busiest_groups(LISTED_IN_ROOM).await?;
            let list = self.views.lobby_rooms(&groups)?;
            show(Dialect::V1, Region::LobbyRooms, list.encode());
            return Ok(());
        }
        let pair = self.store.pair(room).await?;
        if let Some([low, high]) = &pair {
            for dialect in [Dialect::V1, Dialect::Plain] {
                let heading = |me: &User, with: &User| {
                    let kind = RoomKind::Private { with: with.clone() };
                    let heading = self.views.group_name(dialect, &Room { id: room, kind })?;
                    Ok::<_, Failure>((me.id, heading.encode()))
                };
                let headings = [heading(low, high)?, heading(high, low)?];
                self.hub.show_heading(room, dialect, &headings);
            }
        }
        let (lines, news) = match pair {
            // Private rooms announce nobody.
            Some(_) => Default::default(),
            None => {
                let moves = &mut self.people.due().moves;
                (moves.lines(room), moves.take_news(room))
            }
        };
        let programs = self.hub.has_dialect(room, Dialect::Objects);
        let listed = match programs {
            true => LISTED_TO_PROGRAMS,
            false => LISTED_IN_ROOM,
        };
        let (mut people, count) = self.store.people_in(room, listed).await?;
        if programs {
            let list = json::user_list(&people, count);
            show(Dialect::Objects, Region::RoomPeople, list);
            for (names, joined) in [(&news.joined, true), (&news.left, false)] {
                if !names.is_empty() {
                    let moved = json::moved(&names.words(), joined);
                    self.hub.tell(room, Dialect::Objects, &moved);
                }
            }
        }
        people.truncate(LISTED_IN_ROOM);
        // The topic is the same for everybody, whoever asks.
        let (topic, _) = self.store.topic(UserId::NOBODY, room).await?;
        let topic = self.views.room_topic(topic.as_deref())?;
        show(Dialect::V1, Region::RoomTopic, topic.encode());
        let [number, list] = self.views.room_people(room, &people, count)?;
        let (joined, left) = (lines.joined.words(), lines.left.words());
        let moves = self.views.room_moves(&joined, &left)?;
        show(Dialect::V1, Region::RoomCount, number.encode());
        show(Dialect::V1, Region::RoomPeople, list.encode());
        show(Dialect::V1, Region::RoomMoves, moves.encode());
        Ok(())
    }

    /// Renders who is typing: the same for everybody in the room, except the people typing.
    pub(super) fn render_typing(&self) -> Result<()> {
        let rooms = {
            let mut guard = self.people.due();
            let due = &mut *guard;
            due.typing_changed.extend(due.typing.pass(Instant::now()));
            std::mem::take(&mut due.typing_changed)
        };
        for room in rooms {
            let typists = self.people.due().typing.of(room);
            let others = |me: Option<UserId>| {
                let others: Vec<_> = typists.iter().filter(|one| Some(one.id) != me).collect();
                self.views.room_typing(&others).map(|push| push.encode())
            };
            let mut own = Vec::new();
            for typist in &typists {
                own.push((typist.id, others(Some(typist.id))?));
            }
            let (region, frame) = (Region::RoomTyping, others(None)?);
            self.hub.show_in(room, Dialect::V1, region, &frame, &own);
        }
        Ok(())
    }

    /// Renders the people online, for everyone.
    pub(super) async fn render_online(&self) -> Result<()> {
        self.people.due().online_changed = false;
        let people = self.store.people_online(LISTED).await;
        if people.is_err() {
            self.people.due().online_changed = true;
        }
        let (people, here) = people?;
        let here = usize::try_from(here).ok();
        let here = here.filter(|here| *here > people.len());
        let list = self.views.users_online(&people, here)?.encode();
        self.hub.show_online(people.len(), &list);
        Ok(())
    }
}
