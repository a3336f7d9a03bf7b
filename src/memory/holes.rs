//! Where a file in memory holds nothing.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Smaller ones are not worth a mapping of their own.
const LEAST: u64 = 2 << 20;
/// No more than so many are looked for.
const MOST: usize = 64;

/// Returns large holes of a file of `len` bytes, in ascending order.
pub(super) fn holes(file: &File, len: u64) -> Vec<Range<u64>> {
    let (mut holes, mut at) = (Vec::new(), 0u64);
    while at < len && holes.len() < MOST {
        let Ok(start) = seek(file, at, libc::SEEK_HOLE) else { break };
        let end = next_data(file, start, len);
        if end.saturating_sub(start) >= LEAST {
            holes.push(start..end);
        }
        at = end;
    }
    holes
}

/// Whether that is still one.
pub(super) fn is_hole(file: &File, hole: &Range<u64>) -> bool {
    next_data(file, hole.start, hole.end) >= hole.end
}

/// Where the next byte lies that is stored, at most `end`.
fn next_data(file: &File, at: u64, end: u64) -> u64 {
    match seek(file, at, libc::SEEK_DATA) {
        Ok(data) => data.min(end),
        // There is none.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => end,
        Err(_) => at,
    }
}

fn seek(file: &File, at: u64, whence: libc::c_int) -> io::Result<u64> {
    let at = at.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open, and the call takes plain numbers. Nobody uses the file's position.
    let found = unsafe { libc::lseek(file.as_raw_fd(), at, whence) };
    u64::try_from(found).map_err(|_| io::Error::last_os_error())
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
    fn no_more_than_so_many_are_looked_for() {
        let file = anonymous_file(400 * MIB).unwrap();
        (0..100).for_each(|index| file.write_all_at(&[1], index * 4 * MIB).unwrap());
        assert_eq!(holes(&file, 400 * MIB).len(), MOST);
    }
}
