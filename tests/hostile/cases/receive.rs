//! Receive buffers that no driver offers.

use crate::hostile::case::cases;

cases! {
    a_flood_without_buffers_is_survived_until_there_are_some {
        did: "has 5,000 datagrams sent to it before it offers a buffer",
        must_not: "stop the card, or have the monitor keep them",
        ends: Either,
        needs: { nic: true, help: |host, what| host.send(what) },
    }
    receive_buffers_that_are_all_refused_hold_up_nobody {
        did: "offers buffers that no frame fits into, again as soon as they come back",
        must_not: "keep the device looking for a better one",
        ends: Either,
        needs: { nic: true },
    }
    receive_buffers_outside_ram_are_given_back {
        did: "offers receive buffers behind and across the end of RAM, on the device, and at the end of 64 bits",
        must_not: "have the device write there",
        ends: Served,
        needs: { nic: true },
    }
    receive_buffers_of_65_536_single_bytes_hold_up_nobody {
        did: "offers 256 receive buffers of 256 segments of one byte, and has 50 datagrams sent to it",
        must_not: "have the monitor grow, or the I/O thread to itself, or get half a frame",
        ends: Either,
        needs: { nic: true, help: |host, what| host.send(what) },
    }
    a_frame_too_long_for_its_buffer_is_not_delivered_cut {
        did: "offers buffers of 112 bytes, without merging, for a frame of 542",
        must_not: "get the beginning for the whole",
        ends: Either,
        needs: { nic: true, help: |host, what| host.send(what) },
    }
    a_frame_that_fits_its_buffers_exactly_is_delivered {
        did: "offers buffers, with merging, that hold a frame of 542 bytes and its header to the byte",
        must_not: "lose the frame",
        ends: Either,
        needs: { nic: true, help: |host, what| host.send(what) },
    }
    a_frame_over_many_buffers_says_how_many {
        did: "offers buffers, with merging, of 64 and of 12 bytes for a frame of 542",
        must_not: "see a part of a frame, or another count than was used",
        ends: Either,
        needs: { nic: true, help: |host, what| host.send(what) },
    }
}
