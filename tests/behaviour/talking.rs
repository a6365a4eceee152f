//! Groups: everybody in the room sees each message, in order and as it was typed; older messages
//! are found page by page.

use std::time::{Duration, SystemTime};

use serde_json::json;
use uuid::Uuid;

use crate::support::tab::all;
use crate::support::{Server, Tab};

/// Two people in a group and a third in another, for each dialect of the wire.
pub(crate) async fn two_people_talk(mut anna: Tab, mut bob: Tab, mut carol: Tab) {
    carol.enters_group("python").await;
    anna.says("hello").await;
    bob.sees("hello").await;
    bob.says("hello yourself").await;
    anna.sees("hello yourself").await;
    for tab in [&anna, &bob] {
        let said: Vec<_> = tab
            .messages()
            .into_iter()
            .map(|message| (message.author, message.text))
            .collect();
        let expected = [(anna.name(), "hello"), (bob.name(), "hello yourself")];
        assert_eq!(said, expected.map(|(name, text)| (name, text.to_owned())));
    }
    carol.hears_all().await;
    assert_eq!(carol.texts(), [""; 0]);
    carol.says("nobody here?").await;
    bob.enters_group("python").await;
    bob.sees_exactly(&["nobody here?"]).await;
    bob.enters_group("hi").await;
    bob.sees_exactly(&["hello", "hello yourself"]).await;
}

#[tokio::test]
async fn two_people_in_a_group_see_what_each_says() {
    let server = Server::start().await;
    let tab = async || server.tab().await;
    two_people_talk(tab().await, tab().await, tab().await).await;
}

#[tokio::test]
async fn the_default_groups_exist_and_can_be_entered() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let groups: Vec<_> = anna
        .page
        .the("groups-list")
        .with("data-group-name")
        .collect();
    let names = groups.iter().map(|link| link.attribute("data-group-name"));
    let expected = ["hi", "python", "events", "off-topic"];
    assert!(names.eq(expected.map(Some)));
    for link in &groups {
        assert!(link.has_class("nav__link"));
        assert_eq!(link.attribute("data-group-public"), Some("true"));
    }
    for name in expected {
        anna.enters_group(name).await;
        assert_eq!(anna.location, format!("/chat/{name}/"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_sees_the_same_messages_in_the_same_order() {
    let server = Server::start().await;
    let door = server.door;
    let mut tabs = all((0..5).map(|_| door.tab())).await;
    for (who, tab) in tabs.iter_mut().enumerate() {
        for number in 0..8 {
            tab.writes(&format!("{who}.{number}"));
        }
    }
    for tab in &mut tabs {
        tab.until("40 messages", |tab| tab.messages().len() == 40)
            .await;
    }
    let first = tabs[0].messages();
    for tab in &tabs {
        assert_eq!(tab.messages(), first);
    }
    for who in 0..5 {
        let own: Vec<_> = first
            .iter()
            .filter(|message| message.text.starts_with(&format!("{who}.")))
            .map(|message| message.text.clone())
            .collect();
        let expected: Vec<_> = (0..8).map(|number| format!("{who}.{number}")).collect();
        assert_eq!(own, expected);
    }
}

#[tokio::test]
async fn what_one_person_sends_without_waiting_keeps_its_order() {
    let server = Server::start().await;
    let (mut anna, mut bob) = (server.tab().await, server.tab().await);
    let mut keys: Vec<_> = (0..40).map(|n| anna.writes(&n.to_string())).collect();
    let refused = anna.writes(" ");
    let room = anna.room();
    anna.sends(
        "Change group",
        json!({ "groupName": "python", "isGroup": true }),
    );
    for n in 40..80 {
        let key = uuid::Uuid::new_v4().to_string();
        anna.sends(
            "New message",
            json!({ "message": n.to_string(), "room": room, "key": key }),
        );
        keys.push(key);
    }
    bob.sees("79").await;
    let expected: Vec<_> = (0..80).map(|n| n.to_string()).collect();
    assert_eq!(bob.texts(), expected);
    for key in keys.iter().chain([&refused]) {
        anna.is_settled(key).await;
    }
    assert_eq!(anna.title(), "#python");
    assert_eq!(server.count("messages"), 80);
}

#[tokio::test]
async fn text_is_shown_as_typed_and_all_html_in_it_is_inert() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    for text in [
        "<script>alert(1)</script>",
        "</p></article><script src=//evil></script>",
        "<img src=x onerror=alert(1)>",
        "\" onmouseover=\"alert(1)",
        "' autofocus onfocus='alert(1)",
        "{{ message.text }} {% raw %} ${x} y",
        "&lt;b&gt; &amp; &nbsp; &#60;",
        "one\ntwo\n\nfour",
        "\ttabs  and   spaces ",
        "שלום עולם \u{202e}abc\u{202c} مرحبا",
        "👩‍👩‍👧‍👦 é e\u{301} \u{1f1e9}\u{1f1ea}",
        "\\ \\n \\u0041 \"quoted\" 'too'",
        "<!-- --> <![CDATA[ ]]> <?php ?>",
        "]]>*/;//\u{2028}\u{2029}",
        "#message-1, body { display: none }",
        "null",
    ] {
        let key = anna.writes(text);
        anna.is_settled(&key).await;
        bob.sees(text).await;
        for tab in [&anna, &bob] {
            let last = tab.messages().pop().unwrap();
            assert_eq!(last.text, text);
            assert_eq!(last.author, anna.name());
            let list = tab.page.the("messages-list");
            let shown = list.elements().last().unwrap();
            let names: Vec<_> = shown.all().map(|part| part.name.as_str()).collect();
            assert_eq!(names, ["article", "b", "a", "time", "p"], "{text}");
        }
        let page = super::support::page::Page::parse(&server.get("/chat/hi/").await.body);
        assert_eq!(page.messages(), bob.messages(), "rendered by the server");
    }
}

#[tokio::test]
async fn every_kind_of_line_break_is_shown_as_one() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.writes("one\r\ntwo\rthree\u{0}\u{7}");
    anna.sees("one\ntwo\nthree").await;
}

#[tokio::test]
async fn blank_lines_before_and_after_a_text_are_not_shown() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.writes("\n \n one\n\ntwo \n \n");
    anna.sees(" one\n\ntwo ").await;
}

