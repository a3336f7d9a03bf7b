//! What /proc says of a monitor that runs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::exec::{Context, Result};

/// How long the threads of a process have been on a CPU, in microseconds, but for its vCPUs: those run the guest, which polls.
pub fn cpu_us_beside_vcpus(process: u32) -> Result<f64> {
    let tasks = PathBuf::from(format!("/proc/{process}/task"));
    let entries = fs::read_dir(&tasks).context(tasks.display())?;
    // A thread may end while it is looked at; what it did is then lost, and is next to nothing.
    let times = entries.flatten().filter_map(|task| thread_us(&task.path()));
    Ok(times.sum())
}

fn thread_us(task: &Path) -> Option<f64> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    if is_vcpu(name.trim_end()) {
        return Some(0.0);
    }
    // The first figure is the time on a CPU in nanoseconds; /proc/PID/stat has it in ticks only.
    let times = fs::read_to_string(task.join("schedstat")).ok()?;
    let nanoseconds: f64 = times.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1000.0)
}

/// What a process has in memory beside its guest's `guest_kib`, by its share of what it shares with others (Pss), in KiB.
pub fn kib_beside_guest(process: u32, guest_kib: u64) -> Result<f64> {
    let path = format!("/proc/{process}/smaps");
    let text = fs::read_to_string(&path).context(path)?;
    Ok(pss_of_smaller(&text, guest_kib))
}

/// The guest's memory is in one mapping, and none of the others is as large.
fn pss_of_smaller(smaps: &str, guest_kib: u64) -> f64 {
    let (mut size, mut sum) = (0, 0);
    for line in smaps.lines() {
        let value = || line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        match line.split_once(':').map(|(key, _)| key) {
            Some("Size") => size = value(),
            Some("Pss") if size < guest_kib => sum += value(),
            _ => {}
        }
    }
    sum as f64
}

/// By the names that our launcher, Firecracker and QEMU give to them.
fn is_vcpu(name: &str) -> bool {
    name.contains("vcpu") || (name.starts_with("CPU ") && name.contains("KVM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpu_threads_are_known_by_their_names() {
        for name in ["vmcell-vcpu0", "fc_vcpu 0", "CPU 0/KVM"] {
            assert!(is_vcpu(name), "{name}");
        }
        for name in ["vmcell-io", "firecracker", "IO io", "iou-wrk-77"] {
            assert!(!is_vcpu(name), "{name}");
        }
    }

    #[test]
    fn the_guests_own_mapping_is_left_out() {
        let smaps =
            "7f0-7f1 rw-p 0 0:0 0\nSize: 131072 kB\nPss: 9000 kB\n7f2-7f3 r--p 0 0:0 0 /x\nSize: 8 kB\nPss: 6 kB\n";
        assert!((pss_of_smaller(smaps, 131_072) - 6.0).abs() < 1e-9);
    }

    #[test]
    fn our_own_time_grows() {
        let before = cpu_us_beside_vcpus(std::process::id()).unwrap();
        let busy = (0..20_000_000_u64).fold(1, |sum: u64, n| std::hint::black_box(sum ^ n));
        assert!(cpu_us_beside_vcpus(std::process::id()).unwrap() > before, "{busy}");
    }
}
