//! Metrics as lines of JSON, in the layout that readers of Firecracker's know: what is counted here, and nothing that is not.
//!
//! A counter of a line is what has come since the line before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use vmcell::block::DiskMetrics;
use vmcell::net::NicMetrics;
use vmcell::{DeviceKindMetrics, DeviceMetrics, Metrics, Vm};

use super::plan::Plan;
use crate::log::{Log, now_ms, open_to_append};

/// How often a line is written without being asked for.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// What the program counts itself, and where lines go.
#[derive(Default)]
pub struct Meters {
    file: Option<File>,
    /// The counters of the last line, as they were.
    before: Map<String, Value>,
    /// Requests and refusals, by the group of the API and the resource.
    requests: BTreeMap<(&'static str, String), u64>,
    /// How long something took the last time, in microseconds.
    latencies: BTreeMap<&'static str, u64>,
    deprecated: u64,
    missed: u64,
    /// When the next line is due.
    due: Option<Instant>,
}

impl Meters {
    /// Says where lines go, which can be said once.
    pub fn open(&mut self, path: &str) -> Result<(), String> {
        if self.file.is_some() {
            return Err("metrics are written already".to_owned());
        }
        self.file = Some(open_to_append(path).map_err(|why| why.to_string())?);
        Ok(())
    }

    /// Counts a request of a resource.
    pub fn count(&mut self, group: &'static str, resource: &str, is_refused: bool) {
        let mut add = |what: &str| {
            let count = self.requests.entry((group, format!("{resource}_{what}"))).or_default();
            *count = count.saturating_add(1);
        };
        add("count");
        if is_refused {
            add("fails");
        }
    }

    /// Counts a request that used what is deprecated.
    pub fn count_deprecated(&mut self) {
        self.deprecated = self.deprecated.saturating_add(1);
    }

    /// Keeps how long something took.
    pub fn took(&mut self, what: &'static str, time: Duration) {
        self.latencies.insert(what, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// When the next line is due: some time after the machine was started.
    pub fn due(&mut self, is_started: bool, now: Instant) -> Option<Instant> {
        if !is_started || self.file.is_none() {
            return None;
        }
        let next = || now.checked_add(INTERVAL).unwrap_or(now);
        Some(*self.due.get_or_insert_with(next))
    }

    /// Writes a line if one is due.
    pub fn write_if_due(&mut self, vm: &Vm, plan: &Plan, log: &Log, now: Instant) {
        if self.due(true, now).is_some_and(|due| now >= due) {
            self.due = None;
            // It is counted.
            let _ = self.write(vm, plan, log);
        }
    }

    /// Writes a line. There is none if nobody said where it goes.
    pub fn write(&mut self, vm: &Vm, plan: &Plan, log: &Log) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let counters = self.counters(&vm.metrics(), plan, log);
        let mut line = since(&counters, &self.before);
        line.insert("utc_timestamp_ms".to_owned(), now_ms().into());
        line.insert("latencies_us".to_owned(), json!(self.latencies));
        let text = format!("{}\n", Value::Object(line));
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()));
        match written {
            Ok(()) => self.before = counters,
            Err(_) => self.missed = self.missed.saturating_add(1),
        }
        written
    }

    fn counters(&self, metrics: &Metrics, plan: &Plan, log: &Log) -> Map<String, Value> {
        let mut all = Map::new();
        for ((group, what), count) in &self.requests {
            let group = all.entry(*group).or_insert_with(|| json!({}));
            if let Value::Object(group) = group {
                group.insert(what.clone(), (*count).into());
            }
        }
        all.insert("deprecated_api".to_owned(), json!({ "deprecated_http_api_calls": self.deprecated }));
        all.insert(
            "logger".to_owned(),
            json!({ "missed_log_count": log.missed(), "missed_metrics_count": self.missed }),
        );
        all.insert("vcpu".to_owned(), vcpus(metrics));
        let console = &metrics.console;
        let dropped = console.dropped_bytes.saturating_add(console.lost_bytes);
        let uart = json!({ "write_count": console.output_bytes, "read_count": console.input_bytes,
                           "rate_limiter_dropped_bytes": dropped });
        all.insert("uart".to_owned(), uart);
        devices(&mut all, metrics, plan);
        all
    }
}

fn vcpus(metrics: &Metrics) -> Value {
    let sum = |of: fn(&vmcell::VcpuMetrics) -> u64| metrics.vcpus.iter().map(of).fold(0_u64, u64::saturating_add);
    json!({
        "exit_io_in": sum(|vcpu| vcpu.exits.pio_read),
        "exit_io_out": sum(|vcpu| vcpu.exits.pio_write),
        "exit_mmio_read": sum(|vcpu| vcpu.exits.mmio_read),
        "exit_mmio_write": sum(|vcpu| vcpu.exits.mmio_write),
        "failures": sum(|vcpu| vcpu.exits.other),
    })
}

