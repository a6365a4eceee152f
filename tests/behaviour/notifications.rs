//! Notifications: who is told of which message, and when nobody is.

use serde_json::{Value, json};

use crate::support::device::Device;
use crate::support::page::Page;
use crate::support::{Server, Tab, until};

impl Tab {
    /// Changes how the person is notified, and waits until the tab shows that.
    async fn sets(&mut self, change: Value, shows: &str) {
        self.sends("Set notifications", change);
        self.shows_setting(shows).await;
    }

    async fn shows_setting(&mut self, words: &str) {
        self.until(&format!("the setting “{words}”"), |tab| {
            tab.page.the("notifications").text().contains(words)
        })
        .await;
    }

    /// Whether the tab shows that the person is notified.
    pub(crate) fn is_told(&self) -> bool {
        let settings = self.page.the("notifications");
        settings.with("data-on").next().is_some()
    }

    async fn wants_notifications(&mut self) {
        self.sets(json!({ "on": true }), "Do not notify me").await;
    }

    /// Looks at the tab or away, and waits until all nodes know it.
    async fn looks(&mut self, server: &Server, on: bool) {
        self.sends("In view", json!({ "on": on }));
        self.hears_all().await;
        if server.has_several_nodes() {
            let name = self.name();
            until("the nodes to know who looks", async || {
                let looking = format!(
                    "clients_in_view v join users u on u.id = v.user_id where u.name = '{name}'"
                );
                server.count(&looking) == u64::from(on)
            })
            .await;
        }
    }

    /// What the person was notified of: the titles and texts.
    fn notified(&self) -> Vec<(String, String)> {
        let pushes = self.pushes.iter();
        let pushes = pushes.filter(|push| push.place == "notification");
        let pushes = pushes.map(|push| Page::parse(&push.html));
        let told = |page: Page| {
            let message = page.root().with("data-title").next().unwrap();
            let title = message.attribute("data-title").unwrap();
            (title.to_owned(), message.text())
        };
        pushes.map(told).collect()
    }

    async fn is_notified(&mut self, texts: &[&str]) {
        self.until(&format!("notifications of {texts:?}"), |tab| {
            tab.notified().iter().map(|(_, text)| text).eq(texts)
        })
        .await;
    }
}

#[tokio::test]
async fn somebody_who_wants_it_is_notified_of_private_messages_while_they_look_away() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    carl.wants_notifications().await;
    anna.opens_private(&bob.name()).await;
    anna.says("nobody asked for it").await;
    anna.opens_private(&carl.name()).await;
    anna.says("after that").await;
    carl.is_notified(&["after that"]).await;
    anna.opens_private(&bob.name()).await;
    bob.wants_notifications().await;
    anna.says("first line\nsecond line").await;
    bob.is_notified(&["first line"]).await;
    let (title, _) = &bob.notified()[0];
    assert_eq!(*title, anna.name());
    let id = anna.messages().last().unwrap().id;
    let place = bob.page.the("notification").with("data-message").next();
    let place = place.unwrap();
    let address = format!("/chat/@{}/?at={id}", anna.name());
    assert_eq!(place.attribute("data-address"), Some(&*address));
    assert_eq!(place.attribute("data-message"), Some(&*id.to_string()));

    // In another room of the chat, they see what happens.
    bob.looks(&server, true).await;
    anna.says("seen").await;
    bob.until("the unread mark", |tab| tab.unread_from(&anna.name()) > 2)
        .await;
    bob.looks(&server, false).await;
    // Neither an edit nor a reaction is a message, and one's own messages are not for oneself.
    let data = json!({ "message": id, "text": "edited" });
    anna.sends("Edit message", data);
    let data = json!({ "message": id, "emoji": ":tada:", "on": true });
    anna.sends("React", data);
    anna.wants_notifications().await;
    anna.says("away").await;
    bob.is_notified(&["first line", "away"]).await;
    carl.opens_private(&bob.name()).await;
    carl.says("<b>me & you</b>").await;
    bob.is_notified(&["first line", "away", "<b>me & you</b>"])
        .await;
    assert_eq!(anna.notified(), []);
    assert_eq!(carl.notified().len(), 1);
    // Off again.
    bob.sends("Set notifications", json!({ "on": false }));
    bob.until("the setting", |tab| !tab.is_told()).await;
    anna.says("too late").await;
    bob.until("the unread mark", |tab| tab.unread_from(&anna.name()) > 4)
        .await;
    bob.wants_notifications().await;
    anna.says("in time").await;
    bob.is_notified(&["first line", "away", "<b>me & you</b>", "in time"])
        .await;
}

#[tokio::test]
async fn a_reply_notifies_the_author_of_the_original() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    bob.wants_notifications().await;
    bob.says("who is in?").await;
    let original = bob.messages()[0].id;
    anna.says("not a reply").await;
    bob.replies(original, "my own").await;
    anna.replies(original, "me").await;
    bob.is_notified(&["me"]).await;
}

