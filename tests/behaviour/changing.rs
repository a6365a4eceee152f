//! Editing and deleting one's own messages: live for everybody, and caught up by tabs that were
//! away.

use serde_json::{Value, json};

use crate::support::{Server, Tab};

/// The id of the message with that text, as the tab shows it.
fn id_of(tab: &Tab, text: &str) -> i64 {
    let messages = tab.messages();
    let found = messages.iter().find(|message| message.text == text);
    found
        .unwrap_or_else(|| panic!("no “{text}” in {messages:?}"))
        .id
}

fn edited(tab: &Tab, id: i64) -> bool {
    let message = tab.page.the(&format!("message-{id}"));
    let is_marked = message.all().any(|part| part.has_class("message__edited"));
    is_marked || message.attribute("data-edited").is_some()
}

fn edit(tab: &mut Tab, id: i64, text: &str) {
    let room = tab.room();
    tab.sends(
        "Edit message",
        json!({ "message": id, "text": text, "room": room }),
    );
}

fn delete(tab: &mut Tab, id: i64) {
    let room = tab.room();
    tab.sends("Delete message", json!({ "message": id, "room": room }));
}

#[tokio::test]
async fn an_edit_is_seen_by_everybody_at_once_and_marked() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let mut plain = server.plain_tab().await;
    anna.says("frist").await;
    bob.says("second").await;
    let id = id_of(&anna, "frist");
    assert!(!edited(&anna, id));
    edit(&mut anna, id, "first");
    for tab in [&mut anna, &mut bob, &mut plain] {
        tab.sees_exactly(&["first", "second"]).await;
        assert!(edited(tab, id));
    }
    assert_eq!(anna.version(), bob.version());
    // The same edit again changes nothing.
    let version = anna.version();
    edit(&mut anna, id, "first");
    anna.hears_all().await;
    assert_eq!(anna.version(), version);
    let carl = server.tab().await;
    assert_eq!(carl.texts(), ["first", "second"]);
}

#[tokio::test]
async fn an_open_message_closes_when_it_is_deleted() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    let form = |tab: &Tab| tab.page.the("message-form").text();
    for text in ["regretted", "kept"] {
        anna.says(text).await;
    }
    let (regretted, kept) = (id_of(&anna, "regretted"), id_of(&anna, "kept"));
    for (tab, id, text) in [
        (&mut anna, kept, "kept"),
        (&mut bob, regretted, "regretted"),
        (&mut carl, regretted, "regretted"),
    ] {
        tab.sees("kept").await;
        let room = tab.room();
        tab.sends("Open message", json!({ "message": id, "room": room }));
        tab.until("the message", |tab| form(tab).contains(text))
            .await;
    }
    carl.loses_the_network();
    let mut dora = server.tab().await;
    delete(&mut anna, regretted);
    bob.until("nothing open", |tab| form(tab).is_empty()).await;
    carl.connects().await;
    carl.until("nothing open", |tab| form(tab).is_empty()).await;
    let line = format!("{} deleted a message.", anna.name());
    for tab in [&mut anna, &mut bob, &mut carl, &mut dora] {
        tab.sees_exactly(&[line.as_str(), "kept"]).await;
    }
}

#[tokio::test]
async fn a_deleted_message_leaves_a_quiet_line_and_its_text_is_pushed_to_nobody() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.says("a secret by mistake").await;
    bob.sees("a secret by mistake").await;
    bob.says("hm?").await;
    let id = id_of(&anna, "a secret by mistake");
    let mark = bob.pushes.len();
    for _ in 0..2 {
        delete(&mut anna, id);
        anna.hears_all().await;
    }
    let line = format!("{} deleted a message.", anna.name());
    for tab in [&mut anna, &mut bob] {
        tab.sees_exactly(&[&line, "hm?"]).await;
    }
    let carl = server.tab().await;
    assert_eq!(carl.texts(), [line.as_str(), "hm?"]);
    let pushed = bob.pushes[mark..].iter().chain(&carl.pushes);
    assert!(pushed.into_iter().all(|push| !push.html.contains("secret")));
    let page = server.get("/chat/hi/").await.body;
    assert!(page.contains("deleted a message") && !page.contains("secret"));
    // It stays deleted.
    let room = anna.room();
    let data = json!({ "message": id, "text": "again", "room": room });
    assert_eq!(
        anna.is_refused("Edit message", data).await,
        "This message was deleted."
    );
}

