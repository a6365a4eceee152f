//! What moderators do and look through, in SQL.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::people::{ONLINE, USER, lock_clients, person, trace, user};
use super::rooms::{MESSAGE, group_in, message, message_of, step};
use super::sql::{self, Sql, count, end_of, sought};
use super::writer::Writing;
use crate::model::{
    ClientId, GroupName, Message, MessageId, Millis, NodeId, Room, RoomId, TokenHash, User, UserId,
};
use crate::moderation::{
    Deed, DeedRecord, FoundMessages, GroupRecord, MessageRecord, Moderated, Moderation,
    PersonRecord, Search, Standing,
};
use crate::protocol::{FIRST_GROUP, PAGE_MESSAGES};
use crate::store::{ADMIN_LINK_GOOD_FOR, RESTRICTED, Returning};

/// How many messages one search looks at, and how many of them are fetched at one time.
const LOOKED_AT: usize = 20_000;
const FETCHED: usize = 500;

const STANDING: &str = "select moderator_at is not null, muted_at is not null,
    banned_at is not null from users where id = $1";

fn standing_in(row: &Row) -> Sql<Standing> {
    Ok(Standing {
        moderator: row.try_get(0)?,
        muted: row.try_get(1)?,
        banned: row.try_get(2)?,
    })
}

pub(super) async fn standing(db: &impl GenericClient, user: UserId) -> Sql<Standing> {
    let found = sql::one(db, STANDING, &[&user.0], standing_in).await;
    found.map(Option::unwrap_or_default)
}

pub(super) async fn banned(db: &impl GenericClient, users: &[UserId]) -> Sql<Vec<UserId>> {
    let users: Vec<i64> = users.iter().map(|user| user.0).collect();
    let sql = "select id from users where id = any($1) and banned_at is not null order by id";
    sql::all(db, sql, &[&users], |row| row.try_get(0).map(UserId)).await
}

/// What somebody may do, until this is committed: who takes it from them waits.
async fn held_standing(db: &impl GenericClient, user: UserId) -> Sql<Standing> {
    let sql = format!("{STANDING} for share");
    let found = sql::one(db, &sql, &[&user.0], standing_in).await?;
    Ok(found.unwrap_or_default())
}

/// Whether anything that the user writes is taken.
pub(super) async fn may_write(db: &impl GenericClient, user: UserId) -> Sql<bool> {
    let standing = held_standing(db, user).await?;
    Ok(!standing.muted && !standing.banned)
}

/// Whether the user may delete what others say in a room: a moderator, in groups.
pub(super) async fn may_moderate(db: &impl GenericClient, user: UserId, room: RoomId) -> Sql<bool> {
    Ok(group(db, room).await?.is_some() && held_standing(db, user).await?.moderator)
}

/// A moderator deleted what somebody else had said.
pub(super) async fn deleted(
    db: &impl GenericClient,
    by: UserId,
    message: &Message,
    now: Millis,
) -> Sql<()> {
    let group = group(db, message.room).await?;
    let name = group.map_or(String::new(), |group| group.name);
    // A name that somebody has chosen may be another's later.
    let (id, author) = (message.id, &message.author.user_name);
    let words = format!("deleted message {id} of {author} in #{name}");
    record(db, by, &words, now).await
}

/// The groups that are for moderators alone, for one of them.
pub(super) async fn restricted_groups(
    db: &impl GenericClient,
    user: UserId,
    limit: usize,
) -> Sql<Vec<Room>> {
    if !standing(db, user).await?.moderator {
        return Ok(Vec::new());
    }
    sql::all(
        db,
        "select id, '!' || name from rooms where restricted_at is not null and removed_at is null
         order by name_key limit $1",
        &[&(limit as i64)],
        group_in,
    )
    .await
}

