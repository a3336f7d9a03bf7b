//! Guests without a VM, for tests: threads that speak the guest's half of the protocol. The app's environment says how they behave.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::guest::{Guest, Launcher, Plan, Usage};
use crate::fault::{Fault, Result};
use crate::guest::{CONTROL_PORT, EXEC_PORT, Ended, FORWARD_PORT, Message, Settings};

/// Starts fakes, and knows what each was told.
#[derive(Default)]
pub struct Fakes {
    /// In their order.
    pub started: Mutex<Vec<Arc<Fake>>>,
    most: Mutex<usize>,
    /// None starts any more.
    pub refuses: AtomicBool,
}

/// A guest.
pub struct Fake {
    /// What it was made of.
    pub plan: Plan,
    /// What it says that it has used.
    pub usage: Mutex<Usage>,
    /// What it was told.
    pub settings: Mutex<Option<Settings>>,
    ended: Mutex<Option<String>>,
    /// The time that it was told last.
    pub clock: Mutex<u64>,
    control: Mutex<Option<UnixStream>>,
    /// How often it was suspended, and resumed.
    pub turns: Mutex<(u32, u32)>,
    turned: Condvar,
}

impl Fakes {
    /// How many ran at the same time, at the most.
    pub fn most_at_once(&self) -> usize {
        *self.most.lock().unwrap()
    }
}

impl Launcher for Fakes {
    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Guest>> {
        if self.refuses.load(Ordering::SeqCst)
            || plan.release.spec.env.get("MODE").is_some_and(|mode| mode == "refused")
        {
            return Err(Fault::new("the kernel is no kernel"));
        }
        let fake = Arc::new(Fake {
            plan: plan.clone(),
            usage: Mutex::default(),
            settings: Mutex::default(),
            ended: Mutex::default(),
            clock: Mutex::default(),
            control: Mutex::default(),
            turns: Mutex::default(),
            turned: Condvar::new(),
        });
        let mut started = self.started.lock().unwrap();
        started.push(Arc::clone(&fake));
        let run = started.iter().filter(|fake| fake.ended.lock().unwrap().is_none()).count();
        let mut most = self.most.lock().unwrap();
        *most = run.max(*most);
        Ok(Arc::new(Held(fake)))
    }

    fn idle(&self, _: &Plan) -> Duration {
        Duration::MAX
    }
}

struct Held(Arc<Fake>);

impl Guest for Held {
    fn connect(&self, port: u32, _: Duration) -> Result<UnixStream> {
        if self.0.mode() == "dies" {
            *self.0.ended.lock().unwrap() = Some("the guest's kernel panicked".into());
        }
        if self.ended().is_some() {
            return Err(Fault::new("the VM has ended"));
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let fake = Arc::clone(&self.0);
        std::thread::spawn(move || match port {
            CONTROL_PORT => fake.control(theirs),
            FORWARD_PORT => fake.forward(theirs),
            EXEC_PORT => fake.exec(theirs),
            _ => {}
        });
        Ok(ours)
    }

    fn ended(&self) -> Option<String> {
        self.0.ended.lock().unwrap().clone()
    }

    fn usage(&self) -> Usage {
        *self.0.usage.lock().unwrap()
    }

    fn volume(&self, _: &str) -> Option<vmcell::volume::VolumeHandle> {
        None
    }

    fn suspend(&self, _: &std::path::Path) -> Result<()> {
        let mut turns = self.0.turns.lock().unwrap();
        turns.0 += 1;
        let resumed = turns.1;
        if self.0.mode() == "long" {
            let long = Duration::from_secs(60);
            let waited = self.0.turned.wait_timeout_while(turns, long, |turns| turns.1 == resumed).unwrap();
            assert!(!waited.1.timed_out(), "nobody has resumed it");
            return Err(Fault::new("it was resumed before it was suspended"));
        }
        drop(turns);
        if self.0.mode() == "slow" {
            std::thread::sleep(Duration::from_secs(2));
        }
        if self.0.mode() == "sleepless" { Err(Fault::new("it does not sleep")) } else { Ok(()) }
    }

    fn resume(&self) -> Result<()> {
        self.0.turns.lock().unwrap().1 += 1;
        self.0.turned.notify_all();
        Ok(())
    }

    fn stop(&self) {
        self.0.end("it was stopped");
    }
}

impl Fake {
    fn env(&self) -> &BTreeMap<String, String> {
        &self.plan.release.spec.env
    }

    fn mode(&self) -> &str {
        self.env().get("MODE").map_or("", String::as_str)
    }

    /// Ends as a VM does.
    pub fn end(&self, how: &str) {
        self.ended.lock().unwrap().get_or_insert_with(|| how.to_owned());
        if let Some(control) = self.control.lock().unwrap().take() {
            let _ = control.shutdown(std::net::Shutdown::Both);
        }
    }

    fn control(&self, mut stream: UnixStream) {
        let Ok(Some(Message::Start(settings))) = Message::read(&mut stream) else { return };
        *self.settings.lock().unwrap() = Some(*settings);
        if self.mode() == "no-command" {
            return Message::Failed("/bin/x: no such file".into()).write(&mut stream).unwrap();
        }
        *self.control.lock().unwrap() = Some(stream.try_clone().unwrap());
        let _ = Message::Ready.write(&mut stream);
        if self.mode() == "exits" {
            let _ = Message::Ended(Ended::Exited(3)).write(&mut stream);
            return self.end("the guest turned itself off");
        }
        let mut last = Message::read(&mut stream);
        while let Ok(Some(Message::Clock(millis))) = last {
            *self.clock.lock().unwrap() = millis;
            last = Message::read(&mut stream);
        }
        if let Ok(Some(Message::Stop(_))) = last
            && self.mode() != "stubborn"
        {
            let _ = Message::Ended(Ended::Killed(15)).write(&mut stream);
            self.end("the guest turned itself off");
        }
    }

    fn forward(&self, mut stream: UnixStream) {
        let Ok(Some(Message::Forward(_))) = Message::read(&mut stream) else { return };
        if self.mode() == "deaf" || self.ended.lock().unwrap().is_some() {
            return drop(Message::Failed("connection refused".into()).write(&mut stream));
        }
        let _ = Message::Connected.write(&mut stream);
        let mut request = [0; 4096];
        if stream.read(&mut request).is_ok_and(|read| read > 0) {
            let status = if self.mode() == "sick" { 500 } else { 200 };
            let body = format!("release {}", self.plan.release.number);
            let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    }

    fn exec(&self, mut stream: UnixStream) {
        let Ok(Some(Message::Exec(exec))) = Message::read(&mut stream) else { return };
        let _ = Message::Output(exec.command.join(" ").into_bytes()).write(&mut stream);
        let _ = Message::Ended(Ended::Exited(7)).write(&mut stream);
    }
}
