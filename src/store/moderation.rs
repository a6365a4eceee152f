//! Moderation: the searches and actions of moderators, and who is one.

use std::collections::HashSet;

use super::accounts::{begin_session, forget_password_link, set_password};
use super::files;
use super::messages::{WHOLE_MESSAGE, next_step, push_stored, take_step};
use super::people::{hand_out, newcomer};
use super::rooms::beginnings;
use super::tx::{Hold, Locks, Sql, Tx, end_of, from_row, sought, span};
use super::users::{
    ONLINE, USER, held_standing, hold_clients, hold_sessions, person, record, record_command,
    standing, trace, users_named,
};
use super::{ADMIN_LINK_GOOD_FOR, Actor, NewSession, RESTRICTED, Result, SignedIn, Store};
use crate::model::{
    ClientId, ClientRef, DisplayName, Message, MessageId, Millis, NewUser, PasswordHash, RoomId,
    TokenHash, User, UserId,
};
use crate::moderation::{
    AuditEntry, FoundMessages, GroupRecord, MessageRecord, Moderated, PersonRecord, Search,
    Standing,
};
use crate::protocol::{FIRST_GROUP, ModeratorAction, PAGE_MESSAGES};

/// How many messages one search examines, and how many it fetches at a time.
const LOOKED_AT: usize = 20_000;
const FETCHED: usize = 500;

impl Store {
    /// What somebody may do.
    pub async fn standing(&self, user: UserId) -> Result<Standing> {
        self.ask("standing", async move |tx| standing(tx, user).await)
            .await
    }

    /// Those of these clients that have left, were taken over, are banned, or show a group that is
    /// closed to them.
    pub async fn stale_clients(&self, clients: Vec<ClientRef>) -> Result<Vec<ClientId>> {
        self.read_at_length("stale_clients", async move |tx| {
            let ids: Vec<i64> = clients.iter().map(|client| client.client.0).collect();
            let current = format!(
                "select c.id, c.visit from clients c
                 join users u on u.id = c.user_id
                 left join clients_active a on a.client_id = c.id
                 left join rooms r on r.id = a.room_id
                 where c.id {} and c.left_at is null and u.banned_at is null
                 and r.removed_at is null
                 and (r.restricted_at is null or u.moderator_at is not null)",
                tx.among(1)
            );
            let current: Vec<ClientRef> = tx.all(&current, &[&ids]).await?;
            let current: HashSet<_> = current.into_iter().collect();
            let stale = clients.iter().filter(|client| !current.contains(client));
            Ok(stale.map(|client| client.client).collect())
        })
        .await
    }

    /// Those of these users that are banned.
    pub async fn banned(&self, users: Vec<UserId>) -> Result<Vec<UserId>> {
        let users: Vec<i64> = users.into_iter().map(|user| user.0).collect();
        self.read_at_length("banned", async move |tx| {
            let banned = format!(
                "select id from users where id {} and banned_at is not null order by id",
                tx.among(1)
            );
            tx.all(&banned, &[&users]).await
        })
        .await
    }

    /// Adds a link that makes one visitor a moderator, valid for [`ADMIN_LINK_GOOD_FOR`].
    pub async fn add_admin_link(&self, token: TokenHash) -> Result<()> {
        self.write("add_admin_link", Locks::none(), async move |tx| {
            let expired = "delete from admin_links where made_at < $1";
            tx.run(expired, &[&tx.now.before(ADMIN_LINK_GOOD_FOR)])
                .await?;
            let sql = "insert into admin_links (token_hash, made_at) values ($1, $2)";
            tx.run(sql, &[&token, &tx.now]).await
        })
        .await
    }

    /// Whether a link is valid.
    pub async fn is_admin_link(&self, token: TokenHash) -> Result<bool> {
        self.ask("is_admin_link", async move |tx| {
            find_admin_link(tx, ADMIN_LINK, token).await
        })
        .await
    }

    /// Makes the user a moderator by a link, which is then used up. Returns whether the link was valid.
    pub async fn become_moderator(&self, link: TokenHash, user: UserId) -> Result<bool> {
        self.write("become_moderator", Locks::none(), async move |tx| {
            become_moderator(tx, link, user).await
        })
        .await
    }

