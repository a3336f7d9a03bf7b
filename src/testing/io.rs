//! What a backend or a queue is lent by its thread, without a thread.

use crate::event::{Io, Lender};

/// Lends an [`Io`] to code under test, call by call.
///
/// ```
/// use vmcell::testing::IoRig;
///
/// let mut rig = IoRig::new();
/// let mut io = rig.turn();
/// assert!(!io.spent());
/// io.charge(vmcell::event::TURN_BYTES);
/// assert!(io.spent() && !rig.turn().spent());
/// ```
pub struct IoRig {
    lender: Lender,
}

impl IoRig {
    /// A rig without a token or a waker yet.
    ///
    /// # Panics
    /// If the host gives no descriptor.
    pub fn new() -> Self {
        Self { lender: Lender::new().expect("the host gives a descriptor") }
    }

    /// Begins a turn.
    pub fn turn(&mut self) -> Io<'_> {
        self.lender.lend()
    }

    /// Begins a turn that ends by its bytes alone, however long it takes: the same each time.
    pub fn turn_without_clock(&mut self) -> Io<'_> {
        let mut io = self.lender.lend();
        io.ignore_clock();
        io
    }

    /// The events of the wakers that were used since the last call.
    pub fn woken(&mut self) -> Vec<crate::event::Event> {
        self.lender.woken()
    }
}

impl Default for IoRig {
    fn default() -> Self {
        Self::new()
    }
}
