//! Searching messages with the keyboard, and the way to a message and back.

use thirtyfour::Key;

use crate::browser::story;
use crate::server::Server;

#[tokio::test]
async fn a_search_leads_to_the_message_and_back_to_the_results() {
    let server = Server::start(&[]);
    story(async |browser| {
        let [anna, bob] = browser.people(&server.url("/chat/python/")).await;
        anna.says("the needle is here").await;
        for n in 0..60 {
            bob.says(&format!("hay {n}")).await;
        }
        bob.writes("a draft").await;
        anna.enters("hi").await;
        anna.run("document.activeElement.blur()").await;
        anna.types("/").await;
        anna.until("document.activeElement.id === 'search'").await;
        anna.types("a/b").await;
        assert_eq!(
            anna.get::<String>("document.activeElement.value").await,
            "a/b"
        );
        anna.presses(Key::Escape).await;
        anna.until("document.activeElement.id !== 'search'").await;
        anna.click("#search").await;
        anna.run("document.querySelector('#search').select()").await;
        anna.types("Needle").await;
        anna.presses(Key::Enter).await;
        anna.until("location.pathname + location.search === '/search/?q=Needle'")
            .await;
        anna.sees(".found mark").await;
        assert_eq!(anna.text(".found mark").await, "needle");
        assert!(!anna.shows("#message-text").await);
        assert_eq!(
            anna.get::<String>("document.title").await,
            "Search · Overwire"
        );

        // To the message, in the same page.
        anna.run("window.stays = true").await;
        anna.click(".found").await;
        anna.is_in("#python", "/chat/python/").await;
        anna.sees("#messages-list[data-at] .message").await;
        assert!(
            anna.texts()
                .await
                .contains(&"the needle is here".to_owned())
        );
        assert!(
            anna.get::<bool>("/^\\?at=\\d+$/.test(location.search)")
                .await
        );
        anna.sees_no(".found").await;

        anna.back().await;
        anna.until("location.search === '?q=Needle'").await;
        anna.sees(".found mark").await;
        // The same search finds what has been written since.
        bob.run("document.querySelector('#message-text').select()")
            .await;
        bob.says("another needle").await;
        anna.click("#search").await;
        anna.presses(Key::Enter).await;
        anna.until("document.querySelectorAll('.found').length === 2")
            .await;
        let typed = "document.querySelector('#search').value";
        assert_eq!(anna.get::<String>(typed).await, "Needle");
        anna.click("#search").await;
        anna.back().await;
        anna.is_in("#hi", "/chat/hi/").await;
        assert_eq!(anna.get::<String>(typed).await, "");
        assert!(anna.get::<bool>("window.stays").await);
        anna.forward().await;
        anna.until("location.search === '?q=Needle'").await;
        anna.sees(".found mark").await;
        anna.reload().await;
        anna.sees(".found mark").await;
        anna.is_somebody().await;
        assert_eq!(anna.path().await, "/search/");

        // On a small screen the page has a field of its own.
        assert!(!anna.shows("#search-again").await);
        anna.sized(360, 640).await;
        anna.click("#search-again").await;
        anna.types("s").await;
        anna.presses(Key::Enter).await;
        anna.until("location.search === '?q=Needles'").await;
        anna.sized(1280, 800).await;
        anna.click(".nav__mentions").await;
        anna.sees(".nav__mentions[aria-current]").await;
        assert_eq!(
            anna.get::<String>(typed).await,
            "",
            "nobody has typed is:mention"
        );
        anna.click(".nav__all").await;
        anna.sees(".nav__all[aria-current]").await;
        anna.sees_no(".nav__mentions[aria-current]").await;
    })
    .await;
}
