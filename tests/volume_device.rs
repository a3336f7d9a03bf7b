//! Volumes on block devices.

#[path = "support/plain.rs"]
mod plain;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use plain::Plain;
use tempfile::TempDir;
use vmcell::volume::{Key, OtherForks, Volume, VolumeFormat, VolumeOptions};
use vmcell::{Disk, DiskConfig, ErrorKind};

const LEN: u64 = 64 << 20;
const IN_FRONT: u64 = 16 << 20;
const BLOCK: usize = 4096;

fn key() -> Key {
    Key::random(&[7; 32]).unwrap()
}

/// A loop device, which ends with this.
struct Device {
    path: PathBuf,
    folder: TempDir,
}

impl Device {
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn new(len: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(len).unwrap();
        let made = Command::new("losetup").args(["--find", "--show"]).arg(&image).output();
        let Some(made) = made.ok().filter(|made| made.status.success()) else {
            eprintln!("skipped: no loop device can be made here (it takes root and losetup)");
            return None;
        };
        let path = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
        Some(Self { path, folder })
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let output = Command::new(program).args(arguments).arg(&self.path).output();
        output.is_ok_and(|output| output.status.success())
    }

    fn grow(&self, len: u64) {
        File::options().write(true).open(self.beside("image")).unwrap().set_len(len).unwrap();
        assert!(self.run("losetup", &["--set-capacity"]));
    }

    fn used(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.beside("image").metadata().unwrap().blocks() * 512
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.run("losetup", &["--detach"]);
    }
}

fn open(path: &Path) -> Plain {
    Plain::new(Volume::open(path, &key()).unwrap().into_backend())
}

fn byte(disk: &mut Plain, at: u64) -> u8 {
    disk.read(at, BLOCK).unwrap()[0]
}

