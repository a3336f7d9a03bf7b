//! What a request means.

use serde_json::Value;

use super::actions::Action;
use super::balloon::{Balloon, BalloonStatisticsUpdate, BalloonUpdate};
use super::boot_source::BootSource;
use super::drive::{Drive, DriveUpdate};
use super::entropy::Entropy;
use super::logger::{LoggerUpdate, MetricsTarget};
use super::machine_config::MachineConfigUpdate;
use super::mmds::MmdsConfig;
use super::network::{NetworkInterface, NetworkInterfaceUpdate};
use super::serial::Serial;
use super::snapshot::{SnapshotCreate, SnapshotLoad};
use super::vm::VmState;
use super::vsock::Vsock;

/// A request that is well-formed.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is a method and a path")]
pub enum Call {
    GetInstance,
    GetVersion,
    GetVmConfig,
    PatchVm(VmState),
    GetMachineConfig,
    /// `PUT` and `PATCH`.
    SetMachineConfig(MachineConfigUpdate),
    PutBootSource(BootSource),
    PutDrive(Drive),
    PatchDrive(DriveUpdate),
    PutNetworkInterface(NetworkInterface),
    PatchNetworkInterface(NetworkInterfaceUpdate),
    PutVsock(Vsock),
    GetBalloon,
    PutBalloon(Balloon),
    PatchBalloon(BalloonUpdate),
    GetBalloonStatistics,
    PatchBalloonStatistics(BalloonStatisticsUpdate),
    PutEntropy(Entropy),
    PutSerial(Serial),
    GetMmds,
    PutMmds(Value),
    PatchMmds(Value),
    PutMmdsConfig(MmdsConfig),
    PutLogger(LoggerUpdate),
    PutMetrics(MetricsTarget),
    Action(Action),
    CreateSnapshot(SnapshotCreate),
    LoadSnapshot(SnapshotLoad),
    RemoveDevice,
    /// What the API has and this program has not.
    Unsupported {
        /// The resource.
        what: &'static str,
        /// Why it is not there.
        why: &'static str,
        /// When it could be asked for at all; `None` at any time.
        only: Option<When>,
    },
}

/// When something can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the machine is started.
    Before,
    /// After that.
    After,
}

impl Call {
    /// When it can be asked for; `None` at any time.
    pub fn when(&self) -> Option<When> {
        match self {
            Self::GetInstance
            | Self::GetVersion
            | Self::GetVmConfig
            | Self::GetMachineConfig
            | Self::GetBalloon
            | Self::GetMmds
            | Self::PutMmds(_)
            | Self::PatchMmds(_)
            | Self::PutDrive(_)
            | Self::PutNetworkInterface(_) => None,
            Self::SetMachineConfig(_)
            | Self::PutBootSource(_)
            | Self::PutVsock(_)
            | Self::PutBalloon(_)
            | Self::PutEntropy(_)
            | Self::PutSerial(_)
            | Self::PutMmdsConfig(_)
            | Self::PutLogger(_)
            | Self::PutMetrics(_)
            | Self::LoadSnapshot(_)
            | Self::Action(Action::InstanceStart) => Some(When::Before),
            Self::PatchVm(_)
            | Self::PatchDrive(_)
            | Self::PatchNetworkInterface(_)
            | Self::PatchBalloon(_)
            | Self::GetBalloonStatistics
            | Self::PatchBalloonStatistics(_)
            | Self::CreateSnapshot(_)
            | Self::RemoveDevice
            | Self::Action(Action::FlushMetrics | Action::SendCtrlAltDel) => Some(When::After),
            Self::Unsupported { only, .. } => *only,
        }
    }

    /// Whether it would add a device to a machine that runs, or take one away.
    pub fn plugs_device(&self) -> bool {
        matches!(self, Self::PutDrive(_) | Self::PutNetworkInterface(_) | Self::RemoveDevice)
    }
}
