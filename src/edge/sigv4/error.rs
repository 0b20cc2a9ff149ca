//! Why signatures are refused.

use std::borrow::Cow;

use thiserror::Error;

/// Why a request was refused; the caller's fault in every case. `Display` is the reply's `message`,
/// in AWS's words, so it begins with a capital. What AWS repeats of the `Authorization` header is
/// left out: people put secrets into the wrong place of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum SignatureError {
    /// Neither an `Authorization` header nor a signature in the query.
    #[error("Missing Authentication Token")]
    MissingAuthenticationToken,
    /// The `Authorization` header, the date or the size is not what this module can read.
    #[error("{0}")]
    IncompleteSignature(Cow<'static, str>),
    /// Signed longer ago, or further ahead, than the clocks may differ; names both times.
    #[error("{0}")]
    Skewed(String),
    /// Not tied to this host, this service, this day or this body: it might be meant for another.
    #[error("{0}")]
    Unbound(Cow<'static, str>),
    /// No key has this id.
    #[error("The security token included in the request is invalid.")]
    UnrecognizedClient,
    /// Another secret or another request was signed.
    #[error(
        "The request signature we calculated does not match the signature you provided. \
         Check your AWS Secret Access Key and signing method. \
         Consult the service documentation for details.\n\n\
         The Canonical String for this request should have been\n'{canonical}'\n\n\
         The String-to-Sign should have been\n'{to_sign}'\n"
    )]
    InvalidSignature {
        /// What we signed, with tokens masked.
        canonical: String,
        /// Algorithm, time, scope and the hash of the unmasked canonical string.
        to_sign: String,
    },
}

impl SignatureError {
    /// Returns the value of the reply's `x-amzn-ErrorType` header; a closed set, fit for a label.
    pub(crate) fn error_type(&self) -> &'static str {
        match self {
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::IncompleteSignature(_) => "IncompleteSignatureException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::Skewed(_) | Self::Unbound(_) | Self::InvalidSignature { .. } => {
                "InvalidSignatureException"
            }
        }
    }
}

pub(super) fn incomplete(message: &'static str) -> SignatureError {
    SignatureError::IncompleteSignature(message.into())
}

pub(super) fn malformed_date() -> SignatureError {
    incomplete("Date must be in ISO-8601 'basic format'. See http://en.wikipedia.org/wiki/ISO_8601")
}
