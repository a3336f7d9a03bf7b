//! The contract between a device and its transport.

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Io, Wants};
use crate::memory::GuestMemory;
use crate::virtio::queue::Queues;

/// A virtio device, without the way in which the guest finds it.
///
/// # States
/// ```text
///            activate                    an error or a panic
/// inactive ----------> active -------------------------------> failed
///    ^                   |                                        |
///    +------- reset -----+-------------------- reset -------------+
/// ```
/// A device starts inactive. Between `activate` and `reset` it is lent its queues with each call. While it is paused, the
/// queues give no chains.
///
/// # Who checks what
/// The transport checks features, queue addresses and the order of calls; a queue checks the shape of each chain. The
/// device checks what is *in* the buffers, and completes each chain that it takes. An error that it returns means that it
/// cannot go on: it is [reset](Self::reset) at once, so that it lets go of its chains, and the driver is told that it needs a
/// reset. A bad request is no such error; it is the driver's, and is answered.
///
/// # Threads
/// The device is owned by an I/O thread, which alone calls it, for all but [`info`](Self::info) and
/// [`config`](Self::config), which are asked before. vCPU threads only read what was published, and send messages. A call
/// must not block: a device that has to wait says what for in [`wants`](Self::wants). Each call ends soon after
/// [`Io::spent`] says so; the rest is done in the next turn. A panic is caught and counts as an error.
///
/// # Example
/// A device that answers each request by the number of bytes that were sent:
/// ```
/// use vmcell::event::Io;
/// use vmcell::virtio::{Activation, DeviceInfo, Queues, VirtioDevice};
///
/// struct Counter;
///
/// impl VirtioDevice for Counter {
///     fn info(&self) -> DeviceInfo {
///         DeviceInfo::new(42, &[64])
///     }
///
///     fn activate(&mut self, _io: &mut Io, _activation: Activation) -> vmcell::Result<()> {
///         Ok(())
///     }
///
///     fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> vmcell::Result<()> {
///         let Some(queue) = queues.get(index) else { return Ok(()) };
///         while let Some(chain) = queue.pop(io)? {
///             let answer = chain.readable_len().to_le_bytes();
///             let written = if chain.write(0, &answer).is_ok() { 4 } else { 0 };
///             queue.complete(chain, written);
///         }
///         Ok(())
///     }
///
///     fn reset(&mut self, _io: &mut Io) {}
/// }
///
/// // In a VM it is `VmBuilder::device` that does this; here, a driver in the same process sends a request.
/// use vmcell::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
/// use vmcell::virtio::MmioTransport;
/// use vmcell::{GuestAddress, IoThread};
///
/// let memory = patterned_memory(1 << 20);
/// let io_thread = IoThread::new("example-io")?;
/// let driver = MmioDriver::new(MmioTransport::new(Box::new(Counter), memory.clone(), &io_thread)?);
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
    /// What the device is. Asked once, before it is given to its thread.
    fn info(&self) -> DeviceInfo;

    /// The config space. Asked once before the device is given to its thread, and again after each turn in which it said
    /// that [something changed](Io::info_changed): then the driver is told. Its length never changes.
    fn config(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The first call on the thread that owns the device, and the one in which it makes its tokens and wakers.
    ///
    /// # Errors
    /// If the device cannot work; then there will be no VM.
    fn attach(&mut self, _io: &mut Io) -> Result<()> {
        Ok(())
    }

    /// The driver is ready. [`process_queue`](Self::process_queue) follows for each queue.
    ///
    /// # Errors
    /// If the device cannot work; the driver is told that it needs a reset.
    fn activate(&mut self, io: &mut Io, activation: Activation) -> Result<()>;

    /// The driver rang for this queue, or the last turn ended before the queue was empty, or a pause is over.
    ///
    /// # Errors
    /// If the queue or the device cannot go on; the driver is told that it needs a reset.
    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> Result<()>;

    /// The driver wrote 1, 2, 4 or 8 bytes to the config space. Ignored unless the device says otherwise.
    fn write_config(&mut self, _io: &mut Io, _offset: u64, _data: &[u8]) {}

    /// Says what the device waits for. Asked after each turn, but not while it stands still.
    fn wants(&self, _wants: &mut Wants) {}

    /// Something happened that the device waits for. After a reset or a failure there may still be events of what was in flight, and
    /// then there are no queues.
    ///
    /// # Errors
    /// As [`process_queue`](Self::process_queue).
    fn woken(&mut self, _io: &mut Io, _queues: &mut Queues, _event: &Event) -> Result<()> {
        Ok(())
    }

    /// The device is to stand still: it puts chains back that it has not begun with, and hurries the others. Called once; the
    /// transport waits until nothing is in flight, and goes on calling [`woken`](Self::woken) until then.
    ///
    /// # Errors
    /// As [`process_queue`](Self::process_queue).
    fn quiesce(&mut self, _io: &mut Io, _queues: &mut Queues) -> Result<()> {
        Ok(())
    }

    /// Back to the state before `activate`. Drops its chains, and cancels what is in flight: the transport waits until no
    /// buffer that reaches into the guest's memory is left. Called in any state, and when the device has failed: once then,
    /// and again when the driver resets it.
    fn reset(&mut self, io: &mut Io);

    /// What has to be known, beside the features and the queues, to build the device anew and go on with it. Called while
    /// nothing is in flight.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the device cannot be saved, which is the default.
    fn save(&self) -> Result<DeviceState> {
        let id = self.info().device_id;
        Err(Error::new(ErrorKind::InvalidState, format!("a virtio device of type {id} cannot be saved")))
    }
}

