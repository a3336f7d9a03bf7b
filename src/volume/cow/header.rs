//! The header of a layer: what it is, what it builds on, and where its parts lie.

use std::ops::Range;
use std::sync::Arc;

use super::entry::CLUSTER;
use super::page::PAGE;
use super::place::{MOST_PARTS, MapPart, Place, pages_of};
use crate::error::Result;
use crate::sys::LockedBytes;
use crate::volume::{no_secret_memory, refused};

pub(crate) type Identity = [u8; 16];

const MAGIC: &[u8; 8] = b"VMCELLCW";
/// Of a layer with a base, whose parts lie where the first program put them; of one with its map in several parts; and of any other.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;
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
/// Of version 3: how many further parts the map has, and for each where it begins and how many pages it has.
const PART_COUNT: usize = 84;
const PARTS: usize = NAME + MOST_NAME;
const PART_LEN: usize = 16;

impl Header {
    /// Clusters of the disk.
    pub(crate) fn clusters(&self) -> u64 {
        self.capacity.div_ceil(CLUSTER)
    }

    pub(crate) fn pages(&self) -> u64 {
        pages_of(self.capacity)
    }

    /// The parts of the map: the first page and how many there are. The pages of each lie behind each other.
    pub(super) fn map_parts(&self) -> impl Iterator<Item = Range<u64>> {
        self.place.parts(self.capacity).map(|(first, part)| first..first.saturating_add(part.pages))
    }

    /// Where one of the two slots of a page lies.
    pub(crate) fn slot_at(&self, page: u64, slot: u64) -> u64 {
        self.place.slot_at(self.capacity, page, slot)
    }

    pub(crate) fn data_at(&self) -> u64 {
        self.place.data
    }

    /// How many clusters the file has room for.
    pub(crate) fn room(&self) -> u64 {
        self.place.room
    }

    /// The numbers of clusters in whose place the map lies, in order.
    pub(crate) fn taken(&self) -> Vec<Range<u32>> {
        self.place.taken(self.capacity)
    }

    /// The same for a disk that has grown to `capacity` bytes, with a new map.
    pub(crate) fn grown(&self, capacity: u64) -> Self {
        Self { capacity, place: self.place.moved(self.capacity, capacity), ..self.clone() }
    }

    /// The same for a disk that has grown to `capacity` bytes, with its map as it is, and more of it elsewhere.
    ///
    /// # Errors
    /// If the map has as many parts as there may be, or the file as many clusters.
    pub(crate) fn lengthened(&self, capacity: u64) -> Result<Self> {
        let place = self.place.lengthened(self.capacity, capacity)?;
        let header = Self { capacity, place, ..self.clone() };
        header.check().map(|()| header)
    }

    /// The length of a file with room for all clusters. It has holes for those that are not there.
    pub(crate) fn file_len(&self) -> u64 {
        self.place.file_len(self.capacity)
    }

    /// How much of the disk the base has. What lies behind is zeroes.
    pub(crate) fn base_len(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.len)
    }

    /// Refuses parts that lie over each other, or are none.
    pub(crate) fn check(&self) -> Result<()> {
        self.place.check(self.capacity)
    }

    fn version(&self) -> u32 {
        match &self.base {
            _ if !self.place.more.is_empty() => 3,
            Some(_) if self.place == Place::of(self.capacity) => 1,
            _ => 2,
        }
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
        let parts = self.place.more.iter().flat_map(|part| [part.at, part.pages]).flat_map(u64::to_le_bytes);
        let (parts, count) = (parts.collect::<Vec<_>>(), u32::try_from(self.place.more.len()).unwrap_or(u32::MAX));
        let fields: [(usize, &[u8]); 16] = [
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
            (PART_COUNT, &count.to_le_bytes()),
            (PARTS, &parts),
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
            return Err(refused(format!("it is a layer of version {version}, known are versions 1 to 3")));
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
            _ => {
                let more = if version == 3 { map_parts(page, half(PART_COUNT) as usize)? } else { Vec::new() };
                Place { map: number(MAP_AT), data: number(DATA_AT), room: number(ROOM), more }
            }
        };
        let base = match (version, len) {
            (2 | 3, 0) if base_len == 0 => None,
            _ => {
                let key = page.get(KEY..).and_then(|rest| rest.get(..(half(KEY_LEN) as usize).min(MOST_KEY)));
                let key = BaseKey::new(key.unwrap_or_default())?;
                Some(BaseRef { identity: identity(40), key, name: name_in(page, len)?, len: base_len })
            }
        };
        let header = Self { identity: identity(24), capacity, base, place, sequence: number(16) };
        header.check()?;
        Ok(header)
    }
}

