//! Registered accounts: signing in and out, one person in many tabs, and what a stranger can
//! learn or guess.

use std::time::Duration;

use overwire::model::BrowserToken;
use serde_json::json;

use crate::support::device::PASSWORD;
use crate::support::server::Setup;
use crate::support::{Answer, Device, Server, Tab};

/// The addresses that the forms of a tab are sent to.
fn forms(tab: &Tab) -> Vec<String> {
    let place = tab.page.the("account");
    let actions = place
        .with("action")
        .filter_map(|form| form.attribute("action"));
    actions.map(str::to_owned).collect()
}

fn moves(tab: &Tab) -> String {
    tab.page.the("room-moves").text()
}

fn count(tab: &Tab) -> String {
    tab.page.the("room-count").text().trim().to_owned()
}

/// What a page says went wrong.
fn reason(answer: &Answer) -> String {
    let page = super::support::page::Page::parse(&answer.body);
    page.the("notice").text()
}

/// The answer to a password guess from an address.
async fn guesses(server: &Server, name: &str, password: &str, from: &str) -> Answer {
    let fields = [("name", name), ("password", password)];
    let headers = [("X-Forwarded-For", from)];
    server.post("/sign-in/", &fields, &headers).await
}

#[tokio::test]
async fn a_person_with_a_password_signs_in_from_elsewhere() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let a = anna.name();
    anna.says("as a guest").await;
    let guest = anna.resume.clone();
    assert_eq!(forms(&anna), ["/sign-in/", "/keep/"]);

    let mut home = Device::new(&server);
    let resume = guest.clone().unwrap();
    let fields = [("resume", &*resume), ("password", PASSWORD)];
    let answer = home.sends("/keep/", &fields).await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("Location"), Some("/chat/python/"));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let set = answer.header("Set-Cookie").unwrap();
    assert!(set.ends_with("; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000"));
    anna.cookie.clone_from(&home.cookie);
    anna.reloads().await;
    assert_eq!(anna.name(), a);
    assert_eq!(forms(&anna), ["/sign-out/", "/change-password/"]);
    anna.sees_exactly(&["as a guest"]).await;

    // The guest's token without a session does not make anybody that person.
    let mut thief = Tab::load(server.door, "/chat/hi/").await;
    thief.resume.clone_from(&guest);
    thief.connects().await;
    assert_ne!(thief.name(), a);
    // Neither does the token of a signed-in tab.
    thief.resume.clone_from(&anna.resume);
    thief.reconnects().await;
    assert_ne!(thief.name(), a);

    let mut phone = Device::new(&server);
    phone.signs_in(&format!(" {} ", a.to_uppercase())).await;
    let mut away = phone.tab("/chat/hi/").await;
    assert_eq!(away.name(), a);
    away.says("from elsewhere").await;
    anna.sees("from elsewhere").await;

    // A tab that was a guest before becomes that person when it reconnects.
    let mut second = server.tab().await;
    assert_ne!(second.name(), a);
    second.cookie.clone_from(&phone.cookie);
    second.reconnects().await;
    assert_eq!(second.name(), a);
    // So does a tab of the original design.
    let mut plain = Tab::plain(server.door);
    plain.cookie.clone_from(&phone.cookie);
    plain.connects().await;
    plain
        .until("who that is", |tab| {
            tab.page.the("logged-user").text().contains(&a)
        })
        .await;
}

