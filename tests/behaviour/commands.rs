//! Messages that begin with a slash: private messages from any room, and help.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Server, Tab};

async fn reply_to(tab: &mut Tab, text: &str) -> String {
    let mark = tab.pushes.len();
    tab.writes(text);
    tab.gets_notice_since(mark).await
}

#[tokio::test]
async fn a_private_message_by_command_reaches_only_that_person_from_any_room() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    let key = anna.writes(&format!("/pm {b} for you\nalone"));
    anna.is_settled(&key).await;
    let words = format!("Sent privately to {b}.");
    anna.until("the notice", |tab| tab.notice() == words).await;
    bob.until("to have something unread", |tab| tab.unread_from(&a) == 1)
        .await;
    for tab in [&mut anna, &mut bob, &mut carl] {
        tab.says("to all").await;
    }
    carl.sees_exactly(&["to all", "to all", "to all"]).await;
    assert!(
        carl.pushes
            .iter()
            .all(|push| !push.html.contains("for you"))
    );
    bob.opens_private(&a).await;
    bob.sees_exactly(&["for you\nalone"]).await;
    // A click leads to the same room, and the command works there too.
    anna.opens_private(&b).await;
    anna.sees_exactly(&["for you\nalone"]).await;
    let key = anna.writes(&format!("/pm @{}: more", b.to_uppercase()));
    anna.is_settled(&key).await;
    for tab in [&mut anna, &mut bob] {
        tab.sees_exactly(&["for you\nalone", "more"]).await;
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_done_says_why_and_stores_nothing() {
    let server = Server::start().await;
    let [mut anna, bob] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    let usage = "Nothing was sent. Use: /pm name message, for example /pm brenda82 hello";
    let long = format!("/pm {b} {}", "x".repeat(4001));
    for (text, expected) in [
        ("/pm", usage),
        ("/pm ", usage),
        (&format!("/pm {b}"), usage),
        (&format!("/pm \"{b}\"  "), usage),
        ("/pm nobody0 hello", "There is nobody named “nobody0”."),
        (
            &format!("/pm {a} hello"),
            "That is you. Open a second tab to try a conversation.",
        ),
        (&long, "The message has 4001 characters. The limit is 4000."),
        (
            "/pn bob secret",
            "Unknown command /pn. Nothing was sent. Type /help for a list of commands.",
        ),
    ] {
        let words = reply_to(&mut anna, text).await;
        assert_eq!(words, expected, "{text}");
        assert!(!words.contains("delivered"));
        let notice = anna.pushes_to("notice", 0);
        assert!(notice.last().unwrap().html.contains("data-key"), "{text}");
    }
    assert_eq!(server.count("messages"), 0);
    anna.says(" /pm is a command").await;
    anna.says("/etc/hosts").await;
}

#[tokio::test]
async fn a_private_message_sent_again_is_stored_once() {
    let server = Server::start().await;
    let [mut anna, bob] = server.tabs().await;
    let message = format!("/pm {} hello", bob.name());
    let key = Uuid::new_v4().to_string();
    for _ in 0..3 {
        let mark = anna.pushes.len();
        let data = json!({ "message": message, "key": key, "room": anna.room() });
        anna.sends("New message", data);
        anna.gets_notice_since(mark).await;
    }
    assert_eq!(server.count("messages"), 1);
}

#[tokio::test]
async fn help_lists_the_commands_and_settles_its_own_message() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let key = anna.writes("/help");
    anna.is_settled(&key).await;
    anna.until("help", |tab| {
        ["/pm", "/help"]
            .iter()
            .all(|command| tab.notice().contains(command))
    })
    .await;
    bob.says("hello").await;
    bob.sees_exactly(&["hello"]).await;
    // A client of the original design gets it too.
    let mut plain = server.plain_tab().await;
    let words = reply_to(&mut plain, "/help").await;
    assert!(words.contains("/pm"), "{words}");
}

#[tokio::test]
async fn a_private_message_sent_again_stays_with_its_first_recipient() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    let called = async |tab: &mut Tab, name: &str| {
        tab.sends("Change name", json!({ "name": name }));
        tab.until(name, |tab| tab.page.the("name-form").text().contains(name))
            .await;
    };
    called(&mut bob, "Bob Kay").await;
    let key = anna.writes("/pm \"Bob Kay\" secret");
    anna.until("the receipt", |tab| tab.notice().contains("Bob Kay"))
        .await;
    called(&mut bob, "Robert").await;
    for name in ["", "Bob Kay"] {
        if !name.is_empty() {
            called(&mut carl, name).await;
        }
        let mark = anna.pushes.len();
        let again = json!({ "message": "/pm \"Bob Kay\" secret", "key": key });
        anna.sends("New message", again);
        let words = anna.gets_notice_since(mark).await;
        assert_eq!(words, format!("Sent privately to Robert ({b})."));
    }
    bob.opens_private(&a).await;
    bob.sees_exactly(&["secret"]).await;
    assert_eq!(server.count("messages"), 1);
}

