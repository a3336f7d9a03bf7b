//! The backend of every disk on a file: each operation by the way that costs least and keeps the I/O thread free.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::abandoned;
use super::direct::Bounces;
use super::helper::Helper;
use super::medium_file::DiskFile;
use super::ring::{Outcome, RingPort};
use crate::block::backend::{DiskBackend, DiskInfo, DiskStatus, Done, Operation};
use crate::block::medium;
use crate::block::request::SECTOR;
use crate::block::tag::Tag;
use crate::config::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Io, Wants};

/// Operations in flight at the most; more are refused until one is done.
const ROOM: usize = 256;

/// The backend of every disk on a file. Put a layer of your own on it.
///
/// | Operation | How it is carried out |
/// |---|---|
/// | a read or write that the page cache can serve without waiting | at once, by a system call |
/// | another read, a write to a file system that can write without waiting, any of a file with direct I/O | by the I/O thread's io_uring |
/// | a flush | by the io_uring, if it does not have several of the disk's already |
/// | all others, all of these on a thread without io_uring, and data on FUSE, which waits even if it is told not to | by a helper thread of the disk, one after the other |
///
/// A read from the page cache costs less as a system call of its own than as an entry of a ring. Linux moves a buffered write that
/// may wait to a kernel thread, which costs more than a thread of ours.
pub struct FileBackend {
    file: Arc<DiskFile>,
    info: DiskInfo,
    engine: Engine,
    done: VecDeque<Done>,
    ring: Option<RingPort>,
    /// Why there is no ring, if one was wanted.
    fallback: Option<String>,
    helper: Option<Helper>,
    with_helper: usize,
    /// For a file with direct I/O.
    bounces: Option<Bounces>,
    reads: Way,
    writes: Way,
    /// The helper was given something since the last batch.
    begun: bool,
}

/// How data are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Without waiting, if it can be so; found out by trying.
    Try,
    /// By an ordinary call: the file lies in memory, so that there is no storage to wait for.
    InMemory,
    /// By the ring: the file's data go past the page cache.
    Direct,
    /// By the helper: the file system knows no call that does not wait.
    Helper,
}

impl FileBackend {
    /// Takes a file or block device. It must be open for writing if anything is to be written. Unlike the file of a
    /// [`Disk::open`](crate::Disk::open), it is not locked. If it was opened with `O_DIRECT`, its data go past the page cache.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`](crate::ErrorKind::Disk) if it is empty, or is neither a regular file nor a block device, or if it has
    /// `O_DIRECT` and its size is not a multiple of what direct I/O on it is aligned to.
    pub fn new(file: File) -> Result<Self> {
        let name = "from a file";
        medium::check_type(name, &medium::metadata(name, &file)?)?;
        Self::on(name, DiskFile::new(file), Engine::default())
    }

