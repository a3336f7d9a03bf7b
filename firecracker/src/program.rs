//! From the command line to the end: one loop, which waits for clients, for the end of the guest, and for signals.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use vmcell::{Exit, Seccomp};

use crate::api::{Action, Call, MetricsTarget, VERSION, VmConfig, route};
use crate::http::{Method, Request, Response};
use crate::jail;
use crate::log::{Level, Log, Settings};
use crate::machine::{Machine, Setup};
use crate::options::Options;
use crate::server::Server;

/// The guest, or the program, failed.
const FAILED: u8 = 1;
/// What was given for the log or the machine cannot be.
const BAD_CONFIGURATION: u8 = 152;
/// The command line was refused.
pub const BAD_ARGUMENTS: u8 = 153;

/// No file of a description or of metadata comes near this, and a device or a pipe may never end.
const MOST_BYTES: u64 = 1 << 20;
/// What clients may take to read the last answers.
const FAREWELL: Duration = Duration::from_millis(100);

/// Why the program ends without a guest that has ended.
#[derive(Debug)]
pub struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The status of the process.
    pub fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Runs a machine until its guest or a signal ends it. Returns what the process returns.
///
/// # Errors
/// If it could not be run.
pub fn run(options: &Options) -> Result<u8, Failure> {
    outlive_long_files().map_err(|why| Failure::new(FAILED, format!("cannot catch SIGXFSZ: {why}")))?;
    let level = options.level.as_deref().map(str::parse).transpose();
    let level = level.map_err(|why| Failure::new(BAD_CONFIGURATION, format!("--level: {why}")))?;
    check_options(options)?;
    use_privileges(options)?;
    let log = Log::new(&options.id);
    set_log(&log, level, options)?;
    if options.boot_timer {
        log.warn("--boot-timer has no effect: vmcell has no such device");
    }
    log.info(format_args!("Running vmcell-firecracker {}, API v{VERSION}", env!("CARGO_PKG_VERSION")));
    let result = Program::new(options, &log).and_then(|mut program| program.run());
    match &result {
        Ok(status) => log.info(format_args!("ends with status {status}")),
        Err(failure) => log.error(format_args!("{failure}; ends with status {}", failure.status)),
    }
    result
}

/// What takes the rights of the user who starts the program, before it has anything open.
fn use_privileges(options: &Options) -> Result<(), Failure> {
    let refused = |option: String| move |why: String| Failure::new(BAD_ARGUMENTS, format!("{option}: {why}"));
    jail::check(&options.jail).map_err(refused("--jail".to_owned()))?;
    if let Some(parent) = &options.parent_cgroup {
        jail::make_and_join(parent, &options.id, &options.cgroup).map_err(refused("--parent-cgroup".to_owned()))?;
    }
    if let (Some(uid), Some(gid)) = (options.uid, options.gid) {
        jail::raise(&options.resource_limit).map_err(refused("--resource-limit".to_owned()))?;
        jail::become_user(uid, gid).map_err(refused(format!("--uid {uid} --gid {gid}")))?;
    }
    Ok(())
}

fn set_log(log: &Log, level: Option<Level>, options: &Options) -> Result<(), Failure> {
    let settings = Settings {
        path: options.log_path.as_deref(),
        level,
        shows_level: options.show_level.then_some(true),
        shows_origin: options.show_log_origin.then_some(true),
        module: options.module.as_deref(),
    };
    log.set(&settings).map_err(|why| {
        Failure::new(FAILED, format!("--log-path {}: {why}", options.log_path.as_deref().unwrap_or_default()))
    })
}

struct Program {
    machine: Machine,
    server: Option<Server>,
    /// Becomes readable by a signal that ends the program.
    signals: UnixStream,
    log: Log,
}

impl Program {
    fn new(options: &Options, log: &Log) -> Result<Self, Failure> {
        // A pipe may keep this waiting: a signal ends the program then, and nothing of it is left.
        let metadata = options.metadata.as_deref().map(|path| read_about("--metadata", path)).transpose()?;
        let config = options.config_file.as_deref().map(|path| read_about("--config-file", path)).transpose()?;
        let signals = signals().map_err(|why| Failure::new(FAILED, format!("cannot wait for signals: {why}")))?;
        let seccomp = if options.no_seccomp { Seccomp::Off } else { Seccomp::Refuse };
        let setup = Setup { id: options.id.clone(), seccomp, most_metadata: options.most_metadata() };
        let server = if options.no_api { None } else { Some(bind(options)?) };
        let mut program = Self { machine: Machine::new(setup, log.clone()), server, signals, log: log.clone() };
        program.prepare(options, metadata, config)?;
        Ok(program)
    }

