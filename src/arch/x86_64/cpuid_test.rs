use super::*;

fn entry(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
    CpuidEntry { function, index, flags: 0, eax, ebx, ecx, edx }
}

fn vendor(highest: u32, name: &[u8; 12]) -> CpuidEntry {
    let part = |at: usize| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]);
    entry(VENDOR, 0, [highest, part(0), part(8), part(4)])
}

/// A host with 12 LAPIC identifiers a socket and 2 threads a core, as KVM passes it on.
fn intel() -> Vec<CpuidEntry> {
    vec![
        vendor(0x1f, b"GenuineIntel"),
        entry(1, 0, [0xa0671, 0x0b18_0800, 0x0120_2000, 0x0f8b_fbff]),
        entry(4, 0, [0x3c00_4121, 0x02c0_003f, 0x3f, 0]),
        entry(4, 1, [0x3c00_4122, 0x01c0_003f, 0x3f, 0]),
        entry(4, 2, [0x3c00_4143, 0x04c0_003f, 0x7ff, 0]),
        entry(4, 3, [0x3c03_c163, 0x02c0_003f, 0xffff, 0]),
        entry(4, 4, [0; 4]),
        entry(7, 0, [2, 0x2044, 0x4000_0010, 0]),
        entry(0xb, 0, [1, 2, 0x100, 11]),
        entry(0xb, 1, [4, 12, 0x201, 11]),
        entry(0x12, 0, [1, 0, 0, 0x241f]),
        entry(0x15, 0, [2, 200, 24_000_000, 0]),
        entry(0x1f, 0, [1, 2, 0x100, 11]),
        entry(0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        entry(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
        entry(0x8000_0001, 0, [0, 0, 0x121, 0x2c10_0800]),
        entry(0x8000_0008, 0, [0x3930, 0, 0, 0]),
    ]
}

fn amd() -> Vec<CpuidEntry> {
    vec![
        vendor(0x10, b"AuthenticAMD"),
        entry(1, 0, [0x00a2_0f10, 0x0520_0800, 0x0000_2000, 0x178b_fbff]),
        entry(0xb, 0, [1, 2, 0x100, 5]),
        entry(0x8000_0001, 0, [0x00a2_0f10, 0, 0x0040_01f3, 0x2fd3_fbff]),
        entry(0x8000_0008, 0, [0x3030, 0x1000, 0x5_700f, 0]),
        entry(0x8000_001d, 0, [0x4121, 0x01c0_003f, 0x3f, 0]),
        entry(0x8000_001d, 2, [0x4143, 0x01c0_003f, 0x3ff, 2]),
        entry(0x8000_001d, 3, [0x003c_0163, 0x03c0_003f, 0x7fff, 1]),
        entry(0x8000_001e, 0, [5, 0x0102, 0x101, 0]),
        entry(0x8000_0026, 0, [1, 2, 0x100, 5]),
        entry(0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
    ]
}

struct Answers(Vec<CpuidEntry>);

impl Answers {
    fn new(supported: &[CpuidEntry], vcpus: u32, index: u32) -> Self {
        Self(entries(supported, &Topology { vcpus, index }, Some(2_600_000)))
    }

    #[track_caller]
    fn at(&self, function: u32, index: u32) -> CpuidEntry {
        let mut found = self.0.iter().filter(|entry| entry.function == function && entry.index == index);
        let entry = found.next().unwrap_or_else(|| panic!("no leaf {function:#x}.{index}"));
        assert!(found.next().is_none(), "two leaves {function:#x}.{index}");
        *entry
    }

    fn has(&self, function: u32) -> bool {
        self.0.iter().any(|entry| entry.function == function)
    }
}

/// vCPUs, the last one's index, bits of an identifier that it takes.
const MACHINES: &[(u32, u32, u32)] = &[(1, 0, 0), (2, 1, 1), (3, 2, 2), (4, 3, 2), (5, 4, 3), (63, 62, 6), (64, 63, 6)];

#[test]
fn every_leaf_with_the_identifier_has_the_same() {
    for &(vcpus, index, bits) in MACHINES {
        let intel = Answers::new(&intel(), vcpus, index);
        assert_eq!(intel.at(1, 0).ebx >> 24, index);
        for leaf in [0xb, 0x1f] {
            let levels = [0, 1, 2].map(|level| intel.at(leaf, level));
            assert_eq!(levels.map(|level| level.edx), [index; 3]);
            assert_eq!(levels.map(|level| level.eax), [0, bits, 0]);
            assert_eq!(levels.map(|level| level.ebx), [1, vcpus, 0]);
            assert_eq!(levels.map(|level| level.ecx), [0x100, 0x201, 2]);
            assert_eq!(levels.map(|level| level.flags), [1; 3]);
        }
        let amd = Answers::new(&amd(), vcpus, index);
        assert_eq!((amd.at(1, 0).ebx >> 24, amd.at(0xb, 1).edx, amd.at(0x8000_001e, 0).eax), (index, index, index));
        assert!(index >> bits == 0 && !amd.has(0x1f), "beyond the highest leaf");
    }
}

#[test]
fn an_intel_machine_has_a_core_each_and_no_threads() {
    for &(vcpus, index, bits) in MACHINES {
        let answers = Answers::new(&intel(), vcpus, index);
        let features = answers.at(1, 0);
        assert_eq!(features.ebx >> 16 & 0xff, 1 << bits);
        assert_eq!(features.ebx & 0xffff, 0x0800);
        assert_eq!(features.edx >> 28 & 1, u32::from(vcpus > 1));
        // Threads that share a cache, and identifiers for cores, each less one.
        let shared = [0, 1, 2, 3].map(|cache| answers.at(4, cache).eax >> 14 & 0xfff);
        assert_eq!(shared, [0, 0, 0, (1 << bits) - 1]);
        assert_eq!([0, 3].map(|cache| answers.at(4, cache).eax >> 26), [(1 << bits) - 1; 2]);
        // Type, level and the flags beside stay.
        assert_eq!([0, 3].map(|cache| answers.at(4, cache).eax & 0x3fff), [0x0121, 0x0163]);
        assert_eq!(answers.at(4, 2).ebx, 0x04c0_003f);
        // Leaves that are AMD's own say nothing new.
        assert_eq!((answers.at(0x8000_0001, 0).ecx, answers.at(0x8000_0008, 0).ecx), (0x121, 0));
    }
}

#[test]
fn an_amd_machine_has_a_core_each_and_no_threads() {
    for &(vcpus, index, bits) in MACHINES {
        let answers = Answers::new(&amd(), vcpus, index);
        let several = u32::from(vcpus > 1);
        assert_eq!((answers.at(1, 0).ebx >> 16 & 0xff, answers.at(1, 0).edx >> 28 & 1), (vcpus, several));
        assert_eq!(answers.at(0x8000_0001, 0).ecx, 0x0040_01f1 | several << 1);
        assert_eq!(answers.at(0x8000_0008, 0).ecx, 0x5_0000 | bits << 12 | (vcpus - 1));
        let shared = [0, 2, 3].map(|cache| answers.at(0x8000_001d, cache).eax >> 14 & 0xfff);
        assert_eq!(shared, [0, 0, vcpus - 1]);
        assert_eq!((answers.at(0x8000_001e, 0).ebx, answers.at(0x8000_001e, 0).ecx), (index, 0));
        assert!(!answers.has(0x8000_0026), "the host's own topology");
    }
}

#[test]
fn the_guest_learns_that_it_is_one() {
    let features = Answers::new(&intel(), 1, 0).at(1, 0);
    assert_eq!(features.ecx, 0x0120_2000 | 1 << 31);
    let features = Answers::new(&amd(), 1, 0).at(1, 0);
    assert_eq!(features.ecx, 0x2000 | 1 << 24 | 1 << 31);
}

#[test]
fn sgx_is_left_out_and_the_rest_of_its_leaf_is_not() {
    let answers = Answers::new(&intel(), 1, 0);
    let features = answers.at(7, 0);
    assert_eq!((features.ebx, features.ecx), (0x2040, 0x10));
    assert!(!answers.has(0x12));
}

#[test]
fn frequencies_are_those_of_the_counter_and_the_lapic() {
    let answers = Answers::new(&intel(), 1, 0);
    assert_eq!(answers.at(0x4000_0000, 0).eax, 0x4000_0010);
    let frequencies = answers.at(0x4000_0010, 0);
    assert_eq!((frequencies.eax, frequencies.ebx), (2_600_000, 1_000_000));
    // 1 GHz * 13 / 5.
    let crystal = answers.at(0x15, 0);
    assert_eq!((crystal.eax, crystal.ebx, crystal.ecx), (5, 13, 1_000_000_000));
}

#[test]
fn a_crystal_ratio_that_linux_would_overflow_at_is_left_out() {
    let answers = |khz| entries(&intel(), &Topology { vcpus: 1, index: 0 }, khz);
    let crystal = |khz| answers(khz).into_iter().find(|entry| entry.function == 0x15).unwrap();
    for khz in [None, Some(0), Some(2_599_999), Some(u32::MAX)] {
        assert_eq!([crystal(khz).eax, crystal(khz).ebx, crystal(khz).ecx], [0; 3]);
    }
    // The largest product of kHz and numerator that 32 bits hold.
    assert_eq!([crystal(Some(4_294_000)).eax, crystal(Some(4_294_000)).ebx], [500, 2147]);
    assert!(!answers(None).iter().any(|entry| entry.function == 0x4000_0010));
}

#[test]
fn a_host_that_is_no_kvm_gets_no_leaf_for_frequencies() {
    let supported: Vec<_> = intel().into_iter().filter(|entry| entry.function >> 30 != 1).collect();
    assert!(!Answers::new(&supported, 1, 0).has(0x4000_0010));
    assert!(entries(&[], &Topology { vcpus: 1, index: 0 }, Some(1)).is_empty());
}

#[test]
fn answers_of_zeros_take_no_entry() {
    assert!(!Answers::new(&intel(), 2, 0).0.iter().any(|entry| entry.function == 4 && entry.index == 4));
}

#[test]
fn virtualization_is_not_offered() {
    for (name, function, ecx) in [(*b"GenuineIntel", 1, ECX_VMX), (*b"AuthenticAMD", EXTENDED_FEATURES_AMD, ECX_SVM)] {
        let word = |index: usize| u32::from_le_bytes([name[index], name[index + 1], name[index + 2], name[index + 3]]);
        let vendor = CpuidEntry { eax: 0x1f, ebx: word(0), edx: word(4), ecx: word(8), ..Default::default() };
        let supported = [
            vendor,
            CpuidEntry { function, ecx: ecx | 1, ..Default::default() },
            CpuidEntry { function: SVM, eax: 1, ..Default::default() },
        ];
        let entries = entries(&supported, &Topology { vcpus: 1, index: 0 }, None);
        let offered = entries.iter().find(|entry| entry.function == function).unwrap().ecx;
        assert_eq!(offered & (ecx | 1), 1);
        assert!(!entries.iter().any(|entry| entry.function == SVM));
    }
}
