//! Encrypted volumes, and what opens them.

use std::ffi::c_char;
use std::path::PathBuf;

use super::convert::{Out, OutText, choice, read_bytes, read_path, read_text};
use super::disk::{DiskObject, ENGINES};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE};
use super::guard::{free, guard};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use crate::config::DiskConfig;
use crate::volume::{Key, Volume, VolumeFormat, VolumeOptions};

/// A passphrase: its key slot takes a tenth of a second and 64 MiB to open (argon2id).
pub const VMCELL_KEY_PASSPHRASE: i32 = 0;
/// At least 32 bytes that the caller vouches are random: the key slot takes milliseconds to open.
pub const VMCELL_KEY_RANDOM: i32 = 1;
/// The key of the data itself, 32 or 64 bytes, which needs no key slot.
pub const VMCELL_KEY_OF_DATA: i32 = 2;

/// The guest may only read.
pub const VMCELL_VOLUME_READ_ONLY: u32 = 1;
/// The guest may give space back, which shows whoever has the file what is not in use.
pub const VMCELL_VOLUME_DISCARD: u32 = 2;
/// Data go past the host's page cache (O_DIRECT).
pub const VMCELL_VOLUME_DIRECT: u32 = 4;

const ALL_FLAGS: u32 = VMCELL_VOLUME_READ_ONLY | VMCELL_VOLUME_DISCARD | VMCELL_VOLUME_DIRECT;

type MakeKey = fn(&[u8]) -> crate::error::Result<Key>;

const KINDS: [(i32, MakeKey); 3] =
    [(VMCELL_KEY_PASSPHRASE, Key::passphrase), (VMCELL_KEY_RANDOM, Key::random), (VMCELL_KEY_OF_DATA, Key::of_data)];

/// What opens encrypted volumes. Its bytes lie in memory that is locked, is in no core dump and in no child process, and is zeroed when it
/// is freed. Made by vmcell_key_new and vmcell_key_new_from_file; freed by vmcell_key_free. Any thread may make any call.
pub struct KeyObject(Key);

impl KeyObject {
    pub(super) fn key(&self) -> &Key {
        &self.0
    }
}

impl Object for KeyObject {
    const NAME: &'static str = "vmcell_key";
}

/// Makes a key of `len` bytes, at most 64 KiB, which are copied: the caller zeroes its own. `kind` is one of VMCELL_KEY_*. Never blocks.
///
/// Errors: BAD_VALUE for another kind; VOLUME for another length, or if the process may not lock so much memory (RLIMIT_MEMLOCK).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_key_new(
    kind: i32,
    bytes: *const u8,
    len: usize,
    key: *mut *mut KeyObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let key = unsafe { Out::new(key, "key") }?;
        // SAFETY: the header demands so many bytes.
        let bytes = unsafe { read_bytes(bytes, len, "bytes") }?;
        let make = choice("kind", kind, &KINDS)?;
        key.insert(KeyObject(make(bytes)?))
    })
}

/// Makes a key of all that is in a file, of a line's end as well. `kind` is VMCELL_KEY_PASSPHRASE or VMCELL_KEY_RANDOM. Blocks while it reads.
///
/// Errors: BAD_VALUE for another kind; VOLUME if the file cannot be read, and as for vmcell_key_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_key_new_from_file(
    kind: i32,
    path: *const c_char,
    key: *mut *mut KeyObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let key = unsafe { Out::new(key, "key") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        let is_random = choice("kind", kind, &[(VMCELL_KEY_PASSPHRASE, false), (VMCELL_KEY_RANDOM, true)])?;
        key.insert(KeyObject(if is_random { Key::random_file(path) } else { Key::file(path) }?))
    })
}

/// Zeroes a key and frees it. Volumes that it has opened stay open. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_key_free(key: *mut KeyObject) -> i32 {
    free(key, drop)
}

/// Creates an encrypted volume (LUKS2, AES-XTS) for `size` bytes of data, a multiple of its sectors, in a new file that nobody else may
/// read, with a key slot for `key`. `label` is a name for people, or NULL. `sector_size` is 512, 1024, 2048 or 4096, or 0 for the default of 4096.
/// `header_path` is where the header goes, or NULL for the front of the volume's file. Takes as long as a key slot of that kind takes to open; the file is
/// on storage when it returns.
///
/// Errors: VOLUME if the file exists, which is left alone, or cannot be written, and for a size or a setting that is not allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_create(
    path: *const c_char,
    size: u64,
    key: *const KeyObject,
    label: *const c_char,
    sector_size: usize,
    header_path: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let mut format = VolumeFormat::new();
        // SAFETY: the header demands NULL or texts that end with a NUL.
        let path = unsafe {
            if !label.is_null() {
                format = format.label(read_text(label, "label")?);
            }
            if !header_path.is_null() {
                format = format.header(read_path(header_path, "header_path")?);
            }
            read_path(path, "path")?
        };
        if sector_size != 0 {
            format = format.sector_size(sector_size);
        }
        let key = objects::get(key)?;
        Ok(Volume::create_with(path, size, &key.0, &format)?)
    })
}

