//! Files and pictures: sending, showing and reading them, who may, and what is left of them.

use std::convert::Infallible;
use std::error::Error as _;
use std::io::Cursor;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use image::{ImageFormat, Rgb, RgbImage};
use overwire::chat::Kinds;
use overwire::objects::{self, NotReceived, Objects, Place, Received};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::bucket::Bucket;
use crate::support::page::Element;
use crate::support::server::{Setup, names_in};
use crate::support::wire::{Event, Handshake};
use crate::support::{Answer, Device, Server, Tab, soon, until};

const HOUR: Duration = Duration::from_secs(60 * 60);
/// Long enough for unused objects to be deleted.
const A_WHILE: Duration = Duration::from_secs(2 * 60);

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let picture = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 90]));
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Sends a message with files and waits until it is shown.
async fn sends(tab: &mut Tab, text: &str, files: &[&str]) -> i64 {
    let key = Uuid::new_v4().to_string();
    let data = json!({ "message": text, "files": files, "room": tab.room(), "key": key });
    tab.sends("New message", data);
    let shown = |tab: &Tab| {
        let list = tab.page.the("messages-list");
        let message = list
            .elements()
            .find(|one| one.attribute("data-key") == Some(&key))?;
        message.id()?.strip_prefix("message-")?.parse::<i64>().ok()
    };
    tab.until("the message", |tab| shown(tab).is_some()).await;
    shown(tab).unwrap()
}

/// The links to files that a tab shows.
fn links(tab: &Tab) -> Vec<&Element> {
    let list = tab.page.the("messages-list");
    let links = list.with("href");
    let is_file = |link: &&Element| link.attribute("href").unwrap().starts_with("/files/");
    links.filter(is_file).collect()
}

fn addresses(tab: &Tab) -> Vec<String> {
    let links = links(tab).into_iter();
    links
        .map(|link| link.attribute("href").unwrap().to_owned())
        .collect()
}

async fn shows_links(tab: &mut Tab, count: usize) {
    tab.until("the files", |tab| links(tab).len() == count)
        .await;
}

