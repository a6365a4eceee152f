//! HTTP: the page, static files, the health checks, and the WebSocket upgrade.
//!
//! This module decides who may connect, by origin and address. After the upgrade, `socket` takes over.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use uuid::Uuid;

use crate::chat::{self, Asked, Chat, Client, NotLetIn, Visitor, log_failure};
use crate::files;
use crate::forms::{self, texts};
use crate::hub::Close;
use crate::log::Chain;
use crate::metrics::METRICS;
use crate::model::{BadName, BrowserToken, GroupName, Message, MessageText, SessionToken, Target};
use crate::protocol::{
    Action, Dialect, FILES_PATH, FIRST_GROUP, Frame, Hello, LOBBY_PATH, MODERATION_PATH,
    MODERATION_SOCKET_PATH, Refusal, SEARCH_PATH, SOCKET_PATH, Selector, address, read_address,
};
use crate::relay;
use crate::socket;
use crate::store::StoreError;
use crate::views::Static;
use crate::visits::Visits;
use crate::websocket;

/// The most system memory that a slow reader can use, in bytes.
const SEND_BUFFER: u32 = 128 * 1024;
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long a request's head may take to arrive, and then the body of a form.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long a response may wait for its reader by default.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// How long somebody who sends forms stays online by default.
const FORMS_STAY: Duration = Duration::from_secs(300);
/// How many connections an address may have in addition to twice its sockets: for pages and files, and
/// for sockets that are being rejected.
const SPARE_CONNECTIONS: usize = 16;
/// How long to wait before accepting again after running out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The page loads everything from its own origin: nothing inline, nothing external, no frames.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; manifest-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// Who may connect, with which limits.
#[derive(Clone, Debug)]
pub struct Access {
    /// Allowed origins in addition to the page's own.
    pub allow_origins: Vec<String>,
    /// Proxies whose forwarding headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The most sockets per address; `None` for no limit. For connections of any kind, the limit is
    /// twice as many plus 16, except for trusted proxies.
    pub connections_per_address: Option<usize>,
    /// A response is abandoned when nothing of it could be sent for this long.
    pub stalled_after: Duration,
    /// How long somebody who sends forms stays online after their last request.
    pub forms_stay: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            allow_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            connections_per_address: None,
            stalled_after: STALLED_AFTER,
            forms_stay: FORMS_STAY,
        }
    }
}

/// What request handlers need.
pub struct Web {
    /// The chat.
    pub chat: Arc<Chat>,
    /// Who may connect.
    pub access: Access,
    /// The limits of a socket.
    pub socket_limits: Arc<socket::Limits>,
    connected: Mutex<HashMap<(Kind, IpAddr), usize>>,
    visits: Arc<Visits>,
}

/// What is counted per address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Any connection, from accepting to closing.
    Connection,
    /// A socket, from the upgrade to closing.
    Socket,
}

/// The other end of the connection, which may be a proxy.
#[derive(Clone)]
struct Peer {
    address: IpAddr,
    /// Held while the connection is in use. Connections of a proxy are not counted, since they belong
    /// to many people.
    _counted: Option<Arc<Counted>>,
}

impl Web {
    /// The HTTP server of a chat.
    pub fn new(chat: Arc<Chat>, access: Access, socket_limits: socket::Limits) -> Arc<Self> {
        Arc::new(Self {
            chat,
            socket_limits: Arc::new(socket_limits),
            connected: Mutex::default(),
            visits: Arc::new(Visits::new(access.forms_stay)),
            access,
        })
    }

