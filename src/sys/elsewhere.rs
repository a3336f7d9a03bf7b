//! Work that takes long, and that nobody waits for: a thread of its own does it, and ends.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::lock::lock;
use super::thread::spawn;

type Job = Box<dyn FnOnce() + Send>;

/// What no thread has begun with. It holds something for longer only if the host gives no threads.
static WAITING: Mutex<VecDeque<Job>> = Mutex::new(VecDeque::new());

/// Has another thread do something that may block. Never blocks itself.
///
/// Each job gets a thread, so that one that is held up holds up no other. If the host gives none, the job waits until a thread of
/// a later one has time for it.
pub(crate) fn do_elsewhere(job: impl FnOnce() + Send + 'static) {
    lock(&WAITING).push_back(Box::new(job));
    // Refused: see above.
    let _ = spawn("vmcell-end", work);
}

fn work() {
    while let Some(job) = next() {
        // What it drops may be a user's, whose panic is nothing to the next job; what the panic carries may panic as well.
        let _ = catch_unwind(AssertUnwindSafe(job)).map_err(mem::forget);
    }
}

fn next() -> Option<Job> {
    lock(&WAITING).pop_front()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_job_that_blocks_or_panics_holds_up_no_other() {
        let (release, blocked) = channel::<()>();
        let (sender, done) = channel();
        let told = sender.clone();
        do_elsewhere(move || {
            let _ = blocked.recv();
            told.send("the first").unwrap();
        });
        do_elsewhere(|| panic!("told to panic"));
        do_elsewhere(move || sender.send("the last").unwrap());
        assert_eq!(done.recv_timeout(Duration::from_secs(30)).unwrap(), "the last");
        drop(release);
        assert_eq!(done.recv_timeout(Duration::from_secs(30)).unwrap(), "the first");
    }
}
