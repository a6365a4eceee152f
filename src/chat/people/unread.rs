//! What people have not read: up to where each has read their rooms, and which groups have news.
//!
//! A group tells the tabs that list it once that something was written there, at most once a second. Such
//! news is the same for everybody; a tab knows itself what it has read.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::chat::{Chat, Client, Result, log_failure};
use crate::hub::Region;
use crate::model::{ClientId, ClientRef, MessageId, RoomId, UserId};
use crate::protocol::{Frame, Selector};
use crate::relay::News;
use crate::store::Change;

/// The shortest time between two pushes of news to one tab.
const NEWS_EVERY: Duration = Duration::from_secs(1);
/// In how many rooms one person can read something between two ticks.
const ROOMS_READ: usize = 8;
/// How many mentions of everybody one piece of news lists.
const HERE: usize = 20;
/// How many read marks are written in one transaction at most.
const READS_AT_ONCE: usize = 100;

/// The last message of a room that somebody has read, and the client that reported it.
type Read = (ClientRef, RoomId, MessageId);

/// The same, with the person.
type Row = (ClientRef, UserId, RoomId, MessageId);

/// What is still to be written and shown.
#[derive(Default)]
pub(super) struct Unread {
    /// What people have read, in at most [`ROOMS_READ`] rooms each.
    reads: HashMap<UserId, Vec<Read>>,
    posted: HashMap<RoomId, Posted>,
    shown: Option<Instant>,
}

/// The news of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Posted {
    /// The newest message, and its author's user name.
    newest: (MessageId, String),
    /// The messages that mention everybody, with their authors; the first [`HERE`] of them.
    here: Vec<(MessageId, String)>,
    /// Those that mentioned everybody and no longer do; the first [`HERE`] of them.
    gone: Vec<MessageId>,
    /// Whether it is news of this node, so that the others have to be told.
    ours: bool,
}

impl Unread {
    fn read(&mut self, client: ClientRef, user: UserId, room: RoomId, message: MessageId) {
        let reads = self.reads.entry(user).or_default();
        let full = reads.len() == ROOMS_READ;
        match reads.iter_mut().find(|(_, other, _)| *other == room) {
            Some((by, _, read)) => (*by, *read) = (client, message.max(*read)),
            // `Read` has no limit on its pace. So the number of rooms is limited: it fills neither the
            // memory nor the writer's time.
            None if full => {}
            None => reads.push((client, room, message)),
        }
    }

    fn rows_of(&self, user: UserId) -> impl Iterator<Item = Row> {
        let reads = self.reads.get(&user).into_iter().flatten();
        reads.map(move |(client, room, message)| (*client, user, *room, *message))
    }

    /// These are written. What was read since is kept.
    fn written(&mut self, rows: &[Row]) {
        for (client, user, room, message) in rows {
            if let Some(reads) = self.reads.get_mut(user) {
                reads.retain(|read| *read != (*client, *room, *message));
                if reads.is_empty() {
                    self.reads.remove(user);
                }
            }
        }
    }

    fn posted(
        &mut self,
        room: RoomId,
        newest: (MessageId, String),
        here: &[(MessageId, String)],
        gone: &[MessageId],
        ours: bool,
    ) {
        let posted = self.posted.entry(room).or_default();
        posted.ours |= ours;
        posted.here.retain(|(message, _)| !gone.contains(message));
        let again = |message: &MessageId| here.iter().any(|(one, _)| one == message);
        posted.gone.retain(|message| !again(message));
        posted.here.extend_from_slice(here);
        posted.here.truncate(HERE);
        posted.gone.extend_from_slice(gone);
        posted.gone.truncate(HERE);
        if posted.newest.0 < newest.0 {
            posted.newest = newest;
        }
    }
}

impl Chat {
    /// Somebody has read a room up to a message.
    pub(in crate::chat) fn note_read(&self, client: &Client, room: RoomId, message: MessageId) {
        // The tab has removed the mark by itself.
        client.outbox.forget(Region::Groups);
        let mut due = self.people.due();
        let user = client.user.id;
        due.unread.read(client.client_ref, user, room, message);
    }

