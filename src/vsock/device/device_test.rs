//! A driver in the same process, and both sides of connections.

use std::io::{ErrorKind as IoError, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use super::super::connection::ROOM;
use super::super::packet::{HEADER_LEN, HOST_CID, Header, STREAM, ends, op};
use super::*;
use crate::event::IoThread;
use crate::memory::{GuestAddress, GuestMemory};
use crate::testing::{Buffer, Conformance, DriverQueue, MmioDriver, patterned_memory};
use crate::virtio::spec::mmio;
use crate::virtio::{MmioTransport, TransportState};

const CID: u64 = 7;
const MEMORY: u64 = 8 << 20;
const RINGS: [u64; 3] = [0x1000, 0x4000, 0x7000];
/// Where packets of the guest are, each in a slot of its own, and buffers for those to it.
const SENT: u64 = 0x10_0000;
const BUFFERS: u64 = 0x40_0000;
const BUFFER_LEN: u32 = 4096 + HEADER_LEN;
const SLOT: u64 = 0x1_1000;
const SLOTS: u64 = 32;
/// What the guest says that it has room for.
const GUEST_ROOM: u32 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(10);

struct Rig {
    driver: MmioDriver,
    rx: DriverQueue,
    tx: DriverQueue,
    events: DriverQueue,
    memory: GuestMemory,
    vsock: VsockHandle,
    thread: IoThread,
    next_slot: u64,
    offered: u64,
    /// How many bytes the guest has read, which it tells with each packet.
    consumed: u32,
    room: u32,
}

impl Rig {
    fn new() -> Self {
        Self::with(VsockConfig::new(CID), None)
    }

    fn with(config: VsockConfig, state: Option<&TransportState>) -> Self {
        let (device, memory) = (Vsock::open(&config).unwrap(), patterned_memory(MEMORY));
        let thread = IoThread::new("vsock").unwrap();
        let vsock = device.handle();
        let [rx, tx, events] = RINGS
            .map(GuestAddress)
            .map(|base| DriverQueue::new(&memory, base, if base.0 == RINGS[2] { 16 } else { 256 }));
        let transport = match state {
            None => MmioTransport::new(Box::new(device), memory.clone(), &thread),
            Some(state) => MmioTransport::restore(Box::new(device), memory.clone(), &thread, state),
        };
        let driver = MmioDriver::new(transport.unwrap());
        if state.is_none() {
            driver.bring_up(driver.offered(), &[&rx, &tx, &events]);
        }
        let (next_slot, offered, consumed, room) = (0, 0, 0, GUEST_ROOM);
        let mut rig = Self { driver, rx, tx, events, memory, vsock, thread, next_slot, offered, consumed, room };
        rig.offer_buffers(64);
        rig
    }

    /// After a reset.
    fn restart(&mut self) {
        let [rx, tx, events] = RINGS
            .map(GuestAddress)
            .map(|base| DriverQueue::new(&self.memory, base, if base.0 == RINGS[2] { 16 } else { 256 }));
        self.driver.bring_up(self.driver.offered(), &[&rx, &tx, &events]);
        (self.rx, self.tx, self.events, self.offered) = (rx, tx, events, 0);
        self.offer_buffers(64);
    }

    fn offer_buffers(&mut self, count: u64) {
        for _ in 0..count {
            let at = BUFFERS + self.offered % 128 * u64::from(BUFFER_LEN);
            self.rx.offer(&[Buffer::writable(at, BUFFER_LEN)]);
            self.offered += 1;
        }
        self.driver.kick(0);
    }

    fn header(&self, ports: Ports, op: u16) -> Header {
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: ports.guest,
            dst_port: ports.host,
            kind: STREAM,
            op,
            buf_alloc: self.room,
            fwd_cnt: self.consumed,
            ..Header::default()
        }
    }

    /// Sends a packet, and waits until the device has taken it.
    fn send_raw(&mut self, header: Header, data: &[u8]) {
        let at = SENT + self.next_slot % SLOTS * SLOT;
        self.next_slot += 1;
        self.memory.write(GuestAddress(at), &header.to_bytes()).unwrap();
        self.memory.write(GuestAddress(at + 44), data).unwrap();
        let len = u32::try_from(data.len()).unwrap();
        if data.is_empty() {
            self.tx.offer(&[Buffer::readable(at, HEADER_LEN)]);
        } else {
            self.tx.offer(&[Buffer::readable(at, HEADER_LEN), Buffer::readable(at + 44, len)]);
        }
        self.driver.kick(1);
        assert_eq!(self.driver.wait_used(&mut self.tx).1, 0);
    }

    fn send(&mut self, ports: Ports, op: u16) {
        self.send_raw(self.header(ports, op), &[]);
    }

    fn send_data(&mut self, ports: Ports, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap();
        self.send_raw(Header { len, ..self.header(ports, op::RW) }, data);
    }

    fn shut(&mut self, ports: Ports, flags: u32) {
        self.send_raw(Header { flags, ..self.header(ports, op::SHUTDOWN) }, &[]);
    }

    /// The next packet to the guest, whose program reads its data at once.
    fn packet(&mut self) -> (Header, Vec<u8>) {
        let at = BUFFERS + (self.offered - 64) % 128 * u64::from(BUFFER_LEN);
        let (_, written) = self.driver.wait_used(&mut self.rx);
        self.offer_buffers(1);
        let mut bytes = vec![0; written as usize];
        self.memory.read(GuestAddress(at), &mut bytes).unwrap();
        let header = Header::from_bytes(bytes.first_chunk().unwrap());
        let data = bytes.split_off(44);
        assert_eq!((header.src_cid, header.dst_cid, header.kind), (HOST_CID, CID, STREAM));
        assert_eq!(header.len as usize, data.len());
        self.consumed = self.consumed.wrapping_add(header.len);
        (header, data)
    }

    fn expect(&mut self, ports: Ports, op: u16) -> Header {
        let (header, _) = self.packet();
        let seen = Ports { host: header.src_port, guest: header.dst_port };
        assert_eq!((seen, header.op), (ports, op), "{header:?}");
        header
    }

    fn expect_nothing(&mut self) {
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(self.rx.take_used(), None);
    }

    /// Reads from the guest's end until there are so many bytes.
    fn read_in_guest(&mut self, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < len {
            let (header, data) = self.packet();
            assert_eq!(header.op, op::RW, "{header:?}");
            all.extend(data);
        }
        all
    }

    /// Sends pieces until there is no room for another one, and says how many bytes these were.
    fn send_all_it_may(&mut self, ports: Ports, piece: &[u8]) -> u32 {
        let len = u32::try_from(piece.len()).unwrap();
        let (mut sent, mut forwarded) = (0u32, 0);
        loop {
            while sent - forwarded + len <= ROOM {
                self.send_data(ports, piece);
                sent += len;
            }
            let known = forwarded;
            self.send(ports, op::CREDIT_REQUEST);
            forwarded = self.packet().0.fwd_cnt;
            std::thread::sleep(Duration::from_millis(5));
            while self.rx.used_index() != (self.offered - 64) as u16 {
                forwarded = self.packet().0.fwd_cnt;
            }
            if forwarded == known {
                return sent;
            }
        }
    }

    /// A connection that the host program asked for.
    fn connected(&mut self, guest: u32) -> (UnixStream, Ports) {
        let stream = self.vsock.connect(guest).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let (header, _) = self.packet();
        assert_eq!((header.op, header.dst_port, header.buf_alloc), (op::REQUEST, guest, ROOM));
        let ports = Ports { host: header.src_port, guest };
        self.consumed = 0;
        self.send(ports, op::RESPONSE);
        (stream, ports)
    }

    fn count(&self, name: &str) -> u64 {
        self.driver.transport().own_counters()[name]
    }

    fn wait_for(&self, name: &str, count: u64) {
        self.driver.wait_until(name, || self.count(name) >= count);
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 % 251) as u8).collect()
}

