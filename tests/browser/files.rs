//! Files: attaching them by button, drop and paste, what becomes of them on the way, and how they look.

use crate::browser::{Tab, story};
use crate::server::Server;
use crate::support::until;

/// Makes a picture of that size in the page, as a file.
const PICTURE: &str = "const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [1200, 900];
    canvas.getContext('2d').fillRect(0, 0, 600, 900);
    const blob = await new Promise((done) => canvas.toBlob(done));
    const files = new DataTransfer();
    files.items.add(new File([blob], 'cat.png'));";

/// Files that are texts, by name.
fn texts(names: &[&str]) -> String {
    let add = |name: &&str| format!("files.items.add(new File(['text'], '{name}'));");
    let add: String = names.iter().map(add).collect();
    format!("const files = new DataTransfer(); {add}")
}

/// Chooses files with the button's picker.
async fn chooses(tab: &Tab<'_>, files: &str) {
    tab.run(&format!(
        "(async () => {{ {files}
            const picker = document.querySelector('#attach-files');
            picker.files = files.files;
            picker.dispatchEvent(new Event('change'));
        }})()"
    ))
    .await;
}

/// An event that brings files, at an element.
async fn brings(tab: &Tab<'_>, files: &str, event: &str, at: &str) {
    tab.run(&format!(
        "{files} document.querySelector('{at}').dispatchEvent({event})"
    ))
    .await;
}

#[tokio::test]
async fn a_chosen_picture_is_sent_and_keeps_its_place() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        // For bob, files do not load yet.
        let files = serde_json::json!({ "patterns": [{ "urlPattern": "*/files/*" }] });
        bob.devtools("Fetch.enable", files).await;
        chooses(&anna, PICTURE).await;
        anna.sees(".upload[data-state=done]").await;
        assert_eq!(anna.text(".upload__name").await, "cat.png");
        anna.sees(".upload__picture").await;
        anna.until("document.querySelector('.upload__picture').naturalWidth > 0")
            .await;
        anna.click("#send").await;
        anna.sees_no(".upload").await;
        bob.sees(".files__picture img").await;
        let shown = "(() => {
            const picture = document.querySelector('.files__picture img');
            const { width, height } = picture.getBoundingClientRect();
            return [picture.naturalWidth, width, height];
        })()";
        assert_eq!(bob.get::<[f64; 3]>(shown).await, [0.0, 480.0, 360.0]);
        bob.devtools("Fetch.disable", serde_json::json!({})).await;
        for tab in [&anna, &bob] {
            tab.until(&format!("{shown}.join() === '720,480,360'"))
                .await;
        }
        // On a small screen it fits.
        bob.sized(360, 700).await;
        bob.until("document.documentElement.scrollWidth <= 360")
            .await;
        let ratio = "(({ width, height }) => Math.round(width / height * 100))(
            document.querySelector('.files__picture img').getBoundingClientRect())";
        assert_eq!(bob.get::<i64>(ratio).await, 133);
    })
    .await;
}

#[tokio::test]
async fn a_file_attached_without_a_connection_is_sent_with_its_message_when_it_is_back() {
    let mut server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        server.dies();
        anna.sees(".state__lost").await;
        chooses(&anna, &texts(&["a.txt"])).await;
        anna.sees(".upload[data-state=failed]").await;
        anna.sends("with a file").await;
        server.starts_again();
        bob.hears("with a file").await;
        bob.sees(".files__file").await;
        assert!(!anna.shows(".upload").await);
        assert_eq!(anna.written().await, "");
    })
    .await;
}

