//! Whether KVM is there, can do what is needed, and is fast.

use super::finding::Finding;
use super::root::Root;
use crate::arch::lacks_of_levels;
use crate::config::{CpuLevel, vcpus as so_many};
use crate::error::Result;
use crate::kvm::{CpuidEntry, Kvm};

/// As many as a VM can have.
const WANTED_VCPUS: u32 = 64;

/// Whether VMs can be made; with KVM, if it opened.
pub(super) fn access(kvm: &Result<Kvm>) -> Finding {
    match kvm {
        Ok(_) => Finding::fine("kvm", "/dev/kvm opens, and has all capabilities that are needed"),
        Err(error) => Finding::problem(
            "kvm",
            error.chain(),
            "make /dev/kvm available to this user for reading and writing: load kvm_intel or kvm_amd, enable virtualization in \
             the firmware or for the machine that this one is a guest of, and join the device's group",
        ),
    }
}

/// How many vCPUs a VM may have; `None` without KVM.
pub(super) fn vcpus(most: Option<u32>) -> Finding {
    match most {
        None => Finding::unknown("kvm-vcpus", "there is no KVM to ask"),
        Some(most) if most >= WANTED_VCPUS => Finding::fine("kvm-vcpus", format!("KVM allows {} a VM", so_many(most))),
        Some(most) => Finding::advice(
            "kvm-vcpus",
            format!("KVM allows {} a VM, of {WANTED_VCPUS} that a VM can have", so_many(most)),
            "VMs with more vCPUs need another kernel",
        ),
    }
}

/// Whether guests run by the CPU's own virtualization.
pub(super) fn virtualization(root: &Root) -> Finding {
    const NAME: &str = "virtualization";
    let software = |found: &str| {
        Finding::advice(
            NAME,
            found,
            "the kernels of guests run many times slower, and stock ones do not boot: use a host whose CPU has svm or vmx",
        )
    };
    if root.exists("/sys/module/kvm_pvm") {
        return software("KVM is a software one (kvm_pvm), which emulates the kernels of guests");
    }
    let cpuinfo = match root.start("/proc/cpuinfo") {
        Ok(cpuinfo) => cpuinfo,
        Err(why) => return Finding::unknown(NAME, why),
    };
    let Some(flags) = cpuinfo.lines().find(|line| line.starts_with("flags")) else {
        return Finding::unknown(NAME, "/proc/cpuinfo has no flags");
    };
    match ["svm", "vmx"].into_iter().find(|wanted| flags.split_whitespace().any(|flag| flag == *wanted)) {
        Some(flag) => Finding::fine(NAME, format!("the CPU has {flag}")),
        None => software("the CPU has neither svm nor vmx"),
    }
}

/// Whether the CPU itself translates the addresses of guests.
pub(super) fn nested_paging(root: &Root) -> Finding {
    const NAME: &str = "nested-paging";
    let asked = [("kvm_intel", "ept"), ("kvm_amd", "npt")].map(|(module, setting)| {
        (module, setting, root.text(&format!("/sys/module/{module}/parameters/{setting}")).unwrap_or_default())
    });
    match asked.iter().find(|(.., value)| !value.is_empty()) {
        None => Finding::unknown(NAME, "neither kvm_intel nor kvm_amd is loaded"),
        Some((_, setting, value)) if value == "Y" || value == "1" => {
            Finding::fine(NAME, format!("it is on ({setting})"))
        }
        Some((module, setting, value)) => Finding::advice(
            NAME,
            format!("it is off ({setting} is {value:?})"),
            format!("guests are slower without it: load {module} with {setting}=1, if the CPU has it"),
        ),
    }
}

