//! What a monitor's system calls cost without a guest, and the few calls that `cargo xtask bench` itself cannot make.
//!
//! ```text
//! floor disk read|write size=BYTES depth=N order=random|next warm_ms=MS run_ms=MS direct=0|1 PATH
//!       at depth 1 pread or pwrite in a loop; deeper, io_uring: one call that submits what is due and waits for one completion
//! floor send size=BYTES run_ms=MS TAP        one write a frame, in a loop, from as many places as a guest's queue has
//! floor receive size=BYTES frames=N warm_frames=N TAP
//!       says `ready`, waits for a `g`, and reads so many frames, one read each, to as many places as a guest's
//!       queue has; warm-up first, then once more
//! floor first-byte     a VM of one instruction that writes to a port, and no device
//! floor fill size=BYTES frames=N TAP         puts frames into the queue of a TAP that a monitor holds
//! floor cached PATH    reads the whole file into the page cache
//! floor uncached PATH  writes the file out and drops it from the page cache
//! floor until WORD COMMAND...
//!       how long it takes from the start of the command until its output has the word
//! floor tsc            the rate of the time stamp counter, in kHz
//! ```
//! The answer is a line as the guest's: `end done=N us=N cpu_us=N`.

mod args;
mod buffers;
mod clock;
mod disk;
mod file;
mod first_byte;
mod frames;
mod tap;
mod until;

use std::io;
use std::process::ExitCode;

use args::Args;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&Args::new(&words)) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args<'_>) -> io::Result<String> {
    match args.word(0)? {
        "disk" => disk::run(args),
        "send" => frames::send(args),
        "receive" => frames::receive(args),
        "fill" => frames::fill(args),
        "first-byte" => first_byte::run(),
        "cached" => file::cache(args.word(1)?),
        "uncached" => file::drop_cached(args.word(1)?),
        "until" => until::run(args.from(1)),
        "tsc" => Ok(clock::tsc_khz().to_string()),
        other => Err(io::Error::other(format!("there is no floor `{other}`"))),
    }
}
