//! Searching messages: what is found, how it is shown, and the page with the results.

use serde_json::json;

use crate::support::{Server, Tab};

/// The results on the page: room, author and text, newest first.
fn results(tab: &Tab) -> Vec<[String; 3]> {
    let results = tab.page.get("search-results").into_iter();
    let results = results.flat_map(|list| {
        list.all()
            .filter(|one| one.has_class("found"))
            .collect::<Vec<_>>()
    });
    results
        .map(|one| {
            ["found__room", "found__name", "found__text"].map(|part| {
                let part = one.all().find(|found| found.has_class(part));
                part.map_or(String::new(), |part| part.text().trim().to_owned())
            })
        })
        .collect()
}

fn texts(tab: &Tab) -> Vec<String> {
    results(tab).into_iter().map(|[_, _, text]| text).collect()
}

async fn searches(tab: &mut Tab, typed: &str) {
    tab.sends("Search", json!({ "text": typed }));
    tab.hears_all().await;
}

#[tokio::test]
async fn a_message_is_found_from_the_moment_it_is_sent() {
    let server = Server::start().await;
    let (mut anna, mut bob) = (server.tab().await, server.tab().await);
    let (a, b) = (anna.name(), bob.name());
    anna.says("The <b>café</b> opens at eight").await;
    bob.opens_private(&a).await;
    bob.says("meet me at the cafe").await;
    searches(&mut anna, "CAFE").await;
    assert_eq!(
        results(&anna),
        [
            [b.clone(), b.clone(), "meet me at the cafe".to_owned()],
            [
                "#hi".to_owned(),
                a.clone(),
                "The <b>café</b> opens at eight".to_owned()
            ],
        ]
    );
    let html = anna
        .pushes_to("search-page", 0)
        .last()
        .unwrap()
        .html
        .clone();
    assert!(
        html.contains("The &lt;b&gt;<mark>café</mark>&lt;&#x2f;b&gt;"),
        "{html}"
    );
    assert_eq!(anna.title(), "Search");
    // She is in no room meanwhile, and returns to one.
    assert!(anna.room().is_none_or(|room| room.is_empty()));
    anna.enters_group("hi").await;
    assert!(results(&anna).is_empty());
    let id = anna.messages()[0].id;
    anna.sends(
        "Edit message",
        json!({ "message": id, "text": "The bar opens at nine" }),
    );
    anna.sees("The bar opens at nine").await;
    searches(&mut anna, "cafe").await;
    assert_eq!(texts(&anna), ["meet me at the cafe"]);
    searches(&mut anna, "bar").await;
    assert_eq!(texts(&anna), ["The bar opens at nine"]);
    let room = bob.room();
    anna.enters_group("hi").await;
    anna.sends("Delete message", json!({ "message": id }));
    anna.until("it is deleted", |tab| {
        tab.texts().iter().all(|text| !text.contains("nine"))
    })
    .await;
    searches(&mut anna, "bar").await;
    assert!(texts(&anna).is_empty());
    assert_eq!(bob.room(), room);
}

#[tokio::test]
async fn results_have_an_address_and_older_ones_follow() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    for n in 0..53 {
        anna.says(&format!("word {n}")).await;
    }
    let page = server.get("/search/?q=word").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("Search · Overwire") && page.body.contains("Searching…"));
    assert!(page.body.contains("Searching needs JavaScript."));
    let mut bob = server.tab_at("/search/?q=word").await;
    assert_eq!((bob.title(), texts(&bob).len()), ("Search".to_owned(), 50));
    bob.loses_the_network();
    bob.reconnects().await;
    assert_eq!((bob.title(), texts(&bob).len()), ("Search".to_owned(), 50));
    let older = bob.page.get("search-older").unwrap();
    let data = serde_json::from_str(older.attribute("data-payload").unwrap()).unwrap();
    bob.sends("Search", data);
    bob.hears_all().await;
    let expected: Vec<_> = (0..53).rev().map(|n| format!("word {n}")).collect();
    assert_eq!(texts(&bob), expected);
    assert!(bob.page.get("search-older").is_none());
}

#[tokio::test]
async fn what_is_not_found_says_what_to_do() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.says("a word").await;
    for (typed, words) in [
        ("", "Type words to find messages"),
        ("\"", "Nothing found."),
        ("🎉", "Nothing found."),
        ("from:nobody-here word", "Nobody is called nobody-here."),
        ("x*", "A star needs at least two letters"),
        ("on:1990-01-01", "such as deploy*"),
        ("<i>", "No message matches “<i>”"),
        (
            "word in:#nowhere",
            "You have no group or conversation #nowhere.",
        ),
        ("OR", "No message matches"),
    ] {
        searches(&mut anna, typed).await;
        let page = anna.page.get("search-page").unwrap().text();
        assert!(page.contains(words), "{typed}: {page}");
        assert!(anna.notice().is_empty());
    }
}

#[tokio::test]
async fn results_show_what_is_read_and_not_the_marks_of_it() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.says("> a **bold** word\n\n- and [more](https://a.example) ~~not~~ `x`")
        .await;
    searches(&mut anna, "word").await;
    let shown: Vec<_> = texts(&anna)[0]
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(shown.join(" "), "a bold word and more not x");
}

#[tokio::test]
async fn nobody_finds_what_they_may_not_read() {
    let server = Server::start().await;
    let (mut anna, mut bob) = (server.tab().await, server.tab().await);
    let (mut carl, b) = (server.tab().await, bob.name());
    anna.opens_private(&b).await;
    anna.says("a secret word").await;
    bob.sends("New group", json!({ "groupName": "books" }));
    bob.enters_group("books").await;
    bob.says("another word").await;
    searches(&mut carl, "word").await;
    assert!(texts(&carl).is_empty());
    searches(&mut bob, "word").await;
    assert_eq!(texts(&bob), ["another word", "a secret word"]);
    carl.enters_group("books").await;
    searches(&mut carl, "word").await;
    assert_eq!(texts(&carl), ["another word"]);
}
