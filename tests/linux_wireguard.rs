//! Tunnels and other people's WireGuard: the kernel's, or wireguard-go where the kernel has none. Two of its interfaces, each in a network
//! namespace of its own, reach each other through a private network in this process, each by a tunnel of its own.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::linux::host;
use vmcell::network::wireguard::{AllowedIp, Config, PeerConfig, PresharedKey, PrivateKey, Timing, Tunnel};
use vmcell::network::{Network, NetworkConfig, Rule, Subnet};

const PATIENCE: Duration = Duration::from_secs(60);
/// The bytes that one transfer has.
fn bytes() -> u64 {
    if support::is_long() { 100_000_000 } else { 10_000_000 }
}

const SERVE: &str = r#"
import hashlib, socket
listener = socket.create_server(("::", 7000), family=socket.AF_INET6)
print("listening", flush=True)
stream, _ = listener.accept()
seen = hashlib.sha256()
while True:
    got = stream.recv(1 << 20)
    if not got: break
    seen.update(got)
print("got", seen.hexdigest(), flush=True)
"#;

const SEND: &str = r#"
import hashlib, random, socket, sys
stream, left, seen = socket.create_connection((sys.argv[1], 7000), 60), int(sys.argv[2]), hashlib.sha256()
stream.settimeout(60)
while left:
    piece = random.randbytes(min(left, 1 << 20))
    stream.sendall(piece)
    seen.update(piece)
    left -= len(piece)
print("sent", seen.hexdigest(), flush=True)
"#;

const KNOCK: &str = r#"
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), 1)
except ConnectionRefusedError:
    print("knocked: refused")
except OSError as error:
    print("knocked:", error)
"#;

/// One end: a namespace with an interface, a cable to this process, and the tunnel at its end.
struct End {
    number: u8,
    space: String,
    key: PrivateKey,
    shared: PresharedKey,
    interface: Option<Interface>,
    tunnel: Option<Tunnel>,
    tunnel_key: PrivateKey,
    port: u16,
}

enum Interface {
    Kernel,
    Go(Child),
}

