//! virtio-net with Linux's driver: ping, TCP both ways, `iperf3`, jumbo frames, and two guests that talk to each other.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::linux::{HostTap, LinuxGuest, between, host, root_disk};
use vmcell::Nic;

const LONG: Duration = Duration::from_secs(240);

fn nic(tap: &HostTap) -> Nic {
    Nic::tap(&tap.name).expect("the TAP device is opened")
}

/// Gives the guest's only interface an address; the host is `.1` in the same network.
fn with_address(address: &str, script: &str) -> LinuxGuest {
    let setup = format!(
        "in_root ip link set lo up; in_root ip address add {address}/24 dev eth0; in_root ip link set eth0 up\n{script}"
    );
    LinuxGuest::in_distribution(&setup).limit(LONG)
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn the_host_answers_a_ping_and_the_guest_too() {
    let tap = HostTap::new("vmc-ping", Some("10.77.1.1/24"), 1500);
    let script =
        "in_root ping -c 3 -i 0.2 -W 5 10.77.1.1; echo mac=$(cat /sys/class/net/eth0/address)-end; echo ready; sleep 5";
    let mac = [2, 0, 0, 0x77, 1, 2];
    let guest = with_address("10.77.1.2", script).start(|builder| builder.disk(root_disk()).nic(nic(&tap).mac(mac)));
    guest.expect("ready");
    host("ping", &["-c", "2", "-W", "5", "10.77.1.2"]);
    let text = guest.finish();
    assert!(text.contains(" 0% packet loss"), "{text}");
    assert_eq!(between(&text, "mac=", "-end"), "02:00:00:77:01:02");
}

/// Bytes that no packet loss or reordering would leave the same.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}

fn md5(bytes: &[u8]) -> String {
    let mut child = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("md5sum starts");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("md5sum reads");
    let output = child.wait_with_output().expect("md5sum ends");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a sum").to_owned()
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_hundred_megabytes_go_both_ways_unharmed() {
    let tap = HostTap::new("vmc-tcp", Some("10.77.2.1/24"), 1500);
    let data = pattern(100_000_000);
    let listener = TcpListener::bind("10.77.2.1:7000").unwrap();
    let sent = data.clone();
    let server = std::thread::spawn(move || {
        let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
        stream.write_all(&sent).unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        back
    });
    let script = r#"
mount -t tmpfs -o size=90% big /tmp
in_root bash -c 'exec 3<>/dev/tcp/10.77.2.1/7000; cat <&3' > /tmp/data
echo got=$(md5sum < /tmp/data | cut -d' ' -f1)-end
in_root bash -c 'exec 3<>/dev/tcp/10.77.2.1/7000; cat >&3' < /tmp/data
"#;
    let text =
        with_address("10.77.2.2", script).run(|builder| builder.memory_mib(512).disk(root_disk()).nic(nic(&tap)));
    assert_eq!(between(&text, "got=", "-end"), md5(&data), "{text}");
    assert!(server.join().unwrap() == data, "the host got something else back");
}

/// An iperf3 server of the host that ends with this.
struct Iperf(Child);

impl Iperf {
    fn serve(address: &str) -> Self {
        let command = ["-s", "-B", address].map(str::to_owned);
        Self(Command::new("iperf3").args(command).stdout(Stdio::null()).spawn().expect("iperf3 starts"))
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn iperf3_runs_both_ways_with_offloads() {
    let tap = HostTap::new("vmc-iperf", Some("10.77.3.1/24"), 1500);
    let _server = Iperf::serve("10.77.3.1");
    let script = r#"
in_root iperf3 -c 10.77.3.1 -t 3 -f m && echo sent-fine
in_root iperf3 -c 10.77.3.1 -t 3 -f m -R && echo received-fine
in_root iperf3 -c 10.77.3.1 -t 2 -u -b 20M && echo udp-fine
echo "drops $(cat /sys/class/net/eth0/statistics/rx_errors /sys/class/net/eth0/statistics/tx_errors | tr '\n' ' ')"
"#;
    let text = with_address("10.77.3.2", script).run(|builder| builder.disk(root_disk()).nic(nic(&tap)));
    assert!(text.contains("sent-fine") && text.contains("received-fine") && text.contains("udp-fine"), "{text}");
    assert!(text.contains("drops 0 0"), "{text}");
}

/// Waits for the guest, and returns what it printed.
fn run_with_two_vcpus(nic: Nic, script: &str) -> String {
    with_address("10.77.6.2", script).run(|builder| builder.vcpus(2).disk(root_disk()).nic(nic))
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn each_queue_carries_the_streams_of_its_cpu_both_ways() {
    let tap = HostTap::multi_queue("vmc-queues", "10.77.6.1/24");
    let _server = Iperf::serve("10.77.6.1");
    let script = r#"
cat > /root/tmp/ethtool.pl <<'END'
ETHTOOL
END
ethtool() { in_root perl /tmp/ethtool.pl "$@"; }
try() { in_root taskset -c $1 iperf3 -c 10.77.6.1 -t 2 -P 3 -f m $2 && echo "cpu $1 $2 fine"; }
echo "directories $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l) $(ls -d /sys/class/net/eth0/queues/tx-* | wc -l)"
ethtool channels
try 0; try 0 -R; try 1; try 1 -R
ethtool packets
ethtool channels 1 && in_root ping -c 3 -i 0.2 -W 5 10.77.6.1 && try 1 -R && echo "one is enough"
ethtool channels 2 && try 0 -R && try 1 && echo "two again"
echo "drops $(cat /sys/class/net/eth0/statistics/rx_errors /sys/class/net/eth0/statistics/tx_errors | tr '\n' ' ')"
"#;
    let text = run_with_two_vcpus(nic(&tap), &script.replace("ETHTOOL", include_str!("support/ethtool.pl")));
    assert!(text.contains("directories 2 2\n") && text.contains("channels 2 of 2\n"), "{text}");
    for done in ["cpu 0  fine", "cpu 0 -R fine", "cpu 1  fine", "cpu 1 -R fine", "channels 1 of 2", " 0% packet loss"] {
        assert!(text.contains(done), "no {done:?} in {text}");
    }
    assert!(text.contains("one is enough") && text.contains("two again") && text.contains("drops 0 0"), "{text}");
    for queue in ["rx_queue_0", "rx_queue_1", "tx_queue_0", "tx_queue_1"] {
        let packets = between(&text, &format!("{queue}_packets="), ";");
        assert!(packets.parse::<u32>().unwrap() > 100, "{queue} has carried {packets} packets");
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_guest_with_two_vcpus_on_a_device_with_one_queue_has_one_pair() {
    let tap = HostTap::new("vmc-single", Some("10.77.6.1/24"), 1500);
    let script = "echo \"directories $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)\"; in_root ping -c 3 -i 0.2 -W 5 10.77.6.1";
    let text = run_with_two_vcpus(nic(&tap), script);
    assert!(text.contains("directories 1\n") && text.contains(" 0% packet loss"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn jumbo_frames_pass_whole() {
    let tap = HostTap::new("vmc-jumbo", Some("10.77.4.1/24"), 9000);
    let script = "echo mtu=$(cat /sys/class/net/eth0/mtu)-end; in_root ping -M do -s 8972 -c 3 -i 0.2 -W 5 10.77.4.1";
    let text = with_address("10.77.4.2", script).run(|builder| builder.disk(root_disk()).nic(nic(&tap).mtu(9000)));
    assert_eq!(between(&text, "mtu=", "-end"), "9000");
    assert!(text.contains(" 0% packet loss"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn two_guests_talk_to_each_other() {
    let taps = [HostTap::new("vmc-a", None, 1500), HostTap::new("vmc-b", None, 1500)];
    host("ip", &["link", "add", "vmc-bridge", "type", "bridge"]);
    for tap in &taps {
        host("ip", &["link", "set", "dev", &tap.name, "master", "vmc-bridge"]);
    }
    host("ip", &["link", "set", "dev", "vmc-bridge", "up"]);
    let server = with_address("10.77.5.1", "echo listening; in_root iperf3 -s -1 && echo served")
        .start(|builder| builder.disk(root_disk()).nic(nic(&taps[0])));
    server.expect("listening");
    let script =
        "for n in 1 2 3 4 5 6 7 8 9; do in_root iperf3 -c 10.77.5.1 -n 20M && echo talked && break; sleep 1; done";
    let text = with_address("10.77.5.2", script).run(|builder| builder.disk(root_disk()).nic(nic(&taps[1])));
    assert!(text.contains("talked"), "{text}");
    assert!(server.finish().contains("served"));
    host("ip", &["link", "delete", "vmc-bridge"]);
}
