//! `/drives/{drive_id}`: disks.

use serde::{Deserialize, Serialize};

use super::limiter::RateLimiter;

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// What it is called.
    pub drive_id: String,
    /// The partition with the root file system, by its UUID, if this is the root device.
    pub partuuid: Option<String>,
    /// Whether the kernel is told that its root file system is here.
    pub is_root_device: bool,
    /// What becomes of flushes.
    #[serde(default)]
    pub cache_type: CacheType,
    /// Whether the guest may only read.
    pub is_read_only: Option<bool>,
    /// A raw file or block device of the host.
    pub path_on_host: Option<String>,
    /// What the guest may do with it.
    pub rate_limiter: Option<RateLimiter>,
    /// How its requests reach the file.
    pub io_engine: Option<IoEngine>,
    /// The socket of a vhost-user backend, which vmcell has not.
    pub socket: Option<String>,
}

impl Drive {
    /// Whether the guest may only read.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only.unwrap_or(false)
    }
}

/// What changes of a disk while the guest runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveUpdate {
    /// What it is called.
    pub drive_id: String,
    /// Another file, or the same one with another size.
    pub path_on_host: Option<String>,
    /// Other limits, for what is named in them.
    pub rate_limiter: Option<RateLimiter>,
}

/// What becomes of flushes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum CacheType {
    /// The guest has none to send.
    #[default]
    Unsafe,
    /// They reach the storage.
    Writeback,
}

/// How requests reach the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum IoEngine {
    /// By io_uring.
    Async,
    /// By system calls.
    #[default]
    Sync,
}
