//! Snapshots, their files, and the VMs that begin with them.

use std::ffi::{c_char, c_void};
use std::io;
use std::path::PathBuf;

use super::config::{ConfigObject, Description, set};
use super::convert::{Out, choice, read_path};
use super::failure::{Failure, VMCELL_ERROR_BAD_VALUE, VMCELL_ERROR_NULL_ARGUMENT};
use super::guard::{free, guard};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::vm::VmObject;
use crate::config::ForkClock;
use crate::vm::{LoadMemory, SaveOptions, Snapshot, WorkingSet};

/// The RAM is copied from the file, and its checksums are compared. The file may be changed or deleted afterwards.
pub const VMCELL_LOAD_COPY: i32 = 0;
/// The file is mapped, and read as a guest uses it. The caller vouches that nobody changes or cuts it for as long as the snapshot or a VM
/// that began with it lives: an access to what was cut off ends the process (SIGBUS).
pub const VMCELL_LOAD_MAP: i32 = 1;

/// The time since the snapshot has passed, for the time of day and for the time since boot. The default.
pub const VMCELL_FORK_CLOCK_JUMP: i32 = 0;
/// No time has passed.
pub const VMCELL_FORK_CLOCK_KEEP: i32 = 1;

/// The disks that the snapshot's description names, by their paths.
pub const VMCELL_FORK_DISKS: u32 = 1;
/// The network interfaces that it names.
pub const VMCELL_FORK_NICS: u32 = 2;

const MEMORIES: [(i32, LoadMemory); 2] = [(VMCELL_LOAD_COPY, LoadMemory::Copy), (VMCELL_LOAD_MAP, LoadMemory::Map)];
const CLOCKS: [(i32, ForkClock); 2] =
    [(VMCELL_FORK_CLOCK_JUMP, ForkClock::Jump), (VMCELL_FORK_CLOCK_KEEP, ForkClock::Keep)];

/// A VM at one moment: all of it but the content of disks. Any number of VMs begin with it, by vmcell_config_new_fork. Made by vmcell_vm_snapshot
/// and vmcell_snapshot_load; freed by vmcell_snapshot_free, before or after the VM it was taken of and those that began with it. Any thread may
/// make any call. docs/snapshot.md says what a fork can rely on.
pub struct SnapshotObject(Snapshot);

impl Object for SnapshotObject {
    const NAME: &'static str = "vmcell_snapshot";
}

/// Is called on the calling thread while the VM stands still, to copy its disks for instance. Returns 0, or an errno (above 0), by which
/// vmcell_vm_snapshot fails. It must not call for VMs: to pause, resume or snapshot one is refused. It must not unwind: no C++ exception, no longjmp.
pub type AtStandstill = Option<unsafe extern "C" fn(user: *mut c_void) -> i32>;

/// Takes a snapshot of a VM that runs or is paused. If it ran, it goes on afterwards. `at_standstill`, unless it is NULL, is called once
/// with `user` while the VM stands still and all else was taken. Blocks until requests in flight are done, at most for ten seconds, and
/// then for some milliseconds for each GiB if the RAM lies on a memfd (VMCELL_MEMORY_MEMFD), and otherwise for as long as copying takes
/// what is not zero.
///
/// Errors: those of vmcell_vm_pause; INVALID_STATE if a device has failed or cannot be saved, and for a VM of which none may be taken or
/// that is suspended; HOST_MEMORY; HOST if `at_standstill` fails. The VM goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_snapshot(
    vm: *mut VmObject,
    at_standstill: AtStandstill,
    user: *mut c_void,
    snapshot: *mut *mut SnapshotObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let snapshot = unsafe { Out::new(snapshot, "snapshot") }?;
        let call = || match at_standstill {
            None => Ok(()),
            // SAFETY: the header demands a function that may be called with `user` on this thread until the call returns.
            Some(call) => match unsafe { call(user) } {
                0 => Ok(()),
                number => Err(io::Error::from_raw_os_error(number)),
            },
        };
        let vm = objects::get(vm)?;
        snapshot.insert(SnapshotObject(vm.vm().snapshot_with(call)?))
    })
}

/// Gives the VM's RAM back to the host: pauses the VM, saves it in the file `path` as vmcell_snapshot_save does, and keeps the rest of it,
/// until vmcell_vm_resume takes the RAM from the file, as `memory` says (VMCELL_LOAD_*). With VMCELL_LOAD_COPY, that blocks for as long as
/// reading takes; if it fails, it may be tried again. Until then, nothing may be changed in the file. Blocks until the file is on storage.
///
/// Errors: those of vmcell_vm_snapshot and vmcell_snapshot_save; INVALID_STATE if the VM is suspended, or if another thread called
/// vmcell_vm_resume meanwhile, which breaks this off. A VM that ran goes on then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_suspend(
    vm: *mut VmObject,
    path: *const c_char,
    memory: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        let memory = choice("memory", memory, &MEMORIES)?;
        Ok(objects::get(vm)?.vm().suspend(path, memory)?)
    })
}

/// Does the same as vmcell_vm_suspend with VMCELL_LOAD_COPY, without leaving anything that can be read: the RAM is encrypted by AES-256-XTS with a key
/// that is made for this call and lies in locked memory of this process, in a file in the folder `folder` that has no name. Nothing of it is left when the
/// VM is resumed or freed, or the process ends. Blocks until the file is written, not until it is on storage.
///
/// Errors: those of vmcell_vm_suspend; VOLUME if the host has no locked memory for the key. A VM that ran goes on then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_suspend_encrypted(
    vm: *mut VmObject,
    folder: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let folder = unsafe { read_path(folder, "folder") }?;
        Ok(objects::get(vm)?.vm().suspend_encrypted(folder)?)
    })
}

