//! Disk backends that do what none may.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use vmcell::block::{DiskBackend, DiskInfo, DiskStatus, Done, Operation, Tag};
use vmcell::event::{Event, Io, Waker, Wants};
use vmcell::meter::Meter;

/// What it does once it is let loose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    NeverCompletes,
    CompletesTwice,
    InventsATag,
    /// What it was given lies in it when it is found out.
    InventsATagAndKeepsTheRest,
    GivesAnotherBack,
    IsFullForEver,
    AsksForTurnsForEver,
    PanicsIn(Call),
    GivesUpIn(Call),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Info,
    Attach,
    Submit,
    Commit,
    Completed,
    Cancel,
    Refresh,
    Wants,
    Woken,
    Status,
    Metrics,
}

/// Lets a backend loose, and holds what it keeps.
#[derive(Clone, Default)]
pub struct Leash {
    loose: Arc<AtomicBool>,
    kept: Arc<Mutex<VecDeque<(Tag, Operation)>>>,
    /// What it kept is to be completed after all.
    release: Arc<AtomicBool>,
    waker: Arc<Mutex<Option<Waker>>>,
    calls: Arc<AtomicUsize>,
    called: Arc<Mutex<Vec<Call>>>,
    dropped: Arc<AtomicUsize>,
}

impl Leash {
    pub fn let_loose(&self) {
        self.loose.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap() {
            waker.wake();
        }
    }

    pub fn kept(&self) -> usize {
        self.kept.lock().unwrap().len()
    }

    /// Writes into what it keeps, from another thread than its own.
    pub fn touch(&self, byte: u8) {
        for (_, operation) in self.kept.lock().unwrap().iter_mut() {
            if let Operation::Read { into, .. } = operation {
                into.copy_in(0, &[byte; 512]).unwrap();
            }
        }
    }

    /// Completes what it kept, late.
    pub fn release(&self) {
        self.release.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Whether this was called.
    pub fn was_called(&self, call: Call) -> bool {
        self.called.lock().unwrap().contains(&call)
    }

    /// How often the backend was dropped.
    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }
}

/// A disk of zeros, until it is let loose.
pub struct Misbehaving {
    manner: Manner,
    leash: Leash,
    done: VecDeque<Done>,
}

impl Misbehaving {
    pub fn new(manner: Manner) -> (Self, Leash) {
        let leash = Leash::default();
        (Self { manner, leash: leash.clone(), done: VecDeque::new() }, leash)
    }

    fn is(&self, manner: Manner) -> bool {
        self.manner == manner && self.leash.loose.load(Ordering::SeqCst)
    }

    fn called(&self, call: Call) {
        self.leash.calls.fetch_add(1, Ordering::SeqCst);
        let mut called = self.leash.called.lock().unwrap();
        if !called.contains(&call) {
            called.push(call);
        }
        drop(called);
        assert!(!self.is(Manner::PanicsIn(call)), "told to panic in {call:?}");
    }

    fn called_with(&self, call: Call, io: &mut Io) {
        self.called(call);
        if self.is(Manner::GivesUpIn(call)) {
            io.give_up(format!("told to in {call:?}"));
        }
    }

    fn serve(&mut self, tag: Tag, mut operation: Operation) {
        if let Operation::Read { into, .. } = &mut operation {
            let zeros = vec![0; into.len() as usize];
            into.copy_in(0, &zeros).unwrap();
        }
        self.done.push_back(Done::new(tag, operation, Ok(())));
    }
}

impl DiskBackend for Misbehaving {
    fn info(&self) -> DiskInfo {
        self.called(Call::Info);
        DiskInfo::new(1 << 20)
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        self.called_with(Call::Attach, io);
        let token = io.token();
        *self.leash.waker.lock().unwrap() = Some(io.waker(token));
        Ok(())
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> Result<(), Operation> {
        self.called_with(Call::Submit, io);
        if self.is(Manner::IsFullForEver) {
            return Err(operation);
        }
        if self.is(Manner::NeverCompletes) {
            self.leash.kept.lock().unwrap().push_back((tag, operation));
        } else if self.is(Manner::GivesAnotherBack) {
            self.done.push_back(Done::new(tag, Operation::Flush, Ok(())));
        } else {
            self.serve(tag, operation);
            if self.is(Manner::CompletesTwice) {
                self.done.push_back(Done::new(tag, Operation::Flush, Ok(())));
            }
            let invented = Done::new(Tag::from_bits(77), Operation::Flush, Ok(()));
            if self.is(Manner::InventsATag) {
                self.done.push_back(invented);
            } else if self.is(Manner::InventsATagAndKeepsTheRest) {
                self.done.push_front(invented);
            }
        }
        Ok(())
    }

    fn commit(&mut self, io: &mut Io) {
        self.called_with(Call::Commit, io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        self.called_with(Call::Completed, io);
        if self.leash.release.load(Ordering::SeqCst) {
            let (tag, operation) = self.leash.kept.lock().unwrap().pop_front()?;
            return Some(Done::new(tag, operation, Ok(())));
        }
        self.done.pop_front()
    }

    fn cancel(&mut self, io: &mut Io) {
        self.called_with(Call::Cancel, io);
    }

    fn refresh(&mut self, io: &mut Io) {
        self.called_with(Call::Refresh, io);
        // Has it asked what it is like, and how it works.
        io.info_changed();
    }

    fn wants(&self, wants: &mut Wants) {
        self.called(Call::Wants);
        if self.is(Manner::AsksForTurnsForEver) {
            wants.again();
        }
    }

    fn woken(&mut self, io: &mut Io, _event: &Event) {
        self.called_with(Call::Woken, io);
    }

    fn status(&self) -> DiskStatus {
        self.called(Call::Status);
        DiskStatus::default()
    }

    fn metrics(&self, _meter: &mut Meter) {
        self.called(Call::Metrics);
    }
}

impl Drop for Misbehaving {
    fn drop(&mut self) {
        self.leash.dropped.fetch_add(1, Ordering::SeqCst);
    }
}
