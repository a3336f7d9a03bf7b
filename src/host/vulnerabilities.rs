//! Whether the kernel guards against the known flaws of the host's CPU.

use super::finding::Finding;
use super::root::Root;

const VULNERABILITIES: &str = "/sys/devices/system/cpu/vulnerabilities";
const CMDLINE: &str = "/proc/cmdline";
const NX_HUGE_PAGES: &str = "/sys/module/kvm/parameters/nx_huge_pages";
const UPDATE: &str = "update the kernel and the CPU's microcode, and remove what turns the mitigation off from the kernel's command line";

/// One finding for each flaw that the CPU has and nothing is done against, and one for the rest.
pub(super) fn flaws(root: &Root) -> Vec<Finding> {
    let names = match root.names(VULNERABILITIES) {
        Ok(names) => names,
        Err(why) => return vec![Finding::unknown("vulnerabilities", why)],
    };
    let told = names.iter().map(|name| flaw(name, root.text(&format!("{VULNERABILITIES}/{name}")).as_deref()));
    let mut findings: Vec<Finding> = told.flatten().collect();
    let others = names.len().saturating_sub(findings.len());
    let found = format!("{others} of {} known flaws do not affect this CPU, or are mitigated", names.len());
    findings.insert(0, Finding::fine("vulnerabilities", found));
    findings
}

/// A flaw that is not known to be harmless. The kernel says "Not affected", "Mitigation: ...", "Vulnerable", or, of a part, "SMT
/// vulnerable" and "KVM: Vulnerable" (Documentation/admin-guide/hw-vuln).
fn flaw(name: &str, told: Result<&str, &String>) -> Option<Finding> {
    let full = format!("vulnerability-{name}");
    let state = match told {
        Ok(state) => state,
        Err(why) => return Some(Finding::unknown(&full, why)),
    };
    let lower = state.to_lowercase();
    if lower.contains("smt vulnerable") && !lower.starts_with("vulnerable") {
        let advice = "turn SMT off, or keep tenants that do not trust each other from sharing a core";
        return Some(Finding::risk(&full, state, advice));
    }
    if lower.contains("vulnerable") {
        return Some(Finding::risk(&full, state, UPDATE));
    }
    if state.is_empty() {
        return Some(Finding::unknown(&full, "the kernel says nothing of it"));
    }
    lower.contains("unknown").then(|| Finding::unknown(&full, state))
}

/// Whether the kernel was told to leave guests unguarded.
pub(super) fn mitigations(root: &Root) -> Finding {
    const NAME: &str = "mitigations";
    let cmdline = match root.text(CMDLINE) {
        Ok(cmdline) => cmdline,
        Err(why) => return Finding::unknown(NAME, why),
    };
    let Some(chosen) = cmdline.split_whitespace().filter_map(|word| word.strip_prefix("mitigations=")).next_back()
    else {
        return Finding::fine(NAME, "the kernel's own choice");
    };
    // Since Linux 6.17, those against a guest that attacks the host or another guest can be left out by themselves.
    let unguarded = |word: &str| ["off", "no_guest_host", "no_guest_guest"].contains(&word);
    if chosen.split([',', ';']).any(unguarded) {
        let found = format!("the kernel's command line has mitigations={chosen}, which leaves guests unguarded");
        return Finding::risk(
            NAME,
            found,
            "remove it, unless this host is itself a guest that is guarded from outside",
        );
    }
    Finding::fine(NAME, format!("mitigations={chosen}"))
}

