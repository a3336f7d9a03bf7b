//! The metadata service on a card, by frames: what reaches the network below, and what the guest gets.

#[path = "support/broken_nic.rs"]
mod broken_nic;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use broken_nic::{Fault, SocketNic};
use vmcell::net::NicBackend;
use vmcell::testing::{NicConformance, NicDriver, Wire};
use vmcell::{IoThread, Metadata, Nic};

const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a frame to come that should not.
const MOMENT: Duration = Duration::from_millis(50);

const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 9];
const SERVICE: [u8; 4] = [169, 254, 169, 254];
const OWN: [u8; 4] = [10, 0, 0, 2];

const FIN: u8 = 1;
const SYN: u8 = 2;
const PUSH: u8 = 8;
const ACK: u8 = 16;

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

fn metadata() -> Metadata {
    let metadata = Metadata::new().needs_token(false);
    metadata.set(r#"{"a":"hello"}"#).unwrap();
    metadata
}

#[test]
fn a_card_with_the_service_keeps_all_rules_for_cards() {
    NicConformance::new(|| {
        let (near, far) = UnixDatagram::pair().unwrap();
        (Nic::backend(SocketNic::new(near, Fault::None)).metadata(&metadata()), Box::new(Socket(far)))
    })
    .run();
}

#[test]
fn a_card_with_the_service_on_two_cards_of_a_wire_keeps_all_rules_for_cards() {
    NicConformance::of_pairs(|| {
        let (one, other) = UnixDatagram::pair().unwrap();
        let nic = |socket| Nic::backend(SocketNic::new(socket, Fault::None)).metadata(&metadata());
        (nic(one), nic(other))
    })
    .largest_frame(1514)
    .run();
}

/// A guest whose card has a pair of queues for each of its wires.
struct Rig {
    guest: NicDriver,
    wires: Vec<Socket>,
    /// Where the guest's next byte stands, and the service's.
    ours: u32,
    theirs: u32,
    port: u16,
    /// Leaves checksums undone.
    partial: bool,
}

impl Rig {
    fn new(metadata: &Metadata, pairs: usize) -> Self {
        let mut backends = Vec::new();
        let mut wires = Vec::new();
        for _ in 0..pairs {
            let (near, far) = UnixDatagram::pair().unwrap();
            backends.push(Box::new(SocketNic::new(near, Fault::None)) as Box<dyn NicBackend>);
            wires.push(Socket(far));
        }
        let nic = Nic::backends(backends).metadata(metadata);
        let mut guest = NicDriver::new(nic, &IoThread::new("metadata").unwrap()).unwrap();
        if pairs > 1 {
            guest.restart_with_pairs();
            assert!(guest.use_pairs(pairs as u16));
        }
        guest.fill();
        Self { guest, wires, ours: 1000, theirs: 0, port: 40_000, partial: false }
    }

    fn send(&mut self, pair: usize, frame: &[u8]) {
        let mut packet = vec![0; 12];
        if self.partial {
            // The checksum is behind 16 bytes of TCP's header, which begins behind those of Ethernet and IP.
            packet[..10].copy_from_slice(&[1, 0, 0, 0, 0, 0, 34, 0, 16, 0]);
        }
        packet.extend(frame);
        assert!(self.guest.send_on(pair, &packet));
    }

    /// A TCP segment to the service; its checksum is wrong, as one that is left undone is.
    fn segment(&mut self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = [[0xff; 6], GUEST].concat();
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((40 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend([OWN, SERVICE].concat());
        frame.extend(self.port.to_be_bytes());
        frame.extend(80u16.to_be_bytes());
        frame.extend(self.ours.to_be_bytes());
        frame.extend(self.theirs.to_be_bytes());
        frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend(payload);
        self.ours += payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        frame
    }

    /// The flags and the payload of the service's next segment on this connection, whose checksums are right.
    fn hear(&mut self) -> (u8, Vec<u8>) {
        let port = self.port.to_be_bytes();
        let mut packets = std::iter::from_fn(|| self.guest.receive(PATIENCE));
        // What is still said of the connection before does not matter.
        let packet = packets.find(|packet| packet[12 + 36..][..2] == port).expect("the service says something");
        let frame = &packet[12..];
        assert_eq!((&frame[..6], &frame[12..14], &frame[26..30]), (&GUEST[..], &[8, 0][..], &SERVICE[..]));
        let len = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let segment = &frame[34..14 + len];
        assert_eq!(sum(&frame[14..34], 0), 0xffff);
        assert_eq!(sum(segment, pseudo_header(&frame[26..34], segment.len())), 0xffff);
        let payload = segment[usize::from(segment[12] >> 4) * 4..].to_vec();
        let flags = segment[13];
        let begun = u32::from_be_bytes(segment[4..8].try_into().unwrap());
        self.theirs = begun + payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        (flags, payload)
    }

    /// Opens a connection and asks for what the document has, by segments that go to each pair in turn.
    fn ask(&mut self) -> String {
        let pairs = self.wires.len();
        let syn = self.segment(SYN, &[]);
        self.send(0, &syn);
        assert_eq!(self.hear().0 & (SYN | ACK), SYN | ACK);
        let ack = self.segment(ACK, &[]);
        self.send(1 % pairs, &ack);
        let request = self.segment(ACK | PUSH, b"GET /a HTTP/1.1\r\n");
        self.send(2 % pairs, &request);
        let request = self.segment(ACK | PUSH, b"Connection: close\r\n\r\n");
        self.send(3 % pairs, &request);
        let mut heard = Vec::new();
        loop {
            let (flags, payload) = self.hear();
            heard.extend(payload);
            if flags & FIN != 0 {
                break;
            }
        }
        let fin = self.segment(ACK | FIN, &[]);
        self.send(0, &fin);
        String::from_utf8(heard).unwrap()
    }

    fn network_is_silent(&mut self) -> bool {
        self.wires.iter_mut().all(|wire| wire.receive(MOMENT).is_none())
    }
}

/// The ones' complement sum of 16-bit words.
fn sum(bytes: &[u8], begin: u32) -> u32 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum = words.fold(begin, |sum, word| sum + word);
    (sum & 0xffff) + (sum >> 16)
}

fn pseudo_header(addresses: &[u8], len: usize) -> u32 {
    sum(addresses, 6 + len as u32)
}

#[test]
fn a_guest_reads_its_metadata_and_the_network_sees_nothing_of_it() {
    let metadata = metadata();
    let mut rig = Rig::new(&metadata, 1);
    let answer = rig.ask();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    metadata.patch(r#"{"a":"bye"}"#).unwrap();
    rig.port += 1;
    assert!(rig.ask().ends_with("\r\n\r\nbye"));
    assert!(rig.network_is_silent());
}

#[test]
fn the_segments_of_a_connection_may_take_any_pair_of_queues() {
    let mut rig = Rig::new(&metadata(), 3);
    for _ in 0..3 {
        rig.port += 1;
        assert!(rig.ask().ends_with("\r\n\r\nhello"));
    }
    assert!(rig.network_is_silent());
}

#[test]
fn checksums_may_be_left_undone() {
    let metadata = metadata();
    let mut rig = Rig::new(&metadata, 1);
    rig.guest.restart(true, true);
    rig.guest.fill();
    rig.partial = true;
    assert!(rig.ask().ends_with("\r\n\r\nhello"));
    assert!(rig.network_is_silent());
}

#[test]
fn a_driver_that_begins_anew_finds_the_service_anew() {
    let mut rig = Rig::new(&metadata(), 1);
    let syn = rig.segment(SYN, &[]);
    rig.send(0, &syn);
    rig.hear();
    rig.guest.restart(false, false);
    rig.guest.fill();
    rig.port += 1;
    assert!(rig.ask().ends_with("\r\n\r\nhello"));
}

/// An ARP request for an address.
fn arp(operation: u8, target: [u8; 4]) -> Vec<u8> {
    let mut frame = [[0xff; 6], GUEST].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(GUEST);
    frame.extend(OWN);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

/// A UDP packet, with a tag of a virtual network or without.
fn udp(to: [u8; 4], tag: &[u8]) -> Vec<u8> {
    let mut frame = [[0xff; 6], GUEST].concat();
    frame.extend(tag);
    frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend([OWN, to].concat());
    frame.extend([0, 7, 0, 7, 0, 8, 0, 0]);
    frame
}

#[test]
fn only_what_is_for_the_service_is_taken_and_the_rest_passes_in_order() {
    let mut rig = Rig::new(&metadata(), 1);
    let mut short = [[0xff; 6], GUEST].concat();
    short.extend([8, 0]);
    let mut cut = udp(SERVICE, &[]);
    cut.truncate(33);
    // One byte less would have been the service's.
    let passing = [
        udp([169, 254, 169, 253], &[]),
        arp(1, [169, 254, 169, 253]),
        arp(2, SERVICE),
        udp(SERVICE, &[0x81, 0, 0, 5]),
        short,
        cut,
        udp(OWN, &[]),
        vec![0x66; 1514],
    ];
    for (index, frame) in passing.iter().enumerate() {
        rig.send(0, frame);
        rig.send(0, &if index % 2 == 0 { udp(SERVICE, &[]) } else { arp(1, SERVICE) });
    }
    for frame in &passing {
        let packet = rig.wires[0].receive(PATIENCE).expect("a frame passes");
        assert_eq!(packet[packet.len() - frame.len()..], frame[..]);
    }
    assert!(rig.network_is_silent());
    // The guest is told that there is no UDP, and who has the address.
    let answers: Vec<_> = (0..8).map(|_| rig.guest.receive(PATIENCE).expect("an answer")).collect();
    assert_eq!(answers.iter().filter(|packet| packet[24..26] == [8, 6]).count(), 4);
    assert!(rig.guest.receive(MOMENT).is_none());
}

#[test]
fn nothing_from_the_network_reaches_the_service() {
    let mut rig = Rig::new(&metadata(), 1);
    let syn = rig.segment(SYN, &[]);
    let frames = [arp(1, SERVICE), syn, udp(SERVICE, &[])];
    for frame in &frames {
        let packet = [&[0; 12][..], frame].concat();
        assert!(rig.wires[0].send(&packet));
        let received = rig.guest.receive(PATIENCE).expect("the guest gets the frame");
        assert_eq!(received[12..], frame[..]);
    }
    assert!(rig.network_is_silent());
    assert!(rig.guest.receive(MOMENT).is_none());
}

#[test]
fn frames_that_are_longer_than_any_client_sends_are_lost_and_the_next_is_answered() {
    let mut rig = Rig::new(&metadata(), 1);
    let mut long = udp(SERVICE, &[]);
    long.resize(65_000, 0);
    for _ in 0..10 {
        rig.send(0, &long);
        assert!(rig.guest.all_sent(PATIENCE));
    }
    assert!(rig.ask().ends_with("\r\n\r\nhello"));
    assert!(rig.network_is_silent());
}

#[test]
fn a_flood_for_the_service_holds_up_no_other_frame() {
    let mut rig = Rig::new(&metadata(), 1);
    let other = udp(OWN, &[]);
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < Duration::from_millis(300) {
        rig.port += 1;
        let syn = rig.segment(SYN, &[]);
        let packet = [&[0; 12][..], &syn].concat();
        let _ = rig.guest.send(&packet);
        let packet = [&[0; 12][..], &other].concat();
        if rig.guest.send(&packet) {
            sent += 1;
            let received = rig.wires[0].receive(PATIENCE).expect("the other frame passes");
            assert_eq!(received[received.len() - other.len()..], other[..]);
        }
    }
    assert!(sent > 0 && rig.network_is_silent());
}
