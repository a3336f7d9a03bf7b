//! A VM gives its RAM away for as long as nobody needs it.

use std::cell::Cell;
use std::path::Path;

use super::exit::Status;
use super::saved::{Away, LoadMemory, SaveOptions, named};
use super::snapshot::Snapshot;
use super::vm::{PAUSE_LIMIT, Vm};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Template;
use crate::save::{Chain, Pace, Taken};
#[cfg(feature = "volume")]
use crate::save::{Seal, put_away};
use crate::sys::{check_may_wait, lock, may_wait};
#[cfg(feature = "volume")]
use crate::volume::{Cipher, Key};

/// What is encrypted as one, in bytes: a page.
#[cfg(feature = "volume")]
const SECTOR: usize = 4096;

/// A key for the RAM of one VM.
#[cfg(feature = "volume")]
struct Sealed(Cipher);

#[cfg(feature = "volume")]
impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(..)")
    }
}

#[cfg(feature = "volume")]
impl Seal for Sealed {
    fn hide(&self, at: u64, pages: &mut [u8]) {
        self.0.encrypt(at, pages);
    }

    fn show(&self, at: u64, pages: &mut [u8]) {
        self.0.decrypt(at, pages);
    }
}

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
    /// If another thread calls `resume` while the file is written, that is broken off: the VM goes on, and nothing of the file is left.
    ///
    /// The file is a snapshot like others: if this process is gone, [`Snapshot::load`](crate::Snapshot::load) goes on with it.
    ///
    /// # Errors
    /// Those of [`snapshot`](Self::snapshot) and [`Snapshot::save`](crate::Snapshot::save); [`ErrorKind::InvalidState`] if it is suspended
    /// already, or was resumed meanwhile. A VM that ran goes on then.
    pub fn suspend(&self, path: impl AsRef<Path>, memory: LoadMemory) -> Result<()> {
        let path = path.as_ref();
        let put = |snapshot: &Snapshot, pace: &mut Pace<'_>| {
            snapshot.write(path, &SaveOptions::new(), pace)?;
            Chain::open(path).map_err(|error| error.about(&named(path)))
        };
        self.suspend_by(put, memory)
    }

    /// Does the same as [`suspend`](Self::suspend) with [`LoadMemory::Copy`], without leaving anything that can be read: the RAM is encrypted by AES-256-XTS with a
    /// key that is made for this call and lies in locked memory of this process, in a file in `folder` that has no name. Nothing of it is left when the VM
    /// is resumed or dropped, or the process ends. Blocks until the file is written, not until it is on storage. Needs the features `save` and `volume`.
    ///
    /// Encryption is not authentication: whoever may write to the storage below can damage the guest. Damage by a fault of the storage is noticed by checksums
    /// when the VM is resumed; it stays suspended then.
    ///
    /// # Errors
    /// Those of [`suspend`](Self::suspend), for `folder`; [`ErrorKind::Volume`] if the host has no locked memory for the key. A VM that ran goes on then.
    ///
    /// ```no_run
    /// # fn main() -> vmcell::Result<()> {
    /// # let vm = vmcell::Vm::builder().build()?;
    /// vm.suspend_encrypted("/var/lib/vms")?;
    /// // Once somebody needs it again:
    /// vm.resume()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "volume")]
    pub fn suspend_encrypted(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let put = |snapshot: &Snapshot, pace: &mut Pace<'_>| {
            let key = Key::generate()?;
            let seal = Box::new(Sealed(Cipher::new(key.expose(), SECTOR)?));
            put_away(&snapshot.parts.memory, folder, seal, pace).map_err(|error| error.about(&named(folder)))
        };
        self.suspend_by(put, LoadMemory::Copy)
    }

    fn suspend_by(
        &self,
        put: impl FnOnce(&Snapshot, &mut Pace<'_>) -> Result<Chain>,
        memory: LoadMemory,
    ) -> Result<()> {
        check_may_wait("suspend a VM")?;
        let _one_at_a_time = lock(&self.transition);
        self.check_snapshot("suspend")?;
        let was_paused = self.status() == Status::Paused;
        let broken_off = Cell::new(false);
        let is_wanted = || {
            broken_off.set(self.saves.wanted.is_by_any());
            broken_off.get()
        };
        let suspended = self.stand_still(PAUSE_LIMIT).and_then(|()| {
            let snapshot = self.snapshot_at_standstill()?;
            let chain = put(&snapshot, &mut Pace::until(&is_wanted))?;
            self.give_ram_away(&snapshot, chain, memory)
        });
        if suspended.is_err() && !was_paused {
            // Refused if it has ended meanwhile, and then there is nothing to go on with.
            let _ = self.go_on();
        }
        suspended.map_err(|error| match broken_off.get() {
            true => Error::new(ErrorKind::InvalidState, "the VM was resumed before it was suspended"),
            false => error,
        })
    }

    fn give_ram_away(&self, snapshot: &Snapshot, chain: Chain, memory: LoadMemory) -> Result<()> {
        // What is read again needs no mapping of the file meanwhile, which somebody could cut.
        let taken = match memory {
            LoadMemory::Copy => Template::zeroes(chain.regions()),
            LoadMemory::Map => chain.memory(Taken::Mapped)?,
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
