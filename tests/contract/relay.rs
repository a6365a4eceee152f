//! What every relay promises. It may lose, duplicate and delay news, but never invents any and never
//! blocks anybody.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use overwire::model::{History, NodeId, RoomId, User, UserId, Version};
use overwire::protocol::{Dialect, Push, Selector};
use overwire::relay::redis::RedisRelay;
use overwire::relay::{Envelope, Heard, InProcess, News, Own, Relay, State, To};
use tokio::sync::mpsc::Receiver;
use uuid::Uuid;

use crate::support::redis::Redis;
use crate::support::until;

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const ROOM: RoomId = RoomId(5);
const DEADLINE: Duration = Duration::from_secs(20);

/// Nodes joined by one kind of relay, each with an end of its own.
#[async_trait]
trait Backend: Sync {
    fn end(&self) -> Arc<dyn Relay>;

    /// An end listens, and hears everything from now on.
    async fn listen(&self, end: &dyn Relay, node: NodeId) -> Receiver<Heard>;

    /// An end follows one more room or user.
    async fn follow(&self, end: &dyn Relay, node: NodeId, heard: &mut Receiver<Heard>, to: To);
}

#[async_trait]
impl Backend for InProcess {
    fn end(&self) -> Arc<dyn Relay> {
        Arc::new(self.clone())
    }

    async fn listen(&self, end: &dyn Relay, node: NodeId) -> Receiver<Heard> {
        end.listen(node).await
    }

    async fn follow(&self, end: &dyn Relay, node: NodeId, _: &mut Receiver<Heard>, to: To) {
        end.follow(node, to);
    }
}

/// Nodes whose store has that identity, joined by Redis.
struct ByRedis(String);

impl ByRedis {
    fn of_some_store() -> Self {
        Self(Uuid::new_v4().to_string())
    }
}

#[async_trait]
impl Backend for ByRedis {
    fn end(&self) -> Arc<dyn Relay> {
        Arc::new(RedisRelay::new(&Redis::shared().address(), None, &self.0).unwrap())
    }

    async fn listen(&self, end: &dyn Relay, node: NodeId) -> Receiver<Heard> {
        let mut heard = end.listen(node).await;
        // It listens now, and everything before may have been missed.
        assert!(matches!(next_heard(&mut heard).await, Heard::Missed));
        heard
    }

    async fn follow(&self, end: &dyn Relay, node: NodeId, heard: &mut Receiver<Heard>, to: To) {
        end.follow(node, to);
        let confirmed = next_heard(heard).await;
        assert!(matches!(confirmed, Heard::Following(other) if other == to));
    }
}

macro_rules! every_promise {
    ($backend:expr) => {
        promises! { $backend;
            news_reaches_every_other_node_in_order
            a_node_does_not_receive_its_own_news
            news_arrives_unchanged
            news_goes_only_where_it_is_needed
            what_is_no_longer_followed_is_no_longer_received
            a_node_knows_whether_there_are_others
            a_node_that_does_not_listen_delays_nobody
            a_node_that_has_left_disturbs_nobody
            a_lone_node_may_announce
            news_announced_before_closing_is_received
        }
    };
}

mod in_process {
    every_promise!(super::InProcess::default());
}

mod redis {
    every_promise!(super::ByRedis::of_some_store());
}

/// News with a number.
fn news(node: NodeId, number: i64) -> Envelope {
    let news = News::GroupChanged(RoomId(number));
    Envelope { node, news }
}

async fn next_heard(heard: &mut Receiver<Heard>) -> Heard {
    let next = tokio::time::timeout(DEADLINE, heard.recv()).await;
    next.expect("in vain: waited for news").unwrap()
}

async fn next(heard: &mut Receiver<Heard>) -> Envelope {
    match next_heard(heard).await {
        Heard::News(envelope) => envelope,
        other => panic!("{other:?}"),
    }
}

/// The sender, and the number.
async fn next_number(heard: &mut Receiver<Heard>) -> (NodeId, i64) {
    match next(heard).await {
        Envelope {
            node,
            news: News::GroupChanged(number),
        } => (node, number.0),
        other => panic!("{other:?}"),
    }
}

async fn news_reaches_every_other_node_in_order(backend: &impl Backend) {
    let ends = NODES.map(|_| backend.end());
    let mut heard = Vec::new();
    for (end, node) in ends.iter().zip(NODES) {
        heard.push(backend.listen(&**end, node).await);
    }
    (1..=100).for_each(|number| ends[0].announce(news(NODES[0], number)));
    for heard in &mut heard[1..] {
        for number in 1..=100 {
            assert_eq!(next_number(heard).await, (NODES[0], number));
        }
    }
}

