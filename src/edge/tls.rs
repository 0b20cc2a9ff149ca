//! TLS on ports of ours: which certificate is shown, and the handshake.

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::CertificateFiles;

/// Counted for a connection besides what is done on it: what rustls reads into and writes from.
pub(crate) const SESSION_BYTES: usize = 36 << 10;

/// What the only protocol of our HTTP ports is called (RFC 7301).
const HTTP_1_1: &[u8] = b"http/1.1";

/// The first byte of a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// A certificate, with those that lead to whom clients trust, and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("{path}: {problem}")]
    File { path: String, problem: String },
    /// The certificate and the key do not go together, or are not understood.
    #[error("TLS: {0}")]
    Identity(#[from] rustls::Error),
}

/// How a handshake ended without a session.
#[derive(Debug)]
pub(crate) enum Unsecured {
    /// What came first is no TLS; nothing of it is read.
    Plain(TcpStream),
    /// The client went away, or it was no handshake that we take; the client is told.
    Failed(io::Error),
}

/// Shows a certificate to clients that ask for one of these names, and nothing to others.
#[derive(Debug)]
struct Named {
    names: Box<[Box<str>]>,
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads both from their files.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub(crate) fn read(files: &CertificateFiles) -> Result<Self, TlsError> {
        let CertificateFiles { cert_file, key_file } = files;
        let wrong = |path: &str, problem: &dyn ToString| TlsError::File {
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(cert_file).and_then(Iterator::collect);
        let chain = chain.map_err(|error| wrong(cert_file, &error))?;
        let key =
            PrivateKeyDer::from_pem_file(key_file).map_err(|error| wrong(key_file, &error))?;
        Ok(Self { chain, key })
    }
}

/// Ends TLS for HTTP: whatever name clients ask for, they see this certificate.
///
/// # Errors
/// The certificate and the key do not go together.
pub(crate) fn http(identity: Identity) -> Result<TlsAcceptor, TlsError> {
    let key = CertifiedKey::from_der(identity.chain, identity.key, &provider())?;
    let mut config =
        builder()?.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Ends TLS for clients that ask for one of these names, in small letters; the others are refused.
///
/// # Errors
/// The certificate and the key do not go together.
pub(crate) fn named<'n>(
    identity: Identity,
    names: impl IntoIterator<Item = &'n str>,
) -> Result<TlsAcceptor, TlsError> {
    let key = Arc::new(CertifiedKey::from_der(identity.chain, identity.key, &provider())?);
    let names = names.into_iter().map(Box::from).collect();
    let resolver = Named { names, key };
    Ok(TlsAcceptor::from(Arc::new(
        builder()?.with_no_client_auth().with_cert_resolver(Arc::new(resolver)),
    )))
}

/// Does the handshake with a client. Its time is the caller's to bound.
///
/// # Errors
/// There is no session.
pub(crate) async fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Unsecured> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => Err(Unsecured::Failed(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) if first != [HANDSHAKE] => Err(Unsecured::Plain(stream)),
        Ok(_) => acceptor.accept(stream).await.map_err(Unsecured::Failed),
        Err(error) => Err(Unsecured::Failed(error)),
    }
}

impl ResolvesServerCert for Named {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?;
        let is_known = self.names.iter().any(|known| known.eq_ignore_ascii_case(name));
        is_known.then(|| Arc::clone(&self.key))
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions()
}
