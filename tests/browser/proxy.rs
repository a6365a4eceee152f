//! The same behind a real Caddy.

use overwire::views::Static;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::browser::story_with;
use crate::caddy::Caddy;
use crate::server::Server;

async fn behind_caddy(arguments: &[&str]) -> (Server, Caddy) {
    let server = Server::start(&[&["--trusted-proxy", "127.0.0.1"], arguments].concat());
    let caddy = Caddy::in_front_of(&[server.address]).await;
    (server, caddy)
}

/// A request and its answer, after which the connection closes.
pub(crate) async fn ask(caddy: &Caddy, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(caddy.address).await.unwrap();
    let host = caddy.host();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A handshake and the first pushes. The socket stays open.
pub(crate) async fn knock(caddy: &Caddy, query: &str, headers: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(caddy.address).await.unwrap();
    let host = caddy.host();
    let request = format!(
        "GET /ws/chat/{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let is_said = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer).into_owned();
        let refused = !text.starts_with("HTTP/1.1 101") && text.contains("\r\n\r\n");
        refused || text.contains("logged-user") || text.contains("too many connections")
    };
    while !is_said(&answer) {
        let length = stream.read_buf(&mut answer).await.unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&answer));
    }
    (String::from_utf8_lossy(&answer).into_owned(), stream)
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case(name).then_some(value)
    })
}

#[tokio::test]
async fn the_page_and_its_files_are_compressed_and_cached_by_etag() {
    let (_server, caddy) = behind_caddy(&[]).await;
    let page = ask(&caddy, "/chat/hi/", "").await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert_eq!(header(&page, "cache-control"), Some("no-store"));
    assert!(header(&page, "content-security-policy").is_some());
    assert!(
        page.contains(&format!(
            "data-host=\"{}\" data-scheme=\"http\"",
            caddy.host()
        )),
        "{page}"
    );
    let compressed = ask(&caddy, "/chat/hi/", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(header(&compressed, "content-encoding"), Some("gzip"));

    let urls = page
        .split(['"', '\''])
        .filter(|part| part.starts_with("/static/"));
    let urls: Vec<_> = urls.collect();
    // All but the large icon, which only the manifest names, and the service worker.
    let files = Static::iter().filter(|path| Static::address("0", path).is_some());
    assert_eq!(urls.len(), files.count() - 2, "{urls:?}");
    for url in urls {
        let file = ask(&caddy, url, "Accept-Encoding: gzip\r\n").await;
        assert!(file.starts_with("HTTP/1.1 200"), "{url}: {file}");
        // In a debug build a file may change under its address; in a release it is `immutable`.
        let kept = if cfg!(debug_assertions) {
            "no-cache"
        } else {
            "public, max-age=31536000, immutable"
        };
        assert_eq!(header(&file, "cache-control"), Some(kept));
        let encoding = header(&file, "content-encoding");
        assert!(
            encoding == Some("gzip") || url.contains(".svg") || url.contains(".png"),
            "{url}: {encoding:?}"
        );
        let tag = header(&file, "etag").unwrap();
        let known = format!("If-None-Match: {tag}\r\nAccept-Encoding: gzip\r\n");
        let again = ask(&caddy, url, &known).await;
        assert!(again.starts_with("HTTP/1.1 304"), "{url}: {again}");
    }
}

#[tokio::test]
async fn a_socket_keeps_its_origin_and_address_and_no_token_is_logged() {
    let (server, caddy) = behind_caddy(&["--connections-per-address", "1"]).await;
    let foreign = "Origin: http://elsewhere.example\r\n";
    let (answer, _) = knock(&caddy, "", foreign).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    // What a client claims about itself is ignored.
    let (answer, _) = knock(
        &caddy,
        "",
        "Origin: http://elsewhere.example\r\nX-Forwarded-Host: elsewhere.example\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");

    let secret = "c2VjcmV0LXJlc3VtZS10b2tlbi0wMTIzNDU2Nzg5";
    let own = format!(
        "Origin: {}\r\nSec-WebSocket-Protocol: overwire.v1, resume.{secret}\r\n",
        caddy.origin()
    );
    let (answer, open) = knock(&caddy, "?at=/chat/@somebody/", &own).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert_eq!(
        header(&answer, "sec-websocket-protocol"),
        Some("overwire.v1")
    );
    assert!(
        answer.contains("I'm ") || answer.contains("logged-user"),
        "{answer}"
    );

    // One connection per address: this address is in use whatever a header says; another is free.
    let lie = format!("{own}X-Forwarded-For: 203.0.113.7\r\n");
    let (answer, _) = knock(&caddy, "", &lie).await;
    assert!(answer.contains("too many connections"), "{answer}");
    let mut direct = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /ws/chat/ HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         X-Forwarded-For: 203.0.113.7\r\n\r\n",
        server.address
    );
    direct.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("logged-user") {
        let length = direct.read_buf(&mut answer).await.unwrap();
        assert!(
            length > 0,
            "as another visitor of the proxy: {}",
            String::from_utf8_lossy(&answer)
        );
    }

    drop(open);
    caddy.logged(&["handled request", "/ws/chat/…"]).await;
    for log in [caddy.log(), server.log()] {
        assert!(!log.is_empty());
        assert!(!log.contains(secret) && !log.contains("resume."), "{log}");
        assert!(!log.contains("somebody"), "who writes to whom: {log}");
    }
}

#[tokio::test]
async fn two_people_talk_through_caddy_and_a_restart_behind_it() {
    let (mut server, caddy) = behind_caddy(&[]).await;
    let resolve = "--host-resolver-rules=MAP chat.localhost 127.0.0.1";
    story_with(&[resolve], async |browser| {
        let page = caddy.origin();
        let anna = browser.person(&format!("{page}/")).await;
        let bob = browser.person(&format!("{page}/chat/python/")).await;
        anna.is_in("#hi", "/chat/hi/").await;
        assert_eq!(anna.get::<String>("location.origin").await, page);
        anna.enters("python").await;
        anna.says("hello").await;
        bob.hears("hello").await;
        let (a, b) = (anna.name().await, bob.name().await);
        bob.meets(&a).await;
        bob.says("between us").await;
        anna.meets(&b).await;
        assert_eq!(anna.texts().await, ["between us"]);

        server.dies();
        anna.sees(".state__lost").await;
        anna.sends("written meanwhile").await;
        server.starts_again();
        bob.hears("written meanwhile").await;
        anna.is_settled().await;
        assert_eq!((anna.name().await, bob.name().await), (a, b));
    })
    .await;
    assert_eq!(server.stored("written meanwhile"), 1);
}
