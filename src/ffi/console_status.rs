//! What became of a guest's output.

use super::convert::{Out, OutArray};
use super::failure::{Failure, VMCELL_ERROR_BAD_VALUE};
use super::guard::guard;
use super::objects;
use super::report::{ErrorObject, Report};
use super::vm::VmObject;
use crate::console::SinkStatus;

/// What became of the bytes that one sink of a console should have got.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Sink {
    /// How many bytes it got.
    pub delivered: u64,
    /// How many wait to be written to it.
    pub waiting: u64,
    /// How many it missed since it was too slow: they made room for newer ones.
    pub dropped: u64,
    /// How many it missed since writing to it failed.
    pub lost: u64,
    /// How often a file could not be renamed when it had grown too large, and was emptied instead.
    pub failed_rotations: u64,
}

fn convert(sink: &SinkStatus) -> Sink {
    let SinkStatus { delivered, waiting, dropped, lost, failed_rotations, .. } = *sink;
    Sink { delivered, waiting, dropped, lost, failed_rotations }
}

/// Writes what became of the guest's output to `sinks`, which has room for `capacity`, and how many sinks the console has to `count`,
/// which may be more. They come in the order in which the console was put together. `sinks` may be NULL if `capacity` is 0. Never
/// blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_console_sinks(
    vm: *const VmObject,
    sinks: *mut Sink,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let count = unsafe { Out::new(count, "count") }?;
        // SAFETY: the header demands NULL or that many places.
        let places = unsafe { OutArray::new(sinks, capacity, "sinks") }?;
        let found: Vec<Sink> = objects::get(vm)?.vm().console_status().sinks.iter().map(convert).collect();
        places.write(&found);
        count.write(found.len());
        Ok(())
    })
}

/// Writes to `last` why writing to the sink of this index, or renaming its file, failed last, or NULL if it never did. The caller frees
/// it with vmcell_error_free. The sink may have worked again since. Never blocks.
///
/// Errors: BAD_VALUE if there is no such sink.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_console_sink_error(
    vm: *const VmObject,
    index: usize,
    last: *mut *mut ErrorObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let last = unsafe { Out::new(last, "last") }?;
        let sinks = objects::get(vm)?.vm().console_status().sinks;
        let Some(sink) = sinks.get(index) else {
            let message = format!("index is {index}, and the console has {} sinks", sinks.len());
            return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message));
        };
        match &sink.last_error {
            Some(error) => last.insert(ErrorObject::new(Failure::from(error.clone())))?,
            None => last.write(std::ptr::null_mut()),
        }
        Ok(())
    })
}
