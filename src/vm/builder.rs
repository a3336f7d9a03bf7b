//! The description of a VM.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::snapshot::Snapshot;
use super::threads::{OnStart, ThreadRole};
use super::vm::Vm;
use crate::block::Disk;
use crate::config::{
    Affinity, BalloonConfig, Boot, CgroupConfig, CpuConfig, ForkClock, MemoryConfig, RateLimit, RngConfig, Seccomp,
    VmConfig, VsockConfig,
};
use crate::console::Console;
use crate::event::{IoThread, Placement};
use crate::logging::LogRecord;
use crate::net::Nic;
use crate::virtio::VirtioDevice;

/// Describes a VM; see [`Vm`] for an example.
///
/// Nothing is checked and nothing is made before [`build`](Self::build), except what is handed over already open.
///
/// [`VmConfig::builder`] begins with a description that is data; its disks and network cards come before those that are added.
///
/// ```no_run
/// use vmcell::{Console, VmConfig};
///
/// # #[cfg(feature = "serde")] {
/// let config = VmConfig::from_json(&std::fs::read_to_string("vm.json").unwrap())?;
/// let vm = config.builder().console(Console::callback(|_bytes| ())).build()?;
/// # }
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct VmBuilder {
    pub(super) config: VmConfig,
    /// Behind those of the configuration.
    pub(super) disks: Vec<Disk>,
    /// Behind those of the configuration.
    pub(super) nics: Vec<Nic>,
    pub(super) devices: Vec<(Box<dyn VirtioDevice>, Placement)>,
    /// In place of the configuration's.
    pub(super) console: Option<Console>,
    pub(super) io_thread: Option<IoThread>,
    pub(super) on_thread_start: Option<OnStart>,
    pub(super) log: Option<Box<Log>>,
    /// Where the guest begins, in place of a kernel.
    pub(super) snapshot: Option<Snapshot>,
    #[cfg(feature = "secret")]
    pub(super) secrets: super::delivery::Wanted,
}

