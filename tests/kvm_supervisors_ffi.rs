//! The supervisors of `examples/`, in Rust, C and Go: many VMs, of which some crash a few times.

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use support::ffi::{Prefix, go, repository, run, valgrind};
use tempfile::TempDir;
use vmcell::testing::TinyGuest;

/// Even under valgrind, on a busy machine.
const SOON: Duration = Duration::from_secs(120);

/// Prints its command line as a line, and then looks at the last digit of its host name: 9 turns itself off, other odd ones halt, and
/// even ones crash.
fn moody() -> TinyGuest {
    TinyGuest::new([
        0x8b, 0xb6, 0x28, 0x02, 0x00, 0x00, // mov esi, [rsi + 0x228], the command line
        0x66, 0xba, 0xf8, 0x03, //             mov dx, 0x3f8
        0x8a, 0x06, //                         mov al, [rsi]
        0x84, 0xc0, //                         test al, al
        0x74, 0x06, //                         jz behind the loop
        0xee, //                               out dx, al
        0x48, 0xff, 0xc6, //                   inc rsi
        0xeb, 0xf4, //                         jmp to the load
        0xb0, b'\n', 0xee, //                  mov al, '\n'; out dx, al
        0x8a, 0x46, 0xff, //                   mov al, [rsi - 1]
        0x3c, b'9', 0x74, 0x07, //             cmp al, '9'; je to the power off
        0xa8, 0x01, 0x74, 0x0c, //             test al, 1; jz to the crash
        0xf4, 0xeb, 0xfd, //                   hlt; jmp to it
        0x66, 0xba, 0x00, 0x06, //             mov dx, 0x600
        0xb0, 0x34, 0xee, 0xeb, 0xfe, //       mov al, SLP_EN | 5 << 2; out dx, al; spin
        0xbc, 0x00, 0x00, 0x20, 0x00, //       mov esp, 0x200000
        0x6a, 0x00, 0x6a, 0x00, //             push 0; push 0
        0x0f, 0x01, 0x1c, 0x24, //             lidt [rsp]
        0x48, 0x31, 0xc0, 0x48, 0xff, 0xc8, // xor rax, rax; dec rax
        0x8a, 0x00, //                         mov al, [rax]
    ])
}

/// Prints "calm", without the end of a line, and halts.
fn calm() -> TinyGuest {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    "calm".bytes().for_each(|byte| code.extend([0xb0, byte, 0xee])); // mov al, byte; out dx, al
    code.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp to it
    TinyGuest::new(code)
}

fn crashes(index: u32) -> bool {
    index.is_multiple_of(2)
}

fn turns_off(index: u32) -> bool {
    index % 10 == 9
}

/// How long a log is that is renamed.
const LONGEST_LOG: u64 = 16 << 20;

/// A supervisor that runs, with what it has said so far of each VM.
struct Supervisor {
    child: Child,
    folder: TempDir,
    lines: Receiver<String>,
    said: HashMap<String, Vec<String>>,
    begun: SystemTime,
}

impl Supervisor {
    /// Starts `program` with so many VMs that run `guest`. The first has an old log, which is too long.
    fn start(mut program: Command, vms: u32, guest: &TinyGuest) -> Self {
        let folder = tempfile::tempdir().unwrap();
        guest.write_to(folder.path().join("guest")).unwrap();
        fs::File::create(folder.path().join("vm-0.log")).unwrap().set_len(LONGEST_LOG).unwrap();
        program.args(["-n", &vms.to_string(), "-m", "16", "-c", "quiet", "-l"]).arg(folder.path());
        let begun = SystemTime::now();
        program.arg(folder.path().join("guest")).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = program.spawn().unwrap_or_else(|e| panic!("{program:?} does not start: {e}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, folder, lines, said: HashMap::new(), begun }
    }

    /// Replaces the guest, for VMs that are started from now on.
    fn replace(&self, guest: &TinyGuest) {
        let new = self.folder.path().join("new");
        guest.write_to(&new).unwrap();
        fs::rename(new, self.folder.path().join("guest")).unwrap();
    }

    /// What the log of a VM says, without the times, which are checked.
    fn log(&self, index: u32) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join(format!("vm-{index}.log"))).unwrap_or_default();
        let parse = |line: &str| {
            let (time, line) = line.split_at(24);
            let time = humantime::parse_rfc3339(time).unwrap_or_else(|e| panic!("{time:?}: {e}"));
            let tick = Duration::from_millis(1);
            assert!(time + tick > self.begun && time < SystemTime::now() + tick, "{time:?} {line:?}");
            line.strip_prefix(' ').expect("a space behind the time").to_owned()
        };
        text.lines().map(parse).collect()
    }

