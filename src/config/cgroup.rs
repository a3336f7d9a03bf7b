//! What share of the host's CPUs the threads of a VM have.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The longest name of a cgroup: as long as that of a VM.
const MAX_NAME: usize = 64;
/// What Linux takes (`kernel/sched/core.c`), in microseconds.
const MIN_QUOTA: u32 = 1000;
const PERIODS: std::ops::RangeInclusive<u32> = 1000..=1_000_000;
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=10_000;

/// A cgroup of its own for the threads of a VM, as plain data for [`VmBuilder::cgroup`](crate::VmBuilder::cgroup).
///
/// ```
/// use vmcell::{CgroupConfig, CpuShare};
///
/// let cgroup = CgroupConfig::new("/sys/fs/cgroup/vms").name("web-1").cpu(CpuShare::fraction(1, 16)).weight(50);
/// assert_eq!(cgroup.cpu.unwrap().quota_us, 6250);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, expecting = "an object such as { \"folder\": \"/sys/fs/cgroup/vms\" }")
)]
#[non_exhaustive]
pub struct CgroupConfig {
    /// The folder of the cgroup of version 2 in which the process is. That of the VM is made in it.
    pub folder: PathBuf,
    /// The name of the VM's: 1 to 64 letters, digits, `-`, `_` and `.`, and no `.` at the beginning. The default is the VM's name.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub name: Option<String>,
    /// For how long the threads may run at most (`cpu.max`, `cpu.max.burst`). The default is no limit.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub cpu: Option<CpuShare>,
    /// How much the threads get beside those of other cgroups in the same folder if there is too little for all (`cpu.weight`), 1 to 10000.
    /// The kernel's default is 100.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub weight: Option<u32>,
}

impl CgroupConfig {
    /// One in this folder, without limits.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), ..Self::default() }
    }

    /// Sets its name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets for how long the threads may run at most.
    #[must_use]
    pub fn cpu(mut self, share: CpuShare) -> Self {
        self.cpu = Some(share);
        self
    }

    /// Sets how much the threads get beside those of others.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// The name of the cgroup, of a VM that is called so.
    pub(crate) fn name_for<'a>(&'a self, vm: &'a str) -> &'a str {
        self.name.as_deref().unwrap_or(vm)
    }

    pub(crate) fn validate(&self, vm: &str) -> Result<()> {
        let refused = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        if self.folder.as_os_str().is_empty() {
            return refused("no folder was given, needed is that of the cgroup in which the process is".to_owned());
        }
        let name = self.name_for(vm);
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=MAX_NAME).contains(&name.len()) || name.starts_with('.') || !name.bytes().all(is_allowed) {
            let whose = if self.name.is_some() { "the name" } else { "the VM's name" };
            let message = format!(
                "{whose} {name:?} was asked for, allowed are 1 to {MAX_NAME} letters, digits, -, _ and ., and no . at the beginning"
            );
            return refused(message);
        }
        match self.weight.filter(|weight| !WEIGHTS.contains(weight)) {
            Some(weight) => refused(format!("the weight {weight} was asked for, allowed are 1 to 10000")),
            None => self.cpu.map_or(Ok(()), |share| share.validate()),
        }
    }
}

/// For how long threads may run on all CPUs together, as plain data: a quota of CPU time in each period.
///
/// Threads that have used it up stand still until the next period begins. What they leave unused can be kept for later ones, up to `burst_us`,
/// which Linux limits to one quota: a longer period allows for a longer burst.
///
/// ```
/// use std::time::Duration;
/// use vmcell::CpuShare;
///
/// let sixteenth = CpuShare::fraction(1, 16); // 6.25 ms of every 100 ms
/// assert_eq!((sixteenth.quota_us, sixteenth.period_us), (6_250, 100_000));
/// // On average as much, and up to 125 ms at once after a time in which less was used.
/// let with_balance = sixteenth.period(Duration::from_secs(1)).burst(Duration::from_micros(62_500));
/// assert_eq!((with_balance.quota_us, with_balance.period_us, with_balance.burst_us), (62_500, 1_000_000, 62_500));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, expecting = "an object such as { \"quota_us\": 6250, \"period_us\": 100000 }")
)]
#[non_exhaustive]
pub struct CpuShare {
    /// How many microseconds of CPU time in each period, 1000 or more; more than the period is more than one CPU.
    pub quota_us: u32,
    /// How many microseconds a period lasts, 1000 to 1000000.
    pub period_us: u32,
    /// How many microseconds that were not used are kept at most, 0 to `quota_us`. More than 0 takes Linux 5.14.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub burst_us: u32,
}

impl CpuShare {
    /// `numerator / denominator` of one CPU, in periods of 100 ms, or of 1 s if that is less than a hundredth. Without a burst. A
    /// thousandth is the least; less, and a denominator of 0, are refused when the VM is built.
    pub fn fraction(numerator: u32, denominator: u32) -> Self {
        let of = |period_us: u32| Self { quota_us: part(period_us, numerator, denominator), period_us, burst_us: 0 };
        let usual = of(100_000);
        if usual.quota_us < MIN_QUOTA { of(1_000_000) } else { usual }
    }

