//! An io_uring that can do nothing but move data between registered files and memory.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::thread;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};

use super::affinity::CpuSet;

/// Operations that are handed over to the kernel at once, at most.
const SUBMISSIONS: u32 = 256;
/// Operations that a ring is ever given.
const OPCODES: [u8; 5] =
    [opcode::Read::CODE, opcode::Write::CODE, opcode::Readv::CODE, opcode::Writev::CODE, opcode::AsyncCancel::CODE];
/// `IORING_REGISTER_FILES_UPDATE`: the only change that a ring allows once it runs.
const REGISTER_FILES_UPDATE: u8 = 6;
/// Free places in the table of files.
const NO_FILE: RawFd = -1;
/// How often a closed ring is looked at by whoever waits for it.
const LOOK_AFTER: Duration = Duration::from_millis(1);

/// A ring for one thread, which must be the one that makes it. Dropping it closes it; the kernel may then still be busy with
/// what it was given.
pub(crate) struct Uring {
    ring: IoUring,
    is_closed: bool,
}

/// What one operation does, with a pointer to what it does it to.
#[derive(Clone, Copy)]
pub(crate) enum Move {
    /// Fills memory from a position of the file.
    Read { vectors: *const libc::iovec, count: u32, at: u64 },
    /// Writes memory to a position of the file, and to its storage if it is to be `stable`.
    Write { vectors: *const libc::iovec, count: u32, at: u64, stable: bool },
}

impl Uring {
    /// Operations that may be in flight: as many as the kernel keeps completions.
    pub(crate) const IN_FLIGHT: u32 = 1024;
    /// Kernel threads that may carry out operations that have to wait, each ring's own.
    pub(crate) const WORKERS: u32 = 8;

    /// Makes a ring with room for `files` registered files. The kernel's workers for it run where the calling thread may run now.
    ///
    /// # Errors
    /// What the kernel says if it has no io_uring that fits (Linux 5.18), or forbids it, or if the process may not have so many
    /// files.
    pub(crate) fn new(files: u32) -> io::Result<Self> {
        let ring = build()?;
        let submitter = ring.submitter();
        submitter.register_files_sparse(files)?;
        submitter.register_iowq_max_workers(&mut [Self::WORKERS, 1])?;
        // Older kernels, such as 6.1, do not let its workers inherit where this thread may run. One that does not take this lets them
        // run anywhere.
        if let Ok(cpus) = CpuSet::of_this_thread() {
            let _ = submitter.register_iowq_aff(&cpus.in_c());
        }
        submitter.register_restrictions(&mut restrictions())?;
        submitter.register_enable_rings()?;
        Ok(Self { ring, is_closed: false })
    }

    /// Puts a file in a place of the table, or leaves it empty. The table keeps the file open.
    pub(crate) fn set_file(&self, place: u32, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fd = file.map_or(NO_FILE, |file| file.as_raw_fd());
        self.ring.submitter().register_files_update(place, &[fd]).map(|_| ())
    }

    /// Adds an operation on the file in a place of the table. Says whether there was room; if not, [`submit`](Self::submit)
    /// makes some.
    ///
    /// # Safety
    /// The vectors must be valid for the call, and until the operation is submitted. The memory that they lead to must stay
    /// mapped, and must not be referenced, until [`next`](Self::next) returns `id`; also if the ring is dropped before that.
    pub(crate) unsafe fn push(&mut self, place: u32, id: u64, what: Move) -> bool {
        // SAFETY: the caller vouches for the vectors, and for what they lead to.
        unsafe {
            let entry = entry(Fixed(place), what).user_data(id);
            self.ring.submission().push(&entry).is_ok()
        }
    }

    /// Adds the wish that an operation ends, with `id` as its own name. One that no kernel thread has begun yet ends with
    /// `ECANCELED`; others go on, and those of storage without an answer may end with `EINTR`. Says whether there was room.
    pub(crate) fn push_cancel(&mut self, id: u64, operation: u64) -> bool {
        let entry = opcode::AsyncCancel::new(operation).build().flags(Flags::FIXED_FILE).user_data(id);
        // SAFETY: it leads to no memory.
        unsafe { self.ring.submission().push(&entry).is_ok() }
    }

