//! `docs/hostile-guests.md`, made of the list of cases.

use std::fmt::Write;
use std::path::Path;

use super::case::Case;
use super::faults;

const HEAD: &str = "\
# Hostile guests

The guest is hostile from its first instruction. Each line below is a test in `tests/kvm_hostile.rs` of the same name: a guest
without an operating system does one bad thing, while a good guest works on the same I/O thread. Whatever the bad guest does,

- no thread panics, and none is lost;
- the monitor's own memory grows by less than 1 MiB;
- a turn of a device takes less than 2 ms of the I/O thread's CPU time (it ends at the first look at the clock after 500 µs, and the rest is
  for the request in hand and for a shared host), the thread comes to its other sources within 5 ms, and does not sleep in a call on a backend;
- the good guest's requests are served, and rightly, and none of them waits for a second;
- the I/O thread rests when its guests do;
- `Vm::device_failures` tells of a device only if the guest has broken a queue of it, in one entry however often that was, or if the
  host took away what it works on;
- `stop()` takes less than 100 ms, and dropping the VM less than a second.

Limits of time are ten times as long on an emulated processor. Those by the clock on the wall are so, too, on a host that does not have
a processor for each thread that wants to run.

`cargo xtask test kvm_hostile` runs them; `VMCELL_LONG=1` makes those longer that are a matter of time. This page is made from
the list that the tests have: `VMCELL_UPDATE=1 cargo test --test kvm_hostile page` writes it.
";

pub fn text(groups: &[(&str, &[Case])]) -> String {
    let mut text = HEAD.to_owned();
    for (title, cases) in groups {
        let _ = write!(text, "\n## {title}\n\n");
        text.push_str("| Test | The guest | It must not | It ends |\n|---|---|---|---|\n");
        for Case { name, did, must_not, ends, .. } in *cases {
            let _ = writeln!(text, "| `{name}` | {did} | {must_not} | {} |", ends.words());
        }
    }
    text + &faults::text()
}

pub fn check(groups: &[(&str, &[Case])]) {
    compare("docs/hostile-guests.md", &text(groups));
}

/// Holds a page against what it should be, or writes it.
pub fn compare(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("VMCELL_UPDATE").is_some() {
        std::fs::write(&path, text).expect("the page is written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{} is not what the tests make of it; see there how to write it", path.display());
}
