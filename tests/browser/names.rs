//! Choosing a display name.

use serde_json::json;
use thirtyfour::Key;

use crate::browser::{Tab, story};
use crate::server::Server;

async fn chooses_a_name(tab: &Tab<'_>, name: &str) {
    tab.click("#name-form .me__change").await;
    tab.sees("#name-form input").await;
    tab.run(
        "const field = document.querySelector('#name-form input'); field.focus(); field.select()",
    )
    .await;
    tab.types(name).await;
    tab.presses(Key::Enter).await;
}

#[tokio::test]
async fn a_display_name_is_shown_beside_the_user_name() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        bob.click(&format!("#users-online [data-user='{a}'] a"))
            .await;
        bob.is_in(&a, &format!("/chat/@{a}/")).await;
        anna.says("by my user name").await;

        chooses_a_name(&anna, "Anna <i>").await;
        anna.sees_no("#name-form input").await;
        anna.sees("#name-form .me__name").await;
        assert_eq!(anna.text("#name-form .me__name").await, "Anna <i>");
        // The focus returns to where it was.
        anna.until("document.activeElement.matches('.me__change')")
            .await;
        assert_eq!(anna.name().await, a);
        let called = format!("Anna <i> {a}");
        bob.is_in(&called, &format!("/chat/@{a}/")).await;
        let listed =
            format!("document.querySelector('#users-online [data-user=\"{a}\"] .nav__name')");
        bob.until(&format!("{listed}.textContent === {}", json!(called)))
            .await;

        // The next message is not grouped with those under the former name.
        anna.says("by my display name").await;
        let shown = "[...document.querySelectorAll('.message')].map(one => \
            (one.hasAttribute('data-joined') ? '+' : '') + one.querySelector('b').firstChild.data.trim())";
        assert_eq!(
            anna.get::<Vec<String>>(shown).await,
            [a.as_str(), "Anna <i>"]
        );
        anna.says("again").await;
        assert_eq!(
            anna.get::<Vec<String>>(shown).await,
            [a.as_str(), "Anna <i>", "+Anna <i>"]
        );

        // A name that somebody else has is refused, and the own name stays.
        chooses_a_name(&bob, "ANNA <i>").await;
        bob.sees("#my-name .refused").await;
        assert!(bob.text("#my-name .refused").await.contains("too similar"));
        assert!(!bob.shows("#notice .notice").await, "it is said where it was typed");
        let typed = "document.activeElement.matches('#my-name input') && document.activeElement.value";
        assert_eq!(bob.get::<String>(typed).await, "ANNA <i>");
        bob.reload().await;
        bob.is_somebody().await;
        assert_eq!(bob.name().await, b);
        assert!(!bob.shows("#name-form .me__name").await);

        // It is still there after a reload, in the field too.
        anna.reload().await;
        anna.is_somebody().await;
        anna.sees("#name-form .me__name").await;
        anna.click("#name-form .me__change").await;
        assert_eq!(
            anna.get::<String>("document.querySelector('#name-form input').value")
                .await,
            "Anna <i>"
        );
        anna.presses(Key::Escape).await;
        anna.sees_no("#name-form input").await;
    })
    .await;
}

#[tokio::test]
async fn a_name_is_chosen_in_the_drawer_of_a_small_screen() {
    let server = Server::start(&[]);
    story(async |browser| {
        let anna = browser.person(&server.url("/chat/")).await;
        anna.sized(360, 640).await;
        anna.click("#aside-open").await;
        chooses_a_name(&anna, "Anna Lee").await;
        anna.until("document.querySelector('.me__name')?.textContent === 'Anna Lee'")
            .await;
    })
    .await;
}
