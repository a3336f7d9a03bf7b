//! Handlers that come and go, from every thread, while their descriptors are ready.

use std::sync::atomic::AtomicU32;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::*;

fn io_thread() -> IoThread {
    IoThread::new("test-io").unwrap()
}

fn event() -> Arc<EventFd> {
    Arc::new(EventFd::new().unwrap())
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited too long for {what}");
        thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn a_handler_is_called_when_its_descriptor_is_ready() {
    let (fd, (sender, receiver)) = (event(), channel());
    let seen = Arc::clone(&fd);
    let registration = io_thread().register(Arc::clone(&fd), Interest::Readable, move |ready| {
        seen.take();
        sender.send(ready.readable).unwrap();
    });
    let _registration = registration.unwrap();
    for _ in 0..3 {
        fd.signal();
        assert!(receiver.recv_timeout(Duration::from_secs(10)).unwrap());
    }
}

#[test]
fn after_removal_the_handler_is_not_running_and_never_called() {
    let thread = io_thread();
    for _ in 0..200 {
        let (fd, running, gone) = (event(), Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (inside, removed) = (Arc::clone(&running), Arc::clone(&gone));
        // Ready for ever: nobody takes it.
        fd.signal();
        let registration = thread.register(fd, Interest::Readable, move |_| {
            assert!(!removed.load(Ordering::SeqCst), "called after its removal");
            inside.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
        });
        thread::sleep(Duration::from_micros(50));
        drop(registration.unwrap());
        gone.store(true, Ordering::SeqCst);
        assert_eq!(running.load(Ordering::SeqCst), 0);
        assert_eq!(Arc::strong_count(&running), 1, "the handler was dropped");
    }
}

#[test]
fn a_handler_may_remove_itself() {
    let (fd, (sender, receiver)) = (event(), channel());
    let own: Arc<Mutex<Option<Registration>>> = Arc::default();
    let slot = Arc::clone(&own);
    let thread = io_thread();
    let registration = thread.register(Arc::clone(&fd), Interest::Readable, move |_| {
        drop(lock(&slot).take());
        sender.send(()).unwrap();
    });
    *lock(&own) = Some(registration.unwrap());
    fd.signal();
    receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(receiver.recv_timeout(Duration::from_secs(10)).is_err(), "its sender is gone with it");
}

#[test]
fn a_handler_may_remove_another() {
    let thread = io_thread();
    let (first, second, calls) = (event(), event(), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&calls);
    let victim = thread.register(Arc::clone(&second), Interest::Readable, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let mut victim = Some(victim.unwrap());
    let (sender, receiver) = channel();
    let taken = Arc::clone(&first);
    let killer = thread.register(Arc::clone(&first), Interest::Readable, move |_| {
        taken.take();
        drop(victim.take());
        sender.send(()).unwrap();
    });
    let _killer = killer.unwrap();
    first.signal();
    receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    second.signal();
    first.signal();
    receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[test]
fn a_handler_that_panics_is_removed_and_the_others_go_on() {
    let thread = io_thread();
    let (bad, good, calls) = (event(), event(), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&calls);
    let _bad = thread.register(Arc::clone(&bad), Interest::Readable, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        panic!("told to panic");
    });
    let (sender, receiver) = channel();
    let taken = Arc::clone(&good);
    let _good = thread.register(Arc::clone(&good), Interest::Readable, move |_| {
        taken.take();
        sender.send(()).unwrap();
    });
    for _ in 0..3 {
        bad.signal();
        good.signal();
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn interest_may_change_and_a_control_outlives_its_handler() {
    let thread = io_thread();
    let (fd, calls) = (event(), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&calls);
    let registration = thread.register(Arc::clone(&fd), Interest::Nothing, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let registration = registration.unwrap();
    fd.signal();
    thread::sleep(Duration::from_millis(10));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let control = registration.control();
    control.set_interest(Interest::Readable);
    eventually("a call", || calls.load(Ordering::SeqCst) > 2);
    control.set_interest(Interest::Nothing);
    drop(registration);
    control.set_interest(Interest::Readable);
    let calls_then = calls.load(Ordering::SeqCst);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(calls.load(Ordering::SeqCst), calls_then);
}

#[test]
fn the_thread_ends_with_its_last_handle() {
    let thread = io_thread();
    let shared = Arc::downgrade(&thread.owner.shared);
    let registration = thread.register(event(), Interest::Readable, |_| {}).unwrap();
    drop(thread);
    assert!(shared.upgrade().is_some(), "a registration is a handle");
    drop(registration);
    assert!(shared.upgrade().is_none());
}

#[test]
fn the_last_handle_may_be_dropped_on_the_thread_itself() {
    let thread = io_thread();
    let shared = Arc::downgrade(&thread.owner.shared);
    let fd = event();
    let slot: Arc<Mutex<Option<(IoThread, Registration)>>> = Arc::default();
    let own = Arc::clone(&slot);
    let registration = thread.register(Arc::clone(&fd), Interest::Readable, move |_| drop(lock(&own).take()));
    *lock(&slot) = Some((thread, registration.unwrap()));
    fd.signal();
    eventually("the end of the thread", || shared.upgrade().is_none());
}

#[test]
fn a_regular_file_is_refused_and_leaves_nothing_behind() {
    let thread = io_thread();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(thread.register(file, Interest::Readable, |_| {}).is_err());
    assert!(lock(&thread.owner.shared.entries).is_empty());
}
