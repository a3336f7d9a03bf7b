//! Participants that come and go, from every thread, while something happens to them.

use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use super::*;
use crate::event::{Cause, Event, Interest, Io, TURN_BYTES, TURN_TIME, Token, Waker, Wants};
use crate::sys::EventFd;

const PATIENCE: Duration = Duration::from_secs(10);

fn io_thread() -> IoThread {
    IoThread::new("test-io").unwrap()
}

fn event() -> Arc<EventFd> {
    Arc::new(EventFd::new().unwrap())
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_micros(100));
    }
}

type OnTurn = Box<dyn FnMut(&mut Io, &[Event]) + Send>;
type OnWants = Box<dyn Fn(&mut Wants, Token) + Send>;

/// Does in its turns what a test says, and wants what it says.
struct Participates {
    on_turn: OnTurn,
    on_wants: OnWants,
    token: Option<Token>,
    waker: Option<Sender<Waker>>,
}

impl Participates {
    fn new(
        on_turn: impl FnMut(&mut Io, &[Event]) + Send + 'static,
        on_wants: impl Fn(&mut Wants, Token) + Send + 'static,
    ) -> Box<Self> {
        Box::new(Self { on_turn: Box::new(on_turn), on_wants: Box::new(on_wants), token: None, waker: None })
    }

    /// One that wants to read `fd` all the time, and is called for that alone.
    fn reading(fd: &Arc<EventFd>, mut on_readable: impl FnMut() + Send + 'static) -> Box<Self> {
        let fd = Arc::clone(fd);
        Self::new(
            move |_, events| {
                if events.iter().any(Event::is_readable) {
                    on_readable();
                }
            },
            move |wants, token| wants.descriptor(token, &fd, Interest::Readable),
        )
    }

    fn with_waker(mut self: Box<Self>) -> (Box<Self>, Receiver<Waker>) {
        let (sender, receiver) = channel();
        self.waker = Some(sender);
        (self, receiver)
    }
}

impl Participant for Participates {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.token = Some(token);
        if let Some(sender) = &self.waker {
            sender.send(io.waker(token)).unwrap();
        }
        Ok(())
    }

    fn turn(&mut self, io: &mut Io, events: &[Event]) {
        (self.on_turn)(io, events);
    }

    fn wants(&self, wants: &mut Wants) {
        (self.on_wants)(wants, self.token.expect("it is attached"));
    }
}