fn is_closed(mut stream: &UnixStream) -> bool {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => true,
        Ok(_) => false,
        Err(e) => e.kind() == IoError::ConnectionReset,
    }
}

const GUEST: Ports = Ports { host: 80, guest: 1234 };

#[test]
fn the_guest_reads_its_context_id() {
    let rig = Rig::new();
    assert_eq!((rig.driver.read(mmio::CONFIG), rig.driver.read(mmio::CONFIG + 4)), (7, 0));
}

#[test]
fn the_host_program_connects_and_both_sides_talk_and_close() {
    let mut rig = Rig::new();
    let (mut stream, ports) = rig.connected(52);
    stream.write_all(b"from the host").unwrap();
    assert_eq!(rig.read_in_guest(13), b"from the host");
    rig.send_data(ports, b"from the guest");
    let mut buffer = [0; 14];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"from the guest");
    drop(stream);
    assert_eq!(rig.expect(ports, op::SHUTDOWN).flags & ends::RECEIVES, ends::RECEIVES);
    assert_eq!(rig.expect(ports, op::SHUTDOWN).flags, ends::BOTH);
    rig.send(ports, op::RST);
    // It is unknown now.
    rig.send_data(ports, b"late");
    rig.expect(ports, op::RST);
}

#[test]
fn a_connection_that_the_guest_refuses_is_an_error_and_closes_its_stream() {
    let mut rig = Rig::new();
    let handle = rig.vsock.clone();
    let waiting = std::thread::spawn(move || handle.connect_timeout(99, LIMIT));
    let (header, _) = rig.packet();
    rig.send(Ports { host: header.src_port, guest: 99 }, op::RST);
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Vsock);
    assert_eq!(error.to_string(), "the guest refuses connections to its port 99");
    let stream = rig.vsock.connect(99).unwrap();
    let (header, _) = rig.packet();
    rig.send(Ports { host: header.src_port, guest: 99 }, op::RST);
    assert!(is_closed(&stream));
    let error = rig.vsock.connect_timeout(99, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.to_string(), "the guest did not accept a connection to port 99 within 50 ms");
}

