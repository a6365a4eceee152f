//! Redis in trouble: writers do not wait for it, the other node finds the messages in the store,
//! and lists and marks are right again afterwards.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep_until};

use crate::support::device::Device;
use crate::support::page::Page;
use crate::support::postgres::Database;
use crate::support::program::signal;
use crate::support::redis::Redis;
use crate::support::rows::Rows as _;
use crate::support::tab::all;
use crate::support::{Tab, until};
use crate::{Crowd, Node};

/// How long a slow Redis delays each command and each answer.
const LATE: Duration = Duration::from_secs(1);
/// In each of these tests, waiting for Redis would take longer than this.
const AT_ONCE: Duration = Duration::from_millis(900);
/// By then every room has been compared with the store.
const COMPARED: Duration = Duration::from_secs(8);

/// Two nodes with a Redis at an address; the first closure breaks it, the second repairs it.
async fn story(redis: &str, breaks: impl AsyncFnOnce(), heals: impl AsyncFnOnce()) {
    let database = Database::fresh().await;
    let address = database.address();
    let nodes = Node::two_at([&address, &address], redis).await;
    let [here, there] = [nodes[0].door, nodes[1].door];
    let mut crowd = Crowd::of(4, &[here, there], &[]);
    let mut anna = here.tab_at("/chat/python/").await;
    let mut ada = here.tab_at("/chat/python/").await;
    let mut bob = there.tab_at("/chat/python/").await;
    let eve = there.tab_at("/chat/python/").await;
    let left = eve.name();
    anna.says("all is well").await;
    all([&mut ada, &mut bob].map(|tab| tab.sees("all is well"))).await;
    anna.until("eve", |tab| tab.people("room-people").contains(&left))
        .await;
    crowd.goes_on(50).await;

    breaks().await;
    let mut quickest = Duration::MAX;
    for number in 0..5 {
        let text = format!("without it {number}");
        let began = Instant::now();
        anna.says(&text).await;
        ada.sees(&text).await;
        quickest = quickest.min(began.elapsed());
    }
    assert!(quickest < AT_ONCE, "{quickest:?} on the writer's own node");
    bob.until_within(COMPARED, "what the store has", |tab| {
        tab.texts().contains(&"without it 4".to_owned())
    })
    .await;
    bob.says(&format!("/pm {} psst", anna.name())).await;
    eve.closes().await;
    let mut frank = there.tab_at("/chat/python/").await;
    frank.says("here I am").await;
    anna.until_within(COMPARED, "what the store has", |tab| {
        tab.texts().contains(&"here I am".to_owned())
    })
    .await;
    crowd.goes_on(100).await;
    heals().await;

    let (name, newcomer) = (bob.name(), frank.name());
    anna.until("who is here and what is unread", |tab| {
        let are_right = ["room-people", "users-online"].iter().all(|list| {
            let people = tab.people(list);
            people.contains(&newcomer) && !people.contains(&left)
        });
        are_right && tab.unread_from(&name) == 1
    })
    .await;
    let (stop, mut stopped) = watch::channel(());
    let types = async {
        let mut signs = interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                _ = signs.tick() => bob.sends("Typing", json!({})),
                _ = stopped.changed() => return,
            }
        }
    };
    let sees = async {
        anna.until("bob typing", |tab| {
            tab.page.the("room-typing").text().contains(&name)
        })
        .await;
        drop(stop);
    };
    tokio::join!(types, sees);
    bob.says("all is well again").await;
    anna.until("bob typing no more", |tab| {
        !tab.page.the("room-typing").text().contains(&name)
    })
    .await;
    crowd.goes_on(50).await;
    let record = crowd.ends_as_stored_in(&database).await;
    for tab in [&mut anna, &mut ada, &mut bob, &mut frank] {
        record.is_shown_to(tab).await;
    }
    assert_eq!(record.times("without it 0"), 1);
}

