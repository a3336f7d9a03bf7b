//! The register file of the MMIO transport as the specification has it (2.1, 3.1.1, 4.2.2).

use vmcell::virtio::spec::feature;

use crate::world::World;

pub const DEVICE_ID: u32 = 42;
pub const QUEUE_SIZES: [u16; 3] = [16, 32, 1];
/// Features of the device's own; the second needs the first.
pub const OWN: u64 = 1 << 3 | 1 << 40;
pub const DEPENDENT: u64 = 1 << 5;
pub const OFFERED: u64 =
    OWN | DEPENDENT | 1 << feature::VERSION_1 | 1 << feature::RING_EVENT_IDX | 1 << feature::RING_INDIRECT_DESC;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
pub const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

/// What the driver has set, and what the device shows.
#[derive(Clone, Debug)]
pub struct Model {
    pub status: u32,
    pub needs_reset: bool,
    pub interrupts: u32,
    pub generation: u32,
    pub config: Vec<u8>,
    pub accepted: u64,
    pub queues: [QueueModel; 3],
    /// The device was activated, and neither was reset nor has failed since.
    pub active: bool,
    pub activations: u32,
    offered_sel: u32,
    accepted_sel: u32,
    queue_sel: u32,
}

/// What the driver has set of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueModel {
    pub size: u32,
    /// Descriptor table, available ring, used ring.
    pub parts: [u64; 3],
    pub ready: bool,
}

impl Model {
    pub fn new(config: &[u8]) -> Self {
        Self {
            status: 0,
            needs_reset: false,
            interrupts: 0,
            generation: 0,
            config: config.to_vec(),
            accepted: 0,
            queues: fresh(),
            active: false,
            activations: 0,
            offered_sel: 0,
            accepted_sel: 0,
            queue_sel: 0,
        }
    }

    /// What a read of a whole register gives.
    pub fn read(&self, offset: u64) -> u32 {
        let queue = self.selected();
        match offset {
            0x000 => u32::from_le_bytes(*b"virt"),
            0x004 => 2,
            0x008 => DEVICE_ID,
            0x00c => u32::from_le_bytes(*b"vmcl"),
            0x010 => half(OFFERED, self.offered_sel),
            0x034 => queue.map_or(0, |queue| QUEUE_SIZES[queue].into()),
            0x044 => queue.map_or(0, |queue| self.queues[queue].ready.into()),
            0x060 => self.interrupts,
            0x070 => self.status | if self.needs_reset { NEEDS_RESET } else { 0 },
            // There are no shared memory regions: each has a length of -1.
            0x0b0 | 0x0b4 | 0x0b8 | 0x0bc => u32::MAX,
            0x0fc => self.generation,
            _ => 0,
        }
    }

    /// What a write to a whole register does.
    pub fn write(&mut self, offset: u64, value: u32, world: &World) {
        match offset {
            0x014 => self.offered_sel = value,
            0x020 => self.accept(value),
            0x024 => self.accepted_sel = value,
            0x030 => self.queue_sel = value,
            0x038 => self.set_queue(|queue| queue.size = if value > 0xffff { 0 } else { value }),
            0x044 => self.set_ready(value, world),
            0x064 => self.interrupts &= !value,
            0x070 => self.set_status(value),
            0x080 | 0x090 | 0x0a0 => self.set_part(offset, 0, value),
            0x084 | 0x094 | 0x0a4 => self.set_part(offset, 32, value),
            _ => {}
        }
    }

    /// Whether the driver may write to the config space.
    pub fn may_set_config(&self) -> bool {
        self.has(DRIVER) && !self.has(FAILED)
    }

    /// The device cannot go on.
    pub fn fail(&mut self) {
        self.needs_reset = true;
        if std::mem::take(&mut self.active) {
            self.interrupts |= 2;
        }
    }

    /// The device's config space is another.
    pub fn publish(&mut self, config: &[u8]) {
        self.config = config.to_vec();
        self.generation = self.generation.wrapping_add(1);
        if self.active {
            self.interrupts |= 2;
        }
    }