    /// Whether there is something to [submit](Self::submit). Costs no system call.
    pub(crate) fn has_pushed(&mut self) -> bool {
        !self.is_closed && !self.ring.submission().is_empty()
    }

    /// Whether there are completions, perhaps after another [`submit`](Self::submit). Costs no system call.
    pub(crate) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.has_task_work()
    }

    fn has_task_work(&mut self) -> bool {
        !self.is_closed && self.ring.submission().taskrun()
    }

    /// Hands over what was added, and has the kernel finish what it left to this thread to finish. What the kernel does not take
    /// now stays added. Does not wait for storage.
    ///
    /// # Errors
    /// What the kernel says if it took nothing.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        if self.has_pushed() || self.has_task_work() {
            self.ring.submit()?;
        }
        Ok(())
    }

    /// Hands nothing over any more; returns how many of the operations that were added last the kernel never took. What they lead
    /// to is theirs no more. Operations that it did take still end.
    pub(crate) fn close(&mut self) -> usize {
        let was_closed = std::mem::replace(&mut self.is_closed, true);
        if was_closed { 0 } else { self.ring.submission().len() }
    }

    /// Returns an operation that is done, and its result as a system call would return it.
    pub(crate) fn next(&mut self) -> Option<(u64, i32)> {
        self.ring.completion().next().map(|entry| (entry.user_data(), entry.result()))
    }

    /// Submits, and waits until an operation is done or `limit` has passed. If the ring is closed, it waits for a moment only.
    pub(crate) fn wait(&mut self, limit: Duration) {
        if self.is_closed {
            // Not in the ring: the kernel might take what is still there.
            return thread::sleep(limit.min(LOOK_AFTER));
        }
        let limit = Timespec::from(limit);
        // That the limit has passed is an error, too; whoever calls looks for completions anyway.
        let _ = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit));
    }
}

impl AsRawFd for Uring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

fn build() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_r_disabled().setup_cqsize(Uring::IN_FLIGHT).setup_submit_all().dontfork();
    // Completions without interrupting the thread, which looks for them anyway (Linux 6.0). They end its sleep, whatever it
    // sleeps in; with `setup_defer_taskrun`, only a sleep in the ring would end.
    let mut tuned = builder.clone();
    tuned.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag();
    tuned.build(SUBMISSIONS).or_else(|_| builder.build(SUBMISSIONS))
}

/// The ring is no way around a filter of system calls: it only does what this says, to registered files and its own operations.
fn restrictions() -> Vec<Restriction> {
    let flags = Flags::FIXED_FILE.bits();
    let mut restrictions = vec![
        Restriction::register_op(REGISTER_FILES_UPDATE),
        Restriction::sqe_flags_allowed(flags),
        Restriction::sqe_flags_required(flags),
    ];
    restrictions.extend(OPCODES.map(Restriction::sqe_op));
    restrictions
}

/// # Safety
/// The vectors must be valid.
unsafe fn entry(file: Fixed, what: Move) -> Entry {
    match what {
        Move::Read { vectors, count: 1, at } => {
            // SAFETY: there is one vector.
            let vector = unsafe { *vectors };
            opcode::Read::new(file, vector.iov_base.cast(), len(vector)).offset(at).build()
        }
        Move::Read { vectors, count, at } => opcode::Readv::new(file, vectors, count).offset(at).build(),
        Move::Write { vectors, count: 1, at, stable } => {
            // SAFETY: as above.
            let vector = unsafe { *vectors };
            let write = opcode::Write::new(file, vector.iov_base.cast(), len(vector));
            write.offset(at).rw_flags(sync_flag(stable)).build()
        }
        Move::Write { vectors, count, at, stable } => {
            opcode::Writev::new(file, vectors, count).offset(at).rw_flags(sync_flag(stable)).build()
        }
    }
}

/// The kernel moves less than it is asked to in one operation anyway.
fn len(vector: libc::iovec) -> u32 {
    u32::try_from(vector.iov_len).unwrap_or(u32::MAX)
}

