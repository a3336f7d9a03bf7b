//! Packets of a vsock that no driver sends.

use super::{Case, again_and_again, duration_us};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::{clock, memory};
use crate::body::report;
use crate::body::virtio::device::{Device, feature, reg};
use crate::body::virtio::ring::{NEXT, Ring, readable, writable};
use crate::body::virtio::vsock::{
    CREDIT_REQUEST, CREDIT_UPDATE, DEVICE_ID, HEADER, HOST, Header, REQUEST, RESPONSE, RST, RW, SHUTDOWN,
};

pub const CASES: &[Case] = &[
    ("packets_that_no_driver_sends_are_reset_or_dropped", |cmdline| on_vsock(cmdline, odd)),
    ("a_vsock_gives_back_chains_that_break_the_rules", |cmdline| on_vsock(cmdline, chains)),
    ("a_connection_that_sends_more_than_it_may_is_reset", |cmdline| on_vsock(cmdline, beyond_credit)),
    ("connections_without_end_hold_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_vsock(cmdline, |vsock| flood(vsock, us));
    }),
    ("a_guest_that_takes_no_packets_is_not_read_any_more", |cmdline| on_vsock(cmdline, takes_nothing)),
];

const FEATURES: u64 = feature::VERSION_1 | feature::INDIRECT;
const CID: u64 = 3;
/// Where the host listens and never reads.
const PORT: u32 = 80;
const BUFFER: u64 = 0x1000;

struct Vsock {
    device: Device,
    rx: Ring,
    tx: Ring,
    events: Ring,
}

fn header(src_port: u32, op: u16) -> Header {
    Header::new((CID, src_port), PORT, op)
}

impl Vsock {
    fn restart(&mut self) -> bool {
        let agreed = self.device.negotiate(FEATURES);
        let rings = [&mut self.rx, &mut self.tx, &mut self.events];
        let mut ready = agreed;
        for (queue, ring) in (0..).zip(rings) {
            self.device.write(reg::QUEUE_SEL, queue);
            *ring = Ring::new(queue, self.device.read(reg::QUEUE_NUM_MAX) as u16);
            ready &= self.device.set_queue(ring);
        }
        self.device.driver_ok();
        (0..self.rx.size).for_each(|head| self.offer(head));
        self.device.kick(&self.rx);
        ready
    }

    fn offer(&mut self, head: u16) {
        self.rx.chain(head, &[writable(memory::SHARED + u64::from(head) * BUFFER, BUFFER as u32)]);
        self.rx.offer(head);
    }

    /// Has the device take what stands at a head; whether it did so in time.
    fn take(&mut self, head: u16) -> bool {
        self.tx.offer(head);
        self.device.kick(&self.tx);
        self.tx.wait_used(1_000_000).is_some()
    }

    fn send(&mut self, header: Header, payload: u32) -> bool {
        header.write(memory::HEADERS);
        match payload {
            0 => self.tx.chain(0, &[readable(memory::HEADERS, HEADER as u32)]),
            len => self.tx.chain(0, &[readable(memory::HEADERS, HEADER as u32), readable(memory::DATA, len)]),
        }
        self.take(0)
    }

    /// The operation and the guest's port of the next packet from the host.
    fn receive(&mut self, us: u64) -> Option<(u16, u32)> {
        let used = self.rx.wait_used(us)?;
        let at = memory::SHARED + u64::from(used.id) * BUFFER;
        let packet = (memory::read(at + 30), memory::read(at + 20));
        self.offer(used.id as u16);
        self.device.kick(&self.rx);
        Some(packet)
    }

    /// The answer to the packets of one port; others are passed over.
    fn answer(&mut self, port: u32) -> Option<u16> {
        let end = clock::now_us() + 1_000_000;
        while clock::now_us() < end {
            if let Some((op, to)) = self.receive(1_000_000)
                && to == port
                && op != CREDIT_UPDATE
            {
                return Some(op);
            }
        }
        None
    }

    fn expect(&mut self, what: &str, header: Header, payload: u32, op: u16) {
        let answer = if self.send(header, payload) { self.answer(header.src_port) } else { None };
        report::check(answer == Some(op), format_args!("{what}: {answer:?} is the answer, not {op}"));
    }

    fn expect_nothing(&mut self, what: &str, header: Header) {
        let taken = self.send(header, 0);
        let answer = self.receive(2_000);
        report::check(taken && answer.is_none(), format_args!("{what}: {answer:?} is the answer, not nothing"));
    }

    fn connect(&mut self, port: u32) -> bool {
        self.send(header(port, REQUEST), 0) && self.answer(port) == Some(RESPONSE)
    }

    /// A connection is made and reset, and one to where nobody listens is refused.
    fn serves(&mut self) -> bool {
        while self.receive(0).is_some() {}
        let made = self.connect(70_000) && self.send(header(70_000, RST), 0);
        let nobody = Header { dst_port: PORT + 1, ..header(70_001, REQUEST) };
        made && self.send(nobody, 0) && self.answer(70_001) == Some(RST)
    }
}

