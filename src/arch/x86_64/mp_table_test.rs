use super::*;
use crate::arch::x86_64::layout::{COM1_GSI, MAX_MMIO_DEVICES, MapKind, memory_layout, memory_map, mmio_device};

const PATTERN: u8 = 0xa5;
const BIOS_AREA_END: u64 = 0x10_0000;

/// What a kernel finds that looks for the table as section 4 says.
struct Found {
    /// Each as its type and its bytes behind that.
    entries: Vec<(u8, Vec<u8>)>,
    end: u64,
}

impl Found {
    fn new(vcpus: u32) -> Self {
        let memory = memory();
        let cpu = CpuIdentity { signature: 0x000b_06f2, features: 0x1f8b_fbff };
        write(&memory, &Platform { vcpus, cpu, ..Platform::default() }).unwrap();
        let read = |gpa: u64, len: usize| {
            let mut bytes = vec![0; len];
            memory.read(GuestAddress(gpa), &mut bytes).unwrap();
            bytes
        };
        let is_pointer = |gpa: &u64| {
            let bytes = read(*gpa, 16);
            bytes.starts_with(b"_MP_") && sum(&bytes) == 0
        };
        let at = (0xf_0000..BIOS_AREA_END).step_by(16).find(is_pointer).expect("the pointer is found");
        let pointer = read(at, 16);
        assert_eq!((pointer[8], pointer[9], &pointer[11..]), (1, 4, &[0; 5][..]));
        let start = u32::from_le_bytes(pointer[4..8].try_into().unwrap()).into();
        let len: u16 = u16_at(&read(start, 44), 4);
        let table = read(start, len.into());
        assert!(table.starts_with(b"PCMP") && table[6] == 4 && sum(&table) == 0);
        assert_eq!(&table[36..40], &0xfee0_0000_u32.to_le_bytes());
        let mut rest = &table[44..];
        let mut entries = Vec::new();
        while let Some(&kind) = rest.first() {
            let (entry, behind) = rest.split_at(if kind == 0 { 20 } else { 8 });
            entries.push((kind, entry[1..].to_vec()));
            rest = behind;
        }
        assert_eq!(usize::from(u16_at(&table, 34)), entries.len());
        Self { entries, end: start + u64::from(len) }
    }

    fn of_kind(&self, kind: u8) -> Vec<&[u8]> {
        self.entries.iter().filter(|entry| entry.0 == kind).map(|entry| &entry.1[..]).collect()
    }
}

fn memory() -> GuestMemory {
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), 2 << 20)]).unwrap();
    memory.write(GuestAddress(0), &vec![PATTERN; 2 << 20]).unwrap();
    memory
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[test]
fn every_vcpu_is_listed_and_the_first_one_boots() {
    for vcpus in 1..=64 {
        let found = Found::new(vcpus);
        let processors = found.of_kind(0);
        assert_eq!(processors.len(), vcpus as usize);
        for (id, processor) in (0..).zip(processors) {
            assert_eq!((processor[0], processor[1]), (id, 0x14));
            assert_eq!(processor[2], if id == 0 { 3 } else { 1 });
            assert_eq!(processor[3..7], 0x6f2_u32.to_le_bytes());
            assert_eq!(processor[7..11], 0x1f8b_fbff_u32.to_le_bytes());
        }
    }
}

#[test]
fn every_line_of_a_device_goes_to_the_pin_of_its_number() {
    let found = Found::new(2);
    let [bus] = found.of_kind(1)[..] else { panic!("one bus") };
    assert_eq!(bus, b"\0ISA   ");
    let [ioapic] = found.of_kind(2)[..] else { panic!("one IOAPIC") };
    assert_eq!((ioapic[0], ioapic[2], &ioapic[3..]), (2, 1, &0xfec0_0000_u32.to_le_bytes()[..]));
    let interrupts = found.of_kind(3);
    let gsis = (0..MAX_MMIO_DEVICES).map(|index| mmio_device(index).gsi).chain([COM1_GSI]);
    for gsi in gsis.map(|gsi| gsi as u8) {
        assert!(interrupts.contains(&&[0, 0, 0, 0, gsi, 2, gsi][..]), "line {gsi}");
    }
    assert_eq!(interrupts.len(), 24);
    assert_eq!(found.of_kind(4), [[3, 0, 0, 0, 0, 0xff, 0], [1, 0, 0, 0, 0, 0xff, 1]]);
}

#[test]
fn entries_stand_in_the_order_of_their_types() {
    let kinds: Vec<_> = Found::new(3).entries.iter().map(|entry| entry.0).collect();
    assert!(kinds.is_sorted(), "{kinds:?}");
}

#[test]
fn the_largest_table_lies_in_reserved_memory_and_leaves_its_neighbours_alone() {
    let end = Found::new(64).end;
    let memory = memory();
    write(&memory, &Platform { vcpus: 64, ..Platform::default() }).unwrap();
    for (gpa, len) in [(0, MP_TABLE.0 as usize), (end, (2 << 20) - end as usize)] {
        let mut bytes = vec![0; len];
        memory.read(GuestAddress(gpa), &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == PATTERN), "a byte from gpa={gpa:#x} on was written");
    }
    let guest = GuestMemory::anonymous(&memory_layout(128 << 20)).unwrap();
    let covers =
        memory_map(&guest).into_iter().find(|entry| entry.start <= MP_TABLE.0 && end <= entry.start + entry.len);
    assert_eq!(covers.map(|entry| entry.kind), Some(MapKind::Reserved));
}
