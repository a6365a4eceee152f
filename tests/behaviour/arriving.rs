//! Who somebody is: a new person per tab, the same person after a reload, no user for two people,
//! and none that has left a trace.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use overwire::fake::FakeUsers;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::support::tab::all;
use crate::support::wire::Handshake;
use crate::support::{Server, Tab};

const ELEVEN_MINUTES: Duration = Duration::from_secs(11 * 60);

#[tokio::test]
async fn two_tabs_are_two_people_in_the_first_group() {
    let server = Server::start().await;
    let [anna, bob] = server.tabs().await;
    assert_ne!(anna.name(), bob.name());
    for tab in [&anna, &bob] {
        assert_eq!(tab.title(), "#hi");
        assert_eq!(tab.location, "/chat/hi/");
        let me = tab.page.the("logged-user").text();
        assert!(me.ends_with(&tab.name()), "{me}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_who_arrive_at_once_are_two_hundred_people() {
    let server = Server::start().await;
    let door = server.door;
    let tabs = all((0..200).map(|_| door.tab())).await;
    let names: HashSet<_> = tabs.iter().map(Tab::name).collect();
    assert_eq!(names.len(), 200);
    let tokens: HashSet<_> = tabs.iter().map(|tab| tab.resume.clone()).collect();
    assert_eq!(tokens.len(), 200);
    assert_eq!(server.count("clients where left_at is null"), 200);
    assert_eq!(server.count("users"), 200, "170 were made");
}

#[tokio::test]
async fn everybody_gets_in_even_without_fake_users() {
    let server = Server::with(|setup| setup.users = 0).await;
    let [anna, bob] = server.tabs().await;
    assert_ne!(anna.name(), "nobody");
    assert_ne!(anna.name(), bob.name());
}

#[tokio::test]
async fn a_reload_is_the_same_person_in_the_same_room() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let (name, token) = (anna.name(), anna.resume.clone());
    anna.enters_group("python").await;
    anna.reloads().await;
    assert_eq!(anna.name(), name);
    assert_eq!(anna.resume, token, "it does not rotate");
    assert_eq!(anna.title(), "#python");
    assert_eq!(server.count("clients"), 1);
}

#[tokio::test]
async fn loading_pages_claims_nobody_and_writes_nothing() {
    let server = Server::start().await;
    let written = || {
        let rows = |query: &str| server.look(&format!("{query} order by 1"));
        [
            rows("select concat_ws(',', id, free, arrived_at, gone_at, traced_at) from users"),
            rows("select concat_ws(',', id, user_id, visit, left_at) from clients"),
            rows("select concat_ws(',', id, name, version) from rooms"),
            rows("select concat_ws(',', client_id, room_id) from clients_active"),
        ]
    };
    let before = written();
    let somebody = FakeUsers::from_seed(7).next().unwrap().name;
    for path in [
        "/chat/hi/",
        "/chat/python/",
        "/chat/nowhere/",
        &format!("/chat/@{somebody}/"),
    ] {
        server.get(path).await;
    }
    assert_eq!(written(), before);
    server.tab().await;
    assert_ne!(written(), before, "arriving is what writes");
}

#[tokio::test]
async fn an_untouched_user_is_free_again_after_ten_minutes() {
    let server = Server::with(|setup| setup.users = 1).await;
    let mut anna = server.tab().await;
    let name = anna.name();
    anna.loses_the_network();
    server.has_noticed_leaving(&[&name]).await;

    server.later(Duration::from_secs(9 * 60)).await;
    let bob = server.tab().await;
    assert_ne!(bob.name(), name, "anna may still come back");

    server.later(ELEVEN_MINUTES).await;
    let carol = server.tab().await;
    assert_eq!(carol.name(), name);

    anna.reloads().await;
    assert_ne!(anna.name(), name, "that is carol now");
    assert_ne!(anna.resume, carol.resume);
}

#[tokio::test]
async fn whoever_returns_after_ten_minutes_keeps_their_user_if_nobody_has_it() {
    let server = Server::with(|setup| setup.users = 1).await;
    let mut anna = server.tab().await;
    let name = anna.name();
    anna.loses_the_network();
    server.has_noticed_leaving(&[&name]).await;
    server.later(ELEVEN_MINUTES).await;
    anna.connects().await;
    assert_eq!(anna.name(), name);
    let bob = server.tab().await;
    assert_ne!(bob.name(), name);
}

#[tokio::test]
async fn a_user_who_has_written_is_never_given_to_somebody_else() {
    let server = Server::with(|setup| setup.users = 1).await;
    let mut anna = server.tab().await;
    let name = anna.name();
    anna.says("I was here").await;
    anna.closes().await;
    server.has_noticed_leaving(&[&name]).await;
    server.later(ELEVEN_MINUTES).await;
    server.later(Duration::from_secs(48 * 60 * 60)).await;
    let bob = server.tab().await;
    assert_ne!(bob.name(), name);
}

#[tokio::test]
async fn a_user_who_was_written_to_is_never_given_to_somebody_else() {
    let server = Server::with(|setup| setup.users = 1).await;
    let [anna, mut bob] = server.tabs().await;
    let name = anna.name();
    bob.opens_private(&name).await;
    bob.says("for your eyes only").await;
    bob.enters_group("hi").await;
    anna.closes().await;
    server.has_noticed_leaving(&[&name]).await;
    server.later(ELEVEN_MINUTES).await;
    let carol = server.tab().await;
    assert_ne!(carol.name(), name);
}

#[tokio::test]
async fn a_user_is_not_given_away_while_somebody_has_a_private_room_with_them_open() {
    let server = Server::with(|setup| setup.users = 1).await;
    let [anna, mut bob] = server.tabs().await;
    let name = anna.name();
    bob.opens_private(&name).await;
    anna.closes().await;
    server.has_noticed_leaving(&[&name]).await;
    server.later(ELEVEN_MINUTES).await;
    let carol = server.tab().await;
    assert_ne!(carol.name(), name);

    bob.enters_group("hi").await;
    server.later(2 * ELEVEN_MINUTES).await;
    let mut dora = server.tab().await;
    assert_eq!(dora.name(), name);
    // A private room without messages leaves nothing behind.
    dora.opens_private(&bob.name()).await;
    assert_eq!(server.count("rooms where kind = 'private'"), 1);
}

#[tokio::test]
async fn a_copied_tab_is_a_new_person_and_does_not_disturb_the_first() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let mut copy = Tab::load(server.door, "/chat/hi/").await;
    copy.resume.clone_from(&anna.resume);
    copy.connects().await;
    assert_ne!(copy.name(), anna.name());
    assert_ne!(copy.resume, anna.resume, "a token of its own");

    anna.says("still me").await;
    copy.sees("still me").await;
    let name = copy.name();
    copy.reloads().await;
    assert_eq!(copy.name(), name);
}

