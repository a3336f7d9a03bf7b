use super::super::config::Endpoint;
use super::super::key::PresharedKey;
use super::super::packet::packet;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// An interface, and the time as it is told. Its datagrams are carried by hand.
struct Side {
    engine: Engine,
    address: SocketAddr,
}

fn address(host: u8) -> SocketAddr {
    ([10, 9, 9, host], 51820).into()
}

fn peer(key: PublicKey, host: u8) -> PeerConfig {
    PeerConfig::new(key).allow(format!("fd00:{host:x}::/32").parse().unwrap()).endpoint(address(host))
}

impl Side {
    fn with(config: &Config, host: u8, timing: Timing, limits: TunnelLimits, asks: bool, now: Instant) -> Self {
        Self { engine: Engine::new(config, limits, timing, asks, now).unwrap(), address: address(host) }
    }

    fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.engine.sent()
    }

    fn take(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        match self.engine.receive(datagram, from, now) {
            Received::Packet(packet) => Some(packet.to_vec()),
            _ => None,
        }
    }

    fn counted(&self, name: &str) -> u64 {
        let mut meter = crate::meter::Meter::new();
        self.engine.counters().tell(&mut meter);
        meter.read()[&format!("wireguard_{name}")]
    }
}

/// Carries datagrams both ways until there are none; the packets that came to `a` and to `b`.
fn carry(a: &mut Side, b: &mut Side, now: Instant) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
    loop {
        let (from_a, from_b) = (a.sent(), b.sent());
        if from_a.is_empty() && from_b.is_empty() {
            return (to_a, to_b);
        }
        for (to, datagram) in from_a {
            assert_eq!(to, b.address);
            to_b.extend(b.take(&datagram, a.address, now));
        }
        for (to, datagram) in from_b {
            assert_eq!(to, a.address);
            to_a.extend(a.take(&datagram, b.address, now));
        }
    }
}

fn pair_with(timing: Timing, limits: TunnelLimits, preshared: [Option<PresharedKey>; 2], now: Instant) -> (Side, Side) {
    let (one, two) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let (public_one, public_two) = (one.public_key(), two.public_key());
    let mut config = Config::new(one);
    let [first, second] = preshared;
    config.peers.push(PeerConfig { preshared_key: first, ..peer(public_two, 2) });
    let a = Side::with(&config, 1, timing, limits, false, now);
    let mut config = Config::new(two);
    config.peers.push(PeerConfig { preshared_key: second, ..peer(public_one, 1) });
    (a, Side::with(&config, 2, timing, limits, false, now))
}

fn pair(now: Instant) -> (Side, Side) {
    pair_with(Timing::default(), TunnelLimits::default(), [None, None], now)
}

#[test]
fn a_packet_waits_for_the_handshake_and_comes_as_it_was_both_ways() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    for len in [0, 1, 15, 16, 1380, 1400] {
        let there = packet(1, 2, len);
        assert!(a.engine.send(&there, now));
        assert_eq!(carry(&mut a, &mut b, now), (vec![], vec![there]));
        let back = packet(2, 1, len);
        assert!(b.engine.send(&back, now));
        assert_eq!(carry(&mut a, &mut b, now), (vec![back], vec![]));
    }
    assert_eq!((a.counted("handshakes"), b.counted("handshakes")), (1, 1));
    assert_eq!((a.counted("sent_packets"), b.counted("received_packets")), (6, 6));
}

#[test]
fn nothing_leaves_in_the_clear_and_lengths_are_padded() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    a.engine.set_mtu(1420);
    let mut lengths = Vec::new();
    for len in [0, 1, 100, 1380] {
        assert!(a.engine.send(&packet(1, 2, len), now));
        loop {
            let sent = a.sent();
            if sent.is_empty() {
                break;
            }
            for (_, datagram) in sent {
                assert!(
                    !datagram.windows(8).any(|window| window == [0xab; 8] || window == [0xfd, 0, 0, 1, 0, 0, 0, 0])
                );
                lengths.push(datagram.len());
                b.take(&datagram, a.address, now);
            }
            b.sent().into_iter().for_each(|(_, datagram)| assert_eq!(a.take(&datagram, b.address, now), None));
        }
    }
    // A handshake, its confirmation, then the packets: 40, 41, 140 and 1420 bytes, and 32 of WireGuard.
    assert_eq!(lengths, [148, 32, 48 + 32, 48 + 32, 144 + 32, 1420 + 32]);
}

