//! Whoever enters a group for the first time is welcomed there, in that tab only.

use overwire::chat::Welcome;
use overwire::model::GroupName;
use serde_json::json;

use crate::support::wire::{Event, Handshake};
use crate::support::{Server, Tab, soon};

fn welcome(tab: &Tab) -> String {
    let shown = tab.page.the("room-welcome").text();
    shown.trim_end_matches('✕').trim().to_owned()
}

#[tokio::test]
async fn programs_with_message_types_are_welcomed_too() {
    let server = Server::with(|setup| {
        setup.welcome = Welcome::new("Welcome to {group}.".to_owned(), []);
    })
    .await;
    let through = |path: &str| Handshake {
        path: Some(path.to_owned()),
        ..Handshake::default()
    };
    let mut bot = server.socket(&through("/ws/chat/hi/")).await.unwrap();
    let notice = json!({ "type": "notice", "message": "Welcome to #hi." });
    assert_eq!(
        soon("the welcome", bot.next()).await,
        Event::Text(notice.to_string())
    );
}

#[tokio::test]
async fn the_first_visit_to_a_group_shows_its_welcome_in_that_tab_only() {
    let server = Server::with(|setup| {
        let python = GroupName::new("python").unwrap();
        let events = GroupName::new("events").unwrap();
        setup.welcome = Welcome::new(
            "Welcome to {group} <i>".to_owned(),
            [
                (python, "Tabs or spaces?".to_owned()),
                (events, String::new()),
            ],
        );
    })
    .await;
    let mut bob = server.tab().await;
    bob.until("the welcome", |tab| welcome(tab) == "Welcome to #hi <i>")
        .await;
    let heard = bob.pushes.len();
    let mut anna = server.tab().await;
    let a = anna.name();
    anna.until("the welcome", |tab| welcome(tab) == "Welcome to #hi <i>")
        .await;
    for (group, words) in [
        ("python", "Tabs or spaces?"),
        ("events", ""),
        // Only on the first visit.
        ("hi", ""),
        ("python", ""),
    ] {
        anna.enters_group(group).await;
        anna.until(group, |tab| welcome(tab) == words).await;
    }
    anna.sends("New group", json!({ "groupName": "Élan" }));
    anna.until("the new group", |tab| tab.title() == "#Élan")
        .await;
    let mut carl = server.tab().await;
    carl.enters_group("Élan").await;
    carl.until("the welcome", |tab| welcome(tab) == "Welcome to #Élan <i>")
        .await;
    anna.opens_private(&bob.name()).await;
    anna.until("none in private", |tab| welcome(tab).is_empty())
        .await;
    anna.enters_group("hi").await;
    anna.loses_the_network();
    anna.reconnects().await;
    assert_eq!(welcome(&anna), "");
    anna.says("hello").await;
    bob.sees("hello").await;
    assert_eq!(bob.messages()[0].author, a);
    assert_eq!(bob.pushes_to("room-welcome", heard).len(), 0);
    assert_eq!(server.count("messages"), 1);
}
