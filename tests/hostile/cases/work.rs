//! Requests that cost the device far more than they cost the guest.

use std::time::Duration;

use crate::hostile::case::cases;

cases! {
    a_read_of_4_gib_by_overlapping_segments_holds_up_nobody {
        did: "one batch of 32 requests that each read 254 times 16 MiB into the same 16 MiB",
        must_not: "have the I/O thread to itself for seconds",
        ends: Served,
        needs: { mib: 8192, limit: Duration::from_secs(3) },
    }
}
