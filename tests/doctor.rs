//! What the launcher says of the host that it runs on. No KVM needed.

mod support;

use vmcell::{FindingLevel, HostCheck};

#[test]
fn the_launcher_prints_a_finding_of_each_name_and_fails_only_if_no_vm_can_start() {
    let output = support::launcher().arg("--doctor").output().expect("the launcher starts");
    let (table, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let check = HostCheck::run();
    for finding in &check.findings {
        let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&finding.name));
        assert!(line.is_some_and(|line| line.starts_with(&finding.level.to_string())), "{finding} in:\n{table}");
    }
    let can_start = check.level() < FindingLevel::Problem;
    assert_eq!(output.status.code(), Some(if can_start { 0 } else { 1 }), "{table}{said}");
    assert_eq!(said, if can_start { "" } else { "launch: no VM can start on this host\n" });
}

#[test]
fn a_process_that_may_open_too_few_files_is_told_that_no_vm_can_start() {
    let mut limited = std::process::Command::new("prlimit");
    limited.args(["--nofile=14", "--"]).arg(support::launcher().get_program()).arg("--doctor");
    let output = limited.output().expect("the launcher starts");
    let table = String::from_utf8(output.stdout).unwrap();
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some("open-files")).unwrap();
    assert!(line.starts_with("problem") && line.ends_with("for 0 VMs without devices"), "{table}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "launch: no VM can start on this host\n");
}

#[test]
fn nothing_else_may_be_asked_for_beside_it() {
    let output = support::launcher().args(["--doctor", "--kernel", "k"]).output().expect("the launcher starts");
    assert_eq!(output.status.code(), Some(2));
}
