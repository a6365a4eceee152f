//! Without scripts: pages and forms alone, as a browser sends them that runs no script.

use std::time::Duration;

use serde_json::json;

use crate::moderation::moderator;
use crate::support::page::{Page, Shown};
use crate::support::{Answer, Device, Door, Server, Tab, until};

/// A browser that runs no script.
struct Browser {
    door: Door,
    cookie: Option<String>,
}

impl Browser {
    fn new(server: &Server) -> Self {
        Self {
            door: server.door,
            cookie: None,
        }
    }

    fn keep(&mut self, answer: Answer) -> Answer {
        let cookie = answer.cookie("overwire-browser").map(str::to_owned);
        self.cookie = cookie.or(self.cookie.take());
        answer
    }

    async fn reads(&mut self, path: &str) -> Answer {
        let cookie = self.cookie.clone().unwrap_or_default();
        let answer = self.door.get_with(path, &[("Cookie", &cookie)]).await;
        self.keep(answer)
    }

    async fn sends(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let origin = format!("http://{}", self.door.0);
        let cookie = self.cookie.clone().unwrap_or_default();
        let headers = [("Origin", &*origin), ("Cookie", &*cookie)];
        let answer = self.door.post(path, fields, &headers).await;
        self.keep(answer)
    }

    /// Sends a message and follows to the page that shows it. Returns its fragment in the address.
    async fn says(&mut self, path: &str, text: &str) -> String {
        let answer = self.sends(path, &[("message", text)]).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        let place = answer.header("Location").unwrap().to_owned();
        let (page, fragment) = place.split_once('#').unwrap();
        assert_eq!(page, path);
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        fragment.to_owned()
    }

    async fn texts(&mut self, path: &str) -> Vec<String> {
        let shown = messages(&self.reads(path).await);
        shown.into_iter().map(|message| message.text).collect()
    }
}

fn messages(answer: &Answer) -> Vec<Shown> {
    Page::parse(&answer.body).messages()
}

/// The value of an attribute in the text of a page, which may be within `noscript`.
fn value_after<'a>(answer: &'a Answer, mark: &str) -> Option<&'a str> {
    let (_, rest) = answer.body.split_once(mark)?;
    rest.split('"').next()
}

fn notice(answer: &Answer) -> String {
    Page::parse(&answer.body).the("notice").text()
}

#[tokio::test]
async fn a_guest_reads_posts_and_is_renamed_with_forms() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let mut anna = server.tab().await;
    anna.says("hello").await;
    let mut browser = Browser::new(&server);
    let page = browser.reads("/chat/hi/").await;
    assert_eq!(messages(&page)[0].text, "hello");
    assert_eq!(
        value_after(&page, "method=\"post\" action=\""),
        Some("&#x2f;chat&#x2f;hi&#x2f;")
    );
    assert_eq!(server.people_here().len(), 1, "a reader is nobody");

    let fragment = browser.says("/chat/hi/", "two\r\n*lines*").await;
    anna.sees("two\nlines").await;
    let told = anna.messages().pop().unwrap();
    assert_eq!(fragment, format!("message-{}", told.id));
    anna.until("a second person", |tab| {
        tab.page.the("room-count").text().trim() == "2"
    })
    .await;
    // The same guest, also from another page.
    browser.says("/chat/python/", "here").await;
    browser.says("/chat/hi/", "again").await;
    anna.sees("again").await;
    assert_eq!(anna.messages().pop().unwrap().author, told.author);
    let rename = [("action", "Change name"), ("name", "Bea Form")];
    let answer = browser.sends("/chat/hi/", &rename).await;
    assert_eq!(answer.header("Location"), Some("/chat/hi/"));
    browser.says("/chat/hi/", "renamed").await;
    anna.sees("renamed").await;
    assert_eq!(
        anna.messages().pop().unwrap().author.trim(),
        format!("Bea Form {}", told.author.trim())
    );

    // Back to the beginning, and forth again.
    for number in 0..60 {
        anna.says(&number.to_string()).await;
    }
    let page = browser.reads("/chat/hi/").await;
    assert_eq!(messages(&page).len(), 50);
    let older = format!(
        "/chat/hi/{}",
        value_after(&page, "class=\"older__more\" href=\"").unwrap()
    );
    let older = browser.reads(&older).await;
    let shown = messages(&older);
    assert_eq!(shown[0].text, "hello");
    assert_eq!(shown.len(), 14);
    let newer = format!(
        "/chat/hi/{}",
        value_after(&older, "class=\"older__more\" href=\"").unwrap()
    );
    let newer = browser.reads(&newer).await;
    assert_eq!(messages(&newer), messages(&page));
}

