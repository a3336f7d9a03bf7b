//! The cgroup of a jail: one of version 2, which is made below one that is there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fs::statfs;
use vmcell::{JailCgroup, JailIo};

use super::number;

/// The file system of cgroups of version 2 (`linux/magic.h`).
const CGROUP2: i64 = 0x6367_7270;

const ALLOWED: &str = "allowed are memory.max=BYTES, memory.high=BYTES, pids.max=NUMBER, cpu.weight=1 to 10000, cpu.max=\"US US\" and \
                       io.max=\"MAJOR:MINOR rbps=N wbps=N riops=N wiops=N\"";

/// What a file of a cgroup is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupLimit {
    /// The most memory, in bytes.
    MemoryMax(u64),
    /// Beyond so many bytes, memory is taken back.
    MemoryHigh(u64),
    /// The most processes and threads.
    PidsMax(u64),
    /// The CPU time in each period: both.
    CpuMax(Duration, Duration),
    /// The share of the CPUs beside others.
    CpuWeight(u32),
    /// What is done a second with a block device, by its numbers.
    IoMax((u32, u32), JailIo),
}

impl CgroupLimit {
    /// Reads a file and its value, such as `memory.max=1073741824`.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let limit = text.split_once('=').and_then(|(file, value)| match file {
            "memory.max" => number(value).map(Self::MemoryMax),
            "memory.high" => number(value).map(Self::MemoryHigh),
            "pids.max" => number(value).map(Self::PidsMax),
            "cpu.weight" => number(value).filter(|weight| (1..=10_000).contains(weight)).map(Self::CpuWeight),
            "cpu.max" => cpu_max(value),
            "io.max" => io_max(value),
            _ => None,
        });
        limit.ok_or_else(|| ALLOWED.to_owned())
    }

    fn of(self, cgroup: JailCgroup) -> JailCgroup {
        match self {
            Self::MemoryMax(bytes) => cgroup.memory_max(bytes),
            Self::MemoryHigh(bytes) => cgroup.memory_high(bytes),
            Self::PidsMax(count) => cgroup.pids_max(count),
            Self::CpuMax(quota, period) => cgroup.cpu_max(quota, period),
            Self::CpuWeight(weight) => cgroup.cpu_weight(weight),
            Self::IoMax(device, limits) => cgroup.io_max(device, limits),
        }
    }

    /// What the cgroup above must give out.
    fn controller(self) -> &'static str {
        match self {
            Self::MemoryMax(_) | Self::MemoryHigh(_) => "memory",
            Self::PidsMax(_) => "pids",
            Self::CpuMax(..) | Self::CpuWeight(_) => "cpu",
            Self::IoMax(..) => "io",
        }
    }
}

fn cpu_max(value: &str) -> Option<CgroupLimit> {
    let (quota, period) = value.split_once(' ')?;
    let us = |text: &str| number(text).map(Duration::from_micros);
    Some(CgroupLimit::CpuMax(us(quota)?, us(period)?))
}

fn io_max(value: &str) -> Option<CgroupLimit> {
    let mut words = value.split(' ');
    let (major, minor) = words.next()?.split_once(':')?;
    let device = (number(major)?, number(minor)?);
    let mut limits = JailIo::new();
    for word in words {
        let (name, most) = word.split_once('=')?;
        let most = number(most)?;
        limits = match name {
            "rbps" => limits.read_bytes(most),
            "wbps" => limits.write_bytes(most),
            "riops" => limits.read_operations(most),
            "wiops" => limits.write_operations(most),
            _ => return None,
        };
    }
    // Without a word, it would limit nothing.
    (limits != JailIo::new()).then_some(CgroupLimit::IoMax(device, limits))
}

/// Makes the cgroup `id` in `parent`, which is one, gives it its limits, and moves the process there. It stays when the program has
/// ended, for whoever started that to look at and to remove.
///
/// # Errors
/// What the host does not give, and why; and if another process is in the cgroup.
pub fn make_and_join(parent: &Path, id: &str, limits: &[CgroupLimit]) -> Result<(), String> {
    // Files that only have those names would be written to.
    if !statfs(parent).is_ok_and(|found| found.f_type == CGROUP2) {
        return Err(format!("{} is not the folder of a cgroup of version 2", parent.display()));
    }
    make_in(parent, id, limits)
}

fn make_in(parent: &Path, id: &str, limits: &[CgroupLimit]) -> Result<(), String> {
    for limit in limits {
        // What cannot be given out is said by the limit that is missing.
        let file = File::options().write(true).open(parent.join("cgroup.subtree_control"));
        // By one call: each is a command of its own.
        let _ = file.and_then(|mut file| file.write_all(format!("+{}", limit.controller()).as_bytes()));
    }
    let folder = parent.join(id);
    match fs::create_dir(&folder) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("cannot make the cgroup {}: {why}", folder.display()));
        }
        _ => {}
    }
    // Held until the process is there, for two that come at once.
    let held = File::open(&folder).map_err(|why| format!("cannot open the cgroup {}: {why}", folder.display()))?;
    if held.try_lock().is_err() || is_used(&folder) {
        return Err(format!("another process is in the cgroup {}: choose another --id", folder.display()));
    }
    let cgroup = limits.iter().fold(JailCgroup::new(&folder), |cgroup, limit| limit.of(cgroup));
    cgroup.join().map_err(|error| error.chain())
}

