//! Buffers that are out of their card's hands: each comes back to the guest once, whatever becomes of it.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::*;
use crate::event::{Event, Io, IoThread, Token, Waker, Wants};
use crate::net::{Delivery, Need, Nic, NicBackend, NicInfo, RxBatch, TxBatch, VnetHeader};
use crate::testing::NicDriver;

const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_millis(50);

/// What a test does with buffers: it takes them, and gives frames.
#[derive(Clone, Default)]
struct Hands {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    wanted: usize,
    lent: Vec<RxBuffer>,
    frames: Vec<(VnetHeader, u64, Vec<RxBuffer>)>,
    deliveries: Vec<Delivery>,
    waker: Option<Waker>,
    recall_panics: bool,
}

struct Borrower {
    hands: Hands,
    token: Option<Token>,
}

impl Hands {
    fn wake(&self) {
        let waker = self.state.lock().unwrap().waker.clone();
        waker.unwrap().wake();
    }

    /// Borrows so many buffers.
    fn borrow(&self, count: usize) -> Vec<RxBuffer> {
        self.state.lock().unwrap().wanted += count;
        self.wake();
        let taken = self.wait(|state| (state.wanted == 0).then(|| std::mem::take(&mut state.lent)));
        assert_eq!(taken.len(), count);
        taken
    }

    fn deliver(&self, header: VnetHeader, len: u64, buffers: Vec<RxBuffer>) -> Delivery {
        self.state.lock().unwrap().frames.push((header, len, buffers));
        self.wake();
        self.wait(|state| state.deliveries.pop())
    }

    fn wait<T>(&self, mut found: impl FnMut(&mut State) -> Option<T>) -> T {
        for _ in 0..10_000 {
            if let Some(found) = found(&mut self.state.lock().unwrap()) {
                return found;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("the card does not answer");
    }
}

impl NicBackend for Borrower {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn attach(&mut self, io: &mut Io) -> crate::Result<()> {
        let token = io.token();
        self.token = Some(token);
        self.hands.state.lock().unwrap().waker = Some(io.waker(token));
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        let mut state = self.hands.state.lock().unwrap();
        for (header, len, buffers) in std::mem::take(&mut state.frames) {
            let delivery = frames.deliver(io, &header, len, buffers);
            state.deliveries.push(delivery);
        }
        while state.wanted > 0
            && let Some(buffer) = frames.lend(io)
        {
            state.wanted -= 1;
            state.lent.push(buffer);
        }
    }

    fn send(&mut self, _io: &mut Io, _frames: &mut TxBatch) {}

    fn recall(&mut self, _io: &mut Io, back: &mut RxReturn) {
        let mut state = self.hands.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(!state.recall_panics, "as the test wants it");
        // In another order than they came.
        state.lent.drain(..).rev().for_each(|buffer| back.give(buffer));
    }

    fn wants(&self, _need: Need, _wants: &mut Wants) {}

    fn woken(&mut self, _io: &mut Io, _event: &Event) {}
}

fn rig() -> (NicDriver, Hands, IoThread) {
    let (hands, io_thread) = (Hands::default(), IoThread::new("lend-test").unwrap());
    let nic = Nic::backend(Borrower { hands: hands.clone(), token: None });
    let mut driver = NicDriver::new(nic, &io_thread).unwrap();
    driver.offer(8);
    (driver, hands, io_thread)
}

fn fill(buffers: &[RxBuffer], frame: &[u8]) {
    let mut rest = frame;
    for (index, buffer) in buffers.iter().enumerate() {
        let at = if index == 0 { RxBuffer::HEADROOM } else { 0 };
        let room = usize::try_from(buffer.data().len() - at).unwrap();
        let (part, tail) = rest.split_at(room.min(rest.len()));
        buffer.data().copy_in(at, part).unwrap();
        rest = tail;
    }
    assert!(rest.is_empty());
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 253) as u8).collect()
}

#[test]
fn a_frame_that_another_thread_put_into_lent_buffers_arrives() {
    let (mut driver, hands, _io_thread) = rig();
    for len in [14, 1514, 5000, 9000] {
        let buffers = hands.borrow((len + 12usize).div_ceil(4096));
        let sent = frame(len);
        let copy = sent.clone();
        let buffers = thread::spawn(move || {
            fill(&buffers, &copy);
            buffers
        });
        let buffers = buffers.join().unwrap();
        assert_eq!(hands.deliver(VnetHeader::default(), len as u64, buffers), Delivery::Delivered);
        assert_eq!(driver.receive(SOON).unwrap()[12..], sent);
    }
}

