//! Error objects.

use std::ffi::{CStr, c_char};
use std::ptr;

use super::failure::{VMCELL_ERROR_PANIC, VMCELL_OK};
use super::guard::{free, guard_value};
use super::objects;
use super::report::ErrorObject;

/// Reads from an error that may be NULL or gone. The borrowed text lives until the error is freed, as the header says.
fn text(
    error: *const ErrorObject,
    none: &'static CStr,
    read: impl FnOnce(&ErrorObject) -> *const c_char,
) -> *const c_char {
    guard_value(c"".as_ptr(), || match objects::get(error) {
        Ok(error) => read(&error),
        Err(_) if error.is_null() => none.as_ptr(),
        Err(_) => c"this vmcell_error was freed before, or is none".as_ptr(),
    })
}

/// Returns the number of an error, one of VMCELL_ERROR_*, the same that the failed call returned. Returns VMCELL_OK for
/// NULL, and VMCELL_ERROR_BAD_HANDLE for a pointer that is not, or is no longer, an error. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_error_number(error: *const ErrorObject) -> i32 {
    guard_value(VMCELL_ERROR_PANIC, || match objects::get(error) {
        Ok(error) => error.number,
        Err(_) if error.is_null() => VMCELL_OK,
        Err(failure) => failure.number(),
    })
}

/// Returns what was refused, its value and what is allowed, without the causes: one line without a line end. The text
/// is borrowed, and valid until the error is freed. Never NULL: for NULL, and for a pointer that is not, or is no
/// longer, an error, the text says so. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_error_message(error: *const ErrorObject) -> *const c_char {
    text(error, c"no error", |error| error.message.as_ptr())
}

/// Returns the message and all causes behind it, joined by ": ", for a log line. Lifetime and NULL as for
/// vmcell_error_message.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_error_chain(error: *const ErrorObject) -> *const c_char {
    text(error, c"no error", |error| error.chain.as_ptr())
}

/// Returns how many causes stand behind the message; 0 for NULL and for a pointer that is not, or is no longer, an
/// error. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_error_cause_count(error: *const ErrorObject) -> usize {
    guard_value(0, || objects::get(error).map_or(0, |error| error.causes.len()))
}

/// Returns a cause: 0 led to the message, each later one led to the one before. The text is borrowed, and valid until
/// the error is freed. Returns NULL for an index out of range, for NULL, and for a pointer that is not, or is no
/// longer, an error. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_error_cause(error: *const ErrorObject, index: usize) -> *const c_char {
    guard_value(ptr::null(), || {
        let error = objects::get(error).ok();
        error.and_then(|error| error.causes.get(index).map(|cause| cause.as_ptr())).unwrap_or(ptr::null())
    })
}

/// Frees an error and all texts borrowed from it. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_error_free(error: *mut ErrorObject) -> i32 {
    free(error, drop)
}

#[cfg(test)]
mod tests {
    use super::super::failure::{VMCELL_ERROR_BAD_HANDLE, VMCELL_ERROR_DISK};
    use super::*;
    use crate::error::{Error, ErrorKind};

    fn read(text: *const c_char) -> String {
        assert!(!text.is_null());
        // SAFETY: not NULL, and borrowed from an object that the caller has not freed.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn an_error_keeps_its_causes_in_order() {
        let inner = Error::new(ErrorKind::Host, "in\0ner").with_source(std::io::Error::other("root"));
        let error = Error::new(ErrorKind::Disk, "outer").with_source(inner);
        let object = objects::insert(ErrorObject::new(error.into())).unwrap();
        assert_eq!(vmcell_error_number(object), VMCELL_ERROR_DISK);
        assert_eq!(read(vmcell_error_message(object)), "outer");
        assert_eq!(read(vmcell_error_chain(object)), "outer: in\\0ner: root");
        assert_eq!(vmcell_error_cause_count(object), 2);
        assert_eq!(read(vmcell_error_cause(object, 1)), "root");
        assert!(vmcell_error_cause(object, 2).is_null());
        assert_eq!(vmcell_error_free(object), VMCELL_OK);
        assert_eq!(vmcell_error_free(object), VMCELL_ERROR_BAD_HANDLE);
        assert!(read(vmcell_error_message(object)).contains("freed"));
    }
}
