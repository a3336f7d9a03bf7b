//! The number of vCPUs, and what their CPUs can do.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// More would need x2APIC identifiers and a larger topology than we describe to the guest.
const MAX_VCPUS: u32 = 64;

pub(crate) fn check_vcpus(vcpus: u32) -> Result<()> {
    if (1..=MAX_VCPUS).contains(&vcpus) {
        return Ok(());
    }
    let message = format!("{vcpus} vCPUs were asked for, allowed are 1 to {MAX_VCPUS}");
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

/// So many vCPUs, for a message.
pub(crate) fn vcpus(count: impl fmt::Display) -> String {
    let count = count.to_string();
    if count == "1" { "1 vCPU".to_owned() } else { format!("{count} vCPUs") }
}

/// Which instructions a guest finds, by the levels of the x86-64 psABI (section 3.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum CpuLevel {
    /// All that the host and KVM can give.
    #[default]
    Host,
    /// x86-64-v2: up to SSE4.2, as of 2009.
    V2,
    /// x86-64-v3: AVX2, BMI and FMA, as of 2013.
    V3,
    /// x86-64-v4: AVX-512.
    V4,
}

/// What the guest's CPUs can do. With [`CpuLevel::Host`], the default, that differs from host to host; with a level, the
/// instructions are the same on every host of that level, so that software which chose its code by them finds them
/// after a move.
///
/// With a level the guest sees the features of that level, those that every 64-bit CPU has, and KVM's own. Three things stay
/// the host's: the vendor, model and caches; the means against flaws of the CPU, and protections of the
/// kernel (SMEP, SMAP, UMIP), since a guest that did not know of them would be less safe; and the version of KVM. Performance
/// counters are hidden.
///
/// To hide is not to forbid: a guest that does not ask CPUID finds that most instructions of the host's CPU work all the same, and
/// the first four performance counters of an AMD CPU, for which CPUID has no bit. A level is for software that moves, and protects
/// nobody.
///
/// ```
/// use vmcell::{CpuConfig, CpuLevel};
///
/// let cpu = CpuConfig::level(CpuLevel::V3).with("aes").with("rdrand");
/// assert_ne!(cpu, CpuConfig::default());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default, expecting = "an object such as { \"level\": \"v2\" }")
)]
#[non_exhaustive]
pub struct CpuConfig {
    /// The level; [`CpuLevel::Host`] by default.
    pub level: CpuLevel,
    /// What is wanted beyond the level; see [`with`](Self::with). Nothing by default.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub with: Vec<String>,
}

impl CpuLevel {
    /// What the psABI calls it, except for the host's.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "all features of the host",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        }
    }
}

/// What may be asked for beside a level. [`CpuConfig::with`] lists them.
pub(crate) const CPU_FEATURES: [&str; 16] = [
    "adx",
    "aes",
    "erms",
    "fsgsbase",
    "fsrm",
    "gfni",
    "invpcid",
    "pcid",
    "pclmulqdq",
    "pdpe1gb",
    "rdrand",
    "rdseed",
    "rdtscp",
    "sha_ni",
    "vaes",
    "vpclmulqdq",
];

/// Those of [`CPU_FEATURES`] whose instructions have no form without AVX.
pub(crate) const CPU_FEATURES_ON_AVX: [&str; 2] = ["vaes", "vpclmulqdq"];

impl CpuConfig {
    /// The features of a level.
    pub fn level(level: CpuLevel) -> Self {
        Self { level, with: Vec::new() }
    }

    /// Adds a feature that is beyond the level, by its name in Linux's `/proc/cpuinfo`: `adx`, `aes`, `erms`, `fsgsbase`, `fsrm`,
    /// `gfni`, `invpcid`, `pcid`, `pclmulqdq`, `pdpe1gb`, `rdrand`, `rdseed`, `rdtscp`, `sha_ni`, `vaes` or `vpclmulqdq`.
    /// Other names are refused, and when the VM is built also what the host does not have. The last two need AVX, which
    /// [`CpuLevel::V2`] has not. To ask for one twice is to ask for it once.
    #[must_use]
    pub fn with(mut self, feature: impl Into<String>) -> Self {
        self.with.push(feature.into());
        self
    }

    /// Refuses names that are not known, and what does not go with the level.
    pub(crate) fn validate(&self) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        for name in &self.with {
            if !CPU_FEATURES.contains(&name.as_str()) {
                let allowed = CPU_FEATURES.join(", ");
                return refused(format!("the CPU feature {name:?} was asked for, allowed are {allowed}"));
            }
            if CPU_FEATURES_ON_AVX.contains(&name.as_str()) && self.level == CpuLevel::V2 {
                return refused(format!(
                    "the CPU feature {name:?} was asked for, which works on the registers of AVX; x86-64-v2 has none, \
                     x86-64-v3 and x86-64-v4 do"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_to_sixty_four_are_allowed() {
        assert!(check_vcpus(1).is_ok());
        assert!(check_vcpus(64).is_ok());
        assert_eq!(check_vcpus(0).unwrap_err().to_string(), "0 vCPUs were asked for, allowed are 1 to 64");
        assert_eq!(check_vcpus(65).unwrap_err().to_string(), "65 vCPUs were asked for, allowed are 1 to 64");
    }
}
