//! Reactions: counted for everybody, versioned, and my own shown only to me.

use serde_json::{Value, json};

use crate::support::{Device, Server, Tab};

/// The reactions that a tab shows: each with its count, and whether it is mine.
fn reactions(tab: &Tab) -> Vec<(String, bool)> {
    let list = tab.page.the("messages-list");
    let chips = list.all().filter(|part| {
        let id = part.id().unwrap_or_default();
        id.starts_with("reaction-")
    });
    chips
        .map(|chip| {
            let mine = format!("my-{}", chip.id().unwrap());
            (chip.text(), tab.page.get(&mine).is_some())
        })
        .collect()
}

fn shows(tab: &Tab, expected: &[(&str, bool)]) -> bool {
    let expected = expected
        .iter()
        .map(|(text, mine)| ((*text).to_owned(), *mine));
    reactions(tab) == expected.collect::<Vec<_>>()
}

async fn sees_reactions(tab: &mut Tab, expected: &[(&str, bool)]) {
    tab.until(&format!("{expected:?}"), |tab| shows(tab, expected))
        .await;
}

fn reaction(tab: &Tab, emoji: &str, on: bool) -> Value {
    let message = tab.messages()[0].id;
    json!({ "message": message, "emoji": emoji, "on": on, "room": tab.room() })
}

fn reacts(tab: &mut Tab, emoji: &str, on: bool) {
    let data = reaction(tab, emoji, on);
    tab.sends("React", data);
}

#[tokio::test]
async fn everybody_sees_the_count_and_only_i_see_that_i_reacted() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let mut plain = server.plain_tab().await;
    anna.says("lunch?").await;
    for tab in [&mut bob, &mut plain] {
        tab.sees("lunch?").await;
    }
    reacts(&mut bob, "👍", true);
    sees_reactions(&mut anna, &[("👍 1", false)]).await;
    sees_reactions(&mut bob, &[("👍 1", true)]).await;
    sees_reactions(&mut plain, &[("👍 1", false)]).await;
    reacts(&mut anna, ":tada:", true);
    // An action says what is wanted, so repeating it is harmless.
    for _ in 0..2 {
        reacts(&mut anna, "👍", true);
    }
    anna.hears_all().await;
    sees_reactions(&mut anna, &[("👍 2", true), ("🎉 1", true)]).await;
    sees_reactions(&mut bob, &[("👍 2", true), ("🎉 1", false)]).await;
    let chip = anna.page.the("messages-list").with("title").next().unwrap();
    let names = format!("{}, {}", bob.name(), anna.name());
    assert_eq!(chip.attribute("title"), Some(names.as_str()));
    assert_eq!(anna.version(), bob.version());
    reacts(&mut bob, "👍", false);
    sees_reactions(&mut bob, &[("👍 1", false), ("🎉 1", false)]).await;
    sees_reactions(&mut anna, &[("👍 1", true), ("🎉 1", true)]).await;
    // Only the person who reacted learns which reactions are theirs.
    let pushes = bob
        .pushes
        .iter()
        .filter(|push| push.place.starts_with("my-"));
    let ids: Vec<_> = pushes.map(|push| &push.html).collect();
    assert!(ids.iter().all(|html| !html.contains("1f389")), "{ids:?}");
}

#[tokio::test]
async fn a_returning_tab_sees_the_current_reactions() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.says("one").await;
    bob.sees("one").await;
    reacts(&mut bob, "👍", true);
    sees_reactions(&mut bob, &[("👍 1", true)]).await;
    bob.loses_the_network();
    reacts(&mut anna, "👍", true);
    sees_reactions(&mut anna, &[("👍 2", true)]).await;
    let mark = bob.pushes.len();
    bob.reconnects().await;
    sees_reactions(&mut bob, &[("👍 2", true)]).await;
    assert!(bob.pushes_to("messages-list", mark).is_empty(), "in place");
    bob.enters_group("python").await;
    assert_eq!(reactions(&bob), []);
    bob.enters_group("hi").await;
    sees_reactions(&mut bob, &[("👍 2", true)]).await;
    bob.reloads().await;
    sees_reactions(&mut bob, &[("👍 2", true)]).await;
    let mut carl = server.tab().await;
    sees_reactions(&mut carl, &[("👍 2", false)]).await;
}

