//! Coming back to the same room: nothing missed, nothing twice, and every message settled, whatever
//! happened in between.

use std::path::Path;

use serde_json::json;

use crate::support::{Server, Tab};

/// The swaps of the pushes to the list since then.
fn of_the_list(tab: &Tab, from: usize) -> Vec<String> {
    let pushes = tab.pushes[from..].iter();
    pushes
        .filter(|push| push.place.starts_with("message"))
        .map(|push| push.swap.clone().unwrap_or_default())
        .collect()
}

#[tokio::test]
async fn a_returning_tab_gets_only_what_it_missed() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.says("before").await;
    bob.sees("before").await;
    bob.loses_the_network();
    for text in ["one", "two", "three"] {
        anna.says(text).await;
    }
    let mark = bob.pushes.len();
    bob.connects().await;
    bob.sees("three").await;
    bob.hears_all().await;
    assert_eq!(of_the_list(&bob, mark), ["append"; 3]);
    let versions: Vec<_> = bob
        .pushes_to("messages-list", mark)
        .iter()
        .map(|push| push.version.is_some())
        .collect();
    assert_eq!(versions, [false, false, true], "with the last one only");
    assert_eq!(bob.messages(), anna.messages());
    assert_eq!(bob.version(), anna.version());
}

#[tokio::test]
async fn a_returning_tab_that_missed_nothing_gets_no_messages() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    assert_eq!(of_the_list(&anna, 0), [""; 0], "the page had it already");
    anna.says("all there").await;
    let mark = anna.pushes.len();
    anna.reconnects().await;
    anna.hears_all().await;
    assert_eq!(of_the_list(&anna, mark), [""; 0]);
    anna.says("goes on").await;
    assert_eq!(anna.texts(), ["all there", "goes on"]);
}

#[tokio::test]
async fn a_tab_that_missed_more_than_a_page_gets_the_newest_page() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.says("long ago").await;
    bob.sees("long ago").await;
    for (missed, expected) in [(50, vec!["append"; 50]), (51, vec!["outer"])] {
        bob.loses_the_network();
        for number in 0..missed {
            anna.writes(&format!("{missed}: {number}"));
        }
        anna.sees(&format!("{missed}: {}", missed - 1)).await;
        let mark = bob.pushes.len();
        bob.connects().await;
        bob.sees(&format!("{missed}: {}", missed - 1)).await;
        bob.hears_all().await;
        assert_eq!(of_the_list(&bob, mark), expected);
        assert_eq!(bob.version(), anna.version());
    }
    assert_eq!(bob.messages(), anna.messages()[52..]);
}

#[tokio::test]
async fn a_tab_that_missed_more_than_64_kib_gets_the_newest_page() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let [mut anna, mut bob] = server.tabs().await;
    bob.loses_the_network();
    for number in 0..20 {
        anna.says(&format!("{number}{}", "x".repeat(3_900))).await;
    }
    let mark = bob.pushes.len();
    bob.connects().await;
    bob.until("messages", |tab| !tab.messages().is_empty())
        .await;
    bob.hears_all().await;
    assert_eq!(of_the_list(&bob, mark), ["outer"]);
    let few = bob.messages();
    assert_eq!(few, anna.messages()[20 - few.len()..]);
}

#[tokio::test]
async fn after_a_restart_everybody_returns_to_where_they_were() {
    let mut server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.opens_private(&bob.name()).await;
    anna.says("before").await;
    bob.enters_group("python").await;
    bob.says("in python").await;
    let names = [anna.name(), bob.name()];
    server.stop().await;
    for tab in [&mut anna, &mut bob] {
        assert_eq!(tab.is_closed().await, Some(1012));
    }
    server.start_again().await;
    let marks = [anna.pushes.len(), bob.pushes.len()];
    for (tab, mark) in [&mut anna, &mut bob].into_iter().zip(marks) {
        tab.connects().await;
        tab.hears_all().await;
        assert_eq!(of_the_list(tab, mark), [""; 0], "nothing was missed");
    }
    assert_eq!([anna.name(), bob.name()], names);
    assert_eq!(anna.title(), bob.name());
    assert_eq!(bob.title(), "#python");
    anna.says("after").await;
    bob.opens_private(&anna.name()).await;
    bob.sees_exactly(&["before", "after"]).await;
    bob.enters_group("python").await;
    bob.sees_exactly(&["in python"]).await;
}

