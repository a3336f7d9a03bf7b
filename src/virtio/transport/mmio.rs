//! The MMIO transport: the guest sees a device as a window of registers in its address space (4.2).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::common::{Beginning, Common};
use super::interrupt::MmioInterrupt;
use super::registers::{Half, Part};
use super::state::TransportState;
use crate::bus::BusDevice;
use crate::error::Result;
use crate::event::IoThread;
use crate::logging::Voice;
use crate::memory::GuestMemory;
use crate::sys::EventFd;
use crate::virtio::device::VirtioDevice;
use crate::virtio::failure::Failure;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::metrics::TransportMetrics;
use crate::virtio::spec::mmio as reg;

/// "vmcl", little-endian: the specification leaves the value to the maker.
const VENDOR: u32 = u32::from_le_bytes(*b"vmcl");

/// The MMIO transport, in its modern version only: [`WINDOW`](super::super::spec::mmio::WINDOW) bytes of registers in front of
/// a device.
///
/// Put it on a bus, connect [`interrupt`](Self::interrupt) to an edge-triggered irqfd, and, for speed, each of the
/// [`doorbells`](Self::doorbells) to an ioeventfd at offset 0x50 that matches the queue's index as 32 bits; a doorbell that
/// comes over the bus works as well. The device is owned by the I/O thread. Dropping the transport waits
/// until it is off that thread, and drops it.
///
/// Register accesses do not wait for the device, with two exceptions: a reset holds the vCPU that asks for it until nothing is in
/// flight from before, and a write to the config space holds it until the device was told. Both waits end at
/// [`close`](Self::close). Neither can be done by the I/O thread that serves the device, for which they are ignored. An access that is illegal in the present state is ignored, and leaves the device as it was.
pub struct MmioTransport {
    common: Common,
    interrupt: Arc<MmioInterrupt>,
}

