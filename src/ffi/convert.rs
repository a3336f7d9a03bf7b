//! From C callers' pointers to values, and back.

use std::ffi::{CStr, OsStr, c_char};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::failure::{
    Failure, FfiResult, VMCELL_ERROR_BAD_DESCRIPTOR, VMCELL_ERROR_BAD_VALUE, VMCELL_ERROR_NOT_UTF8,
    VMCELL_ERROR_NULL_ARGUMENT,
};
use super::objects::{self, Object};
use crate::sys::is_open;

/// A place for a result, written once the call has succeeded.
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `place` is NULL, which is refused, or nothing else uses the place until the call returns.
    pub(super) unsafe fn new(place: *mut T, name: &str) -> FfiResult<Self> {
        if place.is_null() { Err(null(name)) } else { Ok(Self(place)) }
    }

    pub(super) fn write(self, value: T) {
        // SAFETY: `new` demanded a place that can be written to.
        unsafe { self.0.write(value) };
    }
}

impl<T: Object> Out<*mut T> {
    /// Makes an object and writes its handle.
    pub(super) fn insert(self, object: T) -> FfiResult<()> {
        self.write(objects::insert(object)?);
        Ok(())
    }
}

fn null(name: &str) -> Failure {
    Failure::new(VMCELL_ERROR_NULL_ARGUMENT, format!("{name} is NULL"))
}

/// # Safety
/// `text` is NULL, which is refused, or points to bytes that end with a NUL and stay as they are until the call returns.
unsafe fn bytes_until_nul<'a>(text: *const c_char, name: &str) -> FfiResult<&'a [u8]> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL, and the caller's promise for the rest.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// # Safety
/// `text` is NULL, which is refused, or points to bytes that end with a NUL and stay as they are until the call returns.
pub(super) unsafe fn read_text(text: *const c_char, name: &str) -> FfiResult<String> {
    // SAFETY: the caller promises the same.
    let bytes = unsafe { bytes_until_nul(text, name) }?;
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(e) => {
            Err(Failure::new(VMCELL_ERROR_NOT_UTF8, format!("{name} is not UTF-8 from byte {} on", e.valid_up_to())))
        }
    }
}

/// # Safety
/// `path` is NULL, which is refused, or points to bytes that end with a NUL and stay as they are until the call returns.
pub(super) unsafe fn read_path(path: *const c_char, name: &str) -> FfiResult<PathBuf> {
    // SAFETY: the caller promises the same.
    let bytes = unsafe { bytes_until_nul(path, name) }?;
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// # Safety
/// `bytes` is NULL, which is refused unless `len` is 0, or points to `len` bytes that stay as they are until the call
/// returns.
pub(super) unsafe fn read_bytes<'a>(bytes: *const u8, len: usize, name: &str) -> FfiResult<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if bytes.is_null() {
        return Err(null(name));
    }
    if isize::try_from(len).is_err() {
        return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, format!("{name} is said to have {len} bytes")));
    }
    // SAFETY: not NULL, not longer than objects can be, and the caller's promise for the rest.
    Ok(unsafe { std::slice::from_raw_parts(bytes, len) })
}

/// # Safety
/// The caller gives the descriptor away, if it is open.
pub(super) unsafe fn take_fd(fd: i32, name: &str) -> FfiResult<OwnedFd> {
    if !is_open(fd) {
        return Err(Failure::new(VMCELL_ERROR_BAD_DESCRIPTOR, format!("{name} is {fd}, which is no open descriptor")));
    }
    // SAFETY: it is open, and ours from now on.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The value that a number stands for.
pub(super) fn choice<T: Copy>(name: &str, number: i32, choices: &[(i32, T)]) -> FfiResult<T> {
    let found = choices.iter().find(|(known, _)| *known == number);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<String> = choices.iter().map(|(known, _)| known.to_string()).collect();
        Failure::new(VMCELL_ERROR_BAD_VALUE, format!("{name} is {number}, allowed are {}", known.join(", ")))
    })
}
