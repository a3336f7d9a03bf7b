//! Who shares a CPU with a guest.

use std::io;

use super::finding::Finding;
use super::root::Root;

const SMT_ACTIVE: &str = "/sys/devices/system/cpu/smt/active";

/// Whether hyperthreads share cores, and so what two guests do at the same time can be seen by each other. `cookie` is what the kernel
/// says of this thread's core scheduling.
pub(super) fn smt(root: &Root, cookie: &io::Result<u64>) -> Finding {
    const NAME: &str = "smt";
    const SHARED: &str = "hyperthreads share cores";
    const OFF: &str = "turn SMT off (echo off > /sys/devices/system/cpu/smt/control), or give tenants CPUs that share no core \
                       (VmBuilder::affinity)";
    match root.text(SMT_ACTIVE).as_deref() {
        Ok("0") => Finding::fine(NAME, "no two hyperthreads share a core"),
        Ok("1") if cookie.is_ok() => {
            Finding::advice(NAME, SHARED, format!("use core scheduling where tenants do not trust each other, {OFF}"))
        }
        Ok("1") => Finding::risk(NAME, format!("{SHARED}, and there is no core scheduling"), OFF),
        Ok(other) => Finding::unknown(NAME, format!("{SMT_ACTIVE} says {other:?}")),
        Err(why) => Finding::unknown(NAME, why.clone()),
    }
}

/// Whether threads can be kept from sharing a core with those of others.
pub(super) fn core_scheduling(root: &Root, cookie: &io::Result<u64>) -> Finding {
    const NAME: &str = "core-scheduling";
    let is_smt_off = root.text(SMT_ACTIVE).is_ok_and(|active| active == "0");
    let error = match cookie {
        Ok(_) => return Finding::fine(NAME, "the kernel has it"),
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::ENODEV) => Finding::fine(NAME, "it is not needed, because no two hyperthreads share a core"),
        Some(libc::EINVAL) if is_smt_off => {
            Finding::fine(NAME, "the kernel lacks it, and it is not needed, because no two hyperthreads share a core")
        }
        Some(libc::EINVAL) => Finding::advice(
            NAME,
            "the kernel lacks it",
            "use Linux 5.14 or later with CONFIG_SCHED_CORE, unless SMT is off or tenants trust each other",
        ),
        _ => Finding::unknown(NAME, format!("the kernel does not tell: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::FindingLevel::{Advice, Fine, Risk, Unknown};
    use super::super::tree::{Tree, expect, nothing};
    use super::*;

    fn lacking(number: i32) -> io::Result<u64> {
        Err(io::Error::from_raw_os_error(number))
    }

    #[test]
    fn hyperthreads_are_a_risk_unless_the_kernel_can_keep_guests_off_the_same_core() {
        let active = |value| Tree::new().with(SMT_ACTIVE, value);
        expect(&smt(active("0\n").root(), &lacking(libc::ENODEV)), Fine, "no two");
        expect(&smt(active("1\n").root(), &Ok(0)), Advice, "share cores");
        expect(&smt(active("1\n").root(), &lacking(libc::EINVAL)), Risk, "no core scheduling");
        expect(&smt(active("maybe\n").root(), &Ok(0)), Unknown, "\"maybe\"");
        expect(&smt(nothing().root(), &Ok(0)), Unknown, "smt/active cannot be read");
    }

    #[test]
    fn core_scheduling_is_there_or_not_needed_or_missing() {
        let smt = |value| Tree::new().with(SMT_ACTIVE, value);
        expect(&core_scheduling(smt("1").root(), &Ok(7)), Fine, "has it");
        expect(&core_scheduling(smt("0").root(), &lacking(libc::ENODEV)), Fine, "not needed");
        expect(&core_scheduling(smt("0").root(), &lacking(libc::EINVAL)), Fine, "lacks it, and it is not needed");
        expect(&core_scheduling(smt("1").root(), &lacking(libc::EINVAL)), Advice, "lacks it");
        expect(&core_scheduling(nothing().root(), &lacking(libc::EINVAL)), Advice, "lacks it");
        expect(&core_scheduling(smt("1").root(), &lacking(libc::EPERM)), Unknown, "not permitted");
    }
}
