//! A volume's header with its key slots: read, opened by a key, changed, and written so that a crash leaves the old one or the new one.

use serde_json::{Map, Value};

use super::binary::{BINARY, Copy, SIZES, Which};
use super::digest::Digest;
use super::hash::Hash;
use super::kdf::{Cost, Kdf, UnlockLimits};
use super::keyslot::{Keyslot, STRIPES};
use super::metadata::{KEYSLOTS_END, MOST_SLOTS, Metadata};
use super::segment::Data;
use super::split::{Merger, Splitter};
use super::storage::Storage;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{LockedBytes, random_bytes};
use crate::volume::cipher::Cipher;
use crate::volume::{no_random, no_secret_memory, refused};

/// Areas of key slots are encrypted in sectors of this size, and begin and end at pages.
const AREA_SECTOR: usize = 512;
/// So much of an area is in memory at once, since it is locked there. It is whole sectors, and whole stripes.
const AREA_PIECE: usize = 16 << 10;
const PAGE: u64 = 4096;
/// Of the digest. The key is random, so more would protect nothing.
const DIGEST_ITERATIONS: u32 = 1000;

/// Types of our tokens.
const LAYER: &str = "vmcell-layer";
const BASE: &str = "vmcell-base";
/// So many layers over a base are noted.
const MOST_FORKS: usize = 64;

/// What a layer, or the layers over a base, are known by.
type Identity = [u8; 16];

pub(crate) struct Header {
    copy: Copy,
    metadata: Metadata,
    /// The copy that is damaged or older than the other one, and how.
    stale: Option<(Which, String)>,
}

impl Header {
    /// Of a new volume, without a key slot yet. Its data lie behind it, or in another file.
    pub(crate) fn new(label: &str, sector_size: usize, is_detached: bool, key: &[u8]) -> Result<Self> {
        let (mut salt, mut uuid) = ([0; 32], [0; 16]);
        random_bytes(&mut salt).and_then(|()| random_bytes(&mut uuid)).map_err(no_random)?;
        let [size, ..] = SIZES;
        let offset = if is_detached { 0 } else { KEYSLOTS_END };
        let digest = Digest::of(key, salt, DIGEST_ITERATIONS);
        let metadata = Metadata::new(size, BINARY as u64, (offset, sector_size), &digest);
        let copy = Copy::new(size, random_uuid(uuid), label, Vec::new());
        Ok(Self { copy, metadata, stale: None })
    }

    /// Reads both copies, and takes the newer one of those that are whole.
    ///
    /// # Errors
    /// What is wrong with the first one, if neither will do.
    pub(crate) fn read(file: &impl Storage) -> Result<Self> {
        let first = whole(Copy::read(file, Which::First, 0));
        // Where the second one lies is known from the first one, or is found by looking wherever it can be.
        let places = first.as_ref().map_or_else(|_| SIZES.to_vec(), |(copy, _)| vec![copy.size]);
        let seconds = places.iter().map(|at| whole(Copy::read(file, Which::Second, *at)));
        let mut second = Err(refused("there is no second header"));
        for found in seconds {
            if found.is_ok() || places.len() == 1 {
                second = found;
            }
        }
        let ((copy, metadata), stale) = match (first, second) {
            (Ok(first), Ok(second)) if second.0.sequence > first.0.sequence => {
                let why = format!("its number {} is older than {}", first.0.sequence, second.0.sequence);
                (second, Some((Which::First, why)))
            }
            (Ok(first), Ok(second)) if second.0.sequence < first.0.sequence => {
                let why = format!("its number {} is older than {}", second.0.sequence, first.0.sequence);
                (first, Some((Which::Second, why)))
            }
            (Ok(first), Ok(_)) => (first, None),
            (Ok(first), Err(e)) => (first, Some((Which::Second, e.to_string()))),
            (Err(e), Ok(second)) => (second, Some((Which::First, e.to_string()))),
            (Err(e), Err(_)) => return Err(e),
        };
        let header = Self { copy, metadata, stale };
        header.check_areas()?;
        Ok(header)
    }

