//! Rooms, their messages and versions, in SQL.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::moderation::{self, may_moderate, may_write};
use super::people::{USER, keep, lock_user, person, trace, user};
use super::sql::{self, Sql, count, sought};
use super::writer::Writing;
use crate::model::{
    Author, Busy, ClientId, Emoji, GroupName, History, Message, MessageId, MessageText, Millis,
    NodeId, Page, Reaction, Room, RoomId, RoomKind, Target, User, UserId, Version,
};
use crate::protocol::PAGE_MESSAGES;
use crate::store::{
    Amend, Amended, CatchUp, Change, Entered, Moved, OwnReaction, Post, Posted, React, Reacted,
};

/// Unread messages are counted up to this many.
const UNREAD_AT_MOST: i64 = 100;

/// The columns that [`message`] reads.
pub(super) const MESSAGE: &str = "
    m.id, m.room_id, m.user_id, u.name, m.author_name,
    case when m.deleted_at is null then m.text else '' end, m.key, m.made, m.changed,
    m.created_at, m.edited_at is not null, m.deleted_at is not null, m.worded,
    case when m.deleted_at is null then m.reactions end, m.deleted_by is not null
    from messages m join users u on u.id = m.user_id";

pub(super) fn message(row: &Row) -> Sql<Message> {
    let reactions: Option<String> = row.try_get(13)?;
    Ok(Message {
        id: MessageId(row.try_get(0)?),
        room: RoomId(row.try_get(1)?),
        author: Author {
            id: UserId(row.try_get(2)?),
            user_name: row.try_get(3)?,
            name: row.try_get(4)?,
        },
        text: row.try_get(5)?,
        key: row.try_get(6)?,
        made: count(row, 7)?,
        changed: count(row, 8)?,
        created_at: Millis(row.try_get(9)?),
        edited: row.try_get(10)?,
        deleted: row.try_get(11)?,
        worded: count(row, 12)?,
        reactions: reactions.as_deref().map(reactions_in).unwrap_or_default(),
        by_moderator: row.try_get(14)?,
    })
}

