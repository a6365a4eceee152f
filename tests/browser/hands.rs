//! By keyboard only, on a small screen, with a screen reader, and in both colour schemes.

use serde_json::{Value, json};
use thirtyfour::prelude::Key;

use crate::browser::{Browser, Tab, story};
use crate::server::Server;

/// The element with the focus: its id, or its text.
const FOCUSED: &str = "document.activeElement.id || document.activeElement.textContent.trim()";

async fn focused(tab: &Tab<'_>) -> String {
    tab.get(FOCUSED).await
}

#[tokio::test]
async fn everything_works_by_keyboard() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        anna.sized(1000, 800).await;
        anna.sees(&format!("#users-online [data-user='{b}']")).await;
        anna.until("document.querySelector('#room-count').textContent.trim() === '2'")
            .await;
        anna.run("document.querySelector('.skip').focus()").await;

        // Through the page in reading order, every stop visible.
        let mut stops = Vec::new();
        loop {
            let stop: String = anna
                .get("(({ id, ariaLabel, textContent }) => id || ariaLabel || textContent.trim())(document.activeElement)")
                .await;
            let ring = "document.activeElement === document.body \
                        || getComputedStyle(document.activeElement).outlineStyle !== 'none'";
            assert!(
                anna.get::<bool>(ring).await,
                "the focus on {stop} can be seen"
            );
            stops.push(stop);
            if stops.last().unwrap() == "send" {
                break;
            }
            assert!(stops.len() < 30, "{stops:?}");
            anna.presses(Key::Tab).await;
        }
        let person = stops.iter().position(|stop| stop.contains(&b)).unwrap();
        stops[person] = "bob".to_owned();
        let order = [
            "Skip to the message box",
            "Sign in or register",
            "Change display name",
            "Notifications, off",
            "search",
            "Mentions",
            "New group",
            "#hi",
            "#python",
            "#events",
            "#off-topic",
            "All groups",
            "people-search",
            "bob",
            "2 online: show people",
            "Menu of this room",
            "scroller",
            "Dismiss",
            "attach",
            "message-text",
            "send",
        ];
        assert_eq!(stops, order);

        // The skip link, a room, a person, the search, a message.
        anna.run("document.querySelector('.skip').focus()").await;
        anna.sees(".skip").await;
        anna.presses(Key::Enter).await;
        anna.until("document.activeElement.id === 'message-text'")
            .await;
        assert_eq!(anna.path().await, "/chat/hi/");
        anna.run("document.querySelector('#groups-list [data-group-name=python]').focus()")
            .await;
        anna.presses(Key::Enter).await;
        anna.is_in("#python", "/chat/python/").await;
        anna.until("document.activeElement.id === 'message-text'")
            .await;
        anna.types("by hand").await;
        anna.presses(Key::Tab).await;
        assert_eq!(focused(&anna).await, "send");
        anna.presses(Key::Enter).await;
        anna.hears("by hand").await;
        assert_eq!(focused(&anna).await, "message-text");
        anna.run("document.querySelector('#people-search').focus()")
            .await;
        anna.types(&b).await;
        anna.sees(&format!("#users-found [data-user='{b}']")).await;
        anna.presses(Key::Tab).await;
        anna.presses(Key::Enter).await;
        anna.is_in(&b, &format!("/chat/@{b}/")).await;
        anna.until("document.activeElement.id === 'message-text'")
            .await;
        anna.types("for you").await;
        anna.presses(Key::Enter).await;
        bob.sees(&format!("#users-mine [data-user='{a}'][data-unread]"))
            .await;
    })
    .await;
}

#[tokio::test]
async fn on_a_small_screen_the_sidebar_is_a_drawer() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.window().await;
        anna.sized(360, 640).await;
        anna.goto(&server.url("/")).await;
        anna.is_somebody().await;
        assert!(!anna.shows("#aside").await);
        let fits = "document.documentElement.scrollWidth <= 360";
        assert!(anna.get::<bool>(fits).await);
        anna.says("from a small screen").await;

        anna.run("document.querySelector('#aside-open').focus()")
            .await;
        anna.presses(Key::Enter).await;
        anna.sees("#logged-user [data-user]").await;
        anna.presses(Key::Escape).await;
        anna.sees_no("#aside").await;
        assert_eq!(focused(&anna).await, "aside-open");

        anna.click("#aside-open").await;
        anna.click(".aside__close").await;
        anna.sees_no("#aside").await;

        anna.click("#aside-open").await;
        anna.enters("python").await;
        anna.sees_no("#aside").await;
        assert!(anna.get::<bool>(fits).await);
        anna.says("W".repeat(200).as_str()).await;
        assert!(anna.get::<bool>(fits).await);

        // An unread mark is visible while the drawer is closed.
        let bob = browser.person(&server.url("/")).await;
        bob.meets(&anna.name().await).await;
        bob.says("hello").await;
        anna.until("document.title.startsWith('(1) ')").await;
        anna.click("#aside-open").await;
        anna.sees("#users-mine .badge").await;
        anna.meets(&bob.name().await).await;
        anna.hears("hello").await;
    })
    .await;
}

