//! The lines between days, and keeping the reader's place while the page changes.

use serde_json::json;

use crate::browser::{Tab, story};
use crate::server::Server;
use crate::wire::Wire;

/// The texts of the lines.
const LINES: &str =
    "JSON.stringify([...document.querySelectorAll('.day')].map(({ textContent }) => textContent))";
/// The line at the top of the view.
const AT_TOP: &str = "(({ left, width, top }) =>
    document.elementsFromPoint(left + width / 2, top + 16).find((one) => one.matches('.day'))?.textContent)
    ({
        ...document.querySelector('.messages').getBoundingClientRect().toJSON(),
        top: document.querySelector('#scroller').getBoundingClientRect().top,
    })";

/// A server with 240 messages of the day before yesterday, 40 of yesterday and 20 of today.
async fn three_days() -> Server {
    let mut server = Server::start(&["--unlimited"]);
    let mut anna = Wire::connect(&server, "/chat/hi/").await;
    anna.says((0..300).map(|n| format!("m{n}"))).await;
    drop(anna);
    server.dies();
    let database = rusqlite::Connection::open(server.database()).unwrap();
    let earlier = "update messages set created_at = created_at - 86400000
        * case when made <= 240 then 2 when made <= 280 then 1 else 0 end";
    assert_eq!(database.execute(earlier, []).unwrap(), 300);
    drop(database);
    server.starts_again();
    server
}

/// The full date of a message, as the page shows dates.
fn date(text: &str) -> String {
    format!(
        "[...document.querySelectorAll('.message')]
            .find((one) => one.querySelector('.message > p').textContent === '{text}')
            .querySelector('time').title"
    )
}

impl Tab<'_> {
    /// Scrolls until the message with that text is at the top.
    async fn scrolls_to_message(&self, text: &str) {
        self.run(&format!(
            "[...document.querySelectorAll('.message')]
                .find((one) => one.querySelector('.message > p').textContent === '{text}')
                .scrollIntoView({{ block: 'start' }})"
        ))
        .await;
    }

    /// Shows a part of the room around a message before those that are shown.
    async fn shows_an_older_part(&self) {
        self.run(
            "const { send } = await import(document.querySelector('[href*=\"js/runtime\"]').href);
             const at = document.querySelector('.message').id.slice('message-'.length);
             send('Show messages', { at: Number(at) - 100 });",
        )
        .await;
        self.sees("#messages-newer").await;
    }

    async fn has_lines(&self, lines: &[&str]) {
        self.until(&format!("{LINES} === {}", json!(json!(lines).to_string())))
            .await;
    }
}

#[tokio::test]
async fn what_i_write_at_an_older_place_is_shown_at_the_end() {
    let server = three_days().await;
    story(async |browser| {
        let anna = browser.person(&server.url("/chat/hi/")).await;
        anna.hears("m299").await;
        anna.shows_an_older_part().await;
        anna.sends("from long ago").await;
        anna.sees_no("#messages-newer").await;
        anna.hears("from long ago").await;
        anna.hears("m299").await;
    })
    .await;
}