/// The reactions as a message's row has them. What cannot be read is left out.
fn reactions_in(json: &str) -> Vec<Reaction> {
    let rows: Vec<(String, u64, Vec<String>)> = serde_json::from_str(json).unwrap_or_default();
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

/// A number of a room's changes, as the database takes it.
fn number(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// The newest messages before `before`, oldest first, and whether there are older ones still; of a
/// room there is.
pub(super) async fn page(db: &impl GenericClient, room: RoomId, before: i64) -> Sql<Option<Page>> {
    let Some((version, private)) = version(db, room).await? else {
        return Ok(None);
    };
    let mut messages = sql::all(
        db,
        &format!("select {MESSAGE} where m.room_id = $1 and m.id < $2 order by m.id desc limit $3"),
        &[&room.0, &before, &(PAGE_MESSAGES as i64 + 1)],
        message,
    )
    .await?;
    let older = messages.len() > PAGE_MESSAGES;
    messages.truncate(PAGE_MESSAGES);
    messages.reverse();
    Ok(Some(Page {
        version,
        private,
        messages,
        older,
    }))
}

/// A room's version, and whether it is a private room.
pub(super) async fn version(db: &impl GenericClient, room: RoomId) -> Sql<Option<(Version, bool)>> {
    sql::one(
        db,
        "select id, history, version, kind = 'private' from rooms where id = $1",
        &[&room.0],
        |row| Ok((version_in(row)?, row.try_get(3)?)),
    )
    .await
}

/// Of a room's id, its history and its number.
pub(super) fn version_in(row: &Row) -> Sql<Version> {
    Ok(Version {
        room: RoomId(row.try_get(0)?),
        history: history(row, 1)?,
        number: count(row, 2)?,
    })
}

fn history(row: &Row, column: usize) -> Sql<History> {
    let history = count(row, column)?;
    Ok(History(u32::try_from(history).unwrap_or(u32::MAX)))
}

/// Whether `after` is a version this room has been at: its history is one of the room's, and the
/// number is one that this history reached. Everything begins with no change at all.
async fn has_been(db: &impl GenericClient, after: Version) -> Sql<bool> {
    if after.number == 0 {
        return Ok(true);
    }
    sql::value(
        db,
        "select exists (
            select 1 from room_histories h
            where h.room_id = $1 and h.history = $2 and h.first_version <= $3
            and $3 < coalesce(
                (select min(n.first_version) from room_histories n
                 where n.room_id = h.room_id and n.first_version > h.first_version),
                (select r.version + 1 from rooms r where r.id = h.room_id)))",
        &[
            &after.room.0,
            &i64::from(after.history.0),
            &number(after.number),
        ],
    )
    .await
}

pub(super) async fn catch_up(
    db: &impl GenericClient,
    room: RoomId,
    after: Option<Version>,
) -> Sql<Option<CatchUp>> {
    let Some((version, _)) = version(db, room).await? else {
        return Ok(None);
    };
    let newest = async || Ok(page(db, room, i64::MAX).await?.map(CatchUp::Newest));
    let Some(after) = after.filter(|after| after.room == room) else {
        return newest().await;
    };
    if !has_been(db, after).await? {
        return newest().await;
    }
    if after.number == version.number {
        return Ok(Some(CatchUp::UpToDate));
    }
    let changed: i64 = sql::value(
        db,
        "select count(*) from
         (select 1 from messages where room_id = $1 and changed > $2 limit $3) changed",
        &[&room.0, &number(after.number), &(PAGE_MESSAGES as i64 + 1)],
    )
    .await?;
    if changed > PAGE_MESSAGES as i64 {
        return newest().await;
    }
    let messages = sql::all(
        db,
        &format!("select {MESSAGE} where m.room_id = $1 and m.changed > $2 order by m.id"),
        &[&room.0, &number(after.number)],
        message,
    )
    .await?;
    Ok(Some(CatchUp::Changes {
        after,
        version,
        messages,
    }))
}

pub(super) async fn changed_among(
    db: &impl GenericClient,
    room: RoomId,
    (first, last): (MessageId, MessageId),
    after: u64,
) -> Sql<Option<Page>> {
    let Some((version, private)) = version(db, room).await? else {
        return Ok(None);
    };
    let messages = sql::all(
        db,
        &format!(
            "select {MESSAGE} where m.room_id = $1 and m.id between $2 and $3
             and m.changed > $4 order by m.id"
        ),
        &[&room.0, &first.0, &last.0, &number(after)],
        message,
    )
    .await?;
    Ok(Some(Page {
        version,
        private,
        messages,
        older: false,
    }))
}

pub(super) async fn worded_since(
    db: &impl GenericClient,
    room: RoomId,
    after: u64,
) -> Sql<Option<(Vec<Message>, Version)>> {
    let Some((mut version, _)) = version(db, room).await? else {
        return Ok(None);
    };
    let messages = sql::all(
        db,
        &format!(
            "select {MESSAGE} where m.room_id = $1 and m.worded > $2 order by m.worded limit $3"
        ),
        &[&room.0, &number(after), &(PAGE_MESSAGES as i64)],
        message,
    )
    .await?;
    if let (PAGE_MESSAGES, Some(last)) = (messages.len(), messages.last()) {
        version.number = last.worded;
    }
    Ok(Some((messages, version)))
}

/// Whether `$1` may know of a group `r`.
const SEEN: &str = "r.removed_at is null and (r.restricted_at is null
    or exists (select 1 from users me where me.id = $1 and me.moderator_at is not null))";

/// The name of a group `r` as it is shown and found.
const SHOWN: &str = "case when r.restricted_at is null then r.name else '!' || r.name end";

/// A room as `me` sees it: nothing where they may not know of it.
pub(super) async fn room(db: &impl GenericClient, me: UserId, id: RoomId) -> Sql<Option<Room>> {
    sql::one(
        db,
        &format!(
            "select {USER}, {SHOWN}, r.id from rooms r
             left join users u on u.id = case $1::bigint when r.user_low then r.user_high else r.user_low end
             where r.id = $2 and (r.kind = 'group' and {SEEN} or $1 in (r.user_low, r.user_high))"
        ),
        &[&me.0, &id.0],
        |row| {
            let kind = match row.try_get(3)? {
                Some(name) => RoomKind::Group(name),
                None => RoomKind::Private { with: user(row)? },
            };
            Ok(Room {
                id: RoomId(row.try_get(4)?),
                kind,
            })
        },
    )
    .await
}

