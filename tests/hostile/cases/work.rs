//! Requests that cost the device far more than they cost the guest.

use std::time::Duration;

use crate::hostile::case::cases;
use vmcell::{Limits, RateLimit};

/// As the guest expects.
fn limited() -> Limits {
    Limits::new().operations(RateLimit::per_second(100).burst(4))
}

cases! {
    a_read_of_4_gib_by_overlapping_segments_holds_up_nobody {
        did: "sends one batch of 32 requests that each read 254 times 16 MiB into the same 16 MiB",
        must_not: "have the I/O thread to itself for seconds",
        ends: Served,
        needs: { mib: 8192, limit: Duration::from_secs(2), may_take_longer: true },
    }
    a_batch_of_reads_of_8_mib_holds_up_nobody {
        did: "sends one batch of 32 requests that each read 8 MiB",
        must_not: "have the I/O thread to itself",
        ends: Served,
    }
    zeros_of_the_largest_size_by_the_batch_hold_up_nobody {
        did: "sends one batch of 32 requests that each zero as much as one may",
        must_not: "have the I/O thread to itself",
        ends: Served,
        needs: { limit: Duration::from_secs(2), may_take_longer: true },
    }
    discards_of_the_largest_size_by_the_batch_hold_up_nobody {
        did: "sends one batch of 32 requests that each discard as many of the largest ranges as one may",
        must_not: "have the I/O thread to itself",
        ends: Served,
        needs: { mib: 2048 },
    }
    a_limited_guest_that_rings_without_end_gets_no_more_and_holds_up_nobody {
        did: "keeps the queue of a disk of 100 operations a second full, and rings all the time",
        must_not: "get more than that, or have the I/O thread to itself",
        ends: AfterReset,
        needs: { limits: limited },
    }
}