#[test]
fn a_preshared_key_must_be_the_same_on_both_sides() {
    let now = Instant::now();
    let key = PresharedKey::generate().unwrap();
    for (other, works) in [(Some(key.clone()), true), (None, false), (Some(PresharedKey::generate().unwrap()), false)] {
        let limits = TunnelLimits::default();
        let (mut a, mut b) = pair_with(Timing::default(), limits, [Some(key.clone()), other], now);
        a.engine.send(&packet(1, 2, 10), now);
        assert_eq!(carry(&mut a, &mut b, now).1.len(), usize::from(works));
    }
}

#[test]
fn allowed_addresses_hold_both_ways() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    assert!(a.engine.send(&packet(1, 3, 10), now), "taken, and dropped");
    assert_eq!((a.counted("dropped_no_peer"), a.sent().len()), (1, 0));
    assert!(a.engine.send(&[0x45; 10], now) && a.engine.send(&[], now));
    assert_eq!(a.counted("dropped_no_peer"), 3);
    // A source that is not the peer's.
    a.engine.send(&packet(7, 2, 10), now);
    assert_eq!(carry(&mut a, &mut b, now), (vec![], vec![]));
    assert_eq!(b.counted("dropped_source"), 1);
    // What is no packet at all, from a peer that has the key.
    a.engine.with(0, now, |peer, work| peer.send(&[0xff; 64], 64, work));
    assert_eq!(carry(&mut a, &mut b, now), (vec![], vec![]));
    assert_eq!(b.counted("dropped_malformed"), 1);
}

#[test]
fn messages_that_come_again_or_are_changed_or_cut_are_dropped() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    a.engine.send(&packet(1, 2, 10), now);
    let initiation = a.sent().remove(0).1;
    b.take(&initiation, a.address, now);
    let answer = b.sent().remove(0).1;
    b.take(&initiation, a.address, now + SECOND);
    assert_eq!((b.counted("dropped_replayed"), b.sent().len()), (1, 0));
    a.take(&answer, b.address, now);
    a.take(&answer, b.address, now);
    assert_eq!(a.counted("dropped_no_key"), 1);
    let data = a.sent().pop().unwrap().1;
    for cut in 0..data.len() {
        assert_eq!(b.take(&data[..cut], a.address, now), None);
    }
    for at in 0..data.len() {
        let mut changed = data.clone();
        changed[at] ^= 1;
        assert_eq!(b.take(&changed, a.address, now), None);
    }
    assert!(b.take(&data, a.address, now).is_some());
    assert!(b.take(&data, a.address, now).is_none());
    assert_eq!(b.counted("dropped_replayed"), 2);
    for len in [0, 1, 3, 4, 31, 32, 64, 92, 148, 149, 1500, 65_507] {
        for kind in 0..=5 {
            let mut junk = vec![0x5a; len];
            junk.iter_mut().zip([kind, 0, 0, 0]).for_each(|(to, from)| *to = from);
            assert_eq!(b.take(&junk, a.address, now), None);
        }
    }
    assert!(b.sent().is_empty(), "nothing answers what is no handshake for this key");
}

#[test]
fn keys_are_renewed_by_the_one_that_made_them_and_rejected_when_they_are_old() {
    let start = Instant::now();
    let (mut a, mut b) = pair(start);
    a.engine.send(&packet(1, 2, 10), start);
    carry(&mut a, &mut b, start);
    // The other side's packets alone make nothing new before the key is nearly too old.
    let at = start + 121 * SECOND;
    b.engine.send(&packet(2, 1, 10), at);
    assert_eq!(carry(&mut a, &mut b, at).0.len(), 1);
    assert_eq!(a.counted("handshakes"), 1);
    a.engine.send(&packet(1, 2, 10), at);
    assert_eq!(carry(&mut a, &mut b, at).1.len(), 1);
    assert_eq!((a.counted("handshakes"), b.counted("handshakes")), (2, 2));
    // Nobody has sent anything: the key is too old for either side, and another is made.
    let at = at + 180 * SECOND;
    b.engine.send(&packet(2, 1, 10), at);
    assert_eq!(carry(&mut a, &mut b, at).0.len(), 1);
    assert_eq!((a.counted("handshakes"), b.counted("handshakes")), (3, 3));
}

#[test]
fn a_message_by_a_key_that_is_too_old_is_dropped() {
    let start = Instant::now();
    let (mut a, mut b) = pair(start);
    a.engine.send(&packet(1, 2, 10), start);
    carry(&mut a, &mut b, start);
    a.engine.send(&packet(1, 2, 10), start + 179 * SECOND);
    let late = a.sent().remove(0).1;
    assert_eq!(b.take(&late, a.address, start + 180 * SECOND), None);
    assert_eq!(b.counted("dropped_expired"), 1);
    assert!(b.take(&late, a.address, start + 179 * SECOND).is_some());
}

