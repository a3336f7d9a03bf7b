//! Where a vCPU is while its thread does not run it, so that others can look at it.

use crate::error::{Error, ErrorKind, Result};
use crate::kvm::Vcpu;
use crate::sys::lock;
use crate::sys::sync::Mutex;

/// A vCPU sits here until the VM starts, and while it is paused.
pub(super) struct Seat(Mutex<Option<Vcpu>>);

impl Seat {
    pub(super) fn new(vcpu: Vcpu) -> Self {
        Self(Mutex::new(Some(vcpu)))
    }

    /// Waits while somebody looks at it. `None` if it is away.
    pub(super) fn take(&self) -> Option<Vcpu> {
        lock(&self.0).take()
    }

    pub(super) fn put(&self, vcpu: Vcpu) {
        *lock(&self.0) = Some(vcpu);
    }

    /// Looks at a vCPU that does not run; its thread waits meanwhile.
    ///
    /// # Errors
    /// `ErrorKind::InvalidState` if its thread has it, or it is gone.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Vcpu) -> Result<R>) -> Result<R> {
        let vcpu = lock(&self.0);
        let away =
            || Error::new(ErrorKind::InvalidState, "a vCPU cannot be looked at while it runs or once it has ended");
        vcpu.as_ref().ok_or_else(away).and_then(look)
    }
}
