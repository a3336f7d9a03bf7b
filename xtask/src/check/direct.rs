//! KVM tests on this very host, one process per test function.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::listing::KvmTest;
use super::summary::Status;
use crate::exec;

/// What a test that measures something says in front of it.
pub const FIGURE: &str = "figure: ";

/// Runs `test` with `environment`; the files that it writes go to `tmp`.
pub fn run(test: &KvmTest, limit: Duration, environment: &[(String, String)], tmp: &Path) -> (Status, Duration) {
    let began = Instant::now();
    // `timeout` ends the whole process group of a late test, launchers and all.
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &limit.as_secs().to_string()]).arg(&test.binary);
    command.args(["--ignored", "--exact", &test.name, "--nocapture"]);
    command.envs(environment.iter().map(|(name, value)| (name, value))).env("TMPDIR", tmp).current_dir(tmp);
    let output = command.stdin(Stdio::null()).output();
    let took = began.elapsed();
    let output = match output {
        Ok(output) => output,
        Err(error) => return (Status::Failed(format!("cannot start {}: {error}", exec::show(&command))), took),
    };
    if output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        said.lines().filter_map(|line| line.split_once(FIGURE)).for_each(|figure| println!("            {}", figure.1));
        return (Status::Passed, took);
    }
    for stream in [&output.stdout, &output.stderr] {
        print!("{}", String::from_utf8_lossy(stream));
    }
    let late = output.status.code().is_some_and(|code| exec::was_late(code, took, limit));
    let why = if late { format!("no end within {} s", limit.as_secs()) } else { output.status.to_string() };
    (Status::Failed(why), took)
}
