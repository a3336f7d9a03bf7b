//! A private network: guests that send each other any frames, and a service of which some are members, while its rules and its members change
//! and they reset their cards. What arrives is checked against a model of who may speak with whom.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use vmcell::network::{MachineAddress, Network, NetworkConfig, Prefix, Rule, Service, ServiceConfig, Subnet, Uplink};
use vmcell::testing::{InlineIo, NicDriver};

use crate::input::{Input, Script};

const SUBNET: Subnet = Subnet::new([1, 2, 3], 4);
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GUESTS: u16 = 3;
const MOST_STEPS: usize = 200;
/// More turns than any step takes.
const MOST_ROUNDS: usize = 1000;
const FIRST_PORT: u16 = 1000;
/// The first guest is no member of the service.
const FIRST_MEMBER: u16 = 1;

/// Protocol, who speaks, to whom, and their ports: what one flow is.
type Flow = (u8, Ipv6Addr, Ipv6Addr, u16, u16);

/// A rule as the model has it: whether it allows, whose flows, which protocol, and up to which port.
#[derive(Clone, Copy)]
struct Model {
    allows: bool,
    from: Option<Ipv6Addr>,
    protocol: Option<u8>,
    last_port: u16,
}

struct Test {
    io: InlineIo,
    network: Network,
    guests: Vec<NicDriver>,
    uplink: Uplink,
    service: Service,
    rules: Vec<Model>,
    /// Flows that were seen to begin. One that has come to a member may be one to the service.
    begun: BTreeSet<Flow>,
}

fn machine(number: u16) -> MachineAddress {
    SUBNET.machine(1, u32::from(number) + 1).expect("a number that is allowed")
}

fn far() -> MachineAddress {
    SUBNET.machine(2, 9).expect("a number that is allowed")
}

fn service() -> Ipv6Addr {
    SUBNET.service(7)
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut test = Test::new();
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        test.step(&mut input);
        assert!(test.io.settle(MOST_ROUNDS).is_some(), "the network comes to rest");
        test.look();
    }
}

impl Test {
    fn new() -> Self {
        let io = InlineIo::new();
        let network = Network::new(NetworkConfig::new(SUBNET).flows(64)).expect("the settings are allowed");
        let guest = |number| {
            let port = network.port(machine(number)).expect("the address is free");
            let port = port.named(&format!("vm{}", number % 2)).expect("a plain name");
            let mut driver = NicDriver::new(port.into_nic(), io.io_thread()).expect("the NIC is well-formed");
            driver.fill();
            driver
        };
        let guests = (0..GUESTS).map(guest).collect();
        let mut uplink = network.uplink(1280, 16, || {}).expect("the settings are allowed");
        uplink.set_routes(&[SUBNET.host_prefix(2)]).expect("nothing else lies there");
        io.settle(MOST_ROUNDS);
        // Most inputs are too short to begin with a rule.
        network.set_rules(&[Rule::allow()]).expect("there are few");
        let config = ServiceConfig::new().name("all").limits(2, 3);
        let service = network.service(service(), config).expect("the settings are allowed");
        (FIRST_MEMBER..GUESTS).for_each(|number| service.add(machine(number)).expect("it has a port"));
        let rules = vec![Model { allows: true, from: None, protocol: None, last_port: u16::MAX }];
        Self { io, network, guests, uplink, service, rules, begun: BTreeSet::new() }
    }

    fn step(&mut self, input: &mut Input) {
        let guest = usize::from(input.below(GUESTS));
        match input.below(16) {
            0 => self.set_rules(input),
            1 if input.one_in(2) => {
                self.guests[guest].restart(input.one_in(2), input.one_in(2));
                self.guests[guest].fill();
            }
            1 => {
                let packet = packet(input, far());
                self.uplink.inject(&packet);
                self.uplink.flush();
            }
            15 => {
                let member = machine(FIRST_MEMBER + input.below(GUESTS - FIRST_MEMBER));
                match input.below(3) {
                    0 => drop(self.service.remove(member)),
                    1 => drop(self.service.drain(member)),
                    _ => drop(self.service.add(member)),
                }
            }
            2 => {
                let frame: Vec<u8> = (0..input.below(64)).map(|_| input.byte()).collect();
                self.guests[guest].send(&frame);
            }
            _ => {
                let own = machine(u16::try_from(guest).expect("there are few"));
                let packet = packet(input, own);
                let mut sent = header(input).to_vec();
                sent.extend(if input.one_in(16) { [0x33; 6] } else { ROUTER_MAC });
                sent.extend(if input.one_in(16) { machine(input.below(4)).mac() } else { own.mac() });
                sent.extend(if input.one_in(32) { [8, input.byte()] } else { [0x86, 0xdd] });
                sent.extend(packet);
                self.guests[guest].send(&sent);
            }
        }
    }

