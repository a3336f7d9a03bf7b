//! The VM is saved in a folder when a signal asks for it, and taken from there.

use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use vmcell::{Error, ErrorKind, Snapshot, Vm};

/// What the file in the folder is called.
const FILE: &str = "vm.snapshot";

/// Loads what was saved in a folder.
pub fn load(folder: &Path) -> vmcell::Result<Snapshot> {
    Snapshot::load(folder.join(FILE))
}

/// Saves a VM whenever the process gets SIGUSR1.
pub struct Saver {
    folder: PathBuf,
    signals: libc::sigset_t,
    /// Held while it saves.
    saving: Arc<Mutex<()>>,
}

impl Saver {
    /// Makes the folder, and has the signal wait on every thread that is made from now on.
    pub fn new(folder: &Path) -> vmcell::Result<Self> {
        let refused = |what: &str, e: std::io::Error| {
            let message = format!("{what} the folder {} for snapshots", folder.display());
            Error::new(ErrorKind::Snapshot, message).with_source(e)
        };
        fs::create_dir_all(folder).map_err(|e| refused("cannot make", e))?;
        // Whatever becomes of the present folder.
        let folder = folder.canonicalize().map_err(|e| refused("cannot find", e))?;
        let mut signals = MaybeUninit::uninit();
        #[allow(unsafe_code, reason = "see the safety note")]
        // SAFETY: the first call fills the set, which the others read.
        let signals = unsafe {
            libc::sigemptyset(signals.as_mut_ptr());
            libc::sigaddset(signals.as_mut_ptr(), libc::SIGUSR1);
            libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), std::ptr::null_mut());
            signals.assume_init()
        };
        Ok(Self { folder, signals, saving: Arc::default() })
    }

    /// Where files are made.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for signals from now on, on a thread of its own. A launcher that ends holds what it gets, so that nothing is half saved.
    pub fn start(self, vm: Arc<Vm>) -> Arc<Mutex<()>> {
        let saving = Arc::clone(&self.saving);
        thread::spawn(move || {
            while self.wait() {
                let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
                self.save(&vm);
            }
        });
        saving
    }

    fn wait(&self) -> bool {
        let mut number = 0;
        #[allow(unsafe_code, reason = "see the safety note")]
        // SAFETY: the set was filled, and there is a place for a number.
        let failed = unsafe { libc::sigwait(&self.signals, &mut number) };
        failed == 0
    }

    fn save(&self, vm: &Vm) {
        let begin = Instant::now();
        let path = self.folder.join(FILE);
        let taken = vm.snapshot().and_then(|snapshot| {
            let paused = begin.elapsed();
            snapshot.save(&path).map(|()| paused)
        });
        match taken {
            Ok(taken) => {
                let (taken, saved) = (taken.as_micros(), begin.elapsed().as_millis());
                eprintln!(
                    "launch: saved {} in {saved} ms, of which taking the snapshot took {taken} us\r",
                    path.display()
                );
            }
            Err(error) => eprintln!("launch: not saved: {}\r", error.chain()),
        }
    }
}
