//! Flatten and commit: a fork that becomes independent of what it builds on, and one whose changes go to its base.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::cow::{Blocks, Identity, Part, Still};
use super::draft::{Draft, VolumeFormat, data_key_for};
use super::key::Key;
use super::keys::{HeaderLock, unlock};
use super::luks::UnlockLimits;
use super::offline::Offline;
use super::refused;
use super::volume::Volume;
use crate::error::{Error, Result};

/// How far work on a volume has come, in bytes of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeProgress {
    /// So many are done.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// What becomes of other forks of a base to which one is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OtherForks {
    /// The commit is refused, unless the base's header says that this is the only fork that was ever made over it.
    Refuse,
    /// The caller vouches that there are none any more. If there is one, it is refused from the commit on.
    GiveUp,
}

/// Whether the caller wants to go on.
pub(super) type Progress<'a> = &'a mut dyn FnMut(VolumeProgress) -> ControlFlow<()>;

/// Bytes that are moved between two looks at whether to go on.
const STEP: u64 = 1 << 20;
/// What was done is made stable each time that there is so much of it, and after so long: what breaks this off loses no more.
const STABLE: u64 = 64 << 20;
const STABLE_AFTER: Duration = Duration::from_secs(1);

pub(super) fn open(path: &Path, key: &Key, writable: usize) -> Result<Offline> {
    Offline::open(path, |header, file| unlock(header, file, key, UnlockLimits::default()), writable)
}

fn failed(e: io::Error) -> Error {
    refused("data cannot be moved").with_source(e)
}

/// Calls `step` for each part of a disk; says whether all were done.
pub(super) fn in_steps(
    total: u64,
    progress: Progress<'_>,
    mut step: impl FnMut(u64, u64, bool) -> Result<()>,
) -> Result<bool> {
    let (mut done, mut stable) = (0, Instant::now());
    while done < total {
        let len = STEP.min(total.saturating_sub(done));
        let end = done.saturating_add(len);
        let goes_on = progress(VolumeProgress { done, total }).is_continue();
        if !goes_on {
            step(done, 0, true)?;
            return Ok(false);
        }
        let settles = end == total || end.is_multiple_of(STABLE) || stable.elapsed() >= STABLE_AFTER;
        step(done, len, settles)?;
        if settles {
            stable = Instant::now();
        }
        done = end;
    }
    let _ = progress(VolumeProgress { done, total });
    Ok(true)
}

impl Volume {
    /// Copies what a fork has from the volumes that it builds on into its own file, so that it builds on none: they may change or go afterwards.
    /// `key` opens the fork, which no VM may use meanwhile. It stays a file of vmcell's, which `cryptsetup` opens to no avail;
    /// [`flatten_to`](Self::flatten_to) makes a plain one.
    ///
    /// `progress` is called each MiB, on this thread. If it breaks off, this stops, and returns false; the fork is as good as before then, and so it is
    /// after an error or a crash. Flattening it again goes on where this has stopped. Takes as long as reading and writing the data.
    ///
    /// ```no_run
    /// # fn main() -> vmcell::Result<()> {
    /// use std::ops::ControlFlow;
    /// use vmcell::volume::{Key, Volume};
    ///
    /// Volume::flatten("tenant.vol", &Key::file("tenant.key")?, |progress| {
    ///     println!("{} of {} bytes", progress.done, progress.total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if it builds on no other volume, or data cannot be read or written; those of [`open`](Self::open).
    pub fn flatten(
        path: impl AsRef<Path>,
        key: &Key,
        mut progress: impl FnMut(VolumeProgress) -> ControlFlow<()>,
    ) -> Result<bool> {
        let path = path.as_ref();
        flatten(path, key, &mut progress).map_err(|e| e.about(&format!("volume {}", path.display())))
    }