#[tokio::test]
async fn controls_have_names_and_new_messages_are_announced_once() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        bob.says("hello").await;
        anna.hears("hello").await;
        anna.meets(&bob.name().await).await;
        anna.says("psst").await;
        let log: Value = anna
            .get(
                "(({ role, ariaLive, ariaLabel }) => [role, ariaLive, ariaLabel])\
                  (document.querySelector('#messages-list'))",
            )
            .await;
        assert_eq!(log, json!(["log", "off", "Messages"]));
        // Only what others write is announced, once: neither history nor my own messages nor edits.
        let said =
            "[...document.querySelectorAll('#announcements p')].map((one) => one.textContent)";
        anna.enters("hi").await;
        anna.hears("hello").await;
        anna.says("mine").await;
        bob.says("first").await;
        bob.says("second").await;
        anna.hears("second").await;
        bob.presses(thirtyfour::Key::Up).await;
        bob.sees("#message-form textarea").await;
        bob.types(" edited").await;
        bob.presses(thirtyfour::Key::Enter).await;
        anna.hears("second edited").await;
        let b = bob.name().await;
        let expected = ["hello", "first", "second"].map(|text| format!("{b}: {text}"));
        assert_eq!(anna.get::<Vec<String>>(said).await, expected);
        assert_eq!(
            anna.get::<String>("document.querySelector('#notice').role")
                .await,
            "status"
        );
        assert_eq!(
            anna.get::<String>("document.documentElement.lang").await,
            "en"
        );
        let viewport: String = anna
            .get("document.querySelector('[name=viewport]').content")
            .await;
        assert!(
            !viewport.contains("maximum-scale") && !viewport.contains("user-scalable"),
            "zoom"
        );

        // For a screen reader: every control has a name.
        anna.devtools("Accessibility.enable", json!({})).await;
        let tree = anna
            .devtools("Accessibility.getFullAXTree", json!({}))
            .await;
        let nodes = tree["nodes"].as_array().unwrap();
        let mut controls = Vec::new();
        for node in nodes.iter().filter(|node| node["ignored"] != json!(true)) {
            let role = node["role"]["value"].as_str().unwrap_or_default();
            let name = node["name"]["value"].as_str().unwrap_or_default();
            if [
                "button",
                "link",
                "textbox",
                "combobox",
                "searchbox",
                "navigation",
                "log",
            ]
            .contains(&role)
            {
                assert!(!name.trim().is_empty(), "{node}");
                controls.push(format!("{role} {name}"));
            }
        }
        for control in [
            "button Send",
            "textbox Message",
            "searchbox People",
            "log Messages",
            "link #python",
        ] {
            assert!(
                controls.iter().any(|one| one == control),
                "{control}: {controls:?}"
            );
        }
    })
    .await;
}

/// The visible texts whose contrast with their background is too low.
const FAINT: &str = r"(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const paint = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
      value /= 255;
      return value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
    });
  };
  const light = ([red, green, blue]) => .2126 * red + .7152 * green + .0722 * blue;
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement, { width } = one.getBoundingClientRect();
    const seen = one.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    if (!walker.currentNode.data.trim() || !seen || width <= 1 || one.closest('.skip')) continue;
    if (one.closest(':disabled')) continue;
    const behind = [];
    for (let node = one; node; node = node.parentElement) behind.unshift(getComputedStyle(node).backgroundColor);
    const { color } = getComputedStyle(one);
    const [a, b] = [light(paint(['Canvas', ...behind])), light(paint(['Canvas', ...behind, color]))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) faint.push(`${one.className} ${one.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return faint;
})()";

async fn in_colours(browser: &Browser, server: &mut Server, scheme: &str) {
    let anna = browser.window().await;
    let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    anna.devtools("Emulation.setEmulatedMedia", media).await;
    anna.goto(&server.url("/chat/python/")).await;
    anna.is_somebody().await;
    assert!(
        anna.get::<bool>(&format!(
            "matchMedia('(prefers-color-scheme: {scheme})').matches"
        ))
        .await
    );
    let bob = browser.person(&server.url("/chat/python/")).await;
    bob.says("from bob").await;
    anna.says("from anna").await;
    bob.meets(&anna.name().await).await;
    bob.says("psst").await;
    anna.sees("#users-mine .badge").await;
    // A notice, a waiting text, a refused one, a lost connection.
    anna.sends("/nonsense").await;
    anna.sees("#notice [data-tone=refusal]").await;
    assert_eq!(
        anna.get::<Vec<String>>(FAINT).await,
        Vec::<String>::new(),
        "{scheme}"
    );
    server.dies();
    anna.sees(".state__lost").await;
    // What was refused is in the box again.
    anna.run(
        "document.querySelector('#notice').replaceChildren();
         document.querySelector('#message-text').value = '';",
    )
    .await;
    anna.sends("/nonsense again").await;
    anna.sees(".waiting[data-state=waiting]").await;
    assert_eq!(
        anna.get::<Vec<String>>(FAINT).await,
        Vec::<String>::new(),
        "{scheme}, offline"
    );
    server.starts_again();
    anna.sees("#notice [data-tone=refusal]").await;
    assert_eq!(
        anna.get::<Vec<String>>(FAINT).await,
        Vec::<String>::new(),
        "{scheme}, refused"
    );
    let colour = "getComputedStyle(document.querySelector('.message > p')).color";
    anna.run(&format!("document.body.style.background = {colour}"))
        .await;
    let faint: Vec<String> = anna.get(FAINT).await;
    assert!(!faint.is_empty(), "the measure measures");
}

#[tokio::test]
async fn every_text_has_enough_contrast_in_both_colour_schemes() {
    let mut server = Server::start(&["--message-characters", "60"]);
    story(async |browser| {
        in_colours(browser, &mut server, "light").await;
        in_colours(browser, &mut server, "dark").await;
    })
    .await;
}
