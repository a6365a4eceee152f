//! Private rooms: one per pair, for those two only, with a mark for what the other has not read.

use overwire::fake::FakeUsers;
use serde_json::json;

use crate::support::tab::all;
use crate::support::{Server, Tab, until};

/// Two people in private and a third outside, for each dialect of the wire.
pub(crate) async fn two_people_talk_in_private(mut anna: Tab, mut bob: Tab, mut carol: Tab) {
    anna.opens_private(&bob.name()).await;
    bob.hears_all().await;
    assert_eq!(bob.title(), "#hi", "opening shows the other nothing");
    anna.says("psst").await;
    bob.opens_private(&anna.name()).await;
    bob.sees_exactly(&["psst"]).await;
    bob.says("yes?").await;
    anna.sees_exactly(&["psst", "yes?"]).await;
    // Clicking a person twice is harmless.
    anna.opens_private(&bob.name()).await;
    anna.sees_exactly(&["psst", "yes?"]).await;

    carol.hears_all().await;
    assert_eq!(carol.texts(), [""; 0]);
    carol.opens_private(&anna.name()).await;
    assert_eq!(carol.texts(), [""; 0], "that is another room");
    carol.says("and me?").await;
    anna.hears_all().await;
    assert_eq!(anna.texts(), ["psst", "yes?"]);
    for tab in [&anna, &bob] {
        assert!(tab.pushes.iter().all(|push| !push.html.contains("and me?")));
    }
    for secret in ["psst", "yes?"] {
        assert!(carol.pushes.iter().all(|push| !push.html.contains(secret)));
    }
}

#[tokio::test]
async fn two_people_have_a_room_of_their_own() {
    let server = Server::start().await;
    let tab = async || server.tab().await;
    two_people_talk_in_private(tab().await, tab().await, tab().await).await;
}

#[tokio::test]
async fn it_is_the_same_room_for_both_before_and_after_its_first_message() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.opens_private(&bob.name()).await;
    assert_eq!(anna.location, format!("/chat/@{}/", bob.name()));
    assert_eq!(anna.title(), bob.name());
    let room = anna.room();
    bob.opens_private(&anna.name()).await;
    assert_eq!(bob.title(), anna.name());
    assert_eq!(bob.room(), room);
    bob.says("first").await;
    anna.sees("first").await;
    anna.enters_group("hi").await;
    anna.opens_private(&bob.name()).await;
    assert_eq!(anna.room(), room);
    anna.reloads().await;
    assert_eq!(anna.title(), bob.name());
    assert_eq!(anna.room(), room);
    anna.sees_exactly(&["first"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_opening_it_at_the_same_time_get_one_room() {
    let server = Server::start().await;
    let door = server.door;
    let tabs = all((0..20).map(|_| door.tab())).await;
    let names: Vec<_> = tabs.iter().map(Tab::name).collect();
    let opening = tabs.into_iter().enumerate().map(|(number, mut tab)| {
        let other = names[number ^ 1].clone();
        async move {
            tab.opens_private(&other).await;
            tab
        }
    });
    let mut tabs = all(opening).await;
    assert_eq!(server.count("rooms where kind = 'private'"), 10);
    for pair in tabs.chunks_mut(2) {
        assert_eq!(pair[0].room(), pair[1].room());
        pair[0].says("you too?").await;
        pair[1].sees_exactly(&["you too?"]).await;
    }
}

#[tokio::test]
async fn an_outsider_cannot_enter_or_detect_a_private_room() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let mut carol = server.tab().await;
    anna.opens_private(&bob.name()).await;
    bob.opens_private(&anna.name()).await;
    anna.says("secret").await;
    bob.sees("secret").await;
    let message = bob.messages()[0].id;
    let room = anna.room().unwrap();
    let nowhere = "AAAAAAAAAAE".to_owned();
    assert_eq!(room.len(), nowhere.len(), "they look alike");

    // Lists and marks are pushed at times of their own, so they are not compared.
    let soft = |place: &str| place.starts_with("users-") || place.starts_with("room-");

    // By the id of the room, in every action.
    let mut answers = Vec::new();
    for place in [&room, &nowhere] {
        let mark = carol.pushes.len();
        let data = json!({ "message": "let me in", "room": place });
        carol.is_refused("New message", data).await;
        let key = "6a3c8f8e-0d6a-4a53-9a52-2a3f6b1f1d11";
        let data = json!({ "message": "let me in", "room": place, "key": key });
        carol.is_refused("New message", data).await;
        carol.sends(
            "Older messages",
            json!({ "before": message + 1, "room": place }),
        );
        carol.sends("Read", json!({ "message": message, "room": place }));
        let here = json!({ "message": message, "room": place, "on": true, "topic": "mine" });
        for action in ["Mark unread", "Mute group", "Leave group", "Change topic"] {
            carol.sends(action, here.clone());
        }
        carol.hears_all().await;
        let fresh = carol.pushes[mark..].iter();
        let fresh = fresh.filter(|push| !soft(&push.place));
        answers.push(fresh.map(|push| push.frame.clone()).collect::<Vec<_>>());
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].len() >= 3, "{:#?}", answers[0]);

    // By every name it might have.
    let [id, low, high] = ["id", "user_low", "user_high"].map(|column| {
        let ids = server.look(&format!(
            "select {column} from rooms where kind = 'private'"
        ));
        ids[0].clone()
    });
    for name in [
        room.clone(),
        format!("@{}", bob.name()),
        format!("{}_{}", anna.name(), bob.name()),
        format!("{low}_{high}"),
        id,
        String::new(),
    ] {
        for is_group in [true, false] {
            let data = json!({ "groupName": name, "isGroup": is_group });
            let words = carol.is_refused("Change group", data).await;
            let expected = match is_group {
                true => format!("There is no group #{name}."),
                false => format!("There is nobody named “{name}”."),
            };
            assert_eq!(words, expected);
        }
    }

    // By the address of the socket.
    let mut arrivals = Vec::new();
    for place in [&room, &nowhere] {
        let mut dora = Tab::load(server.door, "/chat/hi/").await;
        let mut handshake = dora.handshake();
        handshake.query = format!("?room={place}&after=6a1f93c8.0");
        dora.opens_socket_with(&handshake).await;
        dora.until("a room", |tab| {
            tab.title() == "#hi" && tab.name() != "nobody"
        })
        .await;
        dora.hears_all().await;
        assert_eq!(dora.texts(), [""; 0]);
        let places = dora.pushes.iter().filter(|push| !soft(&push.place));
        arrivals.push(places.map(|push| push.place.clone()).collect::<Vec<_>>());
    }
    assert_eq!(arrivals[0], arrivals[1]);

    for tab in [&mut anna, &mut bob] {
        tab.hears_all().await;
        assert_eq!(tab.texts(), ["secret"]);
    }
    assert!(
        carol
            .pushes
            .iter()
            .all(|push| !push.html.contains("secret"))
    );
    assert_eq!(server.stored("let me in"), 0);
    let unread = "users_subscribed where unread = 1 and read_message_id = 0";
    assert_eq!(server.count(unread), 1, "carol's Read is not bob's");
}

