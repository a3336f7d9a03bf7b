use super::*;
use crate::arch::x86_64::layout::{MAX_MMIO_DEVICES, mmio_device};

const BIOS_AREA: usize = 0x2_0000;

/// The tables of a machine as a guest finds them: by their signatures, from the RSDP on.
struct Found {
    area: Vec<u8>,
}

impl Found {
    fn new(vcpus: u32, devices: usize) -> Self {
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let devices: Vec<_> = (0..devices).map(mmio_device).collect();
        write(&memory, &Platform { vcpus, devices: &devices, ..Platform::default() }).unwrap();
        let mut area = vec![0; BIOS_AREA];
        memory.read(RSDP, &mut area).unwrap();
        Self { area }
    }

    /// The bytes of the table at a guest address.
    fn at(&self, gpa: u64, signature: &[u8; 4]) -> &[u8] {
        let start = (gpa - RSDP.0) as usize;
        let len = u32_at(&self.area, start + 4) as usize;
        let table = &self.area[start..start + len];
        assert_eq!(&table[..4], signature);
        assert_eq!(sum(table), 0, "checksum of {}", String::from_utf8_lossy(signature));
        assert_eq!(gpa % 16, 0);
        table
    }

    fn xsdt(&self) -> Vec<u64> {
        self.at(u64_at(&self.area, 24), b"XSDT")[36..].chunks(8).map(|entry| u64_at(entry, 0)).collect()
    }

    fn fadt(&self) -> &[u8] {
        self.at(self.xsdt()[0], b"FACP")
    }

    fn madt(&self) -> &[u8] {
        self.at(self.xsdt()[1], b"APIC")
    }

