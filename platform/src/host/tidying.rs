//! Files of volumes that are snapshots no more: what they have is taken into what builds on them, and then they go.
//!
//! Each step is whole in itself, so that a process that ends in the middle goes on where it was: a file that is retired is known to the
//! database until it is gone, the file that another one takes in stays as it is, and a new file takes the place of an old one by its name at once.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use vmcell::volume::Volume;

use super::volumes::Volumes;
use crate::fault::{Context, Result};
use crate::state::{MadeBy, SnapshotRow, VolumeRow};

/// So many files of snapshots that were taken to be sent may wait: a volume has 16 at most that build on each other.
const MANY: usize = 10;

/// What a step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do, or what builds on the file is in use, or many.
    Nothing,
    /// A file took in what the one below it has. A VM that has both goes on with the old one until it opens its chain anew.
    Absorbed,
    /// A file is gone.
    Removed,
}

impl Volumes<'_> {
    /// Makes a snapshot one no more. Its file goes later.
    ///
    /// # Errors
    /// There is no such snapshot.
    pub fn retire(&self, app: &str, name: &str, snapshot: u32) -> Result<()> {
        let lock = self.state.volume_lock(app, name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.known(app, name, snapshot)?;
        self.state.retire_snapshot(app, name, snapshot)
    }

    /// Does one step towards a volume without files of retired snapshots, unless it is broken off. One thread at a time does so.
    ///
    /// # Errors
    /// The disk is full, or a file cannot be read: then all is as it was.
    pub fn tidy(&self, app: &str, name: &str, goes_on: &dyn Fn() -> bool) -> Result<Step> {
        let rows = self.state.snapshots(app, name)?;
        let mut retired: Vec<&SnapshotRow> = rows.iter().filter(|row| row.is_retired).collect();
        if rows.len() <= MANY {
            // Those that come every few seconds are put together later, several at once.
            retired.retain(|row| row.made != MadeBy::Replication);
        } else {
            // The smallest ones first, so that what has grown large is not moved each time.
            retired.sort_by_key(|row| self.space(app, name, row.file));
        }
        for retired in retired {
            let step = self.tidy_one(app, name, retired, goes_on)?;
            if step != Step::Nothing {
                return Ok(step);
            }
        }
        Ok(Step::Nothing)
    }

    /// What a file takes on the disk, together with the one after it, in blocks.
    fn space(&self, app: &str, name: &str, number: u32) -> u64 {
        let blocks = |number| self.file(app, name, number).metadata().map_or(0, |found| found.blocks());
        let next = self.state.snapshots(app, name).unwrap_or_default().into_iter().find(|row| row.file > number);
        blocks(number).saturating_add(next.map_or(0, |next| blocks(next.file)))
    }

    fn tidy_one(&self, app: &str, name: &str, retired: &SnapshotRow, goes_on: &dyn Fn() -> bool) -> Result<Step> {
        let file = self.file(app, name, retired.file);
        if self.state.volume(app, name)?.is_some_and(|row| row.file == retired.file) {
            return Ok(Step::Nothing);
        }
        let above = {
            // Nothing new is made over it: whoever makes a fork has the lock, and finds that it is retired.
            let lock = self.state.volume_lock(app, name);
            let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
            let above = self.above(&file)?;
            if above.is_empty() {
                match std::fs::remove_file(&file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error).context(file.display());
                    }
                    _ => {}
                }
                self.state.forget_snapshot(app, name, retired.file)?;
                return Ok(Step::Removed);
            }
            above
        };
        match above.as_slice() {
            [(row, number)] if row.file != *number => self.absorb(row, *number, goes_on),
            // One that a VM writes to takes in nothing; and what several have in common is not copied.
            _ => Ok(Step::Nothing),
        }
    }

    fn absorb(&self, row: &VolumeRow, number: u32, goes_on: &dyn Fn() -> bool) -> Result<Step> {
        let path = self.file(&row.app, &row.name, number);
        let new = path.with_extension("new");
        // Of an attempt that was broken off.
        let _ = std::fs::remove_file(&new);
        let key = self.secrets.volume_key(&row.app, &row.name, false)?;
        let all = Volume::absorb(path, &key, new, |_| {
            if goes_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(if all { Step::Absorbed } else { Step::Nothing })
    }

    /// The files of volumes that build on this one, and their numbers.
    fn above(&self, file: &Path) -> Result<Vec<(VolumeRow, u32)>> {
        let mut above = Vec::new();
        for row in self.state.all_volumes()? {
            let numbers = self.state.snapshots(&row.app, &row.name)?.into_iter().map(|snapshot| snapshot.file);
            // One that is made over a volume's file at this moment builds on none that is retired.
            for number in numbers.chain([row.file]) {
                if self.base_of(&row.app, &row.name, number)?.is_some_and(|base| base == file) {
                    above.push((row.clone(), number));
                }
            }
        }
        Ok(above)
    }

    /// The file that another one of a volume builds on, if there is one.
    pub(super) fn base_of(&self, app: &str, name: &str, number: u32) -> Result<Option<PathBuf>> {
        let path = self.file(app, name, number);
        if !path.exists() {
            return Ok(None);
        }
        let key = self.secrets.volume_key(app, name, false)?;
        Ok(Volume::base(path, &key)?)
    }
}
