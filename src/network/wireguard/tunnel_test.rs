use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};

use super::super::super::address::Subnet;
use super::super::super::rule::Rule;
use super::super::super::settings::NetworkConfig;
use super::super::super::uplink::Injected;
use super::super::super::uplink::loose::LooseEnd;
use super::super::packet::packet;
use super::super::{AllowedIp, PrivateKey};
use super::*;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(20);

/// A tunnel, and what is at its inside.
struct Side {
    tunnel: Tunnel,
    end: LooseEnd,
}

fn prefix(host: u8) -> AllowedIp {
    format!("fd00:{host:x}::/32").parse().unwrap()
}

fn start(config: Config, change: impl FnOnce(TunnelBuilder) -> TunnelBuilder) -> Side {
    let builder = change(Tunnel::builder(config).listen_on(LOCALHOST));
    let (uplink, end) = LooseEnd::new(1420, 1024, builder.wake());
    Side { tunnel: builder.start(uplink).unwrap(), end }
}

impl Side {
    fn as_peer(&self, host: u8) -> PeerConfig {
        PeerConfig::new(self.tunnel.public_key()).allow(prefix(host)).endpoint(self.tunnel.local_address())
    }

    fn wait_for(&self, what: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !what(self) {
            assert!(began.elapsed() < PATIENCE, "{:?}", self.tunnel.metrics());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for so many packets.
    fn received(&self, count: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let began = Instant::now();
        while all.len() < count {
            all.extend(self.end.injected());
            assert!(began.elapsed() < PATIENCE, "{} of {count}: {:?}", all.len(), self.tunnel.metrics());
            std::thread::sleep(Duration::from_millis(2));
        }
        all
    }
}

fn new_key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

fn pair() -> (Side, Side) {
    let (a, b) = (start(Config::new(new_key()), |builder| builder), start(Config::new(new_key()), |builder| builder));
    a.tunnel.add_peer(&b.as_peer(2)).unwrap();
    b.tunnel.add_peer(&a.as_peer(1)).unwrap();
    (a, b)
}

#[test]
fn packets_cross_two_sockets_both_ways_in_order() {
    let (a, b) = pair();
    a.end.send([&packet(1, 2, 100)[..]]);
    assert_eq!(b.received(1), [packet(1, 2, 100)]);
    let many: Vec<_> = (0..200).map(|n| packet(2, 1, 1000 + n)).collect();
    b.end.send(many.iter().map(|packet| &packet[..]));
    assert_eq!(a.received(200), many);
    let status = a.tunnel.peer(&b.tunnel.public_key()).unwrap();
    assert_eq!(status.endpoint, Some(b.tunnel.local_address()));
    assert!(status.last_handshake.unwrap() < PATIENCE && status.received_bytes > 200_000 && status.sent_bytes == 140);
}

#[test]
fn what_lies_behind_a_tunnel_follows_its_peers() {
    let (a, b) = pair();
    assert_eq!(a.end.routes(), ["fd00:2::/32".parse().unwrap()]);
    let error = a.tunnel.add_peer(&b.as_peer(3)).unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
    assert!(a.tunnel.remove_peer(&b.tunnel.public_key()).unwrap());
    assert!(!a.tunnel.remove_peer(&b.tunnel.public_key()).unwrap());
    assert!(a.end.routes().is_empty() && a.tunnel.peers().is_empty());
    b.end.send([&packet(2, 1, 1)[..]]);
    a.wait_for(|a| a.tunnel.metrics()["wireguard_dropped_unknown_peer"] == 1);
}

#[test]
fn an_unknown_peer_becomes_one_when_the_host_program_says_so_however_long_that_takes() {
    let (ask, asked): (_, Receiver<UnknownPeer>) = channel();
    let a = start(Config::new(new_key()), |builder| builder.on_unknown_peer(move |peer| ask.send(peer).unwrap()));
    let mut config = Config::new(new_key());
    config.peers.push(a.as_peer(1));
    let b = start(config, |builder| builder);
    b.end.send([&packet(2, 1, 1)[..]]);
    let unknown = asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!((unknown.public_key(), unknown.source()), (b.tunnel.public_key(), b.tunnel.local_address()));
    assert!(a.end.injected().is_empty() && a.tunnel.peers().is_empty());
    unknown.accept(PeerConfig::new(b.tunnel.public_key()).allow(prefix(2)));
    assert_eq!(a.received(1), [packet(2, 1, 1)]);
    assert_eq!(a.end.routes(), ["fd00:2::/32".parse().unwrap()]);
}

#[test]
fn a_callback_that_panics_refuses_the_peer_and_is_asked_about_the_next() {
    let limits = TunnelLimits { refused_for: Duration::ZERO, ..TunnelLimits::default() };
    let a = start(Config::new(new_key()), |builder| builder.limits(limits).on_unknown_peer(|_| panic!("on purpose")));
    for count in 1..3 {
        let mut config = Config::new(new_key());
        config.peers.push(a.as_peer(1));
        let b = start(config, |builder| builder);
        b.end.send([&packet(2, 1, 1)[..]]);
        b.wait_for(|b| b.tunnel.metrics()["wireguard_handshakes_sent"] == 1);
        // The tunnel answers, and has no such peer.
        assert!(!a.tunnel.remove_peer(&b.tunnel.public_key()).unwrap(), "{count}");
    }
    assert!(a.tunnel.peers().is_empty());
}

#[test]
fn nothing_that_leaves_can_be_read() {
    let spy = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    spy.set_read_timeout(Some(PATIENCE)).unwrap();
    let (a, b) = (start(Config::new(new_key()), |builder| builder), start(Config::new(new_key()), |builder| builder));
    // The spy is between the two.
    let there = PeerConfig { endpoint: None, ..b.as_peer(2) }.endpoint(spy.local_addr().unwrap());
    a.tunnel.add_peer(&there).unwrap();
    b.tunnel.add_peer(&PeerConfig { endpoint: None, ..a.as_peer(1) }).unwrap();
    let sent: Vec<_> = (0..20).map(|n| packet(1, 2, 700 + n)).collect();
    a.end.send(sent.iter().map(|packet| &packet[..]));
    let (mut seen, mut room) = (Vec::new(), vec![0; 1 << 16]);
    while seen.iter().filter(|datagram: &&Vec<u8>| datagram.len() > 700).count() < 20 {
        let (len, from) = spy.recv_from(&mut room).unwrap();
        seen.push(room[..len].to_vec());
        let to = if from == a.tunnel.local_address() { b.tunnel.local_address() } else { a.tunnel.local_address() };
        spy.send_to(&room[..len], to).unwrap();
    }
    assert_eq!(b.received(20), sent);
    for datagram in &seen {
        assert!(matches!(datagram[..4], [1..=4, 0, 0, 0]));
        let readable = |window: &[u8]| window == [0xab; 8] || window == [0xfd, 0, 0, 1, 0, 0, 0, 0];
        assert!(!datagram.windows(8).any(readable));
    }
}

#[test]
fn a_flood_of_what_is_no_wireguard_does_not_keep_a_peer_out() {
    let (a, b) = pair();
    let (socket, to) = (UdpSocket::bind((LOCALHOST, 0)).unwrap(), b.tunnel.local_address());
    for n in 0..4_000_usize {
        let kind = u8::try_from(n % 6).unwrap();
        let mut junk = vec![kind, 0, 0, 0];
        junk.resize([4, 32, 64, 92, 148, 1400][n / 6 % 6], 0x77);
        let _ = socket.send_to(if n % 7 == 0 { &[] } else { &junk }, to);
        if n % 500 == 0 {
            a.end.send([&packet(1, 2, n % 1000)[..]]);
        }
    }
    a.wait_for(|_| {
        a.end.send([&packet(1, 2, 5)[..]]);
        b.end.injected().iter().any(|packet| packet.len() == 45)
    });
    assert!(b.tunnel.metrics()["wireguard_dropped_not_wireguard"] > 0);
}

#[test]
fn a_tunnel_that_cannot_be_started_says_why() {
    let mut config = Config::new(new_key());
    config.mtu = Some(1280);
    let builder = Tunnel::builder(config);
    let (uplink, _) = LooseEnd::new(1420, 8, builder.wake());
    let error = builder.start(uplink).unwrap_err().to_string();
    assert!(error.contains("1280 bytes, the network's packets have up to 1420"), "{error}");
    let timing = Timing { rekey_after: Duration::from_secs(121), ..Timing::default() };
    let builder = Tunnel::builder(Config::new(new_key())).timing(timing);
    let (uplink, _) = LooseEnd::new(1420, 8, builder.wake());
    let error = builder.start(uplink).unwrap_err().to_string();
    assert!(error.contains("rekey_after of a tunnel is 121s, allowed are 50 ms to 120s"), "{error}");
}

#[test]
fn a_tunnel_joins_a_network_by_an_uplink_of_its_own_with_the_mtu_of_its_configuration() {
    let network = |number| Network::new(NetworkConfig::new(Subnet::new([1, 2, 3], number))).unwrap();
    let (near, far) = (network(1), network(1));
    near.set_rules(&[Rule::allow()]).unwrap();
    let mut config = Config::new(new_key());
    config.mtu = Some(1280);
    let there = Tunnel::builder(Config::new(new_key())).listen_on(LOCALHOST).join(&far).unwrap();
    let peer = |host| AllowedIp::from(near.subnet().host_prefix(host));
    config.peers.push(PeerConfig::new(there.public_key()).allow(peer(2)).endpoint(there.local_address()));
    let here = Tunnel::builder(config).listen_on(LOCALHOST).packets(1).join(&near).unwrap();
    there.add_peer(&PeerConfig::new(here.public_key()).allow(peer(1))).unwrap();
    // A packet that somebody has for the other host wakes the tunnel: a datagram of no bytes from port 9 to port 9.
    let mut guest = near.uplink(1420, 1, || {}).unwrap();
    guest.set_routes(&[near.subnet().host_prefix(1)]).unwrap();
    let [from, to] = [1, 2].map(|host| near.subnet().machine(host, 1).unwrap().ip().octets());
    let packet = [&[0x60, 0, 0, 0, 0, 8, 17, 64][..], &from, &to, &[0, 9, 0, 9, 0, 8, 0, 0]].concat();
    assert_eq!(guest.inject(&packet), Injected::Delivered);
    guest.flush();
    let began = Instant::now();
    while there.metrics()["wireguard_received_packets"] == 0 {
        assert!(began.elapsed() < PATIENCE, "{:?} {:?}", here.metrics(), there.metrics());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_network_that_a_tunnel_cannot_join_says_why() {
    let network = Network::new(NetworkConfig::new(Subnet::new([1, 2, 3], 1))).unwrap();
    let refused = |mtu, packets| {
        let mut config = Config::new(new_key());
        config.mtu = mtu;
        Tunnel::builder(config).packets(packets).join(&network).unwrap_err()
    };
    for (error, says) in [
        (refused(Some(1279), 1), "an MTU of 1279 was asked for, allowed are 1280 to 65535"),
        (refused(None, 0), "an uplink for 0 packets was asked for, allowed are 1 to 65536"),
    ] {
        assert!(error.kind() == ErrorKind::InvalidConfig && error.to_string().contains(says), "{error}");
    }
}
