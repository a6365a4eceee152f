//! The relay by Redis: news are published to channels, and each node is subscribed to those it needs.
//!
//! A connection to publish and one to listen, each with a task that connects again for as long as it
//! takes. What is announced meanwhile waits in one bounded queue in its order; what finds it full is
//! lost, and the other nodes are told that something was as soon as they can be.
//!
//! An envelope travels as JSON, in it the JSON of its frames as it is: whoever subscribes by hand can
//! read along, and a build that does not know some news passes over them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use ::redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, pipe};
use async_trait::async_trait;
use futures_util::StreamExt as _;
use parking_lot::{Mutex, MutexGuard};
use rand::RngExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

use super::{Envelope, Heard, News, Relay, To, WAITING};
use crate::model::NodeId;

/// How many envelopes are sent in one go at most.
const TOGETHER: usize = 256;
/// How many channels are subscribed to in one go at most.
const CHANNELS_TOGETHER: usize = 500;
/// How long Redis may take for anything before it counts as lost.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often Redis is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(5);
/// After a loss it is tried again within so long at first, and within twice as long each time up to
/// the most: at a random moment, so that many nodes do not come at once.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
const MOST_AGAIN: Duration = Duration::from_secs(2);
/// How long what was announced last may take to leave when the node stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why there can be no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The address is not one of a Redis. It is not repeated, since it may hold a password.
    #[error("that is no address of a Redis, such as redis://127.0.0.1:6379: {0}")]
    Address(&'static str),
}

/// A node's end of the relay by Redis.
pub struct RedisRelay {
    client: Client,
    channels: Channels,
    outgoing: Mutex<Option<mpsc::Sender<Envelope>>>,
    /// What the publisher takes over once the node listens.
    queue: Mutex<Option<mpsc::Receiver<Envelope>>>,
    /// Something found the queue full.
    lost: Arc<AtomicBool>,
    wanted: Arc<Wanted>,
    publishing: Mutex<Option<JoinHandle<()>>>,
}

/// The names of the channels: two chats may share a Redis, since theirs differ.
#[derive(Clone)]
struct Channels(Arc<str>);

impl Channels {
    fn name(&self, to: To) -> String {
        let Self(store) = self;
        match to {
            To::Everyone => format!("overwire:{store}:everyone"),
            To::Node(node) => format!("overwire:{store}:node:{node}"),
            To::Room(room) => format!("overwire:{store}:room:{room}"),
            To::User(user) => format!("overwire:{store}:user:{user}"),
        }
    }
}

/// Which channels the node needs beside those of everyone and its own.
#[derive(Default)]
struct Wanted {
    channels: Mutex<WantedChannels>,
    changed: Notify,
}

#[derive(Default)]
struct WantedChannels {
    all: HashSet<To>,
    /// Those that are needed, or are not any more, since this was looked at last.
    changed: Vec<To>,
}

impl Wanted {
    fn channels(&self) -> MutexGuard<'_, WantedChannels> {
        self.channels.lock()
    }
}

impl RedisRelay {
    /// An end of the relay for nodes of the store of that identity. Nothing is connected yet: a chat
    /// runs without a Redis, and its nodes hear of each other once there is one.
    pub fn new(address: &str, store: &str) -> Result<Self, RelayError> {
        let client = Client::open(address).map_err(|error| {
            RelayError::Address(match error.kind() {
                ::redis::ErrorKind::InvalidClientConfig => "it cannot be read, or asks for TLS",
                _ => "it cannot be read",
            })
        })?;
        let (outgoing, queue) = mpsc::channel(WAITING);
        Ok(Self {
            client,
            channels: Channels(store.into()),
            outgoing: Mutex::new(Some(outgoing)),
            queue: Mutex::new(Some(queue)),
            lost: Arc::default(),
            wanted: Arc::default(),
            publishing: Mutex::default(),
        })
    }
}

