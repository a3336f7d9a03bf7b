//! The answers of the `cpuid` instruction: everything that KVM supports, with this machine's own topology and
//! frequencies.
//!
//! The topology is the truth about the vCPUs: one socket, one core per vCPU, one thread per core. We offer nothing that
//! KVM does not report, except the TSC deadline timer, which KVM leaves to us to announce. We do not offer
//! virtualization: a guest that runs guests reaches much more of KVM, and ours are hostile.
//!
//! Leaves are described in the Intel SDM, volume 2, "CPUID", and in AMD's APM, volume 3, appendix E.

use super::platform::CpuIdentity;
use crate::kvm::CpuidEntry;

/// The number of vCPUs, and which of them this is; its LAPIC identifier is its index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topology {
    pub(super) vcpus: u32,
    pub(super) index: u32,
}

/// KVM's flag for a leaf whose subleaf counts (KVM_CPUID_FLAG_SIGNIFCANT_INDEX).
const SUBLEAF_COUNTS: u32 = 1;

const VENDOR: u32 = 0;
const FEATURES: u32 = 1;
const CACHES_INTEL: u32 = 4;
const EXTENDED_FEATURES: u32 = 7;
const TOPOLOGY: u32 = 0xb;
const SGX: u32 = 0x12;
const CRYSTAL: u32 = 0x15;
const TOPOLOGY_V2: u32 = 0x1f;
/// Documentation/virt/kvm/x86/cpuid.rst; the last of them is a convention that VMware began.
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_FREQUENCIES: u32 = 0x4000_0010;
const EXTENDED_FEATURES_AMD: u32 = 0x8000_0001;
const ADDRESS_SIZES: u32 = 0x8000_0008;
const CACHES_AMD: u32 = 0x8000_001d;
const SVM: u32 = 0x8000_000a;
const TOPOLOGY_AMD: u32 = 0x8000_001e;
const TOPOLOGY_AMD_V2: u32 = 0x8000_0026;

/// Leaf 1.
const ECX_VMX: u32 = 1 << 5;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HTT: u32 = 1 << 28;
/// Leaf 7.
const EBX_SGX: u32 = 1 << 2;
const ECX_SGX_LC: u32 = 1 << 30;
/// Leaf 0x8000_0001.
const ECX_SVM: u32 = 1 << 2;
/// Leaf 0x8000_0001: more than one logical processor means cores, not threads.
const ECX_CMP_LEGACY: u32 = 1 << 1;
/// Levels of leaf 0xb.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// The frequency of KVM's LAPIC timer, which is also the crystal's by the rules of leaf 0x15.
const LAPIC_KHZ: u32 = 1_000_000;

/// The entries for one vCPU. `tsc_khz` is the frequency of its time-stamp counter, if that is fixed.
pub(super) fn entries(supported: &[CpuidEntry], topology: &Topology, tsc_khz: Option<u32>) -> Vec<CpuidEntry> {
    let leaf = |function: u32| supported.iter().find(|entry| entry.function == function);
    let amd = leaf(VENDOR).is_some_and(is_amd);
    let highest = leaf(VENDOR).map_or(0, |entry| entry.eax);
    // Leaves about the host's topology are made anew, or left out: guests then use an older leaf that is made anew.
    // A missing entry reads as zeros, so an entry of nothing but zeros is left out: KVM takes only so many of them.
    let kept = supported
        .iter()
        .filter(|entry| !matches!(entry.function, TOPOLOGY | TOPOLOGY_V2 | TOPOLOGY_AMD_V2 | SGX | SVM))
        .filter(|entry| entry.function == CRYSTAL || [entry.eax, entry.ebx, entry.ecx, entry.edx] != [0; 4]);
    let mut entries: Vec<CpuidEntry> = kept.copied().collect();
    for entry in &mut entries {
        adapt(entry, topology, amd, tsc_khz);
    }
    for function in [TOPOLOGY, TOPOLOGY_V2].into_iter().filter(|function| *function <= highest) {
        entries.extend(topology_leaf(function, topology));
    }
    if let (Some(tsc_khz), Some(base)) = (tsc_khz, entries.iter_mut().find(|entry| entry.function == HYPERVISOR)) {
        base.eax = base.eax.max(HYPERVISOR_FREQUENCIES);
        entries.retain(|entry| entry.function != HYPERVISOR_FREQUENCIES);
        let frequencies =
            CpuidEntry { function: HYPERVISOR_FREQUENCIES, eax: tsc_khz, ebx: LAPIC_KHZ, ..Default::default() };
        entries.push(frequencies);
    }
    entries
}

/// What leaf 1 tells of the CPUs that are made of `supported`; zeros if KVM does not have that leaf.
pub(crate) fn cpu_identity(supported: &[CpuidEntry]) -> CpuIdentity {
    let leaf = supported.iter().find(|entry| entry.function == FEATURES);
    leaf.map_or_else(CpuIdentity::default, |entry| CpuIdentity { signature: entry.eax, features: entry.edx })
}

