//! Which metrics there are in OpenMetrics text: the name, the unit and the meaning of each family, and its samples.

use std::time::Duration;

use super::data::{DeviceKindMetrics, DeviceMetrics, Metrics};
use crate::balloon::{BalloonMetrics, BalloonStatistics};
use crate::event::IoThreadMetrics;

/// Metrics of one name.
pub(super) struct Family {
    /// Without the suffix that its type adds.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The name ends with it. Empty if there is none.
    pub(super) unit: &'static str,
    pub(super) help: &'static str,
    pub(super) samples: Samples,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Info,
}

/// What the samples of a family are taken from.
pub(super) enum Samples {
    /// Once for each VM.
    Vm(fn(&Metrics, &mut Add<'_>)),
    /// Once for each I/O thread.
    Thread(fn(&IoThreadMetrics) -> Option<Value>),
}

/// Adds a sample: its labels, and its value.
pub(super) type Add<'a> = dyn FnMut(&[(&str, &str)], Value) + 'a;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Count(u64),
    Seconds(Duration),
}

const fn counter(name: &'static str, unit: &'static str, help: &'static str, samples: Samples) -> Family {
    Family { name, kind: Kind::Counter, unit, help, samples }
}

pub(super) const FAMILIES: &[Family] = &[
    counter("vmcell_vcpu_exits", "", "How often a vCPU left the guest, by why.", Samples::Vm(exits)),
    counter("vmcell_vcpu_cpu_seconds", "seconds", "CPU time of a vCPU's thread.", Samples::Vm(vcpu_time)),
    counter("vmcell_device_chains", "", "Chains that the driver gave a device.", Samples::Vm(chains)),
    counter(
        "vmcell_device_refused_chains",
        "",
        "Chains of these that broke the rules for descriptors.",
        Samples::Vm(refused_chains),
    ),
    counter("vmcell_device_doorbells", "", "Doorbells that reached a device's thread.", Samples::Vm(doorbells)),
    counter("vmcell_device_interrupts", "", "Interrupts that a device raised.", Samples::Vm(interrupts)),
    counter("vmcell_device_failures", "", "How often a device has failed.", Samples::Vm(failures)),
    Family {
        name: "vmcell_device_needs_reset",
        kind: Kind::Gauge,
        unit: "",
        help: "Whether a device has failed and its driver is told to reset it: 1 if so.",
        samples: Samples::Vm(needs_reset),
    },
    counter("vmcell_device_counter", "", "What a backend, or a device of your own, counts.", Samples::Vm(own_counters)),
    counter("vmcell_disk_requests", "", "Requests to a disk, by what for.", Samples::Vm(disk_requests)),
    counter("vmcell_disk_bytes", "bytes", "Bytes that a disk was asked for and has done.", Samples::Vm(disk_bytes)),
    counter("vmcell_disk_errors", "", "Requests to a disk that failed.", Samples::Vm(disk_errors)),
    counter("vmcell_disk_limited", "", "How often a request waited for a disk's limits.", Samples::Vm(disk_limited)),
    counter(
        "vmcell_disk_limited_seconds",
        "seconds",
        "For how long requests waited for a disk's limits.",
        Samples::Vm(disk_limited_time),
    ),
    Family {
        name: "vmcell_disk_engine",
        kind: Kind::Info,
        unit: "",
        help: "How requests reach a disk's storage, and why not by the first choice.",
        samples: Samples::Vm(disk_engine),
    },
    counter("vmcell_nic_frames", "", "Frames of a network interface, as the guest sees them.", Samples::Vm(nic_frames)),
    counter("vmcell_nic_bytes", "bytes", "Bytes of these frames.", Samples::Vm(nic_bytes)),
    counter("vmcell_nic_dropped_frames", "", "Frames that a network interface dropped.", Samples::Vm(nic_dropped)),
    counter("vmcell_nic_limited", "", "How often an interface waited for its limits.", Samples::Vm(nic_limited)),
    counter(
        "vmcell_nic_limited_seconds",
        "seconds",
        "For how long an interface waited for its limits.",
        Samples::Vm(nic_limited_time),
    ),
    Family {
        name: "vmcell_balloon_bytes",
        kind: Kind::Gauge,
        unit: "bytes",
        help: "How much memory the guest was asked to give back, and says that it has.",
        samples: Samples::Vm(balloon_bytes),
    },
    Family {
        name: "vmcell_balloon_statistic",
        kind: Kind::Gauge,
        unit: "",
        help: "What the guest says of its memory: sizes in bytes, and counts. Nothing of it is checked.",
        samples: Samples::Vm(balloon_statistics),
    },
    Family {
        name: "vmcell_balloon_statistics_age_seconds",
        kind: Kind::Gauge,
        unit: "seconds",
        help: "How long ago the guest said that.",
        samples: Samples::Vm(balloon_statistics_age),
    },
    Family {
        name: "vmcell_memory_bytes",
        kind: Kind::Gauge,
        unit: "bytes",
        help: "RAM that the host keeps for the guest: its own alone, and shared with a snapshot.",
        samples: Samples::Vm(memory_bytes),
    },
    counter("vmcell_console_bytes", "bytes", "Bytes that passed through the console.", Samples::Vm(console_bytes)),
    counter(
        "vmcell_console_limited",
        "",
        "How often the guest's output waited for the console's limit.",
        Samples::Vm(|metrics, add| add(&[], Value::Count(metrics.console.limited))),
    ),
    counter(
        "vmcell_console_missed_bytes",
        "bytes",
        "Bytes of the guest's output that a sink did not get, by why.",
        Samples::Vm(console_missed),
    ),
    counter(
        "vmcell_io_thread_turns",
        "",
        "Turns of devices and consoles on an I/O thread.",
        Samples::Thread(|thread| Some(Value::Count(thread.turns))),
    ),
    counter(
        "vmcell_io_thread_cpu_seconds",
        "seconds",
        "CPU time of an I/O thread.",
        Samples::Thread(|thread| Some(Value::Seconds(thread.cpu_time))),
    ),
    Family {
        name: "vmcell_io_thread_longest_turn_seconds",
        kind: Kind::Gauge,
        unit: "seconds",
        help: "CPU time of the longest turn on an I/O thread, if turns are measured.",
        samples: Samples::Thread(|thread| thread.longest_turn.map(Value::Seconds)),
    },
    counter(
        "vmcell_io_thread_polling_seconds",
        "seconds",
        "Time for which an I/O thread looked for more to do, rather than sleep.",
        Samples::Thread(|thread| Some(Value::Seconds(thread.polling.time))),
    ),
    counter(
        "vmcell_io_thread_polling_looks",
        "",
        "How often an I/O thread looked for more to do.",
        Samples::Thread(|thread| Some(Value::Count(thread.polling.looks))),
    ),
    counter(
        "vmcell_io_thread_polling_finds",
        "",
        "How often it found something.",
        Samples::Thread(|thread| Some(Value::Count(thread.polling.finds))),
    ),
];

fn exits(metrics: &Metrics, add: &mut Add<'_>) {
    for (index, vcpu) in metrics.vcpus.iter().enumerate() {
        let index = index.to_string();
        for (kind, count) in vcpu.exits.by_kind() {
            add(&[("vcpu", &index), ("kind", kind)], Value::Count(count));
        }
    }
}

fn vcpu_time(metrics: &Metrics, add: &mut Add<'_>) {
    for (index, vcpu) in metrics.vcpus.iter().enumerate() {
        add(&[("vcpu", &index.to_string())], Value::Seconds(vcpu.cpu_time));
    }
}

fn of_devices(metrics: &Metrics, add: &mut Add<'_>, count: impl Fn(&DeviceMetrics) -> u64) {
    for device in &metrics.devices {
        add(&[("device", &device.name)], Value::Count(count(device)));
    }
}

fn chains(metrics: &Metrics, add: &mut Add<'_>) {
    of_devices(metrics, add, |device| device.transport.chains);
}

fn refused_chains(metrics: &Metrics, add: &mut Add<'_>) {
    of_devices(metrics, add, |device| device.transport.refused_chains);
}

fn doorbells(metrics: &Metrics, add: &mut Add<'_>) {
    of_devices(metrics, add, |device| device.transport.doorbells);
}

fn interrupts(metrics: &Metrics, add: &mut Add<'_>) {
    of_devices(metrics, add, |device| device.transport.interrupts);
}

fn failures(metrics: &Metrics, add: &mut Add<'_>) {
    of_devices(metrics, add, |device| device.transport.failures);
}

fn needs_reset(metrics: &Metrics, add: &mut Add<'_>) {
    of_devices(metrics, add, |device| device.transport.needs_reset.into());
}

fn own_counters(metrics: &Metrics, add: &mut Add<'_>) {
    for device in &metrics.devices {
        for (name, count) in &device.counters {
            add(&[("device", &device.name), ("counter", name)], Value::Count(*count));
        }
    }
}

/// Counts of one kind of device, each with a label that tells it from the others.
fn labelled<const N: usize>(
    metrics: &Metrics,
    add: &mut Add<'_>,
    label: &str,
    counts: impl Fn(&DeviceKindMetrics) -> Option<[(&'static str, u64); N]>,
) {
    for device in &metrics.devices {
        for (value, count) in counts(&device.kind).into_iter().flatten() {
            add(&[("device", &device.name), (label, value)], Value::Count(count));
        }
    }
}

fn disk_requests(metrics: &Metrics, add: &mut Add<'_>) {
    labelled(metrics, add, "kind", |kind| {
        let DeviceKindMetrics::Disk(disk) = kind else { return None };
        Some([
            ("read", disk.reads),
            ("write", disk.writes),
            ("flush", disk.flushes),
            ("discard", disk.discards),
            ("write_zeroes", disk.zeroes),
            ("identify", disk.identifications),
            ("refused", disk.refused),
        ])
    });
}

fn disk_bytes(metrics: &Metrics, add: &mut Add<'_>) {
    labelled(metrics, add, "kind", |kind| {
        let DeviceKindMetrics::Disk(disk) = kind else { return None };
        Some([
            ("read", disk.read_bytes),
            ("write", disk.written_bytes),
            ("discard", disk.discarded_bytes),
            ("write_zeroes", disk.zeroed_bytes),
        ])
    });
}

fn disk_errors(metrics: &Metrics, add: &mut Add<'_>) {
    for device in &metrics.devices {
        if let DeviceKindMetrics::Disk(disk) = &device.kind {
            add(&[("device", &device.name)], Value::Count(disk.errors));
        }
    }
}

fn disk_limited(metrics: &Metrics, add: &mut Add<'_>) {
    for device in &metrics.devices {
        if let DeviceKindMetrics::Disk(disk) = &device.kind {
            add(&[("device", &device.name)], Value::Count(disk.limited));
        }
    }
}

fn disk_limited_time(metrics: &Metrics, add: &mut Add<'_>) {
    for device in &metrics.devices {
        if let DeviceKindMetrics::Disk(disk) = &device.kind {
            add(&[("device", &device.name)], Value::Seconds(disk.limited_time));
        }
    }
}

fn disk_engine(metrics: &Metrics, add: &mut Add<'_>) {
    for device in &metrics.devices {
        if let DeviceKindMetrics::Disk(disk) = &device.kind {
            let fallback = disk.fallback.as_deref().unwrap_or_default();
            let labels = [("device", device.name.as_str()), ("engine", &disk.engine), ("fallback", fallback)];
            add(&labels, Value::Count(1));
        }
    }
}

fn nic_counts(
    metrics: &Metrics,
    add: &mut Add<'_>,
    counts: impl Fn(&crate::net::NicMetrics) -> [(&'static str, u64); 2],
) {
    labelled(metrics, add, "direction", |kind| match kind {
        DeviceKindMetrics::Nic(nic) => Some(counts(nic)),
        DeviceKindMetrics::Disk(_) | DeviceKindMetrics::Balloon(_) | DeviceKindMetrics::Other => None,
    });
}

fn nic_frames(metrics: &Metrics, add: &mut Add<'_>) {
    nic_counts(metrics, add, |nic| [("received", nic.received_frames), ("sent", nic.sent_frames)]);
}

fn nic_bytes(metrics: &Metrics, add: &mut Add<'_>) {
    nic_counts(metrics, add, |nic| [("received", nic.received_bytes), ("sent", nic.sent_bytes)]);
}

fn nic_dropped(metrics: &Metrics, add: &mut Add<'_>) {
    nic_counts(metrics, add, |nic| [("received", nic.received_dropped), ("sent", nic.sent_dropped)]);
}

fn nic_limited(metrics: &Metrics, add: &mut Add<'_>) {
    nic_counts(metrics, add, |nic| [("received", nic.received_limited), ("sent", nic.sent_limited)]);
}

fn nic_limited_time(metrics: &Metrics, add: &mut Add<'_>) {
    for device in &metrics.devices {
        if let DeviceKindMetrics::Nic(nic) = &device.kind {
            for (direction, time) in [("received", nic.received_limited_time), ("sent", nic.sent_limited_time)] {
                add(&[("device", &device.name), ("direction", direction)], Value::Seconds(time));
            }
        }
    }
}

fn memory_bytes(metrics: &Metrics, add: &mut Add<'_>) {
    if let Some(memory) = metrics.memory {
        add(&[("kind", "own")], Value::Count(memory.own_bytes));
        add(&[("kind", "shared")], Value::Count(memory.shared_bytes));
    }
}

fn balloon_bytes(metrics: &Metrics, add: &mut Add<'_>) {
    labelled(metrics, add, "size", |kind| {
        let DeviceKindMetrics::Balloon(balloon) = kind else { return None };
        Some([("target", balloon.target_bytes), ("actual", balloon.actual_bytes)])
    });
}

fn of_statistics(metrics: &Metrics, mut add: impl FnMut(&str, &BalloonStatistics)) {
    for device in &metrics.devices {
        if let DeviceKindMetrics::Balloon(BalloonMetrics { statistics: Some(statistics), .. }) = &device.kind {
            add(&device.name, statistics);
        }
    }
}

fn balloon_statistics(metrics: &Metrics, add: &mut Add<'_>) {
    of_statistics(metrics, |device, statistics| {
        let said = statistics.said();
        said.for_each(|(name, value)| add(&[("device", device), ("statistic", name)], Value::Count(value)));
    });
}

fn balloon_statistics_age(metrics: &Metrics, add: &mut Add<'_>) {
    of_statistics(metrics, |device, statistics| add(&[("device", device)], Value::Seconds(statistics.age)));
}

fn console_bytes(metrics: &Metrics, add: &mut Add<'_>) {
    add(&[("direction", "output")], Value::Count(metrics.console.output_bytes));
    add(&[("direction", "input")], Value::Count(metrics.console.input_bytes));
}

fn console_missed(metrics: &Metrics, add: &mut Add<'_>) {
    add(&[("reason", "too_slow")], Value::Count(metrics.console.dropped_bytes));
    add(&[("reason", "failed")], Value::Count(metrics.console.lost_bytes));
}
