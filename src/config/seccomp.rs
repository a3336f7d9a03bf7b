//! What becomes of a system call that a thread of a VM has no reason to make.

/// What becomes of a system call that a thread of a VM has no reason to make: plain data for
/// [`VmBuilder::seccomp`](crate::VmBuilder::seccomp).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Seccomp {
    /// The kernel carries it out: nothing is filtered.
    #[default]
    Off,
    /// It fails with `ENOSYS`, as if the kernel did not have it, and the VM goes on.
    Refuse,
    /// The kernel ends the process, and with it all its VMs, by the signal `SIGSYS`.
    Kill,
}
