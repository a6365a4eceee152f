//! TLS to other servers: whose certificates are trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Why the certificates of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the certificates of authorities in {}: {reason}", file.display())]
pub(crate) struct Unreadable {
    file: PathBuf,
    reason: String,
}

/// The authorities in a PEM file or, without one, those that browsers trust.
pub(crate) fn roots(file: Option<&Path>) -> Result<RootCertStore, Unreadable> {
    let Some(file) = file else {
        return Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect());
    };
    let unreadable = |reason: &dyn std::fmt::Display| Unreadable {
        file: file.to_owned(),
        reason: reason.to_string(),
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    match roots.is_empty() {
        true => Err(unreadable(&"it contains none in PEM format")),
        false => Ok(roots),
    }
}

/// Connects to servers that these authorities certify.
#[must_use]
pub(crate) fn client(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
