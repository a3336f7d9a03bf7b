//! A guest that reaches the world outside by passt: a host and its neighbour, each in a network namespace.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::linux::{LinuxGuest, between, host, path_text, root_disk};
use vmcell::network::Passt;

const LIMIT: Duration = Duration::from_secs(150);
const HOST: &str = "vmc-passt";
const WORLD: &str = "vmc-world";

/// Takes what each client sends, and tells it the sum of that.
const SERVE: &str = r#"
import hashlib, socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
while True:
    stream, _ = listener.accept()
    seen = hashlib.md5()
    while got := stream.recv(1 << 16):
        seen.update(got)
    print("got", seen.hexdigest(), flush=True)
    stream.sendall(b"seen " + seen.hexdigest().encode())
    stream.close()
"#;

/// Asks the guest by a port of the host's.
const ASK: &str = r#"
import socket, sys
try:
    stream = socket.create_connection(("10.215.0.2", int(sys.argv[1])), 20)
    stream.settimeout(20)
    print("answer:", stream.recv(100).decode())
except OSError as error:
    print("answer:", type(error).__name__)
"#;

/// Has its address from passt, sends and asks, and then serves.
const GUEST: &str = r#"
cat > /bound <<'END'
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev eth0
[ -z "$router" ] || ip route add default via $router
echo bound=$ip mtu=$mtu
END
chmod +x /bound
ip link set lo up; ip link set eth0 up
udhcpc -i eth0 -n -q -s /bound 2>&1
echo mtu=$(cat /sys/class/net/eth0/mtu)-end
head -c 3000000 /dev/urandom > /data
echo sent=$(md5sum < /data | cut -d' ' -f1)-end
echo seen=$(in_root socat -t 30 STDIO TCP:10.215.0.1:7000 < /data)-end
echo loopback=$(echo hello | in_root timeout 5 socat -t 3 STDIO TCP:10.215.0.1:7002 2>&1)-end
for port in 80 81; do in_root socat TCP-LISTEN:$port,fork,reuseaddr SYSTEM:"echo from the guest" & done
sleep 1; echo serving
until grep -q ' 0200D70A:0050 0100D70A:' /proc/net/tcp; do sleep 0.1; done; echo reached by the port
sleep 1000
"#;

struct World;

impl World {
    fn new() -> Self {
        let world = Self;
        world.remove();
        for space in [HOST, WORLD] {
            host("ip", &["netns", "add", space]);
        }
        host(
            "ip",
            &["link", "add", "vmcpasst", "netns", HOST, "type", "veth", "peer", "name", "vmcworld", "netns", WORLD],
        );
        for (space, link, address) in [(HOST, "vmcpasst", "10.215.0.2/24"), (WORLD, "vmcworld", "10.215.0.1/24")] {
            host("ip", &["-n", space, "address", "add", address, "dev", link]);
            host("ip", &["-n", space, "link", "set", "dev", link, "up"]);
            host("ip", &["-n", space, "link", "set", "dev", "lo", "up"]);
        }
        host("ip", &["-n", HOST, "route", "add", "default", "via", "10.215.0.1"]);
        world
    }

    /// A server, which is killed when dropped.
    fn serve(&self, space: &str, address: &str, port: u16) -> Server {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space, "python3", "-c", SERVE, address, &port.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python3 is installed");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut server = Server { child, lines };
        assert_eq!(server.line(), "listening");
        server
    }

    /// What somebody in the world is answered at a port of the host's.
    fn ask(&self, port: u16) -> String {
        let text = host("ip", &["netns", "exec", WORLD, "python3", "-c", ASK, &port.to_string()]);
        text.trim().strip_prefix("answer: ").unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    fn remove(&self) {
        for space in [HOST, WORLD] {
            let _ = Command::new("ip").args(["netns", "delete", space]).output();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.remove();
    }
}

struct Server {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("text");
        line.trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs root and a KVM that runs Linux: cargo xtask test"]
fn a_guest_reaches_the_world_by_passt_and_is_reached_by_the_ports_that_are_listed_alone() {
    let world = World::new();
    let mut outside = world.serve(WORLD, "10.215.0.1", 7000);
    // What listens on the host's loopback is not the guest's.
    let _inside = world.serve(HOST, "127.0.0.1", 7002);
    // Started in the host's namespace, as a host program would be that bounds its guests in that way.
    let mut script = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(script, "#!/bin/sh\nexec ip netns exec {HOST} passt \"$@\"").expect("it is written");
    let script = script.into_temp_path();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let nic = Passt::new().program(path_text(&script)).mtu(9000).tcp(None, 8080, 80).start();
    let nic = nic.unwrap_or_else(|error| panic!("{}", error.chain()));
    // The port is taken now, and the error has passt's own words for that.
    let again = Passt::new().program(path_text(&script)).tcp(None, 8080, 80).start().expect_err("the port is taken");
    assert!(again.to_string().contains("8080"), "{again}");
    let guest = LinuxGuest::in_distribution(GUEST)
        .limit(LIMIT)
        .start(|builder| builder.memory_mib(512).disk(root_disk()).nic(nic));
    guest.expect("serving");
    let text = guest.transcript.text().replace('\r', "");
    assert!(text.contains("bound=10.215.0.2"), "{text}");
    assert_eq!(between(&text, "\nmtu=", "-end"), "9000", "{text}");
    let sum = between(&text, "sent=", "-end");
    // This release of passt says the end of a connection twice now and then.
    assert!(between(&text, "seen=", "-end").starts_with(&format!("seen {sum}")), "{text}");
    assert_eq!(outside.line(), format!("got {sum}"));
    let loopback = between(&text, "loopback=", "-end");
    assert!(!loopback.contains("seen"), "{text}");
    assert_eq!(world.ask(8081), "ConnectionRefusedError");
    // Debian 12's passt does not acknowledge the guest's answer in time, so what the guest says is not looked at.
    world.ask(8080);
    guest.expect("reached by the port");
    guest.vm.stop().expect("it runs");
}