#[tokio::test]
async fn a_form_that_is_sent_twice_posts_once_and_no_text_is_lost() {
    let server = Server::start().await;
    let mut browser = Browser::new(&server);
    let page = browser.reads("/chat/hi/").await;
    let key = value_after(&page, "name=\"key\" value=\"")
        .unwrap()
        .to_owned();
    for text in ["once", "once", "another"] {
        let answer = browser
            .sends("/chat/hi/", &[("message", text), ("key", &key)])
            .await;
        assert_eq!(answer.status, 303);
    }
    assert_eq!(browser.texts("/chat/hi/").await, ["once", "another"]);
    // A command is stored as another text than the one that was typed.
    let bob = server.tab().await;
    let command = format!("/pm {} psst", bob.name());
    let page = browser.reads("/chat/hi/").await;
    let key = value_after(&page, "name=\"key\" value=\"").unwrap();
    for _ in 0..3 {
        let fields = [("message", &*command), ("key", key)];
        let answer = browser.sends("/chat/hi/", &fields).await;
        assert_ne!(answer.status, 422);
    }
    assert_eq!(server.count("messages where text = 'psst'"), 1);

    let long = "x".repeat(4001);
    let answer = browser.sends("/chat/hi/", &[("message", &long)]).await;
    assert_eq!(answer.status, 422);
    assert!(notice(&answer).contains("The limit is 4000"));
    assert!(
        Page::parse(&answer.body)
            .the("message-text")
            .text()
            .contains(&long)
    );
    for (path, field, status) in [
        ("/chat/hi/", ("message", " "), 422),
        ("/chat/hi/", ("message", "/help"), 200),
        ("/chat/hi/", ("message", "/nonsense"), 422),
        ("/chat/hi/", ("action", "Nonsense"), 422),
        ("/chat/hi/", ("key", "<script>"), 422),
        ("/chat/nowhere/", ("message", "a"), 404),
        ("/chat/hi/", ("payload", "[[["), 422),
    ] {
        let answer = browser.sends(path, &[field]).await;
        assert_eq!(answer.status, status, "{field:?}");
        assert_ne!(notice(&answer), "", "{field:?}");
        assert!(!answer.body.contains("<script>"));
    }
    let known = browser.texts("/chat/hi/").await;
    assert_eq!(known, ["once", "another"]);
    // Another site cannot send a form in somebody's name.
    let cookie = browser.cookie.clone().unwrap();
    for origin in ["http://evil.example", "null"] {
        let headers = [("Origin", origin), ("Cookie", &*cookie)];
        let answer = server
            .post("/chat/hi/", &[("message", "forged")], &headers)
            .await;
        assert_eq!(answer.status, 403);
    }
    assert_eq!(browser.texts("/chat/hi/").await, known);
}

#[tokio::test]
async fn a_private_room_is_read_only_by_its_two_people() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let mut browser = Browser::new(&server);
    let answer = browser
        .reads(&format!("/chat/?person={}", anna.name()))
        .await;
    let room = answer.header("Location").unwrap().to_owned();
    assert_eq!(room, format!("/chat/@{}/", anna.name()));
    // It says whom one writes to, before anything is there.
    let blank = browser.reads(&room).await.body;
    let name = format!("<noscript><bdi>{}</bdi></noscript>", anna.name());
    assert!(blank.contains(&name), "{blank}");
    browser.says(&room, "psst").await;
    anna.until("the message", |tab| tab.people("users-mine").len() == 1)
        .await;
    let name = anna.people("users-mine")[0].clone();
    assert_eq!(anna.unread_from(&name), 1);
    anna.opens_private(&name).await;
    anna.says("yes?").await;
    assert_eq!(browser.texts(&room).await, ["psst", "yes?"]);
    let mut other = Browser::new(&server);
    other.says("/chat/hi/", "somebody else").await;
    assert_eq!(other.texts(&room).await, [""; 0]);
    assert_eq!(Browser::new(&server).texts(&room).await, [""; 0]);
}

