//! Calls of code that may panic, and what it said.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Makes a call whose panic must not go further.
///
/// # Errors
/// What the panic said; empty if that was no text.
pub(crate) fn catch_panic<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(text_of)
}

fn text_of(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(ToString::to_string);
            // What a panic carries may panic as well when it is dropped.
            mem::forget(payload);
            text.unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_with_what_it_said() {
        struct Bomb;

        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("a second panic");
            }
        }

        assert_eq!(catch_panic(|| 1), Ok(1));
        assert_eq!(catch_panic(|| panic!("said")), Err::<(), _>("said".to_owned()));
        assert_eq!(catch_panic(|| panic!("said {}", 2)), Err::<(), _>("said 2".to_owned()));
        assert_eq!(catch_panic(|| std::panic::panic_any(Bomb)), Err::<(), _>(String::new()));
    }
}
