//! Every path and method of the specification, with a request that is right in itself.

use std::path::Path;

use serde_json::json;

use super::{Answer, Program, image};

/// A request that is right, and what Firecracker 1.16.1 answers before the start and after that.
pub struct Row {
    pub method: &'static str,
    pub path: &'static str,
    pub body: String,
    pub firecracker: (u16, u16),
    pub difference: &'static str,
}

impl Row {
    /// Asks a program.
    pub fn ask(&self, program: &Program) -> Answer {
        let path = self.path.replace("{drive_id}", "d").replace("{iface_id}", "e").replace("{id}", "p");
        program.ask(self.method, &path, &self.body)
    }
}

const NOTHING: &str = "";
const PMEM: &str = "No virtio-pmem device";
const VIRTIO_MEM: &str = "No virtio-mem device: use the balloon";
const HINTING: &str = "The balloon has free page reporting alone; `free_page_hinting: true` is refused";

/// With files in a folder, where TAP devices cannot be had.
pub fn rows(folder: &Path) -> Vec<Row> {
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
            "The socket is made at the start. `guest_cid` is 3 to 4294967294",
        ),
        row(
            "PUT",
            "/balloon",
            &json!({"amount_mib": 1, "deflate_on_oom": true, "stats_polling_interval_s": 1}),
            before,
            HINTING,
        ),
        row("GET", "/balloon", &none, (200, 200), NOTHING),
        row(
            "PATCH",
            "/balloon",
            &json!({"amount_mib": 2}),
            (400, 400),
            "Taken also before the guest's driver is there, which then learns of it",
        ),
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
        row("PATCH", "/pmem/{id}", &json!({"id": "p"}), after, PMEM),
        row("DELETE", "/pmem/{id}", &none, (400, 400), PMEM),
        row("GET", "/hotplug/memory", &none, (400, 200), VIRTIO_MEM),
        row("PUT", "/hotplug/memory", &json!({"total_size_mib": 1024}), before, VIRTIO_MEM),
        row("PATCH", "/hotplug/memory", &json!({"requested_size_mib": 0}), (400, 400), VIRTIO_MEM),
        row("PUT", "/none", &json!({}), (400, 400), "Any path that there is not"),
        row("PUT", "/actions", &json!({"action_type": "InstanceStart"}), (204, 400), NOTHING),
    ]
}
