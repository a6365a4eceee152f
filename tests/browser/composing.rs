//! Writing: nothing that was meant is lost, and nothing is sent that was not meant.

use serde_json::json;
use thirtyfour::Key;

use crate::browser::{Tab, story};
use crate::server::Server;

/// Puts a text into a box, as pasting does.
async fn pastes(tab: &Tab<'_>, selector: &str, text: &str) {
    tab.run(&format!(
        "const box = document.querySelector('{selector}');
         box.value = {};
         box.dispatchEvent(new Event('input', {{ bubbles: true }}))",
        json!(text)
    ))
    .await;
}

#[tokio::test]
async fn a_text_over_the_limit_is_kept_and_counted_and_not_sent() {
    let server = Server::start(&["--message-characters", "20"]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        // An emoji of two UTF-16 units is one character, as for the server.
        pastes(&anna, "#message-text", &"😀".repeat(20)).await;
        assert_eq!(anna.text("#composer output").await, "0");
        let long = "😀".repeat(223);
        pastes(&anna, "#message-text", &long).await;
        assert_eq!(anna.text("#composer output").await, "−203");
        anna.run("document.querySelector('#message-text').focus()")
            .await;
        anna.presses(Key::Enter).await;
        assert_eq!(anna.written().await, long);
        anna.reload().await;
        anna.is_somebody().await;
        anna.until(&format!(
            "document.querySelector('#message-text').value === {}",
            json!(long)
        ))
        .await;
        pastes(&anna, "#message-text", &"😀".repeat(20)).await;
        anna.run("document.querySelector('#message-text').focus()")
            .await;
        anna.presses(Key::Enter).await;
        anna.hears(&"😀".repeat(20)).await;
        assert_eq!(anna.texts().await.len(), 1);
        // An edit is counted too.
        anna.presses(Key::Up).await;
        anna.sees("#message-form textarea").await;
        pastes(&anna, "#message-form textarea", &"x".repeat(21)).await;
        assert_eq!(anna.text("#message-form output").await, "−1");
        anna.presses(Key::Enter).await;
        pastes(&anna, "#message-form textarea", "short").await;
        anna.presses(Key::Enter).await;
        anna.hears("short").await;
        assert_eq!(anna.texts().await, ["short"]);
    })
    .await;
}

#[tokio::test]
async fn drafts_and_edits_wait_in_their_rooms() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.says("first").await;
        anna.presses(Key::Up).await;
        anna.sees("#message-form textarea").await;
        anna.types(" and more").await;
        anna.run("document.querySelector('#message-text').focus()")
            .await;
        anna.writes("a draft").await;
        anna.enters("python").await;
        anna.sees_no("#message-form > *").await;
        anna.sees("#groups-list [data-group-name=hi][data-draft]")
            .await;
        anna.enters("hi").await;
        anna.until("document.querySelector('#message-form textarea')?.value === 'first and more'")
            .await;
        assert_eq!(anna.written().await, "a draft");
        assert!(!anna.shows("#groups-list [data-draft]").await);
        anna.run("document.querySelector('#message-form textarea').focus()")
            .await;
        anna.presses(Key::Enter).await;
        anna.hears("first and more").await;
    })
    .await;
}

#[tokio::test]
async fn an_edit_waits_while_i_look_elsewhere_and_reload() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.says("first").await;
        anna.presses(Key::Up).await;
        anna.sees("#message-form [data-edits]").await;
        anna.types(" and").await;
        let goes_on = async |word: &str, text: &str| {
            anna.until(&format!(
                "document.querySelector('#message-form [data-edits] textarea:focus')?.value === '{text}'"
            ))
            .await;
            anna.types(word).await;
        };

        anna.click(".nav__all").await;
        anna.is_in_the_lobby().await;
        anna.back().await;
        goes_on(" more", "first and").await;

        anna.click("#search").await;
        anna.types("first").await;
        anna.presses(Key::Enter).await;
        anna.sees(".found").await;
        anna.back().await;
        goes_on(" than", "first and more").await;
        assert!(!anna.shows("#notice .notice").await);

        anna.reload().await;
        goes_on(" that", "first and more than").await;
        anna.presses(Key::Enter).await;
        anna.hears("first and more than that").await;
        anna.sees_no("#message-form > *").await;
        anna.reload().await;
        anna.hears("first and more than that").await;
        anna.enters("python").await;
        anna.enters("hi").await;
        assert!(!anna.shows("#message-form > *").await);
    })
    .await;
}