/// The group of that name, if `me` may know of it, or anybody.
pub(super) async fn group(
    db: &impl GenericClient,
    me: Option<UserId>,
    name: &str,
) -> Sql<Option<Room>> {
    sql::one(
        db,
        &format!("select r.id, {SHOWN} from rooms r where r.name_key = $2 and {SEEN}"),
        &[&me.map(|me| me.0), &sought(&GroupName::key_of(name))],
        group_in,
    )
    .await
}

pub(super) fn group_in(row: &Row) -> Sql<Room> {
    Ok(Room {
        id: RoomId(row.try_get(0)?),
        kind: RoomKind::Group(row.try_get(1)?),
    })
}

pub(super) fn busy(row: &Row) -> Sql<Busy> {
    Ok(Busy {
        group: group_in(row)?,
        people: count(row, 2)?,
    })
}

pub(super) async fn groups(
    db: &impl GenericClient,
    user: Option<UserId>,
    limit: usize,
) -> Sql<Vec<Room>> {
    let mut groups = sql::all(
        db,
        "select id, name from rooms where position is not null and restricted_at is null
         order by position limit $1",
        &[&(limit as i64)],
        group_in,
    )
    .await?;
    let Some(me) = user else { return Ok(groups) };
    let mut mine = sql::all(
        db,
        &format!(
            "select r.id, r.name from users_subscribed s join rooms r on r.id = s.room_id
             where s.user_id = $1 and s.with_id is null and r.restricted_at is null
             and r.position is null and {SEEN}
             order by s.since desc limit $2"
        ),
        &[&me.0, &((limit - groups.len()) as i64)],
        group_in,
    )
    .await?;
    let left = limit - groups.len() - mine.len();
    mine.extend(moderation::restricted_groups(db, me, left).await?);
    mine.sort_by_cached_key(|room| match &room.kind {
        RoomKind::Group(name) => GroupName::key_of(name),
        RoomKind::Private { .. } => String::new(),
    });
    groups.extend(mine);
    Ok(groups)
}

/// The private room of two people, made if this is the first time anybody asks for it. While it
/// is open the other is kept from being handed out.
async fn private_room(db: &impl GenericClient, me: UserId, with: User, now: Millis) -> Sql<Room> {
    let (low, high) = (me.0.min(with.id.0), me.0.max(with.id.0));
    sql::run(
        db,
        "insert into rooms (id, kind, user_low, user_high, created_at)
         values ($1, 'private', $2, $3, $4) on conflict (user_low, user_high) do nothing",
        &[&RoomId::random().0, &low, &high, &now.0],
    )
    .await?;
    // Another node's, if that was first. Locked before anybody looks at who is in it.
    let id = sql::value(
        db,
        "select id from rooms where user_low = $1 and user_high = $2 for no key update",
        &[&low, &high],
    )
    .await?;
    Ok(Room {
        id: RoomId(id),
        kind: RoomKind::Private { with },
    })
}

/// The private room with the person of that user name, who is nobody else's until it is committed.
pub(super) async fn private_room_with(
    db: &impl GenericClient,
    me: UserId,
    name: &str,
    now: Millis,
) -> Sql<Entered> {
    let Some(with) = person(db, name).await? else {
        return Ok(Entered::NoSuchRoom);
    };
    if with.id == me {
        return Ok(Entered::Oneself);
    }
    lock_user(db, with.id).await?;
    let room = private_room(db, me, with.clone(), now).await?;
    keep(db, with.id, now).await?;
    Ok(Entered::Room(room))
}

pub(super) async fn make_group(
    db: &impl GenericClient,
    maker: UserId,
    name: &GroupName,
    now: Millis,
) -> Sql<bool> {
    if !may_write(db, maker).await? {
        return Ok(false);
    }
    let id = RoomId::random().0;
    let made = sql::run(
        db,
        "insert into rooms (id, kind, name, name_key, created_at)
         values ($1, 'group', $2, $3, $4) on conflict (name_key) do nothing",
        &[&id, &name.as_str(), &name.key(), &now.0],
    )
    .await?;
    if made > 0 {
        trace(db, maker, now).await?;
        sql::run(
            db,
            "insert into users_subscribed (user_id, room_id, since) values ($1, $2, $3)",
            &[&maker.0, &id, &now.0],
        )
        .await?;
    }
    Ok(true)
}

