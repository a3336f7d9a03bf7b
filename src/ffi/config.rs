//! A VM's configuration.

use std::ffi::c_char;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::console::ConsoleObject;
use super::convert::{Out, choice, read_path, read_text};
use super::disk::DiskObject;
use super::failure::{Failure, FfiResult, VMCELL_ERROR_INVALID_STATE};
use super::guard::{free, guard};
use super::io_thread::IoThreadObject;
use super::nic::NicObject;
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::slot::{Described, Slot, hand_over, look, replace, update};
use crate::block::Disk;
use crate::config::{Boot, BootProtocol, Discovery, MemoryBacking, PageSize, VmConfig};
use crate::console::Console;
use crate::error::Result;
use crate::event::IoThread;
use crate::logging::LogRecord;
use crate::net::Nic;
use crate::secret::Secret;
use crate::sys::DEFAULT_KICK_SIGNAL;
use crate::vm::{OpenVm, Snapshot, ThreadRole, Vm, VmBuilder};

/// Private anonymous memory. The default.
pub const VMCELL_MEMORY_ANONYMOUS: i32 = 0;
/// An unnamed file in memory (memfd), which another process could map too.
pub const VMCELL_MEMORY_MEMFD: i32 = 1;

/// Pages of the sizes that the host's policy for transparent huge pages gives. The default.
pub const VMCELL_PAGES_DEFAULT: i32 = 0;
/// Asks for transparent huge pages; falls back to small ones if there are none.
pub const VMCELL_PAGES_TRANSPARENT: i32 = 1;
/// Pages of 2 MiB from the host's reserved pool; refused if the pool has too few.
pub const VMCELL_PAGES_HUGE_2_MIB: i32 = 2;

/// SIGSTKFLT, by which vCPU threads are made to leave the guest unless vmcell_config_set_kick_signal chooses another one.
pub const VMCELL_KICK_SIGNAL_DEFAULT: i32 = 16;
const _: () = assert!(VMCELL_KICK_SIGNAL_DEFAULT == DEFAULT_KICK_SIGNAL);

/// PVH for an ELF image that carries the note, the 64-bit Linux protocol for everything else. The default.
pub const VMCELL_PROTOCOL_AUTO: i32 = 0;
/// The 64-bit Linux boot protocol.
pub const VMCELL_PROTOCOL_LINUX64: i32 = 1;
/// PVH: only for an ELF image that carries the note.
pub const VMCELL_PROTOCOL_PVH: i32 = 2;

/// ACPI tables describe the devices. The default.
pub const VMCELL_DISCOVERY_ACPI: i32 = 0;
/// The devices are appended to the command line, and there are no ACPI tables.
pub const VMCELL_DISCOVERY_CMDLINE: i32 = 1;

pub(super) const BACKINGS: [(i32, MemoryBacking); 2] =
    [(VMCELL_MEMORY_ANONYMOUS, MemoryBacking::Anonymous), (VMCELL_MEMORY_MEMFD, MemoryBacking::Memfd)];
pub(super) const PAGES: [(i32, PageSize); 3] = [
    (VMCELL_PAGES_DEFAULT, PageSize::Default),
    (VMCELL_PAGES_TRANSPARENT, PageSize::Transparent),
    (VMCELL_PAGES_HUGE_2_MIB, PageSize::Huge2Mib),
];
const PROTOCOLS: [(i32, BootProtocol); 3] = [
    (VMCELL_PROTOCOL_AUTO, BootProtocol::Auto),
    (VMCELL_PROTOCOL_LINUX64, BootProtocol::Linux64),
    (VMCELL_PROTOCOL_PVH, BootProtocol::Pvh),
];
const DISCOVERIES: [(i32, Discovery); 2] =
    [(VMCELL_DISCOVERY_ACPI, Discovery::Acpi), (VMCELL_DISCOVERY_CMDLINE, Discovery::Cmdline)];

/// The configuration of a VM. Made by vmcell_config_new, vmcell_config_new_from_json or vmcell_config_new_fork; taken by vmcell_vm_new; freed by
/// vmcell_config_free.
///
/// The setters store values; vmcell_vm_new refuses those that are out of range, missing or contradictory.
pub struct ConfigObject(Slot<Description>);

impl ConfigObject {
    pub(super) fn new(description: Description) -> Self {
        Self(Slot::new(description))
    }
}

impl Object for ConfigObject {
    const NAME: &'static str = "vmcell_config";
}

impl Described for ConfigObject {
    type Value = Description;

    fn slot(&self) -> &Slot<Description> {
        &self.0
    }
}