#[test]
fn what_is_written_before_the_guest_accepts_reaches_it_even_if_the_writer_is_gone() {
    let mut rig = Rig::new();
    let mut stream = rig.vsock.connect(52).unwrap();
    stream.write_all(b"and gone").unwrap();
    drop(stream);
    let ports = Ports { host: rig.packet().0.src_port, guest: 52 };
    rig.send(ports, op::RESPONSE);
    let mut all = Vec::new();
    while let (header, data) = rig.packet()
        && header.flags != ends::BOTH
    {
        all.extend(data);
    }
    assert_eq!(all, b"and gone");
    // One that has written nothing is taken back.
    drop(rig.vsock.connect(53).unwrap());
    let (header, _) = rig.packet();
    let ports = Ports { host: header.src_port, guest: 53 };
    assert_eq!(header.op, op::REQUEST);
    rig.expect(ports, op::RST);
}

#[test]
fn the_guest_connects_to_a_listener_and_to_no_other_port() {
    let mut rig = Rig::new();
    let listener = rig.vsock.listen(80).unwrap();
    assert_eq!(rig.vsock.listen(80).unwrap_err().kind(), ErrorKind::Vsock);
    assert_eq!(listener.accept_timeout(Duration::ZERO).unwrap_err().kind(), ErrorKind::Timeout);
    rig.send(GUEST, op::REQUEST);
    assert_eq!(rig.expect(GUEST, op::RESPONSE).buf_alloc, ROOM);
    rig.send_data(GUEST, b"hello");
    let (mut stream, port) = listener.accept().unwrap();
    assert_eq!(port, 1234);
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
    let other = Ports { host: 81, ..GUEST };
    rig.send(other, op::REQUEST);
    rig.expect(other, op::RST);
    drop(listener);
    let next = Ports { guest: 1235, ..GUEST };
    rig.send(next, op::REQUEST);
    rig.expect(next, op::RST);
    rig.vsock.listen(80).unwrap();
}

#[test]
fn other_programs_connect_by_the_unix_socket_and_are_connected_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.vsock");
    let mut rig = Rig::with(VsockConfig::new(CID).unix_path(&path), None);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"CONN").unwrap();
    client.write_all(b"ECT 52\nand more").unwrap();
    let (header, _) = rig.packet();
    let ports = Ports { host: header.src_port, guest: 52 };
    assert_eq!((header.op, header.dst_port), (op::REQUEST, 52));
    rig.send(ports, op::RESPONSE);
    let mut line = vec![0; format!("OK {}\n", ports.host).len()];
    client.read_exact(&mut line).unwrap();
    assert_eq!(line, format!("OK {}\n", ports.host).as_bytes());
    assert_eq!(rig.read_in_guest(8), b"and more");

    rig.send(GUEST, op::REQUEST);
    rig.expect(GUEST, op::RST);
    let listener = UnixListener::bind(folder.path().join("guest.vsock_80")).unwrap();
    rig.send(GUEST, op::REQUEST);
    rig.expect(GUEST, op::RESPONSE);
    let (mut stream, _) = listener.accept().unwrap();
    rig.send_data(GUEST, b"hello");
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");

    let mut rude = UnixStream::connect(&path).unwrap();
    rude.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert!(is_closed(&rude));
    drop(rig);
    assert!(!path.exists());
    assert!(is_closed(&client));
}

