//! What VMs and the host use at a moment.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::host::Host;
use crate::machine::guest::Usage;

/// What a VM, or several together, use. Sent as a list, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Thousandths of a CPU.
    pub cpu: u64,
    /// Bytes; none if the host does not tell.
    pub memory: Option<u64>,
    /// Bytes a second.
    pub read: u64,
    /// Bytes a second.
    pub written: u64,
    /// Bytes a second.
    pub received: u64,
    /// Bytes a second.
    pub sent: u64,
}

/// What the host uses, whoever does. Sent as a list, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFigures {
    /// Thousandths of a CPU.
    pub cpu: u64,
    /// Bytes that are not available.
    pub memory: u64,
    /// Bytes of the file system with the state's folder that are not available.
    pub disk: u64,
}

/// What the host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostSize {
    /// CPUs.
    pub cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes of the file system with the state's folder.
    pub disk: u64,
}

/// One look at everything.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub at: u64,
    /// The host.
    pub host: HostFigures,
    /// What it has.
    pub size: HostSize,
    /// The VMs that run, by app and number.
    pub apps: BTreeMap<String, BTreeMap<u32, Figures>>,
}

impl Figures {
    /// From what was used by two moments, so many milliseconds apart.
    fn between(before: &Usage, now: &Usage, millis: u64) -> Self {
        let rate = |before: u64, now: u64| per_second(now.saturating_sub(before), millis);
        let cpu = now.cpu.saturating_sub(before.cpu).as_micros();
        Self {
            cpu: u64::try_from(cpu).unwrap_or(u64::MAX).checked_div(millis).unwrap_or(0),
            memory: now.memory,
            read: rate(before.read, now.read),
            written: rate(before.written, now.written),
            received: rate(before.received, now.received),
            sent: rate(before.sent, now.sent),
        }
    }

    /// What both use together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let memory = self.memory.map_or(other.memory, |own| Some(own.saturating_add(other.memory.unwrap_or(0))));
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory,
            read: self.read.saturating_add(other.read),
            written: self.written.saturating_add(other.written),
            received: self.received.saturating_add(other.received),
            sent: self.sent.saturating_add(other.sent),
        }
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { cpu, memory, read, written, received, sent } = *self;
        [Some(cpu), memory, Some(read), Some(written), Some(received), Some(sent)].serialize(serializer)
    }
}

impl Serialize for HostFigures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.cpu, self.memory, self.disk].serialize(serializer)
    }
}

