//! The backend of every disk on a file: each operation by the way that costs least and keeps the I/O thread free.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
#[cfg(feature = "volume")]
use std::sync::Weak;

use super::abandoned;
use super::batches::Batches;
use super::direct::Bounces;
use super::helper::{Answer, Helper, Task};
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
/// | another read, reads of up to 16 KiB that come by the batch, a write to a file system that can write without waiting, any of a file with direct I/O | by the I/O thread's io_uring |
/// | all others, all of these on a thread without io_uring, and data on FUSE, which waits even if it is told not to | by a helper thread of the disk, one after the other; flushes that wait are made one |
///
/// A read from the page cache is done soonest by a system call of its own. Of many small ones, each costs less as an entry of a ring,
/// since they share the way into the kernel. Linux moves a flush, and a buffered
/// write that may wait, to a kernel thread, which costs more than a thread of ours. A ring has only a few of these, for all disks: if
/// storage that does not answer holds them all, what waits for one goes to the helper thread of its disk after a moment.
pub struct FileBackend {
    file: Arc<DiskFile>,
    info: DiskInfo,
    engine: Engine,
    done: VecDeque<Done>,
    ring: Option<RingPort>,
    /// Why there is no ring, or why it is not used.
    fallback: Option<String>,
    /// Why data are moved by the helper alone.
    waits: Option<String>,
    helper: Option<Helper>,
    with_helper: usize,
    /// The helper looks at the size.
    measures: bool,
    /// It is to do so again.
    measures_again: bool,
    /// For a file with direct I/O.
    bounces: Option<Bounces>,
    reads: Way,
    writes: Way,
    batches: Batches,
    /// The helper was given something since the last batch.
    begun: bool,
}

/// The lock that a disk has on its file, as long as it has it.
#[cfg(feature = "volume")]
pub(crate) struct Claim(Weak<DiskFile>);

#[cfg(feature = "volume")]
impl Claim {
    /// The disk has written for the last time: from now on others may read the file, too.
    pub(crate) fn only_reads(&self) {
        if let Some(file) = self.0.upgrade() {
            file.only_reads();
        }
    }

    /// Whether this is the file that the disk has locked.
    pub(crate) fn is_on(&self, file: &File) -> Result<bool> {
        self.0.upgrade().map_or(Ok(false), |own| own.is_locked_as(file))
    }
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

    /// Its lock on the file, for whoever decides how that is used.
    #[cfg(feature = "volume")]
    pub(crate) fn claim(&self) -> Claim {
        Claim(Arc::downgrade(&self.file))
    }

    pub(in crate::block) fn on(name: &str, file: DiskFile, engine: Engine) -> Result<Self> {
        let medium = medium::look_at(name, &file.0)?;
        let waits = file.waits_always();
        let way = match medium.alignment {
            _ if waits.is_some() => Way::Helper,
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
            waits,
            helper: None,
            with_helper: 0,
            measures: false,
            measures_again: false,
            bounces,
            reads: way,
            writes: way,
            batches: Batches::default(),
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
            Operation::Flush | Operation::Discard(_) | Operation::WriteZeroes { .. } => false,
        }
    }

    /// Gives it to the ring, or to the helper.
    fn begin(&mut self, io: &mut Io, tag: Tag, mut operation: Operation) {
        if self.suits_ring(&operation) {
            match self.give_to_ring(io, tag, operation) {
                Ok(()) => return,
                Err(refused) => operation = refused,
            }
        }
        self.leave_to_helper(io, tag, operation);
    }

    /// # Errors
    /// The operation, if there is no ring, or it is full with what others have in flight, is jammed, or was given up.
    fn give_to_ring(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        match &mut self.ring {
            Some(ring) => ring.begin(io, tag, operation),
            None => Err(operation),
        }
    }

    fn leave_to_helper(&mut self, io: &mut Io, tag: Tag, operation: Operation) {
        // If the host gives no thread, that is an error of this operation, and the next one tries again.
        if let Err((Task::Carry(tag, operation), error)) = self.give_to_helper(Task::Carry(tag, operation)) {
            self.finish(io, Done::new(tag, operation, Err(error)));
        }
    }

    fn give_to_helper(&mut self, task: Task) -> std::result::Result<(), (Task, io::Error)> {
        let Some(helper) = &mut self.helper else { return Err((task, io::ErrorKind::NotConnected.into())) };
        helper.begin(task)?;
        self.with_helper = self.with_helper.saturating_add(1);
        self.begun = true;
        Ok(())
    }

