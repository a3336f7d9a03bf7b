//! Requests a second through the edge, beside nginx as a proxy of the same backend on the same host: `cargo xtask bench platform`.
//!
//! Both end TLS 1.3 with a key of the same kind, have two threads for connections, and keep connections to the backend, which is another nginx that answers with
//! 1 KiB at a Unix socket. They take turns: A B A B. The first round warms up. The CPU's time that each of the two takes for a request says more than the
//! requests a second if the host has other work.

#[path = "../tests/support/pebble.rs"]
mod pebble;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pebble::{Pebble, Ports, Running, port, quiet, until};
use vmcell_platform::edge::{Authority, Backend, Edge, EdgeLimits, EdgeSettings, Refusal, Routes};

const NAME: &str = "one.example";
const ROUNDS: usize = 7;

/// How h2load asks: what the row is called, and its arguments.
const ROWS: [(&str, &[&str]); 3] = [
    ("HTTP/1.1, 32 connections", &["--h1", "-n20000", "-c32", "-m1"]),
    ("HTTP/2, 8 connections of 16 requests", &["-n20000", "-c8", "-m16"]),
    ("HTTP/2, 1 request a connection", &["-n1000", "-c1000", "-m1", "-r1000"]),
];

struct One(PathBuf);

impl Routes for One {
    fn connect(&self, host: &str) -> Result<Backend, Refusal> {
        let stream = UnixStream::connect(&self.0).map_err(|why| Refusal::NoBackend(why.to_string()));
        if host == NAME { stream.map(Into::into) } else { Err(Refusal::Unknown) }
    }

    fn names(&self) -> Vec<String> {
        vec![NAME.to_owned()]
    }
}

/// An nginx, which is told to end with this: killed, it would leave its workers.
struct Nginx(Running);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.0.id().to_string()).status();
        let _ = self.0.0.wait();
    }
}

/// Starts one with a folder of its own.
fn nginx(folder: &Path, name: &str, http: &str) -> Nginx {
    let at = |what: &str| folder.join(format!("{name}.{what}")).display().to_string();
    let mut text = format!("daemon off;\nworker_processes 2;\npid {};\nerror_log {} error;\n", at("pid"), at("log"));
    let _ = write!(
        text,
        "events {{ worker_connections 4096; }}\nhttp {{ access_log off; keepalive_requests 1000000;\n{http}\n}}\n"
    );
    std::fs::write(at("conf"), text).unwrap();
    // As root, its workers are another user, who has to come to the files.
    let mut command = Command::new("nginx");
    Nginx(quiet(command.args(["-c", &at("conf"), "-e", &at("log"), "-g", "user root;"])))
}

fn backend(folder: &Path) -> (Nginx, PathBuf) {
    std::fs::write(folder.join("index.html"), vec![b'x'; 1024]).unwrap();
    let socket = folder.join("backend");
    let (root, at) = (folder.display(), socket.display());
    let running = nginx(folder, "backend", &format!("server {{ listen unix:{at}; root {root}; }}"));
    until("the backend", || UnixStream::connect(&socket).is_ok());
    (running, socket)
}

fn peer(folder: &Path, backend: &Path) -> (Nginx, u16) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let (key, certificate) = (folder.join("peer.key"), folder.join("peer.cert"));
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    let (port, at) = (port(), backend.display());
    let http = format!(
        "upstream app {{ server unix:{at}; keepalive 128; }}\n\
         server {{ listen 127.0.0.1:{port} ssl http2; ssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_certificate {}; ssl_certificate_key {};\n\
         location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto https; }} }}",
        certificate.display(),
        key.display()
    );
    let running = nginx(folder, "peer", &http);
    until("nginx", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    (running, port)
}

