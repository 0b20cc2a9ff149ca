//! Looks into the files for encrypted connections, as who uses them will.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::file;

/// Checks a file of certificates that may sign others.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_roots(path: &str) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| format!("a certificate that may sign none: {error}"))?;
    }
    Ok(())
}

/// Checks a certificate and its key.
///
/// # Errors
/// What is wrong, and whether with the key.
pub(super) fn check_pair(certificate: &str, key: &str) -> Result<(), (bool, String)> {
    let chain = certificates(certificate).map_err(|problem| (false, problem))?;
    let with_key = |problem| (true, problem);
    let bytes = file::read(key).map_err(with_key)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        with_key("no private key in PEM is in it; it begins with -----BEGIN PRIVATE KEY-----".to_owned())
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |error: rustls::Error| with_key(format!("not the key of redis.tls_cert_file: {error}"));
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(wrong)?;
    let config = config.with_root_certificates(RootCertStore::empty()).with_client_auth_cert(chain, key);
    config.map(drop).map_err(wrong)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = file::read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("no certificate in PEM is in it; it begins with -----BEGIN CERTIFICATE-----".to_owned()),
    }
}
