//! Counters that backends in C keep.

use std::ffi::c_char;
use std::sync::Mutex;

use super::convert::{Out, read_text};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_INVALID_STATE};
use super::guard::{free, guard};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use crate::meter::{Counter, Meter};
use crate::sys::lock;

/// A counter of the caller's own, which stands in the metrics of the VM: vmcell_disk_port_add_counter and
/// vmcell_nic_port_add_counter say of which device. Made by vmcell_counter_new; freed by vmcell_counter_free.
pub struct CounterObject(Counter);

impl Object for CounterObject {
    const NAME: &'static str = "vmcell_counter";
}

/// The counters of one backend, by their names, until its VM is made.
pub(super) struct Counters(Mutex<State>);

struct State {
    added: Vec<(String, Counter)>,
    is_metered: bool,
}

impl Counters {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(State { added: Vec::new(), is_metered: false }))
    }

    /// # Safety
    /// `name` is NULL or a text that ends with a NUL.
    pub(super) unsafe fn add(&self, name: *const c_char, counter: *const CounterObject) -> FfiResult<()> {
        // SAFETY: the caller promises the same.
        let name = unsafe { read_text(name, "name") }?;
        let counter = objects::get(counter)?.0.clone();
        let mut state = lock(&self.0);
        if state.is_metered {
            let message = format!("the counter {name:?} was added after the VM was made; add it before");
            return Err(Failure::new(VMCELL_ERROR_INVALID_STATE, message));
        }
        state.added.push((name, counter));
        Ok(())
    }

    /// From now on, none is added.
    pub(super) fn hand_over(&self, meter: &mut Meter) {
        let mut state = lock(&self.0);
        state.is_metered = true;
        state.added.iter().for_each(|(name, counter)| meter.counter(name, counter));
    }
}

/// Makes a counter that stands at 0. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_counter_new(counter: *mut *mut CounterObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let counter = unsafe { Out::new(counter, "counter") }?;
        counter.insert(CounterObject(Counter::new()))
    })
}

/// Adds to a counter. Any thread may, at any time. Each call looks the counter up, so a backend that is fast counts once for what it
/// did in a batch. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_counter_add(
    counter: *mut CounterObject,
    count: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(counter)?.0.add(count);
        Ok(())
    })
}

/// Frees a counter. The metrics go on to tell where it stood. NULL is fine.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_counter_free(counter: *mut CounterObject) -> i32 {
    free(counter, drop)
}
