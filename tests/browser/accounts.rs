//! Registering, and signing in and out.

use serde_json::json;
use thirtyfour::Key;

use crate::browser::{Tab, story};
use crate::server::Server;

const PASSWORD: &str = "my tongue is green";

/// Opens the form behind a quiet button and fills in its fields.
async fn fills_in(tab: &Tab<'_>, form: &str, fields: &[(&str, &str)]) {
    tab.click("#account .me__change").await;
    for (name, text) in fields {
        tab.click(&format!("{form} [name={name}]")).await;
        tab.types(text).await;
    }
    tab.presses(Key::Enter).await;
}

/// Waits until the page after a form shows this person.
async fn becomes(tab: &Tab<'_>, name: &str, form: &str) {
    let me = format!(
        "document.documentElement.dataset.connected === 'true' \
         && document.querySelector('#logged-user [data-user]')?.dataset.user === {} \
         && document.querySelector('#account {form}')",
        json!(name)
    );
    tab.until(&me).await;
}

/// The guest of this name registers.
pub(crate) async fn keeps(tab: &Tab<'_>, name: &str) {
    fills_in(tab, "#keep-form", &[("password", PASSWORD)]).await;
    becomes(tab, name, "#sign-out-form").await;
}

/// The registered person of this name signs in.
pub(crate) async fn signs_in(tab: &Tab<'_>, name: &str) {
    let fields = [("name", name), ("password", PASSWORD)];
    fills_in(tab, "#sign-in-form", &fields).await;
    becomes(tab, name, "#sign-out-form").await;
}

#[tokio::test]
async fn a_person_registers_and_signs_in_from_a_second_window() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let a = anna.name().await;
        anna.says("as a guest").await;
        anna.enters("python").await;
        anna.says("in another group").await;
        // The form is hidden from people who do not want it.
        assert!(!anna.shows("#account form").await);

        keeps(&anna, &a).await;
        anna.is_in("#python", "/chat/python/").await;
        anna.hears("in another group").await;
        // New tabs are the same person now, so the page does not offer a second person in a new
        // tab.
        let beside = browser.person(&server.url("/")).await;
        assert_eq!(beside.name().await, a);
        anna.enters("hi").await;
        for tab in [&anna, &beside] {
            tab.until("document.querySelector('#room-count').textContent.trim().startsWith('1')")
                .await;
            tab.sees("#users-alone").await;
            assert!(!tab.shows(".for-guests").await);
        }
        anna.says("from one").await;
        beside.hears("from one").await;
        beside.says("from the other").await;
        anna.hears("from the other").await;

        // Under another host name the browser has no cookie, like another device.
        let elsewhere = server
            .url("/chat/off-topic/")
            .replace("127.0.0.1", "localhost");
        let away = browser.person(&elsewhere).await;
        let guest = away.name().await;
        assert_ne!(guest, a);
        anna.sees(&format!("#users-online [data-user='{guest}']"))
            .await;
        fills_in(
            &away,
            "#sign-in-form",
            &[("name", &a), ("password", "a wrong one")],
        )
        .await;
        away.sees("#notice .notice__text").await;
        assert_eq!(away.path().await, "/sign-in/");
        assert!(away.text("#notice").await.contains("password is wrong"));
        // The name is still there.
        away.click("#sign-in-form [name=password]").await;
        away.types(PASSWORD).await;
        away.presses(Key::Enter).await;
        becomes(&away, &a, "#sign-out-form").await;
        away.is_in("#off-topic", "/chat/off-topic/").await;

        // Signing out affects one device with all its tabs.
        beside.enters("python").await;
        beside.writes("a draft of another room").await;
        beside.enters("hi").await;
        beside.writes("a draft").await;
        beside
            .run(
                "const data = new DataTransfer();
                 data.items.add(new File(['mine'], 'mine.txt', { type: 'text/plain' }));
                 document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }))",
            )
            .await;
        beside.sees(".upload[data-state=done]").await;
        anna.click("#account .me__change").await;
        anna.click("#sign-out-form button").await;
        anna.until("document.querySelector('#account #keep-form')")
            .await;
        beside
            .until("document.querySelector('#account #keep-form')")
            .await;
        let guests = [anna.name().await, beside.name().await];
        assert!(!guests.contains(&a));
        assert_ne!(guests[0], guests[1]);
        // What was in the box of the other tab is not sent under another name.
        beside.sees("#waiting .waiting__refused").await;
        let told = format!(
            "You are no longer {a}. What you write now is by {}.",
            guests[1]
        );
        assert_eq!(beside.text("#notice .notice__text").await.trim(), told);
        let held = "[...document.querySelectorAll('#waiting > div')].map((one) => \
            one.querySelector('.waiting__refused').innerText.trim() + ' ' + one.querySelector('.waiting__text').textContent)";
        assert_eq!(
            beside.get::<Vec<String>>(held).await,
            ["Not sent to #hi. a draft", "Not sent to #python. a draft of another room"]
        );
        assert_eq!(beside.written().await, "");
        // The file is still attached, and belongs to the new person.
        beside.sees(".upload[data-state=done]").await;
        beside.says("as somebody else").await;
        beside.sees(".files").await;
        assert!(!beside.texts().await.contains(&"a draft".to_owned()));
        beside.click("#waiting [data-back=edit]").await;
        assert_eq!(beside.written().await, "a draft");
        beside.enters("python").await;
        assert_eq!(beside.written().await, "");
        away.says("still here").await;
        assert_eq!(away.name().await, a);

        // So it is for a tab that showed another page meanwhile.
        away.writes("a thought").await;
        away.goto("about:blank").await;
        let other = browser.person(&elsewhere).await;
        assert_eq!(other.name().await, a);
        other.click("#account .me__change").await;
        other.click("#sign-out-form button").await;
        other
            .until("document.querySelector('#account #keep-form')")
            .await;
        // Whoever has signed out here knows it.
        assert!(!other.shows("#notice .notice").await);
        away.back().await;
        away.sees("#waiting .waiting__refused").await;
        assert_eq!(away.text("#waiting .waiting__text").await, "a thought");
        assert_eq!(away.written().await, "");

        let log = server.log();
        assert!(log.contains("signed in"), "{log}");
        for secret in [PASSWORD, "a wrong one", &a] {
            assert!(!log.contains(secret), "{log}");
        }
    })
    .await;
}
