//! The launcher gives up what its VM does not need.

use std::path::Path;

use vmcell::{Error, ErrorKind, InheritedDescriptors, Jail, JailCgroup, JailLimit, OpenVm, VmConfig};

use crate::options::{Cgroup, Options};

/// What the process may lock beside the guest's memory, in bytes.
const LOCKED_BESIDE: u64 = 64 << 20;

/// Enters a jail with every layer that the host gives, and says in one line which ones it does not give.
///
/// `kept` are folders in which files are made later: those for snapshots, and for the sockets of a network.
pub fn enter_jail<'a>(
    opened: &OpenVm,
    config: &VmConfig,
    options: &Options,
    kept: impl Iterator<Item = &'a Path>,
) -> vmcell::Result<()> {
    #[allow(unsafe_code, reason = "see the safety note")]
    // SAFETY: the launcher uses no descriptor above 2 that it has not opened itself, and marked as close-on-exec.
    let inherited = unsafe { InheritedDescriptors::except([]) };
    let mut jail = Jail::new().close(inherited).limit(JailLimit::CoreBytes, 0);
    for folder in opened.folders() {
        jail = jail.keep_writable(folder);
    }
    for folder in kept {
        jail = jail.keep_writable(folder);
    }
    if let Some(folder) = opened.cgroup_folder() {
        jail = jail.keep_cgroup(folder);
    }
    if config.memory.locked {
        // Root needs no limit to lock memory, until it has given that up.
        let guest = config.memory.mib.saturating_mul(1 << 20);
        jail = jail.limit(JailLimit::LockedBytes, guest.saturating_add(LOCKED_BESIDE));
    }
    let report = jail.enter()?;
    if report.is_complete() {
        return Ok(());
    }
    if options.jail {
        return Err(Error::new(ErrorKind::Host, format!("the launcher is jailed {report}")));
    }
    eprintln!("launch: jailed {report}\r");
    Ok(())
}

/// Moves the launcher to the cgroup in which that of its VM is to be.
pub fn join_cgroup(cgroup: &Cgroup, config: &mut VmConfig) -> vmcell::Result<()> {
    let own = JailCgroup::new(&cgroup.of_vm.folder);
    cgroup.memory.into_iter().fold(own, JailCgroup::memory_max).join()?;
    if let Some(of_vm) = config.cgroup.as_mut().filter(|of_vm| of_vm.name.is_none()) {
        of_vm.name = Some(format!("vm-{}", std::process::id()));
    }
    Ok(())
}