/// Whether KVM splits huge pages against a guest that stops the host by its page tables (iTLB multihit), and only if the CPU needs it.
pub(super) fn nx_huge_pages(root: &Root) -> Finding {
    const NAME: &str = "nx-huge-pages";
    let setting = match root.text(NX_HUGE_PAGES) {
        Ok(setting) => setting,
        Err(why) => return Finding::unknown(NAME, why),
    };
    let flaw = root.text(&format!("{VULNERABILITIES}/itlb_multihit"));
    let is_affected = flaw.as_ref().map(|flaw| flaw != "Not affected");
    match (setting.as_str(), is_affected) {
        ("Y" | "1", Ok(false)) => Finding::advice(
            NAME,
            "KVM splits huge pages, although the CPU does not need it",
            "guests are slower so: load kvm with nx_huge_pages=auto or never",
        ),
        ("Y" | "1", _) => Finding::fine(NAME, "KVM splits huge pages"),
        ("N" | "0" | "never", Ok(false)) => {
            Finding::fine(NAME, "KVM leaves huge pages whole, and the CPU does not need more")
        }
        ("N" | "0" | "never", Ok(true)) => Finding::risk(
            NAME,
            "KVM leaves huge pages whole, and the CPU has iTLB multihit: a guest can stop the host",
            "load kvm with nx_huge_pages=auto",
        ),
        ("N" | "0" | "never", Err(why)) => Finding::unknown(
            NAME,
            format!("KVM leaves huge pages whole, and whether the CPU needs more is not known: {why}"),
        ),
        (other, _) => Finding::unknown(NAME, format!("{NX_HUGE_PAGES} says {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::FindingLevel::{self, Advice, Fine, Risk, Unknown};
    use super::super::tree::{Tree, expect, nothing};
    use super::*;

    fn flawed(flaws: &[(&str, &str)]) -> Tree {
        flaws.iter().fold(Tree::new(), |tree, (name, state)| tree.with(&format!("{VULNERABILITIES}/{name}"), state))
    }

    #[test]
    fn each_flaw_that_nothing_is_done_against_is_a_finding() {
        let tree = flawed(&[
            ("meltdown", "Not affected\n"),
            ("spectre_v1", "Mitigation: usercopy/swapgs barriers and __user pointer sanitization\n"),
            ("spec_store_bypass", "Vulnerable\n"),
            ("mds", "Mitigation: Clear CPU buffers; SMT vulnerable\n"),
            ("itlb_multihit", "KVM: Vulnerable\n"),
            ("spectre_v2", "Mitigation: Retpolines; STIBP: disabled; BHI: Vulnerable\n"),
            ("srbds", "Unknown: Dependent on hypervisor status\n"),
        ]);
        let findings = flaws(tree.root());
        let found: Vec<(&str, FindingLevel)> =
            findings.iter().map(|finding| (finding.name.as_str(), finding.level)).collect();
        let expected = [
            ("vulnerabilities", Fine),
            ("vulnerability-itlb_multihit", Risk),
            ("vulnerability-mds", Risk),
            ("vulnerability-spec_store_bypass", Risk),
            ("vulnerability-spectre_v2", Risk),
            ("vulnerability-srbds", Unknown),
        ];
        assert_eq!(found, expected);
        assert_eq!(findings[0].found, "2 of 7 known flaws do not affect this CPU, or are mitigated");
        assert!(findings[2].advice.as_deref().unwrap().starts_with("turn SMT off"), "{findings:?}");
        assert_eq!(findings[3].advice.as_deref(), Some(UPDATE));
    }

    #[test]
    fn flaws_that_cannot_be_listed_are_unknown() {
        let findings = flaws(nothing().root());
        assert_eq!(findings.len(), 1);
        expect(&findings[0], Unknown, "vulnerabilities cannot be read");
        expect(&flaws(flawed(&[("new/state", "")]).root())[1], Unknown, "new cannot be read: it is no file");
        expect(&flaws(flawed(&[("empty", "")]).root())[1], Unknown, "says nothing");
    }

    #[test]
    fn a_kernel_that_was_told_to_leave_guests_unguarded_is_a_risk() {
        let of = |cmdline: &str| mitigations(Tree::new().with(CMDLINE, cmdline).root());
        expect(&of("root=/dev/sda quiet\n"), Fine, "own choice");
        expect(&of("mitigations=off mitigations=auto,nosmt"), Fine, "mitigations=auto,nosmt");
        expect(&of("quiet mitigations=off"), Risk, "mitigations=off");
        expect(&of("mitigations=auto,no_guest_host"), Risk, "no_guest_host");
        expect(&of("mitigations=auto;no_user_kernel"), Fine, "no_user_kernel");
        expect(&mitigations(nothing().root()), Unknown, "/proc/cmdline cannot be read");
    }

    #[test]
    fn huge_pages_are_split_if_and_only_if_the_cpu_needs_it() {
        let of = |setting: &str, flaw: &str| {
            nx_huge_pages(flawed(&[("itlb_multihit", flaw)]).with(NX_HUGE_PAGES, setting).root())
        };
        expect(&of("Y\n", "KVM: Mitigation: Split huge pages\n"), Fine, "splits");
        expect(&of("Y\n", "Not affected\n"), Advice, "does not need it");
        expect(&of("N\n", "Not affected\n"), Fine, "whole");
        expect(&of("never\n", "KVM: Vulnerable\n"), Risk, "iTLB multihit");
        expect(&of("perhaps\n", "Not affected\n"), Unknown, "\"perhaps\"");
        let silent = |setting| nx_huge_pages(Tree::new().with(NX_HUGE_PAGES, setting).root());
        expect(&silent("N"), Unknown, "not known");
        expect(&silent("Y"), Fine, "splits");
        expect(&nx_huge_pages(nothing().root()), Unknown, "nx_huge_pages cannot be read");
    }
}
