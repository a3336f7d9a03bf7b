//! What a configuration says of the guest's CPUs.

use std::ffi::c_char;

use super::config::{ConfigObject, set};
use super::convert::{choice, read_text};
use super::guard::guard;
use super::report::{ErrorObject, Report};
use crate::config::{CpuConfig, CpuLevel};

/// All that the host and KVM can give. The default.
pub const VMCELL_CPU_HOST: i32 = 0;
/// x86-64-v2 of the psABI: up to SSE4.2.
pub const VMCELL_CPU_V2: i32 = 2;
/// x86-64-v3: AVX2, BMI and FMA.
pub const VMCELL_CPU_V3: i32 = 3;
/// x86-64-v4: AVX-512.
pub const VMCELL_CPU_V4: i32 = 4;

const LEVELS: [(i32, CpuLevel); 4] = [
    (VMCELL_CPU_HOST, CpuLevel::Host),
    (VMCELL_CPU_V2, CpuLevel::V2),
    (VMCELL_CPU_V3, CpuLevel::V3),
    (VMCELL_CPU_V4, CpuLevel::V4),
];

/// Sets what the vCPUs can do: `level` is one of VMCELL_CPU_*, and `features` are names of what is wanted beyond it, separated by
/// commas, or "". They are called as in Linux's /proc/cpuinfo: adx, aes, erms, fsgsbase, fsrm, gfni, invpcid, pcid, pclmulqdq,
/// pdpe1gb, rdrand, rdseed, rdtscp, sha_ni, vaes, vpclmulqdq. The last two need a level above V2.
///
/// With a level the guest finds the same instructions on every host of that level. Vendor, model and caches stay the host's, and
/// so do the means against flaws of the CPU. What is hidden is not forbidden: most of it works if a guest tries. vmcell_vm_new
/// refuses what the host lacks, by name, and other names of features. Never blocks.
///
/// Errors: BAD_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_cpu(
    config: *mut ConfigObject,
    level: i32,
    features: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let level = choice("level", level, &LEVELS)?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let features = unsafe { read_text(features, "features") }?;
        let names = features.split(',').filter(|_| !features.is_empty());
        let cpu = names.fold(CpuConfig::level(level), |cpu, name| cpu.with(name));
        set(config, |description| description.config.cpu = cpu)
    })
}
