//! An I/O thread that falls asleep, or ends, while others wake it: in each order of their steps.

use super::*;
use crate::event::{Cause, Event, Io, Waker, Wants};
use crate::sys::EventFd;
use crate::sys::model::check;
use crate::sys::sync::thread;

/// Tells when it was woken.
struct Sleeper {
    told: Arc<EventFd>,
    waker: Arc<OnceLock<Waker>>,
}

impl Participant for Sleeper {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        let _ = self.waker.set(io.waker(token));
        Ok(())
    }

    fn turn(&mut self, _io: &mut Io, events: &[Event]) {
        if events.iter().any(|event| event.cause == Cause::Woken) {
            self.told.signal();
        }
    }

    fn wants(&self, _wants: &mut Wants) {}
}

fn io_thread() -> IoThread {
    let io_thread = IoThread::new("model-io").unwrap();
    // How long it looks depends on the clock.
    io_thread.set_polling(Duration::ZERO);
    io_thread
}

fn sleeper(io_thread: &IoThread) -> (Membership, Arc<EventFd>, Waker) {
    let (told, waker) = (Arc::new(EventFd::new().unwrap()), Arc::<OnceLock<Waker>>::default());
    let participant = Sleeper { told: Arc::clone(&told), waker: Arc::clone(&waker) };
    let membership = io_thread.add(Box::new(participant)).unwrap();
    (membership, told, waker.get().unwrap().clone())
}

#[test]
fn a_thread_that_falls_asleep_misses_no_wake() {
    check(|| {
        let io_thread = io_thread();
        let (_membership, told, waker) = sleeper(&io_thread);
        for _ in 0..3 {
            waker.wake();
            told.wait();
        }
    });
}

#[test]
fn wakes_of_several_threads_for_several_participants_all_arrive() {
    check(|| {
        let io_thread = io_thread();
        let sleepers = [sleeper(&io_thread), sleeper(&io_thread)];
        let wakers: Vec<_> = sleepers.iter().map(|(_, told, waker)| (Arc::clone(told), waker.clone())).collect();
        let threads = wakers.into_iter().map(|(told, waker)| {
            thread::spawn(move || {
                for _ in 0..2 {
                    waker.wake();
                    told.wait();
                }
            })
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn participants_come_and_go_while_others_do_and_the_thread_ends_after_them() {
    check(|| {
        let io_thread = io_thread();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let io_thread = io_thread.clone();
                thread::spawn(move || {
                    let (membership, told, waker) = sleeper(&io_thread);
                    waker.wake();
                    told.wait();
                    drop(membership);
                    waker.wake();
                })
            })
            .collect();
        drop(io_thread);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