pub(super) async fn moderate(writing: &mut Writing<'_>, moderation: &Moderation) -> Sql<Moderated> {
    let Moderation { node, by, deed, .. } = moderation;
    let (db, now) = (writing.db, writing.now);
    if !held_standing(db, *by).await?.moderator {
        return Ok(Moderated::NotAllowed);
    }
    match deed {
        Deed::RenameGroup { room, name } => rename_group(db, *by, *room, name, now).await,
        Deed::RemoveGroup { room } => remove_group(db, *by, *room, now).await,
        Deed::RestrictGroup { room, on } => restrict_group(db, *by, *room, *on, now).await,
        Deed::RestoreMessage { room, message } => {
            restore_message(writing, *node, *by, *room, *message).await
        }
        Deed::Mute { name, on } => mute(db, *by, name, *on, now).await,
        Deed::Ban { name, on } => ban(db, *by, name, *on, now).await,
    }
}

/// The room that a deed changes.
pub(super) fn room_of(deed: &Deed) -> Option<RoomId> {
    match deed {
        Deed::RenameGroup { room, .. }
        | Deed::RemoveGroup { room }
        | Deed::RestrictGroup { room, .. }
        | Deed::RestoreMessage { room, .. } => Some(*room),
        Deed::Mute { .. } | Deed::Ban { .. } => None,
    }
}

/// Puts a deed on record.
async fn record(db: &impl GenericClient, by: UserId, words: &str, now: Millis) -> Sql<()> {
    sql::run(
        db,
        "insert into deeds (at, moderator_id, moderator, deed)
         select $1, id, coalesce(display_name || ' (' || name || ')', name), $3
         from users where id = $2",
        &[&now.0, &by.0, &words],
    )
    .await
    .map(|_| ())
}

async fn done(
    db: &impl GenericClient,
    by: UserId,
    words: String,
    user: Option<UserId>,
    now: Millis,
) -> Sql<Moderated> {
    record(db, by, &words, now).await?;
    Ok(Moderated::Done { words, user })
}

/// A group that has not been removed.
struct Group {
    name: String,
    key: String,
    restricted: bool,
}

async fn group(db: &impl GenericClient, room: RoomId) -> Sql<Option<Group>> {
    sql::one(
        db,
        "select name, name_key, restricted_at is not null from rooms
         where id = $1 and kind = 'group' and removed_at is null",
        &[&room.0],
        |row| {
            Ok(Group {
                name: row.try_get(0)?,
                key: row.try_get(1)?,
                restricted: row.try_get(2)?,
            })
        },
    )
    .await
}

async fn is_key_taken(db: &impl GenericClient, key: &str, room: RoomId) -> Sql<bool> {
    sql::value(
        db,
        "select exists (select 1 from rooms where name_key = $1 and id <> $2)",
        &[&key, &room.0],
    )
    .await
}

async fn rename_group(
    db: &impl GenericClient,
    by: UserId,
    room: RoomId,
    name: &GroupName,
    now: Millis,
) -> Sql<Moderated> {
    let Some(former) = group(db, room).await? else {
        return Ok(Moderated::Nothing);
    };
    if former.key == FIRST_GROUP {
        return Ok(Moderated::Protected);
    }
    if former.name == name.as_str() {
        return Ok(Moderated::Already);
    }
    let prefix = if former.restricted { RESTRICTED } else { "" };
    let key = format!("{prefix}{}", name.key());
    if is_key_taken(db, &key, room).await? {
        return Ok(Moderated::NameTaken);
    }
    sql::run(
        db,
        "update rooms set name = $1, name_key = $2 where id = $3",
        &[&name.as_str(), &key, &room.0],
    )
    .await?;
    let words = format!("renamed #{} to #{}", former.name, name.as_str());
    done(db, by, words, None, now).await
}

async fn remove_group(
    db: &impl GenericClient,
    by: UserId,
    room: RoomId,
    now: Millis,
) -> Sql<Moderated> {
    let Some(group) = group(db, room).await? else {
        return Ok(Moderated::Nothing);
    };
    if group.key == FIRST_GROUP {
        return Ok(Moderated::Protected);
    }
    sql::run(
        db,
        "update rooms set removed_at = $1, name_key = '~' || id, position = null where id = $2",
        &[&now.0, &room.0],
    )
    .await?;
    sql::run(
        db,
        "delete from users_subscribed where room_id = $1",
        &[&room.0],
    )
    .await?;
    done(db, by, format!("removed #{}", group.name), None, now).await
}

