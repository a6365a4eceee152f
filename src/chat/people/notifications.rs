//! Notifications: people who want them are told about messages for them while they look elsewhere.
//!
//! The node that stored a message decides whom it notifies, in a task of its own, so that no message
//! waits for it. It knows itself who looks at a tab of its own; the nodes tell each other through the
//! store, so a lost relay suppresses nothing.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use crate::chat::{Chat, Client, Result, log_failure};
use crate::hub::{Outbox, Region};
use crate::metrics::METRICS;
use crate::model::{Message, Millis, PushSubscription, RoomId, Target, UserId};
use crate::protocol::{self, Frame, Selector};
use crate::push::{self, Delivery, Pusher};
use crate::relay::News;
use crate::store::{Change, Mentions, StoreError};
use crate::views;

/// How many messages may wait for the decision whom to notify. More are not notified of.
pub(in crate::chat) const NOTABLES_WAITING: usize = 1024;
/// How many of them are decided at once.
const TOGETHER: usize = 64;
/// How many people's settings are read, or views written, in one transaction at most.
const PEOPLE_TOGETHER: usize = 1000;

/// A message that somebody may have to be notified of.
pub(in crate::chat) struct Notable {
    message: Message,
    to: To,
}

enum To {
    /// The other person of its private room.
    Partner(UserId),
    /// Those whom it mentions in its group.
    Mentioned(Mentions),
}

/// Notifies people as long as the chat runs.
pub(in crate::chat) async fn run(chat: Weak<Chat>, mut notables: mpsc::Receiver<Notable>) {
    let mut waiting = Vec::new();
    while notables.recv_many(&mut waiting, TOGETHER).await > 0 {
        let Some(chat) = chat.upgrade() else { return };
        let notifying = chat.notify(std::mem::take(&mut waiting));
        chat.people.attempt("notify people", notifying).await;
    }
}

impl Chat {
    /// A change was made on this node. It may be a message that people have to be notified of.
    pub(in crate::chat) fn note_notable(&self, change: &Change) {
        // An edit notifies nobody, so that no one can do it again and again with one message.
        if change.message.made != change.version.number {
            return;
        }
        let author = change.message.author.id;
        let to = match change.between {
            Some([one, other]) => To::Partner(if one == author { other } else { one }),
            None if change.mentions != Mentions::default() => {
                To::Mentioned(change.mentions.clone())
            }
            _ => return,
        };
        let message = change.message.clone();
        if self.notable.try_send(Notable { message, to }).is_err() {
            tracing::debug!("too many messages to notify people of");
        }
    }

    async fn notify(self: &Arc<Self>, notables: Vec<Notable>) -> Result<()> {
        let looks = |user: &UserId| self.hub.of_user(*user).iter().any(|tab| tab.is_in_view());
        let partners = notables.iter().filter_map(|notable| match notable.to {
            To::Partner(user) => Some(user).filter(|user| !looks(user)),
            To::Mentioned(_) => None,
        });
        let partners: Vec<_> = partners.collect();
        let partners = match partners.is_empty() {
            true => partners,
            false => self.store.to_notify(partners, self.node).await?,
        };
        for Notable { message, to } in notables {
            let (mut users, group) = match to {
                To::Partner(user) => {
                    let users = partners.iter().filter(|one| **one == user);
                    (users.copied().collect(), None)
                }
                To::Mentioned(mentions) => {
                    let mentioned = self.store.to_notify_in(&message, mentions, self.node);
                    mentioned.await?
                }
            };
            users.retain(|user| !looks(user));
            self.tell_of(&message, group, users).await?;
        }
        Ok(())
    }

    /// Notifies these people of a message in a private room, or in a group of that name.
    async fn tell_of(
        self: &Arc<Self>,
        message: &Message,
        group: Option<String>,
        users: Vec<UserId>,
    ) -> Result<()> {
        if users.is_empty() {
            return Ok(());
        }
        let title = group.as_ref().map(|name| format!("#{name}"));
        let author = || message.author.user_name.clone();
        let target = group.map_or_else(|| Target::Private(author()), Target::Group);
        let address = protocol::address(&target).unwrap_or_default();
        let address = format!("{address}?at={}", message.id);
        let notification = self
            .views
            .notification(message, title.as_deref(), &address)?;
        let frame = notification.encode();
        if self.pusher.get().is_some() {
            for (_, to) in self.store.subscriptions(users.clone()).await? {
                let text = views::pushed_notification(message, title.as_deref(), &address);
                self.push_to(to, text, message.room);
            }
        }
        for user in users {
            let frame = frame.clone();
            self.spread(News::Notify { user, frame });
        }
        Ok(())
    }

