//! What the platform needs of a VM.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vmcell::network::MachineAddress;
use vmcell::volume::VolumeHandle;

use super::journal::Journal;
use super::timed::Timed;
use crate::fault::{Context, Fault, Result};
use crate::guest::Message;
use crate::state::Release;

/// What a VM is made of.
#[derive(Clone)]
pub struct Plan {
    /// The release that it runs.
    pub release: Arc<Release>,
    /// Its number in its app, 1 to 255.
    pub slot: u32,
    /// Its address in the private network.
    pub address: MachineAddress,
    /// The kernel.
    pub kernel: PathBuf,
    /// The root file system.
    pub root: PathBuf,
    /// What its console says goes here.
    pub log: PathBuf,
    /// Its encrypted disks.
    pub volumes: Vec<Attached>,
    /// Asked at each start, so that no secret is kept here.
    pub kept: Arc<dyn Kept>,
    /// The name server that the guest is told.
    pub name_server: std::net::IpAddr,
    /// Where it is noted what becomes of it.
    pub journal: Arc<Journal>,
}

/// A volume of a VM.
#[derive(Clone)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Where it is mounted.
    pub path: String,
}

/// What a VM has used since it was started. All but the memory only goes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of its vCPUs and of the thread that serves its devices.
    pub cpu: Duration,
    /// Bytes of the host's memory that it has now; none if the host does not tell.
    pub memory: Option<u64>,
    /// Bytes that were read from its disks.
    pub read: u64,
    /// Bytes that were written to its disks.
    pub written: u64,
    /// Bytes that it got by the network.
    pub received: u64,
    /// Bytes that it sent by the network.
    pub sent: u64,
}

/// What is kept for a VM outside of it.
pub trait Kept: Send + Sync {
    /// The values of its secrets.
    ///
    /// # Errors
    /// One is missing.
    fn secrets(&self) -> Result<BTreeMap<String, String>>;
    /// Has no VM been given this volume yet?
    ///
    /// # Errors
    /// There is no such volume.
    fn is_new(&self, volume: &str) -> Result<bool>;
    /// A VM runs with its volumes.
    ///
    /// # Errors
    /// It cannot be written down.
    fn used(&self) -> Result<()>;
}

/// Makes VMs.
pub trait Launcher: Send + Sync {
    /// Builds and starts one.
    ///
    /// # Errors
    /// Whatever is refused.
    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Guest>>;
    /// For how long nobody has spoken with this VM in the private network.
    fn idle(&self, plan: &Plan) -> Duration;
}

/// A VM that was started. Any thread may call it.
pub trait Guest: Send + Sync {
    /// Connects to a port of its vsock.
    ///
    /// # Errors
    /// It has ended, nobody listens, or there is no answer in time.
    fn connect(&self, port: u32, limit: Duration) -> Result<UnixStream>;
    /// How it ended, if it has.
    fn ended(&self) -> Option<String>;
    /// What it has used so far. Waits for nobody.
    fn usage(&self) -> Usage;
    /// Ends it at once.
    fn stop(&self);
    /// A volume that it has, by its name.
    fn volume(&self, name: &str) -> Option<VolumeHandle>;
    /// Puts its memory away in a file in this folder that this process alone can read, and keeps it so until it is resumed.
    ///
    /// # Errors
    /// It cannot be saved; it goes on then.
    fn suspend(&self, folder: &Path) -> Result<()>;
    /// Goes on after that.
    ///
    /// # Errors
    /// It has ended.
    fn resume(&self) -> Result<()>;
}

/// Has a guest connect to one of its own ports. All of it takes `limit` at most, besides what `connect` takes.
///
/// # Errors
/// It cannot be reached, does not answer in time, or nobody listens there.
pub fn forward(connect: impl FnOnce() -> Result<UnixStream>, port: u16, limit: Duration) -> Result<UnixStream> {
    let stream = connect()?;
    let mut timed = Timed::new(&stream, limit);
    Message::Forward(port).write(&mut timed).context("vsock")?;
    match Message::read(&mut timed).context("vsock")? {
        Some(Message::Connected) => {}
        Some(Message::Failed(why)) => return Err(Fault::new(format!("port {port}: {why}"))),
        _ => return Err(Fault::new(format!("port {port}: the guest does not answer"))),
    }
    stream.set_read_timeout(None).context("vsock")?;
    stream.set_write_timeout(None).context("vsock")?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_guest_that_answers_byte_by_byte_does_not_hold_who_waits() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let dripping = std::thread::spawn(move || {
            // The length of a long message, and then its bytes.
            let _ = theirs.write_all(&100_000_u32.to_le_bytes());
            while theirs.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let began = Instant::now();
        assert!(forward(|| Ok(ours), 80, Duration::from_millis(200)).is_err());
        assert!(began.elapsed() < Duration::from_secs(60));
        dripping.join().unwrap();
    }
}
