use std::collections::HashSet;
use std::time::Duration;

use super::super::data::{DeviceKindMetrics, DeviceMetrics, VcpuMetrics};
use super::*;
use crate::balloon::{BalloonMetrics, BalloonStatistics};
use crate::block::DiskMetrics;
use crate::memory::MemoryUse;
use crate::net::NicMetrics;

fn thread(name: &str, tid: i32, is_own: bool) -> IoThreadMetrics {
    IoThreadMetrics { name: name.to_owned(), tid, is_own, turns: 7, ..IoThreadMetrics::default() }
}

fn full(vm: &str) -> Metrics {
    let mut disk = DeviceMetrics { name: "disk0".to_owned(), ..DeviceMetrics::default() };
    let fallback = Some("this host \"forbids\"\nit \\".to_owned());
    disk.kind = DeviceKindMetrics::Disk(DiskMetrics {
        engine: "sync".to_owned(),
        fallback,
        reads: 3,
        ..DiskMetrics::default()
    });
    disk.counters.insert("cache hits".to_owned(), 9);
    let mut nic = DeviceMetrics { name: "nic0".to_owned(), ..DeviceMetrics::default() };
    nic.kind = DeviceKindMetrics::Nic(NicMetrics { sent_bytes: u64::MAX, ..NicMetrics::default() });
    let mut balloon = DeviceMetrics { name: "balloon0".to_owned(), ..DeviceMetrics::default() };
    let mut statistics = BalloonStatistics { age: Duration::from_secs(2), ..BalloonStatistics::default() };
    (statistics.free, statistics.direct_reclaims) = (Some(4096), Some(5));
    let mut size = BalloonMetrics { target_bytes: 8192, ..BalloonMetrics::default() };
    size.statistics = Some(statistics);
    balloon.kind = DeviceKindMetrics::Balloon(size);
    let mut vcpu = VcpuMetrics { cpu_time: Duration::from_millis(1500), ..VcpuMetrics::default() };
    vcpu.exits.mmio_write = 12;
    Metrics {
        vm: vm.to_owned(),
        vcpus: vec![vcpu],
        io_threads: vec![thread("a:io", 10, true), thread("shared", 11, false)],
        devices: vec![disk, nic, balloon],
        memory: Some(MemoryUse { own_bytes: 4096, shared_bytes: 8192 }),
        ..Metrics::default()
    }
}