    /// Copies a volume, with all that it builds on, to a new file: a volume of its own, opened by `new_key`, which `cryptsetup` opens as well. No VM may
    /// write to the old one meanwhile. `progress` is as for [`flatten`](Self::flatten).
    ///
    /// The new file opens only once it is whole: its header is written last. If this fails or is broken off, there is no new file; after a crash,
    /// there may be one that is no volume.
    ///
    /// # Errors
    /// Those of [`create`](Self::create) and [`open`](Self::open); [`ErrorKind::Volume`](crate::ErrorKind::Volume) if data cannot be read or written.
    pub fn flatten_to(
        path: impl AsRef<Path>,
        key: &Key,
        new: impl AsRef<Path>,
        new_key: &Key,
        mut progress: impl FnMut(VolumeProgress) -> ControlFlow<()>,
    ) -> Result<bool> {
        let path = path.as_ref();
        let done = flatten_to(path, key, new.as_ref(), new_key, &mut progress);
        done.map_err(|e| e.about(&format!("volume {}", path.display())))
    }

    /// Writes a fork's changes into its base, which then may be written to, and removes the fork. `key` opens the fork; no VM may use either meanwhile.
    ///
    /// Other forks of the base would see data that are not theirs, so they are refused from then on; `others` says whether there may be any.
    /// A base's header notes the first 64 forks that are made over it, and not which of them are gone. `progress` is as for
    /// [`flatten`](Self::flatten). If this is broken off, fails, or in a crash, the fork has all data as before, and works; the base opens alone no longer
    /// until the fork is committed again, which begins anew.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if it builds on no other volume, others build on it, there may be other forks of its base, or data cannot be
    /// read or written; those of [`open`](Self::open).
    pub fn commit(
        path: impl AsRef<Path>,
        key: &Key,
        others: OtherForks,
        mut progress: impl FnMut(VolumeProgress) -> ControlFlow<()>,
    ) -> Result<bool> {
        let path = path.as_ref();
        commit(path, key, others, &mut progress).map_err(|e| e.about(&format!("volume {}", path.display())))
    }
}

fn flatten(path: &Path, key: &Key, progress: Progress<'_>) -> Result<bool> {
    let mut fork = open(path, key, 1)?;
    let (Some(layer), total) = (&fork.layer, fork.capacity()) else {
        return Err(refused("it builds on no other volume"));
    };
    if layer.header().base.is_none() {
        return Err(refused("it builds on no other volume"));
    }
    let mut room = Vec::new();
    let all = in_steps(total, progress, |at, len, is_to_settle| {
        take_from_base(&mut fork, at, len, &mut room).map_err(failed)?;
        if is_to_settle { fork.settle().map_err(failed) } else { Ok(()) }
    })?;
    if all && let Some(layer) = &mut fork.layer {
        layer.leave_base(&mut fork.payload)?;
    }
    Ok(all)
}

/// Copies what a part of a fork has from its base into its own file.
fn take_from_base(fork: &mut Offline, at: u64, len: u64, room: &mut Vec<u8>) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let (from, left) = (at.saturating_add(done), len.saturating_sub(done));
        let (run, part) = fork.layer.as_ref().map_or((left, Part::Zeroes), |layer| layer.first_part(from, left));
        if part == Part::Base {
            room.resize(usize::try_from(run).unwrap_or_default(), 0);
            fork.read(from, room)?;
            write_all(fork, from, room)?;
        }
        done = done.saturating_add(run);
    }
    Ok(())
}

/// Writes blocks, those of zeroes as such.
fn write_all(to: &mut Offline, at: u64, bytes: &[u8]) -> io::Result<()> {
    for (offset, is_zero, bytes) in zeroes_apart(bytes) {
        let at = at.saturating_add(offset);
        if is_zero { to.zero(at, bytes.len() as u64)? } else { to.write(at, bytes)? }
    }
    Ok(())
}

/// Blocks of zeroes and others: where each run of them begins, and whether it is one of zeroes.
pub(super) fn zeroes_apart(bytes: &[u8]) -> impl Iterator<Item = (u64, bool, &[u8])> {
    const BLOCK: usize = 4096;
    let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let runs = blocks.chunk_by(move |one, other| is_zero(one) == is_zero(other));
    runs.scan(0_u64, move |at, some| {
        let (offset, run) = (*at, some.as_flattened());
        *at = offset.saturating_add(run.len() as u64);
        Some((offset, some.first().is_some_and(|first| is_zero(first)), run))
    })
}

