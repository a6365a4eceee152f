//! Small parts on their own: rendering, encoding, framing, handing out, reading a page.
//!
//! `scripts/bench parts` runs this. Whole servers under load are measured in `benches/load`.

use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use overwire::hub::{Hub, Line, Outbox, Step};
use overwire::model::{
    Author, ClientId, ClientRef, Found, History, Message, MessageId, MessageText, Millis, NodeId,
    Page, ResumeToken, RoomId, UserId, Version,
};
use overwire::protocol::{Action, Dialect, Frame};
use overwire::store::{self, Access, Actor, Arrival, Arrived, Post, Posted, Store, Synchronous};
use overwire::text::Draft;
use overwire::views::{Place, Views};
use overwire::websocket::{self, Decoder};
use tokio::time::timeout;
use uuid::Uuid;

const ROOM: RoomId = RoomId(7);
const ELSEWHERE: RoomId = RoomId(3);
/// A message that has not reached all tabs by then is lost.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
/// After all messages.
const END: Place = Place::At(MessageId(i64::MAX));
const TEXT: &str = "Shall we meet at the station at eight, or is that too early?";

fn version(number: u64) -> Version {
    Version {
        room: ROOM,
        history: History(1),
        number,
    }
}

fn message(number: u64) -> Message {
    Message {
        id: MessageId(number.cast_signed()),
        room: ROOM,
        author: Author {
            id: UserId(5),
            user_name: "brenda82".to_owned(),
            name: "brenda82".to_owned(),
        },
        text: TEXT.to_owned(),
        key: Some(Uuid::from_u128(number.into())),
        made: number,
        changed: number,
        edited: false,
        deleted: false,
        worded: 1,
        reactions: Vec::new(),
        by_moderator: false,
        html: Some(TEXT.to_owned()),
        files: Vec::new(),
        reply_to: None,
        created_at: Millis(1_700_000_000_000),
    }
}

fn page() -> Page {
    Page {
        version: version(1_000),
        newer: false,
        messages: (951..=1_000).map(message).collect(),
        older: true,
    }
}