/// Puts a snapshot in the file `path`, which takes the place of one of that name once it is whole and on storage. It can be read by its
/// owner alone, and holds what the guest had in its memory, secrets too. If `older` is not NULL, what lies in the file of that snapshot is
/// left out: it is called `older_name`, and stays in the same folder. At most `bytes_per_second` bytes of RAM are written a second, 65536 or
/// more, or as many as can be if that is 0. Blocks until that is done.
///
/// Errors: SNAPSHOT, and nothing of the file is left; INVALID_CONFIG for another rate, or if a path of the description is not UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_snapshot_save(
    snapshot: *const SnapshotObject,
    path: *const c_char,
    older: *const SnapshotObject,
    older_name: *const c_char,
    bytes_per_second: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        let mut options = SaveOptions::new();
        if bytes_per_second > 0 {
            options = options.bytes_per_second(bytes_per_second);
        }
        if !older.is_null() {
            // SAFETY: as above.
            let name: PathBuf = unsafe { read_path(older_name, "older_name") }?;
            options = options.since(&objects::get(older)?.0, name);
        } else if !older_name.is_null() {
            return Err(Failure::new(VMCELL_ERROR_NULL_ARGUMENT, "older is NULL, and older_name is not"));
        }
        Ok(objects::get(snapshot)?.0.save_with(path, &options)?)
    })
}

/// Takes a snapshot from a file, and from those that it builds on; its RAM as `memory` says (VMCELL_LOAD_*). Blocks for as long as reading takes.
///
/// Errors: SNAPSHOT for a file that cannot be read, is no snapshot, is damaged, was written by a newer version, or is of another
/// architecture; HOST_MEMORY; BAD_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_snapshot_load(
    path: *const c_char,
    memory: i32,
    snapshot: *mut *mut SnapshotObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let snapshot = unsafe { Out::new(snapshot, "snapshot") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        let memory = choice("memory", memory, &MEMORIES)?;
        snapshot.insert(SnapshotObject(Snapshot::load_with(path, memory)?))
    })
}

/// Puts in the file `path` which parts of its RAM the guest has used since the VM began, for vmcell_snapshot_read_ahead. It takes about a millisecond
/// for each GiB, and waits for the storage. It can be called in any state of the VM.
///
/// Errors: HOST without /proc, in a jail for instance; SNAPSHOT if the file cannot be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_save_working_set(
    vm: *const VmObject,
    path: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        Ok(objects::get(vm)?.vm().working_set()?.save(path)?)
    })
}

/// Asks the host to read those parts of the RAM into its cache that the file `path` names, made by vmcell_vm_save_working_set: VMs that begin with a
/// snapshot that was mapped (VMCELL_LOAD_MAP) are faster then. It does not wait until all is read.
///
/// Errors: SNAPSHOT if that file cannot be read, is none of those, or names what is not within the RAM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_snapshot_read_ahead(
    snapshot: *const SnapshotObject,
    path: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path: PathBuf = unsafe { read_path(path, "path") }?;
        Ok(objects::get(snapshot)?.0.read_ahead(&WorkingSet::load(path)?)?)
    })
}

/// For how many nanoseconds the VM stood still for a snapshot; 0 if it was paused already, or if the snapshot was loaded. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_snapshot_standstill(
    snapshot: *const SnapshotObject,
    nanoseconds: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let place = unsafe { Out::new(nanoseconds, "nanoseconds") }?;
        let standstill = objects::get(snapshot)?.0.standstill();
        place.write(u64::try_from(standstill.as_nanos()).unwrap_or(u64::MAX));
        Ok(())
    })
}

/// Lets go of a snapshot. VMs that began with it go on. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_snapshot_free(snapshot: *mut SnapshotObject) -> i32 {
    free(snapshot, drop)
}

/// Makes the configuration of a VM that begins with a snapshot: the description of the VM that it was taken from, with its disks and
/// interfaces as `keep` says, a sum of VMCELL_FORK_DISKS and VMCELL_FORK_NICS. A fork needs as many disks, interfaces and other devices as
/// its source had, of the same kinds and in the same order, and disks with the content that they had: vmcell_vm_new says otherwise which
/// ones those are. vCPUs, memory, kernel, rng and balloon stay the source's, whatever is set. The console is as described, unless one is
/// set. Never blocks.
///
/// Errors: BAD_VALUE for another `keep`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_new_fork(
    snapshot: *const SnapshotObject,
    keep: u32,
    config: *mut *mut ConfigObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let config = unsafe { Out::new(config, "config") }?;
        let known = VMCELL_FORK_DISKS | VMCELL_FORK_NICS;
        if keep & !known != 0 {
            let message = format!("keep is {keep}, allowed are 0 to {known}");
            return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message));
        }
        let snapshot = objects::get(snapshot)?;
        let mut description = Description::new(snapshot.0.config().clone());
        if keep & VMCELL_FORK_DISKS == 0 {
            description.config.disks.clear();
        }
        if keep & VMCELL_FORK_NICS == 0 {
            description.config.nics.clear();
        }
        description.snapshot = Some(snapshot.0.clone());
        config.insert(ConfigObject::new(description))
    })
}

/// Sets what the clocks of a VM show that begins with a snapshot: VMCELL_FORK_CLOCK_*. Never blocks.
///
/// Errors: BAD_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_fork_clock(
    config: *mut ConfigObject,
    clock: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let clock = choice("clock", clock, &CLOCKS)?;
        set(config, |description| description.config.fork_clock = clock)
    })
}

/// Has vmcell_vm_snapshot and vmcell_vm_suspend refuse the VM if `never` is not 0: what is in its memory is never to be copied. The default
/// is 0. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_never_snapshot(
    config: *mut ConfigObject,
    never: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(config, |description| description.config.never_snapshot = never != 0))
}
