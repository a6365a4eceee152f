//! Writing and reading in a room.

use std::panic::resume_unwind;

use serde_json::{Value, json};
use thirtyfour::prelude::Key;

use crate::browser::{TEXTS, Tab, story, watched};
use crate::server::Server;
use crate::wire::Wire;

/// How far the end of the list is below the view.
const TO_END: &str = "(({ scrollHeight, scrollTop, clientHeight }) => \
    scrollHeight - scrollTop - clientHeight)(document.querySelector('#scroller'))";

async fn is_at_end(tab: &Tab<'_>) {
    tab.until(&format!("{TO_END} < 2")).await;
}

async fn scrolls_to(tab: &Tab<'_>, top: u32) {
    // The position changes at once; the page gets the event a frame later.
    tab.run(&format!(
        "document.querySelector('#scroller').scrollTop = {top}"
    ))
    .await;
    tab.run("window.framed = false; requestAnimationFrame(() => requestAnimationFrame(() => framed = true))").await;
    tab.until("framed").await;
}

#[tokio::test]
async fn a_message_appears_for_everyone_with_its_author_and_local_time() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.window().await;
        let bob = browser.window().await;
        let kolkata = json!({ "timezoneId": "Asia/Kolkata" });
        bob.devtools("Emulation.setTimezoneOverride", kolkata).await;
        let lima = json!({ "timezoneId": "America/Lima" });
        anna.devtools("Emulation.setTimezoneOverride", lima).await;
        anna.goto(&server.url("/")).await;
        bob.goto(&server.url("/")).await;
        let (a, _) = (anna.name().await, bob.name().await);
        anna.says("first\n  second").await;
        bob.hears("first\n  second").await;
        for (tab, minutes) in [(&anna, -300), (&bob, 330)] {
            assert_eq!(tab.text(".message > b").await, a);
            let initials = a[..1].to_uppercase() + &a[1..2];
            let face =
                "getComputedStyle(document.querySelector('.message > b'), '::before').content";
            assert_eq!(
                tab.get::<String>(face).await,
                format!("\"{initials}\" / \"\"")
            );
            let utc: String = tab
                .get("document.querySelector('.message time').dateTime")
                .await;
            assert!(utc.ends_with('Z') && utc.len() >= 20, "{utc}");
            let shown = format!(
                "document.querySelector('.message time').textContent === \
                 new Date(Date.parse({}) + {minutes} * 60000) \
                 .toLocaleTimeString([], {{ timeStyle: 'short', timeZone: 'UTC' }})",
                json!(utc)
            );
            assert!(tab.get::<bool>(&shown).await, "local time");
            let height = "document.querySelector('.message > p').clientHeight >= 40";
            assert!(tab.get::<bool>(height).await, "two lines");
        }
        // The same in the page as it is rendered after a reload.
        bob.reload().await;
        bob.is_somebody().await;
        let utc: String = bob
            .get("document.querySelector('.message time').textContent")
            .await;
        assert_ne!(anna.text(".message time").await, utc);
    })
    .await;
}

/// Browsers keep some of what they can do, such as `crypto.randomUUID`, for https.
#[tokio::test]
async fn a_chat_works_without_https() {
    let server = Server::start(&[]);
    let resolve = "--host-resolver-rules=MAP chat.lan 127.0.0.1";
    let (reports, told) = watched(&[resolve], async |browser| {
        let url = format!("http://chat.lan:{}/", server.address.port());
        let anna = browser.person(&url).await;
        let bob = browser.person(&url).await;
        assert!(!anna.get::<bool>("window.isSecureContext").await);
        anna.says("hello").await;
        anna.says("hello").await;
        bob.says("hi").await;
        anna.hears("hi").await;
        assert_eq!(anna.texts().await, ["hello", "hello", "hi"]);
    })
    .await;
    told.unwrap_or_else(|panic| resume_unwind(panic));
    // Chromium reports for each page that it ignores a header meant for https.
    let header = "The Cross-Origin-Opener-Policy header has been ignored";
    let errors: Vec<_> = reports
        .iter()
        .filter(|report| !report.contains(header))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[tokio::test]
async fn enter_sends_and_nothing_else_does() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;

        // Nothing empty is sent.
        anna.sends("").await;
        anna.sends("  ").await;
        anna.presses_with(Key::Shift, Key::Enter).await;
        anna.presses(Key::Enter).await;
        anna.click("#send").await;
        assert_eq!(anna.written().await, "  \n");
        anna.run("document.querySelector('#message-text').select()").await;

        // A line break, a double click on the button, the focus.
        anna.writes("one\ntwo").await;
        assert_eq!(anna.written().await, "one\ntwo");
        anna.run("const send = document.querySelector('#send'); send.click(); send.click()").await;
        bob.hears("one\ntwo").await;
        assert_eq!(anna.get::<String>("document.activeElement.id").await, "message-text");
        assert_eq!(anna.written().await, "");
        anna.is_settled().await;
        assert_eq!(anna.texts().await, ["one\ntwo"]);

        // With an input method, the first Enter accepts the word and the next one sends.
        let word = json!({ "text": "にほん", "selectionStart": 3, "selectionEnd": 3 });
        anna.devtools("Input.imeSetComposition", word).await;
        anna.until("document.querySelector('#message-text').value === 'にほん'").await;
        anna.run(
            "document.addEventListener('keydown', (event) => window.composing = event.isComposing)",
        )
        .await;
        for kind in ["rawKeyDown", "keyUp"] {
            let enter = json!({ "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13 });
            anna.devtools("Input.dispatchKeyEvent", enter).await;
        }
        anna.until("window.composing === true").await;
        assert_eq!(anna.written().await, "にほん");
        anna.devtools("Input.insertText", json!({ "text": "日本" })).await;
        anna.until("document.querySelector('#message-text').value === '日本'").await;
        anna.presses(Key::Enter).await;
        bob.hears("日本").await;
        anna.is_settled().await;

        // Enter on the keypad, and emoji.
        anna.devtools("Input.insertText", json!({ "text": "👩‍👩‍👧 שלום" })).await;
        anna.click("#send").await;
        bob.hears("👩‍👩‍👧 שלום").await;
        assert_eq!(bob.texts().await, ["one\ntwo", "日本", "👩‍👩‍👧 שלום"]);
    })
    .await;
    assert_eq!(server.stored("one\ntwo"), 1);
}

