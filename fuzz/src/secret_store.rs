//! Any file as a store of secrets, as it is and with the length and the checksum that it should have: it is refused, or is changed as any
//! store is.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, process};

use sha2::{Digest, Sha256};
use vmcell::ErrorKind;
use vmcell::secret::{HostKey, Secret, SecretStore, StoreInfo, Suite};

use crate::alloc::Meter;
use crate::clock::within;
use crate::sealed::made_up;

const PATIENCE: Duration = Duration::from_secs(5);
/// What looking at it may hold, beside so many times as much as the file has.
const MOST_HELD: i64 = 256 << 10;
const TIMES: i64 = 8;
/// Longer ones find nothing more.
const LONGEST: usize = 64 << 10;

const CHECKSUM: usize = 32;
const LEN_AT: usize = 12;

/// Runs one input: the file, as it is and with the numbers that it should have.
pub fn run(bytes: &[u8]) {
    let mut bytes = bytes[..bytes.len().min(LONGEST)].to_vec();
    let folder = Folder::new();
    look_at(&folder.0.join("store"), &bytes);
    mend(&mut bytes);
    look_at(&folder.0.join("store"), &bytes);
}

/// In memory, if the machine has such a place: stores are synced.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let thread = format!("{:?}", std::thread::current().id());
        let own = parent.join(format!("vmcell-fuzz-store-{}-{}", process::id(), thread.replace(['(', ')'], "-")));
        fs::create_dir_all(&own).expect("there is room");
        Self(own)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mend(bytes: &mut [u8]) {
    let len = bytes.len() as u32;
    let Some(place) = bytes.get_mut(LEN_AT..LEN_AT + 4) else { return };
    place.copy_from_slice(&len.to_le_bytes());
    let Some((body, checksum)) = bytes.split_last_chunk_mut::<CHECKSUM>() else { return };
    *checksum = Sha256::digest(body).into();
}

fn look_at(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("there is room");
    let mut meter = Meter::new(MOST_HELD + TIMES * bytes.len() as i64);
    match meter.run(|| within(PATIENCE, || SecretStore::inspect(path))) {
        Ok(info) => {
            check(&info, bytes);
            go_on(path, &info);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Secret, "{}", error.chain()),
    }
}

fn check(info: &StoreInfo, bytes: &[u8]) {
    assert!(info.secrets.windows(2).all(|pair| pair[0].name < pair[1].name), "{info:?}");
    assert!(info.secrets.iter().all(|it| (1..=info.revision).contains(&it.version)), "{info:?}");
    assert!(info.secrets.iter().all(|it| (1..=65536).contains(&it.value_len)), "{info:?}");
    assert!(info.secrets.len() <= 1024 && info.secrets.len() * 100 <= bytes.len(), "{info:?}");
    assert!(bytes[29..].starts_with(info.application.as_bytes()));
}

/// What was taken for a store is one.
fn go_on(path: &Path, info: &StoreInfo) {
    let store = SecretStore::open(path, &info.application).expect("it is a store");
    let host = HostKey::from_bytes(Suite::X25519, &[1; 32]).expect("it has the length of a key");
    for it in &info.secrets {
        assert_eq!(store.get(&host, &it.name).expect_err("no key opens it").kind(), ErrorKind::Secret);
    }
    let secret = Secret::new("new.one", b"value").expect("its name is allowed");
    let Ok(version) = store.set(host.sealing_key(), &secret) else {
        assert!(info.revision >= (1 << 53) - 1, "there is room: {info:?}");
        return;
    };
    assert_eq!(version, info.revision + 1);
    assert_eq!(store.get_version(&host, "new.one", version).expect("it was sealed to it").expose(), b"value");
    let others = |info: StoreInfo| info.secrets.into_iter().filter(|it| it.name != "new.one").collect::<Vec<_>>();
    assert_eq!(others(store.list().expect("it is a store")), others(info.clone()));
    if info.revision < (1 << 53) - 2 {
        store.unset("new.one").expect("it is there");
    }
}

fn store(application: &str, revision: u64, secrets: &[(&str, u64, u32)]) -> Vec<u8> {
    let mut bytes = b"VMCELLST\x01\0\0\0\0\0\0\0".to_vec();
    bytes.extend((secrets.len() as u32).to_le_bytes());
    bytes.extend(revision.to_le_bytes());
    bytes.push(application.len() as u8);
    bytes.extend(application.as_bytes());
    for (name, version, value_len) in secrets {
        let sealed = made_up(application, name, *version, *value_len);
        bytes.extend(version.to_le_bytes());
        bytes.extend((sealed.len() as u32).to_le_bytes());
        bytes.extend(sealed);
    }
    bytes.extend([0; CHECKSUM]);
    mend(&mut bytes);
    bytes
}

/// Stores with none, some and many secrets, at the last revision, and one whose checksum is wrong.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let names: Vec<_> = (10..40).map(|number| format!("name-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), 3, 1)).collect();
    let mut damaged = store("shop", 3, &[("one", 2, 20)]);
    damaged[60] ^= 1;
    vec![
        ("empty", store("shop", 0, &[])),
        ("some", store("shop", 3, &[("a", 1, 20), ("new.one", 2, 5), ("two", 3, 7)])),
        ("many", store("a", 3, &many)),
        ("last", store("shop", (1 << 53) - 1, &[("one", (1 << 53) - 1, 20)])),
        ("out-of-order", store("shop", 3, &[("two", 1, 20), ("one", 2, 5)])),
        ("damaged", damaged),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_stores_but_for_the_bad_ones() {
        let folder = Folder::new();
        for (name, seed) in seeds() {
            run(&seed);
            let path = folder.0.join("store");
            fs::create_dir_all(&folder.0).expect("there is room");
            fs::write(&path, &seed).expect("there is room");
            assert_eq!(SecretStore::inspect(&path).is_ok(), !matches!(name, "out-of-order" | "damaged"), "{name}");
        }
    }
}
