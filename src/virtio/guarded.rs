//! A device or backend that is never called again once it has panicked, broken a rule, or given up.

use std::cell::{Cell, OnceCell};

use super::failure::{Condemnation, FailureCause};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Io;
use crate::sys::{Parting, catch_panic};

/// Code of a user's behind a device, or a device itself. When it is condemned, it is dropped on another thread, and with it the
/// buffers that it holds: its drop may take a while. Dropping this waits for that.
pub(crate) struct Guarded<T: Send + ?Sized + 'static> {
    kind: ErrorKind,
    /// What messages call it.
    what: &'static str,
    inner: Option<Box<T>>,
    /// Why it is not called any more.
    condemned: OnceCell<Error>,
    /// Nobody has been told of that yet.
    untold: Cell<bool>,
    _parting: Option<Parting<Box<T>>>,
}

impl<T: Send + ?Sized + 'static> Guarded<T> {
    /// `kind` is that of its errors.
    pub(crate) fn new(inner: Box<T>, what: &'static str, kind: ErrorKind) -> Self {
        Self { kind, what, inner: Some(inner), condemned: OnceCell::new(), untold: Cell::new(false), _parting: None }
    }

    /// Calls it.
    ///
    /// # Errors
    /// Why it is not called any more, also if this was the last call.
    pub(crate) fn call<R>(&mut self, io: &mut Io, call: impl FnOnce(&mut T, &mut Io) -> R) -> Result<R> {
        let result = self.ask(|inner| call(inner, io));
        match io.take_given_up() {
            Some(why) if result.is_ok() => Err(self.condemn(FailureCause::GaveUp, why)),
            _ => result,
        }
    }

    /// Calls it outside of its thread, or for something that has no use for the thread.
    ///
    /// # Errors
    /// Those of [`call`](Self::call).
    pub(crate) fn ask<R>(&mut self, call: impl FnOnce(&mut T) -> R) -> Result<R> {
        let Some(inner) = self.inner.as_mut().filter(|_| self.condemned.get().is_none()) else {
            return Err(self.refuse());
        };
        catch_panic(|| call(inner)).map_err(|said| self.condemn(FailureCause::Panicked, said))
    }

    /// Asks it something; `None` if it is not called any more.
    pub(crate) fn look<R>(&self, call: impl FnOnce(&T) -> R) -> Option<R> {
        let inner = self.inner.as_ref().filter(|_| self.condemned.get().is_none())?;
        match catch_panic(|| call(inner)) {
            Ok(answer) => Some(answer),
            Err(said) => {
                self.note(FailureCause::Panicked, said);
                None
            }
        }
    }

    /// # Errors
    /// Why it is not called any more, if so.
    pub(crate) fn check(&mut self) -> Result<()> {
        if self.is_condemned() { Err(self.refuse()) } else { Ok(()) }
    }

    /// From now on it is not called; returns the error that says so.
    pub(crate) fn condemn(&mut self, cause: FailureCause, why: impl Into<String>) -> Error {
        self.note(cause, why.into());
        self.refuse()
    }

    pub(crate) fn is_condemned(&self) -> bool {
        self.condemned.get().is_some()
    }

    /// Whether it is condemned, and no call has returned that error yet.
    pub(crate) fn has_news(&self) -> bool {
        self.untold.get()
    }

    /// The error that says so could not be passed on, and is news still.
    pub(crate) fn tell_later(&self) {
        self.untold.set(self.is_condemned());
    }

    fn note(&self, cause: FailureCause, why: String) {
        let error = Condemnation::error(self.kind, self.what, cause, &why);
        self.untold.set(self.condemned.set(error).is_ok());
    }

    /// Lets it go, if that was not done yet.
    fn refuse(&mut self) -> Error {
        self.untold.set(false);
        if let Some(inner) = self.inner.take() {
            self._parting = Some(Parting::begin(inner));
        }
        let unknown = || Error::new(self.kind, format!("the {} is gone", self.what));
        self.condemned.get().cloned().unwrap_or_else(unknown)
    }
}
