//! virtio-vsock with Linux's driver: Python's sockets and socat in the guest.

mod support;

#[path = "../examples/exec/client.rs"]
mod client;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::linux::{BOOT_LIMIT, ENTER_ROOT, LinuxGuest, RunningGuest, initrd_with, path_of, root_disk};
use vmcell::{ErrorKind, VsockConfig};

const BEGIN: &str = "for module in /spare/*vsock*.ko; do insmod $module; done";

/// What each Python program begins with.
const PYTHON: &str = r#"
import socket, select
def listen(port):
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, port))
    listener.listen(512)
    print("listens on", port, flush=True)
    return listener
def connect(port):
    stream = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    stream.connect((2, port))
    return stream
"#;

fn start(script: &str, vsock: VsockConfig) -> RunningGuest {
    let script = format!("{BEGIN}\n{script}");
    LinuxGuest::in_distribution(&script).start(|builder| builder.disk(root_disk()).vsock(vsock))
}

/// A guest that runs a Python program.
fn python(program: &str, vsock: VsockConfig) -> RunningGuest {
    start(&format!("cat > /root/tmp/test.py <<'END'\n{PYTHON}{program}\nEND\nin_root python3 /tmp/test.py"), vsock)
}

fn connect(guest: &RunningGuest, port: u32) -> UnixStream {
    guest.vm.vsock().unwrap().connect_timeout(port, BOOT_LIMIT).unwrap()
}

/// A hundred megabytes that do not repeat soon.
fn noise() -> impl Iterator<Item = Vec<u8>> {
    let mut state = 1u64;
    (0..100).map(move |_| {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        (0..250_000).flat_map(|_| next().to_le_bytes()).collect()
    })
}

