//! What every function of the C interface runs in: no panic leaves it, and a failure becomes a number and an object.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use super::error::{ErrorObject, Failure, FfiResult, VMCELL_ERROR_PANIC, VMCELL_OK};
use super::handle;

/// Where a caller wants the error object of a failed call, if anywhere.
pub(super) struct Report(*mut *mut ErrorObject);

impl Report {
    /// The caller wants none.
    pub(super) const NOWHERE: Self = Self(ptr::null_mut());

    /// # Safety
    /// `place` is NULL, or a place for a pointer that nothing else is used for until the call returns.
    pub(super) unsafe fn to(place: *mut *mut ErrorObject) -> Self {
        Self(place)
    }

    fn write(&self, failure: Failure) {
        if self.0.is_null() {
            return;
        }
        let made = catch_unwind(|| handle::insert(ErrorObject::new(failure)));
        if let Ok(Ok(object)) = made {
            // SAFETY: it is not NULL, so it is the place that `to` demanded.
            unsafe { self.0.write(object) };
        }
    }
}

/// Runs `body` and gives its number; a failure is also reported as an object.
pub(super) fn guard(report: Report, body: impl FnOnce() -> FfiResult<()>) -> i32 {
    let failure = match catch(body) {
        Ok(Ok(())) => return VMCELL_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::new(VMCELL_ERROR_PANIC, text_of(&*panic)),
    };
    let number = failure.number();
    report.write(failure);
    number
}

/// As [`guard`], for functions that cannot fail; gives `otherwise` after a panic.
pub(super) fn guard_value<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch(body).unwrap_or(otherwise)
}

fn catch<T>(body: impl FnOnce() -> T) -> std::thread::Result<T> {
    // What is shared between calls is behind locks and whole after each single write.
    catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        forced::check();
        body()
    }))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("this is a bug in vmcell: it panicked: {}", text.unwrap_or("no text"))
}

#[cfg(test)]
use forced::panic_in_next_call;

#[cfg(test)]
mod forced {
    use std::cell::Cell;

    thread_local! {
        static NEXT: Cell<bool> = const { Cell::new(false) };
    }

    /// Makes the next call of this thread into the C interface panic inside.
    pub(super) fn panic_in_next_call() {
        NEXT.set(true);
    }

    pub(super) fn check() {
        assert!(!NEXT.take(), "forced by a test");
    }
}

#[cfg(test)]
#[path = "guard_test.rs"]
mod tests;
