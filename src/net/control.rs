//! Commands of the control queue (5.1.6.5): how many pairs of queues the driver uses, and that it announced itself.

use crate::virtio::Chain;

const CLASS_ANNOUNCE: u8 = 3;
const ANNOUNCE_ACK: u8 = 0;
const CLASS_PAIRS: u8 = 4;
const PAIRS_SET: u8 = 0;

const OK: u8 = 0;
const ERROR: u8 = 1;

/// What a driver may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// It has announced itself, as it was asked to (5.1.6.5.4).
    Announced,
    /// So many pairs of queues are to get frames, whatever the number is (5.1.6.5.6).
    Pairs(u16),
}

impl Command {
    /// The command in a chain; `None` if it is one that we do not know, or has no place for the answer.
    pub(super) fn parse(chain: &Chain) -> Option<Self> {
        let mut bytes = [0; 4];
        let len = usize::try_from(chain.readable_len()).ok()?;
        let bytes = bytes.get_mut(..len)?;
        chain.read(0, bytes).ok()?;
        match *bytes {
            _ if chain.writable_len() == 0 => None,
            [CLASS_ANNOUNCE, ANNOUNCE_ACK] => Some(Self::Announced),
            [CLASS_PAIRS, PAIRS_SET, low, high] => Some(Self::Pairs(u16::from_le_bytes([low, high]))),
            _ => None,
        }
    }
}

/// Writes whether a command was obeyed, and returns how many bytes that took. The answer is the first byte that may be written;
/// commands of ours have no other.
pub(super) fn answer(chain: &Chain, obeyed: bool) -> u32 {
    u32::from(chain.write(0, &[if obeyed { OK } else { ERROR }]).is_ok())
}
