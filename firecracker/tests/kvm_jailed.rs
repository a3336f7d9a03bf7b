//! A program in its jail: it has the files below its folder and no others.

mod support;

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
