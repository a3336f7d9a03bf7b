//! Where a sink's bytes go.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::sys::{Attempt, Stream};

pub(super) type Callback = Box<dyn FnMut(&[u8]) + Send>;

/// Takes bytes, if possible without waiting.
pub(super) trait Target: Send + 'static {
    /// Takes what it can without waiting.
    fn attempt(&mut self, bytes: &[u8]) -> io::Result<Attempt>;

    /// Takes something, for as long as that takes.
    fn take_waiting(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// What to wait on after [`Attempt::NotNow`].
    fn polled(&self) -> Option<&Arc<File>>;

    /// Whether what could not be taken is worth keeping: the other side will still want it.
    fn keeps(&self) -> bool;

    /// Why something failed that did not keep it from taking bytes, once.
    fn trouble(&mut self) -> Option<io::Error> {
        None
    }

    /// Whether it is let go when the guest has ended, so that the other side sees an end.
    fn ends_with_guest(&self) -> bool;
}

impl Target for Stream {
    fn attempt(&mut self, bytes: &[u8]) -> io::Result<Attempt> {
        self.try_write(bytes)
    }

    fn take_waiting(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_waiting(bytes)
    }

    fn polled(&self) -> Option<&Arc<File>> {
        Stream::polled(self)
    }

    /// A file's storage may be given room. Who comes to a pipe after its last reader went did not ask for what was before.
    fn keeps(&self) -> bool {
        Stream::polled(self).is_none()
    }

    fn ends_with_guest(&self) -> bool {
        true
    }
}

/// A function of the host program's. Once it has panicked, it is not called again.
pub(super) struct Function(Option<Callback>);

impl Function {
    pub(super) fn new(callback: Callback) -> Self {
        Self(Some(callback))
    }
}

impl Target for Function {
    fn attempt(&mut self, bytes: &[u8]) -> io::Result<Attempt> {
        self.take_waiting(bytes).map(Attempt::Moved)
    }

    fn take_waiting(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let panicked = || io::Error::other("the callback panicked, and is not called any more");
        let callback = self.0.as_mut().ok_or_else(panicked)?;
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| callback(bytes))) {
            // What a panic carries, and what the callback captured, may panic as well when they are dropped.
            std::mem::forget(payload);
            let callback = self.0.take();
            let _ = catch_unwind(AssertUnwindSafe(|| drop(callback))).map_err(std::mem::forget);
            return Err(panicked());
        }
        Ok(bytes.len())
    }

    fn polled(&self) -> Option<&Arc<File>> {
        None
    }

    fn keeps(&self) -> bool {
        false
    }

    fn ends_with_guest(&self) -> bool {
        false
    }
}
