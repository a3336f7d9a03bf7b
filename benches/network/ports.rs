//! What a port takes while nothing happens: its guest's driver is up, and has lent all of its buffers.

use std::fs;
use std::time::{Duration, Instant};

use vmcell::event::Io;
use vmcell::net::{NicBackend, NicInfo, RxBatch, TxBatch};
use vmcell::network::{MachineAddress, Network, NetworkConfig, Rule, Uplink};
use vmcell::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::{GuestAddress, GuestMemory, IoThread, Nic, Result};

use super::failed;
use super::packet::{SUBNET, datagram};

const PORTS: u32 = 256;
/// A guest's queue.
const QUEUE: u16 = 256;
const BUFFER: u32 = 2048;
/// Where each card's queues are, behind the last one's.
const SPACE: u64 = 0x1_0000;
/// All cards lend the same buffers, to which nothing comes.
const DATA: u64 = 0x1000;
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run() -> Result<()> {
    let memory = patterned_memory((2 * u64::from(PORTS) + 16) * SPACE);
    let io_thread = IoThread::new("ports")?;
    let network = Network::new(NetworkConfig::new(SUBNET))?;
    network.set_rules(&[Rule::allow()])?;
    let mut far = network.uplink(1420, 1, || ())?;
    far.set_routes(&[SUBNET.host_prefix(2)])?;
    let place = |number: u32, joined: u32| u64::from(number + 8 + joined * PORTS) * SPACE;
    // The rings are the guest's own, and were written before.
    let before = own_kib()?;
    let mut cards = Vec::new();
    for number in 1..=PORTS {
        cards.push(Card::bring_up(Nic::backend(Deaf), &memory, place(number, 0), &io_thread)?);
    }
    let middle = own_kib()?;
    // Those before stay, so that nothing of theirs is used again.
    let (alone, before) = (middle.saturating_sub(before), middle);
    let mut joined = Vec::new();
    for number in 1..=PORTS {
        let port = network.port(SUBNET.machine(1, number)?)?;
        let address = port.address();
        joined.push((address, Card::bring_up(port.into_nic(), &memory, place(number, 1), &io_thread)?));
    }
    for (address, card) in &mut joined {
        card.hear(&mut far, *address)?;
    }
    let own = own_kib()?.saturating_sub(before);
    let [alone, own] = [alone, own].map(|kib| kib as f64 / f64::from(PORTS));
    println!("a card that waits, with {QUEUE} buffers of its guest's: {alone:.1} KiB (of {PORTS})");
    println!("the same at a port, to which it lends them: {own:.1} KiB");
    Ok(())
}

/// A backend to which nothing comes.
struct Deaf;

impl NicBackend for Deaf {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn receive(&mut self, _io: &mut Io, _frames: &mut RxBatch) {}

    fn send(&mut self, _io: &mut Io, _frames: &mut TxBatch) {}
}

struct Card {
    driver: MmioDriver,
    received: DriverQueue,
}

impl Card {
    fn bring_up(nic: Nic, memory: &GuestMemory, base: u64, io_thread: &IoThread) -> Result<Self> {
        let transport = MmioTransport::new(nic.into_device()?, memory.clone(), io_thread)?;
        let driver = MmioDriver::new(transport);
        let [mut received, sent] = [0, 0x8000].map(|queue| DriverQueue::new(memory, GuestAddress(base + queue), QUEUE));
        driver.bring_up(driver.offered(), &[&received, &sent]);
        (0..QUEUE).for_each(|_| _ = received.offer(&[Buffer::writable(DATA, BUFFER)]));
        driver.kick(0);
        Ok(Self { driver, received })
    }

    /// Sends it one packet, and waits until that is there: by then its buffers are lent.
    fn hear(&mut self, far: &mut Uplink, own: MachineAddress) -> Result<()> {
        let (begun, packet) = (Instant::now(), datagram(SUBNET.machine(2, 1)?, own, 100));
        while self.received.take_used().is_none() {
            if begun.elapsed() > PATIENCE {
                return Err(failed(format!("{own} did not get a packet")));
            }
            far.inject(&packet);
            far.flush();
            self.driver.kick(0);
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// What this process alone has in memory.
fn own_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup").map_err(failed)?;
    let value = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).ok_or_else(|| failed("no figure of memory"))
}
