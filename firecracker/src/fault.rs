//! What a client is told of a request that was refused.

use std::fmt::Display;

use serde_json::json;

use crate::http::{Response, Status};

/// A refused request: a status and a text, which is JSON with the one member `fault_message` on the wire.
///
/// The texts that belong to no resource are those that clients of Firecracker know. The others say what was refused, its value, and
/// what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    status: Status,
    message: String,
}

impl Fault {
    /// A request that is wrong in itself or for the state of the machine.
    pub fn new(message: impl Into<String>) -> Self {
        Self { status: Status::BadRequest, message: message.into() }
    }

    /// A refusal of vmcell's, with all its causes; `what` says of which resource.
    pub fn of(what: impl Display, error: &vmcell::Error) -> Self {
        Self::new(format!("{what}: {}", error.chain()))
    }

    /// Data that would be more than the service holds.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self { status: Status::PayloadTooLarge, message: message.into() }
    }

    /// A connection more than are served at once.
    pub fn busy(message: impl Into<String>) -> Self {
        Self { status: Status::Unavailable, message: message.into() }
    }

    /// What only a machine that was started can do.
    pub fn before_start() -> Self {
        Self::new("The requested operation is not supported before starting the microVM.")
    }

    /// What can only be said of a machine that is to be started.
    pub fn after_start() -> Self {
        Self::new("The requested operation is not supported after starting the microVM.")
    }

    /// What the API has and this program has not; the table of differences says so, too.
    pub fn not_there(what: &str, why: &str) -> Self {
        Self::new(format!("The requested operation is not supported: {what}: {why}."))
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The answer on the wire.
    pub fn response(&self) -> Response {
        Response::json(self.status, json!({ "fault_message": self.message }).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_json_object_with_one_member_whatever_its_text_holds() {
        let response = Fault::new("a \"path\"\nwith a line").response();
        let text = String::from_utf8(response.to_bytes(true)).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
        assert!(text.ends_with(r#"{"fault_message":"a \"path\"\nwith a line"}"#), "{text}");
    }
}
