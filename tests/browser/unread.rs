//! Unread messages as people see them: dots, the line where they left off, the title and the icon.

use serde_json::json;
use thirtyfour::Key;

use crate::browser::{Tab, story};
use crate::server::Server;

/// The entry of a group in the side pane.
fn entry(group: &str, state: &str) -> String {
    format!("#groups-list li{state} > [data-group-name='{group}']")
}

const HAS_NEWS: &str = "[data-news]";
const NO_NEWS: &str = ":not([data-news])";

/// Whether the page's icon says that something is waiting.
const WAITING: &str = "document.querySelector('link[rel=icon]').href.includes('unread')";

impl Tab<'_> {
    /// The person looks at this window, whatever happens in others.
    pub(crate) async fn looks_here(&self) {
        self.devtools(
            "Emulation.setFocusEmulationEnabled",
            json!({ "enabled": true }),
        )
        .await;
    }

    /// The person looks at another window.
    pub(crate) async fn looks_away(&self) {
        self.run("document.hasFocus = () => false").await;
    }

    pub(crate) async fn looks_back(&self) {
        self.run("delete document.hasFocus; window.dispatchEvent(new Event('focus'))")
            .await;
    }
}

#[tokio::test]
async fn a_group_with_news_has_a_dot_until_its_end_was_seen() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        anna.looks_here().await;
        bob.looks_here().await;
        anna.says("before").await;
        bob.hears("before").await;
        bob.sees(&entry("python", NO_NEWS)).await;
        bob.enters("hi").await;
        bob.until(&format!("!{WAITING}")).await;
        anna.says("news").await;
        bob.sees(&entry("python", HAS_NEWS)).await;
        bob.until(WAITING).await;
        assert!(bob.shows(&format!("{} .news", entry("python", ""))).await);
        anna.enters("hi").await;
        anna.sees(&entry("python", NO_NEWS)).await;
        anna.says("my own words").await;
        anna.enters("python").await;
        anna.sees(&entry("hi", NO_NEWS)).await;

        bob.enters("python").await;
        bob.until(
            "document.querySelector('[data-new]:not([data-joined]) > p')?.textContent === 'news'",
        )
        .await;
        bob.sees(&entry("python", NO_NEWS)).await;
        bob.until(&format!("!{WAITING}")).await;
        // The line stays until the next visit, also when more is written.
        anna.says("more").await;
        bob.hears("more").await;
        bob.until(
            "document.querySelector('[data-new]:not([data-joined]) > p')?.textContent === 'news'",
        )
        .await;
        bob.enters("hi").await;
        bob.enters("python").await;
        bob.hears("more").await;
        bob.sees_no("[data-new]").await;
        bob.sees(&entry("python", NO_NEWS)).await;
        // What is written while I look is not new.
        anna.says("live").await;
        bob.hears("live").await;
        bob.sees_no("[data-new]").await;
    })
    .await;
}

#[tokio::test]
async fn a_room_that_is_loaded_has_the_line_where_i_left_off() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let url = server.url("/chat/python/");
        let [anna, bob] = browser.people(&url).await;
        anna.looks_here().await;
        bob.looks_here().await;
        anna.says("before").await;
        bob.hears("before").await;
        bob.sees(&entry("python", NO_NEWS)).await;
        bob.enters("hi").await;
        anna.says("news").await;
        bob.sees(&entry("python", HAS_NEWS)).await;
        bob.goto(&url).await;
        bob.until("document.querySelector('[data-new] > p')?.textContent === 'news'")
            .await;
        bob.sees(&entry("python", NO_NEWS)).await;
        // Neither another socket nor a reload brings a line for what was on the screen.
        anna.says("live").await;
        bob.hears("live").await;
        bob.reload().await;
        bob.is_somebody().await;
        bob.sees("#room-menu button").await;
        bob.sees_no("[data-new]").await;
        server.dies();
        bob.sees(".state__lost").await;
        server.starts_again();
        anna.says("after the break").await;
        bob.hears("after the break").await;
        bob.sees_no("[data-new]").await;
        // A message that the address names stays where it is shown.
        bob.enters("hi").await;
        for n in 0..12 {
            anna.says(&format!("line {n}\n\n\nend of {n}")).await;
        }
        let link = "[...document.querySelectorAll('.message > b + a')].at(-5).href";
        bob.goto(&anna.get::<String>(link).await).await;
        bob.until("document.querySelector('[data-new] > p')?.textContent.startsWith('line 0')")
            .await;
        let place = "document.querySelector('.message[data-at]').getBoundingClientRect()";
        bob.until(&format!("{place}.top > 0 && {place}.bottom < innerHeight"))
            .await;
    })
    .await;
}

