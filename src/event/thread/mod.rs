//! An I/O thread as a value: it is started, shared by its handles, and joined when the last of them is dropped.

#[cfg(any(test, feature = "test-util"))]
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::ending::Ending;
use super::participant::Participant;
use super::place::{Bell, Place};
use super::polling::PollingStats;
use super::reactor::{Reactor, Refused, Removed, contain};
use crate::config::Seccomp;
use crate::confine::{Kind, ThreadFilter};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::sync::mpsc::{Receiver, SyncSender, sync_channel};
use crate::sys::{ThreadHandle, current_thread_id, forbid_waiting, lock, lock_if_free, may_wait, spawn};

/// How long a thread may take to take a participant in.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

/// A thread that serves devices. A clone is another handle to the same thread.
///
/// Devices of one VM or of many may share a thread; a busy disk may have one of its own. The devices take turns, and each turn
/// is [bounded](crate::event), so none waits long for another. The thread ends, and is joined, when the last handle and the
/// last device on it are gone. If its io_uring still waits for storage that does not answer, it is left to end by itself (see
/// [`abandoned_transfers`](crate::block::abandoned_transfers)). It runs with every signal blocked.
///
/// [What a callback may do](crate::event#what-a-callback-may-do) says which calls can be made on such a thread, for instance in a
/// backend or in a console's callback.
///
/// ```
/// let shared = vmcell::IoThread::new("vm-io")?;
/// let another_handle = shared.clone();
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone)]
pub struct IoThread {
    pub(super) joiner: Arc<Joiner>,
}

/// On which thread a device is served.
#[derive(Debug)]
pub(crate) enum Placement {
    /// The VM's own.
    Shared,
    /// The one that was chosen.
    Chosen(IoThread),
    /// One that is made for it alone.
    Alone,
}

/// What the last handle drops: it ends the thread, and waits for that.
pub(super) struct Joiner {
    pub(super) shared: Arc<Shared>,
    thread: Mutex<Option<ThreadHandle>>,
}

pub(super) struct Shared {
    pub(super) bell: Arc<Bell>,
    posts: Mutex<Posts>,
    stop: AtomicBool,
    is_filtered: AtomicBool,
    pub(super) name: String,
    /// The kernel's identifier of the thread.
    pub(super) tid: OnceLock<i32>,
    ending: Ending,
    /// Serves the participants, if there is no thread.
    #[cfg(any(test, feature = "test-util"))]
    inline: OnceLock<Mutex<Reactor>>,
}

#[derive(Default)]
struct Posts {
    waiting: Vec<Post>,
    /// The thread has ended, and takes none any more.
    ended: bool,
}

/// What is asked of the thread itself.
enum Post {
    /// One that is refused comes back, since dropping it may take a while.
    Add {
        participant: Box<dyn Participant>,
        place: Arc<Place>,
        reply: SyncSender<std::result::Result<(), Box<Refused>>>,
    },
    Remove {
        place: Arc<Place>,
        reply: SyncSender<Option<Removed>>,
    },
    Confine {
        filter: Arc<ThreadFilter>,
        /// Whether there is to be a ring for those that come later.
        makes_ring: bool,
        reply: SyncSender<Result<()>>,
    },
}

impl IoThread {
    /// Starts a thread. Linux keeps the first 15 bytes of its name.
    ///
    /// # Errors
    /// [`ErrorKind::Host`](crate::ErrorKind::Host) if the host gives no thread or no descriptor;
    /// [`ErrorKind::InvalidConfig`] if the name has a NUL.
    pub fn new(name: &str) -> Result<Self> {
        Self::start(name, Box::new(|| true))
    }