#[tokio::test]
async fn a_message_whose_file_is_under_way_waits_and_is_sent_from_anywhere() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let files = serde_json::json!({ "patterns": [{ "urlPattern": "*/files/*" }] });
        let nothing = serde_json::json!({});
        let waits = ".waiting[data-unsent] .upload[data-state=sending]";
        anna.devtools("Fetch.enable", files.clone()).await;
        chooses(&anna, &texts(&["a.txt"])).await;
        anna.sends("with a file").await;
        anna.sees(waits).await;
        // The box is free for what comes next, here and elsewhere.
        assert_eq!(anna.written().await, "");
        assert!(!anna.shows("#composer .upload").await);
        anna.sends("before it").await;
        bob.hears("before it").await;
        anna.enters("python").await;
        assert!(!anna.shows(".waiting").await);
        anna.writes("half a sen").await;
        anna.devtools("Fetch.disable", nothing.clone()).await;
        bob.hears("with a file").await;
        bob.sees(".files__file").await;
        assert_eq!(anna.written().await, "half a sen");
        assert_eq!(anna.texts().await, [""; 0]);

        // It can be changed or discarded meanwhile.
        anna.enters("hi").await;
        anna.sees_no(".waiting").await;
        anna.devtools("Fetch.enable", files).await;
        chooses(&anna, &texts(&["b.txt"])).await;
        anna.sends("with anoter").await;
        anna.sees(waits).await;
        anna.click("[data-back=edit]").await;
        anna.sees("#composer .upload[data-state=sending]").await;
        assert_eq!(anna.written().await, "with anoter");
        anna.sends("").await;
        anna.sees(waits).await;
        anna.click("[data-back=discard]").await;
        anna.sees_no(".waiting, .upload").await;
        anna.devtools("Fetch.disable", nothing).await;
        anna.sends("the end").await;
        bob.hears("the end").await;
        assert!(!bob.texts().await.contains(&"with anoter".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_message_whose_file_is_refused_or_lost_on_the_way_is_not_sent_without_it() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let files = serde_json::json!({ "patterns": [{ "urlPattern": "*/files/*" }] });
        anna.devtools("Fetch.enable", files.clone()).await;
        chooses(&anna, &texts(&["a.txt"])).await;
        let empty = "const files = new DataTransfer(); files.items.add(new File([], 'empty.txt'));";
        chooses(&anna, empty).await;
        anna.sends("with two files").await;
        anna.sees(".waiting[data-unsent]").await;
        anna.writes("something else").await;
        anna.devtools("Fetch.disable", serde_json::json!({})).await;
        anna.sees(".waiting[data-state=refused]").await;
        let words = anna.text(".waiting__refused").await;
        assert_eq!(words.trim(), "Not sent to #hi.");
        let words = anna
            .text(".waiting .upload[data-state=failed] .upload__error")
            .await;
        assert_eq!(words, "The file is empty.");
        anna.sees(".waiting .upload[data-state=done]").await;
        anna.click("[data-back=edit]").await;
        anna.sees_no(".waiting").await;
        assert_eq!(anna.written().await, "something else\nwith two files");
        anna.click("[aria-label='Remove empty.txt']").await;
        anna.sends("").await;
        bob.hears("something else\nwith two files").await;
        bob.sees(".files__file").await;

        // An empty box gets it back at once.
        anna.devtools("Fetch.enable", files.clone()).await;
        chooses(&anna, empty).await;
        anna.sends("with nothing").await;
        anna.sees(".waiting[data-unsent]").await;
        anna.devtools("Fetch.disable", serde_json::json!({})).await;
        anna.sees("#composer .upload[data-state=failed]").await;
        assert_eq!(anna.written().await, "with nothing");
        assert!(!anna.shows(".waiting").await);
        anna.click("[aria-label='Remove empty.txt']").await;
        anna.sends("").await;
        bob.hears("with nothing").await;

        // A page that is loaded again no longer has the file.
        anna.devtools("Fetch.enable", files).await;
        chooses(&anna, &texts(&["c.txt"])).await;
        anna.sends("with a lost one").await;
        anna.sees(".waiting[data-unsent]").await;
        anna.reload().await;
        anna.is_somebody().await;
        anna.sees(".waiting[data-state=refused] .upload[data-state=gone]")
            .await;
        anna.click("[data-back=edit]").await;
        anna.sees("#composer .upload[data-state=gone]").await;
        assert_eq!(anna.written().await, "with a lost one");
        assert!(!anna.shows(".waiting").await);
        assert!(!bob.texts().await.contains(&"with a lost one".to_owned()));
        anna.sends("").await;
        bob.hears("with a lost one").await;
        anna.sees_no(".upload").await;
    })
    .await;
}