#[tokio::test]
async fn older_messages_include_my_reactions() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.says("old").await;
    bob.sees("old").await;
    reacts(&mut bob, "👍", true);
    sees_reactions(&mut bob, &[("👍 1", true)]).await;
    for number in 0..60 {
        anna.says(&format!("{number}")).await;
    }
    bob.reloads().await;
    assert_eq!(reactions(&bob), []);
    bob.asks_for_older().await;
    sees_reactions(&mut bob, &[("👍 1", true)]).await;
}

#[tokio::test]
async fn opening_a_message_shows_who_reacted() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.says("news").await;
    bob.sees("news").await;
    reacts(&mut anna, "🎉", true);
    sees_reactions(&mut bob, &[("🎉 1", false)]).await;
    let (id, room) = (bob.messages()[0].id, bob.room());
    bob.sends("Open message", json!({ "message": id, "room": room }));
    let expected = format!("🎉 {}", anna.name());
    bob.until("who reacted", |tab| {
        tab.page.the("message-form").text().contains(&expected)
    })
    .await;
    // Somebody else's message cannot be edited.
    let form = bob.page.the("message-form");
    assert!(!form.all().any(|part| part.name == "textarea"));
    // The form closes once the reaction is accepted, not before.
    let with = |emoji: &str| json!({ "message": id, "emoji": emoji, "on": true, "room": room, "form": true });
    let words = "Enter an emoji, such as 🎉, or its name, such as :tada:.";
    for bad in ["", "tada", "👍👍", "<b>", ":nothing:", &"👍".repeat(99)] {
        assert_eq!(bob.is_refused("React", with(bad)).await, words, "{bad}");
    }
    assert!(!bob.page.the("message-form").text().is_empty());
    bob.sends("React", with(":thumbsup:"));
    bob.until("no form", |tab| {
        tab.page.the("message-form").text().is_empty()
    })
    .await;
    sees_reactions(&mut bob, &[("🎉 1", false), ("👍 1", true)]).await;
}

#[tokio::test]
async fn an_outsider_cannot_react_and_learns_nothing() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    anna.opens_private(&bob.name()).await;
    anna.says("between us").await;
    bob.opens_private(&anna.name()).await;
    let data = reaction(&anna, "👍", true);
    let words = "This message does not exist.";
    let mark = carl.pushes.len();
    assert_eq!(carl.is_refused("React", data.clone()).await, words);
    let mut here = data.clone();
    here["room"] = Value::Null;
    assert_eq!(carl.is_refused("React", here).await, words);
    assert_eq!(carl.is_refused("Open message", data).await, words);
    reacts(&mut bob, "👍", true);
    sees_reactions(&mut anna, &[("👍 1", false)]).await;
    sees_reactions(&mut bob, &[("👍 1", true)]).await;
    carl.hears_all().await;
    assert!(
        carl.pushes[mark..]
            .iter()
            .all(|push| !push.html.contains("👍"))
    );
    assert_eq!(server.count("reactions"), 1);
    for bad in [
        json!({}),
        json!({ "message": 1, "emoji": "👍" }),
        json!({ "message": 1, "emoji": 1, "on": true }),
        json!({ "message": 1, "emoji": "👍", "on": "yes" }),
        json!({ "message": 1, "emoji": "👍", "on": true, "form": 1 }),
        json!({ "message": "1", "emoji": "👍", "on": true }),
    ] {
        carl.is_refused("React", bad).await;
    }
    assert_eq!(server.count("reactions"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tabs_of_one_person_end_with_the_stored_reactions() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let (device, mut one) = Device::of_somebody(&server).await;
    let mut two = device.tab("/chat/hi/").await;
    one.says("one").await;
    two.sees("one").await;
    let data = |on: bool| reaction(&one, "👍", on);
    let (on, off) = (data(true), data(false));
    for _ in 0..40 {
        one.sends("React", on.clone());
        two.sends("React", off.clone());
        for tab in [&mut one, &mut two] {
            tab.hears_all().await;
        }
        let stored = server.count("reactions") == 1;
        for tab in [&mut one, &mut two] {
            let expected: &[(&str, bool)] = if stored { &[("👍 1", true)] } else { &[] };
            let is_mine = |tab: &Tab| {
                let mark = tab.page.get("my-reactions").unwrap();
                mark.elements().next().is_some()
            };
            tab.until(&format!("{expected:?}"), |tab| {
                shows(tab, expected) && is_mine(tab) == stored
            })
            .await;
        }
    }
}