fn on_vsock(cmdline: &Cmdline, case: impl FnOnce(&mut Vsock)) {
    let Some(device) = Device::find(cmdline, DEVICE_ID) else {
        report::ready();
        return report::fail(format_args!("there is no vsock"));
    };
    let mut vsock = Vsock { device, rx: Ring::new(0, 1), tx: Ring::new(1, 1), events: Ring::new(2, 1) };
    let warm = vsock.restart() && vsock.serves();
    report::ready();
    report::check(warm, format_args!("the vsock made no connection before the case"));
    case(&mut vsock);
    if vsock.tx.in_flight() == 0 && !device.needs_reset() && vsock.serves() {
        return report::line(format_args!("served directly"));
    }
    let again = vsock.restart() && vsock.serves();
    report::check(again, format_args!("no connection can be made afterwards, not even after a reset"));
    report::line(format_args!("served after a reset"));
}

fn odd(vsock: &mut Vsock) {
    for op in (RESPONSE..=CREDIT_REQUEST).filter(|op| *op != RST).chain([0, 8, 99, u16::MAX]) {
        vsock.expect("an operation without a connection", header(u32::from(op), op), 0, RST);
    }
    for kind in [0, 2, 3, u16::MAX] {
        vsock.expect("a type that there is not", Header { kind, ..header(1, REQUEST) }, 0, RST);
    }
    for dst_cid in [0, 1, CID, 4, u32::MAX.into(), u64::MAX] {
        vsock.expect("a packet to somebody else", Header { dst_cid, ..header(2, REQUEST) }, 0, RST);
    }
    for src_cid in [0, 1, HOST, 4, CID | 1 << 32, u32::MAX.into(), u64::MAX] {
        vsock.expect_nothing("a packet from somebody else", Header { src_cid, ..header(3, REQUEST) });
    }
    vsock.expect_nothing("a reset of nothing", header(4, RST));
    for len in [2, 0x1_0000, u32::MAX - 43, u32::MAX] {
        report::check(vsock.connect(5), format_args!("no connection is made"));
        vsock.expect("more data than there is", Header { len, ..header(5, RW) }, 1, RST);
    }
    for op in [REQUEST, RESPONSE, 99] {
        report::check(vsock.connect(6), format_args!("no connection is made"));
        vsock.expect("an operation that does not belong there", header(6, op), 0, RST);
    }
    report::check(vsock.connect(7), format_args!("no connection is made"));
    let closed = vsock.send(Header { flags: 2, ..header(7, SHUTDOWN) }, 0);
    report::check(closed, format_args!("a half is not closed"));
    vsock.expect("data behind the end", Header { len: 1, ..header(7, RW) }, 1, RST);
    for flags in [3, u32::MAX] {
        report::check(vsock.connect(8), format_args!("no connection is made"));
        vsock.expect("both halves closed", Header { flags, ..header(8, SHUTDOWN) }, 0, RST);
    }
    for dst_port in [0, u32::MAX] {
        vsock.expect("a port on which nobody listens", Header { dst_port, ..header(9, REQUEST) }, 0, RST);
    }
    vsock.expect("a request with data", Header { len: 1, ..header(10, REQUEST) }, 1, RESPONSE);
    for (room, consumed) in [(0, 0), (0, u32::MAX), (u32::MAX, 1 << 31), (u32::MAX, u32::MAX), (1, 2)] {
        for op in [CREDIT_UPDATE, CREDIT_REQUEST, RW] {
            let said = vsock.send(Header { room, consumed, flags: u32::MAX, ..header(10, op) }, 0);
            report::check(said, format_args!("a packet is not taken"));
        }
    }
    vsock.expect("both halves closed", Header { flags: 3, ..header(10, SHUTDOWN) }, 0, RST);
    vsock.expect_nothing("a reset of what was closed", header(10, RST));
    vsock.expect("room of what was closed", header(10, CREDIT_UPDATE), 0, RST);
    report::line(format_args!("case: operations, types, senders, receivers and lengths that are none"));
}

