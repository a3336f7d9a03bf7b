//! A layer that keeps every rule of disk backends but one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vmcell::block::{DiskBackend, DiskInfo, Done, Operation, Tag};
use vmcell::event::{Event, Io, Token, Waker, Wants};
use vmcell::{Buffer, HostBuffer};

/// The rule that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    ImpossibleInfo,
    InfoThatChanges,
    CompletesTwice,
    LosesAnOperation,
    InventsATag,
    ExchangesBuffers,
    CorruptsAByte,
    WorksInTheGuestsMemory,
    TakesFewParts,
    MixesUpOperations,
    ForgetsZeroes,
    ZeroesTooMuch,
    DiscardsTooMuch,
    Blocks,
    NeverWakes,
    LosesWhatHasNoRoom,
    GivesBackAnotherWhenFull,
    IsFullForEver,
    NeedsLentBuffers,
    LosesWhatIsCancelled,
    StaysOnItsThread,
    BelievesEveryEvent,
    HoldsBuffersForEver,
    HidesErrors,
    FailsForEver,
    ForgetsToRefresh,
    IgnoresStable,
    IgnoresFlush,
    Panics,
}

pub struct Broken<B> {
    below: B,
    fault: Fault,
    own: VecDeque<Done>,
    completions: usize,
    cancelled: bool,
    failed: bool,
    waker: Option<Waker>,
    token: Option<Token>,
    woken: usize,
    attached: bool,
    reads: usize,
    held: Vec<(Tag, Operation)>,
    was_stable: Vec<Tag>,
    looks: AtomicUsize,
}

impl<B: DiskBackend> Broken<B> {
    pub fn new(below: B, fault: Fault) -> Self {
        Self {
            below,
            fault,
            own: VecDeque::new(),
            completions: 0,
            cancelled: false,
            failed: false,
            waker: None,
            token: None,
            woken: 0,
            attached: false,
            reads: 0,
            held: Vec::new(),
            was_stable: Vec::new(),
            looks: AtomicUsize::new(0),
        }
    }

    fn alter(&mut self, tag: Tag, operation: &mut Operation, block: u64) {
        match (self.fault, operation) {
            (
                Fault::IgnoresStable,
                Operation::Write { stable: stable @ true, .. } | Operation::WriteZeroes { stable: stable @ true, .. },
            ) => {
                *stable = false;
                self.was_stable.push(tag);
            }
            (Fault::ZeroesTooMuch, Operation::WriteZeroes { range, .. })
            | (Fault::DiscardsTooMuch, Operation::Discard(range)) => range.len += block,
            (Fault::WorksInTheGuestsMemory, Operation::Write { from: buffer @ Buffer::Guest(_), .. }) => {
                buffer.copy_in(0, &[0xee]).expect("it has a byte");
            }
            _ => {}
        }
    }

    /// Completes some operations itself, without doing anything.
    fn is_mine(&self, operation: &Operation) -> bool {
        match operation {
            Operation::WriteZeroes { .. } => self.fault == Fault::ForgetsZeroes,
            Operation::Flush => self.fault == Fault::IgnoresFlush,
            Operation::Write { from: Buffer::Guest(ranges), .. } => {
                self.fault == Fault::TakesFewParts && ranges.count() > 64
            }
            _ => false,
        }
    }

    fn restore(&self, tag: Tag, operation: &mut Operation, block: u64) {
        match operation {
            Operation::Write { stable, .. } | Operation::WriteZeroes { stable, .. }
                if self.was_stable.contains(&tag) =>
            {
                *stable = true;
            }
            Operation::WriteZeroes { range, .. } if self.fault == Fault::ZeroesTooMuch => range.len -= block,
            Operation::Discard(range) if self.fault == Fault::DiscardsTooMuch => range.len -= block,
            _ => {}
        }
    }

