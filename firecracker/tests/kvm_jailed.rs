//! A program in its jail: it has the files below its folder and no others.

mod support;

use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::json;
use support::{Program, image};
use vmcell::testing::TinyGuest;

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_jailed_program_runs_a_machine_of_the_files_in_its_folder_and_opens_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let mut program = Program::in_folder(folder, &["--jail", &path]);
    let outside = tempfile::tempdir().unwrap();
    let other = image(outside.path(), "disk", 1 << 20);
    program.describe(&TinyGuest::spin());
    let drive = |path: &str| json!({"drive_id": "d", "is_root_device": false, "path_on_host": path}).to_string();
    let refused = program.refused("PUT", "/drives/d", &drive(&other));
    assert!(refused.starts_with("drive d: ") && refused.contains(&other), "{refused}");
    assert!(program.refused("PUT", "/boot-source", r#"{"kernel_image_path": "/etc/passwd"}"#).contains("/etc/passwd"));
    program.done("PUT", "/drives/d", &drive(&image(program.folder.path(), "disk", 1 << 20)));
    program.done("PUT", "/vsock", &json!({"guest_cid": 3, "uds_path": program.path("vsock")}).to_string());
    program.start();
    let another = image(program.folder.path(), "another", 2 << 20);
    program.done("PATCH", "/drives/d", &json!({"drive_id": "d", "path_on_host": another}).to_string());
    program.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
    let [state, memory] = ["state", "memory"].map(|name| program.path(name));
    program.done("PUT", "/snapshot/create", &json!({"snapshot_path": state, "mem_file_path": memory}).to_string());
    program.signal("TERM");
    assert_eq!(program.wait().code(), Some(0));
    assert!(memory.exists() && !program.path("vsock").exists() && !program.socket().exists());
    assert!(program.text_of("stdout").contains("jailed "), "{}", program.text_of("stdout"));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn root_has_the_program_be_another_user_with_limits_before_it_is_jailed() {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let folder = tempfile::tempdir().unwrap();
    let jail = &folder.path().to_str().unwrap().to_owned();
    let arguments = ["--jail", jail, "--uid", "4321", "--gid", "4321", "--resource-limit", "no-file=100"];
    let arguments = [arguments.as_slice(), &["--resource-limit", "no-file=200"]].concat();
    if !is_root {
        let output = support::program().args(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(153) && said.contains("only root becomes another user"), "{said}");
        return;
    }
    std::os::unix::fs::chown(folder.path(), Some(4321), Some(4321)).unwrap();
    // Root raises a limit again, unless its capability for that is gone.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "(ulimit -n 150 && ulimit -n 200) 2>/dev/null && ulimit -n 150; exec \"$0\" \"$@\" 9</dev/zero"])
        .arg(support::program().get_program());
    let program = Program::of(limited, folder, &arguments);
    // Its socket is there before it is jailed.
    assert_eq!(program.get("/")["state"], json!("Not started"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!((line("Uid:"), line("Gid:")), (vec!["4321"; 4], vec!["4321"; 4]), "{status}");
    assert!(line("Groups:").is_empty() && line("CapEff:") == ["0000000000000000"], "{status}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.pid())).unwrap_or_default();
    assert!(limits.lines().any(|line| line.starts_with("Max open files") && line.contains(" 200 ")), "{limits}");
    let opened = std::fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap();
    let opened = opened.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect::<Vec<_>>();
    assert!(!opened.is_empty() && !opened.contains(&"/dev/zero".into()), "{opened:?}");
    let variables = std::fs::read(format!("/proc/{}/environ", program.pid())).unwrap();
    assert!(variables.is_empty(), "{}", String::from_utf8_lossy(&variables));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_file_that_would_be_longer_than_is_allowed_ends_no_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let mut program = Program::in_folder(folder, &["--jail", &path, "--resource-limit", "fsize=65536"]);
    program.describe(&TinyGuest::spin());
    program.start();
    program.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
    let [state, memory] = ["state", "memory"].map(|name| program.path(name));
    let snapshot = json!({"snapshot_path": state, "mem_file_path": memory}).to_string();
    assert!(program.refused("PUT", "/snapshot/create", &snapshot).contains("File too large"));
    assert_eq!(program.get("/")["state"], json!("Paused"));
    program.signal("TERM");
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn the_socket_is_removed_whichever_way_it_was_named() {
    let outside = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let link = outside.path().join("link");
    symlink(folder.path(), &link).unwrap();
    let (whole, link) = (folder.path().to_str().unwrap(), link.to_str().unwrap());
    let socket = folder.path().join("api");
    for (jail, named) in [(".", "api"), (whole, &format!("{link}/api")), (link, "api"), ("./", &format!("{whole}/api"))]
    {
        let mut program = support::program();
        program.args(["--jail", jail, "--api-sock", named]).current_dir(whole).stdout(Stdio::null());
        let mut program = program.spawn().unwrap();
        let began = std::time::Instant::now();
        let answers = || {
            let mut stream = UnixStream::connect(&socket).ok()?;
            Some(support::ask(&mut stream, "GET", "/version", "").status)
        };
        while answers() != Some(200) {
            assert!(began.elapsed() < support::LIMIT && program.try_wait().unwrap().is_none(), "{jail} {named}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(Command::new("kill").arg(program.id().to_string()).status().unwrap().success());
        assert_eq!(program.wait().unwrap().code(), Some(0));
        assert!(!socket.exists(), "{jail} {named}");
    }
}

#[test]
fn a_jail_that_is_none_and_a_cgroup_that_is_none_are_refused_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let (file, path) = (folder.path().join("file"), folder.path().to_str().unwrap());
    std::fs::write(&file, "").unwrap();
    for (arguments, told) in [
        (vec!["--jail", "/"], "--jail: /: all files lie below it"),
        (vec!["--jail", file.to_str().unwrap()], "it is no folder"),
        (vec!["--jail", "none"], "none: No such file"),
        (vec!["--jail", "../."], "it must be without .."),
        (vec!["--jail", path, "--parent-cgroup", path], "--parent-cgroup: "),
        (vec!["--jail", path, "--cgroup", "pids.max=7"], "--parent-cgroup"),
    ] {
        let output = support::program().args(&arguments).current_dir(path).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(153) && said.contains(told), "{arguments:?}: {said}");
    }
}
