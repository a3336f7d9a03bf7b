//! From C callers' pointers to values, and back.

use std::ffi::{CStr, OsStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;

use zeroize::Zeroizing;

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

/// Places for several results, written once the call has succeeded.
pub(super) struct OutArray<T> {
    places: *mut T,
    capacity: usize,
}

impl<T: Copy> OutArray<T> {
    /// # Safety
    /// `places` is NULL, which is refused unless `capacity` is 0, or nothing else uses that many places until the call returns.
    pub(super) unsafe fn new(places: *mut T, capacity: usize, name: &str) -> FfiResult<Self> {
        if places.is_null() && capacity > 0 { Err(null(name)) } else { Ok(Self { places, capacity }) }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes as many as there are places for.
    pub(super) fn write(self, values: &[T]) {
        let count = values.len().min(self.capacity);
        if count > 0 {
            // SAFETY: `new` demanded so many places that can be written to, and the values are ours.
            unsafe { ptr::copy(values.as_ptr(), self.places, count) };
        }
    }
}

/// Where a text goes: to the caller's buffer, if there is room for it and for a NUL, and its length to a place of its own.
pub(super) struct OutText {
    buffer: OutArray<c_char>,
    length: Out<usize>,
}

impl OutText {
    /// # Safety
    /// `buffer` is NULL, which is refused unless `capacity` is 0, or nothing else uses that many bytes until the call returns; `length`
    /// is NULL, which is refused, or nothing else uses the place until then.
    pub(super) unsafe fn new(buffer: *mut c_char, capacity: usize, length: *mut usize) -> FfiResult<Self> {
        // SAFETY: the caller promises the same.
        let (buffer, length) = unsafe { (OutArray::new(buffer, capacity, "buffer")?, Out::new(length, "length")?) };
        Ok(Self { buffer, length })
    }

    pub(super) fn write(self, text: &str) {
        if text.len() < self.buffer.capacity() {
            // It may be a secret.
            let mut bytes = Zeroizing::new(Vec::with_capacity(text.len().saturating_add(1)));
            bytes.extend(text.bytes().chain([0]).map(|byte| c_char::from_ne_bytes([byte])));
            self.buffer.write(&bytes);
        }
        self.length.write(text.len());
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
/// `numbers` is NULL, which is refused unless `count` is 0, or points to `count` numbers that stay as they are until the call returns.
pub(super) unsafe fn read_numbers(numbers: *const u32, count: usize, name: &str) -> FfiResult<Vec<u32>> {
    let len = count.saturating_mul(size_of::<u32>());
    // SAFETY: the caller promises the same.
    let bytes = unsafe { read_bytes(numbers.cast(), len, name) }?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| u32::from_ne_bytes(*bytes)).collect())
}

/// # Safety
/// As for [`read_numbers`].
pub(super) unsafe fn read_fds(fds: *const i32, count: usize, name: &str) -> FfiResult<Vec<i32>> {
    // SAFETY: a number of one kind has the size and the alignment of the other, and any bits are one.
    let numbers = unsafe { read_numbers(fds.cast(), count, name) }?;
    Ok(numbers.into_iter().map(u32::cast_signed).collect())
}

/// # Safety
/// `handles` is NULL, which is refused unless `count` is 0, or points to `count` handles that stay as they are until the call returns.
pub(super) unsafe fn read_handles<T>(handles: *const *const T, count: usize, name: &str) -> FfiResult<Vec<*const T>> {
    let len = count.saturating_mul(size_of::<*const T>());
    // SAFETY: the caller promises the same.
    let bytes = unsafe { read_bytes(handles.cast(), len, name) }?;
    let handles = bytes.as_chunks().0.iter().map(|bytes| ptr::without_provenance(usize::from_ne_bytes(*bytes)));
    Ok(handles.collect())
}

/// Reads a structure of numbers.
///
/// # Safety
/// `place` is NULL, which is refused, or points to a `T` that stays as it is until the call returns.
pub(super) unsafe fn read_plain<T: Copy>(place: *const T, name: &str) -> FfiResult<T> {
    if place.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL, and the caller's promise for the rest.
    Ok(unsafe { place.read_unaligned() })
}

/// The largest structure that a caller may have, in bytes: more than any version of this library knows.
const LARGEST_STRUCTURE: usize = 4096;

/// Reads a structure that has its size in front, so that it can grow: what the caller's version lacks is zero, and what
/// ours lacks must be.
///
/// # Safety
/// `T` is `repr(C)` without padding, has its size in front as a `usize`, is aligned like one, and may be all zeroes.
/// `place` is NULL, which is refused, or points to a `T` of this version or another one, which stays as it is until the
/// call returns.
pub(super) unsafe fn read_structure<T>(place: *const T, least: usize, name: &str) -> FfiResult<T> {
    if place.is_null() {
        return Err(null(name));
    }
    let refused = |why: String| Err(Failure::new(VMCELL_ERROR_BAD_VALUE, format!("{name}->struct_size is {why}")));
    // SAFETY: every version of a structure has its size in front.
    let size = unsafe { place.cast::<usize>().read_unaligned() };
    if !(least..=LARGEST_STRUCTURE).contains(&size) || !size.is_multiple_of(size_of::<usize>()) {
        let allowed = format!("allowed are {least} to {LARGEST_STRUCTURE} in steps of {}", size_of::<usize>());
        return refused(format!("{size}, {allowed}: set it to the size of the structure"));
    }
    // SAFETY: not NULL, and the caller has a structure of this size.
    let bytes = unsafe { std::slice::from_raw_parts(place.cast::<u8>(), size) };
    let known = size_of::<T>().min(size);
    if bytes.iter().skip(known).any(|byte| *byte != 0) {
        return refused(format!("{size}, and it uses members that this version of the library does not know"));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: both are at least `known` bytes long, and our own place overlaps nothing of the caller's.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast::<u8>(), known) };
    // SAFETY: its first bytes are the caller's, of whole members, and the rest is zero, which the caller says may be.
    Ok(unsafe { value.assume_init() })
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

/// # Safety
/// `fds` is NULL, which is refused unless `count` is 0, or points to `count` numbers that stay as they are until the call returns.
/// The caller gives the descriptors away, those that are open.
pub(super) unsafe fn take_fds(fds: *const i32, count: usize, name: &str) -> FfiResult<Vec<OwnedFd>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if fds.is_null() {
        return Err(null(name));
    }
    if count.checked_mul(size_of::<i32>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, format!("{name} is said to have {count} descriptors")));
    }
    // SAFETY: not NULL, not longer than objects can be, and the caller's promise for the rest.
    let numbers = unsafe { std::slice::from_raw_parts(fds, count) };
    let mut taken: Vec<OwnedFd> = Vec::new();
    let mut refused = None;
    for number in numbers {
        if taken.iter().any(|fd| fd.as_raw_fd() == *number) {
            let message = format!("{name} holds the descriptor {number} twice");
            refused.get_or_insert(Failure::new(VMCELL_ERROR_BAD_DESCRIPTOR, message));
            continue;
        }
        // SAFETY: the caller's promise, and it was not taken before.
        match unsafe { take_fd(*number, name) } {
            Ok(fd) => taken.push(fd),
            Err(failure) => _ = refused.get_or_insert(failure),
        }
    }
    refused.map_or(Ok(taken), Err)
}

/// The value that a number stands for.
pub(super) fn choice<T: Copy>(name: &str, number: i32, choices: &[(i32, T)]) -> FfiResult<T> {
    let found = choices.iter().find(|(known, _)| *known == number);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<String> = choices.iter().map(|(known, _)| known.to_string()).collect();
        Failure::new(VMCELL_ERROR_BAD_VALUE, format!("{name} is {number}, allowed are {}", known.join(", ")))
    })
}
