//! What a configuration says of the guest's vsock.

use std::ffi::c_char;

use super::config::{ConfigObject, set};
use super::convert::read_path;
use super::guard::guard;
use super::report::{ErrorObject, Report};
use crate::config::VsockConfig;

/// Gives the guest a vsock (virtio 1.2, section 5.10): stream sockets between host and guest, without a network. cid is the guest's
/// context ID, 3 to 4294967294, which is checked when the VM is made. The host program uses vmcell_vm_vsock_connect and
/// vmcell_vsock_listener_new.
///
/// If path is not NULL, other programs of the host can use the vsock, too. A Unix socket is made at that path, of up to 107 bytes, with
/// access for this user alone, when the VM is made, and removed when it has ended. A program that connects to it and writes "CONNECT 52" and a line feed is
/// connected to port 52 of the guest; the first line that comes back is "OK" and the port of the host's end. If a program in the
/// guest connects to port 52 of CID 2, it is connected to the Unix socket at the path with "_52" behind it.
///
/// max_connections is how many connections there may be at once, 1 to 4096, or 0 for 1024. The VM's I/O thread serves them. Without this
/// call there is no vsock. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_vsock(
    config: *mut ConfigObject,
    cid: u64,
    path: *const c_char,
    max_connections: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let mut vsock = VsockConfig::new(cid);
        if !path.is_null() {
            // SAFETY: the header demands a text.
            vsock.path = Some(unsafe { read_path(path, "path") }?);
        }
        if max_connections != 0 {
            vsock.max_connections = max_connections;
        }
        set(config, |description| description.config.vsock = Some(vsock))
    })
}
