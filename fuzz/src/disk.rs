//! A disk's backend that does as it is told: at once, late, out of order, not at all. It holds the device to the rules.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmcell::block::{ByteRange, DiskBackend, DiskInfo, Done, Operation, Tag};
use vmcell::event::{Event, Io, Wants};

use crate::alloc::uncounted;

/// What the disk holds at first: never the pattern of the guest's memory, nor anything else above 127.
pub fn content(at: u64) -> u8 {
    ((at * 7 + (at >> 9) * 13) & 0x7f) as u8
}

/// What test and backend have in common.
#[derive(Default)]
pub struct Medium {
    pub bytes: Vec<u8>,
    pub info: Option<DiskInfo>,
    /// The driver does not flush.
    pub write_through: bool,
    pub behaviour: Behaviour,
    pub waiting: Vec<(Tag, Operation)>,
    /// Bytes that were moved since the test looked last.
    pub moved: u64,
    /// An operation failed since the test looked last.
    pub failed: bool,
    pub cancelled: bool,
}

/// How the backend behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// How often it says that nothing is done, before something is.
    pub delay: u8,
    /// Nothing is done before that changes, or it is cancelled.
    pub holds: bool,
    /// The last one is done first.
    pub backwards: bool,
    /// The next one fails.
    pub fails: bool,
    /// How many operations there is room for.
    pub room: u8,
}

/// The medium, as the device's backend.
pub struct Backend(pub Arc<Mutex<Medium>>);

/// Looks at the medium.
pub fn lock(medium: &Mutex<Medium>) -> MutexGuard<'_, Medium> {
    medium.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Medium {
    /// Operations that the backend has.
    pub fn pending(&self) -> usize {
        self.waiting.len()
    }

    fn check(&self, operation: &Operation) {
        let info = self.info.expect("it is set before the device is made");
        let (at, len, most) = match operation {
            Operation::Read { at, into } => (*at, into.len(), info.max_transfer),
            Operation::Write { at, from, stable } => {
                assert_eq!(*stable, self.write_through, "a write is stable if the driver does not flush");
                (*at, from.len(), info.max_transfer)
            }
            Operation::Discard(range) => (range.at, range.len, info.max_range),
            Operation::WriteZeroes { range, stable, .. } => {
                assert_eq!(*stable, self.write_through, "zeroes are stable if the driver does not flush");
                (range.at, range.len, info.max_range)
            }
            _ => return,
        };
        let block = u64::from(info.block_size);
        assert!(at.is_multiple_of(block) && len.is_multiple_of(block), "{operation:?} is not of whole blocks");
        assert!(len > 0 && len <= most, "{operation:?} has a length that the backend does not take");
        assert!(at.checked_add(len).is_some_and(|end| end <= info.capacity), "{operation:?} leaves the disk");
    }

    fn execute(&mut self, operation: &mut Operation) {
        match operation {
            Operation::Read { at, into } => {
                let range = self.range(*at, into.len());
                into.copy_in(0, &self.bytes[range]).expect("the buffer is as long as it says");
                self.moved += into.len();
            }
            Operation::Write { at, from, .. } => {
                let range = self.range(*at, from.len());
                from.copy_out(0, &mut self.bytes[range]).expect("the buffer is as long as it says");
                self.moved += from.len();
            }
            Operation::Discard(range) | Operation::WriteZeroes { range, .. } => {
                let ByteRange { at, len } = *range;
                let range = self.range(at, len);
                self.bytes[range].fill(0);
            }
            _ => {}
        }
    }

    fn range(&self, at: u64, len: u64) -> std::ops::Range<usize> {
        let start = usize::try_from(at).expect("the disk is small");
        start..start + usize::try_from(len).expect("the disk is small")
    }

    fn next_done(&mut self) -> Option<Done> {
        if self.waiting.is_empty() || (self.behaviour.holds && !self.cancelled) {
            return None;
        }
        if self.behaviour.delay > 0 {
            self.behaviour.delay -= 1;
            return None;
        }
        let position = if self.behaviour.backwards { self.waiting.len() - 1 } else { 0 };
        let (tag, mut operation) = self.waiting.remove(position);
        self.cancelled &= !self.waiting.is_empty();
        if std::mem::take(&mut self.behaviour.fails) {
            self.failed = true;
            return Some(Done::new(tag, operation, Err(std::io::Error::other("told to fail"))));
        }
        self.execute(&mut operation);
        Some(Done::new(tag, operation, Ok(())))
    }
}

impl DiskBackend for Backend {
    fn info(&self) -> DiskInfo {
        lock(&self.0).info.expect("it is set before the device is made")
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, operation: Operation) -> Result<(), Operation> {
        let mut medium = lock(&self.0);
        uncounted(|| {
            medium.check(&operation);
            if medium.waiting.len() >= usize::from(medium.behaviour.room).max(1) {
                return Err(operation);
            }
            medium.waiting.push((tag, operation));
            Ok(())
        })
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        let mut medium = lock(&self.0);
        uncounted(|| medium.next_done())
    }

    fn cancel(&mut self, _io: &mut Io) {
        let mut medium = lock(&self.0);
        medium.cancelled = !medium.waiting.is_empty();
    }

    fn wants(&self, wants: &mut Wants) {
        let medium = lock(&self.0);
        if !medium.waiting.is_empty() && (medium.cancelled || !medium.behaviour.holds) {
            wants.again();
        }
    }

    fn woken(&mut self, _io: &mut Io, _event: &Event) {}
}
