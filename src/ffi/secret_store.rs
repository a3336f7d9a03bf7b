//! Files with sealed secrets.

use std::ffi::c_char;

use super::convert::{Out, OutArray, OutText, read_bytes, read_handles, read_path, read_text};
use super::failure::FfiResult;
use super::guard::{free, guard};
use super::host_key::HostKeyObject;
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::secret::{SecretObject, read_sealing_key};
use crate::secret::{SealedSecret, SecretStore};

/// The sealed secrets of one application, in one file. Any number of threads and processes may change and read it at the same time; a change
/// replaces the file at once, and is on storage when the call returns. All calls block while they read and write. Made by
/// vmcell_secret_store_new; freed by vmcell_secret_store_free. Any thread may make any call.
pub struct SecretStoreObject(SecretStore);

impl Object for SecretStoreObject {
    const NAME: &'static str = "vmcell_secret_store";
}

/// Makes an empty store in a new file that nobody else may read (mode 0600). The name of an application follows the rules for those of
/// secrets, and that of the file has at most 250 bytes.
///
/// Errors: SECRET for another name, or if the file exists, which is left alone, or cannot be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_store_create(
    path: *const c_char,
    application: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or texts that end with a NUL.
        let (path, application) = unsafe { (read_path(path, "path")?, read_text(application, "application")?) };
        Ok(SecretStore::create(path, &application).map(drop)?)
    })
}

/// Opens the store of an application. If its file is at a lower revision than `at_least`, now or later, an older copy was put back, and it is
/// refused; 0 for no such bound.
///
/// Errors: SECRET if the file cannot be read, is damaged, is no store, older than that, or another application's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_store_new(
    path: *const c_char,
    application: *const c_char,
    at_least: u64,
    store: *mut *mut SecretStoreObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let store = unsafe { Out::new(store, "store") }?;
        // SAFETY: the header demands NULL or texts that end with a NUL.
        let (path, application) = unsafe { (read_path(path, "path")?, read_text(application, "application")?) };
        let opened = SecretStore::open(path, &application)?.at_least(at_least);
        opened.list()?;
        store.insert(SecretStoreObject(opened))
    })
}

/// Seals `count` secrets to the owner of `sealing_key`, the text of a public key, and puts each in the place of the one of its name, all at
/// once. `version` is set to their version, unless it is NULL.
///
/// Errors: SECRET for what is no such key, if two secrets have the same name, there is no room (1024 secrets, 16 MiB), or the file cannot be
/// read or written: then it is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_store_set(
    store: *const SecretStoreObject,
    sealing_key: *const c_char,
    secrets: *const *const SecretObject,
    count: usize,
    version: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL, and that many handles.
        let (key, handles) = unsafe { (read_sealing_key(sealing_key)?, read_handles(secrets, count, "secrets")?) };
        let secrets = handles.into_iter().map(objects::get).collect::<FfiResult<Vec<_>>>()?;
        let secrets: Vec<_> = secrets.iter().map(|secret| &secret.0).collect();
        let set = objects::get(store)?.0.set_all(&key, &secrets)?;
        // SAFETY: the header demands NULL or a place for the result.
        unsafe { write_number(version, set) };
        Ok(())
    })
}

/// Puts `len` bytes that vmcell_secret_seal wrote in the place of the secret of their name. Their version must be one more than the store's
/// revision.
///
/// Errors: SECRET if they are of another application or version, and as for vmcell_secret_store_set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_store_put(
    store: *const SecretStoreObject,
    sealed: *const u8,
    len: usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes.
        let sealed = SealedSecret::from_bytes(unsafe { read_bytes(sealed, len, "sealed") }?)?;
        Ok(objects::get(store)?.0.put(&sealed)?)
    })
}

/// Takes a secret out. `revision` is set to the store's without it, unless it is NULL.
///
/// Errors: SECRET if there is none of this name, or the file cannot be read or written: then it is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_store_unset(
    store: *const SecretStoreObject,
    name: *const c_char,
    revision: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let name = unsafe { read_text(name, "name") }?;
        let without = objects::get(store)?.0.unset(&name)?;
        // SAFETY: the header demands NULL or a place for the result.
        unsafe { write_number(revision, without) };
        Ok(())
    })
}

/// Opens all secrets by `from` and seals them to the owner of `to`, the text of a public key, at once. `version` is set to the version that all
/// have then, unless it is NULL.
///
/// Errors: SECRET if one of them is not opened by `from`, and as for vmcell_secret_store_set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_store_reseal(
    store: *const SecretStoreObject,
    from: *const HostKeyObject,
    to: *const c_char,
    version: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let to = unsafe { read_sealing_key(to) }?;
        let (store, from) = (objects::get(store)?, objects::get(from)?);
        let sealed = store.0.reseal(&from.0, &to)?;
        // SAFETY: the header demands NULL or a place for the result.
        unsafe { write_number(version, sealed) };
        Ok(())
    })
}

/// Writes which secrets there are, as JSON with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it needs
/// without the NUL. Its fields are `application`, `revision`, and `secrets` (a list of `name`, `version`, `suite`, `sealed_to`, `value_len` and `digest`, which is of the sealed bytes).
///
/// Errors: SECRET if the file cannot be read, is damaged, older than it was, or another application's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_store_list(
    store: *const SecretStoreObject,
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
        out.write(&objects::get(store)?.0.list()?.to_json());
        Ok(())
    })
}

/// Opens the secret of this name, if it is of `version`; 0 for any.
///
/// Errors: SECRET if there is none, it is of another version, or is not opened by the key, and as for vmcell_secret_store_list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_store_get(
    store: *const SecretStoreObject,
    key: *const HostKeyObject,
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
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let name = unsafe { read_text(name, "name") }?;
        let (store, key) = (objects::get(store)?, objects::get(key)?);
        let opened =
            if version == 0 { store.0.get(&key.0, &name) } else { store.0.get_version(&key.0, &name, version) };
        secret.insert(SecretObject(opened?))
    })
}

/// Opens all secrets, in the order of their names: those of one moment. Writes them into `secrets`, if there are no more than `capacity`; otherwise none is
/// made. `count` is set to how many there are, at most 1024.
///
/// Errors: SECRET if one of them is not opened by the key, and as for vmcell_secret_store_list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_secret_store_get_all(
    store: *const SecretStoreObject,
    key: *const HostKeyObject,
    secrets: *mut *mut SecretObject,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many places, and one for the count.
        let (places, count) = unsafe { (OutArray::new(secrets, capacity, "secrets")?, Out::new(count, "count")?) };
        let (store, key) = (objects::get(store)?, objects::get(key)?);
        let opened = store.0.get_all(&key.0)?;
        let there = opened.len();
        if there <= places.capacity() {
            let mut handles = Vec::with_capacity(there);
            for secret in opened {
                let made = objects::insert(SecretObject(secret)).inspect_err(|_| drop_all(&handles))?;
                handles.push(made);
            }
            places.write(&handles);
        }
        count.write(there);
        Ok(())
    })
}

fn drop_all(handles: &[*mut SecretObject]) {
    handles.iter().for_each(|handle| _ = free(*handle, drop));
}

/// Closes a store and frees it. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_secret_store_free(store: *mut SecretStoreObject) -> i32 {
    free(store, drop)
}

/// # Safety
/// `place` is NULL, or nothing else uses the place until the call returns.
unsafe fn write_number(place: *mut u64, number: u64) {
    // SAFETY: the caller promises the same.
    if let Ok(place) = unsafe { Out::new(place, "") } {
        place.write(number);
    }
}
