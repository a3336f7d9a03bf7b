//! The metadata service: any frames, at any pace, with a document that changes. What comes out is checked against what TCP and HTTP say of
//! any answer; which answer a request has is a matter of the library's own tests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vmcell::Metadata;
use vmcell::testing::rooms::MetadataStack;

use crate::alloc::Meter;
use crate::input::{Input, Script};

const SERVICE: [u8; 4] = [169, 254, 169, 254];
const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP: usize = 20;
/// The longest frame for the guest.
const LONGEST: usize = ETHERNET + 1500;
/// So many frames wait for the guest at most.
const MOST_WAITING: usize = 32;
/// 30 connections with 14 KiB each and an answer of their own, one that is only begun, frames that wait, and the places for all that.
const MOST_HELD: i64 = 1 << 20;
/// The document; an answer of its length and its head.
const LIMIT: usize = 8 << 10;
const MOST_STEPS: usize = 300;
const PORTS: u16 = 40;

const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n\r\n",
    "GET /long HTTP/1.1\r\n\r\n",
    "GET /long HTTP/1.1\r\nConnection: close\r\n\r\n",
    "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 21600\r\n\r\n",
    "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: ",
    "GET /",
    "GET /a/0/~1~0//b HTTP/1.0\r\nAccept: application/json, */*\r\n",
    "Content-Length: 10\r\n",
    "Content-Length: 99999\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n",
    "X-metadata-token: 00\r\n",
    "a: b\r\n",
    "\r\n",
    "\r\n\r\n",
    " HTTP/1.1\r\n\r\n",
    "HEAD",
];

const DOCUMENTS: &[&str] = &["{}", r#"{"a":[{"/~":{"b":"c"}}],"long":"#, "null", r#"{"a":1,"b":[]}"#];

/// What a client knows of its connection.
#[derive(Clone, Copy, Default)]
struct Client {
    ours: u32,
    theirs: u32,
    /// Where the bytes of the service's side begin, if it has said so.
    first: Option<u32>,
}

struct Test {
    stack: MetadataStack,
    metadata: Metadata,
    now: Instant,
    clients: BTreeMap<u16, Client>,
    meter: Meter,
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut test = Test::new(&mut input);
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        test.step(&mut input);
    }
    test.end();
}

impl Test {
    fn new(input: &mut Input) -> Self {
        let metadata = Metadata::new().needs_token(input.one_in(2)).always_text(input.one_in(4)).limit(2 * LIMIT);
        let now = Instant::now();
        let stack = MetadataStack::new(&metadata, now).expect("the host has random bytes");
        let mut test = Self { stack, metadata, now, clients: BTreeMap::new(), meter: Meter::new(MOST_HELD) };
        test.change(1);
        test
    }

    fn step(&mut self, input: &mut Input) {
        match input.below(16) {
            0..=3 => self.open(input),
            4..=8 => self.say(input),
            9 => self.segment(input),
            10 => self.junk(input),
            11 | 12 => self.listen(usize::from(input.below(64))),
            13 => self.wait(input),
            14 => self.change(input.below(4).into()),
            _ if input.one_in(4) => {
                self.stack.reset();
                self.clients.clear();
            }
            _ => self.listen(usize::MAX),
        }
    }

    fn change(&mut self, which: usize) {
        let mut document = DOCUMENTS[which].to_owned();
        if document.ends_with(':') {
            document += &format!("\"{}\"}}", "x".repeat(LIMIT));
        }
        self.metadata.set(&document).expect("it is JSON, and short enough");
    }

    fn port(input: &mut Input) -> u16 {
        1024 + input.below(PORTS)
    }

    /// Opens a connection, or begins to.
    fn open(&mut self, input: &mut Input) {
        let port = Self::port(input);
        let client = Client { ours: input.word(), ..Client::default() };
        self.clients.insert(port, client);
        let options: &[u8] = match input.below(4) {
            0 => &[],
            1 => &[2, 4, 5, 0xb4],
            2 => &[2, 4, 0, input.byte()],
            _ => &[3, 3, input.byte(), 1, 4, 2, 1, 1],
        };
        self.give(&frame(port, &client, 2, 0xffff, options, &[]));
        self.clients.entry(port).and_modify(|client| client.ours = client.ours.wrapping_add(1));
        if !input.one_in(4) {
            self.listen(usize::MAX);
            self.send(port, 16, 0xffff, &[]);
        }
    }

