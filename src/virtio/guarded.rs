//! A backend that is never called again once it has broken a rule.

use std::cell::Cell;

use crate::error::{Error, ErrorKind, Result};

/// A backend behind a device. While a call is under way it counts as broken, so that a call that never came back, by a
/// panic, is the last one.
pub(crate) struct Guarded<B: ?Sized> {
    kind: ErrorKind,
    broken: Cell<bool>,
    backend: Box<B>,
}

impl<B: ?Sized> Guarded<B> {
    /// `kind` is that of its errors.
    pub(crate) fn new(backend: Box<B>, kind: ErrorKind) -> Self {
        Self { kind, broken: Cell::new(false), backend }
    }

    /// Calls the backend.
    ///
    /// # Errors
    /// If it has broken a rule before.
    pub(crate) fn call<R>(&mut self, call: impl FnOnce(&mut B) -> R) -> Result<R> {
        if self.broken.replace(true) {
            return Err(Error::new(self.kind, "the backend has broken a rule and is not called any more"));
        }
        let result = call(&mut self.backend);
        self.broken.set(false);
        Ok(result)
    }

    /// Asks the backend something; `None` if it has broken a rule before.
    pub(crate) fn look<R>(&self, call: impl FnOnce(&B) -> R) -> Option<R> {
        if self.broken.replace(true) {
            return None;
        }
        let result = call(&self.backend);
        self.broken.set(false);
        Some(result)
    }

    /// From now on it is not called; gives the error that says so.
    pub(crate) fn condemn(&self, why: &str) -> Error {
        self.broken.set(true);
        Error::new(self.kind, format!("the backend {why}"))
    }

    pub(crate) fn into_inner(self) -> Box<B> {
        self.backend
    }
}
