//! Search: finding messages by their words, and the index of these words.
//!
//! Posting, editing and deleting write nothing into the index. What has changed in a room is indexed soon
//! afterwards, in parts. Until then the few newest changes of each room are compared one by one, in the
//! same snapshot. So a search finds a message from its commit on, and never by a text that it no longer
//! has: whatever the index finds is compared with the stored text.

use std::collections::{HashMap, HashSet};

use futures_util::future::try_join_all;

use super::messages::{MESSAGE, WHOLE_MESSAGE};
use super::rooms::{VISIBLE, group, rooms};
use super::tx::{Hold, Locks, Sql, Tx, from_row, sought};
use super::{Result, Store, StoreError};
use crate::model::{DisplayName, Message, MessageId, Millis, RoomId, UserId};
use crate::search::{Found, In, Indexed, Query, Sought, Unknown, marks};

/// How many searches run at a time. Other reads keep the remaining readers.
pub(super) const SEARCHES: usize = 2;
/// How many messages are indexed in one transaction. The writer's queue waits for it.
const INDEXED_AT_ONCE: usize = 200;
/// From this many bytes of text on, the other messages are for the next transaction.
const INDEXED_BYTES: usize = 32 * 1024;
/// How many of the newest changes of a room are compared one by one if they are not indexed yet.
const COMPARED: u64 = 1_000;
/// How often the index is asked for more in one search, if what it finds has changed or is too new or old.
const ROUNDS: usize = 20;
/// How many messages of all rooms a search looks at, one number after the other, before it looks for the marks of
/// somebody's rooms if these are many for the index. What is then sought is rare there.
const OF_ALL_ROOMS: [usize; 3] = [100, 1_000, 4_000];
/// The ids of messages follow their times, but the clocks of nodes and transactions differ a little.
const DISORDER: std::time::Duration = std::time::Duration::from_secs(60);

/// A part of a room to be indexed, as it was read.
pub struct Unindexed {
    room: RoomId,
    /// The room's mark when it was read, and its new one.
    mark: Mark,
    next: Mark,
    /// The entries; without one, a message is no longer found.
    entries: Vec<(MessageId, Option<Indexed>)>,
}

/// Up to which changes a room is indexed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    since: u64,
    version: u64,
}

impl Store {
    /// The newest messages that match, before one if it is given: at most `limit`, from the groups in the
    /// person's list and their private rooms.
    pub async fn search(
        &self,
        me: UserId,
        query: Query,
        before: Option<MessageId>,
        limit: usize,
    ) -> Result<Found> {
        let turn = self.searches.acquire().await;
        let _turn = turn.map_err(|_| StoreError::Closed)?;
        let before = before.unwrap_or(MessageId(i64::MAX));
        self.read("search", async move |tx| {
            search(tx, me, &query, before, limit).await
        })
        .await
    }

    /// The rooms with changes that are not indexed, after a start. Rooms with many of them, which a migration or
    /// a move has brought, are noted: from now on their new messages are indexed, and the others with
    /// [`Self::unindexed_before`].
    pub async fn begin_indexing(&self) -> Result<Vec<RoomId>> {
        self.write("begin_indexing", Locks::none(), async |tx| {
            let long = "insert into searchable (room_id, since, version)
                select id, version, version from rooms r where version > $1
                and not exists (select 1 from searchable s where s.room_id = r.id)
                on conflict do nothing";
            tx.run(long, &[&COMPARED]).await?;
            let rooms = "select r.id from rooms r left join searchable s on s.room_id = r.id
                where r.version > coalesce(s.version, 0)";
            tx.all(rooms, &[]).await
        })
        .await
    }

    /// The next messages of a room to be indexed, if there are any.
    pub async fn unindexed(&self, room: RoomId) -> Result<Option<Unindexed>> {
        self.read("unindexed", async move |tx| {
            let version = "select version from rooms where id = $1";
            let Some(reached): Option<u64> = tx.one(version, &[&room]).await? else {
                return Ok(None);
            };
            let mark = mark(tx, room).await?;
            if mark.version >= reached {
                return Ok(None);
            }
            let next = format!(
                "select {WHOLE_MESSAGE} where m.room_id = $1 and m.worded > $2
                 order by m.worded limit $3"
            );
            let values = [&room as _, &mark.version as _, &INDEXED_AT_ONCE as _];
            let mut messages: Vec<Message> = tx.all(&next, &values).await?;
            let is_cut = cut(&mut messages);
            let version = match messages.last() {
                Some(last) if is_cut => last.worded,
                last => last.map_or(reached, |last| last.worded.max(reached)),
            };
            let next = Mark { version, ..mark };
            unindexed(tx, room, mark, next, messages).await.map(Some)
        })
        .await
    }

