//! How a VM ended, and what it is doing before that.

use crate::board::ResetCause;
use crate::error::Error;

/// Why the VM ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Exit {
    /// The guest turned itself off.
    Shutdown,
    /// The guest asked for a restart: `reboot`, a panic with `panic=-1`, or a crash of its CPU. A VM of this crate starts
    /// once; build another one.
    Reset(ResetCause),
    /// [`Vm::stop`](crate::Vm::stop) or dropping the VM ended it.
    Stopped,
    /// The guest did something that cannot be served, or the host failed.
    Failed(Error),
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
