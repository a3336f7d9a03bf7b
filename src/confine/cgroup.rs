//! A cgroup that a process joins, with limits.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use crate::error::{Error, ErrorKind, Result};

/// A cgroup of version 2 that a process is to be in (`Documentation/admin-guide/cgroup-v2.rst`), for
/// [`Jail::cgroup`](crate::Jail::cgroup). What is not said here stays as the cgroup has it.
///
/// The host makes the cgroup. A limit needs its controller (`memory`, `pids`, `cpu`), which the cgroup above names in
/// `cgroup.subtree_control`, and the process needs the right to write the files of the cgroup. If one limit cannot be set, the process does not join,
/// and the layer is missing. All VMs of a process are in one cgroup:
///
/// ```sh
/// mkdir -p /sys/fs/cgroup/vms
/// for folder in /sys/fs/cgroup /sys/fs/cgroup/vms; do
///     echo "+memory +pids +cpu" > $folder/cgroup.subtree_control
/// done
/// mkdir /sys/fs/cgroup/vms/web-1
/// ```
///
/// ```
/// use std::time::Duration;
/// use vmcell::JailCgroup;
///
/// let cgroup = JailCgroup::new("/sys/fs/cgroup/vms/web-1").memory_max(512 << 20).pids_max(64);
/// let cgroup = cgroup.cpu_max(Duration::from_millis(50), Duration::from_millis(100)); // half a CPU
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JailCgroup {
    path: PathBuf,
    limits: Vec<(&'static str, String)>,
}

impl JailCgroup {
    /// The folder of a cgroup, which exists.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), limits: Vec::new() }
    }

    /// Limits the memory of all its processes, in bytes (`memory.max`): guests' memory, page cache, and what the kernel keeps for them.
    #[must_use]
    pub fn memory_max(self, bytes: u64) -> Self {
        self.with("memory.max", bytes.to_string())
    }

    /// Limits how many processes and threads it has (`pids.max`).
    #[must_use]
    pub fn pids_max(self, count: u64) -> Self {
        self.with("pids.max", count.to_string())
    }

    /// Limits the CPU time that its threads have together in each period (`cpu.max`). The quota is 1 ms or
    /// more, the period 1 ms to 1 s.
    #[must_use]
    pub fn cpu_max(self, quota: Duration, period: Duration) -> Self {
        self.with("cpu.max", format!("{} {}", quota.as_micros(), period.as_micros()))
    }

    fn with(mut self, file: &'static str, value: String) -> Self {
        self.limits.push((file, value));
        self
    }

    /// Refuses what is no cgroup of version 2.
    pub(super) fn check(&self) -> Result<()> {
        if self.path.join("cgroup.procs").is_file() {
            return Ok(());
        }
        let message = format!("{} is not the folder of a cgroup of version 2", self.path.display());
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }

    /// Sets the limits, and moves the process there.
    pub(super) fn join(&self) -> std::result::Result<(), String> {
        let write = |file: &str, value: &str| {
            let path = self.path.join(file);
            // Files of a cgroup are there or not; none is made.
            let opened = fs::File::options().write(true).open(&path);
            let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()));
            written.map_err(|e| format!("cannot write {value} to {}: {e}{}", path.display(), remedy(file, e.kind())))
        };
        self.limits.iter().try_for_each(|(file, value)| write(file, value))?;
        // The calling process, whatever its number is there.
        write("cgroup.procs", "0")
    }
}

/// What to do about a file that the kernel does not have, or a value that it refuses.
fn remedy(file: &str, kind: io::ErrorKind) -> String {
    match (file.split_once('.'), kind) {
        (Some((controller @ ("memory" | "pids" | "cpu"), _)), io::ErrorKind::NotFound) => {
            format!("; the cgroup above it must have {controller} in cgroup.subtree_control")
        }
        (Some(("cpu", _)), io::ErrorKind::InvalidInput) => {
            "; allowed are a quota of 1 ms or more, and a period of 1 ms to 1 s".to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_before_the_process_is_moved_and_a_file_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = JailCgroup::new(folder.path()).memory_max(1 << 30).pids_max(7);
        let cgroup = cgroup.cpu_max(Duration::from_millis(5), Duration::from_millis(10));
        let error = cgroup.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let of = |name: &str| folder.path().join(name);
        for name in ["cgroup.procs", "memory.max", "pids.max"] {
            fs::write(of(name), "").unwrap();
        }
        cgroup.check().unwrap();
        let error = cgroup.join().unwrap_err();
        assert!(error.starts_with("cannot write 5000 10000 to ") && error.contains("cpu.max: No such file"), "{error}");
        assert!(error.ends_with("; the cgroup above it must have cpu in cgroup.subtree_control"), "{error}");
        assert_eq!(fs::read_to_string(of("cgroup.procs")).unwrap(), "");
        fs::write(of("cpu.max"), "").unwrap();
        cgroup.join().unwrap();
        let all =
            ["memory.max", "pids.max", "cpu.max", "cgroup.procs"].map(|name| fs::read_to_string(of(name)).unwrap());
        assert_eq!(all, ["1073741824", "7", "5000 10000", "0"]);
    }

    #[test]
    fn a_quota_that_the_kernel_refuses_is_answered_with_what_is_allowed() {
        let refused = remedy("cpu.max", io::ErrorKind::InvalidInput);
        assert_eq!(refused, "; allowed are a quota of 1 ms or more, and a period of 1 ms to 1 s");
        assert_eq!(remedy("memory.max", io::ErrorKind::InvalidInput), "");
        assert_eq!(remedy("cgroup.procs", io::ErrorKind::NotFound), "");
    }
}
