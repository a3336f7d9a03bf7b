//! The world outside, by passt: a child process that speaks for the guest with sockets of its own.

use std::fmt;
use std::fs::{File, Permissions};
use std::io::{self, PipeReader, Read};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use super::frame_stream::FrameStream;
use crate::error::{Error, ErrorKind, Result};
use crate::net::Nic;
use crate::sys::{check_may_wait, do_elsewhere, non_blocking_pair, set_nonblocking};

/// How long passt may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);
/// So much of what it says is repeated.
const MOST_SAID: usize = 2000;
/// The largest Ethernet frame that passt has, without its header, rounded down to words.
const LARGEST_MTU: u16 = 65520;
const MOST_PORTS: usize = 256;

/// A way to the world outside for one card, by a child process: [passt](https://passt.top) (Debian: `passt`) takes the guest's frames and
/// speaks for it with sockets of its own, so it takes no TAP device and no right of root's.
///
/// The guest gets its address, its routes and its name servers from passt (DHCP, DHCPv6, router advertisements), and reaches whatever this
/// host's user reaches: other hosts near it and its addresses on them, but not what listens on the host's own loopback. Nothing
/// reaches the guest, but for the ports that are listed. passt confines itself; run the host program in a network namespace of its own to
/// bound what guests reach.
///
/// ```no_run
/// use vmcell::network::Passt;
/// use vmcell::{Boot, Vm};
///
/// # fn main() -> vmcell::Result<()> {
/// let nic = Passt::new().tcp("127.0.0.1".parse().ok(), 8080, 80).start()?;
/// let vm = Vm::builder().boot(Boot::linux("vmlinuz")).nic(nic).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passt {
    program: PathBuf,
    mtu: u16,
    forwards: Vec<Forward>,
    names: bool,
}

/// A port of the host's that leads to one of the guest's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Forward {
    protocol: Protocol,
    address: Option<IpAddr>,
    port: u16,
    guest_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Default for Passt {
    fn default() -> Self {
        Self::new()
    }
}

impl Passt {
    /// The program `passt` of the search path, by which nothing reaches the guest.
    pub fn new() -> Self {
        Self { program: "passt".into(), mtu: LARGEST_MTU, forwards: Vec::new(), names: true }
    }

