//! What every transport does with a device, however its registers are laid out: status, features, activation, reset, pause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::registers::{Registers, refused};
use super::state::TransportState;
use super::status::StatusWrite;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{IoThread, Membership};
use crate::logging::Voice;
use crate::memory::GuestMemory;
use crate::meter::Meter;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::{EventFd, lock};
use crate::virtio::device::{DeviceInfo, DeviceState, VirtioDevice};
use crate::virtio::failure::Failure;
use crate::virtio::gate::{Gate, Message, Outcome, Plan, Saved, Ticket};
use crate::virtio::guarded::Guarded;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::metrics::DeviceCounters;
use crate::virtio::owner::Owner;
use crate::virtio::queue::QueueState;
use crate::virtio::spec::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC, VERSION_1};
use crate::virtio::spec::status::DEVICE_NEEDS_RESET;

/// What the transport and the queues offer beside the device's own features.
const OFFERED: u64 = 1 << VERSION_1 | 1 << RING_EVENT_IDX | 1 << RING_INDIRECT_DESC;

/// How long the saving of a device that stands still may take.
const SAVE_LIMIT: Duration = Duration::from_secs(10);

/// The half of a device that vCPU threads and the host program reach.
pub(super) struct Common {
    gate: Arc<Gate>,
    registers: Mutex<Registers>,
    info: DeviceInfo,
    doorbells: Vec<Arc<EventFd>>,
    memory: GuestMemory,
    membership: Membership,
    meter: Meter,
    /// vCPUs that wait for the device.
    held: AtomicUsize,
}

/// With what a device begins.
pub(super) struct Beginning<'a> {
    pub(super) interrupt: Arc<dyn Interrupt>,
    pub(super) voice: Voice,
    /// To go on from, standing still at first.
    pub(super) state: Option<&'a TransportState>,
}

