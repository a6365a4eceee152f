//! Users, clients, sessions, names and leases, in SQL.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::moderation::{self, may_write};
use super::sql::{self, Sql, end_of, sought};
use super::writer::{By, Writing};
use crate::model::{
    ClientId, DisplayName, GroupName, Millis, NewUser, NodeId, PasswordHash, Person, RoomId,
    SessionId, TokenHash, User, UserId,
};
use crate::store::{
    Arrival, Arrived, Begun, FREE_AFTER, LEASE, Left, NewSession, Renamed, Returning,
    SESSION_GOOD_FOR, Session, TOKEN_GOOD_FOR,
};

/// For so long those whose server has stopped under them keep what they are called.
const COMING_BACK: Duration = Duration::from_secs(60);
/// How many rows one round of clearing up takes at most, of each kind.
const EXPIRE_AT_ONCE: i64 = 500;
/// For so long the last transaction of a process is remembered.
const WRITER_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// What the advisory lock of those who give names is known by.
const NAMING: i64 = 0x6e61_6d65;

/// The columns that [`user`] reads.
pub(super) const USER: &str = "u.id, u.name, u.display_name";

pub(super) fn user(row: &Row) -> Sql<User> {
    Ok(User {
        id: UserId(row.try_get(0)?),
        name: row.try_get(1)?,
        display_name: row.try_get(2)?,
    })
}

/// Either of the [looks](DisplayName::looks_of) of a user name, as the index has it.
const LOOK: &str =
    "replace(replace(replace(replace(u.name, 'm', 'rn'), '0', 'o'), '1', 'l'), 'i', 'l')";

fn span(duration: Duration) -> i64 {
    Millis(0).after(duration).0
}

fn random_user(row: &Row) -> Sql<UserId> {
    row.try_get(0).map(UserId)
}

pub(super) const WHO_STAND: &str = "select w.n
    from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
        as w (n, client, visit, user_id)
    join clients c on c.id = w.client
    where c.visit = w.visit and c.left_at is null and c.user_id = coalesce(w.user_id, c.user_id)
    order by c.id for share of c";

/// Which of these clients stand, until this is committed: who ends one, or takes it over, waits.
pub(super) async fn who_stand(
    db: &impl GenericClient,
    clients: &[Option<By>],
) -> Sql<HashSet<usize>> {
    let mut sought = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (n, by) in clients.iter().enumerate() {
        if let Some((Returning { client, visit }, user)) = by {
            sought.0.push(n as i64);
            sought.1.push(client.0);
            sought.2.push(*visit);
            sought.3.push(user.map(|user| user.0));
        }
    }
    if sought.0.is_empty() {
        return Ok(HashSet::new());
    }
    let (places, ids, visits, users) = &sought;
    let standing: Vec<i64> = sql::all(db, WHO_STAND, &[places, ids, visits, users], |row| {
        row.try_get(0)
    })
    .await?;
    let standing = standing.into_iter();
    Ok(standing.filter_map(|n| usize::try_from(n).ok()).collect())
}

/// The clients of whoever has that user name.
pub(super) async fn clients_of(db: &impl GenericClient, name: &str) -> Sql<Vec<ClientId>> {
    sql::all(
        db,
        "select c.id from users u join clients c on c.user_id = u.id
         where u.name = $1 and c.left_at is null",
        &[&sought(&name.to_lowercase())],
        client_in,
    )
    .await
}

/// The clients of whoever has signed in by that session.
pub(super) async fn clients_by(db: &impl GenericClient, token: TokenHash) -> Sql<Vec<ClientId>> {
    sql::all(
        db,
        "select c.id from sessions s join clients c on c.user_id = s.user_id
         where s.token_hash = $1 and c.left_at is null",
        &[&token.0.as_slice()],
        client_in,
    )
    .await
}

fn client_in(row: &Row) -> Sql<ClientId> {
    row.try_get(0).map(ClientId)
}

/// Until it is committed, nobody else writes for these clients, nor comes back to them. Those who
/// write have their client before its user, and so does whoever ends it.
pub(super) async fn lock_clients(db: &impl GenericClient, user: UserId) -> Sql<()> {
    let sql = "select 1 from clients where user_id = $1 order by id for update";
    sql::run(db, sql, &[&user.0]).await.map(|_| ())
}

/// Until it is committed, nobody else changes the user.
pub(super) async fn lock_user(db: &impl GenericClient, user: UserId) -> Sql<()> {
    let sql = "select 1 from users where id = $1 for no key update";
    sql::run(db, sql, &[&user.0]).await.map(|_| ())
}

