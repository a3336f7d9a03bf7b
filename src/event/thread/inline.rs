//! An I/O thread without a thread: whoever calls [`serve_once`](IoThread::serve_once) serves the participants.

use super::*;
use crate::event::{Event, Io, Wants};

/// How often in a row a call that waits for a participant finds it with nothing to do. Then it waits in vain.
const MOST_IDLE_LOOKS: usize = 200;

/// A participant whose turns end by their bytes alone.
struct Unclocked(Box<dyn Participant>);

impl Participant for Unclocked {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        io.ignore_clock();
        self.0.attach(io)
    }

    fn turn(&mut self, io: &mut Io, events: &[Event]) {
        io.ignore_clock();
        self.0.turn(io, events);
    }

    fn wants(&self, wants: &mut Wants) {
        self.0.wants(wants);
    }
}

impl IoThread {
    /// One without a thread. A call that waits for a participant serves it meanwhile.
    pub(crate) fn inline() -> Result<Self> {
        let bell = Arc::new(Bell::new()?);
        bell.polling.set_limit(Duration::ZERO);
        let shared = Arc::new(Shared::new("inline", Arc::clone(&bell)));
        let _ = shared.tid.set(0);
        let _ = shared.inline.set(Mutex::new(Reactor::new(Arc::clone(&bell))?.without_ring()));
        let (served, idle) = (Arc::downgrade(&shared), AtomicUsize::new(0));
        let serve = move || {
            let turns = served.upgrade().map_or(0, |shared| shared.serve_once());
            let looks = if turns > 0 { 0 } else { idle.load(Ordering::Relaxed).saturating_add(1) };
            idle.store(looks, Ordering::Relaxed);
            assert!(looks < MOST_IDLE_LOOKS, "a call waits for a participant that has nothing to do");
            turns > 0
        };
        let _ = bell.inline.set(Box::new(serve));
        Ok(Self { joiner: Arc::new(Joiner { shared, thread: Mutex::new(None) }) })
    }

    /// Does one round without waiting, and says how many turns that were.
    pub(crate) fn serve_once(&self) -> usize {
        self.joiner.shared.serve_once()
    }
}

impl Shared {
    fn serve_once(&self) -> usize {
        let Some(reactor) = self.inline.get() else { return 0 };
        let mut reactor = lock(reactor);
        // One that was called does not wait.
        self.bell.called.store(true, Ordering::SeqCst);
        let turns = reactor.round().unwrap_or(0);
        self.take_posts(&mut reactor);
        turns
    }

    pub(super) fn take_posts_inline(&self) {
        if let Some(reactor) = self.inline.get() {
            self.take_posts(&mut lock(reactor));
        }
    }

    pub(super) fn prepare_inline(&self, participant: Box<dyn Participant>) -> Box<dyn Participant> {
        if self.inline.get().is_some() { Box::new(Unclocked(participant)) } else { participant }
    }
}
