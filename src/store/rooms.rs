//! Rooms: groups and private rooms, who may enter them, and who is in them.

use std::collections::HashSet;

use super::tx::{FromRow, Hold, Locks, Row, Sql, Tx, end_of, from_row, sought};
use super::users::{
    USER, check_may_write, held_standing, hold_user, person, reserve, standing, trace,
};
use super::{Actor, RESTRICTED, Refused, Result, Store};
use crate::model::{
    Busy, ClientId, ClientRef, GroupName, Room, RoomId, RoomKind, Target, User, UserId, Version,
};

/// The effect of a client's move on the rooms it left and entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Whether no other tab of theirs showed the room before.
    pub joined: bool,
    /// The room that no tab of theirs shows any longer.
    pub left: Option<RoomId>,
}

impl Store {
    /// Moves the client into a room, and out of any other.
    pub async fn enter(&self, by: Actor, target: Target) -> Result<(Room, Moved)> {
        let mut locks = Locks::actor(by);
        locks.rooms_of.push(by.client.client);
        match &target {
            Target::Group(name) => locks.groups.extend(keys_of(name)),
            Target::Room(id) => locks.rooms.push(*id),
            Target::Private(_) => {}
        }
        self.write("enter", locks, async move |tx| enter(tx, by, &target).await)
            .await
    }

    /// Moves the client out of its room.
    pub async fn leave_room(&self, client: ClientRef) -> Result<Moved> {
        let locks = Locks {
            client: Some((client, None)),
            ..Locks::rooms_of(vec![client.client])
        };
        self.write("leave_room", locks, async move |tx| {
            let left = look_away(tx, client.client, None).await?;
            Ok(Moved {
                joined: false,
                left,
            })
        })
        .await
    }

    /// The private room with the person of that user name, created if it does not exist. Nobody enters
    /// it.
    pub async fn private_room(&self, by: Actor, name: &str) -> Result<Room> {
        let name = name.to_owned();
        self.write("private_room", Locks::actor(by), async move |tx| {
            private_room_with(tx, by.user, &name).await
        })
        .await
    }

    /// The two people of a private room.
    pub async fn pair(&self, room: RoomId) -> Result<Option<[User; 2]>> {
        self.ask("pair", async move |tx| {
            let pair = format!(
                "select {USER} from rooms r join users u on u.id in (r.user_low, r.user_high)
                 where r.id = $1"
            );
            Ok(tx.all(&pair, &[&room]).await?.try_into().ok())
        })
        .await
    }

    /// Creates the group of that name, if it does not exist; its creator belongs to it. Repeating it
    /// changes nothing.
    pub async fn make_group(&self, by: Actor, name: GroupName) -> Result<()> {
        self.write("make_group", Locks::actor(by), async move |tx| {
            check_may_write(tx, by.user).await?;
            if group(tx, Some(by.user), name.as_str()).await?.is_some() {
                return Ok(());
            }
            let id = RoomId::random();
            let made = tx
                .changed(
                    "insert into rooms (id, kind, name, name_key, created_at)
                 values ($1, 'group', $2, $3, $4) on conflict (name_key) do nothing",
                    &[&id, &name.as_str(), &name.key(), &tx.now],
                )
                .await?;
            if made > 0 {
                trace(tx, by.user).await?;
                subscribe(tx, by.user, id).await?;
            }
            Ok(())
        })
        .await
    }

    /// At most `limit` groups: the default groups in their order; then, for a user, the groups they
    /// joined last, by name.
    pub async fn groups(&self, user: Option<UserId>, limit: usize) -> Result<Vec<Room>> {
        self.read("groups", async move |tx| {
            let default = "select id, name from rooms
                where position is not null and restricted_at is null order by position limit $1";
            let mut groups = tx.all(default, &[&limit]).await?;
            let Some(me) = user else { return Ok(groups) };
            let mine = format!(
                "select r.id, r.name from users_subscribed s join rooms r on r.id = s.room_id
                 where s.user_id = $1 and s.with_id is null and r.restricted_at is null
                 and r.position is null and {VISIBLE}
                 order by s.since desc limit $2"
            );
            let left = limit - groups.len();
            let mut mine = tx.all(&mine, &[&me, &left]).await?;
            mine.extend(restricted_groups(tx, me, left - mine.len()).await?);
            mine.sort_by_cached_key(|room| match &room.kind {
                RoomKind::Group(name) => GroupName::key_of(name),
                RoomKind::Private { .. } => String::new(),
            });
            groups.extend(mine);
            Ok(groups)
        })
        .await
    }

    /// At most `limit` groups, those with the most people in them first.
    pub async fn busiest_groups(&self, limit: usize) -> Result<Vec<Busy>> {
        self.ask("busiest_groups", async move |tx| {
            let groups = "select id, name, people from rooms
                where kind = 'group' and restricted_at is null and removed_at is null
                order by people desc, name_key limit $1";
            tx.all(groups, &[&limit]).await
        })
        .await
    }

