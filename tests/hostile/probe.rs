//! How long a turn of an I/O thread takes, by the thread's own CPU clock.
//!
//! The probe is a VM that is never started: what is written to its console's input is read by the I/O thread alone. From the
//! moment at which a byte is written until it has been read, the thread can have had at most the turn that it was in, and
//! one for each other source that was ready. Its CPU clock says how much that was, however busy the host is.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmcell::testing::TinyGuest;
use vmcell::{Console, IoThread, Vm};

use super::host::{become_urgent, cpu_time};
use super::measure::{own_memory_kib, sleeps_in};
use crate::support::{Kernel, tiny};

const BETWEEN: Duration = Duration::from_millis(1);
const LOOK: Duration = Duration::from_micros(100);

pub struct Probe {
    _vm: Vm,
    _kernel: Kernel,
    input: PipeWriter,
    /// The same pipe that the I/O thread reads from, to see what is left in it.
    rest: PipeReader,
    thread: i32,
}

/// What was seen while a probe was at work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub probes: u32,
    /// The most CPU time that the I/O thread spent before it came to the probe.
    pub worst_cpu: Duration,
    /// The same by the clock on the wall.
    pub worst_wall: Duration,
    /// How often the I/O thread was found asleep in a system call on a backend, and which.
    pub asleep: u32,
    pub asleep_in: Option<&'static str>,
    /// The most memory that the process had of its own, in KiB.
    pub peak_kib: u64,
    /// Whether the probe ran before all other threads; if not, it sees things late.
    pub urgent: bool,
}

pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Probe, Seen)>,
}

impl Probe {
    pub fn new(io_thread: &IoThread, thread: i32) -> Self {
        let kernel = Kernel::new(&TinyGuest::spin());
        let (source, input) = std::io::pipe().expect("the host gives a pipe");
        let rest = source.try_clone().expect("the host gives descriptors");
        let nowhere = File::options().write(true).open("/dev/null").expect("/dev is there");
        let console = Console::descriptors(nowhere.into(), Some(source.into()));
        let vm = tiny(&kernel).console(console).io_thread(io_thread.clone()).build().expect("the probe is built");
        Self { _vm: vm, _kernel: kernel, input, rest, thread }
    }

    /// Begins to probe, in a thread of its own.
    pub fn watch(mut self) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let watch = move || {
            let mut seen = Seen { urgent: become_urgent(), ..Seen::default() };
            while !told.load(Ordering::Acquire) {
                self.look(&told, &mut seen);
                std::thread::sleep(BETWEEN);
            }
            (self, seen)
        };
        let thread = std::thread::Builder::new().name("probe".into()).spawn(watch).expect("the host gives a thread");
        Watch { stop, thread }
    }

    /// One probe. One that is not answered before the end counts with the time until then.
    fn look(&mut self, stop: &AtomicBool, seen: &mut Seen) {
        let clock = || cpu_time(self.thread).unwrap_or_default();
        let (begin, cpu) = (Instant::now(), clock());
        self.input.write_all(b".").expect("the pipe has room");
        while !stop.load(Ordering::Acquire) && rustix::io::ioctl_fionread(&self.rest).is_ok_and(|rest| rest > 0) {
            std::thread::sleep(LOOK);
            seen.peak_kib = seen.peak_kib.max(own_memory_kib());
            if let Some(call) = sleeps_in(self.thread) {
                seen.asleep += 1;
                seen.asleep_in = Some(call);
            }
        }
        seen.worst_cpu = seen.worst_cpu.max(clock().saturating_sub(cpu));
        seen.worst_wall = seen.worst_wall.max(begin.elapsed());
        seen.probes += 1;
    }
}

impl Watch {
    pub fn end(self) -> (Probe, Seen) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the probe does not panic")
    }
}
