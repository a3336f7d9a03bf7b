//! The vsock: what both sides send arrives whole and in order, in writable descriptors alone, and within the room that either side has.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vmcell::testing::rooms::vsock;
use vmcell::virtio::spec::{feature, mmio};
use vmcell::{VsockConfig, VsockHandle, VsockListener};

use crate::guest::Guest;
use crate::input::{Input, Script};
use crate::ring::{Descriptor, Ring, cut, split, total};
use crate::world::World;

const REGIONS: [std::ops::Range<u64>; 2] = [0..0x1_0000, 0x1_0000..0x8_0000];
/// Queues, with the packets of the guest and the buffers for those to it, each in a slot of its own.
const RINGS: [u64; 3] = [0x1000, 0x3000, 0x5000];
const SIZES: [u16; 3] = [64, 64, 16];
const SENT: u64 = 0x1_0000;
const SENT_SLOT: u64 = 0x8000;
const BUFFERS: u64 = 0x4_0000;
const BUFFER_SLOT: u64 = 0x1000;
const CID: u64 = 3;
const HOST: u64 = 2;
const HEADER: u64 = 44;
/// A port of the host on which somebody listens.
const PORT: u32 = 80;
/// As many as a reset closes on the thread that is looked at.
const CONNECTIONS: u32 = 4;
/// What the device may have of a connection, and what it may hold in all: storage grows by doubling, and some is kept.
const ROOM: usize = 64 << 10;
const MOST_HELD: i64 = 4 << 20;
const MOST_STEPS: usize = 300;
const WRITE: u16 = 2;
const NEXT: u16 = 1;

/// One connection, as both of its ends see it.
#[derive(Default)]
struct Link {
    stream: Option<UnixStream>,
    /// What the guest has sent, and how much of it the host has read.
    from_guest: Vec<u8>,
    read: usize,
    /// What the host has written, and how much of it the guest has.
    to_guest: Vec<u8>,
    got: usize,
}

/// A packet of the guest that the device has not taken.
struct Sent {
    head: u16,
    number: u64,
    ports: Option<(u32, u32)>,
    is_request: bool,
}

/// How much the guest has room for, and how much its program has read.
#[derive(Clone, Copy)]
struct Room {
    all: u32,
    consumed: u32,
}

struct Test {
    guest: Guest,
    rings: [Ring; 3],
    vsock: VsockHandle,
    listener: VsockListener,
    /// By the ports of the host and the guest; the host's is 0 until its request has come.
    links: BTreeMap<(u32, u32), Link>,
    /// Packets that the device has not taken, and buffers that it has not filled, each with its slot.
    sent: VecDeque<Sent>,
    /// What the guest has said of its room, by the number of the packet: the last that the device has taken, and those that it has not.
    rooms: BTreeMap<(u32, u32), Vec<(u64, Room)>>,
    buffers: BTreeMap<u16, Vec<(u64, u32)>>,
    next_sent: u64,
    next_port: u32,
    pattern: u8,
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut test = Test::new();
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        test.step(&mut input);
        test.settle();
    }
    test.reset();
    for (ports, mut link) in std::mem::take(&mut test.links) {
        assert!(link.read_all(), "{ports:?}: the stream is closed by a reset");
    }
}

impl Test {
    fn new() -> Self {
        let mut world = World::new(&REGIONS);
        let rings = [0, 1, 2].map(|index| Ring::new(&mut world, RINGS[index], SIZES[index]));
        let (device, vsock) =
            vsock(&VsockConfig::new(CID).max_connections(CONNECTIONS)).expect("the host gives descriptors");
        let listener = vsock.listen(PORT).expect("nobody listens yet");
        let mut guest = Guest::new(device, world, MOST_HELD);
        guest.negotiate(1 << feature::VERSION_1);
        guest.start(&rings);
        let (links, sent, rooms, buffers) = Default::default();
        Self { guest, rings, vsock, listener, links, sent, rooms, buffers, next_sent: 0, next_port: 1000, pattern: 0 }
    }

    fn step(&mut self, input: &mut Input) {
        match input.below(16) {
            0..5 => self.send(input),
            5..8 => self.offer(input),
            8 if self.links.len() < 32 => self.connect(),
            9..11 => self.write(input),
            11..13 => self.read(input),
            13 => self.hang_up(input),
            14 if input.one_in(8) => self.reset(),
            _ => self.pause(input),
        }
    }

