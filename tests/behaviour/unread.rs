//! Unread groups: which have news, when they count as read, and where a person left off.

use std::time::Instant;

use serde_json::json;

use crate::support::device::Device;
use crate::support::{Server, Tab};

impl Tab {
    /// The entry of a group in the side pane.
    fn entry(&self, name: &str, attribute: &str) -> bool {
        let list = self.page.the("groups-list");
        let mut entries = list.all().filter(|item| item.name == "li");
        let is_it = |item: &&crate::support::page::Element| {
            let mut links = item.with("data-group-name");
            links.any(|link| link.attribute("data-group-name") == Some(name))
        };
        let entry = entries.find(is_it);
        entry.is_some_and(|entry| entry.attribute(attribute).is_some())
    }

    /// The authors of the news of groups that were pushed.
    fn news(&self) -> Vec<String> {
        let news = self.pushes.iter();
        let news = news.filter(|push| push.place.starts_with("news-"));
        let author = |html: &str| {
            let (_, rest) = html.split_once("data-user=\"").unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        news.map(|push| author(&push.html)).collect()
    }

    /// Up to which message the person had read the room on show.
    fn had_read(&self) -> i64 {
        let mut place = self.page.the("my-read").with("data-room");
        let read = place.next().expect("a visit").attribute("data-read");
        read.unwrap().parse().unwrap()
    }

    fn last_message(&self) -> i64 {
        self.messages().last().unwrap().id
    }

    fn reads(&mut self) {
        let data = json!({ "message": self.last_message(), "room": self.room() });
        self.sends("Read", data);
    }
}

#[tokio::test]
async fn a_group_has_news_for_those_who_belong_to_it_and_are_elsewhere() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    bob.enters_group("python").await;
    bob.enters_group("hi").await;
    anna.enters_group("python").await;
    anna.says("who is here?").await;
    let a = anna.name();
    bob.until("news", |tab| tab.news() == [a.clone()]).await;
    // Carl has never been there, and Anna is there.
    carl.hears_all().await;
    assert_eq!((carl.news(), anna.news()), (vec![], vec![]));

    bob.enters_group("events").await;
    assert!(bob.entry("python", "data-news") && !bob.entry("hi", "data-news"));
    bob.enters_group("python").await;
    bob.reads();
    bob.enters_group("events").await;
    assert!(!bob.entry("python", "data-news"));
    anna.enters_group("events").await;
    assert!(!anna.entry("python", "data-news"), "her own words");
}

#[tokio::test]
async fn the_news_of_a_busy_group_is_pushed_once_a_second() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    bob.enters_group("python").await;
    anna.enters_group("python").await;
    bob.enters_group("hi").await;
    let began = Instant::now();
    for n in 0..40 {
        anna.says(&n.to_string()).await;
    }
    bob.until("news", |tab| !tab.news().is_empty()).await;
    bob.hears_all().await;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(bob.news().len() <= seconds + 2, "{}", bob.news().len());
}

#[tokio::test]
async fn a_visit_begins_where_the_last_one_ended() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.enters_group("python").await;
    anna.says("long ago").await;
    bob.enters_group("python").await;
    assert_eq!(bob.had_read(), bob.last_message(), "the first visit");
    anna.says("seen").await;
    bob.sees("seen").await;
    bob.reads();
    let seen = bob.last_message();
    bob.enters_group("hi").await;
    anna.says("missed").await;
    bob.enters_group("python").await;
    assert_eq!(bob.had_read(), seen);
    assert!(bob.last_message() > seen);
    // Loading the room has not read it.
    bob.enters_group("hi").await;
    assert!(bob.entry("python", "data-news"));
}

#[tokio::test]
async fn what_is_read_just_before_a_reconnect_stays_read() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.enters_group("python").await;
    bob.enters_group("python").await;
    anna.says("seen").await;
    bob.sees("seen").await;
    bob.reads();
    bob.hears_all().await;
    let seen = bob.last_message();
    bob.loses_the_network();
    bob.connects().await;
    bob.enters_group("hi").await;
    // Another node is told a moment later.
    bob.until("no news", |tab| !tab.entry("python", "data-news"))
        .await;
    bob.enters_group("python").await;
    assert_eq!(bob.had_read(), seen);
}

#[tokio::test]
async fn all_devices_of_a_person_agree_what_is_read() {
    let server = Server::start().await;
    let mut anna = server.tab_at("/chat/python/").await;
    let (device, mut first) = Device::of_somebody(&server).await;
    first.enters_group("python").await;
    let mut second = device.tab("/chat/hi/").await;
    first.enters_group("hi").await;
    anna.says("news").await;
    for tab in [&mut first, &mut second] {
        tab.until("news", |tab| !tab.news().is_empty()).await;
    }
    second.enters_group("python").await;
    second.reads();
    first
        .until("it to be read", |tab| !tab.entry("python", "data-news"))
        .await;
    let news = first.last_list_of_groups();
    assert!(news > 0, "the list was pushed again");

    // One marks it as unread from there on: both see it, and the room on show as well.
    let message = second.last_message();
    second.sends(
        "Mark unread",
        json!({ "message": message, "room": second.room() }),
    );
    first
        .until("the mark", |tab| tab.entry("python", "data-news"))
        .await;
    second
        .until("the line", |tab| tab.had_read() == message - 1)
        .await;
    first.sends("Mark all as read", json!({}));
    for tab in [&mut first, &mut second] {
        tab.until("everything to be read", |tab| {
            !tab.entry("python", "data-news")
        })
        .await;
    }
}

impl Tab {
    fn last_list_of_groups(&self) -> usize {
        let lists = self
            .pushes
            .iter()
            .rposition(|push| push.place == "groups-list");
        lists.unwrap_or_default()
    }
}

