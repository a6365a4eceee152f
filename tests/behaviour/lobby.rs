//! The lobby: all groups and how many people are in each, live. People in the lobby are in no room.

use serde_json::json;

use crate::support::{Server, Tab};

/// The groups of a list from the top, each with its number of people.
fn groups(tab: &Tab, list: &str) -> Vec<(String, String)> {
    let list = tab.page.get(list).into_iter();
    let links = list.flat_map(|list| list.all().filter(|one| one.name == "a").collect::<Vec<_>>());
    links
        .map(|link| {
            let name = link.attribute("data-group-name").unwrap().to_owned();
            let number = link.all().find(|part| part.has_class("here-count"));
            let number = number.map_or(String::new(), |number| number.text());
            (name, number.trim_end_matches(" online").to_owned())
        })
        .collect()
}

fn named(groups: &[(String, String)]) -> Vec<(&str, &str)> {
    groups
        .iter()
        .map(|(name, number)| (name.as_str(), number.as_str()))
        .collect()
}

#[tokio::test]
async fn groups_are_listed_live_with_the_busiest_first() {
    let server = Server::start().await;
    let (python, _hi) = (server.tab_at("/chat/python/").await, server.tab().await);
    let mut second = server.tab_at("/chat/python/").await;
    // The server renders it before there is a socket.
    let page = server.get("/chat/").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("All groups · Overwire") && page.body.contains("lobby-groups"));
    let mut anna = server.tab_at("/chat/").await;
    assert_eq!(anna.title(), "All groups");
    anna.until("two in python", |tab| {
        named(&groups(tab, "lobby-rooms"))[..2] == [("python", "2"), ("hi", "1")]
    })
    .await;

    second.enters_group("events").await;
    anna.until("one in each", |tab| {
        named(&groups(tab, "lobby-rooms"))
            == [
                ("events", "1"),
                ("hi", "1"),
                ("python", "1"),
                ("off-topic", ""),
            ]
    })
    .await;
    second.sends("New group", json!({ "groupName": "Quick one" }));
    anna.until("the new one", |tab| {
        named(&groups(tab, "lobby-rooms")).contains(&("Quick one", "1"))
    })
    .await;
    python.closes().await;
    anna.until("nobody in python", |tab| {
        named(&groups(tab, "lobby-rooms")).contains(&("python", ""))
    })
    .await;
}

#[tokio::test]
async fn people_in_the_lobby_are_in_no_room() {
    let server = Server::start().await;
    let mut bob = server.tab().await;
    let mut anna = server.tab_at("/chat/").await;
    let (a, b) = (anna.name(), bob.name());
    bob.until("anna online", |tab| tab.people("users-online").contains(&a))
        .await;
    assert_eq!(bob.people("room-people"), std::slice::from_ref(&b));
    for action in ["New message", "Older messages"] {
        let data = json!({ "message": "to nobody", "before": 1, "room": "AAAAAAAAAAA" });
        anna.sends(action, data);
    }
    anna.hears_all().await;
    assert_eq!(anna.notice(), "There is no such room.");
    assert_eq!(server.count("messages"), 0);
    // Losing the network changes nothing.
    anna.loses_the_network();
    anna.reconnects().await;
    assert_eq!(
        (anna.title(), anna.name()),
        ("All groups".to_owned(), a.clone())
    );

    // Into a room, where the lobby disappears; and from a room into the lobby, by loading it.
    anna.enters_group("hi").await;
    assert_eq!(anna.page.the("lobby").text(), "");
    anna.sees_exactly(&[]).await;
    bob.until("both", |tab| {
        tab.people("room-people") == [b.clone(), a.clone()]
    })
    .await;
    bob.says("hello").await;
    anna.sees("hello").await;
}

#[tokio::test]
async fn groups_are_found_by_the_first_letters_of_their_names() {
    let server = Server::start().await;
    let mut anna = server.tab_at("/chat/").await;
    let mut bob = server.tab().await;
    for name in ["Rust", "rust-lang", "Übung"] {
        bob.sends("New group", json!({ "groupName": name }));
    }
    bob.hears_all().await;
    for (text, expected) in [
        ("RU", &["Rust", "rust-lang"][..]),
        ("#rust-", &["rust-lang"]),
        ("über", &[]),
        ("üB", &["Übung"]),
        ("lang", &[]),
        ("", &[]),
    ] {
        let mark = anna.pushes.len();
        anna.sends("Find groups", json!({ "text": text }));
        anna.until("an answer", |tab| {
            !tab.pushes_to("lobby-found", mark).is_empty()
        })
        .await;
        let found = groups(&anna, "lobby-found");
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, expected, "{text}");
        let said = anna.page.the("lobby-found").text();
        assert_eq!(
            said.contains("No group name begins with"),
            expected.is_empty() && !text.is_empty()
        );
    }
}

#[tokio::test]
async fn going_to_the_lobby_leaves_the_group() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let mut carl = server.tab_at("/chat/").await;
    let (a, b) = (anna.name(), bob.name());
    carl.until("both of them", |tab| {
        named(&groups(tab, "lobby-rooms"))[0] == ("hi", "2")
    })
    .await;
    // Like a click on a link: another page and another socket.
    anna.location = "/chat/".to_owned();
    anna.reloads().await;
    assert_eq!(anna.title(), "All groups");
    bob.until("anna to have left", |tab| {
        let said = tab.page.get("room-moves").map(|moves| moves.text());
        tab.people("room-people") == [b.as_str()]
            && said.is_some_and(|said| said.contains(&format!("{a} left")))
    })
    .await;
    for tab in [&mut anna, &mut carl] {
        tab.until("one in the group", |tab| {
            named(&groups(tab, "lobby-rooms"))[0] == ("hi", "1")
        })
        .await;
    }
}
