//! Opening the page: what is there at once, and who somebody is.

use serde_json::json;

use crate::browser::{TEXTS, story, watched};
use crate::server::Server;
use crate::wire::Wire;

#[tokio::test]
async fn uncaught_errors_and_policy_violations_fail_a_test() {
    let server = Server::start(&[]);
    let (reports, outcome) = watched(&[], async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.run("setTimeout(() => { throw new Error('nobody caught this') })")
            .await;
        anna.run("setTimeout(() => Promise.reject(new Error('nor this')))")
            .await;
        anna.run("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">')")
            .await;
        anna.run("new Image().src = 'http://127.0.0.1:9/elsewhere.png'")
            .await;
        anna.reload().await;
    })
    .await;
    outcome.unwrap();
    for words in [
        "nobody caught this",
        "nor this",
        "inline style",
        "elsewhere.png",
    ] {
        assert!(
            reports.iter().any(|report| report.contains(words)),
            "{words}: {reports:#?}"
        );
    }
}

#[tokio::test]
async fn the_newest_messages_are_in_the_page_before_scripts_run() {
    let server = Server::start(&["--unlimited"]);
    let mut carl = Wire::connect(&server, "/chat/python/").await;
    carl.says((1..=60).map(|number| format!("number {number}")))
        .await;
    let newest: Vec<_> = (11..=60).map(|number| format!("number {number}")).collect();
    story(async |browser| {
        let anna = browser.window().await;
        anna.sized(1280, 800).await;
        anna.devtools(
            "Emulation.setScriptExecutionDisabled",
            json!({ "value": true }),
        )
        .await;
        anna.goto(&server.url("/chat/python/")).await;
        assert_eq!(anna.texts().await, newest);
        assert_eq!(anna.text("#group-name").await, "#python");
        assert_eq!(
            anna.get::<String>("document.title").await,
            "#python · Overwire"
        );
        assert!(
            !anna.shows("#logged-user [data-user]").await,
            "a page load is nobody"
        );
        anna.sees("noscript .scriptless").await;
        let count = |what| format!("document.querySelectorAll('{what}').length");
        let blocks = format!("[{}, {}]", count(".message[data-joined]"), count(".day"));
        assert_eq!(anna.get::<[usize; 2]>(&blocks).await, [49, 1]);
        let last = "[...document.querySelectorAll('.message')].at(-1).getBoundingClientRect()";
        let is_in_view = format!("{last}.top > 0 && {last}.bottom < innerHeight");
        assert!(anna.get::<bool>(&is_in_view).await);

        // With scripts, the same nodes stay when the socket connects, and the blocks are the same.
        anna.devtools(
            "Emulation.setScriptExecutionDisabled",
            json!({ "value": false }),
        )
        .await;
        let first = "addEventListener('DOMContentLoaded', () => \
                     window.first = [...document.querySelectorAll('.message')])";
        anna.devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({ "source": first }),
        )
        .await;
        anna.goto(&server.url("/chat/python/")).await;
        anna.is_somebody().await;
        assert_eq!(anna.get::<[usize; 2]>(&blocks).await, [49, 1]);
        carl.says(["one more".to_owned()]).await;
        anna.hears("one more").await;
        let kept = "first.length === 50 && first.every((node) => node.isConnected)";
        assert!(anna.get::<bool>(kept).await);
        let end = "document.querySelector('#scroller')";
        let end = format!("{end}.scrollHeight - {end}.scrollTop - {end}.clientHeight < 2");
        anna.until(&end).await;
    })
    .await;
}

#[tokio::test]
async fn the_first_visit_makes_a_person_and_a_reload_keeps_them() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.is_in("#hi", "/chat/hi/").await;
        let name = anna.name().await;
        assert!(anna.text("#logged-user").await.ends_with(&name));
        let groups: Vec<String> = anna
            .get("[...document.querySelectorAll('#groups-list a')].map((a) => a.textContent)")
            .await;
        assert_eq!(groups, ["#hi", "#python", "#events", "#off-topic"]);
        anna.says("before the reload").await;
        anna.enters("python").await;
        anna.says("and in another room").await;
        anna.reload().await;
        anna.is_in("#python", "/chat/python/").await;
        assert_eq!(anna.name().await, name);
        assert_eq!(anna.texts().await, ["and in another room"]);

        // A second tab is a second person, even if the browser copied it.
        let bob = browser.person(&server.url("/")).await;
        assert_ne!(bob.name().await, name);
        assert_eq!(bob.texts().await, ["before the reload"]);
        anna.run("window.open('/chat/python/')").await;
        let copy = browser.opened_beside(&[&anna, &bob]).await;
        copy.is_somebody().await;
        let token = "sessionStorage['overwire.resume'] && true";
        assert!(copy.get::<bool>(token).await);
        assert_ne!(copy.name().await, name);
        assert_eq!(anna.name().await, name);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_fetched_from_other_sites() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.says("hello").await;
        let fetched: Vec<String> = anna
            .get("performance.getEntriesByType('resource').map((entry) => entry.name)")
            .await;
        assert!(
            fetched.iter().any(|url| url.ends_with("/js/chat.js")),
            "{fetched:?}"
        );
        assert!(
            fetched.iter().any(|url| url.ends_with("/css/overwire.css")),
            "{fetched:?}"
        );
        let elsewhere: Vec<_> = fetched
            .iter()
            .filter(|url| !url.starts_with(&server.url("/")))
            .collect();
        assert!(elsewhere.is_empty(), "{elsewhere:?}");
        assert_eq!(anna.get::<u32>("document.cookie.length").await, 0);
    })
    .await;
}

#[tokio::test]
async fn the_address_of_a_missing_room_leads_to_the_directory_with_a_notice() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/chat/nowhere/")).await;
        anna.is_in_the_lobby().await;
        assert!(!anna.shows("#message-text").await);
        assert_eq!(
            anna.text("#notice .notice__text").await,
            "There is no group #nowhere."
        );
        anna.click("#notice [data-dismiss]").await;
        anna.sees_no("#notice .notice").await;
        anna.enters("hi").await;
        anna.says("still here").await;
        assert!(anna.get::<bool>(&format!("{TEXTS}.length === 1")).await);
    })
    .await;
}

#[tokio::test]
async fn the_welcome_goes_with_my_first_message() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.sees("#room-welcome .welcome").await;
        // Nothing makes room for it.
        let places = "['#composer', '#messages-list'].map((part) => document.querySelector(part).getBoundingClientRect().top)";
        let with: [f64; 2] = anna.get(places).await;
        anna.run("document.querySelector('.welcome').style.display = 'none'")
            .await;
        assert_eq!(anna.get::<[f64; 2]>(places).await, with);
        anna.says("hello").await;
        anna.sees_no("#room-welcome .welcome").await;
        anna.enters("python").await;
        anna.sees("#room-welcome .welcome").await;
        anna.enters("hi").await;
        anna.reload().await;
        anna.says("again").await;
        assert!(!anna.shows("#room-welcome .welcome").await);
    })
    .await;
}
