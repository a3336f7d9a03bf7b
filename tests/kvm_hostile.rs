//! Guests that do what no driver may, each beside a good one on the same I/O thread.
//!
//! `tests/guests` has their program. One case is one test, named by what must be so; `docs/hostile-guests.md` lists them. What
//! is held against each: no thread panics or is lost; the monitor's own memory grows by less than 1 MiB; no turn of the I/O
//! thread is long, by its CPU clock; the neighbour is served meanwhile; the I/O thread rests when its guests do; `stop()` and
//! drop keep their promises; and, if the case says so, the guest's next valid request is served.

mod hostile;
mod support;

#[path = "hostile/cases/work.rs"]
mod work;

use hostile::case::Case;
use hostile::verdict::Oracle;

const GROUPS: &[(&str, &[Case])] = &[("Work", work::CASES)];

/// What is known to fall short: the case, by which oracle, and why. Such a case runs all the same, and anything else that is
/// found in it fails the test. An entry goes when its case holds.
pub const FALLS_SHORT: &[(&str, Oracle, &str)] = &[
    ("a_read_of_4_gib_by_overlapping_segments_holds_up_nobody", Oracle::Turn, ONE_BATCH),
    ("a_read_of_4_gib_by_overlapping_segments_holds_up_nobody", Oracle::Neighbour, ONE_BATCH),
    ("a_read_of_4_gib_by_overlapping_segments_holds_up_nobody", Oracle::Finished, ONE_BATCH),
];

const ONE_BATCH: &str = "a turn serves 32 requests, however large they are";

#[test]
fn the_page_of_cases_is_up_to_date() {
    hostile::page::check(GROUPS);
}

#[test]
fn what_falls_short_is_a_case() {
    for (name, ..) in FALLS_SHORT {
        assert!(GROUPS.iter().any(|(_, cases)| cases.iter().any(|case| case.name == *name)), "there is no case {name}");
    }
}
