//! Barriers for people who use a screen reader, the keyboard, large text or a phone, as axe-core finds them.

use std::path::Path;

use serde_json::json;
use thirtyfour::Key;

use crate::browser::{Tab, story, story_with};
use crate::moderation::becomes_moderator;
use crate::server::Server;

/// What axe-core finds in a page, with the first element of each finding. While it has a list, a text of several
/// lines is a combobox: HTML has no other element for that.
const FINDINGS: &str = "(await axe.run(document, { resultTypes: ['violations'] })).violations
    .filter(({ id, nodes }) => id !== 'aria-allowed-role' || !nodes[0].html.startsWith('<textarea'))
    .map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`)";

/// Looks at a view in both colour schemes, on a desk and on a phone.
async fn is_open_to_all(tab: &Tab<'_>, view: &str) {
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("node_modules/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(axe).expect("npm ci has installed axe-core");
    for (width, height) in [(360, 720), (1280, 800)] {
        tab.sized(width, height).await;
        for scheme in ["light", "dark"] {
            let media =
                json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            tab.devtools("Emulation.setEmulatedMedia", media).await;
            // Colours fade when the scheme changes.
            tab.run("document.getAnimations().forEach((one) => one.finish())")
                .await;
            tab.run(&format!("if (!window.axe) {{ {axe} }}")).await;
            tab.run("window.found = null").await;
            tab.run(&format!("(async () => {{ window.found = {FINDINGS}; }})()"))
                .await;
            tab.until("window.found").await;
            let found: Vec<String> = tab.get("window.found").await;
            assert_eq!(found, Vec::<String>::new(), "{view}, {width}, {scheme}");
            let inside = "document.documentElement.scrollWidth <= innerWidth";
            assert!(
                tab.get::<bool>(inside).await,
                "{view} scrolls sideways, {width}"
            );
        }
    }
    tab.sized(1280, 800).await;
}

/// The visible buttons and links of lists that are too small for a finger.
const SMALL: &str =
    "[...document.querySelectorAll('button:not(.change), summary, .nav__link')].filter((one) => {
    const { width, height } = one.getBoundingClientRect();
    return one.checkVisibility({ visibilityProperty: true, opacityProperty: true })
        && (width < 44 || height < 44);
}).map((one) => one.outerHTML)";

#[tokio::test]
async fn every_control_is_large_enough_for_a_finger() {
    let server = Server::start(&[]);
    let touch = "--blink-settings=primaryHoverType=1,availableHoverTypes=1,\
        primaryPointerType=2,availablePointerTypes=2";
    story_with(&[touch], async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.sized(360, 740).await;
        anna.says("one").await;
        anna.says("two").await;
        // The dots of a message look smaller than they are.
        let reached = "(() => {
            const dots = [...document.querySelectorAll('.message .change')].at(-1);
            const { x, y, width, height } = dots.getBoundingClientRect();
            return [[-21, 0], [21, 0], [0, -21], [0, 21]].filter(([right, down]) =>
                document.elementFromPoint(x + width / 2 + right, y + height / 2 + down) === dots);
        })()";
        assert_eq!(anna.get::<Vec<(i32, i32)>>(reached).await.len(), 4);
        for (control, shown) in [
            ("#room-menu > button", "#room-menu .menu__item"),
            ("#aside-open", ".add"),
            (".add", ".new-group button"),
        ] {
            anna.click(control).await;
            anna.sees(shown).await;
            assert_eq!(anna.get::<Vec<String>>(SMALL).await, [""; 0], "{shown}");
            if control == "#room-menu > button" {
                anna.presses(Key::Escape).await;
                anna.sees_no(shown).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn axe_finds_nothing_in_any_view() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        bob.says("Have a look: https://a.example/").await;
        anna.says("Nice!").await;
        bob.meets(&a).await;
        bob.says("psst").await;
        anna.sees("#users-mine .badge").await;
        anna.run("document.querySelector('.message .change').click()")
            .await;
        anna.click("#message-form .chip").await;
        anna.sees(".reactions .chip").await;
        is_open_to_all(&anna, "a group").await;
        anna.presses(Key::Up).await;
        anna.sees("#message-form textarea").await;
        is_open_to_all(&anna, "the form of a message").await;
        anna.presses(Key::Escape).await;
        anna.writes("@").await;
        anna.sees("#completions [role=option]").await;
        is_open_to_all(&anna, "completions").await;
        anna.presses(Key::Escape).await;
        anna.presses(Key::Backspace).await;
        anna.presses_with(Key::Control, 'k').await;
        anna.sees("#rooms-found [aria-selected=true]").await;
        is_open_to_all(&anna, "the switcher").await;
        anna.presses(Key::Escape).await;
        anna.run("document.querySelector('#scroller').focus()")
            .await;
        anna.types("?").await;
        anna.sees("#keys").await;
        is_open_to_all(&anna, "the keys").await;
        anna.presses(Key::Escape).await;
        anna.click("#room-menu button").await;
        is_open_to_all(&anna, "the menu of a group").await;
        anna.presses(Key::Escape).await;
        anna.click("#name-form .me__change").await;
        is_open_to_all(&anna, "the display name").await;
        anna.presses(Key::Escape).await;
        anna.click("[popovertarget=my-account]").await;
        is_open_to_all(&anna, "signing in").await;
        anna.presses(Key::Escape).await;
        anna.meets(&b).await;
        anna.hears("psst").await;
        is_open_to_all(&anna, "a private room").await;
        anna.enters("events").await;
        is_open_to_all(&anna, "an empty group").await;
        anna.sends("/nonsense").await;
        anna.sees("#notice .notice").await;
        is_open_to_all(&anna, "a notice").await;
        anna.goto(&server.url("/search/?q=ni*")).await;
        anna.is_somebody().await;
        anna.sees(".found mark").await;
        is_open_to_all(&anna, "results of a search").await;
        anna.goto(&server.url("/search/?q=")).await;
        anna.is_somebody().await;
        anna.sees(".hints").await;
        is_open_to_all(&anna, "how to search").await;
        anna.goto(&server.url("/chat/")).await;
        anna.is_somebody().await;
        anna.sees("#lobby-rooms [data-group]").await;
        is_open_to_all(&anna, "all groups").await;
        anna.click("#groups-search").await;
        anna.types("nothing of that name").await;
        anna.sees("#lobby-found [data-action]").await;
        is_open_to_all(&anna, "a group that does not exist").await;
        becomes_moderator(&bob, &server).await;
        is_open_to_all(&bob, "the moderators' page").await;
    })
    .await;
}

#[tokio::test]
async fn names_of_groups_keep_their_order_from_right_to_left() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/chat/python/")).await;
        anna.run("document.documentElement.dir = 'rtl'").await;
        // Where the number sign is, and where the last letter is.
        let order = |place: &str| {
            format!(
                "(() => {{
                    const node = document.querySelector(\"{place}\").firstChild;
                    const range = document.createRange();
                    const left = (at) => {{
                        range.setStart(node, at);
                        range.setEnd(node, at + 1);
                        return range.getBoundingClientRect().left;
                    }};
                    return left(0) < left(node.length - 1);
                }})()"
            )
        };
        for place in ["#group-name bdi", "#groups-list [aria-current] bdi"] {
            assert!(anna.get::<bool>(&order(place)).await, "{place}");
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_at_four_hundred_per_cent() {
    let server = Server::start(&[]);
    story(async |browser| {
        // A window of 1280 by 1024 at 400 % is as large as one of 320 by 256.
        let anna = browser.window().await;
        anna.sized(320, 256).await;
        anna.goto(&server.url("/chat/python/")).await;
        anna.is_somebody().await;
        anna.says("a word and another and one more, which is longwordlongwordlongwordlongword")
            .await;
        assert!(
            anna.get::<bool>("document.documentElement.scrollWidth <= 320")
                .await
        );
        for part in [
            ".room",
            ".message > p",
            "#message-text",
            "#send",
            "#aside-open",
        ] {
            let place = format!("document.querySelector('{part}').getBoundingClientRect()");
            let fits = format!(
                "(({{ left, right, height }}) => left >= 0 && right <= 320 && height > 0)({place})"
            );
            assert!(anna.get::<bool>(&fits).await, "{part}");
        }
        anna.run(
            "const box = document.querySelector('#message-text');
             box.value = 'a'.repeat(4001);
             box.dispatchEvent(new Event('input', { bubbles: true }))",
        )
        .await;
        anna.sees(".composer .count").await;
        assert_eq!(anna.text(".composer .count").await, "−1");
        // The menu of a message leaves the composer in view, and its last entry can be scrolled to.
        anna.run("document.querySelector('#message-text').value = ''; document.querySelector('.message .change').click()")
            .await;
        anna.sees("#message-form summary").await;
        let bottom = "document.querySelector('#send').getBoundingClientRect().bottom <= 256";
        assert!(anna.get::<bool>(bottom).await, "the composer");
        anna.run("document.querySelector('.edit').scrollTop = 1e6")
            .await;
        let entry = "(({ x, y, width, height }) => document.elementFromPoint(x + width / 2, y + height / 2))\
            (document.querySelector('.edit summary').getBoundingClientRect()).closest('summary') !== null";
        anna.until(entry).await;
        // The directory, with people online.
        let [bob, _carl] = browser.people(&server.url("/chat/python/")).await;
        bob.says("here").await;
        anna.goto(&server.url("/chat/")).await;
        anna.until("document.querySelector('#lobby-rooms .here-count')?.innerText.includes('2 online')")
            .await;
        // As a group shows it whose last message is older.
        anna.run("document.querySelector('#lobby-rooms time').textContent = 'November 27, 2026'")
            .await;
        let joins = "[...document.querySelectorAll('.lobby__enter')].every((one) => one.getBoundingClientRect().right <= 320)";
        assert!(anna.get::<bool>(joins).await, "to join a group");
        anna.click("#aside-open").await;
        anna.sees("#groups-list a").await;
    })
    .await;
}
