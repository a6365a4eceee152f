//! The JSON sockets: bots and other front ends in the same rooms as the page.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::wire::{Event, Handshake, Wire};
use crate::support::{Server, soon, until};

/// A program connected to one of the sockets.
struct Program {
    wire: Wire,
    heard: Vec<Value>,
    closed: Option<Option<u16>>,
}

impl Program {
    async fn at(server: &Server, path: &str) -> Self {
        let wire = server.socket(&through(path)).await;
        let wire = wire.unwrap_or_else(|status| panic!("{path} was answered {status}"));
        assert_eq!(wire.protocol, None);
        Self {
            wire,
            heard: Vec::new(),
            closed: None,
        }
    }

    fn says(&self, message: &str) {
        self.wire.text(json!({ "message": message }).to_string());
    }

    fn line(&self, text: &str, sender: &str) {
        let line = json!({ "type": "message", "text": text, "sender": sender });
        self.wire.text(line.to_string());
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Text(text) => {
                let object: Value = serde_json::from_str(&text).unwrap();
                let keys: HashSet<_> = object.as_object().unwrap().keys().cloned().collect();
                if object.get("type").is_some() {
                    assert!(object["message"].is_string(), "{object}");
                } else {
                    let known = ["text", "sender"].map(str::to_owned);
                    assert_eq!(keys, HashSet::from(known), "{object}");
                }
                self.heard.push(object);
            }
            Event::Other(other) => panic!("{other}"),
            Event::Closed(code) => self.closed = Some(code),
        }
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            assert!(
                self.closed.is_none(),
                "closed before {what}: {:#?}",
                self.heard
            );
            let event = soon(what, self.wire.next()).await;
            self.take(event);
        }
    }

    /// Waits for an object that contains all these keys and values.
    async fn hears(&mut self, expected: Value) {
        let what = expected.to_string();
        self.until(&what, |program| {
            program.heard.iter().any(|object| {
                let keys = expected.as_object().unwrap().iter();
                keys.into_iter()
                    .all(|(key, value)| object.get(key) == Some(value))
            })
        })
        .await;
    }

    fn of_type(&self, kind: &str) -> Vec<&Value> {
        let heard = self.heard.iter();
        heard.filter(|object| object["type"] == kind).collect()
    }

    /// The texts of the messages of people that it has received.
    fn texts(&self) -> Vec<&str> {
        let messages = self.of_type("chat_message").into_iter();
        messages
            .filter(|object| object.get("tone").is_none())
            .filter_map(|object| object["message"].as_str())
            .collect()
    }

    /// The name it is listed under, from the first object it receives.
    async fn name(&mut self) -> String {
        self.until("the list", |program| {
            !program.of_type("user_list").is_empty()
        })
        .await;
        let list = self.of_type("user_list")[0];
        list["users"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }
}

#[tokio::test]
async fn a_program_replies_and_learns_of_replies() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let mut program = Program::at(&server, "/ws/chat/hi/").await;
    let line = Program::at(&server, "/ws/hi/").await;
    anna.says("who is there?").await;
    let original = anna.messages()[0].id;
    let reply = json!({ "message": "a program", "reply_to": original });
    program.wire.text(reply.to_string());
    program.hears(reply).await;
    let reply = json!({ "type": "message", "text": "another", "reply_to": original });
    line.wire.text(reply.to_string());
    let reply = json!({ "message": "another", "reply_to": original });
    program.hears(reply).await;
    anna.sees("another").await;
    let quotes = anna.page.root().with("data-quotes");
    assert_eq!(quotes.count(), 2);
    let text = json!({ "message": "a", "reply_to": "x" });
    program.wire.text(text.to_string());
    let words = "Invalid message. Send {\"message\": \"…\"}.";
    program.hears(refusal(words)).await;
}

/// What a program is sent when an action is refused.
fn refusal(words: &str) -> Value {
    json!({ "type": "chat_message", "user": "", "message": words, "tone": "refusal" })
}

fn through(path: &str) -> Handshake {
    Handshake {
        path: Some(path.to_owned()),
        ..Handshake::default()
    }
}