#[test]
fn a_reader_that_never_reads_holds_up_its_own_connection_alone() {
    let mut rig = Rig::new();
    let (lazy, lazy_ports) = rig.connected(1);
    let (mut busy, busy_ports) = rig.connected(2);
    let piece = bytes(ROOM as usize / 4);
    let stuck = rig.send_all_it_may(lazy_ports, &piece);
    assert!(stuck > ROOM, "the stream holds something, too");
    for round in 0..20 {
        rig.send_data(busy_ports, &[round; 100]);
        let mut buffer = [0; 100];
        busy.read_exact(&mut buffer).unwrap();
        assert_eq!(buffer, [round; 100]);
    }
    // Nothing is lost: it comes once it is read.
    let mut all = vec![0; stuck as usize];
    (&lazy).read_exact(&mut all).unwrap();
    assert!(all.chunks(piece.len()).all(|chunk| chunk == piece));
}

#[test]
fn a_guest_that_sends_more_than_it_may_is_reset() {
    let mut rig = Rig::new();
    let (stream, ports) = rig.connected(1);
    let piece = bytes(ROOM as usize);
    rig.send_data(ports, &piece);
    rig.expect(ports, op::CREDIT_UPDATE);
    let too_much = bytes(ROOM as usize + 1);
    rig.send_data(ports, &too_much);
    rig.expect(ports, op::RST);
    let mut all = Vec::new();
    let _ = (&stream).read_to_end(&mut all);
    assert_eq!(all, piece);
    assert_eq!(rig.count("resets"), 1);
}

#[test]
fn the_guest_gets_no_more_than_it_has_room_for() {
    let mut rig = Rig::new();
    rig.room = 1000;
    let (mut stream, ports) = rig.connected(1);
    stream.write_all(&bytes(2500)).unwrap();
    rig.consumed = 0;
    let mut all = Vec::new();
    while all.len() < 1000 {
        let (header, data) = rig.packet();
        assert_eq!(header.op, op::RW);
        all.extend(data);
    }
    assert_eq!(all.len(), 1000);
    rig.expect(ports, op::CREDIT_REQUEST);
    rig.expect_nothing();
    rig.consumed = 600;
    rig.send(ports, op::CREDIT_UPDATE);
    let (_, data) = rig.packet();
    assert_eq!(data.len(), 600);
    rig.consumed = 1600;
    rig.room = 1 << 20;
    rig.send(ports, op::CREDIT_UPDATE);
    all.extend(data);
    // The packet before the update asked for more.
    while all.len() < 2500 {
        all.extend(rig.packet().1);
    }
    assert_eq!(all, bytes(2500));
}

#[test]
fn either_side_closes_its_half_and_still_gets_the_other() {
    let mut rig = Rig::new();
    let (mut stream, ports) = rig.connected(1);
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.read_in_guest(8), b"question");
    assert_eq!(rig.expect(ports, op::SHUTDOWN).flags, ends::SENDS);
    rig.send_data(ports, b"answer");
    rig.shut(ports, ends::BOTH);
    rig.expect(ports, op::RST);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");

    let (mut stream, ports) = rig.connected(2);
    rig.send_data(ports, b"question");
    rig.shut(ports, ends::SENDS);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "question");
    stream.write_all(b"answer").unwrap();
    assert_eq!(rig.read_in_guest(6), b"answer");
    rig.send_data(ports, b"more");
    rig.expect(ports, op::RST);
}

#[test]
fn what_a_guest_sent_before_it_closed_waits_for_a_slow_reader() {
    let mut rig = Rig::new();
    let (mut stream, ports) = rig.connected(1);
    let sent = rig.send_all_it_may(ports, &bytes(4096));
    rig.shut(ports, ends::BOTH);
    rig.expect(ports, op::RST);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), sent as usize);
    assert!(all.chunks(4096).all(|chunk| chunk == bytes(4096)));
}