    fn routes(self: &Arc<Self>) -> Router {
        let header = |name: HeaderName, value: &'static str| {
            SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
        };
        let forms = forms::PATHS.into_iter().fold(Router::new(), |forms, path| {
            forms.route(path, get(blank_form).post(form))
        });
        Router::new()
            .route("/", get(first_group))
            .route("/chat/", get(page).post(act))
            .route("/chat", get(with_slash))
            .route(SEARCH_PATH, get(page))
            .route("/chat/{name}", get(with_slash))
            .route("/chat/{name}/", get(page).post(act))
            .route("/static/{build}/{*path}", get(static_file))
            .route("/service-worker.js", get(service_worker))
            .layer(CompressionLayer::new().quality(CompressionLevel::Best))
            .route(MODERATION_PATH, get(admin))
            .route("/admin", get(with_slash))
            .route(SOCKET_PATH, get(page_socket))
            .route(MODERATION_SOCKET_PATH, get(admin_socket))
            .route("/ws/chat/{group}/", get(objects_socket))
            .route("/ws/{group}/", get(lines_socket))
            .route("/health", get(health))
            .route("/ready", get(ready))
            .route(FILES_PATH, post(take_file))
            .route("/files/{id}/{name}", get(read_file))
            .merge(forms)
            .fallback(page)
            .layer(header(
                header::CONTENT_SECURITY_POLICY,
                CONTENT_SECURITY_POLICY,
            ))
            .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .layer(header(header::REFERRER_POLICY, "same-origin"))
            .layer(header(
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ))
            .layer(header(
                HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin",
            ))
            .layer(CatchPanicLayer::new())
            .with_state(Arc::clone(self))
    }

    /// Whether a page of that origin may open a socket or send a form. Programs send no origin.
    fn may_connect(&self, headers: &HeaderMap, outside: &Outside) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else {
            let site = headers.get("sec-fetch-site");
            return site.is_none_or(|site| site == "same-origin" || site == "none");
        };
        let Ok(origin) = origin.to_str().map(str::to_lowercase) else {
            return false;
        };
        origin == format!("{}://{}", outside.scheme, outside.host)
            || self.access.allow_origins.contains(&origin)
    }

    /// The refusal for a request from a page of another origin.
    fn refuse_origin(&self, headers: &HeaderMap, outside: &Outside) -> Option<Response> {
        if self.may_connect(headers, outside) {
            return None;
        }
        METRICS.refused("origin");
        let words = "Requests from that origin are not allowed.\n";
        Some((StatusCode::FORBIDDEN, words).into_response())
    }

    /// In a debug build, the next page shows a changed template.
    fn read_templates(&self) {
        if cfg!(debug_assertions)
            && let Err(error) = self.chat.views().reload()
        {
            log_failure("read a changed template, so the previous ones stay", &error);
        }
    }

    /// How the browser sees the server.
    fn outside(&self, request: &Request) -> Outside {
        let peer = request.extensions().get::<Peer>();
        let peer = peer.map_or(Ipv6Addr::UNSPECIFIED.into(), |peer| peer.address);
        self.access.seen_from_outside(request.headers(), peer)
    }

    /// Counts a new connection; `None` if it is over the limit.
    fn count_connection(self: &Arc<Self>, address: IpAddr) -> Option<Peer> {
        let _counted = match self.access.trusts(address) {
            true => None,
            false => Some(Arc::new(self.count(Kind::Connection, address)?)),
        };
        Some(Peer { address, _counted })
    }

    /// Counts one more for an address until the result is dropped; `None` if it is over the limit.
    fn count(self: &Arc<Self>, kind: Kind, address: IpAddr) -> Option<Counted> {
        let address = household(address);
        let mut connected = self.connected.lock();
        let of = (kind, address);
        let count = connected.entry(of).or_default();
        if self.access.limit(kind).is_some_and(|limit| *count >= limit) {
            return None;
        }
        *count += 1;
        Some(Counted {
            web: Arc::clone(self),
            of,
        })
    }
}

impl Access {
    /// The limit of one address.
    fn limit(&self, kind: Kind) -> Option<usize> {
        let sockets = self.connections_per_address?;
        Some(match kind {
            Kind::Connection => sockets.saturating_mul(2).saturating_add(SPARE_CONNECTIONS),
            Kind::Socket => sockets,
        })
    }

    /// Scheme and host as the browser sees them, and the browser's address.
    ///
    /// Each trusted proxy appends what it saw to the end of each list, so values that belong together
    /// are equally far from the end. The last address that is not trusted is the browser; its scheme
    /// and host are as far from the end. If a list is shorter, not every proxy appends to it, and its
    /// first value is the oldest known.
    fn seen_from_outside(&self, headers: &HeaderMap, peer: IpAddr) -> Outside {
        let host = texts(headers, header::HOST).next().unwrap_or_default();
        if !self.trusts(peer) {
            return Outside {
                scheme: "http",
                host: without_default_port("http", &host.to_lowercase()).to_owned(),
                address: peer,
            };
        }
        let (mut address, mut from_end) = (peer, 0);
        let forwarded = listed(headers, "x-forwarded-for");
        for (steps, next) in forwarded.iter().rev().enumerate() {
            from_end = steps;
            let Some(next) = forwarded_address(next) else {
                break;
            };
            address = next;
            if !self.trusts(next) {
                break;
            }
        }
        let used = |name: &str| {
            let values = listed(headers, name);
            let oldest = values.len().checked_sub(1)?;
            Some(values[oldest - from_end.min(oldest)].to_lowercase())
        };
        let scheme = match used("x-forwarded-proto").as_deref() {
            Some("https" | "wss") => "https",
            _ => "http",
        };
        let host = used("x-forwarded-host").unwrap_or_else(|| host.to_lowercase());
        Outside {
            scheme,
            host: without_default_port(scheme, &host).to_owned(),
            address,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|proxy| proxy.contains(&address.to_canonical()))
    }
}

/// The part of an address that a household shares: for IPv6, at least a /64.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        address => address,
    }
}

