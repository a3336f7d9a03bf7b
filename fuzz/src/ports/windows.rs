//! Windows of devices on a bus: accesses of any width at any address reach one device, or nobody.

use std::sync::{Arc, Mutex};

use vmcell::bus::{Bus, BusDevice};
use vmcell::testing::InlineIo;
use vmcell::testing::rooms::device_place;
use vmcell::virtio::MmioTransport;
use vmcell::virtio::spec::mmio;

use crate::alloc::Meter;
use crate::disk::{Backend, Medium};
use crate::input::{Input, Script};
use crate::world::World;

const WINDOW: u64 = 0x1000;
/// Windows of three disks: two neighbours, and one apart.
const SLOTS: [usize; 3] = [0, 1, 3];
const MEMORY: u64 = 0x1000;
const MOST_HELD: i64 = 64 << 10;
const MOST_STEPS: usize = 300;
/// Magic value, version, and the identifier of a block device.
const IDENTITY: [(u64, u32); 3] = [(mmio::MAGIC_VALUE, 0x7472_6976), (mmio::VERSION, 2), (mmio::DEVICE_ID, 2)];
/// What can be read without a change.
const REGISTERS: [u64; 6] =
    [mmio::DEVICE_FEATURES, mmio::QUEUE_NUM_MAX, mmio::QUEUE_READY, mmio::INTERRUPT_STATUS, mmio::STATUS, mmio::CONFIG];

struct Machine {
    world: World,
    bus: Bus,
    io: InlineIo,
    transports: Vec<Arc<MmioTransport>>,
    meter: Meter,
}

impl Machine {
    fn new() -> Self {
        let (world, io, mut bus) = (World::new(&[0..MEMORY]), InlineIo::new(), Bus::new());
        let transports: Vec<_> = SLOTS
            .iter()
            .map(|slot| {
                let info = vmcell::block::DiskInfo::new(512 << slot);
                let medium = Medium { bytes: vec![0; 512 << slot], info: Some(info), ..Medium::default() };
                let disk = vmcell::Disk::backend(Backend(Arc::new(Mutex::new(medium))));
                let device = disk.into_device().expect("the disk is well-formed");
                let transport = MmioTransport::new(device, world.memory().clone(), io.io_thread());
                let transport = transport.expect("the device is well-formed");
                bus.insert(device_place(*slot).0.0, WINDOW, transport.clone()).expect("the windows are apart");
                transport
            })
            .collect();
        Self { world, bus, io, transports, meter: Meter::new(MOST_HELD) }
    }

    /// What the devices show now.
    fn look(&self) -> Vec<Vec<u32>> {
        let show = |transport: &Arc<MmioTransport>| {
            let read = |offset: &u64| {
                let mut bytes = [0; 4];
                transport.read(*offset, &mut bytes);
                u32::from_le_bytes(bytes)
            };
            REGISTERS.iter().map(read).collect()
        };
        self.transports.iter().map(show).collect()
    }

    fn step(&mut self, input: &mut Input) {
        let address = any_address(input);
        let len = if input.one_in(2) { 4 } else { usize::from(input.byte() % 10) };
        let mut bytes = [input.byte(), input.byte(), 0, input.byte(), 0, 0, 0, 0, 0];
        let owner = SLOTS.iter().position(|slot| {
            let start = device_place(*slot).0.0;
            len > 0 && address.checked_sub(start).is_some_and(|offset| offset + len as u64 <= WINDOW)
        });
        let before = self.look();
        let writes = input.one_in(2);
        let (bus, access) = (&self.bus, &mut bytes[..len]);
        let there = self.meter.run(|| if writes { bus.write(address, access) } else { bus.read(address, access) });
        assert_eq!(there, owner.is_some(), "whether {len} bytes at {address:#x} belong to a device");
        let offset = owner.map(|owner| address - device_place(SLOTS[owner]).0.0);
        let is_register = len == 4 && offset.is_some_and(|offset| offset % 4 == 0 && offset < mmio::CONFIG);
        let is_config = offset.is_some_and(|offset| offset >= mmio::CONFIG) && matches!(len, 1 | 2 | 4 | 8);
        if !writes && !is_register && !is_config {
            assert_eq!(access, vec![0; len], "{len} bytes at {address:#x}, which are no register");
        }
        let io = &self.io;
        self.meter.run(|| io.settle(1000)).expect("the devices come to rest");
        // Others see nothing of it, and a strange access changes nothing.
        for (number, (before, after)) in before.iter().zip(self.look()).enumerate() {
            let touched = owner == Some(number) && writes && (is_register || is_config);
            assert!(touched || *before == after, "{len} bytes at {address:#x} changed what device {number} shows");
        }
        for (offset, value) in IDENTITY {
            for transport in &self.transports {
                let mut bytes = [0; 4];
                transport.read(offset, &mut bytes);
                assert_eq!(u32::from_le_bytes(bytes), value, "register {offset:#x}");
            }
        }
    }
}

fn any_address(input: &mut Input) -> u64 {
    let slot = usize::from(input.below(6));
    let start = device_place(slot).0.0;
    match input.below(8) {
        0 => input.long(),
        1 => start.wrapping_sub(4).wrapping_add(u64::from(input.byte() % 12)),
        2 => start + WINDOW - u64::from(input.byte() % 12),
        3 => start + u64::from(input.half()) % WINDOW,
        4 => start + mmio::CONFIG + u64::from(input.byte() % 80),
        _ => start + u64::from(input.byte() & !3),
    }
}

/// Runs one input: any accesses.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut machine = Machine::new();
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        machine.step(&mut input);
    }
    // A device without a queue that is set up has no business in memory.
    let rings_are_set = machine.look().iter().any(|device| device[4] & 4 != 0);
    if !rings_are_set {
        machine.world.check();
    }
}

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let status = |value: u8| [0, 5, mmio::STATUS as u8, 1, value, 0, 0, 1];
    let up = [1, 3, 11].into_iter().fold(Script::new(), |script, value| script.bytes(&status(value)));
    let read = |script: Script, at: u8| script.bytes(&[0, 5, at, 1, 0, 0, 0, 0]);
    let widths = (0..10u8).fold(Script::new(), |script, len| script.bytes(&[1, 2, 4, 0, len, 1, 1, 1, 0]));
    vec![
        ("up", read(up, mmio::STATUS as u8).done()),
        ("across-windows", widths.done()),
        ("hole", Script::new().bytes(&[2, 5, 0, 1, 0, 0, 0, 0]).done()),
        ("config", Script::new().bytes(&[0, 4, 0, 0, 8, 0, 0, 0, 0]).bytes(&[3, 4, 76, 0, 8, 0, 0, 0, 0]).done()),
        ("far", Script::new().bytes(&[0, 0]).long(u64::MAX - 2).bytes(&[1, 0, 0, 0, 0]).done()),
    ]
}