async fn restrict_group(
    db: &impl GenericClient,
    by: UserId,
    room: RoomId,
    on: bool,
    now: Millis,
) -> Sql<Moderated> {
    let Some(Group {
        name,
        key,
        restricted,
    }) = group(db, room).await?
    else {
        return Ok(Moderated::Nothing);
    };
    if key == FIRST_GROUP {
        return Ok(Moderated::Protected);
    }
    if restricted == on {
        return Ok(Moderated::Already);
    }
    let key = match on {
        true => format!("{RESTRICTED}{key}"),
        false => key.trim_start_matches(RESTRICTED).to_owned(),
    };
    if is_key_taken(db, &key, room).await? {
        return Ok(Moderated::NameTaken);
    }
    sql::run(
        db,
        "update rooms set restricted_at = $1, name_key = $2 where id = $3",
        &[&on.then_some(now.0), &key, &room.0],
    )
    .await?;
    let words = match on {
        true => format!("restricted #{name} to moderators"),
        false => format!("opened #{name} to everybody"),
    };
    done(db, by, words, None, now).await
}

async fn restore_message(
    writing: &mut Writing<'_>,
    node: NodeId,
    by: UserId,
    room: RoomId,
    id: MessageId,
) -> Sql<Moderated> {
    let (db, now) = (writing.db, writing.now);
    let found: Option<(bool, String)> = sql::one(
        db,
        "select m.deleted_by is not null, u.name from messages m
         join rooms r on r.id = m.room_id
         join users u on u.id = m.user_id
         where m.id = $1 and m.room_id = $2 and r.kind = 'group' and r.removed_at is null",
        &[&id.0, &room.0],
        |row| Ok((row.try_get(0)?, row.try_get(1)?)),
    )
    .await?;
    let author = match found {
        None => return Ok(Moderated::Nothing),
        // What its author deleted is the author's to delete.
        Some((false, _)) => return Ok(Moderated::Already),
        Some((true, author)) => author,
    };
    let Some(Group { name, .. }) = group(db, room).await? else {
        return Ok(Moderated::Nothing);
    };
    let Some(step) = step(db, room, by).await? else {
        return Ok(Moderated::NotAllowed);
    };
    sql::run(
        db,
        "update messages set deleted_at = null, deleted_by = null, changed = $1, worded = $1
         where id = $2",
        &[
            &i64::try_from(step.version.number).unwrap_or(i64::MAX),
            &id.0,
        ],
    )
    .await?;
    let message = message_of(db, id.0).await?;
    writing.tell(node, step, message, None);
    let words = format!("restored message {id} of {author} in #{name}");
    done(db, by, words, None, now).await
}

/// Somebody who has been here.
async fn somebody(
    db: &impl GenericClient,
    name: &str,
    is_so: impl Fn(Standing) -> bool,
) -> Sql<Result<User, Moderated>> {
    let Some(found) = person(db, name).await? else {
        return Ok(Err(Moderated::Nothing));
    };
    let standing = standing(db, found.id).await?;
    Ok(match standing {
        standing if standing.moderator => Err(Moderated::Protected),
        standing if is_so(standing) => Err(Moderated::Already),
        _ => Ok(found),
    })
}

async fn mute(
    db: &impl GenericClient,
    by: UserId,
    name: &str,
    on: bool,
    now: Millis,
) -> Sql<Moderated> {
    let user = match somebody(db, name, |standing| standing.muted == on).await? {
        Ok(user) => user,
        Err(moderated) => return Ok(moderated),
    };
    trace(db, user.id, now).await?;
    sql::run(
        db,
        "update users set muted_at = $1 where id = $2",
        &[&on.then_some(now.0), &user.id.0],
    )
    .await?;
    let did = if on { "muted" } else { "unmuted" };
    done(db, by, format!("{did} {}", user.name), Some(user.id), now).await
}

