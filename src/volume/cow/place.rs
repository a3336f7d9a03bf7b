//! Where the parts of a layer lie in its file.

use std::ops::Range;

use super::entry::CLUSTER;
use super::page::{ENTRIES, PAGE};
use crate::error::Result;
use crate::volume::refused;

/// Copies of the header, each of a page, in front of all else.
pub(super) const COPIES: u64 = 2;
/// The most parts of a map behind the first one: one for each time that the layer has grown in use.
pub(super) const MOST_PARTS: usize = 64;
/// No part lies behind it.
const MOST_LEN: u64 = 1 << 62;
/// Both slots of a page.
const SLOTS: u64 = 2 * PAGE as u64;

/// Where the parts of a layer lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Both slots of each page of the map, or of its first pages.
    pub(super) map: u64,
    /// The clusters.
    pub(super) data: u64,
    /// How many clusters there is room for.
    pub(super) room: u64,
    /// Where the map goes on, in the order of its pages.
    pub(super) more: Vec<MapPart>,
}

/// A part of the map, behind the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapPart {
    pub(super) at: u64,
    pub(super) pages: u64,
}

impl Place {
    /// Of a new layer: the map, the clusters, and room for those of the disk and some for what was freed and is not stable yet.
    pub(crate) fn of(capacity: u64) -> Self {
        let (map, clusters) = (COPIES.saturating_mul(PAGE as u64), capacity.div_ceil(CLUSTER));
        let data = map.saturating_add(len_of(pages_of(capacity))).next_multiple_of(CLUSTER);
        Self { map, data, room: with_reserve(clusters), more: Vec::new() }
    }

    /// All parts of the map of a disk of that size: the number of the first page, how many there are, and where they lie.
    pub(super) fn parts(&self, capacity: u64) -> impl Iterator<Item = (u64, MapPart)> {
        let others = self.more.iter().fold(0, |sum: u64, part| sum.saturating_add(part.pages));
        let first = MapPart { at: self.map, pages: pages_of(capacity).saturating_sub(others) };
        std::iter::once(first).chain(self.more.iter().copied()).scan(0, |next: &mut u64, part| {
            let number = *next;
            *next = next.saturating_add(part.pages);
            Some((number, part))
        })
    }

    /// Where one of the two slots of a page lies.
    pub(super) fn slot_at(&self, capacity: u64, page: u64, slot: u64) -> u64 {
        let mut parts = self.parts(capacity);
        let part = parts.find(|(first, part)| page < first.saturating_add(part.pages));
        let (at, index) = part.map_or((MOST_LEN, 0), |(first, part)| (part.at, page.saturating_sub(first)));
        at.saturating_add(index.saturating_mul(2).saturating_add(slot).saturating_mul(PAGE as u64))
    }

    /// The numbers of clusters in whose place the map lies, in order.
    pub(super) fn taken(&self, capacity: u64) -> Vec<Range<u32>> {
        let number = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
        let behind = self.parts(capacity).filter_map(|(_, part)| {
            let from = part.at.checked_sub(self.data)?;
            let to = part.end().saturating_sub(self.data).div_ceil(CLUSTER);
            Some(number((from / CLUSTER).saturating_add(1))..number(to.saturating_add(1)))
        });
        let mut taken: Vec<_> = behind.collect();
        taken.sort_unstable_by_key(|range| range.start);
        taken
    }

    /// The length of a file with room for all clusters. It has holes for those that are not there.
    pub(super) fn file_len(&self, capacity: u64) -> u64 {
        let clusters = self.data.saturating_add(self.room.saturating_mul(CLUSTER));
        self.parts(capacity).map(|(_, part)| part.end()).max().unwrap_or(0).max(clusters)
    }

    /// The same for a disk that grows from one size to another: its whole map lies behind all that there was room for, and its clusters
    /// where they are, with more of them behind the map.
    pub(super) fn moved(&self, from: u64, to: u64) -> Self {
        let part = self.next_part(from, pages_of(to));
        Self { map: part.at, more: Vec::new(), ..self.with_room_behind(part, from, to) }
    }

    /// The same, but the map stays where it is, and goes on behind all that there was room for.
    ///
    /// # Errors
    /// If the map has as many parts as there may be.
    pub(super) fn lengthened(&self, from: u64, to: u64) -> Result<Self> {
        let added = pages_of(to).saturating_sub(pages_of(from));
        let part = self.next_part(from, added);
        let mut place = self.with_room_behind(part, from, to);
        if added == 0 {
            return Ok(place);
        }
        if place.more.len() >= MOST_PARTS {
            let message = format!("it has grown in use {MOST_PARTS} times: grow it once while no VM uses it");
            return Err(refused(message));
        }
        place.more.push(part);
        Ok(place)
    }

    fn next_part(&self, capacity: u64, pages: u64) -> MapPart {
        MapPart { at: self.file_len(capacity).next_multiple_of(CLUSTER), pages }
    }

