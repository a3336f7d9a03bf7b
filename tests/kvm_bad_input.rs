//! Images and hosts that a VM cannot be built from: refused by name, with what is allowed.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Kernel, tiny};
use vmcell::testing::TinyGuest;
use vmcell::{Boot, Disk, Error, ErrorKind, MemoryConfig, PageSize, Vm};

/// Refused within this time, whatever was given: nothing waits for a FIFO or loops in a file.
const SOON: Duration = Duration::from_secs(5);

fn refusal(boot: Boot) -> Error {
    let begin = Instant::now();
    let error = Vm::builder().memory_mib(64).boot(boot).build().expect_err("is refused");
    assert!(begin.elapsed() < SOON, "{:?} for {error:?}", begin.elapsed());
    error
}

fn assert_says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error:?}");
    for part in parts {
        assert!(error.chain().contains(part), "no {part:?} in {error:?}");
    }
}

fn refused_kernel(content: &[u8]) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("the-kernel");
    std::fs::write(&path, content).unwrap();
    let error = refusal(Boot::linux(&path));
    assert_says(&error, ErrorKind::BootImage, &["the-kernel"]);
    error
}

/// A tiny guest's image with `bytes` written over it at `offset`.
fn damaged(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = TinyGuest::spin().image();
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
    image
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_is_no_kernel_is_refused() {
    assert_says(&refusal(Boot::linux("/nonexistent/kernel")), ErrorKind::BootImage, &["/nonexistent/kernel"]);
    assert_says(&refusal(Boot::linux("/")), ErrorKind::BootImage, &["directory"]);
    assert_says(&refused_kernel(b""), ErrorKind::BootImage, &["empty"]);
    assert_says(&refused_kernel(b"#!/bin/sh\necho hello\n"), ErrorKind::BootImage, &["ELF", "bzImage"]);
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_says(&refusal(Boot::linux(&fifo)), ErrorKind::BootImage, &["fifo"]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn damaged_kernels_are_refused() {
    // Offsets of the ELF header: machine 18, entry 24; of the program header behind it: file size 32, memory size 40.
    assert_says(&refused_kernel(&damaged(18, &[183, 0])), ErrorKind::BootImage, &["183", "x86"]);
    assert_says(&refused_kernel(&damaged(24, &[0xff; 8])), ErrorKind::BootImage, &["entry"]);
    assert_says(&refused_kernel(&damaged(64 + 24, &[0xff; 8])), ErrorKind::BootImage, &["segment"]);
    assert_says(&refused_kernel(&damaged(64 + 32, &[0xff, 0xff])), ErrorKind::BootImage, &["segment"]);
    assert_says(&refused_kernel(&TinyGuest::spin().image()[..100]), ErrorKind::BootImage, &[]);
    let mut bzimage = vec![0; 0x400];
    bzimage[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    refused_kernel(&bzimage);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn an_initrd_that_does_not_fit_is_refused_with_what_would_do() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let directory = tempfile::tempdir().unwrap();
    let initrd = directory.path().join("the-initrd");
    std::fs::File::create(&initrd).unwrap().set_len(100 << 20).unwrap();
    let error = refusal(kernel.boot().initrd(&initrd));
    assert_says(&error, ErrorKind::BootImage, &["the-initrd", "MiB"]);
    // What the message says would do does.
    let text = error.to_string();
    let words: Vec<_> = text.split_whitespace().collect();
    let amounts = words.windows(2).filter(|pair| pair[1].starts_with("MiB")).filter_map(|pair| pair[0].parse().ok());
    let enough: u64 = amounts.max().expect("an amount of memory");
    Vm::builder().memory_mib(enough).boot(kernel.boot().initrd(&initrd)).build().expect("that much does");
    assert_says(&refusal(kernel.boot().initrd("/nonexistent/initrd")), ErrorKind::BootImage, &["/nonexistent/initrd"]);
    std::fs::write(&initrd, "").unwrap();
    assert_says(&refusal(kernel.boot().initrd(&initrd)), ErrorKind::BootImage, &["the-initrd", "empty"]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn command_lines_that_no_kernel_takes_are_refused() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let long = refusal(kernel.boot().cmdline("x".repeat(2048)));
    assert_says(&long, ErrorKind::BootImage, &["2048", "2047"]);
    let nul = refusal(kernel.boot().cmdline("quiet\0splash"));
    assert_says(&nul, ErrorKind::InvalidConfig, &["NUL", "5"]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_disk_is_locked_against_other_vms() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let open = || Disk::open(image.path()).unwrap();
    let first = tiny(&kernel).disk(open()).build().unwrap();
    for disk in [open(), open().read_only(true)] {
        let error = tiny(&kernel).disk(disk).build().expect_err("is refused");
        assert_says(&error, ErrorKind::Disk, &["in use", image.path().to_str().unwrap()]);
    }
    drop(first);
    let readers: Vec<_> =
        (0..3).map(|_| tiny(&kernel).disk(open().read_only(true)).build().expect("readers share")).collect();
    assert!(tiny(&kernel).disk(open()).build().is_err());
    drop(readers);
    tiny(&kernel).disk(open()).build().expect("the lock is gone with its VM");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn more_memory_than_the_host_has_is_refused() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let error = tiny(&kernel).memory_mib(1 << 20).build().expect_err("is refused");
    assert!(matches!(error.kind(), ErrorKind::HostMemory | ErrorKind::InvalidConfig), "{error:?}");
    assert!(error.to_string().contains("1048576 MiB"), "{error:?}");
    let free: u64 =
        std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap().trim().parse().expect("a number of pages");
    let memory = MemoryConfig::mib(16 + 2 * free).pages(PageSize::Huge2Mib);
    let error = tiny(&kernel).memory(memory).build().expect_err("is refused");
    assert_says(&error, ErrorKind::HostMemory, &["2 MiB pages", "nr_hugepages"]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_device_node_that_is_not_kvm_is_refused() {
    let error = vmcell::kvm::Kvm::open_at(Path::new("/dev/zero")).err().expect("is refused");
    assert_says(&error, ErrorKind::KvmUnavailable, &["/dev/zero", "1:5", "10:232"]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_launcher_names_what_it_could_not_use_with_status_1() {
    let kernel = Kernel::new(&TinyGuest::power_off());
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.img");
    let output = support::launcher()
        .arg("--kernel")
        .arg(&kernel.path)
        .arg("--disk")
        .arg(&missing)
        .output()
        .expect("the launcher starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing.img"));
    let output = support::launcher().arg("--kernel").arg(&kernel.path).output().expect("the launcher starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