#[tokio::test]
async fn groups_are_created_and_left_with_forms_and_moderators_are_obeyed() {
    let server = Server::start().await;
    let mut browser = Browser::new(&server);
    let new = [("action", "New group"), ("groupName", "Books")];
    let answer = browser.sends("/chat/", &new).await;
    assert_eq!(answer.header("Location"), Some("/chat/Books/"));
    browser.says("/chat/Books/", "first").await;
    let leave = [("action", "Leave group")];
    let page = browser.reads("/chat/Books/").await;
    assert!(page.body.contains("Leave #Books"));
    let answer = browser.sends("/chat/Books/", &leave).await;
    assert_eq!(answer.header("Location"), Some("/chat/"));
    let page = browser.reads("/chat/Books/").await;
    assert!(page.body.contains("Join #Books"));

    let (_, mut anna, desk) = moderator(&server).await;
    let name = messages(&page)[0].author.trim().to_owned();
    desk.sends("Mute", json!({ "userName": name, "on": true }));
    until("the person to be muted", async || {
        server.count("users where muted_at is not null") == 1
    })
    .await;
    let answer = browser.sends("/chat/hi/", &[("message", "muted")]).await;
    assert_eq!(answer.status, 422);
    assert!(notice(&answer).contains("muted you"));
    desk.sends("Ban", json!({ "userName": name, "on": true }));
    until("the person to be banned", async || {
        server.count("users where banned_at is not null") == 1
    })
    .await;
    for _ in 0..2 {
        let answer = browser.sends("/chat/hi/", &[("message", "banned")]).await;
        assert_eq!(answer.status, 403);
    }
    anna.says("calm").await;
    assert_eq!(anna.texts(), ["calm"]);
}

#[tokio::test]
async fn a_form_sent_before_the_script_has_loaded_is_the_tabs_own() {
    let server = Server::start().await;
    let mut bob = server.tab().await;
    let mut browser = Browser::new(&server);
    browser.says("/chat/hi/", "too early").await;
    bob.sees("too early").await;
    let author = bob.messages()[0].author.clone();
    let mut tab = Tab::load(server.door, "/chat/hi/").await;
    tab.browser.clone_from(&browser.cookie);
    tab.connects().await;
    tab.says("in time").await;
    bob.sees("in time").await;
    assert_eq!(bob.messages()[1].author, author);
    // A second tab is a second person, and so is the next form.
    let mut other = Tab::load(server.door, "/chat/hi/").await;
    other.browser.clone_from(&browser.cookie);
    other.connects().await;
    assert_ne!(other.name(), tab.name());
    browser.says("/chat/hi/", "without a script").await;
    bob.sees("without a script").await;
    assert_ne!(bob.messages()[2].author, author);
    let name = tab.name();
    tab.reloads().await;
    assert_eq!(tab.name(), name);
}

#[tokio::test]
async fn somebody_who_has_signed_in_posts_with_a_form_as_themselves() {
    let server = Server::start().await;
    let mut bob = server.tab().await;
    let (mut device, anna) = Device::of_somebody(&server).await;
    let mut browser = Browser::new(&server);
    let session = device.cookie.clone().unwrap();
    let known = anna.browser.clone().unwrap();
    browser.cookie = Some(format!("{session}; {known}"));
    browser.says("/chat/hi/", "with a form").await;
    bob.sees("with a form").await;
    assert_eq!(bob.messages()[0].author.trim(), anna.name());
    // The tab and the forms are one person.
    bob.until("two people", |tab| {
        tab.page.the("room-count").text().trim() == "2"
    })
    .await;
    device.sends("/sign-out/", &[]).await;
    browser.says("/chat/hi/", "signed out").await;
    bob.sees("signed out").await;
    assert_ne!(bob.messages()[1].author.trim(), anna.name());
}

#[tokio::test]
async fn who_sends_forms_is_online_for_a_while_after_their_last_request() {
    let server = Server::with(|setup| setup.access.forms_stay = Duration::from_millis(300)).await;
    let mut bob = server.tab().await;
    let mut browser = Browser::new(&server);
    browser.says("/chat/hi/", "here").await;
    bob.sees("here").await;
    server
        .has_noticed_leaving(&[bob.messages()[0].author.trim()])
        .await;
    assert_eq!(server.people_here(), [bob.name()]);
    bob.until("to be alone", |tab| {
        tab.page.the("room-count").text().trim() == "1"
    })
    .await;
    // Their next form is from the same person.
    browser.says("/chat/hi/", "again").await;
    bob.sees("again").await;
    let authors = bob.messages().into_iter().map(|message| message.author);
    assert_eq!(authors.collect::<std::collections::HashSet<_>>().len(), 1);
}
