//! Requests to a disk that must be refused, or that meet a host that refuses.

use crate::hostile::case::{Storage, cases};

cases! {
    a_request_of_an_unknown_type_is_unsupported {
        did: "sends requests of types from 2 to 4,294,967,295, those of SCSI among them",
        must_not: "get anything but a status of 2",
        ends: Served,
    }
    a_request_past_the_end_of_the_disk_is_refused {
        did: "reads and writes at and across the end, and at sectors whose offset does not fit into 64 bits",
        must_not: "reach another part of the file, or make it grow",
        ends: Served,
        needs: { help: |host, what| host.look(what) },
    }
    a_request_of_half_a_sector_is_refused {
        did: "reads and writes 1 to 4,095 bytes",
        must_not: "get a transfer",
        ends: Served,
    }
    a_read_only_disk_is_not_written_whatever_was_agreed_on {
        did: "agrees on nothing, then writes, discards and zeroes",
        must_not: "change the file",
        ends: Served,
        needs: { read_only: true, help: |host, what| host.look(what) },
    }
    ranges_to_discard_or_zero_that_overflow_are_refused {
        did: "discards and zeroes ranges past the end and past 64 bits, of odd lengths, too many, with unknown flags",
        must_not: "reach another part of the file",
        ends: Served,
    }
    a_storm_of_flushes_holds_up_nobody {
        did: "flushes, 128 times at once, without a pause",
        must_not: "have the I/O thread to itself",
        ends: Served,
        needs: { storage: Storage::File },
    }
    a_short_buffer_for_the_serial_number_is_not_overrun {
        did: "asks for the serial number with room for 0 to 512 bytes",
        must_not: "have more written than there is room for",
        ends: Served,
    }
    an_image_format_in_sector_0_leaves_the_disk_raw {
        did: "writes the first bytes of a QCOW2, VHDX, VMDK, VDI, LUKS or QED image to sector 0, and is started again",
        must_not: "get another file of the host, or a disk that is not raw",
        ends: Served,
        needs: { runs: 7, help: |host, what| host.look(what) },
    }
    a_disk_that_is_cut_short_fails_its_requests_and_serves_the_rest {
        did: "reads behind, across and before the end of a file that was cut in half meanwhile",
        must_not: "hang, or hurt anyone else",
        ends: Served,
        needs: { help: |host, _| host.disk.set_len(host.len / 2).expect("the file can be cut") },
    }
    a_full_host_fails_writes_and_serves_reads {
        did: "writes and flushes, then writes more than the host has room for",
        must_not: "lose the disk, or what was flushed",
        ends: Served,
        needs: { storage: Storage::Small, mib: 4 },
    }
    a_write_without_flush_is_stable_and_holds_up_nobody {
        did: "does not agree on flushing, and sends 32 writes of 64 KiB at once, each of which must be stable when it is done",
        must_not: "have the I/O thread wait for the storage",
        ends: Served,
        needs: { storage: Storage::File },
    }
}