#[test]
fn a_counter_at_the_end_of_a_keys_life_is_dropped_before_it_is_opened() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    a.engine.send(&packet(1, 2, 10), now);
    carry(&mut a, &mut b, now);
    a.engine.send(&packet(1, 2, 10), now);
    let data = a.sent().remove(0).1;
    for counter in [u64::MAX, u64::MAX - (1 << 13)] {
        let mut changed = data.clone();
        changed[8..16].copy_from_slice(&counter.to_le_bytes());
        assert_eq!(b.take(&changed, a.address, now), None);
    }
    assert_eq!(b.counted("dropped_expired"), 2);
}

#[test]
fn a_peer_is_where_its_last_authentic_message_came_from() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    a.engine.send(&packet(1, 2, 10), now);
    let initiation = a.sent().remove(0).1;
    carry_one(&mut a, &mut b, &initiation, now);
    a.engine.send(&packet(1, 2, 10), now);
    let data = a.sent().pop().unwrap().1;
    let mut forged = data.clone();
    forged[40] ^= 1;
    b.take(&forged, address(66), now);
    b.engine.send(&packet(2, 1, 10), now);
    assert_eq!(b.sent()[0].0, a.address);
    b.take(&data, address(77), now);
    b.engine.send(&packet(2, 1, 10), now);
    assert_eq!(b.sent()[0].0, address(77));
    // A handshake that somebody has recorded and sends first leads nothing astray.
    let at = now + 121 * SECOND;
    a.engine.send(&packet(1, 2, 10), at);
    let initiation = a.sent().into_iter().find(|(_, datagram)| datagram.len() == 148).unwrap().1;
    b.take(&initiation, address(88), at);
    assert_eq!(b.sent()[0].0, address(88), "it is answered to where it came from");
    b.engine.send(&packet(2, 1, 10), at);
    assert_eq!(b.sent()[0].0, address(77));
}

fn carry_one(a: &mut Side, b: &mut Side, initiation: &[u8], now: Instant) {
    b.take(initiation, a.address, now);
    carry(a, b, now);
}

#[test]
fn packets_for_a_peer_that_does_not_answer_are_dropped_in_the_end_and_handshakes_end() {
    let start = Instant::now();
    let (mut a, _) = pair(start);
    (0..1000).for_each(|_| assert!(a.engine.send(&packet(1, 2, 1000), start)));
    let fitting = (128 << 10) / (1040 + 64);
    assert_eq!(a.counted("dropped_waiting"), 1000 - fitting);
    let (mut now, mut sent) = (start, a.sent().len());
    while let Some(next) = a.engine.next().filter(|next| *next < start + 300 * SECOND) {
        now = now.max(next);
        a.engine.tick(now);
        sent += a.sent().len();
        now += MILLI;
    }
    assert_eq!((a.counted("dropped_waiting"), a.engine.waiting), (1000, 0));
    assert!((17..=19).contains(&sent), "{sent}");
    assert!(now < start + 95 * SECOND, "nothing is due any more");
}

#[test]
fn a_silent_peer_is_sent_a_keepalive_and_a_lost_one_a_handshake() {
    let start = Instant::now();
    let (mut a, mut b) = pair(start);
    a.engine.send(&packet(1, 2, 10), start);
    carry(&mut a, &mut b, start);
    let at = start + 10 * SECOND;
    b.engine.tick(at);
    let keepalive = b.sent().remove(0).1;
    assert_eq!((keepalive.len(), b.counted("keepalives_sent")), (32, 1));
    assert_eq!(a.take(&keepalive, b.address, at), None);
    a.engine.tick(start + 16 * SECOND);
    assert_eq!(a.sent().len(), 0, "the keepalive was the answer");
    a.engine.send(&packet(1, 2, 10), at);
    assert_eq!(a.sent().len(), 1);
    a.engine.tick(at + 15 * SECOND);
    assert_eq!(a.sent().remove(0).1.len(), 148);
}

