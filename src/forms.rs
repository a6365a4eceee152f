//! The HTML forms to register, sign in and sign out: fields, the cookie, and responses.
//!
//! `web` decides who may send them, and `chat` what they do.

use std::collections::HashMap;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use cookie::{Cookie, SameSite};

use crate::chat::{Chat, Denied, Visitor, log_failure};
use crate::metrics::METRICS;
use crate::model::{BrowserToken, ResumeToken, SessionToken};
use crate::protocol::{
    self, LOBBY_PATH, MODERATION_LINK_PATH, MODERATION_PASSWORD_PATH, MODERATION_PATH,
    PASSWORD_LINK_PATH,
};
use crate::store::SESSION_GOOD_FOR;
use crate::views::{AccountPage, Form};

/// The largest form, in bytes.
pub(crate) const FORM_BYTES: usize = 4 * 1024;

/// The addresses that forms are sent to.
pub(crate) const PATHS: [&str; 7] = [
    "/keep/",
    "/sign-in/",
    "/change-password/",
    SIGN_OUT,
    MODERATION_LINK_PATH,
    MODERATION_PASSWORD_PATH,
    PASSWORD_LINK_PATH,
];
const SIGN_OUT: &str = "/sign-out/";

const LINK_EXPIRED: &str =
    "This link was already used or has expired. Ask the server's administrator for a new one.";
const PASSWORD_LINK_EXPIRED: &str =
    "This link was already used or has expired. Ask a moderator for a new one.";
const NO_ACCOUNT: &str =
    "There is no account with that user name, or it belongs to a moderator or somebody banned.";
const NOT_ALLOWED: &str = "Only moderators can do that.\n";

/// A submitted form.
pub(crate) struct Sent<'a> {
    /// Where it was sent to, one of [`PATHS`].
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    /// Whether the page was loaded over `https`.
    pub(crate) secure: bool,
    /// The scheme and the host of the chat, as the browser sees them.
    pub(crate) origin: String,
    pub(crate) visitor: Visitor,
}