#[tokio::test]
async fn markup_stays_text() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let evil = "<script>window.evil = 1</script><img src=x onerror='evil = 2'>\
                    </p></article><h1 id=main>&lt;b&gt; \"'</h1> {{ 7 * 7 }}";
        anna.says(evil).await;
        bob.hears(evil).await;
        bob.reload().await;
        bob.is_somebody().await;
        assert_eq!(bob.texts().await, [evil]);
        for tab in [&anna, &bob] {
            assert!(tab.get::<bool>("window.evil === undefined").await);
            assert!(
                tab.get::<bool>("!document.querySelector('#messages-list :is(img, script, h1)')")
                    .await
            );
        }
        let long = "W".repeat(400);
        anna.says(&long).await;
        bob.hears(&long).await;
        assert!(
            bob.get::<bool>("document.documentElement.scrollWidth <= innerWidth")
                .await
        );
        let inside = "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)\
                      (document.querySelector('#scroller'))";
        assert!(bob.get::<bool>(inside).await, "a long word is broken");
    })
    .await;
}

#[tokio::test]
async fn typing_selection_and_place_survive_new_messages() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        bob.says("something to select").await;
        anna.hears("something to select").await;
        anna.writes("half a thought").await;
        anna.run(
            "const box = document.querySelector('#message-text');
             box.setSelectionRange(2, 6);
             window.node = document.querySelector('.message')",
        )
        .await;
        bob.says("while anna types").await;
        bob.says("and types").await;
        anna.hears("and types").await;
        let state: Value = anna
            .get(
                "(({ id, value, selectionStart, selectionEnd }) => \
                  [id, value, selectionStart, selectionEnd])(document.activeElement)",
            )
            .await;
        assert_eq!(state, json!(["message-text", "half a thought", 2, 6]));
        assert!(anna.get::<bool>("node.isConnected").await);

        anna.run("getSelection().selectAllChildren(node.querySelector('.message > p'))")
            .await;
        let carl = browser.person(&server.url("/")).await;
        let c = carl.name().await;
        anna.sees(&format!("#users-online [data-user='{c}']")).await;
        bob.says("once more").await;
        anna.hears("once more").await;
        assert_eq!(
            anna.get::<String>("getSelection().toString()").await,
            "something to select"
        );
        assert_eq!(anna.written().await, "half a thought");
    })
    .await;
}

