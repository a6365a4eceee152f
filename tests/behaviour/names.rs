//! Display names: shown live, and held by one person at a time.

use serde_json::json;

use crate::support::{Server, Tab};

/// My display name, or nothing.
fn my_name(tab: &Tab) -> String {
    let place = tab.page.the("name-form");
    let name = place.all().find(|part| part.has_class("me__name"));
    name.map_or(String::new(), |name| name.text())
}

/// The name that a list shows for somebody.
fn listed(tab: &Tab, list: &str, user: &str) -> String {
    let list = tab.page.get(list).into_iter();
    let mut people = list.flat_map(|list| list.with("data-user").collect::<Vec<_>>());
    let person = people.find(|person| person.attribute("data-user") == Some(user));
    let name = person.and_then(|person| person.all().find(|part| part.has_class("nav__name")));
    name.map_or(String::new(), |name| name.text().trim().to_owned())
}

fn authors(tab: &Tab) -> Vec<String> {
    let messages = tab.messages().into_iter();
    messages.map(|message| message.author).collect()
}

async fn is_called(tab: &mut Tab, name: &str) {
    tab.sends("Change name", json!({ "name": name }));
    tab.until(name, |tab| my_name(tab) == name).await;
}

async fn is_refused(tab: &mut Tab, name: &str) -> String {
    tab.is_refused("Change name", json!({ "name": name })).await
}

#[tokio::test]
async fn a_display_name_shows_in_lists_headings_and_new_messages() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    let a = anna.name();
    anna.says("before").await;
    bob.opens_private(&a).await;
    bob.says("to anna").await;
    assert_eq!(bob.title(), a);
    carl.until("anna", |tab| listed(tab, "users-online", &a) == a)
        .await;

    is_called(&mut anna, "Änna <b> Lee").await;
    let named = format!("Änna <b> Lee {a}");
    for (tab, lists) in [
        (&mut bob, &["users-mine", "users-online"][..]),
        (&mut carl, &["users-online", "room-people"]),
        (&mut anna, &["room-people"]),
    ] {
        for list in lists {
            tab.until(list, |tab| listed(tab, list, &a) == named).await;
        }
    }
    bob.until("the heading", |tab| {
        tab.title().replace(char::is_whitespace, "") == named.replace(' ', "")
    })
    .await;
    // Bob stays in his room, and its address does not change.
    bob.reloads().await;
    assert!(bob.title().starts_with("Änna <b> Lee"), "{}", bob.title());
    bob.sees_exactly(&["to anna"]).await;

    anna.says("after").await;
    carl.sees_exactly(&["before", "after"]).await;
    assert_eq!(authors(&carl), [a.as_str(), &format!("Änna <b> Lee {a}")]);
    let shown = carl.page.the("messages-list");
    assert_eq!(
        shown
            .with("data-user")
            .filter_map(|one| one.attribute("data-user"))
            .collect::<Vec<_>>(),
        [a.as_str(), &a]
    );
    // Unfinished messages use the new name too.
    anna.sends("Typing", json!({}));
    carl.until("the typing", |tab| {
        tab.page.the("room-typing").text() == "Änna <b> Lee is typing"
    })
    .await;
    anna.enters_group("python").await;
    carl.until("the leaving", |tab| {
        let moves = tab.page.the("room-moves").text();
        moves.contains("Änna <b> Lee and ") && moves.ends_with("left")
    })
    .await;

    // And back again.
    anna.sends("Change name", json!({ "name": "  " }));
    anna.until("no name", |tab| my_name(tab).is_empty()).await;
    carl.until("the user name", |tab| listed(tab, "users-online", &a) == a)
        .await;
    anna.enters_group("hi").await;
    assert_eq!(authors(&anna), [a.as_str(), &format!("Änna <b> Lee {a}")]);
}

#[tokio::test]
async fn a_taken_or_confusable_name_is_refused_in_that_tab_only() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    is_called(&mut anna, "Paul Hill").await;
    let heard = anna.pushes.len();
    for name in [
        "Paul Hill",
        "paul hill",
        "PaulHill",
        "P\u{430}ul Hill", // Cyrillic
        "Pau1 Hi11",
        "𝐏𝐚𝐮𝐥 Hill",
        &a,
        &a.to_uppercase(),
        &a.replace('a', "\u{430}"),
    ] {
        let words = is_refused(&mut bob, name).await;
        let shown = name.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            words,
            format!("The name “{shown}” is taken, or is too similar to somebody else's name.")
        );
    }
    assert_eq!(my_name(&bob), "");
    anna.hears_all().await;
    assert!(
        anna.pushes[heard..]
            .iter()
            .all(|push| !push.html.contains("too similar"))
    );
    // People may change the spelling of their own name.
    is_called(&mut bob, &b.to_uppercase()).await;
    is_called(&mut anna, "PAUL HILL").await;
}