fn per_second(amount: u64, millis: u64) -> u64 {
    let rate = u128::from(amount).saturating_mul(1000).checked_div(u128::from(millis)).unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// A run of a VM: app, number, release, how often it was started again.
type Run = (String, u32, u32, u32);

/// Looks at what is used, and remembers what was by the look before.
pub struct Meter {
    looked: Option<Instant>,
    used: HashMap<Run, Usage>,
    /// Of the host's CPUs: the time in which they were busy, and all of it.
    cpus: (u64, u64),
}

impl Meter {
    /// Has not looked yet.
    pub fn new() -> Self {
        Self { looked: None, used: HashMap::new(), cpus: (0, 0) }
    }

    /// Looks at all VMs and at the host.
    pub fn look(&mut self, host: &Host) -> Sample {
        let now = Instant::now();
        let since = self.looked.replace(now).map(|before| now.saturating_duration_since(before));
        let mut used = HashMap::new();
        let mut apps = BTreeMap::new();
        for (app, fleet) in host.fleets_by_name() {
            let mut vms = BTreeMap::new();
            for machine in fleet.machines() {
                let Some(usage) = machine.usage() else { continue };
                let report = machine.report();
                let run = (app.clone(), report.vm, report.release, report.restarts);
                vms.insert(report.vm, self.figures(&run, &usage, since));
                used.insert(run, usage);
            }
            apps.insert(app, vms);
        }
        self.used = used;
        let (host, size) = self.host(host.parts.folder.path());
        Sample { at: millis(), host, size, apps }
    }

    fn figures(&self, run: &Run, usage: &Usage, since: Option<Duration>) -> Figures {
        let millis = since.map_or(1, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        // One that began since the last look began with nothing; nothing is known of the time before the first look.
        let before =
            self.used.get(run).copied().unwrap_or_else(|| if since.is_some() { Usage::default() } else { *usage });
        Figures::between(&before, usage, millis)
    }

    fn host(&mut self, folder: &Path) -> (HostFigures, HostSize) {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| u64::try_from(cpus.get()).unwrap_or(1));
        let (busy, all) = times(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
        let before = std::mem::replace(&mut self.cpus, (busy, all));
        let busy = if before.1 == 0 { 0 } else { busy.saturating_sub(before.0) };
        let cpu = busy.saturating_mul(1000).saturating_mul(cpus).checked_div(all.saturating_sub(before.1)).unwrap_or(0);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let (total, available) = (kibibytes(&memory, "MemTotal:"), kibibytes(&memory, "MemAvailable:"));
        let (disk, free) = rustix::fs::statvfs(folder).map_or((0, 0), |found| {
            (found.f_blocks.saturating_mul(found.f_frsize), found.f_bavail.saturating_mul(found.f_frsize))
        });
        let figures = HostFigures { cpu, memory: total.saturating_sub(available), disk: disk.saturating_sub(free) };
        (figures, HostSize { cpus, memory: total, disk })
    }
}

/// Milliseconds since 1970.
fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The first line of `/proc/stat`: the time in which the CPUs were busy, and all of it.
fn times(stat: &str) -> (u64, u64) {
    let first = stat.lines().next().unwrap_or_default();
    // User, nice, system, idle, waiting for I/O, two of interrupts, stolen; guests are among the first two.
    let times: Vec<u64> = first.split_whitespace().skip(1).take(8).map(|time| time.parse().unwrap_or(0)).collect();
    let sum = |times: &mut dyn Iterator<Item = &u64>| times.fold(0, |sum: u64, time| sum.saturating_add(*time));
    let all = sum(&mut times.iter());
    (all.saturating_sub(sum(&mut times.iter().skip(3).take(2))), all)
}

/// A line of `/proc/meminfo`, in bytes.
fn kibibytes(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_second_and_a_vm_that_began_anew_is_never_below_nothing() {
        let usage = |cpu, bytes| Usage {
            cpu: Duration::from_millis(cpu),
            memory: Some(7),
            read: bytes,
            sent: bytes,
            ..Usage::default()
        };
        let figures = Figures::between(&usage(100, 1000), &usage(1100, 5000), 2000);
        assert_eq!(figures, Figures { cpu: 500, memory: Some(7), read: 2000, sent: 2000, ..Figures::default() });
        assert_eq!(serde_json::to_string(&figures).unwrap(), "[500,7,2000,0,0,2000]");
        assert_eq!(Figures::between(&usage(100, 1000), &usage(1, 1), 2000).cpu, 0);
        let both = figures.and(&Figures { cpu: 1, memory: None, ..Figures::default() });
        assert_eq!((both.cpu, both.memory), (501, Some(7)));
    }

    #[test]
    fn the_hosts_figures_are_those_of_proc() {
        let stat = "cpu  10 1 4 100 50 2 3 5 7 0\ncpu0 1 2 3\n";
        assert_eq!(times(stat), (25, 175));
        assert_eq!(kibibytes("MemTotal:       16 kB\nMemAvailable:    4 kB\n", "MemAvailable:"), 4096);
        let mut meter = Meter::new();
        meter.host(Path::new("/"));
        let (figures, size) = meter.host(Path::new("/"));
        let total = std::fs::read_to_string("/proc/meminfo").unwrap();
        assert_eq!(size.memory, kibibytes(&total, "MemTotal:"));
        assert!(figures.memory > 0 && figures.memory < size.memory && figures.cpu <= size.cpus * 1000, "{figures:?}");
        assert!(figures.disk > 0 && figures.disk <= size.disk, "{figures:?} of {size:?}");
    }
}
