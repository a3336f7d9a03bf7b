//! The snapshot as JSON (RFC 8259). It is written by hand, so that every build has it, and no build needs a library for it.

use std::fmt::Write;
use std::time::Duration;

use super::data::{DeviceKindMetrics, DeviceMetrics, Metrics, VcpuMetrics};
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
        });
    });
    json.text
}

fn vcpu(json: &mut Json, vcpu: &VcpuMetrics) {
    json.member("exits");
    json.object(|json| vcpu.exits.by_kind().into_iter().for_each(|(kind, count)| json.number(kind, count)));
    json.time("cpu_ns", vcpu.cpu_time);
}

fn io_thread(json: &mut Json, thread: &IoThreadMetrics) {
    json.text("name", &thread.name);
    json.member("tid");
    json.text += &thread.tid.to_string();
    json.member("is_own");
    json.text += if thread.is_own { "true" } else { "false" };
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
    match &device.kind {
        DeviceKindMetrics::Disk(disk) => {
            json.member("disk");
            json.object(|json| write_disk(json, disk));
        }
        DeviceKindMetrics::Nic(nic) => {
            json.member("nic");
            json.object(|json| write_nic(json, nic));
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
    ];
    counts.into_iter().for_each(|(name, count)| json.number(name, count));
}

fn write_nic(json: &mut Json, nic: &NicMetrics) {
    let counts = [
        ("received_frames", nic.received_frames),
        ("received_bytes", nic.received_bytes),
        ("received_dropped", nic.received_dropped),
        ("sent_frames", nic.sent_frames),
        ("sent_bytes", nic.sent_bytes),
        ("sent_dropped", nic.sent_dropped),
    ];
    counts.into_iter().for_each(|(name, count)| json.number(name, count));
}

/// A text that grows.
#[derive(Default)]
struct Json {
    text: String,
}

impl Json {
    fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.text.push('{');
        members(self);
        self.text.push('}');
    }

    fn list<T>(&mut self, name: &str, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.member(name);
        self.text.push('[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.object(|json| write(json, item));
        }
        self.text.push(']');
    }

    /// Begins a member of the present object.
    fn member(&mut self, name: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.string(name);
        self.text.push(':');
    }

    fn text(&mut self, name: &str, value: &str) {
        self.member(name);
        self.string(value);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.member(name);
        self.text += &value.to_string();
    }

    fn time(&mut self, name: &str, value: Duration) {
        self.number(name, u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    fn string(&mut self, value: &str) {
        self.text.push('"');
        for character in value.chars() {
            match character {
                '"' | '\\' => self.text.extend(['\\', character]),
                // A text takes everything that is written to it.
                '\0'..='\x1f' => _ = write!(self.text, "\\u{:04x}", u32::from(character)),
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }
}
