//! Losing the server and getting it back; texts that were refused.

use serde_json::json;

use crate::browser::story;
use crate::server::Server;

#[tokio::test]
async fn the_server_dies_and_comes_back_and_nothing_is_lost() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        anna.says("before").await;
        bob.hears("before").await;

        server.dies();
        for tab in [&anna, &bob] {
            tab.sees(".state__lost").await;
            assert!(tab.text(".state__lost").await.contains("Reconnecting"));
        }
        anna.sends("written meanwhile").await;
        anna.sees(".waiting[data-state=waiting]").await;
        assert_eq!(
            anna.text(".waiting [data-slot=message]").await,
            "written meanwhile"
        );
        assert!(anna.shows(".waiting__wait").await);
        anna.writes("half a thought").await;

        server.starts_again();
        bob.hears("written meanwhile").await;
        anna.is_settled().await;
        anna.sees_no(".waiting").await;
        for (tab, name) in [(&anna, &a), (&bob, &b)] {
            tab.sees_no(".state__lost").await;
            assert_eq!(&tab.name().await, name);
            tab.is_in("#python", "/chat/python/").await;
            assert_eq!(tab.texts().await, ["before", "written meanwhile"]);
        }
        assert_eq!(anna.written().await, "half a thought");
        bob.says("welcome back").await;
        anna.hears("welcome back").await;
    })
    .await;
    assert_eq!(server.stored("written meanwhile"), 1);
}

#[tokio::test]
async fn a_waiting_message_has_a_name_unless_it_continues_my_last_one() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        let b = bob.name().await;
        anna.says("before").await;
        bob.hears("before").await;
        server.dies();
        for tab in [&anna, &bob] {
            tab.sends("one").await;
            tab.sends("two").await;
            tab.sees(".waiting:nth-child(2)").await;
            assert!(!tab.shows(".waiting:nth-child(2) > b").await);
        }
        assert!(!anna.shows(".waiting > b").await);
        assert_eq!(bob.text(".waiting > b").await, b);
        assert!(bob.shows(".waiting > b[data-face][class*=hue-]").await);
    })
    .await;
}

#[tokio::test]
async fn a_message_goes_to_the_room_it_was_written_for() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        let carl = browser.person(&server.url("/chat/events/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        anna.meets(&b).await;
        server.dies();
        anna.sees(".state__lost").await;
        // Nobody is shown as online now.
        let dot = "getComputedStyle(document.querySelector('.room__title'), '::before').content";
        assert_eq!(anna.get::<String>(dot).await, "none");
        anna.sends("for bob alone").await;
        anna.sees(".waiting").await;
        anna.click("#groups-list [data-group-name=events]").await;
        server.starts_again();
        anna.is_in("#events", "/chat/events/").await;
        anna.is_settled().await;
        bob.sees(&format!("#users-mine [data-user='{a}'][data-unread='1']"))
            .await;
        bob.meets(&a).await;
        assert_eq!(bob.texts().await, ["for bob alone"]);
        anna.says("for all").await;
        carl.hears("for all").await;
        assert_eq!(carl.texts().await, ["for all"]);
        assert_eq!(anna.texts().await, ["for all"]);
    })
    .await;
    assert_eq!(server.stored("for bob alone"), 1);
}

#[tokio::test]
async fn unsent_messages_survive_a_reload() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.says("before").await;
        server.dies();
        anna.sees(".state__lost").await;
        anna.sends("written meanwhile").await;
        anna.sees(".waiting").await;
        server.starts_again();
        anna.reload().await;
        anna.hears("written meanwhile").await;
        anna.is_settled().await;
        assert_eq!(anna.texts().await, ["before", "written meanwhile"]);
    })
    .await;
    assert_eq!(server.stored("written meanwhile"), 1);
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_recovers() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let name = anna.name().await;
        anna.says("before").await;
        server.signal("STOP");
        anna.run("window.dispatchEvent(new Event('offline'))").await;
        anna.sees(".state__lost").await;
        anna.sends("written meanwhile").await;
        anna.sees(".waiting").await;
        server.signal("CONT");
        anna.hears("written meanwhile").await;
        anna.is_settled().await;
        anna.sees_no(".state__lost").await;
        assert_eq!(anna.texts().await, ["before", "written meanwhile"]);
        assert_eq!(anna.name().await, name);
    })
    .await;
    assert_eq!(server.stored("written meanwhile"), 1);
}

#[tokio::test]
async fn a_refused_text_comes_back_with_the_reason() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let wrong = "/nonsense word";
        anna.sends(wrong).await;
        anna.sees("#notice [data-tone=refusal]").await;
        let reason =
            "Unknown command /nonsense. Nothing was sent. Type /help for a list of commands.";
        assert_eq!(anna.text("#notice .notice__text").await, reason);
        anna.is_settled().await;
        assert_eq!(anna.written().await, wrong);
        assert!(!anna.shows(".waiting").await);

        // It is corrected and sent, and the reason disappears.
        anna.run("document.querySelector('#message-text').select()")
            .await;
        anna.sends("short").await;
        anna.hears("short").await;
        anna.sees_no("#notice .notice").await;

        // While another text is being written, the refused one waits beside it.
        anna.run(&format!(
            "const box = document.querySelector('#message-text');
             box.value = {};
             document.querySelector('#send').click();
             box.value = 'the next';
             box.dispatchEvent(new Event('input', {{ bubbles: true }}))",
            json!(wrong)
        ))
        .await;
        anna.sees(".waiting[data-state=refused]").await;
        assert_eq!(anna.written().await, "the next");
        assert!(anna.text(".waiting__refused").await.contains(reason));
        anna.click(".waiting [data-back=edit]").await;
        assert_eq!(anna.written().await, format!("the next\n{wrong}"));
        anna.sees_no(".waiting").await;
        assert_eq!(anna.texts().await, ["short"]);
    })
    .await;
    assert_eq!(server.stored("/nonsense word"), 0);
}