#[test]
fn a_persistent_keepalive_makes_the_first_handshake_and_goes_on_after_it_was_given_up() {
    let start = Instant::now();
    let mut config = Config::new(PrivateKey::generate().unwrap());
    config.peers.push(peer(PrivateKey::generate().unwrap().public_key(), 2).persistent_keepalive(25));
    let mut a = Side::with(&config, 1, Timing::default(), TunnelLimits::default(), false, start);
    a.engine.tick(start);
    assert_eq!(a.sent().len(), 1);
    let (mut now, mut late) = (start, 0);
    while let Some(next) = a.engine.next().filter(|next| *next < start + 300 * SECOND) {
        now = now.max(next);
        a.engine.tick(now);
        late += a.sent().len() * usize::from(now > start + 200 * SECOND);
        now += MILLI;
    }
    assert!(late > 3, "{late}");
}

#[test]
fn a_flood_of_handshakes_is_asked_for_cookies_and_is_bounded() {
    let now = Instant::now();
    let limits = TunnelLimits { handshakes_without_cookie: 2, handshakes_a_source: 5, ..TunnelLimits::default() };
    let (mut a, mut b) = pair_with(Timing::default(), limits, [None, None], now);
    let mut cookie = None;
    for n in 0..20 {
        // Handshakes of one that knows the public key alone.
        let mut config = Config::new(PrivateKey::generate().unwrap());
        config.peers.push(peer(b.engine.public, 2));
        let mut stranger = Side::with(&config, 9, Timing::default(), limits, false, now);
        stranger.engine.send(&packet(9, 2, 1), now);
        b.take(&stranger.sent().remove(0).1, address(9), now);
        cookie = b.sent().pop().map(|(_, reply)| reply);
        assert_eq!(cookie.as_ref().map(Vec::len), (n >= 2).then_some(64));
    }
    assert_eq!((b.counted("cookies_sent"), b.counted("dropped_unknown_peer")), (18, 2));
    // The peer that proves its address gets through.
    a.take(&cookie.unwrap(), b.address, now);
    a.engine.send(&packet(1, 2, 10), now);
    assert_eq!(carry(&mut a, &mut b, now).1.len(), 0, "the first is asked for a cookie");
    let at = now + 6 * SECOND;
    a.engine.tick(at);
    assert_eq!(carry(&mut a, &mut b, at).1.len(), 1);
    assert_eq!(b.counted("cookies_sent"), 19);
}

#[test]
fn an_unknown_peer_is_asked_about_and_answered_at_once_when_it_is_known() {
    let now = Instant::now();
    let (mut a, b) = pair(now);
    let mut config = Config::new(b.engine.private.clone());
    config.listen_port = Some(1);
    let mut b = Side::with(&config, 2, Timing::default(), TunnelLimits::default(), true, now);
    a.engine.send(&packet(1, 2, 10), now);
    let initiation = a.sent().remove(0).1;
    let key = a.engine.public;
    assert_eq!(b.engine.receive(&initiation, a.address, now), Received::Question(key, a.address));
    assert_eq!(b.engine.receive(&initiation, a.address, now), Received::Nothing);
    assert!(b.sent().is_empty());
    let wrong = PeerConfig::new(b.engine.public);
    assert!(b.engine.answer(key, Some(&wrong), now).is_err());
    assert_eq!(b.engine.receive(&initiation, a.address, now), Received::Nothing, "as if refused");
    let later = now + 11 * SECOND;
    assert_eq!(b.engine.receive(&initiation, a.address, later), Received::Question(key, a.address));
    let known = PeerConfig::new(key).allow("fd00:1::/32".parse().unwrap());
    b.engine.answer(key, Some(&known), later).unwrap();
    assert_eq!(carry(&mut a, &mut b, later).1.len(), 1);
    // It is forgotten when it has had no key for long, and asked about again.
    let mut at = later;
    for _ in 0..2000 {
        at += SECOND;
        b.engine.tick(at);
        b.sent();
    }
    assert!(!b.engine.has_peer(&key) && b.engine.prefixes().next().is_none() && b.engine.next().is_none());
}

#[test]
fn an_impostor_of_a_known_peer_is_forgotten_soon() {
    let now = Instant::now();
    let (mut a, b) = pair(now);
    let config = Config::new(b.engine.private.clone());
    let mut b = Side::with(&config, 2, Timing::default(), TunnelLimits::default(), true, now);
    a.engine.send(&packet(1, 2, 10), now);
    let mut initiation = a.sent().remove(0).1;
    assert!(matches!(b.engine.receive(&initiation, a.address, now), Received::Question(..)));
    // An impostor knows the key, and cannot seal the time.
    initiation[100] ^= 1;
    let key = a.engine.public;
    b.engine.unknown.take(&key);
    b.engine.unknown.ask(key, &initiation, a.address, &TunnelLimits::default(), now);
    b.engine.answer(key, Some(&PeerConfig::new(key)), now).unwrap();
    assert!(b.sent().is_empty() && b.engine.has_peer(&key));
    assert_eq!(b.engine.tick(now + 15 * SECOND), [key]);
    assert!(!b.engine.has_peer(&key));
}

