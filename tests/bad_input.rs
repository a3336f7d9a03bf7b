//! Every bad value in a configuration is refused with an error that says what, and what is allowed. No KVM needed.

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use vmcell::{Boot, Disk, Error, ErrorKind, MemoryConfig, Nic, PageSize, Vm, VmBuilder};

fn refusal(builder: VmBuilder) -> Error {
    builder.build().expect_err("is refused")
}

fn builder() -> VmBuilder {
    Vm::builder().boot(Boot::linux("/nonexistent/kernel"))
}

/// The kind must be right, and the message name each of the parts.
fn assert_says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error:?}");
    for part in parts {
        assert!(error.chain().contains(part), "no {part:?} in {error:?}");
    }
}

#[test]
fn a_vm_without_a_kernel_is_refused() {
    assert_says(&refusal(Vm::builder()), ErrorKind::InvalidConfig, &["no kernel was given"]);
}

#[test]
fn vcpus_out_of_range_are_refused() {
    assert_says(&refusal(builder().vcpus(0)), ErrorKind::InvalidConfig, &["0 vCPUs", "1 to 64"]);
    assert_says(&refusal(builder().vcpus(65)), ErrorKind::InvalidConfig, &["65 vCPUs", "1 to 64"]);
}

#[test]
fn memory_out_of_range_is_refused() {
    for mib in [0, 15, 1 << 21, u64::MAX] {
        let mib_text = format!("{mib} MiB");
        assert_says(&refusal(builder().memory_mib(mib)), ErrorKind::InvalidConfig, &[&mib_text, "16 to"]);
    }
    let odd = MemoryConfig::mib(17).pages(PageSize::Huge2Mib);
    assert_says(&refusal(builder().memory(odd)), ErrorKind::InvalidConfig, &["17 MiB", "even"]);
}

#[test]
fn more_devices_than_interrupt_lines_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let full = (0..20).fold(builder(), |builder, number| {
        let path = file_of(&directory, &format!("disk{number}"), 512);
        builder.disk(Disk::open(path).unwrap())
    });
    assert_says(&refusal(full), ErrorKind::InvalidConfig, &["20 disks", "allowed are 19"]);
}

fn file_of(directory: &TempDir, name: &str, len: u64) -> PathBuf {
    let path = directory.path().join(name);
    File::create(&path).unwrap().set_len(len).unwrap();
    path
}

fn disk_refusal(path: &Path) -> Error {
    Disk::open(path).expect_err("is refused")
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert_says(&disk_refusal(&missing), ErrorKind::Disk, &["missing", "No such file"]);
    assert_says(&disk_refusal(directory.path()), ErrorKind::Disk, &["is a directory", "regular files"]);
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_says(&disk_refusal(&fifo), ErrorKind::Disk, &["is a FIFO", "regular files"]);
    assert_says(&disk_refusal(Path::new("/dev/null")), ErrorKind::Disk, &["is a character device"]);
    assert_says(&disk_refusal(&file_of(&directory, "empty", 0)), ErrorKind::Disk, &["is empty"]);
    assert_says(&disk_refusal(&file_of(&directory, "small", 511)), ErrorKind::Disk, &["511 bytes", "512"]);
}

#[test]
fn a_disk_given_twice_for_writing_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = file_of(&directory, "image", 4096);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let open = |path: &Path| Disk::open(path).unwrap();
    let twice = builder().disk(open(&path)).disk(open(&link).read_only(true));
    let error = refusal(twice);
    assert_says(&error, ErrorKind::InvalidConfig, &["may be given once"]);
    let names = [format!("disk 1 ({}) is the same file", link.display()), format!("disk 0 ({})", path.display())];
    assert_says(&error, ErrorKind::InvalidConfig, &names.each_ref().map(String::as_str));
}

#[test]
fn tap_names_that_no_device_has_are_refused() {
    let refused = |name: &str| Nic::tap(name).expect_err("is refused");
    assert_says(&refused("a-name-of-16-byt"), ErrorKind::InvalidConfig, &["a-name-of-16-byt", "15"]);
    assert_says(&refused(""), ErrorKind::InvalidConfig, &["15"]);
    assert_says(&refused("a/b"), ErrorKind::InvalidConfig, &["a/b"]);
    assert_says(&refused("no-such-tap"), ErrorKind::Network, &["no-such-tap", "ip tuntap add"]);
}

#[test]
fn polling_for_longer_than_a_millisecond_is_refused() {
    let polling = |limit| refusal(builder().polling(limit));
    let long = polling(Duration::from_micros(1001));
    assert_says(&long, ErrorKind::InvalidConfig, &["polling for 1001 us", "allowed are 0 to 1000"]);
    assert_says(&polling(Duration::MAX), ErrorKind::InvalidConfig, &["allowed are 0 to 1000"]);
    // It is the kernel that is missing now.
    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        assert_eq!(polling(limit).kind(), ErrorKind::BootImage);
    }
}

#[test]
fn the_help_of_the_launcher_says_what_its_status_means() {
    let output = support::launcher().arg("--help").output().expect("the launcher starts");
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(
        help.contains("\nExit status: 0 the guest shut down or reset itself; 1 it failed; 2 bad arguments.\n"),
        "{help}"
    );
}