pub(super) async fn enter(
    writing: &mut Writing<'_>,
    client: ClientId,
    me: UserId,
    target: &Target,
) -> Sql<(Entered, Moved)> {
    let (db, now) = (writing.db, writing.now);
    let found = match target {
        Target::Group(name) => group(db, Some(me), name).await?.map(Entered::Room),
        Target::Room(id) => room(db, me, *id).await?.map(Entered::Room),
        Target::Private(name) => Some(private_room_with(db, me, name, now).await?),
    };
    let room = match found {
        Some(Entered::Room(room)) => room,
        refused => return Ok((refused.unwrap_or(Entered::NoSuchRoom), Moved::default())),
    };
    if let (Target::Room(_), RoomKind::Private { with }) = (target, &room.kind) {
        lock_user(db, with.id).await?;
        keep(db, with.id, now).await?;
    }
    let left = go_out(db, client, Some(room.id)).await?;
    let came = sql::one(
        db,
        "insert into clients_active (client_id, room_id, entered_at, user_id)
         values ($1, $2, $3, $4) on conflict (client_id) do nothing
         returning not exists (select 1 from clients_active a
            where a.room_id = $2 and a.user_id = $4 and a.client_id <> $1)",
        &[&client.0, &room.id.0, &now.0, &me.0],
        |row| row.try_get(0),
    )
    .await?;
    let came = came.unwrap_or(false);
    Ok((Entered::Room(room), Moved { came, left }))
}

/// The client looks at no room any more but at that one. Answers with the room that it looked at, if
/// no other of its user's does.
pub(super) async fn go_out(
    db: &impl GenericClient,
    client: ClientId,
    but: Option<RoomId>,
) -> Sql<Option<RoomId>> {
    sql::one(
        db,
        "with gone as (
            delete from clients_active where client_id = $1 and room_id is distinct from $2
            returning room_id, user_id)
         select g.room_id from gone g where not exists (
            select 1 from clients_active a
            where a.room_id = g.room_id and a.user_id = g.user_id and a.client_id <> $1)",
        &[&client.0, &but.map(|room| room.0)],
        |row| row.try_get(0).map(RoomId),
    )
    .await
}

/// What stands under a key of that author.
pub(super) async fn known(
    db: &impl GenericClient,
    author: UserId,
    key: uuid::Uuid,
) -> Sql<Option<Message>> {
    sql::one(
        db,
        &format!("select {MESSAGE} where m.user_id = $1 and m.key = $2"),
        &[&author.0, &key],
        message,
    )
    .await
}

pub(super) async fn post(writing: &mut Writing<'_>, post: &Post) -> Sql<Posted> {
    let (db, now) = (writing.db, writing.now);
    let known = async {
        match post.key {
            Some(key) => known(db, post.author, key).await,
            None => Ok(None),
        }
    };
    // Together: one answer is waited for.
    let (known, may_write) = tokio::try_join!(known, may_write(db, post.author))?;
    if let Some(known) = known {
        // What has become of it in a room that is closed to its author is not theirs to know.
        return Ok(match room(db, post.author, known.room).await? {
            Some(_) => Posted::Known(known),
            None => Posted::Settled,
        });
    }
    if !may_write {
        return Ok(Posted::Muted);
    }
    // The next version and the message in one statement.
    let written = sql::one(
        db,
        &format!(
            "{STEPPED}, written as (
                insert into messages
                    (room_id, user_id, author_name, text, key, made, changed, worded, created_at)
                select s.id, u.id, coalesce(u.display_name, u.name), $3, $4, s.version,
                    s.version, s.version, $5
                from stepped s, users u where u.id = $2 returning id
             )
             select s.id, s.history, s.version, s.user_low, s.user_high, w.id
             from stepped s, written w"
        ),
        &[
            &post.room.0,
            &post.author.0,
            &post.text.as_str(),
            &post.key,
            &now.0,
        ],
        |row| Ok((step_in(row)?, row.try_get::<_, i64>(5)?)),
    )
    .await?;
    let Some((step, id)) = written else {
        return Ok(Posted::NoSuchRoom);
    };
    let between = step.between;
    let people = between
        .as_ref()
        .map_or(std::slice::from_ref(&post.author), |both| both);
    let belonging = async {
        for user in people {
            let with = between.and_then(|both| both.into_iter().find(|other| other != user));
            tokio::try_join!(
                trace(db, *user, now),
                subscribe(db, *user, post, with, MessageId(id), now)
            )?;
        }
        Ok(())
    };
    let (message, ()) = tokio::try_join!(message_of(db, id), belonging)?;
    writing.tell(post.node, step, message.clone(), None);
    Ok(Posted::New(message))
}

