//! AWS Signature Version 4, as both ends compute it: what is signed, and how.
//!
//! Source: "Create a signed AWS API request" in the IAM user guide. `edge::sigv4` verifies what
//! others have signed.

pub(crate) mod canonical;
mod request;
mod scope;
mod signer;

pub(crate) use self::request::SignedRequest;
pub(crate) use self::scope::{ALGORITHM, TERMINATOR, signature, string_to_sign};
pub(crate) use self::signer::{Signer, Unsigned};
