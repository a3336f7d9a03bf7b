//! What becomes of a Linux guest's network in a fork: its link goes down and up, and nobody there knows its connections.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use support::Transcript;
use support::linux::{HostTap, LinuxGuest, host, root_disk};
use vmcell::{Exit, Nic, Seccomp, Vm};

const LONG: Duration = Duration::from_secs(80);
/// The hosts of a network mostly have the same gateway, by its MAC address too.
const GATEWAY: &str = "02:00:00:77:09:01";

/// Asks for an echo of each number over one TCP connection. What has no answer for a second is asked again.
const TALK: &str = r#"
in_root ip link set lo up; in_root ip address add 10.77.9.2/24 dev eth0; in_root ip link set eth0 up
cat >/root/tmp/talk.py <<'EOF'
import socket
stream = socket.create_connection(("10.77.9.1", 7000))
stream.settimeout(1)
number, rest = 0, b""
try:
    while True:
        stream.sendall(b"%8d" % number)
        try:
            while len(rest) < 8:
                got = stream.recv(4096)
                if not got: raise SystemExit("the other side has ended after %d" % number)
                rest += got
        except TimeoutError:
            continue
        answer, rest = int(rest[:8]), rest[8:]
        if answer != number: raise SystemExit("%d came back for %d" % (answer, number))
        number += 1
        if number % 100 == 0: print("asked", number, flush=True)
except (ConnectionResetError, BrokenPipeError) as error:
    print("reset after", number, flush=True)
EOF
echo carrier $(cat /sys/class/net/eth0/carrier_changes) before
in_root python3 /tmp/talk.py
in_root ping -c 1 -W 20 10.77.9.1 >/dev/null && echo reaches it
echo carrier $(cat /sys/class/net/eth0/carrier_changes) after
"#;

/// A network of the host's in which no connection is known.
struct OtherNetwork;

impl OtherNetwork {
    const NAME: &str = "vmc-other";

    fn with(tap: &HostTap) -> Self {
        host("ip", &["netns", "add", Self::NAME]);
        let network = Self;
        host("ip", &["link", "set", "dev", &tap.name, "netns", Self::NAME]);
        let inside = |arguments: &[&str]| host("ip", &[&["-n", Self::NAME], arguments].concat());
        inside(&["link", "set", "dev", &tap.name, "address", GATEWAY]);
        inside(&["address", "add", "10.77.9.1/24", "dev", &tap.name]);
        inside(&["link", "set", "dev", &tap.name, "up"]);
        network
    }
}

impl Drop for OtherNetwork {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "delete", Self::NAME]).output();
    }
}

fn carrier_changes(text: &str, when: &str) -> u32 {
    let line = text.lines().find(|line| line.starts_with("carrier ") && line.contains(when)).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_tcp_connection_goes_on_over_a_snapshot_and_is_reset_in_a_fork() {
    let tap = HostTap::new("vmc-talk", Some("10.77.9.1/24"), 1500);
    host("ip", &["link", "set", "dev", &tap.name, "address", GATEWAY]);
    let listener = TcpListener::bind("10.77.9.1:7000").expect("a port");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest connects");
        let mut bytes = [0; 8];
        while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {}
    });
    let nic = |tap: &HostTap| Nic::tap(&tap.name).expect("the TAP device is opened").mac([2, 0, 0, 0x77, 9, 2]);
    let guest = LinuxGuest::in_distribution(TALK).limit(LONG);
    let source = guest.start(|builder| builder.disk(root_disk()).nic(nic(&tap)));
    source.expect("asked 100");
    let snapshot = source.vm.snapshot().expect("a snapshot");
    let before = source.transcript.text().replace('\r', "");
    let other = HostTap::new("vmc-fork", None, 1500);
    let transcript = Transcript::default();
    let builder = Vm::builder().fork_of(&snapshot).disk(root_disk()).nic(nic(&other)).console(transcript.console());
    let fork = builder.seccomp(Seccomp::Kill).build().unwrap_or_else(|e| panic!("{}", e.chain()));
    let _network = OtherNetwork::with(&other);
    fork.start().expect("the fork starts");
    assert!(matches!(fork.wait_timeout(LONG), Ok(Exit::Shutdown)), "{}", transcript.text());
    let text = transcript.text().replace('\r', "");
    assert!(text.contains("reset after") && text.contains("reaches it"), "{text}");
    assert!(carrier_changes(&text, "after") >= carrier_changes(&before, "before") + 2, "{before}\n{text}");
    // The source has noticed nothing.
    let asked = before.matches("asked").count();
    let goes_on = |text: &str| text.matches("asked").count() > asked + 1;
    assert!(source.transcript.wait_until(LONG, goes_on), "{}", source.transcript.text());
    assert!(!source.transcript.text().contains("reset after"), "{}", source.transcript.text());
    source.vm.stop().expect("it stops");
}
