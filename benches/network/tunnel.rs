//! WireGuard: packets of 1420 bytes go into one tunnel, over UDP on this host, and come out of another.
//!
//! What counts is the time that the tunnel's thread spends on a CPU for each bit, so that the machine's other work is not in it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vmcell::network::wireguard::{Config, PeerConfig, PrivateKey, Tunnel};
use vmcell::network::{Injected, Network, NetworkConfig, Rule, Uplink};
use vmcell::{IoThread, Result};

use super::cpu::Clock;
use super::figures::{Pair, alone, columns};
use super::median::median;
use super::packet::{SUBNET, datagram};
use super::{ROUNDS, failed, wireguard_go};

const MTU: u16 = 1420;
const PACKETS: usize = 1024;
const TURN: Duration = Duration::from_millis(500);
/// How long the first packet may take, with the handshake.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run() -> Result<()> {
    println!("\nWireGuard, packets of {MTU} bytes: Gbit/s for each second of CPU time (median of {ROUNDS} turns each)");
    sealing()?;
    both_on_one_thread()
}

/// A site with a network of its own, into which packets are put and out of which they are taken by uplinks.
pub struct Site {
    pub end: Uplink,
    pub tunnel: Tunnel,
    _network: Network,
}

impl Site {
    /// Host number `own`, whose peer is host number `other` with that key.
    pub fn new(own: u16, other: u16, key: &PrivateKey, peer: PeerConfig, thread: &IoThread) -> Result<Self> {
        let network = Network::new(NetworkConfig::new(SUBNET))?;
        network.set_rules(&[Rule::allow()])?;
        let mut end = network.uplink(MTU, PACKETS, || ())?;
        end.set_routes(&[SUBNET.host_prefix(own)])?;
        let mut config = Config::new(key.clone());
        config.peers.push(peer.allow(SUBNET.host_prefix(other).into()));
        let builder = Tunnel::builder(config).listen_on(IpAddr::V4(Ipv4Addr::LOCALHOST)).io_thread(thread);
        let uplink = network.uplink(MTU, PACKETS, builder.wake())?;
        let tunnel = builder.start(uplink)?;
        Ok(Self { end, tunnel, _network: network })
    }

    pub fn address(&self) -> SocketAddr {
        self.tunnel.local_address()
    }

    /// Takes all that came out, and says how many packets those are.
    pub fn take(&mut self) -> u64 {
        self.end.drain(usize::MAX, |_| true) as u64
    }
}

/// Two sites, each on a thread that has its name.
fn pair(one: &IoThread, two: &IoThread) -> Result<(Site, Site)> {
    let keys = [PrivateKey::generate()?, PrivateKey::generate()?];
    let second = Site::new(2, 1, &keys[1], PeerConfig::new(keys[0].public_key()), two)?;
    let peer = PeerConfig::new(keys[1].public_key()).endpoint(second.address());
    Ok((Site::new(1, 2, &keys[0], peer, one)?, second))
}

fn sealing() -> Result<()> {
    let threads = [IoThread::new("bench-wg-one")?, IoThread::new("bench-wg-two")?];
    let (mut one, mut two) = pair(&threads[0], &threads[1])?;
    let clocks = [Clock::of_thread("bench-wg-one").map_err(failed)?, Clock::of_thread("bench-wg-two").map_err(failed)?];
    shake_hands(&mut one, &mut two)?;
    let peer = wireguard_go::Peer::start()?;
    let mut theirs = peer.map(|peer| peer.sealing()).transpose()?;
    let (mut sealing, mut opening) = (Pair::default(), Vec::new());
    for round in 0..=ROUNDS {
        let (sealed, opened) = turn(&mut one, &mut two, &clocks)?;
        let other = theirs.as_mut().map(|theirs| theirs.turn(TURN)).transpose()?;
        if round > 0 {
            sealing.push(sealed, other.unwrap_or(f64::NAN));
            opening.push(opened);
        }
    }
    println!("{}", columns("vmcell", "wireguard-go"));
    println!("{}", sealing.row("sealing and sending"));
    println!("{}", alone("receiving and opening", median(opening)));
    Ok(())
}

fn both_on_one_thread() -> Result<()> {
    let thread = IoThread::new("bench-wg-both")?;
    let (mut one, mut two) = pair(&thread, &thread)?;
    let clocks =
        [Clock::of_thread("bench-wg-both").map_err(failed)?, Clock::of_thread("bench-wg-both").map_err(failed)?];
    shake_hands(&mut one, &mut two)?;
    let mut figures = Vec::new();
    for round in 0..=ROUNDS {
        let (both, _) = turn(&mut one, &mut two, &clocks)?;
        if round > 0 {
            figures.push(both);
        }
    }
    println!("{}", alone("both ends on one thread", median(figures)));
    Ok(())
}

/// Gbit of packets that have arrived, for each second of each clock.
fn turn(one: &mut Site, two: &mut Site, clocks: &[Clock; 2]) -> Result<(f64, f64)> {
    let packet = packet(MTU.into())?;
    let stop = AtomicBool::new(false);
    let arrived = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // What finds no room has to wait, so that the CPU is left to the tunnel.
                if (0..64).any(|_| one.end.inject(&packet) != Injected::Delivered) {
                    one.end.flush();
                    std::thread::sleep(Duration::from_micros(50));
                }
                one.end.flush();
            }
        });
        let before = clocks.each_ref().map(Clock::read);
        let (begun, mut count) = (Instant::now(), 0u64);
        while begun.elapsed() < TURN {
            count += two.take();
            std::thread::sleep(Duration::from_micros(50));
        }
        stop.store(true, Ordering::Relaxed);
        let _ = sender.join();
        let spent = [0, 1].map(|clock| (clocks[clock].read() - before[clock]).as_secs_f64());
        (count, spent)
    });
    // Late ones.
    std::thread::sleep(Duration::from_millis(10));
    two.take();
    let (count, spent) = arrived;
    if count == 0 {
        return Err(failed("no packet came out of a tunnel"));
    }
    Ok((gbit(count) / spent[0], gbit(count) / spent[1]))
}

pub fn gbit(packets: u64) -> f64 {
    packets as f64 * f64::from(MTU) * 8.0 / 1e9
}

fn shake_hands(one: &mut Site, two: &mut Site) -> Result<()> {
    let (begun, packet) = (Instant::now(), packet(100)?);
    while two.take() == 0 {
        if begun.elapsed() > PATIENCE {
            return Err(failed("two tunnels did not agree on keys"));
        }
        one.end.inject(&packet);
        one.end.flush();
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A datagram from the first machine of host 1 to that of host 2.
fn packet(len: usize) -> Result<Vec<u8>> {
    Ok(datagram(SUBNET.machine(1, 1)?, SUBNET.machine(2, 1)?, len))
}
