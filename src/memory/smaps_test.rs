//! What the kernel says of this process's mappings.

/// The flags of the mapping that `address` is in, as `/proc/self/smaps` abbreviates them.
pub(super) fn flags_at(address: usize) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines().skip_while(|line| !covers(line, address));
    lines.find_map(|line| line.strip_prefix("VmFlags:")).expect("it is mapped").to_owned() + " "
}

/// Whether this is the first line of a mapping with `address` in it; neighbours of the same kind are one mapping.
fn covers(line: &str, address: usize) -> bool {
    let range = line.split(' ').next().and_then(|range| range.split_once('-'));
    range.is_some_and(|(start, end)| {
        let number = |text| usize::from_str_radix(text, 16);
        matches!((number(start), number(end)), (Ok(start), Ok(end)) if (start..end).contains(&address))
    })
}