fn edge(folder: &Path, backend: &Path) -> (Edge, Pebble, u16) {
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (http, https) = (bind(0), bind(0));
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (http_port, https_port) = (port(&http), port(&https));
    let pebble = Pebble::start(folder, &Ports { http: http_port, https: https_port }, &[], 7_776_000);
    let authority = Authority {
        directory: pebble.directory.clone(),
        contact: None,
        roots: Some(pebble.roots.clone()),
        wait: std::time::Duration::from_secs(1),
    };
    let limits = EdgeLimits { of_one_address: 2048, ..EdgeLimits::default() };
    let settings = EdgeSettings {
        http: vec![http],
        https: vec![https],
        https_port,
        folder: folder.join("edge"),
        authority: Some(authority),
        limits,
    };
    let edge = Edge::start(settings, Arc::new(One(backend.to_owned())), Arc::new(|_| {})).unwrap();
    until("a certificate", || edge.certificates().iter().all(|one| one.ends.is_some()));
    (edge, pebble, https_port)
}

/// The CPU's time that the threads of a process have taken, in nanoseconds.
fn cpu_time(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    texts.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// The same of an nginx: of its workers.
fn cpu_time_of(Nginx(Running(nginx)): &Nginx) -> u64 {
    let (master, children) = (nginx.id(), format!("/proc/{0}/task/{0}/children", nginx.id()));
    let children = std::fs::read_to_string(children).unwrap_or_default();
    cpu_time(master) + children.split(' ').filter_map(|child| child.parse().ok()).map(cpu_time).sum::<u64>()
}

/// What a load came to.
#[derive(Clone, Copy)]
struct Came {
    /// Requests a second.
    rate: f64,
    /// Microseconds of the CPU's time a request.
    cost: f64,
}

fn came(arguments: &[&str], port: u16, cpu_time: impl Fn() -> u64) -> Came {
    let requests: f64 = arguments.iter().find_map(|argument| argument.strip_prefix("-n")?.parse().ok()).unwrap();
    let before = cpu_time();
    let rate = load(arguments, port);
    Came { rate, cost: (cpu_time() - before) as f64 / 1000.0 / requests }
}

/// Requests a second. Each has to succeed.
fn load(arguments: &[&str], port: u16) -> f64 {
    let mut load = Command::new("h2load");
    load.args(arguments).arg(format!("--connect-to=127.0.0.1:{port}")).arg(format!("https://{NAME}:{port}/"));
    let output = load.output().expect("h2load");
    let told = String::from_utf8_lossy(&output.stdout);
    let is_whole = told.contains(" 0 failed, 0 errored, 0 timeout") && !told.contains(" 0 2xx");
    let rate = told.lines().find_map(|line| line.strip_prefix("finished in ")?.split(' ').nth(1)?.parse().ok());
    rate.filter(|_| is_whole).unwrap_or_else(|| panic!("{told}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The median of one figure of each round, of the edge, of nginx, and of the edge's by nginx's; and the least and the most of the last one.
fn row(rounds: &[(Came, Came)], figure: fn(&Came) -> f64) -> String {
    let of = |pick: fn(f64, f64) -> f64| -> Vec<f64> {
        let mut values: Vec<f64> = rounds.iter().map(|(edge, nginx)| pick(figure(edge), figure(nginx))).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (edge, nginx, ratio) = (of(|edge, _| edge), of(|_, nginx| nginx), of(|edge, nginx| edge / nginx));
    let middle = rounds.len() / 2;
    let (least, most) = (ratio[0], ratio[ratio.len() - 1]);
    format!("{:>8.0} {:>8.0} {:>6.2} ({least:.2} to {most:.2})", edge[middle], nginx[middle], ratio[middle])
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let (_backend, socket) = backend(folder.path());
    let (peer, of_peer) = peer(folder.path(), &socket);
    let (_edge, _pebble, of_edge) = edge(folder.path(), &socket);
    println!("Each: the edge, nginx, the edge by nginx (least to most of {ROUNDS} rounds)");
    println!("{:<38} {:<43} the CPU's microseconds a request", "", "requests a second");
    for (name, arguments) in ROWS {
        let round = |_| {
            let edge = came(arguments, of_edge, || cpu_time(std::process::id()));
            (edge, came(arguments, of_peer, || cpu_time_of(&peer)))
        };
        let rounds: Vec<_> = (0..=ROUNDS).map(round).skip(1).collect();
        println!("{name:<38} {:<43} {}", row(&rounds, |came| came.rate), row(&rounds, |came| came.cost));
    }
}
