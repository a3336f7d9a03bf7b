//! A VM gives its RAM away for as long as nobody needs it.

use std::path::Path;

use super::exit::Status;
use super::saved::{Away, LoadMemory, named};
use super::vm::{PAUSE_LIMIT, Vm};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Template;
use crate::save::{Chain, Taken};
use crate::sys::{check_may_wait, lock, may_wait};

impl Vm {
    /// Pauses the VM, if it is not paused, saves it in a file as [`Snapshot::save`](crate::Snapshot::save) does, and gives its RAM back to
    /// the host. Its threads, descriptors and devices stay, so that [`resume`](Self::resume) goes on with it at once. Blocks until the file
    /// is on storage. Needs the feature `save`.
    ///
    /// With [`LoadMemory::Copy`], resuming reads the file, compares its checksums, and blocks meanwhile. If that fails, since somebody has
    /// changed or cut the file, the VM stays as it is and may be resumed again. With [`LoadMemory::Map`], it returns at once, and each page
    /// is read when it is first used; the caller vouches, until the VM is gone, for what is said there. The file may be deleted either way;
    /// what it takes is free once the RAM was read.
    ///
    /// The file is a snapshot like others: if this process is gone, [`Snapshot::load`](crate::Snapshot::load) goes on with it.
    ///
    /// # Errors
    /// Those of [`snapshot`](Self::snapshot) and [`Snapshot::save`](crate::Snapshot::save); [`ErrorKind::InvalidState`] if it is suspended
    /// already. A VM that ran goes on then.
    pub fn suspend(&self, path: impl AsRef<Path>, memory: LoadMemory) -> Result<()> {
        check_may_wait("suspend a VM")?;
        let _one_at_a_time = lock(&self.transition);
        self.check_snapshot("suspend")?;
        let was_paused = self.status() == Status::Paused;
        let suspended = self.stand_still(PAUSE_LIMIT).and_then(|()| self.give_ram_away(path.as_ref(), memory));
        if suspended.is_err() && !was_paused {
            // Refused if it has ended meanwhile, and then there is nothing to go on with.
            let _ = self.go_on();
        }
        suspended
    }

    fn give_ram_away(&self, path: &Path, memory: LoadMemory) -> Result<()> {
        let snapshot = self.snapshot_at_standstill()?;
        snapshot.save(path)?;
        let chain = Chain::open(path).map_err(|error| error.about(&named(path)))?;
        // What is read again needs no mapping of the file meanwhile, which somebody could cut.
        let taken = match memory {
            LoadMemory::Copy => Template::zeroes(chain.regions()),
            LoadMemory::Map => chain.memory(Taken::Mapped).map_err(|error| error.about(&named(path)))?,
        };
        let mut away = lock(&self.saves.away);
        *away = Some(Away { chain, memory });
        let given = self.saves.memory.rebase(&taken, &self.saves.config.memory);
        if given.is_err() {
            // Some of it may be gone. If the rest is refused, too, it is taken from the file when the VM is resumed.
            self.saves.memory.rebase(&snapshot.parts.memory, &self.saves.config.memory)?;
            *away = None;
        }
        given
    }

    /// Takes the RAM back, if it was given away, by the one who holds `transition`.
    pub(super) fn take_ram_back(&self) -> Result<()> {
        let mut away = lock(&self.saves.away);
        if let Some(Away { chain, memory: LoadMemory::Copy }) = &*away {
            if !may_wait() {
                let message =
                    "a VM that was suspended cannot be resumed on an I/O thread, since its RAM has to be read";
                return Err(Error::new(ErrorKind::InvalidState, message));
            }
            let copied = chain.memory(Taken::Copied)?;
            self.saves.memory.rebase(&copied, &self.saves.config.memory)?;
        }
        *away = None;
        Ok(())
    }

    /// Refuses what needs the RAM of a VM that gave it away.
    pub(super) fn check_has_ram(&self, call: &str) -> Result<()> {
        if lock(&self.saves.away).is_none() {
            return Ok(());
        }
        let message = format!("cannot {call} a VM that is suspended; resume it first");
        Err(Error::new(ErrorKind::InvalidState, message))
    }
}