    /// Starts a thread that goes on if `prepare`, its first call, says so.
    pub(super) fn start(name: &str, prepare: Box<dyn FnOnce() -> bool + Send>) -> Result<Self> {
        if name.contains('\0') {
            let message = format!("the thread name {name:?} was asked for, allowed are names without NUL");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let bell = Arc::new(Bell::new()?);
        let reactor = Reactor::new(Arc::clone(&bell))?;
        let shared = Arc::new(Shared::new(name, bell));
        let served = Arc::clone(&shared);
        let thread = spawn(name, move || served.run(reactor, prepare))?;
        Ok(Self { joiner: Arc::new(Joiner { shared, thread: Mutex::new(Some(thread)) }) })
    }

    /// Sets for how long at most the thread looks for more to do before it sleeps. The default is 50 µs, zero turns it off, and
    /// more than 1 ms counts as 1 ms. While the thread looks, the guest's drivers need not ring, which saves them an exit, and nobody
    /// has to wake it.
    ///
    /// How long it looks is learned from how soon more came before. So a thread that is seldom needed does not look. A thread that looks
    /// in vain, because the driver needs the same CPU for instance, does so less and less often. Never blocks.
    pub fn set_polling(&self, limit: Duration) {
        self.joiner.shared.bell.polling.set_limit(limit);
    }

    /// Filters what the thread asks of the kernel from now on, as [`VmBuilder::seccomp`](crate::VmBuilder::seccomp) does for the I/O
    /// threads that a VM makes for itself, and what the threads do that it starts from now on. The thread makes its io_uring before, so
    /// that disks can be added later. Backends and devices of your own, and a console's callback, may do no more than
    /// `docs/confinement.md` lists either. A VM with a console's file of a [limited size](crate::ConsoleFile::rotate) needs another I/O
    /// thread, since this one opens no files. With [`Seccomp::Off`], this does nothing. It cannot be undone.
    ///
    /// ```
    /// use vmcell::{IoThread, Seccomp};
    ///
    /// let shared = IoThread::new("vm-io")?;
    /// shared.seccomp(Seccomp::Refuse)?;
    /// # Ok::<(), vmcell::Error>(())
    /// ```
    ///
    /// Waits until it is done, at most for ten seconds.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if it is filtered already, or if the caller runs on this very thread;
    /// [`ErrorKind::Timeout`] if the thread does not come to it in that time; [`ErrorKind::Host`] if the kernel has no filters of system
    /// calls.
    pub fn seccomp(&self, seccomp: Seccomp) -> Result<()> {
        let filter = ThreadFilter::new(Kind::Io { rotates: false, vsock: true, connects: false }, seccomp)?;
        filter.map_or(Ok(()), |filter| self.confine_with(Arc::new(filter), true))
    }

    /// Returns what polling has cost and brought since the thread began. Never blocks.
    pub fn polling_stats(&self) -> PollingStats {
        self.joiner.shared.bell.polling.stats()
    }

    /// Measures each turn from now on, by the CPU time that the thread spends on it. This costs two system calls per turn.
    pub fn measure_turns(&self) {
        self.joiner.shared.bell.meter.start();
    }

    /// Returns the longest turn since [`measure_turns`](Self::measure_turns), or zero if there was none. Never blocks.
    pub fn longest_turn(&self) -> Duration {
        self.joiner.shared.bell.meter.longest()
    }

    /// Gives a participant to the thread, and waits until it is attached, at most for ten seconds. A thread that takes longer counts as
    /// stuck until it comes back: nobody waits for it any more.
    ///
    /// # Errors
    /// What attaching says; [`ErrorKind::InvalidState`] if the caller runs on this very thread, which cannot wait for itself;
    /// [`ErrorKind::Timeout`] if the thread does not come to it in that time.
    pub(crate) fn add(&self, participant: Box<dyn Participant>) -> Result<Membership> {
        self.add_within(participant, ATTACH_LIMIT)
    }

    fn add_within(&self, participant: Box<dyn Participant>, limit: Duration) -> Result<Membership> {
        let shared = &self.joiner.shared;
        if shared.bell.is_current() {
            let message = "a VM cannot be built on an I/O thread that is to serve it";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        #[cfg(any(test, feature = "test-util"))]
        let participant = shared.prepare_inline(participant);
        let place = Place::new(Arc::clone(&shared.bell));
        let (reply, attached) = sync_channel(1);
        shared.post(Post::Add { participant, place: Arc::clone(&place), reply });
        shared.wait_for(&attached, limit)?.map_err(|refused| refused.error)?;
        Ok(Membership { thread: self.clone(), place })
    }

    /// Filters what the thread asks of the kernel from now on, and what the threads do that it starts from now on; waits for that, as
    /// for [adding](Self::add). What its participants have attached stays as it is, so that they are added before.
    ///
    /// # Errors
    /// Those of [`ThreadFilter::apply`]; [`ErrorKind::Timeout`] if the thread does not come to it in time.
    pub(crate) fn confine(&self, filter: Arc<ThreadFilter>) -> Result<()> {
        self.confine_with(filter, false)
    }

    fn confine_with(&self, filter: Arc<ThreadFilter>, makes_ring: bool) -> Result<()> {
        let shared = &self.joiner.shared;
        if shared.bell.is_current() {
            let message = "an I/O thread cannot be filtered by a function that it calls itself";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        let (reply, confined) = sync_channel(1);
        shared.post(Post::Confine { filter, makes_ring, reply });
        shared.wait_for(&confined, ATTACH_LIMIT)??;
        shared.is_filtered.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Whether the thread's system calls are filtered by us.
    pub(crate) fn is_filtered(&self) -> bool {
        self.joiner.shared.is_filtered.load(Ordering::SeqCst)
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.bell.call();
        let thread = lock(&self.thread).take();
        // A thread ends when it comes back to its loop. It cannot join itself, and if it waited here for another one that waits for
        // it, neither would come back.
        if let Some(thread) = thread.filter(|_| self.shared.may_wait())
            && self.shared.ending.wait()
        {
            thread.join();
        }
    }
}

struct Ends<'a>(&'a Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
        self.0.ending.tell(true);
    }
}

impl Shared {
    fn new(name: &str, bell: Arc<Bell>) -> Self {
        Self {
            name: name.to_owned(),
            tid: OnceLock::new(),
            bell,
            posts: Mutex::default(),
            stop: AtomicBool::new(false),
            is_filtered: AtomicBool::new(false),
            ending: Ending::default(),
            #[cfg(any(test, feature = "test-util"))]
            inline: OnceLock::new(),
        }
    }

    fn run(&self, reactor: Reactor, prepare: Box<dyn FnOnce() -> bool + Send>) {
        // However the thread ends, nobody is to wait for an answer of it.
        let _ends = Ends(self);
        let mut reactor = reactor;
        self.bell.settle();
        forbid_waiting();
        let _ = self.tid.set(current_thread_id());
        if prepare() {
            self.serve(&mut reactor);
        }
        if !reactor.end() {
            self.ending.tell(false);
            reactor.outlast_ring();
        }
    }

    fn serve(&self, reactor: &mut Reactor) {
        loop {
            self.take_posts(reactor);
            // Without a handle there is no membership either: what is still here is dropped with the reactor.
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            // Waiting can only fail for reasons that do not pass: without a queue of events there is nothing to serve.
            if reactor.round().is_err() {
                return;
            }
        }
    }

    fn take_posts(&self, reactor: &mut Reactor) {
        if !self.bell.called.swap(false, Ordering::SeqCst) {
            return;
        }
        // Whoever holds the lock may be a thread that does not run now; it rings when it has let go.
        let Some(posts) = lock_if_free(&self.posts).map(|mut posts| std::mem::take(&mut posts.waiting)) else { return };
        for post in posts {
            match post {
                Post::Add { participant, place, reply } => {
                    let added = reactor.add(participant, Arc::clone(&place));
                    if reply.send(added).is_err() {
                        drop(reactor.remove(&place));
                        self.bell.stuck.store(false, Ordering::SeqCst);
                    }
                }
                Post::Confine { filter, makes_ring, reply } => {
                    if makes_ring {
                        let _ = reactor.ring.get();
                    }
                    reactor.ring.make_none("the thread's system calls were filtered before it needed a ring");
                    let _ = reply.send(filter.apply());
                }
                Post::Remove { place, reply } => {
                    // Whoever waits for it drops it, which may take a while; if nobody does, it is dropped here.
                    let _ = reply.send(reactor.remove(&place));
                }
            }
        }
    }

    /// Leaves a post; if the thread has ended, it is dropped, and so is the sender of its reply.
    fn post(&self, post: Post) {
        let mut posts = lock(&self.posts);
        if posts.ended {
            return;
        }
        posts.waiting.push(post);
        drop(posts);
        self.bell.call();
        #[cfg(any(test, feature = "test-util"))]
        self.take_posts_inline();
    }

    /// From now on posts are not waited for.
    fn end(&self) {
        let mut posts = lock(&self.posts);
        posts.ended = true;
        let waiting = std::mem::take(&mut posts.waiting);
        drop(posts);
        waiting.into_iter().for_each(|post| _ = contain(|| drop(post)));
    }

    /// Waits for the answer to a post. Whatever comes later than that is dropped there.
    fn wait_for<R>(&self, answer: &Receiver<R>, limit: Duration) -> Result<R> {
        match answer.recv_timeout(limit) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Timeout) => {
                self.bell.stuck.store(true, Ordering::SeqCst);
                let message = format!("an I/O thread was held by a device, a backend or a callback for {limit:?}");
                Err(Error::new(ErrorKind::Timeout, message))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::new(ErrorKind::Host, "the I/O thread has ended")),
        }
    }