#[tokio::test]
async fn a_tab_that_was_away_catches_up_on_edits_and_deletions() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    for text in ["one", "two", "three"] {
        anna.says(text).await;
    }
    bob.sees_exactly(&["one", "two", "three"]).await;
    bob.loses_the_network();
    let (one, two) = (id_of(&anna, "one"), id_of(&anna, "two"));
    edit(&mut anna, one, "uno");
    delete(&mut anna, two);
    anna.says("four").await;
    let line = format!("{} deleted a message.", anna.name());
    anna.sees_exactly(&["uno", &line, "three", "four"]).await;
    let mark = bob.pushes.len();
    bob.reconnects().await;
    bob.sees_exactly(&["uno", &line, "three", "four"]).await;
    assert_eq!(bob.version(), anna.version());
    // It gets the changes, not the whole page.
    let whole = bob.pushes_to("messages-list", mark);
    assert!(
        whole
            .iter()
            .all(|push| push.swap.as_deref() == Some("append"))
    );
}

#[tokio::test]
async fn people_can_change_only_their_own_messages() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    anna.says("hers").await;
    let id = id_of(&anna, "hers");
    let (hi, nowhere) = (anna.room().unwrap(), "AAAAAAAAAAE".to_owned());
    anna.opens_private(&bob.name()).await;
    anna.says("between us").await;
    let private = anna.room().unwrap();
    let between = id_of(&anna, "between us");

    let check = async |tab: &mut Tab, message: i64, room: &str, expected: &str| {
        for action in ["Edit message", "Delete message"] {
            let data: Value = json!({ "message": message, "room": room, "text": "mine" });
            assert_eq!(tab.is_refused(action, data).await, expected, "{action}");
        }
    };
    check(&mut carl, id, &hi, "You can only change your own messages.").await;
    check(
        &mut bob,
        between,
        &private,
        "You can only change your own messages.",
    )
    .await;
    // For an outsider neither the room nor the message exists.
    for (message, room) in [
        (between, &private),
        (between, &hi),
        (id, &nowhere),
        (999, &hi),
    ] {
        check(&mut carl, message, room, "This message does not exist.").await;
    }
    carl.sees_exactly(&["hers"]).await;
    assert_eq!(anna.texts(), ["between us"]);

    // She gets her own message unchanged, for editing.
    let mark = anna.pushes.len();
    anna.sends(
        "Open message",
        json!({ "message": between, "room": private }),
    );
    anna.until("the form", |tab| {
        !tab.pushes_to("message-form", mark).is_empty()
    })
    .await;
    let form = anna.page.the("message-form");
    assert!(form.text().contains("between us"));
    for (text, expected) in [
        ("  ", "The message is empty."),
        (
            "x".repeat(4001).as_str(),
            "The message has 4001 characters. The limit is 4000.",
        ),
    ] {
        let data = json!({ "message": between, "text": text, "room": private });
        assert_eq!(anna.is_refused("Edit message", data).await, expected);
    }
    edit(&mut anna, between, "among us");
    anna.sees_exactly(&["among us"]).await;
    anna.until("no form", |tab| {
        tab.page.the("message-form").text().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_message_deleted_before_it_was_read_is_no_longer_unread() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let a = anna.name();
    anna.opens_private(&bob.name()).await;
    anna.says("one").await;
    anna.says("two").await;
    bob.until("two", |tab| tab.unread_from(&a) == 2).await;
    let one = id_of(&anna, "one");
    delete(&mut anna, one);
    bob.until("one", |tab| tab.unread_from(&a) == 1).await;
}
