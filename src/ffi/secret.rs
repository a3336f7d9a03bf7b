//! Secrets, and sealing them.

use std::ffi::c_char;

use super::convert::{Out, OutArray, OutText, read_bytes, read_path, read_text};
use super::failure::FfiResult;
use super::guard::{free, guard};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use crate::secret::{SealingKey, Secret};

/// A secret: a name, and a value of 1 byte to 64 KiB in memory that is locked, is in no core dump and in no child process, and is zeroed when
/// it is freed. Made by vmcell_secret_new, vmcell_secret_new_from_file, vmcell_host_key_open, vmcell_secret_store_get and vmcell_secret_store_get_all; freed by
/// vmcell_secret_free. Any thread may make any call.
pub struct SecretObject(pub(super) Secret);

impl Object for SecretObject {
    const NAME: &'static str = "vmcell_secret";
}

/// A place for bytes: they are written if all of them fit, and their number in any case.
pub(super) struct OutBytes {
    buffer: OutArray<u8>,
    length: Out<usize>,
}

impl OutBytes {
    /// # Safety
    /// `buffer` is NULL, which is refused unless `capacity` is 0, or nothing else uses that many bytes until the call returns; `length` is
    /// NULL, which is refused, or nothing else uses the place until then.
    pub(super) unsafe fn new(buffer: *mut u8, capacity: usize, length: *mut usize) -> FfiResult<Self> {
        // SAFETY: the caller promises the same.
        let (buffer, length) = unsafe { (OutArray::new(buffer, capacity, "buffer")?, Out::new(length, "length")?) };
        Ok(Self { buffer, length })
    }

    pub(super) fn write(self, bytes: &[u8]) {
        if bytes.len() <= self.buffer.capacity() {
            self.buffer.write(bytes);
        }
        self.length.write(bytes.len());
    }
}

/// Makes a secret of `len` bytes, which are copied: the caller zeroes its own. A name has 1 to 255 ASCII letters, digits, '_', '-' and '.', and
/// does not begin with a dot. Never blocks.
///
/// Errors: SECRET for another name or length, or if the process may not lock so much memory (RLIMIT_MEMLOCK).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_new(
    name: *const c_char,
    value: *const u8,
    len: usize,
    secret: *mut *mut SecretObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let secret = unsafe { Out::new(secret, "secret") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL, and so many bytes.
        let (name, value) = unsafe { (read_text(name, "name")?, read_bytes(value, len, "value")?) };
        secret.insert(SecretObject(Secret::new(&name, value)?))
    })
}

/// Makes a secret of all that is in a file, of a line's end as well. Blocks while it reads.
///
/// Errors: SECRET if the file cannot be read, and as for vmcell_secret_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_new_from_file(
    name: *const c_char,
    path: *const c_char,
    secret: *mut *mut SecretObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let secret = unsafe { Out::new(secret, "secret") }?;
        // SAFETY: the header demands NULL or texts that end with a NUL.
        let (name, path) = unsafe { (read_text(name, "name")?, read_path(path, "path")?) };
        secret.insert(SecretObject(Secret::file(&name, path)?))
    })
}

/// Writes what the secret is called, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it needs without the
/// NUL, at most 255. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_name(
    secret: *const SecretObject,
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
        out.write(objects::get(secret)?.0.name());
        Ok(())
    })
}

/// Copies the value into `buffer` of `capacity` bytes, if it fits; `length` is set to how many bytes it has. The caller zeroes its copy. Never
/// blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_value(
    secret: *const SecretObject,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutBytes::new(buffer, capacity, length) }?;
        out.write(objects::get(secret)?.0.expose());
        Ok(())
    })
}

/// Zeroes a secret and frees it. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_secret_free(secret: *mut SecretObject) -> i32 {
    free(secret, drop)
}

/// Seals a secret to the owner of `sealing_key`, the text of a public key, and writes it into `buffer` of `capacity` bytes, if it fits; `length` is set
/// to how many bytes it has: those of the value and at most 1,686 more. It opens only for the same application and version (1 to 2^53 - 1) and
/// under the secret's name. Random: each call writes other bytes. Never blocks.
///
/// Errors: SECRET for what is no such key, for an application whose name no secret could have, and for another version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_seal(
    secret: *const SecretObject,
    sealing_key: *const c_char,
    application: *const c_char,
    version: u64,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutBytes::new(buffer, capacity, length) }?;
        // SAFETY: the header demands NULL or texts that end with a NUL.
        let (key, application) = unsafe { (read_sealing_key(sealing_key)?, read_text(application, "application")?) };
        let secret = objects::get(secret)?;
        out.write(key.seal(&secret.0, &application, version)?.as_bytes());
        Ok(())
    })
}

/// # Safety
/// `text` is NULL, which is refused, or points to bytes that end with a NUL and stay as they are until the call returns.
pub(super) unsafe fn read_sealing_key(text: *const c_char) -> FfiResult<SealingKey> {
    // SAFETY: the caller promises the same.
    let text = unsafe { read_text(text, "sealing_key") }?;
    Ok(text.parse::<SealingKey>()?)
}
