//! A whole VM as data.

use std::collections::BTreeMap;
use std::time::Duration;

use super::affinity::Affinity;
use super::balloon::BalloonConfig;
use super::boot::Boot;
use super::cgroup::CgroupConfig;
use super::console::ConsoleConfig;
use super::cpu::{CpuConfig, check_vcpus};
use super::disk::DiskConfig;
use super::fork_clock::ForkClock;
use super::limits::Limits;
use super::memory::MemoryConfig;
use super::name::check_name;
use super::nic::NicConfig;
use super::rate::RateLimit;
use super::rng::RngConfig;
use super::seccomp::Seccomp;
use super::vsock::VsockConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::KickSignal;

/// An I/O thread looks for no longer.
const MAX_POLL_US: u32 = 1000;

/// A description of a VM as plain data: it can be kept, compared, changed, and written as JSON (with the feature `serde`).
///
/// [`build`](Self::build) borrows it, and opens the files and devices that it names each time. What cannot be data, such as an open
/// descriptor, a callback, or a backend of your own, is given beside it: [`builder`](Self::builder) returns a
/// [`VmBuilder`](crate::VmBuilder) that takes these.
///
/// Relative paths are those of the process when the VM is built.
///
/// ```no_run
/// use vmcell::{Boot, ConsoleConfig, DiskConfig, MemoryConfig, NicConfig, VmConfig};
///
/// let mut config = VmConfig::new(Boot::linux("vmlinuz").cmdline("console=ttyS0 root=/dev/vda"));
/// config.vcpus = 2;
/// config.memory = MemoryConfig::mib(256);
/// config.disks.push(DiskConfig::new("root.img").read_only(true));
/// config.nics.push(NicConfig::tap("tap0"));
/// config.console = ConsoleConfig::file("guest.log");
/// config.validate()?; // opens nothing
/// let first = config.build()?;
/// first.start()?;
/// first.wait()?;
/// drop(first);
/// let second = config.build()?; // the same once more
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default, expecting = "an object")
)]
#[non_exhaustive]
pub struct VmConfig {
    /// The VM's name, 0 to 64 printable ASCII characters; see [`VmBuilder::name`](crate::VmBuilder::name). The default is an empty one, which is none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "String::is_empty"))]
    pub name: String,
    /// How many vCPUs, 1 to 64. The default is 1.
    pub vcpus: u32,
    /// What the vCPUs can do. The default is all that the host can give.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_default"))]
    pub cpu: CpuConfig,
    /// How much RAM, and what the host takes it from. The default is 128 MiB.
    pub memory: MemoryConfig,
    /// What the guest starts with. There is no default: a VM without it is refused when it is built.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub boot: Option<Boot>,
    /// The disks: `/dev/vda` in Linux, `/dev/vdb` and so on. There is none by default.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub disks: Vec<DiskConfig>,
    /// The network cards, in the order in which the guest finds them. There is none by default.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub nics: Vec<NicConfig>,
    /// A source of random bytes, which the guest finds behind its disks and network cards. There is none by default.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub rng: Option<RngConfig>,
    /// A balloon, by which the guest gives memory back. The guest finds it behind its source of random bytes. There is none by default.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub balloon: Option<BalloonConfig>,
    /// Limits that several disks and network cards keep to together, by the names by which these are put into a group. See
    /// [`LimitGroup`](crate::LimitGroup). There is none by default.
    #[cfg_attr(
        feature = "serde",
        serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "super::written::each_once")
    )]
    pub limit_groups: BTreeMap<String, Limits>,
    /// A vsock, by which host and guest talk to each other, and which the guest finds behind its balloon. There is none by default.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub vsock: Option<VsockConfig>,
    /// What the serial port is connected to. The default is nothing.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_default"))]
    pub console: ConsoleConfig,
    /// How many bytes of the guest's output the console's sinks get at most; see
    /// [`VmBuilder::console_rate`](crate::VmBuilder::console_rate). The default is no limit.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub console_rate: Option<RateLimit>,
    /// The signal by which vCPU threads are made to leave the guest; see [`VmBuilder::kick_signal`](crate::VmBuilder::kick_signal).
    /// The default is [`DEFAULT_KICK_SIGNAL`](crate::DEFAULT_KICK_SIGNAL).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub kick_signal: Option<i32>,
    /// For how many microseconds at most the I/O threads that the VM makes for itself look for more to do before they sleep, 0 to
    /// 1000; see [`IoThread::set_polling`](crate::IoThread::set_polling). The default is 50.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub poll_us: Option<u32>,
    /// On which of the host's CPUs the VM's threads may run; see [`VmBuilder::affinity`](crate::VmBuilder::affinity). The default
    /// says nothing.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_default"))]
    pub affinity: Affinity,
    /// A cgroup of its own for the VM's threads, with a share of the CPUs; see [`VmBuilder::cgroup`](crate::VmBuilder::cgroup). The default
    /// is the cgroup of the process.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub cgroup: Option<CgroupConfig>,
    /// Whether the VM's threads share no core with threads of others; see
    /// [`VmBuilder::core_scheduling`](crate::VmBuilder::core_scheduling). The default is not to care.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_default"))]
    pub core_scheduling: bool,
    /// What becomes of a system call that a thread of the VM has no reason to make; see
    /// [`VmBuilder::seccomp`](crate::VmBuilder::seccomp). The default is that nothing is filtered.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_default"))]
    pub seccomp: Seccomp,
    /// Whether no snapshot may be taken of the VM; see [`VmBuilder::never_snapshot`](crate::VmBuilder::never_snapshot). The default is
    /// that one may.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_default"))]
    pub never_snapshot: bool,
    /// What the clocks show if the VM begins with a snapshot; see [`VmBuilder::fork_clock`](crate::VmBuilder::fork_clock). The default is
    /// that the time since the snapshot has passed.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_default"))]
    pub fork_clock: ForkClock,
}

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            vcpus: 1,
            cpu: CpuConfig::default(),
            memory: MemoryConfig::default(),
            boot: None,
            disks: Vec::new(),
            nics: Vec::new(),
            rng: None,
            balloon: None,
            limit_groups: BTreeMap::new(),
            vsock: None,
            console: ConsoleConfig::default(),
            console_rate: None,
            kick_signal: None,
            poll_us: None,
            affinity: Affinity::new(),
            cgroup: None,
            core_scheduling: false,
            seccomp: Seccomp::Off,
            never_snapshot: false,
            fork_clock: ForkClock::Jump,
        }
    }
}

