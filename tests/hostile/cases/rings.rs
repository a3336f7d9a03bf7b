//! Queues in places and of sizes that no queue has, and indices that jump.

use crate::hostile::case::cases;

cases! {
    rings_outside_ram_never_become_ready {
        did: "puts each part of a queue behind the end of RAM, across it, into the hole, onto the device itself, onto the local APIC, past 4 GiB and to the end of 64 bits, and misaligns it; then rings",
        must_not: "have the device read or write there",
        ends: AfterReset,
    }
    rings_that_overlap_hurt_nobody {
        did: "puts the parts of a queue over each other and lets the device run on them",
        must_not: "have the device loop or fail",
        ends: AfterReset,
    }
    sizes_that_no_queue_has_never_become_ready {
        did: "sets queue sizes of 0, of no power of two, and of more than the largest",
        must_not: "get a queue that is ready",
        ends: AfterReset,
    }
    a_running_queue_cannot_be_changed {
        did: "sets size, places and readiness of a queue after DRIVER_OK",
        must_not: "change what the device works with",
        ends: Served,
    }
    an_available_index_that_jumps_needs_a_reset {
        did: "moves the index of the available ring by more than the queue's size, forwards and backwards",
        must_not: "have descriptors served that it did not offer",
        ends: AfterReset,
    }
    an_available_index_a_whole_queue_ahead_is_served_or_refused {
        did: "offers the same chain as often as the queue has descriptors, at once",
        must_not: "have it served more often than offered, or not at all without being told",
        ends: Either,
    }
    a_head_that_is_no_descriptor_needs_a_reset {
        did: "offers heads that are not below the queue's size",
        must_not: "have the device read behind the table",
        ends: AfterReset,
    }
    a_used_ring_that_the_guest_writes_is_not_believed {
        did: "overwrites the index and the entries of the used ring, which is the device's to write",
        must_not: "have the device go on anywhere else than where it was",
        ends: Served,
    }
    event_indices_of_any_value_lose_no_request {
        did: "sets both event indices to values that make no sense",
        must_not: "have a request that it rings for forgotten",
        ends: Served,
    }
}
