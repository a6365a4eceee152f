//! Moderators: how somebody becomes one, what they do on their page and in the rooms, and that
//! nobody else can do or find any of it.

use serde_json::{Value, json};

use crate::support::device::PASSWORD;
use crate::support::device::admin_link;
use crate::support::page::{Element, Page};
use crate::support::wire::{Event, Handshake, Wire};
use crate::support::{Device, Server, Tab, soon};

/// The page at `/admin/`, in a browser without windows.
pub(super) struct Desk {
    wire: Wire,
    page: Page,
}

impl Desk {
    async fn open(device: &Device) -> Self {
        let cookie = device.cookie.clone().unwrap();
        let headers = [("Cookie", cookie.as_str())];
        let page = device.door.get_with("/admin/", &headers).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let wire = device.door.socket(&device.admin_handshake()).await.unwrap();
        assert_eq!(wire.protocol.as_deref(), Some("overwire.v1"));
        let page = Page::parse(&page.body);
        let mut desk = Self { wire, page };
        desk.until("what moderators did", |desk| {
            !desk.text("moderation-log").is_empty()
        })
        .await;
        desk
    }

    pub(super) fn sends(&self, action: &str, data: Value) {
        let text = json!({ "action": action, "data": data }).to_string();
        self.wire.text(text);
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                let Event::Text(frame) = self.wire.next().await else {
                    panic!("the desk is closed");
                };
                let push: Value = serde_json::from_str(&frame).unwrap();
                let text = |key: &str| push.get(key).and_then(Value::as_str);
                let place = text("selector").unwrap().strip_prefix('#').unwrap();
                let put = self.page.put(place, text("swap"), text("html").unwrap());
                // A push for a row that is not shown has no place.
                let row = [
                    "moderation-group-",
                    "moderation-person-",
                    "moderation-message-",
                ];
                let row = row.iter().any(|row| place.starts_with(row));
                assert!(put || row, "there is no such place: {frame}");
            }
        };
        soon(what, waiting).await;
    }

    /// Does something and waits until a place shows these words.
    async fn does(&mut self, action: &str, data: Value, place: &str, words: &str) {
        self.sends(action, data);
        self.until(words, |desk| desk.text(place).contains(words))
            .await;
    }

    /// Restricts a group to moderators.
    async fn restricts(&mut self, name: &str) {
        let data = json!({ "room": self.room(name), "on": true });
        self.does(
            "Restrict group",
            data,
            "moderation-groups",
            "moderators only",
        )
        .await;
    }

    async fn is_refused(&mut self, action: &str, data: Value) -> String {
        self.page.put("notice", None, "");
        self.sends(action, data);
        // The notice may still show an earlier result.
        self.until("a refusal", |desk| {
            let mut notices = desk.page.the("notice").with("data-tone");
            notices.any(|notice| notice.attribute("data-tone") == Some("refusal"))
        })
        .await;
        self.text("notice")
    }

    async fn is_closed(&mut self) {
        self.wire.is_closed().await;
    }

    fn text(&self, place: &str) -> String {
        self.page.get(place).map(Element::text).unwrap_or_default()
    }

    fn all(&self, class: &str) -> Vec<&Element> {
        let all = self.page.root().all();
        all.filter(|part| part.has_class(class)).collect()
    }

    /// The id of the group of that name, from its row.
    fn room(&self, name: &str) -> String {
        let rows = self.all("record").into_iter();
        let row = rows
            .filter(|row| row.text().starts_with(&format!("#{name}")))
            .find_map(|row| row.id()?.strip_prefix("moderation-group-"));
        row.unwrap_or_else(|| panic!("no #{name} in {}", self.text("moderation-groups")))
            .to_owned()
    }
}

/// The token of a moderator link.
async fn link(server: &Server) -> String {
    admin_link(server.store()).await
}

/// A moderator in the first group, and their page.
pub(super) async fn moderator(server: &Server) -> (Device, Tab, Desk) {
    let (mut device, mut tab) = Device::of_somebody(server).await;
    device.becomes_moderator(server.store()).await;
    tab.reloads().await;
    let desk = Desk::open(&device).await;
    (device, tab, desk)
}

#[tokio::test]
async fn a_moderator_link_works_for_the_first_person_only() {
    let server = Server::start().await;
    let link = link(&server).await;
    let address = format!("/admin/link/?{link}");
    // Opening the link does not use it up.
    for _ in 0..2 {
        let page = server.get(&address).await;
        assert_eq!(page.status, 200);
        assert!(
            page.body.contains("new-password"),
            "a stranger needs a name"
        );
    }
    let (mut anna, mut tab) = Device::of_somebody(&server).await;
    let name = tab.name();
    assert!(!tab.page.the("account").text().contains("Moderation"));
    let cookie = anna.cookie.clone().unwrap();
    let page = server.get_with(&address, &[("Cookie", &cookie)]).await;
    assert!(page.body.contains(&name) && !page.body.contains("new-password"));
    let answer = anna.sends("/admin/link/", &[("link", &link)]).await;
    assert_eq!(answer.status, 303);
    tab.reloads().await;
    assert!(tab.page.the("account").text().contains("Moderation"));
    let desk = Desk::open(&anna).await;
    assert!(desk.text("moderation-log").contains("became a moderator"));

    let (mut bob, _) = Device::of_somebody(&server).await;
    for (link, words) in [(&*link, "already used"), ("nonsense", "already used")] {
        let answer = bob.sends("/admin/link/", &[("link", link)]).await;
        assert_eq!(answer.status, 404);
        assert!(answer.body.contains(words), "{}", answer.body);
        let page = server.get(&format!("/admin/link/?{link}")).await;
        assert_eq!(page.status, 404);
    }
    assert_eq!(server.count("users where moderator_at is not null"), 1);
}

