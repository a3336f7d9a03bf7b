//! Where the memory of guests may go, and the pages that it is on.

use super::finding::Finding;
use super::root::Root;

const KSM: &str = "/sys/kernel/mm/ksm/run";
const SWAPS: &str = "/proc/swaps";
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Whether the kernel merges pages with the same content: a guest can tell by the time of a write whether another one has a page.
/// `merges` is whether it was told to merge all memory of this process, if it tells.
pub(super) fn ksm(root: &Root, merges: Option<bool>) -> Finding {
    const NAME: &str = "ksm";
    match (root.text(KSM).as_deref(), merges) {
        (Ok("0"), _) => Finding::fine(NAME, "pages of guests are not merged"),
        (Ok("2"), _) => Finding::fine(NAME, "pages are not merged, and those that were are parted"),
        (Ok("1"), Some(true)) => Finding::risk(
            NAME,
            "same pages are merged, and this process was told to take part (PR_SET_MEMORY_MERGE): a guest can find out what is in \
             the memory of another",
            "start this process without it (MemoryKSM=no in systemd), or turn it off: echo 2 > /sys/kernel/mm/ksm/run",
        ),
        (Ok("1"), _) => Finding::advice(
            NAME,
            "same pages are merged for programs that ask for it; vmcell does not ask for guests",
            "turn it off unless something else needs it: echo 2 > /sys/kernel/mm/ksm/run",
        ),
        (Ok(other), _) => Finding::unknown(NAME, format!("{KSM} says {other:?}")),
        (Err(why), _) => Finding::unknown(NAME, why.clone()),
    }
}

/// Whether memory of guests may be written to a disk.
pub(super) fn swap(root: &Root) -> Finding {
    const NAME: &str = "swap";
    let swaps = match root.text(SWAPS) {
        Ok(swaps) => swaps,
        Err(why) => return Finding::unknown(NAME, why),
    };
    // The first line has the titles of the columns.
    let devices: Vec<&str> = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    let on_disk: Vec<&str> = devices.iter().filter(|device| !device.starts_with("/dev/zram")).copied().collect();
    if !on_disk.is_empty() {
        let found = format!("the memory of guests may be written to {}", on_disk.join(", "));
        return Finding::risk(
            NAME,
            found,
            "lock the memory of guests (MemoryConfig::locked), turn swap off (swapoff -a), or encrypt it",
        );
    }
    match devices.as_slice() {
        [] => Finding::fine(NAME, "there is none"),
        in_memory => Finding::fine(NAME, format!("only in memory, compressed ({})", in_memory.join(", "))),
    }
}

/// Whether guests can have transparent huge pages.
pub(super) fn huge_pages(root: &Root) -> Finding {
    const NAME: &str = "transparent-huge-pages";
    let choices = match root.text(HUGE_PAGES) {
        Ok(choices) => choices,
        Err(why) => return Finding::unknown(NAME, why),
    };
    // The one in force stands in brackets.
    match choices.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(chosen, _)| chosen) {
        Some("always") => Finding::fine(NAME, "guests have them"),
        Some("madvise") => Finding::fine(NAME, "guests have them if asked for (PageSize::Transparent)"),
        Some("never") => Finding::advice(
            NAME,
            "they are turned off",
            "guests are slower without: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        _ => Finding::unknown(NAME, format!("{HUGE_PAGES} says {choices:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::FindingLevel::{Advice, Fine, Risk, Unknown};
    use super::super::tree::{Tree, expect, nothing};
    use super::*;

    #[test]
    fn merged_pages_are_a_risk_if_this_process_takes_part() {
        let run = |value| Tree::new().with(KSM, value);
        expect(&ksm(run("0\n").root(), Some(true)), Fine, "not merged");
        expect(&ksm(run("2\n").root(), Some(true)), Fine, "parted");
        expect(&ksm(run("1\n").root(), Some(true)), Risk, "take part");
        expect(&ksm(run("1\n").root(), Some(false)), Advice, "does not ask");
        expect(&ksm(run("1\n").root(), None), Advice, "does not ask");
        expect(&ksm(run("3\n").root(), None), Unknown, "\"3\"");
        expect(&ksm(nothing().root(), None), Unknown, "ksm/run cannot be read");
    }

    #[test]
    fn swap_on_a_disk_is_a_risk_and_in_memory_is_not() {
        let of = |lines: &str| {
            swap(Tree::new().with(SWAPS, &format!("Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n{lines}")).root())
        };
        expect(&of(""), Fine, "there is none");
        expect(&of("/dev/zram0 partition 8388604 0 100\n"), Fine, "only in memory, compressed (/dev/zram0)");
        let both = "/dev/zram0 partition 8388604 0 100\n/swapfile file 2097148 0 -2\n/dev/sda2 partition 1 0 -3\n";
        expect(&of(both), Risk, "may be written to /swapfile, /dev/sda2");
        expect(&swap(nothing().root()), Unknown, "/proc/swaps cannot be read");
    }

    #[test]
    fn huge_pages_that_are_turned_off_are_told() {
        let of = |text| huge_pages(Tree::new().with(HUGE_PAGES, text).root());
        expect(&of("[always] madvise never\n"), Fine, "have them");
        expect(&of("always [madvise] never\n"), Fine, "asked for");
        expect(&of("always madvise [never]\n"), Advice, "turned off");
        expect(&of("always madvise\n"), Unknown, "\"always madvise\"");
        expect(&huge_pages(nothing().root()), Unknown, "enabled cannot be read");
    }
}
