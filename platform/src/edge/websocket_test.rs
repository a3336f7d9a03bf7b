//! WebSockets on streams of HTTP/2, with hyper as the client and threads as backends, without TLS.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::ext::Protocol;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use super::counts::Counts;
use super::routes::{Backend, Refusal, Routes};
use super::serve::speak;
use super::shared::{EdgeLimits, Shared};
use super::store::Store;
use super::turns::Turns;
use super::websocket::confirmation;

const SWITCHES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: RIGHT\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
pub const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// Says one answer, with what confirms the key for `RIGHT`, and then what comes in capitals. Heads of requests are kept.
pub struct App {
    pub answer: &'static str,
    pub heads: Arc<Mutex<Vec<String>>>,
}

impl Routes for App {
    fn connect(&self, _: &str) -> Result<Backend, Refusal> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (answer, heads) = (self.answer, Arc::clone(&self.heads));
        std::thread::spawn(move || {
            let (mut head, mut byte) = (String::new(), [0]);
            while !head.ends_with("\r\n\r\n") {
                theirs.read_exact(&mut byte)?;
                head.push(char::from(byte[0]));
            }
            let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
            let right = key.map(confirmation).unwrap_or_default();
            let is_upgrade = head.contains("websocket");
            heads.lock().unwrap().push(head);
            theirs.write_all(if is_upgrade { answer } else { PLAIN }.replace("RIGHT", &right).as_bytes())?;
            while theirs.read(&mut byte)? > 0 {
                theirs.write_all(&byte.map(|byte| byte.to_ascii_uppercase()))?;
            }
            std::io::Result::Ok(())
        });
        Ok(Backend { again: None, ..ours.into() })
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An edge for one app, without listeners.
pub fn shared(folder: &Path, routes: impl Routes, counts: Arc<Counts>, limits: EdgeLimits) -> Arc<Shared> {
    Arc::new(Shared {
        routes: Arc::new(routes),
        certificates: Arc::default(),
        store: Arc::new(Store::open(&folder.join("edge")).unwrap()),
        counts,
        requests: Arc::new(Counts::new(limits.connections, limits.of_one_address)),
        limits,
        https_port: 443,
        say: Arc::new(|_| {}),
        turns: Arc::new(Turns::new(64, 16)),
        pool: Arc::default(),
    })
}

struct Rig {
    _folder: TempDir,
    client: SendRequest<Empty<Bytes>>,
    counts: Arc<Counts>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    /// A client that knows what the edge offers: it has asked once.
    async fn new(answer: &'static str, limits: EdgeLimits) -> Self {
        let (folder, heads) = (tempfile::tempdir().unwrap(), Arc::default());
        let counts = Arc::new(Counts::new(2, 2));
        let routes = App { answer, heads: Arc::clone(&heads) };
        let shared = shared(folder.path(), routes, Arc::clone(&counts), limits);
        let (ours, theirs) = duplex(64 << 10);
        let client = IpAddr::from([10, 0, 0, 1]);
        tokio::spawn(speak(shared, TokioIo::new(theirs), true, Some("a.example".to_owned()), client));
        let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
        tokio::spawn(connection);
        let mut rig = Self { _folder: folder, client, counts, heads };
        assert_eq!(rig.ask(Method::GET, None).await.status(), 200);
        rig
    }

    async fn ask(&mut self, method: Method, protocol: Option<&'static str>) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri("https://a.example/chat").body(Empty::new()).unwrap();
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        self.client.ready().await.unwrap();
        timeout(Duration::from_secs(20), self.client.send_request(request)).await.unwrap().unwrap()
    }

    async fn websocket(&mut self) -> Response<Incoming> {
        self.ask(Method::CONNECT, Some("websocket")).await
    }

    /// How many more the address may have.
    fn left(&self) -> usize {
        let more = std::iter::from_fn(|| Counts::add(&self.counts, IpAddr::from([10, 0, 0, 1])));
        more.collect::<Vec<_>>().len()
    }
}

pub fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_websocket_on_a_stream_becomes_an_upgrade_and_counts_as_a_connection_until_it_ends() {
    run(async {
        let mut rig = Rig::new(SWITCHES, EdgeLimits::default()).await;
        let response = rig.websocket().await;
        let headers = response.headers();
        assert_eq!((response.status().as_u16(), headers["sec-websocket-protocol"].as_bytes()), (200, &b"chat"[..]));
        assert!(["connection", "upgrade", "sec-websocket-accept"].iter().all(|name| !headers.contains_key(*name)));
        let head = rig.heads.lock().unwrap()[1].clone();
        for line in
            ["GET /chat HTTP/1.1\r\n", "host: a.example\r\n", "connection: upgrade\r\n", "upgrade: websocket\r\n"]
        {
            assert!(head.contains(line) && head.contains("sec-websocket-key: "), "{head}");
        }
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"hello").await.unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!((&said, rig.left()), (b"HELLO", 1));
        let second = rig.websocket().await;
        assert_eq!((second.status().as_u16(), rig.left()), (200, 0));
        assert_eq!(rig.websocket().await.status(), 503, "as many as the address may have");
        // Requests are served as before.
        assert_eq!(rig.ask(Method::GET, None).await.status(), 200);
        drop((stream, second));
        timeout(Duration::from_secs(20), async {
            while rig.left() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    });
}

#[test]
fn an_answer_that_is_no_websocket_and_another_protocol_are_no_stream() {
    run(async {
        let mut rig = Rig::new(PLAIN, EdgeLimits::default()).await;
        assert_eq!(rig.websocket().await.status(), 502);
        let refused = rig.ask(Method::CONNECT, Some("connect-udp")).await;
        assert_eq!(refused.status(), 501);
        assert_eq!(refused.into_body().collect().await.unwrap().to_bytes(), "Only WebSockets are connected to.");
        assert_eq!((rig.left(), rig.heads.lock().unwrap().len()), (2, 2));
    });
}

#[test]
fn a_backend_that_does_not_confirm_the_key_of_the_edge_speaks_no_websocket() {
    run(async {
        let answers =
            ["Sec-WebSocket-Accept: wrong\r\n", "", "Sec-WebSocket-Accept: RIGHT\r\nSec-WebSocket-Accept: x\r\n"];
        for accept in answers {
            let answer = SWITCHES.replace("Sec-WebSocket-Accept: RIGHT\r\n", accept);
            let mut rig = Rig::new(answer.leak(), EdgeLimits::default()).await;
            assert_eq!(rig.websocket().await.status(), 502, "{accept:?}");
            assert_eq!(rig.left(), 2);
        }
    });
}

#[test]
fn a_websocket_on_which_nothing_moves_ends() {
    run(async {
        let limits = EdgeLimits { idle: Duration::from_millis(300), ..EdgeLimits::default() };
        let mut rig = Rig::new(SWITCHES, limits).await;
        let mut stream = TokioIo::new(hyper::upgrade::on(rig.websocket().await).await.unwrap());
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"");
    });
}
