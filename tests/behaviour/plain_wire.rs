//! The wire of the original design: a client of twenty lines that knows only `innerHTML` works.
//!
//! A plain tab checks that it gets nothing but `selector` and `html`, for its four places.

use serde_json::json;

use super::private_rooms::two_people_talk_in_private;
use super::talking::two_people_talk;
use crate::support::Server;

#[tokio::test]
async fn plain_tabs_talk_in_groups() {
    let server = Server::start().await;
    let tab = async || server.plain_tab().await;
    two_people_talk(tab().await, tab().await, tab().await).await;
}

#[tokio::test]
async fn plain_tabs_and_others_talk_with_each_other() {
    let server = Server::start().await;
    let (anna, bob) = (server.plain_tab().await, server.tab().await);
    two_people_talk(anna, bob, server.plain_tab().await).await;
}

#[tokio::test]
async fn plain_tabs_talk_in_private() {
    let server = Server::start().await;
    let tab = async || server.plain_tab().await;
    two_people_talk_in_private(tab().await, tab().await, tab().await).await;
}

#[tokio::test]
async fn plain_tabs_and_others_talk_in_private() {
    let server = Server::start().await;
    let (anna, bob) = (server.tab().await, server.plain_tab().await);
    two_people_talk_in_private(anna, bob, server.tab().await).await;
}

#[tokio::test]
async fn a_plain_tab_gets_the_whole_newest_page() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let (mut anna, mut bob) = (server.tab().await, server.plain_tab().await);
    for number in 0..60 {
        anna.says(&number.to_string()).await;
    }
    bob.sees("59").await;
    assert_eq!(bob.messages(), anna.messages()[10..]);
    assert!(bob.page.get("messages-older").is_none(), "it could not ask");
    let carol = server.plain_tab().await;
    assert_eq!(carol.texts(), bob.texts());
}

#[tokio::test]
async fn a_plain_tab_gets_no_token_and_readable_refusals() {
    let server = Server::start().await;
    let mut anna = server.plain_tab().await;
    assert!(anna.pushes.iter().all(|push| !push.html.contains("resume")));
    let data = json!({ "groupName": "nowhere", "isGroup": true });
    let words = anna.is_refused("Change group", data).await;
    assert_eq!(words, "There is no group #nowhere.");
    let words = anna
        .is_refused("New message", json!({ "message": " " }))
        .await;
    assert_eq!(words, "The message is empty.");
    anna.says("still here").await;
}

#[tokio::test]
async fn a_plain_tab_is_not_sent_what_it_cannot_show() {
    let server = Server::start().await;
    let mut anna = server.plain_tab().await;
    anna.says("hello").await;
    let before = anna.messages()[0].id;
    let mark = anna.pushes.len();
    anna.sends("Ping", json!({}));
    anna.sends("Find people", json!({ "text": "a" }));
    anna.sends("Older messages", json!({ "before": before }));
    let mut bob = server.tab().await;
    bob.opens_private(&anna.name()).await;
    bob.says("a mark it has no place for").await;
    anna.hears_all().await;
    let places: Vec<_> = anna.pushes[mark..]
        .iter()
        .map(|push| push.place.clone())
        .collect();
    assert_eq!(places, ["notice"], "its own question only");
}
