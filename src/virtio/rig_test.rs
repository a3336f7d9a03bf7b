//! A device that answers, fails, panics or waits as a test tells it, behind a transport.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::spec::feature::{RING_EVENT_IDX, VERSION_1};
use super::{Activation, Chain, DeviceInfo, DeviceState, MmioTransport, Queues, TransportState, VirtioDevice};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Io, IoThread, Waker};
use crate::memory::{GuestAddress, GuestMemory};
use crate::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};

pub(super) const BUFFER: u64 = 0x10000;
pub(super) const MODERN: u64 = 1 << VERSION_1 | 1 << RING_EVENT_IDX;
pub(super) const OWN_FEATURE: u64 = 1 << 3;
/// Needs the other one.
pub(super) const DEPENDENT_FEATURE: u64 = 1 << 5;

/// What the test sees and steers of the device.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) begun: AtomicU32,
    pub(super) processed: AtomicU32,
    pub(super) resets: AtomicU32,
    pub(super) config_writes: AtomicU32,
    /// How many writes there were stands in the config space.
    pub(super) shows_config_writes: AtomicBool,
    pub(super) panics: AtomicBool,
    pub(super) fails: AtomicBool,
}

/// Answers each chain by four bytes. If it has a latch, one chain at a time waits for it.
struct Echo {
    seen: Arc<Seen>,
    latch: Option<Latch>,
    held: Option<Chain>,
}

struct Latch {
    opened: Receiver<()>,
    waker: Arc<OnceLock<Waker>>,
}

/// Lets one chain of a device with a latch go.
pub(super) struct Opener {
    open: Sender<()>,
    waker: Arc<OnceLock<Waker>>,
}

impl Opener {
    pub(super) fn open(&self) {
        self.open.send(()).unwrap();
        self.waker.get().expect("it is attached").wake();
    }
}

impl Echo {
    fn serve(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        loop {
            if let Some(chain) = self.held.take() {
                if self.latch.as_ref().is_some_and(|latch| latch.opened.try_recv().is_err()) {
                    self.held = Some(chain);
                    return Ok(());
                }
                let written = if chain.write(0, b"echo").is_ok() { 4 } else { 0 };
                self.seen.processed.fetch_add(1, Ordering::SeqCst);
                match queues.get(0) {
                    Some(queue) => queue.complete(chain, written),
                    // Reset meanwhile: nobody waits for it any more.
                    None => drop(chain),
                }
            }
            let Some(queue) = queues.get(0) else { return Ok(()) };
            let Some(chain) = queue.pop(io)? else { return Ok(()) };
            assert!(!self.seen.panics.load(Ordering::SeqCst), "told to panic");
            if self.seen.fails.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Host, "told to fail"));
            }
            self.seen.begun.fetch_add(1, Ordering::SeqCst);
            self.held = Some(chain);
        }
    }
}

impl VirtioDevice for Echo {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(42, &[16, 32]).features(OWN_FEATURE | DEPENDENT_FEATURE).requires(5, OWN_FEATURE)
    }

    fn config(&mut self) -> Vec<u8> {
        let mut config = vec![1, 2, 3, 4, 5, 6, 0];
        if self.seen.shows_config_writes.load(Ordering::SeqCst) {
            // Long enough for a driver that does not wait.
            std::thread::sleep(Duration::from_millis(1));
            config[6] = self.seen.config_writes.load(Ordering::SeqCst) as u8;
        }
        config
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        if let Some(latch) = &self.latch {
            let _ = latch.waker.set(io.waker(token));
        }
        Ok(())
    }

    fn write_config(&mut self, io: &mut Io, _offset: u64, _data: &[u8]) {
        self.seen.config_writes.fetch_add(1, Ordering::SeqCst);
        if self.seen.shows_config_writes.load(Ordering::SeqCst) {
            io.info_changed();
        }
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, _index: u16) -> Result<()> {
        self.serve(io, queues)
    }

    fn woken(&mut self, io: &mut Io, queues: &mut Queues, _event: &Event) -> Result<()> {
        self.serve(io, queues)
    }

    fn reset(&mut self, _io: &mut Io) {
        self.seen.resets.fetch_add(1, Ordering::SeqCst);
    }

    fn save(&self) -> Result<DeviceState> {
        Ok(DeviceState::new(1, *b"echo"))
    }
}

pub(super) struct Rig {
    pub(super) driver: MmioDriver,
    pub(super) queue: DriverQueue,
    pub(super) seen: Arc<Seen>,
    pub(super) memory: GuestMemory,
}

pub(super) fn rig_on(io_thread: &IoThread) -> Rig {
    rig_with(io_thread, None)
}

fn rig_with(io_thread: &IoThread, latch: Option<Latch>) -> Rig {
    let memory = patterned_memory(1 << 20);
    let seen = Arc::<Seen>::default();
    let device = Box::new(Echo { seen: Arc::clone(&seen), latch, held: None });
    let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), io_thread).unwrap());
    let queue = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
    Rig { driver, queue, seen, memory }
}

pub(super) fn rig() -> Rig {
    rig_on(&IoThread::new("test-io").unwrap())
}

pub(super) fn running() -> Rig {
    let rig = rig();
    rig.driver.bring_up(MODERN, &[&rig.queue]);
    rig
}

/// A running device whose chains wait until they are let go one by one.
pub(super) fn latched() -> (Rig, Opener) {
    let (open, opened) = channel();
    let waker = Arc::<OnceLock<Waker>>::default();
    let latch = Latch { opened, waker: Arc::clone(&waker) };
    let rig = rig_with(&IoThread::new("test-io").unwrap(), Some(latch));
    rig.driver.bring_up(MODERN, &[&rig.queue]);
    (rig, Opener { open, waker })
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

    /// A device of the same kind, built from a state, in memory that another one left.
    pub(super) fn restored(&self, state: &TransportState, memory: &GuestMemory, io_thread: &IoThread) -> MmioDriver {
        MmioDriver::new(self.try_restored(state, memory, io_thread).unwrap())
    }

    pub(super) fn try_restored(
        &self,
        state: &TransportState,
        memory: &GuestMemory,
        io_thread: &IoThread,
    ) -> Result<Arc<MmioTransport>> {
        let device = Box::new(Echo { seen: Arc::clone(&self.seen), latch: None, held: None });
        MmioTransport::restore(device, memory.clone(), io_thread, state)
    }

    pub(super) fn processed(&self) -> u32 {
        self.seen.processed.load(Ordering::SeqCst)
    }
}