#[tokio::test]
async fn all_tabs_of_a_registered_user_are_one_person() {
    let server = Server::start().await;
    let mut bob = server.tab().await;
    let (device, mut first) = Device::of_somebody(&server).await;
    let (a, b) = (first.name(), bob.name());
    let mut second = device.tab("/chat/hi/").await;
    assert_eq!(second.name(), a);
    for tab in [&mut bob, &mut first, &mut second] {
        tab.until("each of them once", |tab| {
            let mut here = tab.people("room-people");
            here.sort();
            let mut both = vec![a.clone(), b.clone()];
            both.sort();
            let mut online = tab.people("users-online");
            online.sort();
            here == both && online == both && count(tab) == "2"
        })
        .await;
    }
    bob.until("them to have come", |tab| moves(tab).contains(&a))
        .await;
    assert!(moves(&bob).ends_with("joined"), "{}", moves(&bob));

    // A private message is unread in both tabs, and reading it in one marks it read in both.
    bob.opens_private(&a).await;
    bob.says("hello you").await;
    for tab in [&mut first, &mut second] {
        tab.until("the mark", |tab| tab.unread_from(&b) == 1).await;
    }
    second.opens_private(&b).await;
    second.sees("hello you").await;
    let last = second.messages()[0].id;
    let room = second.room();
    second.sends("Read", json!({ "message": last, "room": room }));
    for tab in [&mut first, &mut second] {
        tab.until("no mark", |tab| tab.unread_from(&b) == 0).await;
    }
    // Writing from elsewhere does not mark newer messages as read, even if the other tab shows the
    // room.
    bob.says("look here").await;
    second.sees("look here").await;
    first
        .until("the mark", |tab| tab.unread_from(&b) == 1)
        .await;
    let mark = first.pushes.len();
    first.says(&format!("/pm {b} from elsewhere")).await;
    second.sees("from elsewhere").await;
    bob.says("and here").await;
    first
        .until("another mark", |tab| tab.unread_from(&b) == 2)
        .await;
    let marks = first.pushes_to("users-mine", mark);
    assert!(marks.iter().all(|push| push.html.contains("data-unread")));
    // What one tab writes appears in the other too.
    first.opens_private(&b).await;
    first.says("and you").await;
    second.sees("and you").await;
    first.until("no mark", |tab| tab.unread_from(&b) == 0).await;

    // A new display name shows in both at once.
    first.sends("Change name", json!({ "name": "Anna" }));
    for tab in [&mut first, &mut second] {
        tab.until("the name", |tab| {
            tab.page.the("name-form").text().contains("Anna")
        })
        .await;
    }
}

#[tokio::test]
async fn a_person_leaves_with_their_last_tab() {
    let server = Server::start().await;
    let mut bob = server.tab().await;
    let (device, mut first) = Device::of_somebody(&server).await;
    let a = first.name();
    let second = device.tab("/chat/hi/").await;
    bob.opens_private(&a).await;
    bob.says("hello").await;
    bob.enters_group("hi").await;
    bob.until("the person", |tab| {
        tab.is_here(&a) && tab.people("room-people").contains(&a)
    })
    .await;
    let mark = bob.pushes.len();

    // One tab goes to another room and closes.
    first.enters_group("python").await;
    first.closes().await;
    let carl = server.tab().await;
    let c = carl.name();
    carl.closes().await;
    bob.until("somebody else to go", |tab| {
        moves(tab).contains(&c) && moves(tab).contains("left")
    })
    .await;
    let lines = bob.pushes_to("room-moves", mark);
    let left = |html: &str| html.split("joined").last().unwrap().contains(&a);
    assert!(lines.iter().all(|push| !left(&push.html)), "{lines:#?}");
    assert!(bob.people("room-people").contains(&a) && bob.is_here(&a));

    second.closes().await;
    bob.until("the last tab to go", |tab| {
        !tab.people("room-people").contains(&a) && !tab.is_here(&a) && left(&moves(tab))
    })
    .await;
}

