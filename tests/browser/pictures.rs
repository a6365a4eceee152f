//! What the page looks like in common sizes and colours, for people to look at.
//! OVERWIRE_TEST_PICTURES names the folder for the pictures; those in `docs/` were made this way.
//! Without it the test runs with a few of them, so that it keeps working.

use std::path::{Path, PathBuf};

use serde_json::json;
use thirtyfour::prelude::Key;

use crate::browser::{Tab, story_with};
use crate::moderation::becomes_moderator;
use crate::server::Server;
use crate::wire::Wire;

/// Who says what, and how many minutes ago.
const TALK: [(usize, i64, &str); 14] = [
    (
        0,
        1510,
        "Anyone here tried the new t-strings in 3.14? I'm rewriting our mailer with them.",
    ),
    (
        1,
        1507,
        "Yes! Took me a moment to see that t\"…\" is not a str at all, it gives you a Template",
    ),
    (
        1,
        1506,
        "so you decide what happens to every {value} before it becomes text",
    ),
    (2, 1490, "That is exactly what I want for SQL"),
    (0, 1488, "Thanks, I'll try it tonight."),
    (
        3,
        64,
        "Morning! Is there a tidy way to group consecutive items? I keep writing the same loop.",
    ),
    (
        1,
        61,
        "`itertools.groupby`, if they are sorted by that key already:",
    ),
    (
        1,
        61,
        "```python\nfrom itertools import groupby\n\nfor day, lines in groupby(log, key=lambda line: line.day):\n    print(day, len(list(lines)))\n```",
    ),
    (3, 58, "Perfect, that is my loop. Thank you!"),
    (
        2,
        40,
        "Careful: each group is an iterator over the same source. Move on to the next day and the former one is gone.",
    ),
    (3, 37, "Good to know before and not after"),
    (
        0,
        12,
        "Who is coming to the meetup on Thursday? There will be a talk on free-threading, and pizza: https://meetup.example/python/2026/november",
    ),
    (2, 9, "Me! And I bring a friend who has just started."),
    (
        1,
        2,
        "I'm in. Somebody should bring a projector that works this time.",
    ),
];

async fn in_colours(tab: &Tab<'_>, scheme: &str) {
    let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    tab.devtools("Emulation.setEmulatedMedia", media).await;
}

/// Waits until changes have been drawn.
async fn settled(tab: &Tab<'_>) {
    tab.run(
        "window.framed = false;
         requestAnimationFrame(() => requestAnimationFrame(() => framed = true))",
    )
    .await;
    tab.until("window.framed").await;
}

/// One state of the page in three sizes and two colour schemes.
async fn pictures(tab: &Tab<'_>, folder: &Path, name: &str) {
    let wanted = std::env::var_os("OVERWIRE_TEST_PICTURES").is_some();
    let sizes: &[_] = match wanted {
        true => &[(360, 720), (768, 900), (1280, 800)],
        false => &[(360, 720), (1280, 800)],
    };
    for scheme in ["light", "dark"] {
        in_colours(tab, scheme).await;
        for &(width, height) in sizes {
            tab.sized(width, height).await;
            settled(tab).await;
            tab.screenshot(&folder.join(format!("{name}-{width}-{scheme}.png")))
                .await;
        }
    }
}

