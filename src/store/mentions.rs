//! Mentions: what a text may refer to, and the people whom a message mentions.

use std::collections::{HashMap, HashSet};

use super::messages::MESSAGE;
use super::rooms::{SHOWN, VISIBLE, room, rooms};
use super::tx::{Sql, Tx};
use super::users::{USER, trace};
use super::{Result, Store};
use crate::model::{Found, Message, MessageId, RoomId, Sought, User, UserId, Wording};
use crate::search;

/// Whom a message mentions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// People by name. They may read the room, and the author is not among them.
    pub people: Vec<UserId>,
    /// Everybody in the group.
    pub here: bool,
    /// It mentioned everybody in the group, and no longer does.
    pub no_longer_here: bool,
    /// People whom it no longer mentions.
    pub no_longer: Vec<UserId>,
}

impl Store {
    /// What exists of what a text may refer to that this user writes in a room. Only what everybody there
    /// may see is found; a display name only if one person has it, and nobody has it as a user name.
    pub async fn referred(&self, by: UserId, room: RoomId, sought: Sought) -> Result<Found> {
        self.read("referred", async move |tx| {
            let Some((is_group, people)) = readers(tx, by, room).await? else {
                return Ok(Found::default());
            };
            Ok(Found {
                is_group,
                people: people_named(tx, &sought.people, &people).await?,
                groups: groups_named(tx, &sought.groups).await?,
                messages: messages_in(tx, room, &sought.messages).await?,
            })
        })
        .await
    }

    /// The newest messages that mention the user by name or, in their groups with news, everybody since
    /// they joined; before one if it is given, and at most `limit`. Those that they may no longer read are
    /// left out.
    pub async fn mentions(
        &self,
        me: UserId,
        before: Option<MessageId>,
        limit: usize,
    ) -> Result<search::Found> {
        let before = before.unwrap_or(MessageId(i64::MAX));
        self.read_at_length("mentions", async move |tx| {
            let ids = "select message_id from mentions where user_id = $1 and message_id < $2
                union select m.id from users_subscribed s join messages m on m.room_id = s.room_id
                where s.user_id = $1 and s.with_id is null and s.left_at is null and not s.muted
                    and m.here and m.id < $2 and m.created_at >= s.since
                    and m.user_id <> $1 and m.deleted_at is null
                order by 1 desc limit $3";
            let mut ids: Vec<i64> = tx.all(ids, &[&me, &before, &(limit + 1)]).await?;
            let more = ids.len() > limit;
            ids.truncate(limit);
            let by_id = format!(
                "select {MESSAGE} where m.id {} and m.deleted_at is null order by m.id desc",
                tx.among(1)
            );
            let messages: Vec<Message> = tx.all(&by_id, &[&ids]).await?;
            let there: HashSet<i64> = messages.iter().map(|message| message.room.0).collect();
            let there = rooms(tx, me, there.into_iter().collect()).await?;
            let room =
                |message: &Message| there.iter().find(|room| room.id == message.room).cloned();
            let messages = messages.into_iter();
            Ok(search::Found {
                messages: messages
                    .filter_map(|one| room(&one).map(|room| (one, room)))
                    .collect(),
                before: ids.last().filter(|_| more).map(|id| MessageId(*id)),
                ..search::Found::default()
            })
        })
        .await
    }
}

/// Whether a room that `me` can see is a group, and the condition under which a user `u` may read it.
async fn readers(tx: &Tx<'_>, me: UserId, room: RoomId) -> Sql<Option<(bool, String)>> {
    let sql = format!(
        "select r.restricted_at is not null, r.user_low, r.user_high from rooms r
         where (r.kind = 'group' and {VISIBLE} or $1 in (r.user_low, r.user_high)) and r.id = $2"
    );
    let found: Option<(bool, Option<UserId>, Option<UserId>)> = tx.one(&sql, &[&me, &room]).await?;
    Ok(found.map(|(is_restricted, low, high)| match (low, high) {
        (Some(low), Some(high)) => (false, format!("u.id in ({low}, {high})")),
        _ if is_restricted => (true, "u.moderator_at is not null".to_owned()),
        _ => (true, "true".to_owned()),
    }))
}

