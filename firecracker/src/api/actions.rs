//! `/actions`: what is done at once.

use serde::Deserialize;

/// The body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionInfo {
    /// What is done.
    pub action_type: Action,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Action {
    /// Writes the metrics.
    FlushMetrics,
    /// Starts the machine.
    InstanceStart,
    /// Asks the guest to end.
    SendCtrlAltDel,
}
