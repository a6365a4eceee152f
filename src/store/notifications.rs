//! Notifications: who wants them, and who is looking at the chat.

use super::rooms::SHOWN;
use super::tx::{Locks, Param, Sql, Tx, from_row, span};
use super::users::trace;
use super::{Actor, Mentions, Result, SESSION_GOOD_FOR, Store};
use crate::model::{
    ClientRef, Message, NodeId, Notifications, NotificationsChange, PushSubscription, SessionId,
    UserId,
};

/// How many browsers of one person can be subscribed.
const SUBSCRIPTIONS: usize = 10;

impl Store {
    /// The settings of those of these people who want notifications.
    pub async fn notifications(&self, users: Vec<UserId>) -> Result<Vec<(UserId, Notifications)>> {
        let users: Vec<_> = users.iter().map(|user| user.0).collect();
        self.ask("notifications", async move |tx| {
            let sql = format!(
                "select user_id, case when quiet_until > (select millis()) then quiet_until end,
                    sounds from notifications where user_id {}",
                tx.among(1)
            );
            tx.all(&sql, &[&users]).await
        })
        .await
    }

    /// Changes a person's settings. If they do not want notifications any more, the others are
    /// forgotten.
    pub async fn change_notifications(&self, by: Actor, change: NotificationsChange) -> Result<()> {
        self.write("change_notifications", Locks::actor(by), async move |tx| {
            let user = by.user;
            match change {
                NotificationsChange::On(true) => {
                    trace(tx, user).await?;
                    let sql = "insert into notifications (user_id) values ($1)
                        on conflict (user_id) do nothing";
                    tx.run(sql, &[&user]).await
                }
                NotificationsChange::On(false) => {
                    for table in ["push_subscriptions", "notifications"] {
                        let sql = format!("delete from {table} where user_id = $1");
                        tx.run(&sql, &[&user]).await?;
                    }
                    Ok(())
                }
                NotificationsChange::Quiet(span) => {
                    let until = span.map(|span| tx.now.after(span));
                    let sql = "update notifications set quiet_until = $1 where user_id = $2";
                    tx.run(sql, &[&until, &user]).await
                }
                NotificationsChange::Sounds(on) => {
                    let sql = "update notifications set sounds = $1 where user_id = $2";
                    tx.run(sql, &[&on, &user]).await
                }
            }
        })
        .await
    }

    /// Those of these people who want to be notified now and are not looking at a tab on a node other
    /// than this one.
    pub async fn to_notify(&self, users: Vec<UserId>, node: NodeId) -> Result<Vec<UserId>> {
        let users: Vec<_> = users.iter().map(|user| user.0).collect();
        self.read_at_length("to_notify", async move |tx| {
            let sql = format!(
                "select n.user_id from notifications n where {} and n.user_id {}",
                awake(1),
                tx.among(2)
            );
            tx.all(&sql, &[&node, &users]).await
        })
        .await
    }

    /// The same of those whom a message in a group mentions, who belong to the group and have not muted
    /// it. Also returns the name of the group.
    pub async fn to_notify_in(
        &self,
        message: &Message,
        mentions: Mentions,
        node: NodeId,
    ) -> Result<(Vec<UserId>, Option<String>)> {
        let (room, author) = (message.room, message.author.id);
        let people: Vec<_> = mentions.people.iter().map(|user| user.0).collect();
        self.read_at_length("to_notify_in", async move |tx| {
            let sql = format!(
                "select n.user_id, {SHOWN} from notifications n
                 join users_subscribed s on s.user_id = n.user_id and s.room_id = $1
                 join rooms r on r.id = s.room_id join users u on u.id = n.user_id
                 where s.left_at is null and not s.muted and n.user_id <> $2
                    and (r.restricted_at is null or u.moderator_at is not null)
                    and {} and ($4 or n.user_id {})",
                awake(3),
                tx.among(5)
            );
            let values = [&room as _, &author as _, &node as _, &mentions.here as _];
            let values = [&values[..], &[&people as _]].concat();
            let found: Vec<(UserId, String)> = tx.all(&sql, &values).await?;
            let name = found.first().map(|(_, name)| name.clone());
            Ok((found.into_iter().map(|(user, _)| user).collect(), name))
        })
        .await
    }

