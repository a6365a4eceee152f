//! Mentions as people see them: the highlight, the number in the list and in the title.

use thirtyfour::Key;

use crate::accounts::{keeps, signs_in};
use crate::browser::{Tab, story};
use crate::server::Server;

/// Whether the last message is highlighted, since it mentions the reader.
const IS_FOR_ME: &str =
    "[...document.querySelectorAll('.message')].at(-1).matches(':has([data-me])')";

impl Tab<'_> {
    /// The list counts so many mentions in a group.
    async fn counts(&self, group: &str, count: u32) {
        let entry =
            format!("document.querySelector('#groups-list li:has(> [data-group-name={group}])')");
        self.until(&format!("({entry}.dataset.mentions ?? '0') === '{count}'"))
            .await;
        let badge = format!("{entry}.querySelector('.badge')");
        self.until(&format!(
            "{badge}.hidden === ({count} === 0) && Number({badge}.textContent) === {count}"
        ))
        .await;
    }

    /// Edits or deletes a message in the room that the tab shows.
    async fn changes(&self, action: &str, text: &str, new: &str) {
        self.run(&format!(
            "const {{ send }} = await import(document.querySelector('[href*=\"js/runtime\"]').href); \
             const all = [...document.querySelectorAll('.message')]; \
             const it = all.find((one) => one.querySelector('.message > p').textContent.trim() === '{text}'); \
             send('{action}', {{ message: Number(it.id.slice(8)), text: '{new}' }})"
        ))
        .await;
    }

    async fn is_titled(&self, title: &str) {
        self.until(&format!("document.title === '{title} · Overwire'"))
            .await;
    }
}

#[tokio::test]
async fn a_mention_is_highlighted_for_whom_it_names_and_counted_until_they_see_it() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/hi/")).await;
        anna.looks_here().await;
        bob.looks_here().await;
        let name = bob.name().await;
        bob.enters("python").await;
        bob.is_titled("#python").await;
        anna.says(&format!("hi @{name}")).await;
        bob.counts("hi", 1).await;
        bob.is_titled("(1) #python").await;
        anna.says("@here, lunch").await;
        bob.counts("hi", 2).await;
        bob.is_titled("(2) #python").await;
        anna.until(&format!("!{IS_FOR_ME}")).await;
        bob.enters("hi").await;
        bob.until(IS_FOR_ME).await;
        bob.counts("hi", 0).await;
        bob.is_titled("#hi").await;
        bob.until("document.querySelectorAll('.message:has([data-me])').length === 2")
            .await;
        anna.until("!document.querySelector('[data-me]')").await;
        // In the room, but not looking.
        bob.looks_away().await;
        anna.says(&format!("@{name}?")).await;
        bob.counts("hi", 1).await;
        bob.is_titled("(1) #hi").await;
        bob.looks_back().await;
        bob.counts("hi", 0).await;
        // The page of my mentions leads to their places, and back.
        bob.run("window.kept = true; document.querySelector('a[href*=mention]').click()")
            .await;
        bob.is_titled("Mentions").await;
        bob.until("document.querySelectorAll('.found').length === 3")
            .await;
        // It is kept up to date.
        anna.says(&format!("@{name}!")).await;
        bob.until("document.querySelectorAll('.found').length === 4")
            .await;
        bob.run("document.querySelector('.found:last-child').click()")
            .await;
        bob.until(&format!(
            "document.querySelector('.message[data-at]')?.textContent.includes('hi @{name}')"
        ))
        .await;
        bob.run("history.back()").await;
        bob.until("document.title.endsWith('Mentions · Overwire')")
            .await;
        bob.until("document.querySelectorAll('.found').length === 4 && window.kept")
            .await;
        bob.run("history.back()").await;
        bob.is_titled("#hi").await;
        // After a reload it looks the same.
        bob.reload().await;
        bob.is_somebody().await;
        bob.until("document.querySelectorAll('.message:has([data-me])').length === 4")
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_message_that_i_have_read_is_no_news_when_it_begins_to_mention_everybody() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/hi/")).await;
        bob.looks_here().await;
        anna.says("lunch").await;
        bob.hears("lunch").await;
        bob.enters("python").await;
        // The page does not remember what it has read.
        bob.reload().await;
        bob.is_in("#python", "/chat/python/").await;
        anna.click("#message-text").await;
        anna.presses(Key::Up).await;
        anna.until("document.activeElement.matches('#message-form textarea')")
            .await;
        anna.presses(Key::Home).await;
        anna.types("@here, ").await;
        anna.presses(Key::Enter).await;
        let entry = "#groups-list li:has(> [data-group-name=hi])";
        bob.until(&format!(
            "document.querySelector('{entry} [id^=news-][data-here]')"
        ))
        .await;
        bob.sees_no(&format!("{entry}[data-news]")).await;
        bob.is_titled("#python").await;
        anna.says("more").await;
        bob.sees(&format!("{entry}[data-news]")).await;
    })
    .await;
}

