//! VM isolation primitives for Linux/KVM: vCPUs, guest memory, kernel loading, virtio-block and virtio-net as a library.
//!
//! A host program builds a VM, keeps a handle to it, and stays in control: nothing here exits the process, prints, or
//! installs a signal handler, and one process may hold a thousand VMs. The guest is taken to be hostile from its first
//! instruction.
//!
//! ```no_run
//! use vmcell::{Boot, Console, Disk, Nic, Vm};
//!
//! fn main() -> vmcell::Result<()> {
//!     let vm = Vm::builder()
//!         .vcpus(2)
//!         .memory_mib(256)
//!         .boot(Boot::linux("vmlinuz").initrd("initrd.img").cmdline("console=ttyS0"))
//!         .disk(Disk::open("root.img")?.read_only(true))
//!         .nic(Nic::tap("tap0")?)
//!         .console(Console::stdio())
//!         .build()?; // whatever can be refused is refused here; nothing runs yet
//!     vm.start()?; // the caller keeps the handle: pause, resume, stop, wait, status
//!     println!("guest ended: {:?}", vm.wait()?);
//!     Ok(())
//! }
//! ```
//!
//! # Two layers
//! [`Vm`] is a whole machine. Under it lie the primitives, for orchestrators that build one of their own: [`kvm`] (a VM,
//! a vCPU with decoded exits), [`GuestMemory`], [`bus`], [`virtio`] (the device trait, queues, the MMIO transport), and
//! [`event`] (the I/O thread).
//!
//! # A VM as data
//! A [`VmConfig`] describes a VM as plain data, which can be kept, compared, and built as often as you like. With the feature `serde` it
//! goes to and from JSON. What is not data is given beside it, by [`VmConfig::builder`].
//!
//! # Code of your own
//! A disk may lie on anything that implements [`block::DiskBackend`], and a network card on any [`net::NicBackend`]; backends
//! can be stacked on each other. A virtio device of your own implements [`virtio::VirtioDevice`] and becomes part of a VM by
//! [`VmBuilder::device`]. A mistake in such code harms its own device and no other.
//!
//! The feature `test-util` adds the module `testing`: suites that try a backend or a device against all the rules that it must
//! keep, a driver's half of queues and registers, and tiny guests. Build the documentation with that feature to read about it.
//!
//! # Rooms
//! | Room | What it is |
//! |---|---|
//! | `error` | the one public error: kind, message, cause |
//! | `logging` | what is said of a VM, and to whom |
//! | [`meter`] | counters that one thread counts up and any other reads |
//! | `sys` | what the host offers and the standard library does not: eventfd, epoll, signals, threads, TAP, files |
//! | `config` | plain data that a user fills in, and its validation |
//! | `confine` | what the process and the threads of its VMs may ask of the kernel |
//! | `memory` | guest RAM: mappings, checked access, buffers and who still holds them |
//! | [`event`] | the I/O thread, and the one vocabulary for what is waited for and what happened |
//! | [`kvm`] | KVM's ioctls: system, VM, vCPU and its exits |
//! | `limit` | limits on what a device does |
//! | `save` | snapshots in files, with the feature of that name |
//! | [`bus`] | address range to device, for MMIO and port I/O |
//! | `arch` | per CPU family: memory layout, CPUID, MSRs, registers, ACPI tables, boot protocols |
//! | `legacy` | serial port, reset and power registers: only what a kernel cannot do without |
//! | [`virtio`] | queues, the device trait, the gate between vCPUs and a device's owner, the transport |
//! | `host` | what the host offers for isolation and speed, and lacks |
//! | [`block`], [`net`], `rng`, `balloon`, `vsock`, `console` | one folder a device; none knows another |
//! | `metadata` | a metadata service on a network card, with the feature of that name |
//! | `network` | a private network between VMs, with the feature of that name |
//! | `secret` | secrets of guests, with the feature of that name |
//! | `volume` | encrypted volumes, with the feature of that name |
//! | `board` | which chips and ports a machine of this CPU family has, and where |
//! | `vm` | builder, handle, vCPU threads, order of start and stop |
//! | `ffi` | the C face of all this: `include/vmcell.h`, for C, Go and whatever calls C |
//!
//! A room uses rooms above it in this table, never below; a test holds us to it.
//!
//! # Threads
//! A VM has one thread per vCPU and one I/O thread, which several VMs may share ([`IoThread`]). A disk on a file gets a helper
//! thread when it first needs something that takes waiting and is not done by its I/O thread's io_uring, for which the kernel keeps
//! up to eight workers. A console on a terminal or a file gets such threads for as long as it needs them. A backend of your own has an I/O thread of its own unless you vouch that
//! it never blocks. One that has panicked or given up is dropped on a thread made for that. All of these threads block every signal.
//! A vCPU's thread lets a single one through, and only while it is in
//! the guest: the signal that makes it leave, which is [`DEFAULT_KICK_SIGNAL`] unless [`VmBuilder::kick_signal`] chooses
//! another one. There is no handler for it, and it is never delivered. A host program must not send that signal to its own
//! process as a whole, and may otherwise use signals as it likes. The documentation of a callback says which thread calls it.
//!
//! The threads of a VM with a [name](VmBuilder::name) are called after it: `NAME:vcpu0`, `NAME:io`, `NAME:disk`. [`Vm::threads`] tells
//! which ones they are. [`VmBuilder::affinity`] and [`VmBuilder::on_thread_start`] put them where they belong, and
//! [`VmBuilder::core_scheduling`] keeps other tenants off the hyperthreads beside them.
//!
//! # State
//! All state belongs to the object that it was made for and is gone when that object is dropped, with these exceptions:
//! - Each thread that has run a vCPU keeps a list of its vCPUs, so that no signal is sent to a thread that has ended. Such threads are
//!   numbered by a counter.
//! - What KVM can give the CPUs of guests, and which of their registers it saves, is asked once, and kept. A thread whose system calls are filtered is marked, and so are those that
//!   it starts.
//! - The objects of C programs are entries of one table, and the files of disks are entries of another, so that no two disks write to
//!   one.
//! - A helper thread that waits for dead storage outlives its disk, and is [counted](block::abandoned_threads), as is one that waits for
//!   a console's terminal, device or file ([`abandoned_console_threads`]). So does an I/O thread whose io_uring waits for storage, which
//!   is [counted](block::abandoned_transfers) by what it has in flight.
//! - VMs that are [discarded](Vm::discard), or dropped by a [callback](event#what-a-callback-may-do), end soon after, and are
//!   [counted](Vm::discarded) until then.