    /// Chooses the engine. [`Engine::Auto`] is the default.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    pub(in crate::block) fn on(name: &str, file: DiskFile, engine: Engine) -> Result<Self> {
        let medium = medium::look_at(name, &file.0)?;
        let way = match medium.alignment {
            _ if file.waits_always() => Way::Helper,
            Some(_) => Way::Direct,
            None => Way::Try,
        };
        let bounces = medium.alignment.map(|alignment| Bounces::new(alignment, medium.info.max_transfer));
        Ok(Self {
            file: Arc::new(file),
            info: medium.info,
            engine,
            done: VecDeque::new(),
            ring: None,
            fallback: None,
            helper: None,
            with_helper: 0,
            bounces,
            reads: way,
            writes: way,
            begun: false,
        })
    }

    /// Does it now if that takes no waiting; `None` if it takes some.
    fn try_at_once(&mut self, operation: &mut Operation) -> Option<io::Result<()>> {
        let way = match operation {
            Operation::Read { .. } => &mut self.reads,
            Operation::Write { stable: false, .. } => &mut self.writes,
            _ => return None,
        };
        match *way {
            Way::Direct | Way::Helper => return None,
            Way::InMemory => return Some(self.file.run(operation)),
            Way::Try => {}
        }
        match self.file.try_now(operation) {
            Ok(true) => Some(Ok(())),
            // The rest is not in the page cache, or not in the file: the ring or the helper finds out.
            Ok(false) => None,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            Err(e) if is_unknown(&e) => {
                *way = if self.file.is_in_memory() { Way::InMemory } else { Way::Helper };
                None
            }
            Err(e) => Some(Err(e)),
        }
    }

    /// Whether the ring does it better than the helper.
    fn suits_ring(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Read { .. } => self.reads != Way::Helper,
            Operation::Write { .. } => self.writes != Way::Helper,
            Operation::Flush => true,
            Operation::Discard(_) | Operation::WriteZeroes { .. } => false,
        }
    }

    /// Gives it to the ring, or to the helper.
    fn begin(&mut self, io: &mut Io, tag: Tag, mut operation: Operation) {
        if self.suits_ring(&operation)
            && let Some(ring) = &mut self.ring
        {
            match ring.begin(io, tag, operation) {
                Ok(()) => return,
                // The ring is full with what others have in flight, or has enough flushes.
                Err(refused) => operation = refused,
            }
        }
        self.leave_to_helper(io, tag, operation);
    }

    fn leave_to_helper(&mut self, io: &mut Io, tag: Tag, operation: Operation) {
        let refused = match &mut self.helper {
            Some(helper) => helper.begin(tag, operation),
            None => Err((operation, io::ErrorKind::NotConnected.into())),
        };
        match refused {
            Ok(()) => {
                self.with_helper = self.with_helper.saturating_add(1);
                self.begun = true;
            }
            // The host gives no thread: that is an error of this operation, and the next one tries again.
            Err((operation, error)) => self.finish(io, Done::new(tag, operation, Err(error))),
        }
    }

    fn finish(&mut self, io: &mut Io, mut done: Done) {
        if let Some(bounces) = &mut self.bounces {
            bounces.leave(io, done.tag, &mut done.operation, done.result.is_ok());
        }
        self.done.push_back(done);
    }

    /// Takes what the ring and the helper have done.
    fn collect(&mut self, io: &mut Io) {
        while let Some(outcome) = self.ring.as_mut().and_then(|ring| ring.take(io)) {
            match outcome {
                Outcome::Done(done) => return self.finish(io, done),
                Outcome::Undone(tag, operation) => self.leave_to_helper(io, tag, operation),
            }
        }
        self.rouse_helper();
        if self.with_helper > 0
            && let Some(done) = self.helper.as_ref().and_then(Helper::take_done)
        {
            self.with_helper = self.with_helper.saturating_sub(1);
            self.finish(io, done);
        }
    }

    fn rouse_helper(&mut self) {
        if std::mem::take(&mut self.begun)
            && let Some(helper) = &self.helper
        {
            helper.rouse();
        }
    }

    fn in_flight(&self) -> usize {
        let with_ring = self.ring.as_ref().map_or(0, RingPort::in_flight);
        self.done.len().saturating_add(self.with_helper).saturating_add(with_ring)
    }
}

/// Whether the kernel or the file system does not know reads and writes without waiting.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
        || error.raw_os_error() == Some(libc::ENOSYS)
}

impl DiskBackend for FileBackend {
    fn info(&self) -> DiskInfo {
        self.info
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        abandoned::check()?;
        let token = io.token();
        self.helper = Some(Helper::new(Arc::clone(&self.file), io.waker(token)));
        (self.ring, self.fallback) = (None, None);
        if self.engine == Engine::Sync {
            return Ok(());
        }
        match RingPort::open(io, &self.file) {
            Ok(ring) => self.ring = Some(ring),
            Err(reason) if self.engine == Engine::Uring => {
                let message = format!("the engine uring was asked for, but {reason}");
                return Err(Error::new(ErrorKind::Disk, message));
            }
            Err(reason) => self.fallback = Some(reason),
        }
        Ok(())
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, mut operation: Operation) -> std::result::Result<(), Operation> {
        if self.in_flight() >= ROOM || self.helper.is_none() {
            return Err(operation);
        }
        if let Some(bounces) = &mut self.bounces {
            operation = bounces.enter(io, tag, operation)?;
        }
        match self.try_at_once(&mut operation) {
            Some(result) => self.done.push_back(Done::new(tag, operation, result)),
            None => self.begin(io, tag, operation),
        }
        Ok(())
    }

    fn commit(&mut self, _io: &mut Io) {
        self.rouse_helper();
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        if self.done.is_empty() {
            self.collect(io);
        }
        self.done.pop_front()
    }

    fn cancel(&mut self, _io: &mut Io) {
        if let Some(helper) = &self.helper {
            helper.cancel();
        }
    }

    fn refresh(&mut self, _io: &mut Io) {
        // A file that has become smaller than a sector is no disk any more; what lies behind its end cannot be read.
        let size = medium::size("from a file", &self.file.0).unwrap_or(SECTOR);
        let block = u64::from(self.info.block_size);
        self.info.capacity = size.saturating_sub(size.checked_rem(block).unwrap_or(0)).max(block);
    }

    fn wants(&self, wants: &mut Wants) {
        if self.with_helper > 0 {
            wants.lets_work();
        }
    }

    fn status(&self) -> DiskStatus {
        let engine = if self.ring.is_some() { "uring" } else { "sync" };
        DiskStatus { engine: engine.to_owned(), fallback: self.fallback.clone() }
    }
}

#[cfg(test)]
#[path = "engine_test.rs"]
mod tests;
