//! Features of CPUs by their places in CPUID: those that a level has, those that may be asked for beside, and those that every
//! guest may know of.

use crate::config::{CPU_FEATURES, CpuLevel};
use crate::kvm::CpuidEntry;

/// A register that CPUID answers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl Register {
    pub(super) const ALL: [Self; 4] = [Self::Eax, Self::Ebx, Self::Ecx, Self::Edx];

    pub(super) fn of(self, entry: &mut CpuidEntry) -> &mut u32 {
        match self {
            Self::Eax => &mut entry.eax,
            Self::Ebx => &mut entry.ebx,
            Self::Ecx => &mut entry.ecx,
            Self::Edx => &mut entry.edx,
        }
    }
}

/// A bit of CPUID, by the name that Linux has for it in `/proc/cpuinfo`. All of them are in subleaf 0.
pub(super) struct Feature {
    pub(super) name: &'static str,
    leaf: u32,
    pub(super) register: Register,
    pub(super) bit: u32,
}

impl Feature {
    pub(super) fn is_at(&self, function: u32, index: u32, register: Register) -> bool {
        (self.leaf, 0, self.register) == (function, index, register)
    }
}

const fn feature(name: &'static str, leaf: u32, register: Register, bit: u32) -> Feature {
    Feature { name, leaf, register, bit }
}

const EXTENDED: u32 = 0x8000_0001;

/// What each level adds to the one before.
pub(super) const LEVELS: [(CpuLevel, &[Feature]); 3] = [
    (
        CpuLevel::V2,
        &[
            feature("cx16", 1, Register::Ecx, 13),
            feature("lahf_lm", EXTENDED, Register::Ecx, 0),
            feature("popcnt", 1, Register::Ecx, 23),
            feature("pni", 1, Register::Ecx, 0),
            feature("sse4_1", 1, Register::Ecx, 19),
            feature("sse4_2", 1, Register::Ecx, 20),
            feature("ssse3", 1, Register::Ecx, 9),
        ],
    ),
    (
        CpuLevel::V3,
        &[
            feature("avx", 1, Register::Ecx, 28),
            feature("avx2", 7, Register::Ebx, 5),
            feature("bmi1", 7, Register::Ebx, 3),
            feature("bmi2", 7, Register::Ebx, 8),
            feature("f16c", 1, Register::Ecx, 29),
            feature("fma", 1, Register::Ecx, 12),
            feature("abm", EXTENDED, Register::Ecx, 5),
            feature("movbe", 1, Register::Ecx, 22),
            feature("xsave", 1, Register::Ecx, 26),
        ],
    ),
    (
        CpuLevel::V4,
        &[
            feature("avx512f", 7, Register::Ebx, 16),
            feature("avx512bw", 7, Register::Ebx, 30),
            feature("avx512cd", 7, Register::Ebx, 28),
            feature("avx512dq", 7, Register::Ebx, 17),
            feature("avx512vl", 7, Register::Ebx, 31),
        ],
    ),
];

/// What may be asked for beside a level.
pub(super) const MORE: [Feature; CPU_FEATURES.len()] = [
    feature("adx", 7, Register::Ebx, 19),
    feature("aes", 1, Register::Ecx, 25),
    feature("erms", 7, Register::Ebx, 9),
    feature("fsgsbase", 7, Register::Ebx, 0),
    feature("fsrm", 7, Register::Edx, 4),
    feature("gfni", 7, Register::Ecx, 8),
    feature("invpcid", 7, Register::Ebx, 10),
    feature("pcid", 1, Register::Ecx, 17),
    feature("pclmulqdq", 1, Register::Ecx, 1),
    feature("pdpe1gb", EXTENDED, Register::Edx, 26),
    feature("rdrand", 1, Register::Ecx, 30),
    feature("rdseed", 7, Register::Ebx, 18),
    feature("rdtscp", EXTENDED, Register::Edx, 27),
    feature("sha_ni", 7, Register::Ebx, 29),
    feature("vaes", 7, Register::Ecx, 9),
    feature("vpclmulqdq", 7, Register::Ecx, 10),
];

/// What a guest of any level may know of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    Everything,
    Bits(u32),
    /// Nothing of the whole leaf.
    LeftOut,
}

const fn bits(mut list: &[u32]) -> Allowed {
    let mut mask = 0;
    while let [bit, rest @ ..] = list {
        mask |= 1 << *bit;
        list = rest;
    }
    Allowed::Bits(mask)
}

/// What a guest of any level may know, whatever was asked for.
pub(super) fn always(function: u32, index: u32, register: Register) -> Allowed {
    use Allowed::{Everything, LeftOut};
    match (function, index, register) {
        // Vendor and highest leaf; caches; timers that do not stop; topology and frequencies, which are made anew.
        (0 | 2 | 4 | 6 | 0xb | 0x15 | 0x16 | 0x1f, ..) => Everything,
        // x2APIC, TSC deadline, a hypervisor.
        (1, _, Register::Ecx) => bits(&[21, 24, 31]),
        // What the first 64-bit CPUs had: FPU to CX8, APIC, SEP to PSE36, CLFLUSH, MMX to SSE2; HTT belongs to the topology.
        (1, _, Register::Edx) => {
            bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 28])
        }
        (1, ..) => Everything,
        (7, 0, Register::Eax) => Everything,
        // SMEP and SMAP, UMIP, and the means against flaws: MD_CLEAR and its like, speculation control.
        (7, 0, Register::Ebx) => bits(&[7, 20]),
        (7, 0, Register::Ecx) => bits(&[2]),
        (7, 0, Register::Edx) => bits(&[9, 10, 26, 27, 28, 29, 31]),
        (7, 2, Register::Edx) => bits(&[0, 1, 2, 3, 4, 5]),
        (7, 2, _) => bits(&[]),
        (0x4000_0000..=0x4000_00ff, ..) => Everything,
        (0x8000_0000 | 0x8000_0002..=0x8000_0006 | 0x8000_001d | 0x8000_001e, ..) => Everything,
        // CMP_LEGACY and TOPOEXT belong to the topology.
        (EXTENDED, _, Register::Ecx) => bits(&[1, 22]),
        // What AMD repeats of leaf 1; SYSCALL, NX, LM.
        (EXTENDED, _, Register::Edx) => {
            bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 23, 24, 29])
        }
        (EXTENDED, ..) => Everything,
        // The time-stamp counter that does not stop.
        (0x8000_0007, _, Register::Edx) => bits(&[8]),
        (0x8000_0007, ..) => bits(&[]),
        // IBPB, IBRS, STIBP, SSBD and their like.
        (0x8000_0008, _, Register::Ebx) => bits(&[12, 14, 15, 16, 17, 18, 19, 24, 25, 26, 28, 29, 30]),
        (0x8000_0008, ..) => Everything,
        // LFENCE that serializes, automatic IBRS, and more means against flaws.
        (0x8000_0021, _, Register::Eax) => bits(&[2, 5, 6, 8, 27, 28, 29]),
        (0x8000_0021, _, Register::Ecx) => bits(&[1, 2]),
        (0x8000_0021, ..) => bits(&[]),
        _ => LeftOut,
    }
}