#[tokio::test]
async fn messages_sent_before_a_stop_are_there_afterwards() {
    let mut server = Server::start().await;
    let mut anna = server.tab().await;
    let keys: Vec<_> = (0..40)
        .map(|number| anna.writes(&number.to_string()))
        .collect();
    anna.is_settled(&keys[0]).await;
    server.stop().await;
    anna.is_closed().await;
    let seen = anna.texts();
    server.start_again().await;
    anna.connects().await;
    // What is not settled is sent again with the same key.
    for (number, key) in keys.iter().enumerate() {
        let data = json!({ "message": number.to_string(), "room": anna.room(), "key": key });
        anna.sends("New message", data);
    }
    for key in &keys {
        anna.is_settled(key).await;
    }
    anna.until("all of them", |tab| tab.texts().len() == 40)
        .await;
    let expected: Vec<_> = (0..40).map(|number| number.to_string()).collect();
    assert_eq!(anna.texts(), expected);
    assert!(expected.starts_with(&seen));
    assert_eq!(server.count("messages"), 40);
}

/// Copies the database of a stopped server.
fn copy(from: &Path, to: &Path) {
    for ending in ["", "-wal"] {
        let name = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            name
        };
        // The write-ahead log exists only while there is something in it.
        let _ = std::fs::remove_file(name(to));
        if std::fs::exists(name(from)).unwrap() {
            std::fs::copy(name(from), name(to)).unwrap();
        }
    }
}

#[tokio::test]
async fn after_restoring_a_backup_the_list_shows_what_is_stored() {
    let mut server = Server::on_a_file().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.says("kept").await;
    bob.sees("kept").await;
    let file = server.file();
    let saved = file.with_file_name("saved.db");
    server.stop().await;
    copy(&file, &saved);
    server.start_again().await;
    for tab in [&mut anna, &mut bob] {
        tab.connects().await;
    }
    anna.says("lost").await;
    anna.says("lost too").await;
    bob.sees("lost too").await;
    server.stop().await;
    copy(&saved, &file);
    server.start_again().await;

    // Anna reconnects while the room is behind her version, bob when it has reached his by number.
    let mark = anna.pushes.len();
    anna.connects().await;
    anna.sees_exactly(&["kept"]).await;
    assert_eq!(of_the_list(&anna, mark), ["outer"]);
    anna.says("new").await;
    anna.says("new too").await;
    let mark = bob.pushes.len();
    bob.connects().await;
    bob.sees_exactly(&["kept", "new", "new too"]).await;
    assert_eq!(of_the_list(&bob, mark), ["outer"]);
    assert_eq!(bob.version(), anna.version());

    // A tab that has nothing of the lost messages gets only what it misses.
    bob.loses_the_network();
    anna.says("and on").await;
    let mark = bob.pushes.len();
    bob.connects().await;
    bob.sees("and on").await;
    assert_eq!(of_the_list(&bob, mark), ["append"]);
}

#[tokio::test]
async fn after_a_reset_everybody_is_new_in_an_empty_room() {
    let mut server = Server::on_a_file().await;
    let mut anna = server.tab().await;
    anna.says("before the flood").await;
    server.stop().await;
    for ending in ["", "-wal", "-shm"] {
        let file = server.file().with_file_name(format!("overwire.db{ending}"));
        let _ = std::fs::remove_file(file);
    }
    server.start_again().await;
    anna.connects().await;
    anna.sees_exactly(&[]).await;
    assert_eq!(anna.title(), "#hi");
    anna.says("after").await;
    assert_eq!(anna.texts(), ["after"]);
}

#[tokio::test]
async fn a_tab_ahead_of_the_room_gets_the_newest_page() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.says("there is").await;
    let version = anna.version().unwrap();
    let (of_room, _) = version.split_once('.').unwrap();
    let mut bob = server.tab_at("/chat/python/").await;
    bob.says("elsewhere").await;
    let other = anna.pushes.len();
    for after in [
        format!("{of_room}.999"),
        "6a1f93c8.1".to_owned(),
        "6a1f93c8.0".to_owned(),
        bob.version().unwrap(),
        String::new(),
    ] {
        let mark = anna.pushes.len();
        anna.page.set("messages-list", "data-version", &after);
        anna.reconnects().await;
        anna.until("the page", |tab| !of_the_list(tab, mark).is_empty())
            .await;
        assert_eq!(of_the_list(&anna, mark), ["outer"], "{after}");
        assert_eq!(anna.texts(), ["there is"]);
        assert_eq!(anna.version().as_ref(), Some(&version));
    }
    assert!(anna.pushes.len() > other);
}

