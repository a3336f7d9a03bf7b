#![allow(unsafe_code, reason = "makes processes of a single thread, and the system calls that must be refused")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use super::{Jail, JailLayer, JailLimit, JailReport};
use crate::error::ErrorKind;
use crate::sys::InheritedDescriptors;

/// Does something in a process of its own, which has a single thread, and gives the lines that it says. It must not panic.
fn alone(work: impl FnOnce() -> Vec<String>) -> Vec<String> {
    let (mut reader, mut writer) = io::pipe().unwrap();
    // SAFETY: the child uses no lock that another thread of this one may hold: the C library's heap is made for that, and nothing is
    // printed.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", io::Error::last_os_error());
    if child == 0 {
        drop(reader);
        let said = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| vec!["it panicked".to_owned()]);
        let _ = writer.write_all(said.join("\n").as_bytes());
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child ended by {status:#x} after {said:?}");
    said.lines().map(str::to_owned).collect()
}

/// What is said in a jail; nothing if the host has one of these layers not.
fn jailed(jail: Jail, layers: &[JailLayer], probe: impl FnOnce(&JailReport) -> Vec<String>) -> Option<Vec<String>> {
    const LACKS: &str = "the host lacks: ";
    let said = alone(|| match jail.enter() {
        Err(error) => vec![error.chain()],
        Ok(report) if layers.iter().all(|layer| report.has(*layer)) => probe(&report),
        Ok(report) => vec![format!("{LACKS}{report}")],
    });
    match said.first().and_then(|line| line.strip_prefix(LACKS)) {
        Some(lacks) => {
            // EPERM, EACCES, ENOSYS and ENOSPC.
            let refusals = ["os error 1)", "os error 13)", "os error 38)", "os error 28)", "the kernel has"];
            assert!(refusals.iter().any(|refusal| lacks.contains(refusal)), "{lacks}");
            skip(lacks);
            None
        }
        None => Some(said),
    }
}

#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// A jail with these layers alone.
fn only(layers: &[JailLayer]) -> Jail {
    const ALL: [JailLayer; 13] = [
        JailLayer::UserNamespace,
        JailLayer::NetworkNamespace,
        JailLayer::IpcNamespace,
        JailLayer::UtsNamespace,
        JailLayer::CgroupNamespace,
        JailLayer::EmptyRoot,
        JailLayer::NestedNamespaces,
        JailLayer::NewPrivileges,
        JailLayer::Files,
        JailLayer::Tcp,
        JailLayer::Outside,
        JailLayer::Capabilities,
        JailLayer::LookingIn,
    ];
    ALL.into_iter().filter(|layer| !layers.contains(layer)).fold(Jail::new(), Jail::without)
}

fn said<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn is(kind: Io) -> String {
    format!("{kind:?}")
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn become_nobody() {
    // SAFETY: the calls take numbers alone; the process has a single thread.
    unsafe {
        libc::setgroups(0, std::ptr::null());
        libc::setresgid(65534, 65534, 65534);
        libc::setresuid(65534, 65534, 65534);
        // As it is for a program that such a user has started.
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
    }
}

#[test]
fn a_process_with_two_threads_is_refused_and_stays_as_it_is() {
    let status = || fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| status().lines().find(|line| line.starts_with(name)).map(str::to_owned);
    let before = (line("NoNewPrivs"), line("CapEff"), fs::read_link("/proc/self/ns/user").unwrap());
    // The other one waits for the test that this one runs.
    let waits = std::thread::spawn(std::thread::park);
    let error = Jail::new().limit(JailLimit::CoreBytes, 0).enter().unwrap_err();
    waits.thread().unpark();
    waits.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    assert!(error.to_string().starts_with("a process with more than one thread cannot be jailed"), "{error}");
    assert_eq!(before, (line("NoNewPrivs"), line("CapEff"), fs::read_link("/proc/self/ns/user").unwrap()));
}

#[test]
fn a_thread_that_was_joined_does_not_count() {
    let said = alone(|| {
        for _ in 0..20 {
            std::thread::spawn(|| ()).join().unwrap();
            if let Err(error) = only(&[]).enter() {
                return vec![error.chain()];
            }
        }
        vec!["done".to_owned()]
    });
    assert_eq!(said, ["done"]);
}

#[test]
fn in_an_empty_root_there_is_nothing_and_nothing_can_be_made() {
    let layers = [JailLayer::UserNamespace, JailLayer::EmptyRoot];
    let probe = |_: &JailReport| {
        // A root that was put on another one, which is still there, has it behind `..`.
        let names = ["/", "/..", "."].map(|path| fs::read_dir(path).map(|entries| entries.count()).ok());
        let ring = ring_opens(c"/etc/passwd");
        vec![format!("{names:?}"), said(File::open("/etc/passwd")), said(File::create("/new")), ring]
    };
    for is_plain in [false, true] {
        let enter = || {
            if is_plain {
                become_nobody();
            }
            match only(&layers).enter() {
                Err(error) => vec![error.chain()],
                Ok(report) if report.is_complete() => probe(&report),
                Ok(report) => vec!["lacks".to_owned(), report.to_string()],
            }
        };
        let found = alone(enter);
        if found.first().is_some_and(|line| line == "lacks") {
            skip(&found.join(" "));
            continue;
        }
        let no_ring = ["no ring".to_owned(), is(Io::NotFound)];
        assert_eq!(
            found[..3],
            ["[Some(0), Some(0), Some(0)]".to_owned(), is(Io::NotFound), is(Io::ReadOnlyFilesystem)]
        );
        assert!(no_ring.contains(&found[3]), "{found:?}");
    }
}

/// What a ring says that is to open a file.
fn ring_opens(path: &std::ffi::CStr) -> String {
    let Ok(mut ring) = io_uring::IoUring::new(2) else { return "no ring".to_owned() };
    let open = io_uring::opcode::OpenAt::new(io_uring::types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
    // SAFETY: the path outlives the operation, which is waited for.
    unsafe { ring.submission().push(&open) }.unwrap();
    ring.submit_and_wait(1).unwrap();
    let result = ring.completion().next().unwrap().result();
    if result >= 0 { "done".to_owned() } else { format!("{:?}", io::Error::from_raw_os_error(-result).kind()) }
}

/// Of a folder that is kept to be read and one that is kept to be written, what can be done there and elsewhere.
fn uses_of(readable: &Path, writable: &Path, outside: &Path) -> Vec<String> {
    let (old, new) = (writable.join("log"), writable.join("log.1"));
    vec![
        said(fs::read(readable.join("file"))),
        said(OpenOptions::new().write(true).open(readable.join("file"))),
        said(File::create(readable.join("new"))),
        said(OpenOptions::new().append(true).create(true).open(&old)),
        said(fs::rename(&old, &new)),
        said(fs::read(&new)),
        said(fs::remove_file(&new)),
        said(fs::read(outside)),
    ]
}

#[test]
fn what_is_kept_is_where_it_was_and_may_be_used_as_far_as_it_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let [readable, writable] = ["readable", "writable"].map(|name| folder.path().join(name));
    let [outside, single] = ["outside", "single"].map(|name| folder.path().join(name));
    for made in [&readable, &writable] {
        fs::create_dir(made).unwrap();
    }
    for file in [&readable.join("file"), &outside, &single] {
        fs::write(file, "text").unwrap();
    }
    let expected = |write, outside| {
        let (done, write): (String, String) = ("done".to_owned(), write);
        let used =
            [done.clone(), write.clone(), write, done.clone(), done.clone(), done.clone(), done.clone(), outside];
        used.into_iter().chain([done]).collect::<Vec<_>>()
    };
    let cases = [
        (
            &[JailLayer::NewPrivileges, JailLayer::Files][..],
            expected(is(Io::PermissionDenied), is(Io::PermissionDenied)),
        ),
        (&[JailLayer::UserNamespace, JailLayer::EmptyRoot], expected(is(Io::ReadOnlyFilesystem), is(Io::NotFound))),
    ];
    for (layers, expected) in cases {
        let jail = only(layers).keep(&readable).keep_writable(&writable).keep(&single);
        let used = jailed(jail, layers, |_| {
            let mut used = uses_of(&readable, &writable, &outside);
            used.push(said(fs::read(&single)));
            used
        });
        assert!(used.as_ref().is_none_or(|used| *used == expected), "{layers:?}: {used:?}");
    }
    let kept = only(&[JailLayer::UserNamespace, JailLayer::EmptyRoot, JailLayer::NewPrivileges, JailLayer::Files]);
    let both = [JailLayer::EmptyRoot, JailLayer::Files];
    let used = jailed(kept.keep_writable(&writable), &both, |_| uses_of(&writable, &writable, &outside)[3..7].to_vec());
    assert!(used.as_ref().is_none_or(|used| *used == ["done"; 4]), "{used:?}");
}

/// A folder with a file in it, each of which is kept, in either order.
#[test]
fn a_file_that_is_kept_with_its_folder_keeps_what_is_in_it_and_its_own_rights() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let layers = [JailLayer::UserNamespace, JailLayer::EmptyRoot];
    let uses = |_: &JailReport| {
        let append = OpenOptions::new().append(true).open(&file);
        vec![said(append), fs::read_to_string(&file).unwrap_or_default(), said(File::create(folder.path().join("new")))]
    };
    let jails = [
        (true, false, only(&layers).keep_writable(folder.path()).keep(&file)),
        (true, false, only(&layers).keep(&file).keep_writable(folder.path())),
        (false, true, only(&layers).keep(folder.path()).keep_writable(&file)),
        (false, true, only(&layers).keep_writable(&file).keep(&file).keep(folder.path())),
    ];
    for (writes_folder, writes_file, jail) in jails {
        fs::write(&file, "text").unwrap();
        let may = |may| if may { "done".to_owned() } else { is(Io::ReadOnlyFilesystem) };
        let expected = [may(writes_file), "text".to_owned(), may(writes_folder)];
        let used = jailed(jail, &layers, uses);
        assert!(used.as_ref().is_none_or(|used| *used == expected), "{used:?}, not {expected:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
}

#[test]
fn an_empty_root_that_cannot_be_had_leaves_all_paths_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let [inside, link] = ["inside", "inside/link"].map(|name| folder.path().join(name));
    fs::create_dir(&inside).unwrap();
    fs::write(folder.path().join("file"), "text").unwrap();
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    let layers = [JailLayer::UserNamespace, JailLayer::EmptyRoot];
    for kept in [link.clone(), link.join("file"), "/".into()] {
        let left = jailed(only(&layers).keep(&inside).keep(kept), &layers[..1], |report| {
            // Tests run in a folder that has this file.
            let paths = ["/proc/self/status".into(), "Cargo.toml".into(), folder.path().join("file")];
            let reads = paths.map(|path: std::path::PathBuf| said(fs::read(path)));
            [report.to_string()].into_iter().chain(reads).collect()
        });
        let Some(left) = left else { return };
        assert!(left[0].starts_with("without an empty root (the") && left[0].contains("kept"), "{left:?}");
        assert_eq!(left[1..], ["done"; 3]);
    }
}

#[test]
fn a_path_that_cannot_be_kept_is_refused_before_anything_changes() {
    for (path, why) in [("relative", "absolute"), ("/etc/../etc", "without .."), ("/not/there", "cannot be found")] {
        let said = alone(|| {
            let entered = Jail::new().keep(path).enter();
            // SAFETY: takes plain numbers alone.
            let gave_up = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) };
            vec![entered.map_or_else(|e| e.to_string(), |_| "entered".to_owned()), gave_up.to_string()]
        });
        assert!(
            said[0].starts_with(&format!("{path} is to be kept in a jail, and ")) && said[0].contains(why),
            "{said:?}"
        );
        assert_eq!(said[1], "0");
    }
}