impl MmioTransport {
    /// Puts a device behind a transport and gives it to an I/O thread. The device runs once the guest's driver is ready. Must not
    /// be called on that thread.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if a queue's largest size is not a power of two;
    /// [`ErrorKind::Host`](crate::ErrorKind::Host) if the process may open no more descriptors; and any error that the device
    /// or its backend returns when it attaches to the thread.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory, io_thread: &IoThread) -> Result<Arc<Self>> {
        Self::begin(device, memory, io_thread, None, Voice::default())
    }

    /// Does the same as [`new`](Self::new), or as [`restore`](Self::restore) from a state, and says what happens to the device.
    pub(crate) fn saying(
        voice: Voice,
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        io_thread: &IoThread,
        state: Option<&TransportState>,
    ) -> Result<Arc<Self>> {
        Self::begin(device, memory, io_thread, state, voice)
    }

    /// Goes on from a state that [`save`](Self::save) returned, with a new device of the same type and memory with the same
    /// content. The device is paused until [`resume`](Self::resume).
    ///
    /// The device's own part of the state is only handed to it when it is activated. If the device refuses that part, this call
    /// succeeds all the same, and the driver is told that the device needs a reset.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the state is of another
    /// version or another device, or holds what no driver can have set.
    pub fn restore(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        io_thread: &IoThread,
        state: &TransportState,
    ) -> Result<Arc<Self>> {
        Self::begin(device, memory, io_thread, Some(state), Voice::default())
    }

    fn begin(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        io_thread: &IoThread,
        state: Option<&TransportState>,
        voice: Voice,
    ) -> Result<Arc<Self>> {
        let interrupt = Arc::new(MmioInterrupt::new()?);
        let raises: Arc<dyn Interrupt> = interrupt.clone();
        let common = Common::new(device, memory, io_thread, Beginning { interrupt: raises, voice, state })?;
        if let Some(state) = state {
            interrupt.restore(state.interrupt_status);
        }
        Ok(Arc::new(Self { common, interrupt }))
    }

    /// Returns one eventfd per queue, by index. Signalling it does the same as the driver's doorbell.
    pub fn doorbells(&self) -> &[Arc<EventFd>] {
        self.common.doorbells()
    }

    /// Returns the eventfd that is signalled for each interrupt. The interrupt status register holds the reasons.
    pub fn interrupt(&self) -> &EventFd {
        self.interrupt.line()
    }

    /// Returns what the device and its driver have done so far. Never blocks.
    pub fn metrics(&self) -> TransportMetrics {
        let counters = self.common.counters();
        let (failures, needs_reset) = self.common.failures();
        TransportMetrics {
            chains: counters.chains.get(),
            refused_chains: counters.refused_chains.get(),
            doorbells: counters.doorbells.get(),
            interrupts: self.interrupt.raised(),
            failures,
            needs_reset,
        }
    }

    /// Returns the last failure of the device; `None` if it has not failed since it was made. Never waits for the device.
    pub fn failure(&self) -> Option<Failure> {
        self.common.failure()
    }

    /// How many vCPUs a reset or a write to the config space holds up now.
    pub(crate) fn held_vcpus(&self) -> usize {
        self.common.held()
    }

    /// Reads the counters that the device [has itself](VirtioDevice::metrics), by name. Never blocks.
    pub fn own_counters(&self) -> BTreeMap<String, u64> {
        self.common.own_counters()
    }

    /// Stops the device between two requests. When this returns, nothing is in flight, and the device touches neither guest
    /// memory nor its backend. Waits for that, but no longer than `limit`. If the transport is or becomes closed, there is
    /// nothing to wait for.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if something was still in flight at the limit; the device goes on.
    /// [`ErrorKind::InvalidState`](crate::ErrorKind::InvalidState) on the device's own I/O thread, or if another thread resumed
    /// the device meanwhile.
    pub fn pause(&self, limit: Duration) -> Result<()> {
        self.common.pause(limit)
    }

    /// Goes on after a pause, first with the queues for which the driver rang meanwhile. Never waits for the device.
    pub fn resume(&self) {
        self.common.resume();
    }

    /// Stops the device for good, without waiting: it gets no more chains, and is not called again. A turn that is under way ends
    /// some time later, and dropping the transport waits for it. Any thread may call this.
    pub fn close(&self) {
        self.common.close();
    }

    /// Returns the state of a paused device, as plain data. [Pause](Self::pause) it first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`](crate::ErrorKind::InvalidState) if the device is not paused, has failed, or cannot be
    /// saved, and on the device's own I/O thread.
    pub fn save(&self) -> Result<TransportState> {
        self.common.save(self.interrupt.status())
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            reg::MAGIC_VALUE => reg::MAGIC,
            reg::VERSION => reg::VERSION_2,
            reg::DEVICE_ID => self.common.device_id(),
            reg::VENDOR_ID => VENDOR,
            reg::DEVICE_FEATURES => self.common.registers().offered_half(),
            reg::QUEUE_NUM_MAX => self.common.registers().queue_max_size().into(),
            reg::QUEUE_READY => self.common.registers().queue_is_ready().into(),
            reg::INTERRUPT_STATUS => self.interrupt.status(),
            reg::STATUS => self.common.status(),
            // There is no shared memory region, which reads as a length of all ones (4.2.2).
            reg::SHM_LEN_LOW..=reg::SHM_BASE_HIGH => u32::MAX,
            reg::CONFIG_GENERATION => self.common.config_generation(),
            _ => 0,
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        let common = &self.common;
        let address = |part, half| common.registers().set_queue_address(part, half, value);
        match offset {
            reg::DEVICE_FEATURES_SEL => common.registers().device_features_sel = value,
            reg::DRIVER_FEATURES_SEL => common.registers().driver_features_sel = value,
            reg::DRIVER_FEATURES => common.registers().accept(value),
            reg::QUEUE_SEL => common.registers().queue_sel = value,
            reg::QUEUE_NUM => common.registers().set_queue_size(value),
            reg::QUEUE_READY => common.registers().set_queue_ready(value, common.memory()),
            reg::QUEUE_NOTIFY => common.ring(value),
            reg::INTERRUPT_ACK => self.interrupt.acknowledge(value),
            reg::STATUS => common.write_status(value),
            reg::QUEUE_DESC_LOW => address(Part::DescTable, Half::Low),
            reg::QUEUE_DESC_HIGH => address(Part::DescTable, Half::High),
            reg::QUEUE_DRIVER_LOW => address(Part::AvailRing, Half::Low),
            reg::QUEUE_DRIVER_HIGH => address(Part::AvailRing, Half::High),
            reg::QUEUE_DEVICE_LOW => address(Part::UsedRing, Half::Low),
            reg::QUEUE_DEVICE_HIGH => address(Part::UsedRing, Half::High),
            _ => {}
        }
    }
}

impl BusDevice for MmioTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            if is_config_width(data.len()) {
                self.common.read_config(offset, data);
            }
        } else if let Ok(data) = <&mut [u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            *data = self.read_register(offset).to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            if is_config_width(data.len()) {
                self.common.write_config(offset, data);
            }
        } else if let Ok(data) = <[u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            self.write_register(offset, u32::from_le_bytes(data));
        }
    }
}

fn is_config_width(len: usize) -> bool {
    matches!(len, 1 | 2 | 4 | 8)
}

#[cfg(test)]
#[path = "mmio_test.rs"]
mod tests;