    /// A message was posted in a group on this node, or mentions others than before.
    pub(in crate::chat) fn note_news(&self, change: &Change) {
        let (message, mentions) = (&change.message, &change.mentions);
        let room = message.room;
        if change.between.is_some() {
            return;
        }
        for user in mentions.people.iter().chain(&mentions.no_longer) {
            self.spread(News::Mentioned { user: *user, room });
        }
        let by_author = (message.id, message.author.user_name.clone());
        if message.made == change.version.number || mentions.here {
            let here = mentions.here.then(|| by_author.clone());
            self.people.note(|due| {
                due.unread
                    .posted(room, by_author, here.as_slice(), &[], true);
            });
        } else if mentions.no_longer_here {
            self.people.note(|due| {
                let nothing = Default::default();
                due.unread.posted(room, nothing, &[], &[message.id], true);
            });
        }
    }

    /// The same on another node.
    pub(super) fn take_posted(
        &self,
        room: RoomId,
        newest: (MessageId, String),
        here: &[(MessageId, String)],
        gone: &[MessageId],
    ) {
        self.people
            .note(|due| due.unread.posted(room, newest, here, gone, false));
    }

    /// A person's list of groups counts a mention more or less. A tab that shows the group sees it.
    pub(super) fn take_mention(&self, user: UserId, room: RoomId) {
        let mut tabs = self.hub.of_user(user);
        tabs.retain(|tab| tab.place().is_none_or(|place| place.room != room));
        tabs.iter().for_each(|tab| tab.outdate_groups());
    }

    /// Shows the news of groups to the tabs that list them.
    pub(super) fn render_news(&self) -> Result<()> {
        let posted = {
            let now = Instant::now();
            let unread = &mut self.people.due().unread;
            let early = unread.shown.is_some_and(|at| now < at + NEWS_EVERY);
            if early || unread.posted.is_empty() {
                return Ok(());
            }
            unread.shown = Some(now);
            std::mem::take(&mut unread.posted)
        };
        let mut frames = HashMap::new();
        for (room, posted) in posted {
            let Posted {
                newest,
                here,
                gone,
                ours,
            } = posted;
            let news = self.views.group_news(room, &newest, &here, &gone)?;
            frames.insert(room, news.encode());
            if ours {
                let (message, author) = newest;
                self.tell_others(News::Posted {
                    room,
                    message,
                    author,
                    here,
                    gone,
                });
            }
        }
        self.hub.show_news(&frames);
        Ok(())
    }

    /// Writes what this person has read, before lists are rendered that depend on it.
    pub(in crate::chat) async fn write_reads_of(&self, user: UserId) -> Result<()> {
        let rows = self.people.due().unread.rows_of(user).collect();
        self.write(rows).await
    }

    /// Writes what people have read, in parts, so that no message waits for all of them.
    pub(super) async fn write_reads(&self) -> Result<()> {
        let rows: Vec<Row> = {
            let unread = &self.people.due().unread;
            let users = unread.reads.keys();
            users.flat_map(|user| unread.rows_of(*user)).collect()
        };
        for part in rows.chunks(READS_AT_ONCE) {
            self.write(part.to_vec()).await?;
        }
        Ok(())
    }

    /// Until they are written, the rows are kept, so that others can wait for them too.
    async fn write(&self, rows: Vec<Row>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let counted = self.store.mark_read(rows.clone()).await?;
        self.people.due().unread.written(&rows);
        for user in counted {
            self.spread(News::Mine(user));
        }
        let mut by: HashMap<UserId, HashSet<ClientId>> = HashMap::new();
        for (client, user, ..) in rows {
            by.entry(user).or_default().insert(client.client);
        }
        for (user, clients) in by {
            let tabs = self.hub.of_user(user);
            // If only one tab reported something, it has removed its marks by itself.
            let is_right = |client| clients.len() == 1 && clients.contains(client);
            let others = tabs.iter().filter(|tab| !is_right(&tab.client.client));
            others.for_each(|tab| tab.outdate_groups());
            // Whoever has gone since may have come back to another node.
            if tabs.is_empty() || tabs.iter().any(|tab| tab.is_kept()) {
                self.tell_others(News::Groups(user));
            }
        }
        Ok(())
    }

    /// Somebody's list of groups is out of date.
    pub(super) fn take_groups(&self, user: UserId) {
        for tab in self.hub.of_user(user) {
            tab.outdate_groups();
        }
    }

    /// Marks a room as unread from that message on, in all tabs of the person.
    pub(in crate::chat) async fn mark_unread(
        &self,
        client: &Client,
        room: RoomId,
        from: MessageId,
    ) -> Result<()> {
        // What was read before must not be written after this.
        self.write_reads_of(client.user.id).await?;
        let by = self.actor(client);
        self.store.mark_unread(by, room, from).await?;
        let (user, read) = (client.user.id, MessageId(from.0 - 1));
        self.spread(News::MarkedUnread { user, room, read });
        self.spread(News::Mine(user));
        self.spread(News::Groups(user));
        Ok(())
    }

