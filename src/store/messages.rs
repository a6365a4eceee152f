//! Messages: writing, changing and reacting to them, and reading them by page and by version.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::files;
use super::mentions::{self, Mentions};
use super::rooms::{VISIBLE, may_moderate, room, subscribe};
use super::tx::{Column, FromRow, Hold, Locks, Row, Sql, Tx, from_row};
use super::users::{check_may_write, record, trace};
use super::{Actor, Change, Newest, Refused, Result, Store};
use crate::model::{
    Author, ClientId, ClientRef, Emoji, File, FileId, History, Message, MessageId, Millis,
    Original, Page, Reaction, Room, RoomId, UserId, Version, Wording,
};
use crate::protocol::PAGE_MESSAGES;

/// The highest count of unread messages.
const UNREAD_AT_MOST: i64 = 100;

/// A message to be stored.
#[derive(Clone, Debug)]
pub struct Post {
    /// The author.
    pub by: Actor,
    /// The room to post in.
    pub room: RoomId,
    /// The text.
    pub text: Wording,
    /// The author's key for the message, which makes sending it again harmless.
    pub key: Option<Uuid>,
    /// The message that it replies to. If the room has no such message, it replies to nothing.
    pub reply_to: Option<MessageId>,
    /// Its files, which were uploaded for that room.
    pub files: Vec<FileId>,
}

/// The result of posting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The message is stored, and delivered as a change.
    New(Message),
    /// The key was known: the message stored with it.
    Known(Message),
    /// The key was known, but its message is in a room that the author can no longer see.
    Settled,
}

/// A change of somebody's own reaction to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnReaction {
    /// The person.
    pub user: UserId,
    /// The emoji.
    pub emoji: Emoji,
    /// Whether they react with it now.
    pub on: bool,
}

/// The catch-up of a reader of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// The reader is up to date.
    UpToDate,
    /// The messages created or changed since, oldest first, in their present state. Those with `made`
    /// up to `after` are older messages that changed.
    Changes {
        /// The version that the reader had.
        after: Version,
        /// The version after the catch-up.
        version: Version,
        /// The messages.
        messages: Vec<Message>,
    },
    /// More than a page has changed, or the reader's version is of another history.
    Newest(Arc<Page>),
}

impl Store {
    /// Stores a message in a room that its author may post in. When it returns, the message is durable
    /// and the room's version is one higher. A known key of the same author stores nothing.
    pub async fn post(&self, post: Post) -> Result<Posted> {
        let locks = Locks::actor(post.by).room(post.room);
        self.write("post", locks, async move |tx| self::post(tx, &post).await)
            .await
    }

    /// The message stored with a key of that author, and its room.
    pub async fn message_by_key(
        &self,
        author: UserId,
        key: Uuid,
    ) -> Result<Option<(Message, Room)>> {
        self.read("message_by_key", async move |tx| {
            let Some(message) = by_key(tx, author, key).await? else {
                return Ok(None);
            };
            let room = room(tx, author, message.room).await?;
            Ok(room.map(|room| (message, room)))
        })
        .await
    }

    /// A message of that room, if the user can see it, and the names of at most `limit` people who
    /// reacted to it, earliest first.
    pub async fn open_message(
        &self,
        user: UserId,
        room: RoomId,
        message: MessageId,
        limit: usize,
    ) -> Result<Option<(Message, Vec<(Emoji, String)>)>> {
        self.read("open_message", async move |tx| {
            let Some(found) = message_in(tx, user, room, message).await? else {
                return Ok(None);
            };
            let sql =
                "select emoji, name from reactions where message_id = $1 order by id limit $2";
            let reactors: Vec<(KnownEmoji, String)> = tx.all(sql, &[&message, &limit]).await?;
            let known = reactors
                .into_iter()
                .filter_map(|(emoji, name)| Some((emoji.0?, name)));
            Ok(Some((found, known.collect())))
        })
        .await
    }

