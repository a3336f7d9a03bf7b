//! Volumes that other hosts are sending at this moment: one stream each, which ends if the volume is promoted or destroyed.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::{Context, Fault, Result};

/// An app, and a volume of it.
type Named = (String, String);

/// Who has which volume.
#[derive(Default)]
pub struct Incoming {
    /// The stream by which each comes; none if it is being promoted or destroyed.
    taken: Mutex<BTreeMap<Named, Option<UnixStream>>>,
    freed: Condvar,
}

impl Incoming {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<Named, Option<UnixStream>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a volume come by this stream, until what is returned is dropped.
    ///
    /// # Errors
    /// It comes by another one, or is being promoted or destroyed.
    pub fn receive(&self, app: &str, name: &str, stream: &UnixStream) -> Result<Taken<'_>> {
        let stream = stream.try_clone().context("the other host")?;
        let named = (app.to_owned(), name.to_owned());
        let mut taken = self.taken();
        if let Some(by) = taken.get(&named) {
            let how = if by.is_some() { "received already" } else { "promoted or destroyed" };
            return Err(Fault::new(format!("the volume {name} of {app} is being {how}")));
        }
        taken.insert(named.clone(), Some(stream));
        Ok(Taken { incoming: self, named })
    }

    /// Whether it comes by a stream at this moment, or is being promoted or destroyed.
    pub fn comes(&self, app: &str, name: &str) -> bool {
        self.taken().contains_key(&(app.to_owned(), name.to_owned()))
    }

    /// Ends the stream by which a volume comes, and lets no other one begin until what is returned is dropped.
    ///
    /// # Errors
    /// It is being promoted or destroyed already, or what has come is being written for so long.
    pub fn end(&self, app: &str, name: &str, limit: Duration) -> Result<Taken<'_>> {
        let named = (app.to_owned(), name.to_owned());
        let began = Instant::now();
        let mut taken = self.taken();
        while let Some(by) = taken.get(&named) {
            let Some(stream) = by else {
                return Err(Fault::new(format!("the volume {name} of {app} is being promoted or destroyed already")));
            };
            // Whoever waits for the other host there goes on at once, and gives up. If the stream has ended by itself, that is so as well.
            let _ = stream.shutdown(Shutdown::Both);
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                let next = "Try again in a moment: the disk is slow.";
                return Err(
                    Fault::new(format!("what has come of the volume {name} of {app} is being written")).next(next)
                );
            }
            taken = self.freed.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        taken.insert(named.clone(), None);
        Ok(Taken { incoming: self, named })
    }
}

/// A volume that somebody has.
pub struct Taken<'a> {
    incoming: &'a Incoming,
    named: Named,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.incoming.taken().remove(&self.named);
        self.incoming.freed.notify_all();
    }
}