    /// The ports of a connection, or others.
    fn ports(&self, input: &mut Input) -> (u32, u32) {
        let known: Vec<_> = self.links.keys().copied().filter(|(host, _)| *host != 0).collect();
        let choice = usize::from(input.byte());
        match known.len() {
            len if len > 0 && choice % 4 != 0 => known[choice / 4 % len],
            _ => (PORT + u32::from(input.one_in(4)), u32::from(input.below(4))),
        }
    }

    /// The guest sends a packet, mostly one that a driver could send.
    fn send(&mut self, input: &mut Input) {
        // A slot is used again once its packet was taken, and what comes behind a request depends on its answer.
        if self.sent.len() >= 6 || self.sent.iter().any(|sent| sent.is_request) {
            return;
        }
        let (host, guest) = self.ports(input);
        let op = if input.one_in(16) { input.half() } else { input.below(8) };
        let len = if op == 5 { u32::from(input.half()) % 0x7f00 } else { 0 };
        let said = if input.one_in(32) { input.word() } else { len };
        let kind = if input.one_in(32) { input.half() } else { 1 };
        let src = if input.one_in(32) { input.long() } else { CID };
        let dst = if input.one_in(32) { input.long() } else { HOST };
        let room = if input.one_in(8) { input.word() } else { 0x1_0000 };
        let flags = if input.one_in(8) { input.word() } else { u32::from(input.below(4)) };
        let got = self.links.get(&(host, guest)).map_or(0, |link| link.got as u32);
        let consumed = if input.one_in(8) { input.word() } else { got };
        let payload: Vec<u8> = (0..len).map(|_| self.next_byte()).collect();
        let mut packet = Vec::new();
        for word in [src, dst] {
            packet.extend(word.to_le_bytes());
        }
        for word in [guest, host, said] {
            packet.extend(word.to_le_bytes());
        }
        for half in [kind, op] {
            packet.extend(half.to_le_bytes());
        }
        for word in [flags, room, consumed] {
            packet.extend(word.to_le_bytes());
        }
        packet.extend(&payload);
        if input.one_in(32) {
            packet.truncate(usize::from(input.byte()).max(1));
        }
        let slot = self.next_sent % 6;
        let at = SENT + slot * SENT_SLOT;
        self.next_sent += 1;
        self.guest.world.write(at, &packet);
        let parts = split(input, at, packet.len() as u64);
        let head = self.describe(1, slot as u16 * 10, &parts, 0);
        let is_known = src == CID && dst == HOST && kind == 1 && packet.len() >= 44;
        let (number, ports) = (self.next_sent, is_known.then_some((host, guest)));
        self.sent.push_back(Sent { head, number, ports, is_request: op == 1 });
        self.rings[1].offer(&mut self.guest.world, head);
        if let Some(ports) = ports {
            self.rooms.entry(ports).or_default().push((number, Room { all: room, consumed }));
            // What the device may pass on from now on. If it resets the connection rather, nothing goes on any more.
            // A packet may be longer than its header says.
            let data = packet.get(HEADER as usize..).and_then(|data| data.get(..said as usize)).filter(|_| op == 5);
            if let (Some(link), Some(data)) = (self.links.get_mut(&ports), data) {
                link.from_guest.extend(data);
            }
        }
        self.guest.kick(1);
        // What the device does about it is seen at once, unless it has no room for resets.
        self.settle();
    }

    /// Writes a chain into a queue's table, of at most ten descriptors.
    fn describe(&mut self, queue: usize, first: u16, parts: &[(u64, u32)], flags: u16) -> u16 {
        let (mut parts, rest) = (parts.to_vec(), parts.get(10..).map_or(0, total));
        parts.truncate(10);
        if let Some(last) = parts.last_mut() {
            last.1 += rest as u32;
        }
        for (index, (gpa, len)) in (first..).zip(&parts) {
            let is_last = usize::from(index - first) + 1 == parts.len();
            let flags = flags | if is_last { 0 } else { NEXT };
            let descriptor = Descriptor { gpa: *gpa, len: *len, flags, next: index + 1 };
            self.rings[queue].set(&mut self.guest.world, index, descriptor);
        }
        first
    }