#[async_trait]
impl Relay for RedisRelay {
    fn announce(&self, envelope: Envelope) {
        if let Some(outgoing) = &*self.outgoing.lock()
            && outgoing.try_send(envelope).is_err()
        {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    fn has_others(&self, _: NodeId) -> bool {
        true
    }

    async fn listen(&self, node: NodeId) -> mpsc::Receiver<Heard> {
        let (sender, heard) = mpsc::channel(WAITING);
        let listener = Listener {
            client: self.client.clone(),
            channels: self.channels.clone(),
            node,
            wanted: Arc::clone(&self.wanted),
            heard: sender,
            overflowed: AtomicBool::new(false),
        };
        tokio::spawn(listener.run());
        if let Some(queue) = self.queue.lock().take() {
            let publisher = Publisher {
                client: self.client.clone(),
                channels: self.channels.clone(),
                node,
                lost: Arc::clone(&self.lost),
            };
            *self.publishing.lock() = Some(tokio::spawn(publisher.run(queue)));
        }
        heard
    }

    fn follow(&self, _: NodeId, to: To) {
        let mut wanted = self.wanted.channels();
        if wanted.all.insert(to) {
            wanted.changed.push(to);
            self.wanted.changed.notify_one();
        }
    }

    fn keep(&self, _: NodeId, is_needed: &dyn Fn(To) -> bool) {
        let mut wanted = self.wanted.channels();
        let WantedChannels { all, changed } = &mut *wanted;
        changed.extend(all.extract_if(|to| !is_needed(*to)));
        self.wanted.changed.notify_one();
    }

    async fn close(&self) {
        drop(self.outgoing.lock().take());
        let publishing = self.publishing.lock().take();
        if let Some(mut publishing) = publishing
            && timeout(LAST_WORDS, &mut publishing).await.is_err()
        {
            publishing.abort();
        }
    }
}

/// When to try again: later and later until something has worked.
struct Again(Duration);

impl Again {
    fn new() -> Self {
        Self(FIRST_AGAIN)
    }

    async fn wait(&mut self) {
        let most = self.0;
        self.0 = (self.0 * 2).min(MOST_AGAIN);
        let moment = rand::rng().random_range(Duration::ZERO..=most);
        sleep(moment).await;
    }
}

fn took_too_long() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

async fn in_time<T>(happens: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    match timeout(DEADLINE, happens).await {
        Ok(done) => done,
        Err(_) => Err(took_too_long()),
    }
}

struct Publisher {
    client: Client,
    channels: Channels,
    node: NodeId,
    lost: Arc<AtomicBool>,
}

impl Publisher {
    /// Publishes what comes, in its order, until the node has nothing more to say.
    async fn run(self, mut queue: mpsc::Receiver<Envelope>) {
        let (mut again, mut batch, mut lost) = (Again::new(), Vec::new(), false);
        'connected: loop {
            let mut connection = match self.connect().await {
                Ok(connection) => connection,
                Err(error) => {
                    if !std::mem::replace(&mut lost, true) {
                        tracing::warn!(%error, "the relay cannot be reached; it is tried again");
                    }
                    if queue.is_closed() {
                        return;
                    }
                    again.wait().await;
                    continue;
                }
            };
            if std::mem::take(&mut lost) {
                tracing::info!("the relay is reached again");
            }
            loop {
                if batch.is_empty() && queue.recv_many(&mut batch, TOGETHER).await == 0 {
                    return;
                }
                if self.lost.swap(false, Ordering::Relaxed) {
                    tracing::warn!("the relay did not keep up, and some news were lost");
                    batch.push(self.says(News::Missed));
                }
                let sent = self.publish(&mut connection, &batch).await;
                batch.clear();
                if let Err(error) = sent {
                    tracing::warn!(%error, "the relay was lost; it is tried again");
                    lost = true;
                    // Whether the last ones came through is not known.
                    batch.push(self.says(News::Missed));
                    again.wait().await;
                    continue 'connected;
                }
                again = Again::new();
            }
        }
    }

    fn says(&self, news: News) -> Envelope {
        Envelope {
            node: self.node,
            news,
        }
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        in_time(
            self.client
                .get_multiplexed_async_connection_with_config(&config),
        )
        .await
    }

    async fn publish(
        &self,
        connection: &mut MultiplexedConnection,
        batch: &[Envelope],
    ) -> RedisResult<()> {
        let mut sending = pipe();
        for envelope in batch {
            match serde_json::to_vec(envelope) {
                Ok(json) => {
                    let channel = self.channels.name(envelope.news.to());
                    sending.cmd("PUBLISH").arg(channel).arg(json).ignore();
                }
                Err(error) => tracing::error!(%error, "news could not be encoded"),
            }
        }
        in_time(sending.query_async(connection)).await
    }
}

struct Listener {
    client: Client,
    channels: Channels,
    node: NodeId,
    wanted: Arc<Wanted>,
    heard: mpsc::Sender<Heard>,
    /// The node did not take what it was told, and has not been told so yet.
    overflowed: AtomicBool,
}

impl Listener {
    /// Hears what the node needs for as long as it listens.
    async fn run(self) {
        let mut again = Again::new();
        while !self.heard.is_closed() {
            let began = Instant::now();
            let lost = self.hear().await;
            if self.heard.is_closed() {
                return;
            }
            if let Err(error) = lost {
                tracing::debug!(%error, "the relay cannot be heard; it is tried again");
            }
            // So what is soft is drawn from the store now and then meanwhile.
            self.tell(Heard::Missed);
            if began.elapsed() > PING_EVERY {
                again = Again::new();
            }
            again.wait().await;
        }
    }

