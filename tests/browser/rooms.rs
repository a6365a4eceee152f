//! Groups and their addresses: links, history, drafts.

use serde_json::json;
use thirtyfour::prelude::Key;

use crate::browser::story;
use crate::server::Server;
use crate::wire::Wire;

#[tokio::test]
async fn a_message_sent_while_a_room_loads_goes_to_that_room() {
    let server = Server::start(&["--unlimited"]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let name = bob.name().await;
        let link = format!("#users-online [data-user='{name}'] a");
        anna.sees(&link).await;
        server.signal("STOP");
        anna.click(&link).await;
        anna.run("document.querySelector('#message-text').focus()")
            .await;
        anna.types("a secret for bob").await;
        anna.presses(Key::Enter).await;
        anna.sees(".waiting[data-state=waiting]").await;
        anna.types("half a thought").await;
        server.signal("CONT");
        anna.is_in(&name, &format!("/chat/@{name}/")).await;
        anna.hears("a secret for bob").await;
        anna.sees_no(".waiting").await;
        assert_eq!(anna.written().await, "half a thought");
        bob.says("nothing here?").await;
        assert_eq!(bob.texts().await, ["nothing here?"]);
    })
    .await;
    assert_eq!(server.stored("a secret for bob"), 1);
}

#[tokio::test]
async fn a_draft_stays_with_its_room_even_if_the_next_is_slow() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.writes("for hi").await;
        anna.enters("events").await;
        assert_eq!(anna.written().await, "");
        anna.writes("for events").await;
        server.signal("STOP");
        anna.click("#groups-list [data-group-name=hi]").await;
        assert_eq!(anna.written().await, "for hi");
        anna.writes(" again").await;
        server.signal("CONT");
        anna.is_in("#hi", "/chat/hi/").await;
        assert_eq!(anna.written().await, "for hi again");
        anna.enters("events").await;
        assert_eq!(anna.written().await, "for events");
    })
    .await;
}

#[tokio::test]
async fn a_message_for_a_room_clicked_while_offline_arrives_there_once() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let bob = browser.person(&server.url("/chat/python/")).await;
        anna.says("in hi").await;
        server.dies();
        anna.sees(".state__lost").await;
        anna.sends("also in hi").await;
        anna.click("#groups-list [data-group-name=python]").await;
        // Nothing is shown of the room before.
        anna.until("document.querySelector('#group-name').dataset.entering === '#python'")
            .await;
        anna.sees_no("#messages-list > *, #group-name > *").await;
        anna.sends("in python").await;
        anna.sees(".waiting[data-state=waiting]").await;
        server.starts_again();
        anna.is_in("#python", "/chat/python/").await;
        for tab in [&anna, &bob] {
            tab.hears("in python").await;
            assert_eq!(tab.texts().await, ["in python"]);
        }
        anna.is_settled().await;
        anna.enters("hi").await;
        assert_eq!(anna.texts().await, ["in hi", "also in hi"]);
        anna.sees_no(".waiting").await;
    })
    .await;
    assert_eq!(server.stored("in python"), 1);
    assert_eq!(server.stored("also in hi"), 1);
}

#[tokio::test]
async fn what_is_written_offline_in_several_rooms_arrives_wherever_i_am_then() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let python = browser.person(&server.url("/chat/python/")).await;
        anna.says("the last of mine").await;
        bob.hears("the last of mine").await;
        let person = bob.name().await;
        server.dies();
        anna.sees(".state__lost").await;
        anna.click("#groups-list [data-group-name=python]").await;
        anna.run(
            "const files = new DataTransfer();
            files.items.add(new File(['text'], 'a.txt'));
            const picker = document.querySelector('#attach-files');
            picker.files = files.files;
            picker.dispatchEvent(new Event('change'));",
        )
        .await;
        anna.sees("#composer .upload").await;
        anna.sends("for python").await;
        anna.sees(".waiting[data-unsent] .upload__name").await;
        anna.sees(".waiting[data-unsent] [data-back=edit]").await;
        anna.click(&format!("#aside [href='/chat/@{person}/']"))
            .await;
        anna.until(&format!(
            "document.querySelector('#group-name').dataset.entering === '@{person}'"
        ))
        .await;
        anna.sees_no(".waiting").await;
        anna.sends("for one person").await;
        anna.sees(".waiting").await;
        anna.click("#groups-list [data-group-name=hi]").await;
        anna.sees_no(".waiting").await;
        anna.sends("back in hi").await;
        server.starts_again();
        bob.hears("back in hi").await;
        python.hears("for python").await;
        python.sees(".files__file").await;
        anna.is_in("#hi", "/chat/hi/").await;
        anna.is_settled().await;
        assert_eq!(anna.texts().await, ["the last of mine", "back in hi"]);
        bob.sees("#users-mine .badge").await;
        bob.click("#users-mine a").await;
        bob.hears("for one person").await;
    })
    .await;
    for text in ["for python", "for one person", "back in hi"] {
        assert_eq!(server.stored(text), 1, "{text}");
    }
}

