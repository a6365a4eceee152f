//! Users: the row of a person, what they may do, and the audit log that records what moderators do.

use super::Refused;
use super::tx::{FromRow, Hold, Sql, Tx, end_of, from_row, sought};
use crate::model::{User, UserId};
use crate::moderation::Standing;

/// The columns of a [`User`].
pub(super) const USER: &str = "u.id, u.name, u.display_name";
/// Whether a user `u` is online.
pub(super) const ONLINE: &str =
    "exists (select 1 from clients c where c.user_id = u.id and c.left_at is null)";
const STANDING: &str = "select moderator_at is not null, muted_at is not null,
    banned_at is not null from users where id = $1";

from_row! {
    User { id, name, display_name }
    Standing { moderator, muted, banned }
}

/// The user with this name, if somebody has ever been this user.
pub(super) async fn person(tx: &Tx<'_>, name: &str) -> Sql<Option<User>> {
    let sql = format!("select {USER} from users u where u.name = $1 and u.arrived_at is not null");
    tx.one(&sql, &[&sought(&name.to_lowercase())]).await
}

pub(super) async fn user_of(tx: &Tx<'_>, id: UserId) -> Sql<User> {
    let sql = format!("select {USER} from users u where u.id = $1");
    tx.the(&sql, &[&id]).await
}

/// Until the commit nobody else changes the user.
pub(super) async fn hold_user(tx: &Tx<'_>, user: UserId) -> Sql<()> {
    if tx.is_shared() {
        let held = tx.hold("select 1 from users where id = $1", Hold::Change);
        tx.run(&held, &[&user]).await?;
    }
    Ok(())
}

/// Until the commit nobody writes for these clients or takes them over. Operations lock a client before
/// its user.
pub(super) async fn hold_clients(tx: &Tx<'_>, user: UserId) -> Sql<()> {
    if tx.is_shared() {
        let clients = "select 1 from clients where user_id = $1 order by id";
        tx.run(&tx.hold(clients, Hold::Delete), &[&user]).await?;
    }
    Ok(())
}

/// Until the commit nobody signs in as the user with a session that exists, or comes back with one.
/// Somebody who is just connecting holds the session first, then their client.
pub(super) async fn hold_sessions(tx: &Tx<'_>, user: UserId) -> Sql<()> {
    if tx.is_shared() {
        let sessions = "select id from sessions where user_id = $1 order by id";
        tx.run(&tx.hold(sessions, Hold::Delete), &[&user]).await?;
    }
    hold_clients(tx, user).await
}

/// From now on the user is never given to somebody else.
pub(super) async fn trace(tx: &Tx<'_>, user: UserId) -> Sql<()> {
    let sql = "update users set traced_at = $1, free = false, gone_at = null
        where id = $2 and traced_at is null";
    tx.run(sql, &[&tx.now, &user]).await
}

/// While somebody has a private room with the user open, the user is not given to a newcomer.
pub(super) async fn reserve(tx: &Tx<'_>, user: UserId) -> Sql<()> {
    let sql = "update users set free = false, gone_at = $1 where id = $2 and free";
    tx.run(sql, &[&tx.now, &user]).await
}

pub(super) async fn standing(tx: &Tx<'_>, user: UserId) -> Sql<Standing> {
    Ok(tx.one(STANDING, &[&user]).await?.unwrap_or_default())
}

/// The same, unchanged until the commit: a change of the rights waits.
pub(super) async fn held_standing(tx: &Tx<'_>, user: UserId) -> Sql<Standing> {
    let standing = tx.hold(STANDING, Hold::Share);
    Ok(tx.one(&standing, &[&user]).await?.unwrap_or_default())
}

/// Refuses a user who may not write; the answer holds until the commit.
pub(super) async fn check_may_write(tx: &Tx<'_>, user: UserId) -> Sql<()> {
    let standing = held_standing(tx, user).await?;
    match standing.muted || standing.banned {
        true => Err(Refused::Muted.into()),
        false => Ok(()),
    }
}

/// At most `limit` users whose names in that column begin with this text and come after that one.
pub(super) async fn users_named<T: FromRow>(
    tx: &Tx<'_>,
    columns: &str,
    name: &str,
    beginning: &str,
    after: &str,
    limit: usize,
) -> Sql<Vec<T>> {
    let users = format!(
        "select {columns} from users u
         where u.{name} >= $1 and u.{name} < $2 and u.{name} > $3 and u.arrived_at is not null
         order by u.{name} limit $4"
    );
    let end = end_of(beginning);
    tx.all(&users, &[&beginning, &end, &after, &limit]).await
}

/// Adds an entry to the audit log, about something that was done on the server's command line.
pub(super) async fn record_command(tx: &Tx<'_>, words: &str) -> Sql<()> {
    let sql = "insert into audit_log (at, moderator, action) values ($1, 'the command line', $2)";
    tx.run(sql, &[&tx.now, &words]).await
}

/// Adds an entry to the audit log.
pub(super) async fn record(tx: &Tx<'_>, by: UserId, words: &str) -> Sql<()> {
    let sql = "insert into audit_log (at, moderator_id, moderator, action)
        select $1, id, coalesce(display_name || ' (' || name || ')', name), $2
        from users where id = $3";
    tx.run(sql, &[&tx.now, &words, &by]).await
}
