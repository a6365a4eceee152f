//! People: connecting and leaving, leases, names, and who is online.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::future::try_join_all;

use super::accounts::{self, session};
use super::rooms::{self, Moved};
use super::tx::{Hold, Locks, Sql, Tx, end_of, from_row, sought, span};
use super::users::{ONLINE, USER, check_may_write, person, trace, user_of, users_named};
use super::{
    Actor, FREE_AFTER, LEASE, Refused, Result, SESSION_GOOD_FOR, Session, Store, TOKEN_GOOD_FOR,
};
use crate::model::{
    ClientId, ClientRef, DisplayName, Millis, NewUser, NodeId, Person, Room, RoomId, SessionId,
    Target, TokenHash, User, UserId,
};

/// How long people keep their display name after their server stopped.
const COMING_BACK: Duration = Duration::from_secs(60);
/// How many rows of each kind one round of expiry handles at most.
const EXPIRE_AT_ONCE: i64 = 500;
/// How many new users are inserted at a time.
const MADE_AT_ONCE: usize = 500;

/// How many guests a browser stands for at most.
const OF_A_BROWSER: i64 = 100;

/// Replaces a [`Person`]'s unread count where there is no reader.
const NO_UNREAD: &str = "cast(0 as bigint)";
/// Either of the [looks](DisplayName::looks_of) of a user name, as in the index.
pub(super) const LOOK: &str =
    "replace(replace(replace(replace(u.name, 'm', 'rn'), '0', 'o'), '1', 'l'), 'i', 'l')";

/// A socket has opened.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The node of the socket.
    pub node: NodeId,
    /// The session they have signed in with. While it is valid, it decides which user they are.
    pub session: Option<TokenHash>,
    /// The client to take over.
    pub resume: Option<Resume>,
    /// The resume token of a new client.
    pub token: TokenHash,
    /// The browser, if it sent its cookie.
    pub browser: Option<TokenHash>,
    /// The user to create for a newcomer if no user is free.
    pub spare: Option<NewUser>,
    /// The group to enter at once.
    pub group: Option<Target>,
}

/// The client that somebody comes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The client with this resume token, if it has left.
    Left(TokenHash),
    /// This client, as [`Store::client_by_token`] returned it for its resume token.
    Client(ClientRef, TokenHash),
}

/// The result of an arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// They are connected as this client.
    As {
        /// The client.
        client: ClientRef,
        /// Its user.
        user: User,
        /// The session they signed in with; `None` for a guest.
        session: Option<SessionId>,
        /// The group that they have entered. `None` if the room is not a group, or they may not enter it: then they
        /// are in no other room than before.
        entered: Option<(Room, Moved)>,
    },
    /// The client of the token has not left: it is on this node, or was a moment ago.
    Connected(ClientRef, NodeId),
    /// Somebody else took over that client first, or its token is no longer valid.
    Overtaken,
    /// The user of that client is banned.
    Banned,
    /// No user is free, and there is no spare one, or the spare name or e-mail address is taken.
    NobodyFree,
}

/// A client that has left. If several clients of one person leave together, this list has their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its user.
    pub user: User,
    /// The room it showed, unless another client of the user shows it.
    pub room: Option<RoomId>,
    /// Whether it was the last client: the user is offline now.
    pub last: bool,
}

/// The effect of choosing a display name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The user with the new name.
    pub user: User,
    /// Offline users who had the name: they are shown with their user name again.
    pub former: Vec<UserId>,
    /// The private rooms of all of them that somebody shows now.
    pub rooms: Vec<RoomId>,
}

impl Store {
    /// Renews the node's lease: its clients stay connected for another [`LEASE`]. For a node without
    /// clients nothing is written to a file, whose lock shows that a server runs.
    pub async fn renew_lease(&self, node: NodeId) -> Result<()> {
        self.works_by_this(node);
        self.write("renew_lease", Locks::none(), async move |tx| {
            let clients =
                "select exists (select 1 from clients where node_id = $1 and left_at is null)";
            match tx.is_shared() || tx.the(clients, &[&node]).await? {
                true => renew_lease(tx, node).await,
                false => Ok(()),
            }
        })
        .await
    }

    /// Until when the newest lease of a node of another process is valid, if there is one. It grows while
    /// that process runs.
    pub async fn lease_of_others(&self) -> Result<Option<Millis>> {
        let own = self.own_nodes();
        self.ask("lease_of_others", async move |tx| {
            let newest = format!(
                "select max(lease_until) from nodes where lease_until >= millis() and not id {}",
                tx.among(1)
            );
            tx.the(&newest, &[&own]).await
        })
        .await
    }

