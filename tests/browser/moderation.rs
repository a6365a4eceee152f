//! The page where moderators look after the chat.

use thirtyfour::Key;

use crate::browser::{Tab, story};
use crate::server::Server;

/// Becomes a moderator by a link that the command line prints.
pub(crate) async fn becomes_moderator(tab: &Tab<'_>, server: &Server) {
    tab.goto(&server.admin_link()).await;
    tab.run("document.querySelector('#new-password').focus()")
        .await;
    tab.types("my tongue is green").await;
    tab.presses(Key::Enter).await;
    tab.sees("#moderation-log .record").await;
    tab.until("location.pathname === '/admin/'").await;
}

#[tokio::test]
async fn a_moderator_looks_after_groups_people_and_messages() {
    let server = Server::start(&[]);
    story(async |browser| {
        // Bob arrives before the browser has the moderator's cookie, which would make him the
        // moderator.
        let bob = browser.person(&server.url("/")).await;
        let b = bob.name().await;
        // Under another host name the browser does not send her cookie.
        let elsewhere = server
            .url("/chat/python/")
            .replace("127.0.0.1", "localhost");
        let carl = browser.person(&elsewhere).await;
        let desk = browser.window().await;
        becomes_moderator(&desk, &server).await;
        let mod_name: String = desk
            .get("document.querySelector('#logged-user [data-user]').dataset.user")
            .await;
        desk.sees("#moderation-groups .record").await;
        desk.sees("#moderation-people .record").await;

        bob.says("rude words").await;
        desk.click("#moderation-groups .record:nth-child(2) [data-action='Open group']")
            .await;
        desk.sees("#moderation-found .record").await;
        desk.click("#moderation-found [data-action='Delete message']")
            .await;
        let line = format!("A moderator deleted a message of {b}.");
        bob.hears(&line).await;
        desk.click("#moderation-found [data-action='Restore message']")
            .await;
        bob.hears("rude words").await;

        // A draft in a group that is renamed stays.
        carl.writes("a long draft").await;
        let rename = "#moderation-groups .record:nth-child(4)";
        desk.click(&format!("{rename} summary")).await;
        desk.run(&format!(
            "const field = document.querySelector(\"{rename} input\"); field.focus(); field.select()"
        ))
        .await;
        desk.types("Snakes").await;
        desk.presses(Key::Enter).await;
        carl.is_in("#Snakes", "/chat/Snakes/").await;
        assert_eq!(carl.written().await, "a long draft");
        bob.sees("#groups-list [data-group-name='Snakes']").await;
        bob.sees_no("#groups-list [data-group-name='python']").await;

        // A draft in a group that closes does not move to another group, and returns with the
        // group.
        let restrict = format!("{rename} [data-action='Restrict group']");
        desk.click(&restrict).await;
        carl.is_in_the_lobby().await;
        carl.enters("hi").await;
        assert_eq!(carl.written().await, "");
        carl.sees_no("#groups-list [data-group-name='Snakes']").await;
        desk.click(&restrict).await;
        carl.sees("#groups-list [data-group-name='Snakes']").await;
        carl.enters("Snakes").await;
        assert_eq!(carl.written().await, "a long draft");

        desk.run("document.querySelector('#person-search').focus()")
            .await;
        desk.types(&b).await;
        desk.until(&format!(
            "document.querySelectorAll('#moderation-people .record').length === 1 \
             && document.querySelector('#moderation-people').textContent.includes('{b}')"
        ))
        .await;
        desk.click("#moderation-people [data-action=Mute]").await;
        bob.sees("#notice [data-tone=refusal]").await;
        bob.sends("not taken").await;
        bob.until("document.querySelector('#message-text').value === 'not taken'")
            .await;
        desk.click("#moderation-people [data-action=Ban]").await;
        bob.until("document.querySelector('#notice').textContent.includes('banned you')")
            .await;
        bob.until("document.documentElement.dataset.connected === 'false'")
            .await;
        desk.until(&format!(
            "document.querySelector('#moderation-log').textContent.includes('banned {b}')"
        ))
        .await;

        // A banned guest's tab is turned away even after a reload.
        let c = carl.name().await;
        desk.run("document.querySelector('#person-search').select()")
            .await;
        desk.types(&c).await;
        desk.until(&format!(
            "document.querySelectorAll('#moderation-people .record').length === 1 \
             && document.querySelector('#moderation-people').textContent.includes('{c}')"
        ))
        .await;
        desk.click("#moderation-people [data-action=Ban]").await;
        let is_banned = "document.querySelector('#notice').textContent.includes('banned you') \
            && document.documentElement.dataset.connected === 'false'";
        carl.until(is_banned).await;
        carl.reload().await;
        carl.until(is_banned).await;
        carl.sees_no("#logged-user [data-user]").await;

        // The chat recognizes the moderator and links to the admin page.
        desk.goto(&server.url("/")).await;
        desk.is_somebody().await;
        assert_eq!(desk.name().await, mod_name);
        desk.click("#account .me__change").await;
        desk.click("#account a[href='/admin/']").await;
        desk.sees("#moderation-log .record").await;
    })
    .await;
}

#[tokio::test]
async fn somebody_who_is_no_longer_a_moderator_is_told_so() {
    let server = Server::start(&[]);
    story(async |browser| {
        let desk = browser.window().await;
        becomes_moderator(&desk, &server).await;
        let name: String = desk
            .get("document.querySelector('#logged-user [data-user]').dataset.user")
            .await;
        server.admin(&["revoke", &name]);
        desk.until("document.body.textContent.includes('moderators')")
            .await;
        desk.sees_no("#moderation-log").await;
    })
    .await;
}
