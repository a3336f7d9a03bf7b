//! What threads hand things over with: the standard library's, or that of the model checker [shuttle](https://docs.rs/shuttle), which
//! runs our threads one at a time and changes between them wherever they touch any of this (`--cfg shuttle`; see `model`).

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic, mpsc},
    thread, thread_local,
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, mpsc},
    thread_local,
};

#[cfg(shuttle)]
pub(crate) mod atomic {
    pub(crate) use shuttle::sync::atomic::*;

    /// Orders nothing, since in a model everything is in order, but lets other threads run.
    pub(crate) fn fence(_: Ordering) {
        shuttle::thread::sleep(std::time::Duration::ZERO);
    }
}

#[cfg(shuttle)]
pub(crate) mod thread {
    pub(crate) use shuttle::thread::*;

    /// In a model, the time has always come.
    pub(crate) fn park_timeout(_: std::time::Duration) {
        yield_now();
    }
}