/// A room's next version, and who is told beside those who look at it.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) version: Version,
    between: Option<[UserId; 2]>,
}

/// Brings room `$1` to its next version, if user `$2` belongs there. It was locked before, so that the
/// history is that of everything committed until then.
const STEPPED: &str = "with stepped as (
        update rooms set version = version + 1, history = life.history from life
        where id = $1
        and (kind = 'group' and removed_at is null and (restricted_at is null
                or exists (select 1 from users where id = $2 and moderator_at is not null))
            or $2 in (user_low, user_high))
        returning id, rooms.history, version, user_low, user_high
    ), noted as (
        insert into room_histories (room_id, history, first_version)
        select id, history, version from stepped on conflict do nothing
    )";

fn step_in(row: &Row) -> Sql<Step> {
    let between = Option::zip(row.try_get(3)?, row.try_get(4)?);
    Ok(Step {
        version: version_in(row)?,
        between: between.map(|(low, high)| [UserId(low), UserId(high)]),
    })
}

/// Brings a room to its next version, if `by` belongs there.
pub(super) async fn step(db: &impl GenericClient, room: RoomId, by: UserId) -> Sql<Option<Step>> {
    sql::one(
        db,
        &format!("{STEPPED} select id, history, version, user_low, user_high from stepped"),
        &[&room.0, &by.0],
        step_in,
    )
    .await
}

pub(super) async fn message_of(db: &impl GenericClient, id: i64) -> Sql<Message> {
    let statement = db
        .prepare_cached(&format!("select {MESSAGE} where m.id = $1"))
        .await?;
    message(&db.query_one(&statement, &[&id]).await?)
}

impl Writing<'_> {
    /// Puts a step on the stream of changes, with its message as it is now.
    pub(super) fn tell(
        &mut self,
        node: NodeId,
        step: Step,
        message: Message,
        reaction: Option<OwnReaction>,
    ) {
        let Step { version, between } = step;
        let change = Change {
            version,
            message,
            between,
            reaction,
        };
        self.changes.push((node, change));
    }
}

/// A message of that room, if `me` may know of it.
pub(super) async fn message_in(
    db: &impl GenericClient,
    me: UserId,
    in_room: RoomId,
    id: MessageId,
) -> Sql<Option<Message>> {
    if room(db, me, in_room).await?.is_none() {
        return Ok(None);
    }
    sql::one(
        db,
        &format!("select {MESSAGE} where m.id = $1 and m.room_id = $2"),
        &[&id.0, &in_room.0],
        message,
    )
    .await
}

/// A message, and the names of those who reacted to it, the first first.
pub(super) async fn open_message(
    db: &impl GenericClient,
    me: UserId,
    room: RoomId,
    message: MessageId,
    limit: usize,
) -> Sql<Option<(Message, Vec<(Emoji, String)>)>> {
    let Some(found) = message_in(db, me, room, message).await? else {
        return Ok(None);
    };
    let reactors: Vec<(String, String)> = sql::all(
        db,
        "select emoji, name from reactions where message_id = $1 order by id limit $2",
        &[&message.0, &(limit as i64)],
        |row| Ok((row.try_get(0)?, row.try_get(1)?)),
    )
    .await?;
    let known = |(emoji, name): (String, String)| Some((Emoji::new(&emoji)?, name));
    Ok(Some((
        found,
        reactors.into_iter().filter_map(known).collect(),
    )))
}

