//! Keeps many VMs running from one thread, with tokio: each has a log of its own, and is started again if it crashes.
//!
//! ```text
//! cargo run --release --example supervisor -- -l /tmp/logs -m 64 vmlinux
//! ```
//!
//! Exit status: 0 all VMs have ended, by themselves or because SIGINT or SIGTERM came; 1 something failed; 2 bad arguments.

mod log;
mod report;
mod vm;

use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use vmcell::{Boot, ErrorKind, Result, Vm, VmConfig};

use crate::log::Log;
use crate::report::host;

const FAILED: u8 = 1;
const BAD_ARGUMENTS: u8 = 2;

/// How long VMs may take to end once they were told to. It is a matter of milliseconds, unless the host hangs.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Keeps VMs running, and starts those again that crash.
#[derive(Parser)]
#[command(name = "supervisor")]
struct Options {
    /// How many VMs
    #[arg(short, value_name = "VMS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    number: u32,
    /// The memory of each in MiB, 16 or more
    #[arg(short, value_name = "MIB", default_value_t = 128)]
    memory: u64,
    /// An initial RAM disk
    #[arg(short, value_name = "PATH")]
    initrd: Option<PathBuf>,
    /// The kernel's command line; a host name is added to it
    #[arg(short, value_name = "TEXT", allow_hyphen_values = true, default_value = "console=ttyS0 panic=-1")]
    cmdline: String,
    /// The folder for the logs
    #[arg(short, value_name = "FOLDER", default_value = ".")]
    logs: PathBuf,
    /// A bzImage or an ELF image
    kernel: PathBuf,
}

impl Options {
    fn describe(&self, name: &str) -> VmConfig {
        let mut boot = Boot::linux(&self.kernel).cmdline(format!("{} hostname={name}", self.cmdline));
        boot.initrd.clone_from(&self.initrd);
        let mut config = VmConfig::new(boot);
        config.name = name.to_owned();
        config.memory.mib = self.memory;
        config
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    // One thread does everything but building VMs, which takes as long as reading a kernel does.
    let runtime = runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
    let supervised = runtime.map_err(|e| host("cannot start tokio", e)).and_then(|tokio| tokio.block_on(run(&options)));
    let Err(error) = supervised else { return ExitCode::SUCCESS };
    let _ = writeln!(io::stderr(), "supervisor: {}", error.chain());
    ExitCode::from(if error.kind() == ErrorKind::InvalidConfig { BAD_ARGUMENTS } else { FAILED })
}

/// Supervises all VMs until each has ended for good, or a signal comes.
async fn run(options: &Options) -> Result<()> {
    // Before the first VM starts, so that no signal is missed.
    let watch_signal = |kind| signal(kind).map_err(|e| host("cannot watch for signals", e));
    let (mut interrupt, mut terminate) =
        (watch_signal(SignalKind::interrupt())?, watch_signal(SignalKind::terminate())?);
    let (quit, is_quitting) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for index in 0..options.number {
        let name = format!("vm-{index}");
        let log = Log::open(options.logs.join(format!("{name}.log")))?;
        tasks.spawn(vm::supervise(options.describe(&name), log, is_quitting.clone()));
    }

    let mut all = pin!(async {
        let mut first_failure = Ok(());
        while let Some(task) = tasks.join_next().await {
            let supervised = task.unwrap_or_else(|e| Err(host("a task failed", e)));
            if supervised.is_err() {
                quit.send_replace(true);
            }
            first_failure = first_failure.and(supervised);
        }
        // Threads of the library free them.
        while Vm::discarded() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
        first_failure
    });
    tokio::select! {
        done = &mut all => return done,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    quit.send_replace(true);
    if let Ok(done) = timeout(END_LIMIT, all).await {
        return done;
    }
    let _ = writeln!(io::stderr(), "supervisor: not all VMs have ended after {END_LIMIT:?}");
    // Dropping what is left would wait for it.
    std::process::exit(FAILED.into())
}
