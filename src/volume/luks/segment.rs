//! The segment of the data: where they lie, and how they are encrypted (LUKS2 on-disk format, section 3.3).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::Long;
use super::keyslot::CIPHER;
use crate::error::Result;
use crate::volume::cipher::SECTOR_SIZES;
use crate::volume::refused;

/// Where the data lie, and how they are encrypted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Segment {
    #[serde(rename = "type")]
    kind: String,
    offset: Long,
    size: String,
    iv_tweak: Long,
    encryption: String,
    sector_size: usize,
    #[serde(default, skip_serializing)]
    integrity: Option<Value>,
}

/// Where the data lie, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    /// Where they begin.
    pub(crate) offset: u64,
    /// How long they are, unless they go on to the end of the file.
    pub(crate) len: Option<u64>,
    /// What is added to the number of each unit of 512 bytes.
    pub(crate) first_unit: u64,
    pub(crate) sector_size: usize,
}

impl Data {
    /// Where byte `at` of the data lies in the file.
    pub(crate) fn below(self, at: u64) -> u64 {
        at.saturating_add(self.offset)
    }

    /// The byte that the cipher takes it for.
    pub(crate) fn for_cipher(self, at: u64) -> u64 {
        at.wrapping_add(self.first_unit.wrapping_mul(512))
    }

    /// How much of a file of this length is data, in whole sectors. A disk has at least one, also if its file was cut: reading it fails
    /// then.
    pub(crate) fn capacity(self, file_len: u64) -> u64 {
        let (there, sector) = (file_len.saturating_sub(self.offset), self.sector_size as u64);
        let len = self.len.map_or(there, |len| len.min(there));
        len.saturating_sub(len.checked_rem(sector).unwrap_or_default()).max(sector)
    }
}

impl Segment {
    /// To the end of the file.
    pub(super) fn new(offset: u64, sector_size: usize) -> Self {
        let (kind, size, encryption) = ("crypt".into(), "dynamic".into(), CIPHER.into());
        Self { kind, offset: Long(offset), size, iv_tweak: Long(0), encryption, sector_size, integrity: None }
    }

    pub(super) fn data(&self) -> Result<Data> {
        if self.kind != "crypt" {
            return Err(refused(format!("its data are of the type {:?}, known is crypt", self.kind)));
        }
        if let Some(integrity) = &self.integrity {
            return Err(refused(format!("its data have integrity tags ({integrity}), which are not known here")));
        }
        if self.encryption != CIPHER {
            let message = format!("its data are encrypted by {:?}, known is {CIPHER}", self.encryption);
            return Err(refused(message));
        }
        if !SECTOR_SIZES.contains(&self.sector_size) {
            let message = format!("its sectors have {} bytes, allowed are 512, 1024, 2048 and 4096", self.sector_size);
            return Err(refused(message));
        }
        let len = match self.size.as_str() {
            "dynamic" => None,
            size => Some(size.parse().map_err(|_| refused(format!("its data have the size {size:?}, which is none")))?),
        };
        if [self.offset.0, len.unwrap_or(0)].iter().any(|place| !place.is_multiple_of(512)) {
            return Err(refused(format!(
                "its data begin at byte {}, or have a length, within a sector",
                self.offset.0
            )));
        }
        Ok(Data { offset: self.offset.0, len, first_unit: self.iv_tweak.0, sector_size: self.sector_size })
    }
}