    /// Sends on a connection what follows.
    fn send(&mut self, port: u16, flags: u8, window: u16, payload: &[u8]) {
        let client = self.clients.get(&port).copied().unwrap_or_default();
        self.give(&frame(port, &client, flags, window, &[], payload));
        let fin = u32::from(flags & 1 != 0);
        let len = u32::try_from(payload.len()).expect("it is short") + fin;
        self.clients.entry(port).and_modify(|client| client.ours = client.ours.wrapping_add(len));
    }

    fn say(&mut self, input: &mut Input) {
        let port = Self::port(input);
        let mut payload = Vec::new();
        for _ in 0..1 + input.below(4) {
            match input.below(8) {
                0 => payload.push(input.byte()),
                1 => payload.extend(std::iter::repeat_n(input.byte(), usize::from(input.half() % 1400))),
                _ => payload.extend(PIECES[usize::from(input.below(16))].bytes()),
            }
        }
        payload.truncate(2048);
        let window = if input.one_in(4) { input.half() } else { 0xffff };
        let flags = if input.one_in(8) { 17 } else { 24 };
        self.send(port, flags, window, &payload);
    }

    /// A segment with anything in it, near to what would be right.
    fn segment(&mut self, input: &mut Input) {
        let port = Self::port(input);
        let mut client = self.clients.get(&port).copied().unwrap_or_default();
        let near = |input: &mut Input, value: u32| match input.below(4) {
            0 => value,
            1 => value.wrapping_add(u32::from(input.byte())).wrapping_sub(128),
            2 => value.wrapping_add(u32::from(input.half())).wrapping_sub(0x8000),
            _ => input.word(),
        };
        client.ours = near(input, client.ours);
        client.theirs = near(input, client.theirs);
        let len = usize::from(input.below(64));
        let payload = vec![b'x'; if input.one_in(8) { len * 32 } else { len }];
        let options: Vec<_> = (0..4 * input.below(11)).map(|_| input.byte()).collect();
        let (flags, window) = (input.byte(), input.half());
        self.give(&frame(port, &client, flags, window, &options, &payload));
        if input.one_in(2) {
            self.clients.insert(port, client);
        }
    }

