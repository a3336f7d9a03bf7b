//! What is held against a case, and what was known before.

use std::fmt::Display;

/// What a case is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oracle {
    /// No thread panics.
    Panic,
    /// No thread is lost.
    Threads,
    /// The monitor's own memory stays.
    Memory,
    /// A turn of the I/O thread ends soon, by its CPU clock.
    Turn,
    /// The I/O thread does not wait for a backend.
    Blocks,
    /// The guest next door is served.
    Neighbour,
    /// The I/O thread rests when its guests do.
    Idle,
    /// `stop()` and dropping keep their promises.
    Stop,
    /// The guest comes to its end in time.
    Finished,
    /// The guest ends as the case says.
    Ends,
    /// The guest itself finds nothing wrong.
    Guest,
    /// The host program is told of a device that has failed, and of no other.
    Failures,
}

impl Oracle {
    /// Whether another program that takes the processor for a moment could be all that is wrong.
    fn tells_time(self) -> bool {
        matches!(self, Self::Turn | Self::Blocks | Self::Neighbour | Self::Idle | Self::Stop)
    }
}

#[derive(Debug, Default)]
pub struct Findings(Vec<(Oracle, String)>);

impl Findings {
    pub fn check(&mut self, oracle: Oracle, holds: bool, what: impl Display) {
        if !holds {
            self.0.push((oracle, what.to_string()));
        }
    }

    /// Whether nothing is wrong but that something took too long.
    pub fn are_of_time_alone(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(oracle, _)| oracle.tells_time())
    }

    /// Leaves what `earlier` found wrong as well: a defect is there each time, and a busy host is not.
    pub fn keep_if_also_in(&mut self, earlier: &Self) {
        self.0.retain(|(oracle, what)| {
            let again = !oracle.tells_time() || earlier.0.iter().any(|(other, _)| other == oracle);
            if !again {
                println!("  found once ({oracle:?}): {what}");
            }
            again
        });
    }

    /// Fails for what was not known before; says which entries of the list have become needless.
    pub fn judge(&self, case: &str, known: &[(&str, Oracle, &str)]) {
        let known: Vec<_> = known.iter().filter(|(name, ..)| *name == case).collect();
        let is_known = |oracle: Oracle| known.iter().any(|(_, other, _)| *other == oracle);
        let (old, new): (Vec<_>, Vec<_>) = self.0.iter().partition(|(oracle, _)| is_known(*oracle));
        for (oracle, what) in old {
            println!("  falls short as known ({oracle:?}): {what}");
        }
        for (_, oracle, _) in known.iter().filter(|(_, oracle, _)| self.0.iter().all(|(found, _)| found != oracle)) {
            println!("  REMOVE (\"{case}\", {oracle:?}, ..) from FALLS_SHORT if it holds every time");
        }
        let text: Vec<_> = new.iter().map(|(oracle, what)| format!("{oracle:?}: {what}")).collect();
        assert!(new.is_empty(), "{case}:\n  {}", text.join("\n  "));
    }
}
