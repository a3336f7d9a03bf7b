//! Ranges of addresses that are a peer's, as `10.1.0.0/16`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::super::prefix::Prefix;
use super::{refused, shown};
use crate::error::{Error, Result};

/// All addresses that begin with the same bits, of IPv4 or IPv6. The other bits of its address are zero.
///
/// A private network has IPv6 addresses alone; IPv4 is for peers that have both.
///
/// ```
/// use vmcell::network::wireguard::AllowedIp;
///
/// let prefix: AllowedIp = "10.1.2.3/16".parse()?;
/// assert_eq!(prefix.to_string(), "10.1.0.0/16");
/// assert!(prefix.contains("10.1.9.9".parse().unwrap()));
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllowedIp {
    address: IpAddr,
    len: u8,
}

impl AllowedIp {
    /// The addresses that have the first `len` bits of `address`.
    ///
    /// # Errors
    /// [`Network`](crate::ErrorKind::Network) if `len` is larger than 32 for IPv4 or 128 for IPv6.
    pub fn new(address: IpAddr, len: u8) -> Result<Self> {
        let most = most(address);
        if len > most {
            return Err(refused(format!("a prefix of {len} bits for {address}, allowed are 0 to {most}")));
        }
        Ok(Self::cut(address, len))
    }

    /// The range of `len` bits that an address lies in.
    pub(super) fn cut(address: IpAddr, len: u8) -> Self {
        let len = len.min(most(address));
        let address = match address {
            IpAddr::V4(address) => IpAddr::V4((u32::from(address) & mask32(len)).into()),
            IpAddr::V6(address) => IpAddr::V6(Prefix::cut(address, len).address()),
        };
        Self { address, len }
    }

    /// A single address.
    pub fn single(address: IpAddr) -> Self {
        Self { address, len: most(address) }
    }

    /// The first of its addresses.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits its addresses have in common.
    #[allow(clippy::len_without_is_empty, reason = "a prefix of no bits is every address, not an empty one")]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether `address` is one of its addresses. An IPv6 address is never in a prefix of IPv4, also one that stands for an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => u32::from(own) == u32::from(other) & mask32(self.len),
            (IpAddr::V6(own), IpAddr::V6(other)) => Prefix::cut(other, self.len).address() == own,
            _ => false,
        }
    }
}

impl From<Prefix> for AllowedIp {
    fn from(prefix: Prefix) -> Self {
        Self { address: IpAddr::V6(prefix.address()), len: prefix.bits() }
    }
}

fn most(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask32(len: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(len.into())).unwrap_or(0)
}

/// An address with the number of bits that follow a slash, all of them if there is no slash.
pub(super) fn split(text: &str) -> Result<(IpAddr, u8)> {
    let (address, len) = text.split_once('/').map_or((text, None), |(address, len)| (address, Some(len)));
    let address: IpAddr =
        address.parse().map_err(|_| refused(format!("`{}` is no IP address with a prefix", shown(text))))?;
    let most = most(address);
    let Some(len) = len else { return Ok((address, most)) };
    // A sign would be taken by the standard library.
    let digits = len.bytes().all(|byte| byte.is_ascii_digit());
    let bits = len.parse().ok().filter(|bits| digits && *bits <= most);
    let bits = bits.ok_or_else(|| {
        refused(format!("`{}` has a prefix of `{}` bits, allowed are 0 to {most}", shown(text), shown(len)))
    })?;
    Ok((address, bits))
}

impl FromStr for AllowedIp {
    type Err = Error;

    /// Reads `ADDRESS/BITS`, or `ADDRESS` for a single one. Bits of the address that are not part of the prefix are cleared, as `wg` does.
    ///
    /// # Errors
    /// [`Network`](crate::ErrorKind::Network) if it is no address, or the prefix has too many bits.
    fn from_str(text: &str) -> Result<Self> {
        let (address, len) = split(text)?;
        Self::new(address, len)
    }
}

impl fmt::Display for AllowedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_and_written() {
        let cases = [
            ("10.1.2.3/16", "10.1.0.0/16"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("fd00:1:2:3::4/64", "fd00:1:2:3::/64"),
            ("fd00::1", "fd00::1/128"),
        ];
        for (text, written) in cases {
            assert_eq!(text.parse::<AllowedIp>().unwrap().to_string(), written);
        }
        for bad in
            ["", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0/8", "x/8", "::1/-1", "::/256"]
        {
            assert!(bad.parse::<AllowedIp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_contains_what_begins_like_it_and_nothing_of_the_other_family() {
        let all: AllowedIp = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.255.255.255".parse().unwrap()));
        assert!(!all.contains("::ffff:1.2.3.4".parse().unwrap()));
        let network: AllowedIp = "fd00::/16".parse().unwrap();
        assert!(network.contains("fd00:ffff::".parse().unwrap()));
        assert!(!network.contains("fd01::".parse().unwrap()));
        assert!(!network.contains("253.0.0.0".parse().unwrap()));
        let single = AllowedIp::single("fd00::1".parse().unwrap());
        assert!(single.contains("fd00::1".parse().unwrap()));
        assert!(!single.contains("fd00::2".parse().unwrap()));
    }
}
