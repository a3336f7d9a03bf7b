//! Addresses in private networks: numbers to text, and back.

use std::ffi::c_char;

use super::convert::{Out, OutArray, OutText, choice, read_plain, read_text};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE};
use super::guard::guard;
use super::nic::VMCELL_MAC_BYTES;
use super::report::{ErrorObject, Report};
use crate::network::{MachineAddress, Subnet};

/// The IPv6 address of the machine, such as "fdac:1705:0:7:0:1ff:fe00:2".
pub const VMCELL_ADDRESS_MACHINE: i32 = 0;
/// The address that the machine has on its link alone, such as "fe80::1ff:fe00:2".
pub const VMCELL_ADDRESS_LINK_LOCAL: i32 = 1;
/// The range of all machines of its host, such as "fdac:1705:0:7:0:100::/88": what a tunnel to that host may carry.
pub const VMCELL_ADDRESS_HOST: i32 = 2;
/// The range of the whole network, such as "fdac:1705:0:7::/64".
pub const VMCELL_ADDRESS_NETWORK: i32 = 3;
/// Where the network's name server answers, such as "fdac:1705:0:7::3".
pub const VMCELL_ADDRESS_DNS: i32 = 4;
/// The range of all services of the network, such as "fdac:1705:0:7:0:1::/96": what a tunnel to a host that has services may carry, too.
pub const VMCELL_ADDRESS_SERVICES: i32 = 5;
/// The address of the service whose number is `machine`, of 32 bits, such as "fdac:1705:0:7:0:1:0:50": what the rules of other hosts name.
pub const VMCELL_ADDRESS_SERVICE: i32 = 6;

/// The largest number of a realm, which has three bytes.
const LARGEST_REALM: u32 = 0xff_ffff;

/// A machine of a private network, by its numbers. docs/network.md shows how its addresses are made of them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct AddressNumbers {
    /// What networks belong together, 0 to 0xffffff: draw it by lot, so that realms which are joined one day do not clash.
    pub realm: u32,
    /// The network in its realm.
    pub network: u32,
    /// The host, 1 to 65535.
    pub host: u32,
    /// The machine on its host, 1 to 0xffffff; for VMCELL_ADDRESS_SERVICE, the service.
    pub machine: u32,
}

impl AddressNumbers {
    fn subnet(self) -> FfiResult<Subnet> {
        subnet(self.realm, self.network)
    }

    fn host(self) -> FfiResult<u16> {
        let host = u16::try_from(self.host).ok().filter(|host| *host > 0);
        host.ok_or_else(|| {
            Failure::new(VMCELL_ERROR_BAD_VALUE, format!("host is {}, allowed are 1 to 65535", self.host))
        })
    }

    fn address(self) -> FfiResult<MachineAddress> {
        machine(self.subnet()?, self.host, self.machine)
    }
}

impl From<MachineAddress> for AddressNumbers {
    fn from(address: MachineAddress) -> Self {
        let [r0, r1, r2] = address.subnet().realm();
        let (realm, network) = (u32::from_be_bytes([0, r0, r1, r2]), address.subnet().network());
        Self { realm, network, host: address.host().into(), machine: address.machine() }
    }
}

/// The addresses of a network by its numbers.
pub(super) fn subnet(realm: u32, network: u32) -> FfiResult<Subnet> {
    let [0, r0, r1, r2] = realm.to_be_bytes() else {
        let message = format!("realm is {realm:#x}, allowed are 0 to {LARGEST_REALM:#x}");
        return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message));
    };
    Ok(Subnet::new([r0, r1, r2], network))
}

/// The address of a machine by its numbers.
pub(super) fn machine(subnet: Subnet, host: u32, machine: u32) -> FfiResult<MachineAddress> {
    let host = AddressNumbers { realm: 0, network: 0, host, machine }.host()?;
    subnet.machine(host, machine).map_err(|e| Failure::new(VMCELL_ERROR_BAD_VALUE, e.to_string()))
}

/// Writes an address as text, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it needs without the NUL, at
/// most 43. `what` is one of VMCELL_ADDRESS_*; the machine, or that and the host, are not looked at if it does not need them. Never blocks.
///
/// Errors: BAD_VALUE for another `what`, and for a number that is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_machine_address_text(
    address: *const AddressNumbers,
    what: i32,
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
        // SAFETY: the header demands NULL or a structure.
        let numbers = unsafe { read_plain(address, "address") }?;
        type Write = fn(AddressNumbers) -> FfiResult<String>;
        let writers: [(i32, Write); 7] = [
            (VMCELL_ADDRESS_MACHINE, |numbers| Ok(numbers.address()?.ip().to_string())),
            (VMCELL_ADDRESS_LINK_LOCAL, |numbers| Ok(numbers.address()?.link_local().to_string())),
            (VMCELL_ADDRESS_HOST, |numbers| Ok(numbers.subnet()?.host_prefix(numbers.host()?).to_string())),
            (VMCELL_ADDRESS_NETWORK, |numbers| Ok(numbers.subnet()?.prefix().to_string())),
            (VMCELL_ADDRESS_DNS, |numbers| Ok(numbers.subnet()?.dns().to_string())),
            (VMCELL_ADDRESS_SERVICES, |numbers| Ok(numbers.subnet()?.services().to_string())),
            (VMCELL_ADDRESS_SERVICE, |numbers| Ok(numbers.subnet()?.service(numbers.machine).to_string())),
        ];
        out.write(&choice("what", what, &writers)?(numbers)?);
        Ok(())
    })
}

/// Reads the IPv6 address of a machine of whatever network, and sets `address` to its numbers. Never blocks.
///
/// Errors: BAD_VALUE if the text is no IPv6 address, or one that no machine of any network can have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_machine_address_parse(
    text: *const c_char,
    address: *mut AddressNumbers,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let address = unsafe { Out::new(address, "address") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let text = unsafe { read_text(text, "text") }?;
        let refused = |what: &str| {
            let message = format!("{text:?} is no {what}, which looks like fdac:1705:0:7:0:1ff:fe00:2");
            Failure::new(VMCELL_ERROR_BAD_VALUE, message)
        };
        let ip = text.parse().map_err(|_| refused("IPv6 address of a machine"))?;
        let machine = MachineAddress::from_ip(ip).ok_or_else(|| refused("address that a machine of a network has"))?;
        address.write(machine.into());
        Ok(())
    })
}

/// Writes the MAC address that belongs to an address: VMCELL_MAC_BYTES bytes. The interface of the machine has it. Never blocks.
///
/// Errors: BAD_VALUE for a number that is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_machine_address_mac(
    address: *const AddressNumbers,
    mac: *mut u8,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or that many bytes.
        let mac = unsafe { OutArray::new(mac, VMCELL_MAC_BYTES, "mac") }?;
        // SAFETY: the header demands NULL or a structure.
        let numbers = unsafe { read_plain(address, "address") }?;
        mac.write(&numbers.address()?.mac());
        Ok(())
    })
}
