//! The MP table: CPUs and interrupt lines, for a kernel that reads no ACPI tables.
//!
//! Section numbers are those of Intel's MultiProcessor Specification, version 1.4. Without this table such a kernel runs on
//! one CPU and leaves the IOAPIC alone. With ACPI tables it is there too, for a kernel that is told not to read them.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::layout::{IOAPIC, IOAPIC_PINS, LAPIC, MP_TABLE};
use super::platform::{CpuIdentity, Platform};
use crate::error::Result;
use crate::memory::{GuestAddress, GuestMemory};

/// Version 1.4 (section 4.1).
const REVISION: u8 = 4;
/// The versions of KVM's LAPIC and IOAPIC as their own registers tell them.
const LAPIC_VERSION: u8 = 0x14;
const IOAPIC_VERSION: u8 = 0x11;
/// Interrupts that name this LAPIC go to all of them (section 4.3.5).
const EVERY_LAPIC: u8 = 0xff;
/// The one bus, which has every interrupt line.
const ISA: u8 = 0;

/// MP Floating Pointer Structure (section 4.1). A kernel looks for it at multiples of 16 in the BIOS area, and takes it by its
/// signature and checksum.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Pointer {
    signature: [u8; 4],
    table: U32,
    /// In units of 16 bytes.
    length: u8,
    revision: u8,
    checksum: u8,
    /// The first is 0 if there is a table; bit 7 of the second would say that the PIC's interrupts have to be switched over
    /// to the IOAPIC by a register, which KVM does not have.
    features: [u8; 5],
}

/// The table follows the pointer.
#[expect(clippy::cast_possible_truncation, reason = "the BIOS area lies below 1 MiB")]
const TABLE: u32 = (MP_TABLE.0 + size_of::<Pointer>() as u64) as u32;
const _: () = assert!(size_of::<Pointer>() == 16, "its length is told as one unit");

/// MP Configuration Table Header (section 4.2).
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: U16,
    revision: u8,
    checksum: u8,
    oem: [u8; 8],
    product: [u8; 12],
    oem_table: U32,
    oem_table_size: U16,
    entries: U16,
    lapic: U32,
    extended: [u8; 4],
}

/// Processor Entry (section 4.3.1).
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Processor {
    kind: u8,
    lapic_id: u8,
    lapic_version: u8,
    /// Bit 0: usable; bit 1: the one that boots.
    flags: u8,
    signature: U32,
    features: U32,
    reserved: [u8; 8],
}

/// Bus Entry (section 4.3.2).
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Bus {
    kind: u8,
    id: u8,
    name: [u8; 6],
}

/// I/O APIC Entry (section 4.3.3).
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct IoApic {
    kind: u8,
    id: u8,
    version: u8,
    usable: u8,
    address: U32,
}

/// I/O Interrupt Assignment Entry and Local Interrupt Assignment Entry (sections 4.3.4 and 4.3.5).
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Interrupt {
    kind: u8,
    delivery: Delivery,
    /// 0: polarity and trigger mode as usual for the bus. For ISA that is active high and edge-triggered, which is what an
    /// irqfd is.
    flags: [u8; 2],
    bus: u8,
    line: u8,
    apic: u8,
    pin: u8,
}

/// Interrupt types (section 4.3.4, table 4-11).
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(u8)]
enum Delivery {
    Vectored = 0,
    Nmi = 1,
    ExtInt = 3,
}

/// Writes the pointer, and behind it the table, into the BIOS area.
pub(super) fn write(memory: &GuestMemory, platform: &Platform) -> Result<()> {
    let mut pointer = Pointer {
        signature: *b"_MP_",
        table: U32::new(TABLE),
        length: 1,
        revision: REVISION,
        checksum: 0,
        features: [0; 5],
    };
    pointer.checksum = checksum(pointer.as_bytes());
    memory.write(MP_TABLE, pointer.as_bytes())?;
    memory.write(GuestAddress(TABLE.into()), &configuration(platform))
}

/// The header and, in the order that section 4.3 demands, its entries.
fn configuration(platform: &Platform) -> Vec<u8> {
    // There are at most 64 vCPUs, so every identifier has room in a byte.
    let vcpus = u8::try_from(platform.vcpus).unwrap_or(u8::MAX);
    let ioapic = IoApic { kind: 2, id: vcpus, version: IOAPIC_VERSION, usable: 1, address: U32::new(IOAPIC) };
    let bus = Bus { kind: 1, id: ISA, name: *b"ISA   " };
    let interrupts = interrupts(vcpus);

    let processors: Vec<_> = (0..vcpus).map(|id| processor(id, platform.cpu)).collect();
    let entries = [processors.as_bytes(), bus.as_bytes(), ioapic.as_bytes(), interrupts.as_bytes()].concat();
    let count = [processors.len(), 2, interrupts.len()].iter().sum();
    let mut header = header(count, size_of::<Header>().saturating_add(entries.len()));
    header.checksum = checksum(header.as_bytes()).wrapping_add(checksum(&entries));
    [header.as_bytes(), &entries].concat()
}

#[expect(clippy::cast_possible_truncation, reason = "64 vCPUs and 24 interrupt lines have 2 KiB in 93 entries")]
fn header(entries: usize, length: usize) -> Header {
    Header {
        signature: *b"PCMP",
        length: U16::new(length as u16),
        revision: REVISION,
        checksum: 0,
        oem: *b"VMCELL  ",
        product: *b"VMCELLVM    ",
        oem_table: U32::ZERO,
        oem_table_size: U16::ZERO,
        entries: U16::new(entries as u16),
        lapic: U32::new(LAPIC),
        extended: [0; 4],
    }
}

fn processor(id: u8, cpu: CpuIdentity) -> Processor {
    Processor {
        kind: 0,
        lapic_id: id,
        lapic_version: LAPIC_VERSION,
        flags: if id == 0 { 3 } else { 1 },
        // Stepping, model and family; the bits above are reserved here.
        signature: U32::new(cpu.signature & 0xfff),
        features: U32::new(cpu.features),
        reserved: [0; 8],
    }
}

/// Every line of the bus goes to the IOAPIC's pin of the same number, the PIC to each LAPIC's LINT0, and NMI to LINT1.
fn interrupts(ioapic: u8) -> Vec<Interrupt> {
    let vectored = |line| Interrupt {
        kind: 3,
        delivery: Delivery::Vectored,
        flags: [0; 2],
        bus: ISA,
        line,
        apic: ioapic,
        pin: line,
    };
    let local =
        |delivery, pin| Interrupt { kind: 4, delivery, flags: [0; 2], bus: ISA, line: 0, apic: EVERY_LAPIC, pin };
    let mut interrupts: Vec<_> = (0..IOAPIC_PINS).map(vectored).collect();
    interrupts.extend([local(Delivery::ExtInt, 0), local(Delivery::Nmi, 1)]);
    interrupts
}

/// The byte that makes the sum of all of them 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
#[path = "mp_table_test.rs"]
mod tests;
