//! One sink: takes the guest's output at its own pace.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::helper::{Errand, Helper};
use super::target::Target;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Interest, Io, Token, Wants};
use crate::legacy::{Listening, OutputReader};
use crate::logging::{LogLevel, Throttle, Voice};
use crate::sys::Attempt;

/// How many pieces are taken in a turn.
const BATCH: usize = 16;
const PIECE: usize = 4096;

/// When a sink that failed tries again.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Sink {
    name: String,
    reader: OutputReader,
    /// `None` while a thread that may wait has it, or once it was let go.
    work: Option<Box<Work>>,
    polled: Option<Arc<File>>,
    helper: Option<Helper<Work>>,
    state: State,
    voice: Voice,
    /// That it fails was said already.
    fails: bool,
    failed_rotations: Throttle,
    /// The descriptor has changed since it was given away.
    changed: bool,
    tokens: Option<Tokens>,
}

/// What is to be done, and what came of it.
struct Work {
    target: Box<dyn Target>,
    piece: Vec<u8>,
    /// How much of the piece was taken.
    taken: usize,
    result: io::Result<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has taken all that there was.
    Idle,
    /// There is more to take without waiting.
    Ready,
    /// Its descriptor has no room.
    Blocked,
    /// A thread that may wait has it.
    Away,
    /// It failed, and tries again at that time.
    Rests(Instant),
    /// The guest has ended, and there is nothing for it any more, or it has failed.
    LetGo,
}

#[derive(Clone, Copy)]
struct Tokens {
    writable: Token,
    back: Token,
}

impl Errand for Work {
    fn run(&mut self) {
        self.result = match self.target.take_waiting(self.piece.get(self.taken..).unwrap_or_default()) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            other => other,
        };
    }
}

impl Sink {
    pub(super) fn new(target: Box<dyn Target>, reader: OutputReader, name: String, voice: Voice) -> Self {
        let polled = target.polled().cloned();
        let work = Box::new(Work { target, piece: Vec::with_capacity(PIECE), taken: 0, result: Ok(0) });
        let (work, helper, state) = (Some(work), None, State::Idle);
        let failed_rotations = Throttle::default();
        let (fails, changed, tokens) = (false, false, None);
        Self { name, reader, work, polled, helper, state, voice, fails, failed_rotations, changed, tokens }
    }

    pub(super) fn attach(&mut self, io: &mut Io) {
        let tokens = Tokens { writable: io.token(), back: io.token() };
        self.helper = Some(Helper::new(io.waker(tokens.back)));
        self.tokens = Some(tokens);
    }

    /// Takes note of what has changed: nobody will tell it again.
    pub(super) fn note(&mut self, events: &[Event]) {
        let is_its = |event: &Event| self.tokens.is_some_and(|tokens| event.token == tokens.writable);
        self.changed |= events.iter().any(is_its);
    }

    /// Takes what there is, and says whether it took something.
    pub(super) fn turn(&mut self, io: &mut Io, now: Instant) -> bool {
        match self.state {
            State::Idle => self.state = State::Ready,
            State::Blocked if self.changed => self.state = State::Ready,
            State::Away => self.come_back(),
            State::Rests(until) if until <= now || self.reader.is_last() => {
                self.reader.listen(Listening::Reads);
                self.state = State::Ready;
            }
            _ => {}
        }
        let mut took = false;
        for _ in 0..BATCH {
            if self.state != State::Ready {
                break;
            }
            took |= self.step(io);
            if io.spent() {
                break;
            }
        }
        took
    }

    pub(super) fn wants(&self, wants: &mut Wants) {
        // Also while it is away: naming it anew would tell what was so before.
        if let (State::Blocked | State::Away, Some(tokens), Some(polled)) = (self.state, self.tokens, &self.polled) {
            wants.change(tokens.writable, polled, Interest::Writable);
        }
    }

