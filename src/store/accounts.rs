//! Accounts: people who registered a password, and the sessions they are signed in with.

use super::tx::{Hold, Locks, Sql, Tx, from_row, sought, span};
use super::users::{
    USER, held_standing, hold_clients, hold_sessions, hold_user, person, record, record_command,
    standing, trace, user_of,
};
use super::{PASSWORD_LINK_GOOD_FOR, Result, SESSION_GOOD_FOR, Store, TOKEN_GOOD_FOR};
use crate::model::{ClientId, DisplayName, PasswordHash, SessionId, TokenHash, User, UserId};
use crate::moderation::Moderated;

/// A session of a signed-in person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The id of the session.
    pub id: SessionId,
    /// Its user.
    pub user: User,
}

/// A new session.
#[derive(Clone, Copy, Debug)]
pub struct NewSession {
    /// Its token.
    pub token: TokenHash,
    /// The session of the same browser that it replaces and ends.
    pub former: Option<TokenHash>,
}

/// The result of signing in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// The new session.
    pub session: Session,
    /// The one it replaced.
    pub former: Option<Session>,
}

impl Store {
    /// Registers an account with a password for the guest with this resume token, and signs them in:
    /// their client now belongs to the session, and the token is no longer valid. From now on the user
    /// and the display name belong to them alone.
    pub async fn register(
        &self,
        token: TokenHash,
        password: PasswordHash,
        session: NewSession,
    ) -> Result<Option<SignedIn>> {
        let locks = Locks::sessions(session.former);
        self.write("register", locks, async move |tx| {
            let guest = "select id, user_id from clients where token_hash = $1 and guest
                and (left_at is null or left_at > $2)";
            let values = [&token as _, &tx.now.before(TOKEN_GOOD_FOR) as _];
            let guest: Option<(ClientId, UserId)> =
                tx.one(&tx.hold(guest, Hold::Change), &values).await?;
            let Some((client, user)) = guest else {
                return Ok(None);
            };
            if standing(tx, user).await?.banned {
                return Ok(None);
            }
            set_password(tx, user, &password).await?;
            let signed_in = begin_session(tx, user, session).await?;
            // The client stays, so that the person does not leave while the page reloads. But no token leads to
            // it.
            let unknown = TokenHash(rand::random());
            let client_of =
                "update clients set guest = false, session_id = $1, token_hash = $2 where id = $3";
            tx.run(client_of, &[&signed_in.session.id, &unknown, &client])
                .await?;
            Ok(Some(signed_in))
        })
        .await
    }