#[test]
fn packets_that_must_not_be_are_answered_by_a_reset_or_dropped() {
    let mut rig = Rig::new();
    let listener = rig.vsock.listen(80).unwrap();
    let header = rig.header(GUEST, op::REQUEST);
    // From somebody else.
    rig.send_raw(Header { src_cid: CID + 1, ..header }, &[]);
    rig.expect_nothing();
    // Of another type, of no operation, and to nobody.
    for wrong in [Header { kind: 2, ..header }, Header { op: 0, ..header }, Header { op: 99, ..header }] {
        rig.send_raw(wrong, &[]);
        let (_, written) = rig.driver.wait_used(&mut rig.rx);
        assert_eq!(written, HEADER_LEN);
        rig.offer_buffers(1);
    }
    rig.send_raw(Header { dst_cid: 3, ..header }, &[]);
    rig.driver.wait_used(&mut rig.rx);
    rig.offer_buffers(1);
    // A reset is not answered.
    rig.send(GUEST, op::RST);
    rig.expect_nothing();
    // Longer than its buffers.
    rig.send(GUEST, op::REQUEST);
    rig.expect(GUEST, op::RESPONSE);
    rig.send_raw(Header { len: 100, ..rig.header(GUEST, op::RW) }, &[1; 99]);
    rig.expect(GUEST, op::RST);
    let (stream, _) = listener.accept().unwrap();
    assert!(is_closed(&stream));
    // Twice the same.
    rig.send(GUEST, op::REQUEST);
    rig.expect(GUEST, op::RESPONSE);
    rig.send(GUEST, op::REQUEST);
    rig.expect(GUEST, op::RST);
    assert_eq!(rig.count("bad_packets"), 3);
}

#[test]
fn headers_in_pieces_are_read_and_short_chains_are_given_back() {
    let mut rig = Rig::new();
    rig.vsock.listen(80).unwrap();
    let _listener = rig.vsock.listen(81).unwrap();
    let ports = Ports { host: 81, ..GUEST };
    rig.memory.write(GuestAddress(SENT), &rig.header(ports, op::REQUEST).to_bytes()).unwrap();
    let pieces: Vec<_> = (0..44).map(|at| Buffer::readable(SENT + at, 1)).collect();
    rig.tx.offer(&pieces);
    rig.driver.kick(1);
    rig.driver.wait_used(&mut rig.tx);
    rig.expect(ports, op::RESPONSE);
    rig.tx.offer(&[Buffer::readable(SENT, 43)]);
    rig.tx.offer(&[Buffer::writable(SENT, 100)]);
    rig.driver.kick(1);
    assert_eq!(rig.driver.wait_used(&mut rig.tx).1, 0);
    assert_eq!(rig.driver.wait_used(&mut rig.tx).1, 0);
    assert_eq!(rig.count("bad_packets"), 2);
}

#[test]
fn resets_that_the_guest_does_not_take_hold_up_its_own_packets_alone() {
    let mut rig = Rig::new();
    // All buffers are used, and none is offered.
    for guest in 0..64 {
        rig.send_data(Ports { host: 9, guest }, b"x");
    }
    rig.driver.wait_until("64 packets", || rig.rx.used_index() == 64);
    for guest in 0..MOST_RESETS as u32 {
        rig.send_data(Ports { host: 9, guest }, b"x");
    }
    rig.memory.write(GuestAddress(SENT), &rig.header(GUEST, op::RW).to_bytes()).unwrap();
    rig.tx.offer(&[Buffer::readable(SENT, HEADER_LEN)]);
    rig.driver.kick(1);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rig.tx.take_used(), None);
    rig.offer_buffers(64);
    rig.driver.wait_used(&mut rig.tx);
}

