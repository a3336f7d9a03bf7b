//! The open seam under a disk: what carries out its operations. It knows no queue and no guest.

use std::io;

use super::tag::Tag;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Io, Wants};
use crate::memory::Buffer;

/// Carries out a disk's operations. Implement it to put something of your own under a disk, or to stack a layer (a cipher,
/// a cache, a limit) on another backend.
///
/// # Rules
/// - **One caller.** All calls but [`info`](Self::info) come from the I/O thread that owns the disk, one at a time. None may
///   block: what has to wait says so in [`wants`](Self::wants), or has another thread use a [`Waker`](crate::event::Waker).
/// - **Who checks what.** Ranges lie inside the capacity, in whole blocks; a data operation has from one byte to
///   [`max_transfer`](DiskInfo::max_transfer), in at most [`max_segments`](DiskInfo::max_segments) parts. The device cuts
///   what is larger. A backend need not check again, but must not panic whatever comes.
/// - **Each operation is completed once**, in any order, with the tag that it was submitted with. A read that is completed
///   without an error has filled its buffer.
/// - **A buffer is a lease** on the guest's memory. It is given back with the operation; until then a reset and a pause
///   wait for it.
/// - **Flush** makes stable whatever was completed before it was submitted. Nothing orders operations that are in flight at
///   once. A [`stable`](Operation::Write::stable) write is stable when it is completed. Discard is a hint; only
///   [`WriteZeroes`](Operation::WriteZeroes) promises zeroes.
/// - A backend that completes what it was not given, completes it twice, or panics is **never called again**: its disk fails,
///   nothing else does.
///
/// # Layers
/// A layer passes [`attach`](Self::attach), [`commit`](Self::commit), [`cancel`](Self::cancel), [`refresh`](Self::refresh),
/// [`wants`](Self::wants), and [events](Self::woken) that are not its own on to the backend below. It keeps a
/// [`Slab`](super::Slab) from the tags that it gives to the ones it was given. One that needs buffers takes no more at once than
/// [one holds](crate::HostBuffer::MAX_LEN), and keeps one of the largest size for itself, so that it never waits for others to
/// give theirs back. `examples/encrypted_disk` has one of less than 200 lines.
///
/// `testing::DiskConformance` (feature `test-util`) tries whether a backend keeps to the rules.
pub trait DiskBackend: Send {
    /// What the disk is like. Asked before it is attached, and again each time that the backend says that
    /// [something changed](Io::info_changed): the capacity may change while the VM runs, the rest may not. Never blocks.
    fn info(&self) -> DiskInfo;

    /// The first call on the thread that owns the disk: makes tokens and wakers.
    ///
    /// # Errors
    /// If the backend cannot work; then there will be no VM.
    fn attach(&mut self, _io: &mut Io) -> Result<()> {
        Ok(())
    }

    /// Begins with an operation, or completes it at once. [`completed`](Self::completed) says when it is done, never this.
    ///
    /// # Errors
    /// The operation, if there is no room for it now. It is tried again after the next completion or the next event of this
    /// backend, or in [another turn](Wants::again) that it asks for; so one that is full with nothing in flight must see to one
    /// of these.
    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation>;

    /// The end of a batch: what was only collected so far is begun with.
    fn commit(&mut self, _io: &mut Io) {}

    /// The next operation that is done, if there is one. Called until it gives `None` or the turn is [over](Io::spent).
    fn completed(&mut self, io: &mut Io) -> Option<Done>;

    /// The driver has gone: what has not begun fails, the rest is hurried. All is completed still.
    fn cancel(&mut self, _io: &mut Io) {}

    /// The disk's owner says that the medium may have changed: looks at its size again.
    fn refresh(&mut self, _io: &mut Io) {}

    /// Says what the backend waits for. Asked after each turn.
    fn wants(&self, _wants: &mut Wants) {}

    /// Something happened. Events of others come by, too.
    fn woken(&mut self, _io: &mut Io, _event: &Event) {}
}

/// So that a layer can be put on a backend that is chosen at run time.
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
}

/// What a disk is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskInfo {
    /// Its size in bytes: whole blocks, at least one.
    pub capacity: u64,
    /// What operations are aligned to, in bytes: a power of two from 512 to 4096. The default is 512.
    pub block_size: u32,
    /// The most bytes of a read or a write: at least a block. The default is 128 KiB: a turn that is over ends after the
    /// operation that it is in.
    pub max_transfer: u64,
    /// The most bytes of a discard, or of zeroes: at least a block. The default is 64 MiB.
    pub max_range: u64,
    /// The most parts of a guest's buffer: at least [`MIN_SEGMENTS`](Self::MIN_SEGMENTS), which is the default.
    pub max_segments: usize,
}

impl DiskInfo {
    /// The parts that any backend must take: as many as a request of a driver has descriptors, twice.
    pub const MIN_SEGMENTS: usize = 512;

    /// A disk of `capacity` bytes, with the defaults for everything else.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            block_size: 512,
            max_transfer: 128 << 10,
            max_range: 64 << 20,
            max_segments: Self::MIN_SEGMENTS,
        }
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
/// It holds all that it needs, so that a backend may keep it and finish it on another thread.
#[derive(Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Fill the buffer from byte `at` of the disk on.
    Read {
        /// Where on the disk, in bytes.
        at: u64,
        /// What to fill.
        into: Buffer,
    },
    /// Write the buffer to byte `at` of the disk on.
    Write {
        /// Where on the disk, in bytes.
        at: u64,
        /// What to write.
        from: Buffer,
        /// Whether it must be stable when it is completed: the driver does not flush.
        stable: bool,
    },
    /// Make stable all that was completed before.
    Flush,
    /// Allow the range's content to be lost.
    Discard(ByteRange),
    /// Make the range read as zeroes.
    WriteZeroes {
        /// Which part of the disk.
        range: ByteRange,
        /// Preferably by giving its storage back.
        unmap: bool,
        /// Whether it must be stable when it is completed.
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
    /// What it was submitted with.
    pub tag: Tag,
    /// The operation, with its buffer.
    pub operation: Operation,
    /// How it ended. After an error, any part of it may have been done.
    pub result: io::Result<()>,
}

impl Done {
    /// An operation that ended like this.
    pub fn new(tag: Tag, operation: Operation, result: io::Result<()>) -> Self {
        Self { tag, operation, result }
    }
}
