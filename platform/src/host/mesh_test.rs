//! Several hosts in one process, each with fake guests.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::host_test::host;
use super::token::Token;
use super::*;
use crate::edge::Routes;
use crate::fault::Result;
use crate::link::{Identity, Link, Request};
use crate::machine::fake_test::Fakes;

const WAIT: Duration = Duration::from_secs(30);

/// A host of a mesh.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) home: TempDir,
    pub(crate) endpoint: SocketAddr,
    pub(crate) fakes: Arc<Fakes>,
    pub(crate) host: Arc<Host>,
}

/// An address of this host's, with a port that nobody has for TCP and UDP, and that the kernel gives to nobody.
fn endpoint() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 100).unwrap() * 200;
    loop {
        let endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, first + NEXT.fetch_add(1, Ordering::SeqCst)));
        if TcpListener::bind(endpoint).is_ok() && UdpSocket::bind(endpoint).is_ok() {
            return endpoint;
        }
    }
}

impl Site {
    pub(crate) fn start(home: TempDir, name: &str, endpoint: SocketAddr) -> Self {
        let site = Self::made(home, name, endpoint);
        site.host.start_mesh().unwrap();
        resume(&site.host, &|_| {}).unwrap();
        site
    }

    fn made(home: TempDir, name: &str, endpoint: SocketAddr) -> Self {
        let fakes = Arc::new(Fakes::default());
        for image in ["aa", "bb"] {
            std::fs::write(home.path().join(image), image).unwrap();
        }
        let host = host(home.path(), &fakes, Some((name, endpoint)));
        Self { name: name.into(), home, endpoint, fakes, host }
    }

    /// One that asks no others, and answers none.
    pub(crate) fn silent(name: &str) -> Self {
        Self::made(tempfile::tempdir().unwrap(), name, endpoint())
    }

    /// The first of a mesh.
    pub(crate) fn first(name: &str) -> Self {
        Self::start(tempfile::tempdir().unwrap(), name, endpoint())
    }

    fn mesh(&self) -> &Arc<Mesh> {
        self.host.mesh().unwrap()
    }

    /// One that joins this one.
    pub(crate) fn invite(&self, name: &str) -> Self {
        let (home, endpoint) = (tempfile::tempdir().unwrap(), endpoint());
        self.join(&home, &self.mesh().invite().unwrap(), name, endpoint).unwrap();
        Self::start(home, name, endpoint)
    }

    fn join(&self, home: &TempDir, token: &str, name: &str, endpoint: SocketAddr) -> Result<Joined> {
        join(&Folder::open(&home.path().join("state")).unwrap(), token, name, endpoint)
    }

    pub(crate) fn end(self) -> (String, TempDir, SocketAddr) {
        let Self { name, home, endpoint, fakes, host } = self;
        shut_down(&host);
        // The threads that ask other hosts have it for a moment yet.
        let gone = Arc::downgrade(host.mesh().unwrap());
        drop((host, fakes));
        until("the end of a host", || gone.strong_count() == 0);
        until("its ports", || TcpListener::bind(endpoint).is_ok() && UdpSocket::bind(endpoint).is_ok());
        (name, home, endpoint)
    }

    /// Which hosts it takes to be alive.
    pub(crate) fn alive(&self) -> Vec<String> {
        self.mesh().told().into_iter().filter(|told| told.alive).map(|told| told.name).collect()
    }
}

pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < WAIT, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn hosts_join_know_each_other_and_see_who_dies_and_comes_back() {
    let alpha = Site::first("alpha");
    let beta = alpha.invite("beta");
    let gamma = beta.invite("gamma");
    let all = ["alpha", "beta", "gamma"];
    for site in [&alpha, &beta, &gamma] {
        until("all hosts", || site.alive() == all);
    }
    assert_eq!((alpha.host.number(), beta.host.number(), gamma.host.number()), (1, 2, 3));
    let gone = gamma.end();
    until("a death", || alpha.alive() == ["alpha", "beta"]);
    let gamma = Site::start(gone.1, &gone.0, gone.2);
    until("a return", || alpha.alive() == all && gamma.alive() == all);
    alpha.host.remove_host("beta").unwrap();
    until("a removal", || gamma.alive() == ["alpha", "gamma"] && beta.alive() == ["beta"]);
    let delta = gamma.invite("delta");
    assert_eq!(delta.host.number(), 4, "a number is given once");
    until("the next host", || alpha.alive() == ["alpha", "gamma", "delta"]);
}