fn sync_flag(stable: bool) -> i32 {
    if stable { libc::RWF_DSYNC } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::testing::has_uring;

    fn file() -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        file
    }

    fn run(ring: &mut Uring, place: u32, what: Move) -> i32 {
        // SAFETY: the test waits for the operation, and keeps its memory until then.
        assert!(unsafe { ring.push(place, 7, what) });
        assert!(ring.has_pushed());
        ring.wait(Duration::from_secs(10));
        assert!(ring.has_completions() && !ring.has_pushed());
        let (id, result) = ring.next().unwrap();
        assert_eq!((id, ring.next()), (7, None));
        result
    }

    #[test]
    fn a_registered_file_is_read_and_written() {
        if !has_uring() {
            return;
        }
        let (mut ring, file) = (Uring::new(4).unwrap(), file());
        ring.set_file(3, Some(file.as_fd())).unwrap();
        let mut bytes = [0u8; 5];
        let vector = |bytes: &mut [u8]| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let (first, rest) = bytes.split_at_mut(2);
        let halves = [vector(first), vector(rest)];
        assert_eq!(run(&mut ring, 3, Move::Read { vectors: halves.as_ptr(), count: 2, at: 0 }), 5);
        assert_eq!(&bytes, b"hello");
        let one = [vector(&mut bytes)];
        assert_eq!(run(&mut ring, 3, Move::Write { vectors: one.as_ptr(), count: 1, at: 5, stable: true }), 5);
        assert_eq!(file.metadata().unwrap().len(), 10);
        ring.set_file(3, None).unwrap();
        assert_eq!(run(&mut ring, 3, Move::Read { vectors: one.as_ptr(), count: 1, at: 0 }), -libc::EBADF);
    }

    /// Reading a file that knows no reads without waiting is always left to a worker.
    #[test]
    fn the_workers_of_a_ring_run_where_its_thread_did_when_it_made_the_ring() {
        if !has_uring() {
            return;
        }
        let all = crate::sys::allowed_cpus().unwrap();
        let last = *all.last().unwrap();
        let where_workers_run = std::thread::spawn(move || {
            CpuSet::new(&[last]).unwrap().bind_this_thread().unwrap();
            let (mut ring, file) = (Uring::new(4).unwrap(), File::open("/proc/self/status").unwrap());
            ring.set_file(0, Some(file.as_fd())).unwrap();
            // Newer kernels let workers inherit where the thread may run by then.
            CpuSet::new(&all).unwrap().bind_this_thread().unwrap();
            let mut bytes = [0u8; 5];
            let one = [libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }];
            assert_eq!(run(&mut ring, 0, Move::Read { vectors: one.as_ptr(), count: 1, at: 0 }), 5);
            let worker = format!("iou-wrk-{}\n", crate::sys::current_thread_id());
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
            let workers =
                tasks.filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm == worker));
            let cpus = |task: std::path::PathBuf| {
                let status = std::fs::read_to_string(task.join("status")).unwrap();
                let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
                list.trim().to_owned()
            };
            workers.map(cpus).collect::<Vec<_>>()
        });
        let found = where_workers_run.join().unwrap();
        assert!(!found.is_empty() && found.iter().all(|cpus| *cpus == last.to_string()), "{found:?} for CPU {last}");
    }

    #[test]
    fn a_ring_refuses_everything_but_data_of_registered_files() {
        if !has_uring() {
            return;
        }
        let mut ring = Uring::new(1).unwrap();
        let file = file();
        let mut refused = |entry: Entry| {
            // SAFETY: none of these is carried out.
            unsafe { ring.ring.submission().push(&entry) }.unwrap();
            ring.wait(Duration::from_secs(10));
            ring.next().unwrap().1
        };
        let mut byte = 0;
        let unregistered = opcode::Read::new(io_uring::types::Fd(file.as_raw_fd()), &mut byte, 1).build();
        assert_eq!(refused(unregistered), -libc::EACCES);
        assert_eq!(refused(opcode::Fsync::new(Fixed(0)).build().flags(Flags::FIXED_FILE)), -libc::EACCES);
        assert_eq!(refused(opcode::Nop::new().build().flags(Flags::FIXED_FILE)), -libc::EACCES);
        let path = c"/etc/passwd";
        let open = opcode::OpenAt::new(io_uring::types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
        assert_eq!(refused(open), -libc::EACCES);
        let submitter = ring.ring.submitter();
        assert_eq!(submitter.register_personality().unwrap_err().raw_os_error(), Some(libc::EACCES));
        assert_eq!(submitter.unregister_files().unwrap_err().raw_os_error(), Some(libc::EACCES));
    }
}