    /// So many whole CPUs, in periods of 100 ms. Without a burst.
    pub fn cpus(count: u32) -> Self {
        Self::fraction(count, 1)
    }

    /// Sets how long a period lasts, 1 ms to 1 s, and changes quota and burst in proportion. What is below a microsecond is left out.
    #[must_use]
    pub fn period(self, period: Duration) -> Self {
        let period_us = micros(period);
        let scaled = |us: u32| part(us, period_us, self.period_us);
        Self { quota_us: scaled(self.quota_us), period_us, burst_us: scaled(self.burst_us) }
    }

    /// Sets how much time that was not used is kept at most: no more than the quota.
    #[must_use]
    pub fn burst(mut self, burst: Duration) -> Self {
        self.burst_us = micros(burst);
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let Self { quota_us, period_us, burst_us } = *self;
        if quota_us >= MIN_QUOTA && PERIODS.contains(&period_us) && burst_us <= quota_us {
            return Ok(());
        }
        let message = format!(
            "a CPU share of {quota_us} us in each {period_us} us with a burst of {burst_us} us was asked for, allowed are a quota of \
             1000 us or more, a period of 1000 to 1000000 us, and a burst of at most the quota"
        );
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}

/// `whole * numerator / denominator`, or 0, which is refused, if there is no such number.
fn part(whole: u32, numerator: u32, denominator: u32) -> u32 {
    let product = u64::from(whole).saturating_mul(numerator.into());
    product.checked_div(denominator.into()).and_then(|part| part.try_into().ok()).unwrap_or(0)
}

/// More than fits is more than is allowed.
fn micros(duration: Duration) -> u32 {
    duration.as_micros().try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(cgroup: &CgroupConfig, vm: &str) -> String {
        let error = cgroup.validate(vm).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.to_string()
    }

    #[test]
    fn a_cgroup_is_called_as_the_vm_is_unless_it_has_a_name() {
        let cgroup = CgroupConfig::new("/c");
        cgroup.validate("web-1").unwrap();
        assert_eq!((cgroup.name_for("web-1"), cgroup.clone().name("a").name_for("web-1")), ("web-1", "a"));
        let told = "the VM's name \"\" was asked for, allowed are 1 to 64 letters, digits, -, _ and ., and no . at the beginning";
        assert_eq!(refused(&cgroup, ""), told);
        for name in ["a/b", ".", "..", ".hidden", "a b", "ä", &"x".repeat(65)] {
            assert!(refused(&cgroup.clone().name(name), "web-1").starts_with(&format!("the name {name:?} was")));
        }
        assert!(refused(&CgroupConfig::new("").name("a"), "").starts_with("no folder was given"));
    }

    #[test]
    fn what_linux_refuses_is_refused_before() {
        let of = |quota_us, period_us, burst_us| CpuShare { quota_us, period_us, burst_us };
        for allowed in [of(1000, 1000, 0), of(1000, 1_000_000, 1000), of(u32::MAX, 1000, u32::MAX)] {
            allowed.validate().unwrap();
        }
        for share in [of(999, 1000, 0), of(1000, 999, 0), of(1000, 1_000_001, 0), of(1000, 1000, 1001)] {
            let told = refused(&CgroupConfig::new("/c").cpu(share), "a");
            assert!(told.contains(&format!("of {} us in each {} us with", share.quota_us, share.period_us)), "{told}");
        }
        for weight in [0, 10_001] {
            let told = refused(&CgroupConfig::new("/c").weight(weight), "a");
            assert_eq!(told, format!("the weight {weight} was asked for, allowed are 1 to 10000"));
        }
        CgroupConfig::new("/c").weight(10_000).validate("a").unwrap();
    }

    #[test]
    fn a_fraction_has_a_period_in_which_linux_takes_its_quota() {
        let numbers = |share: CpuShare| (share.quota_us, share.period_us, share.burst_us);
        assert_eq!(numbers(CpuShare::cpus(3)), (300_000, 100_000, 0));
        assert_eq!(numbers(CpuShare::fraction(1, 100)), (1000, 100_000, 0));
        assert_eq!(numbers(CpuShare::fraction(1, 101)), (9900, 1_000_000, 0));
        assert_eq!(numbers(CpuShare::fraction(1, 1000)), (1000, 1_000_000, 0));
        for none in [CpuShare::fraction(1, 1001), CpuShare::fraction(1, 0), CpuShare::fraction(u32::MAX, 1)] {
            none.validate().unwrap_err();
        }
        let longer = CpuShare::fraction(1, 4).burst(Duration::from_millis(10)).period(Duration::from_millis(200));
        assert_eq!(numbers(longer), (50_000, 200_000, 20_000));
        CpuShare::cpus(1).period(Duration::MAX).validate().unwrap_err();
        CpuShare::cpus(1).burst(Duration::MAX).validate().unwrap_err();
    }
}