    /// Hands a notification to the push service of a browser, in a task of its own.
    fn push_to(self: &Arc<Self>, to: PushSubscription, text: String, room: RoomId) {
        let Some(pusher) = self.pusher.get().map(Arc::clone) else {
            return;
        };
        let chat = Arc::downgrade(self);
        tokio::spawn(async move {
            let delivery = pusher
                .deliver(&to, text.as_bytes(), &room.to_string())
                .await;
            let count = METRICS.web_pushes.with_label_values(&[delivery.name()]);
            count.inc();
            if let (Delivery::Gone, Some(chat)) = (delivery, chat.upgrade())
                && let Err(error) = chat.store.unsubscribe(to.endpoint).await
            {
                log_failure("remove a browser that takes no notifications", &error);
            }
        });
    }

    /// From now on, registered people are notified through the push services of their browsers too.
    pub async fn start_push(
        &self,
        settings: push::Settings,
    ) -> std::result::Result<(), StoreError> {
        let key = push::new_key().map_err(|_| StoreError::Closed)?;
        let key = self.store.push_key(key).await?;
        match Pusher::new(&key, settings) {
            Ok(pusher) => {
                let _ = self.pusher.set(Arc::new(pusher));
            }
            Err(error) => tracing::error!("Web Push is off, since its key is damaged: {error}"),
        }
        Ok(())
    }

    /// The browser of a registered person takes notifications.
    pub(in crate::chat) async fn subscribe(
        &self,
        client: &Client,
        to: PushSubscription,
    ) -> Result<()> {
        if self.pusher.get().is_some() {
            self.store.subscribe(self.actor(client), to).await?;
        }
        Ok(())
    }

    /// Any of the person's tabs may notify them: some may be asleep.
    pub(super) fn take_notification(&self, user: UserId, frame: &Frame) {
        for tab in self.hub.of_user(user) {
            if tab.dialect.has(&Selector::NOTIFICATION) {
                tab.push([frame.clone()]);
            }
        }
    }

    /// The person begins or ends to look at a tab.
    pub(in crate::chat) fn note_in_view(&self, client: &Client, on: bool) {
        // A single node needs nobody to know.
        if client.outbox.look(on) && self.relay.has_others(self.node) {
            let looks = &mut self.people.due().looks;
            looks.insert(client.client_ref, (client.user.id, on));
        }
    }

    /// Tells the other nodes who looks at the chat.
    pub(super) async fn write_in_view(&self) -> Result<()> {
        let looks = std::mem::take(&mut self.people.due().looks);
        let rows: Vec<_> = looks
            .into_iter()
            .map(|(client, (user, on))| (client, user, on))
            .collect();
        for part in rows.chunks(PEOPLE_TOGETHER) {
            if let Err(error) = self.store.note_in_view(part.to_vec()).await {
                // Otherwise somebody would count as looking for good.
                let looks = &mut self.people.due().looks;
                for (client, user, on) in &rows {
                    looks.entry(*client).or_insert((*user, *on));
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Shows people's settings again where they have changed.
    pub(super) async fn render_notifications(&self) -> Result<()> {
        let users = std::mem::take(&mut self.people.due().notifications);
        let users: Vec<_> = users.into_iter().collect();
        let mut done = Ok(());
        for part in users.chunks(PEOPLE_TOGETHER) {
            let here = part.iter().copied();
            let here = here.filter(|user| self.hub.has_user(*user)).collect();
            if let Err(failure) = self.show_notifications(here).await {
                self.people.due().notifications.extend(part);
                done = Err(failure);
            }
        }
        done
    }

    /// Shows these people how they are notified, unless their tabs show it already.
    async fn show_notifications(&self, users: Vec<UserId>) -> Result<()> {
        if users.is_empty() {
            return Ok(());
        }
        let settings = self.store.notifications(users.clone()).await?;
        let settings: HashMap<_, _> = settings.into_iter().collect();
        for user in users {
            let settings = settings.get(&user).copied();
            let quiet = settings.and_then(|settings| settings.quiet_until);
            if let Some(until) = quiet.filter(|until| *until < Millis::MAX) {
                self.people.due().quiet.insert(user, until);
            }
            let key = self.pusher.get().map(|pusher| pusher.public_key());
            for is_kept in [false, true] {
                let tabs = self.hub.of_user(user).into_iter();
                let has = |tab: &Arc<Outbox>| tab.dialect.has(&Selector::NOTIFICATIONS);
                let mut tabs = tabs
                    .filter(|tab| tab.is_kept() == is_kept && has(tab))
                    .peekable();
                if tabs.peek().is_some() {
                    let key = key.as_deref().filter(|_| is_kept);
                    let frame = self.views.notifications(settings, key)?.encode();
                    tabs.for_each(|tab| tab.show_new(Region::Notifications, &frame));
                }
            }
        }
        Ok(())
    }
}