    /// Changes the text of a message or deletes it, if that is allowed: authors may do both, moderators
    /// may delete in groups. When it returns, the change is durable and the room's version is one
    /// higher. Repeating it changes nothing. Returns the message as it is now; `text` is its new text,
    /// and `None` deletes it.
    pub async fn amend(
        &self,
        by: Actor,
        room: RoomId,
        message: MessageId,
        text: Option<Wording>,
    ) -> Result<Message> {
        let locks = Locks::actor(by).room(room);
        self.write("amend", locks, async move |tx| {
            let (me, id) = (by.user, message);
            let new = text.as_ref().map(|new| new.text.as_str());
            let found = message_in(tx, me, room, id).await?;
            let found = found.ok_or(Refused::NoSuchMessage)?;
            let own = found.author.id == me;
            if !own && (new.is_some() || !may_moderate(tx, me, room).await?) {
                return Err(Refused::NotYours.into());
            }
            match (found.deleted, new) {
                (true, Some(_)) => return Err(Refused::Deleted.into()),
                (true, None) => return Ok(found),
                (false, new) if new == Some(&found.text) => return Ok(found),
                (false, Some("")) if found.files.is_empty() => return Err(Refused::Empty.into()),
                (false, _) => check_may_write(tx, me).await?,
            }
            let step = next_step(tx, room, me).await?;
            let step = step.ok_or(Refused::NoSuchMessage)?;
            take_step(tx, step).await?;
            let mentions = mentions::replace(tx, &found, text.as_ref()).await?;
            let html = text.as_ref().and_then(|new| new.html.as_deref());
            let here = text.as_ref().is_some_and(|new| new.here);
            tx.run(
                "update messages set changed = $1, worded = $1, text = coalesce(cast($2 as text), text),
                    edited_at = case when cast($2 as text) is null then edited_at else $3 end,
                    deleted_at = case when cast($2 as text) is null then cast($3 as bigint) end,
                    deleted_by = case when user_id <> $4 then $4 end,
                    html = $5, drawn = $1, here = $6,
                    files = case when cast($2 as text) is null then null else files end
                 where id = $7",
                &[
                    &step.version.number,
                    &new,
                    &tx.now,
                    &me,
                    &html,
                    &here,
                    &id,
                ],
            )
            .await?;
            if new.is_none() && !found.files.is_empty() {
                files::delete_of(tx, id).await?;
            }
            if !own {
                record_deletion(tx, me, &found).await?;
            }
            if new.is_none() && step.between.is_some() {
                // A deleted message counts as unread for nobody.
                tx.run(
                    "update users_subscribed as s set
                        unread = (select count(*) from (
                            select 1 from messages m
                            where m.room_id = s.room_id and m.id > s.read_message_id
                            and m.user_id <> s.user_id and m.deleted_at is null limit $1) unread)
                     where room_id = $2 and user_id <> $3 and read_message_id < $4",
                    &[&UNREAD_AT_MOST, &room, &me, &id],
                )
                .await?;
            }
            let message = message_of(tx, id).await?;
            push_change(tx, by, step, message.clone(), None, mentions);
            Ok(message)
        })
        .await
    }

