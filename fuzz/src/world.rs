//! The guest's memory, and what should be in it.

use std::ops::Range;

use vmcell::{GuestAddress, GuestMemory};

/// What memory holds at first.
pub const PATTERN: u8 = 0xa5;

/// The guest's memory with a mirror, in which each byte is what it should be.
pub struct World {
    memory: GuestMemory,
    regions: Vec<Range<u64>>,
    mirror: Vec<u8>,
}

impl World {
    /// Memory in these regions, which are in ascending order and end below some MiB.
    ///
    /// # Panics
    /// If the host cannot provide it.
    pub fn new(regions: &[Range<u64>]) -> Self {
        let sizes: Vec<_> =
            regions.iter().map(|region| (GuestAddress(region.start), region.end - region.start)).collect();
        let memory = GuestMemory::anonymous(&sizes).expect("the host provides the memory");
        let end = regions.last().map_or(0, |region| region.end);
        let mut world = Self { memory, regions: regions.to_vec(), mirror: vec![PATTERN; index(end)] };
        for region in regions {
            let bytes = vec![PATTERN; index(region.end - region.start)];
            world.write(region.start, &bytes);
        }
        world
    }

    /// The memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Whether `len` bytes from `gpa` on are memory: each in a region, and regions that touch are one.
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        let Some(end) = gpa.checked_add(len) else { return false };
        let mut at = gpa;
        for region in &self.regions {
            if region.contains(&at) {
                at = region.end;
            }
            if at >= end {
                return true;
            }
        }
        false
    }

    /// The guest writes; what is not memory is left out whole. Says whether it was written.
    pub fn write(&mut self, gpa: u64, bytes: &[u8]) -> bool {
        let inside = self.contains(gpa, bytes.len() as u64);
        if inside {
            self.memory.write(GuestAddress(gpa), bytes).expect("the bytes lie in the memory");
            self.expect(gpa, bytes);
        }
        inside
    }

    /// The device should have written.
    pub fn expect(&mut self, gpa: u64, bytes: &[u8]) {
        self.mirror[index(gpa)..][..bytes.len()].copy_from_slice(bytes);
    }

    /// What should be there.
    pub fn mirror(&self, gpa: u64, len: u64) -> &[u8] {
        &self.mirror[index(gpa)..][..index(len)]
    }

    /// 16 bits of what should be there.
    pub fn half(&self, gpa: u64) -> u16 {
        u16::from_le_bytes([self.mirror[index(gpa)], self.mirror[index(gpa) + 1]])
    }

    /// What is there.
    pub fn read(&self, gpa: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; index(len)];
        self.memory.read(GuestAddress(gpa), &mut bytes).expect("the bytes lie in the memory");
        bytes
    }

    /// What is there is as it should be, whatever it is.
    pub fn adopt(&mut self, gpa: u64, len: u64) {
        let bytes = self.read(gpa, len);
        self.expect(gpa, &bytes);
    }

    /// Takes all that changed for what should be there, if it lies in one of `allowed`.
    ///
    /// # Panics
    /// If another byte changed.
    pub fn adopt_changes(&mut self, allowed: &[Range<u64>]) {
        for region in self.regions.clone() {
            let found = self.read(region.start, region.end - region.start);
            for at in self.differences(region.start, &found) {
                assert!(
                    allowed.iter().any(|range| range.contains(&at)),
                    "the device wrote to gpa {at:#x}, where it may not: {:#x} became {:#x}",
                    self.mirror[index(at)],
                    found[index(at - region.start)]
                );
            }
            self.expect(region.start, &found);
        }
    }

    /// Compares all of the memory with what should be there.
    ///
    /// # Panics
    /// If they differ.
    pub fn check(&self) {
        for region in &self.regions {
            let found = self.read(region.start, region.end - region.start);
            if let Some(at) = self.differences(region.start, &found).next() {
                let (found, expected) = (found[index(at - region.start)], self.mirror[index(at)]);
                panic!("gpa {at:#x} holds {found:#x}, and should hold {expected:#x}");
            }
        }
    }

    fn differences<'a>(&'a self, start: u64, found: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        const STEP: usize = 256;
        let expected = &self.mirror[index(start)..][..found.len()];
        let pairs = (start..).step_by(STEP).zip(found.chunks(STEP).zip(expected.chunks(STEP)));
        let different = pairs.filter(|(_, (found, expected))| found != expected);
        different.flat_map(|(at, (found, expected))| {
            (at..).zip(found.iter().zip(expected)).filter(|(_, (found, expected))| found != expected).map(|(at, _)| at)
        })
    }
}

fn index(gpa: u64) -> usize {
    usize::try_from(gpa).expect("the memory is small")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_that_touch_are_one_and_a_hole_is_none() {
        let world = World::new(&[0..0x1000, 0x1000..0x2000, 0x3000..0x4000]);
        assert!(world.contains(0xfff, 2) && world.contains(0, 0x2000) && world.contains(0x3fff, 1));
        assert!(!world.contains(0x1fff, 2) && !world.contains(0x2fff, 2) && !world.contains(0x4000, 1));
        assert!(!world.contains(u64::MAX, 2));
    }

    #[test]
    fn a_byte_that_differs_is_found() {
        let mut world = World::new(&[0..0x1000]);
        world.write(0x10, &[1, 2]);
        world.check();
        world.expect(0x11, &[3]);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.check())).is_err());
        world.adopt_changes(&[0x11..0x12]);
        world.check();
    }
}
