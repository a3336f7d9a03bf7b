//! Headers of volumes as the crate `luks` reads them, which shares no code with this one.

use std::fs::File;

use luks::{KeySlotId, LuksHeader, UnlockKey};
use vmcell::volume::{Key, Volume, VolumeFormat};

const SIZE: u64 = 1 << 20;
const WORDS: &str = "correct horse battery staple, 44 bytes long.";

/// What the crate takes for the key of the data, and whether that has the header's digest.
fn read(path: &std::path::Path, slot: u32, words: &str) -> (Vec<u8>, bool) {
    let mut device = LuksHeader::open(File::open(path).unwrap()).unwrap();
    let (slot, key) = (KeySlotId::new(slot.to_string()), UnlockKey::from_passphrase(words.to_owned()));
    let data_key = device.get_volume_key(&slot, &key).unwrap();
    let bytes = data_key.expose_bytes().to_vec();
    device.unlocked_key = Some(data_key);
    (bytes, device.verify(&slot).unwrap())
}

#[test]
fn another_reader_finds_the_same_key_of_the_data_in_each_key_slot() {
    let folder = tempfile::tempdir().unwrap();
    let keys = [Key::passphrase(WORDS.as_bytes()).unwrap(), Key::random(WORDS.as_bytes()).unwrap()];
    for (sector_size, (key, other)) in [512, 4096].into_iter().zip([(&keys[0], &keys[1]), (&keys[1], &keys[0])]) {
        let path = folder.path().join(sector_size.to_string());
        Volume::create_with(&path, SIZE, key, &VolumeFormat::new().sector_size(sector_size)).unwrap();
        let added = Volume::keys(&path).unwrap().add(key, other).unwrap();
        for slot in [0, added] {
            let (data_key, is_right) = read(&path, slot, WORDS);
            assert!(is_right, "key slot {slot} of a volume with sectors of {sector_size}");
            assert!(!read(&path, slot, "another passphrase").1);
            drop(Volume::open(&path, &Key::of_data(&data_key).unwrap()).unwrap());
        }
    }
}
