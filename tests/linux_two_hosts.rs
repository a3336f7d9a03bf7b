//! Two processes, each in a network namespace of its own, whose private networks are one by a tunnel between them.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use support::linux::{LinuxGuest, between, host, root_disk};
use vmcell::network::wireguard::{Config, PeerConfig, PrivateKey, Tunnel};
use vmcell::network::{Network, NetworkConfig, Rule, Subnet};

/// Which host the process is, and the tunnel's configuration: only then is it one of the two.
const HOST: &str = "VMCELL_TEST_HOST";
const CONFIG: &str = "VMCELL_TEST_CONFIG";
const SUBNET: Subnet = Subnet::new([0xac, 0x17, 0x05], 7);
const TEST: &str = "two_processes_are_one_network_and_nothing_is_in_clear_between_them";
const LIMIT: Duration = Duration::from_secs(150);
const PORT: u16 = 51820;

/// Counts what passes until its input ends: datagrams of the tunnels, their bytes, and packets of anybody else's that show the network's
/// addresses or the guests' words.
const CAPTURE: &str = r#"
import select, socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
# SO_RCVBUFFORCE
wire.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)
wire.bind((sys.argv[1], 0))
print("captures", flush=True)
tunnels = size = clear = 0
while True:
    ready = select.select([wire, sys.stdin], [], [])[0]
    if wire in ready:
        frame = wire.recv(1 << 16)
        if b"in-the-clear" in frame or bytes.fromhex("fdac170500000007") in frame:
            clear += 1
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == int(sys.argv[2]).to_bytes(2, "big"):
            tunnels, size = tunnels + 1, size + len(frame)
    elif sys.stdin in ready:
        break
print("tunnels", tunnels, "bytes", size, "clear", clear, flush=True)
"#;

#[test]
#[ignore = "needs root and a KVM that runs Linux: cargo xtask test"]
fn two_processes_are_one_network_and_nothing_is_in_clear_between_them() {
    if let Ok(number) = std::env::var(HOST) {
        return be_host(number.parse().expect("a number"));
    }
    let spaces = [Space::new(1), Space::new(2)];
    host("ip", &["link", "add", &spaces[0].link, "type", "veth", "peer", "name", &spaces[1].link]);
    spaces.iter().for_each(Space::join);
    let capture = spaces[0].start("python3", &["-c", CAPTURE, &spaces[0].link, &PORT.to_string()], &[]);
    let mut capture = Said::of(capture);
    capture.wait_for("captures");
    let keys = [(), ()].map(|()| PrivateKey::generate().expect("random bytes"));
    let [first, second] = [0usize, 1].map(|own| {
        let other = 1 - own;
        let mut config = Config::new(keys[own].clone());
        config.listen_port = Some(PORT);
        let peer = PeerConfig::new(keys[other].public_key()).endpoint(SocketAddr::new(spaces[other].address(), PORT));
        config.peers.push(peer.allow(SUBNET.host_prefix(spaces[other].number).into()));
        move |space: &Space| {
            let program = std::env::current_exe().expect("this program");
            let program = program.to_str().expect("a plain path").to_owned();
            let arguments = ["--exact", TEST, "--ignored", "--nocapture"];
            let variables = [(HOST, space.number.to_string()), (CONFIG, config.to_text())];
            Said::of(space.start(&program, &arguments, &variables))
        }
    });
    let mut server = second(&spaces[1]);
    server.wait_for("listening");
    let mut client = first(&spaces[0]);
    let client = client.all();
    let (server, capture) = (server.all(), capture.all());
    let sum = between(&client, "sent=", "-end");
    assert_eq!(between(&server, "got=", "-end"), sum, "{client}\n{server}");
    assert_eq!(between(&client, "back=", "-end"), sum, "{client}\n{server}");
    assert!(client.contains(" 0% packet loss"), "{client}");
    let number = |word: &str| {
        let mut words = capture.split_whitespace().skip_while(|at| *at != word);
        words.nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or_else(|| panic!("{capture}"))
    };
    // Both ways, whatever the capture has lost.
    assert!(number("bytes") > mib() << 20 && number("tunnels") > 1000, "{capture}");
    assert_eq!(number("clear"), 0, "{capture}");
}

fn mib() -> u64 {
    if support::is_long() { 100 } else { 4 }
}