    /// The next messages to be indexed among those from before the index, newest first, if there are any.
    pub async fn unindexed_before(&self) -> Result<Option<Unindexed>> {
        self.read("unindexed_before", async move |tx| {
            let room = "select room_id from searchable where since > 0 order by room_id limit 1";
            let Some(room) = tx.one(room, &[]).await? else {
                return Ok(None);
            };
            let mark = mark(tx, room).await?;
            let before = format!(
                "select {WHOLE_MESSAGE} where m.room_id = $1 and m.worded <= $2
                 order by m.worded desc limit $3"
            );
            let values = [&room as _, &mark.since as _, &INDEXED_AT_ONCE as _];
            let mut messages: Vec<Message> = tx.all(&before, &values).await?;
            let is_cut = cut(&mut messages);
            let since = match messages.last() {
                Some(last) if is_cut => last.worded - 1,
                _ => 0,
            };
            // SQLite's index gets ids in ascending order.
            messages.sort_by_key(|message| message.id);
            let next = Mark { since, ..mark };
            unindexed(tx, room, mark, next, messages).await.map(Some)
        })
        .await
    }

    /// Adds to the index what was read, unless somebody else has done it meanwhile.
    pub async fn index(&self, read: Unindexed) -> Result<()> {
        self.write("index", Locks::none(), async move |tx| {
            let Mark { since, version } = Mark::default();
            let first = "insert into searchable (room_id, since, version) values ($1, $2, $3)
                on conflict do nothing";
            tx.run(first, &[&read.room, &since, &version]).await?;
            let mark = tx.hold(MARK, Hold::Change);
            if tx.the::<Mark>(&mark, &[&read.room]).await? != read.mark {
                return Ok(());
            }
            let entries = read.entries.iter();
            let entries = entries.map(|(id, entry)| tx.index(*id, entry.as_ref()));
            try_join_all(entries).await?;
            let done = "update searchable set since = $1, version = $2 where room_id = $3";
            let values = [
                &read.next.since as _,
                &read.next.version as _,
                &read.room as _,
            ];
            tx.run(done, &values).await
        })
        .await
    }
}

/// Keeps as many messages as are indexed at once. Returns whether there may be others.
fn cut(messages: &mut Vec<Message>) -> bool {
    let mut bytes = 0;
    let fits = messages.iter().take_while(|message| {
        let fits = bytes < INDEXED_BYTES;
        bytes += message.text.len();
        fits
    });
    let (fits, all) = (fits.count(), messages.len());
    messages.truncate(fits);
    fits < all || all == INDEXED_AT_ONCE
}

from_row! {
    Mark { since, version }
}

const MARK: &str = "select since, version from searchable where room_id = $1";

async fn mark(tx: &Tx<'_>, room: RoomId) -> Sql<Mark> {
    Ok(tx.one(MARK, &[&room]).await?.unwrap_or_default())
}

async fn unindexed(
    tx: &Tx<'_>,
    room: RoomId,
    mark: Mark,
    next: Mark,
    messages: Vec<Message>,
) -> Sql<Unindexed> {
    let pair = "select user_low, user_high from rooms where id = $1 and kind = 'private'";
    let pair: Option<(UserId, UserId)> = tx.one(pair, &[&room]).await?;
    let pair = pair.map(|(low, high)| [low, high].map(marks::private));
    let entry = |message: &Message| {
        let mut of = vec![marks::room(room), marks::author(message.author.id)];
        of.extend(pair.iter().flatten().cloned());
        of.extend((!message.files.is_empty()).then(|| marks::FILE.to_owned()));
        (!message.deleted).then(|| Indexed::of(&message.text, of))
    };
    let entries = messages.iter().map(|message| (message.id, entry(message)));
    Ok(Unindexed {
        room,
        mark,
        next,
        entries: entries.collect(),
    })
}

/// What a query means for a person.
struct Scope {
    /// The groups and, if they are not meant by [`Sought`] as a whole, the private rooms.
    rooms: Vec<RoomId>,
    /// Whether all private rooms belong to it.
    private: bool,
    authors: Option<Vec<UserId>>,
}

