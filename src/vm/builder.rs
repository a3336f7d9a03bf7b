//! The description of a VM, and the one function that says in which order it is made.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::devices::{Devices, Parts};
use super::lifecycle::Lifecycle;
use super::threads::{OnStart, ThreadRole, ThreadSetup};
use super::vm::Vm;
use crate::arch;
use crate::block::{Disk, Identity};
use crate::board::Board;
use crate::config::{Affinity, Boot, MemoryConfig, check_name, check_vcpus};
use crate::console::Console;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{IoThread, Placement};
use crate::kvm::{Kvm, KvmVm, Vcpu};
use crate::memory::GuestMemory;
use crate::net::Nic;
use crate::sys::{DEFAULT_KICK_SIGNAL, KickSignal, allowed_cpus};
use crate::virtio::VirtioDevice;

/// Describes a VM; see [`Vm`] for an example.
///
/// Nothing is checked and nothing is made before [`build`](Self::build), except what is handed over already open.
pub struct VmBuilder {
    vcpus: u32,
    memory: MemoryConfig,
    boot: Option<Boot>,
    disks: Vec<Disk>,
    nics: Vec<Nic>,
    devices: Vec<(Box<dyn VirtioDevice>, Placement)>,
    console: Console,
    io_thread: Option<IoThread>,
    kick_signal: i32,
    name: String,
    affinity: Affinity,
    on_thread_start: Option<OnStart>,
}

/// The most queues that a disk has if nothing is said about it.
const MOST_QUEUES: u16 = 4;

impl Vm {
    /// Begins the description of a VM.
    pub fn builder() -> VmBuilder {
        VmBuilder::new()
    }
}

impl VmBuilder {
    fn new() -> Self {
        Self {
            vcpus: 1,
            memory: MemoryConfig::mib(128),
            boot: None,
            disks: Vec::new(),
            nics: Vec::new(),
            devices: Vec::new(),
            console: Console::none(),
            io_thread: None,
            kick_signal: DEFAULT_KICK_SIGNAL,
            name: String::new(),
            affinity: Affinity::new(),
            on_thread_start: None,
        }
    }

