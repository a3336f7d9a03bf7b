//! An answer to bytes.

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200, with data.
    Ok,
    /// 204, done, and nothing to say.
    NoContent,
    /// 400.
    BadRequest,
    /// 413.
    PayloadTooLarge,
    /// 503.
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::NoContent => "204 No Content",
            Self::BadRequest => "400 Bad Request",
            Self::PayloadTooLarge => "413 Payload Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: Status,
    body: Option<String>,
    deprecated: bool,
    /// The body is left out, and its length is told.
    head_alone: bool,
}

impl Response {
    /// Tells a client to send the body that it has.
    pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

    /// Done, and nothing to say.
    pub fn done() -> Self {
        Self { status: Status::NoContent, body: None, deprecated: false, head_alone: false }
    }

    /// With a JSON text.
    pub fn json(status: Status, body: String) -> Self {
        Self { status, body: Some(body), deprecated: false, head_alone: false }
    }

    /// Says that the request used what will be removed from the API.
    #[must_use]
    pub fn deprecated(mut self, deprecated: bool) -> Self {
        self.deprecated = deprecated;
        self
    }

    /// Without its body, as the answer to a `HEAD` is. Clients take what comes behind it for the next answer.
    #[must_use]
    pub fn head_alone(mut self, head_alone: bool) -> Self {
        self.head_alone = head_alone;
        self
    }

    /// What became of the request.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The JSON text, if there is one.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// What goes over the wire; `keeps_alive` says whether another request may come.
    pub fn to_bytes(&self, keeps_alive: bool) -> Vec<u8> {
        let connection = if keeps_alive { "keep-alive" } else { "close" };
        let deprecation = if self.deprecated { "Deprecation: true\r\n" } else { "" };
        let line = self.status.line();
        let head = format!("HTTP/1.1 {line}\r\nServer: Firecracker API\r\nConnection: {connection}\r\n{deprecation}");
        match &self.body {
            None => format!("{head}\r\n"),
            Some(body) => {
                let sent = if self.head_alone { "" } else { body };
                format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{sent}", body.len())
            }
        }
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_body_and_its_length_or_neither() {
        let text = |response: &Response, keeps| String::from_utf8(response.to_bytes(keeps)).unwrap();
        let done = "HTTP/1.1 204 No Content\r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(text(&Response::done(), true), done);
        let json = text(&Response::json(Status::Ok, "{\"ä\":1}".to_owned()).deprecated(true), false);
        let expected = "HTTP/1.1 200 OK\r\nServer: Firecracker API\r\nConnection: close\r\nDeprecation: true\r\n\
                        Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"ä\":1}";
        assert_eq!(json, expected);
        let head = text(&Response::json(Status::BadRequest, "{}".to_owned()).head_alone(true), true);
        assert!(head.ends_with("\r\nContent-Length: 2\r\n\r\n"), "{head}");
    }
}
