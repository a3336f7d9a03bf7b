//! The side that has the copy.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use vmcell::DiskConfig;
use vmcell::volume::{Volume, VolumeOptions};

use super::super::apps::Host;
use super::super::volumes::Volumes;
use super::files::{Part, sync_folder};
use super::frames::{Answer, Head, MOST_FILES, MOST_SAID, Offer, Pieces};
use crate::app::is_name;
use crate::fault::{Context, Fault, Result};
use crate::lines::{receive as hear, send as say};
use crate::state::{MadeBy, ReplicaRow, SnapshotRow};

/// How long the other side may say nothing.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The largest volume of which there is a copy.
const LARGEST: u64 = 1 << 50;
/// A file has so much beside the volume's data: its header, its key slots and its map.
const BESIDE: u64 = 64 << 20;

/// Takes what the host `from` sends of a volume over a stream, and answers there what became of it.
pub fn receive(host: &Arc<Host>, from: &str, stream: &UnixStream) {
    let told = match take(host, from, stream) {
        Ok(Taken::All(newest)) => Answer::Done(newest),
        Ok(Taken::Promoted(generation)) => Answer::Promoted(generation),
        Err(why) => Answer::Refused(why),
    };
    // The other side may be gone.
    let _ = say(&mut &*stream, &told);
    let _ = (&mut &*stream).flush();
}

enum Taken {
    All(u32),
    Promoted(u64),
}

fn take(host: &Arc<Host>, from: &str, stream: &UnixStream) -> Result<Taken> {
    stream.set_read_timeout(Some(PATIENCE)).context("the other host")?;
    stream.set_write_timeout(Some(PATIENCE)).context("the other host")?;
    let mut incoming = BufReader::new(stream);
    let offer: Offer = hear(&mut incoming, MOST_SAID)?.ok_or_else(|| Fault::new("the other host offers nothing"))?;
    check(&offer)?;
    let volumes = host.volumes();
    let (app, name) = (offer.app.as_str(), offer.volume.as_str());
    // One stream at a time, and no promotion meanwhile.
    let lock = volumes.state.volume_lock(app, &format!("{name}.incoming"));
    let Ok(_alone) = lock.try_lock() else {
        return Err(Fault::new(format!("the volume {name} of {app} is being received already")));
    };
    if let Some(promoted) = volumes.admit(from, &offer)? {
        return Ok(Taken::Promoted(promoted));
    }
    let is_there = volumes.state.volume(app, name)?.is_some();
    volumes.secrets.keep_volume_key(app, name, &offer.key, is_there)?;
    let mut there = volumes.there(&offer)?;
    say(&mut &*stream, &Answer::Has(there.iter().copied().collect()))?;
    for link in offer.chain.iter().filter(|link| !there.contains(&link.file)) {
        file(&volumes, &offer, link.file, &mut incoming, stream)?;
        say(&mut &*stream, &Answer::Took(link.file))?;
    }
    there.extend(offer.chain.iter().map(|link| link.file));
    volumes.finish(from, &offer)?;
    Ok(Taken::All(offer.newest()))
}

impl Offer {
    fn newest(&self) -> u32 {
        self.chain.last().map_or(0, |link| link.file)
    }
}

fn check(offer: &Offer) -> Result<()> {
    let Offer { app, volume, chain, size, .. } = offer;
    if !is_name(app) || !is_name(volume) || volume.len() > 20 {
        return Err(Fault::new(format!("{app:?} {volume:?} is no name of a volume")));
    }
    let rises = chain.is_sorted_by(|one, other| one.file < other.file) && chain.iter().all(|link| link.file > 0);
    if chain.is_empty() || chain.len() > MOST_FILES || !rises {
        let message = format!("{} files; allowed are 1 to {MOST_FILES}, each with a larger number", chain.len());
        return Err(Fault::new(message));
    }
    if *size > LARGEST || chain.iter().any(|link| link.size > LARGEST) {
        return Err(Fault::new(format!("a volume of {size} bytes; allowed are {LARGEST}")));
    }
    Ok(())
}

fn file(
    volumes: &Volumes<'_>,
    offer: &Offer,
    number: u32,
    incoming: &mut BufReader<&UnixStream>,
    stream: &UnixStream,
) -> Result<()> {
    let head: Head = hear(incoming, MOST_SAID)?.ok_or_else(|| Fault::new("the stream ends before a file"))?;
    let most = offer.size.saturating_mul(2).saturating_add(BESIDE);
    let is_tag =
        (1..=40).contains(&head.tag.len()) && head.tag.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if head.file != number || head.len > most || !is_tag {
        let message = format!("file {} of {} bytes; expected is file {number} of {most} at most", head.file, head.len);
        return Err(Fault::new(message));
    }
    let path = volumes.file(&offer.app, &offer.volume, number);
    remove_parts(&path, Some(&head.tag));
    let mut part = Part::open(&path, head)?;
    say(&mut &*stream, &Answer::From(part.from()))?;
    let (mut pieces, mut room) = (Pieces::new(incoming), Vec::new());
    while let Some(at) = pieces.take(&mut room)? {
        part.put(at, &room)?;
    }
    part.end(&arrived(&path))
}

