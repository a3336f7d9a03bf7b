//! A directory for one run, removed at its end.

use std::path::{Path, PathBuf};

use crate::exec::{Context, Result};

/// A directory that is removed with everything in it when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes `parent/.PREFIX-PID-N`, and `parent` itself if need be.
    pub fn new(parent: &Path, prefix: &str) -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep(parent, prefix);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!(".{prefix}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).context(format_args!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Removes the directories of commands that were killed: the process in a directory's name is gone.
fn sweep(parent: &Path, prefix: &str) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process =
            name.strip_prefix(&format!(".{prefix}-")).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        if process.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            // As in drop.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and a leftover costs only the room that it takes.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_dead_processes_go_and_those_of_living_ones_stay() {
        let parent = Scratch::new(&std::env::temp_dir(), "scratch-sweep").unwrap();
        // Above the greatest process number that Linux gives.
        let (dead, alive) = (parent.path().join(".x-99999999-0"), parent.path().join(".x-1-0"));
        let other = parent.path().join(".x-notes");
        for dir in [&dead, &alive, &other] {
            std::fs::create_dir(dir).unwrap();
        }
        let _new = Scratch::new(parent.path(), "x").unwrap();
        assert!(!dead.exists() && alive.exists() && other.exists());
    }

    #[test]
    fn a_scratch_is_gone_when_dropped() {
        let parent = Scratch::new(&std::env::temp_dir(), "scratch-drop").unwrap();
        let path = Scratch::new(parent.path(), "x").unwrap().path().to_path_buf();
        assert!(!path.exists());
    }
}