impl Common {
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        io_thread: &IoThread,
        beginning: Beginning<'_>,
    ) -> Result<Self> {
        let mut device = Guarded::new(device, "device", ErrorKind::Host);
        let mut info = device.ask(|device| device.info())?;
        info.features |= OFFERED;
        let mut registers = Registers::new(info.features, &info.queue_sizes)?;
        if let Some(state) = beginning.state {
            check(state, &info)?;
            registers.restore(state, &memory)?;
            if registers.status.has_features() && !accepts(&info, state.features) {
                let features = state.features;
                return Err(refused(format!("the features {features:#x} are none that the device agrees on")));
            }
            if let Some(state) = &state.device {
                device.ask(|device| device.check_state(state))??;
            }
        }
        let doorbells = info.queue_sizes.iter().map(|_| Ok(Arc::new(EventFd::new()?))).collect::<Result<Vec<_>>>()?;
        let gate = Arc::new(Gate::new(&device.ask(|device| device.config())?));
        let mut meter = Meter::new();
        device.ask(|device| device.metrics(&mut meter))?;
        let still = beginning.state.is_some();
        let owner = Owner::new(device, Arc::clone(&gate), beginning.interrupt, memory.clone(), &doorbells, still)
            .saying(beginning.voice);
        let membership = io_thread.add(Box::new(owner))?;
        let held = AtomicUsize::new(0);
        let common = Self { gate, registers: Mutex::new(registers), info, doorbells, memory, membership, meter, held };
        if let Some(state) = beginning.state {
            common.go_on(state);
        }
        Ok(common)
    }

    fn go_on(&self, state: &TransportState) {
        let registers = self.registers();
        // One that was active has a state, also if its driver has given up since.
        if registers.status.is_driver_ok() && state.device.is_some() {
            let progress = state.queues.iter().map(|queue| queue.progress);
            self.activate(&registers, progress, state.device.clone());
        }
    }

    pub(super) fn registers(&self) -> MutexGuard<'_, Registers> {
        lock(&self.registers)
    }

    pub(super) fn device_id(&self) -> u32 {
        self.info.device_id
    }

    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    pub(super) fn doorbells(&self) -> &[Arc<EventFd>] {
        &self.doorbells
    }

    /// What was counted, but for interrupts, which another one raises.
    pub(super) fn counters(&self) -> &DeviceCounters {
        &self.gate.counters
    }

    /// What the device itself counts, by name.
    pub(super) fn own_counters(&self) -> BTreeMap<String, u64> {
        self.meter.read()
    }

    /// What was counted of failures, and whether the driver is told of one now.
    pub(super) fn failures(&self) -> (u64, bool) {
        (self.gate.failures.count.get(), self.gate.needs_reset())
    }

    /// The last failure of the device, if it has failed.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.gate.failures.read(self.gate.needs_reset())
    }

    /// The driver rings for a queue.
    pub(super) fn ring(&self, queue: u32) {
        if let Some(doorbell) = usize::try_from(queue).ok().and_then(|queue| self.doorbells.get(queue)) {
            doorbell.signal();
        }
    }

    pub(super) fn config_generation(&self) -> u32 {
        self.gate.config.generation()
    }

    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.gate.read_config(offset, data);
    }

    /// Tells the device what the driver writes, and waits until it has been told: so a driver that writes all the time has
    /// one message under way for each of its vCPUs.
    pub(super) fn write_config(&self, offset: u64, data: &[u8]) {
        let allowed = {
            let registers = self.registers();
            registers.status.may_set_config() && registers.resets == 0 && !self.membership.is_on_this_thread()
        };
        let mut bytes = [0; 8];
        let Some(part) = bytes.get_mut(..data.len()).filter(|_| allowed) else { return };
        part.copy_from_slice(data);
        let _ = self.ask(|done| Message::WriteConfig { offset, data: bytes, len: data.len(), done });
    }

    /// On a vCPU's thread, which waits.
    fn ask(&self, message: impl FnOnce(Arc<Ticket<()>>) -> Message) -> Outcome<()> {
        self.held.fetch_add(1, Ordering::SeqCst);
        let outcome = self.gate.ask(None, message);
        self.held.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    /// How many vCPUs wait for the device.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    pub(super) fn status(&self) -> u32 {
        let failed = if self.gate.needs_reset() { DEVICE_NEEDS_RESET } else { 0 };
        self.registers().status.bits() | failed
    }

    pub(super) fn write_status(&self, value: u32) {
        let mut registers = self.registers();
        match registers.status.after(value) {
            StatusWrite::Refused => {}
            StatusWrite::Reset if self.membership.is_on_this_thread() => {}
            StatusWrite::Reset => {
                registers.resets = registers.resets.saturating_add(1);
                // Linux does not poll the status on MMIO: for its driver the reset is over when the write returns. Other
                // vCPUs must not wait for it, so nothing is locked meanwhile.
                drop(registers);
                self.reset();
            }
            StatusWrite::Forward { .. } if registers.resets > 0 => {}
            StatusWrite::Forward { negotiates: true, .. } if !accepts(&self.info, registers.accepted()) => {}
            StatusWrite::Forward { next, activates, .. } => {
                registers.status = next;
                // A device that has failed stays still until it is reset, however far its driver goes.
                if activates && !self.gate.needs_reset() {
                    self.activate(&registers, std::iter::repeat(QueueState::default()), None);
                }
            }
        }
    }

    fn reset(&self) {
        let outcome = self.ask(Message::Reset);
        let mut registers = self.registers();
        registers.resets = registers.resets.saturating_sub(1);
        if matches!(outcome, Outcome::Answered(())) {
            registers.reset();
        }
    }

    fn activate(
        &self,
        registers: &Registers,
        progress: impl IntoIterator<Item = QueueState>,
        state: Option<DeviceState>,
    ) {
        let queues = registers.ready_queues().zip(progress).map(|(config, progress)| Some((config?, progress)));
        self.gate.post(Message::Activate(Plan { features: registers.accepted(), queues: queues.collect(), state }));
    }

    /// Stops the device between two requests. When this returns, nothing is in flight, and nobody touches guest memory for
    /// it.
    pub(super) fn pause(&self, limit: Duration) -> Result<()> {
        self.check_may_wait("paused")?;
        let deadline = Instant::now().checked_add(limit);
        match self.gate.ask(deadline, Message::Quiesce) {
            Outcome::Answered(paused) => paused,
            Outcome::Closed => Ok(()),
            Outcome::TimedOut => {
                self.resume();
                let (id, millis) = (self.device_id(), limit.as_millis());
                let message =
                    format!("a virtio device of type {id} had requests in flight for {millis} ms, so it goes on");
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }

    /// The thread that serves the device would wait for itself.
    fn check_may_wait(&self, what: &str) -> Result<()> {
        if self.membership.is_on_this_thread() {
            let message = format!("a device cannot be {what} by the thread that serves it");
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        Ok(())
    }

    pub(super) fn resume(&self) {
        self.gate.post(Message::Resume);
    }

    pub(super) fn close(&self) {
        self.gate.close();
    }

    pub(super) fn save(&self, interrupt_status: u32) -> Result<TransportState> {
        self.check_may_wait("saved")?;
        let deadline = Instant::now().checked_add(SAVE_LIMIT);
        let Saved { queues, device } = match self.gate.ask(deadline, Message::Save) {
            Outcome::Answered(saved) => saved?,
            Outcome::Closed => return Err(Error::new(ErrorKind::InvalidState, "the device has ended")),
            Outcome::TimedOut => return Err(Error::new(ErrorKind::Timeout, "the device was not saved in time")),
        };
        let mut state = TransportState {
            version: TransportState::VERSION,
            device_id: self.device_id(),
            status: 0,
            features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            interrupt_status,
            queues: Vec::new(),
            device,
        };
        self.registers().save(&mut state, &queues);
        Ok(state)
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        self.gate.close();
    }
}

/// Whether the device agrees on features that the driver has chosen.
fn accepts(info: &DeviceInfo, features: u64) -> bool {
    let subset = features & !info.features == 0;
    let modern = features & 1 << VERSION_1 != 0;
    subset && modern && info.allows(features)
}

fn check(state: &TransportState, info: &DeviceInfo) -> Result<()> {
    if state.version != TransportState::VERSION {
        let (found, known) = (state.version, TransportState::VERSION);
        return Err(refused(format!("it is of version {found}, known is {known}")));
    }
    if state.device_id != info.device_id {
        let (found, expected) = (state.device_id, info.device_id);
        return Err(refused(format!("it is of a device of type {found}, the device is of type {expected}")));
    }
    Ok(())
}
