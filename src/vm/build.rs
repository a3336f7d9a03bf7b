//! The one function that says in which order a VM is made.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "save")]
use std::sync::Mutex;

use super::builder::VmBuilder;
use super::cgroup::VmCgroup;
#[cfg(feature = "secret")]
use super::delivery::Wanted;
use super::devices::{Devices, Handle, Part, Parts};
use super::lifecycle::Lifecycle;
use super::snapshot::Snapshot;
use super::spared;
use super::threads::{OnStart, ThreadSetup, core_group};
use super::vm::{Saves, Vm};
use crate::arch;
use crate::balloon::Balloon;
use crate::block::{Disk, Identity};
use crate::board::Board;
use crate::config::{CgroupConfig, Discovery, Limits, MemoryConfig, VmConfig};
use crate::confine::{Kind, ThreadFilter};
use crate::console::Console;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{IoThread, Placement};
use crate::kvm::{Kvm, KvmVm, Vcpu};
use crate::limit::LimitGroup;
use crate::logging::Logger;
use crate::memory::{GuestMemory, check_gives_back};
use crate::net::Nic;
use crate::rng::Rng;
use crate::sys::{CoreGroup, allowed_cpus, is_filtered};
use crate::virtio::VirtioDevice;
use crate::vsock::Vsock;

/// The most queues that a disk or a card has if nothing is said about it.
const MOST_QUEUES: u16 = 4;

impl VmConfig {
    /// Builds the VM that this describes: [`VmBuilder::build`] with nothing added.
    ///
    /// # Errors
    /// Those of [`VmBuilder::build`].
    pub fn build(&self) -> Result<Vm> {
        self.builder().build()
    }
}

impl VmBuilder {
    /// Checks the description and makes the VM, which is [`Ready`](crate::Status::Ready) then: the kernel is loaded, every
    /// device is there, nothing runs. Takes as long as reading the kernel and the initrd does, and for as long as backends take to
    /// [attach](crate::block::DiskBackend::attach) to their threads, one after the other, at most ten seconds each.
    ///
    /// # Errors
    /// Says what was refused, its value, and what is allowed, with the kind of what was wrong; see [`ErrorKind`]. The error of a
    /// device begins with which one it is, as in `disk 1 (data.img)` and `nic 0 (tap0)`; they are counted from 0.
    /// [`ErrorKind::Timeout`] if an I/O thread did not come to a device within ten seconds, since a backend or a callback holds
    /// it. Such a thread is left to itself, and drops the device when it comes back.
    pub fn build(self) -> Result<Vm> {
        self.open()?.build()
    }

    /// Checks the description and opens what it names: KVM, the kernel and the initrd, disks, TAP devices with all their queues, and the
    /// console's files. Building the VM opens nothing more, and needs no privileges. So a process may give up paths and rights in
    /// between, by a [`Jail`](crate::Jail) for instance. Nothing runs on another thread when this returns. Never waits for what a path
    /// leads to.
    ///
    /// While a guest runs, only a console's file of a [limited size](crate::ConsoleFile::rotate) is opened by its path again, in the
    /// folder in which it lies, and Unix sockets are connected to whose paths begin with that of a [vsock](crate::VsockConfig).
    ///
    /// # Errors
    /// Those of [`build`](Self::build) that are about the description and what it names.
    pub fn open(mut self) -> Result<OpenVm> {
        let logger = Logger::new(self.config.name.as_str().into(), self.log.take());
        self.config.validate()?;
        self.check_affinity()?;
        self.check_device_count()?;
        if self.config.balloon.is_some() {
            check_gives_back(&self.config.memory).map_err(|error| error.about("balloon"))?;
        }
        let core = core_group(self.config.core_scheduling, &logger)?;
        let (config, snapshot) = (self.config.clone(), self.snapshot.take());
        #[cfg(feature = "secret")]
        let secrets = std::mem::take(&mut self.secrets);
        #[cfg(feature = "secret")]
        secrets.check(snapshot.is_some())?;
        let (opened, kvm) = (self.open_devices()?, Kvm::open()?);
        let beginning = match snapshot {
            Some(snapshot) => Beginning::Snapshot(snapshot),
            None => Beginning::Boot(arch::Images::open(config.boot()?)?),
        };
        // Last, since it is not undone by closing something.
        let make = |wanted: &CgroupConfig| VmCgroup::make(wanted, &config.name, &logger).map(Arc::new);
        let cgroup = config.cgroup.as_ref().map(make).transpose().map_err(|error| error.about("cgroup"))?;
        Ok(OpenVm {
            kvm,
            beginning,
            config,
            core,
            cgroup,
            logger,
            opened,
            #[cfg(feature = "secret")]
            secrets,
        })
    }