    /// What the command line says of the machine.
    fn prepare(&mut self, options: &Options, metadata: Option<Text>, config: Option<Text>) -> Result<(), Failure> {
        if let Some(path) = &options.metrics_path {
            self.must(
                &format!("--metrics-path {path}"),
                Call::PutMetrics(MetricsTarget { metrics_path: path.clone() }),
            )?;
        }
        if !options.jail.is_empty() {
            let report = jail::enter(&options.jail, &options.resource_limit)
                .map_err(|why| Failure::new(FAILED, format!("--jail: {why}")))?;
            let whole = if report.is_complete() { "with every layer that was asked for" } else { "" };
            self.log.info(format_args!("jailed {whole}{report}"));
        }
        if let Some((about, text)) = metadata {
            let data = serde_json::from_str(&text).map_err(|why| Failure::new(FAILED, format!("{about}: {why}")))?;
            self.must(&about, Call::PutMmds(data))?;
        }
        let Some((about, text)) = config else { return Ok(()) };
        let config: VmConfig =
            serde_json::from_str(&text).map_err(|why| Failure::new(FAILED, format!("{about}: {why}")))?;
        calls(config).into_iter().try_for_each(|call| self.must(&about, call))
    }

    fn must(&mut self, about: &str, call: Call) -> Result<(), Failure> {
        let served = self.machine.serve(call);
        served.map(drop).map_err(|fault| Failure::new(FAILED, format!("{about}: {}", fault.message())))
    }

    fn run(&mut self) -> Result<u8, Failure> {
        loop {
            let ready = self.wait().map_err(|why| Failure::new(FAILED, format!("cannot wait for clients: {why}")))?;
            if ready.first() == Some(&true) {
                self.log.info("ended by a signal");
                self.flush();
                return Ok(0);
            }
            if let Some(exit) = self.machine.exit() {
                return Ok(self.end(&exit));
            }
            self.machine.turn(Instant::now());
            let Some(server) = &mut self.server else { continue };
            let (machine, log) = (&mut self.machine, &self.log);
            server.turn(ready.get(2..).unwrap_or_default(), Instant::now(), &mut |request| {
                answer(machine, log, &request)
            });
        }
    }

    /// Waits for something to do. Says what is ready: signals, the guest's end, and then what the server waits for.
    fn wait(&mut self) -> io::Result<Vec<bool>> {
        let now = Instant::now();
        let due = self.machine.due(now);
        // As a stand-in for the end of a guest that there is not.
        let none = PollFd::new(&self.signals, PollFlags::empty());
        let ended = self.machine.vm().map_or(none, |vm| PollFd::from_borrowed_fd(vm.ended_fd(), PollFlags::IN));
        let mut polled = vec![PollFd::new(&self.signals, PollFlags::IN), ended];
        self.server.iter().for_each(|server| server.interests(&mut polled));
        let deadline = self.server.as_ref().and_then(|server| server.deadline(now));
        let deadline = deadline.into_iter().chain(due).min();
        let wait = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let wait = wait.map(|wait| Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 60, tv_nsec: 0 }));
        match poll(&mut polled, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
        Ok(polled.iter().map(|polled| !polled.revents().is_empty()).collect())
    }

    fn flush(&mut self) {
        if let Err(why) = self.machine.flush() {
            self.log.error(format_args!("metrics: {why}"));
        }
    }

    fn end(&mut self, exit: &Exit) -> u8 {
        let status = match exit {
            Exit::Failed(_) => FAILED,
            _ => 0,
        };
        if exit.is_crash() {
            self.log.error(exit);
        } else {
            self.log.info(exit);
        }
        self.flush();
        if let Some(server) = &mut self.server {
            let began = Instant::now();
            server.flush(began);
            while server.has_to_tell() && began.elapsed() < FAREWELL {
                std::thread::sleep(Duration::from_millis(1));
                server.flush(Instant::now());
            }
        }
        status
    }
}

/// Serves one request.
fn answer(machine: &mut Machine, log: &Log, request: &Request) -> Response {
    log.info(format_args!("{} {} with {} bytes", request.method.name(), request.path, request.body.len()));
    let routed = route(request);
    let deprecated = matches!(routed, Ok((_, true)));
    if deprecated {
        machine.count_deprecated();
        log.warn(format_args!("{} {} used what is deprecated", request.method.name(), request.path));
    }
    let served = routed.and_then(|(call, _)| machine.serve(call));
    if let Some((group, resource)) = counted(request) {
        machine.count(group, resource, served.is_err());
    }
    let response = served.unwrap_or_else(|fault| {
        log.error(format_args!("refused: {}", fault.message()));
        fault.response()
    });
    response.deprecated(deprecated)
}

