//! What a NIC must keep to, whatever is under it.

use std::time::{Duration, Instant};

use super::frames::{NUMBERED, frame, leave_checksum_undone, packet};
use super::suite::{Rule, Session, Suite, WAYS, Way};
use crate::error::Result as CrateResult;
use crate::event::Io;
use crate::memory::GuestAddress;
use crate::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
use crate::virtio::{Activation, DeviceInfo, MmioTransport, Queues, VirtioDevice};

pub(super) const RULES: &[Rule] = &[
    ("frames of every size pass whole", frames_of_every_size_pass_whole),
    ("frames stay in order, and none comes twice", frames_stay_in_order),
    ("a guest gets all its buffers back", a_guest_gets_its_buffers_back),
    ("frames that find no room do not stop later ones", frames_without_room_do_not_stop_later_ones),
    ("a guest with one buffer at a time gets frames", a_guest_with_one_buffer_gets_frames),
    ("a guest gets nothing undone that it does not cope with", a_guest_gets_nothing_undone),
    ("a driver that begins anew gets frames", a_driver_that_begins_anew_gets_frames),
    ("a pause loses nobody's place", a_pause_is_survived),
    ("others on its thread have their turns", others_have_their_turns),
    ("each pair of queues carries frames", each_pair_carries_frames),
];

/// How long others wait for their turn at most: many turns, on a busy host.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Nothing comes any more.
const QUIET: Duration = Duration::from_millis(50);

fn sizes(largest: usize) -> impl Iterator<Item = usize> {
    let small = 14..130;
    let some = (130..largest).step_by(1009);
    let last = largest.saturating_sub(20).max(130)..=largest;
    small.chain(some).chain(last)
}

fn frames_of_every_size_pass_whole(suite: &Suite) -> Result<(), String> {
    let mut session = suite.session()?;
    for mergeable in [true, false] {
        session.guest.restart(false, mergeable);
        session.guest.fill();
        session.settle()?;
        for size in sizes(suite.largest) {
            WAYS.into_iter().try_for_each(|way| session.pass(way, size))?;
        }
    }
    if session.guest.link_is_up() { Ok(()) } else { Err("the guest sees no link".to_owned()) }
}

fn frames_stay_in_order(suite: &Suite) -> Result<(), String> {
    let mut session = suite.session()?;
    for way in WAYS {
        session.drain(way, QUIET)?;
        let mut numbers = Vec::new();
        for index in 0..600 {
            let number = session.number();
            session.send(way, &packet(number, NUMBERED + index % 200));
            if index % 50 == 0 {
                numbers.extend(session.drain(way, Duration::ZERO)?);
            }
        }
        numbers.extend(session.drain(way, QUIET)?);
        Session::check_order(way, &numbers)?;
        session.pass(way, 64)?;
        if let Some(late) = session.drain(way, QUIET)?.first() {
            return Err(format!("frame {late} arrived {way:?} twice, or late"));
        }
    }
    Ok(())
}

fn a_guest_gets_its_buffers_back(suite: &Suite) -> Result<(), String> {
    let mut session = suite.session()?;
    for _ in 0..20 {
        for _ in 0..32 {
            let number = session.number();
            session.send(Way::Out, &packet(number, 200));
        }
        session.drain(Way::Out, Duration::from_millis(1))?;
        if !session.guest.all_sent(session.patience) {
            return Err(format!("frames that were sent were not given back for {:?}", session.patience));
        }
    }
    Ok(())
}

fn frames_without_room_do_not_stop_later_ones(suite: &Suite) -> Result<(), String> {
    let mut session = suite.session_without_room()?;
    for _ in 0..8 {
        let number = session.number();
        session.send(Way::In, &packet(number, 100));
    }
    std::thread::sleep(Duration::from_millis(5));
    for _ in 0..3 {
        session.guest.offer(1);
        std::thread::sleep(Duration::from_millis(1));
    }
    session.guest.fill();
    let numbers = session.drain(Way::In, QUIET)?;
    Session::check_order(Way::In, &numbers)?;
    session.settle()?;
    session.pass(Way::In, 100)
}

fn a_guest_with_one_buffer_gets_frames(suite: &Suite) -> Result<(), String> {
    let mut session = suite.session_without_room()?;
    session.guest.restart(false, false);
    let begun = Instant::now();
    let mut arrived = Vec::new();
    while arrived.len() < 20 {
        if session.guest.buffers() == 0 {
            session.guest.offer(1);
        }
        if begun.elapsed() > session.patience {
            return Err(format!("{} frames of 20 arrived in {:?}", arrived.len(), session.patience));
        }
        let number = session.number();
        session.send(Way::In, &packet(number, 100));
        arrived.extend(session.drain(Way::In, Duration::from_millis(2))?);
    }
    Session::check_order(Way::In, &arrived)
}

