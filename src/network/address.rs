//! Addresses: a network, a host and a machine as one IPv6 address, and as one MAC address.

use std::fmt;
use std::net::Ipv6Addr;

use super::prefix::Prefix;
use crate::error::{Error, ErrorKind, Result};

/// Unicast, and the bit of addresses that no maker has given out.
const FIRST_OF_MAC: u8 = 0x02;
/// What EUI-64 turns it into (RFC 4291, appendix A).
const FIRST_OF_IID: u8 = 0x00;
/// What EUI-64 puts in the middle.
const MIDDLE: [u8; 2] = [0xff, 0xfe];
/// In front of a service's number.
const SERVICE: [u8; 4] = [0, 0, 0, 1];

/// The addresses of one private network: a /64 of unique local addresses (RFC 4193).
///
/// ```text
///   fd rr rr rr  nn nn nn nn | 00 hh hh  ff fe  mm mm mm      IPv6 address of a machine
///   \_realm____/ \_network_/   \_by EUI-64 from the MAC_/
///                              02 hh hh         mm mm mm      its MAC address
/// ```
///
/// A realm is what belongs together: three bytes that its owner draws by lot, so that two realms which are joined one day do not
/// clash. All networks of a realm are the prefix `fdrr:rrrr::/32`, one network is a /64, since guests make their own addresses from no
/// other length, and the machines of one host are a /88 of it, which is what a tunnel to that host may carry.
///
/// Because a machine's address is the one that EUI-64 makes from its MAC address, a guest with a stock system has it as soon as
/// it hears the network's router advertisement. A guest that makes addresses of other kinds as well (RFC 7217, RFC 8981) cannot use
/// them, since the network takes nothing from them.
///
/// ```
/// use vmcell::network::Subnet;
///
/// # fn main() -> vmcell::Result<()> {
/// let subnet = Subnet::new([0xac, 0x17, 0x05], 7);
/// let machine = subnet.machine(3, 0x01_02_03)?;
/// assert_eq!(machine.ip().to_string(), "fdac:1705:0:7:0:3ff:fe01:203");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    realm: [u8; 3],
    network: u32,
}

/// The address of one machine of a [`Subnet`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MachineAddress {
    subnet: Subnet,
    host: u16,
    machine: u32,
}

impl Subnet {
    /// The largest number of a machine: 24 bits.
    pub const LARGEST_MACHINE: u32 = 0xff_ffff;

    /// Names network number `network` of a realm.
    pub const fn new(realm: [u8; 3], network: u32) -> Self {
        Self { realm, network }
    }

    /// Returns the three bytes of the realm.
    pub const fn realm(self) -> [u8; 3] {
        self.realm
    }

    /// Returns the network's number in its realm.
    pub const fn network(self) -> u32 {
        self.network
    }

    /// Returns the /64 of the whole network.
    pub fn prefix(self) -> Prefix {
        Prefix::cut(self.with([0; 8]), 64)
    }

    /// Returns the /88 of a host's machines, which is what a tunnel to that host may carry.
    pub fn host_prefix(self, host: u16) -> Prefix {
        let [high, low] = host.to_be_bytes();
        Prefix::cut(self.with([FIRST_OF_IID, high, low, 0, 0, 0, 0, 0]), 88)
    }

    /// Returns where the network's own DNS server answers. No machine can have this address.
    pub fn dns(self) -> Ipv6Addr {
        self.with([0, 0, 0, 0, 0, 0, 0, 3])
    }

    /// Returns the address of service number `number`, which stands for several machines. No machine can have this address.
    ///
    /// ```
    /// # use vmcell::network::Subnet;
    /// let subnet = Subnet::new([0xac, 0x17, 0x05], 7);
    /// assert_eq!(subnet.service(0x50).to_string(), "fdac:1705:0:7:0:1:0:50");
    /// ```
    pub fn service(self, number: u32) -> Ipv6Addr {
        let ([a, b, c, d], [e, f, g, h]) = (SERVICE, number.to_be_bytes());
        self.with([a, b, c, d, e, f, g, h])
    }

    /// Returns the /96 of all services.
    pub fn services(self) -> Prefix {
        Prefix::cut(self.service(0), 96)
    }

    /// Returns the number of the service that has an address; `None` for any other address.
    pub fn service_number(self, address: Ipv6Addr) -> Option<u32> {
        let number = address.octets().last_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
        (self.service(number) == address).then_some(number)
    }

