//! Real VMs, by vmcell.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vmcell::network::Network;
use vmcell::volume::{Key, Volume, VolumeHandle, VolumeOptions};
use vmcell::{Boot, Console, ConsoleFile, DeviceKindMetrics, Disk, DiskConfig, Exit, Status, Vm, VsockConfig};

use super::guest::{Guest, Launcher, Plan, Usage};
use crate::fault::{Context, Fault, Result};

/// The kernel's command line.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
/// The guest's address on its vsock; each VM has one of its own.
const CID: u64 = 3;
/// A log is kept in two files of so many bytes.
const LOG_BYTES: u64 = 4 << 20;

/// Gives the file and the key of a volume: of this app, with this name.
pub type Disks = dyn Fn(&str, &str) -> Result<(PathBuf, Key)> + Send + Sync;
/// Gives the initrd that belongs to a kernel.
pub type Initrds = dyn Fn(&std::path::Path) -> Result<PathBuf> + Send + Sync;

/// Makes VMs of vmcell's, with cards on one network.
pub struct Vms {
    /// The private network.
    pub network: Network,
    /// Where volumes are.
    pub disks: Box<Disks>,
    /// Where initrds come from.
    pub initrds: Box<Initrds>,
}

struct RealGuest {
    vm: Vm,
    volumes: Vec<(String, VolumeHandle)>,
}

impl Launcher for Vms {
    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Guest>> {
        let spec = &plan.release.spec;
        let log = ConsoleFile::new(&plan.log).append(true).rotate(LOG_BYTES, 1);
        let boot = Boot::linux(&plan.kernel).initrd((self.initrds)(&plan.kernel)?).cmdline(CMDLINE);
        let root = Disk::from_config(&DiskConfig::new(&plan.root).serial("root").read_only(true))?;
        let mut builder = Vm::builder()
            .name(format!("{}-{}", spec.name, plan.slot))
            .vcpus(spec.vcpus)
            .memory_mib(spec.memory_mib)
            .boot(boot)
            .disk(root)
            .nic(self.network.port(plan.address)?.into_nic())
            .vsock(VsockConfig::new(CID))
            .console(Console::file(log));
        let mut volumes = Vec::new();
        for attached in &plan.volumes {
            let (file, key) = (self.disks)(&spec.name, &attached.name)?;
            let disk = DiskConfig::new(file).serial(&attached.name);
            let volume = Volume::open_with(VolumeOptions::new(disk).discard(true), &key)?;
            volumes.push((attached.name.clone(), volume.handle()));
            builder = builder.disk(volume.into_disk());
        }
        let vm = builder.build()?;
        vm.start()?;
        Ok(Arc::new(RealGuest { vm, volumes }))
    }

    fn idle(&self, plan: &Plan) -> Duration {
        self.network.idle(plan.address).unwrap_or_default()
    }
}

impl Guest for RealGuest {
    fn connect(&self, port: u32, limit: Duration) -> Result<UnixStream> {
        let stream = self.vm.vsock()?.connect_timeout(port, limit)?;
        stream.set_nonblocking(false).context("vsock")?;
        Ok(stream)
    }

    fn ended(&self) -> Option<String> {
        if self.vm.status() != Status::Ended {
            return None;
        }
        Some(match self.vm.wait_timeout(Duration::ZERO) {
            Ok(Exit::Shutdown) => "the guest turned itself off".into(),
            Ok(Exit::Reset(_)) => "the guest reset itself".into(),
            Ok(Exit::Panicked) => "the guest's kernel panicked".into(),
            Ok(Exit::Stopped) => "it was stopped".into(),
            Ok(Exit::Failed(why)) => Fault::from(why).message,
            Ok(_) => "it ended".into(),
            Err(why) => Fault::from(why).message,
        })
    }

    fn usage(&self) -> Usage {
        let metrics = self.vm.metrics_with_memory().unwrap_or_else(|_| self.vm.metrics());
        let threads = metrics.io_threads.iter().map(|thread| thread.cpu_time);
        let cpu = metrics
            .vcpus
            .iter()
            .map(|vcpu| vcpu.cpu_time)
            .chain(threads)
            .fold(Duration::ZERO, Duration::saturating_add);
        let memory = metrics.memory.map(|memory| memory.own_bytes.saturating_add(memory.shared_bytes));
        let mut usage = Usage { cpu, memory, ..Usage::default() };
        for device in &metrics.devices {
            match &device.kind {
                DeviceKindMetrics::Disk(disk) => {
                    usage.read = usage.read.saturating_add(disk.read_bytes);
                    usage.written = usage.written.saturating_add(disk.written_bytes);
                }
                DeviceKindMetrics::Nic(nic) => {
                    usage.received = usage.received.saturating_add(nic.received_bytes);
                    usage.sent = usage.sent.saturating_add(nic.sent_bytes);
                }
                _ => {}
            }
        }
        usage
    }

    fn stop(&self) {
        // It has ended when this fails.
        let _ = self.vm.stop();
    }

    fn volume(&self, name: &str) -> Option<VolumeHandle> {
        self.volumes.iter().find(|(known, _)| known == name).map(|(_, handle)| handle.clone())
    }

    fn suspend(&self, folder: &Path) -> Result<()> {
        Ok(self.vm.suspend_encrypted(folder)?)
    }

    fn resume(&self) -> Result<()> {
        Ok(self.vm.resume()?)
    }
}
