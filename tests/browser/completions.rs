//! Completing words while writing: with keys, mouse, touch and an input method.

use serde_json::json;
use thirtyfour::Key;

use crate::browser::{Tab, story};
use crate::server::Server;

const OPTION: &str = "#completions [role='option']";
const CHOSEN: &str = "#completions [role='option'][aria-selected='true']";
const IN_BOX: &str = "document.activeElement.matches('#message-text')";

fn option(insert: &str) -> String {
    format!("#completions [data-insert='{insert}']")
}

impl Tab<'_> {
    /// What assistive technology is told about the text that has the focus.
    async fn is_expanded(&self, expanded: bool) {
        self.until(&format!(
            "(document.activeElement.getAttribute('role') === 'combobox') === {expanded}
             && (document.activeElement.getAttribute('aria-expanded') === 'true') === {expanded}"
        ))
        .await;
    }

    /// Waits until that option is the active one, for the eyes and for assistive technology.
    async fn has_chosen(&self, insert: &str) {
        self.until(&format!(
            "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))
                ?.matches(`{}`) && document.querySelectorAll(`{CHOSEN}`).length === 1",
            option(insert)
        ))
        .await;
    }

    async fn chooses_nothing(&self) {
        self.until("!document.activeElement.getAttribute('aria-activedescendant')")
            .await;
    }
}

#[tokio::test]
async fn a_name_is_completed_with_the_keyboard() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let b = bob.name().await;
        let at = format!("@{b}");
        let start = &at[..3];
        anna.says("first").await;
        let places = "JSON.stringify(['#composer', '.message', '#scroller'].map(
            (selector) => document.querySelector(selector).getBoundingClientRect()))";
        let before: String = anna.get(places).await;

        // Within a word, nothing is proposed. The list moves nothing, and is announced.
        anna.writes(&format!("me{start}")).await;
        anna.types(&format!(" {start}")).await;
        anna.sees(&option(&at)).await;
        anna.is_expanded(true).await;
        assert_eq!(anna.get::<String>(places).await, before);
        let (list, state) = (
            "#completions[role='listbox']",
            "#completions-state[role='status']",
        );
        anna.until(&format!(
            "document.querySelector(`{list}`).checkVisibility()"
        ))
        .await;
        anna.until(&format!(
            "document.querySelector(`{state}`).textContent.startsWith('Completions: ')"
        ))
        .await;
        // Arrows go round; nothing is chosen before.
        anna.chooses_nothing().await;
        anna.presses(Key::Down).await;
        anna.has_chosen(&at).await;
        anna.presses(Key::Up).await;
        anna.presses(Key::Down).await;
        anna.has_chosen(&at).await;
        anna.presses(Key::Enter).await;
        anna.sees_no(OPTION).await;
        anna.is_expanded(false).await;
        assert_eq!(anna.written().await, format!("me{start} {at} "));

        // Tab takes the best match, even if it has not arrived yet. It replaces the whole word.
        anna.types(&format!("and {start}")).await;
        anna.sees(&option(&at)).await;
        anna.types(&at[3..4]).await;
        anna.presses(Key::Tab).await;
        anna.until(&format!(
            "{IN_BOX} && document.activeElement.value.endsWith('and {at} ')"
        ))
        .await;
        anna.types(&format!("({at}")).await;
        anna.presses(Key::Left).await;
        anna.presses(Key::Backspace).await;
        anna.sees(&option(&at)).await;
        anna.presses(Key::Tab).await;
        assert_eq!(
            anna.written().await,
            format!("me{start} {at} and {at} ({at} ")
        );

        // Enter without a choice sends the message.
        anna.run("document.querySelector('#message-text').select()")
            .await;
        anna.types(&format!("look {start}")).await;
        anna.sees(&option(&at)).await;
        anna.presses(Key::Enter).await;
        bob.hears(&format!("look {start}")).await;
        anna.sees_no(OPTION).await;
        assert_eq!(anna.written().await, "");
    })
    .await;
}

