//! Requests in turn, right ones and wrong ones, and in what the answers to each of them may differ from the original's.

/// One request.
pub struct Step {
    pub method: &'static str,
    pub path: &'static str,
    pub body: &'static str,
    /// All of them, as `compare` finds them.
    pub differences: &'static [&'static str],
}

const fn step(
    method: &'static str,
    path: &'static str,
    body: &'static str,
    differences: &'static [&'static str],
) -> Step {
    Step { method, path, body, differences }
}

const SAME: &[&str] = &[];
/// Ours say what was refused, its value, and what is allowed.
const TEXT: &[&str] = &["text"];
/// Refused here alone.
const REFUSED: &[&str] = &["status 400, 204"];

/// Up to the start, which is the last.
pub fn before() -> Vec<Step> {
    [frame(), machine(), sources(), devices(), others()].into_iter().flatten().collect()
}

/// What is wrong with a request whatever it is about.
fn frame() -> Vec<Step> {
    vec![
        step("GET", "/", "", SAME),
        step("GET", "/version", "", SAME),
        step("GET", "/vm/config", "", SAME),
        step("GET", "/vm", "", SAME),
        step("GET", "/none", "", SAME),
        step("GET", "/none/of/them", "", SAME),
        step("GET", "/boot-source", "", SAME),
        step("GET", "/machine-config/", "", SAME),
        step("GET", "/machine-config", "{}", SAME),
        step("PUT", "/machine-config", "", SAME),
        step("PUT", "/none", "", SAME),
        step("PUT", "/", "{}", SAME),
        step("PATCH", "/machine-config", "", SAME),
        step("PATCH", "/machine-config", "{}", SAME),
        step("PATCH", "/none", "{}", SAME),
        step("PATCH", "/boot-source", "{}", SAME),
        step("DELETE", "/machine-config", "", SAME),
        step("DELETE", "/drives/a", "{}", SAME),
        step("DELETE", "/drives", "", SAME),
        step("DELETE", "/drives/a", "", SAME),
        step("POST", "/machine-config", "{}", &["form"]),
        step("HEAD", "/", "", SAME),
        step("PUT", "/machine-config", "{", SAME),
        step("PUT", "/machine-config", "[]", SAME),
        step("PUT", "/machine-config", "no JSON", SAME),
        step("GET", "/balloon/none", "", SAME),
        step("GET", "/balloon/hinting/none", "", SAME),
        step("PUT", "/mmds/none", "{}", SAME),
        step("PUT", "/snapshot", "{}", SAME),
        step("PUT", "/snapshot/none", "{}", SAME),
    ]
}

