//! Metadata services.

use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::convert::{Out, OutText, read_bytes, read_text};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE, VMCELL_ERROR_NOT_UTF8};
use super::guard::{free, guard};
use super::nic::NicObject;
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::slot::update;
use crate::metadata::Metadata;

/// A metadata service for guests: a JSON document that a guest reads over HTTP at a link-local address, as at a cloud's. docs/metadata.md
/// says what it answers. Made by vmcell_metadata_new; given to interfaces by vmcell_nic_set_metadata, which does not take it; freed by
/// vmcell_metadata_free, before or after the VM. The document may be changed at any time, from any thread.
pub struct MetadataObject(Mutex<Metadata>);

impl Object for MetadataObject {
    const NAME: &'static str = "vmcell_metadata";
}

impl MetadataObject {
    // Settings are whole after each change.
    fn lock(&self) -> MutexGuard<'_, Metadata> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle to the document, so that a long text holds up nobody who looks at the settings.
    fn document(&self) -> Metadata {
        self.lock().clone()
    }
}

/// Changes the settings.
fn set(metadata: *mut MetadataObject, change: impl FnOnce(Metadata) -> FfiResult<Metadata>) -> FfiResult<()> {
    let object = objects::get(metadata)?;
    let mut settings = object.lock();
    *settings = change(settings.clone())?;
    Ok(())
}

/// # Safety
/// As [`read_bytes`].
unsafe fn read_json<'a>(json: *const c_char, length: usize) -> FfiResult<&'a str> {
    // SAFETY: the caller promises the same.
    let bytes = unsafe { read_bytes(json.cast(), length, "json") }?;
    std::str::from_utf8(bytes)
        .map_err(|e| Failure::new(VMCELL_ERROR_NOT_UTF8, format!("json is not UTF-8 from byte {} on", e.valid_up_to())))
}

/// Makes a service at 169.254.169.254, with an empty object as its document. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_metadata_new(metadata: *mut *mut MetadataObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let metadata = unsafe { Out::new(metadata, "metadata") }?;
        metadata.insert(MetadataObject(Mutex::new(Metadata::new())))
    })
}

/// Sets the address, as text: one from 169.254.1.0 to 169.254.254.255. Interfaces that have the service already keep theirs. Never blocks.
///
/// Errors: BAD_VALUE for what is no IPv4 address; INVALID_CONFIG for any other address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_metadata_set_address(
    metadata: *mut MetadataObject,
    address: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let text = unsafe { read_text(address, "address") }?;
        let address = text.parse().map_err(|_| {
            Failure::new(
                VMCELL_ERROR_BAD_VALUE,
                format!("address is '{text}', allowed is one of IPv4: 169.254.169.254"),
            )
        })?;
        set(metadata, |metadata| Ok(metadata.address(address)?))
    })
}

/// Sets how many bytes the document may have as JSON without white space. The default is 51,200. It matters for what is set from now on.
/// Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_metadata_set_limit(
    metadata: *mut MetadataObject,
    bytes: usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(metadata, |metadata| Ok(metadata.limit(bytes))))
}

/// Sets whether the guest needs a token, which it does unless this is 0. Without that, a program in the guest that forwards requests for
/// others is all it takes to read the document. Interfaces that have the service already keep to what they had. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_metadata_set_needs_token(
    metadata: *mut MetadataObject,
    needs_token: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(metadata, |metadata| Ok(metadata.needs_token(needs_token != 0))))
}

/// Sets whether answers are text whatever a request accepts, which they are if this is not 0. By default, one that accepts
/// application/json is answered by JSON. Interfaces that have the service already keep to what they had. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_metadata_set_always_text(
    metadata: *mut MetadataObject,
    always_text: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(metadata, |metadata| Ok(metadata.always_text(always_text != 0))))
}

/// Replaces the document by JSON: `length` bytes of UTF-8, without a NUL, copied. A request sees either the old one or the new one. Blocks
/// while another thread changes it.
///
/// Errors: NOT_UTF8; INVALID_CONFIG for what is no JSON, has more than 127 levels, or is longer than the limit. The document stays what it
/// was then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_metadata_set(
    metadata: *mut MetadataObject,
    json: *const c_char,
    length: usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or that many bytes.
        let json = unsafe { read_json(json, length) }?;
        Ok(objects::get(metadata)?.document().set(json)?)
    })
}

/// Changes the document by a JSON merge patch (RFC 7396): members of objects are replaced or added, and those that are null in the patch
/// are removed. `json` is as for vmcell_metadata_set. Blocks while another thread changes it.
///
/// Errors: those of vmcell_metadata_set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_metadata_patch(
    metadata: *mut MetadataObject,
    json: *const c_char,
    length: usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or that many bytes.
        let json = unsafe { read_json(json, length) }?;
        Ok(objects::get(metadata)?.document().patch(json)?)
    })
}

/// Writes the document as JSON without white space, UTF-8 with a NUL behind it, to `buffer`, which has room for `capacity` bytes. `length`
/// gets the length of the text without the NUL. If that is not below `capacity`, nothing is written to `buffer`: call again with more
/// room. `buffer` may be NULL if `capacity` is 0. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_metadata_get(
    metadata: *const MetadataObject,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or that much room, and a place for the result.
        let text = unsafe { OutText::new(buffer, capacity, length) }?;
        text.write(&objects::get(metadata)?.document().get());
        Ok(())
    })
}

/// Gives the guest a metadata service on this interface. What the guest sends to the service's address goes to the service, and no further.
/// The service's settings are those of now; its document may change at any time. `metadata` is borrowed, and may be given to several
/// interfaces. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_set_metadata(
    nic: *mut NicObject,
    metadata: *const MetadataObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let metadata = objects::get(metadata)?.document();
        update(nic, |nic| nic.metadata(&metadata))
    })
}

/// Frees the handle; VMs that have the service keep it. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_metadata_free(metadata: *mut MetadataObject) -> i32 {
    free(metadata, drop)
}
