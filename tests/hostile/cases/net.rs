//! Frames that a guest must not send.

use crate::hostile::case::cases;

cases! {
    a_frame_too_short_to_be_one_is_lost {
        did: "sends frames of 1 byte to a header and 14 bytes, and none",
        must_not: "stop the queue",
        ends: Served,
        needs: { nic: true },
    }
    a_frame_of_more_than_64_kib_is_lost {
        did: "sends frames of 64 KiB and a byte, of 8 MiB, and of 4 GiB by overlapping segments",
        must_not: "have the device copy them",
        ends: Served,
        needs: { nic: true },
    }
    a_frame_whose_header_lies_is_lost {
        did: "sends frames with every kind of segmentation, of sizes and checksum places that do not fit, without offloads",
        must_not: "have the host's network stack believe them",
        ends: Served,
        needs: { nic: true },
    }
    a_frame_whose_header_lies_with_offloads_is_lost {
        did: "sends the same, having agreed on checksum and segmentation offloads",
        must_not: "have the host's network stack believe them",
        ends: Served,
        needs: { nic: true },
    }
    a_storm_of_the_largest_frames_holds_up_nobody {
        did: "sends frames of 64 KiB as fast as they go",
        must_not: "have the I/O thread to itself",
        ends: Served,
        needs: { nic: true },
    }
    a_storm_of_frames_in_single_bytes_holds_up_nobody {
        did: "sends frames of 200 segments of one byte as fast as they go",
        must_not: "have the I/O thread to itself, or the monitor grow",
        ends: Served,
        needs: { nic: true },
    }
    a_card_whose_device_is_gone_leaves_the_rest_alone {
        did: "sends as fast as it goes while the host deletes the TAP device, and behind that, also after a reset",
        must_not: "have frames kept, the I/O thread to itself, or its disk disturbed",
        ends: Served,
        needs: { nic: true, told: Some("the TAP device refuses"), help: |host, _| host.take_card_away() },
    }
}
