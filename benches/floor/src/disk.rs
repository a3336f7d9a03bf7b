//! The system calls of a disk's backend.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};

use crate::args::Args;
use crate::clock;

/// Direct transfers need it, and pages are this large.
const BLOCK: usize = 4096;
const LARGE_PAGE: usize = 2 << 20;

struct Load {
    file: File,
    write: bool,
    size: usize,
    depth: usize,
    places: u64,
    random: Option<u64>,
    next: u64,
    buffers: Buffers,
}

/// One buffer a request, in large pages as a guest's memory is.
struct Buffers {
    memory: Vec<LargePage>,
    size: usize,
    write: bool,
}

#[repr(align(0x20_0000))]
#[derive(Clone)]
struct LargePage(#[allow(dead_code, reason = "reached as a slice of bytes")] [u8; LARGE_PAGE]);

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
        let buffers = Buffers::new(size, depth, write);
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
            let buffer = self.buffers.of(0, place);
            if self.write {
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
        let (at, size) = (place * self.size as u64, self.size as u32);
        let (buffer, fd) = (self.buffers.of(slot, place).as_mut_ptr(), types::Fd(self.file.as_raw_fd()));
        let entry = if self.write {
            opcode::Write::new(fd, buffer, size).offset(at).build()
        } else {
            opcode::Read::new(fd, buffer, size).offset(at).build()
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

impl Buffers {
    fn new(size: usize, depth: usize, write: bool) -> Self {
        let mut memory: Vec<LargePage> = Vec::with_capacity((size * depth).div_ceil(LARGE_PAGE));
        // SAFETY: the range is this vector's own. It is a wish: if the kernel refuses, the pages are small.
        unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.capacity() * LARGE_PAGE, libc::MADV_HUGEPAGE) };
        memory.resize(memory.capacity(), LargePage([0; LARGE_PAGE]));
        Self { memory, size, write }
    }

    /// A slot's buffer; for writes with the numbers of the first and the last block, as the guest puts them.
    fn of(&mut self, slot: usize, place: u64) -> &mut [u8] {
        let begin: *mut u8 = self.memory.as_mut_ptr().cast();
        // SAFETY: the large pages are in one piece, made of bytes alone, and as many as all slots take.
        let buffer = unsafe { core::slice::from_raw_parts_mut(begin.add(slot * self.size), self.size) };
        if self.write {
            let blocks = (self.size / BLOCK) as u64;
            let (first, last) = (place * blocks, place * blocks + blocks - 1);
            buffer[..8].copy_from_slice(&first.to_le_bytes());
            buffer[self.size - 8..].copy_from_slice(&last.to_le_bytes());
        }
        buffer
    }
}
