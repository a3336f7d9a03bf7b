//! Network interfaces.

use std::ffi::c_char;

use super::convert::{Out, read_bytes, read_text, take_fd, take_fds};
use super::guard::{free, guard};
use super::io_thread::IoThreadObject;
use super::limit_group::{LimitGroupObject, limits};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::slot::{Described, Slot, update};
use crate::net::Nic;

/// The length of a MAC address in bytes.
pub const VMCELL_MAC_BYTES: usize = 6;

/// A network interface on a TAP device, or on a backend of the caller's own. Made by vmcell_nic_new, vmcell_nic_new_from_fd or
/// vmcell_nic_new_backend; taken by vmcell_config_add_nic; freed by vmcell_nic_free.
pub struct NicObject(Slot<Nic>);

impl NicObject {
    pub(super) fn new(nic: Nic) -> Self {
        Self(Slot::new(nic))
    }
}

impl Object for NicObject {
    const NAME: &'static str = "vmcell_nic";
}

impl Described for NicObject {
    type Value = Nic;

    fn slot(&self) -> &Slot<Nic> {
        &self.0
    }
}

/// Attaches to an existing TAP device by its name, 1 to 15 bytes. Nothing else can attach to it while the interface, or
/// the VM that gets it, lives. Never waits.
///
/// Errors: INVALID_CONFIG for a name that no device can have; NETWORK if the device is missing, in use, not a TAP
/// device, or not ours to use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_new(
    name: *const c_char,
    nic: *mut *mut NicObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let nic = unsafe { Out::new(nic, "nic") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let name = unsafe { read_text(name, "name") }?;
        nic.insert(NicObject::new(Nic::tap(&name)?))
    })
}

/// As vmcell_nic_new, for a descriptor of /dev/net/tun that the caller has attached to a TAP device with IFF_TAP,
/// IFF_NO_PI and IFF_VNET_HDR. It is made non-blocking. `fd` is taken: it is closed with the interface or with the VM
/// that got it, even if this call fails.
///
/// Errors: BAD_DESCRIPTOR; NETWORK if the descriptor is anything else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_new_from_fd(
    fd: i32,
    nic: *mut *mut NicObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header says that the descriptor is taken.
        let fd = unsafe { take_fd(fd, "fd") }?;
        // SAFETY: the header demands NULL or a place for the result.
        let nic = unsafe { Out::new(nic, "nic") }?;
        nic.insert(NicObject::new(Nic::from_fd(fd)?))
    })
}

/// As vmcell_nic_new_from_fd, for `count` descriptors, 1 to 16, that the caller has attached to one TAP device with
/// IFF_MULTI_QUEUE, too. The interface has a pair of queues for each. All of them are taken, even if this call fails, unless it
/// fails because `fds` is NULL or `count` is one that no array has. `fds` itself is copied.
///
/// Errors: BAD_DESCRIPTOR, also for one that is there twice; BAD_VALUE for a count that no array has; INVALID_CONFIG for any other
/// count that is refused; NETWORK if a descriptor is anything else, of another device than the first, or a copy of another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_new_from_fds(
    fds: *const i32,
    count: usize,
    nic: *mut *mut NicObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or that many numbers, and says that the descriptors are taken.
        let fds = unsafe { take_fds(fds, count, "fds") }?;
        // SAFETY: the header demands NULL or a place for the result.
        let nic = unsafe { Out::new(nic, "nic") }?;
        nic.insert(NicObject::new(Nic::from_fds(fds)?))
    })
}

/// Sets the MAC address that the guest sees: VMCELL_MAC_BYTES bytes, copied. The default is a random one, marked as
/// locally administered. An address that is not unicast is refused when the VM is made. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_set_mac(nic: *mut NicObject, mac: *const u8, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or that many bytes.
        let bytes = unsafe { read_bytes(mac, VMCELL_MAC_BYTES, "mac") }?;
        let mut mac = [0; VMCELL_MAC_BYTES];
        mac.copy_from_slice(bytes);
        update(nic, |nic| nic.mac(mac))
    })
}

