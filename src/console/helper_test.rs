use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::*;
use crate::event::{Event, Io, IoThread, Membership, Participant, Wants};

/// Waits until it may go on.
struct Waiting(Receiver<()>);

impl Errand for Waiting {
    fn run(&mut self) {
        let _ = self.0.recv();
    }
}

fn waiting() -> (Sender<()>, Box<Waiting>) {
    let (go, may_go) = channel();
    (go, Box::new(Waiting(may_go)))
}

/// Hands its waker out.
struct Woken(Sender<Waker>, Sender<()>);

impl Participant for Woken {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.0.send(io.waker(token)).unwrap();
        Ok(())
    }

    fn turn(&mut self, _: &mut Io, events: &[Event]) {
        if !events.is_empty() {
            let _ = self.1.send(());
        }
    }

    fn wants(&self, _: &mut Wants) {}
}

fn helper() -> (Helper<Waiting>, Receiver<()>, Membership) {
    let io_thread = IoThread::new("helper-test").unwrap();
    let ((give, waker), (woken, was_woken)) = (channel(), channel());
    let membership = io_thread.add(Box::new(Woken(give, woken))).unwrap();
    (Helper::new(waker.recv().unwrap()), was_woken, membership)
}

#[test]
fn an_errand_comes_back_and_its_sender_is_woken() {
    let (mut helper, was_woken, _membership) = helper();
    for _ in 0..3 {
        let (go, errand) = waiting();
        helper.send(errand).map_err(|(_, error)| error).unwrap();
        assert!(helper.take_back().is_none());
        go.send(()).unwrap();
        was_woken.recv().unwrap();
        assert!(helper.take_back().is_some());
    }
}

#[test]
fn an_errand_that_takes_for_ever_holds_up_no_end_and_is_counted() {
    let (mut helper, _was_woken, _membership) = helper();
    let (go, errand) = waiting();
    helper.send(errand).map_err(|(_, error)| error).unwrap();
    while !matches!(helper.shared.state().errand, Errands::UnderWay) {
        std::thread::yield_now();
    }
    let begin = Instant::now();
    let shared = Arc::clone(&helper.shared);
    drop(helper);
    assert!(begin.elapsed() < 5 * PATIENCE, "{:?}", begin.elapsed());
    assert!(abandoned_console_threads() > 0 && shared.state().abandoned);
    go.send(()).unwrap();
    while shared.state().abandoned {
        std::thread::yield_now();
    }
}

#[test]
fn a_thread_that_has_nothing_to_do_ends_and_another_one_takes_its_place() {
    let (mut helper, was_woken, _membership) = helper();
    for _ in 0..2 {
        let (go, errand) = waiting();
        go.send(()).unwrap();
        helper.send(errand).map_err(|(_, error)| error).unwrap();
        was_woken.recv().unwrap();
        assert!(helper.take_back().is_some());
        while helper.shared.state().has_thread {
            std::thread::sleep(LINGER / 20);
        }
    }
}
