//! TAP devices of the host: which are taken, which are refused, and frames through a real one.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;

use super::*;
use crate::memory::{GuestAddress, GuestMemory};
use crate::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory, retry};
use crate::virtio::MmioTransport;
use crate::virtio::spec::feature::{RING_EVENT_IDX, VERSION_1};

const BUFFERS: u64 = 0x40000;

/// A TAP device that goes when it is dropped.
struct TestTap(String);

impl TestTap {
    fn new(number: u8) -> Option<Self> {
        Self::with(number, &[])
    }

    fn multi_queue(number: u8) -> Option<Self> {
        Self::with(number, &["multi_queue"])
    }

    #[allow(clippy::print_stderr, reason = "says why it was skipped")]
    fn with(number: u8, more: &[&str]) -> Option<Self> {
        let name = format!("vmct{}n{number}", std::process::id() % 1_000_000);
        if ip(&[&["tuntap", "add", "dev", &name, "mode", "tap"], more].concat()) {
            return Some(Self(name));
        }
        eprintln!("skipped: no TAP device can be made here (it takes root, iproute2 and /dev/net/tun)");
        None
    }
}

impl Drop for TestTap {
    fn drop(&mut self) {
        ip(&["link", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

fn refusal(result: Result<Nic>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    error.to_string()
}

#[test]
fn a_missing_device_is_refused_and_not_made() {
    let message = refusal(Nic::tap("vmcell-missing"));
    assert!(message.contains("does not exist (make it with: ip tuntap add dev vmcell-missing mode tap)"), "{message}");
    assert!(refusal(Nic::tap("vmcell-missing")).contains("does not exist"));
}

#[test]
fn names_that_no_device_can_have_are_refused() {
    for name in ["", "sixteen-bytes-it", "a/b", "a\0b"] {
        assert_eq!(Nic::tap(name).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}

#[test]
fn a_device_of_another_kind_is_refused() {
    let message = refusal(Nic::tap("lo"));
    assert!(message.starts_with("TAP device lo ") || message.starts_with("cannot open /dev/net/tun"), "{message}");
}

#[test]
fn a_descriptor_of_something_else_is_refused() {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    assert!(refusal(Nic::from_fd(null.into())).contains("is not one of a TAP device"));
    if let Ok(tun) = File::options().read(true).write(true).open("/dev/net/tun") {
        assert!(refusal(Nic::from_fd(tun.into())).contains("is not one of a TAP device"));
    }
}

#[test]
fn a_device_is_used_by_one_at_a_time() {
    let Some(tap) = TestTap::new(0) else { return };
    let first = Nic::tap(&tap.0).unwrap();
    assert!(refusal(Nic::tap(&tap.0)).contains("is in use"));
    drop(first);
    let opened = retry(|| TapDevice::open(&tap.0)).attach_all(1).unwrap();
    let second = Nic::from_fd(opened[0].as_fd().try_clone_to_owned().unwrap()).unwrap();
    drop(opened);
    assert!(refusal(Nic::tap(&tap.0)).contains("is in use"));
    drop(second);
    retry(|| Nic::tap(&tap.0));
}

#[test]
fn a_device_with_one_queue_has_no_more() {
    let Some(tap) = TestTap::new(4) else { return };
    let nic = || retry(|| Nic::tap(&tap.0));
    let message = refusal(nic().queues(2).build().map(|_| unreachable!()));
    let expected = "has one queue, 2 were asked for (make it with: ip tuntap add dev";
    assert!(message.contains(expected) && message.ends_with("mode tap multi_queue)"), "{message}");
    assert_eq!(queue_count(nic().queues(1)), 3);
    assert_eq!(queue_count(nic().default_queues(4)), 3, "a default is no demand");
}

fn queue_count(nic: Nic) -> usize {
    nic.build().unwrap().info().queue_sizes.len()
}

#[test]
fn a_device_with_several_queues_has_as_many_as_are_asked_for() {
    let Some(tap) = TestTap::multi_queue(5) else { return };
    let nic = || retry(|| Nic::tap(&tap.0));
    assert_eq!(queue_count(nic()), 3);
    assert_eq!(queue_count(nic().default_queues(3)), 7);
    assert_eq!(queue_count(nic().default_queues(3).queues(2)), 5);
    assert_eq!(queue_count(nic().queues(16)), 33);
    for queues in [0, 17] {
        let error = nic().queues(queues).build().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
}

#[test]
fn a_device_with_several_queues_is_used_by_one_at_a_time_too() {
    let Some(tap) = TestTap::multi_queue(6) else { return };
    let first = retry(|| Nic::tap(&tap.0)).queues(2);
    assert!(refusal(Nic::tap(&tap.0)).contains("is in use by another process or VM"));
    let device = first.build().unwrap();
    assert!(refusal(Nic::tap(&tap.0)).contains("is in use by another process or VM"));
    drop(device);
    // Another program attaches before the card has all its queues.
    let device = retry(|| TapDevice::open(&tap.0));
    let other = device.attach_another().unwrap();
    let error = device.attach_all(2).unwrap_err();
    assert!(error.to_string().contains("is in use by another process or VM"), "{error}");
    drop(other);
    retry(|| Nic::tap(&tap.0)).build().unwrap();
}

#[test]
fn descriptors_of_one_device_make_a_card_with_a_pair_for_each() {
    let (Some(tap), Some(other)) = (TestTap::multi_queue(7), TestTap::new(8)) else { return };
    let queues = |tap: &TestTap, count| {
        let taps = retry(|| TapDevice::open(&tap.0)).attach_all(count).unwrap();
        taps.iter().map(|tap| tap.as_fd().try_clone_to_owned().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(queue_count(Nic::from_fds(queues(&tap, 3)).unwrap()), 7);
    let nic = |count| Nic::from_fds(queues(&tap, 3)).unwrap().queues(count).build();
    assert!(nic(3).is_ok());
    for count in [1, 2, 4, 17] {
        let error = nic(count).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    assert_eq!(Nic::from_fds([]).unwrap_err().kind(), ErrorKind::InvalidConfig);
    let mixed = queues(&tap, 1).into_iter().chain(queues(&other, 1));
    assert!(refusal(Nic::from_fds(mixed)).contains("are of different TAP devices"));
    // One queue twice: frames would come to either pair as it pleases the host.
    for queue in [queues(&tap, 2).remove(1), queues(&other, 1).remove(0)] {
        let copies = [queue.try_clone().unwrap(), queue];
        assert!(refusal(Nic::from_fds(copies)).contains("are copies of each other"));
    }
}

#[test]
fn settings_are_checked_when_the_vm_is_built() {
    let Some(tap) = TestTap::new(1) else { return };
    let nic = || retry(|| Nic::tap(&tap.0));
    assert_eq!(nic().mac([0xff; 6]).build().map(drop).unwrap_err().kind(), ErrorKind::InvalidConfig);
    assert_eq!(nic().mtu(67).build().map(drop).unwrap_err().kind(), ErrorKind::InvalidConfig);
    assert!(nic().mac([2, 0, 0, 0, 0, 1]).mtu(9000).build().is_ok());
}

#[test]
fn addresses_are_random_and_locally_administered() {
    let (one, two) = (random_mac().unwrap(), random_mac().unwrap());
    assert_ne!(one, two);
    assert_eq!((one[0], two[0]), (2, 2));
}

/// The kernel drops what it is sent for a moment after the device got its carrier, so it is sent again and again. It may send
/// frames of its own, too, for neighbour discovery.
fn wait_for_frame(driver: &MmioDriver, rx: &mut DriverQueue, memory: &GuestMemory, send: impl Fn()) -> Vec<u8> {
    let mut found = None;
    let mut polls = 0;
    driver.wait_until("the frame", || {
        if polls % 500 == 0 {
            send();
        }
        polls += 1;
        let Some((head, len)) = rx.take_used() else { return false };
        let mut frame = vec![0; len as usize];
        memory.read(GuestAddress(BUFFERS + u64::from(head) * 2048), &mut frame).unwrap();
        assert_eq!(frame[10..12], [1, 0], "one buffer");
        found = Some(frame).filter(|frame| frame.ends_with(b"to the guest"));
        found.is_some()
    });
    found.unwrap()
}

/// The same frame back, with the ends exchanged: that leaves every checksum as it is.
fn turned_round(frame: &[u8]) -> Vec<u8> {
    let mut back = frame.to_vec();
    back[12..18].copy_from_slice(&frame[18..24]);
    back[18..24].copy_from_slice(&frame[12..18]);
    let ip_header = 12 + 14;
    back[ip_header + 12..ip_header + 16].copy_from_slice(&frame[ip_header + 16..ip_header + 20]);
    back[ip_header + 16..ip_header + 20].copy_from_slice(&frame[ip_header + 12..ip_header + 16]);
    back[ip_header + 20..ip_header + 22].copy_from_slice(&frame[ip_header + 22..ip_header + 24]);
    back[ip_header + 22..ip_header + 24].copy_from_slice(&frame[ip_header + 20..ip_header + 22]);
    back
}

/// A device with an address and a neighbour, in front of a running card.
struct Connected {
    tap: TestTap,
    memory: GuestMemory,
    driver: MmioDriver,
    rx: DriverQueue,
    tx: DriverQueue,
    socket: UdpSocket,
    guest: String,
}

fn address(number: u8, host: u8) -> String {
    format!("198.18.{}.{host}", (std::process::id() + u32::from(number)) % 250)
}

fn configure(tap: &TestTap, number: u8) {
    let neighbour = ["neigh", "replace", &address(number, 2), "lladdr", "02:00:00:00:00:02", "dev", &tap.0];
    let made = ip(&["addr", "add", &format!("{}/24", address(number, 1)), "dev", &tap.0])
        && ip(&["link", "set", &tap.0, "up"])
        && ip(&neighbour);
    assert!(made, "the device cannot be configured");
}

fn connected(number: u8) -> Option<Connected> {
    let tap = TestTap::new(number)?;
    configure(&tap, number);

    let memory = patterned_memory(1 << 20);
    let device = Nic::tap(&tap.0).unwrap().mac([2, 0, 0, 0, 0, 2]).into_device().unwrap();
    let transport = MmioTransport::new(device, memory.clone(), &IoThread::new("test-io").unwrap()).unwrap();
    let driver = MmioDriver::new(transport);
    let (mut rx, tx) =
        (DriverQueue::new(&memory, GuestAddress(0x1000), 64), DriverQueue::new(&memory, GuestAddress(0x4000), 64));
    driver.bring_up(driver.offered() & (1 << VERSION_1 | 1 << RING_EVENT_IDX | 0xffff), &[&rx, &tx]);
    for index in 0..64 {
        rx.offer(&[Buffer::writable(BUFFERS + index * 2048, 2048)]);
    }
    driver.kick(0);
    let socket = UdpSocket::bind((address(number, 1), 0)).unwrap();
    socket.set_read_timeout(Some(MmioDriver::PATIENCE)).unwrap();
    Some(Connected { tap, memory, driver, rx, tx, socket, guest: address(number, 2) })
}

impl Connected {
    fn frame_from_the_host(&mut self) -> Vec<u8> {
        let Self { socket, guest, .. } = self;
        wait_for_frame(&self.driver, &mut self.rx, &self.memory, || {
            // Refused while the device is down.
            let _ = socket.send_to(b"to the guest", (guest.as_str(), 7));
        })
    }
}

#[test]
fn a_device_that_was_set_down_receives_again_when_it_is_up() {
    let Some(mut connected) = connected(3) else { return };
    connected.frame_from_the_host();
    for _ in 0..2 {
        assert!(ip(&["link", "set", &connected.tap.0, "down"]));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(ip(&["link", "set", &connected.tap.0, "up"]));
        let neighbour = ["neigh", "replace", &connected.guest, "lladdr", "02:00:00:00:00:02", "dev", &connected.tap.0];
        assert!(ip(&neighbour));
        connected.frame_from_the_host();
    }
}

#[test]
fn frames_go_through_a_real_device_both_ways() {
    let Some(mut connected) = connected(2) else { return };
    let frame = connected.frame_from_the_host();
    assert_eq!(frame[12..18], [2, 0, 0, 0, 0, 2]);

    let back = turned_round(&frame);
    let Connected { memory, driver, mut tx, socket, tap: _tap, .. } = connected;
    memory.write(GuestAddress(0x20000), &back).unwrap();
    tx.offer(&[Buffer::readable(0x20000, back.len() as u32)]);
    driver.kick(1);
    assert_eq!(driver.wait_used(&mut tx).1, 0);
    let mut bytes = [0; 64];
    let (len, from) = socket.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..len], from.port()), (&b"to the guest"[..], 7));
}

/// A driver with two pairs in front of a real device, on which the host sends from many sockets.
struct Pairs {
    io_thread: IoThread,
    driver: MmioDriver,
    memory: GuestMemory,
    queues: Vec<DriverQueue>,
    sockets: Vec<UdpSocket>,
    guest: String,
}

/// A buffer of a receive queue.
fn place(queue: usize, head: u32) -> u64 {
    BUFFERS + queue as u64 * 0x4_0000 + u64::from(head) * 2048
}

fn pairs(tap: &TestTap, number: u8) -> Pairs {
    configure(tap, number);
    let memory = patterned_memory(1 << 20);
    let device = Nic::tap(&tap.0).unwrap().queues(2).mac([2, 0, 0, 0, 0, 2]).into_device().unwrap();
    let io_thread = IoThread::new("test-io").unwrap();
    let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), &io_thread).unwrap());
    let lay_out = |index: u64| DriverQueue::new(&memory, GuestAddress(0x1_0000 + index * 0x1000), 64);
    let mut queues: Vec<_> = (0..5).map(lay_out).collect();
    let features = 1 << VERSION_1 | 1 << RING_EVENT_IDX | 1 << 15 | 1 << 17 | 1 << 22;
    driver.bring_up(features, &queues.iter().collect::<Vec<_>>());
    for queue in [0, 2] {
        (0..64).for_each(|head| _ = queues[queue].offer(&[Buffer::writable(place(queue, head), 2048)]));
        driver.kick(queue as u32);
    }
    let socket = |_| UdpSocket::bind((address(number, 1), 0)).unwrap();
    let sockets = (0..32).map(socket).collect();
    let mut pairs = Pairs { io_thread, driver, memory, queues, sockets, guest: address(number, 2) };
    pairs.use_pairs(2);
    pairs
}

impl Pairs {
    fn use_pairs(&mut self, count: u8) {
        self.memory.write(GuestAddress(0x8000), &[4, 0, count, 0]).unwrap();
        let control = &mut self.queues[4];
        control.offer(&[Buffer::readable(0x8000, 4), Buffer::writable(0x8010, 1)]);
        self.driver.kick(4);
        self.driver.wait_used(control);
        let mut answer = [9];
        self.memory.read(GuestAddress(0x8010), &mut answer).unwrap();
        assert_eq!(answer, [0]);
    }

    fn send_from(&self, sockets: std::ops::Range<usize>) {
        for socket in &self.sockets[sockets] {
            let _ = socket.send_to(b"to the guest", (self.guest.as_str(), 7));
        }
    }

    /// Takes the host's datagrams off the pairs, gives the buffers back, and says from which sockets they came.
    fn take(&mut self) -> [Vec<(u16, Vec<u8>)>; 2] {
        [0, 2].map(|queue| {
            let mut taken = Vec::new();
            while let Some((head, len)) = self.queues[queue].take_used() {
                let mut frame = vec![0; len as usize];
                self.memory.read(GuestAddress(place(queue, head)), &mut frame).unwrap();
                self.queues[queue].offer(&[Buffer::writable(place(queue, head), 2048)]);
                self.driver.kick(queue as u32);
                if frame.ends_with(b"to the guest") {
                    taken.push((u16::from_be_bytes([frame[46], frame[47]]), frame));
                }
            }
            taken
        })
    }

    /// Takes all that is on its way.
    fn drain(&mut self) {
        while {
            std::thread::sleep(std::time::Duration::from_millis(50));
            self.take().iter().any(|flows| !flows.is_empty())
        } {}
    }

    /// Has the host send until `enough` is content with the flows that came on each pair, by port and last frame.
    fn flows(&mut self, mut enough: impl FnMut(&[Vec<(u16, Vec<u8>)>; 2]) -> bool) -> [Vec<(u16, Vec<u8>)>; 2] {
        let mut seen: [Vec<(u16, Vec<u8>)>; 2] = Default::default();
        let begun = std::time::Instant::now();
        while !enough(&seen) {
            assert!(begun.elapsed() < MmioDriver::PATIENCE, "{:?} frames came", seen.map(|flows| flows.len()));
            // Fewer than a queue has buffers, again and again: the device loses some at first.
            self.send_from(0..32);
            std::thread::sleep(std::time::Duration::from_millis(20));
            for (seen, new) in seen.iter_mut().zip(self.take()) {
                seen.extend(new);
            }
        }
        seen
    }
}

#[test]
fn the_flows_of_a_real_device_spread_over_its_queues_and_come_where_the_guest_sends_them() {
    let Some(tap) = TestTap::multi_queue(9) else { return };
    let mut pairs = pairs(&tap, 9);
    let [first, second] = pairs.flows(|[first, second]| !first.is_empty() && second.len() > 2);
    // The guest answers on the first pair a flow that came on the second: from then on it comes on the first.
    let (port, frame) = second.last().unwrap().clone();
    assert!(first.iter().all(|(other, _)| *other != port), "a flow comes on one queue");
    let at = 0x3_0000;
    pairs.memory.write(GuestAddress(at), &turned_round(&frame)).unwrap();
    pairs.queues[1].offer(&[Buffer::readable(at, frame.len() as u32)]);
    pairs.driver.kick(1);
    pairs.driver.wait_used(&mut pairs.queues[1]);
    pairs.drain();
    let [_, second] = pairs.flows(|[first, _]| first.iter().any(|(other, _)| *other == port));
    assert!(second.iter().all(|(other, _)| *other != port));
    // A guest that uses one pair gets what the host's kernel puts into either queue.
    pairs.use_pairs(1);
    pairs.drain();
    let ports: std::collections::HashSet<u16> =
        pairs.sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    let all = |flows: &[Vec<(u16, Vec<u8>)>; 2]| ports.iter().all(|port| flows[0].iter().any(|(from, _)| from == port));
    assert!(pairs.flows(all)[1].is_empty());
}

#[test]
fn a_device_with_several_queues_that_is_deleted_costs_no_cpu_and_the_card_ends_in_time() {
    let Some(tap) = TestTap::multi_queue(10) else { return };
    let mut pairs = pairs(&tap, 10);
    assert!(ip(&["link", "del", &tap.0]));
    let used = |pairs: &mut Pairs, queue: usize| {
        pairs.queues[queue].offer(&[Buffer::readable(0x3_0000, 100)]);
        pairs.driver.kick(queue as u32);
        pairs.driver.wait_used(&mut pairs.queues[queue]).1
    };
    pairs.memory.write(GuestAddress(0x3_0000), &[0; 100]).unwrap();
    // What the guest sends is lost, and does not stay with the card.
    assert_eq!([1, 3, 1, 3].map(|queue| used(&mut pairs, queue)), [0; 4]);
    let cpu_time = |pairs: &Pairs| pairs.io_thread.metrics().cpu_time;
    let (before, begun) = (cpu_time(&pairs), std::time::Instant::now());
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (spent, passed) = (cpu_time(&pairs) - before, begun.elapsed());
    assert!(spent < passed / 10, "{spent:?} of CPU time in {passed:?}");
    pairs.use_pairs(1);
    pairs.driver.transport().pause(MmioDriver::PATIENCE).unwrap();
    pairs.driver.transport().resume();
    let begun = std::time::Instant::now();
    drop(pairs);
    assert!(begun.elapsed() < MmioDriver::PATIENCE / 2);
}