#[tokio::test]
async fn signing_out_closes_the_sockets_of_that_session_only() {
    let server = Server::start().await;
    let (mut home, mut anna) = Device::of_somebody(&server).await;
    let a = anna.name();
    let mut beside = home.tab("/chat/python/").await;
    let mut phone = Device::new(&server);
    phone.signs_in(&a).await;
    let mut away = phone.tab("/chat/hi/").await;
    let former = home.cookie.clone();

    let answer = home.sends("/sign-out/", &[("at", "/chat/")]).await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("Location"), Some("/chat/"));
    assert!(answer.header("Set-Cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(home.cookie, None);
    for tab in [&mut anna, &mut beside] {
        // Not 1008, which would make the tab wait for long.
        assert_eq!(tab.is_closed().await, Some(1000));
    }
    // Neither the cookie nor the tab's token works any more.
    anna.cookie = former;
    anna.connects().await;
    assert_ne!(anna.name(), a);
    assert_eq!(forms(&anna), ["/sign-in/", "/keep/"]);
    beside.cookie = None;
    beside.connects().await;
    assert_ne!(beside.name(), a);

    away.says("still here").await;
    away.reconnects().await;
    assert_eq!(away.name(), a);
    // Signing out twice redirects in the same way.
    let answer = home.sends("/sign-out/", &[]).await;
    assert_eq!(answer.status, 303);
}

#[tokio::test]
async fn a_reload_is_not_a_leave_and_a_session_survives_a_restart() {
    let mut server = Server::start().await;
    let (device, mut anna) = Device::of_somebody(&server).await;
    let (a, token) = (anna.name(), anna.resume.clone());
    anna.reloads().await;
    assert_eq!((anna.name(), &anna.resume), (a.clone(), &token));
    // A copy of the tab is another tab of the same person.
    let mut copy = Tab::load(server.door, "/chat/hi/").await;
    copy.cookie.clone_from(&device.cookie);
    copy.resume.clone_from(&token);
    copy.connects().await;
    assert_eq!(copy.name(), a);
    assert_ne!(copy.resume, token);

    server.restart().await;
    anna.loses_the_network();
    anna.connects().await;
    assert_eq!((anna.name(), &anna.resume), (a.clone(), &token));
    let fresh = device.tab("/chat/hi/").await;
    assert_eq!(fresh.name(), a);
    // Each page renews the lifetime of the cookie.
    let cookie = device.cookie.as_deref().unwrap();
    let page = server.get_with("/chat/hi/", &[("Cookie", cookie)]).await;
    let set = page.header("Set-Cookie").unwrap();
    assert!(set.starts_with(cookie) && set.ends_with("Max-Age=2592000"));
    let page = server.get("/chat/hi/").await;
    assert_eq!(page.cookie("overwire-session"), None);
}

#[tokio::test]
async fn a_registered_name_is_refused_to_others_even_when_its_owner_is_offline() {
    let mut server = Server::start().await;
    let (_, mut anna) = Device::of_somebody(&server).await;
    anna.sends("Change name", json!({ "name": "Paul Hill" }));
    anna.until("the name", |tab| {
        tab.page.the("name-form").text().contains("Paul Hill")
    })
    .await;
    let mut guest = server.tab().await;
    guest.sends("Change name", json!({ "name": "Gus" }));
    guest
        .until("the name", |tab| {
            tab.page.the("name-form").text().contains("Gus")
        })
        .await;
    let names = [anna.name(), guest.name()];
    anna.closes().await;
    guest.closes().await;
    server.has_noticed_leaving(&names).await;
    let mut bob = server.tab().await;
    // A guest's name is free for the next person.
    bob.sends("Change name", json!({ "name": "Gus" }));
    bob.until("the name", |tab| {
        tab.page.the("name-form").text().contains("Gus")
    })
    .await;
    for _ in 0..2 {
        for name in ["Paul Hill", "paulhill", "P\u{430}ul Hill"] {
            let words = bob.is_refused("Change name", json!({ "name": name })).await;
            assert!(words.contains("too similar"), "{words}");
        }
        // And once more after a restart.
        server.restart().await;
        bob.reconnects().await;
    }
    // The display name works for signing in too.
    let mut phone = Device::new(&server);
    phone.signs_in("PAUL  hill").await;
    assert_eq!(phone.tab("/chat/hi/").await.name(), names[0]);
    let gus = guesses(&server, "Gus", PASSWORD, "").await;
    assert_eq!(gus.status, 401);
}

#[tokio::test]
async fn changing_the_password_ends_the_other_sessions() {
    let server = Server::start().await;
    let (mut home, mut anna) = Device::of_somebody(&server).await;
    let a = anna.name();
    let mut phone = Device::new(&server);
    phone.signs_in(&a).await;
    let mut away = phone.tab("/chat/hi/").await;

    let wrong = [("was", "not that one"), ("password", "another one")];
    let answer = home.sends("/change-password/", &wrong).await;
    assert_eq!(answer.status, 401);
    let short = [("was", PASSWORD), ("password", "short")];
    let answer = home.sends("/change-password/", &short).await;
    assert_eq!(answer.status, 422);
    let right = [("was", PASSWORD), ("password", "another one")];
    let mut nobody = Device::new(&server);
    let answer = nobody.sends("/change-password/", &right).await;
    assert_eq!(answer.status, 403);
    away.says("until now").await;

    let answer = home.sends("/change-password/", &right).await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    assert_eq!(away.is_closed().await, Some(1000));
    away.connects().await;
    assert_ne!(away.name(), a);
    anna.says("still here").await;
    anna.reconnects().await;
    assert_eq!(anna.name(), a);
    assert_eq!(guesses(&server, &a, PASSWORD, "").await.status, 401);
    assert_eq!(guesses(&server, &a, "another one", "").await.status, 303);
}

#[tokio::test]
async fn a_refused_registration_shows_the_reason_and_the_form() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let (a, resume) = (anna.name(), anna.resume.clone().unwrap());
    let mut device = Device::new(&server);
    let short = [("resume", &*resume), ("password", "1234567")];
    let answer = device.sends("/keep/", &short).await;
    assert_eq!(answer.status, 422);
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    assert_eq!(
        reason(&answer),
        "A password must have at least 8 characters."
    );
    assert!(answer.body.contains(&resume));
    assert!(answer.body.contains("&#x2f;chat&#x2f;python&#x2f;"));
    let long = "x".repeat(201);
    let long = [("resume", &*resume), ("password", &*long)];
    assert_eq!(device.sends("/keep/", &long).await.status, 422);
    let huge = "x".repeat(5000);
    let huge = [("resume", &*resume), ("password", &*huge)];
    assert_eq!(device.sends("/keep/", &huge).await.status, 413);
    for resume in ["", "c2hvcnQ", &"A".repeat(43)] {
        let fields = [("resume", resume), ("password", PASSWORD)];
        assert_eq!(device.sends("/keep/", &fields).await.status, 403);
    }
    assert_eq!(server.count("sessions"), 0);
    anna.reconnects().await;
    assert_eq!((anna.name(), device.cookie), (a, None));
}