    /// Handles everything that has expired by `now`, a limited amount at a time. Clients of nodes whose
    /// lease has expired have left; only one node gets them as the result. Unused users gone for
    /// [`FREE_AFTER`] are free again, unless somebody has a private room with them open. Clients gone
    /// for [`TOKEN_GOOD_FOR`] and sessions unused for [`SESSION_GOOD_FOR`] are deleted. PostgreSQL uses
    /// the database's clock, and of `now` only how far it is ahead of this machine's.
    pub async fn expire(&self, node: NodeId, now: Millis) -> Result<Vec<Left>> {
        let ahead = now.0.saturating_sub(Millis::now().0).max(0);
        // Usually nothing has expired, and checking writes nothing.
        let due = self.read("expire", async move |tx| {
            match is_anything_due(tx, node, ahead).await? {
                true => clients_of_dead(tx, node, ahead).await.map(Some),
                false => Ok(None),
            }
        });
        let Some(dead) = due.await? else {
            return Ok(Vec::new());
        };
        self.write("expire", Locks::rooms_of(dead), async move |tx| {
            expire(tx, node, Millis(tx.now.0.saturating_add(ahead))).await
        })
        .await
    }

    /// The client that a resume token is valid for, and its node if it has not left. A client that
    /// signed in is found only with its own valid session. A client of somebody banned counts as left.
    pub async fn client_by_token(
        &self,
        token: TokenHash,
        session: Option<TokenHash>,
    ) -> Result<Option<(ClientRef, Option<NodeId>)>> {
        self.read("client_by_token", async move |tx| {
            let session = match session {
                Some(token) => accounts::session(tx, token).await?,
                None => None,
            };
            client_by_token(tx, token, session.map(|session| session.id)).await
        })
        .await
    }

    /// Whom a request without a socket may stand for: the person of its session or, without a valid one,
    /// the guests whose tabs last connected from that browser and may still come back. Nobody banned.
    pub async fn people_of_browser(
        &self,
        session: Option<TokenHash>,
        browser: Option<TokenHash>,
    ) -> Result<Vec<User>> {
        self.read("people_of_browser", async move |tx| {
            if let Some(token) = session
                && let Some(session) = accounts::session(tx, token).await?
            {
                return Ok(vec![session.user]);
            }
            let Some(browser) = browser else {
                return Ok(Vec::new());
            };
            let guests = format!(
                "select {USER} from clients c join users u on u.id = c.user_id
                 where c.browser = $1 and c.guest and u.banned_at is null
                 and (c.left_at is null or c.left_at > (select millis()) - $2)
                 order by c.id desc limit $3"
            );
            let values = [
                &browser as _,
                &span(TOKEN_GOOD_FOR) as _,
                &OF_A_BROWSER as _,
            ];
            tx.all(&guests, &values).await
        })
        .await
    }

    /// Connects somebody, renews the node's lease, and moves the client into the group. They are, in this order: the
    /// client they take over, another client of the account they signed in to, a random free user, the spare user.
    /// Giving a user to a new person ends the tokens of the former one.
    pub async fn arrive(&self, arrival: Arrival) -> Result<Arrived> {
        self.works_by_this(arrival.node);
        let mut locks = match &arrival.group {
            Some(target) => rooms::locks_of(target),
            None => Locks::none(),
        };
        if let Some(Resume::Client(client, _)) = arrival.resume {
            locks.rooms_of.push(client.client);
        }
        self.write("arrive", locks, async move |tx| arrive(tx, &arrival).await)
            .await
    }

    /// From now on, the client comes back with another token.
    pub async fn change_token(&self, client: ClientRef, token: TokenHash) -> Result<()> {
        self.write("change_token", Locks::none(), async move |tx| {
            let changed = "update clients set token_hash = $1 where id = $2 and visit = $3";
            tx.run(changed, &[&token, &client.client, &client.visit])
                .await
        })
        .await
    }

    /// Ends a node: its clients have left, but may reconnect soon; its lease ends.
    pub async fn end(&self, node: NodeId) -> Result<Vec<Left>> {
        self.write("end", Locks::none(), async move |tx| {
            let seen = "update sessions set seen_at = $1 where id in
                (select session_id from clients where left_at is null and node_id = $2)";
            tx.run(seen, &[&tx.now, &node]).await?;
            end_nodes(tx, &[node.0]).await
        })
        .await
    }