/// Each device by its name, and those of a kind together.
fn devices(all: &mut Map<String, Value>, metrics: &Metrics, plan: &Plan) {
    let (mut disks, mut nics) = (plan.drives.iter(), plan.nics.iter());
    for device in &metrics.devices {
        let counter = |name: &str| device.counters.get(name).copied().unwrap_or_default();
        match &device.kind {
            DeviceKindMetrics::Disk(told) => {
                let id = disks.next().map(|drive| drive.drive_id.as_str()).unwrap_or_default();
                add(all, "block", id, disk(told, device));
            }
            DeviceKindMetrics::Nic(told) => {
                let id = nics.next().map(|nic| nic.iface_id.as_str()).unwrap_or_default();
                add(all, "net", id, nic(told, device));
            }
            DeviceKindMetrics::Balloon(_) => {
                let told = json!({
                    "inflate_count": counter("inflated_pages"), "deflate_count": counter("deflated_pages"),
                    "stats_updates_count": counter("statistics"), "free_page_report_freed": counter("reported_bytes"),
                    "event_fails": device.transport.failures,
                });
                all.insert("balloon".to_owned(), told);
            }
            _ if device.name.starts_with("vsock") => {
                let added = counter("connections_by_guest").saturating_add(counter("connections_by_host"));
                let told = json!({
                    "conns_added": added, "rx_bytes_count": counter("bytes_to_guest"),
                    "tx_bytes_count": counter("bytes_from_guest"), "tx_queue_event_count": device.transport.doorbells,
                });
                all.insert("vsock".to_owned(), told);
            }
            _ if device.name.starts_with("rng") => {
                let told = json!({
                    "entropy_bytes": counter("random_bytes"), "entropy_event_count": device.transport.doorbells,
                    "entropy_rate_limiter_throttled": counter("limited"), "host_rng_fails": counter("source_failures"),
                });
                all.insert("entropy".to_owned(), told);
            }
            _ => {}
        }
    }
}

fn disk(told: &DiskMetrics, device: &DeviceMetrics) -> Value {
    json!({
        "read_count": told.reads, "write_count": told.writes, "flush_count": told.flushes,
        "read_bytes": told.read_bytes, "write_bytes": told.written_bytes,
        "execute_fails": told.errors, "invalid_reqs_count": told.refused,
        "rate_limiter_throttled_events": told.limited, "queue_event_count": device.transport.doorbells,
        "event_fails": device.transport.failures,
    })
}

fn nic(told: &NicMetrics, device: &DeviceMetrics) -> Value {
    json!({
        "rx_packets_count": told.received_frames, "rx_bytes_count": told.received_bytes, "rx_fails": told.received_dropped,
        "tx_packets_count": told.sent_frames, "tx_bytes_count": told.sent_bytes, "tx_fails": told.sent_dropped,
        "rx_rate_limiter_throttled": told.received_limited, "tx_rate_limiter_throttled": told.sent_limited,
        "event_fails": device.transport.failures,
    })
}

/// Adds a device, and its counters to those of its kind.
fn add(all: &mut Map<String, Value>, kind: &str, id: &str, told: Value) {
    let sum = all.entry(kind).or_insert_with(|| json!({}));
    if let (Value::Object(sum), Value::Object(told)) = (sum, &told) {
        for (name, count) in told {
            let before = sum.get(name).and_then(Value::as_u64).unwrap_or_default();
            sum.insert(name.clone(), before.saturating_add(count.as_u64().unwrap_or_default()).into());
        }
    }
    all.insert(format!("{kind}_{id}"), told);
}

/// What has come since.
fn since(now: &Map<String, Value>, before: &Map<String, Value>) -> Map<String, Value> {
    let nothing = Map::new();
    let of_one = |(name, value): (&String, &Value)| {
        let before = before.get(name);
        let difference = match value {
            Value::Object(members) => {
                Value::Object(since(members, before.and_then(Value::as_object).unwrap_or(&nothing)))
            }
            other => {
                let before = before.and_then(Value::as_u64).unwrap_or_default();
                other.as_u64().unwrap_or_default().saturating_sub(before).into()
            }
        };
        (name.clone(), difference)
    };
    now.iter().map(of_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_came_since_the_one_before() {
        let of = |value: Value| value.as_object().cloned().unwrap();
        let (before, now) = (of(json!({"a": {"x": 1}})), of(json!({"a": {"x": 3, "y": 4}, "b": 5})));
        assert_eq!(since(&now, &before), of(json!({"a": {"x": 2, "y": 4}, "b": 5})));
        assert_eq!(since(&now, &now), of(json!({"a": {"x": 0, "y": 0}, "b": 0})));
    }

    #[test]
    fn devices_of_a_kind_are_counted_together_and_each_by_its_name() {
        let mut all = Map::new();
        add(&mut all, "block", "a", json!({"read_count": 1}));
        add(&mut all, "block", "b", json!({"read_count": 2}));
        let expected = json!({"block": {"read_count": 3}, "block_a": {"read_count": 1}, "block_b": {"read_count": 2}});
        assert_eq!(Value::Object(all), expected);
    }

    #[test]
    fn requests_are_counted_by_method_and_resource() {
        let mut meters = Meters::default();
        meters.count("put_api_requests", "drive", false);
        meters.count("put_api_requests", "drive", true);
        let all = meters.counters(&Metrics::default(), &Plan::default(), &Log::new("vm"));
        assert_eq!(all["put_api_requests"], json!({"drive_count": 2, "drive_fails": 1}));
    }
}
