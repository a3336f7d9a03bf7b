//! How many requests look for a backend at once, so that apps whose VMs do not answer take no thread that others need.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Turns, by owners of names. The fewer are left, the fewer one owner may have.
pub struct Turns {
    most: usize,
    of_one: usize,
    taken: Mutex<HashMap<String, usize>>,
    freed: Notify,
}

/// A turn that one request has as long as this lives.
pub struct Turn {
    turns: Arc<Turns>,
    owner: String,
}

impl Turns {
    /// At most so many at once, and so many of one owner as long as half of them are left; a quarter of that as long as a quarter is left, and one then.
    pub fn new(most: usize, of_one: usize) -> Self {
        Self { most, of_one, taken: Mutex::default(), freed: Notify::new() }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of one request to this owner.
    pub async fn wait(self: &Arc<Self>, owner: &str) -> Turn {
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on, none that ends is missed.
            freed.as_mut().enable();
            if let Some(turn) = self.take(owner) {
                return turn;
            }
            freed.await;
        }
    }

    fn take(self: &Arc<Self>, owner: &str) -> Option<Turn> {
        let mut taken = self.taken();
        let left = self.most.saturating_sub(taken.values().fold(0, |all: usize, of_one| all.saturating_add(*of_one)));
        let allowed = if left > self.most / 2 {
            self.of_one
        } else if left > self.most / 4 {
            self.of_one / 4
        } else {
            1
        };
        let own = taken.get(owner).copied().unwrap_or(0);
        if left == 0 || own >= allowed {
            return None;
        }
        taken.insert(owner.to_owned(), own.saturating_add(1));
        Some(Turn { turns: Arc::clone(self), owner: owner.to_owned() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.turns.taken();
        match taken.get_mut(&self.owner) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => drop(taken.remove(&self.owner)),
        }
        drop(taken);
        self.turns.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn an_owner_with_all_its_turns_taken_waits_and_another_one_does_not() {
        run(async {
            let turns = Arc::new(Turns::new(100, 2));
            let (first, _second) = (turns.wait("a").await, turns.wait("a").await);
            assert!(timeout(SOON, turns.wait("a")).await.is_err());
            drop(timeout(SOON, turns.wait("b")).await.unwrap());
            let waits = tokio::spawn({
                let turns = Arc::clone(&turns);
                async move { drop(turns.wait("a").await) }
            });
            tokio::task::yield_now().await;
            drop(first);
            timeout(SOON, waits).await.unwrap().unwrap();
            assert_eq!(turns.taken().len(), 1, "owners without a turn are forgotten");
        });
    }

    #[test]
    fn many_silent_owners_leave_a_turn_for_one_more() {
        run(async {
            let (turns, mut held) = (Arc::new(Turns::new(448, 16)), Vec::new());
            for number in 0..150 {
                while let Ok(turn) = timeout(Duration::ZERO, turns.wait(&number.to_string())).await {
                    held.push(turn);
                }
            }
            assert!(held.len() > 300, "{}", held.len());
            assert!(timeout(SOON, turns.wait("one more")).await.is_ok());
            held.clear();
            assert!(turns.taken().is_empty());
        });
    }
}