/// Does what a form asks for and redirects to the page it was sent from.
pub(crate) async fn answer(chat: &Chat, sent: &Sent<'_>) -> Response {
    let fields: HashMap<_, _> = form_urlencoded::parse(sent.body).collect();
    let field = |name: &str| fields.get(name).map_or("", |value| &**value);
    let at = match fields.get("at") {
        Some(at) => return_path(at),
        // The page's own address, which changes with the room.
        None => return_path(&path_of_referer(sent.headers)),
    };
    let (password, visitor) = (field("password"), &sent.visitor);
    if sent.path == MODERATION_LINK_PATH {
        return become_moderator(chat, sent, field("link"), password).await;
    }
    if sent.path == MODERATION_PASSWORD_PATH {
        return add_password_link(chat, sent, field("name")).await;
    }
    if sent.path == PASSWORD_LINK_PATH {
        return reset_password(chat, sent, field("link"), password).await;
    }
    let signed_in = |token| Some(cookie(Some(&token), sent.secure));
    let form = form_at(sent.path);
    let done = match form {
        Some(Form::Keep) => match field("resume").parse() {
            Ok(tab) => chat.keep(&tab, password, visitor).await.map(signed_in),
            Err(_) => Err(Denied::SomebodyElse),
        },
        Some(Form::SignIn) => {
            let signing_in = chat.sign_in(field("name"), password, visitor);
            signing_in.await.map(signed_in)
        }
        Some(Form::Password) => {
            let changing = chat.change_password(field("was"), password, visitor);
            changing.await.map(|()| None)
        }
        None => {
            let signed_out = sign_out(chat, visitor).await;
            signed_out.map(|()| Some(cookie(None, sent.secure)))
        }
    };
    let denied = match done {
        Ok(cookie) => return see_other(&at, cookie),
        Err(denied) => denied,
    };
    METRICS.refused(reason(&denied));
    if let Denied::Trouble(error) = &denied {
        log_failure("answer a form", error);
    }
    let Some(form) = form else {
        return (status(&denied), denied.to_string()).into_response();
    };
    let page = AccountPage {
        user: Some(field("name")).filter(|name| !name.is_empty()),
        resume: Some(field("resume")),
        reason: Some(&denied.to_string()),
        ..AccountPage::empty(form, &at)
    };
    let mut response = page_of(chat, &page, status(&denied));
    if let Denied::TooOften(wait) = denied {
        let seconds = HeaderValue::from(wait.as_secs() + 1);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// The page of a form on its own, unless the form needs a tab of the chat.
pub(crate) async fn blank(
    chat: &Chat,
    uri: &Uri,
    headers: &HeaderMap,
    visitor: &Visitor,
) -> Response {
    if uri.path() == MODERATION_LINK_PATH {
        return admin_link(chat, uri.query().unwrap_or_default(), visitor, None).await;
    }
    if uri.path() == PASSWORD_LINK_PATH {
        return password_link(chat, uri.query().unwrap_or_default(), None).await;
    }
    let at = return_path(&path_of_referer(headers));
    match form_at(uri.path()) {
        Some(form @ Form::SignIn) => page_of(chat, &AccountPage::empty(form, &at), StatusCode::OK),
        _ => see_other(&at, None),
    }
}

/// The page behind a link that makes a moderator. Only submitting its form uses the link up: link
/// previews and scanners open pages too.
async fn admin_link(
    chat: &Chat,
    link: &str,
    visitor: &Visitor,
    denied: Option<&Denied>,
) -> Response {
    let link: Option<ResumeToken> = link.parse().ok();
    let shown = async {
        let link = match link {
            Some(link) if chat.is_admin_link(&link).await? => Some(link),
            _ => None,
        };
        Ok((link, chat.signed_in(visitor.session.as_ref()).await?))
    };
    let (link, user) = match shown.await {
        Ok(shown) => shown,
        Err(denied) => return trouble(&denied),
    };
    let (status, reason) = match (&link, denied) {
        (None, _) => (StatusCode::NOT_FOUND, Some(LINK_EXPIRED.to_owned())),
        (Some(_), Some(denied)) => (status(denied), Some(denied.to_string())),
        (Some(_), None) => (StatusCode::OK, None),
    };
    let html = chat
        .views()
        .moderator_link_page(link.as_ref(), user.as_ref(), reason.as_deref());
    rendered(html, status, reason.as_deref().unwrap_or_default())
}

async fn become_moderator(chat: &Chat, sent: &Sent<'_>, link: &str, password: &str) -> Response {
    let visitor = &sent.visitor;
    let Ok(token) = link.parse::<ResumeToken>() else {
        return admin_link(chat, link, visitor, None).await;
    };
    let becoming = async {
        if chat.signed_in(visitor.session.as_ref()).await?.is_some() {
            chat.become_moderator(&token, visitor).await?;
            return Ok(None);
        }
        let session = chat.arrive_as_moderator(&token, password, visitor).await?;
        Ok(Some(cookie(Some(&session), sent.secure)))
    };
    match becoming.await {
        Ok(cookie) => see_other(MODERATION_PATH, cookie),
        Err(denied) => {
            METRICS.refused(reason(&denied));
            admin_link(chat, link, visitor, Some(&denied)).await
        }
    }
}

/// Creates a link to reset somebody's password and shows it, once, to the moderator who asked for it.
async fn add_password_link(chat: &Chat, sent: &Sent<'_>, name: &str) -> Response {
    let moderator = match chat.moderator(sent.visitor.session.as_ref()).await {
        Ok(Some(moderator)) => moderator,
        Ok(None) => return (StatusCode::FORBIDDEN, NOT_ALLOWED).into_response(),
        Err(denied) => return trouble(&denied),
    };
    let (status, link) = match chat.add_password_link(&moderator, name).await {
        Ok(Some(token)) => {
            let link = format!("{}{PASSWORD_LINK_PATH}?{token}", sent.origin);
            (StatusCode::OK, Ok(link))
        }
        Ok(None) => (StatusCode::NOT_FOUND, Err(NO_ACCOUNT)),
        Err(denied) => return trouble(&denied),
    };
    let link = link.as_deref().map_err(|reason| *reason);
    let html = chat.views().password_link_page(name, link);
    rendered(html, status, link.unwrap_or_else(|reason| reason))
}

/// The page behind such a link. Only submitting its form uses the link up.
async fn password_link(chat: &Chat, link: &str, denied: Option<&Denied>) -> Response {
    let user = match link.parse() {
        Ok(token) => chat.password_link(&token).await,
        Err(_) => Ok(None),
    };
    let user = match user {
        Ok(user) => user,
        Err(denied) => return trouble(&denied),
    };
    let (status, reason) = match (&user, denied) {
        (None, _) => (
            StatusCode::NOT_FOUND,
            Some(PASSWORD_LINK_EXPIRED.to_owned()),
        ),
        (Some(_), Some(denied)) => (status(denied), Some(denied.to_string())),
        (Some(_), None) => (StatusCode::OK, None),
    };
    let reason = reason.as_deref();
    let html = chat
        .views()
        .reset_password_page(link, user.as_ref(), reason);
    rendered(html, status, reason.unwrap_or_default())
}

async fn reset_password(chat: &Chat, sent: &Sent<'_>, link: &str, password: &str) -> Response {
    let Ok(token) = link.parse::<ResumeToken>() else {
        return password_link(chat, link, None).await;
    };
    match chat.reset_password(&token, password, &sent.visitor).await {
        Ok(session) => see_other("/", Some(cookie(Some(&session), sent.secure))),
        Err(denied) => password_link(chat, link, Some(&denied)).await,
    }
}

/// The moderators' page; for everybody else, the form to sign in.
pub(crate) async fn admin(chat: &Chat, scheme: &str, host: &str, visitor: &Visitor) -> Response {
    match chat.moderator(visitor.session.as_ref()).await {
        Ok(Some(_)) => {
            let page = chat.views().moderation_page(scheme, host);
            rendered(page, StatusCode::OK, "")
        }
        Ok(None) => {
            let page = AccountPage {
                reason: Some("This page is for moderators. Sign in as a moderator."),
                ..AccountPage::empty(Form::SignIn, MODERATION_PATH)
            };
            page_of(chat, &page, StatusCode::FORBIDDEN)
        }
        Err(denied) => trouble(&denied),
    }
}

fn trouble(denied: &Denied) -> Response {
    log_failure("answer a request", denied);
    (status(denied), denied.to_string()).into_response()
}

/// The session of a request, if any.
pub(crate) fn session_of(headers: &HeaderMap, secure: bool) -> Option<SessionToken> {
    token_in(headers, &SESSION.name(secure))
}

/// The browser of a request, if it has the cookie.
pub(crate) fn browser_of(headers: &HeaderMap, secure: bool) -> Option<BrowserToken> {
    token_in(headers, &BROWSER.name(secure))
}

fn token_in<T: FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    texts(headers, header::COOKIE)
        .flat_map(Cookie::split_parse)
        .filter_map(std::result::Result::ok)
        .find(|cookie| cookie.name() == name)
        .and_then(|cookie| cookie.value().parse().ok())
}

/// The values of a header that are readable text.
pub(crate) fn texts(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok())
}