    fn dsdt(&self) -> &[u8] {
        self.at(u64_at(self.fadt(), 140), b"DSDT")
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn count(bytes: &[u8], pattern: &[u8]) -> usize {
    bytes.windows(pattern.len()).filter(|window| *window == pattern).count()
}

#[test]
fn the_rsdp_leads_to_every_table() {
    let found = Found::new(2, 3);
    assert_eq!(&found.area[..8], b"RSD PTR ");
    assert_eq!((sum(&found.area[..20]), sum(&found.area[..36])), (0, 0));
    assert_eq!(found.xsdt().len(), 2);
    found.madt();
    found.dsdt();
}

#[test]
fn the_fadt_promises_the_power_registers_and_no_fixed_hardware() {
    let found = Found::new(1, 0);
    let fadt = found.fadt();
    assert_eq!((fadt.len(), fadt[8]), (276, 6));
    let flags = u32_at(fadt, 112);
    assert_eq!(flags, 1 | 1 << 4 | 1 << 5 | 1 << 10 | 1 << 20);
    // Space, width, offset, access size, address: 8-bit ports.
    let register = |at: usize| (&fadt[at..at + 4], u64_at(fadt, at + 4));
    assert_eq!(register(116), ([1, 8, 0, 1].as_slice(), 0x602));
    assert_eq!(register(244), ([1, 8, 0, 1].as_slice(), 0x600));
    assert_eq!(register(256), ([1, 8, 0, 1].as_slice(), 0x601));
    assert_eq!(fadt[128], RESET_VALUE);
    // No VGA, no real-time clock, no keyboard controller (bit 1).
    assert_eq!(fadt[109..111], [0b10_0101, 0]);
}

#[test]
fn the_madt_lists_every_vcpu_the_ioapic_and_nmi() {
    for vcpus in [1, 2, 3, 64] {
        let found = Found::new(vcpus, 0);
        let madt = found.madt();
        assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xfee0_0000, 0));
        let (lapics, rest) = madt[44..].split_at(vcpus as usize * 8);
        for (id, lapic) in (0..).zip(lapics.chunks(8)) {
            assert_eq!(lapic, [0, 8, id, id, 1, 0, 0, 0]);
        }
        assert_eq!(rest[..12], [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        assert_eq!(rest[12..], [4, 6, 0xff, 0, 0, 1]);
    }
}

#[test]
fn the_dsdt_has_soft_off_and_the_serial_port() {
    let found = Found::new(1, 0);
    let dsdt = found.dsdt();
    assert_eq!(dsdt[8], 2);
    // Name(_S5_, Package(4) {5, 0, 0, 0})
    assert_eq!(count(dsdt, b"\x08_S5_\x12\x07\x04\x0a\x05\x00\x00\x00"), 1);
    // EISA identifier PNP0501, its ports, its interrupt: consumer, edge, active high, exclusive.
    assert_eq!(count(dsdt, b"\x08_HID\x0c\x41\xd0\x05\x01"), 1);
    assert_eq!(count(dsdt, b"\x47\x01\xf8\x03\xf8\x03\x01\x08"), 1);
    assert_eq!(count(dsdt, b"\x89\x06\x00\x03\x01\x04\x00\x00\x00"), 1);
    assert_eq!(count(dsdt, b"LNRO0005"), 0);
}

#[test]
fn an_interrupt_says_that_the_power_button_was_pressed() {
    let found = Found::new(1, 0);
    let dsdt = found.dsdt();
    assert_eq!(count(dsdt, b"PWRB\x08_HID\x0c\x41\xd0\x0c\x0c"), 1);
    assert_eq!(count(dsdt, b"GED_\x08_HID\x0dACPI0013\0"), 1);
    assert_eq!(count(dsdt, b"\x89\x06\x00\x03\x01\x03\x00\x00\x00"), 1);
    // If (Arg0 == 3) { Notify(\_SB_.PWRB, 0x80) } as the first of the method
    assert_eq!(count(dsdt, b"_EVT\x09\xa0\x12\x93\x68\x0a\x03\x86\\\x2e_SB_PWRB\x0a\x80"), 1);
}

#[test]
fn another_interrupt_says_that_the_generation_identifier_is_another_and_a_package_where_it_lies() {
    let found = Found::new(1, 0);
    let dsdt = found.dsdt();
    let names =
        b"VGEN\x08_HID\x0dVMCL0001\0\x08_CID\x12\x1c\x02\x0dVM_Gen_Counter\0\x0dVMGENCTR\0\x08_DDN\x0dVM_Gen_Counter\0";
    assert_eq!(count(dsdt, names), 1);
    // Name(ADDR, Package(2) {0xfe000, 0})
    assert_eq!(count(dsdt, b"\x08ADDR\x12\x08\x02\x0c\x00\xe0\x0f\x00\x00"), 1);
    assert_eq!(count(dsdt, b"\x89\x06\x00\x03\x01\x01\x00\x00\x00"), 1);
    assert_eq!(count(dsdt, b"\xa0\x11\x93\x68\x01\x86\\\x2e_SB_VGEN\x0a\x80"), 1);
}

#[test]
fn the_dsdt_has_the_register_for_panics() {
    let found = Found::new(1, 0);
    assert_eq!(count(found.dsdt(), b"PEVT\x08_HID\x0dQEMU0001\0"), 1);
    assert_eq!(count(found.dsdt(), b"\x47\x01\x05\x05\x05\x05\x01\x01"), 1);
}

#[test]
fn the_dsdt_has_every_virtio_device() {
    let found = Found::new(64, MAX_MMIO_DEVICES);
    let dsdt = found.dsdt();
    assert_eq!(count(dsdt, b"LNRO0005\0"), MAX_MMIO_DEVICES);
    for index in 0..MAX_MMIO_DEVICES {
        let slot = mmio_device(index);
        let memory = [&b"\x86\x09\x00\x01"[..], &(slot.gpa.0 as u32).to_le_bytes(), &0x1000u32.to_le_bytes()].concat();
        assert_eq!(count(dsdt, &memory), 1);
        assert_eq!(count(dsdt, &[&b"\x89\x06\x00\x03\x01"[..], &slot.gsi.to_le_bytes()].concat()), 1);
        assert_eq!(count(dsdt, format!("V{index:03}").as_bytes()), 1);
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn the_reference_compiler_finds_no_fault() {
    if std::process::Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("skipped: iasl is not installed (Debian package acpica-tools)");
        return;
    }
    let found = Found::new(64, MAX_MMIO_DEVICES);
    let directory = tempfile::tempdir().unwrap();
    let iasl = |arguments: &[&str]| {
        let output = std::process::Command::new("iasl").args(arguments).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for (name, table) in [("dsdt", found.dsdt()), ("facp", found.fadt()), ("apic", found.madt())] {
        let (binary, source) = (format!("{name}.dat"), format!("{name}.dsl"));
        std::fs::write(directory.path().join(&binary), table).unwrap();
        let text = iasl(&["-d", &binary]);
        assert!(!text.contains("Error") && !text.contains("Warning"), "{text}");
        let text = iasl(&[&source]);
        assert!(text.contains("0 Errors, 0 Warnings") || text.contains("Table Compiler"), "{text}");
    }
}
