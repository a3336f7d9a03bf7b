//! Runs programs of tests, and counts what passed.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::summary::Status;
use crate::exec::{Context, Result};

/// Runs tests and shows their output; returns how they ended and how many passed.
pub fn count_tests(command: &mut Command) -> Result<(Status, u64)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start the tests")?;
    let mut passed = 0;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line.context("what the tests say")?;
        writeln!(io::stdout(), "{line}").context("standard output")?;
        passed += passed_in(&line).unwrap_or(0);
    }
    let status = child.wait().context("the tests")?;
    let status = if status.success() { Status::Passed } else { Status::Failed(format!("the tests: {status}")) };
    Ok((status, passed))
}

/// `test result: ok. 12 passed; 0 failed; ...`; the ignored ones need a KVM and come later.
fn passed_in(line: &str) -> Option<u64> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    counts.split_once(" passed")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_read_from_the_result_line() {
        let line = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(passed_in(line), Some(12));
        assert_eq!(passed_in(&line.replace("ok", "FAILED")), Some(12));
        assert_eq!(passed_in("test result: looks good"), None);
    }
}