#[tokio::test]
async fn a_message_with_a_file_alone_is_announced_and_replied_to() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        chooses(&anna, &texts(&["a.txt"])).await;
        anna.sees(".upload[data-state=done]").await;
        anna.click("#send").await;
        bob.sees(".files__file").await;
        bob.until("document.querySelector('#announcements').textContent.endsWith(': a.txt')")
            .await;
        bob.run("document.querySelector('.message').focus()").await;
        bob.run("document.querySelector('.message').dispatchEvent(new KeyboardEvent('keydown', { key: 'r', bubbles: true }))")
            .await;
        bob.until("document.querySelector('#replying .quote').textContent.endsWith(' a.txt')")
            .await;
    })
    .await;
}

#[tokio::test]
async fn files_are_dropped_and_pasted_and_taken_back() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let over = "new DragEvent('dragover', { dataTransfer: files, bubbles: true })";
        brings(&anna, &texts(&["a.txt"]), over, "#scroller").await;
        anna.sees("#drop").await;
        let drop = "new DragEvent('drop', { dataTransfer: files, bubbles: true })";
        brings(&anna, &texts(&["a.txt", "b.txt"]), drop, "#scroller").await;
        anna.sees_no("#drop").await;
        let paste = "new ClipboardEvent('paste', { clipboardData: files, bubbles: true })";
        brings(&anna, &texts(&["c.txt"]), paste, "#message-text").await;
        anna.until("document.querySelectorAll('.upload[data-state=done]').length === 3")
            .await;
        anna.click("[aria-label='Remove b.txt']").await;
        // They belong to their room.
        anna.enters("python").await;
        anna.until("!document.querySelector('.upload:not([hidden])')")
            .await;
        anna.enters("hi").await;
        anna.until("document.querySelectorAll('.upload:not([hidden])').length === 2")
            .await;
        anna.sends("Here they are").await;
        bob.hears("Here they are").await;
        let names =
            "[...document.querySelectorAll('.files__name')].map((name) => name.textContent)";
        assert_eq!(bob.get::<Vec<String>>(names).await, ["a.txt", "c.txt"]);
        bob.until("document.querySelector('.files__file small').textContent === 'TXT, 4 bytes'")
            .await;
    })
    .await;
}

#[tokio::test]
async fn text_with_a_picture_of_it_is_pasted_as_text() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        // Whether the page takes the paste, instead of the browser.
        let taken = async |text: &str| {
            let paste = "new ClipboardEvent('paste', { clipboardData: files, bubbles: true, cancelable: true })";
            let text = format!("files.setData('text/plain', '{text}');");
            let files = texts(&["image.png"]);
            let taken = format!("(() => {{ {files} {text} return !document.querySelector('#message-text').dispatchEvent({paste}) }})()");
            anna.get::<bool>(&taken).await
        };
        assert!(!taken("one cell").await);
        assert!(!anna.shows(".upload").await);
        assert!(taken("").await);
        // This is how folders copy a file.
        assert!(taken("image.png").await);
        anna.until("document.querySelectorAll('.upload[data-state=done]').length === 2")
            .await;
    })
    .await;
}

