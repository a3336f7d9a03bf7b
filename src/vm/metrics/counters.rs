//! What the thread of a vCPU counts.

use std::sync::OnceLock;
use std::time::Duration;

use super::data::{ExitCounts, VcpuMetrics};
use crate::kvm::VcpuExit;
use crate::meter::Tally;
use crate::sys::{current_thread_id, thread_cpu_time, thread_cpu_time_of};

/// Counted up by the vCPU's thread; read by any.
#[derive(Default)]
#[repr(align(64))]
pub(in crate::vm) struct VcpuCounters {
    pio_read: Tally,
    pio_write: Tally,
    mmio_read: Tally,
    mmio_write: Tally,
    interrupted: Tally,
    shutdown: Tally,
    other: Tally,
    tid: OnceLock<i32>,
    /// Once the thread is about to end.
    last_cpu_time: OnceLock<Duration>,
}

impl VcpuCounters {
    /// The thread has begun.
    pub(in crate::vm) fn begin(&self) {
        let _ = self.tid.set(current_thread_id());
    }

    /// The thread is about to end.
    pub(in crate::vm) fn end(&self) {
        let _ = self.last_cpu_time.set(thread_cpu_time());
    }

    /// The kernel's identifier of the thread, which was made. Waits for the moment that it takes to begin.
    pub(in crate::vm) fn tid(&self) -> i32 {
        *self.tid.wait()
    }

    /// The vCPU has left the guest.
    pub(in crate::vm) fn count(&self, exit: &VcpuExit<'_>) {
        let tally = match exit {
            VcpuExit::PioRead { .. } => &self.pio_read,
            VcpuExit::PioWrite { .. } => &self.pio_write,
            VcpuExit::MmioRead { .. } => &self.mmio_read,
            VcpuExit::MmioWrite { .. } => &self.mmio_write,
            VcpuExit::Interrupted => &self.interrupted,
            VcpuExit::Shutdown | VcpuExit::SystemEvent(_) => &self.shutdown,
            VcpuExit::Halt | VcpuExit::FailedEntry(_) | VcpuExit::InternalError(_) | VcpuExit::Unknown(_) => {
                &self.other
            }
        };
        tally.add(1);
    }

    pub(in crate::vm) fn read(&self) -> VcpuMetrics {
        let exits = ExitCounts {
            pio_read: self.pio_read.get(),
            pio_write: self.pio_write.get(),
            mmio_read: self.mmio_read.get(),
            mmio_write: self.mmio_write.get(),
            interrupted: self.interrupted.get(),
            shutdown: self.shutdown.get(),
            other: self.other.get(),
        };
        VcpuMetrics { exits, cpu_time: self.cpu_time() }
    }

    fn cpu_time(&self) -> Duration {
        let Some(tid) = self.tid.get() else { return Duration::ZERO };
        let ended = || self.last_cpu_time.get().copied();
        // The identifier may be another thread's once this one has ended, so what was read counts only if it has not.
        ended().or_else(|| thread_cpu_time_of(*tid).filter(|_| ended().is_none())).or_else(ended).unwrap_or_default()
    }
}
