//! A volume in use goes over to the files that took the place of those that it builds on.

use std::fs::File;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::below::Swapped;
use super::chain::{Opened, beside, open_base};
use super::cow;
use super::refused;
use super::snapshot::{Current, Turn, VolumeHandle};
use super::volume::unopened;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{check_may_wait, lock};

impl VolumeHandle {
    /// Opens what the volume builds on anew, and has its VM go on with that while it runs: after [`Volume::absorb`](super::Volume::absorb), the chain is shorter
    /// then, and the space of files that were removed comes back. Blocks until the VM's disk was served, at most `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`] if it builds on no other volume, what it builds on cannot be opened, or is another one than it was;
    /// [`ErrorKind::Timeout`] if the VM's disk was not served within `limit`;
    /// [`ErrorKind::InvalidState`] if a snapshot of it is prepared, it grows, or what it wrote before its last snapshot is not stable yet, and on an [I/O
    /// thread](crate::event#what-a-callback-may-do). Then the VM goes on with the files that it has.
    pub fn reopen(&self, limit: Duration) -> Result<()> {
        check_may_wait("open what a volume builds on")?;
        let _turn = Turn::take(&self.shared)?;
        let mut current = lock(&self.shared.current);
        let current = match &mut *current {
            Ok(current) => current,
            Err(why) => return Err(refused(format!("what the volume builds on is not opened anew: {why}"))),
        };
        let path = current.path.display().to_string();
        reopen(current, limit).map_err(|e| e.about(&format!("volume {path}")))
    }
}

fn reopen(current: &mut Current, limit: Duration) -> Result<()> {
    let Some(swaps) = &current.swaps else { return Err(refused("it builds on no other volume")) };
    if !swaps.is_settled() {
        let message = "what it wrote before its last snapshot is not stable yet: try again";
        return Err(Error::new(ErrorKind::InvalidState, message));
    }
    let file = File::open(&current.path).map_err(unopened)?;
    let header = current.header(&file)?;
    let (data, key, limits) = (header.data_behind()?, current.key.bytes(), current.limits);
    let opened = Opened { path: &current.path, file: &file, header: &header, data, key, limits };
    let layer = cow::read_header(&mut opened.payload(&file)?)?;
    let Some(base) = &layer.base else { return Err(refused("it builds on no other volume")) };
    let path = beside(&current.path, &base.name);
    let chain = open_base(&path, base, layer.identity, limits, 0);
    let chain = chain.map_err(|e| e.about(&format!("base {}", path.display())))?;
    let depth = chain.depth.saturating_add(1);
    let heard = swaps.offer(chain.disk).recv_timeout(limit);
    swaps.withdraw();
    match heard {
        Ok(Swapped::Done(_)) => {
            current.depth = depth;
            Ok(())
        }
        Ok(Swapped::Refused(error, _)) => Err(error),
        Err(RecvTimeoutError::Timeout) => {
            let message =
                format!("the disk was not served for {} ms: its VM is not there, or paused", limit.as_millis());
            Err(Error::new(ErrorKind::Timeout, message))
        }
        Err(RecvTimeoutError::Disconnected) => Err(Error::new(ErrorKind::InvalidState, "the disk's VM has ended")),
    }
}