fn is_amd(vendor: &CpuidEntry) -> bool {
    let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat();
    name == b"AuthenticAMD" || name == b"HygonGenuine"
}

fn adapt(entry: &mut CpuidEntry, topology: &Topology, amd: bool, tsc_khz: Option<u32>) {
    match entry.function {
        FEATURES => features(entry, topology, amd),
        CACHES_INTEL if cache_type(entry) != 0 => {
            // Identifiers reserved for cores and for those that share a cache, each less one.
            let others = (1u32 << topology.id_bits()).saturating_sub(1);
            share_cache(entry, others);
            entry.eax = entry.eax & 0x03ff_ffff | others << 26;
        }
        EXTENDED_FEATURES if entry.index == 0 => {
            // A guest can do nothing with SGX without protected memory of its own, which we do not give it.
            entry.ebx &= !EBX_SGX;
            entry.ecx &= !ECX_SGX_LC;
        }
        CRYSTAL => crystal(entry, tsc_khz),
        EXTENDED_FEATURES_AMD if amd => {
            set(&mut entry.ecx, ECX_CMP_LEGACY, topology.vcpus > 1);
            set(&mut entry.ecx, ECX_SVM, false);
        }
        ADDRESS_SIZES if amd => entry.ecx = entry.ecx & !0xf0ff | topology.id_bits() << 12 | topology.others(),
        CACHES_AMD if cache_type(entry) != 0 => share_cache(entry, topology.others()),
        TOPOLOGY_AMD => {
            entry.eax = topology.index;
            // Core identifier; one thread a core; one node.
            entry.ebx = topology.index;
            entry.ecx = 0;
        }
        _ => {}
    }
}

fn features(entry: &mut CpuidEntry, topology: &Topology, amd: bool) {
    // Intel counts identifiers, AMD counts processors.
    let count = if amd { topology.vcpus } else { 1 << topology.id_bits() };
    entry.ebx = entry.ebx & 0xffff | count << 16 | topology.index << 24;
    entry.ecx |= ECX_TSC_DEADLINE | ECX_HYPERVISOR;
    set(&mut entry.ecx, ECX_VMX, false);
    set(&mut entry.edx, EDX_HTT, topology.vcpus > 1);
}

/// Bits 0 to 4: none, data, instructions, unified.
fn cache_type(entry: &CpuidEntry) -> u32 {
    entry.eax & 0x1f
}

/// Caches of the first two levels belong to a core; all others belong to the socket, and `others` share them.
fn share_cache(entry: &mut CpuidEntry, others: u32) {
    let level = entry.eax >> 5 & 7;
    let others = if level <= 2 { 0 } else { others };
    entry.eax = entry.eax & !(0xfff << 14) | others << 14;
}

/// TSC frequency = crystal frequency * ebx / eax. Linux takes the crystal for the LAPIC timer's clock, so it must be
/// that, and multiplies 32-bit numbers in kHz, so the fraction must be small; if it isn't, the leaf says nothing.
fn crystal(entry: &mut CpuidEntry, tsc_khz: Option<u32>) {
    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
    let Some(tsc_khz) = tsc_khz.filter(|khz| *khz != 0) else { return };
    let divisor = gcd(tsc_khz, LAPIC_KHZ);
    if let (Some(numerator), Some(denominator)) = (tsc_khz.checked_div(divisor), LAPIC_KHZ.checked_div(divisor))
        && numerator.checked_mul(LAPIC_KHZ).is_some()
    {
        (entry.eax, entry.ebx, entry.ecx) = (denominator, numerator, LAPIC_KHZ * 1000);
    }
}

/// The levels of leaf 0xb or 0x1f: threads in a core, cores in the socket, end.
fn topology_leaf(function: u32, topology: &Topology) -> [CpuidEntry; 3] {
    let level = |index: u32, shift: u32, count: u32, kind: u32| CpuidEntry {
        function,
        index,
        flags: SUBLEAF_COUNTS,
        eax: shift,
        ebx: count,
        ecx: kind << 8 | index,
        edx: topology.index,
    };
    [level(0, 0, 1, LEVEL_THREAD), level(1, topology.id_bits(), topology.vcpus, LEVEL_CORE), level(2, 0, 0, 0)]
}

impl Topology {
    /// How many bits of a LAPIC identifier tell the vCPUs apart.
    fn id_bits(&self) -> u32 {
        self.vcpus.max(1).next_power_of_two().ilog2()
    }

    /// How many vCPUs there are beside one.
    fn others(&self) -> u32 {
        self.vcpus.saturating_sub(1)
    }
}

fn set(register: &mut u32, bit: u32, on: bool) {
    if on { *register |= bit } else { *register &= !bit }
}

fn gcd(a: u32, b: u32) -> u32 {
    a.checked_rem(b).map_or(a, |rest| gcd(b, rest))
}

#[cfg(test)]
#[path = "cpuid_test.rs"]
mod tests;
