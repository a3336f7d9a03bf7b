//! Snapshots of a volume in use: the file so far becomes a base, and the VM goes on writing to a fork of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::below::Swaps;
use super::chain::{Chain, Opened, check_depth, new_identity, new_layer};
use super::cow::{self, BaseKey, Growth, Part, Still};
use super::draft::{data_key_for, write_fork};
use super::key::Key;
use super::keys::HeaderLock;
use super::live::{News, Offered, Orders, Said};
use super::luks::{Header, UnlockLimits};
use super::refused;
use crate::block::{Claim, DiskBackend, FileBackend};
use crate::config::DiskConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{check_may_wait, lock};

/// Takes snapshots of a volume and makes it larger while its VM runs. Any thread may use it, and a clone is of the same volume.
///
/// ```no_run
/// # fn main() -> vmcell::Result<()> {
/// use std::time::Duration;
/// use vmcell::volume::{Key, Volume};
///
/// let key = Key::file("data.key")?;
/// let volume = Volume::open("monday.vol", &key)?;
/// let handle = volume.handle();
/// let disk = volume.into_disk();
/// // ... once the VM runs: what is in monday.vol stays as it is, and the VM goes on writing to tuesday.vol
/// let pause = handle.snapshot("tuesday.vol", &key, Duration::from_secs(10))?;
/// println!("the disk stood still for {pause:?}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct VolumeHandle {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) orders: Arc<Orders>,
    /// Why there is none, if it is not to be changed.
    pub(super) current: Mutex<std::result::Result<Current, &'static str>>,
    /// A snapshot is prepared, or the volume grows: one at a time.
    is_pending: AtomicBool,
}

/// The file that the VM writes to.
pub(super) struct Current {
    pub(super) path: PathBuf,
    pub(super) key: BaseKey,
    pub(super) limits: UnlockLimits,
    /// How many it lies over.
    pub(super) depth: usize,
    claim: Claim,
    block_size: u32,
    disk: DiskConfig,
    discard: bool,
    /// If it is a fork.
    pub(super) growth: Option<Growth>,
    /// If it builds on another one.
    pub(super) swaps: Option<Arc<Swaps>>,
}

impl Current {
    pub(super) fn new(
        opened: &Opened<'_>,
        claim: Claim,
        chain: &Chain,
        disk: &DiskConfig,
        discard: bool,
    ) -> Result<Self> {
        Ok(Self {
            path: opened.path.to_owned(),
            key: BaseKey::new(opened.key)?,
            limits: opened.limits,
            depth: chain.depth,
            claim,
            block_size: chain.disk.info().block_size,
            disk: disk.clone(),
            discard,
            growth: chain.growth.clone(),
            swaps: chain.swaps.clone(),
        })
    }

    fn check(&self) -> Result<()> {
        check_depth(self.depth)?;
        if self.block_size < 4096 {
            let message = format!(
                "its guest knows blocks of {} bytes, and would get blocks of 4096: fork it while it is not in use",
                self.block_size
            );
            return Err(refused(message));
        }
        Ok(())
    }

    /// Keeps others from a fork that goes, unless somebody uses it, or did so.
    fn claim_untouched(&self) -> Result<FileBackend> {
        let claim = FileBackend::open(&self.disk)?;
        let file = File::open(&self.path).map_err(|e| refused("it cannot be opened").with_source(e))?;
        let header = Header::read(&file)?;
        let (data, key, limits) = (header.data_behind()?, self.key.bytes(), self.limits);
        let opened = Opened { path: &self.path, file: &file, header: &header, data, key, limits };
        let mut payload = opened.payload(&file)?;
        let layer = cow::read_header(&mut payload)?;
        let capacity = layer.capacity;
        let first = Still::open(&mut payload, layer)?.first_part(0, capacity);
        if header.base_identity().is_none() && first == (capacity, Part::Base) {
            return Ok(claim);
        }
        Err(refused("it was written to"))
    }

    /// Its header, if this is the file that the VM has.
    pub(super) fn header(&self, file: &File) -> Result<Header> {
        if !self.claim.is_on(file)? {
            return Err(refused("it is another file than the one in use, or that is not in use any more"));
        }
        let header = Header::read(file)?;
        match header.base_identity() {
            None => Ok(header),
            Some(_) => Err(refused("others build on it already")),
        }
    }
}

