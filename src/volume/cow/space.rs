//! Which clusters of the file are free.

use std::ops::Range;

use super::entry::{CLUSTER, Entry};
use super::map::in_file;
use crate::block::ByteRange;
use crate::error::Result;
use crate::volume::refused;

pub(super) struct Space {
    /// The first that was never used.
    next: u32,
    /// The last that there is room for.
    last: u32,
    /// Those in whose place the map lies, in order.
    taken: Vec<Range<u32>>,
    free: Vec<u32>,
    /// Held nothing when the map changed last: they are free once the file's map says so.
    freed: Vec<u32>,
}

impl Space {
    /// Of the clusters that a map names. In the place of those that are `taken` lies something else.
    ///
    /// # Errors
    /// If it names one twice, or one that there is no room for.
    pub(super) fn of<'a>(entries: impl Iterator<Item = &'a Entry>, room: u64, taken: Vec<Range<u32>>) -> Result<Self> {
        let last = u32::try_from(room).unwrap_or(u32::MAX);
        let mut used: Vec<u32> = entries.map(|entry| entry.cluster).filter(|cluster| *cluster != 0).collect();
        used.sort_unstable();
        let twice = used.iter().zip(used.iter().skip(1)).find(|(one, next)| one == next);
        if let Some((cluster, _)) = twice {
            return Err(refused(format!("the map names the cluster {cluster} twice")));
        }
        if let Some(beyond) = used.last().filter(|cluster| **cluster > last) {
            return Err(refused(format!("the map names the cluster {beyond}, the file has room for {last}")));
        }
        if let Some(other) = used.iter().find(|cluster| is_taken(&taken, **cluster)) {
            return Err(refused(format!("the map names the cluster {other}, where the map itself lies")));
        }
        let next = used.last().map_or(1, |cluster| cluster.saturating_add(1));
        let mut free = Vec::new();
        let mut expected = 1;
        for cluster in used {
            free.extend((expected..cluster).filter(|cluster| !is_taken(&taken, *cluster)));
            expected = cluster.saturating_add(1);
        }
        Ok(Self { next, last, taken, free, freed: Vec::new() })
    }

    /// The next one: behind all others while there is room, so that what is written in order lies in order, unless those that are free
    /// still take space on the host.
    pub(super) fn take(&mut self, free_ones_first: bool) -> Option<u32> {
        if free_ones_first && let Some(cluster) = self.free.pop() {
            return Some(cluster);
        }
        while let Some(range) = self.taken.iter().find(|range| range.contains(&self.next)) {
            self.next = range.end;
        }
        if self.next <= self.last {
            let cluster = self.next;
            self.next = self.next.saturating_add(1);
            return Some(cluster);
        }
        self.free.pop()
    }

    /// There is more room, and the map lies in more places.
    pub(super) fn grow(&mut self, room: u64, taken: Vec<Range<u32>>) {
        self.last = u32::try_from(room).unwrap_or(u32::MAX);
        self.taken = taken;
    }

    /// These hold nothing any more, but the file's map may still name them.
    pub(super) fn put_aside(&mut self, clusters: Vec<u32>) {
        self.freed.extend(clusters);
    }

    pub(super) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// What was put aside, for which the map in the file is about to be made right.
    pub(super) fn freed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.freed)
    }

    /// They are free, now that the file's map does not name them.
    pub(super) fn put_back(&mut self, clusters: Vec<u32>) {
        self.free.extend(clusters);
    }
}

fn is_taken(taken: &[Range<u32>], cluster: u32) -> bool {
    let next = taken.partition_point(|range| range.end <= cluster);
    taken.get(next).is_some_and(|range| range.contains(&cluster))
}

/// Where clusters lie: ranges of at most so many, each with its clusters.
pub(super) fn ranges(mut clusters: Vec<u32>, data_at: u64, at_once: usize) -> Vec<(ByteRange, Vec<u32>)> {
    clusters.sort_unstable();
    let neighbours = clusters.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let ranges = neighbours.flat_map(|some| some.chunks(at_once)).map(|some| {
        let at = data_at.saturating_add(in_file(some.first().copied().unwrap_or_default()));
        (ByteRange { at, len: CLUSTER.saturating_mul(some.len() as u64) }, some.to_vec())
    });
    ranges.collect()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of ranges, of which there is one")]
mod tests {
    use super::*;

    fn entries(clusters: &[u32]) -> Vec<Entry> {
        clusters.iter().map(|cluster| Entry { cluster: *cluster, ..Entry::default() }).collect()
    }

    #[test]
    fn new_clusters_come_first_and_freed_ones_when_there_is_no_room_behind() {
        let mut space = Space::of(entries(&[0, 4, 2]).iter(), 6, vec![]).unwrap();
        assert_eq!([space.take(false), space.take(false)], [Some(5), Some(6)]);
        let mut old = [space.take(false), space.take(false)];
        old.sort_unstable();
        assert_eq!((old, space.take(false)), ([Some(1), Some(3)], None));
        space.put_aside(vec![2]);
        assert_eq!(space.take(false), None, "the file's map still names it");
        let freed = space.freed();
        space.put_back(freed);
        assert_eq!(space.take(false), Some(2));
        let mut space = Space::of(entries(&[2]).iter(), 6, vec![]).unwrap();
        assert_eq!([space.take(true), space.take(true)], [Some(1), Some(3)]);
    }

    #[test]
    fn a_map_that_names_a_cluster_twice_or_one_that_is_not_there_is_refused() {
        let said = |clusters: &[u32]| Space::of(entries(clusters).iter(), 6, vec![5..6]).err().unwrap().to_string();
        assert_eq!(said(&[3, 1, 3]), "the map names the cluster 3 twice");
        assert_eq!(said(&[7]), "the map names the cluster 7, the file has room for 6");
        assert_eq!(said(&[5]), "the map names the cluster 5, where the map itself lies");
    }

    #[test]
    fn what_lies_among_the_clusters_is_left_alone() {
        let mut space = Space::of(entries(&[1, 6]).iter(), 9, vec![3..6]).unwrap();
        let mut taken: Vec<u32> = std::iter::from_fn(|| space.take(true)).collect();
        taken.sort_unstable();
        assert_eq!(taken, [2, 7, 8, 9]);
        let mut space = Space::of(entries(&[1]).iter(), 7, vec![2..5]).unwrap();
        assert_eq!(std::iter::from_fn(|| space.take(false)).collect::<Vec<_>>(), [5, 6, 7]);
    }

    #[test]
    fn neighbours_are_one_range_unless_that_is_too_long() {
        let range = |at, len, clusters: &[u32]| (ByteRange { at, len }, clusters.to_vec());
        let (one, two) = (range(100, 3 * 65536, &[1, 2, 3]), range(100 + 6 * 65536, 65536, &[7]));
        assert_eq!(ranges(vec![3, 1, 2, 7], 100, 8), [one, two.clone()]);
        let cut = [range(100, 2 * 65536, &[1, 2]), range(100 + 2 * 65536, 65536, &[3]), two];
        assert_eq!(ranges(vec![3, 1, 2, 7], 100, 2), cut);
    }
}
