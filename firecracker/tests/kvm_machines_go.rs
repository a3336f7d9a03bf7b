//! A program in Go, by its standard library alone, that starts many machines side by side, asks each guest over its vsock, and ends them.

mod support;

use std::os::unix::fs::MetadataExt;
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/machines.go");

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_program_in_go_starts_a_hundred_machines_side_by_side_and_ends_them() {
    let folder = tempfile::tempdir().unwrap();
    let (kernel, program) = (folder.path().join("kernel"), folder.path().join("machines"));
    std::fs::write(&kernel, vmcell_test_guests::GUEST).unwrap();
    let formatted = Command::new("gofmt").args(["-l", SOURCE]).output().unwrap();
    assert_eq!(String::from_utf8(formatted.stdout).unwrap(), "");
    let built = Command::new("go").args(["build", "-o"]).arg(&program).arg(SOURCE).current_dir(folder.path()).status();
    assert!(built.unwrap().success());
    let served = support::program().get_program().to_owned();
    // Paths of sockets are short, wherever the folder is.
    let mut machines = Command::new(&program);
    let output = machines.arg(served).arg("kernel").current_dir(folder.path()).env("TMPDIR", ".").output().unwrap();
    let (said, wrong) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0 && std::path::Path::new("/dev/net/tun").exists();
    let cards = if is_root { "with a network card each" } else { "without network cards" };
    let wanted = format!("100 machines ran side by side {cards}, started in ");
    assert!(output.status.success() && said.starts_with(&wanted), "{said}{wrong}");
    assert_eq!(wrong, "");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
