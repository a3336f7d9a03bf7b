//! Encrypted volumes: what is written comes back with the right key alone, and bad files are refused by what is wrong with them.

#[path = "support/memory.rs"]
mod memory;
#[path = "support/plain.rs"]
mod plain;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memory::copies_in_memory;
use plain::Plain;
use tempfile::TempDir;
use vmcell::volume::{Encrypted, Key, UnlockLimits, Volume, VolumeFormat, VolumeOptions};
use vmcell::{DiskConfig, ErrorKind};

const SIZE: u64 = 4 << 20;
/// Where a volume's data begin.
const DATA: u64 = 16 << 20;
/// How long each copy of a header is.
const HEADER: u64 = 16 << 10;

fn key(number: u8) -> Key {
    Key::random(&[number; 32]).unwrap()
}

struct Rig {
    folder: TempDir,
    path: PathBuf,
}

impl Rig {
    /// A volume that `key(1)` opens.
    fn new() -> Self {
        Self::with(&VolumeFormat::new())
    }

    fn with(format: &VolumeFormat) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.vol");
        Volume::create_with(&path, SIZE, &key(1), format).unwrap();
        Self { folder, path }
    }

    fn open(&self) -> Plain {
        Plain::new(Volume::open(&self.path, &key(1)).unwrap().into_backend())
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }

    fn in_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Why it does not open.
    fn refusal(&self) -> (ErrorKind, String) {
        refusal(&self.path, &key(1))
    }

    /// Changes the JSON of both headers, as somebody would who knows how the checksum is made.
    fn edit(&self, from: &str, to: &str) {
        let file = self.file();
        for at in [0, HEADER] {
            let mut header = vec![0; HEADER as usize];
            file.read_exact_at(&mut header, at).unwrap();
            let text = String::from_utf8(header[4096..].to_vec()).unwrap();
            let text = text.trim_end_matches('\0');
            assert!(text.contains(from), "{from} is not in {text}");
            let text = text.replace(from, to);
            header[4096..].fill(0);
            header[4096..4096 + text.len()].copy_from_slice(text.as_bytes());
            sign(&mut header);
            file.write_all_at(&header, at).unwrap();
        }
    }
}

/// Puts the right checksum into a header.
fn sign(header: &mut [u8]) {
    header[448..512].fill(0);
    let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&header).into();
    header[448..480].copy_from_slice(&digest);
}

fn refusal(path: &Path, key: &Key) -> (ErrorKind, String) {
    let error = Volume::open(path, key).expect_err("it is refused");
    (error.kind(), error.chain())
}

fn counting(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index / 7) as u8).collect()
}

#[test]
fn what_is_written_comes_back_and_the_file_has_none_of_it() {
    for sector_size in [512, 4096] {
        let rig = Rig::with(&VolumeFormat::new().sector_size(sector_size).label("a label"));
        let mut disk = rig.open();
        let info = disk.info();
        assert_eq!((info.capacity, info.block_size, info.discard), (SIZE, sector_size as u32, false));
        let secret = b"a secret of a tenant's, twice as long as a block of AES".repeat(1200);
        let secret = &secret[..16 * 4096 - 4096];
        disk.write(4096, secret).unwrap();
        disk.zero(SIZE - 8192, 8192).unwrap();
        disk.flush().unwrap();
        assert_eq!(disk.read(4096, secret.len()).unwrap(), secret);
        drop(disk);

        assert_eq!(rig.open().read(4096, secret.len()).unwrap(), secret);
        assert_eq!(rig.open().read(SIZE - 8192, 8192).unwrap(), [0; 8192]);
        let mut file = vec![0; 17 << 20];
        rig.file().read_exact_at(&mut file, 0).unwrap();
        assert!(!file.windows(16).any(|window| window == &secret[..16]), "the host's file has none of it");
        let info = Volume::inspect(&rig.path).unwrap();
        assert_eq!((info.label.as_str(), info.sector_size, info.data_offset), ("a label", sector_size, DATA));
    }
}

