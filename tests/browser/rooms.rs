//! Groups and their addresses: links, history, drafts.

use thirtyfour::prelude::Key;

use crate::browser::story;
use crate::server::Server;
use crate::wire::Wire;

#[tokio::test]
async fn a_group_is_entered_by_a_click_and_history_does_what_it_does() {
    let server = Server::start(&["--unlimited"]);
    let mut carl = Wire::connect(&server, "/chat/python/").await;
    carl.says((1..=60).map(|number| format!("number {number}")))
        .await;
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.says("said in hi").await;
        anna.enters("python").await;
        let newest: Vec<_> = (11..=60).map(|number| format!("number {number}")).collect();
        assert_eq!(anna.texts().await, newest);
        assert_eq!(
            anna.get::<String>("document.title").await,
            "#python · Overwire"
        );
        assert_eq!(anna.text("[aria-current=page]").await, "#python");
        assert_eq!(
            anna.get::<String>("document.activeElement.id").await,
            "message-text"
        );
        anna.enters("events").await;
        assert!(anna.texts().await.is_empty());
        assert!(
            anna.shows(".older__start").await,
            "an empty room says that it begins here"
        );

        anna.back().await;
        anna.is_in("#python", "/chat/python/").await;
        anna.hears("number 60").await;
        anna.back().await;
        anna.is_in("#hi", "/chat/hi/").await;
        anna.hears("said in hi").await;
        anna.forward().await;
        anna.is_in("#python", "/chat/python/").await;
        anna.forward().await;
        anna.is_in("#events", "/chat/events/").await;
        anna.back().await;
        anna.is_in("#python", "/chat/python/").await;
        let name = anna.name().await;
        anna.reload().await;
        anna.is_in("#python", "/chat/python/").await;
        assert_eq!(anna.name().await, name);
        anna.forward().await;
        anna.is_in("#events", "/chat/events/").await;
        anna.says("after forward").await;
    })
    .await;
    assert_eq!(server.stored("after forward"), 1);
}

#[tokio::test]
async fn a_link_opens_in_a_new_tab_and_a_pasted_one_leads_where_it_says() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.click_with(Key::Control, "#group-python a").await;
        let bob = browser.opened_beside(&[&anna]).await;
        bob.is_in("#python", "/chat/python/").await;
        anna.is_in("#hi", "/chat/hi/").await;
        assert_ne!(bob.name().await, anna.name().await);
        let carl = browser.person(&server.url("/chat/off-topic/")).await;
        carl.is_in("#off-topic", "/chat/off-topic/").await;
        let name = carl.name().await;
        carl.goto(&server.url("/chat/events/")).await;
        carl.is_in("#events", "/chat/events/").await;
        assert_eq!(carl.name().await, name, "the same tab is the same person");
    })
    .await;
}

#[tokio::test]
async fn of_many_clicks_only_the_last_counts() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let before: u32 = anna.get("history.length").await;
        anna.run(
            "for (const name of ['python', 'hi', 'events', 'hi', 'off-topic'])
               document.querySelector(`#group-${name} a`).click()",
        )
        .await;
        anna.is_in("#off-topic", "/chat/off-topic/").await;
        anna.says("here I am").await;
        anna.is_in("#off-topic", "/chat/off-topic/").await;
        assert_eq!(anna.get::<u32>("history.length").await, before + 1);
        anna.back().await;
        anna.is_in("#hi", "/chat/hi/").await;
    })
    .await;
}

#[tokio::test]
async fn each_room_keeps_its_draft() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.writes("for hi").await;
        anna.enters("python").await;
        assert_eq!(anna.written().await, "");
        anna.writes("for\npython").await;
        anna.enters("hi").await;
        assert_eq!(anna.written().await, "for hi");
        anna.back().await;
        anna.is_in("#python", "/chat/python/").await;
        assert_eq!(anna.written().await, "for\npython");
        anna.reload().await;
        anna.is_in("#python", "/chat/python/").await;
        assert_eq!(anna.written().await, "for\npython");
        anna.presses(Key::End).await;
        anna.sends("!").await;
        anna.hears("for\npython!").await;
        anna.enters("hi").await;
        assert_eq!(anna.written().await, "for hi");
        anna.enters("python").await;
        assert_eq!(anna.written().await, "", "what was sent is no draft");
        assert_eq!(anna.texts().await, ["for\npython!"]);
    })
    .await;
}