#[tokio::test]
async fn a_waiting_text_goes_back_to_the_box_if_the_tab_becomes_another_person() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let name = anna.name().await;
        anna.says("before").await;
        // The first may have arrived before the server died, the second cannot have.
        server.signal("STOP");
        anna.sends("as myself").await;
        server.dies();
        anna.sees(".state__lost").await;
        anna.sends("never sent").await;
        anna.sees(".waiting[data-state=waiting]").await;
        anna.run("sessionStorage['overwire.resume'] = '\"forgotten\"'")
            .await;
        server.starts_again();
        anna.sees(".waiting[data-state=unsure]").await;
        assert_ne!(anna.name().await, name);
        let words = anna.text(".waiting__unsure").await;
        assert!(words.contains("#hi") && words.contains(&name), "{words}");
        let words = anna.text(".waiting[data-state=refused]").await;
        assert!(
            words.contains("never sent") && words.contains("Not sent to #hi"),
            "{words}"
        );
        anna.is_settled().await;
        anna.click(".waiting[data-state=unsure] [data-back=discard]")
            .await;
        anna.click(".waiting[data-state=refused] [data-back=discard]")
            .await;
        anna.sees_no(".waiting").await;
        anna.says("as somebody else").await;
        assert_eq!(anna.texts().await, ["before", "as somebody else"]);
    })
    .await;
    assert_eq!(server.stored("as myself"), 0);
}

#[tokio::test]
async fn a_socket_that_is_turned_away_shows_as_offline() {
    let server = Server::start(&["--connections-per-address", "1"]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let bob = browser.open(&server.url("/")).await;
        bob.sees("#notice .notice").await;
        let words = "There are too many connections from your address.";
        assert_eq!(bob.text("#notice .notice__text").await, words);
        bob.sees(".state__lost").await;
        assert!(!anna.shows(".state__lost").await);
    })
    .await;
}

#[tokio::test]
async fn a_tab_reconnects_less_and_less_often_if_the_server_keeps_closing() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        // From here on the test moves the clock, every wait is the longest possible, and each
        // socket opens, gets one push and closes.
        anna.run(
            "import(document.querySelector('[rel=modulepreload][href$=\"runtime.js\"]').href).then(({ hooks }) => {
               const { tick } = hooks;
               hooks.tick = () => { ticks++; tick(); };
               window.counting = true;
             });
             window.ticks = 0",
        )
        .await;
        anna.until("window.counting").await;
        anna.run(
            "window.now = Date.now() + 60_000;
             window.opened = 0;
             Date.now = () => now;
             Math.random = () => 0.999;
             window.WebSocket = class {
               constructor() { opened++; setTimeout(() => this.fail()); }
               close() {}
               fail() {
                 this.onmessage({ data: '{\"selector\":\"#connection\",\"html\":\"here\"}' });
                 this.onclose({ code: 1011 });
               }
             };
             window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }));",
        )
        .await;
        for (seconds, opened) in [(1, 1), (1, 2), (3, 2), (1, 3), (3, 3), (1, 4)] {
            anna.run(&format!("now += {seconds} * 1000; ticks = 0"))
                .await;
            anna.until("ticks > 2").await;
            assert_eq!(
                anna.get::<u32>("opened").await,
                opened,
                "after {seconds} s more"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn many_texts_written_offline_are_all_sent() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.click("#name-form .me__change").await;
        anna.sees("#name-form input").await;
        anna.run("document.querySelector('#name-form input').focus()")
            .await;
        anna.types("Half a na").await;
        let field =
            "document.activeElement.matches('#name-form input') && document.activeElement.value";
        let typed = anna.get::<String>(field).await;
        server.dies();
        anna.sees(".state__lost").await;
        // More than the script sends at once.
        anna.run(
            "const box = document.querySelector('#message-text');
             for (let n = 0; n < 120; n++) { box.value = `text ${n}`; box.form.requestSubmit() }
             document.querySelector('#name-form input').focus()",
        )
        .await;
        anna.until("document.documentElement.dataset.pending === '120'")
            .await;
        server.starts_again();
        anna.until("document.documentElement.dataset.pending === '0'")
            .await;
        assert!(!anna.shows(".waiting").await);
        let texts: Vec<String> = (70..120).map(|n| format!("text {n}")).collect();
        let shown = anna.texts().await;
        assert_eq!(shown[shown.len() - 50..], texts[..]);
        // What was being typed in another field is still there.
        assert!(anna.shows("#name-form input").await);
        assert_eq!(
            anna.get::<String>("document.querySelector('#name-form input').value")
                .await,
            typed
        );
    })
    .await;
    assert_eq!(server.stored("text 0"), 1);
    assert_eq!(server.stored("text 119"), 1);
}
