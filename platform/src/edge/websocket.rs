//! WebSockets, and other protocols that a connection is upgraded to: which ones a client asks for, and what is told to the backend and back.
//!
//! HTTP/1.1 asks by `Upgrade`. HTTP/2 asks by an extended `CONNECT` (RFC 8441), which is a stream of a connection, and becomes an upgrade of HTTP/1.1 for
//! the backend.

use base64ct::{Base64, Encoding};
use hyper::ext::Protocol;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

const WEBSOCKET: &str = "websocket";
/// Comes behind the key in what a backend confirms (RFC 6455, section 1.3).
const BEHIND_KEY: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a client wants to speak on its connection, or its stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// HTTP, as before.
    Nothing,
    /// One of these, by HTTP/1.1, in lower case.
    Upgrade(Vec<String>),
    /// A WebSocket, on a stream of HTTP/2, and what a backend confirms it by: nothing as long as it was not asked.
    Stream(String),
    /// What no backend speaks.
    Unknown,
}

impl Wanted {
    /// What a request asks for.
    pub fn of<B>(request: &Request<B>) -> Self {
        if request.version() == Version::HTTP_2 && request.method() == Method::CONNECT {
            let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
            return if protocol == Some(WEBSOCKET) { Self::Stream(String::new()) } else { Self::Unknown };
        }
        let protocols = upgrade_of(request.version(), request.headers());
        if protocols.is_empty() { Self::Nothing } else { Self::Upgrade(protocols) }
    }

    /// Whether it is a WebSocket on a stream of HTTP/2.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// Puts the wish into a request to a backend, from which all about the connection was dropped.
    pub fn ask(&mut self, parts: &mut Parts) -> Option<()> {
        let protocols = match self {
            Self::Nothing | Self::Unknown => return Some(()),
            Self::Upgrade(protocols) => protocols.join(", "),
            Self::Stream(confirmed) => {
                parts.method = Method::GET;
                // Clients by HTTP/2 have none, and look for no answer to it: the edge does.
                let key = key()?;
                *confirmed = confirmation(&key);
                parts.headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).ok()?);
                WEBSOCKET.to_owned()
            }
        };
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_str(&protocols).ok()?);
        Some(())
    }

    /// Whether a backend has chosen what was asked for. By HTTP/1.1 it confirms the client's key, and the client looks at that.
    pub fn has(&self, headers: &HeaderMap) -> bool {
        let chosen = words(headers, &UPGRADE);
        match self {
            Self::Nothing | Self::Unknown => false,
            Self::Upgrade(protocols) => !chosen.is_empty() && chosen.iter().all(|one| protocols.contains(one)),
            Self::Stream(confirmed) => {
                let said: Vec<_> = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter().collect();
                chosen == [WEBSOCKET] && !confirmed.is_empty() && said == [confirmed]
            }
        }
    }

    /// Makes of a backend's consent what the client is told, whose headers about the connection were dropped.
    pub fn told<B>(&self, response: &mut Response<B>, chosen: HeaderValue) {
        let headers = response.headers_mut();
        if self.is_stream() {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            *response.status_mut() = StatusCode::OK;
            return;
        }
        headers.insert(UPGRADE, chosen);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// A key as clients of HTTP/1.1 make one: 16 bytes by chance, in Base64.
fn key() -> Option<String> {
    let mut bytes = [0_u8; 16];
    let read = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).ok()?;
    let is_whole = read == bytes.len();
    is_whole.then(|| Base64::encode_string(&bytes))
}

/// What shows that a backend has read this key, and took it for that of a WebSocket.
pub fn confirmation(key: &str) -> String {
    Base64::encode_string(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{BEHIND_KEY}").as_bytes()).as_ref())
}

/// The protocols that a client of HTTP/1.1 wants to speak on this connection.
/// HTTP itself is not passed on (`h2c`): a client would say requests in it that nobody here looks at.
fn upgrade_of(version: Version, headers: &HeaderMap) -> Vec<String> {
    let is_wanted = words(headers, &CONNECTION).iter().any(|word| word == "upgrade");
    if version != Version::HTTP_11 || !is_wanted {
        return Vec::new();
    }
    let is_http = |protocol: &String| {
        let name = protocol.split('/').next().unwrap_or_default().trim();
        ["h2c", "h2", "h3", "http", "https", "tls"].contains(&name)
    };
    let mut protocols = words(headers, &UPGRADE);
    protocols.retain(|protocol| !is_http(protocol));
    protocols
}

/// The words of all headers of a name, in lower case.
pub fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_protocol_than_http_is_wanted_by_both_headers_of_http_1() {
        let wanted = |version, connection: &'static str, protocols: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
            headers.insert(UPGRADE, HeaderValue::from_static(protocols));
            upgrade_of(version, &headers).join(" ")
        };
        assert_eq!(wanted(Version::HTTP_11, "keep-alive, Upgrade", "WebSocket"), "websocket");
        assert_eq!(wanted(Version::HTTP_11, "close", "websocket"), "");
        assert_eq!(wanted(Version::HTTP_2, "upgrade", "websocket"), "");
        for http in ["h2c", "H2C", "HTTP/2.0", "TLS/1.2, h2c"] {
            assert_eq!(wanted(Version::HTTP_11, "upgrade, http2-settings", http), "");
        }
        assert_eq!(wanted(Version::HTTP_11, "upgrade", "h2c, websocket"), "websocket");
    }

    #[test]
    fn a_key_is_16_bytes_in_base64_and_another_one_each_time() {
        let (text, other) = (key().unwrap(), key().unwrap());
        assert!(text.len() == 24 && text.ends_with("==") && b"AQgw".contains(&text.as_bytes()[21]), "{text}");
        assert_ne!(text, other);
    }

    #[test]
    fn a_backend_confirms_as_rfc_6455_has_it_and_in_no_other_way() {
        assert_eq!(confirmation("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let headers = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
            let value = |text| HeaderValue::from_static(text);
            fields.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
        };
        let (chosen, right) = (("upgrade", "WebSocket"), ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let wrong = ("sec-websocket-accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let asked = Wanted::Stream(confirmation("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(asked.has(&headers(&[chosen, right])));
        for refused in
            [&[chosen][..], &[chosen, wrong], &[chosen, right, wrong], &[right], &[chosen, ("upgrade", "x"), right]]
        {
            assert!(!asked.has(&headers(refused)), "{refused:?}");
        }
        let not_asked = Wanted::Stream(String::new());
        assert!(!not_asked.has(&headers(&[chosen, ("sec-websocket-accept", "")])));
        // A client of HTTP/1.1 has a key of its own, and looks itself.
        assert!(Wanted::Upgrade(vec!["websocket".to_owned()]).has(&headers(&[chosen, wrong])));
    }
}