    fn set_rules(&mut self, input: &mut Input) {
        let model = |input: &mut Input| Model {
            allows: !input.one_in(3),
            from: input.one_in(2).then(|| machine(input.below(GUESTS)).ip()),
            protocol: [None, Some(6), Some(17), Some(58)][usize::from(input.below(4))],
            last_port: FIRST_PORT + input.below(8),
        };
        self.rules = (0..input.below(4)).map(|_| model(input)).collect();
        let rule = |model: &Model| {
            let rule = if model.allows { Rule::allow() } else { Rule::deny() };
            let rule = rule.from(model.from.map_or(Prefix::ALL, Prefix::from));
            match model.protocol {
                None => rule,
                Some(6) => rule.tcp(0..=model.last_port),
                Some(17) => rule.udp(0..=model.last_port),
                Some(other) => rule.protocol(other),
            }
        };
        let rules: Vec<_> = self.rules.iter().map(rule).collect();
        self.network.set_rules(&rules).expect("there are few");
    }

    /// Whether the rules let a flow begin.
    fn allows(&self, flow: &Flow) -> bool {
        let (protocol, from, _, _, port) = *flow;
        let fits = |model: &&Model| {
            model.from.is_none_or(|own| own == from)
                && model.protocol.is_none_or(|own| own == protocol)
                && (model.protocol.is_none() || !matches!(protocol, 6 | 17) || port <= model.last_port)
        };
        self.rules.iter().find(fits).is_some_and(|model| model.allows)
    }

    /// Checks all that has arrived.
    fn look(&mut self) {
        for number in 0..GUESTS {
            assert!(!self.guests[usize::from(number)].needs_reset(), "the device does not trust its driver any more");
            while let Some(received) = self.guests[usize::from(number)].receive(Duration::ZERO) {
                // A buffer that came back without a frame.
                if received.is_empty() {
                    continue;
                }
                let (own, frame) = (machine(number), &received[12..]);
                assert_eq!((&frame[..6], &frame[6..12]), (&own.mac()[..], &ROUTER_MAC[..]));
                assert_eq!(frame[12..14], [0x86, 0xdd]);
                self.check(&frame[14..], own.ip().into());
            }
        }
        let mut out = Vec::new();
        self.uplink.drain(usize::MAX, |packet| {
            out.push(packet.to_vec());
            true
        });
        for packet in out {
            assert!(packet.len() <= 1280, "it fits the tunnel");
            self.check(&packet, SUBNET.host_prefix(2));
        }
    }

    fn check(&mut self, packet: &[u8], own: Prefix) {
        let half = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("it is there"));
        assert_eq!((packet[0] >> 4, usize::from(half(4)) + 40), (6, packet.len()), "a whole packet");
        let (source, destination, protocol) = (address(8), address(24), packet[6]);
        let kind = packet[40];
        // What the switch says itself: advertisements, and errors about what does not fit the tunnel.
        if protocol == 58 && packet[7] == 255 && (matches!(kind, 134 | 136) || kind == 2 && source == router()) {
            return;
        }
        assert!(own.contains(destination), "for {destination}, not for {own}");
        assert!(![0, 43, 44, 51, 59, 60, 135, 4, 41, 47].contains(&protocol), "{protocol} must not pass");
        if source == SUBNET.dns() {
            return assert_eq!((protocol, half(40)), (17, 53));
        }
        let is_service = source == service();
        let known = is_service || (0..GUESTS).map(machine).any(|machine| machine.ip() == source);
        assert!(
            (known || SUBNET.host_prefix(2).contains(source)) && !own.contains(source),
            "from {source}, which is nobody"
        );
        let (from, to) = match protocol {
            6 | 17 => (half(40), half(42)),
            58 => (half(44), half(44)),
            _ => (0, 0),
        };
        let (flow, back) = ((protocol, source, destination, from, to), (protocol, destination, source, to, from));
        if protocol == 58 && kind <= 4 {
            let (sender, receiver) = (address(56), address(72));
            let is_far = |address| SUBNET.host_prefix(2).contains(address);
            assert_eq!(sender, destination, "an error goes to whoever has sent what it is about");
            return assert!(
                receiver == source || is_far(receiver) && is_far(source),
                "{source} has nothing to do with what was sent to {receiver}"
            );
        }
        // A member gets the flows of the service, too.
        let is_member = (FIRST_MEMBER..GUESTS).any(|number| machine(number).ip() == destination);
        let of_service = (protocol, source, service(), from, to);
        let is_served = is_member && !is_service && self.allows(&of_service);
        let answers = self.begun.contains(&back) && self.allows(&back);
        if protocol == 58 && kind == 129 {
            return assert!(answers, "an answer that nobody has asked for");
        }
        if is_service {
            // It begins nothing itself, but what is allowed may be refused.
            let is_reset = protocol == 6 && packet[53] & 4 != 0;
            return assert!(answers || is_reset && self.allows(&back), "{flow:?} is no answer of the service");
        }
        let begins = self.allows(&flow);
        assert!(begins || answers || is_served, "{flow:?} is not allowed");
        if begins {
            self.begun.insert(flow);
        }
        if is_served {
            self.begun.insert(of_service);
        }
    }
}

