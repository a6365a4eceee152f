//! Replies: one line of the original, which changes with it, and is the same on every road.

use serde_json::json;
use uuid::Uuid;

use crate::support::page::Element;
use crate::support::tab::all;
use crate::support::{Server, Tab};

impl Tab {
    /// Replies to a message and waits until the list shows it. Returns its id.
    pub(crate) async fn replies(&mut self, to: i64, text: &str) -> i64 {
        let key = Uuid::new_v4().to_string();
        let data = json!({ "message": text, "room": self.room(), "key": key, "reply_to": to });
        self.sends("New message", data);
        self.until("the reply", |tab| {
            let mut messages = tab.messages().into_iter();
            messages.any(|one| one.key.as_deref() == Some(&key))
        })
        .await;
        let mut messages = self.messages().into_iter();
        let reply = messages.find(|one| one.key.as_deref() == Some(&key));
        reply.unwrap().id
    }

    fn message(&self, id: i64) -> &Element {
        self.page.the(&format!("message-{id}"))
    }

    /// What a message shows of its original.
    fn quote(&self, id: i64) -> Option<String> {
        let mut parts = self.message(id).all();
        let quote = parts.find(|part| part.has_class("quote") || part.has_class("message__quote"));
        quote.map(|quote| quote.text())
    }

    async fn quotes(&mut self, id: i64, line: &str) {
        self.until(&format!("the quote “{line}”"), |tab| {
            tab.quote(id).as_deref() == Some(line)
        })
        .await;
    }
}

#[tokio::test]
async fn a_reply_shows_one_line_of_the_original_and_changes_with_it() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    let mut plain = server.plain_tab().await;
    anna.says("**Tea** at `five` & *not* six\n\nbring cups")
        .await;
    let original = anna.messages()[0].id;
    bob.sees("Tea at five & not six\n\nbring cups").await;
    let reply = bob.replies(original, "gladly").await;
    let name = anna.name();
    let line = format!("{name} Tea at five & not six");
    for tab in [&mut anna, &mut bob, &mut carl, &mut plain] {
        tab.sees("gladly").await;
        assert_eq!(tab.quote(reply).as_deref(), Some(&*line));
        assert_eq!(tab.quote(original), None);
    }
    let link = anna.message(reply).with("data-quotes").next().unwrap();
    assert_eq!(link.attribute("href"), Some(&*format!("?at={original}")));
    assert_eq!(link.attribute("data-user"), Some(&*name));
    assert_eq!(plain.message(reply).with("href").count(), 0);
    // A page that shows the reply and not the original.
    for number in 0..50 {
        bob.says(&number.to_string()).await;
    }
    carl.sees("49").await;
    carl.loses_the_network();
    let data = json!({ "message": original, "text": "Tea at <six>" });
    anna.sends("Edit message", data);
    let line = format!("{name} Tea at <six>");
    all([&mut anna, &mut bob].map(|tab| tab.quotes(reply, &line))).await;
    carl.reconnects().await;
    carl.quotes(reply, &line).await;
    let mut dora = server.tab().await;
    assert_eq!(dora.asks_for_older().await, 2);
    assert_eq!(dora.quote(reply).as_deref(), Some(&*line));

    let mut erik = server.tab().await;
    erik.says("50").await;
    erik.says("51").await;
    erik.reloads().await;
    let middle = anna.messages()[25].id;
    erik.sends("Show messages", json!({ "at": middle }));
    erik.until("the reply first", |tab| tab.messages()[0].id == reply)
        .await;
    anna.sends("Delete message", json!({ "message": original }));
    let tabs = [&mut anna, &mut bob, &mut carl, &mut dora, &mut erik];
    all(tabs.map(|tab| tab.quotes(reply, "Message deleted"))).await;
    let mut fay = server.tab().await;
    fay.asks_for_older().await;
    for tab in [&anna, &bob, &carl, &dora, &erik] {
        assert_eq!(tab.message(reply), fay.message(reply));
    }
}

#[tokio::test]
async fn a_reply_to_what_is_not_in_the_room_is_an_ordinary_message() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.says("here").await;
    let here = anna.messages()[0].id;
    bob.enters_group("python").await;
    bob.says("elsewhere").await;
    let elsewhere = bob.messages()[0].id;
    for to in [elsewhere, 0, -1, i64::MAX, i64::MIN] {
        let id = anna.replies(to, "hello?").await;
        assert_eq!(anna.quote(id), None);
    }
    for to in [json!("1"), json!(1.5), json!([here]), json!(true)] {
        let data = json!({ "message": "a", "reply_to": to });
        let words = anna.is_refused("New message", data).await;
        assert_eq!(words, "“reply_to” must be the id of a message.");
    }
    let nothing = json!({ "message": "nothing", "reply_to": null });
    anna.sends("New message", nothing);
    anna.sees("nothing").await;

    // To one that has been deleted: the reply says so. To a reply: one line of that.
    anna.sends("Delete message", json!({ "message": here }));
    let first = anna.replies(here, "what was it?").await;
    assert_eq!(anna.quote(first).as_deref(), Some("Message deleted"));
    let long = "x".repeat(500);
    let second = anna.replies(first, &long).await;
    let third = anna.replies(second, "long").await;
    let line = format!("{} {}…", anna.name(), &long[..120]);
    assert_eq!(anna.quote(third), Some(line));
    // A command goes elsewhere and replies to nothing.
    let text = format!("/pm {} psst", bob.name());
    let command = json!({ "message": text, "room": anna.room(), "reply_to": first });
    anna.sends("New message", command);
    anna.opens_private(&bob.name()).await;
    anna.sees("psst").await;
    assert_eq!(anna.quote(anna.messages()[0].id), None);
}
