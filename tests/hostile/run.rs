//! One case: the bad guest does it beside a good one, and everything is looked at.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use vmcell::virtio::FailureCause;
use vmcell::{Exit, IoThread, Status, Vm, VsockListener};

use super::case::{Case, Ends};
use super::guests::{Neighbour, Pace, Program};
use super::host::cpu_time;
use super::measure::{crowd, has_hardware, is_emulated, own_memory_kib, thread, threads_of_ours, time_in_line};
use super::probe::{Probe, Seen};
use super::scarce::Scarce;
use super::storage::Bench;
use super::verdict::{Findings, Oracle};
use crate::FALLS_SHORT;
use crate::support::{Transcript, is_long};

const IO_THREAD: &str = "hostile-io";
const SOON: Duration = Duration::from_secs(30);
/// A thread that was joined is to be seen in `/proc` for a moment still.
const LINGER: Duration = Duration::from_secs(5);

/// How often a case that takes too long is tried, at most.
const ATTEMPTS: u32 = 3;
/// What the I/O thread does before it comes to another source: its own turn, and one of each of the others.
const TURN: Duration = Duration::from_millis(5);
/// One turn: what is promised, and the one piece of work during which its time runs out.
const ONE_TURN: Duration = Duration::from_millis(2);
/// A look now and then may find the thread asleep over a lock of the kernel's.
const ASLEEP: u32 = 3;
const STOP: Duration = Duration::from_millis(100);
const DROP: Duration = Duration::from_secs(1);
/// The neighbour's longest wait, on a host that others use as well.
const GAP: Duration = Duration::from_secs(1);
/// The neighbour's requests in each of these intervals, one at the least.
const INTERVAL: Duration = Duration::from_millis(100);
const MEMORY_KIB: u64 = 1024;
/// How long the idle I/O thread is watched, and how much of that it may run.
const REST: Duration = Duration::from_millis(100);
const RESTLESS: Duration = Duration::from_millis(10);

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics in every thread, those too that are caught.
fn count_panics() -> usize {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            before(info);
        }));
    });
    PANICS.load(Ordering::Relaxed)
}

/// Limits of CPU time are for processors, not for emulators of such.
fn slack() -> u32 {
    if is_emulated() { 10 } else { 1 }
}

/// Limits by the clock on the wall are for hosts that let our threads run.
fn wall_slack() -> u32 {
    slack() * if crowd() > 1 || Scarce::is_now() { 10 } else { 1 }
}

pub fn run(case: &Case) {
    // The figures are those of the whole process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let bench = match Bench::new(&case.setup) {
        Ok(bench) => bench,
        Err(why) => return println!("{}: skipped: {why}", case.name),
    };
    println!("{}:", case.name);
    let mut findings = attempt(case, &bench);
    for _ in 1..ATTEMPTS {
        if !findings.are_of_time_alone() {
            break;
        }
        println!("  too slow, which a busy host may be: again");
        let bench = Bench::new(&case.setup).expect("it was made before");
        let earlier = std::mem::replace(&mut findings, attempt(case, &bench));
        findings.keep_if_also_in(&earlier);
    }
    findings.judge(case.name, FALLS_SHORT);
}

