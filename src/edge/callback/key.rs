//! The key that functions sign with: drawn at each start, kept in memory and in the environment of
//! functions.

use rand::seq::IndexedRandom as _;

use crate::config::{AccessKey, Secret};

/// Of the ids of Amazon's keys (Base 32).
const OF_ID: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Of the secrets, without what some tools have to quote.
const OF_SECRET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// As long as Amazon's: clients check it here and there. The secret has 238 bits.
const ID_LENGTH: usize = 16;
const SECRET_LENGTH: usize = 40;

/// Draws a key.
pub(super) fn draw() -> AccessKey {
    let id = format!("AKIA{}", text(OF_ID, ID_LENGTH));
    AccessKey { id, secret: Secret::new(&text(OF_SECRET, SECRET_LENGTH)) }
}

/// The generator is a cryptographic one, seeded by the kernel.
fn text(of: &[u8], length: usize) -> String {
    let mut random = rand::rng();
    (0..length).filter_map(|_| of.choose(&mut random)).map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_look_like_those_of_amazon_and_differ() {
        let (one, other) = (draw(), draw());
        assert_eq!((one.id.len(), one.secret.expose().len()), (20, 40));
        assert!(one.id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()));
        assert!(one.id != other.id && one.secret != other.secret);
    }
}