async fn a_node_does_not_receive_its_own_news(backend: &impl Backend) {
    let (one, two) = (backend.end(), backend.end());
    let mut heard = backend.listen(&*one, NODES[0]).await;
    let _listening = backend.listen(&*two, NODES[1]).await;
    one.announce(news(NODES[0], 1));
    two.announce(news(NODES[1], 2));
    assert_eq!(next_number(&mut heard).await, (NODES[1], 2));
}

async fn news_arrives_unchanged(backend: &impl Backend) {
    let (one, two) = (backend.end(), backend.end());
    let _listening = backend.listen(&*one, NODES[0]).await;
    let mut heard = backend.listen(&*two, NODES[1]).await;
    backend
        .follow(&*two, NODES[1], &mut heard, To::Room(ROOM))
        .await;
    let version = Version {
        room: ROOM,
        history: History(6),
        number: 7,
    };
    let sent = Push::inner(Selector::NOTICE, "<b>“hello”</b> 👩‍👩‍👧 \n\u{1}".repeat(500)).encode();
    let news = News::Change {
        follows: 6,
        version,
        frame: sent.clone(),
        for_programs: vec![
            (Dialect::Objects, Some(sent.clone())),
            (Dialect::Lines, None),
        ],
        own: Some(Own {
            user: UserId(8),
            frame: sent.clone(),
        }),
    };
    one.announce(Envelope {
        node: NODES[0],
        news: news.clone(),
    });
    let same = |one: &News, other: &News| format!("{one:?}") == format!("{other:?}");
    let Envelope { node, news: heard } = next(&mut heard).await;
    assert_eq!(node, NODES[0]);
    // A frame keeps its deflated bytes once they are made, so the rest is compared first.
    assert!(same(&heard, &news), "{heard:?}");
    let News::Change { frame, .. } = heard else {
        panic!("a change was announced");
    };
    assert_eq!(frame.bytes(false), sent.bytes(false));
    assert_eq!(frame.bytes(true), sent.bytes(true));
}

async fn news_goes_only_where_it_is_needed(backend: &impl Backend) {
    let ends = NODES.map(|_| backend.end());
    let user = User {
        id: UserId(8),
        name: "anna".to_owned(),
        display_name: Some("Änna".to_owned()),
    };
    let mut heard = Vec::new();
    for (end, node) in ends.iter().zip(NODES) {
        heard.push(backend.listen(&**end, node).await);
    }
    for to in [To::Room(ROOM), To::User(user.id)] {
        backend.follow(&*ends[1], NODES[1], &mut heard[1], to).await;
    }
    for news in [
        News::Presence(ROOM),
        News::Presence(RoomId(6)),
        News::Mine(user.id),
        News::Mine(UserId(9)),
        News::Renamed {
            user: user.clone(),
            rooms: vec![ROOM],
        },
        News::Probe {
            client: overwire::model::ClientId(3),
            at: NODES[2],
        },
        News::Online,
    ] {
        ends[0].announce(Envelope {
            node: NODES[0],
            news,
        });
    }
    let mut got = Vec::new();
    for heard in &mut heard[1..] {
        let mut news = Vec::new();
        loop {
            match next(heard).await.news {
                News::Online => break,
                News::Presence(room) => news.push(format!("presence {}", room.0)),
                News::Mine(user) => news.push(format!("mine {user}")),
                News::Probe { at, .. } => news.push(format!("probe at {at}")),
                News::Renamed { user, rooms } => {
                    news.push(format!("{} in {}", user.shown_name(), rooms.len()));
                }
                other => panic!("{other:?}"),
            }
        }
        got.push(news);
    }
    // Even across channels, the order of one sender holds.
    assert_eq!(got[0], ["presence 5", "mine 8", "Änna in 1"]);
    assert_eq!(got[1], ["Änna in 1", "probe at 3"]);
}

async fn what_is_no_longer_followed_is_no_longer_received(backend: &impl Backend) {
    let (one, two) = (backend.end(), backend.end());
    let _listening = backend.listen(&*one, NODES[0]).await;
    let mut heard = backend.listen(&*two, NODES[1]).await;
    for to in [To::Room(ROOM), To::User(UserId(8))] {
        backend.follow(&*two, NODES[1], &mut heard, to).await;
    }
    two.keep(NODES[1], &|to| to == To::User(UserId(8)));
    // Requests are handled in turn, so once these are confirmed, the earlier one has been handled.
    backend
        .follow(&*two, NODES[1], &mut heard, To::User(UserId(9)))
        .await;
    backend
        .follow(&*two, NODES[1], &mut heard, To::User(UserId(10)))
        .await;
    for news in [News::Presence(ROOM), News::Mine(UserId(8))] {
        one.announce(Envelope {
            node: NODES[0],
            news,
        });
    }
    let news = next(&mut heard).await.news;
    assert!(matches!(news, News::Mine(UserId(8))), "{news:?}");
}

