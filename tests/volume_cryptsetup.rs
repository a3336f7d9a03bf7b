//! Volumes and `cryptsetup`: each opens what the other one makes. Without the device mapper, `cryptsetup` reads and writes data by
//! re-encrypting them.

#[path = "support/plain.rs"]
mod plain;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use plain::Plain;
use vmcell::volume::{Key, Volume, VolumeFormat, VolumeOptions};
use vmcell::{DiskConfig, ErrorKind};

const SIZE: u64 = 8 << 20;
const PASSPHRASE: &[u8] = b"a passphrase of some length";

struct Rig {
    folder: tempfile::TempDir,
    path: PathBuf,
    key_file: PathBuf,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, key_file) = (folder.path().join("volume"), folder.path().join("key"));
        fs::write(&key_file, PASSPHRASE).unwrap();
        Self { folder, path, key_file }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `cryptsetup`, which reads the passphrase from the key file. The volume's path is put in the place of "@".
    fn try_cryptsetup(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("cryptsetup");
        command.arg("--batch-mode").arg("--key-file").arg(&self.key_file).stdin(Stdio::null());
        command.args(args.iter().map(|arg| if *arg == "@" { self.path.as_os_str() } else { arg.as_ref() }));
        let output = command.output().expect("cryptsetup is installed (Debian: cryptsetup-bin)");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn cryptsetup(&self, args: &[&str]) -> String {
        self.try_cryptsetup(args).unwrap_or_else(|said| panic!("cryptsetup {args:?}: {said}"))
    }

    fn formatted(args: &[&str]) -> Self {
        let rig = Self::new();
        File::create(&rig.path).unwrap().set_len((16 << 20) + SIZE).unwrap();
        rig.cryptsetup(&[&["luksFormat", "--type", "luks2", "@"], args].concat());
        rig
    }

    fn key(&self) -> Key {
        Key::file(&self.key_file).unwrap()
    }

    fn open(&self) -> Plain {
        Plain::new(Volume::open(&self.path, &self.key()).unwrap().into_backend())
    }
}

/// Blocks that differ.
fn data(len: u64) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

const CHEAP: [&str; 4] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
const ARGON: [&str; 8] =
    ["--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "32768", "--pbkdf-parallel", "2"];

#[test]
#[ignore = "needs cryptsetup"]
fn what_cryptsetup_formats_is_opened_here() {
    let argon2i = ["--pbkdf", "argon2i", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "4096"];
    let cases: &[&[&str]] = &[
        &CHEAP,
        &ARGON,
        &argon2i,
        &[&CHEAP[..], &["--key-size", "256"]].concat(),
        &[&CHEAP[..], &["--sector-size", "512"]].concat(),
        &[&CHEAP[..], &["--sector-size", "4096", "--key-size", "256"]].concat(),
        &[&CHEAP[..], &["--sector-size", "2048"]].concat(),
        &[&CHEAP[..], &["--hash", "sha512"]].concat(),
        &[&CHEAP[..], &["--luks2-metadata-size", "64k", "--luks2-keyslots-size", "2m"]].concat(),
        &[&CHEAP[..], &["--offset", "40960"]].concat(),
        &[&CHEAP[..], &["--label", "named", "--subsystem", "by us", "--uuid", "5f0e3a3c-1b7e-4c0e-9d61-4ad1a3d0b4f7"]]
            .concat(),
    ];
    for args in cases {
        let rig = Rig::formatted(args);
        let mut disk = rig.open();
        disk.write(4096, &data(4096)).unwrap();
        drop(disk);
        assert_eq!(rig.open().read(4096, 4096).unwrap(), data(4096), "{args:?}");
        let wrong = Volume::open(&rig.path, &Key::passphrase(b"another").unwrap()).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::VolumeKey, "{args:?}");
        // A change of ours is a change for cryptsetup, and the other way around.
        let keys = Volume::keys(&rig.path).unwrap();
        let slot = keys.add(&rig.key(), &Key::random(&[6; 32]).unwrap()).unwrap();
        fs::write(&rig.key_file, [6; 32]).unwrap();
        rig.cryptsetup(&["open", "--test-passphrase", "@"]);
        fs::write(&rig.key_file, PASSPHRASE).unwrap();
        rig.cryptsetup(&["luksKillSlot", "@", &slot.to_string()]);
        assert_eq!(keys.info().unwrap().slots.len(), 1);
    }
}