#[test]
fn a_participant_has_a_turn_when_its_descriptor_is_ready() {
    let (fd, (sender, receiver)) = (event(), channel());
    let seen = Arc::clone(&fd);
    let _membership = io_thread()
        .add(Participates::reading(&fd, move || {
            seen.take();
            sender.send(()).unwrap();
        }))
        .unwrap();
    for _ in 0..3 {
        fd.signal();
        receiver.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn a_doorbell_is_heard_each_time_without_being_read() {
    let (fd, calls) = (event(), Arc::new(AtomicU32::new(0)));
    let (rung, counted) = (Arc::clone(&fd), Arc::clone(&calls));
    let participant = Participates::new(
        move |_, events| _ = counted.fetch_add(u32::from(!events.is_empty()), Ordering::SeqCst),
        move |wants, token| wants.doorbell(token, &rung),
    );
    let _membership = io_thread().add(participant).unwrap();
    for round in 1..=3 {
        fd.signal();
        eventually("the call", || calls.load(Ordering::SeqCst) == round);
        thread::sleep(Duration::from_millis(5));
        assert_eq!(calls.load(Ordering::SeqCst), round, "heard once");
    }
}

#[test]
fn after_removal_a_participant_is_not_running_and_never_called() {
    let thread = io_thread();
    for _ in 0..200 {
        let (fd, running, gone) = (event(), Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (inside, removed) = (Arc::clone(&running), Arc::clone(&gone));
        // Ready for ever: nobody takes it.
        fd.signal();
        let membership = thread.add(Participates::reading(&fd, move || {
            assert!(!removed.load(Ordering::SeqCst), "called after its removal");
            inside.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
        }));
        thread::sleep(Duration::from_micros(50));
        drop(membership.unwrap());
        gone.store(true, Ordering::SeqCst);
        assert_eq!(running.load(Ordering::SeqCst), 0);
        assert_eq!(Arc::strong_count(&running), 1, "the participant was dropped");
    }
}

#[test]
fn a_participant_may_remove_itself() {
    let (fd, (sender, receiver)) = (event(), channel());
    let own: Arc<Mutex<Option<Membership>>> = Arc::default();
    let slot = Arc::clone(&own);
    let thread = io_thread();
    let membership = thread.add(Participates::reading(&fd, move || {
        drop(slot.lock().unwrap().take());
        sender.send(()).unwrap();
    }));
    *own.lock().unwrap() = Some(membership.unwrap());
    fd.signal();
    receiver.recv_timeout(PATIENCE).unwrap();
    assert!(receiver.recv_timeout(PATIENCE).is_err(), "its sender is gone with it");
}

#[test]
fn a_participant_may_remove_another() {
    let thread = io_thread();
    let (first, second, calls) = (event(), event(), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&calls);
    let victim = thread.add(Participates::reading(&second, move || _ = counted.fetch_add(1, Ordering::SeqCst)));
    let mut victim = Some(victim.unwrap());
    let (sender, receiver) = channel();
    let taken = Arc::clone(&first);
    let killer = thread.add(Participates::reading(&first, move || {
        taken.take();
        drop(victim.take());
        sender.send(()).unwrap();
    }));
    let _killer = killer.unwrap();
    first.signal();
    receiver.recv_timeout(PATIENCE).unwrap();
    second.signal();
    first.signal();
    receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[test]
fn a_participant_that_panics_is_removed_and_the_others_go_on() {
    let thread = io_thread();
    let (bad, good, calls) = (event(), event(), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&calls);
    let _bad = thread
        .add(Participates::reading(&bad, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("told to panic");
        }))
        .unwrap();
    let (sender, receiver) = channel();
    let taken = Arc::clone(&good);
    let _good = thread
        .add(Participates::reading(&good, move || {
            taken.take();
            sender.send(()).unwrap();
        }))
        .unwrap();
    for _ in 0..3 {
        bad.signal();
        good.signal();
        receiver.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_not_wanted_is_not_heard() {
    let (fd, wanted, calls) = (event(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (read, asked, counted) = (Arc::clone(&fd), Arc::clone(&wanted), Arc::clone(&calls));
    let (participant, waker) = Participates::new(
        move |_, events| {
            let readable = events.iter().filter(|event| event.is_readable()).count();
            counted.fetch_add(readable as u32, Ordering::SeqCst);
        },
        move |wants, token| {
            if asked.load(Ordering::SeqCst) {
                wants.descriptor(token, &read, Interest::Readable);
            }
        },
    )
    .with_waker();
    let _membership = io_thread().add(participant).unwrap();
    let waker = waker.recv().unwrap();
    fd.signal();
    thread::sleep(Duration::from_millis(10));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    wanted.store(true, Ordering::SeqCst);
    waker.wake();
    eventually("calls", || calls.load(Ordering::SeqCst) > 2);
    wanted.store(false, Ordering::SeqCst);
    waker.wake();
    eventually("silence", || {
        let calls_then = calls.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(5));
        calls.load(Ordering::SeqCst) == calls_then
    });
}

#[test]
fn no_wake_is_lost_however_many_threads_send_them() {
    let woken = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&woken);
    let (participant, waker) = Participates::new(
        move |_, events| {
            if events.iter().any(|event| event.cause == Cause::Woken) {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        },
        |_, _| {},
    )
    .with_waker();
    let _membership = io_thread().add(participant).unwrap();
    let waker = waker.recv().unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let before = woken.load(Ordering::SeqCst);
                    waker.wake();
                    eventually("the wake", || woken.load(Ordering::SeqCst) > before);
                }
            });
        }
    });
}

