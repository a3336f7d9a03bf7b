//! Connections to backends that have more than one request, with backends that are threads.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use tempfile::TempDir;

use super::counts::Counts;
use super::pool::Answer;
use super::proxy::{Body, send};
use super::routes::{Backend, Kept, Refusal, Routes};
use super::shared::{EdgeLimits, Shared};
use super::store::Store;
use super::turns::Turns;

/// How a backend behaves.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Kind,
    /// Closes its connection after an answer, and does not say so.
    Closes,
    /// Takes a second request and closes its connection.
    Swallows,
}

struct Backends {
    mode: Mode,
    made: AtomicUsize,
    /// Requests that some backend has read.
    seen: Arc<Mutex<Vec<String>>>,
    /// Requests that are counted now.
    counted: Arc<AtomicUsize>,
    takes_more: Arc<AtomicBool>,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn count(counted: &Arc<AtomicUsize>) -> Kept {
    counted.fetch_add(1, Ordering::SeqCst);
    Box::new(Counted(Arc::clone(counted)))
}

/// Reads one request, with its body; none at the end.
fn request(stream: &mut UnixStream) -> Option<String> {
    let (mut head, mut byte) = (String::new(), [0]);
    while !head.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(char::from(byte[0]));
    }
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| length.parse().unwrap());
    stream.read_exact(&mut vec![0; length]).ok()?;
    if head.contains("chunked") {
        let mut tail = Vec::new();
        while !tail.ends_with(b"0\r\n\r\n") {
            stream.read_exact(&mut byte).ok()?;
            tail.push(byte[0]);
        }
    }
    Some(head.lines().next().unwrap().to_owned())
}

impl Routes for Backends {
    fn connect(&self, _: &str) -> Result<Backend, Refusal> {
        let number = self.made.fetch_add(1, Ordering::SeqCst) + 1;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (mode, seen) = (self.mode, Arc::clone(&self.seen));
        std::thread::spawn(move || {
            for turn in 1.. {
                let Some(line) = request(&mut theirs) else { return };
                seen.lock().unwrap().push(line);
                if mode == Mode::Swallows && turn == 2 {
                    return;
                }
                let said = format!("{number}.{turn}");
                let _ = write!(theirs, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len());
                if mode == Mode::Closes {
                    return;
                }
            }
        });
        let (counted, takes_more) = (Arc::clone(&self.counted), Arc::clone(&self.takes_more));
        let again = move || takes_more.load(Ordering::SeqCst).then(|| count(&counted));
        Ok(Backend { stream: ours, kept: count(&self.counted), again: Some(Box::new(again)) })
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

struct Bench {
    _folder: TempDir,
    backends: Arc<Backends>,
    shared: Arc<Shared>,
}

impl Bench {
    fn new(mode: Mode) -> Self {
        let backends = Arc::new(Backends {
            mode,
            made: AtomicUsize::new(0),
            seen: Arc::default(),
            counted: Arc::default(),
            takes_more: Arc::new(AtomicBool::new(true)),
        });
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared {
            routes: Arc::clone(&backends) as _,
            certificates: Arc::default(),
            store: Arc::new(Store::open(&folder.path().join("edge")).unwrap()),
            counts: Arc::new(Counts::new(10, 10)),
            requests: Arc::new(Counts::new(10, 10)),
            limits: EdgeLimits::default(),
            https_port: 443,
            say: Arc::new(|_| {}),
            turns: Arc::new(Turns::new(64, 16)),
            pool: Arc::default(),
        };
        Self { _folder: folder, backends, shared: Arc::new(shared) }
    }

    /// What a backend answers: its number, and how many requests it has had.
    async fn ask(&self, method: &str, body: BoxBody<Bytes, hyper::Error>) -> Result<String, Response<Body>> {
        let request = Request::builder().method(method).uri("/x").header("host", "a.example").body(body).unwrap();
        let (lease, response) = send(&self.shared, "a.example", request).await?;
        let text = Answer::new(response.into_body(), lease).collect().await.unwrap().to_bytes();
        // The connection waits in a moment.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(String::from_utf8(text.to_vec()).unwrap())
    }

    async fn get(&self) -> String {
        self.ask("GET", full("")).await.unwrap()
    }
}

fn full(text: &'static str) -> BoxBody<Bytes, hyper::Error> {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn requests_go_by_one_connection_until_it_has_waited_too_long() {
    run(async {
        let bench = Bench::new(Mode::Kind);
        tokio::spawn(Arc::clone(&bench.shared.pool).sweep());
        assert_eq!((bench.get().await.as_str(), bench.get().await.as_str()), ("1.1", "1.2"));
        assert_eq!(bench.ask("POST", full("text")).await.unwrap(), "1.3");
        assert_eq!(bench.backends.counted.load(Ordering::SeqCst), 0, "one that waits is no request");
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(bench.get().await, "2.1");
    });
}

#[test]
fn a_backend_that_takes_no_more_requests_gets_none() {
    run(async {
        let bench = Bench::new(Mode::Kind);
        assert_eq!(bench.get().await, "1.1");
        bench.backends.takes_more.store(false, Ordering::SeqCst);
        assert_eq!((bench.get().await.as_str(), bench.get().await.as_str()), ("2.1", "3.1"));
        assert_eq!(bench.backends.counted.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_connection_that_was_closed_meanwhile_costs_no_request() {
    run(async {
        let bench = Bench::new(Mode::Closes);
        for number in 1..=20 {
            assert_eq!(bench.ask("POST", full("text")).await.unwrap(), format!("{number}.1"));
        }
        assert_eq!(bench.backends.seen.lock().unwrap().len(), 20);
    });
}

#[test]
fn only_what_may_be_said_twice_is_said_again_if_no_answer_comes() {
    run(async {
        let bench = Bench::new(Mode::Swallows);
        assert_eq!((bench.get().await.as_str(), bench.get().await.as_str()), ("1.1", "2.1"));
        assert_eq!(bench.backends.seen.lock().unwrap().len(), 3);
        let refused = bench.ask("POST", full("text")).await.err().unwrap();
        assert_eq!(refused.status(), 502);
        let seen = bench.backends.seen.lock().unwrap().clone();
        assert_eq!(seen.iter().filter(|line| line.starts_with("POST")).count(), 1, "{seen:?}");
    });
}

#[test]
fn after_a_body_of_unknown_length_a_connection_has_no_other_request() {
    run(async {
        let bench = Bench::new(Mode::Kind);
        let (mut sender, body) = http_body_util::channel::Channel::<Bytes, hyper::Error>::new(1);
        tokio::spawn(async move { sender.send_data(Bytes::from_static(b"text")).await });
        assert_eq!(bench.ask("POST", body.boxed()).await.unwrap(), "1.1");
        assert_eq!(bench.get().await, "2.1");
    });
}

#[test]
fn an_answer_that_nobody_reads_to_its_end_closes_the_connection_and_counts_no_longer() {
    run(async {
        let bench = Bench::new(Mode::Kind);
        let request = Request::get("/x").header("host", "a.example").body(full("")).unwrap();
        let (lease, response) = send(&bench.shared, "a.example", request).await.unwrap();
        assert_eq!(bench.backends.counted.load(Ordering::SeqCst), 1);
        drop(Answer::new(response.into_body(), lease));
        assert_eq!(bench.backends.counted.load(Ordering::SeqCst), 0);
        assert_eq!(bench.get().await, "2.1");
    });
}
