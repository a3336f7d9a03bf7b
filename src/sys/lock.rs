//! Locks that outlive a panic.

#[cfg(not(shuttle))]
use std::sync::{Mutex, MutexGuard};
use std::sync::{PoisonError, TryLockError};

#[cfg(shuttle)]
pub(crate) use either::{lock, lock_if_free};

/// Locks what stays whole even if a holder panicked: every value behind it is valid after each single write.
#[cfg(not(shuttle))]
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same, but `None` if somebody else holds it: for a thread that others share, which must not wait for one that may not run
/// now.
#[cfg(not(shuttle))]
pub(crate) fn lock_if_free<T: ?Sized>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// In a model, some locks are the checker's, and others, under which nothing is handed over, the standard library's.
#[cfg(shuttle)]
mod either {
    use std::ops::DerefMut;
    use std::sync::{Arc, LockResult, TryLockResult};

    use super::{PoisonError, TryLockError};

    pub(crate) trait Lock {
        type Inner: ?Sized;
        type Guard<'a>: DerefMut<Target = Self::Inner>
        where
            Self: 'a;
        fn wait(&self) -> LockResult<Self::Guard<'_>>;
        fn attempt(&self) -> TryLockResult<Self::Guard<'_>>;
    }

    macro_rules! impl_lock {
        ($($module:ident)::+) => {
            impl<T: ?Sized> Lock for $($module)::+::Mutex<T> {
                type Inner = T;
                type Guard<'a> = $($module)::+::MutexGuard<'a, T> where T: 'a;

                fn wait(&self) -> LockResult<Self::Guard<'_>> {
                    self.lock()
                }

                fn attempt(&self) -> TryLockResult<Self::Guard<'_>> {
                    self.try_lock()
                }
            }
        };
    }

    impl_lock!(std::sync);
    impl_lock!(shuttle::sync);

    impl<L: Lock> Lock for Arc<L> {
        type Inner = L::Inner;
        type Guard<'a>
            = L::Guard<'a>
        where
            L: 'a;

        fn wait(&self) -> LockResult<Self::Guard<'_>> {
            (**self).wait()
        }

        fn attempt(&self) -> TryLockResult<Self::Guard<'_>> {
            (**self).attempt()
        }
    }

    pub(crate) fn lock<L: Lock + ?Sized>(mutex: &L) -> L::Guard<'_> {
        mutex.wait().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_if_free<L: Lock + ?Sized>(mutex: &L) -> Option<L::Guard<'_>> {
        match mutex.attempt() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
