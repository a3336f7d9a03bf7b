//! The model-specific registers that a boot loader would set.
//!
//! All others keep KVM's reset values, which are the processor's: the page attribute table, the SYSENTER and SYSCALL
//! registers at zero. EFER is part of the special registers.

use crate::error::Result;
use crate::kvm::Vcpu;

/// Time-stamp counter. Writing zero makes KVM keep the counters of all vCPUs together.
const IA32_TSC: u32 = 0x10;
/// Bit 0: REP MOVS and REP STOS move more than one element at a time (Intel SDM, volume 4, table 2-2).
const IA32_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// The memory type of everything that no MTRR covers (Intel SDM, volume 3, section 12.11.2.1). If firmware left them
/// off, Linux gives up on the page attribute table too.
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLED: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

const NEEDED: &[(u32, u64)] = &[(IA32_TSC, 0)];

/// Speed, not correctness: if a KVM lacks one of them (software KVM implements few), its guest cannot use it either.
const OPTIONAL: &[(u32, u64)] = &[(IA32_MISC_ENABLE, FAST_STRINGS), (IA32_MTRR_DEF_TYPE, MTRR_ENABLED | WRITE_BACK)];

pub(super) fn set(vcpu: &Vcpu) -> Result<()> {
    // One call, if KVM takes them all.
    if vcpu.set_msrs(&[OPTIONAL, NEEDED].concat()).is_ok() {
        return Ok(());
    }
    for msr in OPTIONAL {
        // One by one, because KVM stops at the first one that it refuses. A KVM that is broken altogether shows below.
        let _ = vcpu.set_msrs(&[*msr]);
    }
    vcpu.set_msrs(NEEDED)
}
