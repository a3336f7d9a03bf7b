//! One request, from a client to the backend of its name and back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1::Builder;
use hyper::header::{
    CONNECTION, COOKIE, HOST, HeaderMap, HeaderValue, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, on};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::counts::Counts;
use super::place::Place;
use super::pool::{Answer, Lease, Sent};
use super::quiet::Quiet;
use super::routes::{Backend, Kept, Refusal};
use super::shared::Shared;
use super::upload::{Moved, Upload, answered};
use super::websocket::{Wanted, words};

/// The body of an answer.
pub type Body = BoxBody<Bytes, hyper::Error>;

/// For a backend to be there, which may have to wake up.
const CONNECT: Duration = Duration::from_secs(30);
/// For a backend to begin its answer, from the last piece of the request on.
const ANSWER: Duration = Duration::from_secs(120);
/// The longest head of an answer, and the most that is read of a backend before it is passed on, in bytes.
const MOST_READ: usize = 64 << 10;
/// What tells a backend who asked, which a client could make up.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// Serves a request that came over TLS for the name `server`.
pub async fn serve(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    server: Option<String>,
    client: IpAddr,
) -> Response<Body> {
    let Some(place) = Place::of(&request) else {
        return told(StatusCode::BAD_REQUEST, "The request names no host.");
    };
    // A connection was made for one name, and its certificate is about that one.
    if server.as_deref() != Some(place.host.as_str()) {
        return told(StatusCode::MISDIRECTED_REQUEST, "The connection was made for another name.");
    }
    exchange(&shared, request, &place, client).await.unwrap_or_else(|refused| refused)
}

/// An answer of the edge's own.
pub fn told(status: StatusCode, text: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A new connection to a backend.
async fn connect(shared: &Arc<Shared>, host: &str) -> Result<Lease, Response<Body>> {
    let gone = "The app does not answer.";
    let connected = timeout(CONNECT, look(shared, host)).await;
    let connected = connected.unwrap_or_else(|_| Err(Refusal::NoBackend("it took too long".to_owned())));
    let Backend { stream, kept, again } = connected.map_err(|refusal| match refusal {
        Refusal::Unknown => told(StatusCode::NOT_FOUND, "No app has this name."),
        Refusal::NoBackend(why) => {
            (shared.say)(format!("{host}: no backend: {why}"));
            unavailable(gone)
        }
    })?;
    let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream));
    let stream = stream.map_err(|_| unavailable(gone))?;
    let mut builder = Builder::new();
    builder.max_buf_size(MOST_READ);
    let (sender, connection) =
        builder.handshake(TokioIo::new(Quiet::new(stream, shared.limits.idle))).await.map_err(|_| unavailable(gone))?;
    tokio::spawn(connection.with_upgrades());
    Ok(shared.pool.lease(host, sender, kept, again))
}

/// Looks for a backend, on a thread that may block. If nobody waits any more, that is not begun.
async fn look(shared: &Arc<Shared>, host: &str) -> Result<Backend, Refusal> {
    let ended = || Refusal::NoBackend("the edge ends".to_owned());
    let turn = shared.turns.wait(&shared.routes.owner(host)).await;
    let (routes, name) = (Arc::clone(&shared.routes), host.to_owned());
    let looking = tokio::task::spawn_blocking(move || {
        // Kept until the end of what has begun, even if the client is gone by then.
        let _turn = turn;
        routes.connect(&name)
    });
    let _unless_gone = AbortOnDrop(looking.abort_handle());
    looking.await.unwrap_or_else(|_| Err(ended()))
}

/// Takes a task that has not begun out of the queue.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange(
    shared: &Arc<Shared>,
    mut request: Request<Incoming>,
    place: &Place,
    client: IpAddr,
) -> Result<Response<Body>, Response<Body>> {
    let mut wanted = Wanted::of(&request);
    // One on a stream of HTTP/2 is a connection more; one by HTTP/1.1 has a connection of its own, which counts already.
    let counted = match wanted {
        Wanted::Unknown => return Err(told(StatusCode::NOT_IMPLEMENTED, "Only WebSockets are connected to.")),
        Wanted::Stream(_) => {
            let many = || unavailable("There are too many connections of this address.");
            Some(Counts::add(&shared.counts, client).ok_or_else(many)?)
        }
        _ => None,
    };
    let of_client = (wanted != Wanted::Nothing).then(|| on(&mut request));
    let (mut parts, body) = request.into_parts();
    prepare(&mut parts, place, client, &mut wanted)
        .ok_or_else(|| told(StatusCode::BAD_REQUEST, "The request cannot be passed on."))?;
    let (lease, mut response) = send(shared, &place.host, Request::from_parts(parts, body.boxed())).await?;
    let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let chosen = response.headers().get(UPGRADE).cloned();
    let is_asked = wanted.has(response.headers());
    let trailers = response.headers().get_all(TRAILER).iter().cloned().collect::<Vec<_>>();
    drop_hops(response.headers_mut());
    if !is_upgraded {
        // On a stream, it would say that there is a WebSocket.
        if wanted.is_stream() && response.status().is_success() {
            return Err(no_answer());
        }
        trailers.into_iter().for_each(|names| _ = response.headers_mut().append(TRAILER, names));
        return Ok(response.map(|body| Answer::new(body, lease).boxed()));
    }
    let (Some(of_client), Some(chosen), true) = (of_client, chosen, is_asked) else { return Err(no_answer()) };
    pass_on(of_client, on(&mut response), Box::new((lease.into_kept(), counted)), shared.limits.idle);
    wanted.told(&mut response, chosen);
    Ok(response.map(|_| Empty::new().map_err(|never| match never {}).boxed()))
}