#[tokio::test]
async fn a_private_message_by_command_leaves_other_unread_marks_alone() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    bob.opens_private(&a).await;
    bob.says("look at this").await;
    anna.until("the mark", |tab| tab.unread_from(&b) == 1).await;
    let key = anna.writes(&format!("/pm {b} by the way"));
    anna.is_settled(&key).await;
    bob.sees("by the way").await;
    bob.says("and this").await;
    anna.until("both of them marked", |tab| tab.unread_from(&b) == 2)
        .await;
}

/// What is proposed to complete a word.
fn proposed(tab: &Tab) -> Vec<String> {
    let place = tab.page.the("completions");
    let options = place.with("data-insert");
    let inserted = options.filter_map(|it| it.attribute("data-insert"));
    inserted.map(str::to_owned).collect()
}

/// Asks for completions. The answer names the text.
async fn completes(tab: &mut Tab, text: &str) -> Vec<String> {
    tab.sends("Complete", json!({ "text": text }));
    tab.hears_all().await;
    let text = text.trim();
    let place = tab.page.the("completions");
    let answered = place.with("data-text").next();
    let answered = answered.and_then(|it| it.attribute("data-text"));
    assert_eq!(answered.unwrap_or_default(), text);
    proposed(tab)
}

#[tokio::test]
async fn names_of_people_are_completed_from_their_first_letters() {
    let server = Server::start().await;
    let [mut anna, bob] = server.tabs().await;
    let (a, b) = (anna.name(), format!("@{}", bob.name()));
    let begins = b[..2].to_uppercase();
    assert!(completes(&mut anna, &begins).await.contains(&b));
    // After “/pm ” there is no sign.
    assert_eq!(completes(&mut anna, &b[1..]).await, [&*b]);
    assert_eq!(completes(&mut anna, &b).await, [&*b]);
    // The sign alone proposes whoever is in the room. Neither oneself nor unused fake users.
    assert_eq!(completes(&mut anna, "@").await, [&*b, "@here"]);
    assert_eq!(completes(&mut anna, "@her").await.last().unwrap(), "@here");
    assert_eq!(completes(&mut anna, &format!("@{a}")).await, [""; 0]);
    for nothing in ["", " ", "@%", "_", "@@", "her%"] {
        assert_eq!(completes(&mut anna, nothing).await, [""; 0], "{nothing}");
    }
    // A private room has no “@here”.
    anna.opens_private(&bob.name()).await;
    assert_eq!(completes(&mut anna, "@").await, [&*b]);
    assert_eq!(
        anna.is_refused("Complete", json!({})).await,
        "“text” is missing."
    );
    let mut plain = server.plain_tab().await;
    plain.sends("Complete", json!({ "text": a }));
    plain.hears_all().await;
}

#[tokio::test]
async fn names_of_groups_are_completed_my_own_first() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    for name in ["pyramids", "pyjamas"] {
        bob.sends("New group", json!({ "groupName": name }));
        bob.until("the group", |tab| tab.title() == format!("#{name}"))
            .await;
    }
    let others = ["#python", "#pyjamas", "#pyramids"];
    assert_eq!(completes(&mut anna, "#PY").await, others);
    assert_eq!(
        completes(&mut bob, "#py").await,
        ["#python", "#pyjamas", "#pyramids"]
    );
    anna.enters_group("pyramids").await;
    let mine = ["#python", "#pyramids", "#pyjamas"];
    assert_eq!(completes(&mut anna, "#py").await, mine);
    assert!(completes(&mut anna, "#").await.contains(&"#hi".to_owned()));
    for nothing in ["#x", "#%", "#!", "##"] {
        assert_eq!(completes(&mut anna, nothing).await, [""; 0], "{nothing}");
    }
}

#[tokio::test]
async fn emojis_are_completed_by_their_short_codes_best_match_first() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    assert_eq!(completes(&mut anna, ":tada").await, ["🎉"]);
    let smiles = completes(&mut anna, ":SMI").await;
    assert_eq!(smiles[0], "😄");
    assert_eq!(smiles.len(), 10);
    // A later word of the code counts too.
    assert!(
        completes(&mut anna, ":eyes")
            .await
            .starts_with(&["👀".to_owned()])
    );
    for nothing in [":", ":no such emoji", ":%"] {
        assert_eq!(completes(&mut anna, nothing).await, [""; 0], "{nothing}");
    }
}
