#![allow(unsafe_code, reason = "makes the system calls that must be refused")]

use std::ffi::c_long;
use std::fs::File;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::panic::catch_unwind;
use std::process::{Command, ExitStatus, id};
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use super::{Kind, ThreadFilter, confine_this_thread};
use crate::config::Seccomp;
use crate::error::ErrorKind;
use crate::sys::{Attempt, Direction, Stream};
use crate::testing::has_uring;

const IO: Kind = Kind::Io { rotates: false, vsock: false, connects: false };
const ROTATING: Kind = Kind::Io { rotates: true, vsock: false, connects: false };
const SIGSYS: i32 = libc::SIGSYS;

/// Does something on a thread that may do no more than one of this kind.
fn confined<R: Send + 'static>(kind: Kind, seccomp: Seccomp, work: impl FnOnce() -> R + Send + 'static) -> R {
    thread::spawn(move || {
        ThreadFilter::new(kind, seccomp).unwrap().unwrap().apply().unwrap();
        work()
    })
    .join()
    .unwrap()
}

fn call(number: c_long, arguments: [c_long; 5]) -> io::Result<c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: none of the calls that the tests make is carried out, or it does nothing to memory.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn is_refused<T>(result: io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::ENOSYS))
}

#[test]
fn no_thread_of_a_vm_starts_a_process_or_opens_a_file_or_a_socket() {
    for kind in [Kind::Vcpu, IO, Kind::Control] {
        let refused = confined(kind, Seccomp::Refuse, || {
            [
                is_refused(Command::new("/bin/true").status()),
                is_refused(File::open("/etc/passwd")),
                is_refused(UdpSocket::bind("127.0.0.1:0")),
                is_refused(TcpListener::bind("127.0.0.1:0")),
            ]
        });
        assert_eq!(refused, [true; 4], "{kind:?}");
    }
}

