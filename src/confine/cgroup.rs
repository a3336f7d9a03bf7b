//! A cgroup that a process joins, with limits.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use super::layer::{JailLayer, JailReport};
use crate::error::{Error, ErrorKind, Result};

/// A cgroup of version 2 that a process is to be in (`Documentation/admin-guide/cgroup-v2.rst`), for
/// [`Jail::cgroup`](crate::Jail::cgroup), or for [`join`](Self::join) without a jail. What is not said here stays as the cgroup has it.
///
/// The host makes the cgroup. A limit needs its controller (`memory`, `pids`, `cpu`, `io`), which the cgroup above names in
/// `cgroup.subtree_control`, and the process needs the right to write the files of the cgroup. A limit that cannot be set leaves the others
/// as they are. All VMs of a process are in one cgroup, and so have these limits together; [`VmBuilder::cgroup`](crate::VmBuilder::cgroup)
/// gives each of them a share of the CPUs in it:
///
/// ```sh
/// mkdir -p /sys/fs/cgroup/vms
/// for folder in /sys/fs/cgroup /sys/fs/cgroup/vms; do
///     echo "+memory +pids +cpu +io" > $folder/cgroup.subtree_control
/// done
/// mkdir /sys/fs/cgroup/vms/web-1
/// ```
///
/// ```
/// use std::time::Duration;
/// use vmcell::{JailCgroup, JailIo};
///
/// let cgroup = JailCgroup::new("/sys/fs/cgroup/vms/web-1").memory_max(512 << 20).pids_max(64);
/// let cgroup = cgroup.cpu_max(Duration::from_millis(50), Duration::from_millis(100)); // half a CPU
/// // Of /dev/vda: see `lsblk`.
/// let cgroup = cgroup.io_max((254, 0), JailIo::new().read_bytes(16 << 20).write_operations(2000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JailCgroup {
    path: PathBuf,
    limits: Vec<(&'static str, String)>,
}

/// What a cgroup may do with a block device in a second (`io.max`). What is not said stays as the cgroup has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JailIo([Option<u64>; 4]);

impl JailIo {
    /// Says nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes are read (`rbps`).
    #[must_use]
    pub fn read_bytes(self, per_second: u64) -> Self {
        let Self([_, write_bytes, reads, writes]) = self;
        Self([Some(per_second), write_bytes, reads, writes])
    }

    /// How many bytes are written (`wbps`).
    #[must_use]
    pub fn write_bytes(self, per_second: u64) -> Self {
        let Self([read_bytes, _, reads, writes]) = self;
        Self([read_bytes, Some(per_second), reads, writes])
    }

    /// How many reads there are (`riops`).
    #[must_use]
    pub fn read_operations(self, per_second: u64) -> Self {
        let Self([read_bytes, write_bytes, _, writes]) = self;
        Self([read_bytes, write_bytes, Some(per_second), writes])
    }

    /// How many writes there are (`wiops`).
    #[must_use]
    pub fn write_operations(self, per_second: u64) -> Self {
        let Self([read_bytes, write_bytes, reads, _]) = self;
        Self([read_bytes, write_bytes, reads, Some(per_second)])
    }
}