#[tokio::test]
async fn the_list_scrolls_along_only_for_readers_at_its_end() {
    let server = Server::start(&["--unlimited"]);
    let mut carl = Wire::connect(&server, "/chat/hi/").await;
    carl.says((1..=40).map(|number| format!("number {number}")))
        .await;
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        is_at_end(&anna).await;
        carl.says(["followed".to_owned()]).await;
        anna.hears("followed").await;
        is_at_end(&anna).await;
        assert!(!anna.shows("#new-messages").await);

        scrolls_to(&anna, 300).await;
        carl.says(["not followed".to_owned()]).await;
        anna.hears("not followed").await;
        anna.sees("#new-messages").await;
        let top: f64 = anna
            .get("document.querySelector('#scroller').scrollTop")
            .await;
        assert!((top - 300.).abs() < 2., "the place is kept: {top}");
        anna.click("#new-messages").await;
        is_at_end(&anna).await;
        anna.sees_no("#new-messages").await;
        assert_eq!(
            anna.get::<String>("document.activeElement.id").await,
            "message-text"
        );

        // Those that are deleted meanwhile are no longer counted.
        scrolls_to(&anna, 300).await;
        carl.says(["kept".to_owned(), "deleted".to_owned()]).await;
        let button = "document.querySelector('#new-messages').textContent";
        anna.until(&format!("{button} === '2 new messages ↓'"))
            .await;
        let last = "[...document.querySelectorAll('.message')].at(-1).id.slice('message-'.length)";
        let last: String = anna.get(last).await;
        let room: String = anna
            .get("document.querySelector('#messages-list').dataset.room")
            .await;
        let message: i64 = last.parse().unwrap();
        carl.does(
            "Delete message",
            &json!({ "message": message, "room": room }),
        );
        anna.until(&format!("{button} === '1 new message ↓'")).await;
        anna.click("#new-messages").await;

        // Scrolling to the end has the same effect as the button.
        scrolls_to(&anna, 300).await;
        carl.says(["again".to_owned()]).await;
        anna.sees("#new-messages").await;
        scrolls_to(&anna, 1_000_000).await;
        anna.sees_no("#new-messages").await;

        // One's own message always scrolls to the end.
        scrolls_to(&anna, 300).await;
        anna.says("mine").await;
        is_at_end(&anna).await;

        // A growing box and a shrinking window keep the end in view.
        anna.writes("1\n2\n3\n4\n5").await;
        is_at_end(&anna).await;
        anna.sized(700, 420).await;
        is_at_end(&anna).await;
        anna.run("document.querySelector('#message-text').select()")
            .await;
        anna.presses(Key::Delete).await;
        carl.says((1..=20).map(|number| format!("{number} {}", "many words ".repeat(30))))
            .await;
        for width in [360, 1280, 500, 900, 360] {
            anna.sized(width, 700).await;
            is_at_end(&anna).await;
            assert!(!anna.shows("#new-messages").await);
        }
    })
    .await;
}

#[tokio::test]
async fn older_messages_load_while_scrolling_and_the_place_is_kept() {
    let server = Server::start(&["--unlimited"]);
    let mut carl = Wire::connect(&server, "/chat/hi/").await;
    carl.says((1..=120).map(|number| format!("number {number}")))
        .await;
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        is_at_end(&anna).await;
        assert_eq!(anna.texts().await.len(), 50);
        scrolls_to(&anna, 400).await;
        anna.run(
            "const top = document.querySelector('#scroller').getBoundingClientRect().top;
             window.place = (node) => node.getBoundingClientRect().top;
             window.kept = [...document.querySelectorAll('.message')].find((one) => place(one) >= top);
             window.was = place(kept)",
        )
        .await;
        anna.until(&format!("{TEXTS}.length === 100")).await;
        // A frame later nothing has moved.
        anna.run("requestAnimationFrame(() => window.moved = place(kept) - was)").await;
        anna.until("window.moved !== undefined").await;
        let moved: f64 = anna.get("moved").await;
        assert!(moved.abs() < 2., "moved by {moved}");
        scrolls_to(&anna, 0).await;
        anna.until(&format!("{TEXTS}.length === 120")).await;
        anna.sees(".older__start").await;
        let all: Vec<_> = (1..=120).map(|number| format!("number {number}")).collect();
        assert_eq!(anna.texts().await, all);
        assert_eq!(anna.get::<u32>("document.querySelectorAll('#messages-older').length").await, 1);

        // With the button, without a wheel.
        anna.reload().await;
        anna.is_somebody().await;
        anna.run("document.querySelector('.older__more').focus({ preventScroll: true })").await;
        anna.presses(Key::Enter).await;
        anna.until(&format!("{TEXTS}.length >= 100")).await;
    })
    .await;
}

#[tokio::test]
async fn a_tab_left_open_keeps_the_newest_five_hundred_messages() {
    let server = Server::start(&["--unlimited", "--synchronous", "normal"]);
    let mut carl = Wire::connect(&server, "/chat/hi/").await;
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        carl.says((1..=560).map(|number| format!("number {number}")))
            .await;
        anna.hears("number 560").await;
        let texts = anna.texts().await;
        assert_eq!(texts.last().unwrap(), "number 560");
        assert_eq!(texts.len(), 500);
        assert_eq!(texts[0], "number 61");
        is_at_end(&anna).await;
        // Removed messages can be loaded again.
        scrolls_to(&anna, 0).await;
        anna.until(&format!("{TEXTS}[0] === 'number 11'")).await;
    })
    .await;
}

#[tokio::test]
async fn others_see_that_i_am_typing_until_it_is_sent() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let words = format!("{} is typing", anna.name().await);
        anna.writes("hel").await;
        bob.until(&format!(
            "document.querySelector('#room-typing').textContent.trim() === '{words}'"
        ))
        .await;
        assert_eq!(anna.text("#room-typing").await, "");
        anna.sends("lo").await;
        bob.hears("hello").await;
        bob.until("document.querySelector('#room-typing').textContent.trim() === ''")
            .await;
    })
    .await;
}