#[tokio::test]
async fn a_display_name_is_free_once_its_guest_has_left_and_otherwise_stays_theirs() {
    let mut server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let a = anna.name();
    is_called(&mut anna, "Lee").await;
    anna.reloads().await;
    assert_eq!(my_name(&anna), "Lee");
    server.restart().await;
    bob.loses_the_network();
    bob.reconnects().await;
    // People disconnected by the restart may still come back.
    is_refused(&mut bob, "Lee").await;
    anna.loses_the_network();
    anna.reconnects().await;
    assert_eq!(my_name(&anna), "Lee");
    is_refused(&mut bob, "Lee").await;

    anna.loses_the_network();
    server.has_noticed_leaving(std::slice::from_ref(&a)).await;
    is_called(&mut bob, "Lee").await;
    anna.reconnects().await;
    assert_eq!(my_name(&anna), "");
    is_refused(&mut anna, "Lee").await;
}

#[tokio::test]
async fn an_unreadable_name_is_refused_with_a_reason() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let long = "x".repeat(33);
    for (name, words) in [
        (&*long, "A name can have at most 32 characters."),
        (
            "\u{200b}",
            "A name cannot contain invisible characters such as “U+200B”.",
        ),
        (
            "An\u{202e}na",
            "A name cannot contain invisible characters such as “U+202E”.",
        ),
        (
            "Anna\u{7}",
            "A name cannot contain invisible characters such as “U+0007”.",
        ),
        (
            "\u{e000}",
            "A name cannot contain invisible characters such as “U+E000”.",
        ),
        (
            "Z\u{323}\u{324}\u{325}\u{326}\u{327}\u{328}",
            "The name has too many accents on one letter.",
        ),
    ] {
        assert_eq!(is_refused(&mut anna, name).await, words, "{name:?}");
    }
    assert_eq!(
        anna.is_refused("Change name", json!({ "name": 5 })).await,
        "“name” must be a string."
    );
    for name in ["x", "李明", "🦊 fox", &"é".repeat(32)] {
        is_called(&mut anna, name).await;
    }
}

#[tokio::test]
async fn no_field_lets_anybody_speak_in_another_name() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    let mut data = json!({ "message": "as somebody else" });
    for field in [
        "user",
        "userName",
        "user_name",
        "author",
        "author_name",
        "sender",
        "name",
        "displayName",
        "display_name",
        "from",
        "as",
    ] {
        data[field] = json!(b);
    }
    anna.sends("New message", data);
    for tab in [&mut anna, &mut bob] {
        tab.sees("as somebody else").await;
        assert_eq!(authors(tab), [a.as_str()]);
    }
}

#[tokio::test]
async fn a_private_message_by_command_goes_to_the_longest_matching_name() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    is_called(&mut bob, "Max").await;
    is_called(&mut carl, "Max  Frei: x".replace("  ", " ").as_str()).await;
    let (a, b, c) = (anna.name(), bob.name(), carl.name());
    for (text, to) in [
        ("/pm max hello".to_owned(), &b),
        ("/pm Max Frei hello".to_owned(), &b),
        ("/pm max frei:  x hello".to_owned(), &c),
        ("/pm @Max Frei: x: hello".to_owned(), &c),
        ("/pm \"Max\" Frei: x".to_owned(), &b),
        (format!("/pm {c} hello"), &c),
    ] {
        let key = anna.writes(&text);
        anna.is_settled(&key).await;
        anna.until(&text, |tab| tab.notice().ends_with(&format!("({to}).")))
            .await;
    }
    bob.opens_private(&a).await;
    bob.sees_exactly(&["hello", "Frei hello", "Frei: x"]).await;
    carl.opens_private(&a).await;
    carl.sees_exactly(&["hello", "hello", "hello"]).await;
    // They are found by that name too.
    anna.sends("Find people", json!({ "text": "mAx" }));
    anna.until("both", |tab| {
        let mut found = tab.people("users-found");
        found.sort();
        let mut both = vec![b.clone(), c.clone()];
        both.sort();
        found == both
    })
    .await;
}