    /// At most `limit` groups whose names begin with this text, in any form of its letters, by name.
    pub async fn find_groups(&self, beginning: &str, limit: usize) -> Result<Vec<Busy>> {
        let beginnings = beginnings(beginning);
        self.read("find_groups", async move |tx| {
            let groups = "select id, name, people from rooms
                where name_key >= $1 and name_key < $2
                and restricted_at is null and removed_at is null
                order by name_key limit $3";
            let mut found: Vec<Busy> = Vec::new();
            for beginning in &beginnings {
                let left = limit - found.len();
                let values = [beginning as _, &end_of(beginning) as _, &left as _];
                found.extend(tx.all::<Busy>(groups, &values).await?);
            }
            Ok(found)
        })
        .await
    }

    /// The group of that name, if `me` can see it; without `me`, if everybody can. The names of
    /// restricted groups begin with [`RESTRICTED`](super::RESTRICTED).
    pub async fn group(&self, name: &str, me: Option<UserId>) -> Result<Option<Room>> {
        let name = name.to_owned();
        self.ask("group", async move |tx| group(tx, me, &name).await)
            .await
    }

    /// The versions of these rooms, as far as they exist, in one snapshot and in any order.
    pub async fn versions(&self, rooms: Vec<RoomId>) -> Result<Vec<Version>> {
        let rooms: Vec<i64> = rooms.into_iter().map(|room| room.0).collect();
        self.ask("versions", async move |tx| {
            let versions = format!(
                "select id, history, version from rooms where id {}",
                tx.among(1)
            );
            tx.all(&versions, &[&rooms]).await
        })
        .await
    }
}

from_row! {
    Version { room, history, number }
    Busy { group, people }
}

/// A group, by its id and its name.
impl FromRow for Room {
    fn read(row: &mut Row<'_>) -> Sql<Self> {
        Ok(Self {
            id: row.get()?,
            kind: RoomKind::Group(row.get()?),
        })
    }
}

/// Whether `$1` can see a group `r`.
pub(super) const VISIBLE: &str = "r.removed_at is null and (r.restricted_at is null
    or exists (select 1 from users me where me.id = $1 and me.moderator_at is not null))";

/// The name of a group `r` as it is shown and found.
const SHOWN: &str = "case when r.restricted_at is null then r.name else '!' || r.name end";

/// A room as `me` sees it, if they can see it.
pub(super) async fn room(tx: &Tx<'_>, me: UserId, id: RoomId) -> Sql<Option<Room>> {
    let sql = format!(
        "select {SHOWN}, {USER} from rooms r
         left join users u
            on u.id = case when r.user_low = $1 then r.user_high else r.user_low end
         where (r.kind = 'group' and {VISIBLE} or $1 in (r.user_low, r.user_high)) and r.id = $2"
    );
    let read = |row: &mut Row<'_>| {
        let kind = match row.get()? {
            Some(name) => RoomKind::Group(name),
            None => RoomKind::Private { with: row.get()? },
        };
        Ok(Room { id, kind })
    };
    Ok(tx.rows(&sql, &[&me, &id], read).await?.pop())
}

/// The keys that a group of that name may have: the one that earlier versions made, which wins, and
/// the present one.
fn keys_of(name: &str) -> [String; 2] {
    [GroupName::former_key_of(name), GroupName::key_of(name)].map(|key| sought(&key))
}

/// How the keys of groups begin whose names begin with this text: in the order of the keys, and so that
/// no key begins with two of them.
pub(super) fn beginnings(text: &str) -> Vec<String> {
    let mut beginnings = keys_of(text).to_vec();
    beginnings.sort();
    beginnings.dedup_by(|longer, shorter| longer.starts_with(&**shorter));
    beginnings
}

async fn group(tx: &Tx<'_>, me: Option<UserId>, name: &str) -> Sql<Option<Room>> {
    let sql = format!(
        "select r.id, {SHOWN}, r.name_key from rooms r
         where {VISIBLE} and r.name_key in ($2, $3)"
    );
    let [former, key] = keys_of(name);
    let found: Vec<(Room, String)> = tx.all(&sql, &[&me, &former, &key]).await?;
    let found = found.into_iter().max_by_key(|(_, key)| *key == former);
    Ok(found.map(|(room, _)| room))
}

/// The groups whose keys the drivers fold when they migrate, oldest first: id, name and key.
pub(super) const KEYED_GROUPS: &str = "select id, name, name_key from rooms
    where kind = 'group' and removed_at is null order by created_at, id";
/// Sets the key of a group.
pub(super) const SET_KEY: &str = "update rooms set name_key = $1 where id = $2";

