//! Which files become disks, and what the others are told.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;
use crate::GuestAddress;
use crate::testing::{Buffer, DriverQueue, MmioDriver, build_folder, memory_disk, patterned_memory, retry};
use crate::virtio::MmioTransport;

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, len: usize) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, vec![0; len]).unwrap();
        path
    }
}

fn refusal(result: Result<impl Sized>) -> String {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    error.to_string()
}

#[test]
fn what_is_no_file_of_at_least_a_sector_is_refused_by_name_and_at_once() {
    let start = Instant::now();
    let directory = Directory::new();
    let fifo = directory.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let socket = directory.path("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let cases = [
        (directory.path("missing"), "cannot be opened"),
        (directory.path(""), "is a directory, allowed are regular files and block devices"),
        (fifo, "is a FIFO"),
        (socket, "is a socket"),
        (PathBuf::from("/dev/null"), "is a character device"),
        (directory.file("empty", 0), "is empty"),
        (directory.file("small", 511), "has 511 bytes, the least is one sector of 512 bytes"),
    ];
    for (path, expected) in cases {
        let message = refusal(Disk::open(&path));
        assert!(message.starts_with(&format!("disk {} {expected}", path.display())), "{message}");
    }
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_capacity_is_in_whole_sectors() {
    let directory = Directory::new();
    let disk = Disk::open(directory.file("disk", 3 * 512 + 511)).unwrap();
    let (backend, info) = disk.into_backend().unwrap();
    assert_eq!((info.capacity, backend.look(|backend| backend.info()).unwrap().capacity), (3 * 512, 3 * 512));
}

#[test]
fn a_descriptor_without_write_access_is_refused_unless_read_only() {
    let directory = Directory::new();
    let path = directory.file("disk", 4096);
    let open = || Disk::from_file(File::open(&path).unwrap()).unwrap();
    assert!(refusal(open().build()).contains("is not writable"));
    assert!(open().read_only(true).build().is_ok());
}

#[test]
fn a_file_that_is_replaced_before_the_vm_is_built_is_refused() {
    let directory = Directory::new();
    let path = directory.file("disk", 4096);
    let disk = Disk::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    directory.file("disk", 4096);
    assert!(refusal(disk.build()).contains("was replaced"));
}

#[test]
fn what_is_written_to_is_given_once() {
    let directory = Directory::new();
    let path = directory.file("disk", 4096);
    let open = |read_only| Disk::open(&path).unwrap().read_only(read_only);
    let writer = open(false).build().unwrap();
    assert!(refusal(open(false).build()).contains("only one may write"));
    assert!(refusal(open(true).build()).contains("in use for writing"));
    drop(writer);
    let readers = [retry(|| open(true).build()), open(true).build().unwrap()];
    assert!(refusal(open(false).build()).contains("only one may write"));
    drop(readers);
    retry(|| open(false).build());
}

#[test]
fn two_names_of_one_file_have_one_identity() {
    let directory = Directory::new();
    let path = directory.file("disk", 4096);
    std::fs::hard_link(&path, directory.path("hard")).unwrap();
    std::os::unix::fs::symlink(&path, directory.path("soft")).unwrap();
    let identity = |path: &Path| Disk::open(path).unwrap().identity().unwrap();
    assert_eq!(identity(&path), identity(&directory.path("hard")));
    assert_eq!(identity(&path), identity(&directory.path("soft")));
    assert_ne!(identity(&path), identity(&directory.file("other", 4096)));
}

#[test]
fn a_serial_number_that_is_too_long_is_refused_when_the_vm_is_built() {
    let disk = || Disk::from_file(memory_disk(4096)).unwrap();
    assert!(disk().serial("12345678901234567890").build().is_ok());
    let error = disk().serial("123456789012345678901").build().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[test]
#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn a_block_device_has_its_size_and_one_identity() {
    let directory = Directory::new();
    let image = directory.file("image", 1 << 20);
    let losetup = std::process::Command::new("losetup").args(["--find", "--show"]).arg(&image).output();
    let Some(output) = losetup.ok().filter(|output| output.status.success()) else {
        return eprintln!("skipped: no loop device can be made here (it takes root and losetup)");
    };
    let device = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let disk = || Disk::open(&device).unwrap();
    let (capacity, identity) = (disk().read_only(true).into_backend(), disk().identity());
    let capacity = capacity.map(|(_, info)| info.capacity);
    let built = disk().build().map(drop);
    let twice = [disk().build(), disk().build()].map(|disk| disk.is_ok());
    std::process::Command::new("losetup").arg("--detach").arg(&device).status().unwrap();
    assert_eq!(capacity.unwrap(), 1 << 20);
    assert!(matches!(identity.unwrap(), Some(Identity::BlockDevice(_))));
    built.unwrap();
    assert_eq!(twice, [true, false], "given twice for writing");
}

#[test]
fn direct_io_is_refused_for_files_that_it_does_not_fit() {
    let directory = Directory::new();
    let buffered = File::options().read(true).write(true).open(directory.file("buffered", 4096)).unwrap();
    let message = refusal(Disk::from_file(buffered).unwrap().direct(true).build());
    assert!(message.contains("was opened without O_DIRECT"), "{message}");
    let path = directory.file("uneven", 3 * 512);
    let alignment = crate::sys::direct_alignment(&File::open(&path).unwrap());
    let built = Disk::open(&path).unwrap().direct(true).build();
    if alignment.offset > 512 {
        let message = refusal(built);
        assert!(message.contains("needs a multiple of"), "{message}");
    } else {
        built.unwrap();
    }
}

#[test]
fn a_file_that_is_only_appended_to_is_refused() {
    let directory = Directory::new();
    let path = directory.file("appended", 4096);
    let open = || File::options().read(true).append(true).open(&path).unwrap();
    let message = refusal(Disk::from_file(open()).unwrap().build());
    assert!(message.contains("O_APPEND"), "{message}");
    assert!(FileBackend::new(open()).is_err());
}

#[test]
fn a_disk_that_goes_with_reads_in_flight_gives_its_file_back() {
    let path = tempfile::NamedTempFile::new_in(build_folder()).unwrap().into_temp_path();
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    let io_thread = IoThread::new("io").unwrap();
    for _ in 0..20 {
        let memory = patterned_memory(4 << 20);
        let device = Disk::open(&path).unwrap().direct(true).into_device().expect("the file is free");
        let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), &io_thread).unwrap());
        let mut queue = DriverQueue::new(&memory, GuestAddress(0x1_0000), 256);
        driver.bring_up(driver.offered(), &[&queue]);
        memory.write(GuestAddress(0x8000), &[0; 16]).unwrap();
        for slot in 0..64 {
            let data = Buffer::writable(0x10_0000 + slot * 4096, 4096);
            queue.offer(&[Buffer::readable(0x8000, 16), data, Buffer::writable(0x9000 + slot, 1)]);
        }
        driver.kick(0);
        while queue.used_index() == 0 {
            std::hint::spin_loop();
        }
    }
}