#[test]
fn a_new_volume_takes_no_space_and_nobody_else_may_read_it() {
    let rig = Rig::new();
    let metadata = fs::metadata(&rig.path).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, DATA + SIZE));
    assert!(metadata.blocks() * 512 < 1 << 20, "{} bytes are taken", metadata.blocks() * 512);
}

#[test]
fn a_file_that_exists_is_left_alone_and_a_failure_leaves_nothing() {
    let rig = Rig::new();
    let error = Volume::create(&rig.path, SIZE, &key(2)).unwrap_err();
    assert!(error.chain().contains("File exists"), "{}", error.chain());
    drop(rig.open());
    for (size, said) in [(0, "a size of 0 bytes"), (4097, "multiples of 4096"), (1 << 63, "up to 4611686018427387904")]
    {
        let error = Volume::create(rig.in_folder("other"), size, &key(1)).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let label = VolumeFormat::new().label("x".repeat(48));
    assert!(Volume::create_with(rig.in_folder("other"), SIZE, &key(1), &label).is_err());
    // Its header cannot be made, so the volume is not, either.
    let apart = VolumeFormat::new().header(rig.in_folder("none/header"));
    assert!(Volume::create_with(rig.in_folder("other"), SIZE, &key(1), &apart).is_err());
    let apart = VolumeFormat::new().header(rig.in_folder("header"));
    assert!(Volume::create_with(rig.in_folder("none/other"), SIZE, &key(1), &apart).is_err());
    assert_eq!(fs::read_dir(rig.folder.path()).unwrap().count(), 1);
}

#[test]
fn another_key_is_told_apart_from_damage() {
    let rig = Rig::new();
    let (kind, message) = refusal(&rig.path, &key(2));
    assert_eq!(kind, ErrorKind::VolumeKey);
    assert_eq!(message, format!("volume {}: no key slot is opened by this key", rig.path.display()));
    assert_eq!(refusal(&rig.path, &Key::passphrase(b"wrong").unwrap()).0, ErrorKind::VolumeKey);
    assert_eq!(refusal(&rig.path, &Key::of_data(&[1; 64]).unwrap()).0, ErrorKind::VolumeKey);
}

#[test]
fn a_machines_key_opens_a_volume_within_milliseconds() {
    let rig = Rig::new();
    let least = (0..5).map(|_| {
        let began = Instant::now();
        drop(Volume::open(&rig.path, &key(1)).unwrap());
        began.elapsed()
    });
    let least = least.min().unwrap();
    // A build without optimization hashes some fifty times as slowly.
    assert!(least < Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 10 }), "{least:?}");
}

#[test]
fn a_volume_is_opened_once_and_by_readers_together() {
    let rig = Rig::new();
    let read_only = || {
        let mut disk = DiskConfig::new(&rig.path);
        disk.read_only = true;
        Volume::open_with(VolumeOptions::new(disk), &key(1))
    };
    let writer = Volume::open(&rig.path, &key(1)).unwrap();
    let (kind, message) = rig.refusal();
    assert_eq!(kind, ErrorKind::Disk);
    assert!(message.contains("only one may write to it"), "{message}");
    assert_eq!(read_only().unwrap_err().kind(), ErrorKind::Disk);
    drop(writer);
    let (_one, _other) = (read_only().unwrap(), read_only().unwrap());
    assert_eq!(rig.refusal().0, ErrorKind::Disk);
    let mut disk = Plain::new(read_only().unwrap().into_backend());
    assert!(disk.write(0, &[1; 4096]).is_err());
}

