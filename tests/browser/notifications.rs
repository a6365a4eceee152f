//! Notifications as people see them: the permission, what is shown, and where a click leads.

use serde_json::json;

use crate::browser::{Browser, Tab, story};
use crate::server::Server;

/// The notifications on show, as an expression.
const SHOWN: &str = "JSON.stringify(window.shown)";

impl Tab<'_> {
    /// Notes what the browser shows of this chat, in `window.shown`.
    async fn looks_at_notifications(&self) {
        self.run(
            "setInterval(async () => {
                const worker = await navigator.serviceWorker.getRegistration();
                const list = await worker?.getNotifications() ?? [];
                window.shown = list.map(({ title, body }) => `${title}: ${body}`).sort();
            }, 50)",
        )
        .await;
    }

    async fn wants_notifications(&self) {
        self.click("#notifications .me__change").await;
        self.click("#my-notifications [data-payload='{\"on\":true}']")
            .await;
        self.sees("#my-notifications[data-on]").await;
        // The button that had the focus is another one now.
        self.until("document.activeElement.matches('#my-notifications button')")
            .await;
        self.run("document.querySelector('#my-notifications').hidePopover()")
            .await;
    }

    /// Clicks on the notification of that text, in the browser's stead.
    async fn clicks_notification(&self, text: &str) {
        self.runs_in_worker(&format!(
            "registration.getNotifications().then((list) => {{
                const notification = list.find(({{ body }}) => body === {});
                dispatchEvent(new NotificationEvent('notificationclick', {{ notification }}));
            }})",
            json!(text)
        ))
        .await;
    }

    /// Runs a script in the service worker.
    async fn runs_in_worker(&self, script: &str) {
        let targets = self.devtools("Target.getTargets", json!({})).await;
        let targets = targets["targetInfos"].as_array().unwrap();
        let worker = targets.iter().find(|one| one["type"] == "service_worker");
        let worker = json!({ "targetId": worker.unwrap()["targetId"] });
        let attached = self.devtools("Target.attachToTarget", worker).await;
        let message = json!({
            "id": 1, "method": "Runtime.evaluate", "params": { "expression": script },
        });
        let message = json!({ "sessionId": attached["sessionId"], "message": message.to_string() });
        self.devtools("Target.sendMessageToTarget", message).await;
    }

    /// The person looks at this window, or at another program.
    async fn looks(&self, on: bool) {
        let script = format!(
            "document.hasFocus = () => {on}; window.dispatchEvent(new Event({}))",
            json!(if on { "focus" } else { "blur" })
        );
        self.run(&script).await;
        self.hears_all().await;
    }

    /// Waits until everything sent before has been handled.
    async fn hears_all(&self) {
        self.run(
            "window.answered = false;
             new MutationObserver(() => { window.answered = true; }).observe(
                document.querySelector('#connection'), { childList: true, subtree: true });
             document.querySelector('#connection').replaceChildren();
             document.dispatchEvent(new Event('visibilitychange'))",
        )
        .await;
        self.until("document.querySelector('#connection').textContent")
            .await;
    }
}

/// A browser that allows notifications, so that nobody has to answer its question.
async fn allows(browser: &Browser, server: &Server) {
    let tab = browser.window().await;
    tab.devtools(
        "Browser.grantPermissions",
        json!({ "origin": server.url(""), "permissions": ["notifications"] }),
    )
    .await;
}

#[tokio::test]
async fn a_notification_is_shown_once_and_leads_to_its_message() {
    let server = Server::start(&[]);
    story(async |browser| {
        allows(browser, &server).await;
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        // Nothing is asked and installed before somebody wants it.
        anna.until("document.documentElement.dataset.notify === 'granted'")
            .await;
        bob.wants_notifications().await;
        bob.looks_at_notifications().await;
        bob.looks(false).await;
        anna.meets(&b).await;
        anna.says("are you there?").await;
        let told = |texts: &[&str]| {
            let told: Vec<_> = texts.iter().map(|text| format!("{a}: {text}")).collect();
            format!("{SHOWN} === JSON.stringify({})", json!(told))
        };
        bob.until(&told(&["are you there?"])).await;
        bob.looks(true).await;
        anna.says("you are").await;
        bob.sees(&format!("[data-user='{a}'][data-unread='2']"))
            .await;
        bob.looks(false).await;
        anna.says("still there?").await;
        bob.until(&told(&["are you there?", "still there?"])).await;

        bob.clicks_notification("still there?").await;
        bob.is_in(&a, &format!("/chat/@{a}/")).await;
        bob.until("document.querySelector('#messages-list').dataset.at")
            .await;
        bob.hears("still there?").await;
    })
    .await;
}