fn form_at(path: &str) -> Option<Form> {
    match path {
        "/keep/" => Some(Form::Keep),
        "/sign-in/" => Some(Form::SignIn),
        "/change-password/" => Some(Form::Password),
        _ => None,
    }
}

async fn sign_out(chat: &Chat, visitor: &Visitor) -> Result<(), Denied> {
    match &visitor.session {
        Some(session) => chat.sign_out(session).await,
        None => Ok(()),
    }
}

/// A cookie that only this server reads.
struct Kept(&'static str);

const SESSION: Kept = Kept("overwire-session");
const BROWSER: Kept = Kept("overwire-browser");

impl Kept {
    /// The prefix prevents other hosts of the domain from setting this cookie. A browser accepts the
    /// prefix over `https` only.
    fn name(&self, secure: bool) -> String {
        let prefix = if secure { "__Host-" } else { "" };
        format!("{prefix}{}", self.0)
    }

    /// The header that sets it, until the browser closes or for that many seconds.
    fn header(&self, value: String, secure: bool, seconds: Option<i64>) -> HeaderValue {
        let mut cookie = Cookie::new(self.name(secure), value);
        cookie.set_path("/");
        cookie.set_http_only(true);
        cookie.set_same_site(SameSite::Lax);
        cookie.set_secure(secure);
        cookie.set_max_age(seconds.map(cookie::time::Duration::seconds));
        // A token is letters, digits, hyphens and underscores.
        HeaderValue::try_from(cookie.to_string()).unwrap_or(HeaderValue::from_static(""))
    }
}

/// The cookie of a session; without a session, one that deletes it.
pub(crate) fn cookie(session: Option<&SessionToken>, secure: bool) -> HeaderValue {
    let seconds = session.map_or(0, |_| SESSION_GOOD_FOR.as_secs().cast_signed());
    let value = session.map(ToString::to_string).unwrap_or_default();
    SESSION.header(value, secure, Some(seconds))
}

/// The cookie of a browser that has none yet.
pub(crate) fn browser_cookie(browser: &BrowserToken, secure: bool) -> HeaderValue {
    BROWSER.header(browser.to_string(), secure, None)
}

/// An address of this chat, whatever was asked for.
#[must_use]
pub fn return_path(path: &str) -> String {
    if [LOBBY_PATH, MODERATION_PATH].contains(&path) {
        return path.to_owned();
    }
    let target = protocol::read_address(path);
    let address = target.and_then(|target| protocol::address(&target));
    address.unwrap_or_else(|| "/".to_owned())
}

fn path_of_referer(headers: &HeaderMap) -> String {
    let referer = headers.get(header::REFERER);
    let referer: Option<Uri> = referer.and_then(|uri| uri.as_bytes().try_into().ok());
    referer.map_or(String::new(), |uri| uri.path().to_owned())
}

/// The reason in metrics.
fn reason(denied: &Denied) -> &'static str {
    match denied {
        Denied::Password(_) => "password",
        Denied::Wrong => "sign_in",
        Denied::SomebodyElse => "session",
        Denied::TooOften(_) => "attempts",
        Denied::Busy => "busy",
        Denied::Trouble(_) => "unavailable",
    }
}

