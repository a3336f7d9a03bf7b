//! A disk in memory that is as awkward as the rules allow.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::block::{ByteRange, DiskBackend, DiskInfo, Done, Operation, Tag};
use crate::error::Result;
use crate::event::{Event, Io, Token, Wants};

/// A backend in memory that behaves as badly as the rules of [`DiskBackend`] allow. Put a layer of your own on it to test the
/// layer.
///
/// It can be [slow](Self::delay), and then completes operations in reverse order. It can have [room](Self::room) for few
/// operations only. Its [handle](Self::handle) makes it fail, change its size, or lose everything that was not made stable in a
/// power failure.
///
/// ```
/// use std::time::Duration;
/// use vmcell::testing::{DiskConformance, SimulatedDisk};
///
/// // Put your layer around the disk here:
/// let make = || Box::new(SimulatedDisk::new(1 << 20).delay(Duration::from_micros(100)).room(3)) as _;
/// DiskConformance::new(make).run();
/// ```
pub struct SimulatedDisk {
    handle: SimulatedDiskHandle,
    info: DiskInfo,
    delay: Duration,
    room: usize,
    begun: VecDeque<Begun>,
    token: Option<Token>,
}

/// Changes a [`SimulatedDisk`] from outside. A clone is another handle to the same disk.
#[derive(Clone)]
pub struct SimulatedDiskHandle {
    state: Arc<Mutex<State>>,
}

struct State {
    capacity: u64,
    /// What reads see.
    content: Vec<u8>,
    /// What is left after a power failure.
    stable: Vec<u8>,
    /// Ranges that differ, perhaps, and whose change was reported as done, oldest first.
    reported: VecDeque<ByteRange>,
    /// How many of them were made stable, and are not kept any more.
    settled: usize,
    /// Operations that work before some fail.
    working: usize,
    failures: usize,
}

struct Begun {
    tag: Tag,
    operation: Operation,
    due: Instant,
    /// How many changes had been reported when it was submitted: a flush makes these stable.
    covers: usize,
}

impl SimulatedDisk {
    /// Makes a disk of `capacity` zero bytes, a multiple of 512, that completes everything at once.
    pub fn new(capacity: u64) -> Self {
        let zeros = vec![0; usize::try_from(capacity).expect("it fits in memory")];
        let (stable, reported) = (zeros.clone(), VecDeque::new());
        let state = State { capacity, content: zeros, stable, reported, settled: 0, working: 0, failures: 0 };
        Self::on(SimulatedDiskHandle { state: Arc::new(Mutex::new(state)) })
    }

    fn on(handle: SimulatedDiskHandle) -> Self {
        let info = DiskInfo::new(handle.state().capacity);
        Self { handle, info, delay: Duration::ZERO, room: usize::MAX, begun: VecDeque::new(), token: None }
    }

    /// Completes operations only after `delay`, the last one first.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Takes at most `room` operations at once, which is at least one.
    #[must_use]
    pub fn room(mut self, room: usize) -> Self {
        self.room = room.max(1);
        self
    }

    /// Returns a handle to the disk.
    pub fn handle(&self) -> SimulatedDiskHandle {
        self.handle.clone()
    }
}

impl SimulatedDiskHandle {
    /// Takes the power away, and returns the disk that comes back, with everything that was stable.
    pub fn power_failure(&self) -> SimulatedDisk {
        let mut state = self.state();
        state.content = state.stable.clone();
        state.settled += state.reported.len();
        state.reported.clear();
        drop(state);
        SimulatedDisk::on(self.clone())
    }

    /// Makes the next `operations` operations fail.
    pub fn fail(&self, operations: usize) {
        self.fail_after(0, operations);
    }

    /// Makes `operations` operations fail after `working` that work.
    pub fn fail_after(&self, working: usize, operations: usize) {
        let mut state = self.state();
        (state.working, state.failures) = (working, operations);
    }

    /// Changes the size to `capacity` bytes, a multiple of 512. The disk notices when it is [refreshed](DiskBackend::refresh).
    pub fn set_capacity(&self, capacity: u64) {
        let mut state = self.state();
        let len = usize::try_from(capacity).expect("it fits in memory");
        state.capacity = capacity;
        state.content.resize(len, 0);
        state.stable.resize(len, 0);
    }

