//! Registers, in orders and widths that no driver uses.

use crate::hostile::case::cases;

cases! {
    a_driver_that_skips_steps_gets_nowhere {
        did: "writes every pair of sets of steps to the status register, and bits that no driver sets",
        must_not: "leave out a step, or take one back without a reset",
        ends: AfterReset,
    }
    driver_ok_twice_changes_nothing {
        did: "sets DRIVER_OK a hundred times",
        must_not: "have the device start twice",
        ends: Served,
    }
    features_that_were_not_offered_are_refused {
        did: "accepts each feature that was not offered, all 64, and all but VERSION_1",
        must_not: "have the device agree",
        ends: AfterReset,
    }
    selectors_of_any_value_select_nothing_else {
        did: "selects queues and halves of features that there are not, and rings for them",
        must_not: "see or set anything",
        ends: Served,
    }
    a_reset_with_requests_in_flight_leaves_nothing_behind {
        did: "resets the device again and again a moment after offering 32 reads of 64 KiB",
        must_not: "have the device write into memory, rings included, behind the reset",
        ends: AfterReset,
    }
    accesses_of_any_width_to_a_device_hurt_nobody {
        did: "reads and writes 1, 2, 4, 8 and 16 bytes at every offset of the registers, aligned or not, and across the end",
        must_not: "have a vCPU or the device fail",
        ends: AfterReset,
    }
    a_config_space_cannot_be_written {
        did: "writes the disk's config space at every offset and width",
        must_not: "change capacity or limits",
        ends: Served,
    }
    a_storm_of_doorbells_holds_up_nobody {
        did: "rings for an empty queue, and for queues that there are not, without a pause",
        must_not: "have the I/O thread to itself",
        ends: Served,
    }
}
