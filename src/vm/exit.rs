//! How a VM ended, and what it is doing before that.

use crate::board::ResetCause;
use crate::error::Error;

/// Why the VM ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Exit {
    /// The guest turned itself off.
    Shutdown,
    /// The guest asked for a restart: `reboot`, a panic of which it does not tell, or a crash of its CPU. A VM of this crate starts
    /// once; build another one.
    Reset(ResetCause),
    /// The guest's kernel said that it panicked, by the register that QEMU calls pvpanic: the driver is in Linux, and in most
    /// distributions a module (`pvpanic-mmio`). A panic before that is loaded is a [`Reset`](Self::Reset), or the guest
    /// hangs, as its `panic=` says.
    ///
    /// The VM ends at once, and the guest does not wait or restart as its `panic=` says: what it had to say is on its
    /// console. If it has loaded a crash kernel (kdump), then that runs, and the VM ends when it turns off or restarts.
    Panicked,
    /// [`Vm::stop`](crate::Vm::stop) or dropping the VM ended it.
    Stopped,
    /// The guest did something that cannot be served, or the host failed.
    Failed(Error),
}

impl Exit {
    /// What it means of a guest that panicked before.
    pub(super) fn after_panic(self) -> Self {
        match self {
            Self::Shutdown | Self::Reset(_) => Self::Panicked,
            other => other,
        }
    }
}

/// What a VM is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Built, and not started.
    Ready,
    /// Its vCPUs run.
    Running,
    /// Its vCPUs and devices stand still.
    Paused,
    /// It has ended; [`Vm::wait`](crate::Vm::wait) tells how.
    Ended,
}
