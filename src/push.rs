//! Web Push: encrypts a text for one browser (RFC 8291), signs the request (RFC 8292) and hands it to the
//! browser's push service (RFC 8030).
//!
//! The address of a push service comes from a browser, so anybody could name one. Requests therefore go
//! to public addresses only, follow no redirects, and read no more than the head of a response. Nothing
//! here knows people, messages or the store.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::http::uri::Scheme;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use parking_lot::Mutex;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use ring::{aead, agreement, error, hmac, rand::SystemRandom};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::model::{Millis, PushSubscription};
use crate::tls;

/// How long one attempt may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait before each further attempt, if the push service does not say.
const RETRIES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];
/// The longest wait that a push service may ask for. A notification that comes later than that is of no
/// use.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// How many deliveries may be under way at once; more are dropped.
const UNDER_WAY: usize = 512;
/// The same for one browser, so that a push service that does not answer cannot hold up all others.
const UNDER_WAY_TO_ONE: usize = 4;
/// The size of every text after padding, so that the push service cannot tell short from long ones.
/// Every push service accepts 4,096 encrypted bytes.
pub const PADDED: usize = 3 * 1024;
/// How long the push service keeps a text for a browser that is off.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a signature is valid; 24 hours are allowed.
const SIGNED: Duration = Duration::from_secs(12 * 60 * 60);
/// The size that a response's head may have.
const HEAD_BYTES: usize = 16 * 1024;

/// Networks that are no part of the public Internet, for IPv4; for IPv6 see [`is_public`].
static PRIVATE: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let networks = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 \
        192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 \
        203.0.113.0/24 224.0.0.0/3 2001::/23 2001:db8::/32 2002::/16 3fff::/20";
    let networks = networks.split(' ').map(str::parse);
    networks.collect::<Result<_, _>>().unwrap_or_default()
});
static PUBLIC_IPV6: LazyLock<IpNet> =
    LazyLock::new(|| "2000::/3".parse().expect("a valid network"));

/// How push services are used.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whom a push service can contact: a `mailto:` or `https:` address.
    pub contact: Option<String>,
    /// Private networks in which push services may be. These may be without encryption.
    pub networks: Vec<IpNet>,
}

/// Delivers notifications to push services.
pub struct Pusher {
    key: EcdsaKeyPair,
    settings: Settings,
    tls: TlsConnector,
    /// The endpoints of the deliveries under way.
    under_way: Mutex<Vec<String>>,
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The push service has it.
    Delivered,
    /// The browser no longer takes any.
    Gone,
    /// The push service refused it, could not be reached, or is at an address that is not allowed.
    Failed,
    /// Too many are under way.
    Dropped,
}

impl Delivery {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Gone => "gone",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// The result of one attempt that did not end the delivery.
enum Attempt {
    Ended(Delivery),
    /// Try again, after this time if it is given.
    Later(Option<Duration>),
}

/// A new key to sign requests with, as PKCS#8.
pub fn new_key() -> Result<Vec<u8>, error::Unspecified> {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
    Ok(key.as_ref().to_vec())
}

impl Pusher {
    /// Signs with this key, made by [`new_key`].
    pub fn new(key: &[u8], settings: Settings) -> Result<Self, error::KeyRejected> {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &random)?;
        Ok(Self {
            key,
            settings,
            tls: TlsConnector::from(Arc::new(tls::client(roots))),
            under_way: Mutex::default(),
        })
    }

