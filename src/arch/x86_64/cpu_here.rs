//! Whether this host has all that a guest has found out about its CPU, which began on another one perhaps.

use super::cpu_features::{LEVELS, MORE, Register};
use super::cpuid::{Topology, entries};
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::CpuidEntry;

/// The registers of leaves and subleaves in which each bit is something that a CPU can do.
const CAPABILITIES: [(u32, u32, &[Register]); 8] = [
    (1, 0, &[Register::Ecx, Register::Edx]),
    (7, 0, &[Register::Ebx, Register::Ecx, Register::Edx]),
    (7, 1, &[Register::Eax, Register::Edx]),
    (0xd, 0, &[Register::Eax, Register::Edx]),
    (0xd, 1, &[Register::Eax]),
    (0x8000_0001, 0, &[Register::Ecx, Register::Edx]),
    (0x8000_0007, 0, &[Register::Edx]),
    (0x8000_0008, 0, &[Register::Ebx]),
];

/// What the CPUs tell that are made of `supported`: for comparing them with those of another host.
pub(crate) fn offered_cpu(supported: &[CpuidEntry], vcpus: u32) -> Vec<CpuidEntry> {
    entries(supported, &Topology { vcpus, index: 0 }, None)
}

/// Refuses a guest to which more was offered than `here`, or the CPU of another vendor.
///
/// # Errors
/// `ErrorKind::InvalidConfig` naming what is lacking.
pub(crate) fn check_cpu(guest: &[CpuidEntry], here: &[CpuidEntry]) -> Result<()> {
    let refused = |what: String| {
        let message = format!("the guest was saved on another CPU: {what}");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    };
    let (theirs, ours) = (vendor(guest), vendor(here));
    if theirs != ours {
        return refused(format!("it is of the vendor {theirs}, and this host's is of {ours}"));
    }
    let lacking: Vec<String> = CAPABILITIES.iter().flat_map(|place| lacking_at(guest, here, place)).collect();
    if lacking.is_empty() { Ok(()) } else { refused(format!("this host's KVM lacks {}", lacking.join(", "))) }
}

fn lacking_at(
    guest: &[CpuidEntry],
    here: &[CpuidEntry],
    &(function, index, registers): &(u32, u32, &[Register]),
) -> Vec<String> {
    let mut names = Vec::new();
    for register in registers {
        let bits = |entries: &[CpuidEntry]| {
            let mut found = entries.iter().copied().find(|entry| (entry.function, entry.index) == (function, index));
            found.as_mut().map_or(0, |entry| *register.of(entry))
        };
        let missing = bits(guest) & !bits(here);
        names.extend(
            (0..u32::BITS).filter(|bit| missing >> bit & 1 == 1).map(|bit| name(function, index, *register, bit)),
        );
    }
    names
}

fn name(function: u32, index: u32, register: Register, bit: u32) -> String {
    let mut known = LEVELS.iter().flat_map(|(_, features)| features.iter()).chain(&MORE);
    match known.find(|feature| feature.is_at(function, index, register) && feature.bit == bit) {
        Some(feature) => feature.name.to_owned(),
        None => format!("bit {bit} of {register:?} in leaf {function:#x}.{index}"),
    }
}

fn vendor(entries: &[CpuidEntry]) -> String {
    let Some(leaf) = entries.iter().find(|entry| entry.function == 0) else { return "unknown".to_owned() };
    let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat();
    String::from_utf8_lossy(&name).escape_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
        CpuidEntry { function, eax, ebx, ecx, edx, ..Default::default() }
    }

    /// AuthenticAMD with AVX2, AES and a bit that has no name here.
    fn host() -> Vec<CpuidEntry> {
        vec![
            leaf(0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            leaf(1, [0, 0, 1 << 25, 1]),
            leaf(7, [0, 1 << 5, 0, 1 << 31]),
        ]
    }

    fn refusal(guest: &[CpuidEntry]) -> String {
        check_cpu(guest, &host()).unwrap_err().to_string()
    }

    #[test]
    fn a_guest_that_has_what_the_host_has_or_less_is_taken() {
        let mut guest = offered_cpu(&host(), 2);
        assert_eq!(check_cpu(&guest, &offered_cpu(&host(), 2)), Ok(()));
        guest.iter_mut().filter(|entry| entry.function == 7).for_each(|entry| (entry.ebx, entry.edx) = (0, 0));
        assert_eq!(check_cpu(&guest, &offered_cpu(&host(), 2)), Ok(()));
    }

    #[test]
    fn what_the_host_lacks_is_named_and_so_is_another_vendor() {
        let mut guest = host();
        guest[1].ecx |= 1 << 28;
        guest[2].ebx |= 1 << 9;
        guest[2].edx |= 1;
        assert_eq!(
            refusal(&guest),
            "the guest was saved on another CPU: this host's KVM lacks avx, erms, bit 0 of Edx in leaf 0x7.0"
        );
        guest[0] = leaf(0, [0x10, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]);
        assert!(refusal(&guest).ends_with("it is of the vendor GenuineIntel, and this host's is of AuthenticAMD"));
    }
}
