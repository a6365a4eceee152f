//! Who is in a group: listed live, with joins and leaves as quiet lines. None of it is stored.

use crate::support::tab::all;
use crate::support::{Server, Tab};

fn count(tab: &Tab) -> String {
    tab.page.the("room-count").text().trim().to_owned()
}

fn moves(tab: &Tab) -> String {
    tab.page.the("room-moves").text()
}

#[tokio::test]
async fn the_people_in_a_group_are_listed_live() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let mut carl = server.tab_at("/chat/python/").await;
    let mut bob = server.tab().await;
    let (a, b, c) = (anna.name(), bob.name(), carl.name());
    for tab in [&mut anna, &mut bob] {
        tab.until("both, longest first", |tab| {
            tab.people("room-people") == [a.as_str(), &b] && count(tab) == "2"
        })
        .await;
    }
    carl.until("to be alone there", |tab| {
        tab.people("room-people") == [c.as_str()] && count(tab) == "1"
    })
    .await;

    bob.enters_group("python").await;
    for tab in [&mut carl, &mut bob] {
        tab.until("bob after carl", |tab| {
            tab.people("room-people") == [c.as_str(), &b]
        })
        .await;
    }
    anna.until("bob to be elsewhere", |tab| {
        tab.people("room-people") == [a.as_str()] && count(tab) == "1"
    })
    .await;

    // A person leaves with their last tab.
    bob.closes().await;
    carl.until("bob to be gone", |tab| {
        tab.people("room-people") == [c.as_str()]
    })
    .await;
}

#[tokio::test]
async fn joins_and_leaves_are_quiet_lines_that_are_not_stored() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.says("first").await;
    let version = anna.version();
    let bob = server.tab().await;
    let b = bob.name();
    anna.until("bob to come", |tab| moves(tab).contains(&b))
        .await;
    assert!(moves(&anna).contains("joined"), "{}", moves(&anna));
    bob.closes().await;
    anna.until("bob to go", |tab| moves(tab).contains(&format!("{b} left")))
        .await;
    assert_eq!(anna.version(), version);
    assert_eq!(anna.texts(), ["first"]);
    assert_eq!(server.count("messages"), 1);
    // Whoever enters later sees the same list.
    let carl = server.tab().await;
    assert_eq!(carl.texts(), ["first"]);
}

#[tokio::test]
async fn a_reload_is_neither_a_join_nor_a_leave() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let b = bob.name();
    anna.until("bob", |tab| moves(tab).contains(&b)).await;
    bob.reloads().await;
    bob.loses_the_network();
    bob.reconnects().await;
    // Once a later leave is shown, a leave of bob's would have been shown too.
    let carl = server.tab().await;
    let c = carl.name();
    carl.closes().await;
    anna.until("carl to go", |tab| {
        moves(tab).contains(&format!("{c} left"))
    })
    .await;
    let lines = anna.pushes_to("room-moves", 0);
    assert!(
        lines
            .iter()
            .all(|push| !push.html.contains(&format!("{b} left")))
    );
    assert_eq!(anna.people("room-people"), [anna.name(), b]);
}

#[tokio::test]
async fn presence_in_a_private_room_is_shown_to_nobody() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    anna.opens_private(&b).await;
    anna.until("nobody to be listed", |tab| {
        tab.people("room-people").is_empty() && count(tab).is_empty()
    })
    .await;
    let mark = anna.pushes.len();
    bob.opens_private(&a).await;
    bob.says("hello").await;
    anna.sees("hello").await;
    bob.enters_group("python").await;
    let carl = server.tab_at("/chat/python/").await;
    bob.until("carl", |tab| tab.people("room-people").len() == 2)
        .await;
    anna.enters_group("python").await;
    anna.until("all", |tab| tab.people("room-people").len() == 3)
        .await;
    let private = anna.pushes.iter().skip(mark);
    let here = private.take_while(|push| push.place != "group-name");
    for push in here.filter(|push| push.place.starts_with("room-")) {
        assert!(!push.html.contains(&b), "{}", push.html);
    }
    drop(carl);
}

#[tokio::test]
async fn after_a_crash_there_are_no_ghosts_and_no_false_joins() {
    let mut server = Server::start().await;
    let [mut anna, bob] = server.tabs().await;
    anna.until("bob", |tab| tab.people("room-people").len() == 2)
        .await;
    server.restart().await;
    drop(bob);
    anna.loses_the_network();
    let mark = anna.pushes.len();
    anna.reconnects().await;
    let mut carl = server.tab().await;
    let both = [anna.name(), carl.name()];
    for tab in [&mut anna, &mut carl] {
        tab.until("only those who are here", |tab| {
            tab.people("room-people") == both && moves(tab).contains(&both[1])
        })
        .await;
    }
    let lines = anna.pushes_to("room-moves", mark);
    assert!(
        lines.iter().all(|push| !push.html.contains(&both[0])),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_a_full_room_is_bounded_and_many_joins_are_one_line() {
    let server = Server::start().await;
    let door = server.door;
    let mut tabs = all((0..60).map(|_| door.tab())).await;
    for tab in &mut tabs {
        tab.until("60 of whom 50 are listed", |tab| {
            tab.people("room-people").len() == 50 && count(tab) == "60"
        })
        .await;
    }
    let list = |tab: &Tab| tab.people("room-people");
    let first = list(&tabs[0]);
    assert!(tabs.iter().all(|tab| list(tab) == first));
    tabs[0]
        .until("one line", |tab| moves(tab).ends_with("others joined"))
        .await;
    let lines = moves(&tabs[0]);
    assert!(lines.len() < 200, "{lines}");
}