#[test]
fn a_deadline_is_met_once_and_not_early() {
    let (sender, receiver) = channel();
    let at = Instant::now() + Duration::from_micros(20_500);
    let mut met = false;
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    let participant = Participates::new(
        move |_, events| {
            if events.iter().any(|event| event.cause == Cause::Deadline) {
                assert!(!std::mem::replace(&mut met, true), "met twice");
                done.store(true, Ordering::SeqCst);
                sender.send(Instant::now()).unwrap();
            }
        },
        move |wants, token| {
            if !is_done.load(Ordering::SeqCst) {
                wants.deadline(token, at);
                wants.deadline(token, at + PATIENCE);
            }
        },
    );
    let _membership = io_thread().add(participant).unwrap();
    assert!(receiver.recv_timeout(PATIENCE).unwrap() >= at);
    assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
}

#[test]
fn one_that_always_has_more_to_do_leaves_the_others_their_turns() {
    let thread = io_thread();
    let busy = Participates::new(
        |io, _| {
            while !io.spent() {
                io.charge(1);
            }
        },
        |wants, _| wants.again(),
    );
    let _busy = thread.add(busy).unwrap();
    let (fd, (sender, receiver)) = (event(), channel());
    let seen = Arc::clone(&fd);
    let _quiet = thread
        .add(Participates::reading(&fd, move || {
            seen.take();
            sender.send(()).unwrap();
        }))
        .unwrap();
    let measured = || {
        thread.measure_turns();
        let begun = Instant::now();
        for _ in 0..100 {
            fd.signal();
            receiver.recv_timeout(PATIENCE).unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        thread.longest_turn()
    };
    // A host that is a guest itself may count what its own host takes from it.
    let longest = (0..10).map(|_| measured()).find(|longest| *longest < 2 * TURN_TIME);
    assert!(longest.is_some_and(|longest| longest > Duration::ZERO), "{:?}", thread.longest_turn());
}

#[test]
fn a_turn_is_over_by_its_bytes_or_its_time() {
    let (sender, receiver) = channel();
    let participant = Participates::new(
        move |io, _| {
            assert!(!io.spent());
            io.charge(TURN_BYTES - 1);
            let before = io.spent();
            io.charge(1);
            sender.send((before, io.spent())).unwrap();
        },
        |_, _| {},
    );
    let _membership = io_thread().add(participant).unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), (false, true));
}

#[test]
fn the_thread_ends_with_its_last_handle() {
    let thread = io_thread();
    let shared = Arc::downgrade(&thread.joiner.shared);
    let membership = thread.add(Participates::reading(&event(), || {})).unwrap();
    drop(thread);
    assert!(shared.upgrade().is_some(), "a membership is a handle");
    drop(membership);
    assert!(shared.upgrade().is_none());
}

#[test]
fn the_last_handle_may_be_dropped_on_the_thread_itself() {
    let thread = io_thread();
    let shared = Arc::downgrade(&thread.joiner.shared);
    let fd = event();
    let slot: Arc<Mutex<Option<(IoThread, Membership)>>> = Arc::default();
    let own = Arc::clone(&slot);
    let membership = thread.add(Participates::reading(&fd, move || drop(own.lock().unwrap().take())));
    *slot.lock().unwrap() = Some((thread, membership.unwrap()));
    fd.signal();
    eventually("the end of the thread", || shared.upgrade().is_none());
}

#[test]
fn a_thread_name_with_a_nul_is_refused() {
    assert!(IoThread::new("a\0b").unwrap_err().to_string().contains("without NUL"));
}

#[test]
fn a_participant_that_wants_what_cannot_be_polled_is_removed() {
    let file = Arc::new(std::fs::File::open("/proc/self/exe").unwrap());
    let held = Arc::clone(&file);
    let thread = io_thread();
    let _membership = thread
        .add(Participates::new(|_, _| {}, move |wants, token| wants.descriptor(token, &held, Interest::Readable)))
        .unwrap();
    eventually("its removal", || Arc::strong_count(&file) == 1);
}