#[tokio::test]
async fn the_pictures_in_the_docs_are_taken() {
    let kept = std::env::var_os("OVERWIRE_TEST_PICTURES").map(PathBuf::from);
    let scratch = tempfile::tempdir().unwrap();
    let folder = kept.unwrap_or_else(|| scratch.path().to_owned());

    let mut server = Server::start(&["--message-characters", "400"]);
    let mut people = Vec::new();
    for _ in 0..5 {
        people.push(Wire::connect(&server, "/chat/python/").await);
    }
    for (who, _, text) in TALK {
        people[who].says([text.to_owned()]).await;
    }
    drop(people);
    server.dies();
    let database = rusqlite::Connection::open(server.database()).unwrap();
    for (_, minutes, text) in TALK {
        let earlier = "update messages set created_at = created_at - ?1 * 60000 where text = ?2";
        assert_eq!(
            database
                .execute(earlier, rusqlite::params![minutes, text])
                .unwrap(),
            1
        );
    }
    drop(database);
    server.starts_again();
    let mut others = Vec::new();
    for room in ["python", "python", "hi", "hi", "events", "off-topic", "hi"] {
        others.push(Wire::connect(&server, &format!("/chat/{room}/")).await);
    }

    story_with(&["--force-device-scale-factor=1"], async |browser| {
        let anna = browser.window().await;
        anna.devtools("Emulation.setTimezoneOverride", json!({ "timezoneId": "Europe/Berlin" })).await;
        anna.goto(&server.url("/chat/python/")).await;
        anna.is_somebody().await;
        let [bob, carl] = browser.people(&server.url("/chat/python/")).await;
        let (a, b, c) = (anna.name().await, bob.name().await, carl.name().await);
        bob.meets(&a).await;
        for text in ["Hi! Are you the one who gave the talk last month?", "I'd love to have the slides", "If you don't mind of course"] {
            bob.says(text).await;
        }
        anna.sees(&format!("#users-mine [data-user='{b}'][data-unread='3']")).await;
        carl.meets(&a).await;
        carl.says("Lunch?").await;
        anna.sees(&format!("#users-mine [data-user='{c}'][data-unread='1']")).await;
        carl.enters("python").await;
        anna.says("Count me in too!").await;
        anna.says("I can bring ours, it survived the last one").await;
        pictures(&anna, &folder, "room").await;
        anna.sized(1000, 800).await;
        anna.click("#room-count button").await;
        pictures(&anna, &folder, "people").await;
        anna.presses(Key::Escape).await;

        for (tab, quick) in [(&anna, 1), (&bob, 1), (&carl, 4)] {
            tab.sized(1280, 800).await;
            if tab.path().await != "/chat/python/" {
                tab.enters("python").await;
            }
            tab.run("document.querySelector('.message:last-child .change').click()").await;
            tab.click(&format!("#message-form .chip:nth-child({quick})")).await;
            tab.sees_no("#message-form > *").await;
        }
        anna.until("document.querySelectorAll('.chip').length === 2").await;
        bob.writes("so do").await;
        anna.sees("#room-typing p").await;
        anna.hovers(".message:nth-last-child(2)").await;
        pictures(&anna, &folder, "reactions").await;
        for scheme in ["light", "dark"] {
            in_colours(&anna, scheme).await;
            anna.sized(1280, 800).await;
            settled(&anna).await;
            // As high as today's messages.
            let above = "document.querySelectorAll('.day + .message')[1]\
                         .getBoundingClientRect().top - scroller.getBoundingClientRect().top";
            let above: f64 = anna.get(above).await;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            anna.sized(1280, (800. - above + 40.) as u32).await;
            settled(&anna).await;
            anna.screenshot(&folder.join(format!("screenshot-{scheme}.png"))).await;
        }

        anna.sized(1280, 800).await;
        anna.run("document.querySelector('.message:last-child .change').click()").await;
        anna.sees(".edit__reactors").await;
        pictures(&anna, &folder, "reacting").await;
        anna.sized(1280, 800).await;
        anna.presses(Key::Escape).await;
        anna.writes(&format!("@{}", &c[..1])).await;
        anna.sees("#completions [role=option]").await;
        pictures(&anna, &folder, "completing").await;
        anna.sized(1280, 800).await;
        for tab in [&anna, &bob] {
            tab.run("document.querySelector('#message-text').select()").await;
            tab.presses(Key::Delete).await;
        }

        anna.run("document.querySelector('#message-text').focus()").await;
        anna.presses(Key::Up).await;
        anna.sees("#message-form textarea").await;
        anna.types(" year").await;
        pictures(&anna, &folder, "editing").await;
        anna.sized(1280, 800).await;
        anna.presses(Key::Enter).await;
        anna.sees(".message[data-edited]").await;
        bob.enters("python").await;
        bob.says("Forget that").await;
        bob.run("document.querySelector('.message:last-child .change').click()").await;
        bob.click("#message-form summary").await;
        pictures(&bob, &folder, "deleting").await;
        bob.sized(1280, 800).await;
        bob.click("#message-form [data-action='Delete message']").await;
        anna.sees(".message--deleted").await;
        pictures(&anna, &folder, "edited").await;
        anna.sized(1280, 800).await;
        bob.meets(&a).await;

        anna.meets(&b).await;
        anna.says("That was me, yes. Sure, here they are:\nhttps://slides.example/free-threading").await;
        bob.says("Wonderful, thank you!").await;
        anna.hears("Wonderful, thank you!").await;
        pictures(&anna, &folder, "private").await;

        anna.enters("events").await;
        pictures(&anna, &folder, "empty").await;

        anna.enters("python").await;
        anna.sends("/nonsense").await;
        anna.sees("#notice [data-tone=refusal]").await;
        pictures(&anna, &folder, "notice").await;
        anna.run("document.querySelector('#message-text').select()").await;
        anna.presses(Key::Delete).await;
        anna.click("#notice [data-dismiss]").await;

        anna.run("document.querySelector('#people-search').focus()").await;
        anna.types(&b[..1]).await;
        anna.sees("#users-found li").await;
        pictures(&anna, &folder, "search").await;
        anna.run("document.querySelector('#people-search').focus()").await;
        anna.types("zzz").await;
        anna.sees("#users-found .aside__words").await;
        pictures(&anna, &folder, "nobody").await;
        anna.run("document.querySelector('#people-search').select()").await;
        anna.presses(Key::Delete).await;
        anna.sees_no("#users-found > *").await;

        anna.run("document.querySelector('#search').focus()").await;
        anna.types("group* OR").await;
        anna.presses(Key::Enter).await;
        anna.sees("#search-page .aside__words").await;
        pictures(&anna, &folder, "nothing-found").await;
        for typed in ["a", ""] {
            anna.sized(1280, 800).await;
            anna.run("document.querySelector('#search').select()").await;
            anna.types(typed).await;
            if typed.is_empty() {
                anna.presses(Key::Delete).await;
            }
            anna.presses(Key::Enter).await;
            anna.until(&format!("location.search === '?q={typed}'")).await;
            anna.is_settled().await;
            let name = if typed.is_empty() { "search-help" } else { "found" };
            pictures(&anna, &folder, name).await;
        }
        anna.sized(1280, 800).await;
        anna.enters("python").await;

        carl.goto(&server.url("/chat/")).await;
        carl.is_somebody().await;
        carl.sees("#lobby-rooms .here-count").await;
        pictures(&carl, &folder, "lobby").await;
        carl.click("#lobby-rooms [data-group-name=python]").await;
        carl.is_in("#python", "/chat/python/").await;

        carl.sized(1280, 800).await;
        for name in ["Carl Friedrich von Weizenhausen", "Carla"] {
            carl.click("#name-form .me__change").await;
            carl.sees("#name-form input").await;
            carl.run("const field = document.querySelector('#name-form input'); field.focus(); field.select()").await;
            carl.types(name).await;
            carl.presses(Key::Enter).await;
            carl.until(&format!("document.querySelector('.me__name')?.textContent === '{name}'")).await;
            carl.says("It's me, by the name I go by").await;
        }
        carl.click("#name-form .me__change").await;
        pictures(&carl, &folder, "name").await;
        carl.presses(Key::Escape).await;
        let allowed = json!({ "origin": server.url(""), "permissions": ["notifications"] });
        carl.devtools("Browser.grantPermissions", allowed).await;
        carl.sized(1280, 800).await;
        carl.click("#notifications .me__change").await;
        carl.click("#my-notifications [data-action]").await;
        carl.sees("#my-notifications[data-on]").await;
        pictures(&carl, &folder, "notifications").await;
        carl.presses(Key::Escape).await;

        in_colours(&anna, "light").await;
        anna.sized(360, 720).await;
        anna.click("#aside-open").await;
        pictures(&anna, &folder, "drawer").await;
        anna.sized(360, 720).await;
        anna.presses(Key::Escape).await;
        anna.sized(1280, 800).await;

        anna.run("document.querySelector('#scroller').scrollTop = 0").await;
        bob.enters("python").await;
        bob.says("by the way: اهلا وسهلا, and a longwordlongwordlongwordlongwordlongwordlongwordlongwordlongwordlongwordlongwordlongwordlongword").await;
        anna.sized(1280, 500).await;
        settled(&anna).await;
        anna.run("document.querySelector('#scroller').scrollTop = 0").await;
        settled(&anna).await;
        carl.says("שלום עולם").await;
        anna.sees("#new-messages").await;
        anna.screenshot(&folder.join("fresh.png")).await;
        anna.click("#new-messages").await;

        let desk = browser.window().await;
        becomes_moderator(&desk, &server).await;
        for (place, action) in [("#moderation-people", "Mute"), ("#moderation-groups", "Restrict group")] {
            // The moderator is in the list too, somewhere, without these buttons.
            desk.click(&format!("{place} :nth-child(3 of :has([data-action='{action}'])) [data-action='{action}']")).await;
            desk.sees(&format!("{place} .record__mark")).await;
        }
        desk.sized(1280, 800).await;
        let python = "[...document.querySelectorAll('#moderation-groups .record')].find((one) => one.textContent.includes('#python'))";
        desk.run(&format!("{python}.querySelector('[data-action=\"Open group\"]').click()")).await;
        desk.sees("#moderation-found .record").await;
        desk.click("#moderation-found .record:nth-child(2) [data-action='Delete message']").await;
        desk.sees("#moderation-found .record__mark").await;
        desk.run("document.querySelector('.moderation').scrollTop = 0; scrollTo(0, 0)").await;
        pictures(&desk, &folder, "admin").await;

        server.dies();
        anna.sees(".state__lost").await;
        anna.sends("I'll book the room for seven then.").await;
        anna.sees(".waiting").await;
        pictures(&anna, &folder, "offline").await;
    })
    .await;
}
