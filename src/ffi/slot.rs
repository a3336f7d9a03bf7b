//! An object that any thread may describe step by step and then hand over.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::failure::FfiResult;
use super::objects::{self, Object};

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

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        // A change that panics leaves the slot empty, which callers are told.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<T> {
        self.lock().take()
    }
}

/// Changes the value that an object describes.
pub(super) fn update<O: Described>(object: *mut O, change: impl FnOnce(O::Value) -> O::Value) -> FfiResult<()> {
    let object = objects::get(object)?;
    let mut slot = object.slot().lock();
    // Another thread may be handing it over right now.
    let value = slot.take().ok_or_else(objects::gone::<O>)?;
    *slot = Some(change(value));
    Ok(())
}

/// Replaces the value that an object describes by what becomes of it, or by nothing if that fails.
pub(super) fn replace<O: Described>(
    object: *mut O,
    change: impl FnOnce(O::Value) -> FfiResult<O::Value>,
) -> FfiResult<()> {
    let object = objects::get(object)?;
    let mut slot = object.slot().lock();
    let value = slot.take().ok_or_else(objects::gone::<O>)?;
    *slot = Some(change(value)?);
    Ok(())
}

/// Looks at the value that an object describes.
pub(super) fn look<O: Described, R>(object: *const O, look: impl FnOnce(&O::Value) -> R) -> FfiResult<R> {
    let object = objects::get(object)?;
    let slot = object.slot().lock();
    slot.as_ref().map(look).ok_or_else(objects::gone::<O>)
}

/// Takes an object from its caller, and returns the value that it described.
pub(super) fn hand_over<O: Described>(object: *mut O) -> FfiResult<O::Value> {
    objects::take(object)?.slot().take().ok_or_else(objects::gone::<O>)
}
