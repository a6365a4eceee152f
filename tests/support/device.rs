//! A browser without windows: what it keeps of a server, and the plain forms that it sends.

use overwire::model::ResumeToken;
use overwire::store::Store;

use super::wire::Handshake;
use super::{Answer, Door, Server, Tab};

pub(crate) const PASSWORD: &str = "my tongue is green";

/// What a browser keeps of a server, apart from its tabs.
pub(crate) struct Device {
    pub(crate) door: Door,
    pub(crate) cookie: Option<String>,
}

impl Device {
    pub(crate) fn new(server: &Server) -> Self {
        Self::at(server.door)
    }

    pub(crate) fn at(door: Door) -> Self {
        Self { door, cookie: None }
    }

    /// Sends a form from the page of a group.
    pub(crate) async fn sends(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let origin = format!("http://{}", self.door.0);
        let referer = format!("{origin}/chat/python/");
        let mut headers = vec![("Origin", &*origin), ("Referer", &*referer)];
        if let Some(cookie) = &self.cookie {
            headers.push(("Cookie", cookie));
        }
        let answer = self.door.post(path, fields, &headers).await;
        if let Some(set) = answer.header("Set-Cookie") {
            let (cookie, _) = set.split_once(';').unwrap();
            let is_there = !cookie.ends_with('=');
            self.cookie = is_there.then(|| cookie.to_owned());
        }
        answer
    }

    /// The person in a tab registers; the page is loaded again.
    pub(crate) async fn keeps(&mut self, tab: &mut Tab) {
        let resume = tab.resume.clone().unwrap();
        let fields = [("resume", &*resume), ("password", PASSWORD)];
        let answer = self.sends("/keep/", &fields).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        tab.cookie.clone_from(&self.cookie);
        tab.reloads().await;
    }

    /// The person of this browser becomes a moderator, by a link like those of the command line.
    pub(crate) async fn becomes_moderator(&mut self, store: &Store) {
        let link = admin_link(store).await;
        let answer = self.sends("/admin/link/", &[("link", &link)]).await;
        assert_eq!(
            (answer.status, answer.header("Location")),
            (303, Some("/admin/"))
        );
    }

    /// How the admin page asks for its socket.
    pub(crate) fn admin_handshake(&self) -> Handshake {
        let mut handshake = Handshake {
            path: Some("/admin/ws/".to_owned()),
            ..Handshake::default()
        };
        let offers = ("Sec-WebSocket-Protocol", "overwire.v1".to_owned());
        let origin = ("Origin", format!("http://{}", self.door.0));
        let cookie = self.cookie.clone().map(|cookie| ("Cookie", cookie));
        for (name, value) in [Some(offers), Some(origin), cookie].into_iter().flatten() {
            handshake.headers.push((name.to_owned(), value));
        }
        handshake
    }

    pub(crate) async fn signs_in(&mut self, name: &str) {
        let fields = [("name", name), ("password", PASSWORD)];
        let answer = self.sends("/sign-in/", &fields).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
    }

    pub(crate) async fn tab(&self, path: &str) -> Tab {
        let mut tab = Tab::load(self.door, path).await;
        tab.cookie.clone_from(&self.cookie);
        tab.connects().await;
        tab
    }

    /// A registered person, in the first group.
    pub(crate) async fn of_somebody(server: &Server) -> (Self, Tab) {
        let mut device = Self::new(server);
        let mut tab = server.tab().await;
        device.keeps(&mut tab).await;
        (device, tab)
    }
}

/// The token of a link that makes somebody a moderator.
pub(crate) async fn admin_link(store: &Store) -> String {
    let token = ResumeToken::random();
    store.add_admin_link(token.hash()).await.unwrap();
    token.to_string()
}
