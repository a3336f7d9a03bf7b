//! A key slot as the JSON has it (LUKS2 on-disk format, section 3.2).

use serde::{Deserialize, Serialize};

use super::hash::Hash;
use super::json::Long;
use super::kdf::Kdf;
use crate::error::Result;
use crate::volume::refused;

/// The only cipher, of data and of key slots.
pub(crate) const CIPHER: &str = "aes-xts-plain64";
/// How many stripes a key is spread over, and the most that a header may say.
pub(super) const STRIPES: usize = 4000;

/// A key slot of the type "luks2".
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Keyslot {
    #[serde(rename = "type")]
    kind: String,
    pub(super) key_size: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<u32>,
    af: Splitter,
    pub(super) area: Area,
    pub(super) kdf: Kdf,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Splitter {
    #[serde(rename = "type")]
    kind: String,
    stripes: usize,
    hash: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Area {
    #[serde(rename = "type")]
    kind: String,
    pub(super) offset: Long,
    pub(super) size: Long,
    encryption: String,
    pub(super) key_size: usize,
}

/// How a slot's key is spread, checked.
pub(super) struct Stripes {
    pub(super) count: usize,
    pub(super) hash: Hash,
}

impl Keyslot {
    pub(super) fn new(key_size: usize, area: (u64, u64), hash: Hash, kdf: Kdf) -> Self {
        let af = Splitter { kind: "luks1".into(), stripes: STRIPES, hash: hash.name().into() };
        let (offset, size) = (Long(area.0), Long(area.1));
        let area = Area { kind: "raw".into(), offset, size, encryption: CIPHER.into(), key_size: 64 };
        Self { kind: "luks2".into(), key_size, priority: None, af, area, kdf }
    }

    /// How the key is spread.
    ///
    /// # Errors
    /// If the slot is of a kind that is not known, which is named, or its sizes make no sense.
    pub(super) fn stripes(&self) -> Result<Stripes> {
        let Self { kind, key_size, af, area, .. } = self;
        for (what, said, known) in [
            ("type", kind, "luks2"),
            ("splitter", &af.kind, "luks1"),
            ("area", &area.kind, "raw"),
            ("cipher", &area.encryption, CIPHER),
        ] {
            if said != known {
                return Err(refused(format!("its {what} is {said:?}, known is {known:?}")));
            }
        }
        for size in [key_size, &area.key_size] {
            if !matches!(size, 32 | 64) {
                return Err(refused(format!("its key has {size} bytes, allowed are 32 and 64")));
            }
        }
        if !(1..=STRIPES).contains(&af.stripes) {
            return Err(refused(format!("its key has {} stripes, allowed are 1 to {STRIPES}", af.stripes)));
        }
        let stripes = Stripes { count: af.stripes, hash: Hash::named(&af.hash, "its splitter")? };
        let len = stripes.count.saturating_mul(*key_size) as u64;
        if area.size.0 < len {
            return Err(refused(format!("its area has {} bytes, its key needs {len}", area.size.0)));
        }
        Ok(stripes)
    }
}
