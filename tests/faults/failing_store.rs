//! A store that fails on request: nothing is shown that is not stored, every failed action gets a
//! notice, and afterwards everything continues.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use async_trait::async_trait;
use overwire::chat::{Chat, Client};
use overwire::hub::OUTBOX_BYTES;
use overwire::model::{NewUser, NodeId, PasswordHash, ResumeToken, SessionToken};
use overwire::protocol::{Dialect, Hello};
use overwire::relay::{InProcess, Relay as _};
use overwire::store::{
    self, Access, Arrival, Faults, NewSession, Result, Store, StoreError, Synchronous,
};
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;

use crate::support::list::List;
use crate::support::parts::start_chat;
use crate::support::soon;

pub(crate) const FINE: u8 = 0;
/// Nothing is done.
pub(crate) const BROKEN: u8 = 1;
/// It is done, but the answer is lost.
pub(crate) const MUTE: u8 = 2;
/// Everything works except reading messages.
const UNREADABLE: u8 = 3;
/// An arrival has to wait for its answer.
const SLOW: u8 = 4;
/// Reading the versions of rooms waits for the test.
const STUCK: u8 = 5;
/// Both reading the changes of a room and the answer to it wait for the test.
const LATE: u8 = 6;
/// Everything works except reading groups.
const NO_GROUPS: u8 = 7;
/// No message is stored before another one is about to be.
pub(crate) const TOGETHER: u8 = 8;

pub(crate) struct Failing {
    how: AtomicU8,
    two: Barrier,
    /// Somebody waits for the answer.
    waiting: Notify,
    /// How many have waited.
    waited: AtomicUsize,
    answered: Notify,
}

impl Default for Failing {
    fn default() -> Self {
        Self {
            how: AtomicU8::new(FINE),
            two: Barrier::new(2),
            waiting: Notify::default(),
            waited: AtomicUsize::default(),
            answered: Notify::default(),
        }
    }
}

impl Failing {
    pub(crate) fn is(&self, how: u8) {
        self.how.store(how, Ordering::SeqCst);
    }

    async fn waits(&self) {
        self.waited.fetch_add(1, Ordering::SeqCst);
        self.waiting.notify_one();
        self.answered.notified().await;
    }
}

fn failure() -> Result<()> {
    Err(StoreError::Database("as the test asked".into()))
}