#[tokio::test]
async fn a_stranger_with_a_moderator_link_registers_by_it() {
    let server = Server::start().await;
    let link = link(&server).await;
    let mut anna = Device::new(&server);
    for (password, status) in [("short", 422), (PASSWORD, 303)] {
        let fields = [("link", &*link), ("password", password)];
        let answer = anna.sends("/admin/link/", &fields).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    let desk = Desk::open(&anna).await;
    let me = desk.page.the("logged-user").with("data-user").next();
    let name = me.unwrap().attribute("data-user").unwrap().to_owned();
    let tab = anna.tab("/chat/hi/").await;
    assert_eq!(tab.name(), name);
    Device::new(&server).signs_in(&name).await;
}

#[tokio::test]
async fn only_moderators_get_the_admin_page_its_socket_and_its_actions() {
    let server = Server::start().await;
    let (_anna, _, desk) = moderator(&server).await;
    let room = desk.room("python");
    let (bob, mut tab) = Device::of_somebody(&server).await;
    let mut guest = server.tab().await;
    assert_eq!(
        server.get("/admin").await.header("Location"),
        Some("/admin/")
    );
    for device in [&bob, &Device::new(&server)] {
        let cookie = device.cookie.clone().unwrap_or_default();
        let page = server.get_with("/admin/", &[("Cookie", &cookie)]).await;
        assert_eq!(page.status, 403);
        assert!(page.body.contains("/sign-in/") && !page.body.contains("moderation-log"));
        let socket = server.socket(&device.admin_handshake()).await;
        assert_eq!(socket.err(), Some(403));
    }
    for tab in [&mut tab, &mut guest] {
        let name = tab.name();
        for (action, data) in [
            ("Look for groups", json!({})),
            ("Look for people", json!({})),
            ("Show audit log", json!({})),
            ("Open group", json!({ "room": room })),
            ("Look for messages", json!({ "room": room })),
            ("Rename group", json!({ "room": room, "groupName": "x" })),
            ("Remove group", json!({ "room": room })),
            ("Restrict group", json!({ "room": room, "on": true })),
            ("Restore message", json!({ "room": room, "message": 1 })),
            ("Mute", json!({ "userName": name, "on": true })),
            ("Ban", json!({ "userName": name, "on": true })),
        ] {
            let words = tab.is_refused(action, data).await;
            assert_eq!(words, "Only moderators can do that.", "{action}");
        }
    }
    // Another site's page can neither send the form nor open the socket.
    let link = link(&server).await;
    let headers = [
        ("Origin", "https://evil.example"),
        ("Cookie", bob.cookie.as_deref().unwrap()),
    ];
    let fields = [("link", &*link)];
    let sent = server.post("/admin/link/", &fields, &headers).await;
    assert_eq!(sent.status, 403);
    assert_eq!(server.count("users where moderator_at is not null"), 1);
    assert_eq!(server.count("audit_log"), 1);
}

#[tokio::test]
async fn a_moderator_helps_somebody_to_a_new_password() {
    let server = Server::start().await;
    let (mut moderator, _tab, mut desk) = moderator(&server).await;
    let (mut bob, mut tab) = Device::of_somebody(&server).await;
    let (name, mut guest) = (tab.name(), server.tab().await);
    tab.says("I forget everything").await;
    guest.says("me too").await;
    desk.sends("Look for people", json!({ "text": name }));
    desk.until("the button", |desk| {
        desk.text("moderation-people")
            .contains("Create password link")
    })
    .await;
    desk.sends("Look for people", json!({ "text": guest.name() }));
    desk.until("the guest", |desk| {
        desk.text("moderation-people").contains(&guest.name())
    })
    .await;
    let people = desk.text("moderation-people");
    assert!(!people.contains("password"), "{people}");

    let path = "/admin/password-link/";
    let page = moderator.sends(path, &[("name", &name)]).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!(page.header("Cache-Control"), Some("no-store"));
    let link = Page::parse(&page.body);
    let link = link
        .root()
        .all()
        .find(|part| part.id() == Some("password-link"));
    let link = link.unwrap().attribute("value").unwrap().to_owned();
    let begins = format!("http://{}/reset-password/?", server.door.0);
    let token = link.strip_prefix(&begins).expect(&link).to_owned();
    // The person is told, in case they did not ask for it.
    tab.until("a notice", |tab| {
        tab.page
            .the("notice")
            .text()
            .contains("A moderator has created a link")
    })
    .await;
    assert_eq!(
        moderator
            .sends(path, &[("name", &guest.name())])
            .await
            .status,
        404
    );
    let refused = moderator.sends(path, &[("name", "nobody")]).await;
    assert!(
        refused.body.contains("There is no account"),
        "{}",
        refused.body
    );

    // The link is opened on another device, where a preview was made of it before.
    let mut phone = Device::new(&server);
    let address = format!("/reset-password/?{token}");
    for _ in 0..2 {
        let page = server.get(&address).await;
        assert!(page.status == 200 && page.body.contains(&name));
    }
    let fields = [("link", &*token), ("password", "short")];
    assert_eq!(phone.sends("/reset-password/", &fields).await.status, 422);
    tab.says("still here").await;
    let fields = [("link", &*token), ("password", "an owl is not a fish")];
    let answer = phone.sends("/reset-password/", &fields).await;
    assert_eq!((answer.status, answer.header("Location")), (303, Some("/")));
    assert_eq!(phone.tab("/chat/hi/").await.name(), name);
    // Whoever was signed in as them is not any longer.
    assert_eq!(tab.is_closed().await, Some(1000));
    tab.connects().await;
    assert_ne!(tab.name(), name);
    let old = [("name", &*name), ("password", PASSWORD)];
    assert_eq!(bob.sends("/sign-in/", &old).await.status, 401);
    let new = [("name", &*name), ("password", "an owl is not a fish")];
    assert_eq!(bob.sends("/sign-in/", &new).await.status, 303);
    for used in [&*token, "nonsense"] {
        let fields = [("link", used), ("password", "an owl is not a fish")];
        let answer = phone.sends("/reset-password/", &fields).await;
        assert_eq!(answer.status, 404);
        assert!(answer.body.contains("already used"), "{}", answer.body);
        let page = server.get(&format!("/reset-password/?{used}")).await;
        assert_eq!(page.status, 404);
    }
    let chose = "chose a new password with a link";
    desk.does("Show audit log", json!({}), "moderation-log", chose)
        .await;
    let log = desk.text("moderation-log");
    let created = format!("created a link to reset the password of {name}");
    assert!(log.contains(&created) && !log.contains(&token), "{log}");
}

#[tokio::test]
async fn only_moderators_create_password_links_and_none_for_a_moderator() {
    let server = Server::start().await;
    let (mut anna, tab, _desk) = moderator(&server).await;
    let (mut bob, other) = Device::of_somebody(&server).await;
    let path = "/admin/password-link/";
    for device in [&mut bob, &mut Device::new(&server)] {
        let sent = device.sends(path, &[("name", &other.name())]).await;
        assert_eq!(sent.status, 403);
    }
    let headers = [
        ("Origin", "https://evil.example"),
        ("Cookie", anna.cookie.as_deref().unwrap()),
    ];
    let sent = server
        .post(path, &[("name", &other.name())], &headers)
        .await;
    assert_eq!(sent.status, 403);
    assert_eq!(anna.sends(path, &[("name", &tab.name())]).await.status, 404);
    assert_eq!(server.count("password_links"), 0);
    assert_eq!(
        anna.sends(path, &[("name", &other.name())]).await.status,
        200
    );
    assert_eq!(server.count("password_links"), 1);
}

#[tokio::test]
async fn nobody_learns_the_name_of_a_restricted_group_by_muting_it() {
    let server = Server::start().await;
    let (_device, _tab, mut desk) = moderator(&server).await;
    let mut bob = server.tab_at("/chat/python/").await;
    let room = bob.room();
    desk.restricts("python").await;
    bob.is_closed().await;
    bob.reconnects().await;
    bob.hears_all().await;
    let data = json!({ "room": room, "on": true });
    let reason = bob.is_refused("Mute group", data).await;
    assert_eq!(reason, "There is no such room.");
}

#[tokio::test]
async fn nobody_learns_the_name_of_a_restricted_group_by_completion() {
    let server = Server::start().await;
    let (_device, mut moderator, mut desk) = moderator(&server).await;
    let mut bob = server.tab_at("/chat/python/").await;
    let completes = async |tab: &mut Tab| {
        for text in ["#pyth", "#!pyth"] {
            tab.sends("Complete", json!({ "text": text }));
            tab.hears_all().await;
            if !tab.page.the("completions").text().is_empty() {
                return true;
            }
        }
        false
    };
    assert!(completes(&mut bob).await);
    desk.restricts("python").await;
    bob.is_closed().await;
    bob.reconnects().await;
    bob.hears_all().await;
    assert!(!completes(&mut bob).await);
    // Nobody can type its name, so moderators get no proposal either.
    assert!(!completes(&mut moderator).await);
}

#[tokio::test]
async fn a_former_moderator_finds_no_admin_page() {
    let server = Server::start().await;
    let (device, mut tab, mut desk) = moderator(&server).await;
    let mut bob = server.tab().await;
    let restrict = json!({ "room": desk.room("python"), "on": true });
    desk.sends("Restrict group", restrict);
    tab.until("the group in the list of moderators", |tab| {
        tab.groups_in("groups-list").contains(&"!python".to_owned())
    })
    .await;
    assert!(server.store().end_moderator(&tab.name()).await.unwrap());
    // An action on a page that is still open is refused, and its socket closes.
    desk.sends("Mute", json!({ "userName": bob.name(), "on": true }));
    desk.is_closed().await;
    assert!(!desk.text("notice").contains("You muted"));
    bob.says("not muted").await;
    // In other rooms they now see what everybody sees.
    assert_eq!(tab.is_closed().await, Some(1000));
    tab.reconnects().await;
    tab.hears_all().await;
    assert_eq!(tab.groups_in("groups-list"), ["hi", "events", "off-topic"]);
    let socket = server.socket(&device.admin_handshake()).await;
    assert_eq!(socket.err(), Some(403));
}

#[tokio::test]
async fn a_former_moderator_is_moved_out_of_moderator_rooms() {
    let server = Server::start().await;
    let (device, mut anna, mut desk) = moderator(&server).await;
    desk.restricts("python").await;
    anna.enters_group("!python").await;
    let mut plain = Tab::plain(server.door);
    plain.cookie.clone_from(&device.cookie);
    plain.connects().await;
    plain.sends(
        "Change group",
        json!({ "groupName": "!python", "isGroup": true }),
    );
    plain
        .until("the group", |tab| tab.title() == "#!python")
        .await;
    assert!(server.store().end_moderator(&anna.name()).await.unwrap());
    for tab in [&mut anna, &mut plain] {
        assert_eq!(tab.is_closed().await, Some(1000));
    }
    anna.reconnects().await;
    assert_eq!(anna.title(), "All groups");
}

#[tokio::test]
async fn repeating_a_moderation_disturbs_nobody() {
    let server = Server::start().await;
    let (_device, _anna, mut desk) = moderator(&server).await;
    let mut bob = server.tab_at("/chat/python/").await;
    let room = desk.room("python");
    desk.sends(
        "Rename group",
        json!({ "room": room, "groupName": "python" }),
    );
    desk.sends("Restrict group", json!({ "room": room, "on": false }));
    desk.does(
        "Mute",
        json!({ "userName": bob.name(), "on": true }),
        "notice",
        "muted",
    )
    .await;
    bob.hears_all().await;
    assert_eq!(server.count("audit_log"), 2);
}

#[tokio::test]
async fn the_admin_page_refuses_actions_of_rooms() {
    let server = Server::start().await;
    let (_device, anna, mut desk) = moderator(&server).await;
    let key = "6a3c8f8e-0d6a-4a53-9a52-2a3f6b1f1d11";
    let message = json!({ "message": "hello", "room": anna.room(), "key": key });
    let words = desk.is_refused("New message", message).await;
    assert!(words.contains("not available on this page"), "{words}");
    let notice = desk.page.the("notice").with("data-key").next().unwrap();
    assert_eq!(notice.attribute("data-key"), Some(key));
    for (action, data) in [
        (
            "Change group",
            json!({ "groupName": "hi", "isGroup": true }),
        ),
        ("New group", json!({ "groupName": "desk" })),
        ("Change name", json!({ "name": "Desk" })),
    ] {
        desk.is_refused(action, data).await;
    }
    assert_eq!(server.count("messages"), 0);
}

#[tokio::test]
async fn a_notification_leads_moderators_to_a_restricted_group() {
    let server = Server::start().await;
    let (_device, mut anna, mut desk) = moderator(&server).await;
    let (_other, mut bob, _) = moderator(&server).await;
    bob.sends("Set notifications", json!({ "on": true }));
    anna.enters_group("python").await;
    bob.enters_group("python").await;
    desk.restricts("python").await;
    for tab in [&mut anna, &mut bob] {
        tab.is_closed().await;
        tab.reconnects().await;
    }
    anna.says(&format!("@{}, look", bob.name())).await;
    let id = anna.messages()[0].id;
    bob.until("the notification", |tab| {
        !tab.page.the("notification").text().is_empty()
    })
    .await;
    let told = bob.page.the("notification").with("data-address").next();
    let address = told.unwrap().attribute("data-address");
    assert_eq!(address, Some(&*format!("/chat/%21python/?at={id}")));
}

#[tokio::test]
async fn a_message_sent_again_to_a_closed_room_settles_and_reveals_nothing() {
    let server = Server::start().await;
    let (_device, mut anna, mut desk) = moderator(&server).await;
    let mut bob = server.tab_at("/chat/python/").await;
    let room = bob.room();
    let key = bob.writes("before");
    bob.is_settled(&key).await;
    anna.enters_group("python").await;
    desk.restricts("python").await;
    for tab in [&mut anna, &mut bob] {
        tab.is_closed().await;
        tab.reconnects().await;
    }
    anna.sees("before").await;
    let reaction = json!({ "message": anna.messages()[0].id, "emoji": "🎉", "on": true });
    anna.sends("React", reaction);
    anna.hears_all().await;
    let mark = bob.pushes.len();
    let again = json!({ "message": "before", "room": room, "key": key });
    bob.sends("New message", again);
    bob.until("the key", |tab| {
        tab.pushes[mark..]
            .iter()
            .any(|push| push.html.contains(&key))
    })
    .await;
    let pushed = bob.pushes[mark..].iter().map(|push| &push.html);
    assert!(
        pushed
            .clone()
            .all(|html| !html.contains("before") && !html.contains('🎉'))
    );
}

#[tokio::test]
async fn a_muted_program_gets_a_notice() {
    let server = Server::start().await;
    let (_anna, _, mut desk) = moderator(&server).await;
    let (device, tab) = Device::of_somebody(&server).await;
    desk.does(
        "Mute",
        json!({ "userName": tab.name(), "on": true }),
        "notice",
        "muted",
    )
    .await;
    let cookie = ("Cookie".to_owned(), device.cookie.clone().unwrap());
    for path in ["/ws/chat/newone/", "/ws/newone/"] {
        let mut handshake = Handshake {
            path: Some(path.to_owned()),
            ..Handshake::default()
        };
        handshake.headers.push(cookie.clone());
        let mut wire = server.socket(&handshake).await.unwrap();
        let notice = soon("words", wire.next()).await;
        assert!(matches!(notice, Event::Text(text) if text.contains("has muted you")));
    }
    assert_eq!(server.count("rooms where name = 'newone'"), 0);
}

#[tokio::test]
async fn a_muted_person_with_a_plain_client_gets_a_plain_notice() {
    let server = Server::start().await;
    let (_device, _, mut desk) = moderator(&server).await;
    let mut plain = server.plain_tab().await;
    let mark = plain.pushes.len();
    let data = json!({ "userName": plain.name(), "on": true });
    desk.does("Mute", data, "notice", "muted").await;
    let words = "A moderator has muted you. You can read, but not write.";
    assert_eq!(plain.gets_notice_since(mark).await, words);
}

#[tokio::test]
async fn a_muted_person_gets_a_notice_and_can_still_read() {
    let server = Server::start().await;
    let (_device, mut anna, mut desk) = moderator(&server).await;
    let mut bob = server.tab().await;
    let b = bob.name();
    bob.says("before").await;
    let mark = bob.pushes.len();
    let mute = |on| json!({ "userName": b.to_uppercase(), "on": on });
    desk.does("Mute", mute(true), "notice", &format!("You muted {b}."))
        .await;
    desk.does(
        "Look for people",
        json!({ "text": b }),
        "moderation-people",
        "Unmute",
    )
    .await;
    let words = "A moderator has muted you. You can read, but not write.";
    assert_eq!(bob.gets_notice_since(mark).await, words);
    let room = bob.room();
    let key = "6a3c8f8e-0d6a-4a53-9a52-2a3f6b1f1d11";
    let message = bob.messages()[0].id;
    for (action, data) in [
        (
            "New message",
            json!({ "message": "after", "room": room, "key": key }),
        ),
        (
            "New message",
            json!({ "message": format!("/pm {} psst", anna.name()) }),
        ),
        (
            "Edit message",
            json!({ "message": message, "text": "x", "room": room }),
        ),
        (
            "React",
            json!({ "message": message, "emoji": "👍", "on": true, "room": room }),
        ),
        ("New group", json!({ "groupName": "bobs" })),
        ("Change name", json!({ "name": "Robert" })),
    ] {
        assert_eq!(bob.is_refused(action, data).await, words, "{action}");
    }
    bob.is_settled(key).await;
    bob.sends("Typing", json!({ "room": room }));
    bob.hears_all().await;
    anna.says("can you hear me?").await;
    bob.sees_exactly(&["before", "can you hear me?"]).await;
    let pushes = anna.pushes_to("room-typing", 0);
    assert!(pushes.iter().all(|push| push.html.is_empty()));
    // The same after coming back.
    bob.reconnects().await;
    let again = json!({ "message": "after", "room": bob.room() });
    assert_eq!(bob.is_refused("New message", again).await, words);
    desk.does("Mute", mute(false), "notice", &format!("You unmuted {b}."))
        .await;
    bob.says("after").await;
    anna.sees_exactly(&["before", "can you hear me?", "after"])
        .await;
    desk.until("it on record", |desk| {
        desk.text("moderation-log")
            .contains(&format!("unmuted {b}"))
    })
    .await;
}

#[tokio::test]
async fn a_banned_person_is_on_no_list() {
    let server = Server::start().await;
    let (_device, _anna, mut desk) = moderator(&server).await;
    let [mut bob, mut mal] = server.tabs().await;
    let m = mal.name();
    bob.until("mal", |tab| {
        tab.people("room-people").contains(&m) && tab.people("users-online").contains(&m)
    })
    .await;
    let ban = json!({ "userName": m, "on": true });
    desk.does("Ban", ban, "notice", &format!("You banned {m}."))
        .await;
    assert_eq!(mal.is_closed().await, Some(1008));
    // Nobody else seems to join or leave.
    bob.until("mal to be gone", |tab| {
        !tab.people("room-people").contains(&m) && !tab.people("users-online").contains(&m)
    })
    .await;
}

#[tokio::test]
async fn a_banned_person_is_disconnected_and_cannot_return() {
    let server = Server::start().await;
    let (_device, mut anna, mut desk) = moderator(&server).await;
    let (mut phone, mut bob) = Device::of_somebody(&server).await;
    let b = bob.name();
    let mut second = phone.tab("/chat/python/").await;
    let mut guest = server.tab().await;
    let g = guest.name();
    bob.says("spam").await;
    for name in [&b, &g] {
        let ban = json!({ "userName": name, "on": true });
        desk.does("Ban", ban, "notice", &format!("You banned {name}."))
            .await;
    }
    for tab in [&mut bob, &mut second, &mut guest] {
        assert_eq!(tab.is_closed().await, Some(1008));
        assert_eq!(tab.notice(), "A moderator has banned you.");
    }
    // Nobody returns as that user, and the password no longer works.
    let clients = server.count("clients");
    for tab in [&mut bob, &mut second, &mut guest] {
        is_turned_away(tab).await;
    }
    assert_eq!(server.count("clients"), clients);
    let fields = [("name", &*b), ("password", PASSWORD)];
    assert_eq!(phone.sends("/sign-in/", &fields).await.status, 401);
    anna.until("bob to be gone", |tab| {
        !tab.people("users-online").contains(&b) && !tab.page.the("room-people").text().contains(&b)
    })
    .await;
    // Neither a moderator nor oneself can be banned.
    let ban = json!({ "userName": anna.name(), "on": true });
    let words = desk.is_refused("Ban", ban).await;
    assert!(words.contains("cannot be moderated"), "{words}");
    let unban = json!({ "userName": b, "on": false });
    desk.does("Ban", unban, "notice", &format!("You unbanned {b}."))
        .await;
    phone.signs_in(&b).await;
    bob.cookie.clone_from(&phone.cookie);
    bob.reloads().await;
    assert_eq!(bob.name(), b);
}

/// It reconnects and gets nothing but the notice of the ban.
async fn is_turned_away(tab: &mut Tab) {
    tab.loses_the_network();
    let before = tab.pushes.len();
    tab.opens_socket().await;
    assert_eq!(tab.is_closed().await, Some(1008));
    let places = tab.pushes[before..].iter().map(|push| &*push.place);
    assert_eq!(places.collect::<Vec<_>>(), ["notice"]);
    assert_eq!(tab.notice(), "A moderator has banned you.");
}

#[tokio::test]
async fn a_banned_tab_stays_banned_until_it_is_unbanned() {
    let server = Server::start().await;
    let (_device, mut anna, mut desk) = moderator(&server).await;
    let mut mal = server.tab().await;
    let m = mal.name();
    mal.says("spam").await;
    anna.sees("spam").await;
    let ban = |on| json!({ "userName": m, "on": on });
    desk.does("Ban", ban(true), "notice", &format!("You banned {m}."))
        .await;
    assert_eq!(mal.is_closed().await, Some(1008));
    let left = format!(
        "select left_at from clients
         where user_id = (select id from users where name = '{m}')"
    );
    let (count, began) = (counts(&server), server.look(&left));
    for _ in 0..3 {
        is_turned_away(&mut mal).await;
    }
    mal.location = "/chat/python/".to_owned();
    is_turned_away(&mut mal).await;
    // None of these attempts made a client, and the token is good for another day.
    assert_eq!(counts(&server), count);
    assert!(server.look(&left) > began);
    for list in ["users-online", "room-people"] {
        anna.until("mal to be gone", |tab| !tab.people(list).contains(&m))
            .await;
    }
    // A browser without a token gets a new person.
    let mut fresh = server.tab().await;
    assert_ne!(fresh.name(), m);
    fresh.says("hello").await;

    desk.does("Ban", ban(false), "notice", &format!("You unbanned {m}."))
        .await;
    mal.reconnects().await;
    assert_eq!(mal.name(), m);
    mal.enters_group("hi").await;
    mal.says("sorry").await;
    anna.sees("sorry").await;
}

/// How many users, unused users and clients there are.
fn counts(server: &Server) -> [u64; 3] {
    [
        server.count("users"),
        server.count("users where arrived_at is null"),
        server.count("clients"),
    ]
}

#[tokio::test]
async fn a_moderators_group_cannot_be_seen_or_probed() {
    let server = Server::start().await;
    let (device, mut anna, mut desk) = moderator(&server).await;
    let mut bob = server.tab_at("/chat/python/").await;
    let mut plain = server.plain_tab().await;
    bob.says("in the open").await;
    plain.sends(
        "Change group",
        json!({ "groupName": "python", "isGroup": true }),
    );
    plain.sees("in the open").await;
    let (room, version) = (bob.room().unwrap(), bob.version().unwrap());
    desk.restricts("python").await;
    for tab in [&mut bob, &mut plain] {
        assert_eq!(tab.is_closed().await, Some(1000));
    }
    bob.reconnects().await;
    bob.until("the notice", |tab| {
        tab.notice() == "There is no group #python."
    })
    .await;
    assert_eq!(bob.title(), "All groups");
    anna.enters_group("!python").await;
    anna.says("among us").await;

    // By its id, name, address and messages: always the same answer as for a group that never
    // existed.
    let message = anna.messages()[0].id;
    let nowhere = "AAAAAAAAAAE".to_owned();
    let mut answers = Vec::new();
    for (room, name) in [(&room, "python"), (&nowhere, "nowhere")] {
        let mut replies = Vec::new();
        for (action, data) in [
            ("New message", json!({ "message": "x", "room": room })),
            ("Open message", json!({ "message": message, "room": room })),
            (
                "React",
                json!({ "message": message, "emoji": "👍", "on": true, "room": room }),
            ),
            (
                "Delete message",
                json!({ "message": message, "room": room }),
            ),
            (
                "Change group",
                json!({ "groupName": name, "isGroup": true }),
            ),
            (
                "Change group",
                json!({ "groupName": format!("!{name}"), "isGroup": true }),
            ),
        ] {
            replies.push(bob.is_refused(action, data).await.replace(name, "…"));
        }
        let page = server.get(&format!("/chat/{name}/")).await;
        replies.push(format!("{}", page.status));
        answers.push(replies);
    }
    assert_eq!(answers[0], answers[1]);
    let mut stranger = Tab::load(server.door, "/chat/hi/").await;
    let mut handshake = stranger.handshake();
    handshake.query = format!("?room={room}&after={version}&at=/chat/python/");
    stranger.opens_socket_with(&handshake).await;
    stranger
        .until("all groups", |tab| tab.title() == "All groups")
        .await;
    stranger.hears_all().await;
    assert!(stranger.texts().is_empty());
    let lists = bob.page.the("groups-list").text();
    assert!(!lists.contains("python"), "{lists}");
    // Making a group of that name makes a new one.
    bob.sends("New group", json!({ "groupName": "Python" }));
    bob.until("a group", |tab| {
        tab.title() == "#Python" && tab.room().is_some()
    })
    .await;
    assert_ne!(bob.room().unwrap(), room);
    // Moderators can tell the two apart, even in the page as it is loaded.
    let cookie = device.cookie.clone().unwrap();
    let headers = [("Cookie", cookie.as_str())];
    let page = server.get_with("/chat/!python/", &headers).await;
    assert!(page.status == 200 && page.body.contains("among us"));
    assert_eq!(server.get("/chat/!python/").await.status, 404);
    let mut other = device.tab("/chat/!python/").await;
    assert_eq!(other.room().unwrap(), room);
    other.sees("among us").await;
}

#[tokio::test]
async fn open_lists_show_groups_as_they_are_now() {
    let server = Server::start().await;
    let mut maker = server.tab().await;
    maker.sends("New group", json!({ "groupName": "zebras" }));
    maker.until("a group", |tab| tab.title() == "#zebras").await;
    let (_device, mut anna, desk) = moderator(&server).await;
    // The maker has left their group, the visitor is in it, and two people are in the lobby.
    maker.enters_group("hi").await;
    let mut visitor = server.tab_at("/chat/zebras/").await;
    let mut carl = server.tab_at("/chat/").await;
    let mut dora = server.tab_at("/chat/").await;
    for (tab, text, found) in [(&mut carl, "p", "python"), (&mut dora, "zeb", "zebras")] {
        tab.sends("Find groups", json!({ "text": text }));
        tab.until("what is sought", |tab| {
            tab.groups_in("lobby-found") == [found]
        })
        .await;
    }
    let searched = dora.pushes.len();
    let (room, zebras) = (desk.room("python"), desk.room("zebras"));
    let restrict = |on: bool| json!({ "room": room, "on": on });
    let rename = |room: &str, name: &str| json!({ "room": room, "groupName": name });

    desk.sends("Restrict group", restrict(true));
    let has = async |tab: &mut Tab, place: &str, names: &[&str]| {
        tab.until(&format!("{names:?} in {place}"), |tab| {
            tab.groups_in(place) == names
        })
        .await;
    };
    let others = ["hi", "events", "off-topic"];
    let and_zebras = ["hi", "events", "off-topic", "zebras"];
    has(&mut maker, "groups-list", &and_zebras).await;
    has(&mut visitor, "groups-list", &and_zebras).await;
    has(&mut carl, "groups-list", &others).await;
    has(&mut carl, "lobby-found", &[]).await;
    let said = carl.page.the("lobby-found").text();
    assert!(said.contains("No group name begins with"), "{said}");
    carl.until("no python among the busiest", |tab| {
        !tab.groups_in("lobby-rooms")
            .iter()
            .any(|name| name.contains("python"))
    })
    .await;
    has(
        &mut anna,
        "groups-list",
        &["hi", "events", "off-topic", "!python"],
    )
    .await;

    // Others get no news of what happens where they cannot look.
    desk.sends("Rename group", rename(&room, "pythons"));
    has(
        &mut anna,
        "groups-list",
        &["hi", "events", "off-topic", "!pythons"],
    )
    .await;

    desk.sends("Rename group", rename(&zebras, "Zebras and gnus"));
    has(
        &mut maker,
        "groups-list",
        &["hi", "events", "off-topic", "Zebras and gnus"],
    )
    .await;
    assert_eq!(visitor.is_closed().await, Some(1000));
    has(&mut dora, "lobby-found", &["Zebras and gnus"]).await;
    assert_eq!(dora.pushes_to("lobby-found", searched).len(), 1);
    desk.sends("Restrict group", restrict(false));
    has(&mut carl, "lobby-found", &["pythons"]).await;
    let all = ["hi", "pythons", "events", "off-topic"];
    has(&mut anna, "groups-list", &all).await;
    has(&mut carl, "groups-list", &all).await;
    desk.sends("Remove group", json!({ "room": zebras }));
    has(&mut maker, "groups-list", &all).await;
}

#[tokio::test]
async fn a_group_is_renamed_while_people_are_in_it_and_then_removed() {
    let server = Server::start().await;
    let (_device, _anna, mut desk) = moderator(&server).await;
    let mut bob = server.tab_at("/chat/python/").await;
    bob.says("hello").await;
    let room = desk.room("python");
    let rename = |name: &str| json!({ "room": room, "groupName": name });
    for (name, expected) in [
        ("", "letter or a digit"),
        ("events", "Another group has that name."),
        ("a/b", "but not “/”"),
    ] {
        let words = desk.is_refused("Rename group", rename(name)).await;
        assert!(words.contains(expected), "{words}");
    }
    desk.does(
        "Rename group",
        rename("Snakes"),
        "moderation-groups",
        "#Snakes",
    )
    .await;
    assert_eq!(bob.is_closed().await, Some(1000));
    bob.reconnects().await;
    assert_eq!(
        (bob.title(), &*bob.location),
        ("#Snakes".to_owned(), "/chat/Snakes/")
    );
    bob.sees_exactly(&["hello"]).await;
    assert_eq!(server.get("/chat/python/").await.status, 404);

    let hi = json!({ "room": desk.room("hi") });
    let words = desk.is_refused("Remove group", hi).await;
    assert!(words.contains("first group"), "{words}");
    desk.sends("Remove group", json!({ "room": room }));
    desk.until("the group to go", |desk| {
        !desk.text("moderation-groups").contains("Snakes")
    })
    .await;
    assert_eq!(bob.is_closed().await, Some(1000));
    bob.reconnects().await;
    assert_eq!(bob.title(), "All groups");
    assert_eq!(server.get("/chat/Snakes/").await.status, 404);
    desk.until("both on record", |desk| {
        let log = desk.text("moderation-log");
        log.contains("renamed #python to #Snakes") && log.contains("removed #Snakes")
    })
    .await;
}

#[tokio::test]
async fn a_moderator_deletes_any_message_and_restores_it() {
    let server = Server::start().await;
    let (_device, mut anna, mut desk) = moderator(&server).await;
    let mut bob = server.tab().await;
    let b = bob.name();
    bob.says("rude").await;
    bob.says("mine to delete").await;
    anna.sees("mine to delete").await;
    let (rude, own) = (bob.messages()[0].id, bob.messages()[1].id);
    // From the room itself.
    let data = |message: i64| json!({ "message": message, "room": anna.room() });
    let (rude_there, own_there) = (data(rude), data(own));
    anna.sends("Open message", rude_there.clone());
    anna.until("the way to delete it", |tab| {
        tab.page
            .the("message-form")
            .text()
            .contains("Delete as a moderator")
    })
    .await;
    anna.sends("Delete message", rude_there.clone());
    let line = format!("A moderator deleted a message of {b}.");
    for tab in [&mut anna, &mut bob] {
        tab.sees_exactly(&[&line, "mine to delete"]).await;
    }
    bob.sends("Delete message", own_there.clone());
    let own_line = format!("{b} deleted a message.");
    anna.sees_exactly(&[&line, &own_line]).await;

    // The admin page shows both, and one is restored.
    let room = desk.room("hi");
    desk.does(
        "Open group",
        json!({ "room": room }),
        "moderation-found",
        "rude",
    )
    .await;
    let found = desk.text("moderation-found");
    assert!(found.contains("mine to delete") && found.contains("deleted by its author"));
    assert_eq!(found.matches("Restore").count(), 1, "{found}");
    desk.sends("Restore message", json!({ "room": room, "message": rude }));
    bob.sees_exactly(&["rude", &own_line]).await;
    desk.until("the way to delete it", |desk| {
        desk.text(&format!("moderation-message-{rude}"))
            .contains("Delete")
    })
    .await;
    desk.sends("Delete message", json!({ "room": room, "message": rude }));
    bob.sees_exactly(&[&line, &own_line]).await;
    desk.until("the way to restore it", |desk| {
        desk.text(&format!("moderation-message-{rude}"))
            .contains("Restore")
    })
    .await;
    // Others cannot, and moderators cannot look into private rooms.
    let mut carl = server.tab().await;
    assert_eq!(
        carl.is_refused("Delete message", rude_there).await,
        "You can only change your own messages."
    );
    bob.opens_private(&carl.name()).await;
    bob.says("between us").await;
    let (private, message) = (bob.room(), bob.messages()[0].id);
    let words = desk
        .is_refused("Open group", json!({ "room": private }))
        .await;
    assert!(words.contains("Not found."), "{words}");
    let there = json!({ "room": private, "message": message });
    let words = desk.is_refused("Delete message", there).await;
    assert!(words.contains("This message does not exist"), "{words}");
    let look = json!({ "room": private, "words": "between" });
    desk.does(
        "Look for messages",
        look,
        "moderation-found",
        "No messages found",
    )
    .await;
}

#[tokio::test]
async fn moderators_see_files_and_restore_what_is_left_of_a_message() {
    let server = Server::start().await;
    let (_device, mut anna, mut desk) = moderator(&server).await;
    let mut bob = server.tab().await;
    for text in ["", "with a text"] {
        let file = bob.attaches("report.pdf", b"text").await;
        bob.sends(
            "New message",
            json!({ "message": text, "files": [file], "room": bob.room() }),
        );
    }
    anna.until("both", |tab| tab.messages().len() == 2).await;
    let room = desk.room("hi");
    let data = json!({ "room": room });
    desk.does("Open group", data, "moderation-found", "report.pdf")
        .await;
    let [alone, other] = [0, 1].map(|n| anna.messages()[n].id);
    for (message, left) in [(other, "Restore"), (alone, "deleted by a moderator")] {
        desk.sends(
            "Delete message",
            json!({ "room": room, "message": message }),
        );
        let row = format!("moderation-message-{message}");
        desk.until(left, |desk| desk.text(&row).contains(left))
            .await;
        assert!(!desk.text(&row).contains("report.pdf"));
    }
    desk.sends("Restore message", json!({ "room": room, "message": alone }));
    let data = json!({ "room": room, "message": other });
    desk.sends("Restore message", data);
    anna.sees("with a text").await;
    let row = desk.text(&format!("moderation-message-{alone}"));
    assert!(!row.contains("Restore"), "{row}");
    assert_eq!(
        anna.messages()[0].text,
        format!("A moderator deleted a message of {}.", bob.name())
    );
}

#[tokio::test]
async fn messages_are_searched_by_author_words_and_day() {
    let server = Server::start().await;
    let (_device, anna, mut desk) = moderator(&server).await;
    let mut bob = server.tab().await;
    for number in 0..60 {
        bob.says(&format!("number {number}")).await;
    }
    let room = desk.room("hi");
    desk.does(
        "Open group",
        json!({ "room": room }),
        "moderation-found",
        "number 59",
    )
    .await;
    assert!(!desk.text("moderation-found").contains("number 9\n"));
    let more = desk.page.the("moderation-found").all();
    let more = more
        .filter_map(|part| part.attribute("data-payload"))
        .find(|payload| payload.contains("before"));
    let more: Value = serde_json::from_str(more.expect("the way to older ones")).unwrap();
    desk.does("Look for messages", more, "moderation-found", "number 0")
        .await;
    let count = |desk: &Desk| {
        let place = desk.page.the("moderation-found");
        place.all().filter(|part| part.has_class("record")).count()
    };
    assert_eq!(count(&desk), 10);
    let b = bob.name();
    for (search, expected) in [
        (json!({ "words": "NUMBER 17" }), 1),
        (
            json!({ "author": format!("@{b}"), "words": "number 3" }),
            15,
        ),
        (json!({ "author": anna.name() }), 0),
        (json!({ "from": "2020-01-01", "until": "2020-12-31" }), 0),
        (json!({ "from": "2020-01-01", "words": "number 17" }), 1),
    ] {
        let mut data = search.clone();
        data["room"] = json!(room);
        desk.page.put("moderation-found", None, "");
        desk.sends("Look for messages", data);
        desk.until("an answer", |desk| {
            !desk.all("records").is_empty() && { !desk.text("moderation-found").is_empty() }
        })
        .await;
        assert_eq!(count(&desk), expected, "{search}");
    }
    for (key, bad) in [("from", "yesterday"), ("until", "2026-13-01")] {
        let words = desk.is_refused("Look for messages", json!({ "room": room, key: bad }));
        assert!(words.await.contains("Write the date like"));
    }
    for bad in [
        json!({}),
        json!({ "room": 1 }),
        json!({ "room": room, "before": "x" }),
        json!({ "room": room, "words": 1 }),
    ] {
        desk.is_refused("Look for messages", bad).await;
    }
}