#[tokio::test]
async fn a_socket_that_does_not_answer_is_taken_over_and_closed() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.goes_deaf(true);
    let mut again = Tab::load(server.door, "/chat/hi/").await;
    again.resume.clone_from(&anna.resume);
    again.connects().await;
    assert_eq!(again.name(), anna.name());

    anna.goes_deaf(false);
    anna.is_closed().await;
    again.says("it is me").await;
    assert_eq!(server.people_here(), [again.name()]);
}

#[tokio::test]
async fn a_socket_that_closes_while_it_is_probed_is_taken_over_at_once() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let name = anna.name();
    anna.goes_deaf(true);
    let mut again = Tab::load(server.door, "/chat/hi/").await;
    again.resume.clone_from(&anna.resume);
    again.opens_socket().await;
    anna.loses_the_network();
    again.until("a name", |tab| tab.name() == name).await;
}

#[tokio::test]
async fn an_unknown_token_makes_a_new_person() {
    let server = Server::start().await;
    let known = server.tab().await.resume.unwrap();
    for token in ["A".repeat(43), known.to_lowercase(), "%%%".to_owned()] {
        let mut tab = Tab::load(server.door, "/chat/python/").await;
        tab.resume = Some(token.clone());
        tab.connects().await;
        assert_eq!(tab.title(), "#python", "{token}");
        assert_ne!(tab.resume, Some(token));
    }
}

