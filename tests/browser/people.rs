//! Who is online: the lists in the sidebar, and the search.

use thirtyfour::Key;

use crate::browser::story;
use crate::server::Server;

#[tokio::test]
async fn a_lone_person_is_pointed_to_a_second_tab_and_sees_people_join_and_leave() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let a = anna.name().await;
        anna.sees("#users-alone").await;
        assert!(anna.text("#users-alone").await.contains("a second tab"));
        assert!(
            !anna.shows(&format!("#users-list [data-user='{a}']")).await,
            "not myself"
        );

        let bob = browser.person(&server.url("/")).await;
        let b = bob.name().await;
        anna.sees(&format!("#users-online [data-user='{b}'] .here"))
            .await;
        anna.sees_no("#users-alone").await;
        assert!(
            !anna.shows(&format!("#users-list [data-user='{a}']")).await,
            "not myself"
        );
        bob.sees(&format!("#users-online [data-user='{a}']")).await;

        // People I have talked with are listed once, under my conversations.
        anna.meets(&b).await;
        anna.says("hello").await;
        anna.sees(&format!("#users-mine [data-user='{b}'] .here"))
            .await;
        anna.sees_no(&format!("#users-online [data-user='{b}']"))
            .await;
        bob.sees(&format!("#users-mine [data-user='{a}']")).await;
        bob.sees_no(&format!("#users-online [data-user='{a}']"))
            .await;

        // The focus stays in a list that is rendered again.
        anna.run(&format!(
            "document.querySelector('#users-mine [data-user=\"{b}\"] a').focus()"
        ))
        .await;
        let carl = browser.person(&server.url("/")).await;
        let c = carl.name().await;
        anna.sees(&format!("#users-online [data-user='{c}']")).await;
        carl.meets(&a).await;
        carl.says("me too").await;
        anna.sees(&format!("#users-mine [data-user='{c}'][data-unread]"))
            .await;
        let first = "document.querySelector('#users-mine li').dataset.user";
        assert_eq!(anna.get::<String>(first).await, c, "the unread stand first");
        let focused = "document.activeElement.closest('[data-user]')?.dataset.user";
        assert_eq!(anna.get::<Option<String>>(focused).await, Some(b.clone()));

        carl.close().await;
        bob.goto("about:blank").await;
        anna.sees(&format!("#users-mine [data-user='{b}']")).await;
        anna.sees_no(&format!("#users-mine [data-user='{b}'] .here"))
            .await;
        anna.sees_no(&format!("#users-mine [data-user='{c}'] .here"))
            .await;
        anna.sees("#users-alone").await;
    })
    .await;
}

#[tokio::test]
async fn everybody_who_has_been_here_is_found_by_name() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let b = bob.name().await;
        bob.says("I was here").await;
        bob.close().await;
        anna.sees("#users-alone").await;
        anna.run("document.querySelector('#people-search').focus()")
            .await;
        anna.types(&b[..3].to_uppercase()).await;
        anna.sees(&format!("#users-found [data-user='{b}']")).await;
        anna.sees_no("#users-alone").await;
        anna.types("zzz").await;
        anna.sees("#users-found .aside__words").await;
        assert!(
            anna.text("#users-found")
                .await
                .starts_with("There is nobody else named")
        );
        anna.run("document.querySelector('#people-search').select()")
            .await;
        anna.types(&anna.name().await).await;
        anna.until("document.querySelector('#users-found').textContent.includes('nobody')")
            .await;
        anna.run("document.querySelector('#people-search').select()")
            .await;
        anna.types(&b).await;
        anna.click(&format!("#users-found [data-user='{b}'] a"))
            .await;
        anna.is_in(&b, &format!("/chat/@{b}/")).await;
        anna.sees_no("#users-found li").await;
        assert_eq!(
            anna.get::<String>("document.querySelector('#people-search').value")
                .await,
            ""
        );
        anna.says("are you still there?").await;
        anna.sees(&format!("#users-mine [data-user='{b}']")).await;
    })
    .await;
}

#[tokio::test]
async fn people_in_the_room_are_listed_and_one_click_away() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.says("first").await;
        // On a wide screen, the people have a column of their own.
        anna.sized(1280, 800).await;
        anna.sees("#room-people li a").await;
        assert!(!anna.shows("#room-count button").await);
        anna.sized(1000, 800).await;
        anna.sees_no("#room-people li").await;
        let bob = browser.person(&server.url("/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        let number = "document.querySelector('#room-count').textContent.trim()";
        for tab in [&anna, &bob] {
            tab.until(&format!("{number} === '2'")).await;
        }
        anna.sees("#room-moves").await;
        let joined = format!("document.querySelector('#room-moves').textContent.includes('{b}')");
        anna.until(&joined).await;

        // The list opens by keyboard, stays open while people join, and closes with Escape.
        anna.run("document.querySelector('#room-count button').focus()")
            .await;
        anna.presses(Key::Enter).await;
        anna.sees(&format!("#room-people [data-user='{b}'] a"))
            .await;
        anna.run("window.line = document.querySelector('.moves__line')")
            .await;
        let carl = browser.person(&server.url("/")).await;
        let c = carl.name().await;
        anna.sees(&format!("#room-people [data-user='{c}'] a"))
            .await;
        // The line with both is a new one, which is shown for some time again.
        anna.until(&joined.replace(&*b, &c)).await;
        assert!(!anna.get::<bool>("line.isConnected").await);
        anna.presses(Key::Escape).await;
        anna.sees_no("#room-people li").await;

        // It leads to the private room, which lists nobody.
        anna.click("#room-count button").await;
        anna.click(&format!("#room-people [data-user='{b}'] a"))
            .await;
        anna.is_in(&b, &format!("/chat/@{b}/")).await;
        anna.sees_no("#room-count button").await;
        anna.sees_no("#room-people li").await;
        anna.enters("hi").await;
        anna.sees("#room-count button").await;
        anna.sees_no("#room-people li").await;

        // None of it is a message.
        assert_eq!(anna.texts().await, ["first"]);
        bob.close().await;
        let left =
            format!("document.querySelector('#room-moves').textContent.includes('{b} left')");
        carl.until(&left).await;
        carl.until(&format!("{number} === '2'")).await;
        assert_ne!(a, c);
    })
    .await;
}
