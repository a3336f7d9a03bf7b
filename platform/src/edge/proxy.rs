//! One request, from a client to the backend of its name and back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{
    CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, on};
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::timeout;

use super::quiet::Quiet;
use super::routes::{Backend, Refusal};
use super::shared::Shared;

/// The body of an answer.
pub type Body = BoxBody<Bytes, hyper::Error>;

/// For a backend to be there, which may have to wake up.
const CONNECT: Duration = Duration::from_secs(30);
/// For a backend to begin its answer.
const ANSWER: Duration = Duration::from_secs(120);
/// What tells a backend who asked, which a client could make up.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// Serves a request that came over TLS for the name `server`.
pub async fn serve(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    server: Option<String>,
    client: IpAddr,
) -> Response<Body> {
    let Some(authority) = authority_of(&request) else {
        return told(StatusCode::BAD_REQUEST, "The request names no host.");
    };
    let host = host_of(&authority);
    // A connection was made for one name, and its certificate is about that one.
    if server.as_deref() != Some(host.as_str()) {
        return told(StatusCode::MISDIRECTED_REQUEST, "The connection was made for another name.");
    }
    match connect(&shared, host).await {
        Ok(backend) => exchange(backend, request, &authority, client).await,
        Err(response) => response,
    }
}

/// The host and perhaps a port, which a request is for.
pub fn authority_of<B>(request: &Request<B>) -> Option<String> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str().to_owned());
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    // Two of them are a trick.
    (hosts.next().is_none() && !host.is_empty()).then(|| host.to_owned())
}

/// The host alone, in lower case.
pub fn host_of(authority: &str) -> String {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// An answer of the edge's own.
pub fn told(status: StatusCode, text: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

async fn connect(shared: &Arc<Shared>, host: String) -> Result<SendRequest<Incoming>, Response<Body>> {
    let unavailable = |text| {
        let mut response = told(StatusCode::SERVICE_UNAVAILABLE, text);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        response
    };
    let gone = "The app does not answer.";
    let routes = Arc::clone(&shared.routes);
    let name = host.clone();
    let connecting = tokio::task::spawn_blocking(move || routes.connect(&name));
    let connected = match timeout(CONNECT, connecting).await {
        Ok(Ok(connected)) => connected,
        _ => Err(Refusal::NoBackend("it took too long".to_owned())),
    };
    let Backend { stream, kept } = connected.map_err(|refusal| match refusal {
        Refusal::Unknown => told(StatusCode::NOT_FOUND, "No app has this name."),
        Refusal::NoBackend(why) => {
            (shared.say)(format!("{host}: no backend: {why}"));
            unavailable(gone)
        }
    })?;
    let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream));
    let stream = stream.map_err(|_| unavailable(gone))?;
    let (sender, connection) = handshake(TokioIo::new(Quiet::new(stream, shared.limits.idle).keeping(kept)))
        .await
        .map_err(|_| unavailable(gone))?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

async fn exchange(
    mut backend: SendRequest<Incoming>,
    mut request: Request<Incoming>,
    authority: &str,
    client: IpAddr,
) -> Response<Body> {
    let protocol = upgrade_of(request.version(), request.headers());
    let of_client = protocol.is_some().then(|| on(&mut request));
    let (mut parts, body) = request.into_parts();
    if prepare(&mut parts, authority, client, protocol.as_ref()).is_none() {
        return told(StatusCode::BAD_REQUEST, "The request cannot be passed on.");
    }
    let answered = timeout(ANSWER, backend.send_request(Request::from_parts(parts, body))).await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => return told(StatusCode::BAD_GATEWAY, "The app's answer was none."),
        Err(_) => return told(StatusCode::GATEWAY_TIMEOUT, "The app took too long to answer."),
    };
    let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let chosen = if is_upgraded { response.headers().get(UPGRADE).cloned() } else { None };
    match (is_upgraded, of_client) {
        (true, Some(of_client)) => pass_on(of_client, on(&mut response)),
        (true, None) => return told(StatusCode::BAD_GATEWAY, "The app's answer was none."),
        (false, _) => {}
    }
    drop_hops(response.headers_mut());
    if let Some(chosen) = chosen {
        response.headers_mut().insert(UPGRADE, chosen);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    response.map(BodyExt::boxed)
}

/// Makes of a request what the backend gets. `None` if it cannot be.
fn prepare(parts: &mut Parts, authority: &str, client: IpAddr, protocol: Option<&HeaderValue>) -> Option<()> {
    let path = parts.uri.path_and_query()?.clone();
    parts.uri = Uri::from(path);
    parts.version = Version::HTTP_11;
    drop_hops(&mut parts.headers);
    for name in FORWARDED {
        parts.headers.remove(name);
    }
    join_cookies(&mut parts.headers)?;
    parts.headers.insert(HOST, HeaderValue::from_str(authority).ok()?);
    parts.headers.insert("x-forwarded-for", HeaderValue::from_str(&client.to_string()).ok()?);
    parts.headers.insert("x-forwarded-host", HeaderValue::from_str(authority).ok()?);
    parts.headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if let Some(protocol) = protocol {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, protocol.clone());
    }
    Some(())
}

