//! A queue without a device.

use std::sync::Arc;

use vmcell::GuestMemory;
use vmcell::testing::{Buffer, IoRig, RecordingInterrupt, patterned_memory};
use vmcell::virtio::{Interrupt, Queue};

use crate::offer::Offers;
use crate::piece::Piece;

const ROOM: &str = "queue";
const MEMORY: u64 = 1 << 20;
const RINGS: u64 = 0x1000;
const TABLES: u64 = 0x1_0000;
const CHAINS: u16 = 64;
const MANY: u64 = CHAINS as u64;

pub const PIECES: &[Piece] = &[
    Piece { room: ROOM, name: "walk-direct-3", operations: MANY, make: || walk(Offered::direct()) },
    Piece { room: ROOM, name: "walk-indirect-3", operations: MANY, make: || walk(Offered::indirect()) },
    Piece { room: ROOM, name: "pop-complete-3", operations: MANY, make: pop_complete },
    Piece { room: ROOM, name: "complete-batch-64", operations: MANY, make: complete_batch },
    Piece { room: ROOM, name: "pop-empty", operations: MANY, make: pop_empty },
    Piece { room: ROOM, name: "call-for-more", operations: MANY, make: call_for_more },
];

/// A queue, and what offers chains of three descriptors to it, as a disk's are.
pub struct Offered {
    pub offers: Offers,
    pub queue: Queue,
    pub io: IoRig,
}

impl Offered {
    fn direct() -> Self {
        let memory = patterned_memory(MEMORY);
        let offers = Offers::direct(&memory, RINGS, CHAINS, three);
        Self::new(&memory, offers, RecordingInterrupt::new())
    }

    fn indirect() -> Self {
        let memory = patterned_memory(MEMORY);
        let offers = Offers::indirect(&memory, RINGS, TABLES, CHAINS, three);
        Self::new(&memory, offers, RecordingInterrupt::new())
    }

    /// With an interrupt that somebody else looks at.
    pub fn interrupting(interrupt: Arc<dyn Interrupt>) -> Self {
        let memory = patterned_memory(MEMORY);
        let offers = Offers::direct(&memory, RINGS, CHAINS, three);
        Self::new(&memory, offers, interrupt)
    }

    fn new(memory: &GuestMemory, offers: Offers, interrupt: Arc<dyn Interrupt>) -> Self {
        let queue = Queue::new(&offers.config(), memory, 0, true, interrupt).expect("the queue is well-formed");
        Self { offers, queue, io: IoRig::new() }
    }
}

fn three(number: u64) -> Vec<Buffer> {
    let at = 0x4_0000 + number * 0x1000;
    vec![Buffer::readable(at, 16), Buffer::writable(at + 0x100, 512), Buffer::writable(at + 0x400, 1)]
}

/// One chain is taken and put back, so that nothing is published and no driver has a part in it.
fn walk(mut offered: Offered) -> Box<dyn FnMut()> {
    offered.offers.again();
    Box::new(move || {
        let mut io = offered.io.turn_without_clock();
        for _ in 0..CHAINS {
            let chain = offered.queue.pop(&mut io).expect("the queue is sound").expect("a chain is offered");
            assert_eq!((chain.readable_len(), chain.writable_len()), (16, 513));
            offered.queue.put_back(chain).expect("it was the last");
        }
    })
}

/// As a disk does: each chain is completed before the next is taken.
fn pop_complete() -> Box<dyn FnMut()> {
    let mut offered = Offered::direct();
    Box::new(move || {
        offered.offers.again();
        let mut io = offered.io.turn_without_clock();
        while let Some(chain) = offered.queue.pop(&mut io).expect("the queue is sound") {
            offered.queue.complete(chain, 513);
        }
        offered.queue.notify();
    })
}

/// All chains are taken, and then completed.
fn complete_batch() -> Box<dyn FnMut()> {
    let mut offered = Offered::direct();
    let mut chains = Vec::new();
    Box::new(move || {
        offered.offers.again();
        let mut io = offered.io.turn_without_clock();
        while let Some(chain) = offered.queue.pop(&mut io).expect("the queue is sound") {
            chains.push(chain);
        }
        for chain in chains.drain(..) {
            offered.queue.complete(chain, 513);
        }
        offered.queue.notify();
    })
}

fn pop_empty() -> Box<dyn FnMut()> {
    let mut offered = Offered::direct();
    Box::new(move || {
        let mut io = offered.io.turn_without_clock();
        for _ in 0..CHAINS {
            assert!(offered.queue.pop(&mut io).expect("the queue is sound").is_none());
        }
    })
}

/// What is done before the thread sleeps: a last look, and the driver is asked to ring.
fn call_for_more() -> Box<dyn FnMut()> {
    let mut offered = Offered::direct();
    Box::new(move || {
        let mut io = offered.io.turn_without_clock();
        for _ in 0..CHAINS {
            assert!(offered.queue.pop(&mut io).expect("the queue is sound").is_none());
            assert!(!offered.queue.call_for_more());
        }
    })
}

/// These benches are built with older libraries, too, in which `pop` asked the driver itself. A method of the queue's own goes before
/// this one.
#[allow(dead_code)]
trait AsksInPop {
    fn call_for_more(&mut self) -> bool {
        false
    }
}

impl AsksInPop for Queue {}
