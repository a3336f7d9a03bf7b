//! The header of a layer: what it is, what it builds on, and where its parts lie.

use std::ops::Range;
use std::sync::Arc;

use super::entry::CLUSTER;
use super::page::{ENTRIES, PAGE};
use crate::error::Result;
use crate::sys::LockedBytes;
use crate::volume::{no_secret_memory, refused};

pub(crate) type Identity = [u8; 16];

const MAGIC: &[u8; 8] = b"VMCELLCW";
/// Of a layer with a base, whose parts lie where the first program put them; and of any other.
const VERSIONS: [u32; 2] = [1, 2];
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
    /// If there is none, what was never written is zeroes.
    pub(crate) base: Option<BaseRef>,
    pub(crate) place: Place,
    /// Which of the two copies is newer.
    pub(crate) sequence: u64,
}

/// Where the parts of a layer lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Both slots of each page of the map.
    map: u64,
    /// The clusters.
    data: u64,
    /// How many clusters there is room for.
    room: u64,
}

impl Place {
    /// Of a new layer: the map, the clusters, and room for those of the disk and some for what was freed and is not stable yet.
    pub(crate) fn of(capacity: u64) -> Self {
        let (map, clusters) = (COPIES.saturating_mul(PAGE as u64), capacity.div_ceil(CLUSTER));
        let data = map.saturating_add(map_len(capacity)).next_multiple_of(CLUSTER);
        Self { map, data, room: clusters.saturating_add(clusters / 16).saturating_add(64) }
    }
}

fn pages_of(capacity: u64) -> u64 {
    capacity.div_ceil(CLUSTER).div_ceil(ENTRIES as u64)
}

