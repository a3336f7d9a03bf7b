//! The contract between a device and its transport.

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Io, Wants};
use crate::memory::GuestMemory;
use crate::meter::Meter;
use crate::virtio::queue::Queues;

/// A virtio device, apart from how the guest finds it and sets it up, which is the transport's part.
///
/// # States
/// ```text
///            activate                         an error
/// inactive ----------> active -------------------------------> failed
///    ^                   |                                        |
///    +------- reset -----+-------------------- reset -------------+
///
/// any ---- a panic, or Io::give_up ----> dropped
/// ```
/// A device starts inactive. Between `activate` and `reset`, it is lent its queues with each call. While it is paused, the queues
/// give no chains. A *chain* is one request of the driver, and the driver *rings* for a queue when it has put chains there.
///
/// # Who checks what
/// The transport checks features, queue addresses and the order of calls, and a queue checks the shape of each chain. The device
/// checks what is *in* the buffers, and completes each chain that it takes. If it returns an error, it cannot go on: it is
/// [reset](Self::reset) at once, so that it lets go of its chains, and the driver is told that the device needs a reset.
/// [`Vm::device_failures`](crate::Vm::device_failures), or [`MmioTransport::failure`](super::MmioTransport::failure), tells the host
/// program. A bad request is the driver's mistake and no reason for an error: the device answers it.
///
/// A device that panics, in whatever call, or [gives up](Io::give_up) is **never called again**. It is dropped, on a thread made for that,
/// and with it the chains that it holds. From then on the driver is told that the device needs a reset, also after each reset.
/// A panic before the device has attached is the error of building the VM or the transport.
///
/// # Threads
/// An I/O thread owns the device, and only that thread calls it, except that [`info`](Self::info) and [`config`](Self::config)
/// are first called before it gets there. vCPU threads only read what was published, and send messages. A call must not
/// block: a device that has to wait says what for in [`wants`](Self::wants), or gives its chains to a thread of its own, which
/// sends them back and uses a [`Waker`](crate::event::Waker). Each call ends soon after [`Io::spent`] says so; the rest is
/// done in the next turn.
///
/// # Example
/// A device that answers each request with the number of bytes that it was sent:
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
/// // `VmBuilder::device` gives a device to a VM. Here, a driver in the same process sends it a request.
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
    /// Describes the device. Called once, before the device is given to its thread.
    fn info(&self) -> DeviceInfo;

    /// Returns the content of the config space. Called once before the device is given to its thread, and again after each turn
    /// in which it said that [something changed](Io::info_changed): then the driver is told. The length must never change.
    fn config(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The first call on the thread that owns the device. It makes its tokens and wakers here, if it needs any.
    ///
    /// # Errors
    /// If the device cannot work. The VM, or the transport, is not made then.
    fn attach(&mut self, _io: &mut Io) -> Result<()> {
        Ok(())
    }

    /// The driver is ready. [`process_queue`](Self::process_queue) follows for each queue. If the device is restored, the
    /// activation holds what [`save`](Self::save) returned, which the device must check. If it then says that
    /// [something changed](Io::info_changed), its config space is read anew, and the driver, which knows it, is not told.
    ///
    /// # Errors
    /// If the device cannot work, or cannot go on from that state. The driver is told that the device needs a reset.
    fn activate(&mut self, io: &mut Io, activation: Activation) -> Result<()>;

    /// The driver rang for this queue, or the last turn ended before the queue was empty, or a pause is over.
    ///
    /// # Errors
    /// If the queue or the device cannot go on. The driver is told that the device needs a reset.
    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> Result<()>;

    /// The driver wrote 1, 2, 4 or 8 bytes to the config space. By default, the device ignores them.
    fn write_config(&mut self, _io: &mut Io, _offset: u64, _data: &[u8]) {}

    /// The driver has read from the config space for the first time since it was [told](Io::info_changed) of a change. By default, that is
    /// nothing to the device.
    fn config_read(&mut self, _io: &mut Io) {}

    /// Says what the device waits for now. Called after each turn, but not while the device is paused.
    fn wants(&self, _wants: &mut Wants) {}

    /// Something happened that the device waits for. After a reset or a failure, there may still be events of what was in
    /// flight, and then there are no queues.
    ///
    /// # Errors
    /// Those of [`process_queue`](Self::process_queue).
    fn woken(&mut self, _io: &mut Io, _queues: &mut Queues, _event: &Event) -> Result<()> {
        Ok(())
    }

    /// The device is being paused: it puts back the chains with which it has not begun, and hurries the others. Called once per
    /// pause. The transport waits until nothing is in flight, and goes on calling [`woken`](Self::woken) until then.
    ///
    /// # Errors
    /// Those of [`process_queue`](Self::process_queue).
    fn quiesce(&mut self, _io: &mut Io, _queues: &mut Queues) -> Result<()> {
        Ok(())
    }

    /// Goes back to the state before `activate`. The device drops its chains and cancels what is in flight. The transport waits
    /// until no chain and no buffer in the guest's memory is left, on whatever thread. Called in any state. If the device has
    /// failed, it is called at once, and again when the driver resets it.
    fn reset(&mut self, io: &mut Io);

    /// The device is never called again, since the VM has ended or is dropped: it lets go of what others wait for, such as connections.
    /// Called at most once, while nothing touches the guest's memory any more. A device that panics, or whose thread has ended, is
    /// dropped without this call.
    fn closed(&mut self) {}

    /// Hands over the counters that the device keeps, for [`Vm::metrics`](crate::Vm::metrics). Called once, before the device is given
    /// to its thread.
    fn metrics(&self, _meter: &mut Meter) {}

    /// Refuses a saved state that the device cannot go on from, because it is that of another disk, for instance. Called before the device
    /// is given to its thread, so that the VM is not built then; [`activate`](Self::activate) gets the state afterwards.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], with what is refused and what is allowed.
    fn check_state(&self, _state: &DeviceState) -> Result<()> {
        Ok(())
    }

    /// Returns what has to be known, apart from the features and the queues, to build the device anew and go on with it. Called
    /// while nothing is in flight.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the device cannot be saved, which is the default.
    fn save(&self) -> Result<DeviceState> {
        let id = self.info().device_id;
        Err(Error::new(ErrorKind::InvalidState, format!("a virtio device of type {id} cannot be saved")))
    }
}

