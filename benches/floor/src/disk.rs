//! The system calls of a disk's backend.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};

use crate::args::Args;
use crate::buffers::Buffers;
use crate::clock;

/// Direct transfers need it, and pages are this large.
const BLOCK: usize = 4096;

struct Load {
    file: File,
    write: bool,
    size: usize,
    depth: usize,
    places: u64,
    random: Option<u64>,
    next: u64,
    /// One a request.
    buffers: Buffers,
}

pub fn run(args: &Args<'_>) -> io::Result<String> {
    let mut load = Load::open(args)?;
    load.go(Duration::from_millis(args.number("warm_ms")?))?;
    let (begin, cpu) = (Instant::now(), clock::cpu_us());
    let done = load.go(Duration::from_millis(args.number("run_ms")?))?;
    Ok(format!("end done={done} us={} cpu_us={}", begin.elapsed().as_micros(), clock::cpu_us() - cpu))
}

impl Load {
    fn open(args: &Args<'_>) -> io::Result<Self> {
        let write = args.word(1)? == "write";
        let (size, depth) = (args.number("size")? as usize, args.number("depth")? as usize);
        let mut options = File::options();
        options.read(true).write(write);
        if args.number("direct")? == 1 {
            options.custom_flags(libc::O_DIRECT);
        }
        let file = options.open(args.word(2)?)?;
        let places = file.metadata()?.len() / size as u64;
        if !size.is_multiple_of(BLOCK) || depth == 0 || places == 0 {
            return Err(io::Error::other("this size or depth is not possible"));
        }
        let random = (args.text("order") != Some("next")).then_some(1);
        let buffers = Buffers::new(size, depth);
        Ok(Self { file, write, size, depth, places, random, next: 0, buffers })
    }

    /// Returns how many requests were done in this time.
    fn go(&mut self, time: Duration) -> io::Result<u64> {
        if self.depth == 1 { self.one_by_one(time) } else { self.by_ring(time) }
    }

    fn one_by_one(&mut self, time: Duration) -> io::Result<u64> {
        let (begin, mut done) = (Instant::now(), 0);
        while begin.elapsed() < time {
            let place = self.next_place();
            let at = place * self.size as u64;
            let buffer = self.buffers.of(0);
            if self.write {
                mark(buffer, place);
                self.file.write_all_at(buffer, at)?;
            } else {
                self.file.read_exact_at(buffer, at)?;
            }
            done += 1;
        }
        Ok(done)
    }

    /// A call submits what is due and waits for at least one completion.
    fn by_ring(&mut self, time: Duration) -> io::Result<u64> {
        let mut ring = IoUring::new(self.depth.next_power_of_two() as u32)?;
        let (begin, mut done, mut flying) = (Instant::now(), 0, 0);
        let mut due: Vec<usize> = (0..self.depth).collect();
        loop {
            while let Some(slot) = due.pop() {
                let entry = self.entry(slot);
                // SAFETY: the buffer lives as long as this load, which waits for every completion before it goes.
                unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
                flying += 1;
            }
            if flying == 0 {
                return Ok(done);
            }
            ring.submit_and_wait(1)?;
            let go_on = begin.elapsed() < time;
            for entry in ring.completion() {
                if entry.result() != self.size as i32 {
                    return Err(io::Error::other(format!("a request ended with {}", entry.result())));
                }
                flying -= 1;
                done += 1;
                if go_on {
                    due.push(entry.user_data() as usize);
                }
            }
        }
    }

    fn entry(&mut self, slot: usize) -> squeue::Entry {
        let place = self.next_place();
        let (at, size, fd) = (place * self.size as u64, self.size as u32, types::Fd(self.file.as_raw_fd()));
        let buffer = self.buffers.of(slot);
        let entry = if self.write {
            mark(buffer, place);
            opcode::Write::new(fd, buffer.as_mut_ptr(), size).offset(at).build()
        } else {
            opcode::Read::new(fd, buffer.as_mut_ptr(), size).offset(at).build()
        };
        entry.user_data(slot as u64)
    }

    fn next_place(&mut self) -> u64 {
        let Some(random) = &mut self.random else {
            self.next = (self.next + 1) % self.places;
            return self.next;
        };
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*random >> 32) * self.places) >> 32
    }
}

/// Puts the numbers of the first and the last block into what is written there, as the guest does.
fn mark(buffer: &mut [u8], place: u64) {
    let blocks = (buffer.len() / BLOCK) as u64;
    let (first, last) = (place * blocks, place * blocks + blocks - 1);
    buffer[..8].copy_from_slice(&first.to_le_bytes());
    let end = buffer.len() - 8;
    buffer[end..].copy_from_slice(&last.to_le_bytes());
}
