//! All that is looked at, in the order in which a person wants to read it.

use std::fmt;

use super::cpu::CoreScheduling;
use super::finding::{Finding, FindingLevel};
use super::root::Root;
use super::{confinement, cpu, kvm, limits, memory, neighbours, vulnerabilities};
use crate::error::Result;
use crate::kvm::{CpuidEntry, Kvm};
use crate::sys::{Uring, file_limit, landlock_version, merges_memory};

/// What a host offers for the isolation and the speed of VMs. It is plain data, to look at, to keep and to compare.
///
/// | Name | What is looked at |
/// |---|---|
/// | `kvm` | whether `/dev/kvm` opens, and can do what is needed |
/// | `kvm-vcpus` | how many vCPUs KVM allows a VM |
/// | `virtualization` | whether guests run by the CPU's own virtualization |
/// | `nested-paging` | whether the CPU translates addresses of guests (`ept`, `npt`) |
/// | `cpu-level` | which of the levels x86-64-v2, v3 and v4 guests can have ([`CpuLevel`](crate::CpuLevel)) |
/// | `smt` | whether hyperthreads share cores |
/// | `core-scheduling` | whether tenants can be kept from sharing one |
/// | `vulnerabilities` | how many known flaws of CPUs are mitigated, or do not affect this one |
/// | `vulnerability-NAME` | each that is not, by its name in `/sys/devices/system/cpu/vulnerabilities` |
/// | `mitigations` | whether the kernel was told to leave guests unguarded |
/// | `nx-huge-pages` | whether KVM splits huge pages, and should |
/// | `ksm` | whether the kernel merges pages |
/// | `swap` | whether memory of guests may be written to a disk |
/// | `transparent-huge-pages` | whether guests can have them |
/// | `io-uring` | whether this process may use it |
/// | `open-files`, `mappings` | for how many VMs the limits are enough |
/// | `ptrace` | whether any program of the same user can read this process |
/// | `cgroup` | which version of cgroups the host has |
/// | `seccomp` | whether system calls can be filtered |
/// | `user-namespaces`, `landlock` | what there is for a [`Jail`](crate::Jail) |
///
/// ```
/// use vmcell::{FindingLevel, HostCheck};
///
/// let check = HostCheck::run();
/// if check.level() == FindingLevel::Problem {
///     eprintln!("no VM can start here:\n{check}");
/// }
/// for finding in check.findings.iter().filter(|finding| finding.level == FindingLevel::Risk) {
///     eprintln!("{finding}");
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct HostCheck {
    /// What was found. A later version may look at more.
    pub findings: Vec<Finding>,
}

impl HostCheck {
    /// Looks at the host that this runs on, as this process and its user see it. What the host does not tell is
    /// [`Unknown`](FindingLevel::Unknown), so this cannot fail. It opens `/dev/kvm`, makes an io_uring, closes both, and changes
    /// nothing. Takes some milliseconds, and waits for nothing but the kernel.
    pub fn run() -> Self {
        let kvm = Kvm::open();
        let asked = Asked {
            vcpus: kvm.as_ref().ok().map(Kvm::max_vcpus),
            cpuid: kvm.as_ref().ok().map(Kvm::supported_cpuid),
            kvm,
            scheduling: CoreScheduling::of_this_host(),
            merges_memory: merges_memory(),
            uring: Uring::new(1).map(drop),
            file_limit: file_limit(),
            landlock: landlock_version(),
        };
        Self { findings: look(&Root::new("/"), &asked) }
    }

    /// The level of what weighs most: [`Problem`](FindingLevel::Problem) if no VM can start.
    pub fn level(&self) -> FindingLevel {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(FindingLevel::Fine)
    }

    /// The finding of this name.
    pub fn find(&self, name: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.name == name)
    }

    /// Writes it as a JSON object: `{"findings":[{"name":"kvm","level":"fine","found":"..."}, ...]}`, with a member `advice` where
    /// there is something to do. Needs the feature `serde`.
    #[cfg(feature = "serde")]
    pub fn to_json(&self) -> String {
        // Texts and words alone, which JSON can always hold.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A table for a terminal: a line for each finding, and one below it for what to do.
impl fmt::Display for HostCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or_default();
        self.findings.iter().enumerate().try_for_each(|(index, Finding { name, level, found, advice })| {
            let line_feed = if index > 0 { "\n" } else { "" };
            write!(f, "{line_feed}{level:<7}  {name:<width$}  {found}")?;
            advice.as_ref().map_or(Ok(()), |advice| write!(f, "\n{:<9}{:<width$}  -> {advice}", "", ""))
        })
    }
}

/// What the kernel was asked for, as far as that is not in files.
struct Asked {
    kvm: Result<Kvm>,
    /// `None` without KVM.
    vcpus: Option<u32>,
    /// What CPUID can tell guests; `None` without KVM.
    cpuid: Option<Result<Vec<CpuidEntry>>>,
    scheduling: CoreScheduling,
    merges_memory: Option<bool>,
    uring: std::io::Result<()>,
    file_limit: u32,
    landlock: std::io::Result<i64>,
}

