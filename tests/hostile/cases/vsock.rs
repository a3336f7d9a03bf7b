//! Packets of a vsock that no driver sends.

use crate::hostile::case::cases;

cases! {
    packets_that_no_driver_sends_are_reset_or_dropped {
        did: "sends operations, types, senders, receivers and lengths that are none, to connections that there are and that there are not",
        must_not: "get anything but a reset, or reach another connection",
        ends: Served,
        needs: { vsock: true },
    }
    a_vsock_gives_back_chains_that_break_the_rules {
        did: "offers circles, buffers that are none, headers that are short, to be written, or in pieces of a byte",
        must_not: "stop the queue, or be answered",
        ends: Served,
        needs: { vsock: true },
    }
    a_connection_that_sends_more_than_it_may_is_reset {
        did: "sends to a host that never reads, whatever room it is told of",
        must_not: "have the monitor keep what it has no room for",
        ends: Served,
        needs: { vsock: true },
    }
    connections_without_end_hold_up_nobody {
        did: "makes, closes and resets connections as fast as it goes, with ever new ports",
        must_not: "have the I/O thread to itself, or the monitor grow",
        ends: Served,
        needs: { vsock: true },
    }
    a_guest_that_takes_no_packets_is_not_read_any_more {
        did: "sends what needs a reset as its answer, as fast as it goes, and gives no room for one",
        must_not: "have answers pile up, or be forgotten once there is room",
        ends: Served,
        needs: { vsock: true },
    }
}