/// Which levels of x86-64 the vCPUs of a VM can have; `None` without KVM.
pub(super) fn cpu_level(cpuid: Option<&Result<Vec<CpuidEntry>>>) -> Finding {
    const NAME: &str = "cpu-level";
    let supported = match cpuid {
        None => return Finding::unknown(NAME, "there is no KVM to ask"),
        Some(Err(error)) => return Finding::unknown(NAME, error.chain()),
        Some(Ok(supported)) => supported,
    };
    let (had, lacked): (Vec<_>, Vec<_>) =
        lacks_of_levels(supported).into_iter().partition(|(_, lacks)| lacks.is_empty());
    let had: Vec<_> = had.iter().map(|(level, _)| level.name()).collect();
    let lacked = lacked.first().map(|(level, lacks)| format!("; KVM lacks {} of {}", lacks.join(", "), level.name()));
    let lacked = lacked.unwrap_or_default();
    if had.is_empty() {
        let advice = format!("leave the CPU at its default, CpuLevel::{:?}", CpuLevel::Host);
        return Finding::advice(NAME, format!("guests can have no level above x86-64{lacked}"), advice);
    }
    Finding::fine(NAME, format!("guests can have {}{lacked}", had.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::finding::FindingLevel::{Advice, Fine, Problem, Unknown};
    use super::super::tree::{Tree, expect, nothing};
    use super::*;

    #[test]
    fn kvm_that_is_missing_is_a_problem_and_says_why() {
        let refused = Kvm::open_at(Path::new("/nonexistent/kvm"));
        expect(&access(&refused), Problem, "cannot open /nonexistent/kvm for reading and writing; is the kvm module");
        let other = Kvm::open_at(Path::new("/dev/null"));
        expect(&access(&other), Problem, "/dev/null is device 1:3, KVM is 10:232");
    }

    #[test]
    fn few_vcpus_are_told() {
        expect(&vcpus(Some(64)), Fine, "KVM allows 64 vCPUs a VM");
        expect(&vcpus(Some(63)), Advice, "KVM allows 63 vCPUs a VM, of 64");
        expect(&vcpus(Some(1)), Advice, "KVM allows 1 vCPU a VM, of 64");
        expect(&vcpus(None), Unknown, "no KVM");
    }

    #[test]
    fn levels_that_guests_can_have_are_told_and_what_the_next_one_lacks() {
        let entry =
            |function, [ebx, ecx]: [u32; 2]| CpuidEntry { function, index: 0, flags: 0, eax: 0, ebx, ecx, edx: 0 };
        let all = u32::MAX;
        let of = |features: u32| {
            let xsave = CpuidEntry { eax: 0b1110_0111, ..entry(0xd, [0, 0]) };
            Ok(vec![entry(1, [0, all]), entry(7, [features, 0]), entry(0x8000_0001, [0, all]), xsave])
        };
        expect(&cpu_level(Some(&of(all))), Fine, "guests can have x86-64-v2, x86-64-v3, x86-64-v4");
        let haswell = cpu_level(Some(&of(1 << 5 | 1 << 3 | 1 << 8)));
        expect(&haswell, Fine, "guests can have x86-64-v2, x86-64-v3; KVM lacks avx512f, avx512bw, avx512cd");
        expect(&cpu_level(Some(&of(0))), Fine, "guests can have x86-64-v2; KVM lacks avx2, bmi1, bmi2 of x86-64-v3");
        expect(&cpu_level(Some(&Ok(Vec::new()))), Advice, "no level above x86-64; KVM lacks cx16");
        expect(&cpu_level(None), Unknown, "no KVM");
        let refused = crate::error::Error::new(crate::error::ErrorKind::Kvm, "KVM did not tell");
        expect(&cpu_level(Some(&Err(refused))), Unknown, "KVM did not tell");
    }

    #[test]
    fn virtualization_is_the_cpu_s_or_software() {
        let amd = || Tree::new().with("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu svm sse\n");
        expect(&virtualization(amd().root()), Fine, "the CPU has svm");
        let loaded = amd().with("/sys/module/kvm_pvm/parameters/x", "");
        expect(&virtualization(loaded.root()), Advice, "kvm_pvm");
        let plain = Tree::new().with("/proc/cpuinfo", "flags\t\t: fpu svm_lock sse\n");
        expect(&virtualization(plain.root()), Advice, "neither svm nor vmx");
        expect(&virtualization(Tree::new().with("/proc/cpuinfo", "x").root()), Unknown, "has no flags");
        expect(&virtualization(nothing().root()), Unknown, "/proc/cpuinfo cannot be read");
    }

    #[test]
    fn a_long_list_of_cpus_is_read_as_far_as_the_flags_of_the_first() {
        let many = "flags\t: fpu vmx\n".repeat(100_000);
        expect(&virtualization(Tree::new().with("/proc/cpuinfo", &many).root()), Fine, "vmx");
    }

    #[test]
    fn paging_without_the_cpu_is_told() {
        let intel = |value| nested_paging(Tree::new().with("/sys/module/kvm_intel/parameters/ept", value).root());
        expect(&intel("Y\n"), Fine, "it is on (ept)");
        expect(&intel("N\n"), Advice, "it is off (ept is \"N\")");
        let amd = Tree::new().with("/sys/module/kvm_amd/parameters/npt", "1\n");
        expect(&nested_paging(amd.root()), Fine, "it is on (npt)");
        expect(&nested_paging(nothing().root()), Unknown, "neither kvm_intel nor kvm_amd");
    }
}
