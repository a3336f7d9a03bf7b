//! What of the host's CPU a guest of a named level sees.
//!
//! It is a list of what is allowed, never of what is forbidden: what a future CPU brings stays hidden. Leaves are described in
//! the Intel SDM, volume 2, "CPUID", and in AMD's APM, volume 3, appendix E; the levels in the x86-64 psABI, section 3.1.1.

use super::cpu_features::{Allowed, Feature, LEVELS, MORE, Register, always};
use crate::config::{CpuConfig, CpuLevel};
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::CpuidEntry;

const XSAVE: u32 = 0xd;
/// Components of XCR0: x87 and SSE are in the area's first 512 bytes, and a header of 64 bytes follows.
const LEGACY_STATE: u32 = 0b11;
const LEGACY_SIZE: u32 = 512 + 64;
const AVX_STATE: u32 = 1 << 2;
const AVX512_STATE: u32 = 0b111 << 5;

/// What is left of `supported`.
///
/// # Errors
/// `ErrorKind::InvalidConfig` naming what the host lacks, or a feature that cannot be asked for.
pub(crate) fn limit(supported: Vec<CpuidEntry>, cpu: &CpuConfig) -> Result<Vec<CpuidEntry>> {
    let asked = asked_for(cpu)?;
    let lacking = lacking(&supported, cpu.level, &asked);
    if !lacking.is_empty() {
        let message =
            format!("a CPU with {} was asked for; this host's KVM lacks {}", name_of(cpu), lacking.join(", "));
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    if cpu.level == CpuLevel::Host {
        return Ok(supported);
    }
    let states = states(cpu.level);
    let sizes = area_size(&supported, states);
    let limited = supported.into_iter().filter_map(|mut entry| {
        if entry.function == XSAVE {
            return xsave_leaf(entry, states, sizes);
        }
        for register in Register::ALL {
            match always(entry.function, entry.index, register) {
                Allowed::Everything => {}
                Allowed::LeftOut => return None,
                Allowed::Bits(bits) => {
                    let here = |feature: &&&Feature| feature.is_at(entry.function, entry.index, register);
                    let allowed = asked.iter().filter(here).fold(bits, |bits, feature| bits | 1 << feature.bit);
                    *register.of(&mut entry) &= allowed;
                }
            }
        }
        Some(entry)
    });
    Ok(limited.collect())
}

/// What `supported` lacks of each level, beginning with the lowest; nothing if guests can have that level.
pub(crate) fn lacks_of_levels(supported: &[CpuidEntry]) -> Vec<(CpuLevel, Vec<&'static str>)> {
    let levels = LEVELS.iter().map(|(level, _)| *level);
    levels.map(|level| (level, lacking(supported, level, &of_level(level)))).collect()
}

fn lacking(supported: &[CpuidEntry], level: CpuLevel, asked: &[&'static Feature]) -> Vec<&'static str> {
    let mut lacking: Vec<_> =
        asked.iter().filter(|feature| !has(supported, feature)).map(|feature| feature.name).collect();
    if states(level) & !host_states(supported) != 0 {
        // Its operating system does not save all registers, and so KVM does not either.
        lacking.push("the level's registers in XSAVE");
    }
    lacking
}

/// The features of a level, with those of the levels below.
fn of_level(level: CpuLevel) -> Vec<&'static Feature> {
    let levels = LEVELS.iter().filter(|(other, _)| level != CpuLevel::Host && *other <= level);
    levels.flat_map(|(_, features)| features.iter()).collect()
}

/// The features that the guest must have.
fn asked_for(cpu: &CpuConfig) -> Result<Vec<&'static Feature>> {
    cpu.validate()?;
    let mut asked = of_level(cpu.level);
    asked.extend(MORE.iter().filter(|feature| cpu.with.iter().any(|name| name == feature.name)));
    Ok(asked)
}

fn has(supported: &[CpuidEntry], feature: &Feature) -> bool {
    let mut entries = supported.iter().copied();
    let entry = entries.find(|entry| feature.is_at(entry.function, entry.index, feature.register));
    entry.is_some_and(|mut entry| *feature.register.of(&mut entry) >> feature.bit & 1 != 0)
}

fn name_of(cpu: &CpuConfig) -> String {
    let mut names = vec![cpu.level.name()];
    for name in &cpu.with {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.join(", ")
}

/// The components of XCR0 that instructions of a level use; before AVX there is no XSAVE.
fn states(level: CpuLevel) -> u32 {
    match level {
        CpuLevel::Host | CpuLevel::V2 => 0,
        CpuLevel::V3 => LEGACY_STATE | AVX_STATE,
        CpuLevel::V4 => LEGACY_STATE | AVX_STATE | AVX512_STATE,
    }
}

/// The components that the host can save.
fn host_states(supported: &[CpuidEntry]) -> u32 {
    supported.iter().find(|entry| (entry.function, entry.index) == (XSAVE, 0)).map_or(0, |entry| entry.eax)
}

/// Where the last of the components ends: subleaf n has the size and offset of component n.
fn area_size(supported: &[CpuidEntry], states: u32) -> u32 {
    let components = supported.iter().filter(|entry| entry.function == XSAVE && (2..32).contains(&entry.index));
    let used = components.filter(|entry| states >> entry.index & 1 != 0);
    used.map(|entry| entry.ebx.saturating_add(entry.eax)).max().unwrap_or(0).max(LEGACY_SIZE)
}

fn xsave_leaf(entry: CpuidEntry, states: u32, size: u32) -> Option<CpuidEntry> {
    match entry.index {
        _ if states == 0 => None,
        0 => Some(CpuidEntry { eax: entry.eax & states, ebx: size, ecx: size, edx: 0, ..entry }),
        // More ways to save, and states of the kernel's own: no level has them.
        1 => None,
        component => (component < 32 && states >> component & 1 != 0).then_some(entry),
    }
}

#[cfg(test)]
#[path = "cpu_level_test.rs"]
mod tests;
