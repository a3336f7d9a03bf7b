//! The guard around every function of the C interface: no panic leaves it, and a failure becomes a number and an
//! object.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::failure::{Failure, FfiResult, VMCELL_ERROR_PANIC, VMCELL_OK};
use super::objects::{self, Object};
use super::report::Report;

/// Runs `body` and returns its number; reports a failure as an object too.
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

/// As [`guard`], for functions that cannot fail; returns `otherwise` after a panic.
pub(super) fn guard_value<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch(body).unwrap_or(otherwise)
}

/// The common part of every `vmcell_<object>_free`; `end` does what the object needs at its end.
pub(super) fn free<T: Object>(handle: *mut T, end: impl FnOnce(Arc<T>)) -> i32 {
    guard(Report::NOWHERE, || {
        if !handle.is_null() {
            end(objects::take(handle)?);
        }
        Ok(())
    })
}

fn catch<T>(body: impl FnOnce() -> T) -> std::thread::Result<T> {
    // Values that calls share are behind locks, and whole after each single write.
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