#[tokio::test]
async fn after_a_reload_files_are_still_attached_unless_they_are_gone() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let states = async |tab: &Tab<'_>, expected: &[&str]| {
            let shown = "[...document.querySelectorAll('.upload:not([hidden])')].map((one) =>
                one.querySelector('.upload__name').textContent + ' ' + one.dataset.state).join()";
            let expected = expected.join(",");
            tab.until(&format!("{shown} === '{expected}'")).await;
        };
        chooses(&anna, PICTURE).await;
        chooses(&anna, &texts(&["a.txt", "b.txt"])).await;
        states(&anna, &["cat.png done", "a.txt done", "b.txt done"]).await;
        anna.writes("half a sentence").await;
        anna.enters("python").await;
        chooses(&anna, &texts(&["python.txt"])).await;
        states(&anna, &["python.txt done"]).await;
        let slow = serde_json::json!({ "patterns": [{ "urlPattern": "*name=slow.txt" }] });
        anna.devtools("Fetch.enable", slow).await;
        chooses(&anna, &texts(&["slow.txt"])).await;
        states(&anna, &["python.txt done", "slow.txt sending"]).await;
        server.change("delete from files where name = 'b.txt'");

        anna.reload().await;
        anna.is_somebody().await;
        states(&anna, &["python.txt done", "slow.txt gone"]).await;
        anna.click("[aria-label='Remove slow.txt']").await;
        anna.enters("hi").await;
        states(&anna, &["cat.png done", "a.txt done", "b.txt gone"]).await;
        let words = "Not available any more. Please attach it again.";
        assert_eq!(
            anna.text(".upload[data-state=gone] .upload__error").await,
            words
        );
        anna.until("document.querySelector('.upload__picture').naturalWidth > 0")
            .await;
        assert_eq!(anna.written().await, "half a sentence");
        anna.sends(", and the rest").await;
        bob.hears("half a sentence, and the rest").await;
        bob.sees(".files__picture").await;
        let names =
            "[...document.querySelectorAll('.files__name')].map((name) => name.textContent)";
        assert_eq!(bob.get::<Vec<String>>(names).await, ["a.txt"]);
        states(&anna, &[]).await;
        anna.reload().await;
        anna.hears("half a sentence, and the rest").await;
        states(&anna, &[]).await;
        anna.enters("python").await;
        states(&anna, &["python.txt done"]).await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_stored_of_an_upload_that_is_cancelled() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let slow = serde_json::json!({
            "offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2_000_000,
        });
        anna.devtools("Network.enable", serde_json::json!({})).await;
        anna.devtools("Network.emulateNetworkConditions", slow)
            .await;
        let large = "const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(24_000_000)], 'large.bin'));";
        chooses(&anna, large).await;
        until("a part to be stored", async || !server.files().is_empty()).await;
        anna.click("[aria-label='Remove large.bin']").await;
        anna.sees_no(".upload").await;
        until("nothing to be left", async || server.files().is_empty()).await;
        chooses(&anna, &texts(&["a.txt"])).await;
        anna.sees(".upload[data-state=done]").await;
        assert_eq!(server.files().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn files_can_be_attached_in_a_room_that_is_entered_from_the_list_of_all_groups() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/chat/")).await;
        assert!(
            anna.get::<bool>("document.querySelector('#attach').disabled")
                .await
        );
        anna.click("#lobby-rooms [data-group-name=hi]").await;
        anna.is_in("#hi", "/chat/hi/").await;
        anna.sees("#attach:enabled").await;
        anna.click(".nav__all").await;
        anna.sees("#lobby-rooms").await;
        anna.until("document.querySelector('#attach').disabled")
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_failed_upload_keeps_the_text_and_can_be_tried_again() {
    let server = Server::start(&["--max-file-size", "1"]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let large = "const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(2 ** 20 + 1)], 'large.bin'));";
        chooses(&anna, large).await;
        anna.sees(".upload[data-state=failed]").await;
        let words = "The file is too large. The limit is 1 MiB.";
        assert_eq!(anna.text(".upload__error").await, words);
        assert!(
            !anna.shows("[data-upload=retry]").await,
            "it would stay too large"
        );
        anna.click("[aria-label='Remove large.bin']").await;
        let empty = "const files = new DataTransfer(); files.items.add(new File([], 'empty.txt'));";
        chooses(&anna, empty).await;
        anna.sees(".upload[data-state=failed]").await;
        assert_eq!(anna.text(".upload__error").await, "The file is empty.");
        anna.sends("the text").await;
        anna.until("document.activeElement.ariaLabel === 'Remove empty.txt'")
            .await;
        assert_eq!(anna.written().await, "the text");
        assert!(
            !anna.shows("[data-upload=retry]").await,
            "it would stay empty"
        );
        anna.click("[aria-label='Remove empty.txt']").await;

        // Refused for what may change, it can be sent again.
        server.change("update users set muted_at = 1");
        chooses(&anna, &texts(&["a.txt"])).await;
        anna.sees(".upload[data-state=failed]").await;
        server.change("update users set muted_at = null");
        anna.click("[data-upload=retry]").await;
        anna.sees(".upload[data-state=done]").await;

        // Without a network nothing is sent; with it, the message goes once the file is there.
        let offline = |on: bool| {
            serde_json::json!({
                "offline": on, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1,
            })
        };
        anna.devtools("Network.enable", serde_json::json!({})).await;
        anna.devtools("Network.emulateNetworkConditions", offline(true))
            .await;
        chooses(&anna, &texts(&["b.txt"])).await;
        anna.sees(".upload[data-state=failed]").await;
        anna.click("#send").await;
        anna.sees(".waiting[data-unsent] .upload[data-state=failed]")
            .await;
        anna.devtools("Network.emulateNetworkConditions", offline(false))
            .await;
        bob.hears("the text").await;
        bob.sees(".files__file + .files__file").await;
    })
    .await;
}

