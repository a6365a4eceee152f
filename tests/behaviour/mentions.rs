//! Mentions: the people whom a message names are told at once, and their lists count it until they have
//! read it.

use overwire::model::Millis;
use serde_json::json;

use crate::support::{Server, Tab};

/// How many mentions the tab's list counts for a group.
fn counted(tab: &Tab, room: &str) -> u32 {
    let item = tab.page.the(&format!("listed-{room}"));
    item.attribute("data-mentions")
        .map_or(0, |count| count.parse().unwrap())
}

impl Tab {
    async fn counts(&mut self, room: &str, count: u32) {
        self.until("the number of mentions", |tab| counted(tab, room) == count)
            .await;
    }
}

/// What happens from now on has another time.
async fn another_millisecond() {
    let now = Millis::now();
    while Millis::now() == now {
        tokio::task::yield_now().await;
    }
}

/// Bob has read `#hi` and is elsewhere. Returns the id of `#hi`.
async fn bob_is_elsewhere(anna: &Tab, bob: &mut Tab) -> String {
    bob.enters_group("python").await;
    anna.room().unwrap()
}

#[tokio::test]
async fn a_mention_is_counted_at_once_and_until_it_is_read() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let hi = bob_is_elsewhere(&anna, &mut bob).await;
    let name = bob.name();
    anna.says(&format!("hi @{name}")).await;
    bob.counts(&hi, 1).await;
    anna.says("and now?").await;
    anna.says(&format!("`@{name}` in code")).await;
    anna.says(&format!("@{name}!")).await;
    bob.counts(&hi, 2).await;
    let last = anna.messages().pop().unwrap();
    anna.sends("Delete message", json!({ "message": last.id }));
    bob.counts(&hi, 1).await;
    let first = anna.messages()[0].id;
    anna.sends(
        "Edit message",
        json!({ "message": first, "text": "never mind" }),
    );
    bob.counts(&hi, 0).await;
    anna.sends(
        "Edit message",
        json!({ "message": first, "text": format!("yes, @{name}") }),
    );
    bob.counts(&hi, 1).await;
    // In a group without news, a call by name still counts.
    bob.sends("Mute group", json!({ "room": hi, "on": true }));
    anna.says(&format!("@{name}?")).await;
    bob.counts(&hi, 2).await;
    bob.sends("Mark all as read", json!({}));
    bob.counts(&hi, 0).await;
    // Nobody mentions themselves.
    let own = anna.name();
    anna.says(&format!("@{own}")).await;
    anna.enters_group("python").await;
    assert_eq!(counted(&anna, &hi), 0);
}

#[tokio::test]
async fn a_reply_mentions_the_author_of_the_original() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    bob.says("who is in?").await;
    let original = bob.messages()[0].id;
    let hi = bob_is_elsewhere(&anna, &mut bob).await;
    let reply = anna.replies(original, "me").await;
    bob.counts(&hi, 1).await;
    // An edit changes nothing about that, nor does a mention by name in it.
    let text = format!("@{}, me", bob.name());
    anna.sends("Edit message", json!({ "message": reply, "text": text }));
    anna.sees(&text).await;
    anna.replies(original, "and carl").await;
    bob.counts(&hi, 2).await;
    anna.sends("Delete message", json!({ "message": reply }));
    bob.counts(&hi, 1).await;
    // One's own reply is no mention.
    bob.enters_group("hi").await;
    bob.replies(original, "good").await;
    bob.enters_group("python").await;
    assert_eq!(counted(&bob, &hi), 0);
    bob.sends("Search", json!({ "text": "is:mention" }));
    bob.until("the reply among the mentions", |tab| {
        tab.page.the("search-page").text().contains("and carl")
    })
    .await;
}

#[tokio::test]
async fn a_mention_of_everybody_travels_with_the_news_of_the_group() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let mut carl = server.tab().await;
    let hi = bob_is_elsewhere(&anna, &mut bob).await;
    carl.enters_group("python").await;
    anna.says("@here, lunch").await;
    let id = anna.messages()[0].id;
    let place = format!("news-{hi}");
    let here = format!("{id}:{}", anna.name());
    for tab in [&mut bob, &mut carl] {
        tab.until("the news", |tab| {
            let news = tab.page.the(&place);
            news.attribute("data-here") == Some(&*here)
        })
        .await;
    }
    let frames = [&bob, &carl].map(|tab| tab.pushes_to(&place, 0)[0].frame.clone());
    assert_eq!(frames[0], frames[1]);
    // A list that is read later counts it, and says up to where.
    bob.enters_group("events").await;
    assert_eq!(counted(&bob, &hi), 1);
    let item = bob.page.the(&format!("listed-{hi}"));
    assert_eq!(item.attribute("data-here"), Some(&*id.to_string()));
    let read: i64 = item.attribute("data-read").unwrap().parse().unwrap();
    assert!(read < id);
    // In a private room there is nobody else.
    anna.opens_private(&bob.name()).await;
    anna.says("@here").await;
    let list = anna.page.the("messages-list");
    assert!(!list.all().any(|part| part.has_class("mention")));
}

