//! What the tests of consoles share: a port on an I/O thread, and the two ends of every kind of descriptor.

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, mkfifoat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::*;
use crate::bus::BusDevice;

/// Far more than anything takes here, and a test fails for good.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// What the end of a VM may take, and more than a busy machine needs for it.
const SOON: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pipe,
    Fifo,
    Unix,
    Datagrams,
    Tcp,
    /// The master's side of a pseudo-terminal, and the terminal's.
    Master,
    Terminal,
}

pub(super) const KINDS: [Kind; 7] =
    [Kind::Pipe, Kind::Fifo, Kind::Unix, Kind::Datagrams, Kind::Tcp, Kind::Master, Kind::Terminal];

/// Two ends of something: bytes go from one to the other.
pub(super) struct Ends {
    pub(super) from: OwnedFd,
    pub(super) to: OwnedFd,
}

impl Kind {
    pub(super) fn ends(self) -> Ends {
        let ends = |from: OwnedFd, to: OwnedFd| Ends { from, to };
        match self {
            Self::Pipe => {
                let (to, from) = std::io::pipe().unwrap();
                ends(from.into(), to.into())
            }
            Self::Fifo => fifo(),
            Self::Unix => {
                let (from, to) = UnixStream::pair().unwrap();
                ends(from.into(), to.into())
            }
            Self::Datagrams => {
                let (from, to) = UnixDatagram::pair().unwrap();
                ends(from.into(), to.into())
            }
            Self::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let from = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                ends(from.into(), listener.accept().unwrap().0.into())
            }
            Self::Master => terminal(),
            Self::Terminal => {
                let Ends { from, to } = terminal();
                ends(to, from)
            }
        }
    }
}

fn fifo() -> Ends {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let to = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    let from = File::options().write(true).open(&path).unwrap();
    fcntl_setfl(&to, OFlags::empty()).unwrap();
    Ends { from: from.into(), to: to.into() }
}

/// From the master to the terminal, which is raw.
pub(super) fn terminal() -> Ends {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let options = OFlags::NOCTTY.bits() as i32;
    let terminal = File::options().read(true).write(true).custom_flags(options).open(path.to_str().unwrap()).unwrap();
    let mut modes = tcgetattr(&terminal).unwrap();
    modes.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &modes).unwrap();
    Ends { from: master, to: terminal.into() }
}

/// A port on an I/O thread, and what is connected to it.
pub(super) struct Port {
    pub(super) serial: Arc<Serial>,
    pub(super) output: OutputBuffer,
    io_thread: IoThread,
    membership: Option<Membership>,
}

impl Port {
    pub(super) fn on(io_thread: &IoThread, console: Console) -> Self {
        let output = OutputBuffer::new().unwrap();
        let serial = Arc::new(Serial::new(output.clone()).unwrap());
        let membership = Some(console.connect(&serial, &output, io_thread, Voice::default()).unwrap());
        Self { serial, output, io_thread: io_thread.clone(), membership }
    }

    pub(super) fn new(console: Console) -> Self {
        Self::on(&IoThread::new("console-test").unwrap(), console)
    }

    pub(super) fn print(&self, bytes: &[u8]) {
        self.output.clone().write_all(bytes).unwrap();
    }

    /// What the guest reads, until it has `count` bytes.
    pub(super) fn typed(&self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        until("the guest has its input", || {
            while self.register(5) & 1 != 0 {
                bytes.push(self.register(0));
                if self.register(5) & 1 == 0 {
                    self.serial.feed();
                }
            }
            bytes.len() >= count
        });
        bytes
    }

    pub(super) fn register(&self, offset: u64) -> u8 {
        let mut data = [0];
        self.serial.read(offset, &mut data);
        data[0]
    }

    pub(super) fn status(&self) -> SinkStatus {
        ConsoleStatus::of(&self.output).sinks.remove(0)
    }

    pub(super) fn ends_soon(&mut self, what: &str) {
        let begin = Instant::now();
        drop(self.membership.take());
        assert!(begin.elapsed() < SOON, "{what}: {:?}", begin.elapsed());
    }

    /// Another console on the same thread works.
    pub(super) fn serves_others(&self, what: &str) {
        let (send, receive) = std::sync::mpsc::channel();
        let other = Port::on(&self.io_thread, Console::callback(move |bytes| send.send(bytes.to_vec()).unwrap()));
        other.print(b"another");
        assert_eq!(receive.recv_timeout(LIMIT).as_deref(), Ok(&b"another"[..]), "{what}");
    }
}

pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LIMIT, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