#[test]
fn landlock_opens_no_file_neither_by_a_call_nor_by_a_ring() {
    let layers = [JailLayer::NewPrivileges, JailLayer::Files];
    let opened = File::open("/proc/self/status").unwrap();
    let refused = jailed(only(&layers), &layers, |_| {
        let mut text = [0; 4];
        vec![
            said(File::open("/etc/passwd")),
            ring_opens(c"/etc/passwd"),
            said(fs::write("/tmp/vmcell-new", "")),
            said((&opened).read_exact(&mut text)),
        ]
    });
    let Some(refused) = refused else { return };
    let denied = is(Io::PermissionDenied);
    assert_eq!((&refused[0], &refused[2], refused[3].as_str()), (&denied, &denied, "done"));
    assert!([denied, "no ring".to_owned()].contains(&refused[1]), "{refused:?}");
}

#[test]
fn landlock_lets_no_tcp_and_no_signal_out() {
    let layers = [JailLayer::NewPrivileges, JailLayer::Tcp, JailLayer::Outside];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let name = SocketAddr::from_abstract_name(format!("vmcell-jail-{}", std::process::id())).unwrap();
    let _local = UnixListener::bind_addr(&name).unwrap();
    let probe = || {
        // SAFETY: asks whether a signal could be sent.
        let signal = check(unsafe { libc::kill(libc::getppid(), 0) });
        let binds = TcpListener::bind("127.0.0.1:0");
        vec![said(TcpStream::connect(address)), said(binds), said(UnixStream::connect_addr(&name)), said(signal)]
    };
    assert_eq!(alone(probe), ["done"; 4]);
    let Some(refused) = jailed(only(&layers), &layers, |_| probe()) else { return };
    // A port of 0 is bound to none that was named, and is forbidden as well.
    assert_eq!(
        refused,
        [is(Io::PermissionDenied), is(Io::PermissionDenied), is(Io::PermissionDenied), is(Io::PermissionDenied)]
    );
}

