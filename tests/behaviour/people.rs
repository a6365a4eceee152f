//! The sidebar: people online, live; my conversations first, with unread marks; everybody else by
//! search.

use serde_json::json;

use crate::support::tab::all;
use crate::support::{Server, Tab};

/// Searches for people. Returns the names found.
async fn finds(tab: &mut Tab, text: &str) -> Vec<String> {
    let mark = tab.pushes.len();
    tab.sends("Find people", json!({ "text": text }));
    tab.until("an answer", |tab| {
        !tab.pushes_to("users-found", mark).is_empty()
    })
    .await;
    tab.people("users-found")
}

#[tokio::test]
async fn everybody_sees_who_joins_and_leaves() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let alone = |tab: &Tab| tab.page.get("users-alone").is_some();
    anna.until("to be alone", alone).await;
    let hint = anna.page.the("users-alone").text();
    assert!(hint.contains("second tab"), "{hint}");

    let bob = server.tab().await;
    let both = [anna.name(), bob.name()];
    anna.until("bob", |tab| tab.people("users-online") == both)
        .await;
    assert!(!alone(&anna));
    let mut carol = server.tab().await;
    let three = [anna.name(), bob.name(), carol.name()];
    carol
        .until("those who are here, longest first", |tab| {
            tab.people("users-online") == three
        })
        .await;
    anna.until("carol", |tab| tab.people("users-online") == three)
        .await;

    bob.closes().await;
    let two = [anna.name(), carol.name()];
    anna.until("bob to be gone", |tab| tab.people("users-online") == two)
        .await;
    carol.loses_the_network();
    anna.until("to be alone again", alone).await;
}

#[tokio::test]
async fn a_reload_is_not_a_leave() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let both = [anna.name(), bob.name()];
    anna.until("bob", |tab| tab.people("users-online") == both)
        .await;
    let mark = anna.pushes.len();
    bob.reloads().await;
    // The next join shows what the list said about bob in between.
    let carol = server.tab().await;
    let three = [anna.name(), bob.name(), carol.name()];
    anna.until("carol", |tab| tab.people("users-online") == three)
        .await;
    let between = anna.pushes_to("users-online", mark);
    assert!(between.iter().all(|push| push.html.contains(&both[1])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_people_online_is_bounded() {
    let server = Server::start().await;
    let door = server.door;
    let mut tabs = all((0..40).map(|_| door.tab())).await;
    let more = |tab: &Tab| tab.page.get("users-more").map(|more| more.text());
    for tab in &mut tabs {
        tab.until("25 of 40", |tab| {
            let words = more(tab).unwrap_or_default();
            tab.people("users-online").len() == 25 && words.starts_with("40 people are online")
        })
        .await;
    }
    let list = |tab: &Tab| {
        tab.pushes_to("users-online", 0)
            .last()
            .unwrap()
            .frame
            .clone()
    };
    let first = list(&tabs[0]);
    assert!(
        tabs.iter().all(|tab| list(tab) == first),
        "rendered once for everybody"
    );
    for tab in &tabs {
        let pushed = tab.pushes_to("users-online", 0).len();
        assert!(pushed < 10, "{pushed} times for 40 who came at once");
    }
}

#[tokio::test]
async fn people_i_have_talked_with_stay_listed_unread_first() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let me = anna.name();
    let mut others = Vec::new();
    for text in ["one", "two", "three"] {
        let mut other = server.tab().await;
        other.opens_private(&me).await;
        other.says(text).await;
        others.push(other);
    }
    let [bob, carol, dora] = [0, 1, 2].map(|number: usize| others[number].name());
    anna.until("the newest first", |tab| {
        tab.people("users-mine") == [&dora, &carol, &bob].map(Clone::clone)
    })
    .await;

    anna.opens_private(&dora).await;
    let last = anna.messages()[0].id;
    anna.sends("Read", json!({ "message": last, "room": anna.room() }));
    anna.until("dora behind those with something unread", |tab| {
        tab.people("users-mine") == [&carol, &bob, &dora].map(Clone::clone)
    })
    .await;
    assert_eq!(anna.unread_from(&dora), 0);
    assert_eq!(anna.unread_from(&bob), 1);
    anna.until("bob to be here", |tab| tab.is_here(&bob)).await;
    others.remove(0).closes().await;
    anna.until("bob to be gone, but listed", |tab| {
        !tab.is_here(&bob) && tab.people("users-mine").contains(&bob)
    })
    .await;
    assert!(anna.is_here(&carol));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_twenty_five_conversations_are_listed() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let door = server.door;
    let mut anna = server.tab().await;
    let me = anna.name();
    let writing = (0..30).map(|_| async {
        let mut tab = door.tab().await;
        tab.opens_private(&me).await;
        tab.says("hello").await;
        tab
    });
    let _tabs = all(writing).await;
    anna.until("25 of 30", |tab| tab.people("users-mine").len() == 25)
        .await;
    let mut carol = server.tab().await;
    anna.opens_private(&carol.name()).await;
    anna.says("a new conversation").await;
    anna.hears_all().await;
    carol.until("anna", |tab| tab.unread_from(&me) == 1).await;
}

#[tokio::test]
async fn people_who_have_been_here_are_found_by_the_first_letters_of_their_names() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let bob = server.tab().await;
    let name = bob.name();
    let him = [name.clone()];
    assert_eq!(finds(&mut anna, &name).await, him);
    assert_eq!(finds(&mut anna, &name[..2]).await, him);
    let shouted = format!(" @{} ", name.to_uppercase());
    assert_eq!(finds(&mut anna, &shouted).await, him);
    bob.closes().await;
    server.has_noticed_leaving(&[&name]).await;
    assert_eq!(finds(&mut anna, &name).await, him, "away");
    assert_eq!(finds(&mut anna, "").await, [""; 0]);
    assert_eq!(anna.page.the("users-found").text().trim(), "");
    let me = anna.name();
    assert_eq!(finds(&mut anna, &me).await, [""; 0], "not myself");
    anna.opens_private(&name).await;
}