/// The right to change which file the VM writes to, or how large it is. Whoever finds it taken does not wait.
pub(super) struct Turn<'a>(&'a Shared);

impl<'a> Turn<'a> {
    pub(super) fn take(shared: &'a Shared) -> Result<Self> {
        if shared.is_pending.swap(true, Ordering::SeqCst) {
            let message = "another snapshot of the volume is prepared and was not taken yet, or the volume grows";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        Ok(Self(shared))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.is_pending.store(false, Ordering::SeqCst);
    }
}

impl VolumeHandle {
    pub(super) fn new(orders: Arc<Orders>, current: std::result::Result<Current, &'static str>) -> Self {
        let shared = Shared { orders, current: Mutex::new(current), is_pending: AtomicBool::new(false) };
        Self { shared: Arc::new(shared) }
    }

    /// Takes a snapshot: what is in the volume's file stays as it is from now on, and the VM goes on writing to a new file at `path`, a
    /// [fork](super::Volume::fork) that `key` opens. Returns for how long the disk stood still, until what was in flight was done:
    /// some milliseconds at most on storage that works.
    ///
    /// Afterwards, the new file is the one to [open](super::Volume::open) for the VM; the old one may be read and forked as any base, and both stay where
    /// they are, or move together. After a crash in the middle, the new file has all that the VM had made stable, or if that one is refused, the old
    /// one has it.
    ///
    /// Blocks for as long as a fork takes to make, for the VM's disk to be served once, at most `limit`, and then until the old file's data are stable, at most `limit`.
    ///
    /// # Errors
    /// Those of [`prepare_snapshot`](Self::prepare_snapshot) and of [`VolumeSnapshot::wait`]. After an error of the latter, the snapshot was or will be taken.
    pub fn snapshot(&self, path: impl AsRef<Path>, key: &Key, limit: Duration) -> Result<Duration> {
        let prepared = self.prepare_snapshot(path, key, limit)?;
        prepared.take();
        prepared.wait(limit)
    }

    /// Does what takes time of a snapshot, so that [`VolumeSnapshot::take`] is done in no time: together with a [snapshot of the
    /// VM](crate::Vm::snapshot_with), for instance. The VM runs meanwhile; it must have been built, and not be paused.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`] if `path` exists or cannot be written, the volume is read-only, has a header of its own or blocks of less than
    /// 4096 bytes, lies over 16 others already, or its file has been replaced;
    /// [`ErrorKind::Timeout`] if the VM's disk was not served within `limit`;
    /// [`ErrorKind::InvalidState`] if another snapshot of it is prepared and not taken yet, or it [grows](Self::grow), and on an [I/O
    /// thread](crate::event#what-a-callback-may-do). The volume is as it was then.
    pub fn prepare_snapshot(&self, path: impl AsRef<Path>, key: &Key, limit: Duration) -> Result<VolumeSnapshot> {
        check_may_wait("take a snapshot of a volume")?;
        let turn = Turn::take(&self.shared)?;
        let current = lock(&self.shared.current);
        let current = match &*current {
            Ok(current) => current,
            Err(why) => return Err(refused(format!("no snapshot of the volume can be taken: {why}"))),
        };
        let prepared = self.prepare(current, path.as_ref(), key, limit);
        let prepared = prepared.map_err(|e| e.about(&format!("volume {}", current.path.display())))?;
        // Until it is taken.
        std::mem::forget(turn);
        Ok(prepared)
    }

    fn prepare(&self, current: &Current, path: &Path, key: &Key, limit: Duration) -> Result<VolumeSnapshot> {
        current.check()?;
        let unopened = |e| refused("it cannot be opened").with_source(e);
        let file = File::options().read(true).write(true).open(&current.path).map_err(unopened)?;
        let _lock = HeaderLock::take(&file)?;
        let mut header = current.header(&file)?;
        let identity = new_identity()?;
        let (data, bytes) = (header.data_behind()?, current.key.bytes());
        let opened =
            Opened { path: &current.path, file: &file, header: &header, data, key: bytes, limits: current.limits };
        let layer = new_layer(opened.as_base(identity, path)?)?;
        let data_key = data_key_for(key)?;
        let about = |e: Error| e.about(&format!("volume {}", path.display()));
        write_fork(path, key, &data_key, &layer).map_err(about)?;
        let mut made = Made { path, orders: &self.shared.orders, is_kept: false };
        let (next, offered, news) = self.offer(current, path, &data_key).map_err(about)?;
        heard(&news.said, limit).map_err(about)?;
        // From now on, the fork has what the volume has, also after a crash: it is not written to before it is on top.
        header.make_base(&file, identity, layer.identity)?;
        made.is_kept = true;
        let (shared, path, before) = (Arc::clone(&self.shared), path.to_owned(), current.path.clone());
        let (next, base, news) = (Mutex::new(Some(next)), Mutex::new(None), Mutex::new((news, None)));
        Ok(VolumeSnapshot { shared, next, base, offered, news, path, before, identity })
    }