#[test]
fn no_thread_of_a_vm_reaches_other_processes_or_the_system() {
    let this = c_long::from(id());
    let calls = [
        ("execve", libc::SYS_execve, [0; 5]),
        ("fork", libc::SYS_fork, [0; 5]),
        ("vfork", libc::SYS_vfork, [0; 5]),
        ("clone", libc::SYS_clone, [c_long::from(libc::SIGCHLD), 0, 0, 0, 0]),
        ("clone3", libc::SYS_clone3, [0; 5]),
        ("ptrace", libc::SYS_ptrace, [0, this, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [this, 0, 0, 0, 0]),
        ("kill", libc::SYS_kill, [this, 0, 0, 0, 0]),
        ("tgkill of another process", libc::SYS_tgkill, [1, 1, 0, 0, 0]),
        ("socket", libc::SYS_socket, [1, 1, 0, 0, 0]),
        ("connect", libc::SYS_connect, [-1, 0, 0, 0, 0]),
        ("sendmsg", libc::SYS_sendmsg, [-1, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [0; 5]),
        ("unshare", libc::SYS_unshare, [0; 5]),
        ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [-1, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0; 5]),
        ("open", libc::SYS_open, [0; 5]),
        ("openat2", libc::SYS_openat2, [-1, 0, 0, 0, 0]),
        ("memfd_create", libc::SYS_memfd_create, [0; 5]),
        ("prctl", libc::SYS_prctl, [c_long::from(libc::PR_SET_DUMPABLE), 1, 0, 0, 0]),
        ("ioctl of a terminal", libc::SYS_ioctl, [-1, 0x5412, 0, 0, 0]),
        ("mmap of what can be executed", libc::SYS_mmap, [0, 4096, c_long::from(libc::PROT_EXEC), 0, -1]),
        ("mprotect of what can be executed", libc::SYS_mprotect, [0, 0, c_long::from(libc::PROT_EXEC), 0, 0]),
    ];
    for kind in [Kind::Vcpu, IO, ROTATING, Kind::Control] {
        for (name, number, arguments) in calls {
            let result = confined(kind, Seccomp::Refuse, move || call(number, arguments));
            assert!(is_refused(result), "{kind:?} may call {name}");
        }
    }
}

#[test]
fn a_ring_takes_no_more_than_another_file_once_the_filter_is_there() {
    for operation in (0..32).filter(|operation| *operation != 6) {
        let result = confined(IO, Seccomp::Refuse, move || call(libc::SYS_io_uring_register, [-1, operation, 0, 0, 0]));
        assert!(is_refused(result), "operation {operation}");
    }
    let updated = confined(IO, Seccomp::Refuse, || call(libc::SYS_io_uring_register, [-1, 6, 0, 0, 0]));
    assert!(!is_refused(updated) || !has_uring());
}

#[test]
fn a_helper_is_started_and_is_as_confined_as_its_thread() {
    let refused = confined(IO, Seccomp::Refuse, || thread::spawn(|| is_refused(File::open("/"))).join().unwrap());
    assert!(refused);
}

#[test]
fn only_a_vsock_with_a_path_makes_unix_sockets_and_connects_them() {
    let (unix, internet) = (c_long::from(libc::AF_UNIX), c_long::from(libc::AF_INET));
    let may = |kind, number, family| {
        !is_refused(confined(kind, Seccomp::Refuse, move || call(number, [family, -1, 0, 0, 0])))
    };
    let inside = Kind::Io { rotates: false, vsock: true, connects: false };
    let outside = Kind::Io { rotates: false, vsock: true, connects: true };
    for (kind, pairs, sockets) in
        [(IO, false, false), (inside, true, false), (outside, true, true), (Kind::Control, true, false)]
    {
        assert_eq!(may(kind, libc::SYS_socketpair, unix), pairs, "{kind:?}");
        assert_eq!(may(kind, libc::SYS_socket, unix), sockets, "{kind:?}");
        assert_eq!(may(kind, libc::SYS_connect, -1), sockets, "{kind:?}");
        assert!(!may(kind, libc::SYS_socketpair, internet) && !may(kind, libc::SYS_socket, internet), "{kind:?}");
    }
}

#[test]
fn only_a_thread_that_rotates_logs_opens_files_and_to_write_logs_alone() {
    let folder = tempfile::tempdir().unwrap();
    let opened = |kind| {
        let path = folder.path().join("log");
        confined(kind, Seccomp::Refuse, move || {
            let log = File::options().append(true).create(true).open(&path);
            let others = [File::options().read(true).append(true).create(true).open(&path), File::create(&path)];
            [log.is_ok(), others.iter().any(Result::is_ok), File::open("/").is_ok()]
        })
    };
    assert_eq!([Kind::Vcpu, IO].map(opened), [[false; 3]; 2]);
    assert_eq!(opened(ROTATING), [true, false, false]);
}

#[test]
fn no_page_of_the_host_is_taken_out_of_use() {
    for advice in [libc::MADV_HWPOISON, libc::MADV_SOFT_OFFLINE] {
        let advised = confined(IO, Seccomp::Refuse, move || call(libc::SYS_madvise, [0, 0, advice.into(), 0, 0]));
        assert!(is_refused(advised), "{advice}");
    }
}

#[test]
fn nothing_is_filtered_unless_it_is_asked_for() {
    assert!(ThreadFilter::new(Kind::Vcpu, Seccomp::Off).unwrap().is_none());
}

/// Runs one of these tests once more, in a process of its own that may end, and says how that ended. There, this does `work`.
fn alone(test: &str, work: impl FnOnce()) -> Option<ExitStatus> {
    const INNER: &str = "VMCELL_TEST_ALONE";
    if std::env::var_os(INNER).is_some() {
        work();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("confine::filter_test::{test}")]).env(INNER, "1").env("RUST_BACKTRACE", "full");
    Some(command.output().unwrap().status)
}

