//! Who shares a CPU with a guest.

use std::io;

use super::finding::Finding;
use super::root::Root;
use crate::sys::core_cookie;

const SMT_ACTIVE: &str = "/sys/devices/system/cpu/smt/active";

/// Whether threads can be kept from sharing a core with those of others.
pub(crate) enum CoreScheduling {
    /// The kernel has it.
    There,
    /// For this reason.
    NotNeeded(&'static str),
    /// The kernel lacks it.
    Missing,
    /// The kernel does not tell.
    Unknown(io::Error),
}

impl CoreScheduling {
    /// That of this host.
    pub(crate) fn of_this_host() -> Self {
        Self::told(&Root::new("/"), core_cookie(0))
    }

    /// `cookie` is what the kernel says of this thread's.
    pub(super) fn told(root: &Root, cookie: io::Result<u64>) -> Self {
        let Err(error) = cookie else { return Self::There };
        let is_smt_off = || root.text(SMT_ACTIVE).is_ok_and(|active| active == "0");
        match error.raw_os_error() {
            Some(libc::ENODEV) => Self::NotNeeded("no two hyperthreads share a core"),
            Some(libc::EINVAL) if is_smt_off() => {
                Self::NotNeeded("no two hyperthreads share a core, and the kernel lacks it")
            }
            Some(libc::EINVAL) => Self::Missing,
            _ => Self::Unknown(error),
        }
    }
}

/// Whether hyperthreads share cores, and so what two guests do at the same time can be seen by each other.
pub(super) fn smt(root: &Root, scheduling: &CoreScheduling) -> Finding {
    const NAME: &str = "smt";
    const SHARED: &str = "hyperthreads share cores";
    const OFF: &str = "turn SMT off (echo off > /sys/devices/system/cpu/smt/control), or give tenants CPUs that share no core \
                       (VmBuilder::affinity)";
    match root.text(SMT_ACTIVE).as_deref() {
        Ok("0") => Finding::fine(NAME, "no two hyperthreads share a core"),
        Ok("1") if matches!(scheduling, CoreScheduling::There) => {
            let advice = format!("build VMs of tenants that do not trust each other with core_scheduling, {OFF}");
            Finding::advice(NAME, SHARED, advice)
        }
        Ok("1") => Finding::risk(NAME, format!("{SHARED}, and there is no core scheduling"), OFF),
        Ok(other) => Finding::unknown(NAME, format!("{SMT_ACTIVE} says {other:?}")),
        Err(why) => Finding::unknown(NAME, why.clone()),
    }
}

/// Whether VMs can be built with `core_scheduling`.
pub(super) fn core_scheduling(scheduling: &CoreScheduling) -> Finding {
    const NAME: &str = "core-scheduling";
    match scheduling {
        CoreScheduling::There => Finding::fine(NAME, "the kernel has it"),
        CoreScheduling::NotNeeded(reason) => Finding::fine(NAME, format!("it is not needed, because {reason}")),
        CoreScheduling::Missing => Finding::advice(
            NAME,
            "the kernel lacks it",
            "use Linux 5.14 or later with CONFIG_SCHED_CORE, unless SMT is off or tenants trust each other",
        ),
        CoreScheduling::Unknown(error) => Finding::unknown(NAME, format!("the kernel does not tell: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::FindingLevel::{Advice, Fine, Risk, Unknown};
    use super::super::tree::{Tree, expect, nothing};
    use super::*;

    fn active(value: &str) -> Tree {
        Tree::new().with(SMT_ACTIVE, value)
    }

    fn lacking(tree: &Tree, number: i32) -> CoreScheduling {
        CoreScheduling::told(tree.root(), Err(io::Error::from_raw_os_error(number)))
    }

    #[test]
    fn hyperthreads_are_a_risk_unless_the_kernel_can_keep_guests_off_the_same_core() {
        let of = |tree: &Tree, scheduling| smt(tree.root(), &scheduling);
        let (off, on) = (active("0\n"), active("1\n"));
        expect(&of(&off, lacking(&off, libc::ENODEV)), Fine, "no two");
        expect(&of(&on, CoreScheduling::There), Advice, "share cores");
        expect(&of(&on, lacking(&on, libc::EINVAL)), Risk, "no core scheduling");
        expect(&of(&active("maybe\n"), CoreScheduling::There), Unknown, "\"maybe\"");
        expect(&of(&nothing(), CoreScheduling::There), Unknown, "smt/active cannot be read");
    }

    #[test]
    fn core_scheduling_is_there_or_not_needed_or_missing() {
        let of = |tree: Tree, number| core_scheduling(&lacking(&tree, number));
        expect(&core_scheduling(&CoreScheduling::told(active("1").root(), Ok(7))), Fine, "has it");
        expect(&of(active("0"), libc::ENODEV), Fine, "not needed, because no two hyperthreads share a core");
        expect(&of(active("0"), libc::EINVAL), Fine, "share a core, and the kernel lacks it");
        expect(&of(active("1"), libc::EINVAL), Advice, "lacks it");
        expect(&of(nothing(), libc::EINVAL), Advice, "lacks it");
        expect(&of(active("1"), libc::EPERM), Unknown, "not permitted");
    }
}
