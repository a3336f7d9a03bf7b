//! Work that takes long, and that nobody waits for: a thread of its own does it, and ends.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use super::caught::catch_panic;
use super::lock::lock;
use super::sync::mpsc::{Receiver, SyncSender, sync_channel};
use super::sync::{Mutex, thread_local};
use super::thread::{is_filtered, may_wait, spawn};

type Job = Box<dyn FnOnce() + Send>;

/// What the host gave no thread for.
static WAITING: Mutex<VecDeque<Job>> = Mutex::new(VecDeque::new());

/// Has another thread do something that may block. Never blocks itself.
///
/// Each job gets a thread of its own, so that one that is held up holds up no other. If the host gives none, the job waits until a thread
/// of a later one has time for it. A thread that a filtered one starts is filtered as well, and does no job but its own.
pub(crate) fn do_elsewhere(job: impl FnOnce() + Send + 'static) {
    let job: Job = Box::new(job);
    let own = Arc::new(Mutex::new(Some(job)));
    let theirs = Arc::clone(&own);
    if spawn("vmcell-end", move || work(&theirs)).is_err() {
        lock(&WAITING).extend(take(&own));
    }
}

fn work(own: &Mutex<Option<Job>>) {
    let mut job = take(own);
    while let Some(begun) = job {
        // What it drops may be a user's, whose panic is nothing to the next job; what the panic carries may panic as well.
        let _ = catch_panic(begun);
        job = if is_filtered() { None } else { next() };
    }
}

thread_local! {
    /// This thread drops such a value. What that owns may be the owner of the value, or of another one whose thread does the same.
    static IS_DROPPING: Cell<bool> = const { Cell::new(false) };
}

/// A value that another thread drops, since its code may block there.
///
/// Dropping this waits until the value is gone, unless the caller is a thread that must not wait, or drops such a value itself.
pub(crate) struct Parting<T> {
    /// Until somebody begins to drop it.
    value: Arc<Mutex<Option<T>>>,
    gone: Receiver<()>,
}

impl<T: Send + 'static> Parting<T> {
    /// Never blocks.
    pub(crate) fn begin(value: T) -> Self {
        let (drops, gone) = sync_channel(0);
        let value = Arc::new(Mutex::new(Some(value)));
        let theirs = Arc::clone(&value);
        do_elsewhere(move || {
            // Whoever waits is released when this ends.
            let _tells: SyncSender<()> = drops;
            IS_DROPPING.with(|is_dropping| is_dropping.set(true));
            let _ = catch_panic(|| drop(take(&theirs)));
            IS_DROPPING.with(|is_dropping| is_dropping.set(false));
        });
        Self { value, gone }
    }
}

impl<T> Drop for Parting<T> {
    fn drop(&mut self) {
        if !may_wait() || IS_DROPPING.with(Cell::get) {
            return;
        }
        // The host may have given no thread.
        match take(&self.value) {
            Some(value) => _ = catch_panic(|| drop(value)),
            None => _ = self.gone.recv(),
        }
    }
}

fn take<T>(value: &Mutex<Option<T>>) -> Option<T> {
    lock(value).take()
}

fn next() -> Option<Job> {
    lock(&WAITING).pop_front()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;
    use crate::sys::{Filtered, note_filtered};

    /// Waits until it may be dropped, and tells when it is.
    struct Slow(Receiver<()>, std::sync::mpsc::Sender<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.recv();
            self.1.send(()).unwrap();
            panic!("told to panic");
        }
    }

    #[test]
    fn a_value_is_dropped_by_another_thread_and_waited_for_at_the_end() {
        let ((release, released), (tells, dropped)) = (channel(), channel());
        let parting = Parting::begin(Slow(released, tells));
        let waits = std::thread::spawn(move || drop(parting));
        assert!(dropped.recv_timeout(Duration::from_millis(100)).is_err() && !waits.is_finished());
        release.send(()).unwrap();
        waits.join().unwrap();
        dropped.try_recv().unwrap();
    }

    /// Owns, by a detour, what waits until it is gone.
    struct Circle(Arc<Mutex<Option<Parting<Circle>>>>, std::sync::mpsc::Sender<()>);

    impl Drop for Circle {
        fn drop(&mut self) {
            let parting = lock(&self.0).take();
            drop(parting);
            self.1.send(()).unwrap();
        }
    }

    #[test]
    fn a_value_that_owns_what_waits_for_it_does_not_wait_for_itself() {
        let (place, (tells, dropped)) = (Arc::new(Mutex::new(None)), channel());
        let mut owner = lock(&place);
        *owner = Some(Parting::begin(Circle(Arc::clone(&place), tells)));
        drop(owner);
        dropped.recv_timeout(Duration::from_secs(30)).unwrap();
    }

    #[test]
    fn a_value_that_no_thread_has_begun_with_is_dropped_by_its_owner() {
        let value = Arc::new(());
        let (_, gone) = sync_channel(0);
        let parting = Parting { value: Arc::new(Mutex::new(Some(Arc::clone(&value)))), gone };
        drop(parting);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_filtered_thread_does_what_it_was_asked_for_and_nothing_that_waits() {
        let (sender, done) = channel();
        let told = sender.clone();
        lock(&WAITING).push_back(Box::new(move || told.send(("waited", is_filtered())).unwrap()));
        let asks = sender.clone();
        let asker = std::thread::spawn(move || {
            note_filtered(Filtered::AsVm);
            do_elsewhere(move || asks.send(("asked", is_filtered())).unwrap());
        });
        asker.join().unwrap();
        let next = || done.recv_timeout(Duration::from_secs(30)).unwrap();
        let first = next();
        do_elsewhere(move || sender.send(("later", is_filtered())).unwrap());
        let mut all = [first, next(), next()];
        all.sort_unstable();
        assert_eq!(all, [("asked", true), ("later", false), ("waited", false)]);
    }

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
