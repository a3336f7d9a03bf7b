//! What the driver has set, and what it may set when: the same for every transport (2.1, 2.2, 4.2.2).

use super::state::{QueueRegisters, TransportState};
use super::status::DeviceStatus;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};
use crate::virtio::queue::{QueueConfig, QueueState};

pub(super) struct Registers {
    offered: u64,
    accepted: u64,
    pub(super) device_features_sel: u32,
    pub(super) driver_features_sel: u32,
    pub(super) queue_sel: u32,
    queues: Vec<QueueSlot>,
    pub(super) status: DeviceStatus,
    /// Threads that wait for a reset to be over. Until then nothing may be set.
    pub(super) resets: usize,
}

#[derive(Clone, Copy)]
struct QueueSlot {
    config: QueueConfig,
    ready: bool,
}

/// A part of a queue whose address the driver sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    DescTable,
    AvailRing,
    UsedRing,
}

/// A half of a 64-bit register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

impl Registers {
    pub(super) fn new(offered: u64, max_sizes: &[u16]) -> Result<Self> {
        let slot = |&max_size: &u16| Ok(QueueSlot { config: QueueConfig::new(max_size)?, ready: false });
        Ok(Self {
            offered,
            accepted: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues: max_sizes.iter().map(slot).collect::<Result<_>>()?,
            status: DeviceStatus::default(),
            resets: 0,
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

    /// The half of the offered features that the driver has selected.
    pub(super) fn offered_half(&self) -> u32 {
        half(self.offered, self.device_features_sel)
    }

    /// The queues that the driver has made ready, by index.
    pub(super) fn ready_queues(&self) -> impl Iterator<Item = Option<QueueConfig>> + '_ {
        self.queues.iter().map(|slot| slot.ready.then_some(slot.config))
    }

    /// The largest size of the selected queue; 0 if there is none.
    pub(super) fn queue_max_size(&self) -> u16 {
        self.selected().map_or(0, |slot| slot.config.max_size())
    }

    pub(super) fn queue_is_ready(&self) -> bool {
        self.selected().is_some_and(|slot| slot.ready)
    }

    /// Accepts features of the selected half.
    pub(super) fn accept(&mut self, value: u32) {
        if !self.status.may_set_features() || self.resets > 0 {
            return;
        }
        match self.driver_features_sel {
            0 => self.accepted = set_half(self.accepted, Half::Low, value),
            1 => self.accepted = set_half(self.accepted, Half::High, value),
            _ => {}
        }
    }

    pub(super) fn set_queue_size(&mut self, value: u32) {
        if let Some(config) = self.settable() {
            // A size that does not fit is kept as one that no queue can have.
            config.size = u16::try_from(value).unwrap_or(0);
        }
    }

    pub(super) fn set_queue_address(&mut self, part: Part, half: Half, value: u32) {
        let Some(config) = self.settable() else { return };
        let address = match part {
            Part::DescTable => &mut config.desc_table,
            Part::AvailRing => &mut config.avail_ring,
            Part::UsedRing => &mut config.used_ring,
        };
        *address = GuestAddress(set_half(address.0, half, value));
    }

    pub(super) fn set_queue_ready(&mut self, value: u32, memory: &GuestMemory) {
        let allowed = self.status.may_set_queues() && self.resets == 0;
        let Some(slot) = self.selected_mut().filter(|_| allowed) else { return };
        match value {
            0 => slot.ready = false,
            // A queue that cannot run does not become ready, and reads so.
            1 => slot.ready = slot.ready || slot.config.validate(memory).is_ok(),
            _ => {}
        }
    }

    /// Fills in what the registers know of a state.
    pub(super) fn save(&self, state: &mut TransportState, progress: &[Option<QueueState>]) {
        state.status = self.status.bits();
        state.features = self.accepted;
        state.device_features_sel = self.device_features_sel;
        state.driver_features_sel = self.driver_features_sel;
        state.queue_sel = self.queue_sel;
        let mut progress = progress.iter();
        state.queues = self
            .queues
            .iter()
            .map(|slot| QueueRegisters {
                size: slot.config.size,
                desc_table: slot.config.desc_table,
                avail_ring: slot.config.avail_ring,
                used_ring: slot.config.used_ring,
                ready: slot.ready,
                progress: progress.next().copied().flatten().unwrap_or_default(),
            })
            .collect();
    }

    /// The reverse of [`save`](Self::save), into fresh registers.
    pub(super) fn restore(&mut self, state: &TransportState, memory: &GuestMemory) -> Result<()> {
        if state.queues.len() != self.queues.len() {
            let (found, expected) = (state.queues.len(), self.queues.len());
            return Err(refused(format!("it has {found} queues, the device has {expected}")));
        }
        let unknown = state.features & !self.offered;
        if unknown != 0 {
            return Err(refused(format!("its driver accepted the features {unknown:#x}, which are not offered")));
        }
        for (slot, saved) in self.queues.iter_mut().zip(&state.queues) {
            slot.config.size = saved.size;
            slot.config.desc_table = saved.desc_table;
            slot.config.avail_ring = saved.avail_ring;
            slot.config.used_ring = saved.used_ring;
            slot.ready = saved.ready;
            if slot.ready {
                slot.config.validate(memory)?;
            }
        }
        self.status = DeviceStatus::restore(state.status)
            .ok_or_else(|| refused(format!("its device status {:#x} is one that no driver reaches", state.status)))?;
        if !self.status.has_features() && state.queues.iter().any(|queue| queue.ready) {
            return Err(refused("a queue is ready before the features are agreed on".to_owned()));
        }
        self.accepted = state.features;
        self.device_features_sel = state.device_features_sel;
        self.driver_features_sel = state.driver_features_sel;
        self.queue_sel = state.queue_sel;
        Ok(())
    }

    /// The selected queue, if the driver may set it up now.
    fn settable(&mut self) -> Option<&mut QueueConfig> {
        let allowed = self.status.may_set_queues() && self.resets == 0;
        self.selected_mut().filter(|slot| allowed && !slot.ready).map(|slot| &mut slot.config)
    }

    fn selected(&self) -> Option<&QueueSlot> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn selected_mut(&mut self) -> Option<&mut QueueSlot> {
        self.queues.get_mut(usize::try_from(self.queue_sel).ok()?)
    }
}

/// The error for a state that does not fit the device.
pub(super) fn refused(why: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("the saved state of a virtio device does not fit: {why}"))
}

fn half(value: u64, selector: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match selector {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_half(value: u64, half: Half, to: u32) -> u64 {
    match half {
        Half::Low => value & !u64::from(u32::MAX) | u64::from(to),
        Half::High => value & u64::from(u32::MAX) | u64::from(to) << 32,
    }
}
