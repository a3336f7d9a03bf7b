use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};
use vmcell_platform::guest::{CONTROL_PORT, EXEC_PORT, FORWARD_PORT, MOST_PIECE, Message, Settings};
use vsock::VsockStream;

use crate::clock;
use crate::link::{self, Link, Listener};
use crate::mounts::{self, Root};
use crate::network;
use crate::processes::{self, Processes, Started};
use crate::program::Program;
use crate::{exec, forward};

/// Commands that run beside the main one at once.
const MOST_EXECS: usize = 64;
/// TCP connections at once.
const MOST_FORWARDS: usize = 1024;
/// What is left when the command has ended has so long to end by itself.
const REST: Duration = Duration::from_secs(2);
/// For the console to take the last of the output.
const PRINT_LIMIT: Duration = Duration::from_secs(10);
const TERMINATE: i32 = 15;

/// All that a guest does, to the end of the machine.
pub fn run() {
    let ended = serve();
    if let Err(why) = ended {
        eprintln!("cell-init: {why}");
        std::thread::sleep(Duration::from_millis(200));
    }
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("cell-init: cannot turn the machine off: {error}");
    }
}

fn serve() -> Result<(), String> {
    let last = mounts::kernel()?;
    // Before the driver is there, so that no connection of the host comes too early.
    let listener = Listener::new(CONTROL_PORT)?;
    if let Some(last) = last {
        mounts::insert(&last);
    }
    let (link, settings) = link::first(&listener);
    let link = Arc::new(link);
    let done = work(&settings, listener, &link).inspect_err(|why| link.tell(Message::Failed(why.clone())));
    link.end();
    done
}

fn work(settings: &Settings, listener: Listener, link: &Arc<Link>) -> Result<(), String> {
    if let Some(millis) = settings.time_millis {
        clock::set(millis)?;
    }
    let root = prepare(settings)?;
    let processes = Processes::new();
    let main = Arc::new(program(settings)?);
    // Before the command runs, so that whoever hears of it can ask.
    let (execs, forwards) = (Listener::new(EXEC_PORT)?, Listener::new(FORWARD_PORT)?);
    let (started, printed) = start(&main, &processes)?;
    link.tell(Message::Ready);
    let (runner, services) = (Arc::clone(&processes), settings.services.clone());
    std::thread::spawn(move || each(&execs, MOST_EXECS, move |stream| exec::serve(stream, &main, &runner)));
    std::thread::spawn(move || each(&forwards, MOST_FORWARDS, move |stream| forward::serve(stream, &services)));
    let (told, pid, signal) = (Arc::clone(link), started.pid, settings.stop_signal.unwrap_or(TERMINATE));
    std::thread::spawn(move || {
        told.serve(&listener, &|stop| {
            // It may be gone, or the number be none.
            let _ = processes.signal(pid, signal);
            std::thread::sleep(Duration::from_millis(stop.grace_millis));
            processes.kill(pid);
        })
    });
    let ended = started.ended.recv().map_err(|_| "nobody knows how the command ended".to_owned())?;
    finish(&root, &printed);
    link.tell(Message::Ended(ended));
    Ok(())
}

fn prepare(settings: &Settings) -> Result<Root, String> {
    let mut root = Root::mount(&settings.root)?;
    for volume in &settings.volumes {
        root.volume(volume)?;
    }
    network::names(settings, &root)?;
    network::begin(settings)?;
    root.enter()?;
    Ok(root)
}

/// The main command, with the environment of all.
fn program(settings: &Settings) -> Result<Program, String> {
    if settings.command.is_empty() {
        return Err("there is no command to run".to_owned());
    }
    let mut env = settings.env.clone();
    env.extend(settings.secrets.clone());
    let name = settings.hostname.clone().unwrap_or_else(|| "localhost".to_owned());
    env.entry("HOSTNAME".to_owned()).or_insert(name);
    if let Some(wrong) = env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(format!(
            "the environment has the name `{}`; allowed are names without `=`",
            wrong.escape_default()
        ));
    }
    let Settings { command, working_dir, user, .. } = settings.clone();
    Ok(Program { command, env, working_dir, user, has_terminal: false })
}

/// Starts the command, whose output goes to the console.
fn start(main: &Program, processes: &Processes) -> Result<(Started, Receiver<()>), String> {
    let named = |error: std::io::Error| format!("cannot start a program: {error}");
    let mut started = processes.start(main.command().stdout(Stdio::piped()).stderr(Stdio::piped())).map_err(named)?;
    let console = || File::options().write(true).open("/dev/console");
    if let Ok(mut settings) = console().and_then(|console| Ok(tcgetattr(&console)?)) {
        // Bytes go to the host as they are.
        settings.make_raw();
        let _ = console().map(|console| tcsetattr(&console, OptionalActions::Now, &settings));
    }
    let (printing, printed) = channel();
    if let (Some(stdout), Ok(console)) = (started.child.stdout.take(), console()) {
        let printing = printing.clone();
        std::thread::spawn(move || pass(stdout, console, &printing));
    }
    if let (Some(stderr), Ok(console)) = (started.child.stderr.take(), console()) {
        std::thread::spawn(move || pass(stderr, console, &printing));
    }
    Ok((started, printed))
}

/// `printing` is closed at the end of the output; nothing is sent by it.
fn pass(mut output: impl Read, mut console: File, _printing: &Sender<()>) {
    let mut piece = vec![0; MOST_PIECE];
    while let Ok(read @ 1..) = output.read(&mut piece) {
        // A console that takes nothing must not hold the command.
        let _ = console.write_all(piece.get(..read).unwrap_or_default());
    }
    let _ = tcdrain(&console);
}

/// Serves each connection on a thread of its own, so many at once.
fn each(listener: &Listener, most: usize, serve: impl Fn(VsockStream) + Clone + Send + 'static) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut stream = listener.accept();
        if open.load(Ordering::Acquire) >= most {
            let _ = Message::Failed(format!("{most} connections to this port are open already")).write(&mut stream);
            continue;
        }
        open.fetch_add(1, Ordering::AcqRel);
        let (serve, counted) = (serve.clone(), Arc::clone(&open));
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
            serve(stream);
            counted.fetch_sub(1, Ordering::AcqRel);
        });
        if thread.is_err() {
            open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Ends all that is left, and makes volumes whole.
fn finish(root: &Root, printed: &Receiver<()>) {
    processes::signal_all(Signal::TERM);
    let began = std::time::Instant::now();
    while began.elapsed() < REST && has_others() {
        std::thread::sleep(Duration::from_millis(10));
    }
    processes::signal_all(Signal::KILL);
    let _ = printed.recv_timeout(PRINT_LIMIT);
    root.leave();
}

/// Is there a program beside this one and the kernel's own threads?
fn has_others() -> bool {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| Pid::from_raw(*pid) != Some(Pid::INIT));
    // Only programs have a command line.
    numbers.into_iter().any(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()))
}
