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
    #[allow(clippy::print_stderr, reason = "says why it was skipped")]
    fn new(number: u8) -> Option<Self> {
        let name = format!("vmct{}n{number}", std::process::id() % 1_000_000);
        if ip(&["tuntap", "add", "dev", &name, "mode", "tap"]) {
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
    let opened = retry(|| Tap::open(&tap.0));
    let second = Nic::from_fd(opened.as_fd().try_clone_to_owned().unwrap()).unwrap();
    drop(opened);
    assert!(refusal(Nic::tap(&tap.0)).contains("is in use"));
    drop(second);
    retry(|| Nic::tap(&tap.0));
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

fn connected(number: u8) -> Option<Connected> {
    let tap = TestTap::new(number)?;
    let address = |host: u8| format!("198.18.{}.{host}", (std::process::id() + u32::from(number)) % 250);
    let up = || {
        ip(&["link", "set", &tap.0, "up"])
            && ip(&["neigh", "replace", &address(2), "lladdr", "02:00:00:00:00:02", "dev", &tap.0])
    };
    let made = ip(&["addr", "add", &format!("{}/24", address(1)), "dev", &tap.0]) && up();
    assert!(made, "the device cannot be configured");

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
    let socket = UdpSocket::bind((address(1), 0)).unwrap();
    socket.set_read_timeout(Some(MmioDriver::PATIENCE)).unwrap();
    Some(Connected { tap, memory, driver, rx, tx, socket, guest: address(2) })
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

    // The same frame back, with the ends exchanged: that leaves every checksum as it is.
    let mut back = frame.clone();
    back[12..18].copy_from_slice(&frame[18..24]);
    back[18..24].copy_from_slice(&frame[12..18]);
    let ip_header = 12 + 14;
    back[ip_header + 12..ip_header + 16].copy_from_slice(&frame[ip_header + 16..ip_header + 20]);
    back[ip_header + 16..ip_header + 20].copy_from_slice(&frame[ip_header + 12..ip_header + 16]);
    back[ip_header + 20..ip_header + 22].copy_from_slice(&frame[ip_header + 22..ip_header + 24]);
    back[ip_header + 22..ip_header + 24].copy_from_slice(&frame[ip_header + 20..ip_header + 22]);
    let Connected { memory, driver, mut tx, socket, tap: _tap, .. } = connected;
    memory.write(GuestAddress(0x20000), &back).unwrap();
    tx.offer(&[Buffer::readable(0x20000, back.len() as u32)]);
    driver.kick(1);
    assert_eq!(driver.wait_used(&mut tx).1, 0);
    let mut bytes = [0; 64];
    let (len, from) = socket.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..len], from.port()), (&b"to the guest"[..], 7));
}
