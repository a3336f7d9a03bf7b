//! The decision to interrupt the driver, and what it costs us to do so.

use std::sync::Arc;

use vmcell::EventFd;
use vmcell::testing::RecordingInterrupt;
use vmcell::virtio::Interrupt;

use crate::piece::Piece;
use crate::queue::Offered;

const ROOM: &str = "interrupt";
const CHAINS: u64 = 64;

pub const PIECES: &[Piece] = &[
    Piece { room: ROOM, name: "recorded", operations: CHAINS, make: || each(RecordingInterrupt::new(), true) },
    Piece { room: ROOM, name: "eventfd", operations: CHAINS, make: || each(Arc::new(Line::new()), true) },
    Piece { room: ROOM, name: "unwanted", operations: CHAINS, make: || each(RecordingInterrupt::new(), false) },
];

/// An edge on an eventfd, as on an irqfd.
struct Line(EventFd);

impl Line {
    fn new() -> Self {
        Self(EventFd::new().expect("the host gives a descriptor"))
    }
}

impl Interrupt for Line {
    fn signal_used(&self, _queue: u16) {
        self.0.signal();
    }

    fn signal_config(&self) {
        self.0.signal();
    }
}

/// Each chain is taken, completed, and told of, if the driver wants that.
fn each(interrupt: Arc<dyn Interrupt>, wanted: bool) -> Box<dyn FnMut()> {
    let mut offered = Offered::interrupting(interrupt);
    Box::new(move || {
        offered.offers.again();
        let begin = offered.offers.driver().used_index();
        let mut io = offered.io.turn_without_clock();
        for position in 0..offered.offers.chains() {
            // The entry that the driver waits for: the next one, or one that does not come.
            let event = begin.wrapping_add(if wanted { position } else { u16::MAX });
            offered.offers.driver().set_used_event(event);
            let chain = offered.queue.pop(&mut io).expect("the queue is sound").expect("a chain is offered");
            offered.queue.complete(chain, 1);
            offered.queue.notify();
        }
    })
}