    /// A frame that may be none.
    fn junk(&mut self, input: &mut Input) {
        let mut bytes = frame(Self::port(input), &Client::default(), input.byte(), 0, &[], b"GET ");
        if input.one_in(4) {
            bytes[12..14].copy_from_slice(&[8, 6]);
            bytes[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        }
        for _ in 0..input.below(8) {
            let at = usize::from(input.below(60)) % bytes.len();
            bytes[at] = input.byte();
        }
        if input.one_in(4) {
            bytes.truncate(usize::from(input.below(60)));
        }
        self.give(&bytes);
    }

    fn give(&mut self, frame: &[u8]) {
        let Self { stack, meter, now, .. } = self;
        meter.run(|| stack.take(frame, *now));
        assert_eq!(stack.failures(), 0, "a frame made the TCP stack panic");
    }

    /// Time goes by, in which the service does what it is due to do.
    fn wait(&mut self, input: &mut Input) {
        let millis = match input.below(4) {
            0 => 1,
            1 => u64::from(input.byte()),
            2 => u64::from(input.half()),
            _ => 10_001,
        };
        self.now += Duration::from_millis(millis);
        self.go_on();
    }

    fn go_on(&mut self) {
        let Self { stack, meter, now, .. } = self;
        if stack.due().is_some_and(|due| due <= *now) {
            meter.run(|| stack.go_on(*now));
        }
        assert_eq!(stack.failures(), 0, "the time made the TCP stack panic");
    }

    /// The guest has room for so many frames.
    fn listen(&mut self, count: usize) {
        let mut left = count;
        let mut idle = false;
        while left > 0 && !idle {
            self.go_on();
            idle = true;
            for round in 0..left.min(MOST_WAITING + 1) {
                let Some(frame) = self.stack.pop() else { break };
                assert!(round < MOST_WAITING, "more frames wait than may");
                self.look_at(&frame);
                left -= 1;
                idle = false;
            }
        }
    }

    /// What any frame of the service keeps to.
    fn look_at(&mut self, frame: &[u8]) {
        assert!((42..=LONGEST).contains(&frame.len()), "a frame of {} bytes", frame.len());
        assert_eq!(frame[6..12], [2, 0, 0xa9, 0xfe, 0xa9, 0xfe], "who sends it");
        match [frame[12], frame[13]] {
            [8, 6] => assert_eq!((&frame[20..22], &frame[28..32]), (&[0, 2][..], &SERVICE[..]), "an ARP reply"),
            [8, 0] => self.look_at_packet(&frame[ETHERNET..]),
            kind => panic!("a frame of the type {kind:?}"),
        }
    }

    fn look_at_packet(&mut self, packet: &[u8]) {
        assert_eq!((packet[0], &packet[12..16]), (0x45, &SERVICE[..]), "an IPv4 packet of the service");
        let half = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        assert_eq!(usize::from(half(2)), packet.len(), "its length");
        if packet[9] != 6 {
            return assert_eq!(packet[9], 1, "what is not TCP is ICMP");
        }
        let word = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let (port, begun, flags) = (half(IP + 2), word(IP + 4), packet[IP + 13]);
        let payload = &packet[IP + 4 * usize::from(packet[IP + 12] >> 4)..];
        let Some(client) = self.clients.get_mut(&port).filter(|_| half(IP) == 80) else { return };
        if flags & 2 != 0 {
            client.first = Some(begun.wrapping_add(1));
        }
        if client.first == Some(begun) && !payload.is_empty() {
            let begin = b"HTTP/1.1 ";
            let len = payload.len().min(begin.len());
            assert_eq!(payload[..len], begin[..len], "an answer begins by its version");
        }
        let len = u32::try_from(payload.len()).expect("it is short");
        client.theirs = begun.wrapping_add(len).wrapping_add(u32::from(flags & 3 != 0));
    }

    /// A guest that says no more is forgotten.
    fn end(mut self) {
        for _ in 0..200 {
            self.listen(usize::MAX);
            let Some(due) = self.stack.due() else { return };
            self.now = self.now.max(due);
        }
        panic!("connections are kept for a guest that says nothing");
    }
}

fn frame(port: u16, client: &Client, flags: u8, window: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(IP + TCP + options.len() + payload.len()).expect("it is short");
    let words = u8::try_from((TCP + options.len()) / 4).expect("it is short");
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0, 0x45, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2]);
    frame.extend(SERVICE);
    frame.extend(port.to_be_bytes());
    frame.extend(80u16.to_be_bytes());
    frame.extend(client.ours.to_be_bytes());
    frame.extend(client.theirs.to_be_bytes());
    frame.extend([words << 4, flags]);
    frame.extend(window.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(options);
    frame.extend(payload);
    frame
}

/// Inputs that reach far.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let begin = || Script::new().bytes(&[0, 0]);
    let open = |script: Script, port: u8| script.bytes(&[0, port]).word(7).bytes(&[0, 1]);
    let say = |script: Script, port: u8, piece: u8| script.bytes(&[4, port, 0, 2, piece, 1, 1]);
    let listen = |script: Script| script.bytes(&[15, 1]);
    let one = listen(say(open(begin(), 3), 3, 1));
    let several = (0..32).fold(begin(), |script, port| say(open(script, port), port, 5));
    let answers = (0..8).fold(open(begin(), 1), |script, piece| listen(say(script, 1, piece)));
    vec![("an-answer", one.done()), ("more-than-may-be", several.done()), ("several-answers", answers.done())]
}
