//! Requests: what they are, and what they are answered by. Nothing here knows of connections.

use httparse::{EMPTY_HEADER, Header};

use super::answer::{Answer, Body, Status};
use super::document::{Form, Missing};
use super::service::Metadata;
use super::token::Tokens;

/// The most bytes that a request has, its body included.
pub(super) const MOST_BYTES: usize = 4096;
/// The most headers.
const MOST_HEADERS: usize = 48;

const TOKEN_PATH: [&str; 3] = ["latest", "api", "token"];
const TOKEN: [&str; 2] = ["X-metadata-token", "X-aws-ec2-metadata-token"];
const TTL: [&str; 2] = ["X-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token-ttl-seconds"];
const FORWARDED: &str = "X-Forwarded-For";

/// Seconds for which a token may be good: six hours at most.
const TTL_MOST: u32 = 21_600;

/// What some bytes of a client are.
pub(super) enum Input {
    /// The beginning of a request.
    Unfinished,
    /// A request of so many bytes, with its answer.
    Request { len: usize, answer: Answer, closes: bool },
    /// No request, nor the beginning of one. What follows cannot be told apart any more, so the connection ends.
    Wrong(Answer),
}

/// Answers requests.
pub(super) struct Service {
    pub(super) metadata: Metadata,
    pub(super) tokens: Tokens,
}

struct Request<'a> {
    method: &'a str,
    path: &'a str,
    headers: &'a [Header<'a>],
}

impl Service {
    /// Reads the first request in `bytes`, at the moment `now`, in milliseconds of the clock of this card's tokens.
    pub(super) fn read(&self, bytes: &[u8], now: u64) -> Input {
        let mut headers = [EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let head = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if bytes.len() < MOST_BYTES => return Input::Unfinished,
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                let most = format!("a request may have {MOST_BYTES} bytes and {MOST_HEADERS} headers\n");
                return Input::Wrong(Answer::text(Status::HeadersTooLarge, most));
            }
            Err(e) => return Input::Wrong(Answer::text(Status::BadRequest, format!("this is not HTTP/1.1: {e}\n"))),
        };
        let method = parsed.method.unwrap_or_default();
        let request = Request { method, path: path_of(parsed.path.unwrap_or_default()), headers: parsed.headers };
        let body = match request.body_len() {
            Ok(body) => body,
            Err(answer) => return Input::Wrong(answer),
        };
        let Some(len) = head.checked_add(body).filter(|len| *len <= MOST_BYTES) else {
            let most = format!("a request may have {MOST_BYTES} bytes, its body included\n");
            return Input::Wrong(Answer::text(Status::ContentTooLarge, most));
        };
        if bytes.len() < len {
            return Input::Unfinished;
        }
        let closes = !request.keeps_alive(parsed.version == Some(1));
        Input::Request { len, answer: self.answer(&request, now), closes }
    }

    fn answer(&self, request: &Request, now: u64) -> Answer {
        match request.method {
            "GET" => self.get(request, now),
            "PUT" => self.put(request, now),
            method => Answer::text(Status::MethodNotAllowed, format!("{method} is not allowed, but GET and PUT are\n"))
                .with_header("Allow", "GET, PUT"),
        }
    }

    fn put(&self, request: &Request, now: u64) -> Answer {
        if request.header(&[FORWARDED]).is_some() {
            let refused = format!("a request with {FORWARDED} comes from elsewhere, and gets no token\n");
            return Answer::text(Status::BadRequest, refused);
        }
        if !request.path.split('/').filter(|step| !step.is_empty()).eq(TOKEN_PATH) {
            return not_found(request.path);
        }
        let Some((name, value)) = request.header(&TTL) else {
            let refused = format!("the header {} or {} must say for how long the token is good\n", TTL[0], TTL[1]);
            return Answer::text(Status::BadRequest, refused);
        };
        let seconds = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let seconds = seconds.and_then(|text| text.parse().ok()).filter(|seconds| (1..=TTL_MOST).contains(seconds));
        let Some(seconds) = seconds else {
            let value = String::from_utf8_lossy(value);
            let refused = format!("a token is good for 1 to {TTL_MOST} seconds, not for {value}\n");
            return Answer::text(Status::BadRequest, refused);
        };
        let end = now.saturating_add(u64::from(seconds).saturating_mul(1000));
        Answer::text(Status::Ok, self.tokens.give(end)).with_header(name, seconds.to_string())
    }

    fn get(&self, request: &Request, now: u64) -> Answer {
        let settings = &self.metadata.settings;
        if settings.needs_token {
            let good = request.header(&TOKEN).map(|(_, token)| self.tokens.is_good(token, now));
            match good {
                Some(true) => {}
                Some(false) => return Answer::text(Status::Unauthorized, "the token is not good, or not any more\n"),
                None => {
                    let refused = format!("the header {} or {} must have a token\n", TOKEN[0], TOKEN[1]);
                    return Answer::text(Status::Unauthorized, refused);
                }
            }
        }
        let form = match request.form() {
            _ if settings.always_text => Form::Text,
            Some(form) => form,
            None => {
                return Answer::text(Status::NotAcceptable, "there are text/plain and application/json\n");
            }
        };
        match self.metadata.find(request.path, form) {
            Ok(piece) => {
                let (is_json, body) = (form == Form::Json, Body::Document(piece));
                Answer { status: Status::Ok, is_json, header: None, body }
            }
            Err(Missing::Path) => not_found(request.path),
            Err(Missing::Text) => {
                let refused = "only strings and objects can be had as text; accept application/json\n";
                Answer::text(Status::NotImplemented, refused)
            }
        }
    }
}