/// The name of a file that has come as a whole, and is not a part of the copy yet.
fn arrived(path: &Path) -> PathBuf {
    path.with_extension("arrived")
}

/// Removes what has come of another file with the same number.
fn remove_parts(path: &Path, but: Option<&str>) {
    let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return };
    let kept = but.map(|tag| format!("{stem}.{tag}.part"));
    let entries = path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_part = name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".part"));
        if is_part && Some(&name) != kept.as_ref() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Volumes<'_> {
    /// Refuses a volume that is not a copy of that host's; the generation if it was promoted here.
    fn admit(&self, from: &str, offer: &Offer) -> Result<Option<u64>> {
        let (app, name) = (&offer.app, &offer.volume);
        let replica = self.state.replica(app, name)?;
        let generation = self.state.generation(app, name)?;
        if offer.generation < generation {
            return Ok(Some(generation));
        }
        match replica {
            Some(known) if known.from == from || offer.generation > known.generation => {
                let newest = self.state.volume(app, name)?.map_or(0, |row| row.file);
                if offer.generation == known.generation && offer.newest() < newest {
                    let message = format!("snapshot {} of {app} {name}; {newest} is here already", offer.newest());
                    return Err(Fault::new(message));
                }
                Ok(None)
            }
            Some(known) => {
                let message = format!("the volume {name} of {app} here is a copy of that of {}", known.from);
                Err(Fault::new(message).next("Remove it there from `replicate` first."))
            }
            None if self.state.volume(app, name)?.is_some() => {
                let next = "Replicate under another name, or to another host.";
                Err(Fault::new(format!("{app} has a volume {name} here that is no copy")).next(next))
            }
            None => Ok(None),
        }
    }

    /// The files of an offer that are here as a whole.
    fn there(&self, offer: &Offer) -> Result<BTreeSet<u32>> {
        let (app, name) = (offer.app.as_str(), offer.volume.as_str());
        let mut known: BTreeSet<u32> = self.state.snapshots(app, name)?.iter().map(|row| row.file).collect();
        known.extend(self.state.volume(app, name)?.map(|row| row.file));
        let mut there = BTreeSet::new();
        // One that is over, and that a later one has taken in here, is not wanted again.
        let latest = offer.chain.iter().rev().find(|link| known.contains(&link.file)).map(|link| link.file);
        for link in &offer.chain {
            let number = link.file;
            let path = self.file(app, name, number);
            if !known.contains(&number) && path.exists() {
                // Nobody knows what it is: the process ended before it was written down, here or in a promotion. It comes again.
                std::fs::remove_file(&path).context(path.display())?;
            }
            let is_taken_in = !link.stays && Some(number) < latest;
            if is_taken_in || path.exists() || arrived(&path).exists() {
                there.insert(number);
            }
        }
        Ok(there)
    }

    /// All files are here: they become the copy if they open.
    fn finish(&self, from: &str, offer: &Offer) -> Result<()> {
        let (app, name) = (offer.app.as_str(), offer.volume.as_str());
        let lock = self.state.volume_lock(app, name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named = Vec::new();
        for number in offer.chain.iter().map(|link| link.file) {
            let path = self.file(app, name, number);
            if arrived(&path).exists() {
                std::fs::rename(arrived(&path), &path).context(path.display())?;
                named.push(path);
            }
        }
        let newest = self.file(app, name, offer.newest());
        sync_folder(&newest)?;
        if let Err(why) = self.opens(app, name, &newest) {
            // What has come is of no use, and what was here stays.
            named.iter().for_each(|path| drop(std::fs::remove_file(path)));
            return Err(Fault::new(format!("what has come does not open, and is dropped: {}", why.message)));
        }
        let links = offer.chain.iter().filter(|link| link.file != offer.newest());
        let rows: Vec<SnapshotRow> = links
            .map(|link| SnapshotRow {
                file: link.file,
                created: link.created,
                size: link.size,
                made: if link.stays { MadeBy::Person } else { MadeBy::Replication },
                is_retired: !link.stays,
            })
            .collect();
        let replica = ReplicaRow { from: from.to_owned(), generation: offer.generation, received: crate::state::now() };
        self.state.replica_received(app, name, (offer.newest(), offer.size), &rows, &replica)?;
        self.remove_leftovers(app, name);
        Ok(())
    }

    /// Removes what has come and is of no use any more.
    fn remove_leftovers(&self, app: &str, name: &str) {
        let prefix = format!("{app}.{name}.");
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.starts_with(&prefix) && (file.ends_with(".part") || file.ends_with(".arrived")) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Opens a chain to read it, which checks that each file is the one that the next builds on.
    fn opens(&self, app: &str, name: &str, newest: &Path) -> Result<()> {
        let key = self.secrets.volume_key(app, name, false)?;
        let mut disk = DiskConfig::new(newest);
        disk.read_only = true;
        Volume::open_with(VolumeOptions::new(disk), &key)?;
        Ok(())
    }
}
