//! I/O threads.

use std::ffi::c_char;
use std::time::Duration;

use super::convert::{Out, read_text};
use super::guard::{free, guard};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use crate::event::IoThread;

/// A thread that serves the devices of one VM or of many. A device that waits, such as a disk with a slow file, holds
/// up the others on its thread. By default, each VM has a thread of its own. Made by vmcell_io_thread_new; freed by
/// vmcell_io_thread_free.
pub struct IoThreadObject(IoThread);

impl Object for IoThreadObject {
    const NAME: &'static str = "vmcell_io_thread";
}

impl IoThreadObject {
    pub(super) fn thread(&self) -> IoThread {
        self.0.clone()
    }
}

/// Starts a thread; Linux keeps 15 bytes of its name. It blocks every signal.
///
/// Errors: HOST if the host provides no thread or no descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_io_thread_new(
    name: *const c_char,
    io_thread: *mut *mut IoThreadObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let io_thread = unsafe { Out::new(io_thread, "io_thread") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let name = unsafe { read_text(name, "name") }?;
        io_thread.insert(IoThreadObject(IoThread::new(&name)?))
    })
}

/// Sets for how many microseconds at most the thread looks for more to do before it sleeps: 0 turns that off, the default is 50,
/// and more than 1000 counts as 1000. How long it looks is learned, so a thread that is seldom needed does not look, and an idle
/// VM costs nothing. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_io_thread_set_polling(
    io_thread: *mut IoThreadObject,
    max_us: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(io_thread)?.0.set_polling(Duration::from_micros(max_us.into()));
        Ok(())
    })
}

/// Lets go of a thread. It lives for as long as a disk, an interface, a configuration or a VM uses it, then ends. If
/// nothing uses it, this call waits for its end. NULL is fine.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_io_thread_free(io_thread: *mut IoThreadObject) -> i32 {
    free(io_thread, drop)
}