#[test]
fn a_frame_that_does_not_fit_its_buffers_or_the_guest_is_dropped() {
    let (mut driver, hands, _io_thread) = rig();
    let partial = VnetHeader::parse([1, 0, 0, 0, 0, 0, 14, 0, 2, 0, 0, 0], 100, Offloads::ALL).unwrap();
    for (header, len, count) in [
        (VnetHeader::default(), 5000, 1),
        (VnetHeader::default(), 13, 1),
        (partial, 100, 1),
        (VnetHeader::default(), 100, 0),
    ] {
        assert_eq!(hands.deliver(header, len, hands.borrow(count)), Delivery::Dropped, "{len} {count}");
    }
    // The guest has its buffers back, without frames.
    for _ in 0..3 {
        assert_eq!(driver.receive(SOON), Some(Vec::new()));
    }
    assert_eq!(driver.receive(NEVER), None);
}

#[test]
fn a_buffer_that_is_dropped_on_another_thread_comes_back_without_a_frame() {
    let (mut driver, hands, _io_thread) = rig();
    let buffers = hands.borrow(3);
    thread::spawn(move || drop(buffers)).join().unwrap();
    for _ in 0..3 {
        assert_eq!(driver.receive(SOON), Some(Vec::new()));
    }
    assert_eq!((driver.receive(NEVER), driver.needs_reset()), (None, false));
}

#[test]
fn a_pause_takes_back_what_is_at_hand_and_waits_for_the_rest() {
    let (mut driver, hands, _io_thread) = rig();
    let kept = hands.borrow(2);
    hands.state.lock().unwrap().wanted = 3;
    hands.wake();
    hands.wait(|state| (state.lent.len() == 3).then_some(()));
    assert!(driver.pause(NEVER).is_err(), "somebody may still write there");
    drop(kept);
    driver.pause(SOON).unwrap();
    driver.resume();
    // Those that were out came back empty; those at hand were put back, and are the next to be lent.
    for _ in 0..2 {
        assert_eq!(driver.receive(SOON), Some(Vec::new()));
    }
    let buffers = hands.borrow(6);
    fill(&buffers[..1], &frame(100));
    let mut buffers = buffers;
    buffers.truncate(1);
    assert_eq!(hands.deliver(VnetHeader::default(), 100, buffers), Delivery::Delivered);
    let mut sizes: Vec<_> = (0..6).map(|_| driver.receive(SOON).unwrap().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 0, 0, 0, 0, 112]);
    assert_eq!((driver.receive(NEVER), driver.needs_reset()), (None, false));
}

#[test]
fn a_buffer_of_before_a_reset_gets_no_frame_after_it() {
    let (mut driver, hands, io_thread) = rig();
    let old = hands.borrow(2);
    fill(&old[..1], &frame(100));
    // The reset waits for what is out, as the driver's write does: on another thread.
    let reset = thread::spawn(move || {
        driver.restart(false, true);
        driver
    });
    thread::sleep(NEVER);
    assert!(!reset.is_finished(), "somebody may still write there");
    hands.state.lock().unwrap().frames.push((VnetHeader::default(), 100, old));
    hands.wake();
    let mut driver = loop {
        // Whoever holds the last of them lets it go.
        hands.state.lock().unwrap().frames.clear();
        if reset.is_finished() {
            break reset.join().unwrap();
        }
        thread::sleep(Duration::from_millis(1));
    };
    driver.offer(4);
    let buffers = hands.borrow(1);
    fill(&buffers, &frame(60));
    assert_eq!(hands.deliver(VnetHeader::default(), 60, buffers), Delivery::Delivered);
    assert_eq!(driver.receive(SOON).unwrap()[12..], frame(60));
    assert_eq!((driver.receive(NEVER), driver.needs_reset()), (None, false));
    drop(io_thread);
}

#[test]
fn a_backend_that_panics_when_it_is_to_give_back_is_gone_and_so_are_its_buffers() {
    let (driver, hands, _io_thread) = rig();
    hands.state.lock().unwrap().wanted = 2;
    hands.wake();
    hands.wait(|state| (state.lent.len() == 2).then(|| state.recall_panics = true));
    // What it holds keeps the pause waiting, until it is dropped.
    let paused = driver.pause(NEVER);
    drop(std::mem::take(&mut hands.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).lent));
    assert!(paused.is_err() || driver.needs_reset());
    driver.resume();
    for _ in 0..1000 {
        if driver.needs_reset() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the driver was not told");
}
