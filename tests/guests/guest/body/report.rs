//! What the guest tells the test, line by line.
//!
//! `ready`, then for a case `case NAME: did ...`, any number of `figure ...` and `fail ...`, and `ok` or nothing; last `done`.

use core::fmt::{Arguments, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use super::machine::serial::{self, Serial};

static FAILED: AtomicBool = AtomicBool::new(false);

pub fn line(text: Arguments<'_>) {
    // The port takes everything.
    let _ = Serial.write_fmt(text);
    let _ = Serial.write_str("\n");
}

/// Something that must not be is so.
pub fn fail(why: Arguments<'_>) {
    FAILED.store(true, Ordering::Relaxed);
    line(format_args!("fail {why}"));
}

/// As [`fail`], unless `holds`.
pub fn check(holds: bool, why: Arguments<'_>) {
    if !holds {
        fail(why);
    }
}

pub fn has_failed() -> bool {
    FAILED.load(Ordering::Relaxed)
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