#[test]
fn a_device_becomes_a_volume_of_its_size_and_nothing_in_front_is_left() {
    let Some(device) = Device::new(LEN + 512) else { return };
    fs::write(&device.path, vec![0x5a; 1 << 20]).unwrap();
    Volume::format_device(&device.path, &key(), &VolumeFormat::new().label("device")).unwrap();
    let info = Volume::inspect(&device.path).unwrap();
    assert_eq!((info.label.as_str(), info.data_offset, info.capacity), ("device", IN_FRONT, Some(LEN - IN_FRONT)));
    assert!(
        !fs::read(device.beside("image")).unwrap()[..IN_FRONT as usize].windows(64).any(|bytes| bytes == [0x5a; 64])
    );
    let mut disk = open(&device.path);
    assert_eq!(disk.info().capacity, LEN - IN_FRONT);
    disk.write(LEN - IN_FRONT - 4096, &[3; BLOCK]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    assert_eq!(byte(&mut open(&device.path), LEN - IN_FRONT - 4096), 3);
    // Formatted again, it has another key.
    Volume::format_device(&device.path, &Key::random(&[8; 32]).unwrap(), &VolumeFormat::new().sector_size(512))
        .unwrap();
    assert_eq!(Volume::open(&device.path, &key()).unwrap_err().kind(), ErrorKind::VolumeKey);
    assert_eq!(Volume::inspect(&device.path).unwrap().capacity, Some(LEN + 512 - IN_FRONT));
}

#[test]
fn a_device_that_is_mounted_or_in_use_is_refused_and_left_alone() {
    let Some(device) = Device::new(LEN) else { return };
    let format = || Volume::format_device(&device.path, &key(), &VolumeFormat::new());
    format().unwrap();
    let disk = open(&device.path);
    let error = format().unwrap_err();
    assert!(error.kind() == ErrorKind::Disk && error.chain().contains("is in use"), "{}", error.chain());
    assert!(Volume::open(&device.path, &key()).unwrap_err().chain().contains("is in use"));
    drop(disk);
    if !device.run("mkfs.ext4", &["-q", "-F"]) {
        return;
    }
    let mounted = device.beside("mounted");
    fs::create_dir(&mounted).unwrap();
    if !Command::new("mount").arg(&device.path).arg(&mounted).status().is_ok_and(|status| status.success()) {
        return;
    }
    let errors = [format().map(drop), Disk::open(&device.path).and_then(|disk| disk.into_device().map(drop))];
    let read = Disk::open(&device.path).and_then(|disk| disk.read_only(true).into_device().map(drop));
    let unmounted = Command::new("umount").arg(&mounted).status().unwrap().success();
    assert!(unmounted);
    for error in errors.map(Result::unwrap_err) {
        assert!(
            error.kind() == ErrorKind::Disk && error.chain().contains("as a file system that is mounted"),
            "{}",
            error.chain()
        );
    }
    read.unwrap();
    assert!(device.run("fsck.ext4", &["-f", "-n"]), "it was left alone");
    format().unwrap();
}

#[test]
fn a_volume_on_a_device_grows_with_it_and_no_further() {
    let Some(device) = Device::new(LEN) else { return };
    Volume::format_device(&device.path, &key(), &VolumeFormat::new()).unwrap();
    let mut disk = open(&device.path);
    let error = Volume::grow(&device.path, LEN).unwrap_err().chain();
    assert!(error.contains("it is a block device of 67108864 bytes and would need 83886080"), "{error}");
    device.grow(2 * LEN);
    Volume::grow(&device.path, 2 * LEN - IN_FRONT).unwrap();
    disk.refresh();
    assert_eq!(disk.info().capacity, 2 * LEN - IN_FRONT);
    disk.write(2 * LEN - IN_FRONT - 4096, &[4; BLOCK]).unwrap();
    drop(disk);
    assert_eq!(byte(&mut open(&device.path), 2 * LEN - IN_FRONT - 4096), 4);
}

#[test]
fn a_device_is_a_base_by_the_name_it_was_given_and_takes_a_commit_that_it_has_room_for() {
    let Some(device) = Device::new(LEN) else { return };
    let link = device.beside("volume");
    std::os::unix::fs::symlink(&device.path, &link).unwrap();
    Volume::format_device(&link, &key(), &VolumeFormat::new()).unwrap();
    let mut disk = open(&link);
    disk.write(0, &[1; BLOCK]).unwrap();
    drop(disk);
    let fork = device.beside("fork");
    Volume::fork(&link, &key(), &fork, &key()).unwrap();
    assert_eq!(byte(&mut open(&fork), 0), 1);
    // The name is the one that was given, not what it leads to at this boot.
    fs::rename(&link, device.beside("away")).unwrap();
    let error = Volume::open(&fork, &key()).unwrap_err().chain();
    assert!(error.contains(link.to_str().unwrap()), "{error}");
    fs::rename(device.beside("away"), &link).unwrap();
    Volume::grow_fork(&fork, &key(), LEN).unwrap();
    let mut disk = open(&fork);
    disk.write(LEN - 4096, &[2; BLOCK]).unwrap();
    drop(disk);
    let commit = || Volume::commit(&fork, &key(), OtherForks::Refuse, |_| std::ops::ControlFlow::Continue(()));
    let error = commit().unwrap_err().chain();
    assert!(error.contains("it is a block device of 67108864 bytes and would need 83886080"), "{error}");
    assert_eq!(byte(&mut open(&fork), LEN - 4096), 2);
    device.grow(2 * LEN);
    assert!(commit().unwrap());
    let mut disk = open(&link);
    assert_eq!([byte(&mut disk, 0), byte(&mut disk, LEN - 4096)], [1, 2]);
}

#[test]
fn discards_reach_a_device_if_that_is_wanted() {
    let Some(device) = Device::new(LEN) else { return };
    Volume::format_device(&device.path, &key(), &VolumeFormat::new()).unwrap();
    let options = VolumeOptions::new(DiskConfig::new(&device.path)).discard(true);
    let mut disk = Plain::new(Volume::open_with(options, &key()).unwrap().into_backend());
    (0..32).for_each(|mib| disk.write(mib << 20, &[5; 1 << 20]).unwrap());
    disk.flush().unwrap();
    File::open(device.beside("image")).unwrap().sync_all().unwrap();
    let before = device.used();
    disk.discard(0, 32 << 20).unwrap();
    disk.flush().unwrap();
    assert!(before >= 32 << 20 && device.used() + (30 << 20) < before, "{before} {}", device.used());
}

#[test]
fn what_is_no_device_or_too_small_a_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, vec![1; 1 << 20]).unwrap();
    let refusal = |path: &Path, format: &VolumeFormat| Volume::format_device(path, &key(), format).unwrap_err().chain();
    assert!(refusal(&file, &VolumeFormat::new()).contains("it is no block device: volumes in files are created"));
    assert!(refusal(Path::new("/dev/null"), &VolumeFormat::new()).contains("it is no block device"));
    assert!(refusal(&folder.path().join("none"), &VolumeFormat::new()).contains("No such file"));
    assert_eq!(fs::read(&file).unwrap(), vec![1; 1 << 20]);
    let Some(device) = Device::new(IN_FRONT) else { return };
    let said = refusal(&device.path, &VolumeFormat::new());
    assert!(said.contains("it has 16777216 bytes, the least for a volume are 16781312"), "{said}");
    let apart = VolumeFormat::new().header(folder.path().join("header"));
    assert!(refusal(&device.path, &apart).contains("a header in a file of its own is for volumes in files"));
    assert!(refusal(&device.path, &VolumeFormat::new().sector_size(1000)).contains("sectors of 1000 bytes"));
    let error = Volume::create(&device.path, 1 << 20, &key()).unwrap_err().chain();
    assert!(error.contains("is a block device: format it instead"), "{error}");
    assert!(device.path.exists());
}

#[test]
fn cryptsetup_opens_a_device_that_was_formatted_here() {
    let Some(device) = Device::new(LEN) else { return };
    let path = device.beside("key");
    fs::write(&path, [7; 32]).unwrap();
    Volume::format_device(&device.path, &key(), &VolumeFormat::new()).unwrap();
    if Command::new("cryptsetup").arg("--version").output().is_err() {
        return;
    }
    assert!(device.run("cryptsetup", &["luksOpen", "--test-passphrase", "--key-file", path.to_str().unwrap()]));
}
