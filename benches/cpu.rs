//! The time that threads have spent on CPUs.

use std::fs;
use std::io::{Error, Result};
use std::path::PathBuf;
use std::time::Duration;

/// A thread of this process, by its name, or another process as a whole.
pub struct Clock {
    files: Vec<PathBuf>,
}

impl Clock {
    /// The only thread that has this name, as the kernel shows it.
    pub fn of_thread(name: &str) -> Result<Self> {
        let tasks = fs::read_dir("/proc/self/task")?;
        let named = tasks
            .flatten()
            .map(|task| task.path())
            .filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name));
        let files: Vec<_> = named.map(|task| task.join("schedstat")).collect();
        match files.len() {
            1 => Ok(Self { files }),
            count => Err(Error::other(format!("{count} threads are called {name:?}, and one was looked for"))),
        }
    }

    /// All threads that a process has now.
    #[allow(dead_code, reason = "not each program that has this file measures others")]
    pub fn of_process(process: u32) -> Result<Self> {
        let tasks = fs::read_dir(format!("/proc/{process}/task"))?;
        Ok(Self { files: tasks.flatten().map(|task| task.path().join("schedstat")).collect() })
    }

    /// How long they have run so far. A thread that has ended counts no more.
    pub fn read(&self) -> Duration {
        let nanos = |file: &PathBuf| fs::read_to_string(file).ok()?.split_whitespace().next()?.parse::<u64>().ok();
        Duration::from_nanos(self.files.iter().filter_map(nanos).sum())
    }
}