#[tokio::test]
async fn the_tab_that_reads_gets_no_list() {
    let server = Server::start().await;
    let mut anna = server.tab_at("/chat/python/").await;
    let (device, mut bob) = Device::of_somebody(&server).await;
    bob.enters_group("python").await;
    let mut other = device.tab("/chat/hi/").await;
    anna.says("news").await;
    bob.sees("news").await;
    other.until("news", |tab| !tab.news().is_empty()).await;
    let (given, lists) = (bob.last_list_of_groups(), other.last_list_of_groups());
    bob.reads();
    other
        .until("the list again", |tab| tab.last_list_of_groups() > lists)
        .await;
    bob.hears_all().await;
    assert_eq!(bob.last_list_of_groups(), given);
}

#[tokio::test]
async fn two_tabs_that_read_at_the_same_time_know_of_each_other() {
    let server = Server::start().await;
    let [mut anna, mut carl] = server.tabs().await;
    let (device, mut bob) = Device::of_somebody(&server).await;
    for tab in [&mut anna, &mut bob] {
        tab.enters_group("python").await;
    }
    let mut other = device.tab("/chat/hi/").await;
    anna.says("news").await;
    carl.says("more news").await;
    bob.sees("news").await;
    other.sees("more news").await;
    for tab in [&mut bob, &mut other] {
        tab.until("news", |tab| !tab.news().is_empty()).await;
    }
    let lists = [&bob, &other].map(Tab::last_list_of_groups);
    bob.reads();
    other.reads();
    for (tab, before) in [&mut bob, &mut other].into_iter().zip(lists) {
        tab.until("the list again", |tab| tab.last_list_of_groups() > before)
            .await;
    }
    bob.until("all to be read", |tab| !tab.entry("hi", "data-news"))
        .await;
    other
        .until("all to be read", |tab| !tab.entry("python", "data-news"))
        .await;
}

#[tokio::test]
async fn a_room_entered_again_begins_where_it_was_just_read() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.enters_group("python").await;
    bob.enters_group("python").await;
    anna.says("news").await;
    bob.sees("news").await;
    bob.reads();
    let again = json!({ "groupName": "python", "isGroup": true });
    bob.sends("Change group", again);
    bob.until("the visit", |tab| tab.had_read() == tab.last_message())
        .await;
}

#[tokio::test]
async fn a_mark_does_not_return_after_a_reconnect() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    bob.enters_group("python").await;
    anna.enters_group("python").await;
    anna.says("news").await;
    bob.sees("news").await;
    bob.reads();
    bob.enters_group("hi").await;
    assert!(!bob.entry("python", "data-news"));
    bob.loses_the_network();
    bob.reconnects().await;
    bob.hears_all().await;
    assert!(!bob.entry("python", "data-news"));
    anna.says("more").await;
    bob.until("news", |tab| !tab.news().is_empty()).await;
    bob.loses_the_network();
    bob.reconnects().await;
    bob.until("the mark", |tab| tab.entry("python", "data-news"))
        .await;
}

#[tokio::test]
async fn a_group_that_was_left_is_listed_again_when_it_is_entered() {
    let server = Server::start().await;
    let mut bob = server.tab_at("/chat/python/").await;
    bob.sends("Leave group", json!({ "room": bob.room() }));
    bob.until("the lobby", |tab| tab.title() == "All groups")
        .await;
    bob.until("a list without it", |tab| {
        !tab.groups_in("groups-list").contains(&"python".to_owned())
    })
    .await;
    assert_eq!((bob.texts(), bob.room()), (vec![], None));
    assert!(bob.groups_in("lobby-rooms").contains(&"python".to_owned()));
    bob.enters_group("python").await;
    assert!(bob.entry("python", "data-joined"));
}

#[tokio::test]
async fn a_muted_group_has_no_news() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.enters_group("python").await;
    bob.enters_group("python").await;
    bob.sends("Mute group", json!({ "room": bob.room(), "on": true }));
    bob.until("being muted", |tab| tab.entry("python", "data-muted"))
        .await;
    bob.enters_group("events").await;
    bob.enters_group("hi").await;
    anna.says("shout").await;
    anna.enters_group("events").await;
    anna.says("whisper").await;
    bob.until("the news of the other group", |tab| tab.news().len() == 1)
        .await;
    bob.enters_group("events").await;
    assert!(!bob.entry("python", "data-news") && bob.entry("python", "data-muted"));
}

#[tokio::test]
async fn the_creator_of_a_group_says_what_it_is_about() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.sends("New group", json!({ "groupName": "apes" }));
    anna.until("the group", |tab| tab.title() == "#apes").await;
    bob.enters_group("apes").await;
    let room = bob.room();
    let topic = |tab: &Tab| tab.page.the("room-topic").text();
    anna.sends(
        "Change topic",
        json!({ "room": room, "topic": "All <b>about</b> apes" }),
    );
    for tab in [&mut anna, &mut bob] {
        tab.until("the topic", |tab| topic(tab) == "All <b>about</b> apes")
            .await;
    }
    let reason = bob
        .is_refused("Change topic", json!({ "room": room, "topic": "mine" }))
        .await;
    assert_eq!(
        reason,
        "Only the group's creator and moderators can change its topic."
    );
    let long = "x".repeat(201);
    let reason = anna
        .is_refused("Change topic", json!({ "room": room, "topic": long }))
        .await;
    assert_eq!(reason, "The topic has 201 characters. The limit is 200.");
    let page = server.door.get("/chat/apes/").await.body;
    assert!(page.contains("All &lt;b&gt;about"), "the first page has it");
    assert_eq!(topic(&bob), "All <b>about</b> apes");
}
