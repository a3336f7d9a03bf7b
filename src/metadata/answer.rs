//! Answers to requests, and how they look on the wire.

use std::fmt::Write;

use super::document::Piece;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    Unauthorized,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    ContentTooLarge,
    HeadersTooLarge,
    NotImplemented,
}

impl Status {
    pub(super) fn code(self) -> u16 {
        self.line().0
    }

    fn line(self) -> (u16, &'static str) {
        match self {
            Self::Ok => (200, "OK"),
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed => (405, "Method Not Allowed"),
            Self::NotAcceptable => (406, "Not Acceptable"),
            Self::ContentTooLarge => (413, "Content Too Large"),
            Self::HeadersTooLarge => (431, "Request Header Fields Too Large"),
            Self::NotImplemented => (501, "Not Implemented"),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Own(String),
    Document(Piece),
}

impl Body {
    fn as_str(&self) -> &str {
        match self {
            Self::Own(text) => text,
            Self::Document(piece) => piece.as_str(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) is_json: bool,
    /// A header beside those that every answer has.
    pub(super) header: Option<(&'static str, String)>,
    pub(super) body: Body,
}

impl Answer {
    /// An answer in plain text.
    pub(super) fn text(status: Status, text: impl Into<String>) -> Self {
        Self { status, is_json: false, header: None, body: Body::Own(text.into()) }
    }

    pub(super) fn with_header(self, name: &'static str, value: impl Into<String>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }

    fn head(&self, closes: bool) -> String {
        let (code, reason) = self.status.line();
        let kind = if self.is_json { "application/json" } else { "text/plain" };
        let connection = if closes { "close" } else { "keep-alive" };
        let len = self.body.as_str().len();
        let mut head = format!(
            "HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\nConnection: {connection}\r\n"
        );
        if let Some((name, value)) = &self.header {
            // Writing to a string does not fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        head
    }
}

/// An answer on its way.
pub(super) struct Outgoing {
    head: String,
    body: Body,
    sent: usize,
}

impl Outgoing {
    /// Whether the connection `closes` behind it is said in it.
    pub(super) fn new(answer: Answer, closes: bool) -> Self {
        Self { head: answer.head(closes), body: answer.body, sent: 0 }
    }

    /// The bytes that are next, empty at the end.
    pub(super) fn rest(&self) -> &[u8] {
        match self.head.as_bytes().get(self.sent..) {
            Some(head) if !head.is_empty() => head,
            _ => {
                let in_body = self.sent.saturating_sub(self.head.len());
                self.body.as_str().as_bytes().get(in_body..).unwrap_or_default()
            }
        }
    }

    /// Notes that so many of those bytes were sent.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
    }
}
