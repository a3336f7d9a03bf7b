//! Debian's pebble, a server of ACME for tests, with its resolver, which finds all names on this host.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(40);

/// A program that is killed with this.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Pebble {
    pub directory: String,
    /// The certificate by which it is known.
    pub roots: PathBuf,
    _programs: [Running; 2],
}

/// Where a name's challenges are answered.
pub struct Ports {
    pub http: u16,
    pub https: u16,
}

pub fn port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn quiet(command: &mut Command) -> Running {
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

impl Pebble {
    /// Starts it with these settings; what it gives lasts so many seconds.
    pub fn start(folder: &Path, ports: &Ports, settings: &[(&str, &str)], lasts_s: u64) -> Self {
        let [acme, managed, dns, dns_managed] = [(); 4].map(|()| port());
        let (key, roots) = (folder.join("key.pem"), folder.join("cert.pem"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&roots, made.cert.pem()).unwrap();
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{acme}"), "managementListenAddress": format!("127.0.0.1:{managed}"),
            "certificate": roots, "privateKey": key, "httpPort": ports.http, "tlsPort": ports.https,
            "certificateValidityPeriod": lasts_s, "ocspResponderURL": "",
            "externalAccountBindingRequired": false, "domainBlocklist": ["blocked-domain.example"]}});
        std::fs::write(folder.join("pebble.json"), config.to_string()).unwrap();
        let mut resolver = Command::new("pebble-challtestsrv");
        resolver.args([
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
        ]);
        resolver.args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{dns_managed}")]);
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(folder.join("pebble.json")).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1").envs(settings.iter().copied());
        let programs = [quiet(&mut resolver), quiet(&mut pebble)];
        for port in [acme, dns_managed] {
            until("a program", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        }
        Self { directory: format!("https://localhost:{acme}/dir"), roots, _programs: programs }
    }
}
