//! One guest to another: over the switch, and over two TAP devices and a bridge.

use vmcell::network::{MachineAddress, Network, NetworkConfig, Rule};
use vmcell::{IoThread, Nic, Result};

use super::ROUNDS;
use super::bridge::Bridge;
use super::figures::{Pair, columns};
use super::guest::Guest;
use super::packet::{HEADERS, SUBNET, datagram};

/// How long a turn is measured, and how long the guests run before.
const RUN_MS: u64 = 500;
const WARM_MS: u64 = 200;
const ETHERNET: usize = 14;
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub fn run() -> Result<()> {
    let bridge = match Bridge::make() {
        Ok(bridge) => Some(bridge),
        Err(error) => {
            println!("no bridge to compare with: {}", error.chain());
            None
        }
    };
    println!(
        "\nguest to guest, over the switch and over two TAP devices and a bridge, thousands a second (median of {ROUNDS} turns each)"
    );
    println!("{}", columns("switch", "bridge"));
    for (threads, told) in [(Threads::Two, "an I/O thread each"), (Threads::One, "one I/O thread")] {
        for size in [64, 1514] {
            let load = Load { size, window: 192, every: 64, sleeps: false, threads };
            row(&format!("frames of {size} bytes, {told}"), bridge.as_ref(), load)?;
        }
        for (sleeps, waits) in [(true, "sleep"), (false, "look")] {
            for size in [64, 1514] {
                let load = Load { size, window: 1, every: 1, sleeps, threads };
                row(&format!("round trips of {size} bytes, {waits}, {told}"), bridge.as_ref(), load)?;
            }
        }
    }
    Ok(())
}

/// How the two guests are joined.
#[derive(Clone, Copy)]
enum Way<'a> {
    Switch,
    Bridge(&'a Bridge),
}

/// Whether the two VMs share an I/O thread.
#[derive(Clone, Copy)]
enum Threads {
    One,
    Two,
}

/// So many frames are under way at once, of which every so-manieth is answered.
#[derive(Clone, Copy)]
struct Load {
    size: usize,
    window: u32,
    every: u32,
    /// Whether the guests sleep until an interrupt, or look all the time.
    sleeps: bool,
    threads: Threads,
}

fn row(name: &str, bridge: Option<&Bridge>, load: Load) -> Result<()> {
    let turn = |way| frames(way, load);
    let mut pair = Pair::default();
    for round in 0..=ROUNDS {
        let ours = turn(Way::Switch)?;
        let theirs = bridge.map(|bridge| turn(Way::Bridge(bridge))).transpose()?;
        if round > 0 {
            pair.push(ours / 1e3, theirs.unwrap_or(f64::NAN) / 1e3);
        }
    }
    println!("{}", pair.row(name));
    Ok(())
}

/// How many frames a second arrive.
fn frames(way: Way<'_>, load: Load) -> Result<f64> {
    let Load { size, window, every, sleeps, threads } = load;
    let interrupts = u8::from(sleeps);
    let (one, two) = cards(way)?;
    let io_thread = IoThread::new("bench-io")?;
    let other = if matches!(threads, Threads::One) { io_thread.clone() } else { IoThread::new("bench-io")? };
    // It ends with its VM.
    let _echo = Guest::start_on(&other, two, &format!("bench=echo size={size} every={every} interrupts={interrupts}"))?;
    let head = head(way, size)?;
    let times = format!("warm_ms={WARM_MS} run_ms={RUN_MS}");
    let work =
        format!("bench=ask size={size} window={window} every={every} interrupts={interrupts} head={head} {times}");
    let mut ask = Guest::start_on(&io_thread, one, &work)?;
    ask.say(b'g');
    ask.expect("begin")?;
    Ok(ask.told()?.a_second())
}

fn machine(number: u32) -> Result<MachineAddress> {
    SUBNET.machine(1, number)
}

fn cards(way: Way<'_>) -> Result<(Nic, Nic)> {
    match way {
        Way::Switch => {
            let network = Network::new(NetworkConfig::new(SUBNET).mtu(1500))?;
            network.set_rules(&[Rule::allow().udp(7..=7)])?;
            Ok((network.port(machine(1)?)?.into_nic(), network.port(machine(2)?)?.into_nic()))
        }
        Way::Bridge(bridge) => {
            let [one, two] = bridge.taps();
            Ok((Nic::tap(&one)?.mac(machine(1)?.mac()), Nic::tap(&two)?.mac(machine(2)?.mac())))
        }
    }
}

/// The headers of a frame from the first machine to the second, as hexadecimal digits.
fn head(way: Way<'_>, size: usize) -> Result<String> {
    // The switch is the guests' router; a bridge takes frames to where they go.
    let to = match way {
        Way::Switch => ROUTER,
        Way::Bridge(_) => machine(2)?.mac(),
    };
    let packet = datagram(machine(1)?, machine(2)?, size - ETHERNET);
    let head = [&to[..], &machine(1)?.mac(), &[0x86, 0xdd], packet.get(..HEADERS).unwrap_or_default()].concat();
    Ok(head.iter().map(|byte| format!("{byte:02x}")).collect())
}