/// Puts the case to the monitor once.
fn attempt(case: &Case, bench: &Bench) -> Findings {
    let scarce = case.setup.scarce.then(Scarce::begin);
    let mut findings = Findings::default();
    let panics = count_panics();
    let before = threads_of_ours().len();
    side_by_side(case, bench, &mut findings);
    let begin = Instant::now();
    while threads_of_ours().len() > before && begin.elapsed() < LINGER {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(scarce);
    let left = threads_of_ours();
    findings.check(Oracle::Threads, left.len() <= before, format_args!("threads are left over: {left:?}"));
    let panicked = count_panics() - panics;
    findings.check(Oracle::Panic, panicked == 0, format_args!("{panicked} threads panicked"));
    findings
}

/// Everything that lives on the I/O thread, and the thread itself, is gone when this returns.
fn side_by_side(case: &Case, bench: &Bench, findings: &mut Findings) {
    let io_thread = IoThread::new(IO_THREAD).expect("the host gives a thread");
    let number = thread(IO_THREAD);
    let program = Program::new();
    let mut stage = Stage {
        neighbour: Neighbour::start(&program, &io_thread),
        probe: Some(Probe::new(&io_thread, number)),
        io_thread,
        number,
        program,
    };
    for run in 1..=case.setup.runs {
        stage.act(case, bench, run, findings);
    }
}

/// What stands ready for a case.
struct Stage {
    neighbour: Neighbour,
    probe: Option<Probe>,
    io_thread: IoThread,
    number: i32,
    program: Program,
}

impl Stage {
    fn act(&mut self, case: &Case, bench: &Bench, run: u32, findings: &mut Findings) {
        let (vm, transcript) = self.bad_guest(case, bench, run);
        let own = own_memory_kib();
        let watch = self.probe.take().expect("given back each time").watch();
        self.neighbour.begin();
        self.io_thread.measure_turns();
        let begin = Instant::now();
        type_into(&vm, b'g');
        let finished = attend(&vm, &transcript, case, bench);
        let took = begin.elapsed();
        let longest = self.io_thread.longest_turn();
        let (probe, seen) = watch.end();
        self.probe = Some(probe);
        // Its threads may be on their way to the end still.
        let exit = if vm.status() == Status::Ended { vm.wait_timeout(SOON).ok() } else { None };
        let stopped = if finished { None } else { Some(stop(&vm, findings)) };
        let pace = self.neighbour.pace();
        self.neighbour.rest();
        let idle = self.idle();
        let left = own_memory_kib();
        print(&transcript, took, &seen, &pace, idle, own, left);
        let stopped = stopped.unwrap_or_else(|| stop(&vm, findings));
        judge_failures(case, &vm, findings);
        let begin = Instant::now();
        drop(vm);
        let dropped = begin.elapsed();
        println!("  longest turn {longest:?}; stopped in {stopped:?}, dropped in {dropped:?}");
        findings.check(Oracle::Stop, dropped < DROP * wall_slack(), format_args!("dropping it took {dropped:?}"));
        let in_time = finished || case.setup.may_take_longer;
        findings.check(Oracle::Finished, in_time, format_args!("the guest was not done in {:?}", case.setup.limit));
        let within = longest < ONE_TURN * slack();
        findings.check(Oracle::Turn, within, format_args!("a turn took {longest:?} of CPU time"));
        judge_seen(&seen, own, left, findings);
        judge_idle(idle, findings);
        judge_pace(&pace, findings);
        judge_words(&transcript.text(), findings);
        if finished {
            judge_end(case, &transcript.text(), exit, findings);
        }
        self.judge_neighbour(findings);
    }

    fn bad_guest(&self, case: &Case, bench: &Bench, run: u32) -> (Vm, Transcript) {
        let (builder, transcript) = self.program.vm(case.name, &parameters(run), &self.io_thread);
        let vm = bench.furnish(builder, &case.setup).vcpus(case.setup.vcpus).build().expect("the bad guest is built");
        if case.setup.vsock {
            let listener = vm.vsock().and_then(|vsock| vsock.listen(80)).expect("it listens");
            std::thread::spawn(move || never_read(&listener));
        }
        vm.start().expect("the bad guest starts");
        transcript.expect("ready", SOON);
        (vm, transcript)
    }

    /// How much CPU time the I/O thread takes while nobody asks it for anything.
    fn idle(&self) -> Option<Duration> {
        // The console looks for more output for a moment.
        std::thread::sleep(Duration::from_millis(20));
        let before = cpu_time(self.number)?;
        std::thread::sleep(REST);
        Some(cpu_time(self.number)?.saturating_sub(before))
    }

    /// The neighbour is as well as ever when the bad guest is gone.
    fn judge_neighbour(&mut self, findings: &mut Findings) {
        findings.check(Oracle::Threads, cpu_time(self.number).is_some(), "the I/O thread is gone");
        let running = self.neighbour.vm().status() == Status::Running;
        findings.check(Oracle::Neighbour, running, "the neighbour does not run any more");
        if running {
            self.neighbour.begin();
            self.neighbour.go_on();
            std::thread::sleep(Duration::from_millis(30));
            let pace = self.neighbour.pace();
            findings.check(Oracle::Neighbour, pace.done > 0, "the neighbour is not served any more");
        }
    }
}

/// Has a few connections of the guest at a time, until the VM ends.
fn never_read(listener: &VsockListener) {
    let mut streams = std::collections::VecDeque::new();
    while let Ok(stream) = listener.accept() {
        streams.push_back(stream);
        if streams.len() > 16 {
            streams.pop_front();
        }
    }
}

/// Beside its name, what a case is told: which run it is, and how long it should go on if it could do so for ever.
fn parameters(run: u32) -> String {
    // What no guest could do where KVM runs ring 0 itself, instruction by instruction, it need not try there.
    let writes = if has_hardware() { " writes=1" } else { "" };
    let load = if is_long() { "ms=10000 long=1" } else { "ms=300" };
    format!("run={run} {load}{writes}")
}

fn type_into(vm: &Vm, byte: u8) {
    assert_eq!(vm.write_console(&[byte]), 1, "the guest reads no commands");
}

/// Sees the guest through its case; says whether it came to the end in time.
fn attend(vm: &Vm, transcript: &Transcript, case: &Case, bench: &Bench) -> bool {
    // One that may take longer is looked at for as long as the case says, and no more.
    let longer = match (case.setup.may_take_longer, is_long()) {
        (true, _) => slack(),
        (false, true) => 10 * wall_slack(),
        (false, false) => wall_slack(),
    };
    let deadline = Instant::now() + case.setup.limit * longer;
    let mut helped = 0;
    loop {
        let ended = transcript.wait_until(Duration::from_millis(5), |text| text.contains("done\n"));
        let text = transcript.text();
        for what in text.lines().filter_map(|line| line.strip_prefix("ask ")).skip(helped) {
            if !text.contains(&format!("ask {what}\n")) {
                break;
            }
            (case.setup.help)(&bench.host(), what);
            helped += 1;
            type_into(vm, b'g');
        }
        if ended || vm.status() == Status::Ended {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
    }
}

/// Stops the VM; the time that others had the processor meanwhile is not its own.
fn stop(vm: &Vm, findings: &mut Findings) -> Duration {
    let slack = wall_slack();
    let (begin, in_line) = (Instant::now(), time_in_line());
    let stopped = vm.stop();
    let took = begin.elapsed().saturating_sub(time_in_line().saturating_sub(in_line));
    findings.check(Oracle::Stop, took < STOP * slack, format_args!("stopping it took {took:?}"));
    if let Err(error) = stopped {
        // On a crowded host it may be a vCPU's thread that waits for a processor.
        findings.check(Oracle::Stop, slack > 1, format_args!("stopping it: {error}"));
    }
    took
}

fn judge_seen(seen: &Seen, before: u64, after: u64, findings: &mut Findings) {
    // A probe that others can hold up sees the next turns as a part of this one.
    let turn = TURN * slack() * if seen.urgent { 1 } else { 5 };
    let cpu = seen.worst_cpu;
    findings.check(
        Oracle::Turn,
        cpu < turn,
        format_args!("the I/O thread ran for {cpu:?} before it came to another source"),
    );
    let (asleep, call) = (seen.asleep, seen.asleep_in.unwrap_or_default());
    findings.check(
        Oracle::Blocks,
        asleep < ASLEEP,
        format_args!("the I/O thread slept in {call}, {asleep} looks long"),
    );
    let (peak, left) = (seen.peak_kib.saturating_sub(before), after.saturating_sub(before));
    findings.check(Oracle::Memory, peak < MEMORY_KIB, format_args!("the monitor grew by {peak} KiB for a time"));
    findings.check(Oracle::Memory, left < MEMORY_KIB, format_args!("the monitor grew by {left} KiB"));
}

fn judge_idle(idle: Option<Duration>, findings: &mut Findings) {
    if let Some(idle) = idle {
        let what = format_args!("the I/O thread ran for {idle:?} of {REST:?} without anything to do");
        findings.check(Oracle::Idle, idle < RESTLESS * slack(), what);
    }
}

fn judge_pace(pace: &Pace, findings: &mut Findings) {
    let Pace { done, wrong, worst, within } = *pace;
    findings.check(Oracle::Neighbour, wrong == 0, format_args!("{wrong} requests of the neighbour went wrong"));
    findings.check(Oracle::Neighbour, worst < GAP * wall_slack(), format_args!("the neighbour waited for {worst:?}"));
    let least = u64::try_from(within.as_nanos() / (INTERVAL * wall_slack()).as_nanos()).unwrap_or(u64::MAX);
    findings.check(Oracle::Neighbour, done >= least, format_args!("the neighbour had {done} requests in {within:?}"));
}

fn judge_failures(case: &Case, vm: &Vm, findings: &mut Findings) {
    let may_fail = matches!(case.ends, Ends::AfterReset | Ends::Either | Ends::Ended);
    let mut told = case.setup.told.is_none();
    for failure in vm.device_failures() {
        let is_told = case.setup.told.is_some_and(|what| failure.to_string().contains(what));
        let is_expected = is_told || may_fail && failure.failure.cause == FailureCause::BrokenQueue;
        findings.check(Oracle::Failures, is_expected, format_args!("{failure}"));
        told |= is_told;
    }
    findings.check(Oracle::Failures, told, format_args!("the host program is not told {:?}", case.setup.told));
}

/// What the guest found itself.
fn judge_words(text: &str, findings: &mut Findings) {
    for why in text.lines().filter_map(|line| line.strip_prefix("fail ")) {
        findings.check(Oracle::Guest, false, why);
    }
}

/// How it came to its end.
fn judge_end(case: &Case, text: &str, exit: Option<Exit>, findings: &mut Findings) {
    let served = text.lines().find_map(|line| line.strip_prefix("served "));
    let fits = match case.ends {
        Ends::Served => served == Some("directly"),
        Ends::AfterReset => served == Some("after a reset"),
        Ends::Either => served.is_some(),
        Ends::GoesOn | Ends::Ended => true,
    };
    let wanted = case.ends.words();
    findings.check(Oracle::Ends, fits, format_args!("served {served:?}, but {wanted} was to be"));
    let ended = exit.is_some() == (case.ends == Ends::Ended);
    findings.check(Oracle::Ends, ended, format_args!("the guest ended: {exit:?}, but {wanted} was to be"));
}

#[allow(clippy::too_many_arguments, reason = "one line of figures")]
fn print(words: &Transcript, took: Duration, seen: &Seen, pace: &Pace, idle: Option<Duration>, own: u64, left: u64) {
    for line in words.text().lines().filter(|line| !matches!(*line, "ready" | "done")) {
        println!("  guest: {line}");
    }
    let Seen { probes, worst_cpu, worst_wall, peak_kib, asleep, .. } = seen;
    println!(
        "  took {took:?}; {probes} probes, the I/O thread away for {worst_cpu:?} of CPU time, {worst_wall:?} at most, asleep {asleep}"
    );
    println!(
        "  monitor's own memory: {own} KiB before, {peak_kib} KiB at most, {left} KiB after; idle for {REST:?}: {idle:?}"
    );
    let Pace { done, worst, within, .. } = pace;
    println!("  neighbour: {done} requests in {within:?}, worst gap {worst:?}");
}