fn error(answer: &Answer) -> String {
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    answer["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_picture_has_its_place_before_it_is_there_and_runs_nothing() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let file = anna.attaches("our cat.png", &png(1600, 1200)).await;
    sends(&mut anna, "", &[&file]).await;
    shows_links(&mut bob, 1).await;
    let link = links(&bob)[0];
    let address = link.attribute("href").unwrap().to_owned();
    assert_eq!(address, format!("/files/{file}/our%20cat.png"));
    let picture = link.with("src").next().unwrap();
    let shown = |name| picture.attribute(name).unwrap();
    assert_eq!((shown("width"), shown("height")), ("480", "360"));
    assert_eq!((shown("loading"), shown("alt")), ("lazy", "our cat.png"));
    let small = bob.fetches(shown("src"), &[]).await;
    assert_eq!(small.status, 200);
    assert_eq!(small.header("Content-Type"), Some("image/jpeg"));
    let saved = small.header("Content-Disposition").unwrap();
    assert!(saved.ends_with("our%20cat.jpg"), "{saved}");
    let small = image::load_from_memory(&small.bytes).unwrap();
    assert_eq!((small.width(), small.height()), (720, 540));

    let whole = bob.fetches(&address, &[]).await;
    assert_eq!(whole.header("Content-Type"), Some("image/png"));
    for (name, value) in [
        ("Content-Security-Policy", "default-src 'none'; sandbox"),
        ("X-Content-Type-Options", "nosniff"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        (
            "Content-Disposition",
            "inline; filename=\"our cat.png\"; filename*=UTF-8''our%20cat.png",
        ),
        ("Cache-Control", "private, max-age=31536000, immutable"),
    ] {
        assert_eq!(whole.header(name), Some(value));
    }
    assert_eq!(whole.bytes, png(1600, 1200));
    let known = [("If-None-Match", whole.header("ETag").unwrap())];
    assert_eq!(bob.fetches(&address, &known).await.status, 304);
    // Whoever reloads sees the same.
    anna.reloads().await;
    assert_eq!(addresses(&anna), [address]);
    let page = server.get("/chat/hi/").await;
    let policy = page.header("Content-Security-Policy").unwrap();
    assert!(policy.contains("img-src 'self';"), "{policy}");
}

#[tokio::test]
async fn any_other_file_is_a_card_and_is_downloaded_whole_or_in_part() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let bytes: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
    let one = anna.attaches("report.pdf", &bytes).await;
    let two = anna.attaches("notes", b"some text").await;
    sends(&mut anna, "Here it is", &[&one, &two]).await;
    shows_links(&mut bob, 2).await;
    assert_eq!(bob.texts(), ["Here it is"]);
    let cards: Vec<_> = links(&bob).iter().map(|link| link.text()).collect();
    assert_eq!(cards, ["report.pdf PDF, 20 KB", "notes File, 9 bytes"]);
    let three = anna.attaches("html.PNG", b"<").await;
    sends(&mut anna, "", &[&three]).await;
    shows_links(&mut bob, 3).await;
    assert_eq!(links(&bob)[2].text(), "html.PNG File, 1 byte");
    let address = &addresses(&bob)[0];
    let whole = bob.fetches(address, &[]).await;
    assert_eq!((whole.status, &whole.bytes), (200, &bytes));
    assert_eq!(
        whole.header("Content-Type"),
        Some("application/octet-stream")
    );
    let saved = "attachment; filename=\"report.pdf\"; filename*=UTF-8''report.pdf";
    assert_eq!(whole.header("Content-Disposition"), Some(saved));
    let part = bob.fetches(address, &[("Range", "bytes=100-199")]).await;
    assert_eq!((part.status, &*part.bytes), (206, &bytes[100..200]));
    assert_eq!(part.header("Content-Range"), Some("bytes 100-199/20000"));
    assert_eq!(part.header("Content-Length"), Some("100"));
    let beyond = bob.fetches(address, &[("Range", "bytes=20000-")]).await;
    assert_eq!(beyond.status, 416);
}

#[tokio::test]
async fn what_a_file_is_its_bytes_decide() {
    let server = Server::start().await;
    let [mut anna] = server.tabs().await;
    let script = b"<script>alert(1)</script>";
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>";
    let mut both = b"GIF89a".to_vec();
    both.extend(b"=1;/*<script>alert(1)</script>*/");
    for (name, bytes) in [("a.png", &script[..]), ("b.svg", svg), ("c.gif", &both)] {
        let file = anna.attaches(name, bytes).await;
        sends(&mut anna, "", &[&file]).await;
        let read = anna.fetches(&format!("/files/{file}/{name}"), &[]).await;
        let media_type = read.header("Content-Type");
        assert_eq!(media_type, Some("application/octet-stream"), "{name}");
        let disposition = read.header("Content-Disposition").unwrap();
        assert!(disposition.starts_with("attachment;"), "{name}");
    }
    // A picture is one whatever it is called.
    let file = anna.attaches("page.html", &png(3, 3)).await;
    sends(&mut anna, "", &[&file]).await;
    let read = anna.fetches(&format!("/files/{file}/x"), &[]).await;
    assert_eq!(read.header("Content-Type"), Some("image/png"));
    let shown = links(&anna).pop().unwrap().attribute("href");
    assert_eq!(shown, Some(&*format!("/files/{file}/page.html.png")));

    // No name leads to another folder, hides how it ends, or breaks a header or the page.
    for (name, shown) in [
        ("../../etc/passwd", "passwd"),
        ("a\r\nSet-Cookie: b=c", "aSet-Cookie: b=c"),
        ("\u{202e}gpj.exe", "gpj.exe"),
        ("\"><img src=x>.txt", "\"><img src=x>.txt"),
    ] {
        let file = anna.attaches(name, b"text").await;
        sends(&mut anna, "", &[&file]).await;
        let card = links(&anna).pop().unwrap();
        assert!(card.text().starts_with(shown), "{}", card.text());
        assert_eq!(card.with("src").count(), 0);
        let address = card.attribute("href").unwrap();
        let read = anna.fetches(address, &[]).await;
        assert_eq!(
            (read.status, &*read.bytes),
            (200, &b"text"[..]),
            "{address}"
        );
        assert_eq!(read.header("Set-Cookie"), None);
    }
}

#[tokio::test]
async fn the_limit_is_enforced_and_nothing_is_left_of_what_is_refused() {
    let server = Server::with(|setup| setup.files.1 = 10_000).await;
    let mut anna = server.tab().await;
    let refused = anna.uploads("a.bin", &[7; 10_001]).await;
    assert_eq!(refused.status, 413);
    // The same without saying how large it is.
    let mut stream = TcpStream::connect(server.door.0).await.unwrap();
    let head = |room: &str, token: &str, framing: &str| {
        format!(
            "POST /files/?room={room}&name=a HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n{framing}\r\n\r\n",
            server.door.0
        )
    };
    let (room, token) = (anna.room().unwrap(), anna.resume.clone().unwrap());
    let mut request = head(&room, &token, "Transfer-Encoding: chunked").into_bytes();
    request.extend(b"2711\r\n");
    request.extend([7; 10_001]);
    request.extend(b"\r\n0\r\n\r\n");
    stream.write_all(&request).await.unwrap();
    let refused = Answer::read(stream).await;
    assert_eq!(refused.status, 413);
    assert_eq!(
        error(&refused),
        "The file is too large. The limit is 0 MiB."
    );
    let empty = anna.uploads("a.bin", b"").await;
    assert_eq!((empty.status, &*error(&empty)), (422, "The file is empty."));
    // Cut off in the middle.
    let mut stream = TcpStream::connect(server.door.0).await.unwrap();
    let request = head(&room, &token, "Content-Length: 9000");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(&[7; 5000]).await.unwrap();
    drop(stream);
    until("nothing to be left", async || server.objects().is_empty()).await;
    assert_eq!(server.count("files"), 0);

    let file = anna.attaches("a.bin", &[7; 10_000]).await;
    sends(&mut anna, "", &[&file]).await;
    assert_eq!(server.objects().len(), 1);
}

#[tokio::test]
async fn only_ones_own_files_of_the_room_that_wait_are_sent() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let gone = "A file is not available any more. Please attach it again.";
    let try_to_send = async |tab: &mut Tab, file: &str| {
        let data = json!({ "message": "hello", "files": [file], "room": tab.room() });
        tab.is_refused("New message", data).await
    };
    let file = anna.attaches("a.txt", b"text").await;
    assert_eq!(try_to_send(&mut bob, &file).await, gone);
    // Before it is sent, nobody else reads it.
    let address = format!("/files/{file}/a.txt");
    for (reader, status) in [(&anna, 200), (&bob, 404)] {
        assert_eq!(reader.fetches(&address, &[]).await.status, status);
    }
    assert_eq!(server.get(&address).await.status, 404);
    anna.enters_group("python").await;
    assert_eq!(try_to_send(&mut anna, &file).await, gone);
    anna.enters_group("hi").await;
    let words = anna.is_refused(
        "New message",
        json!({ "message": "/help", "files": [file] }),
    );
    assert!(words.await.contains("cannot be sent with a command"));
    // Sent again with the same key, it is the same message.
    let key = Uuid::new_v4().to_string();
    let data = json!({ "message": "once", "files": [file], "room": anna.room(), "key": key });
    anna.sends("New message", data.clone());
    anna.sends("New message", data);
    anna.is_settled(&key).await;
    anna.hears_all().await;
    assert_eq!(server.stored("once"), 1);
    assert_eq!(try_to_send(&mut anna, &file).await, gone);
    let many = vec![file; 11];
    let words = anna.is_refused("New message", json!({ "message": "", "files": many }));
    assert!(words.await.contains("at most 10 ids of files"));
}

