//! The thread of a VM: starts it, gives it its settings, checks it, and starts it again when it has ended.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use vmcell::network::Service;

use super::guest::{Attached, Guest, Launcher, Plan};
use super::health;
use super::phase::Phase;
use super::timed::Timed;
use super::vm::Machine;
use crate::fault::{Context, Fault, Result};
use crate::guest::{CONTROL_PORT, Ended, Message, Settings, Volume};

/// How long a guest may take to boot until its agent answers.
const BOOT: Duration = Duration::from_secs(120);
/// Between two attempts to reach a guest that boots, or a service that starts.
const ATTEMPT: Duration = Duration::from_millis(200);
/// How long the guest may take for all of a message that it has begun, for its settings, and for starting the command.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a guest may take to read what the time is.
const READS: Duration = Duration::from_secs(1);
/// So many checks in a row fail before a VM gets no traffic.
const FAILURES: u32 = 3;
/// The shortest and the longest time before a VM is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A VM that ran for so long is started again at once, as one that fails for the first time.
const STEADY: Duration = Duration::from_secs(120);

/// Starts a VM on a thread of its own. It gets traffic once it is admitted and healthy.
///
/// If `fragile`, it has to be admitted, and an end before its checks pass is for good; otherwise it is started again.
///
/// # Errors
/// The host starts no thread.
pub fn start(plan: Plan, launcher: Arc<dyn Launcher>, service: Service, fragile: bool) -> Result<Arc<Machine>> {
    let machine = Arc::new(Machine::new(plan, service, fragile));
    let kept = Arc::clone(&machine);
    let name = format!("{}-{}", kept.plan.release.app, kept.plan.slot);
    std::thread::Builder::new().name(name).spawn(move || keep(&kept, &*launcher, fragile)).context("a thread")?;
    Ok(machine)
}

fn keep(machine: &Machine, launcher: &dyn Launcher, fragile: bool) {
    let mut backoff = BACKOFF.0;
    loop {
        let began = Instant::now();
        let mut was_healthy = false;
        let why = match run(machine, launcher, &mut was_healthy) {
            Ok(why) => why,
            Err(fault) => fault.message,
        };
        clear(machine);
        if machine.inner().stop {
            return machine.set(Phase::Stopped);
        }
        if fragile && !was_healthy && machine.inner().restarts == 0 {
            return machine.set(Phase::Failed(why));
        }
        machine.set(Phase::Waiting(why));
        backoff = if began.elapsed() > STEADY { BACKOFF.0 } else { backoff };
        if stopped_within(machine, backoff) {
            return machine.set(Phase::Stopped);
        }
        backoff = backoff.saturating_mul(2).min(BACKOFF.1);
        machine.again();
    }
}

/// Ends the VM, if it has not ended, and forgets it.
fn clear(machine: &Machine) {
    let mut inner = machine.inner();
    inner.control = None;
    let guest = inner.guest.take();
    drop(inner);
    machine.leave();
    if let Some(guest) = guest {
        guest.stop();
    }
}

fn stopped_within(machine: &Machine, time: Duration) -> bool {
    let inner = machine.inner();
    let waited = machine.changed.wait_timeout_while(inner, time, |inner| !inner.stop);
    waited.unwrap_or_else(PoisonError::into_inner).0.stop
}

/// Runs the VM once; says how it ended.
fn run(machine: &Machine, launcher: &dyn Launcher, was_healthy: &mut bool) -> Result<String> {
    let guest = launcher.launch(&machine.plan)?;
    machine.inner().guest = Some(Arc::clone(&guest));
    if machine.inner().stop {
        return Ok("it was stopped".into());
    }
    let control = reach(machine, &*guest)?;
    let start = Message::Start(Box::new(settings(machine)?));
    start.write(&mut Timed::new(&control, PATIENCE)).context("the guest's settings")?;
    match next(&control, PATIENCE)? {
        Some(Message::Ready) => {}
        Some(Message::Failed(why)) => return Err(Fault::new(format!("the command does not start: {why}"))),
        _ => return Err(over(&*guest, "the guest did not start the command")),
    }
    machine.plan.kept.used()?;
    machine.inner().control = Some(control.try_clone().context("vsock")?);
    if machine.inner().stop {
        return Ok("it was stopped".into());
    }
    first_checks(machine, &*guest, &control)?;
    *was_healthy = true;
    machine.set(Phase::Healthy);
    watch(machine, launcher, &*guest, &control)
}

/// Waits for the guest's agent.
fn reach(machine: &Machine, guest: &dyn Guest) -> Result<UnixStream> {
    let began = Instant::now();
    loop {
        match guest.connect(CONTROL_PORT, ATTEMPT.saturating_mul(5)) {
            Ok(stream) => return Ok(stream),
            Err(_) if guest.ended().is_some() => return Err(over(guest, "the VM ended before its command ran")),
            Err(fault) if began.elapsed() > BOOT => {
                return Err(Fault::new(format!("the guest has not answered in {} s: {fault}", BOOT.as_secs())));
            }
            Err(_) => {}
        }
        if stopped_within(machine, ATTEMPT) {
            return Err(Fault::new("it was stopped"));
        }
    }
}

