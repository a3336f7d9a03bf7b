//! What is left in the memory of this process.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// How often this process has these bytes in memory that can be read, beside where they are.
pub fn copies_in_memory(of: &[u8]) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut count = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|access| access.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; 1 << 20];
        for at in (from..to).step_by(bytes.len() - of.len()) {
            let len = bytes.len().min((to - at) as usize);
            // Some mappings cannot be read, those of keys among them.
            if memory.read_exact_at(&mut bytes[..len], at).is_ok() {
                let found = (at as usize..).zip(bytes[..len].windows(of.len())).filter(|(_, window)| *window == of);
                count += found.filter(|(place, _)| *place != of.as_ptr().addr()).count();
            }
        }
        // The buffer may lie where it is looked at next.
        bytes.fill(0);
    }
    count
}