#[test]
#[ignore = "needs cryptsetup"]
fn what_is_created_here_is_opened_by_cryptsetup() {
    for (sector_size, is_random, label) in [(4096, false, ""), (512, true, "a label"), (2048, true, "")] {
        let rig = Rig::new();
        fs::write(&rig.key_file, [8; 64]).unwrap();
        let key = if is_random { Key::random_file(&rig.key_file) } else { Key::file(&rig.key_file) }.unwrap();
        let format = VolumeFormat::new().sector_size(sector_size).label(label);
        Volume::create_with(&rig.path, SIZE, &key, &format).unwrap();
        rig.cryptsetup(&["open", "--test-passphrase", "@"]);
        let dump = rig.cryptsetup(&["luksDump", "@"]);
        let uuid = Volume::inspect(&rig.path).unwrap().uuid;
        let sector = format!("sector: {sector_size} [bytes]");
        for part in ["aes-xts-plain64", "512 bits", &sector, &uuid, if label.is_empty() { "(no label)" } else { label }]
        {
            assert!(dump.contains(part), "{part} is not in {dump}");
        }
        let right = fs::read(&rig.key_file).unwrap();
        fs::write(&rig.key_file, "wrong").unwrap();
        assert!(rig.try_cryptsetup(&["open", "--test-passphrase", "@"]).is_err());
        fs::write(&rig.key_file, right).unwrap();

        let other = rig.file("other");
        fs::write(&other, "another passphrase").unwrap();
        rig.cryptsetup(&[&CHEAP[..], &["luksAddKey", "@", other.to_str().unwrap()]].concat());
        drop(Volume::open(&rig.path, &Key::file(&other).unwrap()).unwrap());
        let last = rig.file("last");
        fs::write(&last, "a third one").unwrap();
        Volume::keys(&rig.path).unwrap().change(&Key::file(&other).unwrap(), &Key::file(&last).unwrap()).unwrap();
        fs::copy(&last, &rig.key_file).unwrap();
        rig.cryptsetup(&["luksRemoveKey", "@"]);
        assert_eq!(Volume::open(&rig.path, &Key::file(&last).unwrap()).unwrap_err().kind(), ErrorKind::VolumeKey);
        drop(Volume::open(&rig.path, &key).unwrap());
    }
}

