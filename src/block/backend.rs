//! The interface under a disk: a backend carries out the disk's operations. It knows neither queues nor the guest.

use std::io;

use super::tag::Tag;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Io, Wants};
use crate::memory::Buffer;
use crate::meter::Meter;

/// Carries out a disk's operations. Implement it to put something of your own under a disk, or to stack a layer (a cipher,
/// a cache, a limit) on another backend.
///
/// # Rules
/// - **One caller.** All calls except [`info`](Self::info) come from the I/O thread that owns the disk, one at a time. None
///   may block: a backend that has to wait says what for in [`wants`](Self::wants), or lets another thread wait and use a
///   [`Waker`](crate::event::Waker). [What a callback may do](crate::event#what-a-callback-may-do) says which calls with a VM's
///   handle it may make.
/// - **Who checks what.** Ranges lie inside the capacity and cover whole blocks; a read or a write has at most
///   [`max_transfer`](DiskInfo::max_transfer) bytes, in at most [`max_segments`](DiskInfo::max_segments) parts. The device
///   splits larger requests. A backend need not check this again, unless its capacity can shrink: operations that were
///   checked against the old capacity may still come then, and are to fail. A backend must never panic.
/// - **Each operation is completed once**, in any order, with the tag that it was submitted with. If a read is completed
///   without an error, its buffer is full.
/// - **A buffer is a lease** on the guest's memory. The backend gives it back with the operation; until then, a reset and a
///   pause wait for it.
/// - **Flush** makes everything stable that was completed before the flush was submitted. Operations that are in flight at
///   the same time have no order. A [`stable`](Operation::Write::stable) write is stable when it is completed. Discard is a
///   hint; only [`WriteZeroes`](Operation::WriteZeroes) promises zeroes. A backend that does not have one of them
///   [says so](DiskInfo::discard) before the guest sees the disk, or ends it with [`Unsupported`](Done::result).
/// - If a backend completes an operation that it was not given, completes one twice, panics, or [gives up](Io::give_up), it is **never
///   called again** but dropped, on a thread made for that, and the buffers that it holds with it. Its disk fails: the driver is told
///   that the device needs a reset, and again each time that it has reset the device. The host program is told by
///   [`Vm::device_failures`](crate::Vm::device_failures), and may [replace](super::DiskHandle::replace) the backend. A panic
///   before the backend has attached is the error of building the VM. Run `testing::DiskConformance` over a backend before you use it.
///
/// # Order of calls
/// [`info`](Self::info) comes first, then [`attach`](Self::attach). From then on the disk gives the backend turns: after an
/// event, and when the guest has sent requests. In a turn, the disk passes on the event ([`woken`](Self::woken)), takes what
/// is [`completed`](Self::completed), [submits](Self::submit) what it has, and ends that batch with
/// [`commit`](Self::commit), if it submitted anything. It repeats the last three steps until they do nothing more or the
/// turn is over. At the end of the turn it asks what the backend [`wants`](Self::wants). So a backend that completes its
/// operations at once only keeps them until the next call of `completed`, and a backend that completes them later needs an
/// event to be asked again.
///
/// # Example
/// A disk in memory, which carries out each operation at once:
/// ```
/// use std::collections::VecDeque;
/// use std::io;
///
/// use vmcell::block::{DiskBackend, DiskInfo, Done, Operation, Tag};
/// use vmcell::event::Io;
///
/// struct RamDisk {
///     bytes: Vec<u8>,
///     done: VecDeque<Done>,
/// }
///
/// impl RamDisk {
///     fn new(capacity: usize) -> Self {
///         Self { bytes: vec![0; capacity], done: VecDeque::new() }
///     }
///
///     fn part(&mut self, at: u64, len: u64) -> io::Result<&mut [u8]> {
///         let part = self.bytes.get_mut(at as usize..).and_then(|rest| rest.get_mut(..len as usize));
///         part.ok_or_else(|| io::ErrorKind::InvalidInput.into())
///     }
///
///     fn carry_out(&mut self, operation: &mut Operation) -> io::Result<()> {
///         match operation {
///             Operation::Read { at, into } => {
///                 let part = self.part(*at, into.len())?;
///                 into.copy_in(0, part).map_err(io::Error::other)
///             }
///             Operation::Write { at, from, .. } => {
///                 let part = self.part(*at, from.len())?;
///                 from.copy_out(0, part).map_err(io::Error::other)
///             }
///             Operation::WriteZeroes { range, .. } => {
///                 self.part(range.at, range.len)?.fill(0);
///                 Ok(())
///             }
///             Operation::Flush | Operation::Discard(_) => Ok(()),
///             _ => Err(io::ErrorKind::Unsupported.into()), // from a later version of this crate
///         }
///     }
/// }
///
/// impl DiskBackend for RamDisk {
///     fn info(&self) -> DiskInfo {
///         DiskInfo::new(self.bytes.len() as u64)
///     }
///
///     fn submit(&mut self, _io: &mut Io, tag: Tag, mut operation: Operation) -> Result<(), Operation> {
///         let result = self.carry_out(&mut operation);
///         self.done.push_back(Done::new(tag, operation, result));
///         Ok(())
///     }
///
///     fn completed(&mut self, _io: &mut Io) -> Option<Done> {
///         self.done.pop_front()
///     }
/// }
///
/// vmcell::testing::DiskConformance::new(|| Box::new(RamDisk::new(1 << 20)) as _).run();
/// let disk = vmcell::Disk::backend(RamDisk::new(64 << 20)).never_blocks();
/// ```
///
/// # Layers
/// A layer passes [`attach`](Self::attach), [`commit`](Self::commit), [`cancel`](Self::cancel), [`refresh`](Self::refresh),
/// [`wants`](Self::wants), [`status`](Self::status), [`metrics`](Self::metrics), and all [events](Self::woken) that are not its own on to the backend below. If it submits
/// operations to that backend outside of its own `submit`, it also calls `commit` there afterwards. It either keeps the tags
/// that it was given, or gives tags of its own and finds the original ones in a [`Slab`](super::Slab). A layer that needs
/// buffers takes no more at once than [one holds](crate::HostBuffer::MAX_LEN), and keeps one of the largest size for itself, so
/// that it never waits for others to give theirs back.
/// `examples/encrypted_disk` has a layer of less than 200 lines.
pub trait DiskBackend: Send {
    /// Describes the disk. Called before the backend is attached, and again each time that the backend says that
    /// [something changed](Io::info_changed): the capacity may change while the VM runs, the rest may not. Must not block.
    fn info(&self) -> DiskInfo;