#[test]
fn nothing_is_added_from_the_thread_itself() {
    let thread = io_thread();
    let (sender, receiver) = channel();
    let (fd, handle) = (event(), Mutex::new(Some(thread.clone())));
    let _membership = thread
        .add(Participates::reading(&fd, move || {
            if let Some(thread) = handle.lock().unwrap().take() {
                sender.send(thread.add(Participates::new(|_, _| {}, |_, _| {})).map(drop)).unwrap();
            }
        }))
        .unwrap();
    fd.signal();
    let error = receiver.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
}

#[test]
fn two_threads_that_take_a_participant_off_each_other_come_back() {
    let threads = [io_thread(), io_thread()];
    let met = Arc::new(std::sync::Barrier::new(2));
    let slots: [Arc<Mutex<Option<Membership>>>; 2] = Default::default();
    let (sender, came_back) = channel();
    let fds = [event(), event()];
    let memberships = [0, 1].map(|own| {
        let (met, other, sender) = (Arc::clone(&met), Arc::clone(&slots[1 - own]), sender.clone());
        threads[own].add(Participates::reading(&fds[own], move || {
            let taken = other.lock().unwrap().take();
            if let Some(membership) = taken {
                met.wait();
                drop(membership);
                sender.send(()).unwrap();
            }
        }))
    });
    for (slot, membership) in slots.iter().zip(memberships) {
        *slot.lock().unwrap() = Some(membership.unwrap());
    }
    fds.iter().for_each(|fd| fd.signal());
    for _ in 0..2 {
        came_back.recv_timeout(PATIENCE).expect("a thread waits for the other one");
    }
}

#[test]
fn two_threads_that_let_go_of_each_others_last_handle_come_back() {
    let threads = [io_thread(), io_thread()];
    let met = Arc::new(std::sync::Barrier::new(2));
    let slots: [Arc<Mutex<Option<IoThread>>>; 2] = Default::default();
    let (sender, came_back) = channel();
    let fds = [event(), event()];
    for own in [0, 1] {
        let (met, other, sender) = (Arc::clone(&met), Arc::clone(&slots[1 - own]), sender.clone());
        let reads = Participates::reading(&fds[own], move || {
            if let Some(thread) = other.lock().unwrap().take() {
                met.wait();
                drop(thread);
                sender.send(()).unwrap();
            }
        });
        // Without a membership, which would be a handle, too.
        let place = Place::new(Arc::clone(&threads[own].joiner.shared.bell));
        let (reply, added) = sync_channel(1);
        threads[own].joiner.shared.post(Post::Add { participant: reads, place, reply });
        assert!(added.recv().unwrap().is_ok());
    }
    for (slot, thread) in slots.iter().zip(threads) {
        *slot.lock().unwrap() = Some(thread);
    }
    fds.iter().for_each(|fd| fd.signal());
    for _ in 0..2 {
        came_back.recv_timeout(PATIENCE).expect("a thread waits for the other one's end");
    }
}

/// Does not come back from being attached until it is released.
struct Held(Receiver<()>);

impl Participant for Held {
    fn attach(&mut self, _io: &mut Io) -> Result<()> {
        let _ = self.0.recv();
        Ok(())
    }

    fn turn(&mut self, _io: &mut Io, _events: &[Event]) {}

    fn wants(&self, _wants: &mut Wants) {}
}

#[test]
fn a_thread_that_does_not_come_back_from_attaching_is_waited_for_by_nobody() {
    let thread = io_thread();
    let good = thread.add(Participates::new(|_, _| {}, |_, _| {})).unwrap();
    let (release, held) = channel();
    let (limit, begun) = (Duration::from_millis(50), Instant::now());
    let error = thread.add_within(Box::new(Held(held)), limit).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("was held by a device, a backend or a callback for 50ms"), "{error}");
    let bell = Arc::clone(&thread.joiner.shared.bell);
    drop(good);
    let other = thread.clone();
    drop(release);
    eventually("the thread to come back", || !bell.stuck.load(Ordering::SeqCst));
    drop(other.add(Participates::new(|_, _| {}, |_, _| {})).expect("a thread that came back serves"));
    let (_release, held) = channel();
    drop(thread.add_within(Box::new(Held(held)), limit).map(drop).unwrap_err());
    drop((thread, other));
    assert!(begun.elapsed() < PATIENCE, "waited for a thread that is stuck");
}

