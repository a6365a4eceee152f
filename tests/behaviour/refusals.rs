//! What is refused, and how that is said: only to that tab, in words, with the socket open. And the
//! few things that close a socket.

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::StreamExt as _;
use overwire::web::Access;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::support::wire::Handshake;
use crate::support::{Server, Tab, soon};

const NO_SUCH_ROOM: &str = "There is no such room.";

#[tokio::test]
async fn a_bad_frame_is_refused_and_nothing_else_happens() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    anna.says("before").await;
    bob.sees("before").await;
    let shape = "Invalid message. Send {\"action\": \"…\", \"data\": {…}}.";
    let long = "x".repeat(4_001);
    let too_long = json!({ "action": "New message", "data": { "message": long } }).to_string();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (frame, expected) in [
        ("", shape),
        ("hello", shape),
        ("{", shape),
        ("[]", shape),
        ("null", shape),
        ("\"Ping\"", shape),
        (&deep, shape),
        (r#"{"data": {}}"#, shape),
        (r#"{"action": 7}"#, shape),
        (r#"{"Action": "Ping"}"#, shape),
        (r#"{"action": ""}"#, "There is no action “”."),
        (r#"{"action": "ping"}"#, "There is no action “ping”."),
        (
            r#"{"action": "new message", "data": {"message": "x"}}"#,
            "There is no action “new message”.",
        ),
        (
            r#"{"action": "change group", "data": {}}"#,
            "There is no action “change group”.",
        ),
        (
            r#"{"action": "<b>x</b>"}"#,
            "There is no action “<b>x</b>”.",
        ),
        (
            r#"{"action": "Ping", "data": []}"#,
            "The data of “Ping” must be an object.",
        ),
        (r#"{"action": "New message"}"#, "“message” is missing."),
        (
            r#"{"action": "New message", "data": {"Message": "x"}}"#,
            "“message” is missing.",
        ),
        (
            r#"{"action": "New message", "data": {"message": null}}"#,
            "“message” must be a string.",
        ),
        (
            r#"{"action": "New message", "data": {"message": ["x"]}}"#,
            "“message” must be a string.",
        ),
        (
            r#"{"action": "New message", "data": {"message": ""}}"#,
            "The message is empty.",
        ),
        (
            r#"{"action": "New message", "data": {"message": " \n\t\u200b "}}"#,
            "The message is empty.",
        ),
        (
            &too_long,
            "The message has 4001 characters. The limit is 4000.",
        ),
        (
            r#"{"action": "New message", "data": {"message": "x", "key": "1"}}"#,
            "“key” must be a UUID.",
        ),
        (
            r#"{"action": "New message", "data": {"message": "x", "key": 1}}"#,
            "“key” must be a UUID.",
        ),
        (
            r#"{"action": "New message", "data": {"message": "x", "room": 1}}"#,
            "“room” must be a string.",
        ),
        (
            r#"{"action": "New message", "data": {"message": "x", "room": "hi"}}"#,
            NO_SUCH_ROOM,
        ),
        (
            r#"{"action": "New message", "data": {"message": "x", "room": ""}}"#,
            NO_SUCH_ROOM,
        ),
        (
            r#"{"action": "New message", "data": {"message": "x", "room": "AAAAAAAAAAE"}}"#,
            NO_SUCH_ROOM,
        ),
        (
            r#"{"action": "Change group", "data": {"groupName": "python"}}"#,
            "“isGroup” is missing.",
        ),
        (
            r#"{"action": "Change group", "data": {"isGroup": true}}"#,
            "“groupName” is missing.",
        ),
        (
            r#"{"action": "Change group", "data": {"groupName": "python", "isGroup": "true"}}"#,
            "“isGroup” must be true or false.",
        ),
        (
            r#"{"action": "Change group", "data": {"groupName": 7, "isGroup": true}}"#,
            "“groupName” must be a string.",
        ),
        (
            r##"{"action": "Change group", "data": {"groupName": "#python", "isGroup": true}}"##,
            "There is no group ##python.",
        ),
        (
            r#"{"action": "Older messages", "data": {}}"#,
            "“before” is missing.",
        ),
        (
            r#"{"action": "Older messages", "data": {"before": "1"}}"#,
            "“before” must be the id of a message.",
        ),
        (
            r#"{"action": "Older messages", "data": {"before": 1, "room": "?"}}"#,
            NO_SUCH_ROOM,
        ),
        (r#"{"action": "Read", "data": {}}"#, "“message” is missing."),
        (
            r#"{"action": "Read", "data": {"message": 1e99}}"#,
            "“message” must be the id of a message.",
        ),
        (
            r#"{"action": "Find people", "data": {}}"#,
            "“text” is missing.",
        ),
    ] {
        let words = anna.is_refused_frame(frame).await;
        assert_eq!(words, expected, "{frame:.200}");
        assert_eq!(anna.title(), "#hi");
    }
    let mark = anna.pushes.len();
    anna.wire().binary(&b"{\"action\": \"Ping\"}"[..]);
    let words = anna.gets_notice_since(mark).await;
    assert_eq!(words, "Binary frames are not supported.");

    bob.hears_all().await;
    assert!(bob.pushes_to("notice", 0).is_empty(), "it is nobody else's");
    assert_eq!(bob.texts(), ["before"]);
    assert_eq!(server.count("messages"), 1);
    anna.says("and on").await;
    bob.sees("and on").await;
}

#[tokio::test]
async fn the_longest_message_is_not_too_long() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    // Characters count, not bytes.
    let text = "ä".repeat(3_999) + "👋";
    anna.says(&text).await;
    bob.sees(&text).await;
}

#[tokio::test]
async fn unknown_keys_are_ignored() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let text = json!({ "action": "New message", "more": 1, "data": { "message": "x", "y": [] } });
    anna.wire().text(text.to_string());
    anna.sees("x").await;
}

/// A masked frame as a browser sends it: the first byte, then the payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..126) => bytes.push(0x80 | short as u8),
        Ok(length) => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    // A mask of zeros leaves the payload unchanged.
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

#[tokio::test]
async fn a_broken_stream_is_closed_with_the_code_for_it() {
    let server = Server::start().await;
    let mut bob = server.tab().await;
    for (what, bytes, code) in [
        ("bad UTF-8", frame(0x81, b"\xff\xfe"), 1007),
        (
            "half a character",
            frame(0x81, b"{\"action\": \"\xe2\x82"),
            1007,
        ),
        ("too big", frame(0x81, &vec![b' '; 65_537]), 1009),
        (
            "too big, it says",
            vec![0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            1009,
        ),
        ("no mask", vec![0x81, 0x02, b'{', b'}'], 1002),
        ("an unknown opcode", frame(0x83, b""), 1002),
        ("a reserved bit", frame(0xa1, b"{}"), 1002),
        ("a long ping", frame(0x89, &[0; 126]), 1002),
        ("half a ping", frame(0x09, b""), 1002),
        ("a continuation of nothing", frame(0x80, b""), 1002),
        (
            "a text inside a text",
            [frame(0x01, b"{"), frame(0x81, b"}")].concat(),
            1002,
        ),
        ("a close of one byte", frame(0x88, &[3]), 1002),
        ("a close of no code there is", frame(0x88, &[0, 5]), 1002),
    ] {
        let mut anna = server.tab().await;
        anna.wire().raw(bytes);
        assert_eq!(anna.is_closed().await, Some(code), "{what}");
        let name = anna.name();
        anna.connects().await;
        assert_eq!(anna.name(), name, "{what}: nobody is lost by it");
        anna.closes().await;
    }
    bob.says("nobody else notices").await;
}

#[tokio::test]
async fn a_fragmented_text_of_the_largest_size_is_read() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let text = br#"{"action": "New message", "data": {"message": "in pieces"}}"#;
    let pieces = [
        frame(0x01, &text[..20]),
        frame(0x89, b"a ping between"),
        frame(0x00, &text[20..50]),
        frame(0x80, &text[50..]),
    ];
    anna.wire().raw(pieces.concat());
    anna.sees("in pieces").await;
    let mut spaces = br#"{"action": "Ping"}"#.to_vec();
    spaces.resize(65_536, b' ');
    anna.wire().raw(frame(0x81, &spaces));
    anna.until("an answer", |tab| {
        !tab.pushes_to("connection", 0).is_empty()
    })
    .await;
}

#[tokio::test]
async fn only_the_newest_of_many_pings_is_answered() {
    let server = Server::start().await;
    let stream = TcpStream::connect(server.door.0).await.unwrap();
    let url = format!("ws://{}/ws/chat/", server.door.0);
    let (mut socket, _) = soon("the handshake", client_async(url, stream))
        .await
        .unwrap();
    soon("a greeting", socket.next()).await.unwrap().unwrap();
    // So few bytes written at once arrive at once.
    let at_once = [
        frame(0x89, b"one"),
        frame(0x89, b"two"),
        frame(0x89, b"three"),
        frame(0x81, br#"{"action": "Nothing"}"#),
    ];
    let stream = socket.get_mut();
    stream.write_all(&at_once.concat()).await.unwrap();
    let mut pongs = Vec::new();
    loop {
        match soon("a refusal", socket.next()).await.unwrap().unwrap() {
            Message::Pong(payload) => pongs.push(payload),
            Message::Text(push) if push.contains("There is no action") => break,
            _ => {}
        }
    }
    assert_eq!(pongs, ["three"]);
}

#[tokio::test]
async fn too_many_actions_are_refused_and_work_a_moment_later() {
    let server = Server::with(|setup| {
        setup.chat.pace_burst = 5;
        setup.chat.pace_per_second = Some(20);
    })
    .await;
    let [mut anna, mut bob] = server.tabs().await;
    let keys: Vec<_> = (0..30)
        .map(|number| anna.writes(&number.to_string()))
        .collect();
    for key in &keys {
        anna.is_settled(key).await;
    }
    assert_eq!(
        anna.notice(),
        "You are doing that too fast. Please wait a moment."
    );
    let seen = anna.texts();
    assert!((5..30).contains(&seen.len()), "{seen:?}");
    assert_eq!(server.count("messages"), seen.len() as u64);
    bob.says("I have a pace of my own").await;

    // A message that is already stored is not refused when sent again.
    let stored = anna.messages().into_iter().find_map(|one| one.key).unwrap();
    let mark = anna.pushes.len();
    for _ in 0..30 {
        anna.sends("New message", json!({ "message": "again", "key": stored }));
    }
    let about_it = |tab: &Tab| -> Vec<String> {
        let pushes = tab.pushes[mark..].iter();
        let about_it = pushes.filter(|push| push.html.contains(&stored));
        about_it.map(|push| push.place.clone()).collect()
    };
    anna.until("an answer to each", |tab| about_it(tab).len() == 30)
        .await;
    let places = about_it(&anna);
    assert!(!places.contains(&"notice".to_owned()), "{places:?}");

    // Refused frames count towards the limit too; marking as read does not.
    for _ in 0..30 {
        anna.wire().text("nonsense");
        anna.sends("Read", json!({ "message": 1 }));
    }
    anna.until("the pace", |tab| {
        tab.notice().starts_with("You are doing that too fast")
    })
    .await;
    let mark = anna.pushes.len();
    let answered = async {
        while anna.pushes_to("connection", mark).is_empty() {
            let before = anna.pushes.len();
            anna.sends("Ping", json!({}));
            anna.until("an answer", |tab| {
                let fresh = &tab.pushes[before..];
                fresh
                    .iter()
                    .any(|push| ["connection", "notice"].contains(&push.place.as_str()))
            })
            .await;
        }
    };
    super::support::soon("the bucket to fill", answered).await;
}

#[tokio::test]
async fn completing_words_counts_towards_the_limit() {
    let server = Server::with(|setup| {
        setup.chat.pace_burst = 5;
        setup.chat.pace_per_second = Some(1);
    })
    .await;
    let mut anna = server.tab().await;
    for letter in 'a'..='z' {
        anna.sends("Complete", json!({ "text": letter.to_string() }));
    }
    anna.until("the pace", |tab| {
        tab.notice().starts_with("You are doing that too fast")
    })
    .await;
}

#[tokio::test]
async fn one_connection_too_many_from_an_address_is_closed_with_a_reason() {
    let server = Server::alone(|setup| setup.access.connections_per_address = Some(2)).await;
    let [mut anna, bob] = server.tabs().await;
    let mut carol = Tab::load(server.door, "/chat/hi/").await;
    carol.opens_socket().await;
    assert_eq!(carol.is_closed().await, Some(1008));
    assert_eq!(
        carol.notice(),
        "There are too many connections from your address."
    );
    assert_eq!(carol.pushes.len(), 1, "nobody was claimed");
    assert_eq!(server.people_here().len(), 2);
    anna.says("we stay").await;
    bob.closes().await;
    super::support::until("a place to be free", async || {
        let mut tab = Tab::load(server.door, "/chat/hi/").await;
        tab.opens_socket().await;
        tab.until("an answer", |tab| !tab.pushes.is_empty()).await;
        tab.name() != "nobody"
    })
    .await;
}

/// Whether the server closes a connection before reading from it.
async fn is_refused(stream: &mut TcpStream) -> bool {
    let read = soon("the end", stream.read(&mut [0; 1])).await;
    !matches!(read, Ok(1..))
}

/// Whether a request is answered.
async fn is_answered(stream: &mut TcpStream) -> bool {
    let request = b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n";
    let mut answer = [0; 15];
    let asked = async {
        stream.write_all(request).await?;
        stream.read_exact(&mut answer).await
    };
    soon("an answer", asked).await.is_ok() && answer.starts_with(b"HTTP/1.1 200 OK")
}

#[tokio::test]
async fn idle_connections_without_a_request_are_limited_too() {
    let server = Server::alone(|setup| setup.access.connections_per_address = Some(1)).await;
    let mut anna = server.tab().await;
    let connect = async || TcpStream::connect(server.door.0).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(connect().await);
    }
    assert!(is_refused(&mut silent[39]).await);
    assert!(is_answered(&mut silent[0]).await, "there was room for that");
    anna.says("I stay").await;
    drop(silent);
    super::support::until("a place to be free", async || {
        is_answered(&mut connect().await).await
    })
    .await;
}

#[tokio::test]
async fn the_connections_of_a_trusted_proxy_are_not_counted_as_its_own() {
    let server = Server::alone(|setup| {
        setup.access.connections_per_address = Some(1);
        setup.trusts_its_proxy();
    })
    .await;
    let mut kept = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(server.door.0).await.unwrap();
        assert!(is_answered(&mut stream).await);
        kept.push(stream);
    }
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_dropped() {
    let server =
        Server::alone(|setup| setup.access.stalled_after = Duration::from_millis(300)).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream = socket.connect(server.door.0).await.unwrap();
    let requests = b"GET /chat/hi/ HTTP/1.1\r\nHost: here\r\n\r\n".repeat(100);
    let dropped = async {
        // Send until the server neither reads nor is connected.
        loop {
            stream.writable().await.unwrap();
            match stream.try_write(&requests) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => break error.kind(),
                _ => {}
            }
        }
    };
    let how = soon("the connection to be dropped", dropped).await;
    assert!(matches!(
        how,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    ));
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_browser_has_its_own_address() {
    let server = Server::alone(|setup| {
        setup.access.connections_per_address = Some(1);
        setup.access.trusted_proxies =
            vec!["127.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
    })
    .await;
    let from = async |forwarded: &str| {
        let mut tab = Tab::load(server.door, "/chat/hi/").await;
        let mut handshake = tab.handshake();
        let header = ("X-Forwarded-For".to_owned(), forwarded.to_owned());
        handshake.headers.push(header);
        tab.opens_socket_with(&handshake).await;
        tab.until("an answer", |tab| !tab.pushes.is_empty()).await;
        tab
    };
    let anna = from("203.0.113.1").await;
    let bob = from("203.0.113.2").await;
    assert_ne!(anna.name(), "nobody");
    assert_ne!(bob.name(), "nobody");
    // What a browser claims in front of its proxy is ignored.
    let mut carol = from("198.51.100.7, 203.0.113.1").await;
    assert_eq!(carol.is_closed().await, Some(1008));
    // A household shares the first half of an IPv6 address.
    let dora = from("2001:db8::1").await;
    assert_ne!(dora.name(), "nobody");
    let mut emil = from("2001:db8::2").await;
    assert_eq!(emil.is_closed().await, Some(1008));
    let frida = from("2001:db8:0:1::1").await;
    assert_ne!(frida.name(), "nobody");
}

#[tokio::test]
async fn without_a_trusted_proxy_a_forwarded_address_is_not_believed() {
    let server = Server::alone(|setup| setup.access.connections_per_address = Some(1)).await;
    let _anna = server.tab().await;
    let mut bob = Tab::load(server.door, "/chat/hi/").await;
    let mut handshake = bob.handshake();
    let header = ("X-Forwarded-For".to_owned(), "203.0.113.2".to_owned());
    handshake.headers.push(header);
    bob.opens_socket_with(&handshake).await;
    assert_eq!(bob.is_closed().await, Some(1008));
}

#[tokio::test]
async fn a_client_that_answers_no_pings_is_dropped() {
    let server = Server::with(|setup| {
        // Long enough for a busy machine to answer, short enough to wait for.
        setup.socket.ping_after = Duration::from_millis(1_500);
        setup.socket.drop_after = Duration::from_millis(4_500);
    })
    .await;
    let [mut anna, bob] = server.tabs().await;
    bob.goes_deaf(true);
    server.has_noticed_leaving(&[bob.name()]).await;
    assert_eq!(server.people_here(), [anna.name()]);
    anna.says("I only listened").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_is_dropped_without_delaying_others() {
    let server = Server::alone(|setup| {
        setup.unlimited();
        setup.socket.drain_within = Duration::from_millis(500);
    })
    .await;
    let [mut anna, mut bob] = server.tabs().await;
    bob.stops_reading().await;
    for number in 0..300 {
        anna.says(&format!("{number}{}", "x".repeat(3_900))).await;
    }
    server.has_noticed_leaving(&[bob.name()]).await;
    anna.says("goes on").await;
    bob.goes_deaf(false);
    bob.is_closed().await;
    bob.connects().await;
    bob.sees("goes on").await;
    assert_eq!(bob.version(), anna.version());
}

/// The status of an upgrade request with these headers.
async fn knocks(server: &Server, headers: &[(&str, &str)]) -> u16 {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let handshake = Handshake {
        headers: headers.iter().map(owned).collect(),
        ..Handshake::default()
    };
    match server.socket(&handshake).await {
        Ok(_) => 101,
        Err(status) => status,
    }
}

#[tokio::test]
async fn only_pages_of_our_own_origin_may_connect() {
    let server = Server::with(|setup| {
        setup.access.allow_origins = vec!["https://friend.example".to_owned()];
    })
    .await;
    let own = server.door.0;
    for (origin, status) in [
        (format!("http://{own}"), 101),
        (format!("HTTP://{own}"), 101),
        ("https://friend.example".to_owned(), 101),
        (format!("https://{own}"), 403),
        ("http://127.0.0.1".to_owned(), 403),
        (format!("http://localhost:{}", own.port()), 403),
        ("https://evil.example".to_owned(), 403),
        (format!("http://{own}.evil.example"), 403),
        (format!("http://evil.example/http://{own}"), 403),
        ("https://friend.example.evil.example".to_owned(), 403),
        ("http://friend.example".to_owned(), 403),
        ("null".to_owned(), 403),
        (String::new(), 403),
    ] {
        assert_eq!(
            knocks(&server, &[("Origin", &origin)]).await,
            status,
            "{origin}"
        );
    }
    assert_eq!(knocks(&server, &[]).await, 101, "a program, not a page");
    // Anybody who may set these headers could claim anything.
    let forwarded = [
        ("Origin", "https://evil.example"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "https"),
    ];
    assert_eq!(knocks(&server, &forwarded).await, 403);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_origin_is_what_the_browser_sees() {
    let server = Server::with(|setup| {
        setup.access = Access {
            trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
            ..Access::default()
        };
    })
    .await;
    for (origin, status) in [
        ("https://chat.example", 101),
        ("http://chat.example", 403),
        ("https://chat.example:8443", 403),
        ("https://evil.example", 403),
    ] {
        let headers = [
            ("Origin", origin),
            ("X-Forwarded-Host", "chat.example"),
            ("X-Forwarded-Proto", "https"),
        ];
        assert_eq!(knocks(&server, &headers).await, status, "{origin}");
    }
}
