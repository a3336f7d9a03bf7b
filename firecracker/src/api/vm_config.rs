//! `/vm/config`, and the file of `--config-file`: the whole machine.

use serde::{Deserialize, Serialize};

use super::balloon::Balloon;
use super::boot_source::BootSource;
use super::drive::Drive;
use super::entropy::Entropy;
use super::logger::{LoggerUpdate, MetricsTarget};
use super::machine_config::MachineConfig;
use super::mmds::MmdsConfig;
use super::network::NetworkInterface;
use super::vsock::Vsock;

/// A machine. What is given to the program's own log and metrics is read and not told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmConfig {
    /// Memory that the guest gives back.
    pub balloon: Option<Balloon>,
    /// Disks.
    pub drives: Vec<Drive>,
    /// What the guest starts with.
    pub boot_source: BootSource,
    /// Registers of the CPUs, which are refused.
    #[serde(default)]
    pub cpu_config: Option<serde_json::Value>,
    /// The program's log.
    #[serde(default, serialize_with = "nothing")]
    pub logger: Option<LoggerUpdate>,
    /// CPUs and memory.
    pub machine_config: Option<MachineConfig>,
    /// The program's metrics.
    #[serde(default, serialize_with = "nothing")]
    pub metrics: Option<MetricsTarget>,
    /// The metadata service.
    pub mmds_config: Option<MmdsConfig>,
    /// Network cards.
    #[serde(default)]
    pub network_interfaces: Vec<NetworkInterface>,
    /// Sockets between host and guest.
    pub vsock: Option<Vsock>,
    /// Random bytes.
    pub entropy: Option<Entropy>,
    /// Disks as memory, which are refused.
    #[serde(default)]
    pub pmem: Vec<serde_json::Value>,
    /// Memory that comes and goes, which is refused.
    #[serde(default)]
    pub memory_hotplug: Option<serde_json::Value>,
}

fn nothing<T, S: serde::Serializer>(_: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_none()
}
