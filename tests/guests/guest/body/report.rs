//! What the guest tells the test, line by line.
//!
//! `ready`; then `case: ...` for what it did, `figure ...` for what came of that, `fail ...` for each thing that must not be so,
//! and `served ...` for how a valid request fared afterwards; last `done`.

use core::fmt::{Arguments, Write};

use super::machine::serial::{self, Serial};

pub fn line(text: Arguments<'_>) {
    // The port takes everything.
    let _ = Serial.write_fmt(text);
    let _ = Serial.write_str("\n");
}

/// Something that must not be is so.
pub fn fail(why: Arguments<'_>) {
    line(format_args!("fail {why}"));
}

/// As [`fail`], unless `holds`.
pub fn check(holds: bool, why: Arguments<'_>) {
    if !holds {
        fail(why);
    }
}

/// Says that the guest is ready, and waits for the test to let it begin.
pub fn ready() {
    line(format_args!("ready"));
    serial::wait_for(b'g');
}

/// Has the test do something on the host, and waits until it is done.
pub fn ask(what: &str) {
    line(format_args!("ask {what}"));
    serial::wait_for(b'g');
}
