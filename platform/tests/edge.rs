//! The edge with Debian's pebble as the ACME server, curl as the client, and a program in Python as the backend behind a Unix socket that takes
//! the line `CONNECT PORT`, as those of vsocks do.

#[path = "support/pebble.rs"]
mod pebble;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pebble::{Pebble, Ports, Running, port, quiet, until};
use tempfile::TempDir;
use vmcell_platform::edge::{Authority, Backend, CertificateStatus, Edge, EdgeLimits, EdgeSettings, Refusal, Routes};

const LIMIT: Duration = Duration::from_secs(40);
const NAMES: [&str; 2] = ["one.example", "two.example"];

/// Answers GET and POST with what came, and a WebSocket by what it says, in capitals.
const BACKEND: &str = r#"
import os, socket, sys, threading
def head(stream):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = stream.recv(1)
        if not piece: return None
        data += piece
    return data.decode()
def serve(stream):
    line = b""
    while not line.endswith(b"\n"): line += stream.recv(1)
    assert line == b"CONNECT 103\n", line
    stream.sendall(b"OK 1073741824\n")
    while (text := head(stream)) is not None:
        headers = dict(line.lower().split(": ", 1) for line in text.split("\r\n")[1:] if ": " in line)
        if headers.get("upgrade") == "websocket":
            stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while piece := stream.recv(1000): stream.sendall(piece.upper())
            return
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while True:
                size = b""
                while not size.endswith(b"\r\n"): size += stream.recv(1)
                left = int(size, 16) + 2
                while left: piece = stream.recv(left); left -= len(piece); body += piece
                if int(size, 16) == 0: break
        else:
            left = int(headers.get("content-length", 0))
            while left: piece = stream.recv(left); left -= len(piece); body += piece
        answer = (text + str(len(body))).encode()
        if headers.get("x-want") == "trailers":
            stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nwhole\r\n0\r\nX-Sum: 42\r\n\r\n")
            continue
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Kept: 1\r\nConnection: x-dropped\r\nX-Dropped: 1\r\n\r\n" % len(answer) + answer)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(100)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// A client.
const CLIENT: &str = r#"
import socket, ssl
context = ssl._create_unverified_context()
def ask(name, what):
    stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=40), server_hostname=name)
    stream.sendall(what)
    return stream
def head_of(stream):
    head = b""
    while b"\r\n\r\n" not in head:
        piece = stream.recv(1)
        if not piece: break
        head += piece
    return head.decode()
"#;

/// Backends by names, and how often one was connected to.
struct Apps(Mutex<BTreeMap<String, PathBuf>>, AtomicUsize);

impl Routes for Apps {
    fn connect(&self, host: &str) -> Result<Backend, Refusal> {
        let path = self.0.lock().unwrap().get(host).cloned().ok_or(Refusal::Unknown)?;
        let failed = |why: std::io::Error| Refusal::NoBackend(why.to_string());
        self.1.fetch_add(1, Ordering::Relaxed);
        let mut stream = UnixStream::connect(path).map_err(failed)?;
        stream.write_all(b"CONNECT 103\n").map_err(failed)?;
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).map_err(failed)?;
        }
        Ok(stream.into())
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }
}

struct Rig {
    folder: TempDir,
    http: u16,
    https: u16,
    pebble: Pebble,
    apps: Arc<Apps>,
    said: Arc<Mutex<Vec<String>>>,
    _backend: Running,
}

impl Rig {
    /// Starts pebble, which finds all names here, but TLS-ALPN-01 perhaps at a wrong port; its resolver, and a backend.
    fn new(settings: &[(&str, &str)], wrong_port: bool, lasts_s: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [http, https] = [(); 2].map(|()| port());
        let ports = Ports { http, https: if wrong_port { port() } else { https } };
        let pebble = Pebble::start(folder.path(), &ports, settings, lasts_s);
        let mut backend = Command::new("python3");
        backend.args(["-c", BACKEND]).arg(folder.path().join("backend"));
        let backend = quiet(&mut backend);
        until("the backend", || folder.path().join("backend").exists());
        let apps = NAMES.map(|name| (name.to_owned(), folder.path().join("backend"))).into();
        Self {
            apps: Arc::new(Apps(Mutex::new(apps), AtomicUsize::new(0))),
            folder,
            http,
            https,
            pebble,
            said: Arc::default(),
            _backend: backend,
        }
    }

