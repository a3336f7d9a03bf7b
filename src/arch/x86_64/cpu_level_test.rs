use super::*;
use crate::config::{CPU_FEATURES, CPU_FEATURES_ON_AVX as NEED_AVX};

fn entry(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
    CpuidEntry { function, index, flags: 0, eax, ebx, ecx, edx }
}

const ALL: u32 = u32::MAX;

/// A host that has everything, and leaves that are not known yet.
fn host() -> Vec<CpuidEntry> {
    let mut host = vec![
        entry(0, 0, [0x24, 1, 2, 3]),
        entry(1, 0, [0xa0671, ALL, ALL, ALL]),
        entry(7, 0, [2, ALL, ALL, ALL]),
        entry(7, 1, [ALL; 4]),
        entry(7, 2, [0, 0, 0, ALL]),
        entry(0xa, 0, [ALL; 4]),
        entry(0xd, 0, [0x2e7, 0x340, 0x2b00, 0]),
        entry(0xd, 1, [0x1f, 0x2d00, 0x1800, 0]),
        entry(0x14, 0, [ALL; 4]),
        entry(0x1d, 1, [ALL; 4]),
        entry(0x24, 0, [ALL; 4]),
        entry(0x99, 0, [ALL; 4]),
        entry(0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        entry(0x4000_0001, 0, [ALL, 0, 0, 0]),
        entry(0x8000_0000, 0, [0x8000_0021, 0, 0, 0]),
        entry(0x8000_0001, 0, [0, 0, ALL, ALL]),
        entry(0x8000_0007, 0, [ALL; 4]),
        entry(0x8000_0008, 0, [0x3930, ALL, 0, 0]),
        entry(0x8000_0021, 0, [ALL; 4]),
        entry(0x8000_0099, 0, [ALL; 4]),
    ];
    // Size, offset: AVX, two of MPX, three of AVX-512, protection keys, AMX.
    for (component, size, offset) in [
        (2, 256, 576),
        (3, 64, 960),
        (4, 64, 1024),
        (5, 64, 1088),
        (6, 512, 1152),
        (7, 1024, 1664),
        (9, 8, 2688),
        (18, 8192, 2816),
    ] {
        host.push(entry(0xd, component, [size, offset, 0, 0]));
    }
    // States of the kernel's own: their offset is 0.
    host.push(entry(0xd, 11, [16, 0, 1, 0]));
    host
}

fn limited(cpu: &CpuConfig) -> Vec<CpuidEntry> {
    limit(host(), cpu).unwrap()
}

#[track_caller]
fn at(entries: &[CpuidEntry], function: u32, index: u32) -> CpuidEntry {
    *entries.iter().find(|entry| (entry.function, entry.index) == (function, index)).expect("the leaf is there")
}

fn has_feature(entries: &[CpuidEntry], name: &str) -> bool {
    let mut known = LEVELS.iter().flat_map(|(_, features)| features.iter()).chain(&MORE);
    has(entries, known.find(|feature| feature.name == name).expect("a known name"))
}

#[test]
fn without_a_level_everything_stays() {
    assert_eq!(limited(&CpuConfig::default()), host());
}

#[test]
fn each_level_has_its_features_and_none_of_the_next() {
    for (level, _) in LEVELS {
        let entries = limited(&CpuConfig::level(level));
        for (other, features) in LEVELS {
            for feature in features {
                assert_eq!(has(&entries, feature), other <= level, "{} at {level:?}", feature.name);
            }
        }
        for feature in &MORE {
            assert!(!has(&entries, feature), "{} at {level:?}", feature.name);
        }
    }
}

#[test]
fn what_is_unknown_and_what_differs_from_host_to_host_is_left_out() {
    for (level, _) in LEVELS {
        let entries = limited(&CpuConfig::level(level));
        for function in [0xa, 0x14, 0x1d, 0x24, 0x99, 0x8000_0099] {
            assert!(entries.iter().all(|entry| entry.function != function), "{function:#x} at {level:?}");
        }
        assert!(!entries.iter().any(|entry| (entry.function, entry.index) == (7, 1)));
    }
}

#[test]
fn kvm_s_own_leaves_and_the_guest_s_protections_stay() {
    let entries = limited(&CpuConfig::level(CpuLevel::V2));
    assert_eq!(at(&entries, 0x4000_0000, 0).eax, 0x4000_0001);
    assert_eq!(at(&entries, 0x4000_0001, 0).eax, ALL);
    // A hypervisor, TSC deadline, x2APIC.
    assert_eq!(at(&entries, 1, 0).ecx >> 21 & 0b100_0000_1001, 0b100_0000_1001);
    // SMEP, SMAP; UMIP; MD_CLEAR, SPEC_CTRL, STIBP, ARCH_CAPABILITIES, SSBD; IBPB.
    let features = at(&entries, 7, 0);
    assert_eq!((features.ebx, features.ecx), (1 << 7 | 1 << 20, 1 << 2));
    for bit in [10, 26, 27, 29, 31] {
        assert!(features.edx >> bit & 1 == 1, "bit {bit}");
    }
    assert_eq!(at(&entries, 0x8000_0008, 0).ebx >> 12 & 1, 1);
    assert_eq!(at(&entries, 0x8000_0008, 0).eax, 0x3930);
    assert_eq!(at(&entries, 0x8000_0007, 0), entry(0x8000_0007, 0, [0, 0, 0, 1 << 8]));
    // SYSCALL, NX, LM.
    assert_eq!(at(&entries, 0x8000_0001, 0).edx & (1 << 11 | 1 << 20 | 1 << 29), 1 << 11 | 1 << 20 | 1 << 29);
}

#[test]
fn state_is_saved_for_the_level_s_registers_only() {
    let xsave = |level| -> Vec<_> {
        let entries = limited(&CpuConfig::level(level));
        let leaf = entries.iter().filter(|entry| entry.function == 0xd);
        leaf.map(|entry| (entry.index, entry.eax, entry.ebx, entry.ecx)).collect()
    };
    assert_eq!(xsave(CpuLevel::V2), []);
    assert_eq!(xsave(CpuLevel::V3), [(0, 0b111, 832, 832), (2, 256, 576, 0)]);
    let avx512 = [(5, 64, 1088, 0), (6, 512, 1152, 0), (7, 1024, 1664, 0)];
    assert_eq!(xsave(CpuLevel::V4), [&[(0, 0b1110_0111, 2688, 2688), (2, 256, 576, 0)][..], &avx512].concat());
}

#[test]
fn a_feature_beyond_the_level_is_there_if_it_was_asked_for() {
    let entries = limited(&CpuConfig::level(CpuLevel::V3).with("aes").with("fsrm"));
    assert!(has_feature(&entries, "aes") && has_feature(&entries, "fsrm") && !has_feature(&entries, "rdrand"));
}

#[test]
fn what_the_host_lacks_is_named() {
    let mut host = host();
    for entry in &mut host {
        match entry.function {
            1 => entry.ecx &= !(1 << 25),
            7 if entry.index == 0 => entry.ebx &= !(1 << 16 | 1 << 17),
            _ => {}
        }
    }
    let refusal = |cpu: &CpuConfig| {
        let error = limit(host.clone(), cpu).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.to_string()
    };
    assert_eq!(
        refusal(&CpuConfig::level(CpuLevel::V4)),
        "a CPU with x86-64-v4 was asked for; this host's KVM lacks avx512f, avx512dq"
    );
    assert!(
        refusal(&CpuConfig::level(CpuLevel::V2).with("rdrand").with("aes"))
            .ends_with("x86-64-v2, rdrand, aes was asked for; this host's KVM lacks aes")
    );
    assert!(refusal(&CpuConfig::default().with("aes")).ends_with("lacks aes"));
    limit(host.clone(), &CpuConfig::level(CpuLevel::V3)).unwrap();
    assert!(limit(Vec::new(), &CpuConfig::level(CpuLevel::V2)).unwrap_err().to_string().contains("cx16"));
}

#[test]
fn an_unknown_feature_is_refused_and_the_allowed_ones_are_listed() {
    let error = limit(host(), &CpuConfig::level(CpuLevel::V3).with("avx512f")).unwrap_err().to_string();
    assert!(error.starts_with("the CPU feature \"avx512f\" was asked for, allowed are adx, aes,"), "{error}");
}

#[test]
fn every_feature_that_may_be_asked_for_is_known_here() {
    assert_eq!(MORE.map(|feature| feature.name), CPU_FEATURES);
}

#[test]
fn what_a_host_lacks_of_each_level_is_told() {
    assert!(lacks_of_levels(&host()).iter().all(|(_, lacks)| lacks.is_empty()));
    let mut host = host();
    host.iter_mut()
        .filter(|entry| entry.function == 7 && entry.index == 0)
        .for_each(|entry| entry.ebx = 1 << 5 | 1 << 3 | 1 << 8);
    let lacks = lacks_of_levels(&host);
    let levels: Vec<_> = lacks.iter().map(|(level, lacks)| (*level, lacks.first().copied())).collect();
    assert_eq!(levels, [(CpuLevel::V2, None), (CpuLevel::V3, None), (CpuLevel::V4, Some("avx512f"))]);
    assert!(lacks_of_levels(&[]).iter().all(|(_, lacks)| !lacks.is_empty()));
}

#[test]
fn a_feature_that_is_named_twice_is_asked_for_once() {
    let twice = CpuConfig::level(CpuLevel::V2).with("aes").with("rdrand").with("aes");
    let once = CpuConfig::level(CpuLevel::V2).with("aes").with("rdrand");
    assert_eq!(limited(&twice), limited(&once));
    let mut host = host();
    host.iter_mut().filter(|entry| entry.function == 1).for_each(|entry| entry.ecx &= !(1 << 25));
    let refused = limit(host, &twice).unwrap_err().to_string();
    assert_eq!(refused, "a CPU with x86-64-v2, aes, rdrand was asked for; this host's KVM lacks aes");
}

#[test]
fn what_works_on_avx_registers_is_refused_where_the_level_has_none() {
    for name in NEED_AVX {
        let error = limit(host(), &CpuConfig::level(CpuLevel::V2).with(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(
            error.to_string(),
            format!(
                "the CPU feature {name:?} was asked for, which works on the registers of AVX; x86-64-v2 has none, \
                 x86-64-v3 and x86-64-v4 do"
            )
        );
        assert!(has_feature(&limited(&CpuConfig::level(CpuLevel::V3).with(name)), name));
    }
    for feature in MORE.iter().filter(|feature| !NEED_AVX.contains(&feature.name)) {
        assert!(has_feature(&limited(&CpuConfig::level(CpuLevel::V2).with(feature.name)), feature.name));
    }
}

#[test]
fn a_host_that_does_not_save_the_level_s_registers_lacks_the_level() {
    let with_states = |states: u32| -> Vec<_> {
        let mut host = host();
        host.iter_mut().filter(|entry| (entry.function, entry.index) == (0xd, 0)).for_each(|entry| entry.eax = states);
        host
    };
    let try_level = |states, level| limit(with_states(states), &CpuConfig::level(level)).map(drop);
    for (states, level) in [(0b11, CpuLevel::V3), (0b110_0111, CpuLevel::V4), (0, CpuLevel::V3)] {
        let error = try_level(states, level).unwrap_err().to_string();
        assert!(error.ends_with("this host's KVM lacks the level's registers in XSAVE"), "{error}");
    }
    for (states, level) in [(0, CpuLevel::V2), (0b111, CpuLevel::V3), (0b1110_0111, CpuLevel::V4), (0, CpuLevel::Host)]
    {
        try_level(states, level).unwrap();
    }
}

/// Whatever is asked for, what the guest sees fits together, as Linux has it in `cpuid-deps.c` and the SDM in its leaves.
#[test]
fn no_feature_is_there_without_those_that_it_needs() {
    let level = |name: &str| LEVELS.iter().find(|(_, features)| features.iter().any(|feature| feature.name == name));
    let needs = [
        ("fma", "avx"),
        ("f16c", "avx"),
        ("avx2", "avx"),
        ("avx", "xsave"),
        ("avx512f", "avx2"),
        ("avx512bw", "avx512f"),
    ];
    for (name, needed) in needs {
        assert!(level(needed).unwrap().0 <= level(name).unwrap().0, "{name} without {needed}");
    }
    for (level, _) in LEVELS {
        let with = |cpu: CpuConfig, feature: &Feature| cpu.with(feature.name);
        let all = MORE.iter().filter(|feature| level > CpuLevel::V2 || !NEED_AVX.contains(&feature.name));
        let entries = limited(&all.fold(CpuConfig::level(level), with));
        let sees = |name| has_feature(&entries, name);
        let states =
            entries.iter().find(|entry| (entry.function, entry.index) == (0xd, 0)).map_or(0, |entry| entry.eax);
        assert_eq!((states & 4 != 0, states & 0xe0 == 0xe0), (sees("avx"), sees("avx512f")), "{level:?}");
        assert!(!sees("vaes") || sees("avx"));
        // Each component has its size, and nothing else has one.
        let sized = entries.iter().filter(|entry| entry.function == 0xd && entry.index > 1);
        assert_eq!(sized.fold(0, |sized, entry| sized | 1 << entry.index), states & !3, "{level:?}");
        // MPX, protection keys, AMX, PT, and more of AVX-512 than the level has.
        let leaf = at(&entries, 7, 0);
        assert_eq!(
            (
                leaf.ebx & (1 << 14 | 1 << 25 | 1 << 21 | 1 << 26 | 1 << 27),
                leaf.ecx & (1 << 3 | 1 << 1 | 1 << 11),
                leaf.edx >> 22 & 0b111
            ),
            (0, 0, 0)
        );
    }
}
