//! The registers, segments and page tables with which each boot protocol enters a kernel.

use super::entry::{Entry, Handover};
use super::layout::{BOOT_STACK, GDT, PAGE_TABLES, START_INFO, ZERO_PAGE};
use crate::error::Result;
use crate::kvm::{DescriptorTable, Registers, Segment, SpecialRegisters, Vcpu};
use crate::memory::{GuestAddress, GuestMemory};

/// RFLAGS: bit 1 is always set; interrupts are off.
const RFLAGS_RESERVED: u64 = 1 << 1;
/// CR0, CR4 and EFER (Intel SDM, volume 3, sections 2.5 and 2.2.1).
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Linux's selectors: __BOOT_CS and __BOOT_DS (Documentation/arch/x86/boot.rst, "64-bit boot protocol").
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TSS: u16 = 0x20;
const GDT_ENTRIES: u16 = 6;

/// Segment types (Intel SDM, volume 3, tables 3-1 and 3-2).
const CODE_EXECUTE_READ_ACCESSED: u8 = 0xb;
const DATA_READ_WRITE_ACCESSED: u8 = 0x3;
const TSS_BUSY: u8 = 0xb;
/// Last byte of a 32-bit TSS, which PVH asks for; a 64-bit one has the same size.
const TSS_LIMIT: u32 = 0x67;

/// Page table entries (Intel SDM, volume 3, section 4.5).
const PAGE_PRESENT_WRITABLE: u64 = 3;
const PAGE_LARGE: u64 = 1 << 7;
const PAGE_SIZE: u64 = 0x1000;
const LARGE_PAGE_SIZE: u64 = 2 << 20;
const ENTRIES: u64 = 512;
/// One directory maps 1 GiB; four of them all that a boot protocol may touch.
const DIRECTORIES: u64 = 4;

/// Writes the tables that the registers point at: the GDT and, for the 64-bit protocol, page tables.
pub(super) fn write_tables(memory: &GuestMemory, handover: Handover) -> Result<()> {
    memory.write_value(GDT, &gdt(handover))?;
    match handover {
        Handover::Linux64 => write_page_tables(memory),
        Handover::Pvh => Ok(()),
    }
}

/// Makes a vCPU enter the kernel when it runs first.
pub(super) fn set(vcpu: &Vcpu, entry: &Entry) -> Result<()> {
    // The LAPIC's address, and whether this vCPU is the first, stay as KVM made them.
    vcpu.change_special_registers(|special| fill_special(special, entry.handover))?;
    vcpu.set_registers(&general(entry))
}

fn general(entry: &Entry) -> Registers {
    let registers = Registers { rip: entry.address.0, rflags: RFLAGS_RESERVED, ..Registers::default() };
    match entry.handover {
        Handover::Linux64 => Registers { rsi: ZERO_PAGE.0, rsp: BOOT_STACK.0, rbp: BOOT_STACK.0, ..registers },
        Handover::Pvh => Registers { rbx: START_INFO.0, ..registers },
    }
}

fn fill_special(special: &mut SpecialRegisters, handover: Handover) {
    let segments = Segments::new(handover);
    special.cs = segments.code;
    for segment in [&mut special.ds, &mut special.es, &mut special.fs, &mut special.gs, &mut special.ss] {
        *segment = segments.data;
    }
    special.tr = segments.tss;
    special.gdt = DescriptorTable { base: GDT.0, limit: GDT_ENTRIES * 8 - 1 };
    special.idt = DescriptorTable::default();
    match handover {
        Handover::Linux64 => {
            special.cr0 = CR0_PE | CR0_ET | CR0_PG;
            special.cr3 = PAGE_TABLES.0;
            special.cr4 = CR4_PAE;
            special.efer = EFER_LME | EFER_LMA;
        }
        Handover::Pvh => {
            special.cr0 = CR0_PE | CR0_ET;
            special.cr3 = 0;
            special.cr4 = 0;
            special.efer = 0;
        }
    }
}

struct Segments {
    code: Segment,
    data: Segment,
    tss: Segment,
}

impl Segments {
    fn new(handover: Handover) -> Self {
        let flat = Segment { limit: u32::MAX, present: true, s: true, g: true, ..Segment::default() };
        let long = handover == Handover::Linux64;
        Self {
            code: Segment { selector: BOOT_CS, type_: CODE_EXECUTE_READ_ACCESSED, l: long, db: !long, ..flat },
            data: Segment { selector: BOOT_DS, type_: DATA_READ_WRITE_ACCESSED, db: true, ..flat },
            tss: Segment { selector: BOOT_TSS, type_: TSS_BUSY, limit: TSS_LIMIT, present: true, ..Segment::default() },
        }
    }
}