/// A host as browsers write it in an origin: without the default port.
pub(crate) fn without_default_port<'a>(scheme: &str, host: &'a str) -> &'a str {
    let port = match scheme {
        "https" => ":443",
        _ => ":80",
    };
    host.strip_suffix(port).unwrap_or(host)
}

/// The values of a header that is a list, possibly over several lines.
fn listed(headers: &HeaderMap, name: &str) -> Vec<String> {
    let mut listed = Vec::new();
    for line in headers.get_all(name) {
        // What a proxy appended counts, whatever bytes came before it.
        let line = String::from_utf8_lossy(line.as_bytes());
        let values = line.split(',').map(str::trim);
        listed.extend(values.filter(|value| !value.is_empty()).map(str::to_owned));
    }
    listed
}

/// An address. Some proxies write it with a port or in brackets.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse().map(IpAddr::V6).ok(),
        None => {
            let with_port = || text.parse().map(|with_port: SocketAddr| with_port.ip());
            text.parse().or_else(|_| with_port()).ok()
        }
    }
}

struct Outside {
    scheme: &'static str,
    host: String,
    address: IpAddr,
}

impl Outside {
    fn is_secure(&self) -> bool {
        self.scheme == "https"
    }
}

struct Counted {
    web: Arc<Web>,
    of: (Kind, IpAddr),
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut connected = self.web.connected.lock();
        if let Some(count) = connected.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                connected.remove(&self.of);
            }
        }
    }
}

