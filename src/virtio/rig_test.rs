//! A device that answers, fails, panics or waits as a test tells it, behind a transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::spec::feature::{RING_EVENT_IDX, VERSION_1};
use super::{Activation, IoThread, MmioTransport, Progress, Queue, VirtioDevice, read_config_bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};
use crate::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};

pub(super) const BUFFER: u64 = 0x10000;
pub(super) const MODERN: u64 = 1 << VERSION_1 | 1 << RING_EVENT_IDX;
pub(super) const OWN_FEATURE: u64 = 1 << 3;

/// What the test sees and steers of the device.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) begun: AtomicU32,
    pub(super) processed: AtomicU32,
    pub(super) resets: AtomicU32,
    pub(super) config_writes: AtomicU32,
    pub(super) panics: AtomicBool,
    pub(super) fails: AtomicBool,
}

/// Answers each chain by four bytes. Where it has a gate, it waits in the middle of each request.
struct Echo {
    seen: Arc<Seen>,
    queue: Option<Queue>,
    gate: Option<Receiver<()>>,
}

impl VirtioDevice for Echo {
    fn device_id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        OWN_FEATURE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[16, 32]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&[1, 2, 3, 4, 5, 6], offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {
        self.seen.config_writes.fetch_add(1, Ordering::SeqCst);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<()> {
        self.queue = activation.take_queue(0);
        Ok(())
    }

    fn process_queue(&mut self, _index: u16) -> Result<Progress> {
        let Some(queue) = &self.queue else { return Ok(Progress::Done) };
        for _ in 0..4 {
            let Some(chain) = queue.pop()? else { return Ok(Progress::Done) };
            assert!(!self.seen.panics.load(Ordering::SeqCst), "told to panic");
            if self.seen.fails.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Host, "told to fail"));
            }
            self.seen.begun.fetch_add(1, Ordering::SeqCst);
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            let written = if chain.write(0, b"echo").is_ok() { 4 } else { 0 };
            self.seen.processed.fetch_add(1, Ordering::SeqCst);
            chain.complete(written);
        }
        Ok(Progress::More)
    }

    fn reset(&mut self) {
        self.seen.resets.fetch_add(1, Ordering::SeqCst);
        self.queue = None;
    }
}

pub(super) struct Rig {
    pub(super) driver: MmioDriver,
    pub(super) queue: DriverQueue,
    pub(super) seen: Arc<Seen>,
    pub(super) memory: GuestMemory,
}

pub(super) fn rig_on(io_thread: &IoThread, gate: Option<Receiver<()>>) -> Rig {
    let memory = patterned_memory(1 << 20);
    let seen = Arc::<Seen>::default();
    let device = Box::new(Echo { seen: Arc::clone(&seen), queue: None, gate });
    let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), io_thread).unwrap());
    let queue = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
    Rig { driver, queue, seen, memory }
}

pub(super) fn rig() -> Rig {
    rig_on(&IoThread::new("test-io").unwrap(), None)
}

pub(super) fn running() -> Rig {
    let rig = rig();
    rig.driver.bring_up(MODERN, &[&rig.queue]);
    rig
}

pub(super) fn gated() -> (Rig, Sender<()>) {
    let (open, gate) = channel();
    let rig = rig_on(&IoThread::new("test-io").unwrap(), Some(gate));
    rig.driver.bring_up(MODERN, &[&rig.queue]);
    (rig, open)
}

impl Rig {
    /// Brings the device up from the beginning, with an empty queue.
    pub(super) fn restart(&mut self) {
        self.queue = DriverQueue::new(&self.memory, GuestAddress(0x1000), 16);
        self.driver.bring_up(MODERN, &[&self.queue]);
    }

    /// Makes a request available without ringing for it.
    pub(super) fn offer(&mut self) {
        self.queue.offer(&[Buffer::writable(BUFFER, 4)]);
    }

    pub(super) fn request(&mut self) {
        let head = self.queue.offer(&[Buffer::writable(BUFFER, 4)]);
        self.driver.kick(0);
        assert_eq!(self.driver.wait_used(&mut self.queue), (head.into(), 4));
    }

    /// Rings, and waits until the device is in the middle of its first request.
    pub(super) fn begin(&self) {
        self.driver.kick(0);
        self.driver.wait_until("the request to begin", || self.seen.begun.load(Ordering::SeqCst) > 0);
    }

    pub(super) fn processed(&self) -> u32 {
        self.seen.processed.load(Ordering::SeqCst)
    }
}