/// Sets the largest packet, without its Ethernet header, that the guest is told to send: 68 to 65535 bytes. The TAP
/// device, or the backend, must be able to take it. By default the guest is told nothing, and then guests use 1500.
/// Smaller values are refused when the VM is made. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_set_mtu(nic: *mut NicObject, mtu: u16, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || update(nic, |nic| nic.mtu(mtu)))
}

/// Sets how many pairs of queues the guest's driver may use, 1 to 16, each of which is one to receive and one to send. The default
/// is one for each vCPU, but no more than four, if the TAP device was made with several queues (ip tuntap add ... multi_queue),
/// and otherwise one. An interface on descriptors has as many as it was given, one on a backend has one, and this must be the same
/// number. One I/O thread serves all queues of an interface, in turn. What is refused is refused when the VM is made: with
/// INVALID_CONFIG, or with NETWORK if the TAP device has fewer queues. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_set_queues(nic: *mut NicObject, queues: u16, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || update(nic, |nic| nic.queues(queues)))
}

/// Serves the interface on this I/O thread rather than on the VM's own, as vmcell_disk_set_io_thread does for a disk.
/// Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_set_io_thread(
    nic: *mut NicObject,
    io_thread: *const IoThreadObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let io_thread = objects::get(io_thread)?.thread();
        update(nic, |nic| nic.io_thread(io_thread))
    })
}

/// Limits the frames that the guest gets, on all queues of the interface together, as vmcell_disk_set_limits does for a disk: each frame is an
/// operation, and its bytes are those without virtio's header. What exceeds a limit may be dropped on the host meanwhile, as on a real link. Never blocks.
///
/// Errors: BAD_VALUE if one number of a pair is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_set_receive_limits(
    nic: *mut NicObject,
    operations_per_second: u64,
    operations_burst: u64,
    bytes_per_second: u64,
    bytes_burst: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let limits = limits([operations_per_second, operations_burst], [bytes_per_second, bytes_burst])?;
        update(nic, |nic| nic.receive_limits(limits))
    })
}

/// Limits the frames that the guest sends, on all queues of the interface together, as vmcell_disk_set_limits does for a disk: each frame is an
/// operation, and its bytes are those without virtio's header. What exceeds a limit waits, and those behind it. Never blocks.
///
/// Errors: BAD_VALUE if one number of a pair is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_set_send_limits(
    nic: *mut NicObject,
    operations_per_second: u64,
    operations_burst: u64,
    bytes_per_second: u64,
    bytes_burst: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let limits = limits([operations_per_second, operations_burst], [bytes_per_second, bytes_burst])?;
        update(nic, |nic| nic.send_limits(limits))
    })
}

/// Has the frames that the guest gets keep to the limits of a group, besides the interface's own. `group` is borrowed, as by
/// vmcell_disk_set_limit_group. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_set_receive_group(
    nic: *mut NicObject,
    group: *const LimitGroupObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let group = objects::get(group)?.group();
        update(nic, |nic| nic.receive_group(&group))
    })
}

/// Has the frames that the guest sends keep to the limits of a group, besides the interface's own. `group` is borrowed, as by
/// vmcell_disk_set_limit_group. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_set_send_group(
    nic: *mut NicObject,
    group: *const LimitGroupObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let group = objects::get(group)?.group();
        update(nic, |nic| nic.send_group(&group))
    })
}

/// Vouches that the functions of the interface's backend never block, as vmcell_disk_set_never_blocks does for a disk's. Never
/// blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_set_never_blocks(nic: *mut NicObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || update(nic, Nic::never_blocks))
}

/// Frees an interface that no VM got, and lets go of its TAP device, or destroys its backend, for which it waits. NULL is
/// fine.
///
/// Errors: BAD_HANDLE, also if it was handed over to a configuration.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_nic_free(nic: *mut NicObject) -> i32 {
    free(nic, drop)
}
