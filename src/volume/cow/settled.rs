//! Whoever waits until the base of a new layer is stable.

use std::io;
use std::sync::mpsc::SyncSender;

/// Is told that a base is stable, or why it is not, once at least. Never blocks.
pub(crate) struct Settled(pub(crate) SyncSender<io::Result<()>>);

impl Settled {
    pub(super) fn tell(&self, result: io::Result<()>) {
        // If nobody has heard of an earlier failure, that one counts.
        let _ = self.0.try_send(result);
    }
}
