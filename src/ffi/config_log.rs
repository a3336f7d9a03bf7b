//! What is said of a VM, and to whom.

use std::ffi::{CString, c_char, c_void};
use std::sync::Mutex;

use super::caller::{ReleaseUser, User};
use super::config::{ConfigObject, set};
use super::failure::{Failure, VMCELL_ERROR_NULL_ARGUMENT};
use super::guard::guard;
use super::report::{ErrorObject, Report};
use crate::logging::{LogLevel, LogRecord};
use crate::sys::lock;

/// A VM or a device has failed.
pub const VMCELL_LOG_ERROR: i32 = 1;
/// Something is not as it should be, and goes on all the same.
pub const VMCELL_LOG_WARN: i32 = 2;
/// What a VM does.
pub const VMCELL_LOG_INFO: i32 = 3;

/// Receives what is said of a VM: `level` is one of VMCELL_LOG_*, `vm` the VM's name (empty if it has none), `target` what it is about
/// ("vm", "console", "disk0" and so on), `message` one line, and `user` as the caller gave it. The texts are UTF-8, and valid until it
/// returns; the wording of messages may change. It is called on the thread that it is about: one that makes, starts or frees the VM, an
/// I/O thread, or the thread of a vCPU that has left the guest for good; never by two threads at once. It must not block, must not call
/// a function of this library for this VM, and must not unwind: no C++ exception, no longjmp.
pub type LogSink = Option<
    unsafe extern "C" fn(
        level: i32,
        vm: *const c_char,
        target: *const c_char,
        message: *const c_char,
        user: *mut c_void,
    ),
>;

fn number_of(level: LogLevel) -> i32 {
    match level {
        LogLevel::Error => VMCELL_LOG_ERROR,
        LogLevel::Warn => VMCELL_LOG_WARN,
        LogLevel::Info => VMCELL_LOG_INFO,
    }
}

fn text(value: &str) -> CString {
    CString::new(value.replace('\0', "\\0")).unwrap_or_default()
}

/// Has a function told what happens to the VM: that it starts and how it ends, a device that fails, an engine that is not the first
/// choice, a sink or a source of the console that fails, output that is lost, and requests that break the rules. What a guest can cause
/// is said once a second at most, with how often it happened. By default nobody is told. `user` is taken: unless `release` is NULL, it
/// is called for `user` at the end, even if this call fails. Never blocks.
///
/// Errors: NULL_ARGUMENT if `sink` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_log(
    config: *mut ConfigObject,
    sink: LogSink,
    user: *mut c_void,
    release: ReleaseUser,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let user = Mutex::new(User { user, release });
        let sink = sink.ok_or_else(|| Failure::new(VMCELL_ERROR_NULL_ARGUMENT, "sink is NULL"))?;
        let call = move |record: &LogRecord<'_>| {
            let (vm, target, message) = (text(record.vm), text(record.target), text(record.message));
            let user = lock(&user);
            let level = number_of(record.level);
            // SAFETY: the header demands a function that takes this; the lock keeps other threads away, and the texts live.
            unsafe { sink(level, vm.as_ptr(), target.as_ptr(), message.as_ptr(), user.user) };
        };
        set(config, |description| description.log = Some(Box::new(call)))
    })
}