pub(super) async fn reactions_of(
    db: &impl GenericClient,
    user: UserId,
    room: RoomId,
    (first, last): (MessageId, MessageId),
    limit: usize,
) -> Sql<Vec<(MessageId, Emoji)>> {
    let rows: Vec<(i64, String)> = sql::all(
        db,
        "select message_id, emoji from reactions
         where user_id = $1 and room_id = $2 and message_id between $3 and $4
         order by message_id desc limit $5",
        &[&user.0, &room.0, &first.0, &last.0, &(limit as i64)],
        |row| Ok((row.try_get(0)?, row.try_get(1)?)),
    )
    .await?;
    let known = |(message, emoji): (i64, String)| Some((MessageId(message), Emoji::new(&emoji)?));
    Ok(rows.into_iter().filter_map(known).collect())
}

/// The two people of a private room.
pub(super) async fn pair(db: &impl GenericClient, room: RoomId) -> Sql<Option<[User; 2]>> {
    let pair = sql::all(
        db,
        &format!(
            "select {USER} from rooms r join users u on u.id in (r.user_low, r.user_high)
             where r.id = $1"
        ),
        &[&room.0],
        user,
    )
    .await?;
    Ok(pair.try_into().ok())
}

pub(super) async fn amend(writing: &mut Writing<'_>, amend: &Amend) -> Sql<Amended> {
    let (db, now) = (writing.db, writing.now);
    let new = amend.text.as_ref().map(MessageText::as_str);
    let Some(found) = message_in(db, amend.author, amend.room, amend.message).await? else {
        return Ok(Amended::NoSuchMessage);
    };
    let own = found.author.id == amend.author;
    if !own && (new.is_some() || !may_moderate(db, amend.author, amend.room).await?) {
        return Ok(Amended::NotYours);
    }
    match (found.deleted, new) {
        (true, Some(_)) => return Ok(Amended::Deleted),
        (true, None) => return Ok(Amended::Already(found)),
        (false, new) if new == Some(&found.text) => return Ok(Amended::Already(found)),
        (false, _) if !may_write(db, amend.author).await? => return Ok(Amended::Muted),
        (false, _) => {}
    }
    let Some(step) = step(db, amend.room, amend.author).await? else {
        return Ok(Amended::NoSuchMessage);
    };
    sql::run(
        db,
        "update messages set changed = $1, worded = $1, text = coalesce($2::text, text),
            edited_at = case when $2::text is null then edited_at else $3 end,
            deleted_at = case when $2::text is null then $3::bigint end,
            deleted_by = case when user_id <> $4 then $4 end
         where id = $5",
        &[
            &number(step.version.number),
            &new,
            &now.0,
            &amend.author.0,
            &found.id.0,
        ],
    )
    .await?;
    if !own {
        moderation::deleted(db, amend.author, &found, now).await?;
    }
    if new.is_none() && step.between.is_some() {
        // What is no more is not to be read any more either.
        sql::run(
            db,
            "update users_subscribed s set
                unread = (select count(*) from (
                    select 1 from messages m
                    where m.room_id = s.room_id and m.id > s.read_message_id
                    and m.user_id <> s.user_id and m.deleted_at is null limit $4) unread)
             where room_id = $1 and user_id <> $2 and read_message_id < $3",
            &[&amend.room.0, &amend.author.0, &found.id.0, &UNREAD_AT_MOST],
        )
        .await?;
    }
    let message = message_of(db, found.id.0).await?;
    writing.tell(amend.node, step, message.clone(), None);
    Ok(Amended::Done(message))
}

