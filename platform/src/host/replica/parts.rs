//! What has come of a copy and is not a part of it yet: under which names it lies, and how much of it there may be.

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::super::apps::Host;
use super::frames::Offer;
use crate::fault::{Context, Fault, Result};

/// What has not become a part of a copy after so long goes.
const LASTS: Duration = Duration::from_hours(24);
/// So many such files of one host may lie there: more than it sends at a time. The oldest go before there are more.
const MOST_UNFINISHED: usize = 256;
/// Before the host in such a name are the app, the volume and the file's number, none of which has a dot.
const FROM: usize = 3;
/// Copies leave a part of the disk to the host's own apps, or so many bytes if that is less.
const LEFT: u64 = 4 << 30;
const PART_LEFT: u64 = 16;

/// Where the files of a volume come that one host sends.
pub struct Parts {
    folder: PathBuf,
    /// The app and the volume.
    volume: String,
    from: String,
}

impl Parts {
    /// Those of what this host offers.
    pub fn new(folder: &Path, offer: &Offer, from: &str) -> Self {
        Self { folder: folder.to_owned(), volume: format!("{}.{}", offer.app, offer.volume), from: from.to_owned() }
    }

    /// The name of a file of which something has come.
    pub fn part(&self, number: u32, tag: &str) -> PathBuf {
        self.folder.join(format!("{}.{number}.{}.{tag}.part", self.volume, self.from))
    }

    /// The name of a file that has come as a whole.
    pub fn arrived(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{}.{number}.{}.arrived", self.volume, self.from))
    }

    /// Removes what no offer goes on with: what belongs to this volume, and not to these of its files from this host.
    pub fn keep(&self, numbers: &BTreeSet<u32>) {
        let kept: Vec<String> =
            numbers.iter().map(|number| format!("{}.{number}.{}.", self.volume, self.from)).collect();
        let volume = format!("{}.", self.volume);
        for (name, entry) in unfinished(&self.folder).filter(|(name, _)| name.starts_with(&volume)) {
            if kept.iter().all(|kept| !name.starts_with(kept)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Makes room for another file: other versions of it go, and the oldest ones of this host, if there are many.
    pub fn make_room(&self, number: u32, tag: &str) {
        let (file, part) = (format!("{}.{number}.{}.", self.volume, self.from), self.part(number, tag));
        let mut others = Vec::new();
        for (name, entry) in unfinished(&self.folder).filter(|(_, entry)| entry.path() != part) {
            if name.starts_with(&file) {
                let _ = std::fs::remove_file(entry.path());
            } else if name.split('.').nth(FROM) == Some(self.from.as_str()) {
                others.push((changed(&entry), entry.path()));
            }
        }
        others.sort();
        let over = others.len().saturating_add(1).saturating_sub(MOST_UNFINISHED);
        others.iter().take(over).for_each(|(_, path)| drop(std::fs::remove_file(path)));
    }
}

/// Removes what has not become a part of a copy for long, and does not come at this moment.
pub fn sweep(host: &Host) {
    for (name, entry) in unfinished(&host.volumes().folder) {
        let mut parts = name.split('.');
        let (app, volume) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        // One that is of a later time than now is not old.
        let is_old = changed(&entry).elapsed().is_ok_and(|age| age > LASTS);
        if is_old && !host.incoming.comes(app, volume) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn changed(entry: &DirEntry) -> SystemTime {
    entry.metadata().and_then(|found| found.modified()).unwrap_or_else(|_| SystemTime::now())
}

fn unfinished(folder: &Path) -> impl Iterator<Item = (String, DirEntry)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry));
    named.filter(|(name, _)| name.ends_with(".part") || name.ends_with(".arrived"))
}

/// Refuses to write more of a copy to a disk that is nearly full.
///
/// # Errors
/// It is, or does not say how full it is.
pub fn has_room(file: &std::fs::File, bytes: u64) -> Result<()> {
    let found = rustix::fs::fstatvfs(file).context("the disk")?;
    let (free, all) = (found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize));
    is_left(free, all, bytes)
}

fn is_left(free: u64, all: u64, bytes: u64) -> Result<()> {
    let left = all.checked_div(PART_LEFT).unwrap_or_default().min(LEFT);
    if free.saturating_sub(bytes) >= left {
        return Ok(());
    }
    let message =
        format!("the disk for copies has {free} bytes left of {all}; copies leave {left} to the host's own apps");
    Err(Fault::new(message).next("Make room there, or replicate to another host; it is tried again."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_leaves_a_sixteenth_of_the_disk_or_four_gibibytes() {
        const GIB: u64 = 1 << 30;
        is_left(5 * GIB, 1000 * GIB, GIB).unwrap();
        is_left(6 << 20, 64 << 20, 2 << 20).unwrap();
        for (free, all, bytes) in
            [(5 * GIB, 1000 * GIB, GIB + 1), (6 << 20, 64 << 20, 3 << 20), (0, 0, 1), (1, 100, u64::MAX)]
        {
            let why = is_left(free, all, bytes);
            assert_eq!(why.is_err(), all > 0, "{free} {all} {bytes}");
        }
    }
}
