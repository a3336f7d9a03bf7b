//! A device's config space as bytes that its owner publishes and vCPU threads read, without a lock between them.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

const WORD: usize = size_of::<u32>();

/// Two copies, of which the generation says which one holds: the owner writes to the other one, then turns over. A driver
/// that reads several fields sees by the generation whether they belong together (2.5.1); a field of 4 bytes is read whole.
pub(super) struct ConfigSpace {
    copies: [Box<[AtomicU32]>; 2],
    generation: AtomicU32,
    news: AtomicU8,
}

/// What the driver was told of a change, and has done about it.
const NO_NEWS: u8 = 0;
const TOLD: u8 = 1;
const READ: u8 = 2;

impl ConfigSpace {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let zeros = || (0..bytes.len().div_ceil(WORD)).map(|_| AtomicU32::new(0)).collect();
        let space = Self { copies: [zeros(), zeros()], generation: AtomicU32::new(0), news: AtomicU8::new(NO_NEWS) };
        space.fill(0, bytes);
        space
    }

    /// Replaces all bytes, by the owner alone. Its length stays as it was: bytes past it are left out.
    pub(super) fn publish(&self, bytes: &[u8]) {
        let next = self.generation.load(Ordering::Relaxed).wrapping_add(1);
        self.fill(next, bytes);
        self.generation.store(next, Ordering::SeqCst);
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The driver is being told of what was published last.
    pub(super) fn tell(&self) {
        self.news.store(TOLD, Ordering::SeqCst);
    }

    /// Whether the driver has read since it was told; says so once.
    pub(super) fn take_read(&self) -> bool {
        self.move_news(READ, NO_NEWS)
    }

    fn move_news(&self, from: u8, to: u8) -> bool {
        self.news.load(Ordering::SeqCst) == from
            && self.news.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Serves a read; what lies past the end stays as it is. Says whether it is the first since the driver was told of a change.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) -> bool {
        // First: what is told from here on may be missing in what is read.
        let is_first = self.move_news(TOLD, READ);
        self.copy_out(offset, data);
        is_first
    }

    fn copy_out(&self, offset: u64, data: &mut [u8]) {
        let words = self.copy(self.generation());
        let Ok(offset) = usize::try_from(offset) else { return };
        let mut last = None;
        for (step, byte) in data.iter_mut().enumerate() {
            let Some(index) = offset.checked_add(step) else { return };
            let (at, within) =
                (index.checked_div(WORD).unwrap_or_default(), index.checked_rem(WORD).unwrap_or_default());
            let bytes = match last {
                Some((word, bytes)) if word == at => bytes,
                _ => {
                    let Some(word) = words.get(at) else { return };
                    word.load(Ordering::Acquire).to_le_bytes()
                }
            };
            last = Some((at, bytes));
            if let Some(value) = bytes.get(within) {
                *byte = *value;
            }
        }
    }

    fn fill(&self, generation: u32, bytes: &[u8]) {
        let words = bytes.chunks(WORD).map(|chunk| {
            let mut word = [0; WORD];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            u32::from_le_bytes(word)
        });
        for (to, word) in self.copy(generation).iter().zip(words) {
            to.store(word, Ordering::Release);
        }
    }

    fn copy(&self, generation: u32) -> &[AtomicU32] {
        let [even, odd] = &self.copies;
        if generation.is_multiple_of(2) { even } else { odd }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn read(space: &ConfigSpace, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xee; len];
        space.read(offset, &mut data);
        data
    }

    #[test]
    fn any_width_at_any_offset_is_read_and_past_the_end_nothing_is() {
        let space = ConfigSpace::new(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(read(&space, 0, 8), [1, 2, 3, 4, 5, 6, 0, 0]);
        assert_eq!(read(&space, 3, 2), [4, 5]);
        assert_eq!(read(&space, 8, 2), [0xee, 0xee]);
        assert_eq!(read(&space, u64::MAX, 1), [0xee]);
        space.publish(&[9; 100]);
        assert_eq!(read(&space, 0, 9), [9, 9, 9, 9, 9, 9, 9, 9, 0xee]);
        assert_eq!(space.generation(), 1);
    }

    #[test]
    fn the_first_read_after_each_change_that_was_told_is_noticed_once() {
        let (space, mut byte) = (ConfigSpace::new(&[1]), [0]);
        assert!(!space.read(0, &mut byte) && !space.take_read());
        space.tell();
        assert!(!space.take_read());
        assert!(space.read(0, &mut byte) && !space.read(0, &mut byte));
        assert!(space.take_read() && !space.take_read());
        // What was told anew is still to be read.
        space.tell();
        assert!(space.read(0, &mut byte));
        space.tell();
        assert!(!space.take_read() && space.read(0, &mut byte) && space.take_read());
    }

    #[test]
    fn fields_that_do_not_belong_together_show_in_the_generation() {
        let space = Arc::new(ConfigSpace::new(&[0; 16]));
        let stop = Arc::new(AtomicBool::new(false));
        let (published, stopped) = (Arc::clone(&space), Arc::clone(&stop));
        let owner = std::thread::spawn(move || {
            for round in 1u32.. {
                published.publish(&[round as u8; 16]);
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..200_000 {
            let before = space.generation();
            let fields = [read(&space, 0, 4), read(&space, 4, 4), read(&space, 12, 4)].concat();
            if space.generation() == before {
                assert!(fields.iter().all(|byte| *byte == fields[0]), "{fields:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        owner.join().unwrap();
    }
}
