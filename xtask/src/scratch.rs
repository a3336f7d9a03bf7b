//! A directory for one run, removed at its end.

use std::path::{Path, PathBuf};

use crate::exec::{Context, Result};

/// Removed with all it holds when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes `parent/.PREFIX-PID-N`, and `parent` itself if need be.
    pub fn new(parent: &Path, prefix: &str) -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!(".{prefix}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).context(format_args!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and a leftover does no harm but the room it takes.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