#[tokio::test]
async fn only_those_who_may_read_the_room_read_its_files() {
    let server = Server::start().await;
    let [mut anna, mut bob, mut carl] = server.tabs().await;
    let open = anna.attaches("open.txt", b"for all").await;
    sends(&mut anna, "", &[&open]).await;
    // Groups are public.
    assert_eq!(
        server.get(&format!("/files/{open}/open.txt")).await.status,
        200
    );

    anna.opens_private(&bob.name()).await;
    let file = anna.attaches("secret.txt", b"for bob").await;
    sends(&mut anna, "", &[&file]).await;
    let address = format!("/files/{file}/secret.txt");
    for tab in [&anna, &bob] {
        let read = tab.fetches(&address, &[]).await;
        assert_eq!((read.status, &*read.bytes), (200, &b"for bob"[..]));
    }
    let missing = server.get("/files/AAAAAAAAAAA/secret.txt").await;
    for answer in [
        carl.fetches(&address, &[]).await,
        server.get(&address).await,
    ] {
        assert_eq!((answer.status, &answer.body), (404, &missing.body));
        assert_eq!(answer.header("ETag"), None);
    }
    // Nor does anybody send a file to a room of others, or as somebody else.
    let room = anna.room().unwrap();
    assert_eq!(carl.uploads_to(&room, "a", b"text").await.status, 404);
    let token = carl
        .resume
        .replace("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let refused = carl.uploads("a", b"text").await;
    let expired = r#"{"error":"Your session has expired. Reload the page and try again."}"#;
    assert_eq!((refused.status, &*refused.body), (401, expired));
    carl.resume = token;
    let path = format!("/files/?room={room}&name=a");
    let refused = server.send_file(&path, &[], b"text").await;
    let nobody = r#"{"error":"You are not signed in. Programs need an account to send files."}"#;
    assert_eq!((refused.status, &*refused.body), (401, nobody));
    let elsewhere = [("Origin", "https://evil.example")];
    let refused = server.post(&path, &[], &elsewhere).await;
    assert_eq!(refused.status, 403);
    // A guest who signs in elsewhere is another person there.
    bob.browser.clone_from(&carl.browser);
    assert_eq!(bob.fetches(&address, &[]).await.status, 404);
}

#[tokio::test]
async fn the_files_of_a_restricted_group_are_for_moderators() {
    let server = Server::start().await;
    let (mut device, mut anna) = Device::of_somebody(&server).await;
    let file = anna.attaches("plan.txt", b"the plan").await;
    sends(&mut anna, "", &[&file]).await;
    let address = format!("/files/{file}/plan.txt");
    let bob = server.tab().await;
    assert_eq!(bob.fetches(&address, &[]).await.status, 200);
    device.becomes_moderator(server.store()).await;
    let hi = anna.room().unwrap();
    server.change("update rooms set restricted_at = 1 where name = 'hi'");
    assert_eq!(bob.fetches(&address, &[]).await.status, 404);
    assert_eq!(bob.uploads_to(&hi, "a", b"text").await.status, 404);
    assert_eq!(anna.fetches(&address, &[]).await.status, 200);
}

#[tokio::test]
async fn a_file_is_deleted_with_its_message_and_equal_bytes_are_stored_once() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    let mine = anna.attaches("mine.txt", b"the same bytes").await;
    let theirs = bob.attaches("theirs.txt", b"the same bytes").await;
    let picture = anna.attaches("large.png", &png(900, 900)).await;
    let message = sends(&mut anna, "", &[&mine, &picture]).await;
    let other = sends(&mut bob, "", &[&theirs]).await;
    // One object for both, the picture and its smaller copy.
    assert_eq!(server.objects().len(), 3);
    anna.sends("Delete message", json!({ "message": message }));
    shows_links(&mut anna, 1).await;
    assert_eq!(
        anna.fetches(&format!("/files/{mine}/x"), &[]).await.status,
        404
    );
    assert_eq!(
        anna.fetches(&format!("/files/{picture}/x"), &[])
            .await
            .status,
        404
    );
    server.sweeps_files(A_WHILE).await;
    assert_eq!(server.objects().len(), 1);
    let read = anna.fetches(&format!("/files/{theirs}/x"), &[]).await;
    assert_eq!(&*read.bytes, b"the same bytes");
    // Whoever sends the same bytes again after that gets them too.
    bob.sends("Delete message", json!({ "message": other }));
    shows_links(&mut anna, 0).await;
    let again = anna.attaches("again.txt", b"the same bytes").await;
    server.sweeps_files(A_WHILE).await;
    sends(&mut anna, "", &[&again]).await;
    let read = anna.fetches(&format!("/files/{again}/x"), &[]).await;
    assert_eq!(&*read.bytes, b"the same bytes");
}