    /// The first call on the thread that owns the disk. The backend makes its tokens and wakers here, if it needs any. If it
    /// is called again, the backend has come to another thread with nothing in flight: the old tokens and wakers mean nothing
    /// there, so the backend makes new ones.
    ///
    /// Building the VM waits for it, at most for ten seconds.
    ///
    /// # Errors
    /// If the backend cannot work. The VM is not built then, or the disk is not [replaced](super::DiskHandle::replace).
    fn attach(&mut self, _io: &mut Io) -> Result<()> {
        Ok(())
    }

    /// Begins an operation, or carries it out at once. `Ok` only means that the backend has taken it: an operation is done,
    /// or has failed, when [`completed`](Self::completed) returns it.
    ///
    /// # Errors
    /// The operation itself, if there is no room for it now. This is no failure: the operation is submitted again after the
    /// next completion or the next event of this backend, or in [another turn](Wants::again) that it asks for, under another
    /// tag. A backend that is full with nothing in flight must therefore make sure that one of these comes.
    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation>;

    /// Ends a batch: the backend begins with the operations that it has only collected so far.
    fn commit(&mut self, _io: &mut Io) {}

    /// Returns the next operation that is done, if there is one. Called until it returns `None` or the turn is
    /// [over](Io::spent).
    fn completed(&mut self, io: &mut Io) -> Option<Done>;

