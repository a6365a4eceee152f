//! Accounts: people who registered a password, and the sessions they are signed in with.

use super::tx::{Hold, Locks, Sql, Tx, from_row, sought, span};
use super::users::{USER, hold_clients, standing, trace, user_of};
use super::{Result, SESSION_GOOD_FOR, Store, TOKEN_GOOD_FOR};
use crate::model::{ClientId, DisplayName, PasswordHash, SessionId, TokenHash, User, UserId};

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
                Ok(Some(session))
            },
        )
        .await
    }
}

from_row! {
    Session { id, user }
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