#[tokio::test]
async fn a_file_waits_for_its_message_for_an_hour() {
    let server = Server::start().await;
    let anna = server.tab().await;
    anna.attaches("a.txt", b"never sent").await;
    server.sweeps_files(HOUR / 2).await;
    assert_eq!((server.count("files"), server.objects().len()), (1, 1));
    server.sweeps_files(HOUR + A_WHILE).await;
    assert_eq!(server.count("files"), 0);
    server.sweeps_files(HOUR + A_WHILE).await;
    assert!(server.objects().is_empty());
}

#[tokio::test]
async fn the_server_decides_who_may_send_what() {
    let server = Server::with(|setup| setup.files.0 = Kinds::Pictures).await;
    let anna = server.tab().await;
    let refused = anna.uploads("a.png", b"no picture").await;
    assert_eq!(refused.status, 415);
    assert_eq!(anna.uploads("a", &png(2, 2)).await.status, 200);
    server.change("update users set muted_at = 1");
    assert_eq!(anna.uploads("a", &png(2, 2)).await.status, 403);

    let server = Server::with(|setup| setup.files.0 = Kinds::Off).await;
    let anna = server.tab().await;
    assert_eq!(anna.uploads("a", &png(2, 2)).await.status, 404);
    assert!(anna.page.get("attach").is_none());
}

