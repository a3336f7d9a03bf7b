//! `/snapshot/create` and `/snapshot/load`.

use serde::Deserialize;

/// A snapshot to be taken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// All of the memory, or what has changed.
    #[serde(default)]
    pub snapshot_type: SnapshotType,
    /// The file for what belongs to this API.
    pub snapshot_path: String,
    /// The file for the machine.
    pub mem_file_path: String,
}

/// How much of the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum SnapshotType {
    /// What has changed since the last one.
    Diff,
    /// All of it.
    #[default]
    Full,
}

/// A snapshot to go on with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotLoad {
    /// The file for what belongs to this API.
    pub snapshot_path: String,
    /// The file for the machine, by its old name.
    pub mem_file_path: Option<String>,
    /// The file for the machine.
    pub mem_backend: Option<MemoryBackend>,
    /// Whether snapshots of what has changed can be taken, by its old name.
    #[serde(default)]
    pub enable_diff_snapshots: bool,
    /// Whether snapshots of what has changed can be taken.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Whether the guest goes on at once.
    #[serde(default)]
    pub resume_vm: bool,
    /// Other TAP devices.
    #[serde(default)]
    pub network_overrides: Vec<NetworkOverride>,
    /// Other files of disks. Firecracker has no such member.
    #[serde(default)]
    pub drive_overrides: Vec<DriveOverride>,
    /// Another socket.
    pub vsock_override: Option<VsockOverride>,
    /// Whether the time since the snapshot has passed for the guest.
    #[serde(default)]
    pub clock_realtime: bool,
}

/// Where the memory comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryBackend {
    /// What is at the path.
    pub backend_type: MemoryBackendType,
    /// The path.
    pub backend_path: String,
}

/// What memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum MemoryBackendType {
    /// A file.
    File,
    /// Another program, which vmcell does not need.
    Uffd,
}

/// Another TAP device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkOverride {
    /// The card.
    pub iface_id: String,
    /// Its TAP device.
    pub host_dev_name: String,
}

/// Another file of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveOverride {
    /// The disk.
    pub drive_id: String,
    /// Its file.
    pub path_on_host: String,
}

/// Another socket of the vsock.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockOverride {
    /// Its path.
    pub uds_path: String,
}
