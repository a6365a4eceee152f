//! The relay through Redis. News is published to channels, and each node subscribes to those it needs.
//!
//! There is one connection to publish and one to listen. Each has a task that reconnects until it
//! succeeds. Meanwhile, news waits in one bounded queue, in order. News that finds the queue full is
//! lost, and the other nodes are told that news was lost as soon as possible.
//!
//! An envelope is sent as JSON, with its frames as JSON in it. So people can subscribe by hand and read
//! it, and a build ignores news that it does not know.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use ::redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, TlsCertificates, pipe};
use async_trait::async_trait;
use futures_util::StreamExt as _;
use parking_lot::{Mutex, MutexGuard};
use rand::RngExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

use super::{Envelope, Heard, News, Relay, State, To, WAITING};
use crate::log::Dependency;
use crate::metrics::METRICS;
use crate::model::NodeId;

/// How many envelopes are sent at once at most.
const TOGETHER: usize = 256;
/// How many channels are subscribed to at once at most.
const CHANNELS_TOGETHER: usize = 500;
/// How long Redis may take to answer before the connection counts as lost.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often Redis is pinged.
const PING_EVERY: Duration = Duration::from_secs(5);
/// After a failure, the longest wait before the first retry. It doubles with each retry, up to a
/// maximum. The wait is random, so that many nodes do not retry at once.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
const MOST_AGAIN: Duration = Duration::from_secs(2);
/// How long the last news may take to be sent when the node stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the relay cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The address is not valid. It is not repeated, since it may contain a password.
    #[error(
        "not a valid Redis address (expected for example redis://127.0.0.1:6379, or rediss:// for TLS)"
    )]
    Address,
    /// The certificates of the authorities cannot be used.
    #[error("cannot use the certificates of authorities in {file}: {reason}")]
    Authorities {
        /// The file with the certificates.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// A node's connection to the relay.
pub struct RedisRelay {
    client: Client,
    channels: Channels,
    outgoing: Mutex<Option<mpsc::Sender<Envelope>>>,
    /// The queue, until the node listens and the publisher takes it.
    queue: Mutex<Option<mpsc::Receiver<Envelope>>>,
    /// How much news found the queue full and was lost.
    lost: Arc<AtomicU64>,
    wanted: Arc<Wanted>,
    publishing: Mutex<Option<JoinHandle<()>>>,
    redis: Arc<Redis>,
}

/// Whether the two connections work.
struct Redis {
    dependency: Dependency,
    /// The listener has lost its connection, so the publisher checks its own.
    doubtful: Notify,
}

/// The two connections.
const PUBLISHER: u8 = 1;
const LISTENER: u8 = 2;

impl Redis {
    fn failed(&self, connections: u8, error: &RedisError) {
        self.dependency.failed(connections, Duration::ZERO, error);
    }
}

/// The names of the channels. They contain the identity of the store, so two chats can share a Redis.
#[derive(Clone)]
struct Channels(Arc<str>);

impl Channels {
    fn name(&self, to: To) -> String {
        let Self(store) = self;
        match to {
            To::Everyone => format!("overwire:{store}:everyone"),
            To::Node(node) => format!("overwire:{store}:node:{node}"),
            To::Room(room) => format!("overwire:{store}:room:{room}"),
            To::Listing(room) => format!("overwire:{store}:listing:{room}"),
            To::User(user) => format!("overwire:{store}:user:{user}"),
        }
    }
}

/// The channels that the node needs, besides its own and that of everyone.
#[derive(Default)]
struct Wanted {
    channels: Mutex<WantedChannels>,
    changed: Notify,
}

#[derive(Default)]
struct WantedChannels {
    all: HashSet<To>,
    /// The channels that were added or removed since the last look.
    changed: Vec<To>,
}

impl Wanted {
    fn channels(&self) -> MutexGuard<'_, WantedChannels> {
        self.channels.lock()
    }
}

impl RedisRelay {
    /// The relay for a node of the store with this identity. If the address asks for TLS, the server
    /// must have a certificate by one of the `authorities` in that PEM file, or else by one that
    /// browsers trust. It does not connect yet: a chat runs without Redis, and its nodes exchange news
    /// once Redis is available.
    pub fn new(address: &str, authorities: Option<&Path>, store: &str) -> Result<Self, RelayError> {
        let mut client = Client::open(address).map_err(|_| RelayError::Address)?;
        if let Some(file) = authorities {
            client = trusting(&client, file).map_err(|reason| RelayError::Authorities {
                file: file.to_owned(),
                reason,
            })?;
        }
        let (outgoing, queue) = mpsc::channel(WAITING);
        Ok(Self {
            client,
            channels: Channels(store.into()),
            outgoing: Mutex::new(Some(outgoing)),
            queue: Mutex::new(Some(queue)),
            lost: Arc::default(),
            wanted: Arc::default(),
            publishing: Mutex::default(),
            redis: Arc::new(Redis {
                dependency: Dependency::new("Redis", PUBLISHER | LISTENER),
                doubtful: Notify::new(),
            }),
        })
    }
}

/// Where the Redis at an address is, without its user and password.
#[must_use]
pub fn place(address: &str) -> String {
    let client = Client::open(address);
    client.map_or_else(
        |_| "invalid".to_owned(),
        |client| client.get_connection_info().addr().to_string(),
    )
}

