//! The jail of a process, and filters of threads that are not a VM's.

use std::ffi::c_char;
use std::time::Duration;

use super::config::ConfigObject;
use super::config_threads::SECCOMP;
use super::convert::{Out, OutText, choice, read_fds, read_path};
use super::failure::FfiResult;
use super::guard::{free, guard};
use super::io_thread::IoThreadObject;
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::slot::{Described, Slot, hand_over, look, update};
use crate::confine::{Jail, JailCgroup, JailLayer, JailLimit, confine_this_thread};
use crate::sys::InheritedDescriptors;

/// A user namespace of its own.
pub const VMCELL_JAIL_USER_NAMESPACE: i32 = 0;
/// A network namespace of its own, without any network.
pub const VMCELL_JAIL_NETWORK_NAMESPACE: i32 = 1;
/// An IPC namespace of its own.
pub const VMCELL_JAIL_IPC_NAMESPACE: i32 = 2;
/// A UTS namespace of its own.
pub const VMCELL_JAIL_UTS_NAMESPACE: i32 = 3;
/// A cgroup namespace of its own.
pub const VMCELL_JAIL_CGROUP_NAMESPACE: i32 = 4;
/// An empty root, but for what is kept.
pub const VMCELL_JAIL_EMPTY_ROOT: i32 = 5;
/// No further user namespaces.
pub const VMCELL_JAIL_NESTED_NAMESPACES: i32 = 6;
/// No rights from programs that are executed.
pub const VMCELL_JAIL_NEW_PRIVILEGES: i32 = 7;
/// Landlock: no files, but for what is kept.
pub const VMCELL_JAIL_FILES: i32 = 8;
/// Landlock: no TCP.
pub const VMCELL_JAIL_TCP: i32 = 9;
/// Landlock: no signals and abstract sockets of other processes.
pub const VMCELL_JAIL_OUTSIDE: i32 = 10;
/// No capabilities.
pub const VMCELL_JAIL_CAPABILITIES: i32 = 11;
/// No core dump, and no debugger without privileges.
pub const VMCELL_JAIL_LOOKING_IN: i32 = 12;
/// The cgroup, if one was given.
pub const VMCELL_JAIL_CGROUP: i32 = 13;
/// The limits, if some were given.
pub const VMCELL_JAIL_LIMITS: i32 = 14;
/// Inherited descriptors, if they were to be closed.
pub const VMCELL_JAIL_DESCRIPTORS: i32 = 15;
/// The cgroup's limits of memory, if one was given.
pub const VMCELL_JAIL_CGROUP_MEMORY: i32 = 16;
/// The cgroup's limit of processes and threads, if one was given.
pub const VMCELL_JAIL_CGROUP_PROCESSES: i32 = 17;
/// The cgroup's limit of CPU time, if one was given.
pub const VMCELL_JAIL_CGROUP_CPU: i32 = 18;
/// The cgroup's limits of I/O.
pub const VMCELL_JAIL_CGROUP_IO: i32 = 19;

/// One more than the highest descriptor that can be opened.
pub const VMCELL_LIMIT_OPEN_FILES: i32 = 0;
/// How many processes and threads the user may have.
pub const VMCELL_LIMIT_PROCESSES: i32 = 1;
/// The size in bytes to which files may grow.
pub const VMCELL_LIMIT_FILE_BYTES: i32 = 2;
/// The size in bytes of a core dump.
pub const VMCELL_LIMIT_CORE_BYTES: i32 = 3;
/// How many bytes may be locked in memory.
pub const VMCELL_LIMIT_LOCKED_BYTES: i32 = 4;

const LAYERS: [(i32, JailLayer); 20] = [
    (VMCELL_JAIL_USER_NAMESPACE, JailLayer::UserNamespace),
    (VMCELL_JAIL_NETWORK_NAMESPACE, JailLayer::NetworkNamespace),
    (VMCELL_JAIL_IPC_NAMESPACE, JailLayer::IpcNamespace),
    (VMCELL_JAIL_UTS_NAMESPACE, JailLayer::UtsNamespace),
    (VMCELL_JAIL_CGROUP_NAMESPACE, JailLayer::CgroupNamespace),
    (VMCELL_JAIL_EMPTY_ROOT, JailLayer::EmptyRoot),
    (VMCELL_JAIL_NESTED_NAMESPACES, JailLayer::NestedNamespaces),
    (VMCELL_JAIL_NEW_PRIVILEGES, JailLayer::NewPrivileges),
    (VMCELL_JAIL_FILES, JailLayer::Files),
    (VMCELL_JAIL_TCP, JailLayer::Tcp),
    (VMCELL_JAIL_OUTSIDE, JailLayer::Outside),
    (VMCELL_JAIL_CAPABILITIES, JailLayer::Capabilities),
    (VMCELL_JAIL_LOOKING_IN, JailLayer::LookingIn),
    (VMCELL_JAIL_CGROUP, JailLayer::Cgroup),
    (VMCELL_JAIL_LIMITS, JailLayer::Limits),
    (VMCELL_JAIL_DESCRIPTORS, JailLayer::Descriptors),
    (VMCELL_JAIL_CGROUP_MEMORY, JailLayer::CgroupMemory),
    (VMCELL_JAIL_CGROUP_PROCESSES, JailLayer::CgroupProcesses),
    (VMCELL_JAIL_CGROUP_CPU, JailLayer::CgroupCpu),
    (VMCELL_JAIL_CGROUP_IO, JailLayer::CgroupIo),
];

