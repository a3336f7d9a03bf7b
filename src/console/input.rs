//! From the source of input to the port's queue.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::helper::{Errand, Helper};
use crate::event::{Event, Interest, Io, Token, Wants};
use crate::legacy::Serial;
use crate::logging::{LogLevel, Throttle, Voice};
use crate::sys::{Attempt, Stream};

const PIECE: usize = 4096;

pub(super) struct Input {
    name: String,
    voice: Voice,
    failures: Throttle,
    /// `None` while a thread that may wait has it, and once the guest has ended.
    work: Option<Box<Work>>,
    polled: Option<Arc<File>>,
    helper: Option<Helper<Work>>,
    state: State,
    /// The descriptor has changed since it was found to have nothing, or was given away.
    changed: bool,
    /// Read from the source, and not yet taken by the port: somebody else may have filled the room that was there.
    pending: Vec<u8>,
    serial: Arc<Serial>,
    tokens: Option<Tokens>,
}

struct Work {
    stream: Stream,
    bytes: Box<[u8; PIECE]>,
    result: io::Result<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There may be something to read.
    Ready,
    /// There is nothing until the descriptor changes. If it has ended or failed, it may yet come back: a FIFO has another writer,
    /// a pseudo-terminal is opened again, a program comes back to a terminal's foreground.
    Waits,
    /// A thread that may wait has it.
    Away,
    /// There is nothing any more.
    Ended,
}

#[derive(Clone, Copy)]
struct Tokens {
    readable: Token,
    back: Token,
}

impl Errand for Work {
    fn run(&mut self) {
        self.result = self.stream.read_waiting(&mut self.bytes[..]);
    }
}

impl Input {
    pub(super) fn new(stream: Stream, name: String, serial: &Arc<Serial>, voice: Voice) -> Self {
        let polled = stream.polled().cloned();
        let work = Some(Box::new(Work { stream, bytes: Box::new([0; PIECE]), result: Ok(0) }));
        Self {
            name,
            voice,
            failures: Throttle::default(),
            work,
            polled,
            helper: None,
            state: State::Ready,
            changed: false,
            pending: Vec::with_capacity(PIECE),
            serial: Arc::clone(serial),
            tokens: None,
        }
    }

    pub(super) fn attach(&mut self, io: &mut Io) {
        let tokens = Tokens { readable: io.token(), back: io.token() };
        self.helper = Some(Helper::new(io.waker(tokens.back)));
        self.tokens = Some(tokens);
    }

    pub(super) fn turn(&mut self, io: &mut Io, events: &[Event]) {
        let Some(tokens) = self.tokens else { return };
        self.hand_over();
        self.changed |= events.iter().any(|event| event.token == tokens.readable);
        match self.state {
            State::Away => self.come_back(),
            State::Waits if self.changed => self.state = State::Ready,
            State::Ready | State::Waits | State::Ended => {}
        }
        while self.is_ready() && !io.spent() {
            self.step(io);
        }
    }

    /// The guest reads no more: who writes is to be told. What a thread has, it keeps until the end.
    pub(super) fn let_go(&mut self) {
        self.work = None;
        self.polled = None;
        self.pending.clear();
        if self.state != State::Away {
            self.state = State::Ended;
        }
    }

    pub(super) fn wants(&self, wants: &mut Wants) {
        let Some(tokens) = self.tokens else { return };
        // What is left waits until the guest reads: the port says then that it wants more. Otherwise it is always named: naming it
        // anew would tell what was so before.
        if let Some(polled) = self.polled.as_ref().filter(|_| self.pending.is_empty()) {
            wants.change(tokens.readable, polled, Interest::Readable);
        }
        if self.is_ready() {
            wants.again();
        }
    }

    fn is_ready(&self) -> bool {
        self.state == State::Ready && self.pending.is_empty()
    }

    fn step(&mut self, io: &mut Io) {
        let Some(work) = &mut self.work else { return self.wait() };
        self.changed = false;
        match work.stream.try_read(&mut work.bytes[..]) {
            Ok(Attempt::Moved(count)) => self.take(io, count),
            Ok(Attempt::NotNow) => self.wait(),
            Ok(Attempt::MayWait) => self.send_away(),
            Err(e) => self.judge(&e),
        }
    }

    /// `count` bytes were read.
    fn take(&mut self, io: &mut Io, count: usize) {
        io.charge(count as u64);
        self.keep(count);
    }

    fn keep(&mut self, count: usize) {
        let Some(work) = &self.work else { return };
        if count == 0 {
            return self.wait();
        }
        self.pending.extend_from_slice(work.bytes.get(..count).unwrap_or_default());
        self.hand_over();
    }

    /// Gives the port what it has room for.
    fn hand_over(&mut self) {
        if !self.pending.is_empty() {
            let taken = self.serial.queue_input(&self.pending);
            self.pending.drain(..taken);
        }
    }

    fn send_away(&mut self) {
        let (Some(work), Some(helper)) = (self.work.take(), &mut self.helper) else { return };
        match helper.send(work) {
            Ok(()) => self.state = State::Away,
            Err((work, _)) => {
                // The host gives no thread. A key that is typed later is another chance.
                self.work = Some(work);
                self.wait();
            }
        }
    }

    fn come_back(&mut self) {
        let Some(mut work) = self.helper.as_ref().and_then(Helper::take_back) else { return };
        let result = std::mem::replace(&mut work.result, Ok(0));
        self.work = Some(work);
        self.state = State::Ready;
        match result {
            Ok(count) => self.keep(count),
            Err(e) => self.judge(&e),
        }
    }

    fn judge(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::Interrupted {
            return;
        }
        // A terminal whose other side is gone says so like this.
        let is_hung_up = self.polled.is_some() && error.raw_os_error() == Some(libc::EIO);
        if !is_hung_up && let Some((_, all)) = self.failures.count(1) {
            let name = &self.name;
            self.voice
                .say(LogLevel::Warn, || format!("cannot read the console's input from {name}: {error} ({all} so far)"));
        }
        self.wait();
    }

    /// Waits for a change. Whatever came of an attempt while the descriptor changed may be different now.
    fn wait(&mut self) {
        self.state = match (&self.polled, self.changed) {
            (Some(_), true) => State::Ready,
            (Some(_), false) => State::Waits,
            (None, _) => State::Ended,
        };
    }
}
