//! The way up and down of a device, gone at the wrong time, or again and again.

use crate::hostile::case::cases;

cases! {
    a_doorbell_before_the_driver_is_ready_serves_nothing {
        did: "offers a request and rings at each step of the way up, without a queue, and behind a reset",
        must_not: "be served before DRIVER_OK, or not be served behind it",
        ends: AfterReset,
    }
    a_driver_that_has_failed_is_served_after_a_reset {
        did: "sets FAILED at each step of the way up, and tries further steps then",
        must_not: "get any further without a reset",
        ends: Served,
    }
    features_that_are_settled_stay_as_they_are {
        did: "writes other features, and FEATURES_OK again, after FEATURES_OK and after DRIVER_OK",
        must_not: "change what was agreed on",
        ends: Served,
    }
    a_device_that_comes_up_differently_each_time_serves_each_time {
        did: "brings the device up with every size of queue and other features each time, begins in the middle, and resets it 200 times",
        must_not: "have it remember anything of the last time",
        ends: Served,
    }
    the_generation_of_a_config_space_that_does_not_change_stands_still {
        did: "reads the disk's size and the generation of its config space a thousand times, and writes the generation",
        must_not: "see a change that there was not",
        ends: Served,
    }
    interrupts_are_told_until_they_are_acknowledged {
        did: "acknowledges interrupts in part, others than there are, or none, and does not want to hear of them",
        must_not: "lose an interrupt, or keep one",
        ends: Served,
    }
}
