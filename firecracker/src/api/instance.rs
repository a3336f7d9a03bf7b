//! `/` and `/version`: what this is, and what it does.

use serde::Serialize;

/// The version of Firecracker's API that is served.
pub const VERSION: &str = "1.16.1";

/// What clients are told of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceInfo {
    /// What the machine is called.
    pub id: String,
    /// What it does.
    pub state: InstanceState,
    /// The version of the API.
    pub vmm_version: &'static str,
    /// Whose API it is.
    pub app_name: &'static str,
}

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum InstanceState {
    /// It can be described.
    #[serde(rename = "Not started")]
    NotStarted,
    /// Its guest runs.
    Running,
    /// Its guest stands still.
    Paused,
}

impl InstanceInfo {
    /// Of a machine with this name in this state.
    pub fn new(id: &str, state: InstanceState) -> Self {
        Self { id: id.to_owned(), state, vmm_version: VERSION, app_name: "Firecracker" }
    }
}