#[tokio::test]
async fn a_message_for_a_missing_room_goes_back_to_the_box() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        server.signal("STOP");
        anna.run(
            "const link = document.querySelector('#groups-list a').cloneNode();
             link.href = '/chat/nowhere/';
             document.querySelector('#main').append(link);
             link.click()",
        )
        .await;
        anna.sends("to nobody").await;
        anna.sees(".waiting[data-state=waiting]").await;
        server.signal("CONT");
        anna.sees(".waiting[data-state=refused]").await;
        assert!(!anna.shows(".waiting > b").await);
        anna.is_in("#hi", "/chat/hi/").await;
        anna.click(".waiting [data-back=edit]").await;
        assert_eq!(anna.written().await, "to nobody");
        assert!(anna.texts().await.is_empty());
    })
    .await;
    assert_eq!(server.stored("to nobody"), 0);
}

#[tokio::test]
async fn going_back_to_a_malformed_address_changes_nothing() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/chat/%ff/")).await;
        anna.is_in("#hi", "/chat/hi/").await;
        anna.back().await;
        anna.is_in("#hi", "/chat/hi/").await;
        anna.says("still here").await;
    })
    .await;
}

#[tokio::test]
async fn a_group_is_created_in_the_sidebar_or_at_the_address_of_a_missing_one() {
    let server = Server::start(&["--unlimited"]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.click("[popovertarget=add-group]").await;
        anna.types("Rust & <b>").await;
        anna.presses(Key::Enter).await;
        anna.sees("#new-group .refused").await;
        assert!(
            !anna.shows("#notice .notice").await,
            "it is said where it was typed"
        );
        let typed = "document.querySelector('#new-group input').value";
        assert_eq!(anna.get::<String>(typed).await, "Rust & <b>");
        anna.run("document.querySelector('#new-group input').select()")
            .await;
        anna.types("Rust 1.0").await;
        anna.presses(Key::Enter).await;
        anna.is_in("#Rust 1.0", "/chat/Rust%201.0/").await;
        assert_eq!(anna.get::<String>(typed).await, "");
        anna.sees_no("#add-group").await;
        anna.until("document.activeElement.id === 'message-text'")
            .await;
        assert_eq!(anna.text("[aria-current=page]").await, "#Rust 1.0");
        anna.sees_no("#notice .notice").await;
        anna.says("mine").await;
        anna.back().await;
        anna.is_in("#hi", "/chat/hi/").await;
        anna.forward().await;
        anna.is_in("#Rust 1.0", "/chat/Rust%201.0/").await;
        anna.hears("mine").await;

        let bob = browser.person(&server.url("/chat/caf%C3%A9/")).await;
        bob.is_in_the_lobby().await;
        bob.click("#notice [data-action]").await;
        bob.is_in("#café", "/chat/caf%C3%A9/").await;
        bob.sees_no("#notice .notice").await;
    })
    .await;
}

