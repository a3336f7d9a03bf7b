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
    fn our_own_time_grows() {
        let before = cpu_us_beside_vcpus(std::process::id()).unwrap();
        let busy = (0..20_000_000_u64).fold(1, |sum: u64, n| std::hint::black_box(sum ^ n));
        assert!(cpu_us_beside_vcpus(std::process::id()).unwrap() > before, "{busy}");
    }
}