    /// The public key, which a browser needs to subscribe.
    #[must_use]
    pub fn public_key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.public_key())
    }

    /// Delivers a text of at most [`PADDED`] bytes. A text that the push service still keeps for the same
    /// browser and `topic` is replaced.
    pub async fn deliver(&self, to: &PushSubscription, text: &[u8], topic: &str) -> Delivery {
        if !self.begin(&to.endpoint) {
            return Delivery::Dropped;
        }
        let delivered = self.attempts(to, text, topic).await;
        let mut under_way = self.under_way.lock();
        if let Some(at) = under_way.iter().position(|other| *other == to.endpoint) {
            under_way.swap_remove(at);
        }
        delivered
    }

    fn begin(&self, endpoint: &str) -> bool {
        let mut under_way = self.under_way.lock();
        let to_one = under_way.iter().filter(|other| **other == endpoint).count();
        let fits = under_way.len() < UNDER_WAY && to_one < UNDER_WAY_TO_ONE;
        if fits {
            under_way.push(endpoint.to_owned());
        }
        fits
    }

    async fn attempts(&self, to: &PushSubscription, text: &[u8], topic: &str) -> Delivery {
        let Ok(uri) = to.endpoint.parse::<Uri>() else {
            return Delivery::Failed;
        };
        let mut retries = RETRIES.into_iter();
        loop {
            let Ok(request) = self.request(&uri, to, text, topic) else {
                return Delivery::Failed;
            };
            let attempt = tokio::time::timeout(DEADLINE, self.send(&uri, request)).await;
            let wait = match attempt {
                Ok(Ok(response)) => match outcome(&response) {
                    Attempt::Ended(delivery) => return delivery,
                    Attempt::Later(wait) => wait,
                },
                Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Delivery::Failed;
                }
                Ok(Err(_)) | Err(_) => None,
            };
            let Some(usually) = retries.next() else {
                return Delivery::Failed;
            };
            let wait = wait.unwrap_or(usually);
            if wait > LONGEST_WAIT {
                return Delivery::Failed;
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn send(&self, uri: &Uri, request: Request<Full<Bytes>>) -> io::Result<Response<()>> {
        let is_secure = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let found = tokio::net::lookup_host((host, port)).await?;
        let address = found
            .into_iter()
            .find(|found| self.may_connect(*found, is_secure))
            .ok_or(io::ErrorKind::PermissionDenied)?;
        // To the very address that was checked: another look-up could give another one.
        let stream = TcpStream::connect(address).await?;
        if !is_secure {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        exchange(self.tls.connect(name, stream).await?, request).await
    }

    fn may_connect(&self, address: SocketAddr, is_secure: bool) -> bool {
        let address = address.ip().to_canonical();
        let networks = &self.settings.networks;
        networks.iter().any(|network| network.contains(&address)) || is_secure && is_public(address)
    }

    fn request(
        &self,
        uri: &Uri,
        to: &PushSubscription,
        text: &[u8],
        topic: &str,
    ) -> Result<Request<Full<Bytes>>, error::Unspecified> {
        let body = encrypt(to, text)?;
        let topic = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &to.auth),
            topic.as_bytes(),
        );
        let host = uri.authority().ok_or(error::Unspecified)?.as_str();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, self.authorization(uri)?)
            .header(header::CONTENT_ENCODING, "aes128gcm")
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header("ttl", KEPT.as_secs())
            .header("urgency", "high")
            .header("topic", URL_SAFE_NO_PAD.encode(&topic.as_ref()[..24]))
            .body(Full::from(body))
            .map_err(|_| error::Unspecified)
    }

    /// Says to a push service who sends this, so that nobody else can send anything to the browser.
    fn authorization(&self, uri: &Uri) -> Result<String, error::Unspecified> {
        let scheme = uri.scheme_str().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().filter(|port| *port != 443);
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let until = Millis::now().after(SIGNED).0 / 1000;
        let mut claims = json!({ "aud": format!("{scheme}://{host}{port}"), "exp": until });
        if let Some(contact) = &self.settings.contact {
            claims["sub"] = json!(contact);
        }
        let head = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ES256"}"#);
        let token = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), token.as_bytes())?;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Ok(format!(
            "vapid t={token}.{signature}, k={}",
            self.public_key()
        ))
    }
}

/// Whether an address is one of the public Internet. Addresses that embed one of IPv4 are not: behind
/// them may be anything.
fn is_public(address: IpAddr) -> bool {
    let is_private = PRIVATE.iter().any(|network| network.contains(&address));
    (address.is_ipv4() || PUBLIC_IPV6.contains(&address)) && !is_private
}

