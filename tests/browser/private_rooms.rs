//! Private rooms: what the other person sees of them, and what nobody else does.

use thirtyfour::Key;

use crate::browser::story;
use crate::server::Server;

#[tokio::test]
async fn two_people_have_a_private_room_and_an_outsider_learns_nothing() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let eve = browser.person(&server.url("/")).await;
        let (a, b) = (anna.name().await, bob.name().await);

        anna.meets(&b).await;
        assert_eq!(anna.text("#group-name").await, b);
        assert!(anna.texts().await.is_empty());
        assert!(!bob.shows("#users-mine li").await, "an opened room shows the other nothing");
        anna.says("between us").await;

        // Bob is in another room, so the list and the title are marked until he has seen it.
        bob.sees(&format!("#users-mine [data-user='{a}'][data-unread='1'] .badge")).await;
        bob.until("document.title === '(1) #hi · Overwire'").await;
        anna.says("twice").await;
        bob.sees(&format!("#users-mine [data-user='{a}'][data-unread='2']")).await;
        bob.meets(&a).await;
        assert_eq!(bob.texts().await, ["between us", "twice"]);
        let room = "document.querySelector('#messages-list').dataset.room";
        assert_eq!(anna.get::<String>(room).await, bob.get::<String>(room).await);
        bob.sees(&format!("#users-mine [data-user='{a}']:not([data-unread])")).await;
        bob.until(&format!("document.title === '{a} · Overwire'")).await;
        bob.says("read").await;
        anna.hears("read").await;
        anna.sees(&format!("#users-mine [data-user='{b}']")).await;
        // What one looks at is read.
        anna.until("!document.querySelector('#users-mine [data-unread]')").await;

        // Eve has been there all the time: in the same group, she sees its messages.
        assert!(!eve.shows("#users-mine li").await);
        eve.goto(&server.url(&format!("/chat/@{b}/"))).await;
        eve.is_in(&b, &format!("/chat/@{b}/")).await;
        assert!(eve.texts().await.is_empty(), "a private link is a room of one's own with the same user");
        eve.says("from eve").await;
        bob.sees(&format!("#users-mine [data-user='{}'][data-unread='1']", eve.name().await)).await;
        assert!(!bob.texts().await.contains(&"from eve".to_owned()));
        eve.enters("hi").await;
        let page: String = eve.get("document.documentElement.outerHTML").await;
        assert!(!page.contains("between us") && !page.contains("twice"));

        let source = "fetch(location.href).then((answer) => answer.text()).then((text) => window.source = text)";
        anna.run(source).await;
        anna.until("window.source?.includes('messages-list')").await;
        assert!(!anna.get::<bool>("source.includes('between us')").await, "not even in the page of it");
    })
    .await;
}

#[tokio::test]
async fn two_people_opening_their_room_at_the_same_time_get_one_room() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        tokio::join!(anna.meets(&b), bob.meets(&a));
        anna.says("one").await;
        bob.hears("one").await;
        bob.says("room").await;
        anna.hears("room").await;
    })
    .await;
}

#[tokio::test]
async fn a_private_message_waits_for_somebody_offline() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        anna.meets(&b).await;
        // A dot at his name says that he is online, and in the room one can jump to a day.
        let dot = "getComputedStyle(document.querySelector('.room__title'), '::before').content";
        anna.until(&format!("{dot} !== 'none'")).await;
        anna.click("#room-menu > button").await;
        anna.sees("#room-menu [name=day]").await;
        assert!(!anna.shows("#room-menu .menu__item").await);
        anna.presses(Key::Escape).await;
        bob.goto("about:blank").await;
        anna.says("for when you are back").await;
        anna.sees_no(&format!("#users-mine [data-user='{b}'] .here"))
            .await;
        anna.until(&format!("{dot} === 'none'")).await;
        bob.goto(&server.url("/chat/hi/")).await;
        assert_eq!(bob.name().await, b);
        bob.sees(&format!("#users-mine [data-user='{a}'][data-unread='1']"))
            .await;
        bob.goto("about:blank").await;
        bob.goto(&server.url("/chat/hi/")).await;
        bob.sees(&format!("#users-mine [data-user='{a}'][data-unread='1']"))
            .await;
        bob.meets(&a).await;
        assert_eq!(bob.texts().await, ["for when you are back"]);
        bob.sees(&format!("#users-mine [data-user='{a}']:not([data-unread])"))
            .await;
        bob.enters("hi").await;
        bob.reload().await;
        bob.sees(&format!("#users-mine [data-user='{a}']:not([data-unread])"))
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_private_room_with_oneself_is_refused_kindly() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.goto(&server.url(&format!("/chat/@{}/", anna.name().await)))
            .await;
        anna.is_in_the_lobby().await;
        let words = "That is you. Open a second tab to try a conversation.";
        assert_eq!(anna.text("#notice .notice__text").await, words);
        anna.goto(&server.url("/chat/@nobody0/")).await;
        anna.is_in_the_lobby().await;
        let words = "There is nobody named “nobody0”.";
        assert_eq!(anna.text("#notice .notice__text").await, words);
    })
    .await;
}

#[tokio::test]
async fn a_seen_message_counts_as_read_even_after_leaving_at_once() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let carl = browser.person(&server.url("/")).await;
        let (a, b, c) = (anna.name().await, bob.name().await, carl.name().await);
        bob.meets(&a).await;
        bob.says("one").await;
        carl.meets(&a).await;
        carl.says("two").await;
        anna.sees(&format!("#users-mine [data-user='{b}'][data-unread='1']"))
            .await;
        anna.sees(&format!("#users-mine [data-user='{c}'][data-unread='1']"))
            .await;
        anna.meets(&b).await;
        bob.says("three").await;
        anna.hears("three").await;
        anna.meets(&c).await;
        anna.hears("two").await;
        anna.enters("hi").await;
        anna.until("!document.querySelector('#users-mine [data-unread]')")
            .await;
        anna.until("document.title === '#hi · Overwire'").await;
        anna.reload().await;
        anna.sees(&format!("#users-mine [data-user='{b}']:not([data-unread])"))
            .await;
        anna.sees(&format!("#users-mine [data-user='{c}']:not([data-unread])"))
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_private_message_is_sent_from_any_room_by_command() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        anna.sends(&format!("/pm {b} between us")).await;
        anna.sees("#notice [data-tone=done]").await;
        anna.is_settled().await;
        assert_eq!(
            anna.text("#notice .notice__text").await,
            format!("Sent privately to {b}.")
        );
        assert_eq!(anna.written().await, "");
        bob.sees(&format!("#users-mine [data-user='{a}'][data-unread='1']"))
            .await;
        bob.meets(&a).await;
        assert_eq!(bob.texts().await, ["between us"]);

        // A mistyped command is not posted: the text comes back.
        anna.sends(&format!("/pn {b} secret")).await;
        anna.sees("#notice [data-tone=refusal]").await;
        anna.is_settled().await;
        assert_eq!(anna.written().await, format!("/pn {b} secret"));
        assert!(anna.texts().await.is_empty());

        anna.run("document.querySelector('#message-text').select()")
            .await;
        anna.sends("/help").await;
        anna.sees("#notice [data-tone=done]").await;
        anna.is_settled().await;
        assert_eq!(anna.written().await, "");
        anna.sees_no(".waiting").await;
    })
    .await;
}