/// The names by which metrics count a request.
fn counted(request: &Request) -> Option<(&'static str, &'static str)> {
    let first = request.path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let group = match request.method {
        Method::Get => "get_api_requests",
        Method::Put => "put_api_requests",
        Method::Patch => "patch_api_requests",
        _ => return None,
    };
    let resource = match first {
        "" => "instance_info",
        "version" => "vmm_version",
        "actions" => "actions",
        "boot-source" => "boot_source",
        "drives" => "drive",
        "logger" => "logger",
        "machine-config" => "machine_cfg",
        "metrics" => "metrics",
        "mmds" => "mmds",
        "network-interfaces" => "network",
        "serial" => "serial",
        "vsock" => "vsock",
        _ => return None,
    };
    Some((group, resource))
}

/// A description as the calls that make the same machine, and start it.
fn calls(config: VmConfig) -> Vec<Call> {
    let mut calls = Vec::new();
    calls.extend(config.logger.map(Call::PutLogger));
    calls.extend(config.metrics.map(Call::PutMetrics));
    calls.extend(config.machine_config.map(|machine| Call::SetMachineConfig(machine.into())));
    calls.push(Call::PutBootSource(config.boot_source));
    calls.extend(config.drives.into_iter().map(Call::PutDrive));
    calls.extend(config.network_interfaces.into_iter().map(Call::PutNetworkInterface));
    calls.extend(config.vsock.map(Call::PutVsock));
    calls.extend(config.balloon.map(Call::PutBalloon));
    calls.extend(config.mmds_config.map(Call::PutMmdsConfig));
    calls.extend(config.entropy.map(Call::PutEntropy));
    let refused = |what, why| Call::Unsupported { what, why, only: None };
    calls.extend(config.cpu_config.map(|_| refused("cpu-config", "use a cpu_template of machine-config")));
    calls.extend(config.pmem.first().map(|_| refused("pmem", "use a drive")));
    calls.extend(config.memory_hotplug.map(|_| refused("memory-hotplug", "use a balloon")));
    calls.push(Call::Action(Action::InstanceStart));
    calls
}

fn check_options(options: &Options) -> Result<(), Failure> {
    if let Some(path) = &options.seccomp_filter {
        let message =
            format!("--seccomp-filter {}: the filters are built in; --no-seccomp turns them off", path.display());
        return Err(Failure::new(BAD_ARGUMENTS, message));
    }
    if options.enable_pci {
        return Err(Failure::new(BAD_ARGUMENTS, "--enable-pci: vmcell's devices are on MMIO"));
    }
    Ok(())
}

fn bind(options: &Options) -> Result<Server, Failure> {
    let path = &options.api_sock;
    let later = path_in_jail(path, &options.jail)?;
    let bound = Server::bind(path, options.http_api_max_payload_size).map_err(|why| {
        let is_used = why.kind() == io::ErrorKind::AddrInUse;
        let hint = if is_used { "; a socket that another program has left must be removed first" } else { "" };
        Failure::new(FAILED, format!("Failed to open the API socket at: {}: {why}{hint}", path.display()))
    })?;
    Ok(bound.found_at(later))
}

/// By which path a program in its jail finds its socket, to remove it. It has to be below a folder that it keeps, and there is no other
/// path to that then than the one that was given.
fn path_in_jail(socket: &Path, jail: &[PathBuf]) -> Result<PathBuf, Failure> {
    let folder = socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What is not there is said by whoever needs it.
    let (Ok(folder), Some(name), false) = (fs::canonicalize(folder), socket.file_name(), jail.is_empty()) else {
        return Ok(socket.to_owned());
    };
    let place = |kept: &PathBuf| {
        let beneath = folder.strip_prefix(fs::canonicalize(kept).ok()?).ok()?;
        Some(std::path::absolute(kept).ok()?.join(beneath).join(name))
    };
    jail.iter().find_map(place).ok_or_else(|| {
        let why = "with --jail, it has to be below a folder that is named there";
        Failure::new(BAD_ARGUMENTS, format!("--api-sock {}: {why}", socket.display()))
    })
}

/// Has writes beyond the size that files may have fail, as other faults do. The signal that comes with them would end the program.
fn outlive_long_files() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Makes the signals that end the program readable.
fn signals() -> io::Result<UnixStream> {
    let (readable, written) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, written.try_clone()?)?;
    }
    Ok(readable)
}

/// What messages call a file that an option names, and its text.
type Text = (String, String);

fn read_about(option: &str, path: &Path) -> Result<Text, Failure> {
    let about = format!("{option} {}", path.display());
    let text = read_text(path, &about)?;
    Ok((about, text))
}

fn read_text(path: &Path, about: &str) -> Result<String, Failure> {
    let refused = |why: String| Failure::new(FAILED, format!("{about}: {why}"));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|why| refused(why.to_string()))?;
    file.take(MOST_BYTES.saturating_add(1)).read_to_end(&mut bytes).map_err(|why| refused(why.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MOST_BYTES) {
        return Err(refused(format!("it is longer than {MOST_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|why| refused(why.to_string()))
}
