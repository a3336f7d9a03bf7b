//! Devices of the host program's own that panic or give up, in each of their calls.

#[path = "support/trap.rs"]
mod trap;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use trap::{Bait, End, Trap};
use vmcell::event::{Event, Io, IoThread, Waker, Wants};
use vmcell::meter::Meter;
use vmcell::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
use vmcell::virtio::spec::{mmio, status};
use vmcell::virtio::{Activation, Chain, DeviceInfo, DeviceState, FailureCause, MmioTransport, Queues, VirtioDevice};
use vmcell::{ErrorKind, GuestAddress, GuestMemory, bus::BusDevice};

/// Keeps the first chain that it gets.
struct Device {
    bait: Bait,
    waker: Arc<Mutex<Option<Waker>>>,
    kept: Option<Chain>,
}

impl VirtioDevice for Device {
    fn info(&self) -> DeviceInfo {
        self.bait.call("info");
        DeviceInfo::new(42, &[16])
    }

    fn config(&mut self) -> Vec<u8> {
        self.bait.call("config");
        vec![0; 8]
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        let token = io.token();
        *self.waker.lock().unwrap() = Some(io.waker(token));
        self.bait.call_with("attach", io);
        Ok(())
    }

    fn activate(&mut self, io: &mut Io, _activation: Activation) -> vmcell::Result<()> {
        self.bait.call_with("activate", io);
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> vmcell::Result<()> {
        let Some(queue) = queues.get(index) else { return Ok(()) };
        while let Some(chain) = queue.pop(io)? {
            if self.kept.is_none() {
                self.kept = Some(chain);
                self.bait.call_with("process_queue", io);
            } else {
                queue.complete(chain, 0);
            }
        }
        Ok(())
    }

    fn write_config(&mut self, io: &mut Io, _offset: u64, _data: &[u8]) {
        io.info_changed();
        self.bait.call_with("write_config", io);
    }

    fn wants(&self, _wants: &mut Wants) {
        self.bait.call("wants");
    }

    fn woken(&mut self, io: &mut Io, _queues: &mut Queues, _event: &Event) -> vmcell::Result<()> {
        self.bait.call_with("woken", io);
        Ok(())
    }

    fn quiesce(&mut self, io: &mut Io, queues: &mut Queues) -> vmcell::Result<()> {
        self.bait.call_with("quiesce", io);
        if let (Some(chain), Some(queue)) = (self.kept.take(), queues.get(0)) {
            queue.complete(chain, 0);
        }
        Ok(())
    }

    fn reset(&mut self, io: &mut Io) {
        self.bait.call_with("reset", io);
        self.kept = None;
    }

    fn metrics(&self, _meter: &mut Meter) {
        self.bait.call("metrics");
    }

    fn save(&self) -> vmcell::Result<DeviceState> {
        self.bait.call("save");
        Ok(DeviceState::new(1, []))
    }
}

/// Those that may be the last while the device lives; and whether they are lent what gives up.
const CALLS: [(&str, bool); 10] = [
    ("config", false),
    ("activate", true),
    ("process_queue", true),
    ("write_config", true),
    ("wants", false),
    ("woken", true),
    ("quiesce", true),
    ("reset", true),
    ("save", false),
    ("never", true),
];

struct Rig {
    driver: MmioDriver,
    queue: DriverQueue,
    memory: GuestMemory,
    trap: Trap,
    waker: Arc<Mutex<Option<Waker>>>,
}

fn rig(trap: &Trap) -> vmcell::Result<Rig> {
    let (memory, waker) = (patterned_memory(1 << 20), Arc::default());
    let device = Device { bait: trap.bait(), waker: Arc::clone(&waker), kept: None };
    let io_thread = IoThread::new("test")?;
    let driver = MmioDriver::new(MmioTransport::new(Box::new(device), memory.clone(), &io_thread)?);
    let queue = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
    Ok(Rig { driver, queue, memory, trap: trap.clone(), waker })
}

impl Rig {
    /// Has everything called that is called while the device lives. None of it waits for a device that is gone.
    fn provoke(&mut self) {
        let transport = self.driver.transport();
        self.queue = DriverQueue::new(&self.memory, GuestAddress(0x1000), 16);
        self.driver.bring_up(self.driver.offered(), &[&self.queue]);
        transport.write(mmio::CONFIG, &[1]);
        self.waker.lock().unwrap().as_ref().unwrap().wake();
        self.queue.offer(&[Buffer::writable(0x8000, 4)]);
        self.driver.kick(0);
        let served = || self.trap.was_called("process_queue") || self.needs_reset();
        self.driver.wait_until("the request to be taken", served);
        transport.pause(Duration::from_secs(10)).unwrap();
        let _ = transport.save();
        transport.resume();
        self.driver.write(mmio::STATUS, 0);
    }

    fn needs_reset(&self) -> bool {
        self.driver.status() & status::DEVICE_NEEDS_RESET != 0
    }
}

#[test]
fn a_device_that_ends_itself_is_never_called_again_but_dropped_and_the_host_program_is_told_why() {
    for (call, is_lent) in CALLS {
        for end in [End::Panic, End::GiveUp].into_iter().filter(|end| is_lent || *end == End::Panic) {
            let trap = Trap::default();
            let mut rig = rig(&trap).unwrap();
            trap.set(call, end);
            rig.provoke();
            if call == "never" {
                assert!(!rig.needs_reset());
                assert_eq!((rig.driver.transport().failure(), trap.dropped()), (None, 0));
                CALLS
                    .iter()
                    .filter(|(call, _)| *call != "never")
                    .for_each(|(call, _)| assert!(trap.was_called(call), "{call}"));
                continue;
            }
            rig.driver.wait_until(&format!("{end:?} in {call}"), || rig.needs_reset() && trap.dropped() == 1);
            let failure = rig.driver.transport().failure().unwrap();
            let (cause, did) = match end {
                End::Panic => (FailureCause::Panicked, "panicked"),
                End::GiveUp => (FailureCause::GaveUp, "gave up"),
            };
            let message = format!("the device {did}: told to in {call}");
            assert_eq!((failure.cause, failure.message, failure.count), (cause, message, 1));
            rig.provoke();
            assert!(rig.needs_reset(), "{end:?} in {call}: no reset helps");
            assert_eq!((trap.late(), trap.dropped()), (Vec::new(), 1), "{end:?} in {call}");
            assert_eq!(rig.driver.transport().failure().unwrap().count, 1);
        }
    }
}

#[test]
fn a_device_that_ends_itself_while_it_is_made_is_an_error() {
    for (call, end) in [
        ("info", End::Panic),
        ("config", End::Panic),
        ("metrics", End::Panic),
        ("attach", End::Panic),
        ("attach", End::GiveUp),
    ] {
        let trap = Trap::default();
        trap.set(call, end);
        let error = rig(&trap).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Host);
        assert!(error.to_string().ends_with(&format!("told to in {call}")), "{error}");
        assert_eq!((trap.late(), trap.dropped()), (Vec::new(), 1), "{call}");
    }
}