async fn ban(
    db: &impl GenericClient,
    by: UserId,
    name: &str,
    on: bool,
    now: Millis,
) -> Sql<Moderated> {
    let user = match somebody(db, name, |standing| standing.banned == on).await? {
        Ok(user) => user,
        Err(moderated) => return Ok(moderated),
    };
    // Whoever is just coming by a session holds that, and then their client.
    let sessions = "select 1 from sessions where user_id = $1 order by id for update";
    sql::run(db, sessions, &[&user.id.0]).await?;
    lock_clients(db, user.id).await?;
    trace(db, user.id, now).await?;
    sql::run(
        db,
        "update users set banned_at = $1 where id = $2",
        &[&on.then_some(now.0), &user.id.0],
    )
    .await?;
    if on {
        // They are not here any more. What is left of their clients is what their tabs are known by,
        // which nobody is let in by.
        let sql = "delete from clients_active
            where client_id in (select id from clients where user_id = $1)";
        sql::run(db, sql, &[&user.id.0]).await?;
        sql::run(
            db,
            "update clients set left_at = $1, cut_off = false, session_id = null
             where user_id = $2",
            &[&now.0, &user.id.0],
        )
        .await?;
        let sql = "delete from sessions where user_id = $1";
        sql::run(db, sql, &[&user.id.0]).await?;
    } else {
        // A guest's tab is who it was. Whoever keeps their name is not known by a tab alone, and
        // signs in.
        let sql = "delete from clients where user_id = $1 and not guest";
        sql::run(db, sql, &[&user.id.0]).await?;
    }
    let did = if on { "banned" } else { "unbanned" };
    done(db, by, format!("{did} {}", user.name), Some(user.id), now).await
}

/// Those of these clients that stand no more, or are in groups that have been closed to them.
pub(super) async fn strays(db: &impl GenericClient, clients: &[Returning]) -> Sql<Vec<ClientId>> {
    let ids: Vec<i64> = clients.iter().map(|client| client.client.0).collect();
    let visits: Vec<i64> = clients.iter().map(|client| client.visit).collect();
    sql::all(
        db,
        "select w.client from unnest($1::bigint[], $2::bigint[]) as w (client, visit)
         left join clients c on c.id = w.client and c.visit = w.visit and c.left_at is null
         left join users u on u.id = c.user_id
         left join clients_active a on a.client_id = c.id
         left join rooms r on r.id = a.room_id
         where c.id is null or u.banned_at is not null or r.removed_at is not null
         or r.restricted_at is not null and u.moderator_at is null",
        &[&ids, &visits],
        |row| row.try_get(0).map(ClientId),
    )
    .await
}

/// An address that makes a moderator; those that are too old go.
pub(super) async fn add_admin_link(
    db: &impl GenericClient,
    token: TokenHash,
    now: Millis,
) -> Sql<()> {
    sql::run(
        db,
        "delete from admin_links where made_at < $1",
        &[&now.before(ADMIN_LINK_GOOD_FOR).0],
    )
    .await?;
    sql::run(
        db,
        "insert into admin_links (token_hash, made_at) values ($1, $2)",
        &[&token.0.as_slice(), &now.0],
    )
    .await
    .map(|_| ())
}

const ADMIN_LINK: &str =
    "select made_at from admin_links where token_hash = $1 and made_at >= millis() - $2";

pub(super) async fn is_admin_link(db: &impl GenericClient, token: TokenHash) -> Sql<bool> {
    find_admin_link(db, ADMIN_LINK, token).await
}

/// Whether there is such an address, which nobody else uses until this is committed.
pub(super) async fn hold_admin_link(db: &impl GenericClient, token: TokenHash) -> Sql<bool> {
    find_admin_link(db, &format!("{ADMIN_LINK} for update"), token).await
}

async fn find_admin_link(db: &impl GenericClient, sql: &str, token: TokenHash) -> Sql<bool> {
    let good_for = Millis(0).after(ADMIN_LINK_GOOD_FOR).0;
    let found = sql::one(db, sql, &[&token.0.as_slice(), &good_for], |_| Ok(())).await?;
    Ok(found.is_some())
}

