//! The control queue (5.1.6.5), for the one thing that we use it for: the guest confirms that it announced itself.

use crate::error::Result;
use crate::event::Io;
use crate::virtio::{Chain, Queue};

const CLASS_ANNOUNCE: u8 = 3;
const COMMAND_ACK: u8 = 0;

const OK: u8 = 0;
const ERROR: u8 = 1;

/// Answers all commands; says whether one of them was the confirmation.
pub(super) fn serve(io: &mut Io, queue: &mut Queue) -> Result<bool> {
    let mut confirmed = false;
    while let Some(chain) = queue.pop(io)? {
        let is_ack = is_ack(&chain);
        confirmed |= is_ack;
        // The answer is the first byte that may be written; commands of ours have no other.
        let written = u32::from(chain.write(0, &[if is_ack { OK } else { ERROR }]).is_ok());
        queue.complete(chain, written);
    }
    Ok(confirmed)
}

fn is_ack(chain: &Chain) -> bool {
    let mut command = [0; 2];
    chain.readable_len() == 2 && chain.read(0, &mut command).is_ok() && command == [CLASS_ANNOUNCE, COMMAND_ACK]
}