fn render(criterion: &mut Criterion) {
    let views = Views::new().expect("the templates are valid");
    let page = page();
    // What was rendered before is not rendered again.
    let mut number = 0;
    let mut next = || {
        number += 1;
        message(number)
    };
    let mut group = criterion.benchmark_group("render");
    group.bench_function("a message", |bench| {
        let render = |message| views.new_message(black_box(&message));
        bench.iter_batched(&mut next, render, BatchSize::SmallInput);
    });
    group.bench_function("a message, encoded", |bench| {
        let render = |message| {
            views
                .new_message(black_box(&message))
                .at(version(1))
                .encode()
        };
        bench.iter_batched(&mut next, render, BatchSize::SmallInput);
    });
    group.bench_function("a page of 50 new messages", |bench| {
        let fresh = || Page {
            messages: (0..50).map(|_| next()).collect(),
            ..page.clone()
        };
        let render = |page| views.messages_list(black_box(&page), END);
        bench.iter_batched(fresh, render, BatchSize::SmallInput);
    });
    group.bench_function("a page of 50", |bench| {
        bench.iter(|| {
            views
                .messages_list(black_box(&page), END)
                .expect("it is rendered")
        });
    });
    group.bench_function("a page of 50, encoded", |bench| {
        bench.iter(|| {
            let page = views
                .messages_list(black_box(&page), END)
                .expect("it is rendered");
            page.encode()
        });
    });
    group.bench_function("the newest page of 50, encoded", |bench| {
        bench.iter(|| views.newest(black_box(&page)).expect("it is rendered"));
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let views = Views::new().expect("the templates are valid");
    let one = views.new_message(&message(1)).at(version(1)).encode();
    let many = views.newest(&page()).expect("it is rendered");
    let mut group = criterion.benchmark_group("frame");
    for (name, frame) in [("a message", &one), ("a page", &many)] {
        let payload = frame.payloads().next().unwrap_or_default();
        // A fragment that cannot be rendered becomes a placeholder.
        assert!(String::from_utf8_lossy(payload).contains(TEXT));
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(BenchmarkId::new("plain", name), |bench| {
            bench.iter(|| websocket::text(black_box(payload)));
        });
        group.bench_function(BenchmarkId::new("compressed", name), |bench| {
            bench.iter(|| websocket::deflated_text(black_box(payload)));
        });
    }
    let action = format!(
        r#"{{"action":"New message","data":{{"message":"{TEXT}","room":"{ROOM}","key":"{}"}}}}"#,
        Uuid::from_u128(1)
    );
    let sent = masked(&action);
    group.throughput(Throughput::Bytes(sent.len() as u64));
    group.bench_function("read an action", |bench| {
        let mut decoder = Decoder::new(64 * 1024, false);
        bench.iter(|| {
            decoder.feed(black_box(&sent));
            let incoming = decoder.next_incoming().expect("it is a frame");
            incoming.expect("it is whole")
        });
    });
    group.bench_function("parse an action", |bench| {
        bench.iter(|| Action::parse(black_box(&action)).expect("it is an action"));
    });
    group.finish();
}

/// A frame as a browser would send it.
fn masked(text: &str) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = websocket::text(text.as_bytes()).to_vec();
    let header = frame.len() - text.len();
    frame[1] |= 0x80;
    for (i, byte) in frame[header..].iter_mut().enumerate() {
        *byte ^= mask[i % 4];
    }
    frame.splice(header..header, mask);
    frame
}

/// A room with that many tabs.
fn crowd(tabs: i64) -> (Hub, Vec<Arc<Outbox>>) {
    let hub = Hub::default();
    let outboxes = (0..tabs).map(|tab| {
        let client = ClientRef {
            client: ClientId(tab),
            visit: 0,
        };
        let outbox = hub.connect(client, UserId(tab), Dialect::V1);
        hub.enter(&outbox, ROOM, None);
        outbox.bring(ROOM, version(0), []);
        outbox
    });
    let outboxes = outboxes.collect();
    (hub, outboxes)
}

/// A connection that takes every frame at once, and counts it.
struct Counter(Arc<AtomicUsize>);

impl Line for Counter {
    fn send(&self, frames: &VecDeque<Frame>) -> (usize, usize) {
        self.0.fetch_add(frames.len(), Ordering::Release);
        (frames.len(), 0)
    }
}

fn hand_out(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let views = Views::new().expect("the templates are valid");
    let frame: Frame = views.new_message(&message(1)).at(version(1)).encode();
    let mut group = criterion.benchmark_group("hand out a message");
    for tabs in [100, 1_000, 10_000] {
        let (hub, outboxes) = crowd(tabs);
        let handed_out = Arc::new(AtomicUsize::new(0));
        for outbox in &outboxes {
            outbox.connect(Counter(Arc::clone(&handed_out)));
            while !outbox.take(usize::MAX).frames.is_empty() {}
            outbox.rest();
        }
        let (mut number, mut expected) = (0, 0);
        group.throughput(Throughput::Elements(tabs.cast_unsigned()));
        group.bench_function(BenchmarkId::from_parameter(tabs), |bench| {
            bench.iter(|| {
                number += 1;
                expected += outboxes.len();
                let step = Step::new(number - 1, version(number), vec![frame.clone()]);
                let shown = async {
                    hub.show(step);
                    while handed_out.load(Ordering::Acquire) < expected {
                        tokio::task::yield_now().await;
                    }
                };
                let shown = runtime.block_on(async { timeout(SHOWN_WITHIN, shown).await });
                shown.expect("every tab is shown the message");
            });
        });
    }
    group.finish();
}

/// A message in a group whose members look elsewhere, and list five groups each.
fn mark(criterion: &mut Criterion) {
    let views = Views::new().expect("the templates are valid");
    let newest = (MessageId(1), "anna".to_owned());
    let news = views.group_news(ELSEWHERE, &newest, &[], &[]);
    let news = HashMap::from([(ELSEWHERE, news.expect("it can be rendered").encode())]);
    let listed: Arc<[RoomId]> = (1..=5).map(RoomId).collect();
    // The hub flushes many tabs in the background.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let mut group = criterion.benchmark_group("mark a group in the lists of its members");
    for tabs in [100, 1_000, 10_000] {
        let (hub, outboxes) = crowd(tabs);
        for outbox in &outboxes {
            outbox.list(Arc::clone(&listed));
        }
        group.throughput(Throughput::Elements(tabs.cast_unsigned()));
        group.bench_function(BenchmarkId::from_parameter(tabs), |bench| {
            bench.iter(|| {
                hub.show_news(&news);
                for outbox in &outboxes {
                    assert_eq!(outbox.take(usize::MAX).frames.len(), 1);
                    assert!(outbox.take(usize::MAX).frames.is_empty());
                }
            });
        });
    }
    group.finish();
}

async fn newcomer(store: &Store, node: NodeId) -> (ClientRef, UserId) {
    let mut spares = overwire::fake::FakeUsers::random();
    loop {
        let arrival = Arrival {
            node,
            session: None,
            resume: None,
            token: ResumeToken::random().hash(),
            browser: None,
            spare: spares.next(),
            group: None,
        };
        let arrived = store.arrive(arrival).await.expect("the store works");
        if let Arrived::As { client, user, .. } = arrived {
            return (client, user.id);
        }
    }
}

fn keep(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("store");
    group.sample_size(20);
    for (name, synchronous) in [("full", Synchronous::Full), ("normal", Synchronous::Normal)] {
        let path = folder.path().join(name);
        let (store, node) = (path.to_string_lossy(), NodeId::random());
        let store = store::open(&store, synchronous, Access::Server);
        let store = runtime.block_on(store).expect("it opens");
        let (client, user) = runtime.block_on(newcomer(&store, node));
        let by = Actor { node, client, user };
        let room = runtime
            .block_on(store.group("hi", None))
            .expect("it answers");
        let room = room.expect("a default group").id;
        let text = MessageText::new(TEXT, 4_000).expect("a valid text");
        let text = Draft::new(TEXT).wording(&text, "", &Found::default());
        let post = || Post {
            by,
            room,
            text: text.clone(),
            key: Some(Uuid::new_v4()),
            reply_to: None,
            files: Vec::new(),
        };
        for _ in 0..50 {
            let posted = runtime.block_on(store.post(post()));
            posted.expect("the store works");
        }
        group.bench_function(BenchmarkId::new("post", name), |bench| {
            let stored = async |post| {
                let posted = store.post(post).await.expect("the store works");
                assert!(matches!(posted, Posted::New(_)), "{posted:?}");
            };
            let mut bench = bench.to_async(&runtime);
            bench.iter_batched(post, stored, BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("newest page of 50", name), |bench| {
            bench.to_async(&runtime).iter(async || {
                let page = store.newest(room).await.expect("the store works");
                assert_eq!(page.messages.len(), 50);
            });
        });
        runtime.block_on(store.close());
    }
    group.finish();
}

criterion_group!(parts, render, frames, hand_out, mark, keep);
criterion_main!(parts);
