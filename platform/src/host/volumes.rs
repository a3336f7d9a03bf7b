//! Encrypted volumes of apps: which file each is in now, and its snapshots.
//!
//! A volume's files are numbered. A snapshot leaves the file as it is, and the volume goes on in a fork of it with the next number, so a
//! snapshot is a file that is never written to again. The database names the next file before it is made; what a crash leaves is told
//! from it by [`Volumes::settle`].

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use serde::Serialize;
use vmcell::ErrorKind;
use vmcell::volume::{Key, Volume, VolumeHandle};

use super::secrets::Secrets;
use crate::app::Mount;
use crate::fault::{Fault, Result};
use crate::state::{MadeBy, ReplicaRow, SnapshotRow, State, TargetRow, VolumeRow};

/// Another file may take the place of a base at that moment, with the same data.
fn fork(base: &Path, base_key: &Key, new: &Path, key: &Key) -> Result<()> {
    let again = |_| Volume::fork(base, base_key, new, key);
    Ok(Volume::fork(base, base_key, new, key).or_else(again)?)
}

/// How long a volume in use may take for a change.
const LIMIT: Duration = Duration::from_secs(30);

/// The volumes of a host.
pub struct Volumes<'a> {
    /// The database.
    pub state: &'a State,
    /// The keys.
    pub secrets: &'a Secrets,
    /// Where the files are.
    pub folder: PathBuf,
}

/// A size as a person writes it.
fn size_text(bytes: u64) -> String {
    let units = [(30, "G"), (20, "M")];
    let whole = units.into_iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift && bytes > 0);
    whole.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// What is told of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it takes on the disk, in bytes, its snapshots included.
    pub used: u64,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<Snapshot>,
    /// Why its last snapshot by the clock was not taken, or the space of one that is gone has not come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Where it comes from, if it is a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<CopyOf>,
    /// The copies that other hosts have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<Copied>,
    /// The app that it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
}

/// Where a copy comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopyOf {
    /// The host.
    pub host: String,
    /// When something came last, seconds since 1970.
    pub received: u64,
}

impl From<ReplicaRow> for CopyOf {
    fn from(row: ReplicaRow) -> Self {
        Self { host: row.from, received: row.received }
    }
}

/// The copy of a volume at another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// The host.
    pub host: String,
    /// The snapshot that it has; none before the first one is there.
    pub snapshot: Option<u32>,
    /// Since when, seconds since 1970.
    pub since: u64,
}

impl From<(String, TargetRow)> for Copied {
    fn from((host, target): (String, TargetRow)) -> Self {
        Self { host, snapshot: target.acknowledged, since: target.at }
    }
}

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Its number in its volume.
    pub snapshot: u32,
    /// Seconds since 1970.
    pub created: u64,
    /// The volume's size at that time, in bytes.
    pub size: u64,
    /// Who has made it.
    pub made: MadeBy,
}

impl From<SnapshotRow> for Snapshot {
    fn from(row: SnapshotRow) -> Self {
        Self { snapshot: row.file, created: row.created, size: row.size, made: row.made }
    }
}