#[tokio::test]
async fn the_lobby_accepts_a_name_and_a_group() {
    let server = Server::start().await;
    let mut anna = server.tab_at("/chat/").await;
    let refused = json!({ "groupName": "Chess", "displayName": "\u{202e}" });
    let words = anna.is_refused("New group", refused).await;
    assert!(words.contains("invisible"), "{words}");
    assert_eq!(server.count("rooms where name = 'Chess'"), 0);
    anna.sends(
        "New group",
        json!({ "groupName": "Chess", "displayName": "Anna" }),
    );
    anna.until("the group and the name", |tab| {
        tab.title() == "#Chess" && my_name(tab) == "Anna"
    })
    .await;
    // An empty field changes nothing, nor does the current name.
    for name in ["", "Anna"] {
        anna.sends(
            "New group",
            json!({ "groupName": "Go", "displayName": name }),
        );
        anna.until("the group", |tab| tab.title() == "#Go").await;
        anna.enters_group("hi").await;
    }
    assert_eq!(my_name(&anna), "Anna");
}

#[tokio::test]
async fn a_name_with_the_same_beginning_does_not_intercept_private_messages() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    for name in [
        format!("{b} hello"),
        format!("{} my", b.to_uppercase()),
        format!("@{b}"),
        format!("{b}:"),
        format!("@{b}::"),
        format!("{b}, hello"),
        format!("@{b} hello"),
    ] {
        let words = is_refused(&mut carl, &name).await;
        assert!(words.contains("too similar"), "{words}");
    }
    for to in [
        b.clone(),
        format!("@{b}"),
        format!("{b}:"),
        format!("@{b},"),
    ] {
        let key = anna.writes(&format!("/pm {to} hello my friend"));
        anna.is_settled(&key).await;
    }
    bob.opens_private(&a).await;
    bob.sees_exactly(&["hello my friend"; 4]).await;
    // One's own user name may be part of the new name.
    is_called(&mut bob, &format!("{b} the Great")).await;
}

#[tokio::test]
async fn capitals_of_other_scripts_are_confusable_too() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    is_called(&mut anna, "BOB").await;
    for name in [
        "\u{412}\u{41e}\u{412}",
        "\u{392}\u{39f}\u{392}",
        "bo\u{432}",
    ] {
        let words = is_refused(&mut bob, name).await;
        assert!(words.contains("too similar"), "{name}: {words}");
    }
}

#[tokio::test]
async fn a_heading_drops_a_name_that_somebody_else_takes() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    let a = anna.name();
    is_called(&mut anna, "Lee").await;
    let to = json!({ "groupName": a, "isGroup": false });
    bob.sends("Change group", to);
    bob.until("the name", |tab| tab.title().starts_with("Lee"))
        .await;
    anna.loses_the_network();
    server.has_noticed_leaving(std::slice::from_ref(&a)).await;
    is_called(&mut carl, "Lee").await;
    bob.until("the user name", |tab| tab.title() == a).await;
}

#[tokio::test]
async fn a_person_renamed_while_typing_is_shown_by_the_new_name() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    is_called(&mut anna, "Tim").await;
    anna.sends("Typing", json!({}));
    bob.until("Tim", |tab| {
        tab.page.the("room-typing").text() == "Tim is typing"
    })
    .await;
    is_called(&mut anna, "Tina").await;
    bob.until("Tina", |tab| {
        tab.page.the("room-typing").text() == "Tina is typing"
    })
    .await;
}

#[tokio::test]
async fn nobody_can_take_the_name_that_another_is_shown_by() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let a = anna.name();
    let refused = "is taken, or is too similar";
    anna.sends("Change name", json!({ "name": "Martina" }));
    anna.until("the name", |tab| {
        tab.page.the("name-form").text().contains("Martina")
    })
    .await;
    for name in [
        format!("Martina {a}"),
        format!("Martina ({a})"),
        format!("Martina({a})"),
        format!("Martina/{}", a.to_uppercase()),
        format!("the {a} fan"),
    ] {
        let words = bob.is_refused("Change name", json!({ "name": name })).await;
        assert!(words.contains(refused), "{name}: {words}");
    }
    // A refused name does not redirect a private message.
    bob.says(&format!("/pm Martina {a} for her alone")).await;
    anna.until("it", |tab| tab.unread_from(&bob.name()) == 1)
        .await;
}
