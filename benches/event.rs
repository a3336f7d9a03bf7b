//! An I/O thread without a thread: waking a participant, and giving it a turn.

use std::sync::mpsc::{Sender, channel};

use vmcell::event::{Event, Io, Waker};
use vmcell::net::{NicBackend, NicInfo, RxBatch, TxBatch};
use vmcell::testing::{DriverQueue, InlineIo, MmioDriver, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::{GuestAddress, Nic, Result};

use crate::piece::Piece;

const ROOM: &str = "event";
const MANY: u64 = 64;

pub const PIECES: &[Piece] = &[
    Piece { room: ROOM, name: "wake-turn", operations: 1, make: wake_turn },
    Piece { room: ROOM, name: "wake-again", operations: MANY, make: wake_again },
    Piece { room: ROOM, name: "idle-round", operations: 1, make: idle_round },
];

/// Gives its waker away, and does nothing else.
struct Sleeper {
    wakers: Sender<Waker>,
}

impl NicBackend for Sleeper {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        let _ = self.wakers.send(io.waker(token));
        Ok(())
    }

    fn receive(&mut self, _io: &mut Io, _frames: &mut RxBatch) {}

    fn send(&mut self, _io: &mut Io, _frames: &mut TxBatch) {}

    fn woken(&mut self, _io: &mut Io, _event: &Event) {}
}

/// A running NIC at rest, and its waker. Closures are to use its methods, which hold all of it.
struct Rig {
    inline: InlineIo,
    waker: Waker,
    _driver: MmioDriver,
}

impl Rig {
    fn new() -> Self {
        let (inline, memory) = (InlineIo::new(), patterned_memory(1 << 20));
        let (wakers, made) = channel();
        let device = Nic::backend(Sleeper { wakers }).into_device().expect("the NIC is well-formed");
        let transport =
            MmioTransport::new(device, memory.clone(), inline.io_thread()).expect("the device is well-formed");
        let driver = MmioDriver::new(transport);
        let queues = [0x1000, 0x2000, 0x3000].map(|base| DriverQueue::new(&memory, GuestAddress(base), 16));
        driver.bring_up(driver.offered(), &queues.each_ref());
        assert!(inline.settle(8).is_some(), "the NIC does not come to rest");
        let waker = made.recv().expect("the backend was attached");
        Self { inline, waker, _driver: driver }
    }

    fn wake(&self) {
        self.waker.wake();
    }

    /// Says how many turns it was.
    fn round(&self) -> usize {
        self.inline.round()
    }
}

fn wake_turn() -> Box<dyn FnMut()> {
    let rig = Rig::new();
    Box::new(move || {
        rig.wake();
        assert_eq!(rig.round(), 1);
    })
}

/// Wakes one that was woken already, but for the first time.
fn wake_again() -> Box<dyn FnMut()> {
    let rig = Rig::new();
    Box::new(move || (0..MANY).for_each(|_| rig.wake()))
}

fn idle_round() -> Box<dyn FnMut()> {
    let rig = Rig::new();
    Box::new(move || assert_eq!(rig.round(), 0))
}