fn a_guest_gets_nothing_undone(suite: &Suite) -> Result<(), String> {
    let mut session = suite.session()?;
    for _ in 0..5 {
        let mut undone = packet(session.number(), 100);
        leave_checksum_undone(&mut undone);
        session.send(Way::In, &undone);
        while let Some(received) = session.guest.receive(Duration::from_millis(10)) {
            if frame(&received).is_some() && (received[0] & 1 != 0 || received[1] != 0) {
                return Err("a frame without its checksum arrived at a guest that does not cope with it".to_owned());
            }
        }
    }
    // One that sends such frames itself may lose them, but no others.
    session.guest.restart(true, true);
    session.guest.fill();
    session.settle()?;
    let mut undone = packet(session.number(), 100);
    leave_checksum_undone(&mut undone);
    session.send(Way::Out, &undone);
    while session.wire.receive(QUIET).is_some() {}
    WAYS.into_iter().try_for_each(|way| session.pass(way, 100))
}

fn a_driver_that_begins_anew_gets_frames(suite: &Suite) -> Result<(), String> {
    let mut session = suite.session()?;
    for round in 0..20 {
        for way in WAYS {
            for _ in 0..20 {
                let number = session.number();
                session.send(way, &packet(number, 300));
            }
        }
        std::thread::sleep(Duration::from_micros(50 * round));
        session.guest.restart(round % 2 == 0, round % 3 == 0);
        session.guest.fill();
        WAYS.into_iter().try_for_each(|way| session.drain(way, Duration::from_millis(2)).map(drop))?;
        session.settle()?;
        if session.guest.needs_reset() {
            return Err("the device needs a reset".to_owned());
        }
    }
    Ok(())
}

fn a_pause_is_survived(suite: &Suite) -> Result<(), String> {
    let mut session = suite.session()?;
    for _ in 0..10 {
        for way in WAYS {
            let number = session.number();
            session.send(way, &packet(number, 300));
        }
        session.guest.pause(session.patience).map_err(|error| error.to_string())?;
        let number = session.number();
        session.send(Way::Out, &packet(number, 300));
        session.guest.resume();
        for way in WAYS {
            let numbers = session.drain(way, QUIET)?;
            Session::check_order(way, &numbers)?;
            session.pass(way, 300)?;
        }
    }
    Ok(())
}

fn others_have_their_turns(suite: &Suite) -> Result<(), String> {
    let mut session = suite.session()?;
    let memory = patterned_memory(1 << 20);
    let transport = MmioTransport::new(Box::new(Echo), memory.clone(), &session.io_thread);
    let neighbour = MmioDriver::new(transport.map_err(|error| error.to_string())?);
    let mut queue = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
    neighbour.bring_up(neighbour.offered(), &[&queue]);
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    while begun.elapsed() < Duration::from_millis(300) {
        for _ in 0..50 {
            for way in WAYS {
                let number = session.number();
                session.send(way, &packet(number, 1000.min(suite.largest)));
            }
        }
        let asked = Instant::now();
        queue.offer(&[Buffer::writable(0x8000, 1)]);
        neighbour.kick(0);
        neighbour.wait_used(&mut queue);
        longest = longest.max(asked.elapsed());
        WAYS.into_iter().try_for_each(|way| session.drain(way, Duration::ZERO).map(drop))?;
    }
    if longest < LONGEST_WAIT { Ok(()) } else { Err(format!("a neighbour waited {longest:?} for its turn")) }
}

/// However many of its pairs of queues the guest uses, across pauses. A NIC with one pair has nothing to show here.
fn each_pair_carries_frames(suite: &Suite) -> Result<(), String> {
    let mut session = suite.session_without_room()?;
    let count = u16::try_from(session.guest.pairs()).map_err(|error| error.to_string())?;
    if count == 1 {
        return Ok(());
    }
    session.guest.restart_with_pairs();
    session.guest.fill();
    session.settle()?;
    for in_use in [count, 1, count - 1, count] {
        if !session.guest.use_pairs(in_use) || session.guest.use_pairs(0) || session.guest.use_pairs(count + 1) {
            return Err(format!("the device refuses {in_use} pairs, or takes 0 or {}, and has {count}", count + 1));
        }
        for _ in 0..2 {
            (0..in_use.into()).try_for_each(|pair| session.pass_on(pair))?;
            (0..3 * count).try_for_each(|_| session.pass(Way::In, 300))?;
            session.guest.pause(session.patience).map_err(|error| error.to_string())?;
            session.guest.resume();
        }
        for _ in 0..20 {
            let number = session.number();
            session.send(Way::In, &packet(number, 300));
        }
        while let Some((pair, _)) = session.guest.receive_with_pair(QUIET) {
            if pair >= in_use.into() {
                return Err(format!("a frame came on pair {pair}, and {in_use} are in use"));
            }
        }
    }
    Ok(())
}

/// A neighbour.
struct Echo;

impl VirtioDevice for Echo {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(42, &[16])
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> CrateResult<()> {
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> CrateResult<()> {
        let Some(queue) = queues.get(index) else { return Ok(()) };
        while let Some(chain) = queue.pop(io)? {
            queue.complete(chain, 0);
        }
        Ok(())
    }

    fn reset(&mut self, _io: &mut Io) {}
}