#[test]
fn each_key_opens_until_it_is_removed_and_the_last_one_stays() {
    let rig = Rig::new();
    let keys = Volume::keys(&rig.path).unwrap();
    rig.open().write(0, &[0x77; 4096]).unwrap();
    let passphrase = Key::passphrase(b"for the administrator").unwrap();
    assert_eq!(keys.add(&key(1), &passphrase).unwrap(), 1);
    assert_eq!(keys.add(&passphrase, &key(2)).unwrap(), 2);
    for key in [&key(1), &key(2), &passphrase] {
        let mut disk = Plain::new(Volume::open(&rig.path, key).unwrap().into_backend());
        assert_eq!(disk.read(0, 4096).unwrap(), [0x77; 4096]);
    }
    let shown: Vec<_> = keys.info().unwrap().slots.into_iter().map(|slot| (slot.number, slot.opened_by)).collect();
    let machine = "pbkdf2, 1000 times sha256".to_owned();
    let argon = "argon2id, 3 passes over 65536 KiB, 4 lanes".to_owned();
    assert_eq!(shown, [(0, machine.clone()), (1, argon), (2, machine)]);

    assert_eq!((keys.find(&key(2)).unwrap(), keys.find(&passphrase).unwrap()), (2, 1));
    keys.remove(0).unwrap();
    assert_eq!(rig.refusal().0, ErrorKind::VolumeKey);
    assert_eq!(keys.change(&passphrase, &key(3)).unwrap(), 0);
    assert_eq!(refusal(&rig.path, &passphrase).0, ErrorKind::VolumeKey);
    keys.remove(2).unwrap();
    let error = keys.remove(0).unwrap_err();
    assert!(error.to_string().contains("key slot 0 is the last one"), "{error}");
    assert!(keys.remove(7).unwrap_err().to_string().contains("there is no key slot 7, only 0"));
    assert_eq!(keys.add(&key(1), &key(4)).unwrap_err().kind(), ErrorKind::VolumeKey);
    drop(Volume::open(&rig.path, &key(3)).unwrap());
}

#[test]
fn threads_that_share_keys_take_key_slots_of_their_own() {
    let rig = Rig::new();
    let keys = Volume::keys(&rig.path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let keys = &keys;
            scope.spawn(move || {
                (0..4).for_each(|one| drop(keys.add(&key(1), &key(10 + 4 * thread + one)).unwrap().to_string()))
            });
        }
    });
    assert_eq!(keys.info().unwrap().slots.len(), 17);
    (10..26).for_each(|number| drop(Volume::open(&rig.path, &key(number)).unwrap()));
}

#[test]
fn a_removed_key_slot_is_overwritten() {
    let rig = Rig::new();
    let keys = Volume::keys(&rig.path).unwrap();
    let area = |slot: u64| {
        let mut bytes = vec![0; 256_000];
        rig.file().read_exact_at(&mut bytes, 2 * HEADER + slot * 258_048).unwrap();
        bytes
    };
    keys.add(&key(1), &key(2)).unwrap();
    let before = area(1);
    keys.remove(1).unwrap();
    let same = area(1).iter().zip(&before).filter(|(one, other)| one == other).count();
    assert!(same < before.len() / 64, "{same} bytes are as they were");
}

#[test]
fn there_are_32_key_slots_and_no_more() {
    let rig = Rig::new();
    let keys = Volume::keys(&rig.path).unwrap();
    (1..32).for_each(|slot| assert_eq!(keys.add(&key(1), &key(slot + 1)).unwrap(), u32::from(slot)));
    assert!(keys.add(&key(1), &key(99)).unwrap_err().to_string().ends_with("all 32 key slots are taken"));
    drop(Volume::open(&rig.path, &key(32)).unwrap());
}

#[test]
fn a_volume_without_a_key_slot_is_opened_by_its_datas_key_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raw");
    for len in [32, 64] {
        let data_key = Key::of_data(&counting(len)).unwrap();
        Volume::create(&path, SIZE, &data_key).unwrap();
        let mut disk = Plain::new(Volume::open(&path, &data_key).unwrap().into_backend());
        disk.write(0, &[3; 4096]).unwrap();
        drop(disk);
        assert_eq!(refusal(&path, &key(1)).0, ErrorKind::VolumeKey);
        // The same without a header.
        let mut below = DiskConfig::new(&path);
        below.read_only = true;
        let raw = vmcell::block::FileBackend::open(&below).unwrap();
        drop(raw);
        Volume::keys(&path).unwrap().add(&data_key, &key(1)).unwrap();
        drop(Volume::open(&path, &key(1)).unwrap());
        fs::remove_file(&path).unwrap();
    }
    assert!(Key::of_data(&[0; 48]).unwrap_err().to_string().contains("48 bytes, allowed are 32 and 64"));
}