#[tokio::test]
async fn a_program_is_in_the_same_room_as_the_page() {
    let server = Server::start().await;
    let mut anna = server.tab_at("/chat/python/").await;
    let a = anna.name();
    anna.says("before").await;
    let mut bot = Program::at(&server, "/ws/chat/python/").await;
    bot.hears(json!({ "type": "chat_message", "user": a, "message": "before" }))
        .await;
    let b = bot.name().await;
    let list = bot.of_type("user_list")[0];
    assert_eq!(list["users"], json!([a, b]));
    assert_eq!(list["message"], json!(format!("Here: {a}, {b}.")));
    anna.until("the bot", |tab| {
        tab.people("room-people") == [a.clone(), b.clone()]
    })
    .await;

    bot.says("<b>I am</b> a bot");
    anna.sees("<b>I am</b> a bot").await;
    assert_eq!(anna.messages()[1].author, b);
    bot.hears(json!({ "type": "chat_message", "user": b, "message": "<b>I am</b> a bot" }))
        .await;
    anna.says("hello bot").await;
    bot.hears(json!({ "user": a, "message": "hello bot" }))
        .await;
    assert_eq!(bot.texts(), ["before", "<b>I am</b> a bot", "hello bot"]);
    for object in bot.of_type("chat_message") {
        let time = object["time"].as_str().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
        assert!(object["id"].is_i64() && object.get("edited").is_none());
    }

    // An edited message is sent again, and a deleted one as a quiet line.
    let id = bot.of_type("chat_message")[0]["id"].clone();
    anna.sends(
        "Edit message",
        json!({ "message": id, "text": "long before" }),
    );
    bot.hears(json!({
        "type": "chat_message", "id": id, "message": "long before", "edited": true, "user": a,
    }))
    .await;
    anna.sends("Delete message", json!({ "message": id }));
    bot.hears(json!({
        "type": "chat_message", "id": id, "message": format!("{a} deleted a message."),
        "deleted": true,
    }))
    .await;
    let mut late = Program::at(&server, "/ws/chat/python/").await;
    late.hears(json!({ "message": "hello bot" })).await;
    let gone = format!("{a} deleted a message.");
    assert_eq!(late.texts(), [&gone, "<b>I am</b> a bot", "hello bot"]);
}

#[tokio::test]
async fn a_program_that_knows_only_messages_can_show_a_refusal() {
    let server = Server::with(|setup| {
        setup.chat.pace_burst = 2;
        setup.chat.pace_per_second = Some(1);
    })
    .await;
    for path in ["/ws/chat/python/", "/ws/python/"] {
        let mut bot = Program::at(&server, path).await;
        bot.says(" ");
        bot.line(" ", "");
        for _ in 0..2 {
            bot.says("and on");
            bot.line("and on", "");
        }
        // In its own words, and as a message of nobody.
        let words = [
            "The message is empty.",
            "You are doing that too fast. Please wait a moment.",
        ];
        for (words, tone) in words.into_iter().zip(["refusal", "wait"]) {
            let expected = match path {
                "/ws/python/" => json!({ "text": words, "sender": "" }),
                _ => json!({ "type": "chat_message", "user": "", "message": words, "tone": tone }),
            };
            bot.hears(expected).await;
        }
        for object in bot.of_type("chat_message") {
            let keys = ["user", "message", "time"];
            let mut values = keys.iter().map(|key| &object[key]);
            assert!(values.all(Value::is_string), "{object}");
            assert_eq!(object.get("id").is_none(), object.get("tone").is_some());
        }
    }
}

#[tokio::test]
async fn programs_hear_who_joins_and_leaves() {
    let server = Server::start().await;
    let mut bot = Program::at(&server, "/ws/chat/hi/").await;
    let b = bot.name().await;
    bot.hears(json!({ "type": "user_join", "user": b, "message": format!("{b} joined") }))
        .await;
    let mut anna = server.tab().await;
    let a = anna.name();
    bot.hears(json!({ "type": "user_join", "user": a, "message": format!("{a} joined") }))
        .await;
    bot.hears(json!({ "type": "user_list", "users": [b, a] }))
        .await;
    anna.enters_group("python").await;
    bot.hears(json!({ "type": "user_leave", "user": a, "message": format!("{a} left") }))
        .await;
    bot.until("to be alone again", |bot| {
        bot.of_type("user_list").last().unwrap()["users"] == json!([b])
    })
    .await;
    // The page sees the program leave too.
    let mut carl = server.tab().await;
    drop(bot);
    let alone = [carl.name()];
    carl.until("the bot to have gone", |tab| {
        tab.people("room-people") == alone
    })
    .await;
}