    /// Sets the program, by its path or by a name in the search path.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        self
    }

    /// Sets how long the guest's packets may be: 1280 to 65520 bytes, which is the default. Long ones are cheaper, whatever the host's own
    /// links have, since passt ends the guest's connections and begins its own.
    #[must_use]
    pub const fn mtu(mut self, bytes: u16) -> Self {
        self.mtu = bytes;
        self
    }

    /// Has connections to a TCP port of the host, 1 to 65535, on one of its addresses or on all, go to a port of the guest's.
    #[must_use]
    pub fn tcp(self, address: Option<IpAddr>, port: u16, guest_port: u16) -> Self {
        self.forward(Protocol::Tcp, address, port, guest_port)
    }

    /// The same for datagrams to a UDP port.
    #[must_use]
    pub fn udp(self, address: Option<IpAddr>, port: u16, guest_port: u16) -> Self {
        self.forward(Protocol::Udp, address, port, guest_port)
    }

    /// Lists a port by its text, as in `tcp 8080:80` or `udp 127.0.0.1/53:5353`: protocol, address of the host if it is not all of
    /// them, port of the host's, port of the guest's.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for anything else.
    pub fn port(self, text: &str) -> Result<Self> {
        let forward = Forward::read(text).ok_or_else(|| {
            let form = "a port is written as tcp 8080:80, or udp 127.0.0.1/53:5353, with numbers from 1 to 65535";
            Error::new(ErrorKind::InvalidConfig, format!("{text:?} is no port for passt: {form}"))
        })?;
        Ok(self.forward(forward.protocol, forward.address, forward.port, forward.guest_port))
    }

    /// Tells the guest of no name servers, which otherwise are the host's.
    #[must_use]
    pub const fn without_name_servers(mut self) -> Self {
        self.names = false;
        self
    }

    fn forward(mut self, protocol: Protocol, address: Option<IpAddr>, port: u16, guest_port: u16) -> Self {
        self.forwards.push(Forward { protocol, address, port, guest_port });
        self
    }

    /// Starts the child, and makes a card that it serves. Waits until the child is ready, mostly some tens of milliseconds, at most ten
    /// seconds. The child ends with the card.
    ///
    /// A process that is confined may not start programs: do this before.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a number that is out of range; [`ErrorKind::Network`] if passt does not start, with what
    /// it says, such as a port that is taken; [`ErrorKind::Timeout`]; [`ErrorKind::InvalidState`] on a thread that serves VMs.
    pub fn start(&self) -> Result<Nic> {
        check_may_wait("start passt")?;
        self.check()?;
        let (ours, theirs) = non_blocking_pair().map_err(|cause| self.failed(cause))?;
        let running = self.spawn(theirs)?;
        Ok(FrameStream::new(ours)?.keep(running).into_nic().mtu(self.mtu))
    }

    fn check(&self) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        if !(1280..=LARGEST_MTU).contains(&self.mtu) {
            return refused(format!("an MTU of {} was asked for, passt has 1280 to {LARGEST_MTU}", self.mtu));
        }
        if self.forwards.len() > MOST_PORTS {
            return refused(format!("{} ports were given to passt, allowed are {MOST_PORTS}", self.forwards.len()));
        }
        if self.forwards.iter().any(|forward| forward.port == 0 || forward.guest_port == 0) {
            return refused("port number 0 was given to passt, allowed are 1 to 65535".to_owned());
        }
        Ok(())
    }

    /// It finds its stream as standard input. It says that it is ready by writing its number where it is told to, which is its standard
    /// output.
    fn spawn(&self, stream: UnixStream) -> Result<Running> {
        let failed = |cause| self.failed(cause);
        let (ready, number) = io::pipe().map_err(failed)?;
        let number = File::from(OwnedFd::from(number));
        // Started by root, it is somebody else by the time that it opens this.
        number.set_permissions(Permissions::from_mode(0o622)).map_err(failed)?;
        let (said, says) = io::pipe().map_err(failed)?;
        let (said, says) = (File::from(OwnedFd::from(said)), File::from(OwnedFd::from(says)));
        // What it says later is read by nobody, and must not hold it up; nor must who inherits its end hold up whoever reads.
        [&said, &says].into_iter().try_for_each(|end| set_nonblocking(end, true)).map_err(failed)?;
        stream.set_nonblocking(false).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.args(self.arguments()).stdin(OwnedFd::from(stream)).stdout(number).stderr(says);
        let child = command.spawn().map_err(failed)?;
        // This process's own ends of them go with it.
        drop(command);
        let mut running = Running { child: Some(child), said };
        self.wait(&mut running, ready)?;
        Ok(running)
    }

    fn wait(&self, running: &mut Running, ready: PipeReader) -> Result<()> {
        let ready = File::from(OwnedFd::from(ready));
        set_nonblocking(&ready, true).map_err(|cause| self.failed(cause))?;
        let begun = Instant::now();
        loop {
            match (&ready).read(&mut [0; 32]) {
                Ok(1..) => return Ok(()),
                Ok(_) => return Err(self.refused(running)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.failed(error)),
            }
            if begun.elapsed() > PATIENCE {
                let message = format!("{} was not ready in {PATIENCE:?}", self.program.display());
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            thread::sleep(PAUSE);
        }
    }

    fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> =
            ["--foreground", "--quiet", "--fd", "0", "--pid", "/proc/self/fd/1"].map(String::from).into();
        // Otherwise the guest's router stands for the host's loopback.
        words.push("--no-map-gw".into());
        words.extend(["--mtu".into(), self.mtu.to_string()]);
        if !self.names {
            words.extend(["--no-dhcp-dns", "--no-dhcp-search"].map(String::from));
        }
        for (protocol, flag) in [(Protocol::Tcp, "--tcp-ports"), (Protocol::Udp, "--udp-ports")] {
            let of_it = self.forwards.iter().filter(|forward| forward.protocol == protocol);
            let mut ports: Vec<String> = of_it.map(Forward::to_string).collect();
            if ports.is_empty() {
                ports.push("none".into());
            }
            words.extend(ports.into_iter().flat_map(|port| [flag.to_owned(), port]));
        }
        words
    }

    fn failed(&self, cause: io::Error) -> Error {
        let message = format!("cannot start {}", self.program.display());
        Error::new(ErrorKind::Network, message).with_source(cause)
    }

    /// It has ended, and has said why.
    fn refused(&self, running: &mut Running) -> Error {
        let said = running.last_words();
        let said = if said.is_empty() { "without a word".to_owned() } else { format!("saying: {said}") };
        Error::new(ErrorKind::Network, format!("{} ended at once, {said}", self.program.display()))
    }
}

impl Forward {
    fn read(text: &str) -> Option<Self> {
        let (protocol, rest) = text.split_once(' ')?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        let (address, ports) = match rest.split_once('/') {
            Some((address, ports)) => (Some(address.parse().ok()?), ports),
            None => (None, rest),
        };
        let (port, guest_port) = ports.split_once(':')?;
        let number = |text: &str| text.parse().ok().filter(|port| *port > 0);
        Some(Self { protocol, address, port: number(port)?, guest_port: number(guest_port)? })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}/")?;
        }
        write!(f, "{}:{}", self.port, self.guest_port)
    }
}

/// The child, which ends when this is dropped.
struct Running {
    child: Option<Child>,
    /// Kept open, so that to speak does not end it.
    said: File,
}

impl Running {
    /// What a child that has ended said, on one line.
    fn last_words(&mut self) -> String {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let mut bytes = Vec::new();
        let _ = (&self.said).take(MOST_SAID as u64).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        // It is gone at once, but for what the host is busy with.
        do_elsewhere(move || _ = child.wait());
    }
}

#[cfg(test)]
#[path = "passt_test.rs"]
mod tests;