#[tokio::test]
async fn unused_fake_users_are_not_found_and_search_text_is_inert() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let mut found = Vec::new();
    for letter in 'a'..='z' {
        found.extend(finds(&mut anna, &letter.to_string()).await);
    }
    assert_eq!(found, [""; 0], "30 are seeded, nobody else has been here");
    for text in [
        "<script>alert(1)</script>",
        "%",
        "_",
        "' or 1=1 --",
        "\u{10ffff}",
        "*",
    ] {
        assert_eq!(finds(&mut anna, text).await, [""; 0]);
        let words = anna.page.the("users-found");
        assert_eq!(
            words.text().trim(),
            format!("There is nobody else named “{text}”.")
        );
        assert!(words.all().all(|part| part.name != "script"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_shows_twenty_five_people_and_says_if_there_are_more() {
    let server = Server::with(|setup| setup.users = 0).await;
    for number in 0..27 {
        let name = format!("zoe{number:02}");
        server.change(&format!(
            "insert into users (name, email, arrived_at, traced_at, free, shuffle)
             values ('{name}', '{name}@example.com', 1, 1, 0 = 1, {number})"
        ));
    }
    let mut anna = server.tab().await;
    let expected: Vec<_> = (0..25).map(|number| format!("zoe{number:02}")).collect();
    assert_eq!(finds(&mut anna, "zoe").await, expected);
    assert!(
        anna.page
            .the("users-found")
            .text()
            .contains("There are more.")
    );
    assert_eq!(finds(&mut anna, "zoe26").await, ["zoe26"]);
    assert!(
        !anna
            .page
            .the("users-found")
            .text()
            .contains("There are more.")
    );
}

#[tokio::test]
async fn the_switcher_offers_my_rooms_or_those_whose_names_begin_with_a_text_but_never_myself() {
    let server = Server::start().await;
    let [anna, mut bob] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    bob.opens_private(&a).await;
    bob.says("hello").await;
    let offers = |tab: &Tab, name: &str| {
        let offered = tab.page.the("rooms-found").all();
        let mut names = offered.filter_map(|part| part.attribute("data-group-name"));
        names.any(|offered| offered == name)
    };
    bob.sends("Find rooms", json!({ "text": "" }));
    bob.until("my rooms", |tab| offers(tab, &a) && offers(tab, "python"))
        .await;
    assert!(!offers(&bob, &b));
    bob.sends("Find rooms", json!({ "text": format!("@{a}") }));
    bob.until("her alone", |tab| offers(tab, &a) && !offers(tab, "python"))
        .await;
    bob.sends("Find rooms", json!({ "text": b }));
    bob.until("nobody", |tab| !offers(tab, &a)).await;
    assert!(!offers(&bob, &b));
}
