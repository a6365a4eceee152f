//! Notifications: who wants them, and who is looking at the chat.

use super::tx::{Locks, Sql, Tx, from_row};
use super::users::trace;
use super::{Actor, Result, Store};
use crate::model::{ClientRef, NodeId, Notifications, NotificationsChange, UserId};

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
                    let sql = "delete from notifications where user_id = $1";
                    tx.run(sql, &[&user]).await
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
        self.ask("to_notify", async move |tx| {
            let sql = format!(
                "select user_id from notifications n where user_id {}
                    and coalesce(quiet_until, 0) <= (select millis())
                    and not exists (select 1 from clients_in_view v
                        join clients c on c.id = v.client_id and c.visit = v.visit
                        where v.user_id = n.user_id and c.left_at is null and c.node_id <> $2)",
                tx.among(1)
            );
            tx.all(&sql, &[&users, &node]).await
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

from_row! {
    Notifications { quiet_until, sounds }
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
