//! Connections to PostgreSQL and Redis that are encrypted, and what the servers' certificates must
//! prove.

use std::fmt::Write as _;
use std::path::PathBuf;

use overwire::model::NodeId;
use overwire::relay::redis::RedisRelay;
use overwire::relay::{Envelope, Heard, News, Relay as _};
use overwire::store::{self, Access, Synchronous};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::postgres::{Database, Proxy, free_port};
use crate::support::redis::Redis;

/// An authority with a certificate file, and a certificate that it has signed for `localhost`.
struct Authority {
    folder: TempDir,
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = Uuid::new_v4().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        Self {
            folder,
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The setting for a PostgreSQL address.
    fn trusted(&self) -> String {
        let file = self.file().to_str().unwrap().replace('/', "%2F");
        format!("&sslrootcert={file}")
    }
}

/// Opens a store. Returns the whole error in words.
async fn open(address: &str) -> Result<(), String> {
    let opened = store::open(address, Synchronous::Full, Access::Beside).await;
    match opened {
        Ok(store) => {
            store.close().await;
            Ok(())
        }
        Err(error) => {
            let mut words = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                write!(words, ": {error}").unwrap();
                source = error.source();
            }
            Err(words)
        }
    }
}

#[tokio::test]
async fn postgres_must_prove_as_much_as_the_address_asks_for() {
    let (authority, other) = (Authority::new(), Authority::new());
    let database = Database::on_a_server_of_its_own().await;
    let port = database
        .takes_only_tls(&authority.certificate, &authority.key)
        .await;
    let check = async |host: &str, options: String, expected: Result<(), &str>| {
        let address = format!(
            "postgres://postgres@{host}:{port}/{}?hostaddr=127.0.0.1&{options}",
            database.name()
        );
        let opened = open(&address).await;
        match (&opened, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{address}: {error}"),
            _ => panic!("{address}: {opened:?}"),
        }
    };
    let (own, foreign) = (authority.trusted(), other.trusted());
    // The server refuses connections without TLS.
    check(
        "localhost",
        "sslmode=disable".to_owned(),
        Err("no encryption"),
    )
    .await;
    check("localhost", String::new(), Ok(())).await;
    check("localhost", "sslmode=prefer".to_owned(), Ok(())).await;
    check("localhost", "sslmode=require".to_owned(), Ok(())).await;
    check("127.0.0.1", format!("sslmode=require{own}"), Ok(())).await;
    let unknown = Err("UnknownIssuer");
    check("localhost", format!("sslmode=require{foreign}"), unknown).await;
    check("127.0.0.1", format!("sslmode=verify-ca{own}"), Ok(())).await;
    check("localhost", format!("sslmode=verify-ca{foreign}"), unknown).await;
    check("localhost", "sslmode=verify-ca".to_owned(), unknown).await;
    check("localhost", format!("sslmode=verify-full{own}"), Ok(())).await;
    let wrong_name = Err("not valid for name");
    check("127.0.0.1", format!("sslmode=verify-full{own}"), wrong_name).await;
    check(
        "localhost",
        format!("sslmode=verify-full{foreign}"),
        unknown,
    )
    .await;
    check("localhost", "sslmode=verify-full".to_owned(), unknown).await;
}

#[tokio::test]
async fn postgres_without_tls_is_refused_where_the_address_asks_for_it() {
    let database = Database::fresh().await;
    let proxy = Proxy::start().await;
    let address = database.address_at(proxy.port);
    open(&format!("{address}?sslmode=prefer")).await.unwrap();
    for mode in ["require", "verify-ca", "verify-full"] {
        let refused = open(&format!("{address}?sslmode={mode}"))
            .await
            .unwrap_err();
        assert!(refused.contains("does not support TLS"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
    }
}

#[tokio::test]
async fn redis_must_have_a_certificate_for_its_host_by_a_trusted_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let redis = Redis::start();
    let port = free_port();
    let folder = authority.folder.path();
    std::fs::write(folder.join("server.pem"), &authority.certificate).unwrap();
    std::fs::write(folder.join("key.pem"), &authority.key).unwrap();
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    redis.does(&[
        "config",
        "set",
        "tls-cert-file",
        &file("server.pem"),
        "tls-key-file",
        &file("key.pem"),
        "tls-ca-cert-file",
        &file("ca.pem"),
        "tls-auth-clients",
        "no",
        "tls-port",
        &port.to_string(),
    ]);
    let store = Uuid::new_v4().to_string();
    let plain = RedisRelay::new(&redis.address(), None, &store).unwrap();
    let by_tls = |host: &str, trusted: &Authority| {
        let address = format!("rediss://{host}:{port}");
        RedisRelay::new(&address, Some(&trusted.file()), &store).unwrap()
    };
    let end = by_tls("localhost", &authority);
    let mut heard = end.listen(NodeId(1)).await;
    // Once the connection stands, whatever may have been missed is asked for.
    assert!(matches!(heard.recv().await, Some(Heard::Missed)));
    drop(plain.listen(NodeId(2)).await);
    let news = Envelope {
        node: NodeId(2),
        news: News::Missed,
    };
    plain.announce(news.clone());
    let Some(Heard::News(heard)) = heard.recv().await else {
        panic!("no news");
    };
    assert_eq!(heard.node, news.node);
    let subscribers = || redis.does(&["pubsub", "numsub", &format!("overwire:{store}:node:3")]);
    for refused in [by_tls("127.0.0.1", &authority), by_tls("localhost", &other)] {
        let mut heard = refused.listen(NodeId(3)).await;
        // It keeps trying, and never gets to subscribe.
        for _ in 0..3 {
            assert!(matches!(heard.recv().await, Some(Heard::Missed)));
            assert!(subscribers().ends_with('0'), "{}", subscribers());
        }
    }
    let accepted = by_tls("localhost", &authority);
    let mut heard = accepted.listen(NodeId(3)).await;
    assert!(matches!(heard.recv().await, Some(Heard::Missed)));
    assert!(subscribers().ends_with('1'), "{}", subscribers());
}

#[test]
fn a_file_without_certificates_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("empty.pem");
    std::fs::write(&file, "nothing").unwrap();
    let refused = RedisRelay::new("rediss://localhost", Some(&file), "store");
    let words = refused.err().unwrap().to_string();
    assert!(words.contains("it contains none in PEM format"), "{words}");
    let missing = folder.path().join("missing.pem");
    let refused = RedisRelay::new("rediss://localhost", Some(&missing), "store");
    let words = refused.err().unwrap().to_string();
    assert!(words.contains("No such file"), "{words}");
}