/// From now on the user is never handed to somebody else.
pub(super) async fn trace(db: &impl GenericClient, user: UserId, now: Millis) -> Sql<()> {
    sql::run(
        db,
        "update users set traced_at = $1, free = false, gone_at = null
         where id = $2 and traced_at is null",
        &[&now.0, &user.0],
    )
    .await
    .map(|_| ())
}

/// Whoever somebody has a private room with is not handed to a newcomer.
pub(super) async fn keep(db: &impl GenericClient, user: UserId, now: Millis) -> Sql<()> {
    sql::run(
        db,
        "update users set free = false, gone_at = $1 where id = $2 and free",
        &[&now.0, &user.0],
    )
    .await
    .map(|_| ())
}

pub(super) async fn person(db: &impl GenericClient, name: &str) -> Sql<Option<User>> {
    sql::one(
        db,
        &format!("select {USER} from users u where u.name = $1 and u.arrived_at is not null"),
        &[&sought(&name.to_lowercase())],
        user,
    )
    .await
}

async fn called(db: &impl GenericClient, name: &str) -> Sql<Option<User>> {
    sql::one(
        db,
        &format!("select {USER} from users u where u.display_key = $1"),
        &[&sought(&GroupName::key_of(name))],
        user,
    )
    .await
}

pub(super) async fn person_called(
    db: &impl GenericClient,
    names: &[String],
) -> Sql<Option<(usize, User)>> {
    for (n, name) in names.iter().enumerate() {
        let found = match person(db, name).await? {
            None => called(db, name).await?,
            found => found,
        };
        if let Some(user) = found {
            return Ok(Some((n, user)));
        }
    }
    Ok(None)
}

async fn user_of(db: &impl GenericClient, id: UserId) -> Sql<User> {
    let statement = db
        .prepare_cached(&format!("select {USER} from users u where u.id = $1"))
        .await?;
    user(&db.query_one(&statement, &[&id.0]).await?)
}

/// Until it is committed, no other name is given: what a user name and a display name may not be at
/// once no index can say.
async fn lock_names(db: &impl GenericClient) -> Sql<()> {
    sql::run(db, "select pg_advisory_xact_lock($1)", &[&NAMING])
        .await
        .map(|_| ())
}

/// What a user asks to be called, or as near to it as can be had.
pub(super) async fn rename(
    writing: &Writing<'_>,
    me: UserId,
    name: Option<&DisplayName>,
    namesakes: u32,
) -> Sql<Renamed> {
    let (db, now) = (writing.db, writing.now);
    if !may_write(db, me).await? {
        return Ok(Renamed::Muted);
    }
    let own = user_of(db, me).await?;
    let Some(wish) = name.filter(|name| name.as_str() != own.name) else {
        call(db, me, None).await?;
        return renamed(db, me, Vec::new()).await;
    };
    lock_names(db).await?;
    for number in 1..=namesakes.max(1) {
        let name = match number {
            1 => wish.clone(),
            number => wish.numbered(number),
        };
        let Some(former) = free_to_be_called(db, me, &name, now).await? else {
            continue;
        };
        for user in &former {
            call(db, *user, None).await?;
        }
        trace(db, me, now).await?;
        call(db, me, Some(&name)).await?;
        return renamed(db, me, former).await;
    }
    Ok(Renamed::Taken)
}

/// Those who were called so, are not here any more and do not keep their name; `None` where the name
/// is taken.
async fn free_to_be_called(
    db: &impl GenericClient,
    me: UserId,
    name: &DisplayName,
    now: Millis,
) -> Sql<Option<Vec<UserId>>> {
    for run in name.runs() {
        for look in DisplayName::looks_of(run) {
            let is_user_name: bool = sql::value(
                db,
                &format!("select exists (select 1 from users u where {LOOK} = $1 and u.id <> $2)"),
                &[&look, &me.0],
            )
            .await?;
            if is_user_name {
                return Ok(None);
            }
        }
    }
    let [look, capitals] = name.looks();
    let mut former = Vec::new();
    for (column, look) in [("display_look", look), ("display_look_capitals", capitals)] {
        // Those whom a stop of their server has cut off are about to come back.
        let holder = sql::one(
            db,
            &format!(
                "select u.id, u.kept_at is not null or exists (select 1 from clients c
                    where c.user_id = u.id and (c.left_at is null or c.cut_off and c.left_at > $1))
                 from users u where u.{column} = $2 and u.id <> $3"
            ),
            &[&now.before(COMING_BACK).0, &look, &me.0],
            |row| Ok((UserId(row.try_get(0)?), row.try_get(1)?)),
        )
        .await?;
        match holder {
            Some((_, true)) => return Ok(None),
            Some((holder, false)) => former.push(holder),
            None => {}
        }
    }
    former.dedup();
    Ok(Some(former))
}

