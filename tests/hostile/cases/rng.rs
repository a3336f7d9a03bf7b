//! Requests for random bytes that no driver sends.

use crate::hostile::case::cases;

cases! {
    a_source_of_random_bytes_gives_back_chains_that_break_the_rules {
        did: "offers circles, tables and buffers that are none, that may only be read, or that have no length",
        must_not: "stop the queue, or have anything written",
        ends: Served,
        needs: { rng: true },
    }
    requests_for_random_bytes_without_end_hold_up_nobody {
        did: "asks for 8 MiB, and for 256 times a byte, as fast as it goes",
        must_not: "have the I/O thread to itself, or the monitor grow",
        ends: Served,
        needs: { rng: true },
    }
}
