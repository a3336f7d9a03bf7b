//! The snapshots of several VMs as one OpenMetrics text (OpenMetrics 1.0, "text format").

use std::collections::{HashMap, HashSet};

use super::data::Metrics;
use super::families::{FAMILIES, Family, Kind, Samples, Value};
use crate::event::IoThreadMetrics;

impl Metrics {
    /// Writes them as OpenMetrics text, for Prometheus for instance: `application/openmetrics-text; version=1.0.0`.
    /// [`openmetrics`](crate::openmetrics) does so for several VMs.
    ///
    /// ```
    /// let text = vmcell::Metrics::default().to_openmetrics();
    /// assert!(text.ends_with("# EOF\n"));
    /// ```
    pub fn to_openmetrics(&self) -> String {
        openmetrics(std::slice::from_ref(self))
    }
}

/// Writes the metrics of several VMs as one OpenMetrics text, in which each family of metrics stands once.
///
/// The label `vm` is a VM's name. Of VMs with the same name, the second, third and so on in the slice also have a label `same_name`
/// with a number from 2 on, so that no series stands twice; give VMs names that differ if you want to tell them apart later. An
/// [`IoThread`](crate::IoThread) of yours that serves several VMs stands once, and without `vm`.
///
/// ```
/// let text = vmcell::openmetrics(&[]);
/// assert_eq!(text, "# EOF\n");
/// ```
pub fn openmetrics(vms: &[Metrics]) -> String {
    let mut text = String::new();
    let owners = owners(vms);
    for family in FAMILIES {
        let samples = samples(family, vms, &owners);
        if !samples.is_empty() {
            describe(&mut text, family);
            text += &samples;
        }
    }
    text + "# EOF\n"
}

/// The labels by which each VM is told from the others.
fn owners<'a>(vms: &'a [Metrics]) -> Vec<Vec<(&'static str, String)>> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let owner = |metrics: &'a Metrics| {
        let vm = &metrics.vm;
        let count = seen.entry(vm.as_str()).or_default();
        *count = count.saturating_add(1);
        let mut labels = vec![("vm", vm.clone())];
        if *count > 1 {
            labels.push(("same_name", count.to_string()));
        }
        labels
    };
    vms.iter().map(owner).collect()
}

fn describe(text: &mut String, family: &Family) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Info => "info",
    };
    let name = family.name;
    *text += &format!("# TYPE {name} {kind}\n");
    if !family.unit.is_empty() {
        *text += &format!("# UNIT {name} {}\n", family.unit);
    }
    *text += &format!("# HELP {name} {}\n", family.help);
}

fn samples(family: &Family, vms: &[Metrics], owners: &[Vec<(&'static str, String)>]) -> String {
    let mut text = String::new();
    match family.samples {
        Samples::Vm(add) => {
            for (metrics, owner) in vms.iter().zip(owners) {
                let owner = owner.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>();
                add(metrics, &mut |labels, value| sample(&mut text, family, &[&owner, labels].concat(), value));
            }
        }
        Samples::Thread(value) => {
            for (thread, labels) in threads(vms, owners) {
                if let Some(value) = value(thread) {
                    sample(&mut text, family, &labels, value);
                }
            }
        }
    }
    text
}

/// Each thread once, with its labels.
fn threads<'a>(
    vms: &'a [Metrics],
    owners: &'a [Vec<(&'static str, String)>],
) -> Vec<(&'a IoThreadMetrics, Vec<(&'static str, &'a str)>)> {
    let (mut seen, mut threads) = (HashSet::new(), Vec::new());
    for (metrics, owner) in vms.iter().zip(owners) {
        for thread in &metrics.io_threads {
            let mut labels = Vec::new();
            if thread.is_own {
                labels.extend(owner.iter().map(|(name, value)| (*name, value.as_str())));
            } else if !seen.insert(thread.tid) {
                continue;
            }
            labels.push(("thread", &thread.name));
            threads.push((thread, labels));
        }
    }
    threads
}

fn sample(text: &mut String, family: &Family, labels: &[(&str, &str)], value: Value) {
    *text += family.name;
    *text += match family.kind {
        Kind::Counter => "_total",
        Kind::Gauge => "",
        Kind::Info => "_info",
    };
    for (index, (name, value)) in labels.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        *text += &format!("{name}=\"{}\"", escaped(value));
    }
    *text += if labels.is_empty() { " " } else { "} " };
    *text += &match value {
        Value::Count(count) => count.to_string(),
        Value::Seconds(time) => format!("{}.{:09}", time.as_secs(), time.subsec_nanos()),
    };
    text.push('\n');
}

/// As the text format says for the value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
#[path = "openmetrics_test.rs"]
mod tests;