/// Makes the block device at `path` an encrypted volume, as large as the device but for the 16 MiB in front. What was on it is lost. `label` and
/// `sector_size` are as in vmcell_volume_create.
///
/// Errors: DISK if the device is mounted or in use otherwise; VOLUME if it is no block device, is too small, or cannot be written, and for a setting
/// that is not allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_format_device(
    path: *const c_char,
    key: *const KeyObject,
    label: *const c_char,
    sector_size: usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let mut format = VolumeFormat::new();
        // SAFETY: the header demands NULL or texts that end with a NUL.
        let path = unsafe {
            if !label.is_null() {
                format = format.label(read_text(label, "label")?);
            }
            read_path(path, "path")?
        };
        if sector_size != 0 {
            format = format.sector_size(sector_size);
        }
        Ok(Volume::format_device(path, &objects::get(key)?.0, &format)?)
    })
}

/// Opens an encrypted volume and makes a disk of it, whose file is locked from now on. `header_path` is where the header is, or NULL for
/// the front of the volume's file. `flags` is a sum of VMCELL_VOLUME_*, `engine` one of VMCELL_ENGINE_*. The disk takes its other settings as
/// any disk does, but its engine, direct I/O, and whether it is read-only stay as they are here. Takes as long as the key slot costs.
///
/// Errors: VOLUME_KEY if no key slot is opened by the key; VOLUME if the file is no volume, is damaged, or uses what is not known, which is
/// named; DISK if the file cannot be opened, or is in use; BAD_VALUE for other flags or another engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_new_volume(
    path: *const c_char,
    key: *const KeyObject,
    header_path: *const c_char,
    flags: u32,
    engine: i32,
    disk: *mut *mut DiskObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let disk = unsafe { Out::new(disk, "disk") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let mut config = DiskConfig::new(unsafe { read_path(path, "path") }?);
        if flags & !ALL_FLAGS != 0 {
            let message = format!("flags are {flags:#x}, allowed are sums of VMCELL_VOLUME_*, up to {ALL_FLAGS:#x}");
            return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message));
        }
        config.read_only = flags & VMCELL_VOLUME_READ_ONLY != 0;
        config.direct = flags & VMCELL_VOLUME_DIRECT != 0;
        config.engine = choice("engine", engine, &ENGINES)?;
        let mut options = VolumeOptions::new(config).discard(flags & VMCELL_VOLUME_DISCARD != 0);
        if !header_path.is_null() {
            // SAFETY: as above.
            options = options.header(unsafe { read_path(header_path, "header_path") }?);
        }
        let key = objects::get(key)?;
        disk.insert(DiskObject::on_volume(Volume::open_with(options, &key.0)?))
    })
}

/// Writes what a volume's header tells without a key, as JSON with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length`
/// is set to what it needs without the NUL. Its fields are `uuid`, `label`, `cipher`, `sector_size`, `data_offset`, `capacity`, `is_fork`, `is_base`, `slots` (a list of
/// `number` and `opened_by`), and `header_problem`. Blocks while it reads.
///
/// Errors: VOLUME if it is no volume, or is damaged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_info(
    path: *const c_char,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutText::new(buffer, capacity, length) }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        out.write(&Volume::inspect(path)?.to_json());
        Ok(())
    })
}

/// Creates a volume in the new file `path` that begins as the one at `base`, which `base_key` opens, and takes space only for what is
/// changed in it. It has a key slot for `key`, which opens it with all that it builds on. From now on, until vmcell_volume_release, the base may only be
/// read. Takes as long as both key slots cost.
///
/// Errors: those of vmcell_volume_create and vmcell_disk_new_volume; DISK also if the base is in use for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_fork(
    base: *const c_char,
    base_key: *const KeyObject,
    path: *const c_char,
    key: *const KeyObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or texts that end with a NUL.
        let (base, path) = unsafe { (read_path(base, "base")?, read_path(path, "path")?) };
        let (base_key, key) = (objects::get(base_key)?, objects::get(key)?);
        Ok(Volume::fork(base, &base_key.0, path, &key.0)?)
    })
}