/// What a device is, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The device's type (5).
    pub device_id: u32,
    /// The features that are the device's own, as a mask of bits. The transport adds its own and the queues'.
    pub features: u64,
    /// Features that the driver may only accept together with others (as in 5.1.3.1).
    pub requirements: Vec<Requirement>,
    /// The largest size of each queue: powers of two from 1 to 32768.
    pub queue_sizes: Vec<u16>,
}

/// A feature that needs another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requirement {
    /// The feature, as its bit number.
    pub feature: u32,
    /// A mask of features of which at least one must be accepted with it.
    pub any_of: u64,
}

impl DeviceInfo {
    /// A device of a type, with the largest sizes of its queues, and without features of its own.
    pub fn new(device_id: u32, queue_sizes: &[u16]) -> Self {
        Self { device_id, features: 0, requirements: Vec::new(), queue_sizes: queue_sizes.to_vec() }
    }

    /// Offers these features, given as a mask of bits.
    #[must_use]
    pub fn features(mut self, features: u64) -> Self {
        self.features |= features;
        self
    }

    /// Lets a feature, given as its bit number, be accepted only together with one of those in a mask.
    #[must_use]
    pub fn requires(mut self, feature: u32, any_of: u64) -> Self {
        self.requirements.push(Requirement { feature, any_of });
        self
    }

    /// Whether the features of a mask may stand together.
    pub(super) fn allows(&self, features: u64) -> bool {
        self.requirements.iter().all(|rule| !has(features, rule.feature) || features & rule.any_of != 0)
    }
}

/// What a device gets when the driver is ready.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Activation {
    /// The features that both sides have agreed on, as a mask of bits.
    pub features: u64,
    /// The guest's RAM.
    pub memory: GuestMemory,
    /// What the device [saved](VirtioDevice::save), if it goes on rather than begins.
    pub state: Option<DeviceState>,
}

impl Activation {
    /// What a transport hands over.
    pub fn new(features: u64, memory: GuestMemory, state: Option<DeviceState>) -> Self {
        Self { features, memory, state }
    }

    /// Whether both sides have agreed on a feature, given as its bit number.
    pub fn has(&self, feature: u32) -> bool {
        has(self.features, feature)
    }
}

/// What a device saved: plain data, whose meaning is the device's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceState {
    /// Which form `bytes` has; the device says which ones it reads.
    pub version: u32,
    /// The state.
    pub bytes: Vec<u8>,
}

impl DeviceState {
    /// A state in the form that `version` stands for.
    pub fn new(version: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { version, bytes: bytes.into() }
    }
}

fn has(features: u64, feature: u32) -> bool {
    features.checked_shr(feature).is_some_and(|bits| bits & 1 == 1)
}