    /// Marks these clients as left, except those taken over meanwhile. Returns those that have left.
    pub async fn leave(&self, clients: Vec<ClientRef>) -> Result<Vec<Left>> {
        let locks = Locks::rooms_of(clients.iter().map(|client| client.client).collect());
        self.write("leave", locks, async move |tx| {
            let found = connected(tx, &clients).await?.into_iter();
            let gone: Vec<_> = found.map(|(client, user)| (client.client, user)).collect();
            if gone.is_empty() {
                return Ok(Vec::new());
            }
            let ids: Vec<i64> = gone.iter().map(|(client, _)| client.0).collect();
            let left = format!("update clients set left_at = $1 where id {}", tx.among(2));
            tx.run(&left, &[&tx.now, &ids]).await?;
            let seen = format!(
                "update sessions set seen_at = $1
                 where id in (select session_id from clients where id {})",
                tx.among(2)
            );
            tx.run(&seen, &[&tx.now, &ids]).await?;
            have_left(tx, gone).await
        })
        .await
    }

    /// Sets the user's display name; `None` for their user name. A name is taken if it is, or looks
    /// like, anybody else's user name or the display name of somebody who is online or has an account.
    /// No words in it may be, or look like, somebody else's user name. If it is taken, numbers are
    /// appended; `namesakes` names are tried in all.
    pub async fn rename(
        &self,
        by: Actor,
        name: Option<DisplayName>,
        namesakes: u32,
    ) -> Result<Renamed> {
        self.write("rename", Locks::actor(by), async move |tx| {
            rename(tx, by.user, name.as_ref(), namesakes).await
        })
        .await
    }

    /// The user with the first of these names that anybody has, and the index of that name. A name is a
    /// user name or, if there is none, a display name, without regard to case.
    pub async fn find_person(&self, names: Vec<String>) -> Result<Option<(usize, User)>> {
        self.read("find_person", async move |tx| {
            let by_display_name = format!("select {USER} from users u where u.display_key = $1");
            for (n, name) in names.iter().enumerate() {
                let mut found = person(tx, name).await?;
                if found.is_none() {
                    let key = sought(&DisplayName::key_of(name));
                    found = tx.one(&by_display_name, &[&key]).await?;
                }
                if let Some(user) = found {
                    return Ok(Some((n, user)));
                }
            }
            Ok(None)
        })
        .await
    }

    /// At most `limit` people who are online, each of them once, longest first; and how many are
    /// online.
    pub async fn people_online(&self, limit: usize) -> Result<(Vec<Person>, u64)> {
        self.read("people_online", async move |tx| {
            let people = format!(
                "select {USER}, true, {NO_UNREAD} from clients c join users u on u.id = c.user_id
                 where c.left_at is null and not exists (
                    select 1 from clients o where o.user_id = c.user_id and o.left_at is null
                    and (o.arrived_at, o.id) < (c.arrived_at, c.id))
                 order by c.arrived_at, c.id limit $1"
            );
            let people: Vec<Person> = tx.all(&people, &[&limit]).await?;
            if people.len() < limit {
                let count = people.len() as u64;
                return Ok((people, count));
            }
            let count = "select count(distinct user_id) from clients where left_at is null";
            Ok((people, tx.the(count, &[]).await?))
        })
        .await
    }

    /// At most `limit` people in a group, each of them once, longest first; and how many are in it.
    /// Nobody for a private room.
    pub async fn people_in(&self, room: RoomId, limit: usize) -> Result<(Vec<Person>, u64)> {
        self.read("people_in", async move |tx| {
            let count = "select people from rooms where id = $1 and kind = 'group'";
            let Some(count) = tx.one(count, &[&room]).await? else {
                return Ok((Vec::new(), 0));
            };
            let people = format!(
                "select {USER}, false, {NO_UNREAD} from clients_active a join users u on u.id = a.user_id
                 where a.room_id = $1 and not exists (
                    select 1 from clients_active o
                    where o.room_id = a.room_id and o.user_id = a.user_id
                    and (o.entered_at, o.client_id) < (a.entered_at, a.client_id))
                 order by a.entered_at, a.client_id limit $2"
            );
            Ok((tx.all(&people, &[&room, &limit]).await?, count))
        })
        .await
    }

    /// At most `limit` people: those that this user has unread messages from, then those they have
    /// talked with.
    pub async fn people_of(&self, user: UserId, limit: usize) -> Result<Vec<Person>> {
        self.ask("people_of", async move |tx| {
            people_of(tx, user, limit).await
        })
        .await
    }

