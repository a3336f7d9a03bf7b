//! How many requests to one owner of names look for a backend at once, so that one app whose VMs do not answer takes no thread that others need.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns, by owners of names.
pub struct Turns {
    most: usize,
    of_owners: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A turn that one request has as long as this lives.
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    /// At most so many at once for each owner.
    pub fn new(most: usize) -> Self {
        Self { most, of_owners: Mutex::default() }
    }

    /// Waits for the turn of one request to this owner.
    pub async fn wait(&self, owner: &str) -> Option<Turn> {
        let turns = self.of(owner);
        // Nobody closes it, and it lives as long as somebody waits or has a turn.
        turns.acquire_owned().await.ok().map(|permit| Turn { _permit: permit })
    }

    fn of(&self, owner: &str) -> Arc<Semaphore> {
        let mut of_owners = self.of_owners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = of_owners.get(owner).and_then(Weak::upgrade) {
            return known;
        }
        // Owners that nobody asks for now are forgotten.
        of_owners.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(self.most));
        of_owners.insert(owner.to_owned(), Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn an_owner_with_all_its_turns_taken_waits_and_another_one_does_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let turns = Turns::new(2);
            let soon = Duration::from_millis(50);
            let (first, _second) = (turns.wait("a").await, turns.wait("a").await);
            assert!(timeout(soon, turns.wait("a")).await.is_err());
            assert!(timeout(soon, turns.wait("b")).await.unwrap().is_some());
            drop(first);
            assert!(timeout(soon, turns.wait("a")).await.unwrap().is_some());
            assert_eq!(turns.of_owners.lock().unwrap().len(), 2);
            drop(turns.wait("c").await);
            assert_eq!(turns.of_owners.lock().unwrap().len(), 2);
        });
    }
}