    fn spoil(&mut self, mut done: Done) -> Option<Done> {
        self.completions += 1;
        let fifth = self.completions.is_multiple_of(5);
        match (self.fault, &mut done.operation) {
            (Fault::CompletesTwice, _) if fifth => self.own.push_back(Done::new(done.tag, Operation::Flush, Ok(()))),
            (Fault::LosesAnOperation, _) if fifth => return None,
            (Fault::InventsATag, _) if fifth => done.tag = Tag::from_bits(u64::MAX / 3),
            (Fault::ExchangesBuffers, Operation::Read { into, .. }) => {
                *into = Buffer::Host(HostBuffer::new(into.len() as usize));
            }
            (Fault::MixesUpOperations, Operation::Read { into, .. }) => {
                if self.reads > 1 {
                    into.copy_in(0, &[0]).expect("it has a byte");
                }
                self.reads -= 1;
            }
            (Fault::CorruptsAByte, Operation::Read { into, .. }) => {
                into.copy_in(into.len() - 1, &[0]).expect("it has a byte");
            }
            (Fault::HidesErrors, _) => done.result = Ok(()),
            (Fault::FailsForEver, _) => {
                self.failed |= done.result.is_err();
                if self.failed {
                    done.result = Err(std::io::ErrorKind::Other.into());
                }
            }
            (Fault::LosesWhatIsCancelled, _) if self.cancelled => return None,
            _ => {}
        }
        Some(done)
    }
}

impl<B: DiskBackend> DiskBackend for Broken<B> {
    fn info(&self) -> DiskInfo {
        let mut info = self.below.info();
        match self.fault {
            Fault::ImpossibleInfo => info.block_size = 1000,
            Fault::InfoThatChanges if self.looks.fetch_add(1, Ordering::Relaxed) > 0 => info.max_transfer = 4096,
            _ => {}
        }
        info
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        if self.fault == Fault::StaysOnItsThread && !self.attached {
            let token = io.token();
            (self.token, self.waker) = (Some(token), Some(io.waker(token)));
        }
        self.attached = true;
        self.below.attach(io)
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, mut operation: Operation) -> Result<(), Operation> {
        let block = u64::from(self.below.info().block_size);
        assert_ne!(self.fault, Fault::Panics, "told to panic");
        if self.fault == Fault::IsFullForEver && self.completions > 20 {
            return Err(operation);
        }
        if self.fault == Fault::NeedsLentBuffers && io.bounce(512).is_none() {
            return Err(operation);
        }
        if self.is_mine(&operation) {
            self.own.push_back(Done::new(tag, operation, Ok(())));
            return Ok(());
        }
        if let Operation::Read { .. } = operation {
            self.reads += 1;
        }
        if self.fault == Fault::HoldsBuffersForEver {
            self.held.push((tag, operation));
            return Ok(());
        }
        self.alter(tag, &mut operation, block);
        match self.below.submit(io, tag, operation) {
            Err(_) if self.fault == Fault::LosesWhatHasNoRoom => Ok(()),
            Err(_) if self.fault == Fault::GivesBackAnotherWhenFull => Err(Operation::Flush),
            other => other,
        }
    }

    fn commit(&mut self, io: &mut Io) {
        if let Some(waker) = self.waker.clone() {
            std::thread::spawn(move || waker.wake());
        }
        self.below.commit(io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        if self.fault == Fault::Blocks && self.completions == 20 {
            self.completions += 1;
            std::thread::sleep(Duration::from_millis(400));
        }
        if let Some(done) = self.own.pop_front() {
            return Some(done);
        }
        if self.fault == Fault::StaysOnItsThread && self.woken == 0 {
            return None;
        }
        for (tag, operation) in self.held.drain(..) {
            self.below.submit(io, tag, operation).expect("there is room");
        }
        let Some(mut done) = self.below.completed(io) else {
            self.woken = 0;
            return None;
        };
        self.restore(done.tag, &mut done.operation, u64::from(self.below.info().block_size));
        self.spoil(done)
    }

    fn cancel(&mut self, io: &mut Io) {
        self.cancelled = true;
        self.below.cancel(io);
    }

    fn refresh(&mut self, io: &mut Io) {
        if self.fault != Fault::ForgetsToRefresh {
            self.below.refresh(io);
        }
    }

    fn wants(&self, wants: &mut Wants) {
        if !matches!(self.fault, Fault::NeverWakes | Fault::StaysOnItsThread) {
            self.below.wants(wants);
        }
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        if self.fault == Fault::BelievesEveryEvent {
            // Whatever it is, something must be done now.
            self.own.push_back(Done::new(Tag::from_bits(0), Operation::Flush, Ok(())));
        }
        if self.token == Some(event.token) {
            self.woken += 1;
        }
        self.below.woken(io, event);
    }
}

impl<B> Drop for Broken<B> {
    fn drop(&mut self) {
        std::mem::forget(std::mem::take(&mut self.held));
    }
}