async fn people_named(
    tx: &Tx<'_>,
    keys: &Vec<String>,
    may_read: &str,
) -> Sql<HashMap<String, (User, bool)>> {
    let mut found = HashMap::new();
    if keys.is_empty() {
        return Ok(found);
    }
    for column in ["display_key", "name"] {
        let sql = format!(
            "select u.{column}, {USER}, {may_read} from users u
             where u.{column} {} and u.arrived_at is not null",
            tx.among(1)
        );
        let people: Vec<(String, User, bool)> = tx.all(&sql, &[keys]).await?;
        let mut count = HashMap::new();
        for (key, ..) in &people {
            *count.entry(key.clone()).or_insert(0) += 1;
        }
        let people = people.into_iter().filter(|(key, ..)| count[key] == 1);
        found.extend(people.map(|(key, user, may_read)| (key, (user, may_read))));
    }
    Ok(found)
}

async fn groups_named(tx: &Tx<'_>, keys: &Vec<String>) -> Sql<HashMap<String, String>> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "select name_key, name from rooms
         where name_key {} and restricted_at is null and removed_at is null",
        tx.among(1)
    );
    Ok(tx.all(&sql, &[keys]).await?.into_iter().collect())
}

async fn messages_in(
    tx: &Tx<'_>,
    room: RoomId,
    ids: &[MessageId],
) -> Sql<HashMap<MessageId, (Option<String>, String)>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let sql = format!(
        "select m.id, {SHOWN}, m.author_name from messages m join rooms r on r.id = m.room_id
         where m.id {} and m.deleted_at is null and (r.id = $2
            or r.kind = 'group' and r.restricted_at is null and r.removed_at is null)",
        tx.among(1)
    );
    let found: Vec<(MessageId, Option<String>, String)> = tx.all(&sql, &[&ids, &room]).await?;
    Ok(found
        .into_iter()
        .map(|(id, group, author)| (id, (group, author)))
        .collect())
}

/// Stores whom a new message mentions. A reply mentions the author of the original.
pub(super) async fn add(tx: &Tx<'_>, message: &Message, wording: &Wording) -> Sql<Mentions> {
    let author = message.author.id;
    let mut people = wording.mentions.clone();
    if let Some(original) = &message.reply_to
        && room(tx, original.author.id, message.room).await?.is_some()
    {
        people.push(original.author.id);
    }
    people.retain(|user| *user != author);
    people.sort();
    people.dedup();
    for user in &people {
        let sql = "insert into mentions (user_id, message_id, room_id) values ($1, $2, $3)
            on conflict do nothing";
        tx.run(sql, &[user, &message.id, &message.room]).await?;
        trace(tx, *user).await?;
    }
    Ok(Mentions {
        people,
        here: wording.here,
        ..Mentions::default()
    })
}

/// Stores whom a message mentions after it was edited or, without a text, deleted.
pub(super) async fn replace(
    tx: &Tx<'_>,
    message: &Message,
    wording: Option<&Wording>,
) -> Sql<Mentions> {
    let former = "delete from mentions where message_id = $1 returning user_id";
    let mut former: Vec<UserId> = tx.all(former, &[&message.id]).await?;
    former.sort();
    let was_here = "select here from messages where id = $1";
    let was_here: bool = tx.the(was_here, &[&message.id]).await?;
    let Some(wording) = wording else {
        return Ok(Mentions {
            no_longer: former,
            no_longer_here: was_here,
            ..Mentions::default()
        });
    };
    let mut mentions = add(tx, message, wording).await?;
    let people = std::mem::take(&mut mentions.people);
    let (still, new): (Vec<_>, _) = people.into_iter().partition(|user| former.contains(user));
    former.retain(|user| !still.contains(user));
    (mentions.people, mentions.no_longer) = (new, former);
    mentions.no_longer_here = was_here && !mentions.here;
    mentions.here &= !was_here;
    Ok(mentions)
}
