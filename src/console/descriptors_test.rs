//! Every kind of descriptor as a console, in both directions: it works, the other side is silent, full or gone. Meanwhile the
//! I/O thread serves others, and the end comes soon.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, mkfifoat};

use super::rig_test::{Ends, KINDS, Kind, Port, terminal, until};
use super::*;

fn output(fd: &OwnedFd) -> Console {
    Console::descriptors(fd.try_clone().unwrap(), None)
}

fn input(fd: &OwnedFd) -> Console {
    Console::descriptors(File::options().write(true).open("/dev/null").unwrap().into(), Some(fd.try_clone().unwrap()))
}

/// Each kind, as it is by default and non-blocking; `check` gets the end that is the console's, the other one, and their name.
fn each(console_writes: bool, mut check: impl FnMut(OwnedFd, OwnedFd, &str)) {
    for kind in KINDS {
        for flags in [OFlags::empty(), OFlags::NONBLOCK] {
            let Ends { from, to } = kind.ends();
            let (ours, theirs) = if console_writes { (from, to) } else { (to, from) };
            fcntl_setfl(&ours, flags).unwrap();
            let watched = ours.try_clone().unwrap();
            let before = fcntl_getfl(&watched).unwrap();
            let what = format!("{kind:?} with {flags:?}");
            check(ours, theirs, &what);
            assert_eq!(fcntl_getfl(&watched).unwrap(), before, "{what}: its flags");
        }
    }
}

#[test]
fn output_arrives_at_every_kind_of_descriptor() {
    each(true, |ours, theirs, what| {
        let mut port = Port::new(output(&ours));
        let mut theirs = File::from(theirs);
        for line in [&b"one\n"[..], b"two\n"] {
            port.print(line);
            let mut bytes = [0; 4];
            theirs.read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, line, "{what}");
        }
        until("it is counted", || port.status().delivered == 8);
        port.ends_soon(what);
    });
}

#[test]
fn output_that_nobody_takes_holds_up_neither_others_nor_the_end() {
    each(true, |ours, theirs, what| {
        let mut port = Port::new(output(&ours));
        until(what, || {
            port.print(&[b'x'; 16 << 10]);
            port.status().dropped > 0
        });
        port.serves_others(what);
        port.ends_soon(what);
        drop(theirs);
    });
}

#[test]
fn output_goes_on_when_a_reader_that_had_stopped_reads_again() {
    each(true, |ours, theirs, what| {
        let mut port = Port::new(output(&ours));
        until(what, || {
            port.print(&[b'x'; 16 << 10]);
            port.status().dropped > 0
        });
        port.print(b"the end");
        let mut theirs = File::from(theirs);
        let mut seen = Vec::new();
        until(what, || {
            let mut bytes = [0; 4096];
            let count = theirs.read(&mut bytes).unwrap();
            seen.extend_from_slice(&bytes[..count]);
            seen.ends_with(b"the end")
        });
        until("it is counted", || port.status().waiting == 0);
        port.ends_soon(what);
    });
}

#[test]
fn output_whose_reader_is_gone_is_lost_and_counted() {
    each(true, |ours, theirs, what| {
        let mut port = Port::new(output(&ours));
        drop(theirs);
        until(what, || {
            port.print(b"lost");
            // What no terminal is open for is kept by the kernel until one is.
            port.status().lost > 0 || what.starts_with("Master")
        });
        if what.starts_with("Master") {
            until(what, || {
                port.print(&[b'x'; 16 << 10]);
                port.status().dropped > 0
            });
            port.serves_others(what);
            return port.ends_soon(what);
        }
        let error = port.status().last_error.unwrap();
        assert!(error.chain().starts_with("cannot write the console's output to descriptor "), "{error:?}");
        port.print(b"lost as well");
        until(what, || port.status().waiting == 0);
        assert_eq!(port.status().delivered % 4, 0, "{what}");
        port.serves_others(what);
        port.ends_soon(what);
    });
}

#[test]
fn input_arrives_from_every_kind_of_descriptor() {
    each(false, |ours, theirs, what| {
        let mut port = Port::new(input(&ours));
        let mut theirs = File::from(theirs);
        for keys in [&b"keys"[..], b"more"] {
            theirs.write_all(keys).unwrap();
            assert_eq!(port.typed(4), keys, "{what}");
        }
        port.ends_soon(what);
    });
}

