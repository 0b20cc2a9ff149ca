//! Looks into the files for encrypted connections, as who uses them will.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::file;
use super::reader::Reader;
use super::row::{Described as _, Row};

/// Checks a file of certificates that may sign others.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_roots(path: &str) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate that may sign none: {error}"))?;
    }
    Ok(())
}

/// Takes the names of a certificate's file and its key's, and looks into them.
pub(super) fn pair(
    reader: &mut Reader<'_>,
    rows: [&'static Row<Option<String>>; 2],
) -> Option<[String; 2]> {
    let [cert_row, key_row] = rows;
    match rows.map(|row| reader.take(row)) {
        [Some(cert), Some(key)] => {
            if let Err((is_key, problem)) = check_pair(&cert, &key, &cert_row.key()) {
                let (row, path) = if is_key { (key_row, &key) } else { (cert_row, &cert) };
                reader.fault_of(row, format!("{path}: {problem}"));
            }
            Some([cert, key])
        }
        [None, None] => None,
        [cert, _] => {
            let row = if cert.is_some() { cert_row } else { key_row };
            let message =
                format!("{} and {} go together; set both or none", cert_row.key(), key_row.key());
            reader.fault_of(row, message);
            None
        }
    }
}

/// Checks a certificate and its key; `named` is the setting that names the first.
///
/// # Errors
/// What is wrong, and whether with the key.
fn check_pair(certificate: &str, key: &str, named: &str) -> Result<(), (bool, String)> {
    let chain = certificates(certificate).map_err(|problem| (false, problem))?;
    let with_key = |problem| (true, problem);
    let bytes = file::read(key).map_err(with_key)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        with_key(
            "no private key in PEM is in it; it begins with -----BEGIN PRIVATE KEY-----".to_owned(),
        )
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |error: rustls::Error| with_key(format!("not the key of {named}: {error}"));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let config =
        config.with_root_certificates(RootCertStore::empty()).with_client_auth_cert(chain, key);
    config.map(drop).map_err(wrong)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = file::read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => {
            Err("no certificate in PEM is in it; it begins with -----BEGIN CERTIFICATE-----"
                .to_owned())
        }
    }
}