    /// Adds or removes somebody's reaction to a message. When it returns, the change is durable and the
    /// room's version is one higher. Repeating it changes nothing; returns whether it changed anything.
    pub async fn react(
        &self,
        by: Actor,
        room: RoomId,
        message: MessageId,
        emoji: Emoji,
        on: bool,
    ) -> Result<bool> {
        let locks = Locks::actor(by).room(room);
        self.write("react", locks, async move |tx| {
            let own = OwnReaction {
                user: by.user,
                emoji,
                on,
            };
            let (user, id, emoji) = (by.user, message, emoji.as_str());
            let found = message_in(tx, user, room, id).await?;
            let mut found = found.ok_or(Refused::NoSuchMessage)?;
            if found.deleted {
                return Err(Refused::Deleted.into());
            }
            check_may_write(tx, user).await?;
            let is_on = "select exists (select 1 from reactions
                where message_id = $1 and emoji = $2 and user_id = $3)";
            if tx.the::<bool>(is_on, &[&id, &emoji, &user]).await? == on {
                return Ok(false);
            }
            let reactions = &mut found.reactions;
            let at = reactions.iter().position(|one| one.emoji == own.emoji);
            let at = match at {
                None if reactions.len() >= Reaction::EMOJIS => return Err(Refused::TooManyEmojis.into()),
                None => {
                    reactions.push(Reaction {
                        emoji: own.emoji,
                        count: 0,
                        names: Vec::new(),
                    });
                    reactions.len() - 1
                }
                Some(at) => at,
            };
            let step = next_step(tx, room, user).await?;
            let step = step.ok_or(Refused::NoSuchMessage)?;
            take_step(tx, step).await?;
            match on {
                true => {
                    tx.run(
                        "insert into reactions (message_id, room_id, emoji, created_at, user_id, name)
                         select $1, $2, $3, $4, id, coalesce(display_name, name)
                         from users where id = $5",
                        &[&id, &room, &emoji, &tx.now, &user],
                    )
                    .await?;
                    trace(tx, user).await?;
                    reactions[at].count += 1;
                }
                false => {
                    let sql = "delete from reactions
                        where message_id = $1 and emoji = $2 and user_id = $3";
                    tx.run(sql, &[&id, &emoji, &user]).await?;
                    reactions[at].count = reactions[at].count.saturating_sub(1);
                }
            }
            let names =
                "select name from reactions where message_id = $1 and emoji = $2 order by id limit $3";
            let values = [&id as _, &emoji as _, &Reaction::NAMES as _];
            reactions[at].names = tx.all(names, &values).await?;
            reactions.retain(|one| one.count > 0);
            let sql = "update messages set changed = $1, reactions = $2 where id = $3";
            tx.run(
                sql,
                &[&step.version.number, &reactions_json(reactions), &id],
            )
            .await?;
            push_stored(tx, by, step, id, Some(own)).await?;
            Ok(true)
        })
        .await
    }

    /// The user's reactions to messages of a room from the first to the last id, both included: at most
    /// `limit`, those to the newest messages first.
    pub async fn reactions_of(
        &self,
        user: UserId,
        room: RoomId,
        first: MessageId,
        last: MessageId,
        limit: usize,
    ) -> Result<Vec<(MessageId, Emoji)>> {
        let between = (first, last);
        self.ask("reactions_of", async move |tx| {
            reactions_of(tx, user, room, between, limit).await
        })
        .await
    }

    /// Marks these rooms as read up to these messages. A mark never moves back. Clients that are no longer that person's
    /// are skipped; one may have left or come back since. Returns the people who have read a private room, whose numbers have
    /// changed.
    pub async fn mark_read(
        &self,
        reads: Vec<(ClientRef, UserId, RoomId, MessageId)>,
    ) -> Result<HashSet<UserId>> {
        // Locked, so that each message written meanwhile is counted exactly once.
        let locks = Locks {
            rooms: reads.iter().map(|(_, _, room, _)| *room).collect(),
            ..Locks::none()
        };
        self.write("mark_read", locks, async move |tx| {
            let clients: Vec<i64> = reads.iter().map(|read| read.0.client.0).collect();
            let sql = format!(
                "select id, user_id from clients where id {} order by id",
                tx.among(1)
            );
            let held = tx.hold(&sql, Hold::Change);
            let of: Vec<(ClientId, UserId)> = tx.all(&held, &[&clients]).await?;
            let of: HashMap<_, _> = of.into_iter().collect();
            let mut counted = HashSet::new();
            for (client, user, room, message) in &reads {
                if of.get(&client.client) == Some(user)
                    && mark_read(tx, *user, *room, *message).await?
                {
                    counted.insert(*user);
                }
            }
            Ok(counted)
        })
        .await
    }

    /// Marks a room as unread from this message of it on, for a user who belongs to it.
    pub async fn mark_unread(&self, by: Actor, room: RoomId, from: MessageId) -> Result<()> {
        let locks = Locks::actor(by).room(room);
        self.write("mark_unread", locks, async move |tx| {
            let found = message_in(tx, by.user, room, from).await?;
            found.ok_or(Refused::NoSuchMessage)?;
            set_read(tx, by.user, room, MessageId(from.0 - 1)).await
        })
        .await
    }

    /// The rooms in which the user has something unread, and the newest message of each.
    pub async fn unread_rooms(&self, user: UserId) -> Result<Vec<(RoomId, MessageId)>> {
        self.ask("unread_rooms", async move |tx| {
            tx.all(
                "select s.room_id, (select max(id) from messages m where m.room_id = s.room_id)
                 from users_subscribed s
                 where s.user_id = $1 and s.left_at is null and exists (select 1 from messages m
                    where m.room_id = s.room_id and m.id > s.read_message_id)",
                &[&user],
            )
            .await
        })
        .await
    }

    /// The newest page of a room. The caller has checked that the reader may see it.
    pub async fn newest(&self, room: RoomId) -> Result<Arc<Page>> {
        let known = Arc::clone(&self.newest);
        self.read("newest", async move |tx| newest(tx, &known, room).await)
            .await
    }

    /// The page before a message of a room.
    pub async fn older(&self, room: RoomId, before: MessageId) -> Result<Page> {
        self.read("older", async move |tx| {
            page_at(tx, room, PageAt::Before(before)).await
        })
        .await
    }

    /// A page around a place in a room: the messages up to that id, and those after it.
    pub async fn around(&self, room: RoomId, at: MessageId) -> Result<Page> {
        self.read("around", async move |tx| {
            page_at(tx, room, PageAt::Around(at)).await
        })
        .await
    }

    /// The page after a message of a room, and before another if there is one.
    pub async fn newer(
        &self,
        room: RoomId,
        after: MessageId,
        before: Option<MessageId>,
    ) -> Result<Page> {
        self.read("newer", async move |tx| {
            page_after(tx, room, after, before, PAGE_MESSAGES).await
        })
        .await
    }

    /// The last message of a room before a moment, if there is one.
    pub async fn last_before(&self, room: RoomId, time: Millis) -> Result<Option<MessageId>> {
        self.read("last_before", async move |tx| {
            // Messages are ordered by time as well, so that no index by time is needed.
            let ends = "select coalesce(min(id), 0), coalesce(max(id), 0) from messages
                where room_id = $1";
            let (first, last): (MessageId, MessageId) = tx.the(ends, &[&room]).await?;
            let (mut low, mut high) = (first.0 - 1, last.0);
            let sql = "select id, created_at from messages where room_id = $1 and id <= $2
                order by id desc limit 1";
            while low < high {
                let middle = high - (high - low) / 2;
                let found: Option<(MessageId, Millis)> =
                    tx.one(sql, &[&room, &MessageId(middle)]).await?;
                match found {
                    Some((id, at)) if at < time => low = middle.max(id.0),
                    Some((id, _)) => high = id.0 - 1,
                    None => low = middle,
                }
            }
            let last: Option<(MessageId, Millis)> = tx.one(sql, &[&room, &MessageId(low)]).await?;
            Ok(last.map(|(id, _)| id))
        })
        .await
    }

    /// The messages from the first to the last id, both included, and those that they reply to, as far
    /// as they changed after a version, in their present state.
    pub async fn changed_among(
        &self,
        room: RoomId,
        first: MessageId,
        last: MessageId,
        after: u64,
    ) -> Result<Page> {
        self.read("changed_among", async move |tx| {
            let version = version(tx, room).await?;
            let changed = format!(
                "select {MESSAGE} where m.room_id = $1 and (m.id between $2 and $3
                    or m.id in (select r.reply_to from messages r where r.room_id = $1
                        and r.id between $2 and $3 and r.reply_to is not null))
                 and m.changed > $4"
            );
            let values = [&room as _, &first as _, &last as _, &after as _];
            let mut messages: Vec<Message> = tx.all(&changed, &values).await?;
            messages.sort_by_key(|message| message.id);
            Ok(Page {
                version,
                newer: false,
                messages,
                older: false,
            })
        })
        .await
    }

    /// At most a page of the messages whose text was created or changed after a version, in their
    /// present state and in the order of their last text change, and the version after them.
    pub async fn worded_since(&self, room: RoomId, after: u64) -> Result<(Vec<Message>, Version)> {
        self.read("worded_since", async move |tx| {
            let mut version = version(tx, room).await?;
            let worded = format!(
                "select {MESSAGE} where m.room_id = $1 and m.worded > $2
                 order by m.worded limit $3"
            );
            let messages: Vec<Message> = tx.all(&worded, &[&room, &after, &PAGE_MESSAGES]).await?;
            if let (PAGE_MESSAGES, Some(last)) = (messages.len(), messages.last()) {
                version.number = last.worded;
            }
            Ok((messages, version))
        })
        .await
    }

    /// The catch-up of a reader who has version `after`; without it, the newest page.
    pub async fn catch_up(&self, room: RoomId, after: Option<Version>) -> Result<CatchUp> {
        let known = Arc::clone(&self.newest);
        self.read("catch_up", async move |tx| {
            catch_up(tx, &known, room, after).await
        })
        .await
    }
}