#[async_trait]
impl Faults for Failing {
    async fn before(&self, act: &'static str) -> Result<()> {
        match (self.how.load(Ordering::SeqCst), act) {
            (BROKEN, _) | (UNREADABLE, "newest" | "catch_up" | "own") | (NO_GROUPS, "groups") => {
                failure()
            }
            (LATE, "catch_up") | (STUCK, "versions") => {
                self.waits().await;
                Ok(())
            }
            (TOGETHER, "post") => {
                self.two.wait().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn after(&self, act: &'static str) -> Result<()> {
        match (self.how.load(Ordering::SeqCst), act) {
            (MUTE, _) => failure(),
            (SLOW, "arrive") | (LATE, "catch_up") => {
                self.waits().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

struct Place {
    store: Arc<Store>,
    faults: Arc<Failing>,
    relay: InProcess,
    chat: Arc<Chat>,
    folder: tempfile::TempDir,
}

async fn place() -> Place {
    place_in(tempfile::tempdir().unwrap()).await
}

async fn place_in(folder: tempfile::TempDir) -> Place {
    let file = folder.path().join("overwire.db");
    let store = store::open(file.to_str().unwrap(), Synchronous::Normal, Access::Server)
        .await
        .unwrap();
    let faults = Arc::new(Failing::default());
    let store = store.with_faults(Arc::clone(&faults) as _).unwrap();
    let relay = InProcess::default();
    let chat = start_chat(&store, Arc::new(relay.clone())).await;
    Place {
        store,
        faults,
        relay,
        chat,
        folder,
    }
}

struct Tab {
    chat: Arc<Chat>,
    client: Client,
    list: List,
}

impl Tab {
    async fn open(place: &Place, dialect: Dialect) -> Self {
        let chat = Arc::clone(&place.chat);
        let list = List::new(dialect);
        let client = chat.connect(list.hello()).await.unwrap();
        let mut tab = Self { chat, client, list };
        tab.reads();
        tab
    }

    fn reads(&mut self) {
        for frame in self.client.outbox.take(usize::MAX).frames {
            for push in frame.payloads() {
                self.list.take(std::str::from_utf8(push).unwrap());
            }
        }
    }

    async fn does(&mut self, action: &str) {
        let request = self.chat.read(&self.client, action);
        self.chat.handle(&self.client, request).await;
        self.reads();
    }

    async fn writes(&mut self, text: &str) {
        let action = self.list.write(text.to_owned());
        self.does(&action).await;
    }

    /// Reads, and catches up like a socket, until it shows this many messages.
    async fn shows(&mut self, messages: usize) {
        soon("the messages", async {
            loop {
                self.reads();
                if self.client.outbox.wants_rest() {
                    assert!(self.chat.catch_up(&self.client).await);
                } else if self.list.ids.len() == messages {
                    return;
                } else {
                    self.client.outbox.woken().await;
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_message_that_failed_to_store_is_shown_to_nobody_until_sent_again() {
    let place = place().await;
    let mut anna = Tab::open(&place, Dialect::V1).await;
    let mut bob = Tab::open(&place, Dialect::V1).await;
    let mut plain = Tab::open(&place, Dialect::Plain).await;
    anna.writes("before").await;
    for tab in [&mut anna, &mut bob, &mut plain] {
        tab.shows(1).await;
    }

    place.faults.is(BROKEN);
    anna.writes("meanwhile").await;
    assert_eq!(anna.list.unsettled.len(), 1, "a failure settles nothing");
    let notice = anna.list.notices.last().unwrap();
    assert!(notice.contains("not saved") && !notice.contains("data-key"));
    // Anything pushed before would be read before this.
    bob.does(r#"{"action":"Ping"}"#).await;
    assert_eq!((anna.list.ids.len(), bob.list.ids.len()), (1, 1));

    place.faults.is(FINE);
    for action in anna.list.again() {
        anna.does(&action).await;
    }
    for tab in [&mut anna, &mut bob, &mut plain] {
        tab.shows(2).await;
    }
    assert!(anna.list.unsettled.is_empty());
    assert_eq!(place.store.census().await.unwrap().messages, 2);
}

#[tokio::test]
async fn a_message_stored_without_an_answer_is_shown_once_and_settles_when_sent_again() {
    let place = place().await;
    let mut anna = Tab::open(&place, Dialect::V1).await;
    let mut bob = Tab::open(&place, Dialect::V1).await;
    place.faults.is(MUTE);
    anna.writes("hello").await;
    place.faults.is(FINE);
    bob.shows(1).await;
    anna.does(&List::enter("python")).await;
    for action in anna.list.again() {
        anna.does(&action).await;
    }
    assert!(anna.list.unsettled.is_empty(), "though it is elsewhere now");
    assert!(anna.list.ids.is_empty());
    anna.does(&List::enter("hi")).await;
    anna.shows(1).await;
    bob.does(r#"{"action":"Ping"}"#).await;
    assert_eq!(bob.list.ids.len(), 1);
    assert_eq!(place.store.census().await.unwrap().messages, 1);
}

#[tokio::test]
async fn a_sender_who_does_not_wait_for_the_answer_is_not_counted_as_waiting() {
    let place = place().await;
    let mut anna = Tab::open(&place, Dialect::V1).await;
    // Another one would have to come first.
    place.faults.is(TOGETHER);
    let action = anna.list.write("hello".to_owned());
    let request = place.chat.read(&anna.client, &action);
    let mut posting = Box::pin(place.chat.handle(&anna.client, request));
    assert!(futures_util::poll!(&mut posting).is_pending());
    assert_eq!(anna.client.queued(), 1);
    drop(posting);
    assert_eq!(anna.client.queued(), 0);
}

#[tokio::test]
async fn messages_do_not_wait_for_a_comparison_with_the_store() {
    let place = place().await;
    let mut anna = Tab::open(&place, Dialect::V1).await;
    let mut bob = Tab::open(&place, Dialect::V1).await;
    place.faults.is(STUCK);
    // With another node there is something to compare.
    let _other = place.relay.listen(NodeId(i64::MAX)).await;
    soon("a comparison", place.faults.waiting.notified()).await;
    anna.writes("hello").await;
    bob.shows(1).await;
}

#[tokio::test]
async fn the_first_message_of_a_room_is_shown_without_reading_the_store() {
    let place = place().await;
    let mut anna = Tab::open(&place, Dialect::V1).await;
    let mut bob = Tab::open(&place, Dialect::V1).await;
    place.faults.is(UNREADABLE);
    for (text, messages) in [("first", 1), ("second", 2)] {
        anna.writes(text).await;
        bob.shows(messages).await;
    }
}

#[tokio::test]
async fn messages_read_from_the_store_are_not_shown_again_with_the_following() {
    let former = place().await;
    let mut anna = Tab::open(&former, Dialect::V1).await;
    anna.writes("before the restart").await;
    anna.shows(1).await;
    former.store.close().await;
    let place = place_in(former.folder).await;
    let mut anna = Tab::open(&place, Dialect::V1).await;
    let mut bob = Tab::open(&place, Dialect::V1).await;
    // The first change after a restart is looked up in the store. What is written in the meantime
    // is read along with it, and also waits for its turn together with what is written after.
    place.faults.is(LATE);
    anna.writes("looked up").await;
    for text in ["brought with it", "after"] {
        soon("a look at the store", place.faults.waiting.notified()).await;
        anna.writes(text).await;
        place.faults.answered.notify_one();
    }
    bob.client.outbox.woken().await;
    soon("all of it", async {
        while bob.list.ids.len() < 4 {
            bob.reads();
            assert!(
                !bob.client.outbox.is_behind(),
                "nobody has to ask for the rest"
            );
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_failed_entry_leaves_the_tab_in_its_room_and_missing_nothing() {
    for how in [BROKEN, MUTE, UNREADABLE] {
        let place = place().await;
        for dialect in [Dialect::V1, Dialect::Plain] {
            let mut anna = Tab::open(&place, Dialect::V1).await;
            let mut bob = Tab::open(&place, dialect).await;
            let had = bob.list.ids.len();
            place.faults.is(how);
            bob.does(&List::enter("python")).await;
            place.faults.is(FINE);
            assert!(!bob.list.notices.is_empty());
            assert_eq!(bob.list.title, "/chat/hi/");
            anna.writes("hello").await;
            bob.shows(had + 1).await;
            let noticed = bob.list.notices.len();
            bob.does(&List::enter("python")).await;
            assert_eq!(bob.list.title, "/chat/python/");
            assert_eq!(bob.list.notices.len(), noticed);
        }
    }
}

#[tokio::test]
async fn a_tab_that_fell_behind_during_a_failure_catches_up_afterwards() {
    let place = place().await;
    let mut anna = Tab::open(&place, Dialect::V1).await;
    let mut bob = Tab::open(&place, Dialect::V1).await;
    let long = "x".repeat(3500);
    let enough = OUTBOX_BYTES / long.len() + 5;
    for _ in 0..enough {
        anna.writes(&long).await;
    }
    anna.shows(enough).await;
    bob.reads();
    assert!(bob.client.outbox.wants_rest());
    let had = bob.list.ids.len();
    place.faults.is(BROKEN);
    assert!(!bob.chat.catch_up(&bob.client).await);
    bob.reads();
    assert!(!bob.list.notices.is_empty());
    assert!(bob.client.outbox.wants_rest(), "it is tried again");
    assert_eq!(bob.list.ids.len(), had);
    // Messages come first, even if reading the groups fails.
    bob.client.outbox.outdate_groups();
    place.faults.is(NO_GROUPS);
    assert!(!bob.chat.catch_up(&bob.client).await);
    bob.reads();
    assert_eq!(bob.list.ids.len(), enough);
    assert!(bob.client.outbox.wants_rest(), "it is tried again");
    place.faults.is(FINE);
    assert!(bob.chat.catch_up(&bob.client).await);
    bob.reads();
    assert!(!bob.client.outbox.wants_rest());
}

#[tokio::test]
async fn nobody_is_half_connected() {
    let place = place().await;
    let asked = overwire::chat::Asked {
        address: "/chat/hi/",
        scheme: "http",
        host: "x",
        query: None,
        session: None,
        browser: None,
        refused: None,
    };
    for how in [BROKEN, MUTE] {
        place.faults.is(how);
        let list = List::new(Dialect::V1);
        assert!(place.chat.connect(list.hello()).await.is_err());
        assert!(place.chat.check().await.is_err());
        assert!(place.chat.first_page(&asked).await.is_err());
        place.faults.is(FINE);
        let mut anna = Tab::open(&place, Dialect::V1).await;
        anna.writes("hello").await;
        assert!(anna.list.notices.is_empty());
    }
}

#[tokio::test]
async fn of_hundreds_who_arrive_at_once_few_are_admitted_at_a_time() {
    const ARRIVING: usize = 200;
    let place = place().await;
    let mut anna = Tab::open(&place, Dialect::V1).await;
    place.faults.is(SLOW);
    let mut arriving = JoinSet::new();
    for _ in 0..ARRIVING {
        let (chat, list) = (Arc::clone(&place.chat), List::new(Dialect::V1));
        arriving.spawn(async move { chat.connect(list.hello()).await.map(drop) });
    }
    soon("the first of them", place.faults.waiting.notified()).await;
    // Whoever is in the queue before this message is through it afterwards.
    anna.writes("hello").await;
    anna.shows(1).await;
    let admitted = place.faults.waited.load(Ordering::SeqCst);
    assert!((1..=32).contains(&admitted), "{admitted} at once");

    place.faults.is(FINE);
    while let Some(arrived) = {
        place.faults.answered.notify_waiters();
        soon("all of them", arriving.join_next()).await
    } {
        arrived.unwrap().unwrap();
    }
    assert_eq!(place.store.census().await.unwrap().messages, 1);
}

#[tokio::test]
async fn arriving_by_a_session_that_is_just_ending_is_closed_again() {
    let place = place().await;
    let (guest, session) = (ResumeToken::random(), SessionToken::random());
    let arrival = Arrival {
        node: NodeId(1),
        session: None,
        resume: None,
        token: guest.hash(),
        browser: None,
        spare: Some(NewUser {
            name: "anna".to_owned(),
            email: "anna@example.com".to_owned(),
        }),
        group: None,
    };
    place.store.arrive(arrival).await.unwrap();
    let new = NewSession {
        token: session.hash(),
        former: None,
    };
    let hash = PasswordHash("hers".to_owned());
    let kept = place.store.register(guest.hash(), hash, new).await.unwrap();
    let anna = kept.unwrap().session.user;
    let connect = || {
        let hello = Hello {
            session: Some(session.clone()),
            ..List::new(Dialect::V1).hello()
        };
        let chat = Arc::clone(&place.chat);
        tokio::spawn(async move { chat.connect(hello).await.unwrap() })
    };
    let client = connect().await.unwrap();
    assert_eq!(client.user, anna);
    assert!(client.outbox.closing().is_none());

    place.faults.is(SLOW);
    let arriving = connect();
    soon("the arrival", place.faults.waiting.notified()).await;
    place.chat.sign_out(&session).await.unwrap();
    place.faults.answered.notify_one();
    place.faults.is(FINE);
    let client = soon("the client", arriving).await.unwrap();
    assert_eq!(client.user, anna);
    assert!(client.outbox.closing().is_some());
    let again = connect().await.unwrap();
    assert_ne!(again.user, anna);
    assert!(again.outbox.closing().is_none());
}
