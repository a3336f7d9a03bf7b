//! Requests for the page, and which of them are refused.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::assets;
use super::stream::tell;
use super::watch::Watch;
use crate::app::is_name;
use crate::edge::{Counts, Place, Quiet};

/// Connections at once, each of which may be a browser that looks on.
const MOST_CONNECTIONS: usize = 32;
/// For a head of a request to come.
const HEAD: Duration = Duration::from_secs(10);
/// For a byte to move on a connection.
const IDLE: Duration = Duration::from_secs(60);
/// How long none is let in after the host gave no descriptor for one.
const PAUSE: Duration = Duration::from_millis(100);
/// What goes with every answer, so that a browser loads nothing else, guesses nothing, keeps nothing, and shows it nowhere else.
const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", assets::POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
];

type Body = BoxBody<Bytes, Infallible>;

/// Lets browsers in for ever.
pub async fn listen(watch: Arc<Watch>, listener: TcpListener) {
    let counts = Arc::new(Counts::new(MOST_CONNECTIONS, MOST_CONNECTIONS));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let Some(counted) = Counts::add(&counts, from.ip()) else { continue };
        let watch = Arc::clone(&watch);
        tokio::spawn(async move {
            let stream = Quiet::new(stream, IDLE).keeping(Box::new(counted));
            let service = service_fn(move |request: Request<Incoming>| {
                let watch = Arc::clone(&watch);
                async move { Ok::<_, Infallible>(answer(watch, request).await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
            // Whatever ends a connection is the browser's affair.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(watch: Arc<Watch>, request: Request<Incoming>) -> Response<Body> {
    let mut response = match refused(&request) {
        Some((status, why)) => text(status, "text/plain; charset=utf-8", why),
        None => served(watch, &request).await,
    };
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    }
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why a request is refused, if it is.
fn refused<B>(request: &Request<B>) -> Option<(StatusCode, &'static str)> {
    if request.method() != Method::GET {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "The page can only be read: allowed is GET."));
    }
    // A name of somebody else's may lead here, and then a page of theirs would be as one of ours to a browser.
    if !Place::of(request).is_some_and(|place| is_loopback(&place.host)) {
        return Some((
            StatusCode::FORBIDDEN,
            "The request is for another host: allowed are localhost, 127.0.0.1 and [::1].",
        ));
    }
    // A link to the page may be anywhere.
    if request.uri().path() != "/" && is_from_elsewhere(request.headers()) {
        return Some((StatusCode::FORBIDDEN, "The request comes from a page of another site."));
    }
    None
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Browsers say who made a request: the person, a page of ours, or another one.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"none" | b"same-origin"))
}

async fn served(watch: Arc<Watch>, request: &Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/" => text(StatusCode::OK, "text/html; charset=utf-8", assets::PAGE),
        "/page.js" => text(StatusCode::OK, "text/javascript; charset=utf-8", assets::SCRIPT),
        "/page.css" => text(StatusCode::OK, "text/css; charset=utf-8", assets::STYLE),
        "/icon.svg" => text(StatusCode::OK, "image/svg+xml", assets::ICON),
        "/api/status" => match spawn_blocking(move || watch.full()).await {
            Ok(Ok(full)) => text(StatusCode::OK, "application/json", full.to_string()),
            _ => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "The state cannot be read."),
        },
        "/api/events" => events(watch, request.uri().query()),
        _ => text(StatusCode::NOT_FOUND, "text/plain", "There is no such page: / is it."),
    }
}

/// `?log=APP` asks for what the VMs of an app say.
fn events(watch: Arc<Watch>, query: Option<&str>) -> Response<Body> {
    let app = query.and_then(|query| query.strip_prefix("log=")).map(str::to_owned);
    // A name is also that of a folder, so it is looked at before anything is opened.
    if app.as_ref().is_some_and(|app| !is_name(app)) {
        return text(StatusCode::NOT_FOUND, "text/plain", "There is no app of this name.");
    }
    let (sender, body) = Channel::new(1);
    tokio::spawn(tell(watch, app, sender));
    typed(Response::new(body.boxed()), "text/event-stream")
}

fn text(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed());
    *response.status_mut() = status;
    typed(response, kind)
}

fn typed(mut response: Response<Body>, kind: &'static str) -> Response<Body> {
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