#[test]
fn buffers_that_are_of_no_use_are_given_back() {
    let mut rig = Rig::new();
    let (mut stream, ports) = rig.connected(1);
    for guest in 0..64 {
        rig.send_data(Ports { host: 9, guest }, b"x");
    }
    let used = rig.offered as u16;
    rig.driver.wait_until("all buffers", || rig.rx.used_index() == used);
    while rig.rx.take_used().is_some() {}
    stream.write_all(b"hello").unwrap();
    for buffer in [
        Buffer::writable(MEMORY, BUFFER_LEN),
        Buffer::writable(MEMORY - 100, BUFFER_LEN),
        Buffer::writable(u64::MAX - 100, BUFFER_LEN),
        Buffer::readable(BUFFERS, BUFFER_LEN),
        Buffer::writable(BUFFERS, HEADER_LEN - 1),
        // Room for a header, and none for data.
        Buffer::writable(BUFFERS, HEADER_LEN),
    ] {
        rig.rx.offer(&[buffer]);
        rig.driver.kick(0);
        assert_eq!(rig.driver.wait_used(&mut rig.rx).1, 0, "{buffer:?}");
    }
    rig.rx.offer(&[Buffer::writable(BUFFERS, HEADER_LEN), Buffer::writable(BUFFERS + 100, 3)]);
    rig.driver.kick(0);
    assert_eq!(rig.driver.wait_used(&mut rig.rx).1, HEADER_LEN + 3);
    let mut data = [0; 3];
    rig.memory.read(GuestAddress(BUFFERS + 100), &mut data).unwrap();
    assert_eq!((&data, rig.count("bad_packets")), (b"hel", 6));
    assert_eq!(ports.guest, 1);
}

#[test]
fn no_more_connections_than_are_allowed_are_made() {
    let mut rig = Rig::with(VsockConfig::new(CID).max_connections(2), None);
    let listener = rig.vsock.listen(80).unwrap();
    for guest in 0..3 {
        let ports = Ports { host: 80, guest };
        rig.send(ports, op::REQUEST);
        rig.expect(ports, if guest < 2 { op::RESPONSE } else { op::RST });
    }
    let error = rig.vsock.connect_timeout(1, LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Vsock);
    assert!(error.to_string().contains("max_connections"), "{error}");
    drop(listener.accept().unwrap());
    let first = Ports { host: 80, guest: 0 };
    rig.expect(first, op::SHUTDOWN);
    rig.expect(first, op::SHUTDOWN);
    rig.send(first, op::RST);
    rig.send(first, op::REQUEST);
    rig.expect(first, op::RESPONSE);
}

#[test]
fn many_connections_take_turns() {
    let mut rig = Rig::new();
    let mut all: Vec<_> = (0..20).map(|guest| rig.connected(guest)).collect();
    rig.wait_for("connections_by_host", 20);
    // Nobody is served before all have written.
    rig.driver.transport().pause(LIMIT).unwrap();
    for (stream, _) in &mut all {
        stream.write_all(&bytes(40_000)).unwrap();
    }
    rig.driver.transport().resume();
    let mut got = [0; 20];
    let mut order = Vec::new();
    while got.iter().sum::<usize>() < 20 * 40_000 {
        let (header, data) = rig.packet();
        assert_eq!(header.op, op::RW);
        got[header.dst_port as usize] += data.len();
        order.push(header.dst_port);
    }
    // Of any 100 packets behind the first ones, all connections have some.
    let window = &order[20..120];
    assert!((0..20).all(|guest| window.contains(&guest)), "{window:?}");
}

#[test]
fn a_reset_of_the_driver_closes_all_streams_and_connections_can_be_made_again() {
    let mut rig = Rig::new();
    let (stream, _) = rig.connected(1);
    rig.driver.write(mmio::STATUS, 0);
    assert!(is_closed(&stream));
    let waiting = rig.vsock.connect(5).unwrap();
    rig.restart();
    let (header, _) = rig.packet();
    assert_eq!((header.op, header.dst_port), (op::REQUEST, 5));
    drop(waiting);
    rig.expect(Ports { host: header.src_port, guest: 5 }, op::RST);
}

#[test]
fn a_vm_that_ends_closes_streams_listeners_and_what_waits() {
    let mut rig = Rig::new();
    let (stream, _) = rig.connected(1);
    let listener = rig.vsock.listen(80).unwrap();
    let handle = rig.vsock.clone();
    let waiting = std::thread::spawn(move || listener.accept().unwrap_err());
    rig.driver.transport().close();
    assert!(is_closed(&stream));
    assert_eq!(waiting.join().unwrap().kind(), ErrorKind::InvalidState);
    assert_eq!(handle.connect(1).unwrap_err().kind(), ErrorKind::InvalidState);
    assert_eq!(handle.listen(2).unwrap_err().kind(), ErrorKind::InvalidState);
}

