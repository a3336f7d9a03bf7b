//! The contract between a device and its transport.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::interrupt::Interrupt;
use super::queue::Queue;
use crate::error::Result;
use crate::memory::GuestMemory;

/// A virtio device, without the way in which the guest finds it.
///
/// # States
/// ```text
///            activate                    an error or a panic
/// inactive ----------> active -------------------------------> failed
///    ^                   |                                        |
///    +------- reset -----+-------------------- reset -------------+
/// ```
/// A device starts inactive. Between `activate` and `reset` it owns its queues; it must drop them in `reset`. When the
/// transport is paused or closed the device is not called, and its queues give it no more chains.
///
/// # Who checks what
/// The transport checks features, queue addresses and the order of calls; a queue checks the shape of each chain. The
/// device checks what is *in* the buffers, and completes each chain that it takes. An error that it returns means that it
/// cannot go on: the driver is told that it needs a reset. A bad request is no such error; it is the driver's, and is
/// answered.
///
/// # Threads
/// One call at a time, from the I/O thread (`process_queue`, `process_backend`) or a vCPU thread (all others). A call that
/// waits holds up every other device on that I/O thread, so work is done in bounded batches. A panic is caught and counts
/// as an error.
///
/// # Example
/// A device that answers each request by the number of bytes that were sent:
/// ```
/// use vmcell::virtio::{Activation, Progress, Queue, VirtioDevice};
///
/// #[derive(Default)]
/// struct Counter {
///     queue: Option<Queue>,
/// }
///
/// impl VirtioDevice for Counter {
///     fn device_id(&self) -> u32 {
///         42
///     }
///
///     fn queue_max_sizes(&self) -> &[u16] {
///         &[64]
///     }
///
///     fn activate(&mut self, mut activation: Activation) -> vmcell::Result<()> {
///         self.queue = activation.take_queue(0);
///         Ok(())
///     }
///
///     fn process_queue(&mut self, _index: u16) -> vmcell::Result<Progress> {
///         let Some(queue) = &self.queue else { return Ok(Progress::Done) };
///         for _ in 0..64 {
///             let Some(chain) = queue.pop()? else { return Ok(Progress::Done) };
///             let answer = chain.readable_len().to_le_bytes();
///             let written = if chain.write(0, &answer).is_ok() { 4 } else { 0 };
///             chain.complete(written);
///         }
///         Ok(Progress::More)
///     }
///
///     fn reset(&mut self) {
///         self.queue = None;
///     }
/// }
///
/// // In a VM it is `VmBuilder::device` that does this; here, a driver in the same process sends a request.
/// use vmcell::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
/// use vmcell::virtio::MmioTransport;
/// use vmcell::{GuestAddress, IoThread};
///
/// let memory = patterned_memory(1 << 20);
/// let io_thread = IoThread::new("example-io")?;
/// let driver = MmioDriver::new(MmioTransport::new(Box::<Counter>::default(), memory.clone(), &io_thread)?);
/// let mut queue = DriverQueue::new(&memory, GuestAddress(0x1000), 64);
/// driver.bring_up(driver.offered(), &[&queue]);
/// queue.offer(&[Buffer::readable(0x8000, 300), Buffer::writable(0x9000, 4)]);
/// driver.kick(0);
/// assert_eq!(driver.wait_used(&mut queue), (0, 4));
/// let mut answer = [0; 4];
/// memory.read(GuestAddress(0x9000), &mut answer)?;
/// assert_eq!(u32::from_le_bytes(answer), 300);
/// # Ok::<(), vmcell::Error>(())
/// ```
pub trait VirtioDevice: Send {
    /// The device's type (5).
    fn device_id(&self) -> u32;

    /// The features that are the device's own, as a mask of bits. Those of the transport and the queues are added to it.
    fn features(&self) -> u64 {
        0
    }

    /// Whether the device can work with these features, which are some of the offered ones. Only asked for what the
    /// specification makes depend on another feature.
    fn accepts(&self, _features: u64) -> bool {
        true
    }

