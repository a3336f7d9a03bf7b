//! A caller's own pointer, which comes back with each call of a function of the caller's.

use std::ffi::c_void;

/// Receives `user` when the library no longer needs it: once, after the last call with it, on any thread, often the one
/// that frees the VM.
pub type ReleaseUser = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// A caller's pointer, passed back with each call until it is released.
pub(super) struct User {
    pub(super) user: *mut c_void,
    pub(super) release: ReleaseUser,
}

// SAFETY: the header says which threads use it, and no two threads use it at once.
unsafe impl Send for User {}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the header demands a function that takes it, and this is the one time that it is called.
            unsafe { release(self.user) };
        }
    }
}