#[test]
fn in_a_network_namespace_there_is_no_network() {
    let layers = [JailLayer::UserNamespace, JailLayer::NetworkNamespace];
    let send = || vec![said(UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", "127.0.0.1:9")))];
    assert_eq!(alone(send), ["done"]);
    let refused = jailed(only(&layers), &layers, |_| send());
    assert!(refused.as_ref().is_none_or(|refused| *refused == [is(Io::NetworkUnreachable)]), "{refused:?}");
}

#[test]
fn each_namespace_is_another_one_and_no_further_user_namespace_can_be_made() {
    let names = ["user", "net", "ipc", "uts", "cgroup"];
    let links = || names.map(|name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap());
    let before = links();
    let layers = [
        JailLayer::UserNamespace,
        JailLayer::NetworkNamespace,
        JailLayer::IpcNamespace,
        JailLayer::UtsNamespace,
        JailLayer::CgroupNamespace,
        JailLayer::NestedNamespaces,
    ];
    // SAFETY: takes plain numbers alone; the process has a single thread.
    let nested = || check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }).map_err(|e| e.raw_os_error());
    let others = jailed(only(&layers), &layers, |_| {
        let same = names.into_iter().zip(links()).zip(&before).filter(|((_, now), before)| now == *before);
        let same: Vec<_> = same.map(|((name, _), _)| name).collect();
        // SAFETY: takes nothing and cannot fail.
        let user = unsafe { libc::geteuid() };
        vec![format!("{same:?}"), format!("{:?}", nested()), user.to_string()]
    });
    // SAFETY: takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    let expected = ["[]".to_owned(), format!("{:?}", Err::<(), _>(Some(libc::ENOSPC))), user.to_string()];
    assert!(others.as_ref().is_none_or(|others| *others == expected), "{others:?}");
}

