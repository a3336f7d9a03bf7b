//! Chains that no driver sends, although the device can make sense of them.

use crate::hostile::case::cases;

cases! {
    a_request_in_odd_pieces_is_served {
        did: "cuts headers and data into pieces of a byte and more, joins headers, data and status bytes, has a table go on in the next page, and reads and writes nothing",
        must_not: "have the device care how a request is cut",
        ends: Served,
    }
    flags_that_there_are_not_hurt_nobody {
        did: "sets flags of descriptors and of indirect tables that the specification does not have, and those that do not go together",
        must_not: "stop the queue",
        ends: Served,
    }
    a_table_that_was_not_agreed_on_hurts_nobody {
        did: "offers an indirect table without having agreed on such",
        must_not: "stop the queue",
        ends: Served,
    }
    a_flush_that_carries_more_than_it_needs_is_served {
        did: "flushes with sectors, with data in either direction, and with a priority",
        must_not: "have data written",
        ends: Served,
    }
    ranges_that_meet_each_other_and_the_end_are_served {
        did: "discards and zeroes ranges over each other, of no sectors, and up to the end of the disk, and one sector more",
        must_not: "change a sector beside them",
        ends: Served,
    }
    requests_for_the_same_sectors_at_once_are_all_served {
        did: "reads, writes, discards and zeroes the same sectors, 64 times at once",
        must_not: "have one wait for another for ever",
        ends: Served,
    }
}