#[test]
fn a_host_is_found_again_when_it_has_another_address() {
    let alpha = Site::first("alpha");
    let beta = alpha.invite("beta");
    until("both", || alpha.alive().len() == 2 && beta.alive().len() == 2);
    let (name, home, _) = beta.end();
    let beta = Site::start(home, &name, endpoint());
    until("both", || alpha.alive().len() == 2 && beta.alive().len() == 2);
    assert_eq!(alpha.mesh().peer(2).unwrap().endpoint, beta.endpoint);
}

#[test]
fn a_token_is_good_once_and_what_is_taken_is_refused() {
    let alpha = Site::first("alpha");
    let home = || tempfile::tempdir().unwrap();
    let token = alpha.mesh().invite().unwrap();
    let refused = |token: &str, name: &str, at| alpha.join(&home(), token, name, at).unwrap_err().message;
    assert!(refused(&token, "alpha", endpoint()).contains("a host with the name alpha already"));
    assert!(refused(&token, "Beta!", endpoint()).contains("\"Beta!\" is no name of a host; allowed are"));
    assert!(refused(&token, "beta", alpha.endpoint).contains("a host with the address"));
    assert!(refused(&token, "beta", "0.0.0.0:7000".parse().unwrap()).contains("is no address of a host"));
    let mut other: Token = token.parse().unwrap();
    other.peer.certificate = "0".repeat(64);
    assert!(refused(&other.to_string(), "beta", endpoint()).contains("this is not the host that is meant"));
    // Refusals have used nothing.
    let (first, at) = (home(), endpoint());
    assert_eq!(alpha.join(&first, &token, "beta", at).unwrap().hosts, ["alpha", "beta"]);
    assert!(refused(&token, "gamma", endpoint()).contains("the token is not known here, or was used"));
    assert!(refused(&token[..40], "gamma", endpoint()).contains("no token of a host"));
    let again = alpha.join(&first, &alpha.mesh().invite().unwrap(), "beta", at).unwrap_err();
    assert!(again.message.contains("this host is in a mesh already") && again.next.unwrap().contains("--state DIR"));
    let old = Token::new(alpha.mesh().peer(1).unwrap()).unwrap();
    alpha.host.parts.state.invite(&super::token::digest(&old.secret), 0).unwrap();
    assert!(refused(&old.to_string(), "gamma", endpoint()).contains("the token's time is over"));
    for number in 3..=16 {
        let token = alpha.mesh().invite().unwrap();
        alpha.join(&home(), &token, &format!("host-{number}"), endpoint()).unwrap();
    }
    assert!(refused(&alpha.mesh().invite().unwrap(), "more", endpoint()).contains("the mesh has 16 hosts"));
}

#[test]
fn a_host_with_apps_does_not_join_and_one_whose_answer_was_lost_joins_again() {
    let alpha = Site::first("alpha");
    let (home, at) = (tempfile::tempdir().unwrap(), endpoint());
    let token = alpha.mesh().invite().unwrap();
    alpha.join(&home, &token, "beta", at).unwrap();
    // As if what was answered had never been written down.
    let folder = Folder::open(&home.path().join("state")).unwrap();
    let database = rusqlite::Connection::open(folder.path().join("state.db")).unwrap();
    database.execute("DELETE FROM settings WHERE name = 'roster'", []).unwrap();
    drop((database, folder));
    assert_eq!(alpha.join(&home, &token, "beta", at).unwrap().number, 2);
    let other = Site::first("other");
    let text = "name = \"web\"\nimage = \"aa\"\n";
    deploy(&other.host, text, "app.toml", other.home.path(), false, &|_| {}).unwrap();
    let (_, home, at) = other.end();
    let refused = alpha.join(&home, &alpha.mesh().invite().unwrap(), "other", at).unwrap_err();
    assert!(refused.message.contains("has apps, such as web"), "{refused}");
}

