//! What moderators do and look through, in SQL.

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{MESSAGE, USER, Writing, group_row, message, step, tell, trace, user};
use crate::model::{
    ClientId, GroupName, Message, MessageId, Millis, NodeId, Room, RoomId, TokenHash, User, UserId,
};
use crate::moderation::{
    Deed, DeedRecord, FoundMessages, GroupRecord, MessageRecord, Moderated, Moderation,
    PersonRecord, Search, Standing,
};
use crate::protocol::FIRST_GROUP;
use crate::store::{ADMIN_LINK_GOOD_FOR, RESTRICTED, Returning};

/// How many messages one search looks at.
const LOOKED_AT: usize = 20_000;

pub(super) fn standing(db: &Connection, user: UserId) -> rusqlite::Result<Standing> {
    db.prepare_cached(
        "select moderator_at is not null, muted_at is not null, banned_at is not null
         from users where id = ?",
    )?
    .query_one([user.0], |row| {
        Ok(Standing {
            moderator: row.get(0)?,
            muted: row.get(1)?,
            banned: row.get(2)?,
        })
    })
    .optional()
    .map(Option::unwrap_or_default)
}

/// Whether anything that the user writes is taken.
pub(super) fn may_write(db: &Connection, user: UserId) -> rusqlite::Result<bool> {
    let standing = standing(db, user)?;
    Ok(!standing.muted && !standing.banned)
}

/// Whether the user may delete what others say in a room: a moderator, in groups.
pub(super) fn may_moderate(db: &Connection, user: UserId, room: RoomId) -> rusqlite::Result<bool> {
    Ok(group(db, room)?.is_some() && standing(db, user)?.moderator)
}

/// A moderator deleted what somebody else had said.
pub(super) fn deleted(
    db: &Connection,
    by: UserId,
    message: &Message,
    now: Millis,
) -> rusqlite::Result<()> {
    let name = group(db, message.room)?.map_or(String::new(), |(name, ..)| name);
    // A name that somebody has chosen may be another's later.
    let (id, author) = (message.id, &message.author.user_name);
    record(
        db,
        by,
        &format!("deleted message {id} of {author} in #{name}"),
        now,
    )
}

/// The groups that are for moderators alone, for one of them.
pub(super) fn restricted_groups(
    db: &Connection,
    user: UserId,
    limit: usize,
) -> rusqlite::Result<Vec<Room>> {
    if !standing(db, user)?.moderator {
        return Ok(Vec::new());
    }
    db.prepare_cached(
        "select id, '!' || name from rooms where restricted_at is not null and removed_at is null
         order by name_key limit ?",
    )?
    .query_map([limit as i64], group_row)?
    .collect()
}

pub(super) fn moderate(
    writing: &mut Writing<'_>,
    moderation: &Moderation,
    now: Millis,
) -> rusqlite::Result<Moderated> {
    let Moderation { node, by, deed, .. } = moderation;
    let db = writing.db;
    if !standing(db, *by)?.moderator {
        return Ok(Moderated::NotAllowed);
    }
    match deed {
        Deed::RenameGroup { room, name } => rename_group(db, *by, *room, name, now),
        Deed::RemoveGroup { room } => remove_group(db, *by, *room, now),
        Deed::RestrictGroup { room, on } => restrict_group(db, *by, *room, *on, now),
        Deed::RestoreMessage { room, message } => {
            restore_message(writing, *node, *by, *room, *message, now)
        }
        Deed::Mute { name, on } => mute(db, *by, name, *on, now),
        Deed::Ban { name, on } => ban(db, *by, name, *on, now),
    }
}

/// Puts a deed on record.
pub(super) fn record(
    db: &Connection,
    by: UserId,
    words: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "insert into deeds (at, moderator_id, moderator, deed)
         select :now, id, coalesce(display_name || ' (' || name || ')', name), :deed
         from users where id = :by",
    )?
    .execute(named_params! { ":now": now.0, ":by": by.0, ":deed": words })?;
    Ok(())
}

fn done(
    db: &Connection,
    by: UserId,
    words: String,
    user: Option<UserId>,
    now: Millis,
) -> rusqlite::Result<Moderated> {
    record(db, by, &words, now)?;
    Ok(Moderated::Done { words, user })
}