#[test]
fn much_input_arrives_whole_however_slowly_the_guest_reads() {
    each(false, |ours, theirs, what| {
        let mut port = Port::new(input(&ours));
        let sent: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let mut theirs = File::from(theirs);
        let text = sent.clone();
        let writer = std::thread::spawn(move || {
            text.chunks(1000).for_each(|piece| theirs.write_all(piece).unwrap());
            theirs
        });
        assert_eq!(port.typed(sent.len()), sent, "{what}");
        writer.join().unwrap();
        port.ends_soon(what);
    });
}

#[test]
fn input_that_is_silent_holds_up_neither_others_nor_the_end() {
    each(false, |ours, theirs, what| {
        let mut port = Port::new(input(&ours));
        port.serves_others(what);
        port.ends_soon(what);
        drop(theirs);
    });
}

#[test]
fn input_at_its_end_holds_up_neither_others_nor_the_end() {
    each(false, |ours, theirs, what| {
        let mut port = Port::new(input(&ours));
        File::from(theirs).write_all(b"last").unwrap();
        // A terminal forgets what is in it when its master goes.
        if !what.starts_with("Master") {
            assert_eq!(port.typed(4), b"last", "{what}");
        }
        port.serves_others(what);
        port.ends_soon(what);
    });
}

#[test]
fn two_consoles_that_read_one_descriptor_hold_up_nobody() {
    each(false, |ours, theirs, what| {
        let mut ports = [Port::new(input(&ours)), Port::new(input(&ours))];
        let mut theirs = File::from(theirs);
        let (mut sent, mut typed) = (0, 0);
        // Each key wakes both, and one of them comes too late.
        until(what, || {
            if sent < 100 {
                theirs.write_all(b"k").unwrap();
                sent += 1;
            }
            typed += ports.iter().map(|port| port.typed(0).len()).sum::<usize>();
            typed == 100
        });
        for port in &mut ports {
            port.serves_others(what);
            port.ends_soon(what);
        }
    });
}

#[test]
fn two_consoles_that_write_to_one_descriptor_hold_up_nobody() {
    each(true, |ours, theirs, what| {
        let mut ports = [Port::new(output(&ours)), Port::new(output(&ours))];
        let mut theirs = File::from(theirs);
        until(what, || {
            ports.iter().for_each(|port| port.print(&[b'x'; 16 << 10]));
            // Little enough that it is full again and again: what one finds writable, the other has filled.
            let _ = theirs.read(&mut [0; 4096]).unwrap();
            ports.iter().all(|port| port.status().dropped > 0)
        });
        for port in &mut ports {
            port.serves_others(what);
            port.ends_soon(what);
        }
        drop(theirs);
    });
}

#[test]
fn one_descriptor_may_be_both_output_and_input() {
    for kind in [Kind::Unix, Kind::Tcp, Kind::Master, Kind::Terminal] {
        let Ends { from, to } = kind.ends();
        let mut port = Port::new(Console::descriptors(from.try_clone().unwrap(), Some(from)));
        let mut theirs = File::from(to);
        port.print(b"login: ");
        let mut bytes = [0; 7];
        theirs.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"login: ", "{kind:?}");
        theirs.write_all(b"root").unwrap();
        assert_eq!(port.typed(4), b"root", "{kind:?}");
        port.ends_soon(&format!("{kind:?}"));
    }
}

#[test]
fn files_and_devices_are_written_to_and_read_to_their_end() {
    let file = tempfile::tempfile().unwrap();
    let mut port = Port::new(output(&file.try_clone().unwrap().into()));
    port.print(&[b'x'; 10_000]);
    until("the file is written", || port.status().delivered == 10_000);
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    port.ends_soon("a file");

    let mut read = tempfile::tempfile().unwrap();
    read.write_all(&[b'y'; 9000]).unwrap();
    std::io::Seek::rewind(&mut read).unwrap();
    let mut port = Port::new(input(&read.into()));
    assert_eq!(port.typed(9000), [b'y'; 9000]);
    port.serves_others("a file at its end");
    port.ends_soon("a file at its end");

    for device in ["/dev/null", "/dev/zero"] {
        let device = File::options().read(true).write(true).open(device).unwrap();
        let mut port = Port::new(Console::descriptors(device.try_clone().unwrap().into(), Some(device.into())));
        port.print(&[b'x'; 10_000]);
        until("the device takes it", || port.status().delivered == 10_000);
        port.serves_others("a device");
        port.ends_soon("a device");
    }
    let event: OwnedFd = crate::sys::EventFd::new().unwrap().as_fd().try_clone_to_owned().unwrap();
    let mut port = Port::new(Console::descriptors(event.try_clone().unwrap(), Some(event)));
    port.print(b"what an eventfd refuses");
    port.serves_others("an eventfd");
    port.ends_soon("an eventfd");
}

