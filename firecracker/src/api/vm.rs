//! `/vm`: whether the guest runs.

use serde::Deserialize;

/// The body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmUpdate {
    /// What the guest shall do.
    pub state: VmState,
}

/// What a guest can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum VmState {
    /// It stands still.
    Paused,
    /// It runs.
    Resumed,
}