#[tokio::test]
async fn a_line_shows_where_each_day_begins_and_the_current_one_stays_at_the_top() {
    let server = three_days().await;
    story(async |browser| {
        let anna = browser.person(&server.url("/chat/hi/")).await;
        anna.hears("m299").await;
        // The page begins within yesterday.
        anna.has_lines(&["Yesterday", "Today"]).await;
        anna.until(&format!("{AT_TOP} === 'Today'")).await;
        anna.scrolls_to_message("m255").await;
        anna.until(&format!("{AT_TOP} === 'Yesterday'")).await;
        // An older page moves the line to the first message of that day.
        anna.hears("m200").await;
        let first: String = anna.get(&date("m200")).await;
        assert!(first.len() > 12, "{first}");
        anna.has_lines(&[&first, "Yesterday", "Today"]).await;
        for (text, line) in [("m240", "Yesterday"), ("m280", "Today")] {
            anna.until(&format!(
                "[...document.querySelectorAll('.day')].find((one) => one.textContent === '{line}')
                    .nextElementSibling.querySelector('.message > p').textContent === '{text}'"
            ))
            .await;
        }
        anna.scrolls_to_message("m220").await;
        anna.until(&format!("{AT_TOP} === {}", json!(first))).await;

        // A part of the room around a day. What arrives after the gap has no line yet.
        anna.shows_an_older_part().await;
        anna.has_lines(&[&first]).await;
        let mut bob = Wire::connect(&server, "/chat/hi/").await;
        bob.says(["m300".to_owned()]).await;
        anna.until("document.querySelector('#messages-newer ~ .message') !== null").await;
        anna.until(
            "[...document.querySelectorAll('#messages-newer ~ .day')].every((one) => !one.checkVisibility())",
        )
        .await;
        anna.click("#new-messages").await;
        anna.sees_no("#messages-newer").await;
        anna.hears("m300").await;
        anna.has_lines(&["Yesterday", "Today"]).await;

        // At midnight the lines get other names.
        let yesterday: String = anna.get(&date("m279")).await;
        anna.run(
            "const Real = Date;
             Date = class extends Real {
                 constructor(...when) {
                     super(...(when.length ? when : [Real.now() + 24 * 60 * 60 * 1000]));
                 }
             };",
        )
        .await;
        anna.has_lines(&[&yesterday, "Yesterday"]).await;
    })
    .await;
}

#[tokio::test]
async fn the_line_of_a_day_survives_the_deletion_of_its_first_message() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/chat/hi/")).await;
        anna.says("first").await;
        anna.says("second").await;
        anna.has_lines(&["Today"]).await;
        anna.run(
            "const { send } = await import(document.querySelector('[href*=\"js/runtime\"]').href);
             const at = document.querySelector('.message').id.slice('message-'.length);
             send('Delete message', { message: Number(at) });",
        )
        .await;
        anna.sees(".message--deleted").await;
        anna.has_lines(&["Today"]).await;
        anna.sees(".day + .message--deleted + .message:not([data-joined])")
            .await;
        anna.reload().await;
        anna.sees(".day + .message--deleted").await;
        // Another room of the same day has its own line.
        anna.enters("python").await;
        anna.has_lines(&[]).await;
        anna.says("third").await;
        anna.has_lines(&["Today"]).await;
    })
    .await;
}

#[tokio::test]
async fn the_place_is_kept_while_messages_above_it_change() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/hi/")).await;
        for text in ["one", "two", "three"] {
            bob.says(text).await;
        }
        let mut carl = Wire::connect(&server, "/chat/hi/").await;
        carl.says((0..40).map(|n| format!("m{n}"))).await;
        anna.hears("m39").await;
        anna.scrolls_to_message("m20").await;
        let top = "[...document.querySelectorAll('.message')]
            .find((one) => one.querySelector('.message > p').textContent === 'm20')
            .getBoundingClientRect().top";
        let before: f64 = anna.get(top).await;
        let ids: Vec<String> = anna
            .get("[...document.querySelectorAll('.message')].slice(0, 3).map(({ id }) => id.slice(8))")
            .await;
        let long = "a much longer text\n".repeat(12);
        let changes = [
            ("Edit message", json!({ "message": ids[0].parse::<i64>().unwrap(), "text": long })),
            ("Delete message", json!({ "message": ids[1].parse::<i64>().unwrap() })),
            (
                "React",
                json!({ "message": ids[2].parse::<i64>().unwrap(), "emoji": "🎉", "on": true }),
            ),
        ];
        let shown = [".message[data-edited]", ".message--deleted", ".reactions .chip"];
        for ((action, data), shown) in changes.into_iter().zip(shown) {
            bob.run(&format!(
                "const {{ send }} = await import(document.querySelector('[href*=\"js/runtime\"]').href);
                 send('{action}', {data});"
            ))
            .await;
            anna.sees(shown).await;
            let after: f64 = anna.get(top).await;
            assert!((after - before).abs() < 1., "{action}: {before} → {after}");
        }
    })
    .await;
}
