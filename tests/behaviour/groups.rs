//! Groups that people make: made once, found by everybody, and never made by just opening an
//! address.

use serde_json::json;

use crate::support::{Server, Tab};

impl Tab {
    async fn makes_group(&mut self, name: &str) {
        self.sends("New group", json!({ "groupName": name }));
        let title = format!("#{}", name.trim());
        self.until(&format!("being in {title}"), |tab| {
            tab.title().to_lowercase() == title.to_lowercase()
        })
        .await;
        self.hears_all().await;
    }

    fn groups(&self) -> Vec<String> {
        self.groups_in("groups-list")
    }
}

const DEFAULT: [&str; 4] = ["hi", "python", "events", "off-topic"];

#[tokio::test]
async fn a_new_group_is_entered_by_its_creator_and_found_by_others() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.makes_group("Rust 1.0").await;
    assert_eq!(anna.texts(), [""; 0]);
    anna.says("first!").await;
    let mut carol = server.tab_at("/chat/rust%201.0/").await;
    carol.sees_exactly(&["first!"]).await;
    assert_eq!(carol.title(), "#Rust 1.0");
    bob.sends(
        "Change group",
        json!({ "groupName": "RUST 1.0", "isGroup": true }),
    );
    bob.sees_exactly(&["first!"]).await;
    bob.says("second").await;
    anna.sees("second").await;
    carol.sees("second").await;
}

#[tokio::test]
async fn a_group_is_created_once_however_often_and_however_it_is_spelled() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let names = ["größe", " Größe ", "GRÖSSE", "gro\u{308}ße"];
    for name in names {
        anna.sends("New group", json!({ "groupName": name }));
        bob.sends("New group", json!({ "groupName": name }));
    }
    for tab in [&mut anna, &mut bob] {
        tab.until("being in a group of one's own", |tab| {
            !DEFAULT.contains(&&tab.title()[1..])
        })
        .await;
        tab.hears_all().await;
    }
    assert_eq!(anna.room(), bob.room());
    assert_eq!(server.count("rooms where kind = 'group'"), 5);
}

#[tokio::test]
async fn all_forms_of_a_name_are_one_group_shown_as_first_typed() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.makes_group("ﬁne Straße").await;
    anna.says("here").await;
    for name in ["FINE STRASSE", "Ｆｉｎｅ straſſe"] {
        for action in ["Change group", "New group"] {
            bob.enters_group("hi").await;
            bob.sends(action, json!({ "groupName": name, "isGroup": true }));
            bob.sees_exactly(&["here"]).await;
            assert_eq!(bob.title(), "#ﬁne Straße");
        }
    }
    let mut lobby = server.tab_at("/chat/").await;
    for beginning in ["FI", "ｆｉｎｅ strassE", "ﬁne straß"] {
        lobby.sends("Find groups", json!({ "text": beginning }));
        lobby
            .until("the group", |tab| {
                tab.groups_in("lobby-found") == ["ﬁne Straße"]
            })
            .await;
        lobby.sends("Find groups", json!({ "text": "" }));
        lobby
            .until("nothing", |tab| tab.groups_in("lobby-found").is_empty())
            .await;
    }
    let carl = server.tab_at("/chat/fine%20STRASSE/").await;
    assert_eq!(carl.texts(), ["here"]);
    assert_eq!(server.get("/chat/FINE%20strasse/").await.status, 200);
    assert_eq!(server.count("rooms where kind = 'group'"), 5);
}

#[tokio::test]
async fn the_sidebar_lists_default_groups_own_groups_and_the_current_one() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    assert_eq!(anna.groups(), DEFAULT);
    anna.makes_group("zebras").await;
    anna.makes_group("apes").await;
    anna.enters_group("hi").await;
    anna.hears_all().await;
    assert_eq!(anna.groups(), [&DEFAULT[..], &["apes", "zebras"]].concat());
    anna.reconnects().await;
    anna.hears_all().await;
    assert_eq!(anna.groups(), [&DEFAULT[..], &["apes", "zebras"]].concat());

    bob.enters_group("apes").await;
    bob.hears_all().await;
    assert_eq!(bob.groups(), [&DEFAULT[..], &["apes"]].concat());
    bob.enters_group("hi").await;
    bob.hears_all().await;
    assert_eq!(bob.groups(), [&DEFAULT[..], &["apes"]].concat());
}