impl VmConfig {
    /// Describes a VM with one vCPU, 128 MiB of RAM, no device and no console, which starts with `boot`.
    pub fn new(boot: Boot) -> Self {
        Self { boot: Some(boot), ..Self::default() }
    }

    /// Checks the values without a look at the host, and opens nothing. [`build`](Self::build) does this first. How many devices there
    /// are and how long the command line is are checked when the VM is built, and so is what only the host can tell.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a kernel that is missing, a value that is out of range, or values that contradict each
    /// other. The error of a device says which one it is, counted from 0.
    pub fn validate(&self) -> Result<()> {
        self.boot()?.validate()?;
        check_name(&self.name)?;
        check_vcpus(self.vcpus)?;
        self.cpu.validate()?;
        self.affinity.check_vcpus(self.vcpus)?;
        self.kick()?;
        self.polling()?;
        self.memory.validate()?;
        for (name, limits) in &self.limit_groups {
            limits.validate().map_err(|error| error.about(&format!("limit group {name:?}")))?;
        }
        for (index, disk) in self.disks.iter().enumerate() {
            disk.validate_described(index)?;
            let about = || format!("disk {}", disk.name_as(index));
            self.check_group(disk.limit_group.as_deref()).map_err(|error| error.about(&about()))?;
        }
        for (index, nic) in self.nics.iter().enumerate() {
            let checked = nic.validate_described().and_then(|()| {
                self.check_group(nic.receive_group.as_deref())?;
                self.check_group(nic.send_group.as_deref())
            });
            checked.map_err(|error| error.about(&nic.label(index)))?;
        }
        self.rng.as_ref().map_or(Ok(()), RngConfig::validate).map_err(|error| error.about("rng"))?;
        let balloon = self.balloon.as_ref().map_or(Ok(()), |balloon| balloon.validate(&self.memory));
        balloon.map_err(|error| error.about("balloon"))?;
        self.console_rate.map_or(Ok(()), |rate| rate.validate()).map_err(|error| error.about("the console"))?;
        self.vsock.as_ref().map_or(Ok(()), VsockConfig::validate).map_err(|error| error.about("vsock"))?;
        let cgroup = self.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.validate(&self.name));
        cgroup.map_err(|error| error.about("cgroup"))?;
        self.console.validate()
    }

    /// Refuses the name of a group that there is not.
    fn check_group(&self, name: Option<&str>) -> Result<()> {
        let Some(name) = name.filter(|name| !self.limit_groups.contains_key(*name)) else { return Ok(()) };
        let known: Vec<_> = self.limit_groups.keys().map(|name| format!("{name:?}")).collect();
        let known = if known.is_empty() { "none is described".to_owned() } else { known.join(", ") };
        let message = format!("the limit group {name:?} was asked for, allowed are those that are described: {known}");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }

    pub(crate) fn boot(&self) -> Result<&Boot> {
        let boot = self.boot.as_ref().filter(|boot| !boot.kernel.as_os_str().is_empty());
        boot.ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "no kernel was given; `boot` says what the guest starts with")
        })
    }

    /// For how long the VM's own I/O threads poll, if anything is said about it.
    pub(crate) fn polling(&self) -> Result<Option<Duration>> {
        match self.poll_us {
            Some(micros) if micros > MAX_POLL_US => {
                let message = format!("polling for {micros} us was asked for, allowed are 0 to {MAX_POLL_US}");
                Err(Error::new(ErrorKind::InvalidConfig, message))
            }
            micros => Ok(micros.map(|micros| Duration::from_micros(micros.into()))),
        }
    }

    pub(crate) fn kick(&self) -> Result<KickSignal> {
        self.kick_signal.map_or_else(|| Ok(KickSignal::default()), KickSignal::new)
    }
}

#[cfg(test)]
#[path = "vm_test.rs"]
mod tests;