#[tokio::test]
async fn a_person_sends_only_so_much_in_a_minute() {
    let server = Server::alone(|setup: &mut Setup| setup.files.1 = 1000).await;
    let [anna, bob] = server.tabs().await;
    for _ in 0..10 {
        anna.attaches("a", &[1; 1000]).await;
    }
    let refused = anna.uploads("a", &[1; 1000]).await;
    assert_eq!(refused.status, 429);
    assert!(error(&refused).contains("too many files"));
    bob.attaches("a", &[1; 1000]).await;
}

#[tokio::test]
async fn a_removed_group_takes_its_files_with_it() {
    let server = Server::start().await;
    let (mut device, mut anna) = Device::of_somebody(&server).await;
    device.becomes_moderator(server.store()).await;
    anna.sends("New group", json!({ "groupName": "fish" }));
    anna.until("the group", |tab| tab.title() == "#fish").await;
    anna.enters_group("python").await;
    anna.enters_group("fish").await;
    let file = anna.attaches("a.txt", b"text").await;
    sends(&mut anna, "", &[&file]).await;
    let room = anna.room().unwrap();
    let desk = server.socket(&device.admin_handshake()).await.unwrap();
    desk.text(json!({ "action": "Remove group", "data": { "room": room } }).to_string());
    until("the file to be gone", async || server.count("files") == 0).await;
    server.sweeps_files(A_WHILE).await;
    assert!(server.objects().is_empty());
}

#[tokio::test]
async fn what_a_message_without_text_says_is_its_files() {
    let server = Server::start().await;
    let [mut anna, mut bob] = server.tabs().await;
    bob.sends("Set notifications", json!({ "on": true }));
    bob.sends("In view", json!({ "on": false }));
    bob.hears_all().await;
    anna.opens_private(&bob.name()).await;
    for (name, bytes, said) in [
        ("a.png", png(2, 2), "sent a picture"),
        ("report.pdf", b"text".to_vec(), "sent report.pdf"),
    ] {
        let file = anna.attaches(name, &bytes).await;
        sends(&mut anna, "", &[&file]).await;
        let notified = |tab: &Tab| tab.page.the("notification").text().contains(said);
        bob.until(said, notified).await;
    }
}

#[tokio::test]
async fn a_message_of_files_is_changed_without_losing_them() {
    let server = Server::start().await;
    let (mut anna, mut plain) = (server.tab().await, server.plain_tab().await);
    let file = anna.attaches("report.pdf", b"text").await;
    let message = sends(&mut anna, "", &[&file]).await;
    shows_links(&mut plain, 1).await;
    for text in ["See page 2", ""] {
        let data = json!({ "message": message, "text": text, "room": anna.room() });
        anna.sends("Edit message", data);
        let is_so =
            |tab: &Tab| tab.page.the("messages-list").text().contains("See") != text.is_empty();
        anna.until("the edit", is_so).await;
        shows_links(&mut anna, 1).await;
    }
    anna.says("no file").await;
    let own = anna.messages()[1].id;
    let data = json!({ "message": own, "text": " ", "room": anna.room() });
    let words = anna.is_refused("Edit message", data).await;
    assert_eq!(words, "The message is empty.");
}

#[tokio::test]
async fn a_program_sends_a_file_with_its_session() {
    let server = Server::start().await;
    let (device, _anna) = Device::of_somebody(&server).await;
    let mut bob = server.tab().await;
    let cookie = ("Cookie", device.cookie.clone().unwrap());
    let path = "/files/?group=hi&name=cat.png";
    let headers = [(cookie.0, &*cookie.1)];
    let answer = server.send_file(path, &headers, &png(30, 20)).await;
    assert_eq!(answer.status, 200);
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    let handshake = Handshake {
        path: Some("/ws/chat/hi/".to_owned()),
        headers: vec![(cookie.0.to_owned(), cookie.1)],
        ..Handshake::default()
    };
    let mut program = server.socket(&handshake).await.unwrap();
    program.text(json!({ "files": [answer["id"]] }).to_string());
    shows_links(&mut bob, 1).await;
    let heard = async {
        loop {
            if let Event::Text(text) = program.next().await
                && let Ok(object) = serde_json::from_str::<Value>(&text)
                && object["files"].is_array()
            {
                return object;
            }
        }
    };
    let heard = soon("the message", heard).await;
    assert_eq!(heard["message"], "sent a picture");
    let file = &heard["files"][0];
    assert_eq!(
        (&file["name"], &file["type"]),
        (&json!("cat.png"), &json!("image/png"))
    );
    assert_eq!(file["url"], addresses(&bob)[0]);
}