async fn search(
    tx: &Tx<'_>,
    me: UserId,
    query: &Query,
    before: MessageId,
    limit: usize,
) -> Sql<Found> {
    let mut found = Found::default();
    if query.is_empty() {
        return Ok(found);
    }
    let scope = match scope(tx, me, query).await? {
        Ok(scope) => scope,
        Err(unknown) => {
            found.unknown = Some(unknown);
            return Ok(found);
        }
    };
    let fits = |message: &Message| {
        let authors = scope.authors.as_ref();
        !message.deleted
            && authors.is_none_or(|authors| authors.contains(&message.author.id))
            && query.matches(message)
    };
    let mut messages = not_indexed(tx, me, &scope).await?;
    let compared: HashSet<_> = messages.iter().map(|message| message.id).collect();
    messages.retain(|message| message.id < before && fits(message));
    messages.sort_by_key(|message| std::cmp::Reverse(message.id));
    messages.truncate(limit + 1);

    let of_all_rooms = scope.sought(query);
    let sought = scope.in_rooms(me, of_all_rooms.clone());
    let by_id = format!(
        "select {MESSAGE} where m.id {} and m.room_id in ({})",
        tx.among(1),
        scope.readable(tx, 2)
    );
    let of_scope: Vec<i64> = scope.rooms.iter().map(|room| room.0).collect();
    let is_broad = tx.is_broad(&sought);
    let mut wide = OF_ALL_ROOMS.iter().filter(|_| is_broad);
    let until = match query.until {
        Some(until) => first_since(tx, until.after(DISORDER)).await?.min(before),
        None => before,
    };
    let since = match query.since {
        Some(since) => first_since(tx, since.before(DISORDER)).await?,
        None => MessageId(0),
    };
    let (mut last, mut enough) = (until, false);
    for _ in 0..ROUNDS {
        let (sought, most) = match wide.next() {
            Some(most) => (&of_all_rooms, *most),
            None => (&sought, limit + 1),
        };
        let ids = tx.found(sought, since, last, most).await?;
        enough = ids.len() < most;
        last = ids.last().copied().unwrap_or(since);
        let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
        let indexed: Vec<Message> = tx.all(&by_id, &[&ids, &of_scope, &me]).await?;
        let indexed = indexed
            .into_iter()
            .filter(|message| !compared.contains(&message.id));
        messages.extend(indexed.filter(|message| fits(message)));
        enough |= messages.iter().filter(|message| message.id >= last).count() > limit;
        if enough {
            break;
        }
    }
    if !enough {
        // The rest is for the next page.
        messages.retain(|message| message.id >= last);
    }
    messages.sort_by_key(|message| std::cmp::Reverse(message.id));
    if messages.len() > limit {
        messages.truncate(limit);
        found.before = messages.last().map(|message| message.id);
    } else if !enough {
        found.before = Some(last);
    }
    let ids: HashSet<i64> = messages.iter().map(|message| message.room.0).collect();
    let there = rooms(tx, me, ids.into_iter().collect()).await?;
    let there: HashMap<_, _> = there.into_iter().map(|room| (room.id, room)).collect();
    let there = |message: Message| Some((there.get(&message.room)?.clone(), message));
    let there = messages.into_iter().filter_map(there);
    found.messages = there.map(|(room, message)| (message, room)).collect();
    let is_behind = "select exists (select 1 from searchable where since > 0)";
    found.incomplete = tx.the(is_behind, &[]).await?;
    Ok(found)
}

/// Where a person may look for what they ask, or why nothing can be found.
async fn scope(tx: &Tx<'_>, me: UserId, query: &Query) -> Sql<std::result::Result<Scope, Unknown>> {
    let mut rooms = groups_of(tx, me).await?;
    let mut private = true;
    match &query.place {
        Some(In::Group(name)) => {
            private = false;
            let group = group(tx, Some(me), name).await?;
            rooms.retain(|room| group.as_ref().is_some_and(|group| group.id == *room));
            if rooms.is_empty() {
                return Ok(Err(Unknown::Room(format!("#{name}"))));
            }
        }
        Some(In::Private(name)) => {
            private = false;
            let ids = people(tx, me, name).await?;
            let ids: Vec<i64> = ids.iter().map(|user| user.0).collect();
            let with = format!(
                "select room_id from users_subscribed where user_id = $1 and with_id {}",
                tx.among(2)
            );
            rooms = tx.all(&with, &[&me, &ids]).await?;
            if rooms.is_empty() {
                return Ok(Err(Unknown::Room(format!("@{name}"))));
            }
        }
        None => {}
    }
    let authors = match &query.from {
        Some(name) => {
            let authors = people(tx, me, name).await?;
            if authors.is_empty() {
                return Ok(Err(Unknown::Person(name.clone())));
            }
            Some(authors)
        }
        None => None,
    };
    Ok(Ok(Scope {
        rooms,
        private,
        authors,
    }))
}