    fn edge(&self, limits: EdgeLimits) -> Edge {
        let listen = |port| vec![TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap()];
        let authority = Authority {
            directory: self.pebble.directory.clone(),
            contact: Some("mailto:admin@one.example".to_owned()),
            roots: Some(self.pebble.roots.clone()),
            wait: Duration::from_millis(500),
        };
        let settings = EdgeSettings {
            http: listen(self.http),
            https: listen(self.https),
            https_port: self.https,
            folder: self.folder.path().join("certificates"),
            authority: Some(authority),
            limits,
        };
        let said = Arc::clone(&self.said);
        let say = Arc::new(move |line| said.lock().unwrap().push(line));
        Edge::start(settings, Arc::clone(&self.apps) as _, say).unwrap()
    }

    fn until_all_have_certificates(&self, edge: &Edge) {
        let began = Instant::now();
        while !edge.certificates().iter().all(|one| one.ends.is_some()) {
            assert!(began.elapsed() < LIMIT, "{:?}: {:?}", edge.certificates(), self.said.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What curl prints for a path of a name.
    fn curl(&self, scheme: &str, name: &str, arguments: &[&str]) -> String {
        let port = if scheme == "https" { self.https } else { self.http };
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--insecure", "--include", "--max-time", "30", "--resolve"]);
        curl.arg(format!("{name}:{port}:127.0.0.1"))
            .args(arguments)
            .arg(format!("{scheme}://{name}:{port}/path?query=1"));
        let output = curl.output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }

    /// What a program in Python prints, which may `ask` a name for something by HTTPS and read the `head_of` its answer.
    fn python(&self, program: &str) -> String {
        let program = format!("port = {}\n{CLIENT}\n{program}", self.https);
        let output = Command::new("python3").args(["-c", &program]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn certificates_in(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("certificates/certificates.sealed")).unwrap()
}

#[test]
#[ignore = "needs pebble, curl and Python: cargo xtask test"]
fn names_get_certificates_and_requests_reach_their_backends_by_http_1_and_2() {
    let rig = Rig::new(&[("PEBBLE_WFE_NONCEREJECT", "30")], false, 7_776_000);
    let edge = rig.edge(EdgeLimits::default());
    rig.until_all_have_certificates(&edge);
    for (version, line) in [("--http1.1", "HTTP/1.1 200 OK"), ("--http2", "HTTP/2 200")] {
        let told =
            rig.curl("https", "one.example", &[version, "--cookie", "a=1", "--header", "X-Forwarded-For: 6.6.6.6"]);
        assert!(told.starts_with(line), "{told}");
        let told = told.to_lowercase();
        let host = format!("host: one.example:{}\r\n", rig.https);
        for wanted in [
            "get /path?query=1 http/1.1\r\n",
            &host,
            "x-forwarded-for: 127.0.0.1\r\n",
            "x-forwarded-proto: https\r\n",
            "x-kept: 1",
            "cookie: a=1",
        ] {
            assert!(told.contains(wanted), "{wanted} in {told}");
        }
        assert!(!told.contains("6.6.6.6") && !told.contains("x-dropped"), "{told}");
        let data = rig.folder.path().join("data");
        std::fs::write(&data, vec![b'x'; 3 << 20]).unwrap();
        let told = rig.curl("https", "two.example", &[version, "--data-binary", &format!("@{}", data.display())]);
        assert!(told.ends_with("3145728"), "{told}");
    }
    let told = rig.curl("http", "one.example", &[]);
    assert!(
        told.starts_with("HTTP/1.1 308 ")
            && told.contains(&format!("location: https://one.example:{}/path?query=1", rig.https)),
        "{told}"
    );
    assert!(rig.curl("http", "other.example", &[]).starts_with("HTTP/1.1 404 "));
    assert!(rig.curl("https", "other.example", &[]).starts_with("curl: (35)"));
    let other = rig.curl("https", "one.example", &["--header", "Host: two.example"]);
    assert!(other.starts_with("HTTP/2 421"), "{other}");
    // What a backend could take for another host, and what would be HTTP that nobody looks at.
    let told = rig.curl("https", "one.example", &["--http1.1", "--header", "Host: one.example:80@two.example"]);
    assert!(told.starts_with("HTTP/1.1 400"), "{told}");
    let h2c = ["--http1.1", "--header", "Connection: Upgrade, HTTP2-Settings", "--header", "Upgrade: h2c"];
    let told = rig.curl("https", "one.example", &h2c).to_lowercase();
    assert!(told.starts_with("http/1.1 200") && !told.contains("upgrade"), "{told}");
    // Another process shows what the first one got, and orders nothing.
    let before = certificates_in(rig.folder.path());
    drop(edge);
    let edge = rig.edge(EdgeLimits::default());
    assert!(edge.certificates().iter().all(|one| one.ends.is_some()));
    assert!(rig.curl("https", "two.example", &[]).starts_with("HTTP/2 200"));
    assert_eq!(certificates_in(rig.folder.path()), before);
}

#[test]
#[ignore = "needs pebble, curl and Python: cargo xtask test"]
fn a_websocket_is_passed_on_and_a_backend_that_is_gone_is_said() {
    let rig = Rig::new(&[], false, 7_776_000);
    let edge = rig.edge(EdgeLimits::default());
    rig.until_all_have_certificates(&edge);
    let output = rig.python(
        "s = ask('one.example', b'GET /ws HTTP/1.1\\r\\nHost: one.example\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n')\n\
         head = head_of(s)\ns.sendall(b'hello')\nprint(head.split('\\r\\n')[0], s.recv(100).decode())",
    );
    assert_eq!(output, "HTTP/1.1 101 Switching Protocols HELLO\n");
    rig.apps.0.lock().unwrap().insert("one.example".to_owned(), rig.folder.path().join("none"));
    let told = rig.curl("https", "one.example", &["--http1.1"]);
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("retry-after: 5"), "{told}");
    assert!(rig.said.lock().unwrap().iter().any(|line| line.starts_with("one.example: no backend: ")));
}

#[test]
#[ignore = "needs pebble, curl and Python: cargo xtask test"]
fn a_name_that_gets_no_certificate_says_why_and_the_others_are_served() {
    // The server's resolver finds every name here, but for one in a domain that it refuses to look at.
    let rig = Rig::new(&[], false, 7_776_000);
    rig.apps.0.lock().unwrap().extend([
        ("no_name.example".to_owned(), PathBuf::new()),
        ("bad.blocked-domain.example".to_owned(), PathBuf::new()),
    ]);
    let edge = rig.edge(EdgeLimits::default());
    let of =
        |name: &str| -> CertificateStatus { edge.certificates().into_iter().find(|one| one.name == name).unwrap() };
    until("the trouble", || {
        of("bad.blocked-domain.example").trouble.is_some() && of("no_name.example").trouble.is_some()
    });
    until("the others", || NAMES.iter().all(|name| of(name).ends.is_some()));
    assert!(of("no_name.example").trouble.unwrap().contains("is no name for a certificate"));
    assert!(rig.curl("https", "one.example", &[]).starts_with("HTTP/2 200"));
    // A new one comes while the edge runs.
    rig.apps.0.lock().unwrap().insert("three.example".to_owned(), rig.folder.path().join("backend"));
    edge.names_changed();
    until("the new one", || of("three.example").ends.is_some());
    assert!(rig.curl("https", "three.example", &[]).starts_with("HTTP/2 200"));
}

#[test]
#[ignore = "needs pebble, curl and Python: cargo xtask test"]
fn clients_that_say_nothing_or_too_much_are_let_go_and_others_are_served() {
    let rig = Rig::new(&[], false, 7_776_000);
    let limits =
        EdgeLimits { head: Duration::from_secs(1), connections: 40, of_one_address: 30, ..EdgeLimits::default() };
    let edge = rig.edge(limits);
    rig.until_all_have_certificates(&edge);
    let connect = |port| {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    };
    // More than one address may have: the last ones are closed at once, the others after their time.
    let mut silent: Vec<TcpStream> =
        (0..40).map(|number| connect(if number % 2 == 0 { rig.http } else { rig.https })).collect();
    let began = Instant::now();
    for stream in &mut silent {
        let _ = stream.write_all(b"G");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let mut long = connect(rig.http);
    let _ =
        long.write_all(format!("GET / HTTP/1.1\r\nHost: one.example\r\nX: {}\r\n\r\n", "x".repeat(100_000)).as_bytes());
    let mut told = Vec::new();
    let _ = long.read_to_end(&mut told);
    assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&told));
    assert!(rig.curl("https", "one.example", &[]).starts_with("HTTP/2 200"));
}

#[test]
#[ignore = "needs pebble, curl and Python: cargo xtask test"]
fn a_name_that_is_not_believed_in_one_way_is_proved_in_the_other() {
    let rig = Rig::new(&[], true, 7_776_000);
    let edge = rig.edge(EdgeLimits::default());
    rig.until_all_have_certificates(&edge);
    let said = |what: &str| rig.said.lock().unwrap().iter().any(|line| line.starts_with(what));
    assert!(said("one.example gets no certificate: "));
    until("its certificate", || said("one.example has a certificate"));
}

#[test]
#[ignore = "needs pebble, curl and Python: cargo xtask test"]
fn a_certificate_is_renewed_before_it_ends_and_every_request_is_served() {
    let rig = Rig::new(&[], false, 15);
    let edge = rig.edge(EdgeLimits::default());
    rig.until_all_have_certificates(&edge);
    let first: Vec<_> = edge.certificates().into_iter().map(|one| one.ends.unwrap()).collect();
    until("the renewal", || {
        assert!(rig.curl("https", "one.example", &[]).starts_with("HTTP/2 200"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let present = edge.certificates();
        assert!(present.iter().all(|one| one.ends.unwrap() >= now), "{present:?} at {now}");
        present.iter().zip(&first).all(|(one, first)| one.ends.unwrap() > *first)
    });
}

#[test]
#[ignore = "needs pebble, curl and Python: cargo xtask test"]
fn a_websocket_counts_as_a_connection_of_its_address_until_it_ends() {
    let rig = Rig::new(&[], false, 7_776_000);
    let edge = rig.edge(EdgeLimits { of_one_address: 10, ..EdgeLimits::default() });
    rig.until_all_have_certificates(&edge);
    let output = rig.python(
        r#"
import time
GET = b"GET /ws HTTP/1.1\r\nHost: one.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
def answered(stream): return [stream] if head_of(stream).startswith("HTTP/1.1 101") else None
def lets_in():
    try: return answered(ask("one.example", GET))
    except OSError: return None
held, tries = [], 0
while len(held) < 10 and tries < 100:
    held += lets_in() or []
    tries += 1
time.sleep(0.5)
print(len(held), [lets_in() for _ in range(5)])
held.pop().close()
while not lets_in() and tries < 200:
    time.sleep(0.1)
    tries += 1
print(tries < 200)
"#,
    );
    assert_eq!(output, "10 [None, None, None, None, None]\nTrue\n");
}

#[test]
#[ignore = "needs pebble, curl and Python: cargo xtask test"]
fn a_name_whose_backends_do_not_answer_takes_no_thread_from_the_others() {
    let rig = Rig::new(&[], false, 7_776_000);
    // Nobody takes what comes there.
    let silent = rig.folder.path().join("silent");
    let _listener = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    rig.apps.0.lock().unwrap().insert("two.example".to_owned(), silent);
    let edge = rig.edge(EdgeLimits { of_one_address: 400, ..EdgeLimits::default() });
    rig.until_all_have_certificates(&edge);
    let output = rig.python(
        r#"
asked = [ask("two.example", b"GET / HTTP/1.1\r\nHost: two.example\r\n\r\n") for _ in range(300)]
print(head_of(ask("one.example", b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n")).split("\r\n")[0])
print(head_of(asked[-1]).split("\r\n")[0])
"#,
    );
    assert_eq!(output, "HTTP/1.1 200 OK\nHTTP/1.1 503 Service Unavailable\n");
}

#[test]
#[ignore = "needs pebble, curl and Python: cargo xtask test"]
fn trailers_of_an_answer_reach_a_client_that_takes_them() {
    let rig = Rig::new(&[], false, 7_776_000);
    let edge = rig.edge(EdgeLimits::default());
    rig.until_all_have_certificates(&edge);
    for version in ["--http1.1", "--http2"] {
        let told =
            rig.curl("https", "one.example", &[version, "--header", "X-Want: trailers", "--header", "TE: trailers"]);
        assert!(told.contains("whole") && told.to_lowercase().contains("x-sum: 42"), "{version}: {told}");
    }
}

#[test]
#[ignore = "needs pebble, h2load and Python: cargo xtask test"]
fn load_by_http_1_and_2_is_served_whole_over_few_connections_to_the_backend() {
    let rig = Rig::new(&[], false, 7_776_000);
    let edge = rig.edge(EdgeLimits::default());
    rig.until_all_have_certificates(&edge);
    for version in [["--h1", "-m1"], ["-m8", "-w16"]] {
        let before = rig.apps.1.load(Ordering::Relaxed);
        let mut load = Command::new("h2load");
        load.args(["-n2000", "-c16"]).args(version).arg(format!("--connect-to=127.0.0.1:{}", rig.https));
        let output = load.arg(format!("https://one.example:{}/", rig.https)).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout") && told.contains("2000 2xx"), "{told}");
        let made = rig.apps.1.load(Ordering::Relaxed) - before;
        assert!(made <= 400, "{made} connections for 2000 requests");
    }
}
