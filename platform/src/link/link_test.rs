//! Two hosts that know each other, and others that lie.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::fault::{Fault, Result};
use crate::lines::Hidden;

const LIMIT: Duration = Duration::from_secs(5);

/// A connection to this port stays open.
const OPEN: u16 = 9;

/// Knows one host as number 7, and answers by what it was asked.
struct Echo {
    known: String,
    asked: AtomicUsize,
    /// It was taken out.
    gone: AtomicBool,
}

impl Serves for Echo {
    fn known(&self, certificate: &str) -> Option<u16> {
        (certificate == self.known && !self.gone.load(Ordering::SeqCst)).then_some(7)
    }

    fn is_found_at(&self, _: IpAddr) -> bool {
        false
    }

    fn answer(&self, caller: &Caller, request: Request) -> Result<Outcome> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match request {
            Request::Join { name, .. } => Ok(Outcome::Done(json!({ "from": caller.host, "name": name }))),
            _ if caller.host.is_none() => Err(Fault::new("nobody knows you")),
            Request::Run { .. }
            | Request::Image { .. }
            | Request::End { .. }
            | Request::Wake { .. }
            | Request::Exec { .. }
            | Request::Logs { .. }
            | Request::Replicate => Err(Fault::new("not here")),
            // Says how many bytes came before their end.
            Request::Beat => Ok(Outcome::Work(Box::new(|mut stream: UnixStream| {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                let _ = write!(stream, "{}", bytes.len());
            }))),
            Request::Connect { app, port, .. } => {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                if app == "stuck" {
                    thread::sleep(Duration::from_secs(2));
                }
                thread::spawn(move || {
                    let said = write!(theirs, "port {port}");
                    // As long as the other side is there.
                    said.is_ok() && port == OPEN && theirs.read(&mut [0]).is_ok()
                });
                Ok(Outcome::Relay(ours, Box::new(())))
            }
        }
    }
}

struct Site {
    link: Link,
    peer: Peer,
    echo: Arc<Echo>,
    _server: Link,
}

fn site() -> Site {
    let (link, server) = (Link::new(Identity::generate().unwrap()).unwrap(), Identity::generate().unwrap());
    let certificate = server.digest().unwrap();
    let echo =
        Arc::new(Echo { known: link.certificate().unwrap(), asked: AtomicUsize::new(0), gone: AtomicBool::new(false) });
    let server = Link::new(server).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = Peer { endpoint: listener.local_addr().unwrap(), certificate };
    let serves: Arc<Echo> = Arc::clone(&echo);
    server.serve(listener, serves).unwrap();
    Site { link, peer, echo, _server: server }
}

fn join(name: &str) -> Request {
    let endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Request::Join { secret: Hidden("secret".into()), name: name.into(), endpoint, tunnel: "key".into() }
}

#[test]
fn a_host_is_known_by_its_certificate_and_its_bytes_go_both_ways() {
    let site = site();
    assert_eq!(site.link.ask(&site.peer, join("a"), LIMIT).unwrap(), json!({ "from": 7, "name": "a" }));
    let mut stream = site.link.stream(&site.peer, Request::Beat, LIMIT).unwrap();
    stream.write_all(&vec![7; 3_000_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert_eq!(said, "3000000");
    let request = Request::Connect { app: "web".into(), vm: 1, port: 80 };
    let mut said = String::new();
    site.link.stream(&site.peer, request.clone(), LIMIT).unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "port 80");
    let wrong = site.link.ask(&site.peer, request, LIMIT).unwrap_err();
    assert!(wrong.message.contains("by a stream, which was not asked for"), "{wrong}");
}

#[test]
fn a_stranger_may_ask_to_join_and_nothing_else() {
    let site = site();
    let stranger = Link::new(Identity::generate().unwrap()).unwrap();
    assert_eq!(stranger.ask(&site.peer, join("b"), LIMIT).unwrap()["from"], json!(null));
    let refused = stranger.stream(&site.peer, Request::Beat, LIMIT).unwrap_err();
    assert!(refused.message.contains("nobody knows you"), "{refused}");
    let long = stranger.ask(&site.peer, join(&"x".repeat(5000)), LIMIT).unwrap_err();
    assert!(long.message.contains("a message of 4096 bytes has no end; allowed are 4096"), "{long}");
}

#[test]
fn a_host_with_another_certificate_is_asked_nothing() {
    let site = site();
    let peer = Peer { certificate: "0".repeat(64), ..site.peer.clone() };
    let refused = site.link.ask(&peer, join("a"), LIMIT).unwrap_err();
    assert!(refused.message.contains("this is not the host that is meant"), "{refused}");
    assert_eq!(site.echo.asked.load(Ordering::SeqCst), 0);
    // The same certificate is of no use without its key.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = listener.local_addr().unwrap();
    let closed = thread::spawn(move || drop(listener.accept().unwrap()));
    assert!(site.link.ask(&Peer { endpoint, ..site.peer.clone() }, join("a"), LIMIT).is_err());
    closed.join().unwrap();
}

#[test]
fn garbage_and_silence_and_messages_without_an_end_cost_their_own_connection() {
    let site = site();
    let mut garbage = TcpStream::connect(site.peer.endpoint).unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    garbage.set_read_timeout(Some(LIMIT)).unwrap();
    let mut told = Vec::new();
    let ended = garbage.read_to_end(&mut told);
    assert!(ended.is_ok() || ended.is_err_and(|why| why.kind() == ErrorKind::ConnectionReset));
    // More than there may be of those who are not known, and say nothing.
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(site.peer.endpoint).unwrap()).collect();
    let long = site.link.ask(&site.peer, join(&"x".repeat(5 << 20)), LIMIT);
    assert!(long.is_err());
    drop(silent);
    let began = Instant::now();
    while site.link.ask(&site.peer, join("a"), LIMIT).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the link does not answer any more");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_request_that_is_none_is_refused_and_a_host_that_does_not_answer_is_not_waited_for() {
    let site = site();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = Peer { endpoint: silent.local_addr().unwrap(), ..site.peer.clone() };
    let began = Instant::now();
    let refused = site.link.ask(&peer, join("a"), LIMIT).unwrap_err();
    assert!(refused.message.contains("no handshake in time"), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(15));
    drop(silent);
    assert!(site.link.ask(&peer, join("a"), LIMIT).unwrap_err().message.contains("no connection"));
}

