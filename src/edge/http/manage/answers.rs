//! What callers of the management API are told.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::edge::http::answer::{bad_request, error_reply, json_reply};
use crate::edge::http::local::Foreign;
use crate::edge::sigv4::SignatureError;
use crate::model::broker::{Accepted, Offset};
use crate::ops::refusals::{Refusals, Told};

/// Says how a message was accepted; who is told 200 knows that every node delivers it.
pub(super) fn published(accepted: Accepted) -> Response<Vec<u8>> {
    let (status, body) = match accepted {
        Accepted::At(Offset(offset)) => (StatusCode::OK, json!({ "offset": offset })),
        Accepted::Duplicate(Offset(offset)) => {
            (StatusCode::OK, json!({ "offset": offset, "duplicate": true }))
        }
        Accepted::Unkept => (StatusCode::OK, json!({ "offset": null })),
        Accepted::Locally => (StatusCode::ACCEPTED, json!({ "offset": null, "scope": "node" })),
    };
    json_reply(status, body.to_string().into_bytes())
}

pub(super) fn no_content() -> Response<Vec<u8>> {
    let mut answer = Response::new(Vec::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

pub(super) fn gone() -> Response<Vec<u8>> {
    let mut answer = json_reply(StatusCode::GONE, Vec::new());
    let name = HeaderName::from_static("x-amzn-errortype");
    answer.headers_mut().insert(name, HeaderValue::from_static("GoneException"));
    answer
}

pub(super) fn forbidden() -> Response<Vec<u8>> {
    error_reply(StatusCode::FORBIDDEN, "ForbiddenException", "Forbidden")
}

pub(super) fn out_of_scope() -> Response<Vec<u8>> {
    let message = "This is a function's key: it may post to a connection, look at it, and end it. All else needs a key of \
                   the operator's: access_key_id, or one of management.keys";
    error_reply(StatusCode::FORBIDDEN, "AccessDeniedException", message)
}

pub(super) fn invalid_name() -> Response<Vec<u8>> {
    bad_request(
        "Invalid name of a group or user: 1 to 128 bytes without control characters are needed",
    )
}

/// Refuses a caller who is not of this host, and says what opens the door.
pub(in super::super) fn not_local(
    foreign: Foreign,
    address: Option<IpAddr>,
    refusals: &Refusals,
) -> Response<Vec<u8>> {
    let message = format!(
        "Without keys, only programs and pages of this host may call. Set access_key_id and secret_access_key, or \
         management.auth = \"none\" for an API that is open to all. What is foreign about this request: {}",
        foreign.cause()
    );
    if let Some(address) = address {
        let (what, cause) = ("management", "not_local");
        refusals.tell(Told { what, cause, address, conn: None, message: &message });
    }
    error_reply(StatusCode::FORBIDDEN, "ForbiddenException", &message)
}

pub(super) fn not_authentic(error: &SignatureError) -> Response<Vec<u8>> {
    error_reply(StatusCode::FORBIDDEN, error.error_type(), &error.to_string())
}
