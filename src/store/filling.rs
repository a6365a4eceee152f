//! Filling a chat with people, rooms and messages that nobody typed: many rows in each transaction, and no
//! changes for anybody to see. No server may be running on the database.

use std::collections::{BTreeSet, HashMap};

use futures_util::future::try_join_all;

use super::messages::{NewMessage, begin_history, insert_message, set_read, set_version};
use super::people::rename;
use super::tx::{Failure, Locks, Sql, Tx};
use super::{Result, Store, StoreError};
use crate::model::{
    DisplayName, GroupName, MessageId, Millis, RoomId, Topic, User, UserId, Version, Wording,
};

/// How many statements wait for their answers at a time.
const AT_ONCE: usize = 500;

/// A room to add.
#[derive(Clone, Debug)]
pub enum NewRoom {
    /// A group.
    Group {
        /// Its name.
        name: GroupName,
        /// What it is about.
        topic: Option<Topic>,
        /// Who created it.
        made_by: UserId,
    },
    /// The private room of two people.
    Private([UserId; 2]),
}

/// A message to add.
#[derive(Clone, Debug)]
pub struct OldMessage {
    /// The room.
    pub room: RoomId,
    /// The author.
    pub author: UserId,
    /// The text.
    pub text: Wording,
    /// When it was written.
    pub at: Millis,
}

/// Somebody who belongs to a room.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The person.
    pub user: UserId,
    /// The room.
    pub room: RoomId,
    /// The other person of a private room.
    pub with: Option<UserId>,
    /// Since when they belong to it.
    pub since: Millis,
    /// The newest message of the room.
    pub last: MessageId,
    /// Up to which message they have read.
    pub read: MessageId,
}

impl Store {
    /// Turns at most this many free users into people who came at that moment, the oldest users first.
    pub async fn add_people(&self, count: usize, at: Millis) -> Result<Vec<User>> {
        self.write("add_people", Locks::none(), async move |tx| {
            let come = "update users set free = false, arrived_at = $1, traced_at = $1
                where id in (select id from users where free order by id limit $2)
                returning id, name, display_name";
            let mut people: Vec<User> = tx.all(come, &[&at, &count]).await?;
            people.sort_by_key(|user| user.id);
            Ok(people)
        })
        .await
    }

    /// Sets display names, except those that are taken.
    pub async fn name_people(&self, names: Vec<(UserId, DisplayName)>) -> Result<()> {
        self.write("name_people", Locks::none(), async move |tx| {
            for (user, name) in &names {
                match rename(tx, *user, Some(name), 1).await {
                    Ok(_) | Err(Failure::Store(StoreError::Refused(_))) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
        .await
    }

    /// Adds rooms. Returns their ids; none for a room that exists already.
    pub async fn add_rooms(&self, rooms: Vec<NewRoom>, at: Millis) -> Result<Vec<Option<RoomId>>> {
        self.write("add_rooms", Locks::none(), async move |tx| {
            let mut made = Vec::new();
            for rooms in rooms.chunks(AT_ONCE) {
                let some = rooms.iter().map(async |room| {
                    let id = RoomId::random();
                    match room {
                        NewRoom::Group {
                            name,
                            topic,
                            made_by,
                        } => {
                            let group = "insert into rooms
                                    (id, kind, name, name_key, created_at, topic, made_by)
                                 values ($1, 'group', $2, $3, $4, $5, $6)
                                 on conflict do nothing returning id";
                            let topic = topic.as_ref().map(Topic::as_str);
                            let (name, key) = (name.as_str(), name.key());
                            tx.one(group, &[&id, &name, &key, &at, &topic, made_by])
                                .await
                        }
                        NewRoom::Private([one, other]) => {
                            let private = "insert into rooms
                                    (id, kind, user_low, user_high, created_at)
                                 values ($1, 'private', $2, $3, $4)
                                 on conflict do nothing returning id";
                            let (low, high) = (one.min(other), one.max(other));
                            tx.one(private, &[&id, low, high, &at]).await
                        }
                    }
                });
                made.extend(try_join_all(some).await?);
            }
            Ok(made)
        })
        .await
    }

    /// Adds messages to rooms, in this order. Returns their ids.
    pub async fn add_messages(&self, messages: Vec<OldMessage>) -> Result<Vec<MessageId>> {
        let rooms: BTreeSet<_> = messages.iter().map(|message| message.room).collect();
        let locks = Locks {
            rooms: rooms.iter().copied().collect(),
            ..Locks::none()
        };
        let rooms: Vec<i64> = rooms.into_iter().map(|room| room.0).collect();
        let authors: BTreeSet<_> = messages.iter().map(|message| message.author.0).collect();
        let authors: Vec<i64> = authors.into_iter().collect();
        self.write("add_messages", locks, async move |tx| {
            let (rooms, authors) = (&rooms, &authors);
            let names = format!(
                "select id, coalesce(display_name, name) from users where id {}",
                tx.among(1)
            );
            let names: Vec<(UserId, String)> = tx.all(&names, &[authors]).await?;
            let names: HashMap<_, _> = names.into_iter().collect();
            let versions = format!(
                "select id, history, version from rooms where id {}",
                tx.among(1)
            );
            let versions: Vec<Version> = tx.all(&versions, &[rooms]).await?;
            let mut versions: HashMap<_, _> = versions
                .into_iter()
                .map(|version| (version.room, version))
                .collect();
            let mut ids = Vec::new();
            for messages in messages.chunks(AT_ONCE) {
                let mut inserts = Vec::new();
                for message in messages {
                    let version = versions.get_mut(&message.room).ok_or(Failure::NoRow)?;
                    version.number += 1;
                    if version.history != tx.history {
                        version.history = tx.history;
                        begin_history(tx, *version).await?;
                    }
                    let new = NewMessage {
                        room: message.room,
                        author: message.author,
                        author_name: names.get(&message.author).ok_or(Failure::NoRow)?,
                        text: &message.text,
                        files: &[],
                        key: None,
                        made: version.number,
                        at: message.at,
                        reply_to: None,
                    };
                    inserts.push(insert_message(tx, new));
                }
                ids.extend(try_join_all(inserts).await?);
            }
            try_join_all(
                versions
                    .into_values()
                    .map(|version| set_version(tx, version)),
            )
            .await?;
            Ok(ids)
        })
        .await
    }

    /// Adds people to rooms, with what is unread for them.
    pub async fn add_members(&self, members: Vec<Member>) -> Result<()> {
        self.write("add_members", Locks::none(), async move |tx| {
            for members in members.chunks(AT_ONCE) {
                try_join_all(members.iter().map(|member| add_member(tx, member))).await?;
            }
            Ok(())
        })
        .await
    }
}

async fn add_member(tx: &Tx<'_>, member: &Member) -> Sql<()> {
    let Member {
        user,
        room,
        with,
        since,
        last,
        read,
    } = member;
    let insert = "insert into users_subscribed
            (user_id, room_id, since, with_id, last_message_id, read_message_id)
         values ($1, $2, $3, $4, $5, $6) on conflict do nothing";
    tx.run(insert, &[user, room, since, with, last, read])
        .await?;
    match with {
        Some(_) => set_read(tx, *user, *room, *read).await,
        None => Ok(()),
    }
}
