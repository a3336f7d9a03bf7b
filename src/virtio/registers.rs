//! The register file of the MMIO transport (4.2.2): what the driver has set, and what it may set when.

use super::queue::QueueConfig;
use super::spec::mmio as reg;
use super::status::DeviceStatus;
use crate::error::Result;
use crate::memory::{GuestAddress, GuestMemory};

/// "vmcl", little-endian: the specification leaves the value to the maker.
const VENDOR: u32 = u32::from_le_bytes(*b"vmcl");

pub(super) struct Registers {
    device_id: u32,
    offered: u64,
    accepted: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    queues: Vec<QueueSlot>,
    pub(super) status: DeviceStatus,
}

#[derive(Clone, Copy)]
struct QueueSlot {
    config: QueueConfig,
    ready: bool,
}

impl Registers {
    pub(super) fn new(device_id: u32, offered: u64, max_sizes: &[u16]) -> Result<Self> {
        let slot = |&max_size: &u16| Ok(QueueSlot { config: QueueConfig::new(max_size)?, ready: false });
        Ok(Self {
            device_id,
            offered,
            accepted: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues: max_sizes.iter().map(slot).collect::<Result<_>>()?,
            status: DeviceStatus::default(),
        })
    }

    pub(super) fn reset(&mut self) {
        self.accepted = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.queue_sel = 0;
        self.status = DeviceStatus::default();
        for slot in &mut self.queues {
            // The largest size was a valid one when the slot was made.
            slot.config = QueueConfig::new(slot.config.max_size()).unwrap_or(slot.config);
            slot.ready = false;
        }
    }

    /// The features that the driver has accepted.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The queues that the driver has made ready, by index.
    pub(super) fn ready_queues(&self) -> impl Iterator<Item = Option<QueueConfig>> + '_ {
        self.queues.iter().map(|slot| slot.ready.then_some(slot.config))
    }

    /// The registers that do not belong to the interrupt or the status; what is not there reads zero.
    pub(super) fn read(&self, offset: u64) -> u32 {
        match offset {
            reg::MAGIC_VALUE => reg::MAGIC,
            reg::VERSION => reg::VERSION_2,
            reg::DEVICE_ID => self.device_id,
            reg::VENDOR_ID => VENDOR,
            reg::DEVICE_FEATURES => half(self.offered, self.device_features_sel),
            reg::QUEUE_NUM_MAX => self.selected().map_or(0, |slot| slot.config.max_size().into()),
            reg::QUEUE_READY => self.selected().map_or(0, |slot| slot.ready.into()),
            // There is no shared memory region, which reads as a length of all ones (4.2.2).
            reg::SHM_LEN_LOW..=reg::SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    /// A write by the driver. What is not allowed in the present state is refused, and changes nothing.
    pub(super) fn write(&mut self, offset: u64, value: u32, memory: &GuestMemory) {
        match offset {
            reg::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            reg::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            reg::DRIVER_FEATURES => self.accept(value),
            reg::QUEUE_SEL => self.queue_sel = value,
            reg::QUEUE_READY => self.set_ready(value, memory),
            _ => self.configure(offset, value),
        }
    }

    fn accept(&mut self, value: u32) {
        if !self.status.may_set_features() {
            return;
        }
        match self.driver_features_sel {
            0 => self.accepted = set_low(self.accepted, value),
            1 => self.accepted = set_high(self.accepted, value),
            _ => {}
        }
    }

    fn configure(&mut self, offset: u64, value: u32) {
        let allowed = self.status.may_set_queues();
        let Some(slot) = self.selected_mut().filter(|slot| allowed && !slot.ready) else { return };
        let config = &mut slot.config;
        let (part, set): (_, fn(u64, u32) -> u64) = match offset {
            // A size that does not fit is kept as one that no queue can have.
            reg::QUEUE_NUM => return config.size = u16::try_from(value).unwrap_or(0),
            reg::QUEUE_DESC_LOW => (&mut config.desc_table, set_low),
            reg::QUEUE_DESC_HIGH => (&mut config.desc_table, set_high),
            reg::QUEUE_DRIVER_LOW => (&mut config.avail_ring, set_low),
            reg::QUEUE_DRIVER_HIGH => (&mut config.avail_ring, set_high),
            reg::QUEUE_DEVICE_LOW => (&mut config.used_ring, set_low),
            reg::QUEUE_DEVICE_HIGH => (&mut config.used_ring, set_high),
            _ => return,
        };
        *part = GuestAddress(set(part.0, value));
    }

    fn set_ready(&mut self, value: u32, memory: &GuestMemory) {
        let allowed = self.status.may_set_queues();
        let Some(slot) = self.selected_mut().filter(|_| allowed) else { return };
        match value {
            0 => slot.ready = false,
            // A queue that cannot run does not become ready, and reads so.
            1 => slot.ready = slot.ready || slot.config.validate(memory).is_ok(),
            _ => {}
        }
    }

    fn selected(&self) -> Option<&QueueSlot> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn selected_mut(&mut self) -> Option<&mut QueueSlot> {
        self.queues.get_mut(usize::try_from(self.queue_sel).ok()?)
    }
}

fn half(value: u64, selector: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match selector {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_low(value: u64, low: u32) -> u64 {
    value & !u64::from(u32::MAX) | u64::from(low)
}

fn set_high(value: u64, high: u32) -> u64 {
    value & u64::from(u32::MAX) | u64::from(high) << 32
}
