//! A card whose frames go over a stream: any bytes of the other end's, however they are cut, and an end that takes what it likes.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use vmcell::network::FrameStream;
use vmcell::testing::{Buffer, DriverQueue, InlineIo, MmioDriver};
use vmcell::virtio::MmioTransport;
use vmcell::{GuestAddress, GuestMemory};

use crate::alloc::Meter;
use crate::input::{Input, Script};

const RINGS: [u64; 3] = [0x1000, 0x4000, 0x7000];
const SIZE: u16 = 32;
/// Each slot of a ring has a buffer of its own.
const BUFFERS: [u64; 2] = [0x1_0000, 0x10_0000];
const BUFFER: u64 = 0x1000;
const SLOT: u64 = 0x4000;
const MEMORY: u64 = 0x20_0000;
/// In front of each frame.
const HEADER: usize = 12;
const ETHERNET: usize = 14;
const LARGEST: usize = 65553;
/// VIRTIO_NET_F_MRG_RXBUF and VERSION_1.
const FEATURES: u64 = 1 << 15 | 1 << 32;
/// Two frames of the other end's, what waits for it, and lists of where a frame goes.
const MOST_HELD: i64 = 512 << 10;
const MOST_STEPS: usize = 200;
const MOST_ROUNDS: usize = 1000;

struct Test {
    inline: InlineIo,
    driver: MmioDriver,
    memory: GuestMemory,
    received: DriverQueue,
    sent: DriverQueue,
    /// Which buffers the card has, by the heads of their chains.
    offered: Vec<(u16, u64)>,
    free: Vec<u64>,
    under_way: u16,
    theirs: UnixStream,
    /// What the other end has still to write, and what of it is no whole frame yet.
    to_write: VecDeque<u8>,
    begun: Vec<u8>,
    is_over: bool,
    /// What the guest may get, in order, and what the other end must get.
    for_guest: VecDeque<Vec<u8>>,
    for_them: VecDeque<u8>,
    meter: Meter,
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
        test.look();
    }
}