impl JailCgroup {
    /// The folder of a cgroup, which exists.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), limits: Vec::new() }
    }

    /// Limits the memory of all its processes, in bytes (`memory.max`): guests' memory, page cache, and what the kernel keeps for them. If
    /// there is no more, the kernel ends a process.
    #[must_use]
    pub fn memory_max(self, bytes: u64) -> Self {
        self.with("memory.max", bytes.to_string())
    }

    /// Has the kernel take memory back from its processes beyond so many bytes, and slow them down meanwhile (`memory.high`).
    #[must_use]
    pub fn memory_high(self, bytes: u64) -> Self {
        self.with("memory.high", bytes.to_string())
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

    /// How much CPU time its threads get beside those of other cgroups if there is too little for all (`cpu.weight`), 1 to 10000. The
    /// kernel's default is 100.
    #[must_use]
    pub fn cpu_weight(self, weight: u32) -> Self {
        self.with("cpu.weight", weight.to_string())
    }

    /// Limits what its processes do with a block device, given by its major and minor numbers (`io.max`). Disks with
    /// [limits](crate::Disk::limits) of their own are limited in the guest's requests instead, whatever the host's page cache makes of them.
    #[must_use]
    pub fn io_max(self, (major, minor): (u32, u32), limits: JailIo) -> Self {
        let limits = ["rbps", "wbps", "riops", "wiops"].into_iter().zip(limits.0);
        let limits = limits.filter_map(|(name, limit)| Some(format!(" {name}={}", limit?))).collect::<String>();
        self.with("io.max", format!("{major}:{minor}{limits}"))
    }

    fn with(mut self, file: &'static str, value: String) -> Self {
        self.limits.push((file, value));
        self
    }

    /// Sets the limits, and moves the calling process there with all its threads, without a jail. It may have been started already.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if it is no cgroup of version 2, and then nothing has changed. [`ErrorKind::Host`] if the kernel refuses
    /// something: the message says all that is missing, and the rest is in place.
    pub fn join(&self) -> Result<()> {
        self.check()?;
        let mut report = JailReport::default();
        self.enter(|_| true, &mut report);
        if report.is_complete() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Host, format!("the process is {report}")))
    }

    /// Refuses what is no cgroup of version 2.
    pub(super) fn check(&self) -> Result<()> {
        if self.path.join("cgroup.procs").is_file() && self.path.join("cgroup.controllers").is_file() {
            return Ok(());
        }
        let message = format!("{} is not the folder of a cgroup of version 2", self.path.display());
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }

    /// Sets the limits that are wanted, and moves the process there, each as far as the kernel lets it.
    pub(super) fn enter(&self, wants: impl Fn(JailLayer) -> bool, report: &mut JailReport) {
        let layers = [JailLayer::CgroupMemory, JailLayer::CgroupProcesses, JailLayer::CgroupCpu, JailLayer::CgroupIo];
        for layer in layers.into_iter().filter(|layer| wants(*layer)) {
            let limits: Vec<_> = self.limits.iter().filter(|(file, _)| layer_of(file) == Some(layer)).collect();
            let refused: Vec<_> = limits.iter().filter_map(|(file, value)| self.write(file, value).err()).collect();
            if !limits.is_empty() {
                report.add(layer, if refused.is_empty() { Ok(()) } else { Err(refused.join(", ")) });
            }
        }
        if wants(JailLayer::Cgroup) {
            // The calling process, whatever its number is there.
            report.add(JailLayer::Cgroup, self.write("cgroup.procs", "0"));
        }
    }

    fn write(&self, file: &str, value: &str) -> std::result::Result<(), String> {
        let path = self.path.join(file);
        // Files of a cgroup are there or not; none is made.
        let opened = fs::File::options().write(true).open(&path);
        let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()));
        written.map_err(|e| format!("cannot write {value} to {}: {e}{}", path.display(), remedy(file, e.kind())))
    }
}

/// The layer that a limit is in.
fn layer_of(file: &str) -> Option<JailLayer> {
    Some(match file.split_once('.')?.0 {
        "memory" => JailLayer::CgroupMemory,
        "pids" => JailLayer::CgroupProcesses,
        "cpu" => JailLayer::CgroupCpu,
        "io" => JailLayer::CgroupIo,
        _ => return None,
    })
}

