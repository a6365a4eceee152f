//! What is answered over HTTP: the page as it is first rendered, its files, its addresses, and its
//! security headers.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use overwire::views::Static;

use crate::support::page::Page;
use crate::support::{Answer, Server};

const PROMISED: [&str; 10] = [
    "logged-user",
    "group-name",
    "messages-list",
    "aside",
    "groups-list",
    "users-list",
    "notice",
    "connection",
    "main",
    "message-text",
];

#[tokio::test]
async fn a_group_is_rendered_with_its_newest_messages() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    anna.enters_group("python").await;
    anna.says("in the first paint").await;
    let answer = server.get("/chat/python/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let page = Page::parse(&answer.body);
    assert_eq!(page.messages(), anna.messages());
    assert_eq!(page.the("group-name").text().trim(), "#python");
    let list = page.the("messages-list");
    assert_eq!(list.attribute("data-room"), anna.room().as_deref());
    assert_eq!(list.attribute("data-version"), anna.version().as_deref());
    assert_eq!(list.attribute("role"), Some("log"));
}

#[tokio::test]
async fn every_promised_id_is_in_the_page_exactly_once() {
    let server = Server::start().await;
    for path in [
        "/chat/hi/",
        "/chat/nowhere/",
        "/chat/@nobody/",
        "/nothing/at/all",
    ] {
        let page = Page::parse(&server.get(path).await.body);
        assert_eq!(page.doubled_ids(), [""; 0], "{path}");
        for id in PROMISED.into_iter().chain(["send"]) {
            page.the(id);
        }
        let aside = page.the("aside");
        for id in ["groups-list", "users-list"] {
            assert!(aside.all().any(|inner| inner.id() == Some(id)), "{id}");
        }
        let mut bodies = page.root().with("data-host");
        let body = bodies.next().unwrap();
        assert_eq!(body.name, "body");
        assert_eq!(
            body.attribute("data-host"),
            Some(server.door.0.to_string().as_str())
        );
        assert_eq!(body.attribute("data-scheme"), Some("http"));
    }
}

#[tokio::test]
async fn nothing_in_the_page_is_inline_and_nothing_comes_from_elsewhere() {
    let server = Server::start().await;
    let page = Page::parse(&server.get("/chat/hi/").await.body);
    for element in page.root().all() {
        for (name, value) in element.attributes() {
            assert!(!name.starts_with("on") && name != "style", "{name}={value}");
            if ["src", "href", "action"].contains(&name) {
                let own =
                    value.starts_with('#') || (value.starts_with('/') && !value.starts_with("//"));
                assert!(own, "{name}={value}");
            }
        }
        if element.name == "script" {
            assert!(element.attribute("src").is_some());
            assert_eq!(element.text().trim(), "");
        }
        assert_ne!(element.name, "style");
        let zoom = element.attribute("content").unwrap_or_default();
        assert!(!zoom.contains("user-scalable") && !zoom.contains("maximum-scale"));
    }
}

#[tokio::test]
async fn a_private_address_gives_nothing_away() {
    let server = Server::start().await;
    let [mut anna, bob] = server.tabs().await;
    anna.opens_private(&bob.name()).await;
    anna.says("secret").await;
    let there = server.get(&format!("/chat/@{}/", bob.name())).await;
    let not_there = server.get("/chat/@nobody123/").await;
    assert_eq!(there.status, 200);
    // A page differs only in its address and in the key of its form.
    let body = |body: &str, name: &str| {
        let mark = "name=\"key\" value=\"";
        let (before, after) = body.split_once(mark).unwrap();
        let (_, after) = after.split_once('"').unwrap();
        format!("{before}{after}").replace(name, "somebody")
    };
    let shown = body(&there.body, &bob.name());
    assert_eq!(shown, body(&not_there.body, "nobody123"));
    assert_eq!(not_there.status, 200);
    let page = Page::parse(&there.body);
    assert_eq!(page.the("messages-list").attribute("data-room"), Some(""));
    assert_eq!(page.messages(), []);
}

#[tokio::test]
async fn a_missing_page_is_a_404_with_a_page() {
    let server = Server::start().await;
    for path in [
        "/chat/nowhere/",
        "/nothing",
        "/chat/a/b/",
        "/chat/%ff/",
        "/favicon.ico",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        Page::parse(&answer.body).the("main");
    }
    let answer = server.get("/chat/%3Cb%3Enowhere/").await;
    let page = Page::parse(&answer.body);
    assert!(
        page.the("notice")
            .text()
            .contains("There is no group #<b>nowhere.")
    );
}

#[tokio::test]
async fn the_root_redirects_to_the_first_group() {
    let server = Server::start().await;
    let answer = server.get("/").await;
    assert_eq!(answer.status, 307);
    assert_eq!(answer.header("location"), Some("/chat/hi/"));
    let answer = server.get("/chat/off-topic").await;
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some("/chat/off-topic/"));
}

#[tokio::test]
async fn extra_slashes_do_not_redirect_to_another_host() {
    let server = Server::start().await;
    for path in [
        "//evil.example",
        "//evil.example/",
        "/chat//evil.example",
        "/chat/%2F%2Fevil.example",
    ] {
        let answer = server.get(path).await;
        let to = answer.header("location").unwrap_or("/");
        assert!(
            to.starts_with('/') && !to.starts_with("//"),
            "{path} → {to}"
        );
    }
}

fn check_safety(path: &str, answer: &Answer) {
    for (name, expected) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(expected), "{path}");
    }
    let policy = answer.header("content-security-policy").expect("a policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{path}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let server = Server::start().await;
    for path in [
        "/",
        "/chat/hi/",
        "/chat/nowhere/",
        "/nothing",
        "/static/0/js/chat.js",
        "/health",
        "/ready",
        "/ws/chat/",
    ] {
        check_safety(path, &server.get(path).await);
    }
    for path in ["/chat/hi/", "/chat/nowhere/", "/chat/@nobody/"] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
}