    pub(super) fn take_marked_unread(&self, user: UserId, room: RoomId, read: MessageId) {
        let frame = match self.my_read(room, read, true) {
            Ok(frame) => frame,
            Err(failure) => return log_failure("render a fragment", &failure),
        };
        for tab in self.hub.of_user(user) {
            let is_there = tab.place().is_some_and(|place| place.room == room);
            if is_there && tab.dialect.has(&Selector::MY_READ) {
                tab.push([frame.clone()]);
            }
        }
    }

    /// Up to where a person has read the room that they enter.
    pub(in crate::chat) fn my_read(
        &self,
        room: RoomId,
        read: MessageId,
        marked: bool,
    ) -> Result<Frame> {
        Ok(self.views.my_read(room, read, marked)?.encode())
    }

    /// Marks everything as read.
    pub(in crate::chat) async fn read_all(&self, client: &Client) -> Result<()> {
        self.write_reads_of(client.user.id).await?;
        let (by, user) = (client.client_ref, client.user.id);
        let unread = self.store.unread_rooms(user).await?;
        let reads: Vec<_> = unread
            .into_iter()
            .map(|(room, newest)| (by, user, room, newest))
            .collect();
        for part in reads.chunks(READS_AT_ONCE) {
            self.store.mark_read(part.to_vec()).await?;
        }
        self.spread(News::Mine(user));
        self.spread(News::Groups(user));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClientId;

    #[test]
    fn only_a_few_read_rooms_are_kept_and_their_marks_never_go_back() {
        let mut unread = Unread::default();
        let by = |client| ClientRef {
            client: ClientId(client),
            visit: 0,
        };
        for (room, message) in [(1, 5), (1, 9), (1, 7)] {
            unread.read(by(1), UserId(1), RoomId(room), MessageId(message));
        }
        for room in 2..10_000 {
            unread.read(by(1), UserId(1), RoomId(room), MessageId(1));
        }
        unread.read(by(2), UserId(1), RoomId(1), MessageId(11));
        unread.read(by(3), UserId(2), RoomId(1), MessageId(3));
        assert_eq!(unread.reads[&UserId(1)].len(), ROOMS_READ);
        let newest = (by(2), RoomId(1), MessageId(11));
        assert_eq!(unread.reads[&UserId(1)][0], newest);
        let other = (by(3), RoomId(1), MessageId(3));
        assert_eq!(unread.reads[&UserId(2)], [other]);
        // What was read while these were being written stays.
        let rows: Vec<_> = [UserId(1), UserId(2)]
            .into_iter()
            .flat_map(|user| unread.rows_of(user))
            .collect();
        unread.read(by(3), UserId(2), RoomId(1), MessageId(4));
        unread.written(&rows);
        assert_eq!(unread.reads.len(), 1);
        let later = (by(3), RoomId(1), MessageId(4));
        assert_eq!(unread.reads[&UserId(2)], [later]);
    }

    #[test]
    fn of_several_messages_in_a_group_the_newest_is_news() {
        let mut unread = Unread::default();
        let by = |message, author: &str| (MessageId(message), author.to_owned());
        for (message, author, ours) in [(5, "anna", false), (9, "bob", true), (7, "carl", false)] {
            let here = [by(message, author)];
            unread.posted(
                RoomId(1),
                by(message, author),
                &here[usize::from(ours)..],
                &[],
                ours,
            );
        }
        let expected = Posted {
            newest: by(9, "bob"),
            here: vec![by(5, "anna"), by(7, "carl")],
            gone: Vec::new(),
            ours: true,
        };
        assert_eq!(unread.posted[&RoomId(1)], expected);
    }

    #[test]
    fn of_a_mention_of_everybody_that_comes_and_goes_the_last_state_is_news() {
        let mut unread = Unread::default();
        let by = |message| (MessageId(message), "anna".to_owned());
        let nothing = || (MessageId(0), String::new());
        let mut now = |newest, here: &[_], gone: &[_]| {
            unread.posted(RoomId(1), newest, here, gone, true);
            let posted = &unread.posted[&RoomId(1)];
            (posted.here.clone(), posted.gone.clone())
        };
        now(by(5), &[by(5)], &[]);
        let taken_back = now(nothing(), &[], &[MessageId(5)]);
        assert_eq!(taken_back, (vec![], vec![MessageId(5)]));
        let again = now(by(5), &[by(5)], &[]);
        assert_eq!(again, (vec![by(5)], vec![]));
    }
}