/// Sends a request by a connection that waits, or by a new one. One that has waited may be closed by now: what has not left, or may be said twice, is sent
/// anew.
pub async fn send(
    shared: &Arc<Shared>,
    host: &str,
    request: Request<BoxBody<Bytes, hyper::Error>>,
) -> Result<(Lease, Response<Incoming>), Response<Body>> {
    let twice = repeatable(&request);
    // Backends that answer without reading a body would take it for a request of somebody else's, and some answer to HEAD as to GET.
    let is_last = request.body().size_hint().exact() != Some(0) || request.method() == Method::HEAD;
    let (mut request, mut moved) = watched(request);
    if let Some(mut lease) = shared.pool.take(host) {
        match answered(lease.sender().try_send_request(request), &moved, ANSWER).await {
            Some(Ok(response)) => return Ok((closing(lease, is_last), response)),
            Some(Err(mut failed)) => match (failed.take_message(), twice) {
                (Some(unsent), _) => request = unsent,
                (None, Some(again)) => (request, moved) = watched(again),
                (None, None) => return Err(no_answer()),
            },
            None => return Err(too_late()),
        }
    }
    // Rare, and large: in a box, it makes no other request larger.
    let mut lease = Box::pin(connect(shared, host)).await?;
    match answered(lease.sender().send_request(request), &moved, ANSWER).await {
        Some(Ok(response)) => Ok((closing(lease, is_last), response)),
        Some(Err(_)) => Err(no_answer()),
        None => Err(too_late()),
    }
}

fn watched(request: Request<BoxBody<Bytes, hyper::Error>>) -> (Request<Sent>, Moved) {
    let (parts, body) = request.into_parts();
    let (body, moved) = Upload::new(body);
    (Request::from_parts(parts, body), moved)
}

fn closing(mut lease: Lease, is_last: bool) -> Lease {
    if is_last {
        lease.is_last();
    }
    lease
}

/// The same request, if it may be said twice (RFC 9110, section 9.2.1) and has no body.
fn repeatable(request: &Request<BoxBody<Bytes, hyper::Error>>) -> Option<Request<BoxBody<Bytes, hyper::Error>>> {
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut same = Request::new(Empty::new().map_err(|never| match never {}).boxed());
    *same.method_mut() = request.method().clone();
    *same.uri_mut() = request.uri().clone();
    *same.headers_mut() = request.headers().clone();
    Some(same)
}

fn no_answer() -> Response<Body> {
    told(StatusCode::BAD_GATEWAY, "The app's answer was none.")
}

/// What a client may try again.
pub fn unavailable(text: &'static str) -> Response<Body> {
    let mut response = told(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn too_late() -> Response<Body> {
    told(StatusCode::GATEWAY_TIMEOUT, "The app took too long to answer.")
}

/// Makes of a request what the backend gets. `None` if it cannot be.
fn prepare(parts: &mut Parts, place: &Place, client: IpAddr, wanted: &mut Wanted) -> Option<()> {
    let takes_trailers = words(&parts.headers, &TE).iter().any(|word| word == "trailers");
    let path = parts.uri.path_and_query()?.clone();
    parts.uri = Uri::from(path);
    parts.version = Version::HTTP_11;
    drop_hops(&mut parts.headers);
    for name in FORWARDED {
        parts.headers.remove(name);
    }
    join_cookies(&mut parts.headers)?;
    // Made of what was understood, so that the backend cannot understand another host.
    let authority = HeaderValue::from_str(&place.to_string()).ok()?;
    parts.headers.insert(HOST, authority.clone());
    parts.headers.insert("x-forwarded-for", HeaderValue::from_str(&client.to_string()).ok()?);
    parts.headers.insert("x-forwarded-host", authority);
    parts.headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if takes_trailers && *wanted == Wanted::Nothing {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("te"));
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    wanted.ask(parts)
}

/// Drops what is about one connection and not about the request (RFC 9110, section 7.6.1).
fn drop_hops(headers: &mut HeaderMap) {
    for word in words(headers, &CONNECTION) {
        headers.remove(word);
    }
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["http2-settings", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate"] {
        headers.remove(name);
    }
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

/// Passes on what both sides say in their new protocol, until both have ended, or one takes and says nothing for too long. `kept` counts them as a request
/// until then. A stream of HTTP/2 has no end of its own, so that both are watched.
fn pass_on(client: OnUpgrade, backend: OnUpgrade, kept: Kept, limit: Duration) {
    tokio::spawn(async move {
        let _kept = kept;
        let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else { return };
        let mut client = Quiet::new(TokioIo::new(client), limit);
        let mut backend = TokioIo::new(backend);
        let _ = copy_bidirectional(&mut client, &mut backend).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

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
        prepare(&mut parts, &Place::read("A.example.:").unwrap(), IpAddr::from([10, 0, 0, 1]), &mut Wanted::Nothing)
            .unwrap();
        assert_eq!((parts.uri.to_string().as_str(), parts.version), ("/x?y=1", Version::HTTP_11));
        let mut headers: Vec<_> =
            parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        let wanted = [
            "accept: */*",
            "connection: te",
            "cookie: a=1; b=2",
            "host: a.example",
            "te: trailers",
            "x-forwarded-for: 10.0.0.1",
            "x-forwarded-host: a.example",
            "x-forwarded-proto: https",
        ];
        assert_eq!(headers, wanted);
    }
}