pub(super) async fn catch_up(
    tx: &Tx<'_>,
    known: &Newest,
    room: RoomId,
    after: Option<Version>,
) -> Sql<CatchUp> {
    let newest = async || newest(tx, known, room).await.map(CatchUp::Newest);
    let Some(after) = after.filter(|after| after.room == room) else {
        return newest().await;
    };
    let version = version(tx, room).await?;
    if !has_been(tx, after).await? {
        return newest().await;
    }
    if after.number == version.number {
        return Ok(CatchUp::UpToDate);
    }
    let changed = "select count(*) from
        (select 1 from messages where room_id = $1 and changed > $2 limit $3) changed";
    let values = [&room as _, &after.number as _, &(PAGE_MESSAGES + 1) as _];
    if tx.the::<u64>(changed, &values).await? > PAGE_MESSAGES as u64 {
        return newest().await;
    }
    let sql = format!("select {MESSAGE} where m.room_id = $1 and m.changed > $2 order by m.id");
    let messages = tx.all(&sql, &[&room, &after.number]).await?;
    Ok(CatchUp::Changes {
        after,
        version,
        messages,
    })
}

from_row! {
    Author { id, user_name, name }
    Writer { author, may_write, is_traced, is_subscribed }
}

/// The columns of a [`Message`], with or without the text of a deleted message.
macro_rules! message_columns {
    ($text:literal) => {
        concat!(
            "m.id, m.room_id, m.user_id, u.name, m.author_name, ",
            $text,
            ", m.key, m.made, m.changed, m.created_at, m.edited_at is not null,
            m.deleted_at is not null, m.worded,
            case when m.deleted_at is null then m.reactions end, m.deleted_by is not null,
            case when m.deleted_at is null and m.drawn = m.worded then m.html end, m.files,
            o.id, o.user_id, w.name, o.author_name, case when o.deleted_at is null then o.text end
            from messages m join users u on u.id = m.user_id
            left join messages o on o.id = m.reply_to left join users w on w.id = o.user_id"
        )
    };
}
pub(super) const MESSAGE: &str =
    message_columns!("case when m.deleted_at is null then m.text else '' end");
