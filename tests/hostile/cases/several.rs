//! Several processors that attack at once.

use crate::hostile::case::cases;

cases! {
    four_processors_attack_one_device_at_once {
        did: "has one processor bring a disk up and offer requests again and again, one write to its registers, one ring, and one scribble over rings, descriptors and headers",
        must_not: "get the device into a state that a reset does not end",
        ends: AfterReset,
        needs: { vcpus: 4 },
    }
    four_processors_attack_with_too_little_cpu {
        did: "does the same while all threads of the monitor together get the time of one processor, by a quota if the host has such",
        must_not: "get the device into a state that a reset does not end",
        ends: AfterReset,
        needs: { vcpus: 4, scarce: true },
    }
    a_queue_that_is_abused_leaves_the_other_queue_of_its_disk_alone {
        did: "has a second processor offer circles on one queue of a disk without a pause",
        must_not: "disturb valid requests on the other queue",
        ends: Served,
        needs: { vcpus: 2, queues: 2 },
    }
}