    /// The same for several users.
    pub async fn people_of_each(
        &self,
        users: Vec<UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Vec<Person>)>> {
        self.read_at_length("people_of_each", async move |tx| {
            let mut lists = Vec::new();
            for user in &users {
                lists.push((*user, people_of(tx, *user, limit).await?));
            }
            Ok(lists)
        })
        .await
    }

    /// At most `limit` people: those whose user names begin with this text, by name, then those whose
    /// display names do.
    pub async fn find_people(&self, beginning: &str, limit: usize) -> Result<Vec<Person>> {
        let beginning = sought(&DisplayName::key_of(beginning));
        self.read("find_people", async move |tx| {
            let mut found = Vec::new();
            for name in ["name", "display_key"] {
                let columns = format!("{USER}, {ONLINE}, {NO_UNREAD}");
                for person in users_named(tx, &columns, name, &beginning, "", limit).await? {
                    if !found.contains(&person) {
                        found.push(person);
                    }
                }
            }
            found.truncate(limit);
            Ok(found)
        })
        .await
    }

    /// At most `limit` people to mention in a room whose user or display names begin with this text: first
    /// those who are there or have just written there, then those whom the user has talked with, then
    /// others, if the text is not empty. The other person of a private room counts as being there.
    pub async fn people_to_mention(
        &self,
        user: UserId,
        room: RoomId,
        beginning: &str,
        limit: usize,
    ) -> Result<Vec<Person>> {
        let beginning = sought(&DisplayName::key_of(beginning));
        self.read("people_to_mention", async move |tx| {
            // A cross join, so that SQLite does not begin with all users.
            let nearby = |sources: &str| {
                format!(
                    "select {USER}, {ONLINE}, {NO_UNREAD} from ({sources}) nearby cross join users u
                     where u.id = nearby.user_id
                     and (u.name >= $2 and u.name < $3 or u.display_key >= $2 and u.display_key < $3)
                     order by u.name limit $4"
                )
            };
            let here = nearby(
                "select user_id from (select user_id from clients_active
                    where room_id = $1 order by entered_at, client_id limit 500) present
                 union select user_id from (select user_id from messages
                    where room_id = $1 order by id desc limit 200) recent
                 union select user_low from rooms where id = $1
                 union select user_high from rooms where id = $1",
            );
            let known = nearby(
                "select with_id as user_id from users_subscribed
                 where user_id = $1 and with_id is not null
                 order by (unread > 0) desc, last_message_id desc limit 200",
            );
            let end = end_of(&beginning);
            let (columns, limit_all) = (format!("{USER}, {ONLINE}, {NO_UNREAD}"), limit + 1);
            let mut found: Vec<Person> =
                tx.all(&here, &[&room, &beginning, &end, &limit_all]).await?;
            found.extend(tx.all::<Person>(&known, &[&user, &beginning, &end, &limit_all]).await?);
            for name in ["name", "display_key"] {
                if !beginning.is_empty() {
                    found.extend(
                        users_named::<Person>(tx, &columns, name, &beginning, "", limit_all).await?,
                    );
                }
            }
            let mut seen = HashSet::from([user]);
            found.retain(|person| seen.insert(person.user.id));
            found.truncate(limit);
            Ok(found)
        })
        .await
    }

    /// Adds users, except those whose name or e-mail address is taken. Returns how many were added.
    pub async fn add_users(&self, users: Vec<NewUser>) -> Result<u64> {
        self.write("add_users", Locks::none(), async move |tx| {
            tx.lock_names().await?;
            let mut made = 0;
            for users in users.chunks(MADE_AT_ONCE) {
                let all = try_join_all(users.iter().map(|new| insert_user(tx, new))).await?;
                made += all.iter().flatten().count() as u64;
            }
            Ok(made)
        })
        .await
    }
}

pub(super) async fn people_of(tx: &Tx<'_>, user: UserId, limit: usize) -> Sql<Vec<Person>> {
    let people = format!(
        "select {USER}, {ONLINE}, s.unread
                 from users_subscribed s join users u on u.id = s.with_id
                 where s.user_id = $1 and s.with_id is not null
                 order by (s.unread > 0) desc, s.last_message_id desc limit $2"
    );
    tx.all(&people, &[&user, &limit]).await
}

from_row! {
    Person { user, online, unread }
    ClientRef { client, visit }
}

