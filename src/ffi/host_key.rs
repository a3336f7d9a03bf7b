//! Keys of hosts, which open what is sealed to them.

use std::ffi::c_char;

use super::convert::{Out, OutText, choice, read_bytes, read_path, read_text};
use super::guard::{free, guard};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::secret::SecretObject;
use crate::secret::{HostKey, SealedSecret, Suite};

/// X25519, HKDF-SHA256, ChaCha20-Poly1305 (RFC 9180).
pub const VMCELL_SUITE_X25519: i32 = 0;
/// X-Wing in the place of X25519: what is sealed stays so if that falls to a quantum computer.
pub const VMCELL_SUITE_X_WING: i32 = 1;

const SUITES: [(i32, Suite); 2] = [(VMCELL_SUITE_X25519, Suite::X25519), (VMCELL_SUITE_X_WING, Suite::XWing)];

/// The private key of a host: it opens what was sealed to it. It lies in memory that is locked, is in no core dump and in no child process, and
/// is zeroed when it is freed. Made by vmcell_host_key_new and vmcell_host_key_new_from_file; freed by vmcell_host_key_free. Any thread
/// may make any call if its stack has 320 KiB left, which also goes for sealing and for stores: the calls zero what they have used of it.
pub struct HostKeyObject(pub(super) HostKey);

impl Object for HostKeyObject {
    const NAME: &'static str = "vmcell_host_key";
}

/// Makes a new key. `suite` is one of VMCELL_SUITE_*. If `bytes` is not NULL, it is the key of these 32 bytes, which are copied, instead of a random
/// one. Never blocks.
///
/// Errors: BAD_VALUE for another suite; SECRET for another length, or if the process may not lock so much memory (RLIMIT_MEMLOCK).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_host_key_new(
    suite: i32,
    bytes: *const u8,
    len: usize,
    key: *mut *mut HostKeyObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let key = unsafe { Out::new(key, "key") }?;
        let suite = choice("suite", suite, &SUITES)?;
        let made = if bytes.is_null() && len == 0 {
            HostKey::generate_for(suite)?
        } else {
            // SAFETY: the header demands so many bytes.
            HostKey::from_bytes(suite, unsafe { read_bytes(bytes, len, "bytes") }?)?
        };
        key.insert(HostKeyObject(made))
    })
}

/// Reads a key from a file that vmcell_host_key_save has written. Blocks while it reads.
///
/// Errors: SECRET if it cannot be read or is no host key, and if users other than its owner may change it, or any but its owner and group may read
/// it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_host_key_new_from_file(
    path: *const c_char,
    key: *mut *mut HostKeyObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let key = unsafe { Out::new(key, "key") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        key.insert(HostKeyObject(HostKey::file(path)?))
    })
}

/// Writes a key to a new file that nobody else may read (mode 0600), and that is on storage when the call returns.
///
/// Errors: SECRET if the file exists, which is left alone, or cannot be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_host_key_save(
    key: *const HostKeyObject,
    path: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        Ok(objects::get(key)?.0.save(path)?)
    })
}

/// Writes the text of the public half, which others need to seal secrets to this host, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits;
/// `length` is set to what it needs without the NUL, at most 1,700. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_host_key_sealing_key(
    key: *const HostKeyObject,
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
        out.write(&objects::get(key)?.0.sealing_key().to_string());
        Ok(())
    })
}

/// Opens `len` bytes that vmcell_secret_seal wrote, if they are what the caller takes them for. Never blocks.
///
/// Errors: SECRET, which names what is not as it should be, if they were sealed for another application, under another name, as another
/// version, to another key, or were changed since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_host_key_open(
    key: *const HostKeyObject,
    sealed: *const u8,
    len: usize,
    application: *const c_char,
    name: *const c_char,
    version: u64,
    secret: *mut *mut SecretObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let secret = unsafe { Out::new(secret, "secret") }?;
        // SAFETY: the header demands so many bytes.
        let sealed = SealedSecret::from_bytes(unsafe { read_bytes(sealed, len, "sealed") }?)?;
        // SAFETY: the header demands NULL or texts that end with a NUL.
        let (application, name) = unsafe { (read_text(application, "application")?, read_text(name, "name")?) };
        let key = objects::get(key)?;
        secret.insert(SecretObject(key.0.open(&sealed, &application, &name, version)?))
    })
}

/// Zeroes a key and frees it. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_host_key_free(key: *mut HostKeyObject) -> i32 {
    free(key, drop)
}
