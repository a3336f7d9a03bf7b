use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, kill_process_group, wait, waitid,
};
use vmcell_platform::guest::Ended;

/// Starts programs and hears of their ends. The first program also buries all whose parents are gone.
pub struct Processes {
    /// Who waits for which.
    waiting: Mutex<HashMap<Pid, Sender<Ended>>>,
    began: Condvar,
}

/// A program that was started.
pub struct Started {
    /// Its number, and that of its group.
    pub pid: Pid,
    /// Its streams.
    pub child: Child,
    /// Is told of its end.
    pub ended: Receiver<Ended>,
}

impl Processes {
    pub fn new() -> Arc<Self> {
        let processes = Arc::new(Self { waiting: Mutex::new(HashMap::new()), began: Condvar::new() });
        let reaper = Arc::clone(&processes);
        std::thread::spawn(move || reaper.reap());
        processes
    }

    /// Starts a program. Its end is not missed however early it comes.
    pub fn start(&self, command: &mut Command) -> io::Result<Started> {
        let mut waiting = self.lock();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let (sender, ended) = channel();
        waiting.insert(pid, sender);
        self.began.notify_all();
        Ok(Started { pid, child, ended })
    }

    /// Sends a signal by its number to a program, unless it has ended: its number may be another's by then.
    pub fn signal(&self, pid: Pid, number: i32) -> Result<(), String> {
        let signal = Signal::from_named_raw(number).ok_or_else(|| format!("there is no signal {number}"))?;
        let waiting = self.lock();
        if waiting.contains_key(&pid) { kill_process(pid, signal).map_err(|error| error.to_string()) } else { Ok(()) }
    }

    /// Kills a program and all of its group, unless it has ended.
    pub fn kill(&self, pid: Pid) {
        if self.lock().contains_key(&pid) {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, Sender<Ended>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reap(&self) {
        loop {
            // Only looks, so that none is buried while it is being started.
            match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) => self.bury(),
                Err(Errno::CHILD) => {
                    let waiting = self.lock();
                    if waiting.is_empty() {
                        drop(self.began.wait(waiting));
                    }
                }
                Err(_) => {}
            }
        }
    }

    fn bury(&self) {
        let mut waiting = self.lock();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let (Some(sender), Some(ended)) = (waiting.remove(&pid), ended(status)) {
                // Nobody may wait any more.
                let _ = sender.send(ended);
            }
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    let exited = status.exit_status().map(Ended::Exited);
    exited.or_else(|| status.terminating_signal().map(Ended::Killed))
}

/// Sends a signal to all but the first program.
pub fn signal_all(signal: Signal) {
    // There may be none.
    let _ = kill_process_group(Pid::INIT, signal);
}
