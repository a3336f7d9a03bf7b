//! A copy becomes the volume.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use vmcell::volume::Volume;

use super::super::apps::Host;
use crate::fault::{Fault, Result};

/// How long what has come may take to be written.
const LIMIT: Duration = Duration::from_secs(30);

/// Makes a copy a volume that may be written to, as it was when it was sent last. A stream by which more comes is ended, and nothing more is taken from there. Returns its generation, and the number of the snapshot that has what
/// came last.
///
/// # Errors
/// It is no copy, or the disk is slow or full.
pub fn promote(host: &Arc<Host>, app: &str, name: &str) -> Result<(u64, u32)> {
    let _occupied = host.occupy(app, false)?;
    let (state, volumes) = (&host.parts.state, host.volumes());
    // A stream that hangs would hold it up for as long as the other host likes.
    let _alone = host.incoming.end(app, name, LIMIT)?;
    let lock = state.volume_lock(app, name);
    let _files = lock.lock().unwrap_or_else(PoisonError::into_inner);
    let (Some(replica), Some(row)) = (state.replica(app, name)?, state.volume(app, name)?) else {
        return Err(Fault::new(format!("{app} has no copy of a volume {name} here"))
            .next(format!("`cell volumes list {app}` lists volumes and copies.")));
    };
    let key = volumes.secrets.volume_key(app, name, false)?;
    let next = state.next_file(app, name)?;
    let new = volumes.file(app, name, next);
    // Of an attempt that was broken off.
    let _ = std::fs::remove_file(&new);
    Volume::fork(volumes.file(app, name, row.file), &key, &new, &key)?;
    let generation = replica.generation.saturating_add(1);
    state.promoted(&row, next, generation)?;
    Ok((generation, row.file))
}
