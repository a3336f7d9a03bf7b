//! What the clocks of a VM show that begins with a snapshot.

/// What the guest's clocks show in a VM that begins with a snapshot: plain data for
/// [`VmBuilder::fork_clock`](crate::VmBuilder::fork_clock).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum ForkClock {
    /// The time since the snapshot has passed, as after a [pause](crate::Vm::pause): the time of day is right, and so the guest's certificates,
    /// tokens and time limits are. The time since boot (`CLOCK_MONOTONIC` in Linux) jumps with it, and timers that came due meanwhile fire at once.
    #[default]
    Jump,
    /// No time has passed: the clocks go on from where they were, and the time of day is late by as much as has passed since the snapshot, until
    /// the guest asks a time server. It is for guests whose run is to be repeated, and for those whose time limits must not run out in
    /// their sleep.
    Keep,
}