fn look(root: &Root, asked: &Asked) -> Vec<Finding> {
    let mut findings = vec![
        kvm::access(&asked.kvm),
        kvm::vcpus(asked.vcpus),
        kvm::virtualization(root),
        kvm::nested_paging(root),
        kvm::cpu_level(asked.cpuid.as_ref()),
        cpu::smt(root, &asked.scheduling),
        cpu::core_scheduling(&asked.scheduling),
    ];
    findings.extend(vulnerabilities::flaws(root));
    findings.extend([
        vulnerabilities::mitigations(root),
        vulnerabilities::nx_huge_pages(root),
        memory::ksm(root, asked.merges_memory),
        memory::swap(root),
        memory::huge_pages(root),
        limits::io_uring(root, &asked.uring),
        limits::open_files(root, asked.file_limit),
        limits::mappings(root),
        neighbours::ptrace(root),
        neighbours::cgroup(root),
        confinement::seccomp(root),
        confinement::user_namespaces(root),
        confinement::landlock(&asked.landlock),
    ]);
    findings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tree::nothing;
    use super::*;

    /// The names in the table of the documentation.
    fn documented() -> Vec<&'static str> {
        let rows = include_str!("check.rs").lines().filter_map(|line| line.strip_prefix("/// | `"));
        rows.flat_map(|row| row.split(" |").next().unwrap_or_default().split(", "))
            .map(|name| name.trim_matches('`'))
            .collect()
    }

    #[test]
    fn a_host_that_tells_nothing_has_a_finding_of_each_name_and_is_a_problem_without_kvm() {
        let unsupported = || std::io::Error::from_raw_os_error(libc::ENOSYS);
        let asked = Asked {
            kvm: Kvm::open_at(Path::new("/nonexistent/kvm")),
            vcpus: None,
            cpuid: None,
            scheduling: CoreScheduling::Unknown(unsupported()),
            merges_memory: None,
            uring: Err(unsupported()),
            file_limit: 1024,
            landlock: Err(unsupported()),
        };
        let check = HostCheck { findings: look(nothing().root(), &asked) };
        let names: Vec<&str> = check.findings.iter().map(|finding| finding.name.as_str()).collect();
        let expected: Vec<&str> = documented().into_iter().filter(|name| *name != "vulnerability-NAME").collect();
        assert_eq!(names, expected);
        let known: Vec<&Finding> =
            check.findings.iter().filter(|finding| finding.level != FindingLevel::Unknown).collect();
        let known: Vec<_> = known.iter().map(|finding| (finding.name.as_str(), finding.level)).collect();
        assert_eq!(
            known,
            [("kvm", FindingLevel::Problem), ("io-uring", FindingLevel::Advice), ("landlock", FindingLevel::Advice)]
        );
        assert_eq!(check.level(), FindingLevel::Problem);
    }

    #[test]
    fn the_host_of_the_tests_is_looked_at_by_every_name() {
        let check = HostCheck::run();
        for name in documented().into_iter().filter(|name| *name != "vulnerability-NAME") {
            assert!(check.find(name).is_some_and(|finding| !finding.found.is_empty()), "{name} in:\n{check}");
        }
        assert_eq!(check.find("kvm").unwrap().level == FindingLevel::Fine, Kvm::open().is_ok());
        assert_eq!(check.find("io-uring").unwrap().level == FindingLevel::Fine, crate::testing::has_uring());
    }

    #[test]
    fn a_table_has_a_line_for_each_finding_and_one_for_what_to_do() {
        let findings = vec![
            Finding::fine("kvm", "/dev/kvm opens"),
            Finding::risk("swap", "it is on", "turn it off"),
            Finding::unknown("nx-huge-pages", "gone"),
        ];
        let check = HostCheck { findings };
        let table = "fine     kvm            /dev/kvm opens\n\
                     risk     swap           it is on\n\
                     \u{20}                       -> turn it off\n\
                     unknown  nx-huge-pages  gone";
        assert_eq!(check.to_string(), table);
        assert_eq!(check.findings[1].to_string(), "risk swap: it is on; turn it off");
        assert_eq!(check.level(), FindingLevel::Risk);
        assert_eq!(HostCheck::default().level(), FindingLevel::Fine);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_check_goes_to_json_and_back() {
        let check = HostCheck { findings: vec![Finding::fine("a", "b\n"), Finding::problem("c", "d", "e")] };
        let json = r#"{"findings":[{"name":"a","level":"fine","found":"b\n"},{"name":"c","level":"problem","found":"d","advice":"e"}]}"#;
        assert_eq!(check.to_json(), json);
        assert_eq!(serde_json::from_str::<HostCheck>(json).unwrap(), check);
    }
}