#[tokio::test]
async fn the_line_stays_when_the_message_under_it_is_edited_or_deleted() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        bob.looks_here().await;
        bob.enters("hi").await;
        anna.says("news").await;
        bob.sees(&entry("python", HAS_NEWS)).await;
        bob.enters("python").await;
        bob.until("document.querySelector('[data-new] > p')?.textContent === 'news'")
            .await;
        bob.sees(&entry("python", NO_NEWS)).await;
        let changes = async |action: &str| {
            anna.run(&format!(
                "const {{ send }} = await import(document.querySelector('[href*=\"js/runtime\"]').href); \
                 const message = Number([...document.querySelectorAll('.message')].at(-1).id.slice(8)); \
                 send('{action}', {{ message, text: 'other news' }})"
            ))
            .await;
        };
        changes("Edit message").await;
        bob.hears("other news").await;
        bob.until("document.querySelector('[data-new] > p')?.textContent === 'other news'")
            .await;
        changes("Delete message").await;
        bob.sees("[data-new].message--deleted").await;
    })
    .await;
}

#[tokio::test]
async fn a_room_is_read_only_by_somebody_who_looks_at_its_end() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        anna.looks_here().await;
        bob.looks_here().await;
        bob.looks_away().await;
        anna.says("are you there?").await;
        bob.hears("are you there?").await;
        bob.sees(&entry("python", HAS_NEWS)).await;
        bob.until("document.querySelectorAll('[data-new]').length === 1")
            .await;
        let has_news = "document.querySelector('[rel=icon]').href.includes('unread')";
        bob.until(has_news).await;
        bob.looks_back().await;
        bob.sees(&entry("python", NO_NEWS)).await;
        assert!(!bob.get::<bool>(has_news).await);

        // More than a screen: the list opens where I left off, and its end is not yet seen. The room that I
        // leave is read meanwhile, and not that one.
        bob.enters("hi").await;
        bob.says("the end of another room").await;
        for n in 0..30 {
            anna.says(&format!("line {n}\n\n\nend of {n}")).await;
        }
        bob.sees(&entry("python", HAS_NEWS)).await;
        bob.enters("python").await;
        let place = "document.querySelector('[data-new]').getBoundingClientRect().top \
            - document.querySelector('#scroller').getBoundingClientRect().top";
        bob.until(&format!("Math.abs({place} - 48) < 8")).await;
        bob.sees(&entry("python", HAS_NEWS)).await;
        bob.run("document.querySelector('#scroller').scrollTop = 1e6")
            .await;
        bob.sees(&entry("python", NO_NEWS)).await;
    })
    .await;
}

#[tokio::test]
async fn a_muted_group_does_not_change_the_icon_while_i_look_away() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        anna.looks_here().await;
        bob.looks_here().await;
        bob.click("#room-menu > button").await;
        bob.click("#room-menu [data-action='Mute group']").await;
        bob.sees(&entry("python", "[data-muted]")).await;
        bob.looks_away().await;
        anna.says("are you there?").await;
        bob.hears("are you there?").await;
        bob.sees(&entry("python", HAS_NEWS)).await;
        bob.until(&format!("!{WAITING}")).await;
    })
    .await;
}

#[tokio::test]
async fn a_room_is_marked_unread_by_hand_and_all_are_marked_read_with_two_keys() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        anna.looks_here().await;
        bob.looks_here().await;
        for text in ["one", "two", "three"] {
            anna.says(text).await;
            bob.hears(text).await;
        }
        bob.run("document.querySelectorAll('.message .change')[1].click()")
            .await;
        bob.click("#message-form [data-action='Mark unread']").await;
        bob.until("document.querySelector('[data-new] > p')?.textContent === 'two'")
            .await;
        bob.sees(&entry("python", HAS_NEWS)).await;
        // It stays unread although I see its end, until I come back.
        anna.says("four").await;
        bob.hears("four").await;
        bob.enters("hi").await;
        bob.sees(&entry("python", HAS_NEWS)).await;
        bob.presses_with(Key::Shift, Key::Escape).await;
        bob.sees(&entry("python", NO_NEWS)).await;
        bob.enters("python").await;
        bob.hears("four").await;
        bob.sees_no("[data-new]").await;
    })
    .await;
}