    /// The same for a new visitor: they get an unused user, or else the spare one, with an account of
    /// that password.
    pub async fn arrive_as_moderator(
        &self,
        link: TokenHash,
        spare: NewUser,
        password: PasswordHash,
        session: NewSession,
    ) -> Result<Option<SignedIn>> {
        self.write("arrive_as_moderator", Locks::none(), async move |tx| {
            if !held_admin_link(tx, link).await? {
                return Ok(None);
            }
            let Some(user) = newcomer(tx, Some(&spare)).await? else {
                return Ok(None);
            };
            hand_out(tx, user).await?;
            set_password(tx, user, &password).await?;
            become_moderator(tx, link, user).await?;
            begin_session(tx, user, session).await.map(Some)
        })
        .await
    }

    /// The moderators in the order of their names, and since when they are.
    pub async fn moderators(&self) -> Result<Vec<(User, Millis)>> {
        self.ask("moderators", async move |tx| {
            let moderators = format!(
                "select {USER}, u.moderator_at from users u where u.moderator_at is not null
                 order by u.name"
            );
            tx.all(&moderators, &[]).await
        })
        .await
    }

    /// Revokes the moderator rights of the user with that name; their tabs reconnect. Returns whether
    /// they were a moderator.
    pub async fn end_moderator(&self, name: &str) -> Result<bool> {
        let name = sought(&name.to_lowercase());
        self.write("end_moderator", Locks::none(), async move |tx| {
            let moderator = "select id from users where name = $1 and moderator_at is not null";
            let Some(user) = tx.one(moderator, &[&name]).await? else {
                return Ok(false);
            };
            hold_clients(tx, user).await?;
            let ended =
                "update users set moderator_at = null where id = $1 and moderator_at is not null";
            if tx.changed(ended, &[&user]).await? == 0 {
                return Ok(false);
            }
            // Their tabs reconnect, and show what everybody sees.
            let again = "update clients set visit = visit + 1 where user_id = $1";
            tx.run(again, &[&user]).await?;
            record_command(tx, &format!("removed {name} as a moderator")).await?;
            Ok(true)
        })
        .await
    }

    /// Takes a moderator's action and adds it to the audit log; durable when it returns. Changes of a
    /// room are delivered.
    pub async fn moderate(&self, by: Actor, action: ModeratorAction) -> Result<Moderated> {
        let mut locks = Locks::actor(by);
        match &action {
            ModeratorAction::RenameGroup { room, .. }
            | ModeratorAction::RemoveGroup { room }
            | ModeratorAction::RestrictGroup { room, .. }
            | ModeratorAction::RestoreMessage { room, .. } => locks.rooms.push(*room),
            // The rooms shown by the clients that the ban ends.
            ModeratorAction::Ban { name, .. } => {
                locks.rooms_of_users.push(sought(&name.to_lowercase()));
            }
            ModeratorAction::Mute { .. } => {}
        }
        self.write("moderate", locks, async move |tx| {
            if !held_standing(tx, by.user).await?.moderator {
                return Ok(Moderated::NotAllowed);
            }
            let done = match &action {
                ModeratorAction::RenameGroup { room, .. }
                | ModeratorAction::RemoveGroup { room }
                | ModeratorAction::RestrictGroup { room, .. } => match group_of(tx, *room).await? {
                    None => Moderated::Nothing,
                    Some(group) if group.key == FIRST_GROUP => Moderated::Protected,
                    Some(group) => change_group(tx, group, &action).await?,
                },
                ModeratorAction::RestoreMessage { room, message } => {
                    restore_message(tx, by, *room, *message).await?
                }
                ModeratorAction::Mute { name, on } => mute_or_ban(tx, name, *on, false).await?,
                ModeratorAction::Ban { name, on } => mute_or_ban(tx, name, *on, true).await?,
            };
            if let Moderated::Done { words, .. } = &done {
                record(tx, by.user, words).await?;
            }
            Ok(done)
        })
        .await
    }

