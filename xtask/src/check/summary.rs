//! The results of checks and tests, and the report about them at the end.

use std::time::Duration;

/// How a check or a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Passed,
    /// The reason.
    Failed(String),
    /// The reason.
    Skipped(String),
}

struct Entry {
    name: String,
    status: Status,
    took: Duration,
    /// Passed tests that the entry stands for.
    tests: u64,
}

/// All results, in the order in which they came.
#[derive(Default)]
pub struct Summary {
    entries: Vec<Entry>,
    notes: Vec<String>,
}

impl Summary {
    /// Adds one check or test, and prints how it ended.
    pub fn add(&mut self, name: &str, status: Status, took: Duration) {
        self.add_all(name, status, took, 1);
    }

    /// Adds one entry that stands for several tests.
    pub fn add_all(&mut self, name: &str, status: Status, took: Duration, tests: u64) {
        let entry = Entry { name: name.into(), status, took, tests };
        println!("{}", entry.line());
        self.entries.push(entry);
    }

    /// Adds a note for the reader of the summary, which is not a result.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Prints it; returns the exit status.
    pub fn print(&self, took: Duration) -> u8 {
        println!("\n== summary ({:.0} s)", took.as_secs_f64());
        for entry in &self.entries {
            println!("{}", entry.line());
        }
        for note in &self.notes {
            println!("note: {note}");
        }
        let (passed, failed, skipped) = self.counts();
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        u8::from(failed > 0)
    }

    fn counts(&self) -> (u64, u64, u64) {
        let mut counts = (0, 0, 0);
        for entry in &self.entries {
            match entry.status {
                Status::Passed => counts.0 += entry.tests,
                Status::Failed(_) => counts.1 += 1,
                Status::Skipped(_) => counts.2 += 1,
            }
        }
        counts
    }
}

impl Entry {
    fn line(&self) -> String {
        let (word, why) = match &self.status {
            Status::Passed if self.tests != 1 => ("ok", format!(": {} tests", self.tests)),
            Status::Passed => ("ok", String::new()),
            Status::Failed(why) => ("FAILED", format!(": {why}")),
            Status::Skipped(why) => ("skipped", format!(": {why}")),
        };
        format!("{word:<8}{:>7.1} s  {}{why}", self.took.as_secs_f64(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_and_a_failure_is_the_status() {
        let mut summary = Summary::default();
        summary.add_all("unit tests", Status::Passed, Duration::ZERO, 7);
        summary.add("format", Status::Passed, Duration::ZERO);
        summary.add("deny", Status::Skipped("not installed".into()), Duration::ZERO);
        assert_eq!((summary.counts(), summary.print(Duration::ZERO)), ((8, 0, 1), 0));
        summary.add("clippy", Status::Failed("exit status 1".into()), Duration::ZERO);
        assert_eq!((summary.counts(), summary.print(Duration::ZERO)), ((8, 1, 1), 1));
    }
}