    /// Subscribes the browser of the actor's session to the notifications of the person, who has turned
    /// them on. A person has a few of them; the oldest gives way.
    pub async fn subscribe(&self, by: Actor, to: PushSubscription) -> Result<()> {
        self.write("subscribe", Locks::actor(by), async move |tx| {
            let PushSubscription {
                endpoint,
                p256dh,
                auth,
            } = &to;
            let session = "select session_id from clients where id = $1";
            let session: Option<SessionId> = tx.the(session, &[&by.client.client]).await?;
            let Some(session) = session else {
                return Ok(());
            };
            // Somebody else may have used this browser before.
            let others = "delete from push_subscriptions where endpoint = $1 and session_id <> $2";
            tx.run(others, &[endpoint, &session]).await?;
            let subscribe = "insert into push_subscriptions
                    (session_id, user_id, endpoint, p256dh, auth, made_at)
                select $1, user_id, $2, $3, $4, $5 from notifications where user_id = $6
                on conflict (session_id) do update set endpoint = excluded.endpoint,
                    p256dh = excluded.p256dh, auth = excluded.auth, made_at = excluded.made_at";
            let (p256dh, auth) = (Param::Bytes(p256dh), Param::Bytes(auth));
            let values = [&session as _, endpoint as _, &p256dh as _, &auth as _];
            let values = [&values[..], &[&tx.now as _, &by.user as _]].concat();
            tx.run(subscribe, &values).await?;
            let surplus =
                "delete from push_subscriptions where user_id = $1 and session_id not in (
                select session_id from push_subscriptions where user_id = $1
                order by made_at desc, session_id desc limit $2)";
            tx.run(surplus, &[&by.user, &SUBSCRIPTIONS]).await
        })
        .await
    }

    /// The subscriptions of these people whose sessions are valid.
    pub async fn subscriptions(
        &self,
        users: Vec<UserId>,
    ) -> Result<Vec<(UserId, PushSubscription)>> {
        let users: Vec<_> = users.iter().map(|user| user.0).collect();
        self.read_at_length("subscriptions", async move |tx| {
            let sql = format!(
                "select p.user_id, p.endpoint, p.p256dh, p.auth from push_subscriptions p
                 join sessions s on s.id = p.session_id
                 where p.user_id {} and s.seen_at > (select millis()) - $2",
                tx.among(1)
            );
            tx.all(&sql, &[&users, &span(SESSION_GOOD_FOR)]).await
        })
        .await
    }

    /// The browser with this endpoint takes no more notifications.
    pub async fn unsubscribe(&self, endpoint: String) -> Result<()> {
        self.write("unsubscribe", Locks::none(), async move |tx| {
            let sql = "delete from push_subscriptions where endpoint = $1";
            tx.run(sql, &[&endpoint]).await
        })
        .await
    }

    /// The key with which requests to push services are signed: `new`, if there was none.
    pub async fn push_key(&self, new: Vec<u8>) -> Result<Vec<u8>> {
        self.write("push_key", Locks::none(), async move |tx| {
            let key = "insert into push_key (id, pkcs8) values (1, $1) on conflict (id) do nothing";
            tx.run(key, &[&Param::Bytes(&new)]).await?;
            tx.the("select pkcs8 from push_key", &[]).await
        })
        .await
    }

    /// Records for the other nodes which clients' tabs people look at. Clients that have left are
    /// skipped.
    pub async fn note_in_view(&self, mut looks: Vec<(ClientRef, UserId, bool)>) -> Result<()> {
        // Every node takes them in the same order.
        looks.sort_unstable_by_key(|(client, ..)| client.client);
        self.write("note_in_view", Locks::none(), async move |tx| {
            for (client, user, looks) in &looks {
                note_in_view(tx, *client, *user, *looks).await?;
            }
            Ok(())
        })
        .await
    }
}

/// A condition: the person of the row `n` may be disturbed now and looks at no tab on a node other than
/// the one in this parameter.
fn awake(node: usize) -> String {
    format!(
        "coalesce(n.quiet_until, 0) <= (select millis())
            and not exists (select 1 from clients_in_view v
                join clients c on c.id = v.client_id and c.visit = v.visit
                where v.user_id = n.user_id and c.left_at is null and c.node_id <> ${node})"
    )
}

from_row! {
    Notifications { quiet_until, sounds }
    PushSubscription { endpoint, p256dh, auth }
}

async fn note_in_view(tx: &Tx<'_>, client: ClientRef, user: UserId, looks: bool) -> Sql<()> {
    let ClientRef { client, visit } = client;
    if !looks {
        let sql = "delete from clients_in_view where client_id = $1 and visit = $2";
        return tx.run(sql, &[&client, &visit]).await;
    }
    let sql = "insert into clients_in_view (client_id, visit, user_id)
        select id, visit, user_id from clients
        where id = $1 and visit = $2 and user_id = $3 and left_at is null
        on conflict (client_id) do update set visit = excluded.visit, user_id = excluded.user_id";
    tx.run(sql, &[&client, &visit, &user]).await
}
