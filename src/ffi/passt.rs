//! Network interfaces that reach the world outside by passt.

use std::ffi::c_char;

use super::convert::{Out, read_path, read_text};
use super::failure::{Failure, VMCELL_ERROR_BAD_VALUE};
use super::guard::guard;
use super::nic::NicObject;
use super::report::{ErrorObject, Report};
use crate::network::Passt;

/// Makes an interface whose guest reaches the world outside by passt, which is started as a child process and ends with the interface. The guest
/// reaches what a program of this user reaches, but not what listens on the host's loopback; nothing reaches the guest but what comes to `ports`. The
/// guest has its address, routes and name servers from passt.
///
/// `program` is passt's path, or its name in the search path; NULL stands for "passt". `mtu` is 1280 to 65520 bytes; 0 stands for 65520. `ports` has
/// a line for each port of the host's that leads to the guest, such as "tcp 8080:80" or "udp 127.0.0.1/53:5353", at most 256; NULL and "" stand for
/// none. A process that is jailed may not start programs: call this before vmcell_jail_enter. Waits until passt is ready, mostly some tens of
/// milliseconds, at most ten seconds.
///
/// Errors: INVALID_CONFIG for an `mtu` that is out of range, for what is no port, and for too many; BAD_VALUE for an `mtu` above 65535; NETWORK if
/// passt does not start, with what it says; TIMEOUT; INVALID_STATE in a function that a thread of the library's calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_new_passt(
    program: *const c_char,
    mtu: u32,
    ports: *const c_char,
    nic: *mut *mut NicObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let nic = unsafe { Out::new(nic, "nic") }?;
        let mut passt = Passt::new();
        if !program.is_null() {
            // SAFETY: not NULL, so the header demands a text that ends with a NUL.
            passt = passt.program(unsafe { read_path(program, "program") }?);
        }
        if mtu != 0 {
            passt = passt.mtu(u16::try_from(mtu).map_err(|_| out_of_range(mtu))?);
        }
        if !ports.is_null() {
            // SAFETY: not NULL, so the header demands a text that ends with a NUL.
            let ports = unsafe { read_text(ports, "ports") }?;
            passt = ports.lines().try_fold(passt, Passt::port)?;
        }
        nic.insert(NicObject::new(passt.start()?))
    })
}

fn out_of_range(mtu: u32) -> Failure {
    Failure::new(VMCELL_ERROR_BAD_VALUE, format!("mtu is {mtu}, passt has 1280 to 65520"))
}