#[test]
fn either_side_may_start_again() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    a.engine.send(&packet(1, 2, 10), now);
    assert_eq!(carry(&mut a, &mut b, now).1.len(), 1);
    let mut config = Config::new(b.engine.private.clone());
    config.peers.push(peer(a.engine.public, 1));
    let mut b = Side::with(&config, 2, Timing::default(), TunnelLimits::default(), false, now);
    // The one that started again has something to say.
    b.engine.send(&packet(2, 1, 10), now);
    assert_eq!(carry(&mut a, &mut b, now).0.len(), 1);
    a.engine.send(&packet(1, 2, 10), now);
    assert_eq!(carry(&mut a, &mut b, now).1.len(), 1);
    // It has nothing to say: the other finds out when nothing is answered.
    let mut b = Side::with(&config, 2, Timing::default(), TunnelLimits::default(), false, now);
    a.engine.send(&packet(1, 2, 10), now);
    assert_eq!(carry(&mut a, &mut b, now).1.len(), 0);
    let at = now + 15 * SECOND;
    a.engine.tick(at);
    carry(&mut a, &mut b, at);
    a.engine.send(&packet(1, 2, 10), at);
    assert_eq!(carry(&mut a, &mut b, at).1.len(), 1);
}

#[test]
fn peers_come_and_go_and_are_bounded() {
    let now = Instant::now();
    let limits = TunnelLimits { peers: 3, ..TunnelLimits::default() };
    let mut config = Config::new(PrivateKey::generate().unwrap());
    let mut a = Side::with(&config, 1, Timing::default(), limits, false, now);
    let keys: Vec<_> = (0..4).map(|_| PrivateKey::generate().unwrap().public_key()).collect();
    for _ in 0..3 {
        for (host, key) in (1..).zip(&keys[..3]) {
            a.engine.add_peer(&peer(*key, host), false, now).unwrap();
        }
        let message = a.engine.add_peer(&peer(keys[3], 4), false, now).unwrap_err().to_string();
        assert!(message.contains("3 peers, which is its limit"), "{message}");
        assert!(a.engine.add_peer(&peer(keys[0], 4), false, now).unwrap_err().to_string().contains("already"));
        a.engine.send(&packet(9, 1, 100), now);
        assert!(a.engine.remove_peer(&keys[1], now) && !a.engine.remove_peer(&keys[1], now));
        assert!(a.engine.add_peer(&peer(keys[3], 1), false, now).unwrap_err().to_string().contains("fd00:1::/32"));
        a.engine.remove_peer(&keys[0], now);
        a.engine.remove_peer(&keys[2], now);
        assert_eq!((a.engine.waiting, a.engine.next(), a.engine.peers.len()), (0, None, 3));
    }
    // What was meant to be public, and is not, is not repeated.
    let private = config.private_key.reveal();
    let message = a.engine.add_peer(&peer(private.parse().unwrap(), 4), false, now).unwrap_err().to_string();
    assert!(message.contains("private key of the interface") && !message.contains(&private), "{message}");
    let nowhere = peer(keys[0], 4).endpoint("192.0.2.1:0".parse().unwrap());
    let message = a.engine.add_peer(&nowhere, false, now).unwrap_err().to_string();
    assert_eq!(message, "the endpoint `192.0.2.1:0` has port 0, allowed are 1 to 65535");
    config.peers.push(PeerConfig { endpoint: Some(Endpoint::Name { host: "x".into(), port: 1 }), ..peer(keys[0], 1) });
    let error = Engine::new(&config, limits, Timing::default(), false, now).err().unwrap().to_string();
    assert!(error.contains("`x:1` of a peer is a name"), "{error}");
}

#[test]
fn a_socket_that_is_full_holds_packets_back_and_loses_none() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    a.engine.send(&packet(1, 2, 10), now);
    carry(&mut a, &mut b, now);
    let big = packet(1, 2, 1380);
    let taken = (0..1000).take_while(|_| a.engine.send(&big, now)).count();
    assert!((100..300).contains(&taken), "{taken}");
    assert_eq!(carry(&mut a, &mut b, now).1.len(), taken);
    assert!(a.engine.send(&big, now));
}
