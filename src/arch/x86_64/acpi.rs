//! ACPI tables, in the hardware-reduced form: no fixed hardware but the sleep and reset registers, no PIC, no PM timer.
//!
//! Section numbers are those of ACPI 6.5.

use acpi_tables::aml::{
    Arg, Device, EISAName, Equal, IO, If, Interrupt, Memory32Fixed, Method, Name, Notify, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use zerocopy::{Immutable, IntoBytes};

use super::layout::{
    COM1_GSI, COM1_PORT, COM1_PORTS, GENERATION_GSI, GENERATION_ID, IOAPIC, LAPIC, MMIO_DEVICE_SIZE, MP_TABLE,
    MmioSlot, PANIC_PORT, PANIC_PORTS, POWER_BUTTON_GSI, POWER_PORT, RESET_VALUE, RSDP, SLEEP_TYPE_S5,
};
use super::platform::Platform;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};

const OEM_ID: [u8; 6] = *b"VMCELL";
const OEM_TABLE_ID: [u8; 8] = *b"VMCELLVM";
const OEM_REVISION: u32 = 1;
/// Tables start at multiples of this, well above what they need.
const ALIGNMENT: u64 = 16;

/// IAPC_BOOT_ARCH (section 5.2.9.3). There is a serial port; the keyboard controller only resets, so a driver that probes
/// it would wait for a keyboard in vain, and there is no VGA and no real-time clock.
const LEGACY_DEVICES: u16 = 1;
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;

/// From this revision on, integers in AML have 64 bits (section 5.2.11.1).
const DSDT_REVISION: u8 = 2;
/// What a button's notification says (section 5.6.6, table 5.164).
const BUTTON_PRESSED: u8 = 0x80;
/// What the notification of another generation says ("Virtual Machine Generation ID", Microsoft, 2012).
const GENERATION_CHANGED: u8 = 0x80;
const SDT_HEADER_SIZE: u32 = 36;

/// Writes the tables for a machine into the BIOS area, the RSDP first.
pub(super) fn write(memory: &GuestMemory, platform: &Platform) -> Result<()> {
    let mut tables = Tables { memory, next: RSDP.0.saturating_add(Rsdp::len() as u64) };
    let dsdt = tables.add(&dsdt(platform.devices))?;
    let fadt = tables.add(&fadt(dsdt))?;
    let madt = tables.add(&madt(platform.vcpus))?;
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = tables.add(&bytes(&xsdt))?;
    memory.write(RSDP, &bytes(&Rsdp::new(OEM_ID, xsdt)))
}

/// Lays tables out one after another.
struct Tables<'a> {
    memory: &'a GuestMemory,
    next: u64,
}

impl Tables<'_> {
    fn add(&mut self, table: &[u8]) -> Result<u64> {
        let start = self.next.next_multiple_of(ALIGNMENT);
        self.next = start.saturating_add(table.len() as u64);
        if self.next > MP_TABLE.0 {
            let message = format!("the ACPI tables end at gpa={:#x}, allowed is {:#x}", self.next, MP_TABLE.0);
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        self.memory.write(GuestAddress(start), table)?;
        Ok(start)
    }
}

fn fadt(dsdt: u64) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION).dsdt_64(dsdt);
    // Without the two button flags, the fixed hardware would have to have buttons.
    let flags = [Flags::HwReducedAcpi, Flags::ResetRegSup, Flags::Wbinvd, Flags::PwrButton, Flags::SlpButton];
    for flag in flags {
        fadt = fadt.flag(flag);
    }
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | NO_CMOS_RTC).into();
    fadt.sleep_control_reg = power_register(POWER_PORT);
    fadt.sleep_status_reg = power_register(POWER_PORT + 1);
    fadt.reset_reg = power_register(POWER_PORT + 2);
    fadt.reset_value = RESET_VALUE;
    bytes(&fadt.finalize())
}

fn power_register(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}

/// The interrupt controllers. The flag for a PC's pair of 8259s stays clear: KVM has them, but with reduced hardware
/// nothing is connected to them.
fn madt(vcpus: u32) -> Vec<u8> {
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, LocalInterruptController::Address(LAPIC));
    for id in (0..vcpus).map_while(|id| u8::try_from(id).ok()) {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IOAPIC, 0));
    madt.add_structure(LocalApicNmi::LINT1_OF_ALL);
    bytes(&madt)
}

/// Local APIC NMI Structure (section 5.2.12.7).
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct LocalApicNmi {
    kind: u8,
    length: u8,
    processor_uid: u8,
    flags: [u8; 2],
    lint: u8,
}

impl LocalApicNmi {
    const LINT1_OF_ALL: Self = Self { kind: 4, length: 6, processor_uid: 0xff, flags: [0; 2], lint: 1 };
}

impl Aml for LocalApicNmi {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.as_bytes());
    }
}