/// Those of these clients that are connected, and their users; the answer holds until the commit.
pub(super) async fn connected(
    tx: &Tx<'_>,
    clients: &[ClientRef],
) -> Sql<HashMap<ClientRef, UserId>> {
    let ids: Vec<i64> = clients.iter().map(|client| client.client.0).collect();
    let sql = format!(
        "select id, visit, user_id from clients where id {} and left_at is null order by id",
        tx.among(1)
    );
    let found: Vec<(ClientRef, UserId)> = tx.all(&tx.hold(&sql, Hold::Change), &[&ids]).await?;
    // A client that was taken over has a different visit.
    let wanted: HashSet<_> = clients.iter().collect();
    let found = found.into_iter();
    Ok(found
        .filter(|(client, _)| wanted.contains(client))
        .collect())
}

pub(super) async fn rename(
    tx: &Tx<'_>,
    me: UserId,
    name: Option<&DisplayName>,
    namesakes: u32,
) -> Sql<Renamed> {
    check_may_write(tx, me).await?;
    let own = user_of(tx, me).await?;
    let Some(wish) = name.filter(|name| name.as_str() != own.name) else {
        set_display_name(tx, me, None).await?;
        return renamed(tx, me, Vec::new()).await;
    };
    tx.lock_names().await?;
    for number in 1..=namesakes.max(1) {
        let name = match number {
            1 => wish.clone(),
            number => wish.numbered(number),
        };
        let Some(former) = former_holders(tx, me, &name).await? else {
            continue;
        };
        for user in &former {
            set_display_name(tx, *user, None).await?;
        }
        trace(tx, me).await?;
        set_display_name(tx, me, Some(&name)).await?;
        return renamed(tx, me, former).await;
    }
    Err(Refused::NameTaken.into())
}

/// Users who have the name, are offline and have no account; `None` if the name is taken.
async fn former_holders(tx: &Tx<'_>, me: UserId, name: &DisplayName) -> Sql<Option<Vec<UserId>>> {
    let is_user_name =
        format!("select exists (select 1 from users u where {LOOK} = $1 and u.id <> $2)");
    for run in name.runs() {
        for look in DisplayName::looks_of(run) {
            if tx.the(&is_user_name, &[&look, &me]).await? {
                return Ok(None);
            }
        }
    }
    let [look, capitals] = name.looks();
    let mut former = Vec::new();
    for (column, look) in [("display_look", look), ("display_look_capitals", capitals)] {
        // People whose server stopped are about to reconnect.
        let sql = format!(
            "select u.id, u.kept_at is not null or exists (select 1 from clients c
                where c.user_id = u.id and (c.left_at is null or c.cut_off and c.left_at > $1))
             from users u where u.{column} = $2 and u.id <> $3"
        );
        let values = [&tx.now.before(COMING_BACK) as _, &look as _, &me as _];
        match tx.one(&sql, &values).await? {
            Some((_, true)) => return Ok(None),
            Some((holder, false)) => former.push(holder),
            None => {}
        }
    }
    former.dedup();
    Ok(Some(former))
}

/// The user with the new name, and the private rooms that show it.
async fn renamed(tx: &Tx<'_>, me: UserId, former: Vec<UserId>) -> Sql<Renamed> {
    let mut rooms = Vec::new();
    for user in former.iter().chain([&me]) {
        for end in ["user_low", "user_high"] {
            let open = format!(
                "select r.id from rooms r where r.{end} = $1
                 and exists (select 1 from clients_active a where a.room_id = r.id)"
            );
            rooms.extend(tx.all::<RoomId>(&open, &[user]).await?);
        }
    }
    Ok(Renamed {
        user: user_of(tx, me).await?,
        former,
        rooms,
    })
}

async fn set_display_name(tx: &Tx<'_>, user: UserId, name: Option<&DisplayName>) -> Sql<()> {
    let looks = name.map(DisplayName::looks);
    tx.run(
        "update users set display_name = $1, display_key = $2, display_look = $3,
            display_look_capitals = $4
         where id = $5",
        &[
            &name.map(DisplayName::as_str),
            &name.map(DisplayName::key),
            &looks.as_ref().map(|looks| looks[0].as_str()),
            &looks.as_ref().map(|looks| looks[1].as_str()),
            &user,
        ],
    )
    .await
}

/// Adds one user while names are locked; `None` if the name or the e-mail address is taken, or
/// somebody's display name begins with the name.
async fn insert_user(tx: &Tx<'_>, new: &NewUser) -> Sql<Option<UserId>> {
    let [look, _] = DisplayName::looks_of(&new.name);
    tx.one(
        "insert into users (name, email, shuffle)
         select $1, $2, cast($3 as bigint) where not exists (select 1 from users
            where display_look >= $4 and display_look < $5)
         on conflict do nothing returning id",
        &[
            &new.name,
            &new.email,
            &rand::random::<i64>(),
            &look,
            &end_of(&look),
        ],
    )
    .await
}