    /// Each area lies where areas may lie, and none over another.
    fn check_areas(&self) -> Result<()> {
        let (from, to) = self.keyslots()?;
        let mut areas = self.metadata.areas()?;
        areas.sort_by_key(|(_, offset, _)| *offset);
        let mut free = from;
        for (slot, offset, size) in areas {
            let end = offset.checked_add(size).filter(|end| *end <= to && offset >= free);
            free = end.ok_or_else(|| {
                let message = format!(
                    "key slot {slot} lies at byte {offset} and has {size}, where another one or something else lies \
                     (allowed are bytes {from} to {to})"
                );
                refused(message)
            })?;
        }
        Ok(())
    }

    /// From where to where key slots lie.
    fn keyslots(&self) -> Result<(u64, u64)> {
        let from = self.copy.size.saturating_mul(2);
        Ok((from, from.saturating_add(self.metadata.keyslots_size()?)))
    }

    /// How many bytes both copies have.
    pub(crate) fn len_of_both(&self) -> u64 {
        self.copy.size.saturating_mul(2)
    }

    /// How many bytes the header has, key slots and all.
    pub(crate) fn len(&self) -> Result<u64> {
        self.keyslots().map(|(_, end)| end)
    }

    /// Whether this header can take the place of `old`.
    ///
    /// # Errors
    /// If it is another volume's, or its data lie elsewhere.
    pub(crate) fn check_is_of_same(&self, old: &Self) -> Result<()> {
        if self.uuid() != old.uuid() {
            return Err(refused(format!("it is the header of volume {}, not of {}", self.uuid(), old.uuid())));
        }
        let (new, old) = (self.metadata.data()?, old.metadata.data()?);
        if new == old { Ok(()) } else { Err(refused("its data lie elsewhere, or are encrypted otherwise")) }
    }

    /// Where the data lie in the file of this header.
    ///
    /// # Errors
    /// If that is over the key slots.
    pub(crate) fn data_behind(&self) -> Result<Data> {
        let (data, (_, end)) = (self.metadata.data()?, self.keyslots()?);
        if data.offset < end {
            let message = format!("its data begin at byte {}, its key slots end at {end}", data.offset);
            return Err(refused(message));
        }
        Ok(data)
    }

    /// Where the data lie in another file.
    pub(crate) fn data_elsewhere(&self) -> Result<Data> {
        self.metadata.data()
    }

    pub(crate) fn uuid(&self) -> &str {
        &self.copy.uuid
    }

    pub(crate) fn label(&self) -> &str {
        &self.copy.label
    }

    /// The data are a layer over another volume.
    pub(crate) fn is_layer(&self) -> bool {
        self.metadata.token(LAYER).is_some()
    }

    /// Says so, from the next time that the header is written on.
    pub(crate) fn make_layer(&mut self) {
        self.metadata.add_token(LAYER, Map::from_iter([("layout".to_owned(), "1".into())]));
    }

    /// What the layers over it know it by, if there are any: then it may not change any more.
    pub(crate) fn base_identity(&self) -> Option<Identity> {
        identity(self.metadata.token(BASE)?.get("identity")?)
    }

    /// The layers that were made over it, if that is known.
    pub(crate) fn forks(&self) -> Option<Vec<Identity>> {
        self.metadata.token(BASE)?.get("forks")?.as_array()?.iter().map(identity).collect()
    }

    /// The layer that is being committed to it.
    pub(crate) fn commit(&self) -> Option<Identity> {
        identity(self.metadata.token(BASE)?.get("commit")?)
    }

    /// Refuses one to which a layer is being committed, as long as that is not done.
    pub(crate) fn check_no_commit(&self) -> Result<()> {
        if self.metadata.token(BASE).is_some_and(|token| token.contains_key("commit")) {
            let message = "a fork is being committed to it, and that is not done: commit it again, or open the fork";
            return Err(refused(message));
        }
        Ok(())
    }

    /// Makes it a base, which `fork` and all other layers over it know by `identity`, unless it is one already; notes that layer.
    pub(crate) fn make_base(&mut self, file: &impl Storage, identity: Identity, fork: Identity) -> Result<()> {
        let mut forks = if self.base_identity().is_none() { Some(Vec::new()) } else { self.forks() };
        forks = forks.filter(|forks| forks.len() < MOST_FORKS);
        forks.iter_mut().for_each(|forks| forks.push(fork));
        self.write_base(file, self.base_identity().unwrap_or(identity), forks.as_deref(), None)
    }