/// One host: a network with one machine, and a tunnel to the other.
fn be_host(number: u16) {
    let network = Network::new(NetworkConfig::new(SUBNET)).expect("a network");
    let guests = [1, 2].map(|host| SUBNET.machine(host, 1).expect("a number that is allowed").ip());
    network.set_rules(&[Rule::allow().tcp(7000..=7001), Rule::allow().icmp()]).expect("rules");
    let config = Config::parse(&std::env::var(CONFIG).expect("a configuration")).expect("a configuration");
    let tunnel = Tunnel::builder(config).packets(4096).join(&network).expect("a tunnel");
    let script = if number == 1 { ask(guests[1].to_string()) } else { serve() };
    let port = network.port(SUBNET.machine(number, 1).expect("a number that is allowed")).expect("the address is free");
    let limit = if support::is_long() { 6 * LIMIT } else { LIMIT };
    let guest = LinuxGuest::in_distribution(&script).limit(limit);
    let guest = guest.start(|builder| builder.memory_mib(512).disk(root_disk()).nic(port.into_nic()));
    if number == 2 {
        guest.expect("listening");
        say("listening");
        // What its kernel has sent may be lost, and sent again, until the other guest has all of it.
        std::io::stdin().read_to_end(&mut Vec::new()).expect("the other process has the other end");
        say(&guest.transcript.text());
    } else {
        say(&guest.finish());
    }
    say(&format!("{:?}", tunnel.metrics()));
}

/// To the process that started this one.
fn say(text: &str) {
    std::io::stdout().write_all(format!("{text}\n").as_bytes()).expect("somebody listens");
}

const SET_UP: &str = r#"
mount -t tmpfs -o size=90% big /tmp
in_root ip link set lo up; in_root ip link set eth0 up
for n in $(seq 200); do in_root ip -6 -o address show dev eth0 scope global -tentative | grep -q inet6 && break; sleep 0.2; done
"#;

fn serve() -> String {
    format!(
        r#"{SET_UP}
echo listening
in_root socat -u TCP6-LISTEN:7000 STDOUT > /tmp/data
echo got=$(md5sum < /tmp/data | cut -d' ' -f1)-end
in_root socat -u STDIN TCP6-LISTEN:7001 < /tmp/data
sleep 1000
"#
    )
}

fn ask(other: String) -> String {
    format!(
        r#"{SET_UP}
in_root ping -c 3 -i 0.2 -W 20 {other}
yes in-the-clear | head -c {bytes} > /tmp/data
echo sent=$(md5sum < /tmp/data | cut -d' ' -f1)-end
in_root socat -u STDIN TCP6:[{other}]:7000 < /tmp/data
for n in 1 2 3 4 5 6 7 8 9; do in_root socat -u TCP6:[{other}]:7001 STDOUT > /tmp/back && break; sleep 1; done
echo back=$(md5sum < /tmp/back | cut -d' ' -f1)-end
"#,
        bytes = mib() << 20,
    )
}

/// What a process says, line by line. It is killed when dropped.
struct Said {
    child: Child,
    lines: BufReader<ChildStdout>,
    so_far: String,
}

impl Said {
    fn of(mut child: Child) -> Self {
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines, so_far: String::new() }
    }

    fn wait_for(&mut self, word: &str) {
        while !self.so_far.contains(word) {
            let read = self.lines.read_line(&mut self.so_far).expect("text");
            assert!(read > 0, "it ended before it said {word:?}: {}", self.so_far);
        }
    }

    /// Ends its input, and waits for the rest.
    fn all(&mut self) -> String {
        drop(self.child.stdin.take());
        while self.lines.read_line(&mut self.so_far).expect("text") > 0 {}
        let status = self.child.wait().expect("it was started");
        assert!(status.success(), "{status}: {}", self.so_far);
        std::mem::take(&mut self.so_far)
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network namespace with one end of a cable. Removed when dropped.
struct Space {
    number: u16,
    name: String,
    link: String,
}

impl Space {
    fn new(number: u16) -> Self {
        let space = Self { number, name: format!("vmc-host{number}"), link: format!("vmchost{number}") };
        space.remove();
        host("ip", &["netns", "add", &space.name]);
        space
    }

    fn address(&self) -> std::net::IpAddr {
        [10, 214, 0, self.number.to_be_bytes()[1]].into()
    }

    /// Puts the cable's end there.
    fn join(&self) {
        host("ip", &["link", "set", "dev", &self.link, "netns", &self.name]);
        let address = format!("{}/24", self.address());
        for words in [&["address", "add", &address, "dev", &self.link][..], &["link", "set", "dev", &self.link, "up"]] {
            host("ip", &[&["-n", &self.name], words].concat());
        }
    }

    fn start(&self, program: &str, arguments: &[&str], variables: &[(&str, String)]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(arguments);
        variables.iter().for_each(|(name, value)| _ = command.env(name, value));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ip is installed")
    }

    fn remove(&self) {
        // The cable's ends go with it.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
        let _ = Command::new("ip").args(["link", "delete", &self.link]).output();
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.remove();
    }
}
