//! What is under way below a layer.

use super::super::map::Image;
use crate::block::{Operation, Tag};

/// What an operation below is for; a read of clusters has its epoch.
pub(super) enum OnTop {
    Read { tag: Tag, at: u64, epoch: u64 },
    Write { tag: Tag, at: u64, len: u64, stable: bool },
    Piece(Option<u64>),
    Sync,
    Page(Image),
    Punch,
}

pub(super) enum OnBase {
    Read { tag: Tag },
    Piece,
    Sync,
}

pub(super) struct Slow {
    pub(super) tag: Tag,
    pub(super) operation: Operation,
    pub(super) done: u64,
    /// The length of the piece that is under way.
    pub(super) piece: u64,
}

impl Slow {
    pub(super) fn at(&self) -> u64 {
        match &self.operation {
            Operation::Read { at, .. } | Operation::Write { at, .. } => *at,
            _ => 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        match &self.operation {
            Operation::Read { into: buffer, .. } | Operation::Write { from: buffer, .. } => buffer.len(),
            _ => 0,
        }
    }
}