fn router() -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)
}

/// What a guest says that it has left undone.
fn header(input: &mut Input) -> [u8; 12] {
    let mut header = [0; 12];
    if input.one_in(8) {
        header[..10].fill_with(|| input.byte());
    } else if input.one_in(4) {
        header[0] = 1;
        header[6] = 54;
        header[8] = [16, 6, 2][usize::from(input.below(3))];
        if input.one_in(2) {
            header[1] = 4;
            [header[4], header[5]] = (256 + u16::from(input.byte())).to_le_bytes();
        }
    }
    header
}

/// A packet from `own`, or one that says so.
fn packet(input: &mut Input, own: MachineAddress) -> Vec<u8> {
    let source = match input.below(16) {
        0 => machine(input.below(GUESTS)).ip(),
        1 => own.link_local(),
        2 => Ipv6Addr::UNSPECIFIED,
        _ => own.ip(),
    };
    let destination = match input.below(16) {
        0 => far().ip(),
        1 => SUBNET.dns(),
        2 => router(),
        3 => "ff02::1".parse().expect("an address"),
        4 => machine(9).ip(),
        5 => service(),
        _ => machine(input.below(GUESTS)).ip(),
    };
    let kinds = [6, 6, 6, 17, 17, 17, 58, 58, 132, 0, 43, 44, 60, 41];
    let protocol = kinds[usize::from(input.below(14))];
    let mut payload = Vec::new();
    match protocol {
        6 | 17 => {
            for _ in 0..2 {
                payload.extend((FIRST_PORT + input.below(8)).to_be_bytes());
            }
            if protocol == 6 {
                payload.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, input.byte(), 0xff, 0xff, 0, 0, 0, 0]);
            } else {
                payload.extend([0; 4]);
            }
        }
        58 => payload.extend([
            [128, 129, 1, 2, 133, 134, 135, 136][usize::from(input.below(8))],
            0,
            0,
            0,
            0,
            input.byte(),
        ]),
        _ => {}
    }
    if input.one_in(4) {
        payload.extend((0..input.below(64)).map(|_| input.byte()));
    }
    payload.resize(payload.len() + if input.one_in(8) { usize::from(input.half() % 9000) } else { 0 }, 7);
    let len = u16::try_from(payload.len()).expect("it is short");
    if protocol == 17 && payload.len() >= 8 {
        payload[4..6].copy_from_slice(&len.to_be_bytes());
        if destination == SUBNET.dns() {
            payload[2..4].copy_from_slice(&53u16.to_be_bytes());
        }
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([protocol, if protocol == 58 { 255 } else { 64 }]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    // Now and then a byte is another, or the end is missing.
    if input.one_in(8) {
        let at = usize::from(input.below(60)).min(packet.len() - 1);
        packet[at] = input.byte();
    }
    if input.one_in(16) {
        packet.truncate(usize::from(input.byte()));
    }
    packet
}

/// Inputs that reach far.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    // By TCP: nothing of the header is left undone, and nothing about the frame or the packet is odd.
    let send = |script: Script, guest: u8, to: u8, ports: [u8; 2]| {
        script.bytes(&[guest, 3, 0, 0, 0, 0, 0, 15, 15, to, 0, ports[0], ports[1], 0x10, 0, 0, 0, 0])
    };
    // One that allows the first guest to begin.
    let rule = |script: Script| script.bytes(&[0, 0, 1, 0, 1, 0, 0, 7]);
    let there = send(Script::new(), 0, 1, [1, 2]);
    let back = send(send(rule(Script::new()), 0, 1, [1, 2]), 1, 0, [2, 1]);
    let many = (0..12).fold(Script::new(), |script, n| send(script, n % 3, (n + 1) % 3, [n % 8, 3]));
    let to_service = |script: Script, guest: u8, flags: u8| {
        script.bytes(&[guest, 3, 0, 0, 0, 0, 0, 15, 5, 0, 1, 2, flags, 0, 0, 0, 0])
    };
    // A connection, and its way back from whichever member has it.
    let served = send(send(to_service(Script::new(), 0, 2), 1, 0, [2, 1]), 2, 0, [2, 1]);
    let served = to_service(served, 0, 0x10);
    vec![("there", there.done()), ("and-back", back.done()), ("many", many.done()), ("served", served.done())]
}
