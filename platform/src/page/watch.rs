//! The thread that looks at what VMs use and notes what becomes of them, and what browsers are told of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::figures::{Meter, Sample};
use super::history::{History, STEP};
use crate::fault::{Context, Result};
use crate::host::{Host, last_lines};
use crate::machine::{Note, Phase};
use crate::serve;

/// So many notes are kept.
const MOST_NOTES: usize = 100;
/// So many of the last lines go with the note of an end.
const LAST_LINES: usize = 20;
/// A browser that is so many messages behind is told everything anew.
const BEHIND: usize = 16;
/// The longest wait, so that the end of the thread is near.
const LOOK: Duration = Duration::from_millis(250);
/// Between two messages, however much happens.
const PAUSE: Duration = Duration::from_millis(100);

/// What is known of a host for those who look at it.
pub struct Watch {
    /// The host.
    pub host: Arc<Host>,
    known: Mutex<Known>,
    told: broadcast::Sender<Bytes>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// Counts looks, so that a browser knows which it has.
    looks: u64,
    sample: Sample,
    history: History,
    notes: VecDeque<Value>,
}

impl Watch {
    /// Nothing is known yet.
    pub fn new(host: Arc<Host>) -> Self {
        let (told, _) = broadcast::channel(BEHIND);
        Self { host, known: Mutex::default(), told, is_over: AtomicBool::new(false) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told from now on.
    pub fn told(&self) -> broadcast::Receiver<Bytes> {
        self.told.subscribe()
    }

    /// Has [`run`](Self::run) return soon.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Looks until it is told to end.
    pub fn run(&self) {
        let (mut meter, mut last, mut next) = (Meter::new(), 0, Instant::now());
        while !self.is_over.load(Ordering::Relaxed) {
            let wait = next.saturating_duration_since(Instant::now()).min(LOOK);
            let notes = self.host.journal.after(last, wait);
            last = notes.last().map_or(last, |note| note.number);
            let is_due = Instant::now() >= next;
            if is_due {
                self.look(&mut meter);
                next = Instant::now().checked_add(STEP).unwrap_or(next);
            }
            for note in &notes {
                self.note(note);
            }
            if is_due || !notes.is_empty() {
                self.tell("state", || self.state());
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn look(&self, meter: &mut Meter) {
        let sample = meter.look(&self.host);
        let mut known = self.known();
        known.looks = known.looks.saturating_add(1);
        known.history.add(&sample);
        known.sample = sample;
    }

    /// Notes what has become of a VM, with its last words if that is trouble.
    fn note(&self, note: &Note) {
        let is_trouble = matches!(note.phase, Phase::Waiting(_) | Phase::Failed(_) | Phase::Unhealthy(_));
        let log = self.host.parts.folder.logs(&note.app).join(format!("{}.log", note.vm));
        let lines = if is_trouble { last_lines(&log, LAST_LINES) } else { Vec::new() };
        let Ok(mut told) = serde_json::to_value(note) else { return };
        put(&mut told, "lines", json!(lines));
        let mut known = self.known();
        if known.notes.len() >= MOST_NOTES {
            known.notes.pop_front();
        }
        known.notes.push_back(told.clone());
        drop(known);
        self.tell("note", || Ok(told));
    }

    /// Tells all browsers, if there are any.
    fn tell(&self, name: &str, what: impl FnOnce() -> Result<Value>) {
        if self.told.receiver_count() == 0 {
            return;
        }
        // If the database cannot be read, what was told last stays.
        if let Ok(what) = what() {
            let _ = self.told.send(event(name, &what));
        }
    }

    /// What is so now. Reads the database, and may block for a moment.
    ///
    /// # Errors
    /// Those of the database.
    fn state(&self) -> Result<Value> {
        let mut apps = serve::status(&self.host, None)?;
        let known = self.known();
        for app in apps.as_array_mut().into_iter().flatten() {
            let name = app["app"].as_str().unwrap_or_default().to_owned();
            put(app, "figures", json!(known.history.app(&name)));
            let figures = known.sample.apps.get(&name);
            for vm in app["vms"].as_array_mut().into_iter().flatten() {
                let number = vm["vm"].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
                put(vm, "figures", json!(figures.and_then(|vms| vms.get(&number))));
            }
        }
        let (sample, all) = (&known.sample, known.history.all());
        Ok(
            json!({ "look": known.looks, "at": sample.at, "size": sample.size, "host": sample.host, "all": all, "apps": apps }),
        )
    }

    /// What is so now, and what was. Reads the database, and may block for a moment.
    ///
    /// # Errors
    /// Those of the database.
    pub fn full(&self) -> Result<Value> {
        let mut state = self.state()?;
        let known = self.known();
        put(&mut state, "history", serde_json::to_value(&known.history).context("figures")?);
        put(&mut state, "notes", json!(known.notes));
        Ok(state)
    }
}

fn put(into: &mut Value, name: &str, what: Value) {
    if let Some(object) = into.as_object_mut() {
        object.insert(name.to_owned(), what);
    }
}

/// A message as browsers read it (server-sent events). JSON has no line breaks.
pub fn event(name: &str, what: &Value) -> Bytes {
    format!("event: {name}\ndata: {what}\n\n").into()
}