pub(super) const WHOLE_MESSAGE: &str = message_columns!("m.text");

impl FromRow for Message {
    fn read(row: &mut Row<'_>) -> Sql<Self> {
        Ok(Self {
            id: row.get()?,
            room: row.get()?,
            author: row.get()?,
            text: row.get()?,
            key: row.get()?,
            made: row.get()?,
            changed: row.get()?,
            created_at: row.get()?,
            edited: row.get()?,
            deleted: row.get()?,
            worded: row.get()?,
            reactions: reactions_in(row.get()?),
            by_moderator: row.get()?,
            html: row.get()?,
            files: files_in(row.get()?),
            reply_to: original_in(row)?,
        })
    }
}

/// The message that a row's message replies to, if there is one.
fn original_in(row: &mut Row<'_>) -> Sql<Option<Original>> {
    let (id, user): (Option<MessageId>, Option<UserId>) = (row.get()?, row.get()?);
    let (user_name, name): (Option<String>, Option<String>) = (row.get()?, row.get()?);
    let text = row.get()?;
    let original = || {
        let author = Author {
            id: user?,
            user_name: user_name?,
            name: name?,
        };
        let id = id?;
        Some(Original { id, author, text })
    };
    Ok(original())
}

/// A stored emoji; none if only a later version of this program knows it.
struct KnownEmoji(Option<Emoji>);

impl Column for KnownEmoji {
    type Raw = String;

    fn of(raw: String) -> Self {
        Self(Emoji::new(&raw))
    }
}

/// The reactions in a message's row. Unreadable ones are left out.
fn reactions_in(json: Option<String>) -> Vec<Reaction> {
    let rows = json.and_then(|json| serde_json::from_str(&json).ok());
    let rows: Vec<(String, u64, Vec<String>)> = rows.unwrap_or_default();
    let reaction = |(emoji, count, names): (String, u64, Vec<String>)| {
        let emoji = Emoji::new(&emoji)?;
        Some(Reaction {
            emoji,
            count,
            names,
        })
    };
    rows.into_iter().filter_map(reaction).collect()
}

fn reactions_json(reactions: &[Reaction]) -> Option<String> {
    let row = |reaction: &Reaction| {
        serde_json::json!([reaction.emoji.as_str(), reaction.count, reaction.names])
    };
    let rows: Vec<_> = reactions.iter().map(row).collect();
    (!rows.is_empty()).then(|| serde_json::Value::from(rows).to_string())
}

/// The files in a message's row.
fn files_in(json: Option<String>) -> Vec<File> {
    let files = json.and_then(|json| serde_json::from_str(&json).ok());
    files.unwrap_or_default()
}

/// At most `limit` of the newest messages before one, oldest first, and whether there are older ones.
pub(super) async fn reactions_of(
    tx: &Tx<'_>,
    user: UserId,
    room: RoomId,
    (first, last): (MessageId, MessageId),
    limit: usize,
) -> Sql<Vec<(MessageId, Emoji)>> {
    let sql = "select message_id, emoji from reactions
        where user_id = $1 and room_id = $2 and message_id between $3 and $4
        order by message_id desc limit $5";
    let values = [&user as _, &room as _, &first as _, &last as _, &limit as _];
    let found: Vec<(MessageId, KnownEmoji)> = tx.all(sql, &values).await?;
    let known = found
        .into_iter()
        .filter_map(|(id, emoji)| Some((id, emoji.0?)));
    Ok(known.collect())
}

/// Which messages of a room a page has.
#[derive(Clone, Copy)]
pub(super) enum PageAt {
    Before(MessageId),
    After(MessageId),
    /// Those up to that one, and those after it.
    Around(MessageId),
}

pub(super) async fn page_at(tx: &Tx<'_>, room: RoomId, place: PageAt) -> Sql<Page> {
    match place {
        PageAt::Before(before) => {
            let version = version(tx, room).await?;
            page(tx, version, before, PAGE_MESSAGES).await
        }
        PageAt::After(after) => page_after(tx, room, after, None, PAGE_MESSAGES).await,
        PageAt::Around(at) => {
            let half = PAGE_MESSAGES / 2;
            let version = version(tx, room).await?;
            let mut page = page(tx, version, MessageId(at.0.saturating_add(1)), half).await?;
            let newer = page_after(tx, room, at, None, PAGE_MESSAGES - half).await?;
            page.messages.extend(newer.messages);
            page.newer = newer.newer;
            Ok(page)
        }
    }
}

