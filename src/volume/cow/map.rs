//! The map in memory: where each block is, and which pages differ from those in the file.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{BLOCK, BLOCKS, CLUSTER, Entry, Source, bits};
use super::page::{self, ENTRIES, PAGE, Place};

pub(super) struct Map {
    /// The first half of the file's identity.
    of: u64,
    pages: Vec<MapPage>,
    dirty: BTreeSet<u32>,
    /// Writes in flight for each cluster of the disk: its cluster in the file stays there meanwhile.
    writing: BTreeMap<u64, u32>,
}

/// A page in memory.
#[derive(Clone, Default)]
pub(super) struct MapPage {
    /// How often it was written.
    generation: u64,
    /// As many as a page has, or none if all are empty.
    entries: Option<Box<[Entry]>>,
}

impl MapPage {
    /// Missing entries are empty.
    pub(super) fn new(generation: u64, entries: &[Entry]) -> Self {
        let mut page = Self { generation, entries: None };
        if entries.iter().any(|entry| *entry != Entry::default()) {
            page.entries_mut().iter_mut().zip(entries).for_each(|(to, from)| *to = *from);
        }
        page
    }

    fn entries(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }

    fn entries_mut(&mut self) -> &mut [Entry] {
        self.entries.get_or_insert_with(|| vec![Entry::default(); ENTRIES].into())
    }
}

/// A page that is to be written, and where: the slot of its generation, so that the page before stays whole.
pub(super) struct Image {
    pub(super) index: u32,
    pub(super) generation: u64,
    pub(super) bytes: Box<[u8; PAGE]>,
}

impl Image {
    pub(super) fn slot(&self) -> u64 {
        self.generation % 2
    }
}

/// A part of the disk that lies in one place, as one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) len: u64,
    pub(super) place: RunPlace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunPlace {
    Base,
    Zeroes,
    /// From this byte of the clusters on.
    Clusters(u64),
}

impl Map {
    /// Of the pages that were read.
    pub(super) fn new(of: u64, pages: Vec<MapPage>) -> Self {
        Self { of, pages, dirty: BTreeSet::new(), writing: BTreeMap::new() }
    }

    pub(super) fn entry(&self, index: u64) -> Entry {
        let (page, place) = in_page(index);
        self.pages.get(page).and_then(|page| page.entries().get(place)).copied().unwrap_or_default()
    }