fn dsdt(devices: &[MmioSlot]) -> Vec<u8> {
    let mut aml = Vec::new();
    soft_off(&mut aml);
    serial_port(&mut aml);
    power_button(&mut aml);
    generation_id(&mut aml);
    events(&mut aml);
    panic_register(&mut aml);
    for (index, device) in devices.iter().enumerate() {
        virtio_device(index, device, &mut aml);
    }
    let mut dsdt = Sdt::new(*b"DSDT", SDT_HEADER_SIZE, DSDT_REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    dsdt.append_slice(&aml);
    bytes(&dsdt)
}

/// `\_S5`: with reduced hardware only the first element counts (section 7.4.2).
fn soft_off(aml: &mut Vec<u8>) {
    let zero = 0u8;
    let values = Package::new(vec![&SLEEP_TYPE_S5, &zero, &zero, &zero]);
    Name::new(Path::new("_S5_"), &values).to_aml_bytes(aml);
}

fn serial_port(aml: &mut Vec<u8>) {
    let ports = IO::new(COM1_PORT, COM1_PORT, 1, COM1_PORTS);
    let interrupt = interrupt(COM1_GSI);
    let resources = ResourceTemplate::new(vec![&ports, &interrupt]);
    let device: [Name; 3] = [
        Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
        Name::new(Path::new("_UID"), &0u8),
        Name::new(Path::new("_CRS"), &resources),
    ];
    in_system_bus(&Device::new(Path::new("COM1"), device.iter().map(|name| name as &dyn Aml).collect()), aml);
}

/// A button (section 4.8.3.1).
fn power_button(aml: &mut Vec<u8>) {
    let button = Name::new(Path::new("_HID"), &EISAName::new("PNP0C0C"));
    in_system_bus(&Device::new(Path::new("PWRB"), vec![&button]), aml);
}

/// Where the generation identifier lies: its address in two halves. Drivers look for the first compatible name ("Virtual Machine
/// Generation ID", Microsoft, 2012), or for the second, since the first is longer than ACPI allows.
fn generation_id(aml: &mut Vec<u8>) {
    let (low, high) = (GENERATION_ID.0 & 0xffff_ffff, GENERATION_ID.0 >> 32);
    let (address, names) = (Package::new(vec![&low, &high]), Package::new(vec![&"VM_Gen_Counter", &"VMGENCTR"]));
    let device: [Name; 4] = [
        Name::new(Path::new("_HID"), &"VMCL0001"),
        Name::new(Path::new("_CID"), &names),
        Name::new(Path::new("_DDN"), &"VM_Gen_Counter"),
        Name::new(Path::new("ADDR"), &address),
    ];
    in_system_bus(&Device::new(Path::new("VGEN"), device.iter().map(|name| name as &dyn Aml).collect()), aml);
}

/// The device whose interrupts say that the button was pressed, and that the generation is another: with reduced hardware that is a
/// Generic Event Device (section 5.6.9).
fn events(aml: &mut Vec<u8>) {
    let (button, generation) = (Path::new("\\_SB_.PWRB"), Path::new("\\_SB_.VGEN"));
    let pressed = Notify::new(&button, &BUTTON_PRESSED);
    let changed = Notify::new(&generation, &GENERATION_CHANGED);
    // The method's argument is the number of the interrupt.
    let (on_button, on_generation) = (Equal::new(&Arg(0), &POWER_BUTTON_GSI), Equal::new(&Arg(0), &GENERATION_GSI));
    let (if_button, if_generation) = (If::new(&on_button, vec![&pressed]), If::new(&on_generation, vec![&changed]));
    let on_interrupt = Method::new(Path::new("_EVT"), 1, true, vec![&if_button, &if_generation]);
    let lines = [interrupt(POWER_BUTTON_GSI), interrupt(GENERATION_GSI)];
    let resources = ResourceTemplate::new(lines.iter().map(|line| line as &dyn Aml).collect());
    let (id, number) = (Name::new(Path::new("_HID"), &"ACPI0013"), Name::new(Path::new("_UID"), &0u8));
    let resources = Name::new(Path::new("_CRS"), &resources);
    in_system_bus(&Device::new(Path::new("GED_"), vec![&id, &number, &resources, &on_interrupt]), aml);
}

/// The register by which a guest says that it panicked, under the name that its driver looks for (QEMU, docs/specs/pvpanic).
fn panic_register(aml: &mut Vec<u8>) {
    let ports = IO::new(PANIC_PORT, PANIC_PORT, 1, PANIC_PORTS);
    let resources = ResourceTemplate::new(vec![&ports]);
    let id = Name::new(Path::new("_HID"), &"QEMU0001");
    let resources = Name::new(Path::new("_CRS"), &resources);
    in_system_bus(&Device::new(Path::new("PEVT"), vec![&id, &resources]), aml);
}

/// A virtio-mmio device, under the name that Linux and FreeBSD look for.
#[expect(clippy::cast_possible_truncation, reason = "devices lie below 4 GiB")]
fn virtio_device(index: usize, slot: &MmioSlot, aml: &mut Vec<u8>) {
    let registers = Memory32Fixed::new(true, slot.gpa.0 as u32, MMIO_DEVICE_SIZE as u32);
    let interrupt = interrupt(slot.gsi);
    let resources = ResourceTemplate::new(vec![&registers, &interrupt]);
    let device: [Name; 4] = [
        Name::new(Path::new("_HID"), &"LNRO0005"),
        Name::new(Path::new("_UID"), &index),
        // Its DMA is coherent with the caches.
        Name::new(Path::new("_CCA"), &1u8),
        Name::new(Path::new("_CRS"), &resources),
    ];
    let name = format!("V{index:03}");
    in_system_bus(&Device::new(Path::new(&name), device.iter().map(|name| name as &dyn Aml).collect()), aml);
}

/// Edge-triggered, active high, not shared: all that an irqfd without resampling can be.
fn interrupt(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

fn in_system_bus(device: &dyn Aml, aml: &mut Vec<u8>) {
    Scope::new(Path::new("_SB_"), vec![device]).to_aml_bytes(aml);
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
#[path = "acpi_test.rs"]
mod tests;