#[test]
fn long_messages_of_a_host_take_turns_and_short_ones_do_not_wait_for_them() {
    let site = site();
    let begun = |_| {
        let connector =
            tokio_rustls::TlsConnector::from(tls::client(&site.link.identity, &site.peer.certificate).unwrap());
        let endpoint = site.peer.endpoint;
        site.link.runtime().unwrap().block_on(async move {
            let tcp = tokio::net::TcpStream::connect(endpoint).await.unwrap();
            let mut tls = connector.connect("cell".try_into().unwrap(), tcp).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut tls, &[b' '; 100 << 10]).await.unwrap();
            tls
        })
    };
    // As many as may be long at a time, none of which ends.
    let held: Vec<_> = (0..4).map(begun).collect();
    let long = "x".repeat(100 << 10);
    let began = Instant::now();
    let soon = Duration::from_secs(1);
    while site.link.ask(&site.peer, join(&long), soon).is_ok() {
        assert!(began.elapsed() < LIMIT, "a long message does not wait");
    }
    assert!(site.link.ask(&site.peer, join("a"), LIMIT).is_ok());
    drop(held);
    assert_eq!(site.link.ask(&site.peer, join(&long), LIMIT).unwrap()["name"], long);
}

fn connect(site: &Site, app: &str, port: u16) -> Result<UnixStream> {
    site.link.stream(&site.peer, Request::Connect { app: app.into(), vm: 1, port }, LIMIT)
}

#[test]
fn an_app_whose_guests_do_not_answer_holds_up_no_other_one() {
    let site = &site();
    thread::scope(|scope| {
        (0..16).for_each(|_| drop(scope.spawn(|| connect(site, "stuck", 80))));
        let began = Instant::now();
        while site.echo.asked.load(Ordering::SeqCst) < 8 {
            assert!(began.elapsed() < LIMIT, "they are not asked");
            thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..4 {
            let began = Instant::now();
            connect(site, "web", 80).unwrap();
            site.link.ask(&site.peer, join("a"), LIMIT).unwrap();
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
    });
}

#[test]
fn open_ways_to_one_app_leave_room_for_others_and_end_if_their_host_is_taken_out() {
    let site = site();
    let ways: Vec<UnixStream> = (0..128).map(|_| connect(&site, "web", OPEN).unwrap()).collect();
    let refused = connect(&site, "web", OPEN).unwrap_err();
    assert!(refused.message.contains("too much of this kind"), "{refused}");
    connect(&site, "other", OPEN).unwrap();
    site.echo.gone.store(true, Ordering::SeqCst);
    for mut way in ways {
        way.set_read_timeout(Some(LIMIT)).unwrap();
        let mut said = String::new();
        way.read_to_string(&mut said).unwrap();
        assert_eq!(said, "port 9");
    }
}

#[test]
fn a_link_ends_on_one_of_its_own_threads_without_waiting() {
    let link = Link::new(Identity::generate().unwrap()).unwrap();
    let handle = link.runtime().unwrap().handle().clone();
    let (sender, ended) = std::sync::mpsc::channel();
    handle.spawn(async move {
        drop(link);
        let _ = sender.send(());
    });
    assert_eq!(ended.recv_timeout(LIMIT), Ok(()));
}