impl Test {
    fn new() -> Self {
        let (ours, theirs) = UnixStream::pair().expect("the host has sockets");
        theirs.set_nonblocking(true).expect("it is open");
        let inline = InlineIo::new();
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), MEMORY)]).expect("the host provides the memory");
        let nic = FrameStream::new(ours).expect("it is a socket").into_nic();
        let device = nic.into_device().expect("the card is well-formed");
        let transport = MmioTransport::new(device, memory.clone(), inline.io_thread()).expect("so is its device");
        let driver = MmioDriver::new(transport);
        let [received, sent, control] = RINGS.map(|base| DriverQueue::new(&memory, GuestAddress(base), SIZE));
        driver.bring_up(FEATURES, &[&received, &sent, &control]);
        let free = (0..u64::from(SIZE)).map(|slot| BUFFERS[0] + slot * BUFFER).collect();
        let (offered, under_way, is_over) = (Vec::new(), 0, false);
        let (to_write, begun, for_guest, for_them) = Default::default();
        let meter = Meter::new(MOST_HELD);
        let mut test = Self {
            inline,
            driver,
            memory,
            received,
            sent,
            offered,
            free,
            under_way,
            theirs,
            to_write,
            begun,
            is_over,
            for_guest,
            for_them,
            meter,
        };
        test.settle();
        test
    }

    fn step(&mut self, input: &mut Input) {
        match input.below(16) {
            0..=3 => self.say_frame(input),
            4 => self.say(&input.word().to_be_bytes()),
            5 => self.say(&[input.byte(), input.byte()]),
            6..=8 => self.write(usize::from(input.half())),
            9 | 10 => self.offer(input.below(SIZE + 1)),
            11 | 12 => self.send(ETHERNET + usize::from(input.half() % 16000)),
            13 | 14 => self.read(usize::from(input.half())),
            _ if input.one_in(8) => {
                let _ = self.theirs.shutdown(Shutdown::Write);
                self.to_write.clear();
                self.is_over = true;
            }
            _ => self.write(usize::MAX),
        }
    }

    fn say_frame(&mut self, input: &mut Input) {
        let len = match input.below(8) {
            0 => usize::from(input.below(16)).max(1),
            1 => LARGEST - usize::from(input.below(4)),
            _ => ETHERNET + usize::from(input.half() % 3000),
        };
        let first = input.byte();
        let frame: Vec<u8> = (0..len).map(|at| first.wrapping_add(at as u8)).collect();
        self.say(&u32::try_from(len).expect("it is short").to_be_bytes());
        self.say(&frame);
    }

    /// The other end is to write this.
    fn say(&mut self, bytes: &[u8]) {
        if !self.is_over && self.to_write.len() < 4 * LARGEST {
            self.to_write.extend(bytes);
        }
    }

    /// The other end writes, as much as the stream has room for.
    fn write(&mut self, most: usize) {
        let most = most.min(self.to_write.len());
        let bytes: Vec<u8> = self.to_write.iter().copied().take(most).collect();
        let written = match self.theirs.write(&bytes) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            // The card has ended the link, but may be about to tell what was said before.
            Err(_) => return,
        };
        self.begun.extend(self.to_write.drain(..written));
        self.cut();
    }

    /// Cuts what was written into frames, as the card has to.
    fn cut(&mut self) {
        while let Some(length) = self.begun.first_chunk::<4>() {
            let len = u32::from_be_bytes(*length) as usize;
            if !(1..=LARGEST).contains(&len) {
                self.begun.clear();
                self.to_write.clear();
                self.is_over = true;
                return;
            }
            if self.begun.len() < 4 + len {
                return;
            }
            let frame: Vec<u8> = self.begun.drain(..4 + len).skip(4).collect();
            if len >= ETHERNET {
                self.for_guest.push_back(frame);
            }
        }
    }

    fn offer(&mut self, count: u16) {
        for _ in 0..count {
            let Some(at) = self.free.pop() else { break };
            let head = self.received.offer(&[Buffer::writable(at, BUFFER as u32)]);
            self.offered.push((head, at));
        }
        self.driver.kick(0);
    }

    fn send(&mut self, len: usize) {
        if self.under_way == SIZE / 2 {
            return;
        }
        let at = BUFFERS[1] + u64::from(self.sent.avail_index() % (SIZE / 2)) * SLOT;
        let frame: Vec<u8> = (0..len).map(|at| at as u8 ^ len as u8).collect();
        self.memory.write(GuestAddress(at), &[&[0; HEADER][..], &frame].concat()).expect("it lies in the memory");
        self.sent.offer(&[Buffer::readable(at, (HEADER + len) as u32)]);
        self.under_way += 1;
        self.for_them.extend(u32::try_from(len).expect("it is short").to_be_bytes().iter().chain(&frame));
        self.driver.kick(1);
    }

    /// The other end reads.
    fn read(&mut self, most: usize) {
        let mut bytes = vec![0; most];
        let Ok(len) = self.theirs.read(&mut bytes) else { return };
        for byte in &bytes[..len] {
            assert_eq!(Some(*byte), self.for_them.pop_front(), "a byte that the guest has not sent there");
        }
    }

    fn settle(&mut self) {
        let Self { inline, meter, .. } = self;
        assert!(meter.run(|| inline.settle(MOST_ROUNDS)).is_some(), "the card does not come to rest");
    }

    /// What the guest got is what was said, whole and in order.
    fn look(&mut self) {
        while self.sent.take_used().is_some() {
            self.under_way -= 1;
        }
        while let Some(mut packet) = self.buffer() {
            let count = u16::from_le_bytes([packet[10], packet[11]]);
            for _ in 1..count {
                packet.extend(self.buffer().expect("they come together"));
            }
            let frame = &packet[HEADER..];
            let expected = loop {
                // What found no room for all of it was dropped.
                let expected = self.for_guest.pop_front().expect("a frame that nobody has said");
                if expected == frame || self.for_guest.is_empty() {
                    break expected;
                }
            };
            assert_eq!(frame, expected, "a frame is whole");
        }
        if self.is_over && self.to_write.is_empty() && self.offered.len() > 20 {
            assert_eq!(self.driver.read(0x104) >> 16 & 1, 0, "the guest sees that the link is down");
        }
    }

    fn buffer(&mut self) -> Option<Vec<u8>> {
        let (head, len) = self.received.take_used()?;
        let index = self.offered.iter().position(|(offered, _)| u32::from(*offered) == head).expect("it was offered");
        let (_, at) = self.offered.swap_remove(index);
        self.free.push(at);
        let mut bytes = vec![0; len as usize];
        self.memory.read(GuestAddress(at), &mut bytes).expect("it lies in the memory");
        Some(bytes)
    }
}

/// Inputs that reach far.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let frames = Script::new().bytes(&[9, 32]).bytes(&[0, 2]).half(500).bytes(&[7]).bytes(&[0, 1, 0, 9]);
    let frames = frames.bytes(&[0, 0, 3, 1]).bytes(&[6]).half(100).bytes(&[15, 0, 9, 32]).bytes(&[15, 0]);
    let both = Script::new().bytes(&[11]).half(1000).bytes(&[12]).half(15_000).bytes(&[13]).half(900).bytes(&[14]);
    let stuck = (0..40).fold(Script::new(), |script, _| script.bytes(&[11]).half(15_999));
    let wrong = Script::new().bytes(&[9, 32, 0, 2]).half(5).bytes(&[1, 4]).word(70_000).bytes(&[15, 0, 9, 32]);
    let ended = Script::new().bytes(&[9, 32, 0, 2]).half(5).bytes(&[1]).bytes(&[6]).half(10).bytes(&[15, 7, 9, 30]);
    vec![
        ("frames-in-pieces", frames.done()),
        ("both-ways", both.half(60_000).done()),
        ("an-end-that-takes-nothing", stuck.done()),
        ("a-length-that-no-frame-has", wrong.done()),
        ("an-end-that-is-gone", ended.done()),
    ]
}
