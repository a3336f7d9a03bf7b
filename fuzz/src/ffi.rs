//! The C interface as a sequence of calls, in any order, on handles that are right, NULL, freed, of another type, or made up: each
//! returns what a model says, nothing is lost, and what configurations say is what was set.
#![allow(unsafe_code, reason = "calls what C programs call")]

mod c;
mod calls;
mod model;
mod settings;

use std::ffi::{CStr, CString};
use std::ptr::null_mut;

use crate::input::{Input, Script};
use c::Handle;
use model::{Kind, Model};

const MOST_STEPS: usize = 200;

/// Numbers of failures.
const OK: i32 = 0;
const INVALID_CONFIG: i32 = 1;
const DISK: i32 = 3;
const NULL_ARGUMENT: i32 = 100;
const BAD_HANDLE: i32 = 101;
const NOT_UTF8: i32 = 102;
const BAD_VALUE: i32 = 103;
const BAD_DESCRIPTOR: i32 = 104;
const PANIC: i32 = 105;

/// The objects that there are, and what each call should do.
struct Test {
    model: Model,
    /// Objects of this process at the beginning.
    before: u64,
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    // SAFETY: it takes nothing.
    let mut test = Test { model: Model::default(), before: unsafe { c::vmcell_handle_count() } };
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        test.step(&mut input);
    }
    test.end();
}

impl Test {
    /// Makes a call that reports, with or without a place for the error, and compares what it returns.
    fn call(&mut self, input: &mut Input, expected: i32, call: impl FnOnce(*mut Handle) -> i32) -> bool {
        let found = self.call_any(input, call);
        assert_eq!(found, expected, "what the call returns");
        found == OK
    }

    fn call_any(&mut self, input: &mut Input, call: impl FnOnce(*mut Handle) -> i32) -> i32 {
        let mut error = null_mut();
        let place = if input.one_in(4) { null_mut() } else { &raw mut error };
        let found = call(place);
        assert_ne!(found, PANIC, "a call panicked");
        if found == OK || place.is_null() {
            assert!(error.is_null(), "an error of a call that succeeded, or of one that had no place for it");
        } else {
            // SAFETY: the handle comes from the library, which looks it up; the text is borrowed from the error.
            let (number, text) =
                unsafe { (c::vmcell_error_number(error), CStr::from_ptr(c::vmcell_error_chain(error))) };
            assert_eq!(number, found, "the number of the error");
            assert!(text.to_str().is_ok_and(|text| !text.is_empty()), "an error without a text");
            self.model.add(Kind::Error, error, None);
        }
        found
    }

    /// No object is left that the model does not have, and none when all are freed.
    fn end(mut self) {
        // SAFETY: it takes nothing.
        let count = || unsafe { c::vmcell_handle_count() };
        assert_eq!(count() - self.before, self.model.live(), "objects that there are");
        for (kind, handle) in self.model.take_all() {
            assert_eq!(free(kind, handle), OK, "an object that lives can be freed");
            assert_eq!(free(kind, handle), BAD_HANDLE, "one that was freed cannot");
        }
        assert_eq!(count(), self.before, "objects when all are freed");
    }
}

fn free(kind: Kind, handle: Handle) -> i32 {
    // SAFETY: handles are looked up, and never followed.
    unsafe {
        match kind {
            Kind::Config => c::vmcell_config_free(handle),
            Kind::Disk => c::vmcell_disk_free(handle),
            Kind::DiskHandle => c::vmcell_disk_handle_free(handle),
            Kind::Nic => c::vmcell_nic_free(handle),
            Kind::Console => c::vmcell_console_free(handle),
            Kind::Error => c::vmcell_error_free(handle),
            Kind::Vm => c::vmcell_vm_free(handle),
        }
    }
}

/// A text for C; what cannot be one ends early.
fn text(input: &mut Input) -> CString {
    let len = input.byte() % 24;
    let bytes: Vec<u8> = (0..len).map(|_| input.byte()).take_while(|byte| *byte != 0).collect();
    CString::new(bytes).expect("it has no NUL")
}

/// What a text is in Rust, if it is one.
fn utf8(text: Option<&CString>) -> Result<String, i32> {
    text.ok_or(NULL_ARGUMENT)?.to_str().map(str::to_owned).map_err(|_| NOT_UTF8)
}

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let new = || Script::new().bytes(&[0, 0]);
    let every = (0..32u8).fold(new(), |script, call| script.bytes(&[call, 1, 1, 2, 0, 3, b'a', b'b', b'c', 0, 0, 1]));
    let json = br#"{"boot":{"kernel":"k"},"vcpus":3}"#;
    let from_json = Script::new().bytes(&[1, 1]).bytes(&[json.len() as u8]).bytes(json).bytes(&[0]);
    vec![
        ("one-of-each", every.done()),
        ("json", from_json.bytes(&[2, 0, 0, 255, 0, 2, 0, 0, 1, 0]).done()),
        ("freed-twice", new().bytes(&[25, 0, 0, 0, 25, 0, 0, 0]).done()),
        ("nothing", (0..32u8).fold(Script::new(), |script, call| script.bytes(&[call, 7, 7, 7, 7, 7])).done()),
        ("takes-a-disk", new().bytes(&[14, 1, 0, 16, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0]).done()),
    ]
}