#[async_trait]
impl Relay for RedisRelay {
    fn announce(&self, envelope: Envelope) {
        if let Some(outgoing) = &*self.outgoing.lock()
            && outgoing.try_send(envelope).is_err()
        {
            METRICS.relay_lost.inc();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn state(&self) -> State {
        match self.redis.dependency.is_available() {
            true => State::Connected,
            false => State::Disconnected,
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
            redis: Arc::clone(&self.redis),
        };
        tokio::spawn(listener.run());
        if let Some(queue) = self.queue.lock().take() {
            let publisher = Publisher {
                client: self.client.clone(),
                channels: self.channels.clone(),
                node,
                lost: Arc::clone(&self.lost),
                redis: Arc::clone(&self.redis),
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

/// The client, trusting only the authorities in a file.
fn trusting(client: &Client, file: &Path) -> Result<Client, String> {
    let certificates = std::fs::read(file).map_err(|error| error.to_string())?;
    if CertificateDer::from_pem_slice(&certificates).is_err() {
        return Err("it contains none in PEM format".to_owned());
    }
    let trusted = TlsCertificates {
        client_tls: None,
        root_cert: Some(certificates),
    };
    Client::build_with_tls(client.get_connection_info().clone(), trusted)
        .map_err(|error| error.to_string())
}

/// The wait before the next retry, longer each time until something works.
struct Backoff(Duration);

impl Backoff {
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

fn was_closed() -> RedisError {
    let closed = "the connection was closed";
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, closed).into()
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
    lost: Arc<AtomicU64>,
    redis: Arc<Redis>,
}

impl Publisher {
    /// Publishes news in order, until the node has no more.
    async fn run(self, mut queue: mpsc::Receiver<Envelope>) {
        let (mut backoff, mut batch) = (Backoff::new(), Vec::new());
        'connected: loop {
            let mut connection = match self.connect().await {
                Ok(connection) => connection,
                Err(error) => {
                    self.redis.failed(PUBLISHER, &error);
                    if queue.is_closed() {
                        return;
                    }
                    backoff.wait().await;
                    continue;
                }
            };
            self.redis.dependency.works(PUBLISHER);
            loop {
                tokio::select! {
                    count = queue.recv_many(&mut batch, TOGETHER), if batch.is_empty() => {
                        if count == 0 {
                            return;
                        }
                    }
                    () = self.redis.doubtful.notified() => {}
                    () = std::future::ready(()), if !batch.is_empty() => {}
                }
                let lost = self.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::warn!(
                        "{lost} pieces of news were lost while Redis was slow or not available; \
                         the other nodes read the database instead"
                    );
                    batch.push(self.says(News::Missed));
                }
                let sent = self.publish(&mut connection, &batch).await;
                let count = batch.len() as u64;
                batch.clear();
                if let Err(error) = sent {
                    METRICS.relay_lost.inc_by(count);
                    self.redis.failed(PUBLISHER, &error);
                    // It is not known whether the last envelopes arrived.
                    batch.push(self.says(News::Missed));
                    backoff.wait().await;
                    continue 'connected;
                }
                METRICS.relay_sent.inc_by(count);
                self.redis.dependency.works(PUBLISHER);
                backoff = Backoff::new();
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
        if batch.is_empty() {
            sending.cmd("PING").ignore();
        }
        for envelope in batch {
            match serde_json::to_vec(envelope) {
                Ok(json) => {
                    let channel = self.channels.name(envelope.news.to());
                    sending.cmd("PUBLISH").arg(channel).arg(json).ignore();
                }
                Err(error) => tracing::error!("could not encode news: {error}"),
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
    /// The node was too slow and lost news, and does not know it yet.
    overflowed: AtomicBool,
    redis: Arc<Redis>,
}

impl Listener {
    /// Receives the news that the node needs, as long as it listens.
    async fn run(self) {
        let mut backoff = Backoff::new();
        while !self.heard.is_closed() {
            let began = Instant::now();
            let lost = self.hear().await;
            if self.heard.is_closed() {
                return;
            }
            // The publisher's connection has probably ended too. It finds out at once, so that one outage
            // of Redis is not two.
            let lost = lost.err().unwrap_or_else(was_closed);
            self.redis.failed(PUBLISHER | LISTENER, &lost);
            self.redis.doubtful.notify_one();
            // Meanwhile, this makes the node read its soft state from the store now and then.
            self.tell(Heard::Missed);
            if began.elapsed() > PING_EVERY {
                backoff = Backoff::new();
            }
            backoff.wait().await;
        }
    }

    /// Receives news over one connection until that is lost.
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
                Err(error) => tracing::debug!("ignored news of an unknown kind: {error}"),
            }
        }
        Ok(())
    }

    /// Keeps the connection subscribed to what the node needs, and pings it.
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
        self.redis.dependency.works(LISTENER);
        // News may have been missed on all channels.
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

    /// Passes news to the node. If the node is too slow, news is lost, and it learns so once it catches
    /// up.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_redis_has_no_password() {
        #[track_caller]
        fn check(address: &str, expected: &str) {
            assert_eq!(place(address), expected);
        }
        check(
            "redis://me:secret@redis.example:6380/1",
            "redis.example:6380",
        );
        check("rediss://:secret@10.0.0.6", "10.0.0.6:6379");
        check("unix:///run/redis.sock?pass=secret", "/run/redis.sock");
        check("secret", "invalid");
    }
}