#[tokio::test]
async fn connecting_creates_a_missing_group_in_any_script() {
    let server = Server::start().await;
    for (path, name) in [
        ("/ws/chat/Ny%20grupp/", "Ny grupp"),
        ("/ws/chat/%E6%9D%8E%E6%98%8E/", "李明"),
        ("/ws/%C3%BCbung/", "übung"),
        ("/ws/PYTHON/", "python"),
    ] {
        let bot = Program::at(&server, path).await;
        bot.says("x");
        bot.line("hello", "");
        until("the group", async || {
            server.count(&format!("rooms where name = '{name}'")) == 1
        })
        .await;
        let mut anna = server.tab_at("/chat/").await;
        anna.enters_group(name).await;
        anna.until("the bot to speak", |tab| {
            tab.texts()
                .iter()
                .any(|text| text == "hello" || text == "x")
        })
        .await;
    }
    assert_eq!(server.count("rooms"), 4 + 3);
    for (path, words) in [
        ("/ws/chat/a%2Fb/", "A group name can contain letters"),
        ("/ws/%00/", "A group name can contain letters"),
        (
            "/ws/chat/-/",
            "A group name must contain a letter or a digit.",
        ),
        (
            &format!("/ws/{}/", "x".repeat(65)),
            "A group name can have at most 64 characters.",
        ),
    ] {
        let mut bot = Program::at(&server, path).await;
        while bot.closed.is_none() {
            let event = soon("the end", bot.wire.next()).await;
            bot.take(event);
        }
        assert_eq!(bot.closed, Some(Some(1008)), "{path}");
        let said = &bot.heard[0];
        let said = said
            .get("text")
            .unwrap_or(&said["message"])
            .as_str()
            .unwrap();
        assert!(said.starts_with(words), "{path}: {said}");
    }
    assert_eq!(server.count("rooms"), 4 + 3);
    // A plain request makes no group.
    assert_eq!(server.get("/ws/chat/nothing/").await.status, 426);
    assert_eq!(server.count("rooms"), 4 + 3);
}

#[tokio::test]
async fn private_messages_go_both_ways_and_to_nobody_else() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let a = anna.name();
    let mut bot = Program::at(&server, "/ws/chat/python/").await;
    let b = bot.name().await;
    let mut outsider = Program::at(&server, "/ws/chat/python/").await;
    outsider.name().await;

    bot.says(&format!("/pm {a} just for you"));
    bot.hears(json!({
        "type": "private_message_delivered", "target": a, "message": "just for you",
    }))
    .await;
    anna.until("something unread", |tab| tab.unread_from(&b) == 1)
        .await;
    anna.opens_private(&b).await;
    anna.sees_exactly(&["just for you"]).await;
    anna.says("and for you").await;
    bot.hears(json!({ "type": "private_message", "user": a, "message": "and for you" }))
        .await;

    for (text, words) in [
        (
            "/pm nobody0 hello".to_owned(),
            "There is nobody named “nobody0”.".to_owned(),
        ),
        (
            format!("/pm {b} hello"),
            "That is you. Open a second tab to try a conversation.".to_owned(),
        ),
        (
            format!("/pm {a}"),
            "Nothing was sent. Use: /pm name message, for example /pm brenda82 hello".to_owned(),
        ),
        ("   ".to_owned(), "The message is empty.".to_owned()),
        (
            "x".repeat(4001),
            "The message has 4001 characters. The limit is 4000.".to_owned(),
        ),
    ] {
        bot.says(&text);
        bot.hears(refusal(&words)).await;
    }
    bot.wire.text("not json");
    bot.hears(refusal("Invalid message. Send {\"message\": \"…\"}."))
        .await;
    bot.wire.binary([1, 2, 3].as_slice());
    bot.hears(refusal("Binary frames are not supported.")).await;
    bot.says("/help");
    bot.until("help", |bot| {
        let notices = bot.of_type("notice").into_iter();
        notices
            .filter_map(|one| one["message"].as_str())
            .any(|words| words.contains("/pm"))
    })
    .await;

    bot.says("to all");
    outsider
        .hears(json!({ "type": "chat_message", "message": "to all" }))
        .await;
    assert_eq!(outsider.texts(), ["to all"]);
    assert!(!format!("{:?}", outsider.heard).contains("for you"));
    assert_eq!(server.count("messages"), 3);
}