#[tokio::test]
async fn a_tab_in_view_anywhere_speaks_for_all_tabs_of_the_person() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let (device, mut here) = Device::of_somebody(&server).await;
    let mut there = device.tab("/chat/python/").await;
    there.wants_notifications().await;
    here.shows_setting("Do not notify me").await;
    anna.opens_private(&here.name()).await;
    anna.says("one").await;
    for tab in [&mut here, &mut there] {
        tab.is_notified(&["one"]).await;
    }
    there.looks(&server, true).await;
    anna.says("two").await;
    here.until("the unread mark", |tab| tab.unread_from(&anna.name()) == 2)
        .await;
    // It closes while it is in view.
    there.closes().await;
    until("the server to notice that", async || {
        let people = server.people_here();
        people.iter().filter(|name| **name == here.name()).count() == 1
    })
    .await;
    anna.says("three").await;
    here.is_notified(&["one", "three"]).await;
}

#[tokio::test]
async fn nobody_is_disturbed_who_does_not_want_to_be() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let (device, mut here) = Device::of_somebody(&server).await;
    let mut there = device.tab("/chat/python/").await;
    here.wants_notifications().await;
    anna.opens_private(&here.name()).await;
    here.sets(json!({ "quiet": -1 }), "Until you turn it off")
        .await;
    there.shows_setting("Until you turn it off").await;
    anna.says("quiet").await;
    here.until("the unread mark", |tab| tab.unread_from(&anna.name()) == 1)
        .await;
    there.sets(json!({ "quiet": 30 }), "Until 20").await;
    here.shows_setting("Until 20").await;
    anna.says("still quiet").await;
    here.until("the unread mark", |tab| tab.unread_from(&anna.name()) == 2)
        .await;
    // The time has come.
    server.change("update notifications set quiet_until = quiet_until - 1800000");
    anna.says("loud").await;
    here.is_notified(&["loud"]).await;
    here.sets(json!({ "sounds": true }), "Turn the sound off")
        .await;
    there.shows_setting("Turn the sound off").await;
    // A tab that comes later has the same settings.
    let mut later = device.tab("/chat/python/").await;
    later.shows_setting("Turn the sound off").await;
    assert!(!there.notified().is_empty());
}

#[tokio::test]
async fn a_guest_keeps_their_settings_and_nobody_else_gets_them() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let name = anna.name();
    anna.wants_notifications().await;
    anna.reloads().await;
    anna.shows_setting("Do not notify me").await;
    let refused = anna.is_refused("Set notifications", json!({})).await;
    assert_eq!(refused, "“quiet” is missing.");
    anna.closes().await;
    server.has_noticed_leaving(&[&name]).await;
    server.later(std::time::Duration::from_secs(3600)).await;
    let free = format!("users where name = '{name}' and free");
    assert_eq!(server.count(&free), 0);
}

#[tokio::test]
async fn people_are_notified_of_mentions_in_groups_that_they_have_not_muted() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    for tab in [&mut bob, &mut carl] {
        tab.wants_notifications().await;
        tab.enters_group("python").await;
    }
    carl.sends("Mute group", json!({ "room": carl.room(), "on": true }));
    carl.hears_all().await;
    anna.wants_notifications().await;
    anna.enters_group("python").await;
    anna.says("to nobody").await;
    let (b, c) = (bob.name(), carl.name());
    anna.says(&format!("@{b} and @{c}, look\nhere")).await;
    let told = format!("@{b} and @{c}, look");
    bob.is_notified(&[&told]).await;
    let id = anna.messages().last().unwrap().id;
    let place = bob.page.the("notification").with("data-message").next();
    let place = place.unwrap();
    let title = format!("{} in #python", anna.name());
    assert_eq!(place.attribute("data-title"), Some(&*title));
    let address = format!("/chat/python/?at={id}");
    assert_eq!(place.attribute("data-address"), Some(&*address));
    // An edit notifies nobody, however often somebody is added and removed.
    for words in ["look again", "@here", "look again", "@here"] {
        let data = json!({ "message": id, "text": format!("@{b}, @{c}, {words}") });
        anna.sends("Edit message", data);
    }
    anna.says("@here lunch").await;
    bob.is_notified(&[&told, "@here lunch"]).await;
    // Whoever has left is not told either.
    bob.sends("Leave group", json!({ "room": bob.room() }));
    bob.hears_all().await;
    carl.sends("Mute group", json!({ "room": carl.room(), "on": false }));
    carl.hears_all().await;
    anna.says("@here again").await;
    carl.is_notified(&["@here again"]).await;
    assert_eq!(bob.notified().len(), 2);
    assert_eq!(anna.notified(), []);
}