#[tokio::test]
async fn a_long_list_of_groups_is_bounded_and_includes_the_current_one() {
    let server = Server::with(|setup| setup.unlimited()).await;
    let mut anna = server.tab().await;
    for n in 0..60 {
        anna.sends("New group", json!({ "groupName": format!("group {n:02}") }));
    }
    anna.until("being in the last group", |tab| tab.title() == "#group 59")
        .await;
    anna.hears_all().await;
    let groups = anna.groups();
    assert_eq!(groups.len(), 50);
    assert_eq!(groups.last().map(String::as_str), Some("group 59"));
}

#[tokio::test]
async fn a_bad_group_name_is_refused_with_a_reason() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let long = "x".repeat(65);
    for (name, expected) in [
        ("", "must contain a letter or a digit"),
        (" .-_ ", "must contain a letter or a digit"),
        (long.as_str(), "at most 64 characters"),
        ("a/b", "but not “/”"),
        ("@brenda82", "but not “@”"),
        ("<script>", "but not “<”"),
        ("a\u{202e}b", "but not “U+202E”"),
    ] {
        let notice = anna
            .is_refused("New group", json!({ "groupName": name }))
            .await;
        assert!(notice.contains(expected), "{name:?}: {notice}");
    }
    for data in [json!({}), json!({ "groupName": 7 })] {
        let notice = anna.is_refused("New group", data).await;
        assert!(notice.contains("“groupName”"), "{notice}");
    }
    assert_eq!(anna.title(), "#hi");
    assert_eq!(server.count("rooms"), 4);
}

#[tokio::test]
async fn the_address_of_a_missing_group_offers_to_create_it() {
    let server = Server::start().await;
    let answer = server.get("/chat/caf%C3%A9/").await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("There is no group #café."));
    assert!(answer.body.contains("data-action=\"New group\""));
    let impossible = server.get("/chat/a%2fb/").await;
    assert!(!impossible.body.contains("Create #"));

    let mut anna = server.tab_at("/chat/caf%C3%A9/").await;
    anna.until("the offer", |tab| {
        tab.notice().contains("There is no group #café.")
    })
    .await;
    assert_eq!(anna.title(), "All groups");
    assert_eq!(server.count("rooms"), 4);
    let offer = anna.page.the("notice").with("data-payload").next().unwrap();
    assert_eq!(offer.attribute("data-action"), Some("New group"));
    let payload = offer.attribute("data-payload").unwrap().to_owned();
    anna.sends("New group", serde_json::from_str(&payload).unwrap());
    anna.until("being there", |tab| tab.title() == "#café")
        .await;
    assert_eq!(anna.notice(), "", "the offer has been taken");
    let heading = anna
        .page
        .the("group-name")
        .with("data-address")
        .next()
        .unwrap();
    assert_eq!(heading.attribute("data-address"), Some("/chat/caf%C3%A9/"));
}

#[tokio::test]
async fn no_group_name_collides_with_an_id_of_the_page() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    for name in ["name", "s-list", "list"] {
        anna.makes_group(name).await;
    }
    anna.enters_group("python").await;
    anna.hears_all().await;
    assert_eq!(anna.page.doubled_ids(), [""; 0]);
    assert_eq!(anna.title(), "#python");
    assert!(anna.groups().contains(&"name".to_owned()));
}

#[tokio::test]
async fn a_user_who_created_a_group_is_never_given_to_somebody_else() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.makes_group("mine").await;
    let name = anna.name();
    anna.closes().await;
    let kept = format!("users where name = '{name}' and not free and traced_at is not null");
    assert_eq!(server.count(&kept), 1);
}
