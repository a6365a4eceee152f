//! Keys: jumping to rooms, moving through rooms and messages.

use thirtyfour::Key;

use crate::browser::story;
use crate::server::Server;

#[tokio::test]
async fn the_switcher_leads_to_groups_and_people() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let b = bob.name().await;
        bob.says("I was here").await;
        anna.presses_with(Key::Control, 'k').await;
        anna.sees("#rooms-found [aria-selected=true]").await;
        assert!(anna.shows("#rooms-found [data-group-name=hi]").await);
        anna.types("pyt").await;
        anna.until("document.querySelectorAll('#rooms-found [role=option]').length === 1")
            .await;
        anna.presses(Key::Enter).await;
        anna.is_in("#python", "/chat/python/").await;
        anna.sees_no("#switcher").await;

        anna.presses_with(Key::Control, 'k').await;
        anna.types(&b).await;
        anna.sees(&format!(
            "#rooms-found [data-group-name='{b}'][aria-selected=true]"
        ))
        .await;
        let active =
            "document.querySelector('#switcher-text').getAttribute('aria-activedescendant')";
        assert_eq!(anna.get::<String>(active).await, format!("jump-{b}"));
        anna.presses(Key::Enter).await;
        anna.is_in(&b, &format!("/chat/@{b}/")).await;

        // The arrow keys move through what was found, Escape leaves everything as it was.
        anna.presses_with(Key::Control, 'k').await;
        anna.sees("#rooms-found [data-group-name=hi]").await;
        let first: String = anna.get(active).await;
        anna.presses(Key::Down).await;
        assert_ne!(anna.get::<String>(active).await, first);
        anna.presses(Key::Up).await;
        assert_eq!(anna.get::<String>(active).await, first);
        anna.presses(Key::Escape).await;
        anna.sees_no("#switcher").await;
        anna.is_in(&b, &format!("/chat/@{b}/")).await;
    })
    .await;
}

#[tokio::test]
async fn the_switcher_offers_unread_rooms_first() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/chat/events/")).await;
        let bob = browser.person(&server.url("/chat/events/")).await;
        let b = bob.name().await;
        anna.enters("hi").await;
        bob.says("news").await;
        anna.sees("#groups-list [data-news] > [data-group-name=events]")
            .await;
        bob.meets(&anna.name().await).await;
        bob.says("psst").await;
        anna.sees("#users-mine [data-unread]").await;
        let offers = "[...document.querySelectorAll('#rooms-found [role=option]')]\
            .map(({ dataset }) => dataset.groupName)";
        anna.presses_with(Key::Control, 'k').await;
        anna.sees("#rooms-found .badge").await;
        let offered: Vec<String> = anna.get(offers).await;
        assert_eq!(offered[..3], ["events", &b, "hi"]);
        assert!(
            anna.shows("#rooms-found [aria-selected=true][data-group-name=events] .news")
                .await
        );
        assert!(!anna.shows("#rooms-found [data-group-name=hi] .news").await);
        // The marks stay with what is typed.
        anna.types(&b).await;
        anna.until(&format!("{offers}.length === 1")).await;
        anna.sees(&format!("#rooms-found [data-group-name='{b}'] .badge"))
            .await;
    })
    .await;
}

#[tokio::test]
async fn alt_and_an_arrow_change_the_room() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        anna.presses_with(Key::Alt, Key::Down).await;
        anna.is_in("#python", "/chat/python/").await;
        anna.presses_with(Key::Alt, Key::Up).await;
        anna.is_in("#hi", "/chat/hi/").await;
        bob.meets(&anna.name().await).await;
        bob.says("psst").await;
        anna.sees("#users-mine [data-unread]").await;
        anna.run(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', \
             { key: 'ArrowDown', altKey: true, shiftKey: true, bubbles: true }))",
        )
        .await;
        let b = bob.name().await;
        anna.is_in(&b, &format!("/chat/@{b}/")).await;
    })
    .await;
}

#[tokio::test]
async fn arrows_move_through_the_messages_and_keys_act_on_them() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        anna.says("mine").await;
        bob.says("his").await;
        anna.hears("his").await;
        let focused =
            "document.activeElement.closest('.message')?.querySelector('.message > p').textContent";
        let focused =
            async |tab: &crate::browser::Tab<'_>| tab.get::<Option<String>>(focused).await;
        anna.run("document.querySelector('#scroller').focus()")
            .await;
        anna.presses(Key::Up).await;
        assert_eq!(focused(&anna).await.as_deref(), Some("his"));
        assert!(anna.shows(".message:focus .quick").await);
        // A push does not take the focus away.
        bob.run("document.querySelector('.message:last-child .change').click()")
            .await;
        bob.click("#message-form .chip").await;
        anna.sees(".reactions .chip").await;
        assert_eq!(focused(&anna).await.as_deref(), Some("his"));
        anna.presses(Key::Up).await;
        assert_eq!(focused(&anna).await.as_deref(), Some("mine"));
        anna.types("e").await;
        anna.until("document.activeElement.matches('#message-form textarea')")
            .await;
        // It holds what editing needs, and the message has a mark.
        anna.sees(".message[data-mine][data-open]").await;
        assert!(!anna.shows("#message-form .edit__react").await);
        assert!(!anna.shows("#message-form .edit__more").await);
        anna.presses(Key::Escape).await;
        anna.sees_no("#message-form > *").await;
        anna.sees_no("[data-open]").await;
        // It leads back to the message.
        assert_eq!(focused(&anna).await.as_deref(), Some("mine"));
        anna.types("+").await;
        anna.until("document.activeElement.matches('#message-form input')")
            .await;
        assert!(anna.shows("#message-form .edit__more").await);
        anna.presses(Key::Escape).await;
        assert_eq!(focused(&anna).await.as_deref(), Some("mine"));
        anna.presses(Key::Escape).await;
        anna.until("document.activeElement.id === 'message-text'")
            .await;
        anna.run("document.querySelector('#scroller').focus()")
            .await;
        anna.types("?").await;
        anna.sees("#keys").await;
    })
    .await;
}
