//! What a volume's header tells without a key.

use serde::Serialize;

use super::luks::{CIPHER, Header, Kdf};
use crate::error::Result;

/// What a volume's header tells without a key. Nothing vouches for it: whoever can write to the file chooses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// The identifier that was made with the volume.
    pub uuid: String,
    /// The name that was given to it, or nothing.
    pub label: String,
    /// How the data are encrypted, as the header names it.
    pub cipher: String,
    /// Bytes of a sector, the smallest part of the data that is read or written: 512 to 4096.
    pub sector_size: usize,
    /// Where the data begin in the file, in bytes.
    pub data_offset: u64,
    /// The bytes of data that there is room for, in the file in which the header is; `None` of a fork, which tells it to who has its key alone.
    pub capacity: Option<u64>,
    /// Whether it builds on another volume: then its data are a layer over that one's.
    pub is_fork: bool,
    /// Whether others build on it: then it may only be read.
    pub is_base: bool,
    /// The key slots, in the order of their numbers.
    pub slots: Vec<KeySlot>,
    /// What is wrong with one of the header's two copies, if something is. The volume works by the other one.
    pub header_problem: Option<String>,
}

/// One key slot of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeySlot {
    /// Its number, 0 to 31.
    pub number: u32,
    /// How the key is made of a passphrase and what that costs, or why the key slot cannot be used.
    pub opened_by: String,
}

impl VolumeInfo {
    /// The same as JSON, with the names of the fields.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// `file_len` is the length of the file with the data.
    pub(super) fn of(header: &Header, file_len: u64) -> Result<Self> {
        let slots = header.slots()?.into_iter().map(|(number, kdf)| {
            let opened_by = kdf.as_ref().map_or_else(ToString::to_string, Kdf::to_string);
            KeySlot { number, opened_by }
        });
        let data = header.data_elsewhere()?;
        Ok(Self {
            uuid: header.uuid().to_owned(),
            label: header.label().to_owned(),
            cipher: CIPHER.to_owned(),
            sector_size: data.sector_size,
            data_offset: data.offset,
            capacity: (!header.is_layer()).then(|| data.capacity(file_len)),
            is_fork: header.is_layer(),
            is_base: header.base_identity().is_some(),
            slots: slots.collect(),
            header_problem: header.stale(),
        })
    }
}
