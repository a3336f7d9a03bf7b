//! Snapshots that one program takes and another goes on with, and the metrics of both.

mod support;

use serde_json::{Value, json};
use support::{Program, image};
use vmcell::testing::TinyGuest;

/// A machine with a disk and a vsock whose guest prints a dot now and then, which is paused.
fn paused(arguments: &[&str], machine: &Value) -> Program {
    let mut program = Program::new(arguments);
    program.describe(&TinyGuest::flood(b'.'));
    program.done("PUT", "/machine-config", &machine.to_string());
    let disk = image(program.folder.path(), "disk", 1 << 20);
    let drive = json!({"drive_id": "d", "is_root_device": false, "path_on_host": disk, "cache_type": "Writeback"});
    program.done("PUT", "/drives/d", &drive.to_string());
    program.done("PUT", "/vsock", &json!({"guest_cid": 3, "uds_path": program.path("vsock")}).to_string());
    program.done("PUT", "/serial", &slowly(&program));
    program.start();
    program.until("the guest's output", |program| !program.text_of("serial").is_empty());
    program.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
    program
}

/// A hundred bytes a second.
fn slowly(program: &Program) -> String {
    let limiter = json!({"size": 100, "refill_time": 1000});
    json!({"serial_out_path": program.path("serial"), "rate_limiter": limiter}).to_string()
}

fn plain() -> Value {
    json!({"vcpu_count": 1, "mem_size_mib": 16})
}

fn create(program: &Program, name: &str, kind: &str) -> (String, String) {
    let [state, memory] = ["state", "memory"].map(|what| program.path(&format!("{name}.{what}")).display().to_string());
    let body = json!({"snapshot_type": kind, "snapshot_path": state, "mem_file_path": memory});
    program.done("PUT", "/snapshot/create", &body.to_string());
    (state, memory)
}

