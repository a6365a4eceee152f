//! A bucket of an S3-compatible server for the tests, with its objects in a folder.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use overwire::objects::Place;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

const NAME: &str = "overwire-test";
const KEY: &str = "the-key-of-a-test";
const SECRET: &str = "the secret of a test";

/// A running server with one bucket.
pub(crate) struct Bucket {
    root: TempDir,
    address: String,
    serving: JoinHandle<()>,
}

impl Bucket {
    /// Starts one. It ends with this object.
    pub(crate) async fn start() -> Self {
        Self::serve("http", None).await
    }

    /// Starts one that is reached over TLS, with a certificate for `localhost`.
    pub(crate) async fn with_tls(certificate: CertificateDer<'static>, key: &[u8]) -> Self {
        let key = PrivateKeyDer::try_from(key.to_vec()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        Self::serve("https", Some(TlsAcceptor::from(Arc::new(config.unwrap())))).await
    }

    async fn serve(scheme: &str, tls: Option<TlsAcceptor>) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(NAME)).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, service) = (tls.clone(), service.clone());
                connections.spawn(async move {
                    let http = http1::Builder::new();
                    // Clients that do not trust the certificate hang up.
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Self {
            root,
            address: format!("{scheme}://localhost:{port}"),
            serving,
        }
    }

    /// Where it keeps the objects.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join(NAME)
    }

    /// The place of a chat's files in it.
    pub(crate) fn place(&self) -> Place {
        format!("s3://{NAME}/files of a chat").parse().unwrap()
    }

    /// The environment variables that lead to it.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", &*self.address),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
