//! The API before a machine is started, which needs no KVM, and what clients may do to it.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Answer, Program, ask, image, read_answer};
use vmcell::testing::TinyGuest;

#[test]
fn a_machine_has_defaults_and_is_what_was_said_of_it() {
    let program = Program::new(&[]);
    let defaults =
        json!({"vcpu_count": 1, "mem_size_mib": 128, "smt": false, "track_dirty_pages": false, "huge_pages": "None"});
    assert_eq!(program.get("/machine-config"), defaults);
    program.done("PUT", "/machine-config", r#"{"vcpu_count": 2, "mem_size_mib": 256}"#);
    program.done("PATCH", "/machine-config", r#"{"mem_size_mib": 512, "cpu_template": "T2"}"#);
    let told = program.get("/machine-config");
    assert_eq!(
        (&told["vcpu_count"], &told["mem_size_mib"], &told["cpu_template"]),
        (&json!(2), &json!(512), &json!("T2"))
    );
    program.done("PATCH", "/machine-config", r#"{"cpu_template": "None"}"#);
    assert_eq!(program.get("/machine-config").get("cpu_template"), None);

    let kernel = program.guest(&TinyGuest::spin());
    program.done("PUT", "/boot-source", &json!({"kernel_image_path": kernel}).to_string());
    let disk = image(program.folder.path(), "disk", 4096);
    program.done(
        "PUT",
        "/drives/d",
        &json!({"drive_id": "d", "is_root_device": true, "path_on_host": disk}).to_string(),
    );
    program.done("PUT", "/vsock", &json!({"guest_cid": 3, "uds_path": program.path("v")}).to_string());
    program.done("PUT", "/balloon", r#"{"amount_mib": 1, "deflate_on_oom": false}"#);
    program.done("PUT", "/entropy", "{}");
    program.done("PUT", "/serial", &json!({"serial_out_path": program.path("serial")}).to_string());
    let expected = json!({
        "balloon": {"amount_mib": 1, "deflate_on_oom": false, "stats_polling_interval_s": 0, "free_page_hinting": false,
                    "free_page_reporting": false},
        "drives": [{"drive_id": "d", "partuuid": null, "is_root_device": true, "cache_type": "Unsafe", "is_read_only": false,
                    "path_on_host": disk, "rate_limiter": null, "io_engine": "Sync", "socket": null}],
        "boot-source": {"kernel_image_path": kernel, "initrd_path": null, "boot_args": null},
        "cpu-config": null, "logger": null, "metrics": null, "mmds-config": null, "network-interfaces": [],
        "machine-config": program.get("/machine-config"), "vsock": {"guest_cid": 3, "uds_path": program.path("v")},
        "entropy": {"rate_limiter": null}, "pmem": [], "memory-hotplug": null,
    });
    assert_eq!(program.get("/vm/config"), expected);
}

#[test]
fn what_can_only_be_asked_of_a_machine_that_was_started_is_refused() {
    let program = Program::new(&[]);
    let told = "The requested operation is not supported before starting the microVM.";
    for (method, path, body) in [
        ("PATCH", "/vm", r#"{"state": "Paused"}"#),
        ("PATCH", "/drives/d", r#"{"drive_id": "d"}"#),
        ("PATCH", "/network-interfaces/e", r#"{"iface_id": "e"}"#),
        ("PATCH", "/balloon", r#"{"amount_mib": 1}"#),
        ("PATCH", "/balloon/statistics", r#"{"stats_polling_interval_s": 1}"#),
        ("GET", "/balloon/statistics", ""),
        ("PUT", "/actions", r#"{"action_type": "FlushMetrics"}"#),
        ("PUT", "/actions", r#"{"action_type": "SendCtrlAltDel"}"#),
        ("PUT", "/snapshot/create", r#"{"snapshot_path": "a", "mem_file_path": "b"}"#),
        ("DELETE", "/drives/d", ""),
    ] {
        assert_eq!(program.refused(method, path, body), told, "{method} {path}");
    }
    let no_kernel = program.refused("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#);
    assert!(no_kernel.contains("without kernel configuration"), "{no_kernel}");
}

#[test]
fn what_no_machine_can_be_is_refused_by_its_value_and_changes_nothing() {
    let program = Program::new(&[]);
    let disk = image(program.folder.path(), "disk", 4096);
    let before = program.get("/vm/config");
    let drive = |member: &str, value: Value| {
        let mut drive = json!({"drive_id": "d", "is_root_device": false, "path_on_host": disk});
        drive[member] = value;
        drive.to_string()
    };
    for (path, body, told) in [
        (
            "/boot-source",
            json!({"kernel_image_path": "/none"}).to_string(),
            "boot-source: kernel_image_path is \"/none\"",
        ),
        ("/boot-source", json!({"kernel_image_path": "/"}).to_string(), "it is no file"),
        ("/drives/d", drive("path_on_host", "/none".into()), "drive d: "),
        ("/drives/d", drive("path_on_host", Value::Null), "drive d: path_on_host is missing"),
        ("/drives/d", drive("socket", "x".into()), "vhost-user"),
        ("/drives/d", drive("partuuid", "a b".into()), "partuuid is \"a b\""),
        ("/drives/d", drive("rate_limiter", json!({"ops": {"size": 1, "refill_time": 2000}})), "less than 1 a second"),
        ("/drives/d", drive("rate_limiter", json!({"ops": {"size": -1, "refill_time": 1}})), "invalid value"),
        ("/drives/d", drive("cache_type", "Writethrough".into()), "unknown variant `Writethrough`"),
        ("/drives/d", drive("io_engine", "Slow".into()), "unknown variant `Slow`"),
        ("/vsock", json!({"guest_cid": 2, "uds_path": "v"}).to_string(), "guest_cid is 2, allowed are 3 to 4294967294"),
        ("/vsock", json!({"guest_cid": 3, "uds_path": disk}).to_string(), "there already"),
        ("/vsock", json!({"guest_cid": 3, "uds_path": "v/."}).to_string(), "it does not end in the name of a file"),
        ("/vsock", json!({"guest_cid": 3, "uds_path": "/proc/v"}).to_string(), "uds_path is \"/proc/v\": "),
        ("/vsock", json!({"guest_cid": 3, "uds_path": "/none/v"}).to_string(), "its folder does not exist"),
        ("/vsock", json!({"guest_cid": 3, "uds_path": "v".repeat(108)}).to_string(), "has 108 bytes, allowed are 107"),
        ("/balloon", json!({"amount_mib": 129, "deflate_on_oom": true}).to_string(), "allowed are 0 to 128"),
        ("/entropy", json!({"rate_limiter": {"ops": {"size": 1, "refill_time": 1}}}).to_string(), "bandwidth alone"),
        ("/mmds/config", json!({"network_interfaces": []}).to_string(), "network_interfaces is empty"),
        ("/mmds/config", json!({"network_interfaces": ["e"]}).to_string(), "no such network interface"),
        (
            "/mmds/config",
            json!({"network_interfaces": ["e"], "ipv4_address": "10.0.0.1"}).to_string(),
            "allowed are 169.254.1.0",
        ),
        ("/network-interfaces/e", json!({"iface_id": "e", "host_dev_name": "a/b"}).to_string(), "a/b"),
        ("/network-interfaces/e", json!({"iface_id": "e", "host_dev_name": "t", "mtu": 67}).to_string(), "67"),
        ("/logger", json!({"log_path": "/none/log"}).to_string(), "logger: log_path is \"/none/log\""),
        ("/pmem/p", json!({"id": "p", "path_on_host": disk}).to_string(), "virtio-pmem"),
        ("/cpu-config", "{}".to_owned(), "cpu_template"),
        ("/hotplug/memory", "{}".to_owned(), "virtio-mem"),
    ] {
        let fault = program.refused("PUT", path, &body);
        assert!(fault.contains(told), "{path} {body}: {fault}");
    }
    assert_eq!(program.get("/vm/config"), before);
}

#[test]
fn metadata_are_put_patched_and_read_and_keep_to_the_limit() {
    let program = Program::new(&["--mmds-size-limit", "100"]);
    assert_eq!(program.get("/mmds"), json!({}));
    assert!(program.refused("PATCH", "/mmds", "{}").contains("not initialized"));
    program.done("PUT", "/mmds", r#"{"a": {"b": 1}}"#);
    program.done("PATCH", "/mmds", r#"{"a": {"c": 2}}"#);
    assert_eq!(program.get("/mmds"), json!({"a": {"b": 1, "c": 2}}));
    let long = json!({"a": "x".repeat(100)}).to_string();
    for method in ["PUT", "PATCH"] {
        assert_eq!(program.ask(method, "/mmds", &long).status, 413);
    }
    assert_eq!(program.get("/mmds"), json!({"a": {"b": 1, "c": 2}}));
}

#[test]
fn a_hundred_clients_are_served_while_others_are_slow_or_silent() {
    let program = Program::new(&[]);
    let mut slow: Vec<_> = (0..50).map(|_| program.connect()).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(b"PUT /boot-source HTTP/1.1\r\nContent-Le").unwrap());
    let mut clients: Vec<_> = (0..100).map(|_| program.connect()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(ask(client, "GET", "/version", "").status, 200);
        }
    }
    // The slow ones are served as soon as they are done.
    for mut stream in slow {
        stream.write_all(b"ngth: 2\r\n\r\n{}").unwrap();
        assert!(read_answer(&mut stream).fault().contains("kernel_image_path"));
    }
}

#[test]
fn requests_of_any_shape_are_answered_or_their_connections_end_and_the_next_client_is_served() {
    let program = Program::new(&["--http-api-max-payload-size", "1000"]);
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for (text, told) in [
        ("PUT / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n", "larger than the limit of 1000"),
        ("PUT / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", "larger than the limit of 1000"),
        ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "Content-Length"),
        ("PUT / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "another one says otherwise"),
        ("\0\0\0\0\r\n\r\n", "Invalid request"),
        ("GET / HTTP/9.9\r\n\r\n", "Invalid request"),
        (huge.as_str(), "its head is longer"),
        (many.as_str(), "more than 64 headers"),
    ] {
        let mut stream = program.connect();
        // It may be refused before all of it was sent.
        let _ = stream.write_all(text.as_bytes());
        let answer = read_answer(&mut stream);
        assert!(
            answer.status == 400 && answer.fault().contains(told),
            "{}: {}",
            &text[..40.min(text.len())],
            answer.text
        );
        assert!(answer.head.contains("Connection: close"));
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert_eq!(program.ask("GET", "/", "").status, 200);
    }
    let refused = program.ask("POST", "/actions", "{}");
    assert_eq!((refused.status, refused.fault().contains("POST")), (400, true));
}

#[test]
fn requests_that_come_together_are_answered_in_their_order() {
    let program = Program::new(&[]);
    let mut stream = program.connect();
    let one = "GET /version HTTP/1.1\r\n\r\n";
    let other = "GET /machine-config HTTP/1.1\r\n\r\n";
    stream.write_all([one, other].repeat(200).concat().as_bytes()).unwrap();
    for _ in 0..200 {
        assert!(read_answer(&mut stream).text.contains("firecracker_version"));
        assert!(read_answer(&mut stream).text.contains("vcpu_count"));
    }
}

#[test]
fn a_client_that_waits_to_go_on_is_told_to() {
    let program = Program::new(&[]);
    let mut stream = program.connect();
    let head = "PUT /mmds HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream).status, 100);
    stream.write_all(b"{}").unwrap();
    assert_eq!(read_answer(&mut stream).status, 204);
}

#[test]
fn a_client_that_takes_no_answer_hinders_nobody() {
    let program = Program::new(&["--http-api-max-payload-size", "2000000"]);
    program.done("PUT", "/mmds", &json!({"a": "x".repeat(1_000_000)}).to_string());
    let mut greedy = program.connect();
    greedy.write_all("GET /mmds HTTP/1.1\r\n\r\n".repeat(50).as_bytes()).unwrap();
    let began = Instant::now();
    (0..100).for_each(|_| assert_eq!(program.ask("GET", "/", "").status, 200));
    assert!(began.elapsed() < Duration::from_secs(10));
    (0..50).for_each(|_| assert_eq!(read_answer(&mut greedy).text.len(), 1_000_008));
}

#[test]
fn the_log_goes_where_it_is_told_to_and_shows_what_it_is_told_to() {
    let program = Program::new(&["--log-path", "log", "--level", "Info", "--show-level"]);
    program.refused("GET", "/none", "");
    let log = program.text_of("log");
    assert!(log.contains(":INFO] GET /none with 0 bytes") && log.contains(":ERROR] refused: "), "{log}");
    program.done("PUT", "/logger", &json!({"log_path": program.path("other"), "level": "Error"}).to_string());
    program.refused("GET", "/none", "");
    assert_eq!(program.text_of("other").lines().count(), 1);
    assert_eq!(program.text_of("stdout"), "");
}

#[test]
fn clients_for_whom_there_are_no_descriptors_wait_and_cost_no_cpu() {
    let program = Program::new(&["--level", "Off"]);
    let pid = program.pid();
    let limited = std::process::Command::new("prlimit").args(["--pid", &pid.to_string(), "--nofile=20:20"]).status();
    assert!(limited.unwrap().success());
    let mut clients: Vec<_> = (0..40).map(|_| program.connect()).collect();
    let ticks = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        text.rsplit(')')
            .next()
            .unwrap()
            .split(' ')
            .skip(12)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum::<u64>()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - before < 20, "a tick is a hundredth of a second");
    assert_eq!(ask(&mut clients[0], "GET", "/", "").status, 200);
    // Those that come late are served once others have gone.
    let mut last = clients.pop().unwrap();
    drop(clients);
    assert_eq!(ask(&mut last, "GET", "/", "").status, 200);
}

#[test]
fn named_pipes_in_the_place_of_files_are_refused_and_hold_nobody_up() {
    let program = Program::new(&[]);
    let pipe = program.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let refused = |path: &str, body: Value| program.refused("PUT", path, &body.to_string());
    assert!(refused("/boot-source", json!({"kernel_image_path": pipe})).contains("it is no file"));
    let drive = json!({"drive_id": "d", "is_root_device": false, "is_read_only": true, "path_on_host": pipe});
    assert!(refused("/drives/d", drive).starts_with("drive d: "));
    let backend = json!({"backend_type": "File", "backend_path": pipe});
    assert!(
        refused("/snapshot/load", json!({"snapshot_path": pipe, "mem_backend": backend})).contains("it is no file")
    );
    program.done("PUT", "/logger", &json!({"log_path": pipe}).to_string());
    (0..1000).for_each(|_| assert_eq!(program.ask("GET", "/", "").status, 200));
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = support::program().args(arguments).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn the_command_line_is_that_of_the_original() {
    assert_eq!(run(&["--version"]), (Some(0), "Firecracker v1.16.1\n\n".to_owned()));
    assert_eq!(run(&["--help"]).0, Some(0));
    for (arguments, status, told) in [
        (&["--nothing"][..], 153, "--nothing"),
        (&["--id", "a_b"], 153, "letters, digits and hyphens"),
        (&["--no-api"], 153, "--config-file"),
        (&["--seccomp-filter", "x"], 153, "the filters are built in"),
        (&["--enable-pci"], 153, "MMIO"),
        (&["--level", "loud"], 152, "allowed are Off, Error"),
        (&["--log-path", "/none/log"], 1, "/none/log"),
        (&["--api-sock", "/none/api"], 1, "Failed to open the API socket at: /none/api"),
        (&["--no-api", "--config-file", "/none"], 1, "--config-file /none"),
    ] {
        let (code, said) = run(arguments);
        assert!(code == Some(status) && said.contains(told), "{arguments:?}: {code:?} {said}");
    }
}

#[test]
fn a_signal_ends_a_program_that_waits_for_its_files_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("api"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for option in ["--config-file", "--metadata"] {
        let mut command = support::program();
        command.arg("--api-sock").arg(&socket).arg(option).arg(&pipe).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It has said that it runs.
        child.stdout.take().unwrap().read_exact(&mut [0; 20]).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() && began.elapsed() < support::LIMIT {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(child.try_wait().unwrap().is_some() && !socket.exists(), "{option}");
    }
}

#[test]
fn a_socket_that_a_jail_would_leave_behind_is_refused() {
    let [kept, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let socket = other.path().join("api");
    let (code, said) = run(&["--api-sock", socket.to_str().unwrap(), "--jail", kept.path().to_str().unwrap()]);
    assert!(code == Some(153) && said.contains("has to be below a folder"), "{code:?} {said}");
    assert!(!socket.exists());
}

#[test]
fn a_file_with_a_member_that_is_wrong_is_refused_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = folder.path().join("kernel");
    TinyGuest::spin().write_to(&kernel).unwrap();
    let good = json!({
        "boot-source": {"kernel_image_path": kernel}, "drives": [], "machine-config": {"vcpu_count": 1, "mem_size_mib": 16},
        "network-interfaces": [],
    });
    for (pointer, value, told) in [
        ("/boot-source/kernel_image_path", json!("/none"), "/none"),
        ("/boot-source/kernel", json!(1), "unknown field `kernel`"),
        ("/drives/0", json!({"drive_id": "d", "is_root_device": true}), "path_on_host is missing"),
        ("/machine-config/vcpu_count", json!(33), "allowed are 1 to 32"),
        ("/machine-config/vcpu_count", json!("one"), "invalid type"),
        ("/machine", json!({}), "unknown field `machine`"),
        ("/network-interfaces/0", json!({"iface_id": "e", "host_dev_name": ""}), "network interface e"),
        ("/vsock", json!({"guest_cid": 1, "uds_path": "v"}), "guest_cid is 1"),
        ("/balloon", json!({"amount_mib": 1}), "missing field `deflate_on_oom`"),
        ("/mmds-config", json!({"network_interfaces": ["e"]}), "no such network interface"),
        ("/logger", json!({"level": "loud"}), "allowed are Off, Error"),
        ("/pmem/0", json!({}), "pmem"),
        ("/cpu-config", json!({}), "cpu-config"),
        ("/memory-hotplug", json!({}), "memory-hotplug"),
    ] {
        let mut config = good.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match config.pointer_mut(parent) {
            Some(Value::Array(items)) => items.push(value),
            Some(parent) => parent[name] = value,
            None => config[parent.trim_start_matches('/')] = json!([value]),
        }
        let path = folder.path().join("config");
        std::fs::write(&path, config.to_string()).unwrap();
        let (code, said) = run(&["--no-api", "--config-file", path.to_str().unwrap()]);
        assert!(code == Some(1) && said.contains(told), "{pointer}: {code:?} {said}");
    }
}

#[test]
fn a_socket_that_is_there_already_is_refused_and_stays() {
    let program = Program::new(&[]);
    let (code, said) = run(&["--api-sock", program.socket().to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("must be removed first"), "{said}");
    assert_eq!(program.ask("GET", "/", "").status, 200);
    let _: Answer = program.ask("GET", "/version", "");
}

#[test]
fn the_answer_to_head_is_a_head_and_the_next_request_is_answered_as_ever() {
    let program = Program::new(&[]);
    let mut stream = program.connect();
    assert_eq!((ask(&mut stream, "HEAD", "/", "").status, ask(&mut stream, "GET", "/version", "").status), (400, 200));
}
