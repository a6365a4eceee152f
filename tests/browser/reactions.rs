//! Reacting to messages.

use serde_json::json;
use thirtyfour::Key;

use crate::browser::{Tab, story};
use crate::server::Server;

/// Waits until the reactions are these: each with its count, with `*` before my own.
async fn reactions(tab: &Tab<'_>, expected: &[&str]) {
    let shown = "[...document.querySelectorAll('.reactions .chip')].map((one) => \
                 (one.getAttribute('aria-pressed') === 'true' ? '*' : '') + one.textContent)";
    let expected = serde_json::to_string(expected).unwrap();
    tab.until(&format!("JSON.stringify({shown}) === '{expected}'"))
        .await;
}

/// Puts the pointer on a message, and follows it if a line about a join moves it.
async fn points_at(tab: &Tab<'_>, message: &str) {
    let bar = format!("{message} #quick");
    for _ in 0..20 {
        tab.hovers(message).await;
        if tab.shows(&bar).await {
            return;
        }
    }
    tab.sees(&bar).await;
}

#[tokio::test]
async fn one_click_reacts_and_another_takes_it_back() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        anna.says("lunch?").await;
        bob.hears("lunch?").await;
        points_at(&bob, ".message").await;
        bob.click("#quick button:first-child").await;
        reactions(&bob, &["*👍 1"]).await;
        reactions(&anna, &["👍 1"]).await;
        // The buttons under the pointer stay, whatever others do to the message.
        points_at(&anna, ".message").await;
        bob.click("#quick button:nth-child(2)").await;
        reactions(&anna, &["👍 1", "❤️ 1"]).await;
        anna.sees(".message #quick").await;
        bob.click(".chip:nth-child(2)").await;
        reactions(&anna, &["👍 1"]).await;
        anna.sees(".message #quick").await;
        anna.click(".chip").await;
        reactions(&anna, &["*👍 2"]).await;
        reactions(&bob, &["*👍 2"]).await;
        bob.click(".chip").await;
        reactions(&bob, &["👍 1"]).await;
        reactions(&anna, &["*👍 1"]).await;
        // My reactions are still mine after a reload, and none are shown in another room.
        anna.reload().await;
        anna.is_somebody().await;
        reactions(&anna, &["*👍 1"]).await;
        anna.enters("python").await;
        reactions(&anna, &[]).await;
        anna.enters("hi").await;
        reactions(&anna, &["*👍 1"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_double_click_reacts_once_and_the_box_keeps_the_focus() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        anna.says("lunch?").await;
        bob.hears("lunch?").await;
        points_at(&anna, ".message").await;
        anna.click("#quick button:first-child").await;
        reactions(&bob, &["👍 1"]).await;
        points_at(&bob, ".message").await;
        bob.click("#quick button:nth-child(2)").await;
        reactions(&anna, &["*👍 1", "❤️ 1"]).await;
        // Both clicks happen before the answer to the first.
        server.signal("STOP");
        anna.double_clicks(".chip").await;
        server.signal("CONT");
        reactions(&anna, &["❤️ 1"]).await;
        reactions(&bob, &["*❤️ 1"]).await;
        anna.until("document.activeElement.matches('#message-text')")
            .await;
        anna.says("and go on").await;
        reactions(&anna, &["❤️ 1"]).await;

        // The answer arrives between the clicks: the removed reaction makes room for its neighbour,
        // which must not be clicked.
        points_at(&anna, ".message").await;
        anna.click("#quick button:first-child").await;
        reactions(&bob, &["*❤️ 1", "👍 1"]).await;
        let [x, y]: [f64; 2] = bob
            .get(
                "(() => { const { left, top, width, height } = document.querySelector('.chip').getBoundingClientRect();
                 return [left + width / 2, top + height / 2]; })()",
            )
            .await;
        for count in [1, 2] {
            for kind in ["mousePressed", "mouseReleased"] {
                let at = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": count });
                bob.devtools("Input.dispatchMouseEvent", at).await;
            }
            reactions(&bob, &["👍 1"]).await;
        }
        bob.says("not meant").await;
        anna.hears("not meant").await;
        reactions(&anna, &["*👍 1"]).await;
    })
    .await;
}

#[tokio::test]
async fn any_emoji_can_be_given_by_keyboard_and_lists_who_reacted() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let a = anna.name().await;
        anna.says("done!").await;
        bob.hears("done!").await;
        anna.run("document.querySelector('.message .change').focus()")
            .await;
        anna.presses(Key::Enter).await;
        anna.sees("#message-form .edit__more").await;
        anna.click("#message-form [data-action=React]:not(form)")
            .await;
        anna.sees_no("#message-form > *").await;
        reactions(&anna, &["*👍 1"]).await;

        bob.run("document.querySelector('.message .change').focus()")
            .await;
        bob.presses(Key::Enter).await;
        bob.sees("#message-form input").await;
        assert!(!bob.shows("#message-form textarea").await);
        bob.until(&format!(
            "document.querySelector('.edit__reactors').textContent === '👍 {a}'"
        ))
        .await;
        // The focus moves through the quick reactions into the field.
        bob.until("document.activeElement.matches('#message-form .chip')")
            .await;
        bob.run("document.querySelector('#message-form input').focus()")
            .await;
        bob.types("nonsense").await;
        bob.presses(Key::Enter).await;
        bob.sees("#notice [data-tone=refusal]").await;
        bob.run("document.querySelector('#message-form input').select()")
            .await;
        bob.types(":tada:").await;
        bob.presses(Key::Enter).await;
        bob.sees_no("#message-form > *").await;
        reactions(&bob, &["👍 1", "*🎉 1"]).await;
        reactions(&anna, &["*👍 1", "🎉 1"]).await;
        bob.until("document.activeElement.matches('#message-text')")
            .await;
    })
    .await;
}