fn over(guest: &dyn Guest, what: &str) -> Fault {
    Fault::new(guest.ended().map_or_else(|| what.to_owned(), |how| format!("{what}: {how}")))
}

fn settings(machine: &Machine) -> Result<Settings> {
    let plan = &machine.plan;
    let (spec, image) = (&plan.release.spec, &plan.release.image);
    let mut env = image.env.clone();
    env.extend(spec.env.clone());
    let volume = |attached: &Attached| {
        let (serial, path) = (attached.name.clone(), attached.path.clone());
        Ok(Volume { serial, path, read_only: false, is_new: plan.kept.is_new(&attached.name)? })
    };
    Ok(Settings {
        root: "root".into(),
        command: if spec.command.is_empty() { image.command.clone() } else { spec.command.clone() },
        env,
        secrets: plan.kept.secrets()?,
        working_dir: image.working_dir.clone(),
        user: image.user.clone(),
        hostname: Some(format!("{}-{}", spec.name, plan.slot)),
        volumes: plan.volumes.iter().map(volume).collect::<Result<_>>()?,
        await_address: true,
        nameservers: vec![plan.name_server],
        search: Some("internal".into()),
        stop_signal: None,
        services: spec.services.iter().map(|service| service.port).collect(),
        time_millis: now(),
    })
}

/// Milliseconds since 1970.
fn now() -> Option<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_millis()).ok())
}

/// The next message, if one begins within this time. None: the stream has ended, or nothing came.
fn next(control: &UnixStream, within: Duration) -> Result<Option<Message>> {
    if !readable(control, within) {
        return Ok(None);
    }
    Message::read(&mut Timed::new(control, PATIENCE)).context("what the guest says")
}

fn readable(control: &UnixStream, within: Duration) -> bool {
    let mut polled = [PollFd::new(control, PollFlags::IN)];
    let time = Timespec {
        tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(within.subsec_nanos()),
    };
    poll(&mut polled, Some(&time)).is_ok_and(|ready| ready > 0)
}

/// Checks until all services work.
fn first_checks(machine: &Machine, guest: &dyn Guest, control: &UnixStream) -> Result<()> {
    let (began, grace) = (Instant::now(), machine.plan.release.spec.grace());
    loop {
        let Err(why) = checks(machine, guest) else { return Ok(()) };
        if readable(control, ATTEMPT) {
            return Err(Fault::new(end(guest, control)));
        }
        if machine.inner().stop {
            return Err(Fault::new("it was stopped"));
        }
        if began.elapsed() > grace {
            return Err(Fault::new(format!(
                "its health check has not passed in {}: {why}",
                humantime::format_duration(grace)
            )));
        }
    }
}

fn checks(machine: &Machine, guest: &dyn Guest) -> Result<()> {
    machine.plan.release.spec.services.iter().try_for_each(|service| health::check(guest, service))
}

/// Checks again and again until the command ends; says how it did. Suspends the VM while it is idle.
fn watch(machine: &Machine, launcher: &dyn Launcher, guest: &dyn Guest, control: &UnixStream) -> Result<String> {
    let spec = &machine.plan.release.spec;
    let interval = spec.services.iter().map(|service| service.check.interval).min().unwrap_or(Duration::from_secs(60));
    let interval = spec.idle.map_or(interval, |idle| interval.min(idle));
    let (mut failures, mut sleepless) = (0_u32, false);
    while !readable(control, interval) {
        if machine.phase() == Phase::Suspended {
            continue;
        }
        // The host's clock may have been set, or the guest's may be faster. A guest that does not read has its own time.
        let _ = now().map(|millis| Message::Clock(millis).write(&mut Timed::new(control, READS)));
        if let Err(fault) = checks(machine, guest) {
            failures = failures.saturating_add(1);
            if failures >= FAILURES {
                machine.set(Phase::Unhealthy(fault.message));
            }
            continue;
        }
        failures = 0;
        machine.set_checked();
        let idle = spec.idle.is_some_and(|idle| machine.unused() >= idle && launcher.idle(&machine.plan) >= idle);
        if idle && !sleepless {
            // One that cannot be saved goes on, and is not tried again.
            sleepless = machine.suspend().is_err();
        }
    }
    Ok(end(guest, control))
}

/// Something came from the guest: how its command ended.
fn end(guest: &dyn Guest, control: &UnixStream) -> String {
    match next(control, PATIENCE) {
        Ok(Some(Message::Ended(Ended::Exited(status)))) => format!("the command ended with the exit status {status}"),
        Ok(Some(Message::Ended(Ended::Killed(signal)))) => format!("the command was killed by signal {signal}"),
        Ok(Some(Message::Failed(why))) => why,
        Ok(Some(_)) => "the guest's agent does not keep to the protocol".into(),
        Ok(None) | Err(_) => {
            // The stream ends a moment before the VM is known to have.
            let began = Instant::now();
            while guest.ended().is_none() && began.elapsed() < Duration::from_secs(1) {
                std::thread::sleep(Duration::from_millis(10));
            }
            over(guest, "the VM ended").message
        }
    }
}
