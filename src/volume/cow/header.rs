//! The header of a layer: what it is, what it builds on, and where its parts lie.

use std::sync::Arc;

use super::entry::CLUSTER;
use super::page::{ENTRIES, PAGE};
use crate::error::Result;
use crate::sys::LockedBytes;
use crate::volume::{no_secret_memory, refused};

pub(crate) type Identity = [u8; 16];

const MAGIC: &[u8; 8] = b"VMCELLCW";
const VERSION: u32 = 1;
/// The longest name of a base, in bytes.
const MOST_NAME: usize = 1024;
/// The largest disk: its map has 128 MiB for each TiB, in memory as well.
pub(crate) const MOST_CAPACITY: u64 = 8 << 40;

/// The key of a base's data, which whoever opens the layer gets with it. Never printed.
#[derive(Clone)]
pub(crate) struct BaseKey(Arc<LockedBytes>);

impl BaseKey {
    /// # Errors
    /// If it has another length than a key of data, or no memory can be locked for it.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self> {
        if !matches!(bytes.len(), 32 | 64) {
            return Err(refused(format!("the key of a layer's base has {} bytes, allowed are 32 and 64", bytes.len())));
        }
        Ok(Self(Arc::new(LockedBytes::copy_of(bytes).map_err(no_secret_memory)?)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for BaseKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl std::fmt::Debug for BaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BaseKey")
    }
}

/// What a layer builds on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BaseRef {
    pub(crate) identity: Identity,
    pub(crate) key: BaseKey,
    /// A path, from the folder of this file on unless it is absolute.
    pub(crate) name: String,
    /// The bytes of data that it has. What lies behind is zeroes.
    pub(crate) len: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    /// Bytes of the disk, in whole blocks.
    pub(crate) capacity: u64,
    pub(crate) base: BaseRef,
    /// Which of the two copies is newer.
    pub(crate) sequence: u64,
}

/// Of the header.
pub(super) const COPIES: u64 = 2;

/// Where the fields lie.
const SUM: std::ops::Range<usize> = 12..16;
const NAME: usize = 176;
/// The base's key, padded with zeroes, and its length in front.
const KEY_LEN: usize = 80;
const KEY: usize = 112;
const MOST_KEY: usize = 64;

impl Header {
    /// Both copies, then both slots of each page of the map, then the clusters.
    pub(crate) fn map_at(&self) -> u64 {
        COPIES.saturating_mul(PAGE as u64)
    }

    /// Clusters of the disk.
    pub(crate) fn clusters(&self) -> u64 {
        self.capacity.div_ceil(CLUSTER)
    }

    pub(crate) fn pages(&self) -> u64 {
        self.clusters().div_ceil(ENTRIES as u64)
    }

    /// Where one of the two slots of a page lies.
    pub(crate) fn slot_at(&self, page: u64, slot: u64) -> u64 {
        let index = page.saturating_mul(2).saturating_add(slot);
        self.map_at().saturating_add(index.saturating_mul(PAGE as u64))
    }

    pub(crate) fn data_at(&self) -> u64 {
        self.slot_at(self.pages(), 0).next_multiple_of(CLUSTER)
    }

    /// How many clusters the file has room for: those of the disk, and some for what was freed and is not stable yet.
    pub(crate) fn room(&self) -> u64 {
        self.clusters().saturating_add(self.clusters() / 16).saturating_add(64)
    }

    /// The length of a file with room for all clusters. It has holes for those that are not there.
    pub(crate) fn file_len(&self) -> u64 {
        self.data_at().saturating_add(self.room().saturating_mul(CLUSTER))
    }

    /// A page with the header, in memory that is fit for the key in it.
    pub(crate) fn encode(&self) -> Result<LockedBytes> {
        let name = self.base.name.as_bytes();
        if name.is_empty() || name.len() > MOST_NAME {
            return Err(refused(format!("the base's path has {} bytes, allowed are 1 to {MOST_NAME}", name.len())));
        }
        let len_of = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or_default().to_le_bytes();
        let fields: [(usize, &[u8]); 11] = [
            (0, MAGIC),
            (8, &VERSION.to_le_bytes()),
            (16, &self.sequence.to_le_bytes()),
            (24, &self.identity),
            (40, &self.base.identity),
            (56, &self.capacity.to_le_bytes()),
            (64, &self.base.len.to_le_bytes()),
            (76, &len_of(name)),
            (KEY_LEN, &len_of(self.base.key.bytes())),
            (KEY, self.base.key.bytes()),
            (NAME, name),
        ];
        let mut page = LockedBytes::zeroed(PAGE).map_err(no_secret_memory)?;
        for (at, bytes) in fields {
            page.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
        }
        let sum = checksum(&page).to_le_bytes();
        page.get_mut(SUM).unwrap_or_default().copy_from_slice(&sum);
        Ok(page)
    }

