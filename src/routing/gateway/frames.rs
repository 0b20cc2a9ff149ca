//! Frames that the gateway itself writes to a client, byte for byte as API Gateway does, odd
//! spacing included.

use bytes::Bytes;

use crate::model::id::{ConnectionId, RequestId};
use crate::protocol::codec::{Opcode, encode};

/// No route matches, and there is no `$default`.
pub(super) fn forbidden(connection: &ConnectionId, request: &RequestId) -> Bytes {
    with_request("Forbidden", connection, request)
}

/// The integration could not do its work.
pub(crate) fn internal_server_error(connection: &ConnectionId, request: &RequestId) -> Bytes {
    with_request("Internal server error", connection, request)
}

/// The back end did not answer in time.
pub(crate) fn timed_out(connection: &ConnectionId, request: &RequestId) -> Bytes {
    with_request("Endpoint request timed out", connection, request)
}

/// The body lacks what the route takes from it.
pub(super) fn bad_request_body(connection: &ConnectionId, message: &RequestId) -> Bytes {
    let text = format!(
        r#"{{"message" : "Bad request body", "connectionId": "{connection}", "messageId": "{message}"}}"#
    );
    encode(Opcode::Text, text.as_bytes())
}

/// The connection is in as many groups as it may be; an extension, in the form of the others.
pub(crate) fn limit_exceeded(connection: &ConnectionId, request: &RequestId) -> Bytes {
    with_request("Limit exceeded", connection, request)
}

fn with_request(message: &str, connection: &ConnectionId, request: &RequestId) -> Bytes {
    let text = format!(
        r#"{{"message": "{message}", "connectionId":"{connection}", "requestId":"{request}"}}"#
    );
    encode(Opcode::Text, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::NodeTag;

    #[test]
    fn frames_are_those_of_the_contract() {
        let connection = ConnectionId::parse("eHrdFcnvvHcCE-w=").expect("an id");
        let request = RequestId::mint();
        let expected = format!(
            r#"{{"message": "Forbidden", "connectionId":"eHrdFcnvvHcCE-w=", "requestId":"{request}"}}"#
        );
        assert_eq!(forbidden(&connection, &request)[2..], *expected.as_bytes());
        let message = RequestId::mint_message(NodeTag::random());
        let expected = format!(
            r#"{{"message" : "Bad request body", "connectionId": "eHrdFcnvvHcCE-w=", "messageId": "{message}"}}"#
        );
        assert_eq!(bad_request_body(&connection, &message)[2..], *expected.as_bytes());
    }
}