#[tokio::test]
async fn a_malformed_query_does_not_fail_the_upgrade() {
    let server = Server::start().await;
    for query in [
        "?room=nowhere&after=never",
        "?room=%ff&after=%ff&at=%ff",
        "?room=&after=&at=",
        "?at=/elsewhere/",
        "?&&=&room",
        "?after=6a1f93c8.1",
        "?room=AAAAAAAAAAE&after=6a1f93c8.99999999999999999999",
        "?room=AAAAAAAAAAE&after=6a1f93c8.-1",
    ] {
        let _: Uri = format!("http://a/{query}")
            .parse()
            .expect("a possible query");
        let mut tab = Tab::load(server.door, "/chat/hi/").await;
        let mut handshake = tab.handshake();
        handshake.query = query.to_owned();
        tab.opens_socket_with(&handshake).await;
        tab.until("a room", |tab| !tab.pushes_to("group-name", 0).is_empty())
            .await;
        assert_eq!(tab.title(), "#hi", "{query}");
        assert_eq!(tab.notice(), "", "{query}");
    }
}

#[tokio::test]
async fn an_unknown_group_in_the_address_leads_to_the_directory_with_a_notice() {
    let server = Server::start().await;
    let answer = server.get("/chat/nowhere/").await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("All groups · Overwire"));
    let mut anna = server.tab_at("/chat/nowhere/").await;
    anna.hears_all().await;
    assert_eq!(anna.title(), "All groups");
    assert_eq!(anna.location, "/chat/");
    assert_eq!(anna.notice(), "There is no group #nowhere.");
    anna.enters_group("hi").await;
    anna.says("here then").await;
}

#[tokio::test]
async fn a_private_link_in_a_new_tab_opens_the_new_persons_own_room() {
    let server = Server::start().await;
    let [anna, mut bob] = server.tabs().await;
    bob.opens_private(&anna.name()).await;
    bob.says("only for anna").await;
    let mut carol = server.tab_at(&bob.location).await;
    carol.hears_all().await;
    assert_eq!(carol.title(), anna.name());
    assert_eq!(carol.texts(), [""; 0]);
    assert_ne!(carol.room(), bob.room());
}

#[tokio::test]
async fn a_token_is_good_for_a_day_and_only_its_hash_is_kept() {
    let server = Server::on_a_file().await;
    let mut anna = server.tab().await;
    anna.says("I have left a trace").await;
    let name = anna.name();
    let token = anna.resume.clone().unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(&token)
        .unwrap();
    assert_eq!(bytes.len(), 32);
    for ending in ["", "-wal"] {
        let file = server.file().with_file_name(format!("overwire.db{ending}"));
        let file = std::fs::read(file).unwrap();
        for secret in [token.as_bytes(), &bytes] {
            let kept = file.windows(secret.len()).any(|window| window == secret);
            assert!(!kept, "overwire.db{ending} keeps the token");
        }
    }

    anna.loses_the_network();
    server.has_noticed_leaving(&[&name]).await;
    server.later(Duration::from_secs(23 * 60 * 60)).await;
    anna.connects().await;
    assert_eq!(anna.name(), name);
    anna.loses_the_network();
    server.has_noticed_leaving(&[&name]).await;
    server.later(Duration::from_secs(25 * 60 * 60)).await;
    anna.connects().await;
    assert_ne!(anna.name(), name);
}

#[tokio::test]
async fn a_program_without_a_page_may_arrive_too() {
    let server = Server::start().await;
    let mut wire = server.socket(&Handshake::default()).await.unwrap();
    assert_eq!(wire.protocol, None);
    wire.next().await;
    assert_eq!(server.people_here().len(), 1);
}
