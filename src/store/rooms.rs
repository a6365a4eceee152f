//! Rooms: groups and private rooms, who may enter them, and who is in them.

use std::collections::HashSet;

use super::tx::{FromRow, Hold, Locks, Row, Sql, Tx, end_of, from_row, sought};
use super::users::{
    USER, check_may_write, held_standing, hold_user, person, record, reserve, standing, trace,
};
use super::{Actor, RESTRICTED, Refused, Result, Store};
use crate::model::{
    Busy, ClientId, ClientRef, GroupName, Listed, MessageId, Room, RoomId, RoomKind, Target, Topic,
    User, UserId, Version,
};

/// The effect of a client's move on the rooms it left and entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Whether no other tab of theirs showed the room before.
    pub joined: bool,
    /// The room that no tab of theirs shows any longer.
    pub left: Option<RoomId>,
    /// Whether they did not belong to the group before.
    pub is_first: bool,
}

impl Store {
    /// Moves the client into a room, and out of any other.
    pub async fn enter(&self, by: Actor, target: Target) -> Result<(Room, Moved)> {
        let locks = Locks {
            client: Some((by.client, Some(by.user))),
            rooms_of: vec![by.client.client],
            ..locks_of(&target)
        };
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
                left,
                ..Moved::default()
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
                    "insert into rooms (id, kind, name, name_key, created_at, made_by)
                 values ($1, 'group', $2, $3, $4, $5) on conflict (name_key) do nothing",
                    &[&id, &name.as_str(), &name.key(), &tx.now, &by.user],
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
    /// joined last, by name. The groups that a user has left are not listed.
    pub async fn groups(&self, user: Option<UserId>, limit: usize) -> Result<Vec<Listed>> {
        self.read("groups", async move |tx| groups(tx, user, limit).await)
            .await
    }

    /// The user leaves the group: it is no longer in their list. Repeating it changes nothing.
    pub async fn leave_group(&self, by: Actor, group: RoomId) -> Result<()> {
        self.write("leave_group", Locks::actor(by), async move |tx| {
            let left = "update users_subscribed set left_at = $1
                where user_id = $2 and room_id = $3 and with_id is null";
            tx.run(left, &[&tx.now, &by.user, &group]).await
        })
        .await
    }

    /// Turns the news of a group off or on, for a user who belongs to it.
    pub async fn mute_group(&self, by: Actor, group: RoomId, on: bool) -> Result<()> {
        self.write("mute_group", Locks::actor(by), async move |tx| {
            room(tx, by.user, group).await?.ok_or(Refused::NoSuchRoom)?;
            let muted = "update users_subscribed set muted = $1
                where user_id = $2 and room_id = $3 and with_id is null";
            tx.run(muted, &[&on, &by.user, &group]).await
        })
        .await
    }

    /// What a group is about, and whether the user may change that. The caller has checked that they may
    /// see the group.
    pub async fn topic(&self, user: UserId, group: RoomId) -> Result<(Option<String>, bool)> {
        self.ask("topic", async move |tx| topic(tx, user, group).await)
            .await
    }

    /// Whether the user has turned the news of a group off.
    pub async fn is_muted(&self, user: UserId, group: RoomId) -> Result<bool> {
        self.ask("is_muted", async move |tx| is_muted(tx, user, group).await)
            .await
    }

    /// Sets the topic of a group. Its creator and moderators may do that.
    pub async fn set_topic(&self, by: Actor, group: RoomId, topic: Option<Topic>) -> Result<()> {
        let locks = Locks::actor(by).room(group);
        self.write("set_topic", locks, async move |tx| {
            let found = room(tx, by.user, group).await?;
            let found = found.ok_or(Refused::NoSuchRoom)?;
            check_may_write(tx, by.user).await?;
            let is_maker = "select made_by is not distinct from $1 from rooms where id = $2";
            let is_maker: bool = tx.the(is_maker, &[&by.user, &group]).await?;
            if !is_maker && !may_moderate(tx, by.user, group).await? {
                return Err(Refused::NotMaker.into());
            }
            let sql = "update rooms set topic = $1 where id = $2 and kind = 'group'
                and topic is distinct from $1";
            let topic = topic.as_ref().map(Topic::as_str);
            let changed = tx.changed(sql, &[&topic, &group]).await?;
            if !is_maker
                && changed > 0
                && let RoomKind::Group(name) = found.kind
            {
                record(tx, by.user, &format!("changed the topic of #{name}")).await?;
            }
            Ok(())
        })
        .await
    }

    /// At most `limit` groups, those with the most people in them first.
    pub async fn busiest_groups(&self, limit: usize) -> Result<Vec<Busy>> {
        self.ask("busiest_groups", async move |tx| {
            busiest_groups(tx, limit).await
        })
        .await
    }

    /// At most `limit` groups whose names begin with this text, in any form of its letters, by name.
    pub async fn find_groups(&self, beginning: &str, limit: usize) -> Result<Vec<Busy>> {
        let beginnings = beginnings(beginning);
        self.read("find_groups", async move |tx| {
            let groups = format!(
                "select {BUSY} where r.name_key >= $1 and r.name_key < $2
                 and r.restricted_at is null and r.removed_at is null
                 order by r.name_key limit $3"
            );
            let mut found: Vec<Busy> = Vec::new();
            for beginning in &beginnings {
                let left = limit - found.len();
                let values = [beginning as _, &end_of(beginning) as _, &left as _];
                found.extend(tx.all::<Busy>(&groups, &values).await?);
            }
            Ok(found)
        })
        .await
    }

    /// The group of that name, if `me` can see it; without `me`, if everybody can. The names of
    /// restricted groups begin with [`RESTRICTED`].
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
    Busy { group, people, topic, active_at }
}

impl FromRow for Listed {
    fn read(row: &mut Row<'_>) -> Sql<Self> {
        Ok(Self {
            group: row.get()?,
            joined: row.get()?,
            muted: row.get()?,
            unread: row.get()?,
            named: ids(&row.get::<String>()?),
            here: ids(&row.get::<String>()?),
            read: row.get()?,
        })
    }
}

/// The ids in a text, with spaces between them.
fn ids(text: &str) -> Vec<MessageId> {
    let ids = text.split_whitespace().filter_map(|id| id.parse().ok());
    ids.map(MessageId).collect()
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
pub(super) const SHOWN: &str =
    "case when r.restricted_at is null then r.name else '!' || r.name end";

/// A [`Listed`] group `r` of the user `$1`, with their row `s`.
const LISTED: &str = "r.id, case when r.restricted_at is null then r.name else '!' || r.name end,
        s.user_id is not null and s.left_at is null, coalesce(s.muted, false),
        exists (select 1 from messages m where m.room_id = r.id and m.id > s.read_message_id
            and m.user_id <> s.user_id and m.deleted_at is null),
        coalesce((select string_agg(cast(id as text), ' ') from (select n.message_id as id
            from mentions n where n.user_id = s.user_id and n.room_id = r.id
            and n.message_id > s.read_message_id limit 100) by_name), ''),
        coalesce((select string_agg(cast(id as text), ' ') from (select m.id from messages m
            where m.room_id = r.id and m.here and m.id > s.read_message_id
            and m.user_id <> s.user_id and m.deleted_at is null and not s.muted
            limit 100) as everybody), ''),
        coalesce(s.read_message_id, 0)
    from rooms r left join users_subscribed s on s.user_id = $1 and s.room_id = r.id
    where r.kind = 'group' and r.removed_at is null";

/// A [`Busy`] group `r`.
const BUSY: &str = "r.id, r.name, r.people, r.topic,
        (select m.created_at from messages m where m.room_id = r.id order by m.id desc limit 1)
    from rooms r";

pub(super) async fn groups(tx: &Tx<'_>, user: Option<UserId>, limit: usize) -> Sql<Vec<Listed>> {
    let default = format!(
        "select {LISTED} and s.left_at is null and r.restricted_at is null
                 and r.position is not null order by r.position limit $2"
    );
    let mut groups: Vec<Listed> = tx.all(&default, &[&user, &limit]).await?;
    let Some(me) = user else { return Ok(groups) };
    let mine = format!(
        "select {LISTED} and s.left_at is null and s.user_id = $1 and s.with_id is null
                 and r.restricted_at is null and r.position is null
                 order by s.since desc limit $2"
    );
    let left = limit - groups.len();
    let mut mine: Vec<Listed> = tx.all(&mine, &[&me, &left]).await?;
    if standing(tx, me).await?.moderator {
        let restricted =
            format!("select {LISTED} and r.restricted_at is not null order by r.name_key limit $2");
        let left = left - mine.len();
        mine.extend(tx.all::<Listed>(&restricted, &[&me, &left]).await?);
    }
    mine.sort_by_cached_key(|listed| match &listed.group.kind {
        RoomKind::Group(name) => GroupName::key_of(name),
        RoomKind::Private { .. } => String::new(),
    });
    groups.extend(mine);
    Ok(groups)
}

/// The private room of a user with the person of that name, if it exists.
pub(super) async fn private_room_of(tx: &Tx<'_>, me: UserId, name: &str) -> Sql<Option<Room>> {
    let Some(with) = person(tx, name).await? else {
        return Ok(None);
    };
    let (low, high) = (me.min(with.id), me.max(with.id));
    let sql = "select id from rooms where user_low = $1 and user_high = $2";
    let id: Option<RoomId> = tx.one(sql, &[&low, &high]).await?;
    let kind = RoomKind::Private { with };
    Ok(id.map(|id| Room { id, kind }))
}

pub(super) async fn is_muted(tx: &Tx<'_>, user: UserId, group: RoomId) -> Sql<bool> {
    let muted = "select exists (select 1 from users_subscribed
                where user_id = $1 and room_id = $2 and muted)";
    tx.the(muted, &[&user, &group]).await
}

pub(super) async fn topic(tx: &Tx<'_>, user: UserId, group: RoomId) -> Sql<(Option<String>, bool)> {
    let topic = "select topic, made_by is not distinct from $1 or exists
                    (select 1 from users me where me.id = $1 and me.moderator_at is not null)
                from rooms where kind = 'group' and id = $2";
    let found = tx.one(topic, &[&user, &group]).await?;
    Ok(found.unwrap_or((None, false)))
}

pub(super) async fn busiest_groups(tx: &Tx<'_>, limit: usize) -> Sql<Vec<Busy>> {
    let groups = format!(
        "select {BUSY} where r.kind = 'group'
                 and r.restricted_at is null and r.removed_at is null
                 order by r.people desc, r.name_key limit $1"
    );
    tx.all(&groups, &[&limit]).await
}

/// A room as `me` sees it, if they can see it.
pub(super) async fn room(tx: &Tx<'_>, me: UserId, id: RoomId) -> Sql<Option<Room>> {
    let sql = format!("select {} and r.id = $2", room_columns());
    Ok(tx.rows(&sql, &[&me, &id], read_room).await?.pop())
}

/// Those of these rooms that `me` can see, as they see them, in any order.
pub(super) async fn rooms(tx: &Tx<'_>, me: UserId, ids: Vec<i64>) -> Sql<Vec<Room>> {
    let sql = format!("select {} and r.id {}", room_columns(), tx.among(2));
    tx.rows(&sql, &[&me, &ids], read_room).await
}

/// The columns of a room as `$1` sees it, if they can see it.
fn room_columns() -> String {
    format!(
        "r.id, {SHOWN}, {USER} from rooms r
         left join users u
            on u.id = case when r.user_low = $1 then r.user_high else r.user_low end
         where (r.kind = 'group' and {VISIBLE} or $1 in (r.user_low, r.user_high))"
    )
}

fn read_room(row: &mut Row<'_>) -> Sql<Room> {
    let id = row.get()?;
    let kind = match row.get()? {
        Some(name) => RoomKind::Group(name),
        None => RoomKind::Private { with: row.get()? },
    };
    Ok(Room { id, kind })
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

pub(super) async fn group(tx: &Tx<'_>, me: Option<UserId>, name: &str) -> Sql<Option<Room>> {
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

/// From now on the user belongs to the group. What was written there before counts as read.
pub(super) async fn subscribe(tx: &Tx<'_>, user: UserId, group: RoomId) -> Sql<()> {
    let sql = "insert into users_subscribed as s (user_id, room_id, since, read_message_id)
        values ($1, $2, $3, coalesce((select max(id) from messages where room_id = $2), 0))
        on conflict (user_id, room_id) do update set since = excluded.since, left_at = null,
            read_message_id = excluded.read_message_id
        where s.left_at is not null";
    tx.run(sql, &[&user, &group, &tx.now]).await
}

/// What a client locks that enters a room.
pub(super) fn locks_of(target: &Target) -> Locks {
    let mut locks = Locks::none();
    match target {
        Target::Group(name) => locks.groups.extend(keys_of(name)),
        Target::Room(id) => locks.rooms.push(*id),
        Target::Private(_) => {}
    }
    locks
}

async fn enter(tx: &Tx<'_>, by: Actor, target: &Target) -> Sql<(Room, Moved)> {
    let room = match target {
        Target::Group(name) => group(tx, Some(by.user), name).await?,
        Target::Room(id) => room(tx, by.user, *id).await?,
        Target::Private(name) => Some(private_room_with(tx, by.user, name).await?),
    };
    let room = room.ok_or(Refused::NoSuchRoom)?;
    if let (Target::Room(_), RoomKind::Private { with }) = (target, &room.kind) {
        hold_user(tx, with.id).await?;
        reserve(tx, with.id).await?;
    }
    let moved = enter_room(tx, by.client.client, by.user, &room).await?;
    Ok((room, moved))
}

/// Moves the client into the room if it is a group that they may enter. A private room would have to lock the other
/// person, whose client may be arriving too.
pub(super) async fn enter_group(
    tx: &Tx<'_>,
    client: ClientId,
    me: UserId,
    target: &Target,
) -> Sql<Option<(Room, Moved)>> {
    let room = match target {
        Target::Group(name) => group(tx, Some(me), name).await?,
        Target::Room(id) => room(tx, me, *id).await?,
        Target::Private(_) => None,
    };
    match room {
        Some(room) if matches!(room.kind, RoomKind::Group(_)) => {
            let moved = enter_room(tx, client, me, &room).await?;
            Ok(Some((room, moved)))
        }
        _ => Ok(None),
    }
}

async fn enter_room(tx: &Tx<'_>, client: ClientId, me: UserId, room: &Room) -> Sql<Moved> {
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
    let is_first =
        matches!(room.kind, RoomKind::Group(_)) && read_mark(tx, me, room.id).await?.is_none();
    if is_first {
        subscribe(tx, me, room.id).await?;
    }
    Ok(Moved {
        joined,
        left,
        is_first,
    })
}

/// Up to which message the user has read the room, if they belong to it.
pub(super) async fn read_mark(tx: &Tx<'_>, user: UserId, room: RoomId) -> Sql<Option<MessageId>> {
    let read = "select read_message_id from users_subscribed
        where user_id = $1 and room_id = $2 and left_at is null";
    tx.one(read, &[&user, &room]).await
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

/// Whether the user may delete other people's messages in a room: moderators may, in groups.
pub(super) async fn may_moderate(tx: &Tx<'_>, user: UserId, room: RoomId) -> Sql<bool> {
    let is_group = "select exists (select 1 from rooms
        where id = $1 and kind = 'group' and removed_at is null)";
    Ok(tx.the(is_group, &[&room]).await? && held_standing(tx, user).await?.moderator)
}
