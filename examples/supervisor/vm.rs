//! The life of one VM, as often as it begins anew.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use vmcell::{Console, ConsoleReader, Exit, Result, Vm, VmConfig};

use crate::log::Log;
use crate::report::{host, say};

/// A VM waits this long after its first crash, and twice as long after each further one.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// After it has run for this long, a crash counts as its first.
const LONG_RUN: Duration = Duration::from_secs(60);

/// Runs a VM, and starts it again for as long as it crashes. If it cannot be started the first time, that is an error; later it
/// counts as a crash, since the host may be short of something for a while.
pub async fn supervise(config: VmConfig, mut log: Log, mut is_quitting: watch::Receiver<bool>) -> Result<()> {
    let (name, mut delay) = (config.name.as_str(), FIRST_DELAY);
    let mut has_run = false;
    loop {
        let begun = Instant::now();
        match run_once(&config, &mut log, &mut is_quitting).await {
            Ok(exit) => {
                say(name, format_args!("ended: {exit}"));
                if !exit.is_crash() {
                    return Ok(());
                }
            }
            Err(error) if has_run => say(name, format_args!("cannot be started: {}", error.chain())),
            Err(error) => return Err(error),
        }
        has_run = true;
        if begun.elapsed() > LONG_RUN {
            delay = FIRST_DELAY;
        }
        say(name, format_args!("restarts in {} ms", delay.as_millis()));
        tokio::select! {
            () = sleep(delay) => delay = LONGEST_DELAY.min(delay * 2),
            () = asked_to_quit(&mut is_quitting) => return Ok(()),
        }
    }
}

/// From a start to the end, which comes early if it is time to quit.
async fn run_once(config: &VmConfig, log: &mut Log, is_quitting: &mut watch::Receiver<bool>) -> Result<Exit> {
    let (console, output, _) = Console::pair()?;
    let builder = config.builder().console(console);
    let started = spawn_blocking(move || {
        let vm = builder.build()?;
        vm.start()?;
        Ok(vm)
    });
    let vm = started.await.map_err(|e| host("a VM was not built", e))??;
    say(&config.name, "started");

    let ended = follow(&vm, output, log, is_quitting).await;
    // Dropping it would hold up the other VMs until the kernel has freed it.
    vm.discard();
    ended
}

/// Copies what the guest prints until it has ended.
async fn follow(
    vm: &Vm,
    output: ConsoleReader,
    log: &mut Log,
    is_quitting: &mut watch::Receiver<bool>,
) -> Result<Exit> {
    let mut guest = pin!(async {
        // The output ends after the guest has.
        log.copy(output).await?;
        has_ended(vm).await.map_err(|e| host("cannot watch for the end of a VM", e))
    });
    tokio::select! {
        done = &mut guest => done?,
        () = asked_to_quit(is_quitting) => {
            // It has nothing to save; a VM with disks would get `request_shutdown` and some time.
            vm.request_stop();
            guest.await?;
        }
    }
    vm.wait_timeout(Duration::ZERO)
}

#[allow(
    deprecated,
    reason = "it asks that the descriptor stay open, as a borrowed one does; tokio before 1.54 has no other call"
)]
async fn has_ended(vm: &Vm) -> io::Result<()> {
    let watched = AsyncFd::with_interest(vm.ended_fd(), Interest::READABLE)?;
    watched.readable().await?.retain_ready();
    Ok(())
}

async fn asked_to_quit(is_quitting: &mut watch::Receiver<bool>) {
    let _ = is_quitting.wait_for(|is_quitting| *is_quitting).await;
}
