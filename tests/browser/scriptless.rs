//! A browser that runs no script.

use serde_json::json;
use thirtyfour::Key;

use crate::browser::story;
use crate::server::Server;

#[tokio::test]
async fn without_scripts_people_read_page_post_and_are_renamed() {
    let server = Server::start(&["--unlimited"]);
    story(async |browser| {
        let bob = browser.person(&server.url("/")).await;
        for number in 0..60 {
            bob.says(&number.to_string()).await;
        }
        let anna = browser.window().await;
        anna.devtools(
            "Emulation.setScriptExecutionDisabled",
            json!({ "value": true }),
        )
        .await;
        anna.sized(1000, 800).await;
        anna.goto(&server.url("/")).await;
        // The end of the conversation is in view, and controls that need a script are not.
        anna.sees("#composer").await;
        let last = "document.querySelector('#messages-list > .message:last-child')";
        anna.until(&format!(
            "{last}.getBoundingClientRect().bottom < innerHeight"
        ))
        .await;
        for control in [
            ".change",
            ".search",
            "#notifications",
            ".composer__hint",
            ".state",
        ] {
            assert!(!anna.shows(control).await, "{control}");
        }
        anna.run("document.querySelector('noscript .older__more').scrollIntoView()")
            .await;
        anna.click("noscript .older__more").await;
        anna.until("document.querySelector('.message > p').textContent === '0'")
            .await;
        anna.click("#message-text").await;
        anna.types("without scripts").await;
        anna.click("#send").await;
        bob.hears("without scripts").await;
        anna.until("location.hash.startsWith('#message-')").await;
        anna.sees(":target").await;
        anna.click("[popovertarget=my-name]").await;
        anna.types("Anna Form").await;
        anna.presses(Key::Enter).await;
        anna.until("document.querySelector('div.scriptless').textContent.includes('shown as')")
            .await;
        anna.click("#message-text").await;
        anna.types("x").await;
        anna.click("#send").await;
        bob.sees(".message:last-child > b > .user-name").await;
        // A refused text is not lost.
        anna.click("#message-text").await;
        anna.types("/nonsense").await;
        anna.click("#send").await;
        anna.sees("#notice .notice__text").await;
        assert_eq!(anna.written().await, "/nonsense");
    })
    .await;
}
