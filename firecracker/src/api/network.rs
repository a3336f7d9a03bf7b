//! `/network-interfaces/{iface_id}`: network cards on TAP devices.

use std::fmt;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

use super::limiter::RateLimiter;

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterface {
    /// What it is called.
    pub iface_id: String,
    /// The TAP device.
    pub host_dev_name: String,
    /// The guest's address.
    pub guest_mac: Option<Mac>,
    /// The largest packet that the guest is told to send.
    pub mtu: Option<u16>,
    /// What the guest may receive.
    pub rx_rate_limiter: Option<RateLimiter>,
    /// What the guest may send.
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// What changes of a card while the guest runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterfaceUpdate {
    /// What it is called.
    pub iface_id: String,
    /// What the guest may receive.
    pub rx_rate_limiter: Option<RateLimiter>,
    /// What the guest may send.
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, last] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let byte = |part: &str| {
            let is_two_digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(part, 16).ok().filter(|_| is_two_digits)
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        let refused =
            || D::Error::custom(format!("{text:?} is no MAC address, allowed are six bytes as in 02:00:00:00:00:01"));
        bytes.map(Self).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_and_what_is_none_is_refused() {
        let mac: Mac = serde_json::from_str("\"06:0A:00:00:00:ff\"").unwrap();
        assert_eq!(serde_json::to_string(&mac).unwrap(), "\"06:0a:00:00:00:ff\"");
        for text in
            ["", "06", "06:0a:00:00:00", "06:0a:00:00:00:ff:00", "+6:00:00:00:00:00", "6:0:0:0:0:0", "é:00:00:00:00:00"]
        {
            let refused = serde_json::from_value::<Mac>(text.into()).unwrap_err().to_string();
            assert!(refused.contains("allowed are six bytes"), "{text}: {refused}");
        }
    }
}