async fn a_node_knows_whether_there_are_others(backend: &impl Backend) {
    let (one, two) = (backend.end(), backend.end());
    let _listening = one.listen(NODES[0]).await;
    let _also_listening = two.listen(NODES[1]).await;
    assert!(one.has_others(NODES[0]) && two.has_others(NODES[1]));
}

async fn a_node_that_does_not_listen_delays_nobody(backend: &impl Backend) {
    let ends = NODES.map(|_| backend.end());
    let _listening = backend.listen(&*ends[0], NODES[0]).await;
    let deaf = backend.listen(&*ends[1], NODES[1]).await;
    let mut heard = backend.listen(&*ends[2], NODES[2]).await;
    // More than the queue of the node that does not listen holds. The third node gets all of it.
    for number in 1..=10_000 {
        ends[0].announce(news(NODES[0], number));
        if ends[0].has_others(NODES[0]) && number % 100 == 0 {
            while next_number(&mut heard).await.1 < number {}
        }
    }
    drop(deaf);
}

async fn a_node_that_has_left_disturbs_nobody(backend: &impl Backend) {
    let ends = NODES.map(|_| backend.end());
    drop(backend.listen(&*ends[1], NODES[1]).await);
    let mut heard = backend.listen(&*ends[2], NODES[2]).await;
    let _listening = backend.listen(&*ends[0], NODES[0]).await;
    ends[0].announce(news(NODES[0], 1));
    assert_eq!(next_number(&mut heard).await.1, 1);
    // It comes back with a new end.
    let again = backend.end();
    let mut heard_again = backend.listen(&*again, NODES[1]).await;
    ends[0].announce(news(NODES[0], 2));
    assert_eq!(next_number(&mut heard_again).await.1, 2);
    assert_eq!(next_number(&mut heard).await.1, 2);
}

async fn a_lone_node_may_announce(backend: &impl Backend) {
    let alone = backend.end();
    alone.announce(news(NODES[0], 1));
    let mut heard = backend.listen(&*alone, NODES[0]).await;
    alone.announce(news(NODES[0], 2));
    assert!(heard.try_recv().is_err());
}

async fn news_announced_before_closing_is_received(backend: &impl Backend) {
    let (one, two) = (backend.end(), backend.end());
    let _listening = backend.listen(&*one, NODES[0]).await;
    let mut heard = backend.listen(&*two, NODES[1]).await;
    (1..=1000).for_each(|number| one.announce(news(NODES[0], number)));
    one.close().await;
    one.announce(news(NODES[0], 1001));
    drop(one);
    for number in 1..=1000 {
        assert_eq!(next_number(&mut heard).await.1, number);
    }
}

#[tokio::test]
async fn a_process_with_one_node_has_no_others() {
    let relay = InProcess::default();
    let _listening = Relay::listen(&relay, NODES[0]).await;
    assert!(!relay.has_others(NODES[0]));
    let gone = Relay::listen(&relay, NODES[1]).await;
    assert!(relay.has_others(NODES[0]));
    drop(gone);
    assert!(!relay.has_others(NODES[0]));
}

#[tokio::test]
async fn two_chats_may_share_a_redis() {
    let (one, other) = (ByRedis::of_some_store(), ByRedis::of_some_store());
    let (end, end_of_other) = (one.end(), other.end());
    let _listening = one.listen(&*end, NODES[0]).await;
    let mut heard = other.listen(&*end_of_other, NODES[1]).await;
    let third = other.end();
    let _also_listening = other.listen(&*third, NODES[2]).await;
    end.announce(news(NODES[0], 1));
    end.close().await;
    third.announce(news(NODES[2], 2));
    assert_eq!(next_number(&mut heard).await, (NODES[2], 2));
}

#[tokio::test]
async fn an_end_says_whether_it_is_connected() {
    let redis = Redis::start();
    let end = RedisRelay::new(&redis.address(), None, "store").unwrap();
    assert_eq!(end.state(), State::Disconnected);
    let _heard = end.listen(NODES[0]).await;
    until("it is connected", async || end.state() == State::Connected).await;
    redis.dies();
    end.announce(news(NODES[0], 1));
    until("it is disconnected", async || {
        end.state() == State::Disconnected
    })
    .await;
    redis.starts_again();
    until("it is connected again", async || {
        end.state() == State::Connected
    })
    .await;
    assert_eq!(InProcess::default().state(), State::InProcess);
}

#[tokio::test]
async fn a_malformed_address_is_refused_without_repeating_its_password() {
    for address in ["", "secret", "http://secret", "redis://:secret@host:secret"] {
        let refused = RedisRelay::new(address, None, "store").err().unwrap();
        let words = format!("{refused} {refused:?}");
        assert!(
            words.contains("redis://127.0.0.1") && !words.contains("secret"),
            "{words}"
        );
    }
}