#[test]
fn the_launcher_refuses_bad_arguments_with_status_2() {
    let kernel = ["--kernel", "/nonexistent/kernel"];
    for (arguments, parts) in [
        (&["--no-such-flag"][..], &["--no-such-flag"][..]),
        (&[], &["--kernel"]),
        (&["--kernel"], &["a value is required", "--kernel"]),
        (&["--kernel", "x", "--vcpus", "many"], &["many", "--vcpus"]),
        (&["--kernel", "x", "--vcpus"], &["--vcpus"]),
        (&["--kernel", "x", "--memory", "1G"], &["1G", "--memory"]),
        (&["--kernel", "x", "--memory", "-1"], &["-1"]),
        (&["--kernel", "x", "--disk", "a,rw"], &["rw", "ro"]),
        (&["--kernel", "x", "--disk", "a,engine=aio"], &["engine=aio", "engine=uring", "engine=sync", "direct"]),
        (&["--kernel", "x", "--disk", ",ro"], &["missing"]),
        (&["--kernel", "x", "--tap", "t,mac=12:34"], &["12:34", "02:00:00:00:00:01"]),
        (&["--kernel", "x", "--tap", "t,queues=17"], &["'17'", "1 to 16"]),
        (&["--kernel", "x", "--tap", "t,queue=2"], &["queue=2", "mac=XX", "queues=N"]),
        (&["--kernel", "x", "--network", ""], &["is no name of a network"]),
        (&["--kernel", "x", "--network", "a-"], &["'a-' is no name of a network", "1 to 63 letters"]),
        (&["--kernel", "x", "--network", "a.b"], &["'a.b'", "letters, digits and hyphens"]),
        (&["--kernel", "x", "--network", "a,path=/tmp"], &["unknown network option 'path=/tmp'", "socket=PATH"]),
        (&["--kernel", "x", "--network", "a,socket="], &["'socket=' has no path"]),
        (&["--kernel", "x", "--network", "a", "--network", "b"], &["--network", "multiple times"]),
        (&["--kernel", "x", "--network", "a", "--snapshot-to", "b"], &["--network", "--snapshot-to"]),
        (
            &[kernel[0], kernel[1], "--network", "a,socket=/nonexistent/a"],
            &["/nonexistent/a", "cannot be made", "No such file"],
        ),
        (&[kernel[0], kernel[1], "--network", "a,socket=/tmp"], &["the folder /tmp cannot be that of a network"]),
        (&[kernel[0], kernel[1], "--network", "a,socket=Cargo.toml"], &["Cargo.toml", "it is no folder"]),
        (&["--kernel", "x", "--discovery", "guess"], &["guess", "acpi", "cmdline"]),
        (&["--kernel", "x", "--console", ""], &["stdio"]),
        (&["--kernel", "x", "--log", "l,size=1"], &["size=1", "append", "max=BYTES", "keep=N"]),
        (&["--kernel", "x", "--log", "l,max=much"], &["max=much", "without a unit"]),
        (&["--kernel", "x", "--log", "l,keep=-1"], &["keep=-1", "0 to 4294967295"]),
        (&["--kernel", "x", "--rng", "all"], &["'all'", "unlimited", "BYTES[,burst=BYTES]"]),
        (&["--kernel", "x", "--rng", "1024,peak=64"], &["unknown rng option 'peak=64'", "burst=BYTES"]),
        (&["--kernel", "x", "--rng", "1024,burst=64k"], &["'burst=64k'", "without a unit"]),
        (&[kernel[0], kernel[1], "--metadata", "Cargo.toml"], &["Cargo.toml: metadata is not JSON"]),
        (&[kernel[0], kernel[1], "--metadata", "examples/vm.json"], &["--metadata", "without the --tap"]),
        (&[kernel[0], kernel[1], "--metadata", "/dev/zero", "--tap", "t"], &["/dev/zero", "1048576 bytes"]),
        (&["--kernel", "x", "--balloon", "64M"], &["'64M'", "no number of MiB"]),
        (&["--kernel", "x", "--balloon", "1,oom=on"], &["'oom=on'", "deflate-on-oom=on|off", "statistics=SECONDS"]),
        (&["--kernel", "x", "--balloon", "1,statistics=x"], &["'statistics=x'", "0 to 86400"]),
        (&[kernel[0], kernel[1], "--balloon", "129"], &["balloon", "129 MiB", "0 to 128 MiB"]),
        (&[kernel[0], kernel[1], "--balloon", "0", "--pages", "2mib"], &["balloon", "pages of 2 MiB"]),
        (&["--kernel", "x", "--log", "l,max=100"], &["l was asked to be limited to 100 bytes", "4096 or more"]),
        (&[kernel[0], kernel[1], "--vcpus", "0"], &["0 vCPUs", "1 to 64"]),
        (&[kernel[0], kernel[1], "--memory", "1"], &["1 MiB", "16"]),
    ] {
        let output = support::launcher().args(arguments).output().expect("the launcher starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        for part in parts {
            assert!(text.contains(part), "{arguments:?}: no {part:?} in {text}");
        }
    }
}