/// What to do about a file that the kernel does not have, or a value that it refuses.
fn remedy(file: &str, kind: io::ErrorKind) -> String {
    match (file.split_once('.'), kind) {
        (Some((controller @ ("memory" | "pids" | "cpu" | "io"), _)), io::ErrorKind::NotFound) => {
            format!("; the cgroup above it must have {controller} in cgroup.subtree_control")
        }
        (Some(("cpu", "max")), io::ErrorKind::InvalidInput) => {
            "; allowed are a quota of 1 ms or more, and a period of 1 ms to 1 s".to_owned()
        }
        (Some(("cpu", "weight")), _) => "; allowed are 1 to 10000".to_owned(),
        (Some(("io", _)), io::ErrorKind::NotConnected | io::ErrorKind::InvalidInput) => {
            "; it must be a whole block device, not a partition".to_owned()
        }
        (Some(("cgroup", _)), io::ErrorKind::ResourceBusy) => {
            "; a cgroup with controllers for whole processes in cgroup.subtree_control can have none itself".to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path, names: &[&str]) {
        names.iter().for_each(|name| fs::write(folder.join(name), "").unwrap());
    }

    fn entered(cgroup: &JailCgroup) -> JailReport {
        let mut report = JailReport::default();
        cgroup.enter(|_| true, &mut report);
        report
    }

    #[test]
    fn a_limit_that_is_refused_costs_no_other_and_not_the_cgroup() {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = JailCgroup::new(folder.path()).memory_max(1 << 30).memory_high(1 << 29).pids_max(7);
        let cgroup = cgroup.cpu_max(Duration::from_millis(5), Duration::from_millis(10)).cpu_weight(50);
        let cgroup = cgroup.io_max((8, 16), JailIo::new().read_bytes(1).write_bytes(2).read_operations(3));
        assert_eq!(cgroup.check().unwrap_err().kind(), ErrorKind::InvalidConfig);
        files(folder.path(), &["cgroup.procs"]);
        // As in a hierarchy of version 1.
        assert_eq!(cgroup.check().unwrap_err().kind(), ErrorKind::InvalidConfig);
        files(folder.path(), &["cgroup.controllers", "memory.max", "pids.max", "cpu.weight", "io.max"]);
        cgroup.check().unwrap();
        let report = entered(&cgroup);
        let missing: Vec<_> = report.missing().collect();
        let [(JailLayer::CgroupMemory, memory), (JailLayer::CgroupCpu, cpu)] = missing.as_slice() else {
            panic!("{report}")
        };
        let above = "; the cgroup above it must have memory in cgroup.subtree_control";
        assert!(memory.starts_with("cannot write 536870912 to ") && memory.ends_with(above), "{memory}");
        assert!(cpu.starts_with("cannot write 5000 10000 to ") && cpu.contains("cpu.max: No such file"), "{cpu}");
        let has = [JailLayer::Cgroup, JailLayer::CgroupProcesses, JailLayer::CgroupIo];
        assert!(has.into_iter().all(|layer| report.has(layer)), "{report}");
        let all = ["memory.max", "pids.max", "cpu.weight", "io.max", "cgroup.procs"];
        let all = all.map(|name| fs::read_to_string(folder.path().join(name)).unwrap());
        assert_eq!(all, ["1073741824", "7", "50", "8:16 rbps=1 wbps=2 riops=3", "0"]);
        let error = cgroup.join().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Host);
        assert!(
            error.to_string().starts_with("the process is without the cgroup's limit of memory (cannot"),
            "{error}"
        );
        files(folder.path(), &["memory.high", "cpu.max"]);
        assert!(entered(&cgroup).is_complete());
        cgroup.join().unwrap();
    }

    #[test]
    fn what_is_left_out_is_not_done() {
        let folder = tempfile::tempdir().unwrap();
        files(folder.path(), &["cgroup.procs", "pids.max"]);
        let mut report = JailReport::default();
        JailCgroup::new(folder.path()).pids_max(7).enter(|layer| layer != JailLayer::Cgroup, &mut report);
        let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((read("pids.max").as_str(), read("cgroup.procs").as_str()), ("7", ""));
        assert_eq!(report.in_place().collect::<Vec<_>>(), [JailLayer::CgroupProcesses]);
    }

    #[test]
    fn a_value_that_the_kernel_refuses_is_answered_with_what_is_allowed() {
        let refused = remedy("cpu.max", io::ErrorKind::InvalidInput);
        assert_eq!(refused, "; allowed are a quota of 1 ms or more, and a period of 1 ms to 1 s");
        assert_eq!(remedy("memory.max", io::ErrorKind::InvalidInput), "");
        assert_eq!(remedy("cgroup.procs", io::ErrorKind::NotFound), "");
        assert_eq!(remedy("cpu.weight", io::ErrorKind::InvalidInput), "; allowed are 1 to 10000");
    }
}
