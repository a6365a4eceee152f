//! The address of a PostgreSQL database, and the TLS that it asks for: `sslmode` and `sslrootcert`, as
//! libpq means them (PostgreSQL's documentation, 32.19 "SSL Support").

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::{Result, StoreError};
use crate::tls;

/// A server, and how to connect to it.
#[derive(Clone)]
pub(in crate::store) struct Server {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

/// What the server's certificate must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// Nothing: the connection is encrypted, but the server may be anybody.
    Nothing,
    /// That an authority signed it.
    Authority,
    /// That an authority signed it for this host.
    Host,
}

impl Server {
    /// Parses an address. Errors do not quote it, since it may contain a password.
    pub(in crate::store) fn at(address: &str) -> Result<Self> {
        let (place, options) = address.split_once('?').unwrap_or((address, ""));
        let (mut mode, mut authorities) = (None, None);
        let mut others = Vec::new();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => authorities = Some(decoded(value)),
                _ => others.push(option),
            }
        }
        let rest = format!("{place}?{}", others.join("&"));
        let mut config: Config = rest.parse().map_err(|_| {
            refused(
                "not a valid PostgreSQL address; write it as postgres://user:password@host:5432/name, \
                 with %40 for an @ in the password",
            )
        })?;
        let has_authorities = authorities.is_some();
        let (mut encryption, proof) = match mode {
            None | Some("prefer") => (SslMode::Prefer, Proof::Nothing),
            Some("disable") => (SslMode::Disable, Proof::Nothing),
            // As in libpq.
            Some("require") if has_authorities => (SslMode::Require, Proof::Authority),
            Some("require") => (SslMode::Require, Proof::Nothing),
            Some("verify-ca") => (SslMode::Require, Proof::Authority),
            Some("verify-full") => (SslMode::Require, Proof::Host),
            Some(_) => {
                return Err(refused(
                    "sslmode is disable, prefer, require, verify-ca or verify-full",
                ));
            }
        };
        // A socket on the same machine is not encrypted, whatever the mode.
        if config
            .get_hosts()
            .iter()
            .all(|host| matches!(host, Host::Unix(_)))
        {
            encryption = SslMode::Disable;
        }
        config.ssl_mode(encryption);
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(client_config(proof, authorities.as_deref())?),
        })
    }
}

fn refused(reason: impl Into<String>) -> StoreError {
    StoreError::Address(reason.into())
}

fn decoded(value: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(value).decode_utf8_lossy()
}

/// TLS whose server must prove that much, by the authorities in a file, or else by those that browsers
/// trust.
fn client_config(proof: Proof, authorities: Option<&str>) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Database(error.into()))?;
    let verifier = match proof {
        Proof::Nothing => None,
        Proof::Authority | Proof::Host => {
            let roots = Arc::new(roots(authorities)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| StoreError::Database(error.into()))?;
            Some(verifier)
        }
    };
    Ok(config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier {
            proof,
            verifier,
            algorithms,
        }))
        .with_no_client_auth())
}

fn roots(authorities: Option<&str>) -> Result<RootCertStore> {
    let file = authorities.filter(|file| *file != "system");
    tls::roots(file.map(Path::new)).map_err(|error| refused(error.to_string()))
}

/// Checks as much of a certificate as the mode wants, and always that the server has its key.
#[derive(Debug)]
struct Verifier {
    proof: Proof,
    verifier: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(verifier) = &self.verifier else {
            return Ok(ServerCertVerified::assertion());
        };
        match verifier.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            // The name is checked last, so everything else was right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.proof == Proof::Authority => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_how_the_connection_is_encrypted() {
        #[track_caller]
        fn check(address: &str, expected: SslMode) {
            assert_eq!(Server::at(address).unwrap().config.get_ssl_mode(), expected);
        }
        check("postgres://a@host/db", SslMode::Prefer);
        check("postgres://a@host/db?sslmode=prefer", SslMode::Prefer);
        check("postgres://a@host/db?sslmode=disable", SslMode::Disable);
        check("postgres://a@host/db?sslmode=verify-ca", SslMode::Require);
        check(
            "postgres://a@host/db?connect_timeout=3&sslmode=verify-full&sslrootcert=system",
            SslMode::Require,
        );
        check(
            "postgres://a@%2Frun%2Fdb/db?sslmode=require",
            SslMode::Disable,
        );
    }

    #[test]
    fn a_wrong_setting_is_explained_without_the_password() {
        #[track_caller]
        fn check(options: &str, expected: &str) {
            let error = Server::at(&format!("postgres://a:secret@host/db?{options}"));
            let error = error.err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        check("sslmode=full", "sslmode is disable, prefer, require,");
        check("sslmod=require", "not a valid PostgreSQL address");
        check(
            "sslmode=require&sslrootcert=%2Fno%2Ffile",
            "cannot read the certificates",
        );
    }

    #[test]
    fn the_public_authorities_are_built_in() {
        assert!(roots(None).unwrap().len() > 50);
    }
}
