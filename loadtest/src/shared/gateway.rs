//! What Gatecast's clients send and receive with its built-in routes, and the paths of its
//! management API.

use serde::Deserialize;

use super::target::Target;

/// A message that no route takes; the answer names the connection.
pub(crate) const WHO_AM_I: &str = r#"{"action":"whoAmI"}"#;

/// What the gateway itself sends to a client.
#[derive(Debug, Deserialize)]
pub(crate) struct Notice {
    pub(crate) message: String,
    #[serde(rename = "connectionId")]
    pub(crate) connection_id: Option<String>,
}

impl Notice {
    /// Reads a notice; nothing if the text is something else.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Returns whether it answers [`WHO_AM_I`].
    pub(crate) fn is_forbidden(&self) -> bool {
        self.message == "Forbidden"
    }
}

/// Returns where clients connect to a node of this machine.
pub(crate) fn target(port: u16) -> Target {
    Target::local(port).with_path("/beta")
}

pub(crate) fn send_to_all(data: &str) -> String {
    format!(r#"{{"action":"sendMessage","data":"{data}"}}"#)
}

pub(crate) fn send_to_group(group: &str, data: &str) -> String {
    format!(r#"{{"action":"sendToGroup","group":"{group}","data":"{data}"}}"#)
}

pub(crate) fn join(group: &str) -> String {
    format!(r#"{{"action":"joinGroup","group":"{group}"}}"#)
}

pub(crate) fn leave(group: &str) -> String {
    format!(r#"{{"action":"leaveGroup","group":"{group}"}}"#)
}

/// Returns the path of a connection in the management API.
pub(crate) fn connection_path(id: &str) -> String {
    format!("/beta/@connections/{}", id.replace('=', "%3D"))
}
