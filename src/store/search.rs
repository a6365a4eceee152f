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
use super::tx::{Hold, Locks, Sql, Tx, from_row, is_broad, sought};
use super::{Result, Store, StoreError};
use crate::model::{DisplayName, Message, MessageId, Millis, RoomId, UserId};
use crate::search::{Found, In, Indexed, Query, Sought, Unknown, marks};

/// How many searches run at a time. Of SQLite's readers, one is left for other long reads, and one for short ones.
pub(super) const SEARCHES: usize = 2;
/// How many messages are indexed in one transaction. The writer's queue waits for it.
const INDEXED_AT_ONCE: usize = 200;
/// The form of the entries. Builds before the second one cannot write `searchable`, which has this since.
const FORM: u8 = 2;
/// From this many bytes of text on, the other messages are for the next transaction.
const INDEXED_BYTES: usize = 32 * 1024;
/// How many of the newest changes of a room are compared one by one if they are not indexed yet.
const COMPARED: u64 = 1_000;
/// How often the index is asked for more in one search, if what it finds has changed or is too new or old.
const ROUNDS: usize = 20;
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
        self.read_at_length("search", async move |tx| {
            search(tx, me, &query, before, limit).await
        })
        .await
    }

    /// The rooms with changes that are not indexed, after a start. Rooms with many of them, which a migration or
    /// a move has brought, are noted: from now on their new messages are indexed, and the others with
    /// [`Self::unindexed_before`].
    pub async fn begin_indexing(&self) -> Result<Vec<RoomId>> {
        self.write("begin_indexing", Locks::none(), async |tx| {
            let long = format!(
                "insert into searchable (room_id, since, version, form)
                 select id, version, version, {FORM} from rooms r where version > $1
                 and not exists (select 1 from searchable s where s.room_id = r.id)
                 on conflict do nothing"
            );
            tx.run(&long, &[&COMPARED]).await?;
            let rooms = "select r.id from rooms r left join searchable s on s.room_id = r.id
                where r.version > coalesce(s.version, 0)";
            tx.all(rooms, &[]).await
        })
        .await
    }

    /// The next messages of a room to be indexed, if there are any.
    pub async fn unindexed(&self, room: RoomId) -> Result<Option<Unindexed>> {
        self.read_at_length("unindexed", async move |tx| {
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
        self.read_at_length("unindexed_before", async move |tx| {
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
            let first = format!(
                "insert into searchable (room_id, since, version, form) values ($1, $2, $3, {FORM})
                 on conflict do nothing"
            );
            tx.run(&first, &[&read.room, &since, &version]).await?;
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

/// Where a search looks for messages with the words.
#[derive(Clone, Copy)]
enum Look {
    /// Among so many of the newest in all rooms. Those in other rooms are left out afterwards.
    Everywhere(usize),
    /// Among those with the mark of one of the person's rooms.
    Marked,
}

/// Where a search looks first if there are too many marks for the index. This shows how many of the messages with
/// the words are in the person's rooms.
const FIRST: usize = 100;
/// SQLite looks there again if at least this part of these are.
const OFTEN: f64 = 0.1;
/// PostgreSQL does if it reads fewer rows for that: one of the index and one of the message for each that it looks at.
/// While it looks up a mark, it could read so many rows.
const READ_TWICE: f64 = 2.0;
const PER_MARK: f64 = 4.0;

/// What a query means for a person.
struct Scope {
    rooms: Vec<i64>,
    /// Each message in one of the rooms has one of these marks.
    marks: Vec<String>,
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
    let mut messages = not_indexed(tx, &scope).await?;
    let compared: HashSet<_> = messages.iter().map(|message| message.id).collect();
    messages.retain(|message| message.id < before && fits(message));
    messages.sort_by_key(|message| std::cmp::Reverse(message.id));
    messages.truncate(limit + 1);

    let by_id = format!(
        "select {MESSAGE} where m.id {} and m.room_id {}",
        tx.among(1),
        tx.among(2)
    );
    let until = match query.until {
        Some(until) => first_since(tx, until.after(DISORDER)).await?.min(before),
        None => before,
    };
    let everywhere = scope.sought(query);
    let index = Index {
        tx,
        marked: everywhere.clone().with(scope.marks.clone()),
        everywhere,
        rooms: &scope.rooms,
        since: match query.since {
            Some(since) => first_since(tx, since.before(DISORDER)).await?,
            None => MessageId(0),
        },
    };
    let is_broad = is_broad(&index.marked);
    let first = is_broad.then_some(Look::Everywhere(FIRST));
    let mut look = first.unwrap_or(Look::Marked);
    let (mut last, mut enough) = (until, false);
    for round in 0..ROUNDS {
        let found = messages.iter().filter(|message| message.id >= last).count();
        let most = (limit + 1).saturating_sub(found).max(1);
        let part = index.look(look, last, most).await?;
        (last, enough) = (part.first, part.is_all);
        look = match round == 0 && is_broad {
            true => index.next_look(&part, most),
            false => Look::Marked,
        };
        let ids: Vec<i64> = part.ids.iter().map(|id| id.0).collect();
        let indexed: Vec<Message> = tx.all(&by_id, &[&ids, &scope.rooms]).await?;
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
    let mut marks: Vec<String> = Vec::new();
    match &query.place {
        Some(In::Group(name)) => {
            let group = group(tx, Some(me), name).await?;
            rooms.retain(|room| group.as_ref().is_some_and(|group| group.id == *room));
            if rooms.is_empty() {
                return Ok(Err(Unknown::Room(format!("#{name}"))));
            }
        }
        Some(In::Private(name)) => {
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
        None => marks.push(marks::private(me)),
    }
    marks.extend(rooms.iter().copied().map(marks::room));
    if query.place.is_none() {
        let private =
            "select room_id from users_subscribed where user_id = $1 and with_id is not null";
        rooms.extend(tx.all::<RoomId>(private, &[&me]).await?);
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
        rooms: rooms.into_iter().map(|room| room.0).collect(),
        marks,
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
}

/// A search of the index.
struct Index<'a, 'b> {
    tx: &'a Tx<'b>,
    /// What messages in whatever room must have, and those in the rooms.
    everywhere: Sought,
    marked: Sought,
    rooms: &'a Vec<i64>,
    since: MessageId,
}

/// The newest messages that a look has found, newest first.
struct Part {
    ids: Vec<MessageId>,
    /// From this one on, these are all.
    first: MessageId,
    /// Whether there are no older ones.
    is_all: bool,
    /// How many messages in all rooms it has looked at, and about how many older ones have the words.
    looked_at: usize,
    older: f64,
}

impl Index<'_, '_> {
    /// Where to look after the first part. The words are taken to be as frequent before it as in it, and the person's
    /// rooms as well.
    fn next_look(&self, first: &Part, most: usize) -> Look {
        let share = (first.ids.len() as f64).max(0.5) / first.looked_at as f64;
        // Twice as far as is probably enough.
        let enough = (2.0 * most as f64 / share).min(2.0 * first.older);
        let is_fast = match self.tx.is_shared() {
            true => {
                let read = READ_TWICE * enough.min(first.older);
                read < first.older * share + PER_MARK * self.marked.breadth() as f64
            }
            // SQLite's index finds the newest first, whatever it looks for.
            false => share >= OFTEN,
        };
        match is_fast {
            true => Look::Everywhere((enough as usize).max(FIRST)),
            false => Look::Marked,
        }
    }

    /// At most `most` messages before that one.
    async fn look(&self, look: Look, before: MessageId, most: usize) -> Sql<Part> {
        let (tx, since) = (self.tx, self.since);
        let part = |ids: Vec<MessageId>, first: Option<MessageId>, is_all| Part {
            first: first.unwrap_or(since),
            ids,
            is_all,
            looked_at: 0,
            older: 0.0,
        };
        match look {
            Look::Everywhere(looked_at) => {
                let all = tx.found(&self.everywhere, since, before, looked_at).await?;
                let readable = format!(
                    "select id from messages where id {} and room_id {} order by id desc limit $3",
                    tx.among(1),
                    tx.among(2)
                );
                let ids: Vec<i64> = all.iter().map(|id| id.0).collect();
                let values = [&ids as _, self.rooms as _, &most as _];
                let ids: Vec<MessageId> = tx.all(&readable, &values).await?;
                let is_cut = ids.len() == most;
                let oldest = if is_cut { ids.last() } else { all.last() }.copied();
                let is_all = !is_cut && all.len() < looked_at;
                let older = match &all[..] {
                    [newest, .., last] => {
                        let per_message = all.len() as f64 / (newest.0 - last.0) as f64;
                        (last.0 - since.0) as f64 * per_message
                    }
                    _ => 0.0,
                };
                Ok(Part {
                    looked_at: all.len(),
                    older,
                    ..part(ids, oldest, is_all)
                })
            }
            Look::Marked => {
                let ids = tx.found(&self.marked, since, before, most).await?;
                let oldest = ids.last().copied();
                let is_all = ids.len() < most;
                Ok(part(ids, oldest, is_all))
            }
        }
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
async fn not_indexed(tx: &Tx<'_>, scope: &Scope) -> Sql<Vec<Message>> {
    let behind = format!(
        "select r.id, r.version, coalesce(s.version, 0) from rooms r
         left join searchable s on s.room_id = r.id
         where r.id {} and r.version > coalesce(s.version, 0)",
        tx.among(1)
    );
    let behind: Vec<(RoomId, u64, u64)> = tx.all(&behind, &[&scope.rooms]).await?;
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