    /// Opens the devices that the configuration names.
    fn open_devices(self) -> Result<Opened> {
        let groups = limit_groups(&self.config)?;
        let mut disks = Vec::new();
        for (index, config) in self.config.disks.iter().enumerate() {
            let disk = Disk::open_as(config.name_as(index), config)?;
            let group = config.limit_group.as_ref().and_then(|name| groups.get(name));
            disks.push(group.into_iter().fold(disk, Disk::limit_group));
        }
        for disk in self.disks {
            let index = disks.len();
            disks.push(disk.numbered(index));
        }
        check_disks_are_apart(&disks)?;
        let disks = disks.into_iter().map(Disk::opened).collect::<Result<Vec<_>>>()?;
        let mut nics = Vec::new();
        for (index, config) in self.config.nics.iter().enumerate() {
            let nic = Nic::from_config(config).map_err(|error| error.about(&config.label(index)))?;
            let group = |name: &Option<String>| name.as_ref().and_then(|name| groups.get(name));
            let nic = group(&config.receive_group).into_iter().fold(nic, Nic::receive_group);
            nics.push(group(&config.send_group).into_iter().fold(nic, Nic::send_group));
        }
        nics.extend(self.nics);
        let queues = default_queues(&self.config);
        let attach = |(index, nic): (usize, Nic)| {
            let label = nic.label(index);
            nic.default_queues(queues).opened().map_err(|error| error.about(&label))
        };
        let nics = nics.into_iter().enumerate().map(attach).collect::<Result<Vec<_>>>()?;
        let console = self.console.unwrap_or_else(|| Console::from_config(&self.config.console));
        spared::check(&console, &disks, self.config.boot()?)?;
        check_logs_can_rotate(&console, self.io_thread.as_ref())?;
        check_vsock_can_connect(&self.config, self.io_thread.as_ref())?;
        let console = console.opened()?;
        let vsock = self.config.vsock.as_ref().map(Vsock::open).transpose().map_err(|error| error.about("vsock"))?;
        let (io_thread, on_thread_start) = (self.io_thread, self.on_thread_start);
        Ok(Opened { disks, nics, vsock, devices: self.devices, console, io_thread, on_thread_start })
    }

    /// Asks the host for its CPUs only if there is something to check.
    fn check_affinity(&self) -> Result<()> {
        if self.config.affinity.is_empty() {
            return Ok(());
        }
        let allowed = allowed_cpus()
            .map_err(|e| Error::new(ErrorKind::Host, "the host does not tell which CPUs are allowed").with_source(e))?;
        self.config.affinity.check(self.config.vcpus, &allowed)
    }

    fn check_device_count(&self) -> Result<()> {
        let (config, most) = (&self.config, arch::MAX_MMIO_DEVICES);
        let described = [config.disks.len(), config.nics.len(), single_devices(config)].into_iter();
        let count: usize = described.chain([self.disks.len(), self.nics.len(), self.devices.len()]).sum();
        if count <= most {
            return Ok(());
        }
        let message = format!("{count} disks, network interfaces and other devices were asked for, allowed are {most}");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}

/// The groups that the configuration describes, by their names.
fn limit_groups(config: &VmConfig) -> Result<HashMap<&String, LimitGroup>> {
    let group = |(name, limits): (_, &Limits)| LimitGroup::new(*limits).map(|group| (name, group));
    config.limit_groups.iter().map(group).collect()
}

/// What a VM is made of, checked and opened by [`VmBuilder::open`].
#[must_use = "build() makes the VM"]
pub struct OpenVm {
    kvm: Kvm,
    beginning: Beginning,
    config: VmConfig,
    core: Option<Arc<CoreGroup>>,
    logger: Logger,
    opened: Opened,
    #[cfg(feature = "secret")]
    secrets: Wanted,
    /// Behind what may have threads.
    cgroup: Option<Arc<VmCgroup>>,
}

/// How the guest begins.
enum Beginning {
    Boot(arch::Images),
    Snapshot(Snapshot),
}

impl Beginning {
    fn memory(&self, board: &Board, config: &MemoryConfig) -> Result<GuestMemory> {
        let layout = board.memory_layout();
        match self {
            Self::Boot(_) => GuestMemory::configured(&layout, config),
            Self::Snapshot(snapshot) => GuestMemory::copy_of(&snapshot.parts.memory, &layout, config),
        }
    }
}

impl OpenVm {
    /// Returns the folders that are used while the guest runs: those of the console's files of a limited size, and that of a vsock's Unix
    /// socket. A process that gives up its paths [keeps](crate::Jail::keep_writable) them.
    pub fn folders(&self) -> Vec<&Path> {
        let vsock = self.opened.vsock.as_ref().and_then(Vsock::folder);
        self.opened.console.folders().chain(vsock).collect()
    }