    /// How many vCPUs, 1 to 64. The default is 1.
    #[must_use]
    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = vcpus;
        self
    }

    /// How much RAM in MiB, 16 or more, on private anonymous memory. The default is 128.
    #[must_use]
    pub fn memory_mib(self, mib: u64) -> Self {
        self.memory(MemoryConfig::mib(mib))
    }

    /// How much RAM, and what the host takes it from. It is kept out of child processes and core dumps.
    #[must_use]
    pub fn memory(mut self, memory: MemoryConfig) -> Self {
        self.memory = memory;
        self
    }

    /// What the guest starts with. There is no default.
    #[must_use]
    pub fn boot(mut self, boot: Boot) -> Self {
        self.boot = Some(boot);
        self
    }

    /// Adds a disk. The first one is `/dev/vda` in Linux, the second one `/dev/vdb`, and so on.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Adds a network interface, after those added before.
    #[must_use]
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }

    /// Adds a virtio device of your own, behind disks and network interfaces.
    #[must_use]
    pub fn device(mut self, device: Box<dyn VirtioDevice>) -> Self {
        self.devices.push((device, Placement::Shared));
        self
    }

    /// Adds a virtio device of your own that is served by `io_thread` rather than by the VM's own.
    #[must_use]
    pub fn device_on(mut self, device: Box<dyn VirtioDevice>, io_thread: IoThread) -> Self {
        self.devices.push((device, Placement::Chosen(io_thread)));
        self
    }

    /// What the serial port is connected to. The default is nothing.
    #[must_use]
    pub fn console(mut self, console: Console) -> Self {
        self.console = console;
        self
    }

    /// Lets `io_thread`, which other VMs may share, serve the devices. The default is a thread of the VM's own.
    #[must_use]
    pub fn io_thread(mut self, io_thread: IoThread) -> Self {
        self.io_thread = Some(io_thread);
        self
    }

    /// The signal by which vCPU threads are made to leave the guest: a standard one, 1 to 31, but for those that tell of a
    /// fault, stop or continue the process, or cannot be blocked. The default is
    /// [`DEFAULT_KICK_SIGNAL`](crate::DEFAULT_KICK_SIGNAL).
    ///
    /// It is only sent to the VM's own threads, which block it except inside `KVM_RUN`, so that it is never delivered:
    /// whether the host program handles or ignores it makes no difference. Choose one that is not sent to the process as a
    /// whole while VMs run, because a vCPU thread may take it in place of the thread that it was meant for.
    #[must_use]
    pub fn kick_signal(mut self, signal: i32) -> Self {
        self.kick_signal = signal;
        self
    }

    /// The VM's name, 1 to 64 printable ASCII characters. The default is an empty one, which is none.
    ///
    /// It stands in messages, and in the names of the VM's threads, as `NAME:vcpu0`, `NAME:io` and `NAME:disk`. Linux keeps 15
    /// bytes of those, so a longer name is cut there. Names need not differ.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// On which of the host's CPUs the VM's threads may run. By default, that is where the thread may that builds and starts it.
    ///
    /// A disk's helper thread begins on the CPUs of the I/O thread that serves the disk, and so do the workers of that thread's
    /// io_uring (Linux 5.14). An [`IoThread`] of yours stays where it is.
    #[must_use]
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        self.affinity = affinity;
        self
    }

    /// Calls a function on each new thread of the VM, before that thread does anything: to set its CPUs, its priority, or its
    /// cgroup.
    ///
    /// [`build`](Self::build) waits for the calls on I/O threads, and [`Vm::start`] for those on the threads of vCPUs, one after the
    /// other; no guest runs before all have returned. If one fails or panics, so does `build` or `start`. It must not wait for the
    /// VM. The [affinity](Self::affinity) was set before. Signals are blocked on the thread, and are blocked again when the function
    /// returns.
    ///
    /// It is not called for an [`IoThread`] of yours, nor for disks' helper threads and io_uring's workers. Those begin in the
    /// cgroup, and with the priority, of the I/O thread that starts them.
    ///
    /// ```no_run
    /// use vmcell::{ThreadRole, Vm};
    ///
    /// let builder = Vm::builder().name("web-1").on_thread_start(|role| match role {
    ///     // In a threaded cgroup, 0 is the calling thread.
    ///     ThreadRole::Vcpu(_) => std::fs::write("/sys/fs/cgroup/web-1/vcpus/cgroup.threads", "0"),
    ///     _ => std::fs::write("/sys/fs/cgroup/web-1/io/cgroup.threads", "0"),
    /// });
    /// ```
    #[must_use]
    pub fn on_thread_start(mut self, call: impl Fn(ThreadRole) -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.on_thread_start = Some(Arc::new(call));
        self
    }

    /// Checks the description and makes the VM, which is [`Ready`](crate::Status::Ready) then: the kernel is loaded, every
    /// device is there, nothing runs. Takes as long as reading the kernel and the initrd does.
    ///
    /// # Errors
    /// Says what was refused, its value, and what is allowed, with the kind of what was wrong; see [`ErrorKind`].
    pub fn build(self) -> Result<Vm> {
        let boot = self.boot.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "no kernel was given; VmBuilder::boot says what the guest starts with")
        })?;
        check_name(&self.name)?;
        check_vcpus(self.vcpus)?;
        self.check_affinity()?;
        let kick = KickSignal::new(self.kick_signal)?;
        self.memory.validate()?;
        self.check_device_count()?;
        self.check_disks_are_apart()?;

        let kvm = Kvm::open()?;
        let board = Board::new(&kvm, self.vcpus, self.memory.bytes())?;
        let memory = GuestMemory::map(&board.memory_layout(), self.memory.backing, self.memory.pages)?;
        if self.memory.prealloc {
            memory.preallocate()?;
        }
        let vm = kvm.create_vm()?;
        check_host_takes(self.vcpus, &vm)?;
        let mut vcpus = board.populate(&vm, &memory)?;
        vcpus.iter_mut().for_each(|vcpu| vcpu.kick_by(kick));
        let setup = ThreadSetup {
            name: self.name.as_str().into(),
            affinity: Arc::new(self.affinity.clone()),
            on_start: self.on_thread_start.clone(),
        };
        let lifecycle = Arc::new(Lifecycle::new(setup.name.clone(), vcpus.iter().map(Vcpu::kicker).collect())?);
        board.load(&memory, boot, self.device_count(), &vcpus)?;
        let devices = Devices::assemble(&board, vm, &memory, &lifecycle, self.into_parts(setup.clone())?)?;
        Ok(Vm::new(lifecycle, devices, vcpus, setup))
    }

    /// Turns what a user gave into devices, in the order in which the guest finds them.
    fn into_parts(self, setup: ThreadSetup) -> Result<Parts> {
        let mut devices: Vec<(Box<dyn VirtioDevice>, Placement)> = Vec::new();
        let queues = u16::try_from(self.vcpus).unwrap_or(MOST_QUEUES).min(MOST_QUEUES);
        for disk in self.disks {
            let placement = disk.placement();
            devices.push((disk.default_queues(queues).into_device()?, placement));
        }
        for nic in self.nics {
            let placement = nic.placement();
            devices.push((nic.into_device()?, placement));
        }
        devices.extend(self.devices);
        Ok(Parts { devices, console: self.console, io_thread: self.io_thread, setup })
    }

    /// The lock on a file keeps other VMs away, but not a second disk of the same VM that only reads.
    fn check_disks_are_apart(&self) -> Result<()> {
        let mut seen: HashMap<Identity, &Disk> = HashMap::new();
        for disk in &self.disks {
            if let Some(identity) = disk.identity()?
                && let Some(other) = seen.insert(identity, disk)
                && !(disk.is_read_only() && other.is_read_only())
            {
                let message =
                    format!("disk {} is given twice; a disk that is written to may be given once", disk.name());
                return Err(Error::new(ErrorKind::InvalidConfig, message));
            }
        }
        Ok(())
    }

    /// Asks the host for its CPUs only if there is something to check.
    fn check_affinity(&self) -> Result<()> {
        if self.affinity.is_empty() {
            return Ok(());
        }
        let allowed = allowed_cpus()
            .map_err(|e| Error::new(ErrorKind::Host, "the host does not tell which CPUs are allowed").with_source(e))?;
        self.affinity.check(self.vcpus, &allowed)
    }

    fn device_count(&self) -> usize {
        self.disks.len() + self.nics.len() + self.devices.len()
    }

    fn check_device_count(&self) -> Result<()> {
        let (count, most) = (self.device_count(), arch::MAX_MMIO_DEVICES);
        if count <= most {
            return Ok(());
        }
        let message = format!("{count} disks, network interfaces and other devices were asked for, allowed are {most}");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}

fn check_host_takes(vcpus: u32, vm: &KvmVm) -> Result<()> {
    let most = vm.max_vcpus();
    if vcpus <= most {
        return Ok(());
    }
    let message = format!("{vcpus} vCPUs were asked for, allowed are {most} by this host's KVM");
    Err(Error::new(ErrorKind::InvalidConfig, message))
}