    /// Hears by one connection until that is lost.
    async fn hear(&self) -> RedisResult<()> {
        let (sink, stream) = in_time(self.client.get_async_pubsub()).await?.split();
        tokio::select! {
            lost = self.take_all(stream) => lost,
            lost = self.subscribe_all(sink) => lost,
            () = self.heard.closed() => Ok(()),
        }
    }

    async fn take_all(&self, mut stream: PubSubStream) -> RedisResult<()> {
        while let Some(message) = stream.next().await {
            match serde_json::from_slice::<Envelope>(message.get_payload_bytes()) {
                Ok(envelope) if envelope.node == self.node => {}
                Ok(envelope) => self.tell(Heard::News(envelope)),
                Err(error) => tracing::debug!(%error, "news that are not known here"),
            }
        }
        Ok(())
    }

    /// Keeps the connection subscribed to what the node needs, and sees whether it is still there.
    async fn subscribe_all(&self, mut sink: PubSubSink) -> RedisResult<()> {
        let mut pings = interval(PING_EVERY);
        let mut subscribed = {
            let mut wanted = self.wanted.channels();
            wanted.changed.clear();
            wanted.all.clone()
        };
        let own = [To::Everyone, To::Node(self.node)];
        let all: Vec<_> = subscribed.iter().copied().chain(own).collect();
        for part in all.chunks(CHANNELS_TOGETHER) {
            in_time(sink.subscribe(&self.names(part)[..])).await?;
        }
        // Which goes for all of them.
        self.tell(Heard::Missed);
        loop {
            let (more, fewer) = {
                let mut wanted = self.wanted.channels();
                let changed: HashSet<To> =
                    std::mem::take(&mut wanted.changed).into_iter().collect();
                let (more, fewer): (Vec<To>, Vec<To>) = changed
                    .into_iter()
                    .filter(|to| wanted.all.contains(to) != subscribed.contains(to))
                    .partition(|to| wanted.all.contains(to));
                (more, fewer)
            };
            for part in more.chunks(CHANNELS_TOGETHER) {
                in_time(sink.subscribe(&self.names(part)[..])).await?;
                subscribed.extend(part);
                part.iter().for_each(|to| self.tell(Heard::Following(*to)));
            }
            for part in fewer.chunks(CHANNELS_TOGETHER) {
                in_time(sink.unsubscribe(&self.names(part)[..])).await?;
                part.iter().for_each(|to| {
                    subscribed.remove(to);
                });
            }
            tokio::select! {
                () = self.wanted.changed.notified() => {}
                _ = pings.tick() => {
                    in_time(sink.ping::<::redis::Value>()).await?;
                    self.make_up();
                }
            }
        }
    }

    fn names(&self, channels: &[To]) -> Vec<String> {
        channels.iter().map(|to| self.channels.name(*to)).collect()
    }

    /// A node that does not keep up loses news, and is told so when it does again.
    fn tell(&self, heard: Heard) {
        self.make_up();
        if self.heard.try_send(heard).is_err() {
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }

    fn make_up(&self) {
        if self.overflowed.load(Ordering::Relaxed) && self.heard.try_send(Heard::Missed).is_ok() {
            self.overflowed.store(false, Ordering::Relaxed);
        }
    }
}