fn flatten_to(path: &Path, key: &Key, new: &Path, new_key: &Key, progress: Progress<'_>) -> Result<bool> {
    let mut from = open(path, key, 0)?;
    let (total, format) = (from.capacity(), VolumeFormat::new().label(from.header.label()));
    let sector = from.payload.data.sector_size;
    let about = |e: Error| e.about(&format!("volume {}", new.display()));
    let data_key = data_key_for(new_key)?;
    let draft = Draft {
        path: new,
        size: total,
        key: new_key,
        data_key: &data_key,
        sector,
        format: &format,
        layer: None,
        device: None,
    };
    let mut room = Vec::new();
    let written = draft.write_with(|to| {
        in_steps(total, progress, |at, len, is_to_settle| {
            room.resize(usize::try_from(len).unwrap_or_default(), 0);
            from.read(at, &mut room).map_err(failed)?;
            to.write_at(at, &room).map_err(failed)?;
            // The last time as well: the header comes after the data.
            if is_to_settle { to.file.0.sync_data().map_err(failed) } else { Ok(()) }
        })
    });
    written.map_err(about)
}

fn commit(path: &Path, key: &Key, others: OtherForks, progress: Progress<'_>) -> Result<bool> {
    let mut fork = open(path, key, 2)?;
    if fork.header.base_identity().is_some() {
        return Err(refused("others build on it, so it stays as it is"));
    }
    let Some(mut base) = fork.base.take() else { return Err(refused("it builds on no other volume")) };
    let Some(layer) = &fork.layer else { return Err(refused("it builds on no other volume")) };
    let (own, base_len) = (layer.header().identity, layer.header().base_len());
    let about = |path: &Path| {
        let path = path.display().to_string();
        move |e: Error| e.about(&format!("base {path}"))
    };
    let about = about(&base.path);
    if fork.capacity() > base.capacity() {
        base.check_growth(fork.capacity()).map_err(&about)?;
    }
    begin(&mut base, own, others).map_err(&about)?;
    if fork.capacity() > base.capacity() {
        base.grow(fork.capacity()).map_err(&about)?;
    }
    let mut room = Vec::new();
    let all = in_steps(fork.capacity(), progress, |at, len, is_to_settle| {
        give_to_base(&mut fork, &mut base, base_len, at, len, &mut room).map_err(failed)?;
        if is_to_settle { base.settle().map_err(failed) } else { Ok(()) }
    })?;
    if !all {
        return Ok(false);
    }
    let _lock = HeaderLock::take(&base.payload.file)?;
    base.header.release(&base.payload.file).map_err(&about)?;
    // A link to it leads nowhere then.
    let gone = path.canonicalize().and_then(fs::remove_file);
    gone.map_err(|e| refused("its changes are in its base, and its file cannot be removed").with_source(e))?;
    Ok(true)
}

/// Makes sure that nobody else builds on the base, and notes that it is changing.
fn begin(base: &mut Offline, fork: Identity, others: OtherForks) -> Result<()> {
    if base.header.commit() == Some(fork) {
        // It was interrupted.
        return Ok(());
    }
    let is_alone = base.header.forks().is_some_and(|forks| forks == [fork]);
    if others == OtherForks::Refuse && !is_alone {
        let count = base.header.forks().map_or("an unknown number of".to_owned(), |forks| forks.len().to_string());
        let message = format!("{count} forks were made over it, and the others would be refused afterwards");
        return Err(refused(message));
    }
    let _lock = HeaderLock::take(&base.payload.file)?;
    base.header.begin_commit(&base.payload.file, fork)
}

/// Copies what a part of a fork has of its own to its base.
fn give_to_base(
    fork: &mut Offline,
    base: &mut Offline,
    base_len: u64,
    at: u64,
    len: u64,
    room: &mut Vec<u8>,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let (from, left) = (at.saturating_add(done), len.saturating_sub(done));
        let (run, part) = fork.layer.as_ref().map_or((left, Part::Base), |layer: &Still| layer.first_part(from, left));
        let run = if from < base_len { run.min(base_len.saturating_sub(from)) } else { run };
        match part {
            Part::Base => {}
            Part::Zeroes => base.zero(from, run)?,
            Part::Own(_) => {
                room.resize(usize::try_from(run).unwrap_or_default(), 0);
                fork.read(from, room)?;
                write_all(base, from, room)?;
            }
        }
        done = done.saturating_add(run);
    }
    Ok(())
}