pub(super) async fn react(writing: &mut Writing<'_>, react: &React) -> Sql<Reacted> {
    let (db, now) = (writing.db, writing.now);
    let (user, id, emoji) = (react.user.0, react.message.0, react.emoji.as_str());
    let Some(mut found) = message_in(db, react.user, react.room, react.message).await? else {
        return Ok(Reacted::NoSuchMessage);
    };
    if found.deleted {
        return Ok(Reacted::Deleted);
    }
    if !may_write(db, react.user).await? {
        return Ok(Reacted::Muted);
    }
    let is_on: bool = sql::value(
        db,
        "select exists (select 1 from reactions
         where message_id = $1 and emoji = $2 and user_id = $3)",
        &[&id, &emoji, &user],
    )
    .await?;
    if is_on == react.on {
        return Ok(Reacted::Already);
    }
    let reactions = &mut found.reactions;
    let at = reactions.iter().position(|one| one.emoji == react.emoji);
    let at = match at {
        None if reactions.len() >= Reaction::EMOJIS => return Ok(Reacted::TooMany),
        None => {
            reactions.push(Reaction {
                emoji: react.emoji,
                count: 0,
                names: Vec::new(),
            });
            reactions.len() - 1
        }
        Some(at) => at,
    };
    let Some(step) = step(db, react.room, react.user).await? else {
        return Ok(Reacted::NoSuchMessage);
    };
    match react.on {
        true => {
            sql::run(
                db,
                "insert into reactions (message_id, room_id, user_id, emoji, name, created_at)
                 select $1, $2, id, $3, coalesce(display_name, name), $4
                 from users where id = $5",
                &[&id, &react.room.0, &emoji, &now.0, &user],
            )
            .await?;
            trace(db, react.user, now).await?;
            reactions[at].count += 1;
        }
        false => {
            sql::run(
                db,
                "delete from reactions where message_id = $1 and emoji = $2 and user_id = $3",
                &[&id, &emoji, &user],
            )
            .await?;
            reactions[at].count = reactions[at].count.saturating_sub(1);
        }
    }
    reactions[at].names = sql::all(
        db,
        "select name from reactions where message_id = $1 and emoji = $2 order by id limit $3",
        &[&id, &emoji, &(Reaction::NAMES as i64)],
        |row| row.try_get(0),
    )
    .await?;
    reactions.retain(|one| one.count > 0);
    sql::run(
        db,
        "update messages set changed = $1, reactions = $2 where id = $3",
        &[
            &number(step.version.number),
            &reactions_json(reactions),
            &id,
        ],
    )
    .await?;
    let message = message_of(db, id).await?;
    let own = OwnReaction {
        user: react.user,
        emoji: react.emoji,
        on: react.on,
    };
    writing.tell(react.node, step, message, Some(own));
    Ok(Reacted::Done)
}

/// The user belongs to the room from now on; in a private room the message is unread for the
/// other and has been read by its author.
async fn subscribe(
    db: &impl GenericClient,
    user: UserId,
    post: &Post,
    with: Option<UserId>,
    message: MessageId,
    now: Millis,
) -> Sql<()> {
    if with.is_none() {
        sql::run(
            db,
            "insert into users_subscribed (user_id, room_id, since) values ($1, $2, $3)
             on conflict do nothing",
            &[&user.0, &post.room.0, &now.0],
        )
        .await?;
        return Ok(());
    }
    let own = user == post.author;
    sql::run(
        db,
        "insert into users_subscribed as s
            (user_id, room_id, since, with_id, last_message_id, unread)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (user_id, room_id) do update set
            last_message_id = excluded.last_message_id,
            unread = least(s.unread + excluded.unread, $7)",
        &[
            &user.0,
            &post.room.0,
            &now.0,
            &with.map(|with| with.0),
            &message.0,
            &i64::from(!own),
            &UNREAD_AT_MOST,
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn mark_read(
    db: &impl GenericClient,
    user: UserId,
    room: RoomId,
    upto: MessageId,
) -> Sql<()> {
    sql::run(
        db,
        "update users_subscribed s set
            read_message_id = least($1, s.last_message_id),
            unread = (select count(*) from (
                select 1 from messages m where m.room_id = s.room_id and m.id > $1
                and m.user_id <> s.user_id and m.deleted_at is null limit $4) unread)
         where s.user_id = $2 and s.room_id = $3 and s.read_message_id < $1",
        &[&upto.0, &user.0, &room.0, &UNREAD_AT_MOST],
    )
    .await?;
    Ok(())
}

/// The rooms that change when a client goes into another.
pub(super) fn rooms_of(client: ClientId, target: &Target) -> super::writer::Rooms {
    let mut rooms = super::writer::Rooms::none();
    rooms.of.push(client);
    match target {
        Target::Group(name) => rooms.named.push(sought(&GroupName::key_of(name))),
        Target::Room(id) => rooms.ids.push(*id),
        Target::Private(_) => {}
    }
    rooms
}
