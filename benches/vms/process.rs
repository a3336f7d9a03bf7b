//! What the kernel says that this process has.

use std::fs;
use std::time::Duration;

/// What the process has at one moment.
pub struct Process {
    pub descriptors: u64,
    pub mappings: u64,
    pub threads: u64,
    pub resident_kib: u64,
    /// Of all its threads together.
    pub cpu: Duration,
}

impl Process {
    pub fn now() -> Self {
        Self {
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            mappings: lines("/proc/self/maps"),
            threads: status("Threads:"),
            resident_kib: status("VmRSS:"),
            cpu: cpu(),
        }
    }

    /// What came since `before`.
    pub fn less(&self, before: &Self) -> Self {
        Self {
            descriptors: self.descriptors.saturating_sub(before.descriptors),
            mappings: self.mappings.saturating_sub(before.mappings),
            threads: self.threads.saturating_sub(before.threads),
            resident_kib: self.resident_kib.saturating_sub(before.resident_kib),
            cpu: self.cpu.saturating_sub(before.cpu),
        }
    }
}

fn lines(path: &str) -> u64 {
    fs::read_to_string(path).map_or(0, |text| text.lines().count() as u64)
}

/// A number of `/proc/self/status`.
fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