impl Volumes<'_> {
    pub(super) fn file(&self, app: &str, name: &str, number: u32) -> PathBuf {
        self.folder.join(format!("{app}.{name}.{number}.vol"))
    }

    /// Makes the volumes of an app that are not there yet; `from` is the number of the other host whose app it is, if it is one's.
    ///
    /// # Errors
    /// The disk is full, or a file is in the way.
    pub fn make(&self, app: &str, mounts: &[Mount], from: Option<u16>) -> Result<()> {
        for mount in mounts {
            if let Some(source) = &mount.replica_of {
                self.make_follower(app, &mount.name, source)?;
                continue;
            }
            self.is_no_copy(app, &mount.name)?;
            // Before it is there: one of which nothing is written down counts as this host's own.
            self.state.set_placed_by(app, &mount.name, from)?;
            if self.state.volume(app, &mount.name)?.is_some() {
                continue;
            }
            let key = self.secrets.volume_key(app, &mount.name, true)?;
            let file = self.file(app, &mount.name, 1);
            // Of an attempt that was broken off: the database does not know it.
            let _ = std::fs::remove_file(&file);
            Volume::create(&file, mount.size, &key)?;
            self.state.set_volume(&VolumeRow { is_new: true, ..VolumeRow::new(app, &mount.name, 1, mount.size) })?;
        }
        Ok(())
    }

    /// What a person should know whose file gives volumes other sizes than they have: a deploy leaves these as they are.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn other_sizes(&self, app: &str, mounts: &[Mount], file: &str) -> Result<Vec<String>> {
        let mut told = Vec::new();
        for Mount { name, size, .. } in mounts.iter().filter(|mount| mount.replica_of.is_none()) {
            let Some(row) = self.state.volume(app, name)?.filter(|row| row.size != *size) else { continue };
            let what = if row.size < *size {
                format!("`cell volumes extend {app} {name} {}` makes it larger", size_text(*size))
            } else {
                "a volume does not become smaller".to_owned()
            };
            told.push(format!(
                "The volume {name} stays at {}, and {file} says {}: {what}",
                size_text(row.size),
                size_text(*size)
            ));
        }
        Ok(told)
    }

    /// Refuses an app of another host's, which is not known here yet, if a volume of that name is here that was not made for that host.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn check_foreign(&self, app: &str, mounts: &[Mount], from: u16) -> Result<()> {
        for name in mounts.iter().map(|mount| mount.name.as_str()) {
            self.is_no_copy(app, name)?;
            if self.state.volume(app, name)?.is_some() && self.state.placed_by(app, name)? != Some(from) {
                let next = "Give the app another name, or deploy it at the host that has the volume.";
                return Err(Fault::new(format!("there is a volume {name} of another app {app} already")).next(next));
            }
        }
        Ok(())
    }

    /// The file that a volume is in, and its key.
    ///
    /// # Errors
    /// There is no such volume.
    pub fn opened(&self, app: &str, name: &str) -> Result<(PathBuf, Key)> {
        if let Some((source, _)) = self.state.follows(app, name)? {
            let row = self.next_fork(app, name, &source)?;
            return Ok((self.file(app, name, row.file), self.secrets.volume_key(app, name, false)?));
        }
        // A snapshot that is being taken is not one that was broken off.
        let lock = self.state.volume_lock(app, name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.settle(app, name)?;
        Ok((self.file(app, name, row.file), self.secrets.volume_key(app, name, false)?))
    }

    pub(super) fn row(&self, app: &str, name: &str) -> Result<VolumeRow> {
        let row = self.state.volume(app, name)?;
        row.ok_or_else(|| {
            Fault::new(format!("{app} has no volume {name}")).next(format!("`cell volumes list {app}` lists them."))
        })
    }

    /// Refuses a volume that is a copy of another host's, or follows one.
    fn is_no_copy(&self, app: &str, name: &str) -> Result<()> {
        if let Some(replica) = self.state.replica(app, name)? {
            let next = format!(
                "`cell volumes promote {app} {name}` makes it the volume, once {} is not to write to it any more.",
                replica.from
            );
            return Err(
                Fault::new(format!("the volume {name} of {app} is a copy of that of {}", replica.from)).next(next)
            );
        }
        match self.state.follows(app, name)? {
            Some((source, _)) => Err(Fault::new(format!(
                "the volume {name} of {app} follows that of {source}, and is made anew each time"
            ))),
            None => Ok(()),
        }
    }

    /// Ends a snapshot that a crash has broken off, under the volume's lock: it was taken if the old file is a base, and otherwise it was not.
    fn settle(&self, app: &str, name: &str) -> Result<VolumeRow> {
        self.is_no_copy(app, name)?;
        let row = self.row(app, name)?;
        let Some(next) = row.next else { return Ok(row) };
        let (old, new) = (self.file(app, name, row.file), self.file(app, name, next));
        if new.exists() && Volume::inspect(&old)?.is_base {
            self.state.snapshot_taken(&row, next, row.size, row.making)?;
        } else {
            let _ = std::fs::remove_file(&new);
            self.state.set_volume(&VolumeRow { next: None, ..row })?;
        }
        self.row(app, name)
    }

    /// Takes a snapshot; returns its number. `live` is the handle of the VM that has the volume.
    ///
    /// # Errors
    /// There is no such volume, the chain is too long, or the disk is full. Then nothing has changed.
    pub fn snapshot(&self, app: &str, name: &str, making: MadeBy, live: Option<&VolumeHandle>) -> Result<u32> {
        let lock = self.state.volume_lock(app, name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.settle(app, name)?;
        let key = self.secrets.volume_key(app, name, false)?;
        let next = self.state.next_file(app, name)?;
        self.state.set_volume(&VolumeRow { next: Some(next), making, ..row.clone() })?;
        let (old, new) = (self.file(app, name, row.file), self.file(app, name, next));
        let taken = match live {
            Some(handle) => handle.snapshot(&new, &key, LIMIT).map(drop),
            None => Volume::fork(&old, &key, &new, &key),
        };
        if let Err(error) = taken {
            self.settle(app, name)?;
            return Err(error.into());
        }
        self.state.snapshot_taken(&row, next, row.size, making)?;
        Ok(row.file)
    }

    /// Makes a volume begin as one of its snapshots; what it has now becomes a snapshot too, whose number is returned. No VM has it.
    ///
    /// # Errors
    /// There is no such snapshot, or the disk is full.
    pub fn restore(&self, app: &str, name: &str, snapshot: u32) -> Result<u32> {
        let lock = self.state.volume_lock(app, name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.settle(app, name)?;
        let size = self.known(app, name, snapshot)?.size;
        let key = self.secrets.volume_key(app, name, false)?;
        let next = self.state.next_file(app, name)?;
        let new = self.file(app, name, next);
        let _ = std::fs::remove_file(&new);
        fork(&self.file(app, name, snapshot), &key, &new, &key)?;
        self.state.snapshot_taken(&row, next, size, MadeBy::Restore)?;
        Ok(row.file)
    }

    /// A snapshot of a volume.
    ///
    /// # Errors
    /// There is none, or no such volume.
    pub(super) fn known(&self, app: &str, name: &str, snapshot: u32) -> Result<Snapshot> {
        self.row(app, name)?;
        let found = self.state.snapshots(app, name)?.into_iter().find(|row| row.file == snapshot && !row.is_retired);
        let found = found.ok_or_else(|| {
            let next = format!("`cell volumes list {app}` lists them.");
            Fault::new(format!("the volume {name} of {app} has no snapshot {snapshot}")).next(next)
        })?;
        Ok(found.into())
    }

    /// Makes a volume of another app, or of another name, that begins as a snapshot.
    ///
    /// # Errors
    /// There is no such snapshot, the other volume is there already, or the disk is full.
    pub(super) fn fork(&self, from: (&str, &str), snapshot: u32, to: (&str, &str)) -> Result<()> {
        // So that the snapshot does not go meanwhile.
        let lock = self.state.volume_lock(from.0, from.1);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let size = self.known(from.0, from.1, snapshot)?.size;
        if self.state.volume(to.0, to.1)?.is_some() {
            return Err(Fault::new(format!("{} has a volume {} already", to.0, to.1)).next("Choose another name."));
        }
        let base = self.secrets.volume_key(from.0, from.1, false)?;
        let key = self.secrets.volume_key(to.0, to.1, true)?;
        let new = self.file(to.0, to.1, 1);
        let _ = std::fs::remove_file(&new);
        fork(&self.file(from.0, from.1, snapshot), &base, &new, &key)?;
        self.state.set_volume(&VolumeRow::new(to.0, to.1, 1, size))
    }

    /// Makes a volume larger. The guest's file system grows when its VM starts anew.
    ///
    /// # Errors
    /// It is that large already, the disk is full, or its VM is not told in time: then it is larger all the same.
    pub fn extend(&self, app: &str, name: &str, size: u64, live: Option<&VolumeHandle>) -> Result<()> {
        let lock = self.state.volume_lock(app, name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.settle(app, name)?;
        if size <= row.size {
            let (has, size) = (size_text(row.size), size_text(size));
            return Err(Fault::new(format!("the volume {name} of {app} has {has}, and {size} is not more"))
                .next("Name a larger size; a volume does not become smaller."));
        }
        let (file, key) = (self.file(app, name, row.file), self.secrets.volume_key(app, name, false)?);
        let grown = match live {
            Some(handle) => handle.grow(size, LIMIT),
            None if Volume::inspect(&file)?.is_fork => Volume::grow_fork(&file, &key, size),
            None => Volume::grow(&file, size),
        };
        // The file is larger then, too; the guest has only not been told yet.
        if grown.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::Timeout) {
            self.state.set_volume(&VolumeRow { size, ..row })?;
        }
        Ok(grown?)
    }

    /// What is told of the volumes of an app.
    ///
    /// # Errors
    /// Those of the database.
    pub fn list(&self, app: &str) -> Result<Vec<Told>> {
        use std::os::unix::fs::MetadataExt;
        let told = |row: VolumeRow| {
            let snapshots = self.state.snapshots(app, &row.name)?;
            let files = snapshots.iter().map(|row| row.file).chain([row.file]);
            let used = files.filter_map(|number| self.file(app, &row.name, number).metadata().ok());
            let used = used.fold(0_u64, |sum, found| sum.saturating_add(found.blocks().saturating_mul(512)));
            let snapshots = snapshots.into_iter().filter(|row| !row.is_retired).map(Snapshot::from).collect();
            let copy_of = self.state.replica(app, &row.name)?.map(CopyOf::from);
            let copies = self.state.targets(app, &row.name)?.into_iter().map(Copied::from).collect();
            let follows = self.state.follows(app, &row.name)?.map(|(source, _)| source);
            Ok(Told { name: row.name, size: row.size, used, snapshots, trouble: None, copy_of, copies, follows })
        };
        self.state.volumes(app)?.into_iter().map(told).collect()
    }
}
