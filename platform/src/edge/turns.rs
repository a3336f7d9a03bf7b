//! How many requests look for a backend at once, so that apps whose VMs do not answer take no thread that others need.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot::{Sender, channel};

/// Turns, by owners of names. The fewer are left, the fewer one owner may have. Whoever waits gets one in the order of coming, if their owner may have one.
pub struct Turns {
    most: usize,
    of_one: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    owners: HashMap<String, Owner>,
    /// The number of the next one that waits.
    next: u64,
}

#[derive(Default)]
struct Owner {
    taken: usize,
    waiting: BTreeMap<u64, Sender<Turn>>,
}

/// A turn that one request has as long as this lives.
pub struct Turn {
    turns: Arc<Turns>,
    owner: String,
}

/// A request that waits as long as this lives.
struct Waits<'a> {
    turns: &'a Turns,
    owner: &'a str,
    number: u64,
}

impl Turns {
    /// At most so many at once, and so many of one owner as long as half of them are left; a quarter of that as long as a quarter is left, and one then.
    pub fn new(most: usize, of_one: usize) -> Self {
        Self { most, of_one, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of one request to this owner.
    pub async fn wait(self: &Arc<Self>, owner: &str) -> Turn {
        loop {
            let (sender, receiver) = channel();
            let number = {
                let mut state = self.state();
                let number = state.next;
                state.next = number.wrapping_add(1);
                state.owners.entry(owner.to_owned()).or_default().waiting.insert(number, sender);
                number
            };
            let _waits = Waits { turns: self, owner, number };
            self.give();
            // Nobody drops the sender without sending by it as long as this waits.
            if let Ok(turn) = receiver.await {
                return turn;
            }
        }
    }

    fn allowed(&self, left: usize) -> usize {
        if left == 0 {
            0
        } else if left > self.most / 2 {
            self.of_one
        } else if left > self.most / 4 {
            (self.of_one / 4).max(1)
        } else {
            1
        }
    }

    /// Gives turns to those who wait, as many as there are.
    fn give(self: &Arc<Self>) {
        while let Some((sender, turn)) = self.next() {
            // If nobody waits any more, the turn ends here, and is given on.
            let _ = sender.send(turn);
        }
    }

    /// The one who has waited longest of those whose owner may have a turn.
    fn next(self: &Arc<Self>) -> Option<(Sender<Turn>, Turn)> {
        let mut state = self.state();
        let allowed = self.allowed(self.most.saturating_sub(state.taken));
        let may = state.owners.iter_mut().filter(|(_, owner)| owner.taken < allowed && !owner.waiting.is_empty());
        let (name, owner) = may.min_by_key(|(_, owner)| owner.waiting.keys().next().copied())?;
        let (_, sender) = owner.waiting.pop_first()?;
        owner.taken = owner.taken.saturating_add(1);
        let turn = Turn { turns: Arc::clone(self), owner: name.clone() };
        state.taken = state.taken.saturating_add(1);
        Some((sender, turn))
    }
}

impl State {
    fn forget_if_idle(&mut self, owner: &str) {
        if self.owners.get(owner).is_some_and(|owner| owner.taken == 0 && owner.waiting.is_empty()) {
            self.owners.remove(owner);
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        if let Some(owner) = state.owners.get_mut(self.owner) {
            owner.waiting.remove(&self.number);
        }
        state.forget_if_idle(self.owner);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.taken = state.taken.saturating_sub(1);
        if let Some(owner) = state.owners.get_mut(&self.owner) {
            owner.taken = owner.taken.saturating_sub(1);
        }
        state.forget_if_idle(&self.owner);
        drop(state);
        self.turns.give();
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
            assert_eq!(turns.state().owners.len(), 1, "owners without a turn are forgotten");
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
            assert!(turns.state().owners.is_empty() && turns.state().taken == 0);
        });
    }

    #[test]
    fn those_who_wait_get_their_turns_in_the_order_of_coming_and_one_who_gave_up_leaves_nothing() {
        run(async {
            let (turns, came) = (Arc::new(Turns::new(8, 1)), Arc::new(Mutex::new(Vec::new())));
            let first = turns.wait("a").await;
            let waits: Vec<_> = (0..100)
                .map(|number| {
                    let (turns, came) = (Arc::clone(&turns), Arc::clone(&came));
                    tokio::spawn(async move {
                        let _turn = turns.wait("a").await;
                        came.lock().unwrap().push(number);
                    })
                })
                .collect();
            tokio::time::sleep(SOON).await;
            waits.iter().skip(1).step_by(2).for_each(|waits| waits.abort());
            tokio::time::sleep(SOON).await;
            assert_eq!(turns.state().owners["a"].waiting.len(), 50);
            drop(first);
            for waits in waits {
                let _ = waits.await;
            }
            assert_eq!(*came.lock().unwrap(), (0..100).step_by(2).collect::<Vec<_>>());
            assert!(turns.state().owners.is_empty() && turns.state().taken == 0);
        });
    }
}