#[tokio::test]
async fn a_failed_sign_in_does_not_reveal_whether_the_account_exists() {
    let (server, anna) = registered_behind_a_proxy().await;
    let a = anna.name();
    let mut answers = Vec::new();
    for name in [a.as_str(), "nobody99"] {
        let mut replies = Vec::new();
        for n in 0..11 {
            // Each guess from another address.
            let answer = guesses(&server, name, "a wrong one", &format!("203.0.113.{n}")).await;
            assert_eq!(answer.header("Set-Cookie"), None);
            let waits = answer.header("Retry-After").is_some();
            let body = answer.body.replace(name, "");
            replies.push((
                answer.status,
                waits,
                body.split("Please").next().map(str::to_owned),
            ));
        }
        answers.push(replies);
    }
    assert_eq!(answers[0], answers[1]);
    let statuses: Vec<_> = answers[0].iter().map(|reply| reply.0).collect();
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10], 429);
    // Now even the right password is refused, however the name is written.
    for name in [&a, &a.to_uppercase()] {
        let right = guesses(&server, name, PASSWORD, "203.0.113.99").await;
        assert_eq!(right.status, 429);
    }
    // Other names are not affected.
    let other = guesses(&server, "somebody1", "a wrong one", "203.0.113.99").await;
    assert_eq!(other.status, 401);
}

/// A registered person, on a server that takes addresses from a proxy.
async fn registered_behind_a_proxy() -> (Server, Tab) {
    let server = Server::with(Setup::trusts_its_proxy).await;
    let mut tab = server.tab().await;
    let resume = tab.resume.clone().unwrap();
    let fields = [("resume", &*resume), ("password", PASSWORD)];
    let headers = [("X-Forwarded-For", "192.0.2.1")];
    let answer = server.post("/keep/", &fields, &headers).await;
    assert_eq!(answer.status, 303);
    let cookie = answer.header("Set-Cookie").unwrap();
    tab.cookie = cookie.split(';').next().map(str::to_owned);
    tab.reloads().await;
    (server, tab)
}