fn key_hex(text: &str) -> String {
    let output =
        Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().and_then(|mut child| {
            child.stdin.take().expect("a pipe").write_all(text.as_bytes())?;
            child.wait_with_output()
        });
    output.expect("base64 runs").stdout.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl End {
    fn new(test: u8, number: u8) -> Self {
        let space = format!("vmc-wg{test}-{number}");
        let _ = Command::new("ip").args(["netns", "delete", &space]).output();
        host("ip", &["netns", "add", &space]);
        let [ours, theirs] = [format!("vmcwg{test}{number}o"), format!("vmcwg{test}{number}t")];
        let _ = Command::new("ip").args(["link", "delete", &ours]).output();
        host("ip", &["link", "add", &ours, "type", "veth", "peer", "name", &theirs, "netns", &space]);
        let key = || PrivateKey::generate().expect("random bytes");
        let end = Self {
            number: number + 2 * test,
            space,
            key: key(),
            shared: PresharedKey::generate().expect("random bytes"),
            interface: None,
            tunnel: None,
            tunnel_key: key(),
            port: 0,
        };
        host("ip", &["address", "add", &format!("{}/24", end.near()), "dev", &ours]);
        host("ip", &["link", "set", "dev", &ours, "up"]);
        end.inside("ip", &["address", "add", &format!("{}/24", end.far(2)), "dev", &theirs]);
        for link in ["lo", &theirs] {
            end.inside("ip", &["link", "set", "dev", link, "up"]);
        }
        end
    }

    /// This process's address on the cable.
    fn near(&self) -> IpAddr {
        [10, 213, self.number, 1].into()
    }

    /// The interface's address on the cable.
    fn far(&self, host: u8) -> IpAddr {
        [10, 213, self.number, host].into()
    }

    /// The interface's own address, in the network.
    fn address(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfdac, 0x1705, 0, 7, 0xee, self.number.into(), 0, 1)
    }

    fn cable(&self) -> String {
        let digits: Vec<char> = self.space.chars().filter(char::is_ascii_digit).collect();
        format!("vmcwg{}{}", digits[0], digits[1])
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> String {
        host("ip", &[&["netns", "exec", &self.space, program], arguments].concat())
    }

    /// Starts the tunnel, at the port that it had before if it had one.
    fn start_tunnel(&mut self, network: &Network, timing: Timing) {
        let mut config = Config::new(self.tunnel_key.clone());
        config.listen_port = Some(self.port);
        let peer = PeerConfig::new(self.key.public_key()).preshared_key(self.shared.clone());
        config.peers.push(peer.allow(AllowedIp::single(self.address().into())));
        let builder = Tunnel::builder(config).listen_on(self.near()).timing(timing);
        let uplink = network.uplink(1420, 4096, builder.wake()).expect("an uplink");
        let tunnel = builder.start(uplink).expect("a tunnel");
        self.port = tunnel.local_address().port();
        self.tunnel = Some(tunnel);
    }

    /// Has the tunnel begin the handshakes from now on.
    fn lead(&self) {
        let key = self.key.public_key();
        assert!(self.tunnel().remove_peer(&key).expect("its thread answers"));
        let peer = PeerConfig::new(key).preshared_key(self.shared.clone()).endpoint((self.far(2), 51820).into());
        let peer = peer.allow(AllowedIp::single(self.address().into())).persistent_keepalive(1);
        self.tunnel().add_peer(&peer).expect("it is gone");
    }

    fn tunnel(&self) -> &Tunnel {
        self.tunnel.as_ref().expect("it was started")
    }

    fn counter(&self, name: &str) -> u64 {
        self.tunnel().metrics()[&format!("wireguard_{name}")]
    }

    /// Starts the other people's WireGuard, which speaks first: where it is, nobody else knows.
    fn start_interface(&mut self) {
        let made = Command::new("ip").args(["-n", &self.space, "link", "add", "wg0", "type", "wireguard"]).output();
        let interface = if made.expect("ip runs").status.success() {
            self.configure_kernel();
            Interface::Kernel
        } else {
            self.start_go()
        };
        self.interface = Some(interface);
        let address = format!("{}/128", self.address());
        self.inside("ip", &["address", "add", &address, "dev", "wg0", "nodad"]);
        self.inside("ip", &["link", "set", "dev", "wg0", "mtu", "1420", "up"]);
        self.inside("ip", &["-6", "route", "add", "default", "dev", "wg0"]);
    }

    fn configure_kernel(&self) {
        let text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51820\n[Peer]\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = ::/0\nEndpoint = {}\nPersistentKeepalive = 1\n",
            self.key.reveal(),
            self.tunnel().public_key(),
            self.shared.reveal(),
            self.tunnel().local_address(),
        );
        let path = std::env::temp_dir().join(&self.space);
        std::fs::write(&path, text).expect("a file");
        self.inside("wg", &["setconf", "wg0", support::linux::path_text(&path)]);
        std::fs::remove_file(path).expect("it was written");
    }

    fn start_go(&self) -> Interface {
        // The name of its socket is that of the interface, whatever the namespace.
        let name = self.cable();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.space, "wireguard-go", "-f", &name])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("wireguard-go is installed (Debian: wireguard-go)");
        let began = Instant::now();
        let mut stream = loop {
            match UnixStream::connect(format!("/var/run/wireguard/{name}.sock")) {
                Ok(stream) => break stream,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let text = format!(
            "set=1\nprivate_key={}\nlisten_port=51820\npublic_key={}\npreshared_key={}\nallowed_ip=::/0\nendpoint={}\npersistent_keepalive_interval=1\n\n",
            key_hex(&self.key.reveal()),
            key_hex(&self.tunnel().public_key().to_string()),
            key_hex(&self.shared.reveal()),
            self.tunnel().local_address(),
        );
        stream.write_all(text.as_bytes()).expect("its socket takes it");
        let (mut answer, mut room) = (String::new(), [0; 256]);
        while !answer.contains("\n\n") {
            let len = stream.read(&mut room).expect("it answers");
            answer += &String::from_utf8_lossy(&room[..len]);
        }
        assert_eq!(answer.trim(), "errno=0");
        self.inside("ip", &["link", "set", "dev", &name, "name", "wg0"]);
        Interface::Go(child)
    }

    fn stop_interface(&mut self) {
        match self.interface.take() {
            Some(Interface::Kernel) => drop(self.inside("ip", &["link", "delete", "wg0"])),
            Some(Interface::Go(mut child)) => {
                // `ip netns exec` has become the program itself.
                child.kill().and_then(|()| child.wait()).expect("it was started");
                let began = Instant::now();
                while Command::new("ip")
                    .args(["-n", &self.space, "link", "show", "wg0"])
                    .output()
                    .is_ok_and(|it| it.status.success())
                {
                    assert!(began.elapsed() < PATIENCE);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            None => {}
        }
    }

    fn python(&self, program: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space, "python3", "-c", program]).args(arguments);
        command.stdout(Stdio::piped()).spawn().expect("python3 is installed")
    }

    /// Waits until the other end says that nobody listens at a port.
    fn reaches(&self, other: &End) {
        let began = Instant::now();
        while said(self.python(KNOCK, &[&other.address().to_string()]), "knocked:") != "refused" {
            let metrics = [self, other].map(|end| end.tunnel().metrics());
            assert!(began.elapsed() < PATIENCE, "{metrics:?}");
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(Interface::Go(child)) = &mut self.interface {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.space]).output();
        let _ = Command::new("ip").args(["link", "delete", &format!("{}o", self.cable())]).output();
    }
}

