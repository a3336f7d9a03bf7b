//! NIC backends that panic or give up, in each of their calls.

#[path = "support/trap.rs"]
mod trap;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use trap::{Bait, End, Trap};
use vmcell::event::{Event, Io, IoThread, Waker, Wants};
use vmcell::meter::Meter;
use vmcell::net::{Need, NicBackend, NicInfo, Offloads, RxBatch, TxBatch, VnetHeader};
use vmcell::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
use vmcell::virtio::spec::{mmio, status};
use vmcell::virtio::{FailureCause, MmioTransport};
use vmcell::{GuestAddress, GuestMemory, Nic};

/// Delivers a frame for each one that it sends.
struct Echo {
    bait: Bait,
    waker: Arc<Mutex<Option<Waker>>>,
    waiting: usize,
}

impl NicBackend for Echo {
    fn info(&self) -> NicInfo {
        self.bait.call("info");
        NicInfo::default()
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        let token = io.token();
        *self.waker.lock().unwrap() = Some(io.waker(token));
        self.bait.call_with("attach", io);
        Ok(())
    }

    fn negotiate(&mut self, _guest: Offloads) -> vmcell::Result<()> {
        self.bait.call("negotiate");
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        while self.waiting > 0 && frames.has_room(io) {
            self.waiting -= 1;
            frames.put(io, &VnetHeader::default(), &[7; 60]);
        }
        self.bait.call_with("receive", io);
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        while frames.next(io).is_some() {
            self.bait.call_with("send", io);
            frames.done();
            self.waiting += 1;
        }
        // The test's own wake may have come before the frame.
        self.waker.lock().unwrap().iter().for_each(Waker::wake);
    }

    fn wants(&self, _need: Need, _wants: &mut Wants) {
        self.bait.call("wants");
    }

    fn woken(&mut self, io: &mut Io, _event: &Event) {
        // The device looks at the link.
        io.info_changed();
        self.bait.call_with("woken", io);
    }

    fn metrics(&self, _meter: &mut Meter) {
        self.bait.call("metrics");
    }
}

/// Those that may be the last while the card lives; and whether they are lent what gives up.
const CALLS: [(&str, bool); 7] = [
    ("info", false),
    ("negotiate", false),
    ("receive", true),
    ("send", true),
    ("wants", false),
    ("woken", true),
    ("never", true),
];

struct Rig {
    driver: MmioDriver,
    receive: DriverQueue,
    send: DriverQueue,
    memory: GuestMemory,
    waker: Arc<Mutex<Option<Waker>>>,
}

fn queues(memory: &GuestMemory) -> (DriverQueue, DriverQueue) {
    (DriverQueue::new(memory, GuestAddress(0x1000), 16), DriverQueue::new(memory, GuestAddress(0x3000), 16))
}

/// A card with a backend that may end itself, and, if there are two pairs, one that does not.
fn rig(trap: &Trap, other: Option<&Trap>) -> vmcell::Result<Rig> {
    let (memory, waker) = (patterned_memory(1 << 20), Arc::default());
    let echo = |trap: &Trap, waker: &Arc<_>| Box::new(Echo { bait: trap.bait(), waker: Arc::clone(waker), waiting: 0 });
    let mut backends: Vec<Box<dyn NicBackend>> = vec![echo(trap, &waker)];
    backends.extend(other.map(|trap| echo(trap, &Arc::default()) as Box<dyn NicBackend>));
    let io_thread = IoThread::new("test")?;
    let device = Nic::backends(backends).into_device()?;
    let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), &io_thread)?);
    let (receive, send) = queues(&memory);
    Ok(Rig { driver, receive, send, memory, waker })
}

impl Rig {
    /// Sends a frame, and waits until one has come back or the card has failed.
    fn provoke(&mut self) {
        (self.receive, self.send) = queues(&self.memory);
        self.driver.bring_up(self.driver.offered(), &[&self.receive, &self.send]);
        self.waker.lock().unwrap().as_ref().unwrap().wake();
        (0..4).for_each(|index| _ = self.receive.offer(&[Buffer::writable(0x20000 + index * 0x1000, 2048)]));
        self.driver.kick(0);
        self.memory.write(GuestAddress(0x10000), &[0; 72]).unwrap();
        self.send.offer(&[Buffer::readable(0x10000, 72)]);
        self.driver.kick(1);
        self.waker.lock().unwrap().as_ref().unwrap().wake();
        let Self { driver, receive, .. } = self;
        let came = || receive.take_used().is_some() || driver.status() & status::DEVICE_NEEDS_RESET != 0;
        driver.wait_until("a frame to come", came);
        self.driver.transport().pause(Duration::from_secs(10)).unwrap();
        self.driver.transport().resume();
    }

    fn needs_reset(&self) -> bool {
        self.driver.status() & status::DEVICE_NEEDS_RESET != 0
    }
}

#[test]
fn a_nic_backend_that_ends_itself_is_never_called_again_but_dropped_and_the_host_program_is_told_why() {
    for several in [false, true] {
        for (call, is_lent) in CALLS {
            for end in [End::Panic, End::GiveUp].into_iter().filter(|end| is_lent || *end == End::Panic) {
                let (trap, other) = (Trap::default(), Trap::default());
                let mut rig = rig(&trap, several.then_some(&other)).unwrap();
                trap.set(call, end);
                rig.provoke();
                if call == "never" {
                    assert_eq!((rig.needs_reset(), rig.driver.transport().failure(), trap.dropped()), (false, None, 0));
                    let all = CALLS.iter().filter(|(call, _)| *call != "never");
                    all.for_each(|(call, _)| assert!(trap.was_called(call), "{call}"));
                    continue;
                }
                rig.driver.wait_until(&format!("{end:?} in {call}"), || rig.needs_reset() && trap.dropped() == 1);
                let failure = rig.driver.transport().failure().unwrap();
                let (cause, did) = match end {
                    End::Panic => (FailureCause::Panicked, "panicked"),
                    End::GiveUp => (FailureCause::GaveUp, "gave up"),
                };
                let message = format!("the backend {did}: told to in {call}");
                assert_eq!((failure.cause, &failure.message), (cause, &message));
                // A driver that begins anew hears that nothing has changed.
                rig.driver.write(mmio::STATUS, 0);
                rig.provoke();
                assert!(rig.needs_reset());
                assert_eq!(rig.driver.transport().failure().unwrap().message, message);
                assert_eq!((trap.late(), trap.dropped(), other.dropped()), (Vec::new(), 1, 0), "{end:?} in {call}");
                drop(rig);
                assert_eq!(other.dropped(), usize::from(several));
            }
        }
    }
}

#[test]
fn a_nic_backend_that_ends_itself_while_the_card_is_made_is_an_error() {
    for (call, end) in [("info", End::Panic), ("metrics", End::Panic), ("attach", End::Panic), ("attach", End::GiveUp)]
    {
        let trap = Trap::default();
        trap.set(call, end);
        let error = rig(&trap, None).map(drop).unwrap_err();
        assert!(error.to_string().ends_with(&format!("told to in {call}")), "{error}");
        assert_eq!((trap.late(), trap.dropped()), (Vec::new(), 1), "{call}");
    }
}
