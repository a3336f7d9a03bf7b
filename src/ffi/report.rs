//! A failure's way to its caller: an error object, written to the place that the caller chose.

use std::ffi::CString;
use std::panic::catch_unwind;
use std::ptr;

use super::failure::Failure;
use super::objects::{self, Object};

/// Why a call failed: a number, a message and the causes behind it. It never changes. Freed by vmcell_error_free.
pub struct ErrorObject {
    pub(super) number: i32,
    pub(super) message: CString,
    pub(super) causes: Vec<CString>,
    pub(super) chain: CString,
}

impl Object for ErrorObject {
    const NAME: &'static str = "vmcell_error";
}

impl ErrorObject {
    pub(super) fn new(failure: Failure) -> Self {
        let chain = std::iter::once(&failure.message).chain(&failure.causes).cloned().collect::<Vec<_>>().join(": ");
        Self {
            number: failure.number,
            message: c_string(&failure.message),
            causes: failure.causes.iter().map(|cause| c_string(cause)).collect(),
            chain: c_string(&chain),
        }
    }
}

fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\\0")).unwrap_or_default()
}

/// The place for the error object of a failed call, if the caller wants one.
pub(super) struct Report(*mut *mut ErrorObject);

impl Report {
    /// The caller wants none.
    pub(super) const NOWHERE: Self = Self(ptr::null_mut());

    /// # Safety
    /// `place` is NULL, or a place for a pointer that nothing else uses until the call returns.
    pub(super) unsafe fn to(place: *mut *mut ErrorObject) -> Self {
        Self(place)
    }

    pub(super) fn write(&self, failure: Failure) {
        if self.0.is_null() {
            return;
        }
        let made = catch_unwind(|| objects::insert(ErrorObject::new(failure)));
        if let Ok(Ok(object)) = made {
            // SAFETY: it is not NULL, so it is the place that `to` demanded.
            unsafe { self.0.write(object) };
        }
    }
}
