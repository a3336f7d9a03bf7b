//! The kind of KVM that this host has, and what can therefore run where.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::path::Path;

/// The kind of KVM behind /dev/kvm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kvm {
    /// The CPU's own virtualization: boots Linux.
    Hardware(&'static str),
    /// Guest ring 0 is emulated: fit for small guests, far too slow for Linux.
    Software { pvm: bool },
    /// There is none, for this reason.
    None(String),
}

impl Kvm {
    /// Detects it.
    pub fn detect() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        let opened = opened.map(drop).map_err(|error| format!("/dev/kvm: {error}"));
        classify(&cpuinfo, opened, Path::new("/sys/module/kvm_pvm").exists())
    }

    /// Can Linux boot directly on this host?
    pub fn boots_linux(&self) -> bool {
        matches!(self, Self::Hardware(_))
    }

    /// Can a guest of a few instructions run directly on this host?
    pub fn runs_tiny_guests(&self) -> bool {
        !matches!(self, Self::None(_))
    }
}

impl fmt::Display for Kvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hardware(flag) => write!(f, "hardware KVM (/dev/kvm opens, the CPU has {flag})"),
            Self::Software { pvm: true } => {
                f.write_str("software KVM (/dev/kvm opens, the CPU has neither svm nor vmx, kvm_pvm is loaded)")
            }
            Self::Software { pvm: false } => {
                f.write_str("software KVM (/dev/kvm opens, the CPU has neither svm nor vmx)")
            }
            Self::None(why) => write!(f, "no KVM ({why})"),
        }
    }
}

fn classify(cpuinfo: &str, opened: Result<(), String>, pvm: bool) -> Kvm {
    if let Err(why) = opened {
        return Kvm::None(why);
    }
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    match ["svm", "vmx"].into_iter().find(|flag| flags.split_whitespace().any(|word| word == *flag)) {
        // kvm_pvm does not use the CPU's virtualization, even if the CPU has it.
        Some(flag) if !pvm => Kvm::Hardware(flag),
        _ => Kvm::Software { pvm },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMD: &str = "processor\t: 0\nflags\t\t: fpu svm sse\n";
    const PLAIN: &str = "processor\t: 0\nflags\t\t: fpu svm_lock sse\n";

    #[test]
    fn a_cpu_with_svm_and_an_open_device_is_hardware() {
        assert_eq!(classify(AMD, Ok(()), false), Kvm::Hardware("svm"));
    }

    #[test]
    fn an_open_device_without_the_flag_is_software() {
        assert_eq!(classify(PLAIN, Ok(()), true), Kvm::Software { pvm: true });
        assert_eq!(classify(PLAIN, Ok(()), false), Kvm::Software { pvm: false });
    }

    #[test]
    fn a_device_that_does_not_open_is_none_and_says_why() {
        let kvm = classify(AMD, Err("/dev/kvm: Permission denied".into()), false);
        assert!(!kvm.runs_tiny_guests());
        assert!(kvm.to_string().contains("Permission denied"));
    }
}
