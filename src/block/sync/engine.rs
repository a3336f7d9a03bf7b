//! The engine as a backend: at once what can be had without waiting, the rest by a helper thread.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::abandoned;
use super::file::DiskFile;
use super::helper::Helper;
use crate::block::backend::{DiskBackend, DiskInfo, Done, Operation};
use crate::block::medium;
use crate::block::request::SECTOR;
use crate::block::tag::Tag;
use crate::error::Result;
use crate::event::Io;

/// Operations in flight at the most; more are refused until one is done.
const ROOM: usize = 256;

/// The backend of every disk on a file. Put a layer of your own on it.
///
/// It carries out reads and writes at once if the host's page cache can serve them. A helper thread of the backend carries out
/// the others, one after the other.
pub struct FileBackend {
    file: Arc<DiskFile>,
    info: DiskInfo,
    done: VecDeque<Done>,
    helper: Option<Helper>,
    with_helper: usize,
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
    /// By the helper: the file system knows no call that does not wait.
    Helper,
}

impl FileBackend {
    /// Takes a file or block device. It must be open for writing if anything is to be written. Unlike the file of a
    /// [`Disk::open`](crate::Disk::open), it is not locked.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`](crate::ErrorKind::Disk) if it is empty, or is neither a regular file nor a block device.
    pub fn new(file: File) -> Result<Self> {
        let name = "from a file";
        medium::check_type(name, &medium::metadata(name, &file)?)?;
        let size = medium::size(name, &file)?;
        Ok(Self::on(DiskFile::new(file), size))
    }

    /// A backend on a file of `capacity` bytes.
    pub(in crate::block) fn on(file: DiskFile, capacity: u64) -> Self {
        Self {
            file: Arc::new(file),
            info: DiskInfo::new(capacity),
            done: VecDeque::new(),
            helper: None,
            with_helper: 0,
            reads: Way::Try,
            writes: Way::Try,
            begun: false,
        }
    }

    /// Does it now if that takes no waiting; `None` if it has to be done by the helper.
    fn try_at_once(&mut self, operation: &mut Operation) -> Option<io::Result<()>> {
        let way = match operation {
            Operation::Read { .. } => &mut self.reads,
            Operation::Write { stable: false, .. } => &mut self.writes,
            _ => return None,
        };
        match *way {
            Way::Helper => return None,
            Way::InMemory => return Some(self.file.run(operation)),
            Way::Try => {}
        }
        match self.file.try_now(operation) {
            Ok(true) => Some(Ok(())),
            // The rest is not in the page cache, or not in the file: the helper finds out.
            Ok(false) => None,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            Err(e) if is_unknown(&e) => {
                *way = if self.file.is_in_memory() { Way::InMemory } else { Way::Helper };
                None
            }
            Err(e) => Some(Err(e)),
        }
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
        Ok(())
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, mut operation: Operation) -> std::result::Result<(), Operation> {
        if self.done.len().saturating_add(self.with_helper) >= ROOM {
            return Err(operation);
        }
        if let Some(result) = self.try_at_once(&mut operation) {
            self.done.push_back(Done::new(tag, operation, result));
            return Ok(());
        }
        let Some(helper) = &mut self.helper else { return Err(operation) };
        match helper.begin(tag, operation) {
            Ok(()) => {
                self.with_helper = self.with_helper.saturating_add(1);
                self.begun = true;
            }
            // The host gives no thread: that is an error of this operation, and the next one tries again.
            Err((operation, error)) => self.done.push_back(Done::new(tag, operation, Err(error))),
        }
        Ok(())
    }

    fn commit(&mut self, _io: &mut Io) {
        if std::mem::take(&mut self.begun)
            && let Some(helper) = &self.helper
        {
            helper.rouse();
        }
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        if let Some(done) = self.done.pop_front() {
            return Some(done);
        }
        let done = self.helper.as_ref().filter(|_| self.with_helper > 0)?.take_done()?;
        self.with_helper = self.with_helper.saturating_sub(1);
        Some(done)
    }

    fn cancel(&mut self, _io: &mut Io) {
        if let Some(helper) = &self.helper {
            helper.cancel();
        }
    }

    fn refresh(&mut self, _io: &mut Io) {
        // A file that has become smaller than a sector is no disk any more; what lies behind its end cannot be read.
        self.info.capacity = medium::size("from a file", &self.file.0).unwrap_or(SECTOR);
    }
}

#[cfg(test)]
#[path = "engine_test.rs"]
mod tests;
