//! What can become of a VM.

use serde::{Deserialize, Serialize};

/// What has become of a VM.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "phase", content = "why")]
pub enum Phase {
    /// It boots, or its checks have not passed yet.
    Starting,
    /// Its checks pass.
    Healthy,
    /// It was idle, and its memory is in an encrypted file; the next connection wakes it.
    Suspended,
    /// It has passed its checks, and fails them now.
    Unhealthy(String),
    /// It has ended and is started again after a while.
    Waiting(String),
    /// It has ended before its checks ever passed, and is not started again.
    Failed(String),
    /// It was told to end, and has.
    Stopped,
}
