//! Memory that changes while the device reads it.

use crate::hostile::case::cases;

cases! {
    requests_that_a_second_processor_changes_meanwhile_hurt_nobody {
        did: "offers requests while a second processor flips bits of their descriptors, tables, headers and rings",
        must_not: "have anything checked and then read again",
        ends: AfterReset,
        needs: { vcpus: 2 },
    }
    a_read_that_lands_on_the_rings_hurts_nobody {
        did: "reads noise from the disk onto descriptors, rings and headers of the queue that the reads came by",
        must_not: "have anything checked and then read again",
        ends: AfterReset,
        needs: { noise: true },
    }
}