    /// Opens the fork and has the disk's thread take it.
    fn offer(&self, current: &Current, path: &Path, data_key: &[u8]) -> Result<(Current, Offered, News)> {
        let mut disk = current.disk.clone();
        disk.path = path.to_owned();
        let backend = FileBackend::open(&disk)?;
        let claim = backend.claim();
        let file = File::open(path).map_err(|e| refused("it cannot be opened").with_source(e))?;
        let header = Header::read(&file)?;
        let (data, limits) = (header.data_behind()?, current.limits);
        let opened = Opened { path, file: &file, header: &header, data, key: data_key, limits };
        let fork = opened.empty_layer(backend, current.discard)?;
        let (depth, block_size) = (current.depth.saturating_add(1), fork.info().block_size);
        let key = BaseKey::new(data_key)?;
        let (path, discard) = (path.to_owned(), current.discard);
        let growth = Some(fork.growth());
        let swaps = Arc::<Swaps>::default();
        let (offered, news) = self.shared.orders.offer(fork, Arc::clone(&swaps));
        let swaps = Some(swaps);
        let next = Current { path, key, limits, depth, claim, block_size, disk, discard, growth, swaps };
        Ok((next, offered, news))
    }
}

/// Waits until the disk's thread has taken what was offered.
fn heard(said: &Receiver<Said>, limit: Duration) -> Result<()> {
    match said.recv_timeout(limit) {
        Ok(Said::Attached | Said::OnTop(_)) => Ok(()),
        Ok(Said::Refused(error, _)) => Err(error),
        Ok(Said::Back(_)) => Ok(()),
        Err(RecvTimeoutError::Timeout) => {
            let message =
                format!("the disk was not served for {} ms: its VM is not there, or paused", limit.as_millis());
            Err(Error::new(ErrorKind::Timeout, message))
        }
        Err(RecvTimeoutError::Disconnected) => Err(ended()),
    }
}

/// A fork's file, which goes unless it is kept.
struct Made<'a> {
    path: &'a Path,
    orders: &'a Orders,
    is_kept: bool,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.orders.withdraw();
            let _ = fs::remove_file(self.path);
        }
    }
}

/// A snapshot of a volume that is prepared: all is done but for the moment itself. If it is dropped before it was taken, the volume is as it
/// was before; but if the VM has ended and the new file is in use, or was written to, both files stay as they are. If it was taken and
/// nobody [waits](Self::wait) for it, the old file stays locked until the VM ends.
pub struct VolumeSnapshot {
    shared: Arc<Shared>,
    /// What the VM writes to afterwards, until then.
    next: Mutex<Option<Current>>,
    /// What it wrote to before, afterwards.
    base: Mutex<Option<Claim>>,
    offered: Offered,
    /// And for how long the disk stood still, once that is known.
    news: Mutex<(News, Option<Duration>)>,
    path: PathBuf,
    before: PathBuf,
    identity: [u8; 16],
}

