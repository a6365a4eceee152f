//! A bucket of an S3-compatible store. Its address, region and credentials come from the environment
//! variables that other programs for S3 read too, such as `AWS_ACCESS_KEY_ID`.
//!
//! Requests are sent with the TLS that everything else here uses: `object_store` would bring a second one.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as Plain;
use hyper_util::rt::TokioExecutor;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{BackoffConfig, ClientOptions, Error, Result, RetryConfig};

use crate::tls;

/// How long a connection may take.
const CONNECTING: Duration = Duration::from_secs(5);
/// How long a request may take until its answer begins.
const ANSWER: Duration = Duration::from_secs(30);
/// A request that fails is repeated for this time. Somebody waits for it.
const RETRIES: Duration = Duration::from_secs(10);

/// The bucket of that name, as these variables describe it.
pub(super) fn bucket(
    name: &str,
    variables: impl IntoIterator<Item = (String, String)>,
    authorities: Option<&Path>,
) -> Result<AmazonS3> {
    let failed = |error| Error::Generic {
        store: "S3",
        source: Box::new(error),
    };
    let tls = tls::client(tls::roots(authorities).map_err(failed)?);
    let mut settings = AmazonS3Builder::new();
    for (variable, value) in variables {
        let key = variable.to_ascii_lowercase();
        if let Ok(key) = key.parse::<AmazonS3ConfigKey>()
            && variable.starts_with("AWS_")
        {
            settings = settings.with_config(key, value);
        }
    }
    let address = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| settings.get_config_value(key));
    // Whoever writes http:// means it.
    let is_plain = address.is_some_and(|address| address.starts_with("http://"));
    settings
        .with_bucket_name(name)
        .with_allow_http(is_plain)
        .with_http_connector(Connector(tls))
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 3,
            retry_timeout: RETRIES,
        })
        .build()
}

#[derive(Debug)]
struct Connector(rustls::ClientConfig);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let mut plain = Plain::new();
        plain.enforce_http(false);
        plain.set_connect_timeout(Some(CONNECTING));
        let builder = HttpsConnectorBuilder::new().with_tls_config(self.0.clone());
        let may_be_plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        let builder = match may_be_plain.as_deref() {
            Some("true") => builder.https_or_http(),
            _ => builder.https_only(),
        };
        let connector = builder.enable_http1().wrap_connector(plain);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(HttpClient::new(Sender(client)))
    }
}

#[derive(Debug)]
struct Sender(Client<HttpsConnector<Plain>, HttpRequestBody>);

#[async_trait]
impl HttpService for Sender {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let response = tokio::time::timeout(ANSWER, self.0.request(request)).await;
        let response = response.map_err(|error| HttpError::new(HttpErrorKind::Timeout, error))?;
        let response = response.map_err(|error| {
            let kind = match error.is_connect() {
                true => HttpErrorKind::Connect,
                false => HttpErrorKind::Interrupted,
            };
            HttpError::new(kind, error)
        })?;
        Ok(response.map(|body| {
            let cut = |error| HttpError::new(HttpErrorKind::Interrupted, error);
            HttpResponseBody::new(body.map_err(cut))
        }))
    }
}