#[tokio::test]
async fn password_guesses_are_limited_per_address_across_names() {
    let (server, anna) = registered_behind_a_proxy().await;
    let a = anna.name();
    for n in 0..10 {
        // A household counts as one address.
        let from = format!("2001:db8::{n}");
        let answer = guesses(&server, &format!("name{n}"), "a wrong one", &from).await;
        assert_eq!(answer.status, 401);
    }
    let answer = guesses(&server, &a, PASSWORD, "2001:db8::99").await;
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    assert!(reason(&answer).starts_with("Too many attempts."));
    assert_eq!(
        guesses(&server, &a, PASSWORD, "2001:db8:0:1::1")
            .await
            .status,
        303
    );
    // Right passwords do not count as guesses.
    for _ in 0..12 {
        assert_eq!(
            guesses(&server, &a, PASSWORD, "192.0.2.7").await.status,
            303
        );
    }
}

#[tokio::test]
async fn forms_of_other_origins_are_refused() {
    let server = Server::start().await;
    let (mut device, mut anna) = Device::of_somebody(&server).await;
    let a = anna.name();
    let cookie = device.cookie.clone().unwrap();
    let fields = [("name", &*a), ("password", PASSWORD), ("was", PASSWORD)];
    let own = format!("http://{}", server.door.0);
    for path in ["/keep/", "/sign-in/", "/sign-out/", "/change-password/"] {
        for origin in [
            "null",
            "http://evil.example",
            &own.replace("http:", "https:"),
        ] {
            let headers = [("Origin", origin), ("Cookie", &*cookie)];
            let answer = server.post(path, &fields, &headers).await;
            assert_eq!(answer.status, 403, "{path} {origin}");
            assert_eq!(answer.header("Set-Cookie"), None);
        }
    }
    anna.reconnects().await;
    assert_eq!(anna.name(), a);
    // A program sends no origin; the page sends its own.
    let answer = server.post("/sign-in/", &fields, &[]).await;
    assert_eq!(answer.status, 303);
    assert_eq!(device.sends("/sign-out/", &[]).await.status, 303);
}

#[tokio::test]
async fn after_a_wrong_password_the_name_is_still_there() {
    let server = Server::start().await;
    let mut device = Device::new(&server);
    let wrong = [("name", "anna1"), ("password", "not hers")];
    let answer = device.sends("/sign-in/", &wrong).await;
    let page = super::support::page::Page::parse(&answer.body);
    assert_eq!(page.the("sign-in-name").attribute("value"), Some("anna1"));
    assert_eq!(page.the("sign-in-password").attribute("value"), None);
    // The form beside the one to register does not contain the guest's own name.
    let anna = server.tab().await;
    assert_eq!(anna.page.the("sign-in-name").attribute("value"), Some(""));
}

#[tokio::test]
async fn no_form_redirects_to_another_site() {
    let server = Server::start().await;
    let mut device = Device::new(&server);
    for (at, expected) in [
        ("/chat/", "/chat/"),
        ("/chat/@anna1/", "/chat/@anna1/"),
        ("//evil.example/", "/"),
        ("https://evil.example/chat/hi/", "/"),
        ("/\\evil.example", "/"),
        ("", "/"),
        ("/sign-out/", "/"),
    ] {
        let answer = device.sends("/sign-out/", &[("at", at)]).await;
        assert_eq!(answer.header("Location"), Some(expected), "{at}");
        let wrong = [("at", at), ("name", "a"), ("password", "b")];
        let answer = device.sends("/sign-in/", &wrong).await;
        assert!(!answer.body.contains("evil.example"), "{at}");
    }
    // Opening the address of a form shows the form or redirects to the chat.
    assert_eq!(server.get("/sign-in/").await.status, 200);
    for path in ["/keep/", "/sign-out/", "/change-password/"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.header("Location")), (303, Some("/")));
    }
}