fn status(denied: &Denied) -> StatusCode {
    match denied {
        Denied::Password(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Denied::Wrong => StatusCode::UNAUTHORIZED,
        Denied::SomebodyElse => StatusCode::FORBIDDEN,
        Denied::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
        Denied::Busy | Denied::Trouble(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub(crate) fn see_other(at: &str, cookie: Option<HeaderValue>) -> Response {
    let location = [(header::LOCATION, at), (header::CACHE_CONTROL, "no-store")];
    let mut response = (StatusCode::SEE_OTHER, location).into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn page_of(chat: &Chat, page: &AccountPage<'_>, status: StatusCode) -> Response {
    let html = chat.views().account_page(page);
    rendered(html, status, page.reason.unwrap_or_default())
}

/// A page, or the plain `text` if it could not be rendered.
pub(crate) fn rendered(
    html: Result<String, impl Into<anyhow::Error>>,
    status: StatusCode,
    text: &str,
) -> Response {
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    match html {
        Ok(html) => (status, no_store, Html(html)).into_response(),
        Err(error) => {
            log_failure("render a page", &*error.into());
            (status, no_store, text.to_owned()).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_return_path_stays_in_the_chat() {
        #[track_caller]
        fn check(path: &str, expected: &str) {
            assert_eq!(return_path(path), expected, "{path:?}");
        }
        check("/chat/", "/chat/");
        check("/admin/", "/admin/");
        check("/chat/python/", "/chat/python/");
        check("/chat/python", "/chat/python/");
        check("/chat/@anna1/", "/chat/@anna1/");
        check("/chat/two%20words/", "/chat/two%20words/");
        for elsewhere in [
            "",
            "//evil.example/",
            "https://evil.example/chat/hi/",
            "/\\evil.example",
            "/chat//evil.example/",
            "/static/",
            "\t/chat/hi/",
        ] {
            check(elsewhere, "/");
        }
        check(
            "/chat/%0d%0aSet-Cookie: a/",
            "/chat/%0D%0ASet%2DCookie%3A%20a/"
                .replace("%2D", "-")
                .as_str(),
        );
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let token = SessionToken::random();
        let find = |cookies: &[&str], secure| {
            let mut headers = HeaderMap::new();
            for cookies in cookies {
                headers.append(header::COOKIE, cookies.parse().unwrap());
            }
            session_of(&headers, secure).map(|token| token.hash())
        };
        let hash = Some(token.hash());
        let [plain, secure] = [false, true].map(|secure| {
            let set = cookie(Some(&token), secure);
            let set = set.to_str().unwrap().to_owned();
            set.split_once(';').unwrap().0.to_owned()
        });
        assert_eq!(find(&[&format!("a=b; {plain}; c")], false), hash);
        assert_eq!(find(&["a=b", &plain], false), hash);
        assert_eq!(find(&[&secure], true), hash);
        // The cookie of the other scheme, or not a token.
        assert_eq!(find(&[&plain], true), None);
        assert_eq!(find(&["overwire-session=x"], false), None);
        assert_eq!(find(&[], false), None);
    }

    #[test]
    fn no_script_and_no_other_site_gets_the_cookie() {
        let token = SessionToken::random();
        let set = cookie(Some(&token), false);
        let expected =
            format!("overwire-session={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000");
        assert_eq!(set, expected.as_str());
        let set = cookie(None, true);
        let expected =
            "__Host-overwire-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0";
        assert_eq!(set, expected);
    }
}