impl VolumeSnapshot {
    /// Takes the snapshot: what the VM's disk begins from now on goes to the new file, once what is in flight is done. Never blocks, so it may
    /// be called while the VM stands still:
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn take(vm: vmcell::Vm, volume: vmcell::volume::VolumeHandle, key: vmcell::volume::Key) -> vmcell::Result<()> {
    /// let limit = Duration::from_secs(10);
    /// let disk = volume.prepare_snapshot("tuesday.vol", &key, limit)?;
    /// let ram = vm.snapshot_with(|| {
    ///     disk.take();
    ///     Ok(())
    /// })?; // both are of one instant
    /// disk.wait(limit)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The second and any later call does nothing.
    pub fn take(&self) {
        let Some(next) = lock(&self.next).take() else { return };
        self.offered.order();
        if let Ok(current) = &mut *lock(&self.shared.current) {
            let base = std::mem::replace(current, next);
            *lock(&self.base) = Some(base.claim);
        }
        self.shared.is_pending.store(false, Ordering::SeqCst);
    }

    /// Waits until the snapshot is taken and the old file is stable; then it may be read and forked. Returns for how long the disk stood
    /// still. May be called again after an error.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if that has not come within `limit`, because the VM is paused or the storage is slow;
    /// [`ErrorKind::InvalidState`] if the snapshot was not [taken](Self::take), if the VM has ended, and on an [I/O
    /// thread](crate::event#what-a-callback-may-do); [`ErrorKind::Volume`] if the old file's data cannot be made stable, of which the
    /// guest's next flush tells as well.
    pub fn wait(&self, limit: Duration) -> Result<Duration> {
        check_may_wait("wait for a snapshot of a volume")?;
        let about = |e: Error| e.about(&format!("volume {}", self.path.display()));
        if lock(&self.next).is_some() {
            return Err(about(Error::new(ErrorKind::InvalidState, "the snapshot was not taken yet")));
        }
        self.wait_for_both(limit).map_err(about)
    }

    /// Until the fork is on top, and then until what lies below it is stable.
    fn wait_for_both(&self, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        let late = |what: &str| {
            let message = format!("{what} within {} ms", limit.as_millis());
            Err(Error::new(ErrorKind::Timeout, message))
        };
        let mut news = lock(&self.news);
        let stood = match news.1 {
            Some(stood) => stood,
            None => match news.0.said.recv_timeout(limit) {
                Ok(Said::OnTop(stood)) => stood,
                Err(RecvTimeoutError::Timeout) => return late("the VM's disk did not come to it"),
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            },
        };
        news.1 = Some(stood);
        match news.0.settled.recv_timeout(limit.saturating_sub(begun.elapsed())) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(refused("the data of the file so far cannot be made stable").with_source(e)),
            Err(RecvTimeoutError::Timeout) => return late("the data of the file so far were not stable"),
            // It was told before.
            Err(RecvTimeoutError::Disconnected) if lock(&self.base).is_none() => {}
            Err(RecvTimeoutError::Disconnected) => return Err(ended()),
        }
        if let Some(base) = lock(&self.base).take() {
            base.only_reads();
        }
        Ok(stood)
    }

    /// The volume is as it was before, unless somebody builds on what the snapshot has made: then that stays.
    fn undo(&self, fork: &Current) -> Result<()> {
        self.offered.cancel();
        let heard = lock(&self.news).0.said.recv_timeout(FOR_CLOSING);
        // As long as the disk's thread has the fork, nobody else does.
        let is_held = matches!(heard, Err(RecvTimeoutError::Timeout));
        drop(heard);
        let _claim = if is_held { None } else { Some(fork.claim_untouched()?) };
        let unopened = |e| refused("it cannot be opened").with_source(e);
        let file = File::options().read(true).write(true).open(&self.before).map_err(unopened)?;
        let _lock = HeaderLock::take(&file)?;
        let mut header = Header::read(&file)?;
        let is_alone = header.forks().is_some_and(|forks| forks.len() == 1);
        if is_alone && header.base_identity() == Some(self.identity) {
            header.release(&file)?;
        }
        // Only now: a base without its fork could not be written to.
        fs::remove_file(&self.path).map_err(|e| refused("its fork cannot be removed").with_source(e))
    }
}

/// How long a snapshot that is not taken waits for its file, which the disk's thread gives back.
const FOR_CLOSING: Duration = Duration::from_millis(100);

fn ended() -> Error {
    Error::new(ErrorKind::InvalidState, "the disk's VM has ended")
}

impl Drop for VolumeSnapshot {
    fn drop(&mut self) {
        let next = lock(&self.next).take();
        if let Some(next) = next {
            // Nobody is left who could be told; the fork works then, and the volume can be released.
            let _ = self.undo(&next);
            self.shared.is_pending.store(false, Ordering::SeqCst);
        } else {
            // Perhaps the old file is stable by now.
            let _ = self.wait(Duration::ZERO);
        }
    }
}

impl std::fmt::Debug for VolumeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeHandle").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for VolumeSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeSnapshot").field("path", &self.path).finish_non_exhaustive()
    }
}
