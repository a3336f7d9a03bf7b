//! Debian's kernel in a machine that one program saves and another goes on with, on another TAP device and another socket.

#[path = "../../tests/support/mod.rs"]
mod library;
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use library::linux::{ENTER_ROOT, HostTap, initrd_with, path_of};
use serde_json::{Value, json};
use support::Program;

const LONG: Duration = Duration::from_secs(150);

/// A guest that runs what comes over its vsock.
const SCRIPT: &str = r#"
for module in /spare/*vsock*.ko; do insmod $module; done
in_root ip link set lo up; in_root ip address add 10.99.2.2/24 dev eth0; in_root ip link set eth0 up
echo ready
in_root socat VSOCK-LISTEN:5000,fork EXEC:sh
"#;

/// What a command in the guest prints.
fn command(program: &Program, command: &str) -> String {
    let began = Instant::now();
    loop {
        let mut stream = UnixStream::connect(program.path("vsock")).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(b"CONNECT 5000\n").unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            line.push(byte[0]);
        }
        if line.starts_with(b"OK ") {
            stream.write_all(format!("{command}; exit\n").as_bytes()).unwrap();
            let mut told = String::new();
            stream.read_to_string(&mut told).unwrap();
            if !told.is_empty() {
                return told;
            }
            // A guest that goes on elsewhere ends its connections as soon as it hears of that.
        }
        assert!(began.elapsed() < LONG, "nobody listens: {}", program.text_of("serial"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn pings(program: &Program) -> String {
    command(program, "ping -c 1 -W 60 10.99.2.1 | grep -c ' 0% packet loss'")
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn another_program_goes_on_with_debian_on_another_tap_device_and_socket() {
    let first = HostTap::new("vmfc2", Some("10.99.2.1/24"), 1500);
    let mut source = Program::new(&["--id", "source"]);
    let initrd = initrd_with(&format!("{ENTER_ROOT}\n{SCRIPT}"));
    let put = |path: &str, body: Value| source.done("PUT", path, &body.to_string());
    put("/machine-config", json!({"vcpu_count": 2, "mem_size_mib": 192, "track_dirty_pages": true}));
    let boot = json!({"kernel_image_path": path_of("VMCELL_KERNEL_ELF"), "initrd_path": initrd.path(),
                      "boot_args": "console=ttyS0 quiet panic=-1"});
    put("/boot-source", boot);
    let root = json!({"drive_id": "root", "is_root_device": true, "is_read_only": true, "path_on_host": path_of("VMCELL_ROOTFS")});
    put("/drives/root", root);
    put("/network-interfaces/eth0", json!({"iface_id": "eth0", "host_dev_name": first.name}));
    put("/vsock", json!({"guest_cid": 3, "uds_path": source.path("vsock")}));
    put("/entropy", json!({}));
    put("/serial", json!({"serial_out_path": source.path("serial")}));
    source.start();
    assert_eq!(command(&source, "echo kept > /tmp/word; echo done"), "done\n");
    assert_eq!(pings(&source), "1\n");
    source.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
    let [state, memory] = ["state", "memory"].map(|name| source.path(name).display().to_string());
    source.done("PUT", "/snapshot/create", &json!({"snapshot_path": state, "mem_file_path": memory}).to_string());
    source.signal("TERM");
    assert_eq!(source.wait().code(), Some(0));
    drop(first);

    let second = HostTap::new("vmfc3", Some("10.99.2.1/24"), 1500);
    let fork = Program::new(&["--id", "fork"]);
    fork.done("PUT", "/serial", &json!({"serial_out_path": fork.path("serial")}).to_string());
    let load = json!({
        "snapshot_path": state, "mem_backend": {"backend_type": "File", "backend_path": memory}, "resume_vm": true,
        "clock_realtime": true, "network_overrides": [{"iface_id": "eth0", "host_dev_name": second.name}],
        "vsock_override": {"uds_path": fork.path("vsock")},
    });
    fork.done("PUT", "/snapshot/load", &load.to_string());
    assert_eq!(fork.get("/")["state"], json!("Running"));
    assert_eq!(command(&fork, "cat /tmp/word"), "kept\n");
    assert_eq!(pings(&fork), "1\n");
    assert_eq!(fork.get("/vm/config")["network-interfaces"][0]["host_dev_name"], json!(second.name));
}