impl Scope {
    /// What an index is asked for in all rooms, also in those that the person may not read.
    fn sought(&self, query: &Query) -> Sought {
        match &self.authors {
            Some(authors) => {
                let authors = authors.iter().copied().map(marks::author);
                query.sought().with(authors.collect())
            }
            None => query.sought(),
        }
    }

    fn in_rooms(&self, me: UserId, sought: Sought) -> Sought {
        let rooms = self.rooms.iter().copied().map(marks::room);
        let private = self.private.then(|| marks::private(me));
        sought.with(rooms.chain(private).collect())
    }

    /// A query for the ids of the rooms. This parameter is [`Self::rooms`], and the next one the person.
    fn readable(&self, tx: &Tx<'_>, parameter: usize) -> String {
        format!(
            "select id from rooms where id {}
            union select room_id from users_subscribed
            where user_id = ${} and with_id is not null and {}",
            tx.among(parameter),
            parameter + 1,
            self.private
        )
    }
}

/// The groups in a person's list that they may read.
async fn groups_of(tx: &Tx<'_>, me: UserId) -> Sql<Vec<RoomId>> {
    let groups = format!(
        "select r.id from rooms r
         left join users_subscribed s on s.user_id = $1 and s.room_id = r.id
         where r.id in (
            select room_id from users_subscribed
            where user_id = $1 and with_id is null and left_at is null
            union all select id from rooms where position is not null
            union all select id from rooms where restricted_at is not null)
         and r.kind = 'group' and s.left_at is null and {VISIBLE}"
    );
    tx.all(&groups, &[&me]).await
}

/// The people whose user name or display name this is; `me` is the person themselves.
async fn people(tx: &Tx<'_>, me: UserId, name: &str) -> Sql<Vec<UserId>> {
    let (user, key) = (
        sought(&name.to_lowercase()),
        sought(&DisplayName::key_of(name)),
    );
    let named = "select id from users where name = $1 and arrived_at is not null
        union select id from users where display_key = $2";
    let mut people = tx.all(named, &[&user, &key]).await?;
    if user == "me" {
        people.push(me);
    }
    Ok(people)
}

/// The newest changes of the rooms that are not indexed yet.
async fn not_indexed(tx: &Tx<'_>, me: UserId, scope: &Scope) -> Sql<Vec<Message>> {
    let behind = format!(
        "select r.id, r.version, coalesce(s.version, 0) from rooms r
         left join searchable s on s.room_id = r.id
         where r.id in ({}) and r.version > coalesce(s.version, 0)",
        scope.readable(tx, 1)
    );
    let rooms: Vec<i64> = scope.rooms.iter().map(|room| room.0).collect();
    let behind: Vec<(RoomId, u64, u64)> = tx.all(&behind, &[&rooms, &me]).await?;
    // Usually none is: they are indexed within a moment.
    let newest = format!("select {MESSAGE} where m.room_id = $1 and m.worded > $2");
    let mut messages = Vec::new();
    for (room, version, indexed) in behind {
        let since = indexed.max(version.saturating_sub(COMPARED));
        messages.append(&mut tx.all(&newest, &[&room, &since]).await?);
    }
    Ok(messages)
}

/// The first message written at that moment or later, or one that is not there yet.
async fn first_since(tx: &Tx<'_>, at: Millis) -> Sql<MessageId> {
    let last = "select coalesce(max(id), 0) from messages";
    let (mut low, mut high) = (0, tx.the::<i64>(last, &[]).await? + 1);
    let next = "select id, created_at from messages where id >= $1 order by id limit 1";
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, Millis)> = tx.one(next, &[&middle]).await?;
        match found {
            Some((id, written)) if written < at => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(MessageId(low))
}
