//! Work on encrypted volumes that takes long: it tells how far it is, and may be broken off.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::convert::{Out, choice, read_path};
use super::failure::FfiResult;
use super::guard::guard;
use super::objects;
use super::report::{ErrorObject, Report};
use super::volume::KeyObject;
use crate::volume::{Key, OtherForks, Volume, VolumeProgress};

/// The commit is refused, unless the base's header says that this is the only fork that was ever made over it.
pub const VMCELL_OTHER_FORKS_REFUSE: i32 = 0;
/// The caller vouches that there are none any more. If there is one, it is refused from the commit on.
pub const VMCELL_OTHER_FORKS_GIVE_UP: i32 = 1;

const OTHERS: [(i32, OtherForks); 2] =
    [(VMCELL_OTHER_FORKS_REFUSE, OtherForks::Refuse), (VMCELL_OTHER_FORKS_GIVE_UP, OtherForks::GiveUp)];

/// Is told how far work on a volume has come: `done` of `total` bytes of its disk. Called each MiB, on the calling thread. Returns 0 to go on, anything
/// else to break off. It must not unwind: no C++ exception, no longjmp.
pub type VolumeProgressCall = Option<unsafe extern "C" fn(user: *mut c_void, done: u64, total: u64) -> i32>;

/// Copies what a fork has from the volumes that it builds on into its own file, so that it builds on none. `key` opens it; no VM may use it meanwhile.
/// `progress` is called with `user`, unless it is NULL. `is_done` gets 0 if that has broken off, else 1, unless it is NULL. The fork is as good as before
/// then, and after an error or a crash; flattening it again goes on where this has stopped. Blocks while it reads and writes.
///
/// Errors: VOLUME if it builds on no other volume, or data cannot be read or written; VOLUME_KEY; DISK if it is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_flatten(
    path: *const c_char,
    key: *const KeyObject,
    progress: VolumeProgressCall,
    user: *mut c_void,
    is_done: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands what is asked for here.
        unsafe {
            work(path, key, (progress, user), is_done, |path, key, progress| Volume::flatten(path, key, progress))
        }
    })
}

/// Copies a volume, with all that it builds on, to a new file at `to`: a volume of its own, opened by `new_key`, which cryptsetup opens as well. No VM may write
/// to the old one meanwhile. `progress`, `user` and `is_done` are as in vmcell_volume_flatten; if this is broken off or fails, there is no new file.
/// Blocks while it reads and writes.
///
/// Errors: VOLUME if the new file exists or cannot be written, or data cannot be read; VOLUME_KEY; DISK if the old one is in use for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_flatten_to(
    path: *const c_char,
    key: *const KeyObject,
    to: *const c_char,
    new_key: *const KeyObject,
    progress: VolumeProgressCall,
    user: *mut c_void,
    is_done: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let to = unsafe { read_path(to, "to") }?;
        let new_key = objects::get(new_key)?;
        // SAFETY: the header demands what is asked for here.
        unsafe {
            work(path, key, (progress, user), is_done, |path, key, progress| {
                Volume::flatten_to(path, key, to, new_key.key(), progress)
            })
        }
    })
}

/// Takes what the base of a fork has into the fork, also while VMs read both, but not while one writes to the fork: a new file with the data of both is
/// written at `new_path`, in the fork's folder, and then renamed to the fork's name. It builds on what the base builds on, or on nothing, and opens by the same
/// keys; the base is as it was, and may be removed once nothing else builds on it. A VM that has opened the chain before goes on with the files that
/// were there until vmcell_volume_handle_reopen. `progress`, `user` and `is_done` are as in vmcell_volume_flatten; if this is broken off or fails,
/// nothing has changed. After a crash, the chain is as it was or as it was to be, and there may be a file at `new_path`. Blocks while it reads and writes.
///
/// Errors: VOLUME if it builds on no other volume, it is a block device, `new_path` exists or is elsewhere, or data cannot be read or written; VOLUME_KEY; DISK
/// if the fork is in use for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_absorb(
    path: *const c_char,
    key: *const KeyObject,
    new_path: *const c_char,
    progress: VolumeProgressCall,
    user: *mut c_void,
    is_done: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let new = unsafe { read_path(new_path, "new_path") }?;
        // SAFETY: the header demands what is asked for here.
        unsafe {
            work(path, key, (progress, user), is_done, |path, key, progress| Volume::absorb(path, key, new, progress))
        }
    })
}

/// Writes a fork's changes into its base, which then may be written to, and removes the fork's file. `key` opens the fork; no VM may use either
/// meanwhile. `others` is one of VMCELL_OTHER_FORKS_*: other forks of the base would see data that are not theirs, so they are refused from then on. `progress`, `user`
/// and `is_done` are as in vmcell_volume_flatten. If this is broken off or fails, and after a crash, the fork has all data as before, and works; the base
/// opens alone no longer until the fork is committed again, which begins anew. Blocks while it reads and writes.
///
/// Errors: VOLUME if it builds on no other volume, others build on it, there may be other forks of its base, or data cannot be read or written; VOLUME_KEY; DISK if
/// either is in use; BAD_VALUE for another number of `others`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_commit(
    path: *const c_char,
    key: *const KeyObject,
    others: i32,
    progress: VolumeProgressCall,
    user: *mut c_void,
    is_done: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let others = choice("others", others, &OTHERS)?;
        // SAFETY: the header demands what is asked for here.
        unsafe {
            work(path, key, (progress, user), is_done, |path, key, progress| {
                Volume::commit(path, key, others, progress)
            })
        }
    })
}

/// Makes a fork larger, to `size` bytes; what is added is zeroes. `key` opens it. No VM may use it meanwhile:
/// vmcell_volume_handle_grow is for one in use, vmcell_volume_grow for volumes that are no forks. Blocks while it writes a new map, of 256 KiB for each GiB.
///
/// Errors: VOLUME if it is no fork, has more room already, `size` is no multiple of 4096 or too large, or the file cannot grow; VOLUME_KEY; DISK if it is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_grow_fork(
    path: *const c_char,
    key: *const KeyObject,
    size: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        Ok(Volume::grow_fork(path, objects::get(key)?.key(), size)?)
    })
}

type Told<'a> = &'a mut dyn FnMut(VolumeProgress) -> ControlFlow<()>;

/// # Safety
/// `path` is NULL or a text that ends with a NUL, `progress` may be called with its second part until this returns, and `is_done` is NULL or a place for
/// a number.
unsafe fn work(
    path: *const c_char,
    key: *const KeyObject,
    (progress, user): (VolumeProgressCall, *mut c_void),
    is_done: *mut i32,
    work: impl FnOnce(PathBuf, &Key, Told<'_>) -> crate::error::Result<bool>,
) -> FfiResult<()> {
    // SAFETY: the caller vouches for it.
    let path = unsafe { read_path(path, "path") }?;
    let key = objects::get(key)?;
    let mut tell = |now: VolumeProgress| match progress {
        // SAFETY: the caller vouches for it.
        Some(call) if unsafe { call(user, now.done, now.total) } != 0 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let done = work(path, key.key(), &mut tell)?;
    if !is_done.is_null() {
        // SAFETY: the caller vouches for it.
        unsafe { Out::new(is_done, "is_done") }?.write(i32::from(done));
    }
    Ok(())
}