#[tokio::test]
async fn a_mention_of_everybody_that_is_taken_back_is_news_too() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let mut carl = server.tab().await;
    let hi = bob_is_elsewhere(&anna, &mut bob).await;
    carl.enters_group("python").await;
    let place = format!("news-{hi}");
    let name = bob.name();
    anna.says("@here, lunch").await;
    anna.says(&format!("@here and @{name}")).await;
    let [first, second] = [0, 1].map(|n| anna.messages()[n].id);
    let here = |tab: &Tab| {
        let item = tab.page.the(&format!("listed-{hi}"));
        item.attribute("data-here").map(str::to_owned)
    };
    bob.enters_group("events").await;
    assert_eq!(here(&bob), Some(format!("{first} {second}")));
    assert_eq!(
        counted(&bob, &hi),
        2,
        "both by name and with everybody is once"
    );
    let edit = json!({ "message": second, "text": format!("only @{name}") });
    anna.sends("Edit message", edit);
    for tab in [&mut bob, &mut carl] {
        tab.until("the news of the edit", |tab| {
            tab.page.the(&place).attribute("data-gone") == Some(&*second.to_string())
        })
        .await;
    }
    anna.sends("Delete message", json!({ "message": first }));
    let mut frames = Vec::new();
    for tab in [&mut bob, &mut carl] {
        tab.until("the news of the deletion", |tab| {
            let news = tab.page.the(&place);
            let is_read = news.attribute("data-message") == Some("0");
            is_read && news.attribute("data-gone") == Some(&*first.to_string())
        })
        .await;
        frames.push(tab.pushes_to(&place, 0).pop().unwrap().frame.clone());
    }
    assert_eq!(frames[0], frames[1]);
    bob.enters_group("python").await;
    assert_eq!((here(&bob), counted(&bob, &hi)), (None, 1));
}

#[tokio::test]
async fn mentions_of_everybody_since_i_joined_are_on_the_page_of_mine() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let found = |tab: &Tab| -> Vec<String> {
        let all = tab.page.root().all();
        let texts = all.filter(|part| part.has_class("found__text"));
        texts.map(|part| part.text().trim().to_owned()).collect()
    };
    anna.enters_group("python").await;
    anna.says("@here, before").await;
    another_millisecond().await;
    bob.enters_group("python").await;
    another_millisecond().await;
    anna.says("@here, after").await;
    anna.says("@here and gone").await;
    let last = anna.messages().pop().unwrap();
    anna.sends("Delete message", json!({ "message": last.id }));
    anna.hears_all().await;
    bob.hears_all().await;
    bob.says("@here, my own").await;
    bob.sends("Search", json!({ "text": "is:mention" }));
    bob.until("the mention", |tab| found(tab) == ["@here, after"])
        .await;
    anna.sends("Search", json!({ "text": "is:mention" }));
    anna.until("the mention", |tab| found(tab) == ["@here, my own"])
        .await;
}

#[tokio::test]
async fn my_mentions_are_a_page_newest_first() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let [mut anna, mut bob] = server.tabs().await;
    let name = bob.name();
    let found = |tab: &Tab| -> Vec<String> {
        let all = tab.page.root().all();
        let texts = all.filter(|part| part.has_class("found__text"));
        texts.map(|part| part.text().trim().to_owned()).collect()
    };
    bob.sends("Search", json!({ "text": "is:mention" }));
    bob.hears_all().await;
    assert_eq!(bob.title(), "Mentions");
    assert!(
        bob.page
            .the("search-page")
            .text()
            .contains("Nobody has mentioned you")
    );
    anna.says(&format!("first, @{name}")).await;
    anna.says("for nobody").await;
    anna.opens_private(&name).await;
    anna.says(&format!("second, @{name}")).await;
    anna.enters_group("python").await;
    for number in 0..50 {
        anna.says(&format!("{number}, @{name}")).await;
    }
    bob.sends("Search", json!({ "text": "is:mention" }));
    bob.until("the mentions", |tab| found(tab).len() == 50)
        .await;
    assert_eq!(found(&bob)[0], format!("49, @{name}"));
    let last = bob
        .page
        .root()
        .all()
        .filter(|one| one.has_class("found"))
        .last()
        .unwrap();
    let before: i64 = last
        .id()
        .unwrap()
        .trim_start_matches("found-")
        .parse()
        .unwrap();
    bob.sends("Search", json!({ "text": "is:mention", "before": before }));
    bob.until("the rest", |tab| found(tab).len() == 52).await;
    assert_eq!(
        found(&bob)[50..],
        [format!("second, @{name}"), format!("first, @{name}")]
    );
    assert!(bob.page.get("search-older").is_none());
    // The page is the same after a reload, and nobody else's.
    bob.location = "/search/?q=is%3Amention".to_owned();
    bob.reloads().await;
    bob.until("the mentions", |tab| found(tab).len() == 50)
        .await;
    assert_eq!(bob.title(), "Mentions");
    anna.sends("Search", json!({ "text": "IS:Mention" }));
    anna.hears_all().await;
    assert_eq!(anna.title(), "Mentions");
    assert_eq!(found(&anna), [""; 0]);
}
