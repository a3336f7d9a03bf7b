//! What is not virtio: ports, holes in memory, the console, and the processor itself.

use super::{Case, again_and_again, duration_us};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::{clock, memory, port, privileged, second, wide};
use crate::body::report;

pub const CASES: &[Case] = &[
    ("accesses_of_any_width_to_ports_hurt_nobody", |_| {
        report::ready();
        ports();
    }),
    ("accesses_where_nothing_is_hurt_nobody", |_| {
        report::ready();
        holes();
    }),
    ("a_flood_of_the_console_holds_up_nobody", |cmdline| {
        report::ready();
        console(duration_us(cmdline));
    }),
    ("a_sweep_of_privileged_registers_hurts_nobody", sweep),
    ("a_triple_fault_ends_the_guest_alone", |_| {
        report::ready();
        report::line(format_args!("case: an instruction that there is not, and nothing to handle that"));
        clock::sleep_us(10_000);
        fault();
    }),
];

/// The machine's own devices; those of their registers left out that end the guest.
const PORTS: [(u16, u16); 8] = [
    (0x20, 0x22),
    (0x40, 0x44),
    (0x60, 0x64),
    (0x70, 0x72),
    (0xa0, 0xa2),
    (0x3f8, 0x400),
    (0x601, 0x602),
    (0xcf8, 0xd00),
];

fn ports() {
    let mut count = 0;
    for (first, end) in PORTS {
        for port in first..end {
            port::read8(port);
            port::read16(port);
            port::read32(port);
            for value in [0, 0xffff_ffff, 0x5555_5555] {
                port::write8(port, value as u8);
                port::write16(port, value as u16);
                port::write32(port, value);
            }
            let mut bytes = [0; 64];
            port::read_string(port, &mut bytes);
            port::write_string(port, &bytes);
            count += 1;
        }
    }
    count += registers_that_end_a_guest();
    // The serial port as it was: no interrupts, 8 bits, no loopback.
    for (register, value) in [(3, 3), (1, 0), (4, 0)] {
        port::write8(0x3f8 + register, value);
    }
    report::line(format_args!("\ncase: reads and writes of 1 to 64 bytes at {count} ports"));
}

/// By every value and width that does not mean the end: of the keyboard controller, ACPI's sleep and reset registers, and the one for
/// panics, which is told of a crash kernel again and again.
fn registers_that_end_a_guest() -> u32 {
    const SLEEP_ENABLE: u8 = 1 << 5;
    const PORTS: [u16; 4] = [0x64, 0x505, 0x600, 0x602];
    let ends = |port, value: u8| match port {
        0x64 => value == 0xfe,
        0x505 => value & 1 != 0,
        0x600 => value & SLEEP_ENABLE != 0 && value >> 2 & 7 == 5,
        _ => value == 1,
    };
    for port in PORTS {
        for value in 0..=u8::MAX {
            if !ends(port, value) {
                port::write8(port, value);
            }
            let wide = u32::from_ne_bytes([value; 4]);
            port::write16(port, wide as u16);
            port::write32(port, wide);
            // From the port in front, the second byte of the access would be the register's.
            port::write16(port - 1, wide as u16);
        }
        port::read8(port);
        port::read16(port);
        port::read32(port);
    }
    for _ in 0..1000 {
        port::write8(0x505, 2);
    }
    PORTS.len() as u32
}

fn holes() {
    let pages = [
        memory::END,
        0x4000_0000,
        memory::HOLE,
        0xcfff_f000,
        0xd001_3000,
        0xe000_0000,
        0xfec0_1000,
        0xfed0_0000,
        0xffff_f000,
    ];
    for page in pages {
        for offset in [0, 1, 0xff7, 0xff8, 0xfff] {
            // The last bytes below 4 GiB have nothing behind them that is mapped.
            if page + offset < 0xffff_fff0 {
                wide::read_all(page + offset);
                wide::write_all(page + offset, u64::MAX);
            }
        }
    }
    report::line(format_args!("case: reads and writes at {} places in which nothing is", pages.len()));
}

fn console(us: u64) {
    report::line(format_args!("case: a flood of the console"));
    // By single instructions: a string of them keeps the vCPU's thread away from everything else for its whole length.
    let rounds = again_and_again(us, || port::write8(0x3f8, 0x1b));
    report::line(format_args!("\nfigure {rounds} bytes"));
}

/// By the second processor, which halts with interrupts off when it is done, for the test to stop it so.
fn sweep(cmdline: &Cmdline) {
    report::ready();
    let span = if cmdline.text("long").is_some() { 0x2000 } else { 0x400 };
    let writes = cmdline.text("writes").is_some();
    privileged::prepare(span, writes);
    let run: extern "C" fn() -> ! = {
        extern "C" fn run() -> ! {
            // SAFETY: the symbol is code that does not come back, and this processor is in ring 0.
            unsafe { privileged::sweep() }
        }
        run
    };
    report::check(second::start_in_ring_0(run), format_args!("the second processor does not start"));
    let halts = clock::wait_us(60_000_000, || privileged::progress().halts);
    let privileged::Progress { registers, faults, .. } = privileged::progress();
    report::check(halts, format_args!("the sweep ends at {registers} registers and {faults} faults"));
    report::line(format_args!(
        "case: {registers} registers and leaves, writes: {writes}; {faults} instructions faulted"
    ));
}

fn fault() -> ! {
    // SAFETY: the instruction ends this program, which is what is wanted.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