#[tokio::test]
async fn behind_https_the_cookie_is_bound_to_host_and_scheme() {
    let (server, anna) = registered_behind_a_proxy().await;
    let fields = [("name", &*anna.name()), ("password", PASSWORD)];
    let headers = [
        ("X-Forwarded-For", "203.0.113.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "chat.example"),
        ("Origin", "https://chat.example"),
    ];
    let answer = server.post("/sign-in/", &fields, &headers).await;
    let set = answer.header("Set-Cookie").unwrap();
    assert!(set.starts_with("__Host-overwire-session="), "{set}");
    assert!(set.contains("; Secure; Path=/;") && !set.contains("Domain"));
}

#[tokio::test]
async fn every_browser_has_a_cookie_that_is_set_once() {
    let server = Server::with(Setup::trusts_its_proxy).await;
    let page = server.get("/chat/hi/").await;
    let set = page.header("Set-Cookie").unwrap();
    assert!(set.ends_with("; HttpOnly; SameSite=Lax; Path=/"), "{set}");
    let cookie = page.cookie("overwire-browser").unwrap();
    let other = server.get("/chat/").await;
    assert_ne!(other.cookie("overwire-browser"), Some(cookie));
    for path in ["/chat/hi/", "/search/?q=hi", "/nowhere/"] {
        let again = server.get_with(path, &[("Cookie", cookie)]).await;
        assert_eq!(again.header("Set-Cookie"), None, "{path}");
    }
    // What is no token is replaced.
    let headers = [("Cookie", "overwire-browser=mine")];
    let again = server.get_with("/chat/hi/", &headers).await;
    assert!(again.cookie("overwire-browser").is_some());
    // Over https, no other host of the domain can set it, and the other cookie does not count.
    let headers = [
        ("Cookie", cookie),
        ("X-Forwarded-For", "203.0.113.1"),
        ("X-Forwarded-Proto", "https"),
    ];
    let secure = server.get_with("/chat/hi/", &headers).await;
    let set = secure.header("Set-Cookie").unwrap();
    assert!(set.starts_with("__Host-overwire-browser="), "{set}");
    assert!(set.ends_with("; HttpOnly; SameSite=Lax; Secure; Path=/"));
}

#[tokio::test]
async fn a_browser_is_known_by_the_hash_of_its_cookie() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let mut bob = Tab::load(server.door, "/chat/hi/").await;
    bob.browser.clone_from(&anna.browser);
    bob.connects().await;
    let (_, token) = anna.browser.as_deref().unwrap().split_once('=').unwrap();
    let browser = token.parse::<BrowserToken>().unwrap().hash();
    let people = async || {
        let people = server.store().people_of_browser(None, Some(browser)).await;
        people.unwrap().into_iter().map(|user| user.name).collect()
    };
    let both: Vec<String> = people().await;
    assert_eq!(both, [bob.name(), anna.name()]);
    // A browser without the cookie is no longer known.
    anna.browser = None;
    anna.reconnects().await;
    let one: Vec<String> = people().await;
    assert_eq!(one, [bob.name()]);
}

#[tokio::test]
async fn the_rate_limit_is_shared_by_all_tabs_of_a_person() {
    let server = Server::alone(|setup| {
        setup.chat.pace_burst = 5;
        setup.chat.pace_per_second = Some(1);
    })
    .await;
    let (device, mut first) = Device::of_somebody(&server).await;
    let mut second = device.tab("/chat/hi/").await;
    for _ in 0..5 {
        first.sends("Ping", json!({}));
    }
    first
        .until("five answers", |tab| {
            tab.pushes_to("connection", 0).len() == 5
        })
        .await;
    let words = second.is_refused("Ping", json!({})).await;
    assert!(words.contains("too fast"), "{words}");
}

#[tokio::test]
async fn an_unused_session_expires_after_thirty_days() {
    let server = Server::start().await;
    let (device, anna) = Device::of_somebody(&server).await;
    let a = anna.name();
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    // An open tab keeps its session alive.
    server.later(31 * DAY).await;
    assert_eq!(server.count("sessions"), 1);
    anna.closes().await;
    server.has_noticed_leaving(std::slice::from_ref(&a)).await;
    server.later(29 * DAY).await;
    assert_eq!(device.tab("/chat/hi/").await.name(), a);
    server.has_noticed_leaving(std::slice::from_ref(&a)).await;
    server.later(31 * DAY).await;
    assert_eq!(server.count("sessions"), 0);
    assert_ne!(device.tab("/chat/hi/").await.name(), a);
}