#[tokio::test]
async fn completion_is_dismissed_for_one_word() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let at = format!("@{}", bob.name().await);
        anna.writes(&format!("a {}", &at[..2])).await;
        anna.sees(&option(&at)).await;
        anna.presses(Key::Down).await;
        anna.presses(Key::Escape).await;
        anna.sees_no(OPTION).await;
        assert_eq!(anna.written().await, format!("a {}", &at[..2]));
        // The answer about the next word shows that the server was not asked about this one.
        anna.run(
            "window.words = [];
             const { send } = WebSocket.prototype;
             WebSocket.prototype.send = function (frame) {
                 const { action, data } = JSON.parse(frame);
                 if (action === 'Complete') words.push(data.text);
                 send.call(this, frame);
             };",
        )
        .await;
        anna.types(&at[2..]).await;
        anna.types(" #py").await;
        anna.sees(&option("#python")).await;
        anna.until("words.at(-1) === '#py' && words.every((word) => word.startsWith('#'))")
            .await;
        // The list closes when the cursor leaves the word, when the text is left, and in another room.
        anna.presses(Key::Home).await;
        anna.sees_no(OPTION).await;
        anna.presses(Key::End).await;
        anna.types("t").await;
        anna.sees(&option("#python")).await;
        anna.run("document.activeElement.blur()").await;
        anna.sees_no(OPTION).await;
        anna.run("document.querySelector('#message-text').focus()")
            .await;
        anna.types("h").await;
        anna.sees(&option("#python")).await;
        anna.enters("events").await;
        anna.sees_no(OPTION).await;
    })
    .await;
}

#[tokio::test]
async fn groups_emojis_and_the_person_of_a_command_are_taken_with_the_mouse() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        anna.writes("see #pyt").await;
        anna.sees(&option("#python")).await;
        anna.click(&option("#python")).await;
        anna.until(IN_BOX).await;
        assert_eq!(anna.written().await, "see #python ");
        anna.types("8:30 :tad").await;
        anna.sees(&option("🎉")).await;
        anna.click(&option("🎉")).await;
        assert_eq!(anna.written().await, "see #python 8:30 🎉");
        anna.run("document.querySelector('#message-text').select()")
            .await;
        anna.types(&format!("/pm {}", &b[..2])).await;
        anna.sees(&option(&format!("@{b}"))).await;
        anna.click(&option(&format!("@{b}"))).await;
        assert_eq!(anna.written().await, format!("/pm {b} "));
        anna.types("psst").await;
        anna.presses(Key::Enter).await;
        bob.sees(&format!("#users-mine [data-user='{a}'][data-unread='1']"))
            .await;

        // A message that is edited.
        anna.says("helo ").await;
        anna.presses(Key::Up).await;
        let form = "#message-form textarea";
        anna.sees(form).await;
        anna.until(&format!("document.activeElement.matches('{form}')"))
            .await;
        anna.types(&format!("@{}", &b[..2])).await;
        anna.sees(&option(&format!("@{b}"))).await;
        // Escape closes the list first, and then the form.
        anna.presses(Key::Escape).await;
        anna.sees_no(OPTION).await;
        anna.sees(form).await;
        anna.types(" #pyt").await;
        anna.sees(&option("#python")).await;
        let above = "document.querySelector('#completions').getBoundingClientRect().bottom
            < document.activeElement.getBoundingClientRect().top";
        assert!(anna.get::<bool>(above).await);
        anna.click(&option("#python")).await;
        anna.presses(Key::Enter).await;
        bob.hears(&format!("helo @{} #python ", &b[..2])).await;
    })
    .await;
}

#[tokio::test]
async fn an_input_method_keeps_its_keys_and_a_stale_answer_is_dropped() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let at = format!("@{}", bob.name().await);
        anna.writes("@").await;
        anna.sees(&option(&at)).await;
        anna.presses(Key::Down).await;
        anna.sees(CHOSEN).await;
        // The Enter and the arrows of an input method.
        let pressed = "['Enter', 'Tab', 'ArrowDown', 'Escape'].every((key) =>
            document.activeElement.dispatchEvent(new KeyboardEvent('keydown',
                { key, isComposing: true, bubbles: true, cancelable: true })))";
        assert!(anna.get::<bool>(pressed).await, "no key is kept from it");
        anna.sees(CHOSEN).await;
        assert_eq!(anna.written().await, "@");
        // What it composes is completed when it is done.
        let part = &at[1..3];
        let composing = json!({ "text": part, "selectionStart": 2, "selectionEnd": 2 });
        anna.devtools("Input.imeSetComposition", composing).await;
        anna.devtools("Input.insertText", json!({ "text": part })).await;
        anna.until(&format!(
            "document.querySelector('#completions [data-text]')?.dataset.text === '@{part}'"
        ))
        .await;
        anna.sees(&option(&at)).await;

        // An answer about an earlier text changes nothing.
        anna.run(
            "import(document.querySelector('[href*=\"js/runtime\"]').href).then(({ hooks }) => {
                 const template = document.createElement('template');
                 template.innerHTML = '<div data-text=\"@no\"><p role=\"option\" id=\"stale\">no</p></div>';
                 const { content: fragment } = template;
                 hooks.before({ selector: '#completions', fragment });
                 window.kept = !fragment.querySelector('#stale');
             })",
        )
        .await;
        anna.until("kept").await;
        anna.sees(&option(&at)).await;
    })
    .await;
}