    /// The driver has reset the device and waits for it. The backend fails the operations that it has not begun, and hurries
    /// the others. Each one must still be completed.
    fn cancel(&mut self, _io: &mut Io) {}

    /// The host program says that the size of the medium may have changed: the backend looks at it again. The disk asks for
    /// [`info`](Self::info) afterwards. A backend that must wait for the size has it looked at elsewhere, and says later that
    /// [something changed](Io::info_changed).
    fn refresh(&mut self, _io: &mut Io) {}

    /// Says what the backend waits for now. Called after each turn; what is not named is not waited for.
    fn wants(&self, _wants: &mut Wants) {}

    /// Something happened. Events with the tokens of other layers arrive here, too; a backend does nothing about those.
    fn woken(&mut self, _io: &mut Io, _event: &Event) {}

    /// Says how the backend works, for the host program. Called after the backend was attached, and after it said that
    /// [something changed](Io::info_changed).
    fn status(&self) -> DiskStatus {
        DiskStatus::default()
    }

    /// Hands over the counters that the backend keeps, for [`Vm::metrics`](crate::Vm::metrics). Called once, after the backend was
    /// attached.
    fn metrics(&self, _meter: &mut Meter) {}
}

/// A box is a backend, so a layer can be put on one that is chosen at run time.
impl<B: DiskBackend + ?Sized> DiskBackend for Box<B> {
    fn info(&self) -> DiskInfo {
        (**self).info()
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        (**self).attach(io)
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        (**self).submit(io, tag, operation)
    }

    fn commit(&mut self, io: &mut Io) {
        (**self).commit(io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        (**self).completed(io)
    }

    fn cancel(&mut self, io: &mut Io) {
        (**self).cancel(io);
    }

    fn refresh(&mut self, io: &mut Io) {
        (**self).refresh(io);
    }

    fn wants(&self, wants: &mut Wants) {
        (**self).wants(wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        (**self).woken(io, event);
    }

    fn status(&self) -> DiskStatus {
        (**self).status()
    }

    fn metrics(&self, meter: &mut Meter) {
        (**self).metrics(meter);
    }
}

/// Says how a disk works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStatus {
    /// How requests reach the storage: `uring` or `sync` for a disk on a file, whatever a backend of your own says, or nothing.
    pub engine: String,
    /// Why that is not the engine that would have been the first choice, if it is not, or is not any more. Also why a disk on a file
    /// has all of its data moved by a thread that waits.
    pub fallback: Option<String>,
}

/// Describes a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskInfo {
    /// The disk's size in bytes: a multiple of the block size, above 0.
    pub capacity: u64,
    /// The alignment of operations in bytes: a power of two from 512 to 4096. The default is 512.
    pub block_size: u32,
    /// The most bytes of a read or a write: a multiple of the block size, above 0. The default is 128 KiB. A turn only ends
    /// between two operations, so larger ones hold up the other devices on the thread for longer.
    pub max_transfer: u64,
    /// The most bytes of a discard or of zeroes: a multiple of the block size, above 0. The default is 64 MiB.
    pub max_range: u64,
    /// The most parts that a buffer may have: at least [`MIN_SEGMENTS`](Self::MIN_SEGMENTS), which is the default.
    pub max_segments: usize,
    /// Whether the backend takes [`Discard`](Operation::Discard), which is the default. Otherwise the guest is not offered it, and the
    /// backend never gets it.
    pub discard: bool,
    /// The same of [`WriteZeroes`](Operation::WriteZeroes).
    pub write_zeroes: bool,
}

impl DiskInfo {
    /// The number of parts that every backend must take: twice as many as a request has descriptors.
    pub const MIN_SEGMENTS: usize = 512;

