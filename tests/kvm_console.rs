//! Consoles of VMs that run: descriptors that used to stop a thread, files that are rotated, several sinks, the pair of halves.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use support::{Kernel, Transcript, tiny};
use vmcell::testing::TinyGuest;
use vmcell::{Console, ConsoleFile, Disk, ErrorKind, Exit, IoThread, Vm};

const LIMIT: Duration = Duration::from_secs(30);

fn ends_soon(vm: Vm) {
    let begin = Instant::now();
    drop(vm);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

fn null() -> std::os::fd::OwnedFd {
    fs::File::options().write(true).open("/dev/null").unwrap().into()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_silent_blocking_socket_as_input_holds_up_neither_its_vm_nor_another_one_on_its_thread() {
    // Reads the serial port's data register, which is empty, prints a letter, and spins.
    let reading = Kernel::new(&TinyGuest::new([
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, //                   in al, dx
        0xb0, b'r', //             mov al, 'r'
        0xee, //                   out dx, al
        0xeb, 0xfe, //             jmp to itself
    ]));
    let hello = Kernel::new(&TinyGuest::print("hello"));
    let shared = IoThread::new("shared").unwrap();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let has_read = Transcript::default();
    let console = Console::descriptors(null(), Some(ours.into())).also(has_read.console());
    let vm = tiny(&reading).io_thread(shared.clone()).console(console).build().unwrap();
    vm.start().unwrap();
    has_read.expect("r", LIMIT);
    let transcript = Transcript::default();
    let other = tiny(&hello).io_thread(shared).console(transcript.console()).build().unwrap();
    other.start().unwrap();
    transcript.expect("hello", LIMIT);
    ends_soon(vm);
    ends_soon(other);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_pair_talks_to_the_guest_and_ends_with_it() {
    let kernel = Kernel::new(&TinyGuest::echo());
    let (console, mut reader, mut writer) = Console::pair().unwrap();
    let vm = tiny(&kernel).console(console).build().unwrap();
    vm.start().unwrap();
    let text = "0123456789".repeat(500);
    let typed = text.clone();
    let typist = std::thread::spawn(move || {
        writer.write_all(typed.as_bytes()).unwrap();
        writer
    });
    let mut back = vec![0; text.len()];
    reader.read_exact(&mut back).unwrap();
    assert!(back == text.as_bytes());
    let mut writer = typist.join().unwrap();
    vm.stop().unwrap();
    assert_eq!(reader.read(&mut back).unwrap(), 0, "the VM is still there, but its guest has ended");
    let begin = Instant::now();
    while writer.write(b"x").is_ok() {
        assert!(begin.elapsed() < LIMIT);
    }
    assert_eq!(vm.console_status().sinks[0].delivered, text.len() as u64);
    ends_soon(vm);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_flood_into_a_limited_log_and_into_a_pipe_that_nobody_reads_stays_within_bounds() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let folder = tempfile::tempdir().unwrap();
    let log = ConsoleFile::new(folder.path().join("log")).rotate(4096, 2);
    let (_stuck, writer) = std::io::pipe().unwrap();
    // Guests are slow where KVM itself is emulated: no more than the library's own 64 KiB is needed.
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let console = Console::file(log).also(Console::descriptors(writer.into(), None));
    let vm = tiny(&kernel).console(console).build().unwrap();
    vm.start().unwrap();
    let begin = Instant::now();
    while vm.console_status().sinks[0].delivered < 20 << 10 || vm.console_status().sinks[1].dropped == 0 {
        assert!(begin.elapsed() < 4 * LIMIT, "{:?}", vm.console_status());
        std::thread::sleep(Duration::from_millis(10));
    }
    vm.stop().unwrap();
    let status = vm.console_status();
    assert_eq!((status.sinks[0].failed_rotations, status.lost()), (0, 0), "{status:?}");
    ends_soon(vm);
    let mut sizes: Vec<(String, u64)> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    sizes.sort();
    assert_eq!(sizes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["log", "log.1", "log.2"]);
    assert!(sizes.iter().all(|(_, size)| *size <= 4096), "{sizes:?}");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_launcher_writes_logs_beside_its_console() {
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    fs::write(&first, "old ").unwrap();
    fs::write(&second, "old ").unwrap();
    let log = format!("{},append,max=4096,keep=1", first.display());
    let output = support::launcher()
        .args(["--memory", "16", "--kernel"])
        .arg(&kernel.path)
        .arg("--log")
        .arg(log)
        .arg("--log")
        .arg(&second)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"hello");
    assert_eq!(fs::read_to_string(&first).unwrap(), "old hello");
    assert_eq!(fs::read_to_string(&second).unwrap(), "hello");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_build_that_is_refused_leaves_the_log_of_the_last_one() {
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    fs::write(&log, "the last one").unwrap();
    let console = Console::file(&log).also(Console::file(folder.path()));
    assert_eq!(fs::read_to_string(&log).unwrap(), "the last one", "a description opens nothing");
    let error = tiny(&kernel).vcpus(1000).console(console).build().unwrap_err();
    assert!(error.to_string().contains("1000 vCPUs"), "{error}");
    assert_eq!(fs::read_to_string(&log).unwrap(), "the last one");
    let error = tiny(&kernel).console(Console::file(folder.path())).build().unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open {} for the console's output", folder.path().display()));
    let vm = tiny(&kernel).console(Console::file(&log)).build().unwrap();
    vm.start().unwrap();
    assert!(matches!(vm.wait_timeout(LIMIT).unwrap(), Exit::Shutdown));
    assert_eq!(fs::read_to_string(&log).unwrap(), "hello");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_console_s_file_that_is_a_disk_or_what_the_vm_boots_is_refused_and_left_as_it_is() {
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("root.img"), [7; 4096]).unwrap();
    fs::write(at("initrd"), [8; 4096]).unwrap();
    std::os::unix::fs::symlink(at("root.img"), at("link")).unwrap();
    let refusal = |path: &std::path::Path| {
        let disk = Disk::open(at("root.img")).unwrap().read_only(true);
        let console = Console::file(at("log")).also(Console::file(ConsoleFile::new(path).append(true)));
        let builder = vmcell::Vm::builder().memory_mib(16).boot(kernel.boot().initrd(at("initrd")));
        let error = builder.disk(disk).console(console).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.to_string()
    };
    for (path, what) in [
        (at("root.img"), format!("disk 0 ({})", at("root.img").display())),
        (at("link"), format!("disk 0 ({})", at("root.img").display())),
        (at("initrd"), "the initrd".to_owned()),
        (kernel.path.clone(), "the kernel".to_owned()),
    ] {
        let expected = format!("the console's file {} is {what}, which the console would overwrite", path.display());
        assert_eq!(refusal(&path), expected);
    }
    assert_eq!((fs::read(at("root.img")).unwrap(), fs::read(at("initrd")).unwrap()), (vec![7; 4096], vec![8; 4096]));
    assert!(!at("log").exists(), "nothing was opened");
}
