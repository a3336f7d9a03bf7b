//! The stack with a client on another one of the same kind, which has its faults only in common with ours where TCP itself is at
//! stake; the tests with a Linux guest see to that.

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::SocketBuffer;
use smoltcp::wire::{EthernetAddress, IpAddress, Ipv4Address};

use super::*;

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const GUEST: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);

#[derive(Default)]
struct Wire {
    to_client: VecDeque<Vec<u8>>,
    to_service: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sender<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Sender<'_>)> {
        Some((Received(self.to_client.pop_front()?), Sender(&mut self.to_service)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sender<'_>> {
        Some(Sender(&mut self.to_service))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = (Medium::Ethernet, 1514);
        capabilities
    }
}

/// A guest with its TCP, and the service.
struct Rig {
    stack: Stack,
    metadata: Metadata,
    epoch: Instant,
    millis: u64,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    port: u16,
}

impl Rig {
    fn new() -> Self {
        let metadata = Metadata::new().needs_token(false);
        let epoch = Instant::now();
        let mut wire = Wire::default();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ethernet(MAC)), &mut wire, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST.into(), 24)).unwrap();
            // As `ip route add 169.254.169.254 dev eth0` has it.
            addresses.push(IpCidr::new(IpAddress::v4(169, 254, 1, 1), 16)).unwrap();
        });
        Self {
            stack: Stack::new(metadata.clone(), epoch).unwrap(),
            metadata,
            epoch,
            millis: 0,
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            port: 1024,
        }
    }

    fn now(&self) -> Instant {
        self.epoch + Duration::from_millis(self.millis)
    }

    /// A millisecond goes by, in which both sides do what they have to do.
    fn tick(&mut self) {
        self.millis += 1;
        let clock = smoltcp::time::Instant::from_millis(self.millis as i64);
        self.interface.poll(clock, &mut self.wire, &mut self.sockets);
        while let Some(frame) = self.wire.to_service.pop_front() {
            self.stack.take(&frame, self.now());
        }
        if self.stack.due().is_some_and(|due| due <= self.now()) {
            self.stack.go_on(self.now());
        }
        while let Some(frame) = self.stack.next() {
            self.wire.to_client.push_back(frame.to_vec());
            self.stack.done();
        }
    }

    fn ticks(&mut self, millis: u64) {
        (0..millis).for_each(|_| self.tick());
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn connect(&mut self) -> SocketHandle {
        self.port += 1;
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.connect(self.interface.context(), (IpAddress::v4(169, 254, 169, 254), 80), self.port).unwrap();
        let handle = self.sockets.add(socket);
        self.ticks(10);
        handle
    }

    fn say(&mut self, handle: SocketHandle, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let sent = self.socket(handle).send_slice(rest).expect("the connection stands");
            rest = &rest[sent..];
            self.tick();
        }
    }

    /// All that comes until nothing comes any more.
    fn hear(&mut self, handle: SocketHandle) -> String {
        let mut heard = Vec::new();
        let mut quiet = 0;
        while quiet < 50 {
            self.tick();
            let before = heard.len();
            while self.socket(handle).can_recv() {
                self.socket(handle).recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes))).unwrap();
            }
            quiet = if heard.len() == before { quiet + 1 } else { 0 };
        }
        String::from_utf8(heard).unwrap()
    }

    fn ask(&mut self, path: &str) -> String {
        let handle = self.connect();
        self.say(handle, &format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n"));
        let answer = self.hear(handle);
        self.sockets.remove(handle);
        answer
    }

    fn connections(&self) -> usize {
        self.stack.network.as_ref().map_or(0, |network| network.connections.len())
    }
}

