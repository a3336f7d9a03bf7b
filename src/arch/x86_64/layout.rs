//! The places of everything: RAM, the structures that a kernel is handed, MMIO devices, ports and interrupt lines.
//!
//! ```text
//! 0x500        GDT                               0xd000_0000  virtio-mmio devices, one page each
//! 0x6000       PVH start info                    0xfec0_0000  IOAPIC
//! 0x7000       zero page                         0xfee0_0000  LAPIC
//! 0x8ff0       stack, downwards                  0xfffb_c000  KVM's own pages
//! 0x9000       page tables                       0x1_0000_0000  RAM beyond the MMIO gap
//! 0x2_0000     command line
//! 0x9_fc00     end of low RAM
//! 0xe_0000     ACPI tables
//! 0xf_0000     MP table
//! 0xf_2000     SMBIOS tables, if there are any
//! 0xf_e000     generation identifier
//! 0x10_0000    kernel
//!   ...        initrd, as high as possible
//! 0xc000_0000  MMIO gap
//! ```

use crate::memory::{GuestAddress, GuestMemory};

/// No RAM lies here, so that devices can.
pub(super) const MMIO_GAP_START: u64 = 0xc000_0000;
pub(super) const MMIO_GAP_END: u64 = 0x1_0000_0000;

/// The structures that a boot loader leaves for the kernel, all of them in low RAM.
pub(super) const GDT: GuestAddress = GuestAddress(0x500);
pub(super) const START_INFO: GuestAddress = GuestAddress(0x6000);
pub(super) const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
pub(super) const BOOT_STACK: GuestAddress = GuestAddress(0x8ff0);
pub(super) const PAGE_TABLES: GuestAddress = GuestAddress(0x9000);
pub(super) const CMDLINE: GuestAddress = GuestAddress(0x2_0000);
/// Room for the command line with its NUL, whatever the kernel says it could take.
pub(super) const CMDLINE_ROOM: u32 = 0x1_0000;

/// A PC's RAM ends here for the extended BIOS data area, and goes on at 1 MiB.
pub(super) const LOW_RAM_END: u64 = 0x9_fc00;
/// A kernel that isn't told where the RSDP is looks for it here (ACPI 6.5, section 5.2.5.1); the tables follow it.
pub(super) const RSDP: GuestAddress = GuestAddress(0xe_0000);
/// A kernel that reads no ACPI tables looks for the MP table from here on (MultiProcessor Specification 1.4, section 4), so the
/// ACPI tables end here.
pub(super) const MP_TABLE: GuestAddress = GuestAddress(0xf_0000);
/// The entry point of SMBIOS, with its table behind it. A kernel looks from 0xf_0000 on (DSP0134 3.0, section 5.2.2); the MP table of the most
/// vCPUs ends before.
#[cfg(feature = "secret")]
pub(super) const SMBIOS: GuestAddress = GuestAddress(0xf_2000);
/// The generation identifier of the VM: 16 bytes on a page that is not RAM for the kernel, and below which no kernel looks for
/// option ROMs.
pub(crate) const GENERATION_ID: GuestAddress = GuestAddress(0xf_e000);
/// The first byte that a kernel may occupy.
pub(super) const HIGH_RAM_START: u64 = 0x10_0000;

/// The addresses of KVM's in-kernel interrupt controllers, fixed by KVM.
pub(super) const IOAPIC: u32 = 0xfec0_0000;
pub(super) const LAPIC: u32 = 0xfee0_0000;

/// Three pages that KVM needs for itself on Intel hosts.
pub(crate) const KVM_TSS: GuestAddress = GuestAddress(0xfffb_d000);
/// One more of them.
pub(crate) const KVM_IDENTITY_MAP: GuestAddress = GuestAddress(0xfffb_c000);

/// The first serial port of a PC.
pub(crate) const COM1_PORT: u16 = 0x3f8;
pub(crate) const COM1_PORTS: u8 = 8;
pub(crate) const COM1_GSI: u32 = 4;
/// The keyboard controller, data at +0 and command at +4.
pub(crate) const I8042_PORT: u16 = 0x60;
pub(crate) const I8042_PORTS: u16 = 5;
/// The real-time clock's index and data port.
pub(crate) const CMOS_PORT: u16 = 0x70;
pub(crate) const CMOS_PORTS: u16 = 2;
/// Sleep control, sleep status and reset register of ACPI's reduced hardware (ACPI 6.5, section 4.8.3.7), a port each.
pub(crate) const POWER_PORT: u16 = 0x600;
pub(crate) const POWER_PORTS: u16 = 3;
/// SLP_TYP of S5, soft off.
pub(crate) const SLEEP_TYPE_S5: u8 = 5;
/// The value that resets the machine when written to the reset register.
pub(crate) const RESET_VALUE: u8 = 1;

/// The register by which a guest says that it panicked; the port that QEMU has for it (docs/specs/pvpanic).
pub(crate) const PANIC_PORT: u16 = 0x505;
pub(crate) const PANIC_PORTS: u8 = 1;
/// The interrupt of the power button: the line of a PC's second serial port, which there is none of.
pub(crate) const POWER_BUTTON_GSI: u32 = 3;

/// The interrupt that says that the generation identifier is another: the line of a PC's keyboard, which there is none of.
pub(crate) const GENERATION_GSI: u32 = 1;