/// What has come of it, and the private rooms that show it.
async fn renamed(db: &impl GenericClient, me: UserId, former: Vec<UserId>) -> Sql<Renamed> {
    let mut rooms = Vec::new();
    for user in former.iter().chain([&me]) {
        for end in ["user_low", "user_high"] {
            let open = sql::all(
                db,
                &format!(
                    "select r.id from rooms r where r.{end} = $1
                     and exists (select 1 from clients_active a where a.room_id = r.id)"
                ),
                &[&user.0],
                |row| row.try_get(0).map(RoomId),
            )
            .await?;
            rooms.extend(open);
        }
    }
    let user = user_of(db, me).await?;
    Ok(Renamed::As {
        user,
        former,
        rooms,
    })
}

/// The user is called so from now on, or by the user name.
async fn call(db: &impl GenericClient, user: UserId, name: Option<&DisplayName>) -> Sql<()> {
    sql::run(
        db,
        "update users set display_name = $1, display_key = $2, display_look = $3,
            display_look_capitals = $4
         where id = $5",
        &[
            &name.map(DisplayName::as_str),
            &name.map(DisplayName::key),
            &name.map(|name| name.looks()[0].clone()),
            &name.map(|name| name.looks()[1].clone()),
            &user.0,
        ],
    )
    .await
    .map(|_| ())
}

