//! Two WireGuard interfaces with whatever is done to the datagrams between them: lost, changed, cut, sent again, sent from elsewhere, and made up.
//! What comes out of one is what went into the other, once; nothing can be read on the way, and what waits is bounded.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vmcell::network::wireguard::{Config, PeerConfig, PrivateKey, PublicKey, Timing, TunnelLimits};
use vmcell::testing::rooms::{WireGuardArrival, WireGuardInterface};

use crate::alloc::Meter;
use crate::input::{Input, Script};

/// What an interface sends with and opens in, what may wait, and what it keeps of peers and senders.
const MOST_HELD: i64 = 4 << 20;
const MOST_STEPS: usize = 200;
const MOST_IN_FLIGHT: usize = 64;
/// What packets are full of.
const MARK: [u8; 8] = *b"in clear";

struct Side {
    interface: WireGuardInterface,
    address: SocketAddr,
    key: PublicKey,
    /// Packets that the other side has not had yet.
    sent: Vec<Vec<u8>>,
    asked: Option<PublicKey>,
}

struct Test {
    sides: [Side; 2],
    /// From which side, to where, and what.
    in_flight: Vec<(usize, Vec<u8>)>,
    seen: Vec<(usize, Vec<u8>)>,
    number: u32,
    now: Instant,
    meter: Meter,
}

fn address(host: u8) -> SocketAddr {
    ([192, 0, 2, host], 51820).into()
}

fn key(host: u8) -> PrivateKey {
    PrivateKey::from_bytes([host; 32])
}

/// The first side knows the second; the second asks about the first, or knows it.
fn side(host: u8, other: u8, knows: bool, start: Instant) -> Side {
    let mut config = Config::new(key(host));
    if knows {
        config.peers.push(peer(other).endpoint(address(other)));
    }
    let limits = TunnelLimits::default();
    let interface = WireGuardInterface::new(&config, limits, Timing::default(), true, start).expect("it is allowed");
    Side { interface, address: address(host), key: key(host).public_key(), sent: Vec::new(), asked: None }
}

fn peer(host: u8) -> PeerConfig {
    PeerConfig::new(key(host).public_key()).allow(format!("fd00:{host:x}::/32").parse().expect("a prefix"))
}

