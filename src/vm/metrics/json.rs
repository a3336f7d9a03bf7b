//! The snapshot as JSON.

use super::super::json::Json;
use super::data::{DeviceKindMetrics, DeviceMetrics, Metrics, VcpuMetrics};
use crate::balloon::BalloonMetrics;
use crate::block::DiskMetrics;
use crate::event::IoThreadMetrics;
use crate::net::NicMetrics;

impl Metrics {
    /// Writes them as a JSON object. Its members are called like the fields; times are in nanoseconds, as `_ns` says.
    ///
    /// ```
    /// let text = vmcell::Metrics::default().to_json();
    /// assert!(text.starts_with(r#"{"vm":"","vcpus":[],"#));
    /// ```
    pub fn to_json(&self) -> String {
        write(self)
    }
}

/// As the object that [`to_json`](Metrics::to_json) writes.
#[cfg(feature = "serde")]
impl serde::Serialize for Metrics {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: serde_json::Value = serde_json::from_str(&self.to_json()).map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}

fn write(metrics: &Metrics) -> String {
    let mut json = Json::default();
    json.object(|json| {
        json.text("vm", &metrics.vm);
        json.list("vcpus", &metrics.vcpus, vcpu);
        json.list("io_threads", &metrics.io_threads, io_thread);
        json.list("devices", &metrics.devices, device);
        json.member("console");
        json.object(|json| {
            json.number("output_bytes", metrics.console.output_bytes);
            json.number("dropped_bytes", metrics.console.dropped_bytes);
            json.number("lost_bytes", metrics.console.lost_bytes);
            json.number("input_bytes", metrics.console.input_bytes);
            json.number("limited", metrics.console.limited);
        });
        if let Some(memory) = metrics.memory {
            json.member("memory");
            json.object(|json| {
                json.number("own_bytes", memory.own_bytes);
                json.number("shared_bytes", memory.shared_bytes);
            });
        }
    });
    json.into_text()
}

fn vcpu(json: &mut Json, vcpu: &VcpuMetrics) {
    json.member("exits");
    json.object(|json| vcpu.exits.by_kind().into_iter().for_each(|(kind, count)| json.number(kind, count)));
    json.time("cpu_ns", vcpu.cpu_time);
}

fn io_thread(json: &mut Json, thread: &IoThreadMetrics) {
    json.text("name", &thread.name);
    json.signed("tid", thread.tid.into());
    json.flag("is_own", thread.is_own);
    json.time("cpu_ns", thread.cpu_time);
    json.number("turns", thread.turns);
    if let Some(longest) = thread.longest_turn {
        json.time("longest_turn_ns", longest);
    }
    json.member("polling");
    json.object(|json| {
        json.number("looks", thread.polling.looks);
        json.number("finds", thread.polling.finds);
        json.time("time_ns", thread.polling.time);
    });
}

fn device(json: &mut Json, device: &DeviceMetrics) {
    json.text("name", &device.name);
    json.number("chains", device.transport.chains);
    json.number("refused_chains", device.transport.refused_chains);
    json.number("doorbells", device.transport.doorbells);
    json.number("interrupts", device.transport.interrupts);
    json.number("failures", device.transport.failures);
    json.flag("needs_reset", device.transport.needs_reset);
    match &device.kind {
        DeviceKindMetrics::Disk(disk) => {
            json.member("disk");
            json.object(|json| write_disk(json, disk));
        }
        DeviceKindMetrics::Nic(nic) => {
            json.member("nic");
            json.object(|json| write_nic(json, nic));
        }
        DeviceKindMetrics::Balloon(balloon) => {
            json.member("balloon");
            json.object(|json| write_balloon(json, balloon));
        }
        DeviceKindMetrics::Other => {}
    }
    json.member("counters");
    json.object(|json| device.counters.iter().for_each(|(name, count)| json.number(name, *count)));
}

fn write_disk(json: &mut Json, disk: &DiskMetrics) {
    json.text("engine", &disk.engine);
    if let Some(fallback) = &disk.fallback {
        json.text("fallback", fallback);
    }
    let counts = [
        ("reads", disk.reads),
        ("writes", disk.writes),
        ("flushes", disk.flushes),
        ("discards", disk.discards),
        ("zeroes", disk.zeroes),
        ("identifications", disk.identifications),
        ("refused", disk.refused),
        ("read_bytes", disk.read_bytes),
        ("written_bytes", disk.written_bytes),
        ("discarded_bytes", disk.discarded_bytes),
        ("zeroed_bytes", disk.zeroed_bytes),
        ("errors", disk.errors),
        ("limited", disk.limited),
    ];
    counts.into_iter().for_each(|(name, count)| json.number(name, count));
    json.time("limited_ns", disk.limited_time);
}

fn write_balloon(json: &mut Json, balloon: &BalloonMetrics) {
    json.number("target_bytes", balloon.target_bytes);
    json.number("actual_bytes", balloon.actual_bytes);
    if let Some(statistics) = &balloon.statistics {
        json.member("statistics");
        json.object(|json| {
            json.time("age_ns", statistics.age);
            statistics.said().for_each(|(name, value)| json.number(name, value));
        });
    }
}

fn write_nic(json: &mut Json, nic: &NicMetrics) {
    let counts = [
        ("received_frames", nic.received_frames),
        ("received_bytes", nic.received_bytes),
        ("received_dropped", nic.received_dropped),
        ("sent_frames", nic.sent_frames),
        ("sent_bytes", nic.sent_bytes),
        ("sent_dropped", nic.sent_dropped),
        ("received_limited", nic.received_limited),
        ("sent_limited", nic.sent_limited),
    ];
    counts.into_iter().for_each(|(name, count)| json.number(name, count));
    json.time("received_limited_ns", nic.received_limited_time);
    json.time("sent_limited_ns", nic.sent_limited_time);
}