#[test]
fn a_restored_guest_is_told_that_its_connections_are_gone() {
    let mut rig = Rig::new();
    let (stream, ports) = rig.connected(1);
    rig.driver.transport().pause(LIMIT).unwrap();
    rig.driver.transport().save().unwrap();
    // The one that was saved may go on as well.
    rig.driver.transport().resume();
    rig.send_data(ports, b"still here");
    let mut buffer = [0; 10];
    (&stream).read_exact(&mut buffer).unwrap();

    let (device, thread) = (Vsock::open(&VsockConfig::new(CID + 1)).unwrap(), IoThread::new("vsock").unwrap());
    rig.driver.transport().pause(LIMIT).unwrap();
    let state = rig.driver.transport().save().unwrap();
    let transport = MmioTransport::restore(Box::new(device), rig.memory.clone(), &thread, &state).unwrap();
    transport.resume();
    let restored = MmioDriver::new(transport);
    rig.events.offer(&[Buffer::writable(SENT, 3)]);
    rig.events.offer(&[Buffer::writable(SENT, 4)]);
    restored.kick(2);
    assert_eq!(restored.wait_used(&mut rig.events).1, 0, "it is too short");
    assert_eq!(restored.wait_used(&mut rig.events).1, 4);
    let mut event = [9; 4];
    rig.memory.read(GuestAddress(SENT), &mut event).unwrap();
    assert_eq!(u32::from_le_bytes(event), TRANSPORT_RESET);
    assert_eq!(restored.read(mmio::CONFIG), 8);
}

#[test]
fn a_connection_that_waits_costs_no_cpu() {
    let mut rig = Rig::new();
    let mut all: Vec<_> = (0..100).map(|guest| rig.connected(guest)).collect();
    rig.room = 0;
    for (stream, ports) in &mut all {
        rig.send(*ports, op::CREDIT_UPDATE);
        stream.write_all(b"waits for room").unwrap();
        rig.expect(*ports, op::CREDIT_REQUEST);
    }
    let turns = rig.thread.metrics().turns;
    std::thread::sleep(Duration::from_millis(100));
    assert!(rig.thread.metrics().turns - turns < 5);
}

#[test]
fn a_reset_with_a_thousand_connections_keeps_to_the_time_of_a_turn() {
    let mut rig = Rig::new();
    let listener = rig.vsock.listen(80).unwrap();
    let mut measured = |count: u32| {
        let streams: Vec<_> = (0..count)
            .map(|guest| {
                let ports = Ports { host: 80, guest };
                rig.send(ports, op::REQUEST);
                rig.expect(ports, op::RESPONSE);
                listener.accept().unwrap().0
            })
            .collect();
        rig.thread.measure_turns();
        rig.driver.write(mmio::STATUS, 0);
        assert!(streams.iter().all(is_closed));
        rig.restart();
        // Turns up to that of the reset are over.
        rig.thread.longest_turn()
    };
    // A busy host makes a turn longer than it is: the best of some.
    let longest = (0..5).map(|_| measured(1000)).min().unwrap();
    assert!(longest < Duration::from_micros(500), "{longest:?}");
}

#[test]
fn it_withstands_what_every_device_must() {
    let make = || Box::new(Vsock::open(&VsockConfig::new(CID)).unwrap()) as Box<dyn VirtioDevice>;
    let serves = |driver: &MmioDriver, queues: &mut [DriverQueue]| {
        const ROOM_FOR_ONE: u32 = 4096;
        let request =
            Header { src_cid: CID, dst_cid: HOST_CID, src_port: 1, dst_port: 2, kind: STREAM, ..Header::default() };
        let request = Header { op: op::REQUEST, ..request };
        let memory = queues[0].memory().clone();
        memory.write(GuestAddress(0x2_0000), &request.to_bytes()).unwrap();
        queues[0].offer(&[Buffer::writable(0x3_0000, ROOM_FOR_ONE)]);
        queues[1].offer(&[Buffer::readable(0x2_0000, HEADER_LEN)]);
        driver.kick(0);
        driver.kick(1);
        assert_eq!(driver.wait_used(&mut queues[1]).1, 0);
        assert_eq!(driver.wait_used(&mut queues[0]).1, HEADER_LEN);
        let mut answer = [0; HEADER_LEN as usize];
        memory.read(GuestAddress(0x3_0000), &mut answer).unwrap();
        let answer = Header::from_bytes(&answer);
        assert_eq!((answer.op, answer.src_port, answer.dst_port), (op::RST, 2, 1), "nobody listens there");
    };
    Conformance::new(make, serves, 0).quiet_queue(RX.into()).quiet_queue(EVENTS.into()).run();
}

#[path = "hostile_test.rs"]
mod hostile;