/// What a host program does with what is said of a VM.
type Log = dyn Fn(&LogRecord<'_>) + Send + Sync;

impl Vm {
    /// Begins the description of a VM.
    pub fn builder() -> VmBuilder {
        VmConfig::default().builder()
    }
}

impl VmConfig {
    /// Begins with this description, and takes what is not data beside it. Opens nothing.
    pub fn builder(&self) -> VmBuilder {
        VmBuilder {
            config: self.clone(),
            disks: Vec::new(),
            nics: Vec::new(),
            devices: Vec::new(),
            console: None,
            io_thread: None,
            on_thread_start: None,
            log: None,
            snapshot: None,
            #[cfg(feature = "secret")]
            secrets: super::delivery::Wanted::default(),
        }
    }
}

impl VmBuilder {
    /// How many vCPUs, 1 to 64. The default is 1.
    #[must_use]
    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.config.vcpus = vcpus;
        self
    }

    /// What the vCPUs can do. The default is all that the host can give.
    #[must_use]
    pub fn cpu(mut self, cpu: CpuConfig) -> Self {
        self.config.cpu = cpu;
        self
    }

    /// How much RAM in MiB, 16 or more, on private anonymous memory. The default is 128.
    #[must_use]
    pub fn memory_mib(self, mib: u64) -> Self {
        self.memory(MemoryConfig::mib(mib))
    }

    /// How much RAM, and what the host takes it from. Its mapping is kept out of child processes and core dumps. A child that is forked
    /// and does not execute a program still has the descriptor of RAM that is on [memfd](crate::MemoryBacking::Memfd).
    #[must_use]
    pub fn memory(mut self, memory: MemoryConfig) -> Self {
        self.config.memory = memory;
        self
    }

    /// What the guest starts with. There is no default.
    #[must_use]
    pub fn boot(mut self, boot: Boot) -> Self {
        self.config.boot = Some(boot);
        self
    }

    /// Adds a disk. The first one is `/dev/vda` in Linux, the second one `/dev/vdb`, and so on.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Adds a vsock (virtio 1.2, section 5.10): stream sockets between host and guest, without a network. [`Vm::vsock`](crate::Vm::vsock)
    /// connects and listens. The VM's I/O thread serves it. There is none by default.
    ///
    /// ```no_run
    /// use vmcell::{Boot, Vm, VsockConfig};
    ///
    /// let vm = Vm::builder().boot(Boot::linux("vmlinuz").initrd("initrd.img")).vsock(VsockConfig::new(3)).build()?;
    /// vm.start()?;
    /// let stream = vm.vsock()?.connect(52)?; // what listens on port 52 of the guest
    /// # Ok::<(), vmcell::Error>(())
    /// ```
    #[must_use]
    pub fn vsock(mut self, vsock: VsockConfig) -> Self {
        self.config.vsock = Some(vsock);
        self
    }

    /// Adds a source of random bytes of the host's kernel (virtio 1.2, section 5.4), which Linux shows as `/dev/hwrng` and mixes into its
    /// own. The VM's I/O thread serves it. There is none by default.
    #[must_use]
    pub fn rng(mut self, rng: RngConfig) -> Self {
        self.config.rng = Some(rng);
        self
    }

    /// Adds a balloon (virtio 1.2, section 5.5), by which the guest gives memory back to the host: what it is asked for through
    /// [`Vm::balloon`], and by itself what it does not use. The VM's I/O thread serves it. There is none by default.
    ///
    /// The process's memory (RSS) falls by what is given back. Memory that was [preallocated](MemoryConfig::prealloc()) is given back like
    /// other, and so is not there for certain when the guest wants it again. A [transparent huge page](crate::PageSize::Transparent) comes back as a
    /// whole: once all of it is given back, which reported pages are from the beginning. Memory on pages from the host's pool of huge ones,
    /// memory that is locked, and memory on memfd on a host that overcommits none are refused with a balloon.
    #[must_use]
    pub fn balloon(mut self, balloon: BalloonConfig) -> Self {
        self.config.balloon = Some(balloon);
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
        self.console = Some(console);
        self
    }

    /// Limits how many bytes of the guest's output the console's sinks get. By default nothing is limited.
    ///
    /// All sinks get the same. What they may not have yet is kept, up to 64 KiB; if that is full, the guest is asked to wait, for a quarter
    /// of a second, and what it writes from then on is missed, as by a sink that is too slow. What is left when the guest has ended is not limited.
    /// [`ConsoleMetrics`](crate::ConsoleMetrics) counts how often output waited.
    ///
    /// ```
    /// let builder = vmcell::Vm::builder().console_rate(vmcell::RateLimit::per_second(64 << 10).burst(1 << 20));
    /// ```
    #[must_use]
    pub fn console_rate(mut self, rate: RateLimit) -> Self {
        self.config.console_rate = Some(rate);
        self
    }

    /// Lets `io_thread`, which other VMs may share, serve the devices. The default is a thread of the VM's own.
    #[must_use]
    pub fn io_thread(mut self, io_thread: IoThread) -> Self {
        self.io_thread = Some(io_thread);
        self
    }

    /// For how long at most the I/O threads that the VM makes for itself look for more to do before they sleep, 0 to 1000 us; see
    /// [`IoThread::set_polling`], which sets it for an [`IoThread`] of yours. Longer times are refused when the VM is built. Zero turns it
    /// off. What is below a microsecond is left out. The default is 50 us.
    ///
    /// ```
    /// let builder = vmcell::Vm::builder().polling(std::time::Duration::from_micros(200));
    /// ```
    #[must_use]
    pub fn polling(mut self, limit: Duration) -> Self {
        self.config.poll_us = Some(u32::try_from(limit.as_micros()).unwrap_or(u32::MAX));
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
        self.config.kick_signal = Some(signal);
        self
    }

    /// The VM's name, 0 to 64 printable ASCII characters. The default is an empty one, which is none.
    ///
    /// It stands in messages, and in the names of the VM's threads, as `NAME:vcpu0`, `NAME:io` and `NAME:disk`. Linux keeps 15
    /// bytes of those, so a longer name is cut there. Names need not differ.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// On which of the host's CPUs the VM's threads may run. By default, that is where the thread may that builds and starts it.
    ///
    /// A disk's helper thread begins on the CPUs of the I/O thread that serves the disk, and so do the workers of that thread's
    /// io_uring. An [`IoThread`] of yours stays where it is.
    #[must_use]
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        self.config.affinity = affinity;
        self
    }

    /// Gives the VM's threads a cgroup of their own (version 2), with a share of the host's CPUs. By default, they are where the process is.
    ///
    /// It is made when the VM is [opened](Self::open), as a threaded one in the folder that is named, which the program owns: it is that of the cgroup
    /// in which the process is, and no controllers for whole processes, such as `memory`, are enabled for those in it. The controller `cpu` is enabled if it
    /// is needed. The threads of vCPUs, the VM's own I/O threads and what these start are in it from their first moment; an
    /// [`IoThread`](crate::IoThread) of yours stays where it is. When the VM is gone, the folder is removed.
    ///
    /// A guest that has used up its share stands still, and so do its devices, until the next period begins: a [pause](Vm::pause) may take that much
    /// longer. The limit is lifted once the VM is told to [stop](Vm::stop). It holds a guest; a process that a guest has taken over is held by the
    /// cgroup of the process.
    ///
    /// Memory and disk bandwidth belong to processes rather than to threads: [`JailCgroup`](crate::JailCgroup) limits them for a process with
    /// all its VMs.
    ///
    /// ```no_run
    /// use vmcell::{Boot, CgroupConfig, CpuShare, JailCgroup, Vm};
    ///
    /// // Once: the process joins a cgroup that was made for it.
    /// JailCgroup::new("/sys/fs/cgroup/vms").memory_max(2 << 30).join()?;
    /// // Each VM has a quarter of a CPU.
    /// let share = CgroupConfig::new("/sys/fs/cgroup/vms").cpu(CpuShare::fraction(1, 4));
    /// let vm = Vm::builder().name("web-1").boot(Boot::linux("vmlinuz")).cgroup(share).build()?;
    /// # Ok::<(), vmcell::Error>(())
    /// ```
    #[must_use]
    pub fn cgroup(mut self, cgroup: CgroupConfig) -> Self {
        self.config.cgroup = Some(cgroup);
        self
    }

    /// Whether the VM's threads run on the hyperthreads of a core only beside each other, so that no other tenant is there to watch what the
    /// guest does. The default is not to care. It is true of the threads of vCPUs, of the VM's own I/O threads, and of what these start; an
    /// [`IoThread`] of yours stays as it is. A hyperthread for which the VM has nothing to do is left idle meanwhile.
    ///
    /// It takes Linux 5.14 with `CONFIG_SCHED_CORE`. If no two hyperthreads share a core when the VM is built, there is nothing to do: the VM
    /// is built, and the [log](Self::log) says so. Otherwise [`build`](Self::build) fails. [`HostCheck`](crate::HostCheck) tells
    /// beforehand, as `core-scheduling`. SMT that is turned on later is not noticed.
    ///
    /// Linux lets a new thread begin beside those that the thread that starts it may share a core with. So what is started on a thread of such a VM, in
    /// [`on_thread_start`](Self::on_thread_start) or another callback, counts as that VM's: a thread, a process, an [`IoThread`], and
    /// another VM, unless that one has core scheduling itself. Build other tenants' VMs with it, or on threads of your own.
    #[must_use]
    pub fn core_scheduling(mut self, core_scheduling: bool) -> Self {
        self.config.core_scheduling = core_scheduling;
        self
    }

    /// What becomes of a system call that a thread of the VM has no reason to make: to open a file or a socket, or to start a process, for
    /// instance. By default, nothing is filtered.
    ///
    /// The threads of vCPUs are filtered before the guest runs, and after [`on_thread_start`](Self::on_thread_start) was called; the I/O
    /// threads that the VM makes for itself when all devices are attached, and with them the helper threads that they start. An
    /// [`IoThread`] of yours is not filtered by this, but by [`IoThread::seccomp`]. Filters cannot be undone, and a filtered thread gains no
    /// rights by executing programs. No
    /// privileges are needed.
    ///
    /// `docs/confinement.md` lists the calls that each kind of thread may make, with the reason for each. Code of yours on these threads,
    /// such as a backend or a console's callback, can make no others.
    ///
    /// ```
    /// let builder = vmcell::Vm::builder().seccomp(vmcell::Seccomp::Refuse);
    /// ```
    #[must_use]
    pub fn seccomp(mut self, seccomp: Seccomp) -> Self {
        self.config.seccomp = seccomp;
        self
    }

    /// Has every snapshot of the VM refused, for a guest whose memory must not be in a second place: one that holds keys, for instance. What
    /// such a guest has read is in its RAM, and would be in each fork. The default is that snapshots may be taken. A fork cannot have been
    /// marked by its source, and is marked by its own builder.
    #[must_use]
    pub fn never_snapshot(mut self) -> Self {
        self.config.never_snapshot = true;
        self
    }

    /// What the guest's clocks show if the VM [begins with a snapshot](Self::fork_of): kvm-clock, and the time-stamp counter. The default is
    /// [`ForkClock::Jump`], because a guest with a wrong time of day fails in ways that are hard to explain, such as certificates that are
    /// not valid yet. The moment that counts is when the VM is built; from then on its clocks go on by themselves. Other VMs are not
    /// affected.
    ///
    /// The time that passed is that of the host's clock on the wall, so a snapshot may come from another machine. A clock that went back
    /// meanwhile counts as no time. Linux before 6.10 may read a wrong time between a jump of more than half an hour and its next timer interrupt, which
    /// comes at once.
    #[must_use]
    pub fn fork_clock(mut self, clock: ForkClock) -> Self {
        self.config.fork_clock = clock;
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
    ///     // In a threaded cgroup, 0 is the calling thread. One cgroup for all threads of a VM is made by `VmBuilder::cgroup`.
    ///     ThreadRole::Vcpu(_) => std::fs::write("/sys/fs/cgroup/web-1/vcpus/cgroup.threads", "0"),
    ///     _ => std::fs::write("/sys/fs/cgroup/web-1/io/cgroup.threads", "0"),
    /// });
    /// ```
    #[must_use]
    pub fn on_thread_start(mut self, call: impl Fn(ThreadRole) -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.on_thread_start = Some(Arc::new(call));
        self
    }

    /// Tells a function what happens to the VM: that it starts and how it ends, a device that fails, an engine that is not the first
    /// choice, a sink or a source of the console that fails, output that is lost, and chains that break the rules. By default nobody is
    /// told, unless the crate is built with the feature `log`: then the facade of that name is, with the target `vmcell`.
    ///
    /// It is called on the thread that the record is about: the one that builds, starts or drops the VM, an I/O thread, or the thread of
    /// a vCPU that has left the guest for good; several may call it at once, and no lock of this crate is held. It must not block, since the
    /// devices on that thread wait for it, and must not wait for the VM. If it panics, it is not called again. What a guest can cause is
    /// said once a second at most for each device, with how often it happened.
    ///
    /// ```
    /// let builder = vmcell::Vm::builder().log(|record| eprintln!("{:?} {record}", record.level));
    /// ```
    #[must_use]
    pub fn log(mut self, call: impl Fn(&LogRecord<'_>) + Send + Sync + 'static) -> Self {
        self.log = Some(Box::new(call));
        self
    }
}
