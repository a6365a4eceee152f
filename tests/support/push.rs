//! A push service of the tests' own, and the keys of a browser that subscribes to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use overwire::model::PushSubscription;
use parking_lot::Mutex;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;
use tokio::sync::mpsc;
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint as _;

use super::soon;

/// What the push service answers: a status with a value of `Retry-After`, or nothing at all.
pub(crate) type Answer = Option<(u16, Option<&'static str>)>;

/// A server that takes notifications for browsers.
pub(crate) struct PushService {
    pub(crate) origin: String,
    answers: Answers,
    received: mpsc::UnboundedReceiver<Request>,
}

type Answers = Arc<Mutex<VecDeque<Answer>>>;

/// A request that it got.
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl PushService {
    pub(crate) async fn start() -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let answers = Answers::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let state = (sender, Arc::clone(&answers));
        let service = Router::new().fallback(take).with_state(state);
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self {
            origin,
            answers,
            received,
        }
    }

    /// The next requests get these answers; all others are accepted.
    pub(crate) fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().extend(answers);
    }

    pub(crate) async fn gets(&mut self) -> Request {
        let request = soon("a request to the push service", self.received.recv());
        request.await.unwrap()
    }

    /// Whether a request has arrived that nobody has looked at.
    pub(crate) fn has_more(&self) -> bool {
        !self.received.is_empty()
    }
}

async fn take(
    State((sender, answers)): State<(mpsc::UnboundedSender<Request>, Answers)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (path, body) = (uri.path().to_owned(), body.to_vec());
    let answer = answers.lock().pop_front().unwrap_or(Some((201, None)));
    // The test may have ended.
    let _ = sender.send(Request {
        path,
        headers,
        body,
    });
    let Some((status, wait)) = answer else {
        return std::future::pending().await;
    };
    let mut response = axum::http::StatusCode::from_u16(status)
        .unwrap()
        .into_response();
    if let Some(wait) = wait {
        let name = if status < 400 {
            "location"
        } else {
            "retry-after"
        };
        response.headers_mut().insert(name, wait.parse().unwrap());
    }
    response
}

/// What a browser keeps of its subscription.
pub(crate) struct Browser {
    secret: SecretKey,
    auth: [u8; 16],
}

impl Browser {
    pub(crate) fn new() -> Self {
        let secret = SecretKey::from_slice(&rand::random::<[u8; 32]>()).unwrap();
        let auth = rand::random();
        Self { secret, auth }
    }

    fn public_key(&self) -> Vec<u8> {
        let point = self.secret.public_key().to_encoded_point(false);
        point.as_bytes().to_vec()
    }

    pub(crate) fn subscription(&self, endpoint: &str) -> PushSubscription {
        PushSubscription {
            endpoint: endpoint.to_owned(),
            p256dh: self.public_key(),
            auth: self.auth.to_vec(),
        }
    }

    /// The data of the action with which a page subscribes.
    pub(crate) fn subscribes(&self, endpoint: &str) -> Value {
        serde_json::json!({
            "endpoint": endpoint,
            "p256dh": URL_SAFE_NO_PAD.encode(self.public_key()),
            "auth": URL_SAFE_NO_PAD.encode(self.auth),
        })
    }

    /// Decrypts what the push service got, with another program's code. The text is padded.
    pub(crate) fn opens(&self, request: &Request) -> Vec<u8> {
        let body = request.body.clone();
        web_push_native::decrypt(body, &self.secret, &self.auth.into()).unwrap()
    }
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// Checks the signature. Returns what is signed, and the key.
    pub(crate) fn signed(&self) -> (Value, String) {
        let vapid = self
            .header("authorization")
            .strip_prefix("vapid t=")
            .unwrap();
        let (token, key) = vapid.split_once(", k=").unwrap();
        let (words, signature) = token.rsplit_once('.').unwrap();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decode(key))
            .verify(words.as_bytes(), &decode(signature))
            .unwrap();
        let (head, claims) = words.split_once('.').unwrap();
        let head: Value = serde_json::from_slice(&decode(head)).unwrap();
        assert_eq!(
            (&head["typ"], &head["alg"]),
            (&"JWT".into(), &"ES256".into())
        );
        (
            serde_json::from_slice(&decode(claims)).unwrap(),
            key.to_owned(),
        )
    }
}

/// Twelve hours, which a signature is valid for, give or take the time of a test.
pub(crate) const VALID: std::ops::Range<Duration> =
    Duration::from_secs(11 * 3600)..Duration::from_secs(13 * 3600);