    /// Those that are not empty, and perhaps others.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.pages.iter().flat_map(MapPage::entries)
    }

    /// Of one page; without those at its end that are empty, perhaps.
    pub(super) fn entries_of(&self, page: u64) -> &[Entry] {
        usize::try_from(page).ok().and_then(|page| self.pages.get(page)).map_or(&[], MapPage::entries)
    }

    /// Makes it longer by pages that are empty, to so many, which takes no longer than copying a word or two for each.
    pub(super) fn grow(&mut self, pages: u64) {
        let count = usize::try_from(pages).unwrap_or_default();
        self.pages.resize_with(count.max(self.pages.len()), MapPage::default);
    }

    fn change<R>(&mut self, index: u64, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let (number, place) = in_page(index);
        let entry = self.pages.get_mut(number)?.entries_mut().get_mut(place)?;
        let before = *entry;
        let result = change(entry);
        if *entry != before {
            self.dirty.insert(u32::try_from(number).unwrap_or(u32::MAX));
        }
        Some(result)
    }

    /// What of `at..at + len` comes first, up to where it goes on elsewhere. All are whole blocks.
    pub(super) fn first_run(&self, at: u64, len: u64) -> Run {
        let place = |at: u64| {
            let (index, block) = (at / CLUSTER, at % CLUSTER / BLOCK);
            match self.entry(index).source(block) {
                Source::Base => RunPlace::Base,
                Source::Zeroes => RunPlace::Zeroes,
                Source::Cluster(cluster) => RunPlace::Clusters(in_file(cluster).saturating_add(at % CLUSTER)),
            }
        };
        let first = place(at);
        let mut run = Run { len: BLOCK.min(len), place: first };
        while run.len < len {
            let goes_on = match (first, place(at.saturating_add(run.len))) {
                (RunPlace::Clusters(from), RunPlace::Clusters(next)) => next == from.saturating_add(run.len),
                (one, other) => one == other,
            };
            if !goes_on {
                break;
            }
            run.len = run.len.saturating_add(BLOCK).min(len);
        }
        run
    }

    /// Where a write goes, up to where it goes on elsewhere; `None` if a cluster is missing.
    pub(super) fn first_written_run(&self, at: u64, len: u64) -> Option<Run> {
        let from = match self.entry(at / CLUSTER).cluster {
            0 => return None,
            cluster => in_file(cluster).saturating_add(at % CLUSTER),
        };
        let mut run = Run { len: CLUSTER.saturating_sub(at % CLUSTER).min(len), place: RunPlace::Clusters(from) };
        while run.len < len {
            let next = self.entry(at.saturating_add(run.len) / CLUSTER).cluster;
            if next == 0 || in_file(next) != from.saturating_add(run.len) {
                break;
            }
            run.len = run.len.saturating_add(CLUSTER).min(len);
        }
        Some(run)
    }

    /// Gives a cluster of the disk one in the file.
    pub(super) fn place(&mut self, index: u64, cluster: u32) {
        self.change(index, |entry| entry.cluster = cluster);
    }

    pub(super) fn begin_write(&mut self, at: u64, len: u64) {
        for (index, ..) in parts(at, len) {
            let count = self.writing.entry(index).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// A write has ended. Gives the clusters that hold nothing now.
    pub(super) fn end_write(&mut self, at: u64, len: u64, is_written: bool) -> Vec<u32> {
        let mut empty = Vec::new();
        for (index, first, count) in parts(at, len) {
            if let Some(writers) = self.writing.get_mut(&index) {
                *writers = writers.saturating_sub(1);
                if *writers == 0 {
                    self.writing.remove(&index);
                }
            }
            if is_written {
                self.change(index, |entry| entry.write(bits(first, count)));
            }
            empty.extend(self.drop_if_empty(index));
        }
        empty
    }

    /// These blocks are zeroes from now on. Gives the clusters that hold nothing now.
    pub(super) fn zero(&mut self, at: u64, len: u64) -> Vec<u32> {
        let mut empty = Vec::new();
        for (index, first, count) in parts(at, len) {
            self.change(index, |entry| entry.zero(bits(first, count)));
            empty.extend(self.drop_if_empty(index));
        }
        empty
    }

    fn drop_if_empty(&mut self, index: u64) -> Option<u32> {
        let entry = self.entry(index);
        if entry.cluster == 0 || entry.written != 0 || self.writing.contains_key(&index) {
            return None;
        }
        self.change(index, |entry| std::mem::take(&mut entry.cluster))
    }

    pub(super) fn dirty_pages(&self) -> usize {
        self.dirty.len()
    }

    /// The pages that differ from those in the file, as they are now.
    pub(super) fn take_dirty(&mut self) -> Vec<Image> {
        std::mem::take(&mut self.dirty).into_iter().map(|index| self.image(index)).collect()
    }

    fn image(&self, index: u32) -> Image {
        let page = self.pages.get(index as usize);
        let generation = page.map_or(0, |page| page.generation).saturating_add(1);
        let entries = page.map_or(&[][..], MapPage::entries);
        let bytes = page::encode(Place { of: self.of, index, generation }, entries);
        Image { index, generation, bytes: Box::new(bytes) }
    }

    /// A page is in the file and stable.
    pub(super) fn is_stable(&mut self, image: &Image) {
        if let Some(page) = self.pages.get_mut(image.index as usize) {
            page.generation = image.generation;
        }
    }

    /// A page could not be written: it is to be written again.
    pub(super) fn is_dirty(&mut self, image: &Image) {
        self.dirty.insert(image.index);
    }
}

/// The number of a cluster's page, and its place there.
fn in_page(index: u64) -> (usize, usize) {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    (index / ENTRIES, index % ENTRIES)
}

/// Where a cluster begins, among the clusters.
pub(super) fn in_file(cluster: u32) -> u64 {
    u64::from(cluster).saturating_sub(1).saturating_mul(CLUSTER)
}

/// Whole blocks by their clusters: the cluster's index, the first block and how many there are.
pub(super) fn parts(at: u64, len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let end = at.saturating_add(len);
    (at / CLUSTER..end.div_ceil(CLUSTER)).map(move |index| {
        let start = index.saturating_mul(CLUSTER);
        let first = at.saturating_sub(start) / BLOCK;
        let last = (end.saturating_sub(start) / BLOCK).min(BLOCKS);
        (index, first, last.saturating_sub(first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Map {
        Map::new(1, vec![MapPage::default()])
    }

    const fn run(len: u64, place: RunPlace) -> Run {
        Run { len, place }
    }

    #[test]
    fn runs_end_where_data_lie_elsewhere() {
        let mut map = map();
        (0..3).zip([3, 4, 9]).for_each(|(index, cluster)| map.place(index, cluster));
        map.begin_write(8192, 3 * CLUSTER - 8192);
        assert_eq!(map.first_run(0, 8 * CLUSTER), run(8 * CLUSTER, RunPlace::Base));
        assert!(map.end_write(8192, 3 * CLUSTER - 8192, true).is_empty());
        assert_eq!(map.first_run(0, 8 * CLUSTER), run(8192, RunPlace::Base));
        assert_eq!(map.first_run(8192, 8 * CLUSTER), run(2 * CLUSTER - 8192, RunPlace::Clusters(2 * CLUSTER + 8192)));
        assert_eq!(map.first_run(2 * CLUSTER, 4096), run(4096, RunPlace::Clusters(8 * CLUSTER)));
        map.zero(2 * CLUSTER + 4096, 4096);
        assert_eq!(map.first_run(2 * CLUSTER + 4096, CLUSTER), run(4096, RunPlace::Zeroes));
        assert_eq!(
            map.first_written_run(4096, 3 * CLUSTER),
            Some(run(2 * CLUSTER - 4096, RunPlace::Clusters(2 * CLUSTER + 4096)))
        );
        assert_eq!(map.first_written_run(3 * CLUSTER, 4096), None);
    }

    #[test]
    fn a_cluster_stays_while_it_is_written_and_goes_once_it_is_empty() {
        let mut map = map();
        map.place(1, 5);
        map.begin_write(CLUSTER, 4096);
        assert!(map.zero(CLUSTER, CLUSTER).is_empty(), "a write is on its way");
        assert!(map.end_write(CLUSTER, 4096, true).is_empty());
        assert_eq!(map.first_run(CLUSTER, 8192), run(4096, RunPlace::Clusters(4 * CLUSTER)));
        assert_eq!(map.zero(0, 2 * CLUSTER), [5]);
        assert_eq!(map.first_run(0, 3 * CLUSTER), run(2 * CLUSTER, RunPlace::Zeroes));
        map.place(2, 6);
        map.begin_write(2 * CLUSTER, 4096);
        assert_eq!(map.end_write(2 * CLUSTER, 4096, false), [6], "nothing was written");
    }

    #[test]
    fn a_page_is_written_into_its_slots_in_turn() {
        let mut map = map();
        assert!(map.take_dirty().is_empty());
        map.place(1, 5);
        let image = map.take_dirty().remove(0);
        assert_eq!((image.index, image.generation, image.slot()), (0, 1, 1));
        assert_eq!(page::decode(&image.bytes, 1, 0).unwrap().1[1].cluster, 5);
        map.is_dirty(&image);
        assert_eq!(map.take_dirty()[0].slot(), 1, "it was not written");
        map.is_stable(&image);
        map.place(1, 6);
        assert_eq!(map.take_dirty()[0].slot(), 0);
    }

    #[test]
    fn parts_are_whole_blocks() {
        assert_eq!(parts(8192, CLUSTER).collect::<Vec<_>>(), [(0, 2, 14), (1, 0, 2)]);
        assert_eq!(parts(3 * CLUSTER, CLUSTER).collect::<Vec<_>>(), [(3, 0, 16)]);
    }
}