const LIMITS: [(i32, JailLimit); 5] = [
    (VMCELL_LIMIT_OPEN_FILES, JailLimit::OpenFiles),
    (VMCELL_LIMIT_PROCESSES, JailLimit::Processes),
    (VMCELL_LIMIT_FILE_BYTES, JailLimit::FileBytes),
    (VMCELL_LIMIT_CORE_BYTES, JailLimit::CoreBytes),
    (VMCELL_LIMIT_LOCKED_BYTES, JailLimit::LockedBytes),
];

/// What a process gives up for good, before it has threads. Made by vmcell_jail_new; taken by vmcell_jail_enter; freed by
/// vmcell_jail_free.
pub struct JailObject(Slot<Jail>);

impl Object for JailObject {
    const NAME: &'static str = "vmcell_jail";
}

impl Described for JailObject {
    type Value = Jail;

    fn slot(&self) -> &Slot<Jail> {
        &self.0
    }
}

/// Makes a jail with every layer that can be had without saying more about it: VMCELL_JAIL_USER_NAMESPACE to VMCELL_JAIL_LOOKING_IN. Nothing
/// happens before vmcell_jail_enter. docs/confinement.md says what each layer refuses. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_jail_new(jail: *mut *mut JailObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        unsafe { Out::new(jail, "jail") }?.insert(JailObject(Slot::new(Jail::new())))
    })
}

/// Leaves a layer out (one of VMCELL_JAIL_*). Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_jail_leave_out(jail: *mut JailObject, layer: i32, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let layer = choice("layer", layer, &LAYERS)?;
        update(jail, |jail| jail.without(layer))
    })
}

/// Keeps a file or a folder, with everything beneath it, at its path, which must be absolute and free of `..`: to be read, or to be written
/// as well if `writable` is not 0, and then files and Unix sockets can be made and removed in a folder.
/// A path that is kept twice can be written if one of the two says so, and a path may lie in a folder that is kept. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_jail_keep(
    jail: *mut JailObject,
    path: *const c_char,
    writable: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        update(jail, |jail| if writable == 0 { jail.keep(path) } else { jail.keep_writable(path) })
    })
}

/// Keeps the folders in which files are made, renamed and removed while a guest of this configuration runs: those of a console's files of a
/// limited size, and of a vsock's Unix socket. Lets its cgroup (vmcell_config_set_cgroup) be removed. `config` is borrowed, and was opened by vmcell_config_open. Never blocks.
///
/// Errors: INVALID_STATE if it was not opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_jail_keep_folders(
    jail: *mut JailObject,
    config: *const ConfigObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let (files, cgroup) = look(config, |description| description.folders())??;
        update(jail, |jail| {
            let jail = files.into_iter().fold(jail, |jail, folder| jail.keep_writable(folder));
            cgroup.into_iter().fold(jail, |jail, folder| jail.keep_cgroup(folder))
        })
    })
}

/// Limits a resource (one of VMCELL_LIMIT_*) for good. If the process may not have that much, the layer VMCELL_JAIL_LIMITS is missing.
/// Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_jail_limit(
    jail: *mut JailObject,
    limit: i32,
    most: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let limit = choice("limit", limit, &LIMITS)?;
        update(jail, |jail| jail.limit(limit, most))
    })
}

