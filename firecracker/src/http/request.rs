//! A request from the bytes of a connection.

use httparse::{EMPTY_HEADER, Header};

use crate::fault::Fault;

/// The longest request line and headers, in bytes.
const MOST_HEAD: usize = 8192;
/// The most headers.
const MOST_HEADERS: usize = 64;

/// What a request does to its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Makes or replaces.
    Put,
    /// Changes.
    Patch,
    /// Takes away.
    Delete,
    /// One that no path has, by its name.
    Other(String),
}

impl Method {
    fn new(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Its name on the wire.
    pub fn name(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Other(name) => name,
        }
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it asks to be done.
    pub method: Method,
    /// Its path, which begins with a slash.
    pub path: String,
    /// What it brings; empty if it brings nothing.
    pub body: Vec<u8>,
    /// Whether its client may send another one behind it.
    pub keeps_alive: bool,
}

/// What the bytes of a connection are so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a request; `waits` if its client sends the rest once it is told to.
    Partial {
        /// Whether the client waits to be told to go on (`Expect: 100-continue`).
        waits: bool,
    },
    /// A whole one, which takes so many bytes.
    Whole(Request, usize),
}

/// Reads a request from the beginning of `bytes`, with a body of at most `most_body` bytes.
///
/// # Errors
/// The [`Fault`] to be told. Where the next request begins is not known then, so the connection has to end.
pub fn parse(bytes: &[u8], most_body: usize) -> Result<Parsed, Fault> {
    // Some clients send an empty line behind a body.
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let bytes = bytes.get(blank..).unwrap_or_default();
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let window = bytes.get(..MOST_HEAD).unwrap_or(bytes);
    let head_len = match head.parse(window) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if window.len() < MOST_HEAD && blank < MOST_HEAD => {
            return Ok(Parsed::Partial { waits: false });
        }
        Ok(httparse::Status::Partial) => {
            return Err(Fault::new(format!("Invalid request: its head is longer than {MOST_HEAD} bytes.")));
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Fault::new(format!("Invalid request: it has more than {MOST_HEADERS} headers.")));
        }
        Err(why) => return Err(Fault::new(format!("Invalid request: {why}."))),
    };
    let told = Told::read(head.headers)?;
    let body_len = told.body_len.unwrap_or(0);
    if body_len > most_body {
        let message =
            format!("Request payload with size {body_len} is larger than the limit of {most_body} allowed by server.");
        return Err(Fault::new(message));
    }
    let whole = head_len.saturating_add(body_len);
    let Some(body) = bytes.get(head_len..whole) else {
        return Ok(Parsed::Partial { waits: told.waits && bytes.len() == head_len });
    };
    let request = Request {
        method: Method::new(head.method.unwrap_or_default()),
        path: path_of(head.path.unwrap_or_default()),
        body: body.to_vec(),
        keeps_alive: told.keeps_alive.unwrap_or(head.version == Some(1)),
    };
    Ok(Parsed::Whole(request, whole.saturating_add(blank)))
}

/// What the headers say that matters.
#[derive(Default)]
struct Told {
    body_len: Option<usize>,
    waits: bool,
    keeps_alive: Option<bool>,
}

impl Told {
    fn read(headers: &[Header<'_>]) -> Result<Self, Fault> {
        let mut told = Self::default();
        for header in headers {
            let refused = |why: &str| {
                let value = String::from_utf8_lossy(header.value);
                Fault::new(format!("Invalid header {}: {:?}: {why}.", header.name, value.trim()))
            };
            let value = str::from_utf8(header.value).unwrap_or_default().trim();
            if header.name.eq_ignore_ascii_case("content-length") {
                // No sign, which `parse` would take.
                let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                let len =
                    value.parse().ok().filter(|_| is_number).ok_or_else(|| refused("it is no number of bytes"))?;
                if told.body_len.is_some_and(|other| other != len) {
                    return Err(refused("another one says otherwise"));
                }
                told.body_len = Some(len);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") && !value.eq_ignore_ascii_case("identity") {
                return Err(refused("a body has to come as a whole, with its length in Content-Length"));
            } else if header.name.eq_ignore_ascii_case("expect") {
                if !value.eq_ignore_ascii_case("100-continue") {
                    return Err(refused("allowed is 100-continue"));
                }
                told.waits = true;
            } else if header.name.eq_ignore_ascii_case("connection") {
                let words = value.split(',').map(str::trim);
                for word in words {
                    if word.eq_ignore_ascii_case("close") {
                        told.keeps_alive = Some(false);
                    } else if word.eq_ignore_ascii_case("keep-alive") && told.keeps_alive.is_none() {
                        told.keeps_alive = Some(true);
                    }
                }
            }
        }
        Ok(told)
    }
}

/// The path of a target, which may be a whole URL.
fn path_of(target: &str) -> String {
    let path =
        target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| rest.split_at(at).1));
    path.to_owned()
}

#[cfg(test)]
#[path = "request_test.rs"]
mod tests;
