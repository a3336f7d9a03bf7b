//! The queues of a network card, broken as those of a disk are in `chains` and `rings`.

use crate::hostile::case::cases;

cases! {
    a_card_gives_back_chains_that_break_the_rules {
        did: "offers circles, tables in themselves, of odd lengths or in no RAM, and buffers that are none, to receive, to send and as commands, and sends its rings",
        must_not: "stop a queue, or have anything written",
        ends: Served,
        needs: { nic: true, pairs: 2 },
    }
    a_card_whose_ring_is_broken_needs_a_reset_and_works_again {
        did: "moves the available index of each queue too far, and offers heads that are no descriptors",
        must_not: "have the card go on without a reset, or stay broken behind it",
        ends: AfterReset,
        needs: { nic: true, pairs: 2, limit: std::time::Duration::from_secs(60) },
    }
}