/// A connection whose writes time out.
struct TimedStream {
    stream: TcpStream,
    patience: Duration,
    /// Set while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    /// The result of a write: an error if nothing could be written for too long.
    fn poll_or_time_out(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.poll_or_time_out(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.poll_or_time_out(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // Only the system's own buffer has to be flushed.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn first_group() -> Redirect {
    let first = address(&Target::Group(FIRST_GROUP.to_owned()));
    Redirect::temporary(first.as_deref().unwrap_or("/chat/hi/"))
}

async fn with_slash(OriginalUri(uri): OriginalUri) -> Redirect {
    Redirect::permanent(&format!("{}/", uri.path()))
}

async fn page(State(web): State<Arc<Web>>, request: Request) -> Response {
    if let Some(room) = person_asked_for(request.uri()) {
        return forms::see_other(&room, None);
    }
    let outside = web.outside(&request);
    let session = forms::session_of(request.headers(), outside.is_secure());
    let known = forms::browser_of(request.headers(), outside.is_secure());
    let fresh = known.is_none().then(BrowserToken::random);
    let cookies = (session.as_ref(), known.as_ref());
    let asked = web.asked(&outside, request.uri(), cookies, None);
    web.shown(&asked, StatusCode::OK, fresh.as_ref()).await
}

/// The private room that a form of the lobby asks for.
fn person_asked_for(uri: &Uri) -> Option<String> {
    let mut fields = form_urlencoded::parse(uri.query()?.as_bytes());
    let (_, name) = fields.find(|(name, _)| uri.path() == LOBBY_PATH && name == "person")?;
    address(&Target::Private(name.trim().to_lowercase()))
}

/// A form of a page: an action by a browser that runs no script. Its fields are the data of the action.
async fn act(State(web): State<Arc<Web>>, request: Request) -> Response {
    let outside = web.outside(&request);
    if let Some(refusal) = web.refuse_origin(request.headers(), &outside) {
        return refusal;
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, web.socket_limits.frame_bytes);
    let Ok(Ok(body)) = tokio::time::timeout(HEAD_DEADLINE, body).await else {
        let words = "The request is too large or too slow.\n";
        return (StatusCode::PAYLOAD_TOO_LARGE, words).into_response();
    };
    let act = || web.acted(&outside, &head.uri, &head.headers, &body);
    let acted = match act().await {
        // The client has ended meanwhile. Whoever the browser stands for now sends the form.
        Ok(None) => act().await,
        acted => acted,
    };
    match acted {
        Ok(Some(response)) => response,
        Ok(None) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Err(NotLetIn::Banned) => {
            METRICS.refused("banned");
            (StatusCode::FORBIDDEN, "You are banned from this chat.\n").into_response()
        }
        Err(error) => {
            log_failure("answer a form", &error);
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

impl Web {
    fn asked<'a>(
        &self,
        outside: &'a Outside,
        uri: &'a Uri,
        (session, browser): (Option<&'a SessionToken>, Option<&'a BrowserToken>),
        refused: Option<(&'a str, &'a str)>,
    ) -> Asked<'a> {
        self.read_templates();
        Asked {
            address: uri.path(),
            scheme: outside.scheme,
            host: &outside.host,
            query: uri.query(),
            session,
            browser,
            refused,
        }
    }

    /// The page, with the cookies that the browser needs.
    async fn shown(
        &self,
        asked: &Asked<'_>,
        status: StatusCode,
        fresh: Option<&BrowserToken>,
    ) -> Response {
        let page = self.chat.first_page(asked).await;
        let reader = page.as_ref().ok().and_then(|page| page.reader.as_ref());
        if let Some((browser, reader)) = asked.browser.zip(reader) {
            let session = asked.session.filter(|_| !reader.guest);
            self.visits.renew(&browser.of_forms(session));
        }
        let status = match &page {
            Ok(page) if page.found => status,
            Ok(_) => StatusCode::NOT_FOUND,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let session = asked.session.filter(|_| page.is_ok());
        let secure = asked.scheme == "https";
        let notice = "The chat cannot be shown right now. Please try again in a moment.";
        let mut response = forms::rendered(page.map(|page| page.html), status, notice);
        // The cookie of a session stays the same and expires later.
        let session = session.map(|session| forms::cookie(Some(session), secure));
        let browser = fresh.map(|browser| forms::browser_cookie(browser, secure));
        for cookie in session.into_iter().chain(browser) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }

    /// Does what a form asks for; `None` if the client ended before that.
    async fn acted(
        self: &Arc<Self>,
        outside: &Outside,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Response>, NotLetIn> {
        let (chat, secure) = (&self.chat, outside.is_secure());
        let known = forms::browser_of(headers, secure);
        let browser = known.clone().unwrap_or_else(BrowserToken::random);
        let fresh = known.is_none().then_some(&browser);
        // One that has expired stands for nobody.
        let session = forms::session_of(headers, secure);
        let signed_in = chat.signed_in(session.as_ref()).await;
        let session = session.filter(|_| matches!(signed_in, Ok(Some(_))));
        let origin = format!("{}://{}", outside.scheme, outside.host);
        let hello = Hello::of_forms(browser.clone(), session.clone(), origin);
        let token = browser.of_forms(session.as_ref());
        let admit = || self.count(Kind::Socket, outside.address);
        let Some(turn) = self.visits.turn(chat, &token, hello, admit).await? else {
            METRICS.refused("sockets_per_address");
            let words = "There are too many connections from your address.\n";
            return Ok(Some((StatusCode::TOO_MANY_REQUESTS, words).into_response()));
        };
        let client = turn.client();
        let (text, mut action) = form_action(body);
        if let Ok(Action::NewMessage { key, text, .. }) = &mut action {
            // A browser may show a page again whose key it has used for another text.
            let sent = match key {
                Some(key) => chat.sent(client, *key).await.map_err(NotLetIn::Store)?,
                None => None,
            };
            let typed = MessageText::new(text, usize::MAX);
            let is_same = |(sent, _): &(Message, bool)| {
                typed
                    .as_ref()
                    .is_ok_and(|typed| typed.as_str() == sent.text)
            };
            // The text of a command is not the one that is stored.
            let is_command = text.trim_start().starts_with('/');
            *key = match *key {
                Some(key) if is_command || sent.is_some_and(|sent| !is_same(&sent)) => {
                    Some(key_of(key, text))
                }
                Some(key) => Some(key),
                None => Some(Uuid::new_v4()),
            };
        }
        let (name, key) = match &action {
            Ok(action @ Action::NewMessage { key, .. }) => (action.name(), *key),
            Ok(action) => (action.name(), None),
            Err(_) => ("", None),
        };
        client.outbox.take(usize::MAX);
        let mut notice = None;
        if let Some(target) = read_address(uri.path()) {
            let enter = Action::ChangeGroup { target };
            chat.handle(client, chat::Request(Ok(enter))).await;
            notice = notice_in(client);
        }
        if notice.is_none() {
            chat.handle(client, chat::Request(action)).await;
            notice = notice_in(client);
        }
        if client.outbox.closing().is_some() {
            return Ok(None);
        }
        if let Some((html, tone)) = notice {
            let status = match tone {
                "done" => StatusCode::OK,
                "wait" => StatusCode::TOO_MANY_REQUESTS,
                "trouble" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            let text = if tone == "done" { "" } else { &text };
            let cookies = (session.as_ref(), Some(&browser));
            let asked = self.asked(outside, uri, cookies, Some((&html, text)));
            let shown = self.shown(&asked, status, fresh);
            return Ok(Some(shown.await));
        }
        let mut to = match name {
            "New group" | "Leave group" => chat.address_of(client).await,
            _ => uri.path().to_owned(),
        };
        if let Some(key) = key
            && let Ok(Some((message, true))) = chat.sent(client, key).await
        {
            to += &format!("#message-{}", message.id);
        }
        let cookie = fresh.map(|browser| forms::browser_cookie(browser, secure));
        Ok(Some(forms::see_other(&to, cookie)))
    }
}

/// A key of its own for this text, the same each time that the form is sent.
fn key_of(key: Uuid, text: &str) -> Uuid {
    let hash = Sha256::new_with_prefix(key.as_bytes())
        .chain_update(text)
        .finalize();
    let bytes = hash.first_chunk().copied().unwrap_or_default();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The action of a form, and the text that was typed in it. The fields are its data, in addition to what
/// `payload` has, as on a control of the page.
fn form_action(body: &[u8]) -> (String, Result<Action, Refusal>) {
    // Forms have line breaks of two characters.
    let fields = form_urlencoded::parse(body);
    let mut fields: HashMap<_, _> = fields
        .map(|(name, value)| (name.into_owned(), value.replace("\r\n", "\n")))
        .collect();
    let action = fields.remove("action");
    let action = action.unwrap_or_else(|| "New message".to_owned());
    let text = fields.get("message").cloned().unwrap_or_default();
    let payload = fields.remove("payload").unwrap_or_default();
    let payload: Option<serde_json::Map<_, _>> = serde_json::from_str(&payload).ok();
    let mut data = payload.unwrap_or_default();
    data.extend(fields.into_iter().map(|(name, value)| (name, value.into())));
    let action = serde_json::json!({ "action": action, "data": data });
    (text, Action::parse(&action.to_string()))
}

/// The newest notice that waits for a client, as a fragment, and its tone.
fn notice_in(client: &Client) -> Option<(String, &'static str)> {
    let taken = client.outbox.take(usize::MAX).frames;
    let payloads = taken.iter().flat_map(Frame::payloads);
    let pushes = payloads.filter_map(|push| serde_json::from_slice::<serde_json::Value>(push).ok());
    let html = pushes
        .filter(|push| push["selector"] == Selector::NOTICE.as_str())
        .filter_map(|push| push["html"].as_str().map(str::to_owned))
        .filter(|html| !html.is_empty())
        .last()?;
    let tones = ["done", "wait", "trouble"];
    let has = |tone: &&str| html.contains(&format!("data-tone=\"{tone}\""));
    let tone = tones.into_iter().find(has).unwrap_or("refusal");
    Some((html, tone))
}

async fn blank_form(State(web): State<Arc<Web>>, request: Request) -> Response {
    web.read_templates();
    let visitor = visitor(&web.outside(&request), request.headers());
    forms::blank(&web.chat, request.uri(), request.headers(), &visitor).await
}

async fn admin(State(web): State<Arc<Web>>, request: Request) -> Response {
    web.read_templates();
    let outside = web.outside(&request);
    let visitor = visitor(&outside, request.headers());
    forms::admin(&web.chat, outside.scheme, &outside.host, &visitor).await
}

/// Where a request comes from, and with which session.
fn visitor(outside: &Outside, headers: &HeaderMap) -> Visitor {
    Visitor {
        address: household(outside.address),
        whole_address: outside.address,
        session: forms::session_of(headers, outside.is_secure()),
        browser: forms::browser_of(headers, outside.is_secure()),
    }
}

async fn form(State(web): State<Arc<Web>>, request: Request) -> Response {
    let outside = web.outside(&request);
    if let Some(refusal) = web.refuse_origin(request.headers(), &outside) {
        return refusal;
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, forms::FORM_BYTES);
    let Ok(Ok(body)) = tokio::time::timeout(HEAD_DEADLINE, body).await else {
        let words = "The request is too large or too slow.\n";
        return (StatusCode::PAYLOAD_TOO_LARGE, words).into_response();
    };
    let sent = forms::Sent {
        path: head.uri.path(),
        headers: &head.headers,
        body: &body,
        secure: outside.is_secure(),
        origin: format!("{}://{}", outside.scheme, outside.host),
        visitor: visitor(&outside, &head.headers),
    };
    forms::answer(&web.chat, &sent).await
}

async fn take_file(State(web): State<Arc<Web>>, request: Request) -> Response {
    let outside = web.outside(&request);
    if let Some(refusal) = web.refuse_origin(request.headers(), &outside) {
        return refusal;
    }
    let (head, body) = request.into_parts();
    let visitor = visitor(&outside, &head.headers);
    files::take(&web.chat, &head.uri, &head.headers, &visitor, body).await
}

async fn read_file(
    State(web): State<Arc<Web>>,
    Path((id, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    let visitor = visitor(&web.outside(&request), request.headers());
    files::read(&web.chat, &id, request.uri(), request.headers(), &visitor).await
}

/// The scope of a service worker is its folder, so it is at the root and not among the static files.
async fn service_worker(headers: HeaderMap) -> Response {
    static_file(
        Path((String::new(), "service-worker.js".to_owned())),
        headers,
    )
    .await
}

async fn static_file(Path((build, path)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let (Some(file), Some(sent)) = (Static::get(&path), Static::sent(&path)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // An address of this build never means anything else, so it can be cached for good. An address of
    // another build, from a page left open over a restart or rendered by a node of another build, is
    // answered as well as possible and not cached: the next node may have the right file.
    let cache = match build == Static::build() && !cfg!(debug_assertions) {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    // Weak, since the response may be compressed.
    let etag = format!("W/\"{}\"", sent.tag);
    let mut known = texts(&headers, header::IF_NONE_MATCH).flat_map(|tags| tags.split(','));
    let fresh = known.any(|known| known.trim() == etag);
    let fixed = [
        (header::CACHE_CONTROL, cache.to_owned()),
        (header::ETAG, etag),
    ];
    if fresh {
        return (StatusCode::NOT_MODIFIED, fixed).into_response();
    }
    let kind = match file.metadata.mimetype() {
        text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        other => other.to_owned(),
    };
    (fixed, [(header::CONTENT_TYPE, kind)], sent.content).into_response()
}

/// The process is alive and serves requests.
async fn health() -> &'static str {
    "alive\n"
}

/// Whether people can chat here: the database can be written and read. The state of the relay is named
/// too, but a node is ready without it.
async fn ready(State(web): State<Arc<Web>>) -> Response {
    let checked = web.chat.check().await;
    let words = match &checked {
        Ok(relay::State::InProcess) => "ready\nrelay: none\n",
        Ok(relay::State::Connected) => "ready\nrelay: connected\n",
        Ok(relay::State::Disconnected) => "ready\nrelay: disconnected\n",
        Err(StoreError::Missing(_)) => "not ready: the database file was deleted or replaced\n",
        Err(_) => "not ready: the database cannot be written and read\n",
    };
    let status = match checked {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(header::CACHE_CONTROL, "no-store")], words).into_response()
}

async fn page_socket(State(web): State<Arc<Web>>, request: Request) -> Response {
    let offered = texts(request.headers(), header::SEC_WEBSOCKET_PROTOCOL);
    let hello = Hello::read(offered, request.uri().query().unwrap_or_default());
    upgrade(web, request, Ok(hello))
}

/// The socket of the moderators' page.
async fn admin_socket(State(web): State<Arc<Web>>, request: Request) -> Response {
    let visitor = visitor(&web.outside(&request), request.headers());
    match web.chat.moderator(visitor.session.as_ref()).await {
        Ok(Some(_)) => upgrade(web, request, Ok(Hello::of_moderator())),
        Ok(None) => {
            METRICS.refused("not_moderator");
            (StatusCode::FORBIDDEN, "Only moderators may connect here.\n").into_response()
        }
        Err(error) => {
            log_failure("admit a moderator", &error);
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

async fn objects_socket(
    State(web): State<Arc<Web>>,
    Path(group): Path<String>,
    request: Request,
) -> Response {
    upgrade(web, request, by_door(Dialect::Objects, &group))
}

async fn lines_socket(
    State(web): State<Arc<Web>>,
    Path(group): Path<String>,
    request: Request,
) -> Response {
    upgrade(web, request, by_door(Dialect::Lines, &group))
}

fn by_door(dialect: Dialect, group: &str) -> Result<Hello, (Dialect, BadName)> {
    let group = GroupName::new(group).map_err(|bad| (dialect, bad))?;
    Ok(Hello::by_door(dialect, group))
}

/// Upgrades a request to a socket. If the group's name is invalid, the socket says why, since browsers
/// do not show a page the text of any other response.
fn upgrade(
    web: Arc<Web>,
    mut request: Request,
    hello: Result<Hello, (Dialect, BadName)>,
) -> Response {
    let headers = request.headers();
    let has = |name: HeaderName, word: &str| {
        let mut parts = texts(headers, name).flat_map(|value| value.split(','));
        parts.any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let upgrades = has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade");
    let key = texts(headers, header::SEC_WEBSOCKET_KEY).next();
    let Some(key) = key.filter(|_| upgrades) else {
        let upgrade = [(header::UPGRADE, "websocket")];
        let words = "This address accepts only WebSocket connections.\n";
        return (StatusCode::UPGRADE_REQUIRED, upgrade, words).into_response();
    };
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        let version = [(header::SEC_WEBSOCKET_VERSION, "13")];
        let words = "WebSocket version 13 is required.\n";
        return (StatusCode::UPGRADE_REQUIRED, version, words).into_response();
    }
    let peer = request.extensions().get::<Peer>().cloned();
    let outside = web.outside(&request);
    if let Some(refusal) = web.refuse_origin(headers, &outside) {
        return refusal;
    }

    let session = forms::session_of(headers, outside.is_secure());
    let browser = forms::browser_of(headers, outside.is_secure());
    let origin = format!("{}://{}", outside.scheme, outside.host);
    let forms = browser.as_ref().map(|browser| browser.of_forms(None));
    let hello = hello.map(|hello| Hello {
        session,
        browser,
        forms: forms.filter(|_| hello.dialect == Dialect::V1),
        origin,
        ..hello
    });
    let offers = texts(headers, header::SEC_WEBSOCKET_EXTENSIONS);
    let deflate = websocket::negotiate_deflate(offers);
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, websocket::accept_key(key));
    let dialect = hello
        .as_ref()
        .map_or_else(|(dialect, _)| *dialect, |hello| hello.dialect);
    if let Some(subprotocol) = dialect.subprotocol() {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    if let Some(agreed) = deflate {
        response = response.header(header::SEC_WEBSOCKET_EXTENSIONS, agreed);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let deflate = deflate.is_some();
    tokio::spawn(async move {
        // A client that abandons the upgrade was never here.
        let Ok(upgraded) = upgrade.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<TimedStream>>() else {
            return;
        };
        let stream = parts.io.into_inner().stream;
        let counted = web.count(Kind::Socket, outside.address);
        let (notice, reason, why) = match (counted, hello) {
            (Some(counted), Ok(hello)) => {
                let chat = Arc::clone(&web.chat);
                // Early bytes are copied, so that the buffer they came in is freed.
                let early = parts.read_buf.to_vec();
                drop(parts.read_buf);
                let limits = Arc::clone(&web.socket_limits);
                let arriving = socket::arrive(stream, &early, hello, deflate, limits, chat);
                if let Some(socket) = arriving.await {
                    // A separate task, so that memory used up to here is freed.
                    tokio::spawn(async move {
                        socket.serve().await;
                        // Dropped here rather than bound before, which would take their memory twice.
                        drop((counted, peer));
                    });
                }
                return;
            }
            (None, _) => (
                "There are too many connections from your address.".to_owned(),
                "too many connections",
                "sockets_per_address",
            ),
            (_, Err((_, bad))) => (bad.to_string(), "not the name of a group", "group_name"),
        };
        METRICS.refused(why);
        let close = Close::drained(1008, reason);
        let farewell = web.chat.farewell(dialect, &notice);
        socket::turn_away(stream, deflate, farewell, close).await;
    });
    response.body(Body::empty()).unwrap_or_else(|error| {
        log_failure("answer a WebSocket upgrade", &error);
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

/// Listens at an address, with small send buffers for every connection.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until `stop`, then waits at most `deadline` for the requests under way. The chat
/// closes the sockets. The listener is closed at once: tabs that lose their socket are refused here, so
/// that a balancer sends them elsewhere without a health check first.
pub async fn serve(
    listener: TcpListener,
    web: &Arc<Web>,
    stop: impl Future<Output = ()>,
    deadline: Duration,
) {
    let routes = TowerToHyperService::new(web.routes());
    let (stopping, stopped) = watch::channel(());
    // Every connection holds a sender. The channel closes when the last one ends.
    let (under_way, mut ended) = mpsc::channel::<()>(1);
    tokio::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("could not accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        let Some(peer) = web.count_connection(peer.ip()) else {
            METRICS.refused("connections_per_address");
            // An answer would need a request first, and waiting for it.
            tracing::debug!("too many connections from one address");
            continue;
        };
        // Frames are joined in the outbox, so the system must not delay them.
        let _ = stream.set_nodelay(true);
        let routes = routes.clone();
        // A layer with the peer would build all routes anew for each connection.
        let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            routes.call(request)
        });
        let stream = TimedStream {
            stream,
            patience: web.access.stalled_after,
            waiting: None,
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .serve_connection(TokioIo::new(stream), answer)
            .with_upgrades();
        let (mut stopped, under_way) = (stopped.clone(), under_way.clone());
        tokio::spawn(async move {
            let _under_way = under_way;
            tokio::pin!(connection);
            let done = tokio::select! {
                done = connection.as_mut() => done,
                _ = stopped.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = done {
                tracing::debug!("a connection ended early: {}", Chain(&error));
            }
        });
    }
    drop((listener, stopping, under_way));
    if tokio::time::timeout(deadline, ended.recv()).await.is_err() {
        tracing::warn!("some requests were still running at shutdown");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_proxies_scheme_host_and_address_are_the_browsers() {
        #[track_caller]
        fn check(peer: &str, headers: &[(&'static str, &str)], expected: (&str, &str, &str)) {
            let access = Access {
                trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
                ..Access::default()
            };
            let mut map = HeaderMap::new();
            map.insert(header::HOST, HeaderValue::from_static("Inside:8000"));
            for (name, value) in headers {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                map.append(*name, value);
            }
            let outside = access.seen_from_outside(&map, peer.parse().unwrap());
            let found = (
                outside.scheme,
                &*outside.host,
                &*outside.address.to_string(),
            );
            assert_eq!(found, expected);
        }
        const FOR: &str = "x-forwarded-for";
        const PROTO: &str = "x-forwarded-proto";
        const HOST: &str = "x-forwarded-host";

        // Browsers leave the default port out of an origin. Proxies may keep it in the host.
        for (proto, host, expected) in [
            ("https", "a.example:443", "a.example"),
            ("https", "a.example:80", "a.example:80"),
            ("https", "a.example:8443", "a.example:8443"),
            ("https", "[2001:db8::443]", "[2001:db8::443]"),
            ("https", "[2001:db8::1]:443", "[2001:db8::1]"),
            ("http", "a.example:80", "a.example"),
            ("http", "a.example:443", "a.example:443"),
        ] {
            let headers = [(FOR, "203.0.113.7"), (PROTO, proto), (HOST, host)];
            check("10.0.0.1", &headers, (proto, expected, "203.0.113.7"));
        }

        // Untrusted peers are not believed.
        check("192.0.2.1", &[], ("http", "inside:8000", "192.0.2.1"));
        let all = [(FOR, "203.0.113.7"), (PROTO, "https"), (HOST, "a.example")];
        check("192.0.2.1", &all, ("http", "inside:8000", "192.0.2.1"));

        // One proxy.
        check("10.0.0.1", &[], ("http", "inside:8000", "10.0.0.1"));
        check("10.0.0.1", &all, ("https", "a.example", "203.0.113.7"));
        check(
            "::ffff:10.0.0.1",
            &all,
            ("https", "a.example", "203.0.113.7"),
        );
        check(
            "fd00::1",
            &[(PROTO, "WSS"), (HOST, "")],
            ("https", "inside:8000", "fd00::1"),
        );
        // It appends to what the browser made up.
        let made_up = [
            (FOR, "1.2.3.4, 203.0.113.7"),
            (PROTO, "https, http"),
            (HOST, "evil.example, a.example"),
        ];
        check("10.0.0.1", &made_up, ("http", "a.example", "203.0.113.7"));
        let made_up = [(FOR, "203.0.113.7"), (PROTO, "https"), (PROTO, "http")];
        check("10.0.0.1", &made_up, ("http", "inside:8000", "203.0.113.7"));
        let made_up = [(FOR, "\u{fc}, 203.0.113.7")];
        check("10.0.0.1", &made_up, ("http", "inside:8000", "203.0.113.7"));

        // Two proxies, each of which appends.
        let two = [
            (FOR, "203.0.113.7, 10.0.0.2"),
            (PROTO, "https, http"),
            (HOST, "A.example, inside"),
        ];
        check("10.0.0.1", &two, ("https", "a.example", "203.0.113.7"));
        let two = [
            (FOR, "1.2.3.4,203.0.113.7"),
            (FOR, "10.0.0.2"),
            (PROTO, "http,https,http"),
        ];
        check("10.0.0.1", &two, ("https", "inside:8000", "203.0.113.7"));
        // Two proxies, of which one does not append or the inner one overwrites.
        let two = [
            (FOR, "203.0.113.7, 10.0.0.2"),
            (PROTO, "https"),
            (HOST, "a.example"),
        ];
        check("10.0.0.1", &two, ("https", "a.example", "203.0.113.7"));
        // Two proxies, of which the outer one is not trusted.
        let two = [(FOR, "203.0.113.7, 192.0.2.1"), (PROTO, "https, http")];
        check("10.0.0.1", &two, ("http", "inside:8000", "192.0.2.1"));
        // A browser inside the trusted network.
        let inside = [(FOR, "10.0.0.3, 10.0.0.2"), (PROTO, "https, http")];
        check("10.0.0.1", &inside, ("https", "inside:8000", "10.0.0.3"));

        // With ports and brackets, and values that are not addresses.
        for (text, expected) in [
            ("203.0.113.7:1234", "203.0.113.7"),
            ("203.0.113.7:1, 10.0.0.2:65535", "203.0.113.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443, [fd00::2]", "2001:db8::1"),
            ("203.0.113.7, unknown", "10.0.0.1"),
            ("203.0.113.7, 203.0.113.8:", "10.0.0.1"),
            ("203.0.113.7, [203.0.113.8]", "10.0.0.1"),
            ("unknown, 10.0.0.2", "10.0.0.2"),
        ] {
            check(
                "10.0.0.1",
                &[(FOR, text)],
                ("http", "inside:8000", expected),
            );
        }
        let unknown = [(FOR, "unknown, 10.0.0.2"), (PROTO, "https, http")];
        check("10.0.0.1", &unknown, ("https", "inside:8000", "10.0.0.2"));
    }
}
