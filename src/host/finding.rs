//! What was found on a host, as data.

use std::fmt;

/// What a finding means for VMs on this host. A later one weighs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum FindingLevel {
    /// It is as it should be.
    Fine,
    /// The host does not tell.
    Unknown,
    /// VMs run, and could run faster, or in greater numbers.
    Advice,
    /// VMs run, but what one of them has may reach another one, or other parts of the host.
    Risk,
    /// No VM can start.
    Problem,
}

impl fmt::Display for FindingLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fine => "fine",
            Self::Unknown => "unknown",
            Self::Advice => "advice",
            Self::Risk => "risk",
            Self::Problem => "problem",
        })
    }
}

/// One thing that [`HostCheck`](crate::HostCheck) looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at, such as `kvm` or `open-files`. [`HostCheck`](crate::HostCheck) lists the names, which stay as they are.
    pub name: String,
    /// What it means.
    pub level: FindingLevel,
    /// What was found, for a person to read.
    pub found: String,
    /// What to do about it, unless there is nothing to do.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn fine(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), level: FindingLevel::Fine, found: found.into(), advice: None }
    }

    /// The host does not tell, for this reason.
    pub(super) fn unknown(name: &str, why: impl Into<String>) -> Self {
        Self { level: FindingLevel::Unknown, ..Self::fine(name, why) }
    }

    pub(super) fn advice(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: FindingLevel::Advice, advice: Some(advice.into()), ..Self::fine(name, found) }
    }

    pub(super) fn risk(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: FindingLevel::Risk, ..Self::advice(name, found, advice) }
    }

    pub(super) fn problem(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: FindingLevel::Problem, ..Self::advice(name, found, advice) }
    }
}

/// As `LEVEL NAME: FOUND`, with what to do behind it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.level, self.name, self.found)?;
        self.advice.as_ref().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}