#[tokio::test]
async fn the_same_key_is_stored_once_however_often_it_is_sent() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let hi = anna.room();
    let key = anna.writes("once");
    let data = json!({ "message": "once", "room": hi, "key": key });
    anna.sends("New message", data.clone());
    anna.sends("New message", data.clone());
    anna.sees("once").await;
    anna.hears_all().await;
    assert_eq!(anna.texts(), ["once"]);

    let settled = |tab: &Tab, from: usize| {
        let pushes = tab.pushes[from..].iter();
        pushes.filter(|push| push.html.contains(&key)).count()
    };
    anna.reconnects().await;
    let mark = anna.pushes.len();
    anna.sends("New message", data.clone());
    anna.hears_all().await;
    assert_eq!(settled(&anna, mark), 1, "on another connection too");
    anna.enters_group("python").await;
    let mark = anna.pushes.len();
    anna.sends("New message", data);
    anna.hears_all().await;
    assert_eq!(settled(&anna, mark), 1, "and from another room");
    assert_eq!(anna.texts(), [""; 0]);

    bob.sees("once").await;
    bob.hears_all().await;
    assert_eq!(bob.texts(), ["once"]);
    assert_eq!(settled(&bob, 0), 1, "bob got it once");
    assert_eq!(server.stored("once"), 1);
}

#[tokio::test]
async fn the_first_text_and_room_sent_with_a_key_win() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let key = anna.writes("first");
    anna.is_settled(&key).await;
    let hi = anna.room();
    anna.enters_group("python").await;
    let mark = anna.pushes.len();
    let data = json!({ "message": "second", "room": anna.room(), "key": key });
    anna.sends("New message", data);
    anna.hears_all().await;
    let answer = anna.pushes[mark..].iter();
    let answer: Vec<_> = answer.filter(|push| push.html.contains(&key)).collect();
    assert_eq!(answer.len(), 1);
    assert!(answer[0].html.contains("first"));
    assert_eq!(anna.texts(), [""; 0]);
    assert_eq!(server.count("messages"), 1);

    // The same key from another person is a different key.
    let mut bob = server.tab().await;
    let data = json!({ "message": "mine", "room": hi, "key": key });
    bob.sends("New message", data);
    bob.sees_exactly(&["first", "mine"]).await;
}

#[tokio::test]
async fn a_refused_message_is_answered_with_its_key() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let keyed = |tab: &Tab| {
        let notice = tab.page.the("notice");
        let key = notice.with("data-key").next();
        key.and_then(|notice| notice.attribute("data-key"))
            .map(str::to_owned)
    };
    let key = "6a3c8f8e-0d6a-4a53-9a52-2a3f6b1f1d11";
    for data in [
        json!({ "message": " \n ", "key": key }),
        json!({ "message": "x".repeat(4_001), "key": key }),
        json!({ "message": "x", "key": key, "room": "AAAAAAAAAAE" }),
        json!({ "message": 7, "key": key }),
        json!({ "key": key }),
    ] {
        anna.is_refused("Ping!", json!({})).await;
        assert_eq!(keyed(&anna), None, "a refusal of something else");
        anna.is_refused("New message", data.clone()).await;
        assert_eq!(keyed(&anna).as_deref(), Some(key), "{data}");
    }
    // A refused message may be corrected and sent again.
    let data = json!({ "message": "better", "key": key });
    anna.sends("New message", data);
    anna.sees_exactly(&["better"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_falls_behind_and_catches_up_without_loss_or_duplicates() {
    let server = Server::alone(|setup| setup.unlimited()).await;
    let [mut anna, mut bob] = server.tabs().await;
    bob.stops_reading().await;
    for number in 0..400 {
        anna.writes(&format!("{number}{}", "x".repeat(3_900)));
    }
    anna.until("400 messages", |tab| tab.messages().len() == 400)
        .await;
    anna.says("the end").await;
    bob.goes_deaf(false);
    bob.sees("the end").await;
    assert!(bob.messages().len() < 401, "so much did not fit");
    assert!(
        bob.pushes
            .iter()
            .any(|push| push.swap.as_deref() == Some("outer"))
    );
    assert_eq!(bob.version(), anna.version());
    while bob.page.the("messages-older").attribute("data-more") == Some("true") {
        bob.asks_for_older().await;
    }
    assert_eq!(bob.messages(), anna.messages());
    bob.says("there you are").await;
    anna.sees("there you are").await;
}

#[tokio::test]
async fn a_tab_whose_room_is_unknown_returns_to_the_address_instead() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.enters_group("events").await;
    anna.says("party").await;
    anna.page.set("messages-list", "data-room", "AAAAAAAAAAE");
    anna.page.set("messages-list", "data-version", "6a1f93c8.7");
    let mark = anna.pushes.len();
    anna.reconnects().await;
    anna.hears_all().await;
    assert_eq!(anna.title(), "#events");
    assert_eq!(of_the_list(&anna, mark), ["outer"]);
    assert_eq!(anna.texts(), ["party"]);
}