/// The parts of the map behind the first one.
fn map_parts(page: &[u8], count: usize) -> Result<Vec<MapPart>> {
    if !(1..=MOST_PARTS).contains(&count) {
        let message = format!("the map of a layer has {count} parts behind the first, allowed are 1 to {MOST_PARTS}");
        return Err(refused(message));
    }
    let table = page.get(PARTS..).unwrap_or_default().chunks_exact(PART_LEN).take(count);
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Ok(table.map(|part| MapPart { at: number(part), pages: part.get(8..).map_or(0, number) }).collect())
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
#[allow(clippy::single_range_in_vec_init, reason = "a list of ranges, of which there is one")]
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
        assert!(said(&|page| page[8] = 4, true).contains("a layer of version 4, known are versions 1 to 3"));
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
        let elsewhere =
            Header { place: Place { map: 6 << 20, data: 128 << 10, room: 200, more: Vec::new() }, ..header() };
        for header in [&alone, &elsewhere] {
            let page = header.encode().unwrap();
            assert_eq!((page[8], Header::decode(&page)), (2, Ok(header.clone())));
        }
        assert_eq!(header().encode().unwrap()[8], 1);
        assert_eq!((alone.base_len(), alone.taken()), (0, Vec::new()));
        // From the 6 MiB that lie 128 KiB further in the file than the first cluster.
        assert_eq!((elsewhere.taken(), elsewhere.file_len()), (vec![95..96], (128 << 10) + (200 << 16)));
        for place in [
            Place { map: 4096, ..elsewhere.place.clone() },
            Place { map: 8193, ..elsewhere.place.clone() },
            Place { data: 65537, ..elsewhere.place.clone() },
            Place { map: 64 << 10, data: 64 << 10 | 4096, ..elsewhere.place.clone() },
            Place { map: u64::MAX << 12, ..elsewhere.place.clone() },
            Place { room: 1 << 32, ..elsewhere.place.clone() },
            Place { map: 128 << 10 | 4096, data: 128 << 10, room: u64::MAX, more: Vec::new() },
        ] {
            let page = Header { place: place.clone(), ..header() }.encode().unwrap();
            let said = Header::decode(&page).unwrap_err().to_string();
            assert!(said.contains("the map of a layer lies at byte"), "{place:?}: {said}");
        }
    }

    #[test]
    fn one_with_its_map_in_parts_is_of_the_third_version() {
        let grown = header().lengthened(100 << 20).unwrap().lengthened(1 << 30).unwrap();
        for header in [&grown, &Header { base: None, ..grown.clone() }] {
            let page = header.encode().unwrap();
            assert_eq!((page[8], Header::decode(&page)), (3, Ok(header.clone())));
        }
        let said = |at: usize, byte: u8| {
            let mut page = grown.encode().unwrap();
            page[at] = byte;
            let sum = checksum(&page).to_le_bytes();
            page[SUM].copy_from_slice(&sum);
            Header::decode(&page).unwrap_err().to_string()
        };
        assert!(said(PART_COUNT, 0).contains("has 0 parts behind the first, allowed are 1 to 64"));
        assert!(said(PART_COUNT, 65).contains("has 65 parts behind the first, allowed are 1 to 64"));
        assert!(said(PART_COUNT, 64).contains("the map of a layer lies at byte 8192 in 65 parts"));
        assert!(said(PARTS, 1).contains("the map of a layer lies at byte"));
        assert!(said(PARTS + 8, 200).contains("the map of a layer lies at byte"));
    }

    #[test]
    fn parts_lie_behind_each_other() {
        for capacity in [4096, 1 << 20, 100 << 30, MOST_CAPACITY] {
            let header = Header { capacity, place: Place::of(capacity), ..header() };
            assert!(header.slot_at(header.pages() - 1, 1) + PAGE as u64 <= header.data_at());
            let entries = crate::volume::cow::page::ENTRIES;
            assert!(header.pages() * entries as u64 >= header.clusters() && header.clusters() * CLUSTER >= capacity);
            assert!(header.data_at().is_multiple_of(CLUSTER) && header.file_len() > header.data_at() + capacity);
            assert!(u32::try_from(header.room()).is_ok());
        }
    }
}
