//! Types of the header's JSON.

use base64ct::{Base64, Encoding};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of 64 bits, which JSON has as a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Long(pub(super) u64);

impl<'de> Deserialize<'de> for Long {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(|_| D::Error::custom(format!("{text:?} is no number of 64 bits")))
    }
}

impl Serialize for Long {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// Bytes, which JSON has as a text in base64: salts and digests, of which none is long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(super) Vec<u8>);

const MOST_BYTES: usize = 512;

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match Base64::decode_vec(&text) {
            Ok(bytes) if (1..=MOST_BYTES).contains(&bytes.len()) => Ok(Self(bytes)),
            _ => Err(D::Error::custom(format!("a salt or digest is not the base64 of 1 to {MOST_BYTES} bytes"))),
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(&Base64::encode_string(&self.0))
    }
}