#[tokio::test]
async fn a_private_message_is_marked_until_it_is_read() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let (from, to) = (anna.name(), bob.name());
    anna.opens_private(&to).await;
    anna.says("one").await;
    bob.until("a mark", |tab| tab.unread_from(&from) == 1).await;
    let mut lists = bob.pushes_to("users-mine", 0).into_iter();
    let first = lists.find(|push| push.html.contains(&from)).unwrap();
    assert!(first.html.contains("data-unread"), "no news before");
    anna.says("two").await;
    bob.until("two marks", |tab| tab.unread_from(&from) == 2)
        .await;
    anna.until("a conversation", |tab| {
        tab.people("users-mine") == [to.clone()]
    })
    .await;
    assert_eq!(anna.unread_from(&to), 0, "her own words are no news to her");

    bob.opens_private(&from).await;
    let ids: Vec<_> = bob.messages().iter().map(|message| message.id).collect();
    bob.sends("Read", json!({ "message": ids[0], "room": bob.room() }));
    bob.until("one mark", |tab| tab.unread_from(&from) == 1)
        .await;
    bob.sends("Read", json!({ "message": ids[1], "room": bob.room() }));
    bob.until("no mark", |tab| tab.unread_from(&from) == 0)
        .await;

    anna.says("three").await;
    bob.enters_group("hi").await;
    bob.until("a mark again", |tab| tab.unread_from(&from) == 1)
        .await;
}

#[tokio::test]
async fn answering_in_the_room_counts_as_reading() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let (a, b) = (anna.name(), bob.name());
    bob.opens_private(&a).await;
    bob.says("are you there?").await;
    anna.until("the mark", |tab| tab.unread_from(&b) == 1).await;
    anna.opens_private(&b).await;
    anna.says("yes").await;
    anna.until("no mark", |tab| tab.unread_from(&b) == 0).await;
}