#[test]
fn a_client_finds_the_service_and_is_answered() {
    let mut rig = Rig::new();
    rig.metadata.set(r#"{"a":"b"}"#).unwrap();
    let answer = rig.ask("/a");
    let wanted = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1\r\nConnection: close\r\n\r\nb";
    assert_eq!(answer, wanted);
    let (request, first) = (&rig.stack.counters, rig.stack.counters.connections.get());
    assert_eq!(first, 1);
    let mut meter = crate::meter::Meter::new();
    request.tell(&mut meter);
    let counts = meter.read();
    assert_eq!((counts["metadata_requests"], counts["metadata_refused"], counts["metadata_failures"]), (1, 0, 0));
}

#[test]
fn a_long_answer_comes_whole_though_it_changes_on_the_way() {
    let mut rig = Rig::new();
    let long = "x".repeat(51_000);
    rig.metadata.set(&format!("{{\"a\":\"{long}\"}}")).unwrap();
    let handle = rig.connect();
    rig.say(handle, "GET /a HTTP/1.1\r\n\r\n");
    rig.ticks(5);
    rig.metadata.set("{}").unwrap();
    let answer = rig.hear(handle);
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, long);
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let mut rig = Rig::new();
    rig.metadata.set(r#"{"a":"1","b":"2"}"#).unwrap();
    let handle = rig.connect();
    let both = "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n".repeat(20);
    rig.say(handle, &both);
    let answers = rig.hear(handle);
    let bodies: Vec<_> =
        answers.match_indices("keep-alive\r\n\r\n").map(|(at, end)| &answers[at + end.len()..][..1]).collect();
    assert_eq!(bodies, ["1", "2"].repeat(20));
}

#[test]
fn a_connection_ends_after_its_hundredth_request() {
    let mut rig = Rig::new();
    let handle = rig.connect();
    rig.say(handle, &"GET / HTTP/1.1\r\n\r\n".repeat(101));
    let answers = rig.hear(handle);
    assert_eq!((answers.matches("200 OK").count(), answers.matches("Connection: close").count()), (100, 1));
    assert!(!rig.socket(handle).may_recv());
}

#[test]
fn what_is_no_http_is_refused_and_the_connection_ends() {
    let mut rig = Rig::new();
    let handle = rig.connect();
    rig.say(handle, "\x16\x03\x01 this is TLS");
    let answer = rig.hear(handle);
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains("Connection: close"), "{answer}");
    assert!(!rig.socket(handle).may_recv());
}

#[test]
fn a_request_that_never_ends_is_cut_at_its_length_and_at_its_time() {
    let mut rig = Rig::new();
    let long = rig.connect();
    rig.say(long, "GET / HTTP/1.1\r\na: ");
    rig.say(long, &"a".repeat(5000));
    assert!(rig.hear(long).starts_with("HTTP/1.1 431 "));
    let slow = rig.connect();
    for _ in 0..11 {
        if rig.socket(slow).may_send() {
            rig.say(slow, "G");
        }
        rig.ticks(1000);
    }
    assert!(!rig.socket(slow).is_open(), "{}", rig.socket(slow).state());
    assert_eq!(rig.connections(), 0);
}

#[test]
fn a_client_that_reads_nothing_is_cut() {
    let mut rig = Rig::new();
    rig.metadata.set(&format!("{{\"a\":\"{}\"}}", "x".repeat(51_000))).unwrap();
    let handle = rig.connect();
    rig.say(handle, "GET /a HTTP/1.1\r\n\r\n");
    rig.ticks(9_000);
    assert!(rig.socket(handle).is_open());
    rig.ticks(3_000);
    assert!(!rig.socket(handle).may_send(), "{}", rig.socket(handle).state());
    assert_eq!(rig.connections(), 0);
}

#[test]
fn an_idle_connection_is_closed_in_order() {
    let mut rig = Rig::new();
    let handle = rig.connect();
    rig.say(handle, "GET / HTTP/1.1\r\n\r\n");
    assert!(rig.hear(handle).contains("200 OK"));
    rig.ticks(11_000);
    assert_eq!(rig.socket(handle).state(), State::CloseWait);
    rig.socket(handle).close();
    rig.ticks(20);
    assert_eq!(rig.socket(handle).state(), State::Closed);
    // It waits for what may still be under way, and no longer.
    rig.ticks(11_000);
    assert_eq!((rig.connections(), rig.stack.due()), (0, None));
}

