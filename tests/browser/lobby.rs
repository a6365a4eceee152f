//! The lobby: all groups, and how to enter them.

use thirtyfour::Key;

use crate::browser::story;
use crate::server::Server;

#[tokio::test]
async fn a_long_lobby_starts_at_its_top() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.window().await;
        anna.sized(360, 400).await;
        anna.goto(&server.url("/chat/")).await;
        anna.is_somebody().await;
        let box_of = "document.querySelector('#groups-search').getBoundingClientRect()";
        let top: f64 = anna.get(&format!("{box_of}.top")).await;
        assert!((0.0..200.0).contains(&top), "{top}");
        // All of it can be scrolled to.
        anna.click("#groups-search").await;
        anna.types("Chess").await;
        anna.click("#lobby-found [data-action='New group']").await;
        anna.is_in("#Chess", "/chat/Chess/").await;
    })
    .await;
}

#[tokio::test]
async fn all_groups_are_one_click_away_and_back_returns_to_the_lobby() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let a = anna.name().await;
        anna.says("hello").await;
        anna.writes("a draft").await;
        anna.click("[popovertarget=add-group]").await;
        anna.types("Quick one").await;
        anna.presses(Key::Enter).await;
        anna.is_in("#Quick one", "/chat/Quick%20one/").await;

        // Others see it in the lobby, live.
        bob.click(".nav__all").await;
        bob.is_in_the_lobby().await;
        bob.is_somebody().await;
        let quick = "#lobby-rooms [data-group-name='Quick one']";
        bob.sees(&format!("{quick} .here-count")).await;
        assert!(
            !bob.shows("#message-text").await,
            "there is nothing to write"
        );
        bob.click("#groups-search").await;
        bob.types("off").await;
        bob.sees("#lobby-found [data-group-name=off-topic]").await;
        assert!(!bob.shows(quick).await, "only what was found");
        bob.run("document.querySelector('#groups-search').select()")
            .await;
        bob.presses(Key::Delete).await;
        bob.click(quick).await;
        bob.is_in("#Quick one", "/chat/Quick%20one/").await;
        bob.sees_no("#lobby-rooms").await;
        bob.says("found you").await;
        anna.hears("found you").await;

        bob.back().await;
        bob.until("location.pathname === '/chat/'").await;
        bob.sees("#lobby-rooms").await;
        bob.is_somebody().await;
        bob.click("#groups-search").await;
        bob.types("quick ONE").await;
        bob.sees("#lobby-found [data-group-name='Quick one']").await;
        assert!(!bob.shows("#lobby-found [data-action]").await, "it exists");
        bob.click("#lobby-found [data-group-name='Quick one']")
            .await;
        bob.is_in("#Quick one", "/chat/Quick%20one/").await;
        assert_eq!(bob.texts().await, ["found you"]);

        anna.enters("hi").await;
        assert_eq!(anna.written().await, "a draft");
        assert_eq!(anna.name().await, a);
    })
    .await;
}
