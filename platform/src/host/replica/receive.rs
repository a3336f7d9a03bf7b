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
use super::parts::Parts;
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
/// The longest tag of a file.
const MOST_TAG: usize = 64;

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
    let _alone = host.incoming.receive(app, name, stream)?;
    if let Some(promoted) = volumes.admit(from, &offer)? {
        return Ok(Taken::Promoted(promoted));
    }
    let is_there = volumes.state.volume(app, name)?.is_some();
    volumes.secrets.check_volume_key(app, name, &offer.key, is_there)?;
    let parts = Parts::new(&volumes.folder, &offer, from);
    parts.keep(&offer.chain.iter().map(|link| link.file).collect());
    let there = volumes.there(&offer, &parts)?;
    say(&mut &*stream, &Answer::Has(there.iter().copied().collect()))?;
    for link in offer.chain.iter().filter(|link| !there.contains(&link.file)) {
        file(&parts, &offer, link.file, &mut incoming, stream)?;
        say(&mut &*stream, &Answer::Took(link.file))?;
    }
    volumes.finish(from, &offer, &parts)?;
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
    parts: &Parts,
    offer: &Offer,
    number: u32,
    incoming: &mut BufReader<&UnixStream>,
    stream: &UnixStream,
) -> Result<()> {
    let head: Head = hear(incoming, MOST_SAID)?.ok_or_else(|| Fault::new("the stream ends before a file"))?;
    let most = offer.size.saturating_mul(2).saturating_add(BESIDE);
    let is_tag = (1..=MOST_TAG).contains(&head.tag.len())
        && head.tag.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if head.file != number || head.len > most || !is_tag {
        let message = format!("file {} of {} bytes; expected is file {number} of {most} at most", head.file, head.len);
        return Err(Fault::new(message));
    }
    parts.make_room(number, &head.tag);
    let mut part = Part::open(parts.part(number, &head.tag), head)?;
    say(&mut &*stream, &Answer::From(part.from()))?;
    let (mut pieces, mut room) = (Pieces::new(incoming), Vec::new());
    while let Some(at) = pieces.take(&mut room)? {
        part.put(at, &room)?;
    }
    part.end(&parts.arrived(number))
}

/// What a file was before another host's took its name.
fn before(path: &Path) -> PathBuf {
    path.with_extension("before")
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
                let next = format!(
                    "Take `replicate` out there, and `cell volumes destroy {app} {name} --yes {name}` here, first."
                );
                Err(Fault::new(message).next(next))
            }
            None if self.state.volume(app, name)?.is_some() => {
                let next = "Replicate under another name, or to another host.";
                Err(Fault::new(format!("{app} has a volume {name} here that is no copy")).next(next))
            }
            None => Ok(None),
        }
    }

    /// The files of an offer that are here as a whole.
    fn there(&self, offer: &Offer, parts: &Parts) -> Result<BTreeSet<u32>> {
        let (app, name) = (offer.app.as_str(), offer.volume.as_str());
        let newest = self.state.volume(app, name)?.map(|row| row.file);
        let mut known: BTreeSet<u32> = self.state.snapshots(app, name)?.iter().map(|row| row.file).collect();
        known.extend(newest);
        // What is later than the copy is of a volume that was here before another one was promoted.
        known.retain(|number| Some(*number) <= newest);
        // What another host has written under the same numbers is something else.
        let is_other = self.state.replica(app, name)?.is_some_and(|known| known.generation != offer.generation);
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
            if (!is_other && (is_taken_in || path.exists())) || parts.arrived(number).exists() {
                there.insert(number);
            }
        }
        Ok(there)
    }

    /// All files are here: they become the copy if they open.
    fn finish(&self, from: &str, offer: &Offer, parts: &Parts) -> Result<()> {
        let (app, name) = (offer.app.as_str(), offer.volume.as_str());
        let lock = self.state.volume_lock(app, name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = self.state.volume(app, name)?.is_some();
        self.secrets.keep_volume_key(app, name, &offer.key, is_there)?;
        let mut named = Vec::new();
        for number in offer.chain.iter().map(|link| link.file) {
            let path = self.file(app, name, number);
            if parts.arrived(number).exists() {
                if path.exists() {
                    std::fs::rename(&path, before(&path)).context(path.display())?;
                }
                std::fs::rename(parts.arrived(number), &path).context(path.display())?;
                named.push(path);
            }
        }
        let newest = self.file(app, name, offer.newest());
        sync_folder(&newest)?;
        if let Err(why) = self.opens(app, name, &newest) {
            // What has come is of no use, and what was here stays.
            for path in &named {
                let _ = std::fs::remove_file(path);
                let _ = std::fs::rename(before(path), path);
            }
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
        named.iter().for_each(|path| drop(std::fs::remove_file(before(path))));
        parts.keep(&BTreeSet::new());
        Ok(())
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
