//! Valid images with random damage: each is loaded or refused, soon and without a panic.

use std::time::{Duration, Instant};

use super::images::{BzHeader, Files, Part, bzimage, elf, note};
use super::*;
use crate::error::ErrorKind;
use crate::memory::GuestAddress;

/// Xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Values at which arithmetic goes wrong, besides random ones.
const EDGES: &[u64] = &[0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX, u64::MAX - 7];

fn damage(image: &mut Vec<u8>, head: usize, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(head.min(image.len()));
        match random.below(4) {
            0 => image[at] ^= 1 << random.below(8),
            1 => image[at] = random.next() as u8,
            _ => {
                let value = if random.below(2) == 0 { EDGES[random.below(EDGES.len())] } else { random.next() };
                for (byte, value) in image[at..].iter_mut().zip(value.to_le_bytes()).take(1 << random.below(4)) {
                    *byte = value;
                }
            }
        }
    }
    if random.below(8) == 0 {
        let len = random.below(image.len()).max(1);
        image.truncate(len);
    }
}

fn mutate(image: &[u8], head: usize, rounds: usize) {
    let files = Files::new();
    // Untouched memory costs nothing.
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), 16 << 20)]).unwrap();
    let boot = Boot::linux(files.path("image"));
    let platform = Platform { vcpus: 1, ..Platform::default() };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut loaded, mut refused) = (0, 0);
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        let mut image = image.to_vec();
        damage(&mut image, head, &mut random);
        files.write("image", &image);
        let start = Instant::now();
        match load_files(&memory, &boot, &platform) {
            Ok(entry) => {
                assert!(memory.contains(entry.address, 1));
                loaded += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::BootImage, "{error:?}");
                refused += 1;
            }
        }
        slowest = slowest.max(start.elapsed());
    }
    assert!(loaded > rounds / 50 && refused > rounds / 50, "{loaded} loaded, {refused} refused");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[test]
fn a_damaged_elf_image_is_loaded_or_refused() {
    let notes = [note(1, b"GNU\0", b"abcd"), note(18, b"Xen\0", &0x10_0000u64.to_le_bytes())].concat();
    let parts = [Part::load(0x10_0000, &[0x90; 64]), Part::load(0x20_0000, b"data"), Part::notes(&notes)];
    let image = elf(0x10_0000, &parts);
    mutate(&image, image.len(), 3000);
}

#[test]
fn a_damaged_bzimage_is_loaded_or_refused() {
    mutate(&bzimage(&BzHeader::default()), 0x270, 3000);
}

#[test]
fn a_hostile_elf_image_of_100_mib_takes_linear_time() {
    // As many note segments as can be, each of them the whole file, and notes as short as can be.
    let files = Files::new();
    let whole = Part { kind: 4, offset: Some(0), file_size: Some(100 << 20), ..Part::default() };
    let mut parts = vec![whole; 65000];
    parts.push(Part::load(0x10_0000, &[0; 16]));
    let mut image = elf(0x10_0000, &parts);
    image.resize(100 << 20, 0);
    let boot = Boot::linux(files.write("image", &image));
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), 16 << 20)]).unwrap();
    let start = Instant::now();
    for protocol in [BootProtocol::Auto, BootProtocol::Linux64] {
        let _ = load_files(&memory, &boot.clone().protocol(protocol), &Platform { vcpus: 1, ..Platform::default() });
    }
    // Note by note it would take hours.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
