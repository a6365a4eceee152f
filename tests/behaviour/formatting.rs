//! The text of a message as it is shown: what is formatted, and what is a link to a person, a group or another
//! message. `src/text.rs` tests the formatting itself.

use serde_json::json;

use crate::support::page::Element;
use crate::support::{Server, Tab};

/// The text of the message that a tab shows last.
fn last(tab: &Tab) -> &Element {
    let list = tab.page.the("messages-list");
    let texts = list.elements().filter_map(Element::said);
    texts.last().expect("a message")
}

fn shown(tab: &Tab) -> Vec<(String, String)> {
    let parts = last(tab).all().skip(1);
    parts.map(|part| (part.name.clone(), part.text())).collect()
}

/// The links in the last message: the address and the text.
fn links(tab: &Tab) -> Vec<(String, String)> {
    let links = last(tab).with("href");
    let link = |link: &Element| (link.attribute("href").unwrap().to_owned(), link.text());
    links.map(link).collect()
}

fn link(href: impl Into<String>, text: impl Into<String>) -> (String, String) {
    (href.into(), text.into())
}

#[tokio::test]
async fn a_formatted_text_looks_the_same_on_every_road() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    let mut plain = server.plain_tab().await;
    carl.loses_the_network();
    let text = "**hello** `you`\n\n- one\n- two\n\n```rust\nlet *a* = 1;\n```";
    anna.writes(text);
    let all = "hello youonetwolet *a* = 1;";
    for tab in [&mut anna, &mut bob] {
        tab.sees(all).await;
    }
    carl.reconnects().await;
    carl.sees(all).await;
    let dora = server.tab().await;
    let expected = [
        ("strong", "hello"),
        ("code", "you"),
        ("ul", "onetwo"),
        ("li", "one"),
        ("li", "two"),
        ("pre", "let *a* = 1;"),
        ("button", ""),
        ("code", "let *a* = 1;"),
        ("span", "let"),
        ("span", "1"),
    ];
    let mut expected = expected
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .to_vec();
    for tab in [&anna, &bob, &carl, &dora] {
        assert_eq!(shown(tab), expected);
        assert_eq!(last(tab).name, "div");
    }
    plain.until("the message", |tab| tab.texts() == [all]).await;
    // A plain client could not copy anything.
    expected.retain(|(name, _)| name != "button");
    assert_eq!(shown(&plain), expected);
    let id = anna.messages()[0].id;
    let room = anna.room();
    anna.sends(
        "Edit message",
        json!({ "message": id, "text": "*a*\nb\n\n\n", "room": room }),
    );
    for tab in [&mut anna, &mut bob, &mut carl] {
        tab.sees_exactly(&["a\nb"]).await;
        assert_eq!(shown(tab), [("em".to_owned(), "a".to_owned())]);
        assert_eq!(last(tab).name, "p");
    }
    plain.until("the edit", |tab| tab.texts() == ["ab"]).await;
    assert!(shown(&plain).contains(&("br".to_owned(), String::new())));
}

#[tokio::test]
async fn names_of_people_and_groups_are_links() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let carl = server.tab().await;
    let name = carl.name();
    let private = format!("/chat/@{name}/");
    anna.writes(&format!(
        "@{name}, look in #Python: `@{name}` @nobody #nothing me@{name}"
    ));
    bob.until("a message", |tab| !tab.texts().is_empty()).await;
    let expected = [
        link(&private, format!("@{name}")),
        link("/chat/python/", "#Python"),
    ];
    assert_eq!(links(&bob), expected);
    let users = last(&bob)
        .with("data-user")
        .map(|link| link.attribute("data-user"));
    assert!(users.eq([Some(&*name)]));

    // The link follows a person who is renamed; the text stays.
    bob.sends("Change name", json!({ "name": "Bob Lee" }));
    bob.hears_all().await;
    anna.says("hi @bob lee!").await;
    bob.sends("Change name", json!({ "name": "Robert" }));
    bob.hears_all().await;
    let dora = server.tab().await;
    let private = format!("/chat/@{}/", bob.name());
    for tab in [&anna, &dora] {
        assert_eq!(links(tab), [link(&private, "@bob lee")]);
    }
    anna.says("and @bob lee?").await;
    assert_eq!(links(&anna), []);
}

#[tokio::test]
async fn the_address_of_a_message_shows_its_group_and_author_to_those_who_may_read_it() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let mut carl = server.tab().await;
    let origin = format!("http://{}", server.door.0);
    anna.enters_group("python").await;
    anna.says("in a group").await;
    let public = format!("/chat/python/?at={}", anna.messages()[0].id);
    anna.opens_private(&bob.name()).await;
    anna.says("in private").await;
    let secret = anna.messages()[0].id;
    let private = format!("{origin}/chat/@{}/?at={secret}", bob.name());

    bob.says(&format!("see {origin}{public}")).await;
    let by_anna = link(&public, format!("#python · {}", anna.name()));
    for tab in [&mut bob, &mut carl] {
        tab.until("the message", |tab| !tab.texts().is_empty())
            .await;
        assert_eq!(links(tab), std::slice::from_ref(&by_anna));
    }
    // To a stranger, a private room does not exist: its address stays an address.
    anna.enters_group("hi").await;
    anna.says(&private).await;
    carl.sees(&private).await;
    assert_eq!(links(&carl), [link(&private, &private)]);
    // Nobody learns about a room of others by naming its messages.
    carl.says(&format!("{origin}/chat/@{}/?at={secret}", anna.name()))
        .await;
    assert!(links(&carl)[0].1.starts_with("http"));
    // In the private room itself it is a link for both.
    bob.opens_private(&anna.name()).await;
    bob.says(&private).await;
    assert_eq!(links(&bob), [link(format!("?at={secret}"), anna.name())]);
}
