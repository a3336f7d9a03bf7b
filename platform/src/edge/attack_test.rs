//! Clients that send what none should, byte by byte, without TLS.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::time::timeout;

use super::counts::Counts;
use super::serve::speak;
use super::shared::EdgeLimits;
use super::websocket_test::{App, PLAIN, run, shared};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `GET https://a.example/`, as HPACK has it.
pub const HEAD: &[u8] = b"\x82\x87\x84\x41\x09a.example";
const LIMIT: Duration = Duration::from_secs(20);

/// What the edge answers to all of these bytes until it ends the connection, how many of them it took, and the heads that came to the app.
async fn told(is_second: bool, pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<u8>, usize, Vec<String>) {
    let (folder, heads) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let routes = App { answer: PLAIN, heads: Arc::clone(&heads) };
    let limits = EdgeLimits { head: Duration::from_secs(1), idle: Duration::from_secs(2), ..EdgeLimits::default() };
    let shared = shared(folder.path(), routes, Arc::new(Counts::new(9, 9)), limits);
    let (ours, theirs) = duplex(4096);
    let (server, client) = (Some("a.example".to_owned()), IpAddr::from([10, 0, 0, 1]));
    let serving = tokio::spawn(speak(shared, TokioIo::new(theirs), is_second, server, client));
    let (mut from, mut to) = split(ours);
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all).await;
        all
    });
    let mut taken = 0;
    for piece in pieces {
        if timeout(LIMIT, to.write_all(&piece)).await.expect("it takes or ends").is_err() {
            break;
        }
        taken += piece.len();
    }
    timeout(LIMIT, serving).await.expect("it ends").unwrap();
    let heads = heads.lock().unwrap().clone();
    (reading.await.unwrap(), taken, heads)
}

pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let len = (content.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

#[test]
fn a_request_whose_end_could_be_read_in_two_ways_is_refused_or_has_one_for_the_app() {
    run(async {
        let next = "GET /hidden HTTP/1.1\r\nHost: a.example\r\n\r\n";
        for fields in [
            "Content-Length: 4\r\nContent-Length: 5\r\n",
            "Content-Length: 4, 5\r\n",
            "Content-Length: +4\r\n",
            "Content-Length : 4\r\n",
            "Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: cow\r\n",
            "X: y\r\n Content-Length: 4\r\n",
            "X: y\0z\r\n",
            "X: y\rContent-Length: 4\r\n",
        ] {
            let bytes = format!("POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\nabcd{next}").into_bytes();
            let (answer, _, heads) = told(false, std::iter::once(bytes)).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with("HTTP/1.1 400 ") && heads.is_empty(), "{fields:?}: {answer} {heads:?}");
        }
        // Both: the chunks say where it ends, and the app hears of nothing else.
        let both =
            "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let (_, _, heads) = told(false, std::iter::once(format!("{both}{next}").into_bytes())).await;
        for head in &heads {
            assert!(!(head.contains("content-length") && head.contains("transfer-encoding")), "{head}");
        }
    });
}

#[test]
fn streams_that_are_reset_as_soon_as_they_begin_end_the_connection() {
    run(async {
        let streams = (0..20_000).map(|number| {
            let stream = number * 2 + 1;
            [frame(1, 5, stream, HEAD), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
        });
        let one = frame(1, 5, 1, HEAD).len() + frame(3, 0, 1, &[0; 4]).len();
        let (answer, taken, heads) = told(true, std::iter::once(PREFACE.to_vec()).chain(streams)).await;
        assert!(answer.ends_with(b"too_many_resets"), "{answer:?}");
        assert!(taken < 2000 * one && heads.len() < 2000, "{taken} bytes, {} requests", heads.len());
    });
}

#[test]
fn a_head_without_an_end_ends_the_connection() {
    run(async {
        let begin = [PREFACE.to_vec(), frame(1, 1, 1, HEAD)].concat();
        // Names of one letter each, with values of 4000.
        let field = [&b"\0\x01x\x7f\xa1\x1e"[..], &[b'y'; 4000]].concat();
        let rest = std::iter::repeat_with(|| frame(9, 0, 1, &field)).take(20_000);
        let (answer, taken, heads) = told(true, std::iter::once(begin).chain(rest)).await;
        assert!(answer.ends_with(b"too_many_continuations"), "{answer:?}");
        assert!(taken < 2 << 20 && heads.is_empty(), "{taken} bytes, {heads:?}");
    });
}