/// Makes users in one statement; those are left out whose name or e-mail address is taken, or by
/// whose name what somebody is called begins.
pub(super) async fn add_users(db: &impl GenericClient, new: &[NewUser]) -> Sql<Vec<UserId>> {
    lock_names(db).await?;
    let names: Vec<_> = new.iter().map(|new| new.name.as_str()).collect();
    let emails: Vec<_> = new.iter().map(|new| new.email.as_str()).collect();
    let looks: Vec<_> = new
        .iter()
        .map(|new| DisplayName::looks_of(&new.name)[0].clone())
        .collect();
    let ends: Vec<_> = looks.iter().map(|look| end_of(look)).collect();
    let shuffles: Vec<i64> = new.iter().map(|_| rand::random()).collect();
    sql::all(
        db,
        "insert into users (name, email, shuffle)
         select new.name, new.email, new.shuffle
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
            as new (name, email, look, look_end, shuffle)
         where not exists (select 1 from users u
            where u.display_look >= new.look collate \"C\"
            and u.display_look < new.look_end collate \"C\")
         on conflict do nothing returning id",
        &[&names, &emails, &looks, &ends, &shuffles],
        random_user,
    )
    .await
}

async fn add_user(db: &impl GenericClient, new: &NewUser) -> Sql<Option<UserId>> {
    let made = add_users(db, std::slice::from_ref(new)).await?;
    Ok(made.first().copied())
}

/// A random user who is free: the next one from a random place of the shuffled order whom no other
/// node is about to hand out.
async fn free_user(db: &impl GenericClient) -> Sql<Option<UserId>> {
    for from in [rand::random(), i64::MIN] {
        let found = sql::one(
            db,
            "select id from users where free and shuffle >= $1
             order by shuffle limit 1 for no key update skip locked",
            &[&from],
            random_user,
        )
        .await?;
        if let Some(user) = found {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// The session of that token, if it is good.
pub(super) async fn session(db: &impl GenericClient, token: TokenHash) -> Sql<Option<Session>> {
    sql::one(
        db,
        &format!(
            "select {USER}, s.id from sessions s join users u on u.id = s.user_id
             where s.token_hash = $1 and s.seen_at > millis() - $2 and u.banned_at is null"
        ),
        &[&token.0.as_slice(), &span(SESSION_GOOD_FOR)],
        |row| {
            Ok(Session {
                id: SessionId(row.try_get(3)?),
                user: user(row)?,
            })
        },
    )
    .await
}

/// Ends the session of that token; its clients go with it.
pub(super) async fn end_session(db: &impl GenericClient, token: TokenHash) -> Sql<Option<Session>> {
    let ended = session(db, token).await?;
    sql::run(
        db,
        "delete from sessions where token_hash = $1",
        &[&token.0.as_slice()],
    )
    .await?;
    Ok(ended)
}

async fn begin_session(
    db: &impl GenericClient,
    user: UserId,
    new: NewSession,
    now: Millis,
) -> Sql<Begun> {
    let former = match new.former {
        Some(former) => end_session(db, former).await?,
        None => None,
    };
    let id = sql::value(
        db,
        "insert into sessions (user_id, token_hash, made_at, seen_at)
         values ($1, $2, $3, $3) returning id",
        &[&user.0, &new.token.0.as_slice(), &now.0],
    )
    .await
    .map(SessionId)?;
    let user = user_of(db, user).await?;
    Ok(Begun {
        session: Session { id, user },
        former,
    })
}

/// The user signs in by that password, if it is theirs still, which it is until this is committed.
pub(super) async fn sign_in(
    db: &impl GenericClient,
    user: UserId,
    password: &PasswordHash,
    new: NewSession,
    now: Millis,
) -> Sql<Option<Begun>> {
    let theirs = sql::run(
        db,
        "select 1 from users where id = $1 and password_hash = $2 and banned_at is null for share",
        &[&user.0, &password.0],
    )
    .await?;
    match theirs {
        0 => Ok(None),
        _ => begin_session(db, user, new, now).await.map(Some),
    }
}

pub(super) async fn keep_name(
    db: &impl GenericClient,
    token: TokenHash,
    password: &PasswordHash,
    new: NewSession,
    now: Millis,
) -> Sql<Option<Begun>> {
    let guest = sql::one(
        db,
        "select id, user_id from clients where token_hash = $1 and guest
         and (left_at is null or left_at > $2) for no key update",
        &[&token.0.as_slice(), &now.before(TOKEN_GOOD_FOR).0],
        |row| Ok((row.try_get::<_, i64>(0)?, UserId(row.try_get(1)?))),
    )
    .await?;
    let Some((client, user)) = guest else {
        return Ok(None);
    };
    if moderation::standing(db, user).await?.banned {
        return Ok(None);
    }
    trace(db, user, now).await?;
    own(db, user, password, now).await?;
    let begun = begin_session(db, user, new, now).await?;
    // It stays, so that nobody has gone while the page is loaded anew; but no token leads to it.
    let unknown: [u8; 32] = rand::random();
    sql::run(
        db,
        "update clients set guest = false, session_id = $1, token_hash = $2 where id = $3",
        &[&begun.session.id.0, &unknown.as_slice(), &client],
    )
    .await?;
    Ok(Some(begun))
}

/// The user is kept by that password.
async fn own(
    db: &impl GenericClient,
    user: UserId,
    password: &PasswordHash,
    now: Millis,
) -> Sql<()> {
    sql::run(
        db,
        "update users set password_hash = $1, kept_at = $2 where id = $3",
        &[&password.0, &now.0, &user.0],
    )
    .await
    .map(|_| ())
}

/// Somebody who has not been here is from now on a moderator who keeps their name.
pub(super) async fn arrive_as_moderator(
    db: &impl GenericClient,
    link: TokenHash,
    spare: &NewUser,
    password: &PasswordHash,
    session: NewSession,
    now: Millis,
) -> Sql<Option<Begun>> {
    if !moderation::hold_admin_link(db, link).await? {
        return Ok(None);
    }
    let user = match free_user(db).await? {
        Some(user) => user,
        None => match add_user(db, spare).await? {
            Some(user) => user,
            None => return Ok(None),
        },
    };
    hand_over(db, user, now).await?;
    trace(db, user, now).await?;
    own(db, user, password, now).await?;
    moderation::become_moderator(db, link, user, now).await?;
    begin_session(db, user, session, now).await.map(Some)
}

pub(super) async fn account(
    db: &impl GenericClient,
    name: &str,
) -> Sql<Option<(User, PasswordHash)>> {
    for column in ["name", "display_key"] {
        let found = sql::one(
            db,
            &format!(
                "select {USER}, u.password_hash from users u
                 where u.{column} = $1 and u.kept_at is not null and u.banned_at is null"
            ),
            &[&sought(name)],
            |row| Ok((user(row)?, PasswordHash(row.try_get(3)?))),
        )
        .await?;
        if let Some(found) = found {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

pub(super) async fn change_password(
    db: &impl GenericClient,
    token: TokenHash,
    was: &PasswordHash,
    password: &PasswordHash,
) -> Sql<Option<Session>> {
    let Some(session) = session(db, token).await? else {
        return Ok(None);
    };
    lock_clients(db, session.user.id).await?;
    let changed = sql::run(
        db,
        "update users set password_hash = $1 where id = $2 and password_hash = $3",
        &[&password.0, &session.user.id.0, &was.0],
    )
    .await?;
    if changed == 0 {
        return Ok(None);
    }
    sql::run(
        db,
        "delete from sessions where user_id = $1 and id <> $2",
        &[&session.user.id.0, &session.id.0],
    )
    .await?;
    Ok(Some(session))
}

pub(super) async fn returning(
    db: &impl GenericClient,
    token: TokenHash,
    by: Option<TokenHash>,
) -> Sql<Option<(Returning, Option<NodeId>)>> {
    let by = match by {
        Some(by) => session(db, by).await?,
        None => None,
    };
    sql::one(
        db,
        "select id, visit, case when left_at is null then node_id end from clients
         where token_hash = $1 and session_id is not distinct from $2
         and (left_at is null or left_at > millis() - $3)",
        &[
            &token.0.as_slice(),
            &by.map(|session| session.id.0),
            &span(TOKEN_GOOD_FOR),
        ],
        |row| {
            let returning = Returning {
                client: client_in(row)?,
                visit: row.try_get(1)?,
            };
            Ok((returning, row.try_get::<_, Option<i64>>(2)?.map(NodeId)))
        },
    )
    .await
}

/// What coming back to a client comes to.
enum Back {
    As(UserId),
    Banned,
    Overtaken,
}

async fn come_back(
    db: &impl GenericClient,
    arrival: &Arrival,
    returning: Returning,
    session: Option<SessionId>,
    now: Millis,
) -> Sql<Back> {
    let user = sql::one(
        db,
        "update clients set visit = visit + 1, node_id = $1, left_at = null, cut_off = false,
            arrived_at = case when left_at is null then arrived_at else $2 end
         where id = $3 and visit = $4 and token_hash = $5
            and session_id is not distinct from $6 and (left_at is null or left_at > $7)
         returning user_id",
        &[
            &arrival.node.0,
            &now.0,
            &returning.client.0,
            &returning.visit,
            &arrival.token.0.as_slice(),
            &session.map(|session| session.0),
            &now.before(TOKEN_GOOD_FOR).0,
        ],
        random_user,
    )
    .await?;
    let Some(user) = user else {
        return Ok(Back::Overtaken);
    };
    // A ban waits for the client, or has been waited for.
    let banned = sql::value(
        db,
        "update users set free = false, gone_at = null where id = $1
         returning banned_at is not null",
        &[&user.0],
    )
    .await?;
    if banned {
        // Not here, and known by that token for another while.
        let sql = "update clients set left_at = $1 where id = $2";
        sql::run(db, sql, &[&now.0, &returning.client.0]).await?;
        return Ok(Back::Banned);
    }
    Ok(Back::As(user))
}

pub(super) async fn arrive(
    db: &impl GenericClient,
    arrival: &Arrival,
    now: Millis,
) -> Sql<Arrived> {
    renew_lease(db, arrival.node, now).await?;
    let session = match arrival.session {
        Some(token) => session(db, token).await?,
        None => None,
    };
    if let Some(Session { id, .. }) = &session {
        sql::run(
            db,
            "update sessions set seen_at = $1 where id = $2",
            &[&now.0, &id.0],
        )
        .await?;
    }
    let id = session.as_ref().map(|session| session.id);
    if let Some(returning) = arrival.resume {
        let back = come_back(db, arrival, returning, id, now).await?;
        return Ok(match back {
            Back::As(user) => Arrived::As {
                client: Returning {
                    visit: returning.visit + 1,
                    ..returning
                },
                user: user_of(db, user).await?,
                session: id,
            },
            Back::Banned => Arrived::Banned,
            Back::Overtaken => Arrived::Overtaken,
        });
    }
    if let Some(Session { id, user }) = session {
        return Ok(Arrived::As {
            client: new_client(db, arrival, user.id, Some(id), now).await?,
            user,
            session: Some(id),
        });
    }
    let user = match free_user(db).await? {
        Some(user) => user,
        None => {
            let Some(spare) = &arrival.spare else {
                return Ok(Arrived::NobodyFree);
            };
            match add_user(db, spare).await? {
                Some(user) => user,
                None => return Ok(Arrived::NobodyFree),
            }
        }
    };
    hand_over(db, user, now).await?;
    Ok(Arrived::As {
        client: new_client(db, arrival, user, None, now).await?,
        user: user_of(db, user).await?,
        session: None,
    })
}

/// Nothing of whoever was this user before is left: their token ends, and so do private rooms in
/// which nothing was said.
async fn hand_over(db: &impl GenericClient, user: UserId, now: Millis) -> Sql<()> {
    for sql in [
        "delete from clients where user_id = $1",
        "delete from rooms where version = 0 and user_low = $1",
        "delete from rooms where version = 0 and user_high = $1",
    ] {
        sql::run(db, sql, &[&user.0]).await?;
    }
    sql::run(
        db,
        "update users set free = false, gone_at = null, arrived_at = coalesce(arrived_at, $1)
         where id = $2",
        &[&now.0, &user.0],
    )
    .await
    .map(|_| ())
}

async fn new_client(
    db: &impl GenericClient,
    arrival: &Arrival,
    user: UserId,
    session: Option<SessionId>,
    now: Millis,
) -> Sql<Returning> {
    let client = sql::value(
        db,
        "insert into clients (user_id, guest, session_id, node_id, token_hash, arrived_at)
         values ($1, $2, $3, $4, $5, $6) returning id",
        &[
            &user.0,
            &session.is_none(),
            &session.map(|session| session.0),
            &arrival.node.0,
            &arrival.token.0.as_slice(),
            &now.0,
        ],
    )
    .await?;
    Ok(Returning {
        client: ClientId(client),
        visit: 0,
    })
}

pub(super) async fn leave(
    db: &impl GenericClient,
    clients: &[Returning],
    now: Millis,
) -> Sql<Vec<Left>> {
    let ids: Vec<i64> = clients.iter().map(|client| client.client.0).collect();
    let visits: Vec<i64> = clients.iter().map(|client| client.visit).collect();
    let gone = sql::all(
        db,
        "update clients c set left_at = $1
         from unnest($2::bigint[], $3::bigint[]) as w (client, visit)
         where c.id = w.client and c.visit = w.visit and c.left_at is null
         returning c.id, c.user_id",
        &[&now.0, &ids, &visits],
        gone_in,
    )
    .await?;
    let seen: Vec<i64> = gone.iter().map(|(client, _)| client.0).collect();
    sql::run(
        db,
        "update sessions set seen_at = $1
         where id in (select session_id from clients where id = any($2))",
        &[&now.0, &seen],
    )
    .await?;
    have_left(db, gone, now).await
}

fn gone_in(row: &Row) -> Sql<(ClientId, UserId)> {
    Ok((client_in(row)?, UserId(row.try_get(1)?)))
}

/// These clients are here no more.
async fn have_left(
    db: &impl GenericClient,
    mut gone: Vec<(ClientId, UserId)>,
    now: Millis,
) -> Sql<Vec<Left>> {
    gone.sort();
    let clients: Vec<i64> = gone.iter().map(|(client, _)| client.0).collect();
    let users: Vec<i64> = gone.iter().map(|(_, user)| user.0).collect();
    // Locked before the look at who is left, so that of two nodes at once the second sees what the
    // first has done.
    let people = sql::all(
        db,
        &format!("select {USER} from users u where u.id = any($1) order by u.id for no key update"),
        &[&users],
        user,
    )
    .await?;
    let people: HashMap<UserId, User> = people.into_iter().map(|user| (user.id, user)).collect();
    let rooms: Vec<(ClientId, RoomId)> = sql::all(
        db,
        "with gone as (
            delete from clients_active where client_id = any($1)
            returning client_id, room_id, user_id)
         select g.client_id, g.room_id from gone g where not exists (
            select 1 from clients_active a where a.room_id = g.room_id
            and a.user_id = g.user_id and a.client_id <> all($1))",
        &[&clients],
        |row| Ok((client_in(row)?, RoomId(row.try_get(1)?))),
    )
    .await?;
    let here = sql::all(
        db,
        "select user_id from clients where user_id = any($1) and left_at is null",
        &[&users],
        random_user,
    )
    .await?;
    sql::run(
        db,
        "update users set gone_at = $1
         where id = any($2) and traced_at is null and not free and gone_at is null",
        &[&now.0, &users],
    )
    .await?;
    let rooms: HashMap<ClientId, RoomId> = rooms.into_iter().collect();
    // Of several of one person the last is the one after which nobody is left.
    let mut here: HashSet<UserId> = here.into_iter().collect();
    let mut looking = HashSet::new();
    let mut left = Vec::new();
    for (client, user) in gone.into_iter().rev() {
        let room = rooms.get(&client).copied();
        left.extend(people.get(&user).cloned().map(|person| Left {
            user: person,
            room: room.filter(|room| looking.insert((*room, user))),
            last: here.insert(user),
        }));
    }
    left.reverse();
    Ok(left)
}

pub(super) async fn renew_lease(db: &impl GenericClient, node: NodeId, now: Millis) -> Sql<()> {
    sql::run(
        db,
        "insert into nodes (id, lease_until) values ($1, $2)
         on conflict (id) do update set lease_until = excluded.lease_until",
        &[&node.0, &now.after(LEASE).0],
    )
    .await
    .map(|_| ())
}

pub(super) async fn is_anything_due(
    db: &impl GenericClient,
    node: NodeId,
    ahead: i64,
) -> Sql<bool> {
    sql::value(
        db,
        "select exists (select 1 from nodes where lease_until < now.at and id <> $2)
            or exists (select 1 from users where gone_at <= now.at - $3)
            or exists (select 1 from clients where left_at < now.at - $4)
            or exists (select 1 from sessions where seen_at < now.at - $5)
         from (select millis() + $1 as at offset 0) now",
        &[
            &ahead,
            &node.0,
            &span(FREE_AFTER),
            &span(TOKEN_GOOD_FOR),
            &span(SESSION_GOOD_FOR),
        ],
    )
    .await
}

/// The clients of nodes whose lease has run out, or will have by so much later.
pub(super) async fn clients_of_dead(
    db: &impl GenericClient,
    node: NodeId,
    ahead: i64,
) -> Sql<Vec<ClientId>> {
    sql::all(
        db,
        "select id from clients where left_at is null and node_id in
         (select id from nodes where lease_until < millis() + $1 and id <> $2)",
        &[&ahead, &node.0],
        client_in,
    )
    .await
}

/// These nodes have ended, and whoever was on them is gone.
pub(super) async fn end_nodes(
    db: &impl GenericClient,
    nodes: &[i64],
    now: Millis,
) -> Sql<Vec<Left>> {
    let cut_off = sql::all(
        db,
        "update clients set left_at = $1, cut_off = true
         where left_at is null and node_id = any($2) returning id, user_id",
        &[&now.0, &nodes],
        gone_in,
    )
    .await?;
    sql::run(db, "delete from nodes where id = any($1)", &[&nodes]).await?;
    match cut_off.is_empty() {
        true => Ok(Vec::new()),
        false => have_left(db, cut_off, now).await,
    }
}

pub(super) async fn end(db: &impl GenericClient, node: NodeId, now: Millis) -> Sql<Vec<Left>> {
    sql::run(
        db,
        "update sessions set seen_at = $1 where id in
            (select session_id from clients where left_at is null and node_id = $2)",
        &[&now.0, &node.0],
    )
    .await?;
    end_nodes(db, &[node.0], now).await
}

pub(super) async fn expire(db: &impl GenericClient, node: NodeId, now: Millis) -> Sql<Vec<Left>> {
    // A node that renews its lease at this moment is before this or after it.
    let dead = sql::all(
        db,
        "select id from nodes where lease_until < $1 and id <> $2 order by id for update",
        &[&now.0, &node.0],
        |row| row.try_get(0),
    )
    .await?;
    let left = match dead.is_empty() {
        true => Vec::new(),
        false => end_nodes(db, &dead, now).await?,
    };
    free_untouched(db, now).await?;
    sql::run(
        db,
        "delete from clients where id in (select id from clients where left_at < $1 limit $2)",
        &[&now.before(TOKEN_GOOD_FOR).0, &EXPIRE_AT_ONCE],
    )
    .await?;

    // Who is here by a session shows it, however long ago they came.
    let unseen = now.before(SESSION_GOOD_FOR).0;
    sql::run(
        db,
        "update sessions set seen_at = $1 where id in (
            select s.id from sessions s where s.seen_at < $2 and exists (
                select 1 from clients c where c.session_id = s.id and c.left_at is null)
            limit $3)",
        &[&now.0, &unseen, &EXPIRE_AT_ONCE],
    )
    .await?;
    sql::run(
        db,
        "delete from sessions where id in (
            select s.id from sessions s where s.seen_at < $1 and not exists (
                select 1 from clients c where c.session_id = s.id and c.left_at is null)
            limit $2)",
        &[&unseen, &EXPIRE_AT_ONCE],
    )
    .await?;
    sql::run(
        db,
        "delete from writers where seen_at < $1",
        &[&now.before(WRITER_REMEMBERED).0],
    )
    .await?;
    Ok(left)
}

/// Untouched users who have been gone for a while are free, but for those whom somebody has a private
/// room open with: they are looked at again later.
async fn free_untouched(db: &impl GenericClient, now: Millis) -> Sql<()> {
    // Locked before the look at who is with them, which nobody comes to be without the same lock.
    let gone: Vec<i64> = sql::all(
        db,
        "select id from users where gone_at <= $1 order by gone_at limit $2
         for no key update skip locked",
        &[&now.before(FREE_AFTER).0, &EXPIRE_AT_ONCE],
        |row| row.try_get(0),
    )
    .await?;
    if gone.is_empty() {
        return Ok(());
    }
    sql::run(
        db,
        "update users u set free = not wanted.is, gone_at = case when wanted.is then $2::bigint end
         from (select id, exists (
                select 1 from rooms r join clients_active a on a.room_id = r.id
                where r.user_low = g.id)
             or exists (
                select 1 from rooms r join clients_active a on a.room_id = r.id
                where r.user_high = g.id) as is
            from unnest($1::bigint[]) as g (id)) wanted
         where u.id = wanted.id",
        &[&gone, &now.0],
    )
    .await
    .map(|_| ())
}

/// A person who is or is not here.
fn person_in(row: &Row) -> Sql<Person> {
    Ok(Person {
        user: user(row)?,
        unread: u32::try_from(row.try_get::<_, i64>(3)?).unwrap_or(u32::MAX),
        online: row.try_get(4)?,
    })
}

pub(super) async fn online(db: &impl GenericClient, limit: usize) -> Sql<(Vec<Person>, u64)> {
    let people = sql::all(
        db,
        &format!(
            "select {USER}, 0::bigint, true from clients c join users u on u.id = c.user_id
             where c.left_at is null and not exists (
                select 1 from clients o where o.user_id = c.user_id and o.left_at is null
                and (o.arrived_at, o.id) < (c.arrived_at, c.id))
             order by c.arrived_at, c.id limit $1"
        ),
        &[&(limit as i64)],
        person_in,
    )
    .await?;
    let count = match people.len() < limit {
        true => people.len() as u64,
        false => {
            let sql = "select count(distinct user_id) from clients where left_at is null";
            sql::one(db, sql, &[], |row| sql::count(row, 0))
                .await?
                .unwrap_or(0)
        }
    };
    Ok((people, count))
}

pub(super) async fn people_in(
    db: &impl GenericClient,
    room: RoomId,
    limit: usize,
) -> Sql<(Vec<Person>, u64)> {
    let count = sql::one(
        db,
        "select people from rooms where id = $1 and kind = 'group'",
        &[&room.0],
        |row| sql::count(row, 0),
    )
    .await?;
    let Some(count) = count else {
        return Ok((Vec::new(), 0));
    };
    let people = sql::all(
        db,
        &format!(
            "select {USER}, 0::bigint, false from clients_active a join users u on u.id = a.user_id
             where a.room_id = $1 and not exists (
                select 1 from clients_active o
                where o.room_id = a.room_id and o.user_id = a.user_id
                and (o.entered_at, o.client_id) < (a.entered_at, a.client_id))
             order by a.entered_at, a.client_id limit $2"
        ),
        &[&room.0, &(limit as i64)],
        person_in,
    )
    .await?;
    Ok((people, count))
}

/// Whether a user `u` is here.
pub(super) const ONLINE: &str =
    "exists (select 1 from clients c where c.user_id = u.id and c.left_at is null)";

pub(super) async fn people_of(
    db: &impl GenericClient,
    me: UserId,
    limit: usize,
) -> Sql<Vec<Person>> {
    sql::all(
        db,
        &format!(
            "select {USER}, s.unread, {ONLINE}
             from users_subscribed s join users u on u.id = s.with_id
             where s.user_id = $1 and s.with_id is not null
             order by (s.unread > 0) desc, s.last_message_id desc limit $2"
        ),
        &[&me.0, &(limit as i64)],
        person_in,
    )
    .await
}

pub(super) async fn find_people(
    db: &impl GenericClient,
    beginning: &str,
    limit: usize,
) -> Sql<Vec<Person>> {
    let beginning = sought(&GroupName::key_of(beginning));
    let mut found = Vec::new();
    for name in ["name", "display_key"] {
        let people = sql::all(
            db,
            &format!(
                "select {USER}, 0::bigint, {ONLINE} from users u
                 where u.{name} >= $1 and u.{name} < $2 and u.arrived_at is not null
                 order by u.{name} limit $3"
            ),
            &[&beginning, &end_of(&beginning), &(limit as i64)],
            person_in,
        )
        .await?;
        for person in people {
            if !found.contains(&person) {
                found.push(person);
            }
        }
    }
    found.truncate(limit);
    Ok(found)
}