    fn offer(&mut self, input: &mut Input) {
        let Some(slot) = (0..6).find(|slot| !self.buffers.contains_key(&(slot * 10))) else { return };
        let len = if input.one_in(8) { u64::from(input.byte()) + 1 } else { BUFFER_SLOT };
        let at = BUFFERS + u64::from(slot) * BUFFER_SLOT;
        let parts = split(input, at, len);
        let head = self.describe(0, slot * 10, &parts, WRITE);
        self.buffers.insert(head, vec![(at, len as u32)]);
        self.rings[0].offer(&mut self.guest.world, head);
        self.guest.kick(0);
    }

    /// The host program asks for a connection; no two have the same port of the guest.
    fn connect(&mut self) {
        let port = self.next_port;
        self.next_port += 1;
        let stream = self.vsock.connect(port).expect("few wait");
        self.links.insert((0, port), Link::new(stream));
    }

    /// Takes what the guest has connected, to which nothing was sent yet.
    fn accept(&mut self) {
        while let Ok((stream, port)) = self.listener.accept_timeout(Duration::ZERO) {
            if let Some(mut old) = self.links.insert((PORT, port), Link::new(stream)) {
                old.read_all();
            }
        }
    }

    fn link(&mut self, input: &mut Input) -> Option<&mut Link> {
        let count = self.links.len().max(1);
        self.links.values_mut().nth(usize::from(input.byte()) % count)
    }

    fn write(&mut self, input: &mut Input) {
        let len = u32::from(input.half()) % 10_000;
        let bytes: Vec<u8> = (0..len).map(|_| self.next_byte()).collect();
        let Some(link) = self.link(input) else { return };
        if let Some(Ok(written)) = link.stream.as_mut().map(|stream| stream.write(&bytes)) {
            link.to_guest.extend(&bytes[..written]);
        }
    }

    fn read(&mut self, input: &mut Input) {
        if let Some(link) = self.link(input) {
            link.read_all();
        }
    }

    fn hang_up(&mut self, input: &mut Input) {
        let how = input.below(4);
        let Some(link) = self.link(input) else { return };
        let Some(stream) = &link.stream else { return };
        let _ = match how {
            0 => stream.shutdown(Shutdown::Write),
            1 => stream.shutdown(Shutdown::Read),
            2 => stream.shutdown(Shutdown::Both),
            _ => {
                link.stream = None;
                return;
            }
        };
    }

    fn reset(&mut self) {
        self.guest.write(mmio::STATUS, 0);
        self.guest.settle(&[]);
        assert_eq!(self.guest.read(mmio::STATUS), 0, "no connection holds a reset up");
        let world = &mut self.guest.world;
        self.rings = [0, 1, 2].map(|index| Ring::new(world, RINGS[index], SIZES[index]));
        (self.sent, self.rooms, self.buffers) = Default::default();
        // What the host asks for waits for the driver.
        self.links.retain(|ports, _| ports.0 == 0);
        self.guest.negotiate(1 << feature::VERSION_1);
        let rings = self.rings;
        self.guest.start(&rings);
    }

    fn pause(&mut self, input: &mut Input) {
        self.guest.call(|transport| transport.pause(Duration::from_secs(1))).expect("nothing is in flight");
        self.guest.call(|transport| transport.save()).expect("it stands still");
        self.write(input);
        self.guest.call(|transport| transport.resume());
    }

    /// Gives the device its turns, and looks at what it did.
    fn settle(&mut self) {
        let mut allowed: Vec<_> = self.rings.iter().map(Ring::used_range).collect();
        for buffers in self.buffers.values() {
            allowed.extend(cut(buffers, 0, u64::MAX).into_iter().map(|(gpa, len)| gpa..gpa + len));
        }
        self.guest.settle(&allowed);
        // One that was taken may have come before or behind what the device sends meanwhile.
        let mut taken = Vec::new();
        while let Some((head, written)) = self.rings[1].take_used(&self.guest.world) {
            let sent = self.sent.pop_front().expect("a packet is taken once");
            assert_eq!((head, written), (sent.head.into(), 0), "packets are taken in their order");
            taken.push(sent);
        }
        while let Some((head, written)) = self.rings[0].take_used(&self.guest.world) {
            let buffers = self.buffers.remove(&(head as u16)).expect("a buffer is filled once");
            self.take_packet(buffers[0].0, written.into(), total(&buffers));
        }
        if taken.iter().any(|sent| sent.is_request) {
            self.accept();
        }
        for Sent { number, ports, .. } in taken {
            if let Some(rooms) = ports.and_then(|ports| self.rooms.get_mut(&ports)) {
                rooms.retain(|(of, _)| *of >= number);
            }
        }
    }