/// Describes a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The type of the device (5).
    pub device_id: u32,
    /// The device's own features, as a mask of bits. The transport adds its own and those of the queues.
    pub features: u64,
    /// The features that the driver may only accept together with others (as in 5.1.3.1).
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
    /// Describes a device of a type, with the largest size of each of its queues, and without features of its own.
    pub fn new(device_id: u32, queue_sizes: &[u16]) -> Self {
        Self { device_id, features: 0, requirements: Vec::new(), queue_sizes: queue_sizes.to_vec() }
    }

    /// Sets the device's own features, given as a mask of bits.
    #[must_use]
    pub fn features(mut self, features: u64) -> Self {
        self.features |= features;
        self
    }

    /// Says that the driver may only accept `feature`, a bit number, together with at least one of the features in the mask
    /// `any_of`.
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

/// What a device is told when the driver is ready.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Activation {
    /// The features that both sides have agreed on, as a mask of bits.
    pub features: u64,
    /// The guest's RAM.
    pub memory: GuestMemory,
    /// What the device [saved](VirtioDevice::save), if it is restored.
    pub state: Option<DeviceState>,
}

impl Activation {
    /// Makes what a transport hands over.
    pub fn new(features: u64, memory: GuestMemory, state: Option<DeviceState>) -> Self {
        Self { features, memory, state }
    }

    /// Whether both sides have agreed on a feature, given as its bit number.
    pub fn has(&self, feature: u32) -> bool {
        has(self.features, feature)
    }
}

/// What a device saved: plain data that only the device itself understands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct DeviceState {
    /// The version of the format of `bytes`. The device decides which versions it reads.
    pub version: u32,
    /// The state.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::hex"))]
    pub bytes: Vec<u8>,
}

impl DeviceState {
    /// Makes a state in the given version of the device's format.
    pub fn new(version: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { version, bytes: bytes.into() }
    }
}

fn has(features: u64, feature: u32) -> bool {
    features.checked_shr(feature).is_some_and(|bits| bits & 1 == 1)
}
