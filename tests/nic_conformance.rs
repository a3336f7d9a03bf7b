//! The suite for NICs: TAP devices, a backend of a user's, and backends that break one rule each. (The cable of the examples
//! has tests of its own.)

#[path = "support/broken_nic.rs"]
mod broken_nic;

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broken_nic::{Fault, SocketNic};
use vmcell::Nic;
use vmcell::net::NicBackend;
use vmcell::testing::{NicConformance, Wire};

/// The other end of a backend's socket.
struct Socket(UnixDatagram);

impl Wire for Socket {
    fn send(&mut self, packet: &[u8]) -> bool {
        self.0.set_nonblocking(true).unwrap();
        self.0.send(packet).is_ok()
    }

    fn receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        self.0.set_nonblocking(limit.is_zero()).unwrap();
        self.0.set_read_timeout(Some(limit).filter(|limit| !limit.is_zero())).unwrap();
        let mut packet = vec![0; 70000];
        let len = self.0.recv(&mut packet).ok()?;
        packet.truncate(len);
        Some(packet)
    }
}

fn suite(fault: Fault) -> NicConformance {
    NicConformance::new(move || {
        let (near, far) = UnixDatagram::pair().unwrap();
        (Nic::backend(SocketNic::new(near, fault)), Box::new(Socket(far)))
    })
}

#[test]
fn a_backend_on_a_socket_passes() {
    suite(Fault::None).run();
}

/// The other ends of several backends' sockets. What it sends is one flow, so it comes by one of them.
struct Sockets {
    sockets: Vec<Socket>,
    flow: usize,
}

impl Wire for Sockets {
    fn send(&mut self, packet: &[u8]) -> bool {
        self.sockets[self.flow].send(packet)
    }

    fn receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let begun = Instant::now();
        loop {
            let found = self.sockets.iter_mut().find_map(|socket| socket.receive(Duration::ZERO));
            if found.is_some() || begun.elapsed() >= limit {
                return found;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// A card with a pair of queues for each backend.
fn suite_of_several(faults: &'static [Fault]) -> NicConformance {
    let made = AtomicUsize::new(0);
    NicConformance::new(move || {
        let (mut backends, mut sockets) = (Vec::new(), Vec::new());
        for fault in faults {
            let (near, far) = UnixDatagram::pair().unwrap();
            backends.push(Box::new(SocketNic::new(near, *fault)) as Box<dyn NicBackend>);
            sockets.push(Socket(far));
        }
        (
            Nic::backends(backends),
            Box::new(Sockets { sockets, flow: made.fetch_add(1, Ordering::Relaxed) % faults.len() }),
        )
    })
}

#[test]
fn a_card_with_several_pairs_passes() {
    suite_of_several(&[Fault::None; 3]).largest_frame(1514).run();
}

#[test]
fn a_card_of_which_one_pair_carries_no_frames_fails() {
    let suite = suite_of_several(&[Fault::None, Fault::None, Fault::LosesAllThatGoes]);
    let failures = suite.largest_frame(1514).patience(Duration::from_millis(200)).failures();
    assert!(failures.iter().any(|failure| failure.contains("each pair of queues")), "{failures:#?}");
}

/// Each fault, and the rule that finds it.
const FAULTS: &[(Fault, &str)] = &[
    (Fault::LosesAllThatComes, "frames of every size"),
    (Fault::LosesAllThatGoes, "frames of every size"),
    (Fault::CutsFrames, "frames of every size"),
    (Fault::CorruptsAByte, "frames of every size"),
    (Fault::NeverWakes, "frames of every size"),
    (Fault::SendsTwice, "in order, and none comes twice"),
    (Fault::DeliversTwice, "in order, and none comes twice"),
    (Fault::Reorders, "in order, and none comes twice"),
    (Fault::KeepsBuffers, "all its buffers back"),
    (Fault::GivesUpWithoutRoom, "no room"),
    (Fault::IgnoresOffloads, "nothing undone"),
    (Fault::ServesOneDriver, "begins anew"),
    (Fault::Blocks, "their turns"),
    (Fault::Panics, "frames of every size"),
];

#[test]
fn a_nic_that_breaks_one_rule_fails_the_suite_by_that_rule() {
    let check = |&(fault, rule): &(Fault, &str)| {
        let failures = suite(fault).largest_frame(1514).patience(Duration::from_millis(200)).failures();
        assert!(failures.iter().any(|failure| failure.contains(rule)), "{fault:?}: {failures:#?}");
    };
    // Most of the time is spent waiting for frames that do not come.
    std::thread::scope(|scope| FAULTS.iter().for_each(|fault| _ = scope.spawn(move || check(fault))));
}

/// Two TAP devices on a bridge, all of which go when this is dropped.
struct Bridge {
    name: String,
    taps: [String; 2],
}

impl Bridge {
    fn new() -> Option<Self> {
        let id = std::process::id() % 1_000_000;
        let bridge = Self { name: format!("vmcc{id}"), taps: [format!("vmcc{id}a"), format!("vmcc{id}b")] };
        let mut made = ip(&["link", "add", &bridge.name, "type", "bridge", "mcast_snooping", "0"]);
        for tap in &bridge.taps {
            made &= ip(&["tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"]);
            made &= ip(&["link", "set", "dev", tap, "master", &bridge.name, "up"]);
        }
        made &= ip(&["link", "set", "dev", &bridge.name, "up"]);
        made.then_some(bridge)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.taps.iter().chain([&self.name]).for_each(|device| _ = ip(&["link", "delete", "dev", device]));
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

#[test]
#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn tap_devices_pass() {
    let Some(bridge) = Bridge::new() else {
        return eprintln!(
            "skipped: no TAP device and bridge can be made here (it takes root, iproute2 and /dev/net/tun)"
        );
    };
    let taps = bridge.taps.clone();
    let open = |tap: &String| {
        // A process that another test starts has a copy of the last one's descriptor until it executes its program.
        let tries =
            std::iter::repeat_with(|| Nic::tap(tap).inspect_err(|_| std::thread::sleep(Duration::from_millis(5))));
        tries.take(1000).find_map(Result::ok).expect("the device is free")
    };
    let make = move || (open(&taps[0]), open(&taps[1]));
    NicConformance::of_pairs(make).largest_frame(1514).run();
}