/// Panics when it is dropped, and refuses to be attached if it is told so.
struct Bomb {
    refuses: bool,
}

impl Participant for Bomb {
    fn attach(&mut self, _io: &mut Io) -> Result<()> {
        if self.refuses { Err(Error::new(ErrorKind::Host, "told to refuse")) } else { Ok(()) }
    }

    fn turn(&mut self, _io: &mut Io, _events: &[Event]) {}

    fn wants(&self, _wants: &mut Wants) {}
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("told to panic");
    }
}

#[test]
fn a_participant_that_is_refused_and_panics_as_it_is_dropped_leaves_the_thread_to_the_others() {
    let thread = io_thread();
    let error = thread.add(Box::new(Bomb { refuses: true })).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "told to refuse");
    drop(thread.add(Box::new(Bomb { refuses: false })).unwrap());
    let _good = thread.add(Participates::new(|_, _| {}, |_, _| {})).expect("the thread goes on");
}

/// A descriptor of a user's, whose code panics when it is told to.
struct Brittle {
    fd: Arc<EventFd>,
    broken: Arc<AtomicBool>,
    breaks_in_drop: bool,
}

impl std::os::fd::AsFd for Brittle {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        assert!(!self.broken.load(Ordering::SeqCst), "told to panic");
        self.fd.as_fd()
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        assert!(!self.breaks_in_drop, "told to panic");
    }
}

#[test]
fn a_descriptor_whose_own_code_panics_harms_no_other_participant() {
    for breaks_in_drop in [false, true] {
        let thread = io_thread();
        let (fd, broken) = (event(), Arc::new(AtomicBool::new(false)));
        let brittle = Brittle { fd: Arc::clone(&fd), broken: Arc::clone(&broken), breaks_in_drop };
        let held = Mutex::new(Some(Arc::new(brittle)));
        let bad = thread.add(Participates::new(
            |_, _| {},
            move |wants, token| {
                // Wanted once: from then on the thread is the last to hold it.
                if let Some(source) = held.lock().unwrap().take() {
                    wants.descriptor(token, &source, Interest::Readable);
                    broken.store(!breaks_in_drop, Ordering::SeqCst);
                }
            },
        ));
        fd.signal();
        thread::sleep(Duration::from_millis(20));
        let _good = thread.add(Participates::new(|_, _| {}, |_, _| {})).expect("the thread goes on");
        drop(bad);
        let _another = thread.add(Participates::new(|_, _| {}, |_, _| {})).expect("the thread goes on");
    }
}

#[test]
fn a_thread_that_has_ended_is_waited_for_by_nobody() {
    let thread = io_thread();
    let membership = thread.add(Participates::new(|_, _| {}, |_, _| {})).unwrap();
    thread.joiner.shared.end();
    let begun = Instant::now();
    drop(membership);
    let error = thread.add(Participates::new(|_, _| {}, |_, _| {})).map(drop).unwrap_err();
    assert!(error.to_string().contains("has ended"), "{error}");
    assert!(begun.elapsed() < PATIENCE / 2);
}

#[test]
fn a_wake_is_heard_also_if_its_waker_is_dropped_at_once() {
    let mut rig = crate::testing::IoRig::new();
    let mut io = rig.turn();
    let (first, second) = (io.token(), io.token());
    io.waker(first).wake();
    let _second = io.waker(second);
    assert_eq!(rig.woken(), [Event::new(first, Cause::Woken)]);
    let mut io = rig.turn();
    let third = io.token();
    io.waker(third);
    assert_eq!(rig.woken(), []);
}
