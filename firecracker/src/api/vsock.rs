//! `/vsock`: sockets between host and guest.

use serde::{Deserialize, Serialize};

/// A vsock.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// What the device was once called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_id: Option<String>,
    /// The guest's number.
    pub guest_cid: u32,
    /// The Unix socket on the host.
    pub uds_path: String,
}