    /// Returns the address of a machine: number `machine`, 1 to [`LARGEST_MACHINE`](Self::LARGEST_MACHINE), of host number `host`, 1 to
    /// 65535. Host 0 is the network itself.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a number that is out of range.
    pub fn machine(self, host: u16, machine: u32) -> Result<MachineAddress> {
        if host == 0 {
            let message = "host number 0 of a network was asked for, allowed are 1 to 65535; 0 is the network itself";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if !(1..=Self::LARGEST_MACHINE).contains(&machine) {
            let message = format!(
                "machine number {machine} of a network was asked for, allowed are 1 to {}",
                Self::LARGEST_MACHINE
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        Ok(MachineAddress { subnet: self, host, machine })
    }

    /// The address with these last eight bytes.
    pub(super) fn with(self, interface: [u8; 8]) -> Ipv6Addr {
        let [r0, r1, r2] = self.realm;
        let [n0, n1, n2, n3] = self.network.to_be_bytes();
        let [a, b, c, d, e, f, g, h] = interface;
        Ipv6Addr::from([0xfd, r0, r1, r2, n0, n1, n2, n3, a, b, c, d, e, f, g, h])
    }
}

impl MachineAddress {
    /// Reads the address of a machine of whatever network. Returns `None` for any other address.
    pub fn from_ip(ip: Ipv6Addr) -> Option<Self> {
        let [0xfd, r0, r1, r2, n0, n1, n2, n3, FIRST_OF_IID, h0, h1, 0xff, 0xfe, m0, m1, m2] = ip.octets() else {
            return None;
        };
        let subnet = Subnet::new([r0, r1, r2], u32::from_be_bytes([n0, n1, n2, n3]));
        subnet.machine(u16::from_be_bytes([h0, h1]), u32::from_be_bytes([0, m0, m1, m2])).ok()
    }

    /// Returns the network.
    pub const fn subnet(self) -> Subnet {
        self.subnet
    }

    /// Returns the host's number.
    pub const fn host(self) -> u16 {
        self.host
    }

    /// Returns the machine's number on its host.
    pub const fn machine(self) -> u32 {
        self.machine
    }

    /// Returns the IPv6 address.
    pub fn ip(self) -> Ipv6Addr {
        self.subnet.with(self.interface())
    }

    /// Returns the link-local address, which the guest has beside the other one.
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f, g, h] = self.interface();
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h])
    }

    /// Returns the MAC address, from which a guest makes both.
    pub const fn mac(self) -> [u8; 6] {
        let [h0, h1] = self.host.to_be_bytes();
        let [_, m0, m1, m2] = self.machine.to_be_bytes();
        [FIRST_OF_MAC, h0, h1, m0, m1, m2]
    }

    /// What EUI-64 makes from the MAC address.
    fn interface(self) -> [u8; 8] {
        let [_, h0, h1, m0, m1, m2] = self.mac();
        let [ff, fe] = MIDDLE;
        [FIRST_OF_IID, h0, h1, ff, fe, m0, m1, m2]
    }
}

impl From<Subnet> for Prefix {
    /// The range of the whole network, for a [`Rule`](super::Rule).
    fn from(subnet: Subnet) -> Self {
        subnet.prefix()
    }
}

impl From<MachineAddress> for Prefix {
    /// The range of the machine's address alone, for a [`Rule`](super::Rule).
    fn from(address: MachineAddress) -> Self {
        address.ip().into()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix().fmt(f)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subnet({self})")
    }
}

impl fmt::Display for MachineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for MachineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MachineAddress({self}, host {}, machine {})", self.host, self.machine)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As RFC 4291, appendix A, has it.
    fn eui64(mac: [u8; 6]) -> [u8; 8] {
        let [a, b, c, d, e, f] = mac;
        [a ^ 2, b, c, 0xff, 0xfe, d, e, f]
    }

    proptest! {
        #[test]
        fn a_guest_makes_its_address_from_its_mac_and_the_address_says_whose_it_is(
            realm: [u8; 3], network: u32, host in 1u16.., machine in 1..=Subnet::LARGEST_MACHINE,
        ) {
            let subnet = Subnet::new(realm, network);
            let address = subnet.machine(host, machine).unwrap();
            prop_assert_eq!(&address.ip().octets()[8..], &eui64(address.mac()));
            prop_assert_eq!(&address.link_local().octets()[8..], &eui64(address.mac()));
            prop_assert_eq!(address.mac()[0] & 3, 2, "unicast, and locally administered");
            prop_assert_eq!(MachineAddress::from_ip(address.ip()), Some(address));
            prop_assert!(subnet.prefix().contains(address.ip()) && subnet.host_prefix(host).contains(address.ip()));
            prop_assert!(!subnet.host_prefix(host.wrapping_add(1)).contains(address.ip()));
            prop_assert_eq!((Prefix::from(address), Prefix::from(subnet)), (address.ip().into(), subnet.prefix()));
        }

        #[test]
        fn an_address_that_is_read_is_the_address_of_what_was_read(bytes: [u8; 16]) {
            let ip = Ipv6Addr::from(bytes);
            if let Some(address) = MachineAddress::from_ip(ip) {
                prop_assert_eq!(address.ip(), ip);
            }
        }
    }

    #[test]
    fn the_networks_own_addresses_are_no_machines() {
        let subnet = Subnet::new([1, 2, 3], 4);
        assert_eq!(MachineAddress::from_ip(subnet.dns()), None);
        for number in [0, 1, 0xff_fe00, 0xfffe_0001, u32::MAX] {
            let service = subnet.service(number);
            assert_eq!((MachineAddress::from_ip(service), subnet.service_number(service)), (None, Some(number)));
            assert!(subnet.services().contains(service) && subnet.host_prefix(0).contains(service));
        }
        let others = [subnet.dns(), Subnet::new([1, 2, 3], 5).service(1), subnet.machine(1, 1).unwrap().ip()];
        assert_eq!(others.map(|address| subnet.service_number(address)), [None; 3]);
        assert_eq!(MachineAddress::from_ip(subnet.with([0, 0, 0, 0xff, 0xfe, 0, 0, 1])), None, "host 0");
        assert_eq!(subnet.to_string(), "fd01:203:0:4::/64");
        assert_eq!(subnet.host_prefix(0x0506).to_string(), "fd01:203:0:4:5:600::/88");
    }

    #[test]
    fn numbers_that_are_out_of_range_are_refused_with_what_is_allowed() {
        let subnet = Subnet::new([1, 2, 3], 4);
        for (host, machine, says) in [
            (0, 1, "host number 0 of a network was asked for, allowed are 1 to 65535"),
            (1, 0, "machine number 0 of a network was asked for, allowed are 1 to 16777215"),
            (1, 0x100_0000, "machine number 16777216 of a network was asked for, allowed are 1 to 16777215"),
        ] {
            let error = subnet.machine(host, machine).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().starts_with(says), "{error}");
        }
    }
}