/// The texts of the notifications that a tab got.
fn notified(tab: &Tab) -> Vec<String> {
    let pushes = tab.pushes.iter();
    let pushes = pushes.filter(|push| push.place == "notification");
    pushes
        .map(|push| Page::parse(&push.html).root().text().trim().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_the_nodes_still_know_who_looks_and_notify_once() {
    let (database, redis) = (Database::fresh().await, Redis::start());
    let nodes = Node::two(&database, &redis).await;
    let [here, there] = [nodes[0].door, nodes[1].door];
    let mut anna = here.tab_at("/chat/python/").await;
    // One person has a tab at each node.
    let mut bob = there.tab_at("/chat/python/").await;
    Device::at(there).keeps(&mut bob).await;
    let mut device = Device::at(here);
    device.signs_in(&bob.name()).await;
    let mut beside = device.tab("/chat/python/").await;
    bob.sends("Set notifications", json!({ "on": true }));
    for tab in [&mut bob, &mut beside] {
        tab.until("the setting", |tab| {
            let settings = tab.page.the("notifications");
            settings.with("data-on").next().is_some()
        })
        .await;
    }
    let looks = async |on: bool| {
        until("the database to know who looks", async || {
            let looking = database.rows("select count(*) from clients_in_view");
            looking == [u8::from(on).to_string()]
        })
        .await;
    };
    bob.sends("In view", json!({ "on": true }));
    looks(true).await;
    anna.opens_private(&bob.name()).await;

    redis.dies();
    anna.says("seen").await;
    bob.sends("In view", json!({ "on": false }));
    looks(false).await;
    anna.says("away").await;
    beside
        .until("a notification", |tab| !notified(tab).is_empty())
        .await;
    assert_eq!(notified(&beside), ["away"]);
    redis.starts_again();
    let mut number = 0;
    let mut pace = interval(Duration::from_millis(200));
    // The nodes reconnect one after the other. What is said meanwhile may reach the tabs of one node only.
    while notified(&bob).last() != notified(&beside).last() {
        pace.tick().await;
        number += 1;
        anna.says(&format!("again {number}")).await;
        bob.hears_all().await;
        beside.hears_all().await;
    }
    for tab in [&bob, &beside] {
        let all = notified(tab);
        let once: HashSet<_> = all.iter().collect();
        assert_eq!(once.len(), all.len(), "{all:?}");
        assert!(!all.contains(&"seen".to_owned()), "{all:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_and_restarts() {
    let redis = Redis::start();
    let breaks = async || redis.dies();
    story(&redis.address(), breaks, async || redis.starts_again()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_freezes_for_a_while() {
    let redis = Redis::start();
    let process = redis.process();
    let breaks = async || signal(process, "STOP");
    let heals = async || signal(process, "CONT");
    story(&redis.address(), breaks, heals).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_flushed_and_cuts_everybody_off_repeatedly() {
    let redis = Arc::new(Redis::start());
    let (stop, mut stopped) = watch::channel(());
    let cutting = std::sync::Mutex::new(None);
    let breaks = async || {
        let redis = Arc::clone(&redis);
        *cutting.lock().unwrap() = Some(tokio::spawn(async move {
            let mut turns = interval(Duration::from_millis(100));
            loop {
                tokio::select! {
                    _ = turns.tick() => {}
                    _ = stopped.changed() => return,
                }
                redis.does(&["flushall"]);
                for kind in ["normal", "pubsub"] {
                    redis.does(&["client", "kill", "type", kind]);
                }
            }
        }));
    };
    let heals = async || {
        drop(stop);
        let cutting = cutting.lock().unwrap().take().unwrap();
        cutting.await.unwrap();
    };
    story(&redis.address(), breaks, heals).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_slow() {
    let redis = Redis::start();
    let (late, is_late) = watch::channel(Duration::ZERO);
    let address = slowed(&redis, is_late).await;
    let breaks = async || {
        late.send_replace(LATE);
    };
    let heals = async || {
        late.send_replace(Duration::ZERO);
    };
    story(&address, breaks, heals).await;
}

/// An address that delays everything to and from a Redis by the given time.
async fn slowed(redis: &Redis, late: watch::Receiver<Duration>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("redis://{}", listener.local_addr().unwrap());
    let socket = redis.socket();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (said, say) = client.into_split();
            let redis = UnixStream::connect(&socket).await.unwrap();
            let (answered, answer) = redis.into_split();
            tokio::spawn(pass(said, answer, late.clone()));
            tokio::spawn(pass(answered, say, late.clone()));
        }
    });
    address
}

/// Passes bytes on in order, with a delay.
async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    mut to: impl tokio::io::AsyncWrite + Unpin + Send + 'static,
    late: watch::Receiver<Duration>,
) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, bytes)) = under_way.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut bytes = [0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let at = tokio::time::Instant::now() + *late.borrow();
        if sender.send((at, bytes[..read].to_vec())).is_err() {
            return;
        }
    }
}