    /// Returns everything that is on the disk now.
    pub fn bytes(&self) -> Vec<u8> {
        self.state().content.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn part(bytes: &mut [u8], range: ByteRange) -> io::Result<&mut [u8]> {
        let part = usize::try_from(range.at).ok().zip(usize::try_from(range.len).ok());
        let part = part.and_then(|(at, len)| bytes.get_mut(at..at.checked_add(len)?));
        part.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn run(&mut self, begun: &mut Begun) -> io::Result<()> {
        if self.failures > 0 && self.working > 0 {
            self.working -= 1;
        } else if self.failures > 0 {
            self.failures -= 1;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let (range, stable) = match &mut begun.operation {
            Operation::Read { at, into } => {
                let part = Self::part(&mut self.content, ByteRange { at: *at, len: into.len() })?;
                return into.copy_in(0, part).map_err(io::Error::other);
            }
            Operation::Write { at, from, stable } => {
                let range = ByteRange { at: *at, len: from.len() };
                from.copy_out(0, Self::part(&mut self.content, range)?).map_err(io::Error::other)?;
                (range, *stable)
            }
            Operation::Flush => {
                while self.settled < begun.covers
                    && let Some(range) = self.reported.pop_front()
                {
                    self.settled += 1;
                    self.make_stable(range)?;
                }
                return Ok(());
            }
            Operation::Discard(range) => {
                // Anything may be there now.
                Self::part(&mut self.content, *range)?.fill(0xdd);
                (*range, false)
            }
            Operation::WriteZeroes { range, stable, .. } => {
                Self::part(&mut self.content, *range)?.fill(0);
                (*range, *stable)
            }
        };
        self.reported.push_back(range);
        if stable { self.make_stable(range) } else { Ok(()) }
    }

    fn make_stable(&mut self, range: ByteRange) -> io::Result<()> {
        let from = Self::part(&mut self.content, range)?;
        Self::part(&mut self.stable, range)?.copy_from_slice(from);
        Ok(())
    }
}

impl DiskBackend for SimulatedDisk {
    fn info(&self) -> DiskInfo {
        self.info
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.token = Some(io.token());
        Ok(())
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        if self.begun.len() >= self.room {
            return Err(operation);
        }
        let covers = {
            let state = self.handle.state();
            state.settled + state.reported.len()
        };
        self.begun.push_back(Begun { tag, operation, due: Instant::now() + self.delay, covers });
        Ok(())
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        let now = Instant::now();
        let last = self.begun.iter().rposition(|begun| begun.due <= now)?;
        let mut begun = self.begun.remove(last)?;
        let result = self.handle.state().run(&mut begun);
        Some(Done::new(begun.tag, begun.operation, result))
    }

    fn cancel(&mut self, _io: &mut Io) {
        let now = Instant::now();
        self.begun.iter_mut().for_each(|begun| begun.due = now);
    }

    fn refresh(&mut self, _io: &mut Io) {
        self.info.capacity = self.handle.state().capacity;
    }

    fn wants(&self, wants: &mut Wants) {
        if let (Some(token), Some(due)) = (self.token, self.begun.iter().map(|begun| begun.due).min()) {
            wants.deadline(token, due);
        }
    }

    fn woken(&mut self, _io: &mut Io, _event: &Event) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Slab;
    use crate::memory::{Buffer, HostBuffer};
    use crate::testing::IoRig;

    fn write(disk: &mut SimulatedDisk, operation: Operation) {
        let mut rig = IoRig::new();
        let tag = Slab::new(1).insert(()).unwrap();
        disk.submit(&mut rig.turn(), tag, operation).unwrap();
        disk.completed(&mut rig.turn()).unwrap().result.unwrap();
    }

    fn block(byte: u8) -> Buffer {
        let mut buffer = HostBuffer::new(512);
        buffer.fill(byte);
        Buffer::Host(buffer)
    }

    #[test]
    fn a_power_failure_takes_what_was_not_made_stable() {
        let mut disk = SimulatedDisk::new(4096);
        let handle = disk.handle();
        write(&mut disk, Operation::Write { at: 0, from: block(1), stable: false });
        write(&mut disk, Operation::Flush);
        write(&mut disk, Operation::Write { at: 512, from: block(2), stable: true });
        write(&mut disk, Operation::Write { at: 1024, from: block(3), stable: false });
        let blocks = |bytes: Vec<u8>| [0, 512, 1024].map(|at| bytes[at]);
        assert_eq!(blocks(handle.bytes()), [1, 2, 3]);
        drop(handle.power_failure());
        assert_eq!(blocks(handle.bytes()), [1, 2, 0]);
    }

    #[test]
    fn a_flush_covers_only_what_was_given_back_before_it() {
        let mut disk = SimulatedDisk::new(4096);
        let mut rig = IoRig::new();
        let mut tags = Slab::new(2);
        let (first, second) = (tags.insert(()).unwrap(), tags.insert(()).unwrap());
        disk.submit(&mut rig.turn(), first, Operation::Write { at: 0, from: block(1), stable: false }).unwrap();
        disk.submit(&mut rig.turn(), second, Operation::Flush).unwrap();
        while disk.completed(&mut rig.turn()).is_some() {}
        drop(disk.handle().power_failure());
        assert_eq!(disk.handle().bytes()[0], 0);
    }
}
