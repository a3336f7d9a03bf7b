//! The system calls of a network card's backend, and the frames that a guest receives.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::buffers::Buffers;
use crate::{clock, tap};

const HEADER: usize = 12;
const ETHERNET: usize = 14;
/// From and to addresses of no one, and a type for experiments: what the guest sends and expects.
const ETHERNET_HEADER: [u8; ETHERNET] = [2, 0, 0, 0, 0xbe, 1, 2, 0, 0, 0, 0xbe, 2, 0x88, 0xb5];
/// How many frames go between two looks at the clock.
const BATCH: u64 = 64;
/// As many places as the guest's queue has, so that no more of them are in a cache than with a guest, and as large.
const PLACES: usize = 256;
const ROOM: usize = 2048;

pub fn send(args: &Args<'_>) -> io::Result<String> {
    let mut tap = tap::open(args.word(1)?)?;
    let (frame, time) = (frame(args)?, Duration::from_millis(args.number("run_ms")?));
    let mut places = Buffers::new(ROOM, PLACES);
    // The header in front of the frame, as in a guest's buffer: the kernel copies aligned bytes in less time.
    let whole = HEADER..HEADER + frame.len();
    (0..PLACES).for_each(|place| places.of(place)[whole.clone()].copy_from_slice(&frame));
    let mut next = (0..PLACES).cycle();
    let (begin, cpu, mut done) = (Instant::now(), clock::cpu_us(), 0);
    while begin.elapsed() < time {
        for place in next.by_ref().take(BATCH as usize) {
            let len = tap.write(&places.of(place)[..whole.end])?;
            assert_eq!(len, whole.end, "a frame is written as a whole");
        }
        done += BATCH;
    }
    Ok(answer(done, begin, cpu))
}

pub fn receive(args: &Args<'_>) -> io::Result<String> {
    let mut tap = tap::open(args.word(1)?)?;
    drain(&mut tap, args.number("warm_frames")?)?;
    drain(&mut tap, args.number("frames")?)
}

fn drain(tap: &mut File, frames: u64) -> io::Result<String> {
    println!("ready");
    let mut typed = [0];
    io::stdin().read_exact(&mut typed)?;
    let mut places = Buffers::new(ROOM, PLACES);
    let (begin, cpu) = (Instant::now(), clock::cpu_us());
    for number in 0..frames {
        let len = tap.read(places.of(number as usize % PLACES))?;
        assert!(len > HEADER, "a frame is read as a whole");
    }
    Ok(answer(frames, begin, cpu))
}

pub fn fill(args: &Args<'_>) -> io::Result<String> {
    let socket = tap::packet_socket(args.word(1)?)?;
    let (mut frame, frames) = (frame(args)?, args.number("frames")?);
    for number in 0..frames {
        frame[ETHERNET..ETHERNET + 4].copy_from_slice(&(number as u32).to_le_bytes());
        // SAFETY: the pointer leads to so many bytes.
        let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent != frame.len() as isize {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(format!("filled {frames}"))
}

fn frame(args: &Args<'_>) -> io::Result<Vec<u8>> {
    let size = args.number("size")? as usize;
    if !(ETHERNET + 4..=ROOM).contains(&size) {
        return Err(io::Error::other("this size is not possible"));
    }
    let mut frame = vec![0; size];
    frame[..ETHERNET].copy_from_slice(&ETHERNET_HEADER);
    Ok(frame)
}

fn answer(done: u64, begin: Instant, cpu: u64) -> String {
    format!("end done={done} us={} cpu_us={}", begin.elapsed().as_micros(), clock::cpu_us() - cpu)
}