#[test]
fn connections_that_do_nothing_make_room_for_one_that_does() {
    let mut rig = Rig::new();
    let idle: Vec<_> = (0..MOST_CONNECTIONS).map(|_| rig.connect()).collect();
    assert!(idle.iter().all(|handle| rig.sockets.get::<Socket>(*handle).state() == State::Established));
    rig.ticks(2_000);
    assert!(rig.ask("/").contains("200 OK"));
    assert!(rig.connections() <= MOST_CONNECTIONS);
}

#[test]
fn connections_that_are_new_are_kept_while_another_waits_its_turn() {
    let mut rig = Rig::new();
    let first: Vec<_> = (0..MOST_CONNECTIONS).map(|_| rig.connect()).collect();
    let next = rig.connect();
    assert_eq!(rig.socket(next).state(), State::SynSent);
    assert_eq!(rig.connections(), MOST_CONNECTIONS);
    rig.ticks(3_000);
    assert_eq!(rig.socket(next).state(), State::Established);
    // Only one had to go.
    let open = first.iter().filter(|handle| rig.sockets.get::<Socket>(**handle).may_send()).count();
    assert!(open >= MOST_CONNECTIONS - 1, "{open}");
}

#[test]
fn a_reset_forgets_all_connections_and_the_next_one_works() {
    let mut rig = Rig::new();
    let handle = rig.connect();
    rig.stack.reset();
    assert_eq!((rig.connections(), rig.stack.due()), (0, None));
    rig.say(handle, "GET / HTTP/1.1\r\n\r\n");
    rig.ticks(20);
    assert_eq!(rig.socket(handle).state(), State::Closed);
    assert!(rig.ask("/").contains("200 OK"));
}

/// A frame with a TCP segment of its own making, whose checksum is wrong.
fn segment(port: u16, flags: u8, from: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(from);
    frame.extend([169, 254, 169, 254]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

#[test]
fn a_thousand_connections_that_are_only_begun_hold_no_more_than_thirty_places() {
    let mut rig = Rig::new();
    for port in 0..1000 {
        rig.stack.take(&segment(10_000 + port, 2, [10, 0, 0, 2]), rig.now());
        assert!(rig.connections() <= MOST_CONNECTIONS && rig.stack.link.len() <= 32);
    }
    rig.ticks(1_500);
    assert!(rig.ask("/").contains("200 OK"));
    rig.ticks(60_000);
    assert_eq!((rig.connections(), rig.stack.due()), (0, None));
}

#[test]
fn a_port_where_nothing_is_refuses_connections() {
    let mut rig = Rig::new();
    let mut frame = segment(10_000, 2, [10, 0, 0, 2]);
    frame[37] = 81;
    rig.stack.take(&frame, rig.now());
    let answer = rig.stack.next().expect("a reset").to_vec();
    assert_eq!((&answer[..6], answer[47] & 4), (&[2, 0, 0, 0, 0, 9][..], 4));
}

#[test]
fn an_arp_request_is_answered_and_nothing_else_is_said() {
    let mut rig = Rig::new();
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 2]);
    frame.extend([0, 0, 0, 0, 0, 0, 169, 254, 169, 254]);
    rig.stack.take(&frame, rig.now());
    let own = [2, 0, 0xa9, 0xfe, 0xa9, 0xfe];
    let answer = rig.stack.next().expect("an answer").to_vec();
    assert_eq!((&answer[..6], &answer[6..12], &answer[20..22]), (&[2, 0, 0, 0, 0, 9][..], &own[..], &[0, 2][..]));
    assert_eq!(
        (&answer[22..28], &answer[28..32], &answer[38..42]),
        (&own[..], &[169, 254, 169, 254][..], &[10, 0, 0, 2][..])
    );
    rig.stack.done();
    assert_eq!((rig.stack.next(), rig.stack.due(), rig.stack.network.is_some()), (None, None, false));
}

#[test]
fn frames_cut_anywhere_harm_nothing() {
    let mut rig = Rig::new();
    let whole = segment(10_000, 2, [10, 0, 0, 2]);
    for len in 0..whole.len() {
        rig.stack.take(&whole[..len], rig.now());
    }
    assert_eq!(rig.stack.next(), None);
    assert!(rig.ask("/").contains("200 OK"));
    assert_eq!(rig.stack.counters.failures.get(), 0);
}