    /// Whether the caller may wait for something that the thread does.
    fn may_wait(&self) -> bool {
        may_wait() && !self.bell.stuck.load(Ordering::SeqCst)
    }
}

/// A participant on an I/O thread.
///
/// Dropping it takes the participant off the thread and drops it: after that it is not running and never runs again. From
/// any thread; waits for the turns that are under way. On an I/O thread, or if the thread is stuck, it does not wait: then the
/// thread drops the participant when it comes to it.
#[must_use = "dropping it removes the participant"]
pub(crate) struct Membership {
    thread: IoThread,
    place: Arc<Place>,
}

impl Membership {
    /// Says on which thread it is.
    pub(crate) fn is_on_this_thread(&self) -> bool {
        self.thread.joiner.shared.bell.is_current()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let shared = &self.thread.joiner.shared;
        self.place.remove();
        let (reply, removed) = sync_channel(1);
        shared.post(Post::Remove { place: Arc::clone(&self.place), reply });
        if shared.may_wait() {
            drop(removed.recv());
        }
    }
}

impl std::fmt::Debug for IoThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoThread").field("name", &self.name()).finish_non_exhaustive()
    }
}

#[cfg(any(test, feature = "test-util"))]
mod inline;

#[cfg(test)]
#[path = "thread_test.rs"]
mod tests;

#[cfg(all(test, shuttle))]
#[path = "model_test.rs"]
mod models;
