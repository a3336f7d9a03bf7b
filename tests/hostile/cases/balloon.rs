//! Memory given back as no driver does.

use crate::hostile::case::cases;

cases! {
    a_balloon_gives_back_chains_that_break_the_rules {
        did: "offers circles, tables and buffers that are none to each queue, and pages that are no RAM, are in already, or are not in",
        must_not: "stop a queue, or have a page given back that it did not name",
        ends: Served,
        needs: { balloon: true },
    }
    lists_of_pages_without_end_hold_up_nobody {
        did: "gives two million pages away by one request, and reports all that it has, a hundred times over, as fast as it goes",
        must_not: "have the I/O thread to itself, or the monitor grow",
        ends: Served,
        needs: { balloon: true, may_take_longer: true },
    }
    statistics_without_end_hold_up_nobody {
        did: "offers 8 MiB of statistics again and again",
        must_not: "have the I/O thread to itself, or the monitor grow",
        ends: Served,
        needs: { balloon: true },
    }
    a_guest_that_gives_the_rings_away_hurts_nobody {
        did: "gives away and reports the rings of its balloon and of its disk, and where the disk reads to, while both are at work",
        must_not: "have the monitor fail by memory that is not there",
        ends: Either,
        needs: { balloon: true },
    }
    a_guest_that_gives_all_its_memory_away_ends_alone {
        did: "gives all of its RAM away: its program, its page tables and its stack",
        must_not: "end anything else",
        ends: Ended,
        needs: { balloon: true },
    }
}