#[test]
fn samples_stand_with_their_labels_units_and_escapes() {
    let text = full("web \"1\"").to_openmetrics();
    for line in [
        "# TYPE vmcell_vcpu_cpu_seconds counter",
        "# UNIT vmcell_vcpu_cpu_seconds seconds",
        r#"vmcell_vcpu_cpu_seconds_total{vm="web \"1\"",vcpu="0"} 1.500000000"#,
        r#"vmcell_vcpu_exits_total{vm="web \"1\"",vcpu="0",kind="mmio_write"} 12"#,
        r#"vmcell_disk_requests_total{vm="web \"1\"",device="disk0",kind="read"} 3"#,
        r#"vmcell_nic_bytes_total{vm="web \"1\"",device="nic0",direction="sent"} 18446744073709551615"#,
        r#"vmcell_device_counter_total{vm="web \"1\"",device="disk0",counter="cache hits"} 9"#,
        r#"vmcell_disk_engine_info{vm="web \"1\"",device="disk0",engine="sync",fallback="this host \"forbids\"\nit \\"} 1"#,
        "# TYPE vmcell_balloon_bytes gauge",
        r#"vmcell_balloon_bytes{vm="web \"1\"",device="balloon0",size="target"} 8192"#,
        r#"vmcell_balloon_bytes{vm="web \"1\"",device="balloon0",size="actual"} 0"#,
        r#"vmcell_memory_bytes{vm="web \"1\"",kind="shared"} 8192"#,
        r#"vmcell_balloon_statistic{vm="web \"1\"",device="balloon0",statistic="free"} 4096"#,
        r#"vmcell_balloon_statistic{vm="web \"1\"",device="balloon0",statistic="direct_reclaims"} 5"#,
        r#"vmcell_balloon_statistics_age_seconds{vm="web \"1\"",device="balloon0"} 2.000000000"#,
        r#"vmcell_io_thread_turns_total{vm="web \"1\"",thread="a:io"} 7"#,
        r#"vmcell_io_thread_turns_total{thread="shared"} 7"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
    assert!(!text.contains("longest_turn"), "no turn was measured");
    assert!(text.ends_with("\n# EOF\n"));
}

#[test]
fn several_vms_stand_in_one_text_without_a_line_twice() {
    let text = openmetrics(&[full("a"), full("b"), full("a"), Metrics::default(), Metrics::default()]);
    let mut seen = HashSet::new();
    for line in text.lines() {
        let series = if line.starts_with('#') { line } else { line.rsplit_once(' ').unwrap().0 };
        assert!(seen.insert(series), "{series} stands twice");
    }
    assert!(text.contains(r#"{vm="a",same_name="2",vcpu="0",kind="mmio_write"} 12"#), "{text}");
    assert_eq!(text.matches("thread=\"shared\"").count(), text.matches("{vm=\"b\",thread=\"a:io\"").count());
}

/// Each family's samples follow its metadata at once, as the format demands.
#[test]
fn families_are_not_interleaved() {
    let mut done = HashSet::new();
    let mut family = String::new();
    for line in openmetrics(&[full("a"), full("b")]).lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(done.insert(family.clone()), "{family} comes twice");
        } else {
            let line = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# UNIT ")).unwrap_or(line);
            assert!(line.starts_with(&family), "{line} is not of {family}");
        }
    }
    assert_eq!(done.len() + 1, FAMILIES.len(), "all but the longest turn");
}

#[test]
fn a_unit_ends_its_name_and_a_counter_s_name_has_no_suffix_yet() {
    for family in FAMILIES {
        assert!(family.unit.is_empty() || family.name.ends_with(&format!("_{}", family.unit)), "{}", family.name);
        assert!(!family.name.ends_with("_total") && !family.help.contains(['\\', '\n']), "{}", family.name);
    }
}

#[test]
fn json_has_every_field_and_escapes_what_it_must() {
    let text = full("a \"\\\u{1}").to_json();
    for part in [
        r#"{"vm":"a \"\\\u0001","vcpus":[{"exits":{"pio_read":0,"#,
        r#""cpu_ns":1500000000}]"#,
        r#"{"name":"shared","tid":11,"is_own":false,"cpu_ns":0,"turns":7,"polling":{"looks":0,"finds":0,"time_ns":0}}"#,
        r#""disk":{"engine":"sync","fallback":"this host \"forbids\"\u000ait \\","reads":3,"#,
        r#""counters":{"cache hits":9}}"#,
        r#""balloon":{"target_bytes":8192,"actual_bytes":0,"statistics":{"age_ns":2000000000,"free":4096,"direct_reclaims":5}},"#,
        r#""console":{"output_bytes":0,"dropped_bytes":0,"lost_bytes":0,"input_bytes":0,"limited":0},"memory":{"own_bytes":4096,"shared_bytes":8192}}"#,
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn serde_writes_the_object_that_to_json_writes() {
    let metrics = full("a \"\\\u{1}");
    let value = serde_json::to_value(&metrics).unwrap();
    assert_eq!(value, serde_json::from_str::<serde_json::Value>(&metrics.to_json()).unwrap());
    assert_eq!((&value["vm"], &value["io_threads"][0]["turns"]), (&"a \"\\\u{1}".into(), &7.into()));
}

/// By the parser of Prometheus's own client library, where that is installed.
#[test]
fn prometheus_reads_the_text() {
    const PARSER: &str = "from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                          import sys\n\
                          families = list(parse(sys.stdin.read()))\n\
                          for family in families:\n    \
                          for sample in family.samples:\n        \
                          print(family.type, family.unit, sample.name, sorted(sample.labels.items()), float(sample.value))\n";
    let pythons = std::env::var("VMCELL_PYTHON").into_iter().chain(["python3".into(), "/usr/bin/python3".into()]);
    let has_parser = |python: &String| {
        let import =
            std::process::Command::new(python).args(["-c", "import prometheus_client.openmetrics.parser"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    let Some(python) = pythons.into_iter().find(has_parser) else {
        #[allow(clippy::print_stdout, reason = "says why the test was skipped")]
        return println!("skipped: no python3 with prometheus_client, Debian's package python3-prometheus-client");
    };
    let mut measured = full("b");
    measured.io_threads[0].longest_turn = Some(Duration::from_micros(300));
    let text = openmetrics(&[full("web \"1\"\n\\"), measured, Metrics::default()]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metrics");
    std::fs::write(&path, &text).unwrap();
    let input = std::fs::File::open(path).unwrap();
    let output = std::process::Command::new(python).args(["-c", PARSER]).stdin(input).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{text}");
    let read = String::from_utf8(output.stdout).unwrap();
    for line in [
        r#"counter seconds vmcell_vcpu_cpu_seconds_total [('vcpu', '0'), ('vm', 'b')] 1.5"#,
        r#"gauge seconds vmcell_io_thread_longest_turn_seconds [('thread', 'a:io'), ('vm', 'b')] 0.0003"#,
        r#"counter  vmcell_disk_requests_total [('device', 'disk0'), ('kind', 'read'), ('vm', 'web "1"\n\\')] 3.0"#,
    ] {
        assert!(read.lines().any(|found| found == line), "{line}\nis not in\n{read}");
    }
    assert_eq!(read.lines().count(), text.lines().filter(|line| !line.starts_with('#')).count());
}
