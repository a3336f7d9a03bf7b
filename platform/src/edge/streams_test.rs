//! Many requests at once by HTTP/2, of one client, without TLS.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::net::sockopt::set_socket_send_buffer_size;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::attack_test::{HEAD, PREFACE, frame};
use super::counts::Counts;
use super::routes::{Backend, Refusal, Routes};
use super::serve::speak;
use super::shared::{EdgeLimits, Shared};
use super::websocket_test::{run, shared};

const LIMIT: Duration = Duration::from_secs(20);
const OF_ONE: usize = 4;

/// Answers with so many bytes once it may.
#[derive(Clone)]
struct Slow {
    bytes: usize,
    may: Arc<(Mutex<bool>, Condvar)>,
    /// Requests that came, and bytes of answers that were taken.
    came: Arc<AtomicUsize>,
    taken: Arc<AtomicUsize>,
}

impl Slow {
    fn open(&self) {
        *self.may.0.lock().unwrap() = true;
        self.may.1.notify_all();
    }
}

impl Routes for Slow {
    fn connect(&self, _: &str) -> Result<Backend, Refusal> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        set_socket_send_buffer_size(&theirs, 4096).unwrap();
        let this = self.clone();
        std::thread::spawn(move || {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                theirs.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            this.came.fetch_add(1, Ordering::SeqCst);
            drop(this.may.1.wait_while(this.may.0.lock().unwrap(), |may| !*may).unwrap());
            write!(theirs, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", this.bytes)?;
            for piece in vec![b'x'; this.bytes].chunks(4096) {
                theirs.write_all(piece)?;
                this.taken.fetch_add(piece.len(), Ordering::SeqCst);
            }
            std::io::Result::Ok(())
        });
        Ok(Backend { again: None, ..ours.into() })
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

struct Rig {
    _folder: TempDir,
    shared: Arc<Shared>,
    slow: Slow,
}

impl Rig {
    fn new(bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let slow = Slow { bytes, may: Arc::default(), came: Arc::default(), taken: Arc::default() };
        let limits = EdgeLimits { of_one_address: OF_ONE, ..EdgeLimits::default() };
        let shared = shared(folder.path(), slow.clone(), Arc::new(Counts::new(9, 9)), limits);
        Self { _folder: folder, shared, slow }
    }

    fn serve(&self, stream: tokio::io::DuplexStream, client: u8) {
        let client = IpAddr::from([10, 0, 0, client]);
        tokio::spawn(speak(Arc::clone(&self.shared), TokioIo::new(stream), true, Some("a.example".to_owned()), client));
    }

    async fn client(&self, client: u8) -> SendRequest<Empty<Bytes>> {
        let (ours, theirs) = duplex(64 << 10);
        self.serve(theirs, client);
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// How many more requests the first client may have.
    fn left(&self) -> usize {
        let more = std::iter::from_fn(|| Counts::add(&self.shared.requests, IpAddr::from([10, 0, 0, 1])));
        more.collect::<Vec<_>>().len()
    }
}

fn ask(client: &mut SendRequest<Empty<Bytes>>) -> JoinHandle<Response<Incoming>> {
    let request = Request::get("https://a.example/").body(Empty::new()).unwrap();
    let answer = client.send_request(request);
    tokio::spawn(async { answer.await.unwrap() })
}

async fn answered(asked: JoinHandle<Response<Incoming>>) -> Response<Incoming> {
    timeout(LIMIT, asked).await.expect("an answer").unwrap()
}

async fn until(what: impl Fn() -> bool) {
    timeout(LIMIT, async {
        while !what() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it comes");
}

#[test]
fn requests_of_one_address_have_one_limit_over_all_its_connections() {
    run(async {
        let rig = Rig::new(2);
        let (mut one, mut two, mut other) = (rig.client(1).await, rig.client(1).await, rig.client(2).await);
        let came = || rig.slow.came.load(Ordering::SeqCst);
        let mut held: Vec<_> =
            (0..OF_ONE).map(|number| ask(if number % 2 == 0 { &mut one } else { &mut two })).collect();
        until(|| came() == OF_ONE).await;
        for client in [&mut one, &mut two] {
            let refused = answered(ask(client)).await;
            assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"5"[..]));
            let text = refused.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(text, "There are too many requests of this address.");
        }
        held.push(ask(&mut other));
        until(|| came() == OF_ONE + 1).await;
        // A stream that its client resets is one less.
        held.remove(0).abort();
        until(|| rig.left() == 1).await;
        held.push(ask(&mut two));
        until(|| came() == OF_ONE + 2).await;
        assert_eq!(rig.left(), 0);
        rig.slow.open();
        for asked in held {
            let answer = answered(asked).await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "xx");
        }
        until(|| rig.left() == OF_ONE).await;
        assert_eq!(answered(ask(&mut one)).await.status(), 200);
    });
}

#[test]
fn an_answer_that_its_client_does_not_read_counts_until_it_has_left() {
    run(async {
        let rig = Rig::new(32 << 10);
        rig.slow.open();
        let (mut ours, theirs) = duplex(1024);
        rig.serve(theirs, 1);
        ours.write_all(&[PREFACE, &frame(1, 5, 1, HEAD)].concat()).await.unwrap();
        until(|| rig.slow.taken.load(Ordering::SeqCst) == 32 << 10).await;
        sleep(Duration::from_millis(300)).await;
        assert_eq!(rig.left(), OF_ONE - 1);
        let mut read = 0;
        while rig.left() < OF_ONE {
            let mut piece = [0; 1024];
            read += timeout(LIMIT, ours.read(&mut piece)).await.expect("more").unwrap();
        }
        assert!(read > 30 << 10, "{read}");
    });
}

#[test]
fn little_of_an_answer_is_ready_for_a_client_that_does_not_read() {
    run(async {
        let rig = Rig::new(2 << 20);
        rig.slow.open();
        let (mut ours, theirs) = duplex(1024);
        rig.serve(theirs, 1);
        // It says that it takes as much as can be said, on each stream and on all of them.
        let (stream, all) = (frame(4, 0, 0, b"\0\x04\x7f\xff\xff\xff"), frame(8, 0, 0, b"\x7f\xfe\0\0"));
        ours.write_all(&[PREFACE, &stream, &all, &frame(1, 5, 1, HEAD)].concat()).await.unwrap();
        let taken = || rig.slow.taken.load(Ordering::SeqCst);
        until(|| taken() > 0).await;
        let mut before = 0;
        while taken() > before {
            before = taken();
            sleep(Duration::from_millis(300)).await;
        }
        assert!(before <= 320 << 10, "{before}");
        // All of it comes once the client reads.
        tokio::spawn(async move { tokio::io::copy(&mut ours, &mut tokio::io::sink()).await });
        until(|| taken() == 2 << 20).await;
        until(|| rig.left() == OF_ONE).await;
    });
}