/// The table behind the selectors, for a kernel that loads them again. A TSS takes two entries in long mode.
fn gdt(handover: Handover) -> [u64; GDT_ENTRIES as usize] {
    let segments = Segments::new(handover);
    [0, 0, descriptor(&segments.code), descriptor(&segments.data), descriptor(&segments.tss), 0]
}

/// A segment descriptor (Intel SDM, volume 3, figure 3-8).
fn descriptor(segment: &Segment) -> u64 {
    let limit = u64::from(if segment.g { segment.limit >> 12 } else { segment.limit });
    let flag = |set: bool, bit: u32| u64::from(set) << bit;
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | u64::from(segment.type_ & 0xf) << 40
        | flag(segment.s, 44)
        | u64::from(segment.dpl & 3) << 45
        | flag(segment.present, 47)
        | (limit >> 16 & 0xf) << 48
        | flag(segment.l, 53)
        | flag(segment.db, 54)
        | flag(segment.g, 55)
        | (segment.base >> 24 & 0xff) << 56
}

/// Maps the first 4 GiB to themselves with 2 MiB pages, which every processor has: root, pointers, then directories.
#[expect(clippy::arithmetic_side_effects, reason = "four directories' addresses and entries are far from any end")]
fn write_page_tables(memory: &GuestMemory) -> Result<()> {
    let table = |index: u64| GuestAddress(PAGE_TABLES.0 + index * PAGE_SIZE);
    memory.write_value(table(0), &(table(1).0 | PAGE_PRESENT_WRITABLE))?;
    for directory in 0..DIRECTORIES {
        let pointer = GuestAddress(table(1).0 + directory * 8);
        memory.write_value(pointer, &(table(2 + directory).0 | PAGE_PRESENT_WRITABLE))?;
    }
    let pages: Vec<u8> = (0..DIRECTORIES * ENTRIES)
        .flat_map(|page| ((page * LARGE_PAGE_SIZE) | PAGE_PRESENT_WRITABLE | PAGE_LARGE).to_le_bytes())
        .collect();
    memory.write(table(2), &pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_the_well_known_values() {
        // As in Linux's own boot GDT: 64-bit code, 32-bit code, data.
        assert_eq!(gdt(Handover::Linux64)[2..4], [0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]);
        assert_eq!(gdt(Handover::Pvh)[2..4], [0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff]);
        assert_eq!(gdt(Handover::Pvh)[4], 0x0000_8b00_0000_0067);
    }

    #[test]
    fn page_tables_map_every_address_below_4_gib_to_itself() {
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write_tables(&memory, Handover::Linux64).unwrap();
        let entry = |table: u64, index: u64| memory.read_value::<u64>(GuestAddress(table + index * 8)).unwrap();
        for address in [0, 0x10_0000, 0x1234_5678, 0xbfff_ffff, 0xfee0_0000, 0xffff_ffff_u64] {
            let pointers = entry(PAGE_TABLES.0, address >> 39) & !0xfff;
            let directory = entry(pointers, address >> 30 & 511) & !0xfff;
            let page = entry(directory, address >> 21 & 511);
            assert_eq!(page & 0xfff, 0x83);
            assert_eq!(page & !0xfff | address & 0x1f_ffff, address);
        }
    }

    #[test]
    fn each_protocol_has_its_registers() {
        let linux = Entry { address: GuestAddress(0x100_0200), handover: Handover::Linux64 };
        let registers = general(&linux);
        assert_eq!((registers.rip, registers.rsi, registers.rflags), (0x100_0200, 0x7000, 2));
        let mut special = SpecialRegisters { apic_base: 0xfee0_0900, cr0: 0x6000_0010, ..Default::default() };
        fill_special(&mut special, Handover::Linux64);
        assert!(special.cs.l && !special.cs.db && special.cs.selector == 0x10 && special.ss.selector == 0x18);
        assert_eq!((special.cr0, special.cr4, special.efer), (0x8000_0011, 0x20, 0x500));
        assert_eq!(special.apic_base, 0xfee0_0900);

        let pvh = Entry { address: GuestAddress(0x100_0000), handover: Handover::Pvh };
        assert_eq!((general(&pvh).rip, general(&pvh).rbx), (0x100_0000, 0x6000));
        fill_special(&mut special, Handover::Pvh);
        assert!(!special.cs.l && special.cs.db);
        assert_eq!((special.cr0, special.cr4, special.efer, special.gdt.limit), (0x11, 0, 0, 47));
    }
}