// A guest chooses the numbers in most rooms, and an image or the host in the others: none of them may panic, wrap around, or lose bits.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("vmcell runs on Linux on x86_64 only: the target must be x86_64-unknown-linux-gnu or -musl");

mod arch;
mod balloon;
pub mod block;
mod board;
pub mod bus;
mod config;
mod confine;
mod console;
mod error;
pub mod event;
#[cfg(any(test, feature = "capi"))]
mod ffi;
mod host;
pub mod kvm;
mod legacy;
mod limit;
mod logging;
mod memory;
#[cfg(feature = "metadata")]
mod metadata;
pub mod meter;
pub mod net;
#[cfg(feature = "network")]
pub mod network;
mod rng;
#[cfg(feature = "save")]
mod save;
#[cfg(feature = "secret")]
pub mod secret;
mod sys;
#[cfg(any(test, feature = "test-util"))]
#[allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "part of tests, which fail by a panic"
)]
pub mod testing;
pub mod virtio;
mod vm;
#[cfg(feature = "volume")]
pub mod volume;
mod vsock;

pub use balloon::{BalloonHandle, BalloonMetrics, BalloonStatistics};
pub use block::{Disk, DiskHandle};
pub use board::ResetCause;
pub use config::{
    Affinity, BalloonConfig, Boot, BootProtocol, CgroupConfig, ConsoleConfig, ConsoleFile, CpuConfig, CpuLevel,
    CpuShare, Discovery, DiskConfig, Engine, ForkClock, Limits, MemoryBacking, MemoryConfig, NicConfig, PageSize,
    RateLimit, RngConfig, Seccomp, VmConfig, VsockConfig,
};
pub use confine::{Jail, JailCgroup, JailIo, JailLayer, JailLimit, JailReport, confine_this_thread};
pub use console::{Console, ConsoleReader, ConsoleStatus, ConsoleWriter, SinkStatus, abandoned_console_threads};
pub use error::{Error, ErrorKind, Result};
pub use event::IoThread;
pub use host::{Finding, FindingLevel, HostCheck};
pub use limit::LimitGroup;
pub use logging::{LogLevel, LogRecord};
pub use memory::{Buffer, GuestAddress, GuestMemory, GuestRanges, HostBuffer, MemoryRegion, MemoryUse};
#[cfg(feature = "metadata")]
pub use metadata::Metadata;
pub use net::{Nic, NicHandle};
pub use sys::{DEFAULT_KICK_SIGNAL, EventFd, InheritedDescriptors};
pub use vm::{
    ConsoleMetrics, DeviceFailure, DeviceKindMetrics, DeviceMetrics, Exit, ExitCounts, Metrics, OpenVm, Snapshot,
    Status, ThreadRole, VcpuMetrics, Vm, VmBuilder, VmThread, openmetrics,
};
#[cfg(feature = "save")]
pub use vm::{LoadMemory, SaveOptions, WorkingSet};
pub use vsock::{VsockHandle, VsockListener};
