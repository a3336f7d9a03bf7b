//! `docs/hostile-list.md`: which of our cases and tests covers which case of the public list, made from `villain.tsv`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::case::Case;
use super::page;

/// Set, numbers, what these cases try in our words, and ours: names, or `not: why`, `unread`, or `none`.
const LIST: &str = include_str!("villain.tsv");

/// The sets that apply to what we have: prefix, title, and the last number of each.
const SETS: [(&str, &str, u32); 8] = [
    ("T", "Split queues", 130),
    ("M", "The MMIO transport", 35),
    ("S", "Steps and states", 95),
    ("B", "Disks", 231),
    ("N", "Network cards", 201),
    ("RNG", "Random bytes", 33),
    ("L", "The balloon", 46),
    ("V", "Sockets between host and guest", 95),
];

const HEAD: &str = "\
# The public list of hostile guests

[virtio-villain](https://github.com/weltling/virtio-villain) (version 1.0.0) is a list of what a guest can do to virtio devices, each by a
prefix and a number, with which several monitors are tested. This page says which of our cases ([hostile-guests.md](hostile-guests.md)) and
other tests covers each of those that apply to a device and a transport of ours, and how it ends here. What a case tries was taken from its
name and title, and for some from its text; what we had not thought of became a case of ours. A case of ours that covers a number does at
least what stands there, mostly by more values. Where a number is said not to have been read, nothing is claimed about it, not even that there
is such a case.

Its own programs can be run against our devices as well: `VMCELL_VILLAIN=INITRAMFS cargo xtask test linux_villain`, with an initramfs made from
its sources or taken from a monitor's tests, boots a stock kernel with it and fails for each case that ends with FAIL or WEDGED.
All sets but M look for their devices on PCI, so they end with SKIP until there is a PCI transport here. So do those of M that bring a device up,
since their driver does not accept VERSION_1 and our devices serve no driver that does not; M5, 6, 11, 17, 19, 22 to 24, 34 and 35 have a verdict.

This page is made from `tests/hostile/villain.tsv`: `VMCELL_UPDATE=1 cargo test --test kvm_hostile list`.
";

const TAIL: &str = "
## Sets that do not apply yet

| Prefix | What | Why |
|---|---|---|
| P | packed queues | devices offer split queues alone |
| PCI | the PCI transport | there is none |
| A | administration of groups of devices | belongs to PCI |
| C | virtio console | the console is a serial port; floods of it are in hostile-guests.md |
| Z | zoned disks | disks offer no zones; their commands are types that there are not (`a_request_of_an_unknown_type_is_unsupported`) |
| RNG200, L200, L201 | a snapshot during a request, and a target changed while the guest inflates | `a_fork_has_a_vsock_without_its_source_s_connections_and_a_balloon_of_its_own` (tests/linux_clones.rs) has snapshots, without a request under way; the target is in `the_driver_is_told_of_the_target_and_tells_how_far_it_is` (src/balloon/device_test.rs) |
| V200, V201 | adding a vsock while a guest runs, a pause during a transfer | there is no hot plug; `a_restored_guest_is_told_that_its_connections_are_gone` pauses |
| E, R, D, I, RTC, F | persistent memory, memory, watchdog, IOMMU, clock, file system | there are no such devices |
";

struct Row {
    set: &'static str,
    numbers: &'static str,
    what: &'static str,
    ours: &'static str,
}

fn rows() -> impl Iterator<Item = Row> {
    LIST.lines().skip(1).map(|line| {
        let fields: Vec<_> = line.split('\t').collect();
        let [set, numbers, what, ours] = fields[..] else { panic!("not four fields: {line}") };
        Row { set, numbers, what, ours }
    })
}

/// `1-3 7` is 1, 2, 3 and 7.
fn expand(numbers: &str) -> impl Iterator<Item = u32> {
    numbers.split(' ').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no number"));
        number(first)..=number(last)
    })
}

impl Row {
    /// The names of ours; none if nothing of ours covers it.
    fn names(&self) -> Vec<&'static str> {
        let covered = !self.ours.starts_with("not: ") && !matches!(self.ours, "unread" | "none");
        if covered { self.ours.split(' ').collect() } else { Vec::new() }
    }

    fn line(&self, cases: &[&Case], tests: &BTreeMap<String, String>) -> String {
        let numbers = self.numbers.replace(' ', ", ");
        let (ours, ends) = match self.ours {
            "unread" => return format!("| {numbers} | | not read | |\n"),
            "none" => return format!("| {numbers} | there is no such case | | |\n"),
            _ => match self.ours.strip_prefix("not: ") {
                Some(why) => (format!("none: {why}"), String::new()),
                None => self.described(cases, tests),
            },
        };
        format!("| {numbers} | {} | {ours} | {ends} |\n", self.what)
    }

    fn described(&self, cases: &[&Case], tests: &BTreeMap<String, String>) -> (String, String) {
        let mut ends: Vec<&str> = Vec::new();
        let ours = self.names().into_iter().map(|name| match cases.iter().find(|case| case.name == name) {
            Some(case) => {
                ends.extend((!ends.contains(&case.ends.words())).then_some(case.ends.words()));
                format!("`{name}`")
            }
            None => {
                ends.extend((!ends.contains(&"as the test says")).then_some("as the test says"));
                format!(
                    "`{name}` ({})",
                    tests.get(name).unwrap_or_else(|| panic!("nothing of ours has the name {name}"))
                )
            }
        });
        let ours = ours.collect::<Vec<_>>().join(", ");
        (ours, ends.join("; "))
    }
}

/// Where each function of the sources and tests is.
pub fn functions() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.join("src"), root.join("tests")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let place = path.strip_prefix(root).expect("it is below").display().to_string();
                let text = fs::read_to_string(&path).expect("a source file");
                let names = text.lines().filter_map(|line| line.trim().strip_prefix("fn ")?.strip_suffix("() {"));
                found.extend(names.map(|name| (name.to_owned(), place.clone())));
            }
        }
    }
    found
}

pub fn check_numbers() {
    for (prefix, _, last) in SETS {
        let mut seen: Vec<u32> = rows().filter(|row| row.set == prefix).flat_map(|row| expand(row.numbers)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (1..=last).collect::<Vec<_>>(), "each number of {prefix} must stand there once");
    }
    let strange = rows().find(|row| SETS.iter().all(|(prefix, ..)| *prefix != row.set));
    assert!(strange.is_none_or(|row| panic!("{} is no set", row.set)));
}

pub fn check_page(groups: &[(&str, &[Case])]) {
    let cases: Vec<&Case> = groups.iter().flat_map(|(_, cases)| cases.iter()).collect();
    let tests = functions();
    let mut text = HEAD.to_owned();
    for (prefix, title, last) in SETS {
        let _ = write!(text, "\n## {title} ({prefix}1 to {prefix}{last})\n\n");
        text.push_str("| Numbers | They try | Ours | It ends |\n|---|---|---|---|\n");
        rows().filter(|row| row.set == prefix).for_each(|row| text.push_str(&row.line(&cases, &tests)));
    }
    text.push_str(TAIL);
    page::compare("docs/hostile-list.md", &text);
}