#[test]
fn without_any_namespace_capabilities_go_and_nobody_looks_in() {
    let layers = [JailLayer::NewPrivileges, JailLayer::Capabilities, JailLayer::LookingIn];
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let is_root = status.lines().any(|line| line.starts_with("CapEff:") && !line.ends_with("0000000000000000"));
    let now = jailed(only(&layers), &layers, |_| {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let wanted = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];
        let lines = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
        let mut lines: Vec<_> = lines.map(|line| line.replace(char::is_whitespace, "")).collect();
        // SAFETY: takes plain numbers alone.
        lines.push(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }.to_string());
        // SAFETY: the name is a text of this length; the call is refused.
        lines.push(said(check(unsafe { libc::sethostname(c"name".as_ptr(), 4) })));
        lines
    });
    let Some(now) = now else { return };
    let names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    for (name, line) in names.into_iter().zip(&now) {
        // A process without privileges cannot change what programs could get, if they could get anything.
        assert!(*line == format!("{name}:0000000000000000") || name == "CapBnd" && !is_root, "{now:?}");
    }
    assert_eq!(now[5..], ["NoNewPrivs:1".to_owned(), "0".to_owned(), is(Io::PermissionDenied)]);
}

#[test]
fn inherited_descriptors_are_closed_but_for_those_that_are_named_or_our_own() {
    let made = || File::open("/dev/null").unwrap();
    let (own, inherited, named) = (made(), made(), made());
    let said = alone(|| {
        for file in [&inherited, &named] {
            // SAFETY: the descriptor is open.
            let _ = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
        }
        // SAFETY: what the child uses from now on is close-on-exec, or named.
        let closes = unsafe { InheritedDescriptors::except([named.as_raw_fd()]) };
        match only(&[]).close(closes).enter() {
            Err(error) => vec![error.chain()],
            Ok(report) if !report.has(JailLayer::Descriptors) => vec![report.to_string()],
            Ok(_) => {
                // SAFETY: asks about descriptors.
                let is_open = |file: &File| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) } >= 0;
                [&own, &inherited, &named].map(|file| is_open(file).to_string()).to_vec()
            }
        }
    });
    assert_eq!(said, ["true", "false", "true"]);
}

