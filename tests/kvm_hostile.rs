//! Guests that do what no driver may, each beside a good one on the same I/O thread.
//!
//! `tests/guests` has their program. One case is one test, named by what must be so; `docs/hostile-guests.md` lists them. What
//! is held against each: no thread panics or is lost; the monitor's own memory grows by less than 1 MiB; no turn of the I/O
//! thread is long, by its CPU clock; the neighbour is served meanwhile; the I/O thread rests when its guests do; `stop()` and
//! drop keep their promises; and, if the case says so, the guest's next valid request is served.

mod hostile;
mod support;

#[path = "hostile/cases/balloon.rs"]
mod balloon;
#[path = "hostile/cases/block.rs"]
mod block;
#[path = "hostile/cases/card.rs"]
mod card;
#[path = "hostile/cases/chains.rs"]
mod chains;
#[path = "hostile/cases/control.rs"]
mod control;
#[path = "hostile/cases/machine.rs"]
mod machine;
#[path = "hostile/cases/net.rs"]
mod net;
#[path = "hostile/cases/odd.rs"]
mod odd;
#[path = "hostile/cases/race.rs"]
mod race;
#[path = "hostile/cases/receive.rs"]
mod receive;
#[path = "hostile/cases/registers.rs"]
mod registers;
#[path = "hostile/cases/rings.rs"]
mod rings;
#[path = "hostile/cases/rng.rs"]
mod rng;
#[path = "hostile/cases/several.rs"]
mod several;
#[path = "hostile/cases/steps.rs"]
mod steps;
#[path = "hostile/cases/vsock.rs"]
mod vsock;
#[path = "hostile/cases/work.rs"]
mod work;

use hostile::case::Case;
use hostile::verdict::Oracle;

const GROUPS: &[(&str, &[Case])] = &[
    ("Queues", rings::CASES),
    ("Chains", chains::CASES),
    ("Chains that are odd", odd::CASES),
    ("Registers", registers::CASES),
    ("Steps", steps::CASES),
    ("Disk", block::CASES),
    ("Work", work::CASES),
    ("Memory that changes meanwhile", race::CASES),
    ("Several processors", several::CASES),
    ("Frames that it sends", net::CASES),
    ("Frames that it receives", receive::CASES),
    ("Commands to its network card", control::CASES),
    ("Queues of its network card", card::CASES),
    ("Random bytes", rng::CASES),
    ("Its balloon", balloon::CASES),
    ("Sockets between host and guest", vsock::CASES),
    ("The rest of the machine", machine::CASES),
];

/// What is known to fall short: the case, by which oracle, and why. Such a case runs all the same, and anything else that is
/// found in it fails the test. An entry goes when its case holds.
pub const FALLS_SHORT: &[(&str, Oracle, &str)] = &[];

#[test]
fn the_page_of_cases_is_up_to_date() {
    hostile::page::check(GROUPS);
}

#[test]
fn the_page_of_the_public_list_is_up_to_date() {
    hostile::villain::check_page(GROUPS);
}

#[test]
fn each_number_of_the_public_list_stands_there_once() {
    hostile::villain::check_numbers();
}

#[test]
fn each_test_that_a_page_names_is_there() {
    let tests = hostile::villain::functions();
    hostile::faults::check("docs/hostile-guests.md", &hostile::page::text(GROUPS), GROUPS, &tests);
    hostile::faults::check("SECURITY.md", include_str!("../SECURITY.md"), GROUPS, &tests);
}

#[test]
fn what_falls_short_is_a_case() {
    for (name, ..) in FALLS_SHORT {
        assert!(GROUPS.iter().any(|(_, cases)| cases.iter().any(|case| case.name == *name)), "there is no case {name}");
    }
}