pub(super) async fn become_moderator(
    db: &impl GenericClient,
    token: TokenHash,
    user: UserId,
    now: Millis,
) -> Sql<bool> {
    let standing = held_standing(db, user).await?;
    if standing.banned || !hold_admin_link(db, token).await? {
        return Ok(false);
    }
    sql::run(
        db,
        "delete from admin_links where token_hash = $1",
        &[&token.0.as_slice()],
    )
    .await?;
    trace(db, user, now).await?;
    sql::run(
        db,
        "update users set moderator_at = $1, muted_at = null where id = $2",
        &[&now.0, &user.0],
    )
    .await?;
    record(db, user, "became a moderator", now).await?;
    Ok(true)
}

/// On the server's command line.
pub(super) async fn end_moderator(db: &impl GenericClient, name: &str, now: Millis) -> Sql<bool> {
    let name = sought(&name.to_lowercase());
    let was = "select id from users where name = $1 and moderator_at is not null";
    let Some(user) = sql::one(db, was, &[&name], |row| Ok(UserId(row.try_get(0)?))).await? else {
        return Ok(false);
    };
    lock_clients(db, user).await?;
    let ended = "update users set moderator_at = null where id = $1 and moderator_at is not null";
    if sql::run(db, ended, &[&user.0]).await? == 0 {
        return Ok(false);
    }
    // Their sockets come again, which shows them what is for everybody.
    let again = "update clients set visit = visit + 1 where user_id = $1";
    sql::run(db, again, &[&user.0]).await?;
    sql::run(
        db,
        "insert into deeds (at, moderator, deed) values ($1, 'the command line', $2)",
        &[&now.0, &format!("made {name} a moderator no more")],
    )
    .await?;
    Ok(true)
}

const GROUP_RECORD: &str =
    "id, name, name_key, people, version, created_at, restricted_at is not null from rooms";

fn record_of_group(row: &Row) -> Sql<GroupRecord> {
    Ok(GroupRecord {
        id: RoomId(row.try_get(0)?),
        name: row.try_get(1)?,
        key: row.try_get(2)?,
        people: count(row, 3)?,
        changes: count(row, 4)?,
        created_at: Millis(row.try_get(5)?),
        restricted: row.try_get(6)?,
    })
}

pub(super) async fn group_record(
    db: &impl GenericClient,
    room: RoomId,
) -> Sql<Option<GroupRecord>> {
    sql::one(
        db,
        &format!("select {GROUP_RECORD} where id = $1 and kind = 'group' and removed_at is null"),
        &[&room.0],
        record_of_group,
    )
    .await
}

/// The groups whose names begin so and whose keys come after one: those for moderators alone first.
pub(super) async fn group_records(
    db: &impl GenericClient,
    beginning: &str,
    after: &str,
    limit: usize,
) -> Sql<Vec<GroupRecord>> {
    let beginning = sought(&GroupName::key_of(beginning));
    let mut found = Vec::new();
    for prefix in [RESTRICTED, ""] {
        let from = format!("{prefix}{beginning}");
        let rows = sql::all(
            db,
            &format!(
                "select {GROUP_RECORD}
                 where name_key >= $1 and name_key < $2 and name_key > $3
                 and kind = 'group' and removed_at is null
                 and (restricted_at is not null) = $4
                 order by name_key limit $5"
            ),
            &[
                &from,
                &end_of(&from),
                &sought(after),
                &!prefix.is_empty(),
                &((limit - found.len()) as i64),
            ],
            record_of_group,
        )
        .await?;
        found.extend(rows);
    }
    Ok(found)
}

/// The people whose user names begin so and come after one; on the first page, those after them whose
/// display names begin so.
pub(super) async fn person_records(
    db: &impl GenericClient,
    beginning: &str,
    after: &str,
    limit: usize,
) -> Sql<Vec<PersonRecord>> {
    let mut found = Vec::new();
    let names = ("name", beginning.to_lowercase());
    let display_names = ("display_key", GroupName::key_of(beginning));
    let is_first = after.is_empty() && !beginning.is_empty();
    for (column, beginning) in [Some(names), is_first.then_some(display_names)]
        .into_iter()
        .flatten()
    {
        let beginning = sought(&beginning);
        let rows = sql::all(
            db,
            &format!(
                "select {USER}, {ONLINE},
                    u.moderator_at is not null, u.muted_at is not null, u.banned_at is not null,
                    u.arrived_at
                 from users u
                 where u.{column} >= $1 and u.{column} < $2 and u.{column} > $3
                 and u.arrived_at is not null
                 order by u.{column} limit $4"
            ),
            &[
                &beginning,
                &end_of(&beginning),
                &sought(after),
                &((limit - found.len()) as i64),
            ],
            person_record,
        )
        .await?;
        for record in rows {
            if !found.contains(&record) {
                found.push(record);
            }
        }
    }
    Ok(found)
}

