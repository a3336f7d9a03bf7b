//! Connections between the host program and a guest, without a network.

use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::time::Duration;

use super::convert::Out;
use super::failure::{Failure, VMCELL_ERROR_BAD_VALUE};
use super::guard::{free, guard};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::vm::VmObject;
use super::vm_exit::VMCELL_WAIT_FOREVER;
use crate::vsock::VsockListener;

/// A port of the host that a guest connects to. Made by vmcell_vsock_listener_new; freed by vmcell_vsock_listener_free, before or after
/// its VM. Any thread may make any call.
pub struct VsockListenerObject(VsockListener);

impl Object for VsockListenerObject {
    const NAME: &'static str = "vmcell_vsock_listener";
}

/// Connects to a port of the guest, and writes to fd a Unix stream socket that blocks; it is the caller's to close. Waits until the guest has
/// accepted, at most for limit_ms milliseconds. If that is 0, it never blocks: what is written to the socket before the guest has accepted
/// waits there, and if the guest refuses, the socket is closed by its other end. While the guest has no driver for the vsock yet, the
/// connection waits for that.
///
/// Errors: INVALID_CONFIG if the VM has no vsock; VSOCK if the guest refuses, or too many connections wait; TIMEOUT if there is no answer in
/// time; INVALID_STATE if the VM has ended, and, with a limit other than 0, in a function that the library calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_vsock_connect(
    vm: *const VmObject,
    port: u32,
    limit_ms: u32,
    fd: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let fd = unsafe { Out::new(fd, "fd") }?;
        // Not held while it waits, so that the VM may be freed.
        let vsock = objects::get(vm)?.vm().vsock()?;
        let stream = match limit_ms {
            0 => vsock.connect(port)?,
            millis => vsock.connect_timeout(port, Duration::from_millis(millis.into()))?,
        };
        fd.write(stream.into_raw_fd());
        Ok(())
    })
}

/// Listens on a port of the host: what the guest connects to it is accepted by vmcell_vsock_listener_accept, and not by the Unix socket of
/// another program. Up to 128 connections wait to be accepted, and others are refused. `vm` is borrowed. Never blocks.
///
/// Errors: INVALID_CONFIG if the VM has no vsock; VSOCK if there is a listener for that port; INVALID_STATE if the VM has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vsock_listener_new(
    vm: *const VmObject,
    port: u32,
    listener: *mut *mut VsockListenerObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let listener = unsafe { Out::new(listener, "listener") }?;
        listener.insert(VsockListenerObject(objects::get(vm)?.vm().vsock()?.listen(port)?))
    })
}

/// Waits for a connection of the guest, at most for timeout_ms milliseconds: 0 never blocks, VMCELL_WAIT_FOREVER (-1) has no limit.
/// Writes to fd a Unix stream socket that blocks, which is the caller's to close, and to guest_port the guest's port.
///
/// Errors: TIMEOUT if none came in time; INVALID_STATE if the VM has ended and no connection is left, and, unless timeout_ms is 0, in a
/// function that the library calls; BAD_VALUE for another negative timeout_ms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vsock_listener_accept(
    listener: *mut VsockListenerObject,
    timeout_ms: i64,
    fd: *mut i32,
    guest_port: *mut u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for each result.
        let (fd, guest_port) = unsafe { (Out::new(fd, "fd")?, Out::new(guest_port, "guest_port")?) };
        let listener = objects::get(listener)?;
        let (stream, port) = match u64::try_from(timeout_ms) {
            Ok(millis) => listener.0.accept_timeout(Duration::from_millis(millis))?,
            Err(_) if timeout_ms == VMCELL_WAIT_FOREVER => listener.0.accept()?,
            Err(_) => {
                let message = format!("timeout_ms is {timeout_ms}, allowed are -1 and 0 or more");
                return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message));
            }
        };
        fd.write(stream.into_raw_fd());
        guest_port.write(port);
        Ok(())
    })
}

/// Gives a descriptor that is readable while there is a connection to accept, and once the VM has ended, for poll, epoll or an event
/// loop. It is borrowed, and valid until the listener is freed. Do not read it. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vsock_listener_fd(
    listener: *const VsockListenerObject,
    fd: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let fd = unsafe { Out::new(fd, "fd") }?;
        fd.write(objects::get(listener)?.0.as_fd().as_raw_fd());
        Ok(())
    })
}

/// Frees a listener, and closes connections that were not accepted. If another thread waits in vmcell_vsock_listener_accept, the port
/// stays taken until that returns. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_vsock_listener_free(listener: *mut VsockListenerObject) -> i32 {
    free(listener, drop)
}