/// How long the thread of that name has run.
fn cpu_time(thread: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let is_it =
        |task: &std::path::Path| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread);
    let task = tasks.map(|task| task.unwrap().path()).find(|task| is_it(task)).unwrap();
    let schedstat = std::fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_reader_that_is_gone_costs_no_cpu() {
    let name = "console-cpu";
    let io_thread = IoThread::new(name).unwrap();
    let mut ports = Vec::new();
    each(true, |ours, theirs, _| {
        let port = Port::on(&io_thread, output(&ours));
        drop(theirs);
        port.print(b"lost");
        ports.push(port);
    });
    // Full first, and then gone: somebody waits for room that never comes.
    each(true, |ours, theirs, what| {
        let port = Port::on(&io_thread, output(&ours));
        until(what, || {
            port.print(&[b'x'; 16 << 10]);
            port.status().dropped > 0
        });
        drop(theirs);
        ports.push(port);
    });
    each(false, |ours, theirs, _| {
        ports.push(Port::on(&io_thread, input(&ours)));
        drop(theirs);
    });
    // Some try again once after a second.
    std::thread::sleep(Duration::from_millis(1500));
    let before = cpu_time(name);
    std::thread::sleep(Duration::from_secs(2));
    let spent = cpu_time(name) - before;
    assert!(spent < Duration::from_millis(100), "{spent:?} for {} consoles", ports.len());
}

#[test]
fn a_fifo_gets_another_reader_and_another_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let open = |read| {
        let mut options = File::options();
        options.read(read).write(!read).custom_flags(libc::O_NONBLOCK).open(&path).unwrap()
    };
    let first = open(true);
    let port = Port::new(output(&open(false).into()));
    drop(first);
    until("it is gone", || {
        port.print(b"lost");
        port.status().lost > 0
    });
    let mut second = open(true);
    let mut seen = String::new();
    until("the second reader reads", || {
        port.print(b"again");
        let _ = second.read_to_string(&mut seen);
        seen.contains("again")
    });
    drop(port);

    let port = Port::new(input(&second.into()));
    for keys in [b"one", b"two"] {
        open(false).write_all(keys).unwrap();
        assert_eq!(port.typed(3), keys);
    }
}

/// Says to the test below that it is the program that has a console on the terminal.
const IN_TERMINAL: &str = "VMCELL_TEST_IN_TERMINAL";

#[test]
fn a_key_typed_while_the_program_is_in_the_background_does_not_end_a_terminals_input() {
    if let Some(folder) = std::env::var_os(IN_TERMINAL) {
        return echo_into(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let Ends { from: master, to: terminal } = terminal();
    let program = std::env::current_exe().unwrap();
    // A shell with job control reads the first line; then the program has the terminal.
    let script = r#"set -m; "$0" --exact "$1" --nocapture & read line; echo "$line" > "$2/shell"; fg"#;
    let name = std::thread::current().name().unwrap().to_owned();
    let mut shell = std::process::Command::new("setsid")
        .args(["--ctty", "--wait", "sh", "-c", script])
        .args([program.as_os_str(), name.as_ref(), folder.path().as_os_str()])
        .env(IN_TERMINAL, folder.path())
        .stdin(terminal.try_clone().unwrap())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let mut keys = File::from(master);
    until("the program is there", || file("ready") == "ready");
    keys.write_all(b"shell\n").unwrap();
    until("the shell got its line", || file("shell") == "shell\n");
    until("the program is in the foreground and gets keys", || {
        keys.write_all(b"k").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        file("keys").contains('k')
    });
    std::fs::write(folder.path().join("stop"), "").unwrap();
    assert!(shell.wait().unwrap().success());
}

/// Writes the keys that reach the guest to a file, until it is told to stop.
fn echo_into(folder: &Path) {
    let port = Port::new(input(&std::io::stdin().as_fd().try_clone_to_owned().unwrap()));
    std::fs::write(folder.join("ready"), "ready").unwrap();
    let mut keys = File::create(folder.join("keys")).unwrap();
    while !folder.join("stop").exists() {
        while port.register(5) & 1 != 0 {
            keys.write_all(&[port.register(0)]).unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
