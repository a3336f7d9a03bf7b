//! Several nested hosts side by side, one per CPU core, that share the tests. A host that is lost is started again.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::qemu::{self, Machine, Serial};
use super::queue::{self, Done, Job, Queue};
use super::session::{self, Ended, Session};
use crate::exec::Result;
use crate::guest::Assets;

/// How often a lost host is started again. QEMU 7.2's nested SVM hangs in about 1 of 10 long runs.
const RESTARTS: u32 = 4;

/// The set-up that all hosts share.
pub struct Setup<'a> {
    pub assets: &'a Assets,
    /// Made by [`super::image`], with the tests' binaries on it.
    pub disk: &'a Path,
    pub guest_rootfs: &'a Path,
    /// The folder of the consoles' logs.
    pub logs: &'a Path,
    /// The time limit of one test.
    pub limit: Duration,
}

/// The tests' results, and the hosts that were lost on the way.
pub struct Report {
    pub done: Vec<Done>,
    pub losses: Vec<String>,
}

/// Runs `jobs`; reports to `tell`, at once, each test that ended and each host that was started or lost.
pub fn run(setup: &Setup<'_>, jobs: Vec<Job>, tell: &(dyn Fn(Event<'_>) + Sync)) -> Result<Report> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let (hosts, memory_mib) = qemu::fitting(cores.min(2).min(jobs.len() as u64));
    tell(Event::Note(&format!("starting {hosts} nested host(s) of {memory_mib} MiB")));
    let queue = Queue::new(jobs);
    let losses = Mutex::new(Vec::new());
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let serve = |number| {
            let shard = Shard { number, setup, memory_mib, queue: &queue, losses: &losses, tell };
            scope.spawn(move || shard.serve())
        };
        let threads: Vec<_> = (0..hosts).map(serve).collect();
        // A thread that panicked leaves its tests undone, and that is reported below.
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    let done = queue.into_done("the nested hosts were lost too often");
    Ok(Report { done, losses: losses.into_inner().unwrap_or_else(PoisonError::into_inner) })
}

/// An event that [`run`] reports while it runs.
pub enum Event<'a> {
    Done(&'a Done),
    Note(&'a str),
}

struct Shard<'a> {
    number: u64,
    setup: &'a Setup<'a>,
    memory_mib: u64,
    queue: &'a Queue,
    losses: &'a Mutex<Vec<String>>,
    tell: &'a (dyn Fn(Event<'_>) + Sync),
}

impl Shard<'_> {
    /// Takes tests until there are none, over as many starts of the host as it needs and may have.
    fn serve(&self) -> Result<()> {
        for start in 0..=RESTARTS {
            if self.queue.is_empty() {
                break;
            }
            let console = self.setup.logs.join(format!("nested-{}-{start}.log", self.number));
            let Some(why) = self.serve_once(&console)? else { break };
            let loss =
                format!("nested host {}, start {}: {why}; its console: {}", self.number, start + 1, console.display());
            (self.tell)(Event::Note(&format!("{loss}\n{}", session::tail(&console, 5))));
            self.losses.lock().unwrap_or_else(PoisonError::into_inner).push(loss);
        }
        Ok(())
    }

    /// One start of the host; returns why it was lost, if it was.
    fn serve_once(&self, console: &Path) -> Result<Option<String>> {
        let Setup { assets, disk, guest_rootfs, .. } = *self.setup;
        let machine = Machine {
            assets,
            disk,
            guest_rootfs,
            memory_mib: self.memory_mib,
            serial: Serial::Pipes { console },
            counts_instructions: false,
        };
        let began = Instant::now();
        let mut session = match Session::start(&machine)? {
            Ok(session) => session,
            Err(why) => return Ok(Some(format!("it did not come up: {why}"))),
        };
        (self.tell)(Event::Note(&format!(
            "nested host {} is up after {:.1} s",
            self.number,
            began.elapsed().as_secs_f64()
        )));
        while let Some(job) = self.queue.take() {
            if let Some(why) = self.serve_job(&mut session, job) {
                return Ok(Some(why));
            }
        }
        session.quit();
        Ok(None)
    }

    fn serve_job(&self, session: &mut Session, job: Job) -> Option<String> {
        let (began, mut output) = (Instant::now(), String::new());
        let ended = session.run(&job, self.setup.limit, &mut output);
        let took = began.elapsed();
        let (why, tries) = match ended {
            Ended::Exited(code) => {
                self.finish(job, code, output, took);
                return None;
            }
            // Nested SVM may hang in a guest while the host goes on, so this gets another try too.
            Ended::Late => (format!("no end within {} s", self.setup.limit.as_secs()), queue::TRIES_LATE),
            Ended::Lost(why) => (why, queue::TRIES),
        };
        let loss = format!("{}: {why}", job.name);
        (self.tell)(Event::Note(&format!("{loss}; it had written:\n{output}")));
        self.queue.lost(job, &why, tries, output, took);
        Some(loss)
    }

    fn finish(&self, job: Job, code: i32, output: String, took: Duration) {
        let failure = (code != 0).then(|| format!("exit status {code}"));
        let done = Done { job, failure, output, took };
        (self.tell)(Event::Done(&done));
        self.queue.finish(done);
    }
}