/// Sends one request and reads the head of the response.
async fn exchange(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> io::Result<Response<()>> {
    let mut connection = http1::Builder::new();
    let connection = connection.max_buf_size(HEAD_BYTES);
    let (mut sender, connection) = connection
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // It ends with this function.
    let mut task = JoinSet::new();
    task.spawn(connection);
    let response = sender.send_request(request).await;
    Ok(response.map_err(io::Error::other)?.map(|_| ()))
}

fn outcome(response: &Response<()>) -> Attempt {
    let status = response.status();
    if status.is_success() {
        return Attempt::Ended(Delivery::Delivered);
    }
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Attempt::Ended(Delivery::Gone),
        StatusCode::TOO_MANY_REQUESTS => Attempt::Later(asked_wait(response)),
        status if status.is_server_error() => Attempt::Later(asked_wait(response)),
        _ => Attempt::Ended(Delivery::Failed),
    }
}

fn asked_wait(response: &Response<()>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?;
    seconds.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// Encrypts a text for a browser, as one record of RFC 8188.
fn encrypt(to: &PushSubscription, text: &[u8]) -> Result<Vec<u8>, error::Unspecified> {
    let random = SystemRandom::new();
    let private = agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P256, &random)?;
    let public = private.compute_public_key()?;
    let theirs = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, &to.p256dh);
    let salt: [u8; 16] = rand::random();
    let info = [b"WebPush: info\0", &*to.p256dh, public.as_ref()].concat();
    let secret =
        agreement::agree_ephemeral(private, &theirs, |shared| derive(&to.auth, shared, &info))?;
    let key = derive(&salt, &secret, b"Content-Encoding: aes128gcm\0");
    let nonce = derive(&salt, &secret, b"Content-Encoding: nonce\0");
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &key[..16])?);
    let nonce = aead::Nonce::try_assume_unique_for_key(&nonce[..12])?;

    // A 2 ends the text of the last record.
    let mut record = [text, &[2]].concat();
    if record.len() > PADDED + 1 {
        return Err(error::Unspecified);
    }
    record.resize(PADDED + 1, 0);
    key.seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut record)?;
    let size = u32::to_be_bytes(4096);
    let public = public.as_ref();
    Ok([&salt, &size[..], &[65], public, &record].concat())
}

/// HKDF with SHA-256, for at most 32 bytes.
fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> [u8; 32] {
    let sign = |key: &[u8], text: &[u8]| {
        let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        <[u8; 32]>::try_from(signed.as_ref()).unwrap_or_default()
    };
    sign(&sign(salt, secret), &[info, &[1]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_certificate_of_a_push_service_is_checked() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.unwrap());
        let server = tokio_rustls::TlsAcceptor::from(Arc::new(server.unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = server.accept(stream).await else {
                    continue;
                };
                let mut request = [0; 8];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(&request, b"POST /p ");
                let answer = b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
                // The client closes the connection.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        let settings = Settings {
            networks: vec!["127.0.0.0/8".parse().unwrap()],
            ..Settings::default()
        };
        let mut pusher = Pusher::new(&new_key().unwrap(), settings).unwrap();
        let uri: Uri = format!("https://localhost:{port}/p").parse().unwrap();
        let to = PushSubscription {
            endpoint: uri.to_string(),
            p256dh: pusher.key.public_key().as_ref().to_vec(),
            auth: vec![7; 16],
        };
        let request = || pusher.request(&uri, &to, b"hello", "topic").unwrap();
        let refused = pusher.send(&uri, request()).await.unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{refused}");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let request = request();
        pusher.tls = TlsConnector::from(Arc::new(tls::client(roots)));
        let response = pusher.send(&uri, request).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        serving.abort();
    }

    #[test]
    fn only_public_addresses_are_public() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "172.32.0.1", "8.8.8.8", "2606:4700:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        let pusher = Pusher::new(&new_key().unwrap(), Settings::default()).unwrap();
        let may = |address: &str, secure| pusher.may_connect(address.parse().unwrap(), secure);
        assert!(may("1.1.1.1:443", true) && !may("1.1.1.1:80", false));
        assert!(!may("[::ffff:127.0.0.1]:443", true));
    }
}