    fn take_packet(&mut self, at: u64, written: u64, room: u64) {
        if written == 0 {
            return assert!(room <= HEADER, "a buffer with room for data is of use");
        }
        let bytes = self.guest.world.read(at, written);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let (host, guest, len) = (word(16), word(20), word(24));
        let (kind, op) = (word(28) & 0xffff, word(28) >> 16);
        let (flags, alloc, forwarded) = (word(32), word(36), word(40));
        assert_eq!(u64::from(len) + HEADER, written, "the length is that of the data");
        assert_eq!((word(8), word(12)), (CID as u32, 0), "the packet is for this guest");
        if op == 3 {
            return;
        }
        assert_eq!((word(0), word(4), kind, alloc), (HOST as u32, 0, 1, ROOM as u32));
        if op == 1 {
            let link = self.links.remove(&(0, guest)).expect("the host has asked for it");
            self.links.insert((host, guest), link);
        }
        if op == 2 || !self.links.contains_key(&(host, guest)) {
            // The request that it answers was taken just now.
            self.accept();
        }
        let Some(link) = self.links.get_mut(&(host, guest)) else {
            panic!("a packet {op} of a connection that there is not: {host} {guest}")
        };
        assert!(forwarded as usize <= link.from_guest.len(), "no more went on than was sent");
        assert!(forwarded as usize >= link.read, "what was read went on");
        match op {
            1 | 2 | 6 | 7 => assert_eq!(len, 0),
            4 => assert!(len == 0 && (1..4).contains(&flags), "shutdown {flags}"),
            5 => {
                let end = link.take_data(&bytes[44..]);
                let fits = |room: Room| end.wrapping_sub(room.consumed) <= room.all;
                let rooms = self.rooms.get(&(host, guest)).map_or(&[][..], Vec::as_slice);
                assert!(rooms.iter().any(|(_, room)| fits(*room)), "{end} bytes are more than there is room for");
            }
            _ => panic!("a packet {op}"),
        }
    }

    /// Bytes that do not repeat soon.
    fn next_byte(&mut self) -> u8 {
        self.pattern = (self.pattern + 1) % 251;
        self.pattern
    }
}

impl Link {
    fn new(stream: UnixStream) -> Self {
        stream.set_nonblocking(true).expect("a stream need not block");
        Self { stream: Some(stream), ..Self::default() }
    }

    /// The guest gets what the host has written; gives how much it has had in all.
    fn take_data(&mut self, data: &[u8]) -> u32 {
        let end = self.got + data.len();
        assert!(!data.is_empty() && self.to_guest.get(self.got..end) == Some(data), "the data is what was written");
        self.got = end;
        end as u32
    }

    /// The host reads what there is; says whether it came to the end.
    fn read_all(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return true };
        let mut bytes = vec![0; 4 * ROOM];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(len) => {
                    let sent = self.from_guest.get(self.read..self.read + len);
                    assert!(sent == Some(&bytes[..len]), "what is read is what was sent");
                    self.read += len;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
    }
}

/// Inputs that reach far, by their names.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let offer = |script: Script| script.bytes(&[5, 0, 5]);
    let offers = |script: Script| (0..6).fold(script, |script, _| offer(script));
    // The host connects, and port 1000 of the guest accepts.
    let connected = || offers(Script::new()).bytes(&[8]).bytes(&[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5]);
    let to_guest = |script: Script| offers(script.bytes(&[9]).half(5000).bytes(&[0]));
    let data = |script: Script| script.bytes(&[0, 1, 0, 5]).half(20_000).bytes(&[0, 0, 0, 0, 0, 0, 0, 5]);
    let read = |script: Script| script.bytes(&[11, 0]);
    vec![
        ("both-ways", read(data(to_guest(connected()))).done()),
        ("beyond-the-room", (0..20).fold(connected(), |script, _| offer(data(script))).done()),
        ("hang-up", to_guest(connected()).bytes(&[13, 3, 0]).bytes(&[5, 0, 5, 5, 0, 5]).done()),
    ]
}
