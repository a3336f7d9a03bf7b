//! What an I/O thread has done.

use std::time::Duration;

use super::polling::PollingStats;
use super::thread::IoThread;
use crate::sys::thread_cpu_time_of;

/// What an I/O thread has done since it began. See [`meter`](crate::meter) for what counters promise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoThreadMetrics {
    /// Its name, as it was given.
    pub name: String,
    /// The kernel's identifier of it.
    pub tid: i32,
    /// Whether a VM made it for itself. One that a caller made may serve several VMs.
    pub is_own: bool,
    /// How long it has run on a CPU, polling included.
    pub cpu_time: Duration,
    /// How many turns it gave to its devices and consoles.
    pub turns: u64,
    /// The CPU time of the longest turn, if turns are [measured](IoThread::measure_turns).
    pub longest_turn: Option<Duration>,
    /// What polling has cost and brought.
    pub polling: PollingStats,
}

impl IoThread {
    /// Returns what the thread has done so far. Costs a system call, and never blocks for long.
    pub fn metrics(&self) -> IoThreadMetrics {
        let bell = &self.joiner.shared.bell;
        let tid = self.tid();
        IoThreadMetrics {
            name: self.name().to_owned(),
            tid,
            is_own: false,
            // This handle keeps the thread from ending, so the identifier is its own.
            cpu_time: thread_cpu_time_of(tid).unwrap_or_default(),
            turns: bell.meter.turns(),
            longest_turn: bell.meter.is_measuring().then(|| bell.meter.longest()),
            polling: bell.polling.stats(),
        }
    }

    /// Whether both are handles to one thread.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::sync::Arc::ptr_eq(&self.joiner, &other.joiner)
    }
}