/// The values that the setters collect, in any order, for the builder.
#[derive(Default)]
pub(super) struct Description {
    /// Those that are data.
    pub(super) config: VmConfig,
    disks: Vec<Disk>,
    nics: Vec<Nic>,
    console: Option<Console>,
    io_thread: Option<IoThread>,
    pub(super) on_thread_start: Option<Box<OnThreadStart>>,
    pub(super) log: Option<Box<Log>>,
    /// What the VM begins with, rather than boot.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) secrets: Vec<Secret>,
    pub(super) scrub_secrets_after: Option<Duration>,
    /// In place of all but `config`, once it was opened.
    opened: Option<OpenVm>,
}

/// What a caller does with what is said of a VM.
pub(super) type Log = dyn Fn(&LogRecord<'_>) + Send + Sync;

/// What a caller does on a new thread.
pub(super) type OnThreadStart = dyn Fn(ThreadRole) -> io::Result<()> + Send + Sync;

impl Description {
    pub(super) fn new(config: VmConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// What the guest starts with; the kernel's path is empty until it is set.
    fn boot(&mut self) -> &mut Boot {
        self.config.boot.get_or_insert_with(|| Boot::linux(""))
    }

    pub(super) fn build(self) -> Result<Vm> {
        self.open()?.build()
    }

    fn open(self) -> Result<OpenVm> {
        if let Some(opened) = self.opened {
            return Ok(opened);
        }
        let mut builder = self.config.builder();
        builder = self.disks.into_iter().fold(builder, |builder, disk| builder.disk(disk));
        builder = self.nics.into_iter().fold(builder, |builder, nic| builder.nic(nic));
        if let Some(console) = self.console {
            builder = builder.console(console);
        }
        if let Some(io_thread) = self.io_thread {
            builder = builder.io_thread(io_thread);
        }
        if let Some(call) = self.on_thread_start {
            builder = builder.on_thread_start(call);
        }
        if let Some(call) = self.log {
            builder = builder.log(call);
        }
        if let Some(snapshot) = self.snapshot {
            builder = builder.fork_of(&snapshot);
        }
        builder = self.secrets.into_iter().fold(builder, VmBuilder::secret);
        if let Some(limit) = self.scrub_secrets_after {
            builder = builder.scrub_secrets_after(limit);
        }
        builder.open()
    }

    /// Where files are made while a guest runs, and where the VM's cgroup is removed.
    pub(super) fn folders(&self) -> FfiResult<(Vec<PathBuf>, Option<PathBuf>)> {
        let not_open = || Failure::new(VMCELL_ERROR_INVALID_STATE, "the configuration was not opened");
        let opened = self.opened.as_ref().ok_or_else(not_open)?;
        let files = opened.folders().into_iter().map(Path::to_owned).collect();
        Ok((files, opened.cgroup_folder().map(Path::to_owned)))
    }
}

/// Changes the values of a configuration.
pub(super) fn set(config: *mut ConfigObject, change: impl FnOnce(&mut Description)) -> FfiResult<()> {
    if look(config, |description| description.opened.is_some())? {
        let message = "the configuration was opened, and cannot be changed any more";
        return Err(Failure::new(VMCELL_ERROR_INVALID_STATE, message));
    }
    update(config, |mut description| {
        change(&mut description);
        description
    })
}

/// Checks a configuration and opens what it names: KVM, the kernel and the initrd, disks, TAP devices with all their queues, and the
/// console's files. No thread is started. vmcell_vm_new opens nothing more then, and needs no privileges, so that a process may enter a
/// vmcell_jail in between. The configuration cannot be changed any more. If this fails, it can only be freed.
///
/// Errors: those of vmcell_vm_new that are about the configuration and what it names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_open(config: *mut ConfigObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        replace(config, |description| {
            let config = description.config.clone();
            Ok(Description { opened: Some(description.open()?), ..Description::new(config) })
        })
    })
}

/// Makes a configuration with 1 vCPU, 128 MiB, no kernel, no device and no console. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_new(config: *mut *mut ConfigObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let config = unsafe { Out::new(config, "config") }?;
        config.insert(ConfigObject::new(Description::default()))
    })
}

/// Sets the number of vCPUs, 1 to 64; the default is 1. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_vcpus(
    config: *mut ConfigObject,
    vcpus: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(config, |description| description.config.vcpus = vcpus))
}

/// Sets the guest's RAM in MiB, 16 or more (the default is 128), where the host takes it from (one of VMCELL_MEMORY_*),
/// and the pages that back it (one of VMCELL_PAGES_*). Never blocks.
///
/// Errors: BAD_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_memory(
    config: *mut ConfigObject,
    mib: u64,
    backing: i32,
    pages: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let (backing, pages) = (choice("backing", backing, &BACKINGS)?, choice("pages", pages, &PAGES)?);
        set(config, |description| {
            let memory = &mut description.config.memory;
            (memory.mib, memory.backing, memory.pages) = (mib, backing, pages);
        })
    })
}