    fn has(&self, bit: u32) -> bool {
        self.status & bit != 0
    }

    fn selected(&self) -> Option<usize> {
        usize::try_from(self.queue_sel).ok().filter(|queue| *queue < QUEUE_SIZES.len())
    }

    fn accept(&mut self, value: u32) {
        if !self.has(DRIVER) || self.has(FEATURES_OK) || self.has(FAILED) {
            return;
        }
        match self.accepted_sel {
            0 => self.accepted = self.accepted >> 32 << 32 | u64::from(value),
            1 => self.accepted = self.accepted & 0xffff_ffff | u64::from(value) << 32,
            _ => {}
        }
    }

    fn may_set_queues(&self) -> bool {
        self.has(FEATURES_OK) && !self.has(DRIVER_OK) && !self.has(FAILED)
    }

    fn set_queue(&mut self, set: impl FnOnce(&mut QueueModel)) {
        if let Some(queue) = self.selected().filter(|queue| self.may_set_queues() && !self.queues[*queue].ready) {
            set(&mut self.queues[queue]);
        }
    }

    fn set_part(&mut self, offset: u64, shift: u32, value: u32) {
        let part = match offset & 0xf0 {
            0x80 => 0,
            0x90 => 1,
            _ => 2,
        };
        self.set_queue(|queue| {
            let kept = if shift == 0 { queue.parts[part] >> 32 << 32 } else { queue.parts[part] & 0xffff_ffff };
            queue.parts[part] = kept | u64::from(value) << shift;
        });
    }

    fn set_ready(&mut self, value: u32, world: &World) {
        let Some(queue) = self.selected().filter(|_| self.may_set_queues()) else { return };
        match value {
            0 => self.queues[queue].ready = false,
            1 if self.queues[queue].can_run(QUEUE_SIZES[queue], world) => self.queues[queue].ready = true,
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            let Self { generation, config, activations, .. } = self.clone();
            *self = Self { generation, activations, ..Self::new(&config) };
            return;
        }
        let next = value & !NEEDS_RESET;
        let added = next & !self.status;
        let has = |bit: u32| next & bit != 0;
        let known = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;
        let in_order = (!has(DRIVER) || has(ACKNOWLEDGE))
            && (!has(FEATURES_OK) || has(DRIVER))
            && (added & DRIVER_OK == 0 || self.has(FEATURES_OK));
        if self.status & !next != 0 || next & !known != 0 || !in_order || added == 0 || self.has(FAILED) {
            return;
        }
        if added & FEATURES_OK != 0 && !self.features_may_stand() {
            return;
        }
        self.status = next;
        if added & DRIVER_OK != 0 && !has(FAILED) && !self.needs_reset {
            self.active = true;
            self.activations += 1;
        }
    }

    fn features_may_stand(&self) -> bool {
        let modern = self.accepted & 1 << feature::VERSION_1 != 0;
        let complete = self.accepted & DEPENDENT == 0 || self.accepted & 1 << 3 != 0;
        self.accepted & !OFFERED == 0 && modern && complete
    }
}

impl QueueModel {
    fn can_run(&self, max_size: u16, world: &World) -> bool {
        let size = u64::from(self.size);
        let lens = [(16 * size, 16), (6 + 2 * size, 2), (6 + 8 * size, 4)];
        let lies =
            |(at, (len, align)): (&u64, (u64, u64))| *at != 0 && at.is_multiple_of(align) && world.contains(*at, len);
        size.is_power_of_two() && self.size <= max_size.into() && self.parts.iter().zip(lens).all(lies)
    }
}

fn fresh() -> [QueueModel; 3] {
    QUEUE_SIZES.map(|size| QueueModel { size: size.into(), ..QueueModel::default() })
}

fn half(value: u64, selector: u32) -> u32 {
    match selector {
        0 => (value & 0xffff_ffff) as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}
