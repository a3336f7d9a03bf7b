//! Listeners, and the connections that come by them.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, LOCATION};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::certificates::CHALLENGE_PROTOCOL;
use super::counts::Counts;
use super::held::Held;
use super::place::Place;
use super::proxy::{self, Body, told, unavailable};
use super::quiet::Quiet;
use super::shared::Shared;
use super::workers::{Worker, freest};
use crate::fault::{Context, Result};

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";
/// The longest head of a request, in bytes.
const MOST_HEAD: usize = 64 << 10;
/// Requests at once on a connection of HTTP/2.
const MOST_STREAMS: u32 = 128;
/// What a connection of HTTP/2, and a stream of it, may send before the backend has taken it, in bytes.
const WINDOW: u32 = 256 << 10;
/// What a stream of HTTP/2 has ready for a client that does not take it, in bytes.
const MOST_READY: usize = 64 << 10;
/// How often a client of HTTP/2 is asked whether it is there, and how long its answer may take.
const ASKED: Duration = Duration::from_secs(30);
/// How long none is let in after the host gave no descriptor for one.
const PAUSE: Duration = Duration::from_millis(100);
/// The path of HTTP-01 (RFC 8555, section 8.3).
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// The settings of TLS: 1.2 and 1.3, with the certificate of the name that is asked for.
///
/// # Errors
/// If TLS cannot be set up.
pub fn tls(shared: &Shared) -> Result<TlsAcceptor> {
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().context("TLS")?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::clone(&shared.certificates) as _);
    config.alpn_protocols = [HTTP_2, HTTP_1, CHALLENGE_PROTOCOL].map(<[u8]>::to_vec).to_vec();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Lets clients in for ever, each to the freest thread: with TLS, or without to be sent to where there is.
pub async fn listen(workers: Arc<[Worker]>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let Some((worker, of_worker)) = freest(&workers) else { return };
        let shared = Arc::clone(&worker.shared);
        // One more is closed at once: there is nothing to be said before TLS.
        let Some(counted) = Counts::add(&shared.counts, from.ip().to_canonical()) else { continue };
        // As it is, it would stay with this thread.
        let Ok(stream) = stream.into_std() else { continue };
        let tls = tls.clone();
        worker.handle.spawn(async move {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let _ = stream.set_nodelay(true);
            // It counts as long as its stream lives, also as another protocol's than HTTP.
            let stream = Quiet::new(stream, shared.limits.idle).keeping(Box::new((counted, of_worker)));
            match tls {
                Some(tls) => secure(shared, stream, tls, from).await,
                None => plain(shared, stream).await,
            }
        });
    }
}

async fn secure(shared: Arc<Shared>, stream: Quiet<TcpStream>, tls: TlsAcceptor, from: SocketAddr) {
    let Ok(Ok(stream)) = timeout(shared.limits.head, tls.accept(stream)).await else { return };
    let (protocol, server) = {
        let (_, session) = stream.get_ref();
        (session.alpn_protocol().map(<[u8]>::to_vec), session.server_name().map(str::to_ascii_lowercase))
    };
    if protocol.as_deref() == Some(CHALLENGE_PROTOCOL) {
        return;
    }
    let is_second = protocol.as_deref() == Some(HTTP_2);
    speak(shared, TokioIo::new(stream), is_second, server, from.ip().to_canonical()).await;
}

/// Serves the requests of a connection, by HTTP/2 or HTTP/1.1, for the name that it was made for.
pub async fn speak<S>(shared: Arc<Shared>, io: TokioIo<S>, is_second: bool, server: Option<String>, client: IpAddr)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let for_requests = Arc::clone(&shared);
    let service = service_fn(move |request| {
        let (shared, server) = (Arc::clone(&for_requests), server.clone());
        // In a box, since it is large, and is moved several times until it runs.
        Box::pin(async move { Ok::<_, Infallible>(counted(shared, request, server, client).await) })
    });
    // Whatever ends a connection is its client's affair.
    if is_second {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_concurrent_streams(MOST_STREAMS).max_header_list_size(64 << 10);
        builder.initial_connection_window_size(WINDOW).initial_stream_window_size(WINDOW);
        builder.max_send_buf_size(MOST_READY);
        builder.keep_alive_interval(ASKED).keep_alive_timeout(ASKED).enable_connect_protocol();
        let _ = builder.serve_connection(io, service).await;
    } else {
        let _ = first(&shared).serve_connection(io, service).with_upgrades().await;
    }
}

/// Serves a request, unless its address has as many as it may.
async fn counted(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    server: Option<String>,
    client: IpAddr,
) -> Response<Held<Body>> {
    let Some(counted) = Counts::add(&shared.requests, client) else {
        return unavailable("There are too many requests of this address.").map(|body| Held::new(body, None));
    };
    proxy::serve(shared, request, server, client).await.map(|body| Held::new(body, Some(counted)))
}

async fn plain(shared: Arc<Shared>, stream: Quiet<TcpStream>) {
    let for_requests = Arc::clone(&shared);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&for_requests);
        async move { Ok::<_, Infallible>(redirect(&shared, &request)) }
    });
    let _ = first(&shared).serve_connection(TokioIo::new(stream), service).await;
}

/// HTTP/1.1, with the time and the bytes that a head may take.
fn first(shared: &Shared) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(shared.limits.head).max_header_size(MOST_HEAD);
    builder
}

/// Answers HTTP-01, and sends all others to HTTPS.
fn redirect(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    if let Some(token) = request.uri().path().strip_prefix(CHALLENGE_PATH) {
        return match shared.certificates.token(token) {
            Some(text) => Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()),
            None => told(StatusCode::NOT_FOUND, "There is no such challenge."),
        };
    }
    let Some(Place { host, .. }) = Place::of(request) else {
        return told(StatusCode::BAD_REQUEST, "The request names no host.");
    };
    // Nobody is sent to where we are not.
    if !shared.routes.names().contains(&host) {
        return told(StatusCode::NOT_FOUND, "No app has this name.");
    }
    let port = if shared.https_port == 443 { String::new() } else { format!(":{}", shared.https_port) };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(location) = HeaderValue::from_str(&format!("https://{host}{port}{path}")) else {
        return told(StatusCode::BAD_REQUEST, "The request names no place.");
    };
    let mut response = told(StatusCode::PERMANENT_REDIRECT, "This is served by HTTPS.");
    response.headers_mut().insert(LOCATION, location);
    response
}