#[tokio::test]
async fn a_file_that_the_server_cannot_take_now_is_sent_again() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        // Somebody has moved the folder.
        let folder = format!("{}.files", server.database().display());
        let moved = format!("{folder}.moved");
        std::fs::rename(&folder, &moved).unwrap();
        std::fs::write(&folder, "").unwrap();
        chooses(&anna, &texts(&["a.txt"])).await;
        anna.sees("#composer .upload[data-state=failed]").await;
        let words = "The server could not store the file. Please try again.";
        assert_eq!(anna.text(".upload__error").await, words);
        anna.sends("with a file").await;
        anna.sees(".waiting[data-unsent] .upload[data-state=failed]")
            .await;
        anna.enters("python").await;
        std::fs::remove_file(&folder).unwrap();
        std::fs::rename(&moved, &folder).unwrap();
        bob.hears("with a file").await;
        bob.sees(".files__file").await;
        assert_eq!(anna.texts().await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_message_with_files_is_edited_in_its_room() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let files = serde_json::json!({ "patterns": [{ "urlPattern": "*/files/*" }] });
        anna.devtools("Fetch.enable", files).await;
        let empty = "const files = new DataTransfer(); files.items.add(new File([], 'empty.txt'));";
        chooses(&anna, empty).await;
        chooses(&anna, &texts(&["a.txt"])).await;
        anna.sends("with two files").await;
        anna.sees(".waiting[data-unsent]").await;
        anna.enters("python").await;
        anna.writes("about Python").await;
        anna.devtools("Fetch.disable", serde_json::json!({})).await;
        anna.sees(".waiting[data-state=refused] .upload[data-state=done]")
            .await;
        anna.click("[data-back=edit]").await;
        anna.is_in("#hi", "/chat/hi/").await;
        anna.sees("#composer .upload[data-state=failed]").await;
        assert_eq!(anna.written().await, "with two files");
        anna.click("[aria-label='Remove empty.txt']").await;
        anna.sends("").await;
        bob.hears("with two files").await;
        bob.sees(".files__file").await;
        anna.enters("python").await;
        assert_eq!(anna.written().await, "about Python");
    })
    .await;
}

#[tokio::test]
async fn a_refused_message_does_not_mix_with_what_is_in_the_composer() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let files = serde_json::json!({ "patterns": [{ "urlPattern": "*/files/*" }] });
        let nothing = serde_json::json!({});
        anna.devtools("Fetch.enable", files).await;
        let empty = "const files = new DataTransfer();
            for (const name of ['a.txt', 'b.txt']) files.items.add(new File([], name));";
        chooses(&anna, empty).await;
        anna.sends("with two").await;
        anna.sees(".waiting[data-unsent]").await;
        chooses(&anna, &texts(&["next.txt"])).await;
        anna.devtools("Fetch.disable", nothing).await;
        anna.sees(
            ".waiting[data-state=refused] .upload[data-state=failed] + .upload[data-state=failed]",
        )
        .await;
        anna.sees("#composer .upload[data-state=done]").await;
        assert_eq!(anna.written().await, "");
    })
    .await;
}

#[tokio::test]
async fn whoever_leaves_while_a_file_is_under_way_is_asked() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/")).await;
        let asks = "(() => {
            const event = new Event('beforeunload', { cancelable: true });
            return !dispatchEvent(event);
        })()";
        assert!(!anna.get::<bool>(asks).await);
        let files = serde_json::json!({ "patterns": [{ "urlPattern": "*/files/*" }] });
        anna.devtools("Fetch.enable", files).await;
        chooses(&anna, &texts(&["a.txt"])).await;
        anna.sees(".upload[data-state=sending]").await;
        assert!(anna.get::<bool>(asks).await);
        anna.devtools("Fetch.disable", serde_json::json!({})).await;
        anna.sees(".upload[data-state=done]").await;
        // It is attached again after a reload.
        assert!(!anna.get::<bool>(asks).await);
    })
    .await;
}