#[tokio::test]
async fn the_time_of_a_message_is_given_in_utc() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.says("what time is it?").await;
    let time = anna.messages()[0].time.clone();
    assert!(time.ends_with('Z'), "{time}");
    let time = humantime::parse_rfc3339(&time).unwrap();
    let ago = SystemTime::now().duration_since(time).unwrap();
    assert!(ago < Duration::from_secs(60), "{ago:?}");
}

#[tokio::test]
async fn a_message_is_the_same_single_frame_for_the_whole_room_and_nobody_else() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let [mut carol, mut dora] = server.tabs().await;
    dora.enters_group("python").await;
    for number in 0..30 {
        anna.says(&format!("history {number}")).await;
    }
    bob.sees("history 29").await;
    carol.sees("history 29").await;
    dora.hears_all().await;
    let before = [&anna, &bob, &carol, &dora].map(|tab| tab.pushes.len());
    anna.says("one more").await;
    bob.sees("one more").await;
    carol.sees("one more").await;
    let mut frames = Vec::new();
    for (tab, before) in [&mut anna, &mut bob, &mut carol, &mut dora]
        .into_iter()
        .zip(before)
    {
        tab.hears_all().await;
        // Pushes without a version may arrive at any time.
        let fresh = tab.pushes[before..].iter();
        let fresh = fresh.filter(|push| push.place == "messages-list");
        frames.push(fresh.map(|push| push.frame.clone()).collect::<Vec<_>>());
    }
    assert_eq!(frames[0].len(), 1, "{:#?}", frames[0]);
    assert!(frames[0][0].contains("one more"));
    assert!(frames[0][0].len() < 700, "{}", frames[0][0]);
    assert_eq!(frames[1], frames[0]);
    assert_eq!(frames[2], frames[0]);
    assert_eq!(frames[3], [""; 0]);
}

#[tokio::test]
async fn a_message_stays_in_the_room_it_was_written_for() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let hi = anna.room();
    anna.enters_group("python").await;
    let before = anna.pushes.len();
    let key = "6a3c8f8e-0d6a-4a53-9a52-2a3f6b1f1d11";
    let data = json!({ "message": "late", "room": hi, "key": key });
    anna.sends("New message", data);
    bob.sees("late").await;
    anna.is_settled(key).await;
    anna.hears_all().await;
    let settled: Vec<_> = anna.pushes[before..]
        .iter()
        .filter(|push| push.html.contains(key))
        .collect();
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].swap.as_deref(), Some("outer"));
    assert_eq!(settled[0].version, None);
    assert_eq!(anna.texts(), [""; 0], "it is put nowhere");
}

#[tokio::test]
async fn scrolling_up_loads_older_messages_up_to_a_marked_beginning() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let mut anna = server.tab().await;
    let texts: Vec<_> = (0..120).map(|number| number.to_string()).collect();
    for text in &texts {
        anna.writes(text);
    }
    anna.sees("119").await;
    assert_eq!(anna.texts(), texts, "a tab keeps what it has seen");

    let mut bob = server.tab().await;
    let more = |tab: &Tab| {
        let older = tab.page.the("messages-older");
        older.attribute("data-more").map(str::to_owned)
    };
    assert_eq!(bob.texts(), texts[70..], "by the page itself");
    assert_eq!(more(&bob).as_deref(), Some("true"));
    let version = bob.version();
    assert_eq!(bob.asks_for_older().await, 50);
    assert_eq!(bob.texts(), texts[20..]);
    anna.says("and meanwhile").await;
    bob.sees("and meanwhile").await;
    assert_eq!(bob.asks_for_older().await, 20);
    assert_eq!(more(&bob).as_deref(), Some("false"));
    assert_eq!(bob.asks_for_older().await, 0);
    assert_eq!(bob.texts()[..120], texts);
    assert_eq!(bob.messages(), anna.messages());
    assert_ne!(bob.version(), version);
    let older = bob.pushes.iter();
    let older = older.filter(|push| push.swap.as_deref() == Some("prepend"));
    assert!(older.clone().all(|push| push.version.is_none()));
    assert_eq!(older.count(), 3);
}