    fn said_of(&self, index: u32) -> &[String] {
        self.said.get(&format!("vm-{index}")).map(Vec::as_slice).unwrap_or_default()
    }

    fn starts(&self, index: u32) -> usize {
        self.said_of(index).iter().filter(|said| *said == "started").count()
    }

    fn hear(&mut self, line: &str) {
        let (name, what) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} names no VM"));
        self.said.entry(name.to_owned()).or_default().push(what.to_owned());
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < SOON, "{what}: {:?}, {:#?}", self.footprint(), self.said);
            if let Ok(line) = self.lines.recv_timeout(Duration::from_millis(20)) {
                self.hear(&line);
            }
        }
    }

    /// How many descriptors and threads it has. The kernel's own for each VM does not count.
    fn footprint(&self) -> (usize, usize) {
        let entries = |of| fs::read_dir(format!("/proc/{}/{of}", self.child.id())).unwrap().flatten();
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        (entries("fd").count(), entries("task").map(name).filter(|name| !name.starts_with("kvm-")).count())
    }

    /// Sends it a signal, by which it ends with 0.
    fn end(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut status = None;
        self.until("it ends", |this| {
            status = this.child.try_wait().unwrap();
            status.is_some()
        });
        while let Ok(line) = self.lines.recv() {
            self.hear(&line);
        }
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{:#?}", self.said);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is said of a VM that crashes so often and then calms down.
fn life_of_crashing(crashes: usize) -> Vec<String> {
    let crash = |count: u32| {
        let ended = "ended: the guest reset itself by a triple fault".to_owned();
        ["started".to_owned(), ended, format!("restarts in {} ms", 100 << count)]
    };
    let end = ["started", "ended: the VM was stopped"].map(str::to_owned);
    (0..).take(crashes).flat_map(crash).chain(end).collect()
}

/// Runs a supervisor of so many VMs that has at most so many `threads` of its own, if any number is told.
fn keeps_vms_running(program: impl Fn() -> Command, vms: u32, threads: Option<usize>) {
    let mut supervisor = Supervisor::start(program(), vms, &moody());
    let restarted =
        |this: &mut Supervisor| (0..vms).all(|index| this.starts(index) >= if crashes(index) { 4 } else { 1 });
    supervisor.until("those that crash are restarted", restarted);
    supervisor.replace(&calm());
    let is_calm = |this: &Supervisor, index| this.said_of(index).last().is_some_and(|said| said == "started");
    let logged = |this: &Supervisor, index| {
        let path = this.folder.path().join(format!("vm-{index}.log"));
        fs::read(path).is_ok_and(|log| log.ends_with(b"calm"))
    };
    supervisor.until("those that crash calm down", |this| {
        (0..vms).filter(|index| crashes(*index)).all(|index| is_calm(this, index) && logged(this, index))
    });

    // Another one that runs as many, and has never seen a crash, is as large.
    let running = (0..vms).filter(|index| !turns_off(*index)).count();
    let mut other = Supervisor::start(program(), running.try_into().unwrap(), &calm());
    other.until("the other one runs", |this| (0..running).all(|index| logged(this, index.try_into().unwrap())));
    let (descriptors, _) = other.footprint();
    supervisor.until("nothing is left of the VMs that crashed", |this| this.footprint().0 == descriptors);
    if let Some(most) = threads {
        // The library has a thread for the vCPU and one for I/O.
        supervisor.until("there is no thread for each VM", |this| this.footprint().1 <= 2 * running + most);
    }
    other.end(Signal::INT);
    supervisor.end(Signal::TERM);

    assert_eq!(fs::metadata(supervisor.folder.path().join("vm-0.log.1")).unwrap().len(), LONGEST_LOG);
    for index in 0..vms {
        let line = format!("quiet hostname=vm-{index}");
        let (said, log) = (supervisor.said_of(index), supervisor.log(index));
        if crashes(index) {
            let crashes = supervisor.starts(index) - 1;
            assert!((3..10).contains(&crashes));
            assert_eq!(said, life_of_crashing(crashes));
            assert_eq!(log, [vec![line; crashes], vec!["calm".to_owned()]].concat());
        } else {
            let end = if turns_off(index) { "ended: the guest turned itself off" } else { "ended: the VM was stopped" };
            assert_eq!((said, log), (["started".to_owned(), end.to_owned()].as_slice(), vec![line]));
        }
    }
}

/// A VM that cannot be started again for a while is tried again, later each time.
fn tries_again(program: impl Fn() -> Command) {
    let mut supervisor = Supervisor::start(program(), 1, &moody());
    supervisor.until("it crashes", |this| this.starts(0) >= 2);
    fs::remove_file(supervisor.folder.path().join("guest")).unwrap();
    let failures = |this: &mut Supervisor| {
        let failed = |said: &&String| said.starts_with("cannot be started: ") && said.contains("o such file");
        this.said_of(0).iter().filter(failed).count() >= 2
    };
    supervisor.until("it cannot be started", failures);
    supervisor.replace(&calm());
    let starts = supervisor.starts(0);
    supervisor.until("it is started again", |this| this.starts(0) > starts);
    supervisor.end(Signal::TERM);
    let delays = supervisor.said_of(0).iter().filter_map(|said| said.strip_prefix("restarts in "));
    let doubled: Vec<String> = (0..supervisor.said_of(0).len()).map(|count| format!("{} ms", 100 << count)).collect();
    assert!(delays.zip(&doubled).all(|(delay, doubled)| delay == doubled), "{:#?}", supervisor.said);
}

/// What all of them keep to.
fn refuses(program: impl Fn() -> Command) {
    let folder = tempfile::tempdir().unwrap();
    let guest = folder.path().join("guest");
    calm().write_to(&guest).unwrap();
    let run = |arguments: &[&str]| {
        let output = program().args(arguments).stdin(Stdio::null()).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let bad: [&[&str]; 7] = [
        &[],
        &["-n", "0", "guest"],
        &["-n", "many", "guest"],
        &["-m", "15", "guest"],
        &["-m", "lots", "guest"],
        &["-x", "guest"],
        &["guest", "stray"],
    ];
    for arguments in bad {
        let (status, said) = run(arguments);
        assert!(status == Some(2) && !said.is_empty(), "{arguments:?}: {status:?}, {said}");
    }
    for (arguments, named) in [(["-n", "2", "none"], "none"), (["-l", "no-such-folder", "guest"], "no-such-folder")] {
        let (status, said) = run(&arguments);
        assert!(status == Some(1) && said.starts_with("supervisor: ") && said.contains(named), "{status:?}, {said}");
        assert!(said.contains("o such file or directory"), "{said}");
    }
    assert_eq!(run(&["-h"]).0, Some(0));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_supervisor_in_rust_restarts_what_crashes_and_ends_when_it_is_told_to() {
    let program = support::built_example("supervisor");
    // tokio's own, and two that build VMs.
    keeps_vms_running(|| Command::new(&program), 20, Some(3));
    tries_again(|| Command::new(&program));
    refuses(|| Command::new(&program));
}

fn in_c(prefix: &Prefix, options: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut make = prefix.command("make");
    make.arg("-B").arg(format!("OUT={}", folder.path().display())).arg(format!("CFLAGS=-g {options}"));
    run(make.arg("-C").arg(repository("examples/c")).arg(folder.path().join("supervisor")));
    folder
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_supervisor_in_c_restarts_what_crashes_and_ends_when_it_is_told_to() {
    let prefix = Prefix::new();
    let folder = in_c(&prefix, "-O2 -Wshadow -Wconversion");
    let program = folder.path().join("supervisor");
    keeps_vms_running(|| prefix.command(&program), 20, Some(1));
    tries_again(|| prefix.command(&program));
    refuses(|| prefix.command(&program));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn valgrind_finds_neither_an_error_nor_a_leak_in_the_supervisor_in_c() {
    let prefix = Prefix::new();
    let folder = in_c(&prefix, "");
    let under = || {
        let mut under = valgrind().into_iter();
        let mut command = prefix.command(under.next().unwrap());
        // The thread that freed a VM may be on its last steps when the program ends.
        command.args(under).arg("--errors-for-leak-kinds=definite,indirect").arg(folder.path().join("supervisor"));
        command
    };
    keeps_vms_running(under, 4, None);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_supervisor_in_go_restarts_what_crashes_and_ends_when_it_is_told_to() {
    let (prefix, folder) = (Prefix::new(), tempfile::tempdir().unwrap());
    let program = folder.path().join("supervisor");
    run(go(&prefix, &["build", "-race", "-o"]).arg(&program).arg("./cmd/supervisor"));
    keeps_vms_running(|| prefix.command(&program), 20, None);
    tries_again(|| prefix.command(&program));
    refuses(|| prefix.command(&program));
}