#[test]
fn a_thread_that_keeps_vms_starts_threads_that_are_filtered_further_and_no_thread_of_a_vm_is_filtered_twice() {
    let work = || {
        confined(Kind::Control, Seccomp::Kill, || {
            let filters = |kind| ThreadFilter::new(kind, Seccomp::Kill).unwrap().unwrap();
            let started = crate::sys::spawn("vcpu", move || {
                filters(Kind::Vcpu).apply().unwrap();
                assert_eq!(filters(Kind::Vcpu).apply().unwrap_err().kind(), ErrorKind::InvalidState);
                assert_eq!(confine_this_thread(Seccomp::Kill).unwrap_err().kind(), ErrorKind::InvalidState);
                assert_eq!(crate::sys::filtered(), crate::sys::Filtered::AsVm);
            });
            started.unwrap().join();
            assert_eq!(crate::sys::filtered(), crate::sys::Filtered::AsControl);
            confine_this_thread(Seccomp::Off).unwrap();
        });
    };
    let name =
        "a_thread_that_keeps_vms_starts_threads_that_are_filtered_further_and_no_thread_of_a_vm_is_filtered_twice";
    if let Some(status) = alone(name, work) {
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_call_that_kills_ends_the_process() {
    let work = || confined(Kind::Vcpu, Seccomp::Kill, || drop(UdpSocket::bind("127.0.0.1:0")));
    if let Some(status) = alone("a_call_that_kills_ends_the_process", work) {
        assert_eq!(status.signal(), Some(SIGSYS), "{status}");
    }
}

/// The C library then looks in a file whether the host overcommits memory.
#[test]
fn a_thread_that_frees_much_memory_is_not_killed() {
    let work = || {
        for kind in [Kind::Vcpu, IO, ROTATING, Kind::Control] {
            confined(kind, Seccomp::Kill, || drop((0..1000).map(|_| vec![1_u8; 60_000]).collect::<Vec<_>>()));
        }
    };
    if let Some(status) = alone("a_thread_that_frees_much_memory_is_not_killed", work) {
        assert!(status.success(), "{status}");
    }
}

/// The standard library then reads the program's own file, and the names of its sources.
#[test]
fn a_panic_that_prints_where_it_was_kills_nothing() {
    let work = || {
        for kind in [Kind::Vcpu, IO, ROTATING, Kind::Control] {
            let caught = confined(kind, Seccomp::Kill, || catch_unwind(|| panic!("on purpose")).is_err());
            assert!(caught);
        }
    };
    if let Some(status) = alone("a_panic_that_prints_where_it_was_kills_nothing", work) {
        assert!(status.success(), "{status}");
    }
}

/// As on a host before Linux 6.4.
#[test]
fn a_pipe_that_cannot_be_asked_not_to_wait_is_written_and_read() {
    let work = || {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Stream::new(writer.as_fd(), Direction::FromUs).unwrap();
        let mut input = Stream::new(reader.as_fd(), Direction::ToUs).unwrap();
        let moved = thread::spawn(move || {
            let no_flags = [libc::SYS_preadv2, libc::SYS_pwritev2].map(|number| (number, Vec::new()));
            let refuse = SeccompAction::Errno(libc::EOPNOTSUPP.unsigned_abs());
            let old = SeccompFilter::new(no_flags.into(), SeccompAction::Allow, refuse, TargetArch::x86_64).unwrap();
            apply_filter(&BpfProgram::try_from(old).unwrap()).unwrap();
            ThreadFilter::new(IO, Seccomp::Kill).unwrap().unwrap().apply().unwrap();
            let mut bytes = [0; 8];
            (output.try_write(b"bytes").unwrap(), input.try_read(&mut bytes).unwrap())
        });
        assert_eq!(moved.join().unwrap(), (Attempt::Moved(5), Attempt::Moved(5)));
    };
    if let Some(status) = alone("a_pipe_that_cannot_be_asked_not_to_wait_is_written_and_read", work) {
        assert!(status.success(), "{status}");
    }
}
