//! Commands for a network card that no driver sends.

use crate::hostile::case::cases;

cases! {
    commands_that_there_are_not_are_refused {
        did: "sends commands of every class on the control queue, for 0, 3 and 65,535 pairs of queues where there are two, too long, too short, and without room for the answer",
        must_not: "have any obeyed, or left without an answer",
        ends: Served,
        needs: { nic: true, pairs: 2 },
    }
    a_storm_of_commands_holds_up_nobody {
        did: "asks for one pair of queues, for two, and for none, as fast as it goes, while both are full of buffers",
        must_not: "have the I/O thread to itself, or keep the host's network from others",
        ends: Either,
        needs: { nic: true, pairs: 2 },
    }
}