/// The newest page, which is read only if the room has changed since.
pub(super) async fn newest(tx: &Tx<'_>, known: &Newest, room: RoomId) -> Sql<Arc<Page>> {
    let version = version(tx, room).await?;
    if let Some(page) = known.get(version) {
        return Ok(page);
    }
    let page = page(tx, version, MessageId(i64::MAX), PAGE_MESSAGES).await?;
    Ok(known.keep(version, Arc::new(page)))
}

async fn page(tx: &Tx<'_>, version: Version, before: MessageId, limit: usize) -> Sql<Page> {
    let sql =
        format!("select {MESSAGE} where m.room_id = $1 and m.id < $2 order by m.id desc limit $3");
    let values = [&version.room as _, &before as _, &(limit + 1) as _];
    let mut messages: Vec<_> = tx.all(&sql, &values).await?;
    let older = messages.len() > limit;
    messages.truncate(limit);
    messages.reverse();
    Ok(Page {
        version,
        newer: false,
        messages,
        older,
    })
}

/// At most `limit` messages after one, and before another if there is one, and whether there are more.
async fn page_after(
    tx: &Tx<'_>,
    room: RoomId,
    after: MessageId,
    before: Option<MessageId>,
    limit: usize,
) -> Sql<Page> {
    let version = version(tx, room).await?;
    let sql = format!(
        "select {MESSAGE} where m.room_id = $1 and m.id > $2 and m.id < $3 order by m.id limit $4"
    );
    let before = before.unwrap_or(MessageId(i64::MAX));
    let values = [&room as _, &after as _, &before as _, &(limit + 1) as _];
    let mut messages: Vec<_> = tx.all(&sql, &values).await?;
    let newer = messages.len() > limit;
    messages.truncate(limit);
    Ok(Page {
        version,
        newer,
        messages,
        older: false,
    })
}

async fn version(tx: &Tx<'_>, room: RoomId) -> Sql<Version> {
    let sql = "select id, history, version from rooms where id = $1";
    tx.the(sql, &[&room]).await
}

/// Whether the room has had this version: the history is one of the room's, and it reached the number.
/// Every room has had the version without changes, which is of no history.
async fn has_been(tx: &Tx<'_>, after: Version) -> Sql<bool> {
    if after.number == 0 {
        return Ok(after.history == History(0));
    }
    tx.the(
        "select exists (
            select 1 from room_histories h
            where h.room_id = $1 and h.history = $2 and h.first_version <= $3
            and $3 < coalesce(
                (select min(n.first_version) from room_histories n
                 where n.room_id = h.room_id and n.first_version > h.first_version),
                (select r.version + 1 from rooms r where r.id = h.room_id)))",
        &[&after.room, &after.history, &after.number],
    )
    .await
}

/// The message stored with a key of that author.
async fn by_key(tx: &Tx<'_>, author: UserId, key: Uuid) -> Sql<Option<Message>> {
    let sql = format!("select {MESSAGE} where m.user_id = $1 and m.key = $2");
    tx.one(&sql, &[&author, &key]).await
}

async fn message_of(tx: &Tx<'_>, id: MessageId) -> Sql<Message> {
    let sql = format!("select {MESSAGE} where m.id = $1");
    tx.the(&sql, &[&id]).await
}

/// A message of that room, if `me` can see it.
async fn message_in(
    tx: &Tx<'_>,
    me: UserId,
    in_room: RoomId,
    id: MessageId,
) -> Sql<Option<Message>> {
    if room(tx, me, in_room).await?.is_none() {
        return Ok(None);
    }
    let sql = format!("select {MESSAGE} where m.id = $1 and m.room_id = $2");
    tx.one(&sql, &[&id, &in_room]).await
}

/// Somebody who is about to write in a room.
struct Writer {
    author: Author,
    may_write: bool,
    is_traced: bool,
    is_subscribed: bool,
}

async fn writer(tx: &Tx<'_>, room: RoomId, id: UserId) -> Sql<Writer> {
    let sql = "select u.id, u.name, coalesce(u.display_name, u.name),
            u.muted_at is null and u.banned_at is null, u.traced_at is not null,
            exists (select 1 from users_subscribed s where s.user_id = u.id and s.room_id = $1)
         from users u where u.id = $2";
    tx.the(&tx.hold(sql, Hold::Share), &[&room, &id]).await
}

/// A message of that room, as a reply to it shows it.
async fn original(tx: &Tx<'_>, room: RoomId, id: MessageId) -> Sql<Option<Original>> {
    let sql = format!("select {MESSAGE} where m.id = $1 and m.room_id = $2");
    let message: Option<Message> = tx.one(&sql, &[&id, &room]).await?;
    Ok(message.as_ref().map(Original::from))
}