#[test]
fn a_detached_header_leaves_nothing_but_ciphertext() {
    let folder = tempfile::tempdir().unwrap();
    let (path, header) = (folder.path().join("data"), folder.path().join("header"));
    Volume::create_with(&path, SIZE, &key(1), &VolumeFormat::new().header(&header)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE);
    let options = || VolumeOptions::new(DiskConfig::new(&path)).header(&header);
    let mut disk = Plain::new(Volume::open_with(options(), &key(1)).unwrap().into_backend());
    disk.write(SIZE - 4096, &[9; 4096]).unwrap();
    assert_eq!(disk.info().capacity, SIZE);
    drop(disk);
    let mut disk = Plain::new(Volume::open_with(options(), &key(1)).unwrap().into_backend());
    assert_eq!(disk.read(SIZE - 4096, 4096).unwrap(), [9; 4096]);
    drop(disk);
    let (_, message) = refusal(&path, &key(1));
    assert!(message.contains("it is no LUKS volume"), "{message}");
    Volume::keys(&header).unwrap().change(&key(1), &key(2)).unwrap();
    // A header whose data are said to lie at its own place.
    assert!(refusal(&header, &key(2)).1.contains("its data begin at byte 0, its key slots end at"));
}

#[test]
fn discards_reach_the_host_only_if_that_is_wanted() {
    let rig = Rig::new();
    let mut disk = rig.open();
    disk.write(0, &[1; 1 << 20]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let taken = || fs::metadata(&rig.path).unwrap().blocks() * 512;
    let before = taken();
    let options = VolumeOptions::new(DiskConfig::new(&rig.path)).discard(true);
    let mut disk = Plain::new(Volume::open_with(options, &key(1)).unwrap().into_backend());
    assert!(disk.info().discard);
    disk.discard(0, 1 << 20).unwrap();
    assert!(taken() + (1 << 20) <= before, "{before} {}", taken());
}

#[test]
fn a_volume_grows_and_never_shrinks() {
    let rig = Rig::new();
    let mut disk = rig.open();
    disk.write(SIZE - 4096, &[4; 4096]).unwrap();
    Volume::grow(&rig.path, 2 * SIZE).unwrap();
    disk.refresh();
    assert_eq!(disk.info().capacity, 2 * SIZE);
    disk.write(2 * SIZE - 4096, &[6; 4096]).unwrap();
    assert_eq!(disk.read(SIZE - 4096, 4096).unwrap(), [4; 4096]);
    for (size, said) in [(SIZE, "from the 8388608 that it has"), (2 * SIZE + 1, "multiples of 4096")] {
        let error = Volume::grow(&rig.path, size).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_damaged_copy_of_the_header_is_told_and_mended_by_the_next_change() {
    for damaged in [0, HEADER] {
        let rig = Rig::new();
        rig.file().write_all_at(b"x", damaged + 5000).unwrap();
        drop(rig.open());
        let problem = Volume::inspect(&rig.path).unwrap().header_problem.unwrap();
        let which = if damaged == 0 { "first" } else { "second" };
        assert!(problem.contains(which) && problem.contains("its checksum is another"), "{problem}");
        Volume::keys(&rig.path).unwrap().add(&key(1), &key(2)).unwrap();
        assert_eq!(Volume::inspect(&rig.path).unwrap().header_problem, None);
        // Each of the two opens the volume alone.
        rig.file().write_all_at(&[0; 512], HEADER - damaged).unwrap();
        drop(Volume::open(&rig.path, &key(2)).unwrap());
    }
}

#[test]
fn two_damaged_headers_are_refused() {
    let rig = Rig::new();
    rig.file().write_all_at(b"x", 5000).unwrap();
    rig.file().write_all_at(b"x", HEADER + 5000).unwrap();
    let (kind, message) = rig.refusal();
    assert_eq!(kind, ErrorKind::Volume);
    assert!(message.contains("a header is damaged: its checksum is another"), "{message}");
}

#[test]
fn a_file_that_is_no_whole_volume_is_refused_by_what_is_wrong() {
    let rig = Rig::new();
    let whole = fs::read(&rig.path).unwrap();
    let said = |bytes: &[u8]| {
        fs::write(&rig.path, bytes).unwrap();
        rig.refusal().1
    };
    assert!(said(&[0; 1 << 20]).contains("it is no LUKS volume"));
    let mut first_version = whole.clone();
    first_version[7] = 1;
    first_version[HEADER as usize + 7] = 1;
    assert!(said(&first_version).contains("a LUKS volume of version 1, known is version 2"));
    assert!(said(&whole[..2048]).contains("it ends in the middle of its header"));
    assert!(said(&whole[..6000]).contains("it ends in the middle of its header"));
    assert!(said(&whole[..DATA as usize]).contains("it is cut: its data have 4096 bytes at least, the file has 0"));
    assert!(said(&whole[..100_000]).contains("its area cannot be read"));
    let mut larger = whole.clone();
    larger[14] = 0x50; // 0x5000 bytes
    larger[HEADER as usize + 14] = 0x50;
    assert!(said(&larger).contains("a header has 20480 bytes, allowed are 16 KiB to 4 MiB"));
}

const KDF: &str = r#""hash":"sha256","iterations":1000,"salt""#;
const CIPHER: &str = r#""encryption":"aes-xts-plain64","iv"#;
const SLOTS: &str = r#""keyslots_size":"16744448""#;

/// What is written into both headers in the place of what, and what is said.
const HOSTILE: &[(&str, &str, &str)] = &[
    (
        KDF,
        r#""hash":"sha256","iterations":4000000000,"salt""#,
        "4000000000 iterations of PBKDF2, allowed are 1 to 50000000",
    ),
    (KDF, r#""hash":"sha256","iterations":0,"salt""#, "0 iterations"),
    (KDF, r#""hash":"md5","iterations":1000,"salt""#, r#"uses the hash "md5", known are sha256"#),
    (r#""type":"pbkdf2"},"key_size""#, r#""type":"scrypt"},"key_size""#, "unknown variant `scrypt`"),
    (
        r#""iterations":1000,"keyslots""#,
        r#""iterations":4000000000,"keyslots""#,
        "the key's digest takes 4000000000 iterations",
    ),
    (r#""af":{"hash":"sha256""#, r#""af":{"hash":"md5""#, r#"its splitter uses the hash "md5""#),
    (r#""stripes":4000"#, r#""stripes":4000000000"#, "4000000000 stripes, allowed are 1 to 4000"),
    (r#""stripes":4000"#, r#""stripes":0"#, "0 stripes, allowed are 1 to 4000"),
    (r#""size":"258048""#, r#""size":"4096""#, "its area has 4096 bytes, its key needs 256000"),
    (
        r#""size":"258048""#,
        r#""size":"18446744073709551615""#,
        "key slot 0 lies at byte 32768 and has 18446744073709551615",
    ),
    (r#""size":"258048""#, r#""size":"-1""#, r#""-1" is no number of 64 bits"#),
    (r#""offset":"32768""#, r#""offset":"4096""#, "key slot 0 lies at byte 4096"),
    (r#""offset":"16777216""#, r#""offset":"32768""#, "its data begin at byte 32768, its key slots end at 16777216"),
    (r#""offset":"16777216""#, r#""offset":"16777217""#, "within a sector"),
    (r#""offset":"16777216""#, r#""offset":"18446744073709551104""#, "it is cut"),
    (r#""size":"dynamic""#, r#""size":"9223372036854775808""#, "it is cut"),
    (r#""size":"dynamic""#, r#""size":"much""#, r#"the size "much""#),
    (r#""sector_size":4096"#, r#""sector_size":65536"#, "its sectors have 65536 bytes"),
    (CIPHER, r#""encryption":"serpent-xts-plain64","iv"#, r#"encrypted by "serpent-xts-plain64", known is"#),
    (r#""type":"crypt""#, r#""type":"linear""#, r#"of the type "linear""#),
    (r#""type":"crypt""#, r#""type":"crypt","integrity":{"type":"aead"}"#, "have integrity tags"),
    (SLOTS, r#""keyslots_size":"999999999999""#, "999999999999 bytes, allowed are"),
    (
        SLOTS,
        r#""keyslots_size":"16744448","requirements":{"mandatory":["online-reencrypt-v2"]}"#,
        "online-reencrypt-v2",
    ),
    (r#""key_size":64,"type":"luks2""#, r#""key_size":63,"type":"luks2""#, "63 bytes, allowed are 32 and 64"),
    (r#""tokens":{}"#, r#""tokens":{"#, "not the JSON of a volume"),
    (r#""segments":{"0""#, r#""segments":{"1""#, "1 segments, known is one"),
    (r#""keyslots":{"0""#, r#""keyslots":{"32""#, r#"a key slot is called "32", allowed are 0 to 31"#),
];

#[test]
fn a_header_that_was_made_up_is_refused_by_what_is_wrong_with_it() {
    for (from, to, said) in HOSTILE {
        let rig = Rig::new();
        rig.edit(from, to);
        let began = Instant::now();
        let (kind, message) = rig.refusal();
        assert_eq!(kind, ErrorKind::Volume, "{to}: {message}");
        assert!(message.contains(said), "{to}: {message}");
        assert!(began.elapsed() < Duration::from_secs(5), "{to} took {:?}", began.elapsed());
    }
}

#[test]
fn a_costly_argon2_is_refused_before_it_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig { path: folder.path().join("data.vol"), folder };
    let passphrase = Key::passphrase(b"x").unwrap();
    Volume::create(&rig.path, SIZE, &passphrase).unwrap();
    let options = |limits| VolumeOptions::new(DiskConfig::new(&rig.path)).limits(limits);
    let mut limits = UnlockLimits::default();
    limits.memory_kib = 1024;
    let error = Volume::open_with(options(limits), &passphrase).unwrap_err();
    assert!(error.to_string().contains("it takes 65536 KiB of argon2, allowed are 1024"), "{error}");
    for (from, to, said) in [
        (r#""memory":65536"#, r#""memory":4000000000"#, "4000000000 KiB of argon2, allowed are 1048576"),
        (r#""memory":4000000000"#, r#""memory":1"#, "argon2 makes no sense"),
        (r#""memory":1,"#, r#""memory":65537,"#, "no key slot is opened"),
        (r#""time":3"#, r#""time":4000000000"#, "4000000000 passes over 65537 KiB of argon2"),
        (r#""time":4000000000"#, r#""time":0"#, "argon2 makes no sense"),
        (r#""cpus":4"#, r#""cpus":1000"#, "1000 lanes of argon2, allowed are 1 to 16"),
    ] {
        rig.edit(from, to);
        let message = refusal(&rig.path, &passphrase).1;
        assert!(message.contains(said), "{to}: {message}");
    }
}

#[test]
fn many_costly_key_slots_cost_no_more_than_one_may() {
    let rig = Rig::new();
    let keys = Volume::keys(&rig.path).unwrap();
    (1..4).for_each(|slot| assert_eq!(keys.add(&key(1), &key(slot + 1)).unwrap(), u32::from(slot)));
    rig.edit(KDF, r#""hash":"sha256","iterations":20000,"salt""#);
    let mut limits = UnlockLimits::default();
    limits.iterations = 50_000;
    let options = VolumeOptions::new(DiskConfig::new(&rig.path)).limits(limits);
    let error = Volume::open_with(options, &key(9)).unwrap_err();
    assert!(error.to_string().contains("it takes 20000 iterations of PBKDF2, allowed are 1 to 10000"), "{error}");
}

#[test]
fn a_backup_brings_keys_back_and_another_volumes_header_is_refused() {
    let (rig, other) = (Rig::new(), Rig::new());
    rig.open().write(0, &[5; 4096]).unwrap();
    let backup = rig.in_folder("backup");
    let keys = Volume::keys(&rig.path).unwrap();
    keys.back_up(&backup).unwrap();
    assert!(keys.back_up(&backup).unwrap_err().chain().contains("File exists"));
    keys.change(&key(1), &key(2)).unwrap();
    let error = Volume::restore_header(&other.path, &backup).unwrap_err();
    assert!(error.to_string().contains("it is the header of volume"), "{error}");
    // Both copies are lost, and all key slots.
    rig.file().write_all_at(&vec![0; 1 << 20], 0).unwrap();
    assert!(refusal(&rig.path, &key(2)).1.contains("it is no LUKS volume"));
    assert!(Volume::keys(&rig.path).is_err());
    Volume::restore_header(&rig.path, &backup).unwrap();
    assert_eq!(rig.open().read(0, 4096).unwrap(), [5; 4096]);
    assert!(Volume::restore_header(&rig.path, rig.in_folder("none")).is_err());
}

#[test]
fn a_key_is_never_printed_and_its_bounds_are_told() {
    let key = Key::passphrase(b"hunter2hunter2hunter2hunter2hunter2").unwrap();
    let rig = Rig::new();
    let printed =
        format!("{key:?} {:?} {:?}", Volume::open(&rig.path, &self::key(1)).unwrap(), Volume::open(&rig.path, &key));
    assert!(!printed.contains("hunter2") && !printed.contains("1, 1, 1"), "{printed}");
    let said = |key: vmcell::Result<Key>| key.unwrap_err().chain();
    assert!(said(Key::passphrase(b"")).contains("a key has 0 bytes, allowed are 1 to 65536"));
    assert!(said(Key::random(&[1; 31])).contains("a key has 31 bytes, allowed are 32 to 65536"));
    let path = rig.in_folder("key");
    fs::write(&path, vec![7; 65537]).unwrap();
    assert!(said(Key::file(&path)).contains("a key has more than 65536 bytes"));
    assert!(said(Key::file(rig.in_folder("none"))).contains("it cannot be read: No such file"));
    fs::write(&path, "with a line's end\n").unwrap();
    assert_eq!(Key::file(&path).unwrap().expose(), b"with a line's end\n");
}

#[test]
fn no_key_is_left_in_memory_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, other) = (folder.path().join("raw"), folder.path().join("other"));
    let data_key = Key::of_data(Key::generate().unwrap().expose()).unwrap();
    let random = Key::generate().unwrap();
    Volume::create(&raw, SIZE, &data_key).unwrap();
    Volume::create(&other, SIZE, &random).unwrap();
    Volume::fork(&raw, &data_key, folder.path().join("fork"), &random).unwrap();
    for (path, key) in [(&folder.path().join("fork"), &random), (&other, &random)] {
        let mut disk = Plain::new(Volume::open(path, key).unwrap().into_backend());
        disk.write(0, &[1; 4096]).unwrap();
    }
    for (name, key) in [("the key of the data", &data_key), ("a random key", &random)] {
        for part in key.expose().chunks(16) {
            assert_eq!(copies_in_memory(part), 0, "{name}");
        }
    }
}

#[test]
fn a_disk_without_a_header_is_encrypted_from_its_first_byte_on() {
    let disk = || vmcell::testing::memory_disk(1 << 20);
    let file = disk();
    let below = vmcell::block::FileBackend::new(file.try_clone().unwrap()).unwrap();
    let mut plain = Plain::new(Encrypted::over(below, &Key::of_data(&[1; 64]).unwrap(), 512).unwrap());
    plain.write(512, &[0; 512]).unwrap();
    let mut bytes = [0; 1536];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..512] == [0; 512] && bytes[512..1024] != [0; 512] && bytes[1024..] == [0; 512]);
}
