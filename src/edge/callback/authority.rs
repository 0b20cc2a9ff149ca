//! A private CA: its key is in memory, and signs at the start of the node and never again.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::edge::tls::Identity;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Certificates are valid from this long before the start, whatever the clocks of functions say.
const BEFORE: Duration = DAY;

/// And for this long after it, which is what clients take at most (825 days from end to end). A
/// node is started anew before.
const AFTER: Duration = DAY.saturating_mul(820);

/// See the [module documentation](self).
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
}

impl Authority {
    /// Makes a CA of its own.
    pub(super) fn make() -> Result<Self, rcgen::Error> {
        let (mut params, key) = (params(Vec::new(), "Gatecast private CA")?, KeyPair::generate()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Signs a certificate for servers with these names and addresses.
    pub(super) fn leaf(
        &self,
        names: impl IntoIterator<Item = String>,
    ) -> Result<Identity, rcgen::Error> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let (mut params, key) = (params(names, "Gatecast")?, KeyPair::generate()?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Identity { chain: vec![certificate], key })
    }
}

fn params(names: Vec<String>, own: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, own);
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - BEFORE).into(), (now + AFTER).into());
    Ok(params)
}