fn machine() -> Vec<Step> {
    const PATH: &str = "/machine-config";
    vec![
        step("GET", PATH, "", SAME),
        step("PUT", PATH, r#"{"vcpu_count": 1}"#, SAME),
        step("PUT", PATH, r#"{"mem_size_mib": 16}"#, SAME),
        step("PUT", PATH, r#"{"vcpu_count": "1", "mem_size_mib": 16}"#, SAME),
        step("PUT", PATH, r#"{"vcpu_count": -1, "mem_size_mib": 16}"#, SAME),
        step("PUT", PATH, r#"{"vcpu_count": 1000, "mem_size_mib": 16}"#, SAME),
        step("PUT", PATH, r#"{"vcpu_count": 1, "mem_size_mib": 16, "none": 1}"#, SAME),
        step("PUT", PATH, r#"{"vcpu_count": 1, "vcpu_count": 1, "mem_size_mib": 16}"#, SAME),
        step("PUT", PATH, r#"{"vcpu_count": 1, "mem_size_mib": 16, "cpu_template": "none"}"#, SAME),
        step("PUT", PATH, r#"{"vcpu_count": 1, "mem_size_mib": 16, "huge_pages": "1G"}"#, SAME),
        step("PUT", PATH, r#"{"vcpu_count": 1, "mem_size_mib": 16, "smt": 1}"#, SAME),
        step("PUT", PATH, r#"{"vcpu_count": 0, "mem_size_mib": 16}"#, TEXT),
        step("PUT", PATH, r#"{"vcpu_count": 33, "mem_size_mib": 16}"#, TEXT),
        step("PUT", PATH, r#"{"vcpu_count": 1, "mem_size_mib": 0}"#, TEXT),
        step("PUT", PATH, r#"{"vcpu_count": 3, "mem_size_mib": 16, "smt": true}"#, TEXT),
        step("PUT", PATH, r#"{"vcpu_count": 1, "mem_size_mib": 17, "huge_pages": "2M"}"#, TEXT),
        step("PUT", PATH, r#"{"vcpu_count": 1, "mem_size_mib": 8}"#, REFUSED),
        step("PUT", PATH, r#"{"vcpu_count": 2, "mem_size_mib": 64, "smt": true, "track_dirty_pages": true}"#, SAME),
        step("GET", PATH, "", SAME),
        step("PATCH", PATH, r#"{"cpu_template": "None"}"#, SAME),
        step("GET", PATH, "", SAME),
        step("PATCH", PATH, r#"{"none": 1}"#, SAME),
        step("PATCH", PATH, r#"{"vcpu_count": 0}"#, TEXT),
        step("PATCH", PATH, r#"{"vcpu_count": 1, "smt": false, "track_dirty_pages": false}"#, SAME),
        step("PATCH", PATH, r#"{"mem_size_mib": 16}"#, SAME),
        step("GET", PATH, "", SAME),
    ]
}

fn sources() -> Vec<Step> {
    vec![
        step("PUT", "/boot-source", "{}", SAME),
        step("PUT", "/boot-source", r#"{"kernel_image_path": 1}"#, SAME),
        step("PUT", "/boot-source", r#"{"kernel_image_path": "kernel", "none": 1}"#, SAME),
        step("PUT", "/boot-source", r#"{"kernel_image_path": "none"}"#, TEXT),
        step("PUT", "/boot-source", r#"{"kernel_image_path": "kernel", "initrd_path": "none"}"#, TEXT),
        step("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#, SAME),
        step("PUT", "/boot-source", r#"{"kernel_image_path": "kernel", "boot_args": "console=ttyS0"}"#, SAME),
        step("PUT", "/logger", r#"{"level": "None"}"#, TEXT),
        step("PUT", "/logger", r#"{"none": 1}"#, SAME),
        step("PUT", "/logger", r#"{"log_path": "none/log"}"#, TEXT),
        step("PUT", "/logger", r#"{"log_path": "log", "level": "Warning", "show_level": true}"#, SAME),
        step("PUT", "/metrics", "{}", SAME),
        step("PUT", "/metrics", r#"{"metrics_path": "none/metrics"}"#, TEXT),
        step("PUT", "/metrics", r#"{"metrics_path": "metrics"}"#, SAME),
        step("PUT", "/metrics", r#"{"metrics_path": "metrics"}"#, TEXT),
        step("PUT", "/serial", r#"{"none": 1}"#, SAME),
        step("PUT", "/serial", r#"{"serial_out_path": "serial"}"#, SAME),
    ]
}

fn devices() -> Vec<Step> {
    [drives(), cards(), balloons()].into_iter().flatten().collect()
}

fn drives() -> Vec<Step> {
    vec![
        step("PUT", "/drives", r#"{"drive_id": "d", "is_root_device": false, "path_on_host": "disk"}"#, SAME),
        step("PUT", "/drives/a-b", r#"{"drive_id": "a-b", "is_root_device": false, "path_on_host": "disk"}"#, SAME),
        step("PUT", "/drives/d", "{}", SAME),
        step("PUT", "/drives/d", r#"{"drive_id": "d", "is_root_device": false}"#, TEXT),
        step("PUT", "/drives/d", r#"{"drive_id": "e", "is_root_device": false, "path_on_host": "disk"}"#, SAME),
        step("PUT", "/drives/d", r#"{"drive_id": "d", "is_root_device": false, "path_on_host": "none"}"#, TEXT),
        step(
            "PUT",
            "/drives/d",
            r#"{"drive_id": "d", "is_root_device": false, "path_on_host": "disk", "none": 1}"#,
            SAME,
        ),
        step(
            "PUT",
            "/drives/d",
            r#"{"drive_id": "d", "is_root_device": false, "path_on_host": "disk", "cache_type": "None"}"#,
            SAME,
        ),
        step(
            "PUT",
            "/drives/d",
            r#"{"drive_id": "d", "is_root_device": false, "path_on_host": "disk", "io_engine": "None"}"#,
            SAME,
        ),
        step(
            "PUT",
            "/drives/d",
            r#"{"drive_id": "d", "is_root_device": false, "path_on_host": "disk", "rate_limiter": {"ops": {"size": 1}}}"#,
            SAME,
        ),
        step(
            "PUT",
            "/drives/d",
            r#"{"drive_id": "d", "is_root_device": true, "path_on_host": "disk", "rate_limiter": {"ops": {"size": 100, "refill_time": 1000}}}"#,
            SAME,
        ),
        step(
            "PUT",
            "/drives/e",
            r#"{"drive_id": "e", "is_root_device": true, "path_on_host": "other", "is_read_only": true}"#,
            TEXT,
        ),
        step("PUT", "/drives/v", r#"{"drive_id": "v", "is_root_device": false, "socket": "none"}"#, TEXT),
        step(
            "PUT",
            "/drives/e",
            r#"{"drive_id": "e", "is_root_device": false, "path_on_host": "other", "rate_limiter": {"ops": {"size": 1, "refill_time": 2000}}}"#,
            REFUSED,
        ),
        step(
            "PUT",
            "/drives/e",
            r#"{"drive_id": "e", "is_root_device": false, "path_on_host": "other", "is_read_only": true, "partuuid": "1", "cache_type": "Writeback", "rate_limiter": {"bandwidth": {"size": 100000, "one_time_burst": 5, "refill_time": 100}}}"#,
            SAME,
        ),
        step("PATCH", "/drives/d", r#"{"drive_id": "d", "path_on_host": "other"}"#, SAME),
        step("GET", "/vm/config", "", SAME),
    ]
}

fn cards() -> Vec<Step> {
    vec![
        step("PUT", "/network-interfaces/n", "{}", SAME),
        step("PUT", "/network-interfaces/n", r#"{"iface_id": "m", "host_dev_name": "t"}"#, SAME),
        step("PUT", "/network-interfaces/n", r#"{"iface_id": "n", "host_dev_name": "t", "none": 1}"#, SAME),
        step("PUT", "/network-interfaces/n", r#"{"iface_id": "n", "host_dev_name": "t", "guest_mac": "1:2"}"#, TEXT),
        step("PATCH", "/network-interfaces/n", r#"{"iface_id": "n"}"#, SAME),
        step("PUT", "/vsock", "{}", SAME),
        step("PUT", "/vsock", r#"{"guest_cid": 2, "uds_path": "v"}"#, REFUSED),
        step("PUT", "/vsock", r#"{"guest_cid": 3, "uds_path": "/none/v"}"#, TEXT),
        step("PUT", "/vsock", r#"{"guest_cid": "3", "uds_path": "v"}"#, SAME),
        step("PUT", "/vsock", r#"{"guest_cid": 3, "uds_path": "v", "none": 1}"#, SAME),
        step("PUT", "/vsock", r#"{"guest_cid": 3, "uds_path": "v", "vsock_id": "1"}"#, SAME),
        step("PUT", "/mmds/config", "{}", SAME),
        step("PUT", "/mmds/config", r#"{"network_interfaces": []}"#, TEXT),
        step("PUT", "/mmds/config", r#"{"network_interfaces": ["n"], "version": "V3"}"#, SAME),
        step("PUT", "/mmds/config", r#"{"network_interfaces": ["n"], "ipv4_address": "1.2.3"}"#, SAME),
        step("PUT", "/mmds/config", r#"{"network_interfaces": ["n"]}"#, TEXT),
        step("GET", "/mmds", "", SAME),
        step("PATCH", "/mmds", r#"{"a": 1}"#, SAME),
        step("PUT", "/mmds", "1", SAME),
        step("PUT", "/mmds", r#"{"a": {"b": 1, "c": 2}}"#, SAME),
        step("PATCH", "/mmds", r#"{"a": {"b": null, "d": [1]}}"#, SAME),
        step("GET", "/mmds", "", SAME),
    ]
}

fn balloons() -> Vec<Step> {
    vec![
        step("GET", "/balloon", "", TEXT),
        step("PUT", "/balloon", "{}", SAME),
        step("PUT", "/balloon", r#"{"amount_mib": 17, "deflate_on_oom": true}"#, TEXT),
        step("PUT", "/balloon", r#"{"amount_mib": -1, "deflate_on_oom": true}"#, SAME),
        step("PUT", "/balloon", r#"{"amount_mib": 1, "deflate_on_oom": true, "none": 1}"#, SAME),
        step("PUT", "/balloon", r#"{"amount_mib": 1, "deflate_on_oom": true, "free_page_hinting": true}"#, REFUSED),
        step("PUT", "/balloon", r#"{"amount_mib": 1, "deflate_on_oom": true, "stats_polling_interval_s": 1}"#, SAME),
        step("GET", "/balloon", "", SAME),
        step("PUT", "/entropy", r#"{"none": 1}"#, SAME),
        step("PUT", "/entropy", r#"{"rate_limiter": {"ops": {"size": 1000, "refill_time": 100}}}"#, REFUSED),
        step("PUT", "/entropy", r#"{"rate_limiter": {"bandwidth": {"size": 1000, "refill_time": 100}}}"#, SAME),
    ]
}

fn others() -> Vec<Step> {
    vec![
        step("PATCH", "/vm", r#"{"state": "Paused"}"#, SAME),
        step("PATCH", "/vm", r#"{"state": "None"}"#, SAME),
        step("PUT", "/actions", "{}", SAME),
        step("PUT", "/actions", r#"{"action_type": "None"}"#, SAME),
        step("PUT", "/actions", r#"{"action_type": "FlushMetrics", "none": 1}"#, SAME),
        step("PUT", "/actions", r#"{"action_type": "FlushMetrics"}"#, SAME),
        step("PUT", "/snapshot/create", "{}", SAME),
        step(
            "PUT",
            "/snapshot/create",
            r#"{"snapshot_path": "s", "mem_file_path": "m", "snapshot_type": "None"}"#,
            SAME,
        ),
        step("PUT", "/snapshot/create", r#"{"snapshot_path": "s", "mem_file_path": "m"}"#, SAME),
        step("PUT", "/snapshot/load", r#"{"snapshot_path": "s"}"#, SAME),
        step(
            "PUT",
            "/snapshot/load",
            r#"{"snapshot_path": "s", "mem_file_path": "m", "mem_backend": {"backend_type": "File", "backend_path": "m"}}"#,
            SAME,
        ),
        step("GET", "/vm/config", "", SAME),
        step("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#, SAME),
    ]
}

/// While the guest runs and while it is paused.
pub fn after() -> Vec<Step> {
    vec![
        step("GET", "/", "", SAME),
        step("GET", "/vm/config", "", SAME),
        step("GET", "/machine-config", "", SAME),
        step("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#, SAME),
        step("PUT", "/machine-config", r#"{"vcpu_count": 1, "mem_size_mib": 16}"#, SAME),
        step("PUT", "/machine-config", r#"{"vcpu_count": 1, "mem_size_mib": 16, "none": 1}"#, SAME),
        step("PUT", "/drives/d", r#"{"drive_id": "d", "is_root_device": true, "path_on_host": "disk"}"#, SAME),
        step("PATCH", "/drives/d", r#"{"drive_id": "d"}"#, TEXT),
        step("PATCH", "/drives/d", r#"{"drive_id": "d", "path_on_host": "none"}"#, TEXT),
        step("PATCH", "/drives/none", r#"{"drive_id": "none", "path_on_host": "disk"}"#, TEXT),
        step("PATCH", "/drives/d", r#"{"drive_id": "d", "path_on_host": "disk", "is_root_device": true}"#, SAME),
        step("PATCH", "/drives/d", r#"{"drive_id": "d", "path_on_host": "disk"}"#, SAME),
        step(
            "PATCH",
            "/drives/d",
            r#"{"drive_id": "d", "rate_limiter": {"bandwidth": {"size": 1000000, "refill_time": 100}}}"#,
            SAME,
        ),
        step("GET", "/vm/config", "", SAME),
        step("PATCH", "/network-interfaces/none", r#"{"iface_id": "none"}"#, TEXT),
        step("GET", "/balloon", "", SAME),
        step("PATCH", "/balloon", r#"{"amount_mib": 17}"#, TEXT),
        step("PATCH", "/balloon", r#"{"amount_mib": 2}"#, &["status 204, 400"]),
        step("GET", "/balloon", "", &["/amount_mib value"]),
        step("GET", "/balloon/statistics", "", &["/target_mib value", "/target_pages value"]),
        step("PATCH", "/balloon/statistics", r#"{"stats_polling_interval_s": 0}"#, TEXT),
        step("PATCH", "/balloon/statistics", r#"{"stats_polling_interval_s": 2}"#, SAME),
        step("GET", "/mmds", "", SAME),
        step("PUT", "/snapshot/create", r#"{"snapshot_path": "s", "mem_file_path": "m"}"#, TEXT),
        step("PUT", "/actions", r#"{"action_type": "FlushMetrics"}"#, SAME),
        step("PATCH", "/vm", r#"{"state": "None"}"#, SAME),
        step("PATCH", "/vm", r#"{"state": "Resumed"}"#, SAME),
        step("PATCH", "/vm", r#"{"state": "Paused"}"#, SAME),
        step("PATCH", "/vm", r#"{"state": "Paused"}"#, SAME),
        step("GET", "/", "", SAME),
        step("PUT", "/snapshot/create", r#"{"snapshot_path": "none/s", "mem_file_path": "none/m"}"#, TEXT),
        step("PUT", "/snapshot/create", r#"{"snapshot_path": "s", "mem_file_path": "m"}"#, SAME),
        step("PATCH", "/vm", r#"{"state": "Resumed"}"#, SAME),
        step("GET", "/", "", SAME),
        step("DELETE", "/drives/d", "", SAME),
    ]
}
