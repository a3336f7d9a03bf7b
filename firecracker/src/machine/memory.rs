//! CPUs and memory.

use vmcell::{CpuConfig, CpuLevel, MemoryBacking, MemoryConfig, PageSize};

use crate::api::{CpuTemplate, HugePages, MachineConfig};
use crate::fault::Fault;

const MOST_VCPUS: u8 = 32;
/// What a kernel and the tables that tell it of the machine need.
const LEAST_MIB: u64 = 16;

/// Refuses what no machine can be. `balloon` is the target of its balloon.
pub fn check(config: &MachineConfig, balloon: Option<u32>) -> Result<(), Fault> {
    let refused = |what: String| Err(Fault::new(format!("machine-config: {what}")));
    let vcpus = config.vcpu_count;
    if !(1..=MOST_VCPUS).contains(&vcpus) {
        return refused(format!("vcpu_count is {vcpus}, allowed are 1 to {MOST_VCPUS}"));
    }
    if config.smt && vcpus > 1 && !vcpus.is_multiple_of(2) {
        return refused(format!("vcpu_count is {vcpus}, allowed with smt are 1 and even numbers"));
    }
    let mib = config.mem_size_mib;
    if mib < LEAST_MIB {
        return refused(format!("mem_size_mib is {mib}, allowed are {LEAST_MIB} and more"));
    }
    if config.huge_pages == HugePages::TwoMib && !mib.is_multiple_of(2) {
        return refused(format!("mem_size_mib is {mib}, allowed with huge_pages 2M are even numbers"));
    }
    if let Some(target) = balloon.filter(|target| u64::from(*target) > mib) {
        return refused(format!("mem_size_mib is {mib}, less than the {target} of the balloon"));
    }
    cpu(config).map(drop)
}

/// What the memory lies on. Snapshots of what has changed need memory that can be shared.
pub fn memory(config: &MachineConfig) -> MemoryConfig {
    let pages = match config.huge_pages {
        HugePages::None => PageSize::Default,
        HugePages::TwoMib => PageSize::Huge2Mib,
    };
    let backing = if config.track_dirty_pages { MemoryBacking::Memfd } else { MemoryBacking::Anonymous };
    MemoryConfig::mib(config.mem_size_mib).pages(pages).backing(backing)
}

/// The level that comes next to a template.
pub fn cpu(config: &MachineConfig) -> Result<CpuConfig, Fault> {
    match config.cpu_template {
        None | Some(CpuTemplate::None) => Ok(CpuConfig::default()),
        Some(CpuTemplate::C3) => Ok(CpuConfig::level(CpuLevel::V2)),
        Some(CpuTemplate::T2 | CpuTemplate::T2S | CpuTemplate::T2CL | CpuTemplate::T2A) => {
            Ok(CpuConfig::level(CpuLevel::V3))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut MachineConfig)) -> String {
        let mut config = MachineConfig::default();
        change(&mut config);
        check(&config, Some(64)).unwrap_err().message().to_owned()
    }

    #[test]
    fn what_no_machine_can_be_is_refused_with_what_is_allowed() {
        assert_eq!(refused(|c| c.vcpu_count = 0), "machine-config: vcpu_count is 0, allowed are 1 to 32");
        assert_eq!(refused(|c| c.vcpu_count = 33), "machine-config: vcpu_count is 33, allowed are 1 to 32");
        assert!(refused(|c| (c.vcpu_count, c.smt) = (3, true)).contains("allowed with smt"));
        assert_eq!(refused(|c| c.mem_size_mib = 15), "machine-config: mem_size_mib is 15, allowed are 16 and more");
        assert!(refused(|c| (c.mem_size_mib, c.huge_pages) = (65, HugePages::TwoMib)).contains("even numbers"));
        assert!(refused(|c| c.mem_size_mib = 63).contains("less than the 64 of the balloon"));
    }
}
