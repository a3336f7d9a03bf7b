//! Ranges of IPv6 addresses.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// A range of IPv6 addresses: those that share their first bits.
///
/// ```
/// use vmcell::network::Prefix;
///
/// # fn main() -> vmcell::Result<()> {
/// let prefix: Prefix = "fdac:1705:0:7::/64".parse()?;
/// assert!(prefix.contains("fdac:1705:0:7::3".parse().unwrap()));
/// assert!("fdac::1/64".parse::<Prefix>().is_err(), "bits behind the prefix");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: Ipv6Addr,
    bits: u8,
}

impl Prefix {
    /// Every address.
    pub const ALL: Self = Self { address: Ipv6Addr::UNSPECIFIED, bits: 0 };

    /// Makes the range of addresses that have the first `bits` of `address`, 0 to 128.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for more bits, or if a bit behind them is set: that may be a slip.
    pub fn new(address: Ipv6Addr, bits: u8) -> Result<Self> {
        let prefix = Self::cut(address, bits);
        if bits > 128 {
            let message = format!("a prefix of {bits} bits was asked for, allowed are 0 to 128");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if prefix.address != address {
            let message =
                format!("the prefix {address}/{bits} has bits behind it, the range that it lies in is {prefix}");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        Ok(prefix)
    }

    /// The range of `bits` that `address` lies in.
    pub(super) fn cut(address: Ipv6Addr, bits: u8) -> Self {
        let bits = bits.min(128);
        Self { address: (address.to_bits() & mask(bits)).into(), bits }
    }

    /// Returns the first address.
    pub const fn address(self) -> Ipv6Addr {
        self.address
    }

    /// Returns how many bits its addresses share.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Whether an address lies in the range.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.bits) == self.address.to_bits()
    }

    /// Whether any address lies in both ranges.
    pub fn overlaps(self, other: Self) -> bool {
        if self.bits <= other.bits { self.contains(other.address) } else { other.contains(self.address) }
    }

    /// Whether all addresses of another range are among its own.
    pub(super) fn contains_all(self, other: Self) -> bool {
        self.bits <= other.bits && self.contains(other.address)
    }
}

/// The first `bits` of an address.
fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128u32.saturating_sub(bits.into())).unwrap_or(0)
}

impl From<Ipv6Addr> for Prefix {
    /// The range of this address alone.
    fn from(address: Ipv6Addr) -> Self {
        Self { address, bits: 128 }
    }
}

impl FromStr for Prefix {
    type Err = Error;

    /// Reads `ADDRESS/BITS`, or an address alone.
    fn from_str(text: &str) -> Result<Self> {
        let refused = || {
            let message = format!("{text:?} is no prefix of IPv6 addresses, which looks like fd00::/64");
            Error::new(ErrorKind::InvalidConfig, message)
        };
        let (address, bits) = text.split_once('/').unwrap_or((text, "128"));
        let address = address.parse().map_err(|e| refused().with_source(e))?;
        // Rust's numbers may have a sign.
        if bits.starts_with('+') {
            return Err(refused());
        }
        Self::new(address, bits.parse().map_err(|e| refused().with_source(e))?)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_prefix_contains_what_shares_its_bits(address: u128, other: u128, bits in 0u8..=128) {
            let prefix = Prefix::cut(address.into(), bits);
            let shared = (address ^ other).leading_zeros() >= bits.into();
            prop_assert_eq!(prefix.contains(other.into()), shared);
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
            prop_assert_eq!(prefix.overlaps(Ipv6Addr::from(other).into()), shared);
        }
    }

    #[test]
    fn ranges_overlap_if_one_lies_in_the_other() {
        let [wide, inside, beside]: [Prefix; 3] =
            ["fd00::/16", "fd00:1::/32", "fd01::/16"].map(|text| text.parse().unwrap());
        assert!(wide.overlaps(inside) && inside.overlaps(wide) && Prefix::ALL.overlaps(beside));
        assert!(!wide.overlaps(beside) && !beside.overlaps(inside));
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_what_was_said() {
        for (text, says) in [
            ("fd00::/129", "a prefix of 129 bits was asked for, allowed are 0 to 128"),
            ("fd00::1/16", "the prefix fd00::1/16 has bits behind it, the range that it lies in is fd00::/16"),
            ("fd00::/x", "\"fd00::/x\" is no prefix of IPv6 addresses, which looks like fd00::/64"),
            ("fd00::/+8", "\"fd00::/+8\" is no prefix of IPv6 addresses, which looks like fd00::/64"),
            ("10.0.0.0/8", "\"10.0.0.0/8\" is no prefix of IPv6 addresses, which looks like fd00::/64"),
            ("", "\"\" is no prefix of IPv6 addresses, which looks like fd00::/64"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap_err().to_string(), says);
        }
    }
}