    /// From now on, `fork` alone may be opened over it, while it is committed to it.
    pub(crate) fn begin_commit(&mut self, file: &impl Storage, fork: Identity) -> Result<()> {
        let identity = self.base_identity().ok_or_else(|| refused("it is no base"))?;
        let forks = self.forks();
        self.write_base(file, identity, forks.as_deref(), Some(fork))
    }

    fn write_base(
        &mut self,
        file: &impl Storage,
        identity: Identity,
        forks: Option<&[Identity]>,
        commit: Option<Identity>,
    ) -> Result<()> {
        let mut changed = self.metadata.clone();
        changed.remove_tokens(BASE);
        changed.add_token(BASE, base_fields(identity, forks, commit));
        self.write(file, changed)
    }

    /// What a header says of layers is true of the data, whenever its keys are from.
    pub(crate) fn keep_tokens(&mut self, of: &Self) {
        // So that it counts as the newer one.
        self.copy.sequence = self.copy.sequence.max(of.copy.sequence);
        for kind in [LAYER, BASE] {
            self.metadata.remove_tokens(kind);
        }
        if of.is_layer() {
            self.make_layer();
        }
        if let Some(identity) = of.base_identity() {
            self.metadata.add_token(BASE, base_fields(identity, of.forks().as_deref(), of.commit()));
        }
    }

    /// No layer lies over it any more; those that do know it no longer.
    pub(crate) fn release(&mut self, file: &impl Storage) -> Result<()> {
        let mut changed = self.metadata.clone();
        changed.remove_tokens(BASE);
        self.write(file, changed)
    }

    /// The copy that is not as it should be, if one is not.
    pub(crate) fn stale(&self) -> Option<String> {
        let (which, why) = self.stale.as_ref()?;
        let which = if *which == Which::First { "first" } else { "second" };
        Some(format!("the {which} header is not in use: {why}"))
    }

    /// All key slots, and how each makes its key, or why it cannot be used.
    pub(crate) fn slots(&self) -> Result<Vec<(u32, Result<Kdf>)>> {
        let usable = |slot| self.metadata.slot(slot).and_then(|keyslot| keyslot.stripes().map(|_| keyslot.kdf));
        Ok(self.metadata.slots()?.into_iter().map(|slot| (slot, usable(slot))).collect())
    }

    /// Looks for a key slot that `secret` opens: those that take least first. Gives its number, and the key of the data.
    ///
    /// # Errors
    /// [`ErrorKind::VolumeKey`] if none is opened by it; what is wrong with the last slot that could not be tried, if none was opened.
    pub(crate) fn unlock(
        &self,
        file: &impl Storage,
        secret: &[u8],
        limits: UnlockLimits,
    ) -> Result<(u32, LockedBytes)> {
        let (digest, mut left) = (self.metadata.digest()?, limits);
        let mut slots = Vec::new();
        let mut problem = None;
        for slot in digest.keyslots.iter().filter_map(|slot| slot.parse().ok()).take(MOST_SLOTS as usize) {
            match self.metadata.slot(slot) {
                // Priority 0 means: only if it is asked for.
                Ok(keyslot) if keyslot.priority == Some(0) => {}
                Ok(keyslot) => slots.push((slot, keyslot)),
                Err(e) => problem = Some((slot, e)),
            }
        }
        slots.sort_by_key(|(_, keyslot)| (std::cmp::Reverse(keyslot.priority), keyslot.kdf.work()));
        for (slot, keyslot) in slots {
            match self.open_slot(file, &keyslot, secret, &mut left) {
                Ok(key) if digest.fits(&key, limits.iterations)? => return Ok((slot, key)),
                Ok(_) => {}
                Err(e) => problem = Some((slot, e)),
            }
        }
        Err(match problem {
            Some((slot, e)) => {
                e.about(&format!("key slot {slot} cannot be tried, and no other one is opened by this key"))
            }
            None => Error::new(ErrorKind::VolumeKey, "no key slot is opened by this key"),
        })
    }