    /// Describes a disk of `capacity` bytes, with the defaults for everything else. `DiskInfo` may gain fields, so change the
    /// others of the value that this returns.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            block_size: 512,
            max_transfer: 128 << 10,
            max_range: 64 << 20,
            max_segments: Self::MIN_SEGMENTS,
            discard: true,
            write_zeroes: true,
        }
    }

    /// The same disk as one of blocks that are as large as its own or larger, to all of which no operation is to be unaligned.
    pub(crate) fn in_blocks_of(self, block_size: u32) -> Result<Self> {
        let block = u64::from(block_size);
        let whole = |bytes: u64| bytes.saturating_sub(bytes.checked_rem(block).unwrap_or(0));
        let (max_transfer, max_range) = (whole(self.max_transfer), whole(self.max_range));
        if self.block_size <= block_size && max_transfer > 0 && max_range > 0 {
            return Ok(Self { block_size, max_transfer, max_range, ..self });
        }
        let message = format!(
            "the disk has blocks of {block} bytes, its replacement has blocks of {} and takes at most {} at once, or {} as a range; \
             allowed are smaller blocks, and operations of one block of the disk at least",
            self.block_size, self.max_transfer, self.max_range
        );
        Err(Error::new(ErrorKind::Disk, message))
    }

    /// Refuses what no disk can be like.
    pub(crate) fn check(&self) -> Result<()> {
        let refused = |what: &str, found: u64, allowed: &str| {
            Err(Error::new(ErrorKind::Disk, format!("a disk backend has {what} {found}, allowed is {allowed}")))
        };
        let block = u64::from(self.block_size);
        if !self.block_size.is_power_of_two() || !(512..=4096).contains(&block) {
            return refused("the block size", block, "a power of two from 512 to 4096");
        }
        if self.capacity == 0 || !self.capacity.is_multiple_of(block) {
            return refused("the capacity", self.capacity, &format!("a multiple of {block} above 0"));
        }
        if self.max_transfer < block || !self.max_transfer.is_multiple_of(block) {
            return refused("the largest transfer", self.max_transfer, &format!("a multiple of {block} above 0"));
        }
        if self.max_range < block || !self.max_range.is_multiple_of(block) {
            return refused("the largest range", self.max_range, &format!("a multiple of {block} above 0"));
        }
        if self.max_segments < Self::MIN_SEGMENTS {
            return refused("the most segments", self.max_segments as u64, &format!("{} or more", Self::MIN_SEGMENTS));
        }
        Ok(())
    }
}

/// One operation on a disk.
///
/// It holds all that it needs, so a backend may keep it and finish it on another thread.
#[derive(Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Fill the buffer with the bytes of the disk from `at` on.
    Read {
        /// Where on the disk, in bytes.
        at: u64,
        /// The buffer to fill.
        into: Buffer,
    },
    /// Write the buffer to the disk from byte `at` on.
    Write {
        /// Where on the disk, in bytes.
        at: u64,
        /// The buffer to write.
        from: Buffer,
        /// Whether the write must be stable when it is completed, because the driver does not flush.
        stable: bool,
    },
    /// Make everything stable that was completed before.
    Flush,
    /// Allow the range's content to be lost.
    Discard(ByteRange),
    /// Make the range read as zeroes.
    WriteZeroes {
        /// Which part of the disk.
        range: ByteRange,
        /// Whether the storage of the range should be given back, if the backend can do that.
        unmap: bool,
        /// Whether the zeroes must be stable when the operation is completed.
        stable: bool,
    },
}

/// A part of a disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// Its first byte.
    pub at: u64,
    /// Its length.
    pub len: u64,
}

/// An operation that is done.
#[derive(Debug)]
#[non_exhaustive]
pub struct Done {
    /// The tag that it was submitted with.
    pub tag: Tag,
    /// The operation itself, with its buffer.
    pub operation: Operation,
    /// How it ended. After an error, any part of it may have been done. The guest only learns that it failed, or, of a discard or of zeroes
    /// that ended with [`Unsupported`](io::ErrorKind::Unsupported) (`EOPNOTSUPP`), that the disk does not do that: Linux's driver then
    /// does without, or writes zeroes as data.
    pub result: io::Result<()>,
}

impl Done {
    /// An operation that ended with `result`.
    pub fn new(tag: Tag, operation: Operation, result: io::Result<()>) -> Self {
        Self { tag, operation, result }
    }
}
