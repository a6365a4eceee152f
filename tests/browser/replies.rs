//! Replies: choosing what to reply to, the line above the message box, and the quotes.

use thirtyfour::Key;

use crate::browser::{Tab, story};
use crate::server::Server;

const BAR: &str = "#replying .quote";
const QUOTE: &str = ".message .quote";

async fn is_at_box(tab: &Tab<'_>) {
    tab.until("document.activeElement.id === 'message-text'")
        .await;
}

async fn shows(tab: &Tab<'_>, selector: &str, text: &str) {
    let element = format!("document.querySelector('{selector}')");
    tab.until(&format!("{element}?.textContent.trim() === '{text}'"))
        .await;
}

#[tokio::test]
async fn a_reply_quotes_its_original_and_leads_there() {
    let server = Server::start(&["--unlimited"]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let a = anna.name().await;
        anna.says("Who brings tea?\nand cups").await;
        bob.hears("Who brings tea?\nand cups").await;
        // Escape and the cross both take it back, and the text stays.
        bob.run("document.querySelector('#scroller').focus()").await;
        bob.presses(Key::Up).await;
        bob.types("r").await;
        let line = format!("{a} Who brings tea?");
        shows(&bob, BAR, &line).await;
        is_at_box(&bob).await;
        bob.types("I").await;
        bob.presses(Key::Escape).await;
        bob.sees_no("#replying").await;
        bob.hovers(".message").await;
        bob.click("#quick [data-reply]").await;
        bob.click("#replying button").await;
        bob.sees_no("#replying").await;
        is_at_box(&bob).await;
        assert_eq!(bob.written().await, "I");

        // It belongs to the draft of its room, also after a reload, and changes with the original.
        bob.hovers(".message").await;
        bob.click(".message .change").await;
        bob.click("#message-form [data-reply]").await;
        bob.sees_no("#message-form > *").await;
        bob.enters("python").await;
        bob.sees_no("#replying").await;
        bob.enters("hi").await;
        bob.sees("#replying").await;
        bob.reload().await;
        bob.is_somebody().await;
        shows(&bob, BAR, &line).await;
        anna.presses(Key::Up).await;
        anna.sees("#message-form textarea").await;
        anna.run("document.querySelector('#message-form textarea').select()")
            .await;
        anna.types("Who has tea?").await;
        anna.presses(Key::Enter).await;
        let line = format!("{a} Who has tea?");
        shows(&bob, BAR, &line).await;
        bob.enters("python").await;
        bob.enters("hi").await;
        shows(&bob, BAR, &line).await;
        bob.click("#message-text").await;
        bob.presses(Key::End).await;
        bob.types(" do").await;
        bob.presses(Key::Enter).await;
        bob.sees_no("#replying").await;
        for tab in [&anna, &bob] {
            shows(tab, QUOTE, &line).await;
        }
        anna.sees(".message[data-user] .quote[data-me]").await;
        assert!(!bob.shows(".quote[data-me]").await);
        // The next message is none.
        bob.says("soon").await;
        anna.hears("soon").await;
        let quotes = "document.querySelectorAll('.message .quote').length";
        assert_eq!(anna.get::<u32>(quotes).await, 1);

        // The line is hidden while something is edited.
        bob.hovers(".message").await;
        bob.click("#quick [data-reply]").await;
        bob.run("document.querySelector('.message:last-child .change').click()")
            .await;
        assert!(!bob.shows("#message-form textarea").await);
        bob.click("#edit-text").await;
        bob.sees("#message-form textarea:focus").await;
        assert!(!bob.shows("#replying").await);
        bob.click("#message-form .edit__text [data-dismiss]").await;
        bob.sees("#replying").await;

        for number in 0..60 {
            anna.says(&number.to_string()).await;
        }
        // The driver scrolls no further than to the edge, where the line of the day is.
        anna.run("document.querySelector('.message .quote').scrollIntoView({ block: 'center' })")
            .await;
        anna.click(".message .quote").await;
        anna.until(
            "document.querySelector('.message[data-at] > p')?.textContent === 'Who has tea?'",
        )
        .await;
        assert!(anna.get::<bool>("location.search.startsWith('?at=')").await);
        anna.sees(".message[data-at]").await;
        anna.run("document.querySelector('.message[data-at] .change').click()")
            .await;
        anna.click("#message-form summary").await;
        anna.click("#message-form [data-action='Delete message']")
            .await;
        for tab in [&anna, &bob] {
            shows(tab, QUOTE, "Message deleted").await;
        }
        // A push and a page have the same elements.
        let html =
            "document.querySelector('.message .quote').outerHTML.replace(' data-me=\"\"', '')";
        let pushed: String = bob.get(html).await;
        anna.reload().await;
        anna.is_somebody().await;
        anna.sees(QUOTE).await;
        assert_eq!(anna.get::<String>(html).await, pushed);
    })
    .await;
}

#[tokio::test]
async fn a_refused_reply_comes_back_with_what_it_replies_to() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        anna.says("hello").await;
        bob.hears("hello").await;
        bob.hovers(".message").await;
        bob.click("#quick [data-reply]").await;
        bob.writes("/nonsense").await;
        bob.presses(Key::Enter).await;
        bob.sees("#notice .notice__text").await;
        bob.sees("#replying").await;
        assert_eq!(bob.written().await, "/nonsense");
    })
    .await;
}

#[tokio::test]
async fn a_reply_to_a_message_that_quotes_names_its_first_line() {
    let server = Server::start(&["--unlimited"]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let a = anna.name().await;
        anna.sends("> so they say\nI doubt it").await;
        bob.sees(".message blockquote").await;
        bob.hovers(".message").await;
        bob.click("#quick [data-reply]").await;
        shows(&bob, BAR, &format!("{a} so they say")).await;
    })
    .await;
}