/// Sets whether all RAM is taken from the host when the VM is made, rather than page by page when the guest first uses
/// one: 0 for no, the default, anything else for yes. Then vmcell_vm_new also takes as long as the host needs to clear the pages, and
/// private anonymous memory needs Linux 5.14. Memory on memfd is taken so in any case if the host overcommits none (vm.overcommit_memory is 2, as far
/// as /proc tells): it could run out later, and the access would end the process. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_prealloc(
    config: *mut ConfigObject,
    prealloc: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(config, |description| description.config.memory.prealloc = prealloc != 0))
}

/// Sets the guest's kernel, a bzImage or an ELF image. The path may hold any bytes and is copied; the file is opened
/// when the VM is made. There is no default. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_kernel(
    config: *mut ConfigObject,
    path: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        set(config, |description| description.boot().kernel = path)
    })
}

/// Sets the initial RAM disk. The path may hold any bytes and is copied; the file is opened when the VM is made. NULL
/// means none, the default. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_initrd(
    config: *mut ConfigObject,
    path: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = (!path.is_null()).then(|| unsafe { read_path(path, "path") }).transpose()?;
        set(config, |description| description.boot().initrd = path)
    })
}

/// Sets the kernel's command line, UTF-8, copied: at most 2047 bytes including what discovery appends. If it appends something, double
/// quotes must come in pairs, up to a lone `--`. The default is empty. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_cmdline(
    config: *mut ConfigObject,
    cmdline: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let cmdline = unsafe { read_text(cmdline, "cmdline") }?;
        set(config, |description| description.boot().cmdline = cmdline)
    })
}

/// Sets how the kernel is entered, one of VMCELL_PROTOCOL_*. Never blocks.
///
/// Errors: BAD_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_protocol(
    config: *mut ConfigObject,
    protocol: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let protocol = choice("protocol", protocol, &PROTOCOLS)?;
        set(config, |description| description.boot().protocol = protocol)
    })
}

/// Sets how the guest finds its devices, one of VMCELL_DISCOVERY_*. Never blocks.
///
/// Errors: BAD_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_discovery(
    config: *mut ConfigObject,
    discovery: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let discovery = choice("discovery", discovery, &DISCOVERIES)?;
        set(config, |description| description.boot().discovery = discovery)
    })
}

/// Adds a disk: Linux calls the first /dev/vda, the second /dev/vdb, and so on. It comes behind those of a JSON text. `disk` is taken, even if this call
/// fails. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_add_disk(
    config: *mut ConfigObject,
    disk: *mut DiskObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let disk = hand_over(disk)?;
        set(config, |description| description.disks.push(disk))
    })
}

/// Adds a network interface after the earlier ones, and after those of a JSON text. `nic` is taken, even if this call fails. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_add_nic(
    config: *mut ConfigObject,
    nic: *mut NicObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let nic = hand_over(nic)?;
        set(config, |description| description.nics.push(nic))
    })
}

/// Connects the serial port (ttyS0 in Linux) to `console`, in place of an earlier one; the default is no console.
/// `console` is taken, even if this call fails. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_console(
    config: *mut ConfigObject,
    console: *mut ConsoleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let console = hand_over(console)?;
        set(config, |description| description.console = Some(console))
    })
}

/// Adds what `console` is connected to, so that each sink gets all output and each source types: to what a console that was set or
/// added before is connected to, or else to what the description says, which stays. `console` is taken, even if this call fails. Never
/// blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_add_console(
    config: *mut ConfigObject,
    console: *mut ConsoleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let console = hand_over(console)?;
        set(config, |description| {
            let described = || Console::from_config(&description.config.console);
            let before = description.console.take().unwrap_or_else(described);
            description.console = Some(before.also(console));
        })
    })
}

/// Serves the VM's devices and console on this I/O thread rather than on one of its own, except devices that have their
/// own. `io_thread` is borrowed, as by vmcell_disk_set_io_thread. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_io_thread(
    config: *mut ConfigObject,
    io_thread: *const IoThreadObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let io_thread = objects::get(io_thread)?.thread();
        set(config, |description| description.io_thread = Some(io_thread))
    })
}

/// Sets the signal by which vCPU threads are made to leave the guest: a standard one, 1 to 31, but for 4 to 9, 11, 18 to 22 and
/// 31, which tell of a fault, stop or continue the process, or cannot be blocked. The default is
/// VMCELL_KICK_SIGNAL_DEFAULT. It is only sent to the VM's own threads, which block it outside the guest, so that it is
/// never delivered: whether the program handles or ignores it makes no difference. Choose one that is not sent to the
/// process as a whole while VMs run, because a vCPU thread may take it in place of the thread that it was meant for. Never
/// blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_kick_signal(
    config: *mut ConfigObject,
    signal: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(config, |description| description.config.kick_signal = Some(signal)))
}

/// Frees a configuration that no VM was made from, with everything that was added to it. NULL is fine.
///
/// Errors: BAD_HANDLE, also if it was handed over to vmcell_vm_new.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_config_free(config: *mut ConfigObject) -> i32 {
    free(config, drop)
}
