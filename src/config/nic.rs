//! A network interface as the guest sees it, and the names that a TAP device may have.

use super::limits::Limits;
use crate::error::{Error, ErrorKind, Result};

/// IFNAMSIZ, with its NUL.
const NAME_BYTES: usize = 16;
/// The least that IPv4 allows (RFC 791), and the virtio specification with it (5.1.4.1).
const MIN_MTU: u16 = 68;
/// The most pairs of queues of a card.
const MAX_QUEUES: u16 = 16;

/// A network card on a TAP device of the host, as plain data. [`Nic`](crate::Nic) has open descriptors and backends as well.
///
/// ```
/// use vmcell::NicConfig;
///
/// let nic = NicConfig::tap("tap0").mac([0x02, 0, 0, 0, 0, 0x10]).mtu(9000);
/// assert_eq!(nic.mtu, Some(9000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, expecting = "an object such as { \"tap\": \"tap0\" }")
)]
#[non_exhaustive]
pub struct NicConfig {
    /// The name of the TAP device, 1 to 15 bytes, which is attached to when the VM is built; see [`Nic::tap`](crate::Nic::tap).
    pub tap: String,
    /// The MAC address that the guest is told, which must be a unicast one. By default it is a random one, another one each time.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none", with = "super::written::mac")
    )]
    pub mac: Option<[u8; 6]>,
    /// The largest packet, without its Ethernet header, that the guest is told to send: 68 to 65535 bytes. By default the guest
    /// is told nothing, and then guests use 1500.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub mtu: Option<u16>,
    /// How many pairs of queues the guest's driver may use, 1 to 16; see [`Nic::queues`](crate::Nic::queues). By default there is
    /// one for each vCPU, but no more than four, if the TAP device was made with several queues, and otherwise one.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub queues: Option<u16>,
    /// Limits for the frames that the guest gets; see [`Nic::receive_limits`](crate::Nic::receive_limits). The default is none.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub receive_limits: Limits,
    /// Limits for the frames that the guest sends; see [`Nic::send_limits`](crate::Nic::send_limits). The default is none.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub send_limits: Limits,
    /// The name of a group of the VM's [`limit_groups`](crate::VmConfig::limit_groups), whose limits the frames that the guest gets keep
    /// to, too. The default is none.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub receive_group: Option<String>,
    /// The same for the frames that the guest sends. It may be the same group.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub send_group: Option<String>,
}

impl NicConfig {
    /// A network card on the TAP device of this name.
    pub fn tap(name: impl Into<String>) -> Self {
        let none = Limits::default();
        Self {
            tap: name.into(),
            mac: None,
            mtu: None,
            queues: None,
            receive_limits: none,
            send_limits: none,
            receive_group: None,
            send_group: None,
        }
    }