/// The groups that get another key, so that all forms of a name have one. Of several groups whose names
/// are the same now, one that has that key already keeps it, otherwise the oldest gets it. The others
/// stay as they are.
pub(super) fn folded_keys(groups: Vec<(i64, String, String)>) -> Vec<(String, i64)> {
    let mut taken: HashSet<_> = groups.iter().map(|(_, _, key)| key.clone()).collect();
    let folded = groups.into_iter().filter_map(|(id, name, key)| {
        let prefix = if key.starts_with(RESTRICTED) {
            RESTRICTED
        } else {
            ""
        };
        let folded = format!("{prefix}{}", GroupName::key_of(&name));
        taken.insert(folded.clone()).then_some((folded, id))
    });
    folded.collect()
}

/// The private room with the person of that user name, created if it does not exist. Until the commit
/// that user is not given to anybody else; while the room is open, the user is reserved.
async fn private_room_with(tx: &Tx<'_>, me: UserId, name: &str) -> Sql<Room> {
    let with = person(tx, name).await?.ok_or(Refused::NoSuchRoom)?;
    if with.id == me {
        return Err(Refused::Oneself.into());
    }
    hold_user(tx, with.id).await?;
    let (low, high) = (me.min(with.id), me.max(with.id));
    tx.run(
        "insert into rooms (id, kind, user_low, user_high, created_at)
         values ($1, 'private', $2, $3, $4) on conflict (user_low, user_high) do nothing",
        &[&RoomId::random(), &low, &high, &tx.now],
    )
    .await?;
    // Another node may have been first. Locked before checking who is in it.
    let room = "select id from rooms where user_low = $1 and user_high = $2";
    let room = tx.hold(room, Hold::Change);
    let id = tx.the(&room, &[&low, &high]).await?;
    reserve(tx, with.id).await?;
    let kind = RoomKind::Private { with };
    Ok(Room { id, kind })
}

/// From now on the user belongs to the group.
pub(super) async fn subscribe(tx: &Tx<'_>, user: UserId, group: RoomId) -> Sql<()> {
    let sql = "insert into users_subscribed (user_id, room_id, since) values ($1, $2, $3)
        on conflict do nothing";
    tx.run(sql, &[&user, &group, &tx.now]).await
}

async fn enter(tx: &Tx<'_>, by: Actor, target: &Target) -> Sql<(Room, Moved)> {
    let (client, me) = (by.client.client, by.user);
    let room = match target {
        Target::Group(name) => group(tx, Some(me), name).await?,
        Target::Room(id) => room(tx, me, *id).await?,
        Target::Private(name) => Some(private_room_with(tx, me, name).await?),
    };
    let room = room.ok_or(Refused::NoSuchRoom)?;
    if let (Target::Room(_), RoomKind::Private { with }) = (target, &room.kind) {
        hold_user(tx, with.id).await?;
        reserve(tx, with.id).await?;
    }
    let left = look_away(tx, client, Some(room.id)).await?;
    let looks = is_looked_at(tx, room.id, me).await?;
    let entered = tx
        .changed(
            "insert into clients_active (client_id, room_id, entered_at, user_id)
         values ($1, $2, $3, $4) on conflict (client_id) do nothing",
            &[&client, &room.id, &tx.now, &me],
        )
        .await?;
    let joined = entered > 0 && !looks;
    Ok((room, Moved { joined, left }))
}

/// Whether any client of the user shows the room.
async fn is_looked_at(tx: &Tx<'_>, room: RoomId, user: UserId) -> Sql<bool> {
    let sql = "select exists (select 1 from clients_active where room_id = $1 and user_id = $2)";
    tx.the(sql, &[&room, &user]).await
}

/// Moves the client out of every room except `but`. Returns the room that it showed, if no other client
/// of its user shows it.
async fn look_away(tx: &Tx<'_>, client: ClientId, but: Option<RoomId>) -> Sql<Option<RoomId>> {
    let look_away = "delete from clients_active
        where client_id = $1 and room_id is distinct from $2 returning room_id, user_id";
    match tx.one(look_away, &[&client, &but]).await? {
        Some((room, user)) if !is_looked_at(tx, room, user).await? => Ok(Some(room)),
        _ => Ok(None),
    }
}

/// The restricted groups, if the user is a moderator.
async fn restricted_groups(tx: &Tx<'_>, user: UserId, limit: usize) -> Sql<Vec<Room>> {
    if !standing(tx, user).await?.moderator {
        return Ok(Vec::new());
    }
    let groups = "select id, '!' || name from rooms
        where restricted_at is not null and removed_at is null order by name_key limit $1";
    tx.all(groups, &[&limit]).await
}

/// Whether the user may delete other people's messages in a room: moderators may, in groups.
pub(super) async fn may_moderate(tx: &Tx<'_>, user: UserId, room: RoomId) -> Sql<bool> {
    let is_group = "select exists (select 1 from rooms
        where id = $1 and kind = 'group' and removed_at is null)";
    Ok(tx.the(is_group, &[&room]).await? && held_standing(tx, user).await?.moderator)
}
