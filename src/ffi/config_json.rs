//! A VM's configuration as JSON.

use std::ffi::c_char;

use super::config::{ConfigObject, Description};
use super::convert::{Out, OutText, read_bytes};
use super::failure::{Failure, VMCELL_ERROR_NOT_UTF8};
use super::guard::guard;
use super::report::{ErrorObject, Report};
use super::slot::look;
use crate::config::VmConfig;

/// Makes a configuration from JSON: `length` bytes of UTF-8, without a NUL, copied. docs/description.md lists the settings; a missing
/// one has its default, so that "{}" is what vmcell_config_new makes. Setters replace what the text says, and disks and interfaces can be
/// added behind its own, which are opened when the VM is made. The values are not checked before that. Never blocks.
///
/// Errors: NOT_UTF8; INVALID_CONFIG for what is no JSON, an unknown setting, and a value of a wrong type. The message says where.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_new_from_json(
    json: *const c_char,
    length: usize,
    config: *mut *mut ConfigObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let config = unsafe { Out::new(config, "config") }?;
        // SAFETY: the header demands NULL or that many bytes.
        let bytes = unsafe { read_bytes(json.cast(), length, "json") }?;
        let text = std::str::from_utf8(bytes).map_err(|e| {
            Failure::new(VMCELL_ERROR_NOT_UTF8, format!("json is not UTF-8 from byte {} on", e.valid_up_to()))
        })?;
        config.insert(ConfigObject::new(Description::new(VmConfig::from_json(text)?)))
    })
}

/// Writes a configuration as JSON, UTF-8 with a NUL behind it, to `buffer`, which has room for `capacity` bytes. `length` gets the length
/// of the text without the NUL. If that is not below `capacity`, nothing is written to `buffer`: call again with more room. `buffer` may be
/// NULL if `capacity` is 0. The text holds the settings that are not at their default. It does not hold what is no data: objects that
/// were added, an I/O thread, and a function for threads. Never blocks.
///
/// Errors: INVALID_CONFIG for a path that is not UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_to_json(
    config: *const ConfigObject,
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
        text.write(&look(config, |description| description.config.to_json())??);
        Ok(())
    })
}
