//! Who is typing: shown to the others in the room, never stored, and gone when the text is sent or
//! abandoned.

use serde_json::json;

use crate::support::{Server, Tab};

fn typing(tab: &Tab) -> String {
    tab.page.the("room-typing").text()
}

/// Whether no push to it ever showed anybody typing.
fn never_saw_anybody_typing(tab: &Tab) -> bool {
    let pushes = tab.pushes_to("room-typing", 0);
    pushes.iter().all(|push| push.html.is_empty())
}

fn types(tab: &mut Tab) {
    let room = tab.room();
    tab.sends("Typing", json!({ "room": room }));
}

#[tokio::test]
async fn others_in_the_room_see_who_is_typing_until_they_send() {
    let server = Server::start().await;
    let (mut anna, mut bob, mut carl, mut dora) = (
        server.tab().await,
        server.tab().await,
        server.tab().await,
        server.tab_at("/chat/python/").await,
    );
    let (a, b) = (anna.name(), bob.name());
    types(&mut anna);
    bob.until("anna", |tab| typing(tab) == format!("{a} is typing"))
        .await;
    types(&mut bob);
    carl.until("both", |tab| {
        typing(tab) == format!("{a} and {b} are typing")
    })
    .await;
    // Nobody is shown as typing to themselves.
    anna.until("bob", |tab| typing(tab) == format!("{b} is typing"))
        .await;
    bob.until("anna", |tab| typing(tab) == format!("{a} is typing"))
        .await;
    types(&mut carl);
    let mut eve = server.tab().await;
    eve.until("all", |tab| typing(tab) == "several people are typing")
        .await;

    // The text for the others is unchanged, but the text for those who type may differ.
    let mut finn = server.tab().await;
    types(&mut finn);
    let f = finn.name();
    anna.until("several", |tab| typing(tab) == "several people are typing")
        .await;
    bob.enters_group("python").await;
    let c = carl.name();
    anna.until("the two who are left", |tab| {
        typing(tab) == format!("{c} and {f} are typing")
    })
    .await;
    bob.enters_group("hi").await;

    let version = eve.version();
    anna.says("there").await;
    eve.until("the message and the other two", |tab| {
        tab.texts() == ["there"] && typing(tab).ends_with("are typing") && !typing(tab).contains(&a)
    })
    .await;
    assert_ne!(eve.version(), version);
    bob.says("here").await;
    carl.says("everywhere").await;
    eve.until("nobody", |tab| typing(tab).is_empty()).await;
    dora.hears_all().await;
    assert!(never_saw_anybody_typing(&dora));
}

#[tokio::test]
async fn typing_in_a_room_is_not_shown_to_people_who_left_it() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let mut carl = server.tab_at("/chat/python/").await;
    for room in ["python", "events"] {
        types(&mut anna);
        bob.until("anna", |tab| typing(tab).contains("typing"))
            .await;
        bob.enters_group(room).await;
        bob.hears_all().await;
        assert_eq!(typing(&bob), "");
        bob.enters_group("hi").await;
        anna.says("said").await;
        bob.until("nobody", |tab| typing(tab).is_empty()).await;
    }
    types(&mut anna);
    bob.until("anna", |tab| typing(tab).contains("typing"))
        .await;
    bob.opens_private(&anna.name()).await;
    bob.hears_all().await;
    assert_eq!(typing(&bob), "");
    // Typing in the room that one enters is shown.
    types(&mut carl);
    bob.enters_group("python").await;
    let c = carl.name();
    bob.until("carl", |tab| typing(tab) == format!("{c} is typing"))
        .await;
    // It also disappears from a page that lost its socket in between.
    bob.loses_the_network();
    carl.says("said").await;
    bob.connects().await;
    bob.until("nobody", |tab| typing(tab).is_empty()).await;
}

#[tokio::test]
async fn typing_ends_when_the_person_disconnects_or_leaves() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    types(&mut anna);
    types(&mut bob);
    carl.until("both", |tab| typing(tab).contains(" and "))
        .await;
    bob.enters_group("python").await;
    let a = anna.name();
    carl.until("anna", |tab| typing(tab) == format!("{a} is typing"))
        .await;
    // Nobody can type in a room that they are not in.
    let room = carl.room();
    let mark = carl.pushes.len();
    bob.sends("Typing", json!({ "room": room }));
    bob.hears_all().await;
    // Anna no longer types.
    carl.until("nobody", |tab| typing(tab).is_empty()).await;
    let pushes = carl.pushes_to("room-typing", mark);
    assert!(pushes.iter().all(|push| !push.html.contains(&bob.name())));
}

#[tokio::test]
async fn typing_in_a_private_room_is_shown_only_to_the_other_and_only_there() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    anna.opens_private(&b).await;
    types(&mut anna);
    bob.hears_all().await;
    assert_eq!(typing(&bob), "");
    bob.opens_private(&a).await;
    bob.until("anna", |tab| typing(tab) == format!("{a} is typing"))
        .await;
    let room = anna.room();
    carl.sends("Typing", json!({ "room": room }));
    carl.hears_all().await;
    assert!(never_saw_anybody_typing(&carl));
    assert_eq!(server.count("messages"), 0);
}