    /// Sets the MAC address that the guest is told.
    #[must_use]
    pub fn mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Sets the largest packet that the guest is told to send, in bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Sets how many pairs of queues the guest's driver may use.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = Some(queues);
        self
    }

    /// Sets limits for the frames that the guest gets.
    #[must_use]
    pub fn receive_limits(mut self, limits: Limits) -> Self {
        self.receive_limits = limits;
        self
    }

    /// Sets limits for the frames that the guest sends.
    #[must_use]
    pub fn send_limits(mut self, limits: Limits) -> Self {
        self.send_limits = limits;
        self
    }

    /// Puts the frames that the guest gets into a group of the VM's [`limit_groups`](crate::VmConfig::limit_groups).
    #[must_use]
    pub fn receive_group(mut self, name: impl Into<String>) -> Self {
        self.receive_group = Some(name.into());
        self
    }

    /// Puts the frames that the guest sends into a group of the VM's [`limit_groups`](crate::VmConfig::limit_groups).
    #[must_use]
    pub fn send_group(mut self, name: impl Into<String>) -> Self {
        self.send_group = Some(name.into());
        self
    }

    /// What messages call the card of this number: `nic 0 (tap0)`.
    pub(crate) fn label(&self, index: usize) -> String {
        format!("nic {index} ({})", self.tap)
    }

    /// Refuses what no card on a TAP device can be.
    pub(crate) fn validate_described(&self) -> Result<()> {
        check_tap_name(&self.tap)?;
        self.validate()
    }

    /// Refuses what no card can be, whatever it is on.
    pub(crate) fn validate(&self) -> Result<()> {
        if let Some(mac) = self.mac.filter(|mac| mac[0] & 1 == 1 || *mac == [0; 6]) {
            let [a, b, c, d, e, f] = mac;
            let message = format!(
                "MAC address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} is no unicast address (its first byte must \
                 be even, and not all may be zero)"
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < MIN_MTU) {
            let message = format!("an MTU of {mtu} bytes was asked for, allowed are {MIN_MTU} to {}", u16::MAX);
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        self.receive_limits.validate().map_err(|error| error.about("what it receives"))?;
        self.send_limits.validate().map_err(|error| error.about("what it sends"))?;
        self.queues.map_or(Ok(()), |queues| check_queue_count(queues.into()))
    }
}

/// Refuses a number of pairs of queues that no card can have.
pub(crate) fn check_queue_count(queues: usize) -> Result<()> {
    if (1..=MAX_QUEUES.into()).contains(&queues) {
        return Ok(());
    }
    let message = format!("a network card with {queues} queues was asked for, allowed are 1 to {MAX_QUEUES}");
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

/// Refuses names that no network interface can have.
pub(crate) fn check_tap_name(name: &str) -> Result<()> {
    let len = name.len();
    if len == 0 || len >= NAME_BYTES {
        let message = format!("TAP name {name:?} has {len} bytes, allowed are 1 to {}", NAME_BYTES - 1);
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    // The kernel refuses the same; a percent sign would make it invent a name.
    let forbidden = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, 0 | b'/' | b':' | b'%');
    if name.bytes().any(forbidden) || matches!(name, "." | "..") {
        let message = format!("TAP name {name:?} must hold no space, NUL, slash, colon or percent sign");
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_to_fifteen_bytes() {
        assert!(check_tap_name("t").is_ok());
        assert!(check_tap_name("vmcell-tap-0123").is_ok());
        let long = check_tap_name("vmcell-tap-01234").unwrap_err().to_string();
        assert_eq!(long, "TAP name \"vmcell-tap-01234\" has 16 bytes, allowed are 1 to 15");
        assert!(check_tap_name("").is_err());
    }

    #[test]
    fn names_that_the_kernel_refuses_are_refused() {
        for name in ["a/b", "a b", "a\0b", "a:0", "tap%d", ".", ".."] {
            assert!(check_tap_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_card_has_1_to_16_queues() {
        let with = |queues| NicConfig { queues, ..NicConfig::tap("") }.validate();
        [None, Some(1), Some(16)].into_iter().for_each(|queues| with(queues).unwrap());
        for queues in [0, 17, u16::MAX] {
            let error = with(Some(queues)).unwrap_err().to_string();
            assert_eq!(error, format!("a network card with {queues} queues was asked for, allowed are 1 to 16"));
        }
    }

    #[test]
    fn addresses_must_be_unicast() {
        let mac = |mac| NicConfig::tap("").mac(mac).validate();
        assert!(mac([2, 0, 0, 0, 0, 1]).is_ok());
        assert!(mac([0, 0, 0, 0, 0, 1]).is_ok());
        for refused in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
            assert!(mac(refused).unwrap_err().to_string().contains("is no unicast address"));
        }
    }

    #[test]
    fn the_mtu_is_at_least_what_ip_needs() {
        let mtu = |mtu| NicConfig::tap("").mtu(mtu).validate();
        assert!(mtu(68).is_ok() && mtu(u16::MAX).is_ok());
        assert_eq!(mtu(67).unwrap_err().to_string(), "an MTU of 67 bytes was asked for, allowed are 68 to 65535");
    }
}