#[tokio::test]
async fn of_several_tabs_of_one_person_one_notifies_them() {
    let server = Server::start(&[]);
    story(async |browser| {
        allows(browser, &server).await;
        let [anna, here] = browser.people(&server.url("/chat/python/")).await;
        here.run(
            "const form = document.querySelector('#keep-form');
             form.querySelector('[name=password]').value = 'my tongue is green';
             form.requestSubmit();",
        )
        .await;
        here.until("document.querySelector('#sign-out-form')").await;
        let there = browser.person(&server.url("/chat/python/")).await;
        here.wants_notifications().await;
        there
            .until("document.querySelector('#my-notifications[data-on]')")
            .await;
        for tab in [&here, &there] {
            tab.looks(false).await;
            tab.run(
                "window.told = 0;
                 const { postMessage } = ServiceWorker.prototype;
                 ServiceWorker.prototype.postMessage = function (message) {
                    window.told += 1;
                    postMessage.call(this, message);
                 }",
            )
            .await;
        }
        anna.meets(&here.name().await).await;
        anna.says("to one of them").await;
        for tab in [&here, &there] {
            tab.until("document.querySelector('#notification [data-message]')")
                .await;
            tab.hears_all().await;
        }
        let mut told = 0;
        for tab in [&here, &there] {
            told += tab.get::<u32>("window.told").await;
        }
        assert_eq!(told, 1);
        // A tab in view speaks for the other.
        there.looks(true).await;
        anna.says("seen").await;
        here.sees("[data-unread='2']").await;
        there.looks(false).await;
        anna.says("not seen").await;
        let last =
            "document.querySelector('#notification [data-message]').textContent === 'not seen'";
        for tab in [&here, &there] {
            tab.until(last).await;
            tab.hears_all().await;
        }
        let mut told = 0;
        for tab in [&here, &there] {
            told += tab.get::<u32>("window.told").await;
        }
        assert_eq!(told, 2);
        // The switch of the other tab follows.
        there.click("#notifications .me__change").await;
        there
            .click("#my-notifications [data-payload='{\"quiet\":\"tomorrow\"}']")
            .await;
        here.until("document.querySelector('#my-notifications time')")
            .await;
        let hour = "new Date(document.querySelector('#my-notifications time').dateTime).getHours()";
        assert_eq!(here.get::<u32>(hour).await, 8);
    })
    .await;
}

#[tokio::test]
async fn a_pushed_message_is_shown_once_and_leads_to_its_place() {
    let server = Server::start(&[]);
    story(async |browser| {
        allows(browser, &server).await;
        let bob = browser.person(&server.url("/chat/python/")).await;
        bob.says("find me").await;
        let id: String = bob
            .get("document.querySelector('.message:last-child').id.slice('message-'.length)")
            .await;
        bob.wants_notifications().await;
        bob.looks_at_notifications().await;
        bob.until("navigator.serviceWorker.ready.then(() => true)")
            .await;
        bob.enters("hi").await;
        let told = json!({
            "tag": id, "title": "anna in #python", "body": "are you there?",
            "address": format!("/chat/python/?at={id}"),
        });
        // The push service may deliver something twice, and the page may have shown it too.
        for _ in 0..2 {
            bob.runs_in_worker(&format!(
                "dispatchEvent(new PushEvent('push', {{ data: JSON.stringify({told}) }}))"
            ))
            .await;
        }
        let shown = json!(["anna in #python: are you there?"]);
        bob.until(&format!("{SHOWN} === JSON.stringify({shown})"))
            .await;
        bob.clicks_notification("are you there?").await;
        bob.is_in("#python", "/chat/python/").await;
        bob.until("document.querySelector('#messages-list').dataset.at")
            .await;
    })
    .await;
}
