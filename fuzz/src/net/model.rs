//! Which frames may pass (5.1.6), and frames to ask with.

use vmcell::net::{Offloads, VnetHeader};

use crate::input::Input;

/// Destination, source and type.
const SHORTEST: usize = 14;
/// The most that IP can say, behind an Ethernet header with a VLAN tag.
const LONGEST: usize = 65535 + 18;

/// Whether a frame may pass to a side that copes with these offloads.
pub fn passes(header: &[u8; VnetHeader::LEN], len: usize, offloads: Offloads) -> bool {
    let half = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    if !(SHORTEST..=LONGEST).contains(&len) {
        return false;
    }
    let needs_checksum = header[0] & 1 != 0;
    if needs_checksum && (!offloads.checksum || half(6) + half(8) + 2 > len) {
        return false;
    }
    let segments = match header[1] {
        0 => return true,
        1 | 0x81 => offloads.tso4,
        4 | 0x84 => offloads.tso6,
        _ => false,
    };
    let ecn = header[1] & 0x80 == 0 || offloads.ecn;
    segments && ecn && needs_checksum && half(4) > 0 && half(2) <= len
}

/// A header, of a frame of this length, that may be right.
pub fn header(input: &mut Input, len: usize) -> [u8; VnetHeader::LEN] {
    let mut header = [0; VnetHeader::LEN];
    let choice = input.byte();
    if choice < 64 {
        return header;
    }
    header[0] = if choice & 1 == 0 { 1 } else { input.byte() };
    header[1] = [0, 1, 4, 0x81, 0x84, 0, 3, 0x80][usize::from(choice >> 1 & 7)];
    let short = u16::try_from(len.min(0xffff)).unwrap_or(u16::MAX);
    let near = |input: &mut Input| match input.byte() {
        0..=99 => u16::from(input.byte()),
        100..=199 => short.wrapping_sub(u16::from(input.byte() % 8)),
        _ => input.half(),
    };
    for at in [2, 4, 6, 8, 10] {
        header[at..at + 2].copy_from_slice(&near(input).to_le_bytes());
    }
    header
}

/// How long a frame is.
pub fn frame_len(input: &mut Input) -> usize {
    match input.below(16) {
        0 => usize::from(input.byte() % 16),
        1..=7 => usize::from(input.byte()),
        8..=11 => usize::from(input.half() % 2000),
        12 => LONGEST - 2 + usize::from(input.byte() % 5),
        13 => SHORTEST,
        _ => usize::from(input.half()),
    }
}