#[tokio::test]
async fn the_lines_socket_knows_only_messages_and_senders() {
    let server = Server::start().await;
    let mut anna = server.tab_at("/chat/python/").await;
    let a = anna.name();
    anna.says("before").await;
    let mut one = Program::at(&server, "/ws/python/").await;
    one.hears(json!({ "text": "before", "sender": a })).await;
    let mut two = Program::at(&server, "/ws/python/").await;
    two.hears(json!({ "text": "before", "sender": a })).await;

    // A program gets the name it asks for, with a number if somebody else has it, and keeps it.
    one.line("I am one", "Max");
    one.line("still", "Max");
    one.hears(json!({ "text": "I am one", "sender": "Max" }))
        .await;
    two.line("so am I", "MAX");
    two.line("again", "MAX");
    for program in [&mut one, &mut two] {
        program
            .hears(json!({ "text": "again", "sender": "MAX-2" }))
            .await;
    }
    // Nobody can take another person's name this way.
    two.line("as anna", &a);
    two.hears(json!({ "text": "as anna", "sender": format!("{a}-2") }))
        .await;
    two.line("whoever I was", "");
    anna.sees("whoever I was").await;
    let said: Vec<_> = anna
        .messages()
        .into_iter()
        .map(|one| (one.author, one.text))
        .collect();
    let called = |n: usize| said[n].0.split(' ').next().unwrap();
    assert_eq!(
        said.iter()
            .map(|(_, text)| text.as_str())
            .collect::<Vec<_>>(),
        [
            "before",
            "I am one",
            "still",
            "so am I",
            "again",
            "as anna",
            "whoever I was"
        ]
    );
    assert_eq!(
        [called(0), called(1), called(2), called(3)],
        [a.as_str(), "Max", "Max", "MAX-2"]
    );
    assert!(said[5].0.starts_with(&format!("{a}-2 ")), "{}", said[5].0);
    anna.until("the names", |tab| {
        let people = tab.page.the("room-people").text();
        people.contains("Max") && people.contains(&format!("{a}-2"))
    })
    .await;

    // Refusals have no sender, and the refused lines are not stored.
    for (line, words) in [
        (
            json!({ "type": "message", "text": "" }),
            "The message is empty.",
        ),
        (
            json!({ "type": "join", "text": "x" }),
            "The type must be “message”.",
        ),
        (
            json!({ "type": "message", "text": "x", "sender": format!("{a} jr") }),
            &format!("The name “{a} jr” is taken, or is too similar to somebody else's name."),
        ),
        (
            json!({ "type": "message", "text": "x", "sender": "a\u{202e}b" }),
            "A name cannot contain invisible characters such as “U+202E”.",
        ),
        (
            json!("x"),
            "Invalid message. Send {\"type\": \"message\", \"text\": \"…\", \
             \"sender\": \"…\"}.",
        ),
    ] {
        one.wire.text(line.to_string());
        one.hears(json!({ "text": words, "sender": "" })).await;
    }
    assert_eq!(server.count("messages"), 7);
    // The page's own socket is not a room.
    let mut page = server.tab().await;
    page.says("by the page").await;
    assert_eq!(server.count("rooms where name = 'chat'"), 0);
}

#[tokio::test]
async fn a_slow_program_gets_everything_once_and_in_order() {
    let server = Server::with(|setup| {
        setup.unlimited();
        // Slow, but connected.
        setup.socket.drop_after = Duration::from_secs(600);
    })
    .await;
    server.tab().await.says("before").await;
    let mut slow = Program::at(&server, "/ws/chat/hi/").await;
    let mut lines = Program::at(&server, "/ws/hi/").await;
    lines.hears(json!({ "text": "before" })).await;
    let one = Program::at(&server, "/ws/chat/hi/").await;
    let two = Program::at(&server, "/ws/chat/hi/").await;
    slow.name().await;
    slow.wire.deaf(true);
    let padding = "x".repeat(3000);
    for n in 0..400 {
        let from = if n % 2 == 0 { &one } else { &two };
        from.says(&format!("{n} {padding}"));
    }
    until("all to be stored", async || server.count("messages") == 401).await;
    slow.wire.deaf(false);
    for program in [&mut slow, &mut lines] {
        program
            .until("all of it", |program| {
                let number = |object: &Value| {
                    let text = object.get("text").unwrap_or(&object["message"]).as_str();
                    text.is_some_and(|text| text.ends_with(&padding))
                };
                program.heard.iter().filter(|object| number(object)).count() >= 400
            })
            .await;
    }
    let order = |program: &Program| -> Vec<String> {
        let texts = program.heard.iter().filter_map(|object| {
            let text = object.get("text").unwrap_or(&object["message"]).as_str()?;
            text.strip_suffix(&padding).map(str::to_owned)
        });
        texts.collect()
    };
    let (by_one, by_two) = (order(&slow), order(&lines));
    assert_eq!(by_one.len(), 400, "nothing twice");
    assert_eq!(by_one, by_two, "the same order for everybody");
    assert_eq!(by_one.iter().collect::<HashSet<_>>().len(), 400);
}