#[tokio::test]
async fn a_group_has_a_topic_and_a_menu_to_leave_it() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/hi/")).await;
        anna.click("[popovertarget=add-group]").await;
        anna.types("apes").await;
        anna.presses(Key::Enter).await;
        anna.is_in("#apes", "/chat/apes/").await;
        anna.click("#room-menu > button").await;
        anna.click("#room-menu [name=topic]").await;
        anna.types("All about apes").await;
        anna.presses(Key::Enter).await;
        anna.until("document.querySelector('#room-topic').textContent === 'All about apes'")
            .await;
        assert!(!anna.shows("#room-menu [name=topic]").await);
        bob.goto(&server.url("/chat/")).await;
        bob.is_somebody().await;
        bob.sees(
            "#lobby-rooms [data-group]:not([data-joined]) [data-group-name=apes] .lobby__topic",
        )
        .await;
        bob.click("#lobby-rooms [data-group-name=apes]").await;
        bob.is_in("#apes", "/chat/apes/").await;
        bob.until("document.querySelector('#room-topic').textContent === 'All about apes'")
            .await;
        bob.click("#room-menu > button").await;
        bob.sees(".menu > .aside__words").await;
        let topic = bob.text(".menu > .aside__words").await;
        assert_eq!(topic, "All about apes");
        bob.click("#room-menu [data-action='Leave group']").await;
        bob.until("location.pathname === '/chat/' && document.title === 'All groups · Overwire'")
            .await;
        bob.sees_no("#groups-list [data-group-name=apes]").await;
        bob.sees("#lobby-rooms [data-group]:not([data-joined]) [data-group-name=apes]")
            .await;
        bob.sees("#lobby-rooms [data-group][data-joined] [data-group-name=hi]")
            .await;
    })
    .await;
}

#[tokio::test]
async fn three_hundred_unread_messages_are_read_from_the_first_on() {
    let server = Server::start(&["--unlimited"]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        anna.looks_here().await;
        bob.looks_here().await;
        // All of them fit into the window.
        bob.sized(1280, 4000).await;
        anna.says("seen").await;
        bob.hears("seen").await;
        bob.sees(&entry("python", NO_NEWS)).await;
        bob.enters("hi").await;
        anna.run(
            "const { send } = await import(document.querySelector('[href*=\"js/runtime\"]').href); \
             for (let n = 0; n < 300; n++) send('New message', { message: `line ${n}` })",
        )
        .await;
        anna.hears("line 299").await;
        bob.enters("python").await;
        bob.until("document.querySelector('[data-new] > p')?.textContent === 'line 0'")
            .await;
        bob.sees("#messages-newer").await;
        bob.sees(&entry("python", HAS_NEWS)).await;
        let shown = "document.querySelector('#new-messages').textContent";
        bob.until(&format!("{shown} === 'Newest messages ↓'")).await;
        // Reading on loads the rest, until its end is seen.
        bob.until(
            "document.querySelector('#scroller').scrollTop = 1e6, !document.querySelector('#messages-newer')",
        )
        .await;
        let texts = bob.texts().await;
        assert_eq!(texts.iter().filter(|text| text.starts_with("line ")).count(), 300);
        bob.run("document.querySelector('#scroller').scrollTop = 1e6")
            .await;
        bob.sees(&entry("python", NO_NEWS)).await;
    })
    .await;
}

#[tokio::test]
async fn the_time_of_a_message_is_its_address() {
    let server = Server::start(&["--unlimited"]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        for n in 0..70 {
            anna.says(&format!("line {n}")).await;
        }
        bob.hears("line 69").await;
        let link = "document.querySelectorAll('.message > b + a')[20]";
        let href: String = anna.get(&format!("{link}.href")).await;
        anna.run(&format!("{link}.click()")).await;
        anna.until("document.querySelector('.message[data-at] > p')?.textContent === 'line 20'")
            .await;
        assert_eq!(anna.get::<String>("location.href").await, href);
        // A change of the message does not take its mark away.
        anna.run("document.querySelector('.message[data-at] .change').click()")
            .await;
        anna.click("#message-form .chip").await;
        anna.sees(".message[data-at] .reactions").await;
        bob.goto(&href).await;
        bob.is_somebody().await;
        bob.until("document.querySelector('.message[data-at] > p')?.textContent === 'line 20'")
            .await;
        let place = "document.querySelector('.message[data-at]').getBoundingClientRect()";
        bob.until(&format!("{place}.top > 0 && {place}.bottom < innerHeight"))
            .await;
        anna.says("and more").await;
        bob.until("document.querySelector('#new-messages').textContent.includes('1 new message')")
            .await;
        bob.click("#new-messages").await;
        bob.hears("and more").await;
        bob.sees_no("#messages-newer").await;
        bob.until("document.querySelector('#new-messages').hidden")
            .await;
        anna.back().await;
        anna.hears("and more").await;
    })
    .await;
}
