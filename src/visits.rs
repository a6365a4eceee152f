//! Browsers that run no script: the clients that stand for their forms.
//!
//! A form does what an action of a socket does. Whoever sends one is online for a while after their last
//! request. Nothing here knows what an action does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep_until};

use crate::chat::{Chat, Client, NotLetIn};
use crate::model::{ResumeToken, TokenHash};
use crate::protocol::Hello;

/// The clients of browsers.
pub(crate) struct Visits {
    /// How long somebody stays online after their last request.
    stay: Duration,
    by_token: Mutex<HashMap<TokenHash, Arc<Visit>>>,
}

struct Visit {
    /// The client while it is connected. Held while a form is handled: one at a time.
    client: Arc<tokio::sync::Mutex<Option<Arc<Client>>>>,
    until: Mutex<Instant>,
}

/// A connected client whose forms wait until this is dropped.
pub(crate) struct Turn {
    client: Arc<Client>,
    _held: OwnedMutexGuard<Option<Arc<Client>>>,
}

impl Turn {
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

impl Visits {
    pub(crate) fn new(stay: Duration) -> Self {
        Self {
            stay,
            by_token: Mutex::default(),
        }
    }

    /// The client of these forms, which connects if it has left. `None` if `admit` says no; what it
    /// returns is kept until the client leaves.
    pub(crate) async fn turn<T: Send + 'static>(
        self: &Arc<Self>,
        chat: &Arc<Chat>,
        token: &ResumeToken,
        hello: Hello,
        admit: impl FnOnce() -> Option<T>,
    ) -> Result<Option<Turn>, NotLetIn> {
        let key = token.hash();
        let visit = Arc::clone(self.by_token.lock().entry(key).or_insert_with(|| {
            Arc::new(Visit {
                client: Arc::default(),
                until: Mutex::new(Instant::now()),
            })
        }));
        let mut connected = Arc::clone(&visit.client).lock_owned().await;
        *visit.until.lock() = Instant::now() + self.stay;
        let is_here = |client: &&Arc<Client>| client.outbox.closing().is_none();
        if let Some(client) = connected.as_ref().filter(is_here).cloned() {
            let _held = connected;
            return Ok(Some(Turn { client, _held }));
        }
        let admitted = match admit() {
            Some(admitted) => chat.connect(hello).await.map(|client| (admitted, client)),
            None => {
                self.by_token.lock().remove(&key);
                return Ok(None);
            }
        };
        let (admitted, client) =
            admitted.inspect_err(|_| drop(self.by_token.lock().remove(&key)))?;
        let client = Arc::new(client);
        *connected = Some(Arc::clone(&client));
        let (visits, chat, stays) = (Arc::clone(self), Arc::clone(chat), Arc::clone(&client));
        tokio::spawn(async move {
            visit.lasts(&stays).await;
            chat.disconnect(&stays);
            drop(admitted);
            let mut connected = visit.client.lock().await;
            if connected
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(now, &stays))
            {
                *connected = None;
                visits.by_token.lock().remove(&key);
            }
        });
        let _held = connected;
        Ok(Some(Turn { client, _held }))
    }

    /// Somebody has asked for a page, and stays online if they were.
    pub(crate) fn renew(&self, token: &ResumeToken) {
        if let Some(visit) = self.by_token.lock().get(&token.hash()) {
            *visit.until.lock() = Instant::now() + self.stay;
        }
    }
}

impl Visit {
    /// Waits until the person has been away for long, or the server ends the client.
    async fn lasts(&self, client: &Client) {
        loop {
            let until = *self.until.lock();
            tokio::select! {
                () = client.outbox.woken() => {}
                () = sleep_until(until) => {}
            }
            if client.outbox.closing().is_some() || *self.until.lock() <= Instant::now() {
                return;
            }
        }
    }
}