fn chains(vsock: &mut Vsock) {
    let own = vsock.device.base;
    let refuse = |vsock: &mut Vsock, what: &str| {
        let taken = vsock.take(0);
        let answer = vsock.receive(2_000);
        report::check(taken && answer.is_none(), format_args!("{what}: {answer:?} is the answer, not nothing"));
    };
    header(9, REQUEST).write(memory::HEADERS);
    for next in [0, vsock.tx.size, u16::MAX] {
        vsock.tx.describe(0, memory::HEADERS, HEADER as u32, NEXT, next);
        refuse(vsock, "a descriptor that leads back, or to none");
    }
    for (at, len) in [(memory::END, 44), (memory::END - 32, 44), (own, 44), (u64::MAX - 31, 44), (memory::HEADERS, 0)] {
        vsock.tx.describe(0, at, len, 0, 0);
        refuse(vsock, "a header in no RAM, or none");
    }
    vsock.tx.chain(0, &[readable(memory::HEADERS, 43)]);
    refuse(vsock, "a header that is too short");
    vsock.tx.chain(0, &[writable(memory::HEADERS, 100)]);
    refuse(vsock, "a header to be written");
    // In pieces of a byte it is as good as any.
    let mut pieces = [readable(memory::HEADERS, 1); HEADER as usize];
    pieces.iter_mut().enumerate().for_each(|(at, piece)| *piece = readable(memory::HEADERS + at as u64, 1));
    vsock.tx.chain(0, &pieces);
    let answer = if vsock.take(0) { vsock.answer(9) } else { None };
    report::check(answer == Some(RESPONSE), format_args!("a header in pieces: {answer:?} is the answer"));
    (Header { dst_port: PORT + 1, ..header(9, REQUEST) }).write(memory::HEADERS);
    vsock.tx.chain(0, &[readable(memory::HEADERS, 0x1000)]);
    let answer = if vsock.take(0) { vsock.answer(9) } else { None };
    report::check(answer == Some(RST), format_args!("a header with something behind it: {answer:?} is the answer"));
    report::line(format_args!("case: circles, buffers that are none, and headers that are short or in pieces"));
}

/// Fills what the host has room for, and then some.
fn beyond_credit(vsock: &mut Vsock) {
    let port = 20;
    report::check(vsock.connect(port), format_args!("no connection is made"));
    let len = 0x4000;
    let mut sent = 0u64;
    let reset = loop {
        let taken = vsock.send(Header { len, ..header(port, RW) }, len);
        sent += u64::from(len);
        match vsock.receive(0) {
            Some((RST, _)) => break true,
            _ if !taken || sent > 64 << 20 => break false,
            _ => {}
        }
    };
    report::check(reset, format_args!("{sent} bytes are taken without a word"));
    report::line(format_args!("case: a reset behind {sent} bytes"));
}

/// Connections that are made, left, reset and made again, as fast as it goes.
fn flood(vsock: &mut Vsock, us: u64) {
    let (mut port, mut answers) = (100u32, 0u64);
    let size = vsock.tx.size;
    again_and_again(us, || {
        while vsock.tx.in_flight() < size {
            let head = vsock.tx.avail_index() % size;
            let at = memory::HEADERS + u64::from(head) * 64;
            let op = match port % 8 {
                0 => RST,
                1 => SHUTDOWN,
                _ => REQUEST,
            };
            let from = if port % 8 < 2 { port.wrapping_sub(50) } else { port };
            (Header { flags: 3, ..header(from, op) }).write(at);
            vsock.tx.chain(head, &[readable(at, HEADER as u32)]);
            vsock.tx.offer(head);
            port = port.wrapping_add(1);
        }
        vsock.device.kick(&vsock.tx);
        while vsock.tx.take_used().is_some() {}
        while vsock.receive(0).is_some() {
            answers += 1;
        }
    });
    while vsock.tx.in_flight() > 0 && vsock.receive(1_000_000).is_some() {
        while vsock.tx.take_used().is_some() {}
        answers += 1;
    }
    report::check(answers > 0, format_args!("nothing is answered"));
    report::line(format_args!("case: {port} packets, {answers} answers"));
    // The host's program still has those that were not reset.
    vsock.restart();
}

/// Each packet needs an answer, and there is no room for any.
fn takes_nothing(vsock: &mut Vsock) {
    while vsock.rx.in_flight() > 0 {
        report::check(vsock.send(header(11, RW), 0), format_args!("a packet is not taken"));
        if vsock.rx.wait_used(1_000_000).is_none() {
            return report::fail(format_args!("no answer, with {} buffers left", vsock.rx.in_flight()));
        }
    }
    let size = vsock.tx.size;
    header(12, RW).write(memory::HEADERS);
    let mut taken = 0u32;
    again_and_again(300_000, || {
        while vsock.tx.in_flight() < size {
            let head = vsock.tx.avail_index() % size;
            vsock.tx.chain(head, &[readable(memory::HEADERS, HEADER as u32)]);
            vsock.tx.offer(head);
        }
        vsock.device.kick(&vsock.tx);
        while vsock.tx.take_used().is_some() {
            taken += 1;
        }
    });
    report::check(taken <= 1024, format_args!("{taken} packets are taken without room for an answer"));
    (0..vsock.rx.size).for_each(|head| vsock.offer(head));
    vsock.device.kick(&vsock.rx);
    while vsock.tx.in_flight() > 0 {
        if vsock.receive(1_000_000).is_none() {
            return report::fail(format_args!("no answers any more, with {} packets left", vsock.tx.in_flight()));
        }
        while vsock.tx.take_used().is_some() {}
    }
    report::line(format_args!("case: {taken} packets taken without room for an answer"));
}