/// Joins a cgroup of version 2, given by its folder, which exists, and sets its limits before: memory in bytes, how many processes and
/// threads, and for how many of each 100000 microseconds its threads may run together, 1000 or more. UINT64_MAX leaves a limit as it is.
/// A limit needs its controller (memory, pids, cpu), which the cgroup above names in cgroup.subtree_control. One that cannot be set is a
/// layer that is missing, and costs no other. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_jail_set_cgroup(
    jail: *mut JailObject,
    path: *const c_char,
    memory_max: u64,
    pids_max: u64,
    cpu_max_us: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let mut cgroup = JailCgroup::new(unsafe { read_path(path, "path") }?);
        let given = |limit: u64| Some(limit).filter(|limit| *limit != u64::MAX);
        if let Some(bytes) = given(memory_max) {
            cgroup = cgroup.memory_max(bytes);
        }
        if let Some(count) = given(pids_max) {
            cgroup = cgroup.pids_max(count);
        }
        if let Some(quota) = given(cpu_max_us) {
            cgroup = cgroup.cpu_max(Duration::from_micros(quota), PERIOD);
        }
        update(jail, |jail| jail.cgroup(cgroup))
    })
}

/// Of a quota of CPU time.
const PERIOD: Duration = Duration::from_millis(100);

/// Closes the descriptors that the process got from the one that started it: those above 2 that are not marked as close-on-exec, but for
/// the `count` in `keep`, which may be NULL if `count` is 0. Everything that the library has opened is marked. No other code of the program may
/// use a descriptor that is closed. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_jail_close_inherited(
    jail: *mut JailObject,
    keep: *const i32,
    count: usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or that many numbers.
        let keep = unsafe { read_fds(keep, count, "keep") }?;
        // SAFETY: the header demands that the program uses none of the others.
        let inherited = unsafe { InheritedDescriptors::except(keep) };
        update(jail, |jail| jail.close(inherited))
    })
}

/// Enters the jail, for good. `jail` is taken. The process must have no thread but the calling one, so this comes before vmcell_vm_new,
/// and after vmcell_config_open. `missing` gets a number in which bit N is set for each layer that was wanted and that the host does not
/// give, where N is its VMCELL_JAIL_*; 0 if none is missing. One line that says which and why is written to `buffer`, with a NUL behind
/// it, if it fits in `capacity` bytes; 4 KiB suffice. `length` gets its length without the NUL. `buffer` may be NULL if `capacity` is 0.
/// Takes less than a millisecond on most hosts.
///
/// Errors: INVALID_STATE if the process has another thread; INVALID_CONFIG if what is to be kept is not there, or the cgroup is none:
/// nothing has changed then. HOST if the process is in a user namespace in which its user has no number: it had better end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_jail_enter(
    jail: *mut JailObject,
    missing: *mut u32,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let jail = hand_over(jail)?;
        // SAFETY: the header demands NULL or a place for the result.
        let missing = unsafe { Out::new(missing, "missing") }?;
        // SAFETY: the header demands NULL or that much room, and a place for the result.
        let text = unsafe { OutText::new(buffer, capacity, length) }?;
        let became = jail.enter()?;
        let numbers = became.missing().filter_map(|(layer, _)| LAYERS.iter().find(|(_, known)| *known == layer));
        missing.write(numbers.fold(0, |bits, (number, _)| bits | 1_u32.wrapping_shl(number.unsigned_abs())));
        text.write(&became.to_string());
        Ok(())
    })
}

/// Frees a jail that was not entered. NULL is fine.
///
/// Errors: BAD_HANDLE, also if it was handed over to vmcell_jail_enter.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_jail_free(jail: *mut JailObject) -> i32 {
    free(jail, drop)
}

/// Filters what the calling thread asks of the kernel from now on (one of VMCELL_SECCOMP_*), and the threads that it starts: it may do
/// what it takes to start, pause, resume, watch, end and free VMs that were made before. docs/confinement.md lists the calls. It
/// cannot be undone.
///
/// Errors: INVALID_STATE on a thread of a VM, which is filtered already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_thread_confine(seccomp: i32, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(confine_this_thread(choice("seccomp", seccomp, &SECCOMP)?)?))
}

/// Filters what the thread asks of the kernel from now on (one of VMCELL_SECCOMP_*), as vmcell_config_set_seccomp does for the I/O threads
/// that a VM makes for itself. Devices can be added later. A VM whose console has a file of a limited size needs another thread. It
/// cannot be undone. Waits until it is done, at most for ten seconds.
///
/// Errors: INVALID_STATE if it is filtered already, or if the caller runs on this very thread; TIMEOUT if the thread does not come to it
/// in that time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_io_thread_confine(
    io_thread: *mut IoThreadObject,
    seccomp: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || confine(io_thread, seccomp))
}

fn confine(io_thread: *mut IoThreadObject, seccomp: i32) -> FfiResult<()> {
    let seccomp = choice("seccomp", seccomp, &SECCOMP)?;
    Ok(objects::get(io_thread)?.thread().seccomp(seccomp)?)
}