/// What a browser loads to show an empty room for the first time.
#[tokio::test]
async fn the_first_view_is_at_most_40_kb() {
    let server = Server::start().await;
    let page = server.get("/chat/hi/").await.body;
    let files = ["css/overwire.css", "js/chat.js", "js/runtime.js"];
    let files = files.map(|path| Static::sent(path).unwrap().content);
    let parts = files.into_iter().chain([page.into()]);
    let sizes = parts.map(|part| {
        // As the server does it.
        let mut compressed = GzEncoder::new(Vec::new(), Compression::best());
        compressed.write_all(&part).unwrap();
        compressed.finish().unwrap().len()
    });
    let size: usize = sizes.sum();
    assert!((20_000..=40_000).contains(&size), "{size} bytes");
}

#[tokio::test]
async fn files_are_fetched_again_only_when_they_have_changed() {
    let server = Server::start().await;
    let page = Page::parse(&server.get("/chat/hi/").await.body);
    let mut files: Vec<_> = page
        .root()
        .all()
        .flat_map(|element| ["src", "href", "data-unread"].map(|name| element.attribute(name)))
        .flatten()
        .filter(|address| address.starts_with("/static/"))
        .map(str::to_owned)
        .collect();
    // Each once. The script that another script imports would be requested late, after that one.
    let mut all: Vec<_> = Static::iter()
        // One is named by the manifest only, the other has an address of its own.
        .filter(|path| path != "icon-512.png" && path != "service-worker.js")
        .filter_map(|path| Static::address(&Static::build(), &path))
        .collect();
    files.sort();
    all.sort();
    assert_eq!(files, all);
    for file in &files {
        let answer = server.get(file).await;
        assert_eq!(answer.status, 200, "{file}");
        assert!(!answer.body.is_empty());
        let tag = answer.header("etag").expect("a validator").to_owned();
        let again = server.get_with(file, &[("If-None-Match", &tag)]).await;
        assert_eq!(again.status, 304, "{file}");
        assert_eq!(again.body, "");
        let other = server.get_with(file, &[("If-None-Match", "W/\"0\"")]).await;
        assert_eq!(other.status, 200, "{file}");
        // In a debug build a file may change under its address.
        let build = file.split('/').nth(2).unwrap();
        let other = file.replace(build, "0123456789abcdef");
        assert_eq!(
            server.get(&other).await.header("cache-control"),
            Some("no-cache")
        );
        let cache = answer.header("cache-control").unwrap();
        assert_eq!(
            cache.contains("immutable"),
            !cfg!(debug_assertions),
            "{cache}"
        );
    }
    for kind in [
        "text/css; charset=utf-8",
        "text/javascript; charset=utf-8",
        "image/svg+xml",
    ] {
        let mut kinds = Vec::new();
        for file in &files {
            kinds.push(
                server
                    .get(file)
                    .await
                    .header("content-type")
                    .map(str::to_owned),
            );
        }
        assert!(kinds.contains(&Some(kind.to_owned())), "{kinds:?}");
    }
}

#[tokio::test]
async fn no_file_outside_the_static_folder_is_served() {
    let server = Server::start().await;
    for path in [
        "/static/../Cargo.toml",
        "/static/%2e%2e/Cargo.toml",
        "/static/..%2fCargo.toml",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/0/../../Cargo.toml",
        "/static/0/..%2fCargo.toml",
        "/static/0//etc/passwd",
        "/static/0/%2fetc%2fpasswd",
        "/static/0/js/../../src/main.rs",
        "/static/0/nothing.js",
        "/static/js/chat.js",
        "/static/",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.contains("[package]") && !answer.body.contains("root:"));
    }
}

#[tokio::test]
async fn answers_are_compressed_on_request() {
    let server = Server::start().await;
    for path in [
        "/chat/hi/",
        "/static/0/js/chat.js",
        "/static/0/css/overwire.css",
    ] {
        let asked = [("Accept-Encoding", "gzip, br")];
        let answer = server.get_with(path, &asked).await;
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{path}");
        let answer = server.get(path).await;
        assert_eq!(answer.header("content-encoding"), None);
    }
}

#[tokio::test]
async fn it_is_ready_only_while_the_store_answers_but_alive_all_the_time() {
    let server = Server::start().await;
    assert_eq!(server.get("/ready").await.status, 200);
    server.store().close().await;
    let answer = server.get("/ready").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.body,
        "not ready: the database cannot be written and read\n"
    );
    let answer = server.get("/health").await;
    assert_eq!((answer.status, &*answer.body), (200, "alive\n"));
    let page = server.get("/chat/hi/").await;
    assert_eq!(page.status, 503);
    assert_eq!(page.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn the_address_of_the_socket_is_not_a_page() {
    let server = Server::start().await;
    let answer = server.get("/ws/chat/").await;
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "8"),
    ];
    let answer = server.get_with("/ws/chat/", &headers).await;
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    assert_eq!(server.people_here(), [""; 0]);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_page_names_what_the_browser_sees() {
    let server = Server::with(|setup| {
        setup.access.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let forwarded = [
        ("Host", "127.0.0.1:8000"),
        ("X-Forwarded-Host", "Chat.Example"),
        ("X-Forwarded-Proto", "https"),
    ];
    let answer = server.get_with("/chat/hi/", &forwarded).await;
    let page = Page::parse(&answer.body);
    let mut bodies = page.root().with("data-host");
    let body = bodies.next().unwrap();
    assert_eq!(body.attribute("data-host"), Some("chat.example"));
    assert_eq!(body.attribute("data-scheme"), Some("https"));
}