    /// The account with this name, and its password. The name is a user name or, if there is none, a
    /// display name, without regard to case.
    pub async fn account(&self, name: &str) -> Result<Option<(User, PasswordHash)>> {
        let name = sought(&DisplayName::key_of(name));
        self.read("account", async move |tx| {
            for column in ["name", "display_key"] {
                let account = format!(
                    "select {USER}, u.password_hash from users u
                     where u.{column} = $1 and u.kept_at is not null and u.banned_at is null"
                );
                if let Some(found) = tx.one(&account, &[&name]).await? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Signs the user in, if this is still their password.
    pub async fn sign_in(
        &self,
        user: UserId,
        password: PasswordHash,
        session: NewSession,
    ) -> Result<Option<SignedIn>> {
        let locks = Locks::sessions(session.former);
        self.write("sign_in", locks, async move |tx| {
            // The password cannot change until the commit.
            let account = "select id from users
                where id = $1 and password_hash = $2 and banned_at is null";
            let account = tx.hold(account, Hold::Share);
            match tx.one(&account, &[&user, &password]).await? {
                Some(()) => begin_session(tx, user, session).await.map(Some),
                None => Ok(None),
            }
        })
        .await
    }

    /// The session with this token, if it is valid.
    pub async fn session(&self, token: TokenHash) -> Result<Option<Session>> {
        self.ask("session", async move |tx| session(tx, token).await)
            .await
    }

    /// Ends the session with its clients and their resume tokens.
    pub async fn sign_out(&self, token: TokenHash) -> Result<Option<Session>> {
        self.write("sign_out", Locks::sessions([token]), async move |tx| {
            end_session(tx, token).await
        })
        .await
    }

    /// Changes the password if it is `former` now. Ends the account's other sessions and returns this
    /// one.
    pub async fn change_password(
        &self,
        token: TokenHash,
        former: PasswordHash,
        password: PasswordHash,
    ) -> Result<Option<Session>> {
        self.write(
            "change_password",
            Locks::sessions([token]),
            async move |tx| {
                let Some(session) = session(tx, token).await? else {
                    return Ok(None);
                };
                hold_clients(tx, session.user.id).await?;
                let change =
                    "update users set password_hash = $1 where id = $2 and password_hash = $3";
                let values = [&password as _, &session.user.id as _, &former as _];
                if tx.changed(change, &values).await? == 0 {
                    return Ok(None);
                }
                let others = "delete from sessions where user_id = $1 and id <> $2";
                tx.run(others, &[&session.user.id, &session.id]).await?;
                forget_password_link(tx, session.user.id).await?;
                Ok(Some(session))
            },
        )
        .await
    }

    /// Adds a link with which that registered person chooses a new password, in place of an earlier one.
    /// It is valid for [`PASSWORD_LINK_GOOD_FOR`]. `by` is the moderator who passes it on; `None` is the
    /// server's command line, which gives one to moderators too. Either is recorded in the audit log.
    pub async fn add_password_link(
        &self,
        by: Option<UserId>,
        name: &str,
        token: TokenHash,
    ) -> Result<Moderated> {
        let name = name.to_owned();
        self.write("add_password_link", Locks::none(), async move |tx| {
            if let Some(by) = by
                && !held_standing(tx, by).await?.moderator
            {
                return Ok(Moderated::NotAllowed);
            }
            let Some(user) = person(tx, &name).await? else {
                return Ok(Moderated::Nothing);
            };
            let standing = held_standing(tx, user.id).await?;
            if standing.moderator && by.is_some() {
                return Ok(Moderated::Protected);
            }
            let has_account = "select password_hash is not null from users where id = $1";
            if standing.banned || !tx.the::<bool>(has_account, &[&user.id]).await? {
                return Ok(Moderated::Nothing);
            }
            let link =
                "insert into password_links (user_id, token_hash, made_at) values ($1, $2, $3)
                on conflict (user_id) do update set token_hash = $2, made_at = $3";
            tx.run(link, &[&user.id, &token, &tx.now]).await?;
            let words = format!("created a link to reset the password of {}", user.name);
            match by {
                Some(by) => record(tx, by, &words).await?,
                None => record_command(tx, &words).await?,
            }
            let user = Some(user.id);
            Ok(Moderated::Done { words, user })
        })
        .await
    }

    /// The person who chooses a new password with this link, if it is valid.
    pub async fn password_link(&self, token: TokenHash) -> Result<Option<User>> {
        self.ask("password_link", async move |tx| {
            password_link(tx, token).await
        })
        .await
    }

    /// Sets the password of the user by a link, which is then used up. Ends all sessions of the account
    /// and signs them in. `None` if the link is not valid.
    pub async fn reset_password(
        &self,
        link: TokenHash,
        user: User,
        password: PasswordHash,
        session: NewSession,
    ) -> Result<Option<SignedIn>> {
        let locks = Locks {
            rooms_of_users: vec![user.name.clone()],
            ..Locks::sessions(session.former)
        };
        self.write("reset_password", locks, async move |tx| {
            hold_sessions(tx, user.id).await?;
            hold_user(tx, user.id).await?;
            let linked = password_link(tx, link).await?;
            if linked.is_none_or(|linked| linked.id != user.id) {
                return Ok(None);
            }
            let sql = "update users set password_hash = $1 where id = $2";
            tx.run(sql, &[&password, &user.id]).await?;
            let sessions = "delete from sessions where user_id = $1";
            tx.run(sessions, &[&user.id]).await?;
            forget_password_link(tx, user.id).await?;
            record(tx, user.id, "chose a new password with a link").await?;
            begin_session(tx, user.id, session).await.map(Some)
        })
        .await
    }
}

from_row! {
    Session { id, user }
}

async fn password_link(tx: &Tx<'_>, token: TokenHash) -> Sql<Option<User>> {
    let sql = format!(
        "select {USER} from password_links l join users u on u.id = l.user_id
         where l.token_hash = $1 and l.made_at > (select millis()) - $2 and u.banned_at is null"
    );
    tx.one(&sql, &[&token, &span(PASSWORD_LINK_GOOD_FOR)]).await
}

pub(super) async fn forget_password_link(tx: &Tx<'_>, user: UserId) -> Sql<()> {
    let sql = "delete from password_links where user_id = $1";
    tx.run(sql, &[&user]).await
}

/// The session with that token, if it is valid.
pub(super) async fn session(tx: &Tx<'_>, token: TokenHash) -> Sql<Option<Session>> {
    let sql = format!(
        "select s.id, {USER} from sessions s join users u on u.id = s.user_id
         where s.token_hash = $1 and s.seen_at > (select millis()) - $2 and u.banned_at is null"
    );
    tx.one(&sql, &[&token, &span(SESSION_GOOD_FOR)]).await
}

/// Ends the session with that token, and its clients.
async fn end_session(tx: &Tx<'_>, token: TokenHash) -> Sql<Option<Session>> {
    let ended = session(tx, token).await?;
    let delete = "delete from sessions where token_hash = $1";
    tx.run(delete, &[&token]).await?;
    Ok(ended)
}

pub(super) async fn begin_session(tx: &Tx<'_>, user: UserId, new: NewSession) -> Sql<SignedIn> {
    let former = match new.former {
        Some(former) => end_session(tx, former).await?,
        None => None,
    };
    let sql = "insert into sessions (user_id, token_hash, made_at, seen_at)
        values ($1, $2, $3, $3) returning id";
    let id = tx.the(sql, &[&user, &new.token, &tx.now]).await?;
    let user = user_of(tx, user).await?;
    Ok(SignedIn {
        session: Session { id, user },
        former,
    })
}

/// Sets the password of the user's account.
pub(super) async fn set_password(tx: &Tx<'_>, user: UserId, password: &PasswordHash) -> Sql<()> {
    trace(tx, user).await?;
    let sql = "update users set password_hash = $1, kept_at = $2 where id = $3";
    tx.run(sql, &[password, &tx.now, &user]).await
}