#[tokio::test]
async fn a_click_enters_a_group_and_browser_history_works() {
    let server = Server::start(&["--unlimited"]);
    let mut carl = Wire::connect(&server, "/chat/python/").await;
    carl.says((1..=60).map(|number| format!("number {number}")))
        .await;
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.says("said in hi").await;
        anna.enters("python").await;
        let newest: Vec<_> = (11..=60).map(|number| format!("number {number}")).collect();
        assert_eq!(anna.texts().await, newest);
        assert_eq!(
            anna.get::<String>("document.title").await,
            "#python · Overwire"
        );
        assert_eq!(anna.text("[aria-current=page]").await, "#python");
        assert_eq!(
            anna.get::<String>("document.activeElement.id").await,
            "message-text"
        );
        anna.enters("events").await;
        assert!(anna.texts().await.is_empty());
        assert!(
            anna.shows(".older__empty").await,
            "an empty room says that nobody has written yet"
        );

        anna.back().await;
        anna.is_in("#python", "/chat/python/").await;
        anna.hears("number 60").await;
        anna.back().await;
        anna.is_in("#hi", "/chat/hi/").await;
        anna.hears("said in hi").await;
        anna.forward().await;
        anna.is_in("#python", "/chat/python/").await;
        anna.forward().await;
        anna.is_in("#events", "/chat/events/").await;
        anna.back().await;
        anna.is_in("#python", "/chat/python/").await;
        let name = anna.name().await;
        anna.reload().await;
        anna.is_in("#python", "/chat/python/").await;
        assert_eq!(anna.name().await, name);
        anna.forward().await;
        anna.is_in("#events", "/chat/events/").await;
        anna.says("after forward").await;
    })
    .await;
    assert_eq!(server.stored("after forward"), 1);
}

#[tokio::test]
async fn links_open_in_a_new_tab_and_pasted_links_work() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.click_with(Key::Control, "#groups-list [data-group-name=python]")
            .await;
        let bob = browser.opened_beside(&[&anna]).await;
        bob.is_in("#python", "/chat/python/").await;
        anna.is_in("#hi", "/chat/hi/").await;
        assert_ne!(bob.name().await, anna.name().await);
        let carl = browser.person(&server.url("/chat/off-topic/")).await;
        carl.is_in("#off-topic", "/chat/off-topic/").await;
        let name = carl.name().await;
        carl.goto(&server.url("/chat/events/")).await;
        carl.is_in("#events", "/chat/events/").await;
        assert_eq!(carl.name().await, name, "the same tab is the same person");
    })
    .await;
}

/// A tab opened in the background becomes visible while its scripts still run.
#[tokio::test]
async fn a_tab_shown_while_it_loads_shows_its_own_room() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.window().await;
        let source = "const { port1, port2 } = new MessageChannel();
            const look = () => {
              document.dispatchEvent(new Event('visibilitychange'));
              if (document.readyState !== 'complete') port2.postMessage(0);
            };
            port1.onmessage = look;
            look()";
        anna.devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({ "source": source }),
        )
        .await;
        anna.goto(&server.url("/chat/python/")).await;
        anna.is_in("#python", "/chat/python/").await;
        anna.is_somebody().await;
        anna.is_in("#python", "/chat/python/").await;
    })
    .await;
}

#[tokio::test]
async fn of_many_clicks_only_the_last_counts() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let before: u32 = anna.get("history.length").await;
        anna.run(
            "for (const name of ['python', 'hi', 'events', 'hi', 'off-topic'])
               document.querySelector(`#groups-list [data-group-name=${name}]`).click()",
        )
        .await;
        anna.is_in("#off-topic", "/chat/off-topic/").await;
        anna.says("here I am").await;
        anna.is_in("#off-topic", "/chat/off-topic/").await;
        assert_eq!(anna.get::<u32>("history.length").await, before + 1);
        anna.back().await;
        anna.is_in("#hi", "/chat/hi/").await;
    })
    .await;
}

#[tokio::test]
async fn each_room_keeps_its_draft() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        anna.writes("for hi").await;
        anna.enters("python").await;
        assert_eq!(anna.written().await, "");
        anna.writes("for\npython").await;
        anna.enters("hi").await;
        assert_eq!(anna.written().await, "for hi");
        anna.back().await;
        anna.is_in("#python", "/chat/python/").await;
        assert_eq!(anna.written().await, "for\npython");
        anna.reload().await;
        anna.is_in("#python", "/chat/python/").await;
        assert_eq!(anna.written().await, "for\npython");
        anna.presses(Key::End).await;
        anna.sends("!").await;
        anna.hears("for\npython!").await;
        anna.enters("hi").await;
        assert_eq!(anna.written().await, "for hi");
        anna.enters("python").await;
        assert_eq!(anna.written().await, "", "what was sent is no draft");
        assert_eq!(anna.texts().await, ["for\npython!"]);
    })
    .await;
}