pub(super) async fn post(tx: &Tx<'_>, post: &Post) -> Sql<Posted> {
    let author = post.by.user;
    let known = async {
        match post.key {
            Some(key) => by_key(tx, author, key).await,
            None => Ok(None),
        }
    };
    // Together, so that PostgreSQL is waited for once. In this order, so that if several fail, the
    // first error is reported: it causes the others.
    let original = async {
        match post.reply_to {
            Some(id) => original(tx, post.room, id).await,
            None => Ok(None),
        }
    };
    let (known, writer, step, reply_to) = tokio::try_join!(biased;
        known,
        writer(tx, post.room, author),
        next_step(tx, post.room, author),
        original
    )?;
    if let Some(known) = known {
        // If the room is closed to its author, they must not learn what happened to the message.
        return Ok(match room(tx, author, known.room).await? {
            Some(_) => Posted::Known(known),
            None => Posted::Settled,
        });
    }
    if !writer.may_write {
        return Err(Refused::Muted.into());
    }
    let step = step.ok_or(Refused::NoSuchRoom)?;
    let files = match post.files.is_empty() {
        true => Vec::new(),
        false => files::taken(tx, post).await?,
    };
    let made = step.version.number;
    let new = NewMessage {
        room: post.room,
        author,
        author_name: &writer.author.name,
        text: &post.text,
        key: post.key,
        files: &files,
        made,
        at: tx.now,
        reply_to: reply_to.as_ref().map(|original| original.id),
    };
    let (id, ()) = tokio::try_join!(biased; insert_message(tx, new), take_step(tx, step))?;
    if !files.is_empty() {
        files::give(tx, &files, id).await?;
    }
    let message = Message {
        id,
        room: post.room,
        author: writer.author,
        text: post.text.text.as_str().to_owned(),
        html: post.text.html.clone(),
        key: post.key,
        made,
        changed: made,
        created_at: tx.now,
        edited: false,
        deleted: false,
        worded: made,
        reactions: Vec::new(),
        by_moderator: false,
        reply_to,
        files,
    };
    match step.between {
        Some(both) => share_private(tx, both, &message).await?,
        None => {
            if !writer.is_traced {
                trace(tx, author).await?;
            }
            if !writer.is_subscribed {
                subscribe(tx, author, post.room).await?;
            }
        }
    }
    let mentions = mentions::add(tx, &message, &post.text).await?;
    push_change(tx, post.by, step, message.clone(), None, mentions);
    Ok(Posted::New(message))
}

/// A message to insert, with the version of its room that creates it.
pub(super) struct NewMessage<'a> {
    pub(super) room: RoomId,
    pub(super) author: UserId,
    pub(super) author_name: &'a str,
    pub(super) text: &'a Wording,
    pub(super) key: Option<Uuid>,
    pub(super) files: &'a [File],
    pub(super) made: u64,
    pub(super) at: Millis,
    /// The message of the same room that it replies to.
    pub(super) reply_to: Option<MessageId>,
}

pub(super) async fn insert_message(tx: &Tx<'_>, new: NewMessage<'_>) -> Sql<MessageId> {
    let Wording {
        text, html, here, ..
    } = new.text;
    let files = (!new.files.is_empty()).then(|| serde_json::json!(new.files).to_string());
    tx.the(
        "insert into messages
            (room_id, user_id, author_name, text, key, made, changed, worded, created_at,
             html, drawn, here, reply_to, files)
         values ($1, $2, $3, $4, $5, $6, $6, $6, $7, $8, $6, $9, $10, $11) returning id",
        &[
            &new.room,
            &new.author,
            &new.author_name,
            &text.as_str(),
            &new.key,
            &new.made,
            &new.at,
            html,
            here,
            &new.reply_to,
            &files,
        ],
    )
    .await
}

/// Adds a private room to both people's rooms. The message is unread for the person who did not write
/// it.
async fn share_private(tx: &Tx<'_>, both: [UserId; 2], message: &Message) -> Sql<()> {
    let [low, high] = both;
    for (user, with) in [(low, high), (high, low)] {
        let unread = i64::from(user != message.author.id);
        let subscribed = tx
            .run(
                "insert into users_subscribed as s
                (user_id, room_id, since, with_id, last_message_id, unread)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (user_id, room_id) do update set
                last_message_id = excluded.last_message_id,
                unread = case when s.unread + excluded.unread < $7
                    then s.unread + excluded.unread else $7 end",
                &[
                    &user,
                    &message.room,
                    &tx.now,
                    &with,
                    &message.id,
                    &unread,
                    &UNREAD_AT_MOST,
                ],
            )
            .await;
        let trace = trace(tx, user);
        tokio::try_join!(biased; async { subscribed }, trace)?;
    }
    Ok(())
}

/// A room's next version.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) version: Version,
    /// The two people of a private room.
    between: Option<[UserId; 2]>,
    /// Whether it is the first of its history.
    begins_history: bool,
}