    /// At most `limit` groups whose names begin with this text and whose keys come after that key,
    /// restricted ones first, in the order of their keys.
    pub async fn group_records(
        &self,
        beginning: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<GroupRecord>> {
        let (beginnings, after) = (beginnings(beginning), sought(after));
        self.read_at_length("group_records", async move |tx| {
            let groups = format!(
                "select {GROUP_RECORD}
                 where name_key >= $1 and name_key < $2 and name_key > $3
                 and kind = 'group' and removed_at is null
                 and (restricted_at is not null) = $4
                 order by name_key limit $5"
            );
            let mut found = Vec::new();
            for (prefix, restricted) in [(RESTRICTED, true), ("", false)] {
                for beginning in &beginnings {
                    let from = format!("{prefix}{beginning}");
                    let left = limit - found.len();
                    let values = [
                        &from as _,
                        &end_of(&from) as _,
                        &after as _,
                        &restricted as _,
                        &left as _,
                    ];
                    found.extend(tx.all::<GroupRecord>(&groups, &values).await?);
                }
            }
            Ok(found)
        })
        .await
    }

    /// A group, unless it was removed.
    pub async fn group_record(&self, room: RoomId) -> Result<Option<GroupRecord>> {
        self.ask("group_record", async move |tx| group_of(tx, room).await)
            .await
    }

    /// At most `limit` people whose user names begin with this text and come after that name. Without a
    /// name to come after, people whose display names begin with the text follow.
    pub async fn person_records(
        &self,
        beginning: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<PersonRecord>> {
        let (beginning, after) = (beginning.to_owned(), sought(after));
        self.read_at_length("person_records", async move |tx| {
            let mut found = Vec::new();
            let names = ("name", sought(&beginning.to_lowercase()));
            let display_names = ("display_key", sought(&DisplayName::key_of(&beginning)));
            let is_first = after.is_empty() && !beginning.is_empty();
            let columns = format!(
                "{USER}, {ONLINE}, u.arrived_at,
                    u.moderator_at is not null, u.muted_at is not null, u.banned_at is not null,
                    u.kept_at is not null"
            );
            for (name, beginning) in [Some(names), is_first.then_some(display_names)]
                .into_iter()
                .flatten()
            {
                let left = limit - found.len();
                for record in users_named(tx, &columns, name, &beginning, &after, left).await? {
                    if !found.contains(&record) {
                        found.push(record);
                    }
                }
            }
            Ok(found)
        })
        .await
    }

    /// Searches a group's messages. Returns at most a page; among very many messages, only what it
    /// found in the first part.
    pub async fn message_records(&self, search: Search) -> Result<FoundMessages> {
        self.read_at_length("message_records", async move |tx| {
            message_records(tx, &search).await
        })
        .await
    }

    /// The audit log entries before that one, the latest first, at most `limit`.
    pub async fn audit_log(&self, before: i64, limit: usize) -> Result<Vec<AuditEntry>> {
        self.ask("audit_log", async move |tx| {
            let entries = "select id, at, moderator, action from audit_log
                where id < $1 order by id desc limit $2";
            tx.all(entries, &[&before, &limit]).await
        })
        .await
    }
}

from_row! {
    GroupRecord { id, name, key, people, changes, created_at, restricted }
    PersonRecord { user, online, arrived_at, standing, registered }
    AuditEntry { id, at, moderator, words }
}

const ADMIN_LINK: &str = "select made_at from admin_links
    where token_hash = $1 and made_at >= (select millis()) - $2";

/// Whether there is such a link. Nobody else can use it until the commit.
async fn held_admin_link(tx: &Tx<'_>, token: TokenHash) -> Sql<bool> {
    find_admin_link(tx, &tx.hold(ADMIN_LINK, Hold::Delete), token).await
}

async fn find_admin_link(tx: &Tx<'_>, sql: &str, token: TokenHash) -> Sql<bool> {
    let values = [&token as _, &span(ADMIN_LINK_GOOD_FOR) as _];
    Ok(tx.one::<()>(sql, &values).await?.is_some())
}

async fn become_moderator(tx: &Tx<'_>, link: TokenHash, user: UserId) -> Sql<bool> {
    if held_standing(tx, user).await?.banned || !held_admin_link(tx, link).await? {
        return Ok(false);
    }
    let used = "delete from admin_links where token_hash = $1";
    tx.run(used, &[&link]).await?;
    trace(tx, user).await?;
    let sql = "update users set moderator_at = $1, muted_at = null where id = $2";
    tx.run(sql, &[&tx.now, &user]).await?;
    // Another moderator may have it, but none takes over another's account.
    forget_password_link(tx, user).await?;
    record(tx, user, "became a moderator").await?;
    Ok(true)
}

const GROUP_RECORD: &str =
    "id, name, name_key, people, version, created_at, restricted_at is not null from rooms";

/// A group that was not removed.
async fn group_of(tx: &Tx<'_>, room: RoomId) -> Sql<Option<GroupRecord>> {
    let sql =
        format!("select {GROUP_RECORD} where id = $1 and kind = 'group' and removed_at is null");
    tx.one(&sql, &[&room]).await
}

async fn change_group(tx: &Tx<'_>, group: GroupRecord, action: &ModeratorAction) -> Sql<Moderated> {
    let (id, old) = (group.id, &group.name);
    let open_key = group.key.trim_start_matches(RESTRICTED);
    let (name, key, is_restricted, words) = match action {
        ModeratorAction::RenameGroup { name, .. } if name.as_str() != old => {
            let prefix = if group.restricted { RESTRICTED } else { "" };
            let words = format!("renamed #{old} to #{}", name.as_str());
            (
                name.as_str(),
                format!("{prefix}{}", name.key()),
                group.restricted,
                words,
            )
        }
        ModeratorAction::RestrictGroup { on: true, .. } if !group.restricted => {
            let words = format!("restricted #{old} to moderators");
            (&**old, format!("{RESTRICTED}{open_key}"), true, words)
        }
        ModeratorAction::RestrictGroup { on: false, .. } if group.restricted => {
            let words = format!("opened #{old} to everybody");
            (&**old, open_key.to_owned(), false, words)
        }
        ModeratorAction::RemoveGroup { .. } => {
            let remove = "update rooms set removed_at = $1, name_key = '~' || id, position = null
                where id = $2";
            tx.run(remove, &[&tx.now, &id]).await?;
            let members = "delete from users_subscribed where room_id = $1";
            tx.run(members, &[&id]).await?;
            files::delete_in(tx, id).await?;
            return Ok(done(format!("removed #{old}")));
        }
        _ => return Ok(Moderated::Already),
    };
    let taken = "select exists (select 1 from rooms where name_key = $1 and id <> $2)";
    if tx.the(taken, &[&key, &id]).await? {
        return Ok(Moderated::NameTaken);
    }
    tx.run(
        "update rooms set name = $1, name_key = $2,
            restricted_at = case when cast($3 as bigint) is null then null
                else coalesce(restricted_at, $3) end
         where id = $4",
        &[&name, &key, &is_restricted.then_some(tx.now), &id],
    )
    .await?;
    Ok(done(words))
}

fn done(words: String) -> Moderated {
    Moderated::Done { words, user: None }
}

async fn restore_message(tx: &Tx<'_>, by: Actor, room: RoomId, id: MessageId) -> Sql<Moderated> {
    let Some(group) = group_of(tx, room).await? else {
        return Ok(Moderated::Nothing);
    };
    let sql = "select m.deleted_by is not null and m.text <> '', u.name from messages m
        join users u on u.id = m.user_id where m.id = $1 and m.room_id = $2";
    let author: String = match tx.one(sql, &[&id, &room]).await? {
        None => return Ok(Moderated::Nothing),
        // A message that its author deleted is not restored, and of one without a text nothing is left.
        Some((false, _)) => return Ok(Moderated::Already),
        Some((true, author)) => author,
    };
    let Some(step) = next_step(tx, room, by.user).await? else {
        return Ok(Moderated::NotAllowed);
    };
    take_step(tx, step).await?;
    let restore = "update messages set deleted_at = null, deleted_by = null, changed = $1,
            worded = $1
        where id = $2";
    tx.run(restore, &[&step.version.number, &id]).await?;
    push_stored(tx, by, step, id, None).await?;
    let words = format!("restored message {id} of {author} in #{}", group.name);
    Ok(done(words))
}

/// Mutes or bans somebody, or lifts that.
async fn mute_or_ban(tx: &Tx<'_>, name: &str, on: bool, is_ban: bool) -> Sql<Moderated> {
    let Some(user) = person(tx, name).await? else {
        return Ok(Moderated::Nothing);
    };
    let standing = standing(tx, user.id).await?;
    if standing.moderator {
        return Ok(Moderated::Protected);
    }
    let is_so = if is_ban {
        standing.banned
    } else {
        standing.muted
    };
    if on == is_so {
        return Ok(Moderated::Already);
    }
    let since = on.then_some(tx.now);
    let did = if is_ban {
        ban(tx, user.id, since).await?;
        if on { "banned" } else { "unbanned" }
    } else {
        trace(tx, user.id).await?;
        let mute = "update users set muted_at = $1 where id = $2";
        tx.run(mute, &[&since, &user.id]).await?;
        if on { "muted" } else { "unmuted" }
    };
    Ok(Moderated::Done {
        words: format!("{did} {}", user.name),
        user: Some(user.id),
    })
}

async fn ban(tx: &Tx<'_>, user: UserId, since: Option<Millis>) -> Sql<()> {
    hold_sessions(tx, user).await?;
    trace(tx, user).await?;
    let ban = "update users set banned_at = $1 where id = $2";
    tx.run(ban, &[&since, &user]).await?;
    if since.is_none() {
        // A guest's tab may resume. People with an account sign in again.
        let clients = "delete from clients where user_id = $1 and not guest";
        return tx.run(clients, &[&user]).await;
    }
    // They have left. Their clients remain, so that their tabs are recognized and turned away.
    let looks = "delete from clients_active
        where client_id in (select id from clients where user_id = $1)";
    tx.run(looks, &[&user]).await?;
    let left = "update clients set left_at = $1, cut_off = false, session_id = null
        where user_id = $2";
    tx.run(left, &[&since, &user]).await?;
    let sessions = "delete from sessions where user_id = $1";
    tx.run(sessions, &[&user]).await
}

/// The first id in a room whose message was written at that moment or later. Found by binary search,
/// since messages are written in the order of their ids.
async fn first_since(tx: &Tx<'_>, room: RoomId, at: Millis) -> Sql<i64> {
    let last = "select id from messages where room_id = $1 order by id desc limit 1";
    let last: Option<i64> = tx.one(last, &[&room]).await?;
    let next = "select id, created_at from messages where room_id = $1 and id >= $2
        order by id limit 1";
    let (mut low, mut high) = (0, last.map_or(0, |last| last + 1));
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, Millis)> = tx.one(next, &[&room, &middle]).await?;
        match found {
            Some((id, written)) if written < at => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

async fn message_records(tx: &Tx<'_>, search: &Search) -> Sql<FoundMessages> {
    let mut found = FoundMessages {
        messages: Vec::new(),
        before: None,
    };
    if group_of(tx, search.room).await?.is_none() {
        return Ok(found);
    }
    let mut before = search.before.0;
    if let Some(until) = search.until {
        before = before.min(first_since(tx, search.room, until).await?);
    }
    let words = search.words.split_whitespace();
    let words: Vec<_> = words.map(str::to_lowercase).collect();
    let author = search.author.as_ref().map(|name| name.to_lowercase());
    let fits = |message: &Message| {
        let text = message.text.to_lowercase();
        author
            .as_ref()
            .is_none_or(|name| *name == message.author.user_name)
            && words.iter().all(|word| text.contains(word))
    };
    let some = format!(
        "select {WHOLE_MESSAGE} where m.room_id = $1 and m.id < $2 order by m.id desc limit $3"
    );
    for _ in 0..LOOKED_AT / FETCHED {
        let rows: Vec<Message> = tx.all(&some, &[&search.room, &before, &FETCHED]).await?;
        let is_end = rows.len() < FETCHED;
        for message in rows {
            if search.from.is_some_and(|from| message.created_at < from) {
                return Ok(found);
            }
            before = message.id.0;
            if fits(&message) {
                let restorable = message.by_moderator && !message.text.is_empty();
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