    /// Whether this is the key of the data.
    pub(crate) fn check_key(&self, key: &[u8], limits: UnlockLimits) -> Result<()> {
        match self.metadata.digest()?.fits(key, limits.iterations)? {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::VolumeKey, "this is not the key of the volume's data")),
        }
    }

    fn open_slot(
        &self,
        file: &impl Storage,
        keyslot: &Keyslot,
        secret: &[u8],
        left: &mut UnlockLimits,
    ) -> Result<LockedBytes> {
        let stripes = keyslot.stripes()?;
        let key = keyslot.kdf.derive(secret, keyslot.area.key_size, left)?;
        let cipher = Cipher::new(&key, AREA_SECTOR)?;
        let mut merger = Merger::new(keyslot.key_size, stripes.count, stripes.hash)?;
        let mut room = LockedBytes::zeroed(AREA_PIECE).map_err(no_secret_memory)?;
        for (at, len) in pieces(stripes.count.saturating_mul(keyslot.key_size)) {
            let piece = room.get_mut(..len).unwrap_or_default();
            let read = file.read_at(piece, keyslot.area.offset.0.saturating_add(at));
            read.map_err(|e| refused("its area cannot be read").with_source(e))?;
            cipher.decrypt(at, piece);
            merger.add(piece);
        }
        Ok(merger.key())
    }

    /// Adds a key slot that `secret` opens, and writes the header.
    ///
    /// # Errors
    /// If all are taken or there is no room, or the file cannot be written. Then the header is as it was.
    pub(crate) fn add(&mut self, file: &impl Storage, key: &[u8], secret: &[u8], cost: Cost) -> Result<u32> {
        let taken = self.metadata.slots()?;
        let Some(slot) = (0..MOST_SLOTS).find(|slot| !taken.contains(slot)) else {
            return Err(refused(format!("all {MOST_SLOTS} key slots are taken")));
        };
        let hash = Hash::Sha256;
        let len = key.len().saturating_mul(STRIPES);
        let offset = self.free_area((len as u64).next_multiple_of(PAGE))?;
        let keyslot = Keyslot::new(key.len(), offset, hash, Kdf::new(cost)?);
        let slot_key = keyslot.kdf.derive(secret, keyslot.area.key_size, &mut UnlockLimits::default())?;
        let (cipher, mut splitter) = (Cipher::new(&slot_key, AREA_SECTOR)?, Splitter::new(key, STRIPES, hash)?);
        let mut room = LockedBytes::zeroed(AREA_PIECE).map_err(no_secret_memory)?;
        for (at, len) in pieces(len) {
            let piece = room.get_mut(..len).unwrap_or_default();
            splitter.fill(piece)?;
            cipher.encrypt(at, piece);
            file.write_at(piece, offset.0.saturating_add(at)).map_err(unwritten)?;
        }
        file.sync().map_err(unwritten)?;
        let mut changed = self.metadata.clone();
        changed.add(slot, &keyslot);
        self.write(file, changed)?;
        Ok(slot)
    }

    /// Where so many bytes are free among the key slots, and how many they are.
    fn free_area(&self, len: u64) -> Result<(u64, u64)> {
        let (mut free, end) = self.keyslots()?;
        let mut areas = self.metadata.areas()?;
        areas.sort_by_key(|(_, offset, _)| *offset);
        for (_, offset, size) in areas {
            if offset.saturating_sub(free) >= len {
                break;
            }
            free = offset.saturating_add(size).next_multiple_of(PAGE);
        }
        match free.checked_add(len) {
            Some(to) if to <= end => Ok((free, len)),
            _ => Err(refused(format!("there are no {len} bytes free for another key slot"))),
        }
    }

    /// Overwrites a key slot, and then takes it out of the header, so that one that is not there any more opens nothing.
    ///
    /// # Errors
    /// If it is the last one, or is not there, or the file cannot be written.
    pub(crate) fn remove(&mut self, file: &impl Storage, slot: u32) -> Result<()> {
        let slots = self.metadata.slots()?;
        if !slots.contains(&slot) {
            let there: Vec<String> = slots.iter().map(u32::to_string).collect();
            return Err(refused(format!("there is no key slot {slot}, only {}", there.join(", "))));
        }
        let opening: Vec<u32> = self.metadata.digest()?.keyslots.iter().filter_map(|slot| slot.parse().ok()).collect();
        // One of a kind that is not known here is no way in.
        let opens = |slot: &u32| self.metadata.slot(*slot).and_then(|keyslot| keyslot.stripes().map(drop)).is_ok();
        if opening.contains(&slot) && !opening.iter().any(|other| *other != slot && opens(other)) {
            let message = format!("key slot {slot} is the last one that can be used: without it the data are lost");
            return Err(refused(message));
        }
        if let Some((_, offset, size)) = self.metadata.areas()?.into_iter().find(|(number, ..)| *number == slot) {
            overwrite(file, offset, size).map_err(unwritten)?;
        }
        let mut changed = self.metadata.clone();
        changed.remove(slot);
        self.write(file, changed)
    }

    /// Writes both copies, each stable before the next one begins.
    pub(crate) fn write_both(&mut self, file: &impl Storage) -> Result<()> {
        let unchanged = self.metadata.clone();
        self.write(file, unchanged)
    }

    fn write(&mut self, file: &impl Storage, metadata: Metadata) -> Result<()> {
        let mut copy = self.copy.clone();
        copy.sequence = copy.sequence.saturating_add(1);
        copy.text = metadata.text();
        // One that is damaged is written first: the other one stays whole meanwhile.
        let order = match &self.stale {
            Some((Which::Second, _)) => [Which::Second, Which::First],
            _ => [Which::First, Which::Second],
        };
        for which in order {
            let bytes = copy.write(which)?;
            file.write_at(&bytes, copy.offset(which)).and_then(|()| file.sync()).map_err(unwritten)?;
        }
        (self.copy, self.metadata, self.stale) = (copy, metadata, None);
        Ok(())
    }
}