/// The next version of a room, if `by` belongs there. The transaction that takes it has locked the
/// room, so that nobody else takes one meanwhile.
pub(super) async fn next_step(tx: &Tx<'_>, room: RoomId, by: UserId) -> Sql<Option<Step>> {
    let sql = format!(
        "select r.id, r.history, r.version, r.user_low, r.user_high from rooms r
         where (r.kind = 'group' and {VISIBLE} or $1 in (r.user_low, r.user_high)) and r.id = $2"
    );
    let found: Option<(Version, Option<UserId>, Option<UserId>)> =
        tx.one(&sql, &[&by, &room]).await?;
    Ok(found.map(|(last, low, high)| Step {
        version: Version {
            history: tx.history,
            number: last.number + 1,
            ..last
        },
        between: low.zip(high).map(|(low, high)| [low, high]),
        begins_history: last.history != tx.history,
    }))
}

/// Sets the room to its next version.
pub(super) async fn take_step(tx: &Tx<'_>, step: Step) -> Sql<()> {
    set_version(tx, step.version).await?;
    match step.begins_history {
        true => begin_history(tx, step.version).await,
        false => Ok(()),
    }
}

pub(super) async fn set_version(tx: &Tx<'_>, version: Version) -> Sql<()> {
    let Version {
        room,
        history,
        number,
    } = version;
    let sql = "update rooms set version = $1, history = $2 where id = $3";
    tx.run(sql, &[&number, &history, &room]).await
}

/// The room's history begins with this version.
pub(super) async fn begin_history(tx: &Tx<'_>, version: Version) -> Sql<()> {
    let Version {
        room,
        history,
        number,
    } = version;
    tx.run(
        "insert into room_histories (room_id, first_version, history) values ($1, $2, $3)
         on conflict do nothing",
        &[&room, &number, &history],
    )
    .await
}

/// Delivers a change, with its message at that version.
fn push_change(
    tx: &Tx<'_>,
    by: Actor,
    step: Step,
    message: Message,
    reaction: Option<OwnReaction>,
    mentions: Mentions,
) {
    let change = Change {
        version: step.version,
        message,
        between: step.between,
        reaction,
        mentions,
    };
    tx.push_change(by.node, change);
}

/// The same with the message as it is stored now, which is returned.
pub(super) async fn push_stored(
    tx: &Tx<'_>,
    by: Actor,
    step: Step,
    id: MessageId,
    reaction: Option<OwnReaction>,
) -> Sql<Message> {
    let message = message_of(tx, id).await?;
    push_change(tx, by, step, message.clone(), reaction, Mentions::default());
    Ok(message)
}

/// Records that a moderator deleted somebody else's message.
async fn record_deletion(tx: &Tx<'_>, by: UserId, message: &Message) -> Sql<()> {
    let name = "select name from rooms where id = $1 and kind = 'group'";
    let name: String = tx.the(name, &[&message.room]).await?;
    // The user name, since somebody else may have the display name later.
    let (id, author) = (message.id, &message.author.user_name);
    record(
        tx,
        by,
        &format!("deleted message {id} of {author} in #{name}"),
    )
    .await
}

/// The unread messages of a private room after `$1`, counted up to `$2`, in an update of
/// `users_subscribed` as `s`. In groups nothing is counted.
const UNREAD: &str = "case when s.with_id is null then 0 else (select count(*) from (
        select 1 from messages m where m.room_id = s.room_id and m.id > $1
        and m.user_id <> s.user_id and m.deleted_at is null limit $2) unread) end";

/// Sets up to which message somebody has read a room that they belong to.
pub(super) async fn set_read(tx: &Tx<'_>, user: UserId, room: RoomId, read: MessageId) -> Sql<()> {
    let mark = format!(
        "update users_subscribed as s set read_message_id = $1, unread = {UNREAD}
         where user_id = $3 and room_id = $4"
    );
    tx.run(&mark, &[&read, &UNREAD_AT_MOST, &user, &room]).await
}

/// Marks a room as read up to a message. Returns whether that was news about a private room.
async fn mark_read(tx: &Tx<'_>, user: UserId, room: RoomId, upto: MessageId) -> Sql<bool> {
    // The newest message of the room up to that one: nobody reads ahead.
    let mark = format!(
        "update users_subscribed as s set unread = {UNREAD}, read_message_id = coalesce(
            (select max(m.id) from messages m where m.room_id = s.room_id and m.id <= $1),
            s.read_message_id)
         where s.user_id = $3 and s.room_id = $4 and s.read_message_id < $1
         returning with_id is not null"
    );
    let values = [&upto as _, &UNREAD_AT_MOST as _, &user as _, &room as _];
    Ok(tx.one(&mark, &values).await?.unwrap_or_default())
}