    /// Returns the folder from which the cgroup of the VM's threads is removed when the VM ends, if it has one of its own. A process that gives up
    /// its paths [keeps](crate::Jail::keep_cgroup) it.
    pub fn cgroup_folder(&self) -> Option<&Path> {
        self.config.cgroup.as_ref().map(|cgroup| cgroup.folder.as_path())
    }

    /// Makes the VM, as [`VmBuilder::build`] says. Opens nothing.
    ///
    /// # Errors
    /// Those of [`VmBuilder::build`].
    pub fn build(self) -> Result<Vm> {
        let Self {
            kvm,
            beginning,
            config,
            core,
            logger,
            opened,
            cgroup,
            #[cfg(feature = "secret")]
            secrets,
        } = self;
        let (kick, boot) = (config.kick()?, config.boot()?);
        let board = Board::new(&kvm, config.vcpus, &config.cpu, config.memory.bytes())?;
        let memory = beginning.memory(&board, &config.memory)?;
        let vm = kvm.create_vm()?;
        check_host_takes(config.vcpus, &vm)?;
        let mut vcpus = board.populate(&vm, &memory)?;
        vcpus.iter_mut().for_each(|vcpu| vcpu.kick_by(kick));
        let setup = ThreadSetup {
            name: config.name.as_str().into(),
            affinity: Arc::new(config.affinity.clone()),
            cgroup,
            core,
            on_start: opened.on_thread_start.clone(),
            vcpu_filter: ThreadFilter::new(Kind::Vcpu, config.seccomp)?.map(Arc::new),
            logger,
        };
        let lifecycle = Arc::new(Lifecycle::new(setup.name.clone(), vcpus.iter().map(Vcpu::kicker).collect())?);
        let (snapshot, generation, cpu) = match beginning {
            Beginning::Boot(images) => {
                board.load(&memory, images, boot, opened.device_count(&config), &vcpus)?;
                (None, Board::generation_id(boot), board.offered_cpu())
            }
            Beginning::Snapshot(Snapshot { parts }) => {
                board.check_cpu(&parts.cpu)?;
                Board::restore(&vm, &vcpus, &parts.chips, &parts.vcpus, config.fork_clock)?;
                let (generation, cpu) = (parts.generation, parts.cpu.clone());
                (Some(parts), generation, cpu)
            }
        };
        if let Some(place) = generation {
            Board::renew_generation(&memory, place)?;
            if snapshot.is_some() {
                Board::tell_generation(&vm)?;
            }
        }
        let parts = opened.into_parts(&config, setup.clone())?;
        let devices = Devices::assemble(&board, vm, &memory, &lifecycle, parts, snapshot.as_deref())?;
        #[cfg(feature = "secret")]
        let secrets = secrets.deliver(&memory, snapshot.as_deref(), &devices, setup.logger.clone())?;
        let saves = Saves {
            config,
            memory,
            msrs: Board::msrs_to_save(&kvm)?,
            generation,
            cpu,
            #[cfg(feature = "save")]
            away: Mutex::default(),
            #[cfg(feature = "save")]
            wanted: super::wanted::Wanted::default(),
            #[cfg(feature = "secret")]
            secrets,
        };
        Ok(Vm::new(lifecycle, devices, vcpus, setup, saves))
    }
}

impl std::fmt::Debug for OpenVm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenVm").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What the builder was given, with the disks and network cards that the configuration names opened.
struct Opened {
    disks: Vec<Disk>,
    nics: Vec<Nic>,
    vsock: Option<Vsock>,
    devices: Vec<(Box<dyn VirtioDevice>, Placement)>,
    console: Console,
    io_thread: Option<IoThread>,
    on_thread_start: Option<OnStart>,
}

impl Opened {
    fn device_count(&self, config: &VmConfig) -> usize {
        [self.disks.len(), self.nics.len(), self.devices.len(), single_devices(config)].iter().sum()
    }

