//! A NIC whose backend does nothing with frames.

use vmcell::event::Io;
use vmcell::net::{Delivery, NicBackend, NicInfo, RxBatch, TxBatch, VnetHeader};
use vmcell::testing::{Buffer, DriverQueue, InlineIo, MmioDriver, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::{GuestAddress, Limits, Nic, RateLimit};

use crate::offer::Offers;
use crate::piece::Piece;

const ROOM: &str = "net";
const MEMORY: u64 = 4 << 20;
const RECEIVED: u64 = 0x1000;
const SENT: u64 = 0x4000;
const CONTROL: u64 = 0x8000;
const DATA: u64 = 0x10_0000;
const BUFFER: u32 = 4096;
const BATCH: u16 = 32;
/// What takes sixteen buffers of a page.
const LARGE: usize = 65_000;
const LARGE_PARTS: u64 = 16;

/// VIRTIO_NET_F_MRG_RXBUF, RING_EVENT_IDX and VERSION_1.
const FEATURES: u64 = 1 << 15 | 1 << 29 | 1 << 32;

pub const PIECES: &[Piece] = &[
    Piece { room: ROOM, name: "send", operations: BATCH as u64, make: || send(Limits::new()) },
    Piece { room: ROOM, name: "send-limited", operations: BATCH as u64, make: || send(most()) },
    Piece { room: ROOM, name: "receive-64", operations: BATCH as u64, make: || receive(64, Limits::new()) },
    Piece { room: ROOM, name: "receive-64-limited", operations: BATCH as u64, make: || receive(64, most()) },
    Piece {
        room: ROOM,
        name: "receive-65000",
        operations: BATCH as u64 / LARGE_PARTS,
        make: || receive(LARGE, Limits::new()),
    },
];

/// Drops what is sent, and has frames as long as there is room.
struct Nothing {
    frame: Vec<u8>,
}

impl NicBackend for Nothing {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        while frames.put(io, &VnetHeader::default(), &self.frame) == Delivery::Delivered {}
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        while frames.next(io).is_some() {
            frames.done();
        }
    }
}

/// Frames of 64 bytes, each with its header in a descriptor of its own.
fn send(limits: Limits) -> Box<dyn FnMut()> {
    let buffers = |number: u64| {
        let at = DATA + number * u64::from(BUFFER);
        vec![Buffer::readable(at, 12), Buffer::readable(at + 12, 64)]
    };
    calls(1, 64, limits, buffers)
}

/// Limits that count, and are never reached.
fn most() -> Limits {
    let most = RateLimit::per_second(1 << 40);
    Limits::new().operations(most).bytes(most)
}

fn receive(len: usize, limits: Limits) -> Box<dyn FnMut()> {
    calls(0, len, limits, |number| vec![Buffer::writable(DATA + number * u64::from(BUFFER), BUFFER)])
}

/// Offers a batch of chains on one queue, again and again.
fn calls(queue: u32, len: usize, limits: Limits, buffers: impl Fn(u64) -> Vec<Buffer>) -> Box<dyn FnMut()> {
    let memory = patterned_memory(MEMORY);
    memory.write(GuestAddress(DATA), &vec![0; (BUFFER * u32::from(BATCH)) as usize]).expect("it lies in the memory");
    let inline = InlineIo::new();
    let nic = Nic::backend(Nothing { frame: vec![0; len] }).receive_limits(limits).send_limits(limits);
    let device = nic.into_device().expect("the NIC is well-formed");
    let transport = MmioTransport::new(device, memory.clone(), inline.io_thread()).expect("the device is well-formed");
    let driver = MmioDriver::new(transport);
    let idle = |base| DriverQueue::new(&memory, GuestAddress(base), 16);
    let (received, sent, control) = (idle(RECEIVED), idle(SENT), idle(CONTROL));
    let base = if queue == 0 { RECEIVED } else { SENT };
    let mut offers = Offers::direct(&memory, base, BATCH, buffers);
    let mut queues = [&received, &sent, &control];
    queues[queue as usize] = offers.driver();
    driver.bring_up(FEATURES, &queues);
    Box::new(move || {
        offers.again();
        driver.kick(queue);
        assert!(inline.settle(8).is_some(), "the NIC does not come to rest");
    })
}