const FIRST_MMIO_DEVICE: u64 = 0xd000_0000;
/// Guest addresses that an MMIO device takes.
pub(crate) const MMIO_DEVICE_SIZE: u64 = 0x1000;
// Below are the lines of a PC's own devices.
const FIRST_MMIO_GSI: u8 = 5;
pub(super) const IOAPIC_PINS: u8 = 24;
/// One interrupt line per device, on the IOAPIC's pins 5 to 23.
pub(crate) const MAX_MMIO_DEVICES: usize = (IOAPIC_PINS - FIRST_MMIO_GSI) as usize;

/// The place of an MMIO device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MmioSlot {
    /// Its first register.
    pub(crate) gpa: GuestAddress,
    /// Its interrupt line, edge-triggered.
    pub(crate) gsi: u32,
}

/// The place of MMIO device number `index`, which must be below [`MAX_MMIO_DEVICES`].
pub(crate) fn mmio_device(index: usize) -> MmioSlot {
    debug_assert!(index < MAX_MMIO_DEVICES);
    let gpa = (index as u64).saturating_mul(MMIO_DEVICE_SIZE).saturating_add(FIRST_MMIO_DEVICE);
    let gsi = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(FIRST_MMIO_GSI.into());
    MmioSlot { gpa: GuestAddress(gpa), gsi }
}

/// The regions of a guest's RAM: the part that does not fit below the MMIO gap goes above it.
pub(crate) fn memory_layout(bytes: u64) -> Vec<(GuestAddress, u64)> {
    let low = bytes.min(MMIO_GAP_START);
    let mut regions = vec![(GuestAddress(0), low)];
    if let Some(high @ 1..) = bytes.checked_sub(low) {
        regions.push((GuestAddress(MMIO_GAP_END), high));
    }
    regions
}

/// A range of the map of physical memory that the kernel gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapEntry {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) kind: MapKind,
}

/// How a kernel may use a range (ACPI 6.5, table 15.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum MapKind {
    Ram = 1,
    Reserved = 2,
}

/// The map of physical memory: RAM, less the BIOS area, which holds the ACPI tables and the MP table.
pub(super) fn memory_map(memory: &GuestMemory) -> Vec<MapEntry> {
    let mut map = Vec::new();
    for region in memory.regions() {
        let (start, end) = (region.start.0, region.start.0.saturating_add(region.len));
        let mut add = |start: u64, end: u64, kind| {
            if let Some(len @ 1..) = end.checked_sub(start) {
                map.push(MapEntry { start, len, kind });
            }
        };
        add(start, end.min(LOW_RAM_END), MapKind::Ram);
        add(start.max(LOW_RAM_END), end.min(HIGH_RAM_START), MapKind::Reserved);
        add(start.max(HIGH_RAM_START), end, MapKind::Ram);
    }
    map
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ram_goes_around_the_gap() {
        let gib = 1 << 30;
        assert_eq!(memory_layout(gib), [(GuestAddress(0), gib)]);
        assert_eq!(memory_layout(3 * gib), [(GuestAddress(0), 3 * gib)]);
        assert_eq!(memory_layout(3 * gib + 4096), [(GuestAddress(0), 3 * gib), (GuestAddress(4 * gib), 4096)]);
        assert_eq!(memory_layout(9 * gib), [(GuestAddress(0), 3 * gib), (GuestAddress(4 * gib), 6 * gib)]);
    }

    #[test]
    fn the_map_covers_all_ram_and_hides_the_bios_area() {
        let memory = GuestMemory::anonymous(&memory_layout((3 << 30) + (2 << 20))).unwrap();
        let map = memory_map(&memory);
        let expected = [
            (0, 0x9_fc00, MapKind::Ram),
            (0x9_fc00, 0x6_0400, MapKind::Reserved),
            (0x10_0000, 0xbff0_0000, MapKind::Ram),
            (0x1_0000_0000, 2 << 20, MapKind::Ram),
        ];
        assert_eq!(map, expected.map(|(start, len, kind)| MapEntry { start, len, kind }));
    }

    #[test]
    fn the_last_device_has_the_last_pin() {
        assert_eq!(mmio_device(0), MmioSlot { gpa: GuestAddress(0xd000_0000), gsi: 5 });
        assert_eq!(mmio_device(MAX_MMIO_DEVICES - 1), MmioSlot { gpa: GuestAddress(0xd001_2000), gsi: 23 });
    }

    proptest! {
        #[test]
        fn the_map_has_each_byte_of_ram_once_and_no_other(pages in vec((0..700u64, 1..700u64), 1..5)) {
            let mut end = 0;
            let regions: Vec<_> = pages.into_iter().map(|(hole, len)| {
                let start = end + hole * 0x1000;
                end = start + len * 0x1000;
                (GuestAddress(start), len * 0x1000)
            }).collect();
            let memory = GuestMemory::anonymous(&regions).unwrap();
            let map = memory_map(&memory);
            prop_assert!(map.windows(2).all(|pair| pair[0].start + pair[0].len <= pair[1].start), "{:x?}", map);
            prop_assert_eq!(map.iter().map(|entry| entry.len).sum::<u64>(), memory.size());
            for entry in map {
                prop_assert!(entry.len > 0 && memory.contains(GuestAddress(entry.start), entry.len));
                let reserved = (LOW_RAM_END..HIGH_RAM_START).contains(&entry.start);
                prop_assert_eq!(entry.kind, if reserved { MapKind::Reserved } else { MapKind::Ram });
                prop_assert!(!reserved || entry.start + entry.len <= HIGH_RAM_START);
                prop_assert!(reserved || entry.start >= HIGH_RAM_START || entry.start + entry.len <= LOW_RAM_END);
            }
        }
    }
}