/// A group that has not been removed: its name, its key, and whether it is for moderators alone.
fn group(db: &Connection, room: RoomId) -> rusqlite::Result<Option<(String, String, bool)>> {
    db.prepare_cached(
        "select name, name_key, restricted_at is not null from rooms
         where id = ? and kind = 'group' and removed_at is null",
    )?
    .query_one([room.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    .optional()
}

fn is_key_taken(db: &Connection, key: &str, room: RoomId) -> rusqlite::Result<bool> {
    db.prepare_cached("select exists (select 1 from rooms where name_key = ? and id <> ?)")?
        .query_one(params![key, room.0], |row| row.get(0))
}

fn rename_group(
    db: &Connection,
    by: UserId,
    room: RoomId,
    name: &GroupName,
    now: Millis,
) -> rusqlite::Result<Moderated> {
    let Some((former, key, restricted)) = group(db, room)? else {
        return Ok(Moderated::Nothing);
    };
    if key == FIRST_GROUP {
        return Ok(Moderated::Protected);
    }
    if former == name.as_str() {
        return Ok(Moderated::Already);
    }
    let prefix = if restricted { RESTRICTED } else { "" };
    let key = format!("{prefix}{}", name.key());
    if is_key_taken(db, &key, room)? {
        return Ok(Moderated::NameTaken);
    }
    db.prepare_cached("update rooms set name = ?, name_key = ? where id = ?")?
        .execute(params![name.as_str(), key, room.0])?;
    let words = format!("renamed #{former} to #{}", name.as_str());
    done(db, by, words, None, now)
}

fn remove_group(
    db: &Connection,
    by: UserId,
    room: RoomId,
    now: Millis,
) -> rusqlite::Result<Moderated> {
    let Some((name, key, _)) = group(db, room)? else {
        return Ok(Moderated::Nothing);
    };
    if key == FIRST_GROUP {
        return Ok(Moderated::Protected);
    }
    db.prepare_cached(
        "update rooms set removed_at = ?, name_key = '~' || id, position = null where id = ?",
    )?
    .execute(params![now.0, room.0])?;
    db.prepare_cached("delete from users_subscribed where room_id = ?")?
        .execute([room.0])?;
    done(db, by, format!("removed #{name}"), None, now)
}

fn restrict_group(
    db: &Connection,
    by: UserId,
    room: RoomId,
    on: bool,
    now: Millis,
) -> rusqlite::Result<Moderated> {
    let Some((name, key, restricted)) = group(db, room)? else {
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
    if is_key_taken(db, &key, room)? {
        return Ok(Moderated::NameTaken);
    }
    db.prepare_cached("update rooms set restricted_at = ?, name_key = ? where id = ?")?
        .execute(params![on.then_some(now.0), key, room.0])?;
    let words = match on {
        true => format!("restricted #{name} to moderators"),
        false => format!("opened #{name} to everybody"),
    };
    done(db, by, words, None, now)
}

fn restore_message(
    writing: &mut Writing<'_>,
    node: NodeId,
    by: UserId,
    room: RoomId,
    id: MessageId,
    now: Millis,
) -> rusqlite::Result<Moderated> {
    let db = writing.db;
    let found: Option<(bool, String)> = db
        .prepare_cached(
            "select m.deleted_by is not null, u.name from messages m
             join rooms r on r.id = m.room_id
             join users u on u.id = m.user_id
             where m.id = ? and m.room_id = ? and r.kind = 'group' and r.removed_at is null",
        )?
        .query_one(params![id.0, room.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let author = match found {
        None => return Ok(Moderated::Nothing),
        // What its author deleted is the author's to delete.
        Some((false, _)) => return Ok(Moderated::Already),
        Some((true, author)) => author,
    };
    let Some((name, ..)) = group(db, room)? else {
        return Ok(Moderated::Nothing);
    };
    let Some(step) = step(writing, room, by)? else {
        return Ok(Moderated::NotAllowed);
    };
    db.prepare_cached(
        "update messages set deleted_at = null, deleted_by = null, changed = :version,
            worded = :version where id = :id",
    )?
    .execute(named_params! { ":version": step.version.number, ":id": id.0 })?;
    tell(writing, node, step, id.0, None)?;
    let words = format!("restored message {id} of {author} in #{name}");
    done(db, by, words, None, now)
}

/// Somebody who has been here and may be moderated; else what there is to say of it.
fn person(
    db: &Connection,
    name: &str,
    is_so: impl Fn(Standing) -> bool,
) -> rusqlite::Result<Result<User, Moderated>> {
    let Some(found) = super::person(db, name)? else {
        return Ok(Err(Moderated::Nothing));
    };
    let standing = standing(db, found.id)?;
    Ok(match standing {
        standing if standing.moderator => Err(Moderated::Protected),
        standing if is_so(standing) => Err(Moderated::Already),
        _ => Ok(found),
    })
}

fn mute(
    db: &Connection,
    by: UserId,
    name: &str,
    on: bool,
    now: Millis,
) -> rusqlite::Result<Moderated> {
    let user = match person(db, name, |standing| standing.muted == on)? {
        Ok(user) => user,
        Err(moderated) => return Ok(moderated),
    };
    trace(db, user.id, now)?;
    db.prepare_cached("update users set muted_at = ? where id = ?")?
        .execute(params![on.then_some(now.0), user.id.0])?;
    let did = if on { "muted" } else { "unmuted" };
    done(db, by, format!("{did} {}", user.name), Some(user.id), now)
}

fn ban(
    db: &Connection,
    by: UserId,
    name: &str,
    on: bool,
    now: Millis,
) -> rusqlite::Result<Moderated> {
    let user = match person(db, name, |standing| standing.banned == on)? {
        Ok(user) => user,
        Err(moderated) => return Ok(moderated),
    };
    trace(db, user.id, now)?;
    db.prepare_cached("update users set banned_at = ? where id = ?")?
        .execute(params![on.then_some(now.0), user.id.0])?;
    if on {
        // They are not here any more. What is left of their clients is what their tabs are known by,
        // which nobody is let in by.
        db.prepare_cached(
            "delete from clients_active
             where client_id in (select id from clients where user_id = ?)",
        )?
        .execute([user.id.0])?;
        db.prepare_cached("update clients set left_at = ?, session_id = null where user_id = ?")?
            .execute(params![now.0, user.id.0])?;
        db.prepare_cached("delete from sessions where user_id = ?")?
            .execute([user.id.0])?;
    } else {
        // A guest's tab is who it was. Whoever keeps their name is not known by a tab alone, and
        // signs in.
        db.prepare_cached("delete from clients where user_id = ? and guest = 0")?
            .execute([user.id.0])?;
    }
    let did = if on { "banned" } else { "unbanned" };
    done(db, by, format!("{did} {}", user.name), Some(user.id), now)
}

/// Those of these clients that stand no more, or are in groups that have been closed to them.
pub(super) fn strays(db: &Connection, clients: &[Returning]) -> rusqlite::Result<Vec<ClientId>> {
    let mut stays = db.prepare_cached(
        "select 1 from clients c
         join users u on u.id = c.user_id
         left join clients_active a on a.client_id = c.id
         left join rooms r on r.id = a.room_id
         where c.id = ? and c.visit = ? and c.left_at is null and u.banned_at is null
         and r.removed_at is null and (r.restricted_at is null or u.moderator_at is not null)",
    )?;
    let mut strays = Vec::new();
    for Returning { client, visit } in clients {
        if !stays.exists(params![client.0, visit])? {
            strays.push(*client);
        }
    }
    Ok(strays)
}

/// An address that makes a moderator; those that are too old go.
pub(super) fn add_admin_link(
    db: &Connection,
    token: TokenHash,
    now: Millis,
) -> rusqlite::Result<()> {
    db.prepare_cached("delete from admin_links where made_at < ?")?
        .execute([now.before(ADMIN_LINK_GOOD_FOR).0])?;
    db.prepare_cached("insert into admin_links (token_hash, made_at) values (?, ?)")?
        .execute(params![token.0, now.0])?;
    Ok(())
}

pub(super) fn is_admin_link(
    db: &Connection,
    token: TokenHash,
    now: Millis,
) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "select exists (select 1 from admin_links where token_hash = ? and made_at >= ?)",
    )?
    .query_one(params![token.0, now.before(ADMIN_LINK_GOOD_FOR).0], |row| {
        row.get(0)
    })
}

pub(super) fn become_moderator(
    db: &Connection,
    token: TokenHash,
    user: UserId,
    now: Millis,
) -> rusqlite::Result<bool> {
    let standing = standing(db, user)?;
    if standing.banned || !is_admin_link(db, token, now)? {
        return Ok(false);
    }
    db.prepare_cached("delete from admin_links where token_hash = ?")?
        .execute([token.0])?;
    trace(db, user, now)?;
    db.prepare_cached("update users set moderator_at = ?, muted_at = null where id = ?")?
        .execute(params![now.0, user.0])?;
    record(db, user, "became a moderator", now)?;
    Ok(true)
}

/// On the server's command line.
pub(super) fn end_moderator(db: &Connection, name: &str, now: Millis) -> rusqlite::Result<bool> {
    let ended = db
        .prepare_cached(
            "update users set moderator_at = null where name = ? and moderator_at is not null",
        )?
        .execute([name.to_lowercase()])?;
    if ended > 0 {
        // Their sockets come again, which shows them what is for everybody.
        db.prepare_cached(
            "update clients set visit = visit + 1
             where user_id = (select id from users where name = ?)",
        )?
        .execute([name.to_lowercase()])?;
        db.prepare_cached(
            "insert into deeds (at, moderator, deed) values (?, 'the command line', ?)",
        )?
        .execute(params![
            now.0,
            format!("made {} a moderator no more", name.to_lowercase())
        ])?;
    }
    Ok(ended > 0)
}

const GROUP_RECORD: &str =
    "id, name, name_key, people, version, created_at, restricted_at is not null from rooms";

fn record_of_group(row: &Row<'_>) -> rusqlite::Result<GroupRecord> {
    Ok(GroupRecord {
        id: RoomId(row.get(0)?),
        name: row.get(1)?,
        key: row.get(2)?,
        people: row.get(3)?,
        changes: row.get(4)?,
        created_at: Millis(row.get(5)?),
        restricted: row.get(6)?,
    })
}

pub(super) fn group_record(db: &Connection, room: RoomId) -> rusqlite::Result<Option<GroupRecord>> {
    db.prepare_cached(&format!(
        "select {GROUP_RECORD} where id = ? and kind = 'group' and removed_at is null"
    ))?
    .query_one([room.0], record_of_group)
    .optional()
}

/// The groups whose names begin so and whose keys come after one: those for moderators alone first.
pub(super) fn group_records(
    db: &Connection,
    beginning: &str,
    after: &str,
    limit: usize,
) -> rusqlite::Result<Vec<GroupRecord>> {
    let beginning = GroupName::key_of(beginning);
    let mut found = Vec::new();
    for prefix in [RESTRICTED, ""] {
        let from = format!("{prefix}{beginning}");
        let rows = db
            .prepare_cached(&format!(
                "select {GROUP_RECORD}
                 where name_key >= :from and name_key < :to and name_key > :after
                 and kind = 'group' and removed_at is null
                 and (restricted_at is not null) = :restricted
                 order by name_key limit :limit"
            ))?
            .query_map(
                named_params! {
                    ":from": from,
                    ":to": format!("{from}\u{10ffff}"),
                    ":after": after,
                    ":restricted": !prefix.is_empty(),
                    ":limit": (limit - found.len()) as i64,
                },
                record_of_group,
            )?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        found.extend(rows);
    }
    Ok(found)
}

/// The people whose user names begin so and come after one; on the first page, those after them whose
/// display names begin so.
pub(super) fn person_records(
    db: &Connection,
    beginning: &str,
    after: &str,
    limit: usize,
) -> rusqlite::Result<Vec<PersonRecord>> {
    let mut found = Vec::new();
    let names = ("name", beginning.to_lowercase());
    let display_names = ("display_key", GroupName::key_of(beginning));
    let is_first = after.is_empty() && !beginning.is_empty();
    for (column, beginning) in [Some(names), is_first.then_some(display_names)]
        .into_iter()
        .flatten()
    {
        let rows = db
            .prepare_cached(&format!(
                "select {USER}, u.arrived_at,
                    exists (select 1 from clients c
                        where c.user_id = u.id and c.left_at is null),
                    u.moderator_at is not null, u.muted_at is not null, u.banned_at is not null
                 from users u
                 where u.{column} >= :from and u.{column} < :to and u.{column} > :after
                 and u.arrived_at is not null
                 order by u.{column} limit :limit"
            ))?
            .query_map(
                named_params! {
                    ":from": beginning,
                    ":to": format!("{beginning}\u{10ffff}"),
                    ":after": after,
                    ":limit": (limit - found.len()) as i64,
                },
                person_record,
            )?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        for record in rows {
            if !found.contains(&record) {
                found.push(record);
            }
        }
    }
    Ok(found)
}

fn person_record(row: &Row<'_>) -> rusqlite::Result<PersonRecord> {
    Ok(PersonRecord {
        user: user(row)?,
        arrived_at: Millis(row.get("arrived_at")?),
        online: row.get(4)?,
        standing: Standing {
            moderator: row.get(5)?,
            muted: row.get(6)?,
            banned: row.get(7)?,
        },
    })
}

/// The first id in a room whose message was written at that moment or later, found by halving:
/// messages are written in the order of their ids.
fn first_since(db: &Connection, room: RoomId, at: Millis) -> rusqlite::Result<i64> {
    let mut next = db.prepare_cached(
        "select id, created_at from messages where room_id = ? and id >= ? order by id limit 1",
    )?;
    let last: Option<i64> = db
        .prepare_cached("select id from messages where room_id = ? order by id desc limit 1")?
        .query_one([room.0], |row| row.get(0))
        .optional()?;
    let (mut low, mut high) = (0, last.map_or(0, |last| last + 1));
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, i64)> = next
            .query_one(params![room.0, middle], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        match found {
            Some((id, written)) if written < at.0 => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

pub(super) fn message_records(db: &Connection, search: &Search) -> rusqlite::Result<FoundMessages> {
    let Some(_) = group(db, search.room)? else {
        return Ok(FoundMessages {
            messages: Vec::new(),
            before: None,
        });
    };
    let mut before = search.before.0;
    if let Some(until) = search.until {
        before = before.min(first_since(db, search.room, until)?);
    }
    let words: Vec<_> = search
        .words
        .split_whitespace()
        .map(str::to_lowercase)
        .collect();
    let author = search.author.as_ref().map(|name| name.to_lowercase());
    let columns = MESSAGE.replace(
        "case when m.deleted_at is null then m.text else '' end",
        "m.text",
    );
    let mut rows = db.prepare_cached(&format!(
        "select {columns} where m.room_id = ? and m.id < ? order by m.id desc limit ?"
    ))?;
    let mut rows = rows.query(params![search.room.0, before, LOOKED_AT as i64])?;
    let (mut messages, mut looked_at, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        let found: Message = message(row)?;
        if search.from.is_some_and(|from| found.created_at < from) {
            return Ok(FoundMessages {
                messages,
                before: None,
            });
        }
        looked_at += 1;
        last = Some(found.id);
        let text = found.text.to_lowercase();
        let fits = author
            .as_ref()
            .is_none_or(|name| *name == found.author.user_name)
            && words.iter().all(|word| text.contains(word));
        if fits {
            let restorable = found.by_moderator;
            messages.push(MessageRecord {
                message: found,
                restorable,
            });
        }
        if messages.len() == crate::protocol::PAGE_MESSAGES {
            break;
        }
    }
    let goes_on = messages.len() == crate::protocol::PAGE_MESSAGES || looked_at == LOOKED_AT;
    Ok(FoundMessages {
        messages,
        before: last.filter(|_| goes_on),
    })
}

pub(super) fn deeds(
    db: &Connection,
    before: i64,
    limit: usize,
) -> rusqlite::Result<Vec<DeedRecord>> {
    db.prepare_cached(
        "select id, at, moderator, deed from deeds where id < ? order by id desc limit ?",
    )?
    .query_map(params![before, limit as i64], |row| {
        Ok(DeedRecord {
            id: row.get(0)?,
            at: Millis(row.get(1)?),
            moderator: row.get(2)?,
            words: row.get(3)?,
        })
    })?
    .collect()
}