    /// Whether it waits for the guest alone.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether it has more to do, and nobody will tell it.
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// When it tries again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if let State::Rests(until) = self.state { Some(until) } else { None }
    }

    /// Offers one piece; says whether there was one.
    fn step(&mut self, io: &mut Io) -> bool {
        let Some(work) = &mut self.work else { return false };
        if work.taken >= work.piece.len() {
            work.piece.clear();
            work.taken = 0;
            if self.reader.take(&mut work.piece, PIECE) == 0 {
                self.rest();
                return false;
            }
        }
        let left = work.piece.get(work.taken..).unwrap_or_default();
        io.charge(left.len() as u64);
        match work.target.attempt(left) {
            Ok(Attempt::Moved(0)) => self.fail(io::ErrorKind::WriteZero.into()),
            Ok(Attempt::Moved(count)) => self.advance(count),
            Ok(Attempt::NotNow) => self.wait(),
            Ok(Attempt::MayWait) => self.send_away(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => self.fail(e),
        }
        true
    }

    /// Everything was taken.
    fn rest(&mut self) {
        self.state = State::Idle;
        if self.reader.has_ended() {
            self.let_go();
        }
    }

    /// There is nothing left to be done.
    fn let_go(&mut self) {
        if self.work.take_if(|work| work.target.ends_with_guest()).is_some() {
            self.polled = None;
        }
        self.state = State::LetGo;
    }

    fn advance(&mut self, count: usize) {
        if let Some(work) = &mut self.work {
            work.taken = work.taken.saturating_add(count);
        }
        self.reader.delivered(count);
        self.fails = false;
    }

    fn send_away(&mut self) {
        let (Some(work), Some(helper)) = (self.work.take(), &mut self.helper) else { return };
        match helper.send(work) {
            Ok(()) => {
                self.state = State::Away;
                self.changed = false;
            }
            Err((work, error)) => {
                self.work = Some(work);
                self.fail(io::Error::other(error));
            }
        }
    }

    fn come_back(&mut self) {
        let Some(mut work) = self.helper.as_ref().and_then(Helper::take_back) else { return };
        let result = std::mem::replace(&mut work.result, Ok(0));
        if let Some(cause) = work.target.trouble() {
            self.could_not_rotate(cause);
        }
        self.work = Some(work);
        self.state = State::Ready;
        match result {
            Ok(count) => self.advance(count),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // Its owner made the descriptor one that does not wait.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.refuse_to_wait(),
            Err(e) => self.fail(e),
        }
    }

    /// Bytes were refused. It tries again later, and a last time when the guest has ended: storage may be given room, and a FIFO
    /// another reader.
    fn fail(&mut self, cause: io::Error) {
        let Some(work) = &mut self.work else { return };
        let error = Error::new(ErrorKind::Console, format!("cannot write the console's output to {}", self.name));
        let error = error.with_source(cause);
        // It is tried once a second, so that this is said no more often, even if it works in between.
        if !std::mem::replace(&mut self.fails, true) {
            self.voice.say(LogLevel::Warn, || error.chain().to_string());
        }
        self.reader.failed(error);
        let is_last = self.reader.is_last();
        if work.target.keeps() && !is_last {
            self.reader.listen(Listening::Fails);
        } else {
            work.piece.clear();
            work.taken = 0;
            self.reader.listen(Listening::Gone);
        }
        if is_last {
            return self.let_go();
        }
        self.state = Instant::now().checked_add(RETRY).map_or(State::Idle, State::Rests);
    }

    fn could_not_rotate(&mut self, cause: io::Error) {
        let message = format!("cannot begin another file in place of {}", self.name);
        let error = Error::new(ErrorKind::Console, message).with_source(cause);
        if let Some((_, all)) = self.failed_rotations.count(1) {
            self.voice.say(LogLevel::Warn, || format!("{} ({all} so far)", error.chain()));
        }
        self.reader.could_not_rotate(error);
    }

    fn wait(&mut self) {
        self.state = State::Blocked;
        self.changed = false;
    }

    fn refuse_to_wait(&mut self) {
        match (&self.polled, self.changed) {
            (Some(_), true) => {}
            (Some(_), false) => self.state = State::Blocked,
            (None, _) => self.fail(io::ErrorKind::WouldBlock.into()),
        }
    }
}