    /// Turns what a user gave into devices, in the order in which the guest finds them.
    fn into_parts(self, config: &VmConfig, setup: ThreadSetup) -> Result<Parts> {
        let mut devices = Vec::new();
        let queues = default_queues(config);
        for disk in self.disks {
            let (label, placement) = (format!("disk {}", disk.name()), disk.placement());
            let handle = Handle::Disk(disk.handle());
            let device = disk.default_queues(queues).into_device()?;
            devices.push(Part { label, device, placement, handle });
        }
        for (index, nic) in self.nics.into_iter().enumerate() {
            let (label, placement) = (nic.label(index), nic.placement());
            let handle = Handle::Nic(nic.handle());
            let device = nic.into_device().map_err(|error| error.about(&label))?;
            devices.push(Part { label, device, placement, handle });
        }
        if let Some(rng) = &config.rng {
            let (label, device) = ("rng".to_owned(), Box::new(Rng::new(rng)));
            let handle = Handle::Rng(device.handle());
            devices.push(Part { label, device, placement: Placement::Shared, handle });
        }
        if let Some(balloon) = &config.balloon {
            let (label, device) = ("balloon".to_owned(), Box::new(Balloon::new(balloon, config.memory.bytes())));
            let handle = Handle::Balloon(device.handle());
            devices.push(Part { label, device, placement: Placement::Shared, handle });
        }
        if let Some(vsock) = self.vsock {
            let (label, handle) = ("vsock".to_owned(), Handle::Vsock(vsock.handle()));
            devices.push(Part { label, device: Box::new(vsock), placement: Placement::Shared, handle });
        }
        for (index, (device, placement)) in self.devices.into_iter().enumerate() {
            let label = format!("device {index} of your own");
            devices.push(Part { label, device, placement, handle: Handle::Other });
        }
        let has_button = config.boot()?.discovery == Discovery::Acpi;
        Ok(Parts {
            devices,
            console: self.console,
            console_rate: config.console_rate,
            vsock: config.vsock.as_ref().map(|vsock| vsock.path.is_some()),
            io_thread: self.io_thread,
            polling: config.polling()?,
            setup,
            has_button,
            seccomp: config.seccomp,
        })
    }
}

/// A thread that is filtered opens no files.
fn check_logs_can_rotate(console: &Console, io_thread: Option<&IoThread>) -> Result<()> {
    if console.rotates() && (is_filtered() || io_thread.is_some_and(IoThread::is_filtered)) {
        let message = "a console's file is limited in size, which takes opening others, and the system calls of the thread that serves the \
                       console, or of the one that builds the VM, are filtered";
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    Ok(())
}

/// How many devices there are of which a VM has one or none.
fn single_devices(config: &VmConfig) -> usize {
    [config.rng.is_some(), config.balloon.is_some(), config.vsock.is_some()].into_iter().map(usize::from).sum()
}

/// A thread that is filtered opens no sockets.
fn check_vsock_can_connect(config: &VmConfig, io_thread: Option<&IoThread>) -> Result<()> {
    let has_path = config.vsock.as_ref().is_some_and(|vsock| vsock.path.is_some());
    if has_path && (is_filtered() || io_thread.is_some_and(IoThread::is_filtered)) {
        let message = "a vsock has the path of a Unix socket, which takes accepting and connecting, and the system calls of the thread that \
                       serves it, or of the one that builds the VM, are filtered";
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    Ok(())
}

fn default_queues(config: &VmConfig) -> u16 {
    u16::try_from(config.vcpus).unwrap_or(MOST_QUEUES).min(MOST_QUEUES)
}

/// The lock on a file keeps other VMs away, but not a second disk of the same VM that only reads.
fn check_disks_are_apart(disks: &[Disk]) -> Result<()> {
    let mut seen: HashMap<Identity, &Disk> = HashMap::new();
    for disk in disks {
        if let Some(identity) = disk.identity()?
            && let Some(other) = seen.insert(identity, disk)
            && !(disk.is_read_only() && other.is_read_only())
        {
            let message = format!(
                "disk {} is the same file as disk {}; a disk that is written to may be given once",
                disk.name(),
                other.name()
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
    }
    Ok(())
}

fn check_host_takes(vcpus: u32, vm: &KvmVm) -> Result<()> {
    let most = vm.max_vcpus();
    if vcpus <= most {
        return Ok(());
    }
    let message = format!("{vcpus} vCPUs were asked for, allowed are {most} by this host's KVM");
    Err(Error::new(ErrorKind::InvalidConfig, message))
}