    /// Has the helper look at the size, which may take as long as anything else.
    fn measure(&mut self, io: &mut Io) {
        self.measures_again = self.measures;
        if self.measures {
            return;
        }
        self.measures = true;
        match self.give_to_helper(Task::Measure) {
            Ok(()) => self.rouse_helper(),
            // Without a thread, it is better to look at it here than never.
            Err(_) => self.resize(io, self.file.size()),
        }
    }

    fn resize(&mut self, io: &mut Io, size: Result<u64>) {
        self.measures = false;
        // A file that has become smaller than a sector is no disk any more; what lies behind its end cannot be read.
        let size = size.unwrap_or(SECTOR);
        let block = u64::from(self.info.block_size);
        self.info.capacity = size.saturating_sub(size.checked_rem(block).unwrap_or(0)).max(block);
        io.info_changed();
        if std::mem::take(&mut self.measures_again) {
            self.measure(io);
        }
    }

    fn open_ring(&mut self, io: &mut Io) -> Result<()> {
        (self.ring, self.fallback) = (None, self.waits.clone());
        if self.engine == Engine::Sync {
            return Ok(());
        }
        match self.waits.clone().map_or_else(|| RingPort::open(io, &self.file), Err) {
            Ok(ring) => self.ring = Some(ring),
            Err(reason) if self.engine == Engine::Uring => {
                let message = format!("the engine uring was asked for, but {reason}");
                return Err(Error::new(ErrorKind::Disk, message));
            }
            Err(reason) => self.fallback = Some(reason),
        }
        Ok(())
    }

    fn finish(&mut self, io: &mut Io, mut done: Done) {
        if let Some(bounces) = &mut self.bounces {
            bounces.leave(io, done.tag, &mut done.operation, done.result.is_ok());
        }
        self.done.push_back(done);
    }

    /// Takes what the ring and the helper have done.
    fn collect(&mut self, io: &mut Io) {
        self.look_at_ring(io);
        while let Some(outcome) = self.ring.as_mut().and_then(|ring| ring.take(io)) {
            match outcome {
                Outcome::Done(done) => return self.finish(io, done),
                Outcome::Undone(tag, operation) => self.leave_to_helper(io, tag, operation),
            }
        }
        self.rouse_helper();
        while self.with_helper > 0
            && let Some(answer) = self.helper.as_ref().and_then(Helper::take_answer)
        {
            self.with_helper = self.with_helper.saturating_sub(1);
            match answer {
                Answer::Done(done) => return self.finish(io, done),
                Answer::Size(size) => self.resize(io, size),
            }
        }
    }

    /// Learns that the ring is used no more.
    fn look_at_ring(&mut self, io: &mut Io) {
        if self.fallback.is_none()
            && let Some(ring) = &self.ring
            && let Some(reason) = ring.given_up(io)
        {
            self.fallback = Some(reason);
            io.info_changed();
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
        self.with_helper = 0;
        let token = io.token();
        self.helper = Some(Helper::new(Arc::clone(&self.file), io.waker(token)));
        self.open_ring(io)?;
        // The former helper was asked, and answers nobody.
        if std::mem::take(&mut self.measures) {
            self.measure(io);
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
        if self.batches.is_one_of_many(&operation) && self.reads == Way::Try {
            match self.give_to_ring(io, tag, operation) {
                Ok(()) => return Ok(()),
                Err(refused) => operation = refused,
            }
        }
        match self.try_at_once(&mut operation) {
            Some(result) => self.done.push_back(Done::new(tag, operation, result)),
            None => self.begin(io, tag, operation),
        }
        Ok(())
    }

    fn commit(&mut self, _io: &mut Io) {
        self.batches.end_one();
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

    fn refresh(&mut self, io: &mut Io) {
        self.measure(io);
    }

    fn wants(&self, wants: &mut Wants) {
        if self.with_helper > 0 {
            wants.lets_work();
        }
    }

    fn status(&self) -> DiskStatus {
        let engine = if self.ring.is_some() && self.fallback.is_none() { "uring" } else { "sync" };
        DiskStatus { engine: engine.to_owned(), fallback: self.fallback.clone() }
    }
}

#[cfg(test)]
#[path = "engine_test.rs"]
mod tests;
