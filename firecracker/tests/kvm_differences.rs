//! Every path and method of the specification, before a machine is started and after that, and what differs from Firecracker: the table in
//! `docs/orchestrators.md`. `VMCELL_UPDATE=1` writes it anew.

mod support;

use serde_json::json;
use support::{Program, image};
use vmcell::testing::TinyGuest;

const DOCUMENT: &str = include_str!("../../docs/orchestrators.md");
const BEGIN: &str = "<!-- made by firecracker/tests/kvm_differences.rs -->\n";
const END: &str = "<!-- end -->\n";

/// A request that is right, and what Firecracker 1.16.1 answers before the start and after that.
struct Row {
    method: &'static str,
    path: &'static str,
    body: String,
    firecracker: (u16, u16),
    difference: &'static str,
}

const NOTHING: &str = "";
const PMEM: &str = "No virtio-pmem device";
const VIRTIO_MEM: &str = "No virtio-mem device: use the balloon";
const HINTING: &str = "The balloon has free page reporting alone; `free_page_hinting: true` is refused";

/// With files in a folder, where TAP devices cannot be had.
fn rows(folder: &std::path::Path) -> Vec<Row> {
    let row = |method, path, body: &serde_json::Value, firecracker, difference| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Row { method, path, body, firecracker, difference }
    };
    let none = json!(null);
    let disk = image(folder, "disk", 1 << 20);
    let (before, after) = ((204, 400), (400, 204));
    vec![
        row("GET", "/", &none, (200, 200), NOTHING),
        row("GET", "/version", &none, (200, 200), "`1.16.1`, the version of the API"),
        row("GET", "/vm/config", &none, (200, 200), NOTHING),
        row("GET", "/machine-config", &none, (200, 200), NOTHING),
        row(
            "PUT",
            "/machine-config",
            &json!({"vcpu_count": 1, "mem_size_mib": 16}),
            before,
            "At least 16 MiB. `smt` has no effect. `cpu_template`: T2, T2S, T2CL and T2A are x86-64-v3, C3 is x86-64-v2",
        ),
        row("PATCH", "/machine-config", &json!({"smt": false}), before, "As PUT"),
        row(
            "PUT",
            "/boot-source",
            &json!({"kernel_image_path": folder.join("kernel")}),
            before,
            "bzImage, too. Devices are found by ACPI; with `acpi=off` in `boot_args`, on the command line and by an MP table. \
             Default `boot_args`: `reboot=k panic=1 nomodule 8250.nr_uarts=0 swiotlb=noforce`",
        ),
        row(
            "PUT",
            "/drives/{drive_id}",
            &json!({"drive_id": "d", "is_root_device": false, "path_on_host": disk}),
            before,
            "Flushes reach the storage with `cache_type: Unsafe`, too. Discard and write zeroes work. Without `io_engine`, io_uring \
             where the host has it. The serial number is the `drive_id`. No `socket` (vhost-user). A file is locked against a second \
             writer. After the start: as Firecracker without `--enable-pci`",
        ),
        row(
            "PATCH",
            "/drives/{drive_id}",
            &json!({"drive_id": "d", "rate_limiter": {}}),
            after,
            "Another file is refused while the machine is paused",
        ),
        row("DELETE", "/drives/{drive_id}", &none, (400, 400), NOTHING),
        row(
            "PUT",
            "/network-interfaces/{iface_id}",
            &json!({"iface_id": "e", "host_dev_name": "a/b"}),
            (400, 400),
            "The TAP device must be there already. Tested here with a name that no device can have",
        ),
        row("PATCH", "/network-interfaces/{iface_id}", &json!({"iface_id": "e"}), (400, 400), NOTHING),
        row("DELETE", "/network-interfaces/{iface_id}", &none, (400, 400), NOTHING),
        row(
            "PUT",
            "/vsock",
            &json!({"guest_cid": 3, "uds_path": folder.join("v")}),
            before,
            "The socket is made at the start",
        ),
        row(
            "PUT",
            "/balloon",
            &json!({"amount_mib": 1, "deflate_on_oom": true, "stats_polling_interval_s": 1}),
            before,
            HINTING,
        ),
        row("GET", "/balloon", &none, (200, 200), NOTHING),
        row("PATCH", "/balloon", &json!({"amount_mib": 2}), after, NOTHING),
        row("GET", "/balloon/statistics", &none, (400, 200), NOTHING),
        row("PATCH", "/balloon/statistics", &json!({"stats_polling_interval_s": 2}), after, NOTHING),
        row("PATCH", "/balloon/hinting/start", &none, (400, 400), HINTING),
        row("GET", "/balloon/hinting/status", &none, (400, 400), HINTING),
        row("PATCH", "/balloon/hinting/stop", &none, (400, 400), HINTING),
        row("PUT", "/entropy", &json!({}), before, "Limited by `bandwidth` alone; `ops` is refused"),
        row(
            "PUT",
            "/serial",
            &json!({"serial_out_path": folder.join("serial")}),
            before,
            "What was not passed on in time is dropped and counted",
        ),
        row(
            "PUT",
            "/mmds/config",
            &json!({"network_interfaces": ["e"]}),
            (400, 400),
            "Tested here without a network interface",
        ),
        row("PUT", "/mmds", &json!({"a": 1}), (204, 400), "After the start, 400 without `mmds/config`, as Firecracker"),
        row("GET", "/mmds", &none, (200, 400), "As PUT"),
        row("PATCH", "/mmds", &json!({"a": 2}), (204, 400), "As PUT"),
        row("PUT", "/logger", &json!({"level": "Info"}), before, NOTHING),
        row(
            "PUT",
            "/metrics",
            &json!({"metrics_path": folder.join("metrics")}),
            before,
            "What vmcell counts, by Firecracker's names; other members are not there",
        ),
        row("PUT", "/actions", &json!({"action_type": "FlushMetrics"}), after, NOTHING),
        row(
            "PUT",
            "/actions",
            &json!({"action_type": "SendCtrlAltDel"}),
            after,
            "`SendCtrlAltDel` presses the power button: the guest shuts down, where Firecracker's restarts, which ends it as well",
        ),
        row("PATCH", "/vm", &json!({"state": "Resumed"}), after, NOTHING),
        row(
            "PUT",
            "/snapshot/create",
            &json!({"snapshot_path": folder.join("state"), "mem_file_path": folder.join("memory")}),
            (400, 400),
            "Tested here while the guest runs. vmcell's format: the machine with its memory is at `mem_file_path`. `Diff` needs \
             `track_dirty_pages`, leaves out what lies in the file of the last snapshot, and must be in the same folder",
        ),
        row(
            "PUT",
            "/snapshot/load",
            &json!({"snapshot_path": folder.join("none"), "mem_backend": {"backend_type": "File", "backend_path": "none"}}),
            (400, 400),
            "Tested here without a file. No `Uffd`: the file is mapped. `drive_overrides` (`drive_id`, `path_on_host`) is an addition. \
             A process whose load was refused goes on",
        ),
        row("PUT", "/cpu-config", &json!({}), before, "Refused: use `cpu_template`"),
        row("PUT", "/pmem/{id}", &json!({"id": "p", "path_on_host": disk}), before, PMEM),
        row("PATCH", "/pmem/{id}", &json!({"id": "p"}), (400, 400), PMEM),
        row("DELETE", "/pmem/{id}", &none, (400, 400), PMEM),
        row("GET", "/hotplug/memory", &none, (400, 400), VIRTIO_MEM),
        row("PUT", "/hotplug/memory", &json!({"total_size_mib": 1024}), before, VIRTIO_MEM),
        row("PATCH", "/hotplug/memory", &json!({"requested_size_mib": 0}), (400, 400), VIRTIO_MEM),
        row("PUT", "/none", &json!({}), (400, 400), "Any path that there is not"),
        row("PUT", "/actions", &json!({"action_type": "InstanceStart"}), (204, 400), NOTHING),
    ]
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_differs_from_firecracker_is_what_the_document_says() {
    let program = Program::new(&["--level", "Error"]);
    program.describe(&TinyGuest::spin());
    let rows = rows(program.folder.path());
    let ask = |row: &Row| {
        let path = row.path.replace("{drive_id}", "d").replace("{iface_id}", "e").replace("{id}", "p");
        program.ask(row.method, &path, &row.body).status
    };
    let before: Vec<u16> = rows.iter().map(ask).collect();
    assert_eq!(program.get("/")["state"], json!("Running"));
    let after: Vec<u16> = rows.iter().map(ask).collect();
    let mut table = String::from("| Request | Here | Firecracker | What differs |\n|---|---|---|---|\n");
    for (row, ours) in rows.iter().zip(before.into_iter().zip(after)) {
        assert!(ours == row.firecracker || !row.difference.is_empty(), "{} {}: {ours:?}", row.method, row.path);
        let action = row.body.split("action_type\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let action = action.map(|action| format!(" `{action}`")).unwrap_or_default();
        let statuses = |(before, after)| format!("{before}, {after}");
        let (here, there) = (statuses(ours), statuses(row.firecracker));
        table.push_str(&format!("| `{} {}`{action} | {here} | {there} | {} |\n", row.method, row.path, row.difference));
    }
    let (head, rest) = DOCUMENT.split_once(BEGIN).expect("a table");
    let (told, tail) = rest.split_once(END).expect("its end");
    if std::env::var_os("VMCELL_UPDATE").is_some_and(|value| value == "1") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/orchestrators.md");
        std::fs::write(path, format!("{head}{BEGIN}\n{table}\n{END}{tail}")).expect("the document is written");
    } else {
        assert_eq!(told.trim(), table.trim(), "VMCELL_UPDATE=1 writes it anew");
    }
}
