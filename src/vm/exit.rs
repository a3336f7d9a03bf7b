//! How a VM ended, and what it is doing before that.

use std::fmt;

use crate::board::ResetCause;
use crate::error::Error;

/// Why the VM ended.
///
/// ```
/// use vmcell::{Exit, ResetCause};
///
/// let exit = Exit::Reset(ResetCause::TripleFault);
/// assert!(exit.is_crash());
/// assert_eq!(exit.to_string(), "the guest reset itself by a triple fault");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// Whether the guest crashed, or the host failed under it: [`Panicked`](Self::Panicked), [`Failed`](Self::Failed), and a
    /// reset by a triple fault.
    ///
    /// Any other reset is no crash, since the guest asked for it; so a kernel that panics, does not say so, and then reboots (`panic=-1`)
    /// counts as one that rebooted. A kernel that reboots by a triple fault on purpose (`reboot=t`) counts as one that crashed.
    pub fn is_crash(&self) -> bool {
        match self {
            Self::Panicked | Self::Failed(_) | Self::Reset(ResetCause::TripleFault) => true,
            Self::Shutdown | Self::Reset(_) | Self::Stopped => false,
        }
    }
}

/// A clause for a log line, without a final stop. For a failure it contains all causes.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("the guest turned itself off"),
            Self::Reset(cause) => write!(f, "the guest reset itself by {cause}"),
            Self::Panicked => f.write_str("the guest panicked"),
            Self::Stopped => f.write_str("the VM was stopped"),
            Self::Failed(error) => write!(f, "the VM failed: {}", error.chain()),
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
    /// It is about to end: no vCPU enters the guest any more, and not all of its threads have left.
    Ending,
    /// It has ended; [`Vm::wait`](crate::Vm::wait) tells how.
    Ended,
}

/// One word in lower case.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ending => "ending",
            Self::Ended => "ended",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_status_is_a_word_that_keeps_to_its_column() {
        let told =
            [Status::Ready, Status::Running, Status::Paused, Status::Ending, Status::Ended].map(|s| s.to_string());
        assert_eq!(told, ["ready", "running", "paused", "ending", "ended"]);
        assert_eq!(format!("{:8}|", Status::Ready), "ready   |");
    }

    #[test]
    fn each_way_to_end_reads_as_a_clause_and_says_whether_it_was_a_crash() {
        let failure = || Error::new(ErrorKind::Guest, "the guest halted").with_source("vCPU 0 was at address 0x10");
        let told = [
            (Exit::Shutdown, "the guest turned itself off", false),
            (Exit::Stopped, "the VM was stopped", false),
            (Exit::Reset(ResetCause::Acpi), "the guest reset itself by the ACPI reset register", false),
            (Exit::Reset(ResetCause::TripleFault), "the guest reset itself by a triple fault", true),
            (Exit::Failed(failure()), "the VM failed: the guest halted: vCPU 0 was at address 0x10", true),
        ];
        for (exit, text, is_crash) in &told {
            assert_eq!((exit.to_string().as_str(), exit.is_crash()), (*text, *is_crash));
            assert_eq!(told.iter().filter(|(other, ..)| other == exit).count(), 1);
        }
        assert_eq!(Exit::Failed(failure()), Exit::Failed(failure()));
        assert_ne!(Exit::Failed(failure()), Exit::Failed(Error::new(ErrorKind::Guest, "the guest halted")));
    }
}