    /// In case all that is added is written, and of what is freed some is not stable yet.
    fn with_room_behind(&self, part: MapPart, from: u64, to: u64) -> Self {
        let added = to.saturating_sub(from).div_ceil(CLUSTER);
        let end = part.end().next_multiple_of(CLUSTER).saturating_sub(self.data) / CLUSTER;
        Self { room: end.saturating_add(with_reserve(added)), ..self.clone() }
    }

    /// Refuses parts that lie over each other, or are none.
    pub(super) fn check(&self, capacity: u64) -> Result<()> {
        let Self { map, data, room, .. } = *self;
        let is_first =
            |part: &MapPart| part.at.is_multiple_of(PAGE as u64) && part.at >= COPIES.saturating_mul(PAGE as u64);
        let mut parts: Vec<_> = self.parts(capacity).map(|(_, part)| part).collect();
        let are_whole = parts.iter().all(|part| is_first(part) && part.pages > 0 && part.end() < MOST_LEN);
        let are_all = self
            .parts(capacity)
            .last()
            .is_some_and(|(first, part)| first.saturating_add(part.pages) == pages_of(capacity));
        let is_clear = parts.iter().all(|part| part.at >= data || part.end() <= data);
        parts.sort_unstable_by_key(|part| part.at);
        let are_apart = parts.iter().zip(parts.iter().skip(1)).all(|(one, next)| one.end() <= next.at);
        let is_data =
            data.is_multiple_of(CLUSTER) && (CLUSTER..MOST_LEN).contains(&data) && u32::try_from(room).is_ok();
        if are_whole && are_all && is_clear && are_apart && is_data {
            return Ok(());
        }
        let count = parts.len();
        let message = format!(
            "the map of a layer lies at byte {map} in {count} parts, its data at {data}, with room for {room} clusters"
        );
        Err(refused(message))
    }
}

impl MapPart {
    fn end(self) -> u64 {
        self.at.saturating_add(len_of(self.pages))
    }
}

fn with_reserve(clusters: u64) -> u64 {
    clusters.saturating_add(clusters / 16).saturating_add(64)
}

pub(super) fn pages_of(capacity: u64) -> u64 {
    capacity.div_ceil(CLUSTER).div_ceil(ENTRIES as u64)
}

fn len_of(pages: u64) -> u64 {
    pages.saturating_mul(SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 40 << 20;

    #[test]
    fn parts_lie_behind_each_other_however_often_it_grows() {
        let (mut place, mut from) = (Place::of(SIZE), SIZE);
        for round in 1..=MOST_PARTS as u64 {
            let to = SIZE + round * (ENTRIES as u64) * CLUSTER;
            let longer = place.lengthened(from, to).unwrap();
            longer.check(to).unwrap();
            assert!((0..pages_of(from)).all(|page| longer.slot_at(to, page, 1) == place.slot_at(from, page, 1)));
            assert!(longer.slot_at(to, pages_of(to) - 1, 0) >= place.file_len(from));
            assert_eq!((longer.parts(to).count() as u64, longer.taken(to).len() as u64), (round + 1, round));
            assert!(longer.room - place.room >= ENTRIES as u64 + 64);
            (place, from) = (longer, to);
        }
        let said = place.lengthened(from, 2 * from).unwrap_err().to_string();
        assert_eq!(said, "it has grown in use 64 times: grow it once while no VM uses it");
        let moved = place.moved(from, 2 * from);
        moved.check(2 * from).unwrap();
        assert!(moved.more.is_empty() && moved.map >= place.file_len(from));
        // Within the last page of the map, there is nothing to add to it.
        let within = place.lengthened(from, from + CLUSTER).unwrap();
        assert_eq!((&within.more, within.check(from + CLUSTER)), (&place.more, Ok(())));
        assert!(within.room > place.room);
    }

    #[test]
    fn parts_over_each_other_and_parts_of_nothing_are_refused() {
        let to = SIZE + 3 * (ENTRIES as u64) * CLUSTER;
        let place = Place::of(SIZE).lengthened(SIZE, to).unwrap();
        let [part] = place.more[..] else { panic!("it has grown once") };
        let page = PAGE as u64;
        for more in [
            vec![MapPart { at: part.at + 1, ..part }],
            vec![MapPart { at: 0, ..part }],
            vec![MapPart { at: place.map, ..part }],
            vec![MapPart { at: place.data - page, ..part }],
            vec![MapPart { at: MOST_LEN, ..part }],
            vec![MapPart { at: u64::MAX - 4095, ..part }],
            vec![MapPart { pages: 0, ..part }],
            vec![MapPart { pages: 5, ..part }],
            vec![MapPart { pages: u64::MAX, ..part }],
            vec![MapPart { pages: 2, ..part }, MapPart { at: part.at + 2 * page, pages: 1 }],
            vec![part, MapPart { at: part.at + 8 * page, pages: u64::MAX }],
        ] {
            let said = Place { more: more.clone(), ..place.clone() }.check(to).unwrap_err().to_string();
            assert!(said.contains("the map of a layer lies at byte 8192 in "), "{more:?}: {said}");
        }
        assert_eq!(place.check(to), Ok(()));
    }
}