/// Whether another process than this is in a cgroup, or below it.
fn is_used(folder: &Path) -> bool {
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let is_populated = read("cgroup.events").lines().any(|line| line == "populated 1");
    is_populated && read("cgroup.procs").trim() != std::process::id().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_files_that_there_are() {
        let us = Duration::from_micros;
        let io = JailIo::new().read_bytes(1).write_operations(2);
        for (text, limit) in [
            ("memory.max=4096", CgroupLimit::MemoryMax(4096)),
            ("memory.high=0", CgroupLimit::MemoryHigh(0)),
            ("pids.max=7", CgroupLimit::PidsMax(7)),
            ("cpu.weight=10000", CgroupLimit::CpuWeight(10_000)),
            ("cpu.max=50000 100000", CgroupLimit::CpuMax(us(50_000), us(100_000))),
            ("io.max=8:16 rbps=1 wiops=2", CgroupLimit::IoMax((8, 16), io)),
        ] {
            assert_eq!(CgroupLimit::parse(text), Ok(limit));
        }
        let wrong = [
            "",
            "memory.max",
            "memory.max=max",
            "cpu.weight=0",
            "cpu.max=1",
            "io.max=8 rbps=1",
            "io.max=8:0 x=1",
            "io.max=8:0",
            "pids.max=+7",
            "cpuset.cpus=0",
        ];
        for text in wrong {
            assert_eq!(CgroupLimit::parse(text), Err(ALLOWED.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_process_joins_a_cgroup_of_its_own_with_limits_and_what_the_host_does_not_give_is_said() {
        let parent = tempfile::tempdir().unwrap();
        let join = |limits: &[CgroupLimit]| make_in(parent.path(), "vm-1", limits);
        let own = parent.path().join("vm-1");
        fs::create_dir(&own).unwrap();
        // What the kernel makes in each of them.
        for folder in [parent.path(), &own] {
            for file in ["cgroup.controllers", "cgroup.procs", "cgroup.subtree_control", "memory.max"] {
                fs::write(folder.join(file), "").unwrap();
            }
        }
        // All of it only looks like one.
        let refused = make_and_join(parent.path(), "vm-1", &[CgroupLimit::MemoryMax(4096)]).unwrap_err();
        assert!(refused.ends_with("is not the folder of a cgroup of version 2"), "{refused}");
        assert_eq!(fs::read_to_string(parent.path().join("cgroup.subtree_control")).unwrap(), "");
        join(&[CgroupLimit::MemoryMax(4096)]).unwrap();
        let held = |file: &str| fs::read_to_string(own.join(file)).unwrap();
        assert_eq!((held("memory.max").as_str(), held("cgroup.procs").as_str()), ("4096", "0"));
        assert_eq!(fs::read_to_string(parent.path().join("cgroup.subtree_control")).unwrap(), "+memory");
        let refused = join(&[CgroupLimit::PidsMax(7)]).unwrap_err();
        assert!(refused.contains("must have pids in cgroup.subtree_control"), "{refused}");
    }

    #[test]
    fn a_cgroup_with_another_process_is_refused_before_its_limits_change() {
        let parent = tempfile::tempdir().unwrap();
        let own = parent.path().join("vm-1");
        fs::create_dir(&own).unwrap();
        let (other, this) = ("1\n".to_owned(), format!("{}\n", std::process::id()));
        for (events, processes, is_refused) in
            [("populated 1\n", &other, true), ("populated 1\n", &this, false), ("populated 0\n", &String::new(), false)]
        {
            fs::write(own.join("cgroup.controllers"), "").unwrap();
            fs::write(own.join("cgroup.events"), format!("{events}frozen 0\n")).unwrap();
            fs::write(own.join("cgroup.procs"), processes).unwrap();
            fs::write(own.join("pids.max"), "max").unwrap();
            let joined = make_in(parent.path(), "vm-1", &[CgroupLimit::PidsMax(7)]);
            assert_eq!(joined.is_err(), is_refused, "{joined:?}");
            assert_eq!(fs::read_to_string(own.join("pids.max")).unwrap(), if is_refused { "max" } else { "7ax" });
        }
        let _held = {
            let folder = File::open(&own).unwrap();
            folder.lock().unwrap();
            folder
        };
        assert!(make_in(parent.path(), "vm-1", &[]).unwrap_err().contains("choose another --id"));
    }
}