#[test]
fn limits_hold_and_one_that_cannot_be_had_is_reported() {
    let limited =
        only(&[]).limit(JailLimit::OpenFiles, 64).limit(JailLimit::FileBytes, 8192).limit(JailLimit::CoreBytes, 0);
    let said = jailed(limited, &[JailLayer::Limits], |_| {
        let files: Vec<_> = (0..64).map(|_| File::open("/dev/null")).collect();
        let error = files.into_iter().find_map(Result::err);
        vec![format!("{:?}", error.and_then(|e| e.raw_os_error()))]
    });
    assert_eq!(said, Some(vec![format!("{:?}", Some(libc::EMFILE))]));
    let said = alone(|| {
        become_nobody();
        let first = only(&[]).limit(JailLimit::OpenFiles, 32).enter();
        let second = only(&[]).limit(JailLimit::OpenFiles, 64).limit(JailLimit::CoreBytes, 0);
        let second = second.limit(JailLimit::FileBytes, 4096).limit(JailLimit::FileBytes, 8192).enter();
        [first, second].map(|report| report.map_or_else(|e| e.chain(), |report| report.to_string())).to_vec()
    });
    let refused = "without the limits of resources (OpenFiles cannot be 64: Operation not permitted (os error 1); it is 32 now, \
                   FileBytes cannot be 8192: Operation not permitted (os error 1); it is 4096 now)";
    assert_eq!(said, ["", refused]);
}

#[test]
fn a_limit_of_open_files_costs_no_other_layer() {
    let reports = [Jail::new(), Jail::new().limit(JailLimit::OpenFiles, 3)]
        .map(|jail| alone(|| vec![jail.enter().map_or_else(|e| e.chain(), |report| report.to_string())]));
    assert_eq!(reports[0], reports[1]);
}

/// As in a container whose root may lock memory, and may not raise limits.
#[test]
fn memory_is_locked_by_the_capability_for_that_if_the_limit_cannot_be_raised() {
    let said = alone(|| {
        let limit = libc::rlimit { rlim_cur: 65536, rlim_max: 65536 };
        // SAFETY: the pointer is valid for the call.
        let _ = check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) });
        // What is left of root here can lock, and change namespaces, and nothing else.
        let header = [0x2008_0522_u32, 0];
        let (lock, admin) = (1_u32 << 14, 1_u32 << 21);
        let sets = [lock | admin, lock | admin, 0, 0, 0, 0];
        // SAFETY: the pointers are valid for the call, which reads a header and two sets.
        let limited = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
        let report = Jail::new().limit(JailLimit::LockedBytes, 1 << 20).enter().unwrap();
        let area = vec![1_u8; 1 << 20];
        // SAFETY: the range is the vector's.
        let locked = check(unsafe { libc::mlock(area.as_ptr().cast(), area.len()) });
        let missing = report.missing().map(|(layer, _)| layer).collect::<Vec<_>>();
        vec![limited.to_string(), said(locked), format!("{missing:?}")]
    });
    if said[0] != "0" {
        return skip("only root has capabilities to keep");
    }
    assert_eq!(said[1], "done", "{said:?}");
    assert!(said[2].contains("UserNamespace") && said[2].contains("Capabilities"), "{said:?}");
    assert!(!said[2].contains("Limits"), "{said:?}");
}

