//! Notes which calls of a backend or device are made, and ends it in one of them.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::{Arc, Mutex};

use vmcell::event::Io;

/// How it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Panic,
    GiveUp,
}

/// What a test sees of the calls, and where it sets the trap.
#[derive(Clone, Default)]
pub struct Trap(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    at: Option<(&'static str, End)>,
    calls: Vec<&'static str>,
    /// It was sprung.
    sprung: bool,
    late: Vec<&'static str>,
    dropped: usize,
}

/// Part of what is called: counts when it is dropped.
pub struct Bait(Trap);

impl Trap {
    pub fn bait(&self) -> Bait {
        Bait(self.clone())
    }

    /// From now on, this call is the last one.
    pub fn set(&self, call: &'static str, end: End) {
        self.0.lock().unwrap().at = Some((call, end));
    }

    pub fn was_called(&self, call: &str) -> bool {
        self.0.lock().unwrap().calls.contains(&call)
    }

    /// Calls that came after the last one.
    pub fn late(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().late.clone()
    }

    pub fn dropped(&self) -> usize {
        self.0.lock().unwrap().dropped
    }
}

impl Bait {
    /// Says that this call was made; panics if it is the one.
    pub fn call(&self, call: &'static str) {
        assert!(self.note(call) != Some(End::Panic), "told to in {call}");
    }

    /// The same, for a call by which it may give up.
    pub fn call_with(&self, call: &'static str, io: &mut Io) {
        match self.note(call) {
            Some(End::Panic) => panic!("told to in {call}"),
            Some(End::GiveUp) => io.give_up(format!("told to in {call}")),
            None => {}
        }
    }

    fn note(&self, call: &'static str) -> Option<End> {
        let mut state = self.0.0.lock().unwrap();
        if state.sprung {
            state.late.push(call);
        }
        if !state.calls.contains(&call) {
            state.calls.push(call);
        }
        let end = state.at.filter(|(at, _)| *at == call).map(|(_, end)| end);
        state.sprung |= end.is_some();
        end
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().dropped += 1;
    }
}
