//! The ports of private networks, and network interfaces on them.

use std::ffi::c_char;

use super::convert::{Out, OutText, read_text};
use super::guard::{free, guard};
use super::machine_address::machine;
use super::network::NetworkObject;
use super::nic::NicObject;
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::slot::{Described, Slot, hand_over, look};
use crate::network::Port;

/// The place of a machine in a private network, which has its address as long as the port, or the interface that it became, lives. Made by
/// vmcell_network_port_new or vmcell_network_port_new_for_clone; taken by vmcell_nic_new_network; freed by vmcell_network_port_free. Any thread may make any call.
pub struct NetworkPortObject(Slot<Port>);

impl Object for NetworkPortObject {
    const NAME: &'static str = "vmcell_network_port";
}

impl Described for NetworkPortObject {
    type Value = Port;

    fn slot(&self) -> &Slot<Port> {
        &self.0
    }
}

/// Makes the port of machine number `number`, 1 to 0xffffff, of host number `host`, 1 to 65535. `network` is borrowed. Never blocks for long.
///
/// Errors: BAD_VALUE for another number; INVALID_CONFIG if the address is in use, or the network has as many ports as it may.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_network_port_new(
    network: *const NetworkObject,
    host: u32,
    number: u32,
    port: *mut *mut NetworkPortObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let port = unsafe { Out::new(port, "port") }?;
        let network = objects::get(network)?;
        let address = machine(network.network().subnet(), host, number)?;
        port.insert(NetworkPortObject(Slot::new(network.network().port(address)?)))
    })
}

/// As vmcell_network_port_new, for a machine whose guest takes itself for machine number `source` of host number `source_host`: a fork of that one,
/// which keeps the addresses that it had at the snapshot. The network knows it by its own address alone, and replaces the one by the other in
/// its packets. The guest and the machine that it takes itself for cannot reach each other.
///
/// Errors: as vmcell_network_port_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_network_port_new_for_clone(
    network: *const NetworkObject,
    host: u32,
    number: u32,
    source_host: u32,
    source: u32,
    port: *mut *mut NetworkPortObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let port = unsafe { Out::new(port, "port") }?;
        let network = objects::get(network)?;
        let subnet = network.network().subnet();
        let (address, source) = (machine(subnet, host, number)?, machine(subnet, source_host, source)?);
        port.insert(NetworkPortObject(Slot::new(network.network().port_for_clone(address, source)?)))
    })
}

/// Gives the machine a name, 1 to 63 letters, digits and hyphens: the network's name server has its address under "NAME.internal" while it runs.
/// Several machines may have one name, and a machine eight. Never blocks for long.
///
/// Errors: INVALID_CONFIG for another name, one that the machine has, and the ninth. Then the port stays as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_network_port_add_name(
    port: *mut NetworkPortObject,
    name: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let name = unsafe { read_text(name, "name") }?;
        Ok(look(port, |port| port.add_name(&name))??)
    })
}

/// Writes the machine's IPv6 address as text, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it needs without
/// the NUL, at most 39. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_network_port_address(
    port: *const NetworkPortObject,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutText::new(buffer, capacity, length) }?;
        out.write(&look(port, |port| port.address().ip().to_string())?);
        Ok(())
    })
}

/// Frees a port that no interface got: its address is free again. NULL is fine. Never blocks for long.
///
/// Errors: BAD_HANDLE, also if it was handed over to an interface.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_network_port_free(port: *mut NetworkPortObject) -> i32 {
    free(port, drop)
}

/// Makes an interface on a port, with the MAC address and the MTU that belong to it, which must stay as they are. `port` is taken. It never blocks,
/// so the VM's own I/O thread serves it. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_new_network(
    port: *mut NetworkPortObject,
    nic: *mut *mut NicObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // First, since it is taken in any case.
        let port = hand_over(port)?;
        // SAFETY: the header demands NULL or a place for the result.
        let nic = unsafe { Out::new(nic, "nic") }?;
        nic.insert(NicObject::new(port.into_nic()))
    })
}