    /// The largest size of each queue: powers of two from 1 to 32768. Never changes.
    fn queue_max_sizes(&self) -> &[u16];

    /// Fills `data` with the config space from `offset` bytes on. `data` is 1, 2, 4 or 8 bytes long and zeroed; what lies
    /// past the end of the config space is left so.
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    /// The driver writes 1, 2, 4 or 8 bytes to the config space. Ignored unless the device says otherwise.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready. Must not block.
    ///
    /// # Errors
    /// Where the device cannot work; the driver is told that it needs a reset.
    fn activate(&mut self, activation: Activation) -> Result<()>;

    /// The driver rang for this queue. Called once after activation and after a pause for every queue, too.
    ///
    /// # Errors
    /// Where the queue or the device cannot go on; the driver is told that it needs a reset.
    fn process_queue(&mut self, index: u16) -> Result<Progress>;

    /// The descriptors that the device wants to be called for. Asked once; they stay registered for the device's life.
    fn backend_sources(&self) -> Vec<BackendSource> {
        Vec::new()
    }

    /// What the device waits for on a source now. Asked after each call; nothing is waited for while it is inactive.
    fn backend_interest(&self, _token: usize) -> BackendInterest {
        BackendInterest::default()
    }

    /// A source is ready. It is reported again for as long as it is ready and of interest, so a batch may end early.
    ///
    /// # Errors
    /// As [`process_queue`](Self::process_queue).
    fn process_backend(&mut self, _token: usize, _event: BackendEvent) -> Result<()> {
        Ok(())
    }

    /// Ends what is in flight: when it returns, the device touches neither guest memory nor its backend until it is
    /// called again. Only devices that work on while they are not called have something to do here.
    fn drain(&mut self) {}

    /// Back to the state before `activate`. The queues are closed already: what was in flight is forgotten by the driver,
    /// and completing it does nothing. Called in any state.
    fn reset(&mut self);
}

/// What a device gets when the driver is ready.
#[non_exhaustive]
pub struct Activation {
    /// The features that both sides have agreed on, as a mask of bits.
    pub features: u64,
    /// The queues by index; `None` for one that the driver does not use.
    pub queues: Vec<Option<Queue>>,
    /// The guest's RAM.
    pub memory: GuestMemory,
    /// For a device that tells the driver something outside a call.
    pub interrupt: Arc<dyn Interrupt>,
}

impl Activation {
    /// What a transport hands over.
    pub fn new(features: u64, queues: Vec<Option<Queue>>, memory: GuestMemory, interrupt: Arc<dyn Interrupt>) -> Self {
        Self { features, queues, memory, interrupt }
    }

    /// Whether both sides have agreed on a feature, given as its bit number.
    pub fn has(&self, feature: u32) -> bool {
        self.features.checked_shr(feature).is_some_and(|bits| bits & 1 == 1)
    }

    /// Takes a queue; `None` where the driver does not use it.
    pub fn take_queue(&mut self, index: usize) -> Option<Queue> {
        self.queues.get_mut(index)?.take()
    }
}

/// Whether a batch ended because there was no more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is left, or what is left waits for the backend.
    Done,
    /// There may be more: call again after the others had their turn.
    More,
}

/// A descriptor that a device wants to be called for.
#[derive(Clone, Debug)]
pub struct BackendSource {
    /// The device's own number for it.
    pub token: usize,
    /// The descriptor; one that can be polled, so no regular file.
    pub fd: Arc<OwnedFd>,
}

/// What a device waits for on a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendInterest {
    /// To be called while there is something to read.
    pub readable: bool,
    /// To be called while something may be written.
    pub writable: bool,
}

/// What became of a source. After a hang-up or an error it is not reported again until the device is activated anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendEvent {
    /// There is something to read.
    pub readable: bool,
    /// Something may be written.
    pub writable: bool,
    /// The other side is gone, or the descriptor is in error.
    pub hang_up: bool,
}