/// Of all bytes, as the guest makes it.
fn checksum(all: impl Iterator<Item = Vec<u8>>) -> (u64, u32) {
    all.fold((0, 1), |(len, sum), piece| {
        let (mut a, mut b) = (sum & 0xffff, sum >> 16);
        for byte in &piece {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        (len + piece.len() as u64, b << 16 | a)
    })
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_hundred_megabytes_go_both_ways_and_arrive_as_they_were() {
    let program = r#"
import zlib
stream = listen(5000).accept()[0]
size, check, all = 0, 1, []
while piece := stream.recv(1 << 16):
    size, check = size + len(piece), zlib.adler32(piece, check)
    all.append(piece)
    if len(all) == 16:
        stream.sendall(b"".join(all))
        all = []
stream.sendall(b"".join(all))
stream.close()
print("the guest has", size, check)
"#;
    let guest = python(program, VsockConfig::new(3));
    guest.expect("listens on 5000");
    let mut stream = connect(&guest, 5000);
    let mut sender = stream.try_clone().unwrap();
    let sent = std::thread::spawn(move || {
        noise().for_each(|piece| sender.write_all(&piece).unwrap());
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut pieces = Vec::new();
    loop {
        let mut piece = vec![0; 1 << 20];
        match stream.read(&mut piece).unwrap() {
            0 => break,
            len => piece.truncate(len),
        }
        pieces.push(piece);
    }
    sent.join().unwrap();
    let (size, sum) = checksum(noise());
    assert_eq!(checksum(pieces.into_iter()), (size, sum));
    assert_eq!(size, 100_000_000);
    let counters = guest.vm.metrics().devices[1].clone();
    assert_eq!((counters.name.as_str(), counters.counters["bytes_to_guest"]), ("vsock0", size));
    let text = guest.finish();
    assert!(text.contains(&format!("the guest has {size} {sum}")), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn five_hundred_connections_at_once_are_served() {
    let program = r#"
listener = listen(5000)
poll, streams, seen = select.poll(), {}, 0
poll.register(listener, select.POLLIN)
while seen < 500 or streams:
    for fd, _ in poll.poll():
        if fd == listener.fileno():
            stream = listener.accept()[0]
            streams[stream.fileno()] = stream
            poll.register(stream, select.POLLIN)
            seen += 1
            continue
        piece = streams[fd].recv(4096)
        if piece:
            streams[fd].sendall(piece)
        else:
            poll.unregister(fd)
            streams.pop(fd).close()
back = [connect(6000) for _ in range(500)]
for number, stream in enumerate(back):
    stream.sendall(b"%d" % number)
    stream.shutdown(socket.SHUT_WR)
print("sum", sum(int(stream.recv(100)) for stream in back))
"#;
    // Each connection has two ends in this process.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the limit is raised");
    let guest = python(program, VsockConfig::new(3));
    guest.expect("listens on 5000");
    let vsock = guest.vm.vsock().unwrap();
    let listener = vsock.listen(6000).unwrap();
    let mut streams: Vec<_> = (0..500).map(|_| vsock.connect(5000).unwrap()).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(format!("number {number}").as_bytes()).unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("number {number}"));
    }
    drop(streams);
    let mut streams: Vec<_> = (0..500).map(|_| listener.accept_timeout(BOOT_LIMIT).unwrap().0).collect();
    for stream in &mut streams {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let number: u32 = text.parse().unwrap();
        stream.write_all((2 * number).to_string().as_bytes()).unwrap();
    }
    guest.expect(&format!("sum {}", 499 * 500));
    let refused = vsock.connect_timeout(5001, BOOT_LIMIT).map_err(|e| e.kind());
    assert!(matches!(refused, Err(ErrorKind::Vsock | ErrorKind::InvalidState)), "{refused:?}");
    guest.finish();
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_reader_that_never_reads_holds_up_its_own_connection_alone() {
    let program = r#"
lazy = connect(7000)
lazy.setblocking(False)
sent = 0
while select.select([], [lazy], [], 2)[1]:
    sent += lazy.send(bytes(1 << 16))
print("stuck after", sent, flush=True)
busy = connect(7001)
for _ in range(100):
    busy.sendall(b"x" * 1000)
    size = 0
    while size < 1000:
        size += len(busy.recv(1000))
print("served", flush=True)
lazy.setblocking(True)
lazy.sendall(b"end")
lazy.close()
"#;
    let guest = python_with_listeners(program);
    let vsock = guest.vm.vsock().unwrap();
    let (lazy, busy) = (vsock.listen(7000).unwrap(), vsock.listen(7001).unwrap());
    guest.type_in("go\n");
    let (mut lazy, _) = lazy.accept_timeout(BOOT_LIMIT).unwrap();
    let (mut busy, _) = busy.accept_timeout(BOOT_LIMIT).unwrap();
    std::thread::spawn(move || {
        let mut piece = [0; 1000];
        while let Ok(len @ 1..) = busy.read(&mut piece) {
            busy.write_all(&piece[..len]).unwrap();
        }
    });
    guest.expect("served");
    let mut all = Vec::new();
    lazy.read_to_end(&mut all).unwrap();
    let text = guest.finish();
    assert!(text.contains(&format!("stuck after {}", all.len() - 3)), "{} bytes: {text}", all.len());
    assert!(all.ends_with(b"end"));
}

/// A guest that waits for a line before it begins, so that the host can listen.
fn python_with_listeners(program: &str) -> RunningGuest {
    let guest = start(
        &format!(
            "cat > /root/tmp/test.py <<'END'\n{PYTHON}{program}\nEND\necho ready; read line; in_root python3 /tmp/test.py"
        ),
        VsockConfig::new(3),
    );
    guest.expect("ready");
    guest
}

/// The guest connects to port 80 of the host, on which a program listens, and to 81, on which none does; it listens on 90.
const SOCAT: &str = r#"
in_root sh -c 'socat VSOCK-LISTEN:90 EXEC:/usr/bin/rev & echo question | socat -t 100 - VSOCK-CONNECT:2:80; wait'
in_root sh -c 'socat -u OPEN:/dev/null VSOCK-CONNECT:2:81; echo "refused: $?"'
"#;

/// What other programs of the host have to do with the guest.
fn talk(path: &Path, listener: &UnixListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "question\n");
    stream.write_all(b"answer of the host\n").unwrap();
    drop(stream);
    let begun = Instant::now();
    let mut stream = loop {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"CONNECT 90\nabc\n").unwrap();
        let mut line = [0; 14];
        match stream.read_exact(&mut line) {
            Ok(()) => {
                assert!(line.starts_with(b"OK 1073741"), "{line:?}");
                break stream;
            }
            Err(e) => assert!(begun.elapsed() < Duration::from_secs(30), "{e}"),
        }
    };
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "cba\n");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn socat_in_the_guest_talks_to_other_programs_of_the_host_by_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.vsock");
    let listener = UnixListener::bind(folder.path().join("guest.vsock_80")).unwrap();
    let guest = start(SOCAT, VsockConfig::new(7).unix_path(&path));
    talk(&path, &listener);
    let text = guest.finish();
    assert!(text.contains("answer of the host") && text.contains("refused: 1"), "{text}");
    assert!(!path.exists());
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_launcher_in_its_jail_connects_both_ways_and_removes_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.vsock");
    let listener = UnixListener::bind(folder.path().join("guest.vsock_80")).unwrap();
    let initrd = initrd_with(&format!("{ENTER_ROOT}\n{BEGIN}\n{SOCAT}"));
    let mut launcher = support::launcher();
    launcher.arg("--kernel").arg(path_of("VMCELL_KERNEL_ELF")).arg("--initrd").arg(initrd.path());
    launcher.args(["--cmdline", "console=ttyS0 quiet panic=-1", "--memory", "256", "--seccomp", "kill"]);
    launcher.arg("--disk").arg(format!("{},ro", path_of("VMCELL_ROOTFS").display()));
    launcher.arg("--vsock").arg(format!("7,path={}", path.display()));
    let launcher = launcher.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    talk(&path, &listener);
    let output = launcher.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {text}{said}", output.status);
    assert!(text.contains("answer of the host") && text.contains("refused: 1"), "{text}{said}");
    assert!(!said.contains("without an empty root") && !said.contains("without Landlock for files"), "{said}");
    assert!(!path.exists());
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn commands_are_run_in_the_guest_with_their_output_and_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.vsock");
    let agent = include_str!("../examples/exec/agent.py");
    let script = format!("cat > /root/tmp/agent.py <<'END'\n{agent}\nEND\nin_root python3 /tmp/agent.py");
    let guest = start(&script, VsockConfig::new(3).unix_path(&path));
    guest.expect("the agent listens");
    let run = |stream, command: &str| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = client::run(stream, command, &mut out, &mut err).unwrap();
        (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    let (status, out, err) = run(connect(&guest, client::PORT), "uname -s; echo no >&2; exit 3");
    assert_eq!((status, out.as_str(), err.as_str()), (3, "Linux\n", "no\n"));
    let (status, out, _) = run(client::connect(&path).unwrap(), "seq 100000; kill -9 $$");
    assert_eq!((status, out.lines().count()), (-9, 100_000));
    guest.vm.stop().unwrap();
}