/// An area of `len` bytes in pieces of whole sectors: where each is, and its length.
fn pieces(len: usize) -> impl Iterator<Item = (u64, usize)> {
    let len = len.next_multiple_of(AREA_SECTOR);
    (0..len).step_by(AREA_PIECE).map(move |at| (at as u64, AREA_PIECE.min(len.saturating_sub(at))))
}

fn base_fields(of: Identity, forks: Option<&[Identity]>, commit: Option<Identity>) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("identity".into(), text(of));
    if let Some(forks) = forks {
        fields.insert("forks".into(), forks.iter().copied().map(text).collect());
    }
    if let Some(fork) = commit {
        fields.insert("commit".into(), text(fork));
    }
    fields
}

fn text(identity: Identity) -> Value {
    format!("{:032x}", u128::from_be_bytes(identity)).into()
}

fn identity(text: &Value) -> Option<Identity> {
    u128::from_str_radix(text.as_str()?, 16).ok().map(u128::to_be_bytes)
}

fn whole(copy: Result<Copy>) -> Result<(Copy, Metadata)> {
    let copy = copy?;
    let metadata = Metadata::parse(&copy.text)?;
    Ok((copy, metadata))
}

/// With random bytes, since zeroes may be left out by storage.
fn overwrite(file: &impl Storage, offset: u64, size: u64) -> std::io::Result<()> {
    let mut noise = vec![0; 64 << 10];
    let mut at = offset;
    let end = offset.saturating_add(size);
    while at < end {
        random_bytes(&mut noise)?;
        let len = noise.len().min(usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX));
        file.write_at(noise.get(..len).unwrap_or_default(), at)?;
        at = at.saturating_add(len as u64);
    }
    file.sync()
}

fn unwritten(e: std::io::Error) -> Error {
    refused("its header cannot be written").with_source(e)
}

/// Version 4 of RFC 9562.
fn random_uuid(random: [u8; 16]) -> String {
    let number = u128::from_be_bytes(random) & !(0xf << 76 | 3 << 62) | 4 << 76 | 2 << 62;
    let text = format!("{number:032x}");
    let part = |range| text.get::<std::ops::Range<usize>>(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

#[cfg(test)]
#[path = "header_test.rs"]
mod tests;