#[tokio::test]
async fn the_read_mark_never_moves_back() {
    let mut server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let from = anna.name();
    anna.opens_private(&bob.name()).await;
    bob.opens_private(&from).await;
    for text in ["one", "two"] {
        anna.says(text).await;
        bob.sees(text).await;
    }
    let ids: Vec<_> = bob.messages().iter().map(|message| message.id).collect();
    for tab in [&mut anna, &mut bob] {
        let room = tab.room();
        tab.sends("Read", json!({ "message": ids[1], "room": room }));
    }
    let read = format!(
        "users_subscribed where unread = 0 and read_message_id = {}",
        ids[1]
    );
    until("both of them to have read both", async || {
        server.count(&read) == 2
    })
    .await;
    bob.sends("Read", json!({ "message": ids[0], "room": bob.room() }));
    bob.hears_all().await;
    server.stop().await;
    assert_eq!(server.count(&read), 2);
}

#[tokio::test]
async fn private_messages_wait_with_a_mark_for_somebody_offline() {
    let mut server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let from = anna.name();
    bob.loses_the_network();
    anna.opens_private(&bob.name()).await;
    anna.says("are you there?").await;
    bob.connects().await;
    bob.until("the mark", |tab| tab.unread_from(&from) == 1)
        .await;

    anna.loses_the_network();
    bob.loses_the_network();
    server.restart().await;
    bob.reloads().await;
    bob.until("the mark after a restart", |tab| {
        tab.unread_from(&from) == 1
    })
    .await;
    bob.opens_private(&from).await;
    bob.sees_exactly(&["are you there?"]).await;
    let last = bob.messages()[0].id;
    bob.sends("Read", json!({ "message": last, "room": bob.room() }));
    bob.until("no mark", |tab| tab.unread_from(&from) == 0)
        .await;
    bob.reloads().await;
    bob.until("the conversation", |tab| {
        tab.people("users-mine") == [from.clone()]
    })
    .await;
    assert_eq!(bob.unread_from(&from), 0);
}

#[tokio::test]
async fn read_marks_are_stored_before_the_server_stops() {
    let mut server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.opens_private(&bob.name()).await;
    bob.opens_private(&anna.name()).await;
    anna.says("read me").await;
    bob.sees("read me").await;
    assert_eq!(server.count("users_subscribed where unread = 1"), 1);
    let last = bob.messages()[0].id;
    bob.sends("Read", json!({ "message": last, "room": bob.room() }));
    bob.hears_all().await;
    server.stop().await;
    assert_eq!(server.count("users_subscribed where unread = 1"), 0);
}

#[tokio::test]
async fn an_open_private_room_shows_no_mark_for_what_is_read_at_once() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let from = anna.name();
    anna.opens_private(&bob.name()).await;
    bob.opens_private(&from).await;
    // His own list is rendered on arrival, before the list for everybody.
    let here = [bob.name(), from.clone()];
    bob.until("both of them", |tab| {
        let listed = tab.people("users-online");
        here.iter().all(|name| listed.contains(name))
    })
    .await;
    let mark = bob.pushes.len();
    anna.says("look").await;
    bob.sees("look").await;
    let last = bob.messages()[0].id;
    bob.sends("Read", json!({ "message": last, "room": bob.room() }));
    bob.until("the conversation", |tab| {
        tab.people("users-mine") == [from.clone()]
    })
    .await;
    let marked = bob.pushes_to("users-mine", mark);
    assert!(marked.iter().all(|push| !push.html.contains("data-unread")));
}

#[tokio::test]
async fn nobody_has_a_private_room_with_themselves() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let data = json!({ "groupName": anna.name(), "isGroup": false });
    let words = anna.is_refused("Change group", data).await;
    assert!(words.starts_with("That is you."), "{words}");
    assert_eq!(anna.title(), "#hi");
    assert_eq!(server.count("rooms where kind = 'private'"), 0);

    anna.location = format!("/chat/@{}/", anna.name());
    anna.reloads().await;
    anna.hears_all().await;
    assert_eq!(anna.title(), "All groups");
    assert_eq!(anna.location, "/chat/");
    assert!(
        anna.notice().starts_with("That is you."),
        "{}",
        anna.notice()
    );
}

#[tokio::test]
async fn an_unused_fake_user_is_treated_like_a_missing_one() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let here = [anna.name(), bob.name()];
    let mut seeded = FakeUsers::from_seed(7).take(30).map(|user| user.name);
    let seeded = seeded.find(|name| !here.contains(name)).unwrap();
    for name in [seeded, "nobody123".to_owned()] {
        let data = json!({ "groupName": name, "isGroup": false });
        let words = anna.is_refused("Change group", data).await;
        assert_eq!(words, format!("There is nobody named “{name}”."));
        bob.location = format!("/chat/@{name}/");
        bob.reloads().await;
        bob.hears_all().await;
        assert_eq!(bob.title(), "All groups");
        assert_eq!(bob.notice(), words);
    }
    assert_eq!(server.count("rooms where kind = 'private'"), 0);
}