fn person_record(row: &Row) -> Sql<PersonRecord> {
    Ok(PersonRecord {
        user: user(row)?,
        arrived_at: Millis(row.try_get(7)?),
        online: row.try_get(3)?,
        standing: Standing {
            moderator: row.try_get(4)?,
            muted: row.try_get(5)?,
            banned: row.try_get(6)?,
        },
    })
}

/// The first id in a room whose message was written at that moment or later, found by halving:
/// messages are written in the order of their ids.
async fn first_since(db: &impl GenericClient, room: RoomId, at: Millis) -> Sql<i64> {
    let last: Option<i64> = sql::one(
        db,
        "select id from messages where room_id = $1 order by id desc limit 1",
        &[&room.0],
        |row| row.try_get(0),
    )
    .await?;
    let (mut low, mut high) = (0, last.map_or(0, |last| last + 1));
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, i64)> = sql::one(
            db,
            "select id, created_at from messages where room_id = $1 and id >= $2
             order by id limit 1",
            &[&room.0, &middle],
            |row| Ok((row.try_get(0)?, row.try_get(1)?)),
        )
        .await?;
        match found {
            Some((id, written)) if written < at.0 => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

pub(super) async fn message_records(
    db: &impl GenericClient,
    search: &Search,
) -> Sql<FoundMessages> {
    let mut found = FoundMessages {
        messages: Vec::new(),
        before: None,
    };
    if group(db, search.room).await?.is_none() {
        return Ok(found);
    }
    let mut before = search.before.0;
    if let Some(until) = search.until {
        before = before.min(first_since(db, search.room, until).await?);
    }
    let words: Vec<_> = search
        .words
        .split_whitespace()
        .map(str::to_lowercase)
        .collect();
    let author = search.author.as_ref().map(|name| name.to_lowercase());
    let fits = |message: &Message| {
        let text = message.text.to_lowercase();
        author
            .as_ref()
            .is_none_or(|name| *name == message.author.user_name)
            && words.iter().all(|word| text.contains(word))
    };
    let columns = MESSAGE.replace(
        "case when m.deleted_at is null then m.text else '' end",
        "m.text",
    );
    let some =
        format!("select {columns} where m.room_id = $1 and m.id < $2 order by m.id desc limit $3");
    for _ in 0..LOOKED_AT / FETCHED {
        let rows = sql::all(
            db,
            &some,
            &[&search.room.0, &before, &(FETCHED as i64)],
            message,
        )
        .await?;
        let is_end = rows.len() < FETCHED;
        for message in rows {
            if search.from.is_some_and(|from| message.created_at < from) {
                return Ok(found);
            }
            before = message.id.0;
            if fits(&message) {
                let restorable = message.by_moderator;
                found.messages.push(MessageRecord {
                    message,
                    restorable,
                });
            }
            if found.messages.len() == PAGE_MESSAGES {
                found.before = Some(MessageId(before));
                return Ok(found);
            }
        }
        if is_end {
            return Ok(found);
        }
    }
    found.before = Some(MessageId(before));
    Ok(found)
}

pub(super) async fn deeds(
    db: &impl GenericClient,
    before: i64,
    limit: usize,
) -> Sql<Vec<DeedRecord>> {
    sql::all(
        db,
        "select id, at, moderator, deed from deeds where id < $1 order by id desc limit $2",
        &[&before, &(limit as i64)],
        |row| {
            Ok(DeedRecord {
                id: row.try_get(0)?,
                at: Millis(row.try_get(1)?),
                moderator: row.try_get(2)?,
                words: row.try_get(3)?,
            })
        },
    )
    .await
}