/// What a test of objects stores: more than fits into one request to a bucket.
fn many_bytes() -> Vec<u8> {
    (0..11 << 20).map(|n: u32| (n % 251) as u8).collect()
}

async fn receive(objects: &Objects, bytes: &[u8]) -> Received {
    let parts: Vec<_> = bytes
        .chunks(64 * 1024)
        .map(Bytes::copy_from_slice)
        .collect();
    let body = stream::iter(parts.into_iter().map(Ok::<_, Infallible>));
    objects.receive(body, 20 << 20, 16).await.unwrap()
}

async fn read(objects: &Objects, name: &str, range: Option<Range<u64>>) -> Vec<u8> {
    let (_, bytes) = objects.read(name, range).await.unwrap();
    let bytes: Vec<Bytes> = bytes.try_collect().await.unwrap();
    bytes.concat()
}

#[tokio::test]
async fn a_bucket_keeps_objects_as_a_folder_does() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let in_folder = Objects::open(&Place::Folder(folder.path().to_owned()), [], None);
    let in_bucket = Objects::open(&bucket.place(), bucket.variables(), None);
    for objects in [in_folder, in_bucket].map(Result::unwrap) {
        objects.reach().await.unwrap();
        let bytes = many_bytes();
        let received = receive(&objects, &bytes).await;
        assert_eq!((received.bytes, &*received.head), (11 << 20, &bytes[..16]));
        assert_eq!(objects.names().await.unwrap(), [""; 0]);
        assert_eq!(objects.bytes(&received).await.unwrap(), bytes);
        objects.keep(&received).await.unwrap();
        let name = objects::name_of(&bytes);
        assert_eq!(received.hash, name);
        assert_eq!(objects.names().await.unwrap(), [&*name]);
        assert_eq!(read(&objects, &name, None).await, bytes);
        assert_eq!(read(&objects, &name, Some(7..9)).await, &bytes[7..9]);

        let small = Bytes::from_static(b"small");
        objects.put("0123small", small.clone()).await.unwrap();
        assert_eq!(read(&objects, "0123small", None).await, small);
        objects.delete(&name).await.unwrap();
        // It is gone already.
        objects.delete(&name).await.unwrap();
        assert_eq!(objects.names().await.unwrap(), ["0123small"]);
        let discarded = receive(&objects, b"not wanted").await;
        objects.discard(&discarded).await.unwrap();
        let broken = stream::iter([Ok(small.clone()), Err("lost")]);
        let cut = objects.receive(broken, 100, 16).await;
        assert!(matches!(cut, Err(NotReceived::Cut)));
        let large = stream::iter([Ok::<_, Infallible>(small)]);
        let large = objects.receive(large, 4, 16).await;
        assert!(matches!(large, Err(NotReceived::TooLarge)));
    }
    let left = [folder.path().to_owned(), bucket.folder()].map(|folder| names_in(&folder));
    assert_eq!(left, [["0123small"], ["0123small"]]);
}

#[tokio::test]
async fn a_bucket_wants_the_secret_and_proves_who_it_is() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_der();
    let bucket = Bucket::with_tls(made.cert.der().clone(), &key).await;
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("ca.pem");
    std::fs::write(&trusted, made.cert.pem()).unwrap();
    let open = |variables, authorities| Objects::open(&bucket.place(), variables, authorities);
    let objects = open(bucket.variables(), Some(&*trusted)).unwrap();
    objects
        .put("0123", Bytes::from_static(b"small"))
        .await
        .unwrap();
    assert_eq!(read(&objects, "0123", None).await, b"small");

    let unknown = open(bucket.variables(), None).unwrap();
    let refused = unknown.reach().await.unwrap_err();
    let reason = format!("{:?}", refused.source());
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    let mut variables = bucket.variables();
    variables.last_mut().unwrap().1 = "another secret".to_owned();
    let wrong = open(variables, Some(&*trusted)).unwrap();
    assert!(
        wrong
            .put("4567", Bytes::from_static(b"small"))
            .await
            .is_err()
    );
    assert_eq!(names_in(&bucket.folder()), ["0123"]);
    let missing = folder.path().join("nothing.pem");
    let missing = open(bucket.variables(), Some(&missing)).err().unwrap();
    let reason = missing.source().unwrap().to_string();
    assert!(reason.contains("nothing.pem"), "{reason}");
}