fn load(state: &str, memory: &str) -> Value {
    json!({"snapshot_path": state, "mem_backend": {"backend_type": "File", "backend_path": memory}})
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn another_program_goes_on_with_a_machine_on_a_disk_and_a_socket_of_its_own() {
    let source = paused(&[], &plain());
    let (state, memory) = create(&source, "one", "Full");
    let mut fork = Program::new(&["--id", "fork"]);
    fork.done("PUT", "/serial", &slowly(&fork));
    let mut wanted = load(&state, &memory);
    let disk = image(fork.folder.path(), "disk", 1 << 20);
    wanted["drive_overrides"] = json!([{"drive_id": "d", "path_on_host": disk}]);
    wanted["vsock_override"] = json!({"uds_path": fork.path("vsock")});
    fork.done("PUT", "/snapshot/load", &wanted.to_string());
    assert_eq!(fork.get("/")["state"], json!("Paused"));
    let told = fork.get("/vm/config");
    assert_eq!(
        (&told["drives"][0]["path_on_host"], &told["boot-source"]["kernel_image_path"]),
        (&json!(disk), &json!(""))
    );
    assert_eq!(told["vsock"]["uds_path"], json!(fork.path("vsock")));
    assert_eq!(fork.text_of("serial"), "");
    assert!(
        fork.refused("PUT", "/snapshot/create", &json!({"snapshot_path": "a", "mem_file_path": "b"}).to_string())
            .contains("resume it first")
    );
    fork.done("PATCH", "/vm", r#"{"state": "Resumed"}"#);
    fork.until("the guest's output", |fork| fork.text_of("serial").contains('.'));
    assert_eq!(fork.get("/")["state"], json!("Running"));
    // Its source goes on, too.
    source.done("PATCH", "/vm", r#"{"state": "Resumed"}"#);
    let refused =
        source.refused("PUT", "/snapshot/create", &json!({"snapshot_path": "a", "mem_file_path": "b"}).to_string());
    assert_eq!(refused, "snapshot/create: the machine runs; pause it first");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_has_changed_since_a_snapshot_builds_on_it() {
    let machine = json!({"vcpu_count": 1, "mem_size_mib": 64, "track_dirty_pages": true});
    let mut source = paused(&[], &machine);
    let (_, first) = create(&source, "one", "Full");
    source.done("PATCH", "/vm", r#"{"state": "Resumed"}"#);
    source.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
    let (state, second) = create(&source, "two", "Diff");
    let allocated = |path: &str| std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap());
    assert!(allocated(&second) <= allocated(&first), "{} and {}", allocated(&second), allocated(&first));
    let elsewhere = tempfile::tempdir().unwrap();
    let body = json!({"snapshot_type": "Diff", "snapshot_path": source.path("x"), "mem_file_path": elsewhere.path().join("y")});
    assert!(source.refused("PUT", "/snapshot/create", &body.to_string()).contains("has to lie in the same folder"));
    source.signal("TERM");
    source.wait();
    let mut fork = Program::new(&[]);
    fork.done("PUT", "/serial", &slowly(&fork));
    let mut wanted = load(&state, &second);
    wanted["resume_vm"] = json!(true);
    wanted["track_dirty_pages"] = json!(true);
    wanted["vsock_override"] = json!({"uds_path": fork.path("vsock")});
    let disk = image(fork.folder.path(), "disk", 1 << 20);
    wanted["drive_overrides"] = json!([{"drive_id": "d", "path_on_host": disk}]);
    fork.done("PUT", "/snapshot/load", &wanted.to_string());
    fork.until("the guest's output", |fork| fork.text_of("serial").contains('.'));
    fork.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
    create(&fork, "three", "Diff");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_snapshot_that_cannot_be_taken_or_loaded_is_refused_and_the_program_goes_on() {
    let source = paused(&[], &plain());
    let (state, memory) = create(&source, "one", "Full");
    let diff = json!({"snapshot_type": "Diff", "snapshot_path": source.path("a"), "mem_file_path": source.path("b")});
    assert!(source.refused("PUT", "/snapshot/create", &diff.to_string()).contains("track_dirty_pages is false"));
    let same = json!({"snapshot_path": source.path("a"), "mem_file_path": source.path("a")});
    assert!(source.refused("PUT", "/snapshot/create", &same.to_string()).contains(", the same"));
    let nowhere = json!({"snapshot_path": source.path("a"), "mem_file_path": "/none/b"});
    assert!(source.refused("PUT", "/snapshot/create", &nowhere.to_string()).contains("/none"));

    let program = Program::new(&[]);
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut wanted = load(&state, &memory);
        change(&mut wanted);
        program.refused("PUT", "/snapshot/load", &wanted.to_string())
    };
    assert!(refused(&|wanted| wanted["mem_backend"]["backend_type"] = json!("Uffd")).contains("Uffd"));
    assert!(refused(&|wanted| wanted["snapshot_path"] = json!("/none")).contains("snapshot_path is \"/none\""));
    assert!(refused(&|wanted| wanted["snapshot_path"] = json!(memory)).contains("snapshot_path is "));
    assert!(refused(&|wanted| wanted["mem_backend"]["backend_path"] = json!(state)).contains("snapshot"));
    let other = json!([{"iface_id": "e", "host_dev_name": "t"}]);
    assert!(refused(&|wanted| wanted["network_overrides"] = other.clone()).contains("there is no network interface e"));
    let newer =
        std::fs::read_to_string(&state).unwrap().replace("\"vmcell-firecracker\": 1", "\"vmcell-firecracker\": 2");
    let path = program.path("newer");
    std::fs::write(&path, newer).unwrap();
    assert!(refused(&|wanted| wanted["snapshot_path"] = json!(path)).contains("its version is 2, allowed is 1"));
    let told = support::program().arg("--describe-snapshot").arg(&state).output().unwrap();
    assert_eq!(String::from_utf8(told.stdout).unwrap(), "v1.0.0\n");
    // The disk is its source's, which has it locked.
    let locked = refused(&|_| ());
    assert!(locked.starts_with("snapshot/load: ") && locked.contains(source.path("").to_str().unwrap()), "{locked}");
    program.describe(&TinyGuest::spin());
    assert!(refused(&|_| ()).contains("was described already"));
    program.start();
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn metrics_are_lines_of_what_came_since_the_line_before() {
    let mut program = paused(&["--metrics-path", "metrics"], &plain());
    let flush = r#"{"action_type": "FlushMetrics"}"#;
    program.refused("GET", "/none", "");
    program.done("PUT", "/actions", flush);
    program.done("PUT", "/actions", flush);
    let text = program.text_of("metrics");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0]["utc_timestamp_ms"].as_u64().unwrap() > 1_700_000_000_000);
    assert!(
        lines[0]["uart"]["write_count"].as_u64().unwrap() > 0 && lines[0]["vcpu"]["exit_io_out"].as_u64().unwrap() > 0
    );
    assert!(lines[0]["latencies_us"]["pause_vm"].as_u64().unwrap() > 0);
    assert_eq!(
        (&lines[0]["put_api_requests"]["drive_count"], &lines[1]["put_api_requests"]["drive_count"]),
        (&json!(1), &json!(0))
    );
    assert_eq!((&lines[0]["block_d"]["read_count"], &lines[0]["block"]["read_count"]), (&json!(0), &json!(0)));
    assert_eq!(lines[1]["vcpu"]["exit_io_out"], json!(0), "it stands still");
    let again = program.refused("PUT", "/metrics", r#"{"metrics_path": "x"}"#);
    assert!(again.contains("after starting"), "{again}");
    program.signal("TERM");
    assert_eq!(program.wait().code(), Some(0));
    assert_eq!(program.text_of("metrics").lines().count(), 3, "the last one is written at the end");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_snapshot_takes_the_place_of_files_alone_and_one_that_cannot_be_written_leaves_the_last_as_it_was() {
    let source = paused(&[], &plain());
    let refused = |state: &str, memory: &str| {
        source.refused("PUT", "/snapshot/create", &json!({"snapshot_path": state, "mem_file_path": memory}).to_string())
    };
    let pipe = source.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/null", source.path("null")).unwrap();
    for other in ["pipe", "null", "api", "."] {
        assert!(refused(other, "memory").contains(&format!("snapshot_path is \"{other}\"")));
        assert!(refused("state", other).contains(&format!("mem_file_path is \"{other}\"")));
    }
    assert!(pipe.symlink_metadata().is_ok_and(|found| !found.is_file()) && source.path("null").is_symlink());
    assert!(refused("./one", "one").contains(", the same"));
    assert!(!source.path("memory").exists() && !source.path("one").exists());
    let (_, memory) = create(&source, "one", "Full");
    let file = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&memory).unwrap());
    let before = file();
    assert!(refused("/none/state", &memory).contains("snapshot_path is \"/none/state\""));
    assert_eq!(file(), before);
    let parts = std::fs::read_dir(source.folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("part"));
    assert_eq!(parts.count(), 0);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_two_files_of_a_snapshot_belong_together() {
    let [one, other] = [paused(&[], &plain()), paused(&[], &plain())];
    let ((state, memory), (_, another)) = (create(&one, "one", "Full"), create(&other, "other", "Full"));
    let fork = Program::new(&[]);
    let told = fork.refused("PUT", "/snapshot/load", &load(&state, &another).to_string());
    assert!(told.contains("is not the machine that") && told.contains(&another), "{told}");
    let mut right = load(&state, &memory);
    right["drive_overrides"] = json!([{"drive_id": "d", "path_on_host": image(fork.folder.path(), "d", 1 << 20)}]);
    right["vsock_override"] = json!({"uds_path": fork.path("vsock")});
    fork.done("PUT", "/snapshot/load", &right.to_string());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_description_that_was_edited_is_refused_by_what_the_machine_has() {
    let source = paused(&[], &plain());
    let (state, memory) = create(&source, "one", "Full");
    let right = std::fs::read_to_string(&state).unwrap();
    let fork = Program::new(&[]);
    let refused = |from: &str, to: &str| {
        assert!(right.contains(from), "{right}");
        std::fs::write(&state, right.replace(from, to)).unwrap();
        fork.refused("PUT", "/snapshot/load", &load(&state, &memory).to_string())
    };
    let told = refused("\"vcpu_count\": 1", "\"vcpu_count\": 2");
    assert!(told.contains("vcpu_count is 2, and the machine that was saved has 1") && told.contains(&state), "{told}");
    assert!(refused("\"mem_size_mib\": 16", "\"mem_size_mib\": 32").contains("mem_size_mib is 32, "));
    assert!(refused("\"drive_id\": \"d\"", "\"drive_id\": \"e\"").contains("drive e: drive_id is \"e\", "));
    assert!(refused("\"is_read_only\": false", "\"is_read_only\": true").contains("drive d: is_read_only is true, "));
    assert!(refused("\"guest_cid\": 3", "\"guest_cid\": 4").contains("vsock: guest_cid is Some(4), "));
    std::fs::write(&state, &right).unwrap();
    let mut wanted = load(&state, &memory);
    wanted["drive_overrides"] = json!([{"drive_id": "d", "path_on_host": image(fork.folder.path(), "d", 1 << 20)}]);
    wanted["vsock_override"] = json!({"uds_path": fork.path("vsock")});
    fork.done("PUT", "/snapshot/load", &wanted.to_string());
}