fn packet(from: u8, to: u8, number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    for host in [from, to] {
        packet.extend([0xfd, 0, 0, host, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
    packet.extend(number.to_le_bytes());
    packet.extend(MARK.iter().cycle().take(len));
    let payload = u16::try_from(packet.len() - 40).expect("it is short").to_be_bytes();
    packet[4..6].copy_from_slice(&payload);
    packet
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let start = Instant::now();
    let knows = !input.one_in(2);
    let sides = [side(1, 2, true, start), side(2, 1, knows, start)];
    let (in_flight, seen) = (Vec::new(), Vec::new());
    let mut test = Test { sides, in_flight, seen, number: 0, now: start, meter: Meter::new(MOST_HELD) };
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        test.step(&mut input);
    }
    test.end();
}

impl Test {
    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.below(12);
        let side = usize::from(input.below(2));
        match what {
            0 | 1 => self.send(side, usize::from(input.half() % 1380)),
            2 | 3 => self.deliver(side, input, false),
            4 => self.deliver(side, input, true),
            5 => self.again(input),
            6 => self.make_up(side, input),
            7 => self.wait(Duration::from_millis(input.half().into())),
            8 => self.wait(Duration::from_secs(input.byte().into())),
            9 => self.answer(side, input.one_in(2)),
            10 => drop(self.in_flight.pop()),
            _ => self.all(),
        }
        self.collect();
    }

    fn send(&mut self, side: usize, len: usize) {
        let (from, to) = if side == 0 { (1, 2) } else { (2, 1) };
        self.number += 1;
        let packet = packet(from, to, self.number, len);
        let Self { sides, meter, now, .. } = self;
        meter.run(|| sides[side].interface.send(&packet, *now));
        self.sides[side].sent.push(packet);
    }

    /// Takes what the interfaces have sent.
    fn collect(&mut self) {
        for side in 0..2 {
            for (to, datagram) in self.sides[side].interface.sent() {
                assert!(datagram.len() >= 32 && matches!(datagram[..4], [1..=4, 0, 0, 0]), "it is no message");
                assert!(!datagram.windows(8).any(|window| window == MARK), "it can be read");
                if self.in_flight.len() < MOST_IN_FLIGHT && (to == address(1) || to == address(2)) {
                    self.in_flight.push((side, datagram));
                }
            }
        }
    }

    fn deliver(&mut self, side: usize, input: &mut Input<'_>, changes: bool) {
        let Some(at) = self.in_flight.iter().position(|(from, _)| *from == side) else { return };
        let (from, mut datagram) = self.in_flight.remove(at);
        let original = datagram.clone();
        if changes {
            let at = usize::from(input.half()) % datagram.len();
            match input.below(3) {
                0 => datagram[at] ^= input.byte(),
                1 => datagram.truncate(at),
                _ => datagram.insert(at, input.byte()),
            }
        }
        let source = if input.one_in(8) { address(input.byte()) } else { self.sides[from].address };
        let arrived = self.take(1 - from, &datagram, source);
        // Of a handshake the second half of the end may be changed: nobody looks at it unless they are under load.
        assert!(datagram == original || !arrived, "what was changed is no packet any more");
        self.seen.push((from, original));
    }

    fn again(&mut self, input: &mut Input<'_>) {
        let Some(count) = u16::try_from(self.seen.len()).ok().filter(|count| *count > 0) else { return };
        let (from, datagram) = self.seen[usize::from(input.half() % count)].clone();
        let to = if input.one_in(4) { from } else { 1 - from };
        self.take(to, &datagram, address(input.byte()));
    }

    fn make_up(&mut self, side: usize, input: &mut Input<'_>) {
        let len = [0, 1, 4, 16, 31, 32, 33, 64, 92, 147, 148, 149, 1500, 65_507][usize::from(input.below(14))];
        let mut datagram = vec![input.byte(); len];
        let head = [input.byte() % 6, 0, 0, 0, input.byte(), input.byte(), input.byte(), input.byte()];
        datagram.iter_mut().zip(head).for_each(|(to, from)| *to = from);
        let arrived = self.take(side, &datagram, address(input.byte()));
        assert!(!arrived, "nobody has sealed it");
    }

    /// Says whether a packet came, which must be one that was sent, and has not come before.
    fn take(&mut self, to: usize, datagram: &[u8], from: SocketAddr) -> bool {
        let Self { sides, meter, now, .. } = self;
        match meter.run(|| sides[to].interface.receive(datagram, from, *now)) {
            WireGuardArrival::Packet(packet) => {
                let sent = &mut self.sides[1 - to].sent;
                let at = sent.iter().position(|sent| *sent == packet).expect("it was sent, and has not come yet");
                sent.remove(at);
                true
            }
            WireGuardArrival::Question(key, _) => {
                self.sides[to].asked = Some(key);
                false
            }
            WireGuardArrival::Nothing => false,
        }
    }

    fn answer(&mut self, side: usize, refuses: bool) {
        let Some(key) = self.sides[side].asked.take() else { return };
        let known = peer(if side == 0 { 2 } else { 1 });
        let answer = Some(&known).filter(|_| !refuses);
        // Somebody else's key is refused, and so is one that is a peer already.
        let Self { sides, meter, now, .. } = self;
        let accepted = meter.run(|| sides[side].interface.answer(key, answer, *now));
        assert!(!accepted || key == known.public_key);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let Self { sides, meter, now, .. } = self;
        for side in sides {
            meter.run(|| side.interface.tick(*now));
        }
    }

    /// Carries everything, as a good network does.
    fn all(&mut self) {
        for _ in 0..8 {
            for (from, datagram) in std::mem::take(&mut self.in_flight) {
                self.take(1 - from, &datagram, self.sides[from].address);
            }
            self.collect();
        }
    }

    /// After a while without a packet nothing waits, and after a longer one nothing is due.
    fn end(mut self) {
        for _ in 0..200 {
            self.wait(Duration::from_secs(10));
            self.sides.iter_mut().for_each(|side| drop(side.interface.sent()));
        }
        for side in &self.sides {
            assert_eq!(side.interface.waiting(), 0, "{} waits", side.key);
            assert_eq!(side.interface.next(), None, "{} is due", side.key);
        }
    }
}

/// A handshake and packets both ways; one that is asked about; what is lost, changed, sent again and made up; keys that grow old.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let start = |knows: bool| Script::new().bytes(&[u8::from(!knows)]);
    let send = |script: Script, side: u8, len: u16| script.bytes(&[0, side]).half(len);
    let talk = send(send(start(true), 0, 100).bytes(&[11, 0]), 1, 1000).bytes(&[11, 0]);
    let later = send(talk.clone().bytes(&[8, 0, 125]), 0, 7).bytes(&[11, 0]);
    let old = send(later.clone().bytes(&[8, 0, 190]), 1, 7).bytes(&[11, 0]);
    let asked = send(start(false), 0, 50).bytes(&[2, 0, 0]).bytes(&[9, 1, 0]).bytes(&[11, 0]);
    let refused = send(start(false), 0, 50).bytes(&[2, 0, 0]).bytes(&[9, 1, 1]).bytes(&[11, 0]);
    let changed = send(talk.clone(), 0, 9).bytes(&[4, 0]).half(30).bytes(&[0, 1, 0]);
    let cut = send(talk.clone(), 0, 9).bytes(&[4, 0]).half(30).bytes(&[1, 0]);
    let again = send(talk.clone(), 0, 9).bytes(&[2, 0, 0]).bytes(&[5, 0]).half(0).bytes(&[0, 7]);
    let made_up = talk.clone().bytes(&[6, 1, 10, 0, 1, 0, 0, 0, 0, 9]).bytes(&[6, 1, 12, 0, 4, 0, 1, 0, 0, 9]);
    let moved = send(talk.clone(), 0, 9).bytes(&[2, 0, 7, 77]);
    let lost = send(start(true), 0, 9).bytes(&[10, 0]).bytes(&[8, 0, 6]).bytes(&[11, 0]);
    vec![
        ("talk", talk.done()),
        ("later", later.done()),
        ("old", old.done()),
        ("asked", asked.done()),
        ("refused", refused.done()),
        ("changed", changed.done()),
        ("cut", cut.done()),
        ("again", again.done()),
        ("made-up", made_up.done()),
        ("moved", moved.done()),
        ("lost", lost.done()),
    ]
}