/// A random free user, or else the spare one.
pub(super) async fn newcomer(tx: &Tx<'_>, spare: Option<&NewUser>) -> Sql<Option<UserId>> {
    if let Some(user) = free_user(tx).await? {
        return Ok(Some(user));
    }
    let Some(spare) = spare else { return Ok(None) };
    tx.lock_names().await?;
    insert_user(tx, spare).await
}

/// The next free user, from a random place in the shuffled order, that no other node is giving out.
async fn free_user(tx: &Tx<'_>) -> Sql<Option<UserId>> {
    let next = "select id from users where free and shuffle >= $1 order by shuffle limit 1";
    let next = tx.hold(next, Hold::ChangeFree);
    for from in [rand::random(), i64::MIN] {
        if let Some(user) = tx.one(&next, &[&from]).await? {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// Removes what is left of the user's former person: their token ends, they belong to no group, and
/// their private rooms without messages are deleted.
pub(super) async fn hand_out(tx: &Tx<'_>, id: UserId) -> Sql<User> {
    let take = "update users set free = false, gone_at = null,
            arrived_at = coalesce(arrived_at, $1)
        where id = $2 returning id, name, display_name, arrived_at <> $1";
    let (user, was_used): (User, bool) = tx.the(take, &[&tx.now, &id]).await?;
    if was_used {
        let id = [&id as _];
        tokio::try_join!(biased;
            tx.run("delete from clients where user_id = $1", &id),
            tx.run("delete from users_subscribed where user_id = $1", &id),
            tx.run("delete from rooms where version = 0 and user_low = $1", &id),
            tx.run("delete from rooms where version = 0 and user_high = $1", &id),
        )?;
    }
    Ok(user)
}

async fn arrive(tx: &Tx<'_>, arrival: &Arrival) -> Sql<Arrived> {
    renew_lease(tx, arrival.node).await?;
    let session = match arrival.session {
        Some(token) => session(tx, token).await?,
        None => None,
    };
    if let Some(Session { id, .. }) = &session {
        let seen = "update sessions set seen_at = $1 where id = $2";
        tx.run(seen, &[&tx.now, id]).await?;
    }
    let id = session.as_ref().map(|session| session.id);
    let resumed = match arrival.resume {
        Some(Resume::Client(client, token)) => Some((client, token)),
        Some(Resume::Left(token)) => match client_by_token(tx, token, id).await? {
            Some((client, Some(at))) => return Ok(Arrived::Connected(client, at)),
            left => left.map(|(client, _)| (client, token)),
        },
        None => None,
    };
    if let Some((client, token)) = resumed {
        return resume(tx, arrival, client, token, id).await;
    }
    let user = match session {
        Some(session) => session.user,
        None => match newcomer(tx, arrival.spare.as_ref()).await? {
            Some(user) => hand_out(tx, user).await?,
            None => return Ok(Arrived::NobodyFree),
        },
    };
    let (guest, node, token) = (id.is_none(), arrival.node, arrival.token);
    let client = "insert into clients
            (user_id, guest, session_id, node_id, token_hash, arrived_at, browser)
        values ($1, $2, $3, $4, $5, $6, $7) returning id, visit";
    let values = [
        &user.id as _,
        &guest as _,
        &id as _,
        &node as _,
        &token as _,
        &tx.now as _,
        &arrival.browser as _,
    ];
    let client = tx.the(client, &values).await?;
    arrived(tx, arrival, client, user, id).await
}

/// Connected, they enter the group.
async fn arrived(
    tx: &Tx<'_>,
    arrival: &Arrival,
    client: ClientRef,
    user: User,
    session: Option<SessionId>,
) -> Sql<Arrived> {
    let entered = match &arrival.group {
        Some(target) => rooms::enter_group(tx, client.client, user.id, target).await?,
        None => None,
    };
    Ok(Arrived::As {
        client,
        user,
        session,
        entered,
    })
}

/// The guest who comes back with this token. Nobody banned.
pub(super) async fn guest(tx: &Tx<'_>, token: TokenHash) -> Sql<Option<User>> {
    let guest = format!(
        "select {USER} from clients c join users u on u.id = c.user_id
         where c.token_hash = $1 and c.guest and u.banned_at is null
         and (c.left_at is null or c.left_at > (select millis()) - $2)"
    );
    tx.one(&guest, &[&token, &span(TOKEN_GOOD_FOR)]).await
}

/// The client that a resume token is valid for, and its node if it has not left.
async fn client_by_token(
    tx: &Tx<'_>,
    token: TokenHash,
    session: Option<SessionId>,
) -> Sql<Option<(ClientRef, Option<NodeId>)>> {
    tx.one(
        "select id, visit, case when left_at is null then node_id end from clients
         where token_hash = $1 and session_id is not distinct from $2
         and (left_at is null or left_at > (select millis()) - $3)",
        &[&token, &session, &span(TOKEN_GOOD_FOR)],
    )
    .await
}

/// Takes over a client.
async fn resume(
    tx: &Tx<'_>,
    arrival: &Arrival,
    client: ClientRef,
    token: TokenHash,
    session: Option<SessionId>,
) -> Sql<Arrived> {
    let taken_over: Option<(UserId, ClientRef)> = tx
        .one(
            "update clients set visit = visit + 1, node_id = $1, left_at = null, cut_off = false,
                arrived_at = case when left_at is null then arrived_at else $2 end, browser = $3
             where id = $4 and visit = $5 and token_hash = $6
                and session_id is not distinct from $7 and (left_at is null or left_at > $8)
             returning user_id, id, visit",
            &[
                &arrival.node,
                &tx.now,
                &arrival.browser,
                &client.client,
                &client.visit,
                &token,
                &session,
                &tx.now.before(TOKEN_GOOD_FOR),
            ],
        )
        .await?;
    let Some((id, client)) = taken_over else {
        return Ok(Arrived::Overtaken);
    };
    // A ban either waits for the client or came before it.
    let here = "update users set free = false, gone_at = null where id = $1
        returning id, name, display_name, banned_at is not null";
    let (user, is_banned) = tx.the(here, &[&id]).await?;
    if is_banned {
        // They are not online, but the token identifies their tab for a while longer.
        let left = "update clients set left_at = $1 where id = $2";
        tx.run(left, &[&tx.now, &client.client]).await?;
        return Ok(Arrived::Banned);
    }
    arrived(tx, arrival, client, user, session).await
}

/// The results for these clients, which are marked as left.
async fn have_left(tx: &Tx<'_>, mut gone: Vec<(ClientId, UserId)>) -> Sql<Vec<Left>> {
    gone.sort();
    let clients: Vec<i64> = gone.iter().map(|(client, _)| client.0).collect();
    let users: Vec<i64> = gone.iter().map(|(_, user)| user.0).collect();
    // Locked before checking who remains, so that if two nodes do this at once, the second sees the
    // result of the first.
    let people = format!(
        "select {USER} from users u where u.id {} order by u.id",
        tx.among(1)
    );
    let people: Vec<User> = tx.all(&tx.hold(&people, Hold::Change), &[&users]).await?;
    let people: HashMap<_, _> = people.into_iter().map(|user| (user.id, user)).collect();
    let looked_at = format!(
        "delete from clients_active where client_id {} returning client_id, room_id",
        tx.among(1)
    );
    let looked_at: Vec<(ClientId, RoomId)> = tx.all(&looked_at, &[&clients]).await?;
    let looked_at: HashMap<_, _> = looked_at.into_iter().collect();
    let remaining = format!(
        "select c.user_id, a.room_id from clients c
         left join clients_active a on a.client_id = c.id
         where c.user_id {} and c.left_at is null",
        tx.among(1)
    );
    let remaining: Vec<(UserId, Option<RoomId>)> = tx.all(&remaining, &[&users]).await?;
    let untouched = format!(
        "update users set gone_at = $1
         where id {} and traced_at is null and not free and gone_at is null",
        tx.among(2)
    );
    tx.run(&untouched, &[&tx.now, &users]).await?;
    // If several clients of one person leave, the last one makes them offline.
    let mut here: HashSet<UserId> = remaining.iter().map(|(user, _)| *user).collect();
    let mut looking: HashSet<_> = remaining.into_iter().collect();
    let mut left = Vec::new();
    for (client, user) in gone.into_iter().rev() {
        let room = looked_at.get(&client).copied();
        left.extend(people.get(&user).cloned().map(|person| Left {
            user: person,
            room: room.filter(|room| looking.insert((user, Some(*room)))),
            last: here.insert(user),
        }));
    }
    left.reverse();
    Ok(left)
}

async fn renew_lease(tx: &Tx<'_>, node: NodeId) -> Sql<()> {
    let sql = "insert into nodes (id, lease_until) values ($1, $2)
        on conflict (id) do update set lease_until = excluded.lease_until";
    tx.run(sql, &[&node, &tx.now.after(LEASE)]).await
}

async fn is_anything_due(tx: &Tx<'_>, node: NodeId, ahead: i64) -> Sql<bool> {
    let now: i64 = tx.the("select millis()", &[]).await?;
    let now = Millis(now.saturating_add(ahead));
    tx.the(
        "select exists (select 1 from nodes where lease_until < $1 and id <> $2)
            or exists (select 1 from users where gone_at <= $3)
            or exists (select 1 from clients where left_at < $4)
            or exists (select 1 from sessions where seen_at < $5)",
        &[
            &now,
            &node,
            &now.before(FREE_AFTER),
            &now.before(TOKEN_GOOD_FOR),
            &now.before(SESSION_GOOD_FOR),
        ],
    )
    .await
}

/// The clients of nodes whose lease has expired, or will expire within `ahead` milliseconds.
async fn clients_of_dead(tx: &Tx<'_>, node: NodeId, ahead: i64) -> Sql<Vec<ClientId>> {
    tx.all(
        "select id from clients where left_at is null and node_id in
         (select id from nodes where lease_until < (select millis()) + $1 and id <> $2)",
        &[&ahead, &node],
    )
    .await
}

/// Ends these nodes; their clients were cut off.
pub(super) async fn end_nodes(tx: &Tx<'_>, nodes: &[i64]) -> Sql<Vec<Left>> {
    let nodes = nodes.to_vec();
    let sql = format!(
        "update clients set left_at = $1, cut_off = true
         where left_at is null and node_id {} returning id, user_id",
        tx.among(2)
    );
    let gone: Vec<_> = tx.all(&sql, &[&tx.now, &nodes]).await?;
    let ended = format!("delete from nodes where id {}", tx.among(1));
    tx.run(&ended, &[&nodes]).await?;
    match gone.is_empty() {
        true => Ok(Vec::new()),
        false => have_left(tx, gone).await,
    }
}

async fn expire(tx: &Tx<'_>, node: NodeId, now: Millis) -> Sql<Vec<Left>> {
    // A node that renews its lease at this moment does so before or after this.
    let dead = "select id from nodes where lease_until < $1 and id <> $2 order by id";
    let dead = tx.hold(dead, Hold::Delete);
    let dead: Vec<i64> = tx.all(&dead, &[&now, &node]).await?;
    let left = match dead.is_empty() {
        true => Vec::new(),
        false => end_nodes(tx, &dead).await?,
    };
    free_untouched(tx, now).await?;
    tx.run(
        "delete from clients where id in (select id from clients where left_at < $1 limit $2)",
        &[&now.before(TOKEN_GOOD_FOR), &EXPIRE_AT_ONCE],
    )
    .await?;

    // A session with a connected client is in use, even if the client connected long ago.
    let unseen = now.before(SESSION_GOOD_FOR);
    tx.run(
        "update sessions set seen_at = $1 where id in (
            select s.id from sessions s where s.seen_at < $2 and exists (
                select 1 from clients c where c.session_id = s.id and c.left_at is null)
            limit $3)",
        &[&now, &unseen, &EXPIRE_AT_ONCE],
    )
    .await?;
    tx.run(
        "delete from sessions where id in (
            select s.id from sessions s where s.seen_at < $1 and not exists (
                select 1 from clients c where c.session_id = s.id and c.left_at is null)
            limit $2)",
        &[&unseen, &EXPIRE_AT_ONCE],
    )
    .await?;
    Ok(left)
}

/// Frees unused users who have been gone for a while, except those whom somebody has a private room
/// open with: they are checked again later.
async fn free_untouched(tx: &Tx<'_>, now: Millis) -> Sql<()> {
    // Locked before checking who has a room with them: opening a private room locks them as well.
    let gone = "select id from users where gone_at <= $1 order by gone_at limit $2";
    let gone = tx.hold(gone, Hold::ChangeFree);
    let values = [&now.before(FREE_AFTER) as _, &EXPIRE_AT_ONCE as _];
    let gone: Vec<i64> = tx.all(&gone, &values).await?;
    if gone.is_empty() {
        return Ok(());
    }
    for end in ["user_low", "user_high"] {
        let wanted = format!(
            "update users set gone_at = $1 where id {} and exists (
                select 1 from rooms r join clients_active a on a.room_id = r.id
                where r.{end} = users.id)",
            tx.among(2)
        );
        tx.run(&wanted, &[&now, &gone]).await?;
    }
    let freed = format!(
        "update users set free = true, gone_at = null where gone_at < $1 and id {}",
        tx.among(2)
    );
    tx.run(&freed, &[&now, &gone]).await
}
