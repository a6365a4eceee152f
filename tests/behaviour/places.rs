//! Places in a room: the address of a message, and reading on from there to both ends.

use serde_json::json;

use crate::support::page::Element;
use crate::support::{Server, Tab};

impl Tab {
    /// Asks for a part of the room, and waits for it.
    async fn shows(&mut self, place: serde_json::Value) {
        let before = self.pushes.len();
        self.sends("Show messages", place);
        self.until("another part of the room", |tab| {
            !tab.pushes_to("messages-list", before).is_empty()
        })
        .await;
    }

    fn ends_with_a_gap(&self) -> bool {
        self.page.get("messages-newer").is_some()
    }

    /// The messages before the gap, by their number.
    fn numbers(&self) -> Vec<usize> {
        let texts = self.texts().into_iter();
        texts.filter_map(|text| text.parse().ok()).collect()
    }

    async fn asks_for_newer(&mut self, after: i64, before: Option<i64>) {
        let mark = self.pushes.len();
        let data = json!({ "after": after, "before": before, "room": self.room() });
        self.sends("Newer messages", data);
        self.until("newer messages", |tab| {
            !tab.pushes_to("messages-newer", mark).is_empty()
        })
        .await;
        self.hears_all().await;
    }
}

#[tokio::test]
async fn a_room_is_read_from_a_message_on_without_a_gap_or_a_repeat() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let [mut anna, mut bob] = server.tabs().await;
    for n in 0..130 {
        anna.says(&n.to_string()).await;
    }
    bob.sees("129").await;
    let first = anna.messages()[0].id;
    bob.shows(json!({ "at": first + 40 })).await;
    assert_eq!(bob.numbers(), (16..=65).collect::<Vec<_>>());
    assert!(bob.ends_with_a_gap());
    let at = bob.page.the("messages-list").attribute("data-at");
    assert_eq!(at, Some(&*(first + 40).to_string()));
    assert_eq!(bob.asks_for_older().await, 16);

    // What is said meanwhile arrives, after the gap.
    anna.says("130").await;
    bob.sees("130").await;
    let last = bob.messages()[65].id;
    let tail = bob.messages()[66].id;
    bob.asks_for_newer(last, Some(tail)).await;
    assert!(bob.ends_with_a_gap());
    // Somebody who names no end gets the rest once, too.
    let last = bob.messages()[115].id;
    bob.asks_for_newer(last, None).await;
    assert!(!bob.ends_with_a_gap());
    assert_eq!(bob.numbers(), (0..=130).collect::<Vec<_>>());
    anna.says("131").await;
    bob.sees("131").await;

    bob.shows(json!({ "since": 0 })).await;
    assert_eq!(bob.numbers(), (0..25).collect::<Vec<_>>());
    bob.shows(json!({})).await;
    assert_eq!(bob.numbers(), (82..=131).collect::<Vec<_>>());
    assert!(!bob.ends_with_a_gap());
}

#[tokio::test]
async fn a_part_of_the_room_is_replaced_while_others_write() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.says("0").await;
    let first = anna.messages()[0].id;
    let room = anna.room();
    for n in 1..=60 {
        anna.writes(&n.to_string());
        let at = (n % 2 == 0).then_some(first + n / 2);
        bob.sends("Show messages", json!({ "at": at, "room": room }));
    }
    anna.sees("60").await;
    bob.hears_all().await;
    bob.shows(json!({})).await;
    assert_eq!(bob.numbers(), anna.numbers()[11..]);
    assert_eq!(bob.version(), anna.version());
}

#[tokio::test]
async fn the_address_of_a_message_opens_the_page_around_it() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let mut anna = server.tab_at("/chat/python/").await;
    for n in 0..80 {
        anna.says(&n.to_string()).await;
    }
    let id = anna.messages()[10].id;
    let has = |element: &Element| element.attribute("href") == Some(&*format!("?at={id}"));
    assert!(anna.page.root().all().any(has), "its time is the link");
    let mut bob = server.tab_at(&format!("/chat/python/?at={id}")).await;
    assert_eq!(bob.numbers(), (0..=35).collect::<Vec<_>>());
    assert!(bob.ends_with_a_gap());
    anna.says("80").await;
    bob.sees("80").await;
    // A message of another room leads nowhere, and says nothing about that room.
    let mut carl = server.tab_at("/chat/hi/").await;
    carl.says("only here").await;
    let elsewhere = carl.messages()[0].id;
    let page = server.get(&format!("/chat/python/?at={elsewhere}")).await;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("only here"));
    let words = "There is no such message in this room.";
    assert!(page.body.contains(words));
    // A page also asks for the place where its reader left off, which need not be a message of the room.
    carl.page.put("notice", None, "");
    carl.shows(json!({ "at": 0 })).await;
    carl.says("after that").await;
    assert_eq!(carl.page.the("notice").text(), "");
    let there = server.get(&format!("/chat/python/?at={id}")).await;
    assert!(!there.body.contains(words));
    for at in ["", "x", "-1", "99999999999999999999"] {
        let page = server.get(&format!("/chat/python/?at={at}")).await;
        assert_eq!(page.status, 200, "{at}");
    }
}