    /// # Errors
    /// If it is no header of a layer, or a damaged one.
    pub(crate) fn decode(page: &[u8]) -> Result<Self> {
        let number = |at: usize| {
            page.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let half = |at: usize| {
            page.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let identity = |at: usize| page.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        if !page.starts_with(MAGIC) {
            return Err(refused("it is no layer over another volume: its data do not begin as one"));
        }
        if half(8) != VERSION {
            return Err(refused(format!("it is a layer of version {}, known is version {VERSION}", half(8))));
        }
        if checksum(page) != half(SUM.start) {
            return Err(refused("the header of a layer is damaged: its checksum is another"));
        }
        let (capacity, base_len, len) = (number(56), number(64), half(76) as usize);
        if capacity == 0 || capacity > MOST_CAPACITY || !capacity.is_multiple_of(PAGE as u64) {
            let message =
                format!("a layer has {capacity} bytes, allowed are multiples of {PAGE}, up to {MOST_CAPACITY}");
            return Err(refused(message));
        }
        if !base_len.is_multiple_of(PAGE as u64) {
            return Err(refused(format!("a layer's base has {base_len} bytes, allowed are multiples of {PAGE}")));
        }
        let name =
            page.get(NAME..).and_then(|rest| rest.get(..len)).filter(|name| (1..=MOST_NAME).contains(&name.len()));
        let name = name.and_then(|name| String::from_utf8(name.to_vec()).ok());
        let name = name.ok_or_else(|| refused("the path of a layer's base is none"))?;
        let key = page.get(KEY..).and_then(|rest| rest.get(..(half(KEY_LEN) as usize).min(MOST_KEY)));
        let base = BaseRef { identity: identity(40), key: BaseKey::new(key.unwrap_or_default())?, name, len: base_len };
        Ok(Self { identity: identity(24), capacity, base, sequence: number(16) })
    }
}

/// Of a page, with zeroes in the checksum's place.
fn checksum(page: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(page.get(..SUM.start).unwrap_or_default());
    sum.update(&[0; SUM.end - SUM.start]);
    sum.update(page.get(SUM.end..).unwrap_or_default());
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let key = BaseKey::new(&[9; 32]).unwrap();
        let base = BaseRef { identity: [2; 16], key, name: "base.vol".into(), len: 1 << 20 };
        Header { identity: [1; 16], capacity: 3 << 20, base, sequence: 5 }
    }

    #[test]
    fn a_header_comes_back_and_what_is_wrong_with_another_one_is_told() {
        let page = header().encode().unwrap();
        assert_eq!(Header::decode(&page), Ok(header()));
        let said = |change: &dyn Fn(&mut [u8]), sign: bool| {
            let mut page = page.to_vec();
            change(&mut page);
            if sign {
                let sum = checksum(&page).to_le_bytes();
                page[SUM].copy_from_slice(&sum);
            }
            Header::decode(&page).unwrap_err().to_string()
        };
        assert!(said(&|page| page[0] = 0, true).contains("it is no layer"));
        assert!(said(&|page| page[8] = 2, true).contains("a layer of version 2, known is version 1"));
        assert!(said(&|page| page[100] ^= 1, false).contains("its checksum is another"));
        assert!(said(&|page| page[56] = 1, true).contains("allowed are multiples of 4096"));
        assert!(said(&|page| page[62] = 255, true).contains("allowed are multiples of 4096, up to 8796093022208"));
        assert!(said(&|page| page[64] = 1, true).contains("base has 1048577 bytes, allowed are multiples of 4096"));
        assert!(said(&|page| page[77] = 255, true).contains("the path of a layer's base is none"));
        assert!(said(&|page| page[NAME] = 255, true).contains("the path of a layer's base is none"));
        assert!(said(&|page| page[KEY_LEN] = 33, true).contains("has 33 bytes, allowed are 32 and 64"));
        assert!(!format!("{:?}", header()).contains('9'));
        let nameless = Header { base: BaseRef { name: String::new(), ..header().base }, ..header() };
        assert!(nameless.encode().is_err());
    }

    #[test]
    fn parts_lie_behind_each_other() {
        for capacity in [4096, 1 << 20, 100 << 30, MOST_CAPACITY] {
            let header = Header { capacity, ..header() };
            assert!(header.slot_at(header.pages() - 1, 1) + PAGE as u64 <= header.data_at());
            assert!(header.pages() * ENTRIES as u64 >= header.clusters() && header.clusters() * CLUSTER >= capacity);
            assert!(header.data_at().is_multiple_of(CLUSTER) && header.file_len() > header.data_at() + capacity);
            assert!(u32::try_from(header.room()).is_ok());
        }
    }
}
