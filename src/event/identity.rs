//! Which thread of the host an I/O thread is, and what it does before anything else.

use super::reactor::contain;
use super::thread::IoThread;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::sync::mpsc::sync_channel;

impl IoThread {
    /// Its name, as it was given. Linux shows the first 15 bytes.
    pub fn name(&self) -> &str {
        &self.joiner.shared.name
    }

    /// The kernel's identifier of the thread, as in `/proc/self/task`: for `sched_setaffinity`, or a cgroup's `cgroup.threads`.
    /// What the thread starts, disks' helper threads and io_uring's workers, is in its cgroup from then on, and helper threads also
    /// begin on its CPUs; io_uring's workers keep to the CPUs that it had when its first disk came.
    ///
    /// Blocks only for the moment that a new thread takes to tell.
    ///
    /// ```
    /// let io_thread = vmcell::IoThread::new("vm-io")?;
    /// let comm = std::fs::read_to_string(format!("/proc/self/task/{}/comm", io_thread.tid()))?;
    /// assert_eq!(comm, "vm-io\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tid(&self) -> i32 {
        *self.joiner.shared.tid.wait()
    }

    /// Starts a thread that calls `prepare` before it does anything else, and waits for that.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and what `prepare` says. Then there is no thread.
    pub(crate) fn prepared(name: &str, prepare: impl FnOnce() -> Result<()> + Send + 'static) -> Result<Self> {
        let (reply, answer) = sync_channel(1);
        let prepare = Box::new(move || {
            let panicked = || Err(Error::new(ErrorKind::Host, "the I/O thread panicked before it served anything"));
            let prepared = contain(prepare).unwrap_or_else(panicked);
            let goes_on = prepared.is_ok();
            let _ = reply.send(prepared);
            goes_on
        });
        let io_thread = Self::start(name, prepare)?;
        answer.recv().unwrap_or_else(|_| Err(Error::new(ErrorKind::Host, "the I/O thread has ended")))?;
        Ok(io_thread)
    }
}
