//! One guest to another: over the switch, and over two TAP devices and a bridge.

use vmcell::network::{MachineAddress, Network, NetworkConfig, Rule};
use vmcell::{Nic, Result};

use super::ROUNDS;
use super::bridge::Bridge;
use super::figures::Pair;
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
    println!("\nguest to guest, over the switch and over two TAP devices and a bridge (median of {ROUNDS} turns each)");
    println!("{:<44} {:>11} {:>11} {:>8}", "", "switch", "bridge", "quotient");
    for size in [64, 1514] {
        row(&format!("frames of {size} bytes, thousands a second"), bridge.as_ref(), |way| frames(way, size, 192, 64))?;
    }
    for size in [64, 1514] {
        row(&format!("round trips of {size} bytes, thousands a second"), bridge.as_ref(), |way| {
            frames(way, size, 1, 1)
        })?;
    }
    Ok(())
}

/// How the two guests are joined.
#[derive(Clone, Copy)]
enum Way<'a> {
    Switch,
    Bridge(&'a Bridge),
}

fn row(name: &str, bridge: Option<&Bridge>, mut turn: impl FnMut(Way<'_>) -> Result<f64>) -> Result<()> {
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

/// How many frames a second arrive if so many are under way at once, of which every so-manieth is answered.
fn frames(way: Way<'_>, size: usize, window: u32, every: u32) -> Result<f64> {
    let (one, two) = cards(way)?;
    // It ends with its VM.
    let _echo = Guest::start(two, &format!("bench=echo size={size} every={every}"))?;
    let head = head(way, size)?;
    let times = format!("warm_ms={WARM_MS} run_ms={RUN_MS}");
    let work = format!("bench=ask size={size} window={window} every={every} head={head} {times}");
    let mut ask = Guest::start(one, &work)?;
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
