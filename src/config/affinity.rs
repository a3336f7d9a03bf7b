//! On which of the host's CPUs the threads of a VM may run.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};

/// On which of the host's CPUs the threads of a VM may run: plain data for [`VmBuilder::affinity`](crate::VmBuilder::affinity).
///
/// CPUs are numbered as in `/proc/cpuinfo`, from 0 on. A thread of which nothing is said may run where the thread that makes the
/// VM may.
///
/// ```
/// use vmcell::Affinity;
///
/// let affinity = Affinity::new().vcpu(0, [2]).vcpu(1, [3]).io([0, 1]);
/// assert_eq!(affinity.vcpus[&0], [2]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, expecting = "an object such as { \"io\": [0] }")
)]
#[non_exhaustive]
pub struct Affinity {
    /// The CPUs of the thread that runs a vCPU, by the vCPU's index.
    #[cfg_attr(
        feature = "serde",
        serde(
            default,
            skip_serializing_if = "super::written::is_default",
            deserialize_with = "super::written::each_once"
        )
    )]
    pub vcpus: BTreeMap<u32, Vec<u32>>,
    /// The CPUs of the I/O threads that the VM makes for itself, and of what these start: helper threads of disks, and io_uring's
    /// workers. Empty if nothing is said.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub io: Vec<u32>,
}

impl Affinity {
    /// Says nothing of any thread.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the CPUs for the thread of one vCPU.
    #[must_use]
    pub fn vcpu(mut self, index: u32, cpus: impl Into<Vec<u32>>) -> Self {
        self.vcpus.insert(index, cpus.into());
        self
    }

    /// Sets the CPUs for the VM's own I/O threads.
    #[must_use]
    pub fn io(mut self, cpus: impl Into<Vec<u32>>) -> Self {
        self.io = cpus.into();
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.vcpus.is_empty() && self.io.is_empty()
    }

    /// Checks it for a VM of so many vCPUs, on a host that allows these CPUs.
    pub(crate) fn check(&self, vcpus: u32, allowed: &[u32]) -> Result<()> {
        self.check_vcpus(vcpus)?;
        for (index, cpus) in &self.vcpus {
            check_cpus(cpus, allowed, &format!("vCPU {index}"))?;
        }
        check_cpus(&self.io, allowed, "the I/O threads")
    }

    /// Checks it for a VM of so many vCPUs, as far as that can be done without a look at the host.
    pub(crate) fn check_vcpus(&self, vcpus: u32) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        let last = vcpus.saturating_sub(1);
        for (index, cpus) in &self.vcpus {
            if *index > last {
                let allowed = if last == 0 { "is vCPU 0".to_owned() } else { format!("are the vCPUs 0 to {last}") };
                return refused(format!("CPUs were given for vCPU {index}, allowed {allowed} of this VM"));
            }
            if cpus.is_empty() {
                return refused(format!("no CPU was given for vCPU {index}, one or more are needed"));
            }
        }
        Ok(())
    }
}

fn check_cpus(cpus: &[u32], allowed: &[u32], whose: &str) -> Result<()> {
    let Some(refused) = cpus.iter().find(|cpu| !allowed.contains(cpu)) else { return Ok(()) };
    let message =
        format!("CPU {refused} was asked for {whose}, allowed by the host are {} for this process", cpu_list(allowed));
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

/// As the kernel writes lists of CPUs: `0-3,7`, if they are sorted.
pub(crate) fn cpu_list(cpus: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*cpu) => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let text = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_does_not_allow_is_refused_with_what_it_does() {
        let allowed = [0, 1, 2, 3, 7];
        let refused = |affinity: Affinity| affinity.check(2, &allowed).unwrap_err().to_string();
        assert!(Affinity::new().vcpu(0, [0, 7]).vcpu(1, [2]).io([3]).check(2, &allowed).is_ok());
        assert!(Affinity::new().check(2, &[]).is_ok());
        assert_eq!(
            refused(Affinity::new().vcpu(1, [0, 4])),
            "CPU 4 was asked for vCPU 1, allowed by the host are 0-3,7 for this process"
        );
        assert_eq!(
            refused(Affinity::new().io([u32::MAX])),
            "CPU 4294967295 was asked for the I/O threads, allowed by the host are 0-3,7 for this process"
        );
        assert_eq!(
            refused(Affinity::new().vcpu(2, [0])),
            "CPUs were given for vCPU 2, allowed are the vCPUs 0 to 1 of this VM"
        );
    }

    #[test]
    fn without_a_look_at_the_host_missing_cpus_and_vcpus_are_refused() {
        let refused = |affinity: Affinity| affinity.check_vcpus(1).unwrap_err().to_string();
        assert_eq!(refused(Affinity::new().vcpu(0, [])), "no CPU was given for vCPU 0, one or more are needed");
        let beyond = "CPUs were given for vCPU 1, allowed is vCPU 0 of this VM";
        assert_eq!(refused(Affinity::new().vcpu(1, [0])), beyond);
    }
}
