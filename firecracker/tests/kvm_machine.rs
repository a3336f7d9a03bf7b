//! Machines with tiny guests, driven over the socket.

mod support;

use serde_json::{Value, json};
use support::{Program, image};
use vmcell::testing::TinyGuest;

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_machine_is_described_started_paused_and_resumed_and_ended_by_a_signal() {
    let mut program = Program::new(&["--id", "vm-1"]);
    assert_eq!(program.get("/version"), json!({"firecracker_version": "1.16.1"}));
    let info = |state: &str| json!({"id": "vm-1", "state": state, "vmm_version": "1.16.1", "app_name": "Firecracker"});
    assert_eq!(program.get("/"), info("Not started"));
    program.describe(&TinyGuest::spin());
    program.start();
    assert_eq!(program.get("/"), info("Running"));
    for _ in 0..2 {
        program.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
        assert_eq!(program.get("/"), info("Paused"));
    }
    for _ in 0..2 {
        program.done("PATCH", "/vm", r#"{"state": "Resumed"}"#);
        assert_eq!(program.get("/"), info("Running"));
    }
    assert_eq!(
        program.refused("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#),
        "The requested operation is not supported after starting the microVM."
    );
    program.signal("TERM");
    assert_eq!(program.wait().code(), Some(0));
    assert!(!program.socket().exists());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_prints_to_standard_output_and_its_end_is_the_program_s() {
    let mut program = Program::new(&["--level", "Off"]);
    program.describe(&TinyGuest::print("hello\n"));
    program.start();
    assert_eq!(program.wait().code(), Some(0));
    assert_eq!(program.text_of("stdout"), "hello\n");
    assert!(!program.socket().exists());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_that_resets_itself_ends_the_program_well() {
    for guest in [TinyGuest::keyboard_reset(), TinyGuest::acpi_reset(), TinyGuest::triple_fault()] {
        let mut program = Program::new(&[]);
        program.describe(&guest);
        program.start();
        assert_eq!(program.wait().code(), Some(0));
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_guest_is_told_what_the_boot_source_and_the_root_device_say() {
    let mut program = Program::new(&["--level", "Off"]);
    program.describe(&TinyGuest::print_cmdline());
    let root = image(program.folder.path(), "root.img", 1 << 20);
    let drive =
        format!(r#"{{"drive_id": "root", "is_root_device": true, "is_read_only": true, "path_on_host": "{root}"}}"#);
    program.done("PUT", "/drives/root", &drive);
    program.start();
    assert_eq!(program.wait().code(), Some(0));
    assert_eq!(program.text_of("stdout"), "console=ttyS0 pci=off root=/dev/vda ro");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_file_describes_a_machine_that_is_started_at_once_without_an_api() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = folder.path().join("kernel");
    TinyGuest::print("hello\n").write_to(&kernel).unwrap();
    let config = json!({
        "boot-source": {"kernel_image_path": kernel},
        "drives": [{"drive_id": "d", "is_root_device": false, "path_on_host": image(folder.path(), "d.img", 4096)}],
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 32},
        "logger": {"level": "Off"},
    });
    std::fs::write(folder.path().join("config"), config.to_string()).unwrap();
    let run = |arguments: &[&str]| {
        let output = support::program().args(arguments).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(
        run(&["--no-api", "--config-file", "config", "--level", "off"]),
        (Some(0), "hello\n".into(), String::new())
    );
    let api = ["--api-sock", "api", "--config-file", "config", "--level", "off"];
    assert_eq!(run(&api), (Some(0), "hello\n".into(), String::new()));
    std::fs::write(folder.path().join("bad"), config.to_string().replace("mem_size_mib\":32", "mem_size_mib\":0"))
        .unwrap();
    let (status, _, said) = run(&["--no-api", "--config-file", "bad"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("--config-file bad: machine-config: mem_size_mib is 0, allowed are 16 and more"), "{said}");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_drive_gets_another_file_another_size_and_other_limits_while_the_guest_runs() {
    let program = Program::new(&[]);
    program.describe(&TinyGuest::spin());
    let folder = program.folder.path();
    let (one, two) = (image(folder, "one", 1 << 20), image(folder, "two", 2 << 20));
    let drive = json!({"drive_id": "d", "is_root_device": false, "path_on_host": one,
                       "rate_limiter": {"ops": {"size": 100, "refill_time": 1000}}});
    program.done("PUT", "/drives/d", &drive.to_string());
    let patch = |what: Value| program.ask("PATCH", "/drives/d", &what.to_string());
    let refused = patch(json!({"drive_id": "d", "path_on_host": two}));
    assert_eq!(refused.fault(), "The requested operation is not supported before starting the microVM.");
    program.start();
    assert_eq!(patch(json!({"drive_id": "d", "path_on_host": two})).status, 204);
    std::fs::File::options().write(true).open(&two).unwrap().set_len(3 << 20).unwrap();
    assert_eq!(patch(json!({"drive_id": "d", "path_on_host": two})).status, 204);
    // Another file got its name.
    std::fs::remove_file(&two).unwrap();
    image(folder, "two", 4 << 20);
    assert_eq!(patch(json!({"drive_id": "d", "path_on_host": two})).status, 204);
    let opened = std::fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap();
    let opened: Vec<_> = opened.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect();
    assert!(opened.contains(&two.clone().into()), "{opened:?}");
    let limiter = json!({"bandwidth": {"size": 1 << 20, "refill_time": 100}});
    assert_eq!(patch(json!({"drive_id": "d", "rate_limiter": limiter})).status, 204);
    let told = &program.get("/vm/config")["drives"][0];
    assert_eq!(told["path_on_host"], Value::from(two.as_str()));
    assert_eq!(
        (&told["rate_limiter"]["ops"]["size"], &told["rate_limiter"]["bandwidth"]["size"]),
        (&json!(100), &json!(1 << 20))
    );
    // A bucket of nothing is no limit.
    assert_eq!(patch(json!({"drive_id": "d", "rate_limiter": {"ops": {"size": 0, "refill_time": 0}}})).status, 204);
    assert_eq!(program.get("/vm/config")["drives"][0]["rate_limiter"]["ops"], Value::Null);
    let missing = patch(json!({"drive_id": "d", "path_on_host": program.path("none")})).fault();
    assert!(missing.starts_with("drive d: ") && missing.contains("none"), "{missing}");
    assert_eq!(patch(json!({"drive_id": "d"})).fault(), "drive d: path_on_host or rate_limiter is needed");
    let other = program.refused("PATCH", "/drives/e", r#"{"drive_id": "e", "path_on_host": "x"}"#);
    assert_eq!(other, "drive e: there is no such drive");
    assert_eq!(program.refused("PUT", "/drives/d", &drive.to_string()), "PCI is not enabled");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_balloon_gets_another_target_and_says_what_it_holds() {
    let program = Program::new(&[]);
    program.describe(&TinyGuest::spin());
    let balloon = json!({"amount_mib": 4, "deflate_on_oom": true, "stats_polling_interval_s": 1});
    program.done("PUT", "/balloon", &balloon.to_string());
    program.start();
    program.done("PATCH", "/balloon", r#"{"amount_mib": 8}"#);
    assert_eq!(program.get("/balloon")["amount_mib"], json!(8));
    let told = program.get("/balloon/statistics");
    assert_eq!(told, json!({"target_pages": 2048, "actual_pages": 0, "target_mib": 8, "actual_mib": 0}));
    program.done("PATCH", "/balloon/statistics", r#"{"stats_polling_interval_s": 2}"#);
    let off = program.refused("PATCH", "/balloon/statistics", r#"{"stats_polling_interval_s": 0}"#);
    assert!(off.contains("cannot be turned on or off"), "{off}");
    let more = program.refused("PATCH", "/balloon", r#"{"amount_mib": 17}"#);
    assert_eq!(more, "balloon: amount_mib is 17, allowed are 0 to 16, the guest's memory");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_host_program_reaches_the_socket_of_the_vsock_and_it_is_gone_at_the_end() {
    let mut program = Program::new(&[]);
    program.describe(&TinyGuest::spin());
    let path = program.path("vsock");
    program.done("PUT", "/vsock", &json!({"guest_cid": 3, "uds_path": path}).to_string());
    program.start();
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    assert_eq!(program.get("/vm/config")["vsock"], json!({"guest_cid": 3, "uds_path": path}));
    program.signal("INT");
    assert_eq!(program.wait().code(), Some(0));
    assert!(!path.exists());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_named_pipe_takes_the_guest_s_output_as_long_as_somebody_reads_it() {
    use std::io::Read;
    let program = Program::new(&[]);
    program.describe(&TinyGuest::flood(b'.'));
    let pipe = program.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    program.done("PUT", "/serial", &json!({"serial_out_path": pipe}).to_string());
    program.start();
    for _ in 0..2 {
        let mut some = [0; 5000];
        std::fs::File::open(&pipe).unwrap().read_exact(&mut some).unwrap();
        assert_eq!(some.iter().filter(|byte| **byte == b'.').count(), some.len());
        program.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
        program.done("PATCH", "/vm", r#"{"state": "Resumed"}"#);
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn of_two_starts_at_once_one_is_done_and_the_machine_runs() {
    let program = Program::new(&[]);
    program.describe(&TinyGuest::spin());
    let start = || program.ask("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#).status;
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let both = [scope.spawn(start), scope.spawn(start)];
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!((statuses, &program.get("/")["state"]), (vec![204, 400], &json!("Running")));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_start_that_fails_leaves_the_machine_to_be_described_again() {
    let program = Program::new(&[]);
    program.describe(&TinyGuest::spin());
    std::fs::write(program.path("kernel"), "no kernel").unwrap();
    let refused = program.refused("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#);
    assert!(refused.starts_with("Start microvm error: "), "{refused}");
    assert_eq!(program.get("/")["state"], json!("Not started"));
    program.describe(&TinyGuest::spin());
    program.start();
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn as_many_devices_as_there_can_be_are_started_and_one_more_is_refused_before() {
    let program = Program::new(&[]);
    program.describe(&TinyGuest::spin());
    let drive = |number: u32| {
        let path = image(program.folder.path(), &format!("d{number}"), 4096);
        json!({"drive_id": format!("d{number}"), "is_root_device": false, "path_on_host": path}).to_string()
    };
    (0..18).for_each(|number| program.done("PUT", &format!("/drives/d{number}"), &drive(number)));
    program.done("PUT", "/entropy", "{}");
    let wanted = "there are 19 drives, network interfaces and other devices already, allowed are 19";
    assert_eq!(program.refused("PUT", "/drives/d18", &drive(18)), format!("drive d18: {wanted}"));
    let vsock = json!({"guest_cid": 3, "uds_path": program.path("vsock")}).to_string();
    assert_eq!(program.refused("PUT", "/vsock", &vsock), format!("vsock: {wanted}"));
    // Another one in its place is none more.
    program.done("PUT", "/drives/d17", &drive(17));
    program.done("PUT", "/entropy", "{}");
    program.start();
}
