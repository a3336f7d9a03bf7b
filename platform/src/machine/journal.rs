//! What has become of VMs of late, for those who look. It is kept in memory alone.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::phase::Phase;

/// So many notes are kept.
const MOST: usize = 256;

/// Notes, each with a number of its own. Its lock is held for moments, and none is taken meanwhile.
#[derive(Default)]
pub struct Journal {
    notes: Mutex<Notes>,
    more: Condvar,
}

#[derive(Default)]
struct Notes {
    last: u64,
    kept: VecDeque<Note>,
}

/// A VM has come into a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// From 1 on.
    pub number: u64,
    /// Milliseconds since 1970.
    pub at: u64,
    /// The app.
    pub app: String,
    /// The VM's number in it.
    pub vm: u32,
    /// The release that the VM runs.
    pub release: u32,
    /// What has become of it.
    #[serde(flatten)]
    pub phase: Phase,
}

impl Journal {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a VM has come into a phase. The oldest note goes if there are too many.
    pub(super) fn add(&self, app: &str, vm: u32, release: u32, phase: &Phase) {
        let mut notes = self.notes();
        notes.last = notes.last.saturating_add(1);
        if notes.kept.len() >= MOST {
            notes.kept.pop_front();
        }
        let note = Note { number: notes.last, at: now(), app: app.to_owned(), vm, release, phase: phase.clone() };
        notes.kept.push_back(note);
        self.more.notify_all();
    }

    /// The notes after the one with this number, the oldest first; waits so long for one.
    pub fn after(&self, number: u64, wait: Duration) -> Vec<Note> {
        let waited = self.more.wait_timeout_while(self.notes(), wait, |notes| notes.last <= number);
        let notes = waited.unwrap_or_else(PoisonError::into_inner).0;
        notes.kept.iter().filter(|note| note.number > number).cloned().collect()
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn notes_come_once_in_their_order_and_the_oldest_go() {
        let journal = Journal::default();
        assert!(journal.after(0, Duration::ZERO).is_empty());
        for vm in 0..300 {
            journal.add("web", vm, 1, &Phase::Waiting("it ended".into()));
        }
        let notes = journal.after(0, Duration::ZERO);
        assert_eq!((notes.len(), notes[0].vm, notes[255].vm), (MOST, 44, 299));
        assert_eq!(journal.after(299, Duration::ZERO).len(), 1);
        let told = serde_json::to_value(&notes[255]).unwrap();
        assert_eq!((told["phase"].as_str(), told["why"].as_str()), (Some("waiting"), Some("it ended")));
    }

    #[test]
    fn a_note_wakes_whoever_waits_for_one() {
        let journal = Arc::new(Journal::default());
        let (writes, began) = (Arc::clone(&journal), Instant::now());
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            writes.add("web", 1, 1, &Phase::Stopped);
        });
        assert_eq!(journal.after(0, Duration::from_secs(60)).len(), 1);
        assert!(began.elapsed() < Duration::from_secs(30));
        writer.join().unwrap();
    }
}
