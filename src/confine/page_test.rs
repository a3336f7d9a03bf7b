//! `docs/confinement.md` says what the list says.

use std::fmt::Write;
use std::path::Path;

use super::calls::{By, CALLS, Call, Kind, Only};

const BEGIN: &str = "<!-- The table is made from the list: `VMCELL_UPDATE=1 cargo test --lib confine` writes it. -->\n";

fn table() -> String {
    let mut page = String::from(BEGIN);
    page.push_str("\n| Call | Of which threads | Only if | It |\n|---|---|---|---|\n");
    for call in CALLS {
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", name(call), by(call.by), only(call.only), call.why);
    }
    page
}

fn name(call: &Call) -> &str {
    call.name.trim_start_matches("SYS_")
}

fn by(by: By) -> &'static str {
    match by {
        By::Both => "all",
        By::Vcpu => "vCPU, control",
        By::Io => "I/O, control",
        By::Control => "control",
        By::Rotation => "I/O, with a log of a limited size",
        By::Vsock => "I/O, with a vsock; control",
        By::Paths => "I/O, with a vsock that has a path",
        By::Removal => "I/O, with a log of a limited size or a vsock that has a path",
    }
}

fn only(only: Only) -> String {
    match only {
        Only::Any => String::new(),
        Only::OneOf(index, values) => {
            let names: Vec<_> = values.iter().map(|(name, _)| format!("`{name}`")).collect();
            format!("argument {index} is {}", names.join(", "))
        }
        Only::With(index, name, _) => format!("argument {index} has `{name}`"),
        Only::Without(index, name, _) => format!("argument {index} lacks `{name}`"),
        Only::Own => "argument 0 is this process".to_owned(),
        Only::Zero(indices) => {
            let indices: Vec<_> = indices.iter().map(u8::to_string).collect();
            format!("arguments {} are 0", indices.join(" and "))
        }
    }
}

#[test]
fn the_page_has_every_call_with_its_reason() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/confinement.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (text, written) = page.split_at(page.find(BEGIN).unwrap());
    if std::env::var_os("VMCELL_UPDATE").is_some() {
        std::fs::write(&path, format!("{text}{}", table())).unwrap();
    } else {
        assert_eq!(written, table(), "VMCELL_UPDATE=1 writes the page anew");
    }
}

/// It would lose the conditions of the other.
#[test]
fn no_thread_has_a_call_twice_of_which_one_is_without_conditions() {
    for kind in [Kind::Vcpu, Kind::Io { rotates: true, vsock: true, connects: true }, Kind::Control] {
        let listed: Vec<_> = CALLS.iter().filter(|call| call.by.includes(kind)).collect();
        for (index, call) in listed.iter().enumerate() {
            let twice = listed.iter().skip(index + 1).find(|other| other.number == call.number);
            let is_any = |call: &Call| matches!(call.only, Only::Any);
            assert!(twice.is_none_or(|other| !is_any(other) && !is_any(call)), "{kind:?}: {}", call.name);
        }
    }
}
