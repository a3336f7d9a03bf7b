//! Every path and method of the specification, before a machine is started and after that, and what differs from Firecracker: the table in
//! `docs/orchestrators.md`. `VMCELL_UPDATE=1` writes it anew.

mod support;

use serde_json::json;
use support::Program;
use support::walk::{Row, rows};
use vmcell::testing::TinyGuest;

const DOCUMENT: &str = include_str!("../../docs/orchestrators.md");
const BEGIN: &str = "<!-- made by firecracker/tests/kvm_differences.rs -->\n";
const END: &str = "<!-- end -->\n";

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_differs_from_firecracker_is_what_the_document_says() {
    let program = Program::new(&["--level", "Error"]);
    program.describe(&TinyGuest::spin());
    let rows = rows(program.folder.path());
    let ask = |row: &Row| row.ask(&program).status;
    let before: Vec<u16> = rows.iter().map(ask).collect();
    assert_eq!(program.get("/")["state"], json!("Running"));
    let after: Vec<u16> = rows.iter().map(ask).collect();
    let mut table = String::from("| Request | Here | Firecracker | What differs |\n|---|---|---|---|\n");
    for (row, ours) in rows.iter().zip(before.into_iter().zip(after)) {
        assert!(ours == row.firecracker || !row.difference.is_empty(), "{} {}: {ours:?}", row.method, row.path);
        let action = row.body.split("action_type\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let action = action.map(|action| format!(" `{action}`")).unwrap_or_default();
        let statuses = |(before, after)| format!("{before}, {after}");
        let (here, there) = (statuses(ours), statuses(row.firecracker));
        table.push_str(&format!("| `{} {}`{action} | {here} | {there} | {} |\n", row.method, row.path, row.difference));
    }
    let (head, rest) = DOCUMENT.split_once(BEGIN).expect("a table");
    let (told, tail) = rest.split_once(END).expect("its end");
    if std::env::var_os("VMCELL_UPDATE").is_some_and(|value| value == "1") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/orchestrators.md");
        std::fs::write(path, format!("{head}{BEGIN}\n{table}\n{END}{tail}")).expect("the document is written");
    } else {
        assert_eq!(told.trim(), table.trim(), "VMCELL_UPDATE=1 writes it anew");
    }
}