#[tokio::test]
async fn an_edit_of_a_message_that_is_gone_is_asked_for_once() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.says("first").await;
        anna.says("second").await;
        anna.presses(Key::Up).await;
        anna.sees("#message-form [data-edits]").await;
        anna.types(" and more").await;
        anna.run(
            "const { send } = await import(document.querySelector('[href*=\"js/runtime\"]').href);
             const { room } = document.querySelector('#messages-list').dataset;
             const message = Number(document.querySelector('[data-open]').id.slice(8));
             document.querySelector('[data-group-name=python]').click();
             send('Delete message', { message, room })",
        )
        .await;
        anna.is_in("#python", "/chat/python/").await;
        anna.enters("hi").await;
        anna.sees("#notice [data-tone=refusal]").await;
        anna.enters("python").await;
        anna.sees_no("#notice .notice").await;
        anna.enters("hi").await;
        // This is answered after whatever was asked on entering.
        anna.presses(Key::Up).await;
        anna.sees("#message-form textarea").await;
        assert!(!anna.shows("#notice .notice").await);
    })
    .await;
}

#[tokio::test]
async fn a_private_command_in_an_edit_changes_nothing() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        anna.says("hello").await;
        anna.presses(Key::Up).await;
        anna.sees("#message-form textarea").await;
        pastes(
            &anna,
            "#message-form textarea",
            &format!("/pm {} secret", bob.name().await),
        )
        .await;
        anna.presses(Key::Enter).await;
        anna.sees("#notice [data-tone=refusal]").await;
        assert!(anna.text("#notice").await.contains("Nothing was changed"));
        let typed = "document.querySelector('#message-form textarea').value.endsWith('secret')";
        assert!(anna.get::<bool>(typed).await);
        assert_eq!(bob.texts().await, ["hello"]);
    })
    .await;
}

#[tokio::test]
async fn several_messages_are_copied_as_names_times_and_texts() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        anna.says("one\ntwo").await;
        bob.says("three").await;
        anna.hears("three").await;
        anna.run(
            "[window.first, window.last] = document.querySelectorAll('.message > p');
             getSelection().setBaseAndExtent(first, 0, last, last.childNodes.length);
             window.copied = null;
             addEventListener('copy', ({ clipboardData }) => { copied = clipboardData.getData('text/plain'); });
             document.execCommand('copy')",
        )
        .await;
        let times = "[...document.querySelectorAll('.message time')].map((time) => time.textContent)";
        let [first, second] = anna.get::<[String; 2]>(times).await;
        let (a, b) = (anna.name().await, bob.name().await);
        assert_eq!(
            anna.get::<String>("copied").await,
            format!("{a}, {first}\none\ntwo\n\n{b}, {second}\nthree")
        );
        // A whole one is copied in the same way.
        anna.run(
            "getSelection().setBaseAndExtent(document.querySelector('.message > b'), 0, first, first.childNodes.length);
             document.execCommand('copy')",
        )
        .await;
        assert_eq!(
            anna.get::<String>("copied").await,
            format!("{a}, {first}\none\ntwo")
        );
        // From the middle of one to the middle of another.
        anna.run(
            "getSelection().setBaseAndExtent(first.lastChild, 1, last.firstChild, 3);
             document.execCommand('copy')",
        )
        .await;
        assert_eq!(
            anna.get::<String>("copied").await,
            format!("{a}, {first}\nne\ntwo\n\n{b}, {second}\nthr")
        );
    })
    .await;
}