/// Lets a base be written to again. The caller vouches that no volume builds on it any more: one that does is refused from now on.
///
/// Errors: VOLUME if it is no volume, or its header cannot be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_release(base: *const c_char, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let base = unsafe { read_path(base, "base") }?;
        Ok(Volume::release(base)?)
    })
}

/// Makes a volume's file longer, so that it has room for `size` bytes of data. If it is in use, vmcell_disk_handle_refresh tells its guest;
/// vmcell_volume_handle_grow does both.
///
/// Errors: VOLUME if it has more room already, the size is no multiple of its sectors, it is a fork, its header is elsewhere, or the file cannot
/// grow.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_grow(path: *const c_char, size: u64, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        Ok(Volume::grow(path, size)?)
    })
}

/// Adds a key slot for `new_key` to the volume or the detached header at `path`, which may be in use. `with` opens it already. `slot` gets the number of the
/// key slot, 0 to 31, unless it is NULL. Takes as long as both key slots take to open.
///
/// Errors: VOLUME_KEY if `with` opens no key slot; VOLUME if none is free, or the header cannot be read or written: then it is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_add_key(
    path: *const c_char,
    with: *const KeyObject,
    new_key: *const KeyObject,
    slot: *mut u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    // SAFETY: the header demands what is asked for here.
    guard(report, || unsafe {
        with_two_keys(path, [with, new_key], slot, |path, with, new| Volume::keys(path)?.add(with, new))
    })
}

/// Puts `new_key` in the place of `old_key`, in the volume or the detached header at `path`, which may be in use. At any moment one of them
/// opens it. `slot` gets the number of the new key slot, unless it is NULL.
///
/// Errors: those of vmcell_volume_add_key and vmcell_volume_remove_key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_change_key(
    path: *const c_char,
    old_key: *const KeyObject,
    new_key: *const KeyObject,
    slot: *mut u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    // SAFETY: the header demands what is asked for here.
    guard(report, || unsafe {
        with_two_keys(path, [old_key, new_key], slot, |path, old, new| Volume::keys(path)?.change(old, new))
    })
}

/// Overwrites a key slot of the volume or the detached header at `path` and takes it out, also while the volume is in use.
///
/// Errors: VOLUME if there is no such key slot, it is the last one, or the header cannot be read or written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_remove_key(path: *const c_char, slot: u32, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        Ok(Volume::keys(path)?.remove(slot)?)
    })
}

/// Copies the header at `path` and its key slots to a new file, as `cryptsetup luksHeaderBackup` does.
///
/// Errors: VOLUME if the file exists or cannot be written, or the header cannot be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_back_up_header(
    path: *const c_char,
    to: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    // SAFETY: the header demands what is asked for here.
    guard(report, || unsafe { with_two_paths([path, to], "to", |path, to| Volume::keys(path)?.back_up(to)) })
}

/// Puts a header back that was copied before: the keys of that moment open the volume again, and later ones no longer.
///
/// Errors: VOLUME if the file is no header or another volume's, or this one cannot be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_restore_header(
    path: *const c_char,
    from: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    // SAFETY: the header demands what is asked for here.
    guard(report, || unsafe { with_two_paths([path, from], "from", Volume::restore_header) })
}

/// # Safety
/// `path` is NULL or a text that ends with a NUL, and `slot` is NULL or a place for a number.
unsafe fn with_two_keys(
    path: *const c_char,
    [one, other]: [*const KeyObject; 2],
    slot: *mut u32,
    change: impl FnOnce(PathBuf, &Key, &Key) -> crate::error::Result<u32>,
) -> FfiResult<()> {
    // SAFETY: the caller vouches for it.
    let path = unsafe { read_path(path, "path") }?;
    let (one, other) = (objects::get(one)?, objects::get(other)?);
    let number = change(path, &one.0, &other.0)?;
    if !slot.is_null() {
        // SAFETY: the caller vouches for it.
        unsafe { Out::new(slot, "slot") }?.write(number);
    }
    Ok(())
}

/// # Safety
/// The paths are NULL or texts that end with a NUL.
unsafe fn with_two_paths(
    [path, other]: [*const c_char; 2],
    name: &str,
    work: impl FnOnce(PathBuf, PathBuf) -> crate::error::Result<()>,
) -> FfiResult<()> {
    // SAFETY: the caller vouches for it.
    let (path, other) = unsafe { (read_path(path, "path")?, read_path(other, name)?) };
    Ok(work(path, other)?)
}