/// As in a container whose root has no capabilities, and as AppArmor does to programs without a profile.
#[test]
fn a_user_namespace_in_which_the_user_would_get_no_number_is_missing_and_the_process_stays_out_of_it() {
    let said = alone(|| {
        let header = [0x2008_0522_u32, 0];
        let (mut sets, setfcap) = ([0_u32; 6], 1 << 31);
        // SAFETY: the pointers are valid for the calls, which read a header, and write and read two sets.
        let limited = unsafe {
            libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr());
            sets[0] &= !setfcap;
            sets[1] &= !setfcap;
            libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr())
        };
        let namespace = || fs::read_link("/proc/self/ns/user").ok();
        let before = namespace();
        let entered = only(&[JailLayer::UserNamespace]).enter().map(|report| report.to_string());
        // SAFETY: takes nothing and cannot fail.
        let user = unsafe { libc::geteuid() };
        let is_same = before == namespace();
        vec![limited.to_string(), entered.unwrap_or_else(|e| e.chain()), user.to_string(), is_same.to_string()]
    });
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return skip("only root has capabilities to lack one");
    }
    assert_eq!(said[0], "0");
    assert_eq!(said[1..], ["without a user namespace (Operation not permitted (os error 1))", "0", "true"]);
}

#[test]
fn capabilities_that_programs_may_give_are_not_said_to_be_gone() {
    let said = alone(|| {
        become_nobody();
        let entered = only(&[JailLayer::Capabilities]).enter().map(|report| report.to_string());
        vec![entered.unwrap_or_else(|e| e.chain())]
    });
    let reason = "without dropped capabilities (programs may give some, without a ban on new privileges)";
    assert_eq!(said, [reason]);
}

/// As in a container whose runtime forbids namespaces, and to ask how many threads there are.
#[test]
fn a_host_without_namespaces_is_reported_and_the_other_layers_hold() {
    let said = alone(|| {
        become_nobody();
        let no_namespaces = [(libc::SYS_unshare, Vec::new())];
        let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let filter = SeccompFilter::new(no_namespaces.into(), SeccompAction::Allow, refuse, TargetArch::x86_64);
        apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
        match Jail::new().enter() {
            Err(error) => vec![error.chain()],
            Ok(report) => {
                let missing: Vec<_> = report.missing().map(|(layer, _)| layer).collect();
                let rest = [JailLayer::NewPrivileges, JailLayer::Capabilities, JailLayer::LookingIn];
                let files = !report.has(JailLayer::Files) || File::open("/etc/passwd").is_err();
                vec![
                    format!("{:?}", &missing[..7.min(missing.len())]),
                    rest.iter().all(|layer| report.has(*layer)).to_string(),
                    files.to_string(),
                    report.to_string(),
                ]
            }
        }
    });
    let missing =
        "[UserNamespace, NetworkNamespace, IpcNamespace, UtsNamespace, CgroupNamespace, NestedNamespaces, EmptyRoot]";
    assert_eq!(said[..3], [missing, "true", "true"]);
    assert!(said[3].starts_with("without a user namespace, a network namespace, "), "{said:?}");
}

#[test]
fn a_process_that_has_changed_its_user_has_no_user_namespace_and_stays_whole() {
    let said = alone(|| {
        become_nobody();
        // SAFETY: takes plain numbers alone.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        let missing = only(&[JailLayer::UserNamespace]).enter().map(|report| report.to_string());
        // SAFETY: takes nothing and cannot fail.
        vec![missing.unwrap_or_else(|e| e.chain()), unsafe { libc::geteuid() }.to_string()]
    });
    // SAFETY: takes nothing and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    assert!(!is_root || said[0] == "without a user namespace (Permission denied (os error 13))", "{said:?}");
    assert!(!is_root || said[1] == "65534", "{said:?}");
}

#[test]
fn a_thread_of_the_jail_starts_others_that_are_in_it_as_well() {
    let everything = alone(|| match Jail::new().enter() {
        Err(error) => vec![error.chain()],
        Ok(report) => {
            let opened = std::thread::spawn(|| File::open("/etc/passwd").is_ok()).join();
            vec![opened.is_ok_and(|opened| opened).to_string(), report.has(JailLayer::NewPrivileges).to_string()]
        }
    });
    if everything[0] == "true" {
        skip("the host has neither namespaces nor Landlock");
    }
    assert_eq!(everything[1], "true");
}