/// The protocol that a client wants to speak on this connection, a WebSocket's for example. HTTP/2 has another way, which is not offered.
fn upgrade_of(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let is_wanted = words(headers, &CONNECTION).iter().any(|word| word == "upgrade");
    (version == Version::HTTP_11 && is_wanted).then(|| headers.get(UPGRADE).cloned())?
}

/// Drops what is about one connection and not about the request (RFC 9110, section 7.6.1).
fn drop_hops(headers: &mut HeaderMap) {
    for word in words(headers, &CONNECTION) {
        headers.remove(word);
    }
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate"] {
        headers.remove(name);
    }
}

/// The words of all headers of a name, in lower case.
fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

/// HTTP/2 sends cookies one by one, which HTTP/1.1 takes together.
fn join_cookies(headers: &mut HeaderMap) -> Option<()> {
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if all.len() > 1 {
        let joined = HeaderValue::from_bytes(&all.join(b"; ".as_slice())).ok()?;
        headers.insert(COOKIE, joined);
    }
    Some(())
}

/// Passes on what both sides say in their new protocol. Each of the connections ends by itself if nothing moves.
fn pass_on(client: OnUpgrade, backend: OnUpgrade) {
    tokio::spawn(async move {
        let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else { return };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        let _ = copy_bidirectional(&mut client, &mut backend).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_in_lower_case_without_its_port() {
        for (authority, host) in [
            ("A.example", "a.example"),
            ("a.example:443", "a.example"),
            ("a.example.", "a.example"),
            ("[::1]:80", "[::1]"),
        ] {
            assert_eq!(host_of(authority), host);
        }
        let request = |hosts: &[&str]| {
            let mut builder = Request::get("/");
            for host in hosts {
                builder = builder.header(HOST, *host);
            }
            authority_of(&builder.body(()).unwrap())
        };
        assert_eq!(request(&["a.example:1"]).as_deref(), Some("a.example:1"));
        assert_eq!((request(&[]), request(&[""]), request(&["a.example", "b.example"])), (None, None, None));
    }

    #[test]
    fn a_backend_gets_what_the_client_said_but_for_what_is_about_the_connection_or_made_up() {
        let request = Request::post("https://a.example/x?y=1").version(Version::HTTP_2);
        let request = request
            .header("connection", "x-own, close")
            .header("x-own", "1")
            .header("te", "trailers")
            .header("accept", "*/*");
        let request = request.header("x-forwarded-for", "6.6.6.6").header("cookie", "a=1").header("cookie", "b=2");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        prepare(&mut parts, "a.example", IpAddr::from([10, 0, 0, 1]), None).unwrap();
        assert_eq!((parts.uri.to_string().as_str(), parts.version), ("/x?y=1", Version::HTTP_11));
        let mut headers: Vec<_> =
            parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        let wanted = [
            "accept: */*",
            "cookie: a=1; b=2",
            "host: a.example",
            "x-forwarded-for: 10.0.0.1",
            "x-forwarded-host: a.example",
            "x-forwarded-proto: https",
        ];
        assert_eq!(headers, wanted);
    }

    #[test]
    fn another_protocol_is_wanted_by_both_headers_of_http_1() {
        let wanted = |version, connection: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            upgrade_of(version, &headers)
        };
        assert!(wanted(Version::HTTP_11, "keep-alive, Upgrade").is_some());
        assert!(wanted(Version::HTTP_11, "close").is_none() && wanted(Version::HTTP_2, "upgrade").is_none());
    }
}
