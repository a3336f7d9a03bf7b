//! Frames that several threads put in, while the card's thread takes them and falls asleep: in each order of their steps.

use std::sync::Arc;

use super::*;
use crate::error::Result;
use crate::event::{Cause, Event, Io, IoThread, Membership, Participant, Wants};
use crate::sys::EventFd;
use crate::sys::model::check;
use crate::sys::sync::thread;

/// What a card does with its pool, and tells when so many frames have come.
struct Card {
    pool: Arc<Pool>,
    left: usize,
    told: Arc<EventFd>,
}

impl Participant for Card {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.pool.set_waker(io.waker(token));
        Ok(())
    }

    fn turn(&mut self, _io: &mut Io, events: &[Event]) {
        if !events.iter().any(|event| event.cause == Cause::Woken) {
            return;
        }
        let mut filled = VecDeque::new();
        self.pool.exchange(&mut Vec::new(), &mut Vec::new(), &mut filled);
        self.left -= filled.len();
        if self.left == 0 && !filled.is_empty() {
            self.told.signal();
        }
    }

    fn wants(&self, _wants: &mut Wants) {}
}

fn card(left: usize) -> (Arc<Pool>, Arc<EventFd>, Membership) {
    let io_thread = IoThread::new("model-io").unwrap();
    // How long it looks depends on the clock.
    io_thread.set_polling(std::time::Duration::ZERO);
    let (pool, told) = (Arc::new(Pool::default()), Arc::new(EventFd::new().unwrap()));
    let card = Card { pool: Arc::clone(&pool), left, told: Arc::clone(&told) };
    let membership = io_thread.add(Box::new(card)).unwrap();
    (pool, told, membership)
}

fn frame(generation: u64) -> Landing {
    Landing { buffers: Vec::new(), generation }
}

#[test]
fn each_frame_that_was_rung_for_is_taken() {
    check(|| {
        let (pool, told, _membership) = card(4);
        let senders = [0, 1].map(|_| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || {
                for _ in 0..2 {
                    pool.put(frame(0), VnetHeader::default(), 0);
                    pool.ring();
                }
            })
        });
        told.wait();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn a_frame_in_buffers_that_were_recalled_is_dropped_and_those_after_it_are_taken() {
    check(|| {
        let (pool, told, _membership) = card(1);
        let sender = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || {
                pool.recall(&mut RxReturn::default());
                pool.put(frame(0), VnetHeader::default(), 0);
                pool.ring();
                pool.put(frame(1), VnetHeader::default(), 0);
                pool.ring();
            })
        };
        told.wait();
        sender.join().unwrap();
    });
}
