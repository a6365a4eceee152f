//! Editing and deleting one's own messages.

use thirtyfour::Key;

use crate::accounts::keeps;
use crate::browser::{TEXTS, Tab, story};
use crate::server::Server;

const FORM: &str = "#message-form textarea";

/// Whether such an element has the focus.
async fn is_focused(tab: &Tab<'_>, selector: &str) {
    tab.until(&format!("document.activeElement.matches('{selector}')"))
        .await;
}

#[tokio::test]
async fn arrow_up_edits_my_last_message_and_everybody_sees_it() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        anna.says("my first").await;
        anna.says("my lsat").await;
        bob.says("not hers").await;
        anna.hears("not hers").await;

        // Not while something is being written.
        anna.writes("x").await;
        anna.presses(Key::Up).await;
        anna.presses(Key::Delete).await;
        assert!(!anna.shows(FORM).await);

        anna.presses(Key::Up).await;
        anna.sees(FORM).await;
        is_focused(&anna, FORM).await;
        let text = format!("document.querySelector('{FORM}').value");
        assert_eq!(anna.get::<String>(&text).await, "my lsat");
        // Escape changes nothing.
        anna.types(" that I do not want").await;
        anna.presses(Key::Escape).await;
        anna.sees_no(FORM).await;
        is_focused(&anna, "#message-text").await;

        anna.presses(Key::Up).await;
        is_focused(&anna, FORM).await;
        anna.run(&format!("document.querySelector('{FORM}').select()"))
            .await;
        anna.types("my last").await;
        anna.presses_with(Key::Shift, Key::Enter).await;
        anna.types("in two lines").await;
        // Messages that arrive in the meantime do not disturb it.
        bob.says("meanwhile").await;
        anna.hears("meanwhile").await;
        is_focused(&anna, FORM).await;
        anna.presses(Key::Enter).await;
        for tab in [&anna, &bob] {
            tab.hears("my last\nin two lines").await;
            let texts = ["my first", "my last\nin two lines", "not hers", "meanwhile"];
            assert_eq!(tab.texts().await, texts);
            tab.sees(".message[data-edited]").await;
        }
        anna.sees_no(FORM).await;
        is_focused(&anna, "#message-text").await;
        assert_eq!(anna.written().await, "");
    })
    .await;
}

#[tokio::test]
async fn an_edit_waits_for_the_connection_and_is_a_draft_when_its_message_is_deleted() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        anna.says("my lsat").await;
        bob.hears("my lsat").await;
        anna.presses(Key::Up).await;
        is_focused(&anna, FORM).await;
        anna.run(&format!("document.querySelector('{FORM}').select()"))
            .await;
        anna.types("my last").await;
        server.dies();
        anna.sees(".state__lost").await;
        anna.presses(Key::Enter).await;
        anna.sees("#message-form [data-unsaved]").await;
        server.starts_again();
        bob.hears("my last").await;
        anna.sees_no(FORM).await;

        // Deleted in another tab of mine.
        keeps(&anna, &anna.name().await).await;
        let beside = browser.person(&server.url("/")).await;
        beside.hears("my last").await;
        anna.presses(Key::Up).await;
        is_focused(&anna, FORM).await;
        anna.types(", improved").await;
        beside.run(
            "const { send } = await import(document.querySelector('[href*=\"js/runtime\"]').href); \
             send('Delete message', { message: Number(document.querySelector('.message').id.slice(8)) })",
        )
        .await;
        anna.sees(".message--deleted").await;
        anna.sees_no(FORM).await;
        assert_eq!(anna.written().await, "my last, improved");
    })
    .await;
}

#[tokio::test]
async fn only_my_own_messages_can_be_deleted() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let a = anna.name().await;
        anna.says("regretted").await;
        bob.says("kept").await;
        anna.hears("kept").await;
        bob.hovers(".message").await;
        bob.click(".message .change").await;
        bob.sees("#message-form [data-action=React]").await;
        assert!(
            !bob.shows("#message-form [data-action='Delete message']")
                .await
        );
        bob.presses(Key::Escape).await;
        bob.sees_no("#message-form > *").await;
        anna.run("document.querySelector('.message .change').focus()")
            .await;
        anna.click(".message .change").await;
        anna.click("#message-form summary").await;
        anna.click("#message-form [data-action='Delete message']")
            .await;
        let line = format!("{a} deleted a message.");
        for tab in [&anna, &bob] {
            tab.hears(&line).await;
            assert_eq!(tab.texts().await, [line.as_str(), "kept"]);
        }
        anna.sees_no(FORM).await;
        assert!(!anna.shows(".message--deleted button").await);

        // An open form closes when I enter another room.
        bob.run("document.querySelector('#message-text').focus()")
            .await;
        bob.presses(Key::Up).await;
        bob.sees(FORM).await;
        bob.enters("python").await;
        bob.sees_no(FORM).await;
        bob.until(&format!("{TEXTS}.length === 0")).await;
    })
    .await;
}

#[tokio::test]
async fn the_menu_of_a_message_does_not_hide_it() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.sized(1000, 700).await;
        for number in 0..40 {
            anna.says(&number.to_string()).await;
        }
        let opens = async |which: &str| {
            anna.run(&format!(
                "const list = document.querySelector('#scroller').getBoundingClientRect();
                 const opened = [...document.querySelectorAll('.message')].{which};
                 document.querySelector('.opened')?.classList.remove('opened');
                 opened.classList.add('opened');
                 opened.querySelector('.change').click();"
            ))
            .await;
            anna.sees("#message-form [data-action=React]").await;
            anna.until(
                "(({ top, bottom }) => {
                    const list = document.querySelector('#scroller').getBoundingClientRect();
                    return top > list.top + 30 && bottom <= list.bottom;
                })(document.querySelector('.opened').getBoundingClientRect())",
            )
            .await;
        };
        // The highest that is in view while the end is.
        opens("find((message) => message.getBoundingClientRect().top > list.top + 40)").await;
        // Closed, the end is in view again.
        anna.presses(Key::Escape).await;
        anna.sees_no("#message-form > *").await;
        anna.until(
            "(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight < 1)\
             (document.querySelector('#scroller'))",
        )
        .await;
        // The lowest that is in view while the end is not.
        anna.run("document.querySelector('#scroller').scrollTop -= 200")
            .await;
        opens("findLast((message) => message.getBoundingClientRect().bottom < list.bottom)").await;
    })
    .await;
}
