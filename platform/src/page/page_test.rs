//! What the page is asked for, and what it refuses, on a host whose guests are fakes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::host::host_test::Bench;
use crate::machine::guest::Usage;

const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn page(bench: &Bench) -> Page {
    Page::start(&bench.host, (Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

/// Sends a request, and returns what is to be read.
fn ask(page: &Page, method: &str, path: &str, headers: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(page.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").unwrap();
    BufReader::new(stream)
}

fn told(page: &Page, method: &str, path: &str, headers: &str) -> String {
    let mut text = String::new();
    ask(page, method, path, headers).read_to_string(&mut text).unwrap();
    text
}

fn status(page: &Page) -> Value {
    let text = told(page, "GET", "/api/status", "Host: localhost\r\n");
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The next event of this name.
fn event(stream: &mut BufReader<TcpStream>, name: &str) -> Value {
    let mut is_it = false;
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended before {name}");
        if let Some(said) = line.strip_prefix("event: ") {
            is_it = said.trim() == name;
        } else if let Some(data) = line.strip_prefix("data: ").filter(|_| is_it) {
            return serde_json::from_str(data).unwrap();
        }
    }
}

#[test]
fn only_an_address_of_the_loopback_is_served_and_one_that_is_free() {
    let bench = Bench::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let fault = Page::start(&bench.host, address.parse().unwrap()).err().unwrap();
        assert!(fault.message.contains("allowed is a loopback address"), "{fault}");
        assert!(fault.next.unwrap().contains("--ui 127.0.0.1:"), "{address}");
    }
    let page = page(&bench);
    let fault = Page::start(&bench.host, page.address()).err().unwrap();
    assert!(fault.message.starts_with(&format!("--ui {}: ", page.address())), "{fault}");
    let address: SocketAddr = page.address();
    drop(page);
    assert!(TcpStream::connect(address).is_err(), "it has ended");
}

#[test]
fn what_only_reads_and_comes_from_here_is_served_with_a_strict_policy() {
    let bench = Bench::new();
    let page = page(&bench);
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
        ("/api/status", "application/json"),
    ] {
        for host in ["localhost", "127.0.0.1:8000", "[::1]:8000", "127.8.8.8"] {
            let told = told(&page, "GET", path, &format!("Host: {host}\r\nSec-Fetch-Site: same-origin\r\n"));
            assert!(told.starts_with("HTTP/1.1 200 ") && told.contains(&format!("content-type: {kind}")), "{told}");
            assert!(told.contains("content-security-policy: default-src 'none'; script-src 'self'; "), "{told}");
        }
    }
    // A link from elsewhere leads to the page.
    assert!(told(&page, "GET", "/", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n").starts_with("HTTP/1.1 200 "));
}

#[test]
fn other_hosts_methods_sites_and_paths_are_refused_and_nothing_is_done() {
    let bench = Bench::new();
    let page = page(&bench);
    for host in [
        "Host: evil.example\r\n",
        "Host: 192.0.2.1\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: localhost\r\nHost: x\r\n",
        "",
    ] {
        for path in ["/", "/api/status", "/api/events"] {
            let told = told(&page, "GET", path, host);
            assert!(told.starts_with("HTTP/1.1 403 ") || told.starts_with("HTTP/1.1 400 "), "{host}: {told}");
        }
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "BREW"] {
        let told = told(&page, method, "/api/status", "Host: localhost\r\n");
        assert!(told.starts_with("HTTP/1.1 405 ") && told.contains("allow: GET"), "{told}");
    }
    for (path, site, status) in [
        ("/api/status", "cross-site", 403),
        ("/api/events", "same-site", 403),
        ("/nothing", "none", 404),
        ("/../etc/passwd", "none", 404),
        ("/api/events?log=../../..", "none", 404),
        ("/api/events?log=", "none", 404),
        ("/api/events?log=a%2fb", "none", 404),
    ] {
        let told = told(&page, "GET", path, &format!("Host: localhost\r\nSec-Fetch-Site: {site}\r\n"));
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {told}");
    }
}

#[test]
fn a_browser_is_told_what_vms_use_from_the_first_look_on() {
    let bench = Bench::new();
    let page = page(&bench);
    bench.deploy(&Bench::text("", "count = 2")).unwrap();
    let mut stream = ask(&page, "GET", "/api/events", "Host: localhost\r\n");
    let full = event(&mut stream, "full");
    assert_eq!((&full["apps"][0]["app"], full["apps"][0]["vms"].as_array().unwrap().len()), (&"web".into(), 2));
    event(&mut stream, "state");
    let usage = Usage { cpu: Duration::from_secs(1), memory: Some(5 << 20), read: 4 << 20, ..Usage::default() };
    *bench.fakes.started.lock().unwrap()[0].usage.lock().unwrap() = usage;
    let began = Instant::now();
    let state = loop {
        let state = event(&mut stream, "state");
        if state["apps"][0]["figures"][1] == 5 << 20 {
            break state;
        }
        assert!(began.elapsed() < LIMIT, "{state}");
    };
    // About two seconds lie between two looks, more on a busy host.
    let (cpu, read) = (state["all"][0].as_u64().unwrap(), state["all"][2].as_u64().unwrap());
    assert!((20..=520).contains(&cpu) && (100_000..=2_200_000).contains(&read), "{state}");
    assert!(state["host"][1].as_u64().unwrap() > 0 && state["size"]["cpus"].as_u64().unwrap() > 0, "{state}");
    let history = status(&page)["history"].clone();
    let looks = history["at"].as_array().unwrap().len();
    assert!(looks >= 2 && history["all"].as_array().unwrap().len() == looks, "{history}");
    assert!(history["apps"]["web"].as_array().unwrap().iter().any(|row| row[0] == cpu), "{history}");
}

#[test]
fn an_end_is_told_at_once_with_its_reason_and_the_last_lines_and_logs_come_as_they_are() {
    let bench = Bench::new();
    let page = page(&bench);
    bench.deploy(&Bench::text("", "")).unwrap();
    let log = bench.host.parts.folder.log("web", 1).unwrap();
    std::fs::write(&log, "one\n<script>alert(1)</script>\n").unwrap();
    let mut stream = ask(&page, "GET", "/api/events?log=web", "Host: localhost\r\n");
    let lines = event(&mut stream, "log");
    assert_eq!(
        (&lines["lines"][0]["vm"], &lines["lines"][1]["line"]),
        (&1.into(), &"<script>alert(1)</script>".into())
    );
    let began = Instant::now();
    bench.fakes.started.lock().unwrap()[0].end("the guest's kernel panicked");
    let note = loop {
        let note = event(&mut stream, "note");
        if note["phase"] == "waiting" {
            break note;
        }
    };
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(
        note["why"].as_str().unwrap().contains("panicked") && note["lines"][1] == "<script>alert(1)</script>",
        "{note}"
    );
    while event(&mut stream, "note")["phase"] != "healthy" {}
    let full = status(&page);
    assert_eq!(full["apps"][0]["vms"][0]["restarts"], 1);
    assert!(full["notes"].as_array().unwrap().iter().any(|known| known["number"] == note["number"]), "{full}");
}

#[test]
fn a_failed_deploy_is_told_with_its_reason() {
    let bench = Bench::new();
    let page = page(&bench);
    let mut stream = ask(&page, "GET", "/api/events", "Host: localhost\r\n");
    event(&mut stream, "full");
    bench.deploy(&Bench::text("exits", "")).unwrap_err();
    let note = loop {
        let note = event(&mut stream, "note");
        if note["phase"] == "failed" {
            break note;
        }
    };
    assert!(note["why"].as_str().unwrap().contains("exit status 3"), "{note}");
}

#[test]
fn there_are_so_many_connections_and_no_more() {
    let bench = Bench::new();
    let page = page(&bench);
    let mut held: Vec<_> = (0..32).map(|_| ask(&page, "GET", "/api/events", "Host: localhost\r\n")).collect();
    for stream in &mut held {
        event(stream, "full");
    }
    // One more is closed at once, perhaps before it has asked.
    let answered = || {
        let mut stream = TcpStream::connect(page.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut first = [0; 12];
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        asked.and_then(|()| stream.read_exact(&mut first)).is_ok() && first == *b"HTTP/1.1 200"
    };
    assert!(!answered());
    held.clear();
    let began = Instant::now();
    while !answered() {
        assert!(began.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(100));
    }
}