#[tokio::test]
async fn a_mention_that_is_taken_back_is_no_longer_counted() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/hi/")).await;
        bob.looks_here().await;
        let name = bob.name().await;
        bob.enters("python").await;
        let both = format!("@here and @{name}");
        anna.says(&both).await;
        anna.says("@here, lunch").await;
        bob.counts("hi", 2).await;
        anna.changes("Edit message", &both, &format!("only @{name}"))
            .await;
        anna.changes("Edit message", "@here, lunch", "lunch").await;
        bob.counts("hi", 1).await;
        bob.is_titled("(1) #python").await;
        anna.changes("Edit message", "lunch", "@here, after all")
            .await;
        bob.counts("hi", 2).await;
        anna.hears("@here, after all").await;
        anna.changes("Delete message", "@here, after all", "").await;
        bob.counts("hi", 1).await;
        // In the room, but not looking.
        bob.enters("hi").await;
        bob.counts("hi", 0).await;
        bob.looks_away().await;
        anna.says(&format!("@{name}?")).await;
        bob.counts("hi", 1).await;
        anna.changes("Edit message", &format!("@{name}?"), "?")
            .await;
        bob.counts("hi", 0).await;
        bob.is_titled("#hi").await;
    })
    .await;
}

#[tokio::test]
async fn two_devices_of_one_person_count_the_same_mentions() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/hi/")).await;
        let name = bob.name().await;
        keeps(&bob, &name).await;
        // Under another host name the browser has no cookie, like another device.
        let elsewhere = server
            .url("/chat/events/")
            .replace("127.0.0.1", "localhost");
        let phone = browser.person(&elsewhere).await;
        signs_in(&phone, &name).await;
        bob.looks_here().await;
        bob.enters("python").await;
        phone.is_in("#events", "/chat/events/").await;
        anna.says("@here, lunch").await;
        anna.says(&format!("@{name}?")).await;
        for tab in [&bob, &phone] {
            tab.counts("hi", 2).await;
        }
        anna.changes("Delete message", "@here, lunch", "").await;
        for tab in [&bob, &phone] {
            tab.counts("hi", 1).await;
        }
        // One reads it, and the other knows.
        bob.enters("hi").await;
        for tab in [&bob, &phone] {
            tab.counts("hi", 0).await;
        }
        phone.is_titled("#events").await;
    })
    .await;
}

#[tokio::test]
async fn links_in_a_text_lead_to_rooms_and_messages_without_a_reload() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        let name = bob.name().await;
        anna.says("the place").await;
        bob.hears("the place").await;
        let id: i64 = bob.get("Number(document.querySelector('.message').id.slice(8))").await;
        let address = format!("{}?at={id}", server.url("/chat/python/"));
        anna.enters("hi").await;
        bob.enters("hi").await;
        anna.sends(&format!("{address} and #events and @{name}")).await;
        bob.run("window.kept = true").await;
        let link = |text: &str| {
            format!("[...document.querySelectorAll('.message > p a')].find((a) => a.textContent.startsWith('{text}'))")
        };
        bob.until(&link("#python ·")).await;
        bob.run(&format!("{}.click()", link("#python ·"))).await;
        bob.until(&format!("location.search === '?at={id}' && document.querySelector('.message[data-at]')")).await;
        bob.run("history.back()").await;
        bob.until(&format!("location.pathname === '/chat/hi/' && {}", link("#events"))).await;
        bob.run(&format!("{}.click()", link("#events"))).await;
        bob.until("location.pathname === '/chat/events/'").await;
        assert!(bob.get::<bool>("window.kept").await);
    })
    .await;
}
