//! A cable between two NICs in one process. A frame takes a while to pass, and is dropped if too many are under way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmcell::event::{Event, Io, Token, Waker, Wants};
use vmcell::net::{Delivery, Need, NicBackend, NicInfo, RxBatch, TxBatch, VnetHeader};

/// One end of a cable: the backend of a NIC.
pub struct End {
    out: Arc<Lane>,
    into: Arc<Lane>,
    token: Option<Token>,
}

/// One direction.
struct Lane {
    delay: Duration,
    room: usize,
    state: Mutex<State>,
    cut: AtomicBool,
    dropped: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Frame>,
    receiver: Option<Waker>,
}

struct Frame {
    due: Instant,
    header: VnetHeader,
    bytes: Vec<u8>,
}

/// A cable that frames take `delay` to pass, and that has room for `room` frames in each direction.
pub fn cable(delay: Duration, room: usize) -> (End, End) {
    let lane = || {
        let (state, cut, dropped) = (Mutex::default(), AtomicBool::new(false), Arc::default());
        Arc::new(Lane { delay, room, state, cut, dropped })
    };
    let (there, back) = (lane(), lane());
    let one = End { out: Arc::clone(&there), into: Arc::clone(&back), token: None };
    (one, End { out: back, into: there, token: None })
}

impl End {
    /// Counts the frames from this end that were dropped.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.out.dropped)
    }
}

impl Lane {
    /// Only the two I/O threads take this lock, for a moment: neither makes the other wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_frame(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn push(&self, header: VnetHeader, bytes: Vec<u8>) {
        let mut state = self.state();
        if state.frames.len() >= self.room {
            return self.drop_frame();
        }
        state.frames.push_back(Frame { due: Instant::now() + self.delay, header, bytes });
        // If there were others, the receiver waits for the first of them.
        if let (1, Some(receiver)) = (state.frames.len(), &state.receiver) {
            receiver.wake();
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.state().frames.front().map(|frame| frame.due)
    }

    fn take_due(&self) -> Option<Frame> {
        let frames = &mut self.state().frames;
        let is_due = frames.front().is_some_and(|frame| frame.due <= Instant::now());
        if is_due { frames.pop_front() } else { None }
    }
}

impl NicBackend for End {
    /// No offloads: the guest at the other end may not cope with what this one leaves undone.
    fn info(&self) -> NicInfo {
        let mut info = NicInfo::default();
        info.link_up = !self.into.cut.load(Ordering::SeqCst);
        info
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        let token = io.token();
        self.token = Some(token);
        self.into.state().receiver = Some(io.waker(token));
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        while !io.spent() && frames.has_room(io) {
            let Some(frame) = self.into.take_due() else { return };
            if frames.put(io, &frame.header, &frame.bytes) != Delivery::Delivered {
                self.into.drop_frame();
            }
        }
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        while let Some(frame) = frames.next(io) {
            // A copy, since the guest gets its buffer back now and the frame is to come later.
            let mut bytes = vec![0; frame.len() as usize];
            match frame.data().copy_out(0, &mut bytes) {
                Ok(()) => self.out.push(*frame.header(), bytes),
                Err(_) => self.out.drop_frame(),
            }
            frames.done();
        }
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        if let (true, Some(token), Some(due)) = (need.room, self.token, self.into.next_due()) {
            wants.deadline(token, due);
        }
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        if self.token == Some(event.token) && self.into.cut.load(Ordering::SeqCst) {
            io.info_changed();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.out.cut.store(true, Ordering::SeqCst);
        if let Some(receiver) = &self.out.state().receiver {
            receiver.wake();
        }
    }
}
