//! What a signature is good for, and how it is computed.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::canonical;

/// The only algorithm there is; `AWS4-ECDSA-P256-SHA256` (`SigV4a`) needs keys we do not have.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The fixed last element of a scope.
pub(crate) const TERMINATOR: &str = "aws4_request";

/// Day, region, service and terminator.
pub(crate) type Scope<'a> = [&'a str; 4];

/// Returns the text whose signature is computed, of a request in canonical form.
pub(crate) fn string_to_sign(signed_at: i64, scope: Scope<'_>, canonical: &[u8]) -> String {
    let (time, scope) = (canonical::iso_time(signed_at), scope.join("/"));
    format!("{ALGORITHM}\n{time}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)))
}

/// Returns the signature of `to_sign`, in lower-case hexadecimal.
pub(crate) fn signature(secret: &str, scope: Scope<'_>, to_sign: &str) -> String {
    let seed = format!("AWS4{secret}").into_bytes();
    let key = scope.iter().fold(seed, |key, part| hmac(&key, part));
    hex::encode(hmac(&key, to_sign))
}

#[expect(clippy::expect_used, reason = "HMAC pads or hashes its key, so any length will do")]
fn hmac(key: &[u8], data: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(data.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