fn map_len(capacity: u64) -> u64 {
    pages_of(capacity).saturating_mul(2).saturating_mul(PAGE as u64)
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
/// Of version 2.
const MAP_AT: usize = 88;
const DATA_AT: usize = 96;
const ROOM: usize = 104;
/// No part lies behind it.
const MOST_LEN: u64 = 1 << 62;

impl Header {
    /// Clusters of the disk.
    pub(crate) fn clusters(&self) -> u64 {
        self.capacity.div_ceil(CLUSTER)
    }

    pub(crate) fn pages(&self) -> u64 {
        pages_of(self.capacity)
    }

    /// Where one of the two slots of a page lies.
    pub(crate) fn slot_at(&self, page: u64, slot: u64) -> u64 {
        let index = page.saturating_mul(2).saturating_add(slot);
        self.place.map.saturating_add(index.saturating_mul(PAGE as u64))
    }

    pub(crate) fn data_at(&self) -> u64 {
        self.place.data
    }

    /// How many clusters the file has room for.
    pub(crate) fn room(&self) -> u64 {
        self.place.room
    }

    /// The numbers of clusters in whose place the map lies.
    pub(crate) fn taken(&self) -> Range<u32> {
        let number = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
        let (Some(from), end) = (self.place.map.checked_sub(self.place.data), self.map_end()) else { return 0..0 };
        let to = end.saturating_sub(self.place.data).div_ceil(CLUSTER);
        number((from / CLUSTER).saturating_add(1))..number(to.saturating_add(1))
    }

    /// The same for a disk that has grown to `capacity` bytes: its map lies behind all that there was room for, and its clusters where they
    /// are, with more of them behind the map.
    pub(crate) fn grown(&self, capacity: u64) -> Self {
        let map = self.file_len().next_multiple_of(CLUSTER);
        let map_end = map.saturating_add(map_len(capacity)).next_multiple_of(CLUSTER);
        // In case all that was added is written, and of what is freed some is not stable yet.
        let added = capacity.saturating_sub(self.capacity).div_ceil(CLUSTER);
        let end = map_end.saturating_sub(self.place.data) / CLUSTER;
        let room = end.saturating_add(added).saturating_add(added / 16).saturating_add(64);
        Self { capacity, place: Place { map, data: self.place.data, room }, ..self.clone() }
    }

    fn map_end(&self) -> u64 {
        self.slot_at(self.pages(), 0)
    }

    /// The length of a file with room for all clusters. It has holes for those that are not there.
    pub(crate) fn file_len(&self) -> u64 {
        let clusters = self.place.room.saturating_mul(CLUSTER);
        self.place.data.saturating_add(clusters).max(self.map_end())
    }

    /// How much of the disk the base has. What lies behind is zeroes.
    pub(crate) fn base_len(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.len)
    }

    fn version(&self) -> u32 {
        let [first, second] = VERSIONS;
        if self.base.is_some() && self.place == Place::of(self.capacity) { first } else { second }
    }

    /// Refuses parts that lie over each other.
    fn check_place(&self) -> Result<()> {
        let Place { map, data, room } = self.place;
        let is_whole = map.is_multiple_of(PAGE as u64) && data.is_multiple_of(CLUSTER) && u32::try_from(room).is_ok();
        let is_behind = map >= COPIES.saturating_mul(PAGE as u64) && data >= CLUSTER && map.max(data) < MOST_LEN;
        if is_whole && is_behind && (map >= data || self.map_end() <= data) {
            return Ok(());
        }
        let message =
            format!("the map of a layer lies at byte {map}, its data at {data}, with room for {room} clusters");
        Err(refused(message))
    }

    /// A page with the header, in memory that is fit for the key in it.
    pub(crate) fn encode(&self) -> Result<LockedBytes> {
        let (name, key, identity) = self
            .base
            .as_ref()
            .map_or((&[][..], &[][..], [0; 16]), |base| (base.name.as_bytes(), base.key.bytes(), base.identity));
        if self.base.is_some() != (1..=MOST_NAME).contains(&name.len()) {
            return Err(refused(format!("the base's path has {} bytes, allowed are 1 to {MOST_NAME}", name.len())));
        }
        let len_of = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or_default().to_le_bytes();
        let version = self.version();
        let place = if version == 1 { [0; 3] } else { [self.place.map, self.place.data, self.place.room] };
        let [map, data, room] = place.map(u64::to_le_bytes);
        let fields: [(usize, &[u8]); 14] = [
            (0, MAGIC),
            (8, &version.to_le_bytes()),
            (16, &self.sequence.to_le_bytes()),
            (24, &self.identity),
            (40, &identity),
            (56, &self.capacity.to_le_bytes()),
            (64, &self.base_len().to_le_bytes()),
            (76, &len_of(name)),
            (KEY_LEN, &len_of(key)),
            (MAP_AT, &map),
            (DATA_AT, &data),
            (ROOM, &room),
            (KEY, key),
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
        let version = half(8);
        if !VERSIONS.contains(&version) {
            return Err(refused(format!("it is a layer of version {version}, known are versions 1 and 2")));
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
        let place = match version {
            1 => Place::of(capacity),
            _ => Place { map: number(MAP_AT), data: number(DATA_AT), room: number(ROOM) },
        };
        let base = match (version, len) {
            (2, 0) if base_len == 0 => None,
            _ => {
                let key = page.get(KEY..).and_then(|rest| rest.get(..(half(KEY_LEN) as usize).min(MOST_KEY)));
                let key = BaseKey::new(key.unwrap_or_default())?;
                Some(BaseRef { identity: identity(40), key, name: name_in(page, len)?, len: base_len })
            }
        };
        let header = Self { identity: identity(24), capacity, base, place, sequence: number(16) };
        header.check_place()?;
        Ok(header)
    }
}

fn name_in(page: &[u8], len: usize) -> Result<String> {
    let name = page.get(NAME..).and_then(|rest| rest.get(..len)).filter(|name| (1..=MOST_NAME).contains(&name.len()));
    let name = name.and_then(|name| String::from_utf8(name.to_vec()).ok());
    name.ok_or_else(|| refused("the path of a layer's base is none"))
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
        Header { identity: [1; 16], capacity: 3 << 20, base: Some(base), place: Place::of(3 << 20), sequence: 5 }
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
        assert!(said(&|page| page[8] = 3, true).contains("a layer of version 3, known are versions 1 and 2"));
        assert!(said(&|page| page[100] ^= 1, false).contains("its checksum is another"));
        assert!(said(&|page| page[56] = 1, true).contains("allowed are multiples of 4096"));
        assert!(said(&|page| page[62] = 255, true).contains("allowed are multiples of 4096, up to 8796093022208"));
        assert!(said(&|page| page[64] = 1, true).contains("base has 1048577 bytes, allowed are multiples of 4096"));
        assert!(said(&|page| page[77] = 255, true).contains("the path of a layer's base is none"));
        assert!(said(&|page| page[NAME] = 255, true).contains("the path of a layer's base is none"));
        assert!(said(&|page| page[KEY_LEN] = 33, true).contains("has 33 bytes, allowed are 32 and 64"));
        assert!(!format!("{:?}", header()).contains("9, 9"));
        let nameless = BaseRef { name: String::new(), ..header().base.unwrap() };
        assert!(Header { base: Some(nameless), ..header() }.encode().is_err());
    }

    #[test]
    fn one_without_a_base_or_with_parts_elsewhere_is_of_the_second_version() {
        let alone = Header { base: None, ..header() };
        let elsewhere = Header { place: Place { map: 6 << 20, data: 128 << 10, room: 200 }, ..header() };
        for header in [&alone, &elsewhere] {
            let page = header.encode().unwrap();
            assert_eq!((page[8], Header::decode(&page)), (2, Ok(header.clone())));
        }
        assert_eq!(header().encode().unwrap()[8], 1);
        assert_eq!((alone.base_len(), alone.taken()), (0, 0..0));
        // From the 6 MiB that lie 128 KiB further in the file than the first cluster.
        assert_eq!((elsewhere.taken(), elsewhere.file_len()), (95..96, (128 << 10) + (200 << 16)));
        for place in [
            Place { map: 4096, ..elsewhere.place },
            Place { map: 8193, ..elsewhere.place },
            Place { data: 65537, ..elsewhere.place },
            Place { map: 64 << 10, data: 64 << 10 | 4096, ..elsewhere.place },
            Place { map: u64::MAX << 12, ..elsewhere.place },
            Place { room: 1 << 32, ..elsewhere.place },
            Place { map: 128 << 10 | 4096, data: 128 << 10, room: u64::MAX },
        ] {
            let page = Header { place, ..header() }.encode().unwrap();
            let said = Header::decode(&page).unwrap_err().to_string();
            assert!(said.contains("the map of a layer lies at byte"), "{place:?}: {said}");
        }
    }

    #[test]
    fn parts_lie_behind_each_other() {
        for capacity in [4096, 1 << 20, 100 << 30, MOST_CAPACITY] {
            let header = Header { capacity, place: Place::of(capacity), ..header() };
            assert!(header.slot_at(header.pages() - 1, 1) + PAGE as u64 <= header.data_at());
            assert!(header.pages() * ENTRIES as u64 >= header.clusters() && header.clusters() * CLUSTER >= capacity);
            assert!(header.data_at().is_multiple_of(CLUSTER) && header.file_len() > header.data_at() + capacity);
            assert!(u32::try_from(header.room()).is_ok());
        }
    }
}
