//! A client of the original design, which knows only `innerHTML`: `plain.html`, from a server of
//! its own.

use axum::Router;
use axum::response::Html;
use axum::routing::get;

use crate::browser::{Browser, TEXTS, Tab, story};
use crate::server::Server;

const PAGE: &str = include_str!("plain.html");

/// Serves the plain client. Returns its origin.
async fn elsewhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let icon = get(|| async {});
    let routes = Router::new()
        .route("/", get(Html(PAGE)))
        .route("/favicon.ico", icon);
    tokio::spawn(async { axum::serve(listener, routes).await });
    origin
}

async fn person<'a>(browser: &'a Browser, origin: &str, server: &Server) -> Tab<'a> {
    let tab = browser.open(&format!("{origin}/#{}", server.address)).await;
    tab.until("document.querySelector('#group-name').textContent.trim() === '#hi'")
        .await;
    tab
}

async fn name(tab: &Tab<'_>) -> String {
    tab.text("#logged-user").await
}

async fn enters(tab: &Tab<'_>, name: &str, is_group: bool) {
    let link = format!(
        "document.querySelector('#links').innerHTML = \
         `<a class=nav__link data-group-name='{name}' {}>{name}</a>`",
        if is_group {
            "data-group-public=true"
        } else {
            ""
        }
    );
    tab.run(&link).await;
    tab.click("#links a").await;
    let title = if is_group {
        format!("#{name}")
    } else {
        name.to_owned()
    };
    tab.until(&format!(
        "document.querySelector('#group-name').textContent.trim() === '{title}'"
    ))
    .await;
}

async fn says(tab: &Tab<'_>, text: &str) {
    tab.run("document.querySelector('#message-text').focus()")
        .await;
    tab.types(text).await;
    tab.click("#send").await;
    tab.hears(text).await;
}

#[tokio::test]
async fn twenty_lines_of_script_are_enough_to_talk_in_groups_and_private_rooms() {
    let script = PAGE.split("<script>\n").nth(1).unwrap();
    let script = script.split("</script>").next().unwrap();
    assert!(script.lines().count() <= 20);

    let origin = elsewhere().await;
    let server = Server::start(&["--allow-origin", &origin]);
    story(async |browser| {
        let anna = person(browser, &origin, &server).await;
        let bob = person(browser, &origin, &server).await;
        let carl = browser.person(&server.url("/")).await;
        let (a, b) = (name(&anna).await, name(&bob).await);
        assert_ne!(a, b);

        // In a group, with somebody who has the full client.
        says(&anna, "hello").await;
        bob.hears("hello").await;
        carl.hears("hello").await;
        carl.says("welcome").await;
        anna.hears("welcome").await;
        for tab in [&anna, &bob, &carl] {
            assert_eq!(tab.texts().await, ["hello", "welcome"]);
        }
        enters(&bob, "python", true).await;
        assert!(bob.texts().await.is_empty());
        says(&bob, "import this").await;
        says(&anna, "still in hi").await;
        assert_eq!(bob.texts().await, ["import this"]);
        enters(&anna, "python", true).await;
        assert_eq!(anna.texts().await, ["import this"]);

        // In private, with each other.
        enters(&anna, &b, false).await;
        enters(&bob, &a, false).await;
        says(&anna, "between us").await;
        bob.hears("between us").await;
        says(&bob, "of course").await;
        anna.hears("of course").await;
        assert!(
            !carl
                .get::<bool>(&format!("{TEXTS}.includes('between us')"))
                .await
        );

        // And in private with somebody who has the full client.
        carl.meets(&a).await;
        carl.says("may I join?").await;
        enters(&anna, &carl.name().await, false).await;
        assert_eq!(anna.texts().await, ["may I join?"]);
        says(&anna, "here you may").await;
        carl.hears("here you may").await;
        assert_eq!(bob.texts().await, ["between us", "of course"]);

        // A refusal is shown.
        enters(&anna, "hi", true).await;
        anna.run("act('Change group', { groupName: 'nowhere', isGroup: true })")
            .await;
        anna.until("document.querySelector('#notice').textContent.includes('no group #nowhere')")
            .await;
        // It is sent only what such a client can place; anything else is an error in its page.
    })
    .await;
}

#[tokio::test]
async fn a_page_of_the_original_design_reads_as_its_author_meant() {
    let origin = elsewhere().await;
    let server = Server::start(&["--allow-origin", &origin]);
    story(async |browser| {
        let anna = person(browser, &origin, &server).await;
        let carl = browser.person(&server.url("/")).await;
        let c = carl.name().await;
        assert_eq!(anna.text("#me").await, format!("I'm {}", name(&anna).await));
        assert_eq!(anna.text("#group-name").await, "#hi");
        carl.says("two\nlines").await;
        anna.until("document.querySelector('.message__text')?.innerText === 'two\\nlines'")
            .await;
        carl.run("document.querySelector('.message .change').focus()")
            .await;
        carl.click(".message .change").await;
        carl.click("#message-form .chip").await;
        anna.sees(".message__reactions").await;

        // A card: who, when, what.
        let card = "#messages-list > article.message__item";
        assert_eq!(
            anna.text(&format!("{card} > header > h3.message__title"))
                .await,
            c
        );
        let time = anna
            .text(&format!("{card} > header > time.message__time"))
            .await;
        let shape: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "00/00/0000 00:00");
        let lines: Vec<String> = anna
            .get(&format!(
                "document.querySelector('{card}').innerText.split(/\\n+/)"
            ))
            .await;
        assert_eq!(lines, [&c, &time, "two", "lines", "👍 1"]);
        // Every rule of the style sheet finds something.
        let idle: Vec<String> = anna
            .get(
                "[...document.styleSheets[0].cssRules].map((rule) => rule.selectorText)\
                 .filter((selector) => !document.querySelector(selector))",
            )
            .await;
        assert_eq!(idle, [""; 0]);
        // And nothing is a control that the page cannot work.
        anna.run("act('Change group', { groupName: 'nowhere', isGroup: true })")
            .await;
        anna.until(
            "document.querySelector('#notice').textContent === 'There is no group #nowhere.'",
        )
        .await;
        assert!(
            !anna
                .shows("#messages-list button, #notice button, #logged-user *")
                .await
        );
    })
    .await;
}

#[tokio::test]
async fn a_page_of_another_origin_may_not_connect() {
    let origin = elsewhere().await;
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.open(&format!("{origin}/#{}", server.address)).await;
        anna.until("socket.readyState === WebSocket.CLOSED").await;
        assert_eq!(anna.text("#logged-user").await, "");
    })
    .await;
}