impl<'a> Request<'a> {
    /// The first header of one of these names, as we write the name, with its value.
    fn header(&self, names: &[&'static str]) -> Option<(&'static str, &'a [u8])> {
        let known = |header: &Header<'a>| {
            let name = names.iter().find(|name| name.eq_ignore_ascii_case(header.name))?;
            Some((*name, header.value.trim_ascii()))
        };
        self.headers.iter().find_map(known)
    }

    /// The length of its body, which nothing is done with.
    fn body_len(&self) -> Result<usize, Answer> {
        let refused = |status, text: &str| Err(Answer::text(status, text));
        if self.header(&["Transfer-Encoding"]).is_some() {
            return refused(Status::NotImplemented, "a body must come in one piece, with its Content-Length\n");
        }
        let lengths = || self.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Content-Length"));
        let Some(length) = lengths().next() else { return Ok(0) };
        let digits = std::str::from_utf8(length.value.trim_ascii()).ok();
        let digits = digits.filter(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()));
        match digits {
            // One that does not fit a number is too large in any case.
            Some(digits) if lengths().count() == 1 => Ok(digits.parse().unwrap_or(usize::MAX)),
            _ => refused(Status::BadRequest, "the Content-Length is not one number\n"),
        }
    }

    fn keeps_alive(&self, is_1_1: bool) -> bool {
        let wish = self.header(&["Connection"]).map(|(_, value)| value);
        let wishes = |word: &str| {
            let mut words = wish.unwrap_or_default().split(|byte| *byte == b',');
            words.any(|one| one.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        };
        if is_1_1 { !wishes("close") } else { wishes("keep-alive") }
    }

    /// The form of the answer: of those that are accepted, the first that there is. Weights are not looked at.
    fn form(&self) -> Option<Form> {
        let Some((_, accepted)) = self.header(&["Accept"]) else { return Some(Form::Text) };
        let mut kinds = accepted.split(|byte| *byte == b',').map(|kind| {
            let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().to_ascii_lowercase()
        });
        kinds.find_map(|kind| match kind.as_slice() {
            b"application/json" | b"application/*" => Some(Form::Json),
            b"text/plain" | b"text/*" | b"*/*" => Some(Form::Text),
            _ => None,
        })
    }
}

/// The path in a request's target, which may be a whole address, and without a query.
fn path_of(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        _ => target,
    };
    path.split(['?', '#']).next().unwrap_or_default()
}

fn not_found(path: &str) -> Answer {
    Answer::text(Status::NotFound, format!("there is nothing at {path}\n"))
}

#[cfg(test)]
#[path = "request_test.rs"]
mod tests;
