//! `cell` as other programs run it.

use std::process::Command;

use clap::Parser;
use vmcell_platform::options::Options;

#[test]
fn refused_arguments_are_told_as_json_if_that_is_asked_for() {
    let cell = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_cell")).args(arguments).output().unwrap();
    let asked = cell(&["--json", "scale", "web", "many"]);
    assert_eq!(asked.status.code(), Some(2));
    let fault: serde_json::Value = serde_json::from_slice(&asked.stdout).expect("one JSON value");
    assert!(fault["message"].as_str().unwrap().contains("'many'") && fault["next"].is_string(), "{fault}");
    let not_asked = cell(&["scale", "web", "many"]);
    assert_eq!((not_asked.status.code(), not_asked.stdout), (Some(2), Vec::new()));
    // For a person, the text is the same either way.
    assert_eq!(not_asked.stderr, asked.stderr);
    let help = cell(&["--json", "scale", "--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage: cell scale"));
}

#[test]
fn the_service_of_the_examples_is_one_for_systemd_and_its_command_one_for_cell() {
    let unit = include_str!("../examples/cell.service");
    let starts = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    Options::try_parse_from(starts.split_whitespace()).unwrap();
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let complaints = |unit: String| {
        let path = folder.path().join("cell.service");
        // The place of the program, which is not installed here.
        std::fs::write(&path, unit.replace("/usr/local/bin/cell", env!("CARGO_BIN_EXE_cell"))).unwrap();
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // It may say something of the units of the system that this one comes after, too.
        said.lines().filter(|line| line.contains("cell.service")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complaints(unit.to_owned()), Vec::<String>::new());
    let wrong = complaints(unit.replace("Restart=", "Restarts="));
    assert!(wrong.iter().any(|line| line.contains("Restarts")), "{wrong:?}");
}
