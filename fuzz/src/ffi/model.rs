//! The objects that a C program has, or had.

use vmcell::VmConfig;

use super::c::Handle;
use super::{BAD_HANDLE, NULL_ARGUMENT};
use crate::input::Input;

/// Types of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Config,
    Disk,
    DiskHandle,
    Nic,
    Console,
    Error,
    Vm,
}

struct Object {
    kind: Kind,
    handle: Handle,
    lives: bool,
    /// What a configuration should be, if that is known.
    config: Option<VmConfig>,
}

/// All of them, those that are gone, too.
#[derive(Default)]
pub struct Model(Vec<Object>);

/// A handle that a call is given.
#[derive(Clone, Copy)]
pub struct Pick {
    pub handle: Handle,
    index: Option<usize>,
}

impl Model {
    /// The library has made an object.
    ///
    /// # Panics
    /// If it has the handle of another one.
    pub fn add(&mut self, kind: Kind, handle: Handle, config: Option<VmConfig>) {
        assert!(
            !handle.is_null() && self.0.iter().all(|object| object.handle != handle),
            "handles are never used again"
        );
        self.0.push(Object { kind, handle, lives: true, config });
    }

    /// Mostly one of the kind, the newest ones first; NULL, any other or a made-up one now and then.
    pub fn pick(&self, input: &mut Input, kind: Kind) -> Pick {
        let choice = input.byte();
        let at = |index: Option<usize>| Pick {
            handle: index.map_or(std::ptr::null_mut(), |index| self.0[index].handle),
            index,
        };
        match choice % 16 {
            15 => at(None),
            14 => Pick { handle: std::ptr::without_provenance_mut(input.long() as usize), index: None },
            13 => at(self.0.len().checked_sub(1 + usize::from(choice / 16))),
            _ => {
                let mut fit = (0..self.0.len()).rev().filter(|index| self.0[*index].kind == kind);
                at(fit.nth(usize::from(choice % 16 / 4)))
            }
        }
    }

    /// What a call says of a handle.
    ///
    /// # Errors
    /// If it is not of an object of this kind that lives.
    pub fn check(&self, pick: Pick, kind: Kind) -> Result<usize, i32> {
        if pick.handle.is_null() {
            return Err(NULL_ARGUMENT);
        }
        // A made-up one may be right.
        let found = self.0.iter().position(|object| object.handle == pick.handle).or(pick.index);
        found.filter(|index| self.0[*index].lives && self.0[*index].kind == kind).ok_or(BAD_HANDLE)
    }

    /// The object is gone.
    pub fn end(&mut self, index: usize) -> Option<VmConfig> {
        self.0[index].lives = false;
        self.0[index].config.take()
    }

    /// What a configuration should be.
    pub fn config(&mut self, index: usize) -> &mut Option<VmConfig> {
        &mut self.0[index].config
    }

    /// How many live.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.0.iter().filter(|object| object.lives).count() as u64
    }

    /// Those that live.
    pub fn take_all(&mut self) -> Vec<(Kind, Handle)> {
        let all = std::mem::take(&mut self.0);
        all.into_iter().filter(|object| object.lives).map(|object| (object.kind, object.handle)).collect()
    }
}
