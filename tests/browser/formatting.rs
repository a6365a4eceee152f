//! Writing with format: keys, links, lists that go on; and how it looks.

use serde_json::json;
use thirtyfour::Key;

use crate::browser::{Tab, story};
use crate::server::Server;

impl Tab<'_> {
    /// Presses a key in the message box, as the browser reports it.
    async fn hits(&self, key: &str, with: &str) {
        self.run(&format!(
            "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', \
             {{ key: '{key}', {with}: true, bubbles: true, cancelable: true }}))"
        ))
        .await;
    }

    async fn selects(&self, from: u32, to: u32) {
        self.run(&format!(
            "document.querySelector('#message-text').setSelectionRange({from}, {to})"
        ))
        .await;
    }

    async fn pastes(&self, text: &str) {
        self.run(&format!(
            "const data = new DataTransfer(); data.setData('text/plain', '{text}'); \
             document.activeElement.dispatchEvent(new ClipboardEvent('paste', \
             {{ clipboardData: data, bubbles: true, cancelable: true }}))"
        ))
        .await;
    }

    async fn has_written(&self, text: &str) {
        let text = json!(text);
        self.until(&format!(
            "document.querySelector('#message-text').value === {text}"
        ))
        .await;
    }
}

#[tokio::test]
async fn keys_format_the_selection_and_lists_go_on() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna] = browser.people(&server.url("/chat/hi/")).await;
        anna.writes("see this").await;
        anna.selects(4, 8).await;
        anna.hits("b", "ctrlKey").await;
        anna.has_written("see **this**").await;
        anna.hits("i", "ctrlKey").await;
        anna.has_written("see ***this***").await;
        anna.hits("i", "metaKey").await;
        anna.has_written("see **this**").await;
        anna.hits("b", "ctrlKey").await;
        anna.has_written("see this").await;
        anna.hits("e", "ctrlKey").await;
        anna.has_written("see `this`").await;
        anna.run("document.execCommand('undo')").await;
        anna.has_written("see this").await;
        anna.selects(4, 8).await;
        anna.pastes("https://a.example/b").await;
        anna.has_written("see [this](https://a.example/b)").await;
        anna.run("document.querySelector('#message-text').select()")
            .await;
        anna.writes("9. one").await;
        anna.hits("Enter", "shiftKey").await;
        anna.has_written("9. one\n10. ").await;
        anna.hits("Enter", "shiftKey").await;
        anna.has_written("9. one\n").await;
        // Marks that touch a space, that span lines or that are there already.
        for (typed, key, expected) in [
            ("this  ", "b", "**this**  "),
            ("**this**", "b", "this"),
            ("- one\n- two", "b", "- **one**\n- **two**"),
            ("one\n\ntwo", "i", "*one*\n\n*two*"),
            ("one\ntwo", "e", "```\none\ntwo\n```"),
            ("a`b", "e", "`` a`b ``"),
            ("`` a`b ``", "e", "a`b"),
            ("a``b", "e", "``` a``b ```"),
            ("**one**", "i", "***one***"),
            ("***one***", "i", "**one**"),
            ("- **one**\n- **two**", "b", "- one\n- two"),
            ("```\none\ntwo\n```", "e", "one\ntwo"),
        ] {
            anna.run(&format!(
                "document.querySelector('#message-text').value = {}; \
                 document.querySelector('#message-text').select()",
                json!(typed)
            ))
            .await;
            anna.hits(key, "ctrlKey").await;
            anna.has_written(expected).await;
        }
        for (typed, at, expected) in [("> - one", 7, "> - one\n> - "), ("- foo", 2, "- \n- foo")] {
            anna.run("document.querySelector('#message-text').select()")
                .await;
            anna.writes(typed).await;
            anna.selects(at, at).await;
            anna.hits("Enter", "shiftKey").await;
            anna.has_written(expected).await;
        }
        // In a listing it is code.
        anna.run("document.querySelector('#message-text').select()")
            .await;
        anna.writes("```\n- one").await;
        anna.hits("Enter", "shiftKey").await;
        anna.has_written("```\n- one").await;
        anna.presses_with(Key::Shift, Key::Enter).await;
        anna.types("```").await;
        anna.presses_with(Key::Shift, Key::Enter).await;
        anna.types("- two").await;
        anna.hits("Enter", "shiftKey").await;
        anna.has_written("```\n- one\n```\n- two\n- ").await;
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_pasted_makes_the_selection_a_link_unless_it_is_one() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna] = browser.people(&server.url("/chat/hi/")).await;
        let check = async |selected: &str, address: &str, expected: Option<&str>| {
            anna.run("document.querySelector('#message-text').select()")
                .await;
            anna.writes(selected).await;
            anna.run("document.querySelector('#message-text').select()")
                .await;
            anna.pastes(address).await;
            // The browser replaces the selection itself, but not for an event from a script.
            anna.has_written(expected.unwrap_or(selected)).await;
        };
        let to = "https://a.example/b";
        check("this", "www.example.org", Some("[this](www.example.org)")).await;
        check(
            "at 9.30, e.g. here",
            to,
            Some("[at 9.30, e.g. here](https://a.example/b)"),
        )
        .await;
        for selected in [
            "example.org",
            "http://localhost",
            "ask @anna ",
            "a@b.example",
        ] {
            check(selected, to, None).await;
        }
        check("this", "wwwhat", None).await;
    })
    .await;
}

#[tokio::test]
async fn a_listing_is_copied_and_emojis_alone_are_large() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna] = browser.people(&server.url("/chat/hi/")).await;
        anna.run("navigator.clipboard.writeText = (text) => { window.copied = text; }").await;
        anna.run("const box = document.querySelector('#message-text'); box.value = '```rust\\nlet a = 1;\\n```'; box.form.requestSubmit()")
            .await;
        anna.until("document.querySelector('pre code')").await;
        anna.run("document.querySelector('.listing__copy').click()").await;
        anna.until("window.copied === 'let a = 1;'").await;
        anna.until("document.querySelector('.listing__copy').dataset.copied === ''").await;
        anna.says("🎉").await;
        let size = "parseFloat(getComputedStyle(document.querySelector('.message > p .emoji')).fontSize)";
        assert!(anna.get::<f64>(size).await > 30.0);
    })
    .await;
}
