//! Any header as that of an encrypted volume, as it is and with the checksums that it should have: it is refused, or its keys change as
//! those of any volume do.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

use sha2::{Digest, Sha256};
use vmcell::volume::{Key, UnlockLimits, Volume, VolumeOptions};
use vmcell::{DiskConfig, ErrorKind};

use crate::alloc::Meter;
use crate::clock::within;

const PATIENCE: Duration = Duration::from_secs(5);
/// What looking at it may hold: two headers, one key slot's area, and argon2's memory.
const MOST_HELD: i64 = 4 << 20;
/// And so many times the text, for what is read into.
const TIMES: i64 = 64;

const BINARY: usize = 4096;
/// Key slots of 32 stripes lie behind two headers of 16 KiB, and data behind them.
const LEN: usize = 3 << 15;
const SIZES: [usize; 4] = [0x4000, 0x8000, 0x5000, 0x40_0000];

/// Runs one input: how the header is made, and its JSON.
pub fn run(bytes: &[u8]) {
    let Some(([size, tricks, low, high], text)) = bytes.split_first_chunk() else { return };
    let (size, tricks) = (SIZES[usize::from(*size) % SIZES.len()], *tricks);
    let at = usize::from(u16::from_le_bytes([*low, *high])) % 512;
    let mut file = vec![0; LEN];
    for (offset, magic) in [(0, b"LUKS\xba\xbe"), (size, b"SKUL\xba\xbe")] {
        let Some(place) = file.get_mut(offset..).and_then(|rest| rest.get_mut(..size)) else { continue };
        header(place, magic, (offset, size), text, tricks);
        if tricks & 2 != 0 {
            place[at] ^= tricks;
        }
        if tricks & 4 == 0 {
            sign(place);
        }
    }
    if tricks & 8 != 0 {
        // The first one is lost.
        file[..BINARY].fill(0);
    }
    look_at(&file, text.len());
}

fn header(place: &mut [u8], magic: &[u8; 6], (offset, size): (usize, usize), text: &[u8], tricks: u8) {
    place[..6].copy_from_slice(magic);
    place[7] = 2;
    place[8..16].copy_from_slice(&(size as u64).to_be_bytes());
    place[23] = 1 + u8::from(offset != 0 && tricks & 1 != 0);
    place[72..78].copy_from_slice(b"sha256");
    place[256..264].copy_from_slice(&(offset as u64).to_be_bytes());
    let len = text.len().min(place.len() - BINARY);
    place[BINARY..BINARY + len].copy_from_slice(&text[..len]);
}

fn sign(place: &mut [u8]) {
    place[448..512].fill(0);
    let digest = Sha256::digest(&place);
    place[448..480].copy_from_slice(&digest);
}

fn look_at(bytes: &[u8], text: usize) {
    let file = file(bytes);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut limits = UnlockLimits::default();
    (limits.memory_kib, limits.work_kib, limits.iterations) = (1 << 10, 4 << 10, 4000);
    let key = Key::random(&[7; 32]).expect("it is long enough");
    let mut meter = Meter::new(MOST_HELD + TIMES * text as i64);
    let opened = meter.run(|| {
        within(PATIENCE, || {
            Volume::open_with(VolumeOptions::new(DiskConfig::new(&path)).limits(limits), &key).map(drop)
        })
    });
    if let Err(error) = opened {
        let kind = error.kind();
        assert!(matches!(kind, ErrorKind::Volume | ErrorKind::VolumeKey), "{kind:?}: {}", error.chain());
    }
    if let Ok(info) = Volume::inspect(&path) {
        change(&path, limits, &info.slots.iter().map(|slot| slot.number).collect::<Vec<_>>());
    }
}

/// What was taken for a volume loses its key slots one after the other, but for one that opens it.
fn change(path: &str, limits: UnlockLimits, slots: &[u32]) {
    let Ok(keys) = Volume::keys(path) else { return };
    let keys = keys.limits(limits);
    for slot in slots {
        let removed = keys.remove(*slot);
        let left = keys.info().expect("it is a volume still").slots;
        assert_eq!(removed.is_ok(), left.iter().all(|left| left.number != *slot));
    }
}

/// In memory, so that it takes no room on a disk.
fn file(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("volume", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(fd);
    file.write_all(bytes).expect("there is room");
    file
}

const TEXT: &str = r#"{"keyslots":{"0":{"type":"luks2","key_size":64,"af":{"type":"luks1","stripes":32,"hash":"sha256"},"area":{"type":"raw","offset":"32768","size":"4096","encryption":"aes-xts-plain64","key_size":64},"kdf":{"type":"pbkdf2","hash":"sha256","iterations":1000,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="}},"1":{"type":"luks2","key_size":32,"af":{"type":"luks1","stripes":64,"hash":"sha512"},"area":{"type":"raw","offset":"36864","size":"4096","encryption":"aes-xts-plain64","key_size":32},"kdf":{"type":"argon2id","time":1,"memory":64,"cpus":1,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="}}},"tokens":{},"segments":{"0":{"type":"crypt","offset":"65536","size":"dynamic","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":4096}},"digests":{"0":{"type":"pbkdf2","keyslots":["0","1"],"segments":["0"],"hash":"sha256","iterations":1000,"salt":"AAAAAAAAAAAAAAAAAAAAAA==","digest":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}},"config":{"json_size":"12288","keyslots_size":"32768"}}"#;

/// A whole header, one whose first copy is lost, and one whose checksum is wrong.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let seed = |tricks: u8| [&[0, tricks, 0, 0], TEXT.as_bytes()].concat();
    vec![("whole", seed(0)), ("first-lost", seed(8)), ("second-newer", seed(1)), ("damaged", seed(4))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_seed_is_a_volume_that_another_key_opens() {
        let (_, whole) = seeds().remove(0);
        run(&whole);
        let mut bytes = vec![0; LEN];
        for (offset, magic) in [(0, b"LUKS\xba\xbe"), (0x4000, b"SKUL\xba\xbe")] {
            let place = &mut bytes[offset..offset + 0x4000];
            header(place, magic, (offset, 0x4000), &whole[4..], 0);
            sign(place);
        }
        let file = file(&bytes);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(Volume::inspect(&path).expect("it is a volume").slots.len(), 2);
        let error = Volume::open(&path, &Key::random(&[7; 32]).expect("it is long enough")).expect_err("it is another");
        assert_eq!(error.kind(), ErrorKind::VolumeKey, "{}", error.chain());
    }
}
