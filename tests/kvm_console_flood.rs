//! A guest that floods its console, on every kind of descriptor at once, none of which is read: nobody else notices.

mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::pipe::fcntl_setpipe_size;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use support::{Kernel, Transcript, tiny};
use vmcell::testing::TinyGuest;
use vmcell::{Console, IoThread, SinkStatus, Status};

const LIMIT: Duration = Duration::from_secs(60);
/// For hosts that are emulated, or shared with others.
const SLACK: u32 = 10;
const TURN: Duration = Duration::from_millis(2);
const STOP: Duration = Duration::from_millis(100);
const MEMORY_KIB: u64 = 1024;

fn writing(path: &str) -> OwnedFd {
    File::options().write(true).open(path).unwrap().into()
}

/// What the console writes to, by its kind, and the other ends, which nobody reads.
fn ends(folder: &std::path::Path) -> (Vec<(&'static str, OwnedFd)>, Vec<OwnedFd>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::<OwnedFd>::new());
    // Small ones, since a guest that is emulated takes long for more.
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    ours.push(("pipe", writer.into()));
    theirs.push(reader.into());
    let fifo = folder.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    theirs.push(File::options().read(true).write(true).open(&fifo).unwrap().into());
    let writer = writing(fifo.to_str().unwrap());
    fcntl_setpipe_size(&writer, 4096).unwrap();
    ours.push(("FIFO", writer));
    let (one, other) = UnixStream::pair().unwrap();
    ours.push(("stream socket", one.into()));
    theirs.push(other.into());
    let (one, other) = UnixDatagram::pair().unwrap();
    ours.push(("datagram socket", one.into()));
    theirs.push(other.into());
    for (kind, is_slave) in [("terminal", true), ("pseudo-terminal", false)] {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let slave: OwnedFd = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap().into();
        let (one, other) = if is_slave { (slave, master) } else { (master, slave) };
        ours.push((kind, one));
        theirs.push(other);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    ours.push(("pipe whose reader is gone", writer.into()));
    ours.push(("full device", writing("/dev/full")));
    ours.push(("file", File::create(folder.join("file")).unwrap().into()));
    (ours, theirs)
}

/// The process's own memory; a guest's RAM counts, but these guests touch next to none of it.
fn own_memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_flood_into_every_kind_of_descriptor_at_once_holds_up_nobody() {
    let (flood, echo) = (Kernel::new(&TinyGuest::flood(b'x')), Kernel::new(&TinyGuest::echo()));
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = ends(folder.path());
    let shared = IoThread::new("shared").unwrap();
    let transcript = Transcript::default();
    let neighbour = tiny(&echo).io_thread(shared.clone()).console(transcript.console()).build().unwrap();
    neighbour.start().unwrap();
    let mut kinds = Vec::new();
    let mut console = Console::none();
    for (kind, fd) in ours {
        kinds.push(kind);
        console = console.also(Console::descriptors(fd, None));
    }
    let vm = tiny(&flood).io_thread(shared.clone()).console(console).build().unwrap();
    let before = own_memory_kib();
    shared.measure_turns();
    vm.start().unwrap();
    // Until each has lost something, but for the file, which takes all of it, and the sockets, which take much.
    const TAKE_MORE: usize = 3;
    let is_stuck = |sink: &SinkStatus| sink.dropped > 0 || sink.lost > 0 || sink.last_error.is_some();
    let (begin, mut typed) = (Instant::now(), 0);
    loop {
        let status = vm.console_status();
        let stuck = status.sinks.iter().filter(|sink| is_stuck(sink)).count();
        // A guest that is emulated on a crowded host may not come as far; what it has written must have hurt nobody either.
        if stuck + TAKE_MORE >= kinds.len() || begin.elapsed() > LIMIT / 2 {
            assert!(
                status.sinks.iter().all(|sink| sink.delivered + sink.waiting + sink.lost > 0),
                "{kinds:?}: {:?}",
                status.sinks
            );
            break;
        }
        let sent = Instant::now();
        assert_eq!(neighbour.write_console(b"."), 1);
        typed += 1;
        assert!(transcript.wait_until(LIMIT, |text| text.len() >= typed), "the neighbour is not served");
        assert!(sent.elapsed() < SLACK * Duration::from_secs(1), "the neighbour waited for {:?}", sent.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    let (longest, grown) = (shared.longest_turn(), own_memory_kib().saturating_sub(before));
    assert!(longest < SLACK * TURN, "a turn took {longest:?} of CPU time");
    // Each of them keeps 64 KiB until it is taken.
    assert!(grown < MEMORY_KIB + 64 * kinds.len() as u64, "the monitor grew by {grown} KiB");
    assert_eq!((vm.status(), neighbour.status()), (Status::Running, Status::Running));
    let begin = Instant::now();
    vm.stop().unwrap();
    assert!(begin.elapsed() < SLACK * STOP, "stopping took {:?}", begin.elapsed());
    let begin = Instant::now();
    drop(vm);
    assert!(begin.elapsed() < SLACK * Duration::from_secs(1), "dropping took {:?}", begin.elapsed());
    drop(theirs);
}
