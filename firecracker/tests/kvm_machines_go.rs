//! A program in Go, by its standard library alone, that starts and ends many machines side by side.

mod support;

use std::process::Command;

use vmcell::testing::TinyGuest;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/machines.go");

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_program_in_go_starts_a_hundred_machines_side_by_side_and_ends_them() {
    let folder = tempfile::tempdir().unwrap();
    let (kernel, program) = (folder.path().join("kernel"), folder.path().join("machines"));
    TinyGuest::echo().write_to(&kernel).unwrap();
    let formatted = Command::new("gofmt").args(["-l", SOURCE]).output().unwrap();
    assert_eq!(String::from_utf8(formatted.stdout).unwrap(), "");
    let built = Command::new("go").args(["build", "-o"]).arg(&program).arg(SOURCE).current_dir(folder.path()).status();
    assert!(built.unwrap().success());
    let served = support::program().get_program().to_owned();
    let output = Command::new(&program).arg(served).arg(&kernel).env("TMPDIR", folder.path()).output().unwrap();
    let (said, wrong) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && said.starts_with("100 machines ran side by side"), "{said}{wrong}");
    assert_eq!(wrong, "");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