#[test]
#[ignore = "needs cryptsetup"]
fn data_that_cryptsetup_encrypts_are_read_here() {
    for args in [&["--sector-size", "512"][..], &["--sector-size", "4096"], &["--key-size", "256"]] {
        let rig = Rig::new();
        // The last 32 MiB are to become the header.
        let plain = data(SIZE);
        fs::write(&rig.path, &plain).unwrap();
        File::options().write(true).open(&rig.path).unwrap().set_len(SIZE + (32 << 20)).unwrap();
        let encrypt = ["reencrypt", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M", "@"];
        rig.cryptsetup(&[&encrypt[..], &CHEAP, args].concat());
        let mut disk = rig.open();
        for at in (0..SIZE).step_by(1 << 20) {
            let read = disk.read(at, 1 << 20).unwrap();
            assert!(read == plain[at as usize..][..1 << 20], "{args:?} at {at}");
        }
    }
}

#[test]
#[ignore = "needs cryptsetup"]
fn data_that_are_written_here_are_encrypted_anew_by_cryptsetup() {
    for sector_size in [512, 4096] {
        let rig = Rig::new();
        let key = Key::file(&rig.key_file).unwrap();
        Volume::create_with(&rig.path, SIZE, &key, &VolumeFormat::new().sector_size(sector_size)).unwrap();
        let mut disk = rig.open();
        (0..SIZE).step_by(1 << 20).for_each(|at| disk.write(at, &data(SIZE)[at as usize..][..1 << 20]).unwrap());
        disk.flush().unwrap();
        drop(disk);
        let mut before = vec![0; 1 << 20];
        File::open(&rig.path).unwrap().read_exact_at(&mut before, 16 << 20).unwrap();
        rig.cryptsetup(&[&["reencrypt", "--force-offline-reencrypt", "@"][..], &CHEAP].concat());
        let mut after = vec![0; 1 << 20];
        File::open(&rig.path).unwrap().read_exact_at(&mut after, 16 << 20).unwrap();
        assert!(before != after, "there is another key");
        let mut disk = rig.open();
        (0..SIZE)
            .step_by(1 << 20)
            .for_each(|at| assert!(disk.read(at, 1 << 20).unwrap() == data(SIZE)[at as usize..][..1 << 20]));
    }
}

#[test]
#[ignore = "needs cryptsetup"]
fn cryptsetup_opens_a_fork_and_its_base_and_keeps_what_tells_them() {
    let rig = Rig::new();
    let base = Rig::new();
    Volume::create(&base.path, SIZE, &base.key()).unwrap();
    Volume::fork(&base.path, &base.key(), &rig.path, &rig.key()).unwrap();
    for volume in [&base, &rig] {
        volume.cryptsetup(&["open", "--test-passphrase", "@"]);
        let other = volume.file("other");
        fs::write(&other, "another").unwrap();
        volume.cryptsetup(&[&CHEAP[..], &["luksAddKey", "@", other.to_str().unwrap()]].concat());
        volume.cryptsetup(&["luksKillSlot", "@", "1"]);
        assert!(volume.cryptsetup(&["luksDump", "@"]).contains("vmcell-"));
    }
    let info = |rig: &Rig| Volume::inspect(&rig.path).unwrap();
    assert!(info(&base).is_base && info(&rig).is_fork);
    let mut disk = rig.open();
    disk.write(0, &data(4096)).unwrap();
    assert_eq!(disk.read(0, 4096).unwrap(), data(4096));
}

#[test]
#[ignore = "needs cryptsetup"]
fn the_key_of_the_data_is_the_same() {
    let rig = Rig::new();
    Volume::create(&rig.path, SIZE, &rig.key()).unwrap();
    let dumped = rig.file("dumped");
    rig.cryptsetup(&["luksDump", "--dump-volume-key", "--volume-key-file", dumped.to_str().unwrap(), "@"]);
    let data_key = Key::of_data(&fs::read(&dumped).unwrap()).unwrap();
    drop(Volume::open(&rig.path, &data_key).unwrap());
    // One that was made with it has no key slot, so nothing else opens it.
    let other = Rig::new();
    Volume::create(&other.path, SIZE, &data_key).unwrap();
    let dumped = dumped.to_str().unwrap();
    other.cryptsetup(&["open", "--test-passphrase", "--key-size", "512", "--volume-key-file", dumped, "@"]);
    assert!(other.try_cryptsetup(&["open", "--test-passphrase", "@"]).is_err());
}

#[test]
#[ignore = "needs cryptsetup"]
fn headers_are_backed_up_and_restored_by_either() {
    let rig = Rig::new();
    Volume::create(&rig.path, SIZE, &rig.key()).unwrap();
    let (ours, theirs) = (rig.file("ours"), rig.file("theirs"));
    let keys = Volume::keys(&rig.path).unwrap();
    keys.back_up(&ours).unwrap();
    rig.cryptsetup(&["luksHeaderBackup", "@", "--header-backup-file", theirs.to_str().unwrap()]);
    assert!(fs::read(&ours).unwrap() == fs::read(&theirs).unwrap(), "both are the same");
    let wipe = || File::options().write(true).open(&rig.path).unwrap().write_all_at(&vec![0; 1 << 20], 0).unwrap();
    wipe();
    rig.cryptsetup(&["luksHeaderRestore", "@", "--header-backup-file", ours.to_str().unwrap()]);
    drop(rig.open());
    wipe();
    Volume::restore_header(&rig.path, &theirs).unwrap();
    rig.cryptsetup(&["open", "--test-passphrase", "@"]);
    drop(rig.open());
}

#[test]
#[ignore = "needs cryptsetup"]
fn a_detached_header_of_either_works_for_the_other() {
    let rig = Rig::new();
    let header = rig.file("header");
    let args = ["open", "--test-passphrase", "--header", header.to_str().unwrap(), "@"];
    Volume::create_with(&rig.path, SIZE, &rig.key(), &VolumeFormat::new().header(&header)).unwrap();
    rig.cryptsetup(&args);
    fs::remove_file(&header).unwrap();
    rig.cryptsetup(&[&["luksFormat", "--type", "luks2", "--header", args[3], "@"], &CHEAP[..]].concat());
    let options = VolumeOptions::new(DiskConfig::new(&rig.path)).header(&header);
    let volume = Volume::open_with(options, &rig.key()).unwrap();
    assert_eq!(volume.capacity(), SIZE);
}

#[test]
#[ignore = "needs cryptsetup"]
fn a_header_that_either_has_damaged_is_mended_by_the_other() {
    for at in [5000, 16384 + 5000] {
        let rig = Rig::formatted(&CHEAP);
        File::options().write(true).open(&rig.path).unwrap().write_all_at(b"nonsense", at).unwrap();
        drop(rig.open());
        // cryptsetup mends it as soon as it looks at it.
        rig.cryptsetup(&["open", "--test-passphrase", "@"]);
        assert_eq!(Volume::inspect(&rig.path).unwrap().header_problem, None);
    }
}

#[test]
#[ignore = "needs cryptsetup"]
fn what_is_not_known_here_is_refused_by_its_name() {
    let refusal = |args: &[&str]| {
        let rig = Rig::new();
        File::create(&rig.path).unwrap().set_len((16 << 20) + SIZE).unwrap();
        rig.cryptsetup(&[args, &["@"]].concat());
        Volume::open(&rig.path, &rig.key()).unwrap_err().chain()
    };
    let first = refusal(&["luksFormat", "--type", "luks1", "--pbkdf-force-iterations", "1000"]);
    assert!(first.contains("a LUKS volume of version 1"), "{first}");
    let format = [&["luksFormat", "--type", "luks2"], &CHEAP[..]].concat();
    let cipher = refusal(&[&format[..], &["--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"]].concat());
    assert!(cipher.contains(r#""aes-cbc-essiv:sha256""#), "{cipher}");
    let hash = refusal(&[&format[..], &["--hash", "sha1"]].concat());
    assert!(hash.contains(r#""sha1""#), "{hash}");
}
