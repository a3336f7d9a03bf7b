//! An object that is described step by step and then handed over, by whichever thread.

use std::sync::Mutex;

use super::error::FfiResult;
use super::handle::{self, Object};
use crate::sys::lock;

/// Holds a value until it is handed over.
pub(super) struct Slot<T>(Mutex<Option<T>>);

/// An object that holds one.
pub(super) trait Described: Object {
    type Value: Send;

    fn slot(&self) -> &Slot<Self::Value>;
}

impl<T> Slot<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(Some(value)))
    }

    fn take(&self) -> Option<T> {
        lock(&self.0).take()
    }
}

/// Changes what an object describes.
pub(super) fn update<O: Described>(object: *mut O, change: impl FnOnce(O::Value) -> O::Value) -> FfiResult<()> {
    let object = handle::get(object)?;
    let mut slot = lock(&object.slot().0);
    // Another thread may be handing it over right now.
    let value = slot.take().ok_or_else(handle::gone::<O>)?;
    *slot = Some(change(value));
    Ok(())
}

/// Takes an object from its caller, and gives what it described.
pub(super) fn hand_over<O: Described>(object: *mut O) -> FfiResult<O::Value> {
    handle::take(object)?.slot().take().ok_or_else(handle::gone::<O>)
}