#[tokio::test]
async fn older_messages_of_the_previous_room_are_not_shown_in_the_next() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.says("in hi").await;
    let (hi, before) = (anna.room(), anna.messages()[0].id);
    anna.enters_group("python").await;
    anna.says("in python").await;
    let mark = anna.pushes.len();
    let data = json!({ "before": before + 100, "room": hi });
    anna.sends("Older messages", data);
    anna.hears_all().await;
    assert!(anna.pushes_to("messages-list", mark).is_empty());
    assert_eq!(anna.texts(), ["in python"]);
    let data = json!({ "before": before + 100 });
    anna.sends("Older messages", data);
    anna.hears_all().await;
    assert_eq!(anna.pushes_to("messages-list", mark).len(), 1, "its own");
    assert_eq!(anna.texts(), ["in python"]);
}

#[tokio::test]
async fn a_page_of_long_messages_is_at_most_64_kib() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let mut anna = server.tab().await;
    for number in 0..40 {
        anna.says(&format!("{number:02}{}", "ä".repeat(3_000)))
            .await;
    }
    let mut bob = server.tab().await;
    let shown = bob.texts().len();
    assert!((5..15).contains(&shown), "{shown}");
    bob.enters_group("hi").await;
    let page = bob.pushes_to("messages-list", 0)[0].html.len();
    assert!((50_000..67_000).contains(&page), "{page}");
    while bob.page.the("messages-older").attribute("data-more") == Some("true") {
        let mark = bob.pushes.len();
        assert!(bob.asks_for_older().await > 0);
        let page = bob.pushes_to("messages-list", mark)[0].html.len();
        assert!(page < 67_000, "{page}");
    }
    assert_eq!(bob.texts(), anna.texts());
}

#[tokio::test]
async fn a_message_larger_than_a_page_is_a_page_of_its_own() {
    let server = Server::with(|setup| setup.chat.message_characters = 15_000).await;
    let mut anna = server.tab().await;
    anna.says("small").await;
    anna.says(&"&".repeat(15_000)).await;
    let mut bob = server.tab().await;
    assert_eq!(bob.messages().len(), 1);
    assert_eq!(bob.asks_for_older().await, 1);
    assert_eq!(bob.texts(), anna.texts());
}

#[tokio::test]
async fn entering_a_missing_group_shows_a_notice_and_changes_nothing() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.enters_group("python").await;
    let data = json!({ "groupName": "<b>nowhere</b>", "isGroup": true });
    let words = anna.is_refused("Change group", data).await;
    assert_eq!(words, "There is no group #<b>nowhere</b>.");
    assert_eq!(anna.title(), "#python");
    anna.says("still here").await;
    assert_eq!(anna.texts(), ["still here"]);
}

#[tokio::test]
async fn entering_the_current_room_again_changes_nothing() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.says("a").await;
    anna.enters_group("hi").await;
    anna.says("b").await;
    assert_eq!(anna.texts(), ["a", "b"]);
}

/// A browser that has lost its connection does not know the ids of the rooms that people choose meanwhile.
#[tokio::test]
async fn a_message_goes_into_the_room_that_it_names() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let [mut bob, mut cleo] = [server.tab().await, server.tab().await];
    bob.enters_group("python").await;
    let sends = |tab: &mut Tab, text: &str, name: &str, is_group: bool| {
        let key = Uuid::new_v4().to_string();
        let data = json!({ "message": text, "groupName": name, "isGroup": is_group, "key": key });
        tab.sends("New message", data.clone());
        (key, data)
    };
    let (key, _) = sends(&mut anna, "for all", "python", true);
    anna.is_settled(&key).await;
    bob.sees("for all").await;
    assert_eq!(anna.texts(), [""; 0], "she has not entered it");
    // Nobody enters the pair's room, which did not exist.
    let (key, data) = sends(&mut anna, "for one", &cleo.name(), false);
    anna.is_settled(&key).await;
    let name = anna.name();
    cleo.until("a badge", |tab| tab.unread_from(&name) == 1)
        .await;
    cleo.opens_private(&name).await;
    cleo.sees_exactly(&["for one"]).await;
    // It may be sent again when nobody has the name any more.
    server.change(&format!(
        "update users set name = 'other' where name = '{}'",
        cleo.name()
    ));
    anna.sends("New message", data);
    anna.hears_all().await;
    assert_eq!(anna.notice(), "Sent privately to other.");

    let data = |name: &str| json!({ "message": "a", "groupName": name, "isGroup": true });
    let words = anna.is_refused("New message", data("nowhere")).await;
    assert_eq!(words, "There is no group #nowhere.");
    let words = anna
        .is_refused("New message", json!({ "message": "a", "groupName": "hi" }))
        .await;
    assert_eq!(words, "“isGroup” is missing.");
}