#[test]
fn a_stranger_hears_nothing_and_a_member_reaches_the_ports_of_vms() {
    let alpha = Site::first("alpha");
    let beta = alpha.invite("beta");
    let text = "name = \"web\"\nimage = \"aa\"\n[[services]]\nport = 80\n";
    deploy(&alpha.host, text, "app.toml", alpha.home.path(), false, &|_| {}).unwrap();
    let peer = beta.mesh().peer(1).unwrap();
    let connect = |vm| Request::Connect { app: "web".into(), vm, port: 80 };
    let mut stream = beta.mesh().link.stream(&peer, connect(1), WAIT).unwrap();
    assert_eq!(alpha.host.fleet_of("web").unwrap().machines()[0].busy(), 1);
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("release 1"), "{answer}");
    drop(stream);
    until("the end of the connection", || alpha.host.fleet_of("web").unwrap().machines()[0].busy() == 0);
    let none = beta.mesh().link.stream(&peer, connect(9), WAIT).unwrap_err();
    assert!(none.message.contains("web has no VM 9"), "{none}");
    let stranger = Link::new(Identity::generate().unwrap()).unwrap();
    for request in [connect(1), Request::Beat] {
        let refused = stranger.stream(&peer, request, WAIT).unwrap_err();
        assert!(refused.message.contains("this host is not in the mesh"), "{refused}");
    }
}

#[test]
fn an_app_is_reached_at_every_host_until_its_own_one_dies() {
    let alpha = Site::first("alpha");
    let beta = alpha.invite("beta");
    let service = "[[services]]\nport = 80\nallow = [\"front\"]\nnames = [\"www.example.com\"]\n";
    let text = format!("name = \"web\"\nimage = \"aa\"\ncount = 2\n{service}");
    deploy(&alpha.host, &text, "app.toml", alpha.home.path(), false, &|_| {}).unwrap();
    deploy(&beta.host, "name = \"front\"\nimage = \"aa\"\n", "app.toml", beta.home.path(), false, &|_| {}).unwrap();
    let members = || beta.host.fleet_named("web").map_or(0, |fleet| fleet.service().unwrap().members().len());
    until("the members", || members() == 2);
    let subnet = beta.host.parts.network.subnet();
    let web = beta.host.fleet_named("web").unwrap().service().unwrap();
    let addresses: Vec<_> = web.members().iter().map(|member| member.machine).collect();
    let number = alpha.host.parts.state.app("web").unwrap().number;
    assert!(addresses.contains(&subnet.machine(1, (number << 8) | 2).unwrap()), "{addresses:?}");
    let rules = |site: &Site| -> Vec<String> {
        site.host.parts.network.rule_counts().iter().map(|count| count.rule.to_string()).collect()
    };
    // The client's host knows the service, and the member's host knows the client.
    let front = beta.host.parts.state.app("front").unwrap().number;
    let from = super::fleet::prefix(&beta.host.parts.network, 2, front).unwrap();
    let to = super::fleet::prefix(&beta.host.parts.network, 1, number).unwrap();
    let there = format!("allow tcp 80-80 from {from} to {}/128", subnet.service(number));
    assert!(rules(&beta).contains(&there), "{there}: {:?}", rules(&beta));
    until("the rule", || rules(&alpha).contains(&format!("allow tcp 80-80 from {from} to {to}")));
    assert!(!rules(&beta).iter().any(|rule| rule.contains(&format!("to {to}"))), "beta has no VM of web");
    // The edge of the other host has the way to a VM.
    let routes = front::ToApps(Arc::downgrade(&beta.host));
    let mut backend = routes.connect("www.example.com").unwrap();
    backend.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    backend.stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("release 1"), "{answer}");
    drop(backend);
    let taken = deploy(&beta.host, &text, "app.toml", beta.home.path(), false, &|_| {}).unwrap_err();
    assert!(taken.message.contains("the app web belongs to the host alpha"), "{taken}");
    let gone = alpha.end();
    until("no members", || members() == 0);
    assert!(matches!(routes.connect("www.example.com").err(), Some(crate::edge::Refusal::NoBackend(_))));
    let alpha = Site::start(gone.1, &gone.0, gone.2);
    until("the members again", || members() == 2);
    // One that is taken out is gone for those, too, that have not done it.
    let gamma = beta.invite("gamma");
    until("all hosts", || [&alpha, &beta, &gamma].iter().all(|site| site.alive().len() == 3));
    gamma.host.remove_host("alpha").unwrap();
    until("the end of the app", || beta.host.fleet_named("web").is_none() && gamma.host.fleet_named("web").is_none());
}