#[tokio::test]
async fn what_a_program_says_is_formatted_on_the_page_only() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let mut program = Program::at(&server, "/ws/chat/hi/").await;
    program.says("**hello**");
    program.hears(json!({ "message": "**hello**" })).await;
    anna.sees("hello").await;
    let list = anna.page.the("messages-list");
    assert!(list.all().any(|part| part.name == "strong"));
}

#[tokio::test]
async fn a_reaction_is_not_sent_to_programs() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.says("one").await;
    let mut objects = Program::at(&server, "/ws/chat/hi/").await;
    objects.hears(json!({ "message": "one" })).await;
    let mut lines = Program::at(&server, "/ws/hi/").await;
    lines.hears(json!({ "text": "one" })).await;
    let (id, room) = (anna.messages()[0].id, anna.room());
    let data = json!({ "message": id, "emoji": "👍", "on": true, "room": room });
    anna.sends("React", data);
    let data = json!({ "message": id, "text": "uno", "room": room });
    anna.sends("Edit message", data);
    let data = json!({ "message": id, "emoji": "👍", "on": false, "room": room });
    anna.sends("React", data);
    anna.says("two").await;
    objects
        .until("the end", |program| program.texts().contains(&"two"))
        .await;
    assert_eq!(objects.texts(), ["one", "uno", "two"]);
    let expected = |text: &str| json!({ "text": text, "sender": anna.name() });
    lines.hears(expected("two")).await;
    let heard: Vec<_> = lines.heard.iter().collect();
    assert_eq!(
        heard,
        [&expected("one"), &expected("uno"), &expected("two")]
    );
}

#[tokio::test]
async fn limits_and_origin_checks_are_the_same_as_for_the_page() {
    let server = Server::alone(|setup| {
        setup.chat.pace_burst = 20;
        setup.chat.pace_per_second = Some(1);
    })
    .await;
    let mut handshake = through("/ws/chat/hi/");
    handshake
        .headers
        .push(("Origin".to_owned(), "https://elsewhere.example".to_owned()));
    assert_eq!(server.socket(&handshake).await.err(), Some(403));
    handshake.path = Some("/ws/hi/".to_owned());
    assert_eq!(server.socket(&handshake).await.err(), Some(403));
    let allowing = Server::with(|setup| {
        setup.access.allow_origins = vec!["https://elsewhere.example".to_owned()];
    })
    .await;
    assert!(allowing.socket(&handshake).await.is_ok());

    let mut bot = Program::at(&server, "/ws/hi/").await;
    for n in 0..200 {
        bot.line(&format!("{n}"), "");
    }
    let words = "You are doing that too fast. Please wait a moment.";
    bot.hears(json!({ "text": words, "sender": "" })).await;
    bot.until("an answer to each", |bot| bot.heard.len() >= 200)
        .await;
    let refused = bot.heard.iter().filter(|one| one["text"] == words).count() as u64;
    assert_eq!(server.count("messages") + refused, 200);
}

#[tokio::test]
async fn a_private_message_reaches_even_a_slow_program() {
    let server = Server::alone(|setup| {
        setup.unlimited();
        // Slow, but connected.
        setup.socket.drop_after = Duration::from_secs(600);
    })
    .await;
    let mut slow = Program::at(&server, "/ws/chat/hi/").await;
    let name = slow.name().await;
    let mut anna = server.tab().await;
    slow.wire.deaf(true);
    let padding = "x".repeat(3900);
    for _ in 0..400 {
        anna.writes(&padding);
    }
    let key = anna.writes(&format!("/pm {name} are you there?"));
    anna.is_settled(&key).await;
    slow.wire.deaf(false);
    let message =
        json!({ "type": "private_message", "message": "are you there?", "user": anna.name() });
    slow.hears(message).await;
}
