//! Where launchers of one network meet: a folder that nobody else may use, or none.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Launches a kernel that is not there, in a network, and returns the status and what was said.
fn launch(network: &str, runtime: Option<&Path>) -> (Option<i32>, String) {
    let mut launcher = support::launcher();
    launcher.args(["--kernel", "/nonexistent/kernel", "--network", network]).env_remove("XDG_RUNTIME_DIR");
    if let Some(runtime) = runtime {
        launcher.env("XDG_RUNTIME_DIR", runtime);
    }
    let output = launcher.output().expect("the launcher starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn meets_in(folder: &Path) -> (Option<i32>, String) {
    launch(&format!("lab,socket={}", folder.display()), None)
}

fn assert_refused(folder: &Path, parts: &[&str]) {
    let (status, said) = meets_in(folder);
    assert_eq!(status, Some(2), "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn without_a_path_they_meet_in_the_users_folder_for_such_things() {
    let runtime = tempfile::tempdir().unwrap();
    let (_, said) = launch("lab", Some(runtime.path()));
    assert!(said.contains("/nonexistent/kernel"), "the network was joined before: {said}");
    for folder in ["vmcell", "vmcell/lab"] {
        let mode = fs::metadata(runtime.path().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
    fs::set_permissions(runtime.path().join("vmcell"), fs::Permissions::from_mode(0o711)).unwrap();
    let (status, said) = launch("lab", Some(runtime.path()));
    assert!(status == Some(2) && said.contains("others may use it (mode 0711), allowed is 0700"), "{said}");
}

#[test]
fn a_folder_that_others_may_use_or_that_is_none_is_refused() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("lab");
    fs::create_dir(&folder).unwrap();
    for mode in [0o755, 0o701, 0o720] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        assert_refused(&folder, &["others may use it", &format!("mode {mode:04o}"), "allowed is 0700"]);
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let link = above.path().join("link");
    symlink(&folder, &link).unwrap();
    assert_refused(&link, &["it is no folder"]);
    assert_refused(&above.path().join("missing/lab"), &["missing/lab", "it cannot be made", "No such file"]);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&folder, Some(12345), None).unwrap();
        assert_refused(&folder, &["it belongs to user 12345, and this is user 0"]);
    }
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_refused_with_its_length() {
    let above = tempfile::tempdir().unwrap();
    let room = 107 - "/65535".len() - above.path().as_os_str().len() - 1;
    let (fits, longer) = (above.path().join("x".repeat(room)), above.path().join("x".repeat(room + 1)));
    let (_, said) = meets_in(&fits);
    assert!(said.contains("/nonexistent/kernel"), "{said}");
    assert_refused(&longer, &["paths of 108 bytes, allowed are 107", "socket=PATH"]);
    assert!(!longer.exists(), "nobody would use it");
}
