//! Chains that break the rules.

use crate::hostile::case::cases;

cases! {
    a_chain_that_is_a_circle_is_given_back {
        did: "offers chains of one, two and all descriptors that lead back to their beginning, also in a table",
        must_not: "have the device follow them for ever",
        ends: Served,
    }
    a_chain_longer_than_the_queue_is_given_back {
        did: "offers indirect tables of 257 to 65,536 descriptors",
        must_not: "have the device gather them all",
        ends: Served,
    }
    a_chain_that_leaves_its_table_is_given_back {
        did: "offers descriptors whose successor lies behind the end of the table",
        must_not: "have the device read there",
        ends: Served,
    }
    a_table_inside_a_table_is_given_back {
        did: "offers indirect tables that hold another one, or themselves, or have a successor",
        must_not: "have the device go down without end",
        ends: Served,
    }
    a_table_of_an_odd_length_is_given_back {
        did: "offers indirect tables whose length is 0 or no multiple of 16",
        must_not: "have the device read half a descriptor",
        ends: Served,
    }
    a_table_outside_ram_is_given_back {
        did: "offers indirect tables behind and across the end of RAM, on the device, and at the end of 64 bits",
        must_not: "have the device read there",
        ends: Served,
    }
    a_buffer_without_a_length_is_given_back {
        did: "offers header, data or status with a length of 0",
        must_not: "stop the queue",
        ends: Served,
    }
    a_buffer_outside_ram_is_given_back {
        did: "offers buffers behind and across the end of RAM, on devices, of 4 GiB, and such that wrap",
        must_not: "have the device read or write there",
        ends: Served,
    }
    a_chain_of_a_terabyte_is_given_back {
        did: "offers 255 descriptors of up to 4 GiB, so that the sum does not fit into 32 bits",
        must_not: "have the device allocate or count wrongly",
        ends: Served,
    }
    a_request_in_the_wrong_order_is_given_back {
        did: "offers headers behind data, write-only headers, read-only status bytes, and parts alone",
        must_not: "have the device write what it may only read",
        ends: Served,
    }
    a_stream_of_bad_chains_holds_up_nobody {
        did: "offers circles of 256 descriptors as fast as they are given back",
        must_not: "have the I/O thread to itself",
        ends: Served,
    }
}
