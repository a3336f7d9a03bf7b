//! What is not virtio.

use crate::hostile::case::cases;

cases! {
    accesses_of_any_width_to_ports_hurt_nobody {
        did: "reads and writes 1 to 64 bytes at the ports of timer, interrupt controllers, keyboard, clock, power, panic and serial line, and every value that does not end it at those that could",
        must_not: "have a vCPU or the monitor fail",
        ends: GoesOn,
    }
    accesses_where_nothing_is_hurt_nobody {
        did: "reads and writes 1 to 16 bytes where neither RAM nor a device is",
        must_not: "have a vCPU or the monitor fail",
        ends: GoesOn,
    }
    a_flood_of_the_console_holds_up_nobody {
        did: "writes escape characters to the serial port without a pause",
        must_not: "have the monitor grow, or the I/O thread to itself",
        ends: GoesOn,
    }
    a_sweep_of_privileged_registers_hurts_nobody {
        did: "reads model specific registers by the thousand, also those of hypervisors (and writes them where KVM has hardware below it), asks for leaves of CPUID, executes instructions that there are not, and halts with interrupts off",
        must_not: "have a vCPU or the monitor fail, or not be stopped",
        ends: GoesOn,
        needs: { vcpus: 2, limit: std::time::Duration::from_secs(60) },
    }
    a_triple_fault_ends_the_guest_alone {
        did: "faults with nothing to handle that",
        must_not: "end anything else",
        ends: Ended,
    }
}
