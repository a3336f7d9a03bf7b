//! Which storage the disks of this process lie on. The lock of an open file does not keep its copies apart: a file that was
//! duplicated, by `File::try_clone` for instance, is one open file.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::medium::{self, Identity};
use crate::error::Result;
use crate::sys::lock;

/// How many disks only read each, and how many write.
static USERS: Mutex<BTreeMap<Identity, Users>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, Default)]
struct Users {
    readers: usize,
    writers: usize,
}

/// One disk's use of its storage, for as long as this lives.
pub(super) struct InUse {
    identity: Identity,
    /// Changed while [`USERS`] is locked.
    read_only: AtomicBool,
}

impl InUse {
    /// # Errors
    /// [`ErrorKind::Disk`](crate::ErrorKind::Disk) if another disk of this process writes to it, or reads it and this one is to write.
    pub(super) fn claim(name: &str, identity: Identity, read_only: bool) -> Result<Self> {
        let mut all = lock(&USERS);
        let users = all.entry(identity).or_default();
        if users.writers > 0 || (users.readers > 0 && !read_only) {
            return Err(medium::in_use(name, read_only));
        }
        let count = if read_only { &mut users.readers } else { &mut users.writers };
        *count = count.saturating_add(1);
        Ok(Self { identity, read_only: AtomicBool::new(read_only) })
    }

    /// The disk that was to write only reads from now on.
    #[cfg(feature = "volume")]
    pub(super) fn only_reads(&self) {
        let mut all = lock(&USERS);
        if self.read_only.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(users) = all.get_mut(&self.identity) {
            users.writers = users.writers.saturating_sub(1);
            users.readers = users.readers.saturating_add(1);
        }
    }

    #[cfg(feature = "volume")]
    pub(super) fn is_on(&self, identity: Identity) -> bool {
        self.identity == identity
    }

    /// Whether no other disk uses the storage.
    pub(super) fn is_alone(&self) -> bool {
        lock(&USERS).get(&self.identity).is_none_or(|users| users.readers.saturating_add(users.writers) <= 1)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut all = lock(&USERS);
        let Some(users) = all.get_mut(&self.identity) else { return };
        let read_only = self.read_only.load(Ordering::SeqCst);
        let count = if read_only { &mut users.readers } else { &mut users.writers };
        *count = count.saturating_sub(1);
        if users.readers == 0 && users.writers == 0 {
            all.remove(&self.identity);
        }
    }
}