/// The word behind `name` in what a program has said, which must end well.
fn said(child: Child, name: &str) -> String {
    let output = child.wait_with_output().expect("it was started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
    line.trim().to_owned()
}

fn transfer(from: &End, to: &End, bytes: u64) {
    let mut server = to.python(SERVE, &[]);
    let mut first = [0; 10];
    server.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("it listens");
    assert_eq!(&first, b"listening\n");
    let client = from.python(SEND, &[&to.address().to_string(), &bytes.to_string()]);
    let sent = said(client, "sent");
    assert_eq!(said(server, "got"), sent);
}

fn bed(test: u8, timing: Timing) -> (Network, End, End) {
    let network = Network::new(NetworkConfig::new(Subnet::new([0xac, 0x17, 0x05], 7))).expect("a network");
    network.set_rules(&[Rule::allow()]).expect("rules");
    let mut ends = [End::new(test, 0), End::new(test, 1)];
    for end in &mut ends {
        end.start_tunnel(&network, timing);
        end.start_interface();
    }
    let [one, other] = ends;
    one.reaches(&other);
    other.reaches(&one);
    (network, one, other)
}

#[test]
#[ignore = "needs root and WireGuard: cargo xtask test"]
fn what_is_sent_crosses_both_ways_while_keys_are_renewed_again_and_again() {
    let mut timing = Timing::default();
    timing.rekey_after = Duration::from_secs(1);
    let (_network, one, other) = bed(1, timing);
    [&one, &other].into_iter().for_each(End::lead);
    one.reaches(&other);
    let bytes = bytes();
    transfer(&one, &other, bytes);
    transfer(&other, &one, bytes);
    for end in [&one, &other] {
        let metrics = end.tunnel().metrics();
        assert!(metrics["wireguard_received_bytes"] > bytes && metrics["wireguard_sent_bytes"] > bytes, "{metrics:?}");
        assert!(metrics["wireguard_handshakes"] > 3, "{metrics:?}");
        for dropped in ["replayed", "expired", "malformed", "not_wireguard", "send_failed"] {
            assert_eq!(end.counter(&format!("dropped_{dropped}")), 0, "{metrics:?}");
        }
    }
}

#[test]
#[ignore = "needs root and WireGuard: cargo xtask test"]
fn a_peer_that_moves_and_either_side_that_starts_again_is_found_again() {
    let (network, mut one, mut other) = bed(2, Timing::default());
    // The interface has another address now, and is the first to speak.
    let (old, new, link) = (one.far(2), one.far(3), format!("{}t", one.cable()));
    one.inside("ip", &["address", "delete", &format!("{old}/24"), "dev", &link]);
    one.inside("ip", &["address", "add", &format!("{new}/24"), "dev", &link]);
    one.reaches(&other);
    let endpoint =
        |end: &End| end.tunnel().peer(&end.key.public_key()).and_then(|peer| peer.endpoint).map(|at| at.ip());
    assert_eq!(endpoint(&one), Some(new));
    other.reaches(&one);
    transfer(&other, &one, 1_000_000);
    // The interface starts again: the tunnel hears of it by its handshake.
    one.stop_interface();
    one.start_interface();
    one.reaches(&other);
    transfer(&other, &one, 1_000_000);
    // The tunnel starts again: the interface finds out when nothing is answered.
    other.tunnel = None;
    other.start_tunnel(&network, Timing::default());
    other.reaches(&one);
    transfer(&one, &other, 1_000_000);
    assert_eq!(other.counter("handshakes"), 1);
    let at: SocketAddr = other.tunnel().local_address();
    assert_eq!(at.ip(), other.near());
}

#[test]
#[ignore = "needs root and WireGuard: cargo xtask test --long"]
fn it_goes_on_where_one_in_twenty_datagrams_is_lost_on_its_way() {
    let mut timing = Timing::default();
    timing.rekey_after = Duration::from_secs(1);
    let (_network, one, other) = bed(3, timing);
    [&one, &other].into_iter().for_each(End::lead);
    let cable = format!("{}o", one.cable());
    for (arguments, inside) in [(format!("{}t", one.cable()), true), (cable, false)] {
        let netem = ["qdisc", "add", "dev", &arguments, "root", "netem", "loss", "5%"];
        if inside {
            one.inside("tc", &netem);
        } else {
            host("tc", &netem);
        }
    }
    transfer(&one, &other, 5_000_000);
    transfer(&other, &one, 5_000_000);
    assert!(one.counter("handshakes") > 1);
}
