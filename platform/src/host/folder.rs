//! Where things lie in the state's folder.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::fault::{Context, Fault, Result};

/// The state's folder, which belongs to one process as long as this is kept.
pub struct Folder {
    path: PathBuf,
    /// As volumes name those that they build on.
    volumes: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens the folder, or makes it, for its owner alone.
    ///
    /// # Errors
    /// Another process has it, it belongs to somebody else, or others may write to it.
    pub fn open(path: &Path) -> Result<Self> {
        let named = path.display().to_string();
        make(path)?;
        let path = path.canonicalize().context(&named)?;
        let found = path.metadata().context(&named)?;
        let own = rustix::process::geteuid().as_raw();
        if found.uid() != own || found.permissions().mode() & 0o022 != 0 {
            let mode = found.permissions().mode() & 0o777;
            return Err(Fault::new(format!(
                "{named} belongs to user {} with mode {mode:o}; only user {own} may write to it",
                found.uid()
            )));
        }
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock")).context(&named)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Fault::new(format!("another cell serve has {named}"))
                .next("End it first, or choose another folder by --state."));
        }
        for sub in ["images", "logs", "volumes", "secrets", "boot"] {
            make(&path.join(sub))?;
        }
        let volumes = path.join("volumes").canonicalize().context(&named)?;
        Ok(Self { path, volumes, _lock: lock })
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An image's file.
    #[must_use]
    pub fn image(&self, file: &str) -> PathBuf {
        self.path.join("images").join(file)
    }

    /// The folder of volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.volumes.clone()
    }

    /// The folder of secrets.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.path.join("secrets")
    }

    /// The folder of an app's logs.
    #[must_use]
    pub fn logs(&self, app: &str) -> PathBuf {
        self.path.join("logs").join(app)
    }

    /// Removes what a process that was killed has left: images that were being built.
    ///
    /// Nothing of it may be in use.
    pub(super) fn tidy(&self) {
        let files = std::fs::read_dir(self.image("")).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_left = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "new" || ending == "partial");
        for path in files.filter(is_left) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The log of a VM, whose folder is made.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn log(&self, app: &str, slot: u32) -> Result<PathBuf> {
        make(&self.logs(app))?;
        Ok(self.logs(app).join(format!("{slot}.log")))
    }
}

/// Makes a folder for its owner alone, if there is none.
fn make(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).context(path.display())
}
