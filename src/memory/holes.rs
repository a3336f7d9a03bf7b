//! Where a file in memory holds nothing.

use std::fs::File;
use std::ops::Range;

use crate::sys::{next_data, start_of_data};

/// Smaller ones are not worth a mapping of their own.
const LEAST: u64 = 2 << 20;
/// No more than so many are looked for.
const MOST: usize = 64;

/// Returns large holes of a file of `len` bytes, in ascending order.
pub(super) fn holes(file: &File, len: u64) -> Vec<Range<u64>> {
    let (mut holes, mut at) = (Vec::new(), 0u64);
    while at < len && holes.len() < MOST {
        let Ok(data) = next_data(file, at, len) else { break };
        let (start, stop) = data.unwrap_or((len, len));
        if start.saturating_sub(at) >= LEAST {
            holes.push(at..start);
        }
        at = stop;
    }
    holes
}

/// Whether that is still one.
pub(super) fn is_hole(file: &File, hole: &Range<u64>) -> bool {
    matches!(start_of_data(file, hole.start, hole.end), Ok(None))
}

/// Whether bytes need not be stored.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::sys::anonymous_file;

    const MIB: u64 = 1 << 20;

    #[test]
    fn large_holes_are_found_and_one_that_was_filled_is_none_any_more() {
        let file = anonymous_file(16 * MIB).unwrap();
        for at in [0, 3 * MIB, 4 * MIB, 9 * MIB] {
            file.write_all_at(&[1], at).unwrap();
        }
        let found = holes(&file, 16 * MIB);
        assert_eq!(found, [4096..3 * MIB, 4 * MIB + 4096..9 * MIB, 9 * MIB + 4096..16 * MIB]);
        assert!(found.iter().all(|hole| is_hole(&file, hole)));
        file.write_all_at(&[1], 16 * MIB - 1).unwrap();
        assert_eq!(found.iter().map(|hole| is_hole(&file, hole)).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(holes(&anonymous_file(4 * MIB).unwrap(), 4 * MIB), vec![Range { start: 0, end: 4 * MIB }]);
    }

    #[test]
    fn a_byte_that_is_not_zero_is_found_wherever_it_is() {
        let mut bytes = [0; 200];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in 0..bytes.len() {
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
            bytes[at] = 0;
        }
    }

    #[test]
    fn no_more_than_so_many_are_looked_for() {
        let file = anonymous_file(400 * MIB).unwrap();
        (0..100).for_each(|index| file.write_all_at(&[1], index * 4 * MIB).unwrap());
        assert_eq!(holes(&file, 400 * MIB).len(), MOST);
    }
}
